/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ranges of frames of any alignment and length: allocating and searching them; release.c frees
 * them.
 *
 * A range is allocated without isolating its pageblocks, so that their types
 * need not be remembered and nobody outside the range notices. Its blocks are
 * claimed one by one instead: each is allocated, with the type ISOLATE, which
 * no other allocated block has, and with a flag in its state. Whose it is follows
 * from where it lies, since no two ranges that overlap are gathered at a time.
 * Once all are claimed they stay as they are, less the flag; if that cannot be,
 * the flagged ones go back, and those that were reported are so again.
 */
#include "range_private.h"

/* ---- gathering a range ---- */

/* Is some pageblock that [from, to) touches isolated? */
static bool any_isolated(const struct ebb_zone *zone, uint64_t from, uint64_t to)
{
    uint64_t step = (uint64_t)1 << zone->pageblock_order;

    for (uint64_t at = from & ~(step - 1); at < to; at += step) {
        if (ebb__pageblock_type(zone, (uint32_t)at) == EBB_ISOLATE)
            return true;
    }
    return false;
}

/* An attempt to have all of a range. */
struct gather {
    struct ebb_zone *zone;
    const struct ebb_migrate_ops *ops;
    struct gather *next; /* another of this zone */
    uint64_t from;
    uint64_t to;
    uint64_t hindered; /* index of what hindered it last, unless it starved */
    unsigned missing;  /* blocks of the last round that could not be had for now */
    bool again;        /* some are with the host */
    bool starved;      /* the watermark, or nowhere to move to */
};

/* Of a block with frames of this gather's range: it claimed it. */
static bool is_claimed(uint16_t state)
{
    return ebb__in_range(state) && (state & EBB__CLAIMED);
}

/* `was`: EBB__WAS_REPORTED, EBB__WAS_FREE. */
static void claim(struct gather *gather, uint32_t index, unsigned order, unsigned was)
{
    uint16_t state = ebb__state_word(EBB__ALLOCATED, order, EBB_ISOLATE);

    EBB_DEBUG_ASSERT(ebb__state_of(ebb__load_state(gather->zone, index)) == EBB__NONE);
    EBB_DEBUG_ASSERT(index >= gather->from && index + ((uint64_t)1 << order) <= gather->to);
    ebb__store_state(gather->zone, index, (uint16_t)(state | EBB__CLAIMED | was));
}

/* Nobody else gathers what this one is about to? */
static bool begin_gather(struct gather *gather)
{
    struct ebb_zone *zone = gather->zone;
    bool alone = true;

    ebb__lock(zone);
    for (const struct gather *other = zone->gathers; other && alone; other = other->next) {
        alone = other->to <= gather->from || other->from >= gather->to;
        if (!alone)
            gather->hindered = other->to - 1;
    }
    if (alone) {
        gather->next = zone->gathers;
        zone->gathers = gather;
    }
    ebb__unlock(zone);
    return alone;
}

static void end_gather(struct gather *gather)
{
    struct ebb_zone *zone = gather->zone;
    struct gather *at;

    ebb__lock(zone);
    at = zone->gathers;
    EBB_DEBUG_ASSERT(at);
    if (at == gather)
        zone->gathers = gather->next;
    for (; at && at->next; at = at->next) {
        if (at->next == gather)
            at->next = gather->next;
    }
    ebb__unlock(zone);
}

/* There are too few frames. Under the zone's lock. */
static int starve(struct gather *gather, uint64_t frames)
{
    gather->starved = true;
    return ebb__short_of(gather->zone, frames);
}

