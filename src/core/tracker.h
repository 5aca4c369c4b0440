/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Trackers: the strategies that find the unreported blocks of a zone. One file
 * each; here is what they have in common, and the table of what each does.
 *
 * The tables are constants in a header on purpose: a library built for one
 * tracker (EBB_TRACKER_FIXED, its number in enum ebb_tracker) has no indirect
 * call left, and none of the others' code.
 */
#ifndef EBB_CORE_TRACKER_H
#define EBB_CORE_TRACKER_H

#include "core.h"

enum ebb__found {
    EBB__FOUND,   /* *index is an unreported block */
    EBB__NOTHING, /* there is none left on this list */
    EBB__PAUSE,   /* *steps are used up; go on here later */
    EBB__FLUSH,   /* not before the blocks of the batch are back */
};

/* All under the zone's lock, unless it says otherwise. NULL: has no need of it. */
struct ebb_tracker_ops {
    const char *name;
    /* It visits a zone by address, as one list, not list by list. */
    bool by_address;
    /* It keeps dividers, which a moved block can follow. */
    bool has_dividers;
    /* They are exact: what is reported is placed as well wherever it goes. */
    bool sorts;

    /* Reporting begins for this zone: report_min_order is set. With no lock held. */
    void (*attach)(struct ebb_zone *zone);
    /* A pass begins / is done with report->zone. */
    void (*open)(struct ebb_report *report);
    void (*close)(struct ebb_report *report);
    /* The next unreported block of (report->order, report->type), or of the zone if
     * it goes by address. Looks at no more than *steps blocks and counts them down.
     * The lock may be dropped between calls. */
    enum ebb__found (*next)(struct ebb_report *report, unsigned *steps, uint32_t *index);

    /* A block is about to be linked cold: true if it is to go right before *before,
     * false if to the tail. */
    bool (*place)(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type,
                  bool reported, uint32_t *before);
    /* A reported block is about to be unlinked. */
    void (*leave)(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type);
    /* An unreported block of a reported order was linked, not on ISOLATE. */
    void (*mark)(struct ebb_zone *zone, uint32_t index);
    /* See ebb__tracker_reset(). */
    void (*reset)(struct ebb_zone *zone, unsigned order, unsigned type);
    /* Is what it keeps right (I10)? False: not at *index. */
    bool (*check)(const struct ebb_zone *zone, uint32_t *index);
};

/* ---- each tracker's functions ---- */

enum ebb__found ebb__rotation_next(struct ebb_report *report, unsigned *steps, uint32_t *index);

enum ebb__found ebb__membrane_next(struct ebb_report *report, unsigned *steps, uint32_t *index);
bool ebb__membrane_place(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type,
                         bool reported, uint32_t *before);
void ebb__membrane_leave(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type);
void ebb__membrane_reset(struct ebb_zone *zone, unsigned order, unsigned type);
bool ebb__membrane_check(const struct ebb_zone *zone, uint32_t *index);

void ebb__boundary_open(struct ebb_report *report);
void ebb__boundary_close(struct ebb_report *report);
enum ebb__found ebb__boundary_next(struct ebb_report *report, unsigned *steps, uint32_t *index);
bool ebb__boundary_place(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type,
                         bool reported, uint32_t *before);
void ebb__boundary_leave(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type);
void ebb__boundary_reset(struct ebb_zone *zone, unsigned order, unsigned type);
bool ebb__boundary_check(const struct ebb_zone *zone, uint32_t *index);

void ebb__bitmap_attach(struct ebb_zone *zone);
void ebb__bitmap_open(struct ebb_report *report);
enum ebb__found ebb__bitmap_next(struct ebb_report *report, unsigned *steps, uint32_t *index);
void ebb__bitmap_mark(struct ebb_zone *zone, uint32_t index);
bool ebb__bitmap_check(const struct ebb_zone *zone, uint32_t *index);

enum ebb__found ebb__sorted_next(struct ebb_report *report, unsigned *steps, uint32_t *index);
/* The unreported block of a list that has one which is the last to be allocated. */
uint32_t ebb__sorted_coldest(const struct ebb_zone *zone, unsigned order, unsigned type);
bool ebb__sorted_place(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type,
                       bool reported, uint32_t *before);
void ebb__sorted_leave(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type);
bool ebb__sorted_check(const struct ebb_zone *zone, uint32_t *index);

/* ---- their tables ---- */

#ifdef EBB_TRACKER_FIXED
#define EBB__HAS_TRACKER(number) (EBB_TRACKER_FIXED == (number))
#else
#define EBB__HAS_TRACKER(number) 1
#endif

#if EBB__HAS_TRACKER(1)
static const struct ebb_tracker_ops ebb__tracker_rotation = {
    .name = "rotation",
    .next = ebb__rotation_next,
};
_Static_assert(EBB_TRACKER_ROTATION == 1, "the number above");
#endif

#if EBB__HAS_TRACKER(2)
static const struct ebb_tracker_ops ebb__tracker_membrane = {
    .name = "membrane",
    .has_dividers = true,
    .next = ebb__membrane_next,
    .place = ebb__membrane_place,
    .leave = ebb__membrane_leave,
    .reset = ebb__membrane_reset,
    .check = ebb__membrane_check,
};
_Static_assert(EBB_TRACKER_MEMBRANE == 2, "the number above");
#endif

