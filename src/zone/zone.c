/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Zones: allocating and freeing, statistics; setup.c makes them. What callers pass is checked here;
 * what they got wrong is told to the port.
 */
#include "pcp.h"

/* ---- allocating ---- */

static bool flags_valid(const struct ebb_zone *zone, unsigned flags)
{
    const unsigned known =
        EBB_ALLOC_ZERO | EBB_ALLOC_NO_CACHE | EBB_ALLOC_RESERVE | EBB_ALLOC_LOW | EBB_ALLOC_COLD;
    const unsigned contrary = EBB_ALLOC_RESERVE | EBB_ALLOC_LOW;
    const unsigned useless = EBB_ALLOC_ZERO | EBB_ALLOC_COLD;

    return !(flags & ~known) && (zone->clear || !(flags & EBB_ALLOC_ZERO)) &&
           (flags & contrary) != contrary && (flags & useless) != useless;
}

/* Frames that an allocation must leave free. */
static uint64_t to_leave(const struct ebb_zone *zone, unsigned flags)
{
    if (flags & EBB_ALLOC_RESERVE)
        return 0;
    return flags & EBB_ALLOC_LOW ? zone->watermark_low : zone->watermark_min;
}

static bool watermark_ok(const struct ebb_zone *zone, unsigned order, unsigned flags)
{
    return ebb__available(zone) >= to_leave(zone, flags) + ((uint64_t)1 << order);
}

/* Would there be a block if the host answered now? Generous: what is with the
 * host may merge with what is free, so its orders say little. */
EBB_RARE static bool worth_waiting(const struct ebb_zone *zone, unsigned order, unsigned flags)
{
    uint64_t available = ebb__available(zone) + zone->in_flight;

    return zone->in_flight > 0 && available >= to_leave(zone, flags) + ((uint64_t)1 << order);
}

/* One attempt for nobody's use. Under the zone's lock. */
EBB_RARE static bool take_cold(struct ebb_zone *zone, unsigned order, unsigned type,
                               uint32_t *index)
{
    const uint64_t before = zone->level.now;
    const uint64_t refaulted = zone->refaulted;
    const bool taken = ebb__take_cold(zone, order, type, index);

    zone->refaulted = refaulted;
    ebb__withdraw_level(zone, before);
    return taken;
}

/* One attempt at the free lists. EBB_ALLOC_ZERO is taken out of *flags if that is done. */
ALWAYS_INLINE int take_from_lists(struct ebb_zone *zone, unsigned order, unsigned type,
                                  unsigned *flags, bool last, uint32_t *index)
{
    int err = 0;

    ebb__lock(zone);
    if (watermark_ok(zone, order, *flags) &&
        (EBB_UNLIKELY(*flags & EBB_ALLOC_COLD) ? take_cold(zone, order, type, index)
                                               : ebb__take_block(zone, order, type, index))) {
        if ((*flags & EBB_ALLOC_ZERO) && ebb__load_state(zone, *index) == EBB__REPORTED)
            *flags &= ~(unsigned)EBB_ALLOC_ZERO;
        ebb__store_state(zone, *index, ebb__state_word(EBB__ALLOCATED, order, type));
        zone->allocs++;
        EBB_DEBUG_ASSERT(ebb__available(zone) >= to_leave(zone, *flags));
    } else {
        err = worth_waiting(zone, order, *flags) ? -EBB_EAGAIN : -EBB_ENOMEM;
        zone->failures += last;
    }
    ebb__unlock(zone);
    return err;
}

/* The lists had no such block: would merging what is lazy make one? Not if it is the watermark that
 * refuses. */
EBB_RARE static bool could_coalesce(struct ebb_zone *zone, unsigned order, unsigned flags)
{
    bool could;

    ebb__lock(zone);
    could = watermark_ok(zone, order, flags) && ebb__lazy(zone) > 0;
    ebb__unlock(zone);
    return could;
}

/* From the lists, with the frames in caches as the last resort. */
__attribute__((noinline)) static int alloc_uncached(struct ebb_zone *zone, unsigned order,
                                                    unsigned type, unsigned *flags, uint64_t *index)
{
    bool last = false;
    uint32_t taken;
    int err;

    for (;;) {
        err = take_from_lists(zone, order, type, flags, last && !(*flags & EBB_ALLOC_LOW), &taken);
        if (EBB_LIKELY(!err) || last)
            break;
        if (!(*flags & EBB_ALLOC_LOW))
            ebb_zone_drain(zone);
        else if (could_coalesce(zone, order, *flags))
            ebb__coalesce_all(zone);
        else
            break;
        last = true;
    }
    if (EBB_LIKELY(!err))
        *index = taken;
    return err;
}

