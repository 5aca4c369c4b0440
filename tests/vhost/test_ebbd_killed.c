/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A back end is killed at random, again and again, under a VM that reports without pause. The next
 * one finds by the inflight region where the last one was: every chain comes back once, what was
 * reported goes unless it is late, and nothing else does. Called with the path of ebbd-vm, which is
 * started again here; and, for fewer kills, with that of ebbd, which replaces it by itself.
 */
#include "../loop/rng.h"
#include "front.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define KILLS    40u
#define REPLACED 5u  /* ebbd waits longer each time */
#define SLOTS    24u /* ranges, each of its own memory */
#define RANGE    (128u << 10)
#define STRIDE   (2u * RANGE) /* what lies between them stays */
#define PATIENCE 600          /* seconds */

static const char *program, *supervisor;
static pid_t ebbd = -1; /* if there is a supervisor */
static char directory[80], path[108];
static struct rng rng;
static pid_t back_end;
static struct front front;
static bool out[SLOTS]; /* given, not back */
static unsigned pages,
    gone; /* that came back, and what of them was discarded: not if it was late */

static void pause_us(unsigned us)
{
    const struct timespec t = {0, (long)us * 1000};

    nanosleep(&t, NULL);
}

static pid_t start(const char *name, const char *option, const char *value)
{
    const pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        const int null = open("/dev/null", O_WRONLY);

        prctl(PR_SET_PDEATHSIG, SIGKILL); /* if the test fails */
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execl(name, name, option, value, "--no-sandbox", (char *)NULL);
        _exit(127);
    }
    return child;
}

/* The one that serves is the only child of ebbd's; 0: there is none. */
static pid_t only_child(void)
{
    char name[64], text[64] = "";
    FILE *file;

    snprintf(name, sizeof(name), "/proc/%d/task/%d/children", (int)ebbd, (int)ebbd);
    file = fopen(name, "r");
    assert_non_null(file);
    (void)!fgets(text, sizeof(text), file);
    fclose(file);
    return (pid_t)atoi(text);
}

static void start_back_end(void)
{
    if (!supervisor)
        back_end = start(program, "--socket-path", path);
    else if (ebbd < 0)
        ebbd = start(supervisor, "--socket", path);
}

static void find_back_end(void)
{
    const time_t end = time(NULL) + PATIENCE;

    while (supervisor && (back_end = only_child()) <= 0) {
        assert_true(time(NULL) < end);
        pause_us(1000);
    }
}

static void kill_back_end(void)
{
    const time_t end = time(NULL) + PATIENCE;
    int status;

    if (!supervisor)
        assert_int_equal(waitpid(back_end, &status, WNOHANG), 0); /* it never ends by itself */
    kill(back_end, SIGKILL);
    if (!supervisor)
        assert_int_equal(waitpid(back_end, &status, 0), back_end);
    while (supervisor && only_child() == back_end) {
        assert_true(time(NULL) < end);
        pause_us(1000);
    }
    close(front.sock);
    front.sock = -1;
}

static void connect_to(void)
{
    const time_t end = time(NULL) + PATIENCE;

    while ((front.sock = front_connect(path)) < 0) {
        assert_true(time(NULL) < end);
        pause_us(1000);
    }
    front.protocol = 0;
}

/* As a VMM does that notices. One in four of the new ones does not live to the end of it. */
static void connect_again(void)
{
    connect_to();
    if (rng_next(&rng) % 4 == 0) {
        front.mischief = FRONT_DIE;
        front.mischief_at = front.sent + (unsigned)(rng_next(&rng) % 30);
        front.done = false;
        (void)(front_open(&front) == 0 && front_start(&front) == 0);
        front.mischief = FRONT_HONEST;
        find_back_end();
        kill_back_end();
        start_back_end();
        connect_to();
    }
    assert_int_equal(front_open(&front), 0);
    assert_int_equal(front_start(&front), 0);
}

static char *slot_at(unsigned slot)
{
    return front_at(&front, FRONT_HIGH + slot * STRIDE);
}

