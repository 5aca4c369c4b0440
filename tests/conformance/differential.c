/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One stream of operations, fed in lock step to every tracker, in the worker and in
 * the freeing context (F62, F65). What is free is the stream's choice (it takes
 * blocks by address), so that it is the same everywhere at all times; what was
 * reported must be the same whenever all is at rest.
 *
 * Beside each runs a model of the marks: a frame's bit says that the host was told
 * of it and that policy and use since have left it so. A block is marked if and only
 * if all its frames have the bit; and what is handed to the device must hold a frame
 * that has not: nothing is reported twice for nothing. (Where policies clear marks
 * and pageblocks are isolated as well, only: a mark means that the host was told.)
 *
 *   EBB_SEED=seed    replays the run of that seed, alone
 *   EBB_PROP_RUNS=n  runs, each with a seed of its own
 */
#include "../prop/prop.h"
#include "setting.h"

#include <ebb/range.h>

#include "zone_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define TRACKERS 5u
#define WORLDS   (2 * TRACKERS) /* each worker and inline */
#define HELD     64u
#define FRAMES   ((uint64_t)C_BLOCKS * C_FRAMES)

#ifdef EBB_TEST_SLOW
#define DEFAULT_RUNS 10u
#else
#define DEFAULT_RUNS 60u
#endif
#define STEPS 250u

/* What is known of a frame, as of the last look. */
struct frame {
    uint8_t order;
    uint8_t state;
    bool told;
};

struct world {
    struct setting setting;
    struct rig *rig;
    struct frame frames[FRAMES];
    uint64_t told_blocks;
};

static struct world worlds[WORLDS];

static struct {
    uint64_t seed, random;
    struct ebb_settings policy;
    unsigned smallest; /* order */
    bool model;        /* exact: no policy by which the model would not know */
    struct {
        ebb_pfn_t pfn;
        unsigned order;
    } held[HELD];
    unsigned nr_held;
    bool isolated[FRAMES >> C_PAGEBLOCK];
} run;

static uint64_t below(uint64_t n)
{
    return prop_below(&run.random, n);
}

static _Noreturn void differs(const struct world *world, const char *what, ebb_pfn_t pfn)
{
    char name[64];

    fprintf(stderr, "differential: EBB_SEED=%" PRIu64 " replays: %s: %s (pfn %#" PRIx64 ")\n",
            run.seed, setting_name(&world->setting, name, sizeof(name)), what, pfn);
    exit(1);
}

static void check(bool condition, const struct world *world, const char *what, ebb_pfn_t pfn)
{
    if (!condition)
        differs(world, what, pfn);
}

/* ---- the model of the marks ---- */

static bool is_block(uint8_t state)
{
    return state == EBB_BLOCK_FREE || state == EBB_BLOCK_IN_FLIGHT;
}

/* A block that is free or with the host now: what policy makes of its frames' bits. */
static bool block_told(const struct world *world, const struct ebb_block *block)
{
    uint64_t at = block->pfn - RIG_BASE, frames = (uint64_t)1 << block->order;
    bool told = true, merged = false, split = false;

    for (uint64_t i = at; i < at + frames; i++) {
        const struct frame *frame = &world->frames[i];

        told &= frame->told;
        merged |= !is_block(frame->state) || frame->order < block->order;
        split |= is_block(frame->state) && frame->order > block->order;
    }
    if (split && run.model && run.policy.history.split == EBB_SPLIT_CLEAR)
        return false;
    if (merged && run.model && run.policy.history.merge == EBB_MERGE_NEVER)
        return false;
    return told;
}

static void note_block(struct world *world, const struct ebb_block *block)
{
    uint64_t at = block->pfn - RIG_BASE, frames = (uint64_t)1 << block->order;
    bool told = is_block(block->state) && block_told(world, block);

    for (uint64_t i = at; i < at + frames; i++) {
        bool keeps = run.model || !is_block(block->state);

        world->frames[i] = (struct frame){.order = block->order,
                                          .state = block->state,
                                          .told = keeps ? told : world->frames[i].told};
    }
    if (block->state == EBB_BLOCK_FREE && run.model)
        check(block->reported == told, world,
              told ? "told, but not marked" : "marked, but not told", block->pfn);
    else if (block->reported)
        check(told, world, "marked, but not told", block->pfn);
}

/* Look at all blocks, after every operation and before every batch. */
static void look(struct world *world)
{
    for (uint64_t at = 0; at < FRAMES;) {
        struct ebb_block block = rig_block(world->rig, 0, RIG_BASE + at);

        note_block(world, &block);
        at += (uint64_t)1 << block.order;
    }
}

static struct world *world_of(const struct rig *rig)
{
    for (unsigned i = 0; i < WORLDS; i++) {
        if (worlds[i].rig == rig)
            return &worlds[i];
    }
    abort();
}

