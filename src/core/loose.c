/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loose frames: free and unreported, each a block of order 0, but on no list and merged with
 * nothing. A bit says so, and their unit counts them.
 *
 * Frames are freed in random order. To merge each with its buddy, and the result with that one's,
 * costs a look at other frames' states and links, which are far apart, and a branch that nobody can
 * predict for each order; and most of it is for nothing, since what merged is split again by the
 * next allocation. A loose frame costs a bit in its unit's line of cache. The unit is settled,
 * its loose frames merged all at once, run by run, when that is of use: when all of it is free,
 * when a larger block is asked for and the lists have none, when surplus pacing finds it cold,
 * before its type changes.
 *
 * Units that have loose frames are on rings by how many (class: the number's highest bit), so that
 * allocation takes from those with the fewest and the others become whole.
 */
#include "range.h"

/* Units are searched word by word: not too large ones. */
#define LARGEST_UNIT 12u

/* Units settled for a larger block, before a whole one is broken for it. */
#define TRIES 4u

bool ebb__can_loosen(const struct ebb_zone *zone)
{
    return zone->large_order == zone->pageblock_order && zone->large_order >= 6 &&
           zone->large_order <= LARGEST_UNIT && zone->shuffle_order >= zone->large_order;
}

static unsigned class_of(uint32_t frames)
{
    return 31u - (unsigned)__builtin_clz(frames);
}

/* ---- rings of units ---- */

static void enter_ring(struct ebb_zone *zone, uint32_t number, unsigned type, unsigned class)
{
    uint32_t *head = &zone->loose_units[type][class];
    struct ebb_unit *unit = &zone->units[number];
    uint32_t bit = 1u << class;

    if (zone->loose_classes[type] & bit) {
        unit->next = *head;
        unit->prev = zone->units[*head].prev;
        zone->units[unit->prev].next = number;
        zone->units[*head].prev = number;
    } else {
        unit->next = unit->prev = number;
        zone->loose_classes[type] |= bit;
    }
    *head = number;
}

static void leave_ring(struct ebb_zone *zone, uint32_t number, unsigned type, unsigned class)
{
    const struct ebb_unit *unit = &zone->units[number];

    zone->units[unit->prev].next = unit->next;
    zone->units[unit->next].prev = unit->prev;
    if (unit->next == number)
        zone->loose_classes[type] &= ~(1u << class);
    else if (zone->loose_units[type][class] == number)
        zone->loose_units[type][class] = unit->next;
}

/* A unit has so many loose frames now, and had others before. */
static void set_loose(struct ebb_zone *zone, uint32_t number, unsigned type, uint32_t loose)
{
    struct ebb_unit *unit = &zone->units[number];
    unsigned before = unit->loose > 0 ? class_of(unit->loose) : EBB_ORDERS;
    unsigned after = loose > 0 ? class_of(loose) : EBB_ORDERS;

    unit->loose = loose;
    if (EBB_LIKELY(before == after))
        return;
    if (before < EBB_ORDERS)
        leave_ring(zone, number, type, before);
    if (after < EBB_ORDERS)
        enter_ring(zone, number, type, after);
}

/* Of a unit: so many go. */
static void take_out(struct ebb_zone *zone, uint32_t number, unsigned type, uint32_t frames)
{
    struct ebb_unit *unit = &zone->units[number];

    set_loose(zone, number, type, unit->loose - frames);
    unit->frames -= frames;
    unit->blocks -= frames;
    unit->touched = zone->pace.clock;
    zone->loose[type] -= frames;
    zone->free -= frames;
}

/* ---- freeing ---- */

/* Returns whether all of its unit is free now. */
static bool loosen(struct ebb_zone *zone, uint32_t index, unsigned type)
{
    uint32_t number = index >> zone->large_order;
    struct ebb_unit *unit = &zone->units[number];

    zone->loose_bits[index >> 6] |= (uint64_t)1 << (index & 63);
    ebb__store_state(zone, index, ebb__state_word(EBB__FREE, 0, type));
    if (EBB_UNLIKELY(unit->frames == 0))
        zone->unit_bits[number >> 6] |= (uint64_t)1 << (number & 63);
    unit->frames++;
    unit->blocks++;
    unit->touched = zone->pace.clock;
    if (EBB_UNLIKELY((unit->loose & (unit->loose + 1)) == 0)) /* the next class begins */
        set_loose(zone, number, type, unit->loose + 1);
    else
        unit->loose++;
    zone->loose[type]++;
    zone->free++;
    return unit->frames + unit->reported == 1u << zone->large_order;
}

uint32_t ebb__free_frames(struct ebb_zone *zone, const uint32_t *frames, uint32_t n)
{
    uint32_t orders = 0;

    for (uint32_t i = 0; i < n; i++) {
        unsigned type = ebb__pageblock_type(zone, frames[i]);
        unsigned order = 0;

        if (EBB_UNLIKELY(!zone->loosens || type == EBB_ISOLATE))
            order = ebb__free_warm(zone, frames[i], 0);
        else if (EBB_UNLIKELY(loosen(zone, frames[i], type)))
            order = ebb__settle(zone, frames[i] >> zone->large_order);
        orders |= 1u << order;
    }
    if (ebb__loose_may_be(zone))
        orders |= 1u << zone->report_min_order;
    return orders;
}

/* ---- allocating ---- */

uint32_t ebb__take_loose(struct ebb_zone *zone, unsigned type, uint32_t *frames, uint32_t n)
{
    unsigned class = (unsigned)__builtin_ctz(zone->loose_classes[type]);
    uint32_t number = zone->loose_units[type][class];
    uint32_t first = number << zone->large_order;
    uint32_t left;

    if (n > zone->units[number].loose)
        n = zone->units[number].loose;
    left = n;
    for (uint64_t *word = &zone->loose_bits[first >> 6]; left > 0; word++, first += 64) {
        for (; *word && left > 0; *word &= *word - 1)
            frames[--left] = first + (uint32_t)__builtin_ctzll(*word);
    }
    take_out(zone, number, type, n);
    return n;
}

void ebb__remove_loose(struct ebb_zone *zone, uint32_t index, unsigned type)
{
    zone->loose_bits[index >> 6] &= ~((uint64_t)1 << (index & 63));
    take_out(zone, index >> zone->large_order, type, 1);
}

/* ---- settling ---- */

/* The first frame from `at` on that is loose, or not, as `wanted` says. */
__attribute__((noinline)) static uint64_t find(const struct ebb_zone *zone, uint64_t at,
                                               uint64_t end, bool wanted)
{
    while (at < end) {
        uint64_t word = zone->loose_bits[at >> 6];
        uint64_t bits = (wanted ? word : ~word) >> (at & 63);

        if (bits)
            return at + (unsigned)__builtin_ctzll(bits);
        at = (at | 63) + 1;
    }
    return end;
}

/* Free [from, to), whose frames are loose no more, as few blocks. */
static unsigned settle_run(struct ebb_zone *zone, uint64_t from, uint64_t to)
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

unsigned ebb__settle(struct ebb_zone *zone, uint32_t number)
{
    uint64_t first = (uint64_t)number << zone->large_order;
    uint64_t end = first + ((uint64_t)1 << zone->large_order);
    uint64_t at = find(zone, first, end, true);
    unsigned type = ebb__type_of(ebb__load_state(zone, (uint32_t)at));
    unsigned largest = 0;

    /* Before anything is freed: whoever frees asks whether the unit is whole now. */
    take_out(zone, number, type, zone->units[number].loose);
    while (at < end) {
        uint64_t to = find(zone, at, end, false);
        unsigned merged = settle_run(zone, at, to);

        largest = merged > largest ? merged : largest;
        at = find(zone, to, end, true);
    }
    for (uint64_t word = first >> 6; word < end >> 6; word++)
        zone->loose_bits[word] = 0;
    return largest;
}

bool ebb__settle_at(struct ebb_zone *zone, uint32_t index)
{
    if (zone->units[index >> zone->large_order].loose == 0)
        return false;
    ebb__settle(zone, index >> zone->large_order);
    return true;
}

unsigned ebb__settle_if_whole(struct ebb_zone *zone, uint32_t index, unsigned order)
{
    const struct ebb_unit *unit = &zone->units[index >> zone->large_order];

    if (unit->loose == 0 || unit->frames + unit->reported < 1u << zone->large_order)
        return order;
    return ebb__settle(zone, index >> zone->large_order);
}

bool ebb__settle_most(struct ebb_zone *zone, unsigned type)
{
    uint32_t classes = zone->loose_classes[type];

    if (classes)
        ebb__settle(zone, zone->loose_units[type][class_of(classes)]);
    return classes;
}

bool ebb__settle_any(struct ebb_zone *zone)
{
    for (unsigned type = 0; type < EBB_ISOLATE; type++) {
        if (ebb__settle_most(zone, type))
            return true;
    }
    return false;
}

void ebb__settle_for(struct ebb_zone *zone, unsigned order, unsigned type)
{
    const uint32_t *own = zone->report_surplus ? &zone->warm[type] : &zone->nonempty[type];
    uint32_t small = 1u << zone->large_order;

    for (unsigned n = 0; n < (*own >> order ? TRIES : EBB__SETTLE_MOST); n++) {
        if ((*own & (small - 1)) >> order || !ebb__settle_most(zone, type))
            return;
    }
}

void ebb__settle_all(struct ebb_zone *zone)
{
    uint64_t units = zone->span >> zone->large_order;
    bool more = true;

    /* Others may free meanwhile: there is an end to it. */
    for (uint64_t n = 0; more && n <= units; n++) {
        ebb_port_lock(&zone->lock);
        more = ebb__settle_any(zone);
        ebb_port_unlock(&zone->lock);
    }
}
