/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `ebb bench`. `ebb bench trackers`: every way of finding unreported blocks, and the policies
 * beside them, measured in one run, turn and turn about, so that what this machine does
 * meanwhile hits all alike.
 */
#include "bench.h"
#include "args.h"
#include "bench_alloc.h"
#include "cmd.h"
#include "host.h"
#include "plot.h"
#include "replay.h"
#include "result.h"
#include "text.h"

#include <argp.h>
#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRACKERS (sizeof(trackers) / sizeof(trackers[0]))
#define POLICIES (sizeof(policies) / sizeof(policies[0]))

/* All with pacing=delay, whose default comes first. Sorted is how zones keep their lists anyway. */
static const struct bench_subject trackers[] = {
    {.name = "rotation", .settings = {"tracker=rotation"}, .counted = true, .replayed = true},
    {.name = "membrane", .settings = {"tracker=membrane"}, .counted = true, .replayed = true},
    {.name = "boundary", .settings = {"tracker=boundary"}, .counted = true, .replayed = true},
    {.name = "bitmap", .settings = {"tracker=bitmap"}, .counted = true, .replayed = true},
    {.name = "sorted", .settings = {"tracker=sorted"}, .counted = true, .replayed = true},
};

/* With rotation. */
static const struct bench_subject policies[] = {
    {.name = "split clear, merge never",
     .settings = {"split=clear", "merge=never"},
     .counted = true,
     .replayed = true},
    {.name = "direction descending", .settings = {"direction=descending"}},
    {.name = "inline", .settings = {"execution=inline"}, .counted = true},
    {.name = "inline, threshold 2x",
     .settings = {"execution=inline", "threshold=2x"},
     .replayed = true},
    {.name = "threshold 32", .settings = {"threshold=32"}},
    {.name = "budget 16, delay 2 s", .settings = {"budget=16", "delay_ms=2000"}, .replayed = true},
};

static const struct bench_subject naive = {.name = "naive", .naive = true};
static const struct bench_subject off = {.name = "no reporting", .off = true, .replayed = true};

/* ---- samples and subjects ---- */

