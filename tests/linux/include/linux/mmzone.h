/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages, free lists, zones: of each the fields that are used here. */
#ifndef EBB_TESTS_LINUX_MMZONE_H
#define EBB_TESTS_LINUX_MMZONE_H

#include "list.h"
#include "spinlock.h"

#define NR_PAGE_ORDERS     11
#define pageblock_order    9
#define pageblock_nr_pages (1UL << pageblock_order)

enum migratetype {
    MIGRATE_UNMOVABLE,
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_PCPTYPES,
    MIGRATE_HIGHATOMIC = MIGRATE_PCPTYPES,
    MIGRATE_ISOLATE,
    MIGRATE_TYPES,
};

enum { WMARK_MIN, WMARK_LOW, NR_WMARK };
enum { NR_FREE_PAGES, NR_ZONE_STATS };

struct zone;

struct page {
    struct list_head buddy_list;
    unsigned long private;
    struct zone *zone; /* NULL: there is no memory here, nobody looks at it */
    u32 flags;
    u32 compound_order;
};

struct free_area {
    struct list_head free_list[MIGRATE_TYPES];
    unsigned long nr_free;
};

/* Lists by order: up to SHIM_PCP_ORDERS, and whole pageblocks. */
#define SHIM_PCP_ORDERS 4
struct per_cpu_pages {
    spinlock_t lock;
    int count; /* frames */
    struct list_head lists[SHIM_PCP_ORDERS + 1][MIGRATE_PCPTYPES];
};

struct zone {
    spinlock_t lock;
    struct free_area free_area[NR_PAGE_ORDERS];
    struct per_cpu_pages *per_cpu_pageset;
    unsigned long zone_start_pfn, spanned_pages;
    unsigned long _watermark[NR_WMARK];
    long vm_stat[NR_ZONE_STATS];
};

#define low_wmark_pages(zone) ((zone)->_watermark[WMARK_LOW])

static inline unsigned long zone_end_pfn(const struct zone *zone)
{
    return zone->zone_start_pfn + zone->spanned_pages;
}

static inline unsigned long zone_page_state(const struct zone *zone, unsigned int item)
{
    const long value = __atomic_load_n(&zone->vm_stat[item], __ATOMIC_RELAXED);

    return value > 0 ? (unsigned long)value : 0;
}

#endif
