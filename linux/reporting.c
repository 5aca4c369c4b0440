// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The engine's surroundings: the device that it reports to, the work that runs
 * it, timers, parameters and statistics.
 *
 * All passes run as the work item of the kernel's own struct
 * page_reporting_dev_info, whose owner shuts it out before the device goes. Its
 * state stays PRDEV_REQUESTED meanwhile, so the kernel never queues it itself.
 *
 * Timers: the sampler notes levels each SAMPLE_MS while anything is unreported,
 * but for a kernel that tells of each large block which is taken (the hooks of builtin).
 * The check looks each longest window for what nobody told of: small frees,
 * per-CPU lists. It is deferrable: it wakes no idle CPU. At rest there is no other.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/memory.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/page_reporting.h>
#include <linux/proc_fs.h>
#include <linux/rcupdate.h>
#include <linux/reboot.h>
#include <linux/scatterlist.h>
#include <linux/sched/clock.h>
#include <linux/seq_file.h>
#include <linux/timer.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#if IS_ENABLED(CONFIG_HYPERV)
#include <asm/mshyperv.h>
#endif

#include "attach.h"
#include "ebb_reporting.h"

#define SAMPLE_MS	8
#define DRAIN_MS	50	/* per-CPU lists are looked at no more often */
#define RETRY_S		10	/* when there was no memory to begin with */
#define GOES_S		5	/* to wait for the host when the machine goes down */
#define NOW_PASSES	4	/* for one "now": what merges meanwhile loses its mark */

/* The states that the kernel's own reporting gives a device. */
enum { PRDEV_IDLE, PRDEV_REQUESTED, PRDEV_ACTIVE };

DEFINE_SPINLOCK(ebb_engine_lock);
unsigned long ebb_engine_flags;

/* Protects engine, zones and what follows; a pass holds it. */
static DEFINE_MUTEX(ebb_mutex);
static struct ebb_report engine;
static struct ebb_zone *zones;	/* only ever added to; readers need no lock */
static struct page_reporting_dev_info *registered;	/* the engine's device is this */
static unsigned int registration;	/* its number; another may have the same address */
static unsigned int paused;	/* memory is being added or removed */
static bool rebuild;		/* it was */
static bool reconfigure;
static bool now_wanted;
static bool releasing;
static bool gone;		/* the machine goes down: no more passes */
static int last_error;
static unsigned long drained;	/* jiffies */
static DECLARE_WAIT_QUEUE_HEAD(pass_done);
static unsigned long passes;

/* Whom to queue. Any context. */
static DEFINE_SPINLOCK(prdev_lock);
static struct page_reporting_dev_info *device;
static unsigned int arrivals;
static work_func_t stock_work;

static void sample(struct timer_list *timer);
static void check(struct timer_list *timer);
static DEFINE_TIMER(sampler, sample);
static struct timer_list checker;
static bool stopping;
static bool exact;		/* ebb_reporting_taken() is called: no need to sample */
static u64 samples, checks, timers_ns;	/* how often these ran, and for how long */

/* ---- parameters ---- */

static struct ebb_report_config config = {
	.order = EBB_REPORT_ORDER(0),
	.window_min_ms = EBB_REPORT_WINDOW_MIN_MS,
	.window_max_ms = EBB_REPORT_WINDOW_MAX_MS,
	.window_start_ms = EBB_REPORT_WINDOW_START_MS,
	.refault_ns = EBB_REPORT_REFAULT_NS,
};

static void kick(unsigned long delay);

static int accept_config(const struct ebb_report_config *next)
{
	const char *problem = ebb_report_config_problem(next);

	if (problem) {
		pr_warn("%s\n", problem);
		return -EINVAL;
	}
	config = *next;
	reconfigure = true;
	return 0;
}

static int store_number(const char *text, const struct kernel_param *param)
{
	struct ebb_report_config next;
	unsigned int number;
	int err = kstrtouint(text, 0, &number);

	if (err || number == 0)
		return err ? err : -EINVAL;
	mutex_lock(&ebb_mutex);
	next = config;
	*(u32 *)((char *)&next + ((char *)param->arg - (char *)&config)) = number;
	err = accept_config(&next);
	mutex_unlock(&ebb_mutex);
	kick(1);
	return err;
}

