/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two zones under several threads at once, on the hosted port: some allocate
 * and free (often what another one allocated), one does what an engine does,
 * one isolates ranges, drains caches and walks the invariants. Each frame has
 * an owner, changed by compare-and-swap: nobody ever gets a frame that somebody
 * has. How threads interleave is not in the seed; the numbers they draw are.
 *
 *   EBB_SEED=seed    other random numbers
 *   EBB_PROP_OPS=n   operations in all
 */
#define _POSIX_C_SOURCE 200809L /* barriers */

#include "prop.h"
#include "zone_private.h"

#include <ebb/range.h>

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define ZONES        2u
#define WORKERS      3u
#define HELD         512u /* blocks that a worker holds at most */
#define DEFAULT_OPS  12000000u
#define DEFAULT_SEED 20200407u
#define HOST         (WORKERS + 1) /* owners: 0 nobody, 1 to WORKERS, the host */

struct block {
    unsigned zone;
    unsigned order;
    ebb_pfn_t pfn;
};

struct shared {
    struct ebb_zone zone;
    void *metadata;
    uint32_t *owners; /* by index */
    uint64_t managed;
};

static struct shared shared[ZONES];
static uint64_t seed = DEFAULT_SEED;
static uint32_t working; /* threads that still have operations to do */

/* Blocks on their way from the worker that allocated them to one that frees them. */
static pthread_mutex_t exchange_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct block exchange[64];
static unsigned exchanged;

#define CHECK(condition)                                                                    \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            fprintf(stderr, "prop_zone_threads: EBB_SEED=%" PRIu64 ": line %d: %s\n", seed, \
                    __LINE__, #condition);                                                  \
            abort();                                                                        \
        }                                                                                   \
    } while (0)

