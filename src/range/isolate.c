/* SPDX-License-Identifier: BSD-2-Clause */
/* Isolating pageblocks: their free blocks go out of reach of allocation and of reporting, and come
 * back into it. */
#include "range_private.h"

/* The pageblocks [*from, *to) of a range; false if it is not made of such. */
static bool pageblock_range(const struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames,
                            uint64_t *from, uint64_t *to)
{
    uint64_t mask = ((uint64_t)1 << zone->pageblock_order) - 1;
    uint64_t end = (zone->span + mask) & ~mask;
    uint64_t index = pfn - zone->base;

    if (pfn < zone->base || ((index | frames) & mask) || frames == 0 || index >= end ||
        frames > end - index)
        return false;
    *from = index;
    *to = index + frames;
    return true;
}

static bool all_isolated(const struct ebb_zone *zone, uint64_t from, uint64_t to, bool isolated)
{
    uint64_t step = (uint64_t)1 << zone->pageblock_order;

    for (uint64_t at = from; at < to; at += step) {
        if ((ebb__pageblock_type(zone, (uint32_t)at) == EBB_ISOLATE) != isolated)
            return false;
    }
    return true;
}

/* Change the type of pageblocks and free their free blocks anew: they move to the
 * lists of that type, merge with neighbours that are now of a kind, and are split
 * where they lie across the end of the range. Marks are kept. */
static void retype(struct ebb_zone *zone, uint64_t from, uint64_t to, unsigned type)
{
    uint64_t step = (uint64_t)1 << zone->pageblock_order;
    uint64_t before = zone->level.now;
    uint32_t head;
    uint16_t state;

    /* One by one lazy buddies would be linked while they are of different types, and they
     * have one link between them. */
    for (uint64_t at = from; at < to; at += step)
        ebb__coalesce_at(zone, (uint32_t)at);
    for (uint64_t at = from; at < to; at += step)
        ebb__set_pageblock_type(zone, (uint32_t)at, type);

    /* The first one may begin before the range. */
    if (ebb__find_block(zone, (uint32_t)from, &head, &state) && ebb__state_of(state) == EBB__FREE)
        from = head;
    for (uint64_t at = from; at < to && at < zone->span;
         at += (uint64_t)1 << ebb__order_of(state)) {
        state = ebb__load_state(zone, (uint32_t)at);
        if (ebb__state_of(state) != EBB__FREE || ebb__type_of(state) == type)
            continue;
        bool reported = ebb__unlink(zone, (uint32_t)at);
        unsigned order =
            ebb__free_block(zone, (uint32_t)at, ebb__order_of(state),
                            ebb__moved_mark(zone, reported), ebb__moved_where(zone, reported));

        if (type != EBB_ISOLATE)
            ebb__screen(zone, order);
    }
    /* What is isolated has left the reach of allocation, but nobody needed it. */
    ebb__withdraw_level(zone, before);
    EBB_EXPENSIVE(ebb__assert_lists(zone));
}

int ebb_isolate_range(struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames)
{
    uint64_t from;
    uint64_t to;
    int err = 0;

    if (!pageblock_range(zone, pfn, frames, &from, &to))
        return -EBB_EINVAL;
    ebb__lock(zone);
    if (all_isolated(zone, from, to, false))
        retype(zone, from, to, EBB_ISOLATE);
    else
        err = -EBB_EBUSY;
    ebb__unlock(zone);
    /* After the types have changed, so that no frame enters a cache again. */
    if (!err)
        ebb_zone_drain(zone);
    return err;
}

int ebb_putback_range(struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames,
                      enum ebb_migratetype type)
{
    unsigned list_type = (unsigned)type;
    uint64_t from;
    uint64_t to;
    int err = 0;

    if (list_type >= EBB_ISOLATE || !pageblock_range(zone, pfn, frames, &from, &to))
        return -EBB_EINVAL;
    ebb__lock(zone);
    if (all_isolated(zone, from, to, true))
        retype(zone, from, to, list_type);
    else
        err = -EBB_EINVAL;
    ebb__unlock(zone);
    return err;
}
