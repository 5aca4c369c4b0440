/* SPDX-License-Identifier: BSD-2-Clause */
/* See cmocka.h, the one beside this file. */
#include <fnmatch.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmocka.h"

enum outcome { PASSED = 0, FAILED = 1, SKIPPED = 2 };

/* The test or fixture that runs. */
static jmp_buf end;
static bool running;
static const char *filter;

static _Noreturn void end_with(enum outcome outcome)
{
    fflush(stderr);
    if (!running)
        abort();
    longjmp(end, outcome);
}

void print_message(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(stdout, format, args);
    va_end(args);
    fflush(stdout);
}

_Noreturn void standin_fail(const char *file, int line, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s:%d: ", file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    end_with(FAILED);
}

_Noreturn void standin_skip(const char *file, int line)
{
    fprintf(stderr, "%s:%d: SKIP\n", file, line);
    end_with(SKIPPED);
}

void standin_true(uintmax_t value, const char *what, const char *file, int line)
{
    if (!value)
        standin_fail(file, line, "%s", what);
}

void standin_equal(uintmax_t a, uintmax_t b, int equal, const char *what, const char *file,
                   int line)
{
    if ((a == b) != (equal != 0))
        standin_fail(file, line, "%s: %#jx %s %#jx", what, a, equal ? "!=" : "==", b);
}

void standin_range(uintmax_t value, uintmax_t least, uintmax_t most, const char *file, int line)
{
    if (value < least || value > most)
        standin_fail(file, line, "%ju is not within %ju to %ju", value, least, most);
}

void standin_memory(const void *a, const void *b, size_t len, const char *file, int line)
{
    const unsigned char *x = a;
    const unsigned char *y = b;

    for (size_t i = 0; i < len; i++) {
        if (x[i] != y[i])
            standin_fail(file, line, "byte %zu of %zu: %#x != %#x", i, len, x[i], y[i]);
    }
}

void standin_string(const char *a, const char *b, int equal, const char *file, int line)
{
    if ((strcmp(a, b) == 0) != (equal != 0))
        standin_fail(file, line, "\"%s\" %s \"%s\"", a, equal ? "!=" : "==", b);
}

void cmocka_set_test_filter(const char *pattern)
{
    filter = pattern;
}

static enum outcome run_fixture(CMFixtureFunction fixture, void **state)
{
    int outcome;

    if (!fixture)
        return PASSED;
    outcome = setjmp(end);
    running = true;
    if (outcome == 0)
        outcome = fixture(state) != 0 ? FAILED : PASSED;
    running = false;
    return (enum outcome)outcome;
}

static enum outcome run_function(CMUnitTestFunction function, void **state)
{
    int outcome = setjmp(end);

    running = true;
    if (outcome == 0)
        function(state);
    running = false;
    return (enum outcome)outcome;
}

static enum outcome run_test(const struct CMUnitTest *test, void *group_state)
{
    void *state = test->initial_state ? test->initial_state : group_state;
    enum outcome outcome = run_fixture(test->setup_func, &state);

    if (outcome != PASSED)
        return outcome;
    outcome = run_function(test->test_func, &state);
    if (run_fixture(test->teardown_func, &state) == FAILED)
        outcome = FAILED;
    return outcome;
}

int _cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t n,
                            CMFixtureFunction setup, CMFixtureFunction teardown)
{
    static const char *const words[] = {"      OK", "  FAILED", " SKIPPED"};
    unsigned counts[3] = {0};
    void *state = NULL;

    if (run_fixture(setup, &state) != PASSED) {
        print_message("%s: its setup failed\n", name);
        return 1;
    }
    for (size_t i = 0; i < n; i++) {
        enum outcome outcome;

        if (!tests[i].test_func || (filter && fnmatch(filter, tests[i].name, 0) != 0))
            continue;
        print_message("[ RUN      ] %s\n", tests[i].name);
        outcome = run_test(&tests[i], state);
        counts[outcome]++;
        print_message("[ %s ] %s\n", words[outcome], tests[i].name);
    }
    if (run_fixture(teardown, &state) != PASSED)
        counts[FAILED]++;
    print_message("%s: %u passed, %u failed, %u skipped\n", name, counts[PASSED], counts[FAILED],
                  counts[SKIPPED]);
    if (counts[FAILED] > 0)
        return (int)counts[FAILED];
    return counts[SKIPPED] > 0 ? 77 : 0;
}
