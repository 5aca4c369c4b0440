/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PAGE_POISON from the zone to the device: what is negotiated for which guest, that
 * a guest which counts on the content of its free frames reports them only to a
 * device that respects it, and that it then finds what it counts on. The frames are
 * really there, and the device really drops them.
 */
#include "delay_engine.h"
#include "device_model.h"
#include "port_virtual.h"

#include <ebb/balloon.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BASE      0x2000u
#define FRAMES    256u
#define MAX_ORDER 6u
#define WORDS     (EBB_FRAME_SIZE / 4)
#define STAMP     0x11223344u
#define GARBAGE   0x5eed5eedu

static uint32_t memory[FRAMES * WORDS];

/* What the device does with a frame that is reported to it. */
enum act {
    QEMU,     /* drops it, unless it was given a poison value other than 0 */
    REFILL,   /* fills it with the value it was given; without one, with garbage */
    SCRIBBLE, /* with garbage, whatever was agreed on */
};

static struct {
    struct ebb_zone zone;
    struct ebb_report report;
    struct delay_engine engine;
    struct ebb_balloon balloon;
    struct ebb_balloon_config config;
    struct model model;
    void *metadata;
    enum act act;
    unsigned told; /* frames */
} path;

/* ---- frames ---- */

static void write_words(ebb_pfn_t pfn, uint64_t frames, uint32_t value)
{
    assert_true(pfn >= BASE && frames > 0 && pfn + frames <= BASE + FRAMES);
    for (uint64_t i = 0; i < frames * WORDS; i++)
        memory[(pfn - BASE) * WORDS + i] = value;
}

static bool holds(ebb_pfn_t pfn, uint64_t frames, uint32_t value)
{
    assert_true(pfn >= BASE && frames > 0 && pfn + frames <= BASE + FRAMES);
    for (uint64_t i = 0; i < frames * WORDS; i++) {
        if (memory[(pfn - BASE) * WORDS + i] != value)
            return false;
    }
    return true;
}

static void fill_cb(void *ctx, ebb_pfn_t pfn, uint64_t frames, uint32_t value)
{
    (void)ctx;
    write_words(pfn, frames, value);
}

static void clear_cb(void *ctx, ebb_pfn_t pfn, uint64_t frames)
{
    (void)ctx;
    write_words(pfn, frames, 0);
}

static bool verify_cb(void *ctx, ebb_pfn_t pfn, uint64_t frames, uint32_t value)
{
    (void)ctx;
    return holds(pfn, frames, value);
}

/* ---- the host ---- */

static void drop(uint64_t addr, uint64_t len)
{
    const uint32_t value = model_config32(&path.model, EBB_BALLOON_CFG_POISON_VAL);
    const bool agreed = path.model.accepted & EBB_F_PAGE_POISON;
    const ebb_pfn_t pfn = addr >> EBB_FRAME_SHIFT;
    const uint64_t frames = len >> EBB_FRAME_SHIFT;

    /* What is reported holds the value that was agreed on: a driver's duty. */
    if (agreed)
        assert_true(holds(pfn, frames, value));
    path.told += (unsigned)frames;
    if (path.act == QEMU && agreed && value != 0)
        return;
    if (path.act == QEMU)
        write_words(pfn, frames, 0);
    else
        write_words(pfn, frames, agreed && path.act == REFILL ? value : GARBAGE);
}

/* ---- set-up ---- */

static void pass_time(void)
{
    port_virtual.now += 1000000;
}

