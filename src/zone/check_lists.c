/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Walks a zone's free lists, and all else of it that the zone's lock guards by itself; check.c
 * has the invariants, and walks the rest. For the walk that test builds do after each step of a
 * source (EBB_EXPENSIVE) as well, so it looks into no cache.
 */
#include "check.h"

/* ---- level 1: counters ---- */

static bool check_list_counters(struct walk *walk, unsigned order, unsigned type)
{
    const struct ebb_zone *zone = walk->zone;
    const struct ebb_free_list *list = &zone->lists[order][type];
    bool bit = zone->nonempty[type] >> order & 1;

    if (list->reported > list->blocks)
        return ebb__broken_count(walk, 1, "a list has more reported blocks than blocks");
    if (order > zone->max_order && list->blocks)
        return ebb__broken_count(walk, 14, "a list above the largest order has blocks");
    if (bit != (list->blocks > 0))
        return ebb__broken_count(walk, 16, "the bit of a list in nonempty is wrong");
    return true;
}

static bool check_sums(struct walk *walk)
{
    const struct ebb_zone *zone = walk->zone;
    uint64_t free = 0;
    uint64_t isolated = 0;
    uint64_t reported = 0;

    for (unsigned order = 0; order < EBB_ORDERS; order++) {
        for (unsigned type = 0; type < EBB_MIGRATETYPES; type++) {
            const struct ebb_free_list *list = &zone->lists[order][type];

            free += list->blocks << order;
            reported += list->reported << order;
            if (type == EBB_ISOLATE)
                isolated += list->blocks << order;
        }
    }
    if (free + ebb__lazy(zone) != zone->free)
        return ebb__broken_count(walk, 5, "free is not the sum of the lists, and what is lazy");
    if (isolated != zone->isolated)
        return ebb__broken_count(walk, 5, "isolated is not the sum of the ISOLATE lists");
    if (reported != zone->reported)
        return ebb__broken_count(walk, 5, "reported is not the sum over the lists");
    return true;
}

static bool check_warm(struct walk *walk, unsigned type)
{
    const struct ebb_zone *zone = walk->zone;
    uint32_t warm = 0;

    for (unsigned order = 0; order < EBB_ORDERS; order++)
        warm |= (uint32_t)(ebb__unreported(&zone->lists[order][type]) > 0) << order;
    if (zone->warm[type] != warm)
        return ebb__broken_count(walk, 21, "the bits of lists in warm are wrong");
    return true;
}

static bool check_pacing(struct walk *walk)
{
    const struct ebb_zone *zone = walk->zone;
    uint64_t unreported = 0;

    for (unsigned type = 0; type < EBB_MIGRATETYPES; type++) {
        if (!check_warm(walk, type))
            return false;
    }
    for (unsigned order = zone->large_order; order < EBB_ORDERS; order++) {
        for (unsigned type = 0; type < EBB_ISOLATE; type++)
            unreported += ebb__unreported(&zone->lists[order][type]) << order;
    }
    if (unreported != zone->level.now)
        return ebb__broken_count(walk, 22, "large_unreported is not the sum over the lists");
    return true;
}

bool ebb__check_counts(struct walk *walk)
{
    for (unsigned order = 0; order < EBB_ORDERS; order++) {
        for (unsigned type = 0; type < EBB_MIGRATETYPES; type++) {
            if (!check_list_counters(walk, order, type))
                return false;
        }
    }
    for (unsigned type = 0; type < EBB_MIGRATETYPES; type++) {
        if (walk->zone->nonempty[type] >> EBB_ORDERS)
            return ebb__broken_count(walk, 16, "nonempty has bits above the largest order");
    }
    return check_sums(walk) && check_pacing(walk);
}

/* ---- level 2: lists ---- */

