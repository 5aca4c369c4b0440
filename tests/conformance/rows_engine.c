/* SPDX-License-Identifier: BSD-2-Clause */
/* Rows of the engine: marks and counts, batches, phases, registration. */
#include "rows.h"

#include "zone_private.h"

#include <stdlib.h>

/* ---- marks and counts ---- */

static void f1_a_free_never_waits_for_the_device(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    ebb_pfn_t pfns[C_BLOCKS];
    unsigned n, relaxes;

    register_and_flush(rig);
    rig->later = true;
    n = take_need(rig, 0, pfns);
    relaxes = port_virtual.relaxes;
    rig_release_all(rig, 0, C_ORDER, pfns, n);
    /* Back here, with the batch at the device at most. */
    assert_int_equal(rig->submits, is_inline(setting));
    assert_int_equal(port_virtual.relaxes, relaxes);
    assert_int_equal(rig->polls, 0);
    if (is_worker(setting)) {
        rig_run_after(rig, C_DELAY - 1);
        assert_int_equal(rig->submits, 0);
        rig_run_after(rig, 1);
    }
    assert_int_equal(rig->submits, 1);
    rig_settle(rig);
    assert_times(rig, pfns, n, 1);
    rig_free(rig);
}

static void f2_marked_only_after_success(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    ebb_pfn_t first;

    rig->later = true;
    rig_register(rig);
    begin(rig);
    assert_true(rig->in_flight);
    first = rig->batch->ranges[0].addr >> EBB_FRAME_SHIFT;
    assert_false(rig_is_reported(rig, 0, first));
    assert_int_equal(rig_zone_stats(rig, 0).reported, 0);
    rig_complete(rig, 0);
    rig_settle(rig);
    assert_true(rig_is_reported(rig, 0, first));
    assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));
    rig_free(rig);
}

static void f3_use_clears_the_mark(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    ebb_pfn_t pfns[C_BLOCKS];
    unsigned n = need(rig);

    register_and_flush(rig);
    for (unsigned i = 1; i <= 10; i++) {
        take_need(rig, 0, pfns);
        for (unsigned j = 0; j < n; j++)
            assert_false(rig_is_reported(rig, 0, pfns[j]));
        rig->later = true; /* so that inline, too, there is a moment before */
        rig_release_all(rig, 0, C_ORDER, pfns, n);
        for (unsigned j = 0; j < n; j++)
            assert_false(rig_is_reported(rig, 0, pfns[j]));
        rig_settle(rig);
        for (unsigned j = 0; j < n; j++)
            assert_true(rig_is_reported(rig, 0, pfns[j]));
        assert_int_equal(rig_reported_blocks(rig), i * n);
    }
    assert_int_equal(rig_zone_stats(rig, 0).refaulted, 10 * n * C_FRAMES);
    rig_free(rig);
}

/* What the lists hold, counted block by block. */
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

static void f4_reported_and_unreported_add_up(const struct setting *setting)
{
    struct rig *rig =
        rig_with(setting, &(struct rig_config){.report = {.order = EBB_REPORT_ORDER(2)}});
    ebb_pfn_t pfns[64];
    unsigned orders[64], held = 0, seed = seed_of_the_day();

    srand(seed);
    rig_register(rig);
    for (unsigned i = 0; i < 1500; i++) {
        unsigned order = (unsigned)rand() % (C_ORDER + 1);

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
            rig_run_after(rig, C_DELAY / 3);
        if (i % 50 == 0) {
            recount(rig);
            rig_check(rig);
        }
        if (rig->submits > RIG_LOG / 2)
            rig_forget(rig);
    }
    while (held-- > 0)
        rig_release(rig, 0, pfns[held], orders[held]);
    flush(rig);
    recount(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));
    rig_free(rig);
}

