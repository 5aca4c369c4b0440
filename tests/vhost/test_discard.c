/* SPDX-License-Identifier: BSD-2-Clause */
/* Discards by backing: what is dropped and what is not, by how few calls, and the counters. */
#include "discard_rig.h"
#include "loop/rng.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

#define PAGE        EBB_FRAME_SIZE
#define LARGE       (16 * PAGE)
#define OUTSIDE_GPA UINT64_C(0x40000000)

static const enum ebb_backing backings[] = {EBB_BACKING_SHARED, EBB_BACKING_ANON};

static uint64_t resident(const struct rig *rig)
{
    struct stat st;

    assert_int_equal(fstat(rig->fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static void run_one(struct rig *rig, enum ebb_discard_kind kind, unsigned frame, unsigned frames)
{
    const struct ebb_range range = rig_range(frame, frames);

    rig_run(rig, kind, &range, 1);
}

/* ---- what is dropped ---- */

struct row {
    const char *name;
    uint64_t page;
    enum ebb_discard_kind kind;
    struct ebb_range ranges[6];
    unsigned n;
    unsigned first, frames; /* dropped */
    unsigned calls;
    uint64_t repeated, gathered;
    uint64_t not_bytes[EBB_DISCARD_CAUSES];
};

#define A(frame, n)                    \
    {                                  \
        GPA_A + (frame)*PAGE, (n)*PAGE \
    }
#define C(frame, n)                                \
    {                                              \
        GPA_C + ((frame)-FIRST_C) * PAGE, (n)*PAGE \
    }
#define REPORTED       EBB_DISCARD_REPORTED
#define INFLATED       EBB_DISCARD_INFLATED
#define DROPS(f, n, c) .first = (f), .frames = (n), .calls = (c)
#define NOT(cause, n)  .not_bytes = {[EBB_DISCARD_##cause] = (n)}

static const struct row rows[] = {
    {"one range", PAGE, REPORTED, {A(3, 5)}, 1, DROPS(3, 5, 1)},
    {"one frame of the balloon", PAGE, INFLATED, {A(3, 1)}, 1, DROPS(3, 1, 1)},
    {"all of a region", PAGE, REPORTED, {C(768, 256)}, 1, DROPS(768, 256, 1)},
    {"neighbours, backwards", PAGE, REPORTED, {A(7, 1), A(6, 1), A(5, 1)}, 3, DROPS(5, 3, 1)},
    {"twice the same", PAGE, REPORTED, {A(7, 2), A(7, 2)}, 2, DROPS(7, 2, 1), .repeated = 2 * PAGE},
    {"overlap", PAGE, REPORTED, {A(7, 4), A(9, 4)}, 2, DROPS(7, 6, 1), .repeated = 2 * PAGE},
    {"one inside another",
     PAGE,
     REPORTED,
     {A(7, 9), A(9, 1), A(12, 2)},
     3,
     DROPS(7, 9, 1),
     .repeated = 3 * PAGE},
    {"across regions", PAGE, REPORTED, {A(500, 50)}, 1, DROPS(500, 50, 1)},
    {"regions that go on in the file only",
     PAGE,
     REPORTED,
     {C(768, 8), A(760, 8)},
     2,
     DROPS(760, 16, 1)},
    {"nothing", PAGE, REPORTED, {A(3, 0), {OUTSIDE_GPA, 0}}, 2, DROPS(0, 0, 0)},
    {"half frames that make one",
     PAGE,
     REPORTED,
     {{GPA_A + 5 * PAGE, 2048}, {GPA_A + 5 * PAGE + 2048, 2048}},
     2,
     DROPS(5, 1, 1)},
    {"not whole frames",
     PAGE,
     REPORTED,
     {{GPA_A + 100, 3 * PAGE}},
     1,
     DROPS(1, 2, 1),
     NOT(PARTIAL, PAGE)},
    {"less than a frame",
     PAGE,
     INFLATED,
     {{GPA_A + 100, 100}},
     1,
     DROPS(0, 0, 0),
     NOT(PARTIAL, 100)},

    {"outside",
     PAGE,
     REPORTED,
     {{OUTSIDE_GPA, PAGE}, A(1, 1)},
     2,
     DROPS(1, 1, 1),
     NOT(OUTSIDE, PAGE)},
    {"below memory",
     PAGE,
     REPORTED,
     {{GPA_A - PAGE, 2 * PAGE}, A(9, 1)},
     2,
     DROPS(9, 1, 1),
     NOT(OUTSIDE, 2 * PAGE)},
    {"over a hole",
     PAGE,
     REPORTED,
     {A(767, 2), A(9, 1)},
     2,
     DROPS(9, 1, 1),
     NOT(OUTSIDE, 2 * PAGE)},
    {"across all",
     PAGE,
     REPORTED,
     {{GPA_A, GPA_C}, A(9, 1)},
     2,
     DROPS(9, 1, 1),
     NOT(OUTSIDE, GPA_C)},
    {"to the end of addresses",
     PAGE,
     REPORTED,
     {{GPA_C, UINT64_MAX - GPA_C}, A(9, 1)},
     2,
     DROPS(9, 1, 1),
     NOT(OUTSIDE, UINT64_MAX - GPA_C)},
    {"wraps",
     PAGE,
     REPORTED,
     {{GPA_C + PAGE, UINT64_MAX - PAGE}, A(9, 1)},
     2,
     DROPS(9, 1, 1),
     NOT(OUTSIDE, UINT64_MAX - PAGE)},
    {"wraps to itself",
     PAGE,
     REPORTED,
     {{UINT64_MAX, UINT64_MAX}, A(9, 1)},
     2,
     DROPS(9, 1, 1),
     NOT(OUTSIDE, UINT64_MAX)},

    {"large page", LARGE, REPORTED, {A(16, 16)}, 1, DROPS(16, 16, 1)},
    {"part of one", LARGE, REPORTED, {A(16, 15)}, 1, DROPS(0, 0, 0), NOT(PARTIAL, 15 * PAGE)},
    {"more than one", LARGE, REPORTED, {A(15, 18)}, 1, DROPS(16, 16, 1), NOT(PARTIAL, 2 * PAGE)},
    {"astride", LARGE, REPORTED, {A(8, 16)}, 1, DROPS(0, 0, 0), NOT(PARTIAL, 16 * PAGE)},
    {"neighbours that make one", LARGE, REPORTED, {A(24, 8), A(16, 8)}, 2, DROPS(16, 16, 1)},
    {"gathered", LARGE, INFLATED, {A(16, 15)}, 1, DROPS(0, 0, 0), .gathered = 15 * PAGE},
    {"gathered at both ends",
     LARGE,
     INFLATED,
     {A(15, 18)},
     1,
     DROPS(16, 16, 1),
     .gathered = 2 * PAGE},
    {"gathered astride", LARGE, INFLATED, {A(8, 16)}, 1, DROPS(0, 0, 0), .gathered = 16 * PAGE},
    {"gathered, frayed",
     LARGE,
     INFLATED,
     {{GPA_A + 100, 3 * PAGE}},
     1,
     DROPS(0, 0, 0),
     .gathered = 2 * PAGE,
     NOT(PARTIAL, PAGE)},
    {"a page over two regions",
     512 * PAGE,
     REPORTED,
     {A(512, 256), C(768, 256)},
     2,
     DROPS(512, 512, 1)},
    {"its half", 512 * PAGE, REPORTED, {A(512, 256)}, 1, DROPS(0, 0, 0), NOT(PARTIAL, 256 * PAGE)},
};

static void check_row(const struct row *row, enum ebb_backing backing)
{
    struct ebb_discard_stats stats;
    struct rig rig;

    rig_start(&rig, backing, row->page, NULL);
    rig_run(&rig, row->kind, row->ranges, row->n);
    rig_expect_dropped(&rig, row->first, row->frames);
    stats = rig_stats(&rig);
    assert_int_equal(stats.batches, 1);
    assert_int_equal(stats.ranges, row->n);
    assert_int_equal(stats.discarded_bytes, row->frames * PAGE);
    assert_int_equal(stats.calls, row->calls);
    assert_int_equal(stats.repeated_bytes, row->repeated);
    assert_int_equal(stats.gathered_bytes, row->gathered);
    assert_memory_equal(stats.not_bytes, row->not_bytes, sizeof(row->not_bytes));
    for (unsigned i = 0; i < EBB_DISCARD_CAUSES; i++)
        assert_int_equal(stats.not_ranges[i] > 0, row->not_bytes[i] > 0);
    assert_int_equal(stats.last_error, 0);
    rig_stop(&rig);
}

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (unsigned b = 0; b < 2; b++) {
            print_message("%s, backing %u\n", rows[i].name, (unsigned)backings[b]);
            check_row(&rows[i], backings[b]);
        }
}

/* The file's blocks, not just its contents. */
static void test_memory_comes_back(void **state)
{
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, PAGE, NULL);
    assert_int_equal(resident(&rig), BYTES);
    run_one(&rig, REPORTED, 100, 400);
    assert_int_equal(resident(&rig), BYTES - 400 * PAGE);
    rig_stop(&rig);
}

static void test_refused_backing(void **state)
{
    const struct ebb_range ranges[] = {rig_range(3, 4), rig_range(600, 5)};
    struct ebb_discard_stats stats;
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, PAGE, NULL);
    rig.memory.regions[0].backing = EBB_BACKING_NONE;
    rig_run(&rig, REPORTED, ranges, 2);
    rig_expect_dropped(&rig, 600, 5);
    stats = rig_stats(&rig);
    assert_int_equal(stats.not_bytes[EBB_DISCARD_BACKING], 4 * PAGE);
    assert_int_equal(stats.not_ranges[EBB_DISCARD_BACKING], 1);
    rig_stop(&rig);
}