static int show_number(char *text, const struct kernel_param *param)
{
	return sysfs_emit(text, "%u\n", *(u32 *)param->arg);
}

static int store_order(const char *text, const struct kernel_param *param)
{
	struct ebb_report_config next;
	unsigned int order;
	int err = kstrtouint(text, 0, &order);

	if (err || order > pageblock_order)
		return err ? err : -EINVAL;
	mutex_lock(&ebb_mutex);
	next = config;
	next.order = EBB_REPORT_ORDER(order);
	err = accept_config(&next);
	mutex_unlock(&ebb_mutex);
	kick(1);
	return err;
}

static int show_order(char *text, const struct kernel_param *param)
{
	return sysfs_emit(text, "%u\n", config.order - EBB_REPORT_ORDER(0));
}

static const struct kernel_param_ops number_ops = { .set = store_number, .get = show_number };
static const struct kernel_param_ops order_ops = { .set = store_order, .get = show_order };

module_param_cb(window_min_ms, &number_ops, &config.window_min_ms, 0644);
MODULE_PARM_DESC(window_min_ms, "Shortest time that free memory is kept, ms (50)");
module_param_cb(window_max_ms, &number_ops, &config.window_max_ms, 0644);
MODULE_PARM_DESC(window_max_ms, "Longest time that free memory is kept, ms (2500)");
module_param_cb(window_start_ms, &number_ops, &config.window_start_ms, 0644);
MODULE_PARM_DESC(window_start_ms, "That time at first and after a rest, ms (300)");
module_param_cb(refault_ns, &number_ops, &config.refault_ns, 0644);
MODULE_PARM_DESC(refault_ns,
		 "Cost of using a reported page again, ns (1000); 1 % of the time may go there");
module_param_cb(order, &order_ops, NULL, 0644);
MODULE_PARM_DESC(order, "Smallest order that is reported (0); 9: whole huge pages only");

/* ---- whom to queue ---- */

/*
 * Run in `delay` jiffies at the latest. From any context, under zone->lock too, where a
 * delay of 0 would wake a task: 1 arms a timer. All passes are on one queue, else two could
 * run at a time; it is one that stops while the guest suspends, as its devices do.
 */
static void kick(unsigned long delay)
{
	unsigned long flags;

	spin_lock_irqsave(&prdev_lock, flags);
	if (device)
		mod_delayed_work(system_freezable_wq, &device->work, delay);
	spin_unlock_irqrestore(&prdev_lock, flags);
}

/* From inside the work: unless somebody queued it meanwhile, who wants it sooner. */
static void queue_next(struct page_reporting_dev_info *prdev, unsigned long delay)
{
	unsigned long flags;

	spin_lock_irqsave(&prdev_lock, flags);
	if (device == prdev)
		queue_delayed_work(system_freezable_wq, &prdev->work, delay);
	spin_unlock_irqrestore(&prdev_lock, flags);
}

/* While anything is unreported, and nobody else tells what is taken of it. */
static void arm_sampler(void)
{
	if (!READ_ONCE(stopping) && !READ_ONCE(exact) && !timer_pending(&sampler))
		mod_timer(&sampler, jiffies + msecs_to_jiffies(SAMPLE_MS));
}

static bool is_here(const struct page_reporting_dev_info *prdev)
{
	return READ_ONCE(device) == prdev;
}

void ebb_reporting_attach(struct page_reporting_dev_info *prdev, work_func_t stock)
{
	unsigned long flags;

	spin_lock_irqsave(&prdev_lock, flags);
	stock_work = stock;
	device = prdev;
	arrivals++;
	spin_unlock_irqrestore(&prdev_lock, flags);
	kick(1);
}

/* Whoever queues its work has interrupts off: the caller's RCU grace period waits for that. */
bool ebb_reporting_leave(struct page_reporting_dev_info *prdev)
{
	return cmpxchg(&device, prdev, NULL) == prdev;
}

void ebb_reporting_left(void)
{
	pr_info("the report device goes: detached\n");
	wake_up_all(&pass_done);
}

/* ---- the engine's port ---- */

/* The resolution is a jiffy, as that of the work that it is for; safe while suspended. */
uint64_t ebb_port_now(void)
{
	return jiffies64_to_nsecs(get_jiffies_64());
}

void ebb_port_wake(void *worker)
{
	kick(1);
}

