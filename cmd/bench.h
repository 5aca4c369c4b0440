/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the files of `ebb bench`: what is measured, of whom, and what came out. All of a
 * run is one JSON object (bench_json.c); tables and pictures are made from that, so that a saved
 * one gives them too.
 */
#ifndef BENCH_H
#define BENCH_H

#include <ebb/history.h>

#include <json-c/json_object.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* ---- samples ---- */

#define BENCH_REPETITIONS 16u

/* One figure, of all repetitions. */
struct bench_samples {
    double values[BENCH_REPETITIONS];
    unsigned n;
};

void bench_add(struct bench_samples *samples, double value);
/* NaN if there are none. */
double bench_median(const struct bench_samples *samples);
/* {"median": x, "min": x, "max": x}, or null. */
struct json_object *bench_samples_json(const struct bench_samples *samples);

/* ---- for all benchmarks ---- */

/* On stderr, if that is a terminal. Weights are rough seconds. */
void bench_progress_begin(double all);
void bench_progress_show(const char *what, const char *whom);
void bench_progress_done(double weight);
/* Seconds since it began. */
double bench_progress_end(void);

/* Can they be written, FILE and directory? Both may be NULL. */
bool bench_check_outputs(const char *json, const char *plot);
/* What a benchmark of that name wrote; NULL: it did not, it has been said. */
struct json_object *bench_read_saved(const char *path, const char *benchmark);
struct json_object *bench_machine_json(void);
/* A line below a picture's title: which machine. To be freed. */
char *bench_machine_line(struct json_object *json);
/* Draw directory/name with the script that put() writes. */
bool bench_draw_file(struct json_object *json, const char *directory, const char *name,
                     void (*put)(FILE *file, struct json_object *json, const char *path));

/* ---- whom: a tracker, or the default one with other policies ---- */

#define BENCH_SETTINGS 4u

struct bench_subject {
    const char *name;
    const char *settings[BENCH_SETTINGS]; /* "key=value" of ebb_settings_set(), up to NULL */
    bool off;                             /* no engine at all */
    bool naive;                           /* known to ebb-passes alone */
    bool counted, replayed;               /* its instructions; on the traces */
};

/* With pacing=delay. Ends the program if they are refused: these are our own. */
void bench_configure(const struct bench_subject *subject, struct ebb_settings *settings);

/* ---- the fast paths (bench_paths.c, bench_count.c) ---- */

enum bench_path {
    BENCH_PAIR0,
    BENCH_PAIR1,
    BENCH_ALLOC0,
    BENCH_FREE0,
    BENCH_PAIR9,
    BENCH_ALLOC9,
    BENCH_FREE9,
    BENCH_PATHS
};

enum bench_mode {
    BENCH_OFF,  /* no engine */
    BENCH_IDLE, /* registered, everything is reported, no pass */
    BENCH_BUSY, /* a pass goes on all the time */
    BENCH_MODES
};

extern const char *const bench_path_names[BENCH_PATHS];
extern const char *const bench_path_texts[BENCH_PATHS];
extern const char *const bench_mode_names[BENCH_MODES];

struct bench_paths {
    struct bench_samples ns[BENCH_MODES][BENCH_PATHS];
    double instructions[BENCH_MODES][BENCH_PATHS]; /* NaN: not counted */
};

/* Operations of each path. */
struct bench_scale {
    unsigned pairs0, pairs1, bulk0, pairs9, bulk9;
    unsigned rounds9; /* of bulk9 */
};

/* How one stretch of operations is measured. */
struct bench_meter {
    void (*begin)(struct bench_meter *meter);
    void (*end)(struct bench_meter *meter, enum bench_path path, unsigned operations);
};

/* Go through all paths on a fresh zone. With `alone` and BENCH_BUSY the pass is one that waits
 * for its batch all the time; otherwise another thread runs passes. False: no memory. */
bool bench_paths_run(const struct bench_subject *subject, enum bench_mode mode, bool alone,
                     const struct bench_scale *scale, struct bench_meter *meter);

/* One repetition of all modes and paths, in ns. */
bool bench_paths_time(const struct bench_subject *subject, const struct bench_scale *scale,
                      struct bench_paths *paths);

/* How instructions are counted. */
struct bench_counting {
    const char *method; /* NULL: they are not */
    char why[128];      /* if not; empty: they are */
    bool checked, deterministic, linear;
};

/* Find a way, and check it on a path of the subject. */
void bench_count_check(const struct bench_subject *subject, unsigned operations,
                       struct bench_counting *counting);
/* Instructions per operation, for all paths of a mode; leaves NaN if that fails. */
void bench_count(const struct bench_subject *subject, enum bench_mode mode,
                 const struct bench_scale *scale, struct bench_counting *counting,
                 double instructions[BENCH_PATHS]);

