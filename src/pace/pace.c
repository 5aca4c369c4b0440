/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Surplus pacing, the arithmetic of it: which free memory nobody will miss.
 *
 * Large blocks (a pageblock and more). How many unreported frames there were at least
 * in a whole window is what nobody needed for that long, whichever blocks it was. So many
 * are reported, less what would be taken in a window at the rate of the last slot.
 *
 * Small blocks lie in pageblocks of which somebody uses a part. They are reported
 * together once none of them has come or gone for a window times what reporting them
 * costs per frame, a large block's cost being 1: each range costs as much as the refaults
 * of RANGE_COST frames (a system call, a share of an exit), the pageblock as much as those of
 * SPLIT_COST frames (the host may have to split a huge mapping, which the frames in use
 * would miss). None waits for longer than REST_WINDOWS_SMALL longest windows.
 *
 * The window. Pace remembers how much was reported when. Frames that refault are taken for
 * those reported last: had these stayed, they would have served. (What loses its mark without
 * being used, in a merge with an unreported buddy, is reported once more, and not counted
 * twice.) If they had been free for less than the longest window, and cost more than a part in
 * REFAULT_SHARE of the time, the window becomes as long as would have kept them (and a quarter).
 * Beyond the longest window holding on to memory costs more than the fault that it saves, so
 * such refaults do not count. The window is halved when that would have paid: a frame given back
 * saves its memory for a time, a refault costs as much as holding a frame for the longest
 * window. The same low-water marks tell what half of it would have reported, and whether that
 * was used.
 */
#include <ebb/pace.h>

/* A few times in a window: made small rather than fast. */
#define RARE __attribute__((cold))

/* Pace has no port to tell what is broken: test builds trap, all others compile it and drop it. */
#ifndef EBB_DEBUG
#define EBB_DEBUG 0
#endif
#define PACE_ASSERT(condition)              \
    do {                                    \
        if (EBB_DEBUG >= 1 && !(condition)) \
            __builtin_trap();               \
    } while (0)

#define NS_PER_S 1000000000u

/* One part in so many of the time may go into refaults. */
#define REFAULT_SHARE 100u

/* In refaults of one frame. */
#define RANGE_COST 5u
#define SPLIT_COST 128u

/* Windows in which half of it would have reported more, before that is judged. */
#define CALM_WINDOWS 2u

/* Longest windows after which small blocks are reported, whatever that costs: their pageblock is
 * at rest. */
#define REST_WINDOWS_SMALL 3u

/* Of frames x time: 65 us. */
#define SAVED_SHIFT 16u

/* Longest windows without anything freed, until the window is the first again. */
#define REST_WINDOWS 4u

/* No window is shortened while the refaults that made it so long are more than tolerable for the
 * time since; but after so much time, whatever they were. */
#define DEBT_LIMIT ((uint64_t)120 * NS_PER_S)

/* Refaults of so much time are tolerated at once. */
#define CREDIT_LIMIT ((uint64_t)NS_PER_S)

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

/* a * b, or the most there is: 2^40 frames for an hour are more than fits. */
static uint64_t product(uint64_t a, uint64_t b)
{
    uint64_t result;

    return __builtin_mul_overflow(a, b, &result) ? ~(uint64_t)0 : result;
}

/* a + b, or the most there is. */
static uint64_t sum(uint64_t a, uint64_t b)
{
    return a + b < a ? ~(uint64_t)0 : a + b;
}

/* The time in which so many refaults are tolerable. */
static uint64_t time_for(const struct ebb_pace *pace, uint64_t refaults)
{
    return least(refaults, (uint64_t)1 << 32) * pace->price;
}

RARE void ebb_pace_init(struct ebb_pace *pace, const struct ebb_pace_config *config)
{
    PACE_ASSERT(config->window_min <= config->window_start);
    PACE_ASSERT(config->window_start <= config->window_max && config->window_max >> 44 == 0);
    *pace = (struct ebb_pace){
        .window = config->window_start,
        .config = *config,
        .price = (uint64_t)config->refault_ns * REFAULT_SHARE,
    };
}

/* ---- the window ---- */

static void set_window(struct ebb_pace *pace, uint64_t window)
{
    PACE_ASSERT(window >= pace->config.window_min && window <= pace->config.window_max);
    if (window > pace->window) {
        pace->grown++;
        pace->generation++;
    } else if (window < pace->window) {
        pace->shrunk++;
    }
    pace->window = window;
    pace->missed = 0;
    pace->saved = 0;
    pace->calm = 0;
}

/* Have the refaults so far become tolerable? */
static bool is_paid(const struct ebb_pace *pace)
{
    return pace->debt <= CREDIT_LIMIT;
}

/* Nobody looked for a while, since nothing was freed: what was learned was about something else. */
static bool forget_after_rest(struct ebb_pace *pace)
{
    if (pace->elapsed <= REST_WINDOWS * pace->config.window_max ||
        pace->window == pace->config.window_start || !is_paid(pace))
        return false;
    set_window(pace, pace->config.window_start);
    return true;
}

