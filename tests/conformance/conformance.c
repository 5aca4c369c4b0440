/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The conformance suite: what free page reporting has to do, whichever way it is
 * done. `conformance TRACKER EXECUTION` runs every row over every pacing that goes
 * with them, on a virtual clock, and with the worker called by the test.
 *
 * The rows F1 to F66 are those of the feature table drawn from the kernel list's
 * threads of 2019 and later; a test is named after its row.
 *
 *   F1 F2 F3 F4 F5           marks and counts               rows_engine.c
 *   F6 F7 F8 F9 F10 F11 F12  dividers: membrane, boundary   rows_tracker.c
 *   F13                      mixed lists                    rows_tracker.c, and step by step
 *                                                           tests/unit/test_report_tracker.c
 *   F14 F15 F16 F17 F18 F19  batches, the cycle             rows_engine.c; F15 also
 *                                                           tests/unit/test_report.c
 *   F20 F21 F22 F23          threshold, order, delay        rows_pacing.c
 *   F24 F25 F26 F27 F28 F29  phases, registration           rows_engine.c
 *   F30                      unregister                     rows_faults.c, rows_steps.c
 *   F31                      free while (un)registering     threads.c
 *   F32 F33 F34 F35          split, merge, move             rows_allocator.c
 *   F36 F37 F38              isolation                      rows_allocator.c
 *   F39                      shuffled lists                 rows_allocator.c
 *   F40 F41                  the screener (locks, not time) rows_pacing.c; time: ebb bench
 *   F42                      warm blocks first              rows_pacing.c
 *   F43                      rotation                       rows_tracker.c
 *   F44 F45                  budget, watermarks             rows_pacing.c
 *   F46                      errors                         rows_faults.c
 *   F47 F48                  one zone a batch; its ranges   rows_engine.c
 *   F49 F50                  encodings of early versions    none: a batch is ranges (CAVEATS)
 *   F51                      device blind to the allocator  tests/checks/layering
 *   F52                      the host drops the data        threads.c (holes punched),
 *                                                           tests/e2e/test_return.py
 *   F53 F54 F55              lazy, inhibited, misaligned    none: the host's half (CAVEATS)
 *   F56                      poison, init on free           tests/unit/test_fill.c
 *   F57 F58                  virtio numbers, configuration  tests/loop/test_balloon.c
 *   F59                      known-zero blocks              none (CAVEATS)
 *   F60                      frames taken away              tests/unit/test_range.c
 *   F61                      every zone                     rows_engine.c;
 *                                                           tests/unit/test_zonelist.c
 *   F62                      bitmap against the others      differential.c, rows_tracker.c
 *   F63                      with the host is not in use    rows_allocator.c
 *   F64                      performance                    none: ebb bench trackers
 *   F65                      worker or freeing context      differential.c, every row
 *   F66                      FREE_PAGE_HINT                 none (CAVEATS)
 */
#include "rows.h"

#include <stdio.h>
#include <stdlib.h>

#define TESTS_LIMIT 1024u

static const struct row *const tables[] = {rows_engine,  rows_pacing, rows_allocator,
                                           rows_tracker, rows_faults, rows_steps};

struct test {
    struct setting setting;
    const struct row *row;
    char name[160];
};

static struct test tests[TESTS_LIMIT];
static struct CMUnitTest units[TESTS_LIMIT];
static unsigned nr_tests;

static void run_row(void **state)
{
    const struct test *test = *state;

    test->row->run(&test->setting);
}

/* What the report says of a combination is what init does. */
static void refused_with_a_reason(void **state)
{
    const struct test *test = *state;
    struct ebb_settings settings = {0};
    struct ebb_report *report = calloc(1, sizeof(*report));
    struct ebb_history *history = calloc(1, sizeof(*history));

    setting_apply(&test->setting, &settings.history);
    assert_non_null(ebb_history_problem(&settings));
    assert_true(strlen(ebb_history_problem(&settings)) > 10);
    assert_int_equal(ebb_history_init(history, report, &settings), -EBB_EINVAL);
    free(history);
    free(report);
}

static void add(const struct setting *setting, const struct row *row, const char *name,
                void (*run)(void **state))
{
    struct test *test = &tests[nr_tests];
    char text[64];

    if (nr_tests == TESTS_LIMIT) {
        fprintf(stderr, "conformance: too many tests\n");
        exit(1);
    }
    test->setting = *setting;
    test->row = row;
    snprintf(test->name, sizeof(test->name), "%s %s", setting_name(setting, text, sizeof(text)),
             name);
    units[nr_tests++] = (struct CMUnitTest){
        .name = test->name,
        .test_func = run,
        .setup_func = rig_group_setup,
        .teardown_func = rig_group_teardown,
        .initial_state = test,
    };
}

static void add_rows(const struct setting *setting)
{
    for (unsigned t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
        for (const struct row *row = tables[t]; row->name; row++) {
            if (!row->when || row->when(setting))
                add(setting, row, row->name, run_row);
        }
    }
}

static bool is_legal(const struct setting *setting)
{
    return !(is_inline(setting) && is_budget(setting));
}

int main(int argc, char **argv)
{
    struct ebb_history_config config = {0};
    const char *wanted = "tracker and execution";

    if (argc < 3 || ebb_history_config_set(&config, "tracker", argv[1], &wanted) ||
        ebb_history_config_set(&config, "execution", argv[2], &wanted)) {
        fprintf(stderr, "usage: conformance TRACKER EXECUTION [name*]; wanted: %s\n", wanted);
        return 2;
    }
    if (argc > 3)
        cmocka_set_test_filter(argv[3]);
    for (unsigned pacing = 0; pacing < PACINGS; pacing++) {
        struct setting setting = {
            .tracker = (enum ebb_tracker)config.tracker,
            .execution = (enum ebb_execution)config.execution,
            .pacing = (enum pacing)pacing,
        };

        if (is_legal(&setting))
            add_rows(&setting);
        else
            add(&setting, NULL, "refused_with_a_reason", refused_with_a_reason);
    }
    return _cmocka_run_group_tests(argv[1], units, nr_tests, NULL, NULL);
}