static void f5_totals_do_not_depend_on_reporting(const struct setting *setting)
{
    struct rig *with = rig_with(setting, &(struct rig_config){0});
    struct rig *without = rig_with(setting, &(struct rig_config){0});
    ebb_pfn_t a[40], b[40];

    register_and_flush(with);
    for (unsigned i = 0; i < 40; i++) {
        struct ebb_zone_stats x, y;

        a[i] = rig_alloc(with, 0, i % C_ORDER);
        b[i] = rig_alloc(without, 0, i % C_ORDER);
        if (i % 3 == 2) {
            rig_release(with, 0, a[i - 1], (i - 1) % C_ORDER);
            rig_release(without, 0, b[i - 1], (i - 1) % C_ORDER);
        }
        begin(with);
        x = rig_zone_stats(with, 0);
        y = rig_zone_stats(without, 0);
        assert_int_equal(x.free, y.free);
        assert_int_equal(x.managed, y.managed);
        assert_int_equal(x.allocated, y.allocated);
        assert_int_equal(y.reported, 0);
    }
    for (unsigned i = 0; i < 40; i++) {
        if (i % 3 == 1 && i + 1 < 40)
            continue;
        rig_release(with, 0, a[i], i % C_ORDER);
        rig_release(without, 0, b[i], i % C_ORDER);
    }
    rig_free(with);
    rig_free(without);
}

/* ---- batches ---- */

static void f14_a_batch_is_no_larger_than_the_capacity(const struct setting *setting)
{
    static const struct {
        unsigned device, config, batches;
    } cases[] = {{4, 0, 16}, {8, 4, 16}, {3, 5, 22},
                 {5, 3, 22}, {1, 0, 64}, {EBB_REPORT_CAPACITY_LIMIT, 0, 2}};

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rig *rig =
            rig_with(setting, &(struct rig_config){.capacity = cases[i].device,
                                                   .report.capacity = cases[i].config});

        rig_register(rig);
        rig_settle(rig);
        assert_int_equal(rig->submits, cases[i].batches);
        assert_int_equal(rig_reported_blocks(rig), C_BLOCKS);
        assert_int_equal(rig_stats(rig).batches, cases[i].batches);
        rig_free(rig);
    }
}

static void f15_impossible_devices_are_refused(const struct setting *setting)
{
    static const struct ebb_report_device_ops no_submit = {0};
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    const struct ebb_report_device_ops *ops = rig->device.ops;

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
    flush(rig);
    rig_free(rig);
}

/* F16: what the steps of the port show of the cycle. */
static struct {
    struct rig *rig;
    enum ebb_report_phase phases[64];
    unsigned n;
} cycle;

static void note_phase(void)
{
    enum ebb_report_phase phase = ebb_report_phase(&cycle.rig->report);

    if (cycle.phases[cycle.n - 1] == phase)
        return;
    assert_true(cycle.n < 64);
    cycle.phases[cycle.n++] = phase;
}

static void while_at_the_device(struct rig *rig)
{
    struct ebb_zone_stats stats = rig_zone_stats(rig, 0);

    /* Fill is over, drain has not begun. */
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_ACTIVE);
    assert_int_equal(stats.in_flight, rig->batch->n * C_FRAMES);
    assert_int_equal(stats.reported, (rig_reported_blocks(rig) - rig->batch->n) * C_FRAMES);
}

static void f16_fill_report_drain_idle(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});

    cycle.rig = rig;
    cycle.n = 1;
    cycle.phases[0] = EBB_REPORT_IDLE;
    rig->on_submit = while_at_the_device;
    port_virtual.on_step = note_phase;
    rig_register(rig);
    begin(rig);
    rig_settle(rig);
    port_virtual.on_step = NULL;
    /* Idle, requested, active and idle again: as often as there were passes. */
    for (unsigned i = 1; i + 1 < cycle.n; i++)
        assert_int_equal(cycle.phases[i], i % 2 ? EBB_REPORT_REQUESTED : EBB_REPORT_ACTIVE);
    assert_int_equal(cycle.phases[cycle.n - 1], EBB_REPORT_IDLE);
    assert_int_equal(cycle.n, 2 * rig_stats(rig).passes + 2);
    rig_free(rig);
}

