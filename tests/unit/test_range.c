/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ranges of frames with reporting running: offlined and onlined again (F60),
 * evacuated, allocated at any alignment and length, searched for; in the middle
 * of a batch, with owners that refuse, free and allocate while their data is
 * moved. Each test runs once for each tracker. EBB_SEED replays the random one.
 */
#include <ebb/range.h>

#include "owner.h"
#include "report_rig.h"

#define BASE   ((ebb_pfn_t)RIG_BASE)
#define FRAMES 1024u
#define PB     (1u << PAGEBLOCK)
#define BLOCK  (1u << MAX_ORDER)

static struct ebb_zone *zone_of(struct rig *rig)
{
    return &rig->zones[0];
}

/* The tracker under test. */
static enum ebb_tracker tracker;

static int with_tracker(void **state)
{
    (void)rig_group_setup(state);
    tracker = *(const enum ebb_tracker *)*state;
    return 0;
}

static struct rig *new_rig(struct rig_config config)
{
    config.history.tracker = (uint8_t)tracker;
    config.history.pacing = EBB_PACING_DELAY;
    return rig_new(&config);
}

static void isolate(struct rig *rig, ebb_pfn_t pfn, uint64_t frames)
{
    assert_int_equal(ebb_isolate_range(zone_of(rig), pfn, frames), 0);
}

static int remove_range(struct rig *rig, ebb_pfn_t pfn, uint64_t frames)
{
    int err = ebb_zone_remove(zone_of(rig), pfn, frames);

    rig_check(rig);
    return err;
}

static int alloc_range(struct rig *rig, ebb_pfn_t pfn, uint64_t frames)
{
    int err = ebb_alloc_range(zone_of(rig), pfn, frames, NULL);

    rig_check(rig);
    return err;
}

static void free_range(struct rig *rig, ebb_pfn_t pfn, uint64_t frames)
{
    assert_int_equal(ebb_free_range(zone_of(rig), pfn, frames), 0);
    rig_check(rig);
}

static void expect_state(struct rig *rig, ebb_pfn_t pfn, uint64_t frames, unsigned state)
{
    for (uint64_t i = 0; i < frames; i++)
        assert_int_equal(rig_block(rig, 0, pfn + i).state, state);
}

/* Ask for a pass and let the engine come to rest. */
static void report_all(struct rig *rig)
{
    ebb_report_now(&rig->report);
    rig_settle(rig);
}

/* Was any frame of the range in a batch since rig_forget()? */
static bool any_reported(struct rig *rig, ebb_pfn_t pfn, uint64_t frames)
{
    for (uint64_t i = 0; i < frames; i++) {
        if (rig_times_reported(rig, pfn + i) > 0)
            return true;
    }
    return false;
}

/* ---- offlining and onlining ---- */

static void test_f60_offline_and_online(void **state)
{
    struct rig *rig = new_rig((struct rig_config){0});
    const ebb_pfn_t at = BASE + 4 * BLOCK;
    const uint64_t frames = 2 * BLOCK;
    struct ebb_zone_stats before;
    ebb_pfn_t pfns[FRAMES];
    unsigned n;

    (void)state;
    rig_register_and_settle(rig);
    before = rig_zone_stats(rig, 0);
    assert_int_equal(before.reported, FRAMES);
    isolate(rig, at, frames);
    assert_int_equal(remove_range(rig, at, frames), 0);
    assert_int_equal(rig_zone_stats(rig, 0).managed, FRAMES - frames);
    assert_int_equal(rig_zone_stats(rig, 0).free, FRAMES - frames);
    assert_int_equal(rig_zone_stats(rig, 0).isolated, 0);
    assert_int_equal(rig_zone_stats(rig, 0).reported, FRAMES - frames);
    assert_int_equal(rig_zone_stats(rig, 0).refaulted, before.refaulted);
    expect_state(rig, at, frames, EBB_BLOCK_NONE);

    /* Nobody gets any of it, whatever he does. */
    n = rig_alloc_all(rig, 0, 0, pfns);
    assert_int_equal(n, FRAMES - frames);
    for (unsigned i = 0; i < n; i++)
        assert_true(pfns[i] < at || pfns[i] >= at + frames);
    rig_release_all(rig, 0, 0, pfns, n);
    report_all(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, FRAMES - frames);
    assert_false(any_reported(rig, at, frames));
    assert_int_equal(ebb_alloc_at(zone_of(rig), at, 0, 0), -EBB_EBUSY);
    assert_int_equal(remove_range(rig, at, frames), -EBB_EINVAL); /* no longer isolated */

    /* Online again. */
    assert_int_equal(ebb_zone_add(zone_of(rig), at, frames), 0);
    rig_check(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, FRAMES - frames);
    rig_settle(rig); /* the adding asked for a pass */
    assert_int_equal(rig_zone_stats(rig, 0).reported, FRAMES);
    for (uint64_t i = 0; i < frames; i++) {
        assert_int_equal(rig_times_reported(rig, at + i), 1);
        assert_int_equal(rig_block(rig, 0, at + i).type, EBB_MOVABLE);
    }
    rig_free(rig);
}

static void test_remove_refuses(void **state)
{
    struct rig *rig = new_rig((struct rig_config){.hole = true});
    struct ebb_zone *zone = zone_of(rig);
    const ebb_pfn_t at = BASE + 2 * BLOCK;
    ebb_pfn_t pfn;

    (void)state;
    assert_int_equal(remove_range(rig, at, PB), -EBB_EINVAL); /* not isolated */
    isolate(rig, at, PB);
    assert_int_equal(remove_range(rig, at, 2 * PB), -EBB_EINVAL); /* only half is */
    assert_int_equal(remove_range(rig, at - 1, 2), -EBB_EINVAL);
    assert_int_equal(remove_range(rig, at, 0), -EBB_EINVAL);
    assert_int_equal(remove_range(rig, BASE - 1, 1), -EBB_EINVAL);
    assert_int_equal(remove_range(rig, BASE + FRAMES, 1), -EBB_EINVAL);
    assert_int_equal(remove_range(rig, at, FRAMES), -EBB_EINVAL);
    assert_int_equal(remove_range(rig, at, UINT64_MAX), -EBB_EINVAL);
    assert_int_equal(remove_range(rig, 0, 1), -EBB_EINVAL);
    assert_int_equal(ebb_putback_range(zone, at, PB, EBB_MOVABLE), 0);

    /* A hole, and frames next to it. */
    isolate(rig, BASE, 2 * BLOCK);
    assert_int_equal(remove_range(rig, BASE, 2 * BLOCK), -EBB_ENOENT);
    assert_int_equal(remove_range(rig, BASE + BLOCK - 1, 2), -EBB_ENOENT);
    assert_int_equal(remove_range(rig, BASE + BLOCK, BLOCK), 0);
    assert_int_equal(ebb_zone_add(zone, BASE + BLOCK, BLOCK), 0);
    assert_int_equal(ebb_putback_range(zone, BASE, BLOCK, EBB_MOVABLE), 0);

    /* In use, and in a cache until it was isolated. */
    assert_int_equal(ebb_alloc_at(zone, at + 3, 0, 0), 0);
    assert_int_equal(ebb_alloc_at(zone, at + 4, 0, 0), 0);
    assert_int_equal(ebb_free(zone, at + 4, 0), 0);
    assert_int_equal(rig_block(rig, 0, at + 4).state, EBB_BLOCK_CACHED);
    isolate(rig, at, PB);
    assert_int_equal(remove_range(rig, at, PB), -EBB_EBUSY);
    assert_int_equal(remove_range(rig, at + 4, PB - 4), 0);
    assert_int_equal(remove_range(rig, at, 3), 0);
    assert_int_equal(remove_range(rig, at, PB), -EBB_ENOENT);
    assert_int_equal(remove_range(rig, at + 3, 1), -EBB_EBUSY);
    assert_int_equal(ebb_free(zone, at + 3, 0), 0);
    assert_int_equal(rig_block(rig, 0, at + 3).state, EBB_BLOCK_FREE);
    assert_int_equal(remove_range(rig, at + 3, 1), 0);
    assert_int_equal(remove_range(rig, at + 3, 1), -EBB_EINVAL);
    assert_int_equal(ebb_zone_add(zone, at, PB), 0);

    /* None of this broke the rest. */
    assert_int_equal(ebb_alloc(zone, MAX_ORDER, EBB_MOVABLE, 0, &pfn), 0);
    assert_int_equal(ebb_free(zone, pfn, MAX_ORDER), 0);
    rig_free(rig);
}

