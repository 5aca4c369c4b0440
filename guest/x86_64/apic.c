/* SPDX-License-Identifier: BSD-2-Clause */
/* x86-64: local APIC (x2APIC where there is one), I/O APICs, the old PIC put to rest. */
#include "x86.h"

/* Registers by their xAPIC offset. */
#define APIC_ID         0x020u
#define APIC_TPR        0x080u
#define APIC_EOI        0x0b0u
#define APIC_SPURIOUS   0x0f0u
#define APIC_ICR        0x300u
#define APIC_ICR_HIGH   0x310u
#define APIC_LVT_TIMER  0x320u
#define APIC_LVT_LINT0  0x350u
#define APIC_LVT_LINT1  0x360u
#define APIC_LVT_ERROR  0x370u
#define APIC_INITIAL    0x380u
#define APIC_CURRENT    0x390u
#define APIC_DIVIDE     0x3e0u
#define APIC_MASKED     0x10000u
#define LVT_NMI         0x400u
#define ICR_BUSY        0x1000u
#define ICR_INIT        0x4500u
#define ICR_STARTUP     0x4600u
#define ICR_NMI         0x4400u
#define ICR_FIXED       0x4000u
#define ICR_OTHERS      0xc0000u
#define BASE_ENABLE     0x800u
#define BASE_X2APIC     0x400u
#define DIVIDE_BY_16    3u
#define X2APIC_MSR      0x800u
#define IOAPIC_LOW      0x2000u /* redirection entry: active low */
#define IOAPIC_LEVEL    0x8000u
#define IOAPIC_MASKED   0x10000u
#define IOAPIC_ENTRY(n) (0x10u + 2u * (n))

static volatile uint32_t *registers; /* NULL in x2APIC mode */
static volatile uint32_t *ioapics[IOAPIC_LIMIT];
static uint32_t boot_id; /* of CPU 0, where all interrupts go */
static bool ready;

static uint32_t read(unsigned offset)
{
    if (registers)
        return registers[offset / 4];
    return (uint32_t)rdmsr(X2APIC_MSR + offset / 16);
}

static void write(unsigned offset, uint32_t value)
{
    if (registers)
        registers[offset / 4] = value;
    else
        wrmsr(X2APIC_MSR + offset / 16, value);
}

uint32_t apic_id(void)
{
    return registers ? read(APIC_ID) >> 24 : read(APIC_ID);
}

void apic_eoi(void)
{
    write(APIC_EOI, 0);
}

/* An interrupt must not send another between the two halves of the command. */
static void command(uint32_t target, uint32_t low)
{
    uint64_t flags;

    __asm__ volatile("pushfq\n\tpopq %0\n\tcli" : "=r"(flags) : : "memory");
    if (registers) {
        while (read(APIC_ICR) & ICR_BUSY)
            cpu_pause();
        write(APIC_ICR_HIGH, target << 24);
        write(APIC_ICR, low);
    } else {
        wrmsr(X2APIC_MSR + APIC_ICR / 16, (uint64_t)target << 32 | low);
    }
    if (flags & 0x200)
        arch_interrupts_on();
}

void apic_send(uint32_t target, unsigned vector)
{
    command(target, ICR_FIXED | vector);
}

void apic_send_others(unsigned vector)
{
    command(0, ICR_OTHERS | ICR_FIXED | vector);
}

void apic_nmi_others(void)
{
    if (ready)
        command(0, ICR_OTHERS | ICR_NMI);
}

void apic_start_cpu(uint32_t target, uint8_t page)
{
    command(target, ICR_INIT);
    time_wait_us(20);
    command(target, ICR_STARTUP | page);
    time_wait_us(20);
    command(target, ICR_STARTUP | page); /* ignored by a CPU that is on its way */
}

