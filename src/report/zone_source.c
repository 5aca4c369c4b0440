/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ebb's zone as a source of free memory, with surplus pacing.
 *
 * Large blocks (a pageblock and more) come from the cold ends of their lists, largest first, as
 * far as the quota goes. Small blocks lie in pageblocks of which somebody uses a part: they
 * come pageblock by pageblock, by address, once pace says that one is ripe. Its lazy frames are
 * coalesced first, when they have been there for a window.
 */
#include "zone_source.h"

#include "../zone/sorted.h"

/* What it costs to coalesce a pageblock, in looks at a block. */
#define COALESCE_LOOKS 8u

/* ---- what sources over a zone have in common ---- */

EBB_RARE void ebb__zone_counts(struct ebb_source *source, const struct ebb_pace *slot,
                               struct ebb_counts *counts)
{
    struct ebb_zone *zone = ebb__zone_of(source);

    ebb__lock(zone);
    if (slot)
        zone->clock = ebb_pace_clock(slot);
    ebb_level_read(&zone->level, slot, counts);
    EBB_DEBUG_ASSERT(counts->low <= counts->unreported);
    EBB_DEBUG_ASSERT(zone->level.now <= zone->free - zone->reported);
    counts->small = zone->free - zone->reported - zone->level.now;
    counts->reported = zone->reported;
    counts->refaulted = zone->refaulted;
    ebb__unlock(zone);
}

EBB_RARE void ebb__zone_give_back(struct ebb_source *source, const struct ebb_held *blocks,
                                  unsigned n, bool reported)
{
    struct ebb_zone *zone = ebb__zone_of(source);

    EBB_DEBUG_ASSERT(n > 0 && n <= EBB_TAKE_LOOKS);
    ebb__lock(zone);
    for (unsigned i = 0; i < n; i++) {
        const uint32_t index = (uint32_t)(blocks[i].pfn - zone->base);

        EBB_ASSERT(blocks[i].pfn - zone->base < zone->span);
        EBB_ASSERT(ebb__load_state(zone, index) ==
                   ebb__state_word(EBB__IN_FLIGHT, blocks[i].order, 0));
        ebb__put_back(zone, index, reported);
    }
    EBB_EXPENSIVE(ebb__assert_lists(zone));
    ebb__unlock(zone);
}

static void set_min_order(struct ebb_zone *zone, unsigned order)
{
    zone->report_min_order = order <= zone->max_order ? (uint8_t)order : EBB__SCREEN_OFF;
    ebb__limit_blocks(zone);
    ebb__set_gate(zone, true);
}

EBB_RARE void ebb__zone_begin(struct ebb_zone *zone, unsigned order,
                              const struct ebb_report_device *device)
{
    ebb__lock(zone);
    /* Marks outlive their device: once some say less, they all do. */
    zone->marks_zero = device->content == EBB_CONTENT_VALUE && device->value == 0 &&
                       (zone->marks_zero || zone->reported == 0);
    EBB_DEBUG_ASSERT(zone->in_flight == 0); /* of an earlier device */
    zone->report_caches = order <= zone->max_order && zone->report_threshold == 1;
    set_min_order(zone, order);
    ebb__unlock(zone);
}

EBB_RARE void ebb__zone_detach(struct ebb_source *source)
{
    struct ebb_zone *zone = ebb__zone_of(source);

    ebb__lock(zone);
    EBB_ASSERT(zone->in_flight == 0); /* all blocks are back */
    zone->report_caches = false;
    zone->track_order = EBB__SCREEN_OFF;
    zone->coalesces_late = ebb__can_coalesce_late(zone);
    set_min_order(zone, EBB__SCREEN_OFF);
    ebb__unlock(zone);
}

/* Is there anything to report? The gate follows from it. Under the zone's lock. */
static bool update_gate(struct ebb_zone *zone)
{
    bool fits = ebb__something_fits(zone);

    ebb__set_gate(zone, fits);
    return fits;
}

/* One frame in an idle cache would keep its whole block from being reported. The engine took the
 * request before this: a cache that comes into use again right after it was looked at can ask. */
EBB_RARE bool ebb__zone_open(struct ebb_source *source, const struct ebb_pass *pass)
{
    struct ebb_zone *zone = ebb__zone_of(source);
    uint64_t cached = ebb__drain_caches(zone, !pass->everything, true);
    bool fits;

    ebb__lock(zone);
    if (cached > 0 && zone->report_caches)
        (void)ebb_source_note(source); /* come again when they are idle */
    fits = update_gate(zone);
    ebb__unlock(zone);
    return fits;
}

EBB_RARE bool ebb__zone_close(struct ebb_source *source)
{
    struct ebb_zone *zone = ebb__zone_of(source);
    bool fits;

    ebb__lock(zone);
    fits = update_gate(zone);
    ebb__unlock(zone);
    return fits;
}