bool ebb__check_free_block(struct walk *walk, uint64_t index, uint16_t state)
{
    const struct ebb_zone *zone = walk->zone;
    unsigned order = ebb__order_of(state);
    uint64_t frames = (uint64_t)1 << order;
    uint64_t step = (uint64_t)1 << zone->pageblock_order;
    bool isolated = ebb__type_of(state) == EBB_ISOLATE;
    uint64_t buddy = index ^ frames;

    if (index & (frames - 1))
        return ebb__broken(walk, 14, index, "a free block is not aligned");
    if (frames > zone->span - index)
        return ebb__broken(walk, 14, index, "a free block reaches beyond the span");
    if (ebb__type_of(state) != ebb__pageblock_type(zone, (uint32_t)index))
        return ebb__broken(walk, 17, index,
                           "a free block is not on the list of its pageblock's type");
    for (uint64_t at = step; at < frames; at += step) {
        if ((ebb__pageblock_type(zone, (uint32_t)(index + at)) == EBB_ISOLATE) != isolated)
            return ebb__broken(walk, 17, index, "a free block is isolated in part");
    }
    if (order == zone->max_order || buddy >= zone->span)
        return true;
    uint16_t other = ebb__load_state(zone, (uint32_t)buddy);

    if (ebb__state_of(other) == EBB__FREE && ebb__order_of(other) == order &&
        (ebb__type_of(other) == EBB_ISOLATE) == isolated &&
        !(order == 0 && (ebb__has_lazy_bit(zone, index) || ebb__has_lazy_bit(zone, buddy))))
        return ebb__broken(walk, 15, index, "two free buddies are not merged");
    return true;
}

static bool check_list(struct walk *walk, unsigned order, unsigned type)
{
    const struct ebb_zone *zone = walk->zone;
    const struct ebb_free_list *list = &zone->lists[order][type];
    uint16_t expected = ebb__state_word(EBB__FREE, order, type);
    uint32_t index = list->head;
    uint64_t reported = 0;
    bool marks_agree = true;

    for (uint64_t seen = 0; seen < list->blocks; seen++) {
        if (index >= zone->span)
            return ebb__broken(walk, 13, 0, "a list leaves the zone");
        uint16_t state = ebb__load_state(zone, index);
        uint32_t next = ebb__link_of(zone, order, index)->next;

        if (ebb__state_of(state) == EBB__IN_FLIGHT)
            return ebb__broken(walk, 3, index, "a block in flight is on a free list");
        if ((state & ~EBB__REPORTED) != expected && seen == 0)
            return ebb__broken(walk, 10, index, "a list's head is not a block of that list");
        if ((state & ~EBB__REPORTED) != expected)
            return ebb__broken(walk, 13, index, "a list runs into what is no block of that list");
        if (next >= zone->span || ebb__link_of(zone, order, next)->prev != index)
            return ebb__broken(walk, 13, index, "the next block on a list does not point back");
        if ((next == list->head) != (seen + 1 == list->blocks))
            return ebb__broken(walk, 13, index, "a list has not as many blocks as it counts");
        if (!ebb__check_free_block(walk, index, state))
            return false;
        if (order < zone->large_order && !(state & EBB__REPORTED) &&
            !ebb__has_pageblock_bit(zone, index))
            return ebb__broken(walk, 24, index, "a pageblock with unreported blocks has no bit");
        reported += (state & EBB__REPORTED) != 0;
        marks_agree &= ebb__is_reported(zone, order, index) == ((state & EBB__REPORTED) != 0);
        index = next;
    }
    if (reported != list->reported)
        return ebb__broken_count(walk, 5, "a list does not count its reported blocks right");
    if (!marks_agree)
        return ebb__broken_count(walk, 10, "a large block has another mark than its state");
    return true;
}

/* ---- sorted lists ---- */

bool ebb__divider_check(const struct ebb_zone *zone, const struct ebb_divider *divider,
                        unsigned order, unsigned type, uint32_t *index)
{
    const struct ebb_free_list *list = &zone->lists[order][type];
    uint16_t expected =
        (uint16_t)(ebb__state_word(EBB__FREE, order, type) | (unsigned)EBB__REPORTED);

    if (!divider->set)
        return true;
    *index = divider->block;
    for (uint64_t seen = 0; seen < list->blocks; seen++) {
        if (*index >= zone->span || ebb__load_state(zone, *index) != expected)
            return false;
        *index = ebb__link_of(zone, order, *index)->next;
        if (*index == list->head)
            return true;
    }
    return false;
}

/* All that are reported are below the divider. */
static bool is_complete(const struct ebb_zone *zone, unsigned order, unsigned type, uint32_t *index)
{
    const struct ebb_free_list *list = &zone->lists[order][type];
    const struct ebb_divider *divider = &zone->sorted[order][type];
    uint64_t below = 0;

    if (!divider->set)
        return list->reported == 0;
    *index = divider->block;
    do {
        *index = ebb__link_of(zone, order, *index)->next;
        below++;
    } while (*index != list->head && below < list->blocks);
    *index = divider->block;
    return below == list->reported;
}

