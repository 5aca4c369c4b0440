/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Moving a block: what compaction, evacuation and the allocation of ranges have in
 * common. What becomes free here goes past the per-CPU caches.
 */
#include "range_private.h"

void ebb__fill_and_free(struct ebb_zone *zone, uint32_t index, unsigned order,
                        enum ebb__where where, unsigned frees)
{
    ebb__fill(zone, index, order);
    ebb__lock(zone);
    EBB_DEBUG_ASSERT(ebb__load_state(zone, index) == ebb__state_word(EBB__FILLING, order, 0));
    zone->frees += frees;
    ebb__screen(zone, ebb__free_block(zone, index, order, false, where));
    ebb__unlock(zone);
}

bool ebb__free_past_caches(struct ebb_zone *zone, uint32_t index, unsigned order,
                           enum ebb__where where)
{
    if (!ebb__release(zone, index, order, ebb__state_word(EBB__FILLING, order, 0)))
        return false;
    ebb__fill_and_free(zone, index, order, where, 1);
    return true;
}

void ebb__set_target(struct ebb_zone *zone, uint32_t index, unsigned order)
{
    EBB_DEBUG_ASSERT(ebb__state_of(ebb__load_state(zone, index)) == EBB__NONE);
    ebb__store_state(zone, index, ebb__state_word(EBB__ALLOCATED, order, EBB_MOVABLE));
    zone->allocs++;
}

void ebb__migrate_broken(struct ebb_zone *zone, uint32_t index, unsigned order)
{
    const struct ebb_misuse misuse = {
        .kind = EBB_MISUSE_DOUBLE_FREE,
        .pfn = zone->base + index,
        .order = order,
        .what = "a migration left a block to its caller, and it was freed nevertheless",
    };

    __atomic_fetch_add(&zone->misuses, 1, __ATOMIC_RELAXED);
    ebb_port_misuse(&misuse);
}

bool ebb__migrate(struct ebb_zone *zone, const struct ebb_migrate_ops *ops, uint32_t from,
                  uint32_t to, unsigned order)
{
    EBB_DEBUG_ASSERT(from != to && !((from | to) & ((1u << order) - 1)));
    EBB_DEBUG_ASSERT(ebb__load_state(zone, to) ==
                     ebb__state_word(EBB__ALLOCATED, order, EBB_MOVABLE));
    if (ebb__must_verify(zone))
        ebb__verify_fill(zone, to, order);
    if (ops->migrate(ops->ctx, zone->base + from, zone->base + to, order) >= 0)
        return true;
    if (!ebb__free_past_caches(zone, to, order, EBB__HEAD))
        ebb__migrate_broken(zone, to, order);
    return false;
}

int ebb__short_of(const struct ebb_zone *zone, uint64_t frames)
{
    uint64_t there = ebb__available(zone) + zone->in_flight;

    return zone->in_flight > 0 && there >= zone->watermark_min + frames ? -EBB_EAGAIN : -EBB_ENOMEM;
}
