/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Trackers: the strategies that find the unreported blocks of a zone. One file each; here is
 * what they have in common, and the table of what each does.
 */
#ifndef EBB_HISTORY_TRACKER_H
#define EBB_HISTORY_TRACKER_H

#include "../zone/sorted.h"

#include <ebb/history.h>

enum ebb__found {
    EBB__FOUND,   /* *index is an unreported block */
    EBB__NOTHING, /* there is none left on this list */
    EBB__PAUSE,   /* *looks are used up; go on here later */
    EBB__FLUSH,   /* not before the blocks of the batch are back */
};

/* All under the zone's lock, unless it says otherwise. NULL: has no need of it. */
struct ebb_tracker_ops {
    const char *name;
    /* It visits a zone by address, as one list, not list by list. */
    bool by_address;
    /* What it does where the zone changes its lists; NULL: the zone's own way, sorted lists. */
    const struct ebb_zone_hooks *hooks;

    /* Reporting begins for this zone: report_min_order is set. With no lock held. */
    void (*attach)(struct ebb_history_zone *zone);
    /* A pass begins / is done with history->at. */
    void (*open)(struct ebb_history *history);
    void (*close)(struct ebb_history *history);
    /* The next unreported block of (history->order, history->type) of history->at, or of all of it
     * if it goes by address. Looks at no more than *looks blocks and counts them down. The lock may
     * be dropped between calls. */
    enum ebb__found (*next)(struct ebb_history *history, unsigned *looks, uint32_t *index);
};

extern const struct ebb_tracker_ops ebb__tracker_rotation;
extern const struct ebb_tracker_ops ebb__tracker_membrane;
extern const struct ebb_tracker_ops ebb__tracker_boundary;
extern const struct ebb_tracker_ops ebb__tracker_bitmap;
extern const struct ebb_tracker_ops ebb__tracker_sorted;

static inline struct ebb_history_zone *ebb__history_of(const struct ebb_zone *zone)
{
    return zone->history;
}

/* The list that a pass is at. */
static inline struct ebb_free_list *ebb__history_list(const struct ebb_history *history)
{
    return &history->at->zone->lists[history->order][history->type];
}

/* The states of a long list lie far apart: have that of the block after this one on its way. */
static inline void ebb__look_ahead(const struct ebb_zone *zone, uint32_t next)
{
    __builtin_prefetch(&zone->state[next]);
}

/* ---- inline.c ---- */

/* For report->wake, with the history as worker: run the engine, here. */
void ebb__history_run_inline(void *history);

#endif