/* Two regions that show the same of a file: each byte goes once. */
static void test_alias(void **state)
{
    struct ebb_range ranges[2];
    struct ebb_region alias;
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, PAGE, NULL);
    alias = rig.memory.regions[0];
    alias.gpa = OUTSIDE_GPA;
    assert_int_equal(ebb_memory_add(&rig.memory, &alias), 0);
    ranges[0] = rig_range(10, 4);
    ranges[1] = (struct ebb_range){OUTSIDE_GPA + 12 * PAGE, 4 * PAGE};
    rig_run(&rig, REPORTED, ranges, 2);
    rig_expect_dropped(&rig, 10, 6);
    assert_int_equal(rig_stats(&rig).repeated_bytes, 2 * PAGE);
    assert_int_equal(rig_stats(&rig).calls, 1);
    rig_stop(&rig);
}

/* The same of a file once by small and once by large pages: neighbours, but not alike. */
static void test_alias_of_other_pages(void **state)
{
    struct ebb_range ranges[2];
    struct ebb_region alias;
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, PAGE, NULL);
    alias = rig.memory.regions[0];
    alias.gpa = OUTSIDE_GPA;
    alias.page = LARGE;
    assert_int_equal(ebb_memory_add(&rig.memory, &alias), 0);
    ranges[0] = rig_range(10, 4);
    ranges[1] = (struct ebb_range){OUTSIDE_GPA + 14 * PAGE, 4 * PAGE};
    rig_run(&rig, REPORTED, ranges, 2);
    rig_expect_dropped(&rig, 10, 4);
    assert_int_equal(rig_stats(&rig).not_bytes[EBB_DISCARD_PARTIAL], 4 * PAGE);
    rig_stop(&rig);
}

