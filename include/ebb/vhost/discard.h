/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Discarding: making the host take back the memory behind ranges of guest memory. Hosted.
 *
 * A *pool* has threads; a *discard* belongs to one VM and takes one *batch* at a time. A batch is
 * sorted, merged, cut to whole backing pages and discarded by as few system calls as its ranges
 * allow, of 8 MiB at most (or one backing page). Then the engine looks whether it worked. What was
 * not begun in the time that the batch has is left. Batches of several VMs in one process wait for
 * the pool's threads in the order in which they came; one that gets none in its time can be ended
 * without (ebb_discard_hurry()).
 *
 * What cannot be discarded is left, counted by cause, and never an error: a device acknowledges it
 * all the same (virtio 1.2, 5.5.6.6 and 5.5.6.7: it *may* drop the data).
 *
 * Threads: one thread, the device's, calls all functions on a discard, except those that say
 * otherwise.
 */
#ifndef EBB_VHOST_DISCARD_H
#define EBB_VHOST_DISCARD_H

#include <ebb/types.h>
#include <ebb/vhost/memory.h>

/* ---- pool ---- */

struct ebb_discard_pool;

#define EBB_DISCARD_THREADS_LIMIT 64u

/* `threads`: 1 to EBB_DISCARD_THREADS_LIMIT; 0: 2. NULL, with errno set: no memory, no thread, or
 * (EINVAL) too many. */
struct ebb_discard_pool *ebb_discard_pool_new(unsigned threads);

/* No discard uses it any more. */
void ebb_discard_pool_free(struct ebb_discard_pool *pool);

/* ---- of one VM ---- */

enum ebb_discard_kind {
    /* Free now: the guest may use it again once the batch is acknowledged. */
    EBB_DISCARD_REPORTED,
    /* The balloon's, until the guest says otherwise: parts of a large backing page are gathered
     * until all of it is there, and go then. So only of a guest that says so *before* it uses a
     * frame again, that is, one that accepted EBB_F_MUST_TELL_HOST (Linux does so anyway); and such
     * word goes to ebb_discard_deflated() before it is acknowledged. What others inflate is
     * REPORTED: it may go now, and never later. */
    EBB_DISCARD_INFLATED,
};

/* Why memory that was to be discarded was not, or was for nothing. */
enum ebb_discard_cause {
    EBB_DISCARD_OUTSIDE,   /* the range wraps, or is not all of it guest memory */
    EBB_DISCARD_PARTIAL,   /* part of a backing page of which the rest is, or may be, in use */
    EBB_DISCARD_BACKING,   /* of a region that cannot be discarded */
    EBB_DISCARD_INHIBITED, /* the operator said so */
    EBB_DISCARD_LATE,      /* there was no time for it, or no room, before it had to go back */
    EBB_DISCARD_RATE,      /* beyond what the rate limit allows */
    EBB_DISCARD_FAILED,    /* the system call failed */
    EBB_DISCARD_RESIDENT,  /* it succeeded, and the memory is still there (by sample) */
    EBB_DISCARD_CAUSES,
};

/* "outside", "partial", ...; static storage. */
const char *ebb_discard_cause_name(enum ebb_discard_cause cause);

/* Latencies of batches are counted in powers of two: [i] those below 2^i us and not below half of
 * that; the last, all longer ones. */
#define EBB_DISCARD_BUCKETS 24u

/*
 * Each byte asked for is in one place: at any time
 *   asked = discarded + repeated + gathered + released + all of `not` but RESIDENT,
 * the last being a part of what was discarded.
 */
struct ebb_discard_stats {
    uint64_t batches;         /* done */
    uint64_t ranges;          /* in them */
    uint64_t asked_bytes;     /* bytes of these */
    uint64_t calls;           /* system calls that discard, those tried again included */
    uint64_t discarded_bytes; /* by calls that succeeded */
    uint64_t repeated_bytes;  /* asked for more than once, in a batch or while gathered */
    uint64_t gathered_bytes;  /* of the balloon, waiting for the rest of their backing pages */
    uint64_t released_bytes;  /* gathered, then deflated or forgotten */
    uint64_t not_bytes[EBB_DISCARD_CAUSES];
    uint64_t not_ranges[EBB_DISCARD_CAUSES]; /* ranges, or parts, that these are of */
    uint64_t checked_bytes;                  /* looked at afterwards: RESIDENT is a part of these */
    uint64_t busy_ns;                        /* in pool threads */
    uint64_t wait_ns;                        /* for them: the rest, from submit to done */
    uint64_t latency[EBB_DISCARD_BUCKETS];   /* submit to done */
    int last_error; /* errno of the last discarding call that failed; 0: none did yet */
};

/* The system calls, so that tests can let them fail. Like the libc's: -1 and errno. All are set;
 * they are called in pool threads, `now` by whoever calls a function of the discard, too. */
