/* SPDX-License-Identifier: BSD-2-Clause */
/* The system calls, and one batch from its extents to its account. */
#include "discard_private.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* One call discards no more (but for a backing page that is larger): it is what an answer can be
 * late by, and what inhibit() waits for; some ms. The calls' own cost disappears in that. */
#define CALL_BYTES ((uint64_t)8 << 20)

/* A call that is interrupted so often in a row has failed. */
#define TRIES 16u

#define STAT_BLOCK 512u /* what st_blocks counts in */

/* ---- the system's ---- */

static int system_fallocate(void *ctx, int fd, int mode, uint64_t offset, uint64_t len)
{
    (void)ctx;
    return fallocate(fd, mode, (off_t)offset, (off_t)len);
}

static int system_madvise(void *ctx, void *addr, size_t len, int advice)
{
    (void)ctx;
    return madvise(addr, len, advice);
}

static int system_mincore(void *ctx, void *addr, size_t len, unsigned char *vec)
{
    (void)ctx;
    return mincore(addr, len, vec);
}

static int64_t system_seek(void *ctx, int fd, uint64_t offset, int whence)
{
    (void)ctx;
    return lseek(fd, (off_t)offset, whence);
}

static int system_blocks(void *ctx, int fd, uint64_t *taken, uint64_t *size)
{
    struct stat st;

    (void)ctx;
    if (fstat(fd, &st) != 0)
        return -1;
    *taken = (uint64_t)st.st_blocks * STAT_BLOCK;
    *size = (uint64_t)st.st_size;
    return 0;
}

static uint64_t system_now(void *ctx)
{
    struct timespec t;

    (void)ctx;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * EBB__NS_PER_SECOND + (uint64_t)t.tv_nsec;
}

const struct ebb_discard_ops ebb__discard_system = {
    .fallocate = system_fallocate,
    .madvise = system_madvise,
    .mincore = system_mincore,
    .seek = system_seek,
    .blocks = system_blocks,
    .now = system_now,
};

/* ---- extents ---- */

/* One system call; 0, or -1 and errno. */
static int discard_once(const struct ebb_discard *discard, const struct ebb_region *region,
                        uint64_t start, uint64_t len)
{
    const struct ebb_discard_ops *ops = discard->ops;

    if (region->backing == EBB_BACKING_ANON)
        return ops->madvise(ops->ctx, (void *)(uintptr_t)start, (size_t)len, MADV_DONTNEED);
    return ops->fallocate(ops->ctx, region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start,
                          len);
}

/* 0 or an errno; with `discarding` held. */
static int discard_call(struct ebb__work *work, const struct ebb_region *region, uint64_t start,
                        uint64_t len)
{
    int err = EINTR;

    for (unsigned tries = 0; err == EINTR && tries < TRIES; tries++) {
        work->sum.calls++;
        err = discard_once(work->discard, region, start, len) == 0 ? 0 : errno;
    }
    return err;
}

static void look(struct ebb__work *work, const struct ebb_region *region, uint64_t start,
                 uint64_t len)
{
    struct ebb_discard *discard = work->discard;
    uint64_t looked = 0, left;

    if (discard->check_every == UINT32_MAX)
        return;
    if (discard->check_in > 0) {
        discard->check_in--;
        return;
    }
    left = ebb__effect(discard, region, start, len, &looked);
    work->sum.checked_bytes += looked;
    if (left > 0)
        ebb__count_not(&work->sum, EBB_DISCARD_RESIDENT, left);
    else
        discard->check_in = discard->check_every - 1;
}

static void discard_piece(struct ebb__work *work, const struct ebb_region *region, uint64_t start,
                          uint64_t len)
{
    struct ebb_discard *discard = work->discard;
    bool inhibited, late;
    int err = 0;

    /* Who inhibits waits for this lock, and then knows that no call is going on. */
    pthread_mutex_lock(&discard->discarding);
    inhibited = atomic_load(&discard->inhibited);
    /* Again: it may have waited. */
    late = ebb__discard_now(discard) >= atomic_load(&discard->late_after);
    if (!inhibited && !late)
        err = discard_call(work, region, start, len);
    pthread_mutex_unlock(&discard->discarding);

    if (inhibited || late) {
        ebb__count_not(&work->sum, inhibited ? EBB_DISCARD_INHIBITED : EBB_DISCARD_LATE, len);
    } else if (err != 0) {
        ebb__count_not(&work->sum, EBB_DISCARD_FAILED, len);
        work->sum.last_error = err;
    } else {
        work->sum.discarded_bytes += len;
        ebb__rate_spend(discard, len);
        look(work, region, start, len);
    }
}

/* A part of the rest of an extent; or that is left. */
static void discard_part(struct ebb__work *work, struct ebb__extent *extent)
{
    struct ebb_discard *discard = work->discard;
    const struct ebb_region *region = &discard->regions.regions[extent->region];
    const uint64_t now = ebb__discard_now(discard), left = extent->end - extent->start;
    const bool late = now >= atomic_load(&discard->late_after);
    const uint64_t allowed = late ? 0 : ebb__rate_allows(discard, now);
    uint64_t len = region->page > CALL_BYTES ? region->page : CALL_BYTES;

    if (allowed == 0) {
        ebb__count_not(&work->sum, late ? EBB_DISCARD_LATE : EBB_DISCARD_RATE, left);
        extent->start = extent->end;
        return;
    }
    if (allowed < len) /* in whole pages, rounded up */
        len = (allowed + region->page - 1) & ~(region->page - 1);
    if (left < len)
        len = left;
    discard_piece(work, region, extent->start, len);
    extent->start += len;
}

void ebb__extents_discard(struct ebb__work *work)
{
    for (unsigned i = 0; i < work->n; i++) {
        struct ebb__extent *extent = &work->extents[i];

        while (extent->start < extent->end)
            discard_part(work, extent);
    }
}
