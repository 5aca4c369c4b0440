/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reporting engine: requests, passes, batches.
 *
 * Two groups of functions, by who calls them:
 *   - requests: whoever frees, through its source;
 *   - the runner: whoever is inside ebb_report_run(), one at a time. It alone touches the
 *     state of the pass. A pass visits each source that asked once, and ends whatever others
 *     do meanwhile (I9).
 * Registration is in setup.c: it takes the runner's place, so that no pass is under way.
 *
 * What a pass leaves behind is never forgotten: when it is done with a source it asks whether
 * something is left that may become surplus, and comes again a slot later if so.
 *
 * Memory order. `requested` of a source is cleared here before the source's lock is taken in
 * open() and take(), and noted by a free under that lock. If the free came first, take() sees
 * what it freed. If take() came first, the free sees the flag cleared, because the clearing
 * comes before that hold of the lock, and asks; the engine is active by then, since the phase
 * was set (under the engine's lock) before the clearing, so the request leads to another pass
 * (I11). `batch` and `running` hand the pass's state from CPU to CPU: acquire and release.
 */
#include "engine.h"

/* Calls of take() in a row that bring no block, before the source counts as empty. The largest
 * zone has 2^23 pageblocks, and looks at 64 in a call. */
#define BARREN_TAKES ((uint32_t)1 << 22)

/* report->running */
enum running { RUN_FREE = 0, RUN_TAKEN = 1, RUN_WANTED = 2 };

/* ---- requests ---- */

enum ebb_report_phase ebb_report_phase(const struct ebb_report *report)
{
    return (enum ebb_report_phase)__atomic_load_n(&report->phase, __ATOMIC_RELAXED);
}

/* To REQUESTED. Returns whether the worker has to hear of it: not if it knows of a pass
 * already, nor during one, since its end looks. Under the engine's lock. */
static bool request(struct ebb_report *report)
{
    bool was_idle = ebb_report_phase(report) == EBB_REPORT_IDLE;

    EBB_DEBUG_ASSERT(report->device);
    ebb__set_phase(report, EBB_REPORT_REQUESTED);
    return was_idle;
}

EBB_RARE void ebb_source_request(struct ebb_source *source)
{
    struct ebb_report *report = source->report;
    uint64_t now = ebb_port_now();
    bool wake = false;

    EBB_DEBUG_ASSERT(report);
    ebb_port_lock(&report->lock);
    if (ebb__is_attached(report)) {
        report->stats.requests++;
        wake = request(report);
        if (wake)
            report->due = now + ebb__delay(report);
    }
    ebb_port_unlock(&report->lock);
    if (wake)
        ebb__wake(report);
}

EBB_RARE void ebb_report_now(struct ebb_report *report)
{
    uint64_t now = ebb_port_now();
    bool attached;

    ebb_port_lock(&report->lock);
    attached = ebb__is_attached(report);
    if (attached) {
        for (struct ebb_source *source = report->sources; source; source = source->next)
            ebb__set_requested(source, true);
        request(report);
        report->due = now;
        report->now_wanted = true;
    }
    ebb_port_unlock(&report->lock);
    if (attached)
        ebb__wake(report);
}

EBB_RARE void ebb__report_put_off(struct ebb_report *report)
{
    ebb_port_lock(&report->lock);
    if (ebb_report_phase(report) == EBB_REPORT_REQUESTED) {
        ebb__set_phase(report, EBB_REPORT_IDLE);
        report->due = EBB_NEVER;
    }
    EBB_DEBUG_ASSERT(ebb_report_phase(report) != EBB_REPORT_REQUESTED);
    for (struct ebb_source *source = report->sources; source; source = source->next)
        ebb__set_requested(source, !source->active);
    ebb_port_unlock(&report->lock);
}

/* This pass is not to be the last one. */
EBB_RARE static void another_pass(struct ebb_report *report)
{
    ebb_port_lock(&report->lock);
    request(report);
    ebb_port_unlock(&report->lock);
}

/* ---- the pass: what a source gives ---- */

static bool is_requested(const struct ebb_source *source)
{
    return __atomic_load_n(&source->requested, __ATOMIC_RELAXED);
}

EBB_RARE void ebb_pass_hold(struct ebb_pass *pass, ebb_pfn_t pfn, unsigned order)
{
    const uint64_t frames = (uint64_t)1 << order;
    const bool is_large = order >= pass->large_order;
    const struct ebb_held *last = &pass->blocks[pass->n_blocks - (pass->n_blocks > 0)];

    EBB_ASSERT(ebb_pass_has_room(pass));
    EBB_ASSERT(order <= EBB_ORDER_LIMIT && !(pfn & (frames - 1)));
    EBB_DEBUG_ASSERT(pass->n_ranges <= pass->n_blocks &&
                     (pass->n_ranges > 0 || pass->n_blocks == 0));
    if (!is_large && pass->n_blocks > 0 && last->pfn + ((uint64_t)1 << last->order) == pfn &&
        last->order < pass->large_order &&
        last->pfn >> pass->large_order == pfn >> pass->large_order)
        pass->ranges[pass->n_ranges - 1].len += frames << EBB_FRAME_SHIFT;
    else
        pass->ranges[pass->n_ranges++] = (struct ebb_range){
            .addr = pfn << EBB_FRAME_SHIFT,
            .len = frames << EBB_FRAME_SHIFT,
        };
    pass->blocks[pass->n_blocks++] = (struct ebb_held){.pfn = pfn, .order = (uint8_t)order};
    pass->room -= frames < pass->room ? frames : pass->room;
    pass->taken += frames;
    if (is_large) {
        pass->isolated += frames;
        pass->quota -= frames < pass->quota ? frames : pass->quota;
    }
    EBB_DEBUG_ASSERT(pass->n_ranges <= pass->n_blocks && pass->isolated <= pass->taken);
    EBB_DEBUG_ASSERT(pass->n_ranges <= pass->capacity || pass->n_ranges == 1);
}

/* One hold of the source's lock. */
static void take_some(struct ebb_report *report)
{
    struct ebb_source *source = report->source;
    struct ebb_pass *pass = &report->pass;
    const unsigned before = pass->n_blocks;

    EBB_DEBUG_ASSERT(source->active && report->source_open && report->in_pass);
    if (pass->n_blocks == 0)
        pass->room = UINT64_MAX;
    report->more = source->ops->take(source, pass);
    EBB_ASSERT(pass->n_blocks >= before && pass->n_blocks <= EBB_REPORT_CAPACITY_LIMIT);
    EBB_DEBUG_ASSERT(pass->n_ranges <= pass->capacity);
    EBB_DEBUG_ASSERT(pass->isolated <= pass->taken);
    EBB_DEBUG_ASSERT(report->unpaced || pass->everything ||
                     pass->isolated <= ebb_pace_quota(&report->pace, &source->pace));
    if (pass->isolated > 0)
        ebb_pace_isolated(&report->pace, &source->pace, pass->isolated);
    pass->isolated = 0;
    report->barren = pass->n_blocks == before ? report->barren + 1 : 0;
    if (report->barren >= BARREN_TAKES)
        report->more = false;
}

/* Frames of large blocks that the pass may take: no more than there are, so that it ends while
 * others free. */
EBB_RARE static uint64_t quota(const struct ebb_report *report, struct ebb_source *source)
{
    struct ebb_counts counts;

    EBB_DEBUG_ASSERT(source->active);
    if (report->unpaced) /* src/history counts blocks */
        return UINT64_MAX;
    if (!report->pass.everything)
        return ebb_pace_quota(&report->pace, &source->pace);
    source->ops->counts(source, NULL, &counts);
    return counts.unreported;
}

/* Begin with a source; false if there is nothing to do for it. */
EBB_RARE static bool open_source(struct ebb_report *report)
{
    struct ebb_source *source = report->source;
    struct ebb_pass *pass = &report->pass;

    if (!source->active || !__atomic_exchange_n(&source->requested, 0, __ATOMIC_ACQ_REL))
        return false;
    EBB_DEBUG_ASSERT(pass->n_blocks == 0); /* a batch is all of one source */
    EBB_DEBUG_ASSERT(report->in_pass && !report->source_open);
    pass->large_order = source->large_order;
    report->source_open = !source->ops->open || source->ops->open(source, pass);
    pass->quota = report->source_open ? quota(report, source) : 0;
    report->more = report->source_open;
    report->barren = 0;
    if (is_requested(source))
        another_pass(report);
    return report->source_open;
}

/* No more of this source in this pass. Returns whether it wants another look. */
EBB_RARE static bool shut_source(struct ebb_report *report)
{
    struct ebb_source *source = report->source;
    struct ebb_counts counts;

    EBB_ASSERT(report->pass.n_blocks == 0); /* else nobody gives them back */
    EBB_DEBUG_ASSERT(report->source_open);
    report->source_open = false;
    if (source->ops->close)
        return source->ops->close(source);
    source->ops->counts(source, NULL, &counts);
    return counts.unreported > 0;
}

EBB_RARE static void close_source(struct ebb_report *report)
{
    if (shut_source(report))
        ebb__set_requested(report->source, true);
    if (is_requested(report->source))
        another_pass(report);
}

EBB_RARE void ebb__stop_pass(struct ebb_report *report)
{
    if (report->in_pass && report->source && report->source_open)
        (void)shut_source(report);
    report->in_pass = false;
}

static struct ebb_source *source_after(const struct ebb_report *report,
                                       const struct ebb_source *source)
{
    return source->next ? source->next : report->sources;
}

EBB_RARE static void next_source(struct ebb_report *report)
{
    struct ebb_source *next = source_after(report, report->source);

    EBB_DEBUG_ASSERT(!report->source_open && report->pass.n_blocks == 0);
    report->source = next != report->first ? next : NULL;
}

/* ---- the pass ---- */

/* See what has happened since the last look, if a slot has ended. */
EBB_RARE static void look(struct ebb_report *report, uint64_t now)
{
    struct ebb_pace *pace = &report->pace;
    struct ebb_counts counts;
    uint64_t unused = 0;

    if (report->unpaced || !ebb_pace_look(pace, now))
        return;
    for (struct ebb_source *source = report->sources; source; source = source->next) {
        source->ops->counts(source, pace, &counts);
        EBB_DEBUG_ASSERT(counts.low <= counts.unreported);
        ebb_pace_end_slot(pace, &source->pace, counts.low, counts.withdrawn, counts.reported,
                          counts.refaulted);
        unused += counts.low + counts.small;
    }
    ebb_pace_judge(pace, now, unused);
    ebb_port_lock(&report->lock);
    report->stats.window_ns = pace->window;
    report->stats.window_grown = pace->grown;
    report->stats.window_shrunk = pace->shrunk;
    report->stats.refaulted_soon = pace->refaulted_soon;
    ebb_port_unlock(&report->lock);
}

EBB_RARE static bool begin_pass(struct ebb_report *report)
{
    uint64_t now = ebb_port_now();
    bool begin;

    ebb_port_lock(&report->lock);
    begin = ebb__is_attached(report) && ebb_report_phase(report) == EBB_REPORT_REQUESTED &&
            now >= report->due;
    if (begin) {
        EBB_DEBUG_ASSERT(report->pass.n_blocks == 0 && report->pass.n_ranges == 0);
        EBB_DEBUG_ASSERT(!report->in_pass && ebb__get_batch(report) == EBB__BATCH_NONE);
        ebb__set_phase(report, EBB_REPORT_ACTIVE);
        report->in_pass = true;
        report->due = EBB_NEVER;
        report->stats.passes++;
        report->source = report->first;
        report->source_open = false;
        report->pass.everything = report->now_wanted;
        report->pass.taken = 0;
        report->now_wanted = false;
    }
    ebb_port_unlock(&report->lock);
    if (begin)
        look(report, now);
    return begin;
}

/* `wait` ns until the next pass, if one is wanted and nobody said when. */
EBB_RARE static void end_pass(struct ebb_report *report, uint64_t wait)
{
    uint64_t now = ebb_port_now();

    EBB_DEBUG_ASSERT(report->pass.n_blocks == 0);
    EBB_DEBUG_ASSERT(ebb__get_batch(report) == EBB__BATCH_NONE);
    ebb_port_lock(&report->lock);
    EBB_DEBUG_ASSERT(report->in_pass && ebb_report_phase(report) != EBB_REPORT_IDLE);
    report->in_pass = false;
    if (report->pass.taken > 0 && !report->unpaced)
        report->stats.surplus_frames = report->pass.taken;
    if (ebb_report_phase(report) == EBB_REPORT_ACTIVE)
        ebb__set_phase(report, EBB_REPORT_IDLE);
    else if (report->due == EBB_NEVER)
        report->due = now + wait;
    ebb_port_unlock(&report->lock);
}

/* Collect the next batch, all of one source. False: there is nothing left, the pass has ended. */
EBB_RARE static bool fill(struct ebb_report *report)
{
    EBB_DEBUG_ASSERT(report->in_pass && report->pass.n_blocks == 0);
    for (; report->source; next_source(report)) {
        if (!report->source_open && !open_source(report))
            continue;
        while (ebb_pass_has_room(&report->pass) && report->more)
            take_some(report);
        if (report->pass.n_ranges > 0)
            return true;
        close_source(report);
    }
    end_pass(report, ebb__delay(report));
    return false;
}

/* ---- batches ---- */

static void set_batch(struct ebb_report *report, uint32_t state)
{
    __atomic_store_n(&report->batch, state, __ATOMIC_RELEASE);
}

static uint64_t batch_frames(const struct ebb_pass *pass)
{
    uint64_t frames = 0;

    for (unsigned i = 0; i < pass->n_blocks; i++)
        frames += (uint64_t)1 << pass->blocks[i].order;
    return frames;
}

static uint64_t batch_bytes(const struct ebb_pass *pass)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < pass->n_ranges; i++)
        bytes += pass->ranges[i].len;
    return bytes;
}

