/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The allocator's paths, on a zone of 1 GiB whose frames do not exist: nothing but
 * metadata is touched, through the hosted port as it is.
 */
#include "bench.h"
#include "cmd.h"
#include "engine.h"

#include <ebb_hosted.h>

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define FRAMES ((uint64_t)1 << (30 - EBB_FRAME_SHIFT))
/* More than a cache holds: frees at random start with a full one. */
#define FULL_CACHE 256u

const char *const bench_path_names[BENCH_PATHS] = {"pair0", "pair1",  "alloc0", "free0",
                                                   "pair9", "alloc9", "free9"};
const char *const bench_path_texts[BENCH_PATHS] = {
    "order 0, cached: allocate and free",
    "order 1, split and merge: allocate and free",
    "order 0, many: allocate",
    "order 0, many, at random: free",
    "order 9: allocate and free",
    "order 9, many (reported): allocate",
    "order 9, many (unreported): free",
};
const char *const bench_mode_names[BENCH_MODES] = {"off", "idle", "busy"};

struct rig {
    struct ebb_zone zone;
    void *metadata;
    size_t bytes;
    ebb_pfn_t *pfns;
    struct engine engine;
    struct ebb_report_device device;
    bool reporting;
    bool keep;    /* the device keeps a batch */
    bool holding; /* and has one */
    pthread_t thread;
    bool threaded;
    bool stop; /* atomic */
};

/* ---- the engine ---- */

static int submit(struct ebb_report_device *device, const struct ebb_range *ranges, unsigned n)
{
    struct rig *rig = (struct rig *)((char *)device - offsetof(struct rig, device));

    (void)ranges;
    (void)n;
    if (rig->keep)
        rig->holding = true;
    else
        ebb_report_complete(&rig->engine.report, 0);
    return 0;
}

static void complete(struct rig *rig)
{
    if (rig->holding) {
        rig->holding = false;
        ebb_report_complete(&rig->engine.report, 0);
    }
}

/* Until nothing is unreported and the engine rests. */
static void rest(struct rig *rig)
{
    rig->keep = false;
    complete(rig);
    do {
        ebb_report_now(&rig->engine.report);
        (void)ebb_report_run(&rig->engine.report);
    } while (ebb_report_phase(&rig->engine.report) != EBB_REPORT_IDLE);
}

static void *run_passes(void *arg)
{
    struct rig *rig = arg;

    while (!__atomic_load_n(&rig->stop, __ATOMIC_RELAXED)) {
        ebb_report_now(&rig->engine.report);
        (void)ebb_report_run(&rig->engine.report);
    }
    return NULL;
}

static void must(bool condition)
{
    if (condition)
        return;
    cmd_error("bench: the allocator refused what it must not refuse");
    exit(CMD_HOST);
}

static void stop_passes(struct rig *rig)
{
    if (!rig->threaded)
        return;
    __atomic_store_n(&rig->stop, true, __ATOMIC_RELAXED);
    pthread_join(rig->thread, NULL);
    rig->threaded = false;
}

static ebb_pfn_t take(struct rig *rig, unsigned order)
{
    ebb_pfn_t pfn = 0;
    int err;

    while ((err = ebb_alloc(&rig->zone, order, EBB_MOVABLE, 0, &pfn)) == -EBB_EAGAIN)
        sched_yield();
    must(err == 0);
    return pfn;
}

static void give(struct rig *rig, ebb_pfn_t pfn, unsigned order)
{
    must(ebb_free(&rig->zone, pfn, order) == 0);
}

/* A batch that stays with the device, so that a pass is under way. */
static void hold_batch(struct rig *rig)
{
    unsigned blocks = 2;

    rest(rig);
    for (unsigned i = 0; i < blocks; i++)
        rig->pfns[i] = take(rig, 9);
    rig->keep = true;
    for (unsigned i = 0; i < blocks; i++)
        give(rig, rig->pfns[i], 9);
    ebb_report_now(&rig->engine.report);
    (void)ebb_report_run(&rig->engine.report);
}

/* The same free lists in all modes: nothing in the cache, all merged. */
static void settle(struct rig *rig, enum bench_mode mode, bool alone)
{
    ebb_zone_drain(&rig->zone);
    if (mode == BENCH_IDLE)
        rest(rig);
    else if (mode == BENCH_BUSY && alone)
        hold_batch(rig);
}

/* ---- set-up ---- */

static bool start(struct rig *rig, const struct bench_subject *subject)
{
    static const struct ebb_report_device_ops ops = {.submit = submit};
    struct ebb_settings settings;

    bench_configure(subject, &settings);
    rig->device.ops = &ops;
    rig->device.capacity = EBB_REPORT_CAPACITY_LIMIT;
    rig->reporting = true;
    return engine_init(&rig->engine, &settings, &rig->zone) == 0 &&
           ebb_report_register(&rig->engine.report, &rig->device) == 0;
}

static void destroy(struct rig *rig)
{
    stop_passes(rig);
    if (rig->reporting) {
        rig->keep = false;
        complete(rig);
        must(ebb_report_unregister(&rig->engine.report) == 0);
        engine_release(&rig->engine);
    }
    munmap(rig->metadata, rig->bytes);
    free(rig->pfns);
    free(rig);
}

static struct rig *create(const struct bench_subject *subject, enum bench_mode mode, bool alone)
{
    const struct ebb_zone_config config = {
        .frames = FRAMES, .pcp_blocks = EBB_PCP_NONE}; /* pair9 is about the lists */
    struct rig *rig = cmd_realloc(NULL, sizeof(*rig));

