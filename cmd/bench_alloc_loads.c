/* SPDX-License-Identifier: BSD-2-Clause */
/* The workloads of `ebb bench alloc`, each as one thread does it. */
#include "bench_alloc.h"
#include "cmd.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGEBLOCK 9u
/* How often a zone is made for one figure. */
#define WARM_TIMES  15u
#define FRESH_TIMES 5u

const char *const alloc_names[ALLOC_MEASURES] = {
    "a",  "a2",       "b1_alloc", "b1_free", "b2_alloc", "b2_free",   "b2_many", "b3_free",
    "c1", "c2_alloc", "c2_free",  "d",       "cmpxchg",  "pair_loop", "mix_loop"};

const char *const alloc_texts[ALLOC_MEASURES] = {
    "a   order 0: allocate + free",
    "a2  the same, zone half full",
    "b1  1 GiB of order 0: allocate",
    "b1    free at random",
    "b2  all of order 0: allocate",
    "b2    free at random",
    "b2    free a list at random",
    "b3  free the other thread's",
    "c1  order 9: allocate + free",
    "c2  all of order 9: allocate",
    "c2    free at random",
    "d   orders 0 to 9, half full",
    "lock cmpxchg, uncontended",
    "the loop of a and c1 alone",
    "the loop of d alone",
};

/* ---- operations ---- */

/* Is there a block to be had? */
static bool has_free(struct ebb_zone *zone, unsigned order)
{
    struct ebb_zone_stats stats;

    ebb_zone_stats(zone, &stats);
    for (unsigned o = order; o < EBB_ORDERS; o++) {
        for (unsigned type = 0; type < EBB_ISOLATE; type++) {
            if (stats.lists[o][type].blocks > 0)
                return true;
        }
    }
    return order == 0 && stats.cached > 0;
}

/* An allocation failed: had it to? Tries again; false: there is nothing. */
__attribute__((noinline, cold)) static bool failed(struct alloc_worker *worker, unsigned order,
                                                   ebb_pfn_t *pfn)
{
    struct ebb_zone *zone = &worker->rig->zone;
    bool before = has_free(zone, order);

    if (ebb_alloc(zone, order, EBB_MOVABLE, 0, pfn) == 0) {
        if (worker->rig->threads > 1)
            worker->failures.raced++;
        else
            worker->failures.refused++;
        return true;
    }
    if (before && has_free(zone, order))
        worker->failures.refused++;
    else
        worker->failures.none_free++;
    return false;
}

static inline bool take(struct alloc_worker *worker, unsigned order, ebb_pfn_t *pfn)
{
    return EBB_LIKELY(ebb_alloc(&worker->rig->zone, order, EBB_MOVABLE, 0, pfn) == 0) ||
           failed(worker, order, pfn);
}

static inline void give(struct alloc_worker *worker, ebb_pfn_t pfn, unsigned order)
{
    if (EBB_UNLIKELY(ebb_free(&worker->rig->zone, pfn, order) != 0))
        alloc_must(false, "a free was refused");
}

static void take_many(struct alloc_worker *worker, unsigned order, uint64_t n)
{
    uint64_t taken = 0;

    for (uint64_t i = 0; i < n; i++) {
        ebb_pfn_t pfn;

        if (take(worker, order, &pfn))
            worker->pfns[taken++] = (uint32_t)pfn;
    }
    worker->n_pfns = taken;
}

static void give_many(struct alloc_worker *worker, const uint32_t *pfns, unsigned order, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        give(worker, pfns[i], order);
}

static inline uint64_t next_random(uint64_t *random)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return *random;
}

/* Below n, which has 32 bits. */
static inline uint64_t random_below(uint64_t random, uint64_t n)
{
    return (random >> 32) * n >> 32;
}

static void shuffle(struct alloc_worker *worker)
{
    uint32_t *pfns = worker->pfns;

    for (uint64_t i = worker->n_pfns; i > 1; i--) {
        uint64_t j = random_below(next_random(&worker->random), i);
        uint32_t swap = pfns[i - 1];

        pfns[i - 1] = pfns[j];
        pfns[j] = swap;
    }
}

