/* SPDX-License-Identifier: BSD-2-Clause */
/* The contract of zone.h: making zones, allocating, freeing, isolating ranges. */
#define _GNU_SOURCE
#include "zone_rig.h"

#include <ebb/range.h>
#include <ebb/report.h>

#include <sys/mman.h>
#include <unistd.h>

#define BASE 0x1000u

/* 64 frames, largest order 4, pageblocks of 8. */
static const struct ebb_zone_config small = {
    .base = BASE, .frames = 64, .max_order = 4, .pageblock_order = 3};

static int setup(void **state)
{
    (void)state;
    rig_make(&small, true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_done();
    return 0;
}

static void release(ebb_pfn_t pfn, unsigned order)
{
    assert_int_equal(ebb_free(zone, pfn, order), 0);
}

static void put_in_flight(ebb_pfn_t pfn)
{
    ebb_port_lock(&zone->lock);
    assert_true(ebb__isolate_block(zone, (uint32_t)(pfn - zone->base)));
    ebb_port_unlock(&zone->lock);
}

static void put_back(ebb_pfn_t pfn, bool reported)
{
    ebb_port_lock(&zone->lock);
    ebb__put_back(zone, (uint32_t)(pfn - zone->base), reported);
    ebb_port_unlock(&zone->lock);
}

/* ---- configurations ---- */

static void impossible_configurations_are_refused(void **state)
{
    static const struct ebb_zone_config bad[] = {
        {.base = 0, .frames = 0},
        {.base = 0, .frames = ((uint64_t)1 << 32) + 1},
        {.base = 1, .frames = (uint64_t)1 << 32}, /* base is rounded down */
        {.base = (uint64_t)1 << 52, .frames = 1},
        {.base = ((uint64_t)1 << 52) - 1, .frames = 2},
        {.base = UINT64_MAX, .frames = 1},
        {.frames = UINT64_MAX},
        {.frames = 1, .max_order = EBB_ORDER_LIMIT + 1},
        {.frames = 1, .max_order = 4, .pageblock_order = 5},
        {.frames = 1, .pageblock_order = 11},
        {.frames = 1, .cpus = EBB_CPU_LIMIT + 1},
        {.frames = 1, .pcp_high = EBB_PCP_LIMIT + 1},
        {.frames = 1, .pcp_high = 8, .pcp_batch = 9},
        {.frames = 1, .pcp_batch = 193},
        {.frames = 1, .pcp_blocks = EBB_PCP_BLOCKS + 1},
        {.frames = 1, .watermark_min = 2, .watermark_low = 1},
        {.frames = 1, .watermark_min = UINT64_MAX},
        {.frames = 1, .watermark_low = ((uint64_t)1 << 32) + 1},
    };
    static _Alignas(64) char memory[64];
    struct ebb_zone other;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(ebb_zone_metadata_size(&bad[i]), 0);
        assert_int_equal(ebb_zone_init(&other, &bad[i], memory), -EBB_EINVAL);
    }
    assert_int_equal(ebb_zone_init(&other, &small, NULL), -EBB_EINVAL);
    assert_int_equal(ebb_zone_init(&other, &small, memory + 8), -EBB_EINVAL);
}

static void zero_means_default(void **state)
{
    struct ebb_zone_config config = {.base = 5, .frames = 3000};

    (void)state;
    rig_done();
    rig_make(&config, false);
    assert_int_equal(zone->max_order, 10);
    assert_int_equal(zone->pageblock_order, 9);
    assert_int_equal(zone->cpus, 1);
    assert_int_equal(zone->pcp_high, 192);
    assert_int_equal(zone->pcp_batch, 64);
    assert_int_equal(zone->watermark_low, 0);
    assert_int_equal(zone->base, 0);
    assert_int_equal(zone->first, 5);
    assert_int_equal(zone->span, 3005);
    assert_int_equal(rig_stats().managed, 0);
    rig_done();
    config =
        (struct ebb_zone_config){.frames = 3000, .max_order = 4, .pcp_high = 7, .watermark_min = 9};
    rig_make(&config, false);
    assert_int_equal(zone->pageblock_order, 4);
    assert_int_equal(zone->pcp_batch, 7);
    assert_int_equal(zone->watermark_low, 9);
}

static void metadata_is_at_most_16_bytes_a_frame(void **state)
{
    (void)state;
    for (unsigned max = 1; max <= EBB_ORDER_LIMIT; max++) {
        for (unsigned pageblock = 1; pageblock <= max; pageblock++) {
            struct ebb_zone_config config = {.frames = 1u << 20,
                                             .max_order = (uint8_t)max,
                                             .pageblock_order = (uint8_t)pageblock,
                                             .cpus = 1};
            size_t one = ebb_zone_metadata_size(&config);
            size_t frames = config.frames;

            config.cpus = 3;
            size_t cache = (ebb_zone_metadata_size(&config) - one) / 2;

            assert_in_range(one - cache, 6 * frames, 16 * frames);
        }
    }
}

/* ---- adding frames ---- */