struct ebb_discard_ops {
    int (*fallocate)(void *ctx, int fd, int mode, uint64_t offset, uint64_t len);
    int (*madvise)(void *ctx, void *addr, size_t len, int advice);
    int (*mincore)(void *ctx, void *addr, size_t len, unsigned char *vec);
    /* lseek() with SEEK_DATA or SEEK_HOLE */
    int64_t (*seek)(void *ctx, int fd, uint64_t offset, int whence);
    /* bytes that the file takes (st_blocks), and its size */
    int (*blocks)(void *ctx, int fd, uint64_t *taken, uint64_t *size);
    uint64_t (*now)(void *ctx); /* monotonic ns */
    void *ctx;
};

/* Zero means default for every field but pool and memory. */
struct ebb_discard_config {
    struct ebb_discard_pool *pool;
    const struct ebb_memory *memory;
    /* Bytes a second that are discarded at most; 0: any number. A budget: it grows by so much, up
     * to that of one second, with which it begins, and is overdrawn by less than a backing page.
     * Nothing waits for it: what it does not allow is left (EBB_DISCARD_RATE). */
    uint64_t rate;
    /* Of so many discarding calls one is looked at afterwards; 1: each; UINT32_MAX: none. Default
     * 16; the first is, and the one after each that was found to have left memory there. */
    uint32_t check_every;
    /* Bytes that the table of partial backing pages may take: 112 for each of 2 MiB, 32 KiB for
     * each of 1 GiB. Default 256 KiB. When it is full, the page that nothing was added to for the
     * longest time is EBB_DISCARD_PARTIAL. */
    uint32_t gather_bytes;
    const struct ebb_discard_ops *ops; /* NULL: the system's */
};

/* Ranges in a batch at most. A device has room for five times as many, 16 bytes each. What defines
 * less has to do so wherever this is included, the library too. */
#ifndef EBB_DISCARD_RANGES
#define EBB_DISCARD_RANGES 2048u
#endif

struct ebb_discard;

/* NULL, with errno set: no memory, or a bad configuration (EINVAL). */
struct ebb_discard *ebb_discard_new(const struct ebb_discard_config *config);

/* Drains. Not from done(). */
void ebb_discard_free(struct ebb_discard *discard);

/*
 * Hand over n ranges of guest memory (any addresses and lengths; 1 to EBB_DISCARD_RANGES), which
 * are copied. When all is done, `done` is called in a pool thread (of 256 KiB of stack), once,
 * without a lock held; from then on the next batch can be submitted, from done() itself, too.
 * Regions are copied from the table before this returns; if any came or went since the last batch
 * (ebb_memory.changes), what was gathered is forgotten. A range is served if all of it is guest
 * memory, in one region or in several that adjoin; one of length 0 is ignored.
 * After `ns` no system call begins: what is left then is EBB_DISCARD_LATE. UINT64_MAX: no limit.
 * -EBB_EBUSY: one is under way. -EBB_EINVAL: n.
 */
EBB_MUST_CHECK int ebb_discard_submit(struct ebb_discard *discard, enum ebb_discard_kind kind,
                                      const struct ebb_range *ranges, unsigned n, uint64_t ns,
                                      void (*done)(void *ctx), void *ctx);

/* These were not submitted, since there was no time or no room: count them as asked for and
 * EBB_DISCARD_LATE. At any time. */
void ebb_discard_left(struct ebb_discard *discard, uint64_t bytes, unsigned ranges);

/* Until no batch is under way, and done() has returned. Before a region leaves the table. Not from
 * done(). */
void ebb_discard_drain(struct ebb_discard *discard);

/* The time of the batch under way is over, if there is one: no further system call begins. True: it
 * waited for a thread; it has ended, and done() is not called. False: none is under way, or done()
 * is called soon: a thread has it, and at most one system call goes on. */
EBB_MUST_CHECK bool ebb_discard_hurry(struct ebb_discard *discard);

/* The guest takes these frames of the balloon back (any addresses, any number): they leave the
 * table of partial pages. No batch may be under way (-EBB_EBUSY). */
EBB_MUST_CHECK int ebb_discard_deflated(struct ebb_discard *discard, const struct ebb_range *ranges,
                                        unsigned n);

/* Forget all that was gathered: the device was reset, or the table was replaced as a whole. No
 * batch may be under way (-EBB_EBUSY). */
EBB_MUST_CHECK int ebb_discard_forget(struct ebb_discard *discard);

/* On: when this returns, nothing of this VM is being discarded, nor will be until it is off; it
 * waits for at most one system call. Batches go on, and are acknowledged. From any thread. */
void ebb_discard_inhibit(struct ebb_discard *discard, bool on);
bool ebb_discard_inhibited(const struct ebb_discard *discard);

/* inhibit(on) without waiting. False: a system call that began before goes on (who holds a file's
 * lock for long can make it wait); ask again until this is true. From any thread. */
EBB_MUST_CHECK bool ebb_discard_try_inhibit(struct ebb_discard *discard);

/* The budget begins anew. From any thread. */
void ebb_discard_set_rate(struct ebb_discard *discard, uint64_t rate);

/* A copy of the counters, consistent. From any thread. */
void ebb_discard_get_stats(const struct ebb_discard *discard, struct ebb_discard_stats *stats);

#endif
