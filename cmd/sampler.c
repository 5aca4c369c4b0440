/* SPDX-License-Identifier: BSD-2-Clause */
/* Sample what the host holds, in a thread. */
#include "sampler.h"
#include "cmd.h"

#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* Wait until `due`, a kick, or the end. */
static void wait_until(struct sampler *sampler, uint64_t due)
{
    struct timespec at = {(time_t)(due / CMD_S), (long)(due % CMD_S)};

    while (!sampler->stop && !sampler->now && cmd_now_ns() < due)
        pthread_cond_timedwait(&sampler->wake, &sampler->lock, &at);
    sampler->now = false;
}

static void *sampler_main(void *arg)
{
    struct sampler *sampler = arg;
    bool alive = true;

    /* It sleeps nearly always, and should be on time when the guest's CPUs take
     * all of the host's. Not everyone may ask for that. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), -10);

    pthread_mutex_lock(&sampler->lock);
    while (!sampler->stop && alive) {
        uint64_t start = cmd_now_ns(), kib, interval;
        bool quick = start < sampler->quick_until, found = sampler->found;
        enum residency_care care = sampler->exact ? RESIDENCY_EXACT
                                   : quick        ? RESIDENCY_QUICK
                                                  : RESIDENCY_USUAL;

        if (found)
            sampler->exact = false;

        pthread_mutex_unlock(&sampler->lock);
        found = found || residency_find(&sampler->residency);
        if (found) {
            alive = residency_read(&sampler->residency, care, &kib);
            if (alive)
                record_sample(sampler->record, cmd_now_ns(), kib, cputime_read(&sampler->cputime));
        }
        pthread_mutex_lock(&sampler->lock);
        sampler->found = found;
        interval = quick || !found                ? SAMPLER_QUICK_MS
                   : start < sampler->usual_until ? SAMPLER_USUAL_MS
                                                  : SAMPLER_SLOW_MS;
        if (alive)
            wait_until(sampler, start + interval * CMD_MS);
    }
    pthread_mutex_unlock(&sampler->lock);
    return NULL;
}

int sampler_start(struct sampler *sampler, struct record *record, pid_t pid,
                  const struct run_options *options)
{
    pthread_condattr_t attr;
    int error;

    /* Quickly until somebody tells of something: the guest boots. */
    *sampler = (struct sampler){.record = record, .quick_until = UINT64_MAX};
    residency_init(&sampler->residency, pid, options->backing, options->memory);
    cputime_init(&sampler->cputime, pid, options->pin);
    pthread_mutex_init(&sampler->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&sampler->wake, &attr);
    pthread_condattr_destroy(&attr);
    error = pthread_create(&sampler->thread, NULL, sampler_main, sampler);
    return -error;
}

void sampler_kick(struct sampler *sampler, enum sampler_occasion occasion)
{
    pthread_mutex_lock(&sampler->lock);
    sampler->now = true;
    sampler->exact = occasion == SAMPLER_LEVEL;
    if (sampler->quick_until == UINT64_MAX)
        sampler->quick_until = 0;
    if (occasion == SAMPLER_LEVEL)
        sampler->usual_until = 0;
    if (occasion == SAMPLER_RELEASE) {
        sampler->quick_until = cmd_now_ns() + SAMPLER_QUICK_SPAN * CMD_MS;
        sampler->usual_until = cmd_now_ns() + SAMPLER_USUAL_SPAN * CMD_MS;
    }
    pthread_cond_signal(&sampler->wake);
    pthread_mutex_unlock(&sampler->lock);
}

bool sampler_found(struct sampler *sampler)
{
    bool found;

    pthread_mutex_lock(&sampler->lock);
    found = sampler->found;
    pthread_mutex_unlock(&sampler->lock);
    return found;
}

void sampler_stop(struct sampler *sampler)
{
    pthread_mutex_lock(&sampler->lock);
    sampler->stop = true;
    pthread_cond_signal(&sampler->wake);
    pthread_mutex_unlock(&sampler->lock);
    pthread_join(sampler->thread, NULL);
    residency_close(&sampler->residency);
    cputime_close(&sampler->cputime);
    pthread_mutex_destroy(&sampler->lock);
    pthread_cond_destroy(&sampler->wake);
}