/* What an allocated block is to hold. With no lock held. */
static void prepare(struct ebb_zone *zone, uint64_t index, unsigned order, unsigned flags)
{
    EBB_DEBUG_ASSERT(ebb__load_state(zone, (uint32_t)index) != EBB__NONE);
    if (flags & EBB__ALLOC_VERIFY)
        ebb__verify_fill(zone, (uint32_t)index, order);
    if ((flags & EBB_ALLOC_ZERO) && zone->fill_policy != EBB_FILL_ZERO)
        zone->clear(zone->clear_ctx, zone->base + index, (uint64_t)1 << order);
}

__attribute__((noinline)) static int alloc_slow(struct ebb_zone *zone, unsigned order,
                                                enum ebb_migratetype type, unsigned flags,
                                                ebb_pfn_t *pfn)
{
    uint64_t index = EBB__NO_FRAME;
    int err = 0;

    if (EBB_UNLIKELY(order > zone->max_order || (unsigned)type >= EBB_ISOLATE ||
                     !flags_valid(zone, flags)))
        return -EBB_EINVAL;

    if (!(flags & (EBB_ALLOC_NO_CACHE | EBB_ALLOC_COLD))) {
        if (order == 0)
            index = ebb__pcp_alloc(zone, (unsigned)type, &flags);
        else if (order == zone->pageblock_order)
            index = ebb__pcp_alloc_block(zone, (unsigned)type);
    }
    if (index == EBB__NO_FRAME)
        err = alloc_uncached(zone, order, (unsigned)type, &flags, &index);
    if (EBB_UNLIKELY(err))
        return err;
    *pfn = zone->base + index;
    flags |= zone->alloc_flags;
    if (EBB_UNLIKELY(flags & (EBB_ALLOC_ZERO | EBB__ALLOC_VERIFY)))
        prepare(zone, index, order, flags);
    return 0;
}

/* A block from the lists, if that is all there is to it; else ask alloc_slow(). */
__attribute__((noinline)) static int alloc_block(struct ebb_zone *zone, unsigned order,
                                                 enum ebb_migratetype type, ebb_pfn_t *pfn)
{
    unsigned flags = 0;
    uint32_t index;

    if (order == zone->pageblock_order) {
        uint64_t cached = ebb__pcp_alloc_block(zone, (unsigned)type);

        if (EBB_LIKELY(cached != EBB__NO_FRAME)) {
            *pfn = zone->base + cached;
            return 0;
        }
    }
    if (EBB_UNLIKELY(order > zone->max_order ||
                     take_from_lists(zone, order, (unsigned)type, &flags, false, &index)))
        return alloc_slow(zone, order, type, 0, pfn);
    *pfn = zone->base + index;
    return 0;
}

int ebb_alloc(struct ebb_zone *zone, unsigned order, enum ebb_migratetype type, unsigned flags,
              ebb_pfn_t *pfn)
{
    uint32_t index;

    if (EBB_UNLIKELY((flags | zone->alloc_flags) != 0 || (unsigned)type >= EBB_ISOLATE))
        return alloc_slow(zone, order, type, flags, pfn);
    if (order > 0)
        return alloc_block(zone, order, type, pfn);
    if (EBB_UNLIKELY(!ebb__pcp_pop(zone, (unsigned)type, &index)))
        return alloc_slow(zone, order, type, flags, pfn);
    *pfn = zone->base + index;
    return 0;
}

/* Why the block at index cannot be had. */
EBB_RARE static int why_not(const struct ebb_zone *zone, uint32_t index, unsigned order)
{
    uint32_t end = index + ((1u << order) - 1); /* the last frame: no overflow */
    int why = -EBB_EBUSY;

    for (uint32_t at = index;;) {
        uint32_t head;
        uint16_t state;

        if (!ebb__find_block(zone, at, &head, &state))
            return -EBB_EBUSY;
        if (ebb__state_of(state) == EBB__IN_FLIGHT)
            why = -EBB_EAGAIN;
        else if (ebb__state_of(state) != EBB__FREE || ebb__type_of(state) == EBB_ISOLATE)
            return -EBB_EBUSY;
        uint32_t last = head + ((1u << ebb__order_of(state)) - 1);

        if (last >= end)
            return why;
        at = last + 1;
    }
}

