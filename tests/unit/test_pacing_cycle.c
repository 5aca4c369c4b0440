/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Surplus pacing against the workload that a fixed delay is bad for: take three quarters of
 * memory, hold it, free it, pause, and again. In virtual time: what that costs in refaults once
 * the window has found its length, and how long memory stays with a guest that is idle for long.
 *
 *   EBB_VERBOSE=1  each cycle
 */
#include "report_rig.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define FRAMES  ((uint64_t)1 << 16) /* 256 MiB */
#define SET     (FRAMES * 3 / 4)
#define STEP    256u /* frames taken or freed at once, in virtual time */
#define CYCLES  9u   /* that are looked at */
#define TRICKLE 100u /* frames */

struct load {
    unsigned take_ms, hold_ms, free_ms, pause_ms;
    bool trickle; /* somebody else takes and frees a little all the time */
};

static struct {
    struct rig *rig;
    ebb_pfn_t *pfns;
    uint64_t freed_at; /* 0: nobody waits */
    uint64_t back_ns;  /* since then, when 95 % of all memory was reported; 0: not yet */
} sim;

/* What the cycles showed, once the window had its length. */
struct seen {
    double refaulted; /* a cycle, in sets */
    double worst;     /* of one cycle */
    double cost;      /* of refaults, at 1 us each, in parts of the time */
    double back_ms;   /* the longest that memory took to be back; 0: it was kept at least once */
};

static void pass(uint64_t ns)
{
    for (uint64_t step; ns > 0; ns -= step) {
        step = ns < 5 * MS ? ns : 5 * MS;
        rig_pass(sim.rig, step);
        rig_forget(sim.rig);
        if (sim.freed_at > 0 && sim.back_ns == 0 && sim.rig->zones[0].reported >= FRAMES / 100 * 95)
            sim.back_ns = port_virtual.now - sim.freed_at;
    }
}

/* Somebody else is at work meanwhile, or not. */
static void wait_ms(const struct load *load, unsigned ms)
{
    if (!load->trickle) {
        pass(ms * MS);
        return;
    }
    for (unsigned at = 0; at < ms; at += 5) {
        ebb_pfn_t pfns[TRICKLE];

        for (unsigned i = 0; i < TRICKLE; i++)
            assert_int_equal(ebb_alloc(&sim.rig->zones[0], 0, EBB_UNMOVABLE, 0, &pfns[i]), 0);
        pass(2 * MS);
        for (unsigned i = 0; i < TRICKLE; i++)
            assert_int_equal(ebb_free(&sim.rig->zones[0], pfns[i], 0), 0);
        pass(3 * MS);
    }
}

static void take_all(unsigned ms)
{
    for (uint64_t i = 0; i < SET; i++) {
        assert_int_equal(ebb_alloc(&sim.rig->zones[0], 0, EBB_MOVABLE, 0, &sim.pfns[i]), 0);
        if (i % STEP == 0)
            pass(ms * MS / (SET / STEP));
    }
}

static void free_all(unsigned ms)
{
    for (uint64_t i = 0; i < SET; i++) {
        assert_int_equal(ebb_free(&sim.rig->zones[0], sim.pfns[i], 0), 0);
        if (i % STEP == 0)
            pass(ms * MS / (SET / STEP));
    }
}

/* Returns the frames that refaulted. */
static uint64_t cycle(const struct load *load)
{
    uint64_t before = sim.rig->zones[0].refaulted;

    take_all(load->take_ms);
    wait_ms(load, load->hold_ms);
    free_all(load->free_ms);
    sim.back_ns = 0;
    sim.freed_at = port_virtual.now;
    wait_ms(load, load->pause_ms);
    sim.freed_at = 0;
    return sim.rig->zones[0].refaulted - before;
}

static void begin(void)
{
    memset(&sim, 0, sizeof(sim));
    sim.rig = rig_new(&(struct rig_config){
        .frames = FRAMES,
        .max_order = 10,
        .pageblock_order = 9,
        .capacity = 32,
    });
    sim.pfns = calloc(SET, sizeof(*sim.pfns));
    assert_non_null(sim.pfns);
    rig_register(sim.rig);
    pass(1000 * MS); /* what was free at first is reported */
    assert_int_equal(rig_zone_stats(sim.rig, 0).reported, FRAMES);
}

/* It comes to rest, with everything reported. */
static void end(void)
{
    pass(20000 * MS);
    assert_int_equal(sim.rig->due, EBB_NEVER);
    assert_int_equal(rig_zone_stats(sim.rig, 0).reported, FRAMES);
    rig_free(sim.rig);
    free(sim.pfns);
}

