/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the files of core: descriptors, the transitions of a free block, and
 * what the engine and its trackers may ask of a zone.
 */
#ifndef EBB_CORE_CORE_H
#define EBB_CORE_CORE_H

#include <ebb/report.h>
#include <ebb/zone.h>

#define ALWAYS_INLINE __attribute__((always_inline)) static inline

/*
 * Per-frame state, 16 bits. Zero is "inside a larger block, or not managed":
 * only the first frame of a block (its head) has a state. Kept apart from the
 * links, so that looking at a buddy (which is mostly not free) touches two
 * bytes and no link.
 */
enum ebb__state {
    EBB__NONE = 0,
    EBB__FREE = 1,      /* on the free list of its order and type, or loose */
    EBB__CACHED = 2,    /* in a per-CPU cache */
    EBB__ALLOCATED = 3, /* with a caller */
    EBB__IN_FLIGHT = 4, /* in a batch */
    EBB__FILLING = 5,   /* on its way to the free lists, being filled; counts as allocated */
};
#define EBB__ORDER_MASK  0x001fu
#define EBB__STATE_SHIFT 5
#define EBB__STATE_MASK  0x00e0u
#define EBB__TYPE_SHIFT  8
#define EBB__TYPE_MASK   0x0300u
#define EBB__REPORTED    0x0400u /* with EBB__FREE; with EBB__CACHED: reads as zero */
/* Only with EBB__ALLOCATED, of type ISOLATE, while a range is gathered (range.c). */
#define EBB__CLAIMED      0x8000u
#define EBB__WAS_REPORTED 0x4000u
#define EBB__WAS_FREE     0x2000u /* so it holds what free frames hold */
/* The type is that of the list with EBB__FREE; the one asked for, or ISOLATE for
 * part of a range (range.c), with EBB__ALLOCATED; else 0. */

/* A broken invariant ends in the port's panic. In no path that is hot for the
 * sake of a check alone. */
