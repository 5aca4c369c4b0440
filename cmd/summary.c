/* SPDX-License-Identifier: BSD-2-Clause */
/* What a person wants to know after a run. */
#include "cmd.h"
#include "text.h"
#include "view.h"

#include <inttypes.h>
#include <stdio.h>

/* For a report and what follows it; by less nothing can be judged. */
#define TIME_ENOUGH CMD_S

static void print_held(const struct record_result *result)
{
    printf("  the host held %.0f MiB before the workload and %.0f MiB at most\n",
           result->baseline_mib, result->peak_mib);
}

/* No "-0" where a page more or less was held. */
static double not_minus(double value)
{
    return value > -0.5 && value < 0 ? 0 : value;
}

static double share(const struct record_result *result)
{
    return result->freed_mib > 0 ? not_minus(100 * result->returned_mib / result->freed_mib) : 0;
}

static void print_time(const struct run *run, const char *what, double ms)
{
    char time[32];

    printf("  %-18s ", what);
    if (ms < 0)
        printf("not by the end of the run%s\n",
               run->record.window_open ? "" : ", or before memory was taken again");
    else if (ms == 0)
        printf("before the last free\n");
    else if (ms < 1)
        printf("at the last free\n");
    else
        printf("%s after the last free\n", text_duration(ms, time, sizeof(time)));
}

static void print_memory(const struct run *run, const struct record_result *result)
{
    const struct telemetry_event *end = &run->record.end;

    printf("  freed      %8.0f MiB by the workload, in a guest of %" PRIu64 " MiB\n",
           result->freed_mib, run->options->memory >> 20);
    printf("  came back  %8.0f MiB to the host: %.1f %%%s\n", not_minus(result->returned_mib),
           share(result), share(result) > 101 ? " (with memory freed before)" : "");
    printf("  did not    %8.0f MiB\n", result->residue_mib > 0 ? result->residue_mib : 0);
    print_held(result);
    print_time(run, "first memory back", result->first_ms);
    print_time(run, "half back", result->t50_ms);
    print_time(run, "90 % back", result->t90_ms);
    print_time(run, "99 % back", result->t99_ms);
    if (run->record.ended && !run->options->linux_guest)
        printf("  %" PRIu64 " reports: %" PRIu64 " MiB, what was free at boot included; %" PRIu64
               " MiB used again\n",
               end->reports, end->reported_kib / 1024, end->refaulted_kib / 1024);
}

static void print_nothing_back(const struct run *run)
{
    if (run->options->linux_guest) {
        printf(
            "The host got nothing back. Linux waits 2 s before it reports, and by default reports\n"
            "only free blocks of 2 MiB: a longer `idle` step, or\n"
            "--set page_reporting.page_reporting_order=0?\n");
        return;
    }
    if (run->record.window_open && run->end_ns - run->record.release.ns < TIME_ENOUGH)
        printf("The host got nothing back: the run ended right after the last free. A step\n"
               "`idle 2` at the end of the workload gives it time.\n");
    else
        printf("The host got nothing back. What was freed may lie in pieces too small to be\n"
               "reported: a step `zoneinfo` shows that, with --console.\n");
}

/* Why a run with a release did not see all of it come back. */
static void print_shortfall(const struct run *run, const struct record_result *result)
{
    const struct telemetry_event *end = &run->record.end;

    if (!run->options->reporting)
        printf("Without reporting the host keeps what the guest once used.\n");
    else if (!run->record.boot.reporting)
        printf("The guest did not report (it was told not to, or the balloon did not start; "
               "--console\nshows which), so the host keeps what it once used.\n");
    else if (end->failed > 0 && end->failed >= end->reports)
        printf("All of the guest's reports failed, so the host keeps what it once used.\n");
    else if (end->reports == 0 && !run->options->linux_guest)
        printf("The guest reported nothing: the run ended before a report was due (a longer\n"
               "`idle` step?), reporting was switched off, or no free block was large enough.\n");
    else if (share(result) >= 1)
        printf("The host had %.1f %% of its memory back when the run ended.\n", share(result));
    else
        print_nothing_back(run);
}

static void print_verdict(const struct run *run, const struct record_result *result)
{
    char time[32];

    if (run->status == RUN_INTERRUPTED)
        printf("The run was interrupted.\n");
    else if (run->status != RUN_OK)
        printf("The run did not end well (%s).\n", run_status_name(run->status));
    else if (!result->released || result->freed_mib == 0)
        printf("The workload never freed anything, so there was nothing to bring back.\n");
    else if (result->t99_ms < 0)
        print_shortfall(run, result);
    else if (result->t99_ms < 1)
        printf("The host had its memory back when the guest let go of the last of it.\n");
    else
        printf("The host had its memory back %s after the guest let go of it.\n",
               text_duration(result->t99_ms, time, sizeof(time)));
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
        print_held(result);
    if (run->record.ended)
        printf("  %" PRIu64 " checks of frames in use, %" PRIu64 " found damaged\n", end->checks,
               end->errors);
    printf("  QEMU %s used %.1f s of CPU time in %.1f s", run->qemu_version,
           (double)run->vmm_cpu_ns / 1e9, (double)(run->end_ns - run->record.start_ns) / 1e9);
    if (run->backend_path)
        printf(", ebbd %.2f s", (double)run->backend_cpu_ns / 1e9);
    printf("\n\n");
}

void view_summary(const struct run *run, const struct record_result *result)
{
    printf("\n");
    if (has_figures(run, result))
        print_figures(run, result);
    print_verdict(run, result);
}
