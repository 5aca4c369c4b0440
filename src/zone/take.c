/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Taking a block off the free lists: which one, and from another migratetype's lists if its own are
 * empty. Everything here is under the zone's lock.
 */
#include "lists.h"

/* Where to look when the lists of a type are empty, in this order. */
static const uint8_t fallbacks[3][2] = {
    [EBB_MOVABLE] = {EBB_RECLAIMABLE, EBB_UNMOVABLE},
    [EBB_UNMOVABLE] = {EBB_RECLAIMABLE, EBB_MOVABLE},
    [EBB_RECLAIMABLE] = {EBB_UNMOVABLE, EBB_MOVABLE},
};

/* ---- taking a block from another type ---- */

/* How many frames the pageblock at first has. */
static uint32_t pageblock_frames(const struct ebb_zone *zone, uint32_t first)
{
    return (uint32_t)ebb__lower((uint64_t)1 << zone->pageblock_order, zone->span - first);
}

/* Frames of the pageblock at first that a request of this type would not be at
 * odds with: free (also cached, or with the host), or allocated for a like purpose. */
EBB_RARE static uint32_t compatible_frames(const struct ebb_zone *zone, uint32_t first,
                                           unsigned type)
{
    uint32_t frames = pageblock_frames(zone, first);
    uint32_t compatible = 0;

    EBB_DEBUG_ASSERT(!(first & ((1u << zone->pageblock_order) - 1)) && first < zone->span);
    for (uint32_t at = 0; at < frames;) {
        uint16_t state = ebb__load_state(zone, first + at);
        uint32_t size = 1u << ebb__order_of(state);
        bool movable = ebb__type_of(state) == EBB_MOVABLE;

        if (state != EBB__NONE &&
            (ebb__state_of(state) != EBB__ALLOCATED || movable == (type == EBB_MOVABLE)))
            compatible += size;
        at += size;
    }
    return compatible;
}

/* Move a pageblock, in which every free block is smaller than itself, to a type. */
EBB_RARE static void convert_pageblock(struct ebb_zone *zone, uint32_t first, unsigned type)
{
    uint32_t frames = pageblock_frames(zone, first);

    EBB_DEBUG_ASSERT(ebb__pageblock(zone, ebb__pageblock_of(zone, first))->lazy == 0);
    ebb__set_pageblock_type(zone, first, type);
    zone->conversions++;
    for (uint32_t at = 0; at < frames;) {
        uint16_t state = ebb__load_state(zone, first + at);

        if (ebb__state_of(state) == EBB__FREE) {
            EBB_DEBUG_ASSERT(ebb__order_of(state) < zone->pageblock_order);
            bool reported = ebb__unlink(zone, first + at);

            ebb__link(zone, first + at, ebb__order_of(state), type, ebb__moved_mark(zone, reported),
                      ebb__moved_where(zone, reported));
        }
        at += 1u << ebb__order_of(state);
    }
}

/*
 * A free block of `from` >= order frames is about to serve another type. Change
 * the types of pageblocks so that the next such request finds some of its own:
 * as many pageblocks as the request needs, at least one, if the block holds
 * that many; else the one it lies in, if the request will outlast what is
 * there, or the block is a good part of it, and most of it agrees.
 */
EBB_RARE static void convert(struct ebb_zone *zone, uint32_t index, unsigned from, unsigned order,
                             unsigned type)
{
    unsigned pageblock_order = zone->pageblock_order;
    uint32_t pageblock = 1u << pageblock_order;

    EBB_DEBUG_ASSERT(from >= order && type < EBB_ISOLATE);
    if (from >= pageblock_order) {
        uint32_t frames = order > pageblock_order ? 1u << order : pageblock;

        for (uint32_t at = 0; at < frames; at += pageblock) {
            if (ebb__pageblock_type(zone, index + at) == type)
                continue;
            ebb__set_pageblock_type(zone, index + at, type);
            zone->conversions++;
        }
        return;
    }
    if (type == EBB_MOVABLE && from < pageblock_order / 2)
        return;
    uint32_t first = index & ~(pageblock - 1);

    if (compatible_frames(zone, first, type) >= pageblock / 2)
        convert_pageblock(zone, first, type);
}

/* Choose a block of another type to serve this one from: the largest, so that
 * a mixed pageblock is made once rather than often. */
