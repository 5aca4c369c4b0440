// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * A struct zone as a source of free memory, from outside the allocator.
 *
 * The kernel keeps a mark on each reported block (PageReported) and clears it
 * when the block leaves its free list, in inlined code where no module can
 * stand. So what is reported is known by conservation: frames that got their
 * mark here, less those that must have lost it since, because there are fewer
 * free frames in large blocks than marked ones. A timer looks at that sum, and
 * at its least value, while anything is unreported; nothing runs at rest.
 *
 * The sum drifts by what loses its mark without leaving: a reported block that
 * merges with an unreported one, or the rest of one that is split. The walk
 * over the lists finds these blocks, since both go to the head of a list. It
 * takes no walk to know it: a glance at the heads at the end of a pass does.
 *
 * The kernel allocates from the head of a list and frees large blocks to it, and
 * what is put back after a report goes to the tail. So the unreported blocks are
 * the first ones, the coldest last: the walk goes from the head to the first
 * reported block, and takes on the way back. It holds zone->lock for
 * EBB_TAKE_LOOKS blocks at a time.
 *
 * There are unreported blocks behind reported ones, too: memory that was added
 * comes at the tail, and with page_alloc.shuffle=1 the lists are in no order. While
 * fewer were found than there should be, a walk skips reported blocks, SKIP_LIMIT
 * of them in a list at most. If that does not find them, or before rest where the
 * lists are in no order, a *thorough* walk goes over all of all lists.
 */
#include <linux/cpumask.h>
#include <linux/mmzone.h>
#include <linux/sched/clock.h>
#include <linux/slab.h>

#include "ebb_reporting.h"

#define SKIP_LIMIT	1024
#define RESTART_LIMIT	8

/* Per-CPU lists are emptied for so many frames. */
#define CACHED_FRAMES	(SZ_1M >> PAGE_SHIFT)

static struct ebb_zone *zone_of(struct ebb_source *source)
{
	return container_of(source, struct ebb_zone, source);
}

u64 ebb_zone_free_large(const struct ebb_zone *ez)
{
	u64 frames = 0;
	unsigned int order;

	for (order = pageblock_order; order < NR_PAGE_ORDERS; order++)
		frames += (u64)READ_ONCE(ez->zone->free_area[order].nr_free) << order;
	return frames;
}

void ebb_zone_held(struct ebb_zone *ez, u64 since)
{
	u64 held = local_clock() - since;

	if (held > ez->longest_hold)
		ez->longest_hold = held;
}

/* Frames that the zone can miss while a batch is with the host. */
u64 ebb_zone_room(const struct ebb_zone *ez)
{
	unsigned long free = zone_page_state(ez->zone, NR_FREE_PAGES);
	unsigned long low = low_wmark_pages(ez->zone);

	return free > low ? (free - low) / 2 : 0;
}

/* ---- the level ---- */

static void refault(struct ebb_zone *ez, u64 frames)
{
	ez->reported -= frames;
	ez->refaulted += frames;
}

/* Under zone->lock. Returns the unreported frames in large blocks. */
static u64 note_level(struct ebb_zone *ez)
{
	u64 dip = atomic_long_xchg(&ez->dip, 0);
	u64 free = ebb_zone_free_large(ez);

	if (ez->resync) {
		ez->resync = false;
		ez->reported = min(ez->reported, free);
		dip = 0;
	}
	if (dip) {
		refault(ez, min(dip, ez->reported));
		ez->low = 0;
	}
	if (free < ez->reported)
		refault(ez, ez->reported - free);
	ez->low = min(ez->low, free - ez->reported);
	return free - ez->reported;
}

void ebb_zone_sample(struct ebb_zone *ez)
{
	u64 before;
	unsigned long flags;
	bool refaulted;

	/* Whoever has the lock changes the sum: the next time will do. */
	if (!spin_trylock_irqsave(&ez->zone->lock, flags))
		return;
	before = ez->refaulted;
	note_level(ez);
	refaulted = ez->refaulted != before;
	spin_unlock_irqrestore(&ez->zone->lock, flags);
	if (refaulted && ebb_source_note(&ez->source))
		ebb_source_request(&ez->source);
}

