/* SPDX-License-Identifier: BSD-2-Clause */
/* The pictures of `ebb bench trackers`, from its JSON. */
#include "bench.h"
#include "cmd.h"
#include "plot.h"
#include "result.h"

#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One a tracker, then the naive one and no reporting. */
static const char *const colors[] = {"#1f5fa8", "#d9772b", "#3a8a4d", "#8b5aa6",
                                     "#a83244", "#4f9aa8", "#8a6d3b", "#6b6b6b"};
#define COLORS (sizeof(colors) / sizeof(colors[0]))
#define GREY   "#9a9a9a"

static double median_of(struct json_object *json, const char *key)
{
    return result_number(result_get(json, key), "median");
}

char *bench_machine_line(struct json_object *json)
{
    struct json_object *machine = result_get(json, "machine");
    const char *cpu = result_text(machine, "cpu");

    return cmd_format("%s, %.0f CPUs; ebb %s%s", cpu ? cpu : "?",
                      machine ? result_number(machine, "cpus") : 0,
                      result_text(json, "ebb_version"),
                      json_object_get_boolean(result_get(json, "quick")) ? "; QUICK" : "");
}

/* ---- the cost of a pass against the length of the lists ---- */

static void put_pass_data(FILE *file, struct json_object *row, const char *name)
{
    struct json_object *passes = result_get(row, "passes");

    for (unsigned shape = 0; shape < BENCH_SHAPES; shape++) {
        fprintf(file, "$%s%u << EOD\n", name, shape);
        for (size_t i = 0; i < result_length(passes); i++) {
            struct json_object *pass = json_object_array_get_idx(passes, i);
            const char *of = result_text(pass, "shape");

            if (of && strcmp(of, bench_shape_names[shape]) == 0)
                fprintf(file, "%.0f %.3f\n", result_number(pass, "blocks"),
                        median_of(pass, "ns_per_block"));
        }
        fprintf(file, "EOD\n");
    }
}

static void put_panel(FILE *file, struct json_object *trackers, unsigned shape)
{
    fprintf(file, "set title ");
    plot_put_string(file, shape == BENCH_SHUFFLED
                              ? "64 freed to either end at random, others reported"
                              : bench_shape_texts[shape]);
    fprintf(file, " font ',12'\n%s\n", shape == 0 ? "set key top left" : "unset key");
    for (size_t i = 0; i < result_length(trackers) && i < COLORS; i++) {
        const char *name = result_text(json_object_array_get_idx(trackers, i), "name");

        fprintf(file, "%s$%s%u using 1:2 with linespoints lw 2.2 pt 7 ps 0.5 lc rgb '%s' title ",
                i ? ", " : "plot ", name, shape, colors[i]);
        plot_put_string(file, name);
    }
    fprintf(file,
            ", $naive%u using 1:2 with linespoints lw 2 dt 2 pt 6 ps 0.6 lc rgb '" GREY
            "' title 'naive: from the head, each batch'\n",
            shape);
}

static void put_passes(FILE *file, struct json_object *json, const char *path)
{
    struct json_object *trackers = result_get(json, "trackers");
    char *machine = bench_machine_line(json);

    for (size_t i = 0; i < result_length(trackers); i++) {
        struct json_object *row = json_object_array_get_idx(trackers, i);

        put_pass_data(file, row, result_text(row, "name"));
    }
    put_pass_data(file, result_get(json, "naive"), "naive");
    plot_put_header(file, path, "", "");
    fprintf(file, "set multiplot layout 2,2 title ");
    plot_put_string(file, "ns per reported block, by blocks on the free list (1 to 64 GiB)");
    fprintf(file, ".\"\\n\".");
    plot_put_string(file, machine);
    fprintf(file, " font ',13'\n"
                  "set logscale xy\nset xrange [400:40000]\nset yrange [10:100000]\n"
                  "set xtics (512, 2048, 8192, 32768)\nset ytics 10\n"
                  "set ylabel 'ns per block' font ',11'\nunset xlabel\nset tics font ',10'\n"
                  "set key font ',10' samplen 2 spacing 1.1 Left reverse\n");
    for (unsigned shape = 0; shape < BENCH_SHAPES; shape++)
        put_panel(file, trackers, shape);
    fprintf(file, "unset multiplot\n");
    free(machine);
}