static bool steal(struct ebb_zone *zone, unsigned order, unsigned type, uint32_t *head)
{
    for (unsigned i = 0; i < 2; i++) {
        unsigned other = fallbacks[type][i];

        /* Nothing reported as long as there is anything else. */
        if (zone->lazy[other] > 0 && order < zone->large_order && zone->prefers_warm)
            ebb__coalesce_for(zone, order, other);
        uint32_t orders = ebb__orders(zone, other, order);

        if (!orders)
            continue;
        unsigned from = 31u - (unsigned)__builtin_clz(orders);

        *head = zone->lists[from][other].head;
        EBB_DEBUG_ASSERT(other != type && zone->lists[from][other].blocks > 0);
        /* Before it changes its type. The block may be part of a larger one then; what is the
         * largest after that, and first on its list, is of the same pageblock, so this happens
         * once. */
        if (from < zone->large_order && ebb__coalesce_at(zone, *head))
            return steal(zone, order, type, head);
        zone->steals++;
        convert(zone, *head, from, order, type);
        return true;
    }
    return false;
}

/* The lower end of an unreported block. All that its state says follows from its list, so that
 * nothing waits for it. */
static inline void take_warm(struct ebb_zone *zone, uint32_t head, unsigned from, unsigned type,
                             unsigned order)
{
    ebb__unlink_block(zone, head, ebb__state_word(EBB__FREE, from, type));
    while (from > order) {
        uint32_t middle = head + (1u << --from);

        ebb__link_warm(zone, middle, from, ebb__pageblock_type(zone, middle));
    }
}

/* The lower end of any block. */
static void take_any(struct ebb_zone *zone, uint32_t head, unsigned order)
{
    if (!ebb__take_at(zone, head, head, order))
        return;
    ebb__count_refault(zone, (uint64_t)1 << order);
    if (zone->marks_zero)
        ebb__store_state(zone, head, EBB__REPORTED);
}

static bool take_block(struct ebb_zone *zone, unsigned order, unsigned type, uint32_t *index)
{
    if (EBB_UNLIKELY(zone->lazy[type] > 0) && order < zone->large_order)
        ebb__coalesce_for(zone, order, type);
    uint32_t orders = ebb__orders(zone, type, order);

    if (EBB_UNLIKELY(!orders)) {
        if (!steal(zone, order, type, index))
            return false;
        take_any(zone, *index, order);
        return true;
    }
    unsigned from = (unsigned)__builtin_ctz(orders);
    uint32_t head = zone->lists[from][type].head;

    EBB_DEBUG_ASSERT(zone->lists[from][type].blocks > 0 && head < zone->span);
    if (EBB_UNLIKELY(ebb__load_state(zone, head) & EBB__REPORTED))
        take_any(zone, head, order);
    else
        take_warm(zone, head, from, type, order);
    *index = head;
    return true;
}

bool ebb__take_block(struct ebb_zone *zone, unsigned order, unsigned type, uint32_t *index)
{
    EBB_DEBUG_ASSERT(order <= zone->max_order && type < EBB_ISOLATE);
    for (unsigned n = 0; EBB_UNLIKELY(!take_block(zone, order, type, index)); n++) {
        if (n == EBB__COALESCE_MOST || order >= zone->large_order || !ebb__coalesce_any(zone))
            return false;
    }
    EBB_DEBUG_ASSERT(ebb__state_of(ebb__load_state(zone, *index)) == EBB__NONE);
    EBB_DEBUG_ASSERT(!(*index & ((1u << order) - 1)));
    return true;
}

/* A reported block of at least this order, of the smallest such and of whatever type: it will be
 * no example for what comes after. False: there is none. Where lists are sorted, what is reported
 * is at the tail. */
static bool find_reported(const struct ebb_zone *zone, unsigned order, uint32_t *index,
                          unsigned first)
{
    for (unsigned from = order; ebb__sorts(zone) && from <= zone->max_order; from++) {
        for (unsigned i = 0; i < EBB_ISOLATE; i++) {
            const struct ebb_free_list *list = &zone->lists[from][(first + i) % EBB_ISOLATE];

            if (list->reported == 0)
                continue;
            *index = ebb__link_of(zone, from, list->head)->prev;
            return true;
        }
    }
    return false;
}

EBB_RARE bool ebb__take_cold(struct ebb_zone *zone, unsigned order, unsigned type, uint32_t *index)
{
    if (!find_reported(zone, order, index, type))
        return ebb__take_block(zone, order, type, index);
    EBB_ASSERT(ebb__take_at(zone, *index, *index, order));
    return true;
}
