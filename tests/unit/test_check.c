/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ebb_zone_check() finds what it says it finds: each test breaks one thing in
 * the metadata of a sound zone, sees it named at the level that promises it and
 * not below, and mends it.
 */
#include "zone_rig.h"

#include <ebb/range.h>

#define BASE 0x1000u

/*
 * 64 frames, largest order 4, pageblocks of 8:
 *   0  allocated, order 4        16 free, order 4, reported
 *   32 free, order 3             40 in flight, order 3
 *   48 free, isolated, order 3   56 two cached, two allocated, free 4 (order 2)
 */
static const struct ebb_zone_config config = {
    .base = BASE, .frames = 64, .max_order = 4, .pageblock_order = 3, .cpus = 2, .pcp_high = 4};

static int setup(void **state)
{
    (void)state;
    rig_make(&config, true);
    assert_int_equal(ebb_alloc_at(zone, BASE, 4, 0), 0);
    rig_report(BASE + 16);
    assert_int_equal(ebb_alloc_at(zone, BASE + 32, 3, 0), 0);
    ebb_port_lock(&zone->lock);
    assert_true(ebb__isolate_block(zone, 40));
    ebb_port_unlock(&zone->lock);
    assert_int_equal(ebb_free(zone, BASE + 32, 3), 0);
    assert_int_equal(ebb_isolate_range(zone, BASE + 48, 8), 0);
    for (unsigned i = 56; i < 60; i++)
        assert_int_equal(ebb_alloc_at(zone, BASE + i, 0, 0), 0);
    assert_int_equal(ebb_free(zone, BASE + 56, 0), 0);
    assert_int_equal(ebb_free(zone, BASE + 57, 0), 0);
    rig_check();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_check(); /* mended */
    assert_int_equal(ebb_free(zone, BASE, 4), 0);
    ebb_port_lock(&zone->lock);
    ebb__put_back(zone, 40, false);
    ebb_port_unlock(&zone->lock);
    assert_int_equal(ebb_putback_range(zone, BASE + 48, 8, EBB_MOVABLE), 0);
    assert_int_equal(ebb_free(zone, BASE + 58, 0), 0);
    assert_int_equal(ebb_free(zone, BASE + 59, 0), 0);
    ebb_zone_drain(zone);
    assert_int_equal(rig_stats().free, 64);
    rig_done();
    return 0;
}

/* Broken at `level` and above: that invariant; below: nothing to be seen. */
static void expect(unsigned invariant, enum ebb_check_level level, ebb_pfn_t pfn)
{
    for (unsigned at = EBB_CHECK_COUNTERS; at <= EBB_CHECK_FRAMES; at++) {
        struct ebb_violation violation = {.invariant = 99};
        int err = ebb_zone_check(zone, (enum ebb_check_level)at, &violation);

        assert_int_equal(ebb_zone_check(zone, (enum ebb_check_level)at, NULL), err);
        if (at < level) {
            assert_int_equal(err, 0);
            continue;
        }
        assert_int_equal(err, -EBB_EFAULT);
        assert_int_equal(violation.invariant, invariant);
        assert_int_equal(violation.pfn, pfn);
        assert_non_null(violation.what);
    }
    assert_int_equal(port_virtual.locks_held, 0);
}

/* Break `lvalue` by setting it, expect a violation, and mend it. */
#define BROKEN(lvalue, value, invariant, level, pfn) \
    do {                                             \
        __typeof__(lvalue) kept = (lvalue);          \
        (lvalue) = (__typeof__(lvalue))(value);      \
        expect(invariant, level, pfn);               \
        (lvalue) = kept;                             \
    } while (0)

static uint16_t word(enum ebb__state kind, unsigned order, unsigned type)
{
    return ebb__state_word(kind, order, type);
}

/* ---- level 1 ---- */

static void counters(void **state)
{
    struct ebb_free_list *list = &zone->lists[3][EBB_MOVABLE];

    (void)state;
    BROKEN(zone->free, zone->free + 1, 5, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->isolated, 0, 5, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->reported, 8, 5, EBB_CHECK_COUNTERS, 0);
    BROKEN(list->blocks, 2, 5, EBB_CHECK_COUNTERS, 0);
    BROKEN(list->reported, 1, 5, EBB_CHECK_COUNTERS, 0);
    BROKEN(list->reported, 2, 1, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->managed, 20, 2, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->managed, 65, 2, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->in_flight, 60, 2, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->pcps[1].count[0], 40, 2, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->nonempty[EBB_MOVABLE], 0, 16, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->nonempty[EBB_UNMOVABLE], 1, 16, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->nonempty[EBB_ISOLATE], 1u << 31 | 1u << 3, 16, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->lists[5][0].blocks, 1, 14, EBB_CHECK_COUNTERS, 0);
}

