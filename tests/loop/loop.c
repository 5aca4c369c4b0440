/* SPDX-License-Identifier: BSD-2-Clause */
/* Driver, device and guest in one process; see loop.h. */
#include "loop.h"

#include "port_virtual.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

struct loop loop;

/* ---- the guest ---- */

static unsigned pick(uint32_t *pfns, unsigned n, enum loop_frame from, enum loop_frame to)
{
    unsigned got = 0;

    for (uint32_t pfn = 0; pfn < LOOP_FRAMES && got < n; pfn++) {
        if (loop.frames[pfn] != from)
            continue;
        loop.frames[pfn] = (uint8_t)to;
        pfns[got++] = pfn;
    }
    return got;
}

static unsigned guest_inflate(void *ctx, uint32_t *pfns, unsigned n)
{
    unsigned got;

    assert_ptr_equal(ctx, &loop);
    assert_true(n > 0 && n <= EBB_BALLOON_PFNS);
    if (n > loop.spare)
        n = loop.spare;
    got = pick(pfns, n, LOOP_FREE, LOOP_BALLOON);
    loop.spare -= got;
    loop.held += got;
    return got;
}

static unsigned guest_deflate(void *ctx, uint32_t *pfns, unsigned n)
{
    assert_ptr_equal(ctx, &loop);
    assert_true(n > 0 && n <= EBB_BALLOON_PFNS);
    return pick(pfns, n, LOOP_BALLOON, LOOP_LEAVING);
}

static void guest_deflated(void *ctx, const uint32_t *pfns, unsigned n)
{
    assert_ptr_equal(ctx, &loop);
    for (unsigned i = 0; i < n; i++) {
        if (pfns[i] >= LOOP_FRAMES || loop.frames[pfns[i]] != LOOP_LEAVING) {
            loop.wrong++;
            continue;
        }
        loop.frames[pfns[i]] = LOOP_FREE;
        loop.held--;
        loop.spare++;
    }
}

static unsigned guest_stats(void *ctx, struct ebb_balloon_stat *stats, unsigned n)
{
    assert_ptr_equal(ctx, &loop);
    assert_int_equal(n, EBB_BALLOON_STATS_MAX);
    for (unsigned i = 0; i < loop.stat_count; i++)
        stats[i] = (struct ebb_balloon_stat){
            .tag = (uint16_t)(0x0100 + i),
            .value = 0x1122334455667700u + i,
        };
    return loop.stat_count;
}

static const struct ebb_balloon_ops guest_ops = {
    .inflate = guest_inflate,
    .deflate = guest_deflate,
    .deflated = guest_deflated,
    .stats = guest_stats,
};

/* Whoever waits makes time pass. */
static void pass_time(void)
{
    port_virtual.now += 1000000;
}

void loop_init(uint64_t features)
{
    port_virtual_reset();
    port_virtual.on_relax = pass_time;
    memset(&fake_report, 0, sizeof(fake_report));
    memset(&loop, 0, sizeof(loop));
    model_init(&loop.model, features);
    loop.spare = LOOP_FRAMES;
    loop.stat_count = 2;
    loop.config = (struct ebb_balloon_config){
        .transport = &loop.model.transport,
        .dma = loop.model.ram,
        .dma_addr = MODEL_RAM_BASE,
        .ops = &guest_ops,
        .ctx = &loop,
        .worker = &loop,
    };
    assert_true(ebb_balloon_dma_size() <= MODEL_RAM_BYTES);
}

void loop_exit(void)
{
    loop.model.stuck_in_reset = false;
    assert_int_equal(ebb_balloon_stop(&loop.balloon), 0);
    assert_null(fake_report.device);
    assert_false(fake_report.in_flight);
    assert_int_equal(fake_report.stray, 0);
    assert_int_equal(loop.wrong, 0);
    assert_int_equal(loop.model.status & EBB_STATUS_DRIVER_OK, 0);
    assert_false(loop.model.early_notify);
    model_exit(&loop.model);
    port_virtual_reset();
}

void loop_start(void)
{
    assert_int_equal(ebb_balloon_start(&loop.balloon, &loop.config), 0);
    if (loop.balloon.features & EBB_F_PAGE_REPORTING)
        assert_int_equal(ebb_balloon_attach(&loop.balloon, &fake_report.report), 0);
}

void loop_irq(void)
{
    if (loop.model.irq)
        ebb_balloon_irq(&loop.balloon);
}

void loop_settle(void)
{
    unsigned wakes;

    for (unsigned i = 0; i < 1000; i++) {
        wakes = port_virtual.wakes;
        (void)ebb_balloon_work(&loop.balloon);
        if (model_run(&loop.model) == 0 && !loop.model.irq && wakes == port_virtual.wakes)
            return;
        loop_irq();
    }
    fail_msg("host and guest do not come to rest");
}
