/* SPDX-License-Identifier: BSD-2-Clause */
/* See report_rig.h. */
#include "report_rig.h"

#include <stdio.h>
#include <stdlib.h>

#define PASSES_LIMIT 200u

static unsigned rigs; /* that exist */

static struct rig *rig_of(struct ebb_report_device *device)
{
    return (struct rig *)((char *)device - offsetof(struct rig, device));
}

/* ---- the device ---- */

/* The zone that an address lies in. */
static struct ebb_zone *zone_at(struct rig *rig, uint64_t addr)
{
    ebb_pfn_t pfn = addr >> EBB_FRAME_SHIFT;

    for (unsigned i = 0; i < rig->zone_count; i++) {
        if (pfn >= rig->zones[i].first && pfn < rig->zones[i].base + rig->zones[i].span)
            return &rig->zones[i];
    }
    fail_msg("address %#llx is in no zone", (unsigned long long)addr);
    return NULL;
}

/* One range: a block of its zone, aligned, in flight, out of everybody's reach; or with surplus
 * pacing several, one right behind the other, within one large block's frames. */
static void check_range(struct rig *rig, const struct ebb_range *range)
{
    struct ebb_zone *zone = zone_at(rig, range->addr);
    uint64_t frames = range->len >> EBB_FRAME_SHIFT;
    ebb_pfn_t first = range->addr >> EBB_FRAME_SHIFT;
    ebb_pfn_t pfn = first;
    unsigned blocks = 0;

    assert_true(frames > 0);
    assert_true(range->len % EBB_FRAME_SIZE == 0 && range->addr % EBB_FRAME_SIZE == 0);
    assert_ptr_equal(zone_at(rig, range->addr + range->len - 1), zone);
    for (; pfn < first + frames; blocks++) {
        struct ebb_block block;

        ebb_zone_lookup(zone, pfn, &block);
        assert_int_equal(block.pfn, pfn);
        assert_int_equal(block.state, EBB_BLOCK_IN_FLIGHT);
        assert_true(pfn % (1u << block.order) == 0);
        assert_true(block.order >= zone->report_min_order);
        assert_int_equal(ebb_alloc_at(zone, pfn, 0, EBB_ALLOC_RESERVE), -EBB_EAGAIN);
        pfn += (uint64_t)1 << block.order;
    }
    assert_int_equal(pfn, first + frames);
    if (blocks > 1) {
        assert_true(zone->prefers_warm);
        assert_int_equal((first - zone->base) >> zone->large_order,
                         (pfn - 1 - zone->base) >> zone->large_order);
        /* Neighbours come as one range, whatever comes next. */
        rig->joined++;
    }
    rig->blocks_seen += blocks;
}

static void check_batch(struct rig *rig, const struct ebb_range *ranges, unsigned n)
{
    assert_int_equal(port_virtual.locks_held, 0); /* I8 */
    assert_false(rig->in_flight);                 /* I7 */
    assert_int_equal(rig->depth, 1);              /* no recursion */
    assert_in_range(n, 1, rig->device.capacity);
    for (unsigned i = 0; i < n; i++) {
        check_range(rig, &ranges[i]);
        assert_ptr_equal(zone_at(rig, ranges[i].addr), zone_at(rig, ranges[0].addr));
        for (unsigned j = 0; j < i; j++)
            assert_true(ranges[j].addr + ranges[j].len <= ranges[i].addr ||
                        ranges[i].addr + ranges[i].len <= ranges[j].addr);
    }
}

static void log_batch(struct rig *rig, const struct ebb_range *ranges, unsigned n)
{
    assert_true(rig->submits < RIG_LOG);
    rig->batch = &rig->log[rig->submits++];
    rig->batch->at = port_virtual.now;
    rig->batch->n = n;
    free(rig->batch->ranges); /* of before it was forgotten */
    rig->batch->ranges = malloc(n * sizeof(*ranges));
    assert_non_null(rig->batch->ranges);
    memcpy(rig->batch->ranges, ranges, n * sizeof(*ranges));
}

/* The last batch succeeded. */
static void note_told(struct rig *rig)
{
    for (unsigned i = 0; i < rig->batch->n; i++) {
        const struct ebb_range *range = &rig->batch->ranges[i];
        struct ebb_zone *zone = zone_at(rig, range->addr);

        memset(rig->told[zone - rig->zones] + ((range->addr >> EBB_FRAME_SHIFT) - zone->base), 1,
               range->len >> EBB_FRAME_SHIFT);
    }
}

