/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The settings with real threads and real memory, for the thread sanitizer to watch:
 * threads that allocate and free, one that registers and takes away the device (F31),
 * one that isolates pageblocks and asks for passes, a device that completes inside
 * submit or from a thread of its own. Every frame in use is stamped, and the stamp
 * looked at before it is freed (I12). At quiet points all invariants are walked.
 *
 *   threads TRACKER EXECUTION
 *
 * EBB_SEED replays the choices (not the interleaving).
 */
#include "delay_engine.h"

#include <ebb/range.h>

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

#define BYTES    ((uint64_t)32 << 20)
#define MUTATORS 3u
#define HELD     40u
#define PHASES   3u
#define TOGGLES  12u
#ifdef EBB_TEST_SLOW
#define ROUNDS 400u
#else
#define ROUNDS 1500u
#endif
#define PAGEBLOCK   7u
#define PAGEBLOCKS  (BYTES / EBB_FRAME_SIZE >> PAGEBLOCK)
#define BASE        0x1000u
#define SMALLEST    3u
#define PATIENCE_MS 60000u

static struct ebb_history_config setting; /* of all tests */

struct world {
    struct ebb_hosted_memory memory;
    struct ebb_hosted_worker worker;
    struct ebb_hosted_device device;
    struct ebb_report report;
    struct delay_engine engine;
    bool inlined;
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
    unsigned order = (unsigned)(next_random(&mutator->random) % 9);
    enum ebb_migratetype type = (enum ebb_migratetype)(next_random(&mutator->random) % 3);
    unsigned flags = next_random(&mutator->random) % 4 == 0 ? EBB_ALLOC_ZERO : 0;
    ebb_pfn_t pfn;
    int err;

    if (order > 6 && next_random(&mutator->random) % 4)
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
        nap((i % 8) * 400000);
        err = ebb_report_unregister(&world->report);
        if (err && err != -EBB_ENODEV)
            count(&world->errors);
    }
    return NULL;
}

/* Out of reach and back, as another type. */
static void isolate_some(struct world *world, uint64_t *random)
{
    uint64_t first = next_random(random) % (PAGEBLOCKS - 4), n = 1 + next_random(random) % 4;
    ebb_pfn_t pfn = BASE + (first << PAGEBLOCK);

    if (ebb_isolate_range(&world->memory.zone, pfn, n << PAGEBLOCK))
        count(&world->errors);
    nap(50000);
    if (ebb_putback_range(&world->memory.zone, pfn, n << PAGEBLOCK,
                          (enum ebb_migratetype)(next_random(random) % 3)))
        count(&world->errors);
}

/* Everything else that may be called from anywhere, at any time. */
static void *meddle(void *arg)
{
    struct world *world = arg;
    struct ebb_report_stats stats;
    struct ebb_zone_stats zone_stats;
    uint64_t random = 77;

    for (unsigned i = 0; is_busy(world); i++) {
        if (i % 4 == 0)
            ebb_report_now(&world->report);
        if (i % 4 == 1)
            isolate_some(world, &random);
        if (i % 8 == 2)
            ebb_zone_drain(&world->memory.zone);
        ebb_report_run(&world->report);
        ebb_report_get_stats(&world->report, &stats);
        ebb_zone_stats(&world->memory.zone, &zone_stats);
        if (zone_stats.free + zone_stats.cached + zone_stats.in_flight + zone_stats.allocated !=
            zone_stats.managed)
            count(&world->errors);
        nap(100000);
    }
    return NULL;
}

/* ---- set-up ---- */

static struct world *new_world(unsigned device_flags, const struct ebb_settings *pacing)
{
    const struct ebb_zone_config zone = {
        .base = BASE, .cpus = 4, .pageblock_order = PAGEBLOCK, .max_order = 9};
    struct world *world = calloc(1, sizeof(*world));
    struct ebb_settings settings = *pacing;

