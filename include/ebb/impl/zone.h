/* SPDX-License-Identifier: BSD-2-Clause */
/* The inside of a zone. Callers own the memory and look at nothing in it. */
#ifndef EBB_IMPL_ZONE_H
#define EBB_IMPL_ZONE_H

#include <ebb/port.h>
#include <ebb/source.h>

struct ebb_pcp;
struct ebb_zone_hooks;

/* Free blocks of one order and migratetype: a ring of descriptors, entered at the head (warm, next
 * to be allocated); the tail (cold) is before the head. */
struct ebb_free_list {
    uint32_t head; /* index of a block, meaningful while blocks > 0 */
    uint32_t pad;
    uint64_t blocks;   /* blocks on the list */
    uint64_t reported; /* of these, marked reported */
};

/* On a free list: reported blocks from this one to the tail. */
struct ebb_divider {
    uint32_t block; /* index */
    bool set;       /* no: nothing is known of the list */
    uint8_t type;   /* membrane (src/history): of the list that it is on */
    bool settled;   /* membrane: it may move to another type's list */
};

/* The number of a pageblock; not the index of a frame. */
typedef struct {
    uint32_t n;
} ebb_pageblock_id;

/* Of a pageblock (or 2^large_order frames, if that is more): the free blocks in it that are
 * smaller, and when one came or went last. For surplus pacing, which takes such blocks pageblock by
 * pageblock (src/report/zone_source.c), and for lazy frames, which are of no list but of their
 * pageblock (src/zone/lazy.c). */
struct ebb_pageblock {
    uint32_t frames;             /* free and unreported */
    uint32_t blocks;             /* that these are */
    uint32_t reported;           /* frames that are free and reported */
    uint32_t touched;            /* on the zone's clock */
    uint32_t lazy;               /* of `frames` */
    ebb_pageblock_id next, prev; /* pageblocks with about as many, if it has any */
    uint32_t pad;
};

struct ebb_zone {
    ebb_pfn_t base;  /* config.base rounded down to a block of the largest order */
    ebb_pfn_t first; /* config.base */
    uint64_t span;   /* frames from base to the end: descriptors */
    uint8_t max_order;
    uint8_t pageblock_order;
    uint8_t large_order; /* see src/zone/zone_private.h */
    uint16_t cpus;
    uint16_t pcp_high;
    uint16_t pcp_batch;
    uint8_t pcp_blocks;
    uint8_t pcp_most; /* atomic: pageblocks in a cache, as things are; written under the lock */
    uint64_t watermark_min;
    uint64_t watermark_low;
    uint8_t plain_orders; /* frees below this order need no filling; 0 if the zone fills */
    uint8_t fill_policy;
    uint8_t alloc_flags; /* for every allocation */
    bool added_filled;
    uint32_t fill_value;

    /* Metadata, in the caller's memory. */
    uint16_t *state;                  /* per frame */
    struct ebb_link *links;           /* per two frames: of a block that begins there */
    struct ebb_link *large_links;     /* per 2^large_order frames: of larger blocks */
    bool *large_marks;                /* and whether such a block, if free, is reported */
    uint8_t *types;                   /* per pageblock: migratetype */
    struct ebb_pageblock *pageblocks; /* per 2^large_order frames */
    uint64_t *pageblock_bits;         /* of these: has unreported frames */
    uint64_t *lazy_bits;              /* per frame: is lazy */
    uint32_t *present;                /* per block of the largest order: frames managed in it */
    struct ebb_pcp *pcps;             /* per CPU */

    /* See struct ebb_zone_config. */
    void (*clear)(void *ctx, ebb_pfn_t pfn, uint64_t frames);
    void (*fill)(void *ctx, ebb_pfn_t pfn, uint64_t frames, uint32_t value);
    bool (*verify)(void *ctx, ebb_pfn_t pfn, uint64_t frames, uint32_t value);
    void *clear_ctx;
    uint16_t node;

    /* All above is constant (pcp_most nearly), and read by every CPU on the cached path; what is
     * below is on other cache lines, wherever the zone begins. */
    uint8_t apart[64];
    struct ebb_lock lock;

    /* Under the lock. */
    struct ebb_free_list lists[EBB_ORDERS][EBB_MIGRATETYPES];
    uint32_t nonempty[EBB_MIGRATETYPES]; /* bit per order: list has blocks */
    uint32_t warm[EBB_MIGRATETYPES];     /* bit per order: list has unreported blocks */
    uint64_t lazy[EBB_ISOLATE];          /* frames; see src/zone/lazy.c */
    uint32_t lazy_classes[EBB_ISOLATE];  /* bit per class: some pageblock has lazy frames */
    ebb_pageblock_id lazy_rings[EBB_ISOLATE][EBB_ORDERS]; /* by class: the first of these */
    bool coalesces_late;                                  /* freed frames may be lazy */
    struct ebb_level level; /* of unreported large blocks, ISOLATE left out */
    uint32_t clock;         /* about ms; runs only while the engine looks */
    uint64_t managed;
    uint64_t free;
    uint64_t isolated;
    uint64_t in_flight;
    uint64_t reported;
    uint64_t refaulted, allocs, frees, failures, steals, conversions;
    uint64_t misuses; /* atomic */
    void *gathers;    /* ranges that are being allocated; see src/range/range.c */

    /* Links that need more than linking: see src/zone/buddy.c. Orders; 0xff: none. */
    uint8_t track_order;    /* unreported blocks from here on are told to the hooks */
    uint8_t shuffle_order;  /* freed blocks from here on go to head or tail at random */
    uint8_t keep_marks;     /* how marks survive, EBB__SPLIT_CLEARS...; 0: always */
    uint64_t shuffle_state; /* of the random numbers; never 0 */
    uint64_t shuffle_bits;  /* not used up yet, above a 1 that marks their end */

    /* Lists are kept sorted by these: the head of a list is unreported as long as any block on
     * it is, and the coldest unreported block is right above the divider. */
    struct ebb_divider sorted[EBB_ORDERS][EBB_MIGRATETYPES];
    const struct ebb_zone_hooks *hooks; /* NULL; or src/history, which does otherwise */
    void *history;

    /* Reporting. */
    struct ebb_source source;
    uint32_t wish;            /* atomic: a pass was asked for under a lock, and not passed on yet */
    bool marks_zero;          /* what is marked reported reads as zero */
    bool prefers_warm;        /* allocate unreported before reported, and tell of refaults */
    bool report_caches;       /* a cache that comes into use asks for a pass */
    bool report_gated;        /* only a watermark keeps what is unreported from the host */
    uint8_t report_order;     /* a freed block of this order or above may ask; 0xff: off */
    uint8_t report_min_order; /* smallest order reported (report_order is lower behind a gate) */
    uint32_t report_threshold; /* unreported blocks of an order before a request */
    struct {                   /* where the pass under way stands */
        uint64_t pageblock;    /* the next one to look at */
        uint64_t at, end;      /* in the one found last */
    } scan;
};

#endif
