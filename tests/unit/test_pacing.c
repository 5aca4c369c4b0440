/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Surplus pacing (src/pace, src/report/zone_source.c), rule by rule, on a virtual clock: when what
 * is free is reported, in which order, what allocation takes, and how long the window is. What a
 * whole workload sees of it is in test_pacing_cycle.c.
 */
#include "report_rig.h"

#include <ebb/range.h>

#include "zone_private.h"

#include <stdio.h>
#include <stdlib.h>

#define WINDOW   (EBB_REPORT_WINDOW_MIN_MS * MS)
#define SLOT     (WINDOW / EBB_PACE_SLOTS)
#define LONGEST  (EBB_REPORT_WINDOW_MAX_MS * MS)
#define P_ORDER  10u
#define P_UNIT   9u
#define P_BLOCKS 64u /* of the largest order: 256 MiB */
#define P_FRAMES ((uint64_t)P_BLOCKS << P_ORDER)
/* Refaults that are tolerable in a second. */
#define CREDIT 10000u
/* Of a pageblock of n frames in b blocks: for how long nothing may have come or gone. */
#define RIPE(n, b) (WINDOW * ((n) + 5u * (b) + 128u) / (n))
/* What the clock that pageblocks are stamped with cannot tell apart, and one look. */
#define COARSE (2 * MS + SLOT)

static struct rig *new_rig(struct rig_config config)
{
    if (!config.max_order) {
        config.max_order = P_ORDER;
        config.pageblock_order = P_UNIT;
    }
    if (!config.frames)
        config.frames = P_FRAMES;
    if (!config.capacity)
        config.capacity = 32;
    if (!config.report.window_start_ms && config.history.pacing != EBB_PACING_DELAY)
        config.report.window_start_ms = 1; /* the shortest */
    return rig_new(&config);
}

/* Everything is reported, and the engine at rest. */
static struct rig *new_quiet(struct rig_config config)
{
    struct rig *rig = new_rig(config);

    rig_register(rig);
    rig_pass(rig, 2 * rig->report.pace.config.window_start);
    assert_int_equal(rig->due, EBB_NEVER);
    assert_int_equal(rig_unreported_frames(rig, 0, rig->zones[0].report_min_order), 0);
    rig_forget(rig);
    return rig;
}

static uint64_t unreported(struct rig *rig)
{
    return rig_unreported_frames(rig, 0, 0);
}

/* Let time pass in small steps until so much is unreported at most; returns how long it took. */
static uint64_t wait_until(struct rig *rig, uint64_t frames, uint64_t limit)
{
    uint64_t began = port_virtual.now;

    while (unreported(rig) > frames) {
        if (port_virtual.now - began > limit)
            fail_msg("%llu frames are unreported after %llu us",
                     (unsigned long long)unreported(rig),
                     (unsigned long long)((port_virtual.now - began) / 1000));
        rig_pass(rig, MS / 4);
    }
    return port_virtual.now - began;
}

static void take(struct rig *rig, unsigned order, unsigned n, ebb_pfn_t *pfns)
{
    for (unsigned i = 0; i < n; i++)
        pfns[i] = rig_alloc(rig, 0, order);
}

/* Take this block, whoever is to have it. */
static ebb_pfn_t take_at(struct rig *rig, ebb_pfn_t pfn, unsigned order)
{
    assert_int_equal(ebb_alloc_at(&rig->zones[0], pfn, order, 0), 0);
    return pfn;
}

/* ---- large blocks: when ---- */

static void reported_after_a_window(uint64_t window_ms, uint64_t phase, bool busy)
{
    struct rig *rig = new_rig((struct rig_config){
        .report.window_min_ms = (uint32_t)window_ms,
        .report.window_max_ms = (uint32_t)(window_ms > 2500 ? window_ms : 2500),
    });
    uint64_t window = window_ms * MS, slot = window / EBB_PACE_SLOTS, freed, began;
    ebb_pfn_t pfns[8], other[1];

    rig_register(rig);
    rig_pass(rig, 2 * window);
    assert_int_equal(rig->due, EBB_NEVER);
    take(rig, P_ORDER, 8, pfns);
    take(rig, P_ORDER, 1, other);
    rig_pass(rig, 2 * window + phase);
    if (busy) { /* there is something to look at already */
        rig_release(rig, 0, other[0], P_ORDER);
        rig_pass(rig, phase);
    }
    freed = port_virtual.now;
    began = rig_zone_stats(rig, 0).reported;
    rig_release_all(rig, 0, P_ORDER, pfns, 8);
    while (rig_zone_stats(rig, 0).reported < began + (8u << P_ORDER)) {
        rig_pass(rig, slot / 50);
        assert_true(port_virtual.now - freed <= window * 5 / 4 + slot + slot / 50);
        if (port_virtual.now - freed < window)
            for (unsigned i = 0; i < 8; i++)
                assert_false(rig_is_reported(rig, 0, pfns[i]));
    }
    if (!busy)
        rig_release(rig, 0, other[0], P_ORDER);
    rig_pass(rig, 2 * window);
    assert_int_equal(rig->due, EBB_NEVER);
    rig_free(rig);
}

static void test_nothing_before_a_window(void **state)
{
    static const unsigned windows[] = {1, 50, 333, 2500};

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned phase = 0; phase <= 10; phase++) {
            reported_after_a_window(windows[i], windows[i] * MS * phase / 40, false);
            reported_after_a_window(windows[i], windows[i] * MS * phase / 40, true);
        }
    }
}

/* What is needed in the middle of the window, were it for an instant, is not surplus. */
static void test_a_dip_keeps_what_dipped(void **state)
{
    (void)state;
    for (unsigned at = 3; at <= 9;
         at++) { /* tenths; not in the first slot, which counts for nobody */
        struct rig *rig = new_quiet((struct rig_config){0});
        ebb_pfn_t pfns[8];
        uint64_t freed, dipped;

        take(rig, P_ORDER, 8, pfns);
        rig_pass(rig, 3 * WINDOW);
        freed = port_virtual.now;
        rig_release_all(rig, 0, P_ORDER, pfns, 8);
        rig_pass(rig, WINDOW * at / 10);
        dipped = port_virtual.now;
        take(rig, P_ORDER, 3, pfns);
        assert_int_equal(unreported(rig), 5u << P_ORDER);
        rig_release_all(rig, 0, P_ORDER, pfns, 3);
        wait_until(rig, 3u << P_ORDER, 2 * WINDOW);
        assert_in_range(port_virtual.now - freed, WINDOW, WINDOW + 2 * SLOT + MS);
        assert_int_equal(unreported(rig), 3u << P_ORDER);
        wait_until(rig, 0, 3 * WINDOW);
        assert_in_range(port_virtual.now - dipped, WINDOW, WINDOW + 2 * SLOT + MS);
        assert_int_equal(rig_zone_stats(rig, 0).refaulted, 8u << P_ORDER);
        rig_free(rig);
    }
}

/* Who has begun to take memory goes on: what would be taken within a window at that pace stays. */
static void test_a_burst_keeps_what_it_may_take(void **state)
{
    struct rig *rig = new_quiet((struct rig_config){0});
    ebb_pfn_t pfns[40];

    (void)state;
    take(rig, P_ORDER, 40, pfns);
    rig_pass(rig, 3 * WINDOW);
    rig_release_all(rig, 0, P_ORDER, pfns, 40);
    /* The slot that is under way counts for nobody; then there are four. */
    rig_pass(rig, 4 * SLOT + SLOT / 2);
    assert_int_equal(unreported(rig), 40u << P_ORDER);
    take(rig, P_ORDER, 4, pfns);
    wait_until(rig, 35u << P_ORDER, SLOT);
    assert_int_equal(unreported(rig), (4 * EBB_PACE_SLOTS) << P_ORDER);
    /* It does not go on. */
    rig_pass(rig, SLOT);
    assert_int_equal(unreported(rig), 0);
    rig_release_all(rig, 0, P_ORDER, pfns, 4);
    rig_free(rig);
}

/* What is kept is what will be taken next: the blocks reported are those whose allocation lies
 * furthest in the future. */
static void test_coldest_first(void **state)
{
    (void)state;
    for (unsigned kept = 1; kept <= 12; kept++) {
        struct rig *rig = new_quiet((struct rig_config){0});
        ebb_pfn_t pfns[P_BLOCKS], order_of[P_BLOCKS];
        uint64_t refaulted;
        unsigned n = rig_alloc_all(rig, 0, P_ORDER, pfns);

        assert_int_equal(n, P_BLOCKS);
        rig_pass(rig, 3 * WINDOW);
        refaulted = rig_zone_stats(rig, 0).refaulted;
        for (unsigned i = 0; i < n; i++) {
            order_of[i] = pfns[i * 5 % n];
            rig_release(rig, 0, order_of[i], P_ORDER);
        }
        /* So many are needed now and then. */
        for (unsigned i = 0; i < 12; i++) {
            ebb_pfn_t used[P_BLOCKS];

            take(rig, P_ORDER, kept, used);
            rig_release_all(rig, 0, P_ORDER, used, kept);
            rig_pass(rig, SLOT);
        }
        assert_int_equal(unreported(rig), kept << P_ORDER);
        assert_int_equal(rig_zone_stats(rig, 0).refaulted, refaulted);
        /* Those freed first were reported, but for those in use now and then. */
        for (unsigned i = 0; i < n - kept; i++)
            assert_true(rig_is_reported(rig, 0, order_of[i]));
        take(rig, P_ORDER, kept, pfns);
        assert_int_equal(rig_zone_stats(rig, 0).refaulted, refaulted);
        pfns[kept] = rig_alloc(rig, 0, P_ORDER);
        assert_int_equal(rig_zone_stats(rig, 0).refaulted, refaulted + (1u << P_ORDER));
        rig_release_all(rig, 0, P_ORDER, pfns, kept + 1);
        rig_free(rig);
    }
}

