/* SPDX-License-Identifier: BSD-2-Clause */
/* Free lists: see lists.h. */
#include "lists.h"

/* Right before a block: at its place if that is the head. */
static void ring_insert_before(struct ebb_zone *zone, struct ebb_free_list *list, unsigned order,
                               uint32_t before, uint32_t index)
{
    struct ebb_link *below = ebb__link_of(zone, order, before);
    uint32_t above = below->prev;

    EBB_DEBUG_ASSERT(list->blocks > 0 && before != index);
    EBB_DEBUG_ASSERT(ebb__link_of(zone, order, above)->next == before);
    EBB_DEBUG_ASSERT((ebb__load_state(zone, before) & ~(unsigned)EBB__REPORTED) ==
                     ebb__state_word(EBB__FREE, order, ebb__pageblock_type(zone, index)));
    *ebb__link_of(zone, order, index) = (struct ebb_link){.next = before, .prev = above};
    ebb__link_of(zone, order, above)->next = index;
    below->prev = index;
    if (list->head == before)
        list->head = index;
}

__attribute__((noinline)) void ebb__insert_cold(struct ebb_zone *zone, uint32_t index,
                                                unsigned order, unsigned type, bool reported,
                                                enum ebb__where where)
{
    struct ebb_free_list *list = &zone->lists[order][type];
    uint32_t before;

    /* Nothing unreported goes below a divider, and where lists are sorted nothing reported above
     * it. */
    if ((where == EBB__COLD || !reported || ebb__sorts(zone)) &&
        ebb__place(zone, index, order, type, reported, &before))
        ring_insert_before(zone, list, order, before, index);
    else
        ebb__ring_insert(zone, list, order, index);
}

void ebb__link(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type, bool reported,
               enum ebb__where where)
{
    ebb__link_block(zone, index, order, type, reported, where);
}

bool ebb__unlink(struct ebb_zone *zone, uint32_t index)
{
    uint16_t state = ebb__load_state(zone, index);

    EBB_ASSERT(ebb__state_of(state) == EBB__FREE);
    if (ebb__order_of(state) == 0 && ebb__is_lazy(zone, index)) {
        ebb__remove_lazy(zone, index, ebb__type_of(state));
        ebb__store_state(zone, index, EBB__NONE);
        return false;
    }
    return ebb__unlink_block(zone, index, state);
}
