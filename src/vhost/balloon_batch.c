/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Batches: chains are taken off their ring when the driver notifies, and what they say is copied
 * then: a driver that waits no longer may use their buffers for something else. They wait in their
 * queue's batch until the discard is free, which takes some of them at a time, in order; the queues
 * that need it take turns. Deflated pages belong here too: the discard learns of them only while
 * nothing is under way. Chains go back when what the discard has of them is done with, and the
 * driver is called once.
 *
 * Each goes back in time (config.answer_ms), whatever is left undone for it. What the balloon has
 * may be discarded afterwards, until the guest deflates.
 */
#include "balloon.h"

#include <string.h>

/* The discard takes so much at a time, or one chain: so chains do not wait for those behind them,
 * and the queues have their turn. */
#define PART_BYTES ((uint64_t)64 << 20)

bool ebb__balloon_batched(const struct ebb_balloon_device *device, unsigned which)
{
    if (which == EBB_BALLOON_HINT)
        return device->config.discard_hints;
    return which != EBB_BALLOON_STATS;
}

bool ebb__batch_takes(const struct ebb_balloon_device *device, unsigned which)
{
    return device->batches[which].n_chains < EBB_RING_SIZE_LIMIT;
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
static unsigned gather_pfns(struct ebb_balloon_device *device, unsigned which,
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
            ebb__batch_add(&device->batches[which], gpa, EBB_FRAME_SIZE);
            pages++;
        } else {
            ebb__balloon_fault(device, EBB_FAULT_PFN);
        }
    }
    /* If it is not so, page 0 was kept from the balloon, which does no harm; nor may it stay there
     * when it is taken out. */
    if (wide && which == EBB_BALLOON_DEFLATE && ebb_memory_find(device->config.memory, 0))
        ebb__batch_add(&device->batches[which], 0, EBB_FRAME_SIZE);
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
        ebb__batch_add(&device->batches[EBB_BALLOON_REPORTING], range.addr, range.len);
    }
}

static void gather_chain(struct ebb_balloon_device *device, unsigned which,
                         const struct ebb__balloon_chain *chain)
{
    switch (which) {
    case EBB_BALLOON_INFLATE:
        device->stats.inflated_pages += gather_pfns(device, which, chain);
        break;
    case EBB_BALLOON_DEFLATE:
        device->stats.deflated_pages += gather_pfns(device, which, chain);
        break;
    case EBB_BALLOON_HINT:
        ebb__balloon_hint_chain(device, chain);
        break;
    default:
        gather_reported(device, chain);
        break;
    }
}

/* Take what is there, within bounds. */
static void gather(struct ebb_balloon_device *device, unsigned which)
{
    const uint64_t now = ebb__balloon_now(device);
    struct ebb__balloon_queue *queue = &device->queues[which];
    struct ebb__batch *batch = &device->batches[which];
    struct ebb__balloon_chain chain;

    device->steps = 0;
    for (unsigned n = 0; n < device->config.batch_chains && device->steps < EBB__BALLOON_STEPS &&
                         ebb__batch_takes(device, which);
         n++) {
        if (!ebb__balloon_take(device, queue, &chain))
            return;
        batch->chains[batch->n_chains++] = (struct ebb__waiting){.since = now, .head = chain.head};
        /* What is deflated is the guest's, whoever is enabled. */
        if (ebb__balloon_enabled(device, queue) || which == EBB_BALLOON_DEFLATE)
            gather_chain(device, which, &chain);
    }
    ebb__balloon_hush(queue);
}

static void gather_all(struct ebb_balloon_device *device)
{
    for (unsigned which = 0; which < EBB_BALLOON_QUEUES; which++) {
        if (ebb__balloon_batched(device, which) && device->queues[which].pending)
            gather(device, which);
    }
}

/* ---- back to the driver ---- */

/* The first n chains of a queue; then one call. */
static void give_back(struct ebb_balloon_device *device, unsigned which, unsigned n)
{
    struct ebb__balloon_queue *queue = &device->queues[which];
    struct ebb__batch *batch = &device->batches[which];

    if (n == 0)
        return;
    for (unsigned i = 0; i < n; i++)
        ebb_ring_device_put(&queue->ring, batch->chains[i].head, 0);
    batch->n_chains -= n;
    memmove(batch->chains, batch->chains + n, batch->n_chains * sizeof(batch->chains[0]));
    device->stats.chains[which] += n;
    ebb__balloon_call(device, queue);
}