void ebb_port_relax(void)
{
	cpu_relax();
}

void ebb_port_misuse(const struct ebb_misuse *misuse)
{
	WARN_ONCE(1, "%s\n", misuse->what);
}

/* ---- the engine's device ---- */

/* In the work, without a lock: it may wait for the host. */
static int submit(struct ebb_report_device *self, const struct ebb_range *ranges, unsigned int n)
{
	static struct scatterlist sg[PAGE_REPORTING_CAPACITY];
	struct page_reporting_dev_info *prdev = registered;
	unsigned int i;
	int err;

	/* Do not keep whoever unregisters it, or the end of the machine, until the pass ends. */
	if (!is_here(prdev) || READ_ONCE(releasing) || READ_ONCE(gone))
		return -ENODEV;
	sg_init_table(sg, n);
	for (i = 0; i < n; i++)
		sg_set_page(&sg[i], pfn_to_page(PHYS_PFN(ranges[i].addr)), ranges[i].len, 0);
	err = prdev->report(prdev, sg, n);
	if (!err)
		ebb_report_complete(&engine, 0);
	return err;
}

static const struct ebb_report_device_ops device_ops = { .submit = submit };
static struct ebb_report_device report_device = {
	.ops = &device_ops,
	.capacity = PAGE_REPORTING_CAPACITY,
};

/* ---- zones ---- */

/* For those who hold no lock: a zone that they see is complete. */
static struct ebb_zone *first_zone(void)
{
	return smp_load_acquire(&zones); /* of add_zone() */
}

static struct ebb_zone *find_zone(const struct zone *zone)
{
	struct ebb_zone *ez;

	for (ez = first_zone(); ez; ez = ez->next)
		if (ez->zone == zone)
			return ez;
	return NULL;
}

static int add_zone(struct zone *zone)
{
	struct ebb_zone *ez = ebb_zone_create(zone, config.order - EBB_REPORT_ORDER(0));
	int err;

	if (!ez)
		return -ENOMEM;
	err = ebb_report_add_source(&engine, &ez->source);
	if (err) {
		ebb_zone_destroy(ez);
		return err;
	}
	ez->next = zones;
	smp_store_release(&zones, ez); /* first_zone() */
	return 0;
}

/* All that have memory now. A zone without any has nothing to report, and stays. */
static int sync_zones(void)
{
	int nid, i, err = 0;

	for_each_online_node(nid) {
		for (i = 0; i < MAX_NR_ZONES && !err; i++) {
			struct zone *zone = &NODE_DATA(nid)->node_zones[i];
			struct ebb_zone *ez = find_zone(zone);

			if (ez)
				err = ebb_zone_resize(ez);
			else if (populated_zone(zone))
				err = add_zone(zone);
		}
	}
	return err;
}

/*
 * An engine for these parameters, with the sources of the one before. That has no device,
 * so nobody asks it any more; a free that did so before must have come to its end.
 */
static int init_engine(void)
{
	struct ebb_zone *ez;
	int err;

	synchronize_rcu();
	err = ebb_report_init(&engine, &config);
	for (ez = zones; ez && !err; ez = ez->next) {
		ez->source.report = NULL;
		err = ebb_report_add_source(&engine, &ez->source);
	}
	return err;
}

/* ---- the work ---- */

static void let_go(void)
{
	if (registered && ebb_report_unregister(&engine))
		WARN_ON_ONCE(1);
	registered = NULL;
}

/* Bring the engine to what there is now: device, memory, parameters. */
static int prepare(struct page_reporting_dev_info *prdev)
{
	unsigned int arrival = READ_ONCE(arrivals);
	bool is_new = registered != prdev || registration != arrival;
	int err = 0;

	if (!is_new && !rebuild && !reconfigure)
		return 0;
	let_go();
	if (reconfigure)
		err = init_engine();
	if (!err && (is_new || rebuild))
		err = sync_zones();
	if (!err)
		err = ebb_report_register(&engine, &report_device);
	if (err) {
		if (err != last_error)
			pr_err("cannot report: error %d\n", err);
		last_error = err;
		return err;
	}
	last_error = 0;
	registered = prdev;
	registration = arrival;
	rebuild = false;
	reconfigure = false;
	if (is_new)
		pr_info("attached: free memory is reported by ebb\n");
	return 0;
}

