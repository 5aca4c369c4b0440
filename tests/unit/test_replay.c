/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Replays, on real memory with real threads: nothing here depends on how fast they
 * are, since a replay that settles waits for the engine in the trace's pauses.
 */
#include "cmd.h"
#include "replay.h"
#include "trace_rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB        ((uint64_t)1 << 20)
#define RAM        16384u /* frames: 64 MiB */
#define PINNED     1024u
#define HUGE_ORDER 9u
#define BLOCKS     16u /* of that order: 32 MiB */
#define PAUSE_US   1000000u

static struct rig rig;
static struct trace trace;
static struct replay_result result;

/* ---- what cmd/main.c has, for the program ---- */

uint64_t cmd_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * CMD_S + (uint64_t)now.tv_nsec;
}

void *cmd_realloc(void *old, uint64_t bytes)
{
    void *memory = realloc(old, (size_t)bytes);

    if (!memory)
        abort();
    return memory;
}

/* ---- */

static int setup(void **state)
{
    (void)state;
    rig_begin(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    trace_release(&trace);
    replay_result_release(&result);
    rig_release(&rig);
    return 0;
}

static void parse(void)
{
    char error[TRACE_ERROR] = "";

    rig_end(&rig, RAM, RAM - PINNED);
    if (trace_parse(&trace, rig.bytes, rig.len, error) != TRACE_OK)
        fail_msg("%s", error);
}

/* Half of the memory is taken, held, freed, and left alone; twice. */
static void make_waves(void)
{
    uint32_t id = 0;

    for (unsigned wave = 0; wave < 2; wave++) {
        for (uint32_t i = 0; i < BLOCKS; i++)
            rig_alloc(&rig, 1000, id + i, HUGE_ORDER);
        rig_alloc(&rig, 1000, id + BLOCKS, 0);
        for (uint32_t i = 0; i < BLOCKS; i++)
            rig_free(&rig, i ? 0 : PAUSE_US / 20, id + i, HUGE_ORDER);
        rig_free(&rig, 0, id + BLOCKS, 0);
        /* Something for the pause to end with. */
        rig_alloc(&rig, PAUSE_US, id + BLOCKS + 1, 0);
        rig_free(&rig, 0, id + BLOCKS + 1, 0);
        id += BLOCKS + 2;
    }
    parse();
}

static void run(const struct replay_options *options)
{
    replay_result_release(&result);
    assert_int_equal(replay_run(&trace, options, &result), 0);
    assert_true(replay_sound(&result));
    assert_int_equal(result.errors, 0);
    assert_int_equal(result.records, trace.n_records);
    assert_int_equal(result.pinned, (uint64_t)PINNED << 12);
    assert_true(result.busy_ns <= result.wall_ns);
    if (result.failed > 0)
        return;
    assert_int_equal(result.allocs, trace.blocks);
    assert_int_equal(result.checks, trace.frames + PINNED);
    assert_int_equal(result.live_peak, trace.peak_frames << 12);
    /* The floor is one. */
    for (size_t i = 0; i < result.n_samples; i++)
        assert_true(result.samples[i].resident >= result.samples[i].live);
}

static void check_waves(double ceiling)
{
    uint64_t wave = (uint64_t)BLOCKS << (HUGE_ORDER + 12);
    size_t quiet = 0;

    /* What the trace takes was reported: before it began, and in the first pause. */
    assert_true(result.refaulted >= 2 * wave);
    assert_true(result.report.reported_frames << 12 >= 2 * wave);
    assert_true(result.punches > 0);
    assert_int_equal(result.report.failed_batches, 0);
    assert_true(result.settled);
    assert_true(result.resident_mean < ceiling * 0.5);
    assert_true(result.resident_settled <= 4 * MIB);
    /* In a pause that is long enough nothing but the pageblock of a cache stays. */
    for (size_t i = 0; i < result.n_samples; i++)
        quiet += result.samples[i].live == 0 && result.samples[i].resident <= 4 * MIB;
    assert_true(quiet >= result.n_samples / 2);
}

/* With each tracker, in a worker and inside the frees. */
static void test_waves(void **state)
{
    struct replay_options options = {.settle = true, .samples = 400};
    double ceiling;

    (void)state;
    make_waves();
    run(&options);
    assert_int_equal(result.n_samples, 400);
    ceiling = result.resident_mean;
    assert_true(ceiling > result.live_mean * 5);
    assert_int_equal(result.resident_end, result.resident_peak);
    assert_int_equal(result.refaulted, 0);
    options.reporting = true;
    for (unsigned tracker = EBB_TRACKER_DEFAULT; tracker < EBB_TRACKERS; tracker++) {
        for (unsigned how = EBB_EXECUTION_WORKER; how <= EBB_EXECUTION_INLINE; how++) {
            options.settings.history = (struct ebb_history_config){
                .tracker = (uint8_t)tracker, .execution = (uint8_t)how, .pacing = EBB_PACING_DELAY};
            print_message("tracker %s, execution %u\n", ebb_tracker_name(tracker), how);
            run(&options);
            check_waves(ceiling);
        }
    }
}

/* Trace time is never faster than it is said to be. */
static void test_paced(void **state)
{
    struct replay_options options = {.speed = 50, .reporting = true};

    (void)state;
    make_waves();
    run(&options);
    assert_int_equal(result.n_samples, REPLAY_SAMPLES);
    assert_int_equal(result.scaled.report.window_min_ms, 1);
    assert_int_equal(result.scaled.report.window_max_ms, 50);
    assert_int_equal(result.scaled.report.window_start_ms, 6);
    assert_int_equal(result.scaled.history.delay_ms, 0);
    assert_true(result.wall_ns >= trace.us * 1000 / options.speed);
    assert_int_equal(result.stretched_ns, result.wall_ns - trace.us * 1000 / options.speed);
    assert_true(result.settled);
}

static void test_scale(void **state)
{
    struct ebb_settings config = {.history.pacing = EBB_PACING_DELAY};
    unsigned most = 0;

    (void)state;
    assert_true(replay_scale(&config, REPLAY_SPEED_MAX, &most));
    assert_int_equal(config.history.delay_ms, 0);
    assert_true(replay_scale(&config, 20, &most));
    assert_int_equal(config.history.delay_ms, 5);
    assert_int_equal(config.report.backoff_ms, 50);
    config = (struct ebb_settings){.report.backoff_ms = 1,
                                   .history = {.pacing = EBB_PACING_DELAY, .delay_ms = 2000}};
    assert_true(replay_scale(&config, 2000, &most));
    assert_int_equal(config.history.delay_ms, 1);
    assert_int_equal(config.report.backoff_ms, 1);
    assert_int_equal(config.report.refault_ns, 0);
    config = (struct ebb_settings){.history.pacing = EBB_PACING_DELAY};
    assert_false(replay_scale(&config, 101, &most));
    assert_int_equal(most, 100);
    assert_int_equal(config.history.delay_ms, 0);
    config = (struct ebb_settings){0};
    assert_false(replay_scale(&config, 51, &most));
    assert_int_equal(most, 50);
    assert_true(replay_scale(&config, 50, &most));
    assert_int_equal(config.report.window_min_ms, 1);
    assert_int_equal(config.report.window_max_ms, 50);
    assert_int_equal(config.report.window_start_ms, 6);
    assert_int_equal(replay_delay_ms(&config), 6);
    assert_int_equal(config.report.refault_ns, 20);
    assert_int_equal(config.history.delay_ms, 0);
    config = (struct ebb_settings){0};
    config.history.pacing = EBB_PACING_DELAY;
    config.history.execution = EBB_EXECUTION_INLINE; /* which has no delay */
    assert_true(replay_scale(&config, 101, NULL));
    assert_int_equal(config.history.delay_ms, 0);
}

static void refused(const struct replay_options *options)
{
    assert_int_equal(replay_run(&trace, options, &result), -EINVAL);
    assert_null(result.samples);
}

static void test_refused(void **state)
{
    struct replay_options options = {.reporting = true, .speed = 101};

    (void)state;
    make_waves();
    refused(&options);
    options = (struct replay_options){.reporting = true, .settings.history.tracker = EBB_TRACKERS};
    refused(&options);
    options = (struct replay_options){.memory = replay_memory_min(&trace) - 4096};
    refused(&options);
    options = (struct replay_options){.memory = replay_memory_min(&trace) + 1};
    refused(&options);
}

/* What there is no memory for is left out, and so is its free. */
static void test_little_memory(void **state)
{
    struct replay_options options = {.reporting = true, .settle = true};

    (void)state;
    make_waves();
    options.memory = ((uint64_t)PINNED << 12) + 16 * MIB;
    run(&options);
    assert_true(result.failed > 0 && result.allocs > 0);
    assert_int_equal(result.failed + result.allocs, trace.blocks);
    assert_true(result.resident_peak <= 16 * MIB);
    options.memory = replay_memory_min(&trace);
    run(&options);
    assert_int_equal(result.allocs, 4); /* the single frames */
}

/* A block stays until its last part is freed; the trace's own live memory does not. */
static void test_parts(void **state)
{
    struct replay_options options = {.reporting = true, .settle = true, .samples = 100};

    (void)state;
    rig_alloc(&rig, 0, 0, HUGE_ORDER);
    rig_part(&rig, PAUSE_US, 0, HUGE_ORDER - 1, 0, false);
    rig_part(&rig, PAUSE_US, 0, HUGE_ORDER - 1, 1u << (HUGE_ORDER - 1), true);
    rig_alloc(&rig, PAUSE_US, 1, 0);
    parse();
    run(&options);
    assert_int_equal(result.samples[10].live, 2 * MIB);
    assert_int_equal(result.samples[50].live, MIB);
    assert_int_equal(result.samples[50].resident, 2 * MIB);
    assert_int_equal(result.samples[90].live, 0);
    assert_int_equal(result.samples[90].resident, 0);
}

/* All at one moment: averages are what there was in the end. */
static void test_no_time(void **state)
{
    struct replay_options options = {.speed = 20};

    (void)state;
    rig_alloc(&rig, 0, 0, HUGE_ORDER);
    parse();
    run(&options);
    assert_true(result.live_mean == (double)(2 * MIB));
    assert_true(result.resident_mean == (double)(2 * MIB));
    assert_true(result.resident_error == 0);
}

/* ---- damage ---- */

/* What a host does that was told wrong: drop what is in use. */
static void drop_all(void *ctx, uint64_t us)
{
    char path[64], name[64];
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    struct stat st;
    ssize_t len;
    int fd;

    (void)us;
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        snprintf(path, sizeof(path), "/proc/self/fd/%.10s", entry->d_name);
        len = readlink(path, name, sizeof(name) - 1);
        if (len < 0)
            continue;
        name[len] = '\0';
        fd = atoi(entry->d_name);
        if (!strstr(name, "memfd:ebb") || fstat(fd, &st) != 0)
            continue;
        assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, st.st_size),
                         0);
        ++*(unsigned *)ctx;
    }
    closedir(dir);
}

