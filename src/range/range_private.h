/* SPDX-License-Identifier: BSD-2-Clause */
/* Between those who work on ranges of frames, and those who move blocks. */
#ifndef EBB_RANGE_PRIVATE_H
#define EBB_RANGE_PRIVATE_H

#include "../zone/zone_private.h"

#include <ebb/range.h>

/* Blocks dealt with in one hold of the zone's lock, where it may be dropped. */
#define EBB__BLOCKS_PER_HOLD 64u

/* How often a range is gone over in the hope that what hindered it is gone. */
#define EBB__ATTEMPTS 4u

/* ---- ranges ---- */

/* [pfn, pfn + frames) as indices; false if that is not a range of the zone. */
static inline bool ebb__range_of(const struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames,
                                 uint64_t *from, uint64_t *to)
{
    uint64_t index = pfn - zone->base;

    if (pfn < zone->first || index >= zone->span || frames == 0 || frames > zone->span - index)
        return false;
    *from = index;
    *to = index + frames;
    return true;
}

/* ---- blocks ---- */

/* A block of an allocated range, claimed or complete. */
static inline bool ebb__in_range(uint16_t state)
{
    return ebb__state_of(state) == EBB__ALLOCATED && ebb__type_of(state) == EBB_ISOLATE;
}

static inline void ebb__set_filling(struct ebb_zone *zone, uint32_t index, unsigned order)
{
    EBB_DEBUG_ASSERT(ebb__state_of(ebb__load_state(zone, index)) != EBB__FREE);
    ebb__store_state(zone, index, ebb__state_word(EBB__FILLING, order, 0));
}

/* Do blocks that are allocated have to be looked at (ebb__verify_fill())? */
static inline bool ebb__must_verify(const struct ebb_zone *zone)
{
    return zone->verify && zone->fill_policy != EBB_FILL_NONE;
}

/* ---- migrate.c: with no lock held, but where it says so ---- */

/* Fill and free a block of the state FILLING, which counts as so many frees. */
void ebb__fill_and_free(struct ebb_zone *zone, uint32_t index, unsigned order,
                        enum ebb__where where, unsigned frees);

/* The same for an allocated block. False, and nothing changes: it is no such block. */
bool ebb__free_past_caches(struct ebb_zone *zone, uint32_t index, unsigned order,
                           enum ebb__where where);

/* A block that was taken off the lists is to be moved to. Under the zone's lock. */
void ebb__set_target(struct ebb_zone *zone, uint32_t index, unsigned order);

/*
 * Let the owner of `from` move it to `to`, a target. True: `from` is the caller's, an
 * allocated block. False: `to` is free again.
 */
bool ebb__migrate(struct ebb_zone *zone, const struct ebb_migrate_ops *ops, uint32_t from,
                  uint32_t to, unsigned order);

/* A block that nobody else must have touched, by the contract of migrate, is no longer
 * there: tell the port. */
void ebb__migrate_broken(struct ebb_zone *zone, uint32_t index, unsigned order);

/* So many frames could not be had: -EBB_ENOMEM, or -EBB_EAGAIN if the host has enough of
 * them. Under the zone's lock. */
int ebb__short_of(const struct ebb_zone *zone, uint64_t frames);

#endif
