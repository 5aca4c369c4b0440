/* SPDX-License-Identifier: BSD-2-Clause */
/* Draw runs with gnuplot, and `ebb plot`, which does it for saved ones. */
#include "plot.h"
#include "args.h"
#include "child.h"
#include "cmd.h"
#include "host.h"
#include "replay_view.h"
#include "result.h"
#include "text.h"

#include <argp.h>
#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS_MAX 60.0 /* that gnuplot may take */

/* One colour a run; one blue and one orange, that go well together, for the first two. */
static const char *const colors[PLOT_RUNS] = {"#1f5fa8", "#d9772b", "#3a8a4d", "#8b5aa6",
                                              "#a83244", "#4f9aa8", "#8a6d3b", "#6b6b6b"};

void plot_put_string(FILE *file, const char *text)
{
    fputc('\'', file);
    for (; *text; text++) {
        if (*text == '\'')
            fputc('\'', file);
        fputc((unsigned char)*text < ' ' ? ' ' : *text, file);
    }
    fputc('\'', file);
}

static bool sample(struct json_object *samples, size_t i, double *ms, double *guest, double *host)
{
    struct json_object *row = json_object_array_get_idx(samples, i);

    if (!json_object_is_type(row, json_type_array) || json_object_array_length(row) < 3)
        return false;
    *ms = json_object_get_double(json_object_array_get_idx(row, 0));
    *guest = json_object_get_double(json_object_array_get_idx(row, 1));
    *host = json_object_get_double(json_object_array_get_idx(row, 2));
    return true;
}

static struct json_object *samples_of(struct json_object *run)
{
    struct json_object *samples = NULL;

    json_object_object_get_ex(run, "samples", &samples);
    return samples;
}

/* What is second 0: the release, if there was one. */
static double origin(struct json_object *run)
{
    double release = result_number(run, "release_ms");

    return isnan(release) ? 0 : release;
}

static void put_data(FILE *file, struct json_object *run, size_t index)
{
    struct json_object *samples = samples_of(run);
    double zero = origin(run), ms, guest, host;

    fprintf(file, "$run%zu << EOD\n", index);
    for (size_t i = 0; i < json_object_array_length(samples); i++) {
        if (sample(samples, i, &ms, &guest, &host))
            fprintf(file, "%.4f %.2f %.2f\n", (ms - zero) / 1000, guest, host);
    }
    fprintf(file, "EOD\n");
}

/* What the host held when so many ms had passed since the release. */
static double host_at(struct json_object *run, double after_ms)
{
    struct json_object *samples = samples_of(run);
    double at = origin(run) + after_ms, ms, guest, host;

    for (size_t i = 0; i < json_object_array_length(samples); i++) {
        if (sample(samples, i, &ms, &guest, &host) && ms >= at - 0.06)
            return host;
    }
    return 0;
}

static const struct mark {
    const char *key, *text;
} marks[] = {{"t50_ms", "half"}, {"t90_ms", "90 %"}, {"t99_ms", "99 %"}};

#define N_MARKS (sizeof(marks) / sizeof(marks[0]))

/* "half back after 61 ms" */
static void put_time(char *out, size_t size, const char *what, double ms)
{
    char time[32];

    if (ms < 1)
        snprintf(out, size, "%s back by the last free", what);
    else
        snprintf(out, size, "%s back after %s", what, text_duration(ms, time, sizeof(time)));
}

/* Points on the curve where 50, 90 and 99 % were back. */
static void put_points(FILE *file, struct json_object *run, const char *color)
{
    for (size_t i = 0; i < N_MARKS; i++) {
        double ms = result_number(run, marks[i].key);

        if (!isnan(ms))
            fprintf(file, "set label '' at %.4f,%.2f point pt 7 ps 0.8 lc rgb '%s' front\n",
                    ms / 1000, host_at(run, ms), color);
    }
}

/* What they are, beside them: each at least a line above the next. Of several
 * at one point the last says it for all. */
