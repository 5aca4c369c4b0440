/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The conformance suite: what free page reporting has to do, whichever way it is
 * done. `conformance TRACKER EXECUTION` runs every row over every pacing that goes
 * with them, on a virtual clock, and with the worker called by the test.
 *
 * The rows F1 to F66 are those of the feature table drawn from the kernel list's
 * threads of 2019 and later; a test is named after its row. Those that are not
 * here and why:
 *
INDEX */
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
    struct ebb_report_config config = {0};
    struct ebb_report *report = calloc(1, sizeof(*report));

    setting_apply(&test->setting, &config);
    assert_non_null(ebb_report_config_problem(&config));
    assert_true(strlen(ebb_report_config_problem(&config)) > 10);
    assert_int_equal(ebb_report_init(report, &config), -EBB_EINVAL);
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
    snprintf(test->name, sizeof(test->name), "%s %s",
             setting_name(setting, text, sizeof(text)), name);
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
    struct ebb_report_config config = {0};
    const char *wanted = "tracker and execution";

    if (argc < 3 || ebb_report_config_set(&config, "tracker", argv[1], &wanted) ||
        ebb_report_config_set(&config, "execution", argv[2], &wanted)) {
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
