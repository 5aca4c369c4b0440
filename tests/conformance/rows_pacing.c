/* SPDX-License-Identifier: BSD-2-Clause */
/* Rows of the pacing: when a pass begins, what it costs the others, how much it takes. */
#include "rows.h"

#include <ebb/range.h>

#include "zone_private.h"

/* ---- threshold, order, delay ---- */

static void f20_the_threshold_is_exact(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    ebb_pfn_t pfns[C_BLOCKS];
    unsigned n;

    register_and_flush(rig);
    for (unsigned round = 1; round <= 3; round++) {
        n = take_need(rig, 0, pfns);
        rig_forget(rig);
        rig_release_all(rig, 0, C_ORDER, pfns, n - 1);
        assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
        assert_int_equal(rig_stats(rig).requests, round - 1);
        assert_int_equal(rig_run_after(rig, 1000 * MS), EBB_NEVER);
        assert_int_equal(rig->submits, 0);
        rig_release(rig, 0, pfns[n - 1], C_ORDER);
        assert_int_equal(rig_stats(rig).requests, round);
        if (is_worker(setting))
            assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_REQUESTED);
        rig_settle(rig);
        assert_int_equal(rig_reported_blocks(rig), n);
    }
    rig_free(rig);
}

/* The last few blocks of a zone with a threshold stay, until somebody asks. */
static void f20_what_is_below_the_threshold_stays(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    ebb_pfn_t pfns[C_BLOCKS];
    unsigned n;

    register_and_flush(rig);
    n = take_need(rig, 0, pfns);
    rig_release_all(rig, 0, C_ORDER, pfns, n - 1);
    rig_settle(rig);
    assert_int_equal(rig_unreported_frames(rig, 0, 0), (n - 1) * C_FRAMES);
    ebb_report_now(&rig->report);
    rig_settle(rig);
    assert_int_equal(rig_unreported_frames(rig, 0, 0), 0);
    rig_release(rig, 0, pfns[n - 1], C_ORDER);
    rig_free(rig);
}

/* Twice the capacity in use: the device's or the configuration's, whichever is less. */
static void f20_twice_the_capacity_in_use(const struct setting *setting)
{
    static const struct {
        unsigned device, config, wanted;
    } cases[] = {{3, 0, 6}, {3, 2, 4}, {2, 3, 4}, {1, 0, 2}};

    for (unsigned i = 0; i < 4; i++) {
        struct rig *rig =
            rig_with(setting, &(struct rig_config){.capacity = cases[i].device,
                                                   .report.capacity = cases[i].config});
        ebb_pfn_t pfns[C_BLOCKS];

        register_and_flush(rig);
        assert_int_equal(take_need(rig, 0, pfns), cases[i].wanted);
        rig_release_all(rig, 0, C_ORDER, pfns, cases[i].wanted - 1);
        rig_settle(rig);
        assert_int_equal(rig->submits, 0);
        rig_release(rig, 0, pfns[cases[i].wanted - 1], C_ORDER);
        rig_settle(rig);
        assert_times(rig, pfns, cases[i].wanted, 1);
        rig_free(rig);
    }
}

static void f21_smaller_blocks_are_never_reported(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){.capacity = 1});
    ebb_pfn_t pfns[2 * C_BLOCKS + 1], small[2];
    unsigned n = rig_alloc_all(rig, 0, C_PAGEBLOCK, pfns);

    assert_int_equal(n, 2 * C_BLOCKS);
    register_and_flush(rig);
    rig_release(rig, 0, pfns[0], C_PAGEBLOCK);
    for (unsigned i = 0; i < 2; i++)
        small[i] = rig_alloc(rig, 0, C_PAGEBLOCK - 1);
    flush(rig);
    rig_forget(rig);

    rig_release(rig, 0, small[0], C_PAGEBLOCK - 1);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    flush(rig);
    assert_int_equal(rig->submits, 0);
    /* Its buddy makes it one that counts. */
    rig_release(rig, 0, small[1], C_PAGEBLOCK - 1);
    flush(rig);
    assert_int_equal(rig_reported_blocks(rig), 1);
    rig_release_all(rig, 0, C_PAGEBLOCK, pfns + 1, n - 1);
    rig_free(rig);
}

