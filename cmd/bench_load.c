/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The synthetic load: bursts that fill most of a memory file with blocks of many orders,
 * touch all of it, free it at random and pause; then a busy stretch, in which blocks come and go;
 * then silence. Memory is really touched and really punched. One thread makes the load, and
 * looks how much is resident as it goes; worker and device have their own.
 */
#include "bench.h"
#include "cmd.h"
#include "engine.h"

#include <ebb_hosted.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#define MIB          ((double)(1 << 20))
#define FILL_PERCENT 70u
#define BUSY_PERCENT 30u
#define SAMPLE_NS    CMD_MS
#define OPS_A_LOOK   64u /* operations between two looks at the clock */

struct block {
    ebb_pfn_t pfn;
    unsigned order;
};

struct load {
    struct ebb_hosted_memory memory;
    struct ebb_hosted_worker worker;
    struct ebb_hosted_device device;
    struct engine engine;
    bool reporting;

    struct block *blocks;
    uint64_t n_blocks, frames_used;
    uint64_t random;
    uint64_t operations, busy_ns;
    uint64_t wrong, page_faults;

    /* Residency, over time. */
    uint64_t last_ns, last_resident, peak, span_ns;
    double resident_ns, live_ns; /* bytes x ns */
};

static uint64_t below(struct load *load, uint64_t n)
{
    load->random = load->random * 6364136223846793005u + 1442695040888963407u;
    return (load->random >> 33) % n;
}

static void nap(uint64_t ns)
{
    const struct timespec time = {.tv_nsec = (long)ns};

    nanosleep(&time, NULL);
}

/* ---- residency ---- */

/* What was resident since the last look counts until now. */
static void look(struct load *load)
{
    uint64_t now = cmd_now_ns();
    double passed = (double)(now - load->last_ns);

    if (now - load->last_ns < SAMPLE_NS)
        return;
    load->resident_ns += (double)load->last_resident * passed;
    load->live_ns += (double)(load->frames_used << EBB_FRAME_SHIFT) * passed;
    load->span_ns += now - load->last_ns;
    load->last_resident = ebb_hosted_resident(&load->memory);
    load->last_ns = now;
    if (load->last_resident > load->peak)
        load->peak = load->last_resident;
}

static void idle(struct load *load, unsigned ms)
{
    uint64_t end = cmd_now_ns() + ms * CMD_MS;

    while (cmd_now_ns() < end) {
        nap(SAMPLE_NS);
        look(load);
    }
}

/* ---- the load ---- */

/* Mostly single frames, and each other order gets as many frames as they. */
static unsigned random_order(struct load *load)
{
    uint64_t r = below(load, 1024);

    return r < 2 ? 9 : r < 16 ? 6 : r < 128 ? 3 : 0;
}

static uint64_t stamp_of(const struct block *block, uint64_t frame)
{
    return ~((block->pfn + frame) * 0x9e3779b97f4a7c15u);
}

static uint64_t *address(const struct load *load, const struct block *block, uint64_t frame)
{
    return ebb_hosted_address(&load->memory, block->pfn + frame);
}

static bool take(struct load *load)
{
    struct block block = {.order = random_order(load)};
    int err;

    while ((err = ebb_alloc(&load->memory.zone, block.order, EBB_MOVABLE, 0, &block.pfn)) ==
           -EBB_EAGAIN)
        nap(CMD_MS / 20);
    load->operations++;
    if (err)
        return false;
    for (uint64_t i = 0; i < (uint64_t)1 << block.order; i++)
        *address(load, &block, i) = stamp_of(&block, i);
    load->blocks[load->n_blocks++] = block;
    load->frames_used += (uint64_t)1 << block.order;
    return true;
}

static void give(struct load *load, uint64_t which)
{
    struct block block = load->blocks[which];

    for (uint64_t i = 0; i < (uint64_t)1 << block.order; i++)
        load->wrong += *address(load, &block, i) != stamp_of(&block, i);
    load->blocks[which] = load->blocks[--load->n_blocks];
    load->frames_used -= (uint64_t)1 << block.order;
    load->wrong += ebb_free(&load->memory.zone, block.pfn, block.order) != 0;
    load->operations++;
}

static void fill(struct load *load, uint64_t frames)
{
    while (load->frames_used < frames && take(load)) {
        if (load->operations % OPS_A_LOOK == 0)
            look(load);
    }
}

static void empty(struct load *load, uint64_t frames)
{
    while (load->frames_used > frames) {
        give(load, below(load, load->n_blocks));
        if (load->operations % OPS_A_LOOK == 0)
            look(load);
    }
}

/* Between a tenth and BUSY_PERCENT, up and down, a fixed number of times. */
static void churn(struct load *load, uint64_t frames, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        fill(load, frames * BUSY_PERCENT / 100);
        empty(load, frames / 10);
    }
}

static uint64_t page_faults(void)
{
    struct rusage usage = {0};

    (void)getrusage(RUSAGE_THREAD, &usage);
    return (uint64_t)usage.ru_minflt;
}

static void play(struct load *load, const struct bench_load_scale *scale)
{
    uint64_t frames = scale->bytes >> EBB_FRAME_SHIFT, start, end = 0;

    load->page_faults = page_faults();
    load->last_ns = cmd_now_ns();
    for (unsigned i = 0; i < scale->bursts; i++) {
        start = cmd_now_ns();
        fill(load, frames * FILL_PERCENT / 100);
        empty(load, 0);
        load->busy_ns += cmd_now_ns() - start;
        idle(load, scale->idle_ms);
    }
    start = cmd_now_ns();
    churn(load, frames, scale->churn_rounds);
    empty(load, 0);
    end = cmd_now_ns();
    load->busy_ns += end - start;
    load->page_faults = page_faults() - load->page_faults;
}

