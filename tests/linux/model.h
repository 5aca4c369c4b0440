/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A model of the kernel's page allocator, of one zone: what linux/zone.c and linux/scan.c run over
 * in user space. It has the rules that they rely on:
 *
 *  - A free list per order and type. Allocations come from the head, of their own type if they can,
 *    else of another, whose pageblock may become theirs. What is left of a block that is split goes
 *    to the head, and has no mark.
 *  - A block that is freed goes to the head; below a pageblock to the tail, if its buddy's
 *    neighbour is free; with `shuffle` to either end, if it is of the largest order. Free buddies
 *    merge, and lose their marks. A frame with a mark has it at the head of its block.
 *  - Blocks of few orders pass through lists of a CPU.
 *  - What is put back goes to the tail, and nobody is notified of it; nor of blocks below a
 *    pageblock.
 *  - Isolating keeps to the minimum watermark, and makes movable what was not, from half a
 *    pageblock on.
 *
 * All functions take the zone's lock, unless they say otherwise. There is one model at a time.
 */
#ifndef EBB_TESTS_LINUX_MODEL_H
#define EBB_TESTS_LINUX_MODEL_H

#include <linux/memory_hotplug.h>

#define MAX_ORDER_FRAMES (1UL << (NR_PAGE_ORDERS - 1))
#define MODEL_CPUS       2

/* Who has a frame. */
enum owner { OFFLINE, FREE, USED, HELD };

struct frame {
    uint8_t owner;
    bool told; /* the host was told of it, and nobody used it since */
};

struct model_config {
    unsigned long base, frames; /* multiples of MAX_ORDER_FRAMES */
    unsigned long watermark_min, watermark_low;
    bool shuffle;
    uint64_t seed;
};

struct model {
    struct model_config config;
    struct zone zone;
    struct per_cpu_pages cpus[MODEL_CPUS];
    struct page *pages;
    struct frame *frames;
    uint8_t *types; /* of pageblocks */
    uint64_t random;

    /* Under zone.lock. */
    unsigned long held;       /* frames, isolated */
    unsigned long lost;       /* frames: free blocks, or parts of such, that lost their mark */
    unsigned long most_looks; /* at pages' marks, in one hold of the lock by what is tested */

    void (*notify)(void);    /* a large block was freed; with zone.lock held. NULL: nobody cares */
    void (*on_unlock)(void); /* what is tested has dropped zone.lock. Not from inside itself */
};

extern struct model model;

void model_create(const struct model_config *config);
void model_destroy(void);

/* A frame of the block is nobody's or it ends the program. False: there is no such block. */
bool model_alloc(unsigned order, unsigned type, unsigned cpu, unsigned long *pfn);
void model_free(unsigned long pfn, unsigned order, unsigned cpu);
/* Mark an allocated block as one compound page. */
void model_make_compound(unsigned long pfn, unsigned order);

/* Remove MAX_ORDER_FRAMES from pfn on. False: not all of them are free. */
bool model_offline(unsigned long pfn);
/* Add such, at the tail of a list. False: they are there. */
bool model_online(unsigned long pfn);
/* All pageblocks that the free block at pfn lies in get a type, and their free blocks move. */
void model_retype(unsigned long pfn, unsigned type);

/* ---- the truth ---- */

struct truth {
    unsigned long free;     /* frames in free lists */
    unsigned long cached;   /* frames in CPUs' lists */
    unsigned long reported; /* in large blocks, with a mark */
    unsigned long unmarked; /* in large blocks, without one, and not isolated */
    unsigned long beyond;   /* in large blocks that are isolated */
    /* Of unmarked ones, by order: those that the host was not told of. What only lost its mark is
     * with the host still. */
    unsigned long untold[NR_PAGE_ORDERS];
};

/* Check all lists against all frames, and sum up. It ends the program if anything is wrong, such as
 * a mark on a block with a frame that the host was not told of. */
struct truth model_check(void);

bool model_is_marked(unsigned long pfn);

static inline struct frame *model_frame(unsigned long pfn)
{
    return &model.frames[pfn - model.config.base];
}

uint64_t model_below(uint64_t n);

_Noreturn void model_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define MODEL_CHECK(condition)                                       \
    do {                                                             \
        if (!(condition))                                            \
            model_fail("%s:%d: %s", __FILE__, __LINE__, #condition); \
    } while (0)

#endif
