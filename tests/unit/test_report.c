/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine's configuration: what is refused and with which words, and fields set by
 * name. What the engine does is in tests/conformance.
 */
#include "report_rig.h"

#include <stdlib.h>

/* Of either kind of settings. R: one of the engine's, H: one of src/history with pacing=delay. */
#define R(...)             .report = {__VA_ARGS__}
#define H(...)             .history = {.pacing = EBB_PACING_DELAY, __VA_ARGS__}
#define WITHOUT_DELAY(...) .history = {__VA_ARGS__}

/* F15 and what contradicts itself: a reason is given, and init says no. */
static void test_f15_impossible_settings_are_refused(void **state)
{
    static const struct {
        struct ebb_settings settings;
        const char *word; /* in the reason */
    } bad[] = {
        {{R(.capacity = EBB_REPORT_CAPACITY_LIMIT + 1)}, "capacity"},
        {{R(.order = EBB_REPORT_ORDER(EBB_ORDER_LIMIT) + 1)}, "order"},
        {{R(.backoff_ms = 60001)}, "backoff_ms"},
        {{R(.window_min_ms = 3600001, .window_max_ms = 3600001)}, "window_min_ms"},
        {{R(.window_max_ms = 3600001)}, "window_max_ms"},
        {{R(.window_start_ms = 3600001)}, "window_start_ms"},
        {{R(.window_min_ms = 2501)}, "window_min_ms"},
        {{R(.window_max_ms = 49)}, "window_min_ms"},
        {{R(.window_min_ms = 10, .window_max_ms = 9)}, "window_min_ms"},
        {{R(.refault_ns = 1000001)}, "refault_ns"},
        {{H(.delay_ms = 3600001)}, "delay_ms"},
        {{H(.budget = 1025)}, "budget"},
        {{H(.tracker = EBB_TRACKERS)}, "number"},
        {{H(.split = EBB_SPLIT_CLEAR + 1)}, "number"},
        {{H(.merge = EBB_MERGE_NEVER + 1)}, "number"},
        {{H(.move = EBB_MOVE_FOLLOW + 1)}, "number"},
        {{H(.direction = EBB_DIRECTION_DESCENDING + 1)}, "number"},
        {{H(.execution = EBB_EXECUTION_INLINE + 1)}, "number"},
        {{WITHOUT_DELAY(.pacing = EBB_PACING_DELAY + 1)}, "number"},
        {{H(.move = EBB_MOVE_FOLLOW)}, "dividers"},
        {{H(.move = EBB_MOVE_FOLLOW, .tracker = EBB_TRACKER_ROTATION)}, "dividers"},
        {{H(.move = EBB_MOVE_FOLLOW, .tracker = EBB_TRACKER_BITMAP)}, "dividers"},
        {{H(.direction = EBB_DIRECTION_DESCENDING, .tracker = EBB_TRACKER_BITMAP)}, "direction"},
        {{H(.execution = EBB_EXECUTION_INLINE, .budget = 2)}, "budget"},
        {{H(.execution = EBB_EXECUTION_INLINE, .delay_ms = 1)}, "delay_ms"},
        {{H(.execution = EBB_EXECUTION_INLINE), R(.backoff_ms = 1)}, "back off"},
        /* Nothing is changed silently: with surplus pacing, named or not, the words to use. */
        {{WITHOUT_DELAY(.delay_ms = 100)}, "window_min_ms and window_max_ms"},
        {{WITHOUT_DELAY(.pacing = EBB_PACING_SURPLUS, .delay_ms = 100)}, "pacing=delay"},
        {{WITHOUT_DELAY(.budget = 1)}, "pacing=delay"},
        {{WITHOUT_DELAY(.threshold = 1)}, "pacing=delay"},
        {{WITHOUT_DELAY(.tracker = EBB_TRACKER_SORTED)}, "pacing=delay"},
        {{WITHOUT_DELAY(.direction = EBB_DIRECTION_ASCENDING)}, "pacing=delay"},
        {{WITHOUT_DELAY(.execution = EBB_EXECUTION_INLINE)}, "pacing=delay"},
        {{WITHOUT_DELAY(.execution = EBB_EXECUTION_WORKER)}, "pacing=delay"},
        {{WITHOUT_DELAY(.split = EBB_SPLIT_INHERIT)}, "pacing=delay"},
        {{WITHOUT_DELAY(.merge = EBB_MERGE_NEVER)}, "pacing=delay"},
        {{WITHOUT_DELAY(.move = EBB_MOVE_DEMOTE)}, "pacing=delay"},
        {{H(.delay_ms = 100), R(.window_max_ms = 500)}, "window_max_ms"},
        {{H(.delay_ms = 100), R(.window_min_ms = 50)}, "window_min_ms"},
        {{H(.delay_ms = 100), R(.window_start_ms = 50)}, "window_start_ms"},
        {{H(.delay_ms = 100), R(.refault_ns = 1000)}, "refault_ns"},
    };
    struct ebb_report *report = calloc(1, sizeof(*report));
    struct ebb_history *history = calloc(1, sizeof(*history));

    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *problem = ebb_history_problem(&bad[i].settings);

        if (!problem || !strstr(problem, bad[i].word))
            fail_msg("case %u: %s", i, problem ? problem : "no problem");
        assert_int_equal(ebb_history_init(history, report, &bad[i].settings), -EBB_EINVAL);
        if (ebb_report_config_problem(&bad[i].settings.report))
            assert_int_equal(ebb_report_init(report, &bad[i].settings.report), -EBB_EINVAL);
    }
    free(history);
    free(report);
}