static void put_labels(FILE *file, struct json_object *run, double top)
{
    double line = top * 0.05, lowest = line / 2, below = -1;
    char label[64];

    for (size_t i = N_MARKS; i-- > 0;) {
        double ms = result_number(run, marks[i].key);

        if (isnan(ms) || ms == below)
            continue;
        below = ms;
        lowest = fmax(lowest, host_at(run, ms));
        put_time(label, sizeof(label), marks[i].text, ms);
        fprintf(file, "set label ");
        plot_put_string(file, label);
        fprintf(file, " at %.4f,%.2f left offset 1.2,0 textcolor rgb '#222222' front\n", ms / 1000,
                lowest);
        lowest += line;
    }
}

/* "q35, tcg, memfd, 2 CPUs, QEMU 7.2.22" */
static char *describe(struct json_object *run)
{
    const char *machine = result_text(run, "machine"), *accel = result_text(run, "accel");
    const char *backing = result_text(run, "backing"), *qemu = result_text(run, "qemu_version");
    double mib = result_number(run, "guest_mib"), cpus = result_number(run, "cpus");

    return cmd_format("%.0f MiB guest, %.0f CPU%s, %s, %s, %s, QEMU %s", isnan(mib) ? 0 : mib,
                      isnan(cpus) ? 0 : cpus, cpus < 1.5 ? "" : "s", machine ? machine : "?",
                      accel ? accel : "?", backing ? backing : "?", qemu ? qemu : "?");
}

/* "report.pacing=delay report.budget=16", or what else is special about a run. */
static char *settings_of(struct json_object *run)
{
    struct json_object *settings;
    const char *reporting = result_text(run, "reporting");
    char *text =
        cmd_format("%s", reporting && strcmp(reporting, "off") == 0 ? "reporting off" : "");

    if (json_object_object_get_ex(run, "settings", &settings) &&
        json_object_is_type(settings, json_type_object)) {
        json_object_object_foreach(settings, key, value)
        {
            char *longer =
                cmd_format("%s%s%s=%s", text, *text ? " " : "", key, json_object_get_string(value));
            free(text);
            text = longer;
        }
    }
    if (!*text) {
        free(text);
        text = cmd_format("default settings");
    }
    return text;
}

void plot_put_header(FILE *file, const char *path, const char *title, const char *subtitle)
{
    const char *dot = strrchr(path, '.');

    if (dot && strcmp(dot, ".png") == 0)
        fprintf(file, "set terminal pngcairo noenhanced size 1100,620 font 'Sans,12' "
                      "background rgb '#ffffff'\n");
    else
        fprintf(file, "set terminal svg noenhanced size 960,540 font 'sans-serif,14' "
                      "background rgb '#ffffff'\n");
    fprintf(file, "set encoding utf8\n"
                  "set title ");
    plot_put_string(file, title);
    fprintf(file, ".\"\\n\".");
    plot_put_string(file, subtitle);
    fprintf(file, "\nset grid ytics lc rgb '#dddddd' lt 1\n"
                  "set border 3 lc rgb '#666666'\n"
                  "set tics nomirror\n"
                  "set ylabel 'memory (MiB)'\n"
                  "set style fill solid 0.18 noborder\n");
}

/* The line at the release, and the scales. */
static void put_axes(FILE *file, bool released, double first, double last, double top)
{
    if (released)
        fprintf(file, "set xlabel 'seconds since the guest freed the last frame'\n"
                      "set arrow from 0, graph 0 to 0, graph 1 nohead dt 2 lc rgb '#666666' front\n"
                      "set label 'last free' at 0, graph 0.97 right offset -0.6,0 "
                      "textcolor rgb '#444444' front\n");
    else
        fprintf(file, "set xlabel 'seconds since QEMU was started'\n");
    fprintf(file,
            "set xrange [%.3f:%.3f]\nset yrange [0:%.0f]\n"
            "set bmargin at screen 0.19\n"
            "set key at screen 0.5, screen 0.03 center bottom horizontal noenhanced samplen 3\n",
            first, last, top);
}

