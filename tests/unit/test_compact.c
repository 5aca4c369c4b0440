/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compaction with reporting running: what it makes whole, where it takes room from,
 * whom it leaves alone; with owners that refuse, free and allocate while their data is moved,
 * and a host that drops what it was told of. Each test runs once for each tracker.
 * EBB_SEED replays the random one.
 */
#include <ebb/range.h>

#include "owner.h"
#include "report_rig.h"

#define BASE     ((ebb_pfn_t)RIG_BASE)
#define FRAMES   1024u
#define PB       (1u << PAGEBLOCK)
#define BLOCK    (1u << MAX_ORDER)
#define NO_CACHE EBB_ALLOC_NO_CACHE

static enum ebb_tracker tracker;

static int with_tracker(void **state)
{
    (void)rig_group_setup(state);
    tracker = *(const enum ebb_tracker *)*state;
    return 0;
}

struct scene {
    struct rig *rig;
    struct ebb_zone *zone;
    struct owner owner;
    struct ebb_migrate_ops ops;
    struct ebb_compact compact;
};

static struct scene *new_scene(struct rig_config config, uint64_t seed)
{
    struct scene *scene = calloc(1, sizeof(*scene));

    assert_non_null(scene);
    config.history.tracker = (uint8_t)tracker;
    config.history.pacing = EBB_PACING_DELAY;
    scene->rig = rig_new(&config);
    scene->zone = &scene->rig->zones[0];
    owner_init(&scene->owner, scene->zone, seed);
    scene->ops = owner_ops(&scene->owner);
    rig_register_and_settle(scene->rig);
    return scene;
}

static void free_scene(struct scene *scene)
{
    owner_free_all(&scene->owner);
    owner_done(&scene->owner);
    rig_free(scene->rig);
    free(scene);
}

static void own_at(struct scene *scene, ebb_pfn_t pfn, unsigned order)
{
    assert_int_equal(ebb_alloc_at(scene->zone, pfn, order, 0), 0);
    owner_adopt(&scene->owner, pfn, order, EBB_MOVABLE);
}

static void begin(struct scene *scene, unsigned order, uint64_t goal)
{
    assert_int_equal(ebb_compact_init(&scene->compact, scene->zone, order, goal), 0);
}

static void go_on(struct scene *scene)
{
    assert_int_equal(ebb_compact(&scene->compact, &scene->ops, 0), 0);
    rig_check(scene->rig);
    owner_check(&scene->owner);
}

static void compact_all(struct scene *scene)
{
    begin(scene, 0, 0);
    go_on(scene);
}

/* Free blocks of the pageblock order, in blocks of that order or above. */
static uint64_t whole_pageblocks(struct scene *scene)
{
    struct ebb_zone_stats stats = rig_zone_stats(scene->rig, 0);
    uint64_t whole = 0;

    for (unsigned order = PAGEBLOCK; order <= MAX_ORDER; order++) {
        for (unsigned type = 0; type < EBB_ISOLATE; type++)
            whole += stats.lists[order][type].blocks << (order - PAGEBLOCK);
    }
    return whole;
}

/* One frame in each pageblock. */
static void scatter(struct scene *scene, unsigned order)
{
    for (ebb_pfn_t pfn = BASE; pfn < BASE + FRAMES; pfn += PB)
        own_at(scene, pfn, order);
}

/* ---- what it does ---- */

static void test_makes_whole_pageblocks(void **state)
{
    struct scene *scene = new_scene((struct rig_config){0}, 1);

    (void)state;
    scatter(scene, 0);
    assert_int_equal(whole_pageblocks(scene), 0);
    compact_all(scene);
    /* 32 frames, of which each pageblock takes 32: all but the last is free. */
    assert_int_equal(whole_pageblocks(scene), FRAMES / PB - 1);
    assert_int_equal(scene->compact.migrated, FRAMES / PB - 1);
    assert_int_equal(scene->compact.frames, FRAMES / PB - 1);
    assert_int_equal(scene->compact.made, FRAMES / PB - 1);
    assert_int_equal(scene->compact.failed, 0);
    assert_int_equal(rig_zone_stats(scene->rig, 0).allocated, FRAMES / PB);
    /* Which the host is told of at once. */
    rig_settle(scene->rig);
    assert_int_equal(rig_unreported_frames(scene->rig, 0, PAGEBLOCK), 0);
    assert_int_equal(rig_zone_stats(scene->rig, 0).reported, FRAMES - PB);
    /* There is nothing more to be done. */
    compact_all(scene);
    assert_int_equal(scene->compact.migrated, 0);
    free_scene(scene);
}