/* ---- passes (bench_passes.c: runs ebb-passes) ---- */

enum bench_shape { BENCH_UNREPORTED, BENCH_HEAD, BENCH_MIXED, BENCH_SHUFFLED, BENCH_SHAPES };

#define BENCH_SIZES 4u

extern const char *const bench_shape_names[BENCH_SHAPES];
extern const char *const bench_shape_texts[BENCH_SHAPES];
extern const unsigned bench_gib[BENCH_SIZES];

struct bench_pass {
    double blocks, reported, looked; /* looked at, per reported block */
    struct bench_samples ns;         /* per reported block */
    double instructions;             /* the same, NaN: not counted */
    /* Of a hold of the zone's lock. */
    struct bench_samples worst_ns, p99_ns;
    double worst_touched, holds;
};

struct bench_memory {
    double bytes_per_frame, metadata_resident, tracker_bytes, tracker_resident, frames;
};

/* Instructions per block, always by single steps: of the first batches only, that is few. NaN:
 * it failed, it has been said why. */
double bench_count_pass(const char *program, const struct bench_subject *subject,
                        enum bench_shape shape, unsigned gib);

bool bench_pass_time(const char *program, const struct bench_subject *subject,
                     enum bench_shape shape, unsigned gib, struct bench_pass *pass);
bool bench_pass_holds(const char *program, const struct bench_subject *subject,
                      enum bench_shape shape, unsigned gib, struct bench_pass *pass);
bool bench_pass_memory(const char *program, const struct bench_subject *subject,
                       struct bench_memory *memory);

/* ---- loads (bench_load.c, bench_traces.c) ---- */

/* Of a load on real memory: bytes and seconds as the names say. */
struct bench_load {
    struct bench_samples resident_mib, live_mib; /* averages over time */
    struct bench_samples peak_mib;
    struct bench_samples refaulted_mib;
    struct bench_samples page_faults; /* of the thread that makes the load */
    struct bench_samples all_ms;      /* until all is reported that can be; none: never */
    struct bench_samples left_mib;    /* what was free and not reported in the end */
    struct bench_samples operations_per_s;
    struct bench_samples engine_cpu_ms;
    struct bench_samples batches;
    bool damaged; /* a frame in use lost its contents */
};

struct bench_load_scale {
    uint64_t bytes;
    unsigned bursts;
    unsigned idle_ms, churn_rounds;
    unsigned span_ms, patience_ms; /* after the last free: sampled for so long, waited at most */
};

/* Use as much memory once, so that the first load is not the one that a hypervisor below this
 * machine has to find memory for. */
void bench_load_warm_up(const struct bench_load_scale *scale);
bool bench_load_run(const struct bench_subject *subject, const struct bench_load_scale *scale,
                    struct bench_load *load);

#define BENCH_TRACES 16u

struct trace;

struct bench_traces {
    struct trace *traces;
    char *names[BENCH_TRACES];
    unsigned n;
};

/* The traces of a directory, by name, at most so many. False: one cannot be read, it has been
 * said why. */
bool bench_traces_read(struct bench_traces *traces, const char *directory, unsigned most);
void bench_traces_release(struct bench_traces *traces);
double bench_trace_seconds(const struct bench_traces *traces, unsigned i);
bool bench_trace_run(const struct bench_traces *traces, unsigned i,
                     const struct bench_subject *subject, unsigned speed, struct bench_load *load);

/* ---- a run ---- */

struct bench_row {
    const struct bench_subject *subject;
    struct bench_paths paths;
    struct bench_pass passes[BENCH_SHAPES][BENCH_SIZES];
    struct bench_memory memory;
    struct bench_load load;
    struct bench_load traces[BENCH_TRACES];
};

struct bench_run {
    bool quick;
    unsigned sizes; /* of bench_gib */
    unsigned path_repetitions, pass_repetitions, load_repetitions, trace_repetitions, speed;
    struct bench_counting counting;
    struct bench_traces traces;
    const char *command;
    double seconds;

    struct bench_row *rows; /* trackers, then policies, the naive one, and off */
    unsigned n_trackers, n_policies;
    struct bench_row *naive, *off;
};

struct json_object *bench_json(const struct bench_run *run);

/* From that JSON: tables, plain or as Markdown; pictures into a directory (bench_plot.c). */
bool bench_print(struct json_object *json, bool markdown, FILE *out);
bool bench_draw(struct json_object *json, const char *directory);
/* Did all frames keep their contents? Says which row's did not. */
bool bench_sound(struct json_object *json);

#endif