/* ---- what allocation takes ---- */

/* Unreported before reported, whatever the orders, from lists and through caches. */
static void test_allocation_prefers_warm(void **state)
{
    for (unsigned cached = 0; cached < 2; cached++) {
        for (unsigned large = 0; large <= P_ORDER; large++) {
            if (cached && large < 5)
                continue; /* a refill takes more than there is */
            struct rig *rig = new_quiet((struct rig_config){.pcp_high = 64, .pcp_batch = 32});
            struct ebb_zone *zone = &rig->zones[0];
            ebb_pfn_t hole = zone->base + P_FRAMES / 2, pfn, edge;

            (void)state;
            /* Reported blocks of every order below; then one that is not, of this order. */
            edge = take_at(rig, zone->base, 0);
            take_at(rig, hole, P_ORDER);
            rig_pass(rig, 20000 * MS);
            for (unsigned order = 0; order < P_ORDER; order++)
                assert_true(zone->lists[order][EBB_MOVABLE].reported > 0);
            assert_int_equal(ebb_free(zone, hole, P_ORDER), 0);
            for (unsigned order = large; order < P_ORDER; order++)
                take_at(rig, hole + ((uint64_t)1 << order), order);
            assert_int_equal(rig_zone_stats(rig, 0).lists[large][EBB_MOVABLE].blocks -
                                 rig_zone_stats(rig, 0).lists[large][EBB_MOVABLE].reported,
                             1);
            assert_int_equal(unreported(rig), 1u << large);

            assert_int_equal(ebb_alloc(zone, 0, EBB_MOVABLE, cached ? 0 : EBB_ALLOC_NO_CACHE, &pfn),
                             0);
            assert_in_range(pfn, hole, hole + (1u << large) - 1);
            assert_int_equal(ebb_free(zone, pfn, 0), 0);
            ebb_zone_drain(zone);
            for (unsigned order = large; order < P_ORDER; order++)
                assert_int_equal(ebb_free(zone, hole + ((uint64_t)1 << order), order), 0);
            assert_int_equal(ebb_free(zone, edge, 0), 0);
            ebb_zone_drain(zone);
            rig_free(rig);
        }
    }
}

/* ---- timers ---- */

static void test_no_timer_while_there_is_nothing_to_report(void **state)
{
    struct rig *rig = new_quiet((struct rig_config){0});
    uint64_t passes = rig_stats(rig).passes;
    uint64_t looked;
    ebb_pfn_t pfn;

    (void)state;
    assert_int_equal(rig_run_after(rig, 1000 * MS), EBB_NEVER);
    assert_int_equal(rig_stats(rig).passes, passes);
    pfn = rig_alloc(rig, 0, P_ORDER);
    rig_pass(rig, 5 * WINDOW); /* reported memory is in use: one look, at when that was */
    assert_int_equal(rig_stats(rig).passes, passes + 1);
    assert_int_equal(rig->due, EBB_NEVER);

    rig_pass(rig, 0);

    /* As long as there is something: four looks a window. */
    passes++;
    looked = port_virtual.now;
    rig_release(rig, 0, pfn, P_ORDER);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(rig_run(rig), looked + SLOT);
        assert_int_equal(rig_stats(rig).passes, passes + i);
        assert_int_equal(rig_run_after(rig, SLOT - 1), looked + SLOT);
        assert_int_equal(rig_stats(rig).passes, passes + i);
        assert_int_equal(unreported(rig), 1u << P_ORDER);
        looked += SLOT;
        port_virtual.now = looked;
    }
    assert_int_equal(rig_run(rig), EBB_NEVER);
    assert_int_equal(unreported(rig), 0);
    assert_int_equal(rig_stats(rig).passes, passes + 5);
    assert_int_equal(rig_stats(rig).surplus_frames, 1u << P_ORDER);

    /* A refault that a look has seen is news no more: what is not reported can be used
     * without another one. */
    passes = rig_stats(rig).passes;
    pfn = rig_alloc(rig, 0, P_ORDER);
    rig_release(rig, 0, pfn, P_ORDER);
    rig_pass(rig, WINDOW / 2);
    pfn = rig_alloc(rig, 0, P_ORDER);
    rig_pass(rig, 5 * WINDOW);
    passes = rig_stats(rig).passes;
    assert_int_equal(rig->due, EBB_NEVER);
    rig_release(rig, 0, pfn, P_ORDER);
    pfn = rig_alloc(rig, 0, P_ORDER);
    rig_pass(rig, 5 * WINDOW);
    assert_int_equal(rig->due, EBB_NEVER);
    assert_int_equal(rig_stats(rig).passes, passes + 1);
    rig_release(rig, 0, pfn, P_ORDER);
    rig_free(rig);
}

/* ---- the window ---- */

/* Take n blocks, free them, wait so long, take them again, and let the engine look. */
static void turn(struct rig *rig, unsigned n, uint64_t ns)
{
    ebb_pfn_t pfns[P_BLOCKS] = {0};

    take(rig, P_ORDER, n, pfns);
    rig_release_all(rig, 0, P_ORDER, pfns, n);
    rig_pass(rig, ns);
    take(rig, P_ORDER, n, pfns);
    rig_pass(rig, rig_stats(rig).window_ns / EBB_PACE_SLOTS);
    rig_release_all(rig, 0, P_ORDER, pfns, n);
}

/* Blocks whose frames are more than may refault in a second. */
#define MANY (CREDIT / (1u << P_ORDER) + 1)
/* So many that they would be more than 1 % of the time at any window. */
#define LOTS (6 * MANY)

/* What the engine was told of before the device came counts for nothing: first use it up. */
static struct rig *new_used(struct rig_config config)
{
    struct rig *rig = new_quiet(config);
    ebb_pfn_t pfns[P_BLOCKS];
    unsigned n = rig_alloc_all(rig, 0, P_ORDER, pfns);

    rig_pass(rig, 10 * LONGEST);
    rig_release_all(rig, 0, P_ORDER, pfns, n);
    rig_pass(rig, 10 * LONGEST);
    assert_int_equal(rig_stats(rig).window_ns, rig->report.pace.config.window_min);
    assert_int_equal(rig_stats(rig).refaulted_soon, 0);
    return rig;
}

static void test_refaults_lengthen_the_window(void **state)
{
    static const unsigned idle_ms[] = {70, 100, 150, 300, 700, 1000, 1500, 2000, 2200};

    (void)state;
    for (unsigned i = 0; i < sizeof(idle_ms) / sizeof(idle_ms[0]); i++) {
        struct rig *rig = new_used((struct rig_config){0});
        uint64_t idle = idle_ms[i] * MS, window, refaulted;

        turn(rig, LOTS, idle);
        window = rig_stats(rig).window_ns;
        assert_int_equal(rig_stats(rig).window_grown, 1);
        assert_int_equal(rig_stats(rig).refaulted_soon, LOTS << P_ORDER);
        /* As long as would have kept them, and a little. */
        assert_true(window >= idle);
        assert_true(window <= (idle + 3 * SLOT) * 5 / 4);
        assert_true(window <= LONGEST);
        /* It keeps them now. */
        refaulted = rig_zone_stats(rig, 0).refaulted;
        for (unsigned n = 0; n < 5; n++) {
            turn(rig, LOTS, idle);
            if (rig_zone_stats(rig, 0).refaulted != refaulted)
                fail_msg("idle for %u ms, window %u us: refaulted in turn %u", idle_ms[i],
                         (unsigned)(window / 1000), n);
        }
        assert_int_equal(rig_stats(rig).window_ns, window);
        rig_free(rig);
    }
}

