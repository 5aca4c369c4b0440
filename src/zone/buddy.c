/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Buddies: splitting, merging, and coalescing what is lazy (lazy.c). Everything here is under the
 * zone's lock.
 *
 * A free block is on the list of its first pageblock's type. It lies within
 * isolated pageblocks entirely or not at all, and has no free buddy that it
 * could merge with; but for lazy frames (lazy.c), which are on no list.
 */
#include "lists.h"

/* Pageblocks coalesced for a larger block, before a whole one is broken for it. */
#define TRIES 4u

/* ---- looking around ---- */

bool ebb__find_block(const struct ebb_zone *zone, uint32_t index, uint32_t *head, uint16_t *state)
{
    EBB_DEBUG_ASSERT(index < zone->span);
    for (unsigned order = 0; order <= zone->max_order; order++) {
        uint32_t first = index & ~((1u << order) - 1);
        uint16_t found = ebb__load_state(zone, first);

        if (found == EBB__NONE)
            continue;
        *head = first;
        *state = found;
        /* A smaller block there rules a larger one out as well. */
        return ebb__order_of(found) >= order;
    }
    return false;
}

/* Do some pageblocks of this block's frames belong to ISOLATE and others not? */
static bool mixed(const struct ebb_zone *zone, uint32_t index, unsigned order)
{
    bool isolated = ebb__pageblock_type(zone, index) == EBB_ISOLATE;
    uint32_t step = 1u << zone->pageblock_order;

    for (uint32_t at = step; at < 1u << order; at += step) {
        if ((ebb__pageblock_type(zone, index + at) == EBB_ISOLATE) != isolated)
            return true;
    }
    return false;
}

/* ---- split ---- */

static void link_part(struct ebb_zone *zone, uint32_t index, unsigned order, bool reported)
{
    ebb__link(zone, index, order, ebb__pageblock_type(zone, index), reported,
              reported ? EBB__COLD : EBB__HEAD);
}

bool ebb__take_at(struct ebb_zone *zone, uint32_t head, uint32_t index, unsigned order)
{
    unsigned from = ebb__order_of(ebb__load_state(zone, head));
    bool reported = ebb__unlink(zone, head);
    bool parts_reported = reported && !(zone->keep_marks & EBB__SPLIT_CLEARS);

    EBB_DEBUG_ASSERT(from >= order && !(index & ((1u << order) - 1)));
    EBB_DEBUG_ASSERT(index >= head && index - head <= (1u << from) - (1u << order));
    while (from > order) {
        uint32_t middle = head + (1u << --from);

        if (index >= middle) {
            link_part(zone, head, from, parts_reported);
            head = middle;
        } else {
            link_part(zone, middle, from, parts_reported);
        }
    }
    EBB_DEBUG_ASSERT(head == index && ebb__load_state(zone, index) == EBB__NONE);
    return reported;
}

/* ---- merge ---- */

/* A buddy that a block of this order can merge with. */
static inline bool can_merge(const struct ebb_zone *zone, uint32_t buddy, unsigned order,
                             bool isolated, uint16_t *state)
{
    if (buddy >= zone->span)
        return false;
    EBB_DEBUG_ASSERT(!(buddy & ((1u << order) - 1)));
    *state = ebb__load_state(zone, buddy);
    return (*state & (EBB__STATE_MASK | EBB__ORDER_MASK)) == ebb__state_word(EBB__FREE, order, 0) &&
           (ebb__type_of(*state) == EBB_ISOLATE) == isolated;
}

/* A random bit: 63 of them are made at once, and used one by one. */
static bool random_bit(struct ebb_zone *zone)
{
    bool bit;

    if (zone->shuffle_bits <= 1) {
        uint64_t x = zone->shuffle_state; /* xorshift64* (Vigna, 2014) */

        EBB_DEBUG_ASSERT(x != 0);
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        zone->shuffle_state = x;
        x *= 0x2545f4914f6cdd1du;
        /* 63 of its bits, and the mark of the end. */
        zone->shuffle_bits = x | (uint64_t)1 << 63;
    }
    bit = zone->shuffle_bits & 1;
    zone->shuffle_bits >>= 1;
    return bit;
}

