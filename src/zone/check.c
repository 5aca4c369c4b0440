/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Walks a zone's invariants. Nothing it reads is trusted before it was checked,
 * so that it ends, and names what is wrong, on a zone that is broken.
 *
 * The numbers are those of DESIGN.md, section 5. Of I1 to I12, which concern more than the zone, it
 * sees I1, I2, I3, I5 and I10.
 */
#include "check.h"
#include "pcp.h"

/* Sets of frames are compared by sums of this, since there is no memory to mark
 * them in: a frame held twice in place of another is seen, too. */
static uint64_t hash(uint64_t index)
{
    index = (index + 1) * 0x9e3779b97f4a7c15u;
    index = (index ^ (index >> 32)) * 0xd6e8feb86659fd93u;
    return index ^ (index >> 32);
}

static uint64_t cached_frames(const struct ebb_zone *zone)
{
    uint64_t frames = 0;

    for (unsigned cpu = 0; cpu < zone->cpus; cpu++)
        frames += ebb__pcp_held(zone, &zone->pcps[cpu]);
    return frames;
}

/* ---- level 1: counters ---- */

static bool check_counters(struct walk *walk)
{
    const struct ebb_zone *zone = walk->zone;
    uint64_t held = cached_frames(zone);

    if (!ebb__check_counts(walk))
        return false;
    if (zone->level.low > zone->level.now)
        return ebb__broken_count(walk, 22, "the low-water mark is above what is unreported");
    if (zone->managed > zone->span || zone->free > zone->managed ||
        zone->in_flight > zone->managed - zone->free ||
        held > zone->managed - zone->free - zone->in_flight)
        return ebb__broken_count(walk, 2, "free, cached and in flight add up to more than managed");
    return true;
}

/* ---- level 2: caches; check_lists.c has the lists ---- */

static bool check_cache(struct walk *walk, const struct ebb_pcp *pcp)
{
    const struct ebb_zone *zone = walk->zone;

    for (unsigned type = 0; type < EBB__PCP_TYPES; type++) {
        if (pcp->count[type] > zone->pcp_high)
            return ebb__broken_count(walk, 19, "a cache holds more than it may");
        for (uint32_t i = 0; i < pcp->count[type]; i++) {
            uint32_t index = pcp->frames[type][i];

            if (index >= zone->span)
                return ebb__broken(walk, 19, 0, "a cache holds a frame outside the zone");
            uint16_t state = ebb__load_state(zone, index);

            if (ebb__state_of(state) == EBB__IN_FLIGHT)
                return ebb__broken(walk, 3, index, "a cache holds a frame in flight");
            if ((state & ~EBB__REPORTED) != ebb__state_word(EBB__CACHED, 0, 0))
                return ebb__broken(walk, 19, index, "a cache holds a frame that is not cached");
            walk->cached_hash -= hash(index);
        }
    }
    if (pcp->n_blocks > EBB_PCP_BLOCKS)
        return ebb__broken_count(walk, 19, "a cache holds more than it may");
    for (unsigned i = 0; i < pcp->n_blocks; i++) {
        uint32_t index = pcp->blocks[i];

        if (index >= zone->span)
            return ebb__broken(walk, 19, 0, "a cache holds a pageblock outside the zone");
        if (ebb__load_state(zone, index) != ebb__state_word(EBB__CACHED, zone->pageblock_order, 0))
            return ebb__broken(walk, 19, index, "a cache holds a pageblock that is not cached");
        walk->cached_hash -= hash(index);
    }
    return true;
}

static bool check_caches(struct walk *walk)
{
    const struct ebb_zone *zone = walk->zone;

    for (unsigned cpu = 0; cpu < zone->cpus; cpu++) {
        if (!check_cache(walk, &zone->pcps[cpu]))
            return false;
    }
    return true;
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
        return ebb__broken(walk, 20, index, "a state that is not defined");
    if ((state & EBB__REPORTED) && kind != EBB__FREE && kind != EBB__CACHED)
        return ebb__broken(walk, 1, index, "a block is reported that is not free");
    if (ebb__type_of(state) &&
        (kind == EBB__CACHED || kind == EBB__IN_FLIGHT || kind == EBB__FILLING))
        return ebb__broken(walk, 20, index, "a type where none belongs");
    if (ebb__order_of(state) > zone->max_order ||
        (kind == EBB__CACHED && frames > 1 && ebb__order_of(state) != zone->pageblock_order))
        return ebb__broken(walk, 14, index, "a block has no legal order");
    if ((index & (frames - 1)) || frames > zone->span - index)
        return ebb__broken(walk, 14, index, "a block is not aligned, or reaches beyond the span");
    for (uint64_t at = 1; at < frames; at++) {
        if (ebb__load_state(zone, (uint32_t)(index + at)) != EBB__NONE)
            return ebb__broken(walk, 14, index, "a frame inside a block has a state");
    }
    return kind != EBB__FREE || ebb__check_free_block(walk, index, state);
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
        return ebb__broken(walk, 18, first, "the blocks here are not what present says");
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
        return ebb__broken(walk, 23, first,
                           "a pageblock does not count its unreported blocks right");
    if (zone->pageblocks[pageblock].reported != reported)
        return ebb__broken(walk, 23, first, "a pageblock does not count its reported frames right");
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
        if (!ebb__has_lazy_bit(zone, at))
            continue;
        if (ebb__load_state(zone, (uint32_t)at) != ebb__state_word(EBB__FREE, 0, type))
            return ebb__broken(walk, 25, at,
                               "a lazy frame is not a free frame of its pageblock's type");
        lazy++;
    }
    if (lazy != zone->pageblocks[pageblock].lazy)
        return ebb__broken(walk, 26, first, "a pageblock does not count its lazy frames right");
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
            return ebb__broken(walk, 17, at, "a pageblock has a type that does not exist");
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
                return ebb__broken_count(walk, 13, "a free block is on no list");
        }
    }
    for (unsigned state = 0; state <= EBB__FILLING; state++)
        total += walk->frames[state];
    if (walk->frames[EBB__CACHED] != cached_frames(zone) || walk->cached_hash != 0)
        return ebb__broken_count(walk, 19, "a cached frame is in no cache, or in two");
    if (walk->frames[EBB__IN_FLIGHT] != zone->in_flight)
        return ebb__broken_count(walk, 3, "in_flight does not count the blocks in flight");
    if (total != zone->managed)
        return ebb__broken_count(walk, 2,
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
    intact = check_counters(&walk) &&
             (level < EBB_CHECK_LISTS || (ebb__check_lists(&walk) && check_caches(&walk))) &&
             (level < EBB_CHECK_FRAMES || check_frames(&walk));
    ebb__unlock_all(zone);
    return intact ? 0 : -EBB_EFAULT;
}
