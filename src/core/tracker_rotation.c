/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tracker that needs nothing but the mark: it walks a list from its head,
 * and leaves the head at the block where it stopped. Reported blocks thus end
 * up behind the head, and the unreported ones, which are the warm ones, in
 * front, where the allocator takes from.
 */
#include "tracker.h"

enum ebb__found ebb__rotation_next(struct ebb_report *report, unsigned *steps, uint32_t *index)
{
    struct ebb_zone *zone = report->zone;
    struct ebb_free_list *list = &zone->lists[report->order][report->type];

    if (ebb__unreported(list) == 0)
        return EBB__NOTHING;
    while (*steps > 0) {
        uint32_t head = list->head;
        uint32_t next = ebb__link_of(zone, report->order, head)->next;

        (*steps)--;
        ebb__look_ahead(zone, next);
        if (!ebb__is_reported(zone, report->order, head)) {
            *index = head;
            return EBB__FOUND;
        }
        list->head = next;
    }
    return EBB__PAUSE;
}