/* What was seen in the slots of a shorter window says nothing about a longer one. */
static void test_a_longer_window_begins_anew(void **state)
{
    struct rig *rig = new_used((struct rig_config){0});
    ebb_pfn_t pfns[P_BLOCKS], other[2];
    uint64_t window;

    (void)state;
    take(rig, P_ORDER, LOTS, pfns);
    take(rig, P_ORDER, 2, other);
    rig_pass(rig, WINDOW);
    rig_release_all(rig, 0, P_ORDER, pfns, LOTS);
    rig_pass(rig, 1000 * MS);
    rig_release_all(rig, 0, P_ORDER, other, 2);
    rig_pass(rig, 3 * SLOT);
    take(rig, P_ORDER, 2, other); /* these are still there */
    rig_release_all(rig, 0, P_ORDER, other, 2);
    rig_pass(rig, SLOT + SLOT / 2);
    assert_int_equal(unreported(rig), 2u << P_ORDER);
    take(rig, P_ORDER, LOTS, pfns);
    rig_release_all(rig, 0, P_ORDER, pfns, 2);
    rig_pass(rig, SLOT);
    window = rig_stats(rig).window_ns;
    assert_true(window >= 1000 * MS);
    rig_pass(rig, window - 2 * MS);
    assert_true(unreported(rig) >= 2u << P_ORDER);
    rig_pass(rig, window);
    assert_int_equal(unreported(rig), 0);
    rig_release_all(rig, 0, P_ORDER, pfns + 2, LOTS - 2);
    rig_free(rig);
}

static void test_late_refaults_do_not(void **state)
{
    static const unsigned idle_ms[] = {2600, 3000, 5000, 60000};

    (void)state;
    for (unsigned i = 0; i < sizeof(idle_ms) / sizeof(idle_ms[0]); i++) {
        struct rig *rig = new_used((struct rig_config){0});

        for (unsigned n = 0; n < 3; n++)
            turn(rig, MANY, idle_ms[i] * MS);
        assert_int_equal(rig_stats(rig).window_grown, 0);
        assert_int_equal(rig_stats(rig).refaulted_soon, 0);
        assert_int_equal(rig_stats(rig).window_ns, WINDOW);
        rig_free(rig);
    }
}

/* Not even when a little is used and freed all the time, so that it is reported over and over. */
static void test_late_refaults_beside_others(void **state)
{
    struct rig *rig = new_used((struct rig_config){0});
    ebb_pfn_t pfns[P_BLOCKS], small[50];

    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        take(rig, P_ORDER, MANY, pfns);
        rig_pass(rig, 100 * MS);
        rig_release_all(rig, 0, P_ORDER, pfns, MANY);
        for (unsigned ms = 0; ms < 3000; ms += 100) {
            take(rig, 0, 50, small);
            rig_pass(rig, 10 * MS);
            rig_release_all(rig, 0, 0, small, 50);
            rig_pass(rig, 90 * MS);
            assert_int_equal(rig_stats(rig).window_ns, WINDOW);
        }
    }
    assert_int_equal(rig_stats(rig).window_grown, 0);
    rig_free(rig);
}

/* Below 1 % of the time they are cheaper than memory. */
static void test_few_refaults_do_not(void **state)
{
    struct rig *rig = new_used((struct rig_config){0});
    unsigned few = CREDIT / (1u << P_ORDER);

    (void)state;
    for (unsigned n = 0; n < 10; n++) {
        turn(rig, few, 1000 * MS);
        assert_int_equal(rig_stats(rig).refaulted_soon, (n + 1) * few << P_ORDER);
    }
    assert_int_equal(rig_stats(rig).window_grown, 0);
    /* Twice as often is too often. */
    for (unsigned n = 0; n < 3; n++)
        turn(rig, few, 500 * MS);
    assert_true(rig_stats(rig).window_grown > 0);
    assert_true(rig_stats(rig).window_ns >= 500 * MS);
    rig_free(rig);
}

/* What counts as few follows from what one costs. */
static void test_the_cost_of_a_refault(void **state)
{
    static const struct {
        uint32_t refault_ns;
        unsigned blocks;
        bool grows;
    } cases[] = {
        {100, LOTS, false},
        {1000, LOTS, true},
        {2000, MANY, true},
        {2000, MANY / 2 - 1, false},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig *rig = new_used((struct rig_config){.report.refault_ns = cases[i].refault_ns});

        turn(rig, cases[i].blocks, 1000 * MS);
        assert_int_equal(rig_stats(rig).refaulted_soon, cases[i].blocks << P_ORDER);
        assert_int_equal(rig_stats(rig).window_grown, cases[i].grows);
        rig_free(rig);
    }
}

/* What was free before the device came need never have been used: it is nobody's mistake to have
 * reported it. */
static void test_memory_free_at_register_does_not_count(void **state)
{
    struct rig *rig = new_rig((struct rig_config){0});
    ebb_pfn_t pfns[P_BLOCKS];
    unsigned n;

    (void)state;
    rig_register(rig);
    rig_pass(rig, 2 * WINDOW);
    assert_int_equal(unreported(rig), 0);
    n = rig_alloc_all(rig, 0, P_ORDER, pfns);
    rig_pass(rig, 100 * MS);
    assert_int_equal(rig_zone_stats(rig, 0).refaulted, P_FRAMES);
    assert_int_equal(rig_stats(rig).refaulted_soon, 0);
    assert_int_equal(rig_stats(rig).window_grown, 0);
    /* The second time it does. */
    rig_release_all(rig, 0, P_ORDER, pfns, n);
    rig_pass(rig, 3 * WINDOW);
    n = rig_alloc_all(rig, 0, P_ORDER, pfns);
    rig_pass(rig, 100 * MS);
    assert_int_equal(rig_stats(rig).refaulted_soon, P_FRAMES);
    assert_int_equal(rig_stats(rig).window_grown, 1);
    rig_release_all(rig, 0, P_ORDER, pfns, n);
    rig_free(rig);
}

/* A window that is long, for what refaulted. */
static struct rig *new_long(uint64_t idle)
{
    struct rig *rig = new_used((struct rig_config){0});

    turn(rig, LOTS, idle);
    assert_true(rig_stats(rig).window_ns >= idle);
    return rig;
}

/* Some work that keeps the engine looking, and needs no memory that a shorter window would have
 * reported. */
static void work_calmly(struct rig *rig, uint64_t ns)
{
    for (uint64_t end = port_virtual.now + ns; port_virtual.now < end;) {
        ebb_pfn_t pfn = rig_alloc(rig, 0, P_ORDER);

        rig_pass(rig, 5 * MS);
        rig_release(rig, 0, pfn, P_ORDER);
        rig_pass(rig, 5 * MS);
    }
}

/* Use most of memory, with the engine looking, and then none of it for longer than the longest
 * window: half the window would have reported it earlier, and nobody would have missed it. */
static void late_turn(struct rig *rig)
{
    ebb_pfn_t pfns[P_BLOCKS];

    take(rig, P_ORDER, LOTS, pfns);
    work_calmly(rig, 400 * MS);
    rig_release_all(rig, 0, P_ORDER, pfns, LOTS);
    rig_pass(rig, LONGEST + 1000 * MS);
    assert_int_equal(unreported(rig), 0);
}

static void test_calm_halves_the_window(void **state)
{
    struct rig *rig = new_long(1000 * MS);
    uint64_t window = rig_stats(rig).window_ns;
    unsigned halves = 0;

    (void)state;
    for (unsigned n = 0; n < 60 && rig_stats(rig).window_ns > WINDOW; n++) {
        late_turn(rig);
        if (rig_stats(rig).window_ns == window)
            continue;
        window = window / 2 > WINDOW ? window / 2 : WINDOW;
        halves++;
        assert_int_equal(rig_stats(rig).window_ns, window);
    }
    assert_int_equal(rig_stats(rig).window_ns, WINDOW);
    assert_int_equal(rig_stats(rig).window_shrunk, halves);
    assert_int_equal(rig_stats(rig).window_grown, 1);
    rig_free(rig);
}

/* What half of it would have missed once is missed once, not for ever. */
static void test_one_miss_counts_once(void **state)
{
    struct rig *rig = new_long(300 * MS);
    ebb_pfn_t pfns[P_BLOCKS];
    uint64_t window = rig_stats(rig).window_ns;

    (void)state;
    rig_pass(rig, LONGEST);
    take(rig, P_ORDER, LOTS, pfns);
    rig_pass(rig, LONGEST);
    rig_release_all(rig, 0, P_ORDER, pfns, LOTS);
    rig_pass(rig, window * 9 / 10);
    take(rig, P_ORDER, 3, pfns);
    rig_release_all(rig, 0, P_ORDER, pfns, 3);
    rig_pass(rig, LONGEST);
    for (unsigned n = 0; n < 30; n++)
        late_turn(rig);
    assert_int_equal(rig_stats(rig).window_ns, WINDOW);
    assert_int_equal(rig_stats(rig).window_grown, 1);
    rig_free(rig);
}

/* As long as half of it would have done the same, nothing speaks for that. */
static void test_no_half_without_a_difference(void **state)
{
    struct rig *rig = new_long(1000 * MS);
    uint64_t window = rig_stats(rig).window_ns;

    (void)state;
    rig_pass(rig, LONGEST);
    work_calmly(rig, 120000 * MS);
    assert_in_range(rig_stats(rig).window_ns, window / 2, window);
    rig_free(rig);
}