void rig_complete(struct rig *rig, int status)
{
    assert_true(rig->in_flight);
    rig->in_flight = false;
    if (status >= 0)
        note_told(rig);
    for (unsigned i = 0; i < (rig->complete_times ? rig->complete_times : 1); i++)
        ebb_report_complete(&rig->report, status);
}

/* Is the last batch one that completes with an error? */
static bool fails(const struct rig *rig)
{
    if (rig->submits == rig->fail_at)
        return true;
    for (unsigned i = 0; rig->bad_pfn && i < rig->batch->n; i++) {
        if (rig->batch->ranges[i].addr == rig->bad_pfn * EBB_FRAME_SIZE)
            return true;
    }
    return false;
}

static int submit(struct ebb_report_device *device, const struct ebb_range *ranges, unsigned n)
{
    struct rig *rig = rig_of(device);

    assert_true(rig->registered);
    rig->depth++;
    check_batch(rig, ranges, n);
    log_batch(rig, ranges, n);
    rig->in_flight = true;
    if (rig->on_submit)
        rig->on_submit(rig);
    /* What it was handed must not have changed meanwhile. */
    assert_memory_equal(rig->batch->ranges, ranges, n * sizeof(*ranges));
    if (rig->submits == rig->refuse_at) {
        rig->in_flight = false;
        rig->depth--;
        return rig->error;
    }
    if (!rig->later && rig->in_flight)
        rig_complete(rig, fails(rig) ? rig->error : 0);
    rig->depth--;
    return 0;
}

static void poll_device(struct ebb_report_device *device)
{
    struct rig *rig = rig_of(device);

    rig->polls++;
    if (rig->complete_on_poll && rig->in_flight)
        rig_complete(rig, 0);
}

static const struct ebb_report_device_ops ops = {.submit = submit, .poll = poll_device};

/* ---- making and unmaking ---- */

static uint64_t frames_of(const struct rig_config *config)
{
    return config->frames ? config->frames : (uint64_t)MAX_BLOCKS << MAX_ORDER;
}

static void make_zone(struct rig *rig, unsigned i, const struct rig_config *config)
{
    /* Far enough apart that blocks of two zones never touch. */
    struct ebb_zone_config c = {
        .base = RIG_BASE + i * 2 * frames_of(config),
        .frames = frames_of(config),
        .max_order = (uint8_t)(config->max_order ? config->max_order : MAX_ORDER),
        .pageblock_order = (uint8_t)config->pageblock_order,
        .cpus = (uint16_t)config->cpus,
        .node = (uint16_t)i,
        .watermark_min = config->watermark_min,
        .watermark_low = config->watermark_low,
        .pcp_high = (uint16_t)config->pcp_high,
        .pcp_batch = (uint16_t)config->pcp_batch,
        .pcp_blocks = (uint8_t)(config->pcp_blocks ? config->pcp_blocks : EBB_PCP_NONE),
        .shuffle_order = (uint8_t)config->shuffle_order,
    };

    uint64_t hole = config->hole ? (uint64_t)1 << MAX_ORDER : 0;

    if (!config->max_order && !config->pageblock_order)
        c.pageblock_order = PAGEBLOCK;
    rig->metadata[i] = aligned_alloc(64, (ebb_zone_metadata_size(&c) + 63) / 64 * 64);
    assert_non_null(rig->metadata[i]);
    memset(rig->metadata[i], 0, ebb_zone_metadata_size(&c));
    assert_int_equal(ebb_zone_init(&rig->zones[i], &c, rig->metadata[i]), 0);
    assert_int_equal(ebb_zone_add(&rig->zones[i], c.base + hole, c.frames - hole), 0);
    size_t size = ebb_history_metadata_size(&rig->history, &rig->zones[i]);

    rig->history_memory[i] = calloc(1, size + 1);
    assert_non_null(rig->history_memory[i]);
    assert_int_equal(ebb_history_add_zone(&rig->history, &rig->history_zones[i], &rig->zones[i],
                                          rig->history_memory[i]),
                     0);
    rig->told[i] = calloc(rig->zones[i].span, 1);
    assert_non_null(rig->told[i]);
}

static void init_engine(struct rig *rig, const struct rig_config *config)
{
    const struct ebb_history_config *h = &config->history;
    struct ebb_settings settings = {.report = config->report, .history = *h};
    const bool is_set = h->tracker || h->split || h->merge || h->move || h->direction ||
                        h->execution || h->delay_ms || h->budget || h->threshold;

    if (is_set && settings.history.pacing == EBB_PACING_DEFAULT)
        settings.history.pacing = EBB_PACING_DELAY;
    assert_int_equal(ebb_history_init(&rig->history, &rig->report, &settings), 0);
}

