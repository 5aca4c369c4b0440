/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine on a virtual clock: when it reports, how much at once, and what
 * makes it begin and end. The table of rows is in test_report.c.
 */
#include "report_rig.h"

#include "core.h"

#include <stdio.h>
#include <stdlib.h>

#define BLOCK_FRAMES ((uint64_t)1 << MAX_ORDER)

/* ---- threshold, order, delay ---- */

static void test_f20_the_threshold_is_exact(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){
        .frames = 256, .max_order = 1, .pageblock_order = 1, .report.threshold = 32});
    ebb_pfn_t pfns[129];
    unsigned n = rig_alloc_all(rig, 0, 1, pfns);

    (void)state;
    assert_int_equal(n, 128);
    rig_register_and_settle(rig);
    rig_release_all(rig, 0, 1, pfns, 31);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    assert_int_equal(rig_stats(rig).requests, 0);
    rig_release_all(rig, 0, 1, pfns + 31, 1);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_REQUESTED);
    assert_int_equal(rig_stats(rig).requests, 1);
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), 32);
    rig_release_all(rig, 0, 1, pfns + 32, n - 32);
    rig_free(rig);
}

static void test_f21_smaller_blocks_are_never_reported(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.capacity = 1});
    ebb_pfn_t pfns[2 * MAX_BLOCKS + 1], small[3];
    unsigned n = rig_alloc_all(rig, 0, PAGEBLOCK, pfns);

    (void)state;
    assert_int_equal(n, 2 * MAX_BLOCKS);
    rig_register_and_settle(rig);
    rig_release(rig, 0, pfns[0], PAGEBLOCK);
    for (unsigned i = 0; i < 2; i++)
        small[i] = rig_alloc(rig, 0, PAGEBLOCK - 1);
    rig_settle(rig);
    rig_forget(rig);

    rig_release(rig, 0, small[0], PAGEBLOCK - 1);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    ebb_report_now(&rig->report);
    rig_settle(rig);
    assert_int_equal(rig->submits, 0);
    /* Its buddy makes it one that counts. */
    rig_release(rig, 0, small[1], PAGEBLOCK - 1);
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), 1);
    rig_release_all(rig, 0, PAGEBLOCK, pfns + 1, n - 1);
    rig_free(rig);
}

static void test_f22_where_the_smallest_order_comes_from(void **state)
{
    static const struct {
        uint8_t config, device;
        unsigned order;
    } cases[] = {
        {0, 0, PAGEBLOCK},           {0, EBB_REPORT_ORDER(3), 3},
        {0, EBB_REPORT_ORDER(0), 0}, {EBB_REPORT_ORDER(0), EBB_REPORT_ORDER(3), 0},
        {EBB_REPORT_ORDER(4), 0, 4}, {EBB_REPORT_ORDER(MAX_ORDER), 0, MAX_ORDER},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig *rig = rig_new(&(struct rig_config){
            .capacity = 8, .min_order = cases[i].device, .report.order = cases[i].config});
        ebb_pfn_t pfn = rig_alloc(rig, 0, 0);
        unsigned smallest = MAX_ORDER;

        rig_register(rig);
        rig_settle(rig);
        for (unsigned j = 0; j < rig->log[0].n; j++) {
            unsigned order = (unsigned)__builtin_ctzll(rig->log[0].ranges[j].len / EBB_FRAME_SIZE);

            smallest = order < smallest ? order : smallest;
        }
        assert_int_equal(smallest, cases[i].order);
        rig_release(rig, 0, pfn, 0);
        rig_free(rig);
    }
}

static void test_f22_an_order_above_the_largest_turns_a_zone_off(void **state)
{
    struct rig *rig =
        rig_new(&(struct rig_config){.report.order = EBB_REPORT_ORDER(MAX_ORDER + 1)});
    ebb_pfn_t pfn = rig_alloc(rig, 0, MAX_ORDER);

    (void)state;
    rig_register(rig);
    assert_int_equal(rig_settle(rig), 1);
    rig_release(rig, 0, pfn, MAX_ORDER);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    ebb_report_now(&rig->report);
    rig_settle(rig);
    assert_int_equal(rig->submits, 0);
    assert_int_equal(rig_stats(rig).requests, 0);
    rig_free(rig);
}

