/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From the ranges of a batch to extents of whole backing pages: few, large, sorted.
 *
 * Ranges that adjoin are merged twice: as guest addresses, so that no more than EBB__EXTENTS come
 * of any batch, and by what is behind them, since regions may continue one another in a file. Only
 * then are they cut to backing pages, so that neighbours that make up a page together count.
 */
#include "discard_private.h"

#include <stdlib.h>

/* ---- guest addresses ---- */

static void find_runs(struct ebb__work *work)
{
    const struct ebb_memory *memory = &work->discard->regions;

    for (unsigned i = memory->n; i-- > 0;) {
        const struct ebb_region *region = &memory->regions[i];
        const uint64_t end = region->gpa + region->size;

        work->run_end[i] = i + 1 < memory->n && region[1].gpa == end ? work->run_end[i + 1] : end;
    }
}

static bool is_guest_memory(const struct ebb__work *work, const struct ebb_range *range)
{
    const struct ebb_memory *memory = &work->discard->regions;
    const struct ebb_region *region = ebb_memory_find(memory, range->addr);

    return region && range->len <= work->run_end[region - memory->regions] - range->addr;
}

/* Keep those that are guest memory as a whole. */
static void check_ranges(struct ebb__work *work)
{
    struct ebb_discard *discard = work->discard;
    unsigned kept = 0;

    for (unsigned i = 0; i < discard->n; i++) {
        const struct ebb_range range = discard->ranges[i];

        work->sum.asked_bytes += range.len;
        work->sum.ranges++;
        if (range.len == 0)
            continue;
        if (is_guest_memory(work, &range))
            discard->ranges[kept++] = range;
        else
            ebb__count_not(&work->sum, EBB_DISCARD_OUTSIDE, range.len);
    }
    discard->n = kept;
}

static int by_address(const void *a, const void *b)
{
    const struct ebb_range *x = a, *y = b;

    return (x->addr > y->addr) - (x->addr < y->addr);
}

/* What ends at *end is to cover [start, other_end) too, which begins there at the latest. The bytes
 * that were in both. */
static uint64_t extend(uint64_t *end, uint64_t start, uint64_t other_end)
{
    const uint64_t both = (other_end < *end ? other_end : *end) - start;

    if (other_end > *end)
        *end = other_end;
    return both;
}

static void merge_ranges(struct ebb__work *work)
{
    struct ebb_range *ranges = work->discard->ranges;
    unsigned n = 0;

    qsort(ranges, work->discard->n, sizeof(*ranges), by_address);
    for (unsigned i = 0; i < work->discard->n; i++) {
        const uint64_t end = ranges[i].addr + ranges[i].len;
        struct ebb_range *last = n > 0 ? &ranges[n - 1] : NULL;

        if (last && ranges[i].addr <= last->addr + last->len) {
            uint64_t last_end = last->addr + last->len;

            work->sum.repeated_bytes += extend(&last_end, ranges[i].addr, end);
            last->len = last_end - last->addr;
        } else {
            ranges[n++] = ranges[i];
        }
    }
    work->discard->n = n;
}

/* ---- what is behind them ---- */

/* Where what is behind a region begins: in its file, or as a host address. */
static uint64_t backing_start(const struct ebb_region *region)
{
    return region->backing == EBB_BACKING_ANON ? (uint64_t)(uintptr_t)region->host : region->offset;
}

static void add_extent(struct ebb__work *work, unsigned region_index, uint64_t from, uint64_t len)
{
    const struct ebb_region *region = &work->discard->regions.regions[region_index];
    struct ebb__extent *extent = &work->extents[work->n];

    if (region->backing == EBB_BACKING_NONE) {
        ebb__count_not(&work->sum, EBB_DISCARD_BACKING, len);
        return;
    }
    extent->start = backing_start(region) + from;
    extent->end = extent->start + len;
    extent->fd = region->backing == EBB_BACKING_ANON ? -1 : region->fd;
    extent->region = (uint16_t)region_index;
    work->n++;
}

static void cut_at_regions(struct ebb__work *work)
{
    const struct ebb_memory *memory = &work->discard->regions;

    for (unsigned i = 0; i < work->discard->n; i++) {
        const struct ebb_range range = work->discard->ranges[i];
        const struct ebb_region *region = ebb_memory_find(memory, range.addr);
        uint64_t done = 0;

        for (; done < range.len; region++) {
            const uint64_t from = range.addr + done - region->gpa;
            const uint64_t room = region->size - from, left = range.len - done;
            const uint64_t len = left < room ? left : room;

            add_extent(work, (unsigned)(region - memory->regions), from, len);
            done += len;
        }
    }
}

