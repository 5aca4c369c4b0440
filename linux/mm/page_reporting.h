/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the page allocator asks free page reporting, and what it tells it. As
 * long as no device was registered all of this is a jump that is not taken.
 */
#ifndef EBB_PAGE_REPORTING_H
#define EBB_PAGE_REPORTING_H

#include <linux/jump_label.h>
#include <linux/mmzone.h>
#include <linux/pageblock-flags.h>
#include <linux/page-flags.h>
#include <linux/page-isolation.h> /* page_alloc.c has it from here */

#include "ebb/attach.h"

DECLARE_STATIC_KEY_FALSE(page_reporting_enabled);
extern unsigned int page_reporting_order;

static inline bool page_reporting_is_on(void)
{
	return IS_ENABLED(CONFIG_PAGE_REPORTING) &&
	       static_branch_unlikely(&page_reporting_enabled);
}

/* Does this free block have the mark? It goes where the block leaves its list. */
static inline bool page_reported(struct page *page)
{
	return page_reporting_is_on() && PageReported(page);
}

/* A free block of this order is new. Under zone->lock. */
static inline void page_reporting_notify_free(unsigned int order)
{
	if (page_reporting_is_on() && order >= pageblock_order)
		ebb_reporting_notify();
}

/*
 * A block of this order left its list for whoever allocates, and the rest of it
 * is back in others. Under zone->lock. linux/builtin --hooks adds the call.
 */
static inline void page_reporting_notify_taken(const struct zone *zone, unsigned int order)
{
	if (page_reporting_is_on() && order >= pageblock_order)
		ebb_reporting_taken(zone);
}

#endif