/* A batch comes: nothing in it that the host knows all of. */
static void at_submit(struct rig *rig)
{
    struct world *world = world_of(rig);

    look(world);
    world->told_blocks += rig->batch->n;
    for (unsigned i = 0; i < rig->batch->n && run.model; i++) {
        ebb_pfn_t pfn = rig->batch->ranges[i].addr >> EBB_FRAME_SHIFT;

        check(!world->frames[pfn - RIG_BASE].told, world, "reported for nothing", pfn);
    }
}

/* The host was told of the batch that is out, and says so. */
static void answer(struct world *world, int status)
{
    struct rig *rig = world->rig;

    if (!rig->in_flight)
        return;
    look(world);
    for (unsigned i = 0; status >= 0 && i < rig->batch->n; i++) {
        uint64_t at = (rig->batch->ranges[i].addr >> EBB_FRAME_SHIFT) - RIG_BASE;

        for (uint64_t k = 0; k < rig->batch->ranges[i].len >> EBB_FRAME_SHIFT; k++)
            world->frames[at + k].told = true;
    }
    rig_complete(rig, status);
}

/* ---- operations ---- */

/* All the way: the host answers, the worker works, until nothing is due. */
static void rest(struct world *world)
{
    for (unsigned i = 0;; i++) {
        uint64_t due = rig_run(world->rig);

        check(i < 10000, world, "never comes to rest", 0);
        if (world->rig->in_flight)
            answer(world, 0);
        else if (due == EBB_NEVER)
            return;
        else if (due > port_virtual.now)
            port_virtual.now = due;
    }
}

static void take(struct world *world, ebb_pfn_t pfn, unsigned order)
{
    int err = ebb_alloc_at(&world->rig->zones[0], pfn, order, EBB_ALLOC_RESERVE);

    /* With the host: the caller tries again after the completion. */
    for (unsigned i = 0; err == -EBB_EAGAIN; i++) {
        check(i < 1000, world, "EAGAIN without an end", pfn);
        answer(world, 0);
        rig_run(world->rig);
        look(world); /* merged, before it is split */
        err = ebb_alloc_at(&world->rig->zones[0], pfn, order, EBB_ALLOC_RESERVE);
    }
    check(err == 0, world, "cannot be taken", pfn);
    look(world);
}

static bool is_free(ebb_pfn_t pfn, unsigned order)
{
    struct ebb_block block = rig_block(worlds[0].rig, 0, pfn);

    return is_block(block.state) && block.order >= order &&
           !run.isolated[(pfn - RIG_BASE) >> C_PAGEBLOCK];
}

static void op_take(void)
{
    unsigned order = (unsigned)below(C_ORDER + 1);
    ebb_pfn_t pfn = RIG_BASE + (below(FRAMES) >> order << order);

    if (run.nr_held == HELD || !is_free(pfn, order))
        return;
    if (order > C_PAGEBLOCK && run.isolated[(pfn - RIG_BASE + (1u << C_PAGEBLOCK)) >> C_PAGEBLOCK])
        return;
    for (unsigned i = 0; i < WORLDS; i++)
        take(&worlds[i], pfn, order);
    run.held[run.nr_held].pfn = pfn;
    run.held[run.nr_held++].order = order;
}

static void op_free(void)
{
    unsigned which;

    if (run.nr_held == 0)
        return;
    which = (unsigned)below(run.nr_held);
    for (unsigned i = 0; i < WORLDS; i++) {
        rig_release(worlds[i].rig, 0, run.held[which].pfn, run.held[which].order);
        look(&worlds[i]);
    }
    run.held[which] = run.held[--run.nr_held];
}

static void op_isolate(void)
{
    unsigned first = (unsigned)below(FRAMES >> C_PAGEBLOCK);
    ebb_pfn_t pfn = RIG_BASE + ((ebb_pfn_t)first << C_PAGEBLOCK);
    enum ebb_migratetype type = (enum ebb_migratetype)below(3);

    for (unsigned i = 0; i < WORLDS; i++) {
        struct ebb_zone *zone = &worlds[i].rig->zones[0];
        int err = run.isolated[first] ? ebb_putback_range(zone, pfn, 1u << C_PAGEBLOCK, type)
                                      : ebb_isolate_range(zone, pfn, 1u << C_PAGEBLOCK);

        check(err == 0, &worlds[i], "isolate or put back", pfn);
        look(&worlds[i]);
    }
    run.isolated[first] = !run.isolated[first];
}

static void op_work(void)
{
    uint64_t ns = below(2 * C_DELAY);

    for (unsigned i = 0; i < WORLDS; i++) {
        rig_run(worlds[i].rig);
        look(&worlds[i]);
    }
    port_virtual.now += ns;
}

static void op_answer(void)
{
    int status = below(6) ? 0 : -EBB_EIO;

    for (unsigned i = 0; i < WORLDS; i++) {
        answer(&worlds[i], status);
        look(&worlds[i]);
    }
}

/* ---- at rest ---- */

