/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A zone as a source of free memory, as in 2019: a pass walks its free lists order by order, and
 * reports whatever the tracker finds there, all of it or a share. It takes and looks at no more
 * blocks of a list than the list held when it was opened, so that the pass ends (I9).
 */
#include "tracker.h"

#include "../report/engine.h"
#include "../report/zone_source.h"

/* ---- one list ---- */

/* How many blocks a pass may take from a list that holds `blocks`: all, or its share in whole
 * batches, rounded up, and one batch more, as the merged kernel has it (it looks at what is left
 * of the budget before a batch, not after). */
static uint64_t share_of_list(const struct ebb_history *history, uint64_t blocks)
{
    uint64_t per_batch = (uint64_t)history->config.budget * history->capacity;

    if (history->config.budget == 1)
        return blocks;
    return ((blocks + per_batch - 1) / per_batch + 1) * history->capacity;
}

static bool descending(const struct ebb_history *history)
{
    return history->config.direction == EBB_DIRECTION_DESCENDING;
}

static void open_list(struct ebb_history *history)
{
    const struct ebb_zone *zone = history->at->zone;
    const struct ebb_free_list *list = ebb__history_list(history);

    history->list_open = true;
    if (history->tracker->by_address) {
        /* Its list is the zone, and the tracker knows where that ends. */
        uint64_t blocks = 0;

        for (unsigned order = zone->report_min_order; order <= zone->max_order; order++)
            blocks += ebb__unreported_of_order(zone, order);
        history->list_steps = UINT64_MAX;
        history->list_blocks = share_of_list(history, blocks);
        return;
    }
    history->list_steps = ebb__unreported(list) > 0 ? list->blocks : 0;
    history->list_blocks = share_of_list(history, list->blocks);
}

static void close_order(struct ebb_history *history)
{
    const struct ebb_zone *zone = history->at->zone;
    unsigned last = descending(history) ? zone->report_min_order : zone->max_order;

    history->list_open = false;
    history->type = 0;
    if (history->order == last || history->tracker->by_address)
        history->lists_left = false;
    else if (descending(history))
        history->order--;
    else
        history->order++;
}

static void close_list(struct ebb_history *history)
{
    history->list_open = false;
    if (history->tracker->by_address || ++history->type == EBB_ISOLATE)
        close_order(history);
}

/* The next block of the open list, if it may give any more. */
static enum ebb__found look(struct ebb_history *history, unsigned *looks, uint32_t *index)
{
    unsigned allowed = history->list_steps < *looks ? (unsigned)history->list_steps : *looks;
    unsigned left = allowed;
    enum ebb__found found = EBB__NOTHING;

    if (history->list_blocks > 0 && allowed > 0)
        found = history->tracker->next(history, &left, index);
    EBB_DEBUG_ASSERT(left <= allowed && allowed <= *looks);
    *looks -= allowed - left;
    history->list_steps -= allowed - left;
    return found == EBB__PAUSE && history->list_steps == 0 ? EBB__NOTHING : found;
}

/* The watermark keeps a block of this order here. */
static void stop_at_watermark(struct ebb_history *history)
{
    /* Larger ones as well, but not those of lower orders. */
    if (descending(history))
        close_order(history);
    else
        history->lists_left = false;
}

/* Take this block into the batch, unless it has to wait for the next one. */
static void take_block(struct ebb_history *history, struct ebb_pass *pass, uint32_t index)
{
    struct ebb_zone *zone = history->at->zone;

    if (!ebb__above_low(zone, ebb__order_of(ebb__load_state(zone, index))))
        stop_at_watermark(history);
    else if (ebb__zone_hold(zone, pass, index))
        history->list_blocks--; /* look() saw that there is one */
    else
        history->list_steps++; /* it is looked at once more */
}

static void take_from_list(struct ebb_history *history, struct ebb_pass *pass, unsigned *looks)
{
    uint32_t index;

    history->filled = pass->n_blocks > 0;
    switch (look(history, looks, &index)) {
    case EBB__FOUND:
        take_block(history, pass, index);
        break;
    case EBB__NOTHING:
        close_list(history);
        break;
    case EBB__FLUSH:
        pass->room = 0;
        break;
    case EBB__PAUSE:
        break;
    }
}

/* ---- the source ---- */

static struct ebb_history *history_of(struct ebb_source *source)
{
    return ebb__history_of(ebb__zone_of(source))->history;
}

