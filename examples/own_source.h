/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An allocator that is not ebb's, and a source of free memory for ebb's engine: two bits for each
 * frame of a memfd, kept in pageblocks of 2 MiB. It allocates single frames and whole pageblocks.
 *
 * own_source.c has the allocator in its first half and the source in its second; own_allocator.c
 * uses it.
 */
#ifndef OWN_SOURCE_H
#define OWN_SOURCE_H

#include <ebb/port.h>
#include <ebb/source.h>

#include <sys/queue.h>

#define OWN_ORDER  9u
#define OWN_FRAMES (1u << OWN_ORDER) /* in a pageblock */
#define OWN_WORDS  (OWN_FRAMES / 64)

/* What a frame is: the numbers are its two bits. */
enum own_state {
    OWN_FREE = 0,      /* and the host has not been told */
    OWN_REPORTED = 1,  /* free, and the host has been told */
    OWN_ALLOCATED = 2, /* with a caller */
    OWN_IN_FLIGHT = 3, /* with the engine */
    OWN_STATES
};

/* Where a pageblock with free frames is, in the order in which allocations use them up. */
enum own_list {
    OWN_PART,           /* some frames are OWN_FREE, others not */
    OWN_WHOLE,          /* all are OWN_FREE */
    OWN_REPORTED_PART,  /* some are OWN_REPORTED, none OWN_FREE */
    OWN_REPORTED_WHOLE, /* all are OWN_REPORTED */
    OWN_LISTS           /* on none */
};

struct own_pageblock {
    TAILQ_ENTRY(own_pageblock) link;
    enum own_list list;
    uint32_t touched;            /* tick in which a frame came or went */
    uint16_t frames[OWN_STATES]; /* in each state */
    uint64_t bits[2][OWN_WORDS]; /* of each frame's state: the low one, the high one */
};
TAILQ_HEAD(own_list_head, own_pageblock);

struct own_allocator {
    struct ebb_source source;
    struct ebb_lock lock;
    int fd;
    uint8_t *map;
    unsigned n_pageblocks;
    struct own_pageblock *pageblocks;
    /* The warmest at the head. Under the lock, as all that follows. */
    struct own_list_head lists[OWN_LISTS];
    uint64_t frames[OWN_STATES];
    uint64_t refaulted;
    struct ebb_level level; /* of pageblocks in OWN_WHOLE */
    uint32_t clock;         /* the tick when pace looked last */
    uint64_t scan;          /* frame at which a pass stands */
    bool whole_only;        /* the device takes no less than a pageblock */
};

/* All frames are free. -EBB_ENOMEM: there is not so much memory. Afterwards the source can be
 * added to an engine; it has no need of one. */
EBB_MUST_CHECK int own_create(struct own_allocator *own, unsigned n_pageblocks);
void own_destroy(struct own_allocator *own);

/* Frames are numbered from 0. Order 0 or OWN_ORDER. -EBB_ENOMEM: none is free. -EBB_EAGAIN: none
 * is, but some are in flight. */
EBB_MUST_CHECK int own_alloc(struct own_allocator *own, unsigned order, ebb_pfn_t *pfn);
void own_free(struct own_allocator *own, ebb_pfn_t pfn, unsigned order);

void *own_address(const struct own_allocator *own, ebb_pfn_t pfn);

/* Bytes that the system holds for the frames now. */
uint64_t own_resident(const struct own_allocator *own);

#endif
