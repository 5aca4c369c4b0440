/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Free page reporting with ebb's pacing, for Linux. Between its files:
 *
 *   zone.c       a struct zone as a source of free memory (include/ebb/source.h)
 *   scan.c       that part of it which finds free blocks below a pageblock
 *   reporting.c  the engine's device, worker and timers; parameters, statistics
 *   attach.h     what that offers to whoever brings it a device:
 *   module.c     how it attaches to an unmodified kernel
 *   mm/          what stands in module.c's place where it is built in
 *
 * The engine and the policy are ebb's own files, src/report and src/pace.
 *
 * Locks, outermost first: reporting.c's mutex (one pass, or one change of what
 * there is, at a time), zone->lock, the engine's.
 */
#ifndef EBB_REPORTING_H
#define EBB_REPORTING_H

#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/page-isolation.h>
#include <linux/version.h>

#include <ebb/report.h>

/* MAX_ORDER was one more than the largest order until 6.4, then that order. */
#ifndef NR_PAGE_ORDERS
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
#define NR_PAGE_ORDERS MAX_ORDER
#else
#define NR_PAGE_ORDERS (MAX_ORDER + 1)
#endif
#endif

#define EBB_MAX_ORDER (NR_PAGE_ORDERS - 1)

/* ---- what the kernel does not export: of module.c or mm/ebb/builtin.c ---- */

int ebb_isolate_free_page(struct page *page, unsigned int order);
void ebb_putback_isolated_page(struct page *page, unsigned int order, int mt);
int ebb_pageblock_migratetype(struct page *page);
void ebb_drain_zone(struct zone *zone);

/* ---- zone.c ---- */

/* A pageblock that has free, unreported blocks below its own order. */
struct ebb_pageblock {
	u32 hash;	/* of these blocks; 0: none */
	u32 since;	/* ticks of pace: when the hash was seen to change */
};

/* Where a pass stands in one free list of large blocks. */
struct ebb_walk {
	bool begun;
	unsigned int order;
	unsigned int mt;
	bool taking;		/* else: looking for the coldest one */
	struct page *at;	/* where to go on; NULL: at the end of the list */
	struct page *coldest;	/* the last unreported block seen */
	unsigned int restarts;
	unsigned int skipped;	/* reported blocks */
	u64 counted;		/* unreported frames seen, in all lists */
	u64 expected;		/* those that there should be, when it began */
	u64 level, refaulted;	/* those that there were when zone->lock was dropped */
	u64 others;		/* by how much others changed that meanwhile */
	bool thorough;		/* of each list to its end */
	bool cut;		/* some list goes on behind where it ended */
	bool exact;		/* all lists were seen, none twice */
	bool done;
};

struct ebb_zone {
	struct ebb_source source;
	struct zone *zone;
	unsigned int order;	/* the smallest that is reported */

	/* Under zone->lock. */
	u64 reported;		/* frames in reported large blocks, as far as known */
	u64 low;		/* least unreported frames in large blocks */
	u64 refaulted;
	u64 marks_lost;		/* frames that lost their mark in a merge or split */
	bool resync;		/* memory was added or removed */
	u64 longest_hold;	/* ns */
	atomic_long_t dip;	/* refaulted frames that a free saw: no lock needed */

	/* Of the pass; the mutex. */
	struct ebb_walk walk;
	bool thorough;		/* the next walk is to be */
	bool unordered;		/* unreported blocks were seen behind reported ones */
	bool watermark;		/* it ended because too little is free */
	unsigned int cached;	/* frames in per-CPU lists at the last look */

	/* scan.c; the mutex. */
	struct ebb_pageblock *pageblocks;
	unsigned long first, n_pageblocks;	/* in pageblocks */
	unsigned long scan;			/* the next one */
	unsigned long inside;			/* frames of it that are done */
	bool scanning;				/* a round is under way */
	bool settled;				/* the last round left nothing to wait for */
	u64 signature;				/* of the counts when that round began */
	u64 small;				/* free frames below a pageblock when it began */
	u64 changed;				/* frames of pageblocks that it saw to change */
	u64 waiting_now, waiting;		/* frames not at rest: this round, last one */
	s64 credit;				/* ns that scanning may take */
	u64 credited;				/* when it was added to */
	bool found;				/* it found something to report */
	u32 clock, began;			/* ticks of pace: now; when the round began */
	u32 interval;				/* ticks from one round to the next */
	u64 scanned_ns;

	struct ebb_zone *next;
};

/* Time spent with zone->lock: whoever took it at @since gives it up. */
void ebb_zone_held(struct ebb_zone *ez, u64 since);

struct ebb_zone *ebb_zone_create(struct zone *zone, unsigned int order);
void ebb_zone_destroy(struct ebb_zone *ez);
/* Memory was added to it or removed: begin anew with its pageblocks. */
int ebb_zone_resize(struct ebb_zone *ez);
/* Note the level, as often as it matters. From a timer. */
void ebb_zone_sample(struct ebb_zone *ez);
/* The same for a refault, by whoever may hold zone->lock. */
void ebb_zone_sample_unlocked(struct ebb_zone *ez);
/* The same at once, by whoever holds zone->lock. */
void ebb_zone_sample_locked(struct ebb_zone *ez);
/* Anything that nobody told of? From a timer. */
bool ebb_zone_is_stale(struct ebb_zone *ez);
/* Empty per-CPU lists that nobody uses. Sleeps. */
void ebb_zone_drain(struct ebb_zone *ez, bool now);
unsigned int ebb_zone_cached(const struct ebb_zone *ez);
u64 ebb_zone_free_large(const struct ebb_zone *ez);
/* Put one block back. Under zone->lock. */
void ebb_zone_put_back(struct ebb_zone *ez, struct page *page, unsigned int order,
		       bool reported);
u64 ebb_zone_room(const struct ebb_zone *ez);

/* ---- scan.c ---- */

void ebb_scan_open(struct ebb_zone *ez, const struct ebb_pass *pass);
/* True: call again. One bounded hold of zone->lock at most. */
bool ebb_scan_take(struct ebb_zone *ez, struct ebb_pass *pass);
/* Is anything left that may come to rest? */
bool ebb_scan_is_waiting(const struct ebb_zone *ez);
u64 ebb_scan_signature(const struct ebb_zone *ez);

#endif
