/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tracker that needs nothing but the mark: it walks a list from its head,
 * and leaves the head at the block where it stopped. Reported blocks thus end
 * up behind the head, and the unreported ones, which are the warm ones, in
 * front, where the allocator takes from.
 */
#include "core.h"

static bool rotation_next(struct ebb_zone *zone, unsigned order, unsigned type, unsigned *steps,
                          uint32_t *index)
{
    struct ebb_free_list *list = &zone->lists[order][type];

    if (ebb__unreported(list) == 0)
        return false;
    while (*steps > 0) {
        uint32_t head = list->head;

        (*steps)--;
        if (!(ebb__load_state(zone, head) & EBB__REPORTED)) {
            *index = head;
            return true;
        }
        list->head = zone->links[head].next;
    }
    return false;
}

const struct ebb_tracker_ops ebb_tracker_rotation = {
    .name = "rotation",
    .next = rotation_next,
};
