/* SPDX-License-Identifier: BSD-2-Clause */
/* The JSON of `ebb bench trackers`: a contract, documented in SPEC.md. */
#include "bench.h"
#include "cmd.h"

#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* "The cost of a pass per block is flat": at most so much from the shortest lists to the longest.
 */
#define FLAT_FACTOR 1.5
/* "Idle costs the free path at most": percent. */
#define IDLE_PERCENT 2.0

static void add(struct json_object *json, const char *key, struct json_object *value)
{
    if (json_object_object_add(json, key, value) != 0)
        cmd_no_memory();
}

static void add_text(struct json_object *json, const char *key, const char *text)
{
    add(json, key, text ? json_object_new_string(text) : NULL);
}

static void add_count(struct json_object *json, const char *key, uint64_t value)
{
    add(json, key, json_object_new_uint64(value));
}

static void add_bool(struct json_object *json, const char *key, bool value)
{
    add(json, key, json_object_new_boolean(value));
}

static struct json_object *number(double value)
{
    char text[64];

    if (isnan(value))
        return NULL;
    snprintf(text, sizeof(text), "%.*f", fabs(value) < 100 ? 3 : 1, value);
    /* The same for who reads it from a file. */
    return json_object_new_double_s(strtod(text, NULL), text);
}

static void add_number(struct json_object *json, const char *key, double value)
{
    add(json, key, number(value));
}

static double least(const struct bench_samples *samples)
{
    double value = samples->values[0];

    for (unsigned i = 1; i < samples->n; i++)
        value = fmin(value, samples->values[i]);
    return value;
}

static double most(const struct bench_samples *samples)
{
    double value = samples->values[0];

    for (unsigned i = 1; i < samples->n; i++)
        value = fmax(value, samples->values[i]);
    return value;
}

struct json_object *bench_samples_json(const struct bench_samples *samples)
{
    struct json_object *value;

    if (samples->n == 0)
        return NULL;
    value = json_object_new_object();
    add_number(value, "median", bench_median(samples));
    add_number(value, "min", least(samples));
    add_number(value, "max", most(samples));
    return value;
}

static void add_samples(struct json_object *json, const char *key,
                        const struct bench_samples *samples)
{
    add(json, key, bench_samples_json(samples));
}

/* ---- paths ---- */

static struct json_object *path_json(const struct bench_paths *paths, unsigned path)
{
    struct json_object *json = json_object_new_object();

    add_text(json, "text", bench_path_texts[path]);
    for (unsigned mode = 0; mode < BENCH_MODES; mode++) {
        struct json_object *cell = json_object_new_object();

        add_samples(cell, "ns", &paths->ns[mode][path]);
        add_number(cell, "instructions", paths->instructions[mode][path]);
        add(json, bench_mode_names[mode], cell);
    }
    return json;
}

static struct json_object *paths_json(const struct bench_paths *paths)
{
    struct json_object *json = json_object_new_object();

    for (unsigned i = 0; i < BENCH_PATHS; i++)
        add(json, bench_path_names[i], path_json(paths, i));
    return json;
}

/* ---- passes ---- */

static struct json_object *pass_json(const struct bench_pass *pass, unsigned shape, unsigned gib)
{
    struct json_object *json = json_object_new_object();

    add_text(json, "shape", bench_shape_names[shape]);
    add_count(json, "gib", gib);
    add_number(json, "blocks", pass->blocks);
    add_number(json, "reported", pass->reported);
    add_samples(json, "ns_per_block", &pass->ns);
    add_number(json, "instructions_per_block", pass->instructions);
    add_number(json, "looked_per_block", pass->looked);
    add_number(json, "holds", pass->holds);
    add_number(json, "worst_hold_blocks", pass->worst_touched);
    add_samples(json, "worst_hold_ns", &pass->worst_ns);
    add_samples(json, "p99_hold_ns", &pass->p99_ns);
    return json;
}

static struct json_object *passes_json(const struct bench_run *run, const struct bench_row *row)
{
    struct json_object *json = json_object_new_array();

    for (unsigned shape = 0; shape < BENCH_SHAPES; shape++) {
        for (unsigned size = 0; size < run->sizes; size++) {
            if (row->passes[shape][size].ns.n > 0)
                json_object_array_add(json,
                                      pass_json(&row->passes[shape][size], shape, bench_gib[size]));
        }
    }
    return json;
}

/* A size over the shortest, measured right before it: the median of all repetitions. */
static double growth(const struct bench_row *row, unsigned shape, unsigned size)
{
    const struct bench_samples *shortest = &row->passes[shape][0].ns;
    const struct bench_samples *these = &row->passes[shape][size].ns;
    struct bench_samples ratios = {.n = 0};

    for (unsigned i = 0; i < these->n; i++)
        bench_add(&ratios, these->values[i] / shortest->values[i]);
    return bench_median(&ratios);
}

