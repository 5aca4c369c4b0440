// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * ebb_holds: how long the kernel's own free page reporting holds zone->lock.
 *
 * page_reporting_process() runs in one task at a time. While it does, a return
 * probe on _raw_spin_lock_irq() and a probe on _raw_spin_unlock_irq() see that
 * task take and give up the lock of a zone. What a hold takes is counted as the
 * module ebb_reporting counts its own: from the lock to the unlock, plus what the
 * second probe takes to begin, some hundred instructions.
 *
 * /proc/ebb_holds has the result.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kprobes.h>
#include <linux/mmzone.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/sched/clock.h>
#include <linux/seq_file.h>

static struct task_struct *reporter;
static const void *held;	/* the lock of a zone that it has */
static u64 since, longest, holds;

static bool is_of_zone(const void *lock)
{
	int nid, i;

	for_each_online_node(nid)
		for (i = 0; i < MAX_NR_ZONES; i++)
			if (lock == &NODE_DATA(nid)->node_zones[i].lock)
				return true;
	return false;
}

static int process_begins(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	WRITE_ONCE(reporter, current);
	return 0;
}

static int process_ends(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	WRITE_ONCE(reporter, NULL);
	return 0;
}

/* Not 0: its return is not wanted. */
static int lock_begins(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	const void *lock = (void *)regs_get_kernel_argument(regs, 0);

	if (READ_ONCE(reporter) != current || !is_of_zone(lock))
		return 1;
	held = lock;
	return 0;
}

static int lock_ends(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	since = local_clock();
	return 0;
}

static int unlock_begins(struct kprobe *probe, struct pt_regs *regs)
{
	u64 now = local_clock();

	if (READ_ONCE(reporter) != current || !held ||
	    held != (void *)regs_get_kernel_argument(regs, 0))
		return 0;
	held = NULL;
	holds++;
	longest = max(longest, now - since);
	return 0;
}

static struct kretprobe process_probe = {
	.kp.symbol_name = "page_reporting_process",
	.entry_handler = process_begins,
	.handler = process_ends,
};
static struct kretprobe lock_probe = {
	.kp.symbol_name = "_raw_spin_lock_irq",
	.entry_handler = lock_begins,
	.handler = lock_ends,
};
static struct kprobe unlock_probe = {
	.symbol_name = "_raw_spin_unlock_irq",
	.pre_handler = unlock_begins,
};

static int show(struct seq_file *m, void *unused)
{
	seq_printf(m, "holds %llu\n", holds);
	seq_printf(m, "longest_hold_us %llu\n", div_u64(longest, NSEC_PER_USEC));
	return 0;
}

static int watch(void)
{
	int err = register_kprobe(&unlock_probe);

	if (err)
		return err;
	err = register_kretprobe(&lock_probe);
	if (err) {
		unregister_kprobe(&unlock_probe);
		return err;
	}
	err = register_kretprobe(&process_probe);
	if (err) {
		unregister_kretprobe(&lock_probe);
		unregister_kprobe(&unlock_probe);
	}
	return err;
}

static int __init ebb_holds_init(void)
{
	int err = watch();

	if (err)
		pr_err("cannot watch the kernel's reporting (error %d)\n", err);
	else if (!proc_create_single("ebb_holds", 0444, NULL, show))
		pr_err("no memory for /proc/ebb_holds\n");
	return err;
}

/* It stays until the guest ends. */
module_init(ebb_holds_init);
MODULE_DESCRIPTION("How long the kernel's own free page reporting holds zone->lock");
MODULE_AUTHOR("The ebb developers");
MODULE_LICENSE("Dual BSD/GPL");