static void frames_are_added_once_and_inside(void **state)
{
    struct ebb_zone_config config = {.base = BASE + 3, .frames = 50, .max_order = 4};

    (void)state;
    rig_done();
    rig_make(&config, false);
    assert_int_equal(ebb_zone_add(zone, BASE + 3, 0), -EBB_EINVAL);
    assert_int_equal(ebb_zone_add(zone, BASE + 2, 1), -EBB_EINVAL); /* below the span */
    assert_int_equal(ebb_zone_add(zone, BASE + 3, 51), -EBB_EINVAL);
    assert_int_equal(ebb_zone_add(zone, BASE + 53, 1), -EBB_EINVAL);
    assert_int_equal(ebb_zone_add(zone, BASE + 4, UINT64_MAX), -EBB_EINVAL);
    assert_int_equal(ebb_zone_add(zone, 0, 1), -EBB_EINVAL);
    assert_int_equal(rig_stats().managed, 0);

    assert_int_equal(ebb_zone_add(zone, BASE + 10, 7), 0);
    rig_check();
    for (ebb_pfn_t pfn = BASE + 3; pfn < BASE + 53; pfn++) {
        bool inside = pfn >= BASE + 10 && pfn < BASE + 17;

        assert_int_equal(rig_lookup(pfn).state, inside ? EBB_BLOCK_FREE : EBB_BLOCK_NONE);
        if (inside)
            assert_int_equal(ebb_zone_add(zone, pfn, 1), -EBB_EEXIST);
    }
    assert_int_equal(ebb_zone_add(zone, BASE + 3, 50), -EBB_EEXIST);
    assert_int_equal(ebb_zone_add(zone, BASE + 3, 8), -EBB_EEXIST);
    assert_int_equal(ebb_zone_add(zone, BASE + 16, 2), -EBB_EEXIST);
    assert_int_equal(rig_stats().managed, 7);
    rig_check();

    assert_int_equal(ebb_zone_add(zone, BASE + 17, 36), 0);
    assert_int_equal(ebb_zone_add(zone, BASE + 3, 7), 0);
    assert_int_equal(rig_stats().managed, 50);
    assert_int_equal(rig_stats().lists[4][EBB_MOVABLE].blocks, 2); /* merged */
}

/* Isolated, also by halves, and of another type, before there is any frame. */
static void prepare_pageblocks(void)
{
    assert_int_equal(ebb_isolate_range(zone, BASE + 4 * 16, 16), 0);
    assert_int_equal(ebb_isolate_range(zone, BASE + 5 * 16, 32), 0);
    assert_int_equal(ebb_isolate_range(zone, BASE + 8 * 16 + 8, 8), 0);
    assert_int_equal(ebb_isolate_range(zone, BASE + 10 * 16, 32), 0);
    assert_int_equal(ebb_putback_range(zone, BASE + 10 * 16, 32, EBB_UNMOVABLE), 0);
}

/* All that can be had, in order. */
static unsigned take_all(ebb_pfn_t *taken, unsigned most)
{
    unsigned n = 0;

    while (n < most && ebb_alloc(zone, 3, EBB_MOVABLE, 0, &taken[n]) == 0)
        n++;
    return n;
}

static void added_at_once_is_as_one_by_one(void **state)
{
    static const struct ebb_zone_config config = {
        .base = BASE, .frames = 16 * 16 + 5, .max_order = 4, .pageblock_order = 3};
    struct ebb_zone_stats stats[2];
    ebb_pfn_t taken[2][40];
    unsigned n[2];

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        rig_done();
        rig_make(&config, false);
        prepare_pageblocks();
        for (uint64_t at = 0; at < config.frames; at += i == 0 ? config.frames : 16)
            assert_int_equal(
                ebb_zone_add(zone, BASE + at, i == 0 || at == 256 ? config.frames - at : 16), 0);
        rig_check();
        stats[i] = rig_stats();
        n[i] = take_all(taken[i], 40);
        for (unsigned k = 0; k < n[i]; k++)
            release(taken[i][k], 3);
    }
    assert_int_equal(stats[0].free, config.frames);
    assert_int_equal(stats[0].isolated, 16 + 32 + 8);
    assert_memory_equal(&stats[0], &stats[1], sizeof(stats[0]));
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(taken[0], taken[1], n[0] * sizeof(taken[0][0]));
}

static void what_is_added_at_once_is_counted_for_a_pass(void **state)
{
    static struct ebb_report nobody; /* an engine that has no device, and does nothing */

    (void)state;
    rig_done();
    rig_make(&small, false);
    zone->source.report = &nobody;
    zone->report_order = zone->report_min_order = 4;
    zone->report_threshold = 3;
    assert_int_equal(ebb_zone_add(zone, BASE, 16), 0);
    assert_int_equal(zone->source.requested, 0);
    assert_int_equal(ebb_zone_add(zone, BASE + 16, 32), 0);
    assert_int_equal(zone->source.requested, 1);
    zone->report_order = zone->report_min_order = 0xff;
    zone->source.report = NULL;
}

static void frames_in_use_cannot_be_added_again(void **state)
{
    (void)state;
    ebb_pfn_t pfn = rig_alloc(4, EBB_MOVABLE, 0);

    assert_int_equal(ebb_zone_add(zone, pfn + 5, 1), -EBB_EEXIST);
    put_in_flight(BASE + 16);
    assert_int_equal(ebb_zone_add(zone, BASE + 17, 1), -EBB_EEXIST);
    put_back(BASE + 16, false);
    release(pfn, 4);
}

/* ---- allocating ---- */

