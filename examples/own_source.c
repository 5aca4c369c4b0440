/* SPDX-License-Identifier: BSD-2-Clause */
/* See own_source.h. The source begins at "the source"; what the allocator does for it on its own
 * paths is the level, the clock in `touched`, and asking for a pass. */
#define _GNU_SOURCE
#include "own_source.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- frames and pageblocks: all under the lock ---- */

static struct own_pageblock *pageblock_of(const struct own_allocator *own, ebb_pfn_t pfn)
{
    return &own->pageblocks[pfn / OWN_FRAMES];
}

static ebb_pfn_t first_frame(const struct own_allocator *own, const struct own_pageblock *pb)
{
    return (ebb_pfn_t)(pb - own->pageblocks) * OWN_FRAMES;
}

/* A bit for each of 64 frames: is it in this state? */
static uint64_t frames_in_state(const struct own_pageblock *pb, unsigned word, enum own_state state)
{
    return (state & 1 ? pb->bits[0][word] : ~pb->bits[0][word]) &
           (state & 2 ? pb->bits[1][word] : ~pb->bits[1][word]);
}

/* The lowest n of 64 bits. */
static uint64_t low_bits(unsigned n)
{
    return n < 64 ? (UINT64_C(1) << n) - 1 : ~UINT64_C(0);
}

/* n: a power of two, and `first` a multiple of it. */
static void set_bits(uint64_t *words, unsigned first, unsigned n, bool on)
{
    const uint64_t mask = low_bits(n) << first % 64;

    for (unsigned word = first / 64; word * 64 < first + n; word++)
        words[word] = on ? words[word] | mask : words[word] & ~mask;
}

static void recount(struct own_allocator *own, struct own_pageblock *pb, unsigned n,
                    enum own_state from, enum own_state to)
{
    pb->frames[from] = (uint16_t)(pb->frames[from] - n);
    pb->frames[to] = (uint16_t)(pb->frames[to] + n);
    own->frames[from] -= n;
    own->frames[to] += n;
}

static enum own_list list_of(const struct own_pageblock *pb)
{
    const unsigned free = pb->frames[OWN_FREE];
    const unsigned reported = pb->frames[OWN_REPORTED];

    if (free > 0)
        return free == OWN_FRAMES ? OWN_WHOLE : OWN_PART;
    if (reported > 0)
        return reported == OWN_FRAMES ? OWN_REPORTED_WHOLE : OWN_REPORTED_PART;
    return OWN_LISTS;
}

/* A pageblock whose frames are all free is one block again. If only some had the mark, it has
 * none. */
static void merge(struct own_allocator *own, struct own_pageblock *pb)
{
    const unsigned reported = pb->frames[OWN_REPORTED];

    if (pb->frames[OWN_FREE] == 0 || pb->frames[OWN_FREE] + reported < OWN_FRAMES)
        return;
    set_bits(pb->bits[0], 0, OWN_FRAMES, false);
    recount(own, pb, reported, OWN_REPORTED, OWN_FREE);
}

/*
 * All that ever happens to frames: n of them, from one state to another. The level counts the
 * pageblocks in OWN_WHOLE: what leaves that list is isolated, or somebody needs it.
 */
static void move_frames(struct own_allocator *own, ebb_pfn_t pfn, unsigned n, enum own_state from,
                        enum own_state to)
{
    struct own_pageblock *pb = pageblock_of(own, pfn);
    const unsigned first = pfn % OWN_FRAMES;
    const enum own_list old_list = pb->list;

    assert(frames_in_state(pb, first / 64, from) >> first % 64 & 1);
    set_bits(pb->bits[0], first, n, to & 1);
    set_bits(pb->bits[1], first, n, to & 2);
    recount(own, pb, n, from, to);
    merge(own, pb);
    if (to == OWN_FREE || to == OWN_ALLOCATED)
        pb->touched = own->clock;
    if (from == OWN_REPORTED)
        own->refaulted += n;

    if (old_list < OWN_LISTS)
        TAILQ_REMOVE(&own->lists[old_list], pb, link);
    pb->list = list_of(pb);
    if (pb->list < OWN_LISTS)
        TAILQ_INSERT_HEAD(&own->lists[pb->list], pb, link);
    if (pb->list == OWN_WHOLE)
        ebb_level_add(&own->level, OWN_FRAMES);
    else if (old_list == OWN_WHOLE && to == OWN_IN_FLIGHT)
        ebb_level_isolate(&own->level, OWN_FRAMES);
    else if (old_list == OWN_WHOLE)
        ebb_level_use(&own->level, OWN_FRAMES);
}

/* ---- the allocator ---- */