/* Seconds of the first and the last sample, and the largest value. */
static void extent(struct json_object *run, double *first, double *last, double *top)
{
    struct json_object *samples = samples_of(run);
    double zero = origin(run), ms, guest, host;

    for (size_t i = 0; i < json_object_array_length(samples); i++) {
        if (!sample(samples, i, &ms, &guest, &host))
            continue;
        *first = fmin(*first, (ms - zero) / 1000);
        *last = fmax(*last, (ms - zero) / 1000);
        *top = fmax(*top, fmax(guest, host));
    }
}

static void put_single(FILE *file, struct json_object *run, const char *label, const char *title,
                       const char *path)
{
    bool released = !isnan(result_number(run, "release_ms"));
    double first = 0, last = 0.1, top = 1;
    char *machine = describe(run), *settings = label ? cmd_format("%s", label) : settings_of(run);
    char *subtitle = cmd_format("%s, %s", machine, settings), *headline;

    if (title)
        headline = cmd_format("%s", title);
    else if (released)
        headline = cmd_format("The guest frees %.0f MiB, the host gets %.0f MiB back",
                              result_number(run, "freed_mib"), result_number(run, "returned_mib"));
    else
        headline = cmd_format("Memory of a guest, and what the host holds of it");
    extent(run, &first, &last, &top);
    plot_put_header(file, path, headline, subtitle);
    put_axes(file, released, first, last, top * 1.12);
    put_points(file, run, colors[0]);
    put_labels(file, run, top * 1.12);
    fprintf(file,
            "plot $run0 using 1:3 with filledcurves y1=0 lc rgb '%s' notitle, "
            "'' using 1:3 with lines lw 2.2 lc rgb '%s' title 'held by the host', "
            "'' using 1:2 with lines lw 2.2 lc rgb '%s' title 'in use by the guest'\n",
            colors[0], colors[0], colors[1]);
    free(machine);
    free(settings);
    free(subtitle);
    free(headline);
}

/* One curve of several; its name says how long 99 % took. */
static void put_curve(FILE *file, struct json_object *run, const char *label, size_t i)
{
    char *settings = label ? cmd_format("%s", label) : settings_of(run);
    char time[64] = "99 % not back by the end";
    double t99 = result_number(run, "t99_ms");
    char *name;

    if (!isnan(t99))
        put_time(time, sizeof(time), "99 %", t99);
    name = cmd_format("%s: %s", settings, time);
    fprintf(file, "%s$run%zu using 1:3 with lines lw 2.4 lc rgb '%s' title ", i ? ", " : "plot ", i,
            colors[i]);
    plot_put_string(file, name);
    free(settings);
    free(name);
}

static void put_several(FILE *file, struct json_object *const *runs, const char *const *labels,
                        size_t n, const char *title, const char *path)
{
    double first = 0, last = 0.1, top = 1, end = 0;
    char *subtitle = describe(runs[0]);

    for (size_t i = 0; i < n; i++) {
        double t99 = result_number(runs[i], "t99_ms"), own_last = 0;

        extent(runs[i], &first, &own_last, &top);
        last = fmax(last, own_last);
        end = fmax(end, isnan(t99) ? own_last : t99 / 1000 * 1.25);
    }
    plot_put_header(file, path,
                    title ? title : "What the host holds after the guest frees its memory",
                    subtitle);
    /* Of the time before the release only as much as shows where it starts. */
    last = fmin(last, fmax(end, 0.5));
    first = fmax(first, -last / 8);
    put_axes(file, true, first, last, top * 1.12);
    fprintf(file, "unset bmargin\n"
                  "set key inside top right vertical Left reverse noenhanced samplen 3\n"
                  "set key spacing 1.3\n");
    for (size_t i = 0; i < n; i++)
        put_points(file, runs[i], colors[i]);
    for (size_t i = 0; i < n; i++)
        put_curve(file, runs[i], labels ? labels[i] : NULL, i);
    fputc('\n', file);
    free(subtitle);
}

static void put_runs(FILE *file, struct json_object *const *runs, const char *const *labels,
                     size_t n, const char *title, const char *path)
{
    for (size_t i = 0; i < n; i++)
        put_data(file, runs[i], i);
    if (n == 1)
        put_single(file, runs[0], labels ? labels[0] : NULL, title, path);
    else
        put_several(file, runs, labels, n, title, path);
}

