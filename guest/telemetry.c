/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Telemetry: lines of "kind key=value ..." to the host, on QEMU's debug console
 * if there is one. Time is the guest's monotonic clock in nanoseconds, memory is
 * in KiB. "used" is what is allocated, but for what the balloon was given;
 * frames in per-CPU caches do not count as used.
 */
#include "guest.h"

#define PERIOD       (50 * NS_PER_MS)
#define FINE_PERIOD  (10 * NS_PER_MS)
#define FINE_SECONDS (2 * NS_PER_SEC)

static struct ebb_lock lock;
static bool present;
static uint64_t fine_until; /* CPU 0, interrupts off, or before they are on */

/* Lines are short; the longest carries a command of the script. */
void telemetry_line(const char *fmt, ...)
{
    char text[1024];
    va_list args;
    size_t len;

    if (!present)
        return;
    va_start(args, fmt);
    len = text_vformat(text, sizeof text - 1, fmt, args);
    va_end(args);
    text[len++] = '\n';
    ebb_port_lock(&lock);
    arch_telemetry_write(text, len);
    ebb_port_unlock(&lock);
}

void telemetry_init(void)
{
    present = arch_telemetry_present();
    telemetry_line("ebb-telemetry 1");
}

void telemetry_boot(void)
{
    telemetry_line("boot ns=%lu cpus=%u managed_kib=%lu zones=%u reporting=%u", arch_now(),
                   cpus_online(), memory_managed() * FRAME_KIB, memory_zones(),
                   balloon_reporting() ? 1 : 0);
}

void telemetry_base(void)
{
    struct memory_totals totals;

    memory_totals(&totals);
    telemetry_line("base ns=%lu used_kib=%lu", arch_now(), memory_used(&totals) * FRAME_KIB);
}

uint64_t telemetry_tick(uint64_t now)
{
    struct memory_totals totals;

    if (!present)
        return EBB_NEVER;
    memory_totals(&totals);
    telemetry_line("use ns=%lu used_kib=%lu free_kib=%lu reported_kib=%lu in_flight_kib=%lu "
                   "cached_kib=%lu",
                   now, memory_used(&totals) * FRAME_KIB, totals.free * FRAME_KIB,
                   totals.reported * FRAME_KIB, totals.in_flight * FRAME_KIB,
                   totals.cached * FRAME_KIB);
    return now + (now < fine_until ? FINE_PERIOD : PERIOD);
}

void telemetry_step(const char *command)
{
    telemetry_line("step ns=%lu cmd=%s", arch_now(), command);
}

void telemetry_hold(uint64_t frames)
{
    telemetry_line("hold ns=%lu kib=%lu", arch_now(), frames * FRAME_KIB);
}

void telemetry_release(uint64_t frames)
{
    uint64_t now = arch_now();

    telemetry_line("release ns=%lu freed_kib=%lu", now, frames * FRAME_KIB);
    __atomic_store_n(&fine_until, now + FINE_SECONDS, __ATOMIC_RELAXED);
    events_sample_soon();
}

void telemetry_fault(ebb_pfn_t pfn, uint64_t expect, uint64_t found)
{
    telemetry_line("fault ns=%lu pfn=%lu expect=0x%lx found=0x%lx", arch_now(), pfn, expect, found);
}

/* What surplus pacing came to. */
void telemetry_engine(void)
{
    struct memory_totals totals;
    struct ebb_report_stats s;

    memory_totals(&totals);
    balloon_stats(&s);
    telemetry_line("engine ns=%lu window_ns=%lu window_grown=%lu window_shrunk=%lu "
                   "refaulted_soon=%lu surplus_frames=%lu passes=%lu batches=%lu "
                   "reported_frames=%lu refaulted_frames=%lu",
                   arch_now(), s.window_ns, s.window_grown, s.window_shrunk, s.refaulted_soon,
                   s.surplus_frames, s.passes, s.batches, s.reported_frames, totals.refaulted);
}

void telemetry_end(enum status status)
{
    struct memory_totals totals;
    struct ebb_report_stats stats;

    if (status == STATUS_PANIC) { /* locks may be held by CPUs that are stopped */
        __atomic_store_n(&lock.word, 0u, __ATOMIC_RELAXED);
        telemetry_line("end ns=%lu status=%u reports=0 reported_kib=0 refaulted_kib=0 failed=0 "
                       "checks=%lu errors=%lu",
                       arch_now(), (unsigned)status, hold_checks(), hold_errors());
        return;
    }
    memory_totals(&totals);
    balloon_stats(&stats);
    telemetry_line("end ns=%lu status=%u reports=%lu reported_kib=%lu refaulted_kib=%lu "
                   "failed=%lu checks=%lu errors=%lu",
                   arch_now(), (unsigned)status, stats.batches, stats.reported_frames * FRAME_KIB,
                   totals.refaulted * FRAME_KIB, stats.failed_batches, hold_checks(),
                   hold_errors());
}
