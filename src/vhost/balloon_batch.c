/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Batches: the chains of one queue whose ranges are discarded together.
 *
 * The discard takes one batch at a time, so the device has one; the queues that need it take turns,
 * each for one batch. Deflated pages belong here too: the discard learns of them only while none is
 * under way. Chains go back when all of the batch is discarded, and the driver is called once.
 */
#include "balloon.h"

static struct ebb__balloon_queue *queue_of(struct ebb_balloon_device *device)
{
    return &device->queues[device->batch.which];
}

bool ebb__balloon_batched(const struct ebb_balloon_device *device, unsigned which)
{
    if (which == EBB_BALLOON_HINT)
        return device->config.discard_hints;
    return which != EBB_BALLOON_STATS;
}

/* ---- from chains to ranges ---- */

/* Windows' 64-bit driver sends page numbers of 64 bits. Nobody else names page 0 with every second
 * number. */
static bool is_wide(const uint8_t *numbers, unsigned bytes)
{
    bool wide = bytes >= 8 && bytes % 8 == 0;

    for (unsigned at = 4; wide && at < bytes; at += 8)
        wide = ebb__balloon_le(&numbers[at], 4) == 0;
    return wide;
}

/* Each page is looked up before it is merged, so that a wrong one spoils none of its neighbours. */
static unsigned gather_pfns(struct ebb_balloon_device *device,
                            const struct ebb__balloon_chain *chain)
{
    const struct ebb_region *region = NULL;
    const unsigned bytes = ebb__balloon_read(device, chain, EBB__BALLOON_BYTES);
    const bool wide = is_wide(device->bytes, bytes);
    unsigned pages = 0;

    ebb__balloon_refuse(device, chain, true);
    if (bytes % 4 != 0)
        ebb__balloon_fault(device, EBB_FAULT_LENGTH);
    for (unsigned at = 0; at + 4 <= bytes; at += wide ? 8 : 4) {
        const uint64_t gpa = ebb__balloon_le(&device->bytes[at], 4) << EBB_FRAME_SHIFT;

        if (!region || gpa < region->gpa || gpa - region->gpa >= region->size)
            region = ebb_memory_find(device->config.memory, gpa);
        if (region) {
            ebb__batch_add(&device->batch, gpa, EBB_FRAME_SIZE);
            pages++;
        } else {
            ebb__balloon_fault(device, EBB_FAULT_PFN);
        }
    }
    /* If it is not so, page 0 was kept from the balloon, which does no harm; nor may it stay there
     * when it is taken out. */
    if (wide && device->batch.which == EBB_BALLOON_DEFLATE &&
        ebb_memory_find(device->config.memory, 0))
        ebb__batch_add(&device->batch, 0, EBB_FRAME_SIZE);
    return pages;
}

static void gather_reported(struct ebb_balloon_device *device,
                            const struct ebb__balloon_chain *chain)
{
    const bool poisoned = ebb__balloon_poisoned(device);

    ebb__balloon_refuse(device, chain, false);
    for (unsigned i = 0; i < chain->n; i++) {
        const struct ebb_ring_buf *buf = &device->bufs[i];
        struct ebb_range range;

        if (!buf->write || !ebb__balloon_range(device, buf, &range))
            continue;
        if (poisoned) {
            device->stats.poison_skipped_bytes += range.len;
            continue;
        }
        device->stats.reported_ranges++;
        device->stats.reported_bytes += range.len;
        ebb__batch_add(&device->batch, range.addr, range.len);
    }
}

static void gather_chain(struct ebb_balloon_device *device, const struct ebb__balloon_chain *chain)
{
    switch (device->batch.which) {
    case EBB_BALLOON_INFLATE:
        device->stats.inflated_pages += gather_pfns(device, chain);
        break;
    case EBB_BALLOON_DEFLATE:
        device->stats.deflated_pages += gather_pfns(device, chain);
        break;
    case EBB_BALLOON_HINT:
        ebb__balloon_hint_chain(device, chain);
        break;
    default:
        gather_reported(device, chain);
        break;
    }
}