/* Two files, and what is at the same and at neighbouring places in them. */
static void test_two_files(void **state)
{
    struct ebb_range ranges[] = {rig_range(0, 16), rig_range(FIRST_C + 16, 16)};
    const struct ebb_range part = rig_range(36, 2), all_of_c = rig_range(FIRST_C, 256);
    struct rig rig, other;

    (void)state;
    rig_start(&other, EBB_BACKING_SHARED, LARGE, NULL);
    rig_start(&rig, EBB_BACKING_SHARED, LARGE, NULL);
    rig.memory.regions[2].fd = other.fd;
    rig.memory.regions[2].offset = 0;
    rig_run(&rig, INFLATED, ranges, 2);
    rig_expect_dropped(&rig, 0, 16);
    rig_expect_dropped(&other, 16, 16);
    assert_int_equal(rig_stats(&rig).calls, 2);

    /* The parts of a page of the one do not make up a page of the other. */
    rig_run(&rig, INFLATED, &part, 1);
    assert_int_equal(ebb_discard_deflated(rig.discard, &all_of_c, 1), 0);
    assert_int_equal(rig_stats(&rig).gathered_bytes, 2 * PAGE);
    ranges[0] = rig_range(32, 4);
    ranges[1] = rig_range(38, 10);
    rig_run(&rig, INFLATED, ranges, 2);
    assert_true(rig_dropped(&rig, 32) && rig_dropped(&rig, 47));
    rig_expect_dropped(&other, 16, 16);
    rig_stop(&rig);
    rig_stop(&other);
}

