/* SPDX-License-Identifier: BSD-2-Clause */
/* One replay of a trace: set up, play record by record, wait for the engine, check. */
#include "cmd.h"
#include "cputime.h"
#include "engine.h"
#include "replay.h"

#include <ebb_hosted.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#define PATIENCE_NS (5 * CMD_S)  /* without any progress, besides the delay */
#define SLACK_NS    (2 * CMD_MS) /* that records may be late */
#define SLICE_NS    (CMD_MS / 2)
#define NAP_NS      (CMD_MS / 10) /* between looks at the engine */

/* A block that the replay holds, or does not. */
struct held {
    ebb_pfn_t pfn;
    uint8_t order;
    bool here;
};

/* Everything at its place. Too large for a stack. */
struct replay {
    const struct trace *trace;
    const struct replay_options *options;
    struct replay_result *result;
    struct ebb_hosted_memory memory;
    struct ebb_hosted_worker worker;
    struct ebb_hosted_device device;
    struct engine engine;
    struct held *blocks; /* by id; behind them the frames in use before the recording */
    uint32_t pinned;     /* of those, how many */
    uint64_t live;       /* bytes, of the trace */
    uint64_t busy_since;
    /* Trace time, and what the clock showed then. */
    uint64_t trace_ns, clock_ns;
    bool at_work; /* the engine was, then */
};

static unsigned n_samples(const struct replay_options *options)
{
    return options->samples ? options->samples : REPLAY_SAMPLES;
}

static bool has_window(const struct ebb_settings *settings)
{
    return settings->history.pacing != EBB_PACING_DELAY;
}

static uint64_t or_default(uint32_t value, uint32_t otherwise)
{
    return value ? value : otherwise;
}

/* The least that there can be. */
static uint64_t shortest_ms(const struct ebb_settings *settings)
{
    return has_window(settings)
               ? or_default(settings->report.window_min_ms, EBB_REPORT_WINDOW_MIN_MS)
               : or_default(settings->history.delay_ms, EBB_HISTORY_DELAY_MS);
}

uint64_t replay_delay_ms(const struct ebb_settings *settings)
{
    uint64_t first = or_default(settings->report.window_start_ms, EBB_REPORT_WINDOW_START_MS);
    uint64_t most = or_default(settings->report.window_max_ms, EBB_REPORT_WINDOW_MAX_MS);

    if (!has_window(settings) || first < shortest_ms(settings))
        return shortest_ms(settings);
    return first < most ? first : most;
}

const char *replay_tracker(const struct ebb_settings *settings)
{
    return ebb_tracker_name(has_window(settings) ? EBB_TRACKER_SORTED
                                                 : ebb_history_tracker(&settings->history));
}

static void sleep_ns(uint64_t ns)
{
    const struct timespec time = {.tv_sec = (time_t)(ns / CMD_S), .tv_nsec = (long)(ns % CMD_S)};

    nanosleep(&time, NULL);
}

/* ---- stamps ---- */

/* Any two frames that were ever allocated have different ones. */
static uint64_t stamp_of(uint32_t id, uint32_t frame)
{
    uint64_t x = ((uint64_t)id << 20 | frame) + 1;

    x *= 0x9e3779b97f4a7c15;
    return x ^ x >> 29;
}

static uint64_t *frame_of(const struct replay *replay, const struct held *block, uint32_t frame)
{
    return ebb_hosted_address(&replay->memory, block->pfn + frame);
}

static void stamp(const struct replay *replay, uint32_t id)
{
    const struct held *block = &replay->blocks[id];

    for (uint32_t i = 0; i < 1u << block->order; i++)
        *frame_of(replay, block, i) = stamp_of(id, i);
}

static void note_fault(const struct replay *replay, uint32_t id, uint32_t frame)
{
    struct replay_result *result = replay->result;
    bool recorded = id < replay->trace->blocks;

    if (result->errors++ > 0)
        return;
    result->fault_id = recorded ? id : id - replay->trace->blocks;
    result->fault_frame = recorded ? frame : REPLAY_PINNED;
}

