/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reporting engine.
 *
 * Three groups of functions, by who calls them:
 *   - the screener and the requests: anybody who frees;
 *   - the runner: whoever is inside ebb_report_run(), one at a time. It alone
 *     touches the state of the pass. A pass visits each zone once, each list of
 *     it once, and takes and looks at no more blocks than the list held when it
 *     was opened, so that it ends whatever others do meanwhile (I9);
 *   - register and unregister: while they work the engine counts as having no
 *     device. Unregister takes the runner's place, so that no pass is under way.
 *
 * What a pass leaves behind is never forgotten. When it is done with a zone it
 * looks at the counters: unreported blocks that are left (the budget was used
 * up, or somebody split or freed a block behind its back) mean another pass
 * after the delay. If what keeps them is a watermark, another pass would change
 * nothing: the zone gets a gate instead, and the first free that lets something
 * go asks.
 */
#include "pacing.h"

void *memset(void *to, int byte, size_t n);

#define NS_PER_MS ((uint64_t)1000000)

/* Blocks looked at in one hold of a zone's lock. */
#define STEPS_PER_HOLD 64u

/* Passes that one call runs for others who ask meanwhile, inline. It has to end; but what
 * is freed during the last of them waits for a later free, so that should be rare. */
#define INLINE_PASSES 256u

/* zone->report_order: no block is that large. */
#define SCREEN_OFF 0xffu

/* report->batch; anything else is the negative status of a failed batch. */
enum batch { BATCH_NONE = 0, BATCH_IN_FLIGHT = 1, BATCH_DONE = 2 };

/* report->running */
enum running { RUN_FREE = 0, RUN_TAKEN = 1, RUN_WANTED = 2 };

/* ---- zones ---- */

/* Frames that count for the watermarks: isolated ones help no allocation. */
static uint64_t available(const struct ebb_zone *zone)
{
    return zone->free - zone->isolated;
}

static uint64_t unreported_of_order(const struct ebb_zone *zone, unsigned order)
{
    uint64_t blocks = 0;

    for (unsigned type = 0; type < EBB_ISOLATE; type++)
        blocks += ebb__unreported(&zone->lists[order][type]);
    /* What loose frames merge to, and with what, is not known yet: each may complete one of this.
     */
    if (order == zone->report_min_order && ebb__loose_may_be(zone))
        blocks += ebb__loose(zone);
    return blocks;
}

static bool anything_unreported(const struct ebb_zone *zone)
{
    for (unsigned order = zone->report_min_order; order <= zone->max_order; order++) {
        if (unreported_of_order(zone, order) > 0)
            return true;
    }
    return false;
}

static void set_requested(struct ebb_zone *zone, bool requested)
{
    __atomic_store_n(&zone->report_requested, requested, __ATOMIC_RELAXED);
}

/* Is there an unreported block that the watermark lets go? */
static bool something_fits(const struct ebb_zone *zone)
{
    uint64_t frames = available(zone);

    for (unsigned order = zone->report_min_order; order <= zone->max_order; order++) {
        if (frames < zone->watermark_low + ((uint64_t)1 << order))
            return false;
        if (unreported_of_order(zone, order) > 0)
            return true;
    }
    return false;
}

/* Behind a gate every free, however small, asks whether something fits now, and
 * a pass is due once it does. Under the zone's lock. */
static void set_gate(struct ebb_zone *zone, bool gated)
{
    zone->report_gated = gated;
    zone->report_order = gated ? 0 : zone->report_min_order;
}

/* ---- the screener and the requests ---- */

bool ebb__report_wanted(struct ebb_zone *zone, unsigned order)
{
    if (zone->report_gated) {
        if (!something_fits(zone))
            return false;
    } else if (unreported_of_order(zone, order) < zone->report_threshold) {
        return false;
    }
    set_requested(zone, true);
    return true;
}

bool ebb__report_cache_used(struct ebb_zone *zone)
{
    if (ebb__report_requested(zone) || !zone->report_caches)
        return false;
    set_requested(zone, true);
    return true;
}

static void set_phase(struct ebb_report *report, enum ebb_report_phase phase)
{
    __atomic_store_n(&report->phase, (uint32_t)phase, __ATOMIC_RELAXED);
}

enum ebb_report_phase ebb_report_phase(const struct ebb_report *report)
{
    return (enum ebb_report_phase)__atomic_load_n(&report->phase, __ATOMIC_RELAXED);
}