/* One hold of the lock. */
static bool take_listed(struct ebb_source *source, struct ebb_pass *pass)
{
    struct ebb_history *history = history_of(source);
    struct ebb_zone *zone = ebb__zone_of(source);
    unsigned looks = EBB_TAKE_LOOKS;

    ebb__lock(zone);
    ebb__zone_limit_room(zone, pass);
    while (looks > 0 && ebb_pass_has_room(pass) && history->lists_left) {
        if (!history->list_open)
            open_list(history);
        take_from_list(history, pass, &looks);
    }
    EBB_EXPENSIVE(ebb__assert_lists(zone));
    ebb__unlock(zone);
    return history->lists_left;
}

static bool open_walk(struct ebb_source *source, const struct ebb_pass *pass)
{
    struct ebb_history *history = history_of(source);
    struct ebb_zone *zone = ebb__zone_of(source);
    bool fits = ebb__zone_open(source, pass);

    history->at = ebb__history_of(zone);
    history->capacity = pass->capacity;
    history->lists_left = true;
    history->list_open = false;
    history->order = descending(history) ? zone->max_order : zone->report_min_order;
    history->type = 0;
    if (fits && history->tracker->open) {
        ebb__lock(zone);
        history->tracker->open(history);
        ebb__unlock(zone);
    }
    return fits;
}

/* Is there enough to ask for a pass, whoever left it? */
static bool over_threshold(struct ebb_zone *zone)
{
    bool over = false;

    ebb__lock(zone);
    for (unsigned order = zone->report_min_order; order <= zone->max_order && !over; order++)
        over = ebb__unreported_of_order(zone, order) >= zone->report_threshold;
    ebb__unlock(zone);
    return over;
}

static bool close_walk(struct ebb_source *source)
{
    struct ebb_history *history = history_of(source);
    struct ebb_zone *zone = ebb__zone_of(source);

    if (history->tracker->close) {
        ebb__lock(zone);
        history->tracker->close(history);
        ebb__unlock(zone);
    }
    /* Inline there is no later: what is too little for a request stays. */
    return ebb__zone_close(source) &&
           (history->config.execution != EBB_EXECUTION_INLINE || over_threshold(zone));
}

/* ---- reporting begins ---- */

static void set_threshold(const struct ebb_history *history, struct ebb_zone *zone,
                          unsigned capacity)
{
    ebb__lock(zone);
    zone->report_threshold = history->config.threshold == EBB_REPORT_TWICE_CAPACITY
                                 ? 2 * capacity
                                 : history->config.threshold;
    ebb__unlock(zone);
}

/* Trackers of small blocks go by lists, so nothing is lazy there. Inline nobody would come when a
 * cache is idle, so none asks. */
static void set_modes(const struct ebb_history *history, struct ebb_zone *zone, unsigned order)
{
    ebb__lock(zone);
    if (history->config.execution == EBB_EXECUTION_INLINE)
        zone->report_caches = false;
    ebb__limit_blocks(zone);
    zone->coalesces_late = ebb__can_coalesce_late(zone) && order >= zone->large_order;
    if (zone->hooks && zone->hooks->mark && order <= zone->max_order)
        zone->track_order = (uint8_t)order;
    ebb__unlock(zone);
    if (!zone->report_caches)
        (void)ebb__drain_caches(zone, false, true);
    if (!zone->coalesces_late)
        ebb__coalesce_all(zone);
}

static int attach_walk(struct ebb_source *source, const struct ebb_terms *terms)
{
    struct ebb_history *history = history_of(source);
    struct ebb_zone *zone = ebb__zone_of(source);
    struct ebb_history_zone *history_zone = ebb__history_of(zone);
    const unsigned order = terms->order > 0 ? terms->order - 1u : zone->pageblock_order;
    const bool on = order <= zone->max_order;

    if (!ebb__content_ok(zone, terms->device))
        return -EBB_EOPNOTSUPP;
    set_threshold(history, zone, terms->capacity);
    ebb__zone_begin(zone, order, terms->device);
    history_zone->ready = !history->tracker->attach;
    set_modes(history, zone, order);
    if (on && history->tracker->attach)
        history->tracker->attach(history_zone);
    history_zone->ready = true;
    return on;
}

static void detach_walk(struct ebb_source *source)
{
    ebb__history_of(ebb__zone_of(source))->ready = false;
    ebb__zone_detach(source);
}

static const struct ebb_source_ops walk_ops = {
    .counts = ebb__zone_counts,
    .take = take_listed,
    .give_back = ebb__zone_give_back,
    .attach = attach_walk,
    .detach = detach_walk,
    .open = open_walk,
    .close = close_walk,
};

