/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine and a device that fails, at every step of a pass at which it can:
 * batches refused, completed with an error, late, twice, never; and the device
 * taken away at every step.
 *
 *   F30 unregister waits for the batch in flight
 *   F46 a failed batch: blocks back unmarked, the pass ends, and is tried again
 *
 * A completion from another thread: test_report_threads.c.
 */
#include "report_rig.h"

#include <stdlib.h>

#define BLOCK_FRAMES ((uint64_t)1 << MAX_ORDER)
#define DELAY        (EBB_REPORT_DELAY_MS * MS)
#define PER_BATCH    4u
#define BATCHES      (MAX_BLOCKS / PER_BATCH)

static struct rig *new_rig(unsigned zones)
{
    return rig_new(&(struct rig_config){
        .zones = zones,
        .capacity = PER_BATCH,
        .report = {.backoff_ms = 300, .backoff_max_ms = 1000},
    });
}

/* ---- errors ---- */

/* One failure at batch `step`, then all is well. */
static void fail_once(struct rig *rig, unsigned step)
{
    struct ebb_report_stats stats;
    uint64_t due;

    rig_register(rig);
    due = rig_run_after(rig, DELAY);
    stats = rig_stats(rig);
    assert_int_equal(rig->submits, step); /* the pass has ended there */
    assert_int_equal(stats.batches, step);
    assert_int_equal(stats.failed_batches, 1);
    assert_int_equal(stats.last_error, -EBB_EIO);
    assert_int_equal(stats.reported_blocks, (step - 1) * PER_BATCH);
    assert_int_equal(rig_zone_stats(rig, 0).reported, (step - 1) * PER_BATCH * BLOCK_FRAMES);
    assert_int_equal(rig_zone_stats(rig, 0).in_flight, 0);
    assert_int_equal(rig_zone_stats(rig, 0).free, MAX_BLOCKS * BLOCK_FRAMES);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_REQUESTED);
    rig_check(rig);

    /* Tried again, though nothing was freed: after the back-off, not before. */
    assert_int_equal(due, port_virtual.now + 300 * MS);
    assert_int_equal(rig_run_after(rig, 300 * MS - 1), due);
    assert_int_equal(rig->submits, step);
    assert_int_equal(rig_run_after(rig, 1), EBB_NEVER);
    assert_int_equal(rig_stats(rig).reported_blocks, MAX_BLOCKS);
    assert_int_equal(rig_zone_stats(rig, 0).reported, MAX_BLOCKS * BLOCK_FRAMES);
    assert_int_equal(rig_stats(rig).stray_completes, 0);
}

static void test_f46_a_batch_is_refused_at_step_1_to_n(void **state)
{
    (void)state;
    for (unsigned step = 1; step <= BATCHES; step++) {
        struct rig *rig = new_rig(1);

        rig->refuse_at = step;
        fail_once(rig, step);
        rig_free(rig);
    }
}

static void test_f46_a_batch_completes_with_an_error_at_step_1_to_n(void **state)
{
    (void)state;
    for (unsigned step = 1; step <= BATCHES; step++) {
        struct rig *rig = new_rig(1);

        rig->fail_at = step;
        fail_once(rig, step);
        rig_free(rig);
    }
}

static void test_f46_an_error_that_comes_late(void **state)
{
    struct rig *rig = new_rig(1);

    (void)state;
    rig->later = true;
    rig_register(rig);
    rig_run_after(rig, DELAY);
    port_virtual.now += 1000000 * MS;
    rig_complete(rig, -EBB_EIO);
    assert_int_equal(rig_run(rig), port_virtual.now + 300 * MS);
    assert_int_equal(rig_zone_stats(rig, 0).reported, 0);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, MAX_BLOCKS * BLOCK_FRAMES);
    rig_free(rig);
}

