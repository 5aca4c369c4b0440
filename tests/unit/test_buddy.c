/* SPDX-License-Identifier: BSD-2-Clause */
/* Split, merge, marks, and taking blocks from another migratetype (buddy.c). */
#include "zone_rig.h"

#include <ebb/range.h>

#define BASE 0x1000u

static void make(uint64_t frames, unsigned max_order, unsigned pageblock_order)
{
    struct ebb_zone_config config = {.base = BASE,
                                     .frames = frames,
                                     .max_order = (uint8_t)max_order,
                                     .pageblock_order = (uint8_t)pageblock_order};
    rig_make(&config, true);
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
    ebb_zone_drain(zone);
}

static void set_type(ebb_pfn_t pfn, uint64_t frames, enum ebb_migratetype type)
{
    assert_int_equal(ebb_isolate_range(zone, pfn, frames), 0);
    assert_int_equal(ebb_putback_range(zone, pfn, frames, type), 0);
}

static void expect_free(ebb_pfn_t pfn, unsigned order, enum ebb_migratetype type, bool reported)
{
    struct ebb_block block = rig_lookup(pfn);

    assert_int_equal(block.state, EBB_BLOCK_FREE);
    assert_int_equal(block.pfn, pfn);
    assert_int_equal(block.order, order);
    assert_int_equal(block.type, type);
    assert_int_equal(block.reported, reported);
}

/* ---- split and merge ---- */

static void splits_in_halves_and_merges_back(void **state)
{
    (void)state;
    make(16, 4, 4);
    ebb_pfn_t pfn = rig_alloc(0, EBB_MOVABLE, EBB_ALLOC_NO_CACHE);

    assert_int_equal(pfn, BASE);
    for (unsigned order = 0; order < 4; order++)
        expect_free(BASE + (1u << order), order, EBB_MOVABLE, false);
    rig_check();
    release(pfn, 0);
    expect_free(BASE, 4, EBB_MOVABLE, false);
}

static void merges_with_either_neighbour(void **state)
{
    (void)state;
    for (unsigned kept = 0; kept < 16; kept++) {
        make(16, 4, 4);
        assert_int_equal(ebb_alloc_at(zone, BASE + kept, 0, 0), 0);
        rig_check();
        assert_int_equal(rig_stats().free, 15);
        release(BASE + kept, 0);
        expect_free(BASE, 4, EBB_MOVABLE, false);
        if (kept < 15)
            rig_done();
    }
}

static void never_merges_across_a_hole(void **state)
{
    struct ebb_zone_config config = {.base = BASE, .frames = 32, .max_order = 4};

    (void)state;
    rig_make(&config, false);
    assert_int_equal(ebb_zone_add(zone, BASE, 9), 0); /* 9 is missing */
    assert_int_equal(ebb_zone_add(zone, BASE + 10, 22), 0);
    assert_int_equal(rig_stats().free, 31);
    rig_check();
    expect_free(BASE + 8, 0, EBB_MOVABLE, false);
    release(rig_alloc(3, EBB_MOVABLE, 0), 3);
    assert_int_equal(ebb_alloc_at(zone, BASE + 8, 0, 0), 0);
    release(BASE + 8, 0);
    expect_free(BASE + 8, 0, EBB_MOVABLE, false);
    expect_free(BASE, 3, EBB_MOVABLE, false);
    /* The hole is filled: now they may. */
    assert_int_equal(ebb_zone_add(zone, BASE + 9, 1), 0);
    expect_free(BASE, 4, EBB_MOVABLE, false);
}

static void never_merges_beyond_the_span(void **state)
{
    (void)state;
    make(24, 4, 4);
    expect_free(BASE + 16, 3, EBB_MOVABLE, false);
    assert_int_equal(ebb_alloc_at(zone, BASE + 16, 3, 0), 0);
    /* What lies behind the last state is none of its business. */
    zone->state[24] = ebb__state_word(EBB__FREE, 3, EBB_MOVABLE);
    release(BASE + 16, 3);
    expect_free(BASE + 16, 3, EBB_MOVABLE, false);
}

