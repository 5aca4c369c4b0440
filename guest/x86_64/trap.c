/* SPDX-License-Identifier: BSD-2-Clause */
/* x86-64: the panic. Registers, a backtrace by frame pointers, a non-zero exit. */
#include "x86.h"

static uint32_t panicking; /* atomic: number of the CPU in a panic, plus 1 */

static const char *const exceptions[32] = {
    [0] = "divide error",
    [1] = "debug",
    [2] = "non-maskable interrupt",
    [3] = "breakpoint",
    [4] = "overflow",
    [5] = "bound range exceeded",
    [6] = "invalid opcode",
    [7] = "device not available",
    [8] = "double fault",
    [10] = "invalid TSS",
    [11] = "segment not present",
    [12] = "stack fault",
    [13] = "general protection",
    [14] = "page fault",
    [16] = "x87 error",
    [17] = "alignment check",
    [18] = "machine check",
    [19] = "SIMD error",
    [21] = "control protection",
};

bool trap_panicking(void)
{
    return __atomic_load_n(&panicking, __ATOMIC_ACQUIRE) != 0;
}

_Noreturn void trap_stopped(void)
{
    cpu_halt();
}

static void print_address(unsigned n, uint64_t address)
{
    uint64_t offset;
    const char *name = symbol_find(address, &offset);

    if (name)
        console_print("  #%u  %016lx  %s+0x%lx\n", n, address, name, offset);
    else
        console_print("  #%u  %016lx\n", n, address);
}

static bool in_text(uint64_t address)
{
    return address >= arch_address(text_start) && address < arch_address(text_end);
}

/* Frames link upwards on one stack; anything else ends the walk. */
static void backtrace(uint64_t rip, uint64_t rbp, uint64_t rsp)
{
    unsigned n = 0;
    uint64_t low = rsp;

    console_print("Backtrace:\n");
    print_address(n++, rip);
    while (n < 24 && rbp % 8 == 0 && rbp >= low && rbp < rsp + CPU_STACK) {
        const uint64_t *frame = arch_pointer(rbp);

        if (!in_text(frame[1]))
            break;
        print_address(n++, frame[1]);
        low = rbp + 16;
        rbp = frame[0];
    }
}

static uint64_t read_cr2(void)
{
    uint64_t value;
    __asm__ volatile("movq %%cr2, %0" : "=r"(value));
    return value;
}
static uint64_t read_cr3(void)
{
    uint64_t value;
    __asm__ volatile("movq %%cr3, %0" : "=r"(value));
    return value;
}

static void print_registers(const struct trap *t)
{
    console_print("rip %016lx  cs %02lx  rflags %08lx  error %lx\n", t->rip, t->cs, t->rflags,
                  t->error);
    console_print("rax %016lx  rbx %016lx  rcx %016lx\n", t->rax, t->rbx, t->rcx);
    console_print("rdx %016lx  rsi %016lx  rdi %016lx\n", t->rdx, t->rsi, t->rdi);
    console_print("rbp %016lx  rsp %016lx  r8  %016lx\n", t->rbp, t->rsp, t->r8);
    console_print("r9  %016lx  r10 %016lx  r11 %016lx\n", t->r9, t->r10, t->r11);
    console_print("r12 %016lx  r13 %016lx  r14 %016lx\n", t->r12, t->r13, t->r14);
    console_print("r15 %016lx  cr2 %016lx  cr3 %016lx\n", t->r15, read_cr2(), read_cr3());
}

/* Only one CPU panics; the others are stopped where they are. */
static void panic_begin(void)
{
    uint32_t nobody = 0;
    uint32_t self = cpu_known() ? ebb_port_cpu() + 1 : 1;

    arch_interrupts_off();
    if (!__atomic_compare_exchange_n(&panicking, &nobody, self, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        if (nobody == self) /* a fault inside the panic */
            arch_exit(STATUS_PANIC);
        cpu_halt();
    }
    apic_nmi_others();
    console_emergency();
}

_Noreturn void trap_panic(const struct trap *trap, const char *why)
{
    const char *name = trap->vector < 32 ? exceptions[trap->vector] : NULL;

    panic_begin();
    console_print("\nPANIC on CPU %u: %s (vector %lu)\n", cpu_known() ? ebb_port_cpu() : 0,
                  why    ? why
                  : name ? name
                         : "unexpected interrupt",
                  trap->vector);
    if (trap->vector == 14)
        console_print("%s of address %016lx\n", trap->error & 2 ? "write" : "read", read_cr2());
    print_registers(trap);
    backtrace(trap->rip, trap->rbp, trap->rsp);
    telemetry_end(STATUS_PANIC);
    arch_exit(STATUS_PANIC);
}

/* Registers as they are here, without an exception. */
__attribute__((noinline)) _Noreturn void arch_panic(const char *why)
{
    struct trap trap = {.vector = 3};

    __asm__ volatile("movq %%rbx, %0\n\tmovq %%r12, %1\n\tmovq %%r13, %2\n\t"
                     "movq %%r14, %3\n\tmovq %%r15, %4\n\tmovq %%rsp, %5\n\tmovq %%rbp, %6"
                     : "=m"(trap.rbx), "=m"(trap.r12), "=m"(trap.r13), "=m"(trap.r14),
                       "=m"(trap.r15), "=m"(trap.rsp), "=m"(trap.rbp));
    __asm__ volatile("pushfq\n\tpopq %0\n\tmovq %%cs, %1\n\tleaq 0(%%rip), %2"
                     : "=r"(trap.rflags), "=r"(trap.cs), "=r"(trap.rip));
    panic_begin();
    console_print("\nPANIC on CPU %u: %s\n", ebb_port_cpu(), why);
    print_registers(&trap);
    backtrace(trap.rip, trap.rbp, trap.rsp);
    telemetry_end(STATUS_PANIC);
    arch_exit(STATUS_PANIC);
}