static void test_f23_a_pass_comes_after_the_delay(void **state)
{
    static const uint32_t delays[] = {0, 1, 100, 2000, 3600000};

    (void)state;
    for (unsigned i = 0; i < sizeof(delays) / sizeof(delays[0]); i++) {
        struct rig *rig = rig_new(&(struct rig_config){.report.delay_ms = delays[i]});
        uint64_t delay = (delays[i] ? delays[i] : EBB_REPORT_DELAY_MS) * MS;
        uint64_t due = port_virtual.now + delay;
        ebb_pfn_t pfns[2];

        rig_register(rig);
        assert_int_equal(rig_run(rig), due);
        assert_int_equal(rig_run_after(rig, delay - 1), due);
        assert_int_equal(rig->submits, 0);
        assert_int_equal(rig_run_after(rig, 1), EBB_NEVER);
        assert_int_equal(rig_reported_blocks(rig), MAX_BLOCKS);

        /* Counted from the first free, not from the last. */
        pfns[0] = rig_alloc(rig, 0, MAX_ORDER);
        pfns[1] = rig_alloc(rig, 0, MAX_ORDER);
        rig_release(rig, 0, pfns[0], MAX_ORDER);
        due = port_virtual.now + delay;
        assert_int_equal(rig_run_after(rig, delay / 2), due);
        rig_release(rig, 0, pfns[1], MAX_ORDER);
        assert_int_equal(rig_run(rig), due);
        rig_settle(rig);
        assert_int_equal(port_virtual.now, due);
        rig_free(rig);
    }
}

/* Frees and takes the same block whenever a batch is out. */
static void churn(struct rig *rig)
{
    rig_release(rig, 0, *(ebb_pfn_t *)rig->ctx, MAX_ORDER);
    *(ebb_pfn_t *)rig->ctx = rig_alloc(rig, 0, MAX_ORDER);
}

static void test_f23_one_pass_in_a_delay_even_if_all_is_busy(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.capacity = 4});
    ebb_pfn_t pfn = rig_alloc(rig, 0, MAX_ORDER);
    uint64_t start = port_virtual.now;

    (void)state;
    rig->on_submit = churn;
    rig->ctx = &pfn;
    rig_register(rig);
    for (unsigned i = 0; i < 1000; i++) {
        ebb_pfn_t other = rig_alloc(rig, 0, MAX_ORDER);

        rig_run_after(rig, EBB_REPORT_DELAY_MS * MS / 10);
        rig_release(rig, 0, other, MAX_ORDER);
    }
    assert_in_range(rig_stats(rig).passes, 45,
                    (port_virtual.now - start) / (EBB_REPORT_DELAY_MS * MS));
    rig->on_submit = NULL;
    rig_settle(rig);
    rig_release(rig, 0, pfn, MAX_ORDER);
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

static void test_f40_f41_a_small_free_costs_nothing_more(void **state)
{
    struct rig *off = rig_new(&(struct rig_config){0});
    struct rig *on = rig_new(&(struct rig_config){0});
    ebb_pfn_t keep = rig_alloc(on, 0, 1);

    (void)state;
    rig_register_and_settle(on);
    for (unsigned order = 1; order < PAGEBLOCK; order++) {
        assert_int_equal(locks_of_a_round(on, order), locks_of_a_round(off, order));
        assert_int_equal(rig_stats(on).requests, 0);
    }
    assert_int_equal(ebb_report_phase(&on->report), EBB_REPORT_IDLE);
    /* Of many large ones only the first costs more: the engine's lock, once. */
    assert_int_equal(locks_of_a_round(on, MAX_ORDER), locks_of_a_round(off, MAX_ORDER) + 1);
    assert_int_equal(locks_of_a_round(on, MAX_ORDER), locks_of_a_round(off, MAX_ORDER));
    /* And with the device gone nothing does. */
    rig_settle(on);
    rig_unregister(on);
    assert_int_equal(locks_of_a_round(on, MAX_ORDER), locks_of_a_round(off, MAX_ORDER));
    rig_release(on, 0, keep, 1);
    rig_free(on);
    rig_free(off);
}