/* What surplus pacing counts by. */
static void pacing_counters(void **state)
{
    (void)state;
    /* 32 (order 3), 60 (order 2) are warm, 16 (order 4) is reported. */
    assert_int_equal(zone->warm[EBB_MOVABLE], 1u << 3 | 1u << 2);
    BROKEN(zone->warm[EBB_MOVABLE], 1u << 3, 21, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->warm[EBB_MOVABLE], 1u << 4 | 1u << 3 | 1u << 2, 21, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->warm[EBB_RECLAIMABLE], 1, 21, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->warm[EBB_ISOLATE], 0, 21, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->warm[EBB_UNMOVABLE], 1u << 31, 21, EBB_CHECK_COUNTERS, 0);
    /* The only large block is reported; then it is not. */
    assert_int_equal(zone->level.now, 0);
    BROKEN(zone->level.now, 16, 22, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->level.low, 1, 22, EBB_CHECK_COUNTERS, 0);
    assert_int_equal(ebb_alloc_at(zone, BASE + 16, 4, 0), 0);
    assert_int_equal(ebb_free(zone, BASE + 16, 4), 0);
    assert_int_equal(zone->level.now, 16);
    BROKEN(zone->level.now, 0, 22, EBB_CHECK_COUNTERS, 0);
    BROKEN(zone->level.low, 17, 22, EBB_CHECK_COUNTERS, 0);
    /* Isolated it does not count. */
    assert_int_equal(ebb_isolate_range(zone, BASE + 16, 16), 0);
    assert_int_equal(zone->level.now, 0);
    BROKEN(zone->level.now, 16, 22, EBB_CHECK_COUNTERS, 0);
    assert_int_equal(ebb_putback_range(zone, BASE + 16, 16, EBB_MOVABLE), 0);
    rig_report(BASE + 16);
}

/* ---- level 2 ---- */

static void marks_on_a_list(void **state)
{
    (void)state;
    BROKEN(zone->state[16], zone->state[16] & ~EBB__REPORTED, 5, EBB_CHECK_LISTS, 0);
    BROKEN(zone->state[32], zone->state[32] | EBB__REPORTED, 5, EBB_CHECK_LISTS, 0);
}

static void rings(void **state)
{
    /* Two blocks on one list. */
    (void)state;
    assert_int_equal(ebb_alloc_at(zone, BASE + 34, 0, 0), 0);
    assert_int_equal(ebb_alloc_at(zone, BASE + 32, 0, 0), 0);
    assert_int_equal(zone->lists[0][EBB_MOVABLE].blocks, 2); /* 33 and 35 */
    assert_int_equal(zone->lists[0][EBB_MOVABLE].head, 33);
    rig_check();
    BROKEN(zone->links[33 >> 1].next, 33, 13, EBB_CHECK_LISTS, BASE + 33);
    BROKEN(zone->links[33 >> 1].next, 60, 13, EBB_CHECK_LISTS, BASE + 33);
    BROKEN(zone->links[33 >> 1].next, 64, 13, EBB_CHECK_LISTS, BASE + 33);
    BROKEN(zone->links[33 >> 1].prev, 60, 13, EBB_CHECK_LISTS, BASE + 35);
    BROKEN(zone->links[35 >> 1].prev, 35, 13, EBB_CHECK_LISTS, BASE + 33);
    BROKEN(zone->lists[0][EBB_MOVABLE].head, UINT32_MAX, 13, EBB_CHECK_LISTS, BASE);
    BROKEN(zone->lists[0][EBB_MOVABLE].head, 60, 10, EBB_CHECK_LISTS, BASE + 60);
    BROKEN(zone->lists[0][EBB_MOVABLE].head, 34, 10, EBB_CHECK_LISTS, BASE + 34);
    BROKEN(zone->state[35], word(EBB__ALLOCATED, 0, 0), 13, EBB_CHECK_LISTS, BASE + 35);
    BROKEN(zone->state[33], word(EBB__FREE, 0, EBB_UNMOVABLE), 10, EBB_CHECK_LISTS, BASE + 33);
    BROKEN(zone->state[33], EBB__NONE, 10, EBB_CHECK_LISTS, BASE + 33);

    /* A ring that closes early, with all neighbours in order. */
    struct ebb_link kept[2] = {zone->links[33 >> 1], zone->links[35 >> 1]};

    zone->links[33 >> 1] = (struct ebb_link){33, 33};
    expect(13, EBB_CHECK_LISTS, BASE + 33);
    zone->links[33 >> 1] = kept[0];
    assert_int_equal(ebb_free(zone, BASE + 32, 0), 0);
    assert_int_equal(ebb_free(zone, BASE + 34, 0), 0);
    ebb_zone_drain(zone);
}

