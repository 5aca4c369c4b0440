/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pace, rule by rule: what it makes of numbers and times that the rows give. The rules are
 * those of DESIGN.md, section 9; the numbers that they lead to were worked out by hand.
 */
#include <ebb/pace.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define US      ((uint64_t)1000)
#define MS      (1000 * US)
#define S       (1000 * MS)
#define ROWS(a) (sizeof(a) / sizeof((a)[0]))

/* One source, unless a test brings more. */
static struct {
    struct ebb_pace pace;
    struct ebb_pace_source source;
    uint64_t now;
    uint64_t reported, refaulted; /* of the source */
    uint64_t unused;
} sim;

static const struct ebb_pace_config defaults = {
    .window_min = 50 * MS,
    .window_max = 2500 * MS,
    .window_start = 300 * MS,
    .refault_ns = 1000,
};

static void begin(const struct ebb_pace_config *config)
{
    memset(&sim, 0, sizeof(sim));
    sim.now = 12345 * S;
    sim.unused = ~(uint64_t)0;
    ebb_pace_init(&sim.pace, config);
    ebb_pace_start(&sim.pace, sim.now);
    ebb_pace_start_source(&sim.pace, &sim.source, 0, 0, 0);
}

static void look_after(uint64_t ns, uint64_t low, uint64_t withdrawn)
{
    sim.now += ns;
    assert_true(ebb_pace_look(&sim.pace, sim.now));
    ebb_pace_end_slot(&sim.pace, &sim.source, low, withdrawn, sim.reported, sim.refaulted);
    ebb_pace_judge(&sim.pace, sim.now, sim.unused);
}

/* A slot passes. */
static void look(uint64_t low)
{
    look_after(ebb_pace_slot(&sim.pace), low, 0);
}

static uint64_t quota(void)
{
    return ebb_pace_quota(&sim.pace, &sim.source);
}

static void told(uint64_t frames)
{
    ebb_pace_told(&sim.pace, frames, sim.now);
    sim.reported += frames;
}

/* Frames that were reported are used. */
static void refault(uint64_t frames)
{
    assert_true(sim.reported >= frames);
    sim.reported -= frames;
    sim.refaulted += frames;
}

/* The time in between is known to pace only about: to 65 us, and a 65,536th. */
static void assert_about(uint64_t value, uint64_t expected)
{
    assert_in_range(value, expected > 200 * US ? expected - 200 * US : 0, expected + 200 * US);
}

/* ---- what is surplus ---- */

static void test_quota(void **state)
{
    static const struct {
        uint64_t lows[EBB_PACE_SLOTS]; /* oldest first */
        uint64_t quota;
    } rows[] = {
        {{0, 0, 0, 0}, 0},
        {{10, 10, 10, 10}, 10},
        {{10, 20, 30, 40}, 10}, /* the least, whichever slot it is of */
        {{40, 10, 30, 40}, 10},
        {{40, 30, 10, 40}, 10},
        {{90, 100, 100, 100}, 90},
        {{100, 100, 100, 90}, 50}, /* what the last slot took, four times more */
        {{100, 100, 100, 81}, 5},
        {{100, 100, 100, 80}, 0},
        {{100, 100, 100, 10}, 0},
        {{100, 100, 90, 90}, 90}, /* before it, it does not matter */
        {{100, 100, 50, 60}, 50},
        {{(uint64_t)1 << 40, (uint64_t)1 << 40, (uint64_t)1 << 40, (uint64_t)1 << 40},
         (uint64_t)1 << 40},
        {{(uint64_t)1 << 40, (uint64_t)1 << 40, (uint64_t)1 << 40, 0}, 0},
    };

    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        begin(&defaults);
        look(1000); /* the first one says nothing */
        for (unsigned slot = 0; slot < EBB_PACE_SLOTS; slot++) {
            assert_int_equal(quota(), 0);
            look(rows[i].lows[slot]);
        }
        assert_int_equal(quota(), rows[i].quota);
    }
}

static void test_look(void **state)
{
    struct ebb_pace before;

    (void)state;
    begin(&defaults);
    assert_int_equal(ebb_pace_slot(&sim.pace), 75 * MS);
    before = sim.pace;
    assert_false(ebb_pace_look(&sim.pace, sim.now));
    assert_false(ebb_pace_look(&sim.pace, sim.now + 75 * MS - 1));
    assert_memory_equal(&before, &sim.pace, sizeof(before));
    assert_true(ebb_pace_look(&sim.pace, sim.now + 75 * MS));
    assert_false(ebb_pace_look(&sim.pace, sim.now + 150 * MS - 1));
    assert_true(ebb_pace_look(&sim.pace, sim.now + 150 * MS));
}

