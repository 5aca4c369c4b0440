/* SPDX-License-Identifier: BSD-2-Clause */
/* The JSON of `ebb bench alloc`: a contract, documented in SPEC.md. */
#include "bench_alloc.h"
#include "cmd.h"
#include "result.h"

#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>

static void add(struct json_object *json, const char *key, struct json_object *value)
{
    result_add(json, key, value);
}

static void add_bool(struct json_object *json, const char *key, bool value)
{
    add(json, key, json_object_new_boolean(value));
}

/* NaN: null. */
static void add_number(struct json_object *json, const char *key, double value, int digits)
{
    add(json, key, isnan(value) ? NULL : result_digits(value, digits));
}

static void add_samples(struct json_object *json, const char *key,
                        const struct bench_samples *samples)
{
    add(json, key, bench_samples_json(samples));
}

/* ---- cases ---- */

static struct json_object *published_json(unsigned threads, unsigned size, unsigned measure)
{
    struct json_object *json = json_object_new_object();

    for (unsigned i = 0; i < ALLOC_PEERS; i++) {
        double ns = alloc_peers[i].ns[threads - 1][measure][size];

        add_number(json, alloc_peers[i].key, ns > 0 ? ns : (double)NAN, 1);
    }
    return json;
}

static struct json_object *case_json(const struct alloc_run *run, unsigned threads, unsigned size,
                                     unsigned measure)
{
    const struct alloc_row *row = &run->rows[threads - 1][size];
    double most = alloc_most_ns(threads, alloc_gib[size], (enum alloc_measure)measure);
    struct json_object *json = json_object_new_object();

    result_add_text(json, "case", alloc_names[measure]);
    result_add_text(json, "text", alloc_texts[measure]);
    result_add_count(json, "threads", threads);
    result_add_count(json, "gib", alloc_gib[size]);
    add_samples(json, "ns", &row->ns[ALLOC_OFF][measure]);
    add_samples(json, "idle_ns", &row->ns[ALLOC_IDLE][measure]);
    add_samples(json, "idle_over_off", &row->idle_ratio[measure]);
    add_samples(json, "two_over_one", &row->over_one[measure]);
    add_number(json, "most_ns", most, 1);
    add(json, "published", published_json(threads, size, measure));
    return json;
}

static struct json_object *cases_json(const struct alloc_run *run)
{
    struct json_object *json = json_object_new_array();

    for (unsigned threads = 1; threads <= run->threads; threads++) {
        for (unsigned size = 0; size < run->sizes; size++) {
            for (unsigned m = 0; m < ALLOC_WORKLOADS; m++) {
                if (run->rows[threads - 1][size].ns[ALLOC_OFF][m].n > 0)
                    json_object_array_add(json, case_json(run, threads, size, m));
            }
        }
    }
    return json;
}

/* ---- memory ---- */

/* What the peers had of one kind, 0: not known. */
static struct json_object *peers_json(const double *(*of)(const struct alloc_peer *peer),
                                      unsigned size, int digits)
{
    struct json_object *json = json_object_new_object();

    for (unsigned i = 0; i < ALLOC_PEERS; i++) {
        double value = of(&alloc_peers[i])[size];

        if (value > 0)
            add_number(json, alloc_peers[i].key, value, digits);
    }
    return json;
}

static const double *init_of(const struct alloc_peer *peer)
{
    return peer->init_us;
}

static const double *bytes_of(const struct alloc_peer *peer)
{
    return peer->bytes_per_frame;
}

static const double *mixed_of(const struct alloc_peer *peer)
{
    return peer->whole_mixed;
}

static const double *thinned_of(const struct alloc_peer *peer)
{
    return peer->whole_thinned;
}

static double frames_of(unsigned size)
{
    return (double)((uint64_t)alloc_gib[size] << (30 - EBB_FRAME_SHIFT));
}

static struct json_object *memory_json(const struct alloc_run *run, unsigned size)
{
    struct json_object *json = json_object_new_object();

    result_add_count(json, "gib", alloc_gib[size]);
    result_add_count(json, "metadata_bytes", run->metadata_bytes[size]);
    add_number(json, "bytes_per_frame", (double)run->metadata_bytes[size] / frames_of(size), 4);
    add(json, "published_bytes_per_frame", peers_json(bytes_of, size, 4));
    add_samples(json, "init_us_per_gib", &run->init_warm_us[size]);
    add_samples(json, "init_fresh_us_per_gib", &run->init_fresh_us[size]);
    add(json, "published_init_us_per_gib", peers_json(init_of, size, 1));
    return json;
}

static struct json_object *whole_json(const struct alloc_run *run, unsigned threads, unsigned size)
{
    const struct alloc_row *row = &run->rows[threads - 1][size];
    struct json_object *json = json_object_new_object();

    result_add_count(json, "threads", threads);
    result_add_count(json, "gib", alloc_gib[size]);
    add_samples(json, "mixed_percent", &row->whole_mixed);
    add_samples(json, "thinned_percent", &row->whole_thinned);
    /* With one thread. */
    add(json, "published_mixed_percent", threads == 1 ? peers_json(mixed_of, size, 1) : NULL);
    add(json, "published_thinned_percent", threads == 1 ? peers_json(thinned_of, size, 1) : NULL);
    return json;
}

static struct json_object *memories_json(const struct alloc_run *run)
{
    struct json_object *json = json_object_new_array();

    for (unsigned size = 0; size < run->sizes; size++)
        json_object_array_add(json, memory_json(run, size));
    return json;
}

