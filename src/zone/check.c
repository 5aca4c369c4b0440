/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Walks a zone's invariants. Nothing it reads is trusted before it was checked,
 * so that it ends, and names what is wrong, on a zone that is broken.
 *
 * I1 to I12 are those of DESIGN.md, where they concern more than the zone; of
 * these it sees I1, I2, I3, I5 and I10. From the data structure follow:
 *
 * I13  a free list is one ring, in which each neighbour points back
 * I14  a block is of a legal order, aligned to its size, inside the span, and
 *      only its first frame has a state
 * I15  no two free buddies that could be merged, unless one is lazy
 * I16  the bitmasks of nonempty lists say what the lists say
 * I17  a free block is on the list of its first pageblock's type, and inside
 *      isolated pageblocks entirely or not at all
 * I18  `present` says how many frames of each largest block are managed
 * I19  a cache holds as many frames as it may, all in the cached state
 * I20  a state is one of the defined ones, and has no stray bits
 *
 * and what surplus pacing counts by, whoever paces:
 *
 * I21  the bitmasks of lists with unreported blocks say what the lists say
 * I22  large_unreported is the sum over the lists of large blocks, ISOLATE left out; the
 *      low-water mark is no higher
 * I23  a pageblock counts the unreported blocks in it that are smaller than itself, and their
 * frames, and the reported frames I24  a pageblock that has any has its bit
 *
 * and of lazy frames, which are of no list (lazy.c):
 *
 * I25  a frame whose bit is set is free, unreported, of order 0 and of its pageblock's type
 * I26  a pageblock counts its lazy frames, is on the ring of its type and class if it has any, and
 *      is not free as a whole then; a zone counts them by type
 */
#include "pcp.h"
#include "sorted.h"

/* A walk under way: the zone, where to name a violation, and what level 3 counts. */
struct walk {
    const struct ebb_zone *zone;
    struct ebb_violation *violation;
    uint64_t blocks[EBB_ORDERS][EBB_MIGRATETYPES]; /* free ones */
    uint64_t frames[EBB__FILLING + 1];             /* by state */
    uint64_t cached_hash; /* sum over the cached frames, less that over the caches' entries */
};

/* Sets of frames are compared by sums of this, since there is no memory to mark
 * them in: a frame held twice in place of another is seen, too. */
static uint64_t hash(uint64_t index)
{
    index = (index + 1) * 0x9e3779b97f4a7c15u;
    index = (index ^ (index >> 32)) * 0xd6e8feb86659fd93u;
    return index ^ (index >> 32);
}

/* Note a violation; false, for the callers to return. */
static bool broken(struct walk *walk, unsigned invariant, uint64_t index, const char *what)
{
    *walk->violation = (struct ebb_violation){
        .invariant = invariant,
        .pfn = walk->zone->base + index,
        .what = what,
    };
    return false;
}

static bool broken_count(struct walk *walk, unsigned invariant, const char *what)
{
    *walk->violation = (struct ebb_violation){.invariant = invariant, .what = what};
    return false;
}

static uint64_t cached_frames(const struct ebb_zone *zone)
{
    uint64_t frames = 0;

    for (unsigned cpu = 0; cpu < zone->cpus; cpu++)
        frames += ebb__pcp_held(zone, &zone->pcps[cpu]);
    return frames;
}

/* ---- level 1: counters ---- */

static bool check_list_counters(struct walk *walk, unsigned order, unsigned type)
{
    const struct ebb_zone *zone = walk->zone;
    const struct ebb_free_list *list = &zone->lists[order][type];
    bool bit = zone->nonempty[type] >> order & 1;

    if (list->reported > list->blocks)
        return broken_count(walk, 1, "a list has more reported blocks than blocks");
    if (order > zone->max_order && list->blocks)
        return broken_count(walk, 14, "a list above the largest order has blocks");
    if (bit != (list->blocks > 0))
        return broken_count(walk, 16, "the bit of a list in nonempty is wrong");
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
        return broken_count(walk, 5, "free is not the sum of the lists, and what is lazy");
    if (isolated != zone->isolated)
        return broken_count(walk, 5, "isolated is not the sum of the ISOLATE lists");
    if (reported != zone->reported)
        return broken_count(walk, 5, "reported is not the sum over the lists");
    return true;
}