static void test_f46_zones_behind_the_failure_stay_requested(void **state)
{
    (void)state;
    for (unsigned step = 1; step <= 2 * BATCHES; step++) {
        struct rig *rig = new_rig(2);

        rig->refuse_at = step;
        rig_register(rig);
        rig_run_after(rig, DELAY);
        assert_int_equal(rig_stats(rig).reported_blocks, (step - 1) * PER_BATCH);
        rig_settle(rig);
        assert_int_equal(rig_stats(rig).reported_blocks, 2 * MAX_BLOCKS); /* none twice */
        rig_free(rig);
    }
}

/* The device fails on one block, always: everything else is reported all the same,
 * in that zone and behind it. */
static void test_f46_one_bad_block_keeps_nothing_waiting(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.zones = 2, .capacity = 3});
    uint64_t due;

    (void)state;
    rig->bad_pfn = RIG_BASE + 5 * ((uint64_t)1 << MAX_ORDER);
    rig_register(rig);
    due = rig_run(rig);
    for (unsigned i = 0; i < 30; i++) {
        assert_int_not_equal(due, EBB_NEVER); /* it is tried again and again */
        due = rig_run_after(rig, due - port_virtual.now);
    }
    assert_int_equal(rig_unreported_frames(rig, 1, 0), 0);
    /* At most the batch that it is in. */
    assert_in_range(rig_unreported_frames(rig, 0, 0), 1, (uint64_t)3 << MAX_ORDER);
    rig->bad_pfn = 0;
    rig_settle(rig);
    assert_int_equal(rig_unreported_frames(rig, 0, 0), 0);
    rig_free(rig);
}

static void test_the_back_off_doubles_up_to_its_limit(void **state)
{
    static const unsigned waits[] = {300, 600, 1000, 1000, 1000};
    struct rig *rig = new_rig(1);
    ebb_pfn_t pfn;

    (void)state;
    rig_register(rig);
    port_virtual.now += DELAY;
    for (unsigned i = 0; i < 5; i++) {
        rig->refuse_at = rig->submits + 1;
        assert_int_equal(rig_run(rig), port_virtual.now + waits[i] * MS);
        port_virtual.now += waits[i] * MS;
    }
    assert_int_equal(rig_run(rig), EBB_NEVER);

    /* A success has set it back. */
    pfn = rig_alloc(rig, 0, MAX_ORDER);
    rig_release(rig, 0, pfn, MAX_ORDER);
    rig->refuse_at = rig->submits + 1;
    port_virtual.now += DELAY;
    assert_int_equal(rig_run(rig), port_virtual.now + 300 * MS);
    rig_settle(rig);
    rig_free(rig);
}

static void test_a_new_device_starts_without_a_back_off(void **state)
{
    struct rig *rig = new_rig(1);

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        rig->refuse_at = rig->submits + 1;
        rig_register(rig);
        port_virtual.now += DELAY;
        assert_int_equal(rig_run(rig), port_virtual.now + 300 * MS);
        rig_unregister(rig);
    }
    rig_free(rig);
}

static void test_a_request_does_not_shorten_the_back_off(void **state)
{
    struct rig *rig = new_rig(2);
    ebb_pfn_t pfns[2];
    uint64_t due;

    (void)state;
    pfns[0] = rig_alloc(rig, 0, MAX_ORDER);
    pfns[1] = rig_alloc(rig, 1, MAX_ORDER);
    rig->refuse_at = 1;
    rig_register(rig);
    due = rig_run_after(rig, DELAY);
    rig_release(rig, 0, pfns[0], MAX_ORDER);
    rig_release(rig, 1, pfns[1], MAX_ORDER);
    assert_int_equal(rig_run_after(rig, DELAY), due);
    assert_int_equal(rig->submits, 1);
    /* Somebody who says "now" means it. */
    ebb_report_now(&rig->report);
    assert_int_equal(rig_run(rig), EBB_NEVER);
    assert_int_equal(rig_stats(rig).reported_blocks, 2 * MAX_BLOCKS);
    rig_free(rig);
}

static void free_then_fail(struct rig *rig)
{
    if (rig->submits == 1)
        rig_release(rig, 0, *(ebb_pfn_t *)rig->ctx, MAX_ORDER);
}

