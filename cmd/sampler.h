/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A thread that samples what the host holds, so that neither a slow reading
 * delays the guest's telemetry nor the drawing of a picture a sample.
 */
#ifndef SAMPLER_H
#define SAMPLER_H

#include "record.h"
#include "residency.h"
#include "run.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define SAMPLER_QUICK_MS   5u     /* between samples at boot and after a release, */
#define SAMPLER_QUICK_SPAN 2000u  /*   for that many ms; */
#define SAMPLER_USUAL_MS   10u    /*   then, while memory may still come back, */
#define SAMPLER_USUAL_SPAN 60000u /*   until so long after it; */
#define SAMPLER_SLOW_MS    50u    /* and at other times */

struct sampler {
    struct record *record;
    struct residency residency;
    struct cputime cputime;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop, now, exact; /* asked for */
    uint64_t quick_until, usual_until;
    bool found; /* the guest's memory */
};

/* 0 or a negated errno. */
int sampler_start(struct sampler *sampler, struct record *record, pid_t pid,
                  const struct run_options *options);
/* The guest tells something: take a sample right now. */
enum sampler_occasion {
    SAMPLER_NOTE,
    SAMPLER_LEVEL,   /* its memory in use is not about to change: take care */
    SAMPLER_RELEASE, /* it was freed: sample quickly for a while */
};
void sampler_kick(struct sampler *sampler, enum sampler_occasion occasion);
bool sampler_found(struct sampler *sampler);
void sampler_stop(struct sampler *sampler);

#endif