#if EBB__HAS_TRACKER(3)
static const struct ebb_tracker_ops ebb__tracker_boundary = {
    .name = "boundary",
    .has_dividers = true,
    .open = ebb__boundary_open,
    .close = ebb__boundary_close,
    .next = ebb__boundary_next,
    .place = ebb__boundary_place,
    .leave = ebb__boundary_leave,
    .reset = ebb__boundary_reset,
    .check = ebb__boundary_check,
};
_Static_assert(EBB_TRACKER_BOUNDARY == 3, "the number above");
#endif

#if EBB__HAS_TRACKER(4)
static const struct ebb_tracker_ops ebb__tracker_bitmap = {
    .name = "bitmap",
    .by_address = true,
    .attach = ebb__bitmap_attach,
    .open = ebb__bitmap_open,
    .next = ebb__bitmap_next,
    .mark = ebb__bitmap_mark,
    .check = ebb__bitmap_check,
};
_Static_assert(EBB_TRACKER_BITMAP == 4, "the number above");
#endif

#if EBB__HAS_TRACKER(5)
static const struct ebb_tracker_ops ebb__tracker_sorted = {
    .name = "sorted",
    .has_dividers = true,
    .sorts = true,
    .next = ebb__sorted_next,
    .place = ebb__sorted_place,
    .leave = ebb__sorted_leave,
    .check = ebb__sorted_check,
};
_Static_assert(EBB_TRACKER_SORTED == 5, "the number above");
#endif

/* The table of a number, NULL if this library has none. */
static inline const struct ebb_tracker_ops *ebb__tracker_of(unsigned number)
{
    switch (number) {
#if EBB__HAS_TRACKER(1)
    case EBB_TRACKER_ROTATION:
        return &ebb__tracker_rotation;
#endif
#if EBB__HAS_TRACKER(2)
    case EBB_TRACKER_MEMBRANE:
        return &ebb__tracker_membrane;
#endif
#if EBB__HAS_TRACKER(3)
    case EBB_TRACKER_BOUNDARY:
        return &ebb__tracker_boundary;
#endif
#if EBB__HAS_TRACKER(4)
    case EBB_TRACKER_BITMAP:
        return &ebb__tracker_bitmap;
#endif
#if EBB__HAS_TRACKER(5)
    case EBB_TRACKER_SORTED:
        return &ebb__tracker_sorted;
#endif
    default:
        return NULL;
    }
}

/* The tracker that is meant by EBB_TRACKER_DEFAULT, without surplus pacing. */
#ifdef EBB_TRACKER_FIXED
#define EBB__TRACKER_DEFAULT EBB_TRACKER_FIXED
#else
#define EBB__TRACKER_DEFAULT EBB_TRACKER_ROTATION
#endif

/* Can this library pace by surplus? That needs the sorted tracker. */
#define EBB__HAS_SURPLUS EBB__HAS_TRACKER(5)

static inline const struct ebb_tracker_ops *ebb__tracker(const struct ebb_zone *zone)
{
#ifdef EBB_TRACKER_FIXED
    (void)zone;
    return ebb__tracker_of(EBB_TRACKER_FIXED);
#else
    return zone->tracker;
#endif
}

/* ---- dividers, for those who keep them ---- */

/* Place a block that goes onto the divider's list cold: right above the divider,
 * and a reported one is the new divider. */
static inline bool ebb__divider_place(struct ebb_divider *divider, uint32_t index, bool reported,
                                      uint32_t *before)
{
    bool was_set = divider->set;

    *before = divider->block;
    if (reported) {
        divider->block = index;
        divider->set = true;
    }
    return was_set;
}

/* A reported block leaves the divider's list. */
static inline void ebb__divider_leave(const struct ebb_zone *zone, struct ebb_divider *divider,
                                      unsigned order, unsigned type, uint32_t index)
{
    if (EBB_LIKELY(!divider->set || divider->block != index))
        return;
    divider->block = ebb__link_of(zone, order, index)->next;
    divider->set =
        divider->block != zone->lists[order][type].head; /* the next of the tail is the head */
}

/* The block above the divider, or the tail if that is not set. */
static inline uint32_t ebb__divider_above(const struct ebb_zone *zone,
                                          const struct ebb_divider *divider, unsigned order,
                                          unsigned type)
{
    uint32_t below = divider->set ? divider->block : zone->lists[order][type].head;

    return ebb__link_of(zone, order, below)->prev;
}

/* Of a free block. */
static inline bool ebb__is_reported(const struct ebb_zone *zone, unsigned order, uint32_t index)
{
    return order < zone->large_order ? ebb__load_state(zone, index) & EBB__REPORTED
                                     : zone->large_marks[index >> zone->large_order];
}

/* The states of a long list lie far apart: have that of the block after this one on its
 * way. */
static inline void ebb__look_ahead(const struct ebb_zone *zone, uint32_t next)
{
    __builtin_prefetch(&zone->state[next]);
}

/* From the divider to the tail: free, on this list, and reported. */
static inline bool ebb__divider_check(const struct ebb_zone *zone,
                                      const struct ebb_divider *divider, unsigned order,
                                      unsigned type, uint32_t *index)
{
    const struct ebb_free_list *list = &zone->lists[order][type];
    uint16_t wanted = (uint16_t)(ebb__state_word(EBB__FREE, order, type) | (unsigned)EBB__REPORTED);

    if (!divider->set)
        return true;
    *index = divider->block;
    for (uint64_t seen = 0; seen < list->blocks; seen++) {
        if (*index >= zone->span || ebb__load_state(zone, *index) != wanted)
            return false;
        *index = ebb__link_of(zone, order, *index)->next;
        if (*index == list->head)
            return true;
    }
    return false;
}

#endif
