/* SPDX-License-Identifier: BSD-2-Clause */
/* Frames that are free and merged with nothing yet (lazy.c). */
#include "zone_rig.h"

#include <ebb/range.h>

#define BASE  0x10000u
#define UNIT  512u
#define UNITS 8u
#define BATCH 16u

static const struct ebb_zone_config config = {.base = BASE,
                                              .frames = UNITS * UNIT,
                                              .max_order = 10,
                                              .pageblock_order = 9,
                                              .pcp_high = BATCH,
                                              .pcp_batch = BATCH};

static bool taken[UNITS * UNIT];

static void take(uint32_t index)
{
    assert_int_equal(ebb_alloc_at(zone, BASE + index, 0, 0), 0);
    assert_false(taken[index]);
    taken[index] = true;
}

static void give(uint32_t index)
{
    assert_int_equal(ebb_free(zone, BASE + index, 0), 0);
    assert_true(taken[index]);
    taken[index] = false;
}

static int setup(void **state)
{
    (void)state;
    memset(taken, 0, sizeof(taken));
    rig_make(&config, true);
    for (uint32_t i = 0; i < UNITS * UNIT; i++)
        take(i);
    return 0;
}

static int teardown(void **state)
{
    uint64_t blocks = 0;

    (void)state;
    for (uint32_t i = 0; i < UNITS * UNIT; i++) {
        if (taken[i])
            give(i);
    }
    ebb_zone_drain(zone);
    assert_int_equal(ebb__lazy(zone), 0);
    for (unsigned type = 0; type < EBB_ISOLATE; type++)
        blocks += rig_stats().lists[10][type].blocks;
    assert_int_equal(blocks, UNITS / 2);
    rig_done();
    return 0;
}

/* Out of the cache, which keeps them in the order in which they came. */
static void empty_cache(void)
{
    (void)ebb__drain_caches(zone, false, true);
}

static void give_some(uint32_t from, uint32_t to, uint32_t step)
{
    for (uint32_t i = from; i < to; i += step)
        give(i);
    empty_cache();
}

static void expect(uint32_t index, enum ebb_block_state state, unsigned order)
{
    struct ebb_block block = rig_lookup(BASE + index);

    assert_int_equal(block.state, state);
    assert_int_equal(block.order, order);
}

static void freed_frames_are_lazy(void **state)
{
    (void)state;
    give_some(0, UNIT / 2, 1);
    assert_int_equal(zone->lazy[EBB_MOVABLE], UNIT / 2);
    assert_int_equal(rig_stats().free, UNIT / 2);
    assert_int_equal(rig_stats().lists[0][EBB_MOVABLE].blocks, UNIT / 2);
    expect(1, EBB_BLOCK_FREE, 0);
    rig_check();
    ebb_zone_drain(zone);
    expect(0, EBB_BLOCK_FREE, 8);
    assert_int_equal(ebb__lazy(zone), 0);
}

static void a_whole_unit_merges_at_once(void **state)
{
    (void)state;
    give_some(0, UNIT, 2);
    give_some(1, UNIT - 2, 2);
    assert_int_equal(ebb__lazy(zone), UNIT - 1);
    rig_check();
    give(UNIT - 1);
    empty_cache();
    assert_int_equal(ebb__lazy(zone), 0);
    expect(0, EBB_BLOCK_FREE, 9);
    /* And with its neighbour. */
    give_some(UNIT, 2 * UNIT, 1);
    expect(0, EBB_BLOCK_FREE, 10);
}

/* The last one is freed past the cache, or is a larger block, or comes with a reported one. */
static void whoever_frees_the_last_merges(void **state)
{
    (void)state;
    for (uint32_t i = UNIT - 8; i < UNIT; i++)
        give(i);
    ebb_zone_drain(zone);
    assert_int_equal(ebb_alloc_at(zone, BASE + UNIT - 8, 3, 0), 0);
    give_some(0, UNIT - 8, 1);
    assert_int_equal(ebb__lazy(zone), UNIT - 8);
    assert_int_equal(ebb_free(zone, BASE + UNIT - 8, 3), 0);
    expect(0, EBB_BLOCK_FREE, 9);
    assert_int_equal(ebb__lazy(zone), 0);

    for (uint32_t i = UNIT; i < UNIT + 8; i++)
        give(i);
    ebb_zone_drain(zone);
    expect(UNIT, EBB_BLOCK_FREE, 3);
    rig_report(BASE + UNIT);
    rig_check();
    give_some(UNIT + 8, 2 * UNIT, 1);
    assert_int_equal(ebb__lazy(zone), 0);
    expect(0, EBB_BLOCK_FREE, 10);
}

