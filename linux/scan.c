// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Free blocks smaller than a pageblock, of pageblocks that somebody uses in part.
 *
 * A round looks at all pageblocks of a zone. For each it keeps a hash of the free,
 * unreported blocks, and when the hash was last seen to change; once that is
 * long enough ago (ebb_pace_ripe()) they are reported together. Looking needs no
 * lock: what is seen wrong is seen again under zone->lock before anything is
 * isolated. A zone whose counts of free blocks are those of a round that left
 * nothing to wait for is at rest, and no round begins.
 *
 * Looking may take 1 % of one CPU's time, and that of ten seconds at once.
 */
#include <linux/memory_hotplug.h>
#include <linux/mmzone.h>
#include <linux/sched/clock.h>

#include "ebb_reporting.h"

#define CPU_SHARE	100		/* one part in so many */
#define CREDIT_LIMIT	(100 * NSEC_PER_MSEC)
#define MUCH_FRAMES	(SZ_4M >> PAGE_SHIFT)
#define CHUNK		16		/* pageblocks in a call */

/* What one pageblock has to report. */
struct seen {
	u32 hash;
	u32 frames;
	u32 runs;	/* ranges: neighbours are one */
};

u64 ebb_scan_signature(const struct ebb_zone *ez)
{
	u64 signature = 0;
	unsigned int order;

	for (order = READ_ONCE(ez->order); order < pageblock_order; order++)
		signature = signature * 1000003 + READ_ONCE(ez->zone->free_area[order].nr_free);
	return signature;
}

bool ebb_scan_is_waiting(const struct ebb_zone *ez)
{
	return ez->order < pageblock_order && (ez->scanning || !ez->settled);
}

static u64 free_small(const struct ebb_zone *ez)
{
	u64 frames = 0;
	unsigned int order;

	for (order = ez->order; order < pageblock_order; order++)
		frames += (u64)READ_ONCE(ez->zone->free_area[order].nr_free) << order;
	return frames;
}

/* An eighth more than when the last round began is something new. */
static bool is_much_freed(const struct ebb_zone *ez)
{
	return free_small(ez) > ez->small + ez->small / 8 + MUCH_FRAMES;
}

void ebb_scan_open(struct ebb_zone *ez, const struct ebb_pass *pass)
{
	u64 now = local_clock();
	u32 clock = ebb_pace_clock(pass->pace);

	ez->credit = min_t(s64, ez->credit + (now - ez->credited) / CPU_SHARE, CREDIT_LIMIT);
	ez->credited = now;
	ez->clock = clock;
	if (ez->order >= pageblock_order || (ez->scanning && !pass->everything))
		return;
	if (!pass->everything) {
		if (clock - ez->began < ez->interval && !is_much_freed(ez))
			return;
		if (ez->settled && ebb_scan_signature(ez) == ez->signature)
			return;
	}
	ez->scanning = true;
	ez->found = false;
	ez->began = clock;
	ez->scan = 0;
	ez->inside = 0;
	ez->waiting_now = 0;
	ez->changed = 0;
	ez->small = free_small(ez);
	WRITE_ONCE(ez->signature, ebb_scan_signature(ez));
}

/*
 * What waits ripens after some windows: look again after one. If nothing comes of
 * that, after two, four...
 */
static void end_round(struct ebb_zone *ez, const struct ebb_pace *pace)
{
	u32 window = ebb_pace_window_ticks(pace);
	u32 longest = pace->config.window_max >> 20;

	ez->scanning = false;
	ez->waiting = ez->waiting_now;
	ez->settled = ez->waiting == 0;
	if (ez->found || ez->settled || ez->changed > ez->waiting / 2)
		ez->interval = window;
	else
		ez->interval = clamp(2 * ez->interval, window, longest);
}

/* The free block at this page, if it is below a pageblock: its order, else -1. */
static int small_order(struct page *page, unsigned long at)
{
	unsigned long order;

	if (!PageBuddy(page))
		return -1;
	order = READ_ONCE(page->private);
	if (order >= pageblock_order || at & ((1UL << order) - 1))
		return -1;
	return order;
}

/* Is it free as a whole, or all of it one used block? */
static bool is_whole(struct page *page)
{
	unsigned int order = pageblock_order;

	for (; order < NR_PAGE_ORDERS; order++) {
		struct page *head = page - (page_to_pfn(page) & ((1UL << order) - 1));

		if (PageBuddy(head) && READ_ONCE(head->private) == order)
			return true;
	}
	return PageHead(page) && compound_order(page) >= pageblock_order;
}

