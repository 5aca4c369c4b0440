/* SPDX-License-Identifier: BSD-2-Clause */
/* The balloon device: its life, features, starts and stops of queues, who is served when. */
#include "balloon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_CHAINS_DEFAULT 64u
#define GATHER_US_LIMIT      100000u
#define ANSWER_MS_DEFAULT    200u
#define ANSWER_MS_LIMIT      1000000u

/* Feature bits that are the transport's: 30, of vhost-user, and 33 to 40 without RING_PACKED and
 * IN_ORDER. */
#define TRANSPORT_FEATURES (((uint64_t)1 << 30) | (((uint64_t)0xff << 33) & ~((uint64_t)3 << 34)))

/* ---- life ---- */

static bool config_ok(const struct ebb_balloon_device_config *config)
{
    const uint64_t features = config->offer_too | config->withhold;

    return config->memory && config->discard && config->ops && config->ops->call &&
           config->ops->wake && (features & ~EBB__BALLOON_FEATURES) == 0 &&
           config->numbering <= EBB_BALLOON_DEVICE_FIXED &&
           config->batch_chains <= EBB__BALLOON_CHAINS && config->gather_us <= GATHER_US_LIMIT &&
           config->answer_ms <= ANSWER_MS_LIMIT;
}

struct ebb_balloon_device *ebb_balloon_device_new(const struct ebb_balloon_device_config *config)
{
    const uint64_t usual = EBB__BALLOON_FEATURES & ~EBB_F_DEFLATE_ON_OOM;
    struct ebb_balloon_device *device;

    if (!config_ok(config)) {
        errno = EINVAL;
        return NULL;
    }
    device = calloc(1, sizeof(*device));
    if (!device)
        return NULL;
    device->config = *config;
    if (device->config.batch_chains == 0)
        device->config.batch_chains = BATCH_CHAINS_DEFAULT;
    if (device->config.answer_ms == 0)
        device->config.answer_ms = ANSWER_MS_DEFAULT;
    device->offered = EBB_F_VERSION_1 | ((usual | config->offer_too) & ~config->withhold);
    return device;
}

void ebb_balloon_device_free(struct ebb_balloon_device *device)
{
    if (!device)
        return;
    ebb__batch_drop(device);
    free(device);
}

void ebb_balloon_device_reset(struct ebb_balloon_device *device)
{
    ebb__batch_drop(device);
    memset(device->queues, 0, sizeof(device->queues));
    device->accepted = 0;
    device->negotiated = false;
    device->status = 0;
    device->actual = 0;
    device->poison_val = 0;
    device->disabled = 0;
    device->stats_held = false;
    device->guest = (struct ebb_balloon_guest_stats){.at_ns = 0};
    device->hint = EBB__HINT_NONE; /* ids go on: none is given twice */
    device->stats.resets++;
    /* Refused only while a batch is under way; see deflate(). */
    if (ebb_discard_forget(device->config.discard) != 0)
        ebb__balloon_needs_reset(device);
}

void ebb_balloon_device_forgive(struct ebb_balloon_device *device)
{
    device->status &= (uint8_t)~EBB_STATUS_NEEDS_RESET;
}

void ebb_balloon_device_begin(struct ebb_balloon_device *device)
{
    device->actual = 0;
    device->guest = (struct ebb_balloon_guest_stats){.at_ns = 0};
}

uint8_t ebb_balloon_device_status(const struct ebb_balloon_device *device)
{
    return device->status;
}

const struct ebb_balloon_device_stats *
ebb_balloon_device_get_stats(const struct ebb_balloon_device *device)
{
    return &device->stats;
}

const char *ebb_balloon_fault_name(enum ebb_balloon_fault fault)
{
    static const char *const names[EBB_FAULTS] = {
        [EBB_FAULT_RING] = "ring",           [EBB_FAULT_QUEUE] = "queue",
        [EBB_FAULT_DIRECTION] = "direction", [EBB_FAULT_LENGTH] = "length",
        [EBB_FAULT_BUFFER] = "buffer",       [EBB_FAULT_PFN] = "pfn",
        [EBB_FAULT_HINT] = "hint",           [EBB_FAULT_STATS] = "stats",
        [EBB_FAULT_CONFIG] = "config",
    };

    return (unsigned)fault < EBB_FAULTS ? names[fault] : "?";
}

/* ---- features ---- */

uint64_t ebb_balloon_device_features(const struct ebb_balloon_device *device)
{
    return device->offered;
}

int ebb_balloon_device_accept(struct ebb_balloon_device *device, uint64_t features)
{
    features &= ~TRANSPORT_FEATURES;
    if (features & ~device->offered)
        return -EBB_EINVAL;
    if (device->negotiated && features == device->accepted)
        return 0;
    if (ebb__balloon_any_running(device))
        return -EBB_EINVAL;
    device->accepted = features;
    device->negotiated = true;
    if (!(features & EBB_F_FREE_PAGE_HINT))
        device->hint = EBB__HINT_NONE; /* nobody is left to end it */
    return 0;
}

/* ---- starting and stopping queues ---- */

void ebb_balloon_device_enable(struct ebb_balloon_device *device, unsigned number, bool on)
{
    struct ebb__balloon_queue *queue = ebb__balloon_running(device, number);

    if (number >= EBB_BALLOON_QUEUES)
        return;
    if (on)
        device->disabled &= ~(1u << number);
    else
        device->disabled |= 1u << number;
    if (on && queue) {
        queue->pending = true;
        device->config.ops->wake(device->config.ctx);
    }
}