/* In the slot that ends, half the window would have given back slot_saved frames that all of it
 * kept, and slot_missed that were needed. Where it would have done neither, it says nothing. */
static void shrink_if_it_pays(struct ebb_pace *pace)
{
    uint64_t elapsed = least(pace->elapsed, 2 * ebb_pace_slot(pace));

    pace->missed += pace->slot_missed;
    pace->saved = sum(pace->saved, product(pace->slot_saved, elapsed >> SAVED_SHIFT));
    if (pace->slot_saved > 0)
        pace->calm += elapsed;
    if (pace->window == pace->config.window_min || pace->calm < CALM_WINDOWS * pace->window)
        return;
    if (product(pace->missed, pace->config.window_max >> SAVED_SHIFT) <= pace->saved &&
        is_paid(pace)) {
        uint64_t half = pace->window / 2;

        set_window(pace, half > pace->config.window_min ? half : pace->config.window_min);
    }
    pace->missed = 0;
    pace->saved = 0;
    pace->calm = 0;
}

/* Take frames that are reported no longer for those reported last. Returns how many of them had
 * been free for less than the longest window, and for how long at most. */
static uint64_t attribute(struct ebb_pace *pace, uint64_t frames, uint64_t now,
                          uint64_t *longest_free)
{
    uint64_t soon = 0;

    for (unsigned i = 0; i < EBB_PACE_TOLD && frames > 0; i++) {
        struct ebb_pace_told *told = &pace->told[(pace->told_last - i) % EBB_PACE_TOLD];
        uint64_t free_for = told->window + told->window / EBB_PACE_SLOTS + (now - told->mean);
        uint64_t taken = least(frames, told->frames);

        if (taken == 0)
            continue;
        if (free_for > pace->config.window_max)
            break;
        PACE_ASSERT(taken <= told->frames && told->mean <= now);
        told->frames -= taken;
        frames -= taken;
        soon += taken;
        if (*longest_free < free_for)
            *longest_free = free_for;
    }
    return soon;
}

static void grow_if_needed(struct ebb_pace *pace, uint64_t unmarked, uint64_t now)
{
    uint64_t free_for = 0;
    uint64_t unused = 0;
    uint64_t soon = attribute(pace, pace->slot_refaulted, now, &free_for);
    uint64_t cost = time_for(pace, soon);

    PACE_ASSERT(soon <= pace->slot_refaulted && free_for <= pace->config.window_max);
    attribute(pace, unmarked, now, &unused);
    if (soon == 0)
        return;
    pace->refaulted_soon += soon;
    pace->missed += soon; /* half of it would not have kept them either */
    pace->debt = least(pace->debt + cost, DEBT_LIMIT);
    if (cost <= pace->credit) {
        pace->credit -= cost;
        return;
    }
    pace->credit = CREDIT_LIMIT;
    PACE_ASSERT(pace->debt <= DEBT_LIMIT && pace->credit <= CREDIT_LIMIT);
    free_for = least(free_for + free_for / MARGIN, pace->config.window_max);
    if (free_for > pace->window)
        set_window(pace, free_for);
}

/* ---- looking ---- */

RARE void ebb_pace_start(struct ebb_pace *pace, uint64_t now)
{
    pace->looked = now;
    pace->credit = CREDIT_LIMIT;
    pace->debt = 0;
    pace->unattributed = 0;
    pace->reported = 0;
    pace->generation++;
    for (unsigned i = 0; i < EBB_PACE_TOLD; i++)
        pace->told[i].frames = 0;
}

/* What was free before the device came need never have been used, so that nothing is lost when it
 * is used after it was reported. */
RARE void ebb_pace_start_source(struct ebb_pace *pace, struct ebb_pace_source *source,
                                uint64_t unreported, uint64_t reported, uint64_t refaulted)
{
    pace->unattributed += unreported;
    pace->reported += reported;
    source->refaulted = refaulted;
}

RARE bool ebb_pace_look(struct ebb_pace *pace, uint64_t now)
{
    uint64_t slot = ebb_pace_slot(pace);
    uint64_t elapsed = now - pace->looked;

    PACE_ASSERT(now >= pace->looked);
    if (elapsed < slot)
        return false;
    pace->looked = now;
    pace->elapsed = elapsed;
    pace->clock += least(elapsed, 2 * slot);
    pace->credit = least(pace->credit + least(elapsed, CREDIT_LIMIT), CREDIT_LIMIT);
    pace->debt = less(pace->debt, elapsed);
    pace->slot_refaulted = 0;
    pace->slot_reported = 0;
    pace->slot_saved = 0;
    pace->slot_missed = 0;
    return true;
}

