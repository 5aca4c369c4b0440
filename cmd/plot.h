/* SPDX-License-Identifier: BSD-2-Clause */
/* Pictures of runs, by gnuplot. */
#ifndef PLOT_H
#define PLOT_H

#include <json-c/json_object.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define PLOT_RUNS 8u

/* Is gnuplot there? Explains if not. */
bool plot_check(void);

/* Draw one run (guest and host over time), several (what the host held, as of their
 * release), or one replay into a .svg or .png. labels may be NULL, and so may each. */
bool plot_draw(struct json_object *const *runs, const char *const *labels, size_t n,
               const char *title, const char *path);

/* ---- for those who write a script of gnuplot themselves ---- */

/* A string, in which nothing is special but the quote itself. */
void plot_put_string(FILE *file, const char *text);

/* Terminal (by the ending of path), title and style. */
void plot_put_header(FILE *file, const char *path, const char *title, const char *subtitle);

/* Run it, and write what it draws. Explains if it cannot. */
bool plot_run(const char *script, const char *path);

#endif
