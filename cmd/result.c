/* SPDX-License-Identifier: BSD-2-Clause */
/* Write and read the JSON of a run. */
#include "result.h"
#include "cmd.h"
#include "host.h"

#include <ebb/types.h>

#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void result_add(struct json_object *json, const char *key, struct json_object *value)
{
    if (json_object_object_add(json, key, value) != 0)
        cmd_no_memory();
}

void result_add_text(struct json_object *json, const char *key, const char *text)
{
    result_add(json, key, json_object_new_string(text));
}

void result_add_count(struct json_object *json, const char *key, uint64_t value)
{
    result_add(json, key, json_object_new_uint64(value));
}

struct json_object *result_digits(double value, int digits)
{
    char text[64];

    snprintf(text, sizeof(text), "%.*f", digits, value);
    return json_object_new_double_s(value, text);
}

void result_add_mib(struct json_object *json, const char *key, double mib)
{
    result_add(json, key, result_digits(mib, 2));
}

void result_add_ms(struct json_object *json, const char *key, double ms)
{
    result_add(json, key, ms < 0 ? NULL : result_digits(ms, 1));
}

struct json_object *result_settings(const char *const *list, size_t n)
{
    struct json_object *settings = json_object_new_object();

    for (size_t i = 0; i < n; i++) {
        const char *text = list[i], *value = strchr(text, '=') + 1;
        char *key = cmd_format("%.*s", (int)(value - text - 1), text);

        result_add_text(settings, key, value);
        free(key);
    }
    return settings;
}

static struct json_object *samples_json(const struct record *record)
{
    struct json_object *samples = json_object_new_array_ext((int)record->n_samples + 1);

    for (size_t i = 0; i < record->n_samples; i++) {
        const struct record_sample *sample = &record->samples[i];
        struct json_object *row = json_object_new_array_ext(5);

        json_object_array_add(row, result_digits((double)(sample->ns - record->start_ns) / 1e6, 1));
        json_object_array_add(row, result_digits((double)sample->guest_kib / 1024, 2));
        json_object_array_add(row, result_digits((double)sample->host_kib / 1024, 2));
        json_object_array_add(row, json_object_new_uint64(sample->cpu.vcpu_ns));
        json_object_array_add(row, json_object_new_uint64(sample->cpu.other_ns));
        json_object_array_add(samples, row);
    }
    return samples;
}

/* "key=value key=value": numbers where they are such. */
static struct json_object *fields_json(const char *fields)
{
    struct json_object *json = json_object_new_object();

    while (*fields) {
        size_t len = strcspn(fields, " "), key = strcspn(fields, "=");
        char *name = cmd_format("%.*s", (int)key, fields);
        char *value = cmd_format("%.*s", (int)(len - key - 1), fields + key + 1);

        if (value[strspn(value, "0123456789")] == '\0' && strlen(value) < 20)
            result_add_count(json, name, strtoull(value, NULL, 10));
        else
            result_add_text(json, name, value);
        free(name);
        free(value);
        fields += len + strspn(fields + len, " ");
    }
    return json;
}

static struct json_object *results_json(const struct record *record)
{
    struct json_object *results = json_object_new_array();

    for (size_t i = 0; i < record->n_results; i++)
        json_object_array_add(results, fields_json(record->results[i]));
    return results;
}

static struct json_object *steps_json(const struct record *record)
{
    struct json_object *steps = json_object_new_array();

    for (size_t i = 0; i < record->n_steps; i++) {
        const struct record_step *step = &record->steps[i];
        uint64_t end = record_step_end(record, i);
        struct record_mean mean = record_mean(record, step->begin_ns, end);
        struct json_object *json = json_object_new_object();

        result_add_text(json, "cmd", step->cmd);
        result_add_ms(json, "begin_ms", (double)(step->begin_ns - record->start_ns) / 1e6);
        result_add_ms(json, "end_ms", (double)(end - record->start_ns) / 1e6);
        result_add_mib(json, "mean_resident_mib", mean.host_mib);
        result_add_mib(json, "mean_used_mib", mean.guest_mib);
        json_object_array_add(steps, json);
    }
    return steps;
}

static void add_cpu(struct json_object *json, const char *key, const struct cpu_time *time)
{
    struct json_object *pair = NULL;

    if (time) {
        pair = json_object_new_array_ext(2);
        json_object_array_add(pair, json_object_new_uint64(time->vcpu_ns));
        json_object_array_add(pair, json_object_new_uint64(time->other_ns));
    }
    result_add(json, key, pair);
}

static void add_cpu_times(struct json_object *json, const struct record *record)
{
    const struct record_sample *last =
        record->n_samples > 0 ? &record->samples[record->n_samples - 1] : NULL;

    add_cpu(json, "release_cpu_ns",
            record->release.seen && !record->release_new ? &record->release.cpu : NULL);
    add_cpu(json, "end_cpu_ns", last ? &last->cpu : NULL);
}

/* What Linux does not count is null. */
static void add_engine_totals(struct json_object *json, const struct run *run)
{
    const struct telemetry_event *end = &run->record.end;

    if (run->options->linux_guest) {
        static const char *const unknown[] = {"reports", "reported_mib", "refaulted_mib",
                                              "failed_reports"};

        for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
            result_add(json, unknown[i], NULL);
        return;
    }
    result_add_count(json, "reports", end->reports);
    result_add_mib(json, "reported_mib", (double)end->reported_kib / 1024);
    result_add_mib(json, "refaulted_mib", (double)end->refaulted_kib / 1024);
    result_add_count(json, "failed_reports", end->failed);
}

