/* SPDX-License-Identifier: BSD-2-Clause */
/* What a person wants to know after a run. */
#include "view.h"

#include <inttypes.h>
#include <stdio.h>

/* A time after the last free; 0 ms if it was reached before that. */
static const char *duration(double ms, char *out, size_t size)
{
    if (ms < 0)
        snprintf(out, size, "never");
    else if (ms < 1000)
        snprintf(out, size, "%.0f ms", ms);
    else
        snprintf(out, size, "%.1f s", ms / 1000);
    return out;
}

static double share(const struct record_result *result)
{
    return result->freed_mib > 0 ? 100 * result->returned_mib / result->freed_mib : 0;
}

static void print_memory(const struct run *run, const struct record_result *result)
{
    const struct telemetry_event *end = &run->record.end;
    char first[32], t50[32], t90[32], t99[32];

    printf("  freed      %8.0f MiB by the guest's workload, of %" PRIu64
           " MiB that the guest has\n",
           result->freed_mib, run->options->memory >> 20);
    printf("  came back  %8.0f MiB to the host: %.1f %%\n", result->returned_mib, share(result));
    printf("  did not    %8.0f MiB\n", result->residue_mib);
    printf("  the host held %.0f MiB before the workload and %.0f MiB at most\n",
           result->baseline_mib, result->peak_mib);
    printf("  after the last free: first memory back %s, half %s, 90 %% %s, 99 %% %s\n",
           duration(result->first_ms, first, sizeof(first)),
           duration(result->t50_ms, t50, sizeof(t50)), duration(result->t90_ms, t90, sizeof(t90)),
           duration(result->t99_ms, t99, sizeof(t99)));
    if (run->record.ended)
        printf("  %" PRIu64 " reports of %" PRIu64 " MiB, of which %" PRIu64
               " MiB were taken into use again\n",
               end->reports, end->reported_kib / 1024, end->refaulted_kib / 1024);
}

static void print_verdict(const struct run *run, const struct record_result *result)
{
    char time[32];

    if (run->status != RUN_OK) {
        printf("The run did not end well (%s).\n", run_status_name(run->status));
        return;
    }
    if (!result->released) {
        printf("The workload never freed anything, so there was nothing to bring back.\n");
        return;
    }
    if (result->t99_ms >= 0)
        printf("The host had its memory back %s after the guest let go of it.\n",
               duration(result->t99_ms, time, sizeof(time)));
    else if (!run->options->reporting)
        printf("Without reporting the host keeps what the guest once used.\n");
    else if (share(result) >= 1)
        printf("The host had %.1f %% of its memory back when the run ended.\n", share(result));
    else
        printf("The host got nothing back before the run ended.\n");
}

/* Is there anything to tell but how the run ended? */
static bool has_figures(const struct run *run, const struct record_result *result)
{
    return result->released || run->status == RUN_OK || run->status == RUN_VERIFY ||
           run->status == RUN_INTERRUPTED;
}

static void print_figures(const struct run *run, const struct record_result *result)
{
    const struct telemetry_event *end = &run->record.end;

    if (result->released)
        print_memory(run, result);
    else
        printf("  the host held %.0f MiB before the workload and %.0f MiB at most\n",
               result->baseline_mib, result->peak_mib);
    if (run->record.ended)
        printf("  %" PRIu64 " checks of frames in use, %" PRIu64 " found damaged\n", end->checks,
               end->errors);
    printf("  QEMU %s used %.1f s of CPU time in %.1f s\n\n", run->qemu_version,
           (double)run->vmm_cpu_ns / 1e9, (double)(run->end_ns - run->record.start_ns) / 1e9);
}

void view_summary(const struct run *run, const struct record_result *result)
{
    printf("\n");
    if (has_figures(run, result))
        print_figures(run, result);
    print_verdict(run, result);
}