static void check(const struct replay *replay, uint32_t id)
{
    const struct held *block = &replay->blocks[id];

    for (uint32_t i = 0; i < 1u << block->order; i++) {
        if (*frame_of(replay, block, i) != stamp_of(id, i))
            note_fault(replay, id, i);
    }
    replay->result->checks += (uint64_t)1 << block->order;
}

/* ---- allocating and freeing ---- */

static int try_alloc(struct replay *replay, unsigned order, enum ebb_migratetype type,
                     ebb_pfn_t *pfn)
{
    int err = ebb_alloc(&replay->memory.zone, order, type, 0, pfn);
    uint64_t begin;

    if (err != -EBB_EAGAIN)
        return err;
    begin = cmd_now_ns();
    while (err == -EBB_EAGAIN) { /* it is with the host just now */
        ebb_port_relax();
        err = ebb_alloc(&replay->memory.zone, order, type, 0, pfn);
    }
    replay->result->waits++;
    replay->result->wait_ns += cmd_now_ns() - begin;
    return err;
}

static int take(struct replay *replay, uint32_t id, unsigned order, enum ebb_migratetype type)
{
    struct held *block = &replay->blocks[id];
    int err = try_alloc(replay, order, type, &block->pfn);

    if (err == -EBB_ENOMEM) {
        /* Linux does the same before it gives up. */
        ebb_zone_drain(&replay->memory.zone);
        err = try_alloc(replay, order, type, &block->pfn);
    }
    if (err)
        return err;
    block->order = (uint8_t)order;
    block->here = true;
    stamp(replay, id);
    return 0;
}

static void give(struct replay *replay, uint32_t id)
{
    struct held *block = &replay->blocks[id];

    if (!block->here)
        return; /* there was no memory for it */
    check(replay, id);
    if (ebb_free(&replay->memory.zone, block->pfn, block->order))
        replay->result->refused++;
    block->here = false;
}

static void play_alloc(struct replay *replay, const struct trace_record *record)
{
    static const enum ebb_migratetype types[] = {
        [TRACE_UNMOVABLE] = EBB_UNMOVABLE,
        [TRACE_MOVABLE] = EBB_MOVABLE,
        [TRACE_RECLAIMABLE] = EBB_RECLAIMABLE,
        [TRACE_HIGHATOMIC] = EBB_UNMOVABLE, /* a reserve for such allocations */
    };

    if (take(replay, record->id, record->order, types[record->type]) == 0)
        replay->result->allocs++;
    else
        replay->result->failed++;
}

static void play(struct replay *replay, const struct trace_record *record)
{
    uint64_t bytes = EBB_FRAME_SIZE << record->order;

    if (record->op == TRACE_ALLOC) {
        play_alloc(replay, record);
        replay->live += bytes;
    } else {
        if (record->last)
            give(replay, record->id);
        replay->live -= bytes;
    }
    if (replay->live > replay->result->live_peak)
        replay->result->live_peak = replay->live;
    replay->result->records++;
}

/* ---- time ---- */

static bool is_paced(const struct replay *replay)
{
    return replay->options->speed != REPLAY_SPEED_MAX;
}

/* What is between these two is no work on records. */
static void pause_work(struct replay *replay)
{
    replay->result->busy_ns += cmd_now_ns() - replay->busy_since;
}

static void resume_work(struct replay *replay)
{
    replay->busy_since = cmd_now_ns();
}

/* A pass may be under way while another is asked for already. */
static bool engine_at_work(struct replay *replay)
{
    struct ebb_zone_stats stats;

    if (!replay->options->reporting)
        return false;
    ebb_zone_stats(&replay->memory.zone, &stats);
    return stats.in_flight > 0 || ebb_report_phase(&replay->engine.report) == EBB_REPORT_ACTIVE;
}

