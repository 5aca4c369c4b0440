/* SPDX-License-Identifier: BSD-2-Clause */
/* Per-CPU caches (pcp.c). */
#include "zone_rig.h"

#include <ebb/report.h>

#include <ebb/range.h>

#define BASE  0x1000u
#define HIGH  24u
#define BATCH 8u

static const struct ebb_zone_config config = {.base = BASE,
                                              .frames = 256,
                                              .max_order = 6,
                                              .pageblock_order = 5,
                                              .cpus = 3,
                                              .pcp_high = HIGH,
                                              .pcp_batch = BATCH};

static int setup(void **state)
{
    (void)state;
    rig_make(&config, true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ebb_zone_drain(zone);
    assert_int_equal(rig_stats().cached, 0);
    rig_done();
    return 0;
}

static ebb_pfn_t get(void)
{
    return rig_alloc(0, EBB_MOVABLE, 0);
}

static void put(ebb_pfn_t pfn)
{
    assert_int_equal(ebb_free(zone, pfn, 0), 0);
}

static void an_empty_cache_takes_a_batch(void **state)
{
    (void)state;
    ebb_pfn_t first = get();

    assert_int_equal(rig_stats().cached, BATCH - 1);
    assert_int_equal(rig_stats().free, 256 - BATCH);
    /* In ascending order, and all of one block. */
    for (unsigned i = 1; i < BATCH; i++)
        assert_int_equal(get(), first + i);
    assert_int_equal(rig_stats().cached, 0);
    rig_check();
    for (unsigned i = 0; i < BATCH; i++)
        put(first + i);
    assert_int_equal(rig_stats().cached, BATCH);
}

static void the_cached_path_takes_one_lock(void **state)
{
    (void)state;
    put(get());
    uint64_t locks = port_virtual.locks;
    uint64_t allocs = zone->allocs;
    uint64_t frees = zone->frees;

    for (unsigned i = 0; i < 100; i++)
        put(get());
    assert_int_equal(port_virtual.locks, locks + 200);
    assert_int_equal(zone->allocs, allocs); /* the zone's own line is left alone */
    assert_int_equal(zone->frees, frees);
    assert_int_equal(rig_stats().allocs, 101);
    assert_int_equal(rig_stats().frees, 101);
}

static void the_frame_freed_last_is_next(void **state)
{
    (void)state;
    ebb_pfn_t a = get();
    ebb_pfn_t b = get();
    ebb_pfn_t c = get();

    put(b);
    put(a);
    put(c);
    assert_int_equal(get(), c);
    assert_int_equal(get(), a);
    assert_int_equal(get(), b);
    put(a);
    put(b);
    put(c);
}

static void a_full_cache_gives_its_coldest_batch_back(void **state)
{
    ebb_pfn_t pfns[HIGH + 1];

    (void)state;
    for (unsigned i = 0; i <= HIGH; i++)
        pfns[i] = rig_alloc(0, EBB_MOVABLE, EBB_ALLOC_NO_CACHE);
    assert_int_equal(rig_stats().cached, 0);
    for (unsigned i = 0; i < HIGH; i++)
        put(pfns[i]);
    assert_int_equal(rig_stats().cached, HIGH);
    put(pfns[HIGH]);
    assert_int_equal(rig_stats().cached, HIGH - BATCH + 1);
    for (unsigned i = 0; i <= HIGH; i++)
        assert_int_equal(rig_lookup(pfns[i]).state, i < BATCH ? EBB_BLOCK_FREE : EBB_BLOCK_CACHED);
    rig_check();
    for (unsigned i = HIGH + 1; i-- > BATCH;)
        assert_int_equal(get(), pfns[i]);
    for (unsigned i = BATCH; i <= HIGH; i++)
        put(pfns[i]);
}

static void no_cache_goes_past_it(void **state)
{
    (void)state;
    ebb_pfn_t pfn = rig_alloc(0, EBB_MOVABLE, EBB_ALLOC_NO_CACHE);

    assert_int_equal(rig_stats().cached, 0);
    put(pfn);
}

static void each_type_has_its_own_stack(void **state)
{
    (void)state;
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(ebb_isolate_range(zone, BASE + 64 * i, 64), 0);
        assert_int_equal(ebb_putback_range(zone, BASE + 64 * i, 64, (enum ebb_migratetype)i), 0);
    }
    ebb_pfn_t movable = get();
    ebb_pfn_t unmovable = rig_alloc(0, EBB_UNMOVABLE, 0);
    ebb_pfn_t reclaimable = rig_alloc(0, EBB_RECLAIMABLE, 0);

    assert_int_equal(rig_stats().cached, 3 * (BATCH - 1));
    assert_int_equal(rig_lookup(unmovable).type, EBB_UNMOVABLE);
    put(movable);
    put(unmovable);
    put(reclaimable);
    assert_int_equal(rig_alloc(0, EBB_UNMOVABLE, 0), unmovable);
    assert_int_equal(rig_alloc(0, EBB_RECLAIMABLE, 0), reclaimable);
    assert_int_equal(get(), movable);
    put(movable);
    put(unmovable);
    put(reclaimable);
}