static struct front_queue *queue(void)
{
    return &front.queues[front_queue_of(&front, EBB_BALLOON_REPORTING)];
}

static void give(unsigned slot)
{
    const struct ebb_ring_buf buf = {FRONT_HIGH + slot * STRIDE, RANGE, true};
    const uint64_t one = 1;

    memset(slot_at(slot), 0x5a, RANGE);
    out[slot] = true;
    assert_int_equal(ebb_ring_driver_add(&queue()->ring, &buf, 1, &out[slot]), 0);
    if (ebb_ring_driver_kick(&queue()->ring))
        assert_int_equal(write(queue()->kick, &one, sizeof(one)), sizeof(one));
}

/* One chain, if one is back. */
static bool take(void)
{
    uint32_t len;
    void *token;
    const int got = ebb_ring_driver_get(&queue()->ring, &token, &len);
    const unsigned slot = got > 0 ? (unsigned)((bool *)token - out) : 0;

    assert_true(got >= 0);
    if (got == 0)
        return false;
    assert_true(out[slot]); /* not twice */
    out[slot] = false;
    for (unsigned i = 0; i < RANGE; i += 4096) {
        assert_true(slot_at(slot)[i] == 0 || slot_at(slot)[i] == 0x5a);
        pages++;
        gone += slot_at(slot)[i] == 0;
    }
    for (unsigned i = RANGE; i < STRIDE; i += 4096)
        assert_int_equal(slot_at(slot)[i], 0x11);
    return true;
}

/* Report what is not under way, for so long. */
static void report_for(unsigned us)
{
    struct timespec then, now;

    clock_gettime(CLOCK_MONOTONIC, &then);
    do {
        const unsigned slot = (unsigned)(rng_next(&rng) % SLOTS);

        if (!out[slot])
            give(slot);
        while (take())
            ;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - then.tv_sec) * 1000000 + (now.tv_nsec - then.tv_nsec) / 1000 < (long)us);
}

static void all_back(void)
{
    const time_t end = time(NULL) + PATIENCE;

    while (ebb_ring_driver_pending(&queue()->ring) > 0) {
        if (!take())
            pause_us(100);
        assert_true(time(NULL) < end);
    }
    for (unsigned i = 0; i < SLOTS; i++)
        assert_false(out[i]);
}

static void test_killed(void **state)
{
    const struct front_config config = {0};
    const char *where = getenv("TMPDIR");
    unsigned under_way = 0;

    (void)state;
    snprintf(directory, sizeof(directory), "%s/ebb-killed-XXXXXX", where ? where : P_tmpdir);
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/a.sock", directory);
    start_back_end();
    front_init(&front, &config, -1);
    connect_to();
    assert_int_equal(front_open(&front), 0);
    assert_int_equal(front_start(&front), 0);
    memset(slot_at(0), 0x11, SLOTS * STRIDE);
    for (unsigned i = 0; i < (supervisor ? REPLACED : KILLS); i++) {
        find_back_end();
        report_for((unsigned)(rng_next(&rng) % 20000));
        for (unsigned slot = 0; slot < SLOTS; slot++) {
            if (!out[slot])
                give(slot);
        }
        kill_back_end();
        while (take()) /* of which it told before */
            ;
        for (unsigned slot = 0; slot < SLOTS; slot++)
            under_way += out[slot];
        if (rng_next(&rng) % 2 == 0 && !out[0])
            give(0); /* the guest does not know */
        start_back_end();
        connect_again();
        all_back();
    }
    assert_true(under_way > 0);
    assert_true(gone > pages / 2);
    front_exit(&front);
    if (supervisor)
        kill(ebbd, SIGINT);
    else
        kill_back_end();
    while (wait(NULL) > 0)
        ;
}

static int tidy(void **state)
{
    (void)state;
    unlink(path);
    rmdir(directory);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(test_killed, tidy)};
    const char *seed = getenv("EBB_SEED");

    if (argc != 2 && argc != 3)
        return 2;
    program = argv[1];
    supervisor = argv[2];
    rng.state = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    printf("EBB_SEED=%llu\n", (unsigned long long)rng.state);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
