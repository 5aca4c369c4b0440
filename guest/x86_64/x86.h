/* SPDX-License-Identifier: BSD-2-Clause */
/* x86-64: instructions, numbers, and what the files of this folder offer each other. */
#ifndef GUEST_X86_64_X86_H
#define GUEST_X86_64_X86_H

/* Also for assembly. */
#define SELECTOR_CODE   0x08
#define SELECTOR_DATA   0x10
#define SELECTOR_TSS    0x18
#define SELECTOR_CODE32 0x28

#define TRAMPOLINE 0x8000 /* where further CPUs start: a frame below 640 KiB */

#ifndef __ASSEMBLER__

#include "../../port/baremetal/baremetal.h"
#include "../guest.h"

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline void outl(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
static inline uint16_t inw(uint16_t port)
{
    uint16_t value;
    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
static inline uint32_t inl(uint16_t port)
{
    uint32_t value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}
static inline void outs(uint16_t port, const void *data, size_t len)
{
    __asm__ volatile("rep outsb" : "+S"(data), "+c"(len) : "d"(port) : "memory");
}
static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
    return (uint64_t)high << 32 | low;
}
static inline void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr"
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}
static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}
struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};
static inline struct cpuid cpuid(uint32_t leaf)
{
    struct cpuid r;
    __asm__ volatile("cpuid"
                     : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                     : "a"(leaf), "c"(0u));
    return r;
}
static inline void cpu_pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}
static inline _Noreturn void cpu_halt(void)
{
    for (;;)
        __asm__ volatile("cli\n\thlt" : : : "memory");
}

#define RFLAGS_IF     0x200u
#define MSR_APIC_BASE 0x1bu
#define MSR_GS_BASE   0xc0000101u

/* Interrupt vectors. */
#define VECTOR_NMI      2u
#define VECTOR_FAULT    14u
#define VECTOR_PIC      0x20u /* 16 of them: all masked, may come spuriously */
#define VECTOR_TIMER    0x40u
#define VECTOR_WORKER   0x41u
#define VECTOR_JOB      0x42u
#define VECTOR_CONSOLE  0x43u
#define VECTOR_BALLOON  0x44u
#define VECTOR_FLUSH    0x45u
#define VECTOR_CONFIG   0x46u
#define VECTOR_SPURIOUS 0xffu

/* What entry.S pushes. */
struct trap {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};

struct tss {
    uint32_t reserved0;
    uint32_t rsp[6];
    uint32_t reserved1[2];
    uint32_t ist[14]; /* seven addresses, low half first */
    uint32_t reserved2[2];
    uint16_t reserved3;
    uint16_t io_map;
} __attribute__((packed));
_Static_assert(sizeof(struct tss) == 104, "as the processor wants it");

#define CPU_STACK   16384u
#define FAULT_STACK 4096u

struct cpu {
    struct ebb_baremetal_cpu port; /* first: the gs base points here */
    uint64_t gdt[8];
    struct tss tss;
    uint8_t *fault_stack; /* for double faults and NMIs */
    uint32_t apic_id;
    uint32_t flush_wanted, flush_done; /* atomic: flushes of the TLB asked for by others */
    /* Written by this CPU alone, with interrupts off; idle_writes is odd meanwhile. */
    uint32_t idle_writes;
    uint64_t idle_since; /* 0: not in arch_wait() */
    uint64_t idle_ns;
};

/* ---- boot.S, entry.S, link.ld ---- */
extern char image_start[], image_end[], text_start[], text_end[];
extern const char ap_trampoline[], ap_trampoline_end[];
extern const uint64_t trap_stubs[256];
void page_fault_entry(void);
extern uint32_t ap_next;                   /* number of the next CPU to arrive */
extern uint64_t ap_stacks[ARCH_CPU_LIMIT]; /* by that number */
_Noreturn void arch_start(uint64_t start_info);
_Noreturn void ap_start(uint64_t number);

/* ---- cpu.c ---- */
void cpu_init_boot(void); /* this is CPU 0; interrupt table */
bool cpu_known(void);
struct cpu *cpu_number(unsigned number);
static inline struct cpu *cpu_self(void)
{
    struct cpu *cpu;

    /* Volatile: not before the base is set, however much is inlined. */
    __asm__ volatile("movq %%gs:0, %0" : "=r"(cpu));
    return cpu;
}
static inline bool cpu_interrupts_enabled(void)
{
    uint64_t flags;

    __asm__ volatile("pushfq\n\tpopq %0" : "=r"(flags));
    return flags & RFLAGS_IF;
}
void trap_dispatch(struct trap *trap);

/* ---- trap.c ---- */
_Noreturn void trap_panic(const struct trap *trap, const char *why);
_Noreturn void trap_stopped(void); /* another CPU is in a panic */
bool trap_panicking(void);

/* ---- acpi.c ---- */
#define IOAPIC_LIMIT   8u
#define OVERRIDE_LIMIT 24u
struct acpi {
    bool found;
    uint32_t cpu_ids[ARCH_CPU_LIMIT];
    unsigned cpus;
    unsigned cpus_beyond; /* more than ARCH_CPU_LIMIT: not used */
    struct {
        uint64_t address;
        uint32_t base;
    } ioapics[IOAPIC_LIMIT];
    unsigned ioapic_count;
    struct {
        uint8_t irq;
        uint32_t line;
        uint16_t flags;
    } overrides[OVERRIDE_LIMIT];
    unsigned override_count;
    uint16_t pm_timer; /* I/O port, 0: none */
};
extern struct acpi acpi;
void acpi_init(uint64_t rsdp);

/* ---- apic.c ---- */
void apic_init(void);     /* once, on CPU 0 */
void apic_init_cpu(void); /* on each CPU */
uint32_t apic_id(void);
void apic_eoi(void);
void apic_send(uint32_t target, unsigned vector);
void apic_send_others(unsigned vector);
void apic_nmi_others(void);
void apic_start_cpu(uint32_t target, uint8_t page);
void apic_timer_start(uint32_t count);
uint32_t apic_timer_left(void);
int apic_line_route(unsigned line, unsigned vector, bool level, bool low);
/* Line of an ISA interrupt, and its polarity. */
void apic_isa_route(unsigned irq, unsigned vector);
unsigned apic_ioapics(void);

/* ---- time.c ---- */
void time_init(void);
void time_wait_us(uint64_t us); /* not before time_init() */

/* ---- paging.c ---- */
void paging_init(const struct arch_boot *boot);
uint64_t paging_root(void);

/* ---- space.c ---- */
void space_flush_interrupt(void);
bool trap_page_fault(uint64_t address, uint64_t error, uint64_t rflags);

/* ---- pvh.c ---- */
uint16_t fw_cfg_cpus(void);

/* ---- serial.c ---- */
void serial_init(void);
void serial_enable_input(void);
void serial_interrupt(void);

/* ---- symbols.c ---- */
/* The function that holds an address, or NULL. */
const char *symbol_find(uint64_t address, uint64_t *offset);

#endif
#endif