static void test_moves_blocks_of_all_orders(void **state)
{
    struct scene *scene = new_scene((struct rig_config){0}, 2);

    (void)state;
    for (unsigned i = 0; i < 30; i++)
        own_at(scene, BASE + i * PB + (i % 2 ? 16 : 0), i % 5);
    compact_all(scene);
    /* 6 * 31 frames fit into 6 pageblocks, and the last two were empty. */
    assert_true(scene->compact.migrated >= 20);
    assert_true(whole_pageblocks(scene) >= 24);
    assert_int_equal(scene->owner.moves, scene->compact.migrated);
    free_scene(scene);
}

static void test_stops_at_the_goal(void **state)
{
    struct scene *scene = new_scene((struct rig_config){0}, 3);

    (void)state;
    scatter(scene, 1);
    begin(scene, 0, 3);
    go_on(scene);
    assert_int_equal(scene->compact.made, 3);
    assert_int_equal(scene->compact.migrated, 3);
    assert_int_equal(whole_pageblocks(scene), 3);
    scene->compact.goal = 4;
    go_on(scene);
    assert_int_equal(whole_pageblocks(scene), 4);
    free_scene(scene);
}

static void test_other_orders(void **state)
{
    struct scene *scene = new_scene((struct rig_config){0}, 4);

    (void)state;
    scatter(scene, 0);
    begin(scene, MAX_ORDER, 0);
    go_on(scene);
    assert_int_equal(scene->compact.made, FRAMES / BLOCK - 1);
    assert_int_equal(rig_zone_stats(scene->rig, 0).lists[MAX_ORDER][EBB_MOVABLE].blocks,
                     FRAMES / BLOCK - 1);
    owner_free_all(&scene->owner);
    ebb_zone_drain(scene->zone);

    /* Blocks of 4 in pageblocks that cannot be emptied. */
    for (unsigned i = 0; i < FRAMES; i += 4) {
        if (i % 8 == 0) {
            own_at(scene, BASE + i, 0);
        } else {
            assert_int_equal(ebb_alloc_range(scene->zone, BASE + i, 1, NULL), 0);
        }
    }
    begin(scene, 2, 10);
    go_on(scene);
    assert_int_equal(scene->compact.made, 10);
    for (unsigned i = 4; i < FRAMES; i += 8)
        assert_int_equal(ebb_free_range(scene->zone, BASE + i, 1), 0);
    assert_int_equal(ebb_compact_init(&scene->compact, scene->zone, MAX_ORDER + 1, 0), -EBB_EINVAL);
    begin(scene, 0, 0);
    assert_int_equal(ebb_compact(&scene->compact, NULL, 0), -EBB_EINVAL);
    assert_int_equal(ebb_compact(&scene->compact, &(struct ebb_migrate_ops){0}, 0), -EBB_EINVAL);
    free_scene(scene);
}

/* With a budget it takes many calls, each of which gets somewhere, and the result is
 * the same; other work goes on in between. */
static void test_goes_on_where_it_stopped(void **state)
{
    struct scene *scene = new_scene((struct rig_config){0}, 5);
    unsigned calls = 1;
    uint64_t locks;
    int more;

    (void)state;
    scatter(scene, 0);
    begin(scene, 0, 0);
    do {
        locks = port_virtual.locks;
        more = ebb_compact(&scene->compact, &scene->ops, 1);
        assert_true(port_virtual.locks - locks < 60); /* a call is short */
        rig_settle(scene->rig);
        rig_check(scene->rig);
        owner_check(&scene->owner);
        assert_true(calls++ < 10000);
    } while (more == 1);
    assert_int_equal(more, 0);
    assert_true(calls > FRAMES / PB);
    assert_int_equal(whole_pageblocks(scene), FRAMES / PB - 1);
    free_scene(scene);
}

