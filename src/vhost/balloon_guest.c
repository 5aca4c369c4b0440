/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the guest tells of its memory: statistics (5.5.6.3) and free page hints (5.5.6.6).
 *
 * Statistics: the driver sends a buffer, and the device returns it when it wants to know again.
 * Hints: the device shows a command id in the configuration space; the driver sends that id, then
 * pages, then STOP; the device shows DONE when the driver may use these pages again.
 */
#include "balloon.h"

#define HINT_SLICE 64u /* ranges told of at once */

/* ---- statistics ---- */

static void store_stats(struct ebb_balloon_device *device, unsigned bytes)
{
    struct ebb_balloon_guest_stats *guest = &device->guest;

    guest->at_ns = ebb__balloon_now(device);
    guest->known = 0;
    for (unsigned at = 0; at + EBB_STAT_ENTRY_SIZE <= bytes; at += EBB_STAT_ENTRY_SIZE) {
        const unsigned tag = (unsigned)ebb__balloon_le(&device->bytes[at], 2);
        const uint64_t value = ebb__balloon_le(&device->bytes[at + 2], 8);

        /* All ones is what Windows' driver sends of what it does not know. */
        if (tag >= EBB_BALLOON_DEVICE_TAGS || value == UINT64_MAX)
            continue;
        guest->values[tag] = value;
        guest->known |= 1u << tag;
    }
    device->stats.stats_received++;
}

/*
 * Of two buffers the later one is held: its values are newer, and when the queue stops, the ring is
 * rewound by one entry, which is the last that was taken.
 */
bool ebb__balloon_stats_chain(struct ebb_balloon_device *device,
                              const struct ebb__balloon_chain *chain)
{
    struct ebb__balloon_queue *queue = &device->queues[EBB_BALLOON_STATS];
    const unsigned bytes = ebb__balloon_read(device, chain, EBB__BALLOON_BYTES);
    const bool held = device->stats_held;

    ebb__balloon_refuse(device, chain, true);
    if (bytes % EBB_STAT_ENTRY_SIZE != 0)
        ebb__balloon_fault(device, EBB_FAULT_LENGTH);
    if (bytes >= EBB_STAT_ENTRY_SIZE)
        store_stats(device, bytes);
    if (held) {
        ebb__balloon_fault(device, EBB_FAULT_STATS);
        ebb_ring_device_put(&queue->ring, device->stats_head, 0);
        device->stats.chains[EBB_BALLOON_STATS]++;
    }
    device->stats_held = true;
    device->stats_head = chain->head;
    return held;
}

int ebb_balloon_device_poll_stats(struct ebb_balloon_device *device)
{
    struct ebb__balloon_queue *queue = &device->queues[EBB_BALLOON_STATS];

    if (!(device->accepted & EBB_F_STATS_VQ))
        return -EBB_EOPNOTSUPP;
    ebb__balloon_follow(device);
    if (!device->stats_held)
        return -EBB_EAGAIN;
    device->stats_held = false;
    ebb_ring_device_put(&queue->ring, device->stats_head, 0);
    device->stats.chains[EBB_BALLOON_STATS]++;
    ebb__balloon_call(device, queue);
    return 0;
}

const struct ebb_balloon_guest_stats *
ebb_balloon_device_guest_stats(const struct ebb_balloon_device *device)
{
    return &device->guest;
}

/* ---- hints ---- */

/* Was this id ever the device's? They are given in turn. */
static bool was_given(const struct ebb_balloon_device *device, uint32_t id)
{
    return id >= EBB__HINT_FIRST && id <= device->hint_id;
}

/* The driver says what its next pages are for. What it says of an earlier command can come late,
 * and is no fault. */
static void hint_command(struct ebb_balloon_device *device, uint32_t id)
{
    const bool active = device->hint == EBB__HINT_REQUESTED || device->hint == EBB__HINT_RUNNING;

    if (id == EBB__HINT_STOP) {
        if (device->hint == EBB__HINT_RUNNING)
            device->hint = EBB__HINT_ENDED;
    } else if (!was_given(device, id)) {
        ebb__balloon_fault(device, EBB_FAULT_HINT);
    } else if (active) {
        device->hint = id == device->hint_id ? EBB__HINT_RUNNING : EBB__HINT_REQUESTED;
    }
}

static void tell_hints(const struct ebb_balloon_device *device, const struct ebb_range *ranges,
                       unsigned n)
{
    if (n > 0 && device->config.ops->hinted)
        device->config.ops->hinted(device->config.ctx, ranges, n);
}

static void hint_pages(struct ebb_balloon_device *device, const struct ebb__balloon_chain *chain)
{
    struct ebb_range slice[HINT_SLICE];
    unsigned n = 0;

    for (unsigned i = 0; i < chain->n; i++) {
        const struct ebb_ring_buf *buf = &device->bufs[i];

        if (!buf->write || !ebb__balloon_range(device, buf, &slice[n]))
            continue;
        device->stats.hinted_ranges++;
        device->stats.hinted_bytes += slice[n].len;
        if (device->config.discard_hints)
            ebb__batch_add(&device->batches[EBB_BALLOON_HINT], slice[n].addr, slice[n].len);
        if (++n == HINT_SLICE) {
            tell_hints(device, slice, n);
            n = 0;
        }
    }
    tell_hints(device, slice, n);
}

static bool has_readable(const struct ebb_balloon_device *device,
                         const struct ebb__balloon_chain *chain)
{
    /* Readable buffers come first, ring.h. */
    return chain->n > 0 && !device->bufs[0].write;
}

void ebb__balloon_hint_chain(struct ebb_balloon_device *device,
                             const struct ebb__balloon_chain *chain)
{
    if (has_readable(device, chain)) {
        if (ebb__balloon_read(device, chain, 4) == 4)
            hint_command(device, (uint32_t)ebb__balloon_le(device->bytes, 4));
        else
            ebb__balloon_fault(device, EBB_FAULT_LENGTH);
    }
    if (device->hint == EBB__HINT_RUNNING && !ebb__balloon_poisoned(device))
        hint_pages(device, chain);
}

int ebb_balloon_device_hint_start(struct ebb_balloon_device *device)
{
    if (!(device->accepted & EBB_F_FREE_PAGE_HINT))
        return -EBB_EOPNOTSUPP;
    if (ebb_balloon_device_hinting(device))
        return -EBB_EBUSY;
    /* After some four billion the first one again: the driver stopped that long ago. */
    if (device->hint_id < EBB__HINT_FIRST || device->hint_id == UINT32_MAX)
        device->hint_id = EBB__HINT_FIRST;
    else
        device->hint_id++;
    device->hint = EBB__HINT_REQUESTED;
    ebb__balloon_config_changed(device);
    return 0;
}

bool ebb_balloon_device_hinting(const struct ebb_balloon_device *device)
{
    return device->hint == EBB__HINT_REQUESTED || device->hint == EBB__HINT_RUNNING;
}
