/* SPDX-License-Identifier: BSD-2-Clause */
/* The JSON of `ebb replay`, and the picture that is drawn of it. */
#include "cmd.h"
#include "plot.h"
#include "replay_view.h"
#include "result.h"

#include <ebb/types.h>

#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>

#define MIB_OF(bytes) ((double)(bytes) / (1 << 20))

/* ---- writing ---- */

static void add_memory(struct json_object *json, const struct replay_result *result)
{
    result_add_mib(json, "resident_mib", MIB_OF(result->resident_mean));
    result_add_mib(json, "resident_error_mib", MIB_OF(result->resident_error));
    result_add_mib(json, "resident_peak_mib", MIB_OF(result->resident_peak));
    result_add_mib(json, "resident_end_mib", MIB_OF(result->resident_end));
    result_add_mib(json, "resident_settled_mib", MIB_OF(result->resident_settled));
}

static void add_time(struct json_object *json, const struct replay_result *result)
{
    result_add(json, "records_per_s", result_digits(result->records_per_s, 0));
    result_add_ms(json, "wall_ms", (double)result->wall_ns / 1e6);
    result_add_ms(json, "busy_ms", (double)result->busy_ns / 1e6);
    result_add_ms(json, "stretched_ms", (double)result->stretched_ns / 1e6);
    result_add_ms(json, "cpu_ms", (double)result->cpu_ns / 1e6);
    result_add_count(json, "page_faults", result->faults);
}

static void add_requests(struct json_object *json, const struct replay_result *result)
{
    result_add_count(json, "allocs", result->allocs);
    result_add_count(json, "failed_allocs", result->failed);
    result_add_count(json, "verify_checks", result->checks);
    result_add_count(json, "verify_errors", result->errors);
    result_add_count(json, "refused_frees", result->refused);
    result_add(json, "broken_invariant",
               result->violation.what ? json_object_new_uint64(result->violation.invariant) : NULL);
}

static void add_engine(struct json_object *json, const struct replay_result *result)
{
    const struct ebb_report_stats *stats = &result->report;

    result_add_ms(json, "engine_delay_ms", (double)replay_delay_ms(&result->scaled));
    result_add_ms(json, "engine_cpu_ms", (double)result->engine_cpu_ns / 1e6);
    result_add_count(json, "passes", stats->passes);
    result_add_count(json, "reports", stats->batches);
    result_add_count(json, "failed_reports", stats->failed_batches);
    result_add_count(json, "reported_blocks", stats->reported_blocks);
    result_add_mib(json, "reported_mib", MIB_OF(stats->reported_frames * EBB_FRAME_SIZE));
    result_add_mib(json, "refaulted_mib", MIB_OF(result->refaulted));
    result_add_mib(json, "unreported_mib", MIB_OF(result->unreported));
    result_add_count(json, "punches", result->punches);
    result_add_count(json, "waits", result->waits);
    result_add_ms(json, "wait_ms", (double)result->wait_ns / 1e6);
    result_add_ms(json, "settle_ms", result->settled ? (double)result->settle_ns / 1e6 : -1);
}

static struct json_object *run_json(const struct replay_result *result, bool reporting)
{
    struct json_object *json;

    if (!result)
        return NULL;
    json = json_object_new_object();
    add_memory(json, result);
    add_time(json, result);
    add_requests(json, result);
    if (reporting)
        add_engine(json, result);
    return json;
}

static struct json_object *mib(const struct replay_result *result, size_t i)
{
    return result ? result_digits(MIB_OF(result->samples[i].resident), 2) : NULL;
}

/* Both runs were sampled at the same moments of the trace. */
static struct json_object *samples_json(const struct replay_report *report)
{
    const struct replay_result *any = report->with ? report->with : report->without;
    struct json_object *samples = json_object_new_array_ext((int)any->n_samples + 1);

    for (size_t i = 0; i < any->n_samples; i++) {
        const struct replay_sample *sample = &any->samples[i];
        struct json_object *row = json_object_new_array_ext(4);

        json_object_array_add(row, result_digits((double)sample->us / 1e3, 1));
        json_object_array_add(row, result_digits(MIB_OF(sample->live), 2));
        json_object_array_add(row, mib(report->with, i));
        json_object_array_add(row, mib(report->without, i));
        json_object_array_add(samples, row);
    }
    return samples;
}

static bool is_sound(const struct replay_result *result)
{
    return !result || replay_sound(result);
}

static void add_trace(struct json_object *json, const struct replay_report *report)
{
    const struct trace *trace = report->trace;

    result_add_text(json, "trace", report->path);
    result_add_text(json, "workload", trace->workload);
    result_add_count(json, "records", trace->n_records);
    result_add_count(json, "blocks", trace->blocks);
    result_add_count(json, "part_frees", trace->parts);
    result_add_ms(json, "duration_ms", (double)trace->us / 1e3);
}

struct json_object *replay_json(const struct replay_report *report)
{
    const struct replay_result *any = report->with ? report->with : report->without;
    struct json_object *json = json_object_new_object();
    bool sound = is_sound(report->with) && is_sound(report->without);