EBB_RARE static void send(struct ebb_report *report)
{
    struct ebb_report_device *device = report->device;
    int err;

    EBB_ASSERT(ebb__get_batch(report) == EBB__BATCH_NONE);
    EBB_DEBUG_ASSERT(report->pass.n_ranges > 0 &&
                     report->pass.n_ranges <= report->device->capacity);
    EBB_DEBUG_ASSERT(batch_bytes(&report->pass) == batch_frames(&report->pass) << EBB_FRAME_SHIFT);
    ebb_port_lock(&report->lock);
    report->stats.batches++;
    ebb_port_unlock(&report->lock);
    set_batch(report, EBB__BATCH_IN_FLIGHT);
    err = device->ops->submit(device, report->pass.ranges, report->pass.n_ranges);
    /* Whatever it completed: it says that it did not take the batch. */
    if (err < 0)
        set_batch(report, (uint32_t)err);
}

EBB_RARE void ebb_report_complete(struct ebb_report *report, int status)
{
    uint32_t expected = EBB__BATCH_IN_FLIGHT;
    uint32_t state = status < 0 ? (uint32_t)status : EBB__BATCH_DONE;
    void (*wake)(void *worker) = report->wake;
    void *worker = report->config.worker;

    /* With this exchange the batch belongs to the runner again, and the engine may be gone before
     * the next line. */
    if (__atomic_compare_exchange_n(&report->batch, &expected, state, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE)) {
        wake(worker);
        return;
    }
    ebb_port_lock(&report->lock);
    report->stats.stray_completes++;
    ebb_port_unlock(&report->lock);
}