void ebb_zone_sample_unlocked(struct ebb_zone *ez)
{
	u64 free = ebb_zone_free_large(ez);
	u64 reported = READ_ONCE(ez->reported);

	if (free < reported && reported - free > atomic_long_read(&ez->dip))
		atomic_long_set(&ez->dip, reported - free);
}

void ebb_zone_sample_locked(struct ebb_zone *ez)
{
	note_level(ez);
}

static void counts(struct ebb_source *source, const struct ebb_pace *slot,
		   struct ebb_counts *counts)
{
	struct ebb_zone *ez = zone_of(source);
	unsigned long flags, free;
	u64 unreported;

	spin_lock_irqsave(&ez->zone->lock, flags);
	unreported = note_level(ez);
	free = zone_page_state(ez->zone, NR_FREE_PAGES);
	*counts = (struct ebb_counts) {
		.unreported = unreported,
		.low = ez->low,
		.reported = ez->reported,
		.refaulted = ez->refaulted,
	};
	if (free > unreported + ez->reported)
		counts->small = free - unreported - ez->reported;
	if (slot)
		ez->low = unreported;
	spin_unlock_irqrestore(&ez->zone->lock, flags);
}

/* ---- per-CPU lists ---- */

unsigned int ebb_zone_cached(const struct ebb_zone *ez)
{
	unsigned int frames = 0;
	int cpu;

	for_each_online_cpu(cpu)
		frames += READ_ONCE(per_cpu_ptr(ez->zone->per_cpu_pageset, cpu)->count);
	return frames;
}

/*
 * At the end of a slot: what did not change throughout it is at rest. In the
 * middle of a large free the lists fill again at once.
 */
void ebb_zone_drain(struct ebb_zone *ez, bool now)
{
	unsigned int cached = ebb_zone_cached(ez);

	if (now || (cached >= CACHED_FRAMES && cached == ez->cached)) {
		ebb_drain_zone(ez->zone);
		cached = 0;
	}
	ez->cached = cached;
}

bool ebb_zone_is_stale(struct ebb_zone *ez)
{
	return ebb_zone_free_large(ez) > READ_ONCE(ez->reported) ||
	       ebb_zone_cached(ez) >= CACHED_FRAMES ||
	       (READ_ONCE(ez->order) < pageblock_order &&
		ebb_scan_signature(ez) != READ_ONCE(ez->signature));
}

/* ---- the walk ---- */

/* A cursor may have moved to another list: any head ends a walk. */
static bool is_head(const struct zone *zone, const struct list_head *at)
{
	return (void *)at >= (void *)zone->free_area &&
	       (void *)at < (void *)(zone->free_area + NR_PAGE_ORDERS);
}

static bool is_free_block(const struct ebb_zone *ez, struct page *page,
			  unsigned int order)
{
	return PageBuddy(page) && page_private(page) == order && page_zone(page) == ez->zone;
}

/* In a list that the walk goes over, and not in one of isolated pageblocks. */
static bool is_listed(const struct ebb_zone *ez, struct page *page, unsigned int order)
{
	return is_free_block(ez, page, order) &&
	       !is_migrate_isolate(ebb_pageblock_migratetype(page));
}

static void begin_list(struct ebb_walk *walk)
{
	walk->taking = false;
	walk->at = NULL;
	walk->coldest = NULL;
	walk->skipped = 0;
}

static void next_list(struct ebb_walk *walk)
{
	begin_list(walk);
	walk->restarts = 0;
	do
		walk->mt++;
	while (is_migrate_isolate(walk->mt));
	if (walk->mt < MIGRATE_TYPES)
		return;
	walk->mt = 0;
	if (walk->order > pageblock_order)
		walk->order--;
	else
		walk->done = true;
}

/* The lock was dropped: is what the walk stands on still there? */
static void revalidate(struct ebb_zone *ez)
{
	struct ebb_walk *walk = &ez->walk;

	if ((!walk->at || is_listed(ez, walk->at, walk->order)) &&
	    (!walk->coldest || walk->taking || is_listed(ez, walk->coldest, walk->order)))
		return;
	walk->exact = false;
	if (++walk->restarts > RESTART_LIMIT)
		next_list(walk);
	else
		begin_list(walk);
}

