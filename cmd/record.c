/* SPDX-License-Identifier: BSD-2-Clause */
/* Keep a run's samples and events; work out what came back, and when. */
#include "record.h"
#include "cmd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Less than this back is noise. */
#define FIRST_KIB 2048u
/* The first sample after the base line shows what was held then, unless it is
 * later than this: then the one before it does. */
#define BASE_LATE_NS (10 * CMD_MS)

void record_init(struct record *record, uint64_t start_ns)
{
    *record = (struct record){.start_ns = start_ns, .held = SIZE_MAX};
    pthread_mutex_init(&record->lock, NULL);
}

void record_destroy(struct record *record)
{
    pthread_mutex_destroy(&record->lock);
    free(record->samples);
    free(record->steps);
    for (size_t i = 0; i < record->n_results; i++)
        free(record->results[i]);
    free(record->results);
}

void record_sample(struct record *record, uint64_t ns, uint64_t host_kib, struct cpu_time cpu)
{
    pthread_mutex_lock(&record->lock);
    if (record->n_samples == record->room) {
        record->room = record->room ? 2 * record->room : 1024;
        record->samples = cmd_realloc(record->samples, record->room * sizeof(struct record_sample));
    }
    record->samples[record->n_samples++] =
        (struct record_sample){ns, record->guest_kib, host_kib, cpu};
    if (record->based && !record->base_known) {
        bool late = ns > record->base_ns + BASE_LATE_NS && record->n_samples > 1;

        record->base_kib = late ? record->samples[record->n_samples - 2].host_kib : host_kib;
        record->base_known = true;
    }
    if (host_kib > record->peak_kib)
        record->peak_kib = host_kib;
    if (host_kib > record->plateau_kib)
        record->plateau_kib = host_kib;
    /* A release right after the hold, with no sample between. */
    if (record->release_new && host_kib > record->release.held_kib)
        record->release.held_kib = host_kib;
    if (record->release_new)
        record->release.cpu = cpu;
    record->release_new = false;
    pthread_mutex_unlock(&record->lock);
}

/* The workload goes on to take memory: what the host holds from now on says
 * nothing about the last release. */
static void close_window(struct record *record)
{
    if (record->window_open)
        record->release.end = record->n_samples;
    record->window_open = false;
}

static bool takes_memory(const char *step)
{
    static const char *const words[] = {"memhog", "churn",      "fragment",
                                        "cycle",  "contiguous", "page_fault"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strncmp(step, words[i], strlen(words[i])) == 0)
            return true;
    }
    return false;
}

static void release(struct record *record, uint64_t ns, uint64_t freed_kib)
{
    close_window(record);
    if (!record->release.seen || freed_kib * 100 >= record->release.freed_kib * 99) {
        record->release = (struct record_release){.seen = true,
                                                  .ns = ns,
                                                  .freed_kib = freed_kib,
                                                  .held_kib = record->plateau_kib,
                                                  .first = record->n_samples,
                                                  .watched = record->held < record->n_samples};
        record->window_open = true;
        record->release_new = true;
    }
    record->plateau_kib = 0;
    record->held = SIZE_MAX;
}

static void fault(struct record *record, const char *text)
{
    if (record->n_faults < RECORD_FAULTS)
        memcpy(record->faults[record->n_faults], text, TELEMETRY_TEXT);
    record->n_faults++;
}

static void step(struct record *record, uint64_t ns, const char *cmd)
{
    struct record_step *at;

    memcpy(record->step, cmd, sizeof(record->step));
    if (takes_memory(cmd))
        close_window(record);
    if (record->n_steps == RECORD_STEPS)
        return;
    record->steps = cmd_realloc(record->steps, (record->n_steps + 1) * sizeof(struct record_step));
    at = &record->steps[record->n_steps++];
    memcpy(at->cmd, cmd, sizeof(at->cmd));
    at->begin_ns = ns;
}

static void keep_result(struct record *record, const char *fields)
{
    if (record->n_results == RECORD_RESULTS)
        return;
    record->results = cmd_realloc(record->results, (record->n_results + 1) * sizeof(char *));
    record->results[record->n_results++] = cmd_format("%s", fields);
}

