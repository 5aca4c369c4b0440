/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows of a device that fails: batches refused, completed with an error, late,
 * twice, never, from somewhere else; and the device taken away meanwhile (F30, F46).
 */
#include "rows.h"

#include <ebb/range.h>

#include <stdlib.h>

#define PER_BATCH 4u
#define BLOCKS    16u
#define BATCHES   (BLOCKS / PER_BATCH)
#define BACKOFF   300u

/* 16 blocks in 4 batches. */
static struct rig *small_rig(const struct setting *setting, unsigned zones)
{
    struct rig_config config = {
        .zones = zones,
        .frames = BLOCKS * C_FRAMES,
        .capacity = PER_BATCH,
        .history.threshold = is_threshold(setting) ? 8 : 0,
    };

    if (is_worker(setting)) {
        config.report.backoff_ms = BACKOFF;
    }
    return rig_with(setting, &config);
}

/* Whatever there was, in the end all is reported, and none of it twice. */
static void assert_recovers(struct rig *rig)
{
    flush(rig);
    for (unsigned i = 0; i < rig->zone_count; i++)
        assert_int_equal(rig_zone_stats(rig, i).reported, BLOCKS * C_FRAMES);
    assert_int_equal(rig_stats(rig).reported_blocks, rig->zone_count * BLOCKS);
    rig_check(rig);
}

/* ---- errors ---- */

/* One failure, at batch `step`. */
static void fail_once(const struct setting *setting, struct rig *rig, unsigned step)
{
    struct ebb_report_stats stats;

    check_every_step(rig);
    rig_register(rig);
    while (rig->submits < step)
        begin(rig);
    stats = rig_stats(rig);
    assert_int_equal(rig->submits, step); /* the pass has ended there */
    assert_int_equal(stats.failed_batches, 1);
    assert_int_equal(stats.last_error, -EBB_EIO);
    assert_int_equal(stats.reported_blocks, (step - 1) * PER_BATCH);
    assert_int_equal(rig_zone_stats(rig, 0).reported, (step - 1) * PER_BATCH * C_FRAMES);
    assert_int_equal(rig_zone_stats(rig, 0).in_flight, 0);
    assert_int_equal(rig_zone_stats(rig, 0).free, BLOCKS * C_FRAMES);
    rig_check(rig);

    if (is_inline(setting)) {
        /* Nobody comes back by himself; the next free that asks does. */
        ebb_pfn_t pfns[BLOCKS];
        unsigned n = need(rig);

        assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
        assert_int_equal(rig_run_after(rig, 1000000 * MS), EBB_NEVER);
        assert_int_equal(rig->submits, step);
        take_need(rig, 0, pfns);
        rig_release_all(rig, 0, C_ORDER, pfns, n);
        assert_true(rig->submits > step);
        flush(rig); /* what is below the threshold */
    } else {
        /* After the back-off, not before, though nothing was freed. */
        uint64_t due = port_virtual.now + BACKOFF * MS;

        assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_REQUESTED);
        assert_int_equal(rig_run(rig), due);
        assert_int_equal(rig_run_after(rig, BACKOFF * MS - 1), due);
        assert_int_equal(rig->submits, step);
        rig_run_after(rig, 1);
        assert_true(rig->submits > step);
        rig_settle(rig);
    }
    assert_int_equal(rig_zone_stats(rig, 0).reported, BLOCKS * C_FRAMES);
    assert_int_equal(rig_stats(rig).stray_completes, 0);
}

static void f46_a_batch_is_refused_at_step_1_to_n(const struct setting *setting)
{
    for (unsigned step = 1; step <= BATCHES; step++) {
        struct rig *rig = small_rig(setting, 1);

        rig->refuse_at = step;
        fail_once(setting, rig, step);
        rig_free(rig);
    }
}

static void f46_a_batch_completes_with_an_error_at_step_1_to_n(const struct setting *setting)
{
    for (unsigned step = 1; step <= BATCHES; step++) {
        struct rig *rig = small_rig(setting, 1);

        rig->fail_at = step;
        fail_once(setting, rig, step);
        rig_free(rig);
    }
}

