/* SPDX-License-Identifier: BSD-2-Clause */
/* What a run shows while it goes on, and its summary. */
#ifndef VIEW_H
#define VIEW_H

#include "run.h"

enum view_mode {
    VIEW_QUIET, /* nothing: asked for, or the guest has the terminal */
    VIEW_PLAIN, /* a line when something happens, and one a second at most */
    VIEW_LIVE,  /* a chart, redrawn in place */
};

struct view {
    enum view_mode mode;
    struct run *run;
    bool utf8, color;
    unsigned columns, rows; /* of the terminal */
    unsigned drawn;         /* lines that the next frame overwrites */
    uint64_t next_ns;       /* when to show something again */
};

void view_init(struct view *view, struct run *run);
/* The terminal may have another size now. */
void view_resize(struct view *view);
/* Something was heard from the guest; record_event() has seen it already. */
void view_event(struct view *view, uint64_t ns, const struct telemetry_event *event);
/* Show the state, if it is time; returns when to be called again. */
uint64_t view_tick(struct view *view, uint64_t now);
/* Would a line on standard output go out at once? A pipe that nobody reads, or a stopped terminal,
 * must not stop the run, which has signals to hear. */
bool view_writable(void);
/* The last state; what follows is printed below it. */
void view_end(struct view *view);

/* What a person wants to know in the end. */
void view_summary(const struct run *run, const struct record_result *result);

#endif
