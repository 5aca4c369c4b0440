/* SPDX-License-Identifier: BSD-2-Clause */
/* The balloon driver against an honest device. */
#include "loop.h"

#include "port_virtual.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

#define ALL                                                                                \
    (EBB_F_MUST_TELL_HOST | EBB_F_STATS_VQ | EBB_F_DEFLATE_ON_OOM | EBB_F_FREE_PAGE_HINT | \
     EBB_F_PAGE_POISON | EBB_F_PAGE_REPORTING | EBB_F_INDIRECT_DESC | EBB_F_EVENT_IDX |    \
     EBB_F_ACCESS_PLATFORM)

static int setup(void **state)
{
    (void)state;
    loop_init(EBB_F_STATS_VQ | EBB_F_PAGE_REPORTING);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    loop_exit();
    return 0;
}

/* ---- start ---- */

static void handshake(void **state)
{
    static const uint8_t expected[] = {0, 1, 1 | 2, 1 | 2 | 8, 1 | 2 | 8 | 4};

    (void)state;
    loop_start();
    assert_int_equal(loop.model.statuses, sizeof(expected));
    assert_memory_equal(loop.model.status_log, expected, sizeof(expected));
    assert_true(port_virtual.wakes > 0);
    assert_ptr_equal(port_virtual.worker, &loop);
}

static void bad_configurations(void **state)
{
    struct ebb_balloon_config bad[6];

    (void)state;
    for (unsigned i = 0; i < 6; i++)
        bad[i] = loop.config;
    bad[0].transport = NULL;
    bad[1].dma = NULL;
    bad[2].dma = loop.model.ram + 16;
    bad[3].dma_addr += 512;
    bad[4].dma_addr = UINT64_MAX - 4095;
    bad[5].numbering = 2;
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(ebb_balloon_start(&loop.balloon, &bad[i]), -EBB_EINVAL);
    assert_int_equal(loop.model.statuses, 0); /* the device was left alone */
}

static void features_by_configuration(void **state)
{
    static const struct ebb_balloon_ops no_ops = {0};
    static const struct {
        uint64_t offered;
        bool poison, ops;
        uint64_t refuse, accepted;
    } cases[] = {
        {0, false, true, 0, 0},
        {ALL, false, true, 0, EBB_F_MUST_TELL_HOST | EBB_F_STATS_VQ | EBB_F_PAGE_REPORTING},
        {ALL, true, true, 0,
         EBB_F_MUST_TELL_HOST | EBB_F_STATS_VQ | EBB_F_PAGE_POISON | EBB_F_PAGE_REPORTING},
        {ALL, false, false, 0, EBB_F_MUST_TELL_HOST | EBB_F_PAGE_REPORTING},
        /* Content that matters, and a host that does not know it: no reporting. */
        {EBB_F_PAGE_REPORTING, true, true, 0, 0},
        {ALL, true, true, EBB_F_PAGE_POISON, EBB_F_MUST_TELL_HOST | EBB_F_STATS_VQ},
        {ALL, false, true, EBB_F_PAGE_REPORTING, EBB_F_MUST_TELL_HOST | EBB_F_STATS_VQ},
        {EBB_F_PAGE_POISON, true, true, 0, EBB_F_PAGE_POISON},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        teardown(state);
        loop_init(cases[i].offered);
        loop.config.poison = cases[i].poison;
        loop.config.refuse = cases[i].refuse;
        if (!cases[i].ops)
            loop.config.ops = i % 2 ? NULL : &no_ops;
        loop_start();
        assert_int_equal(loop.model.accepted, cases[i].accepted | EBB_F_VERSION_1);
        assert_int_equal(loop.balloon.features, loop.model.accepted);
    }
}

static void poison_value(void **state)
{
    for (unsigned on = 0; on < 2; on++) {
        teardown(state);
        loop_init(EBB_F_PAGE_POISON | EBB_F_PAGE_REPORTING);
        loop.config.poison = on;
        loop.config.poison_val = 0xaaaa5555u;
        loop_start();
        assert_int_equal(loop.model.poison_at_driver_ok, on ? 0xaaaa5555u : 0);
        loop_settle();
        assert_int_equal(model_config32(&loop.model, 12), on ? 0xaaaa5555u : 0);
    }
}

