/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine's configuration: what is refused and with which words, and fields set by
 * name. What the engine does is in tests/conformance.
 */
#include "report_rig.h"

#include <stdlib.h>

/* F15 and what contradicts itself: a reason is given, and init says no. */
static void test_f15_impossible_settings_are_refused(void **state)
{
    static const struct {
        struct ebb_report_config config;
        const char *word; /* in the reason */
    } bad[] = {
        {{.capacity = EBB_REPORT_CAPACITY_LIMIT + 1}, "capacity"},
        {{.delay_ms = 3600001}, "delay_ms"},
        {{.budget = 1025}, "budget"},
        {{.backoff_max_ms = 3600001}, "backoff_max_ms"},
        {{.backoff_ms = 60001}, "backoff_ms"},
        {{.backoff_ms = 20, .backoff_max_ms = 19}, "backoff_ms"},
        {{.backoff_max_ms = 999}, "backoff_ms"},
        {{.tracker = EBB_TRACKERS}, "number"},
        {{.split = EBB_SPLIT_CLEAR + 1}, "number"},
        {{.merge = EBB_MERGE_NEVER + 1}, "number"},
        {{.move = EBB_MOVE_FOLLOW + 1}, "number"},
        {{.direction = EBB_DIRECTION_DESCENDING + 1}, "number"},
        {{.execution = EBB_EXECUTION_INLINE + 1}, "number"},
        {{.move = EBB_MOVE_FOLLOW, .pacing = EBB_PACING_DELAY}, "move"},
        {{.move = EBB_MOVE_FOLLOW, .delay_ms = 1}, "move"},
        {{.move = EBB_MOVE_FOLLOW, .tracker = EBB_TRACKER_ROTATION}, "move"},
        {{.move = EBB_MOVE_FOLLOW, .tracker = EBB_TRACKER_BITMAP}, "move"},
        {{.direction = EBB_DIRECTION_DESCENDING, .tracker = EBB_TRACKER_BITMAP}, "direction"},
        {{.execution = EBB_EXECUTION_INLINE, .budget = 2}, "budget"},
        {{.execution = EBB_EXECUTION_INLINE, .delay_ms = 1}, "delay_ms"},
        {{.execution = EBB_EXECUTION_INLINE, .backoff_ms = 1}, "back off"},
        {{.pacing = EBB_PACING_DELAY + 1}, "number"},
        {{.window_min_ms = 3600001, .window_max_ms = 3600001}, "window_min_ms"},
        {{.window_max_ms = 3600001}, "window_max_ms"},
        {{.window_start_ms = 3600001}, "window_start_ms"},
        {{.window_min_ms = 2501}, "window_min_ms"},
        {{.window_max_ms = 49}, "window_min_ms"},
        {{.window_min_ms = 10, .window_max_ms = 9}, "window_min_ms"},
        {{.pacing = EBB_PACING_SURPLUS, .tracker = EBB_TRACKER_ROTATION}, "tracker=sorted"},
        {{.pacing = EBB_PACING_SURPLUS, .tracker = EBB_TRACKER_BITMAP}, "tracker=sorted"},
        {{.pacing = EBB_PACING_SURPLUS, .execution = EBB_EXECUTION_INLINE}, "inline"},
        {{.pacing = EBB_PACING_SURPLUS, .delay_ms = 100}, "delay_ms"},
        {{.pacing = EBB_PACING_SURPLUS, .budget = 1}, "budget"},
        {{.pacing = EBB_PACING_SURPLUS, .threshold = 1}, "threshold"},
        {{.pacing = EBB_PACING_SURPLUS, .direction = EBB_DIRECTION_ASCENDING}, "direction"},
        {{.pacing = EBB_PACING_DELAY, .window_min_ms = 50}, "window_min_ms"},
        {{.pacing = EBB_PACING_DELAY, .window_max_ms = 50}, "window_max_ms"},
        {{.pacing = EBB_PACING_DELAY, .window_start_ms = 50}, "window_start_ms"},
        {{.tracker = EBB_TRACKER_ROTATION, .window_max_ms = 500}, "window_max_ms"},
        {{.execution = EBB_EXECUTION_INLINE, .window_max_ms = 500}, "window_max_ms"},
        {{.delay_ms = 100, .window_max_ms = 500}, "window_max_ms"},
        {{.refault_ns = 1000001}, "refault_ns"},
        {{.pacing = EBB_PACING_DELAY, .refault_ns = 1000}, "refault_ns"},
    };
    struct ebb_report *report = calloc(1, sizeof(*report));

    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *problem = ebb_report_config_problem(&bad[i].config);

        if (!problem || !strstr(problem, bad[i].word))
            fail_msg("case %u: %s", i, problem ? problem : "no problem");
        assert_int_equal(ebb_report_init(report, &bad[i].config), -EBB_EINVAL);
    }
    free(report);
}