static int stop(struct ebb_balloon_device *device, struct ebb__balloon_queue *queue)
{
    int next;

    ebb__batch_stop(device, (unsigned)(queue - device->queues));
    next = ebb__balloon_next_index(device, queue);
    if (queue == &device->queues[EBB_BALLOON_STATS])
        device->stats_held = false;
    if (queue->hushed)
        ebb__balloon_listen(queue);
    *queue = (struct ebb__balloon_queue){.running = false};
    return next;
}

int ebb_balloon_device_stop(struct ebb_balloon_device *device, unsigned number)
{
    struct ebb__balloon_queue *queue;

    ebb__balloon_follow(device);
    queue = ebb__balloon_running(device, number);
    return queue ? stop(device, queue) : -EBB_ENOENT;
}

int ebb_balloon_device_start(struct ebb_balloon_device *device, unsigned number,
                             const struct ebb_balloon_device_vring *vring)
{
    const int which = ebb__balloon_queue_of(device, number);
    struct ebb__balloon_queue *queue;
    int err;

    ebb__balloon_follow(device);
    if (which < 0)
        return -EBB_EINVAL;
    queue = &device->queues[which];
    if (queue->running && queue->number != number)
        return -EBB_EINVAL;
    if (queue->running)
        stop(device, queue);
    err = ebb__balloon_attach(device, vring, vring->start, &queue->ring);
    if (err) {
        ebb__balloon_fault(device, EBB_FAULT_QUEUE);
        return err;
    }
    queue->vring = *vring;
    queue->number = number;
    queue->running = true;
    ebb__balloon_listen(queue);
    return 0;
}

/* ---- serving ---- */

/* One chain of a queue that needs no batch. True: one went back. */
static bool serve_chain(struct ebb_balloon_device *device, struct ebb__balloon_queue *queue,
                        const struct ebb__balloon_chain *chain)
{
    if (queue == &device->queues[EBB_BALLOON_STATS])
        return ebb__balloon_stats_chain(device, chain);
    if (ebb__balloon_enabled(device, queue))
        ebb__balloon_hint_chain(device, chain);
    ebb_ring_device_put(&queue->ring, chain->head, 0);
    device->stats.chains[EBB_BALLOON_HINT]++;
    return true;
}

/* A bounded number of chains of a queue that needs no batch. */
static void serve_queue(struct ebb_balloon_device *device, struct ebb__balloon_queue *queue)
{
    struct ebb__balloon_chain chain;
    bool back = false;
    unsigned n;

    device->steps = 0;
    for (n = 0; n < device->config.batch_chains && device->steps < EBB__BALLOON_STEPS; n++) {
        if (!ebb__balloon_take(device, queue, &chain))
            break;
        back |= serve_chain(device, queue, &chain);
    }
    if (queue->pending)
        ebb__balloon_hush(queue);
    if (back)
        ebb__balloon_call(device, queue);
}

static void serve_unbatched(struct ebb_balloon_device *device)
{
    struct ebb__balloon_queue *stats = &device->queues[EBB_BALLOON_STATS];
    struct ebb__balloon_queue *hint = &device->queues[EBB_BALLOON_HINT];

    /* A buffer that came back unread would be sent again at once, for ever. */
    if (stats->pending && !ebb__balloon_enabled(device, stats))
        stats->pending = false;
    if (stats->pending)
        serve_queue(device, stats);
    if (hint->pending && !ebb__balloon_batched(device, EBB_BALLOON_HINT))
        serve_queue(device, hint);
}

/* Can anything go on without a wake or the passing of time? */
static bool has_more(const struct ebb_balloon_device *device)
{
    for (unsigned i = 0; i < EBB_BALLOON_QUEUES; i++) {
        if (device->queues[i].pending && ebb__batch_takes(device, i))
            return true;
    }
    return false;
}

bool ebb_balloon_device_work(struct ebb_balloon_device *device)
{
    ebb__balloon_follow(device);
    serve_unbatched(device);
    ebb__batch_work(device);
    return has_more(device);
}

void ebb_balloon_device_kick(struct ebb_balloon_device *device, unsigned number)
{
    struct ebb__balloon_queue *queue = ebb__balloon_running(device, number);

    device->stats.kicks++;
    if (!queue)
        return;
    queue->pending = true;
    if (ebb_balloon_device_work(device))
        device->config.ops->wake(device->config.ctx);
}

uint16_t ebb_balloon_device_index(const struct ebb_balloon_device *device, unsigned number)
{
    const int which = ebb__balloon_queue_of(device, number);

    return which < 0 || !device->queues[which].running ? 0 : device->queues[which].ring.avail_idx;
}

uint64_t ebb_balloon_device_due(const struct ebb_balloon_device *device)
{
    if (has_more(device))
        return 0;
    return ebb__batch_due(device);
}

bool ebb_balloon_device_idle(const struct ebb_balloon_device *device)
{
    return ebb__batch_idle(device) && !has_more(device);
}

bool ebb_balloon_device_hurry(struct ebb_balloon_device *device)
{
    return ebb__batch_hurry(device);
}

void ebb_balloon_device_hint_done(struct ebb_balloon_device *device)
{
    if (device->hint == EBB__HINT_NONE || device->hint == EBB__HINT_DONE)
        return;
    /* The guest may use what it hinted from then on. */
    ebb__balloon_follow(device);
    ebb__batch_stop(device, EBB_BALLOON_HINT);
    device->hint = EBB__HINT_DONE;
    ebb__balloon_config_changed(device);
}

void ebb_balloon_device_quiesce(struct ebb_balloon_device *device)
{
    ebb__balloon_follow(device);
    ebb__batch_flush(device);
}
