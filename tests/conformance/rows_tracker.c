/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows of what is in the lists, and of what trackers keep of them. Marks are set by
 * hand here, in any pattern, which is more than the engine ever leaves.
 */
#include "rows.h"

#include "marks.h"

#include <stdlib.h>

static struct rig *flat_rig(const struct setting *setting, unsigned capacity)
{
    return rig_with(
        setting,
        &(struct rig_config){.frames = BLOCKS << ORDER, .max_order = ORDER, .capacity = capacity});
}

static const struct ebb_free_list *flat_list(const struct rig *rig)
{
    return &rig->zones[0].lists[ORDER][EBB_MOVABLE];
}

static bool marked(const struct rig *rig, uint32_t index)
{
    return ebb__load_state(&rig->zones[0], index) & EBB__REPORTED;
}

static void f13_each_unreported_block_of_a_mixed_list_once(const struct setting *setting)
{
    for (unsigned i = 0; i < N_PATTERNS; i++) {
        for (unsigned capacity = 1; capacity <= 64; capacity = capacity * 3 + 1) {
            struct rig *rig = flat_rig(setting, capacity);

            mark(rig, patterns[i]);
            check_every_step(rig);
            rig_register(rig);
            rig_settle(rig);
            if (is_not_budget(setting))
                assert_int_equal(rig_stats(rig).passes, 1);
            for (unsigned j = 0; j < BLOCKS; j++)
                assert_int_equal(rig_times_reported(rig, RIG_BASE + (j << ORDER)),
                                 !(patterns[i] >> j & 1));
            rig_free(rig);
        }
    }
}

/* The same while a pass is at work: whoever works on a list resets what is kept of it.
 * Some blocks are out, so relink the free ones. */
static void relink_free(struct rig *rig)
{
    struct ebb_zone *zone = &rig->zones[0];
    uint64_t marks = *(const uint64_t *)rig->ctx;

    if (rig->submits != 2)
        return;
    rig->marked_by_hand = true;
    ebb_port_lock(&zone->lock);
    ebb__reset_list(zone, ORDER, EBB_MOVABLE);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        if (ebb__state_of(ebb__load_state(zone, i << ORDER)) != EBB__FREE)
            continue;
        ebb__unlink(zone, i << ORDER);
        ebb__link(zone, i << ORDER, ORDER, EBB_MOVABLE, marks >> i & 1, EBB__TAIL);
    }
    ebb_port_unlock(&zone->lock);
}

static void f13_a_list_that_somebody_relinks_during_a_pass(const struct setting *setting)
{
    for (unsigned i = 0; i < N_PATTERNS; i++) {
        struct rig *rig = flat_rig(setting, 4);

        check_every_step(rig);
        rig->on_submit = relink_free;
        rig->ctx = (void *)(uintptr_t)&patterns[i];
        rig_register(rig);
        rig_settle(rig);
        flush(rig);
        assert_int_equal(rig_unreported_frames(rig, 0, 0), 0);
        rig_free(rig);
    }
}

/* ---- F6, F9: the reported blocks of a list are one run, at its tail ---- */

static void assert_one_run(const struct rig *rig)
{
    const struct ebb_free_list *list = flat_list(rig);
    uint32_t index = list->head;
    bool below = false;

    for (uint64_t i = 0; i < list->blocks;
         i++, index = ebb__link_of(&rig->zones[0], ORDER, index)->next) {
        assert_true(!below || marked(rig, index));
        below = marked(rig, index);
    }
}

static void f6_reported_blocks_are_one_run_after_each_drain(const struct setting *setting)
{
    for (unsigned capacity = 1; capacity <= 16; capacity *= 2) {
        struct rig *rig = flat_rig(setting, capacity);
        ebb_pfn_t pfns[BLOCKS];
        unsigned n = need(rig);

        rig->later = true;
        rig_register(rig);
        for (unsigned round = 0; round < 4; round++) {
            begin(rig);
            while (rig->in_flight) {
                assert_one_run(rig);
                rig_complete(rig, 0);
                rig_run(rig);
            }
            rig_settle(rig);
            assert_one_run(rig);
            /* Taken from the run, and freed in another order. */
            for (unsigned i = 0; i < n; i++)
                pfns[i] = rig_alloc(rig, 0, ORDER);
            for (unsigned i = 0; i < n; i++)
                rig_release(rig, 0, pfns[(i * 5) % n], ORDER);
            if (rig->submits > RIG_LOG / 2)
                rig_forget(rig);
        }
        rig_settle(rig);
        rig_free(rig);
    }
}

