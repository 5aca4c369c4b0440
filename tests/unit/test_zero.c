/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Zeroing once: what was reported to a device that says so reads as zero, and an allocation
 * that wants zeroes does not clear it. Exactly that: the host here writes garbage instead of
 * clearing, so that a frame that was not cleared shows, whatever the allocator believes.
 */
#include "loop/rng.h"
#include "port_virtual.h"

#include <ebb/report.h>
#include <ebb/zone.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BASE      0x2000u
#define FRAMES    1024u
#define MAX_ORDER 6u
#define MS        ((uint64_t)1000000)

/* What a frame holds; one word stands for it. */
enum { ZERO = 0, DATA = 1, GARBAGE = 2 };

static struct {
    struct ebb_zone zone;
    struct ebb_report report;
    struct ebb_report_device device;
    void *metadata;
    uint8_t content[FRAMES];
    bool told[FRAMES]; /* the host was told, and nobody used it since */
    bool fails;
    uint64_t cleared; /* frames */
} rig;

static void clear_cb(void *ctx, ebb_pfn_t pfn, uint64_t frames)
{
    (void)ctx;
    memset(&rig.content[pfn - BASE], ZERO, frames);
    rig.cleared += frames;
}

/* A host that does not clear. */
static int submit(struct ebb_report_device *device, const struct ebb_range *ranges, unsigned n)
{
    (void)device;
    for (unsigned i = 0; i < n && !rig.fails; i++) {
        uint64_t at = (ranges[i].addr >> EBB_FRAME_SHIFT) - BASE;

        memset(&rig.content[at], GARBAGE, ranges[i].len >> EBB_FRAME_SHIFT);
        memset(&rig.told[at], 1, ranges[i].len >> EBB_FRAME_SHIFT);
    }
    ebb_report_complete(&rig.report, rig.fails ? -EBB_EIO : 0);
    return 0;
}

static const struct ebb_report_device_ops ops = {.submit = submit};

static void add_device(enum ebb_content content, uint32_t value)
{
    rig.device = (struct ebb_report_device){
        .ops = &ops,
        .capacity = 32,
        .content = (uint8_t)content,
        .value = value,
    };
    assert_int_equal(ebb_report_register(&rig.report, &rig.device), 0);
}

static void report_all(void)
{
    ebb_zone_drain(&rig.zone);
    ebb_report_now(&rig.report);
    for (unsigned i = 0; i < 100 && ebb_report_run(&rig.report) != EBB_NEVER; i++)
        port_virtual.now += 100 * MS;
}

static int set_up(void **state)
{
    const struct ebb_zone_config config = {
        .base = BASE, .frames = FRAMES, .max_order = MAX_ORDER, .clear = clear_cb};
    const struct ebb_report_config engine = {.worker = &rig};

    (void)state;
    port_virtual_reset();
    memset(&rig, 0, sizeof(rig));
    memset(rig.content, DATA, sizeof(rig.content));
    rig.metadata = aligned_alloc(64, ebb_zone_metadata_size(&config));
    assert_non_null(rig.metadata);
    memset(rig.metadata, 0, ebb_zone_metadata_size(&config));
    assert_int_equal(ebb_zone_init(&rig.zone, &config, rig.metadata), 0);
    assert_int_equal(ebb_zone_add(&rig.zone, BASE, FRAMES), 0);
    assert_int_equal(ebb_report_init(&rig.report, &engine), 0);
    assert_int_equal(ebb_report_add_zone(&rig.report, &rig.zone), 0);
    return 0;
}

static int tear_down(void **state)
{
    struct ebb_violation violation = {0};

    (void)state;
    assert_int_equal(ebb_zone_check(&rig.zone, EBB_CHECK_FRAMES, &violation), 0);
    if (rig.report.device)
        assert_int_equal(ebb_report_unregister(&rig.report), 0);
    assert_int_equal(port_virtual.misuses, 0);
    free(rig.metadata);
    return 0;
}

/* Allocate for zeroes; returns whether it was cleared. Either it was, or all of it had been
 * reported and not used since, and holds what the host left. */
static bool take(unsigned order, unsigned flags, ebb_pfn_t *pfn)
{
    uint64_t before = rig.cleared;
    uint64_t frames = (uint64_t)1 << order;

    assert_int_equal(ebb_alloc(&rig.zone, order, EBB_MOVABLE, EBB_ALLOC_ZERO | flags, pfn), 0);
    for (uint64_t at = *pfn - BASE; at < *pfn - BASE + frames; at++) {
        assert_int_equal(rig.content[at], rig.cleared > before ? ZERO : GARBAGE);
        assert_true(rig.cleared > before || rig.told[at]);
        rig.content[at] = DATA;
        rig.told[at] = false;
    }
    assert_true(rig.cleared == before || rig.cleared == before + frames);
    return rig.cleared > before;
}

static void give_back(ebb_pfn_t pfn, unsigned order)
{
    assert_int_equal(ebb_free(&rig.zone, pfn, order), 0);
}

static void test_reported_is_not_cleared(void **state)
{
    ebb_pfn_t pfns[8];

    (void)state;
    add_device(EBB_CONTENT_VALUE, 0);
    report_all();
    assert_false(take(MAX_ORDER, 0, &pfns[0]));
    assert_false(take(3, 0, &pfns[1])); /* split off */
    assert_false(take(0, 0, &pfns[2])); /* through the cache */
    assert_false(take(0, 0, &pfns[3])); /* from it */
    assert_false(take(0, EBB_ALLOC_NO_CACHE, &pfns[4]));
    for (unsigned i = 0; i < 5; i++)
        give_back(pfns[i], i == 0 ? MAX_ORDER : i == 1 ? 3 : 0);
    assert_true(take(MAX_ORDER, 0, &pfns[0])); /* free, but not reported since */
    assert_true(take(0, 0, &pfns[1]));
    give_back(pfns[0], MAX_ORDER);
    give_back(pfns[1], 0);
    report_all();
    assert_false(take(MAX_ORDER, 0, &pfns[0])); /* now it is */
    give_back(pfns[0], MAX_ORDER);
}

