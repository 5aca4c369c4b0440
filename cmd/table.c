/* SPDX-License-Identifier: BSD-2-Clause */
#include "table.h"
#include "cmd.h"

#include <stdlib.h>
#include <string.h>

void table_row(struct table *table)
{
    table->row = cmd_realloc(table->row, (table->rows + 1) * sizeof(*table->row));
    table->row[table->rows++] = (struct table_row){.columns = 0};
}

void table_put(struct table *table, char *text)
{
    struct table_row *row = &table->row[table->rows - 1];

    row->cells = cmd_realloc(row->cells, (row->columns + 1) * sizeof(*row->cells));
    row->cells[row->columns++] = text;
}

void table_put_text(struct table *table, const char *text)
{
    table_put(table, cmd_format("%s", text ? text : "-"));
}

static unsigned columns_of(const struct table *table)
{
    return table->rows > 0 ? table->row[0].columns : 0;
}

static const char *cell(const struct table *table, unsigned row, unsigned column)
{
    return column < table->row[row].columns ? table->row[row].cells[column] : "";
}

static int width_of(const struct table *table, unsigned column)
{
    size_t width = 0;

    for (unsigned row = 0; row < table->rows; row++) {
        size_t len = strlen(cell(table, row, column));

        width = len > width ? len : width;
    }
    return (int)width;
}

static void print_rule(const struct table *table, FILE *out)
{
    for (unsigned column = 0; column < columns_of(table); column++)
        fprintf(out, "%s", column == 0 ? "|---|" : "--:|");
    fputc('\n', out);
}

void table_clear(struct table *table)
{
    for (unsigned row = 0; row < table->rows; row++) {
        for (unsigned column = 0; column < table->row[row].columns; column++)
            free(table->row[row].cells[column]);
        free(table->row[row].cells);
    }
    free(table->row);
    *table = (struct table){.rows = 0};
}

void table_print(struct table *table, bool markdown, FILE *out)
{
    unsigned columns = columns_of(table);

    for (unsigned row = 0; row < table->rows; row++) {
        for (unsigned column = 0; column < columns; column++) {
            const char *text = cell(table, row, column);

            if (markdown)
                fprintf(out, "%s %s |", column == 0 ? "|" : "", text);
            else if (column == 0)
                fprintf(out, "%-*s", width_of(table, column), text);
            else
                fprintf(out, "  %*s", width_of(table, column), text);
        }
        fputc('\n', out);
        if (markdown && row == 0)
            print_rule(table, out);
    }
    table_clear(table);
    fputc('\n', out);
}

void table_print_title(const char *title, const char *what, bool markdown, FILE *out)
{
    fprintf(out, "%s%s", markdown ? "### " : "", title);
    if (*what)
        fprintf(out, "%s%s", markdown ? "\n\n" : " - ", what);
    fputs("\n\n", out);
}