static void test_f42_warm_blocks_are_used_first(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.capacity = 2, .report.budget = 8});
    ebb_pfn_t pfns[MAX_BLOCKS];

    (void)state;
    rig_register(rig);
    rig_run_after(rig, EBB_REPORT_DELAY_MS * MS);
    assert_int_equal(rig_zone_stats(rig, 0).reported, 4 * BLOCK_FRAMES);
    for (unsigned i = 0; i < MAX_BLOCKS; i++) {
        pfns[i] = rig_alloc(rig, 0, MAX_ORDER);
        assert_int_equal(rig_zone_stats(rig, 0).refaulted, i < 12 ? 0 : (i - 11) * BLOCK_FRAMES);
    }
    rig_release_all(rig, 0, MAX_ORDER, pfns, MAX_BLOCKS);
    rig_free(rig);
}

/* ---- budget and watermarks ---- */

static void test_f44_a_sixteenth_of_a_list_in_a_pass(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.capacity = 32,
                                                   .frames = 32768,
                                                   .max_order = 2,
                                                   .pageblock_order = 2,
                                                   .report = {.delay_ms = 2000, .budget = 16}});
    unsigned passes = 0;

    (void)state;
    rig_register(rig);
    while (rig_run_after(rig, 2000 * MS) != EBB_NEVER) {
        passes++;
        assert_int_equal(rig_stats(rig).passes, passes);
        /* 8192 blocks / 16 / 32, and one. */
        assert_int_equal(rig_stats(rig).batches, 17 * passes);
    }
    /* The 16th pass finds one batch left, and is the last. */
    assert_int_equal(passes, 15);
    assert_int_equal(rig_stats(rig).batches, 256);
    assert_int_equal(rig_zone_stats(rig, 0).reported, 32768);
    rig_free(rig);
}

static void test_f44_a_list_gives_at_least_two_batches(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.capacity = 2, .report.budget = 1024});

    (void)state;
    rig_register(rig);
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_not_equal(rig_run_after(rig, EBB_REPORT_DELAY_MS * MS), EBB_NEVER);
        assert_int_equal(rig_reported_blocks(rig), 2 * 2 * i);
    }
    assert_int_equal(rig_run_after(rig, EBB_REPORT_DELAY_MS * MS), EBB_NEVER);
    assert_int_equal(rig_reported_blocks(rig), MAX_BLOCKS);
    rig_free(rig);
}

static void test_f45_nothing_is_reported_below_the_low_watermark(void **state)
{
    /* The gate: one of the blocks that are free besides. */
    const uint64_t gate = 100 + BLOCK_FRAMES;
    struct rig *rig = rig_new(&(struct rig_config){.capacity = 2, .watermark_low = 100});
    ebb_pfn_t pfns[MAX_BLOCKS * BLOCK_FRAMES + 1];
    unsigned n = 0;

    (void)state;
    /* Free: two blocks of the largest order, and 34 scattered frames. */
    for (unsigned i = 0; i < (MAX_BLOCKS - 2) * BLOCK_FRAMES; i++)
        pfns[n++] = rig_alloc(rig, 0, 0);
    for (unsigned i = 0; i < 34; i++) {
        rig_release(rig, 0, pfns[2 * i], 0);
        pfns[2 * i] = pfns[--n];
    }
    assert_int_equal(rig_zone_stats(rig, 0).free, gate - 2);
    rig_register(rig);
    assert_int_equal(rig_settle(rig), 1); /* and no timer runs */
    assert_int_equal(rig->submits, 0);
    assert_int_equal(rig_stats(rig).requests, 0);

    /* Two more frames open the gate, though they are far too small to be reported. */
    rig_release(rig, 0, pfns[--n], 0);
    rig_settle(rig);
    assert_int_equal(rig->submits, 0);
    assert_int_equal(rig->zones[0].report_order, 0);
    rig_release(rig, 0, pfns[--n], 0);
    rig_settle(rig);
    assert_true(rig_reported_blocks(rig) >= 2);
    assert_int_equal(rig_unreported_frames(rig, 0, PAGEBLOCK), 0);
    /* The screener is back at what is reported. */
    assert_int_equal(rig->zones[0].report_order, PAGEBLOCK);
    while (n > 0)
        rig_release(rig, 0, pfns[--n], 0);
    rig_free(rig);
}

