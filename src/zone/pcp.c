/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Per-CPU caches: order 0, and the pageblock's, without the zone's lock. A cache is refilled from
 * the free lists when it is empty and gives a batch back, coldest first, when it is full. Its
 * counters are its own, so that the cached path writes no line that another CPU writes.
 */
#include "pcp.h"

/* The cache has been idle, or new, and comes into use: what it holds keeps blocks from merging, so
 * a pass has to empty it once it is idle again. With the cache's lock held. */
EBB_RARE __attribute__((noinline)) static void first_use(struct ebb_zone *zone)
{
    ebb__lock(zone);
    if (zone->report_caches)
        ebb__wish(zone);
    ebb__unlock_inner(zone);
}

/* ---- between cache and free lists ---- */

/* How large a block to refill from: the smallest that the lists have, as long as
 * it is not more than what is wanted. */
static unsigned refill_order(const struct ebb_zone *zone, unsigned type, uint64_t wanted)
{
    unsigned fits = 63u - (unsigned)__builtin_clzll(wanted);
    uint32_t orders = ebb__orders(zone, type, 0);

    EBB_DEBUG_ASSERT(wanted > 0 && type < EBB__PCP_TYPES);
    if (!orders)
        return 0;
    unsigned smallest = (unsigned)__builtin_ctz(orders);
    return smallest < fits ? smallest : fits;
}

/* Lazy frames, of one pageblock, or a block. Returns how many frames; 0: there are none. */
static uint32_t refill_some(struct ebb_zone *zone, unsigned type, uint32_t *frames, uint64_t wanted)
{
    uint16_t state = EBB__CACHED_FRAME;
    uint32_t n;
    uint32_t index;

    if (zone->lazy[type] > 0) {
        n = ebb__take_lazy(zone, type, frames, (uint32_t)wanted);
    } else {
        unsigned order = refill_order(zone, type, wanted);

        if (!ebb__take_block(zone, order, type, &index))
            return 0;
        state |= ebb__load_state(zone, index) & EBB__REPORTED;
        n = 1u << order;
        for (uint32_t i = 0; i < n; i++)
            frames[i] = index + n - 1 - i;
    }
    EBB_DEBUG_ASSERT(n > 0 && n <= wanted);
    for (uint32_t i = 0; i < n; i++)
        ebb__store_state(zone, frames[i], state);
    return n;
}

/* Has the type something of its own left, warm if surplus pacing keeps those apart? */
static bool has_own(const struct ebb_zone *zone, unsigned type)
{
    return (zone->prefers_warm ? zone->warm[type] : zone->nonempty[type]) || zone->lazy[type];
}

/* Fill an empty stack with up to a batch. Frames of one block come off it in
 * ascending order. With the cache's lock held. */
__attribute__((noinline)) static void refill(struct ebb_zone *zone, struct ebb_pcp *pcp,
                                             unsigned type, unsigned flags)
{
    const uint64_t leave = flags & EBB_ALLOC_LOW ? zone->watermark_low : zone->watermark_min;
    uint32_t count = 0;

    ebb__lock(zone);
    EBB_DEBUG_ASSERT(pcp->count[type] == 0);
    while (count < zone->pcp_batch && ebb__available(zone) > leave) {
        uint64_t wanted = ebb__available(zone) - leave;
        uint32_t n;

        /* Other types, and what is reported, are asked for one block at most. */
        if (count > 0 && !has_own(zone, type))
            break;
        if (wanted > zone->pcp_batch - count)
            wanted = zone->pcp_batch - count;
        n = refill_some(zone, type, pcp->frames[type] + count, wanted);
        if (n == 0)
            break;
        count += n;
        EBB_DEBUG_ASSERT(count <= zone->pcp_batch && ebb__available(zone) >= leave);
    }
    ebb__unlock_inner(zone);
    pcp->count[type] = count;
}

