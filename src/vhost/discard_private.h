/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the discard share. A batch goes through them in this order:
 *   discard.c          submit: ranges and regions are copied
 *   discard_pool.c     it waits for a thread
 *   discard_batch.c    a pool thread has it: the next five, and the counters
 *   discard_extents.c  ranges become extents of whole backing pages, sorted and merged
 *   discard_gather.c   parts of the balloon's pages wait for the rest
 *   discard_call.c     the system calls
 *   discard_rate.c     how much the rate limit allows
 *   discard_effect.c   did it work?
 *
 * Locks: the pool's guards when whose batch is worked on (all of struct ebb_discard up to
 * `account`). `account` guards the counters and the budget, `discarding` is held around a system
 * call. None is taken while another is held. The rest of a struct ebb_discard belongs to who has
 * set `busy`; and while it is `queued`, to who takes it off the list.
 */
#ifndef EBB_VHOST_DISCARD_PRIVATE_H
#define EBB_VHOST_DISCARD_PRIVATE_H

#include <ebb/vhost/discard.h>

#include <pthread.h>
#include <stdatomic.h>

#define EBB__NS_PER_SECOND UINT64_C(1000000000)

/* ---- parts of the balloon's backing pages ---- */

#define EBB__GATHER_BUCKETS 512u

struct ebb__gather_page;

struct ebb__gather {
    struct ebb__gather_page *buckets[EBB__GATHER_BUCKETS];
    struct ebb__gather_page *oldest, *newest;
    uint64_t frames; /* in all pages */
    unsigned pages;
    uint32_t bytes, bytes_limit;
};

/* A part of one backing page, of `page` bytes from `start` on. */
struct ebb__part {
    int fd; /* as in struct ebb__extent */
    uint64_t start, page;
    uint64_t from, to; /* whole frames of it */
};

/* True if that makes the page whole; it leaves the table then, and its bytes are the caller's to
 * account for. Otherwise they are gathered, repeated or EBB_DISCARD_PARTIAL. */
bool ebb__gather_add(struct ebb__gather *gather, const struct ebb__part *part,
                     struct ebb_discard_stats *sum);
/* The frames that [from, to) of this fd touches leave the table. How many of them were in it. */
uint64_t ebb__gather_drop(struct ebb__gather *gather, int fd, uint64_t page, uint64_t from,
                          uint64_t to);
/* All; how many frames these were. */
uint64_t ebb__gather_clear(struct ebb__gather *gather);

/* ---- one batch ---- */

/* [start, end) of a file, or of host addresses if fd is -1. */
struct ebb__extent {
    uint64_t start, end;
    int fd;
    uint16_t region; /* of the copy: the one that its first byte was in when it was made */
};

/* Ranges that do not overlap are cut at the ends of regions only. */
#define EBB__EXTENTS (EBB_DISCARD_RANGES + EBB_MEMORY_REGIONS)

struct ebb__work {
    struct ebb_discard *discard;
    struct ebb_discard_stats sum; /* of this batch */
    unsigned n;
    struct ebb__extent extents[EBB__EXTENTS];
    uint64_t run_end[EBB_MEMORY_REGIONS]; /* where the regions that adjoin this one end */
};

/* ---- a VM's discard ---- */

struct ebb_discard {
    /* The pool's lock guards these. */
    struct ebb_discard *next; /* in the pool's list */
    bool busy;                /* a batch is under way, or somebody works on what is gathered */
    bool queued;              /* in the pool's list */
    unsigned in_done;         /* calls of done() that have not returned */
    pthread_cond_t idle;

    pthread_mutex_t account;
    struct ebb_discard_stats stats;
    uint64_t rate;      /* bytes a second; 0: any */
    double budget;      /* bytes */
    uint64_t budget_at; /* by its clock, ns: as it was then */

    pthread_mutex_t discarding;
    atomic_bool inhibited;

    struct ebb_discard_pool *pool; /* constant, as the next three */
    const struct ebb_memory *memory;
    const struct ebb_discard_ops *ops;
    uint32_t check_every;

    uint64_t submit_at;          /* by its clock, ns */
    _Atomic uint64_t late_after; /* then no system call begins */
    void (*done)(void *ctx);
    void *done_ctx;
    enum ebb_discard_kind kind;
    unsigned n;
    struct ebb_range ranges[EBB_DISCARD_RANGES];
    struct ebb_memory regions; /* a copy, of the last submit */
    struct ebb__gather gather;
    uint32_t check_in; /* calls until one is looked at */
    uint64_t random;
    struct ebb__work work;
};

static inline void ebb__count_not(struct ebb_discard_stats *sum, enum ebb_discard_cause cause,
                                  uint64_t bytes)
{
    sum->not_bytes[cause] += bytes;
    sum->not_ranges[cause]++;
}

/* The claimed discard's batch, all but done(). */
void ebb__discard_batch(struct ebb_discard *discard);

/* From the discard's ranges, which are not of use any more afterwards: what is to be discarded. */
void ebb__extents_make(struct ebb__work *work);
/* Discard extents and look. */
void ebb__extents_discard(struct ebb__work *work);
/* Bytes of [start, start + len) that are still there, among those looked at (*looked). */
uint64_t ebb__effect(struct ebb_discard *discard, const struct ebb_region *region, uint64_t start,
                     uint64_t len, uint64_t *looked);

/* How many bytes the rate limit allows at this time; and so many were discarded. */
uint64_t ebb__rate_allows(struct ebb_discard *discard, uint64_t now);
void ebb__rate_spend(struct ebb_discard *discard, uint64_t bytes);

/* What system calls there are. */
extern const struct ebb_discard_ops ebb__discard_system;

static inline uint64_t ebb__discard_now(const struct ebb_discard *discard)
{
    return discard->ops->now(discard->ops->ctx);
}

/* ---- the pool ---- */

/* -EBB_EBUSY: somebody else has it. */
EBB_MUST_CHECK int ebb__discard_claim(struct ebb_discard *discard);
/* Given back without a batch. */
void ebb__discard_release(struct ebb_discard *discard);
/* The claimed discard's batch waits for a thread. */
void ebb__discard_enqueue(struct ebb_discard *discard);
/* If it waits for one it does not any longer: the caller has it. */
EBB_MUST_CHECK bool ebb__discard_dequeue(struct ebb_discard *discard);

#endif