static void test_f45_isolated_frames_do_not_count(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.capacity = 2, .watermark_low = 100});
    struct ebb_zone *zone = &rig->zones[0];

    (void)state;
    assert_int_equal(ebb_isolate_range(zone, RIG_BASE, (MAX_BLOCKS - 2) * BLOCK_FRAMES), 0);
    rig_register(rig);
    assert_int_equal(rig_settle(rig), 1);
    assert_int_equal(rig->submits, 0);
    assert_int_equal(
        ebb_putback_range(zone, RIG_BASE, (MAX_BLOCKS - 2) * BLOCK_FRAMES, EBB_MOVABLE), 0);
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), MAX_BLOCKS);
    rig_free(rig);
}

static void test_f45_a_zone_at_its_watermark_does_not_hold_up_the_next(void **state)
{
    const uint64_t min = 15 * BLOCK_FRAMES;
    struct rig *rig = rig_new(&(struct rig_config){
        .zones = 2, .capacity = 1, .watermark_min = min, .watermark_low = min});

    (void)state;
    /* Of each zone one block may be away at a time, so a batch is one block; the
     * first zone has a block of its own in use, and none may go. */
    ebb_pfn_t pfn = rig_alloc(rig, 0, MAX_ORDER);

    rig_register(rig);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, 0);
    assert_int_equal(rig_zone_stats(rig, 1).reported, MAX_BLOCKS * BLOCK_FRAMES);
    rig_release(rig, 0, pfn, MAX_ORDER);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, MAX_BLOCKS * BLOCK_FRAMES);
    rig_free(rig);
}

/* For on_submit: what is to spare in the first zone is taken behind the pass's back. */
static void take_two(struct rig *rig)
{
    ebb_pfn_t *pfns = rig->ctx;

    if (rig->submits == 1) {
        pfns[0] = rig_alloc(rig, 0, MAX_ORDER);
        pfns[1] = rig_alloc(rig, 0, MAX_ORDER);
    }
}

/* The first zone stops in the middle of a list; the second starts afresh. */
static void test_f45_the_next_zone_starts_afresh(void **state)
{
    const uint64_t low = 14 * BLOCK_FRAMES;
    struct rig *rig =
        rig_new(&(struct rig_config){.zones = 2, .capacity = 5, .watermark_low = low});
    ebb_pfn_t pfns[2];

    (void)state;
    rig->on_submit = take_two;
    rig->ctx = pfns;
    rig_register(rig);
    rig_run_after(rig, EBB_REPORT_DELAY_MS * MS);
    assert_int_equal(rig_zone_stats(rig, 0).reported, BLOCK_FRAMES);
    assert_int_equal(rig_zone_stats(rig, 1).reported, MAX_BLOCKS * BLOCK_FRAMES);
    rig_release_all(rig, 0, MAX_ORDER, pfns, 2);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, MAX_BLOCKS * BLOCK_FRAMES);
    rig_free(rig);
}

static void test_f45_a_batch_leaves_half_of_what_is_to_spare(void **state)
{
    const uint64_t low = 4 * BLOCK_FRAMES;
    struct rig *rig = rig_new(&(struct rig_config){.capacity = 16, .watermark_low = low});
    ebb_pfn_t pfns[6];

    (void)state;
    /* 16 blocks are free, 12 above the watermark: 6 may be away at once, and the
     * other 6 can be allocated meanwhile. */
    rig->later = true;
    rig_register(rig);
    rig_run_after(rig, EBB_REPORT_DELAY_MS * MS);
    assert_int_equal(rig->log[0].n, 6);
    for (unsigned i = 0; i < 6; i++)
        pfns[i] = rig_alloc(rig, 0, MAX_ORDER);
    assert_int_equal(rig_zone_stats(rig, 0).free, low);
    rig_complete(rig, 0);
    rig->later = false;
    rig_settle(rig);
    assert_int_equal(rig_stats(rig).failed_batches, 0);
    assert_int_equal(rig_unreported_frames(rig, 0, PAGEBLOCK), 0);
    assert_int_equal(rig_reported_blocks(rig), MAX_BLOCKS - 6);
    rig_release_all(rig, 0, MAX_ORDER, pfns, 6);
    rig_free(rig);
}

