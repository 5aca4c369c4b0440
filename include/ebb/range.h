/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ranges of frames, of any alignment and length: taking them out of a zone
 * (memory hotplug), emptying them, allocating them.
 *
 * To take memory away from a running system: ebb_isolate_range(), then
 * ebb_evacuate_range() until it says 0, then ebb_zone_remove() until it no longer says
 * -EBB_EAGAIN. ebb_zone_add() brings it back.
 *
 * What they do is what offline_pages() and alloc_contig_range() do in Linux, except
 * that a range is allocated without isolating its pageblocks.
 *
 * All functions may be called from any CPU. Those that move data call the
 * owners back with no lock held (compact.h); none waits for the host.
 */
#ifndef EBB_RANGE_H
#define EBB_RANGE_H

#include <ebb/compact.h>
#include <ebb/types.h>
#include <ebb/zone.h>

/*
 * Isolate the pageblocks of [pfn, pfn + frames), both multiples of the
 * pageblock (the last one may reach beyond the span): their free blocks go out
 * of reach of allocation and of reporting, and so does what is freed there (or
 * comes back from the host) later. The types they had are forgotten. Empties
 * the per-CPU caches.
 * -EBB_EINVAL: bounds. -EBB_EBUSY: one of them is isolated already; nothing
 * changes.
 */
EBB_MUST_CHECK int ebb_isolate_range(struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames);

/*
 * Put isolated pageblocks back, as pageblocks of `type`; their free blocks can
 * be allocated and reported again (marks are kept), so a pass may be asked for.
 * -EBB_EINVAL: bounds, type, or one of them is not isolated; nothing changes.
 */
EBB_MUST_CHECK int ebb_putback_range(struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames,
                                     enum ebb_migratetype type);

/*
 * Take the frames [pfn, pfn + frames) out of the zone. All of them must lie in isolated
 * pageblocks, be managed, and be free. From then on nothing of them is allocated
 * or reported, they count nowhere, and the zone has never heard of them; the host
 * knows as much of them as it did. A pageblock of which nothing is left in the zone
 * is no longer isolated, and movable if ebb_zone_add() brings its frames
 * back; one of which something is left stays isolated until ebb_putback_range().
 * Holds the zone's lock for as long as it takes.
 *
 * -EBB_EINVAL: empty, outside the span, or not isolated. -EBB_ENOENT: some are not
 * managed. -EBB_EBUSY: some are allocated, or in a cache. -EBB_EAGAIN: some are with
 * the host, try again after the completion. Nothing changes on error.
 */
EBB_MUST_CHECK int ebb_zone_remove(struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames);

/*
 * Move all that is movable out of a range in isolated pageblocks, to anywhere else
 * in the zone; what is emptied stays isolated.
 *
 * 0: nothing there is allocated any more (it may still be with the host).
 * -EBB_EBUSY: something is, being unmovable or because its owner would not move it.
 * -EBB_ENOMEM, -EBB_EAGAIN: nowhere to move it to, or not before the host answers.
 * -EBB_EINVAL: as above, or no callback. What has been moved stays moved.
 */
EBB_MUST_CHECK int ebb_evacuate_range(struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames,
                                      const struct ebb_migrate_ops *ops);

/*
 * Allocate exactly the frames [pfn, pfn + frames), of any alignment. What is free there is
 * taken; what is allocated as movable is moved elsewhere, if there are ops (may be
 * NULL). The types of pageblocks do not change, nor does anything outside the range.
 * The frames are unmovable from then on; their contents are undefined. Keeps
 * watermark_min free. Empties the per-CPU caches.
 *
 * -EBB_EINVAL: empty, outside the span, or ops without a callback. -EBB_ENOENT: some are not
 * managed. -EBB_EBUSY: some are allocated and could not be moved, or are isolated. -EBB_EAGAIN:
 * some of them, or what the watermark or the moving lack, are with the host.
 * -EBB_ENOMEM: the watermark, or nowhere to move to. On error nothing is allocated
 * and marks are kept (as far as the split policy does); what has been moved stays moved.
 */
EBB_MUST_CHECK int ebb_alloc_range(struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames,
                                   const struct ebb_migrate_ops *ops);

/*
 * Allocate `frames` frames in a row, the first one a multiple of `align` (frames, a power of
 * two; 0 is 1). Free ranges are looked for first, from the low end; then, if there are
 * ops, such as can be emptied. To be freed by ebb_free_range(). Looks at the whole
 * zone, in short holds of its lock.
 *
 * On success *pfn is the first frame; it stays untouched on error. -EBB_EINVAL: no frames, more
 * than the span, align not a power of two up to 2^52, or ops without a callback. -EBB_ENOMEM: there
 * is no such range, or the watermark. -EBB_EAGAIN: there may be one once the host has answered.
 */
EBB_MUST_CHECK int ebb_alloc_contiguous(struct ebb_zone *zone, uint64_t frames, uint64_t align,
                                        const struct ebb_migrate_ops *ops, ebb_pfn_t *pfn);

/*
 * Free frames that ebb_alloc_range() or ebb_alloc_contiguous() gave: all of a range, a part
 * of one, or several that adjoin. -EBB_EINVAL: some are not such; the port has been told
 * (ebb_port_misuse, with the first such frame) and nothing has changed.
 */
EBB_MUST_CHECK int ebb_free_range(struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames);

#endif