/* Blocks much larger than what is looked at in one hold of the lock. */
static void test_large_blocks(void **state)
{
    struct rig_config config = {.frames = 1u << 15, .max_order = 13, .pageblock_order = 11};
    struct scene *scene = new_scene(config, 12);

    (void)state;
    for (unsigned i = 0; i < 16; i++)
        own_at(scene, BASE + i * 2048, i % 3);
    own_at(scene, BASE + 1024, 9);
    begin(scene, 0, 0);
    go_on(scene);
    assert_int_equal(scene->compact.made, 15);
    begin(scene, 13, 0);
    go_on(scene);
    assert_int_equal(scene->compact.migrated, 0);
    assert_int_equal(rig_zone_stats(scene->rig, 0).lists[13][EBB_MOVABLE].blocks, 3);
    /* Of the largest order, with room between larger blocks. */
    for (unsigned i = 0; i < 3; i++)
        own_at(scene, BASE + i * 8192 + 5000, 3);
    begin(scene, 13, 2);
    go_on(scene);
    assert_int_equal(scene->compact.made, 2);
    free_scene(scene);
}

/* What it has made whole is not what is allocated next. (With a divider, unreported
 * blocks come before reported ones all the same.) */
static void test_what_it_makes_is_cold(void **state)
{
    struct scene *scene = new_scene((struct rig_config){0}, 13);

    (void)state;
    own_at(scene, BASE, 0);
    own_at(scene, BASE + 5 * BLOCK, 0);
    compact_all(scene);
    assert_int_equal(scene->compact.migrated, 1);
    assert_int_equal(rig_block(scene->rig, 0, BASE).order, MAX_ORDER);
    for (unsigned i = 0; i < FRAMES / BLOCK - 2; i++) {
        assert_int_equal(owner_alloc(&scene->owner, MAX_ORDER, EBB_MOVABLE, 0), 0);
        assert_true(scene->owner.owned[scene->owner.count - 1].pfn != BASE);
    }
    assert_int_equal(rig_block(scene->rig, 0, BASE).state, EBB_BLOCK_FREE);
    free_scene(scene);
}

/* ---- what it leaves alone ---- */

static void test_leaves_what_cannot_become_whole(void **state)
{
    struct scene *scene = new_scene((struct rig_config){.hole = true}, 6);
    const ebb_pfn_t at = BASE + BLOCK;

    (void)state;
    for (unsigned i = 0; i < 4; i++)
        own_at(scene, at + i * PB, 0);
    /* An unmovable block, a range, and isolation. */
    assert_int_equal(ebb_alloc_range(scene->zone, at + 9, 3, NULL), 0);
    assert_int_equal(ebb_isolate_range(scene->zone, at + PB, PB), 0);
    compact_all(scene);
    /* The third went to the fourth. */
    assert_int_equal(scene->owner.calls, 1);
    assert_int_equal(scene->compact.made, 1);
    assert_int_equal(rig_block(scene->rig, 0, at).state, EBB_BLOCK_ALLOCATED);
    assert_int_equal(rig_block(scene->rig, 0, at + PB).state, EBB_BLOCK_ALLOCATED);
    assert_int_equal(rig_zone_stats(scene->rig, 0).allocated, 7);
    assert_int_equal(ebb_putback_range(scene->zone, at + PB, PB, EBB_MOVABLE), 0);
    assert_int_equal(ebb_free_range(scene->zone, at + 9, 3), 0);
    free_scene(scene);
}