/* Claim what a free block holds of the range. */
static int claim_free(struct gather *gather, uint32_t head, uint16_t state)
{
    struct ebb_zone *zone = gather->zone;
    uint64_t from = ebb__higher(head, gather->from);
    uint64_t to = ebb__lower(ebb__block_end(head, state), gather->to);

    EBB_DEBUG_ASSERT(from < to);
    if (!ebb__above_min(zone, to - from))
        return starve(gather, to - from);
    for (uint64_t at = from; at < to;) {
        unsigned order = ebb__largest_order(zone, at, to);

        EBB_ASSERT(ebb__find_block(zone, (uint32_t)at, &head, &state));
        EBB_DEBUG_ASSERT(ebb__state_of(state) == EBB__FREE && ebb__block_end(head, state) > at);
        bool reported = ebb__take_at(zone, head, (uint32_t)at, order);

        claim(gather, (uint32_t)at, order, EBB__WAS_FREE | (reported ? EBB__WAS_REPORTED : 0));
        at += (uint64_t)1 << order;
    }
    return 0;
}

enum visit {
    VISITED,   /* nothing to do there, now */
    VISIT_MOVE /* to be moved */
};

/* Do with a block what can be done under the lock. enum visit or an error. */
static int visit(struct gather *gather, uint32_t head, uint16_t state)
{
    if (is_claimed(state))
        return VISITED;
    if (any_isolated(gather->zone, ebb__higher(head, gather->from),
                     ebb__lower(ebb__block_end(head, state), gather->to)))
        return -EBB_EBUSY;
    switch (ebb__state_of(state)) {
    case EBB__FREE:
        return claim_free(gather, head, state);
    case EBB__IN_FLIGHT:
        gather->again = true;
        gather->hindered = ebb__higher(head, gather->from);
        return VISITED;
    case EBB__ALLOCATED:
        return ebb__type_of(state) == EBB_MOVABLE && gather->ops ? VISIT_MOVE : -EBB_EBUSY;
    default: /* on its way to the lists */
        gather->hindered = ebb__higher(head, gather->from);
        gather->missing++;
        return VISITED;
    }
}

/*
 * Visit blocks from *at on, up to one that is to be moved: VISIT_MOVE, and its head
 * and state. Or VISITED, or an error. *at: where to go on. One hold of the lock.
 */
static int visit_some(struct gather *gather, uint64_t *at, uint32_t *head, uint16_t *state)
{
    struct ebb_zone *zone = gather->zone;
    int result = VISITED;

    ebb__lock(zone);
    for (unsigned n = 0; n < EBB__BLOCKS_PER_HOLD && *at < gather->to; n++) {
        bool found = ebb__find_block(zone, (uint32_t)*at, head, state);

        result = found ? visit(gather, *head, *state) : -EBB_ENOENT;
        if (result < 0) {
            gather->hindered = *at;
            break;
        }
        *at = ebb__block_end(*head, *state);
        if (result == VISIT_MOVE)
            break;
    }
    ebb__unlock(zone);
    return result;
}

/* A block to move to, outside the range: what is free inside it is claimed instead. Under
 * the zone's lock. */
static int take_target(struct gather *gather, unsigned order, uint32_t *to)
{
    struct ebb_zone *zone = gather->zone;
    uint64_t frames = (uint64_t)1 << order;

    for (unsigned n = 0; n < EBB__BLOCKS_PER_HOLD; n++) {
        uint32_t head;
        uint16_t state;

        if (!ebb__above_min(zone, frames) || !ebb__take_block(zone, order, EBB_MOVABLE, to))
            return starve(gather, frames);
        if (*to + frames <= gather->from || *to >= gather->to) {
            ebb__set_target(zone, *to, order);
            return 0;
        }
        ebb__free_block(zone, *to, order, false, EBB__HEAD);
        EBB_ASSERT(ebb__find_block(zone, *to, &head, &state));
        int err = claim_free(gather, head, state);

        if (err)
            return err;
    }
    return -EBB_EBUSY;
}

/* The part of a block of which [at, end) is left that lies inside or outside the range
 * altogether. Returns its order. */
