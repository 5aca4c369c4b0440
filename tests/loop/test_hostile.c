/* SPDX-License-Identifier: BSD-2-Clause */
/* The balloon driver against devices that break the rules, and the device's
 * half of the ring against drivers that do. */
#include "loop.h"

#include "port_virtual.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

static int setup(void **state)
{
    (void)state;
    loop_init(EBB_F_STATS_VQ | EBB_F_PAGE_REPORTING | EBB_F_MUST_TELL_HOST);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_exit();
    return 0;
}

/* ---- at start ---- */

static void no_version_1(void)
{
    loop.model.offered &= ~EBB_F_VERSION_1;
}
static void features_refused(void)
{
    loop.model.refuse_features_ok = true;
}
static void never_out_of_reset(void)
{
    loop.model.stuck_in_reset = true;
}
static void no_inflate_queue(void)
{
    loop.model.queues[0].max = 0;
}
static void no_deflate_queue(void)
{
    loop.model.queues[1].max = 0;
}
static void no_stats_queue(void)
{
    loop.model.queues[2].max = 0;
}
static void no_reporting_queue(void)
{
    loop.model.queues[3].max = 0;
}
static void queue_not_programmed(void)
{
    loop.model.setup_error = -EBB_EPROTO;
}

static void refuses_to_start(void **state)
{
    static const struct {
        void (*fault)(void);
        int err;
    } cases[] = {
        {no_version_1, -EBB_ENODEV},          {features_refused, -EBB_ENODEV},
        {never_out_of_reset, -EBB_ETIMEDOUT}, {no_inflate_queue, -EBB_ENOSPC},
        {no_deflate_queue, -EBB_ENOSPC},      {no_stats_queue, -EBB_ENOSPC},
        {no_reporting_queue, -EBB_ENOSPC},    {queue_not_programmed, -EBB_EPROTO},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        teardown(state);
        setup(state);
        cases[i].fault();
        assert_int_equal(ebb_balloon_start(&loop.balloon, &loop.config), cases[i].err);
        assert_true(port_virtual.now < 3000000000u);
        /* The device knows no ring any more, and the driver does nothing. */
        for (unsigned q = 0; q < MODEL_QUEUES; q++)
            assert_int_equal(loop.model.queues[q].size, 0);
        if (cases[i].err != -EBB_ETIMEDOUT)
            assert_int_equal(loop.model.status, EBB_STATUS_FAILED);
        assert_int_equal(ebb_balloon_attach(&loop.balloon, &fake_report.report), -EBB_EOPNOTSUPP);
        loop.model.irq = 3;
        ebb_balloon_irq(&loop.balloon);
        assert_false(ebb_balloon_work(&loop.balloon));
    }
}

static void absurd_queue_sizes(void **state)
{
    static const unsigned sizes[][2] = {
        {UINT32_MAX, 128}, {0x80000000u, 128}, {129, 128}, {127, 64}, {3, 2}, {1, 1},
    };

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        teardown(state);
        setup(state);
        for (unsigned q = 0; q < MODEL_QUEUES; q++)
            loop.model.queues[q].max = sizes[i][0];
        loop_start();
        for (unsigned q = 0; q < 4; q++)
            assert_int_equal(loop.model.queues[q].size, sizes[i][1]);
        model_resize(&loop.model, 1000);
        loop_settle();
        assert_int_equal(loop.model.balloon_size, 1000);
    }
}

/* ---- while it runs ---- */

/* What can go wrong with a queue that has one chain out, whose head is 0. */
static void id_beyond(struct model_queue *q)
{
    model_raw_used(&loop.model, q, q->size, 0);
}
static void id_huge(struct model_queue *q)
{
    model_raw_used(&loop.model, q, UINT32_MAX, 0);
}
static void id_not_outstanding(struct model_queue *q)
{
    model_raw_used(&loop.model, q, q->size - 1, 0);
}
static void id_inside_the_chain(struct model_queue *q)
{
    model_raw_used(&loop.model, q, 1, 0);
}
static void index_jumps(struct model_queue *q)
{
    model_raw_used_idx(&loop.model, q, 2);
}
static void index_jumps_far(struct model_queue *q)
{
    model_raw_used_idx(&loop.model, q, 0x7fff);
}
static void index_goes_back(struct model_queue *q)
{
    model_raw_used_idx(&loop.model, q, -1);
}
static void used_twice(struct model_queue *q)
{
    model_raw_used(&loop.model, q, 0, 0);
    model_raw_used(&loop.model, q, 0, 0);
}