static void f17_each_completion_leads_to_the_next_batch(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});

    rig->later = true;
    rig_register(rig);
    begin(rig);
    for (unsigned i = 1; i <= C_BLOCKS / C_CAPACITY; i++) {
        unsigned wakes = port_virtual.wakes;

        /* Waiting for the device needs no timer. */
        assert_int_equal(rig->submits, i);
        assert_int_equal(rig_run_after(rig, C_DELAY), EBB_NEVER);
        assert_int_equal(rig->submits, i);
        rig_complete(rig, 0);
        assert_int_equal(port_virtual.wakes, wakes + is_worker(setting));
        if (is_worker(setting)) {
            assert_int_equal(rig->submits, i);
            rig_run(rig);
        }
    }
    assert_false(rig->in_flight);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    assert_int_equal(rig_stats(rig).passes, 1);
    rig_free(rig);
}

static void f18_a_device_that_completes_inside_submit_is_driven_on(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){.capacity = 1});

    rig_register(rig);
    begin(rig);
    /* One call, no recursion (the rig checks the depth), done. */
    assert_int_equal(rig->submits, C_BLOCKS);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    rig_free(rig);
}

static void f19_it_goes_on_until_all_is_reported(const struct setting *setting)
{
    struct rig *rig =
        rig_with(setting, &(struct rig_config){.capacity = 64, .frames = 4096, .max_order = 2});
    unsigned passes;

    rig_register(rig);
    begin(rig);
    passes = rig_settle(rig);
    if (is_not_budget(setting))
        assert_int_equal(rig_stats(rig).passes, 1);
    else
        assert_in_range(passes, 2, 16);
    assert_int_equal(rig->submits, 1024 / 32);
    assert_int_equal(rig_stats(rig).reported_blocks, 1024);
    assert_int_equal(rig_stats(rig).reported_frames, 4096);
    assert_int_equal(rig_zone_stats(rig, 0).reported, 4096);
    rig_free(rig);
}

static void f47_a_batch_never_mixes_zones(const struct setting *setting)
{
    struct rig *rig = rig_with(
        setting, &(struct rig_config){.zones = 2, .frames = 32 * C_FRAMES, .capacity = 14});
    unsigned full = 0, rest = 0;

    rig_register(rig);
    begin(rig);
    rig_settle(rig);
    /* The rig checks each batch for it; the leftovers are short ones. */
    assert_int_equal(rig->submits, 6);
    for (unsigned i = 0; i < 6; i++) {
        full += rig->log[i].n == 14;
        rest += rig->log[i].n == 4;
    }
    assert_int_equal(full, 4);
    assert_int_equal(rest, 2);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(rig_unreported_frames(rig, i, 0), 0);
    rig_free(rig);
}

static void f47_one_batch_holds_several_lists(const struct setting *setting)
{
    struct rig *rig = rig_with(
        setting, &(struct rig_config){.capacity = 32, .report.order = EBB_REPORT_ORDER(0)});
    ebb_pfn_t pfn = rig_alloc(rig, 0, 0); /* splits: one block of each order below */
    unsigned orders = 0;

    rig_register(rig);
    begin(rig);
    for (unsigned i = 0; i < rig->log[0].n; i++)
        orders |= 1u << __builtin_ctzll(rig->log[0].ranges[i].len / EBB_FRAME_SIZE);
    assert_int_equal(orders, (1u << (C_ORDER + 1)) - 1);
    rig_settle(rig);
    rig_release(rig, 0, pfn, 0);
    rig_free(rig);
}

static void f48_ranges_are_the_free_blocks(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    bool seen[C_BLOCKS] = {false};

    rig_register(rig);
    begin(rig);
    rig_settle(rig);
    for (unsigned i = 0; i < rig->submits; i++) {
        for (unsigned j = 0; j < rig->log[i].n; j++) {
            const struct ebb_range *range = &rig->log[i].ranges[j];
            uint64_t which =
                (range->addr - RIG_BASE * EBB_FRAME_SIZE) / (EBB_FRAME_SIZE << C_ORDER);

            assert_int_equal(range->len, EBB_FRAME_SIZE << C_ORDER);
            assert_true(which < C_BLOCKS);
            assert_false(seen[which]);
            seen[which] = true;
        }
    }
    assert_int_equal(rig_reported_blocks(rig), C_BLOCKS);
    rig_free(rig);
}