static void test_a_free_during_a_pass_that_fails(void **state)
{
    struct rig *rig = new_rig(1);
    ebb_pfn_t pfn = rig_alloc(rig, 0, MAX_ORDER);

    (void)state;
    rig->on_submit = free_then_fail;
    rig->ctx = &pfn;
    rig->refuse_at = 1;
    rig_register(rig);
    port_virtual.now += DELAY;
    assert_int_equal(rig_run(rig), port_virtual.now + 300 * MS);
    rig_settle(rig);
    assert_int_equal(rig_times_reported(rig, pfn), 1);
    assert_int_equal(rig_stats(rig).reported_blocks, MAX_BLOCKS);
    rig_free(rig);
}

/* ---- completions that should not be ---- */

static void test_a_batch_completed_twice(void **state)
{
    (void)state;
    for (unsigned later = 0; later < 2; later++) {
        struct rig *rig = new_rig(1);

        rig->complete_times = 3;
        rig->later = later;
        rig_register(rig);
        rig_settle(rig);
        assert_int_equal(rig_stats(rig).stray_completes, 2 * BATCHES);
        assert_int_equal(rig_stats(rig).reported_blocks, MAX_BLOCKS);
        assert_int_equal(rig_stats(rig).batches, BATCHES);
        rig_free(rig);
    }
}

/* The first answer counts. */
static void test_a_second_status_is_ignored(void **state)
{
    struct rig *rig = new_rig(1);

    (void)state;
    rig->later = true;
    rig_register(rig);
    rig_run_after(rig, DELAY);
    rig_complete(rig, -EBB_EIO);
    ebb_report_complete(&rig->report, 0);
    rig_run(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, 0);
    assert_int_equal(rig_stats(rig).stray_completes, 1);
    rig_settle(rig);
    rig_free(rig);
}

static void test_completions_that_nobody_waits_for(void **state)
{
    struct rig *rig = new_rig(1);

    (void)state;
    ebb_report_complete(&rig->report, 0);
    rig_register(rig);
    ebb_report_complete(&rig->report, -EBB_EIO);
    rig_settle(rig);
    ebb_report_complete(&rig->report, 0);
    rig_unregister(rig);
    ebb_report_complete(&rig->report, 0);
    assert_int_equal(rig_stats(rig).stray_completes, 4);
    assert_int_equal(rig_stats(rig).failed_batches, 0);
    assert_int_equal(rig_stats(rig).reported_blocks, MAX_BLOCKS);
    rig_free(rig);
}

static void complete_inside(struct rig *rig)
{
    rig_complete(rig, 0);
}

static void test_a_device_that_completes_and_then_refuses(void **state)
{
    struct rig *rig = new_rig(1);

    (void)state;
    rig->on_submit = complete_inside;
    rig->refuse_at = 2;
    rig_register(rig);
    rig_run_after(rig, DELAY);
    /* It contradicts itself: nothing is taken for reported. */
    assert_int_equal(rig_stats(rig).failed_batches, 1);
    assert_int_equal(rig_zone_stats(rig, 0).reported, PER_BATCH * BLOCK_FRAMES);
    rig_settle(rig);
    rig_free(rig);
}

/* ---- unregister ---- */

/* Everything can be had; then a new device reports what is left, once. */
static void check_all_back(struct rig *rig, unsigned reported_before)
{
    uint64_t before = rig_stats(rig).reported_blocks;
    ebb_pfn_t pfns[MAX_BLOCKS + 1];
    unsigned submits = rig->submits;

    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    assert_int_equal(rig_zone_stats(rig, 0).in_flight, 0);
    assert_int_equal(rig_zone_stats(rig, 0).reported, reported_before * BLOCK_FRAMES);
    rig_check(rig);
    assert_int_equal(rig_run_after(rig, 100000 * MS), EBB_NEVER);
    assert_int_equal(rig->submits, submits); /* the device is left alone */

    rig->later = false;
    rig_register(rig);
    assert_int_equal(rig_run(rig), port_virtual.now + DELAY);
    assert_int_equal(rig->submits, submits); /* nothing of the old pass is left */
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, MAX_BLOCKS * BLOCK_FRAMES);
    assert_int_equal(rig_stats(rig).reported_blocks, before + MAX_BLOCKS - reported_before);
    rig_unregister(rig);
    assert_int_equal(rig_alloc_all(rig, 0, MAX_ORDER, pfns), MAX_BLOCKS);
    rig_release_all(rig, 0, MAX_ORDER, pfns, MAX_BLOCKS);
}