static void f22_where_the_smallest_order_comes_from(const struct setting *setting)
{
    static const struct {
        uint8_t config, device;
        unsigned order;
    } cases[] = {
        {0, 0, C_PAGEBLOCK},         {0, EBB_REPORT_ORDER(1), 1},
        {0, EBB_REPORT_ORDER(0), 0}, {EBB_REPORT_ORDER(0), EBB_REPORT_ORDER(3), 0},
        {EBB_REPORT_ORDER(2), 0, 2}, {EBB_REPORT_ORDER(C_ORDER), 0, C_ORDER},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig *rig = rig_with(setting, &(struct rig_config){.min_order = cases[i].device,
                                                                 .report.order = cases[i].config});
        ebb_pfn_t pfn = rig_alloc(rig, 0, 0);
        unsigned smallest = C_ORDER;

        rig_register(rig);
        flush(rig);
        for (unsigned b = 0; b < rig->submits; b++) {
            for (unsigned j = 0; j < rig->log[b].n; j++) {
                unsigned order =
                    (unsigned)__builtin_ctzll(rig->log[b].ranges[j].len / EBB_FRAME_SIZE);

                smallest = order < smallest ? order : smallest;
            }
        }
        assert_int_equal(smallest, cases[i].order);
        assert_int_equal(rig_unreported_frames(rig, 0, cases[i].order), 0);
        rig_release(rig, 0, pfn, 0);
        rig_free(rig);
    }
}

static void f22_an_order_above_the_largest_turns_a_zone_off(const struct setting *setting)
{
    struct rig *rig =
        rig_with(setting, &(struct rig_config){.report.order = EBB_REPORT_ORDER(C_ORDER + 1)});
    ebb_pfn_t pfns[C_BLOCKS];
    unsigned n = need(rig);

    rig_register(rig);
    rig_settle(rig);
    take_need(rig, 0, pfns);
    rig_release_all(rig, 0, C_ORDER, pfns, n);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    flush(rig);
    assert_int_equal(rig->submits, 0);
    assert_int_equal(rig_stats(rig).requests, 0);
    rig_free(rig);
}

static void f23_a_pass_comes_after_the_delay(const struct setting *setting)
{
    static const uint32_t delays[] = {0, 1, 200, 2000, 3600000};

    for (unsigned i = 0; i < sizeof(delays) / sizeof(delays[0]); i++) {
        struct rig *rig = rig_with(setting, &(struct rig_config){.history.delay_ms = delays[i]});
        uint64_t delay = (delays[i] ? delays[i] : EBB_HISTORY_DELAY_MS) * MS;
        uint64_t due = port_virtual.now + delay;
        ebb_pfn_t pfns[C_BLOCKS];
        unsigned n = need(rig);

        rig_register(rig);
        assert_int_equal(rig_run(rig), due);
        assert_int_equal(rig_run_after(rig, delay - 1), due);
        assert_int_equal(rig->submits, 0);
        rig_run_after(rig, 1);
        assert_true(rig->submits > 0);
        rig_settle(rig);
        rig_forget(rig);

        /* Counted from the free that asks, not from the last. */
        take_need(rig, 0, pfns);
        ebb_pfn_t extra = rig_alloc(rig, 0, C_ORDER);
        rig_release_all(rig, 0, C_ORDER, pfns, n);
        due = port_virtual.now + delay;
        assert_int_equal(rig_run_after(rig, delay / 2), due);
        rig_release(rig, 0, extra, C_ORDER);
        assert_int_equal(rig_run(rig), due);
        assert_int_equal(rig->submits, 0);
        rig_run_after(rig, due - port_virtual.now);
        assert_true(rig->submits > 0);
        rig_settle(rig);
        rig_free(rig);
    }
}

