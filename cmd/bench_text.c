/* SPDX-License-Identifier: BSD-2-Clause */
/* The tables of `ebb bench trackers`, from its JSON: plain, or as Markdown. */
#include "bench.h"
#include "cmd.h"
#include "result.h"
#include "table.h"

#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- JSON ---- */

static double median_of(struct json_object *json, const char *key)
{
    return result_number(result_get(json, key), "median");
}

static char *figure(double value)
{
    if (isnan(value))
        return cmd_format("-");
    return cmd_format("%.*f", fabs(value) < 10 ? 2 : fabs(value) < 1000 ? 1 : 0, value);
}

/* "12.3 (11.9-14.0)" */
static char *spread(struct json_object *samples)
{
    double middle = result_number(samples, "median"), low = result_number(samples, "min");
    double high = result_number(samples, "max");
    int digits = fabs(middle) < 100 ? 1 : 0;

    if (isnan(middle))
        return cmd_format("-");
    if (low >= high)
        return cmd_format("%.*f", digits, middle);
    return cmd_format("%.*f (%.*f-%.*f)", digits, middle, digits, low, digits, high);
}

static struct json_object *trackers_of(struct json_object *json)
{
    return result_get(json, "trackers");
}

/* The i-th of trackers and policies; NULL: no more. */
static struct json_object *row_of(struct json_object *json, size_t i)
{
    struct json_object *trackers = trackers_of(json), *policies = result_get(json, "policies");

    if (i < result_length(trackers))
        return json_object_array_get_idx(trackers, i);
    i -= result_length(trackers);
    return i < result_length(policies) ? json_object_array_get_idx(policies, i) : NULL;
}

static struct json_object *of_shape(struct json_object *row, const char *shape, unsigned gib)
{
    struct json_object *passes = result_get(row, "passes");

    for (size_t i = 0; i < result_length(passes); i++) {
        struct json_object *pass = json_object_array_get_idx(passes, i);
        const char *name = result_text(pass, "shape");

        if (name && strcmp(name, shape) == 0 && result_number(pass, "gib") == gib)
            return pass;
    }
    return NULL;
}

/* ---- the machine ---- */

static void print_head(struct json_object *json, FILE *out)
{
    struct json_object *machine = result_get(json, "machine"),
                       *counted = result_get(json, "instructions");
    const char *cpu = result_text(machine, "cpu"), *method = result_text(counted, "method");
    const char *system = result_text(machine, "system"), *release = result_text(machine, "release");
    const char *command = result_text(json, "command"), *why = result_text(counted, "why_not");

    fprintf(out, "`%s`, ebb %s, %.0f s%s\n", command ? command : "?",
            result_text(json, "ebb_version"), result_number(json, "seconds"),
            result_flag(json, "quick") ? ", QUICK: figures to look at, not to rely on" : "");
    fprintf(out, "%s %s, %s, %.0f CPUs, %.0f MiB, compiled with %s\n", system ? system : "?",
            release ? release : "?", cpu ? cpu : "?", result_number(machine, "cpus"),
            result_number(machine, "memory_mib"), result_text(machine, "compiler"));
    if (method)
        fprintf(out, "Instructions counted by %s; %s, %s.\n\n", method,
                result_flag(counted, "deterministic") ? "twice the same" : "NOT twice the same",
                result_flag(counted, "linear") ? "linear in the operations" : "NOT linear");
    else
        fprintf(out, "Instructions not counted: %s\n\n", why ? why : "?");
}

/* ---- paths ---- */

static void put_path_heads(struct table *table, struct json_object *json)
{
    table_row(table);
    table_put_text(table, "path");
    table_put_text(table, "off");
    for (size_t i = 0; i < result_length(trackers_of(json)); i++) {
        const char *name = result_text(row_of(json, i), "name");

        table_put(table, cmd_format("%s idle", name));
        table_put(table, cmd_format("%s busy", name));
    }
}

static void print_paths(struct json_object *json, bool instructions, bool markdown, FILE *out)
{
    struct table table = {.rows = 0};

    put_path_heads(&table, json);
    for (unsigned path = 0; path < BENCH_PATHS; path++) {
        table_row(&table);
        table_put_text(&table, bench_path_texts[path]);
        for (size_t i = 0; i < result_length(trackers_of(json)); i++) {
            struct json_object *cells =
                result_get(result_get(row_of(json, i), "paths"), bench_path_names[path]);

            for (unsigned mode = i == 0 ? BENCH_OFF : BENCH_IDLE; mode < BENCH_MODES; mode++) {
                struct json_object *value = result_get(cells, bench_mode_names[mode]);

                table_put(&table, instructions ? figure(result_number(value, "instructions"))
                                               : spread(result_get(value, "ns")));
            }
        }
    }
    table_print(&table, markdown, out);
}