/* ---- a, a2, c1: pairs ---- */

static inline __attribute__((always_inline)) void pairs(struct alloc_worker *worker, unsigned order,
                                                        enum alloc_measure measure, bool dry)
{
    const uint64_t n = worker->rig->scale.pairs;
    volatile ebb_pfn_t sink = 0;

    alloc_begin(worker);
    for (uint64_t i = 0; i < n; i++) {
        ebb_pfn_t pfn = 0;

        if (dry)
            sink = i;
        else if (take(worker, order, &pfn))
            give(worker, pfn, order);
    }
    alloc_end(worker, measure, n);
    (void)sink;
}

static void run_a(struct alloc_worker *worker)
{
    pairs(worker, 0, ALLOC_A, false);
}

static void run_a2(struct alloc_worker *worker)
{
    uint64_t half;

    take_many(worker, 0, worker->rig->frames / worker->rig->threads);
    shuffle(worker);
    half = worker->n_pfns / 2;
    give_many(worker, worker->pfns + half, 0, worker->n_pfns - half);
    pairs(worker, 0, ALLOC_A2, false);
    give_many(worker, worker->pfns, 0, half);
}

static void run_c1(struct alloc_worker *worker)
{
    pairs(worker, PAGEBLOCK, ALLOC_C1, false);
}

/* ---- b1, b2, b3, c2: many, then free at random ---- */

/* So many by all threads together. */
static void bulk(struct alloc_worker *worker, unsigned order, uint64_t n, enum alloc_measure alloc,
                 enum alloc_measure release)
{
    n /= worker->rig->threads;
    alloc_begin(worker);
    take_many(worker, order, n);
    alloc_end(worker, alloc, n);
    shuffle(worker);
    alloc_begin(worker);
    give_many(worker, worker->pfns, order, worker->n_pfns);
    alloc_end(worker, release, worker->n_pfns);
}

static void run_b1(struct alloc_worker *worker)
{
    bulk(worker, 0, worker->rig->scale.bulk, ALLOC_B1_ALLOC, ALLOC_B1_FREE);
}

static void run_b2(struct alloc_worker *worker)
{
    bulk(worker, 0, worker->rig->frames, ALLOC_B2_ALLOC, ALLOC_B2_FREE);
}

/* As one who frees a list: the pfns are handed over some hundred at a time. */
static void give_lists(struct alloc_worker *worker)
{
    ebb_pfn_t list[512];

    for (uint64_t at = 0, n; at < worker->n_pfns; at += n) {
        n = worker->n_pfns - at < 512 ? worker->n_pfns - at : 512;
        for (uint64_t i = 0; i < n; i++)
            list[i] = worker->pfns[at + i];
        alloc_must(ebb_free_many(&worker->rig->zone, list, n) == 0, "a list is not freed");
    }
}

static void run_b2_many(struct alloc_worker *worker)
{
    take_many(worker, 0, worker->rig->frames / worker->rig->threads);
    shuffle(worker);
    alloc_begin(worker);
    give_lists(worker);
    alloc_end(worker, ALLOC_B2_MANY, worker->n_pfns);
}

static void run_b3(struct alloc_worker *worker)
{
    struct alloc_rig *rig = worker->rig;
    const struct alloc_worker *other = &rig->workers[(worker->id + 1) % rig->threads];

    take_many(worker, 0, rig->scale.bulk / rig->threads);
    shuffle(worker);
    alloc_begin(worker); /* the other one has shuffled, too */
    give_many(worker, other->pfns, 0, other->n_pfns);
    alloc_end(worker, ALLOC_B3_FREE, other->n_pfns);
}

/* Again and again: once is over too soon. The first time, when the list is in order, is not
 * counted. */
