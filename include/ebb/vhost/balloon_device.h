/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device's half of the traditional virtio memory balloon (virtio 1.2, section 5.5): inflate,
 * deflate, statistics, free page hints, free page reporting, page poison. Hosted; no sockets, no
 * threads of its own (the discard pool has them), no globals.
 *
 * A VMM embeds it behind any transport: it hands over what the guest writes to the
 * configuration space and to the queues' registers, and is called back to interrupt. The guest is
 * hostile: whatever it does costs bounded work, is counted by cause, and at worst ends in
 * EBB_STATUS_NEEDS_RESET.
 *
 * Guest memory that was never used stays so: buffers are read by ebb_memory_read(). Rings are read
 * and written where they are mapped; a start can allocate the pages that its ring lies in (26 KiB
 * at most, so some ten pages of 4 KiB, or six huge ones), and nothing that a chain says allocates
 * more, as there are no indirect descriptors.
 *
 * A chain is taken off its ring when the driver notifies, and what it says is copied then: what the
 * driver writes there later changes nothing. It goes back when it is done with, in its turn, and
 * within config.answer_ms, but for a system call that goes on then (of 8 MiB, or one backing page).
 * A driver may wait no longer than a second, and then use its buffers and pages for something else:
 * Windows' does. What was not discarded in time is left, EBB_DISCARD_LATE. The balloon's pages may
 * go later, if the driver accepted EBB_F_MUST_TELL_HOST, until it deflates. Deflated pages go back
 * when no discard is under way any more.
 *
 * Threads: one thread, the device's, calls all functions, except those that say otherwise; the
 * callbacks are called on it, except `wake`.
 */
#ifndef EBB_VHOST_BALLOON_DEVICE_H
#define EBB_VHOST_BALLOON_DEVICE_H

#include <ebb/ring.h>
#include <ebb/types.h>
#include <ebb/vhost/discard.h>
#include <ebb/vhost/memory.h>
#include <ebb/virtio.h>

#define EBB_BALLOON_CFG_SIZE 16u

/* Page numbers taken from one inflate or deflate chain at most (Linux sends 256, Windows 1024); the
 * rest of a longer one is not looked at. Numbers have 32 bits; but a chain in which every second
 * one is 0 has half as many, of 64 bits (Windows' 64-bit driver, as its source was read). */
#define EBB_BALLOON_DEVICE_CHAIN_PFNS 1024u

/* Statistics kept of a guest, by tag; others are ignored, as the specification demands. */
#define EBB_BALLOON_DEVICE_TAGS 16u

enum ebb_balloon_device_queues {
    /* Numbers count only the queues that exist with the features that the driver accepted: Linux,
     * and the VMMs that follow it. A number beyond these, or that then names no queue, is taken as
     * counted by the features offered (drivers that know a VMM makes its queues before it knows
     * them), and after that as the specification has it. The ways differ for one driver only: that
     * accepts hints and reporting, and refuses statistics. The default. */
    EBB_BALLOON_DEVICE_DENSE = 0,
    /* As the specification fixes them (enum ebb_balloon_queue). */
    EBB_BALLOON_DEVICE_FIXED,
};

/* What the guest did that it must not; each is counted, and what is said here follows. */
enum ebb_balloon_fault {
    EBB_FAULT_RING,  /* the ring is broken (loop, index, chain, indirect): NEEDS_RESET */
    EBB_FAULT_QUEUE, /* a ring that is not in guest memory, or of an impossible size: refused; or
                      * not there any more: NEEDS_RESET */
    EBB_FAULT_DIRECTION, /* a buffer that is readable where writable is due, or the reverse: ignored
                          */
    EBB_FAULT_LENGTH,    /* zero, not whole pfns or entries, or too long: what is whole is served */
    EBB_FAULT_BUFFER,    /* pfns or statistics that do not lie in guest memory: ignored */
    EBB_FAULT_PFN,       /* a page or range outside of guest memory: ignored */
    EBB_FAULT_HINT,      /* a command id that the device never gave: ignored */
    EBB_FAULT_STATS,     /* a second statistics buffer before the first was asked back: the first is
                          * returned */
    EBB_FAULT_CONFIG,    /* a write to a field that is the device's, or outside: ignored */
    EBB_FAULTS,
};
const char *ebb_balloon_fault_name(enum ebb_balloon_fault fault);