/* Frees and takes blocks whenever a batch is out. */
static void churn(struct rig *rig)
{
    ebb_pfn_t *pfns = rig->ctx;
    unsigned n = need(rig);

    rig_release_all(rig, 0, C_ORDER, pfns, n);
    for (unsigned i = 0; i < n; i++)
        pfns[i] = rig_alloc(rig, 0, C_ORDER);
}

static void f23_one_pass_in_a_delay_even_if_all_is_busy(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){.capacity = 4});
    ebb_pfn_t pfns[C_BLOCKS], others[C_BLOCKS];
    uint64_t start = port_virtual.now;
    unsigned n = need(rig);

    /* Both have to be had at once. */
    if (2 * n + 8 > C_BLOCKS)
        n = 0;
    if (n > 0) {
        take_need(rig, 0, pfns);
        rig->on_submit = churn;
        rig->ctx = pfns;
        rig_register(rig);
        for (unsigned i = 0; i < 1000; i++) {
            take_need(rig, 0, others);
            rig_run_after(rig, C_DELAY / 10);
            rig_release_all(rig, 0, C_ORDER, others, n);
            if (rig->submits > RIG_LOG / 2)
                rig_forget(rig);
        }
        assert_in_range(rig_stats(rig).passes, 45, (port_virtual.now - start) / C_DELAY);
        rig->on_submit = NULL;
        rig_settle(rig);
        rig_release_all(rig, 0, C_ORDER, pfns, n);
    }
    rig_free(rig);
}

/* ---- the cost ---- */

static uint64_t locks_of_a_round(struct rig *rig, unsigned order)
{
    uint64_t before = port_virtual.locks;
    ebb_pfn_t pfn = rig_alloc(rig, 0, order);

    assert_int_equal(ebb_free(&rig->zones[0], pfn, order), 0);
    return port_virtual.locks - before;
}

static void f40_f41_a_small_free_costs_nothing_more(const struct setting *setting)
{
    struct rig *off = rig_with(setting, &(struct rig_config){0});
    struct rig *on = rig_with(setting, &(struct rig_config){0});
    ebb_pfn_t keep = rig_alloc(on, 0, 1);

    register_and_flush(on);
    for (unsigned order = 1; order < C_PAGEBLOCK; order++) {
        assert_int_equal(locks_of_a_round(on, order), locks_of_a_round(off, order));
        assert_int_equal(rig_stats(on).requests, 0);
    }
    assert_int_equal(ebb_report_phase(&on->report), EBB_REPORT_IDLE);
    if (is_all_worker(setting)) {
        /* Of many large ones only the first costs more: the engine's lock, once. */
        assert_int_equal(locks_of_a_round(on, C_ORDER), locks_of_a_round(off, C_ORDER) + 1);
        assert_int_equal(locks_of_a_round(on, C_ORDER), locks_of_a_round(off, C_ORDER));
    } else if (need(on) > 1) {
        /* Below the threshold none does. */
        assert_int_equal(locks_of_a_round(on, C_ORDER), locks_of_a_round(off, C_ORDER));
    }
    /* And with the device gone nothing does. */
    rig_settle(on);
    rig_unregister(on);
    assert_int_equal(locks_of_a_round(on, C_ORDER), locks_of_a_round(off, C_ORDER));
    rig_release(on, 0, keep, 1);
    rig_free(on);
    rig_free(off);
}

/* Reported blocks are used last: what is allocated first is unreported. */
static void f42_warm_blocks_are_used_first(const struct setting *setting)
{
    for (unsigned batches = 1; batches < C_BLOCKS / C_CAPACITY; batches++) {
        struct rig *rig = rig_with(setting, &(struct rig_config){0});
        ebb_pfn_t pfns[C_BLOCKS];
        uint64_t reported;

        rig->later = true;
        rig_register(rig);
        begin(rig);
        for (unsigned i = 0; i < batches; i++) {
            if (!rig->in_flight)
                begin(rig);
            rig_complete(rig, 0);
            rig_run(rig);
        }
        rig->complete_on_poll = true;
        rig_unregister(rig);
        reported = rig_zone_stats(rig, 0).reported;
        assert_true(reported >= batches * C_CAPACITY * C_FRAMES);
        for (unsigned i = 0; i < C_BLOCKS; i++) {
            uint64_t left = (C_BLOCKS - i - 1) * C_FRAMES;

            pfns[i] = rig_alloc(rig, 0, C_ORDER);
            assert_int_equal(rig_zone_stats(rig, 0).refaulted,
                             left >= reported ? 0 : reported - left);
        }
        rig_release_all(rig, 0, C_ORDER, pfns, C_BLOCKS);
        rig_free(rig);
    }
}

