/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Split virtqueue, the device's half.
 *
 * The driver can write all of the shared memory at any time: each descriptor is
 * copied once and judged by the copy, and the device's own indices are private.
 */
#include "ring_access.h"

/* `align` is a power of two. */
static volatile void *translate_area(ebb_ring_translate translate, void *ctx, uint64_t gpa,
                                     uint64_t len, uint64_t align)
{
    volatile void *area = (gpa & (align - 1)) == 0 ? translate(ctx, gpa, len) : NULL;

    /* A front-end calls memory by addresses that need not be aligned as the memory is. */
    return ((uintptr_t)area & (align - 1)) == 0 ? area : NULL;
}

int ebb_ring_device_init(struct ebb_ring_device *ring, unsigned size, uint64_t desc_gpa,
                         uint64_t avail_gpa, uint64_t used_gpa, uint16_t start,
                         ebb_ring_translate translate, void *ctx)
{
    const uint64_t avail_len = sizeof(uint16_t) * (3 + (uint64_t)size);
    const uint64_t used_len =
        3 * sizeof(uint16_t) + sizeof(struct ebb_ring_used_elem) * (uint64_t)size;

    __builtin_memset(ring, 0, sizeof(*ring));
    if (!ebb__ring_size_ok(size))
        return -EBB_EINVAL;
    ring->desc = translate_area(translate, ctx, desc_gpa, sizeof(struct ebb_ring_desc) * size, 16);
    ring->avail = translate_area(translate, ctx, avail_gpa, avail_len, 2);
    ring->used = translate_area(translate, ctx, used_gpa, used_len, 4);
    if (!ring->desc || !ring->avail || !ring->used)
        return -EBB_EINVAL;

    RING_ASSERT(((uintptr_t)ring->desc & 15) == 0 && ((uintptr_t)ring->used & 3) == 0);
    ring->size = size;
    ring->avail_idx = start;
    /* Go on where the used ring stands: 0 in a new one. Any value will do, only
     * the driver would be confused by a wrong one. */
    ring->used_idx = ebb__ring_load(&ring->used[EBB__RING_IDX]);
    return 0;
}

/* Copy the chain that starts at head; its length, or 0 if it is no chain. */
static unsigned copy_chain(const struct ebb_ring_device *ring, uint16_t head,
                           struct ebb_ring_buf *bufs)
{
    uint16_t index = head;
    bool writable = false;

    RING_ASSERT(ebb__ring_size_ok(ring->size));
    for (unsigned n = 0; n < ring->size; n++) {
        volatile const struct ebb_ring_desc *desc;
        uint16_t flags;

        if (index >= ring->size)
            return 0;
        desc = &ring->desc[index];
        bufs[n].addr = desc->addr;
        bufs[n].len = desc->len;
        flags = desc->flags;
        index = desc->next;

        if (flags & EBB_DESC_INDIRECT)
            return 0;
        bufs[n].write = flags & EBB_DESC_WRITE;
        if (writable && !bufs[n].write)
            return 0;
        writable = bufs[n].write;
        if (!(flags & EBB_DESC_NEXT))
            return n + 1;
    }
    return 0; /* longer than the table: a loop */
}

int ebb_ring_device_take(struct ebb_ring_device *ring, struct ebb_ring_buf *bufs, uint16_t *head)
{
    unsigned ready, n;

    if (ring->broken)
        return -EBB_EPROTO;
    /* Entries up to this index and their chains are visible, the driver wrote
     * them before it. */
    ready = (uint16_t)(ebb__ring_load(&ring->avail[EBB__RING_IDX]) - ring->avail_idx);
    if (ready == 0)
        return 0;

    if (ready <= ring->size) {
        const uint16_t h = ring->avail[EBB__RING_ENTRIES + (ring->avail_idx & (ring->size - 1))];

        n = copy_chain(ring, h, bufs);
        if (n > 0) {
            RING_ASSERT(h < ring->size && n <= ring->size); /* copy_chain() has looked */
            *head = h;
            ring->avail_idx++;
            return (int)n;
        }
    }
    ring->broken = true;
    return -EBB_EPROTO;
}

/* Works on a broken ring too: what was taken before must go back. */
void ebb_ring_device_put(struct ebb_ring_device *ring, uint16_t head, uint32_t len)
{
    volatile struct ebb_ring_used_elem *elem =
        ebb__used_elem(ring->used, ring->size, ring->used_idx);

    elem->id = head;
    elem->len = len;
    ring->used_idx++;
    /* The driver may look as soon as it sees this index: what the device wrote
     * to the buffers, and the element, are visible by then. */
    ebb__ring_store(&ring->used[EBB__RING_IDX], ring->used_idx);
}

bool ebb_ring_device_wants_call(const struct ebb_ring_device *ring)
{
    /* Comes after the store of the index in put(), see ring_access.h. */
    return (ebb__ring_load(&ring->avail[EBB__RING_FLAGS]) & EBB_AVAIL_NO_INTERRUPT) == 0;
}

void ebb_ring_device_notifications(struct ebb_ring_device *ring, bool on)
{
    ebb__ring_store(&ring->used[EBB__RING_FLAGS], (uint16_t)(on ? 0 : EBB_USED_NO_NOTIFY));
}
