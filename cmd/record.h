/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is known of a run: the host's samples, the guest's telemetry, and what
 * follows from both. One thread adds samples and another one events; each
 * function that starts with record_ takes the lock itself.
 *
 * The release a run is judged by is the workload's largest; of several within
 * 1 % of it the last one. What came back is counted from the most that the
 * host held between the guest's last taking of memory and that release,
 * because reporting starts while the guest still frees.
 */
#ifndef RECORD_H
#define RECORD_H

#include "cputime.h"
#include "telemetry.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECORD_FAULTS  8u
#define RECORD_STEPS   10000u /* what a guest that has gone wild sends more is not kept */
#define RECORD_RESULTS 10000u

struct record_sample {
    uint64_t ns; /* CLOCK_MONOTONIC */
    uint64_t guest_kib, host_kib;
    struct cpu_time cpu; /* of the VMM so far */
};

struct record_step {
    char cmd[TELEMETRY_TEXT];
    uint64_t begin_ns; /* when its line was read */
};

/* Of a step, or of what lies between two moments. */
struct record_mean {
    double guest_mib, host_mib; /* averages over time */
};

struct record_release {
    bool seen;
    uint64_t ns; /* when its line was read */
    uint64_t freed_kib;
    uint64_t held_kib;   /* most that the host held before it */
    struct cpu_time cpu; /* of the VMM until then */
    size_t first;        /* first sample at or after it */
    bool watched;        /* the one before that saw memory being freed already */
    size_t end;          /* behind the last sample before the workload takes memory again */
};

struct record {
    pthread_mutex_t lock;
    uint64_t start_ns;
    struct record_sample *samples;
    size_t n_samples, room;
    uint64_t guest_kib; /* last known use */
    bool header, booted, based, ended;
    uint64_t base_kib; /* what the host held before the workload */
    bool base_known;
    uint64_t base_ns; /* when the base line was read */
    size_t held; /* samples when the workload last had all of its memory; SIZE_MAX: freed since */
    uint64_t plateau_kib; /* most that the host held since memory was last taken or released */
    uint64_t peak_kib;
    struct record_release release;
    bool window_open; /* release.end is still to come */
    bool release_new; /* release.held_kib waits for a sample */
    char step[TELEMETRY_TEXT];
    char faults[RECORD_FAULTS][TELEMETRY_TEXT];
    uint64_t n_faults;
    struct telemetry_event boot, end;
    uint64_t end_ns; /* when the end line was read; 0: it was not */
    struct record_step *steps;
    size_t n_steps;
    char **results; /* fields of the lines about steps */
    size_t n_results;
    char engine[TELEMETRY_LINE]; /* of the last line about it; "": there was none */
};

/* -1 in a time means never reached. */
struct record_result {
    bool released; /* the rest is zero and never without a release */
    double baseline_mib, peak_mib, freed_mib, returned_mib, residue_mib;
    double release_ms; /* of the samples' clock, which starts with QEMU */
    double first_ms, t50_ms, t90_ms, t99_ms;
};

void record_init(struct record *record, uint64_t start_ns);
void record_destroy(struct record *record);
void record_sample(struct record *record, uint64_t ns, uint64_t host_kib, struct cpu_time cpu);
void record_event(struct record *record, uint64_t ns, const struct telemetry_event *event);

/* The caller holds the lock, or is alone. */
void record_result(const struct record *record, struct record_result *result);

/* When step i ended: where the next began, or at the end of the run. */
uint64_t record_step_end(const struct record *record, size_t i);
struct record_mean record_mean(const struct record *record, uint64_t begin_ns, uint64_t end_ns);

#endif