/* How the batch in flight is completed while unregister waits. */
enum how { BY_POLL, BY_RELAX, BY_RELAX_FAILED, BEFORE, HOWS };

static struct rig *waiting;
static int waiting_status;

static void complete_on_relax(void)
{
    if (port_virtual.relaxes >= 3 && waiting->in_flight)
        rig_complete(waiting, waiting_status);
}

/* Unregister with batch `step` in flight, or completed but not seen to. */
static void unregister_in_flight(struct rig *rig, unsigned step, enum how how)
{
    rig->later = true;
    rig_register(rig);
    rig_run_after(rig, DELAY);
    while (rig->submits < step) {
        rig_complete(rig, 0);
        rig_run(rig);
    }
    waiting = rig;
    waiting_status = how == BY_RELAX_FAILED ? -EBB_ECANCELED : 0;
    port_virtual.on_relax = how == BY_POLL || how == BEFORE ? NULL : complete_on_relax;
    rig->complete_on_poll = how == BY_POLL;
    if (how == BEFORE)
        rig_complete(rig, 0);
    rig_unregister(rig); /* asserts that nothing is in flight */
    port_virtual.on_relax = NULL;
}

static void test_f30_unregister_at_every_batch(void **state)
{
    (void)state;
    for (unsigned step = 1; step <= BATCHES; step++) {
        for (unsigned how = 0; how < HOWS; how++) {
            struct rig *rig = new_rig(1);
            bool failed = how == BY_RELAX_FAILED;

            unregister_in_flight(rig, step, (enum how)how);
            assert_int_equal(rig_stats(rig).failed_batches, failed);
            check_all_back(rig, (step - failed) * PER_BATCH);
            rig_free(rig);
        }
    }
}

static void test_unregister_before_a_pass_and_after_one(void **state)
{
    struct rig *rig = new_rig(1);

    (void)state;
    rig_register(rig);
    rig_unregister(rig);
    check_all_back(rig, 0);
    rig_register_and_settle(rig);
    rig_unregister(rig);
    check_all_back(rig, MAX_BLOCKS);
    assert_int_equal(rig->polls, 0);
    rig_free(rig);
}

static void test_unregister_during_a_back_off(void **state)
{
    struct rig *rig = new_rig(1);

    (void)state;
    rig->refuse_at = 2;
    rig_register(rig);
    rig_run_after(rig, DELAY);
    rig_unregister(rig);
    check_all_back(rig, PER_BATCH);
    rig_free(rig);
}

/* While unregister waits others go on: they free, ask, run, even unregister. */
static void go_on(void)
{
    struct rig *rig = waiting;
    static ebb_pfn_t pfn;

    if (port_virtual.relaxes == 1) {
        pfn = rig_alloc(rig, 0, MAX_ORDER);
        rig_release(rig, 0, pfn, MAX_ORDER);
        ebb_report_now(&rig->report);
        assert_int_equal(ebb_report_run(&rig->report), EBB_NEVER);
        assert_int_equal(ebb_report_unregister(&rig->report), -EBB_ENODEV);
        assert_int_equal(ebb_report_register(&rig->report, &rig->device), -EBB_EBUSY);
    }
    if (port_virtual.relaxes == 5 && rig->in_flight)
        rig_complete(rig, 0);
}