static void bad_arguments_of_alloc(void **state)
{
    ebb_pfn_t pfn = 77;

    (void)state;
    assert_int_equal(ebb_alloc(zone, 5, EBB_MOVABLE, 0, &pfn), -EBB_EINVAL);
    assert_int_equal(ebb_alloc(zone, UINT32_MAX, EBB_MOVABLE, 0, &pfn), -EBB_EINVAL);
    assert_int_equal(ebb_alloc(zone, 0, EBB_ISOLATE, 0, &pfn), -EBB_EINVAL);
    assert_int_equal(ebb_alloc(zone, 0, (enum ebb_migratetype)9, 0, &pfn), -EBB_EINVAL);
    for (unsigned bit = 4; bit < 32; bit += bit == 4 ? 2 : 1) /* 5 is EBB_ALLOC_COLD */
        assert_int_equal(ebb_alloc(zone, 0, EBB_MOVABLE, 1u << bit, &pfn), -EBB_EINVAL);
    assert_int_equal(ebb_alloc(zone, 0, EBB_MOVABLE, EBB_ALLOC_LOW | EBB_ALLOC_RESERVE, &pfn),
                     -EBB_EINVAL);
    assert_int_equal(ebb_alloc(zone, 0, EBB_MOVABLE, EBB_ALLOC_ZERO, &pfn), -EBB_EINVAL);
    assert_int_equal(pfn, 77);
    assert_int_equal(rig_stats().allocs, 0);
    assert_int_equal(rig_stats().failures, 0);
}

static void every_frame_can_be_allocated_once(void **state)
{
    (void)state;
    for (unsigned order = 0; order <= 4; order++) {
        bool seen[64] = {false};
        ebb_pfn_t pfn = 0;

        for (unsigned n = 0; n < 64u >> order; n++) {
            pfn = rig_alloc(order, (enum ebb_migratetype)(n % 3), 0);
            assert_int_equal(pfn % (1u << order), 0);
            for (unsigned i = 0; i < 1u << order; i++) {
                assert_false(seen[pfn - BASE + i]);
                seen[pfn - BASE + i] = true;
            }
        }
        rig_check();
        assert_int_equal(rig_stats().allocated, 64);
        assert_int_equal(ebb_alloc(zone, order, EBB_MOVABLE, 0, &pfn), -EBB_ENOMEM);
        assert_int_equal(rig_stats().failures, order + 1);
        for (unsigned at = 0; at < 64; at += 1u << order)
            release(BASE + at, order);
        ebb_zone_drain(zone);
        assert_int_equal(rig_stats().free, 64);
    }
    assert_int_equal(rig_stats().allocs, 64 + 32 + 16 + 8 + 4);
    assert_int_equal(rig_stats().frees, 64 + 32 + 16 + 8 + 4);
}

static void no_type_fails_while_another_has_a_block(void **state)
{
    ebb_pfn_t pfn;

    (void)state;
    for (unsigned wants = 0; wants < 3; wants++) {
        for (unsigned has = 0; has < 3; has++) {
            assert_int_equal(ebb_isolate_range(zone, BASE, 64), 0);
            assert_int_equal(ebb_alloc(zone, 0, (enum ebb_migratetype)wants, 0, &pfn), -EBB_ENOMEM);
            assert_int_equal(ebb_putback_range(zone, BASE, 64, (enum ebb_migratetype)has), 0);
            for (unsigned order = 0; order <= 4; order++)
                release(rig_alloc(order, (enum ebb_migratetype)wants, 0), order);
            ebb_zone_drain(zone);
        }
    }
}

static void cached_frames_are_drained_before_an_allocation_fails(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 64; i++)
        (void)rig_alloc(0, EBB_MOVABLE, 0);
    for (unsigned i = 0; i < 16; i++)
        release(BASE + i, 0);
    assert_int_equal(rig_stats().cached, 16);
    assert_int_equal(rig_alloc(4, EBB_UNMOVABLE, 0), BASE);
    assert_int_equal(rig_stats().failures, 0);
    release(BASE, 4);
    for (unsigned i = 16; i < 64; i++)
        release(BASE + i, 0);
}

static struct {
    unsigned calls;
    ebb_pfn_t pfn;
    uint64_t frames;
} cleared;

static void clear(void *ctx, ebb_pfn_t pfn, uint64_t frames)
{
    assert_ptr_equal(ctx, &cleared);
    assert_int_equal(port_virtual.locks_held, 0);
    cleared.calls++;
    cleared.pfn = pfn;
    cleared.frames = frames;
}

static void zeroed_frames_are_asked_of_the_caller(void **state)
{
    struct ebb_zone_config config = small;

    (void)state;
    config.clear = clear;
    config.clear_ctx = &cleared;
    rig_done();
    rig_make(&config, true);
    memset(&cleared, 0, sizeof(cleared));
    release(rig_alloc(2, EBB_MOVABLE, 0), 2);
    assert_int_equal(cleared.calls, 0);
    ebb_pfn_t pfn = rig_alloc(2, EBB_MOVABLE, EBB_ALLOC_ZERO);

    assert_int_equal(cleared.calls, 1);
    assert_int_equal(cleared.pfn, pfn);
    assert_int_equal(cleared.frames, 4);
    release(pfn, 2);
    pfn = rig_alloc(0, EBB_MOVABLE, EBB_ALLOC_ZERO);
    assert_int_equal(cleared.calls, 2);
    assert_int_equal(cleared.pfn, pfn);
    assert_int_equal(cleared.frames, 1);
    release(pfn, 0);
    assert_int_equal(ebb_alloc_at(zone, BASE + 40, 3, EBB_ALLOC_ZERO), 0);
    assert_int_equal(cleared.pfn, BASE + 40);
    assert_int_equal(cleared.frames, 8);
    release(BASE + 40, 3);
}

