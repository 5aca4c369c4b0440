/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bare-metal port: ebb's port functions for a kernel of one's own.
 *
 * It has no variables. All it knows it finds through the per-CPU base register
 * (gs on x86-64, TPIDR_EL1 on aarch64, tp on riscv64), which the kernel points at
 * a struct ebb_baremetal_cpu on each CPU before that CPU calls anything of ebb.
 * Locks are spin locks with interrupts off; what is left (clock, wake-up,
 * complaints) the kernel supplies.
 *
 * Compile it, and all of ebb that has it inlined, with the flags of
 * docs/porting.md. On x86-64 it needs -mno-red-zone: its pushfq writes below the
 * stack pointer, where a function with a red zone keeps variables.
 */
#ifndef EBB_PORT_BAREMETAL_H
#define EBB_PORT_BAREMETAL_H

#include <ebb/types.h>

struct ebb_misuse;

/* What the kernel supplies, once for all CPUs. The functions have the
 * preconditions of their namesakes in port.h. */
struct ebb_baremetal_system {
    uint64_t (*now)(void);
    void (*wake)(void *worker);
    void (*misuse)(const struct ebb_misuse *misuse);
    void (*panic)(const char *why); /* must not return */
};

/* One per CPU; usually the first member of the kernel's own per-CPU structure. */
struct ebb_baremetal_cpu {
    struct ebb_baremetal_cpu *self;
    const struct ebb_baremetal_system *system;
    uint32_t number; /* 0, 1, 2 ... */
};

#include <ebb/port.h> /* after the above: it may include port_inline.h, which needs it */

#endif