static bool check_warm(struct walk *walk, unsigned type)
{
    const struct ebb_zone *zone = walk->zone;
    uint32_t warm = 0;

    for (unsigned order = 0; order < EBB_ORDERS; order++)
        warm |= (uint32_t)(ebb__unreported(&zone->lists[order][type]) > 0) << order;
    if (zone->warm[type] != warm)
        return broken_count(walk, 21, "the bits of lists in warm are wrong");
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
        return broken_count(walk, 22, "large_unreported is not the sum over the lists");
    if (zone->level.low > zone->level.now)
        return broken_count(walk, 22, "the low-water mark is above what is unreported");
    return true;
}

static bool check_counters(struct walk *walk)
{
    const struct ebb_zone *zone = walk->zone;
    uint64_t held = cached_frames(zone);

    for (unsigned order = 0; order < EBB_ORDERS; order++) {
        for (unsigned type = 0; type < EBB_MIGRATETYPES; type++) {
            if (!check_list_counters(walk, order, type))
                return false;
        }
    }
    for (unsigned type = 0; type < EBB_MIGRATETYPES; type++) {
        if (zone->nonempty[type] >> EBB_ORDERS)
            return broken_count(walk, 16, "nonempty has bits above the largest order");
    }
    if (!check_sums(walk) || !check_pacing(walk))
        return false;
    if (zone->managed > zone->span || zone->free > zone->managed ||
        zone->in_flight > zone->managed - zone->free ||
        held > zone->managed - zone->free - zone->in_flight)
        return broken_count(walk, 2, "free, cached and in flight add up to more than managed");
    return true;
}

/* ---- level 2: lists, pageblocks and caches ---- */

/* By the bit alone: the pageblocks' counts are yet to be checked. */
static bool has_lazy_bit(const struct ebb_zone *zone, uint64_t index)
{
    return zone->lazy_bits[index >> 6] >> (index & 63) & 1;
}

/* A free block, wherever it was found: where it lies, and what is around it. */
static bool check_free_block(struct walk *walk, uint64_t index, uint16_t state)
{
    const struct ebb_zone *zone = walk->zone;
    unsigned order = ebb__order_of(state);
    uint64_t frames = (uint64_t)1 << order;
    uint64_t step = (uint64_t)1 << zone->pageblock_order;
    bool isolated = ebb__type_of(state) == EBB_ISOLATE;
    uint64_t buddy = index ^ frames;

    if (index & (frames - 1))
        return broken(walk, 14, index, "a free block is not aligned");
    if (frames > zone->span - index)
        return broken(walk, 14, index, "a free block reaches beyond the span");
    if (ebb__type_of(state) != ebb__pageblock_type(zone, (uint32_t)index))
        return broken(walk, 17, index, "a free block is not on the list of its pageblock's type");
    for (uint64_t at = step; at < frames; at += step) {
        if ((ebb__pageblock_type(zone, (uint32_t)(index + at)) == EBB_ISOLATE) != isolated)
            return broken(walk, 17, index, "a free block is isolated in part");
    }
    if (order == zone->max_order || buddy >= zone->span)
        return true;
    uint16_t other = ebb__load_state(zone, (uint32_t)buddy);

    if (ebb__state_of(other) == EBB__FREE && ebb__order_of(other) == order &&
        (ebb__type_of(other) == EBB_ISOLATE) == isolated &&
        !(order == 0 && (has_lazy_bit(zone, index) || has_lazy_bit(zone, buddy))))
        return broken(walk, 15, index, "two free buddies are not merged");
    return true;
}

/* Of an unreported block of less than a pageblock. */
static bool has_pageblock_bit(const struct ebb_zone *zone, uint32_t index)
{
    uint32_t pageblock = index >> zone->large_order;

    return zone->pageblock_bits[pageblock >> 6] >> (pageblock & 63) & 1;
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
            return broken(walk, 13, 0, "a list leaves the zone");
        uint16_t state = ebb__load_state(zone, index);
        uint32_t next = ebb__link_of(zone, order, index)->next;

        if (ebb__state_of(state) == EBB__IN_FLIGHT)
            return broken(walk, 3, index, "a block in flight is on a free list");
        if ((state & ~EBB__REPORTED) != expected && seen == 0)
            return broken(walk, 10, index, "a list's head is not a block of that list");
        if ((state & ~EBB__REPORTED) != expected)
            return broken(walk, 13, index, "a list runs into what is no block of that list");
        if (next >= zone->span || ebb__link_of(zone, order, next)->prev != index)
            return broken(walk, 13, index, "the next block on a list does not point back");
        if ((next == list->head) != (seen + 1 == list->blocks))
            return broken(walk, 13, index, "a list has not as many blocks as it counts");
        if (!check_free_block(walk, index, state))
            return false;
        if (order < zone->large_order && !(state & EBB__REPORTED) &&
            !has_pageblock_bit(zone, index))
            return broken(walk, 24, index, "a pageblock with unreported blocks has no bit");
        reported += (state & EBB__REPORTED) != 0;
        marks_agree &= ebb__is_reported(zone, order, index) == ((state & EBB__REPORTED) != 0);
        index = next;
    }
    if (reported != list->reported)
        return broken_count(walk, 5, "a list does not count its reported blocks right");
    if (!marks_agree)
        return broken_count(walk, 10, "a large block has another mark than its state");
    return true;
}

