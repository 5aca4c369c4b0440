/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Filling with real threads and real memory, for the thread sanitizer to watch:
 * init on free while a device punches holes, and two threads that free one
 * block at the same time. EBB_SEED replays the choices (not the interleaving).
 */
#define _GNU_SOURCE
#include "loop/rng.h"

#include "delay_engine.h"

#include <ebb_hosted.h>

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define BYTES   ((uint64_t)16 << 20)
#define THREADS 3u
#define ROUNDS  2500u
#define HELD    24u
#define RACES   500u

static struct {
    struct ebb_hosted_memory memory;
    struct ebb_hosted_worker worker;
    struct ebb_hosted_device device;
    struct ebb_report report;
    struct delay_engine engine;
    uint32_t dirty, lost, errors; /* atomic */
} world;

static void count(uint32_t *counter)
{
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static void make(enum ebb_fill policy)
{
    const struct ebb_zone_config config = {
        .base = 0x1000, .fill_policy = (uint8_t)policy, .cpus = 2};

    memset(&world, 0, sizeof(world));
    assert_int_equal(ebb_hosted_memory_create(&world.memory, BYTES, &config), 0);
}

static void start_reporting(unsigned flags)
{
    const struct ebb_settings settings = {
        .report = {.order = EBB_REPORT_ORDER(2), .worker = &world.worker},
        .history = {.pacing = EBB_PACING_DELAY, .delay_ms = 1},
    };

    assert_int_equal(delay_engine_init(&world.engine, &world.report, &settings, &world.memory.zone),
                     0);
    assert_int_equal(ebb_hosted_worker_start(&world.worker, &world.report), 0);
    assert_int_equal(ebb_hosted_device_create(&world.device, &world.memory, &world.report, flags),
                     0);
}

static void stop_reporting(void)
{
    ebb_hosted_device_destroy(&world.device);
    ebb_hosted_worker_stop(&world.worker);
}

static void done(uint64_t misuses)
{
    struct ebb_zone_stats stats;

    assert_int_equal(ebb_zone_check(&world.memory.zone, EBB_CHECK_FRAMES, NULL), 0);
    ebb_zone_stats(&world.memory.zone, &stats);
    assert_int_equal(stats.allocated, 0);
    assert_int_equal(stats.misuses, misuses);
    delay_engine_free(&world.engine);
    ebb_hosted_memory_destroy(&world.memory);
}

/* ---- init on free, with a device ---- */

static bool all_words(ebb_pfn_t pfn, unsigned order, uint64_t value)
{
    const uint64_t *words = ebb_hosted_address(&world.memory, pfn);

    for (uint64_t i = 0; i < EBB_FRAME_SIZE / 8 << order; i++) {
        if (words[i] != value)
            return false;
    }
    return true;
}

static void stamp(ebb_pfn_t pfn, unsigned order)
{
    uint64_t *words = ebb_hosted_address(&world.memory, pfn);

    for (uint64_t i = 0; i < EBB_FRAME_SIZE / 8 << order; i++)
        words[i] = ~pfn;
}

static void give(ebb_pfn_t pfn, unsigned order)
{
    if (!all_words(pfn, order, ~pfn))
        count(&world.lost);
    if (ebb_free(&world.memory.zone, pfn, order))
        count(&world.errors);
}

static void *mutate(void *arg)
{
    struct rng *rng = arg;
    struct {
        ebb_pfn_t pfn;
        unsigned order;
    } held[HELD];
    unsigned n = 0;

    for (unsigned i = 0; i < ROUNDS; i++) {
        if (n < HELD && rng_below(rng, 2)) {
            held[n].order = rng_below(rng, 3) ? 0 : rng_below(rng, 7);
            if (ebb_alloc(&world.memory.zone, held[n].order, EBB_MOVABLE, 0, &held[n].pfn))
                continue;
            if (!all_words(held[n].pfn, held[n].order, 0))
                count(&world.dirty);
            stamp(held[n].pfn, held[n].order);
            n++;
        } else if (n > 0) {
            const unsigned k = rng_below(rng, n--);

            give(held[k].pfn, held[k].order);
            held[k] = held[n];
        }
    }
    while (n-- > 0)
        give(held[n].pfn, held[n].order);
    return NULL;
}

static void every_frame_allocated_is_zero(void **state)
{
    (void)state;
    for (unsigned flags = 0; flags <= EBB_HOSTED_THREAD; flags += EBB_HOSTED_THREAD) {
        struct rng rngs[THREADS];
        pthread_t threads[THREADS];
        struct ebb_report_stats stats;

        make(EBB_FILL_ZERO);
        start_reporting(flags);
        assert_int_equal(ebb_report_register(&world.report, &world.device.device), 0);
        for (unsigned i = 0; i < THREADS; i++) {
            rngs[i].state = rng_seed(1) + i;
            assert_int_equal(pthread_create(&threads[i], NULL, mutate, &rngs[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        ebb_report_now(&world.report);
        do {
            ebb_report_get_stats(&world.report, &stats);
        } while (stats.reported_blocks == 0);
        assert_int_equal(ebb_report_unregister(&world.report), 0);
        assert_int_equal(world.dirty, 0);
        assert_int_equal(world.lost, 0);
        assert_int_equal(world.errors, 0);
        stop_reporting();
        done(0);
    }
}

/* Holes are zeroes, and zeroes are no poison. */
static void punching_is_not_for_poison(void **state)
{
    ebb_pfn_t pfn;

    (void)state;
    make(EBB_FILL_POISON);
    start_reporting(0);
    assert_int_equal(ebb_report_register(&world.report, &world.device.device), -EBB_EOPNOTSUPP);
    assert_int_equal(ebb_alloc(&world.memory.zone, 3, EBB_MOVABLE, 0, &pfn), 0);
    assert_true(all_words(pfn, 3, 0xaaaaaaaaaaaaaaaau));
    stamp(pfn, 3);
    assert_int_equal(ebb_free(&world.memory.zone, pfn, 3), 0);
    assert_true(all_words(pfn, 3, 0xaaaaaaaaaaaaaaaau));
    assert_int_equal(ebb_alloc_at(&world.memory.zone, pfn, 3, EBB_ALLOC_ZERO), 0);
    assert_true(all_words(pfn, 3, 0));
    assert_int_equal(ebb_free(&world.memory.zone, pfn, 3), 0);
    stop_reporting();
    done(0);
}

/* Fresh memory is zero already: making such a zone costs no memory. */
static void init_on_free_backs_nothing(void **state)
{
    (void)state;
    make(EBB_FILL_ZERO);
    assert_int_equal(ebb_hosted_resident(&world.memory), 0);
    done(0);
}

/* ---- two threads free one block ---- */

static struct {
    pthread_barrier_t barrier;
    ebb_pfn_t pfn;
    unsigned order;
    unsigned freed; /* atomic: frees that were not refused */
} race;

static void *race_to_free(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < RACES; i++) {
        pthread_barrier_wait(&race.barrier);
        if (ebb_free(&world.memory.zone, race.pfn, race.order) == 0)
            __atomic_fetch_add(&race.freed, 1, __ATOMIC_RELAXED);
        pthread_barrier_wait(&race.barrier);
    }
    return NULL;
}

/* The port says what it thinks of each; 500 times is too much for a log. */
static int silence(void)
{
    const int kept = dup(2), null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    assert_true(kept >= 0 && null >= 0);
    assert_int_equal(dup2(null, 2), 2);
    close(null);
    return kept;
}

static void one_of_two_frees_is_refused(void **state)
{
    pthread_t threads[2];
    unsigned wrong = 0;
    int kept;

    (void)state;
    make(EBB_FILL_POISON);
    memset(&race, 0, sizeof(race));
    assert_int_equal(pthread_barrier_init(&race.barrier, NULL, 3), 0);
    kept = silence();
    for (unsigned i = 0; i < 2; i++)
        wrong += pthread_create(&threads[i], NULL, race_to_free, NULL) != 0;
    for (unsigned i = 0; i < RACES; i++) {
        race.order = i % 3;
        wrong += ebb_alloc(&world.memory.zone, race.order, EBB_MOVABLE, 0, &race.pfn) != 0;
        pthread_barrier_wait(&race.barrier);
        pthread_barrier_wait(&race.barrier);
        wrong += race.freed != i + 1;
        wrong += !all_words(race.pfn, race.order, 0xaaaaaaaaaaaaaaaau);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    dup2(kept, 2);
    close(kept);
    pthread_barrier_destroy(&race.barrier);
    assert_int_equal(wrong, 0);
    done(RACES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_frame_allocated_is_zero),
        cmocka_unit_test(punching_is_not_for_poison),
        cmocka_unit_test(init_on_free_backs_nothing),
        cmocka_unit_test(one_of_two_frees_is_refused),
    };

    rng_watch();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