/* What half the window would have reported, and what that would have missed. */
static void test_end_slot(void **state)
{
    static const struct {
        uint64_t lows[EBB_PACE_SLOTS + 1]; /* oldest first */
        uint64_t half;                     /* in the end */
        uint64_t saved, missed;            /* in the last slot */
    } rows[] = {
        {{0, 0, 0, 0, 100}, 0, 0, 0}, /* not there for half a window yet */
        {{0, 0, 0, 100, 100}, 100, 0, 0},
        {{0, 0, 0, 100, 150}, 100, 0, 0}, /* 50 of them not yet */
        {{0, 0, 0, 150, 100}, 100, 0, 0},
        {{0, 0, 100, 100, 100}, 100, 100, 0},
        {{0, 0, 100, 60, 80}, 60, 60, 0},
        {{0, 0, 100, 100, 60}, 60, 100, 40},
        {{0, 0, 100, 100, 0}, 0, 100, 100},
        {{0, 100, 100, 60, 100}, 60, 60, 0}, /* what was missed is there no more */
        {{100, 100, 60, 100, 100}, 100, 60, 0},
        {{100, 100, 100, 100, 150}, 100, 100, 0},
        {{100, 100, 100, 150, 150}, 150, 100, 0},
    };

    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        begin(&defaults);
        look(0);
        for (unsigned slot = 0; slot <= EBB_PACE_SLOTS; slot++)
            look(rows[i].lows[slot]);
        assert_int_equal(sim.source.half, rows[i].half);
        assert_int_equal(sim.pace.slot_saved, rows[i].saved);
        assert_int_equal(sim.pace.slot_missed, rows[i].missed);
    }
}

/* What leaves without being needed is no demand. */
static void test_withdrawn(void **state)
{
    static const struct {
        uint64_t low, withdrawn;
        uint64_t quota, half, missed;
    } rows[] = {
        {100, 0, 100, 100, 0},
        {70, 0, 0, 70, 30},        /* taken: less four times 30 */
        {70, 30, 70, 70, 0},       /* withdrawn */
        {90, 0, 50, 90, 10},       /* taken */
        {60, 30, 60 - 40, 60, 10}, /* some of both */
        {0, 100, 0, 0, 0},
        {0, 1000, 0, 0, 0}, /* more than there were: some came only then */
        {50, 1000, 0, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        begin(&defaults);
        for (unsigned slot = 0; slot < 6; slot++)
            look(100);
        /* Half of a window, and all of it, would have reported the 100. */
        assert_int_equal(sim.source.half, 100);
        look_after(75 * MS, rows[i].low, rows[i].withdrawn);
        assert_int_equal(quota(), rows[i].quota);
        assert_int_equal(sim.source.half, rows[i].half);
        assert_int_equal(sim.pace.slot_missed, rows[i].missed);
    }
}

static void test_isolated(void **state)
{
    (void)state;
    begin(&defaults);
    for (unsigned slot = 0; slot < 6; slot++)
        look(100);
    assert_int_equal(quota(), 100);
    ebb_pace_isolated(&sim.pace, &sim.source, 30);
    assert_int_equal(quota(), 70);
    assert_int_equal(sim.source.half, 70);
    ebb_pace_isolated(&sim.pace, &sim.source, 71);
    assert_int_equal(quota(), 0);
    assert_int_equal(sim.source.half, 0);
    look(0);
    assert_int_equal(sim.pace.slot_missed, 0);
}

static void test_ripe(void **state)
{
    /* In ticks: a window of 300 ms has 286, three longest ones of 2.5 s have 7152. */
    static const struct {
        uint32_t frames, blocks, age;
    } rows[] = {
        {448, 192, 981}, /* each eighth of 512 frames is in use: 3.43 windows */
        {512, 1, 361},   /* (512 + 5 + 128) / 512 */
        {511, 9, 383},
        {256, 1, 435},
        {256, 256, 1859},
        {64, 8, 1037},
        {2, 1, 7152}, /* 67 windows, were it not for the longest */
        {1, 1, 7152}, /* 134 */
        {6, 1, 6626}, /* 23 windows, just within */
        {UINT32_MAX, UINT32_MAX, 1717},
        {UINT32_MAX, 1, 287},
    };

    (void)state;
    begin(&defaults);
    assert_int_equal(ebb_pace_window_ticks(&sim.pace), 286);
    for (size_t i = 0; i < ROWS(rows); i++) {
        uint32_t frames = rows[i].frames, blocks = rows[i].blocks;

        assert_false(ebb_pace_ripe(&sim.pace, frames, blocks, 0));
        assert_false(ebb_pace_ripe(&sim.pace, frames, blocks, rows[i].age - 1));
        assert_true(ebb_pace_ripe(&sim.pace, frames, blocks, rows[i].age));
        assert_true(ebb_pace_ripe(&sim.pace, frames, blocks, UINT32_MAX));
    }
}

/* Ages are compared with it, and nothing ages while nobody looks. */
static void test_clock(void **state)
{
    static const struct {
        uint64_t elapsed, passed;
    } rows[] = {
        {75 * MS, 75 * MS},   {100 * MS, 100 * MS},
        {150 * MS, 150 * MS}, {150 * MS + 1, 150 * MS}, /* two slots at most */
        {5 * S, 150 * MS},    {3600 * S, 150 * MS},
    };
    uint64_t passed = 0;

    (void)state;
    begin(&defaults);
    assert_int_equal(ebb_pace_clock(&sim.pace), 0);
    for (size_t i = 0; i < ROWS(rows); i++) {
        look_after(rows[i].elapsed, 0, 0);
        passed += rows[i].passed;
        assert_int_equal(sim.pace.clock, passed);
        assert_int_equal(ebb_pace_clock(&sim.pace), passed / (1 << 20));
    }
    sim.pace.clock = ((uint64_t)1 << 52) - 1; /* after 52 days */
    assert_int_equal(ebb_pace_clock(&sim.pace), UINT32_MAX);
    look(0);
    assert_int_equal(ebb_pace_clock(&sim.pace), 71);
}

/* ---- longer ---- */

/* Refaults so long after they were told of. 10,000 of them, a second's worth, are free. */
static void test_growth(void **state)
{
    static const struct {
        uint64_t age; /* since they were told of: free for 375 ms more */
        uint64_t frames, soon;
        uint64_t window;
    } rows[] = {
        {75 * MS, 0, 0, 300 * MS},
        {75 * MS, 1, 1, 300 * MS},
        {75 * MS, 10000, 10000, 300 * MS},
        {75 * MS, 10001, 10001, 562500 * US}, /* (375 + 75) ms and a quarter */
        {75 * MS, 1000000, 1000000, 562500 * US},
        {225 * MS, 10001, 10001, 750 * MS},
        {1625 * MS - 1, 10001, 10001, 2500 * MS - 2}, /* (2000 ms - 1 ns) and a quarter */
        {1625 * MS, 10001, 10001, 2500 * MS},
        {1700 * MS, 10001, 10001, 2500 * MS}, /* the longest there is */
        {2125 * MS, 10001, 10001, 2500 * MS}, /* free for just that long */
        {2125 * MS + 1, 10001, 0, 300 * MS},  /* longer: no window would have kept them */
        {2125 * MS + 1, 10000000, 0, 300 * MS},
    };

    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        uint64_t paid = rows[i].frames <= 10000 ? rows[i].soon * 100 * US : 0;

        begin(&defaults);
        told(20000000);
        refault(rows[i].frames);
        look_after(rows[i].age, 0, 0);
        assert_int_equal(sim.pace.window, rows[i].window);
        assert_int_equal(sim.pace.grown, rows[i].window > 300 * MS);
        assert_int_equal(sim.pace.shrunk, 0);
        assert_int_equal(sim.pace.refaulted_soon, rows[i].soon);
        assert_int_equal(sim.pace.credit, S - paid);
    }
}