static void f46_an_error_that_comes_late(const struct setting *setting)
{
    for (unsigned step = 1; step <= BATCHES; step++) {
        struct rig *rig = small_rig(setting, 1);

        rig->later = true;
        rig_register(rig);
        begin(rig);
        while (rig->submits < step) {
            rig_complete(rig, 0);
            rig_run(rig);
            if (!rig->in_flight)
                begin(rig);
        }
        assert_int_equal(rig_run_after(rig, 1000000 * MS), EBB_NEVER);
        rig_complete(rig, -EBB_EIO);
        rig_run(rig);
        assert_false(rig->in_flight);
        assert_int_equal(rig_zone_stats(rig, 0).reported, (step - 1) * PER_BATCH * C_FRAMES);
        assert_recovers(rig);
        rig_free(rig);
    }
}

static void f46_zones_behind_the_failure_are_not_forgotten(const struct setting *setting)
{
    for (unsigned step = 1; step <= 2 * BATCHES; step++) {
        struct rig *rig = small_rig(setting, 2);

        rig->refuse_at = step;
        rig_register(rig);
        rig_settle(rig);
        if (is_worker(setting)) {
            for (unsigned i = 0; i < 2; i++)
                assert_int_equal(rig_zone_stats(rig, i).reported, BLOCKS * C_FRAMES);
        }
        assert_recovers(rig);
        rig_free(rig);
    }
}

/* The device fails on one block, always: everything else is reported all the same, in
 * that zone and behind it. */
static void f46_one_bad_block_keeps_nothing_waiting(const struct setting *setting)
{
    struct rig *rig = small_rig(setting, 2);

    rig->bad_pfn = RIG_BASE + 5 * C_FRAMES;
    rig_register(rig);
    for (unsigned i = 0; i < 30; i++) {
        if (is_inline(setting))
            ebb_report_now(&rig->report);
        rig_run_after(rig, 1000 * MS);
    }
    assert_int_equal(rig_unreported_frames(rig, 1, 0), 0);
    /* At most the batch that it is in. */
    assert_in_range(rig_unreported_frames(rig, 0, 0), C_FRAMES, PER_BATCH * C_FRAMES);
    rig->bad_pfn = 0;
    rig_forget(rig);
    flush(rig);
    assert_int_equal(rig_unreported_frames(rig, 0, 0), 0);
    rig_free(rig);
}

static void the_back_off_doubles_up_to_its_limit(const struct setting *setting)
{
    static const unsigned waits[] = {300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 60000, 60000};
    struct rig *rig = small_rig(setting, 1);
    ebb_pfn_t pfns[BLOCKS];
    unsigned n = need(rig);

    rig_register(rig);
    port_virtual.now += C_DELAY;
    for (unsigned i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
        rig->refuse_at = rig->submits + 1;
        assert_int_equal(rig_run(rig), port_virtual.now + waits[i] * MS);
        port_virtual.now += waits[i] * MS;
    }
    rig_settle(rig);

    /* A success has set it back. */
    take_need(rig, 0, pfns);
    rig_release_all(rig, 0, C_ORDER, pfns, n);
    rig->refuse_at = rig->submits + 1;
    port_virtual.now += C_DELAY;
    assert_int_equal(rig_run(rig), port_virtual.now + 300 * MS);
    rig_settle(rig);
    rig_free(rig);
}

static void a_new_device_starts_without_a_back_off(const struct setting *setting)
{
    struct rig *rig = small_rig(setting, 1);

    for (unsigned i = 0; i < 3; i++) {
        rig->refuse_at = rig->submits + 1;
        rig_register(rig);
        port_virtual.now += C_DELAY;
        assert_int_equal(rig_run(rig), port_virtual.now + 300 * MS);
        rig_unregister(rig);
    }
    rig_free(rig);
}

static void a_request_does_not_shorten_the_back_off(const struct setting *setting)
{
    struct rig *rig = small_rig(setting, 2);
    ebb_pfn_t pfns[2][BLOCKS];
    unsigned n = need(rig);
    uint64_t due;

    take_need(rig, 0, pfns[0]);
    take_need(rig, 1, pfns[1]);
    rig->refuse_at = 1;
    rig_register(rig);
    due = rig_run_after(rig, C_DELAY);
    rig_release_all(rig, 0, C_ORDER, pfns[0], n);
    rig_release_all(rig, 1, C_ORDER, pfns[1], n);
    assert_int_equal(rig_run_after(rig, C_DELAY), due);
    assert_int_equal(rig->submits, 1);
    /* Somebody who says "now" means it. */
    ebb_report_now(&rig->report);
    rig_run(rig);
    assert_true(rig->submits > 1);
    assert_recovers(rig);
    rig_free(rig);
}

struct frees {
    unsigned at, n;
    ebb_pfn_t pfns[BLOCKS];
};