/* Trace time goes on for what passed of the clock's since the last call. */
static void advance(struct replay *replay)
{
    uint64_t now = cmd_now_ns(), passed = now - replay->clock_ns;

    replay->trace_ns += replay->at_work ? passed : passed * replay->options->speed;
    replay->clock_ns = now;
    replay->at_work = engine_at_work(replay);
}

/* In slices, so that it is noticed when the engine begins or ends a pass. */
static void sleep_until(struct replay *replay, uint64_t trace_ns)
{
    uint64_t left;

    while (replay->trace_ns < trace_ns) {
        left = trace_ns - replay->trace_ns;
        if (!replay->at_work)
            left = left / replay->options->speed + 1;
        if (replay->options->reporting && left > SLICE_NS)
            left = SLICE_NS;
        sleep_ns(left);
        advance(replay);
    }
}

/* Until trace time is there. If it is further, it stays behind for that. */
static void wait_for(struct replay *replay, uint64_t us)
{
    uint64_t slack = SLACK_NS * replay->options->speed, at = us * 1000;

    if (!is_paced(replay) || at <= replay->trace_ns)
        return;
    pause_work(replay);
    advance(replay);
    if (replay->trace_ns > at + slack)
        replay->trace_ns = at + slack;
    sleep_until(replay, at);
    resume_work(replay);
}

/* ---- watching ---- */

static uint64_t resident(const struct replay *replay)
{
    uint64_t bytes = ebb_hosted_resident(&replay->memory);

    return bytes > replay->result->pinned ? bytes - replay->result->pinned : 0;
}

/* Sample k stands for the k-th of n equal parts of the trace: it is in the middle. */
static uint64_t sample_us(const struct replay *replay, size_t k)
{
    uint64_t n = n_samples(replay->options);

    return (uint64_t)((double)replay->trace->us * (double)(2 * k + 1) / (double)(2 * n));
}

static void sample(struct replay *replay)
{
    struct replay_result *result = replay->result;
    uint64_t us = sample_us(replay, result->n_samples), bytes;

    wait_for(replay, us);
    pause_work(replay);
    bytes = resident(replay);
    if (bytes > result->resident_peak)
        result->resident_peak = bytes;
    result->samples[result->n_samples++] =
        (struct replay_sample){.us = us, .live = replay->live, .resident = bytes};
    if (replay->options->progress)
        replay->options->progress(replay->options->progress_ctx, us);
    resume_work(replay);
}

/* All that are due before this trace time. */
static void sample_until(struct replay *replay, uint64_t us)
{
    while (replay->result->n_samples < n_samples(replay->options) &&
           sample_us(replay, replay->result->n_samples) < us)
        sample(replay);
}

/* Wait until nothing is left to report. False: it does not come to that. */
static bool wait_for_rest(struct replay *replay)
{
    uint64_t delay = replay_delay_ms(&replay->result->scaled) * CMD_MS;
    uint64_t longest =
        or_default(replay->result->scaled.report.window_max_ms, EBB_REPORT_WINDOW_MAX_MS) * CMD_MS;
    uint64_t moved = cmd_now_ns(), before = 0;

    while (ebb_report_phase(&replay->engine.report) != EBB_REPORT_IDLE) {
        struct ebb_report_stats stats;
        uint64_t now = cmd_now_ns();

        ebb_report_get_stats(&replay->engine.report, &stats);
        if (stats.reported_blocks != before)
            moved = now;
        before = stats.reported_blocks;
        /* A single free frame among used ones waits for three of the longest windows. */
        if (now - moved > PATIENCE_NS + 3 * delay + 4 * longest)
            return false;
        sleep_ns(NAP_NS);
    }
    return true;
}

