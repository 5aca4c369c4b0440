/* SPDX-License-Identifier: BSD-2-Clause */
/* Ranges of guest memory: that of a buffer, and those that a batch collects. */
#include "balloon.h"

/* Is all of it guest memory, in one region or in several that adjoin? */
static bool is_memory(const struct ebb_memory *memory, uint64_t first, uint64_t last)
{
    const struct ebb_region *region = ebb_memory_find(memory, first);
    const struct ebb_region *end = &memory->regions[memory->n];

    if (!region || last < first)
        return false;
    while (last - region->gpa >= region->size) {
        const uint64_t next = region->gpa + region->size;

        if (++region == end || region->gpa != next)
            return false;
    }
    return true;
}

bool ebb__balloon_range(struct ebb_balloon_device *device, const struct ebb_ring_buf *buf,
                        struct ebb_range *range)
{
    if (buf->len == 0) {
        ebb__balloon_fault(device, EBB_FAULT_LENGTH);
        return false;
    }
    if (!is_memory(device->config.memory, buf->addr, buf->addr + buf->len - 1)) {
        ebb__balloon_fault(device, EBB_FAULT_PFN);
        return false;
    }
    *range = (struct ebb_range){.addr = buf->addr, .len = buf->len};
    return true;
}

void ebb__batch_add(struct ebb__batch *batch, uint64_t addr, uint64_t len)
{
    struct ebb__waiting *chain = &batch->chains[batch->n_chains - 1];
    struct ebb_range *last = chain->ranges > 0 ? &batch->ranges[batch->n - 1] : NULL;

    if (last && last->addr + last->len == addr) {
        last->len += len;
    } else if (last && addr + len == last->addr) {
        last->addr = addr;
        last->len += len;
    } else if (batch->n < EBB_DISCARD_RANGES) {
        batch->ranges[batch->n++] = (struct ebb_range){.addr = addr, .len = len};
        chain->ranges++;
    } else {
        batch->no_room += len;
    }
}