    assert_non_null(world);
    if (settings.history.pacing == EBB_PACING_DELAY) {
        settings.history.tracker = setting.tracker;
        settings.history.execution = setting.execution;
        world->inlined = setting.execution == EBB_EXECUTION_INLINE;
        settings.history.delay_ms = world->inlined ? 0 : 1;
    }
    settings.report.capacity = 8;
    settings.report.order = EBB_REPORT_ORDER(SMALLEST);
    settings.report.worker = &world->worker;
    assert_int_equal(ebb_hosted_memory_create(&world->memory, BYTES, &zone), 0);
    assert_int_equal(
        delay_engine_init(&world->engine, &world->report, &settings, &world->memory.zone), 0);
    if (!world->inlined)
        assert_int_equal(ebb_hosted_worker_start(&world->worker, &world->report), 0);
    assert_int_equal(
        ebb_hosted_device_create(&world->device, &world->memory, &world->report, device_flags), 0);
    return world;
}

static void check_world(struct world *world)
{
    struct ebb_violation violation = {0};

    if (ebb_zone_check(&world->memory.zone, EBB_CHECK_FRAMES, &violation))
        fail_msg("I%u at pfn %#llx: %s", violation.invariant, (unsigned long long)violation.pfn,
                 violation.what);
    assert_int_equal(world->lost, 0);
    assert_int_equal(world->errors, 0);
}

/* Wait until all is reported and the engine at rest. The bound is no measure of
 * anything, only the end of the test's patience. */
static void wait_until_all_is_back(struct world *world, bool by_itself)
{
    struct ebb_zone_stats stats = {0};

    for (unsigned i = 0; i < PATIENCE_MS; i++) {
        ebb_zone_stats(&world->memory.zone, &stats);
        if (stats.reported == stats.managed && ebb_report_phase(&world->report) == EBB_REPORT_IDLE)
            break;
        /* Nobody comes for what is in a cache or below a threshold. */
        if (!by_itself && ebb_report_phase(&world->report) == EBB_REPORT_IDLE) {
            ebb_zone_drain(&world->memory.zone);
            ebb_report_now(&world->report);
        }
        nap(1000000);
    }
    assert_int_equal(stats.reported, stats.managed);
    assert_int_equal(ebb_hosted_resident(&world->memory), 0);
}

static void free_world(struct world *world)
{
    struct ebb_zone_stats stats;

    assert_int_equal(ebb_report_unregister(&world->report), 0);
    ebb_zone_stats(&world->memory.zone, &stats);
    assert_int_equal(stats.allocated, 0);
    assert_int_equal(stats.in_flight, 0);
    assert_int_equal(stats.misuses, 0);
    check_world(world);
    ebb_hosted_device_destroy(&world->device);
    if (!world->inlined)
        ebb_hosted_worker_stop(&world->worker);
    delay_engine_free(&world->engine);
    ebb_hosted_memory_destroy(&world->memory);
    free(world);
}

/* ---- tests ---- */

static uint64_t seed_of_the_day(void)
{
    const char *given = getenv("EBB_SEED");

    return given ? strtoull(given, NULL, 0) : 31;
}

static void run_phase(struct world *world, struct mutator *mutators, bool toggles)
{
    pthread_t toggler, meddler;

    __atomic_store_n(&world->busy, MUTATORS, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < MUTATORS; i++)
        assert_int_equal(pthread_create(&mutators[i].thread, NULL, mutate, &mutators[i]), 0);
    if (toggles)
        assert_int_equal(pthread_create(&toggler, NULL, toggle, world), 0);
    assert_int_equal(pthread_create(&meddler, NULL, meddle, world), 0);
    for (unsigned i = 0; i < MUTATORS; i++)
        pthread_join(mutators[i].thread, NULL);
    if (toggles)
        pthread_join(toggler, NULL);
    pthread_join(meddler, NULL);
}