/* Give the n coldest frames of a stack back. With the cache's lock held. */
__attribute__((noinline)) static void drain_stack(struct ebb_zone *zone, struct ebb_pcp *pcp,
                                                  unsigned type, uint32_t n, bool quiet)
{
    uint32_t *frames = pcp->frames[type];
    uint32_t orders;

    EBB_DEBUG_ASSERT(n <= pcp->count[type]);
    ebb__lock(zone);
    orders = ebb__free_frames(zone, frames, n);
    for (; !quiet && orders; orders &= orders - 1)
        ebb__screen(zone, (unsigned)__builtin_ctz(orders));
    ebb__unlock_inner(zone);
    pcp->count[type] -= n;
    __builtin_memmove(frames, frames + n, pcp->count[type] * sizeof(frames[0]));
}

/* ---- the cached path ---- */

uint64_t ebb__pcp_alloc(struct ebb_zone *zone, unsigned type, unsigned *flags)
{
    struct ebb_pcp *pcp = ebb__this_pcp(zone);
    uint64_t index = EBB__NO_FRAME;

    ebb_port_lock(&pcp->lock);
    if (EBB_UNLIKELY(!pcp->used)) {
        pcp->used = 1;
        first_use(zone);
    }
    if (EBB_UNLIKELY(pcp->count[type] == 0))
        refill(zone, pcp, type, *flags);
    if (EBB_LIKELY(pcp->count[type] > 0)) {
        uint32_t top = pcp->frames[type][--pcp->count[type]];

        EBB_DEBUG_ASSERT(ebb__state_of(ebb__load_state(zone, top)) == EBB__CACHED);
        if (ebb__load_state(zone, top) & EBB__REPORTED)
            *flags &= ~(unsigned)EBB_ALLOC_ZERO;
        ebb__store_state(zone, top, ebb__state_word(EBB__ALLOCATED, 0, type));
        pcp->allocs++;
        index = top;
    }
    ebb_port_unlock(&pcp->lock);
    ebb__pass_on_wish(zone);
    return index;
}

static enum ebb__pcp_free push(struct ebb_zone *zone, struct ebb_pcp *pcp, uint32_t index,
                               bool filled)
{
    /* Read under this lock: ebb_isolate_range() changes the type first and
     * empties the cache then. */
    unsigned type = ebb__pageblock_type(zone, index);

    if (EBB_UNLIKELY(type == EBB_ISOLATE))
        return EBB__PCP_BYPASS;
    if (filled)
        ebb__store_state(zone, index, EBB__CACHED_FRAME);
    else if (EBB_UNLIKELY(!ebb__release(zone, index, 0, EBB__CACHED_FRAME)))
        return EBB__PCP_REFUSED;
    if (EBB_UNLIKELY(!pcp->used)) {
        pcp->used = 1;
        first_use(zone);
    }
    if (EBB_UNLIKELY(pcp->count[type] >= zone->pcp_high))
        drain_stack(zone, pcp, type, zone->pcp_batch, false);
    EBB_DEBUG_ASSERT(pcp->count[type] < EBB_PCP_LIMIT);
    pcp->frames[type][pcp->count[type]++] = index;
    pcp->frees++;
    return EBB__PCP_FREED;
}

enum ebb__pcp_free ebb__pcp_free(struct ebb_zone *zone, uint32_t index, bool filled)
{
    struct ebb_pcp *pcp = ebb__this_pcp(zone);
    enum ebb__pcp_free result;

    ebb_port_lock(&pcp->lock);
    result = push(zone, pcp, index, filled);
    ebb_port_unlock(&pcp->lock);
    ebb__pass_on_wish(zone);
    return result;
}

/* Frames whose states are on their way while others are freed. */
#define LOOK_AHEAD 8u

static void fetch_state(const struct ebb_zone *zone, ebb_pfn_t pfn)
{
    if (EBB_LIKELY(pfn - zone->base < zone->span))
        __builtin_prefetch(&zone->state[pfn - zone->base], 1);
}

