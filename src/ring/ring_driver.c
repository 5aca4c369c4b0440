/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Split virtqueue, the driver's half.
 *
 * The device can write all of the shared memory at any time. So nothing that
 * this half decides by is in it: which descriptors are free, how chains go on
 * and how much the device may have written is all kept in the slots.
 */
#include "ring_access.h"

/* `to` is a power of two. */
static size_t round_up(size_t value, size_t to)
{
    return (value + to - 1) & ~(to - 1);
}

struct ebb_ring_layout ebb_ring_layout(unsigned size)
{
    struct ebb_ring_layout layout = {0};

    if (!ebb__ring_size_ok(size))
        return layout;
    /* Flags, index, and a field of the event index behind the entries, which
     * is there whether or not it was negotiated. */
    layout.desc = 0;
    layout.avail = round_up(sizeof(struct ebb_ring_desc) * size, 2);
    layout.used = round_up(layout.avail + 3 * sizeof(uint16_t) + sizeof(uint16_t) * size, 4);
    layout.total = layout.used + 3 * sizeof(uint16_t) + sizeof(struct ebb_ring_used_elem) * size;
    return layout;
}

EBB_RARE int ebb_ring_driver_init(struct ebb_ring_driver *ring, unsigned size, void *shared,
                                  struct ebb_ring_slot *slots)
{
    const struct ebb_ring_layout layout = ebb_ring_layout(size);

    if (layout.total == 0 || !shared || !slots || (uintptr_t)shared % 16 != 0)
        return -EBB_EINVAL;

    __builtin_memset(shared, 0, layout.total);
    __builtin_memset(ring, 0, sizeof(*ring));
    ring->size = size;
    ring->desc = (void *)((char *)shared + layout.desc);
    ring->avail = (void *)((char *)shared + layout.avail);
    ring->used = (void *)((char *)shared + layout.used);
    ring->slots = slots;
    ring->free_count = (uint16_t)size;
    for (unsigned i = 0; i < size; i++)
        slots[i] = (struct ebb_ring_slot){.next = (uint16_t)(i + 1)};
    return 0;
}

/* May these buffers be one chain? Sets the device-writable bytes of it. */
static bool chain_ok(const struct ebb_ring_buf *bufs, unsigned n, uint32_t *writable)
{
    uint64_t total = 0, bytes = 0;

    for (unsigned i = 0; i < n; i++) {
        if (bufs[i].len == 0 || (i > 0 && bufs[i - 1].write && !bufs[i].write))
            return false;
        total += bufs[i].len;
        if (bufs[i].write)
            bytes += bufs[i].len;
    }
    *writable = (uint32_t)bytes;
    return total <= EBB_RING_CHAIN_LIMIT;
}

int ebb_ring_driver_add(struct ebb_ring_driver *ring, const struct ebb_ring_buf *bufs, unsigned n,
                        void *token)
{
    uint16_t index = ring->free_head;
    const uint16_t head = index;
    uint32_t writable;

    if (ring->broken)
        return -EBB_EPROTO;
    if (n == 0 || !token)
        return -EBB_EINVAL;
    if (n > ring->free_count)
        return -EBB_ENOSPC;
    if (!chain_ok(bufs, n, &writable))
        return -EBB_EINVAL;

    RING_ASSERT(ring->free_count <= ring->size && !ring->slots[head].token);
    for (unsigned i = 0; i < n; i++) {
        RING_ASSERT(index < ring->size);
        volatile struct ebb_ring_desc *desc = &ring->desc[index];
        const uint16_t next = ring->slots[index].next;
        const bool last = i == n - 1;

        desc->addr = bufs[i].addr;
        desc->len = bufs[i].len;
        desc->flags = (uint16_t)((bufs[i].write ? EBB_DESC_WRITE : 0) | (last ? 0 : EBB_DESC_NEXT));
        desc->next = last ? 0 : next;
        index = next;
    }
    ring->free_head = index;
    ring->free_count = (uint16_t)(ring->free_count - n);
    RING_ASSERT(ring->free_count == 0 || index < ring->size);
    ring->slots[head].token = token;
    ring->slots[head].bytes = writable;
    ring->slots[head].count = (uint16_t)n;

    ring->avail[EBB__RING_ENTRIES + (ring->avail_idx & (ring->size - 1))] = head;
    ring->avail_idx++;
    RING_ASSERT(ebb_ring_driver_pending(ring) <= ring->size);
    /* The device may look as soon as it sees this index: descriptors and entry
     * are visible by then. */
    ebb__ring_store(&ring->avail[EBB__RING_IDX], ring->avail_idx);
    return 0;
}