static void f61_every_zone_is_reported(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){.zones = 2});
    ebb_pfn_t pfns[2][C_BLOCKS];
    unsigned n = need(rig);

    register_and_flush(rig);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(rig_zone_stats(rig, i).reported, C_BLOCKS * C_FRAMES);
    for (unsigned i = 0; i < 2; i++)
        take_need(rig, i, pfns[i]);
    for (unsigned i = 0; i < 2; i++)
        rig_release_all(rig, i, C_ORDER, pfns[i], n);
    rig_settle(rig);
    for (unsigned i = 0; i < 2; i++)
        assert_times(rig, pfns[i], n, 1);
    rig_free(rig);
}

/* ---- phases, registration ---- */

static void f24_phases(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    ebb_pfn_t pfns[C_BLOCKS];
    unsigned n = take_need(rig, 0, pfns);

    rig->later = true;
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    rig_register(rig);
    if (is_worker(setting))
        assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_REQUESTED);
    begin(rig);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_ACTIVE);
    rig_release_all(rig, 0, C_ORDER, pfns, n);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_REQUESTED);
    rig_complete(rig, 0);
    rig_settle(rig); /* asserts that it ends idle */
    assert_true(rig_stats(rig).passes >= 2);
    assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));
    rig_free(rig);
}

/* F25: our counterpart of the reference count. Idle means that no zone has asked
 * and no batch is out, and the reverse. */
static void assert_idle_is_idle(struct rig *rig)
{
    bool idle = ebb_report_phase(&rig->report) == EBB_REPORT_IDLE;
    bool asked = false;

    for (unsigned i = 0; i < rig->zone_count; i++)
        asked |= (rig->zones[i].source.active && rig->zones[i].source.requested) ||
                 rig->zones[i].in_flight > 0;
    assert_int_equal(idle, !asked);
}

static void f25_idle_means_that_nobody_asks(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){.zones = 2});
    ebb_pfn_t pfns[2][C_BLOCKS];
    unsigned n = need(rig);

    assert_idle_is_idle(rig);
    rig->later = true;
    rig_register(rig);
    assert_idle_is_idle(rig);
    flush(rig);
    for (unsigned zone = 0; zone < 2; zone++)
        take_need(rig, zone, pfns[zone]);
    for (unsigned zone = 0; zone < 2; zone++) {
        for (unsigned i = 0; i < n; i++) {
            rig_release(rig, zone, pfns[zone][i], C_ORDER);
            assert_idle_is_idle(rig);
        }
    }
    for (unsigned i = 0; i < 200; i++) {
        if (rig->in_flight)
            rig_complete(rig, 0);
        rig_run_after(rig, C_DELAY);
        assert_idle_is_idle(rig);
    }
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    rig_free(rig);
}

struct frees {
    unsigned at; /* batch */
    unsigned n;
    ebb_pfn_t pfns[C_BLOCKS];
};

static void free_at(struct rig *rig)
{
    struct frees *frees = rig->ctx;

    if (rig->submits != frees->at)
        return;
    rig_release_all(rig, 0, C_ORDER, frees->pfns, frees->n);
    frees->n = 0;
}

/* A free while batch k is at the device, for every k. */
static void f26_free_during_report_leads_to_another_pass(const struct setting *setting)
{
    for (unsigned later = 0; later < 2; later++) {
        bool came = true;

        for (unsigned k = 1; came; k++) {
            struct rig *rig = rig_with(setting, &(struct rig_config){0});
            struct frees frees = {.at = k};
            unsigned n = take_need(rig, 0, frees.pfns);

            frees.n = n;
            rig->on_submit = free_at;
            rig->ctx = &frees;
            rig->later = later;
            rig_register(rig);
            rig_settle(rig);
            came = frees.n == 0;
            if (came) {
                assert_times(rig, frees.pfns, n, 1);
                assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));
            } else {
                rig->on_submit = NULL;
                rig_release_all(rig, 0, C_ORDER, frees.pfns, n);
            }
            rig_free(rig);
        }
    }
}