static void test_remove_parts_of_blocks(void **state)
{
    struct rig *rig = new_rig((struct rig_config){0});
    struct ebb_zone *zone = zone_of(rig);
    const ebb_pfn_t at = BASE + 3 * BLOCK;

    (void)state;
    rig_register_and_settle(rig);
    /* One pageblock of a block of two. */
    isolate(rig, at + PB, PB);
    assert_int_equal(remove_range(rig, at + PB, PB), 0);
    assert_true(rig_is_reported(rig, 0, at));
    assert_int_equal(rig_block(rig, 0, at).order, PAGEBLOCK);
    assert_int_equal(ebb_zone_add(zone, at + PB, PB), 0);
    assert_int_equal(rig_block(rig, 0, at).order, MAX_ORDER);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, FRAMES);

    /* The middle of an isolated block larger than a pageblock: what is left keeps its
     * mark, and stays isolated. */
    isolate(rig, at, BLOCK);
    assert_int_equal(rig_block(rig, 0, at).order, MAX_ORDER);
    assert_int_equal(remove_range(rig, at + 10, 30), 0);
    assert_int_equal(rig_zone_stats(rig, 0).isolated, BLOCK - 30);
    expect_state(rig, at, 10, EBB_BLOCK_FREE);
    expect_state(rig, at + 10, 30, EBB_BLOCK_NONE);
    expect_state(rig, at + 40, BLOCK - 40, EBB_BLOCK_FREE);
    assert_true(rig_is_reported(rig, 0, at));
    assert_true(rig_is_reported(rig, 0, at + 40));
    assert_int_equal(ebb_putback_range(zone, at, BLOCK, EBB_UNMOVABLE), 0);
    rig_check(rig);
    assert_int_equal(ebb_alloc_at(zone, at + 9, 0, 0), 0);
    assert_int_equal(ebb_alloc_at(zone, at + 10, 0, 0), -EBB_EBUSY);
    assert_int_equal(ebb_free(zone, at + 9, 0), 0);
    assert_int_equal(ebb_zone_add(zone, at + 10, 30), 0);
    ebb_zone_drain(zone);
    assert_int_equal(rig_block(rig, 0, at).order, MAX_ORDER);
    assert_int_equal(rig_block(rig, 0, at).type, EBB_UNMOVABLE);

    /* All of it: movable in the next life. */
    isolate(rig, at, BLOCK);
    assert_int_equal(remove_range(rig, at, BLOCK), 0);
    assert_int_equal(ebb_zone_add(zone, at, BLOCK), 0);
    assert_int_equal(rig_block(rig, 0, at).type, EBB_MOVABLE);
    rig_free(rig);
}

/* The last pageblock reaches beyond the span. */
static void test_remove_at_the_end(void **state)
{
    struct rig *rig = new_rig((struct rig_config){.frames = FRAMES - 24});
    struct ebb_zone *zone = zone_of(rig);
    const ebb_pfn_t at = BASE + FRAMES - PB;

    (void)state;
    rig_register_and_settle(rig);
    isolate(rig, at, PB);
    assert_int_equal(remove_range(rig, at, PB), -EBB_EINVAL);
    assert_int_equal(remove_range(rig, at, 8), 0);
    assert_int_equal(rig_zone_stats(rig, 0).managed, FRAMES - PB);
    report_all(rig);
    assert_false(any_reported(rig, at, 8));
    assert_int_equal(ebb_zone_add(zone, at, 8), 0);
    assert_int_equal(rig_block(rig, 0, at).type, EBB_MOVABLE);
    rig_check(rig);
    rig_free(rig);
}

/* A whole zone goes and comes. */
static void test_remove_everything(void **state)
{
    struct rig *rig = new_rig((struct rig_config){0});

    (void)state;
    rig_register_and_settle(rig);
    isolate(rig, BASE, FRAMES);
    assert_int_equal(remove_range(rig, BASE, FRAMES), 0);
    assert_int_equal(rig_zone_stats(rig, 0).managed, 0);
    report_all(rig);
    assert_int_equal(rig_reported_blocks(rig), 0);
    assert_int_equal(ebb_zone_add(zone_of(rig), BASE, FRAMES), 0);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, FRAMES);
    rig_free(rig);
}

/* ---- in the middle of a batch ---- */

static ebb_pfn_t batch_pfn(const struct rig *rig)
{
    return rig->batch->ranges[0].addr >> EBB_FRAME_SHIFT;
}

static void remove_what_is_in_the_batch(struct rig *rig)
{
    ebb_pfn_t at = batch_pfn(rig);
    ebb_pfn_t *done = rig->ctx;

    if (*done)
        return;
    *done = at;
    isolate(rig, at, BLOCK);
    assert_int_equal(remove_range(rig, at, BLOCK), -EBB_EAGAIN);
    assert_int_equal(ebb_evacuate_range(zone_of(rig), at, BLOCK,
                                        &(struct ebb_migrate_ops){.migrate = owner_migrate}),
                     0);
    assert_int_equal(remove_range(rig, at, BLOCK), -EBB_EAGAIN);
    expect_state(rig, at, BLOCK, EBB_BLOCK_IN_FLIGHT);
}

static void test_remove_during_a_batch(void **state)
{
    struct rig *rig = new_rig((struct rig_config){.capacity = 4});
    ebb_pfn_t at = 0;

    (void)state;
    rig->on_submit = remove_what_is_in_the_batch;
    rig->ctx = &at;
    rig->later = true;
    rig_register(rig);
    rig_run_after(rig, 100 * MS);
    assert_true(rig->in_flight);
    assert_true(at > 0);
    assert_int_equal(remove_range(rig, at, BLOCK), -EBB_EAGAIN);
    rig_complete(rig, 0);
    assert_int_equal(remove_range(rig, at, BLOCK), -EBB_EAGAIN); /* not put back yet */
    rig_run(rig);
    assert_int_equal(rig_block(rig, 0, at).state, EBB_BLOCK_FREE);
    assert_int_equal(rig_block(rig, 0, at).type, EBB_ISOLATE);
    assert_int_equal(remove_range(rig, at, BLOCK), 0);
    rig_settle(rig);
    rig_forget(rig);
    report_all(rig);
    assert_false(any_reported(rig, at, BLOCK));
    assert_int_equal(rig_zone_stats(rig, 0).reported, FRAMES - BLOCK);
    rig->later = false;
    assert_int_equal(ebb_zone_add(zone_of(rig), at, BLOCK), 0);
    rig_settle(rig);
    assert_int_equal(rig_times_reported(rig, at), 1);
    assert_int_equal(rig_zone_stats(rig, 0).reported, FRAMES);
    rig_free(rig);
}