static void test_leaves_the_pinned(void **state)
{
    struct scene *scene = new_scene((struct rig_config){0}, 7);

    (void)state;
    scatter(scene, 2);
    own_at(scene, BASE + 2 * PB + 8, 0);
    own_at(scene, BASE + 2 * PB + 16, 0);
    scene->owner.pinned = BASE + 2 * PB + 8;
    compact_all(scene);
    assert_int_equal(scene->compact.failed, 1);
    /* What comes after it in that pageblock was not moved for nothing. */
    assert_int_equal(rig_block(scene->rig, 0, BASE + 2 * PB + 16).state, EBB_BLOCK_ALLOCATED);
    assert_int_equal(rig_block(scene->rig, 0, BASE + 2 * PB).state, EBB_BLOCK_FREE);
    assert_true(scene->compact.made >= 25);
    free_scene(scene);
}

/* Movable data does not go to pageblocks of another type. */
static void test_stays_off_other_types(void **state)
{
    struct scene *scene = new_scene((struct rig_config){0}, 8);
    const ebb_pfn_t last = BASE + FRAMES - PB;

    (void)state;
    assert_int_equal(ebb_isolate_range(scene->zone, last, PB), 0);
    assert_int_equal(ebb_putback_range(scene->zone, last, PB, EBB_UNMOVABLE), 0);
    assert_int_equal(ebb_alloc_range(scene->zone, last + 5, 1, NULL), 0);
    scatter(scene, 0);
    owner_free_at(&scene->owner, last);
    compact_all(scene);
    assert_true(scene->compact.made > 25);
    for (unsigned i = 0; i < scene->owner.count; i++)
        assert_true(scene->owner.owned[i].pfn < last);
    assert_int_equal(ebb_free_range(scene->zone, last + 5, 1), 0);
    free_scene(scene);
}

/* Whole free blocks stay whole, and reported ones reported, while there is other room. */
static void test_takes_room_that_costs_nothing(void **state)
{
    struct rig_config config = {.min_order = EBB_REPORT_ORDER(2)};
    struct scene *scene = new_scene(config, 9);
    const ebb_pfn_t high = BASE + FRAMES - PB;
    uint64_t refaulted;

    (void)state;
    /* High up: a pageblock with reported room. Below it: one with eight free frames that
     * were used, and are too small to be reported. Low: what is to be moved. */
    own_at(scene, high, 3);
    own_at(scene, high - PB, 4);
    for (unsigned i = 16; i < PB; i++)
        own_at(scene, high - PB + i, 0);
    for (unsigned i = 17; i < PB; i += 2)
        owner_free_at(&scene->owner, high - PB + i);
    for (unsigned i = 0; i < 4; i++)
        own_at(scene, BASE + i * PB, 0);
    ebb_zone_drain(scene->zone);
    rig_settle(scene->rig);
    assert_true(rig_is_reported(scene->rig, 0, high + 16));
    assert_int_equal(rig_unreported_frames(scene->rig, 0, 0), 8);
    refaulted = rig_zone_stats(scene->rig, 0).refaulted;
    begin(scene, 0, 4);
    go_on(scene);
    assert_int_equal(scene->compact.migrated, 4);
    assert_int_equal(rig_zone_stats(scene->rig, 0).refaulted, refaulted);
    for (unsigned i = 0; i < scene->owner.count; i++) {
        ebb_pfn_t pfn = scene->owner.owned[i].pfn;

        assert_true(pfn == high || (pfn >= high - PB && pfn < high));
    }
    rig_settle(scene->rig);
    /* Five more: the other four unreported ones, then a reported one, for want of better. */
    for (unsigned i = 0; i < 5; i++)
        own_at(scene, BASE + i * PB, 0);
    rig_settle(scene->rig);
    refaulted = rig_zone_stats(scene->rig, 0).refaulted;
    begin(scene, 0, 5);
    go_on(scene);
    assert_int_equal(scene->compact.migrated, 5);
    assert_int_equal(rig_zone_stats(scene->rig, 0).refaulted, refaulted + 1);
    free_scene(scene);
}