static bool check_cache(struct walk *walk, const struct ebb_pcp *pcp)
{
    const struct ebb_zone *zone = walk->zone;

    for (unsigned type = 0; type < EBB__PCP_TYPES; type++) {
        if (pcp->count[type] > zone->pcp_high)
            return broken_count(walk, 19, "a cache holds more than it may");
        for (uint32_t i = 0; i < pcp->count[type]; i++) {
            uint32_t index = pcp->frames[type][i];

            if (index >= zone->span)
                return broken(walk, 19, 0, "a cache holds a frame outside the zone");
            uint16_t state = ebb__load_state(zone, index);

            if (ebb__state_of(state) == EBB__IN_FLIGHT)
                return broken(walk, 3, index, "a cache holds a frame in flight");
            if ((state & ~EBB__REPORTED) != ebb__state_word(EBB__CACHED, 0, 0))
                return broken(walk, 19, index, "a cache holds a frame that is not cached");
            walk->cached_hash -= hash(index);
        }
    }
    if (pcp->n_blocks > EBB_PCP_BLOCKS)
        return broken_count(walk, 19, "a cache holds more than it may");
    for (unsigned i = 0; i < pcp->n_blocks; i++) {
        uint32_t index = pcp->blocks[i];

        if (index >= zone->span)
            return broken(walk, 19, 0, "a cache holds a pageblock outside the zone");
        if (ebb__load_state(zone, index) != ebb__state_word(EBB__CACHED, zone->pageblock_order, 0))
            return broken(walk, 19, index, "a cache holds a pageblock that is not cached");
        walk->cached_hash -= hash(index);
    }
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
    return right || broken(walk, 10, index, "a divider, or what else is kept of a list, is wrong");
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
            return broken(walk, 26, 0, "a ring of pageblocks leaves the zone");
        const struct ebb_pageblock *pageblock = &zone->pageblocks[at];
        uint64_t first = (uint64_t)at << zone->large_order;

        if (pageblock->lazy >> class != 1)
            return broken(walk, 26, first, "a pageblock is on the ring of another class");
        if (ebb__pageblock_type(zone, (uint32_t)first) != type)
            return broken(walk, 26, first, "a pageblock is on the ring of another type");
        if (pageblock->frames + pageblock->reported >= 1u << zone->large_order)
            return broken(walk, 26, first, "a pageblock is free, but not in one");
        if (!has_pageblock_bit(zone, (uint32_t)first))
            return broken(walk, 24, first, "a pageblock with lazy frames has no bit");
        if (pageblock->next.n >= pageblocks || zone->pageblocks[pageblock->next.n].prev.n != at)
            return broken(walk, 26, first, "the next pageblock on a ring does not point back");
        *lazy += pageblock->lazy;
        at = pageblock->next.n;
        if (at == head)
            return true;
    }
    return broken(walk, 26, 0, "a ring of pageblocks has no end");
}

static bool check_rings(struct walk *walk)
{
    const struct ebb_zone *zone = walk->zone;

    for (unsigned type = 0; type < EBB_ISOLATE; type++) {
        uint64_t lazy = 0;

        if (zone->lazy_classes[type] >> (zone->large_order + 1u))
            return broken_count(walk, 26, "a class that no pageblock can be of has pageblocks");
        for (unsigned class = 0; class <= zone->large_order; class ++) {
            if ((zone->lazy_classes[type] >> class & 1) && !check_ring(walk, type, class, &lazy))
                return false;
        }
        if (lazy != zone->lazy[type])
            return broken_count(walk, 26, "lazy frames are not the sum over the pageblocks");
    }
    return true;
}

