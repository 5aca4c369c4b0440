/* SPDX-License-Identifier: BSD-2-Clause */
/* Pictures of runs, by gnuplot. */
#ifndef PLOT_H
#define PLOT_H

#include <json-c/json_object.h>
#include <stdbool.h>
#include <stddef.h>

#define PLOT_RUNS 8u

/* Is gnuplot there? Explains if not. */
bool plot_check(void);

/* Draw one run (guest and host over time), or several (what the host held, as
 * of their release) into a .svg or .png. labels may be NULL, and so may each. */
bool plot_draw(struct json_object *const *runs, const char *const *labels, size_t n,
               const char *title, const char *path);

#endif