/* ---- budget ---- */

static void f44_a_sixteenth_of_a_list_in_a_pass(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){.capacity = 32,
                                                             .frames = 32768,
                                                             .max_order = 2,
                                                             .history = {.delay_ms = 2000}});
    uint64_t passes = 0, batches = 0;

    rig_register(rig);
    while (rig_run_after(rig, 2000 * MS) != EBB_NEVER) {
        assert_int_equal(rig_stats(rig).passes, ++passes);
        /* No more than 8192 blocks / 16 / 32, and one. */
        assert_in_range(rig_stats(rig).batches - batches, 1, 17);
        batches = rig_stats(rig).batches;
        if (rig->submits > RIG_LOG / 2)
            rig_forget(rig);
    }
    if (!is_bitmap(setting))
        assert_in_range(rig_stats(rig).passes, 15, 16);
    assert_int_equal(rig_stats(rig).batches, 256);
    assert_int_equal(rig_zone_stats(rig, 0).reported, 32768);
    rig_free(rig);
}

static void f44_a_list_gives_at_least_two_batches(const struct setting *setting)
{
    struct rig *rig =
        rig_with(setting, &(struct rig_config){.capacity = 8, .history.budget = 1024});

    rig_register(rig);
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_not_equal(rig_run_after(rig, C_DELAY), EBB_NEVER);
        assert_int_equal(rig_reported_blocks(rig), 2 * 8 * i);
    }
    assert_int_equal(rig_run_after(rig, C_DELAY), EBB_NEVER);
    assert_int_equal(rig_reported_blocks(rig), C_BLOCKS);
    rig_free(rig);
}

/* ---- watermarks ---- */

static void f45_nothing_is_reported_below_the_low_watermark(const struct setting *setting)
{
    const uint64_t low = 5 * C_FRAMES + 4;
    struct rig *rig = rig_with(setting, &(struct rig_config){.capacity = 2, .watermark_low = low});
    ebb_pfn_t pfns[C_BLOCKS * C_FRAMES];
    unsigned n = 0;

    for (unsigned i = 0; i < (C_BLOCKS - 2) * C_FRAMES; i++)
        pfns[n++] = rig_alloc(rig, 0, 0);
    /* Free: two blocks of the largest order, and scattered frames: one less than would
     * let one of the two go. */
    for (unsigned i = 0; rig_zone_stats(rig, 0).free < low + C_FRAMES - 1; i += 2) {
        rig_release(rig, 0, pfns[i], 0);
        pfns[i] = pfns[--n];
    }
    rig_register(rig);
    assert_int_equal(rig_settle(rig) + is_inline(setting), 1); /* and no timer runs */
    assert_int_equal(rig->submits, 0);
    assert_int_equal(rig->zones[0].report_order, 0); /* a gate */

    /* One more frame opens it, though it is far too small to be reported. */
    rig_release(rig, 0, pfns[--n], 0);
    rig_settle(rig);
    assert_true(rig_reported_blocks(rig) >= 1);
    if (is_all(setting))
        assert_int_equal(rig_unreported_frames(rig, 0, C_ORDER), 0);
    while (n > 0)
        rig_release(rig, 0, pfns[--n], 0);
    flush(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));
    /* The screener is back at what is reported. */
    assert_int_equal(rig->zones[0].report_order, C_PAGEBLOCK);
    rig_free(rig);
}