/* What a refault costs: how many are a second's worth? */
static void test_refault_ns(void **state)
{
    static const struct {
        uint32_t refault_ns;
        uint64_t frames; /* that are tolerated */
    } rows[] = {
        {1, 10000000},
        {1000, 10000},
        {3000, 3333},
        {1000000, 10},
    };

    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        for (unsigned more = 0; more < 2; more++) {
            struct ebb_pace_config config = defaults;

            config.refault_ns = rows[i].refault_ns;
            begin(&config);
            told(20000000);
            refault(rows[i].frames + more);
            look(0);
            assert_int_equal(sim.pace.grown, more);
        }
    }
}

/* What many dear refaults cost is more than fits into 64 bits: 0.1 s more here. */
static void test_dear_refaults(void **state)
{
    struct ebb_pace_config config = defaults;

    (void)state;
    config.refault_ns = 1000000;
    begin(&config);
    told(184467440738);
    refault(184467440738);
    look(0);
    assert_int_equal(sim.pace.grown, 1);
    assert_int_equal(sim.pace.debt, 120 * S);
}

/* One part in a hundred of the time, and no more than a second's worth is saved up. */
static void test_credit(void **state)
{
    static const struct {
        uint64_t elapsed; /* since the credit was used up */
        uint64_t frames;  /* that are tolerated then */
    } rows[] = {
        {75 * MS, 750}, {99950 * US, 999}, {500 * MS, 5000}, {S, 10000}, {1500 * MS, 10000},
    };

    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        for (unsigned more = 0; more < 2; more++) {
            begin(&defaults);
            told(20001);
            refault(10000);
            look(0);
            assert_int_equal(sim.pace.credit, 0);
            refault(rows[i].frames + more);
            look_after(rows[i].elapsed, 0, 0);
            assert_int_equal(sim.pace.grown, more);
            assert_true(more ? sim.pace.credit == S : sim.pace.credit < 100 * US);
        }
    }
}

