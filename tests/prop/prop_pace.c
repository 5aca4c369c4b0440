/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pace beside a plain model: one to four sources of which frames are taken, freed, isolated,
 * told of, withdrawn and unmarked at random times. The model remembers all that there was:
 * how many frames were unreported at any time, and each batch that the host was told of. It
 * does not decide anything; it says what pace must not do.
 *
 *   EBB_SEED=seed    replays the run of that seed, alone
 *   EBB_PROP_RUNS=n  runs, each with a seed of its own
 */
#include "prop.h"

#include <ebb/pace.h>

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define SOURCES       4u
#define STEPS         500u /* of a run */
#define HISTORY       (4 * STEPS)
#define BATCHES       (2 * STEPS)
#define NS_PER_S      ((uint64_t)1000000000)
#define CREDIT        NS_PER_S
#define DEBT          (120 * NS_PER_S)
#define REST_WINDOWS  4u
#define CALM_WINDOWS  2u
#define SHIFT         16u /* of ns, in frames x time */
#define REFAULT_SHARE 100u
#define REST_LOOKS    16u /* without anything used, after which all is reported */
/* The thread sanitizer slows it down, and there is one thread. */
#ifdef EBB_TEST_SLOW
#define DEFAULT_RUNS 4000u
#else
#define DEFAULT_RUNS 40000u
#endif

__extension__ typedef unsigned __int128 uint128;

/* From that time on, so many frames were unreported. Less those that were isolated or withdrawn
 * later: nobody needed these. */
struct moment {
    uint64_t at, frames;
};

struct site {
    struct ebb_pace_source source;
    uint64_t used, unreported, reported;
    uint64_t in_flight; /* isolated, and the host not told yet */
    uint64_t away;      /* withdrawn */
    uint64_t refaulted;
    uint64_t low, withdrawn; /* since the last look */
    struct moment moments[HISTORY];
    unsigned nr_moments;
    unsigned nr_seen; /* of these, before the last look */
};

/* Frames that the host was told of at once, less what is reported no longer. */
struct batch {
    uint64_t at, frames;
    uint64_t window; /* the shortest while it may have been put together with others */
};

static struct {
    uint64_t seed, random;
    uint64_t now;
    struct ebb_pace pace;
    struct ebb_pace_config config;
    struct site sites[SOURCES];
    unsigned nr_sites;
    struct batch batches[BATCHES];
    unsigned nr_batches;
    uint64_t unattributed;
    /* What there has to be, in ns. */
    uint64_t credit, debt;
    uint128 saved, missed;
    uint64_t calm;
    uint64_t grew; /* when the window became longer last */
} run;

/* Over all runs. */
static struct {
    uint64_t looks, grown, halved, rests, surplus, soon, judged;
} total;

static uint64_t below(uint64_t n)
{
    return prop_below(&run.random, n);
}

static bool one_in(unsigned n)
{
    return below(n) == 0;
}

