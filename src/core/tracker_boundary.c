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

static void activate(struct ebb_report *report)
{
    for (unsigned order = 0; order < EBB_ORDERS; order++) {
        for (unsigned type = 0; type < EBB_ISOLATE; type++)
            report->boundary[order][type].set = false;
    }
    report->zone->boundary_active = true;
}

void ebb__boundary_open(struct ebb_report *report)
{
    activate(report);
}

void ebb__boundary_close(struct ebb_report *report)
{
    report->zone->boundary_active = false;
}

enum ebb__found ebb__boundary_next(struct ebb_report *report, unsigned *steps, uint32_t *index)
{
    struct ebb_zone *zone = report->zone;
    const struct ebb_free_list *list = &zone->lists[report->order][report->type];
    struct ebb_divider *boundary = &report->boundary[report->order][report->type];

    if (!zone->boundary_active)
        activate(report);
    if (ebb__unreported(list) == 0)
        return EBB__NOTHING;
    while (*steps > 0) {
        uint32_t above = ebb__divider_above(zone, boundary, report->order, report->type);

        (*steps)--;
        ebb__look_ahead(zone, ebb__link_of(zone, report->order, above)->prev);
        if (!ebb__is_reported(zone, report->order, above)) {
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
    if (!zone->boundary_active || type >= EBB_ISOLATE)
        return NULL;
    return &zone->report->boundary[order][type];
}

bool ebb__boundary_place(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type,
                         bool reported, uint32_t *before)
{
    struct ebb_divider *boundary = of_list(zone, order, type);

    return boundary && ebb__divider_place(boundary, index, reported, before);
}

void ebb__boundary_leave(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type)
{
    struct ebb_divider *boundary = of_list(zone, order, type);

    if (boundary)
        ebb__divider_leave(zone, boundary, order, type, index);
}

void ebb__boundary_reset(struct ebb_zone *zone, unsigned order, unsigned type)
{
    struct ebb_divider *boundary = of_list(zone, order, type);

    if (boundary)
        boundary->set = false;
}

bool ebb__boundary_check(const struct ebb_zone *zone, uint32_t *index)
{
    if (!zone->boundary_active)
        return true;
    for (unsigned order = 0; order <= zone->max_order; order++) {
        for (unsigned type = 0; type < EBB_ISOLATE; type++) {
            if (!ebb__divider_check(zone, &zone->report->boundary[order][type], order, type, index))
                return false;
        }
    }
    return true;
}