/* A pause of the trace from `from` to `to`, if the engine is to have its due of it. */
static void settle_pause(struct replay *replay, uint64_t from, uint64_t to)
{
    uint64_t rest = from + replay_delay_ms(&replay->options->settings) * 1000;

    if (!replay->options->settle || is_paced(replay) || !replay->options->reporting || to < rest)
        return;
    sample_until(replay, rest);
    pause_work(replay);
    wait_for_rest(replay);
    resume_work(replay);
}

/* ---- playing ---- */

static void play_records(struct replay *replay)
{
    const struct trace *trace = replay->trace;
    uint64_t last = 0;

    for (size_t i = 0; i < trace->n_records; i++) {
        const struct trace_record *record = &trace->records[i];

        if (record->us > last) {
            settle_pause(replay, last, record->us);
            sample_until(replay, record->us);
            wait_for(replay, record->us);
            last = record->us;
        }
        play(replay, record);
    }
    /* Of a trace without any duration: all. */
    sample_until(replay, UINT64_MAX);
}

/* From the first record to the last. */
static void play_trace(struct replay *replay)
{
    struct replay_result *result = replay->result;
    uint64_t start = cmd_now_ns(), due = 0;
    struct rusage before, after;

    getrusage(RUSAGE_THREAD, &before);
    replay->clock_ns = replay->busy_since = start;
    play_records(replay);
    pause_work(replay);
    result->wall_ns = cmd_now_ns() - start;
    if (is_paced(replay))
        due = replay->trace->us * 1000 / replay->options->speed;
    if (is_paced(replay) && result->wall_ns > due)
        result->stretched_ns = result->wall_ns - due;
    getrusage(RUSAGE_THREAD, &after);
    result->cpu_ns = cputime_used(&after) - cputime_used(&before);
    result->faults = (uint64_t)(after.ru_minflt - before.ru_minflt);
    result->resident_end = result->resident_settled = resident(replay);
}

static void subtract(struct ebb_report_stats *stats, const struct ebb_report_stats *before)
{
    stats->passes -= before->passes;
    stats->batches -= before->batches;
    stats->reported_blocks -= before->reported_blocks;
    stats->reported_frames -= before->reported_frames;
    stats->failed_batches -= before->failed_batches;
    stats->stray_completes -= before->stray_completes;
    stats->requests -= before->requests;
}

static void settle(struct replay *replay)
{
    struct replay_result *result = replay->result;
    uint64_t begin = cmd_now_ns();

    result->settled = wait_for_rest(replay);
    result->settle_ns = cmd_now_ns() - begin;
    result->resident_settled = resident(replay);
}

static void read_zone(struct replay *replay)
{
    struct ebb_zone_stats stats;

    ebb_zone_stats(&replay->memory.zone, &stats);
    replay->result->refaulted = stats.refaulted << EBB_FRAME_SHIFT;
    replay->result->unreported = (stats.free - stats.reported) << EBB_FRAME_SHIFT;
}

/* With the engine: what was free before is reported before the trace begins. */
static void play_reporting(struct replay *replay)
{
    struct replay_result *result = replay->result;
    struct ebb_report_stats before;
    struct rusage begin, end;
    uint64_t punches;

    wait_for_rest(replay);
    ebb_report_get_stats(&replay->engine.report, &before);
    punches = __atomic_load_n(&replay->device.punches, __ATOMIC_RELAXED);
    getrusage(RUSAGE_SELF, &begin);
    play_trace(replay);
    getrusage(RUSAGE_SELF, &end);
    /* This thread had nothing else to do meanwhile. */
    result->engine_cpu_ns = cputime_used(&end) - cputime_used(&begin);
    result->engine_cpu_ns -=
        result->engine_cpu_ns < result->cpu_ns ? result->engine_cpu_ns : result->cpu_ns;
    settle(replay);
    ebb_report_get_stats(&replay->engine.report, &result->report);
    subtract(&result->report, &before);
    result->punches = __atomic_load_n(&replay->device.punches, __ATOMIC_RELAXED) - punches;
    read_zone(replay);
}

