/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A conformance suite for sources of free memory (ebb/source.h): is an allocator of your own one?
 *
 * Write a file that fills in a struct source_subject for it, and ends in
 *
 *     int main(void)
 *     {
 *         return source_main(&subject);
 *     }
 *
 * Compile it with your allocator, source.c, ../port_virtual.c and ebb-core, and run it:
 *
 *     cc -Iinclude -Itests -Itests/conformance my_subject.c my_allocator.c \
 *         tests/conformance/source.c tests/port_virtual.c -lebb-core -o my_suite && ./my_suite
 *
 * It prints a line for each row; a row that fails says what the source did wrong. source_own.c
 * is such a file. EBB_SEED=n replays the random row that printed n.
 *
 * All of it is one thread, on a virtual clock, with a device that writes over whatever it is told
 * of. The suite puts itself between the engine and the source and compares each operation with a
 * model of every frame. The allocator may take any locks; if they are ebb_port_lock()'s, their
 * use is checked as well. What the suite cannot see: races, how many blocks one hold of the lock
 * looks at (only how many it takes), and whether what is taken is the coldest.
 */
#ifndef EBB_TESTS_SOURCE_H
#define EBB_TESTS_SOURCE_H

#include <ebb/report.h>

struct source_subject {
    const char *name;

    /* The allocator that make() makes. All its frames are free at first. At least 4 blocks of
     * max_order and at most 2^16 frames, base a multiple of 2^max_order. */
    ebb_pfn_t base;
    uint64_t frames;
    uint32_t orders;      /* bit n: alloc() can take order n; that of large_order is set */
    uint8_t large_order;  /* blocks that are counted in the level; the source's, if it is paced */
    uint8_t max_order;    /* the largest block that is merged */
    uint8_t report_order; /* the smallest block that is reported */
    uint64_t watermark;   /* frames that take() leaves free */
    bool loses_marks;     /* when an allocation splits a reported block */
    bool unpaced;         /* reports all there is: quota and level are not its business */
    /* It cannot see when reported memory is used while other memory is free: its counts of what is
     * reported and refaulted are estimates, which passes correct. */
    bool estimates;
    unsigned patience_s; /* CPU seconds after which a row counts as one that hangs; 0: 60 */
    const void *variant; /* for make() */

    /* NULL: there is no memory. destroy() may come at any time and takes no lock. */
    void *(*make)(const struct source_subject *subject);
    void (*destroy)(void *allocator);
    struct ebb_source *(*source)(void *allocator);
    /* Make the engine and add the source. NULL: ebb_report_init(), ebb_report_add_source(). */
    int (*add)(void *allocator, struct ebb_report *report, const struct ebb_report_config *config);

    /* False: there is no such block now. No frame may rest in a cache when they return. */
    bool (*alloc)(void *allocator, unsigned order, ebb_pfn_t *pfn);
    void (*free)(void *allocator, ebb_pfn_t pfn, unsigned order);

    /* All NULL if there is nothing like it. */
    const char *(*check)(void *allocator); /* what is broken; NULL: nothing */
    /* The first 64 bytes of a frame, for the stamps and for the device to write over. */
    void *(*address)(void *allocator, ebb_pfn_t pfn);
    /* Take a free unreported block of large_order out of reach without using it, and put it back;
     * false: not this one. */
    bool (*withdraw)(void *allocator, ebb_pfn_t pfn);
    void (*restore)(void *allocator, ebb_pfn_t pfn);
};

/* What a row found. */
struct source_finding {
    const char *row; /* NULL: nothing */
    char words[400];
};

/* Run all rows up to the first that fails; true: none does. Quiet. */
bool source_suite(const struct source_subject *subject, struct source_finding *finding);

/* Run all rows and print what they find. The number for main() to return. */
int source_main(const struct source_subject *subject);

#endif
