/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two zones against a plain model, an array that says who has each frame, under
 * millions of random operations of every kind, in several configurations. One
 * thread on the virtual port, so that a run is a function of its seed:
 *
 *   EBB_SEED=seed              other random numbers
 *   EBB_SEED=seed:config:step  replays a failure, checking all of it at each of
 *                              the last steps
 *   EBB_PROP_OPS=n             operations in all
 */
#include "port_virtual.h"
#include "prop.h"
#include "zone_private.h"

#include <ebb/range.h>

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define ZONES        2u
#define DEFAULT_OPS  20000000u
#define DEFAULT_SEED 20200407u
#define CAREFUL      5000u /* last steps of a replay, with all checks after each */
#define PHASE        4096u

struct setting {
    const char *name;
    unsigned share; /* of the operations, in 1/16 */
    struct ebb_zone_config zones[ZONES];
};

static const struct setting settings[] = {
    {"tiny blocks, one CPU",
     4,
     {{.base = 0x1235, .frames = 1021, .max_order = 3, .pageblock_order = 2, .pcp_blocks = 4},
      {.base = 0x9000, .frames = 77, .max_order = 3, .pageblock_order = 3, .pcp_high = 4}}},
    {"defaults, two CPUs",
     4,
     {{.base = 0x100000, .frames = 16384, .cpus = 2},
      {.base = 0x200003, .frames = 9999, .cpus = 2, .watermark_min = 300}}},
    {"pageblocks of two frames, four CPUs, a reserve",
     3,
     {{.base = 7,
       .frames = 2000,
       .max_order = 6,
       .pageblock_order = 1,
       .cpus = 4,
       .pcp_high = 9,
       .pcp_batch = 9,
       .pcp_blocks = 1,
       .watermark_min = 64},
      {.base = 0x10000,
       .frames = 500,
       .max_order = 8,
       .pageblock_order = 4,
       .cpus = 3,
       .pcp_high = 1}}},
    {"blocks and pageblocks of one size, three CPUs",
     3,
     {{.base = 0x40000,
       .frames = 8191,
       .max_order = 10,
       .pageblock_order = 10,
       .cpus = 3,
       .pcp_blocks = 2},
      {.base = 0x80000 + 511, .frames = 4097, .max_order = 1, .pageblock_order = 1, .cpus = 3}}},
    {"small caches, so that frames are loose",
     3,
     {{.base = 0x9000,
       .frames = 4096,
       .max_order = 8,
       .pageblock_order = 7,
       .cpus = 2,
       .pcp_high = 4,
       .pcp_blocks = 3},
      {.base = 0x20000 + 77,
       .frames = 2999,
       .pageblock_order = 6,
       .pcp_high = 10,
       .pcp_batch = 3}}},
    {"blocks of 1 GiB",
     2,
     {{.base = 0x7ffff, .frames = 0x60001, .max_order = 18, .cpus = 4},
      {.base = 0x100000 - 3000, .frames = 6000, .max_order = 12, .pageblock_order = 7, .cpus = 2}}},
};
#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

/* ---- the model ---- */

enum kind { HOLE, FREE, USED, HOST };

struct frame {
    uint8_t kind;
    uint8_t order;    /* of the block it heads, if it is USED or HOST */
    uint8_t told;     /* the host was told, and nobody had it since */
    uint8_t isolated; /* its pageblock is */
    uint32_t head;    /* of its block, if it is USED or HOST */
    uint32_t place;   /* of the block it heads, in `blocks` */
};

struct blocks {
    uint32_t *index;
    uint32_t n;
};

struct model {
    struct ebb_zone zone;
    void *metadata;
    struct frame *frames; /* by index, holes included */
    uint64_t span;        /* up to the end of the last pageblock */
    uint64_t managed;
    uint64_t unused; /* FREE frames */
    uint64_t hosted; /* HOST frames */
    struct blocks used;
    struct blocks host;
    uint64_t allocs, frees, misuses;
};

static struct model models[ZONES];
static struct {
    uint64_t seed;
    size_t setting;
    uint64_t step;
    uint64_t random;
    bool filling; /* this phase allocates more than it frees */
} run;

