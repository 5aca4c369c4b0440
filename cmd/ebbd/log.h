/* SPDX-License-Identifier: BSD-2-Clause */
/* Messages: one line each on stderr, "ebbd: ...", in ASCII. */
#ifndef EBBD_LOG_H
#define EBBD_LOG_H

#include <stdint.h>

/* One line. */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Of one cause of one VM. A zeroed one is new. */
struct log_limit {
    uint64_t next_ns;
    uint64_t left_out;
};

/* At most one line in 5 s; the next one says how many were left out. */
void log_limited(struct log_limit *limit, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* CLOCK_MONOTONIC, nanoseconds. */
uint64_t log_now_ns(void);

#endif
