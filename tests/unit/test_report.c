/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine on a virtual clock. The rows F1 to F66 are those of the feature
 * table drawn from the kernel list's threads of 2019 and 2020; a test is named
 * after its row.
 *
 *   F1 F2 F3 F4 F5           marks and counts                here
 *   F13                      mixed lists                     test_report_tracker.c
 *   F14 F15 F18 F19 F47 F48  batches                         here
 *   F20 F21 F22 F23          threshold, order, delay         test_report_pacing.c
 *   F24 F26 F27 F28 F29      phases, registration            here
 *   F30                      unregister, batch in flight     test_report_faults.c
 *   F31                      free while (un)registering      test_report_threads.c
 *   F36 F37 F38 F63          isolation, in flight            here
 *   F40 F41                  the screener (locks, not time)  test_report_pacing.c
 *   F42                      warm blocks first               test_report_pacing.c
 *   F43                      rotation                        test_report_tracker.c
 *   F44 F45                  budget, watermarks              test_report_pacing.c
 *   F46                      errors                          test_report_faults.c
 *   F49 F50                  encodings of early versions     none: a batch is ranges
 *   F51                      device blind to the allocator   tests/checks/layering
 *   F57 F58                  virtio numbering, config space  tests/loop/test_balloon.c
 */
#include "report_rig.h"

#include "core.h"

#include <stdio.h>
#include <stdlib.h>

#define BLOCK_FRAMES ((uint64_t)1 << MAX_ORDER)

/* ---- marks and counts ---- */

static void test_f1_a_free_never_calls_the_device(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});
    ebb_pfn_t pfn;

    (void)state;
    rig_register_and_settle(rig);
    pfn = rig_alloc(rig, 0, MAX_ORDER);
    rig_release(rig, 0, pfn, MAX_ORDER);
    assert_int_equal(rig->submits, 0);
    rig_run(rig);
    assert_int_equal(rig->submits, 0);
    rig_run_after(rig, EBB_REPORT_DELAY_MS * MS);
    assert_int_equal(rig->submits, 1);
    rig_free(rig);
}

static void test_f2_marked_only_after_success(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});

    (void)state;
    rig->later = true;
    rig_register(rig);
    assert_false(rig_is_reported(rig, 0, RIG_BASE));
    rig_run_after(rig, EBB_REPORT_DELAY_MS * MS);
    assert_true(rig->in_flight);
    assert_false(rig_is_reported(rig, 0, RIG_BASE));
    assert_int_equal(rig_zone_stats(rig, 0).reported, 0);
    rig_complete(rig, 0);
    rig_settle(rig);
    assert_true(rig_is_reported(rig, 0, RIG_BASE));
    assert_int_equal(rig_zone_stats(rig, 0).reported, MAX_BLOCKS * BLOCK_FRAMES);
    rig_free(rig);
}

static void test_f3_use_clears_the_mark(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});

    (void)state;
    rig_register_and_settle(rig);
    for (unsigned i = 0; i < 10; i++) {
        ebb_pfn_t pfn = rig_alloc(rig, 0, MAX_ORDER);

        assert_false(rig_is_reported(rig, 0, pfn));
        rig_release(rig, 0, pfn, MAX_ORDER);
        assert_false(rig_is_reported(rig, 0, pfn));
        rig_settle(rig);
        assert_true(rig_is_reported(rig, 0, pfn));
        assert_int_equal(rig_reported_blocks(rig), i + 1);
    }
    assert_int_equal(rig_zone_stats(rig, 0).refaulted, 10 * BLOCK_FRAMES);
    rig_free(rig);
}