/* The dearest size over the cheapest; NaN: not measured. */
static double flatness(const struct bench_run *run, const struct bench_row *row, unsigned shape)
{
    double low = (double)NAN, high = (double)NAN;

    for (unsigned size = 0; size < run->sizes; size++) {
        low = fmin(low, growth(row, shape, size));
        high = fmax(high, growth(row, shape, size));
    }
    return high / low;
}

/* Instructions with the longest lists over those with the shortest; NaN: not counted. */
static double counted_growth(const struct bench_run *run, const struct bench_row *row,
                             unsigned shape)
{
    return row->passes[shape][run->sizes - 1].instructions / row->passes[shape][0].instructions;
}

static struct json_object *flat_json(const struct bench_run *run, const struct bench_row *row)
{
    struct json_object *json = json_object_new_object();

    for (unsigned shape = 0; shape < BENCH_SHAPES; shape++)
        add_number(json, bench_shape_names[shape], flatness(run, row, shape));
    return json;
}

/* ---- memory and loads ---- */

static struct json_object *memory_json(const struct bench_memory *memory)
{
    struct json_object *json = json_object_new_object();

    add_number(json, "frames", memory->frames);
    add_number(json, "bytes_per_frame", memory->bytes_per_frame);
    add_number(json, "metadata_resident", memory->metadata_resident);
    add_number(json, "tracker_bytes", memory->tracker_bytes);
    add_number(json, "tracker_resident", memory->tracker_resident);
    return json;
}

static struct json_object *load_json(const struct bench_load *load, const char *trace)
{
    struct json_object *json = json_object_new_object();

    if (trace)
        add_text(json, "trace", trace);
    add_samples(json, "resident_mib", &load->resident_mib);
    add_samples(json, "live_mib", &load->live_mib);
    add_samples(json, "peak_mib", &load->peak_mib);
    add_samples(json, "refaulted_mib", &load->refaulted_mib);
    add_samples(json, "page_faults", &load->page_faults);
    add_samples(json, "all_ms", &load->all_ms);
    add_samples(json, "left_mib", &load->left_mib);
    add_samples(json, "operations_per_s", &load->operations_per_s);
    add_samples(json, "engine_cpu_ms", &load->engine_cpu_ms);
    add_samples(json, "batches", &load->batches);
    add_bool(json, "damaged", load->damaged);
    return json;
}

static struct json_object *traces_json(const struct bench_run *run, const struct bench_row *row)
{
    struct json_object *json = json_object_new_array();

    for (unsigned i = 0; i < run->traces.n; i++) {
        if (row->traces[i].resident_mib.n > 0)
            json_object_array_add(json, load_json(&row->traces[i], run->traces.names[i]));
    }
    return json;
}

/* ---- rows ---- */

static struct json_object *settings_json(const struct bench_subject *subject)
{
    struct json_object *json = json_object_new_object();

    for (unsigned i = 0; i < BENCH_SETTINGS && subject->settings[i]; i++) {
        const char *text = subject->settings[i], *value = strchr(text, '=') + 1;
        char *key = cmd_format("%.*s", (int)(value - text - 1), text);

        add_text(json, key, value);
        free(key);
    }
    return json;
}

static struct json_object *row_json(const struct bench_run *run, const struct bench_row *row)
{
    const struct bench_subject *subject = row->subject;
    struct json_object *json = json_object_new_object();

    add_text(json, "name", subject->name);
    add_bool(json, "default", !subject->off && !subject->naive && row == run->rows);
    add(json, "settings", settings_json(subject));
    if (!subject->naive && !subject->off)
        add(json, "paths", paths_json(&row->paths));
    if (!subject->off) {
        add(json, "passes", passes_json(run, row));
        add(json, "flat", flat_json(run, row));
    }
    if (row->memory.frames > 0)
        add(json, "memory", memory_json(&row->memory));
    if (!subject->naive) {
        add(json, "load", row->load.resident_mib.n > 0 ? load_json(&row->load, NULL) : NULL);
        add(json, "traces", traces_json(run, row));
    }
    return json;
}

static struct json_object *rows_json(const struct bench_run *run, const struct bench_row *rows,
                                     unsigned n)
{
    struct json_object *json = json_object_new_array();

    for (unsigned i = 0; i < n; i++)
        json_object_array_add(json, row_json(run, &rows[i]));
    return json;
}

/* ---- the verdict: what was to be shown, of the default ---- */

/* Instructions with an idle engine over those without, in percent, of each path. Returns the
 * worst of those that every free of a frame takes. NaN: not counted. */
