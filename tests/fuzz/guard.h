/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The system calls of a discard, watched: each is of whole backing pages that lie in regions of the
 * table, or the process aborts. The clock is virtual.
 */
#ifndef EBB_TESTS_GUARD_H
#define EBB_TESTS_GUARD_H

#include <ebb/vhost/discard.h>

/* What the host says when it is asked what is still there. */
enum guard_look {
    GUARD_NOTHING = 0,
    GUARD_ALL,
    GUARD_NONSENSE,
    GUARD_ERROR,
    GUARD_LOOKS,
};

struct guard {
    struct ebb_discard_ops ops;
    const struct ebb_memory *memory; /* that discards are checked against */
    bool real;                       /* files are, and are punched; else memory is cleared */
    uint64_t now;                    /* ns */
    unsigned fail;                   /* so many of the next calls fail ... */
    int fail_errno;                  /* ... with this */
    enum guard_look look;
    uint64_t discards, discarded_bytes; /* that succeeded */
};

void guard_init(struct guard *guard, bool real);

/* The counters of a discard that is not at work add up, and are as many as there were. */
void guard_check(const struct guard *guard, const struct ebb_discard *discard);

/* Is all of the range guest memory? */
bool guard_is_memory(const struct ebb_memory *memory, const struct ebb_range *range);

#endif
