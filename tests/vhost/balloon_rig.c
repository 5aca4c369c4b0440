/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest in memory, and the device that serves it; see balloon_rig.h. */
#include "balloon_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <fcntl.h>

#define FILL       0xa5u
#define WAIT_S     600 /* for a pool thread, before the test is said to hang */
#define RING_BYTES 0x10000u

struct rig rig;

/* ---- memory ---- */

static void add_region(uint64_t gpa, uint64_t bytes, uint64_t offset, uint64_t page)
{
    struct ebb_region region = {
        .gpa = gpa,
        .size = bytes,
        .host = rig.ram + offset,
        .fd = rig.fd,
        .offset = offset,
        .user = 0x7f0000000000u + gpa,
    };
    const char *why;

    assert_int_equal(ebb_region_probe(&region, true, &why), 0);
    assert_int_equal(region.backing, EBB_BACKING_SHARED);
    region.page = page;
    assert_int_equal(ebb_memory_add(&rig.memory, &region), 0);
}

static void make_memory(void)
{
    rig.fd = memfd_create("guest", MFD_CLOEXEC);
    assert_true(rig.fd >= 0);
    assert_int_equal(ftruncate(rig.fd, RIG_BYTES), 0);
    rig.ram = mmap(NULL, RIG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, rig.fd, 0);
    assert_true(rig.ram != MAP_FAILED);
    ebb_memory_init(&rig.memory);
    add_region(RIG_LOW, RIG_LOW_BYTES, 0, 4096);
    add_region(RIG_HIGH, RIG_HIGH_BYTES, RIG_LOW_BYTES, 4096);
    add_region(RIG_HIGH2, RIG_HIGH_BYTES, RIG_LOW_BYTES + RIG_HIGH_BYTES, 4096);
    add_region(RIG_BIG, RIG_BIG_BYTES, RIG_LOW_BYTES + 2 * RIG_HIGH_BYTES, RIG_BIG_PAGE);
}

void *rig_at(uint64_t gpa)
{
    void *at = ebb_memory_at(&rig.memory, gpa, 1);

    assert_non_null(at);
    return at;
}