void ebb__zone_limit_room(const struct ebb_zone *zone, struct ebb_pass *pass)
{
    uint64_t frames = ebb__available(zone);

    EBB_DEBUG_ASSERT(pass->n_blocks > 0 || pass->n_ranges == 0);
    if (pass->n_blocks == 0)
        pass->room = frames > zone->watermark_low ? (frames - zone->watermark_low) / 2 : 0;
}

EBB_RARE bool ebb__zone_hold(struct ebb_zone *zone, struct ebb_pass *pass, uint32_t index)
{
    const uint16_t state = ebb__load_state(zone, index);
    const unsigned order = ebb__order_of(state);

    EBB_DEBUG_ASSERT(ebb__state_of(state) == EBB__FREE && ebb__type_of(state) != EBB_ISOLATE);
    EBB_DEBUG_ASSERT(!(state & EBB__REPORTED) && order >= zone->report_min_order);
    if (!ebb_pass_fits(pass, order))
        return false;
    EBB_ASSERT(ebb__isolate_block(zone, index));
    ebb_pass_hold(pass, zone->base + index, order);
    return true;
}

/* ---- large blocks ---- */

/* The coldest block of the largest order that the quota covers. */
static bool next_large(const struct ebb_zone *zone, const struct ebb_pass *pass, uint32_t *index)
{
    unsigned last =
        zone->report_min_order > zone->large_order ? zone->report_min_order : zone->large_order;

    for (unsigned order = zone->max_order; order >= last; order--) {
        if (pass->quota >> order == 0 || !ebb__above_low(zone, order))
            continue;
        for (unsigned type = 0; type < EBB_ISOLATE; type++) {
            if (ebb__unreported(&zone->lists[order][type]) == 0)
                continue;
            *index = ebb__coldest(zone, order, type);
            EBB_DEBUG_ASSERT(pass->quota >= (uint64_t)1 << order);
            EBB_DEBUG_ASSERT(ebb__order_of(ebb__load_state(zone, *index)) == order);
            return true;
        }
    }
    return false;
}

/* ---- small blocks ---- */

static uint32_t age(const struct ebb_zone *zone, ebb_pageblock_id id)
{
    return zone->clock - ebb__pageblock(zone, id)->touched;
}

/* Merge lazy frames that were there for a window, to see what the pageblock is made of. It is no
 * younger for that. */
EBB_RARE static void coalesce_cold(struct ebb_zone *zone, ebb_pageblock_id id, unsigned *looks)
{
    uint32_t touched = ebb__pageblock(zone, id)->touched;

    EBB_DEBUG_ASSERT(ebb__pageblock(zone, id)->lazy > 0);
    ebb__coalesce(zone, id);
    EBB_DEBUG_ASSERT(ebb__pageblock(zone, id)->lazy == 0);
    ebb__pageblock(zone, id)->touched = touched;
    *looks -= *looks < COALESCE_LOOKS ? *looks : COALESCE_LOOKS;
}

/* Is this pageblock, which has unreported small blocks, to be reported now? */
static bool is_ripe(struct ebb_zone *zone, const struct ebb_pass *pass, ebb_pageblock_id id,
                    unsigned *looks)
{
    const struct ebb_pageblock *pageblock = ebb__pageblock(zone, id);

    if (pageblock->lazy > 0 &&
        (pass->everything || age(zone, id) >= ebb_pace_window_ticks(pass->pace)))
        coalesce_cold(zone, id, looks);
    return pageblock->lazy == 0 &&
           (pass->everything ||
            ebb_pace_ripe(pass->pace, pageblock->frames, pageblock->blocks, age(zone, id)));
}

static uint64_t n_pageblocks(const struct ebb_zone *zone)
{
    return ((zone->span - 1) >> zone->large_order) + 1;
}

/* Go to the next pageblock that is ripe. False: there is none, or the looks are used up. */
static bool next_pageblock(struct ebb_zone *zone, const struct ebb_pass *pass, unsigned *looks)
{
    while (zone->scan.pageblock < n_pageblocks(zone) && *looks > 0) {
        const ebb_pageblock_id id = {(uint32_t)zone->scan.pageblock};
        uint64_t *word = &zone->pageblock_bits[id.n >> 6];
        uint64_t bits = *word >> (id.n & 63);

        (*looks)--;
        if (bits == 0 || !(bits & 1)) {
            zone->scan.pageblock += bits ? (unsigned)__builtin_ctzll(bits) : 64 - (id.n & 63);
            *looks += bits != 0; /* that was no look yet */
            continue;
        }
        zone->scan.pageblock++;
        if (ebb__pageblock(zone, id)->frames == 0) {
            *word &= ~((uint64_t)1 << (id.n & 63));
        } else if (is_ripe(zone, pass, id, looks)) {
            uint64_t end = ebb__pageblock_first(zone, id) + ((uint64_t)1 << zone->large_order);

            /* What is found too small, or left by a failure, waits anew. */
            ebb__pageblock(zone, id)->touched = zone->clock;
            zone->scan.at = ebb__pageblock_first(zone, id);
            zone->scan.end = ebb__lower(end, zone->span);
            EBB_DEBUG_ASSERT(zone->scan.at < zone->scan.end && zone->scan.end <= zone->span);
            return true;
        }
    }
    return false;
}

