/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What CPU 0 does in interrupts: the engine, the balloon's slow half, telemetry
 * samples. There is no other thread for it, and none is needed:
 * each is bounded, and takes only locks that keep interrupts off, so that the
 * code it interrupted cannot hold one of them.
 *
 * Everything here runs on CPU 0 with interrupts off, but for events_wake().
 */
#include "guest.h"

#define BALLOON_PERIOD NS_PER_MS /* between two rounds of inflating: others want to run */

uint32_t events_engine_worker;
uint32_t events_balloon_worker;

static uint64_t engine_due = EBB_NEVER;
static uint64_t balloon_due = EBB_NEVER;
static uint64_t telemetry_due = EBB_NEVER;
static uint64_t sleep_due = EBB_NEVER;

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void arm(void)
{
    uint64_t due = earlier(earlier(engine_due, balloon_due), telemetry_due);

    arch_timer_set(earlier(due, sleep_due));
}

/* Was this worker woken since last time? */
static bool woken(uint32_t *worker)
{
    return __atomic_exchange_n(worker, 0u, __ATOMIC_ACQ_REL) != 0;
}

static void run(void)
{
    uint64_t now = arch_now();

    if (woken(&events_balloon_worker) || now >= balloon_due)
        balloon_due = balloon_work() ? now + BALLOON_PERIOD : EBB_NEVER;
    if (woken(&events_engine_worker) || now >= engine_due)
        engine_due = balloon_run();
    if (now >= telemetry_due)
        telemetry_due = telemetry_tick(now);
    arm();
}

void guest_worker_interrupt(void)
{
    run();
}

void guest_balloon_interrupt(void)
{
    balloon_interrupt();
}

void guest_config_interrupt(void)
{
    balloon_config_interrupt();
}

void events_wake(void *worker)
{
    if (!__atomic_exchange_n((uint32_t *)worker, 1u, __ATOMIC_ACQ_REL))
        arch_interrupt_worker();
}

void events_start(void)
{
    uint64_t now = arch_now();

    engine_due = balloon_due = telemetry_due = now;
    arm();
    arch_interrupts_on();
}

void events_sample_soon(void)
{
    arch_interrupts_off();
    telemetry_due = arch_now();
    arm();
    arch_interrupts_on();
}

void events_sleep_until(uint64_t deadline)
{
    arch_interrupts_off();
    while (arch_now() < deadline) {
        sleep_due = deadline;
        arm();
        arch_wait();
        arch_interrupts_off();
    }
    sleep_due = EBB_NEVER;
    arch_interrupts_on();
}