static void the_reserve_is_kept(void **state)
{
    struct ebb_zone_config config = small;
    ebb_pfn_t pfn = 1;

    (void)state;
    config.watermark_min = 20;
    rig_done();
    rig_make(&config, true);
    ebb_pfn_t first = rig_alloc(4, EBB_MOVABLE, 0);
    ebb_pfn_t second = rig_alloc(4, EBB_MOVABLE, 0);

    assert_int_equal(ebb_alloc(zone, 4, EBB_MOVABLE, 0, &pfn), -EBB_ENOMEM);
    assert_int_equal(ebb_alloc_at(zone, BASE + 48, 4, 0), -EBB_ENOMEM);
    assert_int_equal(rig_stats().failures, 2);
    ebb_pfn_t third = rig_alloc(4, EBB_MOVABLE, EBB_ALLOC_RESERVE);

    assert_int_equal(ebb_alloc(zone, 0, EBB_MOVABLE, 0, &pfn), -EBB_ENOMEM);
    assert_int_equal(ebb_alloc_at(zone, BASE + 48, 0, EBB_ALLOC_RESERVE), 0);
    ebb_pfn_t fourth = rig_alloc(0, EBB_MOVABLE, EBB_ALLOC_RESERVE);

    release(BASE + 48, 0);
    release(fourth, 0);
    release(third, 4);
    release(second, 4);
    release(first, 4);
    ebb_zone_drain(zone);

    /* Down to the reserve exactly, frame by frame, cached or not; isolated
     * frames are no reserve. */
    assert_int_equal(ebb_isolate_range(zone, BASE, 8), 0);
    unsigned taken = 0;

    while (ebb_alloc(zone, 0, EBB_MOVABLE, 0, &pfn) == 0)
        taken++;
    assert_int_equal(taken, 64 - 8 - 20);
    for (unsigned i = 0; i < 64; i++) {
        if (rig_lookup(BASE + i).state == EBB_BLOCK_ALLOCATED)
            release(BASE + i, 0);
    }
    assert_int_equal(ebb_putback_range(zone, BASE, 8, EBB_MOVABLE), 0);
}

static void waiting_for_the_host_is_worth_it_only_if_it_would_help(void **state)
{
    ebb_pfn_t pfn;

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        (void)rig_alloc(4, EBB_MOVABLE, 0);
    assert_int_equal(ebb_alloc_at(zone, BASE + 48, 3, 0), 0);
    put_in_flight(BASE + 56);
    assert_int_equal(ebb_alloc(zone, 3, EBB_MOVABLE, 0, &pfn), -EBB_EAGAIN);
    assert_int_equal(ebb_alloc(zone, 0, EBB_MOVABLE, 0, &pfn), -EBB_EAGAIN);
    assert_int_equal(ebb_alloc(zone, 4, EBB_MOVABLE, 0, &pfn), -EBB_ENOMEM);
    release(BASE + 48, 3);
    assert_int_equal(ebb_alloc(zone, 4, EBB_MOVABLE, 0, &pfn), -EBB_EAGAIN); /* they would merge */
    put_back(BASE + 56, true);
    assert_int_equal(ebb_alloc(zone, 4, EBB_MOVABLE, 0, &pfn), 0);
    for (unsigned i = 0; i < 4; i++)
        release(BASE + 16 * i, 4);
}

/* ---- allocating a given block ---- */

static void bad_arguments_of_alloc_at(void **state)
{
    (void)state;
    assert_int_equal(ebb_alloc_at(zone, BASE + 1, 1, 0), -EBB_EINVAL);
    assert_int_equal(ebb_alloc_at(zone, BASE, 5, 0), -EBB_EINVAL);
    assert_int_equal(ebb_alloc_at(zone, BASE, 64, 0), -EBB_EINVAL);
    assert_int_equal(ebb_alloc_at(zone, BASE - 1, 0, 0), -EBB_EINVAL);
    assert_int_equal(ebb_alloc_at(zone, BASE + 64, 0, 0), -EBB_EINVAL);
    assert_int_equal(ebb_alloc_at(zone, 0, 0, 0), -EBB_EINVAL);
    assert_int_equal(ebb_alloc_at(zone, UINT64_MAX, 0, 0), -EBB_EINVAL);
    assert_int_equal(ebb_alloc_at(zone, BASE, 0, EBB_ALLOC_ZERO), -EBB_EINVAL);
    assert_int_equal(ebb_alloc_at(zone, BASE, 0, 1u << 31), -EBB_EINVAL);
    assert_int_equal(rig_stats().allocs, 0);
}

static void alloc_at_takes_exactly_that_block(void **state)
{
    (void)state;
    for (unsigned order = 0; order <= 4; order++) {
        for (unsigned at = 0; at < 64; at += 1u << order) {
            assert_int_equal(ebb_alloc_at(zone, BASE + at, order, EBB_ALLOC_NO_CACHE), 0);
            struct ebb_block block = rig_lookup(BASE + at);

            assert_int_equal(block.state, EBB_BLOCK_ALLOCATED);
            assert_int_equal(block.order, order);
            assert_int_equal(rig_stats().allocated, 1u << order);
            assert_int_equal(ebb_alloc_at(zone, BASE + at, order, 0), -EBB_EBUSY);
            rig_check();
            release(BASE + at, order);
        }
    }
}