#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition))                                                                       \
            fail_msg("EBB_SEED=%" PRIu64 ":%zu:%" PRIu64 " replays: %s", run.seed, run.setting, \
                     run.step, #condition);                                                     \
    } while (0)

static uint64_t below(uint64_t n)
{
    return prop_below(&run.random, n);
}

static void add_block(struct model *m, struct blocks *blocks, uint32_t index, unsigned order,
                      enum kind kind)
{
    m->frames[index].order = (uint8_t)order;
    m->frames[index].place = blocks->n;
    blocks->index[blocks->n++] = index;
    for (uint32_t i = 0; i < 1u << order; i++) {
        m->frames[index + i].kind = (uint8_t)kind;
        m->frames[index + i].head = index;
        if (kind == USED)
            m->frames[index + i].told = 0;
    }
    m->unused -= 1u << order;
}

static void remove_block(struct model *m, struct blocks *blocks, uint32_t index, bool told)
{
    uint32_t place = m->frames[index].place;
    unsigned order = m->frames[index].order;
    uint32_t last = blocks->index[--blocks->n];

    blocks->index[place] = last;
    m->frames[last].place = place;
    for (uint32_t i = 0; i < 1u << order; i++) {
        m->frames[index + i].kind = FREE;
        m->frames[index + i].told = told;
    }
    m->unused += 1u << order;
}

/* Could the block at index be allocated, but for the watermark? As ebb_alloc_at() says. */
static int allocatable(const struct model *m, uint32_t index, unsigned order)
{
    int answer = 0;

    for (uint32_t i = 0; i < 1u << order; i++) {
        const struct frame *frame = &m->frames[index + i];

        if (frame->kind == HOST)
            answer = -EBB_EAGAIN;
        else if (frame->kind != FREE || frame->isolated)
            return -EBB_EBUSY;
    }
    return answer;
}

/* ---- checks ---- */

static void check_zone(struct model *m, enum ebb_check_level level)
{
    struct ebb_violation violation;

    if (ebb_zone_check(&m->zone, level, &violation))
        fail_msg("EBB_SEED=%" PRIu64 ":%zu:%" PRIu64 " replays: I%u at pfn %#" PRIx64 ": %s",
                 run.seed, run.setting, run.step, violation.invariant, violation.pfn,
                 violation.what);
}

static void compare_stats(struct model *m)
{
    struct ebb_zone_stats stats;

    ebb_zone_stats(&m->zone, &stats);
    CHECK(stats.managed == m->managed);
    CHECK(stats.free + stats.cached == m->unused);
    CHECK(stats.in_flight == m->hosted);
    CHECK(stats.allocated == m->managed - m->unused - m->hosted);
    CHECK(stats.allocs == m->allocs);
    CHECK(stats.frees == m->frees);
    CHECK(stats.misuses == m->misuses);
}

/* A block of the zone's, frame by frame. */
static void compare_block(const struct model *m, const struct ebb_block *block, uint32_t index)
{
    for (uint32_t i = 0; i < 1u << block->order; i++) {
        const struct frame *frame = &m->frames[index + i];

        switch (block->state) {
        case EBB_BLOCK_FREE:
            CHECK(frame->kind == FREE);
            CHECK(frame->isolated == (block->type == EBB_ISOLATE));
            CHECK(frame->told || !block->reported);
            break;
        case EBB_BLOCK_CACHED:
            CHECK(frame->kind == FREE && !frame->isolated);
            break;
        case EBB_BLOCK_ALLOCATED:
            CHECK(frame->kind == USED && frame->head == index);
            break;
        case EBB_BLOCK_IN_FLIGHT:
            CHECK(frame->kind == HOST && frame->head == index);
            break;
        default:
            CHECK(false);
        }
    }
}