/* With the device coming and going, or staying. */
static void stress(const struct ebb_settings *pacing, unsigned device_flags, bool toggles)
{
    struct world *world = new_world(device_flags, pacing);
    struct mutator mutators[MUTATORS];
    struct ebb_report_stats stats;

    for (unsigned i = 0; i < MUTATORS; i++)
        mutators[i] = (struct mutator){.world = world,
                                       .random = (seed_of_the_day() + i + 1) * 0x9e3779b97f4a7c15};
    if (!toggles)
        assert_int_equal(ebb_report_register(&world->report, &world->device.device), 0);
    for (unsigned phase = 0; phase < PHASES; phase++) {
        run_phase(world, mutators, toggles);
        check_world(world); /* a quiet point, with blocks in use */
    }
    for (unsigned i = 0; i < MUTATORS; i++) {
        while (mutators[i].count > 0)
            give_back(&mutators[i]);
    }
    if (toggles)
        assert_int_equal(ebb_report_register(&world->report, &world->device.device), 0);
    wait_until_all_is_back(world, !world->inlined && pacing->history.threshold <= 1);
    ebb_report_get_stats(&world->report, &stats);
    assert_int_equal(stats.stray_completes, 0);
    assert_int_equal(stats.failed_batches, 0);
    free_world(world);
}

static const struct ebb_settings all = {.history = {.pacing = EBB_PACING_DELAY}};
static const struct ebb_settings twice = {
    .history = {.pacing = EBB_PACING_DELAY, .threshold = EBB_REPORT_TWICE_CAPACITY}};
static const struct ebb_settings sixteenth = {
    .history = {.pacing = EBB_PACING_DELAY, .budget = 16}};
/* A pageblock of which little is free waits for more than a hundred windows. */
static const struct ebb_settings surplus = {.report = {.window_min_ms = 1, .window_max_ms = 20}};

static void test_f31_all(void **state)
{
    (void)state;
    stress(&all, 0, true);
}

static void test_f31_all_completed_by_a_thread(void **state)
{
    (void)state;
    stress(&all, EBB_HOSTED_THREAD, true);
}

/* The device stays: the last free is followed by its report. */
static void test_the_last_free_is_reported(void **state)
{
    (void)state;
    stress(&all, EBB_HOSTED_THREAD, false);
}

static void test_f31_threshold_completed_by_a_thread(void **state)
{
    (void)state;
    stress(&twice, EBB_HOSTED_THREAD, true);
}

static void test_f31_budget_completed_by_a_thread(void **state)
{
    (void)state;
    if (setting.execution == EBB_EXECUTION_INLINE)
        return; /* refused, with a reason: see conformance.c */
    stress(&sixteenth, EBB_HOSTED_THREAD, true);
}

static bool can_surplus(void)
{
    return setting.tracker == EBB_TRACKER_SORTED && setting.execution == EBB_EXECUTION_WORKER;
}

static void test_f31_surplus(void **state)
{
    (void)state;
    if (can_surplus())
        stress(&surplus, 0, true);
}

static void test_f31_surplus_completed_by_a_thread(void **state)
{
    (void)state;
    if (can_surplus())
        stress(&surplus, EBB_HOSTED_THREAD, true);
}

static void test_the_last_free_is_reported_with_surplus(void **state)
{
    (void)state;
    if (can_surplus())
        stress(&surplus, EBB_HOSTED_THREAD, false);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f31_all),
        cmocka_unit_test(test_f31_all_completed_by_a_thread),
        cmocka_unit_test(test_the_last_free_is_reported),
        cmocka_unit_test(test_f31_threshold_completed_by_a_thread),
        cmocka_unit_test(test_f31_budget_completed_by_a_thread),
        cmocka_unit_test(test_f31_surplus),
        cmocka_unit_test(test_f31_surplus_completed_by_a_thread),
        cmocka_unit_test(test_the_last_free_is_reported_with_surplus),
    };
    const char *wanted = "tracker and execution";

    if (argc != 3 || ebb_history_config_set(&setting, "tracker", argv[1], &wanted) ||
        ebb_history_config_set(&setting, "execution", argv[2], &wanted)) {
        fprintf(stderr, "usage: threads TRACKER EXECUTION; wanted: %s\n", wanted);
        return 2;
    }
    print_message("EBB_SEED=%llu\n", (unsigned long long)seed_of_the_day());
    return cmocka_run_group_tests_name(argv[1], tests, NULL, NULL);
}
