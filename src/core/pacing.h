/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Surplus pacing, for the engine (report.c). Only its runner calls these. In a library
 * built for another tracker than sorted there is none of it.
 */
#ifndef EBB_CORE_PACING_H
#define EBB_CORE_PACING_H

#include "tracker.h"

static inline bool ebb__paced(const struct ebb_report *report)
{
#if EBB__HAS_SURPLUS
    return report->pace.on;
#else
    (void)report;
    return false;
#endif
}

/* One part in so many of the time may go into refaults. */
#define EBB__REFAULT_SHARE 100u

/* ns from one look to the next. */
static inline uint64_t ebb__pace_slot(const struct ebb_report *report)
{
    return report->pace.window / EBB_PACE_SLOTS;
}

#if EBB__HAS_SURPLUS

/* A device is being registered. With no lock held. */
void ebb__pace_start(struct ebb_report *report, uint64_t now);

/* A pass begins: see what has happened since the last one. With no lock held. */
void ebb__pace_look(struct ebb_report *report, uint64_t now);

/* The pass begins with report->zone. Under its lock. */
void ebb__pace_open(struct ebb_report *report);

/* The next block that is surplus, as ops->next() of a tracker that goes by address. */
enum ebb__found ebb__pace_next(struct ebb_report *report, unsigned *steps, uint32_t *index);

/* Isolate this block, as ebb__isolate_block(): its leaving is no demand for memory. */
bool ebb__pace_isolate(struct ebb_report *report, uint32_t index);

/* The host was told of this many frames. With no lock held. */
void ebb__pace_told(struct ebb_report *report, uint64_t frames);

#else

static inline void ebb__pace_start(struct ebb_report *report, uint64_t now)
{
    (void)report;
    (void)now;
}
static inline void ebb__pace_look(struct ebb_report *report, uint64_t now)
{
    (void)report;
    (void)now;
}
static inline void ebb__pace_open(struct ebb_report *report)
{
    (void)report;
}
static inline enum ebb__found ebb__pace_next(struct ebb_report *report, unsigned *steps,
                                             uint32_t *index)
{
    (void)report;
    (void)steps;
    (void)index;
    return EBB__NOTHING;
}
static inline bool ebb__pace_isolate(struct ebb_report *report, uint32_t index)
{
    (void)report;
    (void)index;
    return false;
}
static inline void ebb__pace_told(struct ebb_report *report, uint64_t frames)
{
    (void)report;
    (void)frames;
}

#endif

#endif