/* From a request to its pass. */
static uint64_t delay(const struct ebb_report *report)
{
    return ebb__paced(report) ? ebb__pace_slot(report) : report->config.delay_ms * NS_PER_MS;
}

static bool is_attached(const struct ebb_report *report)
{
    return report->device && !report->changing;
}

/* Somebody has to run the engine: the worker, or whoever is here. With no lock
 * held. For workers `report` may be gone by then: see ebb_report_complete(). */
static void kick(struct ebb_report *report, bool inlined, void *worker)
{
    if (inlined)
        (void)ebb_report_run(report);
    else
        ebb_port_wake(worker);
}

/* To REQUESTED. Returns whether the worker has to hear of it: not if it knows of
 * a pass already, nor during one, since its end looks. Under the engine's lock. */
static bool request(struct ebb_report *report)
{
    bool was_idle = ebb_report_phase(report) == EBB_REPORT_IDLE;

    set_phase(report, EBB_REPORT_REQUESTED);
    return was_idle;
}

void ebb__report_request(struct ebb_zone *zone)
{
    struct ebb_report *report = zone->report;
    uint64_t now = ebb_port_now();
    bool wake = false;

    ebb_port_lock(&report->lock);
    if (is_attached(report)) {
        report->stats.requests++;
        wake = request(report);
        if (wake)
            report->due = now + delay(report);
    }
    ebb_port_unlock(&report->lock);
    if (wake)
        kick(report, report->inlined, report->config.worker);
}

void ebb_report_now(struct ebb_report *report)
{
    uint64_t now = ebb_port_now();
    bool attached;

    for (struct ebb_zone *zone = report->zones; zone; zone = zone->report_next) {
        ebb_port_lock(&zone->lock);
        if (zone->report_order != SCREEN_OFF)
            set_requested(zone, true);
        ebb_port_unlock(&zone->lock);
    }
    ebb_port_lock(&report->lock);
    attached = is_attached(report);
    if (attached) {
        request(report);
        report->due = now;
        report->pace.flush_wanted = true;
    }
    ebb_port_unlock(&report->lock);
    if (attached)
        kick(report, report->inlined, report->config.worker);
}

/* ---- the pass: lists ---- */

/* How many blocks a pass may take from a list that holds `blocks`: all, or its
 * share in whole batches, rounded up, and one batch more, as the merged kernel
 * has it (it looks at what is left of the budget before a batch, not after). */
static uint64_t share_of_list(const struct ebb_report *report, uint64_t blocks)
{
    uint64_t per_batch = (uint64_t)report->config.budget * report->capacity;

    if (report->config.budget == 1)
        return blocks;
    return ((blocks + per_batch - 1) / per_batch + 1) * report->capacity;
}

/* A batch is out of reach for a while: leave half of what is to spare to those
 * who allocate meanwhile. One block may always go. Under the zone's lock. */
static uint64_t room_for_batch(const struct ebb_zone *zone)
{
    uint64_t frames = available(zone);

    return frames > zone->watermark_low ? (frames - zone->watermark_low) / 2 : 0;
}

static bool has_room(const struct ebb_report *report)
{
    return report->filled == 0 || (report->filled < report->capacity && report->room > 0 &&
                                   report->held_blocks < EBB_REPORT_CAPACITY_LIMIT);
}

static bool descending(const struct ebb_report *report)
{
    return report->config.direction == EBB_DIRECTION_DESCENDING;
}

static bool by_address(const struct ebb_report *report)
{
    return ebb__paced(report) || ebb__tracker(report->zone)->by_address;
}

static void open_list(struct ebb_report *report)
{
    const struct ebb_zone *zone = report->zone;
    const struct ebb_free_list *list = &zone->lists[report->order][report->type];

    report->list_open = true;
    if (by_address(report)) {
        /* Its list is the zone, and the tracker knows where that ends. */
        uint64_t blocks = 0;

        for (unsigned order = zone->report_min_order; order <= zone->max_order; order++)
            blocks += unreported_of_order(zone, order);
        report->list_steps = UINT64_MAX;
        report->list_blocks = share_of_list(report, blocks);
        return;
    }
    report->list_steps = ebb__unreported(list) > 0 ? list->blocks : 0;
    report->list_blocks = share_of_list(report, list->blocks);
}

static void close_order(struct ebb_report *report)
{
    const struct ebb_zone *zone = report->zone;
    unsigned last = descending(report) ? zone->report_min_order : zone->max_order;

    report->list_open = false;
    report->type = 0;
    if (report->order == last || by_address(report))
        report->lists_left = false;
    else if (descending(report))
        report->order--;
    else
        report->order++;
}

