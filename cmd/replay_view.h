/* SPDX-License-Identifier: BSD-2-Clause */
/* What `ebb replay` tells of its runs: in words, as JSON, as a picture. */
#ifndef REPLAY_VIEW_H
#define REPLAY_VIEW_H

#include "replay.h"

#include <json-c/json_object.h>
#include <stdbool.h>
#include <stdio.h>

#define REPLAY_SETTINGS 32u

struct replay_report {
    char *command;    /* as typed, for a shell */
    const char *path; /* of the trace */
    const struct trace *trace;
    unsigned speed;
    bool settle;
    uint64_t memory;                       /* bytes */
    const char *settings[REPLAY_SETTINGS]; /* KEY=VALUE */
    size_t n_settings;
    struct ebb_settings engine; /* as they make it */
    /* With the engine and without; NULL: not asked for. One of them is there. */
    const struct replay_result *with, *without;
};

void replay_summary(const struct replay_report *report);

/* To be released with json_object_put(). The fields are a contract (SPEC.md). */
struct json_object *replay_json(const struct replay_report *report);

/* Is this such an object? */
bool replay_is_result(struct json_object *json);

/* A script of gnuplot: memory over trace time. label and title may be NULL. */
void replay_put_picture(FILE *file, struct json_object *json, const char *label, const char *title,
                        const char *path);

#endif
