/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * History: how free page reporting was done, or proposed, in 2019 and 2020.
 *
 * The kernel lists argued for a year about how to find the free blocks that the host has not been
 * told of, and when to tell it. All of it is here, to be measured side by side
 * (docs/approaches.md) and tested by one suite. A guest that wants its memory given back needs
 * none of it: it uses ebb_report_add_zone(), whose pacing is surplus pacing (report.h).
 *
 *   ebb_history_init(), ebb_history_add_zone(), then the engine as ever: ebb_report_register(),
 *   ebb_report_run() ...
 *
 * Here everything that is free is reported, a fixed delay after the request.
 */
#ifndef EBB_HISTORY_H
#define EBB_HISTORY_H

#include <ebb/report.h>
#include <ebb/zone.h>

/*
 * How unreported blocks are found. All find the same blocks; they differ in what they cost, and
 * whom (docs/approaches.md has the measurements). Sources: the threads on linux-mm named with each.
 */
enum ebb_tracker {
    EBB_TRACKER_DEFAULT = 0, /* rotation */
    /* The mark alone; a list is left rotated to where the search stopped ("mm / virtio: Provide
     * support for free page reporting", v14 to v17, November 2019 to February 2020; merged in Linux
     * 5.7). */
    EBB_TRACKER_ROTATION,
    /* A divider per order, kept at all times, on one migratetype's list: reported blocks below it,
     * others above ("mm / virtio: Provide support for paravirtual waste page treatment", RFC, May
     * 2019). */
    EBB_TRACKER_MEMBRANE,
    /* A divider per list, valid while a pass is at work on the zone (v1 to v13 of the same, June to
     * November 2019). */
    EBB_TRACKER_BOUNDARY,
    /* A bit per block of the smallest reported order says "might be free and unreported" ("mm:
     * Support for page hinting/reporting", v10 to v12, 2019). */
    EBB_TRACKER_BITMAP,
    /* A divider per list, kept at all times: unreported blocks above, reported ones below. The
     * coldest unreported block is right above it, so nothing is ever searched. Ours; how zones keep
     * their lists anyway. */
    EBB_TRACKER_SORTED,
    EBB_TRACKERS
};

/* Parts split off a reported block. */
enum ebb_split {
    EBB_SPLIT_DEFAULT = 0, /* inherit */
    EBB_SPLIT_INHERIT,     /* are reported: the host was told of them (RFC) */
    EBB_SPLIT_CLEAR,       /* count as unreported, and are reported again (v1 onwards) */
};

/* A block merged from two halves. */
enum ebb_merge {
    EBB_MERGE_DEFAULT = 0, /* both */
    EBB_MERGE_BOTH,        /* is reported if both halves were (RFC) */
    EBB_MERGE_NEVER,       /* is unreported, and reported again at its new order (v1 onwards) */
};

/* A reported block whose pageblock changes its migratetype. */
enum ebb_move {
    EBB_MOVE_DEFAULT = 0, /* keep */
    EBB_MOVE_KEEP,        /* keeps its mark, goes to the tail (v10 onwards) */
    EBB_MOVE_DEMOTE,      /* loses its mark, goes to the head (RFC to v5) */
    /* Keeps its mark, joins the other list at its divider (v6 to v9). Only with a tracker that has
     * dividers. */
    EBB_MOVE_FOLLOW,
};

/* Which orders a pass visits first. Not with the bitmap, which goes by address. */
enum ebb_direction {
    EBB_DIRECTION_DEFAULT = 0, /* ascending */
    EBB_DIRECTION_ASCENDING,   /* what merges on put-back is met again in the same pass (v14) */
    EBB_DIRECTION_DESCENDING,  /* the largest blocks leave first (RFC to v13) */
};

/* Who runs a pass. */
enum ebb_execution {
    EBB_EXECUTION_DEFAULT = 0, /* worker */
    EBB_EXECUTION_WORKER,      /* ebb_report_run(), called by the worker */
    /* The free that asks for it, at its end and with no lock held; each completion then sends the
     * next batch (RFC). Needs no worker and no timer, so there is no delay and no budget, a failed
     * pass is tried again by a later free, and what is below the threshold stays. One call runs at
     * most 256 passes for others that free meanwhile; what is freed during the last of them waits
     * for a later free. ebb_report_complete() runs the engine then, so the engine's memory must
     * stay until it has returned, even if ebb_report_unregister() does so first. */
    EBB_EXECUTION_INLINE,
};