static void test_f45_a_zone_smaller_than_a_batch_is_reported(void **state)
{
    struct rig *rig = rig_new(
        &(struct rig_config){.capacity = EBB_REPORT_CAPACITY_LIMIT, .watermark_low = BLOCK_FRAMES});

    (void)state;
    assert_in_range(rig->zones[0].free, 0, EBB_REPORT_CAPACITY_LIMIT << PAGEBLOCK);
    rig_register_and_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, MAX_BLOCKS * BLOCK_FRAMES);
    rig_free(rig);
}

static void test_f45_a_block_that_the_watermark_needs_does_not_make_it_spin(void **state)
{
    /* One free block of 64 frames, none of which may go; order 5 would be allowed. */
    struct rig *rig =
        rig_new(&(struct rig_config){.capacity = 1, .watermark_min = 20, .watermark_low = 20});
    ebb_pfn_t pfns[MAX_BLOCKS + 1];

    (void)state;
    assert_int_equal(rig_alloc_all(rig, 0, MAX_ORDER, pfns), MAX_BLOCKS);
    rig_release(rig, 0, pfns[0], MAX_ORDER);
    rig_register(rig);
    assert_int_equal(rig_settle(rig), 1);
    assert_int_equal(rig->submits, 0);
    /* With another block free, each can go while the other stays. */
    rig_release(rig, 0, pfns[1], MAX_ORDER);
    rig_settle(rig);
    assert_int_equal(rig_unreported_frames(rig, 0, PAGEBLOCK), 0);
    rig_release_all(rig, 0, MAX_ORDER, pfns + 2, MAX_BLOCKS - 2);
    rig_free(rig);
}

/* What fits is reported although something larger, which came first, does not. */
static void test_f45_a_gate_hides_nothing_that_fits(void **state)
{
    struct rig *rig =
        rig_new(&(struct rig_config){.watermark_low = 50, .report.order = EBB_REPORT_ORDER(3)});
    ebb_pfn_t pfns[MAX_BLOCKS], parts[8];

    (void)state;
    assert_int_equal(rig_alloc_all(rig, 0, MAX_ORDER, pfns), MAX_BLOCKS);
    rig_release(rig, 0, pfns[0], MAX_ORDER);
    for (unsigned i = 0; i < 8; i++)
        parts[i] = rig_alloc(rig, 0, 3);
    rig_release(rig, 0, pfns[1], MAX_ORDER);
    rig_register_and_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, 0);
    /* 72 are free, 50 are to be left: the 8 may go, the 64 may not. */
    rig_release(rig, 0, parts[0], 3);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, 8);
    rig_release_all(rig, 0, 3, parts + 1, 7);
    rig_release_all(rig, 0, MAX_ORDER, pfns + 2, MAX_BLOCKS - 2);
    rig_free(rig);
}

static void test_f45_an_allocation_waits_rather_than_fails(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});
    ebb_pfn_t pfns[MAX_BLOCKS], pfn;
    unsigned n;

    (void)state;
    rig->later = true;
    rig_register(rig);
    rig_run_after(rig, EBB_REPORT_DELAY_MS * MS);
    n = rig_alloc_all(rig, 0, MAX_ORDER, pfns);
    assert_in_range(n, 1, MAX_BLOCKS - 1);
    assert_int_equal(ebb_alloc(&rig->zones[0], 0, EBB_MOVABLE, 0, &pfn), -EBB_EAGAIN);
    rig_complete(rig, 0);
    rig_run(rig);
    assert_int_equal(ebb_alloc(&rig->zones[0], 0, EBB_MOVABLE, 0, &pfn), 0);
    rig_release(rig, 0, pfn, 0);
    rig_release_all(rig, 0, MAX_ORDER, pfns, n);
    rig_free(rig);
}

/* ---- nothing is forgotten, nothing spins ---- */

