/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every tracker must do, run over each there is, a few steps at a time. The
 * lists are made by hand: marks in any pattern, which is more than the engine ever
 * leaves. F13: each unreported block of a mixed list exactly once. Through the engine:
 * tests/conformance/rows_tracker.c.
 */
#include "marks.h"

#include <ebb/range.h>

#include <stdio.h>
#include <stdlib.h>

static const uint8_t trackers[] = {EBB_TRACKER_ROTATION, EBB_TRACKER_MEMBRANE, EBB_TRACKER_BOUNDARY,
                                   EBB_TRACKER_BITMAP, EBB_TRACKER_SORTED};
#define N_TRACKERS (sizeof(trackers) / sizeof(trackers[0]))

static struct rig *new_rig(uint8_t tracker, unsigned capacity)
{
    return rig_new(&(struct rig_config){.frames = BLOCKS << ORDER,
                                        .max_order = ORDER,
                                        .pageblock_order = ORDER,
                                        .capacity = capacity,
                                        .history.tracker = tracker,
                                        .history.pacing = EBB_PACING_DELAY});
}

/* As in the middle of a pass, without an engine that runs one. */
static const struct ebb_tracker_ops *begin_pass(struct rig *rig)
{
    struct ebb_zone *zone = &rig->zones[0];
    struct ebb_history *history = &rig->history;
    const struct ebb_tracker_ops *tracker = history->tracker;

    zone->report_min_order = ORDER;
    zone->track_order = zone->hooks && zone->hooks->mark ? ORDER : 0xff;
    history->at = &rig->history_zones[0];
    if (tracker->attach)
        tracker->attach(history->at);
    history->at->ready = true;
    history->order = ORDER;
    history->type = EBB_MOVABLE;
    if (tracker->open)
        tracker->open(history);
    return tracker;
}

static void end_pass(struct rig *rig)
{
    struct ebb_zone *zone = &rig->zones[0];

    if (rig->history.tracker->close)
        rig->history.tracker->close(&rig->history);
    zone->report_min_order = 0xff;
    zone->track_order = 0xff;
}

/* Collect what the tracker yields, `steps` at a time, until it is done. */
static uint64_t collect(struct rig *rig, unsigned steps, unsigned *looked_at)
{
    const struct ebb_tracker_ops *tracker = begin_pass(rig);
    struct ebb_zone *zone = &rig->zones[0];
    uint64_t blocks = 0;

    *looked_at = 0;
    for (unsigned calls = 0;; calls++) {
        unsigned left = steps;
        uint32_t index;
        enum ebb__found found;

        assert_true(calls <= 3 * BLOCKS);
        ebb_port_lock(&zone->lock);
        found = tracker->next(&rig->history, &left, &index);
        assert_true(left <= steps);
        *looked_at += steps - left;
        if (found == EBB__FOUND) {
            assert_int_equal(blocks >> (index >> ORDER) & 1, 0);
            assert_false(ebb__is_reported(zone, ORDER, index));
            assert_true(ebb__isolate_block(zone, index));
            blocks |= (uint64_t)1 << (index >> ORDER);
        } else if (found == EBB__PAUSE) {
            assert_int_equal(left, 0);
        }
        ebb_port_unlock(&zone->lock);
        rig_check(rig);
        if (found == EBB__NOTHING)
            return blocks;
    }
}

static void put_back(struct rig *rig, uint64_t blocks)
{
    struct ebb_zone *zone = &rig->zones[0];

    ebb_port_lock(&zone->lock);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        if (!(blocks >> i & 1))
            continue;
        tell(rig, i << ORDER);
        ebb__put_back(zone, i << ORDER, true);
    }
    ebb_port_unlock(&zone->lock);
}

static void test_f13_each_unreported_block_exactly_once(void **state)
{
    static const unsigned steps[] = {1, 2, 7, BLOCKS, 10 * BLOCKS};

    (void)state;
    for (unsigned t = 0; t < N_TRACKERS; t++) {
        struct rig *rig = new_rig(trackers[t], 1);

        for (unsigned i = 0; i < N_PATTERNS * 5; i++) {
            uint64_t marks = patterns[i / 5], found;
            unsigned looked_at;

            mark(rig, marks);
            rig_check(rig);
            found = collect(rig, steps[i % 5], &looked_at);
            if (found != ~marks)
                fail_msg("%s: marks %#llx, %u steps: found %#llx", ebb_tracker_name(trackers[t]),
                         (unsigned long long)marks, steps[i % 5], (unsigned long long)found);
            /* No block is looked at twice, on a list; a bit is seen set, then cleared. */
            assert_in_range(looked_at, 0, trackers[t] == EBB_TRACKER_BITMAP ? 3 * BLOCKS : BLOCKS);
            put_back(rig, found);
            rig_check(rig);
            end_pass(rig);
            rig_check(rig);
        }
        rig_free(rig);
    }
}