/* The host answers, and what it had completes a pageblock. */
static void put_back_completes_a_unit(void **state)
{
    (void)state;
    for (uint32_t i = UNIT - 8; i < UNIT; i++)
        give(i);
    ebb_zone_drain(zone);
    ebb_port_lock(&zone->lock);
    assert_true(ebb__isolate_block(zone, UNIT - 8));
    ebb_port_unlock(&zone->lock);
    give_some(0, UNIT - 8, 1);
    assert_int_equal(ebb__lazy(zone), UNIT - 8);
    ebb_port_lock(&zone->lock);
    ebb__put_back(zone, UNIT - 8, true);
    ebb_port_unlock(&zone->lock);
    expect(0, EBB_BLOCK_FREE, 9);
    assert_int_equal(ebb__lazy(zone), 0);
}

static void allocation_takes_from_the_fullest(void **state)
{
    uint32_t from[UNITS] = {0};

    (void)state;
    give_some(0, 100, 1);
    give_some(UNIT, UNIT + 3, 1);
    give_some(2 * UNIT, 2 * UNIT + 40, 1);
    for (uint32_t i = 0; i < BATCH; i++) {
        uint32_t index = (uint32_t)(rig_alloc(0, EBB_MOVABLE, 0) - BASE);

        assert_false(taken[index]);
        taken[index] = true;
        from[index / UNIT]++;
    }
    assert_int_equal(from[1], 3);
    assert_int_equal(from[2], BATCH - 3);
    assert_int_equal(zone->lazy[EBB_MOVABLE], 100 + 40 - (BATCH - 3));
    rig_check();
}

/* No frame is free but these; whoever asks and however, they are merged for him. */
static void a_larger_block_is_found_in_them(void **state)
{
    static const struct {
        unsigned order, flags;
        enum ebb_migratetype type;
    } rows[] = {{3, 0, EBB_MOVABLE},
                {3, EBB_ALLOC_LOW, EBB_MOVABLE},
                {3, EBB_ALLOC_RESERVE, EBB_UNMOVABLE},
                {3, EBB_ALLOC_LOW, EBB_RECLAIMABLE},
                {0, EBB_ALLOC_NO_CACHE, EBB_RECLAIMABLE}};

    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        give_some(0, 64, 2);
        give_some(UNIT + 32, UNIT + 40, 1);
        assert_int_equal(ebb__lazy(zone), 40);
        ebb_pfn_t pfn = rig_alloc(rows[i].order, rows[i].type, rows[i].flags);

        assert_true(rows[i].order == 0 || pfn == BASE + UNIT + 32);
        rig_check();
        assert_int_equal(ebb_free(zone, pfn, rows[i].order), 0);
        for (uint32_t at = 0; at < 64; at += 2)
            take(at);
        for (uint32_t at = UNIT + 32; at < UNIT + 40; at++)
            take(at);
        assert_int_equal(rig_stats().free, 0);
    }
}

static void a_unit_changes_its_type(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < UNIT; i++) {
        if (i % 100)
            give(i);
    }
    empty_cache();
    assert_int_equal(zone->lazy[EBB_MOVABLE], UNIT - 6);
    /* Most of it is free, so that it is the type's that asks. */
    ebb_pfn_t pfn = rig_alloc(4, EBB_UNMOVABLE, 0);

    assert_int_equal(zone->lazy[EBB_MOVABLE], 0);
    assert_int_equal(rig_lookup(BASE + 1).type, EBB_UNMOVABLE);
    rig_check();
    assert_int_equal(ebb_free(zone, pfn, 4), 0);
}