uint64_t ebb__pcp_free_many(struct ebb_zone *zone, const ebb_pfn_t *pfns, unsigned n,
                            uint64_t ahead)
{
    struct ebb_pcp *pcp = ebb__this_pcp(zone);
    uint64_t left = 0;

    EBB_DEBUG_ASSERT(n <= EBB__PCP_MANY && n <= ahead);
    ebb_port_lock(&pcp->lock);
    for (unsigned i = 0; i < n; i++) {
        const uint64_t index = pfns[i] - zone->base;

        if (i + LOOK_AHEAD < ahead)
            fetch_state(zone, pfns[i + LOOK_AHEAD]);
        if (EBB_UNLIKELY(index >= zone->span ||
                         push(zone, pcp, (uint32_t)index, false) != EBB__PCP_FREED))
            left |= (uint64_t)1 << i;
    }
    ebb_port_unlock(&pcp->lock);
    ebb__pass_on_wish(zone);
    return left;
}

/* ---- pageblocks ---- */

static void set_n_blocks(struct ebb_pcp *pcp, unsigned n)
{
    __atomic_store_n(&pcp->n_blocks, (uint16_t)n, __ATOMIC_RELAXED);
}

/* Read without the lock first, which is taken only if there may be something to do. */
static unsigned n_blocks(const struct ebb_pcp *pcp)
{
    return __atomic_load_n(&pcp->n_blocks, __ATOMIC_RELAXED);
}

static unsigned most_blocks(const struct ebb_zone *zone)
{
    return __atomic_load_n(&zone->pcp_most, __ATOMIC_RELAXED);
}

EBB_RARE void ebb__limit_blocks(struct ebb_zone *zone)
{
    /* The screener counts what is on the lists, so nobody would ask for a pass. */
    const bool unseen = zone->report_min_order <= zone->max_order && !zone->report_caches;
    uint64_t most = zone->pcp_blocks;

    if (most == EBB_PCP_NONE || unseen || zone->fill_policy != EBB_FILL_NONE ||
        zone->shuffle_order <= zone->pageblock_order)
        most = 0;
    else if (most == 0)
        most = (zone->managed >> zone->pageblock_order >> 6) / zone->cpus;
    __atomic_store_n(&zone->pcp_most, (uint8_t)(most < EBB_PCP_BLOCKS ? most : EBB_PCP_BLOCKS),
                     __ATOMIC_RELAXED);
}

uint64_t ebb__pcp_alloc_block(struct ebb_zone *zone, unsigned type)
{
    struct ebb_pcp *pcp = ebb__this_pcp(zone);
    uint64_t index = EBB__NO_FRAME;

    if (type != EBB_MOVABLE || n_blocks(pcp) == 0)
        return EBB__NO_FRAME;
    ebb_port_lock(&pcp->lock);
    if (EBB_LIKELY(pcp->n_blocks > 0)) {
        set_n_blocks(pcp, pcp->n_blocks - 1u);
        index = pcp->blocks[pcp->n_blocks];
        EBB_DEBUG_ASSERT(ebb__load_state(zone, (uint32_t)index) ==
                         ebb__state_word(EBB__CACHED, zone->pageblock_order, 0));
        ebb__store_state(zone, (uint32_t)index,
                         ebb__state_word(EBB__ALLOCATED, zone->pageblock_order, type));
        pcp->blocks_used = 1;
        pcp->allocs++;
    }
    ebb_port_unlock(&pcp->lock);
    return index;
}

enum ebb__pcp_free ebb__pcp_free_block(struct ebb_zone *zone, uint32_t index)
{
    struct ebb_pcp *pcp = ebb__this_pcp(zone);
    enum ebb__pcp_free result = EBB__PCP_BYPASS;
    const unsigned order = zone->pageblock_order;