static void free_then_fail(struct rig *rig)
{
    struct frees *frees = rig->ctx;

    if (rig->submits != frees->at)
        return;
    rig_release_all(rig, 0, C_ORDER, frees->pfns, frees->n);
    frees->n = 0;
}

static void a_free_during_a_pass_that_fails(const struct setting *setting)
{
    struct rig *rig = small_rig(setting, 1);
    unsigned batches = (BLOCKS - need(rig) + PER_BATCH - 1) / PER_BATCH;

    rig_free(rig);
    for (unsigned at = 1; at <= batches; at++) {
        struct frees frees = {.at = at};

        rig = small_rig(setting, 1);
        frees.n = take_need(rig, 0, frees.pfns);
        rig->on_submit = free_then_fail;
        rig->ctx = &frees;
        rig->refuse_at = at;
        rig_register(rig);
        rig_settle(rig);
        assert_int_equal(frees.n, 0);
        assert_recovers(rig);
        rig_free(rig);
    }
}

/* ---- completions that should not be ---- */

static void a_batch_completed_twice(const struct setting *setting)
{
    /* Inline a later completion sends the next batch at once, so that the second one
     * would be taken for that one's: CAVEATS. */
    for (unsigned later = 0; later < (is_worker(setting) ? 2u : 1u); later++) {
        struct rig *rig = small_rig(setting, 1);

        rig->complete_times = 3;
        rig->later = later;
        rig_register(rig);
        rig_settle(rig);
        assert_int_equal(rig_stats(rig).stray_completes, 2 * BATCHES);
        assert_int_equal(rig_stats(rig).reported_blocks, BLOCKS);
        assert_int_equal(rig_stats(rig).batches, BATCHES);
        rig_free(rig);
    }
}

/* The first answer counts. */
static void a_second_status_is_ignored(const struct setting *setting)
{
    struct rig *rig = small_rig(setting, 1);

    rig->later = true;
    rig_register(rig);
    begin(rig);
    rig_complete(rig, -EBB_EIO);
    assert_false(rig->in_flight);
    ebb_report_complete(&rig->report, 0);
    rig_run(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, 0);
    assert_int_equal(rig_stats(rig).stray_completes, 1);
    assert_recovers(rig);
    rig_free(rig);
}

static void completions_that_nobody_waits_for(const struct setting *setting)
{
    struct rig *rig = small_rig(setting, 1);

    ebb_report_complete(&rig->report, 0);
    rig_register(rig);
    if (is_worker(setting))
        ebb_report_complete(&rig->report, -EBB_EIO);
    rig_settle(rig);
    ebb_report_complete(&rig->report, 0);
    rig_unregister(rig);
    ebb_report_complete(&rig->report, 0);
    assert_int_equal(rig_stats(rig).stray_completes, 3 + is_worker(setting));
    assert_int_equal(rig_stats(rig).failed_batches, 0);
    assert_int_equal(rig_stats(rig).reported_blocks, BLOCKS);
    rig_free(rig);
}

static void complete_inside(struct rig *rig)
{
    rig_complete(rig, 0);
}

static void a_device_that_completes_and_then_refuses(const struct setting *setting)
{
    struct rig *rig = small_rig(setting, 1);

    rig->on_submit = complete_inside;
    rig->refuse_at = 2;
    rig_register(rig);
    begin(rig);
    /* It contradicts itself: nothing is taken for reported. */
    assert_int_equal(rig_stats(rig).failed_batches, 1);
    assert_int_equal(rig_zone_stats(rig, 0).reported, PER_BATCH * C_FRAMES);
    assert_recovers(rig);
    rig_free(rig);
}

/* ---- unregister ---- */

/* Everything can be had; then a new device reports what is left, once. */
static void check_all_back(const struct setting *setting, struct rig *rig)
{
    ebb_pfn_t pfns[BLOCKS + 1];
    unsigned submits = rig->submits;

    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    assert_int_equal(rig_zone_stats(rig, 0).in_flight, 0);
    assert_int_equal(rig_zone_stats(rig, 0).reported, rig_stats(rig).reported_blocks * C_FRAMES);
    rig_check(rig);
    assert_int_equal(rig_run_after(rig, 100000 * MS), EBB_NEVER);
    assert_int_equal(rig->submits, submits); /* the device is left alone */

    rig->later = false;
    rig_register(rig);
    if (is_worker(setting)) {
        assert_int_equal(rig_run(rig), port_virtual.now + C_DELAY);
        assert_int_equal(rig->submits, submits); /* nothing of the old pass is left */
    }
    assert_recovers(rig);
    rig_unregister(rig);
    assert_int_equal(rig_alloc_all(rig, 0, C_ORDER, pfns), BLOCKS);
    rig_release_all(rig, 0, C_ORDER, pfns, BLOCKS);
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
    begin(rig);
    while (rig->submits < step) {
        rig_complete(rig, 0);
        rig_run(rig);
        if (!rig->in_flight)
            begin(rig);
    }
    waiting = rig;
    waiting_status = how == BY_RELAX_FAILED ? -EBB_ECANCELED : 0;
    port_virtual.on_relax = how == BY_POLL || how == BEFORE ? NULL : complete_on_relax;
    rig->complete_on_poll = how == BY_POLL || how == BEFORE;
    if (how == BEFORE)
        rig_complete(rig, 0);
    rig_unregister(rig); /* asserts that nothing is in flight */
    port_virtual.on_relax = NULL;
}

