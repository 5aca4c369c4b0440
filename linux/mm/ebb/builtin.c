// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * ebb_reporting, built in: what module.c has to find it calls. Its device is
 * registered in mm/page_reporting.c.
 */
#include <linux/gfp.h>
#include <linux/init.h>

#include "../internal.h"
#include "attach.h"
#include "ebb_reporting.h"

int ebb_isolate_free_page(struct page *page, unsigned int order)
{
	return __isolate_free_page(page, order);
}

void ebb_putback_isolated_page(struct page *page, unsigned int order, int mt)
{
	__putback_isolated_page(page, order, mt);
}

int ebb_pageblock_migratetype(struct page *page)
{
	return get_pageblock_migratetype(page);
}

void ebb_drain_zone(struct zone *zone)
{
	drain_all_pages(zone);
}

/* Before the drivers come. */
subsys_initcall(ebb_reporting_init);