/* At a reported block: look no further in this list? */
static bool is_enough(struct ebb_walk *walk)
{
	if (walk->thorough)
		return false;
	if (walk->counted >= walk->expected)
		return true;
	walk->cut |= walk->skipped >= SKIP_LIMIT;
	return walk->skipped >= SKIP_LIMIT;
}

/* One step from the head towards the tail. */
static void find_step(struct ebb_zone *ez)
{
	struct ebb_walk *walk = &ez->walk;
	struct free_area *area = &ez->zone->free_area[walk->order];
	struct list_head *next = walk->at ? walk->at->buddy_list.next :
					    area->free_list[walk->mt].next;
	bool end = is_head(ez->zone, next);

	if (!end) {
		walk->at = list_entry(next, struct page, buddy_list);
		if (PageReported(walk->at)) {
			walk->skipped++;
			end = is_enough(walk);
		} else {
			walk->counted += 1ULL << walk->order;
			walk->coldest = walk->at;
			ez->unordered |= walk->skipped > 0;
		}
	}
	if (end) {
		walk->taking = true;
		walk->at = walk->coldest;
		if (!walk->at)
			next_list(walk);
	}
}

/* The zone cannot miss any more. */
static void stop_walk(struct ebb_zone *ez)
{
	ez->watermark = true;
	ez->walk.exact = false;
	ez->walk.done = true;
}

/* More was isolated than should have been unreported: so much had lost its mark. */
static void note_lost(struct ebb_zone *ez)
{
	u64 free = ebb_zone_free_large(ez);
	u64 lost = ez->reported - min(ez->reported, free);

	ez->reported -= lost;
	ez->marks_lost += lost;
	ez->walk.expected += lost;
}

/* Isolate this block, if the pass wants it. False: the walk of this list ends. */
static bool take_block(struct ebb_zone *ez, struct ebb_pass *pass)
{
	struct ebb_walk *walk = &ez->walk;
	u64 frames = 1ULL << walk->order;

	if (pass->quota < frames)
		return false;
	if ((pass->n_blocks == 0 && pass->room < frames) ||
	    !ebb_isolate_free_page(walk->at, walk->order)) {
		stop_walk(ez);
		return false;
	}
	ez->low -= min(ez->low, frames);
	note_lost(ez);
	ebb_pass_hold(pass, page_to_pfn(walk->at), walk->order);
	return true;
}

/* One step back towards the head. */
static void take_step(struct ebb_zone *ez, struct ebb_pass *pass)
{
	struct ebb_walk *walk = &ez->walk;
	struct list_head *prev = walk->at->buddy_list.prev;

	if (!PageReported(walk->at)) {
		if (!ebb_pass_fits(pass, walk->order))
			return; /* the batch is full */
		if (!take_block(ez, pass)) {
			if (!walk->done)
				next_list(walk);
			return;
		}
	}
	if (is_head(ez->zone, prev))
		next_list(walk);
	else
		walk->at = list_entry(prev, struct page, buddy_list);
}

/*
 * What came and went since zone->lock was dropped: the walk may have seen it once,
 * twice, or not.
 */
static void note_others(struct ebb_zone *ez)
{
	struct ebb_walk *walk = &ez->walk;
	u64 level = note_level(ez);

	walk->others += max(level, walk->level) - min(level, walk->level);
	walk->others += ez->refaulted - walk->refaulted;
}

/* It is about to be dropped. */
static void end_hold(struct ebb_zone *ez)
{
	ez->walk.level = note_level(ez);
	ez->walk.refaulted = ez->refaulted;
}

static bool take_large(struct ebb_zone *ez, struct ebb_pass *pass)
{
	struct ebb_walk *walk = &ez->walk;
	unsigned int looks = EBB_TAKE_LOOKS;
	unsigned long flags;
	u64 since;

	spin_lock_irqsave(&ez->zone->lock, flags);
	since = local_clock();
	note_others(ez);
	revalidate(ez);
	while (looks-- > 0 && !walk->done && ebb_pass_has_room(pass)) {
		if (walk->taking)
			take_step(ez, pass);
		else
			find_step(ez);
	}
	end_hold(ez);
	ebb_zone_held(ez, since);
	spin_unlock_irqrestore(&ez->zone->lock, flags);
	return !walk->done;
}