#define EBB__ASSERT(condition)                          \
    do {                                                \
        if (EBB_UNLIKELY(!(condition)))                 \
            ebb_port_panic("ebb: broken: " #condition); \
    } while (0)

/*
 * The links of a free block: indices of its neighbours on a ring. A ring needs
 * no value for "none", so that all 2^32 indices of a zone can be used, and
 * rotating it is one store to the list's head.
 */
struct ebb_link {
    uint32_t next;
    uint32_t prev;
};

/* One link serves two frames, since of two buddies of one frame one is on a list at most: else
 * they would have merged. */
#define EBB__LINK_SHIFT 1u

/*
 * Large blocks, those of a pageblock and more, have their links in an array of
 * their own, one for 2^large_order frames. A pass walks the lists of such blocks; in the array of
 * all frames each of their links would lie in another page, which thrashes caches and TLB in large
 * zones. Their marks are there as well as in their states, for those who only pass by:
 * ebb__is_reported().
 */
static inline struct ebb_link *ebb__link_of(const struct ebb_zone *zone, unsigned order,
                                            uint32_t index)
{
    return order < zone->large_order ? &zone->links[index >> EBB__LINK_SHIFT]
                                     : &zone->large_links[index >> zone->large_order];
}

static inline unsigned ebb__order_of(uint16_t state)
{
    return state & EBB__ORDER_MASK;
}
static inline enum ebb__state ebb__state_of(uint16_t state)
{
    return (enum ebb__state)((state & EBB__STATE_MASK) >> EBB__STATE_SHIFT);
}
static inline unsigned ebb__type_of(uint16_t state)
{
    return (state & EBB__TYPE_MASK) >> EBB__TYPE_SHIFT;
}

static inline uint16_t ebb__state_word(enum ebb__state state, unsigned order, unsigned type)
{
    return (uint16_t)(((unsigned)state << EBB__STATE_SHIFT) | (type << EBB__TYPE_SHIFT) | order);
}

/*
 * States are atomic, relaxed: a frame goes from cached to allocated and back
 * under its cache's lock, while others look at it as a buddy under the zone's.
 * Either way it is not free. The same holds for the types of pageblocks, which
 * change under the zone's lock and are read under a cache's.
 */
static inline uint16_t ebb__load_state(const struct ebb_zone *zone, uint32_t index)
{
    return __atomic_load_n(&zone->state[index], __ATOMIC_RELAXED);
}
static inline void ebb__store_state(struct ebb_zone *zone, uint32_t index, uint16_t state)
{
    __atomic_store_n(&zone->state[index], state, __ATOMIC_RELAXED);
}
/* An allocated block becomes `to`. Compare and swap: of two CPUs that free one
 * block at the same instant, one is refused. */
static inline bool ebb__release(struct ebb_zone *zone, uint32_t index, unsigned order, uint16_t to)
{
    uint16_t seen = ebb__load_state(zone, index);

    return (seen & ~EBB__TYPE_MASK) == ebb__state_word(EBB__ALLOCATED, order, 0) &&
           __atomic_compare_exchange_n(&zone->state[index], &seen, to, false, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED);
}
/* ebb__release() of a single frame that was most likely asked for as this type: the same, without
 * waiting for the state before the exchange. */
static inline bool ebb__release_frame(struct ebb_zone *zone, uint32_t index, unsigned type,
                                      uint16_t to)
{
    uint16_t seen = ebb__state_word(EBB__ALLOCATED, 0, type);

    return EBB_LIKELY(__atomic_compare_exchange_n(&zone->state[index], &seen, to, false,
                                                  __ATOMIC_RELAXED, __ATOMIC_RELAXED)) ||
           ebb__release(zone, index, 0, to);
}
static inline unsigned ebb__pageblock_type(const struct ebb_zone *zone, uint32_t index)
{
    return __atomic_load_n(&zone->pageblocks[index >> zone->pageblock_order], __ATOMIC_RELAXED);
}
static inline void ebb__set_pageblock_type(struct ebb_zone *zone, uint32_t index, unsigned type)
{
    __atomic_store_n(&zone->pageblocks[index >> zone->pageblock_order], (uint8_t)type,
                     __ATOMIC_RELAXED);
}

/* Would taking this many frames leave the min watermark free? Isolated frames
 * help nobody who allocates, so they do not count. Under the zone's lock. */
static inline bool ebb__above_min(const struct ebb_zone *zone, uint64_t frames)
{
    return zone->free - zone->isolated >= zone->watermark_min + frames;
}

/* A bit for each order, from this one on, whose list of a type has what an allocation should
 * take: with surplus pacing what the host does not know of, as long as there is any. */
static inline uint32_t ebb__orders(const struct ebb_zone *zone, unsigned type, unsigned order)
{
    uint32_t mask = ~0u << order;

    if (zone->report_surplus && (zone->warm[type] & mask))
        return zone->warm[type] & mask;
    return zone->nonempty[type] & mask;
}

/* ---- buddy.c: all under the zone's lock ---- */

/* Where on a list: at its head, where freed blocks go; cold, where the tracker
 * wants blocks that are not to be allocated next; at its very tail. */
enum ebb__where { EBB__HEAD, EBB__COLD, EBB__TAIL };

/* Put a block on / take it off the free list of (order, type): with ebb__add_row() and what is in
 * loose.c, all that changes a free list or a counter of free frames (I5).
 * ebb__unlink() returns whether the block was reported; it leaves its state
 * EBB__NONE. */
void ebb__link(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type, bool reported,
               enum ebb__where where);
bool ebb__unlink(struct ebb_zone *zone, uint32_t index);

/* Free a block that is on no list: merge, then link. Its type is read from the
 * pageblock now. Returns the order of the block it ended in, 0 if it is isolated. */
unsigned ebb__free_block(struct ebb_zone *zone, uint32_t index, unsigned order, bool reported,
                         enum ebb__where where);

/* The same for an unreported block, to the head. */
unsigned ebb__free_warm(struct ebb_zone *zone, uint32_t index, unsigned order);

/* The blocks of the largest order in [from, to) that follow one which was just added, and are
 * nobody's: add them to the zone and to the cold end of the list like that one, up to one about
 * which there is more to do. Returns where that is, or less than such a block is left. */
uint64_t ebb__add_row(struct ebb_zone *zone, uint64_t from, uint64_t to);

/* Take one block of 2^order frames off the lists, splitting as needed, by type
 * with fallback. The block's state becomes EBB__NONE, with EBB__REPORTED if it reads as
 * zero (zone->marks_zero), and the caller sets it. False: there is none. */
bool ebb__take_block(struct ebb_zone *zone, unsigned order, unsigned type, uint32_t *index);

/* Take the block of 2^order frames at index out of the free block at `head` that
 * holds it. Its state becomes EBB__NONE. Returns whether it was reported. */
bool ebb__take_at(struct ebb_zone *zone, uint32_t head, uint32_t index, unsigned order);

/* The block that holds a frame: its head and state. False: a hole. Right only
 * under the zone's lock; a frame's change between cached and allocated may
 * still go unseen. */
bool ebb__find_block(const struct ebb_zone *zone, uint32_t index, uint32_t *head, uint16_t *state);

/* ---- loose.c: all under the zone's lock ---- */

/* Can a zone of this geometry have loose frames at all? */
bool ebb__can_loosen(const struct ebb_zone *zone);

/* Free unreported frames in state CACHED: as loose frames, if the zone has such. Returns a
 * bit for each order that a block ended in, or may end in. */
uint32_t ebb__free_frames(struct ebb_zone *zone, const uint32_t *frames, uint32_t n);

/* Take up to n loose frames of a type that has some, of a pageblock with about the fewest. Returns
 * how many; in descending order. The caller sets their states. */
uint32_t ebb__take_loose(struct ebb_zone *zone, unsigned type, uint32_t *frames, uint32_t n);

/* Take this one; it is loose. */
void ebb__remove_loose(struct ebb_zone *zone, uint32_t index, unsigned type);

static inline bool ebb__is_loose(const struct ebb_zone *zone, uint32_t index)
{
    return zone->units[index >> zone->large_order].loose > 0 &&
           zone->loose_bits[index >> 6] >> (index & 63) & 1;
}

/* Merge the loose frames of a unit, which has some. Returns the largest order of a block
 * that they ended in. */
unsigned ebb__settle(struct ebb_zone *zone, uint32_t unit);

/* Those of the unit that index lies in; false: it has none. */
bool ebb__settle_at(struct ebb_zone *zone, uint32_t index);

/* If all of a unit is free, with loose frames in it. Returns the order that a block at index,
 * of this order, ended in. */
unsigned ebb__settle_if_whole(struct ebb_zone *zone, uint32_t index, unsigned order);

/* As many units are settled in one hold of the lock, before a reported block is used, or none is
 * found. */
#define EBB__SETTLE_MOST 64u

/* Those of the unit with about the most of this type; false: there is none. */
bool ebb__settle_most(struct ebb_zone *zone, unsigned type);

/* The same, of any type. */
bool ebb__settle_any(struct ebb_zone *zone);

/* A block of this order, below the large ones, is asked for: settle a few units, if the lists have
 * none of that type below the large ones; more, if they have none at all (surplus pacing: none that
 * is unreported). */
void ebb__settle_for(struct ebb_zone *zone, unsigned order, unsigned type);

/* All there are. With no lock held. */
void ebb__settle_all(struct ebb_zone *zone);

static inline uint64_t ebb__loose(const struct ebb_zone *zone)
{
    return zone->loose[EBB_MOVABLE] + zone->loose[EBB_UNMOVABLE] + zone->loose[EBB_RECLAIMABLE];
}

/* Are there loose frames that may be part of a block to be reported? */
static inline bool ebb__loose_may_be(const struct ebb_zone *zone)
{
    return zone->report_min_order < zone->large_order && ebb__loose(zone) > 0;
}

/* ---- for the engine ---- */

/* Isolate a free block into a batch (I3): off its list, state IN_FLIGHT,
 * counted in in_flight. False, and nothing changes, if that would leave fewer
 * than the low watermark free. Under the zone's lock. */
bool ebb__isolate_block(struct ebb_zone *zone, uint32_t index);

/* Does a reported block keep its mark when its pageblock changes its type, and
 * where on its new list does it go? */
static inline bool ebb__moved_mark(const struct ebb_zone *zone, bool reported)
{
    return reported && zone->move != EBB_MOVE_DEMOTE;
}
static inline enum ebb__where ebb__moved_where(const struct ebb_zone *zone, bool reported)
{
    if (!ebb__moved_mark(zone, reported))
        return EBB__HEAD;
    return zone->move == EBB_MOVE_FOLLOW ? EBB__COLD : EBB__TAIL;
}

/* Put an IN_FLIGHT block back (re-reading its type), reported or not; never
 * asks for a pass (I6). It goes cold; but one that was not reported goes where the
 * tracker comes to it after all others, since it may be what the device failed on.
 * Under the zone's lock. */
void ebb__put_back(struct ebb_zone *zone, uint32_t index, bool reported);

static inline uint64_t ebb__unreported(const struct ebb_free_list *list)
{
    return list->blocks - list->reported;
}

/* ---- pcp.c ---- */

/* ebb_zone_drain() or, with idle_only, ebb_zone_drain_idle(). Instead of asking for
 * a pass it sets *wanted if one is wanted (and then report_requested is set
 * already), and never clears it. NULL: do not ask, a pass is under way. With no
 * lock held. */
uint64_t ebb__drain(struct ebb_zone *zone, bool idle_only, bool *wanted);

/* How many pageblocks the caches may have from now on. To be called when what that follows from
 * has changed; what they have is for ebb__drain(). Under the zone's lock. */
void ebb__limit_blocks(struct ebb_zone *zone);

/* ---- report.c, for the free path ---- */

static inline bool ebb__report_requested(const struct ebb_zone *zone)
{
    return __atomic_load_n(&zone->report_requested, __ATOMIC_RELAXED);
}

/* The slow half of the screener, if nobody has asked yet: enough unreported blocks of
 * this order? Then set report_requested and return true. Under the zone's lock. */
bool ebb__report_wanted(struct ebb_zone *zone, unsigned order);

/* A cache has come into use: what it holds keeps blocks from merging, so a pass
 * has to empty it once it is idle again. Set report_requested and return true if
 * none is due anyway. Under the zone's lock. */
bool ebb__report_cache_used(struct ebb_zone *zone);

/* Reported memory went into use again, with surplus pacing: the engine has to look soon, to
 * know when. Set report_requested and return true if no pass is due anyway. Under the
 * zone's lock. */
static inline bool ebb__report_refault(struct ebb_zone *zone)
{
    if (EBB_LIKELY(!zone->pace.refault_news))
        return false;
    zone->pace.refault_news = false;
    if (ebb__report_requested(zone))
        return false;
    __atomic_store_n(&zone->report_requested, true, __ATOMIC_RELAXED);
    return true;
}

/* Pass the request on to the engine. With no lock held. */
void ebb__report_request(struct ebb_zone *zone);

/* The screener: one predicted branch while reporting is off or the block is
 * small, two while a pass is due. Returns true if the caller must call ebb__report_request() once
 * it has dropped its locks. */
static inline bool ebb__report_screen(struct ebb_zone *zone, unsigned order)
{
    if (EBB_LIKELY(order < zone->report_order) || ebb__report_requested(zone))
        return false;
    return ebb__report_wanted(zone, order);
}

/* ---- content.c ---- */

/* Give the frames of a block, which is nobody's, what its zone's free frames hold.
 * With no lock held; nothing with EBB_FILL_NONE. Whatever makes a block free that
 * somebody has used comes by here first. */
void ebb__fill(const struct ebb_zone *zone, uint32_t index, unsigned order);

/* Look whether a block just allocated still holds that; tell the port if not, and
 * fill it anew. With no lock held, and only if the zone has a verify callback. */
void ebb__verify_fill(struct ebb_zone *zone, uint32_t index, unsigned order);

/* May what this device leaves in reported frames be found in free frames of all the
 * engine's zones? */
bool ebb__report_content_ok(const struct ebb_report *report,
                            const struct ebb_report_device *device);

/* ---- trackers (tracker.h) ---- */

/* What a tracker keeps of a list is no longer right, or is about to be made
 * wrong: it is to look again from the tail. For whoever works on a list on his
 * own, such as compaction. Under the zone's lock. */
void ebb__tracker_reset(struct ebb_zone *zone, unsigned order, unsigned type);

#endif