/* ---- until all is reported ---- */

/* Frames in blocks that could be reported and are not. */
static uint64_t reportable_frames(struct load *load)
{
    struct ebb_zone_stats stats;
    uint64_t frames = 0;

    ebb_zone_stats(&load->memory.zone, &stats);
    for (unsigned order = load->memory.zone.pageblock_order; order < EBB_ORDERS; order++) {
        for (unsigned type = 0; type < EBB_ISOLATE; type++)
            frames += (stats.lists[order][type].blocks - stats.lists[order][type].reported)
                      << order;
    }
    return frames + stats.in_flight;
}

/* Returns the ns it took until all was reported; 0: it was not. Samples for as long as the scale
 * says in any case, so that averages are over the same span whoever reports how fast, and
 * waits for the rest without. */
static uint64_t wait_for_all(struct load *load, const struct bench_load_scale *scale)
{
    uint64_t start = cmd_now_ns(), passed = 0, took = 0;
    uint64_t span = scale->span_ms * CMD_MS, limit = scale->patience_ms * CMD_MS;
    bool over = false;

    while (passed < span || (!over && passed < limit)) {
        passed = cmd_now_ns() - start;
        over = !load->reporting || took > 0;
        if (!over && reportable_frames(load) == 0)
            took = passed;
        else if (!over && ebb_report_phase(&load->engine.report) == EBB_REPORT_IDLE)
            over = true; /* it does not want to report the rest */
        nap(SAMPLE_NS);
        if (passed < span)
            look(load);
    }
    return took;
}

/* ---- a run ---- */

static bool start_engine(struct load *load, const struct bench_subject *subject)
{
    struct ebb_settings settings;

    bench_configure(subject, &settings);
    settings.report.worker = &load->worker;
    if (engine_init(&load->engine, &settings, &load->memory.zone) ||
        ebb_hosted_worker_start(&load->worker, &load->engine.report))
        return false;
    if (ebb_hosted_device_create(&load->device, &load->memory, &load->engine.report,
                                 EBB_HOSTED_THREAD)) {
        ebb_hosted_worker_stop(&load->worker);
        return false;
    }
    load->reporting = ebb_report_register(&load->engine.report, &load->device.device) == 0;
    return load->reporting;
}

static void stop_engine(struct load *load)
{
    if (!load->reporting)
        return;
    if (ebb_report_unregister(&load->engine.report))
        cmd_error("the report device is gone");
    ebb_hosted_device_destroy(&load->device);
    ebb_hosted_worker_stop(&load->worker);
}

static uint64_t cpu_ns(clockid_t clock)
{
    struct timespec t = {0};

    (void)clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * CMD_S + (uint64_t)t.tv_nsec;
}

static uint64_t others_cpu_ns(void)
{
    uint64_t own = cpu_ns(CLOCK_THREAD_CPUTIME_ID), all = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);

    return all > own ? all - own : 0;
}

/* Two clocks, not read at one moment: never less than nothing. */
static uint64_t cpu_since(uint64_t before)
{
    uint64_t now = others_cpu_ns();

    return now > before ? now - before : 0;
}

static void note(struct load *load, uint64_t took, uint64_t cpu, struct bench_load *out)
{
    struct ebb_report_stats stats = {0};
    struct ebb_zone_stats zone;

    ebb_zone_stats(&load->memory.zone, &zone);
    if (load->reporting)
        ebb_report_get_stats(&load->engine.report, &stats);
    bench_add(&out->resident_mib, load->resident_ns / (double)load->span_ns / MIB);
    bench_add(&out->live_mib, load->live_ns / (double)load->span_ns / MIB);
    bench_add(&out->peak_mib, (double)load->peak / MIB);
    bench_add(&out->refaulted_mib, (double)(zone.refaulted << EBB_FRAME_SHIFT) / MIB);
    bench_add(&out->page_faults, (double)load->page_faults);
    bench_add(&out->left_mib,
              (double)((zone.managed - zone.allocated - zone.reported) << EBB_FRAME_SHIFT) / MIB);
    bench_add(&out->operations_per_s, (double)load->operations * 1e9 / (double)load->busy_ns);
    bench_add(&out->engine_cpu_ms, (double)cpu / 1e6);
    bench_add(&out->batches, (double)stats.batches);
    if (took > 0)
        bench_add(&out->all_ms, (double)took / 1e6);
    if (load->wrong > 0 || ebb_zone_check(&load->memory.zone, EBB_CHECK_FRAMES, NULL) != 0)
        out->damaged = true;
}

void bench_load_warm_up(const struct bench_load_scale *scale)
{
    void *map = mmap(NULL, scale->bytes, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (map != MAP_FAILED)
        munmap(map, scale->bytes);
}

bool bench_load_run(const struct bench_subject *subject, const struct bench_load_scale *scale,
                    struct bench_load *out)
{
    struct load *load = cmd_realloc(NULL, sizeof(*load));
    uint64_t took, cpu = others_cpu_ns();
    bool ok;

    memset(load, 0, sizeof(*load));
    load->random = 1;
    ok = ebb_hosted_memory_create(&load->memory, scale->bytes, NULL) == 0;
    if (ok) {
        load->blocks = cmd_realloc(NULL, (scale->bytes >> EBB_FRAME_SHIFT) * sizeof(*load->blocks));
        ok = subject->off || start_engine(load, subject);
        if (ok) {
            play(load, scale);
            took = wait_for_all(load, scale);
            note(load, took, cpu_since(cpu), out);
        }
        stop_engine(load);
        engine_release(&load->engine);
        ebb_hosted_memory_destroy(&load->memory);
    }
    if (!ok)
        cmd_error("the load of %s does not start", subject->name);
    free(load->blocks);
    free(load);
    return ok;
}