static bool open(struct ebb_source *source, const struct ebb_pass *pass)
{
	struct ebb_zone *ez = zone_of(source);
	unsigned long flags;

	spin_lock_irqsave(&ez->zone->lock, flags);
	ez->walk = (struct ebb_walk) {
		.order = EBB_MAX_ORDER,
		.expected = note_level(ez),
		.thorough = ez->thorough,
	};
	end_hold(ez);
	spin_unlock_irqrestore(&ez->zone->lock, flags);
	ez->watermark = false;
	ebb_scan_open(ez, pass);
	return true;
}

static bool take(struct ebb_source *source, struct ebb_pass *pass)
{
	struct ebb_zone *ez = zone_of(source);
	struct ebb_walk *walk = &ez->walk;

	cond_resched();
	if (pass->n_blocks == 0)
		pass->room = min(pass->room, ebb_zone_room(ez));
	if (!walk->begun) {
		walk->begun = true;
		walk->exact = pass->quota > 0 || walk->thorough;
		walk->done = !walk->exact; /* nothing is surplus: no need to look */
	}
	if (!walk->done)
		return take_large(ez, pass) || !ez->watermark;
	return ebb_scan_take(ez, pass);
}

/* The walk has seen all unreported blocks: correct what the sum says of them. */
static void correct(struct ebb_zone *ez)
{
	const struct ebb_walk *walk = &ez->walk;
	u64 counted = walk->counted, most = walk->expected + walk->others;
	u64 least = walk->expected - min(walk->expected, walk->others);
	u64 free = ebb_zone_free_large(ez);

	ez->thorough = walk->cut && counted < least;
	if (ez->thorough)
		return;
	if (counted > most) {
		u64 lost = min(counted - most, ez->reported);

		ez->reported -= lost;
		ez->marks_lost += lost;
	} else if (counted < least) {
		ez->reported = min(ez->reported + least - counted, free);
	}
	ez->low = min(ez->low, free - ez->reported);
}

/* The sum says that all is reported. A block without its mark would be at a head. */
static void glance(struct ebb_zone *ez)
{
	unsigned int order, mt;

	for (order = pageblock_order; order < NR_PAGE_ORDERS; order++) {
		for (mt = 0; mt < MIGRATE_TYPES; mt++) {
			struct list_head *list = &ez->zone->free_area[order].free_list[mt];
			u64 lost = min(1ULL << order, ez->reported);

			if (is_migrate_isolate(mt) || list_empty(list) ||
			    PageReported(list_first_entry(list, struct page, buddy_list)))
				continue;
			ez->reported -= lost;
			ez->marks_lost += lost;
		}
	}
}

static bool close(struct ebb_source *source)
{
	struct ebb_zone *ez = zone_of(source);
	unsigned long flags;
	u64 left;

	spin_lock_irqsave(&ez->zone->lock, flags);
	note_others(ez);
	if (ez->walk.exact && ez->walk.done)
		correct(ez);
	left = note_level(ez);
	if (left == 0) {
		glance(ez);
		left = note_level(ez);
	}
	if (left == 0 && ez->unordered && !ez->walk.thorough)
		ez->thorough = true;
	spin_unlock_irqrestore(&ez->zone->lock, flags);
	return left > 0 || ez->thorough || ebb_scan_is_waiting(ez) || ez->cached >= CACHED_FRAMES;
}

/* ---- putting back ---- */

/* Which free block is this page in? NR_PAGE_ORDERS: none, somebody has it already. */
static unsigned int order_of(const struct ebb_zone *ez, struct page *page, unsigned int order)
{
	unsigned long pfn = page_to_pfn(page);

	for (; order < NR_PAGE_ORDERS; order++)
		if (is_free_block(ez, page - (pfn & ((1UL << order) - 1)), order))
			break;
	return order;
}

/*
 * The kernel merges the block with its free buddies, whose marks go. If all of
 * them had one, so has the whole: nothing is reported twice, and none is said to
 * be that was not. The kernel puts it at the tail of a list; what has no mark
 * belongs at the head.
 */
