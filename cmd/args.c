/* SPDX-License-Identifier: BSD-2-Clause */
/* Values of options. */
#include "args.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

unsigned args_count(struct argp_state *state, const char *option, const char *arg, unsigned low,
                    unsigned high)
{
    unsigned long value;
    char *end;

    errno = 0;
    value = strtoul(arg, &end, 10);
    if (errno || *arg < '0' || *arg > '9' || *end || value < low || value > high)
        argp_error(state, "--%s is a number from %u to %u, not '%s'", option, low, high, arg);
    return (unsigned)value;
}

/* Bytes; 0 if it is not a size. */
static uint64_t parse_size(const char *text)
{
    static const char units[] = "KMGT";
    uint64_t value, unit = MIB;
    const char *which;
    char *end;

    if (*text < '0' || *text > '9')
        return 0;
    errno = 0;
    value = strtoull(text, &end, 10);
    if (errno)
        return 0;
    if (*end) {
        which = strchr(units, *end >= 'a' && *end <= 'z' ? *end - 'a' + 'A' : *end);
        if (!which)
            return 0;
        unit = (uint64_t)1 << (10 * (which - units + 1));
        end++;
        if (*end == 'i')
            end++;
        if (*end == 'B' || *end == 'b')
            end++;
    }
    if (*end || __builtin_mul_overflow(value, unit, &value))
        return 0;
    return value;
}

uint64_t args_size(struct argp_state *state, const char *option, const char *arg, uint64_t low,
                   uint64_t high, uint64_t step)
{
    uint64_t bytes = parse_size(arg);

    if (bytes < low || bytes > high || bytes % step != 0)
        argp_error(state,
                   "--%s is a size from %" PRIu64 "M to %" PRIu64 "G in steps of %" PRIu64
                   "M (512M, 2G), not '%s'",
                   option, low / MIB, high / (1024 * MIB), step / MIB, arg);
    return bytes;
}

unsigned args_choice(struct argp_state *state, const char *option, const char *const *names,
                     const char *arg)
{
    char list[64] = "";
    unsigned i;

    for (i = 0; names[i]; i++) {
        if (strcmp(names[i], arg) == 0)
            return i;
        strncat(list, i ? ", " : "", sizeof(list) - strlen(list) - 1);
        strncat(list, names[i], sizeof(list) - strlen(list) - 1);
    }
    argp_error(state, "--%s is one of %s, not '%s'", option, list, arg);
    return 0;
}

void args_none(struct argp_state *state, const char *arg)
{
    argp_error(state, "unexpected argument '%s'", arg);
}

const char *args_picture(struct argp_state *state, const char *option, const char *arg)
{
    const char *dot = strrchr(arg, '.');

    if (!dot || (strcmp(dot, ".svg") != 0 && strcmp(dot, ".png") != 0))
        argp_error(state, "--%s: the file's name ends in .svg or .png, not '%s'", option, arg);
    return arg;
}