static void run_c2(struct alloc_worker *worker)
{
    uint64_t blocks = worker->rig->frames >> PAGEBLOCK;
    uint64_t times = worker->rig->scale.blocks / blocks;

    bulk(worker, PAGEBLOCK, blocks, ALLOC_C2_ALLOC, ALLOC_C2_FREE);
    memset(&worker->meters[ALLOC_C2_ALLOC], 0, sizeof(struct alloc_meter));
    memset(&worker->meters[ALLOC_C2_FREE], 0, sizeof(struct alloc_meter));
    for (uint64_t i = 0; i < (times > 2 ? times : 2); i++)
        bulk(worker, PAGEBLOCK, blocks, ALLOC_C2_ALLOC, ALLOC_C2_FREE);
}

/* ---- d: a mix ---- */

/* Orders 0 to 9, of 256. */
static const uint8_t weights[PAGEBLOCK + 1] = {140, 36, 26, 20, 14, 8, 5, 3, 2, 2};

static void choose_orders(uint8_t orders[256])
{
    unsigned n = 0;

    for (unsigned order = 0; order <= PAGEBLOCK; order++) {
        for (unsigned i = 0; i < weights[order]; i++)
            orders[n++] = (uint8_t)order;
    }
}

/* Out of the middle, the last one takes its place. */
static inline struct alloc_block pick(struct alloc_worker *worker, uint64_t i)
{
    struct alloc_block block = worker->blocks[i];

    worker->blocks[i] = worker->blocks[--worker->n_blocks];
    worker->block_frames -= (uint64_t)1 << block.order;
    return block;
}

/* Allocate while less than the target is in use, else free any. Ends after so many operations,
 * or, if none are given, at the target. */
static inline __attribute__((always_inline)) void
mix(struct alloc_worker *worker, const uint8_t *orders, uint64_t operations, bool dry)
{
    const uint64_t target = worker->rig->frames / 2 / worker->rig->threads;

    for (uint64_t i = 0; operations ? i < operations : worker->block_frames < target; i++) {
        uint64_t random = next_random(&worker->random);

        if (worker->block_frames < target) {
            unsigned order = orders[random >> 56];
            ebb_pfn_t pfn = i;

            if (!dry && !take(worker, order, &pfn))
                continue;
            worker->blocks[worker->n_blocks++] = (struct alloc_block){(uint32_t)pfn, order};
            worker->block_frames += (uint64_t)1 << order;
        } else {
            struct alloc_block block = pick(worker, random_below(random, worker->n_blocks));

            if (!dry)
                give(worker, block.pfn, block.order);
        }
    }
}

static void run_d(struct alloc_worker *worker)
{
    uint8_t orders[256];

    choose_orders(orders);
    mix(worker, orders, 0, false);
    alloc_begin(worker);
    mix(worker, orders, worker->rig->scale.mixed, false);
    alloc_end(worker, ALLOC_D, worker->rig->scale.mixed);
}

static void free_until(struct alloc_worker *worker, uint64_t left)
{
    while (worker->n_blocks > left) {
        uint64_t i = random_below(next_random(&worker->random), worker->n_blocks);
        struct alloc_block block = pick(worker, i);

        give(worker, block.pfn, block.order);
    }
}

void alloc_thin(struct alloc_worker *worker)
{
    free_until(worker, worker->n_blocks / 5);
}

void alloc_clear(struct alloc_worker *worker)
{
    free_until(worker, 0);
}

double alloc_whole_percent(struct alloc_rig *rig)
{
    struct ebb_zone_stats stats;
    uint64_t frames = 0;

    /* As a pass does with caches that are idle: a frame in one of them keeps its block apart. */
    ebb_zone_drain(&rig->zone);
    ebb_zone_stats(&rig->zone, &stats);
    for (unsigned order = PAGEBLOCK; order < EBB_ORDERS; order++) {
        for (unsigned type = 0; type < EBB_ISOLATE; type++)
            frames += stats.lists[order][type].blocks << order;
    }
    return 100 * (double)frames / (double)stats.free;
}

/* ---- initialisation ---- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* The middle one, in us per GiB. */
static double middle_us(const struct alloc_rig *rig, uint64_t *ns, unsigned n)
{
    qsort(ns, n, sizeof(*ns), by_value);
    return (double)ns[n / 2] / 1e3 / (double)(rig->frames >> (30 - EBB_FRAME_SHIFT));
}

