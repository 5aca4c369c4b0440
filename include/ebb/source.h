/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sources: where the engine (report.h) gets free memory from.
 *
 * A source is an allocator, or a part of one, seen from the engine: it counts what is free,
 * isolates free blocks for a batch, and takes them back once the host has been told. ebb's
 * zone is one (ebb_report_add_zone()). An allocator of your own becomes one by a struct
 * ebb_source and three functions; examples/own_source.c is a whole one.
 *
 * What a source owes the engine:
 *
 *  - A *mark* on each free block: reported or not. It is cleared when the block is
 *    allocated, inherited by the parts when a reported block is split, and kept by a
 *    merged block only if both halves had it. A source without marks that survive
 *    splits and merges is right as well; it just reports more often.
 *  - An *in-flight state*: a block that take() isolated is neither free nor in use. Nothing
 *    allocates it, splits it or merges with it until give_back(). Every block that was taken
 *    is given back exactly once, also while the device is being unregistered.
 *  - Metadata outside its free frames: the host may drop a free frame at any time after it
 *    was isolated, whatever becomes of the batch.
 *  - A *level* (struct ebb_level): a counter of the free, unreported frames in large blocks,
 *    and its low-water mark. That is what the allocator's own paths pay: one counter.
 *  - A request when something was freed, or a reported frame allocated (pace has to learn of
 *    that soon): if (ebb_source_note()), drop the locks and call ebb_source_request(). That is
 *    one predicted branch while nobody listens.
 *
 * Locks and contexts. A source has a lock of its own and takes it inside its operations;
 * the engine holds no lock when it calls them. The engine calls them from
 * ebb_report_run(), ebb_report_register() and ebb_report_unregister(), for one engine never
 * two at the same time. They must not call the engine back, sleep, or wait for the host. A
 * hold of the lock is bounded: look at about EBB_TAKE_LOOKS blocks in one, however many there are.
 *
 * How to know that a source is right: tests/conformance/source.h is a suite for any source, and
 * says how to run it over yours.
 */
#ifndef EBB_SOURCE_H
#define EBB_SOURCE_H

#include <ebb/pace.h>
#include <ebb/types.h>

/* Ranges, and blocks, in a batch at most. */
#define EBB_REPORT_CAPACITY_LIMIT 512u

/* Blocks to look at in one hold of a source's lock. */
#define EBB_TAKE_LOOKS 64u

/* Orders in configurations: 0 is "unspecified", EBB_REPORT_ORDER(0) is order 0. */
#define EBB_REPORT_ORDER(n) ((uint8_t)((n) + 1u))

struct ebb_report;
struct ebb_report_device;
struct ebb_source;

/* ---- what a source counts ---- */

/*
 * Frames that are free, unreported and within reach of allocation, in blocks of the source's
 * large_order and above, and the fewest that there were since the engine looked last. All
 * under the source's lock. Count an operation once, when it is done: an allocation that
 * splits a block of 512 frames to use one has used one frame, if 511 are still
 * free in large blocks, and 512, if they are not.
 */
struct ebb_level {
    uint64_t now;
    uint64_t low;
    uint64_t withdrawn; /* since the engine looked: gone without being needed */
};

/* Freed, or given back unreported; or what a merge with an unreported block took the mark from.
 * The memory that there is at first, too. */
static inline void ebb_level_add(struct ebb_level *level, uint64_t frames)
{
    level->now += frames;
}

/* Allocated, from what is counted: reported frames are not. */
static inline void ebb_level_use(struct ebb_level *level, uint64_t frames)
{
    level->now -= frames;
    if (level->now < level->low)
        level->low = level->now;
}

/* Isolated by take(): surplus, so that its leaving is no demand for memory. */
static inline void ebb_level_isolate(struct ebb_level *level, uint64_t frames)
{
    level->now -= frames;
    level->low = level->low > frames ? level->low - frames : 0;
}

/* Gone otherwise, but needed by nobody: unplugged, or handed to a balloon. */
static inline void ebb_level_withdraw(struct ebb_level *level, uint64_t frames)
{
    ebb_level_isolate(level, frames);
    level->withdrawn += frames;
}

/* Frames. */
struct ebb_counts {
    uint64_t unreported; /* level.now */
    uint64_t low;        /* level.low */
    uint64_t withdrawn;  /* level.withdrawn */
    uint64_t small;      /* free and unreported in blocks below large_order */
    uint64_t reported;   /* free and reported, in blocks of any order */
    uint64_t refaulted;  /* total: reported frames that were allocated */
};

/* Fill in what a level says; `slot_ends`: and begin a new low-water mark. For counts(). */
static inline void ebb_level_read(struct ebb_level *level, bool slot_ends,
                                  struct ebb_counts *counts)
{
    counts->unreported = level->now;
    counts->low = level->low;
    counts->withdrawn = level->withdrawn;
    if (slot_ends) {
        level->low = level->now;
        level->withdrawn = 0;
    }
}

/* ---- a pass over a source ---- */

/* A block that the engine holds: 2^order frames from pfn, naturally aligned. */
struct ebb_held {
    ebb_pfn_t pfn;
    uint8_t order;
};

/* What a pass may take, and the batch that it is filling. */
struct ebb_pass {
    /* Frames of large blocks that are surplus: take() isolates no more than these. Goes down
     * by itself as blocks are held. */
    uint64_t quota;
    /* Frames that may still join this batch, UINT64_MAX when it is empty. A source may lower it,
     * so that a batch does not take all that allocations could need meanwhile. 0: the batch is
     * sent as it is, unless it is empty. */
    uint64_t room;
    /* ebb_report_now(): whatever is free, in use recently or not. The quota is all there is. */
    bool everything;
    /* For ebb_pace_ripe(), ebb_pace_clock(): sources that report blocks below large_order. */
    const struct ebb_pace *pace;

