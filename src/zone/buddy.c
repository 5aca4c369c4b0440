/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Free lists: link and unlink, split and merge, choosing a block, taking one
 * from another migratetype's lists. Everything here is under the zone's lock.
 *
 * A free block is on the list of its first pageblock's type. It lies within
 * isolated pageblocks entirely or not at all, and has no free buddy that it
 * could merge with; but for lazy frames (lazy.c), which are on no list.
 */
#include "sorted.h"

/* Where to look when the lists of a type are empty, in this order. */
static const uint8_t fallbacks[3][2] = {
    [EBB_MOVABLE] = {EBB_RECLAIMABLE, EBB_UNMOVABLE},
    [EBB_UNMOVABLE] = {EBB_RECLAIMABLE, EBB_MOVABLE},
    [EBB_RECLAIMABLE] = {EBB_UNMOVABLE, EBB_MOVABLE},
};

/* ---- the free lists ---- */

/* On the array that holds the links of a list: see ebb__link_of(). */
static inline __attribute__((always_inline)) void
insert_between(struct ebb_link *links, unsigned shift, struct ebb_free_list *list, uint32_t index)
{
    if (list->blocks == 0) {
        links[index >> shift] = (struct ebb_link){index, index};
        list->head = index;
        return;
    }
    uint32_t head = list->head;
    uint32_t tail = links[head >> shift].prev;

    links[index >> shift].next = head;
    links[head >> shift].prev = index;
    links[index >> shift].prev = tail;
    links[tail >> shift].next = index;
}

static inline __attribute__((always_inline)) void
remove_from(struct ebb_link *links, unsigned shift, struct ebb_free_list *list, uint32_t index)
{
    uint32_t next = links[index >> shift].next;
    uint32_t prev = links[index >> shift].prev;

    links[prev >> shift].next = next;
    links[next >> shift].prev = prev;
    if (list->head == index)
        list->head = next;
}

/* Between tail and head: at the tail, unless the caller makes it the head. */
static inline void ring_insert(struct ebb_zone *zone, struct ebb_free_list *list, unsigned order,
                               uint32_t index)
{
    if (EBB_LIKELY(order < zone->large_order))
        insert_between(zone->links, EBB__LINK_SHIFT, list, index);
    else
        insert_between(zone->large_links, zone->large_order, list, index);
}

static inline void ring_remove(struct ebb_zone *zone, struct ebb_free_list *list, unsigned order,
                               uint32_t index)
{
    if (EBB_LIKELY(order < zone->large_order))
        remove_from(zone->links, EBB__LINK_SHIFT, list, index);
    else
        remove_from(zone->large_links, zone->large_order, list, index);
}

/* Right before a block: at its place if that is the head. */
static void ring_insert_before(struct ebb_zone *zone, struct ebb_free_list *list, unsigned order,
                               uint32_t before, uint32_t index)
{
    struct ebb_link *below = ebb__link_of(zone, order, before);
    uint32_t above = below->prev;

    *ebb__link_of(zone, order, index) = (struct ebb_link){.next = before, .prev = above};
    ebb__link_of(zone, order, above)->next = index;
    below->prev = index;
    if (list->head == before)
        list->head = index;
}

__attribute__((noinline)) static void insert_cold(struct ebb_zone *zone, uint32_t index,
                                                  unsigned order, unsigned type, bool reported,
                                                  enum ebb__where where)
{
    struct ebb_free_list *list = &zone->lists[order][type];
    uint32_t before;

    /* Nothing unreported goes below a divider, and where lists are sorted nothing reported above
     * it. */
    if ((where == EBB__COLD || !reported || ebb__sorts(zone)) &&
        ebb__place(zone, index, order, type, reported, &before))
        ring_insert_before(zone, list, order, before, index);
    else
        ring_insert(zone, list, order, index);
}