static void each_cpu_has_its_own_cache(void **state)
{
    (void)state;
    port_virtual.cpu = 0;
    ebb_pfn_t zero = get();

    port_virtual.cpu = 1;
    ebb_pfn_t one = get();

    assert_int_equal(rig_stats().cached, 2 * (BATCH - 1));
    put(zero); /* allocated on one CPU, freed on another */
    assert_int_equal(get(), zero);
    put(zero);
    port_virtual.cpu = 4; /* modulo 3 */
    assert_int_equal(get(), zero);
    put(zero);
    put(one);
    port_virtual.cpu = UINT32_MAX;
    put(get());
    rig_check();
}

static void a_cached_frame_cannot_be_freed_again(void **state)
{
    (void)state;
    ebb_pfn_t pfn = get();

    put(pfn);
    rig_misuse(pfn, 0, EBB_MISUSE_DOUBLE_FREE);
    port_virtual.cpu = 1;
    rig_misuse(pfn, 0, EBB_MISUSE_DOUBLE_FREE);
    rig_misuse(pfn + 1, 0, EBB_MISUSE_DOUBLE_FREE); /* came with the refill */
    assert_int_equal(rig_stats().cached, BATCH);
    ebb_zone_drain(zone);
    rig_misuse(pfn, 0, EBB_MISUSE_DOUBLE_FREE);
    assert_int_equal(rig_stats().misuses, 4);
}

static void drained_frames_merge(void **state)
{
    (void)state;
    put(get());
    assert_int_equal(rig_stats().lists[6][EBB_MOVABLE].blocks, 3);
    ebb_zone_drain(zone);
    assert_int_equal(rig_stats().lists[6][EBB_MOVABLE].blocks, 4);
    assert_int_equal(rig_stats().cached, 0);
}

static void only_idle_caches_are_drained_as_idle(void **state)
{
    (void)state;
    port_virtual.cpu = 0;
    put(get());
    port_virtual.cpu = 1;
    put(get());
    assert_int_equal(ebb_zone_drain_idle(zone), 2 * BATCH); /* both in use lately */
    put(get());
    assert_int_equal(ebb_zone_drain_idle(zone), BATCH); /* 1 is */
    assert_int_equal(zone->pcps[0].count[EBB_MOVABLE], 0);
    assert_int_equal(ebb_zone_drain_idle(zone), 0);
    assert_int_equal(rig_stats().cached, 0);
    assert_int_equal(ebb_zone_drain_idle(zone), 0);
}