struct rig *rig_new(const struct rig_config *config)
{
    struct rig *rig = calloc(1, sizeof(*rig));

    assert_non_null(rig);
    rigs++;
    rig->error = -EBB_EIO;
    rig->device.ops = &ops;
    rig->device.capacity = config->capacity ? config->capacity : CAPACITY;
    rig->device.min_order = (uint8_t)config->min_order;
    init_engine(rig, config);
    port_virtual_alone(&rig->report.lock);
    rig->zone_count = config->zones ? config->zones : 1;
    assert_in_range(rig->zone_count, 1, RIG_ZONES);
    for (unsigned i = 0; i < rig->zone_count; i++)
        make_zone(rig, i, config);
    return rig;
}

void rig_free(struct rig *rig)
{
    rig->complete_on_poll = true; /* a batch may still be out */
    if (rig->registered)
        rig_unregister(rig);
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    rig_check(rig);
    for (unsigned i = 0; i < rig->zone_count; i++) {
        struct ebb_zone_stats stats = rig_zone_stats(rig, i);

        assert_int_equal(stats.allocated, 0);
        assert_int_equal(stats.in_flight, 0);
        assert_int_equal(stats.misuses, 0);
        free(rig->metadata[i]);
        free(rig->history_memory[i]);
        free(rig->told[i]);
    }
    assert_int_equal(port_virtual.misuses, 0);
    for (unsigned i = 0; i < RIG_LOG; i++)
        free(rig->log[i].ranges);
    free(rig);
    if (--rigs == 0)
        port_virtual_reset();
}

void rig_register(struct rig *rig)
{
    rig->registered = true; /* it may submit before it returns */
    assert_int_equal(ebb_report_register(&rig->report, &rig->device), 0);
}

void rig_unregister(struct rig *rig)
{
    assert_int_equal(ebb_report_unregister(&rig->report), 0);
    rig->registered = false;
    assert_false(rig->in_flight);
}

int rig_group_setup(void **state)
{
    (void)state;
    rigs = 0;
    port_virtual_reset();
    return 0;
}

int rig_group_teardown(void **state)
{
    (void)state;
    assert_int_equal(rigs, 0);
    assert_int_equal(port_virtual.locks_held, 0);
    port_virtual_reset();
    return 0;
}

/* ---- frames ---- */

ebb_pfn_t rig_alloc(struct rig *rig, unsigned zone, unsigned order)
{
    ebb_pfn_t pfn = 0;

    assert_int_equal(ebb_alloc(&rig->zones[zone], order, EBB_MOVABLE, EBB_ALLOC_NO_CACHE, &pfn), 0);
    return pfn;
}

/* Straight to the free lists: what rests in a cache is another matter. */
void rig_release(struct rig *rig, unsigned zone, ebb_pfn_t pfn, unsigned order)
{
    assert_int_equal(ebb_free(&rig->zones[zone], pfn, order), 0);
    if (order == 0)
        ebb_zone_drain(&rig->zones[zone]);
}

unsigned rig_alloc_all(struct rig *rig, unsigned zone, unsigned order, ebb_pfn_t *pfns)
{
    unsigned n = 0;

    while (ebb_alloc(&rig->zones[zone], order, EBB_MOVABLE, EBB_ALLOC_NO_CACHE | EBB_ALLOC_RESERVE,
                     &pfns[n]) == 0)
        n++;
    return n;
}

void rig_release_all(struct rig *rig, unsigned zone, unsigned order, const ebb_pfn_t *pfns,
                     unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        rig_release(rig, zone, pfns[i], order);
}

/* ---- running ---- */

uint64_t rig_run(struct rig *rig)
{
    return ebb_report_run(&rig->report);
}

static void work_if_due(struct rig *rig)
{
    if (rig->wakes == port_virtual.wakes && port_virtual.now < rig->due)
        return;
    rig->wakes = port_virtual.wakes;
    rig->due = rig_run(rig);
}

void rig_pass(struct rig *rig, uint64_t ns)
{
    uint64_t end = port_virtual.now + ns;

    work_if_due(rig);
    while (rig->due <= end) {
        if (rig->due > port_virtual.now)
            port_virtual.now = rig->due;
        work_if_due(rig);
    }
    port_virtual.now = end;
}