struct cold {
    unsigned at, n;
    ebb_pfn_t pfns[16];
};

static void free_some_cold(struct rig *rig)
{
    struct cold *cold = rig->ctx;

    if (rig->submits == cold->at) {
        rig_release_all(rig, 0, ORDER, cold->pfns, cold->n);
        cold->n = 0;
    }
    assert_one_run(rig);
}

/* Half of what is freed goes cold, by shuffling: never below the divider. */
static void f9_what_goes_cold_goes_above_the_divider(const struct setting *setting)
{
    for (unsigned at = 1; at <= 12; at++) {
        struct rig *rig = rig_with(setting, &(struct rig_config){
                                                .frames = BLOCKS << ORDER,
                                                .max_order = ORDER,
                                                .capacity = 4,
                                                .shuffle_order = EBB_REPORT_ORDER(0),
                                            });
        struct cold cold = {.at = at, .n = 16};

        check_every_step(rig);
        for (unsigned i = 0; i < cold.n; i++)
            cold.pfns[i] = rig_alloc(rig, 0, ORDER);
        rig->on_submit = free_some_cold;
        rig->ctx = &cold;
        rig_register(rig);
        rig_settle(rig);
        flush(rig);
        assert_int_equal(cold.n, 0);
        assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));
        rig_free(rig);
    }
}

/* ---- F7: the boundary is of one zone, while it is at work ---- */

static struct rig *boundary_rig;

static void look_at_boundaries(void)
{
    unsigned active = 0;

    for (unsigned i = 0; i < boundary_rig->zone_count; i++) {
        if (!boundary_rig->history_zones[i].boundary_active)
            continue;
        active++;
        assert_true(boundary_rig->report.in_pass);
        assert_ptr_equal(boundary_rig->report.source, &boundary_rig->zones[i].source);
    }
    assert_in_range(active, 0, 1);
}

static void f7_a_boundary_is_valid_only_while_its_zone_is_at_work(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){.zones = 2});
    unsigned seen = 0;

    boundary_rig = rig;
    port_virtual.on_step = look_at_boundaries;
    rig->later = true;
    rig_register(rig);
    begin(rig);
    for (unsigned i = 0; i < 100; i++) {
        if (rig->in_flight) {
            uint64_t addr = rig->batch->ranges[0].addr;
            unsigned zone = addr >> EBB_FRAME_SHIFT >= rig->zones[1].base;

            assert_true(rig->history_zones[zone].boundary_active);
            assert_false(rig->history_zones[!zone].boundary_active);
            seen |= 1u << zone;
            rig_complete(rig, 0);
        }
        rig_run_after(rig, C_DELAY);
    }
    assert_int_equal(seen, 3);
    rig_settle(rig);
    for (unsigned i = 0; i < 2; i++)
        assert_false(rig->history_zones[i].boundary_active);
    /* Nor after a device that went in the middle of a batch. */
    rig->complete_on_poll = true;
    rig_unregister(rig);
    rig_release(rig, 0, rig_alloc(rig, 0, C_ORDER), C_ORDER);
    rig_register(rig);
    begin(rig);
    assert_true(rig->in_flight);
    rig_unregister(rig);
    for (unsigned i = 0; i < 2; i++)
        assert_false(rig->history_zones[i].boundary_active);
    port_virtual.on_step = NULL;
    rig_free(rig);
}

/* ---- F8, F10: blocks leave the list while a batch is out ---- */

struct leaving {
    unsigned at; /* batch */
    bool all;    /* every block, or the one of the divider */
    unsigned n;
    ebb_pfn_t pfns[BLOCKS];
};

static const struct ebb_divider *divider_of(const struct rig *rig)
{
    if (rig->history.config.tracker == EBB_TRACKER_SORTED)
        return &rig->zones[0].sorted[ORDER][0];
    return rig->history.config.tracker == EBB_TRACKER_MEMBRANE
               ? &rig->history_zones[0].membrane[ORDER]
               : &rig->history.boundary[ORDER][0];
}