static void never_merges_into_isolation(void **state)
{
    (void)state;
    make(32, 5, 3); /* four pageblocks in one block */
    assert_int_equal(ebb_isolate_range(zone, BASE + 8, 8), 0);
    rig_check();
    expect_free(BASE, 3, EBB_MOVABLE, false);
    expect_free(BASE + 8, 3, EBB_ISOLATE, false);
    expect_free(BASE + 16, 4, EBB_MOVABLE, false);
    assert_int_equal(ebb_alloc_at(zone, BASE, 3, 0), 0);
    release(BASE, 3);
    expect_free(BASE, 3, EBB_MOVABLE, false);
    /* Isolated neighbours do merge with each other. */
    assert_int_equal(ebb_isolate_range(zone, BASE, 8), 0);
    expect_free(BASE, 4, EBB_ISOLATE, false);
    assert_int_equal(ebb_putback_range(zone, BASE, 16, EBB_MOVABLE), 0);
    expect_free(BASE, 5, EBB_MOVABLE, false);
}

static void a_block_isolated_in_part_is_split_when_freed(void **state)
{
    (void)state;
    make(32, 5, 3);
    ebb_pfn_t pfn = rig_alloc(5, EBB_MOVABLE, 0);

    assert_int_equal(ebb_isolate_range(zone, BASE + 8, 16), 0);
    release(pfn, 5);
    rig_check();
    expect_free(BASE, 3, EBB_MOVABLE, false);
    expect_free(BASE + 8, 3, EBB_ISOLATE, false);
    expect_free(BASE + 16, 3, EBB_ISOLATE, false);
    expect_free(BASE + 24, 3, EBB_MOVABLE, false);
    assert_int_equal(rig_stats().isolated, 16);
    assert_int_equal(ebb_putback_range(zone, BASE + 8, 16, EBB_MOVABLE), 0);
    expect_free(BASE, 5, EBB_MOVABLE, false);
}

static void the_largest_order_works(void **state)
{
    (void)state;
    struct ebb_zone_config config = {
        .base = (ebb_pfn_t)3 << 18, .frames = (uint64_t)1 << 19, .max_order = 18};

    rig_make(&config, true);
    assert_int_equal(rig_stats().lists[18][EBB_MOVABLE].blocks, 2);
    ebb_pfn_t pfn = rig_alloc(0, EBB_MOVABLE, EBB_ALLOC_NO_CACHE);

    for (unsigned order = 0; order < 18; order++)
        assert_int_equal(rig_stats().lists[order][EBB_MOVABLE].blocks, 1);
    release(pfn, 0);
    assert_int_equal(rig_stats().lists[18][EBB_MOVABLE].blocks, 2);
    pfn = rig_alloc(18, EBB_RECLAIMABLE, 0);
    release(pfn, 18);
}

/* ---- which block is next ---- */

static void the_block_freed_last_is_next(void **state)
{
    (void)state;
    make(64, 3, 3);
    ebb_pfn_t blocks[8];

    for (unsigned i = 0; i < 8; i++)
        blocks[i] = rig_alloc(3, EBB_MOVABLE, 0);
    assert_int_equal(blocks[0], BASE); /* low frames first */
    release(blocks[2], 3);
    release(blocks[6], 3);
    release(blocks[4], 3);
    assert_int_equal(rig_alloc(3, EBB_MOVABLE, 0), blocks[4]);
    assert_int_equal(rig_alloc(3, EBB_MOVABLE, 0), blocks[6]);
    assert_int_equal(rig_alloc(3, EBB_MOVABLE, 0), blocks[2]);
    for (unsigned i = 0; i < 8; i++)
        release(blocks[i], 3);
}

static void reported_blocks_are_next_only_when_nothing_else_is(void **state)
{
    (void)state;
    make(32, 3, 3);
    rig_report(BASE);
    rig_report(BASE + 16);
    assert_int_equal(rig_alloc(3, EBB_MOVABLE, 0), BASE + 8);
    assert_int_equal(rig_alloc(3, EBB_MOVABLE, 0), BASE + 24);
    assert_int_equal(rig_stats().refaulted, 0);
    /* Of those the one that was reported last. */
    assert_int_equal(rig_alloc(3, EBB_MOVABLE, 0), BASE + 16);
    assert_int_equal(rig_alloc(3, EBB_MOVABLE, 0), BASE);
    assert_int_equal(rig_stats().refaulted, 16);
    for (unsigned at = 0; at < 32; at += 8)
        release(BASE + at, 3);
}

