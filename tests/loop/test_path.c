/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The whole path in one process: zone, engine, balloon driver, ring, device.
 * The device drops what it is told of, by a map of all frames that the test
 * keeps: a frame that is dropped while it is in use is found at once.
 */
#include "delay_engine.h"
#include "device_model.h"
#include "port_virtual.h"
#include "rng.h"

#include <ebb/balloon.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BASE   0x2000u
#define FRAMES 24576u /* 96 MiB: 24 blocks of 4 MiB */
#define HELD   4096u

static struct {
    struct ebb_zone zone;
    struct ebb_report report;
    struct delay_engine engine;
    struct ebb_balloon balloon;
    struct ebb_balloon_config config;
    struct model model;
    void *metadata;
    bool in_use[FRAMES];
    bool dropped[FRAMES]; /* since it was last in use */
    unsigned drops;       /* frames */
    unsigned live_drops;  /* frames that were in use */
    uint32_t ballooned[FRAMES];
    unsigned balloon_count;
    unsigned leaving;
} path;

/* ---- the host's memory ---- */

static void drop(uint64_t addr, uint64_t len)
{
    for (uint64_t pfn = addr >> EBB_FRAME_SHIFT; pfn < (addr + len) >> EBB_FRAME_SHIFT; pfn++) {
        assert_true(pfn >= BASE && pfn < BASE + FRAMES);
        path.live_drops += path.in_use[pfn - BASE];
        path.dropped[pfn - BASE] = true;
        path.drops++;
    }
}

/* ---- the guest ---- */

static int take(unsigned order, ebb_pfn_t *pfn)
{
    const int err = ebb_alloc(&path.zone, order, EBB_MOVABLE, 0, pfn);

    for (unsigned i = 0; !err && i < 1u << order; i++) {
        assert_false(path.in_use[*pfn - BASE + i]);
        path.in_use[*pfn - BASE + i] = true;
        path.dropped[*pfn - BASE + i] = false;
    }
    return err;
}

static void give(ebb_pfn_t pfn, unsigned order)
{
    for (unsigned i = 0; i < 1u << order; i++)
        path.in_use[pfn - BASE + i] = false;
    assert_int_equal(ebb_free(&path.zone, pfn, order), 0);
}

static unsigned inflate(void *ctx, uint32_t *pfns, unsigned n)
{
    unsigned got = 0;
    ebb_pfn_t pfn;

    (void)ctx;
    while (got < n && take(0, &pfn) == 0) {
        path.ballooned[path.balloon_count++] = (uint32_t)pfn;
        pfns[got++] = (uint32_t)pfn;
    }
    return got;
}

static unsigned deflate(void *ctx, uint32_t *pfns, unsigned n)
{
    (void)ctx;
    if (n > path.balloon_count)
        n = path.balloon_count;
    path.balloon_count -= n;
    memcpy(pfns, &path.ballooned[path.balloon_count], n * sizeof(*pfns));
    path.leaving += n;
    return n;
}

static void deflated(void *ctx, const uint32_t *pfns, unsigned n)
{
    (void)ctx;
    path.leaving -= n;
    for (unsigned i = 0; i < n; i++)
        give(pfns[i], 0);
}

static const struct ebb_balloon_ops ops = {
    .inflate = inflate,
    .deflate = deflate,
    .deflated = deflated,
};

/* ---- set-up ---- */

static void pass_time(void)
{
    port_virtual.now += 1000000;
}

static void start(void)
{
    assert_int_equal(ebb_balloon_start(&path.balloon, &path.config), 0);
    assert_int_equal(ebb_balloon_attach(&path.balloon, &path.report), 0);
}

static int setup(void **state)
{
    const struct ebb_zone_config zone_config = {.base = BASE, .frames = FRAMES};
    const struct ebb_settings settings = {.history = {.pacing = EBB_PACING_DELAY, .delay_ms = 10}};
    const size_t size = ebb_zone_metadata_size(&zone_config);

    (void)state;
    port_virtual_reset();
    port_virtual.on_relax = pass_time;
    memset(&path, 0, sizeof(path));
    path.metadata = aligned_alloc(64, (size + 63) & ~(size_t)63);
    assert_non_null(path.metadata);
    memset(path.metadata, 0, size);
    assert_int_equal(ebb_zone_init(&path.zone, &zone_config, path.metadata), 0);
    assert_int_equal(ebb_zone_add(&path.zone, BASE, FRAMES), 0);
    assert_int_equal(delay_engine_init(&path.engine, &path.report, &settings, &path.zone), 0);
    model_init(&path.model, EBB_F_STATS_VQ | EBB_F_PAGE_REPORTING);
    path.model.on_range = drop;
    path.config = (struct ebb_balloon_config){
        .transport = &path.model.transport,
        .dma = path.model.ram,
        .dma_addr = MODEL_RAM_BASE,
        .ops = &ops,
    };
    start();
    return 0;
}

