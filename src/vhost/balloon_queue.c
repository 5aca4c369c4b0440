/* SPDX-License-Identifier: BSD-2-Clause */
/* The queues of the device: which one a number names, and where their rings are. */
#include "balloon.h"

/* ---- which queue is which ---- */

static uint64_t in_force(const struct ebb_balloon_device *device)
{
    return device->negotiated ? device->accepted : device->offered;
}

static bool has_queue(uint64_t features, unsigned which)
{
    static const uint64_t needs[EBB_BALLOON_QUEUES] = {
        [EBB_BALLOON_STATS] = EBB_F_STATS_VQ,
        [EBB_BALLOON_HINT] = EBB_F_FREE_PAGE_HINT,
        [EBB_BALLOON_REPORTING] = EBB_F_PAGE_REPORTING,
    };

    return which < EBB_BALLOON_QUEUES && (features & needs[which]) == needs[which];
}

/* The queue number `number` of those that exist with these features; EBB_BALLOON_QUEUES: none. */
static unsigned nth_queue(uint64_t features, unsigned number)
{
    unsigned which = 0;

    while (which < EBB_BALLOON_QUEUES && (!has_queue(features, which) || number-- > 0))
        which++;
    return which;
}

int ebb__balloon_queue_of(const struct ebb_balloon_device *device, unsigned number)
{
    const uint64_t features = in_force(device);
    const unsigned dense = nth_queue(features, number);
    const unsigned offered = nth_queue(device->offered, number);

    if (device->config.numbering == EBB_BALLOON_DEVICE_DENSE) {
        if (has_queue(features, dense))
            return (int)dense;
        if (has_queue(features, offered))
            return (int)offered;
    }
    return has_queue(features, number) ? (int)number : -EBB_ENOENT;
}

unsigned ebb_balloon_device_queue_count(const struct ebb_balloon_device *device)
{
    const bool fixed = device->config.numbering == EBB_BALLOON_DEVICE_FIXED;
    unsigned count = 0;

    for (unsigned which = 0; which < EBB_BALLOON_QUEUES; which++) {
        if (has_queue(in_force(device), which))
            count = fixed ? which + 1 : count + 1;
    }
    return count;
}

struct ebb__balloon_queue *ebb__balloon_running(struct ebb_balloon_device *device, unsigned number)
{
    const int which = ebb__balloon_queue_of(device, number);
    struct ebb__balloon_queue *queue = which < 0 ? NULL : &device->queues[which];

    return queue && queue->running && queue->number == number ? queue : NULL;
}

bool ebb__balloon_any_running(const struct ebb_balloon_device *device)
{
    for (unsigned i = 0; i < EBB_BALLOON_QUEUES; i++) {
        if (device->queues[i].running)
            return true;
    }
    return false;
}

bool ebb__balloon_enabled(const struct ebb_balloon_device *device,
                          const struct ebb__balloon_queue *queue)
{
    return !(device->disabled >> queue->number & 1);
}

uint16_t ebb__balloon_next_index(const struct ebb_balloon_device *device,
                                 const struct ebb__balloon_queue *queue)
{
    const bool held = queue == &device->queues[EBB_BALLOON_STATS] && device->stats_held;

    return (uint16_t)(queue->ring.avail_idx - (held ? 1 : 0));
}

/* ---- where the rings are ---- */

int ebb__balloon_attach(struct ebb_balloon_device *device,
                        const struct ebb_balloon_device_vring *vring, uint16_t start,
                        struct ebb_ring_device *ring)
{
    if (!vring->translate)
        return ebb_ring_device_init(ring, vring->size, vring->desc, vring->avail, vring->used,
                                    start, ebb_memory_at, device->config.memory);
    return ebb_ring_device_init(ring, vring->size, vring->desc, vring->avail, vring->used, start,
                                vring->translate, vring->translate_ctx);
}

void ebb__batch_orphan(struct ebb_balloon_device *device, unsigned which)
{
    struct ebb__batch *batch = &device->batches[which];

    if (device->under_way.which == which)
        device->under_way.chains = 0;
    batch->n_chains = batch->n = batch->answered = 0;
    batch->no_room = 0;
}

/* Its ring is in no memory any more: nothing can be taken from there, nor go back. */
static void lose(struct ebb_balloon_device *device, struct ebb__balloon_queue *queue)
{
    ebb__balloon_fault(device, EBB_FAULT_QUEUE);
    if (queue == &device->queues[EBB_BALLOON_STATS])
        device->stats_held = false;
    ebb__batch_orphan(device, (unsigned)(queue - device->queues));
    *queue = (struct ebb__balloon_queue){.running = false};
    ebb__balloon_needs_reset(device);
}

void ebb__balloon_follow(struct ebb_balloon_device *device)
{
    const struct ebb_memory *memory = device->config.memory;

    if (device->memory_changes == memory->changes)
        return;
    device->memory_changes = memory->changes;
    for (unsigned i = 0; i < EBB_BALLOON_QUEUES; i++) {
        struct ebb__balloon_queue *queue = &device->queues[i];
        struct ebb_ring_device ring;

        if (!queue->running)
            continue;
        if (ebb__balloon_attach(device, &queue->vring, queue->ring.avail_idx, &ring) != 0) {
            lose(device, queue);
            continue;
        }
        ring.used_idx = queue->ring.used_idx;
        ring.broken = queue->ring.broken;
        queue->ring = ring;
    }
}
