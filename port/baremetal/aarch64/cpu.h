/* SPDX-License-Identifier: BSD-2-Clause */
/* The bare-metal port's machine-dependent part: aarch64, at EL1. Atomic instructions need memory
 * that is cached, so the MMU is on before anything of ebb is called. */
#ifndef EBB_PORT_BAREMETAL_AARCH64_CPU_H
#define EBB_PORT_BAREMETAL_AARCH64_CPU_H

#include "../baremetal.h"

static inline struct ebb_baremetal_cpu *ebb__this_cpu(void)
{
    struct ebb_baremetal_cpu *cpu;

    __asm__ volatile("mrs %0, tpidr_el1" : "=r"(cpu));
    return cpu;
}

/* Interrupts (IRQ and FIQ) off; returns what ebb__irq_restore() needs. */
static inline uint64_t ebb__irq_save(void)
{
    uint64_t flags;

    __asm__ volatile("mrs %0, daif\n\tmsr daifset, #3" : "=r"(flags) : : "memory");
    return flags;
}

static inline void ebb__irq_restore(uint64_t flags)
{
    __asm__ volatile("msr daif, %0" : : "r"(flags) : "memory");
}

static inline void ebb__pause(void)
{
    __asm__ volatile("yield" : : : "memory");
}

#endif
