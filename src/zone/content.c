/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What free frames hold. A zone may promise itself that all its free frames read
 * as one value; a device that is told of them must not break that behind its
 * back (virtio 1.2, 5.5.6.7, with the feature PAGE_POISON).
 */
#include "zone_private.h"

#include <ebb/report.h>

EBB_RARE bool ebb__content_ok(const struct ebb_zone *zone, const struct ebb_report_device *device)
{
    if (zone->fill_policy == EBB_FILL_NONE)
        return true;
    return (device->content == EBB_CONTENT_KEPT_OR_VALUE || device->content == EBB_CONTENT_VALUE) &&
           device->value == zone->fill_value;
}

EBB_RARE void ebb__fill(const struct ebb_zone *zone, uint32_t index, unsigned order)
{
    const ebb_pfn_t pfn = zone->base + index;
    const uint64_t frames = (uint64_t)1 << order;
    const enum ebb__state state = ebb__state_of(ebb__load_state(zone, index));

    EBB_DEBUG_ASSERT(frames <= zone->span - index);
    /* Whoever fills owns it: nobody else allocates, caches or reports it meanwhile. */
    EBB_ASSERT(state == EBB__FILLING || state == EBB__ALLOCATED);
    if (zone->fill_policy == EBB_FILL_ZERO)
        zone->clear(zone->clear_ctx, pfn, frames);
    else if (zone->fill_policy == EBB_FILL_POISON)
        zone->fill(zone->clear_ctx, pfn, frames, zone->fill_value);
}

/* The first frame of a block that does not hold the fill value. */
static ebb_pfn_t first_damaged(const struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames)
{
    for (uint64_t i = 0; i + 1 < frames; i++) {
        if (!zone->verify(zone->clear_ctx, pfn + i, 1, zone->fill_value))
            return pfn + i;
    }
    return pfn + frames - 1;
}

EBB_RARE void ebb__verify_fill(struct ebb_zone *zone, uint32_t index, unsigned order)
{
    const ebb_pfn_t pfn = zone->base + index;
    const uint64_t frames = (uint64_t)1 << order;

    EBB_DEBUG_ASSERT(zone->fill_policy != EBB_FILL_NONE);
    EBB_DEBUG_ASSERT(ebb__state_of(ebb__load_state(zone, index)) == EBB__ALLOCATED);
    if (EBB_LIKELY(zone->verify(zone->clear_ctx, pfn, frames, zone->fill_value)))
        return;
    const struct ebb_misuse misuse = {
        .kind = EBB_MISUSE_WRITE_AFTER_FREE,
        .pfn = pfn,
        .order = order,
        .found_pfn = first_damaged(zone, pfn, frames),
        .what = "a frame was written to while it was free",
    };

    __atomic_fetch_add(&zone->misuses, 1, __ATOMIC_RELAXED);
    ebb__fill(zone, index, order);
    ebb_port_misuse(&misuse);
}
