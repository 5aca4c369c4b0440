/* SPDX-License-Identifier: BSD-2-Clause */
/* See rig.h. */
#include "rig.h"

#include "port_virtual.h"

#include <linux/sched/clock.h>

#include <stdlib.h>
#include <string.h>

#define SAMPLE_MS  8
#define DRAIN_MS   50
#define RUNS_LIMIT 1000 /* of the engine, at one instant */
#define REST_LIMIT (600 * UINT64_C(1000) * MS)

struct rig rig;

u64 local_clock(void)
{
    port_virtual.now += rig.clock_step;
    return port_virtual.now;
}

/* ---- frames ---- */

static uint64_t *stamp_of(unsigned long pfn)
{
    return &rig.stamps[pfn - model.config.base];
}

static void tell(unsigned long pfn)
{
    struct frame *frame = model_frame(pfn);

    MODEL_CHECK(frame->owner == HELD);
    *stamp_of(pfn) = 0x5c5c5c5c;
    if (rig.refuses || rig.status)
        return;
    rig.told++;
    rig.twice += frame->told;
    frame->told = true;
}

static int submit(struct ebb_report_device *device, const struct ebb_range *ranges, unsigned n)
{
    MODEL_CHECK(n > 0 && n <= device->capacity && !model.zone.lock.held);
    for (unsigned i = 0; i < n; i++) {
        const unsigned long pfn = ranges[i].addr >> EBB_FRAME_SHIFT;

        for (unsigned long j = 0; j < ranges[i].len >> EBB_FRAME_SHIFT; j++)
            tell(pfn + j);
    }
    if (rig.in_flight)
        rig.in_flight();
    if (rig.refuses)
        return -EBB_EBUSY;
    ebb_report_complete(&rig.report, rig.status);
    return 0;
}

static const struct ebb_report_device_ops device_ops = {.submit = submit};

/* ---- the allocator's users ---- */

bool rig_alloc(unsigned order, unsigned type)
{
    unsigned long pfn;

    if (rig.n_blocks == RIG_BLOCKS_LIMIT || !model_alloc(order, type, port_virtual.cpu, &pfn))
        return false;
    rig.blocks[rig.n_blocks++] = (struct rig_block){.pfn = pfn, .order = order};
    for (unsigned long i = 0; i < 1UL << order; i++)
        *stamp_of(pfn + i) = ~(pfn + i);
    return true;
}

void rig_free(unsigned i)
{
    const struct rig_block block = rig.blocks[i];

    for (unsigned long j = 0; j < 1UL << block.order; j++)
        MODEL_CHECK(*stamp_of(block.pfn + j) == ~(block.pfn + j));
    rig.blocks[i] = rig.blocks[--rig.n_blocks];
    model_free(block.pfn, block.order, port_virtual.cpu);
}

void rig_free_all(void)
{
    while (rig.n_blocks > 0)
        rig_free(rig.n_blocks - 1);
}

void rig_alloc_all(unsigned order)
{
    while (rig_alloc(order, MIGRATE_MOVABLE))
        ;
}

/* ---- as linux/reporting.c ---- */

static void start_sampler(void)
{
    if (rig.sample_at == EBB_NEVER)
        rig.sample_at = port_virtual.now + SAMPLE_MS * MS;
}

static void notify(void)
{
    if (!ebb_source_note(&rig.ez->source))
        return;
    ebb_zone_sample_unlocked(rig.ez);
    ebb_source_request(&rig.ez->source);
    start_sampler();
}

void rig_sample(void)
{
    ebb_zone_sample(rig.ez);
    rig.sample_at = EBB_NEVER;
    if (ebb_report_phase(&rig.report) != EBB_REPORT_IDLE)
        start_sampler();
}

static void check(void)
{
    if (ebb_zone_is_stale(rig.ez) && ebb_source_note(&rig.ez->source))
        ebb_source_request(&rig.ez->source);
    rig.check_at = port_virtual.now + EBB_REPORT_WINDOW_MAX_MS * MS;
}

static void drain(bool now)
{
    const unsigned before = ebb_zone_cached(rig.ez);

    if (!now && port_virtual.now < rig.drained + DRAIN_MS * MS)
        return;
    rig.drained = port_virtual.now;
    ebb_zone_drain(rig.ez, now);
    rig.drains += ebb_zone_cached(rig.ez) < before;
}