static void f26_free_in_a_zone_that_the_pass_has_left(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){.zones = 2});
    ebb_pfn_t pfns[C_BLOCKS];
    unsigned n = take_need(rig, 0, pfns);
    bool second = false;

    rig->later = true;
    rig_register(rig);
    begin(rig);
    while (!second) {
        rig_complete(rig, 0);
        rig_run(rig);
        assert_true(rig->in_flight || is_budget(setting));
        if (!rig->in_flight)
            begin(rig);
        second = rig->batch->ranges[0].addr >> EBB_FRAME_SHIFT >= rig->zones[1].base;
    }
    rig_release_all(rig, 0, C_ORDER, pfns, n);
    rig_settle(rig);
    assert_times(rig, pfns, n, 1);
    rig_free(rig);
}

static void f27_the_first_pass_needs_no_free(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});

    rig_register(rig);
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), C_BLOCKS);
    assert_int_equal(rig_stats(rig).requests, 0);
    if (is_not_budget(setting))
        assert_int_equal(rig_stats(rig).passes, 1);
    rig_free(rig);
}

static void f28_a_later_device_resumes(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    ebb_pfn_t pfn;
    unsigned batches;

    rig->later = true;
    rig->complete_on_poll = true;
    rig_register(rig);
    begin(rig);
    rig_complete(rig, 0);
    rig_unregister(rig);
    batches = rig->submits;
    assert_in_range(batches, 1, 2); /* inline the completion has sent another */
    assert_int_equal(rig_zone_stats(rig, 0).reported, batches * C_CAPACITY * C_FRAMES);
    rig->later = false;
    rig_forget(rig);

    register_and_flush(rig);
    rig_unregister(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));
    assert_int_equal(rig_stats(rig).reported_blocks, C_BLOCKS); /* none twice */

    pfn = rig_alloc(rig, 0, C_ORDER);
    rig_release(rig, 0, pfn, C_ORDER);
    rig_register(rig);
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), 1);
    assert_int_equal(rig_times_reported(rig, pfn), 1);
    rig_free(rig);
}

static void f29_one_device_at_a_time(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    struct ebb_report_device other = rig->device;
    struct ebb_zone zone = {0};

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

static void without_a_device_nothing_is_asked_for(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    ebb_pfn_t pfns[C_BLOCKS];
    unsigned n = need(rig);

    for (unsigned i = 0; i < 2; i++) {
        take_need(rig, 0, pfns);
        rig_release_all(rig, 0, C_ORDER, pfns, n);
        ebb_report_now(&rig->report);
        assert_int_equal(rig_run_after(rig, 1000 * MS), EBB_NEVER);
        assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
        assert_int_equal(rig->submits, 0);
        if (i == 0) {
            assert_int_equal(port_virtual.wakes, 0);
            register_and_flush(rig);
            rig_unregister(rig);
        }
    }
    rig_free(rig);
}

static int the_worker;

static void the_worker_is_woken_once_for_many_frees(const struct setting *setting)
{
    struct rig *rig =
        rig_with(setting, &(struct rig_config){.zones = 2, .report.worker = &the_worker});
    ebb_pfn_t pfns[2][C_BLOCKS];
    unsigned wakes, n = need(rig);

    for (unsigned i = 0; i < 2; i++)
        take_need(rig, i, pfns[i]);
    register_and_flush(rig);
    assert_ptr_equal(port_virtual.worker, &the_worker);
    wakes = port_virtual.wakes;
    for (unsigned i = 0; i < 2; i++)
        rig_release_all(rig, i, C_ORDER, pfns[i], n);
    assert_int_equal(port_virtual.wakes, wakes + 1);
    assert_int_equal(rig_stats(rig).requests, 2); /* one for each zone */
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), 2 * n);
    rig_free(rig);
}

static void inline_needs_no_worker(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){.zones = 2});
    ebb_pfn_t pfns[C_BLOCKS];
    unsigned n = need(rig);

    /* Nobody calls ebb_report_run(), and the clock stands. */
    rig->later = true;
    rig_register(rig);
    while (rig->in_flight)
        rig_complete(rig, 0);
    for (unsigned i = 0; i < 5; i++) {
        take_need(rig, i % 2, pfns);
        rig_release_all(rig, i % 2, C_ORDER, pfns, n);
        while (rig->in_flight)
            rig_complete(rig, 0);
        assert_int_equal(rig_unreported_frames(rig, i % 2, 0), 0);
    }
    assert_int_equal(port_virtual.wakes, 0);
    assert_int_equal(port_virtual.now, 0);
    rig_free(rig);
}