/* A number of any size up to n, small ones as likely as large ones. */
static uint64_t upto(uint64_t n)
{
    uint64_t value = n >> below(64);

    return value == 0 ? below(n < 4 ? n + 1 : 4) : value - below(value / 2 + 1);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

__attribute__((format(printf, 1, 2))) static _Noreturn void fail(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "prop_pace: EBB_SEED=%" PRIu64 " replays: ", run.seed);
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

/* ---- what there was ---- */

/* The number of unreported frames is another from now on. */
static void remember(struct site *site)
{
    CHECK(site->nr_moments < HISTORY);
    site->moments[site->nr_moments++] = (struct moment){run.now, site->unreported};
    site->low = least(site->low, site->unreported);
}

/* So many leave that nobody needed: they count as absent all along. */
static void leave(struct site *site, uint64_t frames)
{
    site->unreported -= frames;
    site->low = less(site->low, frames);
    for (unsigned i = 0; i < site->nr_moments; i++)
        site->moments[i].frames = less(site->moments[i].frames, frames);
}

/* The least number from then until the last look. */
static uint64_t least_since(const struct site *site, uint64_t then)
{
    uint64_t frames = UINT64_MAX;

    for (unsigned i = site->nr_seen; i > 0; i--) {
        const struct moment *moment = &site->moments[i - 1];

        frames = least(frames, moment->frames);
        if (moment->at <= then) /* it was so when the window began */
            break;
    }
    return frames;
}

/* How many of so many frames that were told of last had been free for less than the longest window?
 * Pace knows them by groups that span a 16th of that: the most that it may find. */
static uint64_t soon_at_most(uint64_t frames)
{
    uint64_t group = run.config.window_max / EBB_PACE_TOLD;
    uint64_t soon = 0;

    for (unsigned i = run.nr_batches; i > 0 && soon < frames; i--) {
        const struct batch *batch = &run.batches[i - 1];
        uint64_t free_for = batch->window + batch->window / EBB_PACE_SLOTS + run.now - batch->at;

        if (free_for <= run.config.window_max + group)
            soon += batch->frames;
    }
    return least(soon, frames);
}

/* Those that were told of last are reported no longer. */
static void forget_batches(uint64_t frames)
{
    while (frames > 0) {
        struct batch *batch = &run.batches[run.nr_batches - 1];
        uint64_t taken = least(frames, batch->frames);

        CHECK(run.nr_batches > 0);
        batch->frames -= taken;
        frames -= taken;
        run.nr_batches -= batch->frames == 0;
    }
}

static uint64_t remembered(const struct ebb_pace *pace)
{
    uint64_t frames = 0;

    for (unsigned i = 0; i < EBB_PACE_TOLD; i++)
        frames += pace->told[i].frames;
    return frames;
}

/* ---- what happens ---- */

static struct site *any_site(void)
{
    return &run.sites[below(run.nr_sites)];
}

static uint64_t all_reported(void)
{
    uint64_t frames = 0;

    for (unsigned i = 0; i < run.nr_sites; i++)
        frames += run.sites[i].reported;
    return frames;
}

/* Unreported frames first, then reported ones. */
static void do_take(void)
{
    struct site *site = any_site();
    uint64_t frames = one_in(3) ? upto(site->unreported) : upto(site->unreported + site->reported);
    uint64_t refaulted = less(frames, site->unreported);

    site->unreported -= frames - refaulted;
    site->reported -= refaulted;
    site->refaulted += refaulted;
    site->used += frames;
    remember(site);
}

static void do_free(void)
{
    struct site *site = any_site();
    uint64_t frames = one_in(3) ? site->used : upto(site->used);

    site->used -= frames;
    site->unreported += frames;
    remember(site);
}

/* A mark is lost, in a merge with an unreported block. */
static void do_unmark(void)
{
    struct site *site = any_site();
    uint64_t frames = upto(site->reported);

    site->reported -= frames;
    site->unreported += frames;
    remember(site);
}

/* Taken out by somebody who does not need it, as when it is to be unplugged; or it comes back. */
static void do_withdraw(void)
{
    struct site *site = any_site();
    uint64_t frames;

    if (one_in(2)) {
        frames = upto(site->away);
        site->away -= frames;
        site->unreported += frames;
    } else {
        frames = upto(site->unreported);
        leave(site, frames);
        site->away += frames;
        site->withdrawn += frames;
    }
    remember(site);
}

static void check_quota(const struct site *site)
{
    uint64_t quota = ebb_pace_quota(&run.pace, &site->source);
    uint64_t window = EBB_PACE_SLOTS * ebb_pace_slot(&run.pace);

    if (quota == 0)
        return;
    CHECK(run.pace.looked >= window);
    /* Of what was withdrawn since the last look it does not know yet. */
    CHECK(less(quota, site->withdrawn) <= least_since(site, run.pace.looked - window));
    total.surplus++;
}

/* A pass over a source: isolate what is surplus, or all of it. */
static void isolate(struct site *site, bool all)
{
    uint64_t quota = all ? UINT64_MAX : ebb_pace_quota(&run.pace, &site->source);
    uint64_t frames = least(site->unreported, quota);

    if (one_in(8))
        frames = upto(frames); /* the rest fits no block */
    leave(site, frames);
    site->in_flight += frames;
    ebb_pace_isolated(&run.pace, &site->source, frames);
    remember(site);
    check_quota(site);
}

static void do_flush(void)
{
    isolate(any_site(), true);
}

static void tell(struct site *site)
{
    uint64_t frames = site->in_flight;
    uint64_t skipped = least(frames, run.unattributed);

    if (frames == 0)
        return;
    site->in_flight = 0;
    if (one_in(10)) { /* it failed */
        site->unreported += frames;
        remember(site);
        return;
    }
    site->reported += frames;
    ebb_pace_told(&run.pace, frames, run.now);
    run.unattributed -= skipped;
    CHECK(run.nr_batches < BATCHES);
    if (frames > skipped)
        run.batches[run.nr_batches++] = (struct batch){run.now, frames - skipped, run.pace.window};
}

static void do_tell(void)
{
    tell(any_site());
}

/* ---- looking ---- */

/* The window may have become shorter; pace's latest group goes by the last batch in it. */
static void note_window(void)
{
    for (unsigned i = run.nr_batches; i > 0; i--) {
        struct batch *batch = &run.batches[i - 1];

        if (run.now - batch->at > run.config.window_max / EBB_PACE_TOLD)
            break;
        batch->window = least(batch->window, run.pace.window);
    }
}

static void check_bounds(void)
{
    const struct ebb_pace *pace = &run.pace;
    uint64_t frames = (uint64_t)1 << 40;

    CHECK(pace->window >= run.config.window_min);
    CHECK(pace->window <= run.config.window_max);
    CHECK(pace->credit <= CREDIT);
    CHECK(pace->debt <= DEBT);
    CHECK(pace->unattributed == run.unattributed);
    CHECK(pace->reported == all_reported());
    for (unsigned i = 0; i < EBB_PACE_TOLD; i++) {
        CHECK(pace->told[i].frames <= 2 * frames);
        CHECK(pace->told[i].first <= pace->told[i].mean || pace->told[i].frames == 0);
        CHECK(pace->told[i].mean <= run.now);
    }
    for (unsigned i = 0; i < run.nr_sites; i++) {
        const struct site *site = &run.sites[i];

        for (unsigned slot = 0; slot < EBB_PACE_SLOTS; slot++)
            CHECK(site->source.lows[slot] < frames);
        CHECK(site->source.half <= site->unreported || site->source.half <= site->source.lows[0]);
        check_quota(site);
    }
}

/* Refaults and lost marks are taken for the latest that was told of, as far as that is known. */
static void check_attribution(const struct ebb_pace *before, uint64_t refaulted)
{
    uint64_t unmarked = less(before->reported, all_reported() + refaulted);
    uint64_t soon = run.pace.refaulted_soon - before->refaulted_soon;
    uint64_t taken = remembered(before) - remembered(&run.pace);

    CHECK(soon <= soon_at_most(refaulted));
    CHECK(taken >= soon);
    CHECK(taken <= soon + unmarked);
    forget_batches(taken);
}

/* Is it right that the window became shorter, or stayed? */
static void check_halving(const struct ebb_pace *before, uint64_t elapsed, bool rest)
{
    bool paid = run.debt <= CREDIT;
    uint64_t slot = ebb_pace_slot(before);
    uint128 cost;

    if (rest) {
        run.saved = run.missed = run.calm = 0;
        return;
    }
    elapsed = least(elapsed, 2 * slot);
    run.missed += before->slot_missed;
    run.saved += (uint128)before->slot_saved * (elapsed >> SHIFT);
    run.calm += before->slot_saved > 0 ? elapsed : 0;
    cost = run.missed * (run.config.window_max >> SHIFT);
    if (before->window == run.config.window_min || run.calm < CALM_WINDOWS * before->window) {
        CHECK(run.pace.shrunk == before->shrunk);
        return;
    }
    total.judged++;
    /* Where neither fits into 64 bits, either answer is right. */
    if ((cost | run.saved) >> 64 == 0 || cost >> 64 == 0)
        CHECK((run.pace.shrunk > before->shrunk) == (paid && cost <= run.saved));
    if (run.pace.shrunk > before->shrunk)
        CHECK(paid);
    run.saved = run.missed = run.calm = 0;
}

/* Every growth has refaults behind it that were free for less than the longest window and
 * cost more than what is tolerable. Those always make the window longer, unless it has become so
 * since the host was told of them. */
static void check_growth(const struct ebb_pace *before, bool rest)
{
    uint64_t price = (uint64_t)run.config.refault_ns * REFAULT_SHARE;
    uint64_t soon = run.pace.refaulted_soon - before->refaulted_soon;
    uint128 cost = (uint128)soon * price;
    bool by_rest = rest && run.config.window_start > before->window;
    uint64_t grown = run.pace.grown - before->grown - by_rest;

    CHECK(grown <= 1);
    if (run.pace.grown > before->grown)
        run.grew = run.now;
    run.missed += soon;
    if (cost <= run.credit) {
        CHECK(grown == 0);
        run.credit -= (uint64_t)cost;
    } else {
        /* A quarter of a few ns may be nothing. */
        CHECK(grown == 1 || before->window < 16 || run.now - run.grew <= run.config.window_max);
        run.credit = CREDIT;
    }
    if (grown)
        run.saved = run.missed = run.calm = 0;
    run.debt = cost + run.debt > DEBT ? DEBT : run.debt + (uint64_t)cost;
    CHECK(run.pace.credit == run.credit);
    CHECK(run.pace.debt == run.debt);
    total.grown += grown;
    total.soon += soon > 0;
}

/* A look, if one is due. */
static bool look(void)
{
    uint64_t elapsed = run.now - run.pace.looked;
    bool due = elapsed >= ebb_pace_slot(&run.pace);
    uint64_t refaulted = 0;
    uint64_t unused = 0;
    struct ebb_pace before;
    bool rest;

    CHECK(ebb_pace_look(&run.pace, run.now) == due);
    if (!due)
        return false;
    total.looks++;
    for (unsigned i = 0; i < run.nr_sites; i++) {
        struct site *site = &run.sites[i];

        refaulted += site->refaulted - site->source.refaulted;
        ebb_pace_end_slot(&run.pace, &site->source, site->low, site->withdrawn, site->reported,
                          site->refaulted);
        unused += site->low;
        site->low = site->unreported;
        site->withdrawn = 0;
        remember(site);
        site->nr_seen = site->nr_moments;
    }
    CHECK(run.pace.slot_refaulted == refaulted);
    run.credit = least(run.credit + least(elapsed, CREDIT), CREDIT);
    run.debt = less(run.debt, elapsed);
    rest = elapsed > REST_WINDOWS * run.config.window_max &&
           run.pace.window != run.config.window_start && run.debt <= CREDIT;
    before = run.pace;
    ebb_pace_judge(&run.pace, run.now, unused);
    run.unattributed = least(run.unattributed, unused);
    total.rests += rest;
    CHECK(!rest || run.pace.window >= run.config.window_start);
    check_attribution(&before, refaulted);
    check_halving(&before, elapsed, rest);
    check_growth(&before, rest);
    total.halved += !rest && run.pace.shrunk > before.shrunk;
    note_window();
    check_bounds();
    return true;
}

static void do_pass(void)
{
    if (!look() && one_in(2))
        return;
    for (unsigned i = 0; i < run.nr_sites; i++) {
        isolate(&run.sites[i], false);
        if (!one_in(4))
            tell(&run.sites[i]);
    }
}

static void do_start(void)
{
    uint64_t window = run.pace.window;

    ebb_pace_start(&run.pace, run.now);
    run.unattributed = 0;
    run.nr_batches = 0;
    run.credit = CREDIT;
    run.debt = 0;
    for (unsigned i = 0; i < run.nr_sites; i++) {
        struct site *site = &run.sites[i];

        ebb_pace_start_source(&run.pace, &site->source, site->unreported, site->reported,
                              site->refaulted);
        run.unattributed += site->unreported;
        site->low = site->unreported;
        site->withdrawn = 0;
    }
    CHECK(run.pace.window == window);
}

static void pass_time(void)
{
    uint64_t slot = ebb_pace_slot(&run.pace);

    switch (below(8)) {
    case 0:
    case 1:
    case 2:
        run.now = run.pace.looked + slot > run.now ? run.pace.looked + slot : run.now + slot;
        break;
    case 3:
        run.now += below(slot + 1);
        break;
    case 4:
        run.now += below(4 * slot + 1);
        break;
    case 5:
        run.now += upto(run.config.window_max);
        break;
    case 6:
        if (one_in(20))
            run.now += REST_WINDOWS * run.config.window_max + below(200 * NS_PER_S);
        break;
    default:
        break;
    }
}

/* ---- runs ---- */

static const struct {
    unsigned share; /* in 1/100 */
    void (*what)(void);
} operations[] = {
    {46, do_pass},  {18, do_take},    {20, do_free}, {7, do_tell},
    {3, do_unmark}, {3, do_withdraw}, {2, do_flush}, {1, do_start},
};

static void operate(void)
{
    uint64_t dice = below(100);
    unsigned i = 0;

    while (dice >= operations[i].share)
        dice -= operations[i++].share;
    if (operations[i].what != do_start || one_in(5))
        operations[i].what();
}

/* Memory that a load takes and frees in turns, so that it refaults in earnest. */
static void cycle(void)
{
    unsigned looks = (unsigned)below(12);

    for (unsigned i = 0; i < run.nr_sites; i++) {
        struct site *site = &run.sites[i];
        uint64_t frames = site->unreported + site->reported;

        site->refaulted += site->reported;
        site->unreported = site->reported = 0;
        site->used += frames;
        remember(site);
    }
    run.now += below(2 * ebb_pace_slot(&run.pace) + 1);
    do_pass();
    for (unsigned i = 0; i < run.nr_sites; i++) {
        run.sites[i].unreported += run.sites[i].used;
        run.sites[i].used = 0;
        remember(&run.sites[i]);
    }
    for (; looks > 0; looks--) {
        run.now += ebb_pace_slot(&run.pace);
        do_pass();
    }
}

static void open_run(uint64_t seed)
{
    static const uint64_t longest[] = {2500 * NS_PER_S / 1000, 3600 * NS_PER_S, 1000, 0};
    static const uint32_t costs[] = {1000, 1, 1000000};
    uint64_t frames;

    memset(&run, 0, sizeof(run));
    run.seed = seed;
    run.random = seed;
    run.nr_sites = 1 + (unsigned)below(SOURCES);
    run.config.window_max = one_in(2) ? longest[0] : longest[below(4)];
    if (one_in(4))
        run.config.window_max = upto(((uint64_t)1 << 42) - 1);
    run.config.window_min = one_in(4) ? 0 : upto(run.config.window_max / 16);
    run.config.window_start =
        run.config.window_min + upto(run.config.window_max - run.config.window_min);
    run.config.refault_ns = one_in(2) ? costs[0] : costs[below(3)];
    frames = one_in(3) ? ((uint64_t)1 << 40) - 1 : 1 + upto((uint64_t)1 << 24);
    run.now = below(1u << 30) + ((uint64_t)1 << 44);
    for (unsigned i = 0; i < run.nr_sites; i++) {
        struct site *site = &run.sites[i];

        site->used = upto(frames / run.nr_sites);
        site->unreported = less(frames / run.nr_sites, site->used);
        site->low = UINT64_MAX;
        remember(site);
    }
    ebb_pace_init(&run.pace, &run.config);
    CHECK(run.pace.window == run.config.window_start);
    do_start();
}

/* With nobody at work all of it is reported, soon. */
static void come_to_rest(void)
{
    for (unsigned i = 0; i < REST_LOOKS; i++) {
        run.now += ebb_pace_slot(&run.pace);
        CHECK(look());
        for (unsigned s = 0; s < run.nr_sites; s++) {
            struct site *site = &run.sites[s];
            uint64_t frames = least(site->unreported, ebb_pace_quota(&run.pace, &site->source));

            leave(site, frames);
            ebb_pace_isolated(&run.pace, &site->source, frames);
            ebb_pace_told(&run.pace, frames, run.now);
            site->reported += frames;
            remember(site);
            run.unattributed -= least(run.unattributed, frames);
        }
    }
    for (unsigned i = 0; i < run.nr_sites; i++)
        CHECK(run.sites[i].unreported == 0);
}

static void run_seed(uint64_t seed)
{
    uint64_t steps;

    open_run(seed);
    for (steps = 20 + below(STEPS - 100);
         steps > 0 && run.sites[0].nr_moments < HISTORY / 2 && run.nr_batches < BATCHES / 2;
         steps--) {
        if (one_in(30))
            cycle();
        operate();
        pass_time();
    }
    come_to_rest();
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
        fprintf(stderr, "prop_pace: %s is not a number\n", name);
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
    printf("%" PRIu64 " runs from seed %" PRIu64 ": %" PRIu64 " looks, %" PRIu64
           " with refaults that were soon; the window grew %" PRIu64 " times, was halved %" PRIu64
           " times of %" PRIu64 ", forgotten %" PRIu64 " times; something was surplus %" PRIu64
           " times\n",
           runs, first, total.looks, total.soon, total.grown, total.halved, total.judged,
           total.rests, total.surplus);
    return 0;
}
