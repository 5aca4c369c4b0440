/* SPDX-License-Identifier: BSD-2-Clause */
/* The picture of `ebb bench alloc`, from its JSON: ns of each case beside LLFree's. */
#include "bench_alloc.h"
#include "cmd.h"
#include "plot.h"
#include "result.h"

#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>

#define BARS 4u

static const char *const colors[BARS] = {"#1f5fa8", "#d9772b", "#3a8a4d", "#8b5aa6"};
/* Of the peers; the last one is known with one thread only. */
static const unsigned shown[BARS - 1] = {0, 1, 3};

static struct json_object *array_of(struct json_object *json, const char *key)
{
    struct json_object *array = result_get(json, key);

    return json_object_is_type(array, json_type_array) ? array : NULL;
}

static void put_value(FILE *file, struct json_object *json, const char *key)
{
    double value = result_number(json, key);

    if (isnan(value))
        fprintf(file, " NaN");
    else
        fprintf(file, " %.3f", value);
}

static void put_case(FILE *file, struct json_object *one)
{
    const char *name = result_text(one, "case");

    fprintf(file, "%s", name ? name : "?"); /* one word */
    put_value(file, result_get(one, "ns"), "median");
    for (unsigned i = 0; i < BARS - 1; i++)
        put_value(file, result_get(one, "published"), alloc_peers[shown[i]].key);
    fputc('\n', file);
}

static bool belongs(struct json_object *one, unsigned threads, unsigned gib)
{
    return result_number(one, "threads") == threads && result_number(one, "gib") == gib;
}

/* False: there is none. */
static bool put_data(FILE *file, struct json_object *json, unsigned threads, unsigned gib)
{
    struct json_object *cases = array_of(json, "cases");
    size_t n = cases ? json_object_array_length(cases) : 0;
    bool any = false;

    for (size_t i = 0; i < n && !any; i++)
        any = belongs(json_object_array_get_idx(cases, i), threads, gib);
    if (!any)
        return false;
    fprintf(file, "$t%ug%u << EOD\n", threads, gib);
    for (size_t i = 0; i < n; i++) {
        if (belongs(json_object_array_get_idx(cases, i), threads, gib))
            put_case(file, json_object_array_get_idx(cases, i));
    }
    fprintf(file, "EOD\n");
    return true;
}

static void put_panel(FILE *file, unsigned threads, unsigned gib, bool first)
{
    fprintf(file, "set title '%u GiB, %s' font ',11'\n%s\n", gib,
            threads > 1 ? "two threads" : "one thread", first ? "set key" : "unset key");
    for (unsigned i = 0; i < (threads > 1 ? BARS - 1 : BARS); i++) {
        fprintf(file, "%s$t%ug%u using %u%s lc rgb '%s' title ", i ? ", " : "plot ", threads, gib,
                2 + i, i ? "" : ":xtic(1)", colors[i]);
        plot_put_string(file, i ? alloc_peers[shown[i - 1]].what : "ebb");
    }
    fputc('\n', file);
}

static void put_style(FILE *file, unsigned rows, unsigned columns, const char *machine)
{
    fprintf(file, "set multiplot layout %u,%u margins 0.06,0.98,0.19,0.84 spacing 0.05,0.19 title ",
            rows, columns);
    plot_put_string(file, "ns per operation; LLFree's were measured elsewhere");
    fprintf(file, ".\"\\n\".");
    plot_put_string(file, machine);
    fprintf(file, " font ',13'\nset style data histograms\nset style histogram clustered gap 1\n"
                  "set style fill solid 0.85 noborder\nset yrange [0:*]\nset tics font ',9'\n"
                  "unset xlabel\nunset ylabel\n"
                  "set xtics scale 0 rotate by 40 right\n"
                  "set key at screen 0.5, screen 0.02 center bottom horizontal font ',9' samplen 1 "
                  "width 2 Left reverse\n");
}

static void put_all(FILE *file, struct json_object *json, const char *path)
{
    char *machine = bench_machine_line(json);
    bool there[ALLOC_THREADS][ALLOC_SIZES];
    unsigned rows = 0, columns = 0;

    for (unsigned t = 0; t < ALLOC_THREADS; t++) {
        for (unsigned size = 0; size < ALLOC_SIZES; size++) {
            there[t][size] = put_data(file, json, t + 1, alloc_gib[size]);
            if (there[t][size]) {
                rows = t + 1;
                columns = size + 1 > columns ? size + 1 : columns;
            }
        }
    }
    plot_put_header(file, path, "", "");
    put_style(file, rows, columns, machine);
    for (unsigned t = 0; t < rows; t++) {
        for (unsigned size = 0; size < columns; size++) {
            if (there[t][size])
                put_panel(file, t + 1, alloc_gib[size], t == 0 && size == 0);
            else
                fprintf(file, "set multiplot next\n");
        }
    }
    fprintf(file, "unset multiplot\n");
    free(machine);
}

bool alloc_draw(struct json_object *json, const char *directory)
{
    return bench_draw_file(json, directory, "alloc.svg", put_all);
}
