/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the balloon device share. The path of a chain: balloon_device.c is notified,
 * balloon_chain.c takes and reads it, balloon_batch.c keeps its ranges, has them discarded and
 * gives it back; balloon_guest.c for statistics and hints. The files are declared below from the
 * bottom up: none calls one that comes after it. balloon_device.c, and balloon_state.c on top of
 * it, have nothing to declare here.
 */
#ifndef EBB_VHOST_BALLOON_H
#define EBB_VHOST_BALLOON_H

#include <ebb/vhost/balloon_device.h>

#define EBB__BALLOON_FEATURES                                                              \
    (EBB_F_MUST_TELL_HOST | EBB_F_STATS_VQ | EBB_F_DEFLATE_ON_OOM | EBB_F_FREE_PAGE_HINT | \
     EBB_F_PAGE_POISON | EBB_F_PAGE_REPORTING)

#define EBB__BALLOON_CHAINS 256u /* limit of config.batch_chains */

/* What a queue is served for before others have their turn, in descriptors and page numbers. The
 * chain that exceeds it is the last. */
#define EBB__BALLOON_STEPS 16384u

/* Bytes of page numbers, or statistics, that one chain is read for. */
#define EBB__BALLOON_BYTES (EBB_BALLOON_DEVICE_CHAIN_PFNS * 4u)

struct ebb__balloon_queue {
    struct ebb_ring_device ring;
    struct ebb_balloon_device_vring vring; /* as start() got it */
    unsigned number;                       /* of the transport */
    bool running;
    bool pending; /* to be looked at, without a further notification */
    bool hushed;  /* the driver was told not to notify; pending is set then */
};

/* A chain that was taken: its buffers are device->bufs[0..n). */
struct ebb__balloon_chain {
    unsigned n;
    uint16_t head;
};

/* A chain that waits to go back. */
struct ebb__waiting {
    uint64_t since;  /* when it was taken */
    unsigned ranges; /* of the batch, that it names */
    uint16_t head;
};

/* Of one queue: what was taken off its ring, and waits for the discard, in that order. A driver
 * that keeps to the rules has no more chains out. */
struct ebb__batch {
    uint64_t no_room;  /* bytes that the chains name beyond these ranges */
    unsigned answered; /* ranges, the first ones, whose chains went back: the balloon's */
    unsigned n, n_chains;
    struct ebb_range ranges[EBB_DISCARD_RANGES];
    struct ebb__waiting chains[EBB_RING_SIZE_LIMIT];
};

/* What the discard has. Its chains are the first ones of their queue's batch still. */
struct ebb__under_way {
    bool is;
    enum ebb_balloon_queue which;
    unsigned chains;    /* none: it goes on after they went back */
    bool hurried;       /* nothing more of it begins */
    uint32_t discarded; /* atomic: it is through, set by a pool thread */
};

enum ebb__hint_state {
    EBB__HINT_NONE = 0,
    EBB__HINT_REQUESTED, /* the driver has not taken up the id yet */
    EBB__HINT_RUNNING,   /* what it sends is for this id */
    EBB__HINT_ENDED,     /* it sent its STOP, and holds the pages */
    EBB__HINT_DONE,      /* it may use them again */
    EBB__HINT_STATES,
};

struct ebb_balloon_device {
    struct ebb_balloon_device_config config;
    uint64_t offered, accepted;
    bool negotiated; /* `accepted` is in force */
    uint8_t status;
    uint32_t target, actual, poison_val;
    uint32_t disabled;       /* bit: a queue as the transport numbers it */
    uint64_t memory_changes; /* of the table, when the rings' addresses were translated */
    struct ebb__balloon_queue queues[EBB_BALLOON_QUEUES];
    unsigned turn;  /* the queue that is asked first for the next batch */
    unsigned steps; /* that the queue being served has cost */

    bool stats_held; /* a buffer of the driver, to ask for statistics with */
    uint16_t stats_head;
    struct ebb_balloon_guest_stats guest;

    enum ebb__hint_state hint;
    uint32_t hint_id; /* the last one given; below EBB__HINT_FIRST: none yet */

    struct ebb_balloon_device_stats stats;
    struct ebb__under_way under_way;
    struct ebb__batch batches[EBB_BALLOON_QUEUES];
    struct ebb_ring_buf bufs[EBB_RING_SIZE_LIMIT];
    uint8_t bytes[EBB__BALLOON_BYTES]; /* read from the chain */
};

/* Command ids as the configuration space has them (virtio 1.2, 5.5.6.6). */
#define EBB__HINT_STOP    0u
#define EBB__HINT_DONE_ID 1u
#define EBB__HINT_FIRST   2u

static inline uint64_t ebb__balloon_le(const uint8_t *from, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)from[i] << (8 * i);
    return value;
}

