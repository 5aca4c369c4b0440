/* SPDX-License-Identifier: BSD-2-Clause */
/* What the workloads of `ebb bench alloc` run on: a zone without memory, threads on CPUs of their
 * own, and a clock that knows when a thread was kept from its work. */
#include "bench_alloc.h"
#include "cmd.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define HUGE_PAGE ((uint64_t)2 << 20)
/* Until all is reported, at most. */
#define REST_NS (2 * CMD_S)
/* Spins before the CPU is given to somebody else. */
#define SPINS 10000u

void alloc_must(bool condition, const char *what)
{
    if (condition)
        return;
    cmd_error("bench alloc: %s", what);
    exit(CMD_HOST);
}

/* ---- memory ---- */

/* As a kernel has its metadata and data: in huge pages, if it can be had. */
static void *map_huge(uint64_t bytes)
{
    uint64_t all = bytes + HUGE_PAGE;
    uint8_t *map = mmap(NULL, (size_t)all, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint64_t before;

    if (map == MAP_FAILED)
        cmd_no_memory();
    before = -(uint64_t)(uintptr_t)map % HUGE_PAGE;
    if (before > 0)
        munmap(map, (size_t)before);
    if (before < HUGE_PAGE)
        munmap(map + before + bytes, (size_t)(HUGE_PAGE - before));
    (void)madvise(map + before, (size_t)bytes, MADV_HUGEPAGE);
    memset(map + before, 0, (size_t)bytes);
    return map + before;
}

static uint64_t round_up(uint64_t bytes)
{
    return (bytes + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
}

/* Has this process any? All that it has mapped so are of this file. */
static bool has_huge_pages(void)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "re");
    unsigned long kib = 0;
    char line[128];

    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "AnonHugePages: %lu", &kib) == 1)
            break;
    }
    if (file)
        fclose(file);
    return kib > 0;
}

/* ---- CPUs ---- */

/* The CPUs of this one's core, as the kernel lists them. */
static void core_of(unsigned cpu, char *list, size_t size)
{
    char *path = cmd_format("/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "re");

    if (!file || !fgets(list, (int)size, file))
        snprintf(list, size, "%u", cpu);
    if (file)
        fclose(file);
    free(path);
}

/* On cores of their own if possible, else on any CPUs. */
static void choose_cpus(struct alloc_rig *rig)
{
    char first[64], core[64];
    bool apart = false;
    cpu_set_t set;

    CPU_ZERO(&set);
    alloc_must(sched_getaffinity(0, sizeof(set), &set) == 0, "the CPUs of this process are hidden");
    for (unsigned cpu = 0; cpu < CPU_SETSIZE && !apart; cpu++) {
        if (!CPU_ISSET(cpu, &set))
            continue;
        core_of(cpu, core, sizeof(core));
        if (rig->available == 0)
            memcpy(first, core, sizeof(first));
        apart = rig->available > 0 && strcmp(first, core) != 0;
        if (rig->available < ALLOC_THREADS)
            rig->cpus[rig->available++] = cpu;
        else if (apart)
            rig->cpus[ALLOC_THREADS - 1] = cpu;
    }
}

static void pin(unsigned cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    alloc_must(sched_setaffinity(0, sizeof(set), &set) == 0, "a thread cannot be given a CPU");
}

/* ---- threads ---- */

static void relax(unsigned *spins)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
    if (++*spins % SPINS == 0)
        sched_yield();
}

static void meet(struct alloc_rig *rig)
{
    unsigned meeting = __atomic_load_n(&rig->meeting, __ATOMIC_ACQUIRE), spins = 0;

    if (__atomic_add_fetch(&rig->met, 1, __ATOMIC_ACQ_REL) == rig->threads) {
        __atomic_store_n(&rig->met, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&rig->meeting, meeting + 1, __ATOMIC_RELEASE);
        return;
    }
    while (__atomic_load_n(&rig->meeting, __ATOMIC_ACQUIRE) == meeting)
        relax(&spins);
}

