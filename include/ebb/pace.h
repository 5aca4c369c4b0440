/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pace: when to report free memory, and how much of it.
 *
 * Reporting memory that its guest soon needs again costs a fault. Keeping memory
 * that the guest does not need costs the host. Pace reports *surplus*: what nobody
 * needed for a whole *window* of time. The window grows when reported memory is
 * needed again too soon (a *refault*), and shrinks when a shorter one would have
 * paid. DESIGN.md, section 9, has the rules and where they come from.
 *
 * Pace is arithmetic: it takes numbers and the time, and has no lock, no list, no
 * clock, no allocator and no call-back. It includes fixed-width types only, divides no
 * 64-bit number by a variable, and uses no floating point, so it compiles into a kernel
 * and for 32-bit machines as it is. Whoever owns a struct ebb_pace serialises the calls.
 *
 * Units: frames are base pages; times are nanoseconds, of any monotonic clock, unless
 * the name says otherwise. Sums of frames stay below 2^40, windows below 2^42 ns.
 *
 *   at registration   ebb_pace_start(), then for each source ebb_pace_start_source()
 *   each quarter of   if (ebb_pace_look()) {
 *   a window              for each source ebb_pace_end_slot()
 *                         ebb_pace_judge()
 *                     }
 *   in each pass      ebb_pace_quota() frames of large blocks are surplus,
 *                     ebb_pace_ripe() tells of a pageblock with small blocks
 *   after each batch  ebb_pace_isolated(), ebb_pace_told()
 *
 * The engine (report.h) makes these calls for its sources. A simulation, or an engine
 * of somebody's own, makes them itself.
 */
#ifndef EBB_PACE_H
#define EBB_PACE_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stdint.h>
#endif

/* Looks in a window. */
#define EBB_PACE_SLOTS 4u

/* Batches, or groups of such, that pace remembers the time of. */
#define EBB_PACE_TOLD 16u

/* No zero: there are no defaults here. */
struct ebb_pace_config {
    uint64_t window_min;   /* ns; the shortest window, at least 0 */
    uint64_t window_max;   /* ns; the longest, no less, below 2^44 */
    uint64_t window_start; /* ns; the first one, and the one after a rest; within these */
    uint32_t refault_ns;   /* what it costs to use a reported frame again, 1 to 1,000,000 */
};

/* What pace remembers of one source of free memory. Zero is a valid beginning. */
struct ebb_pace_source {
    uint64_t lows[EBB_PACE_SLOTS]; /* least unreported frames in each slot, newest first */
    uint64_t half;                 /* what half the window would have reported, and is there */
    uint64_t refaulted;            /* the source's total when pace looked last */
    uint32_t generation;           /* of the slots: see ebb_pace.generation */
};

/* Frames that the host was told of, and about when. */
struct ebb_pace_told {
    uint64_t first, mean; /* the first of them; of a frame on average */
    uint64_t window;      /* the window then */
    uint64_t frames;      /* less what is reported no longer */
};

/* The first four may be read by the owner, the rest is pace's own. */
struct ebb_pace {
    uint64_t window;         /* now */
    uint64_t grown;          /* times that it was lengthened */
    uint64_t shrunk;         /* times that it was halved, or forgotten */
    uint64_t refaulted_soon; /* frames used again within window_max of their free */

    struct ebb_pace_config config;
    uint64_t price;        /* ns in which one refault is tolerable */
    uint64_t looked;       /* when the last slot ended */
    uint64_t elapsed;      /* the slot that is being looked at */
    uint64_t clock;        /* ns that pace looked for: it stands still at rest */
    uint32_t generation;   /* one more when slots become longer: older ones say nothing */
    uint64_t calm;         /* time in which half the window would have reported more */
    uint64_t missed;       /* refaults that this would have caused, and those that there were */
    uint64_t saved;        /* frames x time that the host would have had them */
    uint64_t credit;       /* ns of refaults that are tolerated now */
    uint64_t debt;         /* ns of refaults that there were, less what was tolerable since */
    uint64_t reported;     /* frames that were when it looked, and told of since */
    uint64_t unattributed; /* frames that were free before the device came, not reported yet */
    /* Sums over the sources, while a slot is looked at. */
    uint64_t slot_refaulted, slot_reported, slot_saved, slot_missed;
    struct ebb_pace_told told[EBB_PACE_TOLD];
    unsigned told_last;
};

/* `config` is copied. */
void ebb_pace_init(struct ebb_pace *pace, const struct ebb_pace_config *config);

/* Reporting begins, for the first time or anew. The window stays what it was. */
void ebb_pace_start(struct ebb_pace *pace, uint64_t now);

/* For each source after that: frames that are free and unreported, that are reported,
 * and the source's total of refaulted frames. */
void ebb_pace_start_source(struct ebb_pace *pace, struct ebb_pace_source *source,
                           uint64_t unreported, uint64_t reported, uint64_t refaulted);

/* ns from one look to the next. */
static inline uint64_t ebb_pace_slot(const struct ebb_pace *pace)
{
    return pace->window / EBB_PACE_SLOTS;
}

/* Has a slot ended? Then ebb_pace_end_slot() of every source and ebb_pace_judge()
 * follow. False: nothing happened. */
bool ebb_pace_look(struct ebb_pace *pace, uint64_t now);

/* `low`: the least number of unreported frames in large blocks since the last look. Frames
 * that were isolated or withdrawn since then count as absent all along: whoever keeps
 * the low-water mark subtracts them from it when they leave.
 * `withdrawn`: frames that left these since then without being needed. `reported`,
 * `refaulted`: as above. */
void ebb_pace_end_slot(struct ebb_pace *pace, struct ebb_pace_source *source, uint64_t low,
                       uint64_t withdrawn, uint64_t reported, uint64_t refaulted);

/* Judge what all sources said: the window may become another. `unused`: frames in all of
 * them, in large blocks and small, that are unreported and that nobody used since the last
 * look. So many at most have been free since before the device came. */
void ebb_pace_judge(struct ebb_pace *pace, uint64_t now, uint64_t unused);

/* Frames in large blocks that are surplus, never more than were unreported throughout the
 * window. */
uint64_t ebb_pace_quota(const struct ebb_pace *pace, const struct ebb_pace_source *source);

/* So many frames of large blocks were isolated by the engine: they were surplus, nobody
 * needed them. */
void ebb_pace_isolated(struct ebb_pace *pace, struct ebb_pace_source *source, uint64_t frames);

/* The host was told of so many frames, now. */
void ebb_pace_told(struct ebb_pace *pace, uint64_t frames, uint64_t now);

/* ---- pageblocks of which somebody uses a part ---- */

/* Ticks: about a millisecond (2^20 ns) each, and none passes while nobody looks. Ages are
 * differences of them, modulo 2^32. */
static inline uint32_t ebb_pace_clock(const struct ebb_pace *pace)
{
    return (uint32_t)(pace->clock >> 20);
}

/* The window in ticks. */
static inline uint32_t ebb_pace_window_ticks(const struct ebb_pace *pace)
{
    return (uint32_t)(pace->window >> 20);
}

/* A pageblock has so many unreported frames in so many blocks smaller than itself, and
 * none of them came or went for `age` ticks. Is it worth reporting these now? */
bool ebb_pace_ripe(const struct ebb_pace *pace, uint32_t frames, uint32_t blocks, uint32_t age);

#endif