/* Another CPU takes and frees a block while each batch is out, for ever. */
static void take_and_free_one(struct rig *rig)
{
    rig_release(rig, 0, rig_alloc(rig, 0, C_ORDER), C_ORDER);
}

static void inline_a_free_ends_whatever_others_do(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    ebb_pfn_t pfn;

    register_and_flush(rig);
    pfn = rig_alloc(rig, 0, C_ORDER);
    rig->on_submit = take_and_free_one;
    rig_release(rig, 0, pfn, C_ORDER);
    assert_in_range(rig->submits, 2, 600);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    /* What is left is for the next one that frees. */
    rig->on_submit = NULL;
    rig_release(rig, 0, rig_alloc(rig, 0, C_ORDER), C_ORDER);
    assert_int_equal(rig_unreported_frames(rig, 0, 0), 0);
    rig_free(rig);
}

static void only_zones_that_asked_are_visited(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){.zones = 2});
    ebb_pfn_t pfn[2];

    register_and_flush(rig);
    for (unsigned i = 0; i < 2; i++)
        pfn[i] = rig_alloc(rig, i, C_ORDER);
    rig_release(rig, 0, pfn[0], C_ORDER);
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), 1);
    /* Unreported, but nobody asked: behind the screener's back. */
    ebb_port_lock(&rig->zones[0].lock);
    assert_true(ebb__unlink(&rig->zones[0], (uint32_t)(pfn[0] - rig->zones[0].base)));
    ebb__link(&rig->zones[0], (uint32_t)(pfn[0] - rig->zones[0].base), C_ORDER, EBB_MOVABLE, false,
              EBB__HEAD);
    ebb_port_unlock(&rig->zones[0].lock);
    rig_release(rig, 1, pfn[1], C_ORDER);
    rig_settle(rig);
    assert_int_equal(rig_reported_blocks(rig), 2);
    assert_int_equal(rig_times_reported(rig, pfn[0]), 1);
    assert_int_equal(rig_times_reported(rig, pfn[1]), 1);
    rig_free(rig);
}

static void report_now_does_not_wait(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){.zones = 2});
    unsigned wakes;

    rig_register(rig);
    wakes = port_virtual.wakes;
    ebb_report_now(&rig->report);
    assert_int_equal(port_virtual.wakes, wakes + is_worker(setting));
    assert_int_equal(rig_run(rig), EBB_NEVER);
    assert_int_equal(rig_reported_blocks(rig), 2 * C_BLOCKS);
    assert_int_equal(port_virtual.now, 0);
    rig_free(rig);
}

static void ask_now(struct rig *rig)
{
    if (rig->submits == 1)
        ebb_report_now(&rig->report);
}

static void report_now_during_a_pass_is_a_pass_right_after(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});

    rig->on_submit = ask_now;
    rig_register(rig);
    if (is_worker(setting)) {
        port_virtual.now += C_DELAY;
        assert_int_equal(rig_run(rig), port_virtual.now);
        assert_int_equal(rig_run(rig), EBB_NEVER);
    }
    assert_int_equal(rig_stats(rig).passes, 2);
    rig_free(rig);
}

static void report_now_while_a_batch_is_out_waits_for_it(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});

    rig->later = true;
    rig_register(rig);
    begin(rig);
    ebb_report_now(&rig->report);
    for (unsigned batch = 1; batch <= C_BLOCKS / C_CAPACITY; batch++) {
        assert_int_equal(rig->submits, batch);
        assert_int_equal(rig_run(rig), EBB_NEVER); /* or the worker would spin */
        rig_complete(rig, 0);
        if (batch < C_BLOCKS / C_CAPACITY)
            rig_run(rig);
    }
    rig_settle(rig);
    assert_int_equal(rig_stats(rig).passes, 2);
    assert_int_equal(rig_reported_blocks(rig), C_BLOCKS);
    rig_free(rig);
}

