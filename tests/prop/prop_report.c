/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine and the allocator, interleaved: one thread on a port of its own
 * that, whenever the last lock is dropped, may do another operation as another
 * CPU would. Every window between two holds of a lock is thus open to every
 * operation, and a run is still a function of its seed. Beside it all a map says
 * who has each frame. Now and then everything comes to rest, and then nothing
 * that could be reported may be left.
 *
 *   EBB_SEED=seed    replays the run of that seed, alone
 *   EBB_PROP_RUNS=n  runs, each with a seed of its own
 */
#include "pcp.h"
#include "prop.h"

#include <ebb/history.h>
#include <ebb/range.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ZONES        2u
#define FRAMES_LIMIT 6000u
#define ZONE_STRIDE  0x100000u
#define SETTLE_LIMIT 10000u /* calls of the worker until it has to be at rest */
#define RELAX_LIMIT  1000u  /* rounds of a wait that nothing can end */
/* Operations beside one. Inline a free goes on while others give it more to do, and
 * here the others are driven by what it does. */
#define PATIENCE 1000u
/* The thread sanitizer slows it down by twenty, and there is one thread. */
#ifdef EBB_TEST_SLOW
#define DEFAULT_RUNS 400u
#else
#define DEFAULT_RUNS 3500u
#endif
#define STATUS_FAILED  (-5)
#define STATUS_REFUSED (-11)

/* ---- the world of a run ---- */

/* Who may touch a frame. The host may from submit to completion. */
enum owner { HOLE, NOBODY, CALLER, HOST };

struct frame {
    uint8_t owner;
    uint8_t told; /* the host was told, and nobody had it since */
};

struct site {
    struct ebb_zone zone;
    void *metadata;
    struct ebb_history_zone history_zone;
    void *history_memory;
    struct frame *frames; /* by index, holes included */
    uint64_t managed;
    uint64_t used; /* frames of CALLER */
};

struct held {
    struct site *site;
    ebb_pfn_t pfn;
    unsigned order;
};

enum completion { IN_SUBMIT, LATER, EITHER };

static struct {
    uint64_t seed;
    uint64_t random;

    /* The port. */
    unsigned locks_held;
    unsigned cpu;
    unsigned cpus;
    uint64_t now;
    bool woken;
    unsigned relaxes;   /* since the last completion */
    unsigned disturbed; /* percent of the unlocks that another CPU uses */
    bool beside;        /* that other CPU is at work */
    bool undisturbed;   /* it is kept out, whatever `disturbed` says */
    unsigned patience;  /* operations that it may still do beside this one */

    struct site sites[ZONES];
    unsigned nr_sites;
    struct held held[ZONES * FRAMES_LIMIT]; /* by callers */
    unsigned nr_held;

    /* The device. */
    struct ebb_report report;
    struct ebb_history history;
    struct ebb_report_device device;
    bool attached;
    enum completion completion;
    unsigned failing; /* percent */
    const struct ebb_range *batch;
    unsigned batch_ranges; /* 0: nothing is with the host */
} run;

/* Over all runs. */
static struct {
    uint64_t operations;
    uint64_t beside;
    uint64_t batches;
    uint64_t rests;
    uint64_t joined; /* ranges of several blocks */
} total;

static uint64_t below(uint64_t n)
{
    return prop_below(&run.random, n);
}

static bool one_in(unsigned n)
{
    return below(n) == 0;
}

static bool percent(unsigned n)
{
    return below(100) < n;
}

__attribute__((format(printf, 1, 2))) static _Noreturn void fail(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "prop_report: EBB_SEED=%" PRIu64 " replays: ", run.seed);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

