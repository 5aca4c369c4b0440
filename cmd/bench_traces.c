/* SPDX-License-Identifier: BSD-2-Clause */
/* The recorded traces, replayed as `ebb replay` does it. */
#include "bench.h"
#include "cmd.h"
#include "replay.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MIB ((double)(1 << 20))

static int is_trace(const struct dirent *entry)
{
    return strstr(entry->d_name, ".trace") != NULL && entry->d_name[0] != '.';
}

static bool read_one(struct bench_traces *traces, const char *directory, const char *name)
{
    char error[TRACE_ERROR], *path = cmd_format("%s/%s", directory, name);
    bool ok = trace_read(&traces->traces[traces->n], path, error) == TRACE_OK;

    if (!ok)
        cmd_error("%s: %s", path, error);
    if (ok) {
        replay_warm_up(&traces->traces[traces->n]);
        traces->names[traces->n++] = cmd_format("%.*s", (int)strcspn(name, "."), name);
    }
    free(path);
    return ok;
}

bool bench_traces_read(struct bench_traces *traces, const char *directory, unsigned most)
{
    struct dirent **list = NULL;
    int n = scandir(directory, &list, is_trace, alphasort);
    bool ok = n >= 0;

    *traces = (struct bench_traces){.n = 0};
    if (n < 0)
        cmd_error("--traces: %s: %s", directory, strerror(errno));
    traces->traces = cmd_realloc(NULL, BENCH_TRACES * sizeof(*traces->traces));
    for (int i = 0; i < n; i++) {
        if (ok && traces->n < most)
            ok = read_one(traces, directory, list[i]->d_name);
        free(list[i]);
    }
    free(list);
    if (ok && n > (int)most)
        cmd_error("only the first %u of the %d traces in %s are replayed", most, n, directory);
    return ok;
}

void bench_traces_release(struct bench_traces *traces)
{
    for (unsigned i = 0; i < traces->n; i++) {
        trace_release(&traces->traces[i]);
        free(traces->names[i]);
    }
    free(traces->traces);
}

double bench_trace_seconds(const struct bench_traces *traces, unsigned i)
{
    return (double)traces->traces[i].us / 1e6;
}

static void note(const struct replay_result *result, bool off, struct bench_load *load)
{
    bench_add(&load->resident_mib, result->resident_mean / MIB);
    bench_add(&load->live_mib, result->live_mean / MIB);
    bench_add(&load->peak_mib, (double)result->resident_peak / MIB);
    bench_add(&load->refaulted_mib, (double)result->refaulted / MIB);
    bench_add(&load->page_faults, (double)result->faults);
    bench_add(&load->operations_per_s, result->records_per_s);
    bench_add(&load->engine_cpu_ms, (double)result->engine_cpu_ns / 1e6);
    bench_add(&load->batches, (double)result->report.batches);
    bench_add(&load->left_mib, (double)result->unreported / MIB);
    if (!off && result->settled)
        bench_add(&load->all_ms, (double)result->settle_ns / 1e6);
    if (!replay_sound(result))
        load->damaged = true;
}

bool bench_trace_run(const struct bench_traces *traces, unsigned i,
                     const struct bench_subject *subject, unsigned speed, struct bench_load *load)
{
    struct replay_options options = {.speed = speed, .reporting = !subject->off};
    struct replay_result *result = cmd_realloc(NULL, sizeof(*result));
    int err;

    bench_configure(subject, &options.settings);
    err = replay_run(&traces->traces[i], &options, result);
    if (err) {
        cmd_error("trace %s, %s: %s", traces->names[i], subject->name, strerror(-err));
    } else {
        note(result, subject->off, load);
        replay_result_release(result);
    }
    free(result);
    return err == 0;
}