static void breaks_a_queue(void **state)
{
    static void (*const faults[])(struct model_queue *) = {
        id_beyond,   id_huge,         id_not_outstanding, id_inside_the_chain,
        index_jumps, index_jumps_far, index_goes_back,    used_twice,
    };
    static const unsigned queues[] = {EBB_BALLOON_INFLATE, EBB_BALLOON_STATS,
                                      EBB_BALLOON_REPORTING};

    for (unsigned i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        for (unsigned k = 0; k < 3; k++) {
            teardown(state);
            setup(state);
            loop_start();
            loop.model.silent = true;
            model_resize(&loop.model, 50);
            loop_irq();
            (void)ebb_balloon_work(&loop.balloon); /* statistics and 50 frames are out */
            assert_int_equal(fake_submit(0, 2 * MIB, 4), 0);

            faults[i](model_queue(&loop.model, queues[k]));
            loop_irq();
            assert_false(ebb_balloon_work(&loop.balloon));

            assert_int_equal(loop.balloon.counters.protocol_errors, 1);
            assert_int_equal(fake_report.completions, 1);
            assert_int_equal(fake_report.status, -EBB_EPROTO);
            /* Reset before: it has forgotten the ranges when they are used again. */
            assert_int_equal(fake_report.seen_status, 0);
            assert_int_equal(loop.model.status, 0);
            assert_int_equal(fake_submit(0, 2 * MIB, 4), -EBB_EIO);
            /* Nothing more comes of it, whatever arrives. */
            loop.model.irq = 3;
            ebb_balloon_irq(&loop.balloon);
            fake_report.device->ops->poll(fake_report.device);
            assert_false(ebb_balloon_work(&loop.balloon));
            assert_int_equal(fake_report.completions, 1);
            assert_int_equal(loop.balloon.counters.protocol_errors, 1);

            /* And a new start is a new start. */
            assert_int_equal(ebb_balloon_stop(&loop.balloon), 0);
            loop.model.silent = false;
            loop_start();
            assert_int_equal(fake_submit(0, 2 * MIB, 4), 0);
            loop_settle();
            assert_int_equal(fake_report.status, 0);
        }
    }
}

static void claims_too_many_bytes(void **state)
{
    static const uint32_t lengths[] = {8 * (uint32_t)MIB + 1, UINT32_MAX};

    for (unsigned i = 0; i < 2; i++) {
        teardown(state);
        setup(state);
        loop_start();
        loop.model.reporting_len = lengths[i];
        assert_int_equal(fake_submit(0, 2 * MIB, 4), 0);
        model_run(&loop.model);
        loop_irq();
        assert_int_equal(fake_report.completions, 1);
        assert_int_equal(fake_report.status, -EBB_EPROTO);
        assert_int_equal(loop.balloon.counters.protocol_errors, 1);
    }
}

/* A batch that came back in order counts, though what follows does not. */
static void right_then_wrong(void **state)
{
    struct model_queue *q;

    (void)state;
    loop_start();
    q = model_queue(&loop.model, EBB_BALLOON_REPORTING);
    assert_int_equal(fake_submit(0, 2 * MIB, 4), 0);
    model_raw_used(&loop.model, q, 0, 0);
    loop_irq();
    assert_int_equal(fake_report.status, 0);
    model_raw_used(&loop.model, q, 0, 0);
    loop_irq();
    assert_int_equal(fake_report.completions, 1);
    assert_int_equal(loop.balloon.counters.protocol_errors, 1);
    assert_int_equal(fake_submit(0, 2 * MIB, 4), -EBB_EIO);
}

/* Half of a batch of several chains, then nonsense: it failed as a whole. */
static void half_a_batch(void **state)
{
    struct model_queue *q;

    (void)state;
    loop_start();
    q = model_queue(&loop.model, EBB_BALLOON_REPORTING);
    assert_int_equal(fake_submit(0, 1024 * MIB, 6), 0);
    model_raw_used(&loop.model, q, 0, 0);
    loop_irq();
    assert_int_equal(fake_report.completions, 0);
    model_raw_used(&loop.model, q, 0, 0);
    loop_irq();
    assert_int_equal(fake_report.completions, 1);
    assert_int_equal(fake_report.status, -EBB_EPROTO);
}

static void answers_on_another_queue(void **state)
{
    (void)state;
    loop_start();
    loop.model.silent = true;
    assert_int_equal(fake_submit(0, 2 * MIB, 4), 0);
    model_raw_used(&loop.model, model_queue(&loop.model, EBB_BALLOON_DEFLATE), 0, 0);
    loop_irq();
    assert_int_equal(fake_report.completions, 0);
    (void)ebb_balloon_work(&loop.balloon);
    assert_int_equal(fake_report.completions, 1);
    assert_int_equal(fake_report.status, -EBB_EPROTO);
}