static unsigned next_part(const struct gather *gather, uint64_t at, uint64_t end, bool *inside)
{
    uint64_t limit = end;

    *inside = at >= gather->from && at < gather->to;
    if (at < gather->from)
        limit = ebb__lower(gather->from, end);
    else if (*inside)
        limit = ebb__lower(gather->to, end);
    return ebb__largest_order(gather->zone, at, limit);
}

/* A block that was moved is ours: claim what lies in the range, free the rest. */
static bool claim_moved(struct gather *gather, uint32_t head, unsigned order)
{
    struct ebb_zone *zone = gather->zone;
    uint64_t end = (uint64_t)head + ((uint64_t)1 << order);
    bool released;
    bool inside;
    unsigned part;

    ebb__lock(zone);
    released = ebb__release(zone, head, order, EBB__NONE);
    zone->frees += released;
    for (uint64_t at = head; released && at < end; at += (uint64_t)1 << part) {
        part = next_part(gather, at, end, &inside);
        if (inside)
            claim(gather, (uint32_t)at, part, 0);
        else
            ebb__set_filling(zone, (uint32_t)at, part);
    }
    ebb__unlock(zone);

    for (uint64_t at = head; released && at < end; at += (uint64_t)1 << part) {
        part = next_part(gather, at, end, &inside);
        if (!inside)
            ebb__fill_and_free(zone, (uint32_t)at, part, EBB__COLD, 0);
    }
    return released;
}

/* Room for the block at head, if it is still in this state. */
static int take_room(struct gather *gather, uint32_t head, uint16_t state, uint32_t *to)
{
    struct ebb_zone *zone = gather->zone;
    int err = -EBB_EBUSY;

    ebb__lock(zone);
    if (ebb__load_state(zone, head) == state)
        err = take_target(gather, ebb__order_of(state), to);
    ebb__unlock(zone);
    return err;
}

/* Have a movable block moved, and claim its frames. -EBB_EBUSY: not this time. */
static int move_claimed(struct gather *gather, uint32_t head, uint16_t state)
{
    struct ebb_zone *zone = gather->zone;
    unsigned order = ebb__order_of(state);
    uint32_t to;
    int err = take_room(gather, head, state, &to);

    if (err)
        return err;
    if (!ebb__migrate(zone, gather->ops, head, to, order))
        return -EBB_EBUSY;
    if (!claim_moved(gather, head, order)) {
        ebb__migrate_broken(zone, head, order);
        return -EBB_EBUSY;
    }
    return 0;
}

/* Go over the range once. With `first`, nothing is moved: better to find out that there
 * is an obstacle before that. */
static int go_over(struct gather *gather, bool first)
{
    uint64_t at = gather->from;
    uint32_t head;
    uint16_t state;

    gather->missing = 0;
    while (at < gather->to) {
        int result = visit_some(gather, &at, &head, &state);

        if (result < 0)
            return result;
        if (result != VISIT_MOVE)
            continue;
        int err = first ? -EBB_EBUSY : move_claimed(gather, head, state);

        if (err == -EBB_EBUSY) {
            gather->hindered = ebb__higher(head, gather->from);
            gather->missing++;
        } else if (err) {
            return err;
        }
    }
    return gather->again ? -EBB_EAGAIN : 0;
}

static int gather_all(struct gather *gather)
{
    int err = go_over(gather, true);

    for (unsigned n = 0; !err && gather->missing > 0 && n < EBB__ATTEMPTS; n++) {
        ebb_zone_drain(gather->zone);
        err = go_over(gather, false);
    }
    return !err && gather->missing > 0 ? -EBB_EBUSY : err;
}

/* A claimed block is a range's now. Returns whether its content has to be looked at. */
static bool complete_block(struct gather *gather, uint32_t index, uint16_t state)
{
    struct ebb_zone *zone = gather->zone;
    unsigned order = ebb__order_of(state);

    EBB_DEBUG_ASSERT(is_claimed(ebb__load_state(zone, index)));
    ebb__store_state(zone, index, ebb__state_word(EBB__ALLOCATED, order, EBB_ISOLATE));
    zone->allocs++;
    if (state & EBB__WAS_REPORTED)
        ebb__count_refault(zone, (uint64_t)1 << order);
    return (state & EBB__WAS_FREE) && ebb__must_verify(zone);
}

