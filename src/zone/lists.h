/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Free lists: linking and unlinking a block, and all that is counted then (I5). Inlined where it
 * counts, in taking, splitting and merging; lists.c has the rest. All under the zone's lock.
 */
#ifndef EBB_ZONE_LISTS_H
#define EBB_ZONE_LISTS_H

#include "sorted.h"

/* Not to the head: above the divider, or to the tail. */
void ebb__insert_cold(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type,
                      bool reported, enum ebb__where where);

/* On the array that holds the links of a list: see ebb__link_of(). */
ALWAYS_INLINE void ebb__insert_between(struct ebb_link *links, unsigned shift,
                                       struct ebb_free_list *list, uint32_t index)
{
    if (list->blocks == 0) {
        links[index >> shift] = (struct ebb_link){index, index};
        list->head = index;
        return;
    }
    uint32_t head = list->head;
    uint32_t tail = links[head >> shift].prev;

    EBB_DEBUG_ASSERT(head != index && links[tail >> shift].next == head);
    links[index >> shift].next = head;
    links[head >> shift].prev = index;
    links[index >> shift].prev = tail;
    links[tail >> shift].next = index;
}

ALWAYS_INLINE void ebb__remove_from(struct ebb_link *links, unsigned shift,
                                    struct ebb_free_list *list, uint32_t index)
{
    uint32_t next = links[index >> shift].next;
    uint32_t prev = links[index >> shift].prev;

    EBB_DEBUG_ASSERT(links[prev >> shift].next == index && links[next >> shift].prev == index);
    links[prev >> shift].next = next;
    links[next >> shift].prev = prev;
    if (list->head == index)
        list->head = next;
}

/* Between tail and head: at the tail, unless the caller makes it the head. */
static inline void ebb__ring_insert(struct ebb_zone *zone, struct ebb_free_list *list,
                                    unsigned order, uint32_t index)
{
    if (EBB_LIKELY(order < zone->large_order))
        ebb__insert_between(zone->links, EBB__LINK_SHIFT, list, index);
    else
        ebb__insert_between(zone->large_links, zone->large_order, list, index);
}

static inline void ebb__ring_remove(struct ebb_zone *zone, struct ebb_free_list *list,
                                    unsigned order, uint32_t index)
{
    if (EBB_LIKELY(order < zone->large_order))
        ebb__remove_from(zone->links, EBB__LINK_SHIFT, list, index);
    else
        ebb__remove_from(zone->large_links, zone->large_order, list, index);
}

/* What surplus pacing counts by: small blocks by pageblock, large ones in total. */
ALWAYS_INLINE void ebb__count_small_link(struct ebb_zone *zone, uint32_t index, unsigned order)
{
    const ebb_pageblock_id id = ebb__pageblock_of(zone, index);
    struct ebb_pageblock *pageblock = ebb__pageblock(zone, id);

    if (EBB_UNLIKELY(pageblock->frames == 0))
        zone->pageblock_bits[id.n >> 6] |= (uint64_t)1 << (id.n & 63);
    pageblock->frames += 1u << order;
    pageblock->blocks++;
    pageblock->touched = zone->clock;
    EBB_DEBUG_ASSERT(pageblock->frames + pageblock->reported <= 1u << zone->large_order);
}

ALWAYS_INLINE void ebb__count_small_unlink(struct ebb_zone *zone, uint32_t index, unsigned order)
{
    struct ebb_pageblock *pageblock = ebb__pageblock(zone, ebb__pageblock_of(zone, index));

    EBB_DEBUG_ASSERT(pageblock->frames >= 1u << order && pageblock->blocks > 0);
    pageblock->frames -= 1u << order;
    pageblock->blocks--;
    pageblock->touched = zone->clock;
}

ALWAYS_INLINE void ebb__count_link(struct ebb_zone *zone, uint32_t index, unsigned order,
                                   unsigned type)
{
    if (EBB_LIKELY(order < zone->large_order))
        ebb__count_small_link(zone, index, order);
    else if (type != EBB_ISOLATE)
        zone->level.now += (uint64_t)1 << order;
}

/* The low-water mark follows when the operation is done: ebb__unlock_inner(). */
ALWAYS_INLINE void ebb__count_unlink(struct ebb_zone *zone, uint32_t index, unsigned order,
                                     unsigned type)
{
    if (EBB_LIKELY(order < zone->large_order)) {
        ebb__count_small_unlink(zone, index, order);
    } else if (type != EBB_ISOLATE) {
        EBB_DEBUG_ASSERT(zone->level.now >= (uint64_t)1 << order);
        zone->level.now -= (uint64_t)1 << order;
    }
}

/* These two are inlined where it counts, in taking, splitting and merging, for blocks that
 * are on a list and not reported. */