static unsigned merge_and_link(struct ebb_zone *zone, uint32_t index, unsigned order, bool reported,
                               enum ebb__where where)
{
    bool isolated = ebb__pageblock_type(zone, index) == EBB_ISOLATE;
    unsigned freed_order = order;
    uint16_t state;

    EBB_DEBUG_ASSERT(ebb__state_of(ebb__load_state(zone, index)) != EBB__FREE);
    ebb__store_state(zone, index, EBB__NONE);
    for (; order < zone->max_order; order++) {
        uint32_t buddy = index ^ (1u << order);

        if (!can_merge(zone, buddy, order, isolated, &state))
            break;
        /* Both marks count, whichever half came last: `state` was read before this. */
        reported &= ebb__unlink(zone, buddy);
        index &= buddy;
    }
    if ((zone->keep_marks & EBB__MERGE_CLEARS) && order > freed_order)
        reported = false;
    if (EBB_UNLIKELY(order >= zone->shuffle_order) && where == EBB__HEAD && random_bit(zone))
        where = EBB__COLD;
    ebb__link(zone, index, order, ebb__pageblock_type(zone, index), reported, where);
    if (order < zone->large_order)
        order = ebb__coalesce_if_whole(zone, index, order);
    return isolated ? 0 : order; /* what is isolated is nothing to report */
}

/* Part of it was isolated while it was out: split along that line. */
__attribute__((noinline)) static unsigned free_mixed(struct ebb_zone *zone, uint32_t index,
                                                     unsigned order, bool reported,
                                                     enum ebb__where where)
{
    EBB_DEBUG_ASSERT(order > zone->pageblock_order);
    ebb__store_state(zone, index, EBB__NONE);
    order--;
    unsigned lower = ebb__free_block(zone, index, order, reported, where);
    unsigned upper = ebb__free_block(zone, index + (1u << order), order, reported, where);
    return lower > upper ? lower : upper;
}

unsigned ebb__free_block(struct ebb_zone *zone, uint32_t index, unsigned order, bool reported,
                         enum ebb__where where)
{
    EBB_ASSERT(ebb__state_of(ebb__load_state(zone, index)) != EBB__FREE);
    EBB_DEBUG_ASSERT(order <= zone->max_order && !(index & ((1u << order) - 1)));
    EBB_DEBUG_ASSERT((uint64_t)1 << order <= zone->span - index);
    if (EBB_UNLIKELY(order > zone->pageblock_order) && mixed(zone, index, order))
        return free_mixed(zone, index, order, reported, where);
    return merge_and_link(zone, index, order, reported, where);
}

EBB_RARE uint64_t ebb__add_row(struct ebb_zone *zone, uint64_t from, uint64_t to)
{
    const unsigned order = zone->max_order;
    const unsigned shift = zone->large_order;
    const uint64_t size = (uint64_t)1 << order;
    const size_t n_types = (size_t)(size >> zone->pageblock_order);
    const uint8_t *types = &zone->types[(from >> zone->pageblock_order) - n_types];
    struct ebb_link *last = &zone->large_links[(from - size) >> shift];
    const uint16_t state = ebb__load_state(zone, (uint32_t)(from - size));
    const uint64_t first = from;

    EBB_DEBUG_ASSERT(from >= size && !(from & (size - 1)) && to <= zone->span);
    if (order < shift || order >= zone->track_order || *types == EBB_ISOLATE ||
        state != ebb__state_word(EBB__FREE, order, *types))
        return from;
    uint32_t after = last->next;

    /* As long as the types are those of the block before: what held for it holds for the next. */
    for (; to - from >= size && !__builtin_memcmp(types, types + n_types, n_types) &&
           !zone->large_marks[from >> shift];
         from += size) {
        struct ebb_link *link = &zone->large_links[from >> shift];

        EBB_DEBUG_ASSERT(ebb__load_state(zone, (uint32_t)from) == EBB__NONE);
        EBB_DEBUG_ASSERT(zone->present[from >> order] == 0);
        ebb__store_state(zone, (uint32_t)from, state);
        zone->present[from >> order] = (uint32_t)size;
        last->next = (uint32_t)from;
        link->prev = (uint32_t)(from - size);
        last = link;
        types += n_types;
    }
    last->next = after;
    zone->large_links[after >> shift].prev = (uint32_t)(from - size);
    EBB_DEBUG_ASSERT(zone->managed + (from - first) <= zone->span);
    zone->lists[order][*types].blocks += (from - first) >> order;
    zone->managed += from - first;
    zone->free += from - first;
    zone->level.now += from - first;
    return from;
}