static uint64_t run(bool now)
{
    uint64_t due;

    drain(now);
    if (now)
        ebb_report_now(&rig.report);
    due = ebb_report_run(&rig.report);
    if (due != EBB_NEVER)
        start_sampler();
    return due;
}

void rig_now(void)
{
    (void)run(true);
}

static uint64_t earliest(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Whatever is due now; returns when something is again. */
static uint64_t step(void)
{
    uint64_t due;
    unsigned runs = 0;

    if (rig.sample_at <= port_virtual.now)
        rig_sample();
    if (rig.check_at <= port_virtual.now)
        check();
    while ((due = run(false)) <= port_virtual.now)
        MODEL_CHECK(++runs < RUNS_LIMIT);
    return earliest(due, earliest(rig.sample_at, rig.check_at));
}

void rig_pass_time(uint64_t ns)
{
    const uint64_t end = port_virtual.now + ns;
    uint64_t next;

    while ((next = step()) <= end)
        port_virtual.now = next > port_virtual.now ? next : port_virtual.now;
    port_virtual.now = end > port_virtual.now ? end : port_virtual.now;
}

static bool is_at_rest(void)
{
    return ebb_report_run(&rig.report) == EBB_NEVER && rig.sample_at == EBB_NEVER &&
           !ebb_zone_is_stale(rig.ez);
}

void rig_rest(void)
{
    const uint64_t begun = port_virtual.now;

    do {
        rig_pass_time(EBB_REPORT_WINDOW_MAX_MS * MS);
        MODEL_CHECK(port_virtual.now - begun < REST_LIMIT);
    } while (!is_at_rest());
}

static void attach(void)
{
    MODEL_CHECK(ebb_report_register(&rig.report, &rig.device) == 0);
}

void rig_resize(void)
{
    MODEL_CHECK(ebb_report_unregister(&rig.report) == 0);
    MODEL_CHECK(ebb_zone_resize(rig.ez) == 0);
    attach();
}

/* ---- checks ---- */

struct truth rig_check(void)
{
    for (unsigned i = 0; i < rig.n_blocks; i++) {
        for (unsigned long j = 0; j < 1UL << rig.blocks[i].order; j++) {
            const unsigned long pfn = rig.blocks[i].pfn + j;

            MODEL_CHECK(model_frame(pfn)->owner == USED && *stamp_of(pfn) == ~pfn);
        }
    }
    MODEL_CHECK(rig.twice <= model.lost);
    return model_check();
}

/* ---- making one ---- */

struct model_config rig_config(unsigned blocks)
{
    return (struct model_config){
        .base = RIG_BASE,
        .frames = blocks * MAX_ORDER_FRAMES,
        .watermark_min = RIG_LOW / 2,
        .watermark_low = RIG_LOW,
        .seed = 1,
    };
}

void rig_create(const struct model_config *config, unsigned order)
{
    const struct ebb_report_config report = {.order = EBB_REPORT_ORDER((uint8_t)order)};

    memset(&rig, 0, sizeof(rig));
    port_virtual_reset();
    port_virtual.now = 1000 * MS;
    model_create(config);
    rig.stamps = calloc(config->frames, sizeof(*rig.stamps));
    rig.blocks = calloc(RIG_BLOCKS_LIMIT, sizeof(*rig.blocks));
    rig.ez = ebb_zone_create(&model.zone, order);
    MODEL_CHECK(rig.stamps && rig.blocks && rig.ez);
    MODEL_CHECK(ebb_report_init(&rig.report, &report) == 0);
    MODEL_CHECK(ebb_report_add_source(&rig.report, &rig.ez->source) == 0);
    rig.device = (struct ebb_report_device){.ops = &device_ops, .capacity = EBB_REPORT_CAPACITY};
    rig.sample_at = EBB_NEVER;
    rig.check_at = port_virtual.now + EBB_REPORT_WINDOW_MAX_MS * MS;
    model.notify = notify;
    attach();
}

void rig_destroy(void)
{
    model.on_unlock = NULL;
    MODEL_CHECK(ebb_report_unregister(&rig.report) == 0);
    MODEL_CHECK(model.held == 0);
    ebb_zone_destroy(rig.ez);
    free(rig.stamps);
    free(rig.blocks);
    model_destroy();
}