/* The window is the longest already, and what refaults is left from a shorter one's time. */
static void test_long_enough(void **state)
{
    (void)state;
    begin(&defaults);
    told(40000);
    refault(10001);
    look_after(875 * MS, 0, 0);
    assert_int_equal(sim.pace.window, 1562500 * US); /* 1250 ms and a quarter */
    told(10001);
    refault(10001);
    look(0);
    assert_int_equal(sim.pace.window, 2500 * MS); /* 2343 ms and a quarter, but for the longest */
    refault(10001);
    look(0); /* free for 2266 ms */
    assert_int_equal(sim.pace.refaulted_soon, 30003);
    assert_int_equal(sim.pace.window, 2500 * MS);
    assert_int_equal(sim.pace.grown, 2);
    assert_int_equal(sim.pace.credit, S);
}

/* ---- whose refaults they are ---- */

/* Three groups of 1000 frames at 0, 150 and 300 ms, then a look at 375 ms. */
static void test_attribution(void **state)
{
    static const struct {
        uint64_t frames, soon;
        uint64_t free_for; /* of the oldest that were taken */
    } rows[] = {
        {11, 11, 450 * MS},     {1000, 1000, 450 * MS}, {1001, 1001, 600 * MS},
        {2000, 2000, 600 * MS}, {2001, 2001, 750 * MS}, {3000, 3000, 750 * MS},
        {5000, 3000, 750 * MS}, /* of the others nothing is known */
    };
    const struct ebb_pace_config config = {
        .window_min = 50 * MS,
        .window_max = 1600 * MS, /* groups are 100 ms apart */
        .window_start = 300 * MS,
        .refault_ns = 1000000, /* a credit of 10 frames */
    };

    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        begin(&config);
        sim.reported = 10000; /* from before */
        ebb_pace_start_source(&sim.pace, &sim.source, 0, sim.reported, 0);
        told(1000);
        sim.now += 150 * MS;
        told(1000);
        sim.now += 150 * MS;
        told(1000);
        refault(rows[i].frames);
        look(0);
        assert_int_equal(sim.pace.refaulted_soon, rows[i].soon);
        assert_int_equal(sim.pace.window, rows[i].free_for / 4 * 5);
    }
}

/* Frames that were told of within a 16th of the longest window are one group. */
static void test_groups(void **state)
{
    static const struct {
        uint64_t first, second; /* frames */
        uint64_t apart, age;    /* of the second, at the look */
        uint64_t free_for;      /* of one of these */
    } rows[] = {
        {1000, 1000, 80 * MS, 75 * MS, (375 + 75 + 40) * MS},
        {3000, 1000, 80 * MS, 75 * MS, (375 + 75 + 60) * MS},
        {1000, 3000, 80 * MS, 75 * MS, (375 + 75 + 20) * MS},
        {1000, 3000, 100 * MS, 75 * MS, (375 + 75 + 25) * MS},
        {1000, 3000, 101 * MS, 75 * MS, (375 + 75) * MS}, /* two groups */
        {1u << 30, 3u << 30, 80 * MS, 75 * MS, (375 + 75 + 20) * MS},
        {(uint64_t)1 << 38, (uint64_t)3 << 38, 100 * MS, 75 * MS, (375 + 75 + 25) * MS},
    };
    const struct ebb_pace_config config = {
        .window_min = 50 * MS,
        .window_max = 1600 * MS,
        .window_start = 300 * MS,
        .refault_ns = 1000000,
    };

    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        begin(&config);
        told(rows[i].first);
        sim.now += rows[i].apart;
        told(rows[i].second);
        refault(11);
        look_after(sim.now + rows[i].age - sim.pace.looked - rows[i].apart, 0, 0);
        assert_about(sim.pace.window, rows[i].free_for / 4 * 5);
    }
}

/* Only the latest had been free for less than the longest window. */
static void test_too_old(void **state)
{
    (void)state;
    begin(&defaults);
    told(10000);
    sim.now += 2100 * MS;
    told(10000);
    refault(20000);
    look(0);
    assert_int_equal(sim.pace.refaulted_soon, 10000);
    assert_int_equal(sim.pace.grown, 0);
}

/* A long window's group comes first, though one of before had been free for less. */
static void test_too_old_is_the_latest(void **state)
{
    (void)state;
    begin(&defaults);
    told(40000);
    refault(10001);
    look_after(1500 * MS, 0, 0);
    assert_int_equal(sim.pace.window, 2343750 * US); /* 1875 ms and a quarter */
    told(5000);                                      /* free for 2930 ms */
    refault(3000);
    look(0); /* the others for 2461 ms */
    assert_int_equal(sim.pace.refaulted_soon, 10001);
    assert_int_equal(sim.pace.told[0].frames, 29999);
    assert_int_equal(sim.pace.told[1].frames, 5000);
}