/* As many ranges as there can be, each of them over all regions. */
static void test_longest_batch(void **state)
{
    static struct ebb_range ranges[EBB_DISCARD_RANGES];
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, PAGE, NULL);
    for (unsigned i = 0; i < EBB_DISCARD_RANGES; i++)
        ranges[i] = rig_range(i % 128, FIRST_C - 256);
    rig_run(&rig, REPORTED, ranges, EBB_DISCARD_RANGES);
    rig_expect_dropped(&rig, 0, FIRST_C - 129);
    assert_int_equal(rig_stats(&rig).calls, 1);

    rig_stamp(&rig);
    for (unsigned i = 0; i < EBB_DISCARD_RANGES; i++) /* scattered: nothing to merge */
        ranges[i] = rig_range(i * 2 % FRAMES, 1);
    rig_run(&rig, REPORTED, ranges, EBB_DISCARD_RANGES);
    assert_int_equal(rig_stats(&rig).calls, 1 + FRAMES / 2);
    for (unsigned i = 0; i < FRAMES; i++)
        assert_int_equal(rig_dropped(&rig, i), i % 2 == 0);
    rig_stop(&rig);
}

static void test_submit_errors(void **state)
{
    static struct ebb_range ranges[EBB_DISCARD_RANGES + 1];
    struct ebb_discard_config config = {0};
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, PAGE, NULL);
    assert_int_equal(rig_submit(&rig, REPORTED, ranges, 0), -EBB_EINVAL);
    assert_int_equal(rig_submit(&rig, REPORTED, ranges, EBB_DISCARD_RANGES + 1), -EBB_EINVAL);
    rig.ops.gate = true;
    ranges[0] = rig_range(0, 1);
    assert_int_equal(rig_submit(&rig, REPORTED, ranges, 1), 0);
    assert_int_equal(rig_submit(&rig, REPORTED, ranges, 1), -EBB_EBUSY);
    assert_int_equal(ebb_discard_deflated(rig.discard, ranges, 1), -EBB_EBUSY);
    assert_int_equal(ebb_discard_forget(rig.discard), -EBB_EBUSY);
    rig_open_gate(&rig.ops);
    rig_wait_done(&rig, 1);
    assert_null(ebb_discard_new(&config));
    assert_int_equal(errno, EINVAL);
    assert_null(ebb_discard_pool_new(EBB_DISCARD_THREADS_LIMIT + 1));
    assert_int_equal(errno, EINVAL);
    rig_stop(&rig);
}

/* ---- gathering ---- */

static void test_gather(void **state)
{
    struct ebb_discard_stats stats;
    struct rig rig;

    (void)state;
    for (unsigned b = 0; b < 2; b++) {
        rig_start(&rig, backings[b], LARGE, NULL);
        for (unsigned i = 0; i < 15; i++) {
            run_one(&rig, INFLATED, 32 + i * 7 % 16, 1);
            run_one(&rig, INFLATED, 32 + i * 7 % 16, 1); /* counts once */
        }
        rig_expect_dropped(&rig, 0, 0);
        assert_int_equal(rig_stats(&rig).gathered_bytes, 15 * PAGE);
        run_one(&rig, INFLATED, 32 + 15 * 7 % 16, 1);
        rig_expect_dropped(&rig, 32, 16);
        stats = rig_stats(&rig);
        assert_int_equal(stats.gathered_bytes, 0);
        assert_int_equal(stats.repeated_bytes, 15 * PAGE);
        assert_int_equal(stats.calls, 1);
        rig_stop(&rig);
    }
}

/* Several that become whole in one batch, with a whole one between: one call. */
static void test_gather_merges(void **state)
{
    const struct ebb_range before[] = {rig_range(16, 8), rig_range(56, 8)};
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, LARGE, NULL);
    rig_run(&rig, INFLATED, before, 2);
    run_one(&rig, INFLATED, 24, 32);
    rig_expect_dropped(&rig, 16, 48);
    assert_int_equal(rig_stats(&rig).calls, 1);
    rig_stop(&rig);
}