static void give_back_blocks(struct ebb_report *report, bool reported)
{
    struct ebb_source *source = report->source;
    const struct ebb_pass *pass = &report->pass;

    EBB_DEBUG_ASSERT(source && pass->n_blocks > 0);
    for (unsigned i = 0; i < pass->n_blocks; i += EBB_TAKE_LOOKS) {
        unsigned n = pass->n_blocks - i;

        source->ops->give_back(source, &pass->blocks[i], n < EBB_TAKE_LOOKS ? n : EBB_TAKE_LOOKS,
                               reported);
    }
}

EBB_RARE bool ebb__finish_batch(struct ebb_report *report, uint32_t state)
{
    struct ebb_report_stats *stats = &report->stats;
    struct ebb_pass *pass = &report->pass;
    const uint64_t frames = batch_frames(pass);
    const bool succeeded = state == EBB__BATCH_DONE;

    EBB_ASSERT(state != EBB__BATCH_NONE && state != EBB__BATCH_IN_FLIGHT);
    EBB_DEBUG_ASSERT(__atomic_load_n(&report->running, __ATOMIC_RELAXED) != RUN_FREE &&
                     report->source_open);
    EBB_DEBUG_ASSERT(succeeded || (int)state < 0);
    give_back_blocks(report, succeeded);
    ebb_port_lock(&report->lock);
    if (succeeded) {
        stats->reported_blocks += pass->n_blocks;
        stats->reported_frames += frames;
    } else {
        stats->failed_batches++;
        stats->last_error = (int)state;
    }
    ebb_port_unlock(&report->lock);
    if (succeeded)
        ebb_pace_told(&report->pace, frames, ebb_port_now());
    pass->n_ranges = 0;
    pass->n_blocks = 0;
    set_batch(report, EBB__BATCH_NONE);
    return succeeded;
}

