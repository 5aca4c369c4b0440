/* SPDX-License-Identifier: BSD-2-Clause */
#include "top_view.h"
#include "cmd.h"
#include "grid.h"

#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define ROWS_USUAL    24u
#define COLUMNS_USUAL 80u
#define LINES_BESIDES 5u /* on a terminal: title, empty, heads, total, keys */

static const struct {
    const char *name; /* to sort by; NULL: cannot be */
    char key;
} columns[TOP_COLUMNS] = {
    [TOP_NAME] = {"name", 'n'},         [TOP_ASSIGNED] = {"assigned", 'a'},
    [TOP_RESIDENT] = {"resident", 'r'}, [TOP_FREE] = {"free", 'f'},
    [TOP_WASTE] = {"waste", 'w'},       [TOP_REPORTED] = {"reported", 'p'},
    [TOP_RETURNED] = {"returned", 't'}, [TOP_REFAULTS] = {"refaults", 'x'},
    [TOP_FAILED] = {"failed", 'e'},     [TOP_MEDIAN] = {"median", 'm'},
    [TOP_LATENCY] = {"latency", 'l'},   [TOP_BALLOON] = {"balloon", 'b'},
    [TOP_TARGET] = {NULL, '\0'},
};

const char *top_column_name(unsigned column)
{
    return column < TOP_COLUMNS ? columns[column].name : NULL;
}

/* ---- rows ---- */

void top_row_init(struct top_row *row, const char *name)
{
    *row = (struct top_row){.gone = false};
    snprintf(row->name, sizeof(row->name), "%s", name);
    grid_clean(row->name);
    for (size_t i = 0; i < TOP_COLUMNS; i++)
        row->values[i] = (double)NAN;
}

void top_row_remark(struct top_row *row, const char *format, ...)
{
    size_t len = strlen(row->state);
    va_list args;

    if (len > 0)
        len += (size_t)snprintf(row->state + len, sizeof(row->state) - len, ", ");
    if (len >= sizeof(row->state))
        return;
    va_start(args, format);
    vsnprintf(row->state + len, sizeof(row->state) - len, format, args);
    va_end(args);
    grid_clean(row->state);
}

void top_row_waste(struct top_row *row)
{
    double balloon = isnan(row->values[TOP_BALLOON]) ? 0 : row->values[TOP_BALLOON];
    double used = row->values[TOP_ASSIGNED] - balloon - row->values[TOP_FREE];
    double waste = row->values[TOP_RESIDENT] - (used > 0 ? used : isnan(used) ? used : 0);

    row->values[TOP_WASTE] = waste < 0 ? 0 : waste;
}

struct top_row *top_rows_add(struct top_rows *rows, const char *name)
{
    if (rows->n == rows->size) {
        rows->size = 2 * rows->size + 16;
        rows->rows = cmd_realloc(rows->rows, rows->size * sizeof(*rows->rows));
    }
    top_row_init(&rows->rows[rows->n], name);
    return &rows->rows[rows->n++];
}

/* Largest first, what is unknown last, then by name. */
static int compare(const void *a, const void *b, void *ctx)
{
    const struct top_row *one = a, *other = b;
    const struct top_view *view = ctx;
    double x = one->values[view->sort], y = other->values[view->sort];

    if (view->sort == TOP_MEDIAN || view->sort == TOP_LATENCY) {
        x = fabs(x) + (x < 0); /* "longer than" comes before "less than" */
        y = fabs(y) + (y < 0);
    }
    if (view->sort != TOP_NAME && !!isnan(x) != !!isnan(y))
        return isnan(x) ? 1 : -1;
    if (view->sort != TOP_NAME && x < y)
        return 1;
    if (view->sort != TOP_NAME && x > y)
        return -1;
    return strcmp(one->name, other->name);
}

/* What the sum of a column takes from a row: a balloon without a target of its own is where it
 * shall be. */
static double part_of(const struct top_row *row, size_t column)
{
    if (column == TOP_MEDIAN || column == TOP_LATENCY)
        return (double)NAN;
    if (column == TOP_TARGET && isnan(row->values[TOP_TARGET]))
        return row->values[TOP_BALLOON];
    return row->values[column];
}