/* Does another chain fit, whatever it holds? It always does into an empty batch. */
static bool has_room(struct ebb_balloon_device *device)
{
    const struct ebb__batch *batch = &device->batch;
    unsigned worst = queue_of(device)->ring.size;

    if (batch->which == EBB_BALLOON_INFLATE || batch->which == EBB_BALLOON_DEFLATE)
        worst = EBB_BALLOON_DEVICE_CHAIN_PFNS;
    return batch->chains < device->config.batch_chains && EBB_DISCARD_RANGES - batch->n >= worst &&
           device->steps < EBB__BALLOON_STEPS;
}

_Static_assert(EBB_DISCARD_RANGES >= EBB_RING_SIZE_LIMIT, "a chain fits a batch");
_Static_assert(EBB_DISCARD_RANGES >= EBB_BALLOON_DEVICE_CHAIN_PFNS, "a chain fits a batch");

/* Take what is there and fits. True: that was not all, or may not be. */
static bool gather(struct ebb_balloon_device *device)
{
    struct ebb__balloon_queue *queue = queue_of(device);
    struct ebb__batch *batch = &device->batch;
    struct ebb__balloon_chain chain;

    device->steps = 0;
    while (has_room(device)) {
        if (!ebb__balloon_take(device, queue, &chain))
            return false;
        batch->heads[batch->chains++] = chain.head;
        if (ebb__balloon_enabled(device, queue))
            gather_chain(device, &chain);
    }
    ebb__balloon_hush(queue);
    return true;
}

/* ---- the batch ---- */

/* In a pool thread. */
static void discarded(void *ctx)
{
    struct ebb_balloon_device *device = ctx;
    /* Once the flag is set the device's thread may go on, and end the batch; but it does not end
     * the device before this function has returned. */
    __atomic_store_n(&device->discarded, 1, __ATOMIC_RELEASE);
    device->config.ops->wake(device->config.ctx);
}

/* All chains go back, then one call. */
static void give_back(struct ebb_balloon_device *device)
{
    struct ebb__batch *batch = &device->batch;
    struct ebb__balloon_queue *queue = queue_of(device);

    for (unsigned i = 0; i < batch->chains; i++)
        ebb_ring_device_put(&queue->ring, batch->heads[i], 0);
    device->stats.chains[batch->which] += batch->chains;
    batch->state = EBB__BATCH_NONE;
    if (batch->chains > 0)
        ebb__balloon_call(device, queue);
}

/* What the balloon has may be gathered if the guest tells before it takes any of it back. */
static enum ebb_discard_kind kind_of(const struct ebb_balloon_device *device)
{
    return device->batch.which == EBB_BALLOON_INFLATE && (device->accepted & EBB_F_MUST_TELL_HOST)
               ? EBB_DISCARD_INFLATED
               : EBB_DISCARD_REPORTED;
}

/* Returns true if the batch can go back at once. */
static bool hand_over(struct ebb_balloon_device *device)
{
    struct ebb__batch *batch = &device->batch;
    struct ebb_discard *discard = device->config.discard;

    if (batch->n == 0)
        return true;
    if (batch->which == EBB_BALLOON_DEFLATE) {
        /* It cannot be refused, as no batch is under way. If it were, the guest could lose what it
         * is about to use: only a reset would make that good. */
        if (ebb_discard_deflated(discard, batch->ranges, batch->n) != 0)
            ebb__balloon_needs_reset(device);
        return true;
    }
    __atomic_store_n(&device->discarded, 0, __ATOMIC_RELAXED);
    return ebb_discard_submit(discard, kind_of(device), batch->ranges, batch->n, discarded,
                              device) != 0;
}

