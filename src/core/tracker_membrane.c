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

static void settle(struct ebb_divider *membrane, const struct ebb_free_list *list)
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

enum ebb__found ebb__membrane_next(struct ebb_report *report, unsigned *steps, uint32_t *index)
{
    struct ebb_zone *zone = report->zone;
    struct ebb_free_list *list = &zone->lists[report->order][report->type];
    struct ebb_divider *membrane = &zone->membrane[report->order];

    if (ebb__unreported(list) == 0) {
        if (membrane->type == report->type)
            settle(membrane, list);
        return EBB__NOTHING;
    }
    if (membrane->type != report->type) {
        if (!membrane->settled && report->filled > 0)
            return EBB__FLUSH;
        *membrane = (struct ebb_divider){.type = (uint8_t)report->type, .settled = true};
    }
    while (*steps > 0) {
        uint32_t above = ebb__divider_above(zone, membrane, report->order, report->type);
        uint32_t head = list->head;

        (*steps)--;
        ebb__look_ahead(zone, ebb__link_of(zone, report->order, above)->prev);
        if (!ebb__is_reported(zone, report->order, above))
            return found(membrane, above, index);
        if (!ebb__is_reported(zone, report->order, head))
            return found(membrane, head, index);
        list->head = ebb__link_of(zone, report->order, head)->next;
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
    struct ebb_divider *membrane = &zone->membrane[order];

    return membrane->type == type ? membrane : NULL;
}

bool ebb__membrane_place(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type,
                         bool reported, uint32_t *before)
{
    struct ebb_divider *membrane = on_list(zone, order, type);

    return membrane && ebb__divider_place(membrane, index, reported, before);
}

void ebb__membrane_leave(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type)
{
    struct ebb_divider *membrane = on_list(zone, order, type);

    if (membrane)
        ebb__divider_leave(zone, membrane, order, type, index);
}

void ebb__membrane_reset(struct ebb_zone *zone, unsigned order, unsigned type)
{
    struct ebb_divider *membrane = on_list(zone, order, type);

    if (membrane)
        membrane->set = false;
}

bool ebb__membrane_check(const struct ebb_zone *zone, uint32_t *index)
{
    for (unsigned order = 0; order <= zone->max_order; order++) {
        const struct ebb_divider *membrane = &zone->membrane[order];

        if (!ebb__divider_check(zone, membrane, order, membrane->type, index))
            return false;
    }
    return true;
}