/* What the lists hold, counted frame by frame. */
static void recount(struct rig *rig)
{
    struct ebb_zone_stats stats = rig_zone_stats(rig, 0), seen = {0};
    struct ebb_zone *zone = &rig->zones[0];

    for (ebb_pfn_t pfn = zone->first; pfn < zone->base + zone->span;) {
        struct ebb_block block = rig_block(rig, 0, pfn);

        assert_int_equal(block.pfn, pfn);
        assert_true(!block.reported || block.state == EBB_BLOCK_FREE);
        if (block.state == EBB_BLOCK_FREE) {
            seen.lists[block.order][block.type].blocks++;
            seen.lists[block.order][block.type].reported += block.reported;
            seen.reported += block.reported ? (uint64_t)1 << block.order : 0;
        }
        pfn += (uint64_t)1 << block.order;
    }
    assert_memory_equal(seen.lists, stats.lists, sizeof(seen.lists));
    assert_int_equal(seen.reported, stats.reported);
}

static unsigned seed_of_the_day(void)
{
    const char *given = getenv("EBB_SEED");

    return given ? (unsigned)strtoul(given, NULL, 0) : 20190530u;
}

static void test_f4_reported_and_unreported_add_up(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.report = {.order = EBB_REPORT_ORDER(2)}});
    ebb_pfn_t pfns[64];
    unsigned orders[64], held = 0, seed = seed_of_the_day();

    (void)state;
    print_message("EBB_SEED=%u\n", seed);
    srand(seed);
    rig_register(rig);
    for (unsigned i = 0; i < 2000; i++) {
        unsigned order = (unsigned)rand() % (MAX_ORDER + 1);

        if (rand() % 2 && held < 64 &&
            ebb_alloc(&rig->zones[0], order, (enum ebb_migratetype)(rand() % 3), EBB_ALLOC_NO_CACHE,
                      &pfns[held]) == 0) {
            orders[held++] = order;
        } else if (held > 0) {
            unsigned which = (unsigned)rand() % held--;

            rig_release(rig, 0, pfns[which], orders[which]);
            pfns[which] = pfns[held];
            orders[which] = orders[held];
        }
        if (i % 7 == 0)
            rig_run_after(rig, EBB_REPORT_DELAY_MS * MS / 3);
        if (i % 50 == 0)
            recount(rig);
    }
    while (held-- > 0)
        rig_release(rig, 0, pfns[held], orders[held]);
    rig_settle(rig);
    recount(rig);
    assert_int_equal(rig_unreported_frames(rig, 0, 2), 0);
    rig_free(rig);
}

static void test_f5_totals_do_not_depend_on_reporting(void **state)
{
    struct rig *with = rig_new(&(struct rig_config){0});
    struct rig *without = rig_new(&(struct rig_config){0});
    ebb_pfn_t a[MAX_BLOCKS], b[MAX_BLOCKS];

    (void)state;
    rig_register_and_settle(with);
    for (unsigned i = 0; i < MAX_BLOCKS; i++) {
        struct ebb_zone_stats x, y;

        a[i] = rig_alloc(with, 0, i % MAX_ORDER);
        b[i] = rig_alloc(without, 0, i % MAX_ORDER);
        rig_run_after(with, EBB_REPORT_DELAY_MS * MS);
        x = rig_zone_stats(with, 0);
        y = rig_zone_stats(without, 0);
        assert_int_equal(x.free, y.free);
        assert_int_equal(x.managed, y.managed);
        assert_int_equal(x.allocated, y.allocated);
        assert_int_equal(y.reported, 0);
    }
    for (unsigned i = 0; i < MAX_BLOCKS; i++) {
        rig_release(with, 0, a[i], i % MAX_ORDER);
        rig_release(without, 0, b[i], i % MAX_ORDER);
    }
    rig_free(with);
    rig_free(without);
}

/* ---- batches ---- */

static void test_f14_a_batch_is_no_larger_than_the_capacity(void **state)
{
    static const struct {
        unsigned device, config, batches; /* 0: the default, 16 and 32 */
    } cases[] = {{4, 0, 16}, {0, 4, 16}, {3, 5, 22},
                 {5, 3, 22}, {1, 0, 64}, {EBB_REPORT_CAPACITY_LIMIT, 0, 2}};

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig *rig = rig_new(&(struct rig_config){.frames = 64 * BLOCK_FRAMES,
                                                       .capacity = cases[i].device,
                                                       .report.capacity = cases[i].config});

        rig_register(rig);
        rig_settle(rig);
        assert_int_equal(rig->submits, cases[i].batches);
        assert_int_equal(rig_reported_blocks(rig), 64);
        assert_int_equal(rig_stats(rig).batches, cases[i].batches);
        rig_free(rig);
    }
}

