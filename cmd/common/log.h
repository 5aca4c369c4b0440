/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages: one line each on stderr, "PROGRAM: ...", in ASCII. A line that stderr has no room for
 * is lost rather than waited for; the next one that goes through says how many were. Of one thread.
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdint.h>

/* What lines begin with, static storage; "ebbd" before. */
void log_begin(const char *program);

/* One line. */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* From here on lines say that they are of this operator's command; NULL: of nobody's. */
void log_by(const char *who);

/* Of one cause of one VM. A zeroed one is new. */
struct log_limit {
    uint64_t next_ns;
    uint64_t left_out;
};

/* At most one line in 5 s; the next one says how many were left out. Lines of an operator's command
 * are not left out. */
void log_limited(struct log_limit *limit, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* CLOCK_MONOTONIC, nanoseconds. */
uint64_t log_now_ns(void);

#endif
