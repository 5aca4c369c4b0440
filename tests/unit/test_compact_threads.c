/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Data that moves while its owners free and allocate, with real threads and real
 * memory, for the thread sanitizer to watch: compaction, ranges allocated, and
 * memory unplugged and plugged, all at once and with a device that punches holes
 * into what is reported. Every frame in use is stamped, and the stamps are
 * looked at when it is freed (I12). EBB_SEED replays the choices, not the
 * interleaving.
 */
#include "delay_engine.h"
#include <ebb/compact.h>
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

#define BASE      ((ebb_pfn_t)0x1000)
#define FRAMES    ((uint64_t)4096)
#define PAGEBLOCK 5u
#define OWNERS    3u
#define HELD      96u
#define ROUNDS    20000u

struct held {
    ebb_pfn_t pfn;
    unsigned order;
    enum ebb_migratetype type;
    uint64_t id;
};

struct owner {
    struct world *world;
    pthread_t thread;
    uint64_t random;
    uint64_t ids;
    pthread_mutex_t mutex; /* guards what follows, and the data of the blocks */
    struct held held[HELD];
    unsigned count;
};

struct world {
    struct ebb_hosted_memory memory;
    struct ebb_hosted_worker worker;
    struct ebb_hosted_device device;
    struct ebb_report report;
    struct delay_engine engine;
    struct owner owners[OWNERS];
    /* Atomic: */
    uint32_t lost;   /* frames whose stamp was gone */
    uint32_t errors; /* what an assert would stop for, in a thread that must not */
    uint32_t busy;   /* owners at work */
    uint32_t moved, ranges, removals;
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

static uint32_t value(uint32_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_ACQUIRE);
}

static void expect(struct world *world, bool right)
{
    if (!right)
        count(&world->errors);
}

static void nap(void)
{
    const struct timespec time = {.tv_nsec = 50000};

    nanosleep(&time, NULL);
}

/* ---- data ---- */

static uint64_t *word_of(struct world *world, ebb_pfn_t pfn)
{
    return ebb_hosted_address(&world->memory, pfn);
}

static void stamp(struct world *world, const struct held *held)
{
    for (uint64_t i = 0; i < (uint64_t)1 << held->order; i++)
        *word_of(world, held->pfn + i) = held->id << 20 | i;
}

static void check_stamps(struct world *world, const struct held *held)
{
    for (uint64_t i = 0; i < (uint64_t)1 << held->order; i++) {
        if (*word_of(world, held->pfn + i) != (held->id << 20 | i))
            count(&world->lost);
    }
}

static bool move_of(struct owner *owner, ebb_pfn_t from, ebb_pfn_t to, unsigned order)
{
    bool moved = false;

    pthread_mutex_lock(&owner->mutex);
    for (unsigned i = 0; i < owner->count && !moved; i++) {
        struct held *held = &owner->held[i];

        if (held->pfn != from || held->order != order)
            continue;
        check_stamps(owner->world, held);
        held->pfn = to;
        stamp(owner->world, held);
        moved = true;
    }
    pthread_mutex_unlock(&owner->mutex);
    return moved;
}

static int migrate(void *ctx, ebb_pfn_t from, ebb_pfn_t to, unsigned order)
{
    struct world *world = ctx;

    for (unsigned i = 0; i < OWNERS; i++) {
        if (move_of(&world->owners[i], from, to, order)) {
            count(&world->moved);
            return 0;
        }
    }
    return -EBB_ENOENT;
}

/* ---- the threads ---- */

static void take(struct owner *owner)
{
    struct held held = {
        .order = (unsigned)(next_random(&owner->random) % 4),
        .type = next_random(&owner->random) % 16 ? EBB_MOVABLE : EBB_UNMOVABLE,
    };
    int err = ebb_alloc(&owner->world->memory.zone, held.order, held.type, 0, &held.pfn);

    if (err) {
        expect(owner->world, err == -EBB_ENOMEM || err == -EBB_EAGAIN);
        return;
    }
    held.id = ++owner->ids;
    stamp(owner->world, &held);
    pthread_mutex_lock(&owner->mutex);
    owner->held[owner->count++] = held;
    pthread_mutex_unlock(&owner->mutex);
}

