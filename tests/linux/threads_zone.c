/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * linux/zone.c and linux/scan.c with real threads: some allocate and free, one runs the engine, one
 * is the timers. For the thread sanitizer, mostly. Time is a counter, which the engine's thread
 * moves on.
 */
#include "model.h"

#include "../../linux/ebb_reporting.h"

#include "prop.h"

#include <linux/sched/clock.h>

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#define BLOCKS    16
#define BASE      (8 * MAX_ORDER_FRAMES)
#define LOW       1000
#define USERS     2
#define HELD_MOST 200
#define MS        UINT64_C(1000000)
#define REST_MS   600000

static struct ebb_report report;
static struct ebb_zone *ez;
static uint64_t stamps[BLOCKS * MAX_ORDER_FRAMES];
static uint64_t now = 1000 * MS;
static unsigned users; /* that are not done yet */

/* ---- the port ---- */

void ebb_port_lock(struct ebb_lock *lock)
{
    while (__atomic_exchange_n(&lock->word, 1, __ATOMIC_ACQUIRE))
        sched_yield();
}

void ebb_port_unlock(struct ebb_lock *lock)
{
    __atomic_store_n(&lock->word, 0, __ATOMIC_RELEASE);
}

unsigned ebb_port_cpu(void)
{
    return 0;
}

uint64_t ebb_port_now(void)
{
    return __atomic_load_n(&now, __ATOMIC_RELAXED);
}

u64 local_clock(void)
{
    return ebb_port_now();
}

/* The engine's thread runs it all the time. */
void ebb_port_wake(void *worker)
{
    (void)worker;
}

void ebb_port_relax(void)
{
    sched_yield();
}

void ebb_port_misuse(const struct ebb_misuse *misuse)
{
    model_fail("%s", misuse->what);
}

_Noreturn void ebb_port_panic(const char *why)
{
    model_fail("%s", why);
}

/* ---- the device ---- */

static int submit(struct ebb_report_device *device, const struct ebb_range *ranges, unsigned n)
{
    static unsigned batches;

    (void)device;
    for (unsigned i = 0; i < n; i++) {
        const unsigned long pfn = ranges[i].addr >> EBB_FRAME_SHIFT;

        for (unsigned long j = 0; j < ranges[i].len >> EBB_FRAME_SHIFT; j++) {
            MODEL_CHECK(model_frame(pfn + j)->owner == HELD);
            stamps[pfn + j - BASE] = 0x5c5c5c5c;
        }
    }
    sched_yield();
    if (++batches % 16 == 0)
        return -EBB_EBUSY;
    for (unsigned i = 0; i < n; i++) {
        for (unsigned long j = 0; j < ranges[i].len >> EBB_FRAME_SHIFT; j++)
            model_frame((ranges[i].addr >> EBB_FRAME_SHIFT) + j)->told = true;
    }
    ebb_report_complete(&report, 0);
    return 0;
}

static const struct ebb_report_device_ops device_ops = {.submit = submit};
static struct ebb_report_device device = {.ops = &device_ops, .capacity = EBB_REPORT_CAPACITY};

/* Under zone->lock. */
static void notify(void)
{
    if (!ebb_source_note(&ez->source))
        return;
    ebb_zone_sample_unlocked(ez);
    ebb_source_request(&ez->source);
}

/* ---- threads ---- */

static bool is_busy(void)
{
    return __atomic_load_n(&users, __ATOMIC_ACQUIRE) > 0;
}

struct held {
    unsigned long pfn;
    unsigned order;
};

static void release(struct held block, unsigned cpu)
{
    for (unsigned long i = 0; i < 1UL << block.order; i++)
        MODEL_CHECK(stamps[block.pfn + i - BASE] == ~(block.pfn + i));
    model_free(block.pfn, block.order, cpu);
}

static bool acquire(struct held *block, unsigned type, unsigned cpu)
{
    if (!model_alloc(block->order, type, cpu, &block->pfn))
        return false;
    for (unsigned long i = 0; i < 1UL << block->order; i++)
        stamps[block->pfn + i - BASE] = ~(block->pfn + i);
    return true;
}