static void *work(void *arg)
{
    struct alloc_worker *worker = arg;
    struct alloc_rig *rig = worker->rig;

    pin(rig->cpus[worker->id]);
    pthread_mutex_lock(&rig->mutex);
    while (!rig->stop) {
        if (worker->job == rig->job || worker->id >= rig->taking_part) {
            pthread_cond_wait(&rig->wake, &rig->mutex);
            continue;
        }
        worker->job = rig->job;
        pthread_mutex_unlock(&rig->mutex);
        rig->run(worker);
        pthread_mutex_lock(&rig->mutex);
        if (--rig->busy == 0)
            pthread_cond_signal(&rig->done);
    }
    pthread_mutex_unlock(&rig->mutex);
    return NULL;
}

void alloc_rig_run(struct alloc_rig *rig, void (*run)(struct alloc_worker *worker))
{
    pthread_mutex_lock(&rig->mutex);
    rig->run = run;
    rig->busy = rig->taking_part = rig->threads;
    rig->job++;
    pthread_cond_broadcast(&rig->wake);
    while (rig->busy > 0)
        pthread_cond_wait(&rig->done, &rig->mutex);
    pthread_mutex_unlock(&rig->mutex);
}

/* ---- the clock ---- */

static uint64_t cpu_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * CMD_S + (uint64_t)t.tv_nsec;
}

void alloc_begin(struct alloc_worker *worker)
{
    meet(worker->rig);
    worker->cpu_ns = cpu_ns();
    worker->wall_ns = cmd_now_ns();
}

void alloc_end(struct alloc_worker *worker, enum alloc_measure measure, uint64_t operations)
{
    struct alloc_meter *meter = &worker->meters[measure];

    meter->wall_ns += cmd_now_ns() - worker->wall_ns;
    meter->cpu_ns += cpu_ns() - worker->cpu_ns;
    meter->operations += operations;
}

/* ---- the zone ---- */

static struct ebb_zone_config zone_config(uint64_t frames, unsigned caches)
{
    return (struct ebb_zone_config){.frames = frames, .cpus = (uint16_t)caches};
}

uint64_t alloc_metadata_bytes(uint64_t frames, unsigned caches)
{
    const struct ebb_zone_config config = zone_config(frames, caches);

    return ebb_zone_metadata_size(&config);
}

void alloc_make_zone(struct ebb_zone *zone, uint64_t frames, unsigned caches, void *metadata)
{
    const struct ebb_zone_config config = zone_config(frames, caches);

    alloc_must(ebb_zone_init(zone, &config, metadata) == 0 && ebb_zone_add(zone, 0, frames) == 0,
               "a zone cannot be made");
}

static int submit(struct ebb_report_device *device, const struct ebb_range *ranges, unsigned n)
{
    struct alloc_rig *rig =
        (struct alloc_rig *)((char *)device - offsetof(struct alloc_rig, device));

    (void)ranges;
    (void)n;
    ebb_report_complete(&rig->report, 0);
    return 0;
}

/* Until everything is reported and the engine rests. */
static void rest(struct alloc_rig *rig)
{
    uint64_t start = cmd_now_ns();

    do {
        ebb_report_now(&rig->report);
        (void)ebb_report_run(&rig->report);
    } while (ebb_report_phase(&rig->report) != EBB_REPORT_IDLE && cmd_now_ns() - start < REST_NS);
}

/* No worker: passes run in rest() alone. */
static void register_engine(struct alloc_rig *rig)
{
    static const struct ebb_report_device_ops ops = {.submit = submit};
    const struct ebb_report_config config = {0};

    memset(&rig->report, 0, sizeof(rig->report));
    rig->device = (struct ebb_report_device){.ops = &ops, .capacity = EBB_REPORT_CAPACITY_LIMIT};
    alloc_must(ebb_report_init(&rig->report, &config) == 0 &&
                   ebb_report_add_zone(&rig->report, &rig->zone) == 0 &&
                   ebb_report_register(&rig->report, &rig->device) == 0,
               "the engine does not start");
    rig->reporting = true;
    rest(rig);
}

static bool all_reported(struct alloc_rig *rig)
{
    struct ebb_zone_stats stats;

    ebb_zone_stats(&rig->zone, &stats);
    return stats.reported == stats.free;
}