static void drain_caches(void)
{
	struct ebb_zone *ez;

	if (!now_wanted && time_before(jiffies, drained + msecs_to_jiffies(DRAIN_MS)))
		return;
	drained = jiffies;
	for (ez = zones; ez; ez = ez->next)
		ebb_zone_drain(ez, now_wanted);
}

/* To the kernel's own reporting, which begins with a pass. */
static void hand_back(struct page_reporting_dev_info *prdev)
{
	unsigned long flags;

	let_go();
	spin_lock_irqsave(&prdev_lock, flags);
	if (device == prdev) {
		device = NULL;
		atomic_set(&prdev->state, PRDEV_REQUESTED);
		prdev->work.work.func = stock_work;
		queue_delayed_work(system_freezable_wq, &prdev->work, 2 * HZ);
		pr_info("let go: the kernel reports by itself again\n");
	}
	spin_unlock_irqrestore(&prdev_lock, flags);
}

/* Returns jiffies until the next pass; MAX_JIFFY_OFFSET: none is wanted. */
static unsigned long run(struct page_reporting_dev_info *prdev)
{
	u64 due, now;

	if (paused || READ_ONCE(gone))
		return MAX_JIFFY_OFFSET;
	if (prepare(prdev))
		return RETRY_S * HZ;
	drain_caches();
	if (now_wanted)
		ebb_report_now(&engine);
	now_wanted = false;
	due = ebb_report_run(&engine);
	if (due == EBB_NEVER)
		return MAX_JIFFY_OFFSET;
	arm_sampler();
	now = ebb_port_now();
	return due > now ? nsecs_to_jiffies(due - now) + 1 : 1;
}

void ebb_reporting_work(struct work_struct *work)
{
	struct page_reporting_dev_info *prdev =
		container_of(to_delayed_work(work), struct page_reporting_dev_info, work);
	unsigned long delay;

	/* The kernel's own notification finds a request that it need not repeat. */
	atomic_set(&prdev->state, PRDEV_REQUESTED);
	mutex_lock(&ebb_mutex);
	if (releasing) {
		hand_back(prdev);
		delay = MAX_JIFFY_OFFSET;
	} else {
		delay = run(prdev);
	}
	passes++;
	mutex_unlock(&ebb_mutex);
	if (delay != MAX_JIFFY_OFFSET)
		queue_next(prdev, delay);
	wake_up_all(&pass_done);
}

void ebb_reporting_release(void)
{
	mutex_lock(&ebb_mutex);
	WRITE_ONCE(releasing, true);
	mutex_unlock(&ebb_mutex);
	kick(0);
	wait_event(pass_done, !READ_ONCE(device));
}

/* ---- what the allocator tells, and what it does not ---- */

void ebb_reporting_notify(void)
{
	struct ebb_zone *ez, *first = first_zone();
	bool sampled = false;

	for (ez = first; ez; ez = ez->next) {
		struct ebb_zone *other;

		if (!ebb_source_note(&ez->source))
			continue;
		/* What was reported and is in use now shows before more is freed. */
		for (other = first; other && !sampled; other = other->next)
			ebb_zone_sample_unlocked(other);
		sampled = true;
		ebb_source_request(&ez->source);
	}
	if (sampled)
		arm_sampler();
}

void ebb_reporting_taken(const struct zone *zone)
{
	struct ebb_zone *ez = find_zone(zone);

	if (!READ_ONCE(exact))
		WRITE_ONCE(exact, true);
	/* What goes offline is not in use, nor is it until the zones know of that. */
	if (ez && !READ_ONCE(paused) && !READ_ONCE(rebuild))
		ebb_zone_sample_locked(ez);
}

static void sample(struct timer_list *timer)
{
	u64 since = local_clock();
	struct ebb_zone *ez;

	/* What goes offline is not in use, nor is it until the zones know of that. */
	for (ez = first_zone(); ez && !READ_ONCE(paused) && !READ_ONCE(rebuild); ez = ez->next)
		ebb_zone_sample(ez);
	/* A device that left in the middle of a pass leaves the engine waiting. */
	if (READ_ONCE(device) && ebb_report_phase(&engine) != EBB_REPORT_IDLE)
		arm_sampler();
	samples++;
	timers_ns += local_clock() - since;
}

