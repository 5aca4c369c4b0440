/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Both halves in one process: zone, engine, balloon driver, ring, device, discard, and a memfd that
 * is the guest's memory. What the guest frees leaves the memfd; what it uses, and stamps, never
 * does.
 */
#include "delay_engine.h"
#include "port_virtual.h"
#include "rng.h"

#include <ebb/balloon.h>
#include <ebb/vhost/balloon_device.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define BASE      0x2000u /* first frame of the zone */
#define FRAMES    16384u  /* 64 MiB */
#define ZONE      ((uint64_t)BASE << EBB_FRAME_SHIFT)
#define BYTES     ((uint64_t)FRAMES << EBB_FRAME_SHIFT)
#define DMA       0x100000u /* rings and buffers, behind the zone in the file */
#define DMA_BYTES 0x10000u
#define QUEUES    8u
#define HELD      2048u
#define LIMIT_S   600 /* for it all to come to rest, before it is said to hang */

/* A transport: the registers of a device that is called directly. */
struct link {
    struct ebb_transport transport; /* first */
    uint8_t status;
    uint64_t accepted;
    struct ebb_balloon_device_vring vrings[QUEUES];
    unsigned irq;
    uint32_t woken; /* atomic */
};

static struct {
    struct ebb_zone zone;
    struct ebb_report report;
    struct delay_engine engine;
    struct ebb_balloon balloon;
    struct ebb_balloon_config config;
    void *metadata;
    int fd;
    uint8_t *ram;
    struct ebb_memory memory;
    struct ebb_discard_pool *pool;
    struct ebb_discard *discard;
    struct ebb_balloon_device *device;
    struct link link;
    uint32_t ballooned[FRAMES];
    unsigned balloon_count, leaving;
    unsigned lost; /* frames that did not hold what was put there */
} loop;

/* ---- host ---- */