static void change_owner(const struct block *block, uint32_t from, uint32_t to)
{
    struct shared *s = &shared[block->zone];
    uint64_t index = block->pfn - s->zone.base;

    for (uint64_t i = 0; i < (uint64_t)1 << block->order; i++) {
        uint32_t expected = from;

        CHECK(__atomic_compare_exchange_n(&s->owners[index + i], &expected, to, false,
                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    }
}

/* ---- those who allocate and free ---- */

static bool allocate(uint64_t *random, uint32_t self, struct block *block)
{
    static const unsigned flags[] = {0, 0, EBB_ALLOC_NO_CACHE, EBB_ALLOC_RESERVE};
    unsigned order = prop_below(random, 2) ? 0 : (unsigned)prop_below(random, 8);
    int err;

    block->zone = (unsigned)prop_below(random, ZONES);
    block->order = order;
    if (prop_below(random, 16) == 0) {
        struct ebb_zone *zone = &shared[block->zone].zone;

        block->pfn = zone->base + (prop_below(random, zone->span) & ~(((uint64_t)1 << order) - 1));
        err = ebb_alloc_at(zone, block->pfn, order, 0);
        CHECK(!err || err == -EBB_EBUSY || err == -EBB_EAGAIN || err == -EBB_ENOMEM ||
              (err == -EBB_EINVAL && block->pfn - zone->base + (1u << order) > zone->span));
    } else {
        err =
            ebb_alloc(&shared[block->zone].zone, order, (enum ebb_migratetype)prop_below(random, 3),
                      flags[prop_below(random, 4)], &block->pfn);
        CHECK(!err || err == -EBB_ENOMEM || err == -EBB_EAGAIN);
    }
    if (err)
        return false;
    change_owner(block, 0, self);
    return true;
}

static void release(struct block *block, uint32_t self)
{
    change_owner(block, self, 0);
    CHECK(ebb_free(&shared[block->zone].zone, block->pfn, block->order) == 0);
}

/* Give a block away for one that somebody else gave. */
static void swap(uint64_t *random, struct block *block, uint32_t self)
{
    pthread_mutex_lock(&exchange_mutex);
    if (exchanged < sizeof(exchange) / sizeof(exchange[0])) {
        change_owner(block, self, UINT32_MAX);
        exchange[exchanged++] = *block;
        block->order = UINT32_MAX;
    } else {
        unsigned i = (unsigned)prop_below(random, exchanged);
        struct block theirs = exchange[i];

        change_owner(block, self, UINT32_MAX);
        exchange[i] = *block;
        change_owner(&theirs, UINT32_MAX, self);
        *block = theirs;
    }
    pthread_mutex_unlock(&exchange_mutex);
}

static void *work(void *arg)
{
    uint32_t self = (uint32_t)(uintptr_t)arg;
    uint64_t random = seed * 16 + self;
    uint64_t ops = prop_ops(DEFAULT_OPS) / WORKERS;
    struct block held[HELD];
    unsigned n = 0;

    for (uint64_t i = 0; i < ops; i++) {
        bool filling = (i / 4096) % 2 == 0;

        if (n < HELD && prop_below(&random, 100) < (filling ? 55u : 45u)) {
            n += allocate(&random, self, &held[n]);
        } else if (n > 0) {
            unsigned pick = (unsigned)prop_below(&random, n);

            if (prop_below(&random, 4) == 0)
                swap(&random, &held[pick], self);
            if (held[pick].order != UINT32_MAX)
                release(&held[pick], self);
            held[pick] = held[--n];
        }
    }
    while (n > 0)
        release(&held[--n], self);
    __atomic_sub_fetch(&working, 1, __ATOMIC_RELEASE);
    return NULL;
}

static bool somebody_works(void)
{
    return __atomic_load_n(&working, __ATOMIC_ACQUIRE) > 0;
}

/* ---- the engine's part ---- */

/* Isolate the head of some list, as a tracker would find it. */
static bool isolate(uint64_t *random, struct block *block)
{
    struct ebb_zone *zone;
    bool isolated = false;

    block->zone = (unsigned)prop_below(random, ZONES);
    zone = &shared[block->zone].zone;
    block->order = (unsigned)prop_below(random, zone->max_order + 1u);
    ebb_port_lock(&zone->lock);
    for (unsigned type = 0; type < EBB_ISOLATE && !isolated; type++) {
        const struct ebb_free_list *list = &zone->lists[block->order][type];

        if (ebb__unreported(list) > 0) {
            uint32_t index = list->head;

            isolated = ebb__isolate_block(zone, index);
            block->pfn = zone->base + index;
        }
    }
    ebb_port_unlock(&zone->lock);
    return isolated;
}

static void *engine(void *arg)
{
    uint64_t random = seed * 16 + HOST;
    struct block batch[32];

    (void)arg;
    while (somebody_works()) {
        unsigned n = 0;

        while (n < 32 && isolate(&random, &batch[n])) {
            change_owner(&batch[n], 0, HOST);
            n++;
        }
        sched_yield();
        while (n > 0) {
            struct ebb_zone *zone = &shared[batch[--n].zone].zone;

            change_owner(&batch[n], HOST, 0);
            ebb_port_lock(&zone->lock);
            ebb__put_back(zone, (uint32_t)(batch[n].pfn - zone->base), prop_below(&random, 8) != 0);
            ebb_port_unlock(&zone->lock);
        }
    }
    return NULL;
}

/* ---- the one who disturbs and looks ---- */

static void check(struct ebb_zone *zone, enum ebb_check_level level)
{
    struct ebb_violation violation = {.what = "nothing"};
    int err = ebb_zone_check(zone, level, &violation);

    if (err)
        fprintf(stderr, "I%u at pfn %#" PRIx64 ": %s\n", violation.invariant, violation.pfn,
                violation.what);
    CHECK(!err);
}

/* Of the isolated frames from index on: how many are free? None is cached. */
static uint64_t isolated_free(struct shared *s, uint64_t index, uint64_t size)
{
    uint64_t unused = 0;

    for (uint64_t i = index; i < index + size; i++) {
        struct ebb_block block;

        ebb_zone_lookup(&s->zone, s->zone.base + i, &block);
        CHECK(block.state != EBB_BLOCK_CACHED);
        CHECK(block.state != EBB_BLOCK_FREE || block.type == EBB_ISOLATE);
        unused += block.state == EBB_BLOCK_FREE;
    }
    return unused;
}

/* Isolate a pageblock for a while: what is free there stays so. */
static void disturb(uint64_t *random, struct shared *s)
{
    uint64_t size = (uint64_t)1 << s->zone.pageblock_order;
    uint64_t index = prop_below(random, s->zone.span) & ~(size - 1);
    uint64_t before;

    CHECK(ebb_isolate_range(&s->zone, s->zone.base + index, size) == 0);
    before = isolated_free(s, index, size);
    sched_yield();
    CHECK(isolated_free(s, index, size) >= before);
    CHECK(ebb_putback_range(&s->zone, s->zone.base + index, size,
                            (enum ebb_migratetype)prop_below(random, 3)) == 0);
}

static void *observe(void *arg)
{
    uint64_t random = seed * 16;

    (void)arg;
    while (somebody_works()) {
        struct shared *s = &shared[prop_below(&random, ZONES)];
        struct ebb_zone_stats stats;

        switch (prop_below(&random, 16)) {
        case 0:
            check(&s->zone, EBB_CHECK_FRAMES);
            break;
        case 1:
            check(&s->zone, EBB_CHECK_LISTS);
            break;
        case 2:
            ebb_zone_drain(&s->zone);
            break;
        case 3:
            (void)ebb_zone_drain_idle(&s->zone);
            break;
        case 4:
        case 5:
            disturb(&random, s);
            break;
        default:
            ebb_zone_stats(&s->zone, &stats);
            CHECK(stats.managed == s->managed);
            CHECK(stats.allocated <= stats.managed);
            CHECK(stats.frees <= stats.allocs);
            check(&s->zone, EBB_CHECK_COUNTERS);
        }
        sched_yield();
    }
    return NULL;
}

/* ---- a run ---- */

static const struct ebb_zone_config configs[ZONES] = {
    {.base = 0x1000, .frames = 16384, .cpus = 4, .pcp_blocks = 2},
    {.base = 0x20003,
     .frames = 3000,
     .max_order = 7,
     .pageblock_order = 5,
     .cpus = 2,
     .pcp_high = 20,
     .pcp_batch = 7,
     .pcp_blocks = 4,
     .watermark_min = 100},
};

static int setup(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ZONES; i++) {
        struct shared *s = &shared[i];
        size_t size = ebb_zone_metadata_size(&configs[i]);

        memset(s, 0, sizeof(*s));
        s->metadata = aligned_alloc(64, (size + 63) & ~(size_t)63);
        assert_non_null(s->metadata);
        memset(s->metadata, 0, size);
        assert_int_equal(ebb_zone_init(&s->zone, &configs[i], s->metadata), 0);
        s->owners = calloc(s->zone.span, sizeof(s->owners[0]));
        assert_non_null(s->owners);
        /* A hole in the middle. */
        assert_int_equal(ebb_zone_add(&s->zone, configs[i].base, 1501), 0);
        assert_int_equal(ebb_zone_add(&s->zone, configs[i].base + 1503, configs[i].frames - 1503),
                         0);
        s->managed = configs[i].frames - 2;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ZONES; i++) {
        free(shared[i].metadata);
        free(shared[i].owners);
    }
    return 0;
}

static void nobody_gets_what_somebody_has(void **state)
{
    pthread_t threads[WORKERS + 2];

    (void)state;
    print_message("EBB_SEED=%" PRIu64 "\n", seed);
    working = WORKERS;
    for (uintptr_t i = 0; i < WORKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)(i + 1)), 0);
    assert_int_equal(pthread_create(&threads[WORKERS], NULL, engine, NULL), 0);
    assert_int_equal(pthread_create(&threads[WORKERS + 1], NULL, observe, NULL), 0);
    for (unsigned i = 0; i < WORKERS + 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    while (exchanged > 0)
        release(&exchange[--exchanged], UINT32_MAX);

    for (unsigned i = 0; i < ZONES; i++) {
        struct ebb_zone_stats stats;

        ebb_zone_drain(&shared[i].zone);
        check(&shared[i].zone, EBB_CHECK_FRAMES);
        ebb_zone_stats(&shared[i].zone, &stats);
        assert_int_equal(stats.free, shared[i].managed);
        assert_int_equal(stats.allocs, stats.frees);
        assert_int_equal(stats.isolated, 0);
        assert_int_equal(stats.misuses, 0);
        assert_true(stats.refaulted > 0);
    }
}

