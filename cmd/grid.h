/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables of any number of rows for a terminal, and the figures in them. All text in them may come
 * from elsewhere: what is not printable ASCII becomes '?'. (table.h is for reports, with Markdown.)
 */
#ifndef GRID_H
#define GRID_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define GRID_COLUMNS 16u

struct grid {
    unsigned columns; /* 1 to GRID_COLUMNS */
    unsigned left;    /* bit i: column i is aligned left; others right */
    /* The first column's texts lose their middle where columns 1 to `last` would not fit into this
     * width; 0: any width. */
    unsigned width, last;

    /* Private; zero is an empty grid. */
    char **cells;
    size_t n, size;
};

/* Into the next cell: rows follow each other. */
void grid_put(struct grid *grid, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints and empties it. A row that is not full ends there. */
void grid_print(struct grid *grid, FILE *out);

/* Makes text safe for a terminal and a line, in place: one '?' for each character that is not
 * printable ASCII. */
void grid_clean(char *text);

#define GRID_FIGURE 24u

/* "1.50G", "512M", "0"; "-" if it is NaN. In powers of 1024. */
const char *grid_size(double bytes, char out[GRID_FIGURE]);

/* "1.02ms"; "-" if it is NaN. */
const char *grid_time(double ns, char out[GRID_FIGURE]);

/* What control_latency() tells: "<1.02ms", ">4.19s"; "-" if it is NaN. */
const char *grid_latency(double ns, char out[GRID_FIGURE]);

#endif