static void *use(void *arg)
{
    const unsigned cpu = (unsigned)(uintptr_t)arg;
    const uint64_t ops = prop_ops(80000);
    uint64_t random = cpu + 1;
    struct held held[HELD_MOST];
    unsigned n = 0;

    for (uint64_t i = 0; i < ops; i++) {
        const unsigned at = (unsigned)prop_below(&random, HELD_MOST);

        if (at < n) {
            release(held[at], cpu);
            held[at] = held[--n];
        } else {
            const unsigned odd = (unsigned)prop_below(&random, 8);

            held[n].order = (unsigned)prop_below(&random, odd ? 4 : NR_PAGE_ORDERS);
            n += acquire(&held[n], (unsigned)prop_below(&random, MIGRATE_PCPTYPES), cpu);
        }
        if (i % 4096 == 0)
            ebb_drain_zone(&model.zone);
    }
    while (n > 0)
        release(held[--n], cpu);
    __atomic_fetch_sub(&users, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void *run_timers(void *arg)
{
    while (is_busy()) {
        ebb_zone_sample(ez);
        if (ebb_zone_is_stale(ez) && ebb_source_note(&ez->source))
            ebb_source_request(&ez->source);
        (void)ebb_zone_room(ez);
        sched_yield();
    }
    return arg;
}

static void move_on(uint64_t ms)
{
    __atomic_fetch_add(&now, ms * MS, __ATOMIC_RELAXED);
}

/* As after memory came or went. */
static void begin_anew(void)
{
    MODEL_CHECK(ebb_report_unregister(&report) == 0);
    MODEL_CHECK(ebb_zone_resize(ez) == 0);
    MODEL_CHECK(ebb_report_register(&report, &device) == 0);
}

static void run_engine(void)
{
    for (unsigned n = 0; is_busy(); n++) {
        move_on(1);
        if (n % 64 == 0)
            ebb_zone_drain(ez, n % 256 == 0);
        if (n % 128 == 0)
            ebb_report_now(&report);
        if (n % 64 == 63)
            begin_anew();
        (void)ebb_report_run(&report);
        sched_yield();
    }
}

/* ---- the end ---- */

static void rest(void)
{
    unsigned ms = 0;

    while (ebb_report_run(&report) != EBB_NEVER || ebb_zone_is_stale(ez)) {
        if (ebb_zone_is_stale(ez) && ebb_source_note(&ez->source))
            ebb_source_request(&ez->source);
        ebb_zone_sample(ez);
        if (ms % 64 == 0)
            ebb_zone_drain(ez, false);
        move_on(8);
        ms += 8;
        MODEL_CHECK(ms < REST_MS);
    }
}

static void check(void)
{
    struct truth truth;

    rest();
    ebb_zone_drain(ez, true);
    ebb_report_now(&report);
    rest();
    truth = model_check();
    for (unsigned order = 0; order < NR_PAGE_ORDERS; order++)
        MODEL_CHECK(truth.untold[order] == 0);
    MODEL_CHECK(truth.free == model.config.frames && truth.cached == 0);
    MODEL_CHECK(truth.unmarked == 0 && truth.reported == ez->reported);
    MODEL_CHECK(model.held == 0);
}

int main(void)
{
    const struct ebb_report_config report_config = {.order = EBB_REPORT_ORDER(0)};
    const struct model_config config = {
        .base = BASE,
        .frames = BLOCKS * MAX_ORDER_FRAMES,
        .watermark_min = LOW / 2,
        .watermark_low = LOW,
    };
    pthread_t threads[USERS + 1];

    model_create(&config);
    ez = ebb_zone_create(&model.zone, 0);
    MODEL_CHECK(ez && ebb_report_init(&report, &report_config) == 0);
    MODEL_CHECK(ebb_report_add_source(&report, &ez->source) == 0);
    MODEL_CHECK(ebb_report_register(&report, &device) == 0);
    model.notify = notify;
    users = USERS;
    MODEL_CHECK(pthread_create(&threads[USERS], NULL, run_timers, NULL) == 0);
    for (uintptr_t i = 0; i < USERS; i++)
        MODEL_CHECK(pthread_create(&threads[i], NULL, use, (void *)i) == 0);
    run_engine();
    for (unsigned i = 0; i <= USERS; i++)
        pthread_join(threads[i], NULL);
    check();
    MODEL_CHECK(ebb_report_unregister(&report) == 0);
    ebb_zone_destroy(ez);
    model_destroy();
    return 0;
}
