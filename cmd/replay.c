/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `ebb replay`: play a recorded trace with reporting and without, and tell what
 * stays resident, between what the trace uses and what it once took.
 */
#include "replay.h"
#include "args.h"
#include "cmd.h"
#include "host.h"
#include "plot.h"
#include "replay_view.h"
#include "result.h"
#include "text.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPEED_MOST  10000u
#define MEMORY_LOW  MIB
#define MEMORY_HIGH (65536 * MIB)
#define PREFIX      "report."
#define PROGRESS_NS (200 * CMD_MS)

enum key {
    KEY_MEMORY = 'm',
    KEY_SPEED = 'x',
    KEY_SET = 's',
    KEY_QUIET = 'q',
    KEY_REPORTING = 256,
    KEY_SETTLE,
    KEY_JSON,
    KEY_PLOT,
};

enum reporting { REPORTING_BOTH, REPORTING_ON, REPORTING_OFF };

struct command {
    struct replay_report report;
    enum reporting reporting;
    bool speed_given, quiet;
    const char *json, *plot;
};

/* ---- options ---- */

static const struct argp_option argp_options[] = {
    {"speed", KEY_SPEED, "N|max", 0,
     "Play N times as fast as recorded, or as fast as it goes (default 20, or less where the "
     "engine's delay or window divided by it would be less than a millisecond)",
     0},
    {"memory", KEY_MEMORY, "SIZE", 0,
     "Memory to manage, 1M to 64G (default: as much as the recorded machine had)", 0},
    {"set", KEY_SET, "KEY=VALUE", 0,
     "A setting of the engine, e.g. report.window_max_ms=1000; repeatable. Times are trace time",
     0},
    {"reporting", KEY_REPORTING, "both|on|off", 0,
     "Play with the engine, without, or once each (default both)", 0},
    {"settle", KEY_SETTLE, NULL, 0,
     "With --speed max: wait for the engine where the trace pauses for its delay or longer", 0},
    {"json", KEY_JSON, "FILE", 0, "Write the results", 0},
    {"plot", KEY_PLOT, "FILE", 0, "Draw them with gnuplot: FILE.svg or FILE.png", 0},
    {"quiet", KEY_QUIET, NULL, 0, "Print nothing but errors and warnings", 0},
    {0},
};

static const char doc[] =
    "Play a recorded allocation trace (PFT1, plain or compressed with zstd) through ebb's "
    "allocator on a memory file, with every frame written and checked, and with holes punched "
    "where the engine reports free memory. Tells throughput, and the memory that stays resident, "
    "on average over the trace: with reporting, without it, and what the trace itself uses."
    "\vExit status: 0 the trace was played, 1 a frame in use lost its contents, 2 wrong options "
    "or a damaged trace, 4 something is wrong with this machine (memory, a file).\n\n"
    "Examples:\n"
    "  ebb replay lab/traces/phases.trace.zst --plot phases.svg\n"
    "  ebb replay lab/traces/phases.trace.zst --set report.pacing=delay --set report.delay_ms=2000 "
    "--set report.budget=16\n";

static void set(struct argp_state *state, struct replay_report *report, const char *arg)
{
    const char *equals = strchr(arg, '='), *allowed = NULL;
    char *key;
    int err;

    if (!equals || strncmp(arg, PREFIX, strlen(PREFIX)) != 0) {
        argp_error(state, "--set is report.KEY=VALUE, e.g. report.window_max_ms=1000");
        return;
    }
    if (report->n_settings == REPLAY_SETTINGS) {
        argp_error(state, "--set: at most %u settings", REPLAY_SETTINGS);
        return;
    }
    key = cmd_format("%.*s", (int)(equals - arg), arg);
    err = ebb_settings_set(&report->engine, key + strlen(PREFIX), equals + 1, &allowed);
    if (err == -EBB_ENOENT)
        argp_error(state, "--set: the engine has no setting '%s'", key);
    else if (err)
        argp_error(state, "--set %s: it takes %s, not '%s'", key, allowed, equals + 1);
    free(key);
    report->settings[report->n_settings++] = arg;
}