static void print(const struct load *load, const struct seen *seen)
{
    struct ebb_report_stats stats = rig_stats(sim.rig);
    char back[32] = "kept";

    if (seen->back_ms > 0)
        snprintf(back, sizeof(back), "back after %.1f ms", seen->back_ms);
    print_message("%6u %5u %5u %6u %8s | %6.1f %% %6.1f %% %6.2f %% | %5.0f ms +%u -%u, %s\n",
                  load->take_ms, load->hold_ms, load->free_ms, load->pause_ms,
                  load->trickle ? "yes" : "no", 100 * seen->refaulted, 100 * seen->worst,
                  100 * seen->cost, (double)stats.window_ns / 1e6, (unsigned)stats.window_grown,
                  (unsigned)stats.window_shrunk, back);
}

/* So many cycles come first, in which it learns. */
static struct seen run(const struct load *load, unsigned learning)
{
    uint64_t worst = 0, sum = 0, back = 0, began = 0;
    bool kept = false;
    struct seen seen;

    begin();
    for (unsigned i = 0; i < learning + CYCLES; i++) {
        uint64_t refaulted;

        if (i == learning)
            began = port_virtual.now;
        refaulted = cycle(load);
        if (getenv("EBB_VERBOSE"))
            print_message("  %u: refaulted %.1f %%, window %.0f ms, back after %.1f ms\n", i,
                          100.0 * (double)refaulted / (double)SET,
                          (double)rig_stats(sim.rig).window_ns / 1e6, (double)sim.back_ns / 1e6);
        if (i < learning)
            continue;
        sum += refaulted;
        worst = refaulted > worst ? refaulted : worst;
        back = sim.back_ns > back ? sim.back_ns : back;
        kept |= sim.back_ns == 0;
    }
    seen.refaulted = (double)sum / CYCLES / (double)SET;
    seen.worst = (double)worst / (double)SET;
    seen.cost =
        port_virtual.now > began ? (double)sum * 1000 / (double)(port_virtual.now - began) : 0;
    seen.back_ms = kept ? 0 : (double)back / 1e6;
    print(load, &seen);
    end();
    return seen;
}

static const unsigned shapes[][3] = {
    {0, 0, 0},      /* at once */
    {300, 0, 50},   /* as fast as a guest on this kind of machine */
    {1500, 0, 300}, /* slower, or larger */
    {300, 1000, 50}, {300, 3000, 50},
};
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static void header(void)
{
    print_message("  take  hold  free  pause, trickle | refaulted a cycle, at worst; share of time "
                  "| window, grown, shrunk\n");
}

/* What a guest needs again within window_max stays: the refaults cost no more than they may. */
static void test_short_pauses_cost_nothing(void **state)
{
    static const unsigned pauses[] = {0, 50, 200, 500, 1000};

    (void)state;
    header();
    for (unsigned s = 0; s < SHAPES * 2; s++) {
        for (unsigned p = 0; p < sizeof(pauses) / sizeof(pauses[0]); p++) {
            const unsigned *shape = shapes[s / 2];
            struct load load = {shape[0], shape[1], shape[2], pauses[p], s % 2};
            struct seen seen;

            /* No time passes at all; or a frame can be free for longer than window_max. */
            if (shape[0] + pauses[p] == 0 ||
                shape[0] + shape[2] + pauses[p] > EBB_REPORT_WINDOW_MAX_MS)
                continue;
            seen = run(&load, 5);
            assert_true(seen.cost < 0.015);
            /* Where that takes long, a shorter window now and then is within 1 %. */
            if (shape[0] <= 300 && shape[1] == 0)
                assert_true(seen.refaulted < 0.05);
        }
    }
}

/* A guest that is idle for longer than window_max gives back at once, each time. */
static void test_long_pauses_give_back(void **state)
{
    (void)state;
    header();
    for (unsigned s = 0; s < SHAPES * 2; s++) {
        const unsigned *shape = shapes[s / 2];
        struct load load = {shape[0], shape[1], shape[2], 3000, s % 2};
        struct seen seen = run(&load, 12); /* four a halving */

        assert_true(seen.back_ms > 0);
        assert_true(seen.back_ms <= (load.trickle ? 200 : 100));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        rig_test(test_short_pauses_cost_nothing),
        rig_test(test_long_pauses_give_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
