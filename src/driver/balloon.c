/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Balloon driver: a report device for the engine, inflate and deflate for the
 * host's requests, statistics. balloon_start.c brings the device up.
 *
 * Contexts. The reporting queue is used by submit (the engine's worker), by
 * interrupts and by stop, on any CPU: its lock orders them. The other queues
 * belong to ebb_balloon_work(), which has one caller at a time, and need none.
 *
 * A device that breaks the protocol is reset on the spot: it may know of ranges
 * that are about to be used again, and only a device that was reset is known to
 * have forgotten them. Nothing is submitted to it until it is started anew.
 */
#include "balloon_private.h"

#include <ebb/impl/assert.h>
#include <ebb/port.h>

#define RESET_TIMEOUT_NS 1000000000u

EBB_RARE int ebb__balloon_reset(struct ebb_transport *t)
{
    const uint64_t start = ebb_port_now();

    t->ops->set_status(t, 0);
    while (t->ops->get_status(t) != 0) {
        if (ebb_port_now() - start > RESET_TIMEOUT_NS)
            return -EBB_ETIMEDOUT;
        ebb_port_relax();
    }
    return 0;
}

static bool is_running(const struct ebb_balloon *balloon)
{
    return __atomic_load_n(&balloon->running, __ATOMIC_ACQUIRE);
}

/* ---- reporting ---- */

/* The batch in flight, if there is one, ends like this. */
static void end_batch(struct ebb_balloon *balloon, int status)
{
    struct ebb_balloon_vq *vq = &balloon->queues[EBB_BALLOON_REPORTING];
    struct ebb_report *report;
    bool had;

    ebb_port_lock(&vq->lock);
    had = balloon->in_flight > 0;
    balloon->in_flight = 0;
    report = balloon->report;
    ebb_port_unlock(&vq->lock);
    EBB_DEBUG_ASSERT(!had || (report && status < 0));
    if (had)
        ebb_report_complete(report, status);
}

/* 0, or what the batch will end with: the device was given up, and reset asked for. */
static int given_up(const struct ebb_balloon *balloon)
{
    return __atomic_load_n(&balloon->given_up, __ATOMIC_ACQUIRE);
}

/* Once the device is reset it has forgotten what it had, so that a batch can end:
 * not before, or it could drop what is in use again. False: it is not yet. */
EBB_RARE static bool end_when_reset(struct ebb_balloon *balloon)
{
    struct ebb_transport *t = balloon->config.transport;

    if (t->ops->get_status(t) != 0)
        return false;
    end_batch(balloon, given_up(balloon));
    return true;
}

/* Give the device up: it broke the protocol, or says itself that it cannot go
 * on. From any context, so without waiting for the reset; the first caller does
 * it, and ebb_balloon_work() and poll see to the rest. */
EBB_RARE static void give_up(struct ebb_balloon *balloon, int status)
{
    struct ebb_transport *t = balloon->config.transport;

    EBB_DEBUG_ASSERT(status < 0);
    if (!__atomic_exchange_n(&balloon->running, 0, __ATOMIC_ACQ_REL))
        return;
    if (status == -EBB_EPROTO)
        balloon->counters.protocol_errors++;
    __atomic_store_n(&balloon->given_up, status, __ATOMIC_RELEASE);
    t->ops->set_status(t, 0);
    if (!end_when_reset(balloon))
        ebb_port_wake(balloon->config.worker);
}

static bool ranges_ok(const struct ebb_balloon *balloon, const struct ebb_range *ranges, unsigned n)
{
    if (n == 0 || n > balloon->device.capacity)
        return false;
    for (unsigned i = 0; i < n; i++) {
        if (ranges[i].len == 0 || ranges[i].len > EBB_RING_CHAIN_LIMIT)
            return false;
    }
    return true;
}

/* How many of these ranges can be one chain? */
static unsigned chain_length(const struct ebb_range *ranges, unsigned n)
{
    uint64_t bytes = 0;
    unsigned i = 0;

    while (i < n && bytes + ranges[i].len <= EBB_RING_CHAIN_LIMIT)
        bytes += ranges[i++].len;
    EBB_DEBUG_ASSERT(i > 0); /* else add_batch() has no end */
    return i;
}

/* Put a batch on the ring, which is empty: one chain, or several where a chain
 * would be too many bytes. Under the queue's lock. */
static void add_batch(struct ebb_balloon *balloon, const struct ebb_range *ranges, unsigned n)
{
    struct ebb_balloon_vq *vq = &balloon->queues[EBB_BALLOON_REPORTING];

    EBB_DEBUG_ASSERT(vq->exists && balloon->in_flight == 0);
    EBB_DEBUG_ASSERT(ebb_ring_driver_pending(&vq->ring) == 0);
    while (n > 0) {
        const unsigned count = chain_length(ranges, n);

        for (unsigned i = 0; i < count; i++) {
            EBB_DEBUG_ASSERT(ranges[i].len <= UINT32_MAX);
            balloon->bufs[i].addr = ranges[i].addr;
            balloon->bufs[i].len = (uint32_t)ranges[i].len;
            balloon->bufs[i].write = true;
        }
        if (ebb_ring_driver_add(&vq->ring, balloon->bufs, count, balloon) != 0)
            ebb_port_panic("balloon: an empty ring has no room for a batch");
        balloon->in_flight++;
        ranges += count;
        n -= count;
    }
    balloon->counters.batches++;
}

EBB_RARE static int reporting_submit(struct ebb_report_device *device,
                                     const struct ebb_range *ranges, unsigned n)
{
    struct ebb_balloon *balloon = (struct ebb_balloon *)device;
    struct ebb_transport *t = balloon->config.transport;
    struct ebb_balloon_vq *vq = &balloon->queues[EBB_BALLOON_REPORTING];
    bool kick = false;
    int err = 0;

    if (!ranges_ok(balloon, ranges, n))
        return -EBB_EINVAL;

    ebb_port_lock(&vq->lock);
    if (!is_running(balloon) || vq->ring.broken) {
        err = -EBB_EIO;
    } else if (balloon->in_flight > 0) {
        err = -EBB_EBUSY;
    } else {
        add_batch(balloon, ranges, n);
        kick = ebb_ring_driver_kick(&vq->ring);
    }
    ebb_port_unlock(&vq->lock);

    if (kick)
        t->ops->notify(t, vq->index);
    return err;
}

/* Collect what the device has returned on the reporting queue. */
EBB_RARE static void reporting_poll(struct ebb_report_device *device)
{
    struct ebb_balloon *balloon = (struct ebb_balloon *)device;
    struct ebb_balloon_vq *vq = &balloon->queues[EBB_BALLOON_REPORTING];
    struct ebb_report *report;
    bool done = false;
    int got = 0;

    ebb_port_lock(&vq->lock);
    if (is_running(balloon) && vq->exists) {
        void *token;
        uint32_t len;

        while ((got = ebb_ring_driver_get(&vq->ring, &token, &len)) > 0) {
            EBB_ASSERT(balloon->in_flight > 0); /* the ring returns what was added, once */
            done = --balloon->in_flight == 0;
        }
    }
    report = balloon->report;
    ebb_port_unlock(&vq->lock);
    EBB_DEBUG_ASSERT(!done || report);

    /* Before the error: the batch came back in order. */
    if (done)
        ebb_report_complete(report, 0);
    if (got < 0)
        give_up(balloon, -EBB_EPROTO);
    else if (given_up(balloon) != 0)
        (void)end_when_reset(balloon);
}

const struct ebb_report_device_ops ebb__balloon_report_ops = {
    .submit = reporting_submit,
    .poll = reporting_poll,
};

static void set_report(struct ebb_balloon *balloon, struct ebb_report *report)
{
    struct ebb_balloon_vq *vq = &balloon->queues[EBB_BALLOON_REPORTING];

    ebb_port_lock(&vq->lock);
    balloon->report = report;
    ebb_port_unlock(&vq->lock);
}

EBB_RARE int ebb_balloon_attach(struct ebb_balloon *balloon, struct ebb_report *report)
{
    int err;

    if (!(balloon->features & EBB_F_PAGE_REPORTING))
        return -EBB_EOPNOTSUPP;
    if (!is_running(balloon))
        return -EBB_ENODEV;
    if (balloon->report)
        return -EBB_EBUSY;
    set_report(balloon, report); /* a batch may come before register returns */
    err = ebb_report_register(report, &balloon->device);
    if (err)
        set_report(balloon, NULL);
    return err;
}

EBB_RARE void ebb_balloon_detach(struct ebb_balloon *balloon)
{
    struct ebb_report *report = balloon->report;

    if (!report)
        return;
    if (ebb_report_unregister(report) != 0)
        ebb_port_panic("balloon: its engine does not know it");
    set_report(balloon, NULL);
}

EBB_RARE int ebb_balloon_stop(struct ebb_balloon *balloon)
{
    int err;

    if (!balloon->config.transport)
        return 0; /* never started */
    __atomic_store_n(&balloon->running, 0, __ATOMIC_RELEASE);
    err = ebb__balloon_reset(balloon->config.transport);
    if (err)
        return err;
    end_batch(balloon, -EBB_ECANCELED);
    ebb_balloon_detach(balloon);
    return 0;
}

void ebb_balloon_irq(struct ebb_balloon *balloon)
{
    struct ebb_transport *t = balloon->config.transport;
    unsigned causes;

    if (!t)
        return; /* never started */
    /* Acknowledged in any case, or a level interrupt would come again and again. */
    causes = t->ops->irq_causes(t);
    if (!is_running(balloon))
        return;
    if (causes & EBB_IRQ_QUEUE)
        reporting_poll(&balloon->device);
    if (causes & EBB_IRQ_CONFIG)
        ebb_balloon_config_irq(balloon);
    else if (causes)
        ebb_port_wake(balloon->config.worker);
}

void ebb_balloon_config_irq(struct ebb_balloon *balloon)
{
    if (!is_running(balloon))
        return;
    __atomic_fetch_or(&balloon->events, EBB__EVENT_CONFIG, __ATOMIC_RELEASE);
    ebb_port_wake(balloon->config.worker);
}

/* ---- the slow half ---- */

/* Send one device-readable buffer; the queue is empty. */
static void send_buffer(struct ebb_balloon *balloon, unsigned which, const volatile void *data,
                        size_t len)
{
    struct ebb_transport *t = balloon->config.transport;
    struct ebb_balloon_vq *vq = &balloon->queues[which];
    const size_t offset = (size_t)((const volatile char *)data - (char *)balloon->config.dma);
    const struct ebb_ring_buf buf = {
        .addr = balloon->config.dma_addr + offset,
        .len = (uint32_t)len,
    };

    EBB_DEBUG_ASSERT(len > 0 && offset >= EBB__DMA_BUFFERS &&
                     offset + len <= EBB__DMA_BUFFERS + EBB__DMA_PAGE);
    EBB_DEBUG_ASSERT(vq->exists && ebb_ring_driver_pending(&vq->ring) == 0);

    if (ebb_ring_driver_add(&vq->ring, &buf, 1, balloon) != 0)
        ebb_port_panic("balloon: an empty ring has no room for a buffer");
    if (ebb_ring_driver_kick(&vq->ring))
        t->ops->notify(t, vq->index);
}

/* Has the device returned the buffer of this queue? 1, 0, or -EBB_EPROTO. */
static int returned(struct ebb_balloon *balloon, unsigned which)
{
    void *token;
    uint32_t len;

    if (!balloon->queues[which].exists)
        return 0;
    return ebb_ring_driver_get(&balloon->queues[which].ring, &token, &len);
}

static void put_le(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

/* Keep one statistics buffer with the host; it returns the buffer to ask for
 * new ones. */
EBB_RARE static int work_stats(struct ebb_balloon *balloon)
{
    const struct ebb_balloon_ops *ops = balloon->config.ops;
    struct ebb_balloon_stat stats[EBB_BALLOON_STATS_MAX];
    const int got = returned(balloon, EBB_BALLOON_STATS);
    unsigned n;

    if (got < 0)
        return got;
    if (got > 0)
        balloon->stats_held = false;
    if (!balloon->queues[EBB_BALLOON_STATS].exists || balloon->stats_held)
        return 0;

    n = ops->stats(balloon->config.ctx, stats, EBB_BALLOON_STATS_MAX);
    if (n > EBB_BALLOON_STATS_MAX)
        ebb_port_panic("balloon: more statistics than were asked for");
    if (n == 0)
        return 0; /* there is no empty buffer; the next call tries again */
    for (unsigned i = 0; i < n; i++) {
        put_le(&balloon->stats[i * EBB_STAT_ENTRY_SIZE], stats[i].tag, 2);
        put_le(&balloon->stats[i * EBB_STAT_ENTRY_SIZE + 2], stats[i].value, 8);
    }
    balloon->stats_held = true;
    balloon->counters.stats_sent++;
    send_buffer(balloon, EBB_BALLOON_STATS, balloon->stats, n * EBB_STAT_ENTRY_SIZE);
    return 0;
}

/* The host has acknowledged the transfer. */
static void end_transfer(struct ebb_balloon *balloon)
{
    struct ebb_transport *t = balloon->config.transport;
    const uint32_t n = balloon->transfer;

    EBB_DEBUG_ASSERT(n > 0 && n <= EBB_BALLOON_PFNS);
    EBB_DEBUG_ASSERT(!balloon->transfer_deflate || balloon->actual >= n);
    balloon->transfer = 0;
    if (balloon->transfer_deflate) {
        balloon->actual -= n;
        balloon->counters.deflated += n;
        balloon->config.ops->deflated(balloon->config.ctx, balloon->sent, n);
    } else {
        balloon->actual += n;
        balloon->counters.inflated += n;
    }
    t->ops->config_write32(t, EBB_BALLOON_CFG_ACTUAL, balloon->actual);
}

static int work_transfer(struct ebb_balloon *balloon)
{
    const int inflate = returned(balloon, EBB_BALLOON_INFLATE);
    const int deflate = returned(balloon, EBB_BALLOON_DEFLATE);

    if (inflate < 0 || deflate < 0)
        return -EBB_EPROTO;
    /* One transfer at a time: only one of the two can have come back. */
    if (inflate > 0 || deflate > 0)
        end_transfer(balloon);
    return 0;
}

/* Send up to `wanted` frames one way or the other. False: there were none. */
static bool begin_transfer(struct ebb_balloon *balloon, bool deflate, uint32_t wanted)
{
    const struct ebb_balloon_ops *ops = balloon->config.ops;
    const unsigned max = wanted < EBB_BALLOON_PFNS ? wanted : EBB_BALLOON_PFNS;
    unsigned n;

    EBB_DEBUG_ASSERT(balloon->transfer == 0 && max > 0);
    if (deflate)
        n = ops->deflate(balloon->config.ctx, balloon->sent, max);
    else
        n = ops->inflate(balloon->config.ctx, balloon->sent, max);
    if (n > max)
        ebb_port_panic("balloon: more frames than were asked for");
    if (n == 0)
        return false;

    balloon->transfer = n;
    balloon->transfer_deflate = deflate;
    /* The host could change what it was sent; what comes back is `sent`. */
    __builtin_memcpy(balloon->pfns, balloon->sent, n * sizeof(balloon->sent[0]));
    send_buffer(balloon, deflate ? EBB_BALLOON_DEFLATE : EBB_BALLOON_INFLATE, balloon->pfns,
                n * sizeof(balloon->sent[0]));
    return true;
}

static bool can_balloon(const struct ebb_balloon_config *config)
{
    const struct ebb_balloon_ops *ops = config->ops;

    return ops && ops->inflate && ops->deflate && ops->deflated;
}

/* Bring the balloon nearer to the size that the host wants, which may be
 * anything. True: it could not, and nothing will wake us. */
static bool work_balance(struct ebb_balloon *balloon)
{
    const uint32_t target = balloon->target;

    if (balloon->transfer > 0 || !can_balloon(&balloon->config))
        return false;
    if (target > balloon->actual)
        return !begin_transfer(balloon, false, target - balloon->actual);
    if (target < balloon->actual)
        return !begin_transfer(balloon, true, balloon->actual - target);
    return false;
}

EBB_RARE bool ebb_balloon_work(struct ebb_balloon *balloon)
{
    struct ebb_transport *t = balloon->config.transport;
    uint32_t events;

    if (given_up(balloon) != 0)
        return !end_when_reset(balloon);
    if (!is_running(balloon))
        return false;
    events = __atomic_exchange_n(&balloon->events, 0, __ATOMIC_ACQUIRE);
    if (events & EBB__EVENT_CONFIG) {
        if (t->ops->get_status(t) & EBB_STATUS_NEEDS_RESET) {
            give_up(balloon, -EBB_EIO);
            return !end_when_reset(balloon);
        }
        balloon->target = t->ops->config_read32(t, EBB_BALLOON_CFG_NUM_PAGES);
    }
    if (work_stats(balloon) != 0 || work_transfer(balloon) != 0) {
        give_up(balloon, -EBB_EPROTO);
        return !end_when_reset(balloon);
    }
    return work_balance(balloon);
}
