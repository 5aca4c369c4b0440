/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Surplus pacing: which free memory nobody will miss.
 *
 * The engine looks four times a window, while there is anything unreported, and not at
 * all otherwise.
 *
 * Large blocks (a pageblock and more). How many unreported frames there were at least, in
 * a whole window, is what nobody needed for that long, whichever blocks it was: so that many
 * are reported, from the cold end, less what would be taken in a window at the pace of now. A
 * counter and its low-water mark are all that a free and an allocation pay.
 *
 * Small blocks lie in units of the size of the smallest large block, in parts of which somebody
 * holds memory. A unit's small blocks are reported together, neighbours as one range, once
 * none has come or gone for a window times what reporting them costs per frame, relative
 * to a large block: each range costs as much as the refaults of RANGE_COST frames (a system call, a
 * share of an exit), and the unit as much as those of SPLIT_COST frames (the host may
 * have to split a huge mapping that the frames in use would miss); but none waits for longer than
 * REST_OF_A_UNIT longest windows.
 *
 * The window. The engine remembers how much it reported when. Frames that refault are taken for
 * those reported last: had these stayed, they would have served. (What loses its mark without being
 * used, in a merge with an unreported buddy, is reported once more, and not counted twice.) If they
 * had been free for less than the longest window, and cost more than a part in EBB__REFAULT_SHARE
 * of the time, the window becomes as long as would have kept them (and a quarter). Beyond the
 * longest window holding on to memory costs more than the fault that it saves, so that such
 * refaults do not count. It is halved when that would have paid: a frame given back saves its
 * memory for a time, a refault costs as much as holding a frame for the longest window. The same
 * low-water marks tell what half of it would have reported, and whether that was used.
 */
#include "pacing.h"

#if EBB__HAS_SURPLUS

/* In refaults of one frame. */
#define RANGE_COST 5u
#define SPLIT_COST 128u

/* Of zone->pace.clock and of unit->touched: a bit more than a millisecond. */
#define CLOCK_SHIFT 20u

/* Windows in which half of it would have reported more, before that is judged. */
#define CALM_WINDOWS 2u

/* Longest windows after which a small block is reported, whatever that costs: its unit is at rest.
 */
#define REST_OF_A_UNIT 3u

/* What it costs to settle a unit, in looks at a block. */
#define SETTLE_STEPS 8u

/* Of frames x time, so that a zone of any size for any time fits: 65 us. */
#define SAVED_SHIFT 16u

/* Longest windows without anything freed, until the window is the first again. */
#define REST_WINDOWS 4u

/* No window is shortened while the refaults that made it so long are more than tolerable for the
 * time since; but after so much time, whatever they were. */
#define DEBT_SECONDS 120u

/* A window is longer by this part than would have been enough: no two cycles are the same. */
#define MARGIN 4u

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* Refaults that are tolerable in so much time. */
static uint64_t tolerable(const struct ebb_report_pace *pace, uint64_t ns)
{
    return ns / pace->price;
}

/* ---- zones ---- */

/* Whoever has begun to take memory goes on: as in the slot that ended, for a window. */
static uint64_t quota(const struct ebb_zone *zone)
{
    const uint64_t *lows = zone->pace.lows;
    uint64_t low = lows[0];

    for (unsigned i = 1; i < EBB_PACE_SLOTS; i++)
        low = least(low, lows[i]);
    return less(low, EBB_PACE_SLOTS * less(lows[1], lows[0]));
}

/* A slot ends. Returns the refaults that half the window would have caused in it.
 * Under the zone's lock. */
static uint64_t end_slot(struct ebb_zone *zone)
{
    struct ebb_pace *pace = &zone->pace;
    uint64_t missed;

    for (unsigned i = EBB_PACE_SLOTS - 1; i > 0; i--)
        pace->lows[i] = pace->lows[i - 1];
    pace->lows[0] = pace->low;
    pace->low = zone->large_unreported;

    missed = less(pace->half, pace->lows[0]);
    pace->half -= missed;
    if (pace->half < least(pace->lows[0], pace->lows[1]))
        pace->half = least(pace->lows[0], pace->lows[1]);
    return missed;
}

/* Slots are longer from now on: what was seen in shorter ones says nothing. */
static void forget_slots(struct ebb_report *report)
{
    for (struct ebb_zone *zone = report->zones; zone; zone = zone->report_next) {
        ebb_port_lock(&zone->lock);
        for (unsigned i = 0; i < EBB_PACE_SLOTS; i++)
            zone->pace.lows[i] = 0;
        zone->pace.low = 0;
        zone->pace.half = 0;
        ebb_port_unlock(&zone->lock);
    }
}

