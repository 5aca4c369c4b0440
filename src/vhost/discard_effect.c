/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Did the memory come back? A discard can succeed and free nothing: the wrong call for the backing,
 * a huge page that could not be split, a file system that only writes zeroes.
 *
 * Whether a frame is there is asked after the discard and before the batch is acknowledged, so that
 * the guest has no business with it yet: what is there then did not come back, or somebody else
 * touched it, such as a migration; either way the host has it. What is counted as resident is.
 * The reverse does not hold. Not seen is memory that is held in some other way: pages pinned by a
 * device, copies in another process's private mapping, or a snapshot of the file.
 */
#include "discard_private.h"

#include <errno.h>
#include <unistd.h>

/* Looked at of one call's bytes: enough to see what a huge page kept, without reading tables of
 * many GiB. */
#define WINDOW ((uint64_t)256 << 10)

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x;
}

/* Somewhere in [start, start + len), aligned as that is to the system's pages: a multiple of the
 * window from its beginning, the last of which may be short. */
static void choose_window(struct ebb_discard *discard, uint64_t *start, uint64_t *len)
{
    const uint64_t windows = (*len + WINDOW - 1) / WINDOW;
    const uint64_t from = next_random(&discard->random) % windows * WINDOW;

    *start += from;
    *len = *len - from < WINDOW ? *len - from : WINDOW;
}

/* Private memory: has the page table anything there, or the swap? */
static int look_at_pages(struct ebb_discard *discard, uint64_t start, uint64_t len, uint64_t *left)
{
    const struct ebb_discard_ops *ops = discard->ops;
    const long page = sysconf(_SC_PAGESIZE);
    unsigned char vec[WINDOW / EBB_FRAME_SIZE] = {0};

    if (ops->mincore(ops->ctx, (void *)(uintptr_t)start, (size_t)len, vec) != 0)
        return -1;
    for (uint64_t at = 0, i = 0; at < len; at += (uint64_t)page, i++)
        if (vec[i] & 1)
            *left += (uint64_t)page;
    return 0;
}

/*
 * A file: has it data there, in memory or swapped out? It need not be mapped here for that, and,
 * unlike mincore(), a file that belongs to another user answers, too. The file's position moves,
 * which nobody uses of a file that is memory. A file system that knows no holes says that all is
 * data; but it could not have punched one.
 */
static int look_at_file(struct ebb_discard *discard, int fd, uint64_t start, uint64_t len,
                        uint64_t *left)
{
    const struct ebb_discard_ops *ops = discard->ops;
    const uint64_t end = start + len;

    /* Each turn is past one frame, at least. */
    while (start < end) {
        const int64_t data = ops->seek(ops->ctx, fd, start, SEEK_DATA);
        int64_t hole;

        if (data < 0)
            return errno == ENXIO ? 0 : -1; /* no data from there to the end */
        if ((uint64_t)data >= end)
            return 0;
        hole = ops->seek(ops->ctx, fd, (uint64_t)data, SEEK_HOLE);
        if (hole <= data || (uint64_t)data < start)
            return -1; /* it changed meanwhile, or makes no sense */
        start = (uint64_t)hole < end ? (uint64_t)hole : end;
        *left += start - (uint64_t)data;
    }
    return 0;
}

/*
 * hugetlbfs answers neither question, except for pages that this process itself mapped and touched.
 * It tells how much of the file there is. That this did not fall proves nothing (the guest may
 * never have used those pages, or used others meanwhile). But what is there and cannot all be
 * elsewhere in the file must be here. So this sees discards without effect when nearly all of the
 * file is in use, or was preallocated, as huge pages often are.
 */
static int look_at_blocks(struct ebb_discard *discard, int fd, uint64_t len, uint64_t *left)
{
    const struct ebb_discard_ops *ops = discard->ops;
    uint64_t taken, size, elsewhere;

    if (ops->blocks(ops->ctx, fd, &taken, &size) != 0)
        return -1;
    elsewhere = size > len ? size - len : 0;
    if (taken > elsewhere)
        *left = taken - elsewhere < len ? taken - elsewhere : len;
    return 0;
}

uint64_t ebb__effect(struct ebb_discard *discard, const struct ebb_region *region, uint64_t start,
                     uint64_t len, uint64_t *looked)
{
    uint64_t left = 0;
    int err;

    if (region->backing != EBB_BACKING_HUGETLB)
        choose_window(discard, &start, &len);
    if (region->backing == EBB_BACKING_ANON)
        err = look_at_pages(discard, start, len, &left);
    else if (region->backing == EBB_BACKING_SHARED)
        err = look_at_file(discard, region->fd, start, len, &left);
    else
        err = look_at_blocks(discard, region->fd, len, &left);
    if (err != 0)
        return 0;
    *looked += len;
    return left;
}
