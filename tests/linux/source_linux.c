/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The suite for sources (tests/conformance/source.h) over linux/zone.c, as far as it goes: with
 * large blocks only, for this source does not count which smaller ones are reported; and with
 * estimates, for from outside the allocator nobody sees which block was used. The kernel does not
 * say either when reported memory is used: a timer looks. Here it does so after each operation.
 */
#include "model.h"

#include "../../linux/ebb_reporting.h"

#include "port_virtual.h"
#include "source.h"

#include <linux/sched/clock.h>

#define BLOCKS 24
#define BASE   (8 * MAX_ORDER_FRAMES)
#define LOW    1000

static struct ebb_zone *ez;

u64 local_clock(void)
{
    return port_virtual.now;
}

static void notify(void)
{
    if (!ebb_source_note(&ez->source))
        return;
    ebb_zone_sample_unlocked(ez);
    ebb_source_request(&ez->source);
}

static void *make(const struct source_subject *subject)
{
    const struct model_config config = {
        .base = subject->base,
        .frames = subject->frames,
        .watermark_min = LOW / 2,
        .watermark_low = LOW,
        .seed = 1,
    };

    model_create(&config);
    ez = ebb_zone_create(&model.zone, pageblock_order);
    if (ez)
        model.notify = notify;
    return ez;
}

static void destroy(void *allocator)
{
    (void)allocator;
    if (model.zone.lock.held) /* a finding came in the middle */
        shim_unlock(&model.zone.lock);
    ebb_zone_destroy(ez);
    model_destroy();
}

static struct ebb_source *source_of(void *allocator)
{
    (void)allocator;
    return &ez->source;
}

static bool alloc(void *allocator, unsigned order, ebb_pfn_t *pfn)
{
    unsigned long at;

    (void)allocator;
    /* Of a type that goes through no CPU's list. */
    if (!model_alloc(order, MIGRATE_UNMOVABLE, 0, &at))
        return false;
    *pfn = at;
    ebb_zone_sample(ez);
    return true;
}

static void release(void *allocator, ebb_pfn_t pfn, unsigned order)
{
    (void)allocator;
    model_free((unsigned long)pfn, order, 0);
    ebb_drain_zone(&model.zone);
}

int main(void)
{
    static const struct source_subject subject = {
        .name = "linux zone",
        .base = BASE,
        .frames = BLOCKS * MAX_ORDER_FRAMES,
        .orders = 1u << pageblock_order | 1u << (NR_PAGE_ORDERS - 1),
        .large_order = pageblock_order,
        .max_order = NR_PAGE_ORDERS - 1,
        .report_order = pageblock_order,
        .watermark = LOW,
        .loses_marks = true,
        .estimates = true,
        .make = make,
        .destroy = destroy,
        .source = source_of,
        .alloc = alloc,
        .free = release,
    };

    return source_main(&subject);
}