static void parts_are_linked_by_their_mark(void **state)
{
    (void)state;
    make(32, 3, 3);
    /* Unreported pairs and fours of frames first, then reported ones. */
    assert_int_equal(ebb_alloc_at(zone, BASE, 1, 0), 0);
    rig_report(BASE + 8);
    assert_int_equal(ebb_alloc_at(zone, BASE + 8, 1, 0), 0);
    assert_int_equal(zone->lists[1][EBB_MOVABLE].head, 2);
    assert_int_equal(zone->lists[2][EBB_MOVABLE].head, 4);
    /* Unreported ones after reported ones. */
    assert_int_equal(ebb_alloc_at(zone, BASE + 16, 1, 0), 0);
    assert_int_equal(zone->lists[1][EBB_MOVABLE].head, 18);
    assert_int_equal(zone->lists[2][EBB_MOVABLE].head, 20);
    assert_int_equal(ebb__link_of(zone, 1, 18)->prev, 10);
    rig_check();
    release(BASE, 1);
    release(BASE + 8, 1);
    release(BASE + 16, 1);
}

static void steals_what_the_host_does_not_have(void **state)
{
    (void)state;
    make(16, 3, 3);
    rig_report(BASE);
    assert_int_equal(rig_alloc(3, EBB_UNMOVABLE, 0), BASE + 8);
    assert_int_equal(rig_stats().steals, 1);
    assert_int_equal(rig_stats().refaulted, 0);
    release(BASE + 8, 3);
}

/* ---- marks ---- */

static void parts_of_a_reported_block_are_reported(void **state)
{
    (void)state;
    make(16, 4, 4);
    rig_report(BASE);
    expect_free(BASE, 4, EBB_MOVABLE, true);
    assert_int_equal(rig_stats().reported, 16);
    ebb_pfn_t pfn = rig_alloc(1, EBB_MOVABLE, 0);

    expect_free(BASE + 2, 1, EBB_MOVABLE, true);
    expect_free(BASE + 4, 2, EBB_MOVABLE, true);
    expect_free(BASE + 8, 3, EBB_MOVABLE, true);
    assert_int_equal(rig_stats().reported, 14);
    assert_int_equal(rig_stats().refaulted, 2); /* what is used, not what was split */
    release(pfn, 1);
}

static void merged_blocks_are_reported_only_if_both_were(void **state)
{
    (void)state;
    make(16, 4, 4);
    ebb_pfn_t pfn = rig_alloc(3, EBB_MOVABLE, 0);

    rig_report(BASE + 8);
    release(pfn, 3); /* unreported + reported */
    expect_free(BASE, 4, EBB_MOVABLE, false);
    assert_int_equal(rig_stats().reported, 0);

    /* Both reported, one put back after the other. */
    uint32_t index = 0;

    assert_int_equal(ebb_alloc_at(zone, BASE + 8, 3, 0), 0);
    ebb_port_lock(&zone->lock);
    assert_true(ebb__isolate_block(zone, index));
    ebb_port_unlock(&zone->lock);
    release(BASE + 8, 3);
    rig_report(BASE + 8);
    ebb_port_lock(&zone->lock);
    ebb__put_back(zone, index, true);
    ebb_port_unlock(&zone->lock);
    expect_free(BASE, 4, EBB_MOVABLE, true);
    assert_int_equal(rig_stats().refaulted, 0);

    /* A failed report leaves no mark. */
    ebb_port_lock(&zone->lock);
    assert_true(ebb__isolate_block(zone, index));
    ebb__put_back(zone, index, false);
    ebb_port_unlock(&zone->lock);
    expect_free(BASE, 4, EBB_MOVABLE, false);
}

static void marks_survive_isolation_and_a_change_of_type(void **state)
{
    (void)state;
    make(32, 5, 3);
    rig_report(BASE);
    assert_int_equal(ebb_isolate_range(zone, BASE + 8, 8), 0);
    expect_free(BASE, 3, EBB_MOVABLE, true);
    expect_free(BASE + 8, 3, EBB_ISOLATE, true);
    expect_free(BASE + 16, 4, EBB_MOVABLE, true);
    assert_int_equal(ebb_putback_range(zone, BASE + 8, 8, EBB_UNMOVABLE), 0);
    expect_free(BASE, 5, EBB_MOVABLE, true);
    assert_int_equal(rig_stats().refaulted, 0);
}

/* ---- the engine's isolation ---- */