static void test_what_is_possible_is_possible(void **state)
{
    static const struct ebb_settings good[] = {
        {R(0)},
        {R(.capacity = EBB_REPORT_CAPACITY_LIMIT), H(.delay_ms = 3600000, .budget = 1024)},
        {R(.backoff_ms = 1)},
        {R(.backoff_ms = 60000)},
        {R(.order = EBB_REPORT_ORDER(0)), H(.threshold = EBB_REPORT_TWICE_CAPACITY)},
        {H(.execution = EBB_EXECUTION_INLINE, .budget = 1, .threshold = 32)},
        {H(.move = EBB_MOVE_FOLLOW, .tracker = EBB_TRACKER_MEMBRANE)},
        {H(.move = EBB_MOVE_FOLLOW, .tracker = EBB_TRACKER_BOUNDARY)},
        {H(.move = EBB_MOVE_FOLLOW, .tracker = EBB_TRACKER_SORTED)},
        {H(.move = EBB_MOVE_DEMOTE, .tracker = EBB_TRACKER_BITMAP, .split = EBB_SPLIT_CLEAR)},
        {H(.direction = EBB_DIRECTION_DESCENDING, .merge = EBB_MERGE_NEVER)},
        {H(.tracker = EBB_TRACKER_SORTED, .execution = EBB_EXECUTION_INLINE)},
        {H(.tracker = EBB_TRACKER_SORTED, .budget = 16, .threshold = 32, .delay_ms = 2000)},
        {WITHOUT_DELAY(.pacing = EBB_PACING_SURPLUS), R(.window_min_ms = 1, .window_max_ms = 1)},
        {R(.window_min_ms = 3600000, .window_max_ms = 3600000)},
        {R(.refault_ns = 1)},
        {R(.refault_ns = 1000000, .window_min_ms = 100)},
    };
    struct ebb_report *report = calloc(1, sizeof(*report));
    struct ebb_history *history = calloc(1, sizeof(*history));

    (void)state;
    for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        const bool surplus = good[i].history.pacing != EBB_PACING_DELAY;
        struct ebb_report_stats stats;

        assert_null(ebb_history_problem(&good[i]));
        assert_int_equal(ebb_history_init(history, report, &good[i]), 0);
        ebb_report_get_stats(report, &stats);
        assert_int_equal(stats.window_ns > 0, surplus);
    }
    free(history);
    free(report);
}