static void test_f15_impossible_devices_and_settings_are_refused(void **state)
{
    static const struct ebb_report_config bad[] = {
        {.capacity = EBB_REPORT_CAPACITY_LIMIT + 1},
        {.delay_ms = 3600001},
        {.budget = 1025},
        {.backoff_max_ms = 3600001},
        {.backoff_ms = 60001},
        {.backoff_ms = 20, .backoff_max_ms = 19},
    };
    static const struct ebb_report_device_ops no_submit = {0};
    struct rig *rig = rig_new(&(struct rig_config){0});
    const struct ebb_report_device_ops *ops = rig->device.ops;
    struct ebb_report *other = calloc(1, sizeof(*other));

    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(ebb_report_init(other, &bad[i]), -EBB_EINVAL);
    free(other);

    rig->device.capacity = 0;
    assert_int_equal(ebb_report_register(&rig->report, &rig->device), -EBB_EINVAL);
    rig->device.capacity = EBB_REPORT_CAPACITY_LIMIT + 1;
    assert_int_equal(ebb_report_register(&rig->report, &rig->device), -EBB_EINVAL);
    rig->device.capacity = EBB_REPORT_CAPACITY_LIMIT;
    rig->device.ops = &no_submit;
    assert_int_equal(ebb_report_register(&rig->report, &rig->device), -EBB_EINVAL);
    rig->device.ops = NULL;
    assert_int_equal(ebb_report_register(&rig->report, &rig->device), -EBB_EINVAL);
    assert_int_equal(ebb_report_register(&rig->report, NULL), -EBB_EINVAL);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    rig->device.ops = ops;
    rig_register(rig);
    rig_free(rig);
}

static void test_f17_each_completion_leads_to_the_next_batch(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.capacity = 4});

    (void)state;
    rig->later = true;
    rig_register(rig);
    for (unsigned i = 1; i <= MAX_BLOCKS / 4; i++) {
        unsigned wakes;

        /* Waiting for the device needs no timer. */
        assert_int_equal(rig_run_after(rig, EBB_REPORT_DELAY_MS * MS), EBB_NEVER);
        assert_int_equal(rig->submits, i);
        assert_int_equal(rig_run(rig), EBB_NEVER);
        assert_int_equal(rig->submits, i);
        wakes = port_virtual.wakes;
        rig_complete(rig, 0);
        assert_int_equal(port_virtual.wakes, wakes + 1);
    }
    assert_int_equal(rig_run(rig), EBB_NEVER);
    assert_int_equal(rig_stats(rig).passes, 1);
    rig_free(rig);
}

static void test_f18_a_device_that_completes_inside_submit_is_driven_on(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.capacity = 1});

    (void)state;
    rig_register(rig);
    /* One call, no recursion (the rig checks the depth), done. */
    assert_int_equal(rig_run_after(rig, EBB_REPORT_DELAY_MS * MS), EBB_NEVER);
    assert_int_equal(rig->submits, MAX_BLOCKS);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    rig_free(rig);
}

static void test_f19_a_pass_goes_on_until_all_is_reported(void **state)
{
    struct rig *rig = rig_new(
        &(struct rig_config){.capacity = 64, .frames = 8192, .max_order = 2, .pageblock_order = 2});

    (void)state;
    rig_register(rig);
    assert_int_equal(rig_settle(rig), 1);
    assert_int_equal(rig->submits, 2048 / 32);
    assert_int_equal(rig_stats(rig).reported_blocks, 2048);
    assert_int_equal(rig_stats(rig).reported_frames, 8192);
    assert_int_equal(rig_zone_stats(rig, 0).reported, 8192);
    rig_free(rig);
}