/* Not while half of it would have reported what is needed again. */
static void test_no_half_that_would_refault(void **state)
{
    struct rig *rig = new_long(1000 * MS);
    uint64_t window = rig_stats(rig).window_ns, refaulted = rig_zone_stats(rig, 0).refaulted;

    (void)state;
    assert_true(LOTS < P_BLOCKS);
    for (unsigned n = 0; n < 60; n++)
        turn(rig, LOTS, 900 * MS); /* three quarters of the window: its half shows */
    assert_int_equal(rig_stats(rig).window_ns, window);
    assert_int_equal(rig_stats(rig).window_shrunk, 0);
    assert_int_equal(rig_zone_stats(rig, 0).refaulted, refaulted);
    rig_free(rig);
}

/* At first, and after a rest, the window is the one for which nothing is known, within its bounds.
 */
static void test_the_first_window(void **state)
{
    static const struct {
        uint32_t min, start, max, first;
    } cases[] = {
        {0, 0, 0, EBB_REPORT_WINDOW_START_MS},
        {0, 400, 0, 400},
        {700, 0, 0, 700},
        {0, 0, 200, 200},
        {0, 5000, 0, EBB_REPORT_WINDOW_MAX_MS},
        {100, 20, 0, 100},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig_config config = {.report.window_min_ms = cases[i].min,
                                    .report.window_max_ms = cases[i].max,
                                    .report.window_start_ms = cases[i].start,
                                    .frames = P_FRAMES,
                                    .max_order = P_ORDER,
                                    .pageblock_order = P_UNIT,
                                    .capacity = 32};
        struct rig *rig = rig_new(&config);
        uint64_t first = cases[i].first * MS;

        rig_register(rig);
        assert_int_equal(rig_stats(rig).window_ns, first);
        rig_pass(rig, first - 1);
        assert_int_equal(unreported(rig), P_FRAMES);
        rig_pass(rig, first / 2);
        assert_int_equal(unreported(rig), 0);
        rig_free(rig);
    }
}

static void test_a_rest_brings_the_first_window_back(void **state)
{
    struct rig *rig = new_quiet((struct rig_config){.report.window_start_ms = 400});
    ebb_pfn_t pfns[P_BLOCKS];
    unsigned n = rig_alloc_all(rig, 0, P_ORDER, pfns);

    (void)state;
    rig_release_all(rig, 0, P_ORDER, pfns, n);
    rig_pass(rig, LONGEST);
    for (unsigned i = 0; i < 20; i++)
        late_turn(rig);
    assert_int_equal(rig_stats(rig).window_ns, WINDOW);
    rig_pass(rig, LONGEST);
    late_turn(rig);
    assert_int_equal(rig_stats(rig).window_ns, WINDOW);
    rig_pass(rig, 5 * LONGEST);
    take(rig, P_ORDER, 2, pfns);
    rig_pass(rig, 2 * SLOT);
    assert_int_equal(rig_stats(rig).window_ns, 400 * MS);
    rig_release_all(rig, 0, P_ORDER, pfns, 2);
    rig_free(rig);
}

/* Giving blocks back half a window earlier saves their memory for that long; missing one costs as
 * much as holding it for the longest window. */
static void test_half_only_where_it_pays(void **state)
{
    static const struct {
        unsigned freed, missed;
        bool halved;
    } cases[] = {{LOTS, 0, true}, {LOTS, 4, true}, {LOTS, 40, false}, {10, 5, false}};

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig *rig = new_long(1000 * MS);
        uint64_t window = rig_stats(rig).window_ns, shrunk = 0;
        ebb_pfn_t pfns[P_BLOCKS];

        for (unsigned n = 0; n < 10; n++) {
            take(rig, P_ORDER, cases[i].freed, pfns);
            rig_release_all(rig, 0, P_ORDER, pfns, cases[i].freed);
            rig_pass(rig, window * 9 / 10);
            take(rig, P_ORDER, cases[i].missed, pfns);
            rig_release_all(rig, 0, P_ORDER, pfns, cases[i].missed);
            rig_pass(rig, LONGEST + 1500 * MS);
            if (n == 2) /* the LOTS at the beginning have been judged */
                shrunk = rig_stats(rig).window_shrunk;
        }
        assert_int_equal(rig_stats(rig).window_shrunk > shrunk, cases[i].halved);
        rig_free(rig);
    }
}

/* What refaults soon although the window is as long as it is would do so with half of it. */
static void test_no_half_while_there_are_refaults(void **state)
{
    (void)state;
    for (unsigned soon = 0; soon < 2; soon++) {
        struct rig *rig = new_quiet((struct rig_config){.report.window_start_ms = 400});
        ebb_pfn_t pfns[P_BLOCKS];
        unsigned few = CREDIT / (1u << P_ORDER), n = rig_alloc_all(rig, 0, P_ORDER, pfns);
        uint64_t shrunk = 0;

        rig_release_all(rig, 0, P_ORDER, pfns, n);
        rig_pass(rig, 2 * LONGEST);
        /* At first there is what was saved when all of it became free. */
        for (unsigned i = 0; i < 30; i++) {
            turn(rig, few, soon ? 1500 * MS : LONGEST + 500 * MS);
            if (i == 5)
                shrunk = rig_stats(rig).window_shrunk;
        }
        assert_int_equal(rig_stats(rig).refaulted_soon > 0, soon);
        assert_int_equal(rig_stats(rig).window_grown, 0);
        assert_int_equal(rig_stats(rig).window_shrunk > shrunk, !soon);
        rig_free(rig);
    }
}

static void test_rest_halves_the_window(void **state)
{
    struct rig *rig = new_long(1000 * MS);
    ebb_pfn_t pfns[P_BLOCKS];
    uint64_t window = rig_stats(rig).window_ns;

    (void)state;
    rig_pass(rig, 3 * window);
    assert_int_equal(rig->due, EBB_NEVER);
    assert_int_equal(rig_stats(rig).window_ns, window);
    rig_pass(rig, 200000 * MS);
    take(rig, P_ORDER, 2, pfns);
    rig_pass(rig, LONGEST);
    assert_int_equal(rig_stats(rig).window_ns, WINDOW);
    rig_release_all(rig, 0, P_ORDER, pfns, 2);
    rig_free(rig);
}

/* Holding memory for longer than a few windows is no proof that a shorter one would do. */
static void long_turns(bool beside_others)
{
    struct rig *rig = new_used((struct rig_config){0});
    ebb_pfn_t pfns[P_BLOCKS];
    uint64_t refaulted = 0, began = port_virtual.now;

    for (unsigned n = 0; n < 30; n++) {
        uint64_t before = rig_zone_stats(rig, 0).refaulted;

        take(rig, P_ORDER, LOTS, pfns);
        if (beside_others)
            work_calmly(rig, 2000 * MS);
        else
            rig_pass(rig, 2000 * MS);
        rig_release_all(rig, 0, P_ORDER, pfns, LOTS);
        rig_pass(rig, 200 * MS);
        if (n == 3) {
            began = port_virtual.now;
            refaulted = 0;
        }
        refaulted += rig_zone_stats(rig, 0).refaulted - before;
    }
    /* 1 us each, and 1 % of the time. */
    assert_true(refaulted * 1000 * 100 <= (port_virtual.now - began) * 11 / 10);
    rig_free(rig);
}

static void test_long_turns_at_rest(void **state)
{
    (void)state;
    long_turns(false);
}

static void test_long_turns_beside_others(void **state)
{
    (void)state;
    long_turns(true);
}

static void test_bounds_of_the_window(void **state)
{
    struct rig *rig =
        new_used((struct rig_config){.report.window_min_ms = 200, .report.window_max_ms = 400});

    (void)state;
    assert_int_equal(rig_stats(rig).window_ns, 200 * MS);
    turn(rig, LOTS, 320 * MS);
    assert_int_equal(rig_stats(rig).window_ns, 400 * MS);
    for (unsigned n = 0; n < 20; n++)
        late_turn(rig);
    assert_int_equal(rig_stats(rig).window_ns, 200 * MS);
    rig_free(rig);

    rig = new_used((struct rig_config){.report.window_min_ms = 100, .report.window_max_ms = 100});
    for (unsigned n = 0; n < 5; n++)
        turn(rig, MANY, 300 * MS);
    assert_int_equal(rig_stats(rig).window_ns, 100 * MS);
    assert_int_equal(rig_stats(rig).window_grown, 0);
    rig_free(rig);
}

/* ---- everything at once ---- */

static void test_report_now_reports_everything(void **state)
{
    struct rig *rig = new_quiet((struct rig_config){0});
    struct ebb_zone *zone = &rig->zones[0];
    uint64_t now;

    (void)state;
    take_at(rig, zone->base + 5, 0);
    take_at(rig, zone->base + 4096, P_ORDER);
    rig_release(rig, 0, zone->base + 5, 0);
    take_at(rig, zone->base + 4097 + 2048, 1u * 0);
    take_at(rig, zone->base + 4099 + 2048, 0);
    rig_release(rig, 0, zone->base + 4096, P_ORDER);
    rig_release(rig, 0, zone->base + 4097 + 2048, 0);
    assert_true(unreported(rig) > 0);
    now = port_virtual.now;
    ebb_report_now(&rig->report);
    rig_pass(rig, 0);
    assert_int_equal(port_virtual.now, now);
    assert_int_equal(unreported(rig), 0);
    assert_int_equal(rig_zone_stats(rig, 0).reported, P_FRAMES - 1);
    rig_pass(rig, 0);
    /* Only that once. */
    rig_release(rig, 0, zone->base + 4099 + 2048, 0);
    rig_pass(rig, WINDOW / 2);
    assert_true(unreported(rig) > 0);
    rig_pass(rig, 2 * WINDOW);
    assert_int_equal(rig->due, EBB_NEVER);
    rig_free(rig);
}