    /* The engine's own. */
    unsigned capacity; /* ranges */
    unsigned n_ranges;
    unsigned n_blocks;
    uint8_t large_order; /* the source's */
    uint64_t isolated;   /* frames of large blocks held since the engine asked last */
    uint64_t taken;      /* frames held in this pass */
    struct ebb_range ranges[EBB_REPORT_CAPACITY_LIMIT];
    struct ebb_held blocks[EBB_REPORT_CAPACITY_LIMIT];
};

/* May one more block join the batch? An empty batch takes one of any size. */
static inline bool ebb_pass_has_room(const struct ebb_pass *pass)
{
    return pass->n_ranges == 0 || (pass->n_ranges < pass->capacity && pass->room > 0 &&
                                   pass->n_blocks < EBB_REPORT_CAPACITY_LIMIT);
}

/* May a block of this order join? If it is more than there is room for, it waits for the next
 * batch, and this one takes no more. */
static inline bool ebb_pass_fits(struct ebb_pass *pass, unsigned order)
{
    if (pass->n_blocks > 0 && (uint64_t)1 << order > pass->room)
        pass->room = 0;
    return ebb_pass_has_room(pass);
}

/*
 * Add a block that take() has just isolated to the batch, which must have room. Blocks below
 * large_order that are neighbours, come in ascending order and lie in one naturally aligned
 * 2^large_order frames become one range.
 */
void ebb_pass_hold(struct ebb_pass *pass, ebb_pfn_t pfn, unsigned order);

/* ---- the operations ---- */

/* How a source is to be reported, from register to unregister. */
struct ebb_terms {
    const struct ebb_report_device *device;
    uint8_t order;     /* smallest order wanted, as EBB_REPORT_ORDER(n); 0: the source decides */
    unsigned capacity; /* ranges in a batch at most */
};

/* NULL: has no need of it. The first three are required. */
struct ebb_source_ops {
    /* Fill in all of *counts. `slot`: NULL; or a slot of this pace ends: begin a new low-water
     * mark. Whoever needs the time since something was freed notes ebb_pace_clock() now. */
    void (*counts)(struct ebb_source *source, const struct ebb_pace *slot,
                   struct ebb_counts *counts);
    /*
     * Isolate free unreported blocks, coldest first, and ebb_pass_hold() each, while the pass
     * has room and the quota allows it, in one bounded hold of the lock. Keep to the
     * source's own watermark. True: call again, for there may be more; false: there is
     * nothing (more) to take in this pass. Must come to an end: a pass that calls again and
     * again without getting a block is cut off.
     */
    bool (*take)(struct ebb_source *source, struct ebb_pass *pass);
    /*
     * Put n (1 to EBB_TAKE_LOOKS) blocks back that were held. `reported`: the host was told, so
     * they get their mark; else they come back as they were, to be taken after all others. Asks for
     * no pass. Cannot fail.
     */
    void (*give_back)(struct ebb_source *source, const struct ebb_held *blocks, unsigned n,
                      bool reported);
    /*
     * A device is being registered. 1: report this source. 0: leave it alone, there is
     * nothing for such terms. Negative: the device must not have this memory; the registration
     * fails with that error. Default: 1.
     */
    int (*attach)(struct ebb_source *source, const struct ebb_terms *terms);
    /* The device is gone; all blocks are back. */
    void (*detach)(struct ebb_source *source);
    /* A pass comes to this source. False: nothing to do, neither take() nor close() follows. A
     * source that finds that another pass is wanted calls ebb_source_note(). Default: true. */
    bool (*open)(struct ebb_source *source, const struct ebb_pass *pass);
    /* The pass is done with it. True: look again a quarter of a window later, since something
     * unreported is left that may become surplus. Default: counts().unreported > 0. */
    bool (*close)(struct ebb_source *source);
};

/* Embedded in the allocator, caller-owned. Set ops and large_order, leave the rest zero, and
 * ebb_report_add_source(). */
struct ebb_source {
    const struct ebb_source_ops *ops;
    /* Blocks of this order and above are counted in the level and bounded by the quota. Smaller
     * ones are for the source to judge (ebb_pace_ripe()). Most sources: the order of
     * the host's huge page, 9. */
    uint8_t large_order;

    /* The engine's own. */
    bool active;        /* the device takes what it has */
    uint32_t requested; /* atomic: a pass is due, or nobody listens */
    struct ebb_report *report;
    struct ebb_source *next;
    struct ebb_pace_source pace;
};

/*
 * Something was freed, or reported memory was used (a refault): a pass may be due. Under the
 * source's lock, or in any way ordered with take() by it. True: nobody has asked yet, so the
 * caller calls ebb_source_request() once it holds no lock.
 *
 * Relaxed is enough: what was freed before this call under the lock is seen by the take() that
 * follows the engine's clearing of the flag, whichever came first; see src/report/engine.c.
 */
static inline bool ebb_source_note(struct ebb_source *source)
{
    if (EBB_LIKELY(__atomic_load_n(&source->requested, __ATOMIC_RELAXED)))
        return false;
    return !__atomic_exchange_n(&source->requested, 1, __ATOMIC_RELAXED);
}

/* Pass the request on to the engine, which may wake its worker. With no lock held, from any
 * context that ebb_report_complete() may be called from. */
void ebb_source_request(struct ebb_source *source);

/* Add a source, before the first register. -EBB_EBUSY: it has an engine already, or a device is
 * registered. -EBB_EINVAL: an operation is missing, or large_order is above EBB_ORDER_LIMIT. It
 * stays in place as long as the engine does. */
EBB_MUST_CHECK int ebb_report_add_source(struct ebb_report *report, struct ebb_source *source);

#endif