static void f45_isolated_frames_do_not_count(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){.watermark_low = 2 * C_FRAMES});
    struct ebb_zone *zone = &rig->zones[0];

    assert_int_equal(ebb_isolate_range(zone, RIG_BASE, (C_BLOCKS - 2) * C_FRAMES), 0);
    rig_register(rig);
    rig_settle(rig);
    assert_int_equal(rig->submits, 0);
    assert_int_equal(ebb_putback_range(zone, RIG_BASE, (C_BLOCKS - 2) * C_FRAMES, EBB_MOVABLE), 0);
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), C_BLOCKS);
    rig_free(rig);
}

static void f45_a_zone_at_its_watermark_does_not_hold_up_the_next(const struct setting *setting)
{
    const uint64_t low = (C_BLOCKS - 1) * C_FRAMES;
    struct rig *rig = rig_with(
        setting, &(struct rig_config){.zones = 2, .watermark_min = low, .watermark_low = low});
    ebb_pfn_t pfn = rig_alloc(rig, 0, C_ORDER);

    /* Of each zone one block may be away at a time; the first has one in use, and none
     * may go. */
    rig_register(rig);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, 0);
    assert_int_equal(rig_zone_stats(rig, 1).reported, C_BLOCKS * C_FRAMES);
    rig_release(rig, 0, pfn, C_ORDER);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, C_BLOCKS * C_FRAMES);
    rig_free(rig);
}

/* For on_submit: what is to spare in the first zone is taken behind the pass's back. */
static void take_two(struct rig *rig)
{
    ebb_pfn_t *pfns = rig->ctx;

    if (rig->submits == 1) {
        pfns[0] = rig_alloc(rig, 0, C_ORDER);
        pfns[1] = rig_alloc(rig, 0, C_ORDER);
    }
}

/* The first zone stops in the middle of a list; the second starts afresh. */
static void f45_the_next_zone_starts_afresh(const struct setting *setting)
{
    const uint64_t low = (C_BLOCKS - 2) * C_FRAMES;
    struct rig *rig = rig_with(setting, &(struct rig_config){.zones = 2, .watermark_low = low});
    ebb_pfn_t pfns[2];

    rig->on_submit = take_two;
    rig->ctx = pfns;
    rig_register(rig);
    begin(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, C_FRAMES);
    assert_int_equal(rig_zone_stats(rig, 1).reported, C_BLOCKS * C_FRAMES);
    rig_release_all(rig, 0, C_ORDER, pfns, 2);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, C_BLOCKS * C_FRAMES);
    rig_free(rig);
}

static void f45_a_batch_leaves_half_of_what_is_to_spare(const struct setting *setting)
{
    const uint64_t low = (C_BLOCKS - 12) * C_FRAMES;
    struct rig *rig = rig_with(setting, &(struct rig_config){.capacity = 16, .watermark_low = low});
    ebb_pfn_t pfns[6];

    /* 12 blocks are above the watermark: 6 may be away at once, and the other 6 can
     * be allocated meanwhile. */
    rig->later = true;
    rig_register(rig);
    begin(rig);
    assert_int_equal(rig->log[0].n, 6);
    for (unsigned i = 0; i < 6; i++)
        pfns[i] = rig_alloc(rig, 0, C_ORDER);
    assert_int_equal(rig_zone_stats(rig, 0).free, low);
    rig_complete(rig, 0);
    rig_settle(rig);
    assert_int_equal(rig_stats(rig).failed_batches, 0);
    flush(rig);
    assert_int_equal(rig_unreported_frames(rig, 0, 0), 0);
    assert_int_equal(rig_reported_blocks(rig), C_BLOCKS - 6);
    rig_release_all(rig, 0, C_ORDER, pfns, 6);
    rig_free(rig);
}

static void f45_a_zone_smaller_than_a_batch_is_reported(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){.capacity = EBB_REPORT_CAPACITY_LIMIT,
                                                             .report.capacity = 512,
                                                             .watermark_low = C_FRAMES});

    rig_register(rig);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));
    rig_free(rig);
}