unsigned ebb__free_warm(struct ebb_zone *zone, uint32_t index, unsigned order)
{
    unsigned type = ebb__pageblock_type(zone, index);
    bool isolated = type == EBB_ISOLATE;
    uint16_t state;

    EBB_DEBUG_ASSERT(order <= zone->max_order && !(index & ((1u << order) - 1)));
    EBB_DEBUG_ASSERT((uint64_t)1 << order <= zone->span - index);
    EBB_DEBUG_ASSERT(ebb__state_of(ebb__load_state(zone, index)) != EBB__FREE);
    if (EBB_UNLIKELY(order > zone->pageblock_order || zone->shuffle_order < EBB_ORDERS))
        return ebb__free_block(zone, index, order, false, EBB__HEAD);
    ebb__store_state(zone, index, EBB__NONE);
    for (; order < zone->max_order; order++) {
        uint32_t buddy = index ^ (1u << order);

        if (!can_merge(zone, buddy, order, isolated, &state))
            break;
        if (EBB_UNLIKELY((state & EBB__REPORTED) || order == 0)) /* may be lazy */
            (void)ebb__unlink(zone, buddy);
        else
            ebb__unlink_block(zone, buddy, ebb__state_word(EBB__FREE, order, ebb__type_of(state)));
        index &= buddy;
    }
    ebb__link_warm(zone, index, order, ebb__pageblock_type(zone, index));
    if (order < zone->large_order)
        order = ebb__coalesce_if_whole(zone, index, order);
    return isolated ? 0 : order;
}

/* ---- coalescing ---- */

/* The first frame from `at` on that is lazy, or is not. */
__attribute__((noinline)) static uint64_t find_lazy(const struct ebb_zone *zone, uint64_t at,
                                                    uint64_t end, bool lazy)
{
    EBB_DEBUG_ASSERT(at <= end);
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

        for (uint64_t at = from; at < end; at++) {
            EBB_DEBUG_ASSERT((ebb__load_state(zone, (uint32_t)at) & ~(unsigned)EBB__TYPE_MASK) ==
                             ebb__state_word(EBB__FREE, 0, 0));
            ebb__store_state(zone, (uint32_t)at, EBB__NONE);
        }
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
    uint32_t frames = ebb__pageblock(zone, id)->lazy;
    unsigned largest = 0;

    EBB_ASSERT(at < end);
    unsigned type = ebb__type_of(ebb__load_state(zone, (uint32_t)at));

    /* Before anything is freed: whoever frees asks whether the pageblock is whole now. */
    ebb__take_lazy_out(zone, id, type, frames);
    while (at < end) {
        uint64_t to = find_lazy(zone, at, end, false);
        unsigned merged = coalesce_run(zone, at, to);

        EBB_DEBUG_ASSERT(to > at && frames >= to - at);
        frames -= (uint32_t)(to - at);
        largest = merged > largest ? merged : largest;
        at = find_lazy(zone, to, end, true);
    }
    for (uint64_t word = first >> 6; word < end >> 6; word++)
        zone->lazy_bits[word] = 0;
    EBB_DEBUG_ASSERT(frames == 0 && ebb__pageblock(zone, id)->lazy == 0);
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
        ebb__coalesce(zone, zone->lazy_rings[type][ebb__lazy_class(classes)]);
    return classes;
}