ALWAYS_INLINE void ebb__link_block(struct ebb_zone *zone, uint32_t index, unsigned order,
                                   unsigned type, bool reported, enum ebb__where where)
{
    struct ebb_free_list *list = &zone->lists[order][type];
    uint64_t frames = (uint64_t)1 << order;
    uint64_t reported_mask = -(uint64_t)reported;

    EBB_DEBUG_ASSERT(order <= zone->max_order && !(index & (frames - 1)));
    EBB_DEBUG_ASSERT(frames <= zone->span - index);
    EBB_DEBUG_ASSERT(ebb__load_state(zone, index) == EBB__NONE);
    EBB_DEBUG_ASSERT(type == ebb__pageblock_type(zone, index));
    EBB_DEBUG_ASSERT((zone->nonempty[type] >> order & 1) == (list->blocks > 0));
    EBB_DEBUG_ASSERT(zone->free + zone->in_flight + frames <= zone->managed);
    if (EBB_LIKELY(where == EBB__HEAD)) {
        ebb__ring_insert(zone, list, order, index);
        list->head = index;
    } else {
        ebb__insert_cold(zone, index, order, type, reported, where);
    }
    list->blocks++;
    list->reported += reported;
    EBB_DEBUG_ASSERT(list->reported <= list->blocks &&
                     ebb__link_of(zone, order, list->head)->prev < zone->span);
    zone->nonempty[type] |= 1u << order;
    zone->warm[type] |= (uint32_t)!reported << order;
    zone->free += frames;
    zone->reported += frames & reported_mask;
    if (EBB_LIKELY(!reported))
        ebb__count_link(zone, index, order, type);
    else if (order < zone->large_order)
        ebb__pageblock(zone, ebb__pageblock_of(zone, index))->reported += 1u << order;
    if (EBB_UNLIKELY(type == EBB_ISOLATE))
        zone->isolated += frames;
    ebb__store_state(
        zone, index,
        (uint16_t)(ebb__state_word(EBB__FREE, order, type) | (EBB__REPORTED & reported_mask)));
    /* Seldom written: where nothing was ever reported it stays unbacked. */
    if (EBB_UNLIKELY(order >= zone->large_order) &&
        zone->large_marks[index >> zone->large_order] != reported)
        zone->large_marks[index >> zone->large_order] = reported;
    if (EBB_UNLIKELY(order >= zone->track_order) && !reported && type != EBB_ISOLATE)
        zone->hooks->mark(zone, index);
}

ALWAYS_INLINE bool ebb__unlink_block(struct ebb_zone *zone, uint32_t index, uint16_t state)
{
    unsigned order = ebb__order_of(state);
    unsigned type = ebb__type_of(state);
    struct ebb_free_list *list = &zone->lists[order][type];
    uint64_t frames = (uint64_t)1 << order;
    bool reported = state & EBB__REPORTED;

    EBB_DEBUG_ASSERT(list->blocks > 0 && list->reported >= reported && zone->free >= frames);
    EBB_DEBUG_ASSERT(ebb__load_state(zone, index) == state && ebb__state_of(state) == EBB__FREE);
    EBB_DEBUG_ASSERT((zone->nonempty[type] >> order & 1) &&
                     (reported || (zone->warm[type] >> order & 1)));
    EBB_DEBUG_ASSERT(zone->reported >= (reported ? frames : 0));
    EBB_DEBUG_ASSERT(type != EBB_ISOLATE || zone->isolated >= frames);
    if (reported)
        ebb__leave(zone, index, order, type);
    ebb__ring_remove(zone, list, order, index);
    list->blocks--;
    list->reported -= reported;
    if (list->blocks == 0)
        zone->nonempty[type] &= ~(1u << order);
    if (list->blocks == list->reported)
        zone->warm[type] &= ~(1u << order);
    if (EBB_LIKELY(!reported))
        ebb__count_unlink(zone, index, order, type);
    else if (order < zone->large_order)
        ebb__pageblock(zone, ebb__pageblock_of(zone, index))->reported -= 1u << order;
    EBB_DEBUG_ASSERT(ebb__pageblock(zone, ebb__pageblock_of(zone, index))->reported <=
                     1u << zone->large_order);
    EBB_DEBUG_ASSERT((list->blocks > 0) == (zone->nonempty[type] >> order & 1));
    zone->free -= frames;
    zone->reported -= frames & -(uint64_t)reported;
    if (EBB_UNLIKELY(type == EBB_ISOLATE))
        zone->isolated -= frames;
    ebb__store_state(zone, index, EBB__NONE);
    return reported;
}

/* An unreported block, to the head. */
ALWAYS_INLINE void ebb__link_warm(struct ebb_zone *zone, uint32_t index, unsigned order,
                                  unsigned type)
{
    ebb__link_block(zone, index, order, type, false, EBB__HEAD);
}

#endif