static void a_block_in_flight_is_out_of_reach(void **state)
{
    ebb_pfn_t pfn = 7;

    (void)state;
    make(16, 3, 3);
    ebb_port_lock(&zone->lock);
    assert_true(ebb__isolate_block(zone, 8));
    ebb_port_unlock(&zone->lock);
    rig_check();
    assert_int_equal(rig_stats().in_flight, 8);
    assert_int_equal(rig_lookup(BASE + 13).state, EBB_BLOCK_IN_FLIGHT);
    assert_int_equal(rig_lookup(BASE + 13).pfn, BASE + 8);
    assert_int_equal(rig_alloc(3, EBB_MOVABLE, 0), BASE);
    assert_int_equal(ebb_alloc(zone, 0, EBB_MOVABLE, 0, &pfn), -EBB_EAGAIN);
    assert_int_equal(ebb_alloc_at(zone, BASE + 8, 3, 0), -EBB_EAGAIN);
    assert_int_equal(pfn, 7);
    rig_misuse(BASE + 8, 3, EBB_MISUSE_DOUBLE_FREE);
    ebb_port_lock(&zone->lock);
    ebb__put_back(zone, 8, false);
    ebb_port_unlock(&zone->lock);
    assert_int_equal(rig_alloc(3, EBB_MOVABLE, 0), BASE + 8);
    release(BASE, 3);
    release(BASE + 8, 3);
}

static void the_watermark_keeps_blocks_from_the_host(void **state)
{
    struct ebb_zone_config config = {
        .base = BASE, .frames = 32, .max_order = 3, .watermark_min = 20};

    (void)state;
    rig_make(&config, true);
    ebb_port_lock(&zone->lock);
    assert_true(ebb__isolate_block(zone, 0));
    assert_false(ebb__isolate_block(zone, 8)); /* 16 would be left */
    ebb_port_unlock(&zone->lock);
    expect_free(BASE + 8, 3, EBB_MOVABLE, false);
    assert_int_equal(rig_stats().in_flight, 8);
    ebb_port_lock(&zone->lock);
    ebb__put_back(zone, 0, true);
    ebb_port_unlock(&zone->lock);
}

static void a_block_isolated_in_part_while_in_flight_is_split(void **state)
{
    (void)state;
    make(16, 4, 3);
    ebb_port_lock(&zone->lock);
    assert_true(ebb__isolate_block(zone, 0));
    ebb_port_unlock(&zone->lock);
    assert_int_equal(ebb_isolate_range(zone, BASE + 8, 8), 0);
    ebb_port_lock(&zone->lock);
    ebb__put_back(zone, 0, true);
    ebb_port_unlock(&zone->lock);
    expect_free(BASE, 3, EBB_MOVABLE, true);
    expect_free(BASE + 8, 3, EBB_ISOLATE, true);
    assert_int_equal(ebb_putback_range(zone, BASE + 8, 8, EBB_MOVABLE), 0);
    expect_free(BASE, 4, EBB_MOVABLE, true);
}

static void a_broken_list_panics(void **state)
{
    jmp_buf jump;

    (void)state;
    make(16, 4, 4);
    port_virtual.panic_jump = &jump;
    if (!setjmp(jump)) {
        ebb__unlink(zone, 3); /* inside a block */
        fail_msg("no panic");
    }
    assert_non_null(port_virtual.panic);
    port_virtual.panic_jump = NULL;
}

/* ---- fallback ---- */

/* Where a request goes whose own lists are empty. */
static void fallback_order(void **state)
{
    static const struct {
        enum ebb_migratetype wants, first, second;
    } cases[] = {
        {EBB_MOVABLE, EBB_RECLAIMABLE, EBB_UNMOVABLE},
        {EBB_UNMOVABLE, EBB_RECLAIMABLE, EBB_MOVABLE},
        {EBB_RECLAIMABLE, EBB_UNMOVABLE, EBB_MOVABLE},
    };

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        make(16, 3, 3);
        set_type(BASE, 8, cases[i].second);
        set_type(BASE + 8, 8, cases[i].first);
        assert_int_equal(rig_alloc(3, cases[i].wants, 0), BASE + 8);
        assert_int_equal(rig_stats().steals, 1);
        assert_int_equal(rig_stats().conversions, 1);
        assert_int_equal(rig_alloc(3, cases[i].wants, 0), BASE);
        assert_int_equal(rig_stats().steals, 2);
        release(BASE, 3);
        release(BASE + 8, 3);
        expect_free(BASE, 3, cases[i].wants, false);
        if (i < 2)
            rig_done();
    }
}

