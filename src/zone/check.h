/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the files that walk a zone's invariants (check.c names them): check_lists.c walks what
 * the zone's lock guards, check.c the caches and every descriptor as well.
 */
#ifndef EBB_ZONE_CHECK_H
#define EBB_ZONE_CHECK_H

#include "sorted.h"

/* A walk under way: the zone, where to name a violation, and what level 3 counts. */
struct walk {
    const struct ebb_zone *zone;
    struct ebb_violation *violation;
    uint64_t blocks[EBB_ORDERS][EBB_MIGRATETYPES]; /* free ones */
    uint64_t frames[EBB__FILLING + 1];             /* by state */
    uint64_t cached_hash; /* sum over the cached frames, less that over the caches' entries */
};

/* Note a violation; false, for the callers to return. */
static inline bool ebb__broken(struct walk *walk, unsigned invariant, uint64_t index,
                               const char *what)
{
    *walk->violation = (struct ebb_violation){
        .invariant = invariant,
        .pfn = walk->zone->base + index,
        .what = what,
    };
    return false;
}

static inline bool ebb__broken_count(struct walk *walk, unsigned invariant, const char *what)
{
    *walk->violation = (struct ebb_violation){.invariant = invariant, .what = what};
    return false;
}

/* By the bit alone: the pageblocks' counts are yet to be checked. */
static inline bool ebb__has_lazy_bit(const struct ebb_zone *zone, uint64_t index)
{
    return zone->lazy_bits[index >> 6] >> (index & 63) & 1;
}

/* Of an unreported block of less than a pageblock. */
static inline bool ebb__has_pageblock_bit(const struct ebb_zone *zone, uint32_t index)
{
    uint32_t pageblock = index >> zone->large_order;

    return zone->pageblock_bits[pageblock >> 6] >> (pageblock & 63) & 1;
}

/* A free block, wherever it was found: where it lies, and what is around it. */
bool ebb__check_free_block(struct walk *walk, uint64_t index, uint16_t state);

/* What is counted of the lists, by their own counters. */
bool ebb__check_counts(struct walk *walk);

/* The lists, the rings of pageblocks with lazy frames, and what is kept of lists that are sorted.
 * After the counts were found right. */
bool ebb__check_lists(struct walk *walk);

#endif
