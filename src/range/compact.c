/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compaction: one scanner empties blocks from the low end, the other finds room
 * from the high end.
 *
 * What is looked for is whole blocks of one order. So a block that cannot become
 * whole is left alone from the start, and room is taken only where there is no
 * whole block to lose. The scanner for room keeps its place for each order, since
 * where there is none for a large block there may be for a small one. It goes over the
 * zone twice: the second time it takes reported blocks, too.
 */
#include "range_private.h"

/* Room is looked for in windows of this order at most, one in a hold of the lock. */
#define WINDOW_ORDER 9u

/* Frames looked at in one hold of the zone's lock. */
#define FRAMES_PER_HOLD 512u

/* ---- small things ---- */

static uint64_t block_frames(const struct ebb_compact *compact)
{
    return (uint64_t)1 << compact->order;
}

static uint64_t window_frames(const struct ebb_compact *compact)
{
    return (uint64_t)1 << (compact->order < WINDOW_ORDER ? compact->order : WINDOW_ORDER);
}

static void spend(struct ebb_compact *compact, uint64_t frames)
{
    compact->left -= frames < compact->left ? frames : compact->left;
    compact->advanced = true;
}

/* A call that has got anywhere may stop when its budget is used up. */
static bool must_pause(const struct ebb_compact *compact)
{
    return compact->advanced && compact->left == 0;
}

static bool has_goal(const struct ebb_compact *compact)
{
    return compact->goal > 0 && compact->made >= compact->goal;
}

/* The first frame behind the last window. */
static uint64_t top(const struct ebb_compact *compact)
{
    uint64_t mask = window_frames(compact) - 1;

    return (compact->zone->span + mask) & ~mask;
}

static bool is_movable(uint16_t state)
{
    return ebb__state_of(state) == EBB__ALLOCATED && ebb__type_of(state) == EBB_MOVABLE;
}

/* ---- room ---- */

enum room {
    ROOM_FOUND,
    ROOM_NOT_HERE,  /* not in this window */
    ROOM_NOWHERE,   /* nor in any other */
    ROOM_GONE,      /* the block that it is for is no longer what it was */
    ROOM_PAUSE,     /* the budget is used up */
    ROOM_WATERMARK, /* there are too few frames left */
};

static bool is_room(const struct ebb_compact *compact, uint16_t state, unsigned order)
{
    if (ebb__state_of(state) != EBB__FREE || ebb__type_of(state) != EBB_MOVABLE)
        return false;
    if ((state & EBB__REPORTED) && !(compact->reported >> order & 1))
        return false;
    return ebb__order_of(state) >= order && ebb__order_of(state) < compact->order;
}

/* The block in a window that fits best. */
static bool best_in_window(const struct ebb_compact *compact, uint64_t from, unsigned order,
                           uint32_t *best)
{
    const struct ebb_zone *zone = compact->zone;
    uint64_t to = from + window_frames(compact);
    unsigned found = EBB_ORDERS;

    EBB_DEBUG_ASSERT(from < zone->span && order < compact->order);
    if (to > zone->span)
        to = zone->span;
    for (uint64_t at = from; at < to && found > order;) {
        uint16_t state = ebb__load_state(zone, (uint32_t)at);

        if (is_room(compact, state, order) && ebb__order_of(state) < found) {
            found = ebb__order_of(state);
            *best = (uint32_t)at;
        }
        at += (uint64_t)1 << ebb__order_of(state);
    }
    return found < EBB_ORDERS;
}

/* Is nothing managed of the largest block that this frame lies in? */
static bool is_hole(const struct ebb_zone *zone, uint64_t index)
{
    return zone->present[index >> zone->max_order] == 0;
}

/* Take room for the block at `from`, if it is still what it was, out of the window that
 * ends at *end, which is moved if there is none. One hold of the lock. */
static enum room take_from_window(struct ebb_compact *compact, uint64_t *end, uint32_t from,
                                  uint16_t state, uint32_t *to)
{
    struct ebb_zone *zone = compact->zone;
    uint64_t window = *end - window_frames(compact);
    unsigned order = ebb__order_of(state);
    enum room result = ROOM_FOUND;

    ebb__lock(zone);
    if (ebb__load_state(zone, from) != state)
        result = ROOM_GONE;
    else if (!ebb__above_min(zone, (uint64_t)1 << order))
        result = ROOM_WATERMARK;
    else if (!best_in_window(compact, window, order, to))
        result = ROOM_NOT_HERE;
    if (result == ROOM_FOUND) {
        EBB_DEBUG_ASSERT(is_room(compact, ebb__load_state(zone, *to), order) && *to != from);
        if (ebb__take_at(zone, *to, *to, order))
            ebb__count_refault(zone, (uint64_t)1 << order);
        ebb__set_target(zone, *to, order);
    } else if (result == ROOM_NOT_HERE) {
        *end = is_hole(zone, window) ? window >> zone->max_order << zone->max_order : window;
    }
    ebb__unlock(zone);
    return result;
}