static unsigned has(uint64_t features, uint64_t bit)
{
    return (features & bit) != 0;
}

/* Every subset of what a device may offer, every way to number, with what the
 * driver accepts and what it does not: its queues are where the device looks. */
static void queue_numbers(void **state)
{
    static const uint64_t optional[] = {
        EBB_F_MUST_TELL_HOST, EBB_F_STATS_VQ,    EBB_F_DEFLATE_ON_OOM,
        EBB_F_FREE_PAGE_HINT, EBB_F_PAGE_POISON, EBB_F_PAGE_REPORTING,
    };

    for (unsigned subset = 0; subset < 64; subset++) {
        for (unsigned mode = 0; mode < 4; mode++) {
            const bool fixed = mode & 1, accept_stats = mode & 2;
            uint64_t offered = 0;
            struct model_queue *q;
            unsigned set_up = 0;

            for (unsigned i = 0; i < 6; i++)
                offered |= subset & 1u << i ? optional[i] : 0;
            teardown(state);
            loop_init(offered);
            loop.config.numbering = fixed ? EBB_BALLOON_FIXED : EBB_BALLOON_DENSE;
            loop.config.refuse = accept_stats ? 0 : EBB_F_STATS_VQ;
            loop.model.fixed_numbers = fixed;
            loop_start();

            for (unsigned i = 0; i < MODEL_QUEUES; i++)
                set_up += loop.model.queues[i].size != 0;
            assert_int_equal(set_up, 2 + has(offered, EBB_F_PAGE_REPORTING) +
                                         (accept_stats ? has(offered, EBB_F_STATS_VQ) : 0));
            assert_ptr_equal(model_queue(&loop.model, EBB_BALLOON_INFLATE), &loop.model.queues[0]);
            assert_ptr_equal(model_queue(&loop.model, EBB_BALLOON_DEFLATE), &loop.model.queues[1]);

            q = model_queue(&loop.model, EBB_BALLOON_REPORTING);
            if (q) {
                const unsigned before =
                    has(offered, EBB_F_STATS_VQ) + has(offered, EBB_F_FREE_PAGE_HINT);

                assert_ptr_equal(q, &loop.model.queues[fixed ? 4 : 2 + before]);
                assert_int_equal(fake_submit(2 * MIB, 2 * MIB, 3), 0);
                loop_settle();
                assert_int_equal(fake_report.completions, 1);
                assert_int_equal(loop.model.range_count, 3);
            }
            q = model_queue(&loop.model, EBB_BALLOON_STATS);
            loop_settle();
            assert_int_equal(loop.model.stats_buffers, q && accept_stats);
            assert_int_equal(loop.model.bad_requests, 0);
        }
    }
}

/* A device that counts what was accepted agrees whenever all was accepted. */
static void counted_by_acceptance(void **state)
{
    (void)state;
    loop.model.count_accepted = true;
    loop_start();
    assert_int_equal(fake_submit(0, 2 * MIB, 1), 0);
    loop_settle();
    assert_int_equal(fake_report.completions, 1);
}

static void config_golden_bytes(void **state)
{
    static const uint8_t expected[16] = {
        0x03, 0x01, 0, 0, 0x03, 0x01, 0, 0, 0, 0, 0, 0, 0xdd, 0xcc, 0xbb, 0xaa,
    };

    teardown(state);
    loop_init(EBB_F_PAGE_POISON);
    loop.config.poison = true;
    loop.config.poison_val = 0xaabbccddu;
    memset(loop.model.config, 0, sizeof(loop.model.config));
    loop.model.config[0] = 0x03; /* 259 pages: two transfers */
    loop.model.config[1] = 0x01;
    loop.model.config[4] = 0x77; /* left by an earlier driver */
    loop_start();
    assert_int_equal(loop.model.config[4], 0);
    loop_settle();
    assert_memory_equal(loop.model.config, expected, sizeof(expected));
}

/* ---- reporting ---- */

