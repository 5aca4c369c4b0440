/* SPDX-License-Identifier: BSD-2-Clause */
/* Zones: making one, adding frames. */
#include "pcp.h"

/* ---- making a zone ---- */

/* A configuration with the defaults filled in, and what follows from it. */
struct geometry {
    struct ebb_zone_config config;
    ebb_pfn_t base;
    uint64_t span;
    uint8_t large_order;
    /* Metadata: where it begins, or NULL, its size so far, and its arrays behind the caches. */
    unsigned char *memory;
    uint64_t size;
    void *links;
    void *large_links;
    void *large_marks;
    void *present;
    void *state;
    void *types;
    void *pageblocks;
    void *pageblock_bits;
    void *lazy_bits;
};

/* Has it the callback that its fill policy needs? */
static bool fill_possible(const struct ebb_zone_config *config)
{
    switch (config->fill_policy) {
    case EBB_FILL_NONE:
        return true;
    case EBB_FILL_POISON:
        return config->fill;
    case EBB_FILL_ZERO:
        return config->clear;
    default:
        return false;
    }
}

static bool fill_defaults(struct ebb_zone_config *config)
{
    if (!config->max_order)
        config->max_order = 10;
    if (!config->pageblock_order)
        config->pageblock_order = config->max_order < 9 ? config->max_order : 9;
    if (!config->cpus)
        config->cpus = 1;
    if (!config->pcp_high)
        config->pcp_high = 192;
    if (!config->pcp_batch)
        config->pcp_batch = config->pcp_high < 64 ? config->pcp_high : 64;
    if (!config->watermark_low)
        config->watermark_low = config->watermark_min;
    if (!config->poison_value)
        config->poison_value = EBB_POISON_VALUE;
    if (!config->shuffle_seed)
        config->shuffle_seed = 1;

    return config->max_order <= EBB_ORDER_LIMIT && config->pageblock_order <= config->max_order &&
           config->cpus <= EBB_CPU_LIMIT && config->pcp_high <= EBB_PCP_LIMIT &&
           config->pcp_batch <= config->pcp_high &&
           (config->pcp_blocks <= EBB_PCP_BLOCKS || config->pcp_blocks == EBB_PCP_NONE) &&
           fill_possible(config) && config->shuffle_order <= config->max_order + 1u &&
           config->watermark_low >= config->watermark_min &&
           config->watermark_low <= (uint64_t)1 << 32;
}

static bool fill_span(struct geometry *geometry)
{
    const struct ebb_zone_config *config = &geometry->config;
    const ebb_pfn_t pfn_limit = (ebb_pfn_t)1 << 52;
    const uint64_t span_limit = (uint64_t)1 << 32;
    uint64_t below = config->base & (((uint64_t)1 << config->max_order) - 1);

    if (config->frames == 0 || config->frames > span_limit - below || config->base > pfn_limit ||
        config->frames > pfn_limit - config->base)
        return false;
    geometry->base = config->base - below;
    geometry->span = config->frames + below;
    return true;
}

/* The next array: an element for each 2^order frames. */
EBB_RARE static void *place(struct geometry *geometry, unsigned order, size_t element)
{
    unsigned char *array = geometry->memory ? geometry->memory + (size_t)geometry->size : NULL;
    uint64_t bytes = (((geometry->span - 1) >> order) + 1) * element;

    geometry->size = (geometry->size + bytes + 63) & ~(uint64_t)63;
    return array;
}

EBB_RARE static bool measure(const struct ebb_zone_config *config, void *memory,
                             struct geometry *geometry)
{
    *geometry = (struct geometry){.config = *config, .memory = memory};
    if (!fill_defaults(&geometry->config) || !fill_span(geometry))
        return false;
    const unsigned pageblock = geometry->config.pageblock_order;
    /* From here on blocks are large (zone_private.h). Not much smaller, to bound their memory. */
    const unsigned large = pageblock > 4 ? pageblock : 4;
    const unsigned word = pageblock > 6 ? pageblock : 6;