static bool has_paths(struct json_object *row)
{
    struct json_object *cells = result_get(result_get(row, "paths"), bench_path_names[BENCH_PAIR0]);

    return !isnan(result_number(result_get(cells, bench_mode_names[BENCH_IDLE]), "instructions"));
}

/* Of the policies that were counted. */
static void print_policy_paths(struct json_object *json, bool markdown, FILE *out)
{
    struct json_object *policies = result_get(json, "policies");
    struct table table = {.rows = 0};
    bool any = false;

    for (unsigned path = 0; path < BENCH_PATHS + 1; path++) {
        table_row(&table);
        table_put_text(&table, path == 0 ? "path, idle" : bench_path_texts[path - 1]);
        for (size_t i = 0; i < result_length(policies); i++) {
            struct json_object *row = json_object_array_get_idx(policies, i), *cells;

            if (!has_paths(row))
                continue;
            any = true;
            cells = path ? result_get(result_get(row, "paths"), bench_path_names[path - 1]) : NULL;
            table_put(&table,
                      path ? figure(result_number(result_get(cells, bench_mode_names[BENCH_IDLE]),
                                                  "instructions"))
                           : cmd_format("%s", result_text(row, "name")));
        }
    }
    if (any)
        table_print(&table, markdown, out);
    else
        table_clear(&table);
}

/* ---- passes ---- */

static void put_sizes(struct table *table, const char *first)
{
    table_row(table);
    table_put_text(table, first);
    for (unsigned size = 0; size < BENCH_SIZES; size++)
        table_put(table, cmd_format("%u GiB", bench_gib[size]));
}

static void put_passes(struct table *table, struct json_object *row, unsigned shape)
{
    double flat = result_number(result_get(row, "flat"), bench_shape_names[shape]);

    table_row(table);
    table_put_text(table, result_text(row, "name"));
    for (unsigned size = 0; size < BENCH_SIZES; size++) {
        struct json_object *pass = of_shape(row, bench_shape_names[shape], bench_gib[size]);
        double ns = median_of(pass, "ns_per_block");
        char *text = spread(result_get(pass, "ns_per_block")),
             *looked = figure(result_number(pass, "looked_per_block"));

        table_put(table, isnan(ns) ? cmd_format("-") : cmd_format("%s; %s", text, looked));
        free(text);
        free(looked);
    }
    table_put(table, isnan(flat) ? cmd_format("-") : cmd_format("%.2f", flat));
}

static void print_shape(struct json_object *json, unsigned shape, bool markdown, FILE *out)
{
    struct table table = {.rows = 0};

    put_sizes(&table, bench_shape_texts[shape]);
    table_put_text(&table, "dearest/cheapest");
    for (size_t i = 0; i < result_length(trackers_of(json)); i++)
        put_passes(&table, row_of(json, i), shape);
    put_passes(&table, result_get(json, "naive"), shape);
    table_print(&table, markdown, out);
}

static void put_holds(struct table *table, struct json_object *row, unsigned shape)
{
    struct json_object *pass = NULL;

    table_row(table);
    table_put(table, cmd_format("%s, %s", result_text(row, "name"), bench_shape_names[shape]));
    for (unsigned size = 0; size < BENCH_SIZES; size++) {
        struct json_object *found = of_shape(row, bench_shape_names[shape], bench_gib[size]);

        table_put(table, found ? cmd_format("%.0f", result_number(found, "worst_hold_blocks"))
                               : cmd_format("-"));
        pass = found ? found : pass;
    }
    table_put(table, spread(result_get(pass, "p99_hold_ns")));
    table_put(table, spread(result_get(pass, "worst_hold_ns")));
}

static void print_holds(struct json_object *json, bool markdown, FILE *out)
{
    struct table table = {.rows = 0};

    put_sizes(&table, "blocks touched in the worst hold");
    table_put_text(&table, "p99 ns, largest");
    table_put_text(&table, "worst ns, largest");
    for (size_t i = 0; i < result_length(trackers_of(json)); i++) {
        for (unsigned shape = 0; shape < BENCH_SHAPES; shape++)
            put_holds(&table, row_of(json, i), shape);
    }
    table_print(&table, markdown, out);
}

