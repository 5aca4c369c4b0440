/* SPDX-License-Identifier: BSD-2-Clause */
/* What a person wants to know after a replay. */
#include "replay_view.h"
#include "text.h"

#include <ebb/types.h>

#include <inttypes.h>
#include <math.h>

#define MIB_OF(bytes) ((double)(bytes) / (1 << 20))

/* Of a trace, where parts of an answer are about nothing. */
#define LITTLE_MIB 1.0

static void print_what(const struct replay_report *report)
{
    const struct trace *trace = report->trace;
    const struct replay_result *any = report->with ? report->with : report->without;
    char time[32];

    printf("%s: %zu records of %s, ", trace->workload, trace->n_records,
           text_duration((double)trace->us / 1e3, time, sizeof(time)));
    if (report->speed)
        printf("played %u times as fast", report->speed);
    else
        printf("played as fast as it goes");
    printf(", in %.0f MiB\nof which %.0f MiB were in use before and do not count below.\n\n",
           MIB_OF(report->memory), MIB_OF(any->pinned));
}

/* One figure of the run with reporting and of the one without. */
static void print_row(const struct replay_report *report, const char *what,
                      double (*figure)(const struct replay_result *result), const char *unit)
{
    printf("  %-28s", what);
    if (report->with)
        printf(" %12.*f", *unit ? 1 : 0, figure(report->with));
    if (report->without)
        printf(" %12.*f", *unit ? 1 : 0, figure(report->without));
    printf(" %s\n", unit);
}

static double live_mean(const struct replay_result *result)
{
    return MIB_OF(result->live_mean);
}

static double resident_mean(const struct replay_result *result)
{
    return MIB_OF(result->resident_mean);
}

static double resident_peak(const struct replay_result *result)
{
    return MIB_OF(result->resident_peak);
}

static double resident_end(const struct replay_result *result)
{
    return MIB_OF(result->resident_end);
}

static double records_per_s(const struct replay_result *result)
{
    return result->records_per_s;
}

static double page_faults(const struct replay_result *result)
{
    return (double)result->faults;
}

static double cpu_ms(const struct replay_result *result)
{
    return (double)result->cpu_ns / 1e6;
}

static double engine_ms(const struct replay_result *result)
{
    return (double)result->engine_cpu_ns / 1e6;
}

static void print_table(const struct replay_report *report)
{
    printf("  %-28s%s%s\n", "", report->with ? "    reporting" : "",
           report->without ? " no reporting" : "");
    print_row(report, "live in the trace", live_mean, "MiB on average");
    print_row(report, "resident", resident_mean, "MiB on average");
    print_row(report, "  at most", resident_peak, "MiB");
    print_row(report, "  at the end", resident_end, "MiB");
    print_row(report, "records per second", records_per_s, "");
    print_row(report, "page faults", page_faults, "");
    print_row(report, "CPU time of the replay", cpu_ms, "ms");
    print_row(report, "  of engine and device", engine_ms, "ms");
}

static void print_engine(const struct replay_report *report)
{
    const struct replay_result *with = report->with;
    char time[32];

    printf("  %" PRIu64 " reports: %.0f MiB in %" PRIu64 " blocks, %" PRIu64
           " holes punched; %.0f MiB used again\n",
           with->report.batches, MIB_OF(with->report.reported_frames * EBB_FRAME_SIZE),
           with->report.reported_blocks, with->punches, MIB_OF(with->refaulted));
    if (with->report.failed_batches > 0)
        printf("  %" PRIu64 " reports failed\n", with->report.failed_batches);
    if (with->waits > 0)
        printf("  %" PRIu64 " allocations waited for a report, %s in all\n", with->waits,
               text_duration((double)with->wait_ns / 1e6, time, sizeof(time)));
    if (with->settled)
        printf("  after the last record the engine took %s until it rested: %.1f MiB resident\n",
               text_duration((double)with->settle_ns / 1e6, time, sizeof(time)),
               MIB_OF(with->resident_settled));
    else
        printf("  the engine did not come to rest after the last record\n");
}

static void print_checks(const char *what, const struct replay_result *result)
{
    if (!result)
        return;
    if (result->failed > 0)
        printf("  %s: %" PRIu64 " of %" PRIu64 " allocations found no memory and were left out\n",
               what, result->failed, result->failed + result->allocs);
    printf("  %s: %" PRIu64 " checks of frames in use, %" PRIu64 " found damaged\n", what,
           result->checks, result->errors);
}

/* By less it makes no difference. */
#define STRETCH_PERCENT 10.0

static void print_stretch(const char *what, const struct replay_result *result)
{
    char time[32];

    if (result && (double)result->stretched_ns > (double)result->wall_ns * STRETCH_PERCENT / 100)
        printf("  %s: %s of %.1f s were work that does not go faster; trace time was stretched\n",
               what, text_duration((double)result->stretched_ns / 1e6, time, sizeof(time)),
               (double)result->wall_ns / 1e9);
}

static void print_samples(const struct replay_report *report)
{
    const struct replay_result *any = report->with ? report->with : report->without;
    double error = any->resident_error;

    if (report->with && report->without)
        error = fmax(report->with->resident_error, report->without->resident_error);
    printf("  averages of residency are of %zu samples, their standard error is at most %.2f MiB\n",
           any->n_samples, MIB_OF(error));
}

static void print_verdict(const struct replay_report *report)
{
    const struct replay_result *with = report->with, *without = report->without;
    double floor, excess, kept;

    if (!with || !without)
        return;
    floor = live_mean(with);
    excess = resident_mean(without) - floor;
    kept = resident_mean(with) - floor;
    if (excess < LITTLE_MIB)
        printf("\nThe trace uses what it once took: there was nothing to bring back.\n");
    else
        printf("\nWithout reporting the host would hold %.1f MiB more than is in use, on average. "
               "Reporting\nbrought %.1f %% of that back, and %.1f MiB stayed.\n",
               excess, 100 * (1 - kept / excess), kept);
    if (!report->speed && !report->settle)
        printf("At this speed the engine has less time than the trace had: averages say little.\n");
}

void replay_summary(const struct replay_report *report)
{
    print_what(report);
    print_table(report);
    printf("\n");
    if (report->with)
        print_engine(report);
    print_samples(report);
    print_stretch("with reporting", report->with);
    print_stretch("without", report->without);
    print_checks("with reporting", report->with);
    print_checks("without", report->without);
    print_verdict(report);
}
