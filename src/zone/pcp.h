/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Per-CPU caches: of single frames one stack of indices per migratetype, and one of a few movable
 * pageblocks, under a lock of its own that is taken before the zone's. All zero is an empty cache.
 */
#ifndef EBB_ZONE_PCP_H
#define EBB_ZONE_PCP_H

#include "zone_private.h"

/* ISOLATE has no stack: what is freed there goes to the free lists at once. */
#define EBB__PCP_TYPES 3u

struct ebb_pcp {
    /* All that the cached path needs besides the top of a stack: one line. */
    _Alignas(64) struct ebb_lock lock;
    uint64_t allocs; /* blocks; stats adds these to the zone's own */
    uint64_t frees;
    uint32_t count[EBB__PCP_TYPES]; /* frames on each stack */
    uint32_t used;                  /* the stacks of frames, since an idle drain looked last */
    uint16_t blocks_used;           /* that of pageblocks */
    uint16_t n_blocks;              /* on it; atomic, written under the lock */

    _Alignas(64) uint32_t frames[EBB__PCP_TYPES][EBB_PCP_LIMIT]; /* coldest first */
    uint32_t blocks[EBB_PCP_BLOCKS];
};

_Static_assert(offsetof(struct ebb_pcp, frames) == 64, "a cache's head is one line");
_Static_assert(sizeof(struct ebb_pcp) % 64 == 0, "caches share no line");

/* Frames. */
static inline uint64_t ebb__pcp_held(const struct ebb_zone *zone, const struct ebb_pcp *pcp)
{
    return (uint64_t)pcp->count[0] + pcp->count[1] + pcp->count[2] +
           ((uint64_t)pcp->n_blocks << zone->pageblock_order);
}

/* The state of a frame in a cache. */
#define EBB__CACHED_FRAME ((uint16_t)(EBB__CACHED << EBB__STATE_SHIFT))

ALWAYS_INLINE struct ebb_pcp *ebb__this_pcp(struct ebb_zone *zone)
{
    unsigned cpu = ebb_port_cpu();

    if (EBB_UNLIKELY(cpu >= zone->cpus))
        cpu %= zone->cpus;
    EBB_DEBUG_ASSERT(cpu < zone->cpus);
    return &zone->pcps[cpu];
}

/* For the cached path, which then has no call in it. */
ALWAYS_INLINE bool ebb__trylock(struct ebb_lock *lock)
{
#ifdef EBB_PORT_INLINE
    return ebb_port_trylock(lock);
#else
    ebb_port_lock(lock);
    return true;
#endif
}

/* A frame from this CPU's cache, allocated then. False: the cache has none, is locked, or
 * comes into use just now, and ebb__pcp_alloc() is to look. */
ALWAYS_INLINE bool ebb__pcp_pop(struct ebb_zone *zone, unsigned type, uint32_t *index)
{
    struct ebb_pcp *pcp = ebb__this_pcp(zone);

    if (EBB_UNLIKELY(!ebb__trylock(&pcp->lock)))
        return false;
    uint32_t count = pcp->count[type];

    if (EBB_UNLIKELY(count == 0 || !pcp->used)) {
        ebb_port_unlock(&pcp->lock);
        return false;
    }
    *index = pcp->frames[type][count - 1];
    EBB_DEBUG_ASSERT(type < EBB__PCP_TYPES && count <= zone->pcp_high && *index < zone->span);
    EBB_DEBUG_ASSERT((ebb__load_state(zone, *index) & ~(unsigned)EBB__REPORTED) ==
                     EBB__CACHED_FRAME);
    pcp->count[type] = count - 1;
    pcp->allocs++;
    ebb__store_state(zone, *index, ebb__state_word(EBB__ALLOCATED, 0, type));
    ebb_port_unlock(&pcp->lock);
    return true;
}

/* The index of a frame from this CPU's cache, refilled if need be; the frame is
 * then allocated. Or EBB__NO_FRAME: the lists have none to refill it with, as far as the
 * watermark (the low one with EBB_ALLOC_LOW) allows. EBB_ALLOC_ZERO is taken out of *flags if the
 * frame reads as zero. Passes wishes on, as all that follows. */
#define EBB__NO_FRAME UINT64_MAX
uint64_t ebb__pcp_alloc(struct ebb_zone *zone, unsigned type, unsigned *flags);

/* The index of a pageblock from this CPU's cache, allocated then; EBB__NO_FRAME: it has none of
 * this type. It is never refilled: what is on the lists has to be taken there anyhow. */
uint64_t ebb__pcp_alloc_block(struct ebb_zone *zone, unsigned type);

enum ebb__pcp_free {
    EBB__PCP_FREED,
    EBB__PCP_REFUSED, /* not allocated, or not with this order */
    EBB__PCP_BYPASS,  /* free it to the lists: it is isolated, or a pageblock that is not movable,
                         or one more than the cache may have */
    EBB__PCP_SLOW,    /* from ebb__pcp_push(): nothing happened, ebb__pcp_free() is to look */
};

/* A frame to this CPU's cache, if that is not locked, is in use, and has room. */
ALWAYS_INLINE enum ebb__pcp_free ebb__pcp_push(struct ebb_zone *zone, uint32_t index)
{
    struct ebb_pcp *pcp = ebb__this_pcp(zone);
    enum ebb__pcp_free result = EBB__PCP_SLOW;

    /* On its way while the lock is taken. */
    __builtin_prefetch(&zone->state[index], 1);
    if (EBB_UNLIKELY(!ebb__trylock(&pcp->lock)))
        return EBB__PCP_SLOW;
    /* Read under this lock: ebb_isolate_range() changes the type first and
     * empties the cache then. */
    unsigned type = ebb__pageblock_type(zone, index);

    if (EBB_LIKELY(type != EBB_ISOLATE)) {
        uint32_t count = pcp->count[type];

        EBB_DEBUG_ASSERT(type < EBB__PCP_TYPES && count <= EBB_PCP_LIMIT);
        if (EBB_LIKELY(count < zone->pcp_high && pcp->used)) {
            result = EBB__PCP_REFUSED;
            if (EBB_LIKELY(ebb__release_frame(zone, index, type, EBB__CACHED_FRAME))) {
                pcp->frames[type][count] = index;
                pcp->count[type] = count + 1;
                pcp->frees++;
                result = EBB__PCP_FREED;
            }
        }
    }
    ebb_port_unlock(&pcp->lock);
    return result;
}

/* Free a frame into this CPU's cache. `filled`: it is in state FILLING, and the caller has claimed
 * it, so that it is never refused. */
enum ebb__pcp_free ebb__pcp_free(struct ebb_zone *zone, uint32_t index, bool filled);

/* Free up to EBB__PCP_MANY frames of a list, which goes on for `ahead` frames in all, into this
 * CPU's cache. Returns a bit for each that was not freed: it is refused, or not for the cache. */
#define EBB__PCP_MANY 64u
uint64_t ebb__pcp_free_many(struct ebb_zone *zone, const ebb_pfn_t *pfns, unsigned n,
                            uint64_t ahead);

/* ebb__pcp_free() for a whole pageblock. */
enum ebb__pcp_free ebb__pcp_free_block(struct ebb_zone *zone, uint32_t index);

/* All locks of a zone, for those who need to see all of it stand still. */
void ebb__lock_all(struct ebb_zone *zone);
void ebb__unlock_all(struct ebb_zone *zone);

#endif