static void test_f47_a_batch_never_mixes_zones(void **state)
{
    struct rig *rig =
        rig_new(&(struct rig_config){.zones = 2, .frames = 32 * BLOCK_FRAMES, .capacity = 14});

    (void)state;
    rig_register(rig);
    assert_int_equal(rig_settle(rig), 1);
    /* The rig checks each batch for it; the leftovers are short ones. */
    assert_int_equal(rig->submits, 6);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(rig->log[i].n, i % 3 < 2 ? 14 : 4);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(rig_unreported_frames(rig, i, PAGEBLOCK), 0);
    rig_free(rig);
}

static void test_f47_one_batch_holds_several_lists(void **state)
{
    struct rig *rig =
        rig_new(&(struct rig_config){.capacity = 32, .report.order = EBB_REPORT_ORDER(0)});
    ebb_pfn_t pfn = rig_alloc(rig, 0, 0); /* splits: one block of each order below */

    (void)state;
    rig_register(rig);
    rig_settle(rig);
    /* Half of 1023 frames: 63 in small blocks, and 7 of 64. */
    assert_int_equal(rig->log[0].n, MAX_ORDER + 7);
    rig_release(rig, 0, pfn, 0);
    rig_free(rig);
}

static void test_f48_ranges_are_the_free_blocks(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});
    bool seen[MAX_BLOCKS] = {false};

    (void)state;
    rig_register(rig);
    rig_settle(rig);
    /* Two batches: half of what is to spare each. */
    assert_int_equal(rig->log[0].n + rig->log[1].n, MAX_BLOCKS);
    for (unsigned i = 0; i < MAX_BLOCKS; i++) {
        const unsigned first = rig->log[0].n;
        const struct ebb_range *range =
            i < first ? &rig->log[0].ranges[i] : &rig->log[1].ranges[i - first];
        uint64_t which = (range->addr - RIG_BASE * EBB_FRAME_SIZE) / (EBB_FRAME_SIZE << MAX_ORDER);

        assert_int_equal(range->len, EBB_FRAME_SIZE << MAX_ORDER);
        assert_true(which < MAX_BLOCKS);
        assert_false(seen[which]);
        seen[which] = true;
    }
    rig_free(rig);
}

/* ---- phases, registration ---- */

static void test_f24_phases(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});
    ebb_pfn_t pfn = rig_alloc(rig, 0, MAX_ORDER);

    (void)state;
    rig->later = true;
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    rig_register(rig);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_REQUESTED);
    rig_run_after(rig, EBB_REPORT_DELAY_MS * MS);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_ACTIVE);
    rig_release(rig, 0, pfn, MAX_ORDER);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_REQUESTED);
    rig_complete(rig, 0);
    rig_settle(rig); /* asserts that it ends idle */
    assert_int_equal(rig_stats(rig).passes, 2);
    rig_free(rig);
}

/* For on_submit: the last batch of the first pass sees a block freed. */
static void free_once(struct rig *rig)
{
    if (rig->submits == 3)
        rig_release(rig, 0, *(ebb_pfn_t *)rig->ctx, MAX_ORDER);
}

static void test_f26_free_during_report_leads_to_another_pass(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});
    ebb_pfn_t pfn = rig_alloc(rig, 0, MAX_ORDER);
    uint64_t first;

    (void)state;
    rig->on_submit = free_once;
    rig->ctx = &pfn;
    rig_register(rig);
    first = rig_run(rig);
    assert_int_equal(rig_run_after(rig, first - port_virtual.now),
                     first + EBB_REPORT_DELAY_MS * MS);
    assert_false(rig_is_reported(rig, 0, pfn));
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_REQUESTED);
    assert_int_equal(rig_settle(rig), 1);
    assert_true(rig_is_reported(rig, 0, pfn));
    assert_int_equal(rig_times_reported(rig, pfn), 1);
    rig_free(rig);
}

