/* SPDX-License-Identifier: BSD-2-Clause */
/* The bare-metal port's machine-dependent part: x86-64. */
#ifndef EBB_PORT_BAREMETAL_X86_64_CPU_H
#define EBB_PORT_BAREMETAL_X86_64_CPU_H

#include "../baremetal.h"

#define EBB__RFLAGS_IF 0x200u

static inline struct ebb_baremetal_cpu *ebb__this_cpu(void)
{
    struct ebb_baremetal_cpu *cpu;

    __asm__ volatile("movq %%gs:0, %0" : "=r"(cpu));
    return cpu;
}

/* Interrupts off; returns what ebb__irq_restore() needs. pushfq overwrites a red zone. */
static inline uint64_t ebb__irq_save(void)
{
    uint64_t flags;

    __asm__ volatile("pushfq\n\tpopq %0\n\tcli" : "=r"(flags) : : "memory");
    return flags;
}

static inline void ebb__irq_restore(uint64_t flags)
{
    if (flags & EBB__RFLAGS_IF)
        __asm__ volatile("sti" : : : "memory");
}

static inline void ebb__pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}

#endif
