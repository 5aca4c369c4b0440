/* SPDX-License-Identifier: BSD-2-Clause */
#include "grid.h"
#include "cmd.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void grid_clean(char *text)
{
    char *to = text;

    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;

        if (byte >= ' ' && byte <= '~')
            *to++ = *text;
        else if ((byte & 0xc0) != 0x80) /* not what continues a character of UTF-8 */
            *to++ = '?';
    }
    *to = '\0';
}

void grid_put(struct grid *grid, const char *format, ...)
{
    va_list args;
    char *text;
    int n;

    if (grid->n == grid->size) {
        grid->size = 2 * grid->size + 64;
        grid->cells = cmd_realloc(grid->cells, grid->size * sizeof(char *));
    }
    va_start(args, format);
    n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0)
        cmd_no_memory();
    grid_clean(text);
    grid->cells[grid->n++] = text;
}

static void find_widths(const struct grid *grid, int widths[GRID_COLUMNS])
{
    memset(widths, 0, GRID_COLUMNS * sizeof(*widths));
    for (size_t i = 0; i < grid->n; i++) {
        int *width = &widths[i % grid->columns], len = (int)strlen(grid->cells[i]);

        *width = len > *width ? len : *width;
    }
}

#define LEAST 6 /* characters of a name that is cut */

/* "0123456789" is "012..789" for 8. */
static void cut_middle(char *text, size_t room)
{
    size_t len = strlen(text), behind = (room - 2) / 2, before = room - 2 - behind;

    if (len <= room)
        return;
    memset(text + before, '.', 2);
    memmove(text + before + 2, text + len - behind, behind + 1);
}

static void make_fit(struct grid *grid, int widths[GRID_COLUMNS])
{
    int room = (int)grid->width;

    for (unsigned i = 1; i <= grid->last; i++)
        room -= 2 + widths[i];
    room = room < LEAST ? LEAST : room;
    if (!grid->width || widths[0] <= room)
        return;
    for (size_t i = 0; i < grid->n; i += grid->columns)
        cut_middle(grid->cells[i], (size_t)room);
    widths[0] = room;
}

void grid_print(struct grid *grid, FILE *out)
{
    int widths[GRID_COLUMNS];

    find_widths(grid, widths);
    make_fit(grid, widths);
    for (size_t i = 0; i < grid->n; i++) {
        size_t column = i % grid->columns;
        bool last = column + 1 == grid->columns || i + 1 == grid->n;
        bool left = grid->left & (1u << column);

        if (column > 0 && !(left && last && !*grid->cells[i]))
            fputs("  ", out);
        if (left && last)
            fputs(grid->cells[i], out);
        else
            fprintf(out, left ? "%-*s" : "%*s", widths[column], grid->cells[i]);
        if (last)
            fputc('\n', out);
        free(grid->cells[i]);
    }
    free(grid->cells);
    grid->cells = NULL;
    grid->n = grid->size = 0;
}

/* Three digits that count. */
static int digits(double value)
{
    return value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
}

const char *grid_size(double bytes, char out[GRID_FIGURE])
{
    static const char units[] = "BKMGTPE";
    size_t unit = 0;

    if (isnan(bytes)) {
        snprintf(out, GRID_FIGURE, "-");
        return out;
    }
    while (bytes >= 1023.5 && units[unit + 1]) {
        bytes /= 1024;
        unit++;
    }
    if (unit == 0)
        snprintf(out, GRID_FIGURE, bytes < 0.5 ? "0" : "%.0fB", bytes);
    else
        snprintf(out, GRID_FIGURE, "%.*f%c", fmod(bytes, 1) == 0 ? 0 : digits(bytes), bytes,
                 units[unit]);
    return out;
}

const char *grid_time(double ns, char out[GRID_FIGURE])
{
    if (isnan(ns))
        snprintf(out, GRID_FIGURE, "-");
    else if (ns < 999.5)
        snprintf(out, GRID_FIGURE, "%.0fns", ns);
    else if (ns < 999.5e3)
        snprintf(out, GRID_FIGURE, "%.3gus", ns / 1e3);
    else if (ns < 999.5e6)
        snprintf(out, GRID_FIGURE, "%.3gms", ns / 1e6);
    else if (ns < 600e9)
        snprintf(out, GRID_FIGURE, "%.3gs", ns / 1e9);
    else if (ns < 36e12)
        snprintf(out, GRID_FIGURE, "%.0fmin", ns / 60e9);
    else
        snprintf(out, GRID_FIGURE, "%.3gh", ns / 3600e9);
    return out;
}

const char *grid_latency(double ns, char out[GRID_FIGURE])
{
    char time[GRID_FIGURE];

    if (isnan(ns))
        return grid_time(ns, out);
    snprintf(out, GRID_FIGURE, "%c%.20s", ns < 0 ? '>' : '<', grid_time(fabs(ns), time));
    return out;
}