static struct json_object *wholes_json(const struct alloc_run *run)
{
    struct json_object *json = json_object_new_array();

    for (unsigned threads = 1; threads <= run->threads; threads++) {
        for (unsigned size = 0; size < run->sizes; size++)
            json_object_array_add(json, whole_json(run, threads, size));
    }
    return json;
}

/* ---- the verdict ---- */

static void judge(struct json_object *verdict, const char *bar, char *what, double value,
                  double most, const char *unit)
{
    struct json_object *json = json_object_new_object();

    value = round(100 * value) / 100; /* what is shown is what counts */
    result_add_text(json, "bar", bar);
    result_add_text(json, "what", what);
    add_number(json, "value", value, 2);
    add_number(json, "most", most, 1);
    result_add_text(json, "unit", unit);
    add(json, "met", isnan(value) ? NULL : json_object_new_boolean(value <= most));
    json_object_array_add(verdict, json);
    free(what);
}

static void judge_times(struct json_object *verdict, const struct alloc_run *run, unsigned threads,
                        unsigned measure)
{
    for (unsigned size = 0; size < run->sizes; size++) {
        const struct alloc_row *row = &run->rows[threads - 1][size];
        double most = alloc_most_ns(threads, alloc_gib[size], (enum alloc_measure)measure);

        if (!isnan(most))
            judge(verdict, threads == 1 ? "P8" : "P9",
                  cmd_format("%s, %u GiB, %u thread%s", alloc_names[measure], alloc_gib[size],
                             threads, threads > 1 ? "s" : ""),
                  bench_median(&row->ns[ALLOC_OFF][measure]), most, "ns");
    }
}

static void judge_threads(struct json_object *verdict, const struct alloc_run *run)
{
    for (unsigned size = 0; size < run->sizes; size++)
        judge(verdict, "P9", cmd_format("a, %u GiB, two threads over one", alloc_gib[size]),
              bench_median(&run->rows[1][size].over_one[ALLOC_A]), ALLOC_MOST_OVER_ONE, "");
}

static void judge_memory(struct json_object *verdict, const struct alloc_run *run)
{
    for (unsigned size = 0; size < run->sizes; size++) {
        judge(verdict, "P10", cmd_format("initialisation, %u GiB, per GiB", alloc_gib[size]),
              bench_median(&run->init_warm_us[size]), ALLOC_MOST_INIT_US, "us");
        judge(verdict, "P10", cmd_format("metadata, %u GiB, per frame", alloc_gib[size]),
              (double)run->metadata_bytes[size] / frames_of(size), ALLOC_MOST_FRAME_BYTES, "bytes");
    }
}

static struct json_object *verdict_json(const struct alloc_run *run)
{
    struct json_object *json = json_object_new_array();

    for (unsigned m = 0; m < ALLOC_WORKLOADS; m++)
        judge_times(json, run, 1, m);
    judge_threads(json, run);
    judge_times(json, run, 2, ALLOC_B3_FREE);
    judge_memory(json, run);
    judge(json, "", cmd_format("allocations refused although a block was free"),
          (double)run->failures.refused, 0, "");
    return json;
}

/* ---- the whole ---- */

static struct json_object *calibration_json(const struct alloc_run *run)
{
    struct json_object *json = json_object_new_object();

    for (unsigned m = ALLOC_WORKLOADS; m < ALLOC_MEASURES; m++) {
        char *key = cmd_format("%s_ns", alloc_names[m]);

        add_samples(json, key, &run->rows[0][0].ns[ALLOC_OFF][m]);
        free(key);
    }
    return json;
}

static struct json_object *failures_json(const struct alloc_run *run)
{
    struct json_object *json = json_object_new_object();

    result_add_count(json, "operations", run->operations);
    result_add_count(json, "none_free", run->failures.none_free);
    result_add_count(json, "refused", run->failures.refused);
    result_add_count(json, "raced", run->failures.raced);
    return json;
}

static struct json_object *sections_json(const struct alloc_run *run)
{
    struct json_object *json = json_object_new_object();

    result_add_count(json, "measured", run->sections);
    result_add_count(json, "discarded", run->discarded);
    result_add_count(json, "noisy", run->noisy);
    add_number(json, "least_cpu_over_wall", ALLOC_QUIET, 3);
    return json;
}

static struct json_object *cpus_json(const struct alloc_run *run)
{
    struct json_object *json = json_object_new_array();

    for (unsigned i = 0; i < run->threads; i++)
        json_object_array_add(json, json_object_new_uint64(run->cpus[i]));
    return json;
}

struct json_object *alloc_json(const struct alloc_run *run)
{
    struct json_object *json = json_object_new_object();

    result_add_text(json, "ebb_version", EBB_VERSION);
    result_add_text(json, "benchmark", "alloc");
    result_add_text(json, "command", run->command);
    add(json, "machine", bench_machine_json());
    add_bool(json, "quick", run->quick);
    add_number(json, "seconds", run->seconds, 1);
    result_add_count(json, "rounds", run->rounds);
    add(json, "cpus", cpus_json(run));
    add_bool(json, "huge_pages", run->huge_pages);
    add_bool(json, "all_reported", run->all_reported);
    add(json, "sections", sections_json(run));
    add(json, "calibration", calibration_json(run));
    add(json, "failures", failures_json(run));
    result_add_text(json, "published", alloc_peers_note);
    add(json, "cases", cases_json(run));
    add(json, "memory", memories_json(run));
    add(json, "whole_blocks", wholes_json(run));
    add(json, "verdict", verdict_json(run));
    return json;
}
