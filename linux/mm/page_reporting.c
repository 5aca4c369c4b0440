// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Free page reporting, built in: drivers register their device here. What is
 * reported, and when, is up to ebb (mm/ebb).
 */
#include <linux/errno.h>
#include <linux/export.h>
#include <linux/lockdep.h>
#include <linux/mutex.h>
#include <linux/page_reporting.h>
#include <linux/printk.h>

#include "page_reporting.h"

DEFINE_STATIC_KEY_FALSE(page_reporting_enabled);

/* For drivers that want to know. ebb_reporting.order is the setting. */
unsigned int page_reporting_order = -1;
EXPORT_SYMBOL_GPL(page_reporting_order);

static DEFINE_MUTEX(device_mutex);
static struct page_reporting_dev_info *device;

int page_reporting_register(struct page_reporting_dev_info *prdev)
{
	if (!ebb_reporting_is_possible())
		return -EOPNOTSUPP;
	mutex_lock(&device_mutex);
	if (device) {
		mutex_unlock(&device_mutex);
		return -EBUSY;
	}
	device = prdev;
	page_reporting_order = pageblock_order;
	INIT_DELAYED_WORK(&prdev->work, ebb_reporting_work);
	ebb_reporting_attach(prdev, NULL);
	if (!static_key_enabled(&page_reporting_enabled)) {
		static_branch_enable(&page_reporting_enabled);
		pr_info("Free page reporting enabled\n");
	}
	mutex_unlock(&device_mutex);
	return 0;
}
EXPORT_SYMBOL_GPL(page_reporting_register);

void page_reporting_unregister(struct page_reporting_dev_info *prdev)
{
	mutex_lock(&device_mutex);
	if (device == prdev) {
		/* From here on nobody queues its work. */
		if (ebb_reporting_leave(prdev))
			ebb_reporting_left();
		synchronize_rcu();
		cancel_delayed_work_sync(&prdev->work);
		device = NULL;
	}
	mutex_unlock(&device_mutex);
}
EXPORT_SYMBOL_GPL(page_reporting_unregister);