/* The first frame of the warmest block, and its state. False: none is free. */
static bool find_free(const struct own_allocator *own, unsigned order, ebb_pfn_t *pfn,
                      enum own_state *state)
{
    const struct own_pageblock *pb = NULL;
    unsigned list, word = 0;

    for (list = 0; list < OWN_LISTS && !pb; list++) {
        *state = list <= OWN_WHOLE ? OWN_FREE : OWN_REPORTED;
        if (order == 0 || list == OWN_WHOLE || list == OWN_REPORTED_WHOLE)
            pb = TAILQ_FIRST(&own->lists[list]);
    }
    if (!pb)
        return false;
    while (!frames_in_state(pb, word, *state))
        word++;
    *pfn = first_frame(own, pb) + word * 64 +
           (unsigned)__builtin_ctzll(frames_in_state(pb, word, *state));
    return true;
}

int own_alloc(struct own_allocator *own, unsigned order, ebb_pfn_t *pfn)
{
    enum own_state state;
    bool request = false;
    int err = 0;

    ebb_port_lock(&own->lock);
    if (find_free(own, order, pfn, &state)) {
        move_frames(own, *pfn, 1u << order, state, OWN_ALLOCATED);
        request = state == OWN_REPORTED && ebb_source_note(&own->source);
    } else {
        err = own->frames[OWN_IN_FLIGHT] > 0 ? -EBB_EAGAIN : -EBB_ENOMEM;
    }
    ebb_port_unlock(&own->lock);
    if (request)
        ebb_source_request(&own->source);
    return err;
}

void own_free(struct own_allocator *own, ebb_pfn_t pfn, unsigned order)
{
    bool request;

    ebb_port_lock(&own->lock);
    move_frames(own, pfn, 1u << order, OWN_ALLOCATED, OWN_FREE);
    request = ebb_source_note(&own->source);
    ebb_port_unlock(&own->lock);
    if (request)
        ebb_source_request(&own->source);
}

/* ---- the source ---- */

static struct own_allocator *own_of(struct ebb_source *source)
{
    return (struct own_allocator *)((char *)source - offsetof(struct own_allocator, source));
}

static int attach(struct ebb_source *source, const struct ebb_terms *terms)
{
    own_of(source)->whole_only = terms->order > EBB_REPORT_ORDER(0);
    return terms->order <= EBB_REPORT_ORDER(OWN_ORDER);
}

static void count(struct ebb_source *source, const struct ebb_pace *slot, struct ebb_counts *counts)
{
    struct own_allocator *own = own_of(source);

    ebb_port_lock(&own->lock);
    if (slot)
        own->clock = ebb_pace_clock(slot);
    ebb_level_read(&own->level, slot != NULL, counts);
    counts->small = own->frames[OWN_FREE] - own->level.now;
    counts->reported = own->frames[OWN_REPORTED];
    counts->refaulted = own->refaulted;
    ebb_port_unlock(&own->lock);
}

static bool rewind_scan(struct ebb_source *source, const struct ebb_pass *pass)
{
    (void)pass;
    own_of(source)->scan = 0; /* nobody else looks at it */
    return true;
}

static void isolate(struct own_allocator *own, struct ebb_pass *pass, ebb_pfn_t pfn, unsigned order)
{
    move_frames(own, pfn, 1u << order, OWN_FREE, OWN_IN_FLIGHT);
    ebb_pass_hold(pass, pfn, order);
}

/* The coldest whole pageblock. False: there is none, or it is not surplus. */
static bool take_whole(struct own_allocator *own, struct ebb_pass *pass)
{
    struct own_pageblock *pb = TAILQ_LAST(&own->lists[OWN_WHOLE], own_list_head);

    if (!pb || pass->quota < OWN_FRAMES)
        return false;
    if (ebb_pass_fits(pass, OWN_ORDER))
        isolate(own, pass, first_frame(own, pb), OWN_ORDER);
    return true;
}

/* Have the free frames of this pageblock been left alone for long enough? */
static bool is_ripe(const struct own_allocator *own, const struct own_pageblock *pb,
                    const struct ebb_pass *pass)
{
    unsigned runs = 0;

    for (unsigned word = 0; word < OWN_WORDS; word++) {
        uint64_t free = frames_in_state(pb, word, OWN_FREE);

        runs += (unsigned)__builtin_popcountll(free & ~(free << 1));
    }
    return pass->everything ||
           ebb_pace_ripe(pass->pace, pb->frames[OWN_FREE], runs, own->clock - pb->touched);
}

/* One step of the pass through all pageblocks, by address, for free frames in the ripe ones that
 * are used in part. A pageblock is judged at its first frame. False: that was the last one. */