/* As take_from_lists(), of one block. */
EBB_RARE static int take_exactly(struct ebb_zone *zone, uint32_t index, unsigned order,
                                 unsigned *flags)
{
    uint32_t head;
    uint16_t state;

    if (order > 0)
        ebb__coalesce_at(zone, index);
    if (!ebb__find_block(zone, index, &head, &state) || ebb__state_of(state) != EBB__FREE ||
        ebb__order_of(state) < order || ebb__type_of(state) == EBB_ISOLATE)
        return why_not(zone, index, order);
    if (!watermark_ok(zone, order, *flags))
        return worth_waiting(zone, order, *flags) ? -EBB_EAGAIN : -EBB_ENOMEM;
    EBB_DEBUG_ASSERT(head <= index &&
                     ebb__block_end(head, state) >= (uint64_t)index + (1u << order));
    if (ebb__take_at(zone, head, index, order)) {
        ebb__count_refault(zone, (uint64_t)1 << order);
        if (zone->marks_zero)
            *flags &= ~(unsigned)EBB_ALLOC_ZERO;
    }
    ebb__store_state(zone, index,
                     ebb__state_word(EBB__ALLOCATED, order, ebb__pageblock_type(zone, index)));
    zone->allocs++;
    return 0;
}

EBB_RARE int ebb_alloc_at(struct ebb_zone *zone, ebb_pfn_t pfn, unsigned order, unsigned flags)
{
    uint64_t index = pfn - zone->base;
    uint64_t frames = (uint64_t)1 << (order & 63);

    if (order > zone->max_order || !flags_valid(zone, flags) || pfn < zone->base ||
        (index & (frames - 1)) || index >= zone->span || frames > zone->span - index)
        return -EBB_EINVAL;

    ebb__lock(zone);
    int err = take_exactly(zone, (uint32_t)index, order, &flags);
    ebb__unlock(zone);
    if (err && !(flags & EBB_ALLOC_LOW)) {
        /* Part of it, or what the watermark lacks, may rest in a cache. */
        ebb_zone_drain(zone);
        ebb__lock(zone);
        err = take_exactly(zone, (uint32_t)index, order, &flags);
        zone->failures += err == -EBB_ENOMEM;
        ebb__unlock(zone);
    }
    if (!err)
        prepare(zone, index, order, flags | zone->alloc_flags);
    return err;
}

/* ---- freeing ---- */

static void set_misuse(struct ebb_misuse *misuse, enum ebb_misuse_kind kind, const char *what)
{
    misuse->kind = kind;
    misuse->what = what;
}

/* Find out what was wrong with a free that was refused. */
EBB_RARE static void classify(const struct ebb_zone *zone, struct ebb_misuse *misuse)
{
    uint64_t index = misuse->pfn - zone->base;
    uint32_t head;
    uint16_t state;

    if (misuse->pfn < zone->base || index >= zone->span) {
        set_misuse(misuse, EBB_MISUSE_FOREIGN_PFN, "the pfn is outside the zone");
        return;
    }
    if (!ebb__find_block(zone, (uint32_t)index, &head, &state)) {
        set_misuse(misuse, EBB_MISUSE_FOREIGN_PFN, "the pfn is in a hole of the zone");
        return;
    }
    misuse->found_pfn = zone->base + head;
    misuse->found = ebb__order_of(state);
    if (misuse->order > zone->max_order)
        set_misuse(misuse, EBB_MISUSE_WRONG_ORDER, "the order is above the zone's largest");
    else if (index & (((uint64_t)1 << misuse->order) - 1))
        set_misuse(misuse, EBB_MISUSE_MISALIGNED, "the pfn is not a multiple of the block's size");
    else if (ebb__state_of(state) == EBB__FREE)
        set_misuse(misuse, EBB_MISUSE_DOUBLE_FREE, "the block is free already");
    else if (ebb__state_of(state) == EBB__IN_FLIGHT)
        set_misuse(misuse, EBB_MISUSE_DOUBLE_FREE, "the block is free, and with the host");
    else if (ebb__state_of(state) == EBB__CACHED)
        set_misuse(misuse, EBB_MISUSE_DOUBLE_FREE, "the block is free, in a per-CPU cache");
    else if (ebb__state_of(state) == EBB__FILLING)
        set_misuse(misuse, EBB_MISUSE_DOUBLE_FREE, "the block is being freed");
    else if (head != index)
        set_misuse(misuse, EBB_MISUSE_INSIDE_BLOCK, "the pfn is inside an allocated block");
    else if (misuse->found != misuse->order)
        set_misuse(misuse, EBB_MISUSE_WRONG_ORDER, "the block was allocated with another order");
    else /* allocated again since it was refused */
        set_misuse(misuse, EBB_MISUSE_DOUBLE_FREE, "the block was free a moment ago");
}

