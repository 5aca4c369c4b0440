/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random use of a zone while it is reported. What other CPUs do comes wherever linux/zone.c and
 * linux/scan.c drop zone->lock, and while the device has a batch. All along the device writes over
 * what it is told of, and no allocated frame may change. Now and then all comes to rest: then the
 * host knows of all that is free, and the source of each mark.
 *
 *   EBB_SEED=seed    replays the run of that seed, alone
 *   EBB_PROP_RUNS=n  runs, each with a seed of its own
 */
#include "rig.h"

#include "port_virtual.h"
#include "prop.h"

#include <stdio.h>

#ifdef EBB_TEST_SLOW
#define DEFAULT_RUNS 20u
#else
#define DEFAULT_RUNS 100u
#endif
#define STEPS 1500u
#define RESTS 3u

static struct {
    uint64_t random;
    unsigned blocks;  /* of the largest order */
    unsigned order;   /* that is reported */
    unsigned largest; /* order that is allocated */
    unsigned fill;    /* percent of the time that memory becomes more used */
    unsigned beside;  /* percent of the windows that another CPU uses */
} run;

static uint64_t below(uint64_t n)
{
    return prop_below(&run.random, n);
}

static bool percent(unsigned n)
{
    return below(100) < n;
}

static void use(void)
{
    port_virtual.cpu = (unsigned)below(MODEL_CPUS);
    if (rig.n_blocks > 0 && !percent(run.fill))
        rig_free((unsigned)below(rig.n_blocks));
    else
        (void)rig_alloc((unsigned)below(run.largest + 1), (unsigned)below(MIGRATE_PCPTYPES));
}

/* What another CPU may do at any time: also with a batch under way. */
static void beside(void)
{
    while (percent(run.beside)) {
        if (below(8) == 0)
            ebb_zone_sample(rig.ez);
        else if (below(8) == 0)
            ebb_drain_zone(&model.zone);
        else
            use();
    }
}

static void resize(void)
{
    const unsigned long pfn = RIG_BASE + below(run.blocks) * MAX_ORDER_FRAMES;

    if (!model_offline(pfn) && !model_online(pfn))
        return;
    rig_resize();
}

static void step(void)
{
    switch (below(64)) {
    case 0:
        run.fill = (unsigned)below(101);
        break;
    case 1:
        run.beside = (unsigned)below(4) * 20;
        break;
    case 2:
        rig.refuses = below(16) == 0;
        rig.status = below(16) == 0 ? -EBB_EIO : 0;
        break;
    case 3:
        if (below(8) == 0)
            resize();
        break;
    case 4:
        if (below(8) == 0)
            rig_now();
        break;
    case 5:
        ebb_drain_zone(&model.zone);
        break;
    case 6:
        rig_sample();
        break;
    case 7:
        if (below(16) == 0)
            rig_free_all();
        break;
    case 8:
        (void)rig_check();
        break;
    case 9:
    case 10:
    case 11:
    case 12:
        rig_pass_time(below(200) * MS);
        break;
    default:
        for (uint64_t n = below(8); n > 0; n--)
            use();
    }
}

/* The watermark keeps a block, if it is more than half of what is above it. */
static bool may_keep(const struct truth *truth)
{
    return truth->free < RIG_LOW + 2 * MAX_ORDER_FRAMES;
}

static void rest(void)
{
    struct truth truth;

    run.beside = 0;
    rig.refuses = false;
    rig.status = 0;
    while (rig.n_blocks > 0 && model_check().free < RIG_LOW + 4 * MAX_ORDER_FRAMES)
        rig_free(rig.n_blocks - 1);
    rig_rest();
    truth = rig_check();
    if (may_keep(&truth))
        return;
    /* Lists in no order: until that was seen once, a block that lost its mark may hide in one. */
    if (model.config.shuffle && !rig.ez->unordered)
        return;
    /* At rest a round looks no further if as many blocks came as went of each order. */
    for (unsigned i = pageblock_order; i < NR_PAGE_ORDERS; i++)
        MODEL_CHECK(truth.untold[i] == 0);
    rig_now();
    rig_rest();
    truth = rig_check();
    for (unsigned i = run.order; i < NR_PAGE_ORDERS; i++)
        MODEL_CHECK(truth.untold[i] == 0);
    MODEL_CHECK(truth.unmarked == 0);
    MODEL_CHECK(rig.ez->reported == truth.reported);
    MODEL_CHECK(model.held == 0);
}

static void run_seed(uint64_t seed)
{
    struct model_config config;

    run.random = seed;
    run.blocks = 8 + (unsigned)below(24);
    run.order = percent(50) ? 0 : (unsigned)below(pageblock_order + 1);
    run.largest = percent(50) ? NR_PAGE_ORDERS - 1 : (unsigned)below(NR_PAGE_ORDERS);
    run.fill = 60;
    run.beside = 0;
    config = rig_config(run.blocks);
    config.shuffle = percent(25);
    config.seed = seed;
    rig_create(&config, run.order);
    rig.device.capacity = 1 + (unsigned)below(EBB_REPORT_CAPACITY);
    rig_resize(); /* registers it anew */
    rig.in_flight = beside;
    model.on_unlock = beside;
    for (unsigned i = 0; i < RESTS; i++) {
        for (unsigned j = 0; j < STEPS; j++)
            step();
        rest();
    }
    rig_destroy();
}

int main(void)
{
    const char *seed = getenv("EBB_SEED"), *runs = getenv("EBB_PROP_RUNS");
    const uint64_t n = runs ? strtoull(runs, NULL, 0) : DEFAULT_RUNS;
    uint64_t told = 0, twice = 0;

    if (seed) {
        run_seed(strtoull(seed, NULL, 0));
        return 0;
    }
    for (uint64_t i = 1; i <= n; i++) {
        run_seed(i);
        told += rig.told;
        twice += rig.twice;
    }
    printf("%llu runs: %llu frames told, %llu of them again\n", (unsigned long long)n,
           (unsigned long long)told, (unsigned long long)twice);
    return 0;
}
