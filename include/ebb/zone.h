/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Zones: a page-frame allocator that knows which free blocks the host has
 * already been told of.
 *
 * A zone is a span of frames under one lock, with buddy free lists by order
 * and migratetype, pageblocks whose migratetype is authoritative, watermarks
 * and per-CPU caches. All metadata lies outside the managed frames: a free
 * frame is never read or written, since the host may have dropped it. A zone
 * that fills its free frames (enum ebb_fill) does so before they become free.
 *
 * Marks. A free block is *reported* when the host has been told, successfully,
 * that its data may be dropped, and nobody has used it since. Parts split off
 * a reported block inherit the mark (the host was told of them too); a merged
 * block is reported only if both halves were. Allocation clears it.
 *
 * Concurrency: every function may be called from any CPU, and from interrupt
 * context where the port's locks allow it, unless it says otherwise.
 */
#ifndef EBB_ZONE_H
#define EBB_ZONE_H

#include <ebb/types.h>

/* What can be done with the memory later. MOVABLE is zero, so that metadata
 * full of zeroes says "movable". */
enum ebb_migratetype {
    EBB_MOVABLE = 0,
    EBB_UNMOVABLE = 1,
    EBB_RECLAIMABLE = 2,
    EBB_ISOLATE = 3, /* free blocks here are out of reach of allocation and of reporting */
    EBB_MIGRATETYPES = 4,
};

/* Frames a per-CPU cache can hold of each migratetype, and pageblocks, at most. */
#define EBB_PCP_LIMIT  256u
#define EBB_PCP_BLOCKS 4u
#define EBB_PCP_NONE   0xffu /* no pageblocks */
#define EBB_CPU_LIMIT  1024u

/* What free frames hold. */
enum ebb_fill {
    EBB_FILL_NONE = 0, /* whatever their last owner left */
    EBB_FILL_POISON,   /* poison_value, repeated: use after free shows */
    EBB_FILL_ZERO,     /* zeroes: nothing leaks to the next owner */
};

#define EBB_POISON_VALUE 0xaaaaaaaau

/* Zero means default for every field but base and frames. */
struct ebb_zone_config {
    /* First pfn of the span, any value. Span and base together must end at or below 2^52. */
    ebb_pfn_t base;
    /* Frames in the span, holes included. 1 to 2^32 (16 TiB) after the base is
     * rounded down to a block of the largest order. */
    uint64_t frames;
    /* Largest order of a block, 1 to EBB_ORDER_LIMIT. Default 10. */
    uint8_t max_order;
    /* Order of a pageblock, 1 to max_order. Default 9, or max_order if that is less. */
    uint8_t pageblock_order;
    /* Number of per-CPU caches, 1 to EBB_CPU_LIMIT. Default 1. */
    uint16_t cpus;
    /* Frames in a cache (per migratetype) above which a batch is drained,
     * at most EBB_PCP_LIMIT. Default 192. Must be at least pcp_batch. */
    uint16_t pcp_high;
    /* Frames moved between cache and free lists at once, 1 to pcp_high. Default 64
     * (or pcp_high if that is less). */
    uint16_t pcp_batch;
    /* Whole movable pageblocks that a cache keeps besides, at most EBB_PCP_BLOCKS, or
     * EBB_PCP_NONE. Default as many as leave 63 of 64 managed frames out of all caches. Always
     * none where free pageblocks are filled or shuffled, and while an engine reports the zone
     * with a threshold or inline, since then no pass would come for them. */
    uint8_t pcp_blocks;
    /* Frames. An allocation that would leave fewer than min free frames (not
     * counting isolated ones, nor those in caches) fails unless it has
     * EBB_ALLOC_RESERVE. Default 0: no reserve. */
    uint64_t watermark_min;
    /* Frames, at least watermark_min, at most 2^32. The engine takes no block out of reach that
     * would leave fewer free. Default watermark_min. */
    uint64_t watermark_low;
    /* Freed blocks of at least this order go to the head or the tail of their list,
     * one random bit each, so that what is allocated next is hard to guess (Linux:
     * page shuffling). As EBB_REPORT_ORDER(n); default 0: all go to the head. */
    uint8_t shuffle_order;
    /* Of those random bits; default 1. */
    uint64_t shuffle_seed;
    /* Node of the machine that the frames are near to; see zonelist.h. */
    uint16_t node;
    /*
     * enum ebb_fill. Other than EBB_FILL_NONE: a frame is filled when it is freed, and
     * not touched again until it is allocated; so it holds that value then, as
     * long as nobody wrote to it meanwhile. POISON needs the callback fill, ZERO needs
     * clear. An engine takes only devices that leave the value in reported frames
     * (ebb_report_register()).
     */
    uint8_t fill_policy;
    /* What is handed to ebb_zone_add() holds the fill value already, as fresh memory
     * holds zeroes. Default: ebb_zone_add() fills it, which touches all of it. */
    bool added_filled;
    /* For EBB_FILL_POISON. Default EBB_POISON_VALUE; for 0 there is EBB_FILL_ZERO. */
    uint32_t poison_value;
    /* Callbacks, all called with no lock held and with clear_ctx.
     * clear fills frames with zeroes, for EBB_ALLOC_ZERO and EBB_FILL_ZERO. Default
     * none: EBB_ALLOC_ZERO is then refused with -EBB_EINVAL. */
    void (*clear)(void *ctx, ebb_pfn_t pfn, uint64_t frames);
    /* Fills frames with a 32-bit value, repeated. */
    void (*fill)(void *ctx, ebb_pfn_t pfn, uint64_t frames, uint32_t value);
    /* Do these frames hold that value throughout? Called for each block allocated from
     * a zone that fills. If they do not, somebody wrote to them while they were free:
     * the port is told (EBB_MISUSE_WRITE_AFTER_FREE), they are filled anew, and the
     * allocation succeeds. Default none: nobody looks. */
    bool (*verify)(void *ctx, ebb_pfn_t pfn, uint64_t frames, uint32_t value);
    void *clear_ctx;
};