static void test_frames_in_caches_do_not_pin_their_blocks(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.cpus = 4});
    ebb_pfn_t pfns[4 * BLOCK_FRAMES];

    (void)state;
    rig_register_and_settle(rig);
    for (unsigned i = 0; i < 4 * BLOCK_FRAMES; i++)
        assert_int_equal(ebb_alloc(&rig->zones[0], 0, EBB_MOVABLE, 0, &pfns[i]), 0);
    for (unsigned i = 0; i < 4 * BLOCK_FRAMES; i++) {
        port_virtual.cpu = i % 4;
        assert_int_equal(ebb_free(&rig->zones[0], pfns[i], 0), 0);
    }
    assert_true(rig_zone_stats(rig, 0).cached > 0);
    assert_in_range(rig_settle(rig), 1, 4);
    assert_int_equal(rig_zone_stats(rig, 0).cached, 0);
    assert_int_equal(rig_zone_stats(rig, 0).reported, MAX_BLOCKS * BLOCK_FRAMES);
    rig_free(rig);
}

/* So slow that every pass finds what was freed before in a cache that is idle
 * already, and nothing ever overflows or completes a block. */
static void test_slow_frees_are_reported_too(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});
    ebb_pfn_t pfns[BLOCK_FRAMES];

    (void)state;
    for (unsigned i = 0; i < BLOCK_FRAMES; i++)
        assert_int_equal(ebb_alloc(&rig->zones[0], 0, EBB_MOVABLE, 0, &pfns[i]), 0);
    rig_register_and_settle(rig);
    for (unsigned i = 0; i < BLOCK_FRAMES; i++) {
        assert_int_equal(ebb_free(&rig->zones[0], pfns[i], 0), 0);
        rig_run_after(rig, 2 * EBB_REPORT_DELAY_MS * MS);
    }
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).cached, 0);
    assert_int_equal(rig_zone_stats(rig, 0).reported, MAX_BLOCKS * BLOCK_FRAMES);
    rig_free(rig);
}

static void test_a_cache_in_use_is_looked_at_again(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});
    ebb_pfn_t pfn, block;

    (void)state;
    block = rig_alloc(rig, 0, MAX_ORDER);
    rig_register_and_settle(rig);
    for (unsigned i = 0; i < 20; i++) {
        /* Somebody uses the cache all the time: passes go on, one a delay. */
        assert_int_equal(ebb_alloc(&rig->zones[0], 0, EBB_MOVABLE, 0, &pfn), 0);
        assert_int_equal(ebb_free(&rig->zones[0], pfn, 0), 0);
        assert_int_equal(rig_run(rig), port_virtual.now + EBB_REPORT_DELAY_MS * MS);
        port_virtual.now += EBB_REPORT_DELAY_MS * MS;
    }
    assert_int_equal(rig_settle(rig), 1);
    assert_int_equal(rig_zone_stats(rig, 0).cached, 0);
    rig_release(rig, 0, block, MAX_ORDER);
    rig_free(rig);
}

/* Takes a frame out of an unreported block behind the pass's back. */
static void split_something(struct rig *rig)
{
    if (rig->submits == 1)
        *(ebb_pfn_t *)rig->ctx = rig_alloc(rig, 0, 0);
}

static void test_what_is_split_off_behind_the_pass_is_reported_too(void **state)
{
    /* Every list gives two blocks a pass, so the lists of small orders are done
     * with when the split puts something there. */
    struct rig *rig = rig_new(&(struct rig_config){
        .capacity = 1, .report = {.budget = 1024, .order = EBB_REPORT_ORDER(1)}});
    ebb_pfn_t pfn = 0;

    (void)state;
    rig->on_submit = split_something;
    rig->ctx = &pfn;
    rig_register(rig);
    rig_settle(rig);
    assert_int_equal(rig_unreported_frames(rig, 0, 1), 0);
    rig_release(rig, 0, pfn, 0);
    rig_free(rig);
}