static void reports_a_batch(void **state)
{
    (void)state;
    loop_start();
    assert_int_equal(loop.balloon.device.capacity, 32);
    for (unsigned round = 0; round < 5000; round++) {
        const unsigned n = 1 + round % 32;

        loop.model.range_count = 0;
        assert_int_equal(fake_submit(round * 64 * MIB, 2 * MIB, n), 0);
        assert_int_equal(loop.balloon.in_flight, 1); /* one chain */
        assert_true(model_run(&loop.model) > 0);
        assert_int_equal(fake_report.completions, round);
        loop_irq();
        assert_int_equal(fake_report.completions, round + 1);
        assert_int_equal(fake_report.status, 0);
        assert_int_equal(loop.model.range_count, n);
        for (unsigned i = 0; i < n; i++) {
            assert_int_equal(loop.model.ranges[i].addr, round * 64 * MIB + i * 2 * MIB);
            assert_int_equal(loop.model.ranges[i].len, 2 * MIB);
        }
    }
    assert_int_equal(loop.balloon.counters.batches, 5000);
    assert_int_equal(loop.balloon.counters.protocol_errors, 0);
    assert_int_equal(loop.model.bad_requests, 0);
}

/* A chain holds less than 4 GiB, so that a batch of the largest blocks is several. */
static void reports_large_blocks(void **state)
{
    (void)state;
    loop_start();
    assert_int_equal(fake_submit(GIB, GIB, 32), 0);
    assert_int_equal(loop.balloon.in_flight, 11); /* three to a chain */
    loop.model.reporting_len = 0;
    model_run(&loop.model);
    assert_int_equal(loop.model.reporting_chains, 11);
    assert_int_equal(loop.model.range_count, 32);
    loop_irq();
    assert_int_equal(fake_report.completions, 1);
    assert_int_equal(fake_report.status, 0);
    assert_int_equal(loop.model.reported_bytes, 32 * GIB);
}

/* It is done only when all its chains are. */
static void waits_for_all_chains(void **state)
{
    struct model_queue *q;

    (void)state;
    loop_start();
    q = model_queue(&loop.model, EBB_BALLOON_REPORTING);
    assert_int_equal(fake_submit(0, GIB, 6), 0);
    model_raw_used(&loop.model, q, 3, 0);
    loop_irq();
    assert_int_equal(fake_report.completions, 0);
    assert_int_equal(fake_submit(0, GIB, 1), -EBB_EBUSY);
    fake_report.in_flight = true; /* it still is */
    model_raw_used(&loop.model, q, 0, 3 * (uint32_t)GIB);
    loop_irq();
    assert_int_equal(fake_report.completions, 1);
}

static void refuses_bad_batches(void **state)
{
    (void)state;
    loop_start();
    assert_int_equal(fake_submit(0, MIB, 0), -EBB_EINVAL);
    assert_int_equal(fake_submit(0, MIB, 33), -EBB_EINVAL);
    assert_int_equal(fake_submit(0, 0, 1), -EBB_EINVAL);
    assert_int_equal(fake_submit(0, 4 * GIB, 1), -EBB_EINVAL);
    assert_int_equal(loop.balloon.counters.batches, 0);
    assert_int_equal(model_run(&loop.model), 0);
}

static void used_lengths(void **state)
{
    static const uint32_t lengths[] = {0, 4096, 8 * (uint32_t)MIB}; /* none, some, all */

    (void)state;
    loop_start();
    for (unsigned i = 0; i < 3; i++) {
        loop.model.reporting_len = lengths[i];
        assert_int_equal(fake_submit(0, 2 * MIB, 4), 0);
        model_run(&loop.model);
        loop_irq();
        assert_int_equal(fake_report.completions, i + 1);
        assert_int_equal(fake_report.status, 0);
    }
}

static void completes_by_poll(void **state)
{
    (void)state;
    loop_start();
    assert_int_equal(fake_submit(0, MIB, 2), 0);
    fake_report.device->ops->poll(fake_report.device);
    assert_int_equal(fake_report.completions, 0);
    model_run(&loop.model);
    fake_report.device->ops->poll(fake_report.device);
    assert_int_equal(fake_report.completions, 1);
    loop_irq(); /* comes late, finds nothing */
    assert_int_equal(fake_report.completions, 1);
}