/* Of the shortest lists and the longest. */
static void print_pass_counts(struct json_object *json, bool markdown, FILE *out)
{
    struct table table = {.rows = 0};

    put_sizes(&table, "instructions per block");
    for (size_t i = 0; i < result_length(trackers_of(json)); i++) {
        for (unsigned shape = 0; shape < BENCH_SHUFFLED; shape++) {
            struct json_object *row = row_of(json, i);

            table_row(&table);
            table_put(&table,
                      cmd_format("%s, %s", result_text(row, "name"), bench_shape_names[shape]));
            for (unsigned size = 0; size < BENCH_SIZES; size++)
                table_put(&table, figure(result_number(
                                      of_shape(row, bench_shape_names[shape], bench_gib[size]),
                                      "instructions_per_block")));
        }
    }
    table_print(&table, markdown, out);
}

/* ---- memory ---- */

static void print_memory(struct json_object *json, bool markdown, FILE *out)
{
    struct table table = {.rows = 0};

    table_row(&table);
    table_put_text(&table, "tracker");
    table_put_text(&table, "bytes a frame, all metadata");
    table_put_text(&table, "resident KiB");
    table_put_text(&table, "bytes of the tracker");
    table_put_text(&table, "resident bytes of it");
    for (size_t i = 0; i < result_length(trackers_of(json)); i++) {
        struct json_object *memory = result_get(row_of(json, i), "memory");

        table_row(&table);
        table_put_text(&table, result_text(row_of(json, i), "name"));
        table_put(&table, figure(result_number(memory, "bytes_per_frame")));
        table_put(&table, cmd_format("%.0f", result_number(memory, "metadata_resident") / 1024));
        table_put(&table, cmd_format("%.0f", result_number(memory, "tracker_bytes")));
        table_put(&table, cmd_format("%.0f", result_number(memory, "tracker_resident")));
    }
    table_print(&table, markdown, out);
}

/* ---- loads ---- */

static char *thousands(double value)
{
    return isnan(value) ? cmd_format("-") : cmd_format("%.0f", value / 1000);
}

static void put_load(struct table *table, const char *name, struct json_object *load)
{
    double over = median_of(load, "resident_mib") - median_of(load, "live_mib");

    table_row(table);
    table_put_text(table, name);
    table_put(table, spread(result_get(load, "resident_mib")));
    table_put(table, figure(over));
    table_put(table, spread(result_get(load, "refaulted_mib")));
    table_put(table, thousands(median_of(load, "page_faults")));
    table_put(table, spread(result_get(load, "all_ms")));
    table_put(table, figure(median_of(load, "left_mib")));
    table_put(table, thousands(median_of(load, "operations_per_s")));
    table_put(table, figure(median_of(load, "batches")));
    table_put(table, spread(result_get(load, "engine_cpu_ms")));
}

static void put_load_heads(struct table *table, const char *first)
{
    table_row(table);
    table_put_text(table, first);
    table_put_text(table, "resident MiB");
    table_put_text(table, "above live");
    table_put_text(table, "refaulted MiB");
    table_put_text(table, "1000 faults");
    table_put_text(table, "all reported, ms");
    table_put_text(table, "left MiB");
    table_put_text(table, "1000 op/s");
    table_put_text(table, "batches");
    table_put_text(table, "engine CPU ms");
}

static struct json_object *trace_of(struct json_object *row, const char *name)
{
    struct json_object *traces = result_get(row, "traces");

    for (size_t i = 0; i < result_length(traces); i++) {
        struct json_object *load = json_object_array_get_idx(traces, i);
        const char *other = result_text(load, "trace");

        if (other && strcmp(other, name) == 0)
            return load;
    }
    return NULL;
}

/* trace NULL: the synthetic load. */
static void print_load(struct json_object *json, const char *trace, bool markdown, FILE *out)
{
    struct table table = {.rows = 0};
    struct json_object *row, *last = result_get(json, "off"), *load;

    put_load_heads(&table, trace ? trace : "synthetic load");
    for (size_t i = 0; (row = row_of(json, i)) != NULL; i++) {
        load = trace ? trace_of(row, trace) : result_get(row, "load");
        if (load)
            put_load(&table, result_text(row, "name"), load);
    }
    load = trace ? trace_of(last, trace) : result_get(last, "load");
    if (load)
        put_load(&table, result_text(last, "name"), load);
    table_print(&table, markdown, out);
}

static void print_loads(struct json_object *json, bool markdown, FILE *out)
{
    struct json_object *traces = result_get(result_get(json, "off"), "traces");

    print_load(json, NULL, markdown, out);
    for (size_t i = 0; i < result_length(traces); i++)
        print_load(json, result_text(json_object_array_get_idx(traces, i), "trace"), markdown, out);
    if (result_length(traces) == 0)
        fprintf(out, "No traces were replayed.\n\n");
}

/* ---- the verdict ---- */

static const char *held(bool yes)
{
    return yes ? "holds" : "DOES NOT HOLD";
}