static void add_guest(struct json_object *json, const struct run_options *options)
{
    const char *kernel = options->kernel ? strrchr(options->kernel, '/') : NULL;

    result_add_text(json, "guest", options->linux_guest ? "linux" : "reference");
    result_add(json, "kernel",
               options->kernel ? json_object_new_string(kernel ? kernel + 1 : options->kernel)
                               : NULL);
    result_add(json, "append", options->append ? json_object_new_string(options->append) : NULL);
    result_add(json, "icount", json_object_new_boolean(options->icount));
    result_add(json, "pin", json_object_new_boolean(options->pin));
}

struct json_object *result_json(const struct run *run, const struct record_result *result)
{
    const struct run_options *options = run->options;
    const struct telemetry_event *end = &run->record.end;
    uint64_t errors = end->errors > run->record.n_faults ? end->errors : run->record.n_faults;
    struct json_object *json = json_object_new_object();

    result_add_text(json, "ebb_version", EBB_VERSION);
    result_add_text(json, "qemu_version", run->qemu_version);
    result_add_text(json, "command", run->command);
    result_add_text(json, "status", run_status_name(run->status));
    add_guest(json, options);
    result_add_text(json, "machine", run_machine_names[options->machine]);
    result_add_text(json, "accel", run_accel_names[run->accel]);
    result_add_text(json, "backing", run_backing_names[options->backing]);
    result_add_text(json, "host", run->backend_path ? "ebbd" : "qemu");
    result_add_text(json, "reporting", options->reporting ? "on" : "off");
    result_add_count(json, "guest_mib", options->memory >> 20);
    result_add_count(json, "cpus", options->cpus);
    result_add_text(json, "workload", options->workload);
    result_add(json, "settings", result_settings(options->settings, options->n_settings));
    result_add_mib(json, "baseline_mib", result->baseline_mib);
    result_add_mib(json, "peak_mib", result->peak_mib);
    result_add_mib(json, "freed_mib", result->freed_mib);
    result_add_mib(json, "returned_mib", result->returned_mib);
    result_add_mib(json, "residue_mib", result->residue_mib);
    result_add_ms(json, "release_ms", result->release_ms);
    result_add_ms(json, "first_ms", result->first_ms);
    result_add_ms(json, "t50_ms", result->t50_ms);
    result_add_ms(json, "t90_ms", result->t90_ms);
    result_add_ms(json, "t99_ms", result->t99_ms);
    add_engine_totals(json, run);
    result_add_count(json, "verify_checks", end->checks);
    result_add_count(json, "verify_errors", errors);
    add_cpu_times(json, &run->record);
    result_add(json, "vmm_cpu_ms", result_digits((double)run->vmm_cpu_ns / 1e6, 1));
    result_add(json, "ebbd_cpu_ms",
               run->backend_path ? result_digits((double)run->backend_cpu_ns / 1e6, 1) : NULL);
    result_add_count(json, "malformed_lines", run->malformed);
    result_add(json, "results", results_json(&run->record));
    result_add(json, "engine",
               run->record.engine[0] ? fields_json(run->record.engine) : json_object_new_object());
    result_add(json, "steps", steps_json(&run->record));
    result_add(json, "samples", samples_json(&run->record));
    return json;
}

bool result_write(struct json_object *json, const char *path)
{
    size_t len;
    const char *text = json_object_to_json_string_length(
        json, JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE, &len);
    char *lines = cmd_realloc(NULL, len + 1);
    bool ok;

    memcpy(lines, text, len);
    lines[len] = '\n';
    ok = host_write_file(path, lines, len + 1);
    free(lines);
    return ok;
}

static void complain(const char *path)
{
    const char *why = json_util_get_last_err();

    if (access(path, R_OK) != 0)
        cmd_error("cannot read %s: %s", path, strerror(errno));
    else
        cmd_error("%s is no JSON: %.*s", path, (int)strcspn(why ? why : "", "\n"), why ? why : "");
}

struct json_object *result_read(const char *path)
{
    struct json_object *json = json_object_from_file(path), *samples;

    if (!json) {
        complain(path);
        return NULL;
    }
    if (json_object_object_get_ex(json, "samples", &samples) &&
        json_object_is_type(samples, json_type_array))
        return json;
    cmd_error("%s is no result of ebb run or ebb replay: it has no samples", path);
    json_object_put(json);
    return NULL;
}

struct json_object *result_get(struct json_object *json, const char *key)
{
    struct json_object *value = NULL;

    if (json_object_is_type(json, json_type_object))
        json_object_object_get_ex(json, key, &value);
    return value;
}

size_t result_length(struct json_object *array)
{
    return json_object_is_type(array, json_type_array) ? json_object_array_length(array) : 0;
}

bool result_flag(struct json_object *json, const char *key)
{
    return json_object_get_boolean(result_get(json, key));
}

double result_number(struct json_object *json, const char *key)
{
    struct json_object *value = result_get(json, key);

    if (!json_object_is_type(value, json_type_double) && !json_object_is_type(value, json_type_int))
        return (double)NAN;
    return json_object_get_double(value);
}

const char *result_text(struct json_object *json, const char *key)
{
    struct json_object *value = result_get(json, key);

    return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;
}