static double idle_percent(const struct bench_row *row, struct json_object *each)
{
    double percent[BENCH_PATHS];

    for (unsigned i = 0; i < BENCH_PATHS; i++) {
        percent[i] =
            100 *
            (row->paths.instructions[BENCH_IDLE][i] / row->paths.instructions[BENCH_OFF][i] - 1);
        add_number(each, bench_path_names[i], percent[i]);
    }
    return fmax(percent[BENCH_PAIR0], percent[BENCH_FREE0]);
}

static double worst_touched(const struct bench_run *run, unsigned size)
{
    double worst = (double)NAN;

    for (unsigned shape = 0; shape < BENCH_SHAPES; shape++)
        worst = fmax(worst, run->rows[0].passes[shape][size].worst_touched);
    return worst;
}

static struct json_object *verdict_json(const struct bench_run *run)
{
    const struct bench_row *row = &run->rows[0];
    struct json_object *json = json_object_new_object(), *each = json_object_new_object();
    struct json_object *touched = json_object_new_array();
    double flat = (double)NAN, counted = (double)NAN, shortest = worst_touched(run, 0),
           longest = shortest;

    add_text(json, "default", row->subject->name);
    add_number(json, "idle_percent", idle_percent(row, each));
    add_number(json, "idle_limit_percent", IDLE_PERCENT);
    add(json, "idle_percent_of", each);
    for (unsigned shape = 0; shape < BENCH_SHAPES; shape++) {
        if (shape != BENCH_SHUFFLED)
            flat = fmax(flat, flatness(run, row, shape));
        counted = fmax(counted, counted_growth(run, row, shape));
    }
    add_number(json, "flat", flat);
    add_number(json, "flat_instructions", counted);
    add_number(json, "flat_shuffled", flatness(run, row, BENCH_SHUFFLED));
    add_number(json, "flat_limit", FLAT_FACTOR);
    for (unsigned size = 0; size < run->sizes; size++) {
        longest = worst_touched(run, size);
        json_object_array_add(touched, number(longest));
    }
    add(json, "worst_hold_blocks", touched);
    add_bool(json, "hold_bounded", longest <= shortest);
    return json;
}

/* ---- the whole ---- */

static char *cpu_model(void)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256], *model = NULL;

    while (file && !model && fgets(line, sizeof(line), file)) {
        const char *colon = strchr(line, ':');

        if (strncmp(line, "model name", 10) == 0 && colon)
            model = cmd_format("%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    }
    if (file)
        fclose(file);
    return model;
}

struct json_object *bench_machine_json(void)
{
    struct json_object *json = json_object_new_object();
    struct utsname name;
    char *cpu = cpu_model();

    memset(&name, 0, sizeof(name));
    (void)uname(&name);
    add_text(json, "system", name.sysname);
    add_text(json, "release", name.release);
    add_text(json, "architecture", name.machine);
    add_text(json, "cpu", cpu);
    add_count(json, "cpus", (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
    add_count(json, "memory_mib",
              (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) >> 20);
    add_text(json, "compiler", __VERSION__);
    free(cpu);
    return json;
}

static struct json_object *counting_json(const struct bench_counting *counting)
{
    struct json_object *json = json_object_new_object();

    add_text(json, "method", counting->method);
    add_text(json, "why_not", counting->method ? NULL : counting->why);
    add(json, "deterministic",
        counting->checked ? json_object_new_boolean(counting->deterministic) : NULL);
    add(json, "linear", counting->checked ? json_object_new_boolean(counting->linear) : NULL);
    return json;
}

static struct json_object *repetitions_json(const struct bench_run *run)
{
    struct json_object *json = json_object_new_object();

    add_count(json, "paths", run->path_repetitions);
    add_count(json, "passes", run->pass_repetitions);
    add_count(json, "load", run->load_repetitions);
    add_count(json, "traces", run->trace_repetitions);
    return json;
}

struct json_object *bench_json(const struct bench_run *run)
{
    struct json_object *json = json_object_new_object();

    add_text(json, "ebb_version", EBB_VERSION);
    add_text(json, "benchmark", "trackers");
    add_text(json, "command", run->command);
    add(json, "machine", bench_machine_json());
    add_bool(json, "quick", run->quick);
    add_number(json, "seconds", run->seconds);
    add(json, "repetitions", repetitions_json(run));
    add_count(json, "replay_speed", run->speed);
    add(json, "instructions", counting_json(&run->counting));
    add(json, "verdict", verdict_json(run));
    add(json, "trackers", rows_json(run, run->rows, run->n_trackers));
    add(json, "policies", rows_json(run, run->rows + run->n_trackers, run->n_policies));
    add(json, "naive", row_json(run, run->naive));
    add(json, "off", row_json(run, run->off));
    return json;
}