    geometry->large_order = (uint8_t)large;
    geometry->size = geometry->config.cpus * sizeof(struct ebb_pcp); /* in the beginning */
    geometry->links = place(geometry, EBB__LINK_SHIFT, sizeof(struct ebb_link));
    geometry->large_links = place(geometry, large, sizeof(struct ebb_link));
    geometry->large_marks = place(geometry, large, sizeof(bool));
    geometry->present = place(geometry, geometry->config.max_order, sizeof(uint32_t));
    /* These two in whole pageblocks, so that whoever looks for a buddy below that need not look
     * where the span ends. */
    geometry->state = place(geometry, pageblock, sizeof(uint16_t) << pageblock);
    geometry->lazy_bits = place(geometry, word, sizeof(uint64_t) << (word - 6));
    geometry->types = place(geometry, pageblock, sizeof(uint8_t));
    geometry->pageblocks = place(geometry, large, sizeof(struct ebb_pageblock));
    geometry->pageblock_bits = place(geometry, large + 6, sizeof(uint64_t));
    return geometry->size <= SIZE_MAX;
}

EBB_RARE size_t ebb_zone_metadata_size(const struct ebb_zone_config *config)
{
    struct geometry geometry;

    return measure(config, NULL, &geometry) ? (size_t)geometry.size : 0;
}

static uint8_t plain_orders(const struct ebb_zone_config *config)
{
    return config->fill_policy == EBB_FILL_NONE ? (uint8_t)(config->max_order + 1u) : 0;
}

EBB_RARE int ebb_zone_init(struct ebb_zone *zone, const struct ebb_zone_config *config,
                           void *memory)
{
    struct geometry geometry;

    if (!memory || (uintptr_t)memory % 64 != 0 || !measure(config, memory, &geometry))
        return -EBB_EINVAL;

    config = &geometry.config;
    *zone = (struct ebb_zone){
        .base = geometry.base,
        .first = config->base,
        .span = geometry.span,
        .max_order = config->max_order,
        .pageblock_order = config->pageblock_order,
        .large_order = geometry.large_order,
        .cpus = config->cpus,
        .pcp_high = config->pcp_high,
        .pcp_batch = config->pcp_batch,
        .pcp_blocks = config->pcp_blocks,
        .watermark_min = config->watermark_min,
        .watermark_low = config->watermark_low,
        .plain_orders = plain_orders(config),
        .fill_policy = config->fill_policy,
        .alloc_flags =
            config->fill_policy != EBB_FILL_NONE && config->verify ? EBB__ALLOC_VERIFY : 0,
        .added_filled = config->added_filled,
        .fill_value = config->fill_policy == EBB_FILL_POISON ? config->poison_value : 0,
        .clear = config->clear,
        .fill = config->fill,
        .verify = config->verify,
        .clear_ctx = config->clear_ctx,
        .node = config->node,
        .pcps = memory,
        .links = geometry.links,
        .large_links = geometry.large_links,
        .large_marks = geometry.large_marks,
        .present = geometry.present,
        .state = geometry.state,
        .types = geometry.types,
        .pageblocks = geometry.pageblocks,
        .pageblock_bits = geometry.pageblock_bits,
        .lazy_bits = geometry.lazy_bits,
        .track_order = EBB__SCREEN_OFF,
        .shuffle_order = config->shuffle_order > 0 ? (uint8_t)(config->shuffle_order - 1u) : 0xff,
        .shuffle_state = config->shuffle_seed,
        .report_order = EBB__SCREEN_OFF,
        .report_min_order = EBB__SCREEN_OFF,
        .report_threshold = 1,
    };
    zone->coalesces_late = ebb__can_coalesce_late(zone);
    EBB_DEBUG_ASSERT(zone->span > 0 && !(zone->base & (((uint64_t)1 << zone->max_order) - 1)));
    EBB_DEBUG_ASSERT(zone->pcp_batch <= zone->pcp_high && zone->pcp_high <= EBB_PCP_LIMIT);
    EBB_DEBUG_ASSERT(zone->pageblock_order <= zone->large_order);
    return 0;
}

/* ---- adding frames ---- */

