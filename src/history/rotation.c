/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tracker that needs nothing but the mark: it walks a list from its head, and leaves the
 * head at the block where it stopped. Reported blocks thus end up behind the head, and the
 * unreported ones, which are the warm ones, in front, where the allocator takes from.
 */
#include "tracker.h"

static enum ebb__found rotation_next(struct ebb_history *history, unsigned *looks, uint32_t *index)
{
    struct ebb_zone *zone = history->at->zone;
    struct ebb_free_list *list = ebb__history_list(history);

    if (ebb__unreported(list) == 0)
        return EBB__NOTHING;
    while (*looks > 0) {
        uint32_t head = list->head;
        uint32_t next = ebb__link_of(zone, history->order, head)->next;

        (*looks)--;
        ebb__look_ahead(zone, next);
        if (!ebb__is_reported(zone, history->order, head)) {
            *index = head;
            return EBB__FOUND;
        }
        list->head = next;
    }
    return EBB__PAUSE;
}

static const struct ebb_zone_hooks rotation_hooks = {0};

const struct ebb_tracker_ops ebb__tracker_rotation = {
    .name = "rotation",
    .hooks = &rotation_hooks,
    .next = rotation_next,
};
