/* SPDX-License-Identifier: BSD-2-Clause */
/* Zone lists: which zone an allocation is tried on, and in which a frame lies. */
#include <ebb/impl/assert.h>
#include <ebb/zonelist.h>

void ebb_zonelist_init(struct ebb_zonelist *list, uint16_t node)
{
    *list = (struct ebb_zonelist){.node = node};
}

static ebb_pfn_t end_of(const struct ebb_zone *zone)
{
    return zone->base + zone->span;
}

int ebb_zonelist_add(struct ebb_zonelist *list, struct ebb_zone *zone, uint32_t distance)
{
    unsigned at = list->count;

    for (unsigned i = 0; i < list->count; i++) {
        const struct ebb_zone *other = list->entries[i].zone;

        if (zone->first < end_of(other) && other->first < end_of(zone))
            return -EBB_EEXIST;
    }
    if (list->count == EBB_ZONELIST_LIMIT)
        return -EBB_ENOSPC;
    for (; at > 0 && list->entries[at - 1].distance > distance; at--)
        list->entries[at] = list->entries[at - 1];
    list->entries[at].zone = zone;
    list->entries[at].distance = distance;
    list->count++;
    EBB_DEBUG_ASSERT(list->count <= EBB_ZONELIST_LIMIT);
    EBB_DEBUG_ASSERT(at == 0 || list->entries[at - 1].distance <= distance);
    return 0;
}

/* Of two errors, the one that leaves more to hope for. */
static int better(int a, int b)
{
    if (a == -EBB_EAGAIN || b == -EBB_EAGAIN)
        return -EBB_EAGAIN;
    return a == -EBB_ENOMEM ? a : b;
}

static int try_zones(const struct ebb_zonelist *list, unsigned order, enum ebb_migratetype type,
                     unsigned flags, ebb_pfn_t *pfn, struct ebb_zone **zone)
{
    const bool this_node = flags & EBB_ALLOC_THIS_NODE;
    int result = -EBB_EINVAL;

    flags &= ~(unsigned)EBB_ALLOC_THIS_NODE;
    EBB_DEBUG_ASSERT(list->count <= EBB_ZONELIST_LIMIT && !(flags & EBB_ALLOC_THIS_NODE));
    for (unsigned i = 0; i < list->count; i++) {
        struct ebb_zone *candidate = list->entries[i].zone;

        if (this_node && candidate->node != list->node)
            continue;
        int err = ebb_alloc(candidate, order, type, flags, pfn);

        if (!err) {
            if (zone)
                *zone = candidate;
            return 0;
        }
        result = better(result, err);
    }
    return result;
}

int ebb_zonelist_alloc(const struct ebb_zonelist *list, unsigned order, enum ebb_migratetype type,
                       unsigned flags, ebb_pfn_t *pfn, struct ebb_zone **zone)
{
    const unsigned sparing = (flags & ~(unsigned)EBB_ALLOC_RESERVE) | EBB_ALLOC_LOW;
    int err;

    if (flags != sparing && (flags & EBB_ALLOC_LOW)) /* a contradiction, see zone.h */
        return -EBB_EINVAL;
    err = try_zones(list, order, type, sparing, pfn, zone);
    if (EBB_LIKELY(!err) || flags == sparing || err == -EBB_EINVAL)
        return err;
    return try_zones(list, order, type, flags, pfn, zone);
}

struct ebb_zone *ebb_zonelist_zone(const struct ebb_zonelist *list, ebb_pfn_t pfn)
{
    for (unsigned i = 0; i < list->count; i++) {
        struct ebb_zone *zone = list->entries[i].zone;

        if (pfn >= zone->first && pfn < end_of(zone))
            return zone;
    }
    return NULL;
}

int ebb_zonelist_free(const struct ebb_zonelist *list, ebb_pfn_t pfn, unsigned order)
{
    struct ebb_zone *zone = ebb_zonelist_zone(list, pfn);

    if (EBB_LIKELY(zone))
        return ebb_free(zone, pfn, order);
    const struct ebb_misuse misuse = {
        .kind = EBB_MISUSE_FOREIGN_PFN,
        .pfn = pfn,
        .order = order,
        .what = "the pfn is in no zone of the list",
    };

    ebb_port_misuse(&misuse);
    return -EBB_EINVAL;
}