static void detach_waits_for_the_batch(void **state)
{
    (void)state;
    loop_start();
    assert_int_equal(fake_submit(0, MIB, 2), 0);
    model_run(&loop.model); /* but no interrupt */
    ebb_balloon_detach(&loop.balloon);
    assert_int_equal(fake_report.completions, 1);
    assert_int_equal(fake_report.status, 0);
    assert_null(fake_report.device);
    ebb_balloon_detach(&loop.balloon);
    assert_int_equal(fake_report.unregisters, 1);
    /* And can come back. */
    assert_int_equal(ebb_balloon_attach(&loop.balloon, &fake_report.report), 0);
    assert_int_equal(ebb_balloon_attach(&loop.balloon, &fake_report.report), -EBB_EBUSY);
}

static void attach_errors(void **state)
{
    (void)state;
    assert_int_equal(ebb_balloon_start(&loop.balloon, &loop.config), 0);
    fake_report.register_error = -EBB_EBUSY;
    assert_int_equal(ebb_balloon_attach(&loop.balloon, &fake_report.report), -EBB_EBUSY);
    assert_null(loop.balloon.report);
    teardown(state);

    loop_init(0);
    assert_int_equal(ebb_balloon_start(&loop.balloon, &loop.config), 0);
    assert_int_equal(ebb_balloon_attach(&loop.balloon, &fake_report.report), -EBB_EOPNOTSUPP);
}

static void capacity_follows_the_queue(void **state)
{
    static const unsigned sizes[][2] = {
        {1, 1}, {2, 2}, {3, 2}, {31, 16}, {32, 32}, {100, 64}, {128, 128}, {1024, 128},
    };

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        teardown(state);
        setup(state);
        model_queue(&loop.model, EBB_BALLOON_REPORTING)->max = sizes[i][0];
        loop_start();
        assert_int_equal(loop.balloon.device.capacity, sizes[i][1]);
        assert_int_equal(fake_submit(0, MIB, sizes[i][1]), 0);
        loop_settle();
        assert_int_equal(fake_report.completions, 1);
        assert_int_equal(loop.model.range_count, sizes[i][1]);
    }
}

/* ---- inflate and deflate ---- */

static void check_balloon(unsigned frames)
{
    assert_int_equal(loop.balloon.actual, frames);
    assert_int_equal(loop.held, frames);
    assert_int_equal(loop.model.balloon_size, frames);
    assert_int_equal(model_config32(&loop.model, EBB_BALLOON_CFG_ACTUAL), frames);
    assert_int_equal(loop.model.bad_requests, 0);
}

static void follows_the_host(void **state)
{
    static const unsigned sizes[] = {1, 256, 257, 1000, 999, 4096, 10, 0, 0, 300, 0};
    uint64_t up = 0, down = 0;
    unsigned before = 0;

    (void)state;
    loop_start();
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        model_resize(&loop.model, sizes[i]);
        loop_settle();
        check_balloon(sizes[i]);
        up += sizes[i] > before ? sizes[i] - before : 0;
        down += sizes[i] < before ? before - sizes[i] : 0;
        before = sizes[i];
    }
    assert_int_equal(loop.balloon.counters.inflated, up);
    assert_int_equal(loop.balloon.counters.deflated, down);
}

/* Frames are used again only after the host knows. */
static void deflates_after_the_answer(void **state)
{
    (void)state;
    loop_start();
    model_resize(&loop.model, 100);
    loop_settle();
    check_balloon(100);
    loop.model.silent = true;
    model_resize(&loop.model, 0);
    loop_irq();
    for (unsigned i = 0; i < 10; i++)
        assert_false(ebb_balloon_work(&loop.balloon));
    assert_int_equal(loop.held, 100);
    assert_int_equal(loop.balloon.actual, 100);
    loop.model.silent = false;
    loop_settle();
    check_balloon(0);
}

/* What is sent does not follow changes while it is on its way. */
static void resized_on_the_way(void **state)
{
    (void)state;
    loop_start();
    for (unsigned i = 0; i < 200; i++) {
        model_resize(&loop.model, i * 7919 % 3000);
        loop_irq();
        (void)ebb_balloon_work(&loop.balloon);
        if (i % 3 == 0)
            model_run(&loop.model);
    }
    model_resize(&loop.model, 123);
    loop_settle();
    check_balloon(123);
}

