/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine with real threads and real memory, for the thread sanitizer to
 * watch: F31 (frees while the device is registered and taken away), completions
 * from another thread, and I12: every frame in use is stamped, and the stamp is
 * checked before it is freed.
 *
 * EBB_SEED replays the choices (not the interleaving).
 */
#include <ebb_hosted.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define BYTES    ((uint64_t)64 << 20)
#define MUTATORS 3u
#define ROUNDS   4000u
#define HELD     48u
#define TOGGLES  60u

struct world {
    struct ebb_hosted_memory memory;
    struct ebb_hosted_worker worker;
    struct ebb_hosted_device device;
    struct ebb_report report;
    uint32_t lost;   /* atomic: frames whose stamp was gone */
    uint32_t errors; /* atomic: what an assert would stop for, in a thread that must not */
    uint32_t busy;   /* atomic: mutators at work */
};

struct mutator {
    struct world *world;
    pthread_t thread;
    uint64_t random;
    struct {
        ebb_pfn_t pfn;
        unsigned order;
    } held[HELD];
    unsigned count;
};

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void count(uint32_t *counter)
{
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static void nap(long ns)
{
    const struct timespec time = {.tv_nsec = ns};

    nanosleep(&time, NULL);
}

/* ---- stamps ---- */

static uint64_t *stamp_of(struct world *world, ebb_pfn_t pfn)
{
    return ebb_hosted_address(&world->memory, pfn);
}

static void stamp(struct world *world, ebb_pfn_t pfn, unsigned order)
{
    for (ebb_pfn_t end = pfn + ((uint64_t)1 << order); pfn < end; pfn++)
        *stamp_of(world, pfn) = ~pfn;
}

static void check_stamps(struct world *world, ebb_pfn_t pfn, unsigned order)
{
    for (ebb_pfn_t end = pfn + ((uint64_t)1 << order); pfn < end; pfn++) {
        if (*stamp_of(world, pfn) != ~pfn)
            count(&world->lost);
        *stamp_of(world, pfn) = 0;
    }
}

/* ---- the threads ---- */

static void take(struct mutator *mutator)
{
    struct world *world = mutator->world;
    unsigned order = (unsigned)(next_random(&mutator->random) % 11);
    unsigned flags = next_random(&mutator->random) % 4 == 0 ? EBB_ALLOC_ZERO : 0;
    enum ebb_migratetype type = (enum ebb_migratetype)(next_random(&mutator->random) % 3);
    ebb_pfn_t pfn;
    int err;

    if (order > 7 && next_random(&mutator->random) % 4)
        order = 0;
    err = ebb_alloc(&world->memory.zone, order, type, flags, &pfn);
    if (err) {
        if (err != -EBB_ENOMEM && err != -EBB_EAGAIN)
            count(&world->errors);
        return;
    }
    if ((flags & EBB_ALLOC_ZERO) && *stamp_of(world, pfn) != 0)
        count(&world->errors);
    stamp(world, pfn, order);
    mutator->held[mutator->count].pfn = pfn;
    mutator->held[mutator->count++].order = order;
}

static void give_back(struct mutator *mutator)
{
    unsigned which = (unsigned)(next_random(&mutator->random) % mutator->count--);
    ebb_pfn_t pfn = mutator->held[which].pfn;
    unsigned order = mutator->held[which].order;

    mutator->held[which] = mutator->held[mutator->count];
    check_stamps(mutator->world, pfn, order);
    if (ebb_free(&mutator->world->memory.zone, pfn, order))
        count(&mutator->world->errors);
}

static void *mutate(void *arg)
{
    struct mutator *mutator = arg;

    for (unsigned i = 0; i < ROUNDS; i++) {
        if (mutator->count < HELD && next_random(&mutator->random) % 2)
            take(mutator);
        else if (mutator->count > 0)
            give_back(mutator);
    }
    while (mutator->count > 0)
        give_back(mutator);
    __atomic_fetch_sub(&mutator->world->busy, 1, __ATOMIC_RELEASE);
    return NULL;
}

static bool is_busy(const struct world *world)
{
    return __atomic_load_n(&world->busy, __ATOMIC_ACQUIRE) > 0;
}

/* Registers and unregisters; at least TOGGLES times, and as long as there is work. */
static void *toggle(void *arg)
{
    struct world *world = arg;

    for (unsigned i = 0; i < TOGGLES || is_busy(world); i++) {
        int err = ebb_report_register(&world->report, &world->device.device);

        if (err && err != -EBB_EBUSY)
            count(&world->errors);
        nap((i % 8) * 500000);
        err = ebb_report_unregister(&world->report);
        if (err && err != -EBB_ENODEV)
            count(&world->errors);
    }
    return NULL;
}

/* Everything else that may be called from anywhere, at any time. */
static void *meddle(void *arg)
{
    struct world *world = arg;
    struct ebb_report_stats stats;
    struct ebb_zone_stats zone_stats;

    for (unsigned i = 0; is_busy(world); i++) {
        if (i % 4 == 0)
            ebb_report_now(&world->report);
        ebb_report_run(&world->report);
        ebb_report_get_stats(&world->report, &stats);
        ebb_zone_stats(&world->memory.zone, &zone_stats);
        if (zone_stats.free + zone_stats.cached + zone_stats.in_flight + zone_stats.allocated !=
            zone_stats.managed)
            count(&world->errors);
        if (i % 16 == 0 && ebb_zone_check(&world->memory.zone, EBB_CHECK_COUNTERS, NULL))
            count(&world->errors);
        nap(100000);
    }
    return NULL;
}

/* ---- set-up ---- */

static struct world *new_world(unsigned device_flags)
{
    const struct ebb_zone_config zone = {.base = 0x1000, .cpus = 4};
    struct world *world = calloc(1, sizeof(*world));
    const struct ebb_report_config config = {
        .delay_ms = 1,
        .capacity = 8,
        .order = EBB_REPORT_ORDER(3),
        .worker = &world->worker,
    };

    assert_non_null(world);
    assert_int_equal(ebb_hosted_memory_create(&world->memory, BYTES, &zone), 0);
    assert_int_equal(ebb_report_init(&world->report, &config), 0);
    assert_int_equal(ebb_report_add_zone(&world->report, &world->memory.zone), 0);
    assert_int_equal(ebb_hosted_worker_start(&world->worker, &world->report), 0);
    assert_int_equal(
        ebb_hosted_device_create(&world->device, &world->memory, &world->report, device_flags), 0);
    return world;
}

/* Wait until all is reported and the engine at rest. The bound is no measure of
 * anything, only the end of the test's patience. */
static void wait_until_all_is_back(struct world *world)
{
    struct ebb_zone_stats stats = {0};

    for (unsigned i = 0; i < 60000; i++) {
        ebb_zone_stats(&world->memory.zone, &stats);
        if (stats.reported == stats.managed && ebb_report_phase(&world->report) == EBB_REPORT_IDLE)
            break;
        nap(1000000);
    }
    assert_int_equal(stats.reported, stats.managed);
    assert_int_equal(ebb_hosted_resident(&world->memory), 0);
}

static void free_world(struct world *world)
{
    struct ebb_violation violation = {0};
    struct ebb_zone_stats stats;

    assert_int_equal(ebb_report_unregister(&world->report), 0);
    ebb_zone_stats(&world->memory.zone, &stats);
    assert_int_equal(stats.allocated, 0);
    assert_int_equal(stats.in_flight, 0);
    assert_int_equal(stats.misuses, 0);
    if (ebb_zone_check(&world->memory.zone, EBB_CHECK_FRAMES, &violation))
        fail_msg("I%u at pfn %#llx: %s", violation.invariant, (unsigned long long)violation.pfn,
                 violation.what);
    ebb_hosted_device_destroy(&world->device);
    ebb_hosted_worker_stop(&world->worker);
    ebb_hosted_memory_destroy(&world->memory);
    free(world);
}

/* ---- tests ---- */

static uint64_t seed_of_the_day(void)
{
    const char *given = getenv("EBB_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : 31;

    print_message("EBB_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static void start_mutators(struct world *world, struct mutator *mutators)
{
    uint64_t seed = seed_of_the_day();

    world->busy = MUTATORS;
    for (unsigned i = 0; i < MUTATORS; i++) {
        mutators[i] =
            (struct mutator){.world = world, .random = (seed + i + 1) * 0x9e3779b97f4a7c15};
        assert_int_equal(pthread_create(&mutators[i].thread, NULL, mutate, &mutators[i]), 0);
    }
}

static void stress(unsigned device_flags)
{
    struct world *world = new_world(device_flags);
    struct ebb_report_stats stats;
    struct mutator mutators[MUTATORS];
    pthread_t toggler, meddler;

    start_mutators(world, mutators);
    assert_int_equal(pthread_create(&toggler, NULL, toggle, world), 0);
    assert_int_equal(pthread_create(&meddler, NULL, meddle, world), 0);
    for (unsigned i = 0; i < MUTATORS; i++)
        pthread_join(mutators[i].thread, NULL);
    pthread_join(toggler, NULL);
    pthread_join(meddler, NULL);
    assert_int_equal(world->lost, 0);
    assert_int_equal(world->errors, 0);

    assert_int_equal(ebb_report_register(&world->report, &world->device.device), 0);
    wait_until_all_is_back(world);
    ebb_report_get_stats(&world->report, &stats);
    assert_int_equal(stats.stray_completes, 0);
    assert_int_equal(stats.failed_batches, 0);
    assert_true(stats.reported_frames >= BYTES / EBB_FRAME_SIZE);
    free_world(world);
}

static void test_f31_stress_with_completion_inside_submit(void **state)
{
    (void)state;
    stress(0);
}

static void test_f31_stress_with_completion_from_a_thread(void **state)
{
    (void)state;
    stress(EBB_HOSTED_THREAD);
}

/* The same without anybody taking the device away: the last free is followed by
 * its report. */
static void test_the_last_free_is_reported(void **state)
{
    struct world *world = new_world(EBB_HOSTED_THREAD);
    struct mutator mutators[MUTATORS];

    (void)state;
    assert_int_equal(ebb_report_register(&world->report, &world->device.device), 0);
    start_mutators(world, mutators);
    for (unsigned i = 0; i < MUTATORS; i++)
        pthread_join(mutators[i].thread, NULL);
    assert_int_equal(world->lost, 0);
    assert_int_equal(world->errors, 0);
    wait_until_all_is_back(world);
    free_world(world);
}

static void test_adjacent_ranges_share_a_system_call(void **state)
{
    struct world *world = new_world(0);
    struct ebb_report_stats stats;

    (void)state;
    /* A zone that nobody used is one run of blocks. */
    assert_int_equal(ebb_report_register(&world->report, &world->device.device), 0);
    wait_until_all_is_back(world);
    ebb_report_get_stats(&world->report, &stats);
    assert_true(stats.batches >= 2);
    assert_true(__atomic_load_n(&world->device.punches, __ATOMIC_RELAXED) < stats.reported_blocks);
    free_world(world);
}

static void test_bad_memory_is_refused(void **state)
{
    const struct ebb_zone_config bad = {.max_order = 99};
    struct ebb_hosted_memory *memory = calloc(1, sizeof(*memory));

    (void)state;
    assert_int_equal(ebb_hosted_memory_create(memory, 0, NULL), -EBB_EINVAL);
    assert_int_equal(ebb_hosted_memory_create(memory, 4095, NULL), -EBB_EINVAL);
    assert_int_equal(ebb_hosted_memory_create(memory, UINT64_MAX - 4095, NULL), -EBB_EINVAL);
    assert_int_equal(ebb_hosted_memory_create(memory, 4096, &bad), -EBB_EINVAL);
    assert_int_equal(memory->fd, -1);
    assert_int_equal(ebb_hosted_memory_create(memory, 4096, NULL), 0);
    ebb_hosted_memory_destroy(memory);
    free(memory);
}

/* The in-process device answers a range that is not its own with an error. */
static void test_a_foreign_range_fails_the_batch(void **state)
{
    struct world *world = new_world(0);
    struct ebb_hosted_memory other;
    struct ebb_report_stats stats = {0};

    (void)state;
    assert_int_equal(ebb_hosted_memory_create(&other, 8 << 20, NULL), 0);
    assert_int_equal(ebb_report_add_zone(&world->report, &other.zone), 0);
    assert_int_equal(ebb_report_register(&world->report, &world->device.device), 0);
    while (stats.failed_batches == 0) {
        ebb_report_get_stats(&world->report, &stats);
        nap(1000000);
    }
    assert_int_equal(stats.last_error, -EBB_ERANGE);
    free_world(world);
    ebb_hosted_memory_destroy(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f31_stress_with_completion_inside_submit),
        cmocka_unit_test(test_f31_stress_with_completion_from_a_thread),
        cmocka_unit_test(test_the_last_free_is_reported),
        cmocka_unit_test(test_adjacent_ranges_share_a_system_call),
        cmocka_unit_test(test_bad_memory_is_refused),
        cmocka_unit_test(test_a_foreign_range_fails_the_batch),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