static void test_f30_others_go_on_while_unregister_waits(void **state)
{
    struct rig *rig = new_rig(1);

    (void)state;
    rig->later = true;
    rig_register(rig);
    rig_run_after(rig, DELAY);
    waiting = rig;
    port_virtual.relaxes = 0;
    port_virtual.on_relax = go_on;
    rig_unregister(rig);
    port_virtual.on_relax = NULL;
    assert_true(rig->polls >= 5);
    assert_int_equal(rig->submits, 1);
    check_all_back(rig, PER_BATCH);
    rig_free(rig);
}

/* ---- a device that changes its mind: every sequence of answers ---- */

enum answer { YES, REFUSED, FAILED, ANSWERS };

static void answer(struct rig *rig)
{
    const unsigned *answers = rig->ctx;
    unsigned now = rig->submits <= BATCHES ? answers[rig->submits - 1] : YES;

    if (now == REFUSED)
        rig->refuse_at = rig->submits;
    if (now == FAILED)
        rig->fail_at = rig->submits;
}

static void test_every_sequence_of_answers(void **state)
{
    (void)state;
    for (unsigned id = 0; id < 81; id++) {
        unsigned answers[BATCHES] = {id % ANSWERS, id / 3 % ANSWERS, id / 9 % ANSWERS, id / 27};
        struct rig *rig = new_rig(1);
        unsigned failures = 0;

        for (unsigned i = 0; i < BATCHES; i++)
            failures += answers[i] != YES;
        rig->on_submit = answer;
        rig->ctx = answers;
        rig_register(rig);
        rig_settle(rig);
        if (rig_stats(rig).reported_blocks != MAX_BLOCKS ||
            rig_stats(rig).failed_batches != failures || rig->submits != BATCHES + failures)
            fail_msg("sequence %u: %u blocks, %u failures, %u batches", id,
                     (unsigned)rig_stats(rig).reported_blocks,
                     (unsigned)rig_stats(rig).failed_batches, rig->submits);
        rig_free(rig);
    }
}

/* ---- anything, in any order ---- */

#define HELD 40u

struct walk {
    struct rig *rig;
    unsigned held;
    struct {
        unsigned zone, order;
        ebb_pfn_t pfn;
    } blocks[HELD];
    int isolated; /* block of zone 0, -1: none */
};

static void walk_alloc(struct walk *walk)
{
    unsigned zone = (unsigned)rand() % 2, order = (unsigned)rand() % (MAX_ORDER + 1);
    unsigned flags = rand() % 2 ? EBB_ALLOC_NO_CACHE : 0;
    ebb_pfn_t pfn;

    if (walk->held == HELD || ebb_alloc(&walk->rig->zones[zone], order,
                                        (enum ebb_migratetype)(rand() % 3), flags, &pfn) != 0)
        return;
    walk->blocks[walk->held].zone = zone;
    walk->blocks[walk->held].order = order;
    walk->blocks[walk->held++].pfn = pfn;
}

static void walk_free(struct walk *walk)
{
    unsigned which;

    if (walk->held == 0)
        return;
    which = (unsigned)rand() % walk->held--;
    assert_int_equal(ebb_free(&walk->rig->zones[walk->blocks[which].zone], walk->blocks[which].pfn,
                              walk->blocks[which].order),
                     0);
    walk->blocks[which] = walk->blocks[walk->held];
}

static void walk_isolate(struct walk *walk)
{
    struct ebb_zone *zone = &walk->rig->zones[0];
    int err;

    if (walk->isolated < 0) {
        walk->isolated = rand() % (int)(2 * MAX_BLOCKS);
        err = ebb_isolate_range(zone, RIG_BASE + ((unsigned)walk->isolated << PAGEBLOCK),
                                1u << PAGEBLOCK);
    } else {
        err = ebb_putback_range(zone, RIG_BASE + ((unsigned)walk->isolated << PAGEBLOCK),
                                1u << PAGEBLOCK, (enum ebb_migratetype)(rand() % 3));
        walk->isolated = -1;
    }
    assert_int_equal(err, 0);
}

