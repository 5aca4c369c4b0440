/* SPDX-License-Identifier: BSD-2-Clause */
#include "log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_LIMIT  512u
#define INTERVAL_NS ((uint64_t)5000000000)

/* In one write, so that lines of others do not come in between; and without what a terminal
 * could act on, since names and texts of other programs are in it. */
static void write_line(const char *format, va_list args, uint64_t left_out)
{
    char line[LINE_LIMIT] = "ebbd: ";
    size_t len = strlen(line);

    vsnprintf(line + len, sizeof(line) - len - 32, format, args);
    len = strlen(line);
    if (left_out)
        snprintf(line + len, sizeof(line) - len - 1, " (and %" PRIu64 " more)", left_out);
    len = strlen(line);
    for (size_t i = 0; i < len; i++) {
        if (line[i] < ' ' || line[i] > '~')
            line[i] = '?';
    }
    line[len++] = '\n';
    (void)!write(STDERR_FILENO, line, len);
}

void log_line(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    write_line(format, args, 0);
    va_end(args);
}

void log_limited(struct log_limit *limit, const char *format, ...)
{
    uint64_t now = log_now_ns();
    va_list args;

    if (now < limit->next_ns) {
        limit->left_out++;
        return;
    }
    va_start(args, format);
    write_line(format, args, limit->left_out);
    va_end(args);
    *limit = (struct log_limit){.next_ns = now + INTERVAL_NS};
}

uint64_t log_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}