EBB_RARE __attribute__((noinline)) static int refuse(struct ebb_zone *zone, ebb_pfn_t pfn,
                                                     unsigned order)
{
    struct ebb_misuse misuse = {.pfn = pfn, .order = order};

    __atomic_fetch_add(&zone->misuses, 1, __ATOMIC_RELAXED);
    ebb__lock(zone);
    classify(zone, &misuse);
    ebb__unlock(zone);
    ebb_port_misuse(&misuse);
    return -EBB_EINVAL;
}

/* `filled`: the caller has claimed it, and nobody else can free it. */
ALWAYS_INLINE int free_to_lists(struct ebb_zone *zone, uint32_t index, unsigned order, bool filled)
{
    int err = 0;

    /* On their way while the lock is taken. */
    __builtin_prefetch(&zone->state[index], 1);
    __builtin_prefetch(ebb__link_of(zone, order, index), 1);
    ebb__lock(zone);
    if (EBB_LIKELY(filled || ebb__release(zone, index, order, EBB__NONE))) {
        zone->frees++;
        EBB_DEBUG_ASSERT(!filled ||
                         ebb__load_state(zone, index) == ebb__state_word(EBB__FILLING, order, 0));
        ebb__screen(zone, ebb__free_warm(zone, index, order));
    } else {
        err = -EBB_EINVAL;
    }
    ebb__unlock(zone);
    return err;
}

/* To the cache, or the free lists. Twice in the program, so that a zone that does
 * not fill pays nothing for those that do. */
ALWAYS_INLINE int free_block(struct ebb_zone *zone, uint64_t index, unsigned order, bool filled)
{
    enum ebb__pcp_free cached = EBB__PCP_BYPASS;

    if (order == 0)
        cached = ebb__pcp_free(zone, (uint32_t)index, filled);
    else if (order == zone->pageblock_order)
        cached = ebb__pcp_free_block(zone, (uint32_t)index); /* never, where it fills */
    if (EBB_UNLIKELY(cached == EBB__PCP_REFUSED))
        return refuse(zone, zone->base + index, order);
    if (cached == EBB__PCP_BYPASS &&
        EBB_UNLIKELY(free_to_lists(zone, (uint32_t)index, order, filled)))
        return refuse(zone, zone->base + index, order);
    return 0;
}

/* Fill, then free. The block is claimed first, lest a double free overwrite what
 * somebody else holds by now. */
EBB_RARE __attribute__((noinline)) static int fill_and_free(struct ebb_zone *zone, ebb_pfn_t pfn,
                                                            unsigned order)
{
    uint64_t index = pfn - zone->base;
    uint16_t claimed = ebb__state_word(EBB__FILLING, order, 0);

    if (index >= zone->span || order > zone->max_order ||
        !ebb__release(zone, (uint32_t)index, order, claimed))
        return refuse(zone, pfn, order);
    ebb__fill(zone, (uint32_t)index, order);
    return free_block(zone, index, order, true);
}

/* A block, or a frame whose cache has to be looked at, or whose pageblock is isolated. */
__attribute__((noinline)) static int free_slow(struct ebb_zone *zone, uint32_t index,
                                               unsigned order)
{
    return free_block(zone, index, order, false);
}

int ebb_free(struct ebb_zone *zone, ebb_pfn_t pfn, unsigned order)
{
    uint64_t index = pfn - zone->base;
    enum ebb__pcp_free freed;

    /* A pfn below the base wraps round to an index far above the span. Above the
     * plain orders is what is to be filled, or no order of this zone. */
    if (EBB_UNLIKELY(index >= zone->span || order >= zone->plain_orders))
        return fill_and_free(zone, pfn, order);
    if (order > 0)
        return free_slow(zone, (uint32_t)index, order);
    freed = ebb__pcp_push(zone, (uint32_t)index);
    if (EBB_LIKELY(freed == EBB__PCP_FREED))
        return 0;
    if (freed == EBB__PCP_REFUSED)
        return refuse(zone, pfn, order);
    return free_slow(zone, (uint32_t)index, 0);
}