static bool check_lists(struct walk *walk)
{
    const struct ebb_zone *zone = walk->zone;

    for (unsigned order = 0; order <= zone->max_order; order++) {
        for (unsigned type = 0; type < EBB_MIGRATETYPES; type++) {
            if (!check_list(walk, order, type))
                return false;
        }
    }
    for (unsigned cpu = 0; cpu < zone->cpus; cpu++) {
        if (!check_cache(walk, &zone->pcps[cpu]))
            return false;
    }
    return check_rings(walk) && check_sorted(walk);
}

/* ---- level 3: every descriptor ---- */

static bool check_state(struct walk *walk, uint64_t index, uint16_t state)
{
    const unsigned claimed = EBB__CLAIMED | EBB__WAS_REPORTED | EBB__WAS_FREE;
    const unsigned known = EBB__ORDER_MASK | EBB__STATE_MASK | EBB__TYPE_MASK | EBB__REPORTED;
    const struct ebb_zone *zone = walk->zone;
    enum ebb__state kind = ebb__state_of(state);
    uint64_t frames = (uint64_t)1 << ebb__order_of(state);

    if (kind == EBB__ALLOCATED && ebb__type_of(state) == EBB_ISOLATE && (state & EBB__CLAIMED))
        state &= (uint16_t)~claimed;
    if ((state & ~known) || kind < EBB__FREE || kind > EBB__FILLING)
        return broken(walk, 20, index, "a state that is not defined");
    if ((state & EBB__REPORTED) && kind != EBB__FREE && kind != EBB__CACHED)
        return broken(walk, 1, index, "a block is reported that is not free");
    if (ebb__type_of(state) &&
        (kind == EBB__CACHED || kind == EBB__IN_FLIGHT || kind == EBB__FILLING))
        return broken(walk, 20, index, "a type where none belongs");
    if (ebb__order_of(state) > zone->max_order ||
        (kind == EBB__CACHED && frames > 1 && ebb__order_of(state) != zone->pageblock_order))
        return broken(walk, 14, index, "a block has no legal order");
    if ((index & (frames - 1)) || frames > zone->span - index)
        return broken(walk, 14, index, "a block is not aligned, or reaches beyond the span");
    for (uint64_t at = 1; at < frames; at++) {
        if (ebb__load_state(zone, (uint32_t)(index + at)) != EBB__NONE)
            return broken(walk, 14, index, "a frame inside a block has a state");
    }
    return kind != EBB__FREE || check_free_block(walk, index, state);
}

/* The blocks of one largest block, from its first frame on. */
static bool check_largest(struct walk *walk, uint64_t index)
{
    const struct ebb_zone *zone = walk->zone;
    uint64_t end = index + ((uint64_t)1 << zone->max_order);
    uint64_t first = index;
    uint64_t present = 0;

    if (end > zone->span)
        end = zone->span;
    while (index < end) {
        uint16_t state = ebb__load_state(zone, (uint32_t)index);
        uint64_t frames = (uint64_t)1 << ebb__order_of(state);

        if (state == EBB__NONE) {
            index++;
            continue;
        }
        if (!check_state(walk, index, state))
            return false;
        if (ebb__state_of(state) == EBB__FREE)
            walk->blocks[ebb__order_of(state)][ebb__type_of(state)]++;
        if (ebb__state_of(state) == EBB__CACHED)
            walk->cached_hash += hash(index);
        walk->frames[ebb__state_of(state)] += frames;
        present += frames;
        index += frames;
    }
    if (present != zone->present[first >> zone->max_order])
        return broken(walk, 18, first, "the blocks here are not what present says");
    return true;
}

/* One pageblock, from *at, which is left at the first block behind it. */
static bool check_pageblock(struct walk *walk, uint64_t pageblock, uint64_t *at)
{
    const struct ebb_zone *zone = walk->zone;
    uint64_t first = pageblock << zone->large_order;
    uint64_t end = first + ((uint64_t)1 << zone->large_order);
    uint64_t frames = 0;
    uint64_t blocks = 0;
    uint64_t reported = 0;

    while (*at < end && *at < zone->span) {
        uint16_t state = ebb__load_state(zone, (uint32_t)*at);
        unsigned order = ebb__order_of(state);

        if (ebb__state_of(state) == EBB__FREE && order < zone->large_order) {
            bool is_reported = state & EBB__REPORTED;

            frames += (uint64_t)!is_reported << order;
            reported += (uint64_t)is_reported << order;
            blocks += !is_reported;
        }
        *at += (uint64_t)1 << order;
    }
    if (zone->pageblocks[pageblock].frames != frames ||
        zone->pageblocks[pageblock].blocks != blocks)
        return broken(walk, 23, first, "a pageblock does not count its unreported blocks right");
    if (zone->pageblocks[pageblock].reported != reported)
        return broken(walk, 23, first, "a pageblock does not count its reported frames right");
    return true;
}