static void close_list(struct ebb_report *report)
{
    report->list_open = false;
    if (by_address(report) || ++report->type == EBB_ISOLATE)
        close_order(report);
}

/* Does a block lie right behind the last range, in the same pageblock as all of it? Such come only
 * with surplus pacing. */
static bool extends_range(const struct ebb_report *report, uint32_t index, unsigned order)
{
    const struct ebb_zone *zone = report->zone;
    const struct ebb_report_block *last;

    if (!ebb__paced(report) || report->held_blocks == 0 || order >= zone->large_order)
        return false;
    last = &report->blocks[report->held_blocks - 1];
    return last->index + ((uint64_t)1 << last->order) == index &&
           last->index >> zone->large_order == index >> zone->large_order;
}

static void add_to_batch(struct ebb_report *report, uint32_t index, unsigned order)
{
    uint64_t len = EBB_FRAME_SIZE << order;

    if (extends_range(report, index, order)) {
        report->ranges[report->filled - 1].len += len;
    } else {
        report->ranges[report->filled++] = (struct ebb_range){
            .addr = (report->zone->base + index) << EBB_FRAME_SHIFT,
            .len = len,
        };
    }
    report->blocks[report->held_blocks++] =
        (struct ebb_report_block){.index = index, .order = (uint8_t)order};
}

/* The next block of the open list, if it may give any more. */
static enum ebb__found look(struct ebb_report *report, unsigned *steps, uint32_t *index)
{
    unsigned allowed = report->list_steps < *steps ? (unsigned)report->list_steps : *steps;
    unsigned left = allowed;
    enum ebb__found found = EBB__NOTHING;

    if (report->list_blocks > 0 && allowed > 0)
        found = ebb__paced(report) ? ebb__pace_next(report, &left, index)
                                   : ebb__tracker(report->zone)->next(report, &left, index);
    *steps -= allowed - left;
    report->list_steps -= allowed - left;
    return found == EBB__PAUSE && report->list_steps == 0 ? EBB__NOTHING : found;
}

/* The watermark keeps a block of this order here. */
static void stop_at_watermark(struct ebb_report *report)
{
    /* Larger ones as well, but not those of lower orders. */
    if (descending(report))
        close_order(report);
    else
        report->lists_left = false;
}

static bool isolate(struct ebb_report *report, uint32_t index)
{
    return ebb__paced(report) ? ebb__pace_isolate(report, index)
                              : ebb__isolate_block(report->zone, index);
}

/* Take this block into the batch, unless it has to wait for the next one. */
static void take(struct ebb_report *report, uint32_t index)
{
    unsigned order = ebb__order_of(ebb__load_state(report->zone, index));
    uint64_t frames = (uint64_t)1 << order;

    if (report->filled > 0 && frames > report->room) {
        report->list_steps++; /* it is looked at once more */
        report->room = 0;
        return;
    }
    if (!isolate(report, index)) {
        stop_at_watermark(report);
        return;
    }
    add_to_batch(report, index, order);
    report->list_blocks--;
    report->room -= frames < report->room ? frames : report->room;
}

static void take_from_list(struct ebb_report *report, unsigned *steps)
{
    uint32_t index;

    switch (look(report, steps, &index)) {
    case EBB__FOUND:
        take(report, index);
        break;
    case EBB__NOTHING:
        close_list(report);
        break;
    case EBB__FLUSH:
        report->room = 0;
        break;
    case EBB__PAUSE:
        break;
    }
}

/* One hold of the zone's lock. */
static void fill_some(struct ebb_report *report)
{
    unsigned steps = STEPS_PER_HOLD;

    ebb_port_lock(&report->zone->lock);
    if (report->filled == 0)
        report->room = room_for_batch(report->zone);
    while (steps > 0 && has_room(report) && report->lists_left) {
        if (!report->list_open)
            open_list(report);
        take_from_list(report, &steps);
    }
    ebb_port_unlock(&report->zone->lock);
}

/* ---- the pass: zones ---- */

/* This pass is not to be the last one. */
static void another_pass(struct ebb_report *report)
{
    ebb_port_lock(&report->lock);
    request(report);
    ebb_port_unlock(&report->lock);
}

