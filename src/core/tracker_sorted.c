/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tracker that keeps every free list sorted, at all times: unreported blocks
 * from the head, reported ones from the divider to the tail. So the head is unreported
 * as long as any block is, which the allocator makes use of, and the coldest
 * unreported block is the one above the divider: there is nothing to search.
 *
 * Like all dividers it names a reported block, or nothing, so that a guest that frees and
 * allocates unreported memory does not come by here.
 */
#include "tracker.h"

enum ebb__found ebb__sorted_next(struct ebb_report *report, unsigned *steps, uint32_t *index)
{
    const struct ebb_zone *zone = report->zone;

    if (ebb__unreported(&zone->lists[report->order][report->type]) == 0)
        return EBB__NOTHING;
    if (*steps == 0)
        return EBB__PAUSE;
    (*steps)--;
    *index = ebb__sorted_coldest(zone, report->order, report->type);
    return EBB__FOUND;
}

uint32_t ebb__sorted_coldest(const struct ebb_zone *zone, unsigned order, unsigned type)
{
    return ebb__divider_above(zone, &zone->sorted[order][type], order, type);
}

bool ebb__sorted_place(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type,
                       bool reported, uint32_t *before)
{
    return ebb__divider_place(&zone->sorted[order][type], index, reported, before);
}

void ebb__sorted_leave(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type)
{
    ebb__divider_leave(zone, &zone->sorted[order][type], order, type, index);
}

/* All that are reported are below the divider. */
static bool complete(const struct ebb_zone *zone, unsigned order, unsigned type, uint32_t *index)
{
    const struct ebb_free_list *list = &zone->lists[order][type];
    const struct ebb_divider *divider = &zone->sorted[order][type];
    uint64_t below = 0;

    if (!divider->set)
        return list->reported == 0;
    *index = divider->block;
    do {
        *index = ebb__link_of(zone, order, *index)->next;
        below++;
    } while (*index != list->head && below < list->blocks);
    *index = divider->block;
    return below == list->reported;
}

bool ebb__sorted_check(const struct ebb_zone *zone, uint32_t *index)
{
    for (unsigned order = 0; order <= zone->max_order; order++) {
        for (unsigned type = 0; type < EBB_MIGRATETYPES; type++) {
            if (!ebb__divider_check(zone, &zone->sorted[order][type], order, type, index) ||
                !complete(zone, order, type, index))
                return false;
        }
    }
    return true;
}