static void alloc_at_says_why_not(void **state)
{
    (void)state;
    assert_int_equal(ebb_alloc_at(zone, BASE + 5, 0, 0), 0);
    assert_int_equal(ebb_alloc_at(zone, BASE, 3, 0), -EBB_EBUSY); /* in use */
    assert_int_equal(ebb_alloc_at(zone, BASE + 4, 0, 0), 0);
    release(BASE + 4, 0);
    assert_int_equal(rig_lookup(BASE + 4).state, EBB_BLOCK_CACHED);
    assert_int_equal(ebb_alloc_at(zone, BASE + 4, 0, 0), 0); /* a cache holds nothing back */
    release(BASE + 4, 0);
    release(BASE + 5, 0);
    ebb_zone_drain(zone);

    assert_int_equal(ebb_isolate_range(zone, BASE + 8, 8), 0);
    assert_int_equal(ebb_alloc_at(zone, BASE + 8, 0, 0), -EBB_EBUSY); /* isolated */
    assert_int_equal(ebb_alloc_at(zone, BASE, 4, 0), -EBB_EBUSY);     /* in part */
    assert_int_equal(ebb_putback_range(zone, BASE + 8, 8, EBB_MOVABLE), 0);

    assert_int_equal(ebb_alloc_at(zone, BASE, 3, 0), 0);
    put_in_flight(BASE + 8);
    assert_int_equal(ebb_alloc_at(zone, BASE + 8, 0, 0), -EBB_EAGAIN); /* with the host */
    assert_int_equal(ebb_alloc_at(zone, BASE, 4, 0), -EBB_EBUSY);      /* that would not help */
    release(BASE, 3);
    assert_int_equal(ebb_alloc_at(zone, BASE, 4, 0), -EBB_EAGAIN);
    put_back(BASE + 8, true);
}

static void alloc_at_in_a_hole(void **state)
{
    (void)state;
    rig_done();
    rig_make(&small, false);
    assert_int_equal(ebb_alloc_at(zone, BASE, 0, 0), -EBB_EBUSY);
    assert_int_equal(ebb_zone_add(zone, BASE, 12), 0);
    assert_int_equal(ebb_alloc_at(zone, BASE, 4, 0), -EBB_EBUSY);
    assert_int_equal(ebb_alloc_at(zone, BASE + 12, 2, 0), -EBB_EBUSY);
    assert_int_equal(ebb_alloc_at(zone, BASE + 8, 2, 0), 0);
    release(BASE + 8, 2);
}

/* ---- misuse ---- */

static void misuse_is_named_and_refused(void **state)
{
    (void)state;
    rig_done();
    rig_make(&small, false);
    assert_int_equal(ebb_zone_add(zone, BASE, 48), 0);
    struct ebb_misuse *told = &port_virtual.misuse;

    /* Not ours. */
    rig_misuse(BASE - 1, 0, EBB_MISUSE_FOREIGN_PFN);
    rig_misuse(BASE + 64, 0, EBB_MISUSE_FOREIGN_PFN);
    rig_misuse(UINT64_MAX, 3, EBB_MISUSE_FOREIGN_PFN);
    rig_misuse(0, 0, EBB_MISUSE_FOREIGN_PFN);
    rig_misuse(BASE + 50, 0, EBB_MISUSE_FOREIGN_PFN); /* a hole */
    rig_misuse(BASE + 48, 4, EBB_MISUSE_FOREIGN_PFN);

    /* Free. */
    rig_misuse(BASE + 16, 4, EBB_MISUSE_DOUBLE_FREE);
    assert_int_equal(told->found_pfn, BASE + 16);
    assert_int_equal(told->found, 4);
    rig_misuse(BASE + 19, 0, EBB_MISUSE_DOUBLE_FREE);
    assert_int_equal(told->found_pfn, BASE + 16);

    /* Allocated, but not like that. */
    ebb_pfn_t pfn = rig_alloc(2, EBB_MOVABLE, 0);

    rig_misuse(pfn, 3, EBB_MISUSE_WRONG_ORDER);
    assert_int_equal(told->found_pfn, pfn);
    assert_int_equal(told->found, 2);
    rig_misuse(pfn, 1, EBB_MISUSE_WRONG_ORDER);
    rig_misuse(pfn, 0, EBB_MISUSE_WRONG_ORDER);
    rig_misuse(pfn, 5, EBB_MISUSE_WRONG_ORDER);
    rig_misuse(pfn, 200, EBB_MISUSE_WRONG_ORDER);
    assert_int_equal(told->found, 2);
    rig_misuse(pfn + 1, 1, EBB_MISUSE_MISALIGNED);
    assert_int_equal(told->found_pfn, pfn);
    assert_int_equal(told->found, 2);
    rig_misuse(pfn + 2, 1, EBB_MISUSE_INSIDE_BLOCK);
    assert_int_equal(told->found_pfn, pfn);
    assert_int_equal(told->found, 2);
    rig_misuse(pfn + 3, 0, EBB_MISUSE_INSIDE_BLOCK);

    /* Cached. */
    ebb_pfn_t single = rig_alloc(0, EBB_MOVABLE, 0);

    release(single, 0);
    rig_misuse(single, 0, EBB_MISUSE_DOUBLE_FREE);
    assert_int_equal(told->found_pfn, single);
    assert_int_equal(told->found, 0);

    assert_int_equal(rig_stats().misuses, port_virtual.misuses);
    rig_check();
    release(pfn, 2);
    rig_misuse(pfn, 2, EBB_MISUSE_DOUBLE_FREE);
    assert_int_equal(rig_stats().allocated, 0);
    assert_int_equal(rig_stats().frees, 2);
}

/* ---- isolating ranges ---- */

