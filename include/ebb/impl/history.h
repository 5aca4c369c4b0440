/* SPDX-License-Identifier: BSD-2-Clause */
/* The inside of src/history. Callers own the memory and look at nothing in it. */
#ifndef EBB_IMPL_HISTORY_H
#define EBB_IMPL_HISTORY_H

struct ebb_tracker_ops;

struct ebb_history_zone {
    struct ebb_zone *zone;
    struct ebb_history *history;
    bool ready; /* ebb_zone_check() may look at what the tracker keeps */
    struct ebb_divider membrane[EBB_ORDERS];
    bool boundary_active; /* the history's boundaries are this zone's */
    uint64_t *bits;       /* per block of report_min_order: might be free and unreported */
    uint64_t *bit_words;  /* per word of these: is not zero */
    uint64_t bit_cursor;
};

struct ebb_history {
    struct ebb_report *report;
    struct ebb_history_config config;
    const struct ebb_tracker_ops *tracker;
    uint32_t running; /* atomic, inline: a CPU is running passes */

    /* The pass under way: where it stands. Only the engine's runner touches these. */
    struct ebb_history_zone *at;
    unsigned capacity;
    bool filled; /* the batch has blocks */
    bool lists_left;
    bool list_open;
    unsigned order;
    unsigned type;
    uint64_t list_blocks; /* blocks that may still be taken from this list */
    uint64_t list_steps;  /* blocks of it that may still be looked at */
    uint64_t scan_left;   /* bitmap: words that this pass has still to visit */
    /* Boundary: of the zone whose boundary_active is set, under its lock. */
    struct ebb_divider boundary[EBB_ORDERS][EBB_ISOLATE];
};

#endif