static void check(struct timer_list *timer)
{
	u64 since = local_clock();
	struct ebb_zone *ez;

	for (ez = first_zone(); ez; ez = ez->next)
		if (ebb_zone_is_stale(ez) && ebb_source_note(&ez->source))
			ebb_source_request(&ez->source);
	if (!READ_ONCE(stopping))
		mod_timer(&checker, jiffies + msecs_to_jiffies(READ_ONCE(config.window_max_ms)));
	checks++;
	timers_ns += local_clock() - since;
}

static int memory_changes(struct notifier_block *block, unsigned long action, void *arg)
{
	mutex_lock(&ebb_mutex);
	switch (action) {
	case MEM_GOING_ONLINE:
	case MEM_GOING_OFFLINE:
		paused++;
		break;
	case MEM_CANCEL_ONLINE:
	case MEM_CANCEL_OFFLINE:
	case MEM_ONLINE:
	case MEM_OFFLINE:
		WRITE_ONCE(rebuild, true);
		if (paused)
			paused--;
		break;
	}
	mutex_unlock(&ebb_mutex);
	kick(1);
	return NOTIFY_OK;
}

static struct notifier_block memory_block = { .notifier_call = memory_changes };

/*
 * The machine goes down, perhaps into another kernel (kexec): what is still with the host
 * then might be dropped when it is that kernel's. A pass holds the mutex while it waits for
 * the host, so with the mutex there is no such memory.
 * A host that does not answer keeps the machine no longer than a few seconds.
 */
static int machine_goes(struct notifier_block *block, unsigned long action, void *arg)
{
	unsigned long end = jiffies + GOES_S * HZ;

	WRITE_ONCE(gone, true);
	while (!mutex_trylock(&ebb_mutex)) {
		if (time_after(jiffies, end)) {
			pr_warn("the host does not answer: memory may still be with it\n");
			return NOTIFY_OK;
		}
		msleep(20);
	}
	mutex_unlock(&ebb_mutex);
	return NOTIFY_OK;
}

static struct notifier_block machine_block = { .notifier_call = machine_goes };

/* ---- /proc/ebb_reporting ---- */

#define KIB(frames) ((unsigned long long)(frames) << (PAGE_SHIFT - 10))

/* Where free memory is that the host was not told of. */
struct why {
	u64 free, reported, window, rest, order, cached, low;
	u64 refaulted, lost, hold, scan;
};

static void add_why(struct why *why, struct ebb_zone *ez)
{
	u64 free = zone_page_state(ez->zone, NR_FREE_PAGES);
	u64 large = ebb_zone_free_large(ez), window;
	unsigned int order;

	window = large - min(large, ez->reported);
	why->free += free;
	/* What was used at rest shows here before anybody looked. */
	why->reported += min(large, ez->reported);
	why->window += window;
	why->rest += ez->waiting;
	for (order = 0; order < ez->order && order < pageblock_order; order++)
		why->order += (u64)READ_ONCE(ez->zone->free_area[order].nr_free) << order;
	why->cached += ebb_zone_cached(ez);
	if (ez->watermark)
		why->low += low_wmark_pages(ez->zone);
	why->refaulted += ez->refaulted;
	why->lost += ez->marks_lost;
	why->hold = max(why->hold, ez->longest_hold);
	why->scan += ez->scanned_ns;
}

/* Without the mutex, which a pass holds while it waits for the host. */
static void collect(struct why *why)
{
	struct ebb_zone *ez;

	memset(why, 0, sizeof(*why));
	for (ez = first_zone(); ez; ez = ez->next)
		add_why(why, ez);
}

