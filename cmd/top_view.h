/* SPDX-License-Identifier: BSD-2-Clause */
/* What `ebb top` shows: rows, sorted, put on a terminal in place or printed one block after
 * another. */
#ifndef TOP_VIEW_H
#define TOP_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <termios.h>

enum top_column {
    TOP_NAME,
    TOP_ASSIGNED, /* sizes in bytes */
    TOP_RESIDENT,
    TOP_FREE,
    TOP_WASTE,
    TOP_REPORTED, /* bytes a second */
    TOP_RETURNED,
    TOP_REFAULTS,
    TOP_FAILED,  /* bytes, since the daemon started */
    TOP_MEDIAN,  /* as control_latency() tells it */
    TOP_LATENCY, /* 99 % */
    TOP_BALLOON, /* what it has taken */
    TOP_TARGET,  /* what it shall take */
    TOP_COLUMNS,
};

/* The columns that can be sorted by: "name", ...; NULL: none of that number. Static storage. */
const char *top_column_name(unsigned column);

struct top_row {
    char name[65];
    double values[TOP_COLUMNS]; /* NaN: unknown. That of TOP_NAME is not used */
    bool gone;                  /* what it is called is all that is known of it now */
    bool old;                   /* the guest's statistics are: TOP_FREE and TOP_WASTE */
    char cause[24];             /* of most of TOP_FAILED */
    char state[128];            /* what else there is to know */
};

/* An empty row: everything is unknown. */
void top_row_init(struct top_row *row, const char *name);

/* Another remark, after a comma if it is not the first. */
void top_row_remark(struct top_row *row, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Resident memory that the guest does not use, at least: all of what it has that is neither free
 * nor the balloon's may be resident. From the other values of the row. */
void top_row_waste(struct top_row *row);

/* Rows of one source after those of another; the caller's. */
struct top_rows {
    struct top_row *rows;
    size_t n, size;
};

/* One more, initialized; until the next is added. */
struct top_row *top_rows_add(struct top_rows *rows, const char *name);

#define TOP_NOTES 4u

struct top_view {
    unsigned sort; /* enum top_column */
    bool live;     /* in place, on a terminal */
    double interval_s;
    char notes[TOP_NOTES][256]; /* what is wrong with a source */
    unsigned n_notes;

    /* Private. */
    bool entered, keys;
    struct termios terminal;
};

void top_view_init(struct top_view *view, bool plain);

/* Take the terminal, and give it back: for SIGTSTP, too. Nothing if it is not live. */
void top_view_enter(struct top_view *view);
void top_view_leave(struct top_view *view);

/* A note for the next drawing; more than TOP_NOTES are left out. */
void top_view_note(struct top_view *view, const char *text);

/* Sorts the rows and shows them. False: standard output takes nothing any more. */
bool top_view_draw(struct top_view *view, struct top_rows *rows);

/* False: it ends the program. */
bool top_view_key(struct top_view *view, char key);

#endif