/* Take the request of a zone, if it made one. From here on another counts as new. */
static bool take_request(struct ebb_zone *zone)
{
    bool asked;

    /* Under the lock: a free that asks after this finds the engine active,
     * whatever this CPU and that one see of each other's memory. */
    ebb_port_lock(&zone->lock);
    asked = ebb__report_requested(zone);
    set_requested(zone, false);
    ebb_port_unlock(&zone->lock);
    return asked;
}

/* Begin with a zone; false if there is nothing to do for it. */
static bool open_zone(struct ebb_report *report)
{
    struct ebb_zone *zone = report->zone;
    uint64_t cached;

    if (!take_request(zone))
        return false;
    /* One frame in an idle cache would keep its whole block from being reported.
     * The request was taken before this: a cache that comes into use again right
     * after it was looked at has to be able to ask. */
    cached = ebb__drain(zone, !report->pace.flush, NULL);
    ebb_port_lock(&zone->lock);
    if (cached > 0 && zone->report_caches)
        set_requested(zone, true);
    else
        cached = 0;
    report->zone_open = something_fits(zone);
    set_gate(zone, !report->zone_open && anything_unreported(zone));
    if (report->zone_open && ebb__tracker(zone)->open)
        ebb__tracker(zone)->open(report);
    if (ebb__paced(report))
        ebb__pace_open(report);
    ebb_port_unlock(&zone->lock);
    if (cached > 0)
        another_pass(report);

    report->lists_left = true;
    report->list_open = false;
    report->order = descending(report) ? zone->max_order : zone->report_min_order;
    report->type = 0;
    return report->zone_open;
}

/* No more of this zone in this pass. Under its lock. */
static void shut_zone(struct ebb_report *report)
{
    if (report->zone_open && ebb__tracker(report->zone)->close)
        ebb__tracker(report->zone)->close(report);
    report->zone_open = false;
}

/* Is there enough to ask for a pass, whoever left it? */
static bool over_threshold(const struct ebb_zone *zone)
{
    for (unsigned order = zone->report_min_order; order <= zone->max_order; order++) {
        if (unreported_of_order(zone, order) >= zone->report_threshold)
            return true;
    }
    return false;
}

/* Done with a zone: see to what is left of it. */
static void close_zone(struct ebb_report *report)
{
    struct ebb_zone *zone = report->zone;
    bool fits;
    bool again;

    ebb_port_lock(&zone->lock);
    shut_zone(report);
    fits = something_fits(zone);
    /* Inline there is no later: what is too little for a request stays. */
    again = fits && (!report->inlined || over_threshold(zone));
    if (again)
        set_requested(zone, true);
    set_gate(zone, !fits && anything_unreported(zone));
    ebb_port_unlock(&zone->lock);
    if (again)
        another_pass(report);
}

static struct ebb_zone *zone_after(const struct ebb_report *report, const struct ebb_zone *zone)
{
    return zone->report_next ? zone->report_next : report->zones;
}

static void next_zone(struct ebb_report *report)
{
    struct ebb_zone *next = zone_after(report, report->zone);

    report->zone = next != report->first ? next : NULL;
}

/* ---- the pass ---- */

static bool begin_pass(struct ebb_report *report)
{
    uint64_t now = ebb_port_now();
    bool begin;

    ebb_port_lock(&report->lock);
    begin = is_attached(report) && ebb_report_phase(report) == EBB_REPORT_REQUESTED &&
            now >= report->due && report->passes_left > 0;
    if (begin) {
        report->passes_left -= report->inlined;
        set_phase(report, EBB_REPORT_ACTIVE);
        report->in_pass = true;
        report->due = EBB_NEVER;
        report->stats.passes++;
        report->zone = report->first;
        report->zone_open = false;
        report->pace.flush = report->pace.flush_wanted;
        report->pace.flush_wanted = false;
        report->pace.surplus = 0;
    }
    ebb_port_unlock(&report->lock);
    if (begin && ebb__paced(report))
        ebb__pace_look(report, now);
    return begin;
}

/* `wait` ns until the next pass, if one is wanted and nobody said when. */
static void end_pass(struct ebb_report *report, uint64_t wait)
{
    uint64_t now = ebb_port_now();

    ebb_port_lock(&report->lock);
    report->in_pass = false;
    if (report->pace.surplus > 0)
        report->stats.surplus_frames = report->pace.surplus;
    if (ebb_report_phase(report) == EBB_REPORT_ACTIVE)
        set_phase(report, EBB_REPORT_IDLE);
    else if (report->due == EBB_NEVER)
        report->due = now + wait;
    ebb_port_unlock(&report->lock);
}