static void
f45_a_block_that_the_watermark_needs_does_not_make_it_spin(const struct setting *setting)
{
    /* One free block, none of whose frames may go. */
    struct rig *rig = rig_with(
        setting, &(struct rig_config){.capacity = 1, .watermark_min = 5, .watermark_low = 5});
    ebb_pfn_t pfns[C_BLOCKS + 1];

    assert_int_equal(rig_alloc_all(rig, 0, C_ORDER, pfns), C_BLOCKS);
    rig_release(rig, 0, pfns[0], C_ORDER);
    rig_register(rig);
    rig_settle(rig);
    assert_int_equal(rig_stats(rig).passes, 1);
    assert_int_equal(rig->submits, 0);
    /* With another block free, each can go while the other stays. */
    rig_release(rig, 0, pfns[1], C_ORDER);
    rig_settle(rig);
    assert_int_equal(rig_unreported_frames(rig, 0, 0), 0);
    rig_release_all(rig, 0, C_ORDER, pfns + 2, C_BLOCKS - 2);
    rig_free(rig);
}

/* What fits is reported although something larger does not. */
static void f45_a_gate_hides_nothing_that_fits(const struct setting *setting)
{
    struct rig *rig = rig_with(
        setting, &(struct rig_config){.watermark_low = 14, .report.order = EBB_REPORT_ORDER(1)});
    ebb_pfn_t pfns[C_BLOCKS + 1], parts[8];

    assert_int_equal(rig_alloc_all(rig, 0, C_ORDER, pfns), C_BLOCKS);
    rig_release(rig, 0, pfns[0], C_ORDER);
    for (unsigned i = 0; i < 8; i++)
        parts[i] = rig_alloc(rig, 0, 1);
    rig_release(rig, 0, pfns[1], C_ORDER);
    rig_register(rig);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, 0);
    /* 18 are free, 14 are to be left: the 2 may go, the 16 may not. */
    rig_release(rig, 0, parts[0], 1);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, 2);
    rig_release_all(rig, 0, 1, parts + 1, 7);
    rig_release_all(rig, 0, C_ORDER, pfns + 2, C_BLOCKS - 2);
    rig_free(rig);
}

static void f45_an_allocation_waits_rather_than_fails(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    ebb_pfn_t pfns[C_BLOCKS], pfn;
    unsigned n;

    rig->later = true;
    rig_register(rig);
    begin(rig);
    n = rig_alloc_all(rig, 0, C_ORDER, pfns);
    assert_int_equal(n, C_BLOCKS - C_CAPACITY);
    assert_int_equal(ebb_alloc(&rig->zones[0], 0, EBB_MOVABLE, 0, &pfn), -EBB_EAGAIN);
    rig_complete(rig, 0);
    rig_settle(rig);
    assert_int_equal(ebb_alloc(&rig->zones[0], 0, EBB_MOVABLE, 0, &pfn), 0);
    rig_release(rig, 0, pfn, 0);
    rig_release_all(rig, 0, C_ORDER, pfns, n);
    rig_free(rig);
}

/* ---- nothing is forgotten, nothing spins ---- */

static void frames_in_caches_do_not_pin_their_blocks(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){.cpus = 4});
    ebb_pfn_t pfns[16 * C_FRAMES];

    register_and_flush(rig);
    for (unsigned i = 0; i < 16 * C_FRAMES; i++)
        assert_int_equal(ebb_alloc(&rig->zones[0], 0, EBB_MOVABLE, 0, &pfns[i]), 0);
    for (unsigned i = 0; i < 16 * C_FRAMES; i++) {
        port_virtual.cpu = i % 4;
        assert_int_equal(ebb_free(&rig->zones[0], pfns[i], 0), 0);
    }
    assert_true(rig_zone_stats(rig, 0).cached > 0);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).cached, 0);
    assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));
    rig_free(rig);
}