static bool take_part(struct own_allocator *own, struct ebb_pass *pass)
{
    struct own_pageblock *pb = pageblock_of(own, own->scan);
    const unsigned at = own->scan % OWN_FRAMES;
    unsigned order = 0;
    uint64_t free;

    if (own->whole_only || own->scan == (uint64_t)own->n_pageblocks * OWN_FRAMES)
        return false;
    if (pb->list != OWN_PART || (at == 0 && !is_ripe(own, pb, pass))) {
        own->scan += OWN_FRAMES - at;
        return true;
    }
    free = frames_in_state(pb, at / 64, OWN_FREE) >> at % 64;
    if (!(free & 1)) {
        own->scan += free ? (unsigned)__builtin_ctzll(free) : 64 - at % 64;
        return true;
    }
    /* The largest block here that is free and aligned. */
    while (order < 6 && !(at >> order & 1) && !(~free & low_bits(2u << order)))
        order++;
    if (ebb_pass_fits(pass, order)) {
        isolate(own, pass, own->scan, order);
        own->scan += 1u << order;
    }
    return true;
}

static bool take(struct ebb_source *source, struct ebb_pass *pass)
{
    struct own_allocator *own = own_of(source);
    bool more = true;

    ebb_port_lock(&own->lock);
    /* One half stays for those who allocate meanwhile. */
    if (pass->n_blocks == 0)
        pass->room = (own->frames[OWN_FREE] + own->frames[OWN_REPORTED]) / 2;
    for (unsigned looks = 0; looks < EBB_TAKE_LOOKS && more && ebb_pass_has_room(pass); looks++)
        more = take_whole(own, pass) || take_part(own, pass);
    ebb_port_unlock(&own->lock);
    return more;
}

static void give_back(struct ebb_source *source, const struct ebb_held *blocks, unsigned n,
                      bool reported)
{
    struct own_allocator *own = own_of(source);

    ebb_port_lock(&own->lock);
    for (unsigned i = 0; i < n; i++)
        move_frames(own, blocks[i].pfn, 1u << blocks[i].order, OWN_IN_FLIGHT,
                    reported ? OWN_REPORTED : OWN_FREE);
    ebb_port_unlock(&own->lock);
}

static bool is_anything_left(struct ebb_source *source)
{
    struct own_allocator *own = own_of(source);
    bool left;

    ebb_port_lock(&own->lock);
    left = (own->whole_only ? own->level.now : own->frames[OWN_FREE]) > 0;
    ebb_port_unlock(&own->lock);
    return left;
}

static const struct ebb_source_ops ops = {
    .attach = attach,
    .counts = count,
    .open = rewind_scan,
    .take = take,
    .give_back = give_back,
    .close = is_anything_left,
};

/* ---- making one ---- */

static bool map_frames(struct own_allocator *own)
{
    const size_t bytes = (size_t)own->n_pageblocks << (OWN_ORDER + EBB_FRAME_SHIFT);
    void *map;

    own->fd = memfd_create("own", MFD_CLOEXEC);
    if (own->fd < 0 || ftruncate(own->fd, (off_t)bytes) != 0)
        return false;
    map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, own->fd, 0);
    own->map = map != MAP_FAILED ? map : NULL;
    return own->map;
}

int own_create(struct own_allocator *own, unsigned n_pageblocks)
{
    *own = (struct own_allocator){
        .source = {.ops = &ops, .large_order = OWN_ORDER},
        .n_pageblocks = n_pageblocks,
        .pageblocks = calloc(n_pageblocks, sizeof(*own->pageblocks)),
    };
    for (unsigned list = 0; list < OWN_LISTS; list++)
        TAILQ_INIT(&own->lists[list]);
    if (!map_frames(own) || !own->pageblocks) {
        own_destroy(own);
        return -EBB_ENOMEM;
    }
    for (unsigned i = n_pageblocks; i-- > 0;) {
        struct own_pageblock *pb = &own->pageblocks[i];

        pb->list = OWN_WHOLE;
        pb->frames[OWN_FREE] = OWN_FRAMES;
        own->frames[OWN_FREE] += OWN_FRAMES;
        TAILQ_INSERT_HEAD(&own->lists[OWN_WHOLE], pb, link);
        ebb_level_add(&own->level, OWN_FRAMES);
    }
    return 0;
}

void own_destroy(struct own_allocator *own)
{
    if (own->map)
        munmap(own->map, (size_t)own->n_pageblocks << (OWN_ORDER + EBB_FRAME_SHIFT));
    if (own->fd >= 0)
        close(own->fd);
    free(own->pageblocks);
}

void *own_address(const struct own_allocator *own, ebb_pfn_t pfn)
{
    return own->map + (pfn << EBB_FRAME_SHIFT);
}

uint64_t own_resident(const struct own_allocator *own)
{
    struct stat st;

    return fstat(own->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : UINT64_MAX;
}
