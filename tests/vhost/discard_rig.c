/* SPDX-License-Identifier: BSD-2-Clause */
#include "discard_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- system calls ---- */

/* Counts a discarding call and says what becomes of it: 0: it is made, 1: it is not but succeeds,
 * -1: it fails. */
static int enter_call(struct rig_ops *ops, int fd, uint64_t start, uint64_t len)
{
    int verdict = 0;

    pthread_mutex_lock(&ops->lock);
    if (ops->calls < CALLS_KEPT)
        ops->call[ops->calls] = (struct rig_call){fd, start, len};
    ops->calls++;
    if (ops->now != 0)
        ops->now += ops->call_ns;
    ops->at_gate++;
    pthread_cond_broadcast(&ops->changed);
    while (ops->gate)
        pthread_cond_wait(&ops->changed, &ops->lock);
    ops->at_gate--;
    if (ops->fail_at > 0 && ops->calls >= ops->fail_at && ops->calls < ops->fail_at + ops->fail_n) {
        errno = ops->fail_errno;
        verdict = -1;
    } else if (ops->lie) {
        verdict = 1;
    }
    pthread_mutex_unlock(&ops->lock);
    return verdict;
}

/* 0, or -1 and errno. */
static int enter_look(struct rig_ops *ops)
{
    int err;

    pthread_mutex_lock(&ops->lock);
    ops->looks++;
    err = ops->look_errno;
    pthread_mutex_unlock(&ops->lock);
    errno = err;
    return err == 0 ? 0 : -1;
}

static int do_fallocate(void *ctx, int fd, int mode, uint64_t offset, uint64_t len)
{
    const int verdict = enter_call(ctx, fd, offset, len);

    if (verdict != 0)
        return verdict > 0 ? 0 : -1;
    return fallocate(fd, mode, (off_t)offset, (off_t)len);
}

static int do_madvise(void *ctx, void *addr, size_t len, int advice)
{
    struct rig_ops *ops = ctx;
    const int verdict = enter_call(ops, -1, (uint64_t)((uint8_t *)addr - ops->map), len);

    if (verdict != 0)
        return verdict > 0 ? 0 : -1;
    return madvise(addr, len, advice);
}

static int do_mincore(void *ctx, void *addr, size_t len, unsigned char *vec)
{
    return enter_look(ctx) != 0 ? -1 : mincore(addr, len, vec);
}

static int64_t do_seek(void *ctx, int fd, uint64_t offset, int whence)
{
    return enter_look(ctx) != 0 ? -1 : lseek(fd, (off_t)offset, whence);
}

static int do_blocks(void *ctx, int fd, uint64_t *taken, uint64_t *size)
{
    struct rig_ops *ops = ctx;
    struct stat st;

    if (enter_look(ops) != 0 || fstat(fd, &st) != 0)
        return -1;
    *taken = ops->size > 0 ? ops->taken : (uint64_t)st.st_blocks * 512;
    *size = ops->size > 0 ? ops->size : (uint64_t)st.st_size;
    return 0;
}

static uint64_t do_now(void *ctx)
{
    struct rig_ops *ops = ctx;
    struct timespec t;
    uint64_t now;

    pthread_mutex_lock(&ops->lock);
    now = ops->now;
    pthread_mutex_unlock(&ops->lock);
    if (now != 0)
        return now;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void rig_ops_init(struct rig_ops *ops, uint8_t *map)
{
    pthread_condattr_t attr;

    memset(ops, 0, sizeof(*ops));
    ops->map = map;
    ops->ops = (struct ebb_discard_ops){
        .fallocate = do_fallocate,
        .madvise = do_madvise,
        .mincore = do_mincore,
        .seek = do_seek,
        .blocks = do_blocks,
        .now = do_now,
        .ctx = ops,
    };
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&ops->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&ops->lock, NULL);
}

/* With the lock held. */
static void wait_change(struct rig_ops *ops, const struct timespec *until)
{
    if (pthread_cond_timedwait(&ops->changed, &ops->lock, until) == ETIMEDOUT) {
        pthread_mutex_unlock(&ops->lock);
        fail_msg("waited for %d s", WAIT_S);
    }
}

static struct timespec limit(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += WAIT_S;
    return t;
}

void rig_wait_at_gate(struct rig_ops *ops, unsigned n)
{
    const struct timespec until = limit();

    pthread_mutex_lock(&ops->lock);
    while (ops->at_gate < n)
        wait_change(ops, &until);
    pthread_mutex_unlock(&ops->lock);
}

void rig_open_gate(struct rig_ops *ops)
{
    pthread_mutex_lock(&ops->lock);
    ops->gate = false;
    pthread_cond_broadcast(&ops->changed);
    pthread_mutex_unlock(&ops->lock);
}

void rig_advance(struct rig_ops *ops, uint64_t ns)
{
    pthread_mutex_lock(&ops->lock);
    ops->now += ns;
    pthread_mutex_unlock(&ops->lock);
}

/* ---- memory ---- */

uint64_t rig_gpa(unsigned frame)
{
    return frame < FIRST_C ? GPA_A + frame * EBB_FRAME_SIZE
                           : GPA_C + (frame - FIRST_C) * EBB_FRAME_SIZE;
}

struct ebb_range rig_range(unsigned frame, unsigned frames)
{
    return (struct ebb_range){rig_gpa(frame), frames * EBB_FRAME_SIZE};
}

static uint64_t *stamp_of(const struct rig *rig, unsigned frame)
{
    return (uint64_t *)(void *)(rig->map + frame * EBB_FRAME_SIZE);
}