static struct top_row total_of(const struct top_rows *rows)
{
    struct top_row total;

    top_row_init(&total, "TOTAL");
    for (size_t i = 0; i < rows->n; i++) {
        for (size_t column = TOP_ASSIGNED; column < TOP_COLUMNS; column++) {
            double value = part_of(&rows->rows[i], column), *sum = &total.values[column];

            if (!isnan(value))
                *sum = isnan(*sum) ? value : *sum + value;
        }
    }
    return total;
}

/* ---- the table ---- */

static void put_heads(struct grid *grid)
{
    static const char *const heads[] = {"NAME",     "ASSIGNED", "RESIDENT",  "FREE",   "WASTE",
                                        "REPORT/s", "RETURN/s", "REFAULT/s", "FAILED", "MOSTLY",
                                        "MEDIAN",   "99%",      "BALLOON",   "STATE"};

    grid->columns = sizeof(heads) / sizeof(heads[0]);
    grid->left = 1u | 1u << 9 | 1u << 13;
    for (size_t i = 0; i < grid->columns; i++)
        grid_put(grid, "%s", heads[i]);
}

static void put_balloon(struct grid *grid, const struct top_row *row)
{
    double actual = row->values[TOP_BALLOON], target = row->values[TOP_TARGET];
    char has[GRID_FIGURE], shall[GRID_FIGURE];

    grid_size(actual, has);
    grid_size(target, shall);
    if (isnan(target) || !(actual < target || actual > target))
        grid_put(grid, "%s", has);
    else
        grid_put(grid, "%s/%s", has, shall);
}

static void put_row(struct grid *grid, const struct top_row *row)
{
    char figure[GRID_FIGURE];

    grid_put(grid, "%s", row->name);
    for (unsigned i = TOP_ASSIGNED; i <= TOP_FAILED; i++) {
        bool old = row->old && (i == TOP_FREE || i == TOP_WASTE) && !isnan(row->values[i]);

        grid_put(grid, "%s%s", old ? "~" : "", grid_size(row->values[i], figure));
    }
    grid_put(grid, "%s", row->cause);
    grid_put(grid, "%s", grid_latency(row->values[TOP_MEDIAN], figure));
    grid_put(grid, "%s", grid_latency(row->values[TOP_LATENCY], figure));
    put_balloon(grid, row);
    grid_put(grid, "%s", row->state);
}

static void put_title(const struct top_view *view, const struct top_rows *rows, size_t shown,
                      FILE *out)
{
    time_t now = time(NULL);
    struct tm parts;
    char clock[16] = "";
    size_t gone = 0;

    for (size_t i = 0; i < rows->n; i++)
        gone += rows->rows[i].gone;
    if (localtime_r(&now, &parts))
        strftime(clock, sizeof(clock), "%H:%M:%S", &parts);
    fprintf(out, "ebb top %s  %zu VM%s", clock, rows->n, rows->n == 1 ? "" : "s");
    if (gone > 0)
        fprintf(out, ", %zu gone", gone);
    if (shown < rows->n)
        fprintf(out, ", %zu shown", shown);
    fprintf(out, ", by %s, every %g s\n", columns[view->sort].name, view->interval_s);
    for (unsigned i = 0; i < view->n_notes; i++)
        fprintf(out, "%s\n", view->notes[i]);
}

/* All of it, to be freed; in this width, or 0: any. */
static char *compose(const struct top_view *view, const struct top_rows *rows, size_t shown,
                     unsigned width)
{
    struct top_row total = total_of(rows);
    struct grid grid = {.columns = 1, .width = width, .last = TOP_FAILED};
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        cmd_no_memory();
    put_title(view, rows, shown, out);
    if (view->live)
        fputc('\n', out);
    put_heads(&grid);
    for (size_t i = 0; i < shown; i++)
        put_row(&grid, &rows->rows[i]);
    put_row(&grid, &total);
    grid_print(&grid, out);
    if (view->live)
        fputs("q ends; sort by n)ame a)ssigned r)esident f)ree w)aste re(p)orted re(t)urned "
              "refaults (x) failed (e) m)edian l)atency b)alloon\n",
              out);
    else
        fputc('\n', out);
    if (fclose(out) != 0)
        cmd_no_memory();
    return text;
}

