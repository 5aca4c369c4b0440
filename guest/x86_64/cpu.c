/* SPDX-License-Identifier: BSD-2-Clause */
/* x86-64: per-CPU state, descriptor tables, and the start of further CPUs. */
#include "x86.h"

struct gate {
    uint16_t offset_low;
    uint16_t selector;
    uint8_t ist;
    uint8_t type;
    uint16_t offset_middle;
    uint32_t offset_high;
    uint32_t reserved;
};
_Static_assert(sizeof(struct gate) == 16, "as the processor wants it");

struct table_register {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

static struct gate gates[256];
static struct cpu boot_cpu;
static uint8_t boot_fault_stack[FAULT_STACK];
static struct cpu *cpus[ARCH_CPU_LIMIT];
static uint32_t arrived[ARCH_CPU_LIMIT] = {1}; /* atomic */
static bool boot_cpu_known;

extern uint32_t ap_cr3;

static _Noreturn void system_panic(const char *why)
{
    arch_panic(why);
}

static void system_misuse(const struct ebb_misuse *misuse)
{
    static const char *const kinds[] = {
        "?",          "double free",    "foreign pfn",      "wrong order",
        "misaligned", "inside a block", "write after free",
    };
    unsigned kind = (unsigned)misuse->kind;

    hold_error();
    console_print("MISUSE of the allocator (%s): pfn %lx order %u, found pfn %lx order %u: %s\n",
                  kinds[kind < sizeof kinds / sizeof kinds[0] ? kind : 0], misuse->pfn,
                  misuse->order, misuse->found_pfn, misuse->found, misuse->what);
}

static const struct ebb_baremetal_system baremetal = {
    .now = arch_now,
    .wake = events_wake,
    .misuse = system_misuse,
    .panic = system_panic,
};

static void load_tables(struct cpu *cpu)
{
    uint64_t tss = arch_address(&cpu->tss);
    uint64_t fault_top = arch_address(cpu->fault_stack) + FAULT_STACK;
    struct table_register gdtr = {.limit = sizeof cpu->gdt - 1, .base = arch_address(cpu->gdt)};
    struct table_register idtr = {.limit = sizeof gates - 1, .base = arch_address(gates)};

    cpu->tss.ist[0] = (uint32_t)fault_top;
    cpu->tss.ist[1] = (uint32_t)(fault_top >> 32);
    cpu->tss.io_map = sizeof cpu->tss;
    cpu->gdt[SELECTOR_CODE / 8] = 0x00af9b000000ffff;
    cpu->gdt[SELECTOR_DATA / 8] = 0x00cf93000000ffff;
    cpu->gdt[SELECTOR_TSS / 8] = (sizeof cpu->tss - 1) | (tss & 0xffffff) << 16 |
                                 (uint64_t)0x89 << 40 | (tss >> 24 & 0xff) << 56;
    cpu->gdt[SELECTOR_TSS / 8 + 1] = tss >> 32;
    __asm__ volatile("lgdt %0\n\tlidt %1\n\tltr %w2"
                     :
                     : "m"(gdtr), "m"(idtr), "r"(SELECTOR_TSS)
                     : "memory");
    wrmsr(MSR_GS_BASE, arch_address(cpu));
}

static void cpu_fill(struct cpu *cpu, unsigned number)
{
    cpu->port.self = &cpu->port;
    cpu->port.system = &baremetal;
    cpu->port.number = number;
    cpus[number] = cpu;
}

void cpu_init_boot(void)
{
    for (unsigned i = 0; i < 256; i++) {
        uint64_t address =
            i == VECTOR_FAULT ? (uint64_t)(uintptr_t)page_fault_entry : trap_stubs[i];

        gates[i].offset_low = (uint16_t)address;
        gates[i].offset_middle = (uint16_t)(address >> 16);
        gates[i].offset_high = (uint32_t)(address >> 32);
        gates[i].selector = SELECTOR_CODE;
        gates[i].type = 0x8e; /* interrupt gate: interrupts off inside */
        gates[i].ist = i == VECTOR_NMI || i == 8 ? 1 : 0;
    }
    boot_cpu.fault_stack = boot_fault_stack;
    cpu_fill(&boot_cpu, 0);
    load_tables(&boot_cpu);
    boot_cpu_known = true;
}

bool cpu_known(void)
{
    return boot_cpu_known;
}

struct cpu *cpu_number(unsigned number)
{
    return cpus[number];
}

/* ---- further CPUs ---- */

_Noreturn void ap_start(uint64_t number)
{
    load_tables(cpus[number]);
    apic_init_cpu();
    cpus[number]->apic_id = apic_id();
    __atomic_store_n(&arrived[number], 1u, __ATOMIC_RELEASE);
    guest_cpu_main((unsigned)number);
}

static void prepare_cpu(unsigned number)
{
    struct cpu *cpu = early_alloc(sizeof *cpu, 64);
    uint8_t *stack = early_alloc(CPU_STACK, 4096);

    cpu->fault_stack = early_alloc(FAULT_STACK, 4096);
    cpu_fill(cpu, number);
    ap_stacks[number] = arch_address(stack) + CPU_STACK;
}

static void install_trampoline(void)
{
    const uint8_t *from = (const uint8_t *)ap_trampoline;
    volatile uint8_t *to = arch_pointer(TRAMPOLINE);

    for (size_t i = 0; i < (size_t)(ap_trampoline_end - ap_trampoline); i++)
        to[i] = from[i];
    ap_cr3 = (uint32_t)paging_root();
}

/* How many are running: those without a gap. A CPU that comes too late waits
 * for work that is never meant for it. */
static unsigned count_arrived(unsigned wanted)
{
    unsigned n = 0;

    while (n < wanted && __atomic_load_n(&arrived[n], __ATOMIC_ACQUIRE))
        n++;
    return n;
}

/* All at once: they number themselves in the order in which they arrive. */
unsigned arch_cpus_start(void)
{
    uint32_t self = apic_id();
    unsigned wanted = acpi.cpus ? acpi.cpus : 1;
    uint64_t deadline = arch_now() + 5 * NS_PER_SEC;
    unsigned started;

    cpus[0]->apic_id = self;
    for (unsigned i = 1; i < wanted; i++)
        prepare_cpu(i);
    install_trampoline();
    for (unsigned i = 0; i < acpi.cpus; i++)
        if (acpi.cpu_ids[i] != self)
            apic_start_cpu(acpi.cpu_ids[i], TRAMPOLINE >> 12);
    while ((started = count_arrived(wanted)) < wanted && arch_now() < deadline)
        cpu_pause();
    if (started < wanted)
        console_print("%u of %u CPUs did not start\n", wanted - started, wanted);
    if (acpi.cpus_beyond)
        console_print("%u CPUs beyond the first %u are not used\n", acpi.cpus_beyond,
                      ARCH_CPU_LIMIT);
    return started;
}

/* ---- interrupts ---- */

void arch_interrupts_on(void)
{
    __asm__ volatile("sti" : : : "memory");
}

void arch_interrupts_off(void)
{
    __asm__ volatile("cli" : : : "memory");
}

static void idle_write(struct cpu *cpu, uint64_t since, uint64_t ns)
{
    __atomic_store_n(&cpu->idle_writes, cpu->idle_writes + 1, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&cpu->idle_since, since, __ATOMIC_RELAXED);
    __atomic_store_n(&cpu->idle_ns, ns, __ATOMIC_RELAXED);
    __atomic_store_n(&cpu->idle_writes, cpu->idle_writes + 1, __ATOMIC_RELEASE);
}

void arch_wait(void)
{
    struct cpu *cpu = cpu_self();

    idle_write(cpu, arch_now(), cpu->idle_ns);
    /* sti takes effect after the next instruction: nothing can come between. */
    __asm__ volatile("sti\n\thlt" : : : "memory");
}

/* An interrupt ends the sleep, before it does anything else. */
static void idle_end(void)
{
    struct cpu *cpu = cpu_self();

    if (cpu->idle_since)
        idle_write(cpu, 0, cpu->idle_ns + (arch_now() - cpu->idle_since));
}

uint64_t arch_idle_ns(unsigned number)
{
    const struct cpu *cpu = cpus[number];
    uint64_t since, ns, now;
    uint32_t before, after;

    do {
        before = __atomic_load_n(&cpu->idle_writes, __ATOMIC_ACQUIRE);
        since = __atomic_load_n(&cpu->idle_since, __ATOMIC_RELAXED);
        ns = __atomic_load_n(&cpu->idle_ns, __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        after = __atomic_load_n(&cpu->idle_writes, __ATOMIC_RELAXED);
    } while (before != after || before & 1);
    now = arch_now();
    return since && now > since ? ns + (now - since) : ns;
}

void trap_dispatch(struct trap *trap)
{
    idle_end();
    switch (trap->vector) {
    case VECTOR_TIMER:
    case VECTOR_WORKER:
        apic_eoi();
        guest_worker_interrupt();
        return;
    case VECTOR_BALLOON:
        guest_balloon_interrupt(); /* takes a level-triggered line back first */
        apic_eoi();
        return;
    case VECTOR_CONFIG:
        apic_eoi();
        guest_config_interrupt();
        return;
    case VECTOR_CONSOLE:
        serial_interrupt();
        apic_eoi();
        return;
    case VECTOR_JOB:
        apic_eoi();
        return;
    case VECTOR_FLUSH:
        space_flush_interrupt();
        apic_eoi();
        return;
    case VECTOR_SPURIOUS:
        return;
    case VECTOR_NMI:
        if (trap_panicking())
            trap_stopped();
        break;
    default:
        if (trap->vector >= VECTOR_PIC && trap->vector < VECTOR_PIC + 16)
            return;
        break;
    }
    trap_panic(trap, NULL);
}