/* Slots became longer: what was seen in shorter ones says nothing. */
static bool forget_if_stale(const struct ebb_pace *pace, struct ebb_pace_source *source)
{
    if (source->generation == pace->generation)
        return false;
    for (unsigned i = 0; i < EBB_PACE_SLOTS; i++)
        source->lows[i] = 0;
    source->half = 0;
    source->generation = pace->generation;
    return true;
}

RARE void ebb_pace_end_slot(struct ebb_pace *pace, struct ebb_pace_source *source, uint64_t low,
                            uint64_t withdrawn, uint64_t reported, uint64_t refaulted)
{
    uint64_t *lows = source->lows;
    uint64_t missed;

    if (forget_if_stale(pace, source))
        low = 0;
    if (withdrawn > 0)
        ebb_pace_isolated(pace, source, withdrawn);
    PACE_ASSERT(source->generation == pace->generation);
    PACE_ASSERT(refaulted >= source->refaulted);
    pace->slot_saved += source->half;
    pace->slot_refaulted += refaulted - source->refaulted;
    pace->slot_reported += reported;
    source->refaulted = refaulted;

    for (unsigned i = EBB_PACE_SLOTS - 1; i > 0; i--)
        lows[i] = lows[i - 1];
    lows[0] = low;
    missed = less(source->half, low);
    pace->slot_missed += missed;
    PACE_ASSERT(missed <= source->half && source->half - missed <= low);
    source->half -= missed;
    if (source->half < least(lows[0], lows[1]))
        source->half = least(lows[0], lows[1]);
}

RARE void ebb_pace_judge(struct ebb_pace *pace, uint64_t now, uint64_t unused)
{
    uint64_t unmarked = less(pace->reported, pace->slot_reported + pace->slot_refaulted);

    if (!forget_after_rest(pace))
        shrink_if_it_pays(pace);
    grow_if_needed(pace, unmarked, now);
    pace->reported = pace->slot_reported;
    pace->unattributed = least(pace->unattributed, unused);
}

/* ---- what is surplus ---- */

/* Whoever has begun to take memory goes on: as in the slot that ended, for a window. */
uint64_t ebb_pace_quota(const struct ebb_pace *pace, const struct ebb_pace_source *source)
{
    const uint64_t *lows = source->lows;
    uint64_t low = lows[0];

    if (source->generation != pace->generation)
        return 0;
    for (unsigned i = 1; i < EBB_PACE_SLOTS; i++)
        low = least(low, lows[i]);
    PACE_ASSERT(low <= lows[0] && low <= lows[EBB_PACE_SLOTS - 1]);
    return less(low, EBB_PACE_SLOTS * less(lows[1], lows[0]));
}

RARE void ebb_pace_isolated(struct ebb_pace *pace, struct ebb_pace_source *source, uint64_t frames)
{
    if (source->generation != pace->generation)
        return;
    source->half = less(source->half, frames);
    for (unsigned i = 0; i < EBB_PACE_SLOTS; i++)
        source->lows[i] = less(source->lows[i], frames);
}

bool ebb_pace_ripe(const struct ebb_pace *pace, uint32_t frames, uint32_t blocks, uint32_t age)
{
    uint64_t cost = frames + (uint64_t)RANGE_COST * blocks + SPLIT_COST;
    uint64_t rest = (REST_WINDOWS_SMALL * pace->config.window_max >> 20) * frames;

    return (uint64_t)age * frames >= least(ebb_pace_window_ticks(pace) * cost, rest);
}

/* ---- what was reported ---- */

/* (a * part / whole), part <= whole, without a 64-bit division: to a 65,536th. */
static uint64_t share(uint64_t a, uint64_t part, uint64_t whole)
{
    PACE_ASSERT(part <= whole && whole > 0);
    while (whole >> 16) {
        whole >>= 1;
        part >>= 1;
    }
    return (a >> 16) * (((uint32_t)part << 16) / (uint32_t)whole);
}

RARE void ebb_pace_told(struct ebb_pace *pace, uint64_t frames, uint64_t now)
{
    struct ebb_pace_told *told = &pace->told[pace->told_last % EBB_PACE_TOLD];
    uint64_t skipped = least(frames, pace->unattributed);

    pace->reported += frames;
    PACE_ASSERT(skipped <= pace->unattributed && skipped <= frames);
    pace->unattributed -= skipped;
    frames -= skipped;
    if (frames == 0)
        return;
    /* All of the entries together reach back for the longest window. */
    if (told->frames > 0 && now - told->first > pace->config.window_max / EBB_PACE_TOLD) {
        told = &pace->told[++pace->told_last % EBB_PACE_TOLD];
        told->frames = 0;
    }
    if (told->frames == 0)
        told->first = told->mean = now;
    PACE_ASSERT(told->first <= now && told->mean <= now);
    told->frames += frames;
    told->mean += share(now - told->mean, frames, told->frames);
    told->window = pace->window;
}
