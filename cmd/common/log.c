/* SPDX-License-Identifier: BSD-2-Clause */
#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LINE_LIMIT  512u /* of at most PIPE_BUF, see put() */
#define END_LIMIT   192u /* of that, for what is said behind the text */
#define INTERVAL_NS ((uint64_t)5000000000)

static const char *log_program = "ebbd";
static uint64_t lost;     /* lines since the last one that went through */
static char operator[64]; /* see log_by() */

/*
 * Without waiting, and without O_NONBLOCK, which all who share the file would have. A pipe that
 * poll() calls writable takes PIPE_BUF bytes at once. What remains: somebody else who fills the
 * same pipe between the two calls, a terminal with room for a part of the line, and a file whose
 * disk hangs.
 */
static bool put(const char *line, size_t len)
{
    struct pollfd file = {.fd = STDERR_FILENO, .events = POLLOUT};
    int error = errno;
    ssize_t n = send(STDERR_FILENO, line, len, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0 && errno == ENOTSOCK && poll(&file, 1, 0) == 1 && file.revents & POLLOUT)
        n = write(STDERR_FILENO, line, len);
    errno = error; /* callers go on with it */
    return n == (ssize_t)len;
}

void log_begin(const char *program)
{
    log_program = program;
}

/* In one write, so that lines of others do not come in between; and without what a terminal
 * could act on, since names and texts of other programs are in it. */
static void write_line(const char *format, va_list args, uint64_t left_out)
{
    char line[LINE_LIMIT], *end = line + sizeof(line) - 1, *at = line;

    at += snprintf(line, sizeof(line), "%s: ", log_program);

    vsnprintf(at, (size_t)(end - at) - END_LIMIT, format, args);
    at += strlen(at);
    if (*operator)
        at += snprintf(at, (size_t)(end - at), " (%s)", operator);
    if (left_out)
        at += snprintf(at, (size_t)(end - at), " (and %" PRIu64 " more)", left_out);
    if (lost)
        at += snprintf(at, (size_t)(end - at),
                       " (%" PRIu64 " lines before this were lost: nobody read them)", lost);
    for (char *c = line; c < at; c++) {
        if (*c < ' ' || *c > '~')
            *c = '?';
    }
    *at++ = '\n';
    lost = put(line, (size_t)(at - line)) ? 0 : lost + 1;
}

void log_by(const char *who)
{
    snprintf(operator, sizeof(operator), "%s", who ? who : "");
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

    if (now < limit->next_ns && !*operator) {
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