static void leave(struct rig *rig)
{
    struct leaving *leaving = rig->ctx;

    if (rig->submits != leaving->at)
        return;
    if (leaving->all) {
        leaving->n = rig_alloc_all(rig, 0, ORDER, leaving->pfns);
        assert_int_equal(flat_list(rig)->blocks, 0);
        return;
    }
    /* The block of the divider, as often as there is another. */
    while (divider_of(rig)->set && leaving->n < 3) {
        ebb_pfn_t pfn = rig->zones[0].base + divider_of(rig)->block;

        assert_true(rig_is_reported(rig, 0, pfn));
        assert_int_equal(ebb_alloc_at(&rig->zones[0], pfn, ORDER, 0), 0);
        leaving->pfns[leaving->n++] = pfn;
    }
}

static void leave_at_every_batch(const struct setting *setting, bool all)
{
    unsigned left = 0;

    for (unsigned at = 1; at <= BLOCKS / 8; at++) {
        struct rig *rig = flat_rig(setting, 8);
        struct leaving leaving = {.at = at, .all = all};

        check_every_step(rig);
        rig->on_submit = leave;
        rig->ctx = &leaving;
        rig_register(rig);
        rig_settle(rig);
        flush(rig);
        left += leaving.n;
        assert_int_equal(rig_unreported_frames(rig, 0, 0), 0);
        rig->on_submit = NULL;
        rig_release_all(rig, 0, ORDER, leaving.pfns, leaving.n);
        flush(rig);
        assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));
        /* Each block once, and those that were used in between once more. */
        for (unsigned i = 0; i < leaving.n; i++)
            assert_in_range(rig_times_reported(rig, leaving.pfns[i]), 1, 2);
        if (!all)
            assert_int_equal(rig_reported_blocks(rig), BLOCKS + leaving.n);
        rig_free(rig);
    }
    assert_true(left > 0);
}

static void f8_an_empty_list(const struct setting *setting)
{
    leave_at_every_batch(setting, true);
}

static void f10_the_block_of_a_divider_leaves(const struct setting *setting)
{
    leave_at_every_batch(setting, false);
}

/* ---- F11, F12: somebody resets what the tracker keeps ---- */

static void reset_list(struct rig *rig)
{
    struct ebb_zone *zone = &rig->zones[0];

    if (rig->submits != *(const unsigned *)rig->ctx)
        return;
    ebb_port_lock(&zone->lock);
    ebb__reset_list(zone, ORDER, EBB_MOVABLE);
    ebb_port_unlock(&zone->lock);
}

static void clear_active(struct rig *rig)
{
    struct ebb_zone *zone = &rig->zones[0];

    if (rig->submits != *(const unsigned *)rig->ctx)
        return;
    ebb_port_lock(&zone->lock);
    assert_true(rig->history_zones[0].boundary_active);
    rig->history_zones[0].boundary_active = false;
    ebb_port_unlock(&zone->lock);
}

static void reset_at_every_batch(const struct setting *setting, void (*reset)(struct rig *rig))
{
    for (unsigned at = 1; at <= BLOCKS / 4; at++) {
        struct rig *rig = flat_rig(setting, 4);

        check_every_step(rig);
        rig->on_submit = reset;
        rig->ctx = &at;
        rig_register(rig);
        rig_settle(rig);
        flush(rig); /* a boundary that starts again may take longer than a pass does */
        for (unsigned j = 0; j < BLOCKS; j++)
            assert_int_equal(rig_times_reported(rig, RIG_BASE + (j << ORDER)), 1);
        rig_free(rig);
    }
}

static void f11_a_third_party_resets_a_list(const struct setting *setting)
{
    reset_at_every_batch(setting, reset_list);
}

static void f12_all_boundaries_are_dropped(const struct setting *setting)
{
    reset_at_every_batch(setting, clear_active);
}

/* ---- F43: rotation leaves the head at an unreported block ---- */

static bool is_rotation_at_once(const struct setting *setting)
{
    return is_rotation(setting) && is_not_budget(setting);
}

static void f43_the_head_is_unreported_after_a_batch(const struct setting *setting)
{
    for (unsigned unreported = 1; unreported <= BLOCKS; unreported++) {
        struct rig *rig = flat_rig(setting, 4);
        unsigned batches = 0;

        mark(rig, unreported < BLOCKS ? UINT64_MAX << unreported : 0);
        rig->later = true;
        rig_register(rig);
        for (begin(rig); rig->in_flight; rig_run(rig)) {
            if (ebb__unreported(flat_list(rig)) > 0)
                assert_false(marked(rig, flat_list(rig)->head));
            rig_complete(rig, 0);
            batches++;
        }
        assert_int_equal(batches, (unreported + 3) / 4);
        rig_free(rig);
    }
}