static void a_drain_for_the_engine_asks_for_no_pass(void **state)
{
    static struct ebb_report nobody; /* an engine that has no device, and does nothing */

    (void)state;
    put(get());
    assert_int_equal(ebb__drain_caches(zone, false, false), 0);
    assert_false(zone->wish);
    /* With reporting on, it says that one is due. */
    zone->report_order = zone->report_min_order = 6;
    zone->report_threshold = 1;
    zone->source.requested = 1; /* there is no engine that the cache could ask */
    put(get());
    zone->source.requested = 0;
    zone->source.report = &nobody;
    assert_int_equal(ebb__drain_caches(zone, true, true), BATCH);
    assert_int_equal(ebb__drain_caches(zone, true, true), 0);
    assert_int_equal(zone->source.requested, 0);
    /* Not quiet, it says so, and passes the wish on. */
    zone->source.requested = 1;
    put(get());
    zone->source.requested = 0;
    assert_int_equal(ebb__drain_caches(zone, true, false), BATCH);
    assert_int_equal(zone->source.requested, 0);
    assert_int_equal(ebb__drain_caches(zone, true, false), 0);
    assert_int_equal(zone->source.requested, 1);
    assert_false(zone->wish);
    assert_int_equal(port_virtual.wakes, 0);
    zone->source.report = NULL;
    zone->report_order = zone->report_min_order = 0xff;
}

static void a_refill_takes_small_blocks_first(void **state)
{
    (void)state;
    /* Free: single frames and pairs, between others in use, and larger blocks. */
    assert_int_equal(ebb_alloc_at(zone, BASE, 0, 0), 0);
    assert_int_equal(ebb_alloc_at(zone, BASE + 4, 1, 0), 0);
    (void)get();
    /* 1, 2-3, 6-7 and 8-15 are free there: 5 frames and a part of what follows. */
    assert_int_equal(rig_lookup(BASE + 1).state, EBB_BLOCK_CACHED);
    assert_int_equal(rig_lookup(BASE + 2).state, EBB_BLOCK_CACHED);
    assert_int_equal(rig_lookup(BASE + 3).state, EBB_BLOCK_CACHED);
    assert_int_equal(rig_lookup(BASE + 6).state, EBB_BLOCK_CACHED);
    assert_int_equal(rig_lookup(BASE + 7).state, EBB_BLOCK_CACHED);
    assert_int_equal(rig_stats().cached, BATCH - 1);
    rig_check();
    for (ebb_pfn_t pfn = BASE; pfn < BASE + 64; pfn++) {
        struct ebb_block block = rig_lookup(pfn);

        if (block.state == EBB_BLOCK_ALLOCATED && block.pfn == pfn)
            assert_int_equal(ebb_free(zone, pfn, block.order), 0);
    }
}

static void a_refill_stops_at_the_watermark(void **state)
{
    struct ebb_zone_config tight = config;
    ebb_pfn_t pfn;

    (void)state;
    tight.watermark_min = 256 - 5;
    rig_done();
    rig_make(&tight, true);
    (void)get();
    assert_int_equal(rig_stats().free, 251);
    assert_int_equal(rig_stats().cached, 4);
    for (unsigned i = 0; i < 4; i++)
        (void)get();
    assert_int_equal(ebb_alloc(zone, 0, EBB_MOVABLE, 0, &pfn), -EBB_ENOMEM);
    assert_int_equal(rig_alloc(0, EBB_MOVABLE, EBB_ALLOC_RESERVE), BASE + 5);
    for (unsigned i = 0; i < 6; i++)
        put(BASE + i);
}

static void a_refill_counts_refaults(void **state)
{
    (void)state;
    for (ebb_pfn_t pfn = BASE; pfn < BASE + 256; pfn += 64)
        rig_report(pfn);
    put(get());
    assert_int_equal(rig_stats().refaulted, BATCH);
    assert_int_equal(rig_stats().reported, 256 - BATCH);
    ebb_zone_drain(zone); /* and what comes back is unreported */
    assert_int_equal(rig_stats().reported, 256 - 64);
}

/* A frame of a pageblock with isolated frames does not enter a cache. */
static void isolated_frames_go_past_the_cache(void **state)
{
    (void)state;
    ebb_pfn_t pfn = get();

    assert_int_equal(ebb_isolate_range(zone, BASE, 32), 0);
    assert_int_equal(rig_stats().cached, 0);
    put(pfn);
    assert_int_equal(rig_stats().cached, 0);
    assert_int_equal(rig_stats().isolated, 32);
    rig_misuse(pfn, 0, EBB_MISUSE_DOUBLE_FREE);
    assert_int_equal(ebb_putback_range(zone, BASE, 32, EBB_MOVABLE), 0);
}

