/* SPDX-License-Identifier: BSD-2-Clause */
/* The workloads: what uses and gives back memory, on all CPUs at once. */
#include "step.h"

#define CHUNK       64u              /* frames that a CPU takes on at once */
#define IDLE_PERIOD (20 * NS_PER_MS) /* between two checks of what stays held */
#define IDLE_CHECKS 16u              /* frames of each CPU's */

/* ---- memhog, and the first half of fragment ---- */

static bool claim(struct step *step, uint64_t *n)
{
    uint64_t left = __atomic_load_n(&step->left, __ATOMIC_RELAXED);

    do {
        *n = left < CHUNK ? left : CHUNK;
        if (*n == 0)
            return false;
    } while (!__atomic_compare_exchange_n(&step->left, &left, left - *n, false, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
    return true;
}

static void take_job(unsigned cpu, void *arg)
{
    struct step *step = arg;
    char done[16], all[16];
    uint64_t n;

    while (!step_error(step) && claim(step, &n)) {
        for (; n > 0; n--) {
            int err = hold_take(cpu, HOLD_WORK, 0, EBB_MOVABLE);

            if (err != 0) {
                step_fail(step, err);
                return;
            }
        }
        hold_check_random(cpu, HOLD_WORK);
        if (step_note_due(step, cpu))
            console_print("%s: taken %s of %s\n", step->name,
                          text_size(done, (step->total - step->left) * FRAME_KIB),
                          text_size(all, step->total * FRAME_KIB));
    }
}

static void check_job(unsigned cpu, void *arg)
{
    struct step *step = arg;

    if (step_note_due(step, cpu))
        console_print("%s: checking\n", step->name);
    for (unsigned i = 0; i < 1024; i++)
        hold_check_random(cpu, HOLD_WORK);
    hold_check_all(cpu, HOLD_WORK);
}

static void free_job(unsigned cpu, void *arg)
{
    (void)arg;
    hold_free_all(cpu, HOLD_WORK);
}

/* Take step->total frames. On an error all of them are free again. */
static int take_all(struct step *step)
{
    step->left = step->total;
    cpus_run(take_job, step);
    if (step->error)
        cpus_run(free_job, step);
    return step->error;
}

static void memhog_once(struct step *step)
{
    uint64_t begin = arch_now();
    uint64_t taken, checked, held;
    char size[16];

    if (take_all(step) != 0)
        return;
    held = hold_total(HOLD_WORK);
    telemetry_hold(held);
    taken = arch_now();
    step_corrupt();
    cpus_run(check_job, step);
    checked = arch_now();
    if (hold_errors())
        return;
    cpus_run(free_job, step);
    telemetry_release(held);
    console_print("memhog: %s taken in %lu ms, checked in %lu ms, freed in %lu ms\n",
                  text_size(size, step->total * FRAME_KIB), (taken - begin) / NS_PER_MS,
                  (checked - taken) / NS_PER_MS, (arch_now() - checked) / NS_PER_MS);
}

enum status workload_memhog(uint64_t frames, uint64_t times)
{
    struct step step = {.name = "memhog", .total = frames};

    for (uint64_t i = 0; i < times && !step.error && !hold_errors(); i++) {
        if (!step_fits(step.name, frames, 1))
            return STATUS_USAGE;
        memhog_once(&step);
    }
    return step_finish(&step);
}

/* ---- cycle ---- */

static void light_take_job(unsigned cpu, void *arg)
{
    struct step *step = arg;
    uint64_t n;

    while (!step_error(step) && claim(step, &n)) {
        for (; n > 0; n--) {
            int err = hold_take(cpu, HOLD_LIGHT, 0, EBB_MOVABLE);

            if (err != 0) {
                step_fail(step, err);
                return;
            }
        }
        if (step_note_due(step, cpu))
            console_print("cycle: %lu cycles\n", step->operations);
    }
}

static void light_check_job(unsigned cpu, void *arg)
{
    (void)arg;
    hold_check_all(cpu, HOLD_LIGHT);
}

static void light_free_job(unsigned cpu, void *arg)
{
    (void)arg;
    hold_free_sampled(cpu, HOLD_LIGHT);
}

/* Take and free once; the first time with a check of every frame between, which is not counted
 * as busy. Returns the nanoseconds of the rest. */
static uint64_t cycle_once(struct step *step, bool first)
{
    uint64_t begin = arch_now();
    uint64_t unbusy = 0;

    step->left = step->total;
    cpus_run(light_take_job, step);
    if (first) {
        unbusy = arch_now();
        if (!step->error)
            telemetry_hold(hold_total(HOLD_LIGHT));
        step_corrupt();
        cpus_run(light_check_job, step);
        unbusy = arch_now() - unbusy;
    }
    cpus_run(light_free_job, step);
    return arch_now() - begin - unbusy;
}

enum status workload_cycle(uint64_t frames, uint64_t pause_ms, uint64_t ms)
{
    struct step step = {.name = "cycle", .total = frames};
    uint64_t begin = arch_now();
    uint64_t elapsed, busy = 0;
    uint64_t cycles = 0;
    bool last = false;

    if (!step_fits(step.name, frames, 1))
        return STATUS_USAGE;
    step.deadline = begin + ms * NS_PER_MS;
    while (!last) {
        uint64_t resume;

        busy += cycle_once(&step, cycles == 0);
        step.operations = cycles += !step.error;
        resume = arch_now() + pause_ms * NS_PER_MS;
        last = resume >= step.deadline || step.error || hold_errors();
        if (last)
            telemetry_release(frames);
        if (pause_ms && !step.error)
            events_sleep_until(resume); /* the last pause, too, is a whole one */
    }
    elapsed = arch_now() - begin;
    if (step.error || hold_errors())
        return step_finish(&step);
    telemetry_line("result ns=%lu step=cycle cycles=%lu frames=%lu busy_ns=%lu pause_ms=%lu "
                   "elapsed_ns=%lu",
                   arch_now(), cycles, cycles * frames, busy, pause_ms, elapsed);
    console_print("cycle: %lu cycles in %lu ms, busy %lu ms: %lu frames a second\n", cycles,
                  elapsed / NS_PER_MS, busy / NS_PER_MS,
                  cycles * frames * 1000 / (busy / NS_PER_MS + 1));
    return step_finish(&step);
}

/* ---- churn ---- */

/* Mostly small blocks, as everywhere; each order up to 9 comes. */
static unsigned random_order(unsigned cpu)
{
    return hold_random(cpu, 2) ? 0 : (unsigned)hold_random(cpu, 10);
}

/* Take blocks until this CPU holds about `goal` frames. What does not fit is no
 * failure: memory may be in too small pieces, or with the host. */
static void grow(unsigned cpu, uint64_t goal, uint64_t share)
{
    while (hold_frames(cpu, HOLD_WORK) < goal) {
        unsigned order = random_order(cpu);
        enum ebb_migratetype type = (enum ebb_migratetype)hold_random(cpu, 3);

        if (hold_frames(cpu, HOLD_WORK) + (1u << order) + 2 > share)
            order = 0;
        if (hold_take(cpu, HOLD_WORK, order, type) != 0)
            return;
        if (hold_random(cpu, 8) == 0)
            hold_check_random(cpu, HOLD_WORK);
    }
}

/* Until something was lost: it may be a record, and then nobody knows how much is held. */
static void shrink(unsigned cpu, uint64_t goal)
{
    while (hold_frames(cpu, HOLD_WORK) > goal && !hold_errors())
        hold_free_random(cpu, HOLD_WORK);
}

static void churn_job(unsigned cpu, void *arg)
{
    struct step *step = arg;
    uint64_t share = step->total / cpus_online() + (cpu < step->total % cpus_online());
    char size[16];

    while (arch_now() < step->deadline && !hold_errors()) {
        uint64_t goal = hold_random(cpu, share + 1);

        /* In small strides, to look at the clock now and then. */
        for (unsigned i = 0; i < 64 && arch_now() < step->deadline; i++) {
            uint64_t held = hold_frames(cpu, HOLD_WORK);

            if (held < goal)
                grow(cpu, held + 512 < goal ? held + 512 : goal, share);
            else if (held > goal)
                shrink(cpu, held > goal + 512 ? held - 512 : goal);
            else
                break;
            __atomic_add_fetch(&step->operations, 1u, __ATOMIC_RELAXED);
        }
        if (step_note_due(step, cpu))
            console_print("churn: holding %s\n",
                          text_size(size, hold_total(HOLD_WORK) * FRAME_KIB));
    }
}

enum status workload_churn(uint64_t frames, uint64_t seconds)
{
    struct step step = {.name = "churn", .total = frames};
    uint64_t checks = hold_checks();
    uint64_t held;
    char size[16];

    if (!step_fits(step.name, frames, 1))
        return STATUS_USAGE;
    step.deadline = arch_now() + seconds * NS_PER_SEC;
    cpus_run(churn_job, &step);
    held = hold_total(HOLD_WORK);
    telemetry_hold(held);
    step_corrupt();
    cpus_run(check_job, &step);
    if (hold_errors())
        return step_finish(&step);
    cpus_run(free_job, &step);
    telemetry_release(held);
    console_print("churn: %lu strides, %lu checks, %s held at the end freed\n", step.operations,
                  hold_checks() - checks, text_size(size, held * FRAME_KIB));
    return step_finish(&step);
}

/* ---- fragment and release ---- */

static void thin_job(unsigned cpu, void *arg)
{
    struct step *step = arg;
    int err = hold_thin(cpu, HOLD_WORK, HOLD_KEPT, step->k);

    if (err != 0)
        step_fail(step, err);
}

static void release_job(unsigned cpu, void *arg)
{
    (void)arg;
    hold_free_all(cpu, HOLD_KEPT);
}

enum status workload_fragment(uint64_t frames, uint64_t k)
{
    struct step step = {.name = "fragment", .total = frames, .k = k};
    uint64_t kept = hold_total(HOLD_KEPT);
    uint64_t held, left;
    char freed[16], rest[16];

    if (!step_fits(step.name, frames, 2))
        return STATUS_USAGE;
    if (take_all(&step) != 0)
        return step_finish(&step);
    held = hold_total(HOLD_WORK);
    telemetry_hold(held);
    cpus_run(thin_job, &step);
    if (step.error) {
        cpus_run(free_job, &step);
        cpus_run(release_job, &step);
        telemetry_release(held + kept);
        return step_finish(&step);
    }
    left = hold_total(HOLD_KEPT) - kept;
    telemetry_release(held - left);
    step_corrupt();
    console_print("fragment: %s freed, %s stay, one frame in %lu\n",
                  text_size(freed, (held - left) * FRAME_KIB), text_size(rest, left * FRAME_KIB),
                  k);
    return step_finish(&step);
}

enum status workload_release(void)
{
    struct step step = {.name = "release"};
    uint64_t held = hold_total(HOLD_KEPT);
    char size[16];

    if (held == 0)
        return STATUS_OK;
    cpus_run(release_job, &step);
    telemetry_release(held);
    if (!hold_errors())
        console_print("release: %s checked and freed\n", text_size(size, held * FRAME_KIB));
    return step_finish(&step);
}

/* ---- idle ---- */

/* What is held meanwhile is checked at random. Nobody's CPU but this one works. */
static void check_some(void)
{
    for (unsigned cpu = 0; cpu < cpus_online(); cpu++)
        for (unsigned i = 0; i < IDLE_CHECKS; i++)
            hold_check_random(cpu, HOLD_KEPT);
}

enum status workload_idle(uint64_t ms)
{
    const struct step step = {.name = "idle"};
    uint64_t deadline = arch_now() + ms * NS_PER_MS;

    while (hold_total(HOLD_KEPT) && !hold_errors() && arch_now() + IDLE_PERIOD < deadline) {
        events_sleep_until(arch_now() + IDLE_PERIOD);
        check_some();
    }
    if (!hold_errors())
        events_sleep_until(deadline);
    return step_finish(&step);
}

/* ---- verify ---- */

static void verify_job(unsigned cpu, void *arg)
{
    (void)arg;
    hold_check_all(cpu, HOLD_WORK);
    hold_check_all(cpu, HOLD_KEPT);
}

static void check_zones(void)
{
    for (unsigned i = 0; i < memory_zones(); i++) {
        struct ebb_violation violation;

        if (ebb_zone_check(memory_zone(i), EBB_CHECK_FRAMES, &violation) == 0)
            continue;
        hold_error();
        console_print("BROKEN: zone %s violates invariant I%u at pfn %lx: %s\n",
                      memory_zone_name(i), violation.invariant, violation.pfn, violation.what);
    }
}

enum status workload_verify(bool quiet)
{
    uint64_t checks = hold_checks();

    cpus_run(verify_job, NULL);
    check_zones();
    if (!quiet || hold_errors())
        console_print("verify: %lu frames in use and %u zone%s checked, %lu errors so far\n",
                      hold_checks() - checks, memory_zones(), memory_zones() == 1 ? "" : "s",
                      hold_errors());
    return hold_errors() ? STATUS_VERIFY : STATUS_OK;
}

/* Workloads hold nothing any more, and nobody else does but an inflated balloon. */
static void check_leaks(void)
{
    struct memory_totals totals;
    bool inflated = balloon_frames() != 0;

    memory_totals(&totals);
    if (inflated || balloon_frames() != 0 || memory_used(&totals) == 0)
        return;
    hold_error();
    console_print("LEAK: %lu frames are allocated, but nobody holds them\n", memory_used(&totals));
}

enum status workload_end(void)
{
    if (workload_verify(true) != STATUS_OK)
        return STATUS_VERIFY;
    cpus_run(release_job, NULL);
    check_leaks();
    return hold_errors() ? STATUS_VERIFY : STATUS_OK;
}

enum status workload_corrupt(void)
{
    bool now = hold_corrupt();

    if (!now)
        step_corrupt_next();
    console_print("corrupt: %s\n", now ? "a frame in use was overwritten"
                                       : "a frame of the next step will be overwritten");
    return STATUS_OK;
}