static void compare_frames(struct model *m)
{
    for (uint64_t at = 0; at < m->zone.span;) {
        struct ebb_block block;

        ebb_zone_lookup(&m->zone, m->zone.base + at, &block);
        if (block.state == EBB_BLOCK_NONE) {
            CHECK(m->frames[at].kind == HOLE);
            at++;
            continue;
        }
        CHECK(block.pfn == m->zone.base + at);
        compare_block(m, &block, (uint32_t)at);
        at += (uint64_t)1 << block.order;
    }
}

static void check(struct model *m, bool careful)
{
    /* The large zones have some 100 times as many frames as the others. */
    uint64_t rare = m->zone.span > 100000 ? 16 : 1;

    if (careful || run.step % (4096 * rare) == 0) {
        check_zone(m, EBB_CHECK_FRAMES);
        compare_frames(m);
        compare_stats(m);
    } else if (run.step % (512 * rare) == 0) {
        check_zone(m, EBB_CHECK_LISTS);
        compare_stats(m);
    } else if (run.step % 32 == 0) {
        check_zone(m, EBB_CHECK_COUNTERS);
    }
}

/* ---- operations ---- */

/* Mostly small, now and then as large as there are. */
static unsigned some_order(const struct model *m)
{
    unsigned order = 0;

    if (below(512) == 0)
        return (unsigned)below(m->zone.max_order + 1u);
    while (order < m->zone.max_order && order < 10 && below(3) == 0)
        order++;
    return order;
}

static unsigned some_flags(void)
{
    static const unsigned flags[] = {
        0, 0, 0, EBB_ALLOC_NO_CACHE, EBB_ALLOC_RESERVE, EBB_ALLOC_RESERVE | EBB_ALLOC_NO_CACHE};

    return flags[below(sizeof(flags) / sizeof(flags[0]))];
}

static bool below_reserve(const struct model *m, unsigned order, unsigned flags)
{
    return !(flags & EBB_ALLOC_RESERVE) &&
           m->zone.free - m->zone.isolated <
               (flags & EBB_ALLOC_LOW ? m->zone.watermark_low : m->zone.watermark_min) +
                   ((uint64_t)1 << order);
}

static bool any_cached(const struct model *m, uint64_t index, uint64_t size)
{
    struct ebb_block block;

    for (uint64_t at = index; at < index + size; at++) {
        ebb_zone_lookup((struct ebb_zone *)(uintptr_t)&m->zone, m->zone.base + at, &block);
        if (block.state == EBB_BLOCK_CACHED)
            return true;
    }
    return false;
}

/* An allocation failed, and has emptied the caches, unless it was not to: was there really
 * nothing? */
static void check_failure(const struct model *m, unsigned order, unsigned flags, int err)
{
    uint64_t size = (uint64_t)1 << order;

    CHECK(err == -EBB_ENOMEM || err == -EBB_EAGAIN);
    CHECK(err == -EBB_ENOMEM || m->hosted > 0);
    if (below_reserve(m, order, flags))
        return;
    for (uint64_t at = 0; at + size <= m->zone.span; at += size)
        CHECK(allocatable(m, (uint32_t)at, order) != 0 ||
              ((flags & EBB_ALLOC_LOW) && any_cached(m, at, size)));
}

static void do_alloc(struct model *m)
{
    unsigned order = some_order(m);
    unsigned flags = below(6) ? some_flags() : EBB_ALLOC_LOW;
    enum ebb_migratetype type = (enum ebb_migratetype)below(3);
    ebb_pfn_t pfn = UINT64_MAX;
    int err = ebb_alloc(&m->zone, order, type, flags, &pfn);

    if (err) {
        CHECK(pfn == UINT64_MAX);
        check_failure(m, order, flags, err);
        return;
    }
    uint64_t index = pfn - m->zone.base;

    CHECK(pfn >= m->zone.base && index + (1u << order) <= m->zone.span);
    CHECK((pfn & ((1u << order) - 1)) == 0);
    CHECK(allocatable(m, (uint32_t)index, order) == 0);
    add_block(m, &m->used, (uint32_t)index, order, USED);
    m->allocs++;
}