uint64_t rig_run_after(struct rig *rig, uint64_t ns)
{
    port_virtual.now += ns;
    return rig_run(rig);
}

unsigned rig_settle(struct rig *rig)
{
    uint64_t before = rig_stats(rig).passes;

    for (;;) {
        uint64_t due = rig_run(rig);

        while (rig->in_flight) {
            rig_complete(rig, 0);
            due = rig_run(rig);
        }
        if (due == EBB_NEVER)
            break;
        assert_true(rig_stats(rig).passes - before <= PASSES_LIMIT);
        if (due > port_virtual.now)
            port_virtual.now = due;
    }
    assert_int_equal(ebb_report_phase(&rig->report), EBB_REPORT_IDLE);
    return (unsigned)(rig_stats(rig).passes - before);
}

void rig_register_and_settle(struct rig *rig)
{
    rig_register(rig);
    rig_settle(rig);
    rig_forget(rig);
}

/* ---- looking ---- */

void rig_forget(struct rig *rig)
{
    rig->submits = 0;
}

unsigned rig_reported_blocks(const struct rig *rig)
{
    unsigned blocks = 0;

    for (unsigned i = 0; i < rig->submits; i++)
        blocks += rig->log[i].n;
    return blocks;
}

unsigned rig_times_reported(const struct rig *rig, ebb_pfn_t pfn)
{
    uint64_t addr = pfn << EBB_FRAME_SHIFT;
    unsigned times = 0;

    for (unsigned i = 0; i < rig->submits; i++) {
        for (unsigned j = 0; j < rig->log[i].n; j++) {
            const struct ebb_range *range = &rig->log[i].ranges[j];

            times += addr >= range->addr && addr - range->addr < range->len;
        }
    }
    return times;
}

struct ebb_block rig_block(struct rig *rig, unsigned zone, ebb_pfn_t pfn)
{
    struct ebb_block block;

    ebb_zone_lookup(&rig->zones[zone], pfn, &block);
    return block;
}

bool rig_is_reported(struct rig *rig, unsigned zone, ebb_pfn_t pfn)
{
    return rig_block(rig, zone, pfn).reported;
}

struct ebb_zone_stats rig_zone_stats(struct rig *rig, unsigned zone)
{
    struct ebb_zone_stats stats;

    ebb_zone_stats(&rig->zones[zone], &stats);
    return stats;
}

struct ebb_report_stats rig_stats(struct rig *rig)
{
    struct ebb_report_stats stats;

    ebb_report_get_stats(&rig->report, &stats);
    return stats;
}

uint64_t rig_unreported_frames(struct rig *rig, unsigned zone, unsigned order)
{
    struct ebb_zone_stats stats = rig_zone_stats(rig, zone);
    uint64_t frames = 0;

    for (; order < EBB_ORDERS; order++) {
        for (unsigned type = 0; type < EBB_ISOLATE; type++)
            frames += (stats.lists[order][type].blocks - stats.lists[order][type].reported)
                      << order;
    }
    return frames;
}

/* I4: a mark means that the device succeeded with this block, or with what it was
 * made of, since it was last used. */
static void check_marks(struct rig *rig, unsigned i)
{
    const struct ebb_zone *zone = &rig->zones[i];
    uint64_t at = zone->first - zone->base;

    while (at < zone->span) {
        struct ebb_block block = rig_block(rig, i, zone->base + at);
        uint64_t frames = block.state == EBB_BLOCK_NONE ? 1 : (uint64_t)1 << block.order;
        bool used = block.state == EBB_BLOCK_ALLOCATED || block.state == EBB_BLOCK_CACHED;

        if (used)
            memset(rig->told[i] + at, 0, frames);
        for (uint64_t k = 0; block.reported && k < frames; k++) {
            if (!rig->told[i][at + k])
                fail_msg("pfn %#llx is marked, but the host was not told",
                         (unsigned long long)(zone->base + at + k));
        }
        at += frames;
    }
}

void rig_check(struct rig *rig)
{
    for (unsigned i = 0; i < rig->zone_count; i++) {
        struct ebb_violation violation = {0};

        if (ebb_zone_check(&rig->zones[i], EBB_CHECK_FRAMES, &violation) != 0)
            fail_msg("zone %u: I%u at pfn %#llx: %s", i, violation.invariant,
                     (unsigned long long)violation.pfn, violation.what);
        if (!rig->marked_by_hand)
            check_marks(rig, i);
    }
}