/* Look at all that is left, and free it. */
static void free_rest(struct replay *replay)
{
    for (uint32_t id = 0; id < replay->trace->blocks + replay->pinned; id++)
        give(replay, id);
}

/* ---- set-up ---- */

/* Each of these undoes what it did if it fails. */
static int start_device(struct replay *replay)
{
    int err = ebb_hosted_device_create(&replay->device, &replay->memory, &replay->engine.report,
                                       EBB_HOSTED_THREAD);

    if (err)
        return err;
    err = ebb_report_register(&replay->engine.report, &replay->device.device);
    if (err)
        ebb_hosted_device_destroy(&replay->device);
    return err;
}

static int start_engine(struct replay *replay)
{
    struct ebb_settings *settings = &replay->result->scaled;
    int err;

    settings->report.worker = &replay->worker;
    err = engine_init(&replay->engine, settings, &replay->memory.zone);
    if (!err)
        err = ebb_hosted_worker_start(&replay->worker, &replay->engine.report);
    if (err)
        return err;
    err = start_device(replay);
    if (err)
        ebb_hosted_worker_stop(&replay->worker);
    return err;
}

static int stop_engine(struct replay *replay)
{
    int err = ebb_report_unregister(&replay->engine.report);

    ebb_hosted_device_destroy(&replay->device);
    ebb_hosted_worker_stop(&replay->worker);
    return err;
}

static int take_pinned(struct replay *replay)
{
    int err = 0;

    for (uint32_t i = 0; i < replay->pinned && !err; i++)
        err = take(replay, replay->trace->blocks + i, 0, EBB_UNMOVABLE);
    replay->result->pinned = (uint64_t)replay->pinned << EBB_FRAME_SHIFT;
    return err;
}

static int play_in_memory(struct replay *replay)
{
    int err = take_pinned(replay);

    if (err)
        return err;
    if (!replay->options->reporting) {
        play_trace(replay);
        free_rest(replay);
        return 0;
    }
    err = start_engine(replay);
    if (err)
        return err;
    play_reporting(replay);
    free_rest(replay);
    return stop_engine(replay);
}

static int play_all(struct replay *replay)
{
    uint64_t bytes = replay->options->memory;
    int err;

    if (bytes == 0)
        bytes = replay->trace->ram << EBB_FRAME_SHIFT;
    err = ebb_hosted_memory_create(&replay->memory, bytes, NULL);
    if (err)
        return err;
    err = play_in_memory(replay);
    /* What it found is in result->violation. */
    if (!err && ebb_zone_check(&replay->memory.zone, EBB_CHECK_FRAMES, &replay->result->violation))
        replay->result->refused += replay->result->violation.what == NULL;
    engine_release(&replay->engine);
    ebb_hosted_memory_destroy(&replay->memory);
    return err;
}

/* ---- what follows from it ---- */

static void average_samples(struct replay_result *result)
{
    double sum = 0, steps = 0, n = (double)result->n_samples;

    for (size_t i = 0; i < result->n_samples; i++) {
        double own = (double)result->samples[i].resident;
        double step = i > 0 ? own - (double)result->samples[i - 1].resident : 0;

        sum += own;
        steps += step * step;
    }
    result->resident_mean = sum / n;
    /* Even samples of a curve: what they miss is what happens between neighbours. */
    result->resident_error = n > 1 ? sqrt(steps / (2 * (n - 1)) / n) : 0;
}

static void sum_up(struct replay *replay)
{
    struct replay_result *result = replay->result;
    double us = (double)replay->trace->us, frame = (double)EBB_FRAME_SIZE;

    average_samples(result);
    result->resident_byte_us = result->resident_mean * us;
    result->live_byte_us = replay->trace->frame_us * frame;
    result->live_mean = us > 0 ? result->live_byte_us / us : (double)replay->live;
    if (result->busy_ns > 0)
        result->records_per_s = (double)result->records * 1e9 / (double)result->busy_ns;
}

/* ---- from outside ---- */