/* As many groups as there are places: the oldest makes place for the newest. */
static void test_many_groups(void **state)
{
    struct ebb_pace_config config = defaults;

    (void)state;
    config.window_max = 3600 * S;
    begin(&config);
    for (unsigned i = 0; i < 3 * EBB_PACE_TOLD; i++) {
        sim.now += config.window_max / EBB_PACE_TOLD + 1;
        told(100);
    }
    refault(100 * 3 * EBB_PACE_TOLD);
    look(0);
    /* A 16th of the longest window apart: those before these had been free for longer. */
    assert_int_equal(sim.pace.refaulted_soon, 100 * EBB_PACE_TOLD);
}

/* Reported no longer, and not used: reported once more, and not counted twice. */
static void test_unmarked(void **state)
{
    (void)state;
    begin(&defaults);
    told(20000);
    look(0);
    sim.reported -= 12000;
    look(0);
    assert_int_equal(sim.pace.refaulted_soon, 0);
    assert_int_equal(sim.pace.told[0].frames, 8000);
    refault(8000);
    look(0);
    assert_int_equal(sim.pace.refaulted_soon, 8000);
    assert_int_equal(sim.pace.told[0].frames, 0);
}

/* Both at once. The refaults come first. */
static void test_unmarked_and_refaulted(void **state)
{
    (void)state;
    begin(&defaults);
    told(20000);
    refault(5000);
    sim.reported -= 12000;
    look(0);
    assert_int_equal(sim.pace.refaulted_soon, 5000);
    assert_int_equal(sim.pace.told[0].frames, 3000);
}

/* What was free before the device came is nobody's loss. */
static void test_unattributed(void **state)
{
    static const struct {
        uint64_t before, told, attributed;
    } rows[] = {
        {0, 1000, 1000},
        {400, 1000, 600},
        {1000, 1000, 0},
        {5000, 1000, 0},
    };

    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        begin(&defaults);
        ebb_pace_start_source(&sim.pace, &sim.source, rows[i].before, 0, 0);
        told(rows[i].told);
        refault(rows[i].told);
        look(0);
        assert_int_equal(sim.pace.refaulted_soon, rows[i].attributed);
        /* They are reported once, then they are as any others. */
        told(5000);
        refault(5000);
        look(0);
        assert_int_equal(sim.pace.refaulted_soon, rows[i].told + 5000 > rows[i].before
                                                      ? rows[i].told + 5000 - rows[i].before
                                                      : 0);
    }
}

/* Nor is what was used since: it was free before, and is not any more. */
static void test_used_since(void **state)
{
    (void)state;
    begin(&defaults);
    ebb_pace_start_source(&sim.pace, &sim.source, 5000, 0, 0);
    sim.unused = 5000;
    look(5000);
    told(1000);
    refault(1000);
    sim.unused = 1500; /* of 4000 */
    look(1500);
    assert_int_equal(sim.pace.refaulted_soon, 0);
    sim.unused = 4000; /* freed again */
    look(1500);
    told(4000);
    refault(4000);
    look(0);
    assert_int_equal(sim.pace.refaulted_soon, 2500);
}

/* ---- shorter ---- */

/* Looks until the window is shorter, or there were `limit`. */
static unsigned looks_until_shrunk(uint64_t low, unsigned limit)
{
    uint64_t shrunk = sim.pace.shrunk;
    unsigned looks = 0;

    while (sim.pace.shrunk == shrunk && looks < limit) {
        look(low);
        looks++;
    }
    return looks;
}

/* So much is unreported, and stays (none of it is isolated here). */
static void test_halving(void **state)
{
    (void)state;
    begin(&defaults);
    /* One says nothing, two until half the window has reported, eight are two windows. */
    assert_int_equal(looks_until_shrunk(100, 50), 1 + 2 + 8);
    assert_int_equal(sim.pace.window, 150 * MS);
    assert_int_equal(looks_until_shrunk(100, 50), 8);
    assert_int_equal(sim.pace.window, 75 * MS);
    assert_int_equal(looks_until_shrunk(100, 50), 8);
    assert_int_equal(sim.pace.window, 50 * MS); /* the shortest, not 37.5 ms */
    assert_int_equal(looks_until_shrunk(100, 50), 50);
    assert_int_equal(sim.pace.window, 50 * MS);
    assert_int_equal(sim.pace.shrunk, 3);
    assert_int_equal(sim.pace.grown, 0);
    assert_int_equal(quota(), 100); /* shorter slots need not forget */
}

/* Where half of it would have reported nothing, there is nothing to judge. */
static void test_nothing_to_save(void **state)
{
    (void)state;
    begin(&defaults);
    for (unsigned i = 0; i < 100; i++)
        look(i % 2 ? 100 : 0);
    assert_int_equal(sim.pace.shrunk, 0);
    assert_int_equal(sim.pace.calm, 0);
}

/* A look after a long time counts as two slots. */
static void test_late_looks(void **state)
{
    (void)state;
    begin(&defaults);
    for (unsigned i = 0; i < 3; i++)
        look(100);
    for (unsigned i = 0; i < 3; i++)
        look_after(5 * S, 100, 0);
    assert_int_equal(sim.pace.calm, 450 * MS);
    assert_int_equal(sim.pace.shrunk, 0);
    look_after(5 * S, 100, 0);
    assert_int_equal(sim.pace.window, 150 * MS);
}

