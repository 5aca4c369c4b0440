/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tracker of v1 to v13 (June to November 2019): a divider per list, but only while a
 * pass is at work on the zone, so that the zone itself holds no more than a
 * flag; the dividers are the engine's. A pass begins with none, at the tails, and drags them up
 * over the blocks that are reported already. Meanwhile what goes cold is put right above them.
 * Whoever works on a list on his own resets its divider; to drop all of them it is enough to clear
 * the flag.
 */
#include "tracker.h"

static void activate(struct ebb_history *history)
{
    for (unsigned order = 0; order < EBB_ORDERS; order++) {
        for (unsigned type = 0; type < EBB_ISOLATE; type++)
            history->boundary[order][type].set = false;
    }
    history->at->boundary_active = true;
}

static void boundary_open(struct ebb_history *history)
{
    activate(history);
}

static void boundary_close(struct ebb_history *history)
{
    history->at->boundary_active = false;
}

static enum ebb__found boundary_next(struct ebb_history *history, unsigned *looks, uint32_t *index)
{
    struct ebb_zone *zone = history->at->zone;
    const struct ebb_free_list *list = &zone->lists[history->order][history->type];
    struct ebb_divider *boundary = &history->boundary[history->order][history->type];

    if (!ebb__history_of(zone)->boundary_active)
        activate(history);
    if (ebb__unreported(list) == 0)
        return EBB__NOTHING;
    while (*looks > 0) {
        uint32_t above = ebb__divider_above(zone, boundary, history->order, history->type);

        (*looks)--;
        ebb__look_ahead(zone, ebb__link_of(zone, history->order, above)->prev);
        if (!ebb__is_reported(zone, history->order, above)) {
            *index = above;
            return EBB__FOUND;
        }
        boundary->block = above;
        boundary->set = true;
    }
    return EBB__PAUSE;
}

/* The boundary of this list, if there is one now. */
static struct ebb_divider *of_list(const struct ebb_zone *zone, unsigned order, unsigned type)
{
    if (!ebb__history_of(zone)->boundary_active || type >= EBB_ISOLATE)
        return NULL;
    return &ebb__history_of(zone)->history->boundary[order][type];
}

static bool boundary_place(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type,
                           bool reported, uint32_t *before)
{
    struct ebb_divider *boundary = of_list(zone, order, type);

    return boundary && ebb__divider_place(boundary, index, reported, before);
}

static void boundary_leave(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type)
{
    struct ebb_divider *boundary = of_list(zone, order, type);

    if (boundary)
        ebb__divider_leave(zone, boundary, order, type, index);
}

static void boundary_reset(struct ebb_zone *zone, unsigned order, unsigned type)
{
    struct ebb_divider *boundary = of_list(zone, order, type);

    if (boundary)
        boundary->set = false;
}

static bool boundary_check(const struct ebb_zone *zone, uint32_t *index)
{
    if (!ebb__history_of(zone)->boundary_active)
        return true;
    for (unsigned order = 0; order <= zone->max_order; order++) {
        for (unsigned type = 0; type < EBB_ISOLATE; type++) {
            if (!ebb__divider_check(zone, &ebb__history_of(zone)->history->boundary[order][type],
                                    order, type, index))
                return false;
        }
    }
    return true;
}

static const struct ebb_zone_hooks boundary_hooks = {
    .has_dividers = true,
    .place = boundary_place,
    .leave = boundary_leave,
    .reset = boundary_reset,
    .check = boundary_check,
};

const struct ebb_tracker_ops ebb__tracker_boundary = {
    .name = "boundary",
    .hooks = &boundary_hooks,
    .open = boundary_open,
    .close = boundary_close,
    .next = boundary_next,
};