/* ---- F62: what Nitesh Lal's bitmap could lose ---- */

/* Frees on both sides of where the search stands, and nothing after them. */
static void free_around(struct rig *rig)
{
    struct leaving *leaving = rig->ctx;

    if (rig->submits == leaving->at) {
        for (unsigned i = 0; i < leaving->n; i++)
            rig_release(rig, 0, leaving->pfns[i], ORDER);
        leaving->n = 0;
    }
}

static void f62_no_stuck_bits(const struct setting *setting)
{
    for (unsigned at = 1; at <= 10; at++) {
        struct rig *rig = flat_rig(setting, 4);
        struct leaving leaving = {.at = at};

        check_every_step(rig);
        for (unsigned i = 0; i < BLOCKS; i += 4) {
            leaving.pfns[leaving.n] = RIG_BASE + (i << ORDER);
            assert_int_equal(ebb_alloc_at(&rig->zones[0], leaving.pfns[leaving.n++], ORDER, 0), 0);
        }
        rig->on_submit = free_around;
        rig->ctx = &leaving;
        rig_register(rig);
        rig_settle(rig);
        if (is_inline(setting) && is_threshold(setting))
            flush(rig); /* 16 may be less than it takes */
        assert_int_equal(leaving.n, 0);
        assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));
        rig_free(rig);
    }
}

/* Others take and free blocks all the time: it ends, nothing is reported that is in
 * use (the rig looks), and in the end all is. */
static void lists_that_change_under_the_tracker(const struct setting *setting)
{
    struct rig *rig = flat_rig(setting, 4);
    ebb_pfn_t held[BLOCKS];
    unsigned n = 0;

    check_every_step(rig);
    srand(43);
    rig->later = true;
    rig_register(rig);
    for (unsigned i = 0; i < 1500; i++) {
        if (rand() % 2 && n < BLOCKS && rig_zone_stats(rig, 0).free > 0)
            held[n++] = rig_alloc(rig, 0, ORDER);
        else if (n > 0)
            rig_release(rig, 0, held[--n], ORDER);
        if (rand() % 3 == 0 && rig->in_flight)
            rig_complete(rig, rand() % 8 ? 0 : -EBB_EIO);
        if (rand() % 3 == 0)
            rig_run_after(rig, C_DELAY / 2);
        if (i % 32 == 0)
            rig_check(rig);
        if (rig->submits > RIG_LOG / 2)
            rig_forget(rig);
    }
    assert_true(rig_stats(rig).batches > (is_threshold(setting) ? 4 : 50));
    while (n > 0)
        rig_release(rig, 0, held[--n], ORDER);
    rig_settle(rig);
    flush(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));
    rig_free(rig);
}

const struct row rows_tracker[] = {
    {"f13_each_unreported_block_of_a_mixed_list_once",
     f13_each_unreported_block_of_a_mixed_list_once, NULL},
    {"f13_a_list_that_somebody_relinks_during_a_pass",
     f13_a_list_that_somebody_relinks_during_a_pass, NULL},
    {"f6_reported_blocks_are_one_run_after_each_drain",
     f6_reported_blocks_are_one_run_after_each_drain, has_dividers},
    {"f9_what_goes_cold_goes_above_the_divider", f9_what_goes_cold_goes_above_the_divider,
     has_dividers},
    {"f7_a_boundary_is_valid_only_while_its_zone_is_at_work",
     f7_a_boundary_is_valid_only_while_its_zone_is_at_work, is_boundary},
    {"f8_an_empty_list", f8_an_empty_list, NULL},
    {"f10_the_block_of_a_divider_leaves", f10_the_block_of_a_divider_leaves, has_dividers},
    {"f11_a_third_party_resets_a_list", f11_a_third_party_resets_a_list, NULL},
    {"f12_all_boundaries_are_dropped", f12_all_boundaries_are_dropped, is_boundary},
    {"f43_the_head_is_unreported_after_a_batch", f43_the_head_is_unreported_after_a_batch,
     is_rotation_at_once},
    {"f62_no_stuck_bits", f62_no_stuck_bits, NULL},
    {"lists_that_change_under_the_tracker", lists_that_change_under_the_tracker, NULL},
    {NULL, NULL, NULL},
};