static void other_types_give_one_frame_unless_the_pageblock_follows(void **state)
{
    ebb_pfn_t pfns[256];
    unsigned n = 0;

    (void)state;
    /* Single free frames, all in unmovable pageblocks that are mostly in use. */
    while (ebb_alloc(zone, 0, EBB_UNMOVABLE, EBB_ALLOC_NO_CACHE, &pfns[n]) == 0)
        n++;
    assert_int_equal(n, 256);
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(ebb_free(zone, BASE + 8 * i, 0), 0);
    ebb_zone_drain(zone);
    ebb_pfn_t pfn = get();

    assert_int_equal(rig_stats().steals, 256 / 32 + 1);
    assert_int_equal(rig_stats().cached, 0);
    put(pfn);
    for (unsigned i = 0; i < 256; i++) {
        if (i % 8)
            put(BASE + i);
    }
}

/* ---- pageblocks ---- */

#define PAGEBLOCK 5u

static int setup_blocks(void **state)
{
    struct ebb_zone_config with_blocks = config;

    (void)state;
    with_blocks.pcp_blocks = 2;
    rig_make(&with_blocks, true);
    return 0;
}

static ebb_pfn_t get_block(enum ebb_migratetype type)
{
    return rig_alloc(PAGEBLOCK, type, 0);
}

static void put_block(ebb_pfn_t pfn)
{
    assert_int_equal(ebb_free(zone, pfn, PAGEBLOCK), 0);
}

static void the_cached_pageblock_takes_one_lock(void **state)
{
    ebb_pfn_t pfn = get_block(EBB_MOVABLE);

    (void)state;
    put_block(pfn);
    assert_int_equal(rig_stats().cached, 1u << PAGEBLOCK);
    rig_check();

    const uint64_t locks = port_virtual.locks;

    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(get_block(EBB_MOVABLE), pfn);
        put_block(pfn);
    }
    assert_int_equal(port_virtual.locks, locks + 200);
    assert_int_equal(rig_stats().allocs, 101);
    assert_int_equal(rig_stats().frees, 101);
    assert_int_equal(rig_lookup(pfn + 3).state, EBB_BLOCK_CACHED);
    assert_int_equal(rig_lookup(pfn + 3).order, PAGEBLOCK);
    assert_int_equal(get_block(EBB_MOVABLE), pfn);
    assert_int_equal(rig_lookup(pfn).state, EBB_BLOCK_ALLOCATED);
    put_block(pfn);
}

static void a_cache_keeps_a_few_pageblocks(void **state)
{
    ebb_pfn_t pfns[3];
    ebb_pfn_t unmovable = get_block(EBB_UNMOVABLE);

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        pfns[i] = get_block(EBB_MOVABLE);
    for (unsigned i = 0; i < 3; i++)
        put_block(pfns[i]);
    put_block(unmovable);
    assert_int_equal(rig_stats().cached, 2u << PAGEBLOCK);
    assert_int_equal(rig_lookup(pfns[0]).state, EBB_BLOCK_CACHED);
    assert_int_equal(rig_lookup(pfns[1]).state, EBB_BLOCK_CACHED);
    assert_int_equal(rig_lookup(pfns[2]).state, EBB_BLOCK_FREE);
    assert_int_equal(rig_lookup(unmovable).state, EBB_BLOCK_FREE);
    rig_check();

    /* Neither another type nor another order gets them, nor who asks to go past the cache. */
    ebb_pfn_t others[] = {get_block(EBB_UNMOVABLE), rig_alloc(PAGEBLOCK - 1, EBB_MOVABLE, 0),
                          rig_alloc(PAGEBLOCK, EBB_MOVABLE, EBB_ALLOC_NO_CACHE)};
    assert_int_equal(rig_stats().cached, 2u << PAGEBLOCK);
    assert_int_equal(get_block(EBB_MOVABLE), pfns[1]);
    /* Slowly, too. */
    assert_int_equal(rig_alloc(PAGEBLOCK, EBB_MOVABLE, EBB_ALLOC_LOW), pfns[0]);
    assert_int_equal(rig_stats().cached, 0);
    put_block(pfns[0]);
    put_block(pfns[1]);
    put_block(others[0]);
    assert_int_equal(ebb_free(zone, others[1], PAGEBLOCK - 1), 0);
    put_block(others[2]);
}