static void never_answers(void **state)
{
    for (unsigned stuck = 0; stuck < 2; stuck++) {
        teardown(state);
        setup(state);
        loop_start();
        loop.model.silent = true;
        model_resize(&loop.model, 100);
        loop_settle();
        assert_int_equal(fake_submit(0, 2 * MIB, 4), 0);
        for (unsigned i = 0; i < 100; i++) {
            fake_report.device->ops->poll(fake_report.device);
            assert_false(ebb_balloon_work(&loop.balloon));
        }
        assert_int_equal(fake_report.completions, 0);
        loop.model.stuck_in_reset = stuck;
        if (stuck) {
            /* It may still drop what it has, so it keeps it. */
            assert_int_equal(ebb_balloon_stop(&loop.balloon), -EBB_ETIMEDOUT);
            assert_int_equal(fake_report.completions, 0);
            loop.model.stuck_in_reset = false;
        }
        assert_int_equal(ebb_balloon_stop(&loop.balloon), 0);
        assert_int_equal(fake_report.completions, 1);
        assert_int_equal(fake_report.status, -EBB_ECANCELED);
        assert_int_equal(fake_report.seen_status, 0);
        assert_int_equal(fake_report.unregisters, 1);
        assert_true(port_virtual.now < 2000000000u);
    }
}

/* A batch ends when the device has forgotten it, not when it is told to. */
static void breaks_a_queue_and_resets_slowly(void **state)
{
    (void)state;
    for (unsigned by_poll = 0; by_poll < 2; by_poll++) {
        teardown(state);
        setup(state);
        loop_start();
        loop.model.silent = true;
        assert_int_equal(fake_submit(0, 2 * MIB, 4), 0);
        loop.model.stuck_in_reset = true;
        model_raw_used(&loop.model, model_queue(&loop.model, EBB_BALLOON_REPORTING), 77, 0);
        loop_irq();
        for (unsigned i = 0; i < 10; i++) {
            assert_true(ebb_balloon_work(&loop.balloon));
            fake_report.device->ops->poll(fake_report.device);
        }
        assert_int_equal(fake_report.completions, 0);
        loop.model.stuck_in_reset = false;
        if (by_poll)
            fake_report.device->ops->poll(fake_report.device);
        assert_false(ebb_balloon_work(&loop.balloon));
        assert_int_equal(fake_report.completions, 1);
        assert_int_equal(fake_report.status, -EBB_EPROTO);
        assert_int_equal(fake_submit(0, 2 * MIB, 4), -EBB_EIO);
    }
}

static void answers_after_the_reset(void **state)
{
    struct model_queue q;

    (void)state;
    loop_start();
    assert_int_equal(fake_submit(0, 2 * MIB, 4), 0);
    q = *model_queue(&loop.model, EBB_BALLOON_REPORTING);
    assert_int_equal(ebb_balloon_stop(&loop.balloon), 0);
    model_raw_used(&loop.model, &q, 0, 0);
    ebb_balloon_irq(&loop.balloon);
    assert_int_equal(fake_report.completions, 1);
    assert_int_equal(fake_report.status, -EBB_ECANCELED);

    /* A late answer that falls into the next life's ring is not believed. */
    loop_start();
    model_raw_used(&loop.model, &q, 0, 0);
    ebb_balloon_irq(&loop.balloon);
    assert_int_equal(fake_report.completions, 1);
    assert_int_equal(loop.balloon.counters.protocol_errors, 1);
}

static void needs_reset(void **state)
{
    (void)state;
    loop_start();
    loop_settle();
    loop.model.silent = true;
    assert_int_equal(fake_submit(0, 2 * MIB, 4), 0);
    model_needs_reset(&loop.model);
    loop_irq();
    assert_false(ebb_balloon_work(&loop.balloon));
    assert_int_equal(fake_report.completions, 1);
    assert_int_equal(fake_report.status, -EBB_EIO);
    assert_int_equal(fake_submit(0, 2 * MIB, 4), -EBB_EIO);
    assert_int_equal(loop.balloon.counters.protocol_errors, 0);
    assert_int_equal(ebb_balloon_stop(&loop.balloon), 0);
    loop.model.silent = false;
    loop_start();
    assert_int_equal(fake_submit(0, 2 * MIB, 4), 0);
    loop_settle();
    assert_int_equal(fake_report.status, 0);
}

/* The host rewrites what was sent to it while it has it: the guest gets back
 * the frames that it gave. */
static void rewrites_what_it_was_sent(void **state)
{
    (void)state;
    loop_start();
    model_resize(&loop.model, 300);
    loop_settle();
    model_resize(&loop.model, 0);
    for (unsigned i = 0; i < 10; i++) {
        loop_irq();
        (void)ebb_balloon_work(&loop.balloon);
        model_run(&loop.model);
        memset(loop.balloon.pfns, 0xff, EBB_BALLOON_PFNS * 4);
    }
    assert_int_equal(loop.held, 0);
    assert_int_equal(loop.balloon.actual, 0);
}