static void test_f26_free_in_a_zone_that_the_pass_has_left(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.zones = 2, .capacity = MAX_BLOCKS});
    ebb_pfn_t pfn = rig_alloc(rig, 0, MAX_ORDER);

    (void)state;
    rig->later = true;
    rig_register(rig);
    rig_run_after(rig, EBB_REPORT_DELAY_MS * MS);
    rig_complete(rig, 0);
    rig_run(rig); /* the batch in flight is the second zone's */
    rig_release(rig, 0, pfn, MAX_ORDER);
    rig_settle(rig);
    assert_true(rig_is_reported(rig, 0, pfn));
    rig_free(rig);
}

static void test_f27_the_first_pass_needs_no_free(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});

    (void)state;
    rig_register(rig);
    assert_int_equal(rig_settle(rig), 1);
    assert_int_equal(rig_reported_blocks(rig), MAX_BLOCKS);
    assert_int_equal(rig_stats(rig).requests, 0);
    rig_free(rig);
}

static void test_f28_a_later_device_resumes(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.capacity = 4});
    ebb_pfn_t pfn;

    (void)state;
    rig->later = true;
    rig_register(rig);
    rig_run_after(rig, EBB_REPORT_DELAY_MS * MS);
    rig_complete(rig, 0);
    rig_unregister(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, 4 * BLOCK_FRAMES);
    rig->later = false;
    rig_forget(rig);

    rig_register_and_settle(rig);
    rig_unregister(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, MAX_BLOCKS * BLOCK_FRAMES);
    assert_int_equal(rig_stats(rig).reported_blocks, MAX_BLOCKS); /* none twice */

    pfn = rig_alloc(rig, 0, MAX_ORDER);
    rig_release(rig, 0, pfn, MAX_ORDER);
    rig_register(rig);
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), 1);
    assert_int_equal(rig_times_reported(rig, pfn), 1);
    rig_free(rig);
}

static void test_f29_one_device_at_a_time(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});
    struct ebb_report_device other = rig->device;
    struct ebb_zone zone = {0};

    (void)state;
    assert_int_equal(ebb_report_unregister(&rig->report), -EBB_ENODEV);
    rig_register(rig);
    assert_int_equal(ebb_report_register(&rig->report, &other), -EBB_EBUSY);
    assert_int_equal(ebb_report_register(&rig->report, &rig->device), -EBB_EBUSY);
    assert_int_equal(ebb_report_add_zone(&rig->report, &zone), -EBB_EBUSY);
    rig_unregister(rig);
    assert_int_equal(ebb_report_add_zone(&rig->report, &rig->zones[0]), -EBB_EBUSY);
    assert_int_equal(ebb_report_unregister(&rig->report), -EBB_ENODEV);
    rig_free(rig);
}

static void test_without_a_device_nothing_is_asked_for(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});
    ebb_pfn_t pfn = rig_alloc(rig, 0, MAX_ORDER);

    (void)state;
    rig_release(rig, 0, pfn, MAX_ORDER);
    ebb_report_now(&rig->report);
    assert_int_equal(rig_run_after(rig, 1000 * MS), EBB_NEVER);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    assert_int_equal(port_virtual.wakes, 0);
    rig_register_and_settle(rig);
    rig_unregister(rig);
    pfn = rig_alloc(rig, 0, MAX_ORDER);
    rig_release(rig, 0, pfn, MAX_ORDER);
    ebb_report_now(&rig->report);
    assert_int_equal(rig_run_after(rig, 1000 * MS), EBB_NEVER);
    assert_int_equal(rig->submits, 0);
    rig_free(rig);
}

static void test_the_worker_is_woken_once_for_many_frees(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.zones = 2, .report.worker = &rig_new});
    ebb_pfn_t pfns[2][MAX_BLOCKS + 1];
    unsigned wakes;

    (void)state;
    for (unsigned i = 0; i < 2; i++)
        rig_alloc_all(rig, i, MAX_ORDER, pfns[i]);
    rig_register_and_settle(rig);
    assert_ptr_equal(port_virtual.worker, (void *)&rig_new);
    wakes = port_virtual.wakes;
    for (unsigned i = 0; i < 2; i++)
        rig_release_all(rig, i, MAX_ORDER, pfns[i], MAX_BLOCKS);
    assert_int_equal(port_virtual.wakes, wakes + 1);
    assert_int_equal(rig_stats(rig).requests, 2); /* one for each zone */
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), 2 * MAX_BLOCKS);
    rig_free(rig);
}

