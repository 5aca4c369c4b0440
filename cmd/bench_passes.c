/* SPDX-License-Identifier: BSD-2-Clause */
/* Passes, measured by ebb-passes: a program of its own, since it needs a port of its own. */
#include "bench.h"
#include "child.h"
#include "cmd.h"
#include "result.h"

#include <errno.h>
#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define SECONDS_MAX 120.0
#define ARGS        (5u + BENCH_SETTINGS)

const char *const bench_shape_names[BENCH_SHAPES] = {"unreported", "head", "mixed", "shuffled"};
const char *const bench_shape_texts[BENCH_SHAPES] = {
    "nothing reported yet",
    "64 blocks just freed, all others reported",
    "every other block reported",
    "64 blocks just freed to head or tail at random, all others reported",
};
const unsigned bench_gib[BENCH_SIZES] = {1, 4, 16, 64};

/* An object to be released; NULL: it has been said why. */
static struct json_object *run(const char *program, const char *mode, unsigned gib,
                               const char *shape, const struct bench_subject *subject)
{
    char *size = cmd_format("%u", gib), *out, *err;
    char *argv[ARGS + 1] = {(char *)program, (char *)mode, size, (char *)shape};
    struct json_object *json = NULL;
    unsigned n = 4;
    int status;

    if (subject->naive)
        argv[n++] = (char *)"tracker=naive";
    for (unsigned i = 0; i < BENCH_SETTINGS && subject->settings[i]; i++)
        argv[n++] = (char *)subject->settings[i];
    status = child_run(argv, NULL, SECONDS_MAX, &out, NULL, &err);
    if (status == 0)
        json = json_tokener_parse(out);
    if (!json)
        cmd_error("%s %s %s %s (%s) %s %s", program, mode, size, shape, subject->name,
                  status == -ETIME ? "took too long" : "failed", err);
    free(size);
    free(out);
    free(err);
    return json;
}

static void add_number(struct bench_samples *samples, struct json_object *json, const char *key)
{
    double value = result_number(json, key);

    if (!isnan(value))
        bench_add(samples, value);
}

bool bench_pass_time(const char *program, const struct bench_subject *subject,
                     enum bench_shape shape, unsigned gib, struct bench_pass *pass)
{
    struct json_object *json = run(program, "time", gib, bench_shape_names[shape], subject);

    if (!json)
        return false;
    pass->blocks = result_number(json, "blocks");
    pass->reported = result_number(json, "reported");
    pass->looked = result_number(json, "looked_per_block");
    add_number(&pass->ns, json, "ns_per_block");
    json_object_put(json);
    return true;
}

bool bench_pass_holds(const char *program, const struct bench_subject *subject,
                      enum bench_shape shape, unsigned gib, struct bench_pass *pass)
{
    struct json_object *json = run(program, "holds", gib, bench_shape_names[shape], subject);

    if (!json)
        return false;
    pass->worst_touched = result_number(json, "worst_touched");
    pass->holds = result_number(json, "holds");
    add_number(&pass->worst_ns, json, "worst_ns");
    add_number(&pass->p99_ns, json, "p99_ns");
    json_object_put(json);
    return true;
}

bool bench_pass_memory(const char *program, const struct bench_subject *subject,
                       struct bench_memory *memory)
{
    struct json_object *json = run(program, "memory", 16, bench_shape_names[0], subject);

    if (!json)
        return false;
    *memory = (struct bench_memory){
        .bytes_per_frame = result_number(json, "bytes_per_frame"),
        .metadata_resident = result_number(json, "metadata_resident"),
        .tracker_bytes = result_number(json, "tracker_bytes"),
        .tracker_resident = result_number(json, "tracker_resident"),
        .frames = result_number(json, "frames"),
    };
    json_object_put(json);
    return true;
}