/* Frames, unless it says otherwise. managed == free + cached + in_flight + allocated, always. */
struct ebb_zone_stats {
    uint64_t managed;     /* frames handed to the zone */
    uint64_t free;        /* isolated ones included */
    uint64_t isolated;    /* of free: on the ISOLATE lists */
    uint64_t cached;      /* in per-CPU caches */
    uint64_t in_flight;   /* in a batch that the host has not answered yet */
    uint64_t allocated;   /* with callers */
    uint64_t reported;    /* of free: the host has been told */
    uint64_t refaulted;   /* total: frames that left a reported block for use again */
    uint64_t allocs;      /* total blocks allocated */
    uint64_t frees;       /* total blocks freed */
    uint64_t failures;    /* total allocations refused for want of memory */
    uint64_t steals;      /* total blocks taken from another migratetype's lists */
    uint64_t conversions; /* total pageblocks whose migratetype a steal changed */
    uint64_t misuses;     /* total reported to the port: operations refused, frames damaged */
    struct {
        uint64_t blocks;
        uint64_t reported;
    } lists[EBB_ORDERS][EBB_MIGRATETYPES]; /* what is not merged yet counts as of order 0 */
};

struct ebb_zone;

enum ebb_alloc_flags {
    EBB_ALLOC_ZERO = 1u << 0,     /* frames read as zero */
    EBB_ALLOC_NO_CACHE = 1u << 1, /* straight from the free lists */
    EBB_ALLOC_RESERVE = 1u << 2,  /* may go below watermark_min */
    /* Keep watermark_low free, not just watermark_min, and do not look into other
     * CPUs' caches before giving up. Not with EBB_ALLOC_RESERVE. */
    EBB_ALLOC_LOW = 1u << 3,
    EBB_ALLOC_THIS_NODE = 1u << 4, /* for ebb_zonelist_alloc() only */
    /* Nobody will use the block: a balloon takes it away. Reported blocks are taken first, which
     * the host has dropped already, past the caches; it counts neither as refaulted nor as demand.
     * Not with EBB_ALLOC_ZERO. */
    EBB_ALLOC_COLD = 1u << 5,
};

/*
 * Bytes of metadata that a zone needs, 0 if the configuration is invalid. At
 * most 16 bytes a frame and one cache per CPU. Metadata of memory that is never
 * used is never touched, so zero pages that nothing backs yet stay unbacked.
 */
size_t ebb_zone_metadata_size(const struct ebb_zone_config *config);

/*
 * Make a zone that manages no frames yet. `memory` must hold
 * ebb_zone_metadata_size() bytes of zeroes, aligned to 64, outside the frames
 * to be managed; it and `zone` belong to the zone until the caller has stopped
 * using it (there is nothing to release). Touches no per-frame metadata.
 * -EBB_EINVAL: an impossible configuration.
 */
EBB_MUST_CHECK int ebb_zone_init(struct ebb_zone *zone, const struct ebb_zone_config *config,
                                 void *memory);

/*
 * Hand frames [pfn, pfn + frames) to the zone: they become free, of the type of
 * their pageblock, which is movable until something changes it.
 * Touches one descriptor for each block of the largest order. Any alignment. A
 * zone that fills its free frames (and was not told added_filled) fills them first;
 * meanwhile they count as allocated.
 * -EBB_EINVAL: empty or outside the span. -EBB_EEXIST: some are managed
 * already. Nothing changes on error.
 */
