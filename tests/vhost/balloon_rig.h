/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of the balloon device share: a guest's memory on a memfd, a pool and a discard
 * whose system calls can be held up, a device, and a driver that writes to the rings as it likes.
 *
 * Guest memory: LOW (rings and buffers), a hole, and HIGH with HIGH2 right behind it, all of 4 KiB
 * pages; a hole again; and BIG, of which only 64 KiB can be discarded together.
 */
#ifndef EBB_TESTS_BALLOON_RIG_H
#define EBB_TESTS_BALLOON_RIG_H

#include <ebb/vhost/balloon_device.h>

#include <pthread.h>

#define RIG_LOW        0x00100000u
#define RIG_LOW_BYTES  0x00400000u
#define RIG_HIGH       0x40000000u
#define RIG_HIGH_BYTES 0x00800000u
#define RIG_HIGH2      (RIG_HIGH + RIG_HIGH_BYTES)
#define RIG_BIG        0x80000000u
#define RIG_BIG_BYTES  0x00200000u
#define RIG_BIG_PAGE   0x00010000u
#define RIG_BYTES      (RIG_LOW_BYTES + 2 * RIG_HIGH_BYTES + RIG_BIG_BYTES)

#define RIG_RING    64u                    /* entries */
#define RIG_BUFFERS (RIG_LOW + 0x00100000) /* behind the rings */
#define RIG_CALLS   4096u
#define RIG_HINTS   64u
#define RIG_ALL                                                                         \
    (EBB_F_MUST_TELL_HOST | EBB_F_STATS_VQ | EBB_F_FREE_PAGE_HINT | EBB_F_PAGE_POISON | \
     EBB_F_PAGE_REPORTING)

/* One queue as the driver sees it. */
struct rig_queue {
    uint64_t desc, avail, used; /* guest addresses */
    uint16_t next_avail, seen_used;
    unsigned next_desc;
    uint16_t avail_flags;
};

struct rig {
    int fd;
    uint8_t *ram; /* the file, mapped */
    struct ebb_memory memory;
    struct ebb_discard_pool *pool;
    struct ebb_discard *discard;
    struct ebb_balloon_device *device;
    struct ebb_balloon_device_config config;
    struct rig_queue queues[EBB_BALLOON_QUEUES];

    /* What the device called. */
    unsigned calls[EBB_BALLOON_QUEUES], config_changes, needs_resets;
    unsigned hints;
    struct ebb_range hinted[RIG_HINTS];
    uint64_t now;

    /* With the lock: what pool threads did. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool hold;        /* they wait in the next system call */
    unsigned waiting; /* in it */
    unsigned wakes;
    unsigned punches;
    uint64_t punched[RIG_CALLS]; /* guest addresses, in order */
};
extern struct rig rig;

/* A new guest and device, features accepted, all queues that exist started. */
void rig_init(const struct ebb_balloon_device_config *config, uint64_t features);
/* The same on memory and rings as they are. */
void rig_new_device(const struct ebb_balloon_device_config *config);
void rig_exit(void);
int rig_setup(void **state); /* rig_init() with all defaults, all features */
int rig_teardown(void **state);

/* Host address of guest memory. */
void *rig_at(uint64_t gpa);
void rig_put(uint64_t gpa, uint64_t value, unsigned bytes);
uint64_t rig_get(uint64_t gpa, unsigned bytes);
void rig_fill(uint64_t gpa, uint64_t bytes);
/* Is all of it as rig_fill() left it / dropped? */
bool rig_kept(uint64_t gpa, uint64_t bytes);
bool rig_gone(uint64_t gpa, uint64_t bytes);

/* The ring of a queue, as the device starts it. */
struct ebb_balloon_device_vring rig_vring(unsigned queue);
void rig_start(unsigned queue);

/* Write a descriptor, an entry of the available ring; and move its index. */
void rig_desc(unsigned queue, unsigned index, uint64_t addr, uint32_t len, unsigned flags,
              unsigned next);
void rig_offer(unsigned queue, unsigned head);

/* A chain of one buffer or more; not notified. */
void rig_chain(unsigned queue, const struct ebb_ring_buf *bufs, unsigned n);
void rig_readable(unsigned queue, uint64_t addr, uint32_t len);
void rig_writable(unsigned queue, uint64_t addr, uint32_t len);
/* A buffer of consecutive page numbers, at a place of its own. */
void rig_pfns(unsigned queue, uint64_t gpa, unsigned pages);
void rig_command(uint32_t id);

/* Chains that came back since it was last asked; checks that their length is 0. */
unsigned rig_back(unsigned queue);

void rig_kick(unsigned queue);
/* Let the device work until there is nothing left to do. */
void rig_settle(void);

/* The system calls of the rig's discard. */
const struct ebb_discard_ops *rig_discard_ops(void);
/* Hold up the pool's next system call, and wait for it; let it go on. */
void rig_hold(void);
void rig_wait_held(void);
void rig_release(void);
/* The pool is through, and asked for work(). */
void rig_wait_wakes(unsigned n);
unsigned rig_wakes(void);

struct ebb_discard_stats rig_discards(void);
uint64_t rig_fault(enum ebb_balloon_fault fault);
uint64_t rig_faults(void); /* of all kinds */

#endif