static void bad_ranges_are_refused(void **state)
{
    (void)state;
    assert_int_equal(ebb_isolate_range(zone, BASE, 0), -EBB_EINVAL);
    assert_int_equal(ebb_isolate_range(zone, BASE + 4, 8), -EBB_EINVAL);
    assert_int_equal(ebb_isolate_range(zone, BASE, 12), -EBB_EINVAL);
    assert_int_equal(ebb_isolate_range(zone, BASE, 72), -EBB_EINVAL);
    assert_int_equal(ebb_isolate_range(zone, BASE - 8, 8), -EBB_EINVAL);
    assert_int_equal(ebb_isolate_range(zone, BASE + 64, 8), -EBB_EINVAL);
    assert_int_equal(ebb_isolate_range(zone, BASE, UINT64_MAX - 7), -EBB_EINVAL);
    assert_int_equal(ebb_putback_range(zone, BASE, 8, EBB_MOVABLE), -EBB_EINVAL);
    assert_int_equal(ebb_isolate_range(zone, BASE + 16, 16), 0);
    assert_int_equal(ebb_isolate_range(zone, BASE + 8, 16), -EBB_EBUSY);
    assert_int_equal(rig_stats().isolated, 16);
    assert_int_equal(ebb_putback_range(zone, BASE + 16, 16, EBB_ISOLATE), -EBB_EINVAL);
    assert_int_equal(ebb_putback_range(zone, BASE + 16, 24, EBB_MOVABLE), -EBB_EINVAL);
    assert_int_equal(rig_stats().isolated, 16);
    assert_int_equal(ebb_putback_range(zone, BASE + 16, 16, EBB_MOVABLE), 0);
    assert_int_equal(rig_stats().isolated, 0);
}

static void isolated_frames_are_out_of_reach(void **state)
{
    ebb_pfn_t pfn;

    (void)state;
    /* One frame is used; the cache holds the others of its pageblock. */
    ebb_pfn_t used = rig_alloc(0, EBB_MOVABLE, 0);
    ebb_pfn_t first = used & ~(ebb_pfn_t)7;

    assert_int_equal(ebb_isolate_range(zone, first, 8), 0);
    assert_int_equal(rig_stats().cached, 0);
    assert_int_equal(rig_stats().isolated, 7);
    for (unsigned i = 0; i < 56; i++) {
        pfn = rig_alloc(0, (enum ebb_migratetype)(i % 3), 0);
        assert_true(pfn < first || pfn >= first + 8);
    }
    assert_int_equal(ebb_alloc(zone, 0, EBB_MOVABLE, 0, &pfn), -EBB_ENOMEM);
    /* What is freed there stays there, past the cache. */
    release(used, 0);
    assert_int_equal(rig_stats().isolated, 8);
    assert_int_equal(rig_stats().cached, 0);
    assert_int_equal(ebb_alloc(zone, 0, EBB_MOVABLE, 0, &pfn), -EBB_ENOMEM);
    rig_check();
    assert_int_equal(ebb_putback_range(zone, first, 8, EBB_UNMOVABLE), 0);
    assert_int_equal(rig_lookup(first).type, EBB_UNMOVABLE);
    assert_int_equal(rig_alloc(3, EBB_MOVABLE, 0), first);
    release(first, 3);
    for (pfn = BASE; pfn < BASE + 64; pfn++) {
        if (pfn < first || pfn >= first + 8)
            release(pfn, 0);
    }
}

static void the_last_pageblock_may_be_cut_off(void **state)
{
    struct ebb_zone_config config = small;

    (void)state;
    config.frames = 61;
    rig_done();
    rig_make(&config, true);
    /* What lies behind the last state is none of its business. */
    zone->state[61] = ebb__state_word(EBB__FREE, 0, EBB_MOVABLE);
    assert_int_equal(ebb_isolate_range(zone, BASE + 56, 8), 0);
    assert_int_equal(rig_stats().isolated, 5);
    rig_check();
    assert_int_equal(ebb_isolate_range(zone, BASE + 64, 8), -EBB_EINVAL);
    assert_int_equal(ebb_putback_range(zone, BASE + 56, 8, EBB_MOVABLE), 0);
    assert_int_equal(ebb_isolate_range(zone, BASE, 64), 0);
    assert_int_equal(rig_stats().isolated, 61);
    assert_int_equal(ebb_putback_range(zone, BASE, 64, EBB_MOVABLE), 0);
}

static void what_the_host_has_is_isolated_when_it_comes_back(void **state)
{
    (void)state;
    put_in_flight(BASE + 16);
    assert_int_equal(ebb_isolate_range(zone, BASE, 64), 0);
    assert_int_equal(rig_stats().isolated, 48);
    put_back(BASE + 16, true);
    assert_int_equal(rig_stats().isolated, 64);
    assert_int_equal(rig_lookup(BASE + 16).reported, 1);
    assert_int_equal(ebb_putback_range(zone, BASE, 64, EBB_MOVABLE), 0);
    assert_int_equal(rig_stats().reported, 16);
}

/* ---- several zones, and the limits ---- */