static void test_what_merges_on_the_way_is_reported_in_the_same_pass(void **state)
{
    struct rig *rig =
        rig_new(&(struct rig_config){.capacity = 1, .report.order = EBB_REPORT_ORDER(3)});
    ebb_pfn_t pfns[MAX_BLOCKS * 8 + 1];
    unsigned n = rig_alloc_all(rig, 0, 3, pfns);

    (void)state;
    assert_int_equal(n, MAX_BLOCKS * 8);
    rig_register_and_settle(rig);
    /* One of order 3 is with the host when its buddy is freed: unreported 4. */
    rig->later = true;
    rig_release(rig, 0, pfns[0], 3);
    rig_run_after(rig, EBB_REPORT_DELAY_MS * MS);
    assert_true(rig->in_flight);
    rig_release(rig, 0, pfns[1], 3);
    rig_complete(rig, 0);
    rig_settle(rig);
    assert_int_equal(rig_block(rig, 0, pfns[0]).order, 4);
    assert_true(rig_is_reported(rig, 0, pfns[0]));
    rig_release_all(rig, 0, 3, pfns + 2, n - 2);
    rig_free(rig);
}

static void test_new_frames_are_reported(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.hole = true});

    (void)state;
    rig_register_and_settle(rig);
    assert_int_equal(rig_stats(rig).reported_blocks, MAX_BLOCKS - 1);
    assert_int_equal(ebb_zone_add(&rig->zones[0], RIG_BASE, BLOCK_FRAMES), 0);
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), 1);
    assert_int_equal(rig_times_reported(rig, RIG_BASE), 1);
    rig_free(rig);
}

static void run_again(struct rig *rig)
{
    unsigned wakes = port_virtual.wakes;

    assert_int_equal(ebb_report_run(&rig->report), EBB_NEVER);
    assert_int_equal(port_virtual.wakes, wakes);
}

static void test_a_second_runner_leaves_and_the_worker_hears_of_it(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.capacity = 8});
    unsigned wakes;

    (void)state;
    rig->on_submit = run_again;
    rig->later = true;
    rig_register(rig);
    wakes = port_virtual.wakes;
    rig_run_after(rig, EBB_REPORT_DELAY_MS * MS);
    assert_int_equal(rig->submits, 1);
    assert_int_equal(port_virtual.wakes, wakes + 1);
    rig_complete(rig, 0);
    rig_settle(rig);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        rig_test(test_f20_the_threshold_is_exact),
        rig_test(test_f21_smaller_blocks_are_never_reported),
        rig_test(test_f22_where_the_smallest_order_comes_from),
        rig_test(test_f22_an_order_above_the_largest_turns_a_zone_off),
        rig_test(test_f23_a_pass_comes_after_the_delay),
        rig_test(test_f23_one_pass_in_a_delay_even_if_all_is_busy),
        rig_test(test_f40_f41_a_small_free_costs_nothing_more),
        rig_test(test_f42_warm_blocks_are_used_first),
        rig_test(test_f44_a_sixteenth_of_a_list_in_a_pass),
        rig_test(test_f44_a_list_gives_at_least_two_batches),
        rig_test(test_f45_nothing_is_reported_below_the_low_watermark),
        rig_test(test_f45_isolated_frames_do_not_count),
        rig_test(test_f45_a_zone_at_its_watermark_does_not_hold_up_the_next),
        rig_test(test_f45_the_next_zone_starts_afresh),
        rig_test(test_f45_a_batch_leaves_half_of_what_is_to_spare),
        rig_test(test_f45_a_zone_smaller_than_a_batch_is_reported),
        rig_test(test_f45_a_block_that_the_watermark_needs_does_not_make_it_spin),
        rig_test(test_f45_a_gate_hides_nothing_that_fits),
        rig_test(test_f45_an_allocation_waits_rather_than_fails),
        rig_test(test_frames_in_caches_do_not_pin_their_blocks),
        rig_test(test_slow_frees_are_reported_too),
        rig_test(test_a_cache_in_use_is_looked_at_again),
        rig_test(test_what_is_split_off_behind_the_pass_is_reported_too),
        rig_test(test_what_merges_on_the_way_is_reported_in_the_same_pass),
        rig_test(test_new_frames_are_reported),
        rig_test(test_a_second_runner_leaves_and_the_worker_hears_of_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