/* Or, where no pass would come for them, they are not kept there. */
static void pageblocks_in_caches_are_reported(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){.cpus = 4, .pcp_blocks = 2});
    struct ebb_zone *zone = &rig->zones[0];
    const bool lazy = !is_all_worker(setting) && !is_budget(setting);
    ebb_pfn_t pfns[32];
    unsigned n = 0;

    while (n < 32 && ebb_alloc(zone, zone->pageblock_order, EBB_MOVABLE, 0, &pfns[n]) == 0)
        n++;
    assert_true(n > 16);
    for (unsigned i = 0; i < n; i++) {
        if (i == 8) { /* it cannot know of the engine before */
            assert_true(rig_zone_stats(rig, 0).cached > 0);
            register_and_flush(rig);
            assert_int_equal(rig_zone_stats(rig, 0).cached, 0);
        }
        port_virtual.cpu = i % 4;
        assert_int_equal(ebb_free(zone, pfns[i], zone->pageblock_order), 0);
    }
    assert_int_equal(rig_zone_stats(rig, 0).cached > 0, !lazy);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).cached, 0);
    if (!lazy)
        assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));

    /* Now: whoever uses the caches. */
    assert_int_equal(ebb_alloc(zone, zone->pageblock_order, EBB_MOVABLE, 0, &pfns[0]), 0);
    assert_int_equal(ebb_free(zone, pfns[0], zone->pageblock_order), 0);
    ebb_report_now(&rig->report);
    (void)rig_run(rig);
    assert_int_equal(rig_zone_stats(rig, 0).cached, 0);
    rig_settle(rig);

    rig_unregister(rig);
    assert_int_equal(ebb_alloc(zone, zone->pageblock_order, EBB_MOVABLE, 0, &pfns[0]), 0);
    assert_int_equal(ebb_free(zone, pfns[0], zone->pageblock_order), 0);
    assert_true(rig_zone_stats(rig, 0).cached > 0);
    ebb_zone_drain(zone);
    rig_free(rig);
}

/* So slow that every pass finds what was freed before in a cache that is idle
 * already, and nothing ever overflows or completes a block. */
static void slow_frees_are_reported_too(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    ebb_pfn_t pfns[C_FRAMES];

    for (unsigned i = 0; i < C_FRAMES; i++)
        assert_int_equal(ebb_alloc(&rig->zones[0], 0, EBB_MOVABLE, 0, &pfns[i]), 0);
    register_and_flush(rig);
    for (unsigned i = 0; i < C_FRAMES; i++) {
        assert_int_equal(ebb_free(&rig->zones[0], pfns[i], 0), 0);
        rig_run_after(rig, 2 * C_DELAY);
    }
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).cached, 0);
    assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));
    rig_free(rig);
}

static void a_cache_in_use_is_looked_at_again(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    ebb_pfn_t pfn;

    register_and_flush(rig);
    for (unsigned i = 0; i < 20; i++) {
        /* Somebody uses the cache all the time: passes go on, one a delay. */
        assert_int_equal(ebb_alloc(&rig->zones[0], 0, EBB_MOVABLE, 0, &pfn), 0);
        assert_int_equal(ebb_free(&rig->zones[0], pfn, 0), 0);
        assert_int_equal(rig_run(rig), port_virtual.now + C_DELAY);
        port_virtual.now += C_DELAY;
    }
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).cached, 0);
    assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));
    rig_free(rig);
}

/* Takes a frame out of an unreported block behind the pass's back. */
static void split_something(struct rig *rig)
{
    if (rig->submits == 1)
        *(ebb_pfn_t *)rig->ctx = rig_alloc(rig, 0, 0);
}

static void what_is_split_off_behind_the_pass_is_reported_too(const struct setting *setting)
{
    for (unsigned budget = 1; budget <= (is_worker(setting) ? 1024u : 1u); budget += 1023) {
        struct rig *rig =
            rig_with(setting, &(struct rig_config){.capacity = 1,
                                                   .report = {.order = EBB_REPORT_ORDER(1)},
                                                   .history = {.budget = budget}});
        ebb_pfn_t pfn = 0;

        rig->on_submit = split_something;
        rig->ctx = &pfn;
        rig_register(rig);
        rig_settle(rig);
        if (is_threshold(setting))
            flush(rig);
        assert_int_equal(rig_unreported_frames(rig, 0, 1), 0);
        rig_release(rig, 0, pfn, 0);
        rig_free(rig);
    }
}