static uint64_t next_backoff(const struct ebb_report *report)
{
    uint64_t first = report->config.backoff_ms * EBB__NS_PER_MS;
    uint64_t limit = EBB_REPORT_BACKOFF_MAX_MS * EBB__NS_PER_MS;
    uint64_t next = report->backoff_ns > 0 ? report->backoff_ns * 2 : first;

    EBB_DEBUG_ASSERT(report->backoff_ns <= limit && next > 0);
    return next < limit ? next : limit;
}

/* Nothing more now. This source and the ones after it stay requested; the next pass begins
 * behind it, lest one bad block keep all others waiting. */
EBB_RARE static void back_off(struct ebb_report *report)
{
    (void)shut_source(report);
    ebb__set_requested(report->source, true);
    report->first = source_after(report, report->source);
    report->backoff_ns = next_backoff(report);
    another_pass(report);
    end_pass(report, report->backoff_ns);
}

/* Deal with the batch of before, if any. False: the pass cannot go on. */
EBB_RARE static bool finish_if_done(struct ebb_report *report)
{
    uint32_t state = ebb__get_batch(report);

    if (state == EBB__BATCH_NONE)
        return true;
    if (state == EBB__BATCH_IN_FLIGHT)
        return false;
    if (!ebb__finish_batch(report, state)) {
        back_off(report);
        return false;
    }
    report->backoff_ns = 0;
    return true;
}