static uint64_t resident(void)
{
    struct stat st;

    assert_int_equal(fstat(loop.fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static void on_call(void *ctx, unsigned queue)
{
    (void)queue;
    ((struct link *)ctx)->irq |= EBB_IRQ_QUEUE;
}

static void on_config(void *ctx)
{
    ((struct link *)ctx)->irq |= EBB_IRQ_CONFIG;
}

static void on_wake(void *ctx)
{
    __atomic_store_n(&((struct link *)ctx)->woken, 1, __ATOMIC_RELEASE);
}

static const struct ebb_balloon_device_ops device_ops = {
    .call = on_call,
    .config_changed = on_config,
    .needs_reset = on_config,
    .wake = on_wake,
};

static void add_region(uint64_t gpa, uint64_t bytes, uint64_t offset)
{
    struct ebb_region region = {
        .gpa = gpa,
        .size = bytes,
        .host = loop.ram + offset,
        .fd = loop.fd,
        .offset = offset,
    };
    const char *why;

    assert_int_equal(ebb_region_probe(&region, true, &why), 0);
    assert_int_equal(ebb_memory_add(&loop.memory, &region), 0);
}

static void make_host(const struct ebb_balloon_device_config *config)
{
    struct ebb_discard_config discard = {.memory = &loop.memory, .check_every = 1};
    struct ebb_balloon_device_config device = *config;

    device.answer_ms = 1000000; /* a machine may be slow */

    loop.fd = memfd_create("guest", MFD_CLOEXEC);
    assert_true(loop.fd >= 0);
    assert_int_equal(ftruncate(loop.fd, (off_t)(BYTES + DMA_BYTES)), 0);
    loop.ram = mmap(NULL, BYTES + DMA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, loop.fd, 0);
    assert_true(loop.ram != MAP_FAILED);
    ebb_memory_init(&loop.memory);
    add_region(ZONE, BYTES, 0);
    add_region(DMA, DMA_BYTES, BYTES);
    discard.pool = loop.pool = ebb_discard_pool_new(1);
    assert_non_null(loop.pool);
    loop.discard = ebb_discard_new(&discard);
    assert_non_null(loop.discard);
    device.memory = &loop.memory;
    device.discard = loop.discard;
    device.ops = &device_ops;
    device.ctx = &loop.link;
    loop.device = ebb_balloon_device_new(&device);
    assert_non_null(loop.device);
}

/* ---- transport ---- */

static struct link *link_of(struct ebb_transport *t)
{
    return (struct link *)t;
}

static uint64_t get_features(struct ebb_transport *t)
{
    (void)t;
    return ebb_balloon_device_features(loop.device);
}

static void set_features(struct ebb_transport *t, uint64_t features)
{
    link_of(t)->accepted = features;
}

static uint8_t get_status(struct ebb_transport *t)
{
    return link_of(t)->status | ebb_balloon_device_status(loop.device);
}

static void set_status(struct ebb_transport *t, uint8_t status)
{
    struct link *link = link_of(t);
    const uint8_t added = status & (uint8_t)~link->status;

    link->status = status;
    if (status == 0) {
        ebb_balloon_device_reset(loop.device);
        memset(link->vrings, 0, sizeof(link->vrings));
        link->irq = 0;
    }
    if ((added & EBB_STATUS_FEATURES_OK) &&
        ebb_balloon_device_accept(loop.device, link->accepted) != 0)
        link->status &= (uint8_t)~EBB_STATUS_FEATURES_OK;
    if (!(added & EBB_STATUS_DRIVER_OK))
        return;
    for (unsigned i = 0; i < QUEUES; i++) {
        if (link->vrings[i].size > 0)
            assert_int_equal(ebb_balloon_device_start(loop.device, i, &link->vrings[i]), 0);
    }
}

static unsigned queue_max(struct ebb_transport *t, unsigned index)
{
    (void)t;
    return index < QUEUES ? 64 : 0;
}

static int queue_setup(struct ebb_transport *t, unsigned index, unsigned size, uint64_t desc,
                       uint64_t avail, uint64_t used)
{
    link_of(t)->vrings[index] = (struct ebb_balloon_device_vring){
        .size = size,
        .desc = desc,
        .avail = avail,
        .used = used,
    };
    return 0;
}

static void notify(struct ebb_transport *t, unsigned index)
{
    (void)t;
    ebb_balloon_device_kick(loop.device, index);
}

static uint32_t config_read32(struct ebb_transport *t, unsigned offset)
{
    uint32_t value;

    (void)t;
    ebb_balloon_device_config_read(loop.device, offset, &value, sizeof(value));
    return value;
}

static void config_write32(struct ebb_transport *t, unsigned offset, uint32_t value)
{
    (void)t;
    ebb_balloon_device_config_write(loop.device, offset, &value, sizeof(value));
}

static unsigned irq_causes(struct ebb_transport *t)
{
    const unsigned causes = link_of(t)->irq;

    link_of(t)->irq = 0;
    return causes;
}

static const struct ebb_transport_ops transport_ops = {
    .get_features = get_features,
    .set_features = set_features,
    .get_status = get_status,
    .set_status = set_status,
    .queue_max = queue_max,
    .queue_setup = queue_setup,
    .notify = notify,
    .config_read32 = config_read32,
    .config_write32 = config_write32,
    .irq_causes = irq_causes,
};

/* ---- guest ---- */

static uint64_t *frame(uint64_t pfn)
{
    return (uint64_t *)(void *)(loop.ram + ((pfn - BASE) << EBB_FRAME_SHIFT));
}

/* Both ends of each frame say whose it is. */
static void stamp(ebb_pfn_t pfn, unsigned order)
{
    for (uint64_t i = pfn; i < pfn + (1u << order); i++)
        frame(i)[0] = frame(i)[511] = ~i;
}

static void check_stamp(ebb_pfn_t pfn, unsigned order)
{
    for (uint64_t i = pfn; i < pfn + (1u << order); i++)
        loop.lost += frame(i)[0] != ~i || frame(i)[511] != ~i;
}

static bool take(unsigned order, ebb_pfn_t *pfn)
{
    if (ebb_alloc(&loop.zone, order, EBB_MOVABLE, 0, pfn) != 0)
        return false;
    stamp(*pfn, order);
    return true;
}

static void give(ebb_pfn_t pfn, unsigned order)
{
    check_stamp(pfn, order);
    assert_int_equal(ebb_free(&loop.zone, pfn, order), 0);
}

static unsigned inflate(void *ctx, uint32_t *pfns, unsigned n)
{
    unsigned got = 0;
    ebb_pfn_t pfn;

    (void)ctx;
    while (got < n && ebb_alloc(&loop.zone, 0, EBB_MOVABLE, 0, &pfn) == 0) {
        loop.ballooned[loop.balloon_count++] = (uint32_t)pfn;
        pfns[got++] = (uint32_t)pfn;
    }
    return got;
}

static unsigned deflate(void *ctx, uint32_t *pfns, unsigned n)
{
    (void)ctx;
    if (n > loop.balloon_count)
        n = loop.balloon_count;
    loop.balloon_count -= n;
    memcpy(pfns, &loop.ballooned[loop.balloon_count], n * sizeof(*pfns));
    loop.leaving += n;
    return n;
}

static void deflated(void *ctx, const uint32_t *pfns, unsigned n)
{
    (void)ctx;
    loop.leaving -= n;
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(ebb_free(&loop.zone, pfns[i], 0), 0);
}

static unsigned guest_stats(void *ctx, struct ebb_balloon_stat *stats, unsigned n)
{
    struct ebb_zone_stats zone;

    (void)ctx;
    assert_true(n >= 2);
    ebb_zone_stats(&loop.zone, &zone);
    stats[0] = (struct ebb_balloon_stat){EBB_STAT_MEMFREE, zone.free * EBB_FRAME_SIZE};
    stats[1] = (struct ebb_balloon_stat){EBB_STAT_MEMTOT, BYTES};
    return 2;
}

static const struct ebb_balloon_ops guest_ops = {
    .inflate = inflate,
    .deflate = deflate,
    .deflated = deflated,
    .stats = guest_stats,
};

static void pass_time(void)
{
    port_virtual.now += 1000000;
}

static void make_guest(void)
{
    const struct ebb_zone_config zone_config = {.base = BASE, .frames = FRAMES};
    const struct ebb_settings settings = {.history = {.pacing = EBB_PACING_DELAY, .delay_ms = 10}};
    const size_t size = ebb_zone_metadata_size(&zone_config);

    port_virtual_reset();
    port_virtual.on_relax = pass_time;
    loop.metadata = aligned_alloc(64, (size + 63) & ~(size_t)63);
    assert_non_null(loop.metadata);
    memset(loop.metadata, 0, size);
    assert_int_equal(ebb_zone_init(&loop.zone, &zone_config, loop.metadata), 0);
    assert_int_equal(ebb_zone_add(&loop.zone, BASE, FRAMES), 0);
    assert_int_equal(delay_engine_init(&loop.engine, &loop.report, &settings, &loop.zone), 0);
    loop.link.transport.ops = &transport_ops;
    loop.config.transport = &loop.link.transport;
    loop.config.dma = loop.ram + BYTES;
    loop.config.dma_addr = DMA;
    loop.config.ops = &guest_ops;
    assert_true(ebb_balloon_dma_size() <= DMA_BYTES);
}

static void start(void)
{
    assert_int_equal(ebb_balloon_start(&loop.balloon, &loop.config), 0);
    if (loop.balloon.features & EBB_F_PAGE_REPORTING)
        assert_int_equal(ebb_balloon_attach(&loop.balloon, &loop.report), 0);
}

/* A device as `host` says, and a guest that has used all of its memory, and freed it. */
static void begin(const struct ebb_balloon_device_config *host,
                  const struct ebb_balloon_config *guest)
{
    memset(&loop, 0, sizeof(loop));
    if (guest)
        loop.config = *guest;
    make_host(host);
    make_guest();
    memset(loop.ram, 1, BYTES);
    start();
}

static void end(void)
{
    struct ebb_zone_stats stats;

    assert_int_equal(ebb_balloon_stop(&loop.balloon), 0);
    ebb_zone_stats(&loop.zone, &stats);
    assert_int_equal(stats.in_flight, 0);
    assert_int_equal(port_virtual.misuses, 0);
    assert_int_equal(loop.lost, 0);
    ebb_balloon_device_free(loop.device);
    ebb_discard_free(loop.discard);
    ebb_discard_pool_free(loop.pool);
    munmap(loop.ram, BYTES + DMA_BYTES);
    close(loop.fd);
    free(loop.metadata);
    port_virtual_reset();
}

/* One turn of everybody. */
static uint64_t turn(void)
{
    const uint64_t next = ebb_report_run(&loop.report);

    (void)ebb_balloon_work(&loop.balloon);
    if (__atomic_exchange_n(&loop.link.woken, 0, __ATOMIC_ACQUIRE)) {
        while (ebb_balloon_device_work(loop.device))
            ;
    }
    if (loop.link.irq)
        ebb_balloon_irq(&loop.balloon);
    return next;
}

static bool at_rest(uint64_t next)
{
    struct ebb_zone_stats stats;

    ebb_zone_stats(&loop.zone, &stats);
    return next == EBB_NEVER && stats.in_flight == 0 && loop.balloon.transfer == 0 &&
           loop.balloon.actual == ebb_balloon_device_actual(loop.device) &&
           loop.balloon.actual == ebb_balloon_device_target(loop.device);
}

static void settle(void)
{
    const time_t until = time(NULL) + LIMIT_S;
    unsigned quiet = 0;

    while (quiet < 4) {
        quiet = at_rest(turn()) ? quiet + 1 : 0;
        port_virtual.now += 1000000;
        if (time(NULL) > until)
            fail_msg("host and guest do not come to rest");
        if (!__atomic_load_n(&loop.link.woken, __ATOMIC_ACQUIRE))
            usleep(50); /* a discard may be under way */
    }
}

/* ---- tests ---- */

static const struct ebb_balloon_device_config plain = {.memory = NULL};

static void no_faults(void)
{
    const struct ebb_balloon_device_stats *stats = ebb_balloon_device_get_stats(loop.device);

    for (unsigned i = 0; i < EBB_FAULTS; i++)
        assert_int_equal(stats->faults[i], 0);
    assert_int_equal(loop.balloon.counters.protocol_errors, 0);
}

static void what_is_freed_leaves_the_file(void **state)
{
    struct ebb_discard_stats discards;
    ebb_pfn_t blocks[8];

    (void)state;
    begin(&plain, NULL);
    assert_true(resident() >= BYTES);
    settle();
    assert_true(resident() <= DMA_BYTES);

    for (unsigned i = 0; i < 8; i++)
        assert_true(take(10, &blocks[i]));
    for (unsigned i = 0; i < 8; i++)
        memset(frame(blocks[i]), 7, (size_t)4096 << 10);
    for (unsigned i = 0; i < 8; i++)
        stamp(blocks[i], 10);
    settle();
    assert_true(resident() >= 8 << 22);
    for (unsigned i = 0; i < 8; i += 2)
        give(blocks[i], 10);
    settle();
    assert_true(resident() >= 4 << 22);
    assert_true(resident() <= (4 << 22) + DMA_BYTES);
    for (unsigned i = 1; i < 8; i += 2)
        give(blocks[i], 10);
    settle();
    assert_true(resident() <= DMA_BYTES);
    ebb_discard_get_stats(loop.discard, &discards);
    assert_int_equal(discards.discarded_bytes, BYTES + (8 << 22));
    assert_int_equal(discards.not_bytes[EBB_DISCARD_RESIDENT], 0);
    no_faults();
    end();
}

static void what_is_ballooned_leaves_the_file(void **state)
{
    const struct ebb_balloon_config guest = {.refuse = EBB_F_PAGE_REPORTING};
    ebb_pfn_t pfn;

    (void)state;
    begin(&plain, &guest);
    assert_true(take(10, &pfn));
    ebb_balloon_device_resize(loop.device, 10000);
    settle();
    assert_int_equal(ebb_balloon_device_actual(loop.device), 10000);
    assert_true(resident() <= BYTES - 10000 * 4096 + DMA_BYTES);
    ebb_balloon_device_resize(loop.device, 0);
    settle();
    assert_int_equal(ebb_balloon_device_actual(loop.device), 0);
    assert_int_equal(loop.balloon_count, 0);
    assert_int_equal(loop.leaving, 0);
    give(pfn, 10);
    no_faults();
    end();
}

/* More than there is. */
static void the_balloon_takes_all(void **state)
{
    const time_t until = time(NULL) + LIMIT_S;

    (void)state;
    begin(&plain, NULL);
    ebb_balloon_device_resize(loop.device, UINT32_MAX);
    while (ebb_balloon_device_actual(loop.device) < FRAMES) {
        turn();
        port_virtual.now += 1000000;
        assert_true(time(NULL) <= until);
        usleep(50);
    }
    assert_true(resident() <= DMA_BYTES);
    ebb_balloon_device_resize(loop.device, 0);
    settle();
    assert_int_equal(ebb_balloon_device_actual(loop.device), 0);
    no_faults();
    end();
}

static void statistics_come_when_asked_for(void **state)
{
    const struct ebb_balloon_guest_stats *stats;

    (void)state;
    begin(&plain, NULL);
    settle();
    stats = ebb_balloon_device_guest_stats(loop.device);
    for (unsigned i = 1; i <= 3; i++) {
        const uint64_t before = ebb_balloon_device_get_stats(loop.device)->stats_received;
        ebb_pfn_t pfn;

        assert_true(take(10, &pfn));
        assert_int_equal(ebb_balloon_device_poll_stats(loop.device), 0);
        settle();
        assert_int_equal(ebb_balloon_device_get_stats(loop.device)->stats_received, before + 1);
        assert_int_equal(stats->known, 1u << EBB_STAT_MEMFREE | 1u << EBB_STAT_MEMTOT);
        assert_int_equal(stats->values[EBB_STAT_MEMTOT], BYTES);
        assert_int_equal(stats->values[EBB_STAT_MEMFREE], BYTES - (i << 22));
    }
    no_faults();
    end();
}

/* A guest that wants its poison kept reports, and nothing is dropped. */
static void poison_stays(void **state)
{
    const struct ebb_balloon_config guest = {.poison = true, .poison_val = 0x01010101};
    struct ebb_zone_stats stats;

    (void)state;
    begin(&plain, &guest);
    settle();
    ebb_zone_stats(&loop.zone, &stats);
    assert_int_equal(stats.reported, FRAMES);
    assert_true(resident() >= BYTES);
    assert_int_equal(ebb_balloon_device_get_stats(loop.device)->poison_skipped_bytes, BYTES);
    no_faults();
    end();
}

/* Whatever the driver refuses, and however it numbers its queues, it is understood. */
static void drivers_number_as_they_like(void **state)
{
    static const struct {
        enum ebb_balloon_numbering guest;
        enum ebb_balloon_device_queues host;
        uint64_t refuse, withhold;
    } rows[] = {
        {EBB_BALLOON_DENSE, EBB_BALLOON_DEVICE_DENSE, 0, 0},
        {EBB_BALLOON_DENSE, EBB_BALLOON_DEVICE_DENSE, EBB_F_STATS_VQ, 0},
        {EBB_BALLOON_DENSE, EBB_BALLOON_DEVICE_DENSE, 0, EBB_F_FREE_PAGE_HINT},
        {EBB_BALLOON_DENSE, EBB_BALLOON_DEVICE_DENSE, 0, EBB_F_FREE_PAGE_HINT | EBB_F_STATS_VQ},
        {EBB_BALLOON_FIXED, EBB_BALLOON_DEVICE_DENSE, 0, 0},
        {EBB_BALLOON_FIXED, EBB_BALLOON_DEVICE_DENSE, EBB_F_STATS_VQ, EBB_F_FREE_PAGE_HINT},
        {EBB_BALLOON_FIXED, EBB_BALLOON_DEVICE_FIXED, EBB_F_STATS_VQ, 0},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct ebb_balloon_device_config host = {
            .withhold = rows[i].withhold,
            .numbering = rows[i].host,
        };
        const struct ebb_balloon_config guest = {
            .numbering = rows[i].guest,
            .refuse = rows[i].refuse,
        };

        begin(&host, &guest);
        settle();
        if (resident() > DMA_BYTES)
            fail_msg("row %u: what was reported is still there", i);
        no_faults();
        end();
    }
}

/* A driver that stops with a batch at the host, and starts again. */
static void a_driver_starts_again(void **state)
{
    (void)state;
    begin(&plain, NULL);
    for (unsigned i = 0; i < 50; i++) {
        for (unsigned turns = 0; turns < i; turns++) {
            turn();
            port_virtual.now += 1000000;
        }
        assert_int_equal(ebb_balloon_stop(&loop.balloon), 0);
        start();
    }
    settle();
    assert_true(resident() <= DMA_BYTES);
    no_faults();
    end();
}

static struct {
    ebb_pfn_t pfn;
    unsigned order;
} held[HELD];
static unsigned held_count;

static void give_one(unsigned i)
{
    give(held[i].pfn, held[i].order);
    held[i] = held[--held_count];
}

static void churn_step(struct rng *rng)
{
    const unsigned what = rng_below(rng, 100);

    if (what < 40 && held_count < HELD) {
        held[held_count].order = rng_below(rng, 3) ? 9 : rng_below(rng, 11);
        held_count += take(held[held_count].order, &held[held_count].pfn);
    } else if (what < 75 && held_count > 0) {
        give_one(rng_below(rng, held_count));
    } else if (what < 99) {
        turn();
        (void)ebb_balloon_device_work(loop.device);
        if (rng_below(rng, 8) == 0)
            ebb_balloon_device_quiesce(loop.device); /* however slow the pool is */
        port_virtual.now += 1000000 * (uint64_t)rng_below(rng, 20);
    } else {
        ebb_balloon_device_resize(loop.device, rng_below(rng, 4000));
        (void)!ebb_balloon_device_poll_stats(loop.device);
    }
}

/* Blocks are taken, stamped, freed; the balloon grows and shrinks; the host asks, gathers and
 * discards at its own pace. */
static void churn(void **state)
{
    const struct ebb_balloon_device_config host = {.gather_us = 100, .batch_chains = 2};

    (void)state;
    for (uint64_t run = 0; run < 4; run++) {
        struct rng rng = {rng_seed(run)};
        const uint64_t seed = rng.state;

        rng_current = seed;
        begin(run % 2 ? &host : &plain, NULL);
        for (unsigned step = 0; step < 6000; step++) {
            churn_step(&rng);
            if (loop.lost)
                fail_msg("EBB_SEED=%llu: a frame was dropped in use", (unsigned long long)seed);
        }
        while (held_count > 0)
            give_one(held_count - 1);
        if (ebb_balloon_device_get_stats(loop.device)->reported_bytes == 0)
            fail_msg("EBB_SEED=%llu: nothing was reported", (unsigned long long)seed);
        no_faults();
        end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_freed_leaves_the_file),
        cmocka_unit_test(what_is_ballooned_leaves_the_file),
        cmocka_unit_test(the_balloon_takes_all),
        cmocka_unit_test(statistics_come_when_asked_for),
        cmocka_unit_test(poison_stays),
        cmocka_unit_test(drivers_number_as_they_like),
        cmocka_unit_test(a_driver_starts_again),
        cmocka_unit_test(churn),
    };

    rng_watch();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