    memset(rig, 0, sizeof(*rig));
    rig->bytes = ebb_zone_metadata_size(&config);
    rig->metadata = mmap(NULL, rig->bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (rig->metadata == MAP_FAILED)
        cmd_no_memory();
    rig->pfns = cmd_realloc(NULL, FRAMES * sizeof(*rig->pfns));
    must(ebb_zone_init(&rig->zone, &config, rig->metadata) == 0 &&
         ebb_zone_add(&rig->zone, 0, FRAMES) == 0);
    if (mode != BENCH_OFF)
        must(start(rig, subject));
    if (mode == BENCH_BUSY && !alone) {
        rest(rig);
        must(pthread_create(&rig->thread, NULL, run_passes, rig) == 0);
        rig->threaded = true;
    }
    return rig;
}

/* ---- the paths ---- */

static void pairs(struct rig *rig, unsigned order, unsigned n, enum bench_path path,
                  struct bench_meter *meter)
{
    give(rig, take(rig, order), order);
    meter->begin(meter);
    for (unsigned i = 0; i < n; i++) {
        ebb_pfn_t pfn = 0;

        /* No more than that: the loop is part of what is counted. */
        while (ebb_alloc(&rig->zone, order, EBB_MOVABLE, 0, &pfn) != 0)
            continue;
        if (ebb_free(&rig->zone, pfn, order) != 0)
            abort();
    }
    meter->end(meter, path, n);
}

static void shuffle(ebb_pfn_t *pfns, unsigned n)
{
    uint64_t seed = 1;

    for (unsigned i = n - 1; i > 0; i--) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        unsigned j = (unsigned)((seed >> 33) % (i + 1));
        ebb_pfn_t swap = pfns[i];

        pfns[i] = pfns[j];
        pfns[j] = swap;
    }
}

static void take_many(struct rig *rig, unsigned order, unsigned n, enum bench_path path,
                      struct bench_meter *meter)
{
    meter->begin(meter);
    for (unsigned i = 0; i < n; i++) {
        while (ebb_alloc(&rig->zone, order, EBB_MOVABLE, 0, &rig->pfns[i]) != 0)
            continue;
    }
    meter->end(meter, path, n);
}

static void give_many(struct rig *rig, const ebb_pfn_t *pfns, unsigned order, unsigned n,
                      enum bench_path path, struct bench_meter *meter)
{
    meter->begin(meter);
    for (unsigned i = 0; i < n; i++) {
        if (ebb_free(&rig->zone, pfns[i], order) != 0)
            abort();
    }
    meter->end(meter, path, n);
}

static void bulk0(struct rig *rig, unsigned n, struct bench_meter *meter)
{
    take_many(rig, 0, n, BENCH_ALLOC0, meter);
    for (unsigned i = 0; i < FULL_CACHE; i++)
        rig->pfns[n + i] = take(rig, 0);
    shuffle(rig->pfns, n + FULL_CACHE);
    for (unsigned i = 0; i < FULL_CACHE; i++)
        give(rig, rig->pfns[n + i], 0);
    give_many(rig, rig->pfns, 0, n, BENCH_FREE0, meter);
    ebb_zone_drain(&rig->zone);
}

bool bench_paths_run(const struct bench_subject *subject, enum bench_mode mode, bool alone,
                     const struct bench_scale *scale, struct bench_meter *meter)
{
    struct rig *rig = create(subject, mode, alone);

    settle(rig, mode, alone);
    if (scale->pairs0 > 0)
        pairs(rig, 0, scale->pairs0, BENCH_PAIR0, meter);
    settle(rig, mode, alone);
    if (scale->pairs1 > 0)
        pairs(rig, 1, scale->pairs1, BENCH_PAIR1, meter);
    settle(rig, mode, alone);
    if (scale->bulk0 > 0)
        bulk0(rig, scale->bulk0, meter);
    settle(rig, mode, alone);
    if (scale->pairs9 > 0)
        pairs(rig, 9, scale->pairs9, BENCH_PAIR9, meter);
    for (unsigned i = 0; i < scale->rounds9; i++) {
        settle(rig, mode, alone);
        take_many(rig, 9, scale->bulk9, BENCH_ALLOC9, meter);
        give_many(rig, rig->pfns, 9, scale->bulk9, BENCH_FREE9, meter);
    }
    destroy(rig);
    return true;
}

/* ---- in ns ---- */

struct timer {
    struct bench_meter meter;
    uint64_t start;
    uint64_t ns[BENCH_PATHS];
    uint64_t operations[BENCH_PATHS];
};

static void timer_begin(struct bench_meter *meter)
{
    ((struct timer *)meter)->start = cmd_now_ns();
}

static void timer_end(struct bench_meter *meter, enum bench_path path, unsigned operations)
{
    struct timer *timer = (struct timer *)meter;

    timer->ns[path] += cmd_now_ns() - timer->start;
    timer->operations[path] += operations;
}

bool bench_paths_time(const struct bench_subject *subject, const struct bench_scale *scale,
                      struct bench_paths *paths)
{
    for (unsigned mode = 0; mode < BENCH_MODES; mode++) {
        struct timer timer = {.meter = {timer_begin, timer_end}};

        if (!bench_paths_run(subject, (enum bench_mode)mode, false, scale, &timer.meter))
            return false;
        for (unsigned i = 0; i < BENCH_PATHS; i++) {
            if (timer.operations[i] > 0)
                bench_add(&paths->ns[mode][i], (double)timer.ns[i] / (double)timer.operations[i]);
        }
    }
    return true;
}