/* A wish that came too late for its device is not the next one's. */
static void test_report_now_is_forgotten_with_the_device(void **state)
{
    struct rig *rig = new_quiet((struct rig_config){0});
    ebb_pfn_t pfns[4];

    (void)state;
    take(rig, P_ORDER, 4, pfns);
    rig_release_all(rig, 0, P_ORDER, pfns, 4);
    ebb_report_now(&rig->report);
    rig_unregister(rig);
    assert_int_equal(unreported(rig), 4u << P_ORDER);
    rig_register(rig);
    rig_pass(rig, WINDOW - 1);
    assert_int_equal(unreported(rig), 4u << P_ORDER);
    rig_pass(rig, WINDOW);
    assert_int_equal(unreported(rig), 0);
    rig_free(rig);
}

/* ---- small blocks ---- */

/* Of the pageblock at the zone's start all is taken but what `free_frames` says, by frame. */
static void fragment(struct rig *rig, bool (*is_free)(unsigned frame))
{
    ebb_pfn_t base = rig->zones[0].base;

    for (unsigned i = 0; i < 1u << P_UNIT; i++)
        take_at(rig, base + i, 0);
    for (unsigned i = 0; i < 1u << P_UNIT; i++) {
        if (is_free(i))
            rig_release(rig, 0, base + i, 0);
    }
}

/* The same; what is freed is lazy. */
static void fragment_lazily(struct rig *rig, bool (*is_free)(unsigned frame))
{
    struct ebb_zone *zone = &rig->zones[0];

    for (unsigned i = 0; i < 1u << P_UNIT; i++)
        take_at(rig, zone->base + i, 0);
    for (unsigned i = 0; i < 1u << P_UNIT; i++) {
        if (is_free(i))
            assert_int_equal(ebb_free(zone, zone->base + i, 0), 0);
    }
    (void)ebb__drain_caches(zone, false, false);
    assert_true(ebb__lazy(zone) > 0);
}

static void defragment(struct rig *rig, bool (*is_free)(unsigned frame))
{
    for (unsigned i = 0; i < 1u << P_UNIT; i++) {
        if (!is_free(i))
            rig_release(rig, 0, rig->zones[0].base + i, 0);
    }
}

static bool but_every_eighth(unsigned frame)
{
    return frame % 8 != 0;
}
static bool every_second(unsigned frame)
{
    return frame % 2;
}
static bool one_only(unsigned frame)
{
    return frame == 77;
}
static bool all_but_one(unsigned frame)
{
    return frame != 200;
}
static bool one_run(unsigned frame)
{
    return frame >= 33 && frame < 190;
}

static const struct {
    const char *name;
    bool (*is_free)(unsigned frame);
    unsigned frames, blocks, ranges;
} patterns[] = {
    {"every eighth in use", but_every_eighth, 448, 192, 64},
    {"every second in use", every_second, 256, 256, 256},
    {"one frame free", one_only, 1, 1, 1},
    {"one frame in use", all_but_one, 511, 9, 2},
    {"one run", one_run, 157, 11, 1},
};
#define PATTERNS (sizeof(patterns) / sizeof(patterns[0]))

static unsigned ranges_sent(const struct rig *rig)
{
    unsigned ranges = 0;

    for (unsigned i = 0; i < rig->submits; i++)
        ranges += rig->log[i].n;
    return ranges;
}

/* A pageblock of n frames in b blocks waits for about window * (n + 5b + 128) / n; neighbours come
 * as one range. */
static void test_a_unit_waits_for_what_it_costs(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 2 * PATTERNS; n++) {
        struct rig *rig = new_quiet((struct rig_config){.capacity = 512, .report.capacity = 512});
        unsigned i = n / 2;
        uint64_t took, wanted = RIPE(patterns[i].frames, patterns[i].blocks);

        if (n & 1) {
            fragment_lazily(rig, patterns[i].is_free);
        } else {
            fragment(rig, patterns[i].is_free);
            assert_int_equal(rig->zones[0].pageblocks[0].blocks, patterns[i].blocks);
        }
        assert_int_equal(rig->zones[0].pageblocks[0].frames, patterns[i].frames);
        rig_forget(rig);
        rig->joined = 0;
        took = wait_until(rig, 0, 2 * wanted + COARSE);
        print_message("%s: %.1f ms, for %.1f\n", patterns[i].name, (double)took / 1e6,
                      (double)wanted / 1e6);
        assert_true(took >= WINDOW);
        assert_true(took >= wanted * 97 / 100 - COARSE);
        assert_true(took <= wanted * 103 / 100 + COARSE);
        assert_int_equal(ranges_sent(rig), patterns[i].ranges);
        assert_int_equal(rig_stats(rig).surplus_frames, patterns[i].frames);
        rig_pass(rig, 0);
        assert_int_equal(rig->due, EBB_NEVER);
        defragment(rig, patterns[i].is_free);
        rig_free(rig);
    }
}

/* However long the window: after three of the longest nobody comes any more. */
static void test_a_unit_waits_no_longer_than_for_rest(void **state)
{
    (void)state;
    for (unsigned i = 0; i < PATTERNS; i++) {
        struct rig *rig = new_quiet(
            (struct rig_config){.report.window_min_ms = 2500, .report.window_start_ms = 2500});
        uint64_t wanted = RIPE(patterns[i].frames, patterns[i].blocks) * 50, took;

        if (wanted > 3 * LONGEST)
            wanted = 3 * LONGEST;
        fragment(rig, patterns[i].is_free);
        took = wait_until(rig, 0, 2 * wanted);
        /* The clock of pageblocks knows slots: these are a quarter of the window. */
        assert_in_range(took, wanted * 97 / 100 - LONGEST / 4, wanted * 103 / 100 + LONGEST / 4);
        defragment(rig, patterns[i].is_free);
        rig_free(rig);
    }
}

/* A change anywhere in a pageblock starts its wait anew, whether a frame comes or goes. */
static void test_a_change_restarts_a_unit(void **state)
{
    for (unsigned comes = 0; comes < 2; comes++) {
        struct rig *rig = new_quiet((struct rig_config){0});
        ebb_pfn_t base = rig->zones[0].base;
        uint64_t wanted = RIPE(448u, 192u);

        (void)state;
        fragment(rig, but_every_eighth);
        for (unsigned i = 0; i < 10; i++) {
            rig_pass(rig, RIPE(458u, 172u) - COARSE - MS); /* what it comes to at last */
            assert_true(unreported(rig) >= 438);
            if (comes)
                rig_release(rig, 0, base + i * 8, 0);
            else
                take_at(rig, base + i * 8 + 1, 0);
        }
        assert_int_equal(unreported(rig), comes ? 458 : 438);
        wait_until(rig, 0, wanted + COARSE + 6 * MS);
        for (unsigned i = 0; i < 10; i++) {
            if (comes)
                take_at(rig, base + i * 8, 0);
            else
                rig_release(rig, 0, base + i * 8 + 1, 0);
        }
        defragment(rig, but_every_eighth);
        rig_free(rig);
    }
}

/* Other pageblocks do not wait for it. */
static void test_units_wait_each_for_itself(void **state)
{
    struct rig *rig = new_quiet((struct rig_config){0});
    struct ebb_zone *zone = &rig->zones[0];
    ebb_pfn_t second = zone->base + (1u << P_UNIT);

    (void)state;
    take_at(rig, second, 0); /* the pageblock behind it: one frame in use */
    rig_pass(rig, 2000 * MS);
    take_at(rig, second + 100, 0);
    rig_release(rig, 0, second + 100, 0);
    fragment(rig, but_every_eighth);
    for (unsigned i = 0; i < 40; i++) {
        take_at(rig, zone->base + 1, 0);
        rig_release(rig, 0, zone->base + 1, 0);
        rig_pass(rig, 10 * MS);
    }
    assert_int_equal(zone->pageblocks[0].frames, 448);
    assert_int_equal(zone->pageblocks[1].frames, 0);
    assert_int_equal(zone->pageblock_bits[0], 1); /* the other is not looked at any more */
    defragment(rig, but_every_eighth);
    rig_release(rig, 0, second, 0);
    rig_free(rig);
}