static void nothing_to_spare(void **state)
{
    (void)state;
    loop_start();
    loop_settle();
    loop.spare = 10;
    model_resize(&loop.model, 50);
    loop_settle();
    check_balloon(10);
    assert_true(ebb_balloon_work(&loop.balloon)); /* to be called again */
    loop.spare = 40;
    assert_false(ebb_balloon_work(&loop.balloon)); /* an interrupt will come */
    loop_settle();
    check_balloon(50);
    assert_false(ebb_balloon_work(&loop.balloon));
}

static void absurd_size(void **state)
{
    (void)state;
    loop_start();
    model_resize(&loop.model, UINT32_MAX);
    loop_settle();
    check_balloon(LOOP_FRAMES);
    assert_true(ebb_balloon_work(&loop.balloon));
    model_resize(&loop.model, 0);
    loop_settle();
    check_balloon(0);
}

/* Some hosts put a length on chains that they only read. */
static void lengths_of_read_chains(void **state)
{
    (void)state;
    loop.model.reading_len = 1024;
    loop_start();
    model_resize(&loop.model, 500);
    loop_settle();
    check_balloon(500);
    model_poll_stats(&loop.model);
    loop_settle();
    assert_int_equal(loop.model.stats_buffers, 2);
    assert_int_equal(loop.balloon.counters.protocol_errors, 0);
}

static void no_frames_at_all(void **state)
{
    (void)state;
    loop.config.ops = NULL;
    loop_start();
    model_resize(&loop.model, 50);
    loop_settle();
    assert_int_equal(loop.model.balloon_size, 0);
    assert_int_equal(loop.model.stats_buffers, 0);
    assert_false(ebb_balloon_work(&loop.balloon));
}

/* ---- statistics ---- */

static void statistics(void **state)
{
    static const uint8_t expected[] = {
        0x00, 0x01, 0x00, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
        0x01, 0x01, 0x01, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
    };

    (void)state;
    loop_start();
    loop_settle();
    assert_int_equal(loop.model.stats_buffers, 1);
    assert_int_equal(loop.model.stat_count, 2);
    assert_memory_equal(loop.balloon.stats, expected, sizeof(expected));

    /* The buffer stays with the host until it asks. */
    loop.stat_count = EBB_BALLOON_STATS_MAX;
    for (unsigned i = 0; i < 5; i++)
        assert_false(ebb_balloon_work(&loop.balloon));
    assert_int_equal(loop.model.stats_buffers, 1);
    for (unsigned i = 2; i < 10; i++) {
        model_poll_stats(&loop.model);
        loop_settle();
        assert_int_equal(loop.model.stats_buffers, i);
        assert_int_equal(loop.balloon.counters.stats_sent, i);
        assert_int_equal(loop.model.stat_count, EBB_BALLOON_STATS_MAX);
        assert_int_equal(loop.model.stats[15].tag, 0x010f);
        assert_int_equal(loop.model.stats[15].value, 0x112233445566770fu);
    }
}

static void statistics_later(void **state)
{
    (void)state;
    loop.stat_count = 0;
    loop_start();
    loop_settle();
    assert_int_equal(loop.model.stats_buffers, 0);
    loop.stat_count = 1;
    loop_settle();
    assert_int_equal(loop.model.stats_buffers, 1);
    assert_int_equal(loop.model.stat_count, 1);
}

/* ---- stop ---- */

static void stop_and_start(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        loop_start();
        assert_int_equal(fake_submit(0, MIB, 32), 0);
        loop_settle();
        assert_int_equal(fake_report.completions, 2 * i + 1);
        assert_int_equal(fake_submit(0, MIB, 32), 0);
        assert_int_equal(ebb_balloon_stop(&loop.balloon), 0); /* with a batch on its way */
        assert_int_equal(fake_report.completions, 2 * i + 2);
        assert_int_equal(fake_report.status, -EBB_ECANCELED);
        assert_int_equal(fake_report.unregisters, i + 1);
        assert_int_equal(loop.model.status, 0);
        assert_int_equal(ebb_balloon_stop(&loop.balloon), 0); /* twice is harmless */
        assert_int_equal(fake_report.unregisters, i + 1);
    }
}

