/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VM's memory, a discard on it, and system calls that are the real ones unless a test wants them
 * otherwise. Every frame is stamped, so that a test can tell which were dropped.
 *
 * Frames 0 to 511 are one region, 512 to 767 a second one that adjoins it in guest addresses and
 * in what is behind it, 768 to 1023 a third one, apart in guest addresses. All are on one file.
 */
#ifndef EBB_TESTS_VHOST_DISCARD_RIG_H
#define EBB_TESTS_VHOST_DISCARD_RIG_H

#include <ebb/vhost/discard.h>

#include <pthread.h>
#include <stdatomic.h>

#define FRAMES     1024u
#define FIRST_B    512u
#define FIRST_C    768u
#define BYTES      (FRAMES * EBB_FRAME_SIZE)
#define GPA_A      UINT64_C(0x100000)
#define GPA_C      UINT64_C(0x100000000)
#define WAIT_S     600 /* a test that waits longer has failed */
#define CALLS_KEPT 64u

/* Of a discarding call. */
struct rig_call {
    int fd;         /* -1: madvise() */
    uint64_t start; /* in the file, or from where memory is mapped */
    uint64_t len;
};

struct rig_ops {
    struct ebb_discard_ops ops;
    uint8_t *map;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    uint64_t now;     /* 0: the real clock */
    uint64_t call_ns; /* that a discarding call takes, of the virtual clock */
    unsigned calls;   /* that discard */
    struct rig_call call[CALLS_KEPT];
    unsigned looks;   /* mincore, seek or blocks */
    bool lie;         /* discarding calls succeed without effect */
    bool gate;        /* they wait */
    unsigned at_gate; /* that wait now */
    unsigned fail_at; /* the number of the first that fails, from 1 on; 0: none */
    unsigned fail_n;  /* how many do */
    int fail_errno;
    int look_errno;       /* of mincore, seek and blocks; 0: none */
    uint64_t taken, size; /* what blocks() says; size 0: the truth */
};

struct rig {
    struct ebb_memory memory;
    struct rig_ops ops;
    struct ebb_discard_pool *pool;
    struct ebb_discard *discard;
    enum ebb_backing backing;
    int fd;
    uint8_t *map, *mapped; /* aligned to 4 MiB; as mmap() said */
    uint64_t ns;           /* that batches have; 0: any time */
    unsigned done;         /* under ops.lock */
};

/* Backing pages of `page` bytes, as far as the table knows. config: NULL, or one whose pool (NULL:
 * one of one thread), memory and ops are filled in. */
void rig_start(struct rig *rig, enum ebb_backing backing, uint64_t page,
               const struct ebb_discard_config *config);
void rig_stop(struct rig *rig);
void rig_ops_init(struct rig_ops *ops, uint8_t *map);
/* Gives the regions to a table. */
void rig_add_regions(struct rig *rig, uint64_t page);

uint64_t rig_gpa(unsigned frame);
struct ebb_range rig_range(unsigned frame, unsigned frames);
void rig_stamp(struct rig *rig);
/* Was it dropped? Anything but its stamp or zeroes fails the test. */
bool rig_dropped(const struct rig *rig, unsigned frame);
/* Exactly [first, first + n) was dropped. */
void rig_expect_dropped(const struct rig *rig, unsigned first, unsigned n);

/* submit() with a done() that counts. */
int rig_submit(struct rig *rig, enum ebb_discard_kind kind, const struct ebb_range *ranges,
               unsigned n);
/* Until so many were done. */
void rig_wait_done(struct rig *rig, unsigned n);
/* Submit and wait. */
void rig_run(struct rig *rig, enum ebb_discard_kind kind, const struct ebb_range *ranges,
             unsigned n);
void rig_wait_at_gate(struct rig_ops *ops, unsigned n);
void rig_open_gate(struct rig_ops *ops);
void rig_advance(struct rig_ops *ops, uint64_t ns);

/* Counters that add up. */
struct ebb_discard_stats rig_stats(const struct rig *rig);

#endif