static void test_only_zones_that_asked_are_visited(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.zones = 2});
    ebb_pfn_t pfn;

    (void)state;
    rig_register_and_settle(rig);
    /* Unreported, but nobody asked: put there behind the screener's back. */
    ebb_port_lock(&rig->zones[0].lock);
    assert_true(ebb__unlink(&rig->zones[0], 0));
    ebb__link(&rig->zones[0], 0, MAX_ORDER, EBB_MOVABLE, false, EBB__HEAD);
    ebb_port_unlock(&rig->zones[0].lock);
    pfn = rig_alloc(rig, 1, MAX_ORDER);
    rig_release(rig, 1, pfn, MAX_ORDER);
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), 1);
    assert_int_equal(rig_times_reported(rig, pfn), 1);
    rig_free(rig);
}

static void test_report_now_does_not_wait(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.zones = 2});
    unsigned wakes;

    (void)state;
    rig_register(rig);
    wakes = port_virtual.wakes;
    ebb_report_now(&rig->report);
    assert_int_equal(port_virtual.wakes, wakes + 1);
    assert_int_equal(rig_run(rig), EBB_NEVER);
    assert_int_equal(rig_reported_blocks(rig), 2 * MAX_BLOCKS);
    rig_free(rig);
}

static void ask_now(struct rig *rig)
{
    if (rig->submits == 1)
        ebb_report_now(&rig->report);
}

static void test_report_now_during_a_pass_is_a_pass_right_after(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});

    (void)state;
    rig->on_submit = ask_now;
    rig_register(rig);
    port_virtual.now += EBB_REPORT_DELAY_MS * MS;
    assert_int_equal(rig_run(rig), port_virtual.now);
    assert_int_equal(rig_run(rig), EBB_NEVER);
    assert_int_equal(rig_stats(rig).passes, 2);
    rig_free(rig);
}

static void test_report_now_while_a_batch_is_out_waits_for_it(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});

    (void)state;
    rig->later = true;
    rig_register(rig);
    rig_run_after(rig, EBB_REPORT_DELAY_MS * MS);
    ebb_report_now(&rig->report);
    for (unsigned batch = 0; batch < 2; batch++) {
        assert_int_equal(rig_run(rig), EBB_NEVER); /* or the worker would spin */
        rig_complete(rig, 0);
    }
    assert_int_equal(rig_run(rig), port_virtual.now);
    assert_int_equal(rig_settle(rig), 1);
    rig_free(rig);
}

/* ---- isolation, in flight ---- */

/* A block larger than a pageblock comes back in part. */
static void test_f38_a_pageblock_put_back_alone_is_reported(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.max_order = 6, .pageblock_order = 4});

    (void)state;
    assert_int_equal(ebb_isolate_range(&rig->zones[0], RIG_BASE, 64), 0);
    rig_register_and_settle(rig);
    assert_int_equal(ebb_putback_range(&rig->zones[0], RIG_BASE, 16, EBB_MOVABLE), 0);
    rig_settle(rig);
    assert_true(rig_is_reported(rig, 0, RIG_BASE));
    assert_false(rig_is_reported(rig, 0, RIG_BASE + 16));
    assert_int_equal(ebb_putback_range(&rig->zones[0], RIG_BASE + 16, 48, EBB_MOVABLE), 0);
    rig_settle(rig);
    rig_free(rig);
}