static void submit(struct ebb_balloon_device *device)
{
    if (hand_over(device)) {
        give_back(device);
        return;
    }
    device->batch.state = EBB__BATCH_SUBMITTED;
    /* It is looked at again when the batch is done, so the driver need not notify. */
    ebb__balloon_hush(queue_of(device));
}

static bool is_discarded(const struct ebb_balloon_device *device)
{
    return device->batch.state == EBB__BATCH_SUBMITTED &&
           __atomic_load_n(&device->discarded, __ATOMIC_ACQUIRE);
}

/* Wait, shortly if it is discarded: the pool's thread may be on its way out of discarded(). */
static void finish(struct ebb_balloon_device *device)
{
    ebb_discard_drain(device->config.discard);
    give_back(device);
}

void ebb__batch_flush(struct ebb_balloon_device *device)
{
    if (device->batch.state == EBB__BATCH_GATHERING)
        submit(device);
    if (device->batch.state == EBB__BATCH_SUBMITTED)
        finish(device);
}

bool ebb__batch_hurry(struct ebb_balloon_device *device)
{
    if (device->batch.state == EBB__BATCH_GATHERING)
        submit(device);
    if (device->batch.state == EBB__BATCH_SUBMITTED && !is_discarded(device))
        ebb_discard_hurry(device->config.discard);
    return device->batch.state != EBB__BATCH_SUBMITTED || is_discarded(device);
}

void ebb__batch_drop(struct ebb_balloon_device *device)
{
    if (device->batch.state == EBB__BATCH_SUBMITTED)
        ebb_discard_drain(device->config.discard);
    device->batch.state = EBB__BATCH_NONE;
}

/* ---- turns ---- */

/* The next queue that may have chains, going round; EBB_BALLOON_QUEUES: none. */
static unsigned next_queue(const struct ebb_balloon_device *device)
{
    for (unsigned i = 0; i < EBB_BALLOON_QUEUES; i++) {
        const unsigned which = (device->turn + i) % EBB_BALLOON_QUEUES;

        if (ebb__balloon_batched(device, which) && device->queues[which].pending)
            return which;
    }
    return EBB_BALLOON_QUEUES;
}

/* Begin a batch of this queue. */
static void begin(struct ebb_balloon_device *device, unsigned which)
{
    struct ebb__batch *batch = &device->batch;

    device->turn = (which + 1) % EBB_BALLOON_QUEUES;
    batch->which = (enum ebb_balloon_queue)which;
    batch->chains = 0;
    batch->n = 0;
    batch->due = 0;
    if (device->config.gather_us > 0)
        batch->due = ebb__balloon_now(device) + (uint64_t)device->config.gather_us * 1000;
}

/* Is it worth to wait for further chains? Not if another queue would have to wait as well. */
static bool may_wait(const struct ebb_balloon_device *device)
{
    const struct ebb__batch *batch = &device->batch;

    return device->config.gather_us > 0 && batch->n > 0 && batch->which != EBB_BALLOON_DEFLATE &&
           next_queue(device) == EBB_BALLOON_QUEUES && ebb__balloon_now(device) < batch->due;
}

/* Take chains, and send the batch off if it is time. */
static void advance(struct ebb_balloon_device *device)
{
    const bool full = gather(device);

    if (device->batch.chains == 0)
        device->batch.state = EBB__BATCH_NONE;
    else if (full || !may_wait(device))
        submit(device);
    else
        device->batch.state = EBB__BATCH_GATHERING;
}

void ebb__batch_work(struct ebb_balloon_device *device)
{
    unsigned which;

    if (is_discarded(device))
        finish(device);
    if (device->batch.state == EBB__BATCH_GATHERING) {
        advance(device);
        return;
    }
    while (device->batch.state == EBB__BATCH_NONE) {
        which = next_queue(device);
        if (which == EBB_BALLOON_QUEUES)
            return;
        begin(device, which);
        advance(device);
        if (device->batch.chains > 0)
            return; /* one batch, then others have their turn */
    }
}