static void test_heeds_the_watermark(void **state)
{
    struct scene *scene = new_scene((struct rig_config){.watermark_min = FRAMES - 40}, 10);

    (void)state;
    scatter(scene, 0);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(ebb_alloc_at(scene->zone, BASE + i * PB + 1, 0, 0), 0);
    begin(scene, 0, 0);
    assert_int_equal(ebb_compact(&scene->compact, &scene->ops, 0), -EBB_ENOMEM);
    assert_int_equal(scene->compact.migrated, 0);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(ebb_free(scene->zone, BASE + i * PB + 1, 0), 0);
    go_on(scene);
    assert_int_equal(scene->compact.made, FRAMES / PB - 1);
    free_scene(scene);
}

/* ---- in the middle of a batch ---- */

static void compact_during_the_batch(struct rig *rig)
{
    struct scene *scene = rig->ctx;
    struct ebb_zone_stats before = rig_zone_stats(rig, 0);

    compact_all(scene);
    assert_int_equal(rig_zone_stats(rig, 0).in_flight, before.in_flight);
    for (unsigned i = 0; i < rig->batch->n; i++)
        assert_int_equal(rig_block(rig, 0, rig->batch->ranges[i].addr >> EBB_FRAME_SHIFT).state,
                         EBB_BLOCK_IN_FLIGHT);
}

static void test_compacts_during_a_batch(void **state)
{
    struct rig_config config = {.min_order = EBB_REPORT_ORDER(1), .capacity = 5};
    struct scene *scene = new_scene(config, 11);

    (void)state;
    /* Everything was in use, and one pair of frames in 16 still is. */
    while (owner_alloc(&scene->owner, 1, EBB_MOVABLE, NO_CACHE) == 0)
        ;
    for (unsigned i = scene->owner.count; i-- > 0;) {
        if (scene->owner.owned[i].pfn / 2 % 16 != 3)
            owner_free(&scene->owner, i);
    }
    scene->rig->on_submit = compact_during_the_batch;
    scene->rig->ctx = scene;
    rig_settle(scene->rig);
    assert_true(scene->owner.moves > 0);
    scene->rig->on_submit = NULL;
    compact_all(scene);
    rig_settle(scene->rig);
    assert_true(whole_pageblocks(scene) >= FRAMES / PB - 4);
    assert_int_equal(rig_unreported_frames(scene->rig, 0, 1), 0);
    free_scene(scene);
}

/* ---- at random ---- */

/* The host drops what it is told of: what is in use and lost thereby shows. */
static void drop(struct rig *rig)
{
    struct scene *scene = rig->ctx;

    for (unsigned i = 0; i < rig->batch->n; i++) {
        ebb_pfn_t pfn = rig->batch->ranges[i].addr >> EBB_FRAME_SHIFT;

        for (uint64_t k = 0; k < rig->batch->ranges[i].len >> EBB_FRAME_SHIFT; k++)
            *owner_content(&scene->owner, pfn + k) = 0;
    }
}

static void churn(struct scene *scene, unsigned steps)
{
    struct owner *owner = &scene->owner;

    for (unsigned i = 0; i < steps; i++) {
        port_virtual.cpu = (unsigned)(owner_random(owner) % 2);
        if (owner_random(owner) % 2 && owner->count < OWNER_LIMIT - 1)
            (void)!owner_alloc(owner, (unsigned)(owner_random(owner) % 4),
                               owner_random(owner) % 16 ? EBB_MOVABLE : EBB_UNMOVABLE, 0);
        else if (owner->count > 0)
            owner_free(owner, (unsigned)(owner_random(owner) % owner->count));
    }
}