/* 100 frames for two windows of 300 ms, or a few that were needed: each is worth holding one
 * for 2.5 s. */
static void test_halving_must_pay(void **state)
{
    static const struct {
        uint64_t saved, missed;
        bool pays;
    } rows[] = {
        {100, 0, true},
        {100, 23, true},
        {100, 24, false},
        {100, 100, false},
        {1, 1, false},
        {((uint64_t)1 << 40) - 1, (uint64_t)1 << 37, true},
        {((uint64_t)1 << 40) - 1, (uint64_t)1 << 38, false},
    };

    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        begin(&defaults);
        for (unsigned slot = 0; slot < 3 + 7; slot++)
            look(rows[i].saved);
        look(rows[i].saved - rows[i].missed);
        assert_int_equal(sim.pace.window, rows[i].pays ? 150 * MS : 300 * MS);
        /* Either way it begins anew. */
        assert_int_equal(sim.pace.missed, 0);
        assert_int_equal(sim.pace.saved, 0);
        assert_int_equal(sim.pace.calm, 0);
    }
}

/* More frames for a longer time than fit into 64 bits: 2^37 for two hours. */
static void test_halving_of_much(void **state)
{
    const struct ebb_pace_config config = {
        .window_min = 0,
        .window_max = ((uint64_t)1 << 42) - 1,
        .window_start = ((uint64_t)1 << 42) - 4,
        .refault_ns = 1,
    };
    const uint64_t frames = ((uint64_t)1 << 37) + (1 << 20);

    (void)state;
    begin(&config);
    for (unsigned slot = 0; slot < 3 + 7; slot++)
        look(frames);
    look(frames - (1 << 30));
    assert_int_equal(sim.pace.shrunk, 1);
}

/* Frames that refault soon count as missed. */
static void test_refaults_speak_against(void **state)
{
    (void)state;
    begin(&defaults);
    told(24);
    for (unsigned slot = 0; slot < 3; slot++)
        look(100);
    refault(24); /* far less than is tolerable */
    assert_int_equal(looks_until_shrunk(100, 9), 9);
    /* That was judged after eight slots, and begins anew. */
    assert_int_equal(looks_until_shrunk(100, 50), 7);
}

/* No window is shortened before its refaults are paid. */
static void test_debt(void **state)
{
    static const struct {
        uint64_t frames;  /* that refault, at 100 us each */
        uint64_t seconds; /* of debt left beyond the one that is tolerable */
    } rows[] = {
        {10001, 0},
        {20000, 1},
        {110000, 10},
        {1200000, 119},
        {5000000, 119}, /* 500 s, but two minutes are enough */
        {((uint64_t)1 << 40) - 1, 119},
    };

    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        uint64_t began, window;

        begin(&defaults);
        told(rows[i].frames);
        refault(rows[i].frames);
        look(0);
        window = sim.pace.window;
        assert_int_equal(window, 562500 * US);
        began = sim.now;
        /* As if somebody took it all each second time: no rest, and always something to save. */
        looks_until_shrunk(1000, 10000);
        assert_int_equal(sim.pace.window, window / 2);
        assert_true(sim.now - began >= rows[i].seconds * S);
        /* Judged each two windows; five slots until there is something to judge. */
        assert_true(sim.now - began <= rows[i].seconds * S + 2 * window + 5 * window / 4);
    }
}

/* ---- rest ---- */

static void test_forgetting(void **state)
{
    static const struct {
        uint64_t first, rest;
        uint64_t refaults; /* that made it so long */
        uint64_t window;   /* after the rest; 0: as it was */
    } rows[] = {
        {300 * MS, 10 * S, 10001, 0},
        {300 * MS, 10 * S + 1, 10001, 300 * MS},
        {300 * MS, 3600 * S, 10001, 300 * MS},
        {300 * MS, 3600 * S, 20000000, 300 * MS},
        {300 * MS, 10 * S + 1, 110000, 300 * MS}, /* 11 s of debt: paid, but for one */
        {300 * MS, 10 * S + 1, 120000, 0},        /* not paid yet */
        {300 * MS, 119 * S - 1, 20000000, 0},
        {300 * MS, 119 * S, 20000000, 300 * MS},
        {50 * MS, 10 * S + 1, 10001, 50 * MS},
    };

    (void)state;
    for (size_t i = 0; i < ROWS(rows); i++) {
        struct ebb_pace_config config = defaults;
        uint64_t window;

        config.window_start = rows[i].first;
        begin(&config);
        told(rows[i].refaults);
        refault(rows[i].refaults);
        look(0);
        window = sim.pace.window;
        assert_true(window > rows[i].first);
        look_after(rows[i].rest, 0, 0);
        assert_int_equal(sim.pace.window, rows[i].window ? rows[i].window : window);
        assert_int_equal(sim.pace.shrunk, rows[i].window != 0);
    }
}

