/* SPDX-License-Identifier: BSD-2-Clause */
/* Tables of text: plain, columns aligned, or as Markdown. */
#ifndef TABLE_H
#define TABLE_H

#include <stdbool.h>
#include <stdio.h>

#define TABLE_COLUMNS 12u
#define TABLE_ROWS    32u

/* Zero is an empty table. */
struct table {
    char *cells[TABLE_ROWS][TABLE_COLUMNS];
    unsigned columns, rows; /* the first row holds the heads */
};

void table_row(struct table *table);
/* Into the next column. Takes the text. */
void table_put(struct table *table, char *text);
void table_put_text(struct table *table, const char *text);
void table_clear(struct table *table);
/* Prints and empties it. */
void table_print(struct table *table, bool markdown, FILE *out);

void table_print_title(const char *title, const char *what, bool markdown, FILE *out);

#endif