/* Is a frame of [from, to), within one block of the largest order, managed? */
EBB_RARE static bool any_managed(const struct ebb_zone *zone, uint64_t from, uint64_t to)
{
    uint32_t present = zone->present[from >> zone->max_order];
    uint32_t head;
    uint16_t state;

    if (present == 0)
        return false;
    if (present == 1u << zone->max_order || ebb__find_block(zone, (uint32_t)from, &head, &state))
        return true;
    for (uint64_t at = from; at < to; at++) {
        if (ebb__load_state(zone, (uint32_t)at) != EBB__NONE)
            return true;
    }
    return false;
}

static uint64_t next_largest(const struct ebb_zone *zone, uint64_t at, uint64_t limit)
{
    uint64_t next = ((at >> zone->max_order) + 1) << zone->max_order;

    return next < limit ? next : limit;
}

/* A block of frames is the zone's from now on. */
static void admit(struct ebb_zone *zone, uint64_t index, unsigned order)
{
    zone->present[index >> zone->max_order] += 1u << order;
    zone->managed += (uint64_t)1 << order;
    EBB_DEBUG_ASSERT(zone->present[index >> zone->max_order] <= 1u << zone->max_order);
    EBB_DEBUG_ASSERT(zone->managed <= zone->span);
}

/* Blocks go to the tail, so that low frames are allocated first. */
static void add_as_they_are(struct ebb_zone *zone, uint64_t from, uint64_t to)
{
    while (from < to) {
        unsigned order = ebb__largest_order(zone, from, to);

        EBB_DEBUG_ASSERT(ebb__load_state(zone, (uint32_t)from) == EBB__NONE);
        admit(zone, from, order);
        unsigned merged = ebb__free_block(zone, (uint32_t)from, order, false, EBB__COLD);

        from += (uint64_t)1 << order;
        if (order == zone->max_order)
            from = ebb__add_row(zone, from, to); /* most of what there is, at boot */
        ebb__screen(zone, merged);
    }
}

/* Frames that have to be filled first, which may take long. They are set aside
 * under the lock, and freed block by block. */
EBB_RARE static void set_aside(struct ebb_zone *zone, uint64_t from, uint64_t to)
{
    while (from < to) {
        unsigned order = ebb__largest_order(zone, from, to);

        EBB_DEBUG_ASSERT(ebb__load_state(zone, (uint32_t)from) == EBB__NONE);
        admit(zone, from, order);
        ebb__store_state(zone, (uint32_t)from, ebb__state_word(EBB__FILLING, order, 0));
        from += (uint64_t)1 << order;
    }
}

EBB_RARE static void add_filled(struct ebb_zone *zone, uint64_t from, uint64_t to)
{
    while (from < to) {
        unsigned order = ebb__largest_order(zone, from, to);

        ebb__fill(zone, (uint32_t)from, order);
        ebb__lock(zone);
        EBB_DEBUG_ASSERT(ebb__load_state(zone, (uint32_t)from) ==
                         ebb__state_word(EBB__FILLING, order, 0));
        ebb__screen(zone, ebb__free_block(zone, (uint32_t)from, order, false, EBB__COLD));
        ebb__unlock(zone);
        from += (uint64_t)1 << order;
    }
}

EBB_RARE int ebb_zone_add(struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames)
{
    uint64_t from = pfn - zone->base;
    uint64_t to = from + frames;
    bool as_they_are = zone->fill_policy == EBB_FILL_NONE || zone->added_filled;

    if (pfn < zone->first || from >= zone->span || frames == 0 || frames > zone->span - from)
        return -EBB_EINVAL;

    ebb__lock(zone);
    for (uint64_t at = from, next; at < to; at = next) {
        next = next_largest(zone, at, to);
        if (any_managed(zone, at, next)) {
            ebb__unlock(zone);
            return -EBB_EEXIST;
        }
    }
    if (as_they_are)
        add_as_they_are(zone, from, to);
    else
        set_aside(zone, from, to);
    ebb__limit_blocks(zone);
    EBB_EXPENSIVE(ebb__assert_lists(zone));
    ebb__unlock(zone);
    if (!as_they_are)
        add_filled(zone, from, to);
    return 0;
}