static void make(enum ebb_fill policy, uint32_t poison_value, uint64_t offered)
{
    const struct ebb_zone_config zone_config = {
        .base = BASE,
        .frames = FRAMES,
        .max_order = MAX_ORDER,
        .fill_policy = (uint8_t)policy,
        .poison_value = poison_value,
        .clear = clear_cb,
        .fill = fill_cb,
        .verify = verify_cb,
    };
    const struct ebb_settings settings = {.history = {.pacing = EBB_PACING_DELAY, .delay_ms = 10}};
    const size_t size = (ebb_zone_metadata_size(&zone_config) + 63) & ~(size_t)63;

    port_virtual_reset();
    port_virtual.on_relax = pass_time;
    memset(&path, 0, sizeof(path));
    memset(memory, 0x5a, sizeof(memory));
    path.metadata = aligned_alloc(64, size);
    assert_non_null(path.metadata);
    memset(path.metadata, 0, size);
    assert_int_equal(ebb_zone_init(&path.zone, &zone_config, path.metadata), 0);
    assert_int_equal(ebb_zone_add(&path.zone, BASE, FRAMES), 0);
    assert_int_equal(delay_engine_init(&path.engine, &path.report, &settings, &path.zone), 0);
    model_init(&path.model, offered);
    path.model.on_range = drop;
    path.config = (struct ebb_balloon_config){
        .transport = &path.model.transport,
        .dma = path.model.ram,
        .dma_addr = MODEL_RAM_BASE,
        .poison = policy != EBB_FILL_NONE,
        .poison_val = path.zone.fill_value,
    };
}

static void unmake(void)
{
    struct ebb_violation violation = {.what = ""};
    struct ebb_zone_stats stats;

    assert_int_equal(ebb_balloon_stop(&path.balloon), 0);
    if (ebb_zone_check(&path.zone, EBB_CHECK_FRAMES, &violation))
        fail_msg("I%u: %s", violation.invariant, violation.what);
    ebb_zone_stats(&path.zone, &stats);
    assert_int_equal(stats.allocated + stats.in_flight, 0);
    assert_int_equal(path.model.bad_requests, 0);
    model_exit(&path.model);
    free(path.metadata);
    port_virtual_reset();
}

static void settle(void)
{
    for (unsigned i = 0; i < 1000; i++) {
        const uint64_t next = ebb_report_run(&path.report);

        (void)ebb_balloon_work(&path.balloon);
        if (model_run(&path.model) == 0 && !path.model.irq && next == EBB_NEVER)
            return;
        if (path.model.irq)
            ebb_balloon_irq(&path.balloon);
        port_virtual.now += 1000000;
    }
    fail_msg("the path does not come to rest");
}

/* Take everything, look, use it, and give it back. */
static void use_everything(bool expect_content)
{
    ebb_pfn_t pfns[FRAMES >> MAX_ORDER];

    for (unsigned i = 0; i < FRAMES >> MAX_ORDER; i++) {
        assert_int_equal(ebb_alloc(&path.zone, MAX_ORDER, EBB_MOVABLE, 0, &pfns[i]), 0);
        if (expect_content)
            assert_true(holds(pfns[i], 1u << MAX_ORDER, path.zone.fill_value));
        write_words(pfns[i], 1u << MAX_ORDER, STAMP);
    }
    settle();
    for (unsigned i = 0; i < FRAMES >> MAX_ORDER; i++) {
        assert_true(holds(pfns[i], 1u << MAX_ORDER, STAMP));
        assert_int_equal(ebb_free(&path.zone, pfns[i], MAX_ORDER), 0);
    }
}

/* ---- tests ---- */

/* Every guest (nothing, poison, init on free) with every offer: what is accepted,
 * whether frames are reported, and that the guest finds what it counts on. */