/* A random bit: 63 of them are made at once, and used one by one. */
static bool random_bit(struct ebb_zone *zone)
{
    bool bit;

    if (zone->shuffle_bits <= 1) {
        uint64_t x = zone->shuffle_state; /* xorshift64* (Vigna, 2014) */

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

/* What surplus pacing counts by: small blocks by pageblock, large ones in total. */
ALWAYS_INLINE void count_small_link(struct ebb_zone *zone, uint32_t index, unsigned order)
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

ALWAYS_INLINE void count_small_unlink(struct ebb_zone *zone, uint32_t index, unsigned order)
{
    struct ebb_pageblock *pageblock = ebb__pageblock(zone, ebb__pageblock_of(zone, index));

    EBB_DEBUG_ASSERT(pageblock->frames >= 1u << order && pageblock->blocks > 0);
    pageblock->frames -= 1u << order;
    pageblock->blocks--;
    pageblock->touched = zone->clock;
}

ALWAYS_INLINE void count_link(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type)
{
    if (EBB_LIKELY(order < zone->large_order))
        count_small_link(zone, index, order);
    else if (type != EBB_ISOLATE)
        zone->level.now += (uint64_t)1 << order;
}

/* The low-water mark follows when the operation is done: ebb__unlock_inner(). */
ALWAYS_INLINE void count_unlink(struct ebb_zone *zone, uint32_t index, unsigned order,
                                unsigned type)
{
    if (EBB_LIKELY(order < zone->large_order)) {
        count_small_unlink(zone, index, order);
    } else if (type != EBB_ISOLATE) {
        EBB_DEBUG_ASSERT(zone->level.now >= (uint64_t)1 << order);
        zone->level.now -= (uint64_t)1 << order;
    }
}

/* These two are inlined where it counts, in taking, splitting and merging, for blocks that
 * are on a list and not reported. */
ALWAYS_INLINE void link_block(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type,
                              bool reported, enum ebb__where where)
{
    struct ebb_free_list *list = &zone->lists[order][type];
    uint64_t frames = (uint64_t)1 << order;
    uint64_t reported_mask = -(uint64_t)reported;

    EBB_DEBUG_ASSERT(order <= zone->max_order && !(index & (frames - 1)));
    EBB_DEBUG_ASSERT(frames <= zone->span - index);
    EBB_DEBUG_ASSERT(ebb__load_state(zone, index) == EBB__NONE);
    if (EBB_LIKELY(where == EBB__HEAD)) {
        ring_insert(zone, list, order, index);
        list->head = index;
    } else {
        insert_cold(zone, index, order, type, reported, where);
    }
    list->blocks++;
    list->reported += reported;
    zone->nonempty[type] |= 1u << order;
    zone->warm[type] |= (uint32_t)!reported << order;
    zone->free += frames;
    zone->reported += frames & reported_mask;
    if (EBB_LIKELY(!reported))
        count_link(zone, index, order, type);
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

ALWAYS_INLINE bool unlink_block(struct ebb_zone *zone, uint32_t index, uint16_t state)
{
    unsigned order = ebb__order_of(state);
    unsigned type = ebb__type_of(state);
    struct ebb_free_list *list = &zone->lists[order][type];
    uint64_t frames = (uint64_t)1 << order;
    bool reported = state & EBB__REPORTED;

    EBB_DEBUG_ASSERT(list->blocks > 0 && list->reported >= reported && zone->free >= frames);
    if (reported)
        ebb__leave(zone, index, order, type);
    ring_remove(zone, list, order, index);
    list->blocks--;
    list->reported -= reported;
    if (list->blocks == 0)
        zone->nonempty[type] &= ~(1u << order);
    if (list->blocks == list->reported)
        zone->warm[type] &= ~(1u << order);
    if (EBB_LIKELY(!reported))
        count_unlink(zone, index, order, type);
    else if (order < zone->large_order)
        ebb__pageblock(zone, ebb__pageblock_of(zone, index))->reported -= 1u << order;
    zone->free -= frames;
    zone->reported -= frames & -(uint64_t)reported;
    if (EBB_UNLIKELY(type == EBB_ISOLATE))
        zone->isolated -= frames;
    ebb__store_state(zone, index, EBB__NONE);
    return reported;
}

void ebb__link(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type, bool reported,
               enum ebb__where where)
{
    link_block(zone, index, order, type, reported, where);
}

bool ebb__unlink(struct ebb_zone *zone, uint32_t index)
{
    uint16_t state = ebb__load_state(zone, index);

    EBB_ASSERT(ebb__state_of(state) == EBB__FREE);
    if (ebb__order_of(state) == 0 && ebb__is_lazy(zone, index)) {
        ebb__remove_lazy(zone, index, ebb__type_of(state));
        ebb__store_state(zone, index, EBB__NONE);
        return false;
    }
    return unlink_block(zone, index, state);
}

/* An unreported block, to the head. */
ALWAYS_INLINE void link_warm(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type)
{
    link_block(zone, index, order, type, false, EBB__HEAD);
}

/* ---- looking around ---- */

bool ebb__find_block(const struct ebb_zone *zone, uint32_t index, uint32_t *head, uint16_t *state)
{
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

    while (from > order) {
        uint32_t middle = head + (1u << --from);

        if (index >= middle) {
            link_part(zone, head, from, parts_reported);
            head = middle;
        } else {
            link_part(zone, middle, from, parts_reported);
        }
    }
    return reported;
}

/* ---- merge ---- */

/* A buddy that a block of this order can merge with. */
static inline bool can_merge(const struct ebb_zone *zone, uint32_t buddy, unsigned order,
                             bool isolated, uint16_t *state)
{
    if (buddy >= zone->span)
        return false;
    *state = ebb__load_state(zone, buddy);
    return (*state & (EBB__STATE_MASK | EBB__ORDER_MASK)) == ebb__state_word(EBB__FREE, order, 0) &&
           (ebb__type_of(*state) == EBB_ISOLATE) == isolated;
}

static unsigned merge_and_link(struct ebb_zone *zone, uint32_t index, unsigned order, bool reported,
                               enum ebb__where where)
{
    bool isolated = ebb__pageblock_type(zone, index) == EBB_ISOLATE;
    unsigned freed_order = order;
    uint16_t state;

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
    ebb__store_state(zone, index, EBB__NONE);
    order--;
    unsigned lower = ebb__free_block(zone, index, order, reported, where);
    unsigned upper = ebb__free_block(zone, index + (1u << order), order, reported, where);
    return lower > upper ? lower : upper;
}

unsigned ebb__free_block(struct ebb_zone *zone, uint32_t index, unsigned order, bool reported,
                         enum ebb__where where)
{
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

    if (order < shift || order >= zone->track_order || *types == EBB_ISOLATE ||
        state != ebb__state_word(EBB__FREE, order, *types))
        return from;
    uint32_t after = last->next;

    /* As long as the types are those of the block before: what held for it holds for the next. */
    for (; to - from >= size && !__builtin_memcmp(types, types + n_types, n_types) &&
           !zone->large_marks[from >> shift];
         from += size) {
        struct ebb_link *link = &zone->large_links[from >> shift];

        ebb__store_state(zone, (uint32_t)from, state);
        zone->present[from >> order] = (uint32_t)size;
        last->next = (uint32_t)from;
        link->prev = (uint32_t)(from - size);
        last = link;
        types += n_types;
    }
    last->next = after;
    zone->large_links[after >> shift].prev = (uint32_t)(from - size);
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

    if (EBB_UNLIKELY(order > zone->pageblock_order || zone->shuffle_order < EBB_ORDERS))
        return ebb__free_block(zone, index, order, false, EBB__HEAD);
    ebb__store_state(zone, index, EBB__NONE);
    for (; order < zone->max_order; order++) {
        uint32_t buddy = index ^ (1u << order);

        if (!can_merge(zone, buddy, order, isolated, &state))
            break;
        if (EBB_UNLIKELY((state & EBB__REPORTED) || order == 0)) /* may be loose */
            (void)ebb__unlink(zone, buddy);
        else
            unlink_block(zone, buddy, ebb__state_word(EBB__FREE, order, ebb__type_of(state)));
        index &= buddy;
    }
    link_warm(zone, index, order, ebb__pageblock_type(zone, index));
    if (order < zone->large_order)
        order = ebb__coalesce_if_whole(zone, index, order);
    return isolated ? 0 : order;
}

/* ---- taking a block from another type ---- */

/* Frames of the pageblock at first that a request of this type would not be at
 * odds with: free (also cached, or with the host), or allocated for a like purpose. */
static uint32_t compatible_frames(const struct ebb_zone *zone, uint32_t first, unsigned type)
{
    uint32_t frames = 1u << zone->pageblock_order;
    uint32_t compatible = 0;

    if (frames > zone->span - first)
        frames = (uint32_t)(zone->span - first);
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
static void convert_pageblock(struct ebb_zone *zone, uint32_t first, unsigned type)
{
    uint32_t frames = 1u << zone->pageblock_order;

    if (frames > zone->span - first)
        frames = (uint32_t)(zone->span - first);
    ebb__set_pageblock_type(zone, first, type);
    zone->conversions++;
    for (uint32_t at = 0; at < frames;) {
        uint16_t state = ebb__load_state(zone, first + at);

        if (ebb__state_of(state) == EBB__FREE) {
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
static void convert(struct ebb_zone *zone, uint32_t index, unsigned from, unsigned order,
                    unsigned type)
{
    unsigned pageblock_order = zone->pageblock_order;
    uint32_t pageblock = 1u << pageblock_order;

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
    unlink_block(zone, head, ebb__state_word(EBB__FREE, from, type));
    while (from > order) {
        uint32_t middle = head + (1u << --from);

        link_warm(zone, middle, from, ebb__pageblock_type(zone, middle));
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

    if (EBB_UNLIKELY(ebb__load_state(zone, head) & EBB__REPORTED))
        take_any(zone, head, order);
    else
        take_warm(zone, head, from, type, order);
    *index = head;
    return true;
}

bool ebb__take_block(struct ebb_zone *zone, unsigned order, unsigned type, uint32_t *index)
{
    for (unsigned n = 0; EBB_UNLIKELY(!take_block(zone, order, type, index)); n++) {
        if (n == EBB__COALESCE_MOST || order >= zone->large_order || !ebb__coalesce_any(zone))
            return false;
    }
    return true;
}

/* ---- for sources ---- */

bool ebb__isolate_block(struct ebb_zone *zone, uint32_t index)
{
    unsigned order = ebb__order_of(ebb__load_state(zone, index));
    uint64_t frames = (uint64_t)1 << order;

    if (!ebb__above_low(zone, order))
        return false;
    (void)ebb__unlink(zone, index);
    ebb__store_state(zone, index, ebb__state_word(EBB__IN_FLIGHT, order, 0));
    zone->in_flight += frames;
    if (order >= zone->large_order)
        zone->level.low -= frames < zone->level.low ? frames : zone->level.low;
    return true;
}

void ebb__put_back(struct ebb_zone *zone, uint32_t index, bool reported)
{
    uint16_t state = ebb__load_state(zone, index);
    unsigned order = ebb__order_of(state);

    EBB_ASSERT(ebb__state_of(state) == EBB__IN_FLIGHT);
    zone->in_flight -= (uint64_t)1 << order;
    /* Dividers are searched from the cold end: there, after all others is the head. */
    ebb__free_block(zone, index, order, reported,
                    !reported && ebb__has_dividers(zone) ? EBB__HEAD : EBB__COLD);
}
