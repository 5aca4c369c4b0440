/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tracker that needs nothing but the mark: it walks a list from its head,
 * and leaves the head at the block where it stopped. Reported blocks thus end
 * up behind the head, and the unreported ones, which are the warm ones, in
 * front, where the allocator takes from.
 */
#include "tracker.h"

/* The states of a long list lie far apart: have one on its way some blocks ahead. The
 * links lie close together. */
static void look_ahead(const struct ebb_zone *zone, unsigned order, uint32_t index)
{
    for (unsigned n = 0; n < 3; n++)
        index = ebb__link_of(zone, order, index)->next;
    __builtin_prefetch(&zone->state[index]);
}

enum ebb__found ebb__rotation_next(struct ebb_report *report, unsigned *steps, uint32_t *index)
{
    struct ebb_zone *zone = report->zone;
    struct ebb_free_list *list = &zone->lists[report->order][report->type];

    if (ebb__unreported(list) == 0)
        return EBB__NOTHING;
    while (*steps > 0) {
        uint32_t head = list->head;

        (*steps)--;
        look_ahead(zone, report->order, head);
        if (!ebb__is_reported(zone, head)) {
            *index = head;
            return EBB__FOUND;
        }
        list->head = ebb__link_of(zone, report->order, head)->next;
    }
    return EBB__PAUSE;
}