static struct ebb_zone_stats check_zone(void)
{
    struct ebb_violation violation = {.what = ""};
    struct ebb_zone_stats stats;

    if (ebb_zone_check(&path.zone, EBB_CHECK_FRAMES, &violation))
        fail_msg("I%u at pfn %#llx: %s", violation.invariant, (unsigned long long)violation.pfn,
                 violation.what);
    ebb_zone_stats(&path.zone, &stats);
    return stats;
}

/* Nothing is with the host, and no frame was dropped that somebody used. */
static int teardown(void **state)
{
    struct ebb_report_stats stats;

    (void)state;
    assert_int_equal(ebb_balloon_stop(&path.balloon), 0);
    assert_int_equal(check_zone().in_flight, 0);
    assert_int_equal(path.live_drops, 0);
    assert_int_equal(path.leaving, 0);
    ebb_report_get_stats(&path.report, &stats);
    assert_int_equal(stats.stray_completes, 0);
    assert_int_equal(port_virtual.misuses, 0);
    model_exit(&path.model);
    free(path.metadata);
    port_virtual_reset();
    return 0;
}

/* One turn of everybody. */
static uint64_t turn(void)
{
    const uint64_t next = ebb_report_run(&path.report);

    (void)ebb_balloon_work(&path.balloon);
    model_run(&path.model);
    if (path.model.irq)
        ebb_balloon_irq(&path.balloon);
    return next;
}

static void settle(void)
{
    unsigned quiet = 0;

    for (unsigned i = 0; i < 100000; i++) {
        const unsigned drops = path.drops, balloon = path.model.balloon_size;
        const uint64_t next = turn();

        quiet = next == EBB_NEVER && drops == path.drops && balloon == path.model.balloon_size
                    ? quiet + 1
                    : 0;
        if (quiet == 4)
            return;
        port_virtual.now += 1000000;
    }
    fail_msg("the path does not come to rest");
}

/* ---- tests ---- */

static void a_free_page_reaches_the_host(void **state)
{
    struct ebb_zone_stats stats;
    ebb_pfn_t blocks[12];
    unsigned before;

    (void)state;
    settle(); /* the first pass: all of it */
    stats = check_zone();
    assert_int_equal(path.drops, FRAMES);
    assert_int_equal(stats.reported, FRAMES);
    assert_int_equal(path.model.bad_requests, 0);

    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(take(10, &blocks[i]), 0);
    settle();
    assert_int_equal(path.drops, FRAMES); /* what is reported is not reported again */
    before = path.drops;
    for (unsigned i = 0; i < 12; i++)
        give(blocks[i], 10);
    settle();
    assert_int_equal(path.drops - before, 12 * 1024);
    stats = check_zone();
    assert_int_equal(stats.reported, FRAMES);
    assert_int_equal(stats.free, FRAMES);
    for (unsigned i = 0; i < FRAMES; i++)
        assert_true(path.dropped[i]);
}

/* Batches are as large as QEMU's queue, and one is on its way at a time. */
static void batches_fill_the_queue(void **state)
{
    struct ebb_report_stats stats;

    (void)state;
    settle();
    ebb_report_get_stats(&path.report, &stats);
    assert_int_equal(stats.reported_blocks, 24);
    /* Half of the zone at a time. */
    assert_int_equal(stats.batches, 2);
    assert_int_equal(path.balloon.counters.batches, 2);
    assert_int_equal(path.model.reporting_chains, 2);
}

/* A batch that fails leaves its blocks unmarked; a new start reports them. */
static void broken_device_then_a_new_one(void **state)
{
    struct ebb_report_stats stats;

    (void)state;
    path.model.reporting_len = UINT32_MAX;
    for (unsigned i = 0; i < 20; i++) {
        turn();
        port_virtual.now += 1000000;
    }
    ebb_report_get_stats(&path.report, &stats);
    assert_int_equal(path.balloon.counters.protocol_errors, 1);
    assert_true(stats.failed_batches >= 1);
    assert_int_equal(check_zone().reported, 0);
    assert_int_equal(check_zone().in_flight, 0);

    assert_int_equal(ebb_balloon_stop(&path.balloon), 0);
    path.model.reporting_len = 0;
    start();
    settle();
    assert_int_equal(check_zone().reported, FRAMES);
}

