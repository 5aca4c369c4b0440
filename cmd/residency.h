/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How much of a guest's memory the host holds: that one mapping of the VMM,
 * not the whole process. Memory the host has swapped out counts as held.
 */
#ifndef RESIDENCY_H
#define RESIDENCY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum backing { BACKING_ANON, BACKING_MEMFD, BACKING_THP, BACKING_HUGETLB };

struct residency {
    pid_t pid;
    enum backing backing;
    uint64_t bytes; /* size of the guest's memory: how the mapping is recognized */

    /* Private. */
    int fd;         /* memfd, hugetlb: the guest's memory; else the process's smaps; -1: none yet */
    int status_fd;  /* anon, thp: the process's status */
    char range[40]; /* anon, thp: the mapping as smaps writes it */
    uint64_t exact_kib;  /* last exact reading, */
    uint64_t exact_cost; /*   how many ns it took, */
    uint64_t exact_end;  /*   and when it ended */
    uint64_t other_kib;  /* what the process holds besides */
};

void residency_init(struct residency *residency, pid_t pid, enum backing backing, uint64_t bytes);

/* Look for the mapping. False: not there (yet). */
bool residency_find(struct residency *residency);

/* How a reading may be taken: without delay; as is usual; with all the time it needs. */
enum residency_care { RESIDENCY_QUICK, RESIDENCY_USUAL, RESIDENCY_EXACT };

/*
 * What the host holds now, in KiB, once the mapping is found. False: the
 * process is gone.
 *
 * A memfd's blocks are read in a microsecond. For anonymous memory the kernel
 * walks the page table (10 ms per GiB), so readings take the change of the
 * process's anonymous memory since the last walk. They walk again where that is
 * short; where it is long, the usual ones once a second or more rarely, so that
 * walks take 1 % of a CPU at most, and the quick ones never.
 */
bool residency_read(struct residency *residency, enum residency_care care, uint64_t *kib);

void residency_close(struct residency *residency);

#endif