    result_add_text(json, "ebb_version", EBB_VERSION);
    result_add_text(json, "command", report->command);
    result_add_text(json, "status", sound ? "ok" : "verify error");
    add_trace(json, report);
    result_add_mib(json, "memory_mib", MIB_OF(report->memory));
    result_add_mib(json, "pinned_mib", MIB_OF(any->pinned));
    result_add(json, "speed", report->speed ? json_object_new_uint64(report->speed) : NULL);
    result_add(json, "settle", json_object_new_boolean(report->settle));
    result_add_text(json, "tracker", replay_tracker(&report->engine));
    result_add(json, "settings", result_settings(report->settings, report->n_settings));
    result_add_mib(json, "live_mib", MIB_OF(any->live_mean));
    result_add_mib(json, "live_peak_mib", MIB_OF(any->live_peak));
    result_add(json, "with_reporting", run_json(report->with, true));
    result_add(json, "without_reporting", run_json(report->without, false));
    result_add(json, "samples", samples_json(report));
    return json;
}

bool replay_is_result(struct json_object *json)
{
    return result_text(json, "trace") != NULL;
}

/* ---- drawing ---- */

#define N_COLUMNS 4u

/* A row of samples: seconds, MiB live, with and without reporting; NaN: not there. */
static bool row_of(struct json_object *samples, size_t i, double row[N_COLUMNS])
{
    struct json_object *array = json_object_array_get_idx(samples, i);

    if (!json_object_is_type(array, json_type_array) || json_object_array_length(array) < N_COLUMNS)
        return false;
    for (size_t k = 0; k < N_COLUMNS; k++) {
        struct json_object *value = json_object_array_get_idx(array, k);

        row[k] = value ? json_object_get_double(value) : (double)NAN;
    }
    row[0] /= 1000;
    return true;
}

static void put_rows(FILE *file, struct json_object *samples, double *top)
{
    double row[N_COLUMNS];

    fprintf(file, "$run << EOD\n");
    for (size_t i = 0; i < json_object_array_length(samples); i++) {
        if (!row_of(samples, i, row))
            continue;
        fprintf(file, "%.4f", row[0]);
        for (size_t k = 1; k < N_COLUMNS; k++) {
            if (isnan(row[k]))
                fprintf(file, " ?");
            else
                fprintf(file, " %.2f", row[k]);
            *top = fmax(*top, row[k]);
        }
        fputc('\n', file);
    }
    fprintf(file, "EOD\nset datafile missing '?'\n");
}

/* The average of a run; NaN if there was none. */
static double average(struct json_object *json, const char *which)
{
    struct json_object *run;

    if (!json_object_object_get_ex(json, which, &run) ||
        !json_object_is_type(run, json_type_object))
        return (double)NAN;
    return result_number(run, "resident_mib");
}

/* "sorted, 20 times as fast, report.window_max_ms=1000" */
static char *describe(struct json_object *json)
{
    const char *tracker = result_text(json, "tracker");
    double speed = result_number(json, "speed");
    struct json_object *settings;
    char *text, *longer;

    if (isnan(speed))
        text = cmd_format("%s, as fast as it goes", tracker ? tracker : "?");
    else
        text = cmd_format("%s, %.0f times as fast", tracker ? tracker : "?", speed);
    if (json_object_object_get_ex(json, "settings", &settings) &&
        json_object_is_type(settings, json_type_object)) {
        json_object_object_foreach(settings, key, value)
        {
            longer = cmd_format("%s, %s=%s", text, key, json_object_get_string(value));
            free(text);
            text = longer;
        }
    }
    return text;
}

static void put_curve(FILE *file, int column, const char *color, const char *style,
                      const char *what, double mean)
{
    char *name = cmd_format("%s: %.0f MiB on average", what, mean);

    fprintf(file, "$run using 1:%d with lines lw 2 %s lc rgb '%s' title ", column, style, color);
    plot_put_string(file, name);
    free(name);
}

static void put_curves(FILE *file, struct json_object *json)
{
    double with = average(json, "with_reporting"), without = average(json, "without_reporting");

    fprintf(file, "plot ");
    if (!isnan(without)) {
        put_curve(file, 4, "#6b6b6b", "dt 2", "resident without reporting", without);
        fprintf(file, ", ");
    }
    if (!isnan(with)) {
        fprintf(file, "$run using 1:3 with filledcurves y1=0 lc rgb '#1f5fa8' notitle, ");
        put_curve(file, 3, "#1f5fa8", "", "with reporting", with);
        fprintf(file, ", ");
    }
    put_curve(file, 2, "#d9772b", "", "live in the trace", result_number(json, "live_mib"));
    fputc('\n', file);
}

void replay_put_picture(FILE *file, struct json_object *json, const char *label, const char *title,
                        const char *path)
{
    const char *workload = result_text(json, "workload");
    char *subtitle = label ? cmd_format("%s", label) : describe(json), *headline;
    double top = 1, duration = result_number(json, "duration_ms");
    struct json_object *samples = NULL;

    if (title)
        headline = cmd_format("%s", title);
    else
        headline = cmd_format("The trace '%s': memory that it uses, and that stays resident",
                              workload ? workload : "?");
    json_object_object_get_ex(json, "samples", &samples);
    put_rows(file, samples, &top);
    plot_put_header(file, path, headline, subtitle);
    fprintf(file,
            "set xlabel 'seconds of the trace'\nset xrange [0:%.3f]\nset yrange [0:%.0f]\n"
            "set bmargin at screen 0.19\n"
            "set key at screen 0.5, screen 0.03 center bottom horizontal noenhanced samplen 3\n",
            duration > 0 ? duration / 1000 : 1, ceil(top * 1.08));
    put_curves(file, json);
    free(subtitle);
    free(headline);
}
