/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Zone lists: the zones that one node allocates from, nearest first.
 *
 * A list is made once and only read afterwards: adding a zone is not to run
 * beside anything else, allocating and freeing may happen on all CPUs at once.
 * A zone may be on the lists of all nodes.
 */
#ifndef EBB_ZONELIST_H
#define EBB_ZONELIST_H

#include <ebb/types.h>
#include <ebb/zone.h>

#define EBB_ZONELIST_LIMIT 64u

/* Caller-owned; to be treated as opaque. */
struct ebb_zonelist {
    unsigned count;
    uint16_t node;
    struct {
        struct ebb_zone *zone;
        uint32_t distance;
    } entries[EBB_ZONELIST_LIMIT]; /* by distance */
};

/* An empty list, for CPUs of that node. */
void ebb_zonelist_init(struct ebb_zonelist *list, uint16_t node);

/*
 * Add a zone: behind those that are at most as far away. Any number that grows with
 * the cost of access will do for a distance, such as those of the ACPI SLIT.
 * -EBB_ENOSPC: EBB_ZONELIST_LIMIT zones. -EBB_EEXIST: the spans of this one and
 * another overlap.
 */
EBB_MUST_CHECK int ebb_zonelist_add(struct ebb_zonelist *list, struct ebb_zone *zone,
                                    uint32_t distance);

/*
 * As ebb_alloc(): from the first zone that stays above its watermark_low, or else
 * from the first that can do it at all; so a near zone's last frames are used up
 * after a far zone's spare ones. With EBB_ALLOC_LOW the first of these only, with
 * EBB_ALLOC_THIS_NODE only from zones of the list's own node.
 * *zone (unless NULL) is the one it came from. Both stay untouched on error.
 * -EBB_EINVAL: no zone of the list takes such a request. -EBB_EAGAIN: a batch with
 * the host holds what one of them lacks; try again after its completion.
 * -EBB_ENOMEM: none has such a block.
 */
EBB_MUST_CHECK int ebb_zonelist_alloc(const struct ebb_zonelist *list, unsigned order,
                                      enum ebb_migratetype type, unsigned flags, ebb_pfn_t *pfn,
                                      struct ebb_zone **zone);

/* ebb_free() into the zone whose span holds the pfn. -EBB_EINVAL: as ebb_free(), or
 * there is no such zone, which the port is told as EBB_MISUSE_FOREIGN_PFN. */
EBB_MUST_CHECK int ebb_zonelist_free(const struct ebb_zonelist *list, ebb_pfn_t pfn,
                                     unsigned order);

/* The zone whose span holds the pfn; NULL: none on this list. */
struct ebb_zone *ebb_zonelist_zone(const struct ebb_zonelist *list, ebb_pfn_t pfn);

#endif
