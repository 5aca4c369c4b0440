/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Taking and reading what the driver sends.
 *
 * Buffers lie in memory that the guest can write to at any time: what they hold is copied once and
 * judged by the copy; looking at them allocates no memory. How long a buffer is, is the guest's
 * choice; how much of it is looked at, ours.
 */
#include "balloon.h"

static int take(struct ebb_balloon_device *device, struct ebb__balloon_queue *queue,
                struct ebb__balloon_chain *chain)
{
    int n = ebb_ring_device_take(&queue->ring, device->bufs, &chain->head);

    if (n == 0 && queue->hushed) {
        /* What came before the driver knew that it shall notify again, it did not tell of. */
        ebb__balloon_listen(queue);
        n = ebb_ring_device_take(&queue->ring, device->bufs, &chain->head);
    }
    return n;
}

bool ebb__balloon_take(struct ebb_balloon_device *device, struct ebb__balloon_queue *queue,
                       struct ebb__balloon_chain *chain)
{
    const bool was_broken = queue->ring.broken;
    const int n = take(device, queue, chain);

    if (n > 0) {
        chain->n = (unsigned)n;
        device->steps += chain->n;
        return true;
    }
    queue->pending = false;
    if (n < 0 && !was_broken) {
        ebb__balloon_fault(device, EBB_FAULT_RING);
        ebb__balloon_needs_reset(device);
    }
    return false;
}

void ebb__balloon_hush(struct ebb__balloon_queue *queue)
{
    queue->pending = true;
    if (queue->hushed)
        return;
    queue->hushed = true;
    ebb_ring_device_notifications(&queue->ring, false);
}

void ebb__balloon_listen(struct ebb__balloon_queue *queue)
{
    queue->hushed = false;
    ebb_ring_device_notifications(&queue->ring, true);
}

void ebb__balloon_call(struct ebb_balloon_device *device, struct ebb__balloon_queue *queue)
{
    if (ebb_ring_device_wants_call(&queue->ring))
        device->config.ops->call(device->config.ctx, queue->number);
}

/* Copy len bytes of a buffer; false: they are not guest memory. */
static bool copy_once(struct ebb_balloon_device *device, uint8_t *to, uint64_t addr, unsigned len)
{
    if (ebb_memory_read(device->config.memory, addr, to, len))
        return true;
    ebb__balloon_fault(device, EBB_FAULT_BUFFER);
    return false;
}

unsigned ebb__balloon_read(struct ebb_balloon_device *device,
                           const struct ebb__balloon_chain *chain, unsigned max)
{
    bool surplus = false;
    unsigned got = 0;

    for (unsigned i = 0; i < chain->n; i++) {
        const struct ebb_ring_buf *buf = &device->bufs[i];
        const unsigned len = buf->len < max - got ? buf->len : max - got;

        if (buf->write)
            continue;
        if (buf->len == 0)
            ebb__balloon_fault(device, EBB_FAULT_LENGTH);
        surplus = surplus || len < buf->len;
        if (len > 0 && copy_once(device, &device->bytes[got], buf->addr, len))
            got += len;
    }
    if (surplus)
        ebb__balloon_fault(device, EBB_FAULT_LENGTH);
    device->steps += got / 4;
    return got;
}

void ebb__balloon_refuse(struct ebb_balloon_device *device, const struct ebb__balloon_chain *chain,
                         bool write)
{
    for (unsigned i = 0; i < chain->n; i++) {
        if (device->bufs[i].write == write)
            ebb__balloon_fault(device, EBB_FAULT_DIRECTION);
    }
}