static void do_alloc_at(struct model *m)
{
    unsigned order = some_order(m);
    unsigned flags = some_flags();
    uint32_t index = (uint32_t)below(m->zone.span) & ~((1u << order) - 1);
    int err = ebb_alloc_at(&m->zone, m->zone.base + index, order, flags);

    if (index + ((uint64_t)1 << order) > m->zone.span) {
        CHECK(err == -EBB_EINVAL);
        return;
    }
    int expected = allocatable(m, index, order);

    if (expected == 0 && err) {
        CHECK(below_reserve(m, order, flags));
        /* What the reserve lacks may be with the host. */
        CHECK(err == -EBB_ENOMEM || (err == -EBB_EAGAIN && m->hosted > 0));
        return;
    }
    CHECK(err == expected);
    if (err)
        return;
    add_block(m, &m->used, index, order, USED);
    m->allocs++;
}

static void free_block(struct model *m, uint32_t index)
{
    CHECK(ebb_free(&m->zone, m->zone.base + index, m->frames[index].order) == 0);
    remove_block(m, &m->used, index, false);
    m->frees++;
}

static void do_free(struct model *m)
{
    if (m->used.n > 0)
        free_block(m, m->used.index[below(m->used.n)]);
}

static enum ebb_misuse_kind expected_misuse(const struct model *m, ebb_pfn_t pfn, unsigned order)
{
    uint64_t index = pfn - m->zone.base;

    if (pfn < m->zone.base || index >= m->zone.span || m->frames[index].kind == HOLE)
        return EBB_MISUSE_FOREIGN_PFN;
    if (order > m->zone.max_order)
        return EBB_MISUSE_WRONG_ORDER;
    if (index & ((1u << order) - 1))
        return EBB_MISUSE_MISALIGNED;
    if (m->frames[index].kind != USED)
        return EBB_MISUSE_DOUBLE_FREE;
    if (m->frames[index].head != index)
        return EBB_MISUSE_INSIDE_BLOCK;
    return EBB_MISUSE_WRONG_ORDER;
}

static void do_misuse(struct model *m)
{
    uint64_t index = below(m->zone.span + 2);
    ebb_pfn_t pfn = m->zone.base + index - 1;
    unsigned order = below(2) ? 0 : (unsigned)below(m->zone.max_order + 2u);
    const struct frame *frame = &m->frames[index - 1];
    unsigned told = port_virtual.misuses;

    if (index > 0 && index <= m->zone.span && frame->kind == USED && frame->head == index - 1 &&
        frame->order == order)
        return; /* that would be a proper free */
    CHECK(ebb_free(&m->zone, pfn, order) == -EBB_EINVAL);
    CHECK(port_virtual.misuses == told + 1);
    CHECK(port_virtual.misuse.pfn == pfn && port_virtual.misuse.order == order);
    CHECK(port_virtual.misuse.kind == expected_misuse(m, pfn, order));
    if (port_virtual.misuse.kind != EBB_MISUSE_FOREIGN_PFN && frame->kind == USED)
        CHECK(port_virtual.misuse.found_pfn == m->zone.base + frame->head &&
              port_virtual.misuse.found == m->frames[frame->head].order);
    m->misuses++;
}

/* A few pageblocks in a row: isolate them, or put them back. */
static void do_range(struct model *m)
{
    unsigned order = m->zone.pageblock_order;
    uint64_t pageblocks = m->span >> order;
    uint64_t first = below(pageblocks);
    uint64_t n = 1 + below(4);
    bool isolate = below(3) == 0;
    int expected = 0;
    int err;

    for (uint64_t i = 0; i < n && first + i < pageblocks; i++) {
        if (m->frames[(first + i) << order].isolated == isolate)
            expected = isolate ? -EBB_EBUSY : -EBB_EINVAL;
    }
    if (first + n > pageblocks)
        expected = -EBB_EINVAL;
    if (isolate)
        err = ebb_isolate_range(&m->zone, m->zone.base + (first << order), n << order);
    else
        err = ebb_putback_range(&m->zone, m->zone.base + (first << order), n << order,
                                (enum ebb_migratetype)below(3));
    CHECK(err == expected);
    if (err)
        return;
    for (uint64_t at = first << order; at < (first + n) << order; at++)
        m->frames[at].isolated = isolate;
}