/* When a block is reported. */
enum ebb_pacing {
    EBB_PACING_DEFAULT = 0, /* surplus */
    EBB_PACING_SURPLUS,     /* what nobody needed for a window: report.h */
    EBB_PACING_DELAY,       /* everything, a fixed delay after the request */
};

/* For config.threshold: twice the capacity in use, as the RFC had it. */
#define EBB_REPORT_TWICE_CAPACITY UINT32_MAX

#define EBB_HISTORY_DELAY_MS 100u

/* Zero means default for every field. Those of struct ebb_report_config that pacing does not need
 * (worker, order, capacity, backoff_ms) count as well; the default order is the pageblock's. */
struct ebb_history_config {
    uint8_t pacing;    /* enum ebb_pacing; the fields below are for EBB_PACING_DELAY */
    uint8_t tracker;   /* enum ebb_tracker */
    uint8_t split;     /* enum ebb_split */
    uint8_t merge;     /* enum ebb_merge */
    uint8_t move;      /* enum ebb_move */
    uint8_t direction; /* enum ebb_direction */
    uint8_t execution; /* enum ebb_execution */
    /* Milliseconds from a request to its pass, at most 3,600,000. Default EBB_HISTORY_DELAY_MS.
     * Merged kernel: 2000. */
    uint32_t delay_ms;
    /* Report 1/budget of a free list in one pass, in whole batches rounded up, and one batch more;
     * 1 to 1024. Default 1: all of it. Merged kernel: 16. */
    uint32_t budget;
    /* Unreported blocks that one order must hold before a free asks for a pass. Default 1. The RFC
     * of 2019: EBB_REPORT_TWICE_CAPACITY; v1 to v14: 32 (and such a zone's last few blocks are
     * never reported). */
    uint32_t threshold;
};

/* Both kinds of settings, for programs that take either. */
struct ebb_settings {
    struct ebb_report_config report;
    struct ebb_history_config history;
};

/*
 * Why two configurations cannot go together, in one English clause (static storage); NULL: they
 * can. Values out of bounds, combinations that contradict each other, and settings of one
 * pacing given with the other: nothing is changed or left out silently. With pacing=surplus
 * (or none named) every setting of this header is refused; with pacing=delay the window and
 * refault_ns are.
 */
const char *ebb_history_problem(const struct ebb_settings *settings);

/* The tracker that a configuration gets, and a tracker's name; "none" if there is no such. */
enum ebb_tracker ebb_history_tracker(const struct ebb_history_config *config);
const char *ebb_tracker_name(enum ebb_tracker tracker);

/* As ebb_report_config_set(), for the fields above. Threshold also takes "2x": twice the
 * capacity. */
EBB_MUST_CHECK int ebb_history_config_set(struct ebb_history_config *config, const char *key,
                                          const char *value, const char **allowed);

/* Set a field of whichever has it. As the two above. */
EBB_MUST_CHECK int ebb_settings_set(struct ebb_settings *settings, const char *key,
                                    const char *value, const char **allowed);

struct ebb_history;

/*
 * Make an engine that reports as configured: with pacing=delay as in 2019; else it is as
 * ebb_report_init() makes it, and the same goes for ebb_history_add_zone(). `report` is then used
 * as ever; `history` stays in place as long as it does. -EBB_EINVAL: ebb_history_problem() has a
 * reason.
 */
EBB_MUST_CHECK int ebb_history_init(struct ebb_history *history, struct ebb_report *report,
                                    const struct ebb_settings *settings);

/* What the tracker keeps of one zone, caller-owned; beside it the bitmap needs a number of bytes, 0
 * with other trackers. */
struct ebb_history_zone;
size_t ebb_history_metadata_size(const struct ebb_history *history, const struct ebb_zone *zone);

/* As ebb_report_add_zone(). `memory`: ebb_history_metadata_size() bytes of zeroes, aligned to 8,
 * which stay in place as long as the zone; NULL if that is 0. -EBB_EINVAL: there is none. */
EBB_MUST_CHECK int ebb_history_add_zone(struct ebb_history *history,
                                        struct ebb_history_zone *history_zone,
                                        struct ebb_zone *zone, void *memory);

#include <ebb/impl/history.h>

#endif
