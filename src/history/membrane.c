/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tracker of the RFC (May 2019): one divider per order, the membrane, kept at all
 * times. It is on the list of one migratetype; there, all blocks from it to the
 * tail are reported, and what goes cold is put right above it. So the coldest
 * unreported block is the one above the membrane, found without a walk.
 *
 * The membrane moves to another migratetype's list only when no block of its order
 * is with the host, and knows nothing of that list at first: reported blocks may lie at its tail
 * (then the search takes from the head, which the RFC called to skim), or, rarely, with unreported
 * ones below them: then the reported ones at the head are rotated to the tail.
 *
 * Unlike the RFC: the mark of a merged block comes from both halves, whichever
 * was freed last (buddy.c), the counters are derived from the marks alone, and
 * a list that holds unreported blocks is never taken for done.
 */
#include "tracker.h"

static void mark_settled(struct ebb_divider *membrane, const struct ebb_free_list *list)
{
    /* Every block is reported. */
    membrane->settled = true;
    membrane->set = list->blocks > 0;
    membrane->block = list->head;
}

static enum ebb__found found(struct ebb_divider *membrane, uint32_t block, uint32_t *index)
{
    membrane->settled = false;
    *index = block;
    return EBB__FOUND;
}

static enum ebb__found membrane_next(struct ebb_history *history, unsigned *looks, uint32_t *index)
{
    struct ebb_zone *zone = history->at->zone;
    struct ebb_free_list *list = &zone->lists[history->order][history->type];
    struct ebb_divider *membrane = &history->at->membrane[history->order];

    if (ebb__unreported(list) == 0) {
        if (membrane->type == history->type)
            mark_settled(membrane, list);
        return EBB__NOTHING;
    }
    if (membrane->type != history->type) {
        if (!membrane->settled && history->filled)
            return EBB__FLUSH;
        *membrane = (struct ebb_divider){.type = (uint8_t)history->type, .settled = true};
    }
    while (*looks > 0) {
        uint32_t above = ebb__divider_above(zone, membrane, history->order, history->type);
        uint32_t head = list->head;

        (*looks)--;
        ebb__look_ahead(zone, ebb__link_of(zone, history->order, above)->prev);
        if (!ebb__is_reported(zone, history->order, above))
            return found(membrane, above, index);
        if (!ebb__is_reported(zone, history->order, head))
            return found(membrane, head, index);
        list->head = ebb__link_of(zone, history->order, head)->next;
        if (!membrane->set) {
            membrane->block = head;
            membrane->set = true;
        }
    }
    return EBB__PAUSE;
}

/* The membrane, if it is on this list. */
static struct ebb_divider *on_list(struct ebb_zone *zone, unsigned order, unsigned type)
{
    struct ebb_divider *membrane = &ebb__history_of(zone)->membrane[order];

    return membrane->type == type ? membrane : NULL;
}

static bool membrane_place(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type,
                           bool reported, uint32_t *before)
{
    struct ebb_divider *membrane = on_list(zone, order, type);

    return membrane && ebb__divider_place(membrane, index, reported, before);
}

static void membrane_leave(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type)
{
    struct ebb_divider *membrane = on_list(zone, order, type);

    if (membrane)
        ebb__divider_leave(zone, membrane, order, type, index);
}

static void membrane_reset(struct ebb_zone *zone, unsigned order, unsigned type)
{
    struct ebb_divider *membrane = on_list(zone, order, type);

    if (membrane)
        membrane->set = false;
}

static bool membrane_check(const struct ebb_zone *zone, uint32_t *index)
{
    for (unsigned order = 0; order <= zone->max_order; order++) {
        const struct ebb_divider *membrane = &ebb__history_of(zone)->membrane[order];

        if (!ebb__divider_check(zone, membrane, order, membrane->type, index))
            return false;
    }
    return true;
}

static const struct ebb_zone_hooks membrane_hooks = {
    .has_dividers = true,
    .place = membrane_place,
    .leave = membrane_leave,
    .reset = membrane_reset,
    .check = membrane_check,
};

const struct ebb_tracker_ops ebb__tracker_membrane = {
    .name = "membrane",
    .hooks = &membrane_hooks,
    .next = membrane_next,
};