static int by_backing(const void *a, const void *b)
{
    const struct ebb__extent *x = a, *y = b;

    if (x->fd != y->fd)
        return x->fd < y->fd ? -1 : 1;
    return (x->start > y->start) - (x->start < y->start);
}

static const struct ebb_region *region_of(const struct ebb__work *work,
                                          const struct ebb__extent *extent)
{
    return &work->discard->regions.regions[extent->region];
}

/* Can one system call discard both? */
static bool alike(const struct ebb__work *work, const struct ebb__extent *a,
                  const struct ebb__extent *b)
{
    return a->fd == b->fd && region_of(work, a)->page == region_of(work, b)->page;
}

/* Append to the first n extents, or to the last of these. How many they are then. */
static unsigned append(struct ebb__work *work, unsigned n, struct ebb__extent extent)
{
    struct ebb__extent *last = n > 0 ? &work->extents[n - 1] : NULL;

    if (last && alike(work, last, &extent) && extent.start <= last->end) {
        work->sum.repeated_bytes += extend(&last->end, extent.start, extent.end);
        return n;
    }
    work->extents[n] = extent;
    return n + 1;
}

static void merge_extents(struct ebb__work *work)
{
    unsigned n = 0;

    qsort(work->extents, work->n, sizeof(*work->extents), by_backing);
    for (unsigned i = 0; i < work->n; i++)
        n = append(work, n, work->extents[i]);
    work->n = n;
}

/* ---- backing pages ---- */

/* [from, to) is less than the page at `start`: is all of that to be discarded with it? The first n
 * extents are what is discarded anyway. */
static bool makes_whole(struct ebb__work *work, unsigned n, const struct ebb__extent *of,
                        uint64_t from, uint64_t to)
{
    const uint64_t page = region_of(work, of)->page;
    const struct ebb__part part = {
        .fd = of->fd,
        .start = from & ~(page - 1),
        .page = page,
        .from = (from + EBB_FRAME_SIZE - 1) & ~(EBB_FRAME_SIZE - 1),
        .to = to & ~(EBB_FRAME_SIZE - 1),
    };
    const uint64_t frames = part.from < part.to ? part.to - part.from : 0;

    if (n > 0 && alike(work, &work->extents[n - 1], of) && work->extents[n - 1].end > from) {
        work->sum.repeated_bytes += to - from;
        return false;
    }
    if (work->discard->kind != EBB_DISCARD_INFLATED || frames == 0) {
        ebb__count_not(&work->sum, EBB_DISCARD_PARTIAL, to - from);
        return false;
    }
    if (to - from > frames)
        ebb__count_not(&work->sum, EBB_DISCARD_PARTIAL, to - from - frames);
    return ebb__gather_add(&work->discard->gather, &part, &work->sum);
}

/* Whole pages that are asked for at once need not be gathered any more. */
static void stop_gathering(struct ebb__work *work, const struct ebb__extent *extent)
{
    if (work->discard->kind == EBB_DISCARD_INFLATED && extent->start < extent->end)
        work->sum.repeated_bytes +=
            EBB_FRAME_SIZE * ebb__gather_drop(&work->discard->gather, extent->fd,
                                              region_of(work, extent)->page, extent->start,
                                              extent->end);
}

/* Cut one to whole pages; see append() for n. */
static unsigned cut_extent(struct ebb__work *work, unsigned n, struct ebb__extent extent)
{
    const uint64_t page = region_of(work, &extent)->page;
    const struct ebb__extent whole = extent;
    const uint64_t first = (extent.start + page - 1) & ~(page - 1);
    const uint64_t last = extent.end & ~(page - 1);

    if (first > last) { /* inside one page */
        extent.start = last;
        extent.end = makes_whole(work, n, &whole, whole.start, whole.end) ? first : last;
    } else {
        extent.start = first;
        extent.end = last;
        stop_gathering(work, &extent);
        if (whole.start < first && makes_whole(work, n, &whole, whole.start, first))
            extent.start -= page;
        if (last < whole.end && makes_whole(work, n, &whole, last, whole.end))
            extent.end += page;
    }
    return extent.start < extent.end ? append(work, n, extent) : n;
}

static void cut_to_pages(struct ebb__work *work)
{
    unsigned n = 0;

    /* One comes of each at most, so that they can stay where they are. */
    for (unsigned i = 0; i < work->n; i++)
        n = cut_extent(work, n, work->extents[i]);
    work->n = n;
}

void ebb__extents_make(struct ebb__work *work)
{
    work->n = 0;
    find_runs(work);
    check_ranges(work);
    merge_ranges(work);
    cut_at_regions(work);
    merge_extents(work);
    cut_to_pages(work);
}
