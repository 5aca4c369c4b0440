// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * ebb_reporting: how it attaches to an unmodified kernel.
 *
 * The balloon's driver registers a struct page_reporting_dev_info, whose work
 * item the kernel runs 2 s after a large block was freed. A return probe on that
 * function sees the device, gives its work item another function, ours, and
 * queues it when the kernel's last pass of its own is over. Two more probes tell
 * when a large block is freed, and when the device is unregistered.
 *
 * Four functions that the kernel does not export are found by their names, as
 * kprobes find them, and called through static calls, that is, directly. A kernel
 * that lacks one is left alone: the module does not load.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/gfp.h>
#include <linux/irq_work.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/page_reporting.h>
#include <linux/rcupdate.h>
#include <linux/static_call.h>
#include <linux/workqueue.h>

#include "attach.h"
#include "ebb_reporting.h"

/* ---- functions by name ---- */

static int no_isolate(struct page *page, unsigned int order)
{
	return 0;
}

static void no_putback(struct page *page, unsigned int order, int mt)
{
}

static unsigned long no_flags(const struct page *page, unsigned long pfn, unsigned long mask)
{
	return 0;
}

static void no_drain(struct zone *zone)
{
}

DEFINE_STATIC_CALL(isolate_free_page, no_isolate);
DEFINE_STATIC_CALL(putback_isolated_page, no_putback);
DEFINE_STATIC_CALL(pfnblock_flags_mask, no_flags);
DEFINE_STATIC_CALL(drain_pages, no_drain);

int ebb_isolate_free_page(struct page *page, unsigned int order)
{
	return static_call(isolate_free_page)(page, order);
}

void ebb_putback_isolated_page(struct page *page, unsigned int order, int mt)
{
	static_call(putback_isolated_page)(page, order, mt);
}

int ebb_pageblock_migratetype(struct page *page)
{
	return static_call(pfnblock_flags_mask)(page, page_to_pfn(page), MIGRATETYPE_MASK);
}

void ebb_drain_zone(struct zone *zone)
{
	static_call(drain_pages)(zone);
}

/* The probe is never armed: these are hot functions, and their code stays as it is. */
static void *address_of(const char *name)
{
	struct kprobe probe = { .symbol_name = name, .flags = KPROBE_FLAG_DISABLED };
	void *address;
	int err = register_kprobe(&probe);

	if (err) {
		pr_err("this kernel has no %s that can be called (error %d): not loaded\n",
		       name, err);
		return NULL;
	}
	address = probe.addr;
	unregister_kprobe(&probe);
	return address;
}

static int find_functions(void)
{
	void *isolate = address_of("__isolate_free_page");
	void *putback = address_of("__putback_isolated_page");
	void *flags = address_of("get_pfnblock_flags_mask");
	void *drain = address_of("drain_all_pages");

	if (!isolate || !putback || !flags || !drain)
		return -ENOENT;
	static_call_update(isolate_free_page, isolate);
	static_call_update(putback_isolated_page, putback);
	static_call_update(pfnblock_flags_mask, flags);
	static_call_update(drain_pages, drain);
	return 0;
}

/* ---- probes ---- */

struct taken {
	struct page_reporting_dev_info *prdev;
	work_func_t stock;
};

/* page_reporting_process(work) begins. */
static int process_begins(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct work_struct *work = (struct work_struct *)regs_get_kernel_argument(regs, 0);
	struct taken *taken = (struct taken *)instance->data;

	taken->prdev = container_of(to_delayed_work(work), struct page_reporting_dev_info, work);
	taken->stock = work->func;
	return 0;
}

/* It ends: from now on the work is ours. The device cannot go before its work has ended. */
static int process_ends(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	struct taken *taken = (struct taken *)instance->data;

	if (taken->stock != ebb_reporting_work) {
		taken->prdev->work.work.func = ebb_reporting_work;
		ebb_reporting_attach(taken->prdev, taken->stock);
	}
	return 0;
}

/*
 * Where a probe is a breakpoint, and not a call of the function tracer, its handler counts as
 * a non-maskable interrupt, which takes no lock: what does is put off until interrupts are on.
 */
static void notify_later(struct irq_work *work)
{
	ebb_reporting_notify();
}

static void left_later(struct irq_work *work)
{
	ebb_reporting_left();
}

static struct irq_work notify_work = IRQ_WORK_INIT(notify_later);
static struct irq_work left_work = IRQ_WORK_INIT(left_later);

static void finish_later(void)
{
	irq_work_sync(&notify_work);
	irq_work_sync(&left_work);
}

static int notify_begins(struct kprobe *probe, struct pt_regs *regs)
{
	if (in_nmi())
		irq_work_queue(&notify_work);
	else
		ebb_reporting_notify();
	return 0;
}

static int unregister_begins(struct kprobe *probe, struct pt_regs *regs)
{
	if (ebb_reporting_leave((void *)regs_get_kernel_argument(regs, 0)))
		irq_work_queue(&left_work);
	return 0;
}

static struct kretprobe process_probe = {
	.kp.symbol_name = "page_reporting_process",
	.entry_handler = process_begins,
	.handler = process_ends,
	.data_size = sizeof(struct taken),
};
static struct kprobe notify_probe = {
	.symbol_name = "__page_reporting_notify",
	.pre_handler = notify_begins,
};
static struct kprobe unregister_probe = {
	.symbol_name = "page_reporting_unregister",
	.pre_handler = unregister_begins,
};

static int probe_failed(const char *name, int err)
{
	pr_err("cannot watch %s (error %d): not loaded\n", name, err);
	return err;
}

static int watch(void)
{
	int err = register_kprobe(&unregister_probe);

	if (err)
		return probe_failed(unregister_probe.symbol_name, err);
	err = register_kprobe(&notify_probe);
	if (err) {
		unregister_kprobe(&unregister_probe);
		return probe_failed(notify_probe.symbol_name, err);
	}
	err = register_kretprobe(&process_probe);
	if (err) {
		unregister_kprobe(&notify_probe);
		unregister_kprobe(&unregister_probe);
		return probe_failed(process_probe.kp.symbol_name, err);
	}
	return 0;
}

/* ---- in and out ---- */

/* A device that is there already shows itself when a large block is freed. */
static void poke(void)
{
	struct page *page = alloc_pages(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN, EBB_MAX_ORDER);

	if (page)
		__free_pages(page, EBB_MAX_ORDER);
}

static int __init ebb_module_init(void)
{
	int err;

	if (!ebb_reporting_is_possible()) {
		pr_err("Hyper-V's balloon cannot report what this module finds: not loaded\n");
		return -ENODEV;
	}
	err = find_functions();
	if (!err)
		err = ebb_reporting_init();
	if (err)
		return err;
	err = watch();
	if (err) {
		finish_later();
		ebb_reporting_exit();
		return err;
	}
	poke();
	return 0;
}

static void __exit ebb_module_exit(void)
{
	unregister_kretprobe(&process_probe);
	unregister_kprobe(&notify_probe);
	ebb_reporting_release();
	unregister_kprobe(&unregister_probe);
	finish_later();
	/* The work may be on its last instructions still. */
	synchronize_rcu_tasks();
	ebb_reporting_exit();
}

module_init(ebb_module_init);
module_exit(ebb_module_exit);
MODULE_DESCRIPTION("Free page reporting that gives memory back in a second, at ebb's pace");
MODULE_AUTHOR("The ebb developers");
MODULE_LICENSE("Dual BSD/GPL");
MODULE_VERSION(EBB_VERSION);
