/* SPDX-License-Identifier: BSD-2-Clause */
/* The bare-metal port's lock and CPU number. A kernel whose build of ebb names this header in
 * EBB_PORT_INLINE (ebb/port.h) has them inlined; another finds them in port.c. */
#ifndef EBB_PORT_BAREMETAL_INLINE_H
#define EBB_PORT_BAREMETAL_INLINE_H

#include "baremetal.h"

#if defined(__x86_64__)
#include "x86_64/cpu.h"
#elif defined(__aarch64__)
#include "aarch64/cpu.h"
#elif defined(__riscv) && __riscv_xlen == 64
#include "riscv64/cpu.h"
#else
#error "port/baremetal: this machine has no cpu.h yet"
#endif

/* The lock is held by somebody else: wait, and take it. `saved` is from
 * ebb__irq_save(), as is what it returns. */
uint64_t ebb__baremetal_lock_slow(struct ebb_lock *lock, uint64_t saved);

/*
 * Test and set, not a ticket lock: virtual CPUs outnumber real ones, and a
 * ticket whose owner the hypervisor has just descheduled would stop everybody
 * behind it. Interrupts come back on while it waits.
 */
static inline void ebb__baremetal_lock(struct ebb_lock *lock)
{
    uint64_t saved = ebb__irq_save();

    if (EBB_UNLIKELY(__atomic_exchange_n(&lock->word, 1u, __ATOMIC_ACQUIRE)))
        saved = ebb__baremetal_lock_slow(lock, saved);
    lock->saved = saved;
}

static inline void ebb__baremetal_unlock(struct ebb_lock *lock)
{
    uint64_t saved = lock->saved; /* the next owner overwrites it */

    __atomic_store_n(&lock->word, 0u, __ATOMIC_RELEASE);
    ebb__irq_restore(saved);
}

#ifdef EBB_PORT_INLINE
static inline void ebb_port_lock(struct ebb_lock *lock)
{
    ebb__baremetal_lock(lock);
}

static inline bool ebb_port_trylock(struct ebb_lock *lock)
{
    uint64_t saved = ebb__irq_save();

    if (EBB_UNLIKELY(__atomic_exchange_n(&lock->word, 1u, __ATOMIC_ACQUIRE))) {
        ebb__irq_restore(saved);
        return false;
    }
    lock->saved = saved;
    return true;
}

static inline void ebb_port_unlock(struct ebb_lock *lock)
{
    ebb__baremetal_unlock(lock);
}

static inline unsigned ebb_port_cpu(void)
{
    return ebb__this_cpu()->number;
}
#endif

#endif