static uint64_t time_zone(struct alloc_rig *rig, struct ebb_zone *zone, void *metadata)
{
    uint64_t start;

    memset(zone, 0, sizeof(*zone));
    start = cmd_now_ns();
    alloc_make_zone(zone, rig->frames, 1, metadata);
    return cmd_now_ns() - start;
}

/* In metadata that was never touched. */
static uint64_t time_fresh(struct alloc_rig *rig, struct ebb_zone *zone, size_t bytes)
{
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint64_t ns;

    if (map == MAP_FAILED)
        cmd_no_memory();
    ns = time_zone(rig, zone, map);
    munmap(map, bytes);
    return ns;
}

void alloc_initialise(struct alloc_worker *worker)
{
    struct alloc_rig *rig = worker->rig;
    uint64_t bytes = alloc_metadata_bytes(rig->frames, 1);
    uint64_t warm[WARM_TIMES], fresh[FRESH_TIMES];

    for (unsigned i = 0; i < WARM_TIMES; i++) {
        memset(rig->metadata, 0, (size_t)bytes);
        warm[i] = time_zone(rig, &rig->zone, rig->metadata);
    }
    for (unsigned i = 0; i < FRESH_TIMES; i++)
        fresh[i] = time_fresh(rig, &rig->zone, (size_t)bytes);
    rig->init_warm_us = middle_us(rig, warm, WARM_TIMES);
    rig->init_fresh_us = middle_us(rig, fresh, FRESH_TIMES);
}

/* ---- what the machine and the loops cost ---- */

static void time_cmpxchg(struct alloc_worker *worker)
{
    const uint64_t n = worker->rig->scale.cmpxchg;
    uint64_t word __attribute__((aligned(64))) = 0;

    alloc_begin(worker);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t seen = i;

        (void)__atomic_compare_exchange_n(&word, &seen, i + 1, false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED);
    }
    alloc_end(worker, ALLOC_CMPXCHG, n);
    alloc_must(word == n, "compare-and-swap does not");
}

static void run_calibration(struct alloc_worker *worker)
{
    uint8_t orders[256];

    choose_orders(orders);
    time_cmpxchg(worker);
    pairs(worker, 0, ALLOC_PAIR_LOOP, true);
    mix(worker, orders, 0, true);
    alloc_begin(worker);
    mix(worker, orders, worker->rig->scale.mixed, true);
    alloc_end(worker, ALLOC_MIX_LOOP, worker->rig->scale.mixed);
    worker->n_blocks = 0;
}

/* ---- all of them ---- */

#define BIT(measure) (1u << (measure))

const struct alloc_load alloc_loads[] = {
    {"a", run_a, BIT(ALLOC_A), 1, 2, true},
    {"a2", run_a2, BIT(ALLOC_A2), 1, 2, false},
    {"b1", run_b1, BIT(ALLOC_B1_ALLOC) | BIT(ALLOC_B1_FREE), 1, 2, true},
    {"b2", run_b2, BIT(ALLOC_B2_ALLOC) | BIT(ALLOC_B2_FREE), 1, 2, false},
    {"b2_many", run_b2_many, BIT(ALLOC_B2_MANY), 1, 2, false},
    {"b3", run_b3, BIT(ALLOC_B3_FREE), 2, 2, false},
    {"c1", run_c1, BIT(ALLOC_C1), 1, 2, true},
    {"c2", run_c2, BIT(ALLOC_C2_ALLOC) | BIT(ALLOC_C2_FREE), 1, 2, false},
    {"d", run_d, BIT(ALLOC_D), 1, 2, false},
    {"calibration", run_calibration,
     BIT(ALLOC_CMPXCHG) | BIT(ALLOC_PAIR_LOOP) | BIT(ALLOC_MIX_LOOP), 1, 1, false},
};
const unsigned alloc_n_loads = sizeof(alloc_loads) / sizeof(alloc_loads[0]);