bool plot_run(const char *script, const char *path)
{
    /* -d: without anybody's start-up files. */
    char *const argv[] = {(char *)"gnuplot", (char *)"-d", NULL};
    size_t len = 0;
    char *out, *err;
    int status = child_run(argv, script, SECONDS_MAX, &out, &len, &err);
    bool ok = status == 0 && len > 0;

    if (ok)
        ok = host_write_file(path, out, len);
    else if (status < 0)
        cmd_error("gnuplot: %s", strerror(-status));
    else
        cmd_error("gnuplot could not draw %s%s%s", path, *err ? ":\n" : "", err);
    free(out);
    free(err);
    return ok;
}

bool plot_check(void)
{
    char *path = host_find_program("gnuplot");
    bool found = path;

    if (!found)
        cmd_error("gnuplot, which draws the pictures, was not found: "
                  "please install it (Debian: apt-get install gnuplot-nox).");
    free(path);
    return found;
}

bool plot_draw(struct json_object *const *runs, const char *const *labels, size_t n,
               const char *title, const char *path)
{
    char *script = NULL;
    size_t len = 0;
    FILE *file = open_memstream(&script, &len);
    bool ok;

    if (!file) {
        cmd_error("out of memory");
        return false;
    }
    if (replay_is_result(runs[0]))
        replay_put_picture(file, runs[0], labels ? labels[0] : NULL, title, path);
    else
        put_runs(file, runs, labels, n, title, path);
    ok = fclose(file) == 0 && plot_run(script, path);
    free(script);
    return ok;
}

/* ---- ebb plot ---- */

struct plot_options {
    const char *files[PLOT_RUNS], *labels[PLOT_RUNS];
    size_t n_files, n_labels;
    const char *out, *title;
};

static const struct argp_option argp_options[] = {
    {"output", 'o', "FILE", 0, "The picture: FILE.svg or FILE.png", 0},
    {"label", 'l', "TEXT", 0,
     "Name of a run, instead of its settings; once for each file, in order", 0},
    {"title", 't', "TEXT", 0, "Title of the picture", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct plot_options *options = state->input;

    switch (key) {
    case 'o':
        options->out = args_picture(state, "output", arg);
        return 0;
    case 'l':
        if (options->n_labels == PLOT_RUNS)
            argp_error(state, "at most %u labels", PLOT_RUNS);
        else
            options->labels[options->n_labels++] = arg;
        return 0;
    case 't':
        options->title = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (options->n_files == PLOT_RUNS)
            argp_error(state, "at most %u runs go into one picture", PLOT_RUNS);
        else
            options->files[options->n_files++] = arg;
        return 0;
    case ARGP_KEY_END:
        if (options->n_files == 0)
            argp_error(state, "which results? Name the JSON files of ebb run --json");
        if (!options->out)
            argp_error(state, "--output is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static bool go_together(struct json_object *const *runs, size_t n, const char *const *files)
{
    for (size_t i = 0; n > 1 && i < n; i++) {
        if (replay_is_result(runs[i])) {
            cmd_error("%s is of ebb replay, which has a picture of its own", files[i]);
            return false;
        }
    }
    return true;
}

int ebb_cmd_plot(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options,
        .parser = parse,
        .args_doc = "RESULT.json...",
        .doc = "Draw the results of `ebb run --json`. One: the guest's memory in use and what the "
               "host held of it. Several: what the host held, side by side, from the moment at "
               "which each guest let go of its memory. A result of `ebb replay --json` is drawn by "
               "itself."};
    struct plot_options options = {.n_files = 0};
    struct json_object *runs[PLOT_RUNS];
    size_t n = 0;
    bool ok;

    cmd_argp_setup();
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    ok = plot_check() && host_check_writable("--output", options.out);
    while (ok && n < options.n_files) {
        runs[n] = result_read(options.files[n]);
        ok = runs[n] != NULL;
        n += ok;
    }
    ok = ok && go_together(runs, n, options.files);
    ok = ok && plot_draw(runs, options.labels, n, options.title, options.out);
    while (n > 0)
        json_object_put(runs[--n]);
    return ok ? CMD_OK : CMD_HOST;
}