static void test_what_is_possible_is_possible(void **state)
{
    static const struct ebb_report_config good[] = {
        {0},
        {.capacity = EBB_REPORT_CAPACITY_LIMIT, .delay_ms = 3600000, .budget = 1024},
        {.backoff_ms = 1, .backoff_max_ms = 1},
        {.threshold = EBB_REPORT_TWICE_CAPACITY, .order = EBB_REPORT_ORDER(0)},
        {.execution = EBB_EXECUTION_INLINE, .budget = 1, .threshold = 32},
        {.move = EBB_MOVE_FOLLOW, .tracker = EBB_TRACKER_MEMBRANE},
        {.move = EBB_MOVE_FOLLOW, .tracker = EBB_TRACKER_BOUNDARY},
        {.move = EBB_MOVE_DEMOTE, .tracker = EBB_TRACKER_BITMAP, .split = EBB_SPLIT_CLEAR},
        {.direction = EBB_DIRECTION_DESCENDING, .merge = EBB_MERGE_NEVER},
        {.move = EBB_MOVE_FOLLOW},
        {.move = EBB_MOVE_FOLLOW, .tracker = EBB_TRACKER_SORTED, .pacing = EBB_PACING_DELAY},
        {.pacing = EBB_PACING_SURPLUS, .tracker = EBB_TRACKER_SORTED},
        {.pacing = EBB_PACING_SURPLUS, .window_min_ms = 1, .window_max_ms = 1},
        {.window_min_ms = 3600000, .window_max_ms = 3600000},
        {.refault_ns = 1},
        {.refault_ns = 1000000, .window_min_ms = 100},
        {.split = EBB_SPLIT_CLEAR, .merge = EBB_MERGE_NEVER, .window_min_ms = 2500},
        {.tracker = EBB_TRACKER_SORTED, .execution = EBB_EXECUTION_INLINE},
        {.tracker = EBB_TRACKER_SORTED, .budget = 16, .threshold = 32, .delay_ms = 2000},
    };
    struct ebb_report *report = calloc(1, sizeof(*report));

    (void)state;
    for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_null(ebb_report_config_problem(&good[i]));
        assert_int_equal(ebb_report_init(report, &good[i]), 0);
    }
    free(report);
}

/* Surplus unless something was asked for that it does not have, and what follows from it. */
static void test_which_pacing_it_is(void **state)
{
    static const struct {
        struct ebb_report_config config;
        uint8_t pacing, tracker;
    } cases[] = {
        {{0}, EBB_PACING_SURPLUS, EBB_TRACKER_SORTED},
        {{.tracker = EBB_TRACKER_SORTED}, EBB_PACING_SURPLUS, EBB_TRACKER_SORTED},
        {{.pacing = EBB_PACING_SURPLUS}, EBB_PACING_SURPLUS, EBB_TRACKER_SORTED},
        {{.capacity = 1, .order = 3, .backoff_ms = 9}, EBB_PACING_SURPLUS, EBB_TRACKER_SORTED},
        {{.execution = EBB_EXECUTION_WORKER}, EBB_PACING_SURPLUS, EBB_TRACKER_SORTED},
        {{.pacing = EBB_PACING_DELAY}, EBB_PACING_DELAY, EBB_TRACKER_ROTATION},
        {{.delay_ms = 100}, EBB_PACING_DELAY, EBB_TRACKER_ROTATION},
        {{.budget = 1}, EBB_PACING_DELAY, EBB_TRACKER_ROTATION},
        {{.threshold = 1}, EBB_PACING_DELAY, EBB_TRACKER_ROTATION},
        {{.direction = EBB_DIRECTION_ASCENDING}, EBB_PACING_DELAY, EBB_TRACKER_ROTATION},
        {{.execution = EBB_EXECUTION_INLINE}, EBB_PACING_DELAY, EBB_TRACKER_ROTATION},
        {{.tracker = EBB_TRACKER_BITMAP}, EBB_PACING_DELAY, EBB_TRACKER_BITMAP},
        {{.tracker = EBB_TRACKER_SORTED, .delay_ms = 7}, EBB_PACING_DELAY, EBB_TRACKER_SORTED},
    };
    struct ebb_report *report = calloc(1, sizeof(*report));

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool surplus = cases[i].pacing == EBB_PACING_SURPLUS;
        struct ebb_report_stats stats;

        assert_int_equal(ebb_report_init(report, &cases[i].config), 0);
        ebb_report_get_stats(report, &stats);
        if (report->config.pacing != cases[i].pacing || report->config.tracker != cases[i].tracker)
            fail_msg("case %u: pacing %u, tracker %u", i, report->config.pacing,
                     report->config.tracker);
        assert_int_equal(stats.window_ns, surplus ? EBB_REPORT_WINDOW_START_MS * MS : 0);
    }
    free(report);
}