/* Below report.order never, and no timer for it. */
static void test_smaller_than_the_smallest_order(void **state)
{
    (void)state;
    for (unsigned n = 0; n <= 2 * (P_ORDER + 1) + 1; n++) {
        unsigned order = n / 2;
        struct rig *rig = new_rig(
            (struct rig_config){.report.order = (uint8_t)EBB_REPORT_ORDER(order), .capacity = 32});
        struct ebb_zone_stats stats;

        rig_register(rig);
        if (n & 1)
            fragment_lazily(rig, all_but_one);
        else
            fragment(rig, all_but_one);
        rig_pass(rig, 30000 * MS);
        assert_int_equal(rig->due, EBB_NEVER);
        stats = rig_zone_stats(rig, 0);
        if (order >= P_UNIT) /* nobody has looked at them */
            ebb_zone_drain(&rig->zones[0]);
        stats = rig_zone_stats(rig, 0);
        for (unsigned at = 0; at <= P_ORDER; at++)
            assert_int_equal(stats.lists[at][EBB_MOVABLE].reported,
                             at >= order ? stats.lists[at][EBB_MOVABLE].blocks : 0);
        ebb_report_now(&rig->report);
        rig_pass(rig, 0);
        assert_int_equal(rig_zone_stats(rig, 0).reported, stats.reported);
        rig_pass(rig, 30000 * MS);
        assert_int_equal(rig->due, EBB_NEVER);
        defragment(rig, all_but_one);
        rig_free(rig);
    }
}

/* Of lazy frames each may complete a block with one on a list; and what is too small alone is
 * nothing to wait for. */
static bool first_of_four(unsigned frame)
{
    return frame % 4 == 0;
}
static bool second_of_four(unsigned frame)
{
    return frame % 4 == 1;
}

static void test_lazy_frames_complete_blocks(void **state)
{
    struct rig *rig = new_quiet(
        (struct rig_config){.report.order = (uint8_t)EBB_REPORT_ORDER(1), .capacity = 32});
    struct ebb_zone *zone = &rig->zones[0];

    (void)state;
    fragment_lazily(rig, first_of_four);
    rig_pass(rig, 3 * WINDOW);
    assert_int_equal(ebb__lazy(zone), 0);
    assert_int_equal(rig->due, EBB_NEVER);
    for (unsigned i = 0; i < 1u << P_UNIT; i++) {
        if (second_of_four(i))
            assert_int_equal(ebb_free(zone, zone->base + i, 0), 0);
    }
    (void)ebb__drain_caches(zone, false, false);
    assert_true(zone->source.requested);
    assert_int_equal(ebb__lazy(zone), 1u << (P_UNIT - 2));
    ebb_report_now(&rig->report);
    rig_pass(rig, 0);
    assert_int_equal(rig_unreported_frames(rig, 0, 1), 0);
    assert_int_equal(ebb__lazy(zone), 0);
    for (unsigned i = 0; i < 1u << P_UNIT; i++) {
        if (i % 4 > 1)
            rig_release(rig, 0, zone->base + i, 0);
    }
    rig_free(rig);
}

/* Lazy frames are for surplus pacing, and for those who report whole pageblocks. */
static void test_who_has_lazy_frames(void **state)
{
    static const struct {
        struct rig_config config;
        bool coalesces_late;
    } rows[] = {
        {{.report.order = EBB_REPORT_ORDER(3)}, true},
        {{.report.order = EBB_REPORT_ORDER(9), .history.pacing = EBB_PACING_DELAY}, true},
        {{.report.order = EBB_REPORT_ORDER(3), .history.pacing = EBB_PACING_DELAY}, false},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct rig *rig = new_rig(rows[i].config);
        struct ebb_zone *zone = &rig->zones[0];

        fragment_lazily(rig, every_second);
        rig_register(rig);
        assert_int_equal(zone->coalesces_late, rows[i].coalesces_late);
        assert_int_equal(ebb__lazy(zone), rows[i].coalesces_late ? 1u << (P_UNIT - 1) : 0);
        rig_unregister(rig);
        assert_true(zone->coalesces_late);
        defragment(rig, every_second);
        rig_free(rig);
    }
}

/* With surplus pacing nothing reported is used while there are lazy frames, of whatever type. */
static void test_lazy_before_reported(void **state)
{
    struct rig *rig = new_quiet((struct rig_config){0});
    struct ebb_zone *zone = &rig->zones[0];
    ebb_pfn_t pfn;

    (void)state;
    fragment_lazily(rig, one_run);
    assert_int_equal(ebb_alloc(zone, 0, EBB_UNMOVABLE, EBB_ALLOC_NO_CACHE, &pfn), 0);
    assert_true(pfn < zone->base + (1u << P_UNIT));
    rig_release(rig, 0, pfn, 0);
    assert_int_equal(rig_zone_stats(rig, 0).refaulted, 1u << P_UNIT); /* by fragment_lazily() */
    defragment(rig, one_run);
    rig_free(rig);
}

/* ---- what keeps it ---- */

static void test_watermarks(void **state)
{
    (void)state;
    for (unsigned low = 0; low < 8; low++) {
        uint64_t keep = P_FRAMES / 2 + low * 150;
        struct rig *rig = new_rig((struct rig_config){.watermark_low = keep});
        ebb_pfn_t pfns[P_BLOCKS];
        unsigned n = P_BLOCKS * 3 / 4;

        rig_register(rig);
        rig_pass(rig, 5 * WINDOW);
        assert_int_equal(rig->due, EBB_NEVER);
        assert_int_equal(unreported(rig), 0); /* none is ever missing: batches come back */
        fragment(rig, but_every_eighth);
        take(rig, P_ORDER, n, pfns);
        rig_pass(rig, 30000 * MS);
        assert_int_equal(rig->due, EBB_NEVER);
        /* All of what is free is below the watermark: it stays, and nobody ticks for it. */
        assert_true(unreported(rig) > 0);
        assert_true(rig->zones[0].report_gated);
        /* The first free that lets something go asks. */
        rig_release_all(rig, 0, P_ORDER, pfns, n);
        rig_pass(rig, 30000 * MS);
        assert_int_equal(unreported(rig), 0);
        assert_int_equal(rig->due, EBB_NEVER);
        defragment(rig, but_every_eighth);
        rig_free(rig);
    }
}

/* What is too large for the watermark keeps nothing smaller, nor a timer running. */
static void test_watermarks_and_orders(void **state)
{
    static const unsigned spare[] = {0, 1, 5, 100, 200, 300, 520, 1000, 1030};

    (void)state;
    for (unsigned i = 0; i < sizeof(spare) / sizeof(spare[0]); i++) {
        struct rig *rig = new_rig((struct rig_config){.watermark_low = P_FRAMES - 2 - spare[i]});
        ebb_pfn_t edge = rig->zones[0].base + (1u << P_ORDER);
        struct ebb_zone_stats stats;

        fragment(rig, all_but_one);
        take_at(rig, edge, 0);
        rig_register(rig);
        rig_pass(rig, 30000 * MS);
        assert_int_equal(rig->due, EBB_NEVER);
        stats = rig_zone_stats(rig, 0);
        for (unsigned order = 0; order <= P_ORDER; order++) {
            bool fits = spare[i] >= 1u << order;

            assert_true(stats.lists[order][EBB_MOVABLE].blocks > 0);
            assert_int_equal(stats.lists[order][EBB_MOVABLE].reported,
                             fits ? stats.lists[order][EBB_MOVABLE].blocks : 0);
        }
        assert_int_equal(rig->zones[0].report_gated, spare[i] < 1u << P_ORDER);
        rig_release(rig, 0, edge, 0);
        defragment(rig, all_but_one);
        rig_free(rig);
    }
}

/* A batch that fails leaves all of it unreported, and it is tried again. */
static void test_a_failed_batch(void **state)
{
    for (unsigned refused = 0; refused < 2; refused++) {
        for (unsigned at = 1; at <= 6; at++) {
            struct rig *rig = new_quiet((struct rig_config){.capacity = 4});
            ebb_pfn_t pfns[12];
            uint64_t failed_at;

            (void)state;
            fragment(rig, but_every_eighth);
            take(rig, P_ORDER, 12, pfns);
            rig_release_all(rig, 0, P_ORDER, pfns, 12);
            rig_forget(rig);
            if (refused)
                rig->refuse_at = at;
            else
                rig->fail_at = at;
            while (rig_stats(rig).failed_batches == 0)
                rig_pass(rig, MS);
            failed_at = port_virtual.now;
            for (unsigned i = 0; i < rig->batch->n; i++)
                assert_false(
                    rig_is_reported(rig, 0, rig->batch->ranges[i].addr >> EBB_FRAME_SHIFT));
            rig_check(rig);
            rig_pass(rig, EBB_REPORT_BACKOFF_MS * MS - 2 * MS);
            assert_int_equal(rig_stats(rig).failed_batches, 1);
            assert_true(unreported(rig) > 0);
            wait_until(rig, 0, 10000 * MS);
            assert_true(port_virtual.now - failed_at >= EBB_REPORT_BACKOFF_MS * MS - 2 * MS);
            rig_pass(rig, WINDOW);
            assert_int_equal(rig->due, EBB_NEVER);
            defragment(rig, but_every_eighth);
            rig_free(rig);
        }
    }
}

struct meddler {
    unsigned batches;
    uint64_t random;
};