struct ebb_balloon_device_stats {
    uint64_t kicks;
    uint64_t chains[EBB_BALLOON_QUEUES]; /* returned */
    uint64_t inflated_pages, deflated_pages;
    uint64_t reported_ranges, reported_bytes;
    uint64_t poison_skipped_bytes; /* reported, but the guest wants its poison kept */
    uint64_t hinted_ranges, hinted_bytes;
    uint64_t stats_received;
    uint64_t faults[EBB_FAULTS];
    uint64_t resets;
};

/* Statistics that the guest sent last. The first after the start are as old as the driver, which
 * fills a buffer when it starts and sends the next when that one is asked back. */
struct ebb_balloon_guest_stats {
    uint64_t at_ns;                           /* when, by the device's clock; 0: never */
    uint32_t known;                           /* bit i: values[i] was sent, and is not all ones */
    uint64_t values[EBB_BALLOON_DEVICE_TAGS]; /* by enum ebb_balloon_stat_tag */
};

/* Called on the device's thread, from within its functions, of which they call none; any but `call`
 * and `wake` may be NULL. */
struct ebb_balloon_device_ops {
    /* Interrupt: chains went back on this queue (as the transport numbers it). */
    void (*call)(void *ctx, unsigned queue);
    /* The configuration space changed: tell the driver. */
    void (*config_changed)(void *ctx);
    /* EBB_STATUS_NEEDS_RESET is set: tell the driver, if the transport can. */
    void (*needs_reset)(void *ctx);
    /* Have ebb_balloon_device_work() called on the device's thread, soon. From any thread; must not
     * wait for the device's. An eventfd will do. */
    void (*wake)(void *ctx);
    /* Free page hints, for a migration that leaves such pages out; see
     * ebb_balloon_device_hint_start(). All of each range is guest memory. */
    void (*hinted)(void *ctx, const struct ebb_range *ranges, unsigned n);
    /* The device's clock, monotonic ns, not 0. NULL: CLOCK_MONOTONIC. */
    uint64_t (*now)(void *ctx);
};

/* Zero means default for every field but memory, discard and ops. */
struct ebb_balloon_device_config {
    struct ebb_memory *memory;   /* the VM's: buffers are looked up there */
    struct ebb_discard *discard; /* this device's alone, on the same memory */
    const struct ebb_balloon_device_ops *ops;
    void *ctx;
    /* Of the balloon's features the driver is offered all but DEFLATE_ON_OOM (which changes what
     * the guest does under pressure), and these; and none of those withheld. Without MUST_TELL_HOST
     * accepted, parts of a large backing page that are inflated are not gathered
     * (EBB_DISCARD_INFLATED). Masks of EBB_F_*, of the balloon only. EBB_F_VERSION_1 always is
     * offered. */
    uint64_t offer_too;
    uint64_t withhold;
    enum ebb_balloon_device_queues numbering;
    /* Chains that are taken off one queue before others, and other devices, have their turn; 1 to
     * 256. Default 64. One batch is under way at a time, of one queue: its next chains up to
     * 64 MiB, or one; the queues take turns. Of each there is room for EBB_DISCARD_RANGES ranges
     * that wait; what is beyond that is left, EBB_DISCARD_LATE. */
    unsigned batch_chains;
    /* How long a batch of fewer chains than that waits for further ones, in microseconds, at most
     * 100,000, which is part of answer_ms. 0, the default: not at all (Linux sends its next chain
     * when the last came back). It does not wait while another queue has something. The transport
     * calls ebb_balloon_device_work() again at ebb_balloon_device_due(). */
    uint32_t gather_us;
    /* Milliseconds in which chains go back, at most 1,000,000. Default 200. */
    uint32_t answer_ms;
    /* Free page hints are discarded, too. That is a race with guests that use such a page before
     * the device has seen it, unless they wait for the device (the merged kernel does not). */
    bool discard_hints;
};

struct ebb_balloon_device;

/* Some 280 KiB, most of which only load touches. NULL, with errno set: no memory, or a bad
 * configuration (EINVAL). */
struct ebb_balloon_device *ebb_balloon_device_new(const struct ebb_balloon_device_config *config);

