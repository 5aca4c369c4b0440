/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the files of the allocator: descriptors, the transitions of a free block, and what
 * sources over a zone (src/report/zone_source.c, src/history) may ask of it.
 */
#ifndef EBB_ZONE_PRIVATE_H
#define EBB_ZONE_PRIVATE_H

#include <ebb/impl/assert.h>
#include <ebb/zone.h>

#include "atomic16.h"

#define ALWAYS_INLINE __attribute__((always_inline)) static inline

/* zone->alloc_flags: see whether an allocated block is as it was filled. */
#define EBB__ALLOC_VERIFY 0x80u

/*
 * Per-frame state, 16 bits. Zero is "inside a larger block, or not managed":
 * only the first frame of a block (its head) has a state. Kept apart from the
 * links, so that looking at a buddy (which is mostly not free) touches two
 * bytes and no link.
 */
enum ebb__state {
    EBB__NONE = 0,
    EBB__FREE = 1,      /* on the free list of its order and type, or lazy */
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
/* Only with EBB__ALLOCATED, of type ISOLATE, while a range is gathered (src/range). */
#define EBB__CLAIMED      0x8000u
#define EBB__WAS_REPORTED 0x4000u
#define EBB__WAS_FREE     0x2000u /* so it holds what free frames hold */
/* The type is that of the list with EBB__FREE; the one asked for, or ISOLATE for
 * part of a range (range.c), with EBB__ALLOCATED; else 0. */

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
    EBB_DEBUG_ASSERT(index < zone->span && order <= zone->max_order);
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
    EBB_DEBUG_ASSERT(index < zone->span);
    __atomic_store_n(&zone->state[index], state, __ATOMIC_RELAXED);
}
/* An allocated block becomes `to`. Compare and swap: of two CPUs that free one
 * block at the same instant, one is refused. */
static inline bool ebb__release(struct ebb_zone *zone, uint32_t index, unsigned order, uint16_t to)
{
    const uint16_t seen = ebb__load_state(zone, index);

    EBB_DEBUG_ASSERT(ebb__state_of(to) != EBB__FREE); /* that takes a list */
    return (seen & ~EBB__TYPE_MASK) == ebb__state_word(EBB__ALLOCATED, order, 0) &&
           ebb__swap16(&zone->state[index], seen, to);
}
/* ebb__release() of a single frame that was most likely asked for as this type: the same, without
 * waiting for the state before the exchange. */
static inline bool ebb__release_frame(struct ebb_zone *zone, uint32_t index, unsigned type,
                                      uint16_t to)
{
    const uint16_t seen = ebb__state_word(EBB__ALLOCATED, 0, type);

    return EBB_LIKELY(ebb__swap16(&zone->state[index], seen, to)) ||
           ebb__release(zone, index, 0, to);
}
static inline ebb_pageblock_id ebb__pageblock_of(const struct ebb_zone *zone, uint32_t index)
{
    return (ebb_pageblock_id){index >> zone->large_order};
}
static inline struct ebb_pageblock *ebb__pageblock(const struct ebb_zone *zone, ebb_pageblock_id id)
{
    EBB_DEBUG_ASSERT(id.n <= (zone->span - 1) >> zone->large_order);
    return &zone->pageblocks[id.n];
}
static inline uint64_t ebb__pageblock_first(const struct ebb_zone *zone, ebb_pageblock_id id)
{
    return (uint64_t)id.n << zone->large_order;
}

static inline unsigned ebb__pageblock_type(const struct ebb_zone *zone, uint32_t index)
{
    return __atomic_load_n(&zone->types[index >> zone->pageblock_order], __ATOMIC_RELAXED);
}
static inline void ebb__set_pageblock_type(struct ebb_zone *zone, uint32_t index, unsigned type)
{
    EBB_DEBUG_ASSERT(index < zone->span && type < EBB_MIGRATETYPES);
    __atomic_store_n(&zone->types[index >> zone->pageblock_order], (uint8_t)type, __ATOMIC_RELAXED);
}

/* ---- ranges ---- */