#define CHECK(condition)                               \
    do {                                               \
        if (!(condition))                              \
            fail("line %d: %s", __LINE__, #condition); \
    } while (0)

/* ---- the port ---- */

static void operate(void);

/* What another CPU does between two holds of a lock here. */
static void operate_beside(void)
{
    unsigned cpu = run.cpu;

    run.beside = true;
    run.patience--;
    total.beside++;
    operate();
    run.beside = false;
    run.cpu = cpu;
}

void ebb_port_lock(struct ebb_lock *lock)
{
    CHECK(!lock->word);
    /* The engine's lock is held with no other. */
    CHECK(!run.report.lock.word);
    CHECK(lock != &run.report.lock || run.locks_held == 0);
    lock->word = 1;
    run.locks_held++;
}

void ebb_port_unlock(struct ebb_lock *lock)
{
    CHECK(lock->word);
    lock->word = 0;
    run.locks_held--;
    if (run.locks_held == 0 && !run.beside && !run.undisturbed && run.patience > 0 &&
        percent(run.disturbed))
        operate_beside();
}

unsigned ebb_port_cpu(void)
{
    return run.cpu;
}

uint64_t ebb_port_now(void)
{
    return run.now;
}

void ebb_port_wake(void *worker)
{
    CHECK(run.locks_held == 0);
    CHECK(worker == &run);
    run.woken = true;
}

void ebb_port_misuse(const struct ebb_misuse *misuse)
{
    CHECK(run.locks_held == 0);
    fail("misuse at pfn %#" PRIx64 " order %u: %s", misuse->pfn, misuse->order, misuse->what);
}

_Noreturn void ebb_port_panic(const char *why)
{
    fail("panic: %s", why);
}

/* ---- the map ---- */

static struct site *site_of(ebb_pfn_t pfn)
{
    for (unsigned i = 0; i < run.nr_sites; i++) {
        const struct ebb_zone *zone = &run.sites[i].zone;

        if (pfn >= zone->base && pfn - zone->base < zone->span)
            return &run.sites[i];
    }
    fail("pfn %#" PRIx64 " is of no zone", pfn);
}

static void pass_on(struct site *site, ebb_pfn_t pfn, uint64_t frames, enum owner from,
                    enum owner to)
{
    uint64_t index = pfn - site->zone.base;

    CHECK(pfn >= site->zone.base && index + frames <= site->zone.span);
    for (uint64_t i = index; i < index + frames; i++) {
        struct frame *frame = &site->frames[i];

        if (frame->owner != from)
            fail("pfn %#" PRIx64 " goes from %d to %d, but %d has it", site->zone.base + i,
                 (int)from, (int)to, (int)frame->owner);
        frame->owner = (uint8_t)to;
        if (to == CALLER)
            frame->told = 0;
    }
}

static void now_held(struct site *site, ebb_pfn_t pfn, unsigned order)
{
    CHECK((pfn & (((uint64_t)1 << order) - 1)) == 0);
    pass_on(site, pfn, (uint64_t)1 << order, NOBODY, CALLER);
    site->used += (uint64_t)1 << order;
    /* It has room: no two of these share a frame. */
    run.held[run.nr_held++] = (struct held){.site = site, .pfn = pfn, .order = order};
}

/* ---- the device ---- */

static bool is_paced(void)
{
    return !run.report.unpaced;
}

/* The engine's view of a range that comes or goes: one block in flight, or with surplus pacing
 * several, each whole, one right behind the other, within one pageblock. */
static void check_range(struct site *site, const struct ebb_range *range)
{
    uint64_t frames = range->len / EBB_FRAME_SIZE;
    ebb_pfn_t first = range->addr / EBB_FRAME_SIZE;
    unsigned wanted = run.device.min_order;
    ebb_pfn_t pfn = first;
    unsigned blocks = 0;

    CHECK(frames > 0 && range->len % EBB_FRAME_SIZE == 0 && range->addr % EBB_FRAME_SIZE == 0);
    for (; pfn < first + frames; blocks++) {
        uint16_t state = ebb__load_state(&site->zone, (uint32_t)(pfn - site->zone.base));

        CHECK(ebb__state_of(state) == EBB__IN_FLIGHT);
        CHECK(pfn % ((uint64_t)1 << ebb__order_of(state)) == 0);
        CHECK(wanted == 0 || ebb__order_of(state) >= wanted - EBB_REPORT_ORDER(0));
        pfn += (uint64_t)1 << ebb__order_of(state);
    }
    CHECK(pfn == first + frames);
    if (blocks == 1)
        return;
    total.joined++;
    CHECK(is_paced());
    CHECK(first >> site->zone.large_order == (pfn - 1) >> site->zone.large_order);
}

static void pass_batch(const struct ebb_range *ranges, unsigned n, enum owner from, enum owner to)
{
    struct site *site = site_of(ranges[0].addr >> EBB_FRAME_SHIFT);

    for (unsigned i = 0; i < n; i++) {
        check_range(site, &ranges[i]);
        pass_on(site, ranges[i].addr >> EBB_FRAME_SHIFT, ranges[i].len >> EBB_FRAME_SHIFT, from,
                to);
    }
}

static void tell_host(void)
{
    for (unsigned i = 0; i < run.batch_ranges; i++) {
        ebb_pfn_t pfn = run.batch[i].addr >> EBB_FRAME_SHIFT;
        struct site *site = site_of(pfn);
        uint64_t index = pfn - site->zone.base;

        for (uint64_t k = 0; k < run.batch[i].len >> EBB_FRAME_SHIFT; k++)
            site->frames[index + k].told = 1;
    }
}

/* Complete the batch that is with the host, if one is. */
static void complete(void)
{
    bool failed = percent(run.failing);

    if (run.batch_ranges == 0)
        return;
    if (!failed)
        tell_host();
    pass_batch(run.batch, run.batch_ranges, HOST, NOBODY);
    /* Before the engine hears of it, which may submit the next one. */
    run.batch_ranges = 0;
    run.relaxes = 0;
    ebb_report_complete(&run.report, failed ? STATUS_FAILED : 0);
}

static int submit(struct ebb_report_device *device, const struct ebb_range *ranges, unsigned n)
{
    CHECK(device == &run.device && run.attached);
    CHECK(run.locks_held == 0);
    CHECK(run.batch_ranges == 0);
    CHECK(n > 0 && n <= device->capacity && n <= run.report.config.capacity);
    total.batches++;
    if (percent(run.failing / 2))
        return STATUS_REFUSED;
    pass_batch(ranges, n, NOBODY, HOST);
    run.batch = ranges;
    run.batch_ranges = n;
    if (run.completion == IN_SUBMIT || (run.completion == EITHER && one_in(2)))
        complete();
    return 0;
}

static void poll_device(struct ebb_report_device *device)
{
    CHECK(device == &run.device);
    CHECK(run.locks_held == 0);
    if (one_in(3))
        complete();
}

/* Somebody waits: for the host, that is, since there is nobody else. */
void ebb_port_relax(void)
{
    CHECK(run.locks_held == 0);
    CHECK(++run.relaxes < RELAX_LIMIT);
    complete();
}

/* ---- operations ---- */

static unsigned some_order(const struct ebb_zone *zone)
{
    return (unsigned)below(zone->max_order + 1u);
}

static void check_failure(const struct ebb_zone *zone, int err)
{
    CHECK(err == -EBB_ENOMEM || err == -EBB_EAGAIN);
    /* With another CPU at work the batch may be back by now. */
    CHECK(err == -EBB_ENOMEM || run.disturbed > 0 || zone->in_flight > 0);
}

static void do_alloc(struct site *site)
{
    unsigned order = one_in(3) ? some_order(&site->zone) : 0;
    unsigned flags = one_in(4) ? EBB_ALLOC_NO_CACHE : 0u;

    if (one_in(8))
        flags |= EBB_ALLOC_RESERVE;
    else if (one_in(8))
        flags |= EBB_ALLOC_LOW;
    for (uint64_t n = 1 + below(20); n > 0; n--) {
        ebb_pfn_t pfn;
        int err = ebb_alloc(&site->zone, order, (enum ebb_migratetype)below(3), flags, &pfn);

        if (err) {
            check_failure(&site->zone, err);
            return;
        }
        now_held(site, pfn, order);
    }
}

static void do_alloc_at(struct site *site)
{
    unsigned order = some_order(&site->zone);
    uint64_t index = below(site->zone.span) & ~(((uint64_t)1 << order) - 1);
    unsigned flags = one_in(2) ? EBB_ALLOC_RESERVE : 0u;
    int err = ebb_alloc_at(&site->zone, site->zone.base + index, order, flags);

    if (!err)
        now_held(site, site->zone.base + index, order);
    else
        CHECK(err != -EBB_EINVAL || index + ((uint64_t)1 << order) > site->zone.span);
}

static void free_one(unsigned place)
{
    struct held held = run.held[place];

    /* Ours no more from before the call: another CPU may get it during it. */
    run.held[place] = run.held[--run.nr_held];
    pass_on(held.site, held.pfn, (uint64_t)1 << held.order, CALLER, NOBODY);
    held.site->used -= (uint64_t)1 << held.order;
    CHECK(ebb_free(&held.site->zone, held.pfn, held.order) == 0);
}

/* Some of what is held, whichever zone it is of; now and then all of it. */
static void do_free(struct site *site)
{
    uint64_t n = one_in(30) ? run.nr_held : 1 + below(40);

    (void)site;
    for (; n > 0 && run.nr_held > 0; n--)
        free_one((unsigned)below(run.nr_held));
}

static uint64_t nr_pageblocks(const struct ebb_zone *zone)
{
    uint64_t frames = (uint64_t)1 << zone->pageblock_order;

    return (zone->span + frames - 1) / frames;
}

static void do_isolate(struct site *site)
{
    struct ebb_zone *zone = &site->zone;
    uint64_t pageblocks = nr_pageblocks(zone);
    uint64_t first = below(pageblocks);
    uint64_t left = pageblocks - first;
    uint64_t n = 1 + below(left < 8 ? left : 8);
    int err = ebb_isolate_range(zone, zone->base + (first << zone->pageblock_order),
                                n << zone->pageblock_order);

    CHECK(err == 0 || err == -EBB_EBUSY);
}

/* The first isolated pageblocks after a random one, or a part of them. */
static void do_putback(struct site *site)
{
    struct ebb_zone *zone = &site->zone;
    uint64_t pageblocks = nr_pageblocks(zone);
    uint64_t first = below(pageblocks);
    uint64_t n = 1;

    while (first < pageblocks && zone->types[first] != EBB_ISOLATE)
        first++;
    if (first == pageblocks)
        return;
    while (first + n < pageblocks && zone->types[first + n] == EBB_ISOLATE && !one_in(4))
        n++;
    CHECK(ebb_putback_range(zone, zone->base + (first << zone->pageblock_order),
                            n << zone->pageblock_order, (enum ebb_migratetype)below(3)) == 0);
}

static void do_drain(struct site *site)
{
    if (one_in(2))
        ebb_zone_drain(&site->zone);
    else
        ebb_zone_drain_idle(&site->zone);
}

static void do_complete(struct site *site)
{
    (void)site;
    complete();
}

static void do_report_now(struct site *site)
{
    (void)site;
    ebb_report_now(&run.report);
}

static void do_report_run(struct site *site)
{
    (void)site;
    ebb_report_run(&run.report);
}

static const struct {
    unsigned share; /* in 1/96 */
    void (*what)(struct site *site);
} operations[] = {
    {24, do_alloc}, {30, do_free},     {6, do_alloc_at},   {6, do_isolate},    {7, do_putback},
    {2, do_drain},  {13, do_complete}, {1, do_report_now}, {7, do_report_run},
};

static void operate(void)
{
    struct site *site = &run.sites[below(run.nr_sites)];
    uint64_t dice = below(96);
    unsigned i = 0;

    total.operations++;
    /* One more than there are: the port's number may be any. */
    run.cpu = (unsigned)below(run.cpus + 1u);
    while (dice >= operations[i].share)
        dice -= operations[i++].share;
    operations[i].what(site);
}

/* ---- checks at any time ---- */

static bool may_be(const struct ebb_block *block, const struct frame *frame)
{
    switch (block->state) {
    case EBB_BLOCK_NONE:
        return frame->owner == HOLE;
    case EBB_BLOCK_FREE:
        return frame->owner == NOBODY && (frame->told || !block->reported);
    case EBB_BLOCK_CACHED:
        return frame->owner == NOBODY;
    case EBB_BLOCK_ALLOCATED:
        return frame->owner == CALLER;
    default:
        /* The engine may still have to hear of, or put back, what the host has done. */
        return frame->owner == HOST || frame->owner == NOBODY;
    }
}

static void compare_frames(struct site *site)
{
    uint64_t at = 0;

    while (at < site->zone.span) {
        struct ebb_block block;
        uint64_t end = at + 1;

        ebb_zone_lookup(&site->zone, site->zone.base + at, &block);
        if (block.state != EBB_BLOCK_NONE)
            end = at + ((uint64_t)1 << block.order);
        for (; at < end; at++) {
            if (!may_be(&block, &site->frames[at]))
                fail("pfn %#" PRIx64 ": state %d, reported %d; owner %d, told %d",
                     site->zone.base + at, (int)block.state, (int)block.reported,
                     (int)site->frames[at].owner, (int)site->frames[at].told);
        }
    }
}

static void check_site(struct site *site)
{
    struct ebb_violation violation;
    struct ebb_zone_stats stats;

    if (ebb_zone_check(&site->zone, EBB_CHECK_FRAMES, &violation))
        fail("I%u at pfn %#" PRIx64 ": %s", violation.invariant, violation.pfn, violation.what);
    ebb_zone_stats(&site->zone, &stats);
    CHECK(stats.managed == site->managed);
    CHECK(stats.allocated == site->used);
    CHECK(stats.misuses == 0);
    compare_frames(site);
}

static void check(void)
{
    run.undisturbed = true;
    for (unsigned i = 0; i < run.nr_sites; i++)
        check_site(&run.sites[i]);
    run.undisturbed = false;
}

/* ---- checks at rest ---- */

/* Let the worker and the host do what they have to until neither wants more. */
static void settle(void)
{
    unsigned failing = run.failing;
    uint64_t due = 0;

    run.undisturbed = true;
    run.failing = 0;
    for (unsigned calls = 0; due != EBB_NEVER || run.woken || run.batch_ranges > 0; calls++) {
        if (calls == SETTLE_LIMIT)
            fail("the worker never comes to rest");
        if (!run.woken && due != EBB_NEVER && due > run.now)
            run.now = due;
        run.woken = false;
        due = ebb_report_run(&run.report);
        complete();
    }
    run.failing = failing;
    run.undisturbed = false;
}

static bool reports(const struct ebb_zone *zone)
{
    return zone->report_min_order <= zone->max_order;
}

static uint64_t unreported(const struct ebb_zone *zone, unsigned order)
{
    uint64_t blocks = 0;

    for (unsigned type = 0; type < EBB_ISOLATE; type++)
        blocks += ebb__unreported(&zone->lists[order][type]);
    return blocks;
}

/* What is left unreported at rest does not fit above the watermark, and the zone
 * has a gate that will say when it does. */
static void check_left(const struct ebb_zone *zone, bool fitting)
{
    uint64_t available = zone->free - zone->isolated;

    CHECK(zone->report_gated || !ebb__lazy_may_be(zone));
    for (unsigned order = zone->report_min_order; order <= zone->max_order; order++) {
        if (unreported(zone, order) == 0)
            continue;
        CHECK(zone->report_gated);
        if (fitting && available >= zone->watermark_low + ((uint64_t)1 << order))
            fail("zone at pfn %#" PRIx64 ": unreported blocks of order %u are left", zone->base,
                 order);
    }
}

/* Some of what is unreported waits for a free that asks: inline what a failure left,
 * and what is in a cache; what an allocation made so, by splitting a block or by
 * stealing its pageblock, where policy clears marks then. */
static bool is_lazy(void)
{
    const struct ebb_history_config *config = &run.history.config;

    return config->execution == EBB_EXECUTION_INLINE || config->split == EBB_SPLIT_CLEAR ||
           config->move == EBB_MOVE_DEMOTE;
}

static void check_zone_at_rest(const struct ebb_zone *zone, bool fitting)
{
    uint64_t cached = 0;

    CHECK(zone->in_flight == 0);
    CHECK(!zone->source.active || !zone->source.requested);
    /* With a threshold a pass comes for enough blocks, not for each one. */
    if (!reports(zone) || zone->report_threshold > 1 || is_lazy())
        return;
    for (unsigned cpu = 0; cpu < zone->cpus; cpu++)
        cached += ebb__pcp_held(zone, &zone->pcps[cpu]);
    CHECK(cached == 0);
    check_left(zone, fitting);
}

static void check_rest(bool fitting)
{
    CHECK(run.batch_ranges == 0);
    CHECK(ebb_report_phase(&run.report) == EBB_REPORT_IDLE);
    for (unsigned i = 0; run.attached && i < run.nr_sites; i++)
        check_zone_at_rest(&run.sites[i].zone, fitting);
}

/* An allocation that splits a block which was too large for the watermark can
 * leave parts that fit. It does not ask for a pass; the next free behind the gate
 * does, so make one, past the caches both ways. */
static void nudge_gated(void)
{
    unsigned flags = EBB_ALLOC_NO_CACHE | EBB_ALLOC_RESERVE;

    run.undisturbed = true;
    for (unsigned i = 0; i < run.nr_sites; i++) {
        struct ebb_zone *zone = &run.sites[i].zone;
        ebb_pfn_t pfn;

        if (!zone->report_gated || ebb_alloc(zone, 0, EBB_MOVABLE, flags, &pfn))
            continue;
        now_held(&run.sites[i], pfn, 0);
        free_one(run.nr_held - 1);
        ebb_zone_drain(zone);
    }
    run.undisturbed = false;
}

/* Where somebody has to ask: then, too, nothing that could be reported is left. */
static void ask(void)
{
    run.undisturbed = true;
    for (unsigned n = 0; n < 3 && run.attached; n++) {
        unsigned failing = run.failing;

        run.failing = 0;
        for (unsigned i = 0; i < run.nr_sites; i++)
            ebb_zone_drain(&run.sites[i].zone);
        ebb_report_now(&run.report);
        settle();
        run.undisturbed = true;
        run.failing = failing;
    }
    for (unsigned i = 0; i < run.nr_sites && run.attached; i++) {
        const struct ebb_zone *zone = &run.sites[i].zone;

        if (reports(zone) && zone->report_threshold == 1)
            check_left(zone, true);
    }
    run.undisturbed = false;
}

static void come_to_rest(void)
{
    total.rests++;
    settle();
    if (is_lazy())
        ask();
    check_rest(false);
    nudge_gated();
    settle();
    check_rest(true);
    check();
}

/* ---- a run ---- */

static struct ebb_zone_config some_zone_config(unsigned place)
{
    struct ebb_zone_config config = {.base = (uint64_t)place * ZONE_STRIDE,
                                     .cpus = (uint16_t)run.cpus};

    /* One by one: in an initializer the order of the random numbers would be the
     * compiler's, and a seed would mean another run with each. */
    config.frames = 1 + below(one_in(2) ? FRAMES_LIMIT : 300);
    config.max_order = (uint8_t)(1 + below(11));
    if (one_in(3))
        config.base += below(5000);
    config.pageblock_order = (uint8_t)(1 + below(config.max_order));
    if (one_in(3)) { /* so that frames are lazy */
        config.max_order = (uint8_t)(6 + below(5));
        config.pageblock_order = (uint8_t)(6 + below(config.max_order - 5u));
    }
    config.pcp_high = (uint16_t)(1 + below(one_in(2) ? 64 : 8));
    config.pcp_batch = (uint16_t)(1 + below(config.pcp_high));
    if (one_in(2))
        config.pcp_blocks = (uint8_t)(1 + below(EBB_PCP_BLOCKS));
    if (one_in(2)) {
        config.watermark_min = below(config.frames / 2 + 1);
        config.watermark_low = config.watermark_min + below(100);
    }
    return config;
}

static void add_frames(struct site *site, ebb_pfn_t pfn, uint64_t frames)
{
    CHECK(ebb_zone_add(&site->zone, pfn, frames) == 0);
    pass_on(site, pfn, frames, HOLE, NOBODY);
    site->managed += frames;
}

static void open_site(struct site *site, const struct ebb_zone_config *config)
{
    size_t size = (ebb_zone_metadata_size(config) + 63) & ~(size_t)63;

    memset(site, 0, sizeof(*site));
    CHECK(size > 0);
    site->metadata = aligned_alloc(64, size);
    CHECK(site->metadata);
    memset(site->metadata, 0, size);
    CHECK(ebb_zone_init(&site->zone, config, site->metadata) == 0);
    site->frames = calloc(site->zone.span, sizeof(site->frames[0]));
    CHECK(site->frames);

    /* Pieces, a quarter of them holes. */
    for (uint64_t at = 0, n; at < config->frames; at += n) {
        n = 1 + below(config->frames - at);
        if (!one_in(4))
            add_frames(site, config->base + at, n);
    }
    size = ebb_history_metadata_size(&run.history, &site->zone);
    site->history_memory = calloc(1, size + 1);
    CHECK(site->history_memory);
    CHECK(ebb_history_add_zone(&run.history, &site->history_zone, &site->zone,
                               site->history_memory) == 0);
}

static void surplus_policies(struct ebb_report_config *config)
{
    if (one_in(2))
        config->window_min_ms = (uint32_t)(1 + below(200));
    if (one_in(2))
        config->window_max_ms =
            (config->window_min_ms ? config->window_min_ms : EBB_REPORT_WINDOW_MIN_MS) +
            (uint32_t)below(500);
    if (one_in(2))
        config->refault_ns = (uint32_t)(1 + below(2000));
    config->backoff_ms = (uint32_t)(1 + below(50));
}

/* Any that go together. */
static void delay_policies(struct ebb_settings *settings)
{
    struct ebb_history_config *config = &settings->history;
    bool dividers;

    config->pacing = EBB_PACING_DELAY;
    config->threshold = one_in(4) ? (uint32_t)below(6) : 0;
    if (one_in(16))
        config->threshold = EBB_REPORT_TWICE_CAPACITY;
    config->tracker = (uint8_t)below(EBB_TRACKERS);
    config->split = (uint8_t)below(EBB_SPLIT_CLEAR + 1u);
    config->merge = (uint8_t)below(EBB_MERGE_NEVER + 1u);
    dividers = config->tracker == EBB_TRACKER_MEMBRANE || config->tracker == EBB_TRACKER_BOUNDARY ||
               config->tracker == EBB_TRACKER_SORTED;
    config->move = (uint8_t)below(dividers ? EBB_MOVE_FOLLOW + 1u : EBB_MOVE_DEMOTE + 1u);
    if (config->tracker != EBB_TRACKER_BITMAP)
        config->direction = (uint8_t)below(EBB_DIRECTION_DESCENDING + 1u);
    config->execution = (uint8_t)below(EBB_EXECUTION_INLINE + 1u);
    if (config->execution == EBB_EXECUTION_INLINE)
        return;
    config->delay_ms = one_in(2) ? 0 : (uint32_t)(1 + below(100));
    config->budget = one_in(2) ? 0 : (uint32_t)(1 + below(16));
    settings->report.backoff_ms = (uint32_t)(1 + below(50));
}

static void open_engine(void)
{
    static const struct ebb_report_device_ops ops = {.submit = submit, .poll = poll_device};
    struct ebb_settings settings = {.report.worker = &run};

    settings.report.capacity = (uint32_t)(1 + below(8));
    if (one_in(2))
        surplus_policies(&settings.report);
    else
        delay_policies(&settings);
    CHECK(!ebb_history_problem(&settings));
    CHECK(ebb_history_init(&run.history, &run.report, &settings) == 0);
    run.device.ops = &ops;
    run.device.capacity = (unsigned)(1 + below(10));
    run.device.min_order = one_in(5) ? 0 : EBB_REPORT_ORDER(below(5));
    run.completion = (enum completion)below(3);
    run.failing = one_in(3) ? (unsigned)below(30) : 0;
}

static void open_run(uint64_t seed)
{
    memset(&run, 0, sizeof(run));
    run.seed = seed;
    run.random = seed;
    run.undisturbed = true;
    run.now = 1000;
    run.cpus = (unsigned)(1 + below(4));
    run.nr_sites = (unsigned)(1 + below(ZONES));
    open_engine();
    for (unsigned i = 0; i < run.nr_sites; i++) {
        struct ebb_zone_config config = some_zone_config(i);

        open_site(&run.sites[i], &config);
    }
    run.undisturbed = false;
}

static void attach(void)
{
    run.attached = true;
    CHECK(ebb_report_register(&run.report, &run.device) == 0);
}

static void detach(void)
{
    CHECK(ebb_report_unregister(&run.report) == 0);
    run.attached = false;
    CHECK(run.batch_ranges == 0);
    for (unsigned i = 0; i < run.nr_sites; i++)
        CHECK(run.sites[i].zone.in_flight == 0);
}

/* Operations, with the worker called about as often as a port would. */
static void operate_for_a_while(void)
{
    for (uint64_t n = below(20); n > 0; n--) {
        run.patience = PATIENCE;
        operate();
        if (one_in(3))
            run.now += below(100000000);
        if (run.woken || one_in(4)) {
            run.woken = false;
            run.patience = PATIENCE;
            ebb_report_run(&run.report);
        }
    }
}

static void one_round(void)
{
    run.disturbed = one_in(3) ? 0 : (unsigned)below(60);
    run.patience = PATIENCE;
    if (!run.attached && one_in(4))
        attach();
    else if (run.attached && one_in(25))
        detach();
    operate_for_a_while();
    if (one_in(4))
        check();
    if (one_in(4))
        come_to_rest();
}

static void close_run(void)
{
    run.undisturbed = true;
    if (run.attached)
        detach();
    while (run.nr_held > 0)
        free_one(run.nr_held - 1);
    check();
    CHECK(run.locks_held == 0);
    for (unsigned i = 0; i < run.nr_sites; i++) {
        CHECK(run.sites[i].used == 0);
        free(run.sites[i].metadata);
        free(run.sites[i].history_memory);
        free(run.sites[i].frames);
    }
}

static void run_seed(uint64_t seed)
{
    open_run(seed);
    for (uint64_t rounds = 30 + below(100); rounds > 0; rounds--)
        one_round();
    come_to_rest();
    close_run();
}

/* ---- the program ---- */

/* A number from the environment; false if it is not set. Ends the program if it is no number. */
static bool setting(const char *name, uint64_t *value)
{
    const char *text = getenv(name);
    char *end;

    if (!text)
        return false;
    *value = strtoull(text, &end, 10);
    if (end == text || *end != '\0') {
        fprintf(stderr, "prop_report: %s is not a number\n", name);
        exit(2);
    }
    return true;
}

int main(void)
{
    uint64_t first = 1;
    uint64_t runs = DEFAULT_RUNS;

    if (setting("EBB_SEED", &first))
        runs = 1;
    else
        setting("EBB_PROP_RUNS", &runs);
    for (uint64_t i = 0; i < runs; i++)
        run_seed(first + i);
    printf("%" PRIu64 " runs from seed %" PRIu64 ": %" PRIu64 " operations, %" PRIu64
           " of them beside another; %" PRIu64 " batches; %" PRIu64
           " ranges of several blocks; %" PRIu64 " times at rest\n",
           runs, first, total.operations, total.beside, total.batches, total.joined, total.rests);
    return 0;
}
