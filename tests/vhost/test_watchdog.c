/* SPDX-License-Identifier: BSD-2-Clause */
/* The watchdog of a back end (cmd/ebbd-vm/watchdog.c): who is stuck ends, who works or rests does
 * not. */
#include "../../cmd/ebbd-vm/backend.h"
#include "../../cmd/ebbd-vm/watchdog.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define DONE 77

static void stay(time_t seconds)
{
    struct timespec left = {seconds, 0};

    while (nanosleep(&left, &left) != 0)
        ;
}

static void is_stuck(void)
{
    watchdog_begin();
    for (;;)
        pause();
}

/* Allowed more time, but not for ever. */
static void is_stuck_at_its_end(void)
{
    watchdog_begin();
    watchdog_allow(2 * WATCHDOG_S);
    for (;;)
        pause();
}

static void takes_what_is_allowed(void)
{
    watchdog_begin();
    watchdog_allow(100 * WATCHDOG_S);
    stay(4 * WATCHDOG_S);
}

static void works_and_rests(void)
{
    for (int i = 0; i < 4 * WATCHDOG_S; i++) {
        watchdog_begin();
        stay(1);
        watchdog_end();
    }
    stay(3 * WATCHDOG_S);
}

static int status_of(void (*what)(void))
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        if (!watchdog_start("a"))
            _exit(1);
        what();
        _exit(DONE);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_stuck(void **state)
{
    (void)state;
    assert_int_equal(status_of(is_stuck), EXIT_FRONT_END);
    assert_int_equal(status_of(is_stuck_at_its_end), EXIT_FRONT_END);
}

static void test_not_stuck(void **state)
{
    (void)state;
    assert_int_equal(status_of(takes_what_is_allowed), DONE);
    assert_int_equal(status_of(works_and_rests), DONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_stuck),
                                       cmocka_unit_test(test_not_stuck)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