static void run_again(struct rig *rig)
{
    unsigned wakes = port_virtual.wakes;

    assert_int_equal(ebb_report_run(&rig->report), EBB_NEVER);
    assert_int_equal(port_virtual.wakes, wakes);
}

static void a_second_runner_leaves(const struct setting *setting)
{
    struct rig *rig = rig_with(setting, &(struct rig_config){0});
    unsigned wakes;

    rig->on_submit = run_again;
    rig->later = true;
    rig_register(rig);
    wakes = port_virtual.wakes;
    begin(rig);
    assert_int_equal(rig->submits, 1);
    /* And the worker hears of it. */
    assert_int_equal(port_virtual.wakes, wakes + is_worker(setting));
    rig_complete(rig, 0);
    rig_settle(rig);
    assert_int_equal(rig_zone_stats(rig, 0).reported, all_reported(rig));
    rig_free(rig);
}

const struct row rows_engine[] = {
    {"f1_a_free_never_waits_for_the_device", f1_a_free_never_waits_for_the_device, NULL},
    {"f2_marked_only_after_success", f2_marked_only_after_success, NULL},
    {"f3_use_clears_the_mark", f3_use_clears_the_mark, NULL},
    {"f4_reported_and_unreported_add_up", f4_reported_and_unreported_add_up, NULL},
    {"f5_totals_do_not_depend_on_reporting", f5_totals_do_not_depend_on_reporting, NULL},
    {"f14_a_batch_is_no_larger_than_the_capacity", f14_a_batch_is_no_larger_than_the_capacity,
     is_not_budget},
    {"f15_impossible_devices_are_refused", f15_impossible_devices_are_refused, NULL},
    {"f16_fill_report_drain_idle", f16_fill_report_drain_idle, NULL},
    {"f17_each_completion_leads_to_the_next_batch", f17_each_completion_leads_to_the_next_batch,
     is_not_budget},
    {"f18_a_device_that_completes_inside_submit_is_driven_on",
     f18_a_device_that_completes_inside_submit_is_driven_on, is_not_budget},
    {"f19_it_goes_on_until_all_is_reported", f19_it_goes_on_until_all_is_reported, NULL},
    {"f47_a_batch_never_mixes_zones", f47_a_batch_never_mixes_zones, is_not_budget},
    {"f47_one_batch_holds_several_lists", f47_one_batch_holds_several_lists, is_not_budget},
    {"f48_ranges_are_the_free_blocks", f48_ranges_are_the_free_blocks, NULL},
    {"f61_every_zone_is_reported", f61_every_zone_is_reported, NULL},
    {"f24_phases", f24_phases, NULL},
    {"f25_idle_means_that_nobody_asks", f25_idle_means_that_nobody_asks, NULL},
    {"f26_free_during_report_leads_to_another_pass", f26_free_during_report_leads_to_another_pass,
     NULL},
    {"f26_free_in_a_zone_that_the_pass_has_left", f26_free_in_a_zone_that_the_pass_has_left, NULL},
    {"f27_the_first_pass_needs_no_free", f27_the_first_pass_needs_no_free, NULL},
    {"f28_a_later_device_resumes", f28_a_later_device_resumes, NULL},
    {"f29_one_device_at_a_time", f29_one_device_at_a_time, NULL},
    {"without_a_device_nothing_is_asked_for", without_a_device_nothing_is_asked_for, NULL},
    {"the_worker_is_woken_once_for_many_frees", the_worker_is_woken_once_for_many_frees, is_worker},
    {"inline_needs_no_worker", inline_needs_no_worker, is_inline},
    {"inline_a_free_ends_whatever_others_do", inline_a_free_ends_whatever_others_do, is_all_inline},
    {"only_zones_that_asked_are_visited", only_zones_that_asked_are_visited, is_all},
    {"report_now_does_not_wait", report_now_does_not_wait, is_not_budget},
    {"report_now_during_a_pass_is_a_pass_right_after",
     report_now_during_a_pass_is_a_pass_right_after, is_not_budget},
    {"report_now_while_a_batch_is_out_waits_for_it", report_now_while_a_batch_is_out_waits_for_it,
     is_not_budget},
    {"a_second_runner_leaves", a_second_runner_leaves, NULL},
    {NULL, NULL, NULL},
};