static void run_random(uint64_t seed, bool quiet)
{
    struct rig_config config = {
        .min_order = EBB_REPORT_ORDER((unsigned)(seed % 6)),
        .capacity = 7,
        .cpus = 2,
        .history.split = seed % 2 ? EBB_SPLIT_INHERIT : EBB_SPLIT_CLEAR,
        .history.merge = seed % 3 ? EBB_MERGE_BOTH : EBB_MERGE_NEVER,
    };
    struct scene *scene = new_scene(config, seed);
    uint64_t gained = 0;

    print_message("EBB_SEED=%llu\n", (unsigned long long)seed);
    scene->rig->on_submit = drop;
    scene->rig->ctx = scene;
    scene->rig->later = true;
    for (unsigned round = 0; round < 30; round++) {
        uint64_t before;
        int more;

        churn(scene, 200);
        /* Fragment what is left. */
        while (scene->owner.count > 100)
            owner_free(&scene->owner, (unsigned)(owner_random(&scene->owner) % scene->owner.count));
        scene->owner.refuse = quiet ? 0 : 16;
        scene->owner.release = quiet ? 0 : 16;
        scene->owner.meddle = quiet ? 0 : 32;
        ebb_zone_drain(scene->zone);
        if (quiet)
            rig_settle(scene->rig);
        before = whole_pageblocks(scene);
        begin(scene, 0, 0);
        do {
            more = ebb_compact(&scene->compact, &scene->ops,
                               quiet ? 0 : 1 + owner_random(&scene->owner) % 500);
            assert_in_range(more, 0, 1);
            rig_check(scene->rig);
            owner_check(&scene->owner);
            if (quiet)
                continue;
            rig_run_after(scene->rig, owner_random(&scene->owner) % 100 * MS);
            if (scene->rig->in_flight && owner_random(&scene->owner) % 2)
                rig_complete(scene->rig, owner_random(&scene->owner) % 8 ? 0 : -EBB_EIO);
            if (scene->rig->submits > RIG_LOG / 2)
                rig_forget(scene->rig);
        } while (more);
        if (quiet) {
            assert_int_equal(whole_pageblocks(scene), before + scene->compact.made);
            gained += scene->compact.made;
        }
    }
    if (quiet)
        assert_true(gained > 20);
    assert_true(scene->owner.moves > 100);
    owner_free_all(&scene->owner);
    ebb_zone_drain(scene->zone);
    rig_settle(scene->rig);
    assert_int_equal(rig_unreported_frames(scene->rig, 0, (unsigned)(seed % 6)), 0);
    free_scene(scene);
}

static void test_at_random(void **state)
{
    const bool one = getenv("EBB_SEED");

    (void)state;
    for (uint64_t seed = owner_seed(1), end = seed + (one ? 1 : 6); seed < end; seed++) {
        run_random(seed, true);
        run_random(seed, false);
    }
}

static const enum ebb_tracker trackers[] = {EBB_TRACKER_ROTATION, EBB_TRACKER_MEMBRANE,
                                            EBB_TRACKER_BOUNDARY, EBB_TRACKER_BITMAP,
                                            EBB_TRACKER_SORTED};

#define each(f)                                                                                   \
    {#f " (rotation)", f, with_tracker, rig_group_teardown, (void *)(uintptr_t)&trackers[0]},     \
        {#f " (membrane)", f, with_tracker, rig_group_teardown, (void *)(uintptr_t)&trackers[1]}, \
        {#f " (boundary)", f, with_tracker, rig_group_teardown, (void *)(uintptr_t)&trackers[2]}, \
        {#f " (bitmap)", f, with_tracker, rig_group_teardown, (void *)(uintptr_t)&trackers[3]},   \
    {                                                                                             \
#f " (sorted)", f, with_tracker, rig_group_teardown, (void *)(uintptr_t)&trackers[4]      \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        each(test_makes_whole_pageblocks),
        each(test_moves_blocks_of_all_orders),
        each(test_stops_at_the_goal),
        each(test_other_orders),
        each(test_large_blocks),
        {"test_what_it_makes_is_cold", test_what_it_makes_is_cold, with_tracker, rig_group_teardown,
         (void *)(uintptr_t)&trackers[0]},
        each(test_goes_on_where_it_stopped),
        each(test_leaves_what_cannot_become_whole),
        each(test_leaves_the_pinned),
        each(test_stays_off_other_types),
        each(test_takes_room_that_costs_nothing),
        each(test_heeds_the_watermark),
        each(test_compacts_during_a_batch),
        each(test_at_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