/* ---- making one ---- */

/* A window that never changes, and of which nobody asks what is surplus: a slot of it is the
 * delay. */
static void set_delay(struct ebb_report *report, uint32_t delay_ms)
{
    const uint64_t window = delay_ms * EBB__NS_PER_MS * EBB_PACE_SLOTS;
    const struct ebb_pace_config fixed = {
        .window_start = window,
        .window_min = window,
        .window_max = window,
        .refault_ns = EBB_REPORT_REFAULT_NS,
    };

    ebb_pace_init(&report->pace, &fixed);
    report->unpaced = true;
    report->stats.window_ns = 0;
}

EBB_RARE int ebb_history_init(struct ebb_history *history, struct ebb_report *report,
                              const struct ebb_settings *settings)
{
    static const struct ebb_tracker_ops *const trackers[EBB_TRACKERS] = {
        [EBB_TRACKER_ROTATION] = &ebb__tracker_rotation,
        [EBB_TRACKER_MEMBRANE] = &ebb__tracker_membrane,
        [EBB_TRACKER_BOUNDARY] = &ebb__tracker_boundary,
        [EBB_TRACKER_BITMAP] = &ebb__tracker_bitmap,
        [EBB_TRACKER_SORTED] = &ebb__tracker_sorted,
    };
    struct ebb_history_config c = settings->history;
    int err =
        ebb_history_problem(settings) ? -EBB_EINVAL : ebb_report_init(report, &settings->report);

    *history = (struct ebb_history){.report = report};
    if (err || c.pacing != EBB_PACING_DELAY)
        return err;
    c.tracker = (uint8_t)ebb_history_tracker(&c);
    if (c.budget == 0)
        c.budget = 1;
    if (c.threshold == 0)
        c.threshold = 1;
    if (c.execution == EBB_EXECUTION_INLINE) {
        report->config.worker = history;
        report->wake = ebb__history_run_inline;
    } else if (c.delay_ms == 0) {
        c.delay_ms = EBB_HISTORY_DELAY_MS;
    }
    set_delay(report, c.delay_ms);
    history->config = c;
    history->tracker = trackers[c.tracker];
    return 0;
}

/* Bytes of the bitmap: a bit for each frame, in words, as the smallest order may be 0. */
static uint64_t bitmap_words(const struct ebb_zone *zone)
{
    return ((zone->span - 1) >> 6) + 1;
}

size_t ebb_history_metadata_size(const struct ebb_history *history, const struct ebb_zone *zone)
{
    /* One word more at the second level, so that the end need not be looked for. */
    uint64_t words = bitmap_words(zone) + (zone->span >> 12) + 2;

    return history->tracker == &ebb__tracker_bitmap ? (size_t)words * sizeof(uint64_t) : 0;
}

/* EBB__SPLIT_CLEARS... */
static uint8_t keep_marks(const struct ebb_history_config *config)
{
    unsigned keep = 0;

    keep |= config->split == EBB_SPLIT_CLEAR ? EBB__SPLIT_CLEARS : 0;
    keep |= config->merge == EBB_MERGE_NEVER ? EBB__MERGE_CLEARS : 0;
    keep |= config->move == EBB_MOVE_DEMOTE ? EBB__MOVE_DEMOTES : 0;
    keep |= config->move == EBB_MOVE_FOLLOW ? EBB__MOVE_FOLLOWS : 0;
    return (uint8_t)keep;
}

EBB_RARE int ebb_history_add_zone(struct ebb_history *history,
                                  struct ebb_history_zone *history_zone, struct ebb_zone *zone,
                                  void *memory)
{
    const bool has_bits = ebb_history_metadata_size(history, zone) > 0;
    int err;

    if (!history->tracker)
        return ebb_report_add_zone(history->report, zone);
    if (has_bits && !memory)
        return -EBB_EINVAL;
    err = ebb__zone_add_source(history->report, zone, &walk_ops, false);
    if (err)
        return err;
    *history_zone = (struct ebb_history_zone){.zone = zone, .history = history};
    if (has_bits) {
        history_zone->bits = memory;
        history_zone->bit_words = history_zone->bits + bitmap_words(zone);
    }
    ebb__lock(zone);
    zone->history = history_zone;
    zone->source.large_order = 0; /* every block is a range of its own */
    zone->keep_marks = keep_marks(&history->config);
    zone->hooks = history->tracker->hooks;
    ebb__unlock(zone);
    return 0;
}