/* Drains. Rings are not touched any more. */
void ebb_balloon_device_free(struct ebb_balloon_device *device);

/* ---- what a transport does ---- */

/* The features offered, EBB_F_VERSION_1 among them. */
uint64_t ebb_balloon_device_features(const struct ebb_balloon_device *device);

/* The driver accepts these. Bits that are the transport's are ignored: 30 (vhost-user) and 33 to
 * 40, except for 34 and 35, which would change the rings. -EBB_EINVAL: some were not offered, or
 * others are in force and a queue is running. */
EBB_MUST_CHECK int ebb_balloon_device_accept(struct ebb_balloon_device *device, uint64_t features);

/* Queues that exist, with the features accepted (none yet: offered). */
unsigned ebb_balloon_device_queue_count(const struct ebb_balloon_device *device);

/* Configuration space, little-endian. Beyond its end reads as zero. */
void ebb_balloon_device_config_read(const struct ebb_balloon_device *device, uint32_t offset,
                                    void *to, uint32_t len);

/* Takes `actual`, and poison_val while no queue runs, if they are covered as a whole; all else is
 * ignored, and if it differs from what is there counted (EBB_FAULT_CONFIG), since some transports
 * write the whole space back. Any offset and length. */
void ebb_balloon_device_config_write(struct ebb_balloon_device *device, uint32_t offset,
                                     const void *from, uint32_t len);

struct ebb_balloon_device_vring {
    unsigned size;                /* a power of two, at most EBB_RING_SIZE_LIMIT */
    uint64_t desc, avail, used;   /* as `translate` understands them */
    uint16_t start;               /* next available index */
    ebb_ring_translate translate; /* NULL: guest addresses, in the device's memory */
    void *translate_ctx;
};

/*
 * Start a queue (as the transport numbers it), or set it up anew: then it is stopped first. What is
 * there already is served at the next kick. -EBB_EINVAL: no such queue, the ring is not in guest
 * memory or of a bad size, or the queue runs by another number.
 *
 * The ring's addresses are translated here, and again by the first call after the memory table has
 * changed: rings may move, and a queue whose ring is gone stops, with EBB_STATUS_NEEDS_RESET and
 * EBB_FAULT_QUEUE. So a region may leave the table once ebb_balloon_device_quiesce() was called,
 * and with no call in between come back elsewhere. Buffers are looked up each time.
 *
 * The chains of a queue go back in the order in which they were made available (but for a
 * statistics buffer that came too early): if this process dies, the index of the used ring is where
 * another can go on.
 */
EBB_MUST_CHECK int ebb_balloon_device_start(struct ebb_balloon_device *device, unsigned queue,
                                            const struct ebb_balloon_device_vring *vring);

/* A queue that is running but not enabled is served without any effect: every chain goes back,
 * nothing is discarded. Only statistics buffers, for which no driver waits, stay in their ring. All
 * are enabled until this is called, and after a reset. Numbers of no queue are ignored. */
void ebb_balloon_device_enable(struct ebb_balloon_device *device, unsigned queue, bool on);

/*
 * Stop a queue: a batch of it is waited for and goes back first. Returns the next available index,
 * from which a later start goes on; a statistics buffer that the device held counts as not yet
 * taken.
 * -EBB_ENOENT: it does not run.
 */
EBB_MUST_CHECK int ebb_balloon_device_stop(struct ebb_balloon_device *device, unsigned queue);

/* The driver, or the transport, resets the device: queues stop (a discard under way is waited for;
 * no chain goes back), features and what the driver wrote are forgotten, the target (num_pages)
 * stays. */
void ebb_balloon_device_reset(struct ebb_balloon_device *device);

/* The driver notified. A bounded number of chains is taken; what is more is taken by
 * ebb_balloon_device_work() (which `wake` asks for if it can go on at once). */
void ebb_balloon_device_kick(struct ebb_balloon_device *device, unsigned queue);

/* Go on: after `wake`, and when `due`. Returns true if there is more to do at once (call it again
 * when other work had its turn). */
bool ebb_balloon_device_work(struct ebb_balloon_device *device);

/* When work() wants to be called without a wake, by the device's clock (ns); 0: at once;
 * UINT64_MAX: never. */
uint64_t ebb_balloon_device_due(const struct ebb_balloon_device *device);