/* The scanners have met for this order: begin again, and take reported blocks, or give it
 * up, and all larger ones with it. Returns whether there is something left to try. */
static bool met(struct ebb_compact *compact, unsigned order)
{
    uint32_t bit = 1u << order;

    if (compact->reported & bit) {
        compact->exhausted |= ~(bit - 1);
        return false;
    }
    compact->reported |= bit;
    compact->targets[order] = top(compact);
    return true;
}

/* Find room for the block at `from` in this state, and take it. */
static enum room find_room(struct ebb_compact *compact, uint32_t from, uint16_t state, uint32_t *to)
{
    unsigned order = ebb__order_of(state);
    uint64_t *end = &compact->targets[order];
    uint64_t size = window_frames(compact);

    for (;;) {
        if (*end < compact->scan + block_frames(compact) + size) {
            if (met(compact, order))
                continue;
            return ROOM_NOWHERE;
        }
        if (must_pause(compact))
            return ROOM_PAUSE;
        enum room room = take_from_window(compact, end, from, state, to);

        spend(compact, size);
        if (room != ROOM_NOT_HERE)
            return room;
    }
}

/* ---- a block to be emptied ---- */

/* Can what is in this block be out of its block, as far as one can see? */
static bool can_leave(const struct ebb_compact *compact, uint16_t state)
{
    switch (ebb__state_of(state)) {
    case EBB__FREE:
        return ebb__type_of(state) != EBB_ISOLATE;
    case EBB__ALLOCATED:
        return is_movable(state) && ebb__order_of(state) < compact->order &&
               !(compact->exhausted >> ebb__order_of(state) & 1);
    default: /* on its way to the free lists */
        return true;
    }
}

/* Look a block over: is it worth the trouble? That is, can it become whole, and is it not
 * yet? */
static bool worthwhile(const struct ebb_compact *compact)
{
    struct ebb_zone *zone = compact->zone;
    uint64_t at = compact->scan;
    uint64_t end = at + block_frames(compact);
    bool movable = false;
    bool possible = ebb__pageblock_type(zone, (uint32_t)at) != EBB_ISOLATE;

    while (possible && at < end) {
        ebb__lock(zone);
        for (unsigned n = 0; n < EBB__BLOCKS_PER_HOLD && possible && at < end; n++) {
            uint32_t head;
            uint16_t state;

            possible =
                ebb__find_block(zone, (uint32_t)at, &head, &state) && can_leave(compact, state);
            if (!possible)
                break;
            movable |= is_movable(state);
            at = ebb__block_end(head, state);
        }
        ebb__unlock(zone);
    }
    return possible && movable;
}

/* The next movable block of the block from *at on. */
static bool next_movable(const struct ebb_compact *compact, uint64_t *at, uint16_t *state)
{
    struct ebb_zone *zone = compact->zone;
    uint64_t end = compact->scan + block_frames(compact);

    while (*at < end) {
        ebb__lock(zone);
        for (unsigned n = 0; n < FRAMES_PER_HOLD && *at < end; n++) {
            *state = ebb__load_state(zone, (uint32_t)*at);
            if (is_movable(*state)) {
                ebb__unlock(zone);
                return true;
            }
            *at += (uint64_t)1 << ebb__order_of(*state);
        }
        ebb__unlock(zone);
    }
    return false;
}

/* Have a block moved, and free where it was. */
static bool move_block(struct ebb_compact *compact, const struct ebb_migrate_ops *ops,
                       uint32_t from, uint32_t to, unsigned order)
{
    struct ebb_zone *zone = compact->zone;
    EBB_DEBUG_ASSERT(from != to && order < compact->order);
    bool moved = ebb__migrate(zone, ops, from, to, order);

    /* Cold: whoever allocates next is not to have it. */
    if (moved && !ebb__free_past_caches(zone, from, order, EBB__COLD))
        ebb__migrate_broken(zone, from, order);
    compact->migrated += moved;
    compact->frames += moved ? (uint64_t)1 << order : 0;
    compact->failed += !moved;
    return moved;
}

/* Is it still there? Then its owner would not move it. */
static bool is_pinned(const struct ebb_compact *compact, uint32_t from, uint16_t state)
{
    struct ebb_zone *zone = compact->zone;
    bool pinned;

    ebb__lock(zone);
    pinned = ebb__load_state(zone, from) == state;
    ebb__unlock(zone);
    return pinned;
}

