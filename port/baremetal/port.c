/* SPDX-License-Identifier: BSD-2-Clause */
/* The bare-metal port: see baremetal.h. */
#include "port_inline.h"

uint64_t ebb__baremetal_lock_slow(struct ebb_lock *lock, uint64_t saved)
{
    do {
        ebb__irq_restore(saved);
        while (__atomic_load_n(&lock->word, __ATOMIC_RELAXED))
            ebb__pause();
        saved = ebb__irq_save();
    } while (__atomic_exchange_n(&lock->word, 1u, __ATOMIC_ACQUIRE));
    return saved;
}

#ifndef EBB_PORT_INLINE
void ebb_port_lock(struct ebb_lock *lock)
{
    ebb__baremetal_lock(lock);
}

void ebb_port_unlock(struct ebb_lock *lock)
{
    ebb__baremetal_unlock(lock);
}

unsigned ebb_port_cpu(void)
{
    return ebb__this_cpu()->number;
}
#endif

uint64_t ebb_port_now(void)
{
    return ebb__this_cpu()->system->now();
}

void ebb_port_wake(void *worker)
{
    ebb__this_cpu()->system->wake(worker);
}

void ebb_port_relax(void)
{
    ebb__pause();
}

void ebb_port_misuse(const struct ebb_misuse *misuse)
{
    ebb__this_cpu()->system->misuse(misuse);
}

_Noreturn void ebb_port_panic(const char *why)
{
    ebb__this_cpu()->system->panic(why);
    for (;;)
        ebb__pause();
}