/* A claimed block goes back; false if it has to be filled first (and is FILLING). */
static bool return_block(struct gather *gather, uint32_t index, uint16_t state)
{
    struct ebb_zone *zone = gather->zone;
    unsigned order = ebb__order_of(state);
    bool reported = state & EBB__WAS_REPORTED;

    EBB_DEBUG_ASSERT(is_claimed(ebb__load_state(zone, index)));
    EBB_DEBUG_ASSERT(!reported || (state & EBB__WAS_FREE));
    if (!(state & EBB__WAS_FREE)) {
        ebb__set_filling(zone, index, order);
        return false;
    }
    ebb__screen(zone,
                ebb__free_block(zone, index, order, reported, reported ? EBB__COLD : EBB__HEAD));
    return true;
}

/* The claimed blocks are the range's, or go back. */
static void end_claims(struct gather *gather, bool success)
{
    struct ebb_zone *zone = gather->zone;

    for (uint64_t at = gather->from; at < gather->to;) {
        bool unfinished = false;
        uint32_t head = 0;
        uint16_t state = 0;

        ebb__lock(zone);
        for (unsigned n = 0; n < EBB__BLOCKS_PER_HOLD && at < gather->to && !unfinished; n++) {
            bool found = ebb__find_block(zone, (uint32_t)at, &head, &state);

            at = found ? ebb__block_end(head, state) : at + 1;
            if (!found || !is_claimed(state))
                continue;
            unfinished =
                success ? complete_block(gather, head, state) : !return_block(gather, head, state);
        }
        ebb__unlock(zone);
        if (unfinished && success)
            ebb__verify_fill(zone, head, ebb__order_of(state));
        else if (unfinished)
            ebb__fill_and_free(zone, head, ebb__order_of(state), EBB__COLD, 0);
    }
}

static int alloc_range(struct gather *gather)
{
    int err;

    if (!begin_gather(gather))
        return -EBB_EBUSY;
    err = gather_all(gather);
    end_claims(gather, !err);
    end_gather(gather);
    return err;
}

static void count_failure(struct ebb_zone *zone)
{
    ebb__lock(zone);
    zone->failures++;
    ebb__unlock(zone);
}

int ebb_alloc_range(struct ebb_zone *zone, ebb_pfn_t pfn, uint64_t frames,
                    const struct ebb_migrate_ops *ops)
{
    struct gather gather = {.zone = zone, .ops = ops};
    int err;

    if ((ops && !ops->migrate) || !ebb__range_of(zone, pfn, frames, &gather.from, &gather.to))
        return -EBB_EINVAL;
    ebb_zone_drain(zone);
    err = alloc_range(&gather);
    if (err == -EBB_ENOMEM)
        count_failure(zone);
    return err;
}

/* ---- searching ---- */

/* A search for a run of blocks in acceptable states. */
struct search {
    struct ebb_zone *zone;
    uint64_t frames;
    uint64_t align;
    unsigned states; /* acceptable: bit per enum ebb__state */
    uint64_t start;  /* of the run */
    uint64_t at;     /* it reaches up to here so far */
    uint64_t host;   /* end of the last block met that is with the host */
};

/* The first place at or after index where the range may begin. */
static uint64_t aligned(const struct search *search, uint64_t index)
{
    ebb_pfn_t pfn = search->zone->base + index;

    return ((pfn + search->align - 1) & ~(search->align - 1)) - search->zone->base;
}

static void start_at(struct search *search, uint64_t index)
{
    search->start = aligned(search, index);
    search->at = search->start;
}

