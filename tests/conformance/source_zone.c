/* SPDX-License-Identifier: BSD-2-Clause */
/* The suite over ebb's zones, and over the list walk of 2019 with each of its trackers. */
#include "source.h"

#include <ebb/history.h>
#include <ebb/range.h>
#include <ebb/zone.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORDER     7u
#define PAGEBLOCK 6u
#define FRAMES    (UINT64_C(24) << ORDER)

struct variant {
    uint64_t watermark;
    uint8_t tracker; /* enum ebb_tracker; 0: none, a zone of today */
};

struct allocator {
    struct ebb_zone zone;
    void *metadata;
    const struct variant *variant;
    struct ebb_history history;
    struct ebb_history_zone history_zone;
    void *history_metadata;
};

static struct ebb_zone *zone_of(void *allocator)
{
    return &((struct allocator *)allocator)->zone;
}

static void destroy(void *allocator)
{
    struct allocator *a = allocator;

    free(a->history_metadata);
    free(a->metadata);
    free(a);
}

static void *make(const struct source_subject *subject)
{
    struct allocator *a = calloc(1, sizeof(*a));
    const struct variant *variant = subject->variant;
    const struct ebb_zone_config config = {
        .base = subject->base,
        .frames = subject->frames,
        .max_order = ORDER,
        .pageblock_order = PAGEBLOCK,
        .cpus = 1,
        .watermark_low = variant->watermark,
        .pcp_blocks = EBB_PCP_NONE,
    };
    const size_t bytes = (ebb_zone_metadata_size(&config) + 63) / 64 * 64;

    if (!a)
        return NULL;
    a->variant = variant;
    a->metadata = aligned_alloc(64, bytes);
    if (!a->metadata || !memset(a->metadata, 0, bytes) ||
        ebb_zone_init(&a->zone, &config, a->metadata) ||
        ebb_zone_add(&a->zone, config.base, config.frames)) {
        destroy(a);
        return NULL;
    }
    return a;
}

static struct ebb_source *source_of(void *allocator)
{
    return &zone_of(allocator)->source;
}

static int add(void *allocator, struct ebb_report *report, const struct ebb_report_config *config)
{
    struct allocator *a = allocator;
    const struct ebb_settings settings = {
        .report = *config,
        .history.pacing = a->variant->tracker ? EBB_PACING_DELAY : EBB_PACING_DEFAULT,
        .history.tracker = a->variant->tracker,
    };
    int err = ebb_history_init(&a->history, report, &settings);

    if (err)
        return err;
    if (!a->variant->tracker)
        return ebb_report_add_zone(report, &a->zone);
    a->history_metadata = calloc(1, ebb_history_metadata_size(&a->history, &a->zone) + 8);
    return ebb_history_add_zone(&a->history, &a->history_zone, &a->zone, a->history_metadata);
}

static bool alloc(void *allocator, unsigned order, ebb_pfn_t *pfn)
{
    return ebb_alloc(zone_of(allocator), order, EBB_MOVABLE, EBB_ALLOC_NO_CACHE | EBB_ALLOC_RESERVE,
                     pfn) == 0;
}

/* Single frames leave the cache, but need not be merged yet. */
static void release(void *allocator, ebb_pfn_t pfn, unsigned order)
{
    if (ebb_free(zone_of(allocator), pfn, order))
        abort();
    while (order == 0 && ebb_zone_drain_idle(zone_of(allocator)) > 0)
        ;
}

static const char *check(void *allocator)
{
    struct ebb_violation violation;

    return ebb_zone_check(zone_of(allocator), EBB_CHECK_FRAMES, &violation) ? violation.what : NULL;
}

static bool withdraw(void *allocator, ebb_pfn_t pfn)
{
    return ebb_isolate_range(zone_of(allocator), pfn, 1u << PAGEBLOCK) == 0;
}

static void restore(void *allocator, ebb_pfn_t pfn)
{
    if (ebb_putback_range(zone_of(allocator), pfn, 1u << PAGEBLOCK, EBB_MOVABLE))
        abort();
}

/* Of a zone of today; the rest of them follows from the variant. */
static struct source_subject subject_of(const char *name, const struct variant *variant)
{
    return (struct source_subject){
        .name = name,
        .base = UINT64_C(64) << ORDER,
        .frames = FRAMES,
        .orders = (2u << ORDER) - 1,
        .large_order = PAGEBLOCK,
        .max_order = ORDER,
        .report_order = variant->tracker ? 1 : 0,
        .watermark = variant->watermark,
        .unpaced = variant->tracker,
        .variant = variant,
        .make = make,
        .destroy = destroy,
        .source = source_of,
        .add = add,
        .alloc = alloc,
        .free = release,
        .check = check,
        .withdraw = withdraw,
        .restore = restore,
    };
}

int main(int argc, char **argv)
{
    static const struct variant zone, watermark = {.watermark = 100};
    const char *wanted = argc > 1 ? argv[1] : "zone";
    int failed = 0;

    if (strcmp(wanted, "zone") == 0) {
        struct source_subject subject = subject_of("zone", &zone);

        failed |= source_main(&subject);
        subject = subject_of("zone with a watermark", &watermark);
        return failed | source_main(&subject);
    }
    for (unsigned tracker = EBB_TRACKER_ROTATION; tracker < EBB_TRACKERS; tracker++) {
        const struct variant variant = {.tracker = (uint8_t)tracker};
        const struct source_subject subject = subject_of(wanted, &variant);

        if (strcmp(wanted, ebb_tracker_name((enum ebb_tracker)tracker)) == 0)
            return source_main(&subject);
    }
    fprintf(stderr, "there is no tracker \"%s\"\n", wanted);
    return 2;
}