static void f30_unregister_at_every_batch(const struct setting *setting)
{
    for (unsigned step = 1; step <= BATCHES; step++) {
        for (unsigned how = 0; how < HOWS; how++) {
            struct rig *rig = small_rig(setting, 1);

            unregister_in_flight(rig, step, (enum how)how);
            assert_int_equal(rig_stats(rig).failed_batches, how == BY_RELAX_FAILED);
            assert_int_equal(rig_stats(rig).reported_blocks,
                             (rig->submits - (how == BY_RELAX_FAILED)) * PER_BATCH);
            check_all_back(setting, rig);
            rig_free(rig);
        }
    }
}

static void unregister_before_a_pass_and_after_one(const struct setting *setting)
{
    struct rig *rig = small_rig(setting, 1);

    rig_register(rig);
    rig_unregister(rig);
    if (is_worker(setting))
        assert_int_equal(rig->submits, 0);
    check_all_back(setting, rig);
    rig_free(rig);

    rig = small_rig(setting, 1);
    register_and_flush(rig);
    rig_unregister(rig);
    check_all_back(setting, rig);
    assert_int_equal(rig->polls, 0);
    rig_free(rig);
}

static void unregister_after_a_failure(const struct setting *setting)
{
    struct rig *rig = small_rig(setting, 1);

    rig->refuse_at = 2;
    rig_register(rig);
    begin(rig);
    rig_unregister(rig);
    check_all_back(setting, rig);
    rig_free(rig);
}

/* While unregister waits others go on: they free, ask, run, even unregister. */
static void go_on(void)
{
    struct rig *rig = waiting;

    if (port_virtual.relaxes == 1) {
        ebb_pfn_t pfn = rig_alloc(rig, 0, C_ORDER);

        rig_release(rig, 0, pfn, C_ORDER);
        ebb_report_now(&rig->report);
        assert_int_equal(ebb_report_run(&rig->report), EBB_NEVER);
        assert_int_equal(ebb_report_unregister(&rig->report), -EBB_ENODEV);
        assert_int_equal(ebb_report_register(&rig->report, &rig->device), -EBB_EBUSY);
    }
    if (port_virtual.relaxes == 5 && rig->in_flight)
        rig_complete(rig, 0);
}

