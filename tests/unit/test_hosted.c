/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The hosted port: memory on a memfd, the device that punches holes into it. The engine on it
 * with many threads is tests/conformance/threads.c.
 */
#include "delay_engine.h"

#include <ebb/port.h>
#include <ebb_hosted.h>

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define BYTES ((uint64_t)64 << 20)

struct world {
    struct ebb_hosted_memory memory;
    struct ebb_hosted_worker worker;
    struct ebb_hosted_device device;
    struct ebb_report report;
    struct delay_engine engine;
};

static void nap(long ns)
{
    const struct timespec time = {.tv_nsec = ns};

    nanosleep(&time, NULL);
}

static struct world *new_world(void)
{
    const struct ebb_zone_config zone = {.base = 0x1000, .cpus = 4};
    struct world *world = calloc(1, sizeof(*world));
    const struct ebb_settings settings = {
        .report = {.capacity = 8, .order = EBB_REPORT_ORDER(3), .worker = &world->worker},
        .history = {.pacing = EBB_PACING_DELAY, .delay_ms = 1},
    };

    assert_non_null(world);
    assert_int_equal(ebb_hosted_memory_create(&world->memory, BYTES, &zone), 0);
    assert_int_equal(
        delay_engine_init(&world->engine, &world->report, &settings, &world->memory.zone), 0);
    assert_int_equal(ebb_hosted_worker_start(&world->worker, &world->report), 0);
    assert_int_equal(ebb_hosted_device_create(&world->device, &world->memory, &world->report, 0),
                     0);
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
    delay_engine_free(&world->engine);
    ebb_hosted_memory_destroy(&world->memory);
    free(world);
}

static void test_adjacent_ranges_share_a_system_call(void **state)
{
    struct world *world = new_world();
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
    struct world *world = new_world();
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

/* A free that has not returned may wake a worker that was stopped. */
static void test_a_wake_does_nothing_to_a_stopped_worker(void **state)
{
    struct world *world = new_world();
    struct ebb_hosted_worker before;

    (void)state;
    ebb_hosted_worker_stop(&world->worker);
    memcpy(&before, &world->worker, sizeof(before));
    ebb_port_wake(&world->worker);
    assert_memory_equal(&world->worker, &before, sizeof(before));

    assert_int_equal(ebb_hosted_worker_start(&world->worker, &world->report), 0);
    assert_int_equal(ebb_report_register(&world->report, &world->device.device), 0);
    wait_until_all_is_back(world);
    free_world(world);
}

struct waker {
    struct ebb_hosted_worker *worker;
    atomic_bool begun, end;
};

static void *wake_until_told(void *arg)
{
    struct waker *waker = arg;

    do {
        ebb_port_wake(waker->worker);
        atomic_store(&waker->begun, true);
    } while (!atomic_load(&waker->end));
    return NULL;
}

/* The thread sanitizer sees what a wake does to a mutex or condition that is gone. */
static void test_a_worker_is_stopped_while_it_is_woken(void **state)
{
    struct world *world = new_world();

    (void)state;
    for (unsigned round = 0; round < 50; round++) {
        struct waker waker = {.worker = &world->worker};
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, wake_until_told, &waker), 0);
        while (!atomic_load(&waker.begun))
            sched_yield();
        ebb_hosted_worker_stop(&world->worker);
        atomic_store(&waker.end, true);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(ebb_hosted_worker_start(&world->worker, &world->report), 0);
    }
    assert_int_equal(ebb_report_register(&world->report, &world->device.device), 0);
    wait_until_all_is_back(world);
    free_world(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adjacent_ranges_share_a_system_call),
        cmocka_unit_test(test_bad_memory_is_refused),
        cmocka_unit_test(test_a_foreign_range_fails_the_batch),
        cmocka_unit_test(test_a_wake_does_nothing_to_a_stopped_worker),
        cmocka_unit_test(test_a_worker_is_stopped_while_it_is_woken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