/* It writes to the parts of the ring that it must only read. */
static void scribbles_on_the_driver_area(void **state)
{
    (void)state;
    loop_start();
    for (unsigned i = 0; i < 300; i++) {
        struct model_queue *q = model_queue(&loop.model, EBB_BALLOON_REPORTING);

        assert_int_equal(fake_submit(0, 2 * MIB, 1 + i % 32), 0);
        model_run(&loop.model);
        memset(model_translate(&loop.model, q->desc, 1), 0xff, 32 * 16);
        memset(model_translate(&loop.model, q->avail + 4, 1), 0xff, 32 * 2);
        loop_irq();
        assert_int_equal(fake_report.completions, i + 1);
        assert_int_equal(fake_report.status, 0);
    }
    assert_int_equal(loop.model.bad_requests, 0);
}

/* Configuration changes of every kind, all the time. */
static void restless_size(void **state)
{
    static const uint32_t sizes[] = {UINT32_MAX, 0, 1, 0x80000000u, 4095, UINT32_MAX - 1, 256};

    (void)state;
    loop_start();
    for (unsigned i = 0; i < 700; i++) {
        model_resize(&loop.model, sizes[i % 7]);
        loop_irq();
        (void)ebb_balloon_work(&loop.balloon);
        model_run(&loop.model);
        assert_true(loop.held <= LOOP_FRAMES);
    }
    model_resize(&loop.model, 0);
    loop_settle();
    assert_int_equal(loop.model.balloon_size, 0);
    assert_int_equal(loop.held, 0);
    assert_int_equal(loop.model.bad_requests, 0);
}

/* ---- a driver that breaks the rules, before an honest device ---- */

static void chain_loops(uint8_t *desc)
{
    desc[12] = EBB_DESC_NEXT | EBB_DESC_WRITE;
    desc[14] = 0;
}
static void chain_leaves(uint8_t *desc)
{
    desc[12] = EBB_DESC_NEXT | EBB_DESC_WRITE;
    desc[14] = 200;
}
static void chain_is_indirect(uint8_t *desc)
{
    desc[12] = EBB_DESC_INDIRECT;
}
static void chain_writes_first(uint8_t *desc)
{
    desc[12] = EBB_DESC_WRITE | EBB_DESC_NEXT;
    desc[14] = 1;
    desc[16 + 12] = 0;
}

static void ruins_a_chain(void **state)
{
    static void (*const faults[])(uint8_t *) = {chain_loops, chain_leaves, chain_is_indirect,
                                                chain_writes_first};

    for (unsigned i = 0; i < 4; i++) {
        teardown(state);
        setup(state);
        loop_start();
        assert_int_equal(fake_submit(0, 2 * MIB, 2), 0);
        faults[i](model_translate(&loop.model,
                                  model_queue(&loop.model, EBB_BALLOON_REPORTING)->desc, 32));
        model_run(&loop.model);
        assert_int_equal(loop.model.reporting_chains, 0);
        assert_int_equal(loop.model.status & EBB_STATUS_NEEDS_RESET, EBB_STATUS_NEEDS_RESET);
        /* Which our driver understands. */
        loop_irq();
        assert_false(ebb_balloon_work(&loop.balloon));
        assert_int_equal(fake_report.status, -EBB_EIO);
    }
}

/* Legal chains with senseless ranges: each is refused, the chain comes back. */
static void senseless_ranges(void **state)
{
    static const struct ebb_range ranges[] = {
        {.addr = UINT64_MAX - 4095, .len = 8192},   {.addr = MODEL_SPACE, .len = 4096},
        {.addr = MODEL_SPACE - 4096, .len = 8192},  {.addr = 100, .len = 4096},
        {.addr = 0xfffffffffffff000u, .len = 4096},
    };

    (void)state;
    loop_start();
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(fake_submit(ranges[i].addr, ranges[i].len, 1), 0);
        model_run(&loop.model);
        loop_irq();
        assert_int_equal(fake_report.completions, i + 1);
        assert_int_equal(loop.model.bad_requests, i + 1);
    }
    assert_int_equal(loop.model.range_count, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(refuses_to_start),
        TEST(absurd_queue_sizes),
        TEST(breaks_a_queue),
        TEST(claims_too_many_bytes),
        TEST(right_then_wrong),
        TEST(half_a_batch),
        TEST(answers_on_another_queue),
        TEST(never_answers),
        TEST(breaks_a_queue_and_resets_slowly),
        TEST(answers_after_the_reset),
        TEST(needs_reset),
        TEST(rewrites_what_it_was_sent),
        TEST(scribbles_on_the_driver_area),
        TEST(restless_size),
        TEST(ruins_a_chain),
        TEST(senseless_ranges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