static void isolation_takes_them_along(void **state)
{
    (void)state;
    give_some(0, UNIT, 3);
    give_some(1, UNIT, 3);
    give_some(UNIT, 2 * UNIT, 3);
    assert_int_equal(ebb_isolate_range(zone, BASE, UNIT), 0);
    assert_int_equal(rig_stats().isolated, UNIT / 3 * 2 + 2);
    assert_int_equal(rig_lookup(BASE).type, EBB_ISOLATE);
    rig_check();
    give_some(2, UNIT, 3);
    assert_int_equal(zone->pageblocks[0].lazy, 0);
    rig_check();
    assert_int_equal(ebb_putback_range(zone, BASE, UNIT, EBB_RECLAIMABLE), 0);
    rig_check();
}

static void one_of_them_is_asked_for(void **state)
{
    (void)state;
    give_some(0, 64, 1);
    take(17);
    expect(17, EBB_BLOCK_ALLOCATED, 0);
    expect(16, EBB_BLOCK_FREE, 0);
    rig_check();
    assert_int_equal(ebb_alloc_at(zone, BASE + 32, 5, EBB_ALLOC_LOW), 0);
    rig_check();
    assert_int_equal(ebb_alloc_at(zone, BASE + 16, 1, 0), -EBB_EBUSY);
    assert_int_equal(ebb_free(zone, BASE + 32, 5), 0);
}

static void freed_twice(void **state)
{
    (void)state;
    give_some(0, 3, 1);
    assert_int_equal(ebb_free(zone, BASE + 1, 0), -EBB_EINVAL);
    assert_int_equal(port_virtual.misuse.kind, EBB_MISUSE_DOUBLE_FREE);
    assert_int_equal(ebb_free(zone, BASE + 1, 1), -EBB_EINVAL);
    rig_check();
}

/* Whatever is freed and taken in whatever order, nothing is lost: the zone is whole in the end. */
static void at_random(void **state)
{
    uint32_t random = 1;

    (void)state;
    for (unsigned n = 0; n < 20000; n++) {
        uint32_t index;
        ebb_pfn_t pfn;

        random = random * 1664525u + 1013904223u;
        index = (random >> 8) % (UNITS * UNIT);
        if (taken[index]) {
            give(index);
        } else if (random >> 30 == 0 &&
                   ebb_alloc(zone, random >> 24 & 7, (random >> 28) % 3, 0, &pfn) == 0) {
            for (uint32_t i = 0; i < 1u << (random >> 24 & 7); i++)
                assert_false(taken[pfn - BASE + i]);
            assert_int_equal(ebb_free(zone, pfn, random >> 24 & 7), 0);
        } else if (ebb_alloc(zone, 0, EBB_MOVABLE, 0, &pfn) == 0) {
            assert_false(taken[pfn - BASE]);
            taken[pfn - BASE] = true;
        }
        if (n % 500 == 0)
            rig_check();
    }
}

/* ---- ebb_zone_check() ---- */

static void broken(unsigned invariant, unsigned level, uint32_t index)
{
    for (unsigned at = EBB_CHECK_COUNTERS; at <= EBB_CHECK_FRAMES; at++) {
        struct ebb_violation violation = {0};
        int err = ebb_zone_check(zone, (enum ebb_check_level)at, &violation);

        assert_int_equal(err, at < level ? 0 : -EBB_EFAULT);
        if (at < level)
            continue;
        assert_int_equal(violation.invariant, invariant);
        assert_int_equal(violation.pfn, index == UINT32_MAX ? 0 : BASE + index);
    }
}

#define BROKEN(lvalue, value, invariant, level, index) \
    do {                                               \
        __typeof__(lvalue) kept = (lvalue);            \
        (lvalue) = (__typeof__(lvalue))(value);        \
        broken(invariant, level, index);               \
        (lvalue) = kept;                               \
    } while (0)