static void a_cached_pageblock_cannot_be_freed_again(void **state)
{
    ebb_pfn_t pfn = get_block(EBB_MOVABLE);
    ebb_pfn_t half = rig_alloc(PAGEBLOCK - 1, EBB_MOVABLE, 0);

    (void)state;
    put_block(pfn);
    rig_misuse(pfn, PAGEBLOCK, EBB_MISUSE_DOUBLE_FREE);
    rig_misuse(pfn, PAGEBLOCK - 1, EBB_MISUSE_DOUBLE_FREE);
    rig_misuse(pfn, 0, EBB_MISUSE_DOUBLE_FREE);
    rig_misuse(pfn + 1, 0, EBB_MISUSE_DOUBLE_FREE);
    /* Nor can one be freed that is less. */
    assert_int_equal(half % (1u << PAGEBLOCK), 0);
    rig_misuse(half, PAGEBLOCK, EBB_MISUSE_WRONG_ORDER);
    assert_int_equal(rig_stats().cached, 1u << PAGEBLOCK);
    rig_check();
    assert_int_equal(ebb_free(zone, half, PAGEBLOCK - 1), 0);
}

static void idle_pageblocks_are_drained(void **state)
{
    ebb_pfn_t pfn = get_block(EBB_MOVABLE);
    ebb_pfn_t frame = get();

    (void)state;
    put_block(pfn);
    assert_int_equal(ebb_zone_drain_idle(zone), (1u << PAGEBLOCK) + BATCH - 1);
    put(frame); /* which keeps the frames, not the pageblock */
    assert_int_equal(ebb_zone_drain_idle(zone), BATCH);
    assert_int_equal(rig_lookup(pfn).state, EBB_BLOCK_FREE);
    rig_check();

    put_block(get_block(EBB_MOVABLE));
    assert_int_equal(ebb_zone_drain_idle(zone), 1u << PAGEBLOCK);
    put_block(get_block(EBB_MOVABLE)); /* and the other way round */
    assert_int_equal(ebb_zone_drain_idle(zone), 1u << PAGEBLOCK);
    assert_int_equal(ebb_zone_drain_idle(zone), 0);
    assert_int_equal(rig_stats().free, 256);
    rig_check();
}

static void isolated_pageblocks_go_past_the_cache(void **state)
{
    ebb_pfn_t pfn = get_block(EBB_MOVABLE);

    (void)state;
    assert_int_equal(ebb_isolate_range(zone, pfn, 1u << PAGEBLOCK), 0);
    put_block(pfn);
    assert_int_equal(rig_stats().cached, 0);
    assert_int_equal(rig_stats().isolated, 1u << PAGEBLOCK);
    assert_int_equal(ebb_putback_range(zone, pfn, 1u << PAGEBLOCK, EBB_MOVABLE), 0);

    pfn = get_block(EBB_MOVABLE);
    put_block(pfn);
    assert_int_equal(ebb_isolate_range(zone, pfn, 1u << PAGEBLOCK), 0); /* empties it */
    assert_int_equal(rig_stats().cached, 0);
    assert_int_equal(rig_stats().isolated, 1u << PAGEBLOCK);
    assert_int_equal(ebb_putback_range(zone, pfn, 1u << PAGEBLOCK, EBB_MOVABLE), 0);
}