void rig_put(uint64_t gpa, uint64_t value, unsigned bytes)
{
    uint8_t *at = rig_at(gpa);

    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

uint64_t rig_get(uint64_t gpa, unsigned bytes)
{
    const uint8_t *at = rig_at(gpa);
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

void rig_fill(uint64_t gpa, uint64_t bytes)
{
    memset(rig_at(gpa), FILL, bytes);
}

static bool all_are(uint64_t gpa, uint64_t bytes, uint8_t value)
{
    const uint8_t *at = rig_at(gpa);

    for (uint64_t i = 0; i < bytes; i++) {
        if (at[i] != value)
            return false;
    }
    return true;
}

bool rig_kept(uint64_t gpa, uint64_t bytes)
{
    return all_are(gpa, bytes, FILL);
}

bool rig_gone(uint64_t gpa, uint64_t bytes)
{
    return all_are(gpa, bytes, 0);
}

/* ---- system calls of the pool ---- */

/* The guest address of a place in the file; the table is not the pool's to read. */
static uint64_t gpa_of(uint64_t offset)
{
    if (offset < RIG_LOW_BYTES)
        return RIG_LOW + offset;
    offset -= RIG_LOW_BYTES;
    if (offset < 2 * (uint64_t)RIG_HIGH_BYTES)
        return RIG_HIGH + offset;
    return RIG_BIG + (offset - 2 * (uint64_t)RIG_HIGH_BYTES);
}

static uint16_t used_index(unsigned queue)
{
    return __atomic_load_n((uint16_t *)rig_at(rig.queues[queue].used + 2), __ATOMIC_SEQ_CST);
}

static int rig_fallocate(void *ctx, int fd, int mode, uint64_t offset, uint64_t len)
{
    (void)ctx;
    pthread_mutex_lock(&rig.lock);
    rig.waiting++;
    pthread_cond_broadcast(&rig.changed);
    while (rig.hold)
        pthread_cond_wait(&rig.changed, &rig.lock);
    rig.waiting--;
    if (rig.punches < RIG_CALLS)
        rig.punched[rig.punches++] = gpa_of(offset);
    pthread_mutex_unlock(&rig.lock);
    return fallocate(fd, mode, (off_t)offset, (off_t)len);
}

static int rig_madvise(void *ctx, void *addr, size_t len, int advice)
{
    (void)ctx;
    return madvise(addr, len, advice);
}

static int rig_mincore(void *ctx, void *addr, size_t len, unsigned char *vec)
{
    (void)ctx;
    return mincore(addr, len, vec);
}

static int64_t rig_seek(void *ctx, int fd, uint64_t offset, int whence)
{
    (void)ctx;
    return lseek(fd, (off_t)offset, whence);
}

static int rig_blocks(void *ctx, int fd, uint64_t *taken, uint64_t *size)
{
    struct stat st;

    (void)ctx;
    if (fstat(fd, &st) != 0)
        return -1;
    *taken = (uint64_t)st.st_blocks * 512;
    *size = (uint64_t)st.st_size;
    return 0;
}

/* It stands: only the device's clock says that time is over. */
static uint64_t rig_clock(void *ctx)
{
    (void)ctx;
    return 1000000000;
}

static const struct ebb_discard_ops discard_ops = {
    .fallocate = rig_fallocate,
    .madvise = rig_madvise,
    .mincore = rig_mincore,
    .seek = rig_seek,
    .blocks = rig_blocks,
    .now = rig_clock,
};

const struct ebb_discard_ops *rig_discard_ops(void)
{
    return &discard_ops;
}

static void wait_for(bool (*is)(unsigned n), unsigned n)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    pthread_mutex_lock(&rig.lock);
    while (!is(n)) {
        if (pthread_cond_timedwait(&rig.changed, &rig.lock, &until) != 0)
            break;
    }
    if (!is(n)) {
        rig.hold = false;
        pthread_cond_broadcast(&rig.changed);
        pthread_mutex_unlock(&rig.lock);
        fail_msg("the pool does not go on");
    }
    pthread_mutex_unlock(&rig.lock);
}

static bool is_waiting(unsigned n)
{
    return rig.waiting >= n;
}

static bool is_woken(unsigned n)
{
    return rig.wakes >= n;
}

static void set_hold(bool hold)
{
    pthread_mutex_lock(&rig.lock);
    rig.hold = hold;
    pthread_cond_broadcast(&rig.changed);
    pthread_mutex_unlock(&rig.lock);
}

void rig_hold(void)
{
    set_hold(true);
}

void rig_wait_held(void)
{
    wait_for(is_waiting, 1);
}

void rig_release(void)
{
    set_hold(false);
}

void rig_wait_wakes(unsigned n)
{
    wait_for(is_woken, n);
}

unsigned rig_wakes(void)
{
    unsigned wakes;

    pthread_mutex_lock(&rig.lock);
    wakes = rig.wakes;
    pthread_mutex_unlock(&rig.lock);
    return wakes;
}

/* ---- what the device calls ---- */

static void on_call(void *ctx, unsigned queue)
{
    assert_ptr_equal(ctx, &rig);
    assert_true(queue < EBB_BALLOON_QUEUES);
    rig.calls[queue]++;
}

static void on_config_changed(void *ctx)
{
    assert_ptr_equal(ctx, &rig);
    rig.config_changes++;
}

static void on_needs_reset(void *ctx)
{
    assert_ptr_equal(ctx, &rig);
    rig.needs_resets++;
}

static void on_wake(void *ctx)
{
    (void)ctx;
    pthread_mutex_lock(&rig.lock);
    rig.wakes++;
    pthread_cond_broadcast(&rig.changed);
    pthread_mutex_unlock(&rig.lock);
}

static void on_hinted(void *ctx, const struct ebb_range *ranges, unsigned n)
{
    assert_ptr_equal(ctx, &rig);
    for (unsigned i = 0; i < n && rig.hints < RIG_HINTS; i++)
        rig.hinted[rig.hints++] = ranges[i];
}

static uint64_t on_now(void *ctx)
{
    (void)ctx;
    return rig.now;
}

static const struct ebb_balloon_device_ops device_ops = {
    .call = on_call,
    .config_changed = on_config_changed,
    .needs_reset = on_needs_reset,
    .wake = on_wake,
    .hinted = on_hinted,
    .now = on_now,
};

/* ---- life ---- */

void rig_new_device(const struct ebb_balloon_device_config *config)
{
    rig.config = config ? *config : (struct ebb_balloon_device_config){.memory = NULL};
    rig.config.memory = &rig.memory;
    rig.config.discard = rig.discard;
    rig.config.ops = &device_ops;
    rig.config.ctx = &rig;
    rig.device = ebb_balloon_device_new(&rig.config);
    assert_non_null(rig.device);
}

void rig_init(const struct ebb_balloon_device_config *config, uint64_t features)
{
    struct ebb_discard_config discard = {.ops = &discard_ops, .memory = &rig.memory};

    memset(&rig, 0, sizeof(rig));
    rig.now = 1000000000;
    pthread_mutex_init(&rig.lock, NULL);
    pthread_cond_init(&rig.changed, NULL);
    make_memory();
    discard.pool = rig.pool = ebb_discard_pool_new(1);
    assert_non_null(rig.pool);
    rig.discard = ebb_discard_new(&discard);
    assert_non_null(rig.discard);
    rig_new_device(config);
    assert_int_equal(ebb_balloon_device_accept(rig.device, EBB_F_VERSION_1 | features), 0);
    for (unsigned i = 0; i < ebb_balloon_device_queue_count(rig.device); i++)
        rig_start(i);
}

void rig_exit(void)
{
    ebb_balloon_device_free(rig.device);
    ebb_discard_free(rig.discard);
    ebb_discard_pool_free(rig.pool);
    munmap(rig.ram, RIG_BYTES);
    close(rig.fd);
    pthread_cond_destroy(&rig.changed);
    pthread_mutex_destroy(&rig.lock);
}

int rig_setup(void **state)
{
    (void)state;
    rig_init(NULL, RIG_ALL);
    return 0;
}

int rig_teardown(void **state)
{
    (void)state;
    rig_exit();
    return 0;
}

/* ---- the driver ---- */

struct ebb_balloon_device_vring rig_vring(unsigned queue)
{
    const uint64_t base = RIG_LOW + (uint64_t)queue * RING_BYTES;
    const struct ebb_ring_layout layout = ebb_ring_layout(RIG_RING);

    return (struct ebb_balloon_device_vring){
        .size = RIG_RING,
        .desc = base + layout.desc,
        .avail = base + layout.avail,
        .used = base + layout.used,
    };
}

void rig_start(unsigned queue)
{
    const struct ebb_balloon_device_vring vring = rig_vring(queue);

    memset(rig_at(vring.desc), 0, ebb_ring_layout(RIG_RING).total);
    rig.queues[queue] = (struct rig_queue){
        .desc = vring.desc,
        .avail = vring.avail,
        .used = vring.used,
    };
    assert_int_equal(ebb_balloon_device_start(rig.device, queue, &vring), 0);
}

void rig_desc(unsigned queue, unsigned index, uint64_t addr, uint32_t len, unsigned flags,
              unsigned next)
{
    const uint64_t at = rig.queues[queue].desc + 16 * (uint64_t)index;

    rig_put(at, addr, 8);
    rig_put(at + 8, len, 4);
    rig_put(at + 12, flags, 2);
    rig_put(at + 14, next, 2);
}

void rig_offer(unsigned queue, unsigned head)
{
    struct rig_queue *q = &rig.queues[queue];

    rig_put(q->avail + 4 + 2 * (uint64_t)(q->next_avail % RIG_RING), head, 2);
    q->next_avail++;
    rig_put(q->avail + 2, q->next_avail, 2);
}

void rig_chain(unsigned queue, const struct ebb_ring_buf *bufs, unsigned n)
{
    struct rig_queue *q = &rig.queues[queue];
    const unsigned head = q->next_desc;

    assert_true(n > 0 && n <= RIG_RING);
    for (unsigned i = 0; i < n; i++) {
        const unsigned next = (head + i + 1) % RIG_RING;
        const unsigned flags =
            (bufs[i].write ? EBB_DESC_WRITE : 0u) | (i + 1 < n ? EBB_DESC_NEXT : 0u);

        rig_desc(queue, (head + i) % RIG_RING, bufs[i].addr, bufs[i].len, flags, next);
    }
    q->next_desc = (head + n) % RIG_RING;
    rig_offer(queue, head);
}

void rig_readable(unsigned queue, uint64_t addr, uint32_t len)
{
    const struct ebb_ring_buf buf = {.addr = addr, .len = len, .write = false};

    rig_chain(queue, &buf, 1);
}

void rig_writable(unsigned queue, uint64_t addr, uint32_t len)
{
    const struct ebb_ring_buf buf = {.addr = addr, .len = len, .write = true};

    rig_chain(queue, &buf, 1);
}

/* A page of its own for each descriptor. */
static uint64_t buffer_of(unsigned queue)
{
    return RIG_BUFFERS + ((uint64_t)queue * RIG_RING + rig.queues[queue].next_desc) * 4096;
}

void rig_pfns(unsigned queue, uint64_t gpa, unsigned pages)
{
    const uint64_t at = buffer_of(queue);

    assert_true(pages <= 1024);
    for (unsigned i = 0; i < pages; i++)
        rig_put(at + 4 * (uint64_t)i, (gpa >> 12) + i, 4);
    rig_readable(queue, at, 4 * pages);
}

void rig_command(uint32_t id)
{
    const uint64_t at = buffer_of(EBB_BALLOON_HINT);

    rig_put(at, id, 4);
    rig_readable(EBB_BALLOON_HINT, at, 4);
}

unsigned rig_back(unsigned queue)
{
    struct rig_queue *q = &rig.queues[queue];
    unsigned n = 0;

    while (q->seen_used != used_index(queue)) {
        const uint64_t at = q->used + 4 + 8 * (uint64_t)(q->seen_used % RIG_RING);

        assert_true(rig_get(at, 4) < RIG_RING);
        assert_int_equal(rig_get(at + 4, 4), 0);
        q->seen_used++;
        n++;
    }
    return n;
}

void rig_kick(unsigned queue)
{
    ebb_balloon_device_kick(rig.device, queue);
}

void rig_settle(void)
{
    for (unsigned i = 0; i < 100000; i++) {
        ebb_discard_drain(rig.discard);
        if (!ebb_balloon_device_work(rig.device) && ebb_balloon_device_idle(rig.device))
            return;
    }
    fail_msg("the device does not come to rest");
}

/* ---- counters ---- */

struct ebb_discard_stats rig_discards(void)
{
    struct ebb_discard_stats stats;

    ebb_discard_get_stats(rig.discard, &stats);
    return stats;
}

uint64_t rig_fault(enum ebb_balloon_fault fault)
{
    return ebb_balloon_device_get_stats(rig.device)->faults[fault];
}

uint64_t rig_faults(void)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < EBB_FAULTS; i++)
        n += rig_fault((enum ebb_balloon_fault)i);
    return n;
}
