/* SPDX-License-Identifier: BSD-2-Clause */
/* The thread that runs the engine. ebb_port_wake(), in port_hosted.c, wakes it. */
#define _GNU_SOURCE
#include "ebb_hosted.h"

#include <time.h>

#define NS_PER_S ((uint64_t)1000000000)

/* Until woken, told to stop, or `due`. */
static void sleep_until(struct ebb_hosted_worker *worker, uint64_t due)
{
    struct timespec at = {
        .tv_sec = (time_t)(due / NS_PER_S),
        .tv_nsec = (long)(due % NS_PER_S),
    };
    int err = 0;

    while (!worker->woken && !worker->stop && err == 0) {
        if (due == EBB_NEVER)
            err = pthread_cond_wait(&worker->wake, &worker->mutex);
        else
            err = pthread_cond_timedwait(&worker->wake, &worker->mutex, &at);
    }
}

static void *work(void *arg)
{
    struct ebb_hosted_worker *worker = arg;

    pthread_mutex_lock(&worker->mutex);
    while (!worker->stop) {
        uint64_t due;

        worker->woken = false;
        pthread_mutex_unlock(&worker->mutex);
        due = ebb_report_run(worker->report);
        pthread_mutex_lock(&worker->mutex);
        sleep_until(worker, due);
    }
    pthread_mutex_unlock(&worker->mutex);
    return NULL;
}

int ebb_hosted_worker_start(struct ebb_hosted_worker *worker, struct ebb_report *report)
{
    pthread_condattr_t attr;
    int err;

    *worker = (struct ebb_hosted_worker){.report = report, .mutex = PTHREAD_MUTEX_INITIALIZER};
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&worker->wake, &attr);
    pthread_condattr_destroy(&attr);
    err = pthread_create(&worker->thread, NULL, work, worker);
    if (err != 0) {
        worker->stop = true;
        pthread_cond_destroy(&worker->wake);
    }
    return -err;
}

/* The mutex stays: who is still about to wake the worker learns by it that nobody is there. As a
 * static one it holds nothing that would have to be given back. */
void ebb_hosted_worker_stop(struct ebb_hosted_worker *worker)
{
    pthread_mutex_lock(&worker->mutex);
    worker->stop = true;
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->mutex);
    pthread_join(worker->thread, NULL);
    pthread_cond_destroy(&worker->wake);
}
