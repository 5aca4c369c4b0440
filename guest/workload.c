/* SPDX-License-Identifier: BSD-2-Clause */
/* The workloads: what uses and gives back memory, on all CPUs at once. */
#include "guest.h"

#define CHUNK        64u              /* frames that a CPU takes on at once */
#define IDLE_PERIOD  (20 * NS_PER_MS) /* between two checks of what stays held */
#define IDLE_CHECKS  16u              /* frames of each CPU's */
#define RECORD_SHARE 512u             /* blocks that one record frame holds */

/* A step under way, shared by all CPUs. */
struct step {
    const char *name;
    uint64_t total; /* frames */
    uint64_t left;  /* atomic: not taken on by any CPU yet */
    int error;      /* atomic: the first one */
    uint64_t k;
    uint64_t deadline;
    uint64_t operations; /* atomic */
    uint64_t next_note;  /* CPU 0 */
};

static bool corrupt_next;

static int step_error(struct step *step)
{
    return __atomic_load_n(&step->error, __ATOMIC_RELAXED);
}

static void fail(struct step *step, int error)
{
    int none = 0;

    __atomic_compare_exchange_n(&step->error, &none, error, false, __ATOMIC_RELAXED,
                                __ATOMIC_RELAXED);
}

/* One line a second at most, from CPU 0, about long steps. */
static bool note_due(struct step *step, unsigned cpu)
{
    uint64_t now;

    if (cpu != 0)
        return false;
    now = arch_now();
    if (step->next_note == 0)
        step->next_note = now + NS_PER_SEC;
    if (now < step->next_note)
        return false;
    step->next_note = now + NS_PER_SEC;
    return true;
}

static enum status finish(const struct step *step)
{
    if (hold_errors()) {
        console_print("%s: %lu frames in use were lost\n", step->name, hold_errors());
        return STATUS_VERIFY;
    }
    if (step->error) {
        console_print("%s: %s (error %d); what it had taken is free again\n", step->name,
                      step->error == -EBB_EAGAIN ? "the host does not answer a report"
                                                 : "memory ran short",
                      step->error);
        return STATUS_USAGE;
    }
    return STATUS_OK;
}

/* Refuse what cannot be: clearer than running into it. In `sets` sets of each
 * CPU's, whose records begin with two frames. */
static bool fits(const char *name, uint64_t frames, unsigned sets)
{
    struct memory_totals totals;
    uint64_t can, records = frames / RECORD_SHARE + 2 * sets * cpus_online();
    char want[16], more[16], have[16];

    memory_totals(&totals);
    can = totals.free + totals.cached + totals.in_flight;
    can = can > memory_reserve() ? can - memory_reserve() : 0;
    if (frames + records <= can)
        return true;
    console_print("%s: %s, and %s for its records, are more than the %s that are free\n", name,
                  text_size(want, frames * FRAME_KIB), text_size(more, records * FRAME_KIB),
                  text_size(have, can * FRAME_KIB));
    return false;
}

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
                fail(step, err);
                return;
            }
        }
        hold_check_random(cpu, HOLD_WORK);
        if (note_due(step, cpu))
            console_print("%s: taken %s of %s\n", step->name,
                          text_size(done, (step->total - step->left) * FRAME_KIB),
                          text_size(all, step->total * FRAME_KIB));
    }
}

static void check_job(unsigned cpu, void *arg)
{
    struct step *step = arg;

    if (note_due(step, cpu))
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

static void corrupt_if_asked(void)
{
    if (corrupt_next && hold_corrupt())
        corrupt_next = false;
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
    corrupt_if_asked();
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
        if (!fits(step.name, frames, 1))
            return STATUS_USAGE;
        memhog_once(&step);
    }
    return finish(&step);
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
        if (note_due(step, cpu))
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

    if (!fits(step.name, frames, 1))
        return STATUS_USAGE;
    step.deadline = arch_now() + seconds * NS_PER_SEC;
    cpus_run(churn_job, &step);
    held = hold_total(HOLD_WORK);
    telemetry_hold(held);
    corrupt_if_asked();
    cpus_run(check_job, &step);
    if (hold_errors())
        return finish(&step);
    cpus_run(free_job, &step);
    telemetry_release(held);
    console_print("churn: %lu strides, %lu checks, %s held at the end freed\n", step.operations,
                  hold_checks() - checks, text_size(size, held * FRAME_KIB));
    return finish(&step);
}

/* ---- fragment and release ---- */

static void thin_job(unsigned cpu, void *arg)
{
    struct step *step = arg;
    int err = hold_thin(cpu, HOLD_WORK, HOLD_KEPT, step->k);

    if (err != 0)
        fail(step, err);
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

    if (!fits(step.name, frames, 2))
        return STATUS_USAGE;
    if (take_all(&step) != 0)
        return finish(&step);
    held = hold_total(HOLD_WORK);
    telemetry_hold(held);
    cpus_run(thin_job, &step);
    if (step.error) {
        cpus_run(free_job, &step);
        cpus_run(release_job, &step);
        telemetry_release(held + kept);
        return finish(&step);
    }
    left = hold_total(HOLD_KEPT) - kept;
    telemetry_release(held - left);
    corrupt_if_asked();
    console_print("fragment: %s freed, %s stay, one frame in %lu\n",
                  text_size(freed, (held - left) * FRAME_KIB), text_size(rest, left * FRAME_KIB),
                  k);
    return finish(&step);
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
    return finish(&step);
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
    return finish(&step);
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
    corrupt_next = !hold_corrupt();
    console_print("corrupt: %s\n", corrupt_next ? "a frame of the next step will be overwritten"
                                                : "a frame in use was overwritten");
    return STATUS_OK;
}