static void give_back(struct owner *owner)
{
    struct held held;
    unsigned which;

    pthread_mutex_lock(&owner->mutex);
    which = (unsigned)(next_random(&owner->random) % owner->count--);
    held = owner->held[which];
    owner->held[which] = owner->held[owner->count];
    pthread_mutex_unlock(&owner->mutex);
    /* Nobody moves it any more. */
    check_stamps(owner->world, &held);
    expect(owner->world, ebb_free(&owner->world->memory.zone, held.pfn, held.order) == 0);
}

static void *own(void *arg)
{
    struct owner *owner = arg;

    /* Only this thread changes the count. */
    for (unsigned i = 0; i < ROUNDS; i++) {
        if (owner->count < HELD && next_random(&owner->random) % 2)
            take(owner);
        else if (owner->count > 0)
            give_back(owner);
        if (i % 64 == 0)
            nap();
    }
    while (owner->count > 0)
        give_back(owner);
    __atomic_fetch_sub(&owner->world->busy, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void *compact(void *arg)
{
    struct world *world = arg;
    const struct ebb_migrate_ops ops = {.migrate = migrate, .ctx = world};

    while (value(&world->busy) > 0) {
        struct ebb_compact compaction;
        int more = ebb_compact_init(&compaction, &world->memory.zone, 0, 0);

        while (more >= 0) {
            more = ebb_compact(&compaction, &ops, 256);
            if (more <= 0)
                break;
        }
        expect(world, more == 0);
        nap();
    }
    return NULL;
}

/* Allocates ranges, writes to them, and frees them. */
static void *range(void *arg)
{
    struct world *world = arg;
    const struct ebb_migrate_ops ops = {.migrate = migrate, .ctx = world};
    uint64_t random = 99;

    while (value(&world->busy) > 0) {
        struct held held = {.id = 0x123};
        uint64_t frames = 1 + next_random(&random) % 200;
        ebb_pfn_t pfn = BASE + next_random(&random) % (FRAMES - frames);
        int err;

        if (next_random(&random) % 2)
            err = ebb_alloc_range(&world->memory.zone, pfn, frames, &ops);
        else
            err = ebb_alloc_contiguous(&world->memory.zone, frames, 8, &ops, &pfn);
        expect(world, err == 0 || err == -EBB_EBUSY || err == -EBB_EAGAIN || err == -EBB_ENOMEM ||
                          err == -EBB_ENOENT);
        if (err)
            continue;
        count(&world->ranges);
        for (uint64_t i = 0; i < frames; i++) {
            held.pfn = pfn + i;
            stamp(world, &held);
        }
        nap();
        for (uint64_t i = 0; i < frames; i++) {
            held.pfn = pfn + i;
            check_stamps(world, &held);
        }
        expect(world, ebb_free_range(&world->memory.zone, pfn, frames / 2 + 1) == 0);
        if (frames > frames / 2 + 1)
            expect(world, ebb_free_range(&world->memory.zone, pfn + frames / 2 + 1,
                                         frames - frames / 2 - 1) == 0);
    }
    return NULL;
}

/* Unplug a range, and plug it in again. */
static void unplug(struct world *world, ebb_pfn_t pfn, uint64_t frames)
{
    const struct ebb_migrate_ops ops = {.migrate = migrate, .ctx = world};
    struct ebb_zone *zone = &world->memory.zone;
    int err = -EBB_EBUSY;

    expect(world, ebb_isolate_range(zone, pfn, frames) == 0);
    for (unsigned i = 0; i < 50 && (err == -EBB_EBUSY || err == -EBB_EAGAIN); i++) {
        err = ebb_evacuate_range(zone, pfn, frames, &ops);
        expect(world, err == 0 || err == -EBB_EBUSY || err == -EBB_EAGAIN || err == -EBB_ENOMEM);
        err = ebb_zone_remove(zone, pfn, frames);
        expect(world, err == 0 || err == -EBB_EBUSY || err == -EBB_EAGAIN);
        nap();
    }
    if (err) {
        expect(world, ebb_putback_range(zone, pfn, frames, EBB_MOVABLE) == 0);
        return;
    }
    count(&world->removals);
    /* It is nobody's: what is written there stays. */
    for (uint64_t i = 0; i < frames; i++)
        *word_of(world, pfn + i) = ~i;
    nap();
    for (uint64_t i = 0; i < frames; i++) {
        if (*word_of(world, pfn + i) != ~i)
            count(&world->lost);
    }
    expect(world, ebb_zone_add(zone, pfn, frames) == 0);
}

static void *hotplug(void *arg)
{
    struct world *world = arg;
    uint64_t random = 77;

    while (value(&world->busy) > 0) {
        uint64_t frames = (1 + next_random(&random) % 8) << PAGEBLOCK;
        ebb_pfn_t pfn =
            BASE + (next_random(&random) % ((FRAMES - frames) >> PAGEBLOCK) << PAGEBLOCK);

        unplug(world, pfn, frames);
        expect(world, ebb_zone_check(&world->memory.zone, EBB_CHECK_COUNTERS, NULL) == 0);
    }
    return NULL;
}

/* ---- all together ---- */

static struct world *new_world(unsigned device_flags, enum ebb_tracker tracker)
{
    const struct ebb_zone_config zone = {
        .base = BASE, .max_order = 7, .pageblock_order = PAGEBLOCK, .cpus = 4};
    struct world *world = calloc(1, sizeof(*world));
    const struct ebb_settings settings = {
        .report = {.capacity = 8, .order = EBB_REPORT_ORDER(2), .worker = &world->worker},
        .history = {.pacing = EBB_PACING_DELAY, .delay_ms = 1, .tracker = (uint8_t)tracker},
    };

    assert_non_null(world);
    assert_int_equal(ebb_hosted_memory_create(&world->memory, FRAMES * EBB_FRAME_SIZE, &zone), 0);
    assert_int_equal(
        delay_engine_init(&world->engine, &world->report, &settings, &world->memory.zone), 0);
    assert_int_equal(ebb_hosted_worker_start(&world->worker, &world->report), 0);
    assert_int_equal(
        ebb_hosted_device_create(&world->device, &world->memory, &world->report, device_flags), 0);
    assert_int_equal(ebb_report_register(&world->report, &world->device.device), 0);
    return world;
}

static void free_world(struct world *world)
{
    struct ebb_violation violation = {0};
    struct ebb_zone_stats stats;

    assert_int_equal(ebb_report_unregister(&world->report), 0);
    ebb_zone_stats(&world->memory.zone, &stats);
    assert_int_equal(stats.managed, FRAMES);
    assert_int_equal(stats.allocated, 0);
    assert_int_equal(stats.in_flight, 0);
    assert_int_equal(stats.isolated, 0);
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

static void start_owners(struct world *world)
{
    const char *given = getenv("EBB_SEED");
    uint64_t seed = given ? strtoull(given, NULL, 0) : 41;

    print_message("EBB_SEED=%llu\n", (unsigned long long)seed);
    world->busy = OWNERS;
    for (unsigned i = 0; i < OWNERS; i++) {
        struct owner *owner = &world->owners[i];

        owner->world = world;
        owner->random = (seed + i + 1) * 0x9e3779b97f4a7c15;
        owner->ids = (uint64_t)i << 40;
        assert_int_equal(pthread_mutex_init(&owner->mutex, NULL), 0);
    }
    for (unsigned i = 0; i < OWNERS; i++)
        assert_int_equal(pthread_create(&world->owners[i].thread, NULL, own, &world->owners[i]), 0);
}

static void stress(unsigned device_flags, enum ebb_tracker tracker)
{
    struct world *world = new_world(device_flags, tracker);
    void *(*const others[])(void *) = {compact, compact, range, hotplug};
    pthread_t threads[4];

    start_owners(world);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, others[i], world), 0);
    for (unsigned i = 0; i < OWNERS; i++)
        pthread_join(world->owners[i].thread, NULL);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(world->lost, 0);
    assert_int_equal(world->errors, 0);
    print_message("moved %u, ranges %u, removals %u\n", world->moved, world->ranges,
                  world->removals);
    for (unsigned i = 0; i < OWNERS; i++)
        pthread_mutex_destroy(&world->owners[i].mutex);
    free_world(world);
}

static void test_all_at_once(void **state)
{
    (void)state;
    stress(0, EBB_TRACKER_ROTATION);
    stress(0, EBB_TRACKER_BITMAP);
}

static void test_all_at_once_with_a_slow_host(void **state)
{
    (void)state;
    stress(EBB_HOSTED_THREAD, EBB_TRACKER_MEMBRANE);
    stress(EBB_HOSTED_THREAD, EBB_TRACKER_BOUNDARY);
    stress(EBB_HOSTED_THREAD, EBB_TRACKER_SORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_all_at_once_with_a_slow_host),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