static void new_frames_are_reported(const struct setting *setting)
{
    struct rig *rig = rig_with(
        setting,
        &(struct rig_config){.max_order = MAX_ORDER, .frames = 40 << MAX_ORDER, .hole = true});

    register_and_flush(rig);
    assert_int_equal(rig_stats(rig).reported_blocks, 39);
    assert_int_equal(ebb_zone_add(&rig->zones[0], RIG_BASE, 1 << MAX_ORDER), 0);
    if (is_threshold(setting))
        flush(rig);
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), 1);
    assert_int_equal(rig_times_reported(rig, RIG_BASE), 1);
    rig_free(rig);
}

const struct row rows_pacing[] = {
    {"f20_the_threshold_is_exact", f20_the_threshold_is_exact, NULL},
    {"f20_what_is_below_the_threshold_stays", f20_what_is_below_the_threshold_stays, is_threshold},
    {"f20_twice_the_capacity_in_use", f20_twice_the_capacity_in_use, is_twice},
    {"f21_smaller_blocks_are_never_reported", f21_smaller_blocks_are_never_reported, NULL},
    {"f22_where_the_smallest_order_comes_from", f22_where_the_smallest_order_comes_from, NULL},
    {"f22_an_order_above_the_largest_turns_a_zone_off",
     f22_an_order_above_the_largest_turns_a_zone_off, NULL},
    {"f23_a_pass_comes_after_the_delay", f23_a_pass_comes_after_the_delay, is_worker},
    {"f23_one_pass_in_a_delay_even_if_all_is_busy", f23_one_pass_in_a_delay_even_if_all_is_busy,
     is_all_worker},
    {"f40_f41_a_small_free_costs_nothing_more", f40_f41_a_small_free_costs_nothing_more, NULL},
    {"f42_warm_blocks_are_used_first", f42_warm_blocks_are_used_first, NULL},
    {"f44_a_sixteenth_of_a_list_in_a_pass", f44_a_sixteenth_of_a_list_in_a_pass, is_budget},
    {"f44_a_list_gives_at_least_two_batches", f44_a_list_gives_at_least_two_batches, is_budget},
    {"f45_nothing_is_reported_below_the_low_watermark",
     f45_nothing_is_reported_below_the_low_watermark, NULL},
    {"f45_isolated_frames_do_not_count", f45_isolated_frames_do_not_count, NULL},
    {"f45_a_zone_at_its_watermark_does_not_hold_up_the_next",
     f45_a_zone_at_its_watermark_does_not_hold_up_the_next, NULL},
    {"f45_the_next_zone_starts_afresh", f45_the_next_zone_starts_afresh, is_all},
    {"f45_a_batch_leaves_half_of_what_is_to_spare", f45_a_batch_leaves_half_of_what_is_to_spare,
     NULL},
    {"f45_a_zone_smaller_than_a_batch_is_reported", f45_a_zone_smaller_than_a_batch_is_reported,
     NULL},
    {"f45_a_block_that_the_watermark_needs_does_not_make_it_spin",
     f45_a_block_that_the_watermark_needs_does_not_make_it_spin, NULL},
    {"f45_a_gate_hides_nothing_that_fits", f45_a_gate_hides_nothing_that_fits, NULL},
    {"f45_an_allocation_waits_rather_than_fails", f45_an_allocation_waits_rather_than_fails, NULL},
    {"frames_in_caches_do_not_pin_their_blocks", frames_in_caches_do_not_pin_their_blocks,
     is_all_worker},
    {"pageblocks_in_caches_are_reported", pageblocks_in_caches_are_reported, NULL},
    {"slow_frees_are_reported_too", slow_frees_are_reported_too, is_all_worker},
    {"a_cache_in_use_is_looked_at_again", a_cache_in_use_is_looked_at_again, is_all_worker},
    {"what_is_split_off_behind_the_pass_is_reported_too",
     what_is_split_off_behind_the_pass_is_reported_too, is_not_budget},
    {"new_frames_are_reported", new_frames_are_reported, NULL},
    {NULL, NULL, NULL},
};