/* The first n ranges are taken out of the batch. */
static void take_out(struct ebb__batch *batch, unsigned n)
{
    batch->n -= n;
    batch->answered -= n < batch->answered ? n : batch->answered;
    memmove(batch->ranges, batch->ranges + n, batch->n * sizeof(batch->ranges[0]));
}

static void leave_no_room(struct ebb_balloon_device *device, struct ebb__batch *batch)
{
    if (batch->no_room > 0)
        ebb_discard_left(device->config.discard, batch->no_room, 0);
    batch->no_room = 0;
}

/* The first n ranges of the batch are not discarded. */
static void leave_ranges(struct ebb_balloon_device *device, struct ebb__batch *batch, unsigned n)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < n; i++)
        bytes += batch->ranges[i].len;
    if (n > 0)
        ebb_discard_left(device->config.discard, bytes, n);
    take_out(batch, n);
}

/* All of a queue goes back without effect. */
static void leave(struct ebb_balloon_device *device, unsigned which)
{
    struct ebb__batch *batch = &device->batches[which];

    leave_no_room(device, batch);
    leave_ranges(device, batch, batch->n);
    give_back(device, which, batch->n_chains);
}

/* It cannot be refused, as no batch is under way. If it were, the guest could lose what it is about
 * to use: only a reset would make that good. */
static void deflate(struct ebb_balloon_device *device)
{
    struct ebb__batch *batch = &device->batches[EBB_BALLOON_DEFLATE];
    struct ebb__batch *inflate = &device->batches[EBB_BALLOON_INFLATE];
    struct ebb_discard *discard = device->config.discard;
    int err = 0;

    leave_ranges(device, inflate, inflate->answered);
    if (batch->no_room > 0) /* any page may be meant */
        err = ebb_discard_forget(discard);
    else if (batch->n > 0)
        err = ebb_discard_deflated(discard, batch->ranges, batch->n);
    if (err != 0)
        ebb__balloon_needs_reset(device);
    batch->n = 0;
    batch->no_room = 0;
    give_back(device, EBB_BALLOON_DEFLATE, batch->n_chains);
}

/* ---- the discard ---- */

/* In a pool thread. */
static void discarded(void *ctx)
{
    struct ebb_balloon_device *device = ctx;
    /* Once the flag is set the device's thread may go on, and end the batch; but it does not end
     * the device before this function has returned. */
    __atomic_store_n(&device->under_way.discarded, 1, __ATOMIC_RELEASE);
    device->config.ops->wake(device->config.ctx);
}

static bool is_discarded(const struct ebb_balloon_device *device)
{
    return device->under_way.is && __atomic_load_n(&device->under_way.discarded, __ATOMIC_ACQUIRE);
}

/* What the balloon has stays there until the guest tells, if it does so before it takes any of it
 * back: parts may be gathered, and all of it go later. */
static enum ebb_discard_kind kind_of(const struct ebb_balloon_device *device, unsigned which)
{
    return which == EBB_BALLOON_INFLATE && (device->accepted & EBB_F_MUST_TELL_HOST)
               ? EBB_DISCARD_INFLATED
               : EBB_DISCARD_REPORTED;
}

/* What goes to the discard next: so many of the first chains, and ranges of the batch. */
struct part {
    unsigned chains, ranges;
};

static struct part next_part(const struct ebb__batch *batch)
{
    struct part part = {0, 0};
    uint64_t bytes = 0;

    while (part.ranges < batch->answered && bytes < PART_BYTES)
        bytes += batch->ranges[part.ranges++].len;
    while (batch->answered == 0 && part.chains < batch->n_chains && bytes < PART_BYTES) {
        const unsigned end = part.ranges + batch->chains[part.chains++].ranges;

        while (part.ranges < end)
            bytes += batch->ranges[part.ranges++].len;
    }
    return part;
}

/* When the first chain of a queue must go back. */
static uint64_t due_of(const struct ebb_balloon_device *device, unsigned which)
{
    return device->batches[which].chains[0].since + (uint64_t)device->config.answer_ms * 1000000;
}