static void show_numbers(struct seq_file *m, const struct why *why,
			 const struct ebb_report_stats *stats)
{
	const struct {
		const char *name;
		u64 value;
	} rows[] = {
		{ "free_kib", KIB(why->free) },
		{ "reported_large_kib", KIB(why->reported) },
		{ "waiting_window_kib", KIB(why->window) },
		{ "waiting_rest_kib", KIB(why->rest) },
		{ "below_order_kib", KIB(why->order) },
		{ "per_cpu_lists_kib", KIB(why->cached) },
		{ "kept_for_watermark_kib", KIB(why->low) },
		{ "told_kib", KIB(stats->reported_frames) },
		{ "refaulted_kib", KIB(why->refaulted) },
		{ "refaulted_soon_kib", KIB(stats->refaulted_soon) },
		{ "marks_lost_kib", KIB(why->lost) },
		{ "window_ms", div_u64(stats->window_ns, NSEC_PER_MSEC) },
		{ "window_grown", stats->window_grown },
		{ "window_shrunk", stats->window_shrunk },
		{ "passes", stats->passes },
		{ "batches", stats->batches },
		{ "failed_batches", stats->failed_batches },
		{ "longest_hold_us", div_u64(why->hold, NSEC_PER_USEC) },
		{ "scan_ms", div_u64(why->scan, NSEC_PER_MSEC) },
		{ "samples", samples },
		{ "checks", checks },
		{ "timers_us", div_u64(timers_ns, NSEC_PER_USEC) },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rows); i++)
		seq_printf(m, "%s %llu\n", rows[i].name, (unsigned long long)rows[i].value);
}

static int show(struct seq_file *m, void *unused)
{
	struct ebb_report_stats stats;
	struct why why;

	collect(&why);
	ebb_report_get_stats(&engine, &stats);
	seq_printf(m, "state %s\n", !READ_ONCE(device) ? "no-device" : paused ? "paused" :
		   ebb_report_phase(&engine) == EBB_REPORT_IDLE ? "idle" : "waiting");
	show_numbers(m, &why, &stats);
	return 0;
}

static int open(struct inode *inode, struct file *file)
{
	return single_open(file, show, NULL);
}

/* Report all that is free, and wait until that is done. */
static int report_now(void)
{
	struct why why;
	unsigned int i;
	int err;

	for (i = 0; i < NOW_PASSES; i++) {
		unsigned long before;

		mutex_lock(&ebb_mutex);
		before = passes;
		now_wanted = true;
		mutex_unlock(&ebb_mutex);
		kick(0);
		err = wait_event_interruptible(pass_done, !READ_ONCE(device) ||
					       READ_ONCE(passes) - before >= 1);
		if (err)
			return err;
		if (!READ_ONCE(device))
			return -ENODEV;
		if (READ_ONCE(now_wanted))
			return -EBUSY; /* memory is being added or removed */
		collect(&why);
		if (why.window == 0)
			break;
	}
	return 0;
}

static ssize_t write(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	char text[8];
	int err;

	if (size >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, from, size))
		return -EFAULT;
	text[size] = '\0';
	if (!sysfs_streq(text, "now"))
		return -EINVAL;
	err = report_now();
	return err ? err : size;
}

static const struct proc_ops proc_ops = {
	.proc_open = open,
	.proc_read = seq_read,
	.proc_write = write,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
};

/* ---- in and out ---- */

bool ebb_reporting_is_possible(void)
{
#if IS_ENABLED(CONFIG_HYPERV)
	return !hv_is_hyperv_initialized();
#else
	return true;
#endif
}

int ebb_reporting_init(void)
{
	int err;

	BUILD_BUG_ON(PAGE_SHIFT != EBB_FRAME_SHIFT);
	mutex_lock(&ebb_mutex);
	err = init_engine();
	reconfigure = false;
	mutex_unlock(&ebb_mutex);
	if (err)
		return err;
	err = register_memory_notifier(&memory_block);
	if (err)
		return err;
	if (!proc_create("ebb_reporting", 0644, NULL, &proc_ops) && IS_ENABLED(CONFIG_PROC_FS)) {
		unregister_memory_notifier(&memory_block);
		return -ENOMEM;
	}
	register_reboot_notifier(&machine_block);
	timer_setup(&checker, check, TIMER_DEFERRABLE);
	mod_timer(&checker, jiffies + msecs_to_jiffies(config.window_max_ms));
	return 0;
}

static void stop_timer(struct timer_list *timer)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
	del_timer_sync(timer);
#else
	timer_delete_sync(timer);
#endif
}

/* Nobody calls ebb_reporting_notify() any more, and the device is released. */
void ebb_reporting_exit(void)
{
	WRITE_ONCE(stopping, true);
	stop_timer(&sampler);
	stop_timer(&checker);
	unregister_reboot_notifier(&machine_block);
	remove_proc_entry("ebb_reporting", NULL);
	unregister_memory_notifier(&memory_block);
	let_go();
	while (zones) {
		struct ebb_zone *ez = zones;

		zones = ez->next;
		ebb_zone_destroy(ez);
	}
}
