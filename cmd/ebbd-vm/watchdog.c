/* SPDX-License-Identifier: BSD-2-Clause */
#include "watchdog.h"
#include "backend.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The handler runs in the loop's thread, the only one that does not block signals. */
static struct {
    timer_t timer;
    bool ticking;
    volatile bool at_work;
    volatile unsigned begun, seen; /* how often work has begun, and that at the last tick */
    volatile unsigned patience;    /* ticks that this work may take besides */
    char line[160];
} dog;

static void set(time_t seconds)
{
    const struct itimerspec every = {{seconds, 0}, {seconds, 0}};

    dog.ticking = seconds > 0;
    (void)timer_settime(dog.timer, 0, &every, NULL);
}

static void on_tick(int signal)
{
    (void)signal;
    if (dog.at_work && dog.seen == dog.begun && dog.patience-- == 0) {
        struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};

        if (poll(&room, 1, 0) == 1 && (room.revents & POLLOUT))
            (void)!write(STDERR_FILENO, dog.line, strlen(dog.line));
        _exit(EXIT_FRONT_END);
    }
    if (!dog.at_work && dog.seen == dog.begun)
        set(0);
    dog.seen = dog.begun;
}

bool watchdog_start(const char *name)
{
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};

    snprintf(dog.line, sizeof(dog.line),
             "ebbd-vm: %s: stuck for %d s in what its front-end gave it: the balloon ends\n", name,
             WATCHDOG_S);
    return sigaction(SIGALRM, &action, NULL) == 0 &&
           timer_create(CLOCK_MONOTONIC, &event, &dog.timer) == 0;
}

void watchdog_begin(void)
{
    dog.begun++;
    dog.patience = 0;
    dog.at_work = true;
    if (!dog.ticking)
        set(WATCHDOG_S);
}

void watchdog_allow(unsigned seconds)
{
    dog.patience = (seconds + WATCHDOG_S - 1) / WATCHDOG_S;
}

void watchdog_end(void)
{
    dog.at_work = false;
}