static void submit(struct ebb_balloon_device *device, unsigned which)
{
    const enum ebb_discard_kind kind = kind_of(device, which);
    struct ebb__under_way *under_way = &device->under_way;
    struct ebb__batch *batch = &device->batches[which];
    const struct part part = next_part(batch);
    const uint64_t now = ebb__balloon_now(device);
    uint64_t ns = UINT64_MAX;

    leave_no_room(device, batch);
    if (kind == EBB_DISCARD_REPORTED)
        ns = due_of(device, which) > now ? due_of(device, which) - now : 0;
    __atomic_store_n(&under_way->discarded, 0, __ATOMIC_RELAXED);
    if (part.ranges == 0 || ebb_discard_submit(device->config.discard, kind, batch->ranges,
                                               part.ranges, ns, discarded, device) != 0) {
        leave_ranges(device, batch, part.ranges);
        give_back(device, which, part.chains);
        return;
    }
    under_way->is = true;
    under_way->which = (enum ebb_balloon_queue)which;
    under_way->chains = part.chains;
    under_way->hurried = false;
    take_out(batch, part.ranges);
}

static void end(struct ebb_balloon_device *device)
{
    device->under_way.is = false;
    give_back(device, device->under_way.which, device->under_way.chains);
}

/* Wait, shortly if it is discarded: the pool's thread may be on its way out of discarded(). */
static void finish(struct ebb_balloon_device *device)
{
    if (device->under_way.is)
        ebb_discard_drain(device->config.discard);
    if (device->under_way.is)
        end(device);
}

/* Nothing more of it begins. */
static void hurry(struct ebb_balloon_device *device)
{
    device->under_way.hurried = true;
    if (!is_discarded(device) && ebb_discard_hurry(device->config.discard))
        end(device);
}

/* Its chains went back. */
static bool goes_on(const struct ebb_balloon_device *device)
{
    return device->under_way.is && device->under_way.chains == 0;
}

/* ---- in time ---- */

/* Chains of this queue are under way. */
static bool is_under_way(const struct ebb_balloon_device *device, unsigned which)
{
    return device->under_way.is && device->under_way.which == which && device->under_way.chains > 0;
}

/* When something has to be done for a queue although the discard is not free. Deflated pages the
 * guest must not have before it is; and nobody goes back before the chains ahead. */
static uint64_t look_at(const struct ebb_balloon_device *device, unsigned which)
{
    if (device->batches[which].n_chains == 0 || which == EBB_BALLOON_DEFLATE ||
        (is_under_way(device, which) && device->under_way.hurried))
        return UINT64_MAX;
    return due_of(device, which);
}

/* Chains under way that are due. */
static void meet_due(struct ebb_balloon_device *device)
{
    struct ebb__under_way *under_way = &device->under_way;

    if (kind_of(device, under_way->which) == EBB_DISCARD_REPORTED) {
        hurry(device);
        return;
    }
    give_back(device, under_way->which, under_way->chains);
    under_way->chains = 0;
}

/* Chains that are due and not under way. */
static void answer_due(struct ebb_balloon_device *device, unsigned which)
{
    const uint64_t now = ebb__balloon_now(device);
    const uint64_t limit = (uint64_t)device->config.answer_ms * 1000000;
    struct ebb__batch *batch = &device->batches[which];
    unsigned n = 0, ranges = 0;

    while (n < batch->n_chains && now - batch->chains[n].since >= limit)
        ranges += batch->chains[n++].ranges;
    if (kind_of(device, which) == EBB_DISCARD_INFLATED)
        batch->answered += ranges;
    else
        leave_ranges(device, batch, ranges);
    give_back(device, which, n);
}

/* While something is under way. */
static void keep_time(struct ebb_balloon_device *device)
{
    const uint64_t now = ebb__balloon_now(device);

    for (unsigned i = 0; i < EBB_BALLOON_QUEUES && device->under_way.is; i++) {
        if (is_under_way(device, i) && now >= look_at(device, i))
            meet_due(device);
        if (!is_under_way(device, i) && now >= look_at(device, i))
            answer_due(device, i);
    }
    if (goes_on(device) && device->batches[EBB_BALLOON_DEFLATE].n_chains > 0 &&
        !device->under_way.hurried)
        hurry(device);
}

/* ---- turns ---- */