static void test_f36_isolated_blocks_are_not_reported(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});

    (void)state;
    assert_int_equal(ebb_isolate_range(&rig->zones[0], RIG_BASE, 2 * BLOCK_FRAMES), 0);
    rig_register(rig);
    assert_int_equal(rig_settle(rig), 1);
    assert_int_equal(rig_reported_blocks(rig), MAX_BLOCKS - 2);
    assert_int_equal(rig_times_reported(rig, RIG_BASE), 0);
    ebb_report_now(&rig->report);
    assert_int_equal(rig_settle(rig), 1);
    assert_int_equal(rig_reported_blocks(rig), MAX_BLOCKS - 2);

    assert_int_equal(ebb_putback_range(&rig->zones[0], RIG_BASE, 2 * BLOCK_FRAMES, EBB_MOVABLE), 0);
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), MAX_BLOCKS);
    rig_free(rig);
}

static void isolate_all(struct rig *rig)
{
    struct ebb_zone *zone = &rig->zones[0];

    if (rig->submits == 1)
        assert_int_equal(ebb_isolate_range(zone, RIG_BASE, BLOCK_FRAMES * MAX_BLOCKS), 0);
}

static void test_f37_isolated_while_with_the_host(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.capacity = 4});
    struct ebb_zone_stats stats;

    (void)state;
    rig->on_submit = isolate_all;
    rig_register(rig);
    rig_settle(rig);
    stats = rig_zone_stats(rig, 0);
    assert_int_equal(stats.isolated, MAX_BLOCKS * BLOCK_FRAMES);
    assert_int_equal(stats.reported, 4 * BLOCK_FRAMES);
    assert_int_equal(stats.lists[MAX_ORDER][EBB_ISOLATE].blocks, MAX_BLOCKS);
    assert_int_equal(rig->submits, 1);
    rig_check(rig);

    assert_int_equal(
        ebb_putback_range(&rig->zones[0], RIG_BASE, BLOCK_FRAMES * MAX_BLOCKS, EBB_UNMOVABLE), 0);
    rig_settle(rig);
    assert_int_equal(rig_stats(rig).reported_blocks, MAX_BLOCKS);
    assert_int_equal(rig_zone_stats(rig, 0).lists[MAX_ORDER][EBB_UNMOVABLE].reported, MAX_BLOCKS);
    rig_free(rig);
}

static void isolate_half_of_the_first(struct rig *rig)
{
    if (rig->submits == 1)
        assert_int_equal(ebb_isolate_range(&rig->zones[0], RIG_BASE, BLOCK_FRAMES / 2), 0);
}

static void test_f37_half_of_a_block_isolated_while_with_the_host(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});

    (void)state;
    rig->on_submit = isolate_half_of_the_first;
    rig_register(rig);
    rig_settle(rig);
    assert_int_equal(rig_block(rig, 0, RIG_BASE).type, EBB_ISOLATE);
    assert_int_equal(rig_block(rig, 0, RIG_BASE).order, PAGEBLOCK);
    assert_int_equal(rig_block(rig, 0, RIG_BASE + BLOCK_FRAMES / 2).type, EBB_MOVABLE);
    assert_int_equal(rig_zone_stats(rig, 0).reported, MAX_BLOCKS * BLOCK_FRAMES);
    assert_int_equal(ebb_putback_range(&rig->zones[0], RIG_BASE, BLOCK_FRAMES / 2, EBB_MOVABLE), 0);
    rig_settle(rig);
    assert_int_equal(rig_stats(rig).reported_blocks, MAX_BLOCKS); /* nothing twice */
    assert_int_equal(rig_block(rig, 0, RIG_BASE).order, MAX_ORDER);
    rig_free(rig);
}

