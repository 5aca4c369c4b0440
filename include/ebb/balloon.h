/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Driver of the traditional virtio memory balloon (virtio 1.2, section 5.5):
 * free page reporting, inflate, deflate, statistics, page poison.
 *
 * Reporting is a report device (report.h): the driver hands it to the caller's
 * engine. Nothing on that path allocates or waits. Inflating and deflating
 * needs frames: the guest supplies them by callbacks.
 */
#ifndef EBB_BALLOON_H
#define EBB_BALLOON_H

#include <ebb/report.h>
#include <ebb/ring.h>
#include <ebb/transport.h>
#include <ebb/types.h>
#include <ebb/virtio.h>

/* Queue entries the driver uses at most, and PFNs in one inflate or deflate buffer. */
#define EBB_BALLOON_RING_SIZE 128u
#define EBB_BALLOON_PFNS      256u
#define EBB_BALLOON_STATS_MAX 16u

struct ebb_balloon_stat {
    uint16_t tag; /* enum ebb_balloon_stat_tag */
    uint64_t value;
};

/* What the guest supplies. Called from ebb_balloon_work() only. Any may be NULL:
 * the balloon then stays empty (it needs the first three), or sends no statistics. */
struct ebb_balloon_ops {
    /* Take up to n frames out of use for the balloon; their pfns (below 2^32)
     * go to pfns[]. Returns how many, 0: none to spare now. */
    unsigned (*inflate)(void *ctx, uint32_t *pfns, unsigned n);
    /* Choose up to n frames of the balloon to take back; not to be used before
     * deflated() names them. */
    unsigned (*deflate)(void *ctx, uint32_t *pfns, unsigned n);
    /* The host knows: these frames can be used again. */
    void (*deflated)(void *ctx, const uint32_t *pfns, unsigned n);
    /* Fill in up to n statistics; returns how many, at least one. */
    unsigned (*stats)(void *ctx, struct ebb_balloon_stat *stats, unsigned n);
};

enum ebb_balloon_numbering {
    /* Count only the queues whose feature the device offers, accepted or not:
     * QEMU and the other VMMs, which make them before they know the driver. */
    EBB_BALLOON_DENSE = 0,
    EBB_BALLOON_FIXED = 1, /* as the specification numbers them */
};

/* Zero means default for every field but transport and dma. */
struct ebb_balloon_config {
    struct ebb_transport *transport;
    /* Memory for rings and buffers, ebb_balloon_dma_size() bytes, aligned to
     * 4096, and its guest-physical address. */
    void *dma;
    uint64_t dma_addr;
    enum ebb_balloon_numbering numbering;
    /* Features not to accept, for tests: mask of EBB_F_*. */
    uint64_t refuse;
    /* The guest fills every frame with poison_val before it frees it, and expects to
     * find it so: PAGE_POISON is needed for reporting (5.5.6.7). So set poison if the
     * zones have an ebb_fill policy, and poison_val to their poison_value, or to 0 with
     * EBB_FILL_ZERO. Without it, an engine with such zones refuses the balloon. */
    bool poison;
    uint32_t poison_val;
    const struct ebb_balloon_ops *ops;
    void *ctx;
    /* For ebb_port_wake() when ebb_balloon_work() has something to do. */
    void *worker;
};

struct ebb_balloon_counters {
    uint64_t inflated; /* frames, total */
    uint64_t deflated;
    uint64_t stats_sent;
    uint64_t batches;         /* reporting batches submitted */
    uint64_t protocol_errors; /* of the device: bad used ids, lengths, indices */
};

struct ebb_balloon_vq {
    struct ebb_ring_driver ring;
    struct ebb_ring_slot slots[EBB_BALLOON_RING_SIZE];
    struct ebb_lock lock;
    unsigned index; /* as the transport numbers it */
    bool exists;
};