/* ---- the window ---- */

EBB_RARE static void set_window(struct ebb_report *report, uint64_t window)
{
    struct ebb_report_pace *pace = &report->pace;
    bool grown = window > pace->window;

    if (grown)
        forget_slots(report);
    ebb_port_lock(&report->lock);
    report->stats.window_grown += grown;
    report->stats.window_shrunk += window < pace->window;
    report->stats.window_ns = window;
    pace->window = window;
    ebb_port_unlock(&report->lock);
    pace->missed = 0;
    pace->saved = 0;
    pace->calm = 0;
}

static void halve(struct ebb_report *report)
{
    uint64_t half = report->pace.window / 2;

    set_window(report, half > report->pace.shortest ? half : report->pace.shortest);
}

/* Have the refaults so far become tolerable? */
static bool is_paid(const struct ebb_report_pace *pace)
{
    return pace->debt <= pace->allowance;
}

/* The engine did not look for a while, since nothing was freed: what it had learned was about
 * something else. */
static bool forget_after_rest(struct ebb_report *report, uint64_t rest)
{
    const struct ebb_report_pace *pace = &report->pace;

    if (rest <= REST_WINDOWS * pace->longest || pace->window == pace->first || !is_paid(pace))
        return false;
    set_window(report, pace->first);
    return true;
}

/* In the slot that ends, half the window would have given back so many frames that all of it kept,
 * and so many that were needed. Where it would have done neither, it says nothing. */
static void shrink_if_it_pays(struct ebb_report *report, uint64_t elapsed, uint64_t saved,
                              uint64_t missed)
{
    struct ebb_report_pace *pace = &report->pace;

    pace->missed += missed;
    pace->saved += saved * (elapsed >> SAVED_SHIFT);
    if (saved > 0)
        pace->calm += elapsed;
    if (pace->window == pace->shortest || pace->calm < CALM_WINDOWS * pace->window)
        return;
    if (pace->missed * (pace->longest >> SAVED_SHIFT) <= pace->saved && is_paid(pace))
        halve(report);
    pace->missed = 0;
    pace->saved = 0;
    pace->calm = 0;
}

/* Take frames that are reported no longer for those reported last. Returns how many of them had
 * been free for less than the longest window, and for how long at most. */
static uint64_t attribute(struct ebb_report_pace *pace, uint64_t frames, uint64_t now,
                          uint64_t *longest_free)
{
    uint64_t soon = 0;

    for (unsigned i = 0; i < EBB_PACE_TOLD && frames > 0; i++) {
        struct ebb_pace_told *told = &pace->told[(pace->told_last - i) % EBB_PACE_TOLD];
        uint64_t free_for = told->window + told->window / EBB_PACE_SLOTS + (now - told->mean);
        uint64_t taken = least(frames, told->frames);

        if (taken == 0)
            continue;
        if (free_for > pace->longest)
            break;
        told->frames -= taken;
        frames -= taken;
        soon += taken;
        if (*longest_free < free_for)
            *longest_free = free_for;
    }
    return soon;
}

static void grow_if_needed(struct ebb_report *report, uint64_t refaulted, uint64_t unmarked,
                           uint64_t now)
{
    struct ebb_report_pace *pace = &report->pace;
    uint64_t free_for = 0;
    uint64_t unused = 0;
    uint64_t soon = attribute(pace, refaulted, now, &free_for);

    attribute(pace, unmarked, now, &unused);
    if (soon == 0)
        return;
    ebb_port_lock(&report->lock);
    report->stats.refaulted_soon += soon;
    ebb_port_unlock(&report->lock);
    pace->missed += soon; /* half of it would not have kept them either */
    pace->debt = least(pace->debt + soon, DEBT_SECONDS * pace->allowance);
    if (soon <= pace->credit) {
        pace->credit -= soon;
        return;
    }
    pace->credit = pace->allowance;
    free_for = least(free_for + free_for / MARGIN, pace->longest);
    if (free_for > pace->window)
        set_window(report, free_for);
}

/* ---- looking ---- */

EBB_RARE void ebb__pace_start(struct ebb_report *report, uint64_t now)
{
    struct ebb_report_pace *pace = &report->pace;

    pace->looked = now;
    pace->credit = pace->allowance;
    pace->debt = 0;
    pace->unattributed = 0;
    pace->reported = 0;
    for (unsigned i = 0; i < EBB_PACE_TOLD; i++)
        pace->told[i].frames = 0;
    for (struct ebb_zone *zone = report->zones; zone; zone = zone->report_next) {
        ebb_port_lock(&zone->lock);
        /* What was free before the device came need never have been used, so that
         * nothing is lost when it is used after it was reported. */
        pace->unattributed += zone->free - zone->reported;
        pace->reported += zone->reported;
        zone->pace.refaulted = zone->refaulted;
        ebb_port_unlock(&zone->lock);
    }
    forget_slots(report);
}