static void test_f38_isolation_keeps_marks(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){0});
    ebb_pfn_t pfn;

    (void)state;
    rig_register_and_settle(rig);
    assert_int_equal(ebb_isolate_range(&rig->zones[0], RIG_BASE, BLOCK_FRAMES * MAX_BLOCKS), 0);
    assert_int_equal(rig_zone_stats(rig, 0).reported, MAX_BLOCKS * BLOCK_FRAMES);
    assert_int_equal(
        ebb_putback_range(&rig->zones[0], RIG_BASE, BLOCK_FRAMES * MAX_BLOCKS, EBB_MOVABLE), 0);
    assert_int_equal(rig_zone_stats(rig, 0).reported, MAX_BLOCKS * BLOCK_FRAMES);
    rig_settle(rig);
    assert_int_equal(rig->submits, 0);

    /* And the lack of them. */
    pfn = rig_alloc(rig, 0, MAX_ORDER);
    assert_int_equal(ebb_isolate_range(&rig->zones[0], pfn, BLOCK_FRAMES), 0);
    rig_release(rig, 0, pfn, MAX_ORDER);
    rig_settle(rig);
    assert_int_equal(rig->submits, 0);
    assert_false(rig_is_reported(rig, 0, pfn));
    assert_int_equal(ebb_putback_range(&rig->zones[0], pfn, BLOCK_FRAMES, EBB_MOVABLE), 0);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_REQUESTED);
    rig_settle(rig);
    assert_int_equal(rig_times_reported(rig, pfn), 1);
    rig_free(rig);
}

static void test_f63_blocks_with_the_host_are_not_in_use(void **state)
{
    struct rig *rig = rig_new(&(struct rig_config){.capacity = 4});
    ebb_pfn_t pfn = rig_alloc(rig, 0, MAX_ORDER);
    struct ebb_zone_stats stats;

    (void)state;
    rig->later = true;
    rig_register(rig);
    rig_run_after(rig, EBB_REPORT_DELAY_MS * MS);
    stats = rig_zone_stats(rig, 0);
    assert_int_equal(stats.allocated, BLOCK_FRAMES);
    assert_int_equal(stats.in_flight, 4 * BLOCK_FRAMES);
    assert_int_equal(stats.free, (MAX_BLOCKS - 5) * BLOCK_FRAMES);
    rig_complete(rig, 0);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).in_flight, 0);
    rig_release(rig, 0, pfn, MAX_ORDER);
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        rig_test(test_f1_a_free_never_calls_the_device),
        rig_test(test_f2_marked_only_after_success),
        rig_test(test_f3_use_clears_the_mark),
        rig_test(test_f4_reported_and_unreported_add_up),
        rig_test(test_f5_totals_do_not_depend_on_reporting),
        rig_test(test_f14_a_batch_is_no_larger_than_the_capacity),
        rig_test(test_f15_impossible_devices_and_settings_are_refused),
        rig_test(test_f17_each_completion_leads_to_the_next_batch),
        rig_test(test_f18_a_device_that_completes_inside_submit_is_driven_on),
        rig_test(test_f19_a_pass_goes_on_until_all_is_reported),
        rig_test(test_f47_a_batch_never_mixes_zones),
        rig_test(test_f47_one_batch_holds_several_lists),
        rig_test(test_f48_ranges_are_the_free_blocks),
        rig_test(test_f24_phases),
        rig_test(test_f26_free_during_report_leads_to_another_pass),
        rig_test(test_f26_free_in_a_zone_that_the_pass_has_left),
        rig_test(test_f27_the_first_pass_needs_no_free),
        rig_test(test_f28_a_later_device_resumes),
        rig_test(test_f29_one_device_at_a_time),
        rig_test(test_without_a_device_nothing_is_asked_for),
        rig_test(test_the_worker_is_woken_once_for_many_frees),
        rig_test(test_only_zones_that_asked_are_visited),
        rig_test(test_report_now_does_not_wait),
        rig_test(test_report_now_during_a_pass_is_a_pass_right_after),
        rig_test(test_report_now_while_a_batch_is_out_waits_for_it),
        rig_test(test_f38_a_pageblock_put_back_alone_is_reported),
        rig_test(test_f36_isolated_blocks_are_not_reported),
        rig_test(test_f37_isolated_while_with_the_host),
        rig_test(test_f37_half_of_a_block_isolated_while_with_the_host),
        rig_test(test_f38_isolation_keeps_marks),
        rig_test(test_f63_blocks_with_the_host_are_not_in_use),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