/* Caller-owned; to be treated as opaque. */
struct ebb_balloon {
    struct ebb_report_device device; /* first: the report device is the balloon */
    struct ebb_balloon_config config;
    struct ebb_report *report; /* set by ebb_balloon_attach() */
    uint64_t features;
    struct ebb_balloon_vq queues[EBB_BALLOON_QUEUES];
    uint32_t *pfns;                  /* in dma: one buffer for inflate or deflate */
    uint32_t sent[EBB_BALLOON_PFNS]; /* what was put there: the host can write to dma */
    struct ebb_ring_buf bufs[EBB_BALLOON_RING_SIZE]; /* of a batch, under its queue's lock */
    uint8_t *stats;                                  /* in dma */
    uint32_t actual;                                 /* frames in the balloon */
    uint32_t target;                                 /* and how many the host wants there */
    uint32_t events;                                 /* atomic: work to do */
    uint32_t transfer; /* frames in the buffer that is with the host */
    bool transfer_deflate;
    bool stats_held;    /* the host has our statistics buffer */
    uint32_t in_flight; /* chains of a reporting batch with the host; under its queue's lock */
    uint32_t running;   /* atomic: started and not stopped */
    int given_up;       /* atomic: what the batch will end with once the device is reset */
    struct ebb_balloon_counters counters;
};

/* Bytes of DMA memory that a balloon needs. */
size_t ebb_balloon_dma_size(void);

/*
 * `balloon`: new, or stopped; neither interrupt nor ebb_balloon_work() on it is under way.
 * Reset the device, negotiate features, set up its queues, start it. Reporting
 * is on if balloon->features has EBB_F_PAGE_REPORTING; ebb_balloon_attach() then
 * registers it with an engine.
 * -EBB_EINVAL: configuration. -EBB_ENODEV: the device is no VERSION_1 device, or
 * refused the features. -EBB_ETIMEDOUT: it does not come out of reset.
 * -EBB_ENOSPC: a queue is missing or smaller than it must be. On error the
 * device is left reset (or FAILED) and nothing refers to `balloon`.
 */
EBB_MUST_CHECK int ebb_balloon_start(struct ebb_balloon *balloon,
                                     const struct ebb_balloon_config *config);

/* Register with an engine. Errors as ebb_report_register(), and
 * -EBB_EOPNOTSUPP: also if reporting was not negotiated. -EBB_ENODEV: the device was
 * stopped, or given up. */
EBB_MUST_CHECK int ebb_balloon_attach(struct ebb_balloon *balloon, struct ebb_report *report);

/* Unregister from the engine; waits for the batch in flight. 0 if not attached. */
void ebb_balloon_detach(struct ebb_balloon *balloon);

/*
 * Reset the device, complete a batch that it still had with -EBB_ECANCELED, and
 * detach: ends even if the host never answers the batch. All frames in the
 * balloon, or on their way in or out, are the guest's again, without a call of
 * deflated(). Not while ebb_balloon_work() runs.
 * -EBB_ETIMEDOUT: the device does not come out of reset, within a second. It may
 * still drop what is in the batch, so the blocks stay with it and the balloon
 * stays attached; nothing else goes on. Call it again to try again.
 */
EBB_MUST_CHECK int ebb_balloon_stop(struct ebb_balloon *balloon);

/* The device's interrupt, from interrupt context. Acknowledges it, completes the
 * reporting batch right here, leaves the rest to ebb_balloon_work(). Harmless on
 * a balloon that was not started, or was stopped. */
void ebb_balloon_irq(struct ebb_balloon *balloon);

/* The same, for the message of configuration changes where it is one of its own
 * (ebb_pci_use_msix()). The configuration is read only when it changed: each read
 * is an exit, and behind a vhost-user device a message to another process, too. */
void ebb_balloon_config_irq(struct ebb_balloon *balloon);

/* The slow half: inflate, deflate, statistics, configuration changes. One
 * caller at a time; not from interrupt context unless the ops may run there.
 * Returns true if it has to be called again after a while (200 ms, say), since no
 * interrupt will come: the balloon is not as large as the host wants it and the
 * guest had no frames for that, or a device that was given up is still in reset. */
bool ebb_balloon_work(struct ebb_balloon *balloon);

#endif