EBB_RARE void ebb__pace_look(struct ebb_report *report, uint64_t now)
{
    struct ebb_report_pace *pace = &report->pace;
    uint64_t elapsed = now - pace->looked;
    uint64_t slot = ebb__pace_slot(report);
    uint64_t refaulted = 0;
    uint64_t reported = 0;
    uint64_t missed = 0;
    uint64_t saved = 0;

    if (elapsed < slot)
        return;
    pace->looked = now;
    pace->clock += least(elapsed, 2 * slot);
    pace->credit = least(pace->credit + tolerable(pace, elapsed), pace->allowance);
    pace->debt = less(pace->debt, tolerable(pace, elapsed));
    for (struct ebb_zone *zone = report->zones; zone; zone = zone->report_next) {
        ebb_port_lock(&zone->lock);
        refaulted += zone->refaulted - zone->pace.refaulted;
        zone->pace.refaulted = zone->refaulted;
        reported += zone->reported;
        zone->pace.refault_news = false;
        zone->pace.clock = (uint32_t)(pace->clock >> CLOCK_SHIFT);
        saved += zone->pace.half;
        missed += end_slot(zone);
        ebb_port_unlock(&zone->lock);
    }
    if (!forget_after_rest(report, elapsed))
        shrink_if_it_pays(report, least(elapsed, 2 * slot), saved, missed);
    grow_if_needed(report, refaulted, less(pace->reported, reported + refaulted), now);
    pace->reported = reported;
}

/* ---- what is surplus ---- */

void ebb__pace_open(struct ebb_report *report)
{
    struct ebb_report_pace *pace = &report->pace;

    pace->quota = pace->flush ? UINT64_MAX : quota(report->zone);
    pace->unit = 0;
    pace->unit_at = pace->unit_end = 0;
}

/* Does the watermark let a block go? */
static bool fits(const struct ebb_zone *zone, unsigned order)
{
    return zone->free - zone->isolated >= zone->watermark_low + ((uint64_t)1 << order);
}

/* A large block, no larger than the quota. */
static bool next_large(struct ebb_report *report, uint32_t *index)
{
    const struct ebb_zone *zone = report->zone;
    unsigned last =
        zone->report_min_order > zone->large_order ? zone->report_min_order : zone->large_order;

    for (unsigned order = zone->max_order; order >= last; order--) {
        if (report->pace.quota >> order == 0 || !fits(zone, order))
            continue;
        for (unsigned type = 0; type < EBB_ISOLATE; type++) {
            if (ebb__unreported(&zone->lists[order][type]) == 0)
                continue;
            *index = ebb__sorted_coldest(zone, order, type);
            return true;
        }
    }
    return false;
}

/* In units of the clock. */
static uint64_t age(const struct ebb_zone *zone, const struct ebb_unit *unit)
{
    return zone->pace.clock - unit->touched;
}

static uint64_t window(const struct ebb_report_pace *pace)
{
    return pace->flush ? 0 : pace->window >> CLOCK_SHIFT;
}

static bool is_ripe(const struct ebb_report_pace *pace, const struct ebb_zone *zone,
                    const struct ebb_unit *unit)
{
    uint64_t cost = unit->frames + (uint64_t)RANGE_COST * unit->blocks + SPLIT_COST;
    uint64_t rest = (REST_OF_A_UNIT * pace->longest >> CLOCK_SHIFT) * unit->frames;

    return age(zone, unit) * unit->frames >= least(window(pace) * cost, rest);
}

/* Merge loose frames that were there for a window, to see what the unit is made of. It is no
 * younger for that. */
static void settle(struct ebb_zone *zone, uint32_t number, unsigned *steps)
{
    uint32_t touched = zone->units[number].touched;

    ebb__settle(zone, number);
    zone->units[number].touched = touched;
    *steps -= (unsigned)least(*steps, SETTLE_STEPS);
}

static bool units_left(const struct ebb_report *report)
{
    const struct ebb_zone *zone = report->zone;

    return report->pace.unit <= (zone->span - 1) >> zone->large_order;
}