static void every_guest_with_every_offer(void **state)
{
    static const enum ebb_fill policies[] = {EBB_FILL_NONE, EBB_FILL_POISON, EBB_FILL_ZERO};

    (void)state;
    for (unsigned i = 0; i < 3 * 2 * 2 * 2; i++) {
        const enum ebb_fill policy = policies[i % 3];
        const bool fills = policy != EBB_FILL_NONE;
        const bool f4 = i / 3 & 1, f5 = i / 6 & 1;
        const uint64_t offered =
            EBB_F_MUST_TELL_HOST | (f4 ? EBB_F_PAGE_POISON : 0) | (f5 ? EBB_F_PAGE_REPORTING : 0);
        const bool accepts_f4 = f4 && fills;
        const bool accepts_f5 = f5 && (f4 || !fills);

        make(policy, 0, offered);
        path.act = i / 12 ? REFILL : QEMU;
        assert_int_equal(ebb_balloon_start(&path.balloon, &path.config), 0);
        assert_int_equal(path.model.accepted, EBB_F_VERSION_1 | EBB_F_MUST_TELL_HOST |
                                                  (accepts_f4 ? EBB_F_PAGE_POISON : 0) |
                                                  (accepts_f5 ? EBB_F_PAGE_REPORTING : 0));
        assert_int_equal(path.model.poison_at_driver_ok, accepts_f4 ? path.zone.fill_value : 0);
        assert_int_equal(path.balloon.device.content,
                         accepts_f4 ? EBB_CONTENT_KEPT_OR_VALUE : EBB_CONTENT_ANY);
        assert_int_equal(ebb_balloon_attach(&path.balloon, &path.report),
                         accepts_f5 ? 0 : -EBB_EOPNOTSUPP);
        settle();
        for (unsigned round = 1; round <= 2; round++) {
            assert_int_equal(path.told, accepts_f5 ? round * FRAMES : 0);
            use_everything(fills);
            settle();
        }
        assert_int_equal(port_virtual.misuses, 0);
        /* It must not change while the driver runs (5.5.6.7.1). */
        assert_int_equal(model_config32(&path.model, EBB_BALLOON_CFG_POISON_VAL),
                         accepts_f4 ? path.zone.fill_value : 0);
        unmake();
    }
}

/* A guest that forgets to tell its balloon of the policy, or tells it of another
 * value, gets no reporting rather than wrong frames. */
static void balloon_and_zone_must_agree(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        make(i & 1 ? EBB_FILL_ZERO : EBB_FILL_POISON, 0xfeedbeefu,
             EBB_F_PAGE_POISON | EBB_F_PAGE_REPORTING);
        if (i < 2)
            path.config.poison = false;
        else
            path.config.poison_val ^= 1;
        assert_int_equal(ebb_balloon_start(&path.balloon, &path.config), 0);
        assert_int_equal(ebb_balloon_attach(&path.balloon, &path.report), -EBB_EOPNOTSUPP);
        settle();
        assert_int_equal(path.told, 0);
        /* The balloon is whole: it can be detached, stopped and set right. */
        ebb_balloon_detach(&path.balloon);
        assert_int_equal(ebb_balloon_stop(&path.balloon), 0);
        path.config.poison = true;
        path.config.poison_val = path.zone.fill_value;
        assert_int_equal(ebb_balloon_start(&path.balloon, &path.config), 0);
        assert_int_equal(ebb_balloon_attach(&path.balloon, &path.report), 0);
        settle();
        assert_int_equal(path.told, FRAMES);
        use_everything(true);
        settle();
        unmake();
    }
}

/* A device that breaks its word is found out when the frames are used again, and the
 * guest goes on with frames that are right. */
static void a_device_that_breaks_its_word(void **state)
{
    (void)state;
    make(EBB_FILL_POISON, 0, EBB_F_PAGE_POISON | EBB_F_PAGE_REPORTING);
    path.act = SCRIBBLE;
    assert_int_equal(ebb_balloon_start(&path.balloon, &path.config), 0);
    assert_int_equal(ebb_balloon_attach(&path.balloon, &path.report), 0);
    settle();
    use_everything(true);
    assert_int_equal(port_virtual.misuses, FRAMES >> MAX_ORDER);
    assert_int_equal(port_virtual.misuse.kind, EBB_MISUSE_WRITE_AFTER_FREE);
    unmake();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_guest_with_every_offer),
        cmocka_unit_test(balloon_and_zone_must_agree),
        cmocka_unit_test(a_device_that_breaks_its_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