static bool acceptable(const struct search *search, uint32_t head, uint16_t state)
{
    if (!(search->states & 1u << ebb__state_of(state)) ||
        any_isolated(search->zone, head, ebb__block_end(head, state)))
        return false;
    return ebb__state_of(state) != EBB__ALLOCATED || ebb__type_of(state) == EBB_MOVABLE;
}

/* Look at one block. */
static void step(struct search *search)
{
    const struct ebb_zone *zone = search->zone;
    uint64_t largest = search->at >> zone->max_order;
    uint32_t head;
    uint16_t state;

    if (zone->present[largest] == 0) {
        start_at(search, (largest + 1) << zone->max_order);
    } else if (!ebb__find_block(zone, (uint32_t)search->at, &head, &state)) {
        start_at(search, search->at + 1);
    } else if (acceptable(search, head, state)) {
        search->at = ebb__block_end(head, state);
        if (ebb__state_of(state) == EBB__IN_FLIGHT)
            search->host = search->at;
    } else {
        start_at(search, ebb__block_end(head, state));
    }
}

/* Is the run long enough? If what is with the host is acceptable, some of it has to be
 * that: the rest has been tried. */
static bool is_run(struct search *search)
{
    EBB_DEBUG_ASSERT(search->at >= search->start);
    if (search->at < search->start + search->frames)
        return false;
    if (!(search->states & 1u << EBB__IN_FLIGHT) || search->host > search->start)
        return true;
    search->start = aligned(search, search->at - search->frames + 1);
    search->at = ebb__higher(search->at, search->start);
    return false;
}

/* Go on to the next run that is long enough. */
static bool next_run(struct search *search)
{
    struct ebb_zone *zone = search->zone;
    bool found = false;

    while (!found && search->start < zone->span && search->frames <= zone->span - search->start) {
        ebb__lock(zone);
        for (unsigned n = 0; n < EBB__BLOCKS_PER_HOLD && search->at < zone->span && !found; n++) {
            step(search);
            found = is_run(search);
        }
        ebb__unlock(zone);
    }
    return found;
}

static void begin_search(struct search *search, unsigned states)
{
    search->states = states;
    start_at(search, search->zone->first - search->zone->base);
}

/* Try the runs one after the other. */
static int take_run(struct search *search, const struct ebb_migrate_ops *ops, unsigned states)
{
    begin_search(search, states);
    while (next_run(search)) {
        struct gather gather = {.zone = search->zone,
                                .ops = ops,
                                .from = search->start,
                                .to = search->start + search->frames};
        int err = alloc_range(&gather);

        if (!err || gather.starved)
            return err;
        start_at(search, gather.hindered + 1);
    }
    return -EBB_EBUSY;
}

int ebb_alloc_contiguous(struct ebb_zone *zone, uint64_t frames, uint64_t align,
                         const struct ebb_migrate_ops *ops, ebb_pfn_t *pfn)
{
    const unsigned fixed = 1u << EBB__FREE;
    const unsigned movable =
        ops ? fixed | 1u << EBB__ALLOCATED | 1u << EBB__CACHED | 1u << EBB__FILLING : fixed;
    struct search search = {.zone = zone, .frames = frames, .align = align ? align : 1};
    int err;

    if ((ops && !ops->migrate) || frames == 0 || frames > zone->span || (align & (align - 1)) ||
        align > (uint64_t)1 << 52)
        return -EBB_EINVAL;
    ebb_zone_drain(zone);
    err = take_run(&search, NULL, fixed);
    if (err == -EBB_EBUSY && ops)
        err = take_run(&search, ops, movable);
    if (err == -EBB_EBUSY) {
        begin_search(&search, movable | 1u << EBB__IN_FLIGHT);
        err = next_run(&search) ? -EBB_EAGAIN : -EBB_ENOMEM;
    }
    if (err == -EBB_ENOMEM)
        count_failure(zone);
    if (!err)
        *pfn = zone->base + search.start;
    return err;
}