static bool check_lazy(struct walk *walk, uint64_t pageblock)
{
    const struct ebb_zone *zone = walk->zone;
    uint64_t first = pageblock << zone->large_order;
    uint64_t end = first + ((uint64_t)1 << zone->large_order);
    unsigned type = ebb__pageblock_type(zone, (uint32_t)first);
    uint32_t lazy = 0;

    for (uint64_t at = first; at < end && at < zone->span; at++) {
        if (!has_lazy_bit(zone, at))
            continue;
        if (ebb__load_state(zone, (uint32_t)at) != ebb__state_word(EBB__FREE, 0, type))
            return broken(walk, 25, at, "a lazy frame is not a free frame of its pageblock's type");
        lazy++;
    }
    if (lazy != zone->pageblocks[pageblock].lazy)
        return broken(walk, 26, first, "a pageblock does not count its lazy frames right");
    return true;
}

static bool check_pageblocks(struct walk *walk)
{
    const struct ebb_zone *zone = walk->zone;
    uint64_t at = 0;

    for (uint64_t pageblock = 0; pageblock << zone->large_order < zone->span; pageblock++) {
        if (!check_pageblock(walk, pageblock, &at) || !check_lazy(walk, pageblock))
            return false;
    }
    return true;
}

static bool check_types(struct walk *walk)
{
    const struct ebb_zone *zone = walk->zone;
    uint64_t step = (uint64_t)1 << zone->pageblock_order;

    for (uint64_t at = 0; at < zone->span; at += step) {
        if (ebb__pageblock_type(zone, (uint32_t)at) >= EBB_MIGRATETYPES)
            return broken(walk, 17, at, "a pageblock has a type that does not exist");
    }
    return true;
}

static bool check_totals(struct walk *walk)
{
    const struct ebb_zone *zone = walk->zone;
    uint64_t total = 0;

    for (unsigned order = 0; order <= zone->max_order; order++) {
        for (unsigned type = 0; type < EBB_MIGRATETYPES; type++) {
            uint64_t lazy = order == 0 && type != EBB_ISOLATE ? zone->lazy[type] : 0;

            if (walk->blocks[order][type] != zone->lists[order][type].blocks + lazy)
                return broken_count(walk, 13, "a free block is on no list");
        }
    }
    for (unsigned state = 0; state <= EBB__FILLING; state++)
        total += walk->frames[state];
    if (walk->frames[EBB__CACHED] != cached_frames(zone) || walk->cached_hash != 0)
        return broken_count(walk, 19, "a cached frame is in no cache, or in two");
    if (walk->frames[EBB__IN_FLIGHT] != zone->in_flight)
        return broken_count(walk, 3, "in_flight does not count the blocks in flight");
    if (total != zone->managed)
        return broken_count(walk, 2,
                            "free, cached, in flight and allocated do not add up to managed");
    return true;
}

static bool check_frames(struct walk *walk)
{
    const struct ebb_zone *zone = walk->zone;
    uint64_t step = (uint64_t)1 << zone->max_order;

    if (!check_types(walk))
        return false;
    for (uint64_t at = 0; at < zone->span; at += step) {
        if (!check_largest(walk, at))
            return false;
    }
    return check_totals(walk) && check_pageblocks(walk);
}

int ebb_zone_check(struct ebb_zone *zone, enum ebb_check_level level,
                   struct ebb_violation *violation)
{
    struct ebb_violation unused;
    struct walk walk = {.zone = zone, .violation = violation ? violation : &unused};
    bool intact;

    ebb__lock_all(zone);
    intact = check_counters(&walk) && (level < EBB_CHECK_LISTS || check_lists(&walk)) &&
             (level < EBB_CHECK_FRAMES || check_frames(&walk));
    ebb__unlock_all(zone);
    return intact ? 0 : -EBB_EFAULT;
}
