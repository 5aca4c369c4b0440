/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * x86-64: address spaces. Each has a root of its own, with the kernel's lower half in it; which CPU
 * has loaded which is vm.c's business. And TLBs: of this CPU by loading the root again, of others
 * by an interrupt that makes them do so.
 */
#include "x86.h"

#define USER_SLOT (ARCH_USER_START >> ARCH_USER_SHIFT & 511)

void arch_space_init(uint64_t *root, const uint64_t *top)
{
    const uint64_t *kernel = arch_pointer(paging_root());

    for (unsigned i = 0; i < 512; i++)
        root[i] = kernel[i];
    root[USER_SLOT] = arch_entry_table(arch_address(top));
}

void arch_space_load(const uint64_t *root)
{
    uint64_t address = root ? arch_address(root) : paging_root();

    __asm__ volatile("movq %0, %%cr3" : : "r"(address) : "memory");
}

/* No entry is global: this forgets all of them. */
static void flush_self(void)
{
    uint64_t root;

    __asm__ volatile("movq %%cr3, %0\n\tmovq %0, %%cr3" : "=r"(root) : : "memory");
}

/* ---- TLBs of other CPUs ---- */

/* Whatever was asked for until now is done by one flush. */
void space_flush_interrupt(void)
{
    struct cpu *cpu = cpu_self();
    uint32_t wanted = __atomic_load_n(&cpu->flush_wanted, __ATOMIC_ACQUIRE);

    flush_self();
    __atomic_store_n(&cpu->flush_done, wanted, __ATOMIC_RELEASE);
}

static uint32_t ask(struct cpu *cpu)
{
    uint32_t wanted = __atomic_add_fetch(&cpu->flush_wanted, 1u, __ATOMIC_SEQ_CST);

    apic_send(cpu->apic_id, VECTOR_FLUSH);
    return wanted;
}

static void await(const struct cpu *cpu, uint32_t wanted)
{
    while ((int32_t)(__atomic_load_n(&cpu->flush_done, __ATOMIC_ACQUIRE) - wanted) < 0)
        cpu_pause();
}

/* Two CPUs that wait for each other answer each other, since interrupts are on. */
void arch_flush(uint64_t cpus)
{
    uint32_t wanted[ARCH_CPU_LIMIT];
    uint64_t self = (uint64_t)1 << ebb_port_cpu();
    uint64_t others = cpus & ~self;

    if (others && !cpu_interrupts_enabled())
        arch_panic("a flush of other CPUs' TLBs with interrupts off");
    for (uint64_t left = others; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctzll(left);
        wanted[i] = ask(cpu_number(i));
    }
    if (cpus & self)
        flush_self();
    for (uint64_t left = others; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctzll(left);
        await(cpu_number(i), wanted[i]);
    }
}

/* ---- page faults, from entry.S ---- */

#define ERROR_WRITE 2u

/* A frame that is not there, read or written: vm.c may know what belongs there. Interrupts are off;
 * they may come on for a while if they were on where it happened. */
bool trap_page_fault(uint64_t address, uint64_t error, uint64_t rflags)
{
    return !(error & ~(uint64_t)ERROR_WRITE) && guest_page_fault(address, rflags & RFLAGS_IF);
}