void apic_init_cpu(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE) | BASE_ENABLE;

    wrmsr(MSR_APIC_BASE, base);
    if (!registers)
        wrmsr(MSR_APIC_BASE, base | BASE_X2APIC);
    write(APIC_TPR, 0);
    write(APIC_LVT_LINT0, APIC_MASKED);
    write(APIC_LVT_LINT1, LVT_NMI); /* a hypervisor's "inject NMI": panic, and say where */
    write(APIC_LVT_ERROR, APIC_MASKED);
    write(APIC_DIVIDE, DIVIDE_BY_16);
    write(APIC_LVT_TIMER, APIC_MASKED | VECTOR_TIMER);
    write(APIC_SPURIOUS, 0x100 | VECTOR_SPURIOUS);
}

void apic_timer_start(uint32_t count)
{
    write(APIC_LVT_TIMER, VECTOR_TIMER); /* one shot */
    write(APIC_INITIAL, count);
}

uint32_t apic_timer_left(void)
{
    return read(APIC_CURRENT);
}

static void pic_off(void)
{
    outb(0x20, 0x11);
    outb(0xa0, 0x11);
    outb(0x21, VECTOR_PIC);
    outb(0xa1, VECTOR_PIC + 8);
    outb(0x21, 4);
    outb(0xa1, 2);
    outb(0x21, 1);
    outb(0xa1, 1);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

static uint32_t ioapic_read(unsigned i, uint32_t index)
{
    ioapics[i][0] = index;
    return ioapics[i][4];
}

static void ioapic_write(unsigned i, uint32_t index, uint32_t value)
{
    ioapics[i][0] = index;
    ioapics[i][4] = value;
}

static unsigned ioapic_lines(unsigned i)
{
    return (ioapic_read(i, 1) >> 16 & 0xff) + 1;
}

unsigned apic_ioapics(void)
{
    return acpi.ioapic_count;
}

void apic_init(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE);

    pic_off();
    if (!(cpuid(1).ecx & 1u << 21) && !(base & BASE_X2APIC))
        registers = arch_map_device(base & 0xffffff000, 4096);
    apic_init_cpu();
    boot_id = apic_id();
    for (unsigned i = 0; i < acpi.ioapic_count; i++) {
        ioapics[i] = arch_map_device(acpi.ioapics[i].address, 4096);
        for (unsigned n = 0; n < ioapic_lines(i); n++)
            ioapic_write(i, IOAPIC_ENTRY(n), IOAPIC_MASKED);
    }
    ready = true;
}

int apic_line_route(unsigned line, unsigned vector, bool level, bool low)
{
    for (unsigned i = 0; i < acpi.ioapic_count; i++) {
        unsigned n = line - acpi.ioapics[i].base;

        if (line < acpi.ioapics[i].base || n >= ioapic_lines(i))
            continue;
        ioapic_write(i, IOAPIC_ENTRY(n) + 1, boot_id << 24);
        ioapic_write(i, IOAPIC_ENTRY(n),
                     vector | (level ? IOAPIC_LEVEL : 0) | (low ? IOAPIC_LOW : 0));
        return 0;
    }
    return -EBB_ENODEV;
}

void apic_isa_route(unsigned irq, unsigned vector)
{
    unsigned line = irq;
    unsigned flags = 0;

    for (unsigned i = 0; i < acpi.override_count; i++) {
        if (acpi.overrides[i].irq == irq) {
            line = acpi.overrides[i].line;
            flags = acpi.overrides[i].flags;
        }
    }
    if (apic_line_route(line, vector, (flags >> 2 & 3) == 3, (flags & 3) == 3) != 0)
        console_print("no I/O APIC has line %u: ISA interrupt %u will not come\n", line, irq);
}

/* ---- arch.h ---- */

void arch_interrupt_worker(void)
{
    apic_send(boot_id, VECTOR_WORKER);
}

void arch_interrupt_others(void)
{
    apic_send_others(VECTOR_JOB);
}

void arch_msi_messages(uint64_t *address, uint32_t *data, uint32_t *config_data)
{
    *address = 0xfee00000u | (uint64_t)boot_id << 12;
    *data = VECTOR_BALLOON;
    *config_data = VECTOR_CONFIG;
}

int arch_line_route(unsigned line, bool level)
{
    /* Machines differ in the polarity they declare; hypervisors take lines as active high. */
    return apic_line_route(line, VECTOR_BALLOON, level, false);
}