static void parse_speed(struct argp_state *state, struct command *command, const char *arg)
{
    command->speed_given = true;
    if (strcmp(arg, "max") == 0)
        command->report.speed = REPLAY_SPEED_MAX;
    else
        command->report.speed = args_count(state, "speed", arg, 1, SPEED_MOST);
}

/* What the engine's configuration allows. */
static void fit_speed(struct argp_state *state, struct command *command)
{
    const char *problem = ebb_history_problem(&command->report.engine);
    struct ebb_settings settings = command->report.engine;
    unsigned most;

    if (problem)
        argp_error(state, "--set: %s", problem);
    if (replay_scale(&settings, command->report.speed, &most))
        return;
    if (command->speed_given)
        argp_error(state,
                   "--speed %u: the engine's delay or window divided by it is less than a "
                   "millisecond; %u is "
                   "the most",
                   command->report.speed, most);
    command->report.speed = most;
}

static void finish(struct argp_state *state, struct command *command)
{
    if (!command->report.path)
        argp_error(state, "which trace?");
    if (command->reporting != REPORTING_OFF)
        fit_speed(state, command);
    if (command->report.settle && command->report.speed != REPLAY_SPEED_MAX)
        argp_error(state, "--settle goes with --speed max only");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    static const char *const choices[] = {"both", "on", "off", NULL};
    struct command *command = state->input;
    struct replay_report *report = &command->report;

    switch (key) {
    case KEY_SPEED:
        parse_speed(state, command, arg);
        return 0;
    case KEY_MEMORY:
        report->memory = args_size(state, "memory", arg, MEMORY_LOW, MEMORY_HIGH, MIB);
        return 0;
    case KEY_SET:
        set(state, report, arg);
        return 0;
    case KEY_REPORTING:
        command->reporting = (enum reporting)args_choice(state, "reporting", choices, arg);
        return 0;
    case KEY_SETTLE:
        report->settle = true;
        return 0;
    case KEY_JSON:
        command->json = arg;
        return 0;
    case KEY_PLOT:
        command->plot = args_picture(state, "plot", arg);
        return 0;
    case KEY_QUIET:
        command->quiet = true;
        return 0;
    case ARGP_KEY_ARG:
        if (report->path)
            argp_error(state, "unexpected argument '%s' (one trace at a time)", arg);
        report->path = arg;
        return 0;
    case ARGP_KEY_END:
        finish(state, command);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- running ---- */

struct progress {
    const char *what;
    uint64_t of_us, next_ns;
};

static void show_progress(void *ctx, uint64_t us)
{
    struct progress *progress = ctx;
    uint64_t now = cmd_now_ns();

    if (now < progress->next_ns)
        return;
    progress->next_ns = now + PROGRESS_NS;
    fprintf(stderr, "\r%s: %.0f of %.0f s ", progress->what, (double)us / 1e6,
            (double)progress->of_us / 1e6);
}

static void warn(const struct replay_result *result)
{
    if (result->errors > 0 && result->fault_frame == REPLAY_PINNED)
        cmd_error("WARNING: a frame in use before the recording lost its contents (number %" PRIu32
                  ")",
                  result->fault_id);
    else if (result->errors > 0)
        cmd_error("WARNING: frame %" PRIu32 " of block %" PRIu32 " lost its contents while in use",
                  result->fault_frame, result->fault_id);
    if (result->refused > 0)
        cmd_error("WARNING: the allocator refused %" PRIu64 " frees", result->refused);
    if (result->violation.what)
        cmd_error("WARNING: invariant I%u is broken at pfn %" PRIu64 ": %s",
                  result->violation.invariant, result->violation.pfn, result->violation.what);
}

/* One run. False: it could not be, and that was said. */
static bool play(const struct command *command, bool reporting, struct replay_result *result)
{
    const struct replay_report *report = &command->report;
    struct progress progress = {.what = reporting ? "with reporting" : "without reporting",
                                .of_us = report->trace->us};
    struct replay_options options = {.speed = report->speed,
                                     .reporting = reporting,
                                     .settle = report->settle,
                                     .memory = report->memory,
                                     .settings = report->engine};
    bool show = !command->quiet && isatty(STDERR_FILENO);
    int err;

    if (show) {
        options.progress = show_progress;
        options.progress_ctx = &progress;
    }
    err = replay_run(report->trace, &options, result);
    if (show)
        fprintf(stderr, "\r%40s\r", "");
    if (err)
        cmd_error("the trace cannot be played: %s", strerror(-err));
    else
        warn(result);
    return !err;
}

/* Says what was written. */
static bool save(const struct command *command)
{
    const char *json_path = command->json, *plot_path = command->plot;
    struct json_object *json;
    bool ok;

    if (!json_path && !plot_path)
        return true;
    json = replay_json(&command->report);
    if (json_path && !result_write(json, json_path))
        json_path = NULL;
    if (plot_path && !plot_draw(&json, NULL, 1, NULL, plot_path))
        plot_path = NULL;
    json_object_put(json);
    ok = json_path == command->json && plot_path == command->plot;
    if (!command->quiet && (json_path || plot_path))
        printf("Wrote %s%s%s.\n", plot_path ? plot_path : "", plot_path && json_path ? " and " : "",
               json_path ? json_path : "");
    return ok;
}

static int tell(const struct command *command)
{
    const struct replay_report *report = &command->report;
    bool sound = (!report->with || replay_sound(report->with)) &&
                 (!report->without || replay_sound(report->without));
    bool ok;

    if (!command->quiet)
        replay_summary(report);
    ok = save(command);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        cmd_error("cannot write to standard output: %s", strerror(errno));
        ok = false;
    }
    if (!sound)
        return CMD_VERIFY;
    return ok ? CMD_OK : CMD_HOST;
}

/* The ceiling first: what it takes from the host is free again for the other. */
static int play_both(struct command *command)
{
    struct replay_result with = {0}, without = {0};
    bool ok = true;
    int code = CMD_HOST;

    replay_warm_up(command->report.trace);
    if (command->reporting != REPORTING_ON) {
        ok = play(command, false, &without);
        command->report.without = ok ? &without : NULL;
    }
    if (ok && command->reporting != REPORTING_OFF) {
        ok = play(command, true, &with);
        command->report.with = ok ? &with : NULL;
    }
    if (ok)
        code = tell(command);
    replay_result_release(&with);
    replay_result_release(&without);
    return code;
}

static bool check_machine(const struct command *command)
{
    const struct replay_report *report = &command->report;

    return (!command->json || host_check_writable("--json", command->json)) &&
           (!command->plot || (host_check_writable("--plot", command->plot) && plot_check())) &&
           host_check_memory("--memory", report->memory, report->memory / 128);
}

static int replay_trace(struct command *command, const struct trace *trace)
{
    struct replay_report *report = &command->report;

    report->trace = trace;
    if (report->memory == 0)
        report->memory = trace->ram << EBB_FRAME_SHIFT;
    if (report->memory < replay_memory_min(trace)) {
        cmd_error("--memory: in the trace %" PRIu64 " MiB were in use before the recording",
                  (trace->ram - trace->free) >> (20 - EBB_FRAME_SHIFT));
        return CMD_USAGE;
    }
    return check_machine(command) ? play_both(command) : CMD_HOST;
}

int ebb_cmd_replay(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options, .parser = parse, .args_doc = "TRACE", .doc = doc};
    struct command command = {.report.speed = REPLAY_SPEED};
    char error[TRACE_ERROR];
    enum trace_status status;
    struct trace trace;
    int code;

    command.report.command = text_quote(argc, argv);
    cmd_argp_setup();
    argp_parse(&argp, argc, argv, 0, NULL, &command);
    status = trace_read(&trace, command.report.path, error);
    if (status == TRACE_OK) {
        code = replay_trace(&command, &trace);
        trace_release(&trace);
    } else {
        cmd_error("%s: %s", command.report.path, error);
        code = status == TRACE_MALFORMED ? CMD_USAGE : CMD_HOST;
    }
    free(command.report.command);
    return code;
}
