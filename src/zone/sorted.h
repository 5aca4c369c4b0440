/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sorted free lists: unreported blocks from the head, reported ones from the divider to the
 * tail. So the head is unreported as long as any block is, which the allocator makes use of, and
 * the coldest unreported block is the one above the divider: there is nothing to search.
 *
 * A divider names a reported block, or nothing, so that a guest that frees and allocates
 * unreported memory does not come by here. What src/history does instead is behind zone->hooks.
 */
#ifndef EBB_ZONE_SORTED_H
#define EBB_ZONE_SORTED_H

#include "zone_private.h"

/* ---- dividers, for those who keep them ---- */

/* Place a block that goes onto the divider's list cold: right above the divider, and a reported one
 * is the new divider. */
static inline bool ebb__divider_place(struct ebb_divider *divider, uint32_t index, bool reported,
                                      uint32_t *before)
{
    bool was_set = divider->set;

    EBB_DEBUG_ASSERT(!was_set || divider->block != index);
    *before = divider->block;
    if (reported) {
        divider->block = index;
        divider->set = true;
    }
    return was_set;
}

/* A reported block leaves the divider's list. */
static inline void ebb__divider_leave(const struct ebb_zone *zone, struct ebb_divider *divider,
                                      unsigned order, unsigned type, uint32_t index)
{
    if (EBB_LIKELY(!divider->set || divider->block != index))
        return;
    EBB_DEBUG_ASSERT(ebb__load_state(zone, index) & EBB__REPORTED);
    divider->block = ebb__link_of(zone, order, index)->next;
    divider->set =
        divider->block != zone->lists[order][type].head; /* the next of the tail is the head */
}

/* The block above the divider, or the tail if that is not set. */
static inline uint32_t ebb__divider_above(const struct ebb_zone *zone,
                                          const struct ebb_divider *divider, unsigned order,
                                          unsigned type)
{
    uint32_t below = divider->set ? divider->block : zone->lists[order][type].head;

    EBB_DEBUG_ASSERT(zone->lists[order][type].blocks > 0 && below < zone->span);
    return ebb__link_of(zone, order, below)->prev;
}

/* From the divider to the tail: free, on this list, and reported. */
bool ebb__divider_check(const struct ebb_zone *zone, const struct ebb_divider *divider,
                        unsigned order, unsigned type, uint32_t *index);

/* ---- the zone's lists ---- */

/* The unreported block of a list that has one which is the last to be allocated. */
static inline uint32_t ebb__coldest(const struct ebb_zone *zone, unsigned order, unsigned type)
{
    const uint32_t index = ebb__divider_above(zone, &zone->sorted[order][type], order, type);

    EBB_DEBUG_ASSERT(!zone->hooks && ebb__unreported(&zone->lists[order][type]) > 0);
    EBB_DEBUG_ASSERT(!ebb__is_reported(zone, order, index));
    return index;
}

static inline bool ebb__sorts(const struct ebb_zone *zone)
{
    return !zone->hooks || zone->hooks->sorts;
}

static inline bool ebb__has_dividers(const struct ebb_zone *zone)
{
    return !zone->hooks || zone->hooks->has_dividers;
}

static inline bool ebb__place(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type,
                              bool reported, uint32_t *before)
{
    if (EBB_LIKELY(!zone->hooks))
        return ebb__divider_place(&zone->sorted[order][type], index, reported, before);
    return zone->hooks->place && zone->hooks->place(zone, index, order, type, reported, before);
}

static inline void ebb__leave(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type)
{
    if (EBB_LIKELY(!zone->hooks))
        ebb__divider_leave(zone, &zone->sorted[order][type], order, type, index);
    else if (zone->hooks->leave)
        zone->hooks->leave(zone, index, order, type);
}

/* All that are reported are below their divider. */
bool ebb__sorted_check(const struct ebb_zone *zone, uint32_t *index);

#endif