static void steals_from_the_largest_block(void **state)
{
    (void)state;
    make(48, 4, 3);
    /* Free and movable: 4 frames at the start, 8 in the middle, 16 at the end. */
    assert_int_equal(ebb_alloc_at(zone, BASE, 2, 0), 0);
    assert_int_equal(ebb_alloc_at(zone, BASE + 8, 3, 0), 0);
    assert_int_equal(ebb_alloc_at(zone, BASE + 24, 3, 0), 0);
    assert_int_equal(rig_alloc(0, EBB_UNMOVABLE, EBB_ALLOC_NO_CACHE), BASE + 32);
    /* One pageblock is enough: the other half of the block stays movable. */
    assert_int_equal(rig_stats().conversions, 1);
    expect_free(BASE + 40, 3, EBB_MOVABLE, false);
    expect_free(BASE + 36, 2, EBB_UNMOVABLE, false);
    rig_check();
    /* The next one is at home there. */
    assert_int_equal(rig_alloc(2, EBB_UNMOVABLE, 0), BASE + 36);
    assert_int_equal(rig_stats().steals, 1);
    release(BASE, 2);
    release(BASE + 8, 3);
    release(BASE + 24, 3);
    release(BASE + 36, 2);
    release(BASE + 32, 0);
}

static void a_request_above_a_pageblock_converts_all_it_needs(void **state)
{
    (void)state;
    make(64, 6, 2);
    assert_int_equal(rig_alloc(4, EBB_RECLAIMABLE, 0), BASE);
    assert_int_equal(rig_stats().conversions, 4);
    expect_free(BASE + 16, 4, EBB_MOVABLE, false);
    assert_int_equal(rig_lookup(BASE + 12).type, EBB_RECLAIMABLE);
    release(BASE, 4);
    /* One block again, on the list of its first pageblock's type. */
    expect_free(BASE, 6, EBB_RECLAIMABLE, false);
    assert_int_equal(rig_alloc(5, EBB_MOVABLE, 0), BASE);
    assert_int_equal(rig_stats().conversions, 8); /* the four that were not movable */
    release(BASE, 5);
    expect_free(BASE, 6, EBB_MOVABLE, false);
}

/* One pageblock of 16 frames, `used` of them allocated as `owner`. Then a
 * request of another type takes a frame: does the pageblock follow? */
static bool follows(unsigned used, enum ebb_migratetype owner, enum ebb_migratetype wants)
{
    make(16, 4, 4);
    set_type(BASE, 16, owner);
    for (unsigned i = 0; i < used; i++)
        assert_int_equal(rig_alloc(0, owner, EBB_ALLOC_NO_CACHE), BASE + i);
    ebb_pfn_t pfn = rig_alloc(0, wants, EBB_ALLOC_NO_CACHE);
    bool converted = rig_stats().conversions == 1;

    assert_int_equal(rig_stats().steals, 1);
    assert_int_equal(rig_lookup(pfn).type, converted ? wants : owner);
    rig_check();
    release(pfn, 0);
    for (unsigned i = 0; i < used; i++)
        release(BASE + i, 0);
    expect_free(BASE, 4, converted ? wants : owner, false);
    rig_done();
    return converted;
}

static void a_small_steal_converts_a_pageblock_that_mostly_agrees(void **state)
{
    (void)state;
    assert_true(follows(8, EBB_MOVABLE, EBB_UNMOVABLE));  /* half is free */
    assert_false(follows(9, EBB_MOVABLE, EBB_UNMOVABLE)); /* less is */
    assert_false(follows(15, EBB_MOVABLE, EBB_RECLAIMABLE));
    /* Unmovable and reclaimable get on with each other. */
    assert_true(follows(15, EBB_UNMOVABLE, EBB_RECLAIMABLE));
    assert_true(follows(15, EBB_RECLAIMABLE, EBB_UNMOVABLE));
    /* Movable requests do not take over for little: a block of a quarter is enough, */
    assert_true(follows(8, EBB_UNMOVABLE, EBB_MOVABLE));
    /* one of two frames in two quarters in use is not, nor is a single frame. */
    assert_false(follows(13, EBB_UNMOVABLE, EBB_MOVABLE));
    assert_false(follows(15, EBB_UNMOVABLE, EBB_MOVABLE));
    make(16, 4, 4); /* for the teardown */
}

static void a_movable_request_leaves_small_blocks_their_type(void **state)
{
    (void)state;
    /* Half of the pageblock is free, but in single frames. */
    make(16, 4, 4);
    set_type(BASE, 16, EBB_UNMOVABLE);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(rig_alloc(0, EBB_UNMOVABLE, EBB_ALLOC_NO_CACHE), BASE + i);
    for (unsigned i = 0; i < 16; i += 2)
        release(BASE + i, 0);
    ebb_pfn_t pfn = rig_alloc(0, EBB_MOVABLE, EBB_ALLOC_NO_CACHE);

    assert_int_equal(rig_stats().steals, 1);
    assert_int_equal(rig_stats().conversions, 0);
    release(pfn, 0);
    for (unsigned i = 1; i < 16; i += 2)
        release(BASE + i, 0);
}

