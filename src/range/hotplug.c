/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory hotplug: emptying isolated ranges of frames, and taking them out of a
 * zone. They come in by ebb_zone_add().
 */
#include "range_private.h"

/* ---- removing ---- */

static bool all_isolated(const struct ebb_zone *zone, uint64_t from, uint64_t to)
{
    uint64_t step = (uint64_t)1 << zone->pageblock_order;

    for (uint64_t at = from & ~(step - 1); at < to; at += step) {
        if (ebb__pageblock_type(zone, (uint32_t)at) != EBB_ISOLATE)
            return false;
    }
    return true;
}

/* Can a range in isolated pageblocks be taken away? */
static int removable(const struct ebb_zone *zone, uint64_t from, uint64_t to)
{
    bool busy = false;
    bool again = false;
    uint32_t head;
    uint16_t state;

    for (uint64_t at = from; at < to; at = ebb__block_end(head, state)) {
        if (!ebb__find_block(zone, (uint32_t)at, &head, &state))
            return -EBB_ENOENT;
        if (ebb__state_of(state) == EBB__IN_FLIGHT)
            again = true;
        else if (ebb__state_of(state) != EBB__FREE)
            busy = true;
    }
    if (busy)
        return -EBB_EBUSY;
    return again ? -EBB_EAGAIN : 0;
}

/* Is a frame of [from, to) managed, apart from blocks that begin before it? */
static bool any_block(const struct ebb_zone *zone, uint64_t from, uint64_t to)
{
    for (uint64_t at = from; at < to; at++) {
        if (ebb__load_state(zone, (uint32_t)at) != EBB__NONE)
            return true;
    }
    return false;
}

/* Pageblocks that nothing is left of are as they were in the beginning. */
static void forget_pageblocks(struct ebb_zone *zone, uint64_t from, uint64_t to)
{
    uint64_t step = (uint64_t)1 << zone->pageblock_order;
    uint32_t head;
    uint16_t state;

    for (uint64_t at = from & ~(step - 1); at < to; at += step) {
        uint64_t end = ebb__lower(at + step, zone->span);
        /* All between from and to is gone. */
        bool left = (at < from && (ebb__find_block(zone, (uint32_t)at, &head, &state) ||
                                   any_block(zone, at, from))) ||
                    (end > to && any_block(zone, to, end));

        if (!left)
            ebb__set_pageblock_type(zone, (uint32_t)at, EBB_MOVABLE);
    }
}

static void remove_frames(struct ebb_zone *zone, uint64_t from, uint64_t to)
{
    uint32_t head;
    uint16_t state;

    for (uint64_t at = from; at < to;) {
        EBB_ASSERT(ebb__find_block(zone, (uint32_t)at, &head, &state));
        EBB_ASSERT(ebb__state_of(state) == EBB__FREE);
        EBB_DEBUG_ASSERT(ebb__type_of(state) == EBB_ISOLATE);
        unsigned order = ebb__largest_order(zone, at, ebb__lower(to, ebb__block_end(head, state)));

        (void)ebb__take_at(zone, head, (uint32_t)at, order);
        EBB_DEBUG_ASSERT(zone->present[at >> zone->max_order] >= 1u << order);
        EBB_DEBUG_ASSERT(zone->managed >= (uint64_t)1 << order);
        zone->present[at >> zone->max_order] -= 1u << order;
        zone->managed -= (uint64_t)1 << order;
        at += (uint64_t)1 << order;
    }
    EBB_DEBUG_ASSERT(!any_block(zone, from, to));
    forget_pageblocks(zone, from, to);
    EBB_EXPENSIVE(ebb__assert_lists(zone));
}

int ebb_zone_remove(struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames)
{
    int err = -EBB_EINVAL;
    uint64_t from;
    uint64_t to;

    if (!ebb__range_of(zone, pfn, frames, &from, &to))
        return -EBB_EINVAL;
    ebb__lock(zone);
    if (all_isolated(zone, from, to))
        err = removable(zone, from, to);
    if (!err)
        remove_frames(zone, from, to);
    ebb__limit_blocks(zone);
    ebb__unlock(zone);
    /* With less memory, the caches may have fewer pageblocks. */
    if (!err)
        (void)ebb__drain_caches(zone, false, false);
    return err;
}