void rig_stamp(struct rig *rig)
{
    for (unsigned i = 0; i < FRAMES; i++)
        *stamp_of(rig, i) = i + 1;
}

bool rig_dropped(const struct rig *rig, unsigned frame)
{
    const uint64_t stamp = *stamp_of(rig, frame);

    assert_true(stamp == 0 || stamp == frame + 1);
    return stamp == 0;
}

void rig_expect_dropped(const struct rig *rig, unsigned first, unsigned n)
{
    for (unsigned i = 0; i < FRAMES; i++)
        if (rig_dropped(rig, i) != (i >= first && i < first + n))
            fail_msg("frame %u was%s dropped", i, rig_dropped(rig, i) ? "" : " not");
}

static void add_region(struct rig *rig, unsigned first, unsigned frames, uint64_t page)
{
    const struct ebb_region region = {
        .gpa = rig_gpa(first),
        .size = frames * EBB_FRAME_SIZE,
        .host = rig->map + first * EBB_FRAME_SIZE,
        .fd = rig->fd,
        .offset = first * EBB_FRAME_SIZE,
        .page = page,
        .backing = rig->backing,
    };

    assert_int_equal(ebb_memory_add(&rig->memory, &region), 0);
}

void rig_add_regions(struct rig *rig, uint64_t page)
{
    add_region(rig, FIRST_C, FRAMES - FIRST_C, page);
    add_region(rig, 0, FIRST_B, page);
    add_region(rig, FIRST_B, FIRST_C - FIRST_B, page);
}

static void map_memory(struct rig *rig)
{
    uintptr_t start;

    rig->mapped = mmap(NULL, 2 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(rig->mapped, MAP_FAILED);
    start = ((uintptr_t)rig->mapped + BYTES - 1) & ~(uintptr_t)(BYTES - 1);
    rig->map = (uint8_t *)start;
    rig->fd = -1;
    if (rig->backing == EBB_BACKING_ANON)
        return;
    rig->fd = memfd_create("rig", MFD_CLOEXEC);
    assert_true(rig->fd >= 0);
    assert_int_equal(ftruncate(rig->fd, BYTES), 0);
    assert_ptr_equal(
        mmap(rig->map, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, rig->fd, 0),
        rig->map);
}

void rig_start(struct rig *rig, enum ebb_backing backing, uint64_t page,
               const struct ebb_discard_config *config)
{
    struct ebb_discard_config c = {0};

    memset(rig, 0, sizeof(*rig));
    rig->backing = backing;
    map_memory(rig);
    rig_stamp(rig);
    rig_ops_init(&rig->ops, rig->map);
    ebb_memory_init(&rig->memory);
    rig_add_regions(rig, page);

    if (config)
        c = *config;
    if (!c.pool)
        c.pool = rig->pool = ebb_discard_pool_new(1);
    assert_non_null(c.pool);
    c.memory = &rig->memory;
    c.ops = &rig->ops.ops;
    rig->discard = ebb_discard_new(&c);
    assert_non_null(rig->discard);
}

void rig_stop(struct rig *rig)
{
    ebb_discard_free(rig->discard);
    if (rig->pool)
        ebb_discard_pool_free(rig->pool);
    munmap(rig->mapped, 2 * BYTES);
    if (rig->fd >= 0)
        close(rig->fd);
    pthread_cond_destroy(&rig->ops.changed);
    pthread_mutex_destroy(&rig->ops.lock);
}

/* ---- batches ---- */

static void count_done(void *ctx)
{
    struct rig *rig = ctx;

    pthread_mutex_lock(&rig->ops.lock);
    rig->done++;
    pthread_cond_broadcast(&rig->ops.changed);
    pthread_mutex_unlock(&rig->ops.lock);
}

int rig_submit(struct rig *rig, enum ebb_discard_kind kind, const struct ebb_range *ranges,
               unsigned n)
{
    return ebb_discard_submit(rig->discard, kind, ranges, n, rig->ns > 0 ? rig->ns : UINT64_MAX,
                              count_done, rig);
}

void rig_wait_done(struct rig *rig, unsigned n)
{
    const struct timespec until = limit();

    pthread_mutex_lock(&rig->ops.lock);
    while (rig->done < n)
        wait_change(&rig->ops, &until);
    pthread_mutex_unlock(&rig->ops.lock);
}

void rig_run(struct rig *rig, enum ebb_discard_kind kind, const struct ebb_range *ranges,
             unsigned n)
{
    const unsigned before = rig->done;

    assert_int_equal(rig_submit(rig, kind, ranges, n), 0);
    rig_wait_done(rig, before + 1);
}

struct ebb_discard_stats rig_stats(const struct rig *rig)
{
    struct ebb_discard_stats s;
    uint64_t accounted, latencies = 0;

    ebb_discard_get_stats(rig->discard, &s);
    accounted = s.discarded_bytes + s.repeated_bytes + s.gathered_bytes + s.released_bytes;
    for (unsigned i = 0; i < EBB_DISCARD_CAUSES; i++)
        accounted += i == EBB_DISCARD_RESIDENT ? 0 : s.not_bytes[i];
    assert_int_equal(s.asked_bytes, accounted);
    for (unsigned i = 0; i < EBB_DISCARD_BUCKETS; i++)
        latencies += s.latency[i];
    assert_int_equal(latencies, s.batches);
    assert_true(s.not_bytes[EBB_DISCARD_RESIDENT] <= s.checked_bytes);
    return s;
}