static void print_verdict(struct json_object *json, bool markdown, FILE *out)
{
    struct json_object *verdict = result_get(json, "verdict"),
                       *touched = result_get(verdict, "worst_hold_blocks");
    const char *name = result_text(verdict, "default"), *bullet = markdown ? "- " : "  ";
    double idle = result_number(verdict, "idle_percent"), flat = result_number(verdict, "flat");
    double limit = result_number(verdict, "idle_limit_percent");
    double counted = result_number(verdict, "flat_instructions");
    double factor = result_number(verdict, "flat_limit");
    bool quick = result_flag(json, "quick");

    if (isnan(idle))
        fprintf(out, "%sidle reporting costs the free path at most %.0f %%: NOT COUNTED\n", bullet,
                limit);
    else
        fprintf(
            out,
            "%sidle reporting costs the free path at most %.0f %% of its instructions: "
            "%+.2f %%: %s (order 9: a pair %+.2f %%; a burst of frees, its one request "
            "included, %+.2f %%)\n",
            bullet, limit, idle, held(idle <= limit),
            result_number(result_get(verdict, "idle_percent_of"), bench_path_names[BENCH_PAIR9]),
            result_number(result_get(verdict, "idle_percent_of"), bench_path_names[BENCH_FREE9]));
    fprintf(out, "%sthe cost of a pass per block is flat within %.1f, by ns:", bullet, factor);
    for (unsigned shape = 0; shape < BENCH_SHUFFLED; shape++)
        fprintf(out, "%s %s %.2f", shape > 0 ? "," : "", bench_shape_names[shape],
                result_number(result_get(row_of(json, 0), "flat"), bench_shape_names[shape]));
    fprintf(out, ": %s (with shuffled lists %.2f: %s)\n",
            quick ? "a QUICK run cannot say" : held(flat <= factor),
            result_number(verdict, "flat_shuffled"),
            quick ? "nor this" : held(result_number(verdict, "flat_shuffled") <= factor));
    if (!isnan(counted))
        fprintf(out, "%s  by instructions, which no cache and no neighbour can change: %.2f: %s\n",
                bullet, counted, held(counted <= factor));
    fprintf(out,
            "%sa hold of the lock touches at most so many blocks, whatever the length:", bullet);
    for (size_t i = 0; i < result_length(touched); i++)
        fprintf(out, " %.0f", json_object_get_double(json_object_array_get_idx(touched, i)));
    fprintf(out, ": %s\n%s(all of the default, %s)\n", held(result_flag(verdict, "hold_bounded")),
            bullet, name);
}

/* ---- all ---- */

bool bench_print(struct json_object *json, bool markdown, FILE *out)
{
    print_head(json, out);
    table_print_title(
        "Instructions on the allocator's paths",
        "an operation each; idle: registered, everything reported; busy: a batch is with "
        "the host, requests come in",
        markdown, out);
    print_paths(json, true, markdown, out);
    print_policy_paths(json, markdown, out);
    table_print_title("Nanoseconds on the allocator's paths",
                      "median (range); busy: another thread runs pass after pass", markdown, out);
    print_paths(json, false, markdown, out);
    table_print_title(
        "A pass",
        "ns per reported block; blocks looked at per reported block; dearest/cheapest: of "
        "the medians of each length's ratio to 1 GiB, measured right before",
        markdown, out);
    for (unsigned shape = 0; shape < BENCH_SHAPES; shape++)
        print_shape(json, shape, markdown, out);
    print_pass_counts(json, markdown, out);
    table_print_title("Holds of the zone's lock in a pass", "", markdown, out);
    print_holds(json, markdown, out);
    table_print_title("Memory", "of a zone of 16 GiB that was never used and is reported", markdown,
                      out);
    print_memory(json, markdown, out);
    table_print_title("Loads", "on memory that is touched and punched; averages are over time",
                      markdown, out);
    print_loads(json, markdown, out);
    table_print_title("What was to be shown", "", markdown, out);
    print_verdict(json, markdown, out);
    return !ferror(out);
}

static bool row_sound(struct json_object *row)
{
    struct json_object *traces = result_get(row, "traces");
    bool sound = !result_flag(result_get(row, "load"), "damaged");

    for (size_t i = 0; i < result_length(traces); i++)
        sound = sound && !result_flag(json_object_array_get_idx(traces, i), "damaged");
    return sound;
}

bool bench_sound(struct json_object *json)
{
    bool sound = row_sound(result_get(json, "off"));
    struct json_object *row;

    for (size_t i = 0; (row = row_of(json, i)) != NULL; i++) {
        if (row_sound(row))
            continue;
        cmd_error("%s: a frame in use lost its contents", result_text(row, "name"));
        sound = false;
    }
    return sound;
}