static uint32_t scaled(uint32_t time, uint32_t normal, unsigned speed)
{
    uint32_t result = ((time ? time : normal) + speed / 2) / speed;

    return result ? result : 1;
}

bool replay_scale(struct ebb_settings *settings, unsigned speed, unsigned *most)
{
    struct ebb_report_config *report = &settings->report;
    struct ebb_history_config *history = &settings->history;

    /* An engine that runs inside the frees has no times. */
    if (speed == REPLAY_SPEED_MAX || history->execution == EBB_EXECUTION_INLINE)
        return true;
    if (shortest_ms(settings) < speed) {
        if (most)
            *most = (unsigned)shortest_ms(settings);
        return false;
    }
    if (has_window(settings)) {
        report->window_min_ms = scaled(report->window_min_ms, EBB_REPORT_WINDOW_MIN_MS, speed);
        report->window_max_ms = scaled(report->window_max_ms, EBB_REPORT_WINDOW_MAX_MS, speed);
        report->window_start_ms =
            scaled(report->window_start_ms, EBB_REPORT_WINDOW_START_MS, speed);
        /* A fault takes its own time, which is so much more of the trace's. A window that learns
         * from that would not be the window of this load. */
        report->refault_ns = scaled(report->refault_ns, EBB_REPORT_REFAULT_NS, speed);
    } else {
        history->delay_ms = scaled(history->delay_ms, EBB_HISTORY_DELAY_MS, speed);
    }
    report->backoff_ms = scaled(report->backoff_ms, EBB_REPORT_BACKOFF_MS, speed);
    return true;
}

static uint32_t pinned_frames(const struct trace *trace)
{
    return (uint32_t)(trace->ram - trace->free);
}

uint64_t replay_memory_min(const struct trace *trace)
{
    return ((uint64_t)pinned_frames(trace) + 1) << EBB_FRAME_SHIFT;
}

static bool is_possible(const struct trace *trace, const struct replay_options *options)
{
    /* What cannot be at all, before it is divided by anything. */
    return (!options->reporting || !ebb_history_problem(&options->settings)) &&
           (options->memory == 0 || options->memory >= replay_memory_min(trace));
}

int replay_run(const struct trace *trace, const struct replay_options *options,
               struct replay_result *result)
{
    struct replay *replay;
    size_t blocks = (size_t)trace->blocks + pinned_frames(trace);
    int err;

    *result = (struct replay_result){.scaled = options->settings};
    if (!is_possible(trace, options) ||
        (options->reporting && !replay_scale(&result->scaled, options->speed, NULL)))
        return -EINVAL;
    result->samples = cmd_realloc(NULL, n_samples(options) * sizeof(*result->samples));
    replay = cmd_realloc(NULL, sizeof(*replay));
    memset(replay, 0, sizeof(*replay));
    replay->trace = trace;
    replay->options = options;
    replay->result = result;
    replay->pinned = pinned_frames(trace);
    replay->blocks = cmd_realloc(NULL, (blocks + 1) * sizeof(*replay->blocks));
    memset(replay->blocks, 0, (blocks + 1) * sizeof(*replay->blocks));
    err = play_all(replay);
    if (!err)
        sum_up(replay);
    else
        replay_result_release(result);
    free(replay->blocks);
    free(replay);
    return err;
}

void replay_warm_up(const struct trace *trace)
{
    uint64_t frames = trace->peak_frames + pinned_frames(trace);
    size_t bytes = (size_t)(frames << EBB_FRAME_SHIFT);
    /* If it cannot be had, the replay will tell. */
    void *map =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (map != MAP_FAILED)
        munmap(map, bytes);
}

void replay_result_release(struct replay_result *result)
{
    free(result->samples);
    result->samples = NULL;
    result->n_samples = 0;
}

bool replay_sound(const struct replay_result *result)
{
    return result->errors == 0 && result->refused == 0 && !result->violation.what;
}
