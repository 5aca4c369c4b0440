/* SPDX-License-Identifier: BSD-2-Clause */
#include "reaper.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

/* Pipes of pointers: small writes to them are whole. */
struct reaper {
    int to[2], back[2]; /* [0] to read from; -1: none */
    struct event *readable;
    pthread_t thread;
    bool started;
    void (*end)(void *item);
    void (*ended)(void *item);
};

static void *run(void *arg)
{
    const struct reaper *reaper = arg;
    void *item;

    while (read(reaper->to[0], &item, sizeof(item)) == (ssize_t)sizeof(item)) {
        reaper->end(item);
        (void)!write(reaper->back[1], &item, sizeof(item));
    }
    return NULL;
}

static void take_back(evutil_socket_t fd, short what, void *ctx)
{
    const struct reaper *reaper = ctx;
    void *item;

    (void)what;
    while (read(fd, &item, sizeof(item)) == (ssize_t)sizeof(item))
        reaper->ended(item);
}

/* Signals are the loop's. */
static bool start(struct reaper *reaper)
{
    sigset_t all, before;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    error = pthread_create(&reaper->thread, NULL, run, reaper);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    reaper->started = error == 0;
    errno = error;
    return reaper->started;
}

struct reaper *reaper_new(struct event_base *base, void (*end)(void *item),
                          void (*ended)(void *item))
{
    struct reaper *reaper = calloc(1, sizeof(*reaper));
    int error;

    if (!reaper)
        return NULL;
    *reaper = (struct reaper){.to = {-1, -1}, .back = {-1, -1}, .end = end, .ended = ended};
    if (pipe2(reaper->to, O_CLOEXEC) == 0 && pipe2(reaper->back, O_CLOEXEC) == 0 &&
        fcntl(reaper->to[1], F_SETFL, O_NONBLOCK) == 0 &&
        fcntl(reaper->back[0], F_SETFL, O_NONBLOCK) == 0) {
        reaper->readable =
            event_new(base, reaper->back[0], EV_READ | EV_PERSIST, take_back, reaper);
        if (reaper->readable && event_add(reaper->readable, NULL) == 0 && start(reaper))
            return reaper;
    }
    error = errno;
    reaper_free(reaper);
    errno = error;
    return NULL;
}

bool reaper_take(struct reaper *reaper, void *item)
{
    return write(reaper->to[1], &item, sizeof(item)) == (ssize_t)sizeof(item);
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

void reaper_free(struct reaper *reaper)
{
    if (!reaper)
        return;
    close_if_open(reaper->to[1]);
    if (reaper->started)
        pthread_join(reaper->thread, NULL);
    if (reaper->readable) {
        take_back(reaper->back[0], 0, reaper);
        event_free(reaper->readable);
    }
    close_if_open(reaper->to[0]);
    close_if_open(reaper->back[0]);
    close_if_open(reaper->back[1]);
    free(reaper);
}