int ebb_free_many(struct ebb_zone *zone, const ebb_pfn_t *pfns, uint64_t n)
{
    int err = 0;

    for (uint64_t at = 0, many; at < n; at += many) {
        uint64_t left = 0;

        many = n - at < EBB__PCP_MANY ? n - at : EBB__PCP_MANY;
        /* What is to be filled, or is not for the cache, or is refused, goes one by one. */
        if (zone->plain_orders > 0)
            left = ebb__pcp_free_many(zone, pfns + at, (unsigned)many, n - at);
        else
            left = UINT64_MAX >> (64 - many);
        for (; left; left &= left - 1) {
            if (ebb_free(zone, pfns[at + (unsigned)__builtin_ctzll(left)], 0))
                err = -EBB_EINVAL;
        }
    }
    return err;
}

/* ---- looking ---- */

EBB_RARE void ebb_zone_stats(struct ebb_zone *zone, struct ebb_zone_stats *stats)
{
    ebb__lock_all(zone);
    *stats = (struct ebb_zone_stats){
        .managed = zone->managed,
        .free = zone->free,
        .isolated = zone->isolated,
        .in_flight = zone->in_flight,
        .reported = zone->reported,
        .refaulted = zone->refaulted,
        .allocs = zone->allocs,
        .frees = zone->frees,
        .failures = zone->failures,
        .steals = zone->steals,
        .conversions = zone->conversions,
        .misuses = __atomic_load_n(&zone->misuses, __ATOMIC_RELAXED),
    };
    for (unsigned cpu = 0; cpu < zone->cpus; cpu++) {
        stats->cached += ebb__pcp_held(zone, &zone->pcps[cpu]);
        stats->allocs += zone->pcps[cpu].allocs;
        stats->frees += zone->pcps[cpu].frees;
    }
    EBB_DEBUG_ASSERT(stats->free + stats->cached + stats->in_flight <= stats->managed);
    stats->allocated = stats->managed - stats->free - stats->cached - stats->in_flight;
    for (unsigned order = 0; order < EBB_ORDERS; order++) {
        for (unsigned type = 0; type < EBB_MIGRATETYPES; type++) {
            stats->lists[order][type].blocks = zone->lists[order][type].blocks;
            stats->lists[order][type].reported = zone->lists[order][type].reported;
        }
    }
    for (unsigned type = 0; type < EBB_ISOLATE; type++)
        stats->lists[0][type].blocks += zone->lazy[type];
    ebb__unlock_all(zone);
}

EBB_RARE void ebb_zone_lookup(struct ebb_zone *zone, ebb_pfn_t pfn, struct ebb_block *block)
{
    static const uint8_t states[] = {
        [EBB__FREE] = EBB_BLOCK_FREE,           [EBB__CACHED] = EBB_BLOCK_CACHED,
        [EBB__ALLOCATED] = EBB_BLOCK_ALLOCATED, [EBB__IN_FLIGHT] = EBB_BLOCK_IN_FLIGHT,
        [EBB__FILLING] = EBB_BLOCK_ALLOCATED,
    };
    uint64_t index = pfn - zone->base;
    uint32_t head;
    uint16_t state;

    *block = (struct ebb_block){.pfn = pfn, .state = EBB_BLOCK_NONE};
    if (index >= zone->span)
        return;
    ebb__lock(zone);
    if (ebb__find_block(zone, (uint32_t)index, &head, &state)) {
        EBB_DEBUG_ASSERT(ebb__state_of(state) <= EBB__FILLING && head <= index);
        bool is_free = ebb__state_of(state) == EBB__FREE;
        unsigned type = is_free ? ebb__type_of(state) : ebb__pageblock_type(zone, head);

        *block = (struct ebb_block){
            .pfn = zone->base + head,
            .order = (uint8_t)ebb__order_of(state),
            .state = states[ebb__state_of(state)],
            .type = (uint8_t)type,
            .reported = is_free && (state & EBB__REPORTED),
        };
    }
    ebb__unlock(zone);
}