static void test_defaults(void **state)
{
    static const struct ebb_settings settings = {H(0)};
    struct ebb_report *report = calloc(1, sizeof(*report));
    struct ebb_history *history = calloc(1, sizeof(*history));
    struct ebb_report_stats stats;

    (void)state;
    assert_int_equal(ebb_report_init(report, &(struct ebb_report_config){0}), 0);
    ebb_report_get_stats(report, &stats);
    assert_int_equal(stats.window_ns, EBB_REPORT_WINDOW_START_MS * MS);
    assert_int_equal(report->config.capacity, EBB_REPORT_CAPACITY);
    assert_int_equal(ebb_history_init(history, report, &settings), 0);
    assert_int_equal(history->config.tracker, EBB_TRACKER_ROTATION);
    assert_int_equal(history->config.delay_ms, EBB_HISTORY_DELAY_MS);
    assert_int_equal(history->config.budget, 1);
    assert_int_equal(history->config.threshold, 1);
    free(history);
    free(report);
}

static void test_fields_by_name(void **state)
{
    struct ebb_settings config = {0};
    const char *allowed = NULL;
    static const char *const pairs[][2] = {
        {"tracker", "boundary"}, {"split", "clear"},          {"merge", "never"},
        {"move", "follow"},      {"direction", "descending"}, {"execution", "inline"},
        {"delay_ms", "250"},     {"capacity", "7"},           {"order", "0"},
        {"budget", "16"},        {"threshold", "2x"},         {"backoff_ms", "5"},
        {"pacing", "surplus"},   {"window_min_ms", "1"},      {"window_max_ms", "3600000"},
        {"refault_ns", "4000"},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        assert_int_equal(ebb_settings_set(&config, pairs[i][0], pairs[i][1], &allowed), 0);
    assert_int_equal(config.history.tracker, EBB_TRACKER_BOUNDARY);
    assert_int_equal(config.history.split, EBB_SPLIT_CLEAR);
    assert_int_equal(config.history.merge, EBB_MERGE_NEVER);
    assert_int_equal(config.history.move, EBB_MOVE_FOLLOW);
    assert_int_equal(config.history.direction, EBB_DIRECTION_DESCENDING);
    assert_int_equal(config.history.execution, EBB_EXECUTION_INLINE);
    assert_int_equal(config.history.delay_ms, 250);
    assert_int_equal(config.report.capacity, 7);
    assert_int_equal(config.report.order, EBB_REPORT_ORDER(0));
    assert_int_equal(config.history.budget, 16);
    assert_int_equal(config.history.threshold, EBB_REPORT_TWICE_CAPACITY);
    assert_int_equal(config.report.backoff_ms, 5);
    assert_int_equal(config.history.pacing, EBB_PACING_SURPLUS);
    assert_int_equal(config.report.window_min_ms, 1);
    assert_int_equal(config.report.window_max_ms, 3600000);
    assert_int_equal(config.report.refault_ns, 4000);
    assert_int_equal(ebb_settings_set(&config, "pacing", "delay", &allowed), 0);
    assert_int_equal(config.history.pacing, EBB_PACING_DELAY);
    assert_int_equal(ebb_settings_set(&config, "tracker", "sorted", &allowed), 0);
    assert_int_equal(config.history.tracker, EBB_TRACKER_SORTED);
    assert_int_equal(ebb_settings_set(&config, "threshold", "32", &allowed), 0);
    assert_int_equal(config.history.threshold, 32);
}

static void test_names_and_values_that_are_none(void **state)
{
    static const char *const values[][2] = {
        {"tracker", "default"},
        {"tracker", ""},
        {"tracker", "Rotation"},
        {"capacity", "0"},
        {"capacity", "513"},
        {"capacity", "3x"},
        {"capacity", "-1"},
        {"order", "x"},
        {"execution", "thread"},
        {"threshold", "3x"},
        {"threshold", "0"},
        {"budget", "1025"},
        {"budget", "99999999999999999999999"},
        {"pacing", "default"},
        {"pacing", "none"},
        {"window_min_ms", "0"},
        {"window_min_ms", "3600001"},
        {"window_max_ms", "2.5"},
        {"refault_ns", "0"},
        {"refault_ns", "1000001"},
    };
    struct ebb_settings config = {0}, before = config;
    const char *allowed = NULL;

    (void)state;
    assert_int_equal(ebb_settings_set(&config, "colour", "1", &allowed), -EBB_ENOENT);
    assert_int_equal(ebb_settings_set(&config, "worker", "1", &allowed), -EBB_ENOENT);
    assert_int_equal(ebb_settings_set(&config, "", "1", &allowed), -EBB_ENOENT);
    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        allowed = NULL;
        if (ebb_settings_set(&config, values[i][0], values[i][1], &allowed) != -EBB_EINVAL)
            fail_msg("%s=%s is accepted", values[i][0], values[i][1]);
        assert_non_null(allowed);
    }
    assert_memory_equal(&config, &before, sizeof(config));
}