static inline void ebb__balloon_put_le(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static inline void ebb__balloon_fault(struct ebb_balloon_device *device,
                                      enum ebb_balloon_fault fault)
{
    device->stats.faults[fault]++;
}

/* ---- balloon_ops.c ---- */

uint64_t ebb__balloon_now(const struct ebb_balloon_device *device);
void ebb__balloon_needs_reset(struct ebb_balloon_device *device);
void ebb__balloon_config_changed(struct ebb_balloon_device *device);

/* ---- balloon_queue.c ---- */

/* The queue (enum ebb_balloon_queue) that the transport calls `number`; negative: none. */
int ebb__balloon_queue_of(const struct ebb_balloon_device *device, unsigned number);

/* The queue that runs by this number. */
struct ebb__balloon_queue *ebb__balloon_running(struct ebb_balloon_device *device, unsigned number);
bool ebb__balloon_any_running(const struct ebb_balloon_device *device);

/* Does it do what it is for? */
bool ebb__balloon_enabled(const struct ebb_balloon_device *device,
                          const struct ebb__balloon_queue *queue);

/* The available index from which a device that knows nothing of this one goes on. */
uint16_t ebb__balloon_next_index(const struct ebb_balloon_device *device,
                                 const struct ebb__balloon_queue *queue);

/* Look up the ring's addresses. Negative: they are not in memory, or impossible. */
int ebb__balloon_attach(struct ebb_balloon_device *device,
                        const struct ebb_balloon_device_vring *vring, uint16_t start,
                        struct ebb_ring_device *ring);

/* Before rings are touched: where are they, if the memory table has changed? */
void ebb__balloon_follow(struct ebb_balloon_device *device);

/* The queue has no batch any more; its chains stay with the device. What is under way goes on. */
void ebb__batch_orphan(struct ebb_balloon_device *device, unsigned which);

/* ---- balloon_config.c ---- */

/* Must reported pages keep their poison? */
bool ebb__balloon_poisoned(const struct ebb_balloon_device *device);

/* free_page_hint_cmd_id. */
uint32_t ebb__balloon_hint_cmd(const struct ebb_balloon_device *device);

/* ---- balloon_chain.c ---- */

/* Take the queue's next chain. False: there is none, or the ring is broken; `pending` is clear. */
bool ebb__balloon_take(struct ebb_balloon_device *device, struct ebb__balloon_queue *queue,
                       struct ebb__balloon_chain *chain);

/* Look at the queue again later, and have the driver save its notifications until then. */
void ebb__balloon_hush(struct ebb__balloon_queue *queue);
/* Have it notify again. */
void ebb__balloon_listen(struct ebb__balloon_queue *queue);

/* Copy what the driver wrote into the chain's readable buffers to device->bytes: at most `max`
 * bytes, EBB__BALLOON_BYTES at most; how many. The bytes of unreadable buffers are left out. */
unsigned ebb__balloon_read(struct ebb_balloon_device *device,
                           const struct ebb__balloon_chain *chain, unsigned max);

/* Count a buffer that the device should not find here (as writable, if `write`). */
void ebb__balloon_refuse(struct ebb_balloon_device *device, const struct ebb__balloon_chain *chain,
                         bool write);

/* Interrupt, if the driver wants it. */
void ebb__balloon_call(struct ebb_balloon_device *device, struct ebb__balloon_queue *queue);

/* ---- balloon_range.c ---- */

/* The range of a device-writable buffer, if all of it is guest memory; else that is counted. */
bool ebb__balloon_range(struct ebb_balloon_device *device, const struct ebb_ring_buf *buf,
                        struct ebb_range *range);

/* Add a range to the last chain. If there is no room for it, that is counted. */
void ebb__batch_add(struct ebb__batch *batch, uint64_t addr, uint64_t len);

/* ---- balloon_guest.c ---- */

/* A chain of the statistics queue. True: one went back. */
bool ebb__balloon_stats_chain(struct ebb_balloon_device *device,
                              const struct ebb__balloon_chain *chain);

/* What a chain of the hint queue says. Its ranges join the batch if hints are discarded. */
void ebb__balloon_hint_chain(struct ebb_balloon_device *device,
                             const struct ebb__balloon_chain *chain);

/* ---- balloon_batch.c ---- */

/* Is the queue served by batches? The others are on the spot. */
bool ebb__balloon_batched(const struct ebb_balloon_device *device, unsigned which);

/* Can chains be taken off this queue's ring? Not for ever: a driver may break the rules. */
bool ebb__batch_takes(const struct ebb_balloon_device *device, unsigned which);

/* Go on with batches: take chains, end what is discarded or due, submit. */
void ebb__batch_work(struct ebb_balloon_device *device);

/* When ebb__batch_work() wants to be called; UINT64_MAX: never. */
uint64_t ebb__batch_due(const struct ebb_balloon_device *device);

/* No chain waits, and nothing is under way. */
bool ebb__batch_idle(const struct ebb_balloon_device *device);

/* The chains of this queue go back, now. */
void ebb__batch_stop(struct ebb_balloon_device *device, unsigned which);

/* All chains go back, now: see ebb_balloon_device_quiesce(). */
void ebb__batch_flush(struct ebb_balloon_device *device);

/* See ebb_balloon_device_hurry(). */
bool ebb__batch_hurry(struct ebb_balloon_device *device);

/* Have no batch any more; its chains stay with the device. */
void ebb__batch_drop(struct ebb_balloon_device *device);

#endif