/* Go to the next unit that is ripe. False: there is none, or the steps are used up. */
static bool next_unit(struct ebb_report *report, unsigned *steps)
{
    struct ebb_report_pace *pace = &report->pace;
    struct ebb_zone *zone = report->zone;

    while (units_left(report) && *steps > 0) {
        uint64_t *word = &zone->unit_bits[pace->unit >> 6];
        uint64_t bits = *word >> (pace->unit & 63);
        struct ebb_unit *unit;

        (*steps)--;
        if (bits == 0) {
            pace->unit = (pace->unit | 63) + 1;
            continue;
        }
        pace->unit += (unsigned)__builtin_ctzll(bits);
        unit = &zone->units[pace->unit];
        if (unit->frames == 0) {
            *word &= ~((uint64_t)1 << (pace->unit & 63));
            pace->unit++;
            continue;
        }
        if (unit->loose > 0 && age(zone, unit) >= window(pace))
            settle(zone, (uint32_t)pace->unit, steps);
        if (unit->loose == 0 && is_ripe(pace, zone, unit)) {
            /* What is found too small, or left by a failure, waits anew. */
            unit->touched = zone->pace.clock;
            pace->unit_at = pace->unit << zone->large_order;
            pace->unit_end = least(pace->unit_at + ((uint64_t)1 << zone->large_order), zone->span);
        }
        pace->unit++;
        if (pace->unit_at < pace->unit_end)
            return true;
    }
    return false;
}

static bool is_candidate(const struct ebb_zone *zone, uint16_t state)
{
    unsigned order = ebb__order_of(state);

    return ebb__state_of(state) == EBB__FREE && !(state & EBB__REPORTED) &&
           ebb__type_of(state) != EBB_ISOLATE && order >= zone->report_min_order &&
           order < zone->large_order && fits(zone, order);
}

/* A small block; they come by address. */
static enum ebb__found next_small(struct ebb_report *report, unsigned *steps, uint32_t *index)
{
    struct ebb_report_pace *pace = &report->pace;
    const struct ebb_zone *zone = report->zone;

    while (*steps > 0) {
        if (pace->unit_at >= pace->unit_end) {
            if (!next_unit(report, steps))
                break;
            continue;
        }
        uint32_t at = (uint32_t)pace->unit_at;
        uint16_t state = ebb__load_state(zone, at);

        (*steps)--;
        if (is_candidate(zone, state)) {
            *index = at; /* and stay: it may have to wait for the next batch */
            return EBB__FOUND;
        }
        pace->unit_at += (uint64_t)1 << ebb__order_of(state);
    }
    return *steps > 0 ? EBB__NOTHING : EBB__PAUSE;
}

enum ebb__found ebb__pace_next(struct ebb_report *report, unsigned *steps, uint32_t *index)
{
    if (next_large(report, index)) {
        (*steps)--;
        return EBB__FOUND;
    }
    if (report->zone->report_min_order >= report->zone->large_order)
        return EBB__NOTHING;
    return next_small(report, steps, index);
}

/* ---- reporting it ---- */

bool ebb__pace_isolate(struct ebb_report *report, uint32_t index)
{
    struct ebb_zone *zone = report->zone;
    struct ebb_pace *pace = &zone->pace;
    unsigned order = ebb__order_of(ebb__load_state(zone, index));
    uint64_t frames = (uint64_t)1 << order;
    uint64_t low = pace->low;

    if (!ebb__isolate_block(zone, index))
        return false;
    report->pace.surplus += frames;
    if (order < zone->large_order)
        return true;
    report->pace.quota = less(report->pace.quota, frames);
    pace->low = less(low, frames);
    pace->half = less(pace->half, frames);
    for (unsigned i = 0; i < EBB_PACE_SLOTS; i++)
        pace->lows[i] = less(pace->lows[i], frames);
    return true;
}

EBB_RARE void ebb__pace_told(struct ebb_report *report, uint64_t frames)
{
    struct ebb_report_pace *pace = &report->pace;
    struct ebb_pace_told *told = &pace->told[pace->told_last % EBB_PACE_TOLD];
    uint64_t skipped = least(frames, pace->unattributed);
    uint64_t now = ebb_port_now();

    pace->reported += frames;
    pace->unattributed -= skipped;
    frames -= skipped;
    if (frames == 0)
        return;
    /* All of the entries together reach back for the longest window. */
    if (told->frames > 0 && now - told->first > pace->longest / EBB_PACE_TOLD) {
        told = &pace->told[++pace->told_last % EBB_PACE_TOLD];
        told->frames = 0;
    }
    if (told->frames == 0)
        told->first = told->mean = now;
    told->frames += frames;
    told->mean += (now - told->mean) / told->frames * frames;
    told->window = pace->window;
}

#endif
