/* SPDX-License-Identifier: BSD-2-Clause */
/* Tables of text: plain, columns aligned, or as Markdown. */
#ifndef TABLE_H
#define TABLE_H

#include <stdbool.h>
#include <stdio.h>

struct table_row {
    char **cells;
    unsigned columns;
};

/* Zero is an empty table. */
struct table {
    struct table_row *row; /* the first holds the heads, and says how many columns are shown */
    unsigned rows;
};

void table_row(struct table *table);
/* Into the next column of the last row. Takes the text. */
void table_put(struct table *table, char *text);
void table_put_text(struct table *table, const char *text);
void table_clear(struct table *table);
/* Prints and empties it. */
void table_print(struct table *table, bool markdown, FILE *out);

void table_print_title(const char *title, const char *what, bool markdown, FILE *out);

#endif