EBB_MUST_CHECK int ebb_zone_add(struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames);

/*
 * Allocate a block of 2^order frames. On success *pfn is its first frame; it
 * stays untouched on error. Contents are undefined unless EBB_ALLOC_ZERO (which
 * costs nothing with EBB_FILL_ZERO, nor for frames that were reported to a device that says that
 * they read as zero then: report.h, EBB_CONTENT_VALUE). -EBB_EINVAL: order above the largest,
 * migratetype not one of the first three, flags unknown. -EBB_ENOMEM: no block. -EBB_EAGAIN: no
 * block now, but a batch that is with the host would have held one; try again after its completion.
 */
EBB_MUST_CHECK int ebb_alloc(struct ebb_zone *zone, unsigned order, enum ebb_migratetype type,
                             unsigned flags, ebb_pfn_t *pfn);

/*
 * Allocate exactly the block at pfn. -EBB_EINVAL: misaligned or outside the
 * zone, or flags unknown. -EBB_EBUSY: part of it is in use, isolated or not
 * managed. -EBB_EAGAIN: part of it, or what the watermark lacks, is with the host.
 * -EBB_ENOMEM: watermark.
 */
EBB_MUST_CHECK int ebb_alloc_at(struct ebb_zone *zone, ebb_pfn_t pfn, unsigned order,
                                unsigned flags);

/*
 * Free a block, whole, as it was allocated. Never waits for the host.
 * -EBB_EINVAL: not an allocated block of this zone and order; the port has been
 * told what was wrong (ebb_port_misuse) and nothing has changed.
 */
EBB_MUST_CHECK int ebb_free(struct ebb_zone *zone, ebb_pfn_t pfn, unsigned order);

/*
 * Free n single frames, as n calls of ebb_free() would, in the order of the list; for callers that
 * free many at once, whose cache misses then overlap. Each frame that is refused is told to the
 * port, as ever, and the others are freed. -EBB_EINVAL: some were refused.
 */
EBB_MUST_CHECK int ebb_free_many(struct ebb_zone *zone, const ebb_pfn_t *pfns, uint64_t n);

/* Give the frames in all per-CPU caches back, and merge all free frames that are not merged yet
 * with what is free around them; the lock is dropped for each pageblock. */
void ebb_zone_drain(struct ebb_zone *zone);

/* Give the frames back in the caches that nobody used since the last call; they need not be merged
 * then. Returns the number of frames that other caches still hold. */
uint64_t ebb_zone_drain_idle(struct ebb_zone *zone);

void ebb_zone_stats(struct ebb_zone *zone, struct ebb_zone_stats *stats);

/* What is known of the block that holds pfn. */
enum ebb_block_state {
    EBB_BLOCK_NONE = 0, /* not managed by this zone */
    EBB_BLOCK_FREE,
    EBB_BLOCK_CACHED,
    EBB_BLOCK_ALLOCATED,
    EBB_BLOCK_IN_FLIGHT,
};
struct ebb_block {
    ebb_pfn_t pfn; /* of its first frame */
    uint8_t order;
    uint8_t state;    /* enum ebb_block_state */
    uint8_t type;     /* enum ebb_migratetype: of the list if free, else of the pageblock */
    uint8_t reported; /* 1 if free and reported */
};

/* Look a frame up, for tests and tools. A pfn outside the zone gives EBB_BLOCK_NONE. */
void ebb_zone_lookup(struct ebb_zone *zone, ebb_pfn_t pfn, struct ebb_block *block);

/* How much ebb_zone_check() looks at. */
enum ebb_check_level {
    EBB_CHECK_COUNTERS = 1, /* O(orders): sums of counters */
    EBB_CHECK_LISTS = 2,    /* O(free blocks): also every list */
    EBB_CHECK_FRAMES = 3,   /* O(frames): also every descriptor */
};

struct ebb_violation {
    unsigned invariant; /* number of the invariant, as in DESIGN.md */
    ebb_pfn_t pfn;      /* block where it was seen, 0 where there is none */
    const char *what;   /* static storage */
};

/*
 * Walk the invariants. 0: all hold. -EBB_EFAULT: one does not; *violation (may
 * be NULL) says which. Takes all locks of the zone for its whole duration: a
 * debugging aid.
 */
EBB_MUST_CHECK int ebb_zone_check(struct ebb_zone *zone, enum ebb_check_level level,
                                  struct ebb_violation *violation);

#include <ebb/impl/zone.h>

#endif