void bench_add(struct bench_samples *samples, double value)
{
    if (samples->n < BENCH_REPETITIONS)
        samples->values[samples->n++] = value;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double bench_median(const struct bench_samples *samples)
{
    struct bench_samples sorted = *samples;
    unsigned half = sorted.n / 2;

    if (sorted.n == 0)
        return (double)NAN;
    qsort(sorted.values, sorted.n, sizeof(sorted.values[0]), by_value);
    return sorted.n % 2 ? sorted.values[half] : (sorted.values[half - 1] + sorted.values[half]) / 2;
}

void bench_configure(const struct bench_subject *subject, struct ebb_settings *settings)
{
    *settings = (struct ebb_settings){.history.pacing = EBB_PACING_DELAY};
    for (unsigned i = 0; i < BENCH_SETTINGS && subject->settings[i]; i++) {
        const char *text = subject->settings[i], *value = strchr(text, '=') + 1, *allowed = NULL;
        char *key = cmd_format("%.*s", (int)(value - text - 1), text);

        if (ebb_settings_set(settings, key, value, &allowed) != 0) {
            cmd_error("%s is refused, it takes %s", text, allowed ? allowed : "another key");
            exit(CMD_HOST);
        }
        free(key);
    }
}

/* ---- progress ---- */

/* What is left is judged by what went before. */
static struct {
    bool shown;
    uint64_t start;
    double done, all;
} progress;

void bench_progress_begin(double all)
{
    progress.shown = isatty(STDERR_FILENO) == 1;
    progress.start = cmd_now_ns();
    progress.all = all;
    progress.done = 0;
}

void bench_progress_show(const char *what, const char *whom)
{
    double passed = (double)(cmd_now_ns() - progress.start) / 1e9;
    double left =
        progress.done > 0 ? passed / progress.done * (progress.all - progress.done) : progress.all;

    if (progress.shown)
        fprintf(stderr, "\r\033[K%3.0f %%, about %.0f s left: %s of %s",
                100 * progress.done / progress.all, left, what, whom);
}

void bench_progress_done(double weight)
{
    progress.done += weight;
}

double bench_progress_end(void)
{
    if (progress.shown)
        fprintf(stderr, "\r\033[K");
    return (double)(cmd_now_ns() - progress.start) / 1e9;
}

/* ---- steps: run twice, once to add up the weights ---- */

struct bench {
    struct bench_run run;
    bool dry; /* adding up */
    double weight;
    bool failed;
    const char *program; /* ebb-passes */
    struct bench_scale time_scale, count_scale;
    struct bench_load_scale load_scale;
};

/* Is this step to be done? */
static bool step(struct bench *bench, double weight, const char *what, const char *whom)
{
    if (bench->dry) {
        bench->weight += weight;
        return false;
    }
    if (bench->failed)
        return false;
    bench_progress_show(what, whom);
    return true;
}

static void done(struct bench *bench, double weight, bool ok)
{
    bench_progress_done(weight);
    bench->failed = bench->failed || !ok;
}

static void do_paths(struct bench *bench, struct bench_row *row)
{
    const double weight = bench->run.quick ? 0.1 : 0.5;

    if (step(bench, weight, "paths", row->subject->name))
        done(bench, weight, bench_paths_time(row->subject, &bench->time_scale, &row->paths));
}

static void do_count(struct bench *bench, struct bench_row *row, enum bench_mode mode)
{
    const double weight = bench->run.quick ? 2 : 5;
    bool first = row == bench->run.rows;

    if (mode == BENCH_OFF && !first) {
        /* The same for all of them. */
        memcpy(row->paths.instructions[mode], bench->run.rows->paths.instructions[mode],
               sizeof(row->paths.instructions[mode]));
        return;
    }
    if (step(bench, weight, "instructions", row->subject->name)) {
        bench_count(row->subject, mode, &bench->count_scale, &bench->run.counting,
                    row->paths.instructions[mode]);
        done(bench, weight, true);
    }
}

/* Repetitions in which the holds of the lock are looked at as well. */
#define HOLD_REPETITIONS 3u

static void do_pass(struct bench *bench, struct bench_row *row, unsigned shape, unsigned size,
                    bool holds)
{
    const double weight = bench->run.quick ? 0.1 : size < 3 ? 0.1 : 0.5;
    struct bench_pass *pass = &row->passes[shape][size];

    if (step(bench, weight, "passes", row->subject->name))
        done(bench, weight,
             bench_pass_time(bench->program, row->subject, (enum bench_shape)shape, bench_gib[size],
                             pass) &&
                 (!holds || bench_pass_holds(bench->program, row->subject, (enum bench_shape)shape,
                                             bench_gib[size], pass)));
}

/* All lengths of list one right after the other: their ratio is what counts, and a machine may
 * be slow one second and fast the next. */
static void do_sizes(struct bench *bench, struct bench_row *row, unsigned shape,
                     unsigned repetition)
{
    for (unsigned size = 0; size < bench->run.sizes; size++)
        do_pass(bench, row, shape, size, repetition < HOLD_REPETITIONS);
}

static void do_pass_count(struct bench *bench, struct bench_row *row, unsigned shape, unsigned size)
{
    struct bench_pass *pass = &row->passes[shape][size];

    if (bench->run.counting.method || bench->dry) {
        if (step(bench, 2, "instructions of a pass", row->subject->name)) {
            pass->instructions = bench_count_pass(bench->program, row->subject,
                                                  (enum bench_shape)shape, bench_gib[size]);
            done(bench, 2, true);
        }
    }
}

static void do_memory(struct bench *bench, struct bench_row *row)
{
    if (step(bench, 0.1, "memory", row->subject->name))
        done(bench, 0.1, bench_pass_memory(bench->program, row->subject, &row->memory));
}

static void do_load(struct bench *bench, struct bench_row *row)
{
    const double weight = bench->run.quick ? 1 : 4;

    if (step(bench, weight, "synthetic load", row->subject->name))
        done(bench, weight, bench_load_run(row->subject, &bench->load_scale, &row->load));
}

static void do_trace(struct bench *bench, struct bench_row *row, unsigned i)
{
    const double weight = bench_trace_seconds(&bench->run.traces, i) / bench->run.speed * 1.2 + 0.5;
    char *what = cmd_format("trace %s", bench->run.traces.names[i]);

    if (step(bench, weight, what, row->subject->name))
        done(bench, weight,
             bench_trace_run(&bench->run.traces, i, row->subject, bench->run.speed,
                             &row->traces[i]));
    free(what);
}

/* ---- the run ---- */

static void all_paths(struct bench *bench)
{
    struct bench_run *run = &bench->run;

    for (unsigned i = 0; i < run->path_repetitions; i++) {
        for (unsigned t = 0; t < run->n_trackers; t++)
            do_paths(bench, &run->rows[t]);
    }
    if (step(bench, 1, "instructions", "all")) {
        bench_count_check(run->rows[0].subject, bench->count_scale.pairs0, &run->counting);
        done(bench, 1, true);
    }
    for (unsigned t = 0; t < run->n_trackers; t++) {
        for (unsigned mode = 0; mode < BENCH_MODES; mode++)
            do_count(bench, &run->rows[t], (enum bench_mode)mode);
    }
    for (unsigned r = run->n_trackers; !run->quick && r < run->n_trackers + run->n_policies; r++) {
        if (run->rows[r].subject->counted)
            do_count(bench, &run->rows[r], BENCH_IDLE);
    }
}

static void all_passes(struct bench *bench)
{
    struct bench_run *run = &bench->run;

    for (unsigned i = 0; i < run->pass_repetitions; i++) {
        for (unsigned shape = 0; shape < BENCH_SHAPES; shape++) {
            for (unsigned t = 0; t < run->n_trackers; t++)
                do_sizes(bench, &run->rows[t], shape, i);
            do_sizes(bench, run->naive, shape, i);
        }
    }
    /* The shortest lists and the longest; shuffled ones are walked for too long. */
    for (unsigned shape = 0; shape < BENCH_SHUFFLED; shape++) {
        for (unsigned t = 0; t < (run->quick ? 1 : run->n_trackers); t++) {
            do_pass_count(bench, &run->rows[t], shape, 0);
            do_pass_count(bench, &run->rows[t], shape, run->sizes - 1);
        }
    }
    for (unsigned t = 0; t < run->n_trackers; t++)
        do_memory(bench, &run->rows[t]);
}

/* The policies fewer times than the trackers. */
static unsigned rows_of(const struct bench_run *run, unsigned repetition)
{
    return run->n_trackers + (repetition == 0 ? run->n_policies : 0);
}

static void all_loads(struct bench *bench)
{
    struct bench_run *run = &bench->run;

    if (step(bench, 0.2, "synthetic load", "all")) {
        bench_load_warm_up(&bench->load_scale);
        done(bench, 0.2, true);
    }
    for (unsigned i = 0; i < run->load_repetitions; i++) {
        do_load(bench, run->off);
        for (unsigned r = 0; r < rows_of(run, i); r++)
            do_load(bench, &run->rows[r]);
    }
    for (unsigned i = 0; i < run->trace_repetitions; i++) {
        for (unsigned trace = 0; trace < run->traces.n; trace++) {
            do_trace(bench, run->off, trace);
            for (unsigned r = 0; r < rows_of(run, i); r++) {
                if (run->rows[r].subject->replayed && (!run->quick || r < run->n_trackers))
                    do_trace(bench, &run->rows[r], trace);
            }
        }
    }
}

static void everything(struct bench *bench)
{
    all_paths(bench);
    all_passes(bench);
    all_loads(bench);
}

static void choose_scales(struct bench *bench)
{
    struct bench_run *run = &bench->run;
    bool quick = run->quick;

    run->sizes = quick ? 2 : BENCH_SIZES;
    run->path_repetitions = quick ? 3 : 7;
    run->pass_repetitions = quick ? 1 : 7;
    run->load_repetitions = quick ? 1 : 3;
    run->trace_repetitions = quick ? 1 : 2;
    run->speed = quick ? 50 : 25; /* the default delay stays a whole number of ms */
    bench->time_scale = (struct bench_scale){.pairs0 = quick ? 20000 : 200000,
                                             .pairs1 = quick ? 4000 : 20000,
                                             .bulk0 = quick ? 16384 : 65536,
                                             .pairs9 = quick ? 10000 : 100000,
                                             .bulk9 = 256,
                                             .rounds9 = quick ? 5 : 20};
    bench->count_scale = (struct bench_scale){.pairs0 = quick ? 20 : 200,
                                              .pairs1 = quick ? 2 : 10,
                                              .bulk0 = quick ? 64 : 256,
                                              .pairs9 = quick ? 8 : 40,
                                              .bulk9 = quick ? 8 : 32,
                                              .rounds9 = 1};
    bench->load_scale = (struct bench_load_scale){.bytes = (quick ? 128 : 512) * MIB,
                                                  .bursts = quick ? 1 : 3,
                                                  .idle_ms = quick ? 150 : 300,
                                                  .churn_rounds = quick ? 2 : 5,
                                                  .span_ms = quick ? 300 : 1000,
                                                  .patience_ms = quick ? 500 : 40000};
}

static void make_rows(struct bench_run *run)
{
    struct bench_row *rows = cmd_realloc(NULL, (TRACKERS + POLICIES + 2) * sizeof(*rows));

    memset(rows, 0, (TRACKERS + POLICIES + 2) * sizeof(*rows));
    run->rows = rows;
    run->n_trackers = TRACKERS;
    run->n_policies = POLICIES;
    run->naive = &rows[TRACKERS + POLICIES];
    run->off = run->naive + 1;
    for (unsigned i = 0; i < TRACKERS; i++)
        rows[i].subject = &trackers[i];
    for (unsigned i = 0; i < POLICIES; i++)
        rows[TRACKERS + i].subject = &policies[i];
    run->naive->subject = &naive;
    run->off->subject = &off;
    for (unsigned i = 0; i < TRACKERS + POLICIES + 2; i++) {
        for (unsigned mode = 0; mode < BENCH_MODES; mode++) {
            for (unsigned path = 0; path < BENCH_PATHS; path++)
                rows[i].paths.instructions[mode][path] = (double)NAN;
        }
        for (unsigned shape = 0; shape < BENCH_SHAPES; shape++) {
            for (unsigned size = 0; size < BENCH_SIZES; size++)
                rows[i].passes[shape][size].instructions = (double)NAN;
        }
    }
}

/* NULL: it failed, it has been said why. */
static struct json_object *measure(struct bench *bench)
{
    struct json_object *json = NULL;

    choose_scales(bench);
    make_rows(&bench->run);
    bench->dry = true;
    everything(bench);
    bench->dry = false;
    bench_progress_begin(bench->weight);
    everything(bench);
    bench->run.seconds = bench_progress_end();
    if (!bench->failed)
        json = bench_json(&bench->run);
    free(bench->run.rows);
    return json;
}

/* ---- ebb bench trackers ---- */

struct options {
    const char *json, *plot, *traces, *from;
    bool quick, markdown, no_traces;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case 'j':
        options->json = arg;
        return 0;
    case 'p':
        options->plot = arg;
        return 0;
    case 't':
        options->traces = arg;
        return 0;
    case 'T':
        options->no_traces = true;
        return 0;
    case 'f':
        options->from = arg;
        return 0;
    case 'm':
        options->markdown = true;
        return 0;
    case 'q':
        options->quick = true;
        return 0;
    case ARGP_KEY_ARG:
        args_none(state, arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void parse_options(struct options *options, int argc, char **argv)
{
    static const struct argp_option list[] = {
        {"json", 'j', "FILE", 0, "Write all figures to FILE", 0},
        {"plot", 'p', "DIR", 0, "Draw pictures into the directory DIR", 0},
        {"markdown", 'm', NULL, 0, "Print the tables as Markdown", 0},
        {"quick", 'q', NULL, 0, "Less of everything, within a minute, to see that it works", 0},
        {"traces", 't', "DIR", 0, "Replay the traces in DIR (default: those that ebb brings)", 0},
        {"no-traces", 'T', NULL, 0, "Replay none", 0},
        {"from", 'f', "FILE", 0, "Measure nothing: tables and pictures of a FILE that --json wrote",
         0},
        {0},
    };
    static const struct argp argp = {
        .options = list,
        .parser = parse,
        .doc = "Measure every tracker (how unreported blocks are found), and the policies beside "
               "them: what they cost the allocator's paths, in ns and in instructions; what a "
               "pass costs as the free lists grow; how long it holds the lock; memory; and on a "
               "synthetic load and recorded traces how much stays resident and how much is "
               "faulted in again. Takes some minutes; keep the machine quiet meanwhile."
               "\vExit status: 0 measured, 1 a frame in use lost its contents, 2 wrong options, 4 "
               "something is wrong with this machine."};

    *options = (struct options){0};
    argp_parse(&argp, argc, argv, 0, NULL, options);
}

static bool is_directory(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool bench_check_outputs(const char *json, const char *plot)
{
    if (json && !host_check_writable("--json", json))
        return false;
    if (plot && !is_directory(plot)) {
        cmd_error("--plot: %s is no directory", plot);
        return false;
    }
    return !plot || plot_check();
}

static bool read_traces(struct bench_traces *traces, const struct options *options)
{
    char *found = options->traces ? NULL : host_find_traces();
    const char *directory = options->traces ? options->traces : found;
    bool ok = true;

    if (options->no_traces)
        cmd_error("no traces are replayed (--no-traces)");
    else if (!directory)
        cmd_error("no traces were found beside this program: NONE is replayed. See --traces.");
    else
        ok = bench_traces_read(traces, directory, options->quick ? 1 : BENCH_TRACES);
    if (ok && directory && !options->no_traces && traces->n == 0)
        cmd_error("%s holds no traces: NONE is replayed", directory);
    free(found);
    return ok;
}

static struct json_object *measure_with(const struct options *options, const char *command)
{
    struct bench *bench = cmd_realloc(NULL, sizeof(*bench));
    char *program = host_find_passes();
    struct json_object *json = NULL;

    memset(bench, 0, sizeof(*bench));
    bench->program = program;
    bench->run.quick = options->quick;
    bench->run.command = command;
    if (!program)
        cmd_error("ebb-passes, which measures the passes, is neither beside this program nor "
                  "installed");
    else if (read_traces(&bench->run.traces, options))
        json = measure(bench);
    bench_traces_release(&bench->run.traces);
    free(program);
    free(bench);
    return json;
}

struct json_object *bench_read_saved(const char *path, const char *benchmark)
{
    struct json_object *json = json_object_from_file(path);
    const char *what = json ? result_text(json, "benchmark") : NULL;

    if (what && strcmp(what, benchmark) == 0)
        return json;
    cmd_error("%s is no result of ebb bench %s", path, benchmark);
    json_object_put(json);
    return NULL;
}

static int bench_trackers(int argc, char **argv)
{
    struct options options;
    struct json_object *json;
    char *command = text_quote(argc, argv);
    int status = CMD_HOST;

    parse_options(&options, argc, argv);
    if (bench_check_outputs(options.json, options.plot)) {
        json = options.from ? bench_read_saved(options.from, "trackers")
                            : measure_with(&options, command);
        if (json && (!options.json || result_write(json, options.json)) &&
            bench_print(json, options.markdown, stdout) &&
            (!options.plot || bench_draw(json, options.plot)))
            status = bench_sound(json) ? CMD_OK : CMD_VERIFY;
        json_object_put(json);
    }
    free(command);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        cmd_error("the output cannot be written");
        return CMD_HOST;
    }
    return status;
}

/* ---- ebb bench ---- */

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} benchmarks[] = {
    {"alloc", bench_alloc, "what the allocator costs, beside LLFree"},
    {"trackers", bench_trackers, "every way of finding unreported blocks, side by side"},
};

#define BENCHMARKS (sizeof(benchmarks) / sizeof(benchmarks[0]))

static void usage(FILE *out)
{
    fprintf(out, "Usage: ebb bench BENCHMARK [OPTION...]\n\nBenchmarks:\n");
    for (size_t i = 0; i < BENCHMARKS; i++)
        fprintf(out, "  %-9s %s\n", benchmarks[i].name, benchmarks[i].what);
    fprintf(out, "\n`ebb bench BENCHMARK --help` lists the options of one.\n");
}

int ebb_cmd_bench(int argc, char **argv)
{
    char name[32];

    cmd_argp_setup();
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0)) {
        usage(stdout);
        return fflush(stdout) == 0 ? CMD_OK : CMD_HOST;
    }
    for (size_t i = 0; argc > 1 && i < BENCHMARKS; i++) {
        if (strcmp(argv[1], benchmarks[i].name) != 0)
            continue;
        snprintf(name, sizeof(name), "ebb bench %s", benchmarks[i].name);
        argv[1] = name;
        return benchmarks[i].run(argc - 1, argv + 1);
    }
    if (argc > 1)
        fprintf(stderr, "ebb bench: there is no benchmark '%s'.\n", argv[1]);
    usage(stderr);
    return CMD_USAGE;
}
