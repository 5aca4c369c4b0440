/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lazy coalescing (Barkley and Lee, "A lazy buddy system bounded by two coalescing delays per
 * class", 1989): a *lazy* frame is free and unreported, a block of order 0, but on no list and
 * merged with nothing. A bit says so, and its pageblock counts it.
 *
 * Frames are freed in random order. To merge each with its buddy, and the result with that one's,
 * costs a look at other frames' states and links, which are far apart, and a branch that nobody can
 * predict for each order; and most of it is for nothing, since what merged is split again by the
 * next allocation. A lazy frame costs a bit in its pageblock's line of cache. The pageblock is
 * coalesced, its lazy frames merged all at once, run by run, when that is of use: when all of it is
 * free, when a larger block is asked for and the lists have none, when surplus pacing finds it
 * cold, before its type changes.
 *
 * Pageblocks that have lazy frames are on rings by how many (class: the number's highest bit), so
 * that allocation takes from those with the fewest and the others become whole.
 */
#include "zone_private.h"

/* Pageblocks are searched word by word: not too large ones. */
#define LARGEST_PAGEBLOCK 12u

bool ebb__can_coalesce_late(const struct ebb_zone *zone)
{
    return zone->large_order == zone->pageblock_order && zone->large_order >= 6 &&
           zone->large_order <= LARGEST_PAGEBLOCK && zone->shuffle_order >= zone->large_order;
}

/* ---- rings of pageblocks ---- */

static void enter_ring(struct ebb_zone *zone, ebb_pageblock_id id, unsigned type, unsigned class)
{
    ebb_pageblock_id *head = &zone->lazy_rings[type][class];
    struct ebb_pageblock *pageblock = ebb__pageblock(zone, id);
    uint32_t bit = 1u << class;

    EBB_DEBUG_ASSERT(type < EBB_ISOLATE && class <= zone->large_order);
    if (zone->lazy_classes[type] & bit) {
        EBB_DEBUG_ASSERT(ebb__pageblock(zone, ebb__pageblock(zone, *head)->prev)->next.n ==
                         head->n);
        pageblock->next = *head;
        pageblock->prev = ebb__pageblock(zone, *head)->prev;
        ebb__pageblock(zone, pageblock->prev)->next = id;
        ebb__pageblock(zone, *head)->prev = id;
    } else {
        pageblock->next = pageblock->prev = id;
        zone->lazy_classes[type] |= bit;
    }
    *head = id;
}

static void leave_ring(struct ebb_zone *zone, ebb_pageblock_id id, unsigned type, unsigned class)
{
    const struct ebb_pageblock *pageblock = ebb__pageblock(zone, id);

    EBB_DEBUG_ASSERT(zone->lazy_classes[type] >> class & 1);
    EBB_DEBUG_ASSERT(ebb__pageblock(zone, pageblock->prev)->next.n == id.n);
    EBB_DEBUG_ASSERT(ebb__pageblock(zone, pageblock->next)->prev.n == id.n);
    ebb__pageblock(zone, pageblock->prev)->next = pageblock->next;
    ebb__pageblock(zone, pageblock->next)->prev = pageblock->prev;
    if (pageblock->next.n == id.n)
        zone->lazy_classes[type] &= ~(1u << class);
    else if (zone->lazy_rings[type][class].n == id.n)
        zone->lazy_rings[type][class] = pageblock->next;
}

/* A pageblock has so many lazy frames now, and had others before. */
static void set_lazy(struct ebb_zone *zone, ebb_pageblock_id id, unsigned type, uint32_t lazy)
{
    struct ebb_pageblock *pageblock = ebb__pageblock(zone, id);
    unsigned before = pageblock->lazy > 0 ? ebb__lazy_class(pageblock->lazy) : EBB_ORDERS;
    unsigned after = lazy > 0 ? ebb__lazy_class(lazy) : EBB_ORDERS;

    EBB_DEBUG_ASSERT(lazy <= 1u << zone->large_order);
    pageblock->lazy = lazy;
    if (EBB_LIKELY(before == after))
        return;
    if (before < EBB_ORDERS)
        leave_ring(zone, id, type, before);
    if (after < EBB_ORDERS)
        enter_ring(zone, id, type, after);
}

void ebb__take_lazy_out(struct ebb_zone *zone, ebb_pageblock_id id, unsigned type, uint32_t frames)
{
    struct ebb_pageblock *pageblock = ebb__pageblock(zone, id);

    EBB_DEBUG_ASSERT(pageblock->lazy >= frames && pageblock->frames >= frames);
    EBB_DEBUG_ASSERT(pageblock->blocks >= frames && zone->lazy[type] >= frames);
    EBB_DEBUG_ASSERT(zone->free >= frames);
    set_lazy(zone, id, type, pageblock->lazy - frames);
    pageblock->frames -= frames;
    pageblock->blocks -= frames;
    pageblock->touched = zone->clock;
    zone->lazy[type] -= frames;
    zone->free -= frames;
}

/* ---- freeing ---- */

bool ebb__make_lazy(struct ebb_zone *zone, uint32_t index, unsigned type)
{
    const ebb_pageblock_id id = ebb__pageblock_of(zone, index);
    struct ebb_pageblock *pageblock = ebb__pageblock(zone, id);

    EBB_DEBUG_ASSERT(!(zone->lazy_bits[index >> 6] >> (index & 63) & 1));
    EBB_DEBUG_ASSERT(type == ebb__pageblock_type(zone, index) && type != EBB_ISOLATE);
    EBB_DEBUG_ASSERT(ebb__state_of(ebb__load_state(zone, index)) != EBB__FREE);
    EBB_DEBUG_ASSERT(zone->free + zone->in_flight < zone->managed);
    zone->lazy_bits[index >> 6] |= (uint64_t)1 << (index & 63);
    ebb__store_state(zone, index, ebb__state_word(EBB__FREE, 0, type));
    if (EBB_UNLIKELY(pageblock->frames == 0))
        zone->pageblock_bits[id.n >> 6] |= (uint64_t)1 << (id.n & 63);
    pageblock->frames++;
    pageblock->blocks++;
    pageblock->touched = zone->clock;
    if (EBB_UNLIKELY((pageblock->lazy & (pageblock->lazy + 1)) == 0)) /* the next class begins */
        set_lazy(zone, id, type, pageblock->lazy + 1);
    else
        pageblock->lazy++;
    zone->lazy[type]++;
    zone->free++;
    EBB_DEBUG_ASSERT(pageblock->frames + pageblock->reported <= 1u << zone->large_order);
    return pageblock->frames + pageblock->reported == 1u << zone->large_order;
}

/* ---- allocating ---- */

uint32_t ebb__take_lazy(struct ebb_zone *zone, unsigned type, uint32_t *frames, uint32_t n)
{
    unsigned class = (unsigned)__builtin_ctz(zone->lazy_classes[type]);
    ebb_pageblock_id id = zone->lazy_rings[type][class];
    uint32_t first = (uint32_t)ebb__pageblock_first(zone, id);
    uint32_t left;

    EBB_DEBUG_ASSERT(zone->lazy_classes[type] != 0 && n > 0);
    EBB_DEBUG_ASSERT(ebb__lazy_class(ebb__pageblock(zone, id)->lazy) == class);
    EBB_DEBUG_ASSERT(ebb__pageblock(zone, id)->lazy > 0);
    if (n > ebb__pageblock(zone, id)->lazy)
        n = ebb__pageblock(zone, id)->lazy;
    left = n;
    for (uint64_t *word = &zone->lazy_bits[first >> 6]; left > 0; word++, first += 64) {
        EBB_DEBUG_ASSERT(first >> zone->large_order == id.n);
        for (; *word && left > 0; *word &= *word - 1)
            frames[--left] = first + (uint32_t)__builtin_ctzll(*word);
    }
    ebb__take_lazy_out(zone, id, type, n);
    return n;
}

void ebb__remove_lazy(struct ebb_zone *zone, uint32_t index, unsigned type)
{
    EBB_DEBUG_ASSERT(ebb__is_lazy(zone, index));
    zone->lazy_bits[index >> 6] &= ~((uint64_t)1 << (index & 63));
    ebb__take_lazy_out(zone, ebb__pageblock_of(zone, index), type, 1);
}