static bool is_small_candidate(const struct ebb_zone *zone, uint16_t state)
{
    unsigned order = ebb__order_of(state);

    return ebb__state_of(state) == EBB__FREE && !(state & EBB__REPORTED) &&
           ebb__type_of(state) != EBB_ISOLATE && order >= zone->report_min_order &&
           order < zone->large_order && ebb__above_low(zone, order);
}

/* The next small block, by address. False: there is none, or the looks are used up. */
static bool next_small(struct ebb_zone *zone, const struct ebb_pass *pass, unsigned *looks,
                       uint32_t *index)
{
    if (zone->report_min_order >= zone->large_order)
        return false;
    while (*looks > 0) {
        if (zone->scan.at >= zone->scan.end) {
            if (!next_pageblock(zone, pass, looks))
                return false;
            continue;
        }
        EBB_DEBUG_ASSERT(zone->scan.at < zone->span);
        *index = (uint32_t)zone->scan.at;
        uint16_t state = ebb__load_state(zone, *index);

        (*looks)--;
        if (is_small_candidate(zone, state))
            return true; /* and stay: it may have to wait for the next batch */
        zone->scan.at += (uint64_t)1 << ebb__order_of(state);
    }
    return false;
}

/* ---- the source ---- */

EBB_RARE static bool open_paced(struct ebb_source *source, const struct ebb_pass *pass)
{
    struct ebb_zone *zone = ebb__zone_of(source);
    bool fits = ebb__zone_open(source, pass);

    ebb__lock(zone);
    zone->scan.pageblock = 0;
    zone->scan.at = zone->scan.end = 0;
    ebb__unlock(zone);
    return fits;
}

EBB_RARE static bool take_surplus(struct ebb_source *source, struct ebb_pass *pass)
{
    struct ebb_zone *zone = ebb__zone_of(source);
    const unsigned before = pass->n_blocks;
    unsigned looks = EBB_TAKE_LOOKS;
    bool found = true;

    ebb__lock(zone);
    ebb__zone_limit_room(zone, pass);
    while (found && looks > 0 && ebb_pass_has_room(pass)) {
        uint32_t index;

        found = next_large(zone, pass, &index);
        if (found)
            looks--;
        else
            found = next_small(zone, pass, &looks, &index);
        if (found)
            (void)ebb__zone_hold(zone, pass, index);
    }
    EBB_DEBUG_ASSERT(ebb__available(zone) >= zone->watermark_low || pass->n_blocks == before);
    EBB_EXPENSIVE(ebb__assert_lists(zone));
    ebb__unlock(zone);
    return found || looks == 0;
}

EBB_RARE static int attach_paced(struct ebb_source *source, const struct ebb_terms *terms)
{
    struct ebb_zone *zone = ebb__zone_of(source);
    const unsigned order = terms->order > 0 ? terms->order - 1u : 0;

    if (!ebb__content_ok(zone, terms->device))
        return -EBB_EOPNOTSUPP;
    ebb__zone_begin(zone, order, terms->device);
    if (!zone->report_caches)
        (void)ebb__drain_caches(zone, false, true);
    return order <= zone->max_order;
}

EBB_RARE int ebb__zone_add_source(struct ebb_report *report, struct ebb_zone *zone,
                                  const struct ebb_source_ops *ops, bool prefers_warm)
{
    int err;

    if (zone->source.report)
        return -EBB_EBUSY;
    ebb__lock(zone);
    zone->source.ops = ops;
    zone->source.large_order = zone->large_order;
    zone->prefers_warm = prefers_warm;
    ebb__unlock(zone);
    err = ebb_report_add_source(report, &zone->source);
    if (err) {
        ebb__lock(zone);
        zone->prefers_warm = false;
        ebb__unlock(zone);
    }
    return err;
}

EBB_RARE int ebb_report_add_zone(struct ebb_report *report, struct ebb_zone *zone)
{
    static const struct ebb_source_ops ops = {
        .counts = ebb__zone_counts,
        .take = take_surplus,
        .give_back = ebb__zone_give_back,
        .attach = attach_paced,
        .detach = ebb__zone_detach,
        .open = open_paced,
        .close = ebb__zone_close,
    };

    return ebb__zone_add_source(report, zone, &ops, true);
}