/* As the engine does it: a free block goes to the host. */
static void do_isolate_block(struct model *m)
{
    struct ebb_block block;
    uint32_t index;

    ebb_zone_lookup(&m->zone, m->zone.base + below(m->zone.span), &block);
    if (block.state != EBB_BLOCK_FREE || block.type == EBB_ISOLATE)
        return;
    index = (uint32_t)(block.pfn - m->zone.base);
    bool allowed = !below_reserve(m, block.order, 0);

    ebb_port_lock(&m->zone.lock);
    bool isolated = ebb__isolate_block(&m->zone, index);
    ebb_port_unlock(&m->zone.lock);
    CHECK(isolated == allowed);
    if (!isolated)
        return;
    add_block(m, &m->host, index, block.order, HOST);
    m->hosted += 1u << block.order;
}

static void put_back(struct model *m, uint32_t index, bool reported)
{
    ebb_port_lock(&m->zone.lock);
    ebb__put_back(&m->zone, index, reported);
    ebb_port_unlock(&m->zone.lock);
    m->hosted -= 1u << m->frames[index].order;
    remove_block(m, &m->host, index, reported);
}

static void do_put_back(struct model *m)
{
    if (m->host.n > 0)
        put_back(m, m->host.index[below(m->host.n)], below(8) != 0);
}

static void add_frames(struct model *m, uint64_t from, uint64_t to)
{
    CHECK(ebb_zone_add(&m->zone, m->zone.base + from, to - from) == 0);
    for (uint64_t at = from; at < to; at++)
        m->frames[at].kind = FREE;
    m->managed += to - from;
    m->unused += to - from;
}

/* Fill a part of a hole, or see that frames are not added twice. */
static void do_add(struct model *m)
{
    uint64_t below_first = m->zone.first - m->zone.base;
    uint64_t from = below(m->zone.span);
    uint64_t to = from;

    if (from < below_first) {
        CHECK(ebb_zone_add(&m->zone, m->zone.base + from, 1) == -EBB_EINVAL);
        return;
    }
    while (to < m->zone.span && to - from < 64 && m->frames[to].kind == HOLE)
        to++;
    if (to > from)
        add_frames(m, from, to);
    else
        CHECK(ebb_zone_add(&m->zone, m->zone.base + from, 1) == -EBB_EEXIST);
}

static void do_drain(struct model *m)
{
    if (below(2)) {
        ebb_zone_drain(&m->zone);
        CHECK(m->zone.free == m->unused);
    } else {
        uint64_t left = ebb_zone_drain_idle(&m->zone);

        CHECK(m->zone.free + left == m->unused);
    }
}

static void step(struct model *m)
{
    unsigned dice = (unsigned)below(1000);

    port_virtual.cpu = (unsigned)below(5);
    if (dice < 800)
        (below(100) < (run.filling ? 55 : 45) ? do_alloc : do_free)(m);
    else if (dice < 840)
        do_alloc_at(m);
    else if (dice < 880)
        do_misuse(m);
    else if (dice < 940)
        do_isolate_block(m);
    else if (dice < 980)
        do_put_back(m);
    else if (dice < 990)
        do_range(m);
    else if (dice < 999)
        do_drain(m);
    else
        do_add(m);
}

/* ---- a run ---- */

static void open_zone(struct model *m, const struct ebb_zone_config *config)
{
    size_t size = ebb_zone_metadata_size(config);

    memset(m, 0, sizeof(*m));
    assert_true(size > 0);
    m->metadata = aligned_alloc(64, (size + 63) & ~(size_t)63);
    assert_non_null(m->metadata);
    memset(m->metadata, 0, size);
    assert_int_equal(ebb_zone_init(&m->zone, config, m->metadata), 0);
    m->span = m->zone.span + ((uint64_t)1 << m->zone.pageblock_order) - 1;
    m->span &= ~(((uint64_t)1 << m->zone.pageblock_order) - 1);
    m->frames = calloc(m->span, sizeof(m->frames[0]));
    m->used.index = calloc(m->zone.span, sizeof(uint32_t));
    m->host.index = calloc(m->zone.span, sizeof(uint32_t));
    assert_true(m->frames && m->used.index && m->host.index);

    /* All but a few holes. */
    uint64_t from = m->zone.first - m->zone.base;

    for (unsigned holes = (unsigned)below(4); holes > 0 && from < m->zone.span; holes--) {
        uint64_t to = from + 1 + below(m->zone.span - from);

        add_frames(m, from, to);
        from = to + 1 + below(40);
    }
    if (from < m->zone.span)
        add_frames(m, from, m->zone.span);
}