/* A list that counts fewer blocks than its ring has, all sums adjusted. */
static void a_list_that_counts_wrong(void **state)
{
    (void)state;
    assert_int_equal(ebb_alloc_at(zone, BASE + 34, 0, 0), 0);
    assert_int_equal(ebb_alloc_at(zone, BASE + 32, 0, 0), 0);
    zone->lists[0][EBB_MOVABLE].blocks = 1;
    zone->free--;
    expect(13, EBB_CHECK_LISTS, BASE + 33);
    zone->lists[0][EBB_MOVABLE].blocks = 2;
    zone->free++;
    assert_int_equal(ebb_free(zone, BASE + 32, 0), 0);
    assert_int_equal(ebb_free(zone, BASE + 34, 0), 0);
    ebb_zone_drain(zone);
}

static void blocks_on_lists(void **state)
{
    (void)state;
    /* Misaligned: the block at 32 moved by one frame. */
    struct ebb_free_list *list = &zone->lists[3][EBB_MOVABLE];
    uint16_t moved = zone->state[32];
    struct ebb_link link = zone->links[32 >> 1];

    zone->state[33] = moved;
    zone->state[32] = EBB__NONE;
    zone->links[33 >> 1] = (struct ebb_link){33, 33};
    list->head = 33;
    expect(14, EBB_CHECK_LISTS, BASE + 33);
    zone->state[33] = EBB__NONE;
    zone->state[32] = moved;
    list->head = 32;
    zone->links[32 >> 1] = link;

    BROKEN(zone->state[32], word(EBB__IN_FLIGHT, 3, 0), 3, EBB_CHECK_LISTS, BASE + 32);
}

static void a_block_beyond_the_span(void **state)
{
    (void)state;
    /* In a list by itself, so that the walk gets there before anything else breaks. */
    assert_int_equal(zone->lists[2][EBB_MOVABLE].blocks, 1);
    assert_int_equal(zone->lists[2][EBB_MOVABLE].head, 60);
    zone->span = zone->managed = 62;
    expect(14, EBB_CHECK_LISTS, BASE + 60);
    zone->span = zone->managed = 64;
}

static void unmerged_buddies(void **state)
{
    (void)state;
    /* 40 comes back behind the allocator's back: 32 and 40 both free. */
    ebb_port_lock(&zone->lock);
    zone->in_flight -= 8;
    zone->state[40] = EBB__NONE;
    ebb__link(zone, 40, 3, EBB_MOVABLE, false, EBB__TAIL);
    ebb_port_unlock(&zone->lock);
    expect(15, EBB_CHECK_LISTS, BASE + 32);
    ebb_port_lock(&zone->lock);
    ebb__unlink(zone, 40);
    zone->state[40] = word(EBB__IN_FLIGHT, 3, 0);
    zone->in_flight += 8;
    ebb_port_unlock(&zone->lock);
}

static void types_of_pageblocks(void **state)
{
    (void)state;
    BROKEN(zone->types[4], EBB_UNMOVABLE, 17, EBB_CHECK_LISTS, BASE + 32);
    BROKEN(zone->types[4], EBB_ISOLATE, 17, EBB_CHECK_LISTS, BASE + 32);
    BROKEN(zone->types[6], EBB_MOVABLE, 17, EBB_CHECK_LISTS, BASE + 48);
    BROKEN(zone->types[3], EBB_ISOLATE, 17, EBB_CHECK_LISTS, BASE + 16); /* second half */
    BROKEN(zone->types[1], 4, 17, EBB_CHECK_FRAMES, BASE + 8);
}

static void caches(void **state)
{
    struct ebb_pcp *pcp = &zone->pcps[0];

    (void)state;
    assert_int_equal(pcp->count[EBB_MOVABLE], 2);
    BROKEN(pcp->frames[0][1], 64, 19, EBB_CHECK_LISTS, BASE);
    BROKEN(pcp->frames[0][1], 58, 19, EBB_CHECK_LISTS, BASE + 58); /* allocated */
    BROKEN(pcp->frames[0][1], 60, 19, EBB_CHECK_LISTS, BASE + 60); /* free */
    BROKEN(pcp->frames[0][1], 40, 3, EBB_CHECK_LISTS, BASE + 40);  /* with the host */
    BROKEN(pcp->frames[0][1], 56, 19, EBB_CHECK_FRAMES, 0);        /* twice the same, 57 lost */
    BROKEN(pcp->count[0], 5, 19, EBB_CHECK_LISTS, 0);
    BROKEN(pcp->count[0], 1, 19, EBB_CHECK_FRAMES, 0);
    /* A frame in two caches. */
    zone->pcps[1].frames[2][0] = 57;
    BROKEN(zone->pcps[1].count[2], 1, 19, EBB_CHECK_FRAMES, 0);
}

/* ---- level 3 ---- */

