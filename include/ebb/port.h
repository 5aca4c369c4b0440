/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The port: all that ebb's freestanding parts ask of the system they run on.
 * One folder per host below port/ implements it; tests bring a virtual one.
 *
 * A lock taken and released by a call costs as much as the rest of an allocation
 * from a cache. So whoever compiles ebb for one port may let EBB_PORT_INLINE name
 * a header (as #include takes it) that defines ebb_port_lock, ebb_port_unlock and
 * ebb_port_cpu as static inline, and bool ebb_port_trylock(lock), which is
 * ebb_port_lock() unless somebody holds the lock, when it returns false and changes
 * nothing. They are then not looked for when linking.
 *
 * Blanket preconditions: every function may be called from interrupt context
 * and from any CPU or thread, none may allocate from an ebb zone, none may
 * call back into ebb unless it says so.
 */
#ifndef EBB_PORT_H
#define EBB_PORT_H

#include <ebb/types.h>

/*
 * A lock. Zero-filled memory is a valid, unlocked lock. The port may use the
 * fields as it likes; ebb only ever passes the address.
 */
struct ebb_lock {
    uint32_t word;
    uint32_t pad;
    uint64_t saved;
};

/*
 * Take / release a lock. Not recursive. Where interrupts exist, the lock must
 * also keep them off on this CPU while it is held (and put back the state it
 * found), since ebb_free() and ebb_report_complete() may run in one. ebb never
 * holds a lock across a device's submit(); a pass holds one for a bounded time,
 * isolating a range, adding or removing frames for as long as that takes. It takes them
 * in one order only: a per-CPU cache's, then its zone's. An engine's lock is
 * held with no other.
 */
#ifndef EBB_PORT_INLINE
void ebb_port_lock(struct ebb_lock *lock);
void ebb_port_unlock(struct ebb_lock *lock);
#endif

/* A number for this CPU or thread, to choose a per-CPU cache by. Any value is
 * allowed (it is taken modulo the zone's number of caches) and it may be stale
 * when it is used: the caches have locks. */
#ifndef EBB_PORT_INLINE
unsigned ebb_port_cpu(void);
#endif

/* Monotonic time in nanoseconds. */
uint64_t ebb_port_now(void);

/* See to it that ebb_report_run() is called soon on the engine whose
 * configuration named this worker. May be called spuriously, and from inside
 * ebb_report_run() itself. Called with no ebb lock held. */
void ebb_port_wake(void *worker);

/* Called in loops that wait for another CPU or for the device: pause or yield,
 * do not sleep for long. */
void ebb_port_relax(void);

/* What a caller did wrong (ebb_port_misuse). */
enum ebb_misuse_kind {
    EBB_MISUSE_DOUBLE_FREE = 1, /* the block is free, cached or with the host already */
    EBB_MISUSE_FOREIGN_PFN,     /* not a frame of this zone, or a hole in it */
    EBB_MISUSE_WRONG_ORDER,     /* allocated with another order; `found` says which */
    EBB_MISUSE_MISALIGNED,      /* pfn is not a multiple of 2^order */
    EBB_MISUSE_INSIDE_BLOCK,    /* pfn lies inside the allocated block `found_pfn` */
    /* A frame does not hold what its zone fills free frames with (zone.h, enum
     * ebb_fill): `found_pfn`, in the block that was being allocated at pfn. */
    EBB_MISUSE_WRITE_AFTER_FREE,
};

struct ebb_misuse {
    enum ebb_misuse_kind kind;
    ebb_pfn_t pfn;       /* as passed by the caller */
    unsigned order;      /* as passed by the caller */
    ebb_pfn_t found_pfn; /* the block that was found there, where one was */
    unsigned found;      /* its order */
    const char *what;    /* one English sentence, static storage */
};

/* A caller misused the allocator. The operation is refused (an allocation that finds
 * EBB_MISUSE_WRITE_AFTER_FREE goes on) and the zone is intact; the port decides whether to log,
 * count or stop. Called with no ebb lock held. May return. */
void ebb_port_misuse(const struct ebb_misuse *misuse);

/* An internal invariant is broken. Must not return. */
_Noreturn void ebb_port_panic(const char *why);

#ifdef EBB_PORT_INLINE
#include EBB_PORT_INLINE
#endif

#endif