/* ---- the terminal ---- */

void top_view_init(struct top_view *view, bool plain)
{
    const char *term = getenv("TERM");

    *view = (struct top_view){.sort = TOP_WASTE};
    view->live = !plain && isatty(STDOUT_FILENO) && (!term || strcmp(term, "dumb") != 0);
}

static void write_out(const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDOUT_FILENO, text, len);

        if (n <= 0)
            return;
        text += n;
        len -= (size_t)n;
    }
}

void top_view_enter(struct top_view *view)
{
    static const char begin[] =
        "\033[?1049h\033[?25l\033[?7l"; /* other screen, no cursor, no wrap */
    struct termios raw;

    if (!view->live || view->entered)
        return;
    view->entered = true;
    write_out(begin, sizeof(begin) - 1);
    view->keys = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &view->terminal) == 0;
    if (!view->keys)
        return;
    raw = view->terminal;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

void top_view_leave(struct top_view *view)
{
    static const char end[] = "\033[?7h\033[?25h\033[?1049l";

    if (!view->entered)
        return;
    view->entered = false;
    write_out(end, sizeof(end) - 1);
    if (view->keys)
        tcsetattr(STDIN_FILENO, TCSANOW, &view->terminal);
}

static void get_size(unsigned *lines, unsigned *width)
{
    struct winsize size;

    *lines = ROWS_USUAL;
    *width = COLUMNS_USUAL;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0)
        return;
    if (size.ws_row > 0)
        *lines = size.ws_row;
    if (size.ws_col > 0)
        *width = size.ws_col;
}

/* In one piece, so that it does not flicker. */
static void put_frame(const char *text, unsigned lines, unsigned width)
{
    char *frame = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&frame, &len);

    if (!out)
        cmd_no_memory();
    fputs("\033[H", out);
    for (unsigned line = 0; line < lines && *text; line++) {
        size_t end = strcspn(text, "\n");

        fprintf(out, "%s%.*s\033[K", line ? "\r\n" : "", (int)(end < width ? end : width), text);
        text += end + (text[end] == '\n');
    }
    fputs("\033[J", out);
    if (fclose(out) != 0)
        cmd_no_memory();
    write_out(frame, len);
    free(frame);
}

static void draw_live(const struct top_view *view, const struct top_rows *rows)
{
    struct pollfd writable = {.fd = STDOUT_FILENO, .events = POLLOUT};
    unsigned lines, width, besides = LINES_BESIDES + view->n_notes;
    size_t room;
    char *text;

    /* A stopped terminal must not stop us. */
    if (!view->entered || poll(&writable, 1, 0) != 1 || !(writable.revents & POLLOUT))
        return;
    get_size(&lines, &width);
    room = lines > besides ? lines - besides : 0;
    text = compose(view, rows, rows->n < room ? rows->n : room, width);
    put_frame(text, lines, width);
    free(text);
}

bool top_view_draw(struct top_view *view, struct top_rows *rows)
{
    char *text;

    if (rows->n > 1)
        qsort_r(rows->rows, rows->n, sizeof(*rows->rows), compare, view);
    if (view->live) {
        draw_live(view, rows);
        return true;
    }
    text = compose(view, rows, rows->n, 0);
    fputs(text, stdout);
    free(text);
    return fflush(stdout) == 0 && !ferror(stdout);
}

void top_view_note(struct top_view *view, const char *text)
{
    if (view->n_notes == TOP_NOTES)
        return;
    snprintf(view->notes[view->n_notes], sizeof(view->notes[0]), "%s", text);
    grid_clean(view->notes[view->n_notes++]);
}

bool top_view_key(struct top_view *view, char key)
{
    for (unsigned i = 0; i < TOP_COLUMNS; i++) {
        if (columns[i].name && columns[i].key == key)
            view->sort = i;
    }
    return key != 'q' && key != 'Q';
}