/* Something else goes while a batch is out: its blocks come back as they should. */
static void remove_something_else(struct rig *rig)
{
    ebb_pfn_t *at = rig->ctx;

    if (*at)
        return;
    for (ebb_pfn_t pfn = BASE; pfn < BASE + FRAMES && !*at; pfn += BLOCK) {
        if (rig_block(rig, 0, pfn).state == EBB_BLOCK_FREE)
            *at = pfn;
    }
    isolate(rig, *at, BLOCK);
    assert_int_equal(remove_range(rig, *at, BLOCK), 0);
}

static void test_remove_beside_a_batch(void **state)
{
    struct rig *rig = new_rig((struct rig_config){.capacity = 3});
    ebb_pfn_t at = 0;

    (void)state;
    rig->on_submit = remove_something_else;
    rig->ctx = &at;
    rig_register(rig);
    rig_settle(rig);
    assert_true(at > 0);
    assert_false(any_reported(rig, at, BLOCK));
    assert_int_equal(rig_zone_stats(rig, 0).reported, FRAMES - BLOCK);
    assert_int_equal(rig_zone_stats(rig, 0).managed, FRAMES - BLOCK);
    rig_free(rig);
}

/* Every block is with the host in turn; neither a failed nor a successful attempt on a
 * range that it overlaps harms anything. */
static void alloc_around_the_batch(struct rig *rig)
{
    struct ebb_zone_stats before = rig_zone_stats(rig, 0);
    unsigned *got = rig->ctx;

    for (unsigned i = 0; i < rig->batch->n; i++) {
        ebb_pfn_t pfn = rig->batch->ranges[i].addr >> EBB_FRAME_SHIFT;

        assert_int_equal(alloc_range(rig, pfn, 1), -EBB_EAGAIN);
        assert_int_equal(alloc_range(rig, pfn + BLOCK - 1, 1), -EBB_EAGAIN);
        if (pfn > BASE)
            assert_int_equal(alloc_range(rig, pfn - 1, 3), -EBB_EAGAIN);
        assert_int_equal(alloc_range(rig, BASE, FRAMES), -EBB_EAGAIN);
    }
    assert_int_equal(rig_zone_stats(rig, 0).reported, before.reported);
    assert_int_equal(rig_zone_stats(rig, 0).free, before.free);
    assert_int_equal(rig_zone_stats(rig, 0).refaulted, before.refaulted);
    for (ebb_pfn_t pfn = BASE; *got < 20 && pfn < BASE + FRAMES; pfn += BLOCK) {
        if (rig_block(rig, 0, pfn).state != EBB_BLOCK_FREE)
            continue;
        assert_int_equal(alloc_range(rig, pfn + 3, BLOCK - 5), 0);
        free_range(rig, pfn + 3, BLOCK - 5);
        assert_int_equal(rig_block(rig, 0, pfn).order, MAX_ORDER);
        (*got)++;
        break;
    }
}

static void test_alloc_during_a_batch(void **state)
{
    struct rig *rig = new_rig((struct rig_config){.capacity = 2});
    unsigned got = 0;

    (void)state;
    rig->on_submit = alloc_around_the_batch;
    rig->ctx = &got;
    rig_register(rig);
    rig_settle(rig);
    assert_true(got > 0);
    rig->on_submit = NULL;
    report_all(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, FRAMES);
    rig_free(rig);
}

static void search_during_the_batch(struct rig *rig)
{
    ebb_pfn_t *got = rig->ctx;
    ebb_pfn_t pfn = 7;

    /* The whole zone would do, if only the host answered. */
    assert_int_equal(ebb_alloc_contiguous(zone_of(rig), FRAMES, 0, NULL, &pfn), -EBB_EAGAIN);
    assert_int_equal(pfn, 7);
    if (*got)
        return;
    assert_int_equal(ebb_alloc_contiguous(zone_of(rig), BLOCK + 1, 2, NULL, got), 0);
}

static void test_search_during_a_batch(void **state)
{
    struct rig *rig = new_rig((struct rig_config){.capacity = 2});
    ebb_pfn_t pfn = 0;

    (void)state;
    rig->on_submit = search_during_the_batch;
    rig->ctx = &pfn;
    rig->later = true;
    rig_register(rig);
    rig_run_after(rig, 100 * MS);
    assert_true(pfn > 0);
    expect_state(rig, pfn, BLOCK + 1, EBB_BLOCK_ALLOCATED);
    rig->on_submit = NULL;
    rig_settle(rig);
    assert_false(any_reported(rig, pfn, BLOCK + 1));
    free_range(rig, pfn, BLOCK + 1);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, FRAMES);
    rig_free(rig);
}

/* With too little memory one place is as good as another: only one is tried. */
static void test_search_short_of_memory(void **state)
{
    struct rig *rig = new_rig((struct rig_config){.watermark_min = FRAMES - 150});
    uint64_t locks;
    ebb_pfn_t pfn;

    (void)state;
    rig->later = true;
    rig_register(rig);
    rig_run_after(rig, 100 * MS);
    assert_int_equal(rig_zone_stats(rig, 0).in_flight, BLOCK);
    locks = port_virtual.locks;
    assert_int_equal(ebb_alloc_contiguous(zone_of(rig), 100, 1, NULL, &pfn), -EBB_EAGAIN);
    assert_in_range(port_virtual.locks - locks, 1, 20);
    rig_complete(rig, 0);
    rig_run(rig);
    rig->later = false;
    rig_settle(rig);
    assert_int_equal(ebb_alloc_contiguous(zone_of(rig), 100, 1, NULL, &pfn), 0);
    free_range(rig, pfn, 100);
    rig_free(rig);
}

/* ---- allocating a range ---- */

static void test_alloc_any_range(void **state)
{
    struct rig *rig = new_rig((struct rig_config){0});
    struct ebb_zone *zone = zone_of(rig);
    struct ebb_zone_stats before;

    (void)state;
    rig_register_and_settle(rig);
    isolate(rig, BASE + PB, PB);
    assert_int_equal(ebb_putback_range(zone, BASE + PB, PB, EBB_UNMOVABLE), 0);
    before = rig_zone_stats(rig, 0);
    for (unsigned from = 0; from < 3 * BLOCK; from += 7) {
        for (unsigned n = 1; n < 2 * BLOCK; n += 13) {
            ebb_pfn_t pfn = BASE + from;

            assert_int_equal(alloc_range(rig, pfn, n), 0);
            assert_int_equal(rig_zone_stats(rig, 0).allocated, n);
            expect_state(rig, pfn, n, EBB_BLOCK_ALLOCATED);
            assert_int_equal(rig_block(rig, 0, pfn + n).state, EBB_BLOCK_FREE);
            assert_int_equal(alloc_range(rig, pfn + n - 1, 2), -EBB_EBUSY);
            /* In two parts, which are not the blocks it is made of. */
            free_range(rig, pfn + n / 3, n - n / 3);
            if (n / 3 > 0)
                free_range(rig, pfn, n / 3);
            assert_int_equal(rig_zone_stats(rig, 0).allocated, 0);
        }
    }
    /* The types are what they were. */
    for (unsigned i = 0; i < FRAMES; i += PB)
        assert_int_equal(rig_block(rig, 0, BASE + i).type,
                         i == PB && rig_block(rig, 0, BASE + i).pfn == BASE + PB ? EBB_UNMOVABLE
                                                                                 : EBB_MOVABLE);
    assert_true(rig_zone_stats(rig, 0).refaulted > before.refaulted);
    report_all(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, FRAMES);
    rig_free(rig);
}

