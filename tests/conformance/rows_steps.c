/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Anything at every step. A step is any moment at which the port is called with no
 * lock held: there another CPU can come in between. A short life of an engine (a
 * device comes, blocks are freed, batches go and come) is run again and again, and
 * at its step 1, 2, 3, ... to the last something happens (with a sanitizer, at some of
 * them):
 *
 *   - another CPU's operation, which is done before the life goes on: it takes,
 *     frees, isolates, asks, completes;
 *   - somebody takes the device away (F30). He has to wait for the one who is inside
 *     the engine, so the two take turns, step by step.
 */
#include "fiber.h"
#include "rows.h"

#include <ebb/range.h>

#define ORDER  1u
#define FRAMES ((uint64_t)1 << ORDER)
#define BLOCKS 24u
#if defined(EBB_TEST_SLOW)
#define EVERY 17u
#elif defined(__SANITIZE_ADDRESS__)
#define EVERY 4u
#else
#define EVERY 1u /* the others take too long */
#endif
#define LENT 8u /* blocks that the life frees: as many as the largest threshold */

static struct {
    struct rig *rig;
    ebb_pfn_t lent[LENT];
    ebb_pfn_t spare; /* a block that is in use, for the intruder */
    bool spare_used;
    unsigned steps;
    unsigned at; /* step of the intrusion, from 1 */
    void (*intrude)(void);
} life;

static struct rig *life_rig(const struct setting *setting)
{
    return rig_with(setting, &(struct rig_config){
                                 .frames = BLOCKS * FRAMES,
                                 .max_order = ORDER,
                                 .capacity = 4,
                                 .history.threshold = is_threshold(setting) ? LENT : 0,
                             });
}

static void complete_if_out(struct rig *rig, int status)
{
    if (rig->in_flight)
        rig_complete(rig, status);
}

/* The life. It must go on whatever the others do. */
static void live(struct rig *rig)
{
    if (!rig->registered)
        rig_register(rig);
    for (unsigned i = 0; i < LENT; i++) {
        rig_release(rig, 0, life.lent[i], ORDER);
        if (i % 3 == 0) {
            rig_run_after(rig, C_DELAY);
            complete_if_out(rig, i == 3 ? -EBB_EIO : 0);
        }
    }
    for (unsigned i = 0; i < 10; i++) {
        rig_run_after(rig, C_DELAY);
        complete_if_out(rig, 0);
    }
}

static void begin_life(const struct setting *setting, unsigned at, void (*intrude)(void))
{
    struct rig *rig = life_rig(setting);

    memset(&life, 0, sizeof(life));
    life.rig = rig;
    life.at = at;
    life.intrude = intrude;
    rig->later = true;
    life.spare = rig_alloc(rig, 0, ORDER);
    for (unsigned i = 0; i < LENT; i++)
        life.lent[i] = rig_alloc(rig, 0, ORDER);
}

/* Come to rest: everything that is free is reported, everything can be had. */
static void end_life(void)
{
    struct rig *rig = life.rig;
    ebb_pfn_t pfns[BLOCKS + 1];

    port_virtual.on_step = NULL;
    port_virtual.on_relax = NULL;
    complete_if_out(rig, 0);
    rig_settle(rig);
    if (!life.spare_used)
        rig_release(rig, 0, life.spare, ORDER);
    if (!rig->registered)
        rig_register(rig);
    flush(rig);
    if (rig_zone_stats(rig, 0).reported != BLOCKS * FRAMES)
        fail_msg("step %u: %u of %u frames reported", life.at,
                 (unsigned)rig_zone_stats(rig, 0).reported, (unsigned)(BLOCKS * FRAMES));
    rig->complete_on_poll = true;
    rig_unregister(rig);
    assert_int_equal(rig_alloc_all(rig, 0, ORDER, pfns), BLOCKS);
    rig_release_all(rig, 0, ORDER, pfns, BLOCKS);
    rig_free(rig);
}

/* ---- another CPU ---- */

static void step(void)
{
    struct ebb_violation violation = {0};

    if (++life.steps == life.at)
        life.intrude();
    if (ebb_zone_check(&life.rig->zones[0], EBB_CHECK_FRAMES, &violation) != 0)
        fail_msg("step %u, now at %u: I%u at pfn %#llx: %s", life.at, life.steps,
                 violation.invariant, (unsigned long long)violation.pfn, violation.what);
}

static void i_free(void)
{
    life.spare_used = true;
    rig_release(life.rig, 0, life.spare, ORDER);
}

static void i_take_and_free(void)
{
    ebb_pfn_t pfns[5];
    unsigned n = 0;

    while (n < 5 &&
           ebb_alloc(&life.rig->zones[0], ORDER, EBB_UNMOVABLE, EBB_ALLOC_NO_CACHE, &pfns[n]) == 0)
        n++;
    while (n > 0)
        rig_release(life.rig, 0, pfns[--n], ORDER);
}