/* Collect the next batch, all of one zone. False: there is nothing left, the
 * pass has ended. */
static bool fill(struct ebb_report *report)
{
    for (; report->zone; next_zone(report)) {
        if (!report->zone_open && !open_zone(report))
            continue;
        while (has_room(report) && report->lists_left)
            fill_some(report);
        if (report->filled > 0)
            return true;
        close_zone(report);
    }
    end_pass(report, delay(report));
    return false;
}

/* ---- batches ---- */

static void set_batch(struct ebb_report *report, uint32_t state)
{
    __atomic_store_n(&report->batch, state, __ATOMIC_RELEASE);
}

static uint32_t get_batch(const struct ebb_report *report)
{
    return __atomic_load_n(&report->batch, __ATOMIC_ACQUIRE);
}

static void send(struct ebb_report *report)
{
    struct ebb_report_device *device = report->device;
    int err;

    ebb_port_lock(&report->lock);
    report->stats.batches++;
    ebb_port_unlock(&report->lock);
    set_batch(report, BATCH_IN_FLIGHT);
    err = device->ops->submit(device, report->ranges, report->filled);
    if (err < 0)
        set_batch(report, (uint32_t)err);
}

void ebb_report_complete(struct ebb_report *report, int status)
{
    uint32_t expected = BATCH_IN_FLIGHT;
    uint32_t state = status < 0 ? (uint32_t)status : BATCH_DONE;
    bool inlined = report->inlined;
    void *worker = report->config.worker;

    /* With this exchange the batch belongs to the runner again. */
    if (__atomic_compare_exchange_n(&report->batch, &expected, state, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE)) {
        kick(report, inlined, worker);
        return;
    }
    ebb_port_lock(&report->lock);
    report->stats.stray_completes++;
    ebb_port_unlock(&report->lock);
}

static void put_back_blocks(struct ebb_report *report, bool reported)
{
    struct ebb_zone *zone = report->zone;

    for (unsigned i = 0; i < report->held_blocks;) {
        ebb_port_lock(&zone->lock);
        for (unsigned held = 0; held < STEPS_PER_HOLD && i < report->held_blocks; held++, i++)
            ebb__put_back(zone, report->blocks[i].index, reported);
        ebb_port_unlock(&zone->lock);
    }
}

static uint64_t batch_frames(const struct ebb_report *report)
{
    uint64_t frames = 0;

    for (unsigned i = 0; i < report->held_blocks; i++)
        frames += (uint64_t)1 << report->blocks[i].order;
    return frames;
}

static void count_batch(struct ebb_report *report, uint32_t state)
{
    struct ebb_report_stats *stats = &report->stats;

    ebb_port_lock(&report->lock);
    if (state == BATCH_DONE) {
        stats->reported_blocks += report->held_blocks;
        stats->reported_frames += batch_frames(report);
    } else {
        stats->failed_batches++;
        stats->last_error = (int)state;
    }
    ebb_port_unlock(&report->lock);
}

/* The blocks of the batch go back. Returns whether it succeeded. */
static bool drain(struct ebb_report *report, uint32_t state)
{
    bool succeeded = state == BATCH_DONE;

    put_back_blocks(report, succeeded);
    count_batch(report, state);
    if (succeeded && ebb__paced(report))
        ebb__pace_told(report, batch_frames(report));
    report->filled = 0;
    report->held_blocks = 0;
    set_batch(report, BATCH_NONE);
    return succeeded;
}

/* With nobody to come back later, zones must be able to ask again. */
static void forget_requests(struct ebb_report *report)
{
    for (struct ebb_zone *zone = report->zones; zone; zone = zone->report_next) {
        ebb_port_lock(&zone->lock);
        set_requested(zone, false);
        ebb_port_unlock(&zone->lock);
    }
}

static uint64_t next_backoff(const struct ebb_report *report)
{
    uint64_t first = report->config.backoff_ms * NS_PER_MS;
    uint64_t limit = report->config.backoff_max_ms * NS_PER_MS;
    uint64_t next = report->backoff_ns > 0 ? report->backoff_ns * 2 : first;

    return next < limit ? next : limit;
}

/* Nothing more now. This zone and the ones after it stay requested; the next pass
 * begins behind it, lest one bad block keep all other zones waiting. */
