/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The lines that the reference guest sends about itself (SPEC.md), taken apart.
 * The guest is not trusted: a line that does not parse is counted and dropped,
 * text is cut to length and freed of control characters.
 */
#ifndef TELEMETRY_H
#define TELEMETRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TELEMETRY_VERSION 1u
#define TELEMETRY_LINE    512u
#define TELEMETRY_TEXT    128u

enum telemetry_kind {
    TELEMETRY_HEADER,  /* version */
    TELEMETRY_BOOT,    /* cpus, managed_kib, reporting */
    TELEMETRY_BASE,    /* used_kib */
    TELEMETRY_USE,     /* used_kib */
    TELEMETRY_STEP,    /* text: the command */
    TELEMETRY_HOLD,    /* kib */
    TELEMETRY_RELEASE, /* kib */
    TELEMETRY_FAULT,   /* text: which frame, what was expected and found */
    TELEMETRY_RESULT,  /* fields: of a step */
    TELEMETRY_ENGINE,  /* fields: of the engine */
    TELEMETRY_END,     /* status and the totals of the run */
};

/* Only the fields of its kind are set, the others are zero. */
struct telemetry_event {
    enum telemetry_kind kind;
    uint64_t version, cpus, managed_kib, reporting, used_kib, kib;
    uint64_t status, reports, reported_kib, refaulted_kib, failed, checks, errors;
    char text[TELEMETRY_TEXT];
    char fields[TELEMETRY_LINE]; /* "key=value key=value", printable; keys are of a-z, 0-9, _ */
};

struct telemetry {
    char line[TELEMETRY_LINE];
    size_t len;
    bool too_long;      /* drop bytes until the line ends */
    uint64_t limit_kib; /* no size can be larger than this: the guest's memory */
    uint64_t malformed;
};

/* Take n bytes; call fn for each line that is valid and known. */
void telemetry_feed(struct telemetry *telemetry, const char *data, size_t n,
                    void (*fn)(void *ctx, const struct telemetry_event *event), void *ctx);

#endif
