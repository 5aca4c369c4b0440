/* SPDX-License-Identifier: BSD-2-Clause */
#include "guard.h"
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static bool fails(struct guard *guard)
{
    if (guard->fail == 0)
        return false;
    guard->fail--;
    errno = guard->fail_errno;
    return true;
}

/* ---- which region a discard is in ---- */

static bool covers(const struct ebb_region *region, int fd, uint64_t at)
{
    const bool anon = region->backing == EBB_BACKING_ANON;
    const uint64_t base = anon ? (uint64_t)(uintptr_t)region->host : region->offset;

    if (region->backing == EBB_BACKING_NONE || anon != (fd < 0) || (!anon && region->fd != fd))
        return false;
    return at >= base && at - base < region->size;
}

/* What is behind `at` of the fd, or at this host address. Whoever discards it has found it in the
 * table. */
static const struct ebb_region *region_at(const struct ebb_memory *memory, int fd, uint64_t at)
{
    for (unsigned i = 0; i < memory->n; i++)
        if (covers(&memory->regions[i], fd, at))
            return &memory->regions[i];
    return NULL;
}

/* From `at` on: at most `len` bytes of one region; *host is where they are, or NULL. */
static uint64_t piece_at(const struct ebb_memory *memory, int fd, uint64_t at, uint64_t len,
                         uint8_t **host)
{
    const struct ebb_region *region = region_at(memory, fd, at);
    uint64_t base, room;

    FUZZ_CHECK(region);
    base = fd < 0 ? (uint64_t)(uintptr_t)region->host : region->offset;
    room = region->size - (at - base);
    *host = region->host ? (uint8_t *)region->host + (at - base) : NULL;
    return len < room ? len : room;
}

static void check_extent(const struct guard *guard, int fd, uint64_t start, uint64_t len)
{
    FUZZ_CHECK(len > 0 && start + len > start);
    for (uint64_t at = start; at < start + len;) {
        const struct ebb_region *region = region_at(guard->memory, fd, at);
        uint8_t *host;

        FUZZ_CHECK(region && start % region->page == 0 && len % region->page == 0);
        at += piece_at(guard->memory, fd, at, start + len - at, &host);
    }
}

static void clear_extent(const struct guard *guard, int fd, uint64_t start, uint64_t len)
{
    while (len > 0) {
        uint8_t *host;
        const uint64_t n = piece_at(guard->memory, fd, start, len, &host);

        if (host)
            memset(host, 0, n);
        start += n;
        len -= n;
    }
}

/* ---- the calls ---- */

static int guard_fallocate(void *ctx, int fd, int mode, uint64_t offset, uint64_t len)
{
    struct guard *guard = ctx;

    FUZZ_CHECK(mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) && fd >= 0);
    check_extent(guard, fd, offset, len);
    if (fails(guard))
        return -1;
    if (guard->real && fallocate(fd, mode, (off_t)offset, (off_t)len) != 0)
        return -1;
    if (!guard->real)
        clear_extent(guard, fd, offset, len);
    guard->discards++;
    guard->discarded_bytes += len;
    return 0;
}

static int guard_madvise(void *ctx, void *addr, size_t len, int advice)
{
    struct guard *guard = ctx;

    FUZZ_CHECK(advice == MADV_DONTNEED);
    check_extent(guard, -1, (uintptr_t)addr, len);
    if (fails(guard))
        return -1;
    clear_extent(guard, -1, (uintptr_t)addr, len);
    guard->discards++;
    guard->discarded_bytes += len;
    return 0;
}

static int guard_mincore(void *ctx, void *addr, size_t len, unsigned char *vec)
{
    struct guard *guard = ctx;

    (void)addr;
    if (guard->look == GUARD_ERROR) {
        errno = ENOMEM;
        return -1;
    }
    memset(vec, guard->look == GUARD_NOTHING ? 0 : 0xff,
           (len + EBB_FRAME_SIZE - 1) / EBB_FRAME_SIZE);
    return 0;
}

static int64_t guard_seek(void *ctx, int fd, uint64_t offset, int whence)
{
    struct guard *guard = ctx;

    switch (guard->look) {
    case GUARD_NOTHING:
        if (guard->real)
            return lseek(fd, (off_t)offset, whence);
        errno = ENXIO;
        return -1;
    case GUARD_ALL:
        return (int64_t)(whence == SEEK_DATA ? offset : offset + EBB_FRAME_SIZE);
    case GUARD_NONSENSE:
        return whence == SEEK_DATA ? 1 : 0;
    default:
        errno = EIO;
        return -1;
    }
}

static int guard_blocks(void *ctx, int fd, uint64_t *taken, uint64_t *size)
{
    struct guard *guard = ctx;

    (void)fd;
    *taken = guard->look == GUARD_NOTHING ? 0 : UINT64_MAX;
    *size = guard->look == GUARD_NONSENSE ? 0 : (uint64_t)1 << 20;
    errno = EIO;
    return guard->look == GUARD_ERROR ? -1 : 0;
}

static uint64_t guard_now(void *ctx)
{
    const struct guard *guard = ctx;

    return guard->now;
}

void guard_init(struct guard *guard, bool real)
{
    *guard = (struct guard){
        .ops = {.fallocate = guard_fallocate,
                .madvise = guard_madvise,
                .mincore = guard_mincore,
                .seek = guard_seek,
                .blocks = guard_blocks,
                .now = guard_now,
                .ctx = guard},
        .real = real,
        .now = 1,
    };
}

/* ---- what must hold ---- */

void guard_check(const struct guard *guard, const struct ebb_discard *discard)
{
    struct ebb_discard_stats stats;
    uint64_t sum;

    ebb_discard_get_stats(discard, &stats);
    sum =
        stats.discarded_bytes + stats.repeated_bytes + stats.gathered_bytes + stats.released_bytes;
    for (unsigned i = 0; i < EBB_DISCARD_CAUSES; i++)
        sum += i == EBB_DISCARD_RESIDENT ? 0 : stats.not_bytes[i];
    FUZZ_CHECK(sum == stats.asked_bytes);
    FUZZ_CHECK(stats.not_bytes[EBB_DISCARD_RESIDENT] <= stats.checked_bytes);
    FUZZ_CHECK(stats.checked_bytes <= stats.discarded_bytes);
    FUZZ_CHECK(stats.discarded_bytes == guard->discarded_bytes && stats.calls >= guard->discards);
}

bool guard_is_memory(const struct ebb_memory *memory, const struct ebb_range *range)
{
    uint64_t left = range->len, at = range->addr;

    if (left == 0 || at + left < at)
        return false;
    while (left > 0) {
        const struct ebb_region *region = ebb_memory_find(memory, at);
        uint64_t room;

        if (!region)
            return false;
        room = region->size - (at - region->gpa);
        if (left <= room)
            return true;
        left -= room;
        at += room;
    }
    return false;
}