/* ---- several threads free the same frame at the same instant ---- */

#define FREERS 3u
#define ROUNDS 2000u

static pthread_barrier_t round_begins, round_ends;
static ebb_pfn_t contested;
static uint32_t freed; /* atomic: frees that were accepted */

static void *free_contested(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        (void)pthread_barrier_wait(&round_begins);
        if (ebb_free(&shared[0].zone, contested, 0) == 0)
            __atomic_fetch_add(&freed, 1, __ATOMIC_RELAXED);
        (void)pthread_barrier_wait(&round_ends);
    }
    return NULL;
}

static void one_of_several_frees_at_once_is_accepted(void **state)
{
    pthread_t threads[FREERS];

    (void)state;
    freed = 0;
    assert_int_equal(pthread_barrier_init(&round_begins, NULL, FREERS + 1), 0);
    assert_int_equal(pthread_barrier_init(&round_ends, NULL, FREERS + 1), 0);
    for (unsigned i = 0; i < FREERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, free_contested, NULL), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        assert_int_equal(ebb_alloc(&shared[0].zone, 0, EBB_MOVABLE, 0, &contested), 0);
        (void)pthread_barrier_wait(&round_begins);
        (void)pthread_barrier_wait(&round_ends);
        assert_int_equal(__atomic_load_n(&freed, __ATOMIC_RELAXED), i + 1);
    }
    for (unsigned i = 0; i < FREERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    (void)pthread_barrier_destroy(&round_begins);
    (void)pthread_barrier_destroy(&round_ends);
    check(&shared[0].zone, EBB_CHECK_FRAMES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nobody_gets_what_somebody_has, setup, teardown),
        cmocka_unit_test_setup_teardown(one_of_several_frees_at_once_is_accepted, setup, teardown),
    };

    if (getenv("EBB_SEED"))
        seed = strtoull(getenv("EBB_SEED"), NULL, 10);
    return cmocka_run_group_tests_name("prop_zone_threads", tests, NULL, NULL);
}