bool ebb__sorted_check(const struct ebb_zone *zone, uint32_t *index)
{
    for (unsigned order = 0; order <= zone->max_order; order++) {
        for (unsigned type = 0; type < EBB_MIGRATETYPES; type++) {
            if (!ebb__divider_check(zone, &zone->sorted[order][type], order, type, index) ||
                !is_complete(zone, order, type, index))
                return false;
        }
    }
    return true;
}

/* After the lists are known to be rings of free blocks. */
static bool check_sorted(struct walk *walk)
{
    const struct ebb_zone *zone = walk->zone;
    uint32_t index = 0;
    bool right = true;

    if (!zone->hooks)
        right = ebb__sorted_check(zone, &index);
    else if (zone->hooks->check)
        right = zone->hooks->check(zone, &index);
    return right ||
           ebb__broken(walk, 10, index, "a divider, or what else is kept of a list, is wrong");
}

/* The pageblocks on the ring of a class, with their lazy frames added to *lazy. */
static bool check_ring(struct walk *walk, unsigned type, unsigned class, uint64_t *lazy)
{
    const struct ebb_zone *zone = walk->zone;
    uint64_t pageblocks = ((zone->span - 1) >> zone->large_order) + 1;
    uint32_t head = zone->lazy_rings[type][class].n;
    uint32_t at = head;

    for (uint64_t seen = 0; seen < pageblocks; seen++) {
        if (at >= pageblocks)
            return ebb__broken(walk, 26, 0, "a ring of pageblocks leaves the zone");
        const struct ebb_pageblock *pageblock = &zone->pageblocks[at];
        uint64_t first = (uint64_t)at << zone->large_order;

        if (pageblock->lazy >> class != 1)
            return ebb__broken(walk, 26, first, "a pageblock is on the ring of another class");
        if (ebb__pageblock_type(zone, (uint32_t)first) != type)
            return ebb__broken(walk, 26, first, "a pageblock is on the ring of another type");
        if (pageblock->frames + pageblock->reported >= 1u << zone->large_order)
            return ebb__broken(walk, 26, first, "a pageblock is free, but not in one");
        if (!ebb__has_pageblock_bit(zone, (uint32_t)first))
            return ebb__broken(walk, 24, first, "a pageblock with lazy frames has no bit");
        if (pageblock->next.n >= pageblocks || zone->pageblocks[pageblock->next.n].prev.n != at)
            return ebb__broken(walk, 26, first, "the next pageblock on a ring does not point back");
        *lazy += pageblock->lazy;
        at = pageblock->next.n;
        if (at == head)
            return true;
    }
    return ebb__broken(walk, 26, 0, "a ring of pageblocks has no end");
}

static bool check_rings(struct walk *walk)
{
    const struct ebb_zone *zone = walk->zone;

    for (unsigned type = 0; type < EBB_ISOLATE; type++) {
        uint64_t lazy = 0;

        if (zone->lazy_classes[type] >> (zone->large_order + 1u))
            return ebb__broken_count(walk, 26,
                                     "a class that no pageblock can be of has pageblocks");
        for (unsigned class = 0; class <= zone->large_order; class ++) {
            if ((zone->lazy_classes[type] >> class & 1) && !check_ring(walk, type, class, &lazy))
                return false;
        }
        if (lazy != zone->lazy[type])
            return ebb__broken_count(walk, 26, "lazy frames are not the sum over the pageblocks");
    }
    return true;
}

bool ebb__check_lists(struct walk *walk)
{
    for (unsigned order = 0; order <= walk->zone->max_order; order++) {
        for (unsigned type = 0; type < EBB_MIGRATETYPES; type++) {
            if (!check_list(walk, order, type))
                return false;
        }
    }
    return check_rings(walk) && check_sorted(walk);
}

void ebb__assert_lists(const struct ebb_zone *zone)
{
    struct ebb_violation violation;
    struct walk walk = {.zone = zone, .violation = &violation};

    if (!ebb__check_counts(&walk) || !ebb__check_lists(&walk))
        ebb_port_panic(violation.what);
}
