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

/* Pageblocks coalesced for a larger block, before a whole one is broken for it. */
#define TRIES 4u

bool ebb__can_coalesce_late(const struct ebb_zone *zone)
{
    return zone->large_order == zone->pageblock_order && zone->large_order >= 6 &&
           zone->large_order <= LARGEST_PAGEBLOCK && zone->shuffle_order >= zone->large_order;
}

static unsigned class_of(uint32_t frames)
{
    return 31u - (unsigned)__builtin_clz(frames);
}

/* ---- rings of pageblocks ---- */

static void enter_ring(struct ebb_zone *zone, ebb_pageblock_id id, unsigned type, unsigned class)
{
    ebb_pageblock_id *head = &zone->lazy_rings[type][class];
    struct ebb_pageblock *pageblock = ebb__pageblock(zone, id);
    uint32_t bit = 1u << class;

    if (zone->lazy_classes[type] & bit) {
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
    unsigned before = pageblock->lazy > 0 ? class_of(pageblock->lazy) : EBB_ORDERS;
    unsigned after = lazy > 0 ? class_of(lazy) : EBB_ORDERS;

    EBB_DEBUG_ASSERT(lazy <= 1u << zone->large_order);
    pageblock->lazy = lazy;
    if (EBB_LIKELY(before == after))
        return;
    if (before < EBB_ORDERS)
        leave_ring(zone, id, type, before);
    if (after < EBB_ORDERS)
        enter_ring(zone, id, type, after);
}

/* So many lazy frames of a pageblock are lazy no longer, nor free. */
static void take_lazy_out(struct ebb_zone *zone, ebb_pageblock_id id, unsigned type,
                          uint32_t frames)
{
    struct ebb_pageblock *pageblock = ebb__pageblock(zone, id);

    EBB_DEBUG_ASSERT(pageblock->lazy >= frames && pageblock->frames >= frames);
    EBB_DEBUG_ASSERT(pageblock->blocks >= frames && zone->lazy[type] >= frames);
    set_lazy(zone, id, type, pageblock->lazy - frames);
    pageblock->frames -= frames;
    pageblock->blocks -= frames;
    pageblock->touched = zone->clock;
    zone->lazy[type] -= frames;
    zone->free -= frames;
}

/* ---- freeing ---- */

/* Returns whether all of its pageblock is free now. */
static bool make_lazy(struct ebb_zone *zone, uint32_t index, unsigned type)
{
    const ebb_pageblock_id id = ebb__pageblock_of(zone, index);
    struct ebb_pageblock *pageblock = ebb__pageblock(zone, id);

    EBB_DEBUG_ASSERT(!(zone->lazy_bits[index >> 6] >> (index & 63) & 1));
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

uint32_t ebb__free_frames(struct ebb_zone *zone, const uint32_t *frames, uint32_t n)
{
    uint32_t orders = 0;

    for (uint32_t i = 0; i < n; i++) {
        unsigned type = ebb__pageblock_type(zone, frames[i]);
        unsigned order = 0;

        if (EBB_UNLIKELY(!zone->coalesces_late || type == EBB_ISOLATE))
            order = ebb__free_warm(zone, frames[i], 0);
        else if (EBB_UNLIKELY(make_lazy(zone, frames[i], type)))
            order = ebb__coalesce(zone, ebb__pageblock_of(zone, frames[i]));
        orders |= 1u << order;
    }
    if (ebb__lazy_may_be(zone))
        orders |= 1u << zone->report_min_order;
    return orders;
}

/* ---- allocating ---- */

uint32_t ebb__take_lazy(struct ebb_zone *zone, unsigned type, uint32_t *frames, uint32_t n)
{
    unsigned class = (unsigned)__builtin_ctz(zone->lazy_classes[type]);
    ebb_pageblock_id id = zone->lazy_rings[type][class];
    uint32_t first = (uint32_t)ebb__pageblock_first(zone, id);
    uint32_t left;

    EBB_DEBUG_ASSERT(ebb__pageblock(zone, id)->lazy > 0);
    if (n > ebb__pageblock(zone, id)->lazy)
        n = ebb__pageblock(zone, id)->lazy;
    left = n;
    for (uint64_t *word = &zone->lazy_bits[first >> 6]; left > 0; word++, first += 64) {
        for (; *word && left > 0; *word &= *word - 1)
            frames[--left] = first + (uint32_t)__builtin_ctzll(*word);
    }
    take_lazy_out(zone, id, type, n);
    return n;
}

void ebb__remove_lazy(struct ebb_zone *zone, uint32_t index, unsigned type)
{
    zone->lazy_bits[index >> 6] &= ~((uint64_t)1 << (index & 63));
    take_lazy_out(zone, ebb__pageblock_of(zone, index), type, 1);
}

/* ---- coalescing ---- */

/* The first frame from `at` on that is lazy, or is not. */
__attribute__((noinline)) static uint64_t find_lazy(const struct ebb_zone *zone, uint64_t at,
                                                    uint64_t end, bool lazy)
{
    while (at < end) {
        uint64_t word = zone->lazy_bits[at >> 6];
        uint64_t bits = (lazy ? word : ~word) >> (at & 63);

        if (bits)
            return at + (unsigned)__builtin_ctzll(bits);
        at = (at | 63) + 1;
    }
    return end;
}

/* Free [from, to), whose frames are lazy no more, as few blocks. */
static unsigned coalesce_run(struct ebb_zone *zone, uint64_t from, uint64_t to)
{
    unsigned largest = 0;

    while (from < to) {
        unsigned order = ebb__largest_order(zone, from, to);
        uint64_t end = from + ((uint64_t)1 << order);
        unsigned merged;

        for (uint64_t at = from; at < end; at++)
            ebb__store_state(zone, (uint32_t)at, EBB__NONE);
        merged = ebb__free_warm(zone, (uint32_t)from, order);
        largest = merged > largest ? merged : largest;
        from = end;
    }
    return largest;
}

unsigned ebb__coalesce(struct ebb_zone *zone, ebb_pageblock_id id)
{
    uint64_t first = ebb__pageblock_first(zone, id);
    uint64_t end = first + ((uint64_t)1 << zone->large_order);
    uint64_t at = find_lazy(zone, first, end, true);
    unsigned largest = 0;

    EBB_ASSERT(at < end);
    unsigned type = ebb__type_of(ebb__load_state(zone, (uint32_t)at));

    /* Before anything is freed: whoever frees asks whether the pageblock is whole now. */
    take_lazy_out(zone, id, type, ebb__pageblock(zone, id)->lazy);
    while (at < end) {
        uint64_t to = find_lazy(zone, at, end, false);
        unsigned merged = coalesce_run(zone, at, to);

        largest = merged > largest ? merged : largest;
        at = find_lazy(zone, to, end, true);
    }
    for (uint64_t word = first >> 6; word < end >> 6; word++)
        zone->lazy_bits[word] = 0;
    return largest;
}

bool ebb__coalesce_at(struct ebb_zone *zone, uint32_t index)
{
    const ebb_pageblock_id id = ebb__pageblock_of(zone, index);

    if (ebb__pageblock(zone, id)->lazy == 0)
        return false;
    ebb__coalesce(zone, id);
    return true;
}

unsigned ebb__coalesce_if_whole(struct ebb_zone *zone, uint32_t index, unsigned order)
{
    const ebb_pageblock_id id = ebb__pageblock_of(zone, index);
    const struct ebb_pageblock *pageblock = ebb__pageblock(zone, id);

    if (pageblock->lazy == 0 || pageblock->frames + pageblock->reported < 1u << zone->large_order)
        return order;
    return ebb__coalesce(zone, id);
}

bool ebb__coalesce_most(struct ebb_zone *zone, unsigned type)
{
    uint32_t classes = zone->lazy_classes[type];

    if (classes)
        ebb__coalesce(zone, zone->lazy_rings[type][class_of(classes)]);
    return classes;
}

bool ebb__coalesce_any(struct ebb_zone *zone)
{
    for (unsigned type = 0; type < EBB_ISOLATE; type++) {
        if (ebb__coalesce_most(zone, type))
            return true;
    }
    return false;
}

void ebb__coalesce_for(struct ebb_zone *zone, unsigned order, unsigned type)
{
    const uint32_t *own = zone->prefers_warm ? &zone->warm[type] : &zone->nonempty[type];
    uint32_t small = 1u << zone->large_order;

    for (unsigned n = 0; n < (*own >> order ? TRIES : EBB__COALESCE_MOST); n++) {
        if ((*own & (small - 1)) >> order || !ebb__coalesce_most(zone, type))
            return;
    }
}

void ebb__coalesce_all(struct ebb_zone *zone)
{
    uint64_t pageblocks = zone->span >> zone->large_order;
    bool more = true;

    /* Others may free meanwhile: there is an end to it. */
    for (uint64_t n = 0; more && n <= pageblocks; n++) {
        ebb__lock(zone);
        more = ebb__coalesce_any(zone);
        ebb__unlock(zone);
    }
}