static inline uint64_t ebb__lower(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t ebb__higher(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The largest order of a block that begins at `from` and ends at or before `to`. */
static inline unsigned ebb__largest_order(const struct ebb_zone *zone, uint64_t from, uint64_t to)
{
    unsigned order = 63u - (unsigned)__builtin_clzll(to - from);

    EBB_DEBUG_ASSERT(from < to);
    if (order > zone->max_order)
        order = zone->max_order;
    if (from != 0 && (unsigned)__builtin_ctzll(from) < order)
        order = (unsigned)__builtin_ctzll(from);
    return order;
}

static inline uint64_t ebb__block_end(uint32_t head, uint16_t state)
{
    return (uint64_t)head + ((uint64_t)1 << ebb__order_of(state));
}

/* ---- the lock ---- */

static inline void ebb__lock(struct ebb_zone *zone)
{
    ebb_port_lock(&zone->lock);
}

/* Something was freed, or reported memory used, that is worth a pass: whoever drops the last lock
 * passes the wish on. Under the zone's lock. */
static inline void ebb__wish(struct ebb_zone *zone)
{
    if (ebb_source_note(&zone->source))
        __atomic_store_n(&zone->wish, 1, __ATOMIC_RELAXED);
}

/* Pass a wish on to the engine. */
void ebb__pass_on(struct ebb_zone *zone);

/* With no lock held: pass on what was wished for under one. The store of a wish comes before the
 * unlocking that this caller did after it, so it is seen. */
static inline void ebb__pass_on_wish(struct ebb_zone *zone)
{
    if (EBB_UNLIKELY(__atomic_load_n(&zone->wish, __ATOMIC_RELAXED)))
        ebb__pass_on(zone);
}

/* An operation on the zone is done: note how little was left, once (a merge or split on the way
 * takes blocks off their lists for a moment, which is no demand). A cache's lock may be held on,
 * whose holder passes the wish on. */
static inline void ebb__unlock_inner(struct ebb_zone *zone)
{
    if (EBB_UNLIKELY(zone->level.now < zone->level.low))
        zone->level.low = zone->level.now;
    EBB_DEBUG_ASSERT(zone->level.now <= zone->free - zone->reported);
    EBB_DEBUG_ASSERT(zone->isolated <= zone->free && zone->reported <= zone->free);
    EBB_DEBUG_ASSERT(zone->free + zone->in_flight <= zone->managed);
    EBB_DEBUG_ASSERT(zone->managed <= zone->span && zone->level.low <= zone->level.now);
    EBB_DEBUG_ASSERT(zone->lazy[EBB_MOVABLE] + zone->lazy[EBB_UNMOVABLE] +
                         zone->lazy[EBB_RECLAIMABLE] <=
                     zone->free - zone->reported);
    ebb_port_unlock(&zone->lock);
}

/* The same where no other lock is held: passes the wish on. */
static inline void ebb__unlock(struct ebb_zone *zone)
{
    ebb__unlock_inner(zone);
    ebb__pass_on_wish(zone);
}

/* Frames that allocations can have. Isolated ones help nobody who allocates. Under the zone's
 * lock, as all that follows. */
static inline uint64_t ebb__available(const struct ebb_zone *zone)
{
    EBB_DEBUG_ASSERT(zone->isolated <= zone->free);
    return zone->free - zone->isolated;
}

/* Would taking this many frames leave the min watermark free? */
static inline bool ebb__above_min(const struct ebb_zone *zone, uint64_t frames)
{
    return ebb__available(zone) >= zone->watermark_min + frames;
}

/* Would reporting a block of this order leave the low watermark free? */
static inline bool ebb__above_low(const struct ebb_zone *zone, unsigned order)
{
    return ebb__available(zone) >= zone->watermark_low + ((uint64_t)1 << order);
}

/* A bit for each order, from this one on, whose list of a type has what an allocation should
 * take: what the host does not know of, as long as there is any, if the zone prefers that. */
static inline uint32_t ebb__orders(const struct ebb_zone *zone, unsigned type, unsigned order)
{
    uint32_t mask = ~0u << order;

    if (zone->prefers_warm && (zone->warm[type] & mask))
        return zone->warm[type] & mask;
    return zone->nonempty[type] & mask;
}

/* ---- buddy.c: all under the zone's lock ---- */

/* Where on a list: at its head, where freed blocks go; cold, above those that are reported; at
 * its very tail. */
enum ebb__where { EBB__HEAD, EBB__COLD, EBB__TAIL };

/* Put a block on / take it off the free list of (order, type): with ebb__add_row() and what is in
 * lazy.c, all that changes a free list or a counter of free frames (I5).
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

/* The same for nobody's use: of a block that is reported, if there is one, which counts as no
 * refault. */
bool ebb__take_cold(struct ebb_zone *zone, unsigned order, unsigned type, uint32_t *index);

/* Take the block of 2^order frames at index out of the free block at `head` that holds it. Its
 * state becomes EBB__NONE. Returns whether it was reported; if it goes into use,
 * ebb__count_refault() follows. */
bool ebb__take_at(struct ebb_zone *zone, uint32_t head, uint32_t index, unsigned order);

/* The block that holds a frame: its head and state. False: a hole. Right only
 * under the zone's lock; a frame's change between cached and allocated may
 * still go unseen. */
bool ebb__find_block(const struct ebb_zone *zone, uint32_t index, uint32_t *head, uint16_t *state);

/* So many frames of a reported block go into use. */
static inline void ebb__count_refault(struct ebb_zone *zone, uint64_t frames)
{
    EBB_DEBUG_ASSERT(frames > 0);
    zone->refaulted += frames;
    if (zone->prefers_warm)
        ebb__wish(zone);
}

/* So many frames of unreported large blocks have left their lists, or will leave the zone, though
 * nobody needed them: that is no demand. */
static inline void ebb__withdraw_level(struct ebb_zone *zone, uint64_t before)
{
    uint64_t frames = before > zone->level.now ? before - zone->level.now : 0;

    zone->level.withdrawn += frames;
    zone->level.low -= frames < zone->level.low ? frames : zone->level.low;
}

/* ---- lazy.c: all under the zone's lock ---- */

/* Can a zone of this geometry have lazy frames at all? */
bool ebb__can_coalesce_late(const struct ebb_zone *zone);

/* Take up to n lazy frames of a type that has some, of a pageblock with about the fewest. Returns
 * how many; in descending order. The caller sets their states. */
uint32_t ebb__take_lazy(struct ebb_zone *zone, unsigned type, uint32_t *frames, uint32_t n);

/* A frame is free from now on, as a lazy one. Returns whether all of its pageblock is free now. */
bool ebb__make_lazy(struct ebb_zone *zone, uint32_t index, unsigned type);

/* So many lazy frames of a pageblock are lazy no longer, nor free. */
void ebb__take_lazy_out(struct ebb_zone *zone, ebb_pageblock_id id, unsigned type, uint32_t frames);

/* Take this one; it is lazy. */
void ebb__remove_lazy(struct ebb_zone *zone, uint32_t index, unsigned type);

static inline bool ebb__is_lazy(const struct ebb_zone *zone, uint32_t index)
{
    return ebb__pageblock(zone, ebb__pageblock_of(zone, index))->lazy > 0 &&
           zone->lazy_bits[index >> 6] >> (index & 63) & 1;
}

/* Of so many lazy frames of a pageblock, more than none: which ring it is on. */
static inline unsigned ebb__lazy_class(uint32_t frames)
{
    EBB_DEBUG_ASSERT(frames > 0);
    return 31u - (unsigned)__builtin_clz(frames);
}

static inline uint64_t ebb__lazy(const struct ebb_zone *zone)
{
    return zone->lazy[EBB_MOVABLE] + zone->lazy[EBB_UNMOVABLE] + zone->lazy[EBB_RECLAIMABLE];
}

/* Are there lazy frames that may be part of a block to be reported? */
static inline bool ebb__lazy_may_be(const struct ebb_zone *zone)
{
    return zone->report_min_order < zone->large_order && ebb__lazy(zone) > 0;
}

/* ---- buddy.c: coalescing ---- */

/* Free unreported frames in state CACHED: as lazy frames, if the zone has such. Returns a bit for
 * each order that a block ended in, or may end in. */
uint32_t ebb__free_frames(struct ebb_zone *zone, const uint32_t *frames, uint32_t n);

/* Merge the lazy frames of a pageblock, which has some. Returns the largest order of a block that
 * they ended in. */
unsigned ebb__coalesce(struct ebb_zone *zone, ebb_pageblock_id pageblock);

/* Those of the pageblock that index lies in; false: it has none. */
bool ebb__coalesce_at(struct ebb_zone *zone, uint32_t index);

/* If all of a pageblock is free, with lazy frames in it. Returns the order that a block at index,
 * of this order, ended in. */
unsigned ebb__coalesce_if_whole(struct ebb_zone *zone, uint32_t index, unsigned order);

/* As many pageblocks are coalesced in one hold of the lock, before a reported block is used, or
 * none is found. */
#define EBB__COALESCE_MOST 64u

/* Those of the pageblock with about the most of this type; false: there is none. */
bool ebb__coalesce_most(struct ebb_zone *zone, unsigned type);

/* The same, of any type. */
bool ebb__coalesce_any(struct ebb_zone *zone);

/* A block of this order, below the large ones, is asked for: coalesce a few pageblocks, if the
 * lists have none of that type below the large ones; more, if they have none at all (where warm
 * ones are preferred: none that is unreported). */
void ebb__coalesce_for(struct ebb_zone *zone, unsigned order, unsigned type);

/* All there are. With no lock held. */
void ebb__coalesce_all(struct ebb_zone *zone);

/* ---- check_lists.c ---- */

/* Walk the zone's lists, and what is counted of them; panic with what is wrong. Under the zone's
 * lock, for EBB_EXPENSIVE(). */
void ebb__assert_lists(const struct ebb_zone *zone);

/* ---- marks ---- */

/* zone->keep_marks: what src/history may ask for. By default marks survive whatever is true. */
#define EBB__SPLIT_CLEARS 1u /* parts split off a reported block count as unreported */
#define EBB__MERGE_CLEARS 2u /* a merged block counts as unreported */
#define EBB__MOVE_DEMOTES 4u /* so does one that changes its type; it goes to the head */
#define EBB__MOVE_FOLLOWS 8u /* a reported one that does joins its list at the divider */

/* Does a reported block keep its mark when its pageblock changes its type, and where on its new
 * list does it go? */
static inline bool ebb__moved_mark(const struct ebb_zone *zone, bool reported)
{
    return reported && !(zone->keep_marks & EBB__MOVE_DEMOTES);
}
static inline enum ebb__where ebb__moved_where(const struct ebb_zone *zone, bool reported)
{
    if (!ebb__moved_mark(zone, reported))
        return EBB__HEAD;
    return zone->keep_marks & EBB__MOVE_FOLLOWS ? EBB__COLD : EBB__TAIL;
}

static inline uint64_t ebb__unreported(const struct ebb_free_list *list)
{
    EBB_DEBUG_ASSERT(list->reported <= list->blocks);
    return list->blocks - list->reported;
}

/* Of a free block. */
static inline bool ebb__is_reported(const struct ebb_zone *zone, unsigned order, uint32_t index)
{
    EBB_DEBUG_ASSERT(index < zone->span);
    return order < zone->large_order ? ebb__load_state(zone, index) & EBB__REPORTED
                                     : zone->large_marks[index >> zone->large_order];
}

/* ---- for sources ---- */

/* Isolate a free block into a batch (I3): off its list, state IN_FLIGHT, counted in in_flight. Its
 * leaving is no demand for memory. False, and nothing changes, if that would leave fewer than the
 * low watermark free. */
bool ebb__isolate_block(struct ebb_zone *zone, uint32_t index);

/* Put an IN_FLIGHT block back (re-reading its type), reported or not; never asks for a pass
 * (I6). It goes cold; but one that was not reported goes where it is taken after all others, since
 * it may be what the device failed on. */
void ebb__put_back(struct ebb_zone *zone, uint32_t index, bool reported);

/* ---- pcp.c ---- */

/* ebb_zone_drain() or, with idle_only, ebb_zone_drain_idle(); without a wish with `quiet`, for
 * those who are about to look at the zone anyway. Returns the frames that caches still hold. With
 * no lock held. */
uint64_t ebb__drain_caches(struct ebb_zone *zone, bool idle_only, bool quiet);

/* How many pageblocks the caches may have from now on. To be called when what that follows from
 * has changed; what they have is for ebb__drain_caches(). */
void ebb__limit_blocks(struct ebb_zone *zone);

/* ---- screen.c: is it worth a pass? ---- */

/* zone->report_order: no block is that large. */
#define EBB__SCREEN_OFF 0xffu

/* The slow half of the screener, if nobody has asked yet: wish for a pass if there are enough
 * unreported blocks of this order. */
void ebb__screen_slow(struct ebb_zone *zone, unsigned order);

/* The screener, of a block that was freed: one predicted branch while reporting is off or the
 * block is small, two while a pass is due. */
static inline void ebb__screen(struct ebb_zone *zone, unsigned order)
{
    if (EBB_LIKELY(order < zone->report_order))
        return;
    ebb__screen_slow(zone, order);
}

/* Unreported blocks of an order, ISOLATE left out. */
uint64_t ebb__unreported_of_order(const struct ebb_zone *zone, unsigned order);

/* Is there an unreported block that the watermark lets go? */
bool ebb__something_fits(const struct ebb_zone *zone);

/* Of what is unreported, nothing fits (`gated`): every free, however small, asks whether something
 * fits now, and a pass is due once it does. */
void ebb__set_gate(struct ebb_zone *zone, bool fits);

/* ---- content.c ---- */

/* Give the frames of a block, which is nobody's, what its zone's free frames hold.
 * With no lock held; nothing with EBB_FILL_NONE. Whatever makes a block free that
 * somebody has used comes by here first. */
void ebb__fill(const struct ebb_zone *zone, uint32_t index, unsigned order);

/* Look whether a block just allocated still holds that; tell the port if not, and
 * fill it anew. With no lock held, and only if the zone has a verify callback. */
void ebb__verify_fill(struct ebb_zone *zone, uint32_t index, unsigned order);

/* May what this device leaves in reported frames be found in the zone's free frames? */
bool ebb__content_ok(const struct ebb_zone *zone, const struct ebb_report_device *device);

/* ---- sorted lists (sorted.h), or what src/history does instead ---- */

/* All under the zone's lock. NULL: has no need of it. */
struct ebb_zone_hooks {
    /* They keep dividers, which a moved block can follow. */
    bool has_dividers;
    /* They are exact: what is reported is placed as well wherever it goes. */
    bool sorts;
    /* A block is about to be linked cold: true if it is to go right before *before, false if to the
     * tail. */
    bool (*place)(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type,
                  bool reported, uint32_t *before);
    /* A reported block is about to be unlinked. */
    void (*leave)(struct ebb_zone *zone, uint32_t index, unsigned order, unsigned type);
    /* An unreported block of track_order or above was linked, not on ISOLATE. */
    void (*mark)(struct ebb_zone *zone, uint32_t index);
    /* See ebb__reset_list(). */
    void (*reset)(struct ebb_zone *zone, unsigned order, unsigned type);
    /* Is what it keeps right (I10)? False: not at *index. */
    bool (*check)(const struct ebb_zone *zone, uint32_t *index);
};

/* What is kept of a list is no longer right, or is about to be made wrong: for those who work on a
 * list on their own, such as compaction. */
static inline void ebb__reset_list(struct ebb_zone *zone, unsigned order, unsigned type)
{
    if (zone->hooks && zone->hooks->reset)
        zone->hooks->reset(zone, order, type);
}

#endif