/* ---- the runner ---- */

/* Become the runner. If somebody else is, it may have passed the point that this call is
 * about: tell it to see to another call. */
static bool enter_run(struct ebb_report *report)
{
    uint32_t seen = __atomic_load_n(&report->running, __ATOMIC_RELAXED);
    uint32_t next;

    do {
        next = seen == RUN_FREE ? RUN_TAKEN : RUN_WANTED;
    } while (!__atomic_compare_exchange_n(&report->running, &seen, next, true, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
    return seen == RUN_FREE;
}

EBB_RARE bool ebb__try_enter_run(struct ebb_report *report)
{
    uint32_t expected = RUN_FREE;

    return __atomic_compare_exchange_n(&report->running, &expected, RUN_TAKEN, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

EBB_RARE void ebb__leave_run(struct ebb_report *report)
{
    void (*wake)(void *worker) = report->wake;
    void *worker = report->config.worker;

    EBB_DEBUG_ASSERT(__atomic_load_n(&report->running, __ATOMIC_RELAXED) != RUN_FREE);
    /* The engine may be gone after this exchange. */
    if (__atomic_exchange_n(&report->running, RUN_FREE, __ATOMIC_ACQ_REL) == RUN_WANTED)
        wake(worker);
}

static bool may_go_on(struct ebb_report *report)
{
    bool attached;

    ebb_port_lock(&report->lock);
    attached = ebb__is_attached(report);
    ebb_port_unlock(&report->lock);
    return attached;
}

static void advance(struct ebb_report *report)
{
    if (!report->in_pass && !begin_pass(report))
        return;
    while (may_go_on(report) && finish_if_done(report) && fill(report))
        send(report);
}

EBB_RARE static uint64_t deadline(struct ebb_report *report)
{
    uint64_t due = EBB_NEVER;

    ebb_port_lock(&report->lock);
    EBB_DEBUG_ASSERT(report->device || ebb_report_phase(report) == EBB_REPORT_IDLE);
    /* A pass under way waits for its batch, and a completion wakes. */
    if (ebb__is_attached(report) && !report->in_pass &&
        ebb_report_phase(report) == EBB_REPORT_REQUESTED)
        due = report->due;
    ebb_port_unlock(&report->lock);
    return due;
}

EBB_RARE uint64_t ebb_report_run(struct ebb_report *report)
{
    uint64_t due;

    if (!enter_run(report))
        return deadline(report);
    advance(report);
    due = deadline(report);
    ebb__leave_run(report);
    return due;
}