static void the_last_pageblock_is_found_in_a_cache(void **state)
{
    ebb_pfn_t pfns[256 >> PAGEBLOCK];

    (void)state;
    for (unsigned i = 0; i < 256 >> PAGEBLOCK; i++)
        pfns[i] = get_block(EBB_MOVABLE);
    put_block(pfns[5]);
    assert_int_equal(rig_stats().free, 0);
    assert_int_equal(rig_alloc(PAGEBLOCK, EBB_UNMOVABLE, 0), pfns[5]);
    for (unsigned i = 0; i < 256 >> PAGEBLOCK; i++)
        put_block(pfns[i]);
}

static int moved(void *ctx, ebb_pfn_t from, ebb_pfn_t to, unsigned order)
{
    ebb_pfn_t *pfn = ctx;

    assert_int_equal(from, *pfn);
    assert_int_equal(order, PAGEBLOCK);
    *pfn = to;
    return 0;
}

static void a_range_is_evacuated_to_what_a_cache_has(void **state)
{
    ebb_pfn_t pfns[256 >> PAGEBLOCK];
    const struct ebb_migrate_ops ops = {.migrate = moved, .ctx = &pfns[0]};
    ebb_pfn_t range, room;

    (void)state;
    for (unsigned i = 0; i < 256 >> PAGEBLOCK; i++)
        pfns[i] = get_block(EBB_MOVABLE);
    range = pfns[0];
    room = pfns[5];
    assert_int_equal(ebb_isolate_range(zone, range, 1u << PAGEBLOCK), 0);
    put_block(room);
    assert_int_equal(rig_stats().free, 0);
    assert_int_equal(ebb_evacuate_range(zone, range, 1u << PAGEBLOCK, &ops), 0);
    assert_int_equal(pfns[0], room);
    assert_int_equal(ebb_putback_range(zone, range, 1u << PAGEBLOCK, EBB_MOVABLE), 0);
    for (unsigned i = 0; i < 256 >> PAGEBLOCK; i++) {
        if (i != 5)
            put_block(pfns[i]);
    }
}

static void expect_violation(const char *what)
{
    struct ebb_violation violation = {.what = ""};

    assert_int_equal(ebb_zone_check(zone, EBB_CHECK_FRAMES, &violation), -EBB_EFAULT);
    assert_int_equal(violation.invariant, 19);
    assert_string_equal(violation.what, what);
}

static void a_cache_that_holds_something_else_is_found(void **state)
{
    struct ebb_pcp *pcp = &zone->pcps[0];
    ebb_pfn_t pfn = get_block(EBB_MOVABLE);
    ebb_pfn_t others[EBB_PCP_BLOCKS];
    const uint32_t index = (uint32_t)(pfn - zone->base);

    (void)state;
    for (unsigned i = 0; i < EBB_PCP_BLOCKS; i++)
        others[i] = get_block(EBB_MOVABLE);
    put_block(pfn);
    pcp->blocks[0] = index ^ 1u << PAGEBLOCK;
    expect_violation("a cache holds a pageblock that is not cached");
    pcp->blocks[0] = UINT32_MAX;
    expect_violation("a cache holds a pageblock outside the zone");
    pcp->blocks[0] = index;
    pcp->n_blocks = EBB_PCP_BLOCKS + 1;
    expect_violation("a cache holds more than it may");
    pcp->n_blocks = 0;
    expect_violation("a cached frame is in no cache, or in two");
    pcp->n_blocks = 1;
    rig_check();
    for (unsigned i = 0; i < EBB_PCP_BLOCKS; i++)
        put_block(others[i]);
}

static void no_clearing(void *ctx, ebb_pfn_t pfn, uint64_t frames)
{
    (void)ctx;
    (void)pfn;
    (void)frames;
}

