/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What reporting.c offers to whoever brings it a report device: module.c in a
 * kernel as it is, mm/page_reporting.c in one that ebb is built into.
 */
#ifndef EBB_ATTACH_H
#define EBB_ATTACH_H

#include <linux/types.h>
#include <linux/workqueue.h>

struct page_reporting_dev_info;
struct zone;

int ebb_reporting_init(void);
void ebb_reporting_exit(void);
/* A device came. It runs ebb_reporting_work() from now on; @stock: what it ran before, or NULL. */
void ebb_reporting_attach(struct page_reporting_dev_info *prdev, work_func_t stock);
/*
 * It goes: was it the one? If so, ebb_reporting_left() follows. Takes no lock, so from any
 * context, NMIs too. The caller waits for RCU, then for the device's work, then frees it.
 */
bool ebb_reporting_leave(struct page_reporting_dev_info *prdev);
void ebb_reporting_left(void);
/* A large block was freed; perhaps under a zone->lock. */
void ebb_reporting_notify(void);
/* One was allocated, out of a zone whose lock the caller holds. For those who can tell. */
void ebb_reporting_taken(const struct zone *zone);
void ebb_reporting_work(struct work_struct *work);
/* Hand the device back to the kernel's own reporting, and wait until that is done. */
void ebb_reporting_release(void);

/*
 * False on Hyper-V: its balloon can tell the host of whole blocks of 2 MiB and more. Of
 * anything else it tells more than it was given, memory in use.
 */
bool ebb_reporting_is_possible(void);

#endif