/* Each read is an exit, and a back end that is gone could not answer it. */
static void reads_the_configuration_when_it_changed(void **state)
{
    unsigned before;

    (void)state;
    loop_start();
    loop_settle();
    before = loop.model.config_reads;
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(fake_submit(0, MIB, 1), 0);
        model_poll_stats(&loop.model);
        loop_settle();
    }
    assert_int_equal(fake_report.completions, 10);
    assert_int_equal(loop.model.config_reads, before);

    for (unsigned i = 0; i < 2; i++) { /* in the queues' interrupt, or in one of its own */
        model_resize(&loop.model, 10 * (i + 1));
        if (i == 1) {
            loop.model.irq = 0;
            ebb_balloon_config_irq(&loop.balloon);
        }
        loop_irq();
        loop_settle();
        check_balloon(10 * (i + 1));
        assert_int_equal(loop.model.config_reads, ++before);
    }
}

static void interrupts_at_any_time(void **state)
{
    (void)state;
    /* Before the start: a balloon of zeroes. */
    ebb_balloon_irq(&loop.balloon);
    ebb_balloon_config_irq(&loop.balloon);
    assert_false(ebb_balloon_work(&loop.balloon));
    assert_int_equal(ebb_balloon_stop(&loop.balloon), 0);
    assert_int_equal(port_virtual.wakes, 0);

    loop_start();
    loop_settle();
    for (unsigned i = 0; i < 100; i++) {
        loop.model.irq = i % 4;
        ebb_balloon_irq(&loop.balloon);
        (void)ebb_balloon_work(&loop.balloon);
    }
    assert_int_equal(loop.balloon.counters.protocol_errors, 0);
    assert_int_equal(ebb_balloon_stop(&loop.balloon), 0);
    loop.model.irq = 3;
    ebb_balloon_irq(&loop.balloon);
    ebb_balloon_config_irq(&loop.balloon);
    assert_false(ebb_balloon_work(&loop.balloon));
    assert_int_equal(loop.model.irq, 0); /* acknowledged, or it would come again and again */
}

/* A guest that hands out more than it was asked for is a bug of the guest. */
static unsigned too_many(void *ctx, uint32_t *pfns, unsigned n)
{
    (void)ctx;
    (void)pfns;
    return n + 1;
}

static void not_called(void *ctx, const uint32_t *pfns, unsigned n)
{
    (void)ctx;
    (void)pfns;
    fail_msg("%u frames deflated", n);
}

static void panics_on_a_broken_guest(void **state)
{
    static const struct ebb_balloon_ops ops = {
        .inflate = too_many, .deflate = too_many, .deflated = not_called};
    jmp_buf jump;

    (void)state;
    loop.config.ops = &ops;
    loop_start();
    model_resize(&loop.model, 1);
    port_virtual.panic_jump = &jump;
    if (setjmp(jump) == 0) {
        (void)ebb_balloon_work(&loop.balloon);
        fail_msg("no panic");
    }
    port_virtual.panic_jump = NULL;
    assert_non_null(port_virtual.panic);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(handshake),
        TEST(bad_configurations),
        TEST(features_by_configuration),
        TEST(poison_value),
        TEST(queue_numbers),
        TEST(counted_by_acceptance),
        TEST(config_golden_bytes),
        TEST(reports_a_batch),
        TEST(reports_large_blocks),
        TEST(waits_for_all_chains),
        TEST(refuses_bad_batches),
        TEST(used_lengths),
        TEST(completes_by_poll),
        TEST(detach_waits_for_the_batch),
        TEST(attach_errors),
        TEST(capacity_follows_the_queue),
        TEST(follows_the_host),
        TEST(deflates_after_the_answer),
        TEST(resized_on_the_way),
        TEST(nothing_to_spare),
        TEST(absurd_size),
        TEST(lengths_of_read_chains),
        TEST(no_frames_at_all),
        TEST(statistics),
        TEST(statistics_later),
        TEST(stop_and_start),
        TEST(reads_the_configuration_when_it_changed),
        TEST(interrupts_at_any_time),
        TEST(panics_on_a_broken_guest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
