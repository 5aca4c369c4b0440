/* SPDX-License-Identifier: BSD-2-Clause */
/* The stand-in fails what is to fail: each of these tests must end as its name says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

static unsigned torn_down;

static int broken(void **state)
{
    (void)state;
    fail_msg("%s", "a fixture");
}

static int tear_down(void **state)
{
    (void)state;
    torn_down++;
    return 0;
}

#define FAILS(name, assertion)         \
    static void fails_##name(void **s) \
    {                                  \
        (void)s;                       \
        assertion;                     \
    }
FAILS(true, assert_true(0))
FAILS(false, assert_false(2))
FAILS(null, assert_null("x"))
FAILS(non_null, assert_non_null(NULL))
FAILS(equal, assert_int_equal(-1, 1))
FAILS(not_equal, assert_int_not_equal(-1, -1))
FAILS(pointer, assert_ptr_equal("x", NULL))
FAILS(not_pointer, assert_ptr_not_equal(NULL, NULL))
FAILS(below, assert_in_range(1, 2, 3))
FAILS(above, assert_in_range(4, 2, 3))
FAILS(memory, assert_memory_equal("abc", "abd", 3))
FAILS(string, assert_string_equal("abc", "ab"))
FAILS(not_string, assert_string_not_equal("ab", "ab"))
FAILS(at_once, fail())

static void passes(void **state)
{
    (void)state;
    assert_true(1);
    assert_false(0);
    assert_null(NULL);
    assert_non_null("x");
    assert_int_equal(-1, -1);
    assert_int_not_equal(-1, 1);
    assert_ptr_equal(&torn_down, &torn_down);
    assert_ptr_not_equal(&torn_down, NULL);
    assert_in_range(2, 2, 3);
    assert_in_range(3, 2, 3);
    assert_memory_equal("abc", "abd", 2);
    assert_string_equal("ab", "ab");
    assert_string_not_equal("ab", "abc");
}

static void skips(void **state)
{
    (void)state;
    skip();
}

#define FAILING(name) cmocka_unit_test_teardown(fails_##name, tear_down)

int main(void)
{
    const struct CMUnitTest failing[] = {
        FAILING(true),
        FAILING(false),
        FAILING(null),
        FAILING(non_null),
        FAILING(equal),
        FAILING(not_equal),
        FAILING(pointer),
        FAILING(not_pointer),
        FAILING(below),
        FAILING(above),
        FAILING(memory),
        FAILING(string),
        FAILING(not_string),
        FAILING(at_once),
        cmocka_unit_test_setup(passes, broken),
        cmocka_unit_test_teardown(passes, broken),
    };
    const struct CMUnitTest passing[] = {cmocka_unit_test(passes)};
    const struct CMUnitTest skipping[] = {cmocka_unit_test(passes), cmocka_unit_test(skips)};
    const int all = (int)(sizeof(failing) / sizeof(failing[0]));
    const int failed = cmocka_run_group_tests(failing, NULL, NULL);
    const int passed = cmocka_run_group_tests(passing, NULL, NULL);
    const int skipped = cmocka_run_group_tests(skipping, NULL, NULL);
    const int unset = cmocka_run_group_tests(passing, broken, NULL);

    if (failed == all && torn_down == (unsigned)all - 2 && passed == 0 && skipped == 77 &&
        unset != 0)
        return 0;
    printf("%d of %d failed, %u torn down; passed %d, skipped %d, unset %d\n", failed, all,
           torn_down, passed, skipped, unset);
    return 1;
}