static void test_alloc_range_refuses(void **state)
{
    struct rig *rig = new_rig((struct rig_config){.hole = true, .watermark_min = 100});
    struct ebb_zone *zone = zone_of(rig);
    const ebb_pfn_t at = BASE + 4 * BLOCK;
    struct ebb_zone_stats before;
    ebb_pfn_t pfn;

    (void)state;
    rig_register_and_settle(rig);
    before = rig_zone_stats(rig, 0);
    assert_int_equal(alloc_range(rig, at, 0), -EBB_EINVAL);
    assert_int_equal(alloc_range(rig, BASE - 1, 2), -EBB_EINVAL);
    assert_int_equal(alloc_range(rig, BASE + FRAMES - 1, 2), -EBB_EINVAL);
    assert_int_equal(alloc_range(rig, at, UINT64_MAX - 5), -EBB_EINVAL);
    assert_int_equal(alloc_range(rig, BASE + BLOCK - 1, 2), -EBB_ENOENT);
    assert_int_equal(alloc_range(rig, BASE + BLOCK, FRAMES - BLOCK), -EBB_ENOMEM);
    assert_int_equal(rig_zone_stats(rig, 0).failures, before.failures + 1);
    assert_int_equal(ebb_alloc_at(zone, at + 50, 0, 0), 0);
    assert_int_equal(alloc_range(rig, at + 3, 48), -EBB_EBUSY);
    assert_int_equal(alloc_range(rig, at + 3, 47), 0);
    free_range(rig, at + 3, 47);
    assert_int_equal(ebb_free(zone, at + 50, 0), 0);
    isolate(rig, at + BLOCK, PB);
    assert_int_equal(alloc_range(rig, at + BLOCK - 5, 10), -EBB_EBUSY);
    assert_int_equal(ebb_putback_range(zone, at + BLOCK, PB, EBB_MOVABLE), 0);
    assert_int_equal(rig_zone_stats(rig, 0).allocated, 0);

    pfn = 1;
    assert_int_equal(ebb_alloc_contiguous(zone, 0, 0, NULL, &pfn), -EBB_EINVAL);
    assert_int_equal(ebb_alloc_contiguous(zone, 1, 3, NULL, &pfn), -EBB_EINVAL);
    assert_int_equal(ebb_alloc_contiguous(zone, 1, (uint64_t)1 << 53, NULL, &pfn), -EBB_EINVAL);
    assert_int_equal(ebb_alloc_contiguous(zone, FRAMES + 1, 1, NULL, &pfn), -EBB_EINVAL);
    assert_int_equal(ebb_alloc_contiguous(zone, FRAMES, 1, NULL, &pfn), -EBB_ENOMEM);
    assert_int_equal(ebb_alloc_contiguous(zone, 1, (uint64_t)1 << 52, NULL, &pfn), -EBB_ENOMEM);
    assert_int_equal(ebb_alloc_contiguous(zone, FRAMES - BLOCK, 1, NULL, &pfn), -EBB_ENOMEM);
    assert_int_equal(pfn, 1);
    rig_free(rig);
}

/* An attempt that fails leaves the marks, where the parts of a block keep theirs. */
static void test_a_failed_attempt_keeps_marks(void **state)
{
    struct rig *rig = new_rig((struct rig_config){0});
    struct ebb_zone *zone = zone_of(rig);
    struct ebb_zone_stats before;

    (void)state;
    rig_register_and_settle(rig);
    assert_int_equal(ebb_alloc_at(zone, BASE + FRAMES - 1, 0, 0), 0);
    before = rig_zone_stats(rig, 0);
    assert_int_equal(alloc_range(rig, BASE + 5, FRAMES - 5), -EBB_EBUSY);
    assert_int_equal(rig_zone_stats(rig, 0).reported, before.reported);
    assert_int_equal(rig_zone_stats(rig, 0).free, before.free);
    assert_int_equal(rig_zone_stats(rig, 0).refaulted, before.refaulted);
    assert_int_equal(rig_zone_stats(rig, 0).allocs, before.allocs);
    assert_int_equal(rig_block(rig, 0, BASE).order, MAX_ORDER);
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), 0);
    assert_int_equal(ebb_free(zone, BASE + FRAMES - 1, 0), 0);
    ebb_zone_drain(zone);
    rig_free(rig);
}

static void test_free_range_refuses(void **state)
{
    struct rig *rig = new_rig((struct rig_config){.hole = true});
    struct ebb_zone *zone = zone_of(rig);
    const ebb_pfn_t at = BASE + 2 * BLOCK;
    ebb_pfn_t other = rig_alloc(rig, 0, 2);

    (void)state;
    assert_int_equal(alloc_range(rig, at + 3, 50), 0);
    const struct {
        ebb_pfn_t pfn;
        uint64_t frames;
        enum ebb_misuse_kind kind;
        ebb_pfn_t first;
    } bad[] = {
        {at + 2, 2, EBB_MISUSE_DOUBLE_FREE, at + 2},
        {at + 3, 51, EBB_MISUSE_DOUBLE_FREE, at + 53},
        {at + 3, 0, EBB_MISUSE_INSIDE_BLOCK, at + 3},
        {BASE + 3, 1, EBB_MISUSE_FOREIGN_PFN, BASE + 3},
        {BASE + FRAMES, 1, EBB_MISUSE_FOREIGN_PFN, BASE + FRAMES},
        {0, 1, EBB_MISUSE_FOREIGN_PFN, 0},
        {other, 4, EBB_MISUSE_INSIDE_BLOCK, other},
    };

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(ebb_free_range(zone, bad[i].pfn, bad[i].frames), -EBB_EINVAL);
        assert_int_equal(port_virtual.misuses, i + 1);
        assert_int_equal(port_virtual.misuse.kind, bad[i].kind);
        assert_int_equal(port_virtual.misuse.pfn, bad[i].first);
        assert_int_equal(rig_zone_stats(rig, 0).misuses, i + 1);
        assert_int_equal(rig_zone_stats(rig, 0).allocated, 54);
        rig_check(rig);
    }
    free_range(rig, at + 3, 50);
    assert_int_equal(ebb_free_range(zone, at + 3, 50), -EBB_EINVAL);
    rig_release(rig, 0, other, 2);
    port_virtual.misuses = 0;
    zone->misuses = 0;
    rig_free(rig);
}

/* ---- moving what is in the way ---- */