/* Take what was reported, and free it: there is always something left to report. */
static void use_and_free(struct rig *rig)
{
    struct meddler *meddler = rig->ctx;
    struct ebb_zone *zone = &rig->zones[0];

    meddler->batches++;
    for (unsigned i = 0; i < 8; i++) {
        unsigned order =
            (unsigned)((meddler->random = meddler->random * 6364136223846793005u + 1) >> 60) % 11;
        ebb_pfn_t pfn = zone->base + ((meddler->random >> 20) % P_FRAMES >> order << order);

        if (ebb_alloc_at(zone, pfn, order, 0) == 0)
            rig_release(rig, 0, pfn, order);
    }
    if (rig->submits > RIG_LOG / 2)
        rig->submits = 1; /* forget; its number is what the device goes by */
}

/* I9: whatever others do meanwhile, and even if all is to be reported. */
static void test_every_pass_ends(void **state)
{
    struct rig *rig = new_quiet((struct rig_config){.capacity = 2});
    struct meddler meddler = {.random = 5};

    (void)state;
    fragment(rig, but_every_eighth);
    rig->on_submit = use_and_free;
    rig->ctx = &meddler;
    for (unsigned i = 0; i < 60; i++) {
        uint64_t passes = rig_stats(rig).passes;

        meddler.batches = 0;
        if (i % 3 == 0)
            ebb_report_now(&rig->report);
        rig_run_after(rig, SLOT);
        assert_true(rig_stats(rig).passes <= passes + 1);
        assert_true(meddler.batches < 2000);
        if (rig->submits > RIG_LOG / 2)
            rig->submits = 1;
    }
    assert_true(rig_stats(rig).batches > 100);
    rig->on_submit = NULL;
    rig_check(rig);
    rig_pass(rig, 20000 * MS);
    assert_int_equal(unreported(rig), 0);
    defragment(rig, but_every_eighth);
    rig_free(rig);
}

/* ---- shapes ---- */

static void test_several_zones(void **state)
{
    struct rig *rig = new_quiet((struct rig_config){.zones = 2});
    ebb_pfn_t pfns[2][4];

    (void)state;
    assert_int_equal(rig_unreported_frames(rig, 1, 0), 0);
    for (unsigned zone = 0; zone < 2; zone++) {
        for (unsigned i = 0; i < 4; i++)
            pfns[zone][i] = rig_alloc(rig, zone, P_ORDER);
    }
    rig_pass(rig, 3 * WINDOW);
    rig_release_all(rig, 0, P_ORDER, pfns[0], 4);
    rig_pass(rig, WINDOW / 2);
    rig_release_all(rig, 1, P_ORDER, pfns[1], 4);
    /* Each after its own window. */
    wait_until(rig, 0, WINDOW);
    assert_int_equal(rig_unreported_frames(rig, 1, 0), 4u << P_ORDER);
    /* What one zone lacks the other does not report for it. */
    for (unsigned i = 0; i < 20; i++) {
        pfns[1][0] = rig_alloc(rig, 1, P_ORDER);
        pfns[0][0] = rig_alloc(rig, 0, P_ORDER);
        rig_release(rig, 0, pfns[0][0], P_ORDER);
        rig_release(rig, 1, pfns[1][0], P_ORDER);
        rig_pass(rig, 10 * MS);
    }
    assert_int_equal(unreported(rig), 1u << P_ORDER);
    assert_int_equal(rig_unreported_frames(rig, 1, 0), 1u << P_ORDER);
    rig_pass(rig, 2 * WINDOW);
    assert_int_equal(rig_unreported_frames(rig, 1, 0) + unreported(rig), 0);
    assert_int_equal(rig->due, EBB_NEVER);
    rig_free(rig);
}

static uint64_t below(uint64_t *random, uint64_t n)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (*random >> 33) % n;
}

/* Use some, free it, and come to rest: everything is reported, whatever the shape. */
static void shape(unsigned max_order, unsigned pageblock_order, uint64_t frames, uint64_t random)
{
    struct rig *rig = rig_new(&(struct rig_config){
        .frames = frames, .max_order = max_order, .pageblock_order = pageblock_order});
    ebb_pfn_t pfns[64];
    unsigned orders[64];
    unsigned n = 0;

    rig_register(rig);
    for (unsigned i = 0; i < 300; i++) {
        unsigned order = (unsigned)below(&random, max_order + 1);

        if (n < 64 &&
            ebb_alloc(&rig->zones[0], order, EBB_MOVABLE, EBB_ALLOC_NO_CACHE, &pfns[n]) == 0) {
            orders[n++] = order;
        } else if (n > 0) {
            unsigned which = (unsigned)below(&random, n--);

            rig_release(rig, 0, pfns[which], orders[which]);
            pfns[which] = pfns[n];
            orders[which] = orders[n];
        }
        if (i % 5 == 0)
            rig_pass(rig, below(&random, 30 * MS));
        rig_forget(rig);
    }
    /* With some in use, and with none. */
    for (unsigned i = 0; i < 2; i++) {
        uint64_t end = port_virtual.now + 200000 * MS;

        rig_pass(rig, 0);
        while (rig->due != EBB_NEVER && port_virtual.now < end) {
            rig_pass(rig, 10 * MS);
            rig_forget(rig);
        }
        rig_check(rig);
        if (unreported(rig) != 0 || rig->due != EBB_NEVER)
            fail_msg("max_order %u, pageblock_order %u, %llu frames: %llu are left, due %llu",
                     max_order, pageblock_order, (unsigned long long)frames,
                     (unsigned long long)unreported(rig), (unsigned long long)rig->due);
        for (; n > 0; n--)
            rig_release(rig, 0, pfns[n - 1], orders[n - 1]);
    }
    rig_forget(rig);
    rig_free(rig);
}

static void test_shapes(void **state)
{
    (void)state;
    for (unsigned max_order = 1; max_order <= 12; max_order++) {
        for (unsigned pageblock = 1; pageblock <= max_order; pageblock++) {
            uint64_t frames = (uint64_t)3 << max_order;

            shape(max_order, pageblock, frames, max_order);
            shape(max_order, pageblock, frames + 13, pageblock);
            shape(max_order, pageblock, (frames >> 1) + 1, pageblock + 7);
        }
    }
    for (unsigned pageblock = 1; pageblock <= 18; pageblock += pageblock < 4 ? 1 : 7)
        shape(18, pageblock, ((uint64_t)1 << 18) + 12345, pageblock);
}

/* Somebody who takes and frees single frames splits a block and merges it again all the time. That
 * block stays; what nobody needs is surplus nevertheless. */
static void test_a_block_that_is_split_and_merged(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.frames = (uint64_t)5 << 14,
                                                   .max_order = 14,
                                                   .pageblock_order = 9,
                                                   .report.window_start_ms = 1});
    ebb_pfn_t pfns[10];

    (void)state;
    rig_register(rig);
    for (unsigned i = 0; i < 100; i++) {
        take(rig, 0, 10, pfns);
        rig_pass(rig, MS);
        rig_release_all(rig, 0, 0, pfns, 10);
        rig_pass(rig, MS);
    }
    assert_true(unreported(rig) <= 1u << 14);
    assert_true(rig_stats(rig).refaulted_soon < 100);
    rig_free(rig);
}

/* What is isolated is neither reported nor counted. */
static void test_isolated_ranges(void **state)
{
    struct rig *rig = new_quiet((struct rig_config){0});
    struct ebb_zone *zone = &rig->zones[0];
    ebb_pfn_t pfns[P_BLOCKS];
    unsigned n = rig_alloc_all(rig, 0, P_ORDER, pfns);
    uint64_t isolated = 4u << P_UNIT;

    (void)state;
    rig_pass(rig, 3 * WINDOW);
    assert_int_equal(ebb_isolate_range(zone, zone->base, isolated), 0);
    rig_release_all(rig, 0, P_ORDER, pfns, n);
    rig_pass(rig, 5 * WINDOW);
    assert_int_equal(rig->due, EBB_NEVER);
    assert_int_equal(rig_zone_stats(rig, 0).reported, P_FRAMES - isolated);
    assert_int_equal(rig_times_reported(rig, zone->base + isolated - 1), 0);
    ebb_report_now(&rig->report);
    rig_pass(rig, 0);
    assert_int_equal(rig_times_reported(rig, zone->base), 0);
    /* Put back it waits a window. */
    assert_int_equal(ebb_putback_range(zone, zone->base, isolated, EBB_MOVABLE), 0);
    rig_pass(rig, WINDOW - 1);
    assert_int_equal(rig_times_reported(rig, zone->base), 0);
    rig_pass(rig, WINDOW);
    assert_int_equal(unreported(rig), 0);
    assert_int_equal(rig->due, EBB_NEVER);
    /* In the middle of a window. */
    rig_pass(rig, LONGEST);
    n = rig_alloc_all(rig, 0, P_ORDER, pfns);
    rig_pass(rig, 3 * WINDOW);
    rig_release_all(rig, 0, P_ORDER, pfns, n);
    rig_pass(rig, WINDOW / 2);
    assert_int_equal(ebb_isolate_range(zone, zone->base, isolated), 0);
    rig_pass(rig, 2 * WINDOW);
    assert_int_equal(rig_zone_stats(rig, 0).reported, P_FRAMES - isolated);
    assert_int_equal(rig->due, EBB_NEVER);
    assert_int_equal(ebb_putback_range(zone, zone->base, isolated, EBB_MOVABLE), 0);
    rig_free(rig);
}