/* At most 1/64 of the managed memory; none where nothing may be guessed, or is filled. */
static void how_many_pageblocks(void **state)
{
    static const struct {
        uint64_t add;
        struct ebb_zone_config config;
        unsigned most;
    } cases[] = {
        {(64 << 9) - 1, {.cpus = 1}, 0},
        {64 << 9, {.cpus = 1}, 1},
        {64 << 9, {.cpus = 2}, 0},
        {448 << 9, {.cpus = 3}, 2},
        {1 << 20, {.cpus = 1}, EBB_PCP_BLOCKS},
        {1 << 20, {.pcp_blocks = EBB_PCP_NONE}, 0},
        {1 << 20, {.pcp_blocks = 3}, 3},
        {4096, {.pcp_blocks = 4}, 4},
        {1 << 20, {.fill_policy = EBB_FILL_ZERO, .clear = no_clearing}, 0},
        {1 << 20, {.shuffle_order = 9 + 1}, 0},
        {1 << 20, {.shuffle_order = 10 + 1}, EBB_PCP_BLOCKS},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ebb_zone_config one = cases[i].config;

        one.frames = 1 << 20;
        rig_done();
        rig_make(&one, false);
        assert_int_equal(ebb_zone_add(zone, 0, cases[i].add), 0);
        assert_int_equal(zone->pcp_most, cases[i].most);
    }
    assert_int_equal(ebb_isolate_range(zone, 0, 1 << 20), 0);
    assert_int_equal(ebb_zone_remove(zone, 0, (1 << 20) - 512), 0);
    assert_int_equal(zone->pcp_most, 0);
    assert_int_equal(ebb_putback_range(zone, (1 << 20) - 512, 512, EBB_MOVABLE), 0);
}

static void pageblocks_above_a_lower_limit_leave_the_cache(void **state)
{
    const struct ebb_zone_config large = {.frames = 128 << 9, .cpus = 1};
    ebb_pfn_t pfns[2];

    (void)state;
    rig_done();
    rig_make(&large, true);
    assert_int_equal(ebb_isolate_range(zone, 64 << 9, 64 << 9), 0);
    for (unsigned i = 0; i < 2; i++)
        pfns[i] = rig_alloc(9, EBB_MOVABLE, 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(ebb_free(zone, pfns[i], 9), 0);
    assert_int_equal(rig_stats().cached, 2 << 9);
    assert_int_equal(ebb_zone_remove(zone, 64 << 9, 64 << 9), 0);
    assert_int_equal(zone->pcp_most, 1);
    assert_true(rig_stats().cached <= 1 << 9);
}

#define TEST(f)        cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TEST_BLOCKS(f) cmocka_unit_test_setup_teardown(f, setup_blocks, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_empty_cache_takes_a_batch),
        TEST(the_cached_path_takes_one_lock),
        TEST(the_frame_freed_last_is_next),
        TEST(a_full_cache_gives_its_coldest_batch_back),
        TEST(no_cache_goes_past_it),
        TEST(each_type_has_its_own_stack),
        TEST(each_cpu_has_its_own_cache),
        TEST(a_cached_frame_cannot_be_freed_again),
        TEST(drained_frames_merge),
        TEST(only_idle_caches_are_drained_as_idle),
        TEST(a_drain_for_the_engine_asks_for_no_pass),
        TEST(a_refill_takes_small_blocks_first),
        TEST(a_refill_stops_at_the_watermark),
        TEST(a_refill_counts_refaults),
        TEST(isolated_frames_go_past_the_cache),
        TEST(other_types_give_one_frame_unless_the_pageblock_follows),
        TEST_BLOCKS(the_cached_pageblock_takes_one_lock),
        TEST_BLOCKS(a_cache_keeps_a_few_pageblocks),
        TEST_BLOCKS(a_cached_pageblock_cannot_be_freed_again),
        TEST_BLOCKS(idle_pageblocks_are_drained),
        TEST_BLOCKS(isolated_pageblocks_go_past_the_cache),
        TEST_BLOCKS(the_last_pageblock_is_found_in_a_cache),
        TEST_BLOCKS(a_range_is_evacuated_to_what_a_cache_has),
        TEST_BLOCKS(a_cache_that_holds_something_else_is_found),
        TEST(how_many_pageblocks),
        TEST(pageblocks_above_a_lower_limit_leave_the_cache),
    };

    return cmocka_run_group_tests_name("pcp", tests, NULL, NULL);
}
