/* SPDX-License-Identifier: BSD-2-Clause */
/* The zone's source, and the parts of it that src/history has in common with it. */
#ifndef EBB_REPORT_ZONE_SOURCE_H
#define EBB_REPORT_ZONE_SOURCE_H

#include "../zone/zone_private.h"

#include <ebb/report.h>

static inline struct ebb_zone *ebb__zone_of(struct ebb_source *source)
{
    return (struct ebb_zone *)(void *)((char *)source - offsetof(struct ebb_zone, source));
}

/* Join a zone to an engine, with these operations. `prefers_warm`: see struct ebb_zone. */
int ebb__zone_add_source(struct ebb_report *report, struct ebb_zone *zone,
                         const struct ebb_source_ops *ops, bool prefers_warm);

/* Leave half of what is to spare above the low watermark to those who allocate while a batch is out
 * of reach. One block may always go. Under the zone's lock. */
void ebb__zone_limit_room(const struct ebb_zone *zone, struct ebb_pass *pass);

/* Hold a free block, in a pass that has room for one. False: nothing happened, it has to wait for
 * the next batch. Under the zone's lock, and only if the low watermark lets it go. */
bool ebb__zone_hold(struct ebb_zone *zone, struct ebb_pass *pass, uint32_t index);

/* Reporting begins, from this order on, which may be above the zone's largest: then it is off. With
 * no lock held. */
void ebb__zone_begin(struct ebb_zone *zone, unsigned order, const struct ebb_report_device *device);

/* Operations. */
void ebb__zone_counts(struct ebb_source *source, const struct ebb_pace *slot,
                      struct ebb_counts *counts);
void ebb__zone_give_back(struct ebb_source *source, const struct ebb_held *blocks, unsigned n,
                         bool reported);
void ebb__zone_detach(struct ebb_source *source);

/* As open(): empty the caches that are idle, or all, and see whether there is anything to report.
 * As close(): is there more, that a later pass may report? */
bool ebb__zone_open(struct ebb_source *source, const struct ebb_pass *pass);
bool ebb__zone_close(struct ebb_source *source);

#endif
