/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compaction: moving what is allocated together, so that what is free becomes
 * whole blocks, which can be allocated as such and reported cheaply.
 *
 * Two scanners walk a zone towards each other, as in Linux (mm/compaction.c): one
 * from the low end, which empties blocks, and one from the high end, which finds
 * room in blocks that are not empty anyway. The data is moved by its owner,
 * since only he knows who refers to it.
 */
#ifndef EBB_COMPACT_H
#define EBB_COMPACT_H

#include <ebb/types.h>
#include <ebb/zone.h>

/* How to move the data of allocated movable blocks; for compaction and for range.h. */
struct ebb_migrate_ops {
    /*
     * Move the 2^order frames at `from` to those at `to`. Called with no lock held,
     * from within the function that was given these ops; may allocate and free.
     *
     * `from` was allocated as EBB_MOVABLE with this order a moment ago, by whomever.
     * It may have been freed since, and allocated again by somebody else: the owner
     * looks it up among his blocks, under the lock that he frees them under.
     *
     * 0 (or above): the data is at `to`, which is the owner's now, an allocated block
     * of this order and movable. `from` is no longer his: he must not free it.
     * Negative: he has no such block (not there, not this order, not his any more), or
     * it cannot be moved. Nothing has changed for him; `to` is not his.
     */
    int (*migrate)(void *ctx, ebb_pfn_t from, ebb_pfn_t to, unsigned order);
    void *ctx;
};

/*
 * Where compaction stands, and what it has done. Caller-owned; one for each
 * compaction under way, several of which do not get into each other's way. The
 * counters may be read between calls, the rest is to be treated as opaque.
 */
struct ebb_compact {
    uint64_t migrated; /* blocks moved */
    uint64_t frames;   /* frames in them */
    uint64_t failed;   /* blocks that their owners would not move */
    uint64_t made;     /* blocks of 2^order frames made whole and free */

    struct ebb_zone *zone;
    unsigned order;
    uint64_t goal;
    uint64_t left;                /* frames that this call may still look at */
    bool advanced;                /* this call has */
    uint64_t scan;                /* index of the block to empty next */
    uint64_t targets[EBB_ORDERS]; /* room for this order is looked for below this index */
    uint32_t reported;            /* bit per order: in reported blocks, too */
    uint32_t exhausted;           /* bit per order: there is no room */
};

/*
 * Begin a compaction of a zone. `order`: of the blocks that it is to make whole, 1 to the
 * zone's largest; 0: a pageblock. `goal`: so many of them are enough; 0: as many as there
 * can be. There is nothing to release.
 * -EBB_EINVAL: the order is above the zone's largest.
 */
EBB_MUST_CHECK int ebb_compact_init(struct ebb_compact *compact, struct ebb_zone *zone,
                                    unsigned order, uint64_t goal);

/*
 * Go on with it. `budget`: frames to look at, after which the call returns (a little
 * later: it finishes with the block it is at); 0: no bound. The zone's lock is held for
 * no more than 512 frames at a time.
 *
 * A block is emptied if all that is allocated in it is movable and can be moved; one
 * that an owner refuses to move, or for which there is no room, leaves the rest of
 * its block in place. Room is taken from movable pageblocks, never out of
 * free blocks of `order` or above, and out of reported ones only when there
 * is no other. What is emptied goes to the cold end of the lists, and may ask
 * for a pass. Empties the per-CPU caches.
 *
 * 1: the budget is used up, call again. 0: done: the scanners have met, or the goal is
 * reached. -EBB_ENOMEM: the min watermark leaves no frames to move to; may be called
 * again later. -EBB_EINVAL: no callback.
 */
EBB_MUST_CHECK int ebb_compact(struct ebb_compact *compact, const struct ebb_migrate_ops *ops,
                               uint64_t budget);

#endif