static void walk_device(struct walk *walk)
{
    struct rig *rig = walk->rig;

    switch (rand() % 8) {
    case 0:
        rig->refuse_at = rig->submits + 1;
        break;
    case 1:
        rig->fail_at = rig->submits + 1;
        break;
    case 2:
        if (rig->registered)
            rig_unregister(rig);
        else
            rig_register(rig);
        break;
    case 3:
        ebb_report_now(&rig->report);
        break;
    case 4:
        rig->later = !rig->later;
        break;
    default:
        if (rig->in_flight)
            rig_complete(rig, rand() % 4 ? 0 : -EBB_EIO);
        break;
    }
}

static void walk_step(struct walk *walk)
{
    switch (rand() % 8) {
    case 0:
    case 1:
        walk_alloc(walk);
        break;
    case 2:
    case 3:
        walk_free(walk);
        break;
    case 4:
        walk_device(walk);
        break;
    case 5:
        if (rand() % 8 == 0)
            walk_isolate(walk);
        break;
    default:
        rig_run_after(walk->rig, (uint64_t)rand() % (2 * DELAY));
        break;
    }
    if (walk->rig->submits > RIG_LOG / 2)
        rig_forget(walk->rig);
}

/* Stop, let the engine finish, and see that nothing was forgotten. */
static void walk_end(struct walk *walk)
{
    struct rig *rig = walk->rig;

    if (walk->isolated >= 0)
        walk_isolate(walk);
    while (walk->held > HELD / 8)
        walk_free(walk);
    rig->refuse_at = rig->fail_at = 0;
    if (!rig->registered)
        rig_register(rig);
    rig_settle(rig);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(rig_unreported_frames(rig, i, 2), 0);
    assert_int_equal(rig_zone_stats(rig, 0).cached + rig_zone_stats(rig, 1).cached, 0);
    rig_check(rig);
}

static void test_anything_in_any_order(void **state)
{
    const char *given = getenv("EBB_SEED");
    unsigned first = given ? (unsigned)strtoul(given, NULL, 0) : 1;

    (void)state;
    for (unsigned seed = first; seed < first + (given ? 1 : 40); seed++) {
        struct walk walk = {.isolated = -1};

        /* The last one printed is the one that failed. */
        print_message("EBB_SEED=%u\n", seed);
        srand(seed);
        walk.rig = rig_new(&(struct rig_config){
            .zones = 2,
            .cpus = 2,
            .capacity = 1 + seed % 7,
            .watermark_min = seed % 3 * 40,
            .watermark_low = seed % 3 * 50,
            .report = {.order = EBB_REPORT_ORDER(2), .budget = 1 + seed % 4},
        });
        walk.rig->complete_on_poll = true;
        for (unsigned i = 0; i < 3000; i++) {
            port_virtual.cpu = (unsigned)rand() % 2;
            walk_step(&walk);
            if (i % 300 == 0)
                walk_end(&walk);
        }
        walk_end(&walk);
        while (walk.held > 0)
            walk_free(&walk);
        rig_free(walk.rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        rig_test(test_f46_a_batch_is_refused_at_step_1_to_n),
        rig_test(test_f46_a_batch_completes_with_an_error_at_step_1_to_n),
        rig_test(test_f46_an_error_that_comes_late),
        rig_test(test_f46_zones_behind_the_failure_stay_requested),
        rig_test(test_f46_one_bad_block_keeps_nothing_waiting),
        rig_test(test_the_back_off_doubles_up_to_its_limit),
        rig_test(test_a_new_device_starts_without_a_back_off),
        rig_test(test_a_request_does_not_shorten_the_back_off),
        rig_test(test_a_free_during_a_pass_that_fails),
        rig_test(test_a_batch_completed_twice),
        rig_test(test_a_second_status_is_ignored),
        rig_test(test_completions_that_nobody_waits_for),
        rig_test(test_a_device_that_completes_and_then_refuses),
        rig_test(test_f30_unregister_at_every_batch),
        rig_test(test_unregister_before_a_pass_and_after_one),
        rig_test(test_unregister_during_a_back_off),
        rig_test(test_f30_others_go_on_while_unregister_waits),
        rig_test(test_every_sequence_of_answers),
        rig_test(test_anything_in_any_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
