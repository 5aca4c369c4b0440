/* SPDX-License-Identifier: BSD-2-Clause */
/* One function on all CPUs at once. */
#include "guest.h"

static unsigned online = 1;

static struct {
    void (*fn)(unsigned cpu, void *arg);
    void *arg;
    uint32_t sequence; /* atomic: counts jobs */
    uint32_t running;  /* atomic: CPUs, but for CPU 0, that are not done */
} job;

void cpus_set(unsigned n)
{
    online = n;
}

unsigned cpus_online(void)
{
    return online;
}

_Noreturn void guest_cpu_main(unsigned cpu)
{
    uint32_t seen = 0;

    for (;;) {
        arch_interrupts_off();
        while (__atomic_load_n(&job.sequence, __ATOMIC_ACQUIRE) == seen) {
            arch_wait();
            arch_interrupts_off();
        }
        arch_interrupts_on();
        seen++;
        if (cpu >= online) /* it came too late to be counted */
            continue;
        job.fn(cpu, job.arg);
        if (__atomic_sub_fetch(&job.running, 1u, __ATOMIC_ACQ_REL) == 0)
            arch_interrupt_worker(); /* out of its arch_wait() */
    }
}

void cpus_run(void (*fn)(unsigned cpu, void *arg), void *arg)
{
    job.fn = fn;
    job.arg = arg;
    __atomic_store_n(&job.running, online - 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&job.sequence, 1u, __ATOMIC_RELEASE);
    if (online > 1)
        arch_interrupt_others();
    fn(0, arg);

    arch_interrupts_off();
    while (__atomic_load_n(&job.running, __ATOMIC_ACQUIRE) > 0) {
        arch_wait();
        arch_interrupts_off();
    }
    arch_interrupts_on();
}