bool ebb_ring_driver_kick(struct ebb_ring_driver *ring)
{
    if (ring->kicked_idx == ring->avail_idx)
        return false;
    ring->kicked_idx = ring->avail_idx;
    /* Comes after the store of the index in add(): a device that asks for
     * notifications and then looks at the index once more misses nothing. The
     * order of that store and a doorbell is the doorbell's affair (driver/io.h). */
    return (ebb__ring_load(&ring->used[EBB__RING_FLAGS]) & EBB_USED_NO_NOTIFY) == 0;
}

unsigned ebb_ring_driver_pending(const struct ebb_ring_driver *ring)
{
    return (uint16_t)(ring->avail_idx - ring->used_idx);
}

static void free_chain(struct ebb_ring_driver *ring, uint16_t head)
{
    struct ebb_ring_slot *slot = &ring->slots[head];
    const uint16_t count = slot->count;
    uint16_t last = head;

    RING_ASSERT(slot->token && count > 0 && count <= ring->size - ring->free_count);
    for (unsigned i = 1; i < count; i++)
        last = ring->slots[last].next;
    RING_ASSERT(last < ring->size);
    ring->slots[last].next = ring->free_head;
    ring->free_head = head;
    ring->free_count = (uint16_t)(ring->free_count + count);
    slot->token = NULL;
    slot->count = 0;
    slot->bytes = 0;
}

static int broken(bool *flag)
{
    *flag = true;
    return -EBB_EPROTO;
}

int ebb_ring_driver_get(struct ebb_ring_driver *ring, void **token, uint32_t *len)
{
    volatile struct ebb_ring_used_elem *elem;
    const struct ebb_ring_slot *slot;
    unsigned ready;
    uint32_t id, written;

    if (ring->broken)
        return -EBB_EPROTO;
    /* Elements up to this index are visible, the device wrote them before it. */
    ready = (uint16_t)(ebb__ring_load(&ring->used[EBB__RING_IDX]) - ring->used_idx);
    if (ready == 0)
        return 0;
    if (ready > ebb_ring_driver_pending(ring))
        return broken(&ring->broken);

    elem = ebb__used_elem(ring->used, ring->size, ring->used_idx);
    id = elem->id;
    written = elem->len;
    if (id >= ring->size)
        return broken(&ring->broken);
    slot = &ring->slots[id];
    RING_ASSERT(!slot->token || (slot->count > 0 && slot->count <= ring->size));
    if (!slot->token)
        return broken(&ring->broken);
    /* With nothing to write to, a length says nothing, and devices that are in
     * use put the length of what they read there, or a count of pages. */
    if (slot->bytes == 0)
        written = 0;
    if (written > slot->bytes)
        return broken(&ring->broken);

    *token = slot->token;
    *len = written;
    free_chain(ring, (uint16_t)id);
    ring->used_idx++;
    return 1;
}

void ebb_ring_driver_interrupts(struct ebb_ring_driver *ring, bool on)
{
    ebb__ring_store(&ring->avail[EBB__RING_FLAGS], (uint16_t)(on ? 0 : EBB_AVAIL_NO_INTERRUPT));
}
