/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * ebb's port for Linux (include/ebb/port.h): there is one engine, so one
 * spinlock serves it. It nests inside zone->lock, since a free asks for a pass.
 */
#ifndef EBB_LINUX_PORT_H
#define EBB_LINUX_PORT_H

#include <linux/bug.h>
#include <linux/printk.h>
#include <linux/spinlock.h>

extern spinlock_t ebb_engine_lock;
/* Of whoever holds it. Not in struct ebb_lock: an engine is made anew while others look at it. */
extern unsigned long ebb_engine_flags;

static inline void ebb_port_lock(struct ebb_lock *lock)
	__acquires(&ebb_engine_lock)
{
	unsigned long flags;

	spin_lock_irqsave(&ebb_engine_lock, flags);
	ebb_engine_flags = flags;
}

static inline void ebb_port_unlock(struct ebb_lock *lock)
	__releases(&ebb_engine_lock)
{
	spin_unlock_irqrestore(&ebb_engine_lock, ebb_engine_flags);
}

/* A macro, lest objtool believe that it returns. */
#define ebb_port_panic(why)						\
	do {								\
		pr_crit("%s\n", why);					\
		BUG();							\
	} while (0)

#endif