static void f30_others_go_on_while_unregister_waits(const struct setting *setting)
{
    struct rig *rig = small_rig(setting, 1);

    rig->later = true;
    rig_register(rig);
    begin(rig);
    waiting = rig;
    port_virtual.relaxes = 0;
    port_virtual.on_relax = go_on;
    rig_unregister(rig);
    port_virtual.on_relax = NULL;
    assert_true(rig->polls >= 5);
    assert_int_equal(rig->submits, 1);
    check_all_back(setting, rig);
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

static void every_sequence_of_answers(const struct setting *setting)
{
    for (unsigned id = 0; id < 81; id++) {
        unsigned answers[BATCHES] = {id % ANSWERS, id / 3 % ANSWERS, id / 9 % ANSWERS, id / 27};
        struct rig *rig = small_rig(setting, 1);
        unsigned failures = 0;

        for (unsigned i = 0; i < BATCHES; i++)
            failures += answers[i] != YES;
        rig->on_submit = answer;
        rig->ctx = answers;
        rig_register(rig);
        for (unsigned i = 0; i <= failures; i++)
            flush(rig);
        if (rig_stats(rig).reported_blocks != BLOCKS || rig_stats(rig).failed_batches != failures ||
            rig->submits != BATCHES + failures)
            fail_msg("sequence %u: %u blocks, %u failures, %u batches", id,
                     (unsigned)rig_stats(rig).reported_blocks,
                     (unsigned)rig_stats(rig).failed_batches, rig->submits);
        rig_free(rig);
    }
}

/* ---- anything, in any order ---- */

#define HELD  40u
#define WALKS 3u
#define STEPS 1200u

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
    unsigned zone = (unsigned)rand() % 2, order = (unsigned)rand() % (C_ORDER + 1);
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
        walk->isolated = rand() % (int)(2 * BLOCKS);
        err = ebb_isolate_range(zone, RIG_BASE + ((unsigned)walk->isolated << C_PAGEBLOCK),
                                1u << C_PAGEBLOCK);
    } else {
        err = ebb_putback_range(zone, RIG_BASE + ((unsigned)walk->isolated << C_PAGEBLOCK),
                                1u << C_PAGEBLOCK, (enum ebb_migratetype)(rand() % 3));
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
        rig_run_after(walk->rig, (uint64_t)rand() % (2 * C_DELAY));
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
    if (rig->history.config.execution == EBB_EXECUTION_INLINE || need(rig) > 1) {
        /* Nobody comes for what is in a cache, or below the threshold. */
        for (unsigned i = 0; i < 2; i++)
            ebb_zone_drain(&rig->zones[i]);
        flush(rig);
    }
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(rig_unreported_frames(rig, i, 2), 0);
    assert_int_equal(rig_zone_stats(rig, 0).cached + rig_zone_stats(rig, 1).cached, 0);
    rig_check(rig);
}

static void anything_in_any_order(const struct setting *setting)
{
    const char *given = getenv("EBB_SEED");
    unsigned first = given ? (unsigned)strtoul(given, NULL, 0) : 1;

    for (unsigned seed = first; seed < first + (given ? 1 : WALKS); seed++) {
        struct walk walk = {.isolated = -1};

        /* The last one printed is the one that failed. */
        print_message("EBB_SEED=%u\n", seed);
        srand(seed);
        walk.rig = rig_with(setting, &(struct rig_config){
                                         .zones = 2,
                                         .cpus = 2,
                                         .frames = BLOCKS * C_FRAMES,
                                         .capacity = 1 + seed % 7,
                                         .watermark_min = seed % 3 * 40,
                                         .watermark_low = seed % 3 * 50,
                                         .report = {.order = EBB_REPORT_ORDER(2)},
                                     });
        walk.rig->complete_on_poll = true;
        for (unsigned i = 0; i < STEPS; i++) {
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

const struct row rows_faults[] = {
    {"f46_a_batch_is_refused_at_step_1_to_n", f46_a_batch_is_refused_at_step_1_to_n, NULL},
    {"f46_a_batch_completes_with_an_error_at_step_1_to_n",
     f46_a_batch_completes_with_an_error_at_step_1_to_n, NULL},
    {"f46_an_error_that_comes_late", f46_an_error_that_comes_late, NULL},
    {"f46_zones_behind_the_failure_are_not_forgotten",
     f46_zones_behind_the_failure_are_not_forgotten, NULL},
    {"f46_one_bad_block_keeps_nothing_waiting", f46_one_bad_block_keeps_nothing_waiting, NULL},
    {"the_back_off_doubles_up_to_its_limit", the_back_off_doubles_up_to_its_limit, is_worker},
    {"a_new_device_starts_without_a_back_off", a_new_device_starts_without_a_back_off, is_worker},
    {"a_request_does_not_shorten_the_back_off", a_request_does_not_shorten_the_back_off, is_worker},
    {"a_free_during_a_pass_that_fails", a_free_during_a_pass_that_fails, NULL},
    {"a_batch_completed_twice", a_batch_completed_twice, NULL},
    {"a_second_status_is_ignored", a_second_status_is_ignored, NULL},
    {"completions_that_nobody_waits_for", completions_that_nobody_waits_for, NULL},
    {"a_device_that_completes_and_then_refuses", a_device_that_completes_and_then_refuses, NULL},
    {"f30_unregister_at_every_batch", f30_unregister_at_every_batch, NULL},
    {"unregister_before_a_pass_and_after_one", unregister_before_a_pass_and_after_one, NULL},
    {"unregister_after_a_failure", unregister_after_a_failure, NULL},
    {"f30_others_go_on_while_unregister_waits", f30_others_go_on_while_unregister_waits, NULL},
    {"every_sequence_of_answers", every_sequence_of_answers, NULL},
    {"anything_in_any_order", anything_in_any_order, NULL},
    {NULL, NULL, NULL},
};