static void is_checked(void **state)
{
    struct ebb_pageblock *unit = &zone->pageblocks[1];

    (void)state;
    give_some(UNIT, UNIT + 5, 1);
    give_some(3 * UNIT, 3 * UNIT + 6, 1);
    give_some(5 * UNIT, 5 * UNIT + 100, 2);
    rig_check();
    BROKEN(zone->lazy[EBB_MOVABLE], 10, 5, EBB_CHECK_COUNTERS, UINT32_MAX);
    BROKEN(zone->lazy_classes[EBB_MOVABLE], 1u << 2, 26, EBB_CHECK_LISTS, UINT32_MAX);
    BROKEN(zone->lazy_classes[EBB_MOVABLE], 1u << 2 | 1u << 5 | 1u << 10, 26, EBB_CHECK_LISTS,
           UINT32_MAX);
    BROKEN(zone->lazy_rings[EBB_MOVABLE][2].n, 5, 26, EBB_CHECK_LISTS, 5 * UNIT);
    BROKEN(zone->lazy_rings[EBB_MOVABLE][2].n, UNITS, 26, EBB_CHECK_LISTS, 0);
    BROKEN(zone->types[5], EBB_UNMOVABLE, 26, EBB_CHECK_LISTS, 5 * UNIT);
    BROKEN(unit->next.n, UNITS, 26, EBB_CHECK_LISTS, UNIT);
    BROKEN(unit->prev.n, 5, 26, EBB_CHECK_LISTS, 3 * UNIT);
    BROKEN(unit->frames, UNIT, 26, EBB_CHECK_LISTS, UNIT);
    BROKEN(zone->pageblock_bits[0], 1u << 3 | 1u << 5, 24, EBB_CHECK_LISTS, UNIT);
    BROKEN(unit->frames, 4, 23, EBB_CHECK_FRAMES, UNIT);
    BROKEN(unit->reported, 1, 23, EBB_CHECK_FRAMES, UNIT);
    BROKEN(zone->lazy_bits[UNIT / 64], 0xf, 26, EBB_CHECK_FRAMES, UNIT);
    BROKEN(zone->lazy_bits[UNIT / 64], 0x3e, 25, EBB_CHECK_FRAMES, UNIT + 5);
    rig_check();
}

/* ---- where there are none ---- */

static void not_in_every_zone(void **state)
{
    static const struct {
        unsigned pageblock_order, shuffle_order;
        bool coalesces_late;
    } rows[] = {{9, 0, true},   {6, 0, true},  {5, 0, false},
                {10, 11, true}, {9, 1, false}, {9, 10, true}};

    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ebb_zone_config other = config;

        other.pageblock_order = (uint8_t)rows[i].pageblock_order;
        other.shuffle_order = (uint8_t)rows[i].shuffle_order;
        rig_make(&other, true);
        ebb_pfn_t pfns[2 * BATCH];

        for (unsigned n = 0; n < 2 * BATCH; n++)
            pfns[n] = rig_alloc(0, EBB_MOVABLE, 0);
        for (unsigned n = 0; n < 2 * BATCH; n++)
            assert_int_equal(ebb_free(zone, pfns[n], 0), 0);
        assert_int_equal(ebb__lazy(zone), rows[i].coalesces_late ? BATCH : 0);
        rig_check();
        ebb_zone_drain(zone);
        rig_done();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(freed_frames_are_lazy, setup, teardown),
        cmocka_unit_test_setup_teardown(a_whole_unit_merges_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(whoever_frees_the_last_merges, setup, teardown),
        cmocka_unit_test_setup_teardown(put_back_completes_a_unit, setup, teardown),
        cmocka_unit_test_setup_teardown(allocation_takes_from_the_fullest, setup, teardown),
        cmocka_unit_test_setup_teardown(a_larger_block_is_found_in_them, setup, teardown),
        cmocka_unit_test_setup_teardown(a_unit_changes_its_type, setup, teardown),
        cmocka_unit_test_setup_teardown(isolation_takes_them_along, setup, teardown),
        cmocka_unit_test_setup_teardown(one_of_them_is_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(freed_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(at_random, setup, teardown),
        cmocka_unit_test_setup_teardown(is_checked, setup, teardown),
        cmocka_unit_test(not_in_every_zone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