/* ---- loads ---- */

/* The i-th load of a row: the synthetic one, then the traces. */
static struct json_object *load_of(struct json_object *row, size_t i)
{
    struct json_object *traces = result_get(row, "traces");

    if (i == 0)
        return result_get(row, "load");
    return i - 1 < result_length(traces) ? json_object_array_get_idx(traces, i - 1) : NULL;
}

static void put_load_row(FILE *file, struct json_object *row, size_t i)
{
    struct json_object *load = load_of(row, i);

    fprintf(file, " %.3f %.3f", median_of(load, "resident_mib") - median_of(load, "live_mib"),
            median_of(load, "refaulted_mib"));
}

static size_t put_load_data(FILE *file, struct json_object *json)
{
    struct json_object *trackers = result_get(json, "trackers"), *off = result_get(json, "off");
    size_t n;

    fprintf(file, "$loads << EOD\n");
    for (n = 0; load_of(off, n); n++) {
        const char *trace = result_text(load_of(off, n), "trace");

        fprintf(file, "%s", trace ? trace : "synthetic");
        for (size_t t = 0; t < result_length(trackers); t++)
            put_load_row(file, json_object_array_get_idx(trackers, t), n);
        put_load_row(file, off, n);
        fprintf(file, "\n");
    }
    fprintf(file, "EOD\n");
    return n;
}

static void put_bars(FILE *file, struct json_object *trackers, size_t column, bool with_off)
{
    size_t t;

    for (t = 0; t < result_length(trackers) && t < COLORS; t++) {
        fprintf(file, "%s$loads using %zu%s lc rgb '%s' title ", t ? ", " : "plot ",
                2 + 2 * t + column, t ? "" : ":xtic(1)", colors[t]);
        plot_put_string(file, result_text(json_object_array_get_idx(trackers, t), "name"));
    }
    if (with_off)
        fprintf(file, ", '' using %zu lc rgb '" GREY "' title 'no reporting'", 2 + 2 * t + column);
    fputc('\n', file);
}

static void put_loads(FILE *file, struct json_object *json, const char *path)
{
    struct json_object *trackers = result_get(json, "trackers");
    char *machine = bench_machine_line(json);

    put_load_data(file, json);
    plot_put_header(file, path, "", "");
    fprintf(file, "set multiplot layout 2,1 title ");
    plot_put_string(file, "Loads under each tracker");
    fprintf(file, ".\"\\n\".");
    plot_put_string(file, machine);
    fprintf(file, " font ',13'\nset style data histograms\nset style histogram clustered gap 1\n"
                  "set style fill solid 0.8 noborder\nset yrange [0:*]\nset tics font ',10'\n"
                  "unset xlabel\nset xtics scale 0\nset key top right font ',10' samplen 2\n"
                  "set title 'resident above what is live, average over time' font ',12'\n"
                  "set ylabel 'MiB' font ',11'\n");
    put_bars(file, trackers, 0, true);
    fprintf(file, "set title 'reported and then taken into use again' font ',12'\nunset key\n");
    put_bars(file, trackers, 1, false);
    fprintf(file, "unset multiplot\n");
    free(machine);
}

/* ---- files ---- */

bool bench_draw_file(struct json_object *json, const char *directory, const char *name,
                     void (*put)(FILE *file, struct json_object *json, const char *path))
{
    char *path = cmd_format("%s/%s", directory, name), *script = NULL;
    size_t len = 0;
    FILE *file = open_memstream(&script, &len);
    bool ok;

    if (!file)
        cmd_no_memory();
    put(file, json, path);
    ok = fclose(file) == 0 && plot_run(script, path);
    free(script);
    free(path);
    return ok;
}

bool bench_draw(struct json_object *json, const char *directory)
{
    return bench_draw_file(json, directory, "trackers-passes.svg", put_passes) &&
           bench_draw_file(json, directory, "trackers-loads.svg", put_loads);
}
