/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The screener: is what was freed worth a pass?
 *
 * While a zone is reported, a freed block of report_order or above asks for a pass, if nobody
 * has. If a watermark keeps all that is unreported, a pass would change nothing: the zone gets
 * a gate instead, and the first free that lets something go asks.
 */
#include "zone_private.h"

uint64_t ebb__unreported_of_order(const struct ebb_zone *zone, unsigned order)
{
    uint64_t blocks = 0;

    EBB_DEBUG_ASSERT(order <= zone->max_order);
    for (unsigned type = 0; type < EBB_ISOLATE; type++)
        blocks += ebb__unreported(&zone->lists[order][type]);
    /* What lazy frames merge to, and with what, is not known yet: each may complete one of this. */
    if (order == zone->report_min_order && ebb__lazy_may_be(zone))
        blocks += ebb__lazy(zone);
    return blocks;
}

static bool anything_unreported(const struct ebb_zone *zone)
{
    for (unsigned order = zone->report_min_order; order <= zone->max_order; order++) {
        if (ebb__unreported_of_order(zone, order) > 0)
            return true;
    }
    return false;
}

bool ebb__something_fits(const struct ebb_zone *zone)
{
    for (unsigned order = zone->report_min_order; order <= zone->max_order; order++) {
        if (!ebb__above_low(zone, order))
            return false;
        if (ebb__unreported_of_order(zone, order) > 0)
            return true;
    }
    return false;
}

EBB_RARE void ebb__set_gate(struct ebb_zone *zone, bool fits)
{
    zone->report_gated = !fits && anything_unreported(zone);
    zone->report_order = zone->report_gated ? 0 : zone->report_min_order;
    EBB_DEBUG_ASSERT(!zone->report_gated || zone->report_min_order <= zone->max_order);
}

void ebb__screen_slow(struct ebb_zone *zone, unsigned order)
{
    EBB_DEBUG_ASSERT(order <= zone->max_order && order >= zone->report_order);
    if (__atomic_load_n(&zone->source.requested, __ATOMIC_RELAXED))
        return;
    if (zone->report_gated ? ebb__something_fits(zone)
                           : ebb__unreported_of_order(zone, order) >= zone->report_threshold)
        ebb__wish(zone);
}

EBB_RARE __attribute__((noinline)) void ebb__pass_on(struct ebb_zone *zone)
{
    EBB_DEBUG_ASSERT(zone->source.report);
    if (__atomic_exchange_n(&zone->wish, 0, __ATOMIC_RELAXED))
        ebb_source_request(&zone->source);
}