static void test_at_a_place(void **state)
{
    uint64_t before;

    (void)state;
    add_device(EBB_CONTENT_VALUE, 0);
    report_all();
    before = rig.cleared;
    assert_int_equal(ebb_alloc_at(&rig.zone, BASE + 24, 2, EBB_ALLOC_ZERO), 0);
    assert_int_equal(rig.cleared, before);
    give_back(BASE + 24, 2);
    assert_int_equal(ebb_alloc_at(&rig.zone, BASE + 24, 2, EBB_ALLOC_ZERO), 0);
    assert_int_equal(rig.cleared, before + 4);
    give_back(BASE + 24, 2);
}

/* A block of which the host knows only a part. */
static void test_half_reported(void **state)
{
    ebb_pfn_t pfn;

    (void)state;
    add_device(EBB_CONTENT_VALUE, 0);
    report_all();
    assert_int_equal(ebb_alloc_at(&rig.zone, BASE, 0, 0), 0);
    rig.content[0] = DATA;
    rig.told[0] = false;
    give_back(BASE, 0);
    ebb_zone_drain(&rig.zone);
    for (unsigned i = 0; i < FRAMES >> MAX_ORDER; i++) {
        bool first = take(MAX_ORDER, 0, &pfn);

        assert_int_equal(first, pfn == BASE);
    }
    for (unsigned i = 0; i < FRAMES >> MAX_ORDER; i++)
        give_back(BASE + (i << MAX_ORDER), MAX_ORDER);
}

/* Whoever says less gets all of it cleared. */
static void test_other_devices(void **state)
{
    static const struct {
        enum ebb_content content;
        uint32_t value;
    } others[] = {{EBB_CONTENT_ANY, 0}, {EBB_CONTENT_KEPT_OR_VALUE, 0}, {EBB_CONTENT_VALUE, 1}};

    (void)state;
    for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        ebb_pfn_t pfn;

        add_device(others[i].content, others[i].value);
        report_all();
        assert_int_equal(rig.zone.reported, FRAMES);
        assert_true(take(MAX_ORDER, 0, &pfn));
        give_back(pfn, MAX_ORDER);
        assert_true(take(0, 0, &pfn));
        give_back(pfn, 0);
        assert_int_equal(ebb_report_unregister(&rig.report), 0);
    }
}

/* Marks outlive their device, and so does what they say. */
static void test_devices_in_turn(void **state)
{
    ebb_pfn_t pfn, kept;

    (void)state;
    add_device(EBB_CONTENT_VALUE, 0);
    report_all();
    assert_int_equal(ebb_report_unregister(&rig.report), 0);
    assert_false(take(3, 0, &kept)); /* nobody has touched it meanwhile */
    add_device(EBB_CONTENT_VALUE, 0);
    assert_false(take(MAX_ORDER, 0, &pfn));
    give_back(pfn, MAX_ORDER);
    give_back(kept, 3);
    report_all();
    assert_int_equal(ebb_report_unregister(&rig.report), 0);

    add_device(EBB_CONTENT_ANY, 0);
    assert_true(take(5, 0, &pfn));
    give_back(pfn, 5);
    report_all();
    assert_int_equal(ebb_report_unregister(&rig.report), 0);
    add_device(EBB_CONTENT_VALUE, 0); /* does not know what the one before left */
    assert_true(take(MAX_ORDER, 0, &pfn));
    give_back(pfn, MAX_ORDER);
}

static void test_failed_reports(void **state)
{
    ebb_pfn_t pfn;

    (void)state;
    rig.fails = true;
    add_device(EBB_CONTENT_VALUE, 0);
    ebb_report_now(&rig.report);
    (void)ebb_report_run(&rig.report);
    assert_true(take(MAX_ORDER, 0, &pfn));
    give_back(pfn, MAX_ORDER);
    assert_true(take(0, 0, &pfn));
    give_back(pfn, 0);
}

/* All of it at random: take() looks at every frame. */
static void test_random(void **state)
{
    struct {
        ebb_pfn_t pfn;
        unsigned order;
    } held[64];
    unsigned n = 0, skipped = 0;
    struct rng rng = {.state = 7};

    (void)state;
    add_device(EBB_CONTENT_VALUE, 0);
    for (unsigned step = 0; step < 20000; step++) {
        unsigned what = (unsigned)rng_below(&rng, 100);

        if (what < 45 && n < 64) {
            held[n].order = rng_below(&rng, 2) ? 0 : (unsigned)rng_below(&rng, 5);
            if (rig.zone.free < 128)
                continue;
            skipped +=
                !take(held[n].order, rng_below(&rng, 4) ? 0 : EBB_ALLOC_NO_CACHE, &held[n].pfn);
            n++;
        } else if (what < 90 && n > 0) {
            unsigned i = (unsigned)rng_below(&rng, n);

            give_back(held[i].pfn, held[i].order);
            held[i] = held[--n];
        } else {
            port_virtual.now += rng_below(&rng, 200) * MS;
            (void)ebb_report_run(&rig.report);
        }
    }
    assert_in_range(skipped, 100, 8000);
    while (n > 0) {
        n--;
        give_back(held[n].pfn, held[n].order);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reported_is_not_cleared, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_at_a_place, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_half_reported, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_other_devices, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_devices_in_turn, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_failed_reports, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_random, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