static void test_damage(void **state)
{
    unsigned dropped = 0;
    struct replay_options options = {
        .samples = 1, .progress = drop_all, .progress_ctx = &dropped}; /* in the middle */

    (void)state;
    rig_alloc(&rig, 0, 0, 1);
    rig_alloc(&rig, 10, 1, 0);
    rig_free(&rig, 0, 0, 1);
    parse();
    assert_int_equal(replay_run(&trace, &options, &result), 0);
    assert_int_equal(dropped, 1);
    assert_false(replay_sound(&result));
    /* The block of two frames, and those in use before; not what came later. */
    assert_int_equal(result.errors, 2 + PINNED);
    assert_int_equal(result.fault_id, 0);
    assert_int_equal(result.fault_frame, 0);
    assert_int_equal(result.refused, 0);
}

static void test_damage_before(void **state)
{
    unsigned dropped = 0;
    struct replay_options options = {
        .samples = 1, .progress = drop_all, .progress_ctx = &dropped, .reporting = true};

    (void)state;
    rig_alloc(&rig, 10, 0, 0);
    parse();
    assert_int_equal(replay_run(&trace, &options, &result), 0);
    assert_int_equal(dropped, 1);
    assert_false(replay_sound(&result));
    assert_int_equal(result.errors, PINNED);
    assert_int_equal(result.fault_frame, REPLAY_PINNED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_waves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_paced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_scale, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_little_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_before, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