/* Of what is free and large enough everything is reported, here as there. */
static void compare(void)
{
    const struct world *first = &worlds[0];

    for (unsigned i = 0; i < WORLDS; i++) {
        const struct world *world = &worlds[i];
        struct ebb_zone_stats stats = rig_zone_stats(world->rig, 0);
        struct ebb_zone_stats other = rig_zone_stats(first->rig, 0);

        check(stats.free == other.free && stats.allocated == other.allocated &&
                  stats.isolated == other.isolated && stats.in_flight == 0,
              world, "counts differ", 0);
        check(rig_unreported_frames(world->rig, 0, run.smallest) == 0, world,
              "something is left unreported", 0);
        for (uint64_t at = 0; at < FRAMES; at++) {
            struct ebb_block a = rig_block(world->rig, 0, RIG_BASE + at);
            struct ebb_block b = rig_block(first->rig, 0, RIG_BASE + at);

            check(a.pfn == b.pfn && a.order == b.order && a.state == b.state, world,
                  "blocks differ", RIG_BASE + at);
            /* Below the smallest order, and isolated: what was split off when, before
             * or after its report, is each one's own affair. */
            if (a.state == EBB_BLOCK_FREE && a.order >= run.smallest && a.type != EBB_ISOLATE)
                check(a.reported == b.reported, world, "marks differ", RIG_BASE + at);
        }
        rig_check(world->rig);
    }
}

static void op_rest(void)
{
    for (unsigned i = 0; i < WORLDS; i++) {
        rest(&worlds[i]);
        for (unsigned k = 0; k < 3; k++) { /* inline: after a failure, or below a threshold */
            ebb_report_now(&worlds[i].rig->report);
            rest(&worlds[i]);
        }
        look(&worlds[i]);
    }
    compare();
}

/* ---- a run ---- */

static void choose_policy(void)
{
    memset(&run.policy, 0, sizeof(run.policy));
    run.policy.history.split = (uint8_t)(below(3) ? EBB_SPLIT_INHERIT : EBB_SPLIT_CLEAR);
    run.policy.history.merge = (uint8_t)(below(3) ? EBB_MERGE_BOTH : EBB_MERGE_NEVER);
    run.policy.history.move = (uint8_t)(below(3) ? EBB_MOVE_KEEP : EBB_MOVE_DEMOTE);
    run.policy.history.threshold = below(3) ? 1 : (uint32_t)(1 + below(10));
    run.policy.report.capacity = (uint32_t)(1 + below(12));
    run.smallest = (unsigned)below(C_ORDER + 1);
    run.policy.report.order = (uint8_t)EBB_REPORT_ORDER(run.smallest);
}

static void open_world(unsigned i, bool later)
{
    struct world *world = &worlds[i];

    memset(world, 0, sizeof(*world));
    world->setting.tracker = (enum ebb_tracker)(EBB_TRACKER_ROTATION + i % TRACKERS);
    world->setting.execution = i < TRACKERS ? EBB_EXECUTION_WORKER : EBB_EXECUTION_INLINE;
    world->setting.pacing = PACING_ALL;
    world->rig = rig_with(&world->setting, &(struct rig_config){.capacity = 12,
                                                                .report = run.policy.report,
                                                                .history = run.policy.history});
    world->rig->on_submit = at_submit;
    world->rig->later = later;
    look(world);
}

static void run_seed(uint64_t seed)
{
    bool isolates;

    memset(&run, 0, sizeof(run));
    run.seed = run.random = seed;
    choose_policy();
    isolates = below(2);
    /* A move or an isolation can split and merge in one go, of which the policies that
     * clear marks leave no trace to tell. */
    run.model = !isolates || (run.policy.history.split == EBB_SPLIT_INHERIT &&
                              run.policy.history.merge == EBB_MERGE_BOTH &&
                              run.policy.history.move == EBB_MOVE_KEEP);
    for (unsigned i = 0; i < WORLDS; i++)
        open_world(i, true);
    for (unsigned i = 0; i < WORLDS; i++)
        rig_register(worlds[i].rig);
    for (unsigned i = 0; i < STEPS; i++) {
        static void (*const operations[])(void) = {op_take, op_take,   op_take, op_free,
                                                   op_free, op_answer, op_work, op_work};
        uint64_t dice = below(80);

        if (dice < 76)
            operations[dice % 8]();
        else if (dice < 78 && isolates)
            op_isolate();
        else
            op_rest();
        for (unsigned w = 0; w < WORLDS; w++) {
            if (worlds[w].rig->submits > RIG_LOG / 2)
                rig_forget(worlds[w].rig);
        }
    }
    while (run.nr_held > 0)
        op_free();
    op_rest();
    for (unsigned i = 0; i < WORLDS; i++)
        rig_free(worlds[i].rig);
}

static void everything_the_same_everywhere(void **state)
{
    const char *given = getenv("EBB_SEED"), *count = getenv("EBB_PROP_RUNS");
    uint64_t first = given ? strtoull(given, NULL, 0) : 1;
    uint64_t runs = given ? 1 : count ? strtoull(count, NULL, 0) : DEFAULT_RUNS;

    (void)state;
    for (uint64_t i = 0; i < runs; i++)
        run_seed(first + i);
    print_message("%" PRIu64 " runs from seed %" PRIu64 "\n", runs, first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {rig_test(everything_the_same_everywhere)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