static void test_names_of_trackers(void **state)
{
    (void)state;
    assert_string_equal(ebb_tracker_name(EBB_TRACKER_DEFAULT), "rotation");
    assert_string_equal(ebb_tracker_name(EBB_TRACKER_ROTATION), "rotation");
    assert_string_equal(ebb_tracker_name(EBB_TRACKER_MEMBRANE), "membrane");
    assert_string_equal(ebb_tracker_name(EBB_TRACKER_BOUNDARY), "boundary");
    assert_string_equal(ebb_tracker_name(EBB_TRACKER_BITMAP), "bitmap");
    assert_string_equal(ebb_tracker_name(EBB_TRACKER_SORTED), "sorted");
}

/* ---- a source that says that there is more, and never brings a block ---- */

static uint64_t takes;

static void count_nothing(struct ebb_source *source, const struct ebb_pace *slot,
                          struct ebb_counts *counts)
{
    (void)source;
    (void)slot;
    *counts = (struct ebb_counts){0};
}

static bool take_nothing(struct ebb_source *source, struct ebb_pass *pass)
{
    (void)source;
    (void)pass;
    takes++;
    return true;
}

static void give_nothing_back(struct ebb_source *source, const struct ebb_held *blocks, unsigned n,
                              bool reported)
{
    (void)source;
    (void)blocks;
    (void)n;
    (void)reported;
    fail_msg("blocks come back that nobody gave");
}

static int submit_nothing(struct ebb_report_device *device, const struct ebb_range *ranges,
                          unsigned n)
{
    (void)device;
    (void)ranges;
    fail_msg("a batch of %u ranges, of nothing", n);
    return 0;
}

static void test_a_source_that_promises_is_cut_off(void **state)
{
    static const struct ebb_source_ops ops = {
        .counts = count_nothing, .take = take_nothing, .give_back = give_nothing_back};
    static const struct ebb_report_device_ops device_ops = {.submit = submit_nothing};
    static const struct ebb_report_config config = {0};
    struct ebb_source source = {.ops = &ops, .large_order = 9};
    struct ebb_report_device device = {.ops = &device_ops, .capacity = CAPACITY};
    struct ebb_report *report = calloc(1, sizeof(*report));

    (void)state;
    port_virtual_reset();
    assert_int_equal(ebb_report_init(report, &config), 0);
    assert_int_equal(ebb_report_add_source(report, &source), 0);
    assert_int_equal(ebb_report_register(report, &device), 0);
    ebb_report_now(report);
    takes = 0;
    (void)ebb_report_run(report);
    assert_true(takes > 0);
    assert_int_not_equal(ebb_report_phase(report), EBB_REPORT_ACTIVE);
    assert_int_equal(ebb_report_unregister(report), 0);
    free(report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        rig_test(test_f15_impossible_settings_are_refused),
        rig_test(test_what_is_possible_is_possible),
        rig_test(test_defaults),
        rig_test(test_fields_by_name),
        rig_test(test_names_and_values_that_are_none),
        rig_test(test_names_of_trackers),
        rig_test(test_a_source_that_promises_is_cut_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