struct scene {
    struct rig *rig;
    struct owner owner;
    struct ebb_migrate_ops ops;
};

static struct scene *new_scene(struct rig_config config, uint64_t seed)
{
    struct scene *scene = calloc(1, sizeof(*scene));

    assert_non_null(scene);
    scene->rig = new_rig(config);
    owner_init(&scene->owner, zone_of(scene->rig), seed);
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

/* A block of the owner's at exactly that place. */
static void own_at(struct scene *scene, ebb_pfn_t pfn, unsigned order)
{
    assert_int_equal(ebb_alloc_at(zone_of(scene->rig), pfn, order, 0), 0);
    owner_adopt(&scene->owner, pfn, order, EBB_MOVABLE);
}

static int alloc_moving(struct scene *scene, ebb_pfn_t pfn, uint64_t frames)
{
    int err = ebb_alloc_range(zone_of(scene->rig), pfn, frames, &scene->ops);

    rig_check(scene->rig);
    owner_check(&scene->owner);
    return err;
}

static void test_alloc_moves_what_is_movable(void **state)
{
    struct scene *scene = new_scene((struct rig_config){0}, 1);
    const ebb_pfn_t at = BASE + 5 * BLOCK;

    (void)state;
    own_at(scene, at, 3);             /* reaches into the range */
    own_at(scene, at + 16, 2);        /* within it */
    own_at(scene, at + 20, 0);        /* likewise */
    own_at(scene, at + 2 * BLOCK, 6); /* reaches out of it */
    assert_int_equal(alloc_range(scene->rig, at + 5, 2 * BLOCK), -EBB_EBUSY); /* no ops */
    assert_int_equal(alloc_moving(scene, at + 5, 2 * BLOCK), 0);
    assert_int_equal(scene->owner.moves, 4);
    expect_state(scene->rig, at + 5, 2 * BLOCK, EBB_BLOCK_ALLOCATED);
    for (unsigned i = 0; i < scene->owner.count; i++) {
        const struct owned *owned = &scene->owner.owned[i];

        assert_true(owned->pfn + (1u << owned->order) <= at + 5 ||
                    owned->pfn >= at + 5 + 2 * BLOCK);
    }
    assert_int_equal(rig_zone_stats(scene->rig, 0).allocated, 2 * BLOCK + 8 + 4 + 1 + BLOCK);
    free_range(scene->rig, at + 5, 2 * BLOCK);
    free_scene(scene);
}

static void test_alloc_stops_at_what_is_not(void **state)
{
    struct scene *scene = new_scene((struct rig_config){0}, 2);
    const ebb_pfn_t at = BASE + 5 * BLOCK;
    ebb_pfn_t fixed;
    struct ebb_zone_stats before;

    (void)state;
    assert_int_equal(ebb_alloc(zone_of(scene->rig), 1, EBB_UNMOVABLE, 0, &fixed), 0);
    own_at(scene, at + 1, 0);
    before = rig_zone_stats(scene->rig, 0);
    /* It is seen before anything is moved for nothing. */
    assert_int_equal(alloc_moving(scene, BASE, FRAMES - 2 * BLOCK), -EBB_EBUSY);
    assert_int_equal(scene->owner.calls, 0);
    assert_int_equal(rig_zone_stats(scene->rig, 0).reported, before.reported);
    assert_int_equal(ebb_free(zone_of(scene->rig), fixed, 1), 0);
    /* Pinned: the attempts end. */
    scene->owner.pinned = at + 1;
    assert_int_equal(alloc_moving(scene, at, 10), -EBB_EBUSY);
    assert_true(scene->owner.calls > 0);
    assert_int_equal(scene->owner.moves, 0);
    assert_int_equal(rig_zone_stats(scene->rig, 0).allocated, 1);
    /* One frame is freed in the callback: all the better. */
    scene->owner.pinned = 0;
    scene->owner.release = 256;
    assert_int_equal(alloc_moving(scene, at, 10), 0);
    assert_int_equal(scene->owner.count, 0);
    free_range(scene->rig, at, 10);
    free_scene(scene);
}

/* With everything else full, there is nowhere to move to: nothing is lost. */
static void test_alloc_without_room(void **state)
{
    struct scene *scene = new_scene((struct rig_config){0}, 3);

    (void)state;
    while (owner_alloc(&scene->owner, 0, EBB_MOVABLE, EBB_ALLOC_NO_CACHE) == 0)
        ;
    assert_int_equal(scene->owner.count, FRAMES);
    owner_free_at(&scene->owner, BASE + 7);
    ebb_zone_drain(zone_of(scene->rig));
    assert_int_equal(alloc_moving(scene, BASE + 6, 3), -EBB_ENOMEM);
    assert_int_equal(rig_zone_stats(scene->rig, 0).allocated, FRAMES - 1);
    owner_free_at(&scene->owner, BASE + 107);
    owner_free_at(&scene->owner, BASE + 300);
    assert_int_equal(alloc_moving(scene, BASE + 6, 3), 0); /* one of the caches' too */
    assert_int_equal(scene->owner.moves, 2);
    free_range(scene->rig, BASE + 6, 3);
    free_scene(scene);
}

static void test_evacuate_and_remove(void **state)
{
    struct scene *scene = new_scene((struct rig_config){0}, 4);
    struct ebb_zone *zone = zone_of(scene->rig);
    const ebb_pfn_t at = BASE + 8 * BLOCK;

    (void)state;
    assert_int_equal(ebb_evacuate_range(zone, at, PB, &scene->ops), -EBB_EINVAL);
    for (unsigned i = 0; i < 300; i++)
        own_at(scene, at + i, 0);
    isolate(scene->rig, at, 4 * BLOCK);
    assert_int_equal(ebb_evacuate_range(zone, at, 4 * BLOCK, NULL), -EBB_EINVAL);
    assert_int_equal(ebb_evacuate_range(zone, at, 0, &scene->ops), -EBB_EINVAL);
    scene->owner.pinned = at + 40;
    assert_int_equal(ebb_evacuate_range(zone, at, 4 * BLOCK, &scene->ops), -EBB_EBUSY);
    assert_int_equal(remove_range(scene->rig, at, 4 * BLOCK), -EBB_EBUSY);
    scene->owner.pinned = 0;
    assert_int_equal(ebb_evacuate_range(zone, at, 4 * BLOCK, &scene->ops), 0);
    owner_check(&scene->owner);
    assert_int_equal(rig_zone_stats(scene->rig, 0).isolated, 4 * BLOCK);
    assert_int_equal(remove_range(scene->rig, at, 4 * BLOCK), 0);
    for (unsigned i = 0; i < scene->owner.count; i++)
        assert_true(scene->owner.owned[i].pfn < at || scene->owner.owned[i].pfn >= at + 4 * BLOCK);
    rig_forget(scene->rig);
    report_all(scene->rig);
    assert_false(any_reported(scene->rig, at, 4 * BLOCK));
    free_scene(scene);
}

/* ---- owners who break the contract, and others at work ---- */

/* Moves, and frees what it must not. */
static int move_and_free(void *ctx, ebb_pfn_t from, ebb_pfn_t to, unsigned order)
{
    struct scene *scene = ctx;
    int err = owner_migrate(&scene->owner, from, to, order);

    if (!err)
        assert_int_equal(ebb_free(zone_of(scene->rig), from, order), 0);
    return err;
}

/* Refuses, and frees what it was offered. */
static int refuse_and_free(void *ctx, ebb_pfn_t from, ebb_pfn_t to, unsigned order)
{
    struct scene *scene = ctx;

    (void)from;
    assert_int_equal(ebb_free(zone_of(scene->rig), to, order), 0);
    return -EBB_EBUSY;
}

static void forget_misuses(struct scene *scene, unsigned expected, enum ebb_misuse_kind kind)
{
    assert_int_equal(port_virtual.misuses, expected);
    assert_int_equal(port_virtual.misuse.kind, kind);
    assert_int_equal(rig_zone_stats(scene->rig, 0).misuses, expected);
    port_virtual.misuses = 0;
    zone_of(scene->rig)->misuses = 0;
    rig_check(scene->rig);
    owner_check(&scene->owner);
}

static void test_broken_owners_are_told(void **state)
{
    struct scene *scene = new_scene((struct rig_config){0}, 11);
    struct ebb_zone *zone = zone_of(scene->rig);
    const ebb_pfn_t at = BASE + 3 * BLOCK;

    (void)state;
    scene->ops = (struct ebb_migrate_ops){.migrate = move_and_free, .ctx = scene};
    own_at(scene, at, 2);
    assert_int_equal(alloc_moving(scene, at + 1, 2), 0);
    forget_misuses(scene, 1, EBB_MISUSE_DOUBLE_FREE);
    assert_int_equal(rig_zone_stats(scene->rig, 0).allocated, 4 + 2);
    free_range(scene->rig, at + 1, 2);

    own_at(scene, at + BLOCK, 3);
    isolate(scene->rig, at + BLOCK, PB);
    assert_int_equal(ebb_evacuate_range(zone, at + BLOCK, PB, &scene->ops), 0);
    forget_misuses(scene, 1, EBB_MISUSE_DOUBLE_FREE);
    assert_int_equal(ebb_putback_range(zone, at + BLOCK, PB, EBB_MOVABLE), 0);

    scene->ops.migrate = refuse_and_free;
    own_at(scene, at + 2 * BLOCK, 2);
    assert_int_equal(alloc_moving(scene, at + 2 * BLOCK, 2), -EBB_EBUSY);
    assert_true(port_virtual.misuses > 0);
    forget_misuses(scene, port_virtual.misuses, EBB_MISUSE_DOUBLE_FREE);
    assert_int_equal(ebb_alloc_range(zone, at, 2, &(struct ebb_migrate_ops){0}), -EBB_EINVAL);
    free_scene(scene);
}

/* While one range is being gathered, somebody wants another. */
static int take_another(void *ctx, ebb_pfn_t from, ebb_pfn_t to, unsigned order)
{
    struct scene *scene = ctx;
    struct ebb_zone *zone = zone_of(scene->rig);
    const ebb_pfn_t at = BASE + 3 * BLOCK;

    /* All that was free of [at, at + 2 * BLOCK) is claimed. */
    assert_int_equal(ebb_alloc_range(zone, at - 5, 10, NULL), -EBB_EBUSY);
    assert_int_equal(ebb_alloc_range(zone, at + 2 * BLOCK - 1, 1, &scene->ops), -EBB_EBUSY);
    assert_int_equal(ebb_free_range(zone, at + 1, 1), -EBB_EINVAL);
    assert_int_equal(ebb_alloc_range(zone, at - 5, 5, NULL), 0);
    assert_int_equal(ebb_isolate_range(zone, at, BLOCK), 0);
    assert_int_equal(ebb_zone_remove(zone, at, BLOCK), -EBB_EBUSY);
    assert_int_equal(ebb_putback_range(zone, at, BLOCK, EBB_UNMOVABLE), 0);
    rig_check(scene->rig);
    assert_int_equal(ebb_free_range(zone, at - 5, 5), 0);
    scene->owner.calls++;
    return owner_migrate(&scene->owner, from, to, order);
}

static void test_ranges_keep_apart(void **state)
{
    struct scene *scene = new_scene((struct rig_config){0}, 12);
    const ebb_pfn_t at = BASE + 3 * BLOCK;

    (void)state;
    own_at(scene, at + 40, 2);
    scene->ops = (struct ebb_migrate_ops){.migrate = take_another, .ctx = scene};
    assert_int_equal(alloc_moving(scene, at, 2 * BLOCK), 0);
    assert_int_equal(scene->owner.moves, 1);
    forget_misuses(scene, 1, EBB_MISUSE_INSIDE_BLOCK); /* it tried to free what was not its own */
    free_range(scene->rig, at, 2 * BLOCK);
    /* Isolated meanwhile, the blocks know where they belong. */
    assert_int_equal(rig_block(scene->rig, 0, at).type, EBB_UNMOVABLE);
    free_scene(scene);
}

/* ---- a zone that fills its free frames ---- */

#define POISON EBB_POISON_VALUE

static void fill(void *ctx, ebb_pfn_t pfn, uint64_t frames, uint32_t value)
{
    assert_int_equal(port_virtual.locks_held, 0);
    for (uint64_t i = 0; i < frames; i++)
        *owner_content(ctx, pfn + i) = value;
}

static bool verify(void *ctx, ebb_pfn_t pfn, uint64_t frames, uint32_t value)
{
    assert_int_equal(port_virtual.locks_held, 0);
    for (uint64_t i = 0; i < frames; i++) {
        if (*owner_content(ctx, pfn + i) != value)
            return false;
    }
    return true;
}

static void check_filled(struct owner *owner)
{
    struct ebb_violation violation;
    struct ebb_block block;

    assert_int_equal(ebb_zone_check(owner->zone, EBB_CHECK_FRAMES, &violation), 0);
    owner_check(owner);
    for (ebb_pfn_t pfn = BASE; pfn < BASE + FRAMES; pfn++) {
        ebb_zone_lookup(owner->zone, pfn, &block);
        if (block.state == EBB_BLOCK_FREE)
            assert_int_equal(*owner_content(owner, pfn), POISON);
    }
    assert_int_equal(port_virtual.misuses, 0);
}

static void test_free_frames_are_filled(void **state)
{
    struct ebb_zone zone;
    struct owner owner;
    const struct ebb_zone_config config = {
        .base = BASE,
        .frames = FRAMES,
        .max_order = MAX_ORDER,
        .pageblock_order = PAGEBLOCK,
        .fill_policy = EBB_FILL_POISON,
        .fill = fill,
        .verify = verify,
        .clear_ctx = &owner,
    };
    size_t size = (ebb_zone_metadata_size(&config) + 63) / 64 * 64;
    void *metadata = aligned_alloc(64, size);
    struct ebb_compact compaction;

    (void)state;
    memset(&zone, 0, sizeof(zone));
    memset(metadata, 0, size);
    assert_int_equal(ebb_zone_init(&zone, &config, metadata), 0);
    owner_init(&owner, &zone, 1);
    const struct ebb_migrate_ops ops = owner_ops(&owner);

    assert_int_equal(ebb_zone_add(&zone, BASE, FRAMES), 0);
    for (unsigned i = 0; i < FRAMES; i += 8)
        assert_int_equal(ebb_alloc_at(&zone, BASE + i, i / 8 % 3, 0), 0);
    for (unsigned i = 0; i < FRAMES; i += 8)
        owner_adopt(&owner, BASE + i, i / 8 % 3, EBB_MOVABLE);
    check_filled(&owner);
    /* Given up half-way, and completed. */
    owner.pinned = BASE + 160;
    assert_int_equal(ebb_alloc_range(&zone, BASE + 65, 100, &ops), -EBB_EBUSY);
    assert_true(owner.moves > 5);
    check_filled(&owner);
    owner.pinned = 0;
    assert_int_equal(ebb_alloc_range(&zone, BASE + 65, 100, &ops), 0);
    check_filled(&owner);
    for (unsigned i = 0; i < 100; i++)
        *owner_content(&owner, BASE + 65 + i) = 1;
    assert_int_equal(ebb_free_range(&zone, BASE + 70, 95), 0);
    assert_int_equal(ebb_free_range(&zone, BASE + 65, 5), 0);
    check_filled(&owner);
    /* Evacuated, removed and added; compacted. */
    assert_int_equal(ebb_isolate_range(&zone, BASE + 256, 64), 0);
    assert_int_equal(ebb_evacuate_range(&zone, BASE + 256, 64, &ops), 0);
    check_filled(&owner);
    assert_int_equal(ebb_zone_remove(&zone, BASE + 256, 64), 0);
    *owner_content(&owner, BASE + 256) = 1;
    assert_int_equal(ebb_zone_add(&zone, BASE + 256, 64), 0);
    check_filled(&owner);
    assert_int_equal(ebb_compact_init(&compaction, &zone, 0, 0), 0);
    assert_int_equal(ebb_compact(&compaction, &ops, 0), 0);
    assert_true(compaction.made > 5);
    check_filled(&owner);
    owner_free_all(&owner);
    ebb_zone_drain(&zone);
    check_filled(&owner);
    /* What somebody wrote to is seen, for a range as for a block. */
    *owner_content(&owner, BASE + 500) = 1;
    assert_int_equal(ebb_alloc_range(&zone, BASE + 450, 100, NULL), 0);
    assert_int_equal(port_virtual.misuses, 1);
    assert_int_equal(port_virtual.misuse.kind, EBB_MISUSE_WRITE_AFTER_FREE);
    assert_int_equal(port_virtual.misuse.found_pfn, BASE + 500);
    assert_int_equal(*owner_content(&owner, BASE + 500), POISON);
    assert_int_equal(ebb_free_range(&zone, BASE + 450, 100), 0);
    owner_done(&owner);
    free(metadata);
}

/* ---- searching ---- */

static void test_search_prefers_what_is_free(void **state)
{
    struct scene *scene = new_scene((struct rig_config){0}, 5);
    struct ebb_zone *zone = zone_of(scene->rig);
    ebb_pfn_t pfn = 0;
    ebb_pfn_t fixed[3];

    (void)state;
    own_at(scene, BASE + 3, 0);
    own_at(scene, BASE + 2 * BLOCK + 8, 3);
    own_at(scene, BASE + 9 * BLOCK, 6);
    assert_int_equal(ebb_alloc_contiguous(zone, 6 * BLOCK + 3, 32, &scene->ops, &pfn), 0);
    assert_int_equal(pfn, BASE + 2 * BLOCK + 32);
    assert_int_equal(scene->owner.calls, 0);
    free_range(scene->rig, pfn, 6 * BLOCK + 3);
    /* No free range is so long: the first that can be emptied. */
    assert_int_equal(ebb_alloc_contiguous(zone, 8 * BLOCK, 1, NULL, &pfn), -EBB_ENOMEM);
    assert_int_equal(ebb_alloc_contiguous(zone, 8 * BLOCK, 1, &scene->ops, &pfn), 0);
    assert_int_equal(pfn, BASE);
    assert_int_equal(scene->owner.moves, 2);
    owner_check(&scene->owner);
    rig_check(scene->rig);
    free_range(scene->rig, pfn, 8 * BLOCK);
    owner_free_all(&scene->owner);

    /* Around what cannot be moved. */
    for (unsigned i = 0; i < 3; i++) {
        fixed[i] = BASE + (4 * i + 2) * BLOCK + i;
        assert_int_equal(alloc_range(scene->rig, fixed[i], 1), 0);
    }
    own_at(scene, BASE + 4 * BLOCK, 0);
    scene->owner.pinned = BASE + 4 * BLOCK;
    assert_int_equal(ebb_alloc_contiguous(zone, 4 * BLOCK - 1, 1, &scene->ops, &pfn), 0);
    assert_int_equal(pfn, BASE + 6 * BLOCK + 2);
    free_range(scene->rig, pfn, 4 * BLOCK - 1);
    assert_int_equal(alloc_range(scene->rig, BASE + 11 * BLOCK, 5 * BLOCK), 0);
    own_at(scene, BASE + 7 * BLOCK, 0); /* one may be moved, the other not */
    assert_int_equal(ebb_alloc_contiguous(zone, 4 * BLOCK - 1, 1, &scene->ops, &pfn), 0);
    assert_int_equal(pfn, BASE + 6 * BLOCK + 2);
    assert_int_equal(ebb_alloc_contiguous(zone, 4 * BLOCK - 1, 1, &scene->ops, &pfn), -EBB_ENOMEM);
    free_range(scene->rig, pfn, 4 * BLOCK - 1);
    free_range(scene->rig, BASE + 11 * BLOCK, 5 * BLOCK);
    for (unsigned i = 0; i < 3; i++)
        free_range(scene->rig, fixed[i], 1);
    free_scene(scene);
}

/* ---- at random ---- */

struct taken {
    ebb_pfn_t pfn;
    uint64_t frames;
};

struct chaos {
    struct scene *scene;
    struct taken ranges[64]; /* allocated by range */
    unsigned count;
    struct taken offline; /* isolated (and perhaps removed) */
    bool isolated;
    bool removed;
    unsigned allocated, removals, moved_for; /* what came true */
};

static uint64_t draw(struct chaos *chaos, uint64_t below)
{
    return owner_random(&chaos->scene->owner) % below;
}

static void chaos_range(struct chaos *chaos)
{
    struct ebb_zone *zone = zone_of(chaos->scene->rig);
    struct taken *taken = &chaos->ranges[chaos->count];
    const struct ebb_migrate_ops *ops = draw(chaos, 4) ? &chaos->scene->ops : NULL;
    unsigned moves = chaos->scene->owner.moves;
    int err;

    taken->frames = 1 + draw(chaos, draw(chaos, 2) ? 10 : 150);
    taken->pfn = BASE + draw(chaos, FRAMES - taken->frames);
    if (draw(chaos, 2))
        err = ebb_alloc_range(zone, taken->pfn, taken->frames, ops);
    else
        err = ebb_alloc_contiguous(zone, taken->frames, (uint64_t)1 << draw(chaos, 8), ops,
                                   &taken->pfn);
    assert_true(err == 0 || err == -EBB_EBUSY || err == -EBB_EAGAIN || err == -EBB_ENOMEM ||
                err == -EBB_ENOENT);
    if (err)
        return;
    chaos->count++;
    chaos->allocated++;
    chaos->moved_for += chaos->scene->owner.moves > moves;
    for (uint64_t i = 0; i < taken->frames; i++)
        *owner_content(&chaos->scene->owner, taken->pfn + i) = taken->pfn;
}

static void chaos_release(struct chaos *chaos)
{
    unsigned which = (unsigned)draw(chaos, chaos->count);
    struct taken taken = chaos->ranges[which];

    chaos->ranges[which] = chaos->ranges[--chaos->count];
    for (uint64_t i = 0; i < taken.frames; i++)
        assert_int_equal(*owner_content(&chaos->scene->owner, taken.pfn + i), taken.pfn);
    assert_int_equal(ebb_free_range(zone_of(chaos->scene->rig), taken.pfn, taken.frames), 0);
}

/* One step of a range's way out and in again. */
static void chaos_hotplug(struct chaos *chaos)
{
    struct ebb_zone *zone = zone_of(chaos->scene->rig);
    struct taken *offline = &chaos->offline;

    if (chaos->removed) {
        chaos->removed = false; /* it may be reported before this returns */
        assert_int_equal(ebb_zone_add(zone, offline->pfn, offline->frames), 0);
    } else if (!chaos->isolated) {
        offline->frames = (1 + draw(chaos, 5)) * PB;
        offline->pfn = BASE + draw(chaos, (FRAMES - offline->frames) / PB) * PB;
        isolate(chaos->scene->rig, offline->pfn, offline->frames);
        chaos->isolated = true;
    } else if (draw(chaos, 3) == 0) {
        assert_int_equal(ebb_putback_range(zone, offline->pfn, offline->frames, EBB_MOVABLE), 0);
        chaos->isolated = false;
    } else if (draw(chaos, 2)) {
        (void)!ebb_evacuate_range(zone, offline->pfn, offline->frames, &chaos->scene->ops);
    } else if (ebb_zone_remove(zone, offline->pfn, offline->frames) == 0) {
        chaos->isolated = false;
        chaos->removed = true;
        chaos->removals++;
    }
}

/* The host drops what it is told of: what is in use and lost thereby shows. */
static void drop(struct rig *rig)
{
    struct chaos *chaos = rig->ctx;

    for (unsigned i = 0; i < rig->batch->n; i++) {
        ebb_pfn_t pfn = rig->batch->ranges[i].addr >> EBB_FRAME_SHIFT;

        for (uint64_t k = 0; k < rig->batch->ranges[i].len >> EBB_FRAME_SHIFT; k++) {
            assert_false(chaos->removed && pfn + k >= chaos->offline.pfn &&
                         pfn + k < chaos->offline.pfn + chaos->offline.frames);
            *owner_content(&chaos->scene->owner, pfn + k) = 0;
        }
    }
}

static void chaos_step(struct chaos *chaos)
{
    struct scene *scene = chaos->scene;
    struct rig *rig = scene->rig;

    switch (draw(chaos, 8)) {
    case 0:
    case 1:
        if (scene->owner.count < 700)
            (void)!owner_alloc(&scene->owner, (unsigned)draw(chaos, 4),
                               draw(chaos, 8) ? EBB_MOVABLE : EBB_UNMOVABLE, 0);
        break;
    case 2:
        if (scene->owner.count > 0)
            owner_free(&scene->owner, (unsigned)draw(chaos, scene->owner.count));
        break;
    case 3:
        if (chaos->count < 64)
            chaos_range(chaos);
        break;
    case 4:
        if (chaos->count > 0)
            chaos_release(chaos);
        break;
    case 5:
        chaos_hotplug(chaos);
        break;
    default:
        rig_run_after(rig, draw(chaos, 100) * MS);
        if (rig->in_flight && draw(chaos, 2))
            rig_complete(rig, draw(chaos, 8) ? 0 : -EBB_EIO);
        if (rig->submits > RIG_LOG / 2)
            rig_forget(rig);
    }
}

static void end_chaos(struct chaos *chaos)
{
    struct ebb_zone *zone = zone_of(chaos->scene->rig);

    while (chaos->count > 0)
        chaos_release(chaos);
    if (chaos->removed) {
        chaos->removed = false;
        assert_int_equal(ebb_zone_add(zone, chaos->offline.pfn, chaos->offline.frames), 0);
    }
    if (chaos->isolated)
        assert_int_equal(
            ebb_putback_range(zone, chaos->offline.pfn, chaos->offline.frames, EBB_MOVABLE), 0);
    owner_free_all(&chaos->scene->owner);
}

static void run_chaos(uint64_t seed)
{
    struct rig_config config = {
        .capacity = 4,
        .min_order = EBB_REPORT_ORDER(2),
        .cpus = 2,
        .report.backoff_ms = seed % 5 ? 1 : 0,
        .history.split = seed % 2 ? EBB_SPLIT_INHERIT : EBB_SPLIT_CLEAR,
        .history.merge = seed % 3 ? EBB_MERGE_BOTH : EBB_MERGE_NEVER,
        .history.move = seed % 4 ? EBB_MOVE_KEEP : EBB_MOVE_DEMOTE,
        .history.execution = seed % 5 ? EBB_EXECUTION_WORKER : EBB_EXECUTION_INLINE,
    };
    struct chaos chaos = {.scene = new_scene(config, seed)};

    print_message("EBB_SEED=%llu\n", (unsigned long long)seed);
    chaos.scene->owner.refuse = 20;
    chaos.scene->owner.release = 20;
    chaos.scene->owner.meddle = 40;
    chaos.scene->rig->later = true;
    chaos.scene->rig->on_submit = drop;
    chaos.scene->rig->ctx = &chaos;
    for (unsigned i = 0; i < 3000; i++) {
        port_virtual.cpu = (unsigned)draw(&chaos, 2);
        chaos_step(&chaos);
        if (i % 8 == 0)
            rig_check(chaos.scene->rig);
    }
    owner_check(&chaos.scene->owner);
    assert_true(chaos.allocated > 10);
    assert_true(chaos.moved_for > 0);
    assert_true(chaos.removals > 0);
    end_chaos(&chaos);
    rig_forget(chaos.scene->rig);
    report_all(chaos.scene->rig);
    assert_int_equal(rig_zone_stats(chaos.scene->rig, 0).reported, FRAMES);
    free_scene(chaos.scene);
}

static void test_everything_at_random(void **state)
{
    (void)state;
    for (uint64_t seed = owner_seed(1), end = seed + (getenv("EBB_SEED") ? 1 : 6); seed < end;
         seed++)
        run_chaos(seed);
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
        each(test_f60_offline_and_online),
        each(test_remove_refuses),
        each(test_remove_parts_of_blocks),
        each(test_remove_at_the_end),
        each(test_remove_everything),
        each(test_remove_during_a_batch),
        each(test_remove_beside_a_batch),
        each(test_alloc_during_a_batch),
        each(test_search_during_a_batch),
        each(test_search_short_of_memory),
        each(test_alloc_any_range),
        each(test_alloc_range_refuses),
        each(test_a_failed_attempt_keeps_marks),
        each(test_free_range_refuses),
        each(test_alloc_moves_what_is_movable),
        each(test_alloc_stops_at_what_is_not),
        each(test_alloc_without_room),
        each(test_evacuate_and_remove),
        each(test_broken_owners_are_told),
        each(test_ranges_keep_apart),
        rig_test(test_free_frames_are_filled),
        each(test_search_prefers_what_is_free),
        each(test_everything_at_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