/* ---- emptying ---- */

/* Room for the block at head, if it is still in this state: anywhere, since what is
 * isolated is not allocated. */
static int take_room_outside(struct ebb_zone *zone, uint32_t head, uint16_t state, uint32_t *to)
{
    unsigned order = ebb__order_of(state);
    uint64_t frames = (uint64_t)1 << order;
    int err = 0;

    ebb__lock(zone);
    if (ebb__load_state(zone, head) != state)
        err = -EBB_EBUSY;
    else if (ebb__above_min(zone, frames) && ebb__take_block(zone, order, EBB_MOVABLE, to))
        ebb__set_target(zone, *to, order);
    else
        err = ebb__short_of(zone, frames);
    ebb__unlock(zone);
    return err;
}

/* Have a block moved, and free where it was. */
static int evacuate(struct ebb_zone *zone, const struct ebb_migrate_ops *ops, uint32_t head,
                    uint16_t state)
{
    unsigned order = ebb__order_of(state);
    uint32_t to;
    int err = take_room_outside(zone, head, state, &to);

    if (err)
        return err;
    if (!ebb__migrate(zone, ops, head, to, order))
        return -EBB_EBUSY;
    if (!ebb__free_past_caches(zone, head, order, EBB__COLD))
        ebb__migrate_broken(zone, head, order);
    return 0;
}

/* The next block from *at on that is neither free nor with the host. */
static bool next_in_use(struct ebb_zone *zone, uint64_t *at, uint64_t to, uint32_t *head,
                        uint16_t *state)
{
    bool in_use = false;

    while (*at < to && !in_use) {
        ebb__lock(zone);
        for (unsigned n = 0; n < EBB__BLOCKS_PER_HOLD && *at < to && !in_use; n++) {
            bool found = ebb__find_block(zone, (uint32_t)*at, head, state);

            *at = found ? ebb__block_end(*head, *state) : *at + 1;
            in_use = found && ebb__state_of(*state) != EBB__FREE &&
                     ebb__state_of(*state) != EBB__IN_FLIGHT;
        }
        ebb__unlock(zone);
    }
    return in_use;
}

static int evacuate_all(struct ebb_zone *zone, const struct ebb_migrate_ops *ops, uint64_t from,
                        uint64_t to)
{
    uint64_t at = from;
    uint32_t head;
    uint16_t state;
    int err = 0;

    while (next_in_use(zone, &at, to, &head, &state)) {
        bool movable = ebb__state_of(state) == EBB__ALLOCATED && ebb__type_of(state) == EBB_MOVABLE;
        EBB_DEBUG_ASSERT(ebb__state_of(state) != EBB__NONE && head < to);
        int moved = movable ? evacuate(zone, ops, head, state) : -EBB_EBUSY;

        if (moved && moved != -EBB_EBUSY)
            return moved;
        if (moved)
            err = moved;
    }
    return err;
}

int ebb_evacuate_range(struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames,
                       const struct ebb_migrate_ops *ops)
{
    int err = -EBB_EBUSY;
    bool isolated;
    uint64_t from;
    uint64_t to;

    if (!ops || !ops->migrate || !ebb__range_of(zone, pfn, frames, &from, &to))
        return -EBB_EINVAL;
    ebb__lock(zone);
    isolated = all_isolated(zone, from, to);
    ebb__unlock(zone);
    if (!isolated)
        return -EBB_EINVAL;
    ebb_zone_drain(zone); /* there may be room in what it frees and merges */
    for (unsigned n = 0; err == -EBB_EBUSY && n < EBB__ATTEMPTS; n++)
        err = evacuate_all(zone, ops, from, to);
    return err;
}