bool alloc_rig_reset(struct alloc_rig *rig, uint64_t frames, unsigned threads, enum alloc_mode mode)
{
    rig->frames = frames;
    rig->threads = threads;
    memset(&rig->zone, 0, sizeof(rig->zone));
    memset(rig->metadata, 0, (size_t)alloc_metadata_bytes(frames, rig->caches[threads]));
    alloc_make_zone(&rig->zone, frames, rig->caches[threads], rig->metadata);
    for (unsigned i = 0; i < ALLOC_THREADS; i++) {
        struct alloc_worker *worker = &rig->workers[i];

        memset(worker->meters, 0, sizeof(worker->meters));
        worker->n_pfns = worker->n_blocks = worker->block_frames = 0;
        worker->random = i + 1;
    }
    if (mode == ALLOC_OFF)
        return true;
    register_engine(rig);
    return all_reported(rig);
}

void alloc_rig_finish(struct alloc_rig *rig)
{
    struct ebb_violation violation = {.what = ""};
    struct ebb_zone_stats stats;

    if (rig->reporting)
        alloc_must(ebb_report_unregister(&rig->report) == 0, "the engine does not stop");
    rig->reporting = false;
    ebb_zone_drain(&rig->zone);
    ebb_zone_stats(&rig->zone, &stats);
    alloc_must(stats.free == rig->frames, "frames are missing after all were freed");
    alloc_must(ebb_zone_check(&rig->zone, EBB_CHECK_COUNTERS, &violation) == 0, violation.what);
}

/* ---- begin and end ---- */

static void learn_cache(struct alloc_worker *worker)
{
    /* Numbers are given out in the order of the first call. */
    worker->random = ebb_port_cpu();
}

/* As few caches as give each thread its own. */
static void choose_caches(struct alloc_rig *rig)
{
    uint64_t a = rig->workers[0].random, b = rig->workers[1].random;
    unsigned caches = 2;

    rig->caches[1] = 1;
    while (caches < EBB_CPU_LIMIT && a % caches == b % caches)
        caches++;
    rig->caches[2] = caches;
}

static void start(struct alloc_rig *rig)
{
    for (unsigned i = 0; i < rig->available; i++) {
        struct alloc_worker *worker = &rig->workers[i];

        worker->rig = rig;
        worker->id = i;
        worker->pfns = map_huge(round_up(rig->most * sizeof(*worker->pfns)));
        /* Of d: half of the frames, all of order 0, and one more. */
        worker->blocks = map_huge(round_up((rig->most / 2 + 1) * sizeof(*worker->blocks)));
        alloc_must(pthread_create(&worker->thread, NULL, work, worker) == 0,
                   "a thread cannot be started");
    }
    for (rig->threads = 1; rig->threads <= rig->available; rig->threads++)
        alloc_rig_run(rig, learn_cache);
    choose_caches(rig);
}

struct alloc_rig *alloc_rig_create(uint64_t frames, const struct alloc_scale *scale)
{
    struct alloc_rig *rig = aligned_alloc(128, sizeof(*rig));

    if (!rig)
        cmd_no_memory();
    memset(rig, 0, sizeof(*rig));
    rig->scale = *scale;
    pthread_mutex_init(&rig->mutex, NULL);
    pthread_cond_init(&rig->wake, NULL);
    pthread_cond_init(&rig->done, NULL);
    rig->most = frames;
    choose_cpus(rig);
    start(rig);
    rig->metadata_bytes = round_up(alloc_metadata_bytes(frames, rig->caches[ALLOC_THREADS]));
    rig->metadata = map_huge(rig->metadata_bytes);
    rig->huge_pages = has_huge_pages();
    return rig;
}

void alloc_rig_destroy(struct alloc_rig *rig)
{
    pthread_mutex_lock(&rig->mutex);
    rig->stop = true;
    pthread_cond_broadcast(&rig->wake);
    pthread_mutex_unlock(&rig->mutex);
    for (unsigned i = 0; i < rig->available; i++) {
        struct alloc_worker *worker = &rig->workers[i];

        pthread_join(worker->thread, NULL);
        munmap(worker->pfns, (size_t)round_up(rig->most * sizeof(*worker->pfns)));
        munmap(worker->blocks, (size_t)round_up((rig->most / 2 + 1) * sizeof(*worker->blocks)));
    }
    munmap(rig->metadata, (size_t)rig->metadata_bytes);
    free(rig);
}