/* One that was shorter becomes longer again, and slots are forgotten with it. */
static void test_forgetting_a_short_one(void **state)
{
    (void)state;
    begin(&defaults);
    looks_until_shrunk(100, 50);
    assert_int_equal(sim.pace.window, 150 * MS);
    assert_int_equal(quota(), 100);
    look_after(10 * S, 100, 0);
    assert_int_equal(sim.pace.window, 150 * MS);
    look_after(10 * S + 1, 100, 0);
    assert_int_equal(sim.pace.window, 300 * MS);
    assert_int_equal(sim.pace.grown, 1);
    assert_int_equal(quota(), 0);
}

/* What refaults then was reported by the short one: the first is long enough for that. */
static void test_refaults_after_rest(void **state)
{
    (void)state;
    begin(&defaults);
    looks_until_shrunk(100, 50);
    assert_int_equal(sim.pace.window, 150 * MS);
    sim.now += 10 * S;
    told(20000);
    refault(10001);
    look_after(1 * MS, 100, 0); /* free for 188.5 ms */
    assert_int_equal(sim.pace.refaulted_soon, 10001);
    assert_int_equal(sim.pace.window, 300 * MS);
    assert_int_equal(sim.pace.grown, 1);
    assert_int_equal(sim.pace.shrunk, 1);
    assert_int_equal(sim.pace.credit, S);
}

/* The first window is not forgotten: that is no change. */
static void test_rest_of_the_first(void **state)
{
    (void)state;
    begin(&defaults);
    look(0);
    look_after(3600 * S, 0, 0);
    assert_int_equal(sim.pace.window, 300 * MS);
    assert_int_equal(sim.pace.shrunk + sim.pace.grown, 0);
}

/* ---- sources ---- */

#define SOURCES 3u

static struct ebb_pace_source sources[SOURCES];

static void look_at(unsigned n, uint64_t low)
{
    sim.now += ebb_pace_slot(&sim.pace);
    assert_true(ebb_pace_look(&sim.pace, sim.now));
    for (unsigned i = 0; i < n; i++)
        ebb_pace_end_slot(&sim.pace, &sources[i], low, 0, i == 0 ? sim.reported : 0,
                          i == 0 ? sim.refaulted : 0);
    ebb_pace_judge(&sim.pace, sim.now, sim.unused);
}

static void begin_sources(void)
{
    begin(&defaults);
    memset(sources, 0, sizeof(sources));
    for (unsigned i = 0; i < 5; i++)
        look_at(SOURCES, 100);
    for (unsigned i = 0; i < SOURCES; i++)
        assert_int_equal(ebb_pace_quota(&sim.pace, &sources[i]), 100);
}

/* A longer window has longer slots, of all sources: also of those that were looked at before
 * the one that refaulted, and of those that are looked at again only later. */
static void test_generation(void **state)
{
    (void)state;
    begin_sources();
    told(20000);
    refault(20000);
    look_at(2, 100);
    assert_int_equal(sim.pace.grown, 1);
    for (unsigned i = 0; i < SOURCES; i++)
        assert_int_equal(ebb_pace_quota(&sim.pace, &sources[i]), 0);
    /* A slot that says nothing, and four that do. */
    for (unsigned i = 0; i < 4; i++) {
        look_at(2, 100);
        assert_int_equal(ebb_pace_quota(&sim.pace, &sources[0]), 0);
        assert_int_equal(ebb_pace_quota(&sim.pace, &sources[1]), 0);
    }
    look_at(2, 100);
    assert_int_equal(ebb_pace_quota(&sim.pace, &sources[0]), 100);
    assert_int_equal(ebb_pace_quota(&sim.pace, &sources[1]), 100);
    /* The third one has all of that still to come. */
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(ebb_pace_quota(&sim.pace, &sources[2]), 0);
        look_at(3, 100);
    }
    assert_int_equal(ebb_pace_quota(&sim.pace, &sources[2]), 100);
}

/* Somebody reports everything, whatever is surplus: the slot under way says nothing still. */
static void test_isolated_while_stale(void **state)
{
    (void)state;
    begin_sources();
    told(20000);
    refault(20000);
    look_at(SOURCES, 100);
    assert_int_equal(sim.pace.grown, 1);
    ebb_pace_isolated(&sim.pace, &sources[0], 10);
    assert_int_equal(ebb_pace_quota(&sim.pace, &sources[0]), 0);
    for (unsigned i = 0; i < 4; i++) {
        look_at(SOURCES, 90);
        assert_int_equal(sources[0].lows[3], 0);
        assert_int_equal(ebb_pace_quota(&sim.pace, &sources[0]), 0);
    }
    look_at(SOURCES, 90);
    assert_int_equal(ebb_pace_quota(&sim.pace, &sources[0]), 90);
}