/* Frames that were gathered come again, together with all others of their page. */
static void test_gather_whole(void **state)
{
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, LARGE, NULL);
    run_one(&rig, INFLATED, 20, 3);
    run_one(&rig, INFLATED, 0, 64);
    rig_expect_dropped(&rig, 0, 64);
    assert_int_equal(rig_stats(&rig).gathered_bytes, 0);
    assert_int_equal(rig_stats(&rig).repeated_bytes, 3 * PAGE);
    run_one(&rig, INFLATED, 24, 8); /* nothing is left over of the first */
    assert_int_equal(rig_stats(&rig).gathered_bytes, 8 * PAGE);
    rig_stop(&rig);
}

static void test_deflated(void **state)
{
    const struct ebb_range out[] = {
        rig_range(40, 1), {OUTSIDE_GPA, 77}, {UINT64_MAX - 5, 50}, {GPA_A + 41 * PAGE - 1, 0}};
    const struct ebb_range all = {0, UINT64_MAX};
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_ANON, LARGE, NULL);
    run_one(&rig, INFLATED, 32, 15);
    assert_int_equal(ebb_discard_deflated(rig.discard, out, 4), 0);
    assert_int_equal(rig_stats(&rig).gathered_bytes, 14 * PAGE);
    assert_int_equal(rig_stats(&rig).released_bytes, PAGE);
    run_one(&rig, INFLATED, 47, 1); /* all but the one that went */
    rig_expect_dropped(&rig, 0, 0);
    run_one(&rig, INFLATED, 40, 1);
    rig_expect_dropped(&rig, 32, 16);

    run_one(&rig, INFLATED, 100, 1);
    run_one(&rig, INFLATED, 767, 1);
    run_one(&rig, INFLATED, 1000, 1);
    assert_int_equal(ebb_discard_deflated(rig.discard, &all, 1), 0);
    assert_int_equal(rig_stats(&rig).gathered_bytes, 0);
    assert_int_equal(rig_stats(&rig).released_bytes, 4 * PAGE);
    rig_stop(&rig);
}

/* A reset, and a table that changed: what was gathered may be in use, or another file's. */
static void test_forget(void **state)
{
    struct ebb_region region;
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, LARGE, NULL);
    run_one(&rig, INFLATED, 32, 15);
    assert_int_equal(ebb_discard_forget(rig.discard), 0);
    run_one(&rig, INFLATED, 47, 1);
    rig_expect_dropped(&rig, 0, 0);
    assert_int_equal(rig_stats(&rig).gathered_bytes, PAGE);
    assert_int_equal(rig_stats(&rig).released_bytes, 15 * PAGE);

    run_one(&rig, INFLATED, 16, 15);
    assert_int_equal(ebb_memory_remove(&rig.memory, GPA_A, FIRST_B * PAGE, &region), 0);
    assert_int_equal(ebb_memory_add(&rig.memory, &region), 0);
    run_one(&rig, INFLATED, 31, 1);
    rig_expect_dropped(&rig, 0, 0);
    assert_int_equal(rig_stats(&rig).gathered_bytes, PAGE);
    rig_stop(&rig);
}

/* A table with room for two pages: the one that nothing was added to for longest goes. */
static void test_gather_full(void **state)
{
    const struct ebb_discard_config config = {.gather_bytes = 120};
    const struct ebb_discard_config none = {.gather_bytes = 10};
    struct ebb_discard_stats stats;
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, LARGE, &config);
    run_one(&rig, INFLATED, 0, 8);
    run_one(&rig, INFLATED, 16, 8);
    run_one(&rig, INFLATED, 8, 4);
    run_one(&rig, INFLATED, 32, 8);
    stats = rig_stats(&rig);
    assert_int_equal(stats.gathered_bytes, 20 * PAGE);
    assert_int_equal(stats.not_bytes[EBB_DISCARD_PARTIAL], 8 * PAGE);
    run_one(&rig, INFLATED, 12, 4);
    rig_expect_dropped(&rig, 0, 16);
    rig_stop(&rig);

    rig_start(&rig, EBB_BACKING_SHARED, LARGE, &none);
    run_one(&rig, INFLATED, 0, 8);
    assert_int_equal(rig_stats(&rig).not_bytes[EBB_DISCARD_PARTIAL], 8 * PAGE);
    rig_stop(&rig);
}