    if (n_blocks(pcp) >= most_blocks(zone))
        return EBB__PCP_BYPASS;
    ebb_port_lock(&pcp->lock);
    /* Limit and type under this lock, as in push(): who changes them drains after that. */
    if (pcp->n_blocks < most_blocks(zone) && ebb__pageblock_type(zone, index) == EBB_MOVABLE) {
        result = EBB__PCP_REFUSED;
        if (EBB_LIKELY(ebb__release(zone, index, order, ebb__state_word(EBB__CACHED, order, 0)))) {
            EBB_DEBUG_ASSERT(pcp->n_blocks < EBB_PCP_BLOCKS);
            pcp->blocks[pcp->n_blocks] = index;
            set_n_blocks(pcp, pcp->n_blocks + 1u);
            pcp->frees++;
            if (EBB_UNLIKELY(!pcp->blocks_used)) {
                pcp->blocks_used = 1;
                first_use(zone);
            }
            result = EBB__PCP_FREED;
        }
    }
    ebb_port_unlock(&pcp->lock);
    ebb__pass_on_wish(zone);
    return result;
}

EBB_RARE static void drain_blocks(struct ebb_zone *zone, struct ebb_pcp *pcp, bool quiet)
{
    ebb__lock(zone);
    for (unsigned i = 0; i < pcp->n_blocks; i++) {
        EBB_DEBUG_ASSERT(ebb__state_of(ebb__load_state(zone, pcp->blocks[i])) == EBB__CACHED);
        unsigned order = ebb__free_warm(zone, pcp->blocks[i], zone->pageblock_order);

        if (!quiet)
            ebb__screen(zone, order);
    }
    ebb__unlock_inner(zone);
    set_n_blocks(pcp, 0);
}

/* ---- all caches ---- */

/* With the cache's lock held. */
EBB_RARE static void drain_frames(struct ebb_zone *zone, struct ebb_pcp *pcp, bool quiet)
{
    for (unsigned type = 0; type < EBB__PCP_TYPES; type++) {
        if (pcp->count[type] > 0)
            drain_stack(zone, pcp, type, pcp->count[type], quiet);
    }
}

EBB_RARE uint64_t ebb__drain_caches(struct ebb_zone *zone, bool idle_only, bool quiet)
{
    uint64_t left = 0;

    for (unsigned cpu = 0; cpu < zone->cpus; cpu++) {
        struct ebb_pcp *pcp = &zone->pcps[cpu];

        ebb_port_lock(&pcp->lock);
        if (!idle_only || !pcp->used)
            drain_frames(zone, pcp, quiet);
        if (pcp->n_blocks > 0 && (!idle_only || !pcp->blocks_used))
            drain_blocks(zone, pcp, quiet);
        left += ebb__pcp_held(zone, pcp);
        EBB_DEBUG_ASSERT(idle_only || left == 0);
        pcp->used = 0;
        pcp->blocks_used = 0;
        ebb_port_unlock(&pcp->lock);
    }
    ebb__pass_on_wish(zone);
    return left;
}

EBB_RARE void ebb_zone_drain(struct ebb_zone *zone)
{
    (void)ebb__drain_caches(zone, false, false);
    ebb__coalesce_all(zone);
}

EBB_RARE uint64_t ebb_zone_drain_idle(struct ebb_zone *zone)
{
    return ebb__drain_caches(zone, true, false);
}

EBB_RARE void ebb__lock_all(struct ebb_zone *zone)
{
    for (unsigned cpu = 0; cpu < zone->cpus; cpu++)
        ebb_port_lock(&zone->pcps[cpu].lock);
    ebb__lock(zone);
}

EBB_RARE void ebb__unlock_all(struct ebb_zone *zone)
{
    ebb_port_unlock(&zone->lock);
    for (unsigned cpu = zone->cpus; cpu-- > 0;)
        ebb_port_unlock(&zone->pcps[cpu].lock);
}