static void back_off(struct ebb_report *report)
{
    ebb_port_lock(&report->zone->lock);
    shut_zone(report);
    set_requested(report->zone, true);
    ebb_port_unlock(&report->zone->lock);
    report->first = zone_after(report, report->zone);
    if (report->inlined) {
        forget_requests(report);
        end_pass(report, 0);
        return;
    }
    report->backoff_ns = next_backoff(report);
    another_pass(report);
    end_pass(report, report->backoff_ns);
}

/* Deal with the batch of before, if any. False: the pass cannot go on. */
static bool settle(struct ebb_report *report)
{
    uint32_t state = get_batch(report);

    if (state == BATCH_NONE)
        return true;
    if (state == BATCH_IN_FLIGHT)
        return false;
    if (!drain(report, state)) {
        back_off(report);
        return false;
    }
    report->backoff_ns = 0;
    return true;
}

/* ---- the runner ---- */

/* Become the runner. If somebody else is, it may have passed the point that this
 * call is about: tell it to see to another call. */
static bool enter(struct ebb_report *report)
{
    uint32_t seen = __atomic_load_n(&report->running, __ATOMIC_RELAXED);
    uint32_t next;

    do {
        next = seen == RUN_FREE ? RUN_TAKEN : RUN_WANTED;
    } while (!__atomic_compare_exchange_n(&report->running, &seen, next, true, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
    return seen == RUN_FREE;
}

/* Become the runner if nobody is, for those who come again by themselves: to tell
 * the runner each time would keep it running. */
static bool enter_once(struct ebb_report *report)
{
    uint32_t expected = RUN_FREE;

    return __atomic_compare_exchange_n(&report->running, &expected, RUN_TAKEN, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* Returns whether somebody came meanwhile and this caller has to see to it. */
static bool leave(struct ebb_report *report)
{
    bool inlined = report->inlined;
    void *worker = report->config.worker;
    bool wanted = __atomic_exchange_n(&report->running, RUN_FREE, __ATOMIC_ACQ_REL) == RUN_WANTED;

    if (wanted && !inlined)
        ebb_port_wake(worker);
    return wanted && inlined;
}

static bool may_go_on(struct ebb_report *report)
{
    bool attached;

    ebb_port_lock(&report->lock);
    attached = is_attached(report);
    ebb_port_unlock(&report->lock);
    return attached;
}

static void advance(struct ebb_report *report)
{
    if (!report->in_pass && !begin_pass(report))
        return;
    while (may_go_on(report) && settle(report) && fill(report))
        send(report);
}

static uint64_t deadline(struct ebb_report *report)
{
    uint64_t due = EBB_NEVER;

    ebb_port_lock(&report->lock);
    /* A pass under way waits for its batch, and a completion wakes. */
    if (is_attached(report) && !report->in_pass && ebb_report_phase(report) == EBB_REPORT_REQUESTED)
        due = report->due;
    ebb_port_unlock(&report->lock);
    return due;
}

/* Inline, enough for one call: whoever frees next may ask anew. */
static void put_off(struct ebb_report *report)
{
    ebb_port_lock(&report->lock);
    if (ebb_report_phase(report) == EBB_REPORT_REQUESTED) {
        set_phase(report, EBB_REPORT_IDLE);
        report->due = EBB_NEVER;
    }
    ebb_port_unlock(&report->lock);
    forget_requests(report);
}

/* Inline: also what was asked for meanwhile; nobody else will come for it. */
static uint64_t advance_all(struct ebb_report *report)
{
    uint64_t due;

    do {
        advance(report);
        due = deadline(report);
    } while (report->inlined && due != EBB_NEVER && report->passes_left > 0);
    if (report->inlined && due != EBB_NEVER) {
        put_off(report);
        due = EBB_NEVER;
    }
    return due;
}

uint64_t ebb_report_run(struct ebb_report *report)
{
    unsigned passes = INLINE_PASSES;
    uint64_t due;

    do {
        if (!enter(report))
            return deadline(report);
        report->passes_left = passes;
        due = advance_all(report);
        passes = report->passes_left;
    } while (leave(report));
    return due;
}

/* ---- set-up ---- */

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value > 0 ? value : otherwise;
}

EBB_RARE int ebb_report_init(struct ebb_report *report, const struct ebb_report_config *config)
{
    struct ebb_report_config c = *config;

    if (ebb_report_config_problem(config))
        return -EBB_EINVAL;
    c.pacing = (uint8_t)ebb_report_config_pacing(config);
    c.tracker = (uint8_t)ebb_report_config_tracker(config);
    if (!ebb__tracker_of(c.tracker))
        return -EBB_EOPNOTSUPP;
    c.window_min_ms = or_default(c.window_min_ms, EBB_REPORT_WINDOW_MIN_MS);
    c.window_max_ms = or_default(c.window_max_ms, EBB_REPORT_WINDOW_MAX_MS);
    c.window_start_ms = or_default(c.window_start_ms, EBB_REPORT_WINDOW_START_MS);
    if (c.window_start_ms < c.window_min_ms)
        c.window_start_ms = c.window_min_ms;
    if (c.window_start_ms > c.window_max_ms)
        c.window_start_ms = c.window_max_ms;
    c.refault_ns = or_default(c.refault_ns, EBB_REPORT_REFAULT_NS);
    c.capacity = or_default(c.capacity, 32);
    c.budget = or_default(c.budget, 1);
    c.threshold = or_default(c.threshold, 1);
    if (c.execution != EBB_EXECUTION_INLINE) {
        c.delay_ms = or_default(c.delay_ms, EBB_REPORT_DELAY_MS);
        c.backoff_ms = or_default(c.backoff_ms, EBB_REPORT_BACKOFF_MS);
        c.backoff_max_ms = or_default(c.backoff_max_ms, EBB_REPORT_BACKOFF_MAX_MS);
    }

    memset(report, 0, sizeof(*report));
    report->config = c;
    report->inlined = c.execution == EBB_EXECUTION_INLINE;
    report->due = EBB_NEVER;
    if (c.pacing == EBB_PACING_SURPLUS) {
        report->pace.on = true;
        report->pace.shortest = c.window_min_ms * NS_PER_MS;
        report->pace.longest = c.window_max_ms * NS_PER_MS;
        report->pace.first = c.window_start_ms * NS_PER_MS;
        report->pace.window = report->pace.first;
        report->pace.price = (uint64_t)c.refault_ns * EBB__REFAULT_SHARE;
        report->pace.allowance = 1000 * NS_PER_MS / report->pace.price;
        report->stats.window_ns = report->pace.window;
    }
    return 0;
}

int ebb_report_add_zone(struct ebb_report *report, struct ebb_zone *zone)
{
    struct ebb_zone **end = &report->zones;
    int err = -EBB_EBUSY;

    ebb_port_lock(&report->lock);
    if (!report->device && !zone->report) {
        while (*end)
            end = &(*end)->report_next;
        *end = zone;
        zone->report = report;
        zone->report_next = NULL;
        zone->tracker = ebb__tracker_of(report->config.tracker);
        zone->split = report->config.split;
        zone->merge = report->config.merge;
        zone->move = report->config.move;
        zone->report_surplus = report->pace.on;
        err = 0;
    }
    ebb_port_unlock(&report->lock);
    return err;
}

static unsigned smallest_order(const struct ebb_report *report, const struct ebb_zone *zone)
{
    if (report->config.order > 0)
        return report->config.order - 1u;
    if (report->device->min_order > 0)
        return report->device->min_order - 1u;
    if (ebb__paced(report))
        return 0;
    return zone->pageblock_order;
}

static uint32_t threshold(const struct ebb_report *report)
{
    if (report->config.threshold == EBB_REPORT_TWICE_CAPACITY)
        return 2 * report->capacity;
    return report->config.threshold;
}

static void screen_on(struct ebb_report *report, struct ebb_zone *zone)
{
    const struct ebb_tracker_ops *tracker = ebb__tracker(zone);
    unsigned order = smallest_order(report, zone);
    bool on = order <= zone->max_order;
    bool loosens;

    ebb_port_lock(&zone->lock);
    zone->report_threshold = threshold(report);
    /* Marks outlive their device: once some say less, they all do. */
    zone->marks_zero = report->device->content == EBB_CONTENT_VALUE && report->device->value == 0 &&
                       (zone->marks_zero || zone->reported == 0);
    zone->report_min_order = on ? (uint8_t)order : SCREEN_OFF;
    zone->track_order = on && tracker->mark ? (uint8_t)order : SCREEN_OFF;
    /* A pass reports what it finds, so with a threshold only frees may ask; and
     * inline nobody would come when the cache is idle. */
    zone->report_caches = on && zone->report_threshold == 1 && !report->inlined;
    ebb__limit_blocks(zone);
    set_gate(zone, false);
    set_requested(zone, on);
    zone->tracker_ready = !tracker->attach;
    /* Trackers of small blocks go by lists; surplus pacing settles what it looks at. */
    loosens = ebb__can_loosen(zone) && (order >= zone->large_order || ebb__paced(report));
    zone->loosens = loosens;
    ebb_port_unlock(&zone->lock);
    if (!zone->report_caches)
        (void)ebb__drain(zone, false, NULL);
    if (!loosens)
        ebb__settle_all(zone);
    if (!on || !tracker->attach)
        return;
    tracker->attach(zone);
    ebb_port_lock(&zone->lock);
    zone->tracker_ready = true;
    ebb_port_unlock(&zone->lock);
}

static void screen_off(struct ebb_zone *zone)
{
    ebb_port_lock(&zone->lock);
    zone->report_min_order = SCREEN_OFF;
    zone->track_order = SCREEN_OFF;
    zone->report_caches = false;
    ebb__limit_blocks(zone);
    zone->loosens = ebb__can_loosen(zone);
    set_gate(zone, false);
    set_requested(zone, false);
    ebb_port_unlock(&zone->lock);
}

static bool is_usable(const struct ebb_report_device *device)
{
    return device && device->ops && device->ops->submit && device->capacity > 0 &&
           device->capacity <= EBB_REPORT_CAPACITY_LIMIT;
}

/* Make the device the engine's, unless there is one. */
static bool take_device(struct ebb_report *report, struct ebb_report_device *device)
{
    bool taken;

    ebb_port_lock(&report->lock);
    taken = !report->device;
    if (taken) {
        report->device = device;
        report->changing = true;
        report->first = report->zones;
        report->capacity =
            device->capacity < report->config.capacity ? device->capacity : report->config.capacity;
        report->backoff_ns = 0;
    }
    ebb_port_unlock(&report->lock);
    return taken;
}

EBB_RARE int ebb_report_register(struct ebb_report *report, struct ebb_report_device *device)
{
    uint64_t now = ebb_port_now();

    if (!is_usable(device))
        return -EBB_EINVAL;
    if (!ebb__report_content_ok(report, device))
        return -EBB_EOPNOTSUPP;
    if (!take_device(report, device))
        return -EBB_EBUSY;
    if (ebb__paced(report))
        ebb__pace_start(report, now);
    for (struct ebb_zone *zone = report->zones; zone; zone = zone->report_next)
        screen_on(report, zone);

    ebb_port_lock(&report->lock);
    report->changing = false;
    report->due = now + delay(report);
    set_phase(report, EBB_REPORT_REQUESTED);
    ebb_port_unlock(&report->lock);
    kick(report, report->inlined, report->config.worker);
    return 0;
}

static bool begin_unregister(struct ebb_report *report)
{
    bool begun;

    ebb_port_lock(&report->lock);
    begun = is_attached(report);
    if (begun)
        report->changing = true;
    ebb_port_unlock(&report->lock);
    return begun;
}

/* Wherever the pass stands, it goes no further. */
static void stop_pass(struct ebb_report *report)
{
    if (!report->in_pass || !report->zone)
        return;
    ebb_port_lock(&report->zone->lock);
    shut_zone(report);
    ebb_port_unlock(&report->zone->lock);
}

static void wait_for_batch(struct ebb_report *report)
{
    struct ebb_report_device *device = report->device;

    while (get_batch(report) == BATCH_IN_FLIGHT) {
        if (device->ops->poll)
            device->ops->poll(device);
        ebb_port_relax();
    }
}

EBB_RARE int ebb_report_unregister(struct ebb_report *report)
{
    uint32_t state;

    if (!begin_unregister(report))
        return -EBB_ENODEV;
    while (!enter_once(report))
        ebb_port_relax();
    for (struct ebb_zone *zone = report->zones; zone; zone = zone->report_next)
        screen_off(zone);
    wait_for_batch(report);
    state = get_batch(report);
    if (state != BATCH_NONE)
        drain(report, state);
    stop_pass(report);

    ebb_port_lock(&report->lock);
    report->in_pass = false;
    report->device = NULL;
    report->pace.flush_wanted = false;
    report->changing = false;
    set_phase(report, EBB_REPORT_IDLE);
    report->due = EBB_NEVER;
    ebb_port_unlock(&report->lock);
    /* Somebody may have registered another one already. */
    if (leave(report))
        (void)ebb_report_run(report);
    return 0;
}

void ebb_report_get_stats(struct ebb_report *report, struct ebb_report_stats *stats)
{
    ebb_port_lock(&report->lock);
    *stats = report->stats;
    ebb_port_unlock(&report->lock);
}