/* One window for all: what sources say is summed. */
static void test_sums(void **state)
{
    (void)state;
    begin(&defaults);
    memset(sources, 0, sizeof(sources));
    for (unsigned i = 0; i < SOURCES; i++)
        ebb_pace_start_source(&sim.pace, &sources[i], 10 * (i + 1), 0, 1000 * i);
    assert_int_equal(sim.pace.unattributed, 60);
    ebb_pace_told(&sim.pace, 60 + 12000, sim.now);
    sim.now += 75 * MS;
    assert_true(ebb_pace_look(&sim.pace, sim.now));
    for (unsigned i = 0; i < SOURCES; i++)
        ebb_pace_end_slot(&sim.pace, &sources[i], 0, 0, 20, 1000 * i + 3335);
    assert_int_equal(sim.pace.slot_refaulted, 3 * 3335);
    assert_int_equal(sim.pace.slot_reported, 60);
    ebb_pace_judge(&sim.pace, sim.now, sim.unused);
    assert_int_equal(sim.pace.refaulted_soon, 3 * 3335);
    assert_int_equal(sim.pace.grown, 1);
    assert_int_equal(sim.pace.reported, 60);
}

/* A device goes, another one comes: the window is still right, the rest is not. */
static void test_start_anew(void **state)
{
    (void)state;
    begin(&defaults);
    for (unsigned i = 0; i < 5; i++)
        look(100);
    told(20000);
    refault(10001);
    look(100);
    told(5000);
    assert_int_equal(sim.pace.window, 562500 * US);
    sim.now += 100 * S;
    ebb_pace_start(&sim.pace, sim.now);
    ebb_pace_start_source(&sim.pace, &sim.source, 0, sim.reported, sim.refaulted);
    assert_int_equal(sim.pace.window, 562500 * US);
    assert_int_equal(sim.pace.debt, 0);
    assert_int_equal(sim.pace.credit, S);
    assert_int_equal(quota(), 0);
    assert_false(ebb_pace_look(&sim.pace, sim.now + 140 * MS));
    /* Refaults of what another device was told of. */
    refault(14999);
    look(100);
    assert_int_equal(sim.pace.refaulted_soon, 10001);
    assert_int_equal(sim.pace.grown, 1);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(quota(), 0);
        look(100);
    }
    assert_int_equal(quota(), 100);
}

/* ---- no window ---- */

/* An engine that does not pace may keep one all the same: every look ends a slot of no length,
 * and what is unreported after five of them is surplus. */
static void test_no_window(void **state)
{
    const struct ebb_pace_config config = {.refault_ns = 1000};

    (void)state;
    begin(&config);
    assert_int_equal(ebb_pace_slot(&sim.pace), 0);
    assert_int_equal(ebb_pace_window_ticks(&sim.pace), 0);
    for (unsigned i = 0; i < 5; i++)
        look(100); /* at one time */
    assert_int_equal(quota(), 100);
    assert_true(ebb_pace_ripe(&sim.pace, 1, 1, 0));
    for (unsigned i = 0; i < 1000; i++) {
        told(1000000);
        refault(1000000);
        look_after(i % 3 * S, 100, 0);
        ebb_pace_isolated(&sim.pace, &sim.source, 100);
    }
    look_after(3600 * S, 100, 0);
    assert_int_equal(sim.pace.window, 0);
    assert_int_equal(sim.pace.grown + sim.pace.shrunk, 0);
    assert_int_equal(ebb_pace_clock(&sim.pace), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quota),
        cmocka_unit_test(test_look),
        cmocka_unit_test(test_end_slot),
        cmocka_unit_test(test_withdrawn),
        cmocka_unit_test(test_isolated),
        cmocka_unit_test(test_ripe),
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_refault_ns),
        cmocka_unit_test(test_credit),
        cmocka_unit_test(test_dear_refaults),
        cmocka_unit_test(test_long_enough),
        cmocka_unit_test(test_attribution),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_too_old),
        cmocka_unit_test(test_too_old_is_the_latest),
        cmocka_unit_test(test_many_groups),
        cmocka_unit_test(test_unmarked),
        cmocka_unit_test(test_unmarked_and_refaulted),
        cmocka_unit_test(test_unattributed),
        cmocka_unit_test(test_used_since),
        cmocka_unit_test(test_halving),
        cmocka_unit_test(test_nothing_to_save),
        cmocka_unit_test(test_late_looks),
        cmocka_unit_test(test_halving_must_pay),
        cmocka_unit_test(test_halving_of_much),
        cmocka_unit_test(test_refaults_speak_against),
        cmocka_unit_test(test_debt),
        cmocka_unit_test(test_forgetting),
        cmocka_unit_test(test_forgetting_a_short_one),
        cmocka_unit_test(test_refaults_after_rest),
        cmocka_unit_test(test_rest_of_the_first),
        cmocka_unit_test(test_generation),
        cmocka_unit_test(test_isolated_while_stale),
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_start_anew),
        cmocka_unit_test(test_no_window),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