static void i_split_and_merge(void)
{
    ebb_pfn_t pfn;

    if (ebb_alloc(&life.rig->zones[0], 0, EBB_MOVABLE, EBB_ALLOC_NO_CACHE, &pfn) == 0)
        assert_int_equal(ebb_free(&life.rig->zones[0], pfn, 0), 0);
    ebb_zone_drain(&life.rig->zones[0]);
}

static void i_isolate_and_put_back(void)
{
    struct ebb_zone *zone = &life.rig->zones[0];

    assert_int_equal(ebb_isolate_range(zone, RIG_BASE, BLOCKS / 2 * FRAMES), 0);
    assert_int_equal(ebb_putback_range(zone, RIG_BASE, BLOCKS / 2 * FRAMES, EBB_RECLAIMABLE), 0);
}

static void i_ask(void)
{
    ebb_report_now(&life.rig->report);
}

static void i_run(void)
{
    ebb_report_run(&life.rig->report);
}

static void i_complete(void)
{
    complete_if_out(life.rig, 0);
}

static void i_fail(void)
{
    complete_if_out(life.rig, -EBB_EIO);
}

/* Twice. Inline the second would be taken for the next batch's: CAVEATS. */
static void i_complete_twice(void)
{
    complete_if_out(life.rig, 0);
    if (!life.rig->in_flight && life.rig->depth == 0)
        ebb_report_complete(&life.rig->report, 0);
}

static void i_check(void)
{
    rig_check(life.rig);
}

/* Returns the number of steps that the life had. */
static unsigned with_operation_at(const struct setting *setting, unsigned at, void (*what)(void))
{
    unsigned steps;

    begin_life(setting, at, what);
    port_virtual.on_step = step;
    live(life.rig);
    port_virtual.on_step = NULL;
    steps = life.steps;
    end_life();
    return steps;
}

static void an_operation_at_every_step(const struct setting *setting)
{
    static void (*const operations[])(void) = {
        i_free,
        i_take_and_free,
        i_split_and_merge,
        i_isolate_and_put_back,
        i_ask,
        i_run,
        i_complete,
        i_fail,
        i_complete_twice,
        i_check,
    };
    unsigned last = with_operation_at(setting, UINT32_MAX, NULL);

    assert_true(last > 50);
    for (unsigned o = 0; o < sizeof(operations) / sizeof(operations[0]); o++) {
        for (unsigned at = 1 + o % EVERY; at <= last; at += EVERY)
            with_operation_at(setting, at, operations[o]);
    }
}

/* ---- somebody who takes the device away ---- */

static struct {
    bool begun, lived;
    unsigned waits;
    int err;
} taker;

/* The taker waits: the life goes on for a step; when it is over the host answers. */
static void taker_waits(void)
{
    assert_true(++taker.waits < 100000);
    if (taker.lived)
        complete_if_out(life.rig, 0);
    else
        fiber_pause();
}

static void take_away(void)
{
    struct rig *rig = life.rig;

    taker.err = ebb_report_unregister(&rig->report);
    if (taker.err != 0)
        return;
    /* From here on nobody may call the device: the rig looks. */
    rig->registered = false;
    if (rig->in_flight || rig->depth > 0)
        fail_msg("step %u: the device is still at work", life.at);
}

static void turn_step(void)
{
    life.steps++;
    if (life.steps < life.at)
        return;
    if (taker.begun) {
        fiber_resume();
    } else {
        taker.begun = true;
        fiber_start(take_away);
    }
}

/* Returns the number of steps that the life had. */
static unsigned taken_away_at(const struct setting *setting, unsigned at, bool by_poll)
{
    begin_life(setting, at, NULL);
    memset(&taker, 0, sizeof(taker));
    port_virtual.on_relax = taker_waits;
    life.rig->complete_on_poll = by_poll;
    port_virtual.on_step = turn_step;
    live(life.rig);
    port_virtual.on_step = NULL;
    taker.lived = true;
    if (taker.begun) {
        while (!fiber_is_over())
            fiber_resume();
        assert_true(taker.err == 0 || taker.err == -EBB_ENODEV);
    }
    if (taker.begun && taker.err == 0) {
        assert_int_equal(ebb_report_phase(&life.rig->report), EBB_REPORT_IDLE);
        assert_int_equal(rig_zone_stats(life.rig, 0).in_flight, 0);
    }
    rig_check(life.rig);
    at = life.steps;
    end_life();
    return at;
}

static void f30_unregister_at_every_step(const struct setting *setting)
{
    for (unsigned by_poll = 0; by_poll < 2; by_poll++) {
        unsigned last = taken_away_at(setting, UINT32_MAX, by_poll);

        assert_true(last > 50);
        for (unsigned at = 1 + by_poll % EVERY; at <= last; at += EVERY)
            taken_away_at(setting, at, by_poll);
    }
}

const struct row rows_steps[] = {
    {"an_operation_at_every_step", an_operation_at_every_step, NULL},
    {"f30_unregister_at_every_step", f30_unregister_at_every_step, NULL},
    {NULL, NULL, NULL},
};