static void test_fields_by_name(void **state)
{
    struct ebb_report_config config = {0};
    const char *wanted = NULL;
    static const char *const pairs[][2] = {
        {"tracker", "boundary"},
        {"split", "clear"},
        {"merge", "never"},
        {"move", "follow"},
        {"direction", "descending"},
        {"execution", "inline"},
        {"delay_ms", "250"},
        {"capacity", "7"},
        {"order", "0"},
        {"budget", "16"},
        {"threshold", "2x"},
        {"backoff_ms", "5"},
        {"backoff_max_ms", "50"},
        {"pacing", "surplus"},
        {"window_min_ms", "1"},
        {"window_max_ms", "3600000"},
        {"refault_ns", "4000"},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        assert_int_equal(ebb_report_config_set(&config, pairs[i][0], pairs[i][1], &wanted), 0);
    assert_int_equal(config.tracker, EBB_TRACKER_BOUNDARY);
    assert_int_equal(config.split, EBB_SPLIT_CLEAR);
    assert_int_equal(config.merge, EBB_MERGE_NEVER);
    assert_int_equal(config.move, EBB_MOVE_FOLLOW);
    assert_int_equal(config.direction, EBB_DIRECTION_DESCENDING);
    assert_int_equal(config.execution, EBB_EXECUTION_INLINE);
    assert_int_equal(config.delay_ms, 250);
    assert_int_equal(config.capacity, 7);
    assert_int_equal(config.order, EBB_REPORT_ORDER(0));
    assert_int_equal(config.budget, 16);
    assert_int_equal(config.threshold, EBB_REPORT_TWICE_CAPACITY);
    assert_int_equal(config.backoff_ms, 5);
    assert_int_equal(config.backoff_max_ms, 50);
    assert_int_equal(config.pacing, EBB_PACING_SURPLUS);
    assert_int_equal(config.window_min_ms, 1);
    assert_int_equal(config.window_max_ms, 3600000);
    assert_int_equal(config.refault_ns, 4000);
    assert_int_equal(ebb_report_config_set(&config, "pacing", "delay", &wanted), 0);
    assert_int_equal(config.pacing, EBB_PACING_DELAY);
    assert_int_equal(ebb_report_config_set(&config, "tracker", "sorted", &wanted), 0);
    assert_int_equal(config.tracker, EBB_TRACKER_SORTED);
    assert_int_equal(ebb_report_config_set(&config, "threshold", "32", &wanted), 0);
    assert_int_equal(config.threshold, 32);
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
    struct ebb_report_config config = {0}, before = config;
    const char *wanted = NULL;

    (void)state;
    assert_int_equal(ebb_report_config_set(&config, "colour", "1", &wanted), -EBB_ENOENT);
    assert_int_equal(ebb_report_config_set(&config, "worker", "1", &wanted), -EBB_ENOENT);
    assert_int_equal(ebb_report_config_set(&config, "", "1", &wanted), -EBB_ENOENT);
    for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        wanted = NULL;
        if (ebb_report_config_set(&config, values[i][0], values[i][1], &wanted) != -EBB_EINVAL)
            fail_msg("%s=%s is accepted", values[i][0], values[i][1]);
        assert_non_null(wanted);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        rig_test(test_f15_impossible_settings_are_refused),
        rig_test(test_what_is_possible_is_possible),
        rig_test(test_which_pacing_it_is),
        rig_test(test_fields_by_name),
        rig_test(test_names_and_values_that_are_none),
        rig_test(test_names_of_trackers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