static void states(void **state)
{
    (void)state;
    BROKEN(zone->state[0], zone->state[0] | EBB__REPORTED, 1, EBB_CHECK_FRAMES, BASE);
    BROKEN(zone->state[40], zone->state[40] | EBB__REPORTED, 1, EBB_CHECK_FRAMES, BASE + 40);
    BROKEN(zone->state[0], zone->state[0] | 0x0800, 20, EBB_CHECK_FRAMES, BASE);
    BROKEN(zone->state[0], word((enum ebb__state)6, 4, 0), 20, EBB_CHECK_FRAMES, BASE);
    BROKEN(zone->state[0], word(EBB__FILLING, 4, 1), 20, EBB_CHECK_FRAMES, BASE);
    BROKEN(zone->state[0], 4, 20, EBB_CHECK_FRAMES, BASE);
    BROKEN(zone->state[40], word(EBB__IN_FLIGHT, 3, 1), 20, EBB_CHECK_FRAMES, BASE + 40);
    BROKEN(zone->state[0], word(EBB__ALLOCATED, 5, 0), 14, EBB_CHECK_FRAMES, BASE);
    BROKEN(zone->state[0], word(EBB__CACHED, 4, 0), 14, EBB_CHECK_FRAMES, BASE);
    BROKEN(zone->state[58], word(EBB__ALLOCATED, 2, 0), 14, EBB_CHECK_FRAMES, BASE + 58);
    BROKEN(zone->state[5], word(EBB__ALLOCATED, 0, 0), 14, EBB_CHECK_FRAMES, BASE);
    BROKEN(zone->state[20], word(EBB__CACHED, 0, 0), 14, EBB_CHECK_FRAMES, BASE + 16);
    BROKEN(zone->state[58], word(EBB__CACHED, 0, 0), 19, EBB_CHECK_FRAMES, 0);
    BROKEN(zone->state[58], word(EBB__FREE, 0, 0), 13, EBB_CHECK_FRAMES, 0);
    BROKEN(zone->state[58], word(EBB__IN_FLIGHT, 0, 0), 3, EBB_CHECK_FRAMES, 0);
    BROKEN(zone->state[40], word(EBB__ALLOCATED, 3, 0), 3, EBB_CHECK_FRAMES, 0);
}

/* Pageblocks are counted by 16 frames: 32 to 47 has 8 in one block, 48 to 63 has an isolated block
 * of 8, and one of 4. */
static void pageblocks(void **state)
{
    (void)state;
    assert_int_equal(zone->large_order, 4);
    assert_int_equal(zone->pageblocks[2].frames, 8);
    assert_int_equal(zone->pageblocks[2].blocks, 1);
    assert_int_equal(zone->pageblocks[3].frames, 12);
    assert_int_equal(zone->pageblocks[3].blocks, 2);
    assert_int_equal(zone->pageblock_bits[0], 0xc);
    BROKEN(zone->pageblocks[2].frames, 9, 23, EBB_CHECK_FRAMES, BASE + 32);
    BROKEN(zone->pageblocks[2].frames, 0, 23, EBB_CHECK_FRAMES, BASE + 32);
    BROKEN(zone->pageblocks[3].blocks, 1, 23, EBB_CHECK_FRAMES, BASE + 48);
    BROKEN(zone->pageblocks[0].blocks, 1, 23, EBB_CHECK_FRAMES, BASE);
    BROKEN(zone->pageblocks[1].frames, 16, 23, EBB_CHECK_FRAMES,
           BASE + 16); /* reported, and large */
    BROKEN(zone->pageblock_bits[0], 0x8, 24, EBB_CHECK_LISTS, BASE + 32);
    BROKEN(zone->pageblock_bits[0], 0x4, 24, EBB_CHECK_LISTS, BASE + 60);
    /* A bit too many is cleared by the next pass. */
    zone->pageblock_bits[0] |= 1;
    rig_check();
    zone->pageblock_bits[0] &= ~(uint64_t)1;
}

static void present_counts(void **state)
{
    (void)state;
    BROKEN(zone->present[0], 15, 18, EBB_CHECK_FRAMES, BASE);
    BROKEN(zone->present[3], 17, 18, EBB_CHECK_FRAMES, BASE + 48);
    BROKEN(zone->state[58], EBB__NONE, 18, EBB_CHECK_FRAMES, BASE + 48);
    BROKEN(zone->managed, 63, 2, EBB_CHECK_FRAMES, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(counters),
        TEST(pacing_counters),
        TEST(marks_on_a_list),
        TEST(rings),
        TEST(a_list_that_counts_wrong),
        TEST(blocks_on_lists),
        TEST(a_block_beyond_the_span),
        TEST(unmerged_buddies),
        TEST(types_of_pageblocks),
        TEST(caches),
        TEST(states),
        TEST(pageblocks),
        TEST(present_counts),
    };

    return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}