/* ---- random, against a model ---- */

struct model {
    bool told[FRAMES]; /* of the balloon, and in no page that was dropped since */
};

/* What the batch must have dropped, of frames that are stamped anew before each. */
static void expect_batch(struct model *model, const struct rig *rig, unsigned page, bool inflated,
                         const bool *asked)
{
    for (unsigned first = 0; first < FRAMES; first += page) {
        unsigned whole = 0, touched = 0;

        for (unsigned i = first; i < first + page; i++) {
            whole += asked[i] || (inflated && page > 1 && model->told[i]);
            touched += asked[i];
        }
        for (unsigned i = first; i < first + page; i++) {
            assert_int_equal(rig_dropped(rig, i), touched > 0 && whole == page);
            if (inflated && page > 1)
                model->told[i] = (model->told[i] || asked[i]) && whole < page;
        }
    }
}

static void random_batch(struct rng *rng, struct rig *rig, struct model *model, unsigned page)
{
    const bool inflated = rng_below(rng, 3) != 0;
    const unsigned n = 1 + rng_below(rng, 20);
    struct ebb_range ranges[20];
    bool asked[FRAMES] = {false};

    for (unsigned i = 0; i < n; i++) {
        const unsigned first = rng_below(rng, FRAMES);
        const unsigned end = first < FIRST_C ? FIRST_C : FRAMES;
        const unsigned most = rng_below(rng, 4) ? 8 : 100;
        unsigned frames = 1 + rng_below(rng, most);

        if (frames > end - first)
            frames = end - first;
        ranges[i] = rig_range(first, frames);
        if (rng_below(rng, 8) == 0)
            ranges[i].addr += GPA_C * 2;
        else
            memset(asked + first, true, frames);
    }
    rig_stamp(rig);
    rig_run(rig, inflated ? INFLATED : REPORTED, ranges, n);
    expect_batch(model, rig, page, inflated, asked);
}

static void random_deflate(struct rng *rng, struct rig *rig, struct model *model)
{
    const unsigned first = rng_below(rng, FIRST_C), frames = 1 + rng_below(rng, FIRST_C - first);
    const struct ebb_range range = rig_range(first, frames);

    assert_int_equal(ebb_discard_deflated(rig->discard, &range, 1), 0);
    memset(model->told + first, false, frames);
}

static void check_gathered(const struct rig *rig, const struct model *model)
{
    uint64_t told = 0;

    for (unsigned i = 0; i < FRAMES; i++)
        told += model->told[i];
    assert_int_equal(rig_stats(rig).gathered_bytes, told * PAGE);
}

static void test_random(void **state)
{
    (void)state;
    for (uint64_t run = 1; run <= 24; run++) {
        struct rng rng = {rng_seed(run)};
        const unsigned page = 1u << rng_below(&rng, 8);
        struct model model = {{false}};
        struct rig rig;

        print_message("EBB_SEED=%llu, pages of %u\n", (unsigned long long)rng_current, page);
        rig_start(&rig, backings[run % 2], page * PAGE, NULL);
        for (unsigned step = 0; step < 40; step++) {
            if (rng_below(&rng, 4) == 0)
                random_deflate(&rng, &rig, &model);
            random_batch(&rng, &rig, &model, page);
            check_gathered(&rig, &model);
        }
        rig_stop(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_memory_comes_back),
        cmocka_unit_test(test_refused_backing),
        cmocka_unit_test(test_alias),
        cmocka_unit_test(test_alias_of_other_pages),
        cmocka_unit_test(test_two_files),
        cmocka_unit_test(test_longest_batch),
        cmocka_unit_test(test_submit_errors),
        cmocka_unit_test(test_gather),
        cmocka_unit_test(test_gather_merges),
        cmocka_unit_test(test_gather_whole),
        cmocka_unit_test(test_deflated),
        cmocka_unit_test(test_forget),
        cmocka_unit_test(test_gather_full),
        cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