void ebb_zone_put_back(struct ebb_zone *ez, struct page *page, unsigned int order,
		       bool reported)
{
	unsigned long pfn = page_to_pfn(page), at = pfn;
	unsigned int marked = 0, o, end;
	int mt = ebb_pageblock_migratetype(page);
	struct page *whole;
	u64 lost = 0;

	for (o = order; o < EBB_MAX_ORDER; o++) {
		struct page *buddy = page + ((at ^ (1UL << o)) - pfn);

		if (is_free_block(ez, buddy, o) && PageReported(buddy))
			marked |= 1U << o;
		at &= ~(1UL << o);
	}
	ebb_putback_isolated_page(page, order, mt);
	end = order_of(ez, page, order);
	if (end == NR_PAGE_ORDERS)
		return;
	whole = page - (pfn & ((1UL << end) - 1));
	for (o = order; o < end; o++) {
		reported &= marked >> o & 1;
		if (o >= pageblock_order && marked >> o & 1)
			lost += 1ULL << o;
	}
	ez->reported -= min(lost, ez->reported);
	if (reported) {
		__SetPageReported(whole);
		if (end >= pageblock_order)
			ez->reported += 1ULL << end;
	} else {
		ez->marks_lost += lost;
		if (end >= pageblock_order)
			list_move(&whole->buddy_list, &ez->zone->free_area[end].free_list[mt]);
	}
}

static void give_back(struct ebb_source *source, const struct ebb_held *blocks,
		      unsigned int n, bool reported)
{
	struct ebb_zone *ez = zone_of(source);
	unsigned long flags;
	unsigned int i;
	u64 since;

	spin_lock_irqsave(&ez->zone->lock, flags);
	since = local_clock();
	for (i = 0; i < n; i++)
		ebb_zone_put_back(ez, pfn_to_page(blocks[i].pfn), blocks[i].order, reported);
	note_level(ez);
	ebb_zone_held(ez, since);
	spin_unlock_irqrestore(&ez->zone->lock, flags);
}

/* ---- making one ---- */

static int attach(struct ebb_source *source, const struct ebb_terms *terms)
{
	struct ebb_zone *ez = zone_of(source);

	WRITE_ONCE(ez->order, terms->order > 0 ? terms->order - 1 : 0);
	return ez->order <= pageblock_order; /* all larger ones are counted together */
}

static const struct ebb_source_ops ops = {
	.counts = counts,
	.take = take,
	.give_back = give_back,
	.attach = attach,
	.open = open,
	.close = close,
};

int ebb_zone_resize(struct ebb_zone *ez)
{
	unsigned long first = ez->zone->zone_start_pfn >> pageblock_order;
	unsigned long end = DIV_ROUND_UP(zone_end_pfn(ez->zone), pageblock_nr_pages);
	struct ebb_pageblock *pageblocks;
	unsigned long flags;

	if (first != ez->first || end - first != ez->n_pageblocks) {
		pageblocks = kvcalloc(end - first, sizeof(*pageblocks), GFP_KERNEL);
		if (!pageblocks)
			return -ENOMEM;
		kvfree(ez->pageblocks);
		ez->pageblocks = pageblocks;
		ez->first = first;
		ez->n_pageblocks = end - first;
	}
	ez->scanning = false;
	ez->settled = false;
	ez->thorough = true;
	spin_lock_irqsave(&ez->zone->lock, flags);
	ez->resync = true;
	spin_unlock_irqrestore(&ez->zone->lock, flags);
	return 0;
}

struct ebb_zone *ebb_zone_create(struct zone *zone, unsigned int order)
{
	struct ebb_zone *ez = kzalloc(sizeof(*ez), GFP_KERNEL);

	if (!ez)
		return NULL;
	ez->source.ops = &ops;
	ez->source.large_order = pageblock_order;
	ez->zone = zone;
	ez->order = order;
	if (ebb_zone_resize(ez)) {
		kfree(ez);
		return NULL;
	}
	return ez;
}

void ebb_zone_destroy(struct ebb_zone *ez)
{
	kvfree(ez->pageblocks);
	kfree(ez);
}
