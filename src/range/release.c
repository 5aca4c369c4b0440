/* SPDX-License-Identifier: BSD-2-Clause */
/* Ranges of frames: freeing them, in parts if need be. */
#include "range_private.h"

static bool is_complete(uint16_t state)
{
    return ebb__in_range(state) && !(state & EBB__CLAIMED);
}

/* Is all of this made of complete ranges? If not, *at is the first frame that is none. */
static bool all_complete(struct ebb_zone *zone, uint64_t *at, uint64_t to)
{
    bool complete = true;

    while (complete && *at < to) {
        ebb__lock(zone);
        for (unsigned n = 0; n < EBB__BLOCKS_PER_HOLD && complete && *at < to; n++) {
            uint32_t head;
            uint16_t state;

            complete = ebb__find_block(zone, (uint32_t)*at, &head, &state) && is_complete(state);
            if (complete)
                *at = ebb__block_end(head, state);
        }
        ebb__unlock(zone);
    }
    return complete;
}

/* Split a block of a range so that the block at index is one of its own, and FILLING.
 * False: somebody else has freed it meanwhile, which he must not. */
static bool release_part(struct ebb_zone *zone, uint32_t head, uint32_t index, unsigned from,
                         unsigned order)
{
    EBB_DEBUG_ASSERT(from >= order && index >= head && !(index & ((1u << order) - 1)));
    if (!ebb__release(zone, head, from, EBB__NONE))
        return false;
    while (from > order) {
        uint32_t middle = head + (1u << --from);
        uint32_t other = index >= middle ? head : middle;

        ebb__store_state(zone, other, ebb__state_word(EBB__ALLOCATED, from, EBB_ISOLATE));
        if (index >= middle)
            head = middle;
    }
    EBB_DEBUG_ASSERT(head == index);
    ebb__set_filling(zone, index, order);
    return true;
}

/* Free the block of the range at `at`, or what of it lies before `to`. Returns its end. */
static uint64_t free_part(struct ebb_zone *zone, uint64_t at, uint64_t to)
{
    bool released = false;
    unsigned order = 0;
    uint32_t head;
    uint16_t state;

    ebb__lock(zone);
    if (ebb__find_block(zone, (uint32_t)at, &head, &state) && is_complete(state)) {
        order = ebb__largest_order(zone, at, ebb__lower(to, ebb__block_end(head, state)));
        released = release_part(zone, head, (uint32_t)at, ebb__order_of(state), order);
    }
    ebb__unlock(zone);
    if (released)
        ebb__fill_and_free(zone, (uint32_t)at, order, EBB__HEAD, 1);
    return at + ((uint64_t)1 << order);
}

/* The first frame that is not of a range: tell the port why. */
static int refuse_range(struct ebb_zone *zone, ebb_pfn_t pfn)
{
    struct ebb_block block;
    struct ebb_misuse misuse = {.pfn = pfn, .what = "the frame is not part of a range"};

    ebb_zone_lookup(zone, pfn, &block);
    misuse.found_pfn = block.pfn;
    misuse.found = block.order;
    if (block.state == EBB_BLOCK_NONE)
        misuse.kind = EBB_MISUSE_FOREIGN_PFN;
    else if (block.state == EBB_BLOCK_ALLOCATED)
        misuse.kind = EBB_MISUSE_INSIDE_BLOCK;
    else
        misuse.kind = EBB_MISUSE_DOUBLE_FREE;
    __atomic_fetch_add(&zone->misuses, 1, __ATOMIC_RELAXED);
    ebb_port_misuse(&misuse);
    return -EBB_EINVAL;
}

int ebb_free_range(struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames)
{
    uint64_t from;
    uint64_t to;

    if (!ebb__range_of(zone, pfn, frames, &from, &to))
        return refuse_range(zone, pfn);
    uint64_t at = from;

    if (!all_complete(zone, &at, to))
        return refuse_range(zone, zone->base + at);
    for (at = from; at < to;)
        at = free_part(zone, at, to);
    return 0;
}