EBB_RARE bool ebb__coalesce_any(struct ebb_zone *zone)
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

    EBB_DEBUG_ASSERT(type < EBB_ISOLATE && order < zone->large_order);
    for (unsigned n = 0; n < (*own >> order ? TRIES : EBB__COALESCE_MOST); n++) {
        if ((*own & (small - 1)) >> order || !ebb__coalesce_most(zone, type))
            return;
    }
}

EBB_RARE void ebb__coalesce_all(struct ebb_zone *zone)
{
    uint64_t pageblocks = zone->span >> zone->large_order;
    bool more = true;

    /* Others may free meanwhile: there is an end to it. */
    for (uint64_t n = 0; more && n <= pageblocks; n++) {
        ebb__lock(zone);
        more = ebb__coalesce_any(zone);
        if (!more)
            EBB_EXPENSIVE(ebb__assert_lists(zone));
        ebb__unlock(zone);
    }
}

/* ---- what is freed in batches ---- */

/* Frames that are looked at before they are freed, so that their cache misses overlap. */
#define LOOK_AHEAD 8u

static void fetch_lazy(const struct ebb_zone *zone, uint32_t index)
{
    __builtin_prefetch(&zone->lazy_bits[index >> 6], 1);
    __builtin_prefetch(ebb__pageblock(zone, ebb__pageblock_of(zone, index)), 1);
    __builtin_prefetch(&zone->state[index], 1);
}

uint32_t ebb__free_frames(struct ebb_zone *zone, const uint32_t *frames, uint32_t n)
{
    uint32_t orders = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (i + LOOK_AHEAD < n)
            fetch_lazy(zone, frames[i + LOOK_AHEAD]);
        unsigned type = ebb__pageblock_type(zone, frames[i]);
        unsigned order = 0;

        EBB_DEBUG_ASSERT(ebb__state_of(ebb__load_state(zone, frames[i])) == EBB__CACHED);
        if (EBB_UNLIKELY(!zone->coalesces_late || type == EBB_ISOLATE))
            order = ebb__free_warm(zone, frames[i], 0);
        else if (EBB_UNLIKELY(ebb__make_lazy(zone, frames[i], type)))
            order = ebb__coalesce(zone, ebb__pageblock_of(zone, frames[i]));
        orders |= 1u << order;
    }
    if (ebb__lazy_may_be(zone))
        orders |= 1u << zone->report_min_order;
    return orders;
}

/* ---- for sources ---- */

EBB_RARE bool ebb__isolate_block(struct ebb_zone *zone, uint32_t index)
{
    unsigned order = ebb__order_of(ebb__load_state(zone, index));
    uint64_t frames = (uint64_t)1 << order;

    EBB_DEBUG_ASSERT(ebb__type_of(ebb__load_state(zone, index)) != EBB_ISOLATE);
    if (!ebb__above_low(zone, order))
        return false;
    (void)ebb__unlink(zone, index);
    ebb__store_state(zone, index, ebb__state_word(EBB__IN_FLIGHT, order, 0));
    zone->in_flight += frames;
    if (order >= zone->large_order)
        zone->level.low -= frames < zone->level.low ? frames : zone->level.low;
    return true;
}

EBB_RARE void ebb__put_back(struct ebb_zone *zone, uint32_t index, bool reported)
{
    uint16_t state = ebb__load_state(zone, index);
    unsigned order = ebb__order_of(state);

    EBB_ASSERT(ebb__state_of(state) == EBB__IN_FLIGHT);
    EBB_DEBUG_ASSERT(zone->in_flight >= (uint64_t)1 << order);
    zone->in_flight -= (uint64_t)1 << order;
    /* Dividers are searched from the cold end: there, after all others is the head. */
    ebb__free_block(zone, index, order, reported,
                    !reported && ebb__has_dividers(zone) ? EBB__HEAD : EBB__COLD);
}
