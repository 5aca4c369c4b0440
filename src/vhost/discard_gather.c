/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Parts of the balloon's backing pages, until all of a page is in the balloon.
 *
 * A guest inflates by frames of 4 KiB, in whatever order it finds them; a huge page goes back to
 * the host only as a whole. What is in the balloon stays there until the guest deflates, so frames
 * are remembered from batch to batch, a bit for each, in a table of bounded size. (Ranges that are
 * reported are not: the guest may use them as soon as their batch was acknowledged.)
 */
#include "discard_private.h"

#include <stdlib.h>

struct ebb__gather_page {
    struct ebb__gather_page *next; /* in its bucket */
    struct ebb__gather_page *older, *newer;
    uint64_t start, page; /* bytes */
    int fd;
    uint32_t frames;   /* bits that are set */
    uint64_t bitmap[]; /* a bit for each frame */
};

static uint64_t page_bytes(uint64_t page)
{
    const uint64_t frames = page >> EBB_FRAME_SHIFT;

    return sizeof(struct ebb__gather_page) + (frames + 63) / 64 * sizeof(uint64_t);
}

/* Pages of a guest that follow one another are in different buckets; it cannot have more of them in
 * one than its memory has pages, divided by the buckets. */
static struct ebb__gather_page **bucket(struct ebb__gather *gather, int fd, uint64_t page,
                                        uint64_t start)
{
    return &gather->buckets[(start / page + (unsigned)fd) % EBB__GATHER_BUCKETS];
}

static struct ebb__gather_page *find_page(struct ebb__gather *gather, int fd, uint64_t page,
                                          uint64_t start)
{
    struct ebb__gather_page *p = *bucket(gather, fd, page, start);

    while (p && (p->start != start || p->fd != fd || p->page != page))
        p = p->next;
    return p;
}

static void unlink_age(struct ebb__gather *gather, struct ebb__gather_page *p)
{
    *(p->older ? &p->older->newer : &gather->oldest) = p->newer;
    *(p->newer ? &p->newer->older : &gather->newest) = p->older;
}

static void link_newest(struct ebb__gather *gather, struct ebb__gather_page *p)
{
    p->older = gather->newest;
    p->newer = NULL;
    *(p->older ? &p->older->newer : &gather->oldest) = p;
    gather->newest = p;
}

/* How many frames it had. */
static uint32_t free_page(struct ebb__gather *gather, struct ebb__gather_page *p)
{
    struct ebb__gather_page **link = bucket(gather, p->fd, p->page, p->start);
    const uint32_t frames = p->frames;

    while (*link != p)
        link = &(*link)->next;
    *link = p->next;
    unlink_age(gather, p);
    gather->bytes -= (uint32_t)page_bytes(p->page);
    gather->frames -= frames;
    gather->pages--;
    free(p);
    return frames;
}

/* A page without frames; NULL: there is no room, whatever else goes, or no memory. */
static struct ebb__gather_page *new_page(struct ebb__gather *gather, const struct ebb__part *part,
                                         struct ebb_discard_stats *sum)
{
    struct ebb__gather_page **head = bucket(gather, part->fd, part->page, part->start);
    const uint64_t bytes = page_bytes(part->page);
    struct ebb__gather_page *p;

    if (bytes > gather->bytes_limit)
        return NULL;
    while (gather->bytes > gather->bytes_limit - bytes)
        ebb__count_not(sum, EBB_DISCARD_PARTIAL,
                       EBB_FRAME_SIZE * free_page(gather, gather->oldest));
    p = calloc(1, (size_t)bytes);
    if (!p)
        return NULL;
    p->start = part->start;
    p->page = part->page;
    p->fd = part->fd;
    p->next = *head;
    *head = p;
    link_newest(gather, p);
    gather->bytes += (uint32_t)bytes;
    gather->pages++;
    return p;
}

/* Set or clear the bits of [from, to), in bytes from the page's start. How many changed. */
static uint32_t change(struct ebb__gather_page *p, uint64_t from, uint64_t to, bool set)
{
    const uint64_t end = to >> EBB_FRAME_SHIFT;
    uint64_t bit = from >> EBB_FRAME_SHIFT;
    uint32_t changed = 0;

    while (bit < end) {
        const uint64_t shift = bit % 64, left = end - bit;
        const uint64_t n = left < 64 - shift ? left : 64 - shift;
        const uint64_t mask = (UINT64_MAX >> (64 - n)) << shift;
        uint64_t *word = &p->bitmap[bit / 64];

        changed += (uint32_t)__builtin_popcountll((set ? ~*word : *word) & mask);
        *word = set ? *word | mask : *word & ~mask;
        bit += n;
    }
    return changed;
}

bool ebb__gather_add(struct ebb__gather *gather, const struct ebb__part *part,
                     struct ebb_discard_stats *sum)
{
    struct ebb__gather_page *p = find_page(gather, part->fd, part->page, part->start);
    const uint64_t bytes = part->to - part->from;
    uint32_t added;

    if (!p)
        p = new_page(gather, part, sum);
    if (!p) {
        ebb__count_not(sum, EBB_DISCARD_PARTIAL, bytes);
        return false;
    }
    added = change(p, part->from - part->start, part->to - part->start, true);
    p->frames += added;
    gather->frames += added;
    sum->repeated_bytes += bytes - EBB_FRAME_SIZE * added;
    if (p->frames == part->page >> EBB_FRAME_SHIFT) {
        free_page(gather, p);
        return true;
    }
    unlink_age(gather, p);
    link_newest(gather, p);
    return false;
}

/* The frames that [from, to) has of this page. */
static uint64_t drop_of(struct ebb__gather *gather, struct ebb__gather_page *p, uint64_t from,
                        uint64_t to)
{
    const uint64_t end = p->start + p->page;
    uint32_t dropped;

    if (from >= end || to <= p->start)
        return 0;
    dropped =
        change(p, from > p->start ? from - p->start : 0, (to < end ? to : end) - p->start, false);
    p->frames -= dropped;
    gather->frames -= dropped;
    if (p->frames == 0)
        free_page(gather, p);
    return dropped;
}

/* Long ranges: there are fewer pages in the table than in the range. */
static uint64_t drop_long(struct ebb__gather *gather, int fd, uint64_t page, uint64_t from,
                          uint64_t to)
{
    struct ebb__gather_page *newer;
    uint64_t dropped = 0;

    for (struct ebb__gather_page *p = gather->oldest; p; p = newer) {
        newer = p->newer;
        if (p->fd == fd && p->page == page)
            dropped += drop_of(gather, p, from, to);
    }
    return dropped;
}

uint64_t ebb__gather_drop(struct ebb__gather *gather, int fd, uint64_t page, uint64_t from,
                          uint64_t to)
{
    const uint64_t first = from & ~(page - 1);
    uint64_t dropped = 0;

    from &= ~(EBB_FRAME_SIZE - 1);
    to = (to + EBB_FRAME_SIZE - 1) & ~(EBB_FRAME_SIZE - 1);
    if ((to - first) / page > gather->pages)
        return drop_long(gather, fd, page, from, to);
    for (uint64_t start = first; start < to; start += page) {
        struct ebb__gather_page *p = find_page(gather, fd, page, start);

        if (p)
            dropped += drop_of(gather, p, from, to);
    }
    return dropped;
}

uint64_t ebb__gather_clear(struct ebb__gather *gather)
{
    uint64_t frames = 0;

    while (gather->oldest)
        frames += free_page(gather, gather->oldest);
    return frames;
}