static void zones_do_not_know_each_other(void **state)
{
    struct ebb_zone_config config = {.base = BASE + 64, .frames = 64, .max_order = 4};
    static _Alignas(64) unsigned char memory[8192];
    struct ebb_zone other = {.base = 0};
    ebb_pfn_t pfn;

    (void)state;
    memset(memory, 0, sizeof(memory));
    assert_true(ebb_zone_metadata_size(&config) <= sizeof(memory));
    assert_int_equal(ebb_zone_init(&other, &config, memory), 0);
    assert_int_equal(ebb_zone_add(&other, BASE + 64, 64), 0);
    assert_int_equal(ebb_alloc(&other, 4, EBB_MOVABLE, 0, &pfn), 0);
    rig_misuse(pfn, 4, EBB_MISUSE_FOREIGN_PFN);
    assert_int_equal(rig_stats().free, 64);
    assert_int_equal(ebb_free(&other, pfn, 4), 0);
    assert_int_equal(ebb_zone_check(&other, EBB_CHECK_FRAMES, NULL), 0);
}

static size_t resident_pages(void *memory, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t pages = (size + page - 1) / page;
    size_t resident = 0;
    unsigned char *map = malloc(pages);

    assert_non_null(map);
    assert_int_equal(mincore(memory, size, map), 0);
    for (size_t i = 0; i < pages; i++)
        resident += map[i] & 1;
    free(map);
    return resident;
}