enum emptied { EMPTIED, NOT_EMPTIED, EMPTY_PAUSE, EMPTY_WATERMARK };

static enum emptied empty_block(struct ebb_compact *compact, const struct ebb_migrate_ops *ops)
{
    uint64_t at = compact->scan;
    uint16_t state = EBB__NONE;

    /* Others may put something new there all the time: there is an end to it. */
    for (uint64_t n = 0; n < 2 * block_frames(compact); n++) {
        if (!next_movable(compact, &at, &state))
            return EMPTIED;
        uint32_t from = (uint32_t)at;
        uint32_t to = from; /* until room is found */

        switch (find_room(compact, from, state, &to)) {
        case ROOM_FOUND:
            break;
        case ROOM_PAUSE:
            return EMPTY_PAUSE;
        case ROOM_WATERMARK:
            return EMPTY_WATERMARK;
        case ROOM_GONE:
            continue;
        default:
            return NOT_EMPTIED;
        }
        if (!move_block(compact, ops, from, to, ebb__order_of(state)) &&
            is_pinned(compact, from, state))
            return NOT_EMPTIED;
    }
    return NOT_EMPTIED;
}

static bool is_whole(const struct ebb_compact *compact)
{
    struct ebb_zone *zone = compact->zone;
    uint32_t head;
    uint16_t state;
    bool whole;

    ebb__lock(zone);
    whole = ebb__find_block(zone, (uint32_t)compact->scan, &head, &state) &&
            ebb__state_of(state) == EBB__FREE && ebb__order_of(state) >= compact->order;
    ebb__unlock(zone);
    return whole;
}

/* What its owners freed meanwhile may rest in caches. */
static void count_if_whole(struct ebb_compact *compact)
{
    if (!is_whole(compact)) {
        ebb_zone_drain(compact->zone);
        if (!is_whole(compact))
            return;
    }
    compact->made++;
}

/* ---- all of it ---- */

static bool is_done(const struct ebb_compact *compact)
{
    uint64_t frames = block_frames(compact);

    return has_goal(compact) || (compact->exhausted & 1) || compact->zone->span < frames ||
           compact->scan > compact->zone->span - frames;
}

static void next_block(struct ebb_compact *compact)
{
    struct ebb_zone *zone = compact->zone;
    bool hole;

    spend(compact, block_frames(compact));
    ebb__lock(zone);
    hole = is_hole(zone, compact->scan);
    ebb__unlock(zone);
    if (hole)
        compact->scan = ((compact->scan >> zone->max_order) + 1) << zone->max_order;
    else
        compact->scan += block_frames(compact);
}

/* Whoever takes blocks out of the middle of lists says so: once, before the search. */
static void reset_lists(struct ebb_compact *compact)
{
    struct ebb_zone *zone = compact->zone;

    ebb__lock(zone);
    for (unsigned order = 0; order < compact->order; order++)
        ebb__reset_list(zone, order, EBB_MOVABLE);
    ebb__unlock(zone);
}

int ebb_compact_init(struct ebb_compact *compact, struct ebb_zone *zone, unsigned order,
                     uint64_t goal)
{
    if (order > zone->max_order)
        return -EBB_EINVAL;
    *compact = (struct ebb_compact){
        .zone = zone,
        .order = order > 0 ? order : zone->pageblock_order,
        .goal = goal,
    };
    EBB_DEBUG_ASSERT(compact->order <= zone->max_order);
    for (unsigned i = 0; i < EBB_ORDERS; i++)
        compact->targets[i] = top(compact);
    return 0;
}

int ebb_compact(struct ebb_compact *compact, const struct ebb_migrate_ops *ops, uint64_t budget)
{
    if (!ops || !ops->migrate)
        return -EBB_EINVAL;
    compact->left = budget > 0 ? budget : UINT64_MAX;
    compact->advanced = false;
    ebb_zone_drain(compact->zone);
    reset_lists(compact);

    while (!is_done(compact)) {
        EBB_DEBUG_ASSERT(compact->scan + block_frames(compact) <= compact->zone->span);
        if (must_pause(compact))
            return 1;
        if (worthwhile(compact)) {
            enum emptied emptied = empty_block(compact, ops);

            if (emptied == EMPTY_PAUSE)
                return 1;
            if (emptied == EMPTY_WATERMARK)
                return -EBB_ENOMEM;
            if (emptied == EMPTIED)
                count_if_whole(compact);
        }
        next_block(compact);
    }
    return 0;
}