/* A frame in a cache keeps its block from being whole: idle caches are emptied, here as well. */
static void test_idle_caches_are_emptied(void **state)
{
    struct rig *rig = new_quiet((struct rig_config){.cpus = 2});
    struct ebb_zone *zone = &rig->zones[0];
    ebb_pfn_t pfns[300];

    (void)state;
    for (unsigned cpu = 0; cpu < 2; cpu++) {
        port_virtual.cpu = cpu;
        for (unsigned i = 0; i < 150; i++)
            assert_int_equal(ebb_alloc(zone, 0, EBB_MOVABLE, 0, &pfns[cpu * 150 + i]), 0);
    }
    for (unsigned i = 0; i < 300; i++)
        assert_int_equal(ebb_free(zone, pfns[i], 0), 0);
    assert_true(rig_zone_stats(rig, 0).cached > 0);
    rig_pass(rig, 10 * WINDOW);
    assert_int_equal(rig_zone_stats(rig, 0).cached, 0);
    assert_int_equal(unreported(rig), 0);
    assert_int_equal(rig->due, EBB_NEVER);
    rig_free(rig);
}

/* ---- what is demand, and what is not ---- */

/* A block that is taken out of a larger one, and merges with it again, is no more demand than
 * itself: a gigabyte of which 2 MiB come and go is surplus but for these. */
static void test_a_small_block_of_a_large_one(void **state)
{
    struct rig *rig = new_rig((struct rig_config){
        .frames = (uint64_t)1 << 18, .max_order = 18, .pageblock_order = P_UNIT});
    struct ebb_zone *zone = &rig->zones[0];

    (void)state;
    ebb_pfn_t pfn = rig_alloc(rig, 0, P_UNIT);

    assert_int_equal(zone->level.low, 0); /* nobody has looked yet */
    rig_register(rig);
    rig_pass(rig, SLOT + SLOT / 2);
    rig_release(rig, 0, pfn, P_UNIT);
    pfn = rig_alloc(rig, 0, P_UNIT);
    assert_int_equal(zone->level.low, ((uint64_t)1 << 18) - (1u << P_UNIT));
    rig_pass(rig, 3 * WINDOW);
    assert_int_equal(unreported(rig), 0);
    rig_release(rig, 0, pfn, P_UNIT);
    rig_pass(rig, 3 * WINDOW);
    rig_free(rig);
}

/* Whatever uses reported frames asks for a look: else a refault would be taken for a late one. */
static void test_every_refault_asks(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 2; how++) {
        struct rig *rig = new_quiet((struct rig_config){0});
        const ebb_pfn_t pfn = rig->zones[0].base;
        uint64_t passes = rig_stats(rig).passes;

        if (how == 0)
            assert_int_equal(ebb_alloc_range(&rig->zones[0], pfn, 3000, NULL), 0);
        else
            assert_int_equal(ebb_alloc_at(&rig->zones[0], pfn, P_ORDER, 0), 0);
        assert_true(rig->zones[0].refaulted > 0);
        assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_REQUESTED);
        rig_pass(rig, 2 * SLOT);
        assert_true(rig_stats(rig).passes > passes);
        if (how == 0)
            assert_int_equal(ebb_free_range(&rig->zones[0], pfn, 3000), 0);
        else
            rig_release(rig, 0, pfn, P_ORDER);
        rig_pass(rig, 2 * LONGEST);
        rig_free(rig);
    }
}

/* What a balloon takes nobody uses: reported memory first, and the window does not grow. */
static void test_inflation_is_no_use(void **state)
{
    struct rig *rig = new_quiet((struct rig_config){0});
    struct ebb_zone *zone = &rig->zones[0];
    const uint64_t window = rig_stats(rig).window_ns;
    static ebb_pfn_t pfns[LOTS << P_ORDER];
    unsigned n = 0;
    ebb_pfn_t warm = rig_alloc(rig, 0, P_ORDER);
    const uint64_t refaulted = zone->refaulted;

    (void)state;
    rig_release(rig, 0, warm, P_ORDER);
    while (n < (LOTS << P_ORDER) / 2)
        assert_int_equal(ebb_alloc(zone, 0, EBB_UNMOVABLE, EBB_ALLOC_COLD, &pfns[n++]), 0);
    assert_int_equal(zone->refaulted, refaulted);
    assert_int_equal(rig_block(rig, 0, warm).state, EBB_BLOCK_FREE); /* the warm one stays */
    rig_pass(rig, 2 * WINDOW);
    assert_int_equal(rig_stats(rig).window_ns, window);
    assert_int_equal(rig_stats(rig).refaulted_soon, 0);
    rig_check(rig);
    assert_int_equal(ebb_free_many(zone, pfns, n), 0);
    ebb_zone_drain(zone);
    rig_pass(rig, 2 * LONGEST);
    rig_free(rig);
}

/* Even of what is warm: nobody has begun to need memory. */
static void withdrawn(struct rig *rig, void (*withdraw)(struct rig *rig, bool back))
{
    ebb_pfn_t pfns[P_BLOCKS];
    unsigned n = rig_alloc_all(rig, 0, P_ORDER, pfns);
    uint64_t left;

    rig_pass(rig, 3 * LONGEST);
    rig_release_all(rig, 0, P_ORDER, pfns, n);
    rig_pass(rig, WINDOW * 9 / 10);
    assert_int_equal(unreported(rig), P_FRAMES);
    withdraw(rig, false);
    left = unreported(rig);
    assert_true(left <= P_FRAMES / 2);
    rig_pass(rig, WINDOW / 2);
    assert_int_equal(unreported(rig), 0);
    withdraw(rig, true);
    rig_pass(rig, 2 * LONGEST);
    rig_free(rig);
}

static void isolate_half(struct rig *rig, bool back)
{
    if (back)
        assert_int_equal(
            ebb_putback_range(&rig->zones[0], rig->zones[0].base, P_FRAMES / 2, EBB_MOVABLE), 0);
    else
        assert_int_equal(ebb_isolate_range(&rig->zones[0], rig->zones[0].base, P_FRAMES / 2), 0);
}

static void test_isolating_is_no_demand(void **state)
{
    (void)state;
    withdrawn(new_quiet((struct rig_config){0}), isolate_half);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        rig_test(test_nothing_before_a_window),
        rig_test(test_a_dip_keeps_what_dipped),
        rig_test(test_a_burst_keeps_what_it_may_take),
        rig_test(test_coldest_first),
        rig_test(test_allocation_prefers_warm),
        rig_test(test_no_timer_while_there_is_nothing_to_report),
        rig_test(test_refaults_lengthen_the_window),
        rig_test(test_a_longer_window_begins_anew),
        rig_test(test_late_refaults_do_not),
        rig_test(test_late_refaults_beside_others),
        rig_test(test_few_refaults_do_not),
        rig_test(test_the_cost_of_a_refault),
        rig_test(test_memory_free_at_register_does_not_count),
        rig_test(test_calm_halves_the_window),
        rig_test(test_one_miss_counts_once),
        rig_test(test_no_half_without_a_difference),
        rig_test(test_no_half_that_would_refault),
        rig_test(test_the_first_window),
        rig_test(test_a_rest_brings_the_first_window_back),
        rig_test(test_half_only_where_it_pays),
        rig_test(test_no_half_while_there_are_refaults),
        rig_test(test_rest_halves_the_window),
        rig_test(test_long_turns_at_rest),
        rig_test(test_long_turns_beside_others),
        rig_test(test_bounds_of_the_window),
        rig_test(test_report_now_reports_everything),
        rig_test(test_report_now_is_forgotten_with_the_device),
        rig_test(test_a_unit_waits_for_what_it_costs),
        rig_test(test_a_unit_waits_no_longer_than_for_rest),
        rig_test(test_a_change_restarts_a_unit),
        rig_test(test_units_wait_each_for_itself),
        rig_test(test_smaller_than_the_smallest_order),
        rig_test(test_lazy_frames_complete_blocks),
        rig_test(test_who_has_lazy_frames),
        rig_test(test_lazy_before_reported),
        rig_test(test_watermarks),
        rig_test(test_watermarks_and_orders),
        rig_test(test_a_failed_batch),
        rig_test(test_every_pass_ends),
        rig_test(test_several_zones),
        rig_test(test_shapes),
        rig_test(test_a_block_that_is_split_and_merged),
        rig_test(test_isolated_ranges),
        rig_test(test_idle_caches_are_emptied),
        rig_test(test_a_small_block_of_a_large_one),
        rig_test(test_every_refault_asks),
        rig_test(test_inflation_is_no_use),
        rig_test(test_isolating_is_no_demand),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