/* Everything comes back, and merges. */
static void release_all(struct model *m)
{
    uint64_t pageblock = (uint64_t)1 << m->zone.pageblock_order;

    while (m->used.n > 0)
        free_block(m, m->used.index[0]);
    while (m->host.n > 0)
        put_back(m, m->host.index[0], true);
    for (uint64_t at = 0; at < m->span; at += pageblock) {
        if (!m->frames[at].isolated)
            continue;
        CHECK(ebb_putback_range(&m->zone, m->zone.base + at, pageblock, EBB_MOVABLE) == 0);
        for (uint64_t i = 0; i < pageblock; i++)
            m->frames[at + i].isolated = 0;
    }
    ebb_zone_drain(&m->zone);
    check(m, true);
    CHECK(m->zone.free == m->managed);
    CHECK(m->zone.isolated == 0);
}

static void close_zone(struct model *m)
{
    release_all(m);
    free(m->metadata);
    free(m->frames);
    free(m->used.index);
    free(m->host.index);
}

/* Run a setting for so many steps; of a replay, the last ones with care. */
static void run_setting(size_t setting, uint64_t steps, bool replay)
{
    run.setting = setting;
    run.step = 0;
    run.random = run.seed * SETTINGS + setting;
    port_virtual_reset();
    for (unsigned i = 0; i < ZONES; i++)
        open_zone(&models[i], &settings[setting].zones[i]);
    for (run.step = 1; run.step <= steps; run.step++) {
        struct model *m = &models[below(ZONES)];

        if (run.step % PHASE == 1) {
            run.filling = below(2);
            if (below(16) == 0)
                release_all(m);
        }
        step(m);
        check(m, replay && run.step + CAREFUL > steps);
    }
    for (unsigned i = 0; i < ZONES; i++)
        close_zone(&models[i]);
}

static void follows_the_model(void **state)
{
    const struct setting *setting = *state;
    uint64_t steps = prop_ops(DEFAULT_OPS) * setting->share / 16;

    print_message("seed %" PRIu64 ", %" PRIu64 " steps\n", run.seed, steps);
    run_setting((size_t)(setting - settings), steps, false);
}

static uint64_t replay_steps;

static void replays(void **state)
{
    run_setting(*(size_t *)*state, replay_steps, true);
}

int main(void)
{
    struct CMUnitTest tests[SETTINGS];
    const char *id = getenv("EBB_SEED");
    size_t setting = 0;
    int fields;

    run.seed = DEFAULT_SEED;
    fields = id ? sscanf(id, "%" SCNu64 ":%zu:%" SCNu64, &run.seed, &setting, &replay_steps) : 0;
    if ((id && fields != 1 && fields != 3) || setting >= SETTINGS) {
        fprintf(stderr, "EBB_SEED is a seed, or seed:config:step with config below %zu\n",
                SETTINGS);
        return 2;
    }
    if (fields == 3) {
        const struct CMUnitTest one[] = {cmocka_unit_test_prestate(replays, &setting)};

        return cmocka_run_group_tests_name("prop_zone", one, NULL, NULL);
    }
    for (size_t i = 0; i < SETTINGS; i++)
        tests[i] = (struct CMUnitTest){.name = settings[i].name,
                                       .test_func = follows_the_model,
                                       .initial_state = (void *)(uintptr_t)&settings[i]};
    return cmocka_run_group_tests_name("prop_zone", tests, NULL, NULL);
}
