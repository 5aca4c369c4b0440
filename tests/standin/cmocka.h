/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * As much of cmocka as the tests use, with its names and meanings: for cross builds, where the
 * distribution has no cmocka for the machine. Unlike cmocka, a program in which a test was skipped
 * ends with 77 (skipped) instead of 0, and an assertion outside of a test ends the program.
 */
#ifndef EBB_TESTS_STANDIN_CMOCKA_H
#define EBB_TESTS_STANDIN_CMOCKA_H

#include <stddef.h>
#include <stdint.h>

typedef void (*CMUnitTestFunction)(void **state);
typedef int (*CMFixtureFunction)(void **state); /* not 0: failed */

struct CMUnitTest {
    const char *name;
    CMUnitTestFunction test_func;
    CMFixtureFunction setup_func;
    CMFixtureFunction teardown_func;
    void *initial_state;
};

#define cmocka_unit_test_setup_teardown(f, setup, teardown) \
    {                                                       \
#f, f, setup, teardown, NULL                        \
    }
#define cmocka_unit_test(f)                    cmocka_unit_test_setup_teardown(f, NULL, NULL)
#define cmocka_unit_test_setup(f, setup)       cmocka_unit_test_setup_teardown(f, setup, NULL)
#define cmocka_unit_test_teardown(f, teardown) cmocka_unit_test_setup_teardown(f, NULL, teardown)
#define cmocka_unit_test_prestate(f, the_state) \
    {                                           \
#f, f, NULL, NULL, the_state            \
    }

/* Returns how many tests failed; 77: none, but some were skipped. */
int _cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t n,
                            CMFixtureFunction setup, CMFixtureFunction teardown);
#define cmocka_run_group_tests_name(name, tests, setup, teardown) \
    _cmocka_run_group_tests(name, tests, sizeof(tests) / sizeof((tests)[0]), setup, teardown)
#define cmocka_run_group_tests(tests, setup, teardown) \
    cmocka_run_group_tests_name(#tests, tests, setup, teardown)

/* Only tests whose name is this; a * stands for anything. */
void cmocka_set_test_filter(const char *pattern);

__attribute__((format(printf, 1, 2))) void print_message(const char *format, ...);

/* End the test. */
_Noreturn __attribute__((format(printf, 3, 4))) void standin_fail(const char *file, int line,
                                                                  const char *format, ...);
_Noreturn void standin_skip(const char *file, int line);

void standin_true(uintmax_t value, const char *what, const char *file, int line);
/* `equal`: they are to be. */
void standin_equal(uintmax_t a, uintmax_t b, int equal, const char *what, const char *file,
                   int line);
void standin_range(uintmax_t value, uintmax_t least, uintmax_t most, const char *file, int line);
void standin_memory(const void *a, const void *b, size_t len, const char *file, int line);
void standin_string(const char *a, const char *b, int equal, const char *file, int line);

#define fail_msg(...) standin_fail(__FILE__, __LINE__, __VA_ARGS__)
#define fail()        standin_fail(__FILE__, __LINE__, "failed")
#define skip()        standin_skip(__FILE__, __LINE__)

#define assert_true(c)     standin_true((uintmax_t)(c), #c, __FILE__, __LINE__)
#define assert_false(c)    standin_true(!(uintmax_t)(c), "!(" #c ")", __FILE__, __LINE__)
#define assert_non_null(p) standin_true((uintptr_t)(p) != 0, #p " is not NULL", __FILE__, __LINE__)
#define assert_null(p)     standin_true((uintptr_t)(p) == 0, #p " is NULL", __FILE__, __LINE__)
#define assert_int_equal(a, b) \
    standin_equal((uintmax_t)(a), (uintmax_t)(b), 1, #a ", " #b, __FILE__, __LINE__)
#define assert_int_not_equal(a, b) \
    standin_equal((uintmax_t)(a), (uintmax_t)(b), 0, #a ", " #b, __FILE__, __LINE__)
#define assert_ptr_equal(a, b) \
    standin_equal((uintptr_t)(a), (uintptr_t)(b), 1, #a ", " #b, __FILE__, __LINE__)
#define assert_ptr_not_equal(a, b) \
    standin_equal((uintptr_t)(a), (uintptr_t)(b), 0, #a ", " #b, __FILE__, __LINE__)
#define assert_in_range(value, least, most) \
    standin_range((uintmax_t)(value), (uintmax_t)(least), (uintmax_t)(most), __FILE__, __LINE__)
#define assert_memory_equal(a, b, len) standin_memory(a, b, len, __FILE__, __LINE__)
#define assert_string_equal(a, b)      standin_string(a, b, 1, __FILE__, __LINE__)
#define assert_string_not_equal(a, b)  standin_string(a, b, 0, __FILE__, __LINE__)

#endif