static struct seen look_at(const struct ebb_zone *ez, struct page *page)
{
	struct seen seen = { 0 };
	unsigned long at = 0, end = ULONG_MAX;

	if (is_whole(page))
		return seen;
	while (at < pageblock_nr_pages) {
		int order = small_order(page + at, at);

		if (order < 0) {
			at++;
			continue;
		}
		if (order >= ez->order && !PageReported(page + at)) {
			seen.hash = (seen.hash ^ (at << 4 | order)) * 0x9E3779B1u + 1;
			seen.frames += 1U << order;
			seen.runs += at != end;
			end = at + (1UL << order);
		}
		at += 1UL << order;
	}
	if (seen.frames > 0 && seen.hash == 0)
		seen.hash = 1;
	return seen;
}

/* Isolate from this pageblock on, as far as the batch goes. Under zone->lock. */
static void isolate(struct ebb_zone *ez, struct ebb_pass *pass, struct page *page)
{
	while (ez->inside < pageblock_nr_pages) {
		struct page *at = page + ez->inside;
		int order = small_order(at, ez->inside);

		if (order < 0) {
			ez->inside++;
			continue;
		}
		if (order >= ez->order && !PageReported(at)) {
			if (!ebb_pass_fits(pass, order))
				return;
			if ((pass->n_blocks == 0 && pass->room < 1ULL << order) ||
			    !ebb_isolate_free_page(at, order)) {
				ez->watermark = true;
				return;
			}
			ebb_pass_hold(pass, page_to_pfn(at), order);
		}
		ez->inside += 1UL << order;
	}
}

/* One hold of the lock. */
static void take_pageblock(struct ebb_zone *ez, struct ebb_pass *pass, struct page *page)
{
	unsigned long flags;
	u64 since;

	spin_lock_irqsave(&ez->zone->lock, flags);
	since = local_clock();
	if (page_zone(page) != ez->zone || is_migrate_isolate(ebb_pageblock_migratetype(page)))
		ez->inside = pageblock_nr_pages;
	else
		isolate(ez, pass, page);
	ebb_zone_held(ez, since);
	spin_unlock_irqrestore(&ez->zone->lock, flags);
}

/* Has it changed, is it at rest? True: report what it has. */
static bool judge(struct ebb_zone *ez, const struct ebb_pass *pass, struct seen seen)
{
	struct ebb_pageblock *pb = &ez->pageblocks[ez->scan];

	if (seen.frames == 0) {
		pb->hash = 0;
		return false;
	}
	if (pass->everything)
		return true;
	if (pb->hash == seen.hash &&
	    ebb_pace_ripe(pass->pace, seen.frames, seen.runs, ez->clock - pb->since))
		return true;
	if (pb->hash != seen.hash) {
		pb->hash = seen.hash;
		pb->since = ez->clock;
		ez->changed += seen.frames;
	}
	ez->waiting_now += seen.frames;
	return false;
}

static struct page *page_of(const struct ebb_zone *ez)
{
	return pfn_to_online_page((ez->first + ez->scan) << pageblock_order);
}

/* One pageblock: on to the next one, unless this has something to report. */
static bool scan_one(struct ebb_zone *ez, const struct ebb_pass *pass)
{
	struct page *page = page_of(ez);

	if (ez->inside == 0 && (!page || !judge(ez, pass, look_at(ez, page))))
		ez->inside = pageblock_nr_pages;
	if (ez->inside < pageblock_nr_pages) {
		ez->found = true;
		return false;
	}
	ez->inside = 0;
	ez->scan++;
	return true;
}

/* Go on to a pageblock that has something to report. False: none was found in this call. */
static bool find(struct ebb_zone *ez, const struct ebb_pass *pass)
{
	u64 since = local_clock(), spent;
	bool found = false;
	unsigned int n;

	for (n = 0; n < CHUNK && ez->scan < ez->n_pageblocks && !found; n++)
		found = !scan_one(ez, pass);
	spent = local_clock() - since;
	ez->credit -= spent;
	ez->scanned_ns += spent;
	return found;
}

bool ebb_scan_take(struct ebb_zone *ez, struct ebb_pass *pass)
{
	if (!ez->scanning || ez->watermark || (ez->credit <= 0 && !pass->everything))
		return false;
	if (find(ez, pass))
		take_pageblock(ez, pass, page_of(ez));
	if (ez->scan >= ez->n_pageblocks)
		end_round(ez, pass->pace);
	return true;
}