static void make_huge(const struct ebb_zone_config *config)
{
    rig_done();
    rig.size = ebb_zone_metadata_size(config);
    if (rig.size == 0)
        skip(); /* no 64-bit address space */
    rig.metadata = mmap(NULL, rig.size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (rig.metadata == MAP_FAILED) {
        print_message("SKIP: no %zu MiB of address space\n", rig.size >> 20);
        rig.metadata = NULL;
        rig_make(&small, true); /* for the teardown */
        skip();
    }
    /* Else one descriptor would cost 2 MiB. */
    (void)madvise(rig.metadata, rig.size, MADV_NOHUGEPAGE);
    assert_int_equal(ebb_zone_init(zone, config, rig.metadata), 0);
}

static void unmake_huge(void)
{
    assert_int_equal(munmap(rig.metadata, rig.size), 0);
    rig.metadata = NULL;
    rig_make(&small, true);
}

static void init_of_16_tib_touches_nothing(void **state)
{
    struct ebb_zone_config config = {.base = 0, .frames = (uint64_t)1 << 32, .cpus = 4};

    (void)state;
    make_huge(&config);
    assert_int_equal(resident_pages(rig.metadata, rig.size), 0);
    /* 1 GiB in blocks of 4 MiB: a page of states each, and one of links. */
    assert_int_equal(ebb_zone_add(zone, (uint64_t)1 << 31, 1u << 18), 0);
    assert_in_range(resident_pages(rig.metadata, rig.size), 1, 2 * 256 + 4);
    unmake_huge();
}

static void a_zone_can_have_2_to_the_32_frames(void **state)
{
    struct ebb_zone_config config = {
        .base = (uint64_t)1 << 40, .frames = (uint64_t)1 << 32, .max_order = 18, .cpus = 1};
    const ebb_pfn_t end = config.base + config.frames;
    const size_t blocks = (size_t)(config.frames >> 18);
    struct ebb_violation violation;
    ebb_pfn_t pfn;

    (void)state;
    make_huge(&config);
    assert_int_equal(ebb_zone_add(zone, config.base, config.frames), 0);
    assert_int_equal(rig_stats().managed, (uint64_t)1 << 32);
    assert_int_equal(rig_stats().lists[18][EBB_MOVABLE].blocks, blocks);
    assert_int_equal(ebb_zone_add(zone, end - 1, 1), -EBB_EEXIST);
    /* One descriptor a block: two pages; besides the types, the marks and the counts per block. */
    assert_in_range(resident_pages(rig.metadata, rig.size), 1,
                    2 * blocks + (2 * ((size_t)1 << 32 >> 9) + 4 * blocks) / 4096 + 8);

    assert_int_equal(ebb_alloc_at(zone, end - 1, 0, 0), 0);
    assert_int_equal(ebb_alloc_at(zone, end - 2, 0, 0), 0);
    assert_int_equal(ebb_alloc_at(zone, config.base, 0, 0), 0);
    assert_int_equal(rig_lookup(end - 3).order, 1);
    assert_int_equal(rig_stats().allocated, 3);
    rig_misuse(end, 0, EBB_MISUSE_FOREIGN_PFN);
    rig_misuse(end - 4, 2, EBB_MISUSE_DOUBLE_FREE);
    assert_int_equal(ebb_isolate_range(zone, end - 1024, 1024), 0);
    assert_int_equal(rig_stats().isolated, 1022);
    release(end - 1, 0);
    release(end - 2, 0);
    release(config.base, 0);
    assert_int_equal(ebb_putback_range(zone, end - 1024, 1024, EBB_MOVABLE), 0);
    ebb_zone_drain(zone);
    assert_int_equal(rig_stats().lists[18][EBB_MOVABLE].blocks, blocks);
    for (size_t i = 0; i < blocks; i++)
        assert_int_equal(ebb_alloc(zone, 18, EBB_MOVABLE, 0, &pfn), 0);
    assert_int_equal(ebb_alloc(zone, 0, EBB_MOVABLE, 0, &pfn), -EBB_ENOMEM);
    for (size_t i = 0; i < blocks; i++)
        release(config.base + ((uint64_t)i << 18), 18);
    assert_int_equal(ebb_zone_check(zone, EBB_CHECK_LISTS, &violation), 0);
    unmake_huge();
}

static void a_lookup_outside_finds_nothing(void **state)
{
    (void)state;
    assert_int_equal(rig_lookup(BASE - 1).state, EBB_BLOCK_NONE);
    assert_int_equal(rig_lookup(BASE + 64).state, EBB_BLOCK_NONE);
    assert_int_equal(rig_lookup(UINT64_MAX).state, EBB_BLOCK_NONE);
    assert_int_equal(rig_lookup(BASE + 63).state, EBB_BLOCK_FREE);
}

static unsigned frames_cleared;

static void no_clearing(void *ctx, ebb_pfn_t pfn, uint64_t frames)
{
    (void)ctx;
    (void)pfn;
    frames_cleared += (unsigned)frames;
}

/* A watermark that refuses does not have everything merged that is lazy. */
static void a_watermark_refuses_at_once(void **state)
{
    static const struct ebb_zone_config config = {.frames = 1 << 16, .watermark_low = 1 << 16};
    ebb_pfn_t pfns[512], pfn;
    uint64_t locks;

    (void)state;
    rig_done();
    rig_make(&config, true);
    for (unsigned i = 0; i < 512; i++)
        pfns[i] = rig_alloc(0, EBB_MOVABLE, 0);
    for (unsigned i = 0; i < 512; i += 2)
        release(pfns[i], 0);
    assert_true(ebb__lazy(zone) > 0);
    locks = port_virtual.locks;
    assert_int_equal(ebb_alloc(zone, 0, EBB_MOVABLE, EBB_ALLOC_LOW | EBB_ALLOC_NO_CACHE, &pfn),
                     -EBB_ENOMEM);
    assert_true(port_virtual.locks - locks <= 3);
    assert_true(ebb__lazy(zone) > 0);
    for (unsigned i = 1; i < 512; i += 2)
        release(pfns[i], 0);
}

/* Refusals are as exact as one by one. */
static void a_list_is_freed(void **state)
{
    static const struct ebb_zone_config config = {.base = BASE, .frames = 1 << 12};
    ebb_pfn_t pfns[301];

    (void)state;
    rig_done();
    rig_make(&config, true);
    for (unsigned i = 0; i < 300; i++)
        pfns[i] = rig_alloc(0, i % 3 ? EBB_MOVABLE : EBB_UNMOVABLE, 0);
    assert_int_equal(ebb_free_many(zone, pfns, 0), 0);
    assert_int_equal(rig_stats().allocated, 300);
    assert_int_equal(ebb_free_many(zone, pfns, 100), 0);
    assert_int_equal(rig_stats().allocated, 200);
    rig_check();
    /* Twice in a list, one that is free, one outside, and one in the middle of a block. */
    pfns[300] = pfns[299];
    pfns[110] = pfns[3];
    pfns[150] = BASE - 1;
    pfns[151] = UINT64_MAX;
    assert_int_equal(ebb_free_many(zone, pfns + 100, 201), -EBB_EINVAL);
    assert_int_equal(port_virtual.misuses, 4);
    assert_int_equal(rig_stats().misuses, 4);
    assert_int_equal(rig_stats().allocated, 3); /* those whose places the wrong ones took */
    rig_check();
    port_virtual.misuses = 0;
    for (ebb_pfn_t pfn = BASE; pfn < BASE + (1 << 12); pfn++) {
        struct ebb_block block;

        ebb_zone_lookup(zone, pfn, &block);
        if (block.state == EBB_BLOCK_ALLOCATED)
            release(pfn, 0);
    }
}

static void a_list_is_filled(void **state)
{
    struct ebb_zone_config config = {
        .base = BASE, .frames = 256, .fill_policy = EBB_FILL_ZERO, .clear = no_clearing};
    ebb_pfn_t pfns[100];

    (void)state;
    rig_done();
    rig_make(&config, true);
    for (unsigned i = 0; i < 100; i++)
        pfns[i] = rig_alloc(0, EBB_MOVABLE, 0);
    frames_cleared = 0;
    assert_int_equal(ebb_free_many(zone, pfns, 100), 0);
    assert_int_equal(frames_cleared, 100);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(impossible_configurations_are_refused),
        TEST(zero_means_default),
        TEST(metadata_is_at_most_16_bytes_a_frame),
        TEST(frames_are_added_once_and_inside),
        TEST(added_at_once_is_as_one_by_one),
        TEST(what_is_added_at_once_is_counted_for_a_pass),
        TEST(frames_in_use_cannot_be_added_again),
        TEST(a_watermark_refuses_at_once),
        TEST(a_list_is_freed),
        TEST(a_list_is_filled),
        TEST(bad_arguments_of_alloc),
        TEST(every_frame_can_be_allocated_once),
        TEST(no_type_fails_while_another_has_a_block),
        TEST(cached_frames_are_drained_before_an_allocation_fails),
        TEST(zeroed_frames_are_asked_of_the_caller),
        TEST(the_reserve_is_kept),
        TEST(waiting_for_the_host_is_worth_it_only_if_it_would_help),
        TEST(bad_arguments_of_alloc_at),
        TEST(alloc_at_takes_exactly_that_block),
        TEST(alloc_at_says_why_not),
        TEST(alloc_at_in_a_hole),
        TEST(misuse_is_named_and_refused),
        TEST(bad_ranges_are_refused),
        TEST(isolated_frames_are_out_of_reach),
        TEST(the_last_pageblock_may_be_cut_off),
        TEST(what_the_host_has_is_isolated_when_it_comes_back),
        TEST(zones_do_not_know_each_other),
        TEST(init_of_16_tib_touches_nothing),
        TEST(a_zone_can_have_2_to_the_32_frames),
        TEST(a_lookup_outside_finds_nothing),
    };

    return cmocka_run_group_tests_name("zone", tests, NULL, NULL);
}
