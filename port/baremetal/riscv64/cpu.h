/* SPDX-License-Identifier: BSD-2-Clause */
/* The bare-metal port's machine-dependent part: riscv64, in S-mode. A trap handler ends a
 * reservation that the interrupted code may have (a store-conditional to its own stack)
 * before it returns, as docs/porting.md says. */
#ifndef EBB_PORT_BAREMETAL_RISCV64_CPU_H
#define EBB_PORT_BAREMETAL_RISCV64_CPU_H

#include "../baremetal.h"

#define EBB__SSTATUS_SIE 0x2u

static inline struct ebb_baremetal_cpu *ebb__this_cpu(void)
{
    struct ebb_baremetal_cpu *cpu;

    __asm__ volatile("mv %0, tp" : "=r"(cpu));
    return cpu;
}

/* Interrupts off; returns what ebb__irq_restore() needs. */
static inline uint64_t ebb__irq_save(void)
{
    uint64_t status;

    __asm__ volatile("csrrci %0, sstatus, %1" : "=r"(status) : "i"(EBB__SSTATUS_SIE) : "memory");
    return status;
}

static inline void ebb__irq_restore(uint64_t status)
{
    __asm__ volatile("csrs sstatus, %0" : : "r"(status & EBB__SSTATUS_SIE) : "memory");
}

static inline void ebb__pause(void)
{
    /* `pause`, a hint that older CPUs and assemblers take for a fence. */
    __asm__ volatile(".4byte 0x0100000f" : : : "memory");
}

#endif