static void test_a_list_without_unreported_blocks_is_not_walked(void **state)
{
    (void)state;
    for (unsigned t = 0; t < N_TRACKERS; t++) {
        struct rig *rig = new_rig(trackers[t], 1);
        unsigned looked_at;

        mark(rig, UINT64_MAX);
        assert_int_equal(collect(rig, 5, &looked_at), 0);
        /* The bitmap is told of everything at first. */
        assert_int_equal(looked_at > 0, trackers[t] == EBB_TRACKER_BITMAP);
        end_pass(rig);
        rig_free(rig);
    }
}

/* Others take and free blocks between the calls: it ends, and what it yields is
 * right at that moment. */
static void test_lists_that_change_under_the_tracker(void **state)
{
    const char *given = getenv("EBB_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 0) : 43u;

    (void)state;
    print_message("EBB_SEED=%u\n", seed);
    srand(seed);
    for (unsigned t = 0; t < N_TRACKERS; t++) {
        struct rig *rig = new_rig(trackers[t], 1);
        const struct ebb_tracker_ops *tracker = begin_pass(rig);
        ebb_pfn_t held[BLOCKS];
        unsigned n = 0, yielded = 0;

        for (unsigned i = 0; i < 20000; i++) {
            struct ebb_zone *zone = &rig->zones[0];
            unsigned left = 1 + (unsigned)rand() % 5;
            uint32_t index;

            if (rand() % 2 && n < BLOCKS && rig_zone_stats(rig, 0).free > 0)
                held[n++] = rig_alloc(rig, 0, ORDER);
            else if (n > 0)
                rig_release(rig, 0, held[--n], ORDER);
            ebb_port_lock(&zone->lock);
            if (tracker->next(&rig->history, &left, &index) == EBB__FOUND) {
                assert_int_equal(ebb__state_of(ebb__load_state(zone, index)), EBB__FREE);
                assert_false(ebb__is_reported(zone, ORDER, index));
                assert_true(ebb__isolate_block(zone, index));
                tell(rig, index);
                ebb__put_back(zone, index, true);
                yielded++;
            }
            ebb_port_unlock(&zone->lock);
            if (i % 100 == 0)
                rig_check(rig);
            /* A pass over a bitmap ends; the next one begins. */
            if (left > 0 && tracker->by_address)
                tracker->open(&rig->history);
        }
        assert_true(yielded > 1000);
        end_pass(rig);
        while (n > 0)
            rig_release(rig, 0, held[--n], ORDER);
        rig_free(rig);
    }
}

static enum ebb__found look_at(struct rig *rig, unsigned type, bool filled)
{
    struct ebb_zone *zone = &rig->zones[0];
    unsigned left = BLOCKS;
    enum ebb__found found;
    uint32_t index;

    rig->history.type = type;
    rig->history.filled = filled;
    ebb_port_lock(&zone->lock);
    found = rig->history.tracker->next(&rig->history, &left, &index);
    ebb_port_unlock(&zone->lock);
    return found;
}

/* The membrane of an order goes to another migratetype's list only when no block of its own is with
 * the host: the batch is sent first. */
static void test_the_membrane_moves_when_its_blocks_are_back(void **state)
{
    struct rig *rig = new_rig(EBB_TRACKER_MEMBRANE, 1);
    struct ebb_zone *zone = &rig->zones[0];

    (void)state;
    assert_int_equal(ebb_isolate_range(zone, RIG_BASE, 1u << ORDER), 0);
    assert_int_equal(ebb_putback_range(zone, RIG_BASE, 1u << ORDER, EBB_UNMOVABLE), 0);
    begin_pass(rig);
    assert_int_equal(look_at(rig, EBB_MOVABLE, false), EBB__FOUND);
    assert_int_equal(look_at(rig, EBB_UNMOVABLE, true), EBB__FLUSH);
    assert_int_equal(rig->history_zones[0].membrane[ORDER].type, EBB_MOVABLE);
    assert_int_equal(look_at(rig, EBB_UNMOVABLE, false), EBB__FOUND);
    assert_int_equal(rig->history_zones[0].membrane[ORDER].type, EBB_UNMOVABLE);
    end_pass(rig);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        rig_test(test_f13_each_unreported_block_exactly_once),
        rig_test(test_a_list_without_unreported_blocks_is_not_walked),
        rig_test(test_lists_that_change_under_the_tracker),
        rig_test(test_the_membrane_moves_when_its_blocks_are_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