/* The host keeps a batch for ever; stopping gets the blocks back. */
static void stop_with_a_batch_in_flight(void **state)
{
    ebb_pfn_t pfn;

    (void)state;
    path.model.silent = true;
    for (unsigned i = 0; i < 20; i++) {
        turn();
        port_virtual.now += 1000000;
    }
    assert_true(check_zone().in_flight > 0);
    assert_int_equal(ebb_balloon_stop(&path.balloon), 0);
    assert_int_equal(check_zone().in_flight, 0);
    assert_int_equal(check_zone().reported, 0);
    assert_int_equal(take(10, &pfn), 0);
    path.model.silent = false;
    start();
    settle();
    assert_int_equal(check_zone().reported, FRAMES - 1024);
    give(pfn, 10);
}

/* Marks survive the device: a later one is told only what is new. */
static void a_later_device_resumes(void **state)
{
    ebb_pfn_t pfn;
    unsigned before;

    (void)state;
    settle();
    assert_int_equal(ebb_balloon_stop(&path.balloon), 0);
    assert_int_equal(take(10, &pfn), 0);
    give(pfn, 10);
    before = path.drops;
    start();
    settle();
    assert_int_equal(path.drops - before, 1024);
    assert_int_equal(check_zone().reported, FRAMES);
}

static void balloon_and_reporting(void **state)
{
    (void)state;
    settle();
    model_resize(&path.model, 10000);
    settle();
    assert_int_equal(path.model.balloon_size, 10000);
    assert_int_equal(check_zone().allocated, 10000);
    model_resize(&path.model, UINT32_MAX);
    for (unsigned i = 0; i < 1000; i++) {
        turn();
        port_virtual.now += 1000000;
    }
    assert_int_equal(path.model.balloon_size, FRAMES);
    model_resize(&path.model, 0);
    settle();
    ebb_zone_drain(&path.zone);
    settle();
    assert_int_equal(path.model.balloon_size, 0);
    assert_int_equal(check_zone().free, FRAMES);
    assert_int_equal(path.model.bad_requests, 0);
}

/* Allocations, frees, turns and host's wishes at random; the host answers late
 * or breaks the protocol now and then, and is started again. */
static void churn(void **state)
{
    (void)state;
    for (uint64_t run = 0; run < 20; run++) {
        static struct {
            ebb_pfn_t pfn;
            unsigned order;
        } held[HELD];
        const uint64_t seed = rng_seed(run);
        struct rng rng = {seed};
        unsigned n = 0;

        teardown(state);
        setup(state);
        for (unsigned step = 0; step < 5000; step++) {
            const unsigned what = rng_below(&rng, 100);

            if (what < 45 && n < HELD) {
                held[n].order = rng_below(&rng, 3) ? 9 : rng_below(&rng, 11);
                if (take(held[n].order, &held[n].pfn) == 0)
                    n++;
            } else if (what < 80 && n > 0) {
                const unsigned i = rng_below(&rng, n);

                give(held[i].pfn, held[i].order);
                held[i] = held[--n];
            } else if (what < 98) {
                turn();
                port_virtual.now += 1000000 * (uint64_t)rng_below(&rng, 20);
            } else if (rng_below(&rng, 8)) {
                path.model.silent = rng_below(&rng, 2);
                model_resize(&path.model, rng_below(&rng, 4000));
            } else {
                path.model.reporting_len = rng_below(&rng, 3) ? 0 : UINT32_MAX;
                if (!path.balloon.running) {
                    const unsigned back = path.balloon.transfer_deflate ? path.leaving : 0;

                    /* The frames of the balloon are ours again. */
                    assert_int_equal(ebb_balloon_stop(&path.balloon), 0);
                    path.balloon_count += back;
                    path.leaving = 0;
                    while (path.balloon_count > 0)
                        give(path.ballooned[--path.balloon_count], 0);
                    memset(path.model.ballooned, 0, sizeof(path.model.ballooned));
                    path.model.balloon_size = 0;
                    path.model.reporting_len = 0;
                    start();
                }
            }
            if (path.live_drops)
                fail_msg("EBB_SEED=%llu: a frame was dropped in use", (unsigned long long)seed);
            if (step % 500 == 0)
                check_zone();
        }
        if (path.drops == 0)
            fail_msg("EBB_SEED=%llu: nothing was ever reported", (unsigned long long)seed);
        assert_int_equal(ebb_balloon_stop(&path.balloon), 0);
        path.leaving = 0;
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_free_page_reaches_the_host),
        TEST(batches_fill_the_queue),
        TEST(broken_device_then_a_new_one),
        TEST(stop_with_a_batch_in_flight),
        TEST(a_later_device_resumes),
        TEST(balloon_and_reporting),
        TEST(churn),
    };

    rng_watch();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
