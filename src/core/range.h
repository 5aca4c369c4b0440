/* SPDX-License-Identifier: BSD-2-Clause */
/* Between those who work on ranges of frames: range.c, compact.c, zone.c. */
#ifndef EBB_CORE_RANGE_H
#define EBB_CORE_RANGE_H

#include "core.h"

#include <ebb/range.h>

/* The largest order of a block that begins at `from` and ends at or before `to`. */
static inline unsigned ebb__largest_order(const struct ebb_zone *zone, uint64_t from, uint64_t to)
{
    unsigned order = 63u - (unsigned)__builtin_clzll(to - from);

    if (order > zone->max_order)
        order = zone->max_order;
    if (from != 0 && (unsigned)__builtin_ctzll(from) < order)
        order = (unsigned)__builtin_ctzll(from);
    return order;
}

/* Free an allocated block: filled, if the zone wants that, and past the caches. *wanted
 * is set, never cleared, if a pass is wanted. False, and nothing changes: it is no such
 * block. With no lock held. */
bool ebb__free_past_caches(struct ebb_zone *zone, uint32_t index, unsigned order,
                           enum ebb__where where, bool *wanted);

/*
 * Let the owner of `from` move it to `to`, which was just allocated for this. True: `from` is
 * the caller's, an allocated block. False: `to` is free again. With no lock held.
 */
bool ebb__migrate(struct ebb_zone *zone, const struct ebb_migrate_ops *ops, uint32_t from,
                  uint32_t to, unsigned order, bool *wanted);

/* A block that its former owner must not have touched, by the contract of migrate, is no
 * longer there: tell the port. With no lock held. */
void ebb__migrate_broken(struct ebb_zone *zone, uint32_t index, unsigned order);

#endif