void record_event(struct record *record, uint64_t ns, const struct telemetry_event *event)
{
    pthread_mutex_lock(&record->lock);
    switch (event->kind) {
    case TELEMETRY_HEADER:
        record->header = true;
        break;
    case TELEMETRY_BOOT:
        record->booted = true;
        record->boot = *event;
        break;
    case TELEMETRY_BASE:
        record->based = true;
        record->base_ns = ns;
        record->guest_kib = event->used_kib;
        break;
    case TELEMETRY_USE:
        record->guest_kib = event->used_kib;
        break;
    case TELEMETRY_STEP:
        step(record, ns, event->text);
        break;
    case TELEMETRY_HOLD:
        record->plateau_kib = 0;
        record->held = record->n_samples;
        if (event->kib > record->guest_kib) /* the last `use` may be 50 ms old */
            record->guest_kib = event->kib;
        break;
    case TELEMETRY_RELEASE:
        release(record, ns, event->kib);
        break;
    case TELEMETRY_FAULT:
        fault(record, event->text);
        break;
    case TELEMETRY_RESULT:
        keep_result(record, event->fields);
        break;
    case TELEMETRY_ENGINE:
        snprintf(record->engine, sizeof(record->engine), "%s", event->fields);
        break;
    case TELEMETRY_END:
        record->ended = true;
        record->end_ns = ns;
        record->end = *event;
        break;
    }
    pthread_mutex_unlock(&record->lock);
}

static double mib(uint64_t kib)
{
    return (double)kib / 1024;
}

/* From the release to the first sample at which `back_kib` were back; 0: by then, -1: never. */
static double time_of(const struct record *record, size_t end, double back_kib)
{
    const struct record_release *at = &record->release;

    for (size_t i = at->first - at->watched; i < end; i++) {
        const struct record_sample *sample = &record->samples[i];
        if ((double)at->held_kib - (double)sample->host_kib >= back_kib)
            return sample->ns > at->ns ? (double)(sample->ns - at->ns) / 1e6 : 0;
    }
    return -1;
}

void record_result(const struct record *record, struct record_result *result)
{
    const struct record_release *at = &record->release;
    size_t end = record->window_open ? record->n_samples : at->end;
    double freed = (double)at->freed_kib;

    *result = (struct record_result){.baseline_mib = mib(record->base_kib),
                                     .peak_mib = mib(record->peak_kib),
                                     .release_ms = -1,
                                     .first_ms = -1,
                                     .t50_ms = -1,
                                     .t90_ms = -1,
                                     .t99_ms = -1};
    if (!at->seen)
        return;
    result->released = true;
    result->release_ms = (double)(at->ns - record->start_ns) / 1e6;
    result->freed_mib = mib(at->freed_kib);
    if (end > at->first)
        result->returned_mib = mib(at->held_kib) - mib(record->samples[end - 1].host_kib);
    result->residue_mib = result->freed_mib - result->returned_mib;
    result->first_ms = time_of(record, end, FIRST_KIB);
    if (at->freed_kib == 0)
        return;
    result->t50_ms = time_of(record, end, freed * 0.50);
    result->t90_ms = time_of(record, end, freed * 0.90);
    result->t99_ms = time_of(record, end, freed * 0.99);
}

uint64_t record_step_end(const struct record *record, size_t i)
{
    uint64_t begin = record->steps[i].begin_ns;
    uint64_t last = record->n_samples > 0 ? record->samples[record->n_samples - 1].ns : begin;

    if (i + 1 < record->n_steps)
        return record->steps[i + 1].begin_ns;
    if (record->end_ns > 0)
        return record->end_ns;
    return last > begin ? last : begin;
}

/* Between two samples memory changes evenly. */
struct record_mean record_mean(const struct record *record, uint64_t begin_ns, uint64_t end_ns)
{
    struct record_mean mean = {0, 0};
    double all = 0;

    for (size_t i = 1; i < record->n_samples; i++) {
        const struct record_sample *a = &record->samples[i - 1], *b = &record->samples[i];
        uint64_t from = a->ns > begin_ns ? a->ns : begin_ns, to = b->ns < end_ns ? b->ns : end_ns;
        double time;

        if (from >= to)
            continue;
        time = (double)(to - from);
        mean.host_mib += time * (mib(a->host_kib) + mib(b->host_kib)) / 2;
        mean.guest_mib += time * (mib(a->guest_kib) + mib(b->guest_kib)) / 2;
        all += time;
    }
    if (all > 0) {
        mean.host_mib /= all;
        mean.guest_mib /= all;
    }
    return mean;
}
