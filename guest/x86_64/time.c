/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * x86-64: time is the time stamp counter, its frequency told by the hypervisor
 * or measured against the PIT or, where there is none, the ACPI PM timer; the
 * local APIC's timer is measured along the way. Where there is neither, that
 * timer is the measure: hypervisors run it at 1 GHz.
 */
#include "x86.h"

#define PIT_HZ      1193182u
#define PM_HZ       3579545u
#define WINDOW_MS   5u
#define DIVIDER     16u
#define TICKS_MAX   0x7fffffffu
#define STUCK_TICKS 0x4000000u /* of the TSC: a clock that did not move meanwhile never will */
#define APIC_HZ     (1000000000u / DIVIDER)

static uint64_t tsc_start;
static uint64_t tsc_hz;
static uint64_t ns_per_tick; /* 32.32 fixed point */
static uint64_t apic_hz;

/* A clock that is read through I/O: its value and the TSC at about that moment. */
struct reading {
    uint32_t value;
    uint64_t tsc;
    uint64_t error; /* TSC ticks that the reading took */
};

static uint32_t pit_read(void)
{
    outb(0x43, 0x80); /* latch channel 2 */
    uint32_t low = inb(0x42);

    return (uint32_t)inb(0x42) << 8 | low;
}

static uint32_t pm_read(void)
{
    return inl(acpi.pm_timer) & 0xffffff;
}

struct clock {
    uint32_t (*read)(void);
    uint32_t hz;
    uint32_t mask; /* of its counter */
    bool down;
};

static uint32_t elapsed(const struct clock *clock, uint32_t first, uint32_t last)
{
    return (clock->down ? first - last : last - first) & clock->mask;
}

/* The best of several: a virtual CPU can be descheduled in the middle of one. */
static struct reading take(uint32_t (*read)(void))
{
    struct reading best = {.error = UINT64_MAX};

    for (int i = 0; i < 8; i++) {
        uint64_t before = rdtsc();
        uint32_t value = read();
        uint64_t after = rdtsc();

        if (after - before < best.error)
            best = (struct reading){value, before + (after - before) / 2, after - before};
    }
    return best;
}

/* Measure TSC and APIC timer for a moment of a clock. False: it stands still. */
static bool measure_once(const struct clock *clock)
{
    uint32_t wanted = (uint32_t)((uint64_t)clock->hz * WINDOW_MS / 1000);
    struct reading first;
    uint32_t passed;

    apic_timer_start(UINT32_MAX);
    uint64_t apic_tsc = rdtsc();
    first = take(clock->read);
    do {
        passed = elapsed(clock, first.value, clock->read());
        if (passed == 0 && rdtsc() - first.tsc > STUCK_TICKS)
            return false;
    } while (passed < wanted);
    struct reading last = take(clock->read);
    uint64_t apic_passed = UINT32_MAX - apic_timer_left();
    uint64_t apic_ticks = rdtsc() - apic_tsc;

    passed = elapsed(clock, first.value, last.value);
    tsc_hz = (last.tsc - first.tsc) * clock->hz / passed;
    apic_hz = apic_passed * tsc_hz / apic_ticks;
    return true;
}

/* Until two in a row agree: if this CPU was descheduled for longer than the
 * clock takes to wrap, a measurement is nonsense. */
static bool measure(const struct clock *clock)
{
    uint64_t before = 0;

    for (int i = 0; i < 20; i++) {
        if (!measure_once(clock))
            return false;
        if (before && before - before / 200 < tsc_hz && tsc_hz < before + before / 200) {
            tsc_hz = (tsc_hz + before) / 2;
            return true;
        }
        before = tsc_hz;
    }
    return true;
}

static const struct clock pit = {pit_read, PIT_HZ, 0xffff, true};
static const struct clock pm = {pm_read, PM_HZ, 0xffffff, false};
static const struct clock apic = {apic_timer_left, APIC_HZ, UINT32_MAX, true};

static bool measure_pit(void)
{
    outb(0x61, (uint8_t)((inb(0x61) & 0xfc) | 1)); /* gate on, speaker off */
    outb(0x43, 0xb0);                              /* channel 2, both bytes, count down once */
    outb(0x42, 0xff);
    outb(0x42, 0xff);
    return measure(&pit);
}

/* Hypervisors' own leaf: kHz of TSC and APIC bus. */
static bool told(void)
{
    struct cpuid hypervisor = cpuid(0x40000000);

    if (!(cpuid(1).ecx & 1u << 31) || hypervisor.eax < 0x40000010 || hypervisor.eax > 0x400000ff)
        return false;
    struct cpuid frequency = cpuid(0x40000010);

    if (frequency.eax == 0 || frequency.ebx == 0)
        return false;
    tsc_hz = (uint64_t)frequency.eax * 1000;
    apic_hz = (uint64_t)frequency.ebx * 1000 / DIVIDER;
    return true;
}

void time_init(void)
{
    tsc_start = rdtsc();
    if (!told() && !measure_pit() && !(acpi.pm_timer && measure(&pm)) && !measure(&apic))
        arch_panic("no clock moves");
    ns_per_tick = (NS_PER_SEC << 32) / tsc_hz;
}

uint64_t arch_now(void)
{
    uint64_t ticks = rdtsc() - tsc_start;

    return (uint64_t)((unsigned __int128)ticks * ns_per_tick >> 32);
}

void arch_timer_set(uint64_t deadline)
{
    uint64_t now = arch_now();
    uint64_t ns = deadline > now ? deadline - now : 0;
    uint64_t ticks;

    if (ns > NS_PER_SEC) /* then again: the caller asks anew at every interrupt */
        ns = NS_PER_SEC;
    ticks = ns * apic_hz / NS_PER_SEC + 1;
    apic_timer_start((uint32_t)(ticks < TICKS_MAX ? ticks : TICKS_MAX));
}

void time_wait_us(uint64_t us)
{
    uint64_t deadline = arch_now() + us * 1000;

    while (arch_now() < deadline)
        cpu_pause();
}