/* The next available index of a queue (as the transport numbers it) that runs: it tells whether
 * chains were taken since. 0 if it does not run. */
uint16_t ebb_balloon_device_index(const struct ebb_balloon_device *device, unsigned queue);

/* EBB_STATUS_NEEDS_RESET, or 0. */
uint8_t ebb_balloon_device_status(const struct ebb_balloon_device *device);

/* Waits until no discard is under way and gives all chains that were taken back: before the memory
 * table changes. Of several batches that wait one is discarded, the others are left. */
void ebb_balloon_device_quiesce(struct ebb_balloon_device *device);

/* A batch that waits for further chains is sent off. True: none is under way, or it is done with,
 * so that quiesce(), stop() and reset() do not wait. False: ops->wake says when to ask again, and
 * the work() that follows would begin the next one. */
EBB_MUST_CHECK bool ebb_balloon_device_hurry(struct ebb_balloon_device *device);

/* Take EBB_STATUS_NEEDS_RESET back, on a transport that does not say when the driver resets the
 * device. No queue runs. */
void ebb_balloon_device_forgive(struct ebb_balloon_device *device);

/* The driver has begun anew, on a transport that does not say when it resets the device: it has
 * nothing in the balloon until it says otherwise, and what the one before told of its guest is
 * forgotten. */
void ebb_balloon_device_begin(struct ebb_balloon_device *device);

/* All that kicks announced so far went back, and no batch is under way or waits: true. Without
 * waiting; for an operator who flushes before a pause or a snapshot. */
bool ebb_balloon_device_idle(const struct ebb_balloon_device *device);

/* ---- what an operator does ---- */

/* Pages of 4 KiB that the balloon shall have. The driver is told. */
void ebb_balloon_device_resize(struct ebb_balloon_device *device, uint32_t pages);
uint32_t ebb_balloon_device_target(const struct ebb_balloon_device *device);
/* What the driver says that it has. */
uint32_t ebb_balloon_device_actual(const struct ebb_balloon_device *device);

/* Ask the guest for statistics. -EBB_EOPNOTSUPP: not negotiated. -EBB_EAGAIN: it has not given a
 * buffer yet, or not given the last one back. */
EBB_MUST_CHECK int ebb_balloon_device_poll_stats(struct ebb_balloon_device *device);
const struct ebb_balloon_guest_stats *
ebb_balloon_device_guest_stats(const struct ebb_balloon_device *device);

/* Free page hints (5.5.6.6): ask for all free pages now; they go to ops->hinted until hint_done()
 * or the guest is through. -EBB_EOPNOTSUPP: not negotiated. -EBB_EBUSY: the guest is still sending.
 * Each gets the next command id, so none is used again that the driver may not have stopped. A
 * guest that wants its poison kept gives no hints that count. */
EBB_MUST_CHECK int ebb_balloon_device_hint_start(struct ebb_balloon_device *device);
/* The driver may use the hinted pages again (DONE). */
void ebb_balloon_device_hint_done(struct ebb_balloon_device *device);
/* Is the guest still sending? */
bool ebb_balloon_device_hinting(const struct ebb_balloon_device *device);

const struct ebb_balloon_device_stats *
ebb_balloon_device_get_stats(const struct ebb_balloon_device *device);

/* ---- save and restore ---- */

/* All that a driver can see and the device must remember; of fixed size and byte order. Queues'
 * addresses are as start() got them. Not in it: counters, the guest's statistics (ask anew), and
 * what the discard gathered of partial pages. */
#define EBB_BALLOON_DEVICE_STATE_SIZE 512u

/* Quiesces, then writes EBB_BALLOON_DEVICE_STATE_SIZE bytes. The device runs on. */
void ebb_balloon_device_save(struct ebb_balloon_device *device, void *state);

/* Into a new device of the same features: those accepted, the configuration space, the queues (that
 * are started, with `translate`, NULL as for start(), and served without a kick). -EBB_EINVAL: this
 * is no such state, of another version, or asks for what the device does not offer; the device is
 * reset then, its target as it was. The state may come from anybody. */
EBB_MUST_CHECK int ebb_balloon_device_restore(struct ebb_balloon_device *device, const void *state,
                                              ebb_ring_translate translate, void *ctx);

#endif
