/* SPDX-License-Identifier: BSD-2-Clause */
/* The tracker that has nothing to search, since lists are sorted: src/zone/sorted.h. */
#include "tracker.h"

static enum ebb__found sorted_next(struct ebb_history *history, unsigned *looks, uint32_t *index)
{
    if (ebb__unreported(ebb__history_list(history)) == 0)
        return EBB__NOTHING;
    if (*looks == 0)
        return EBB__PAUSE;
    (*looks)--;
    *index = ebb__coldest(history->at->zone, history->order, history->type);
    return EBB__FOUND;
}

const struct ebb_tracker_ops ebb__tracker_sorted = {
    .name = "sorted",
    .next = sorted_next,
};