static bool has_some(const struct ebb__batch *batch)
{
    return batch->n_chains > 0 || batch->answered > 0;
}

/* The next queue that has something, going round, but first the one that takes no time;
 * EBB_BALLOON_QUEUES: none. */
static unsigned next_queue(const struct ebb_balloon_device *device)
{
    if (has_some(&device->batches[EBB_BALLOON_DEFLATE]))
        return EBB_BALLOON_DEFLATE;
    for (unsigned i = 0; i < EBB_BALLOON_QUEUES; i++) {
        const unsigned which = (device->turn + i) % EBB_BALLOON_QUEUES;

        if (has_some(&device->batches[which]))
            return which;
    }
    return EBB_BALLOON_QUEUES;
}

static void begin(struct ebb_balloon_device *device, unsigned which)
{
    if (which == EBB_BALLOON_DEFLATE) {
        deflate(device);
        return;
    }
    device->turn = (which + 1) % EBB_BALLOON_QUEUES;
    answer_due(device, which);
    if (has_some(&device->batches[which]))
        submit(device, which);
}

/* Until when is it worth to wait for further chains? Not if another queue would have to wait as
 * well, or with many. 0: it is not. */
static uint64_t wait_until(const struct ebb_balloon_device *device, unsigned which)
{
    const struct ebb__batch *batch = &device->batches[which];

    if (device->config.gather_us == 0 || batch->n == 0 || batch->answered > 0 ||
        which == EBB_BALLOON_DEFLATE || batch->n_chains >= device->config.batch_chains ||
        batch->n > EBB_DISCARD_RANGES / 2)
        return 0;
    for (unsigned i = 0; i < EBB_BALLOON_QUEUES; i++) {
        if (i != which && has_some(&device->batches[i]))
            return 0;
    }
    return batch->chains[0].since + (uint64_t)device->config.gather_us * 1000;
}

void ebb__batch_work(struct ebb_balloon_device *device)
{
    unsigned which;

    gather_all(device);
    if (is_discarded(device))
        finish(device);
    if (device->under_way.is)
        keep_time(device);
    while (!device->under_way.is) {
        which = next_queue(device);
        if (which == EBB_BALLOON_QUEUES)
            return;
        if (device->config.gather_us > 0 && ebb__balloon_now(device) < wait_until(device, which))
            return;
        begin(device, which);
    }
}

uint64_t ebb__batch_due(const struct ebb_balloon_device *device)
{
    const unsigned next = next_queue(device);
    uint64_t due = UINT64_MAX;

    if (!device->under_way.is)
        return next == EBB_BALLOON_QUEUES ? UINT64_MAX : wait_until(device, next);
    for (unsigned i = 0; i < EBB_BALLOON_QUEUES; i++) {
        if (look_at(device, i) < due)
            due = look_at(device, i);
    }
    return due;
}

/* ---- the end ---- */

bool ebb__batch_idle(const struct ebb_balloon_device *device)
{
    return !device->under_way.is && next_queue(device) == EBB_BALLOON_QUEUES;
}

bool ebb__batch_hurry(struct ebb_balloon_device *device)
{
    const unsigned next = next_queue(device);

    if (goes_on(device))
        hurry(device);
    else if (!device->under_way.is && next != EBB_BALLOON_QUEUES)
        begin(device, next);
    return !device->under_way.is || is_discarded(device);
}

void ebb__batch_flush(struct ebb_balloon_device *device)
{
    (void)!ebb__batch_hurry(device);
    finish(device);
    for (unsigned which = 0; which < EBB_BALLOON_QUEUES; which++) {
        if (which == EBB_BALLOON_DEFLATE)
            deflate(device);
        else
            leave(device, which);
    }
}

void ebb__batch_stop(struct ebb_balloon_device *device, unsigned which)
{
    const bool under_way = device->under_way.is && device->under_way.which == which;

    if (under_way || has_some(&device->batches[which]))
        ebb__batch_flush(device);
}

void ebb__batch_drop(struct ebb_balloon_device *device)
{
    if (device->under_way.is) {
        (void)!ebb_discard_hurry(device->config.discard);
        ebb_discard_drain(device->config.discard);
    }
    device->under_way.is = false;
    for (unsigned which = 0; which < EBB_BALLOON_QUEUES; which++)
        ebb__batch_orphan(device, which);
}