static void free_blocks_move_with_their_pageblock(void **state)
{
    (void)state;
    make(16, 4, 4);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(rig_alloc(0, EBB_MOVABLE, EBB_ALLOC_NO_CACHE), BASE + i);
    rig_report(BASE + 8);
    release(BASE + 1, 0);
    assert_int_equal(rig_alloc(0, EBB_UNMOVABLE, EBB_ALLOC_NO_CACHE), BASE + 8);
    assert_int_equal(rig_stats().conversions, 1);
    assert_int_equal(rig_stats().refaulted, 1);
    expect_free(BASE + 1, 0, EBB_UNMOVABLE, false);
    expect_free(BASE + 6, 1, EBB_UNMOVABLE, false);
    expect_free(BASE + 9, 0, EBB_UNMOVABLE, true);
    expect_free(BASE + 12, 2, EBB_UNMOVABLE, true);
    rig_check();
    release(BASE + 8, 0);
    for (unsigned i = 0; i < 6; i++) {
        if (i != 1)
            release(BASE + i, 0);
    }
}

static void finds_the_block_of_every_frame(void **state)
{
    (void)state;
    make(32, 5, 3);
    assert_int_equal(ebb_alloc_at(zone, BASE + 12, 2, 0), 0);
    for (uint32_t index = 0; index < 32; index++) {
        struct ebb_block block = rig_lookup(BASE + index);
        ebb_pfn_t head = index < 8 ? 0 : index < 12 ? 8 : index < 16 ? 12 : 16;

        assert_int_equal(block.pfn, BASE + head);
        assert_int_equal(block.state, head == 12 ? EBB_BLOCK_ALLOCATED : EBB_BLOCK_FREE);
    }
    release(BASE + 12, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(splits_in_halves_and_merges_back, teardown),
        cmocka_unit_test_teardown(merges_with_either_neighbour, teardown),
        cmocka_unit_test_teardown(never_merges_across_a_hole, teardown),
        cmocka_unit_test_teardown(never_merges_beyond_the_span, teardown),
        cmocka_unit_test_teardown(never_merges_into_isolation, teardown),
        cmocka_unit_test_teardown(a_block_isolated_in_part_is_split_when_freed, teardown),
        cmocka_unit_test_teardown(the_largest_order_works, teardown),
        cmocka_unit_test_teardown(the_block_freed_last_is_next, teardown),
        cmocka_unit_test_teardown(reported_blocks_are_next_only_when_nothing_else_is, teardown),
        cmocka_unit_test_teardown(parts_are_linked_by_their_mark, teardown),
        cmocka_unit_test_teardown(steals_what_the_host_does_not_have, teardown),
        cmocka_unit_test_teardown(parts_of_a_reported_block_are_reported, teardown),
        cmocka_unit_test_teardown(merged_blocks_are_reported_only_if_both_were, teardown),
        cmocka_unit_test_teardown(marks_survive_isolation_and_a_change_of_type, teardown),
        cmocka_unit_test_teardown(a_block_in_flight_is_out_of_reach, teardown),
        cmocka_unit_test_teardown(the_watermark_keeps_blocks_from_the_host, teardown),
        cmocka_unit_test_teardown(a_block_isolated_in_part_while_in_flight_is_split, teardown),
        cmocka_unit_test_teardown(a_broken_list_panics, teardown),
        cmocka_unit_test_teardown(fallback_order, teardown),
        cmocka_unit_test_teardown(steals_from_the_largest_block, teardown),
        cmocka_unit_test_teardown(a_request_above_a_pageblock_converts_all_it_needs, teardown),
        cmocka_unit_test_teardown(a_small_steal_converts_a_pageblock_that_mostly_agrees, teardown),
        cmocka_unit_test_teardown(a_movable_request_leaves_small_blocks_their_type, teardown),
        cmocka_unit_test_teardown(free_blocks_move_with_their_pageblock, teardown),
        cmocka_unit_test_teardown(finds_the_block_of_every_frame, teardown),
    };

    return cmocka_run_group_tests_name("buddy", tests, NULL, NULL);
}
