/* SPDX-License-Identifier: BSD-2-Clause */
#include "closer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

static void *run(void *arg)
{
    int from = (int)(intptr_t)arg, fd;

    while (read(from, &fd, sizeof(fd)) == (ssize_t)sizeof(fd))
        close(fd);
    close(from);
    return NULL;
}

/* Nobody waits for it, also in the end: it may be stuck. Signals are the loop's. */
static int start_detached(int from)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;
    int error = pthread_attr_init(&attr);

    if (error)
        return error;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    error = pthread_create(&thread, &attr, run, (void *)(intptr_t)from);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return error;
}

int closer_start(void)
{
    int ends[2], error;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    error = fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0 ? start_detached(ends[0]) : errno;
    if (!error)
        return ends[1];
    close(ends[0]);
    close(ends[1]);
    errno = error;
    return -1;
}

void closer_close(int closer, int fd)
{
    /* Full: thousands are waiting, so one that does not end is among them. To wait here as well
     * would end all VMs; the process has a limit of descriptors for such a front-end. */
    (void)!write(closer, &fd, sizeof(fd));
}
