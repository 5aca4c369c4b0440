/* SPDX-License-Identifier: BSD-2-Clause */
/* The bare-metal port: see baremetal.h. */
#include "baremetal.h"

#if defined(__x86_64__)
#include "x86_64/cpu.h"
#else
#error "port/baremetal: this machine has no cpu.h yet"
#endif

/*
 * Test and set, not a ticket lock: virtual CPUs outnumber real ones, and a
 * ticket whose owner the hypervisor has just descheduled would stop everybody
 * behind it. Interrupts come back on while it waits.
 */
void ebb_port_lock(struct ebb_lock *lock)
{
    uint64_t saved = ebb__irq_save();

    while (__atomic_exchange_n(&lock->word, 1u, __ATOMIC_ACQUIRE)) {
        ebb__irq_restore(saved);
        while (__atomic_load_n(&lock->word, __ATOMIC_RELAXED))
            ebb__pause();
        saved = ebb__irq_save();
    }
    lock->saved = saved;
}

void ebb_port_unlock(struct ebb_lock *lock)
{
    uint64_t saved = lock->saved; /* the next owner overwrites it */

    __atomic_store_n(&lock->word, 0u, __ATOMIC_RELEASE);
    ebb__irq_restore(saved);
}

unsigned ebb_port_cpu(void)
{
    return ebb__this_cpu()->number;
}

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
