/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Poison on free and init on free (zone.h, enum ebb_fill), and which devices an
 * engine takes with such zones. The frames are really there: what is in them is
 * looked at.
 */
#include "loop/rng.h"
#include "zone_rig.h"

#include <ebb/range.h>
#include <ebb/report.h>

#define BASE      0x1000u
#define FRAMES    64u
#define MAX_ORDER 4u
#define WORDS     (EBB_FRAME_SIZE / 4)
#define STAMP     0x11223344u

static uint32_t memory[FRAMES * WORDS];

static struct {
    uint64_t filled, cleared, verified; /* frames */
    void (*on_fill)(ebb_pfn_t pfn, uint64_t frames);
} seen;

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
    assert_ptr_equal(ctx, &seen);
    assert_int_equal(port_virtual.locks_held, 0);
    assert_int_equal(value, zone->fill_value);
    if (seen.on_fill)
        seen.on_fill(pfn, frames);
    write_words(pfn, frames, value);
    seen.filled += frames;
}

static void clear_cb(void *ctx, ebb_pfn_t pfn, uint64_t frames)
{
    assert_ptr_equal(ctx, &seen);
    assert_int_equal(port_virtual.locks_held, 0);
    if (seen.on_fill && zone->fill_policy == EBB_FILL_ZERO)
        seen.on_fill(pfn, frames);
    write_words(pfn, frames, 0);
    seen.cleared += frames;
}

static bool verify_cb(void *ctx, ebb_pfn_t pfn, uint64_t frames, uint32_t value)
{
    assert_ptr_equal(ctx, &seen);
    assert_int_equal(port_virtual.locks_held, 0);
    assert_int_equal(value, zone->fill_value);
    seen.verified += frames;
    return holds(pfn, frames, value);
}

static struct ebb_zone_config config_of(enum ebb_fill policy)
{
    return (struct ebb_zone_config){
        .base = BASE,
        .frames = FRAMES,
        .max_order = MAX_ORDER,
        .pageblock_order = 3,
        .pcp_high = 8,
        .pcp_batch = 4,
        .fill_policy = (uint8_t)policy,
        .clear = clear_cb,
        .fill = fill_cb,
        .verify = verify_cb,
        .clear_ctx = &seen,
    };
}

static void make(enum ebb_fill policy)
{
    struct ebb_zone_config config = config_of(policy);

    memset(&seen, 0, sizeof(seen));
    memset(memory, 0x5a, sizeof(memory));
    rig_make(&config, true);
}

/* Every frame that is not with a caller holds the value. */
static void check_free_frames(void)
{
    for (ebb_pfn_t pfn = BASE; pfn < BASE + FRAMES; pfn++) {
        if (rig_lookup(pfn).state != EBB_BLOCK_ALLOCATED && !holds(pfn, 1, zone->fill_value))
            fail_msg("free pfn %#llx is not filled", (unsigned long long)pfn);
    }
}

/* Take it, use it. */
static ebb_pfn_t use(unsigned order, unsigned flags)
{
    ebb_pfn_t pfn = rig_alloc(order, EBB_MOVABLE, flags);

    write_words(pfn, (uint64_t)1 << order, STAMP);
    return pfn;
}

static void release(ebb_pfn_t pfn, unsigned order)
{
    assert_int_equal(ebb_free(zone, pfn, order), 0);
}

static void done(void)
{
    check_free_frames();
    rig_done();
}

static const enum ebb_fill policies[] = {EBB_FILL_POISON, EBB_FILL_ZERO};

/* ---- configurations ---- */

static void what_a_policy_needs(void **state)
{
    struct ebb_zone_config config = config_of(EBB_FILL_POISON);

    (void)state;
    assert_true(ebb_zone_metadata_size(&config) > 0);
    config.fill = NULL;
    assert_int_equal(ebb_zone_metadata_size(&config), 0);
    config.fill_policy = EBB_FILL_ZERO;
    assert_true(ebb_zone_metadata_size(&config) > 0);
    config.clear = NULL;
    assert_int_equal(ebb_zone_metadata_size(&config), 0);
    config.fill_policy = EBB_FILL_NONE;
    assert_true(ebb_zone_metadata_size(&config) > 0);
    config = config_of(EBB_FILL_ZERO + 1);
    assert_int_equal(ebb_zone_metadata_size(&config), 0);
}

static void values(void **state)
{
    struct ebb_zone_config config = config_of(EBB_FILL_POISON);

    (void)state;
    make(EBB_FILL_POISON);
    assert_int_equal(zone->fill_value, 0xaaaaaaaau);
    assert_true(holds(BASE, FRAMES, 0xaaaaaaaau));
    rig_done();

    config.poison_value = 0xdeadbeefu;
    memset(&seen, 0, sizeof(seen));
    rig_make(&config, true);
    assert_true(holds(BASE, FRAMES, 0xdeadbeefu));
    rig_done();

    config.fill_policy = EBB_FILL_ZERO; /* the value is another policy's */
    rig_make(&config, true);
    assert_true(holds(BASE, FRAMES, 0));
    rig_done();
}

/* Without a policy nobody touches anything. */
static void no_policy_no_calls(void **state)
{
    (void)state;
    make(EBB_FILL_NONE);
    for (unsigned order = 0; order <= MAX_ORDER; order++)
        release(use(order, 0), order);
    rig_misuse(BASE, MAX_ORDER + 1, EBB_MISUSE_WRONG_ORDER);
    assert_int_equal(seen.filled + seen.cleared + seen.verified, 0);
    rig_done();
}

/* ---- freeing ---- */

/* Once each, on every way to the free lists, and never else. */
static void every_free_fills_once(void **state)
{
    (void)state;
    for (unsigned p = 0; p < 2; p++) {
        ebb_pfn_t pfns[FRAMES];
        uint64_t freed = FRAMES; /* those added */

        make(policies[p]);
        for (unsigned order = 0; order <= MAX_ORDER; order++) {
            const unsigned n = FRAMES >> order;

            for (unsigned i = 0; i < n; i++)
                pfns[i] = use(order, i & 1 ? EBB_ALLOC_NO_CACHE : 0);
            assert_int_equal(seen.filled + seen.cleared, freed);
            for (unsigned i = 0; i < n; i++) {
                release(pfns[i], order);
                freed += (uint64_t)1 << order;
                assert_int_equal(seen.filled + seen.cleared, freed);
                check_free_frames();
            }
            rig_check();
            ebb_zone_drain(zone);
        }
        assert_int_equal(p == 0 ? seen.cleared : seen.filled, 0);
        assert_int_equal(rig_stats().frees, 64 + 32 + 16 + 8 + 4);

        /* Into an isolated pageblock: past the cache. */
        const ebb_pfn_t single = use(0, 0);

        assert_int_equal(ebb_isolate_range(zone, single & ~(ebb_pfn_t)7, 8), 0);
        release(single, 0);
        assert_true(holds(single, 1, zone->fill_value));
        assert_int_equal(rig_stats().cached, 0);
        assert_int_equal(ebb_putback_range(zone, single & ~(ebb_pfn_t)7, 8, EBB_MOVABLE), 0);
        done();
    }
}

static ebb_pfn_t victim;
static unsigned victim_order;
static unsigned tries;

/* While a block is being filled it is nobody's: not free, and not to be freed again. */
static void look_while_filling(ebb_pfn_t pfn, uint64_t frames)
{
    const struct ebb_block block = rig_lookup(pfn);
    ebb_pfn_t none;

    if (pfn != victim) /* of a free in here */
        return;
    tries++;
    assert_int_equal(frames, (uint64_t)1 << victim_order);
    assert_int_equal(block.state, EBB_BLOCK_ALLOCATED);
    assert_int_equal(block.pfn, pfn);
    assert_int_equal(block.order, victim_order);
    rig_misuse(pfn, victim_order, EBB_MISUSE_DOUBLE_FREE);
    rig_misuse(pfn + frames - 1, 0, EBB_MISUSE_DOUBLE_FREE);
    assert_int_equal(ebb_alloc_at(zone, pfn, 0, EBB_ALLOC_RESERVE), -EBB_EBUSY);
    assert_true(ebb_alloc(zone, MAX_ORDER, EBB_MOVABLE, 0, &none) == -EBB_ENOMEM);
    assert_int_equal(rig_stats().allocated, FRAMES);
    rig_check();
}

static void a_block_being_filled_is_out_of_reach(void **state)
{
    (void)state;
    for (unsigned p = 0; p < 2; p++) {
        for (victim_order = 0; victim_order <= MAX_ORDER; victim_order++) {
            ebb_pfn_t pfns[FRAMES];
            const unsigned n = FRAMES >> victim_order;

            make(policies[p]);
            for (unsigned i = 0; i < n; i++)
                pfns[i] = use(victim_order, 0);
            victim = pfns[n / 2];
            tries = 0;
            seen.on_fill = look_while_filling;
            release(victim, victim_order);
            seen.on_fill = NULL;
            assert_int_equal(tries, 1);
            for (unsigned i = 0; i < n; i++) {
                if (i != n / 2)
                    release(pfns[i], victim_order);
            }
            done();
        }
    }
}

/* Its pageblock is isolated while it is being filled. */
static void isolate_it(ebb_pfn_t pfn, uint64_t frames)
{
    (void)frames;
    assert_int_equal(ebb_isolate_range(zone, pfn & ~(ebb_pfn_t)7, 8), 0);
}

static void isolated_while_filling(void **state)
{
    (void)state;
    for (unsigned order = 0; order <= MAX_ORDER; order += MAX_ORDER) {
        make(EBB_FILL_POISON);
        const ebb_pfn_t pfn = use(order, 0);

        seen.on_fill = isolate_it;
        release(pfn, order);
        seen.on_fill = NULL;
        assert_int_equal(rig_stats().isolated, 8);
        assert_int_equal(rig_lookup(pfn).type, EBB_ISOLATE);
        rig_check();
        assert_int_equal(ebb_putback_range(zone, pfn & ~(ebb_pfn_t)7, 8, EBB_MOVABLE), 0);
        done();
    }
}

/* A refused free writes nothing, whatever is wrong with it. */
static void refused_frees_touch_nothing(void **state)
{
    (void)state;
    for (unsigned p = 0; p < 2; p++) {
        make(policies[p]);
        const ebb_pfn_t block = use(2, 0), cached = use(0, 0);

        release(cached, 0);
        const uint64_t before = seen.filled + seen.cleared;

        rig_misuse(cached, 0, EBB_MISUSE_DOUBLE_FREE);
        rig_misuse(block + 1, 0, EBB_MISUSE_INSIDE_BLOCK);
        rig_misuse(block, 0, EBB_MISUSE_WRONG_ORDER);
        rig_misuse(block, 1, EBB_MISUSE_WRONG_ORDER);
        rig_misuse(block + 1, 1, EBB_MISUSE_MISALIGNED);
        rig_misuse(block, MAX_ORDER + 1, EBB_MISUSE_WRONG_ORDER);
        rig_misuse(block, UINT32_MAX, EBB_MISUSE_WRONG_ORDER);
        rig_misuse(BASE - 1, 0, EBB_MISUSE_FOREIGN_PFN);
        rig_misuse(BASE + FRAMES, 0, EBB_MISUSE_FOREIGN_PFN);
        assert_true(holds(block, 4, STAMP));
        assert_int_equal(seen.filled + seen.cleared, before);
        release(block, 2);
        rig_misuse(block, 2, EBB_MISUSE_DOUBLE_FREE);
        assert_int_equal(seen.filled + seen.cleared, before + 4);
        assert_int_equal(rig_stats().misuses, 10);
        done();
    }
}

/* ---- adding ---- */

static void add_again(ebb_pfn_t pfn, uint64_t frames)
{
    ebb_pfn_t none;

    /* What was filled before is free; this and the rest are on their way. */
    tries++;
    assert_int_equal(rig_stats().managed, 40);
    assert_int_equal(rig_stats().free, pfn - BASE - 5);
    assert_int_equal(ebb_zone_add(zone, pfn, frames), -EBB_EEXIST);
    assert_int_equal(ebb_zone_add(zone, BASE + 44, 1), -EBB_EEXIST);
    if (rig_stats().free == 0)
        assert_int_equal(ebb_alloc(zone, 0, EBB_MOVABLE, 0, &none), -EBB_ENOMEM);
    rig_check();
}

static void adding_fills(void **state)
{
    struct ebb_zone_config config = config_of(EBB_FILL_POISON);

    (void)state;
    memset(&seen, 0, sizeof(seen));
    memset(memory, 0x5a, sizeof(memory));
    rig_make(&config, false);
    tries = 0;
    seen.on_fill = add_again;
    assert_int_equal(ebb_zone_add(zone, BASE + 5, 40), 0);
    seen.on_fill = NULL;
    assert_true(tries > 2);
    assert_int_equal(seen.filled, 40);
    assert_true(holds(BASE + 5, 40, EBB_POISON_VALUE));
    assert_true(holds(BASE, 5, 0x5a5a5a5au) && holds(BASE + 45, 19, 0x5a5a5a5au));
    assert_int_equal(rig_stats().free, 40);
    /* What is in use must not be filled by an add that fails. */
    const ebb_pfn_t pfn = use(0, 0);

    assert_int_equal(ebb_zone_add(zone, BASE, FRAMES), -EBB_EEXIST);
    assert_true(holds(pfn, 1, STAMP));
    assert_int_equal(seen.filled, 40);
    release(pfn, 0);
    rig_done();
}

static void added_filled_is_believed(void **state)
{
    struct ebb_zone_config config = config_of(EBB_FILL_ZERO);

    (void)state;
    config.added_filled = true;
    memset(&seen, 0, sizeof(seen));
    memset(memory, 0, sizeof(memory));
    rig_make(&config, true);
    assert_int_equal(seen.cleared, 0);
    release(use(2, EBB_ALLOC_ZERO), 2);
    assert_int_equal(seen.cleared, 4);
    assert_int_equal(port_virtual.misuses, 0);
    done();
}

/* ---- allocating ---- */

/* Written to while free: the port is told which frame, and the block is whole again. */
static void written_while_free(void **state)
{
    (void)state;
    for (unsigned p = 0; p < 2; p++) {
        for (unsigned i = 1; i < 8; i++) { /* each frame of orders 0 to 2 */
            const unsigned order = 31u - (unsigned)__builtin_clz(i);
            const ebb_pfn_t damaged = BASE + 8 + (i ^ 1u << order);
            unsigned before;

            make(policies[p]);
            release(use(order, 0), order);
            before = port_virtual.misuses;
            memory[(damaged - BASE + 1) * WORDS - 1] ^= 1;
            assert_int_equal(ebb_alloc_at(zone, BASE + 8, order, 0), 0);
            assert_int_equal(port_virtual.misuses, before + 1);
            assert_int_equal(port_virtual.misuse.kind, EBB_MISUSE_WRITE_AFTER_FREE);
            assert_int_equal(port_virtual.misuse.pfn, BASE + 8);
            assert_int_equal(port_virtual.misuse.order, order);
            assert_int_equal(port_virtual.misuse.found_pfn, damaged);
            assert_non_null(port_virtual.misuse.what);
            assert_int_equal(rig_stats().misuses, 1);
            assert_true(holds(BASE + 8, (uint64_t)1 << order, zone->fill_value));
            release(BASE + 8, order);
            done();
        }
    }
}

/* Also when it was in a cache; with EBB_ALLOC_ZERO what comes out is zero still. */
static void written_while_cached(void **state)
{
    (void)state;
    for (unsigned p = 0; p < 2; p++) {
        make(policies[p]);
        const ebb_pfn_t pfn = use(0, 0);

        release(pfn, 0);
        assert_int_equal(rig_lookup(pfn).state, EBB_BLOCK_CACHED);
        memory[(pfn - BASE) * WORDS] = 7;
        assert_int_equal(rig_alloc(0, EBB_MOVABLE, EBB_ALLOC_ZERO), pfn);
        assert_int_equal(port_virtual.misuses, 1);
        assert_int_equal(port_virtual.misuse.found_pfn, pfn);
        assert_true(holds(pfn, 1, 0));
        release(pfn, 0);
        done();
    }
}

static void zero_costs_nothing_after_init_on_free(void **state)
{
    (void)state;
    make(EBB_FILL_ZERO);
    const uint64_t before = seen.cleared;
    const ebb_pfn_t pfn = rig_alloc(2, EBB_MOVABLE, EBB_ALLOC_ZERO);

    assert_int_equal(ebb_alloc_at(zone, BASE + 32, 3, EBB_ALLOC_ZERO), 0);
    assert_int_equal(seen.cleared, before);
    assert_true(holds(pfn, 4, 0) && holds(BASE + 32, 8, 0));
    release(pfn, 2);
    release(BASE + 32, 3);
    done();

    /* Poison is no zero. */
    make(EBB_FILL_POISON);
    const ebb_pfn_t poisoned = rig_alloc(2, EBB_MOVABLE, EBB_ALLOC_ZERO);

    assert_int_equal(seen.cleared, 4);
    assert_true(holds(poisoned, 4, 0));
    release(poisoned, 2);
    done();
}

static void verify_is_optional(void **state)
{
    struct ebb_zone_config config = config_of(EBB_FILL_POISON);

    (void)state;
    config.verify = NULL;
    memset(&seen, 0, sizeof(seen));
    rig_make(&config, true);
    const ebb_pfn_t pfn = use(0, 0);

    release(pfn, 0);
    memory[(pfn - BASE) * WORDS] = 7;
    assert_int_equal(rig_alloc(0, EBB_MOVABLE, 0), pfn);
    assert_int_equal(port_virtual.misuses, 0);
    release(pfn, 0);
    done();
}

/* ---- at random ---- */

/* Frees and allocations, half of the frees wrong: no frame in use is ever
 * overwritten, every free one is filled, and nothing is found damaged. */
static void churn(void **state)
{
    (void)state;
    for (uint64_t run = 0; run < 60; run++) {
        const uint64_t seed = rng_seed(run);
        struct rng rng = {seed};
        ebb_pfn_t held[FRAMES];
        unsigned orders[FRAMES], n = 0, found = 0;

        make(policies[run & 1]);
        for (unsigned step = 0; step < 300; step++) {
            const unsigned order = rng_below(&rng, MAX_ORDER + 1);
            const unsigned what = rng_below(&rng, 100);
            ebb_pfn_t pfn = BASE + rng_below(&rng, FRAMES);

            if (what < 45) {
                const unsigned flags = rng_below(&rng, 4) ? 0 : EBB_ALLOC_ZERO;

                if (ebb_alloc(zone, order, rng_below(&rng, 3), flags, &pfn) != 0)
                    continue;
                if (!holds(pfn, (uint64_t)1 << order, flags ? 0 : zone->fill_value))
                    fail_msg("EBB_SEED=%llu: step %u: not filled", (unsigned long long)seed, step);
                write_words(pfn, (uint64_t)1 << order, STAMP + (uint32_t)pfn);
                held[n] = pfn;
                orders[n++] = order;
            } else if (what < 85 && n > 0) {
                const unsigned i = rng_below(&rng, n);

                found += !holds(held[i], (uint64_t)1 << orders[i], STAMP + (uint32_t)held[i]);
                release(held[i], orders[i]);
                held[i] = held[--n];
                orders[i] = orders[n];
            } else if (what < 95) {
                bool mine = false;

                for (unsigned i = 0; i < n; i++)
                    mine |= held[i] == pfn && orders[i] == order;
                if (!mine)
                    assert_int_equal(ebb_free(zone, pfn, order), -EBB_EINVAL);
            } else if (what < 98) {
                const struct ebb_block block = rig_lookup(pfn);

                if (block.state == EBB_BLOCK_FREE && block.type != EBB_ISOLATE)
                    rig_report(block.pfn);
            } else {
                ebb_zone_drain(zone);
            }
            if (port_virtual.misuses > 0 && port_virtual.misuse.kind == EBB_MISUSE_WRITE_AFTER_FREE)
                fail_msg("EBB_SEED=%llu: step %u: damaged", (unsigned long long)seed, step);
        }
        while (n > 0) {
            n--;
            found += !holds(held[n], (uint64_t)1 << orders[n], STAMP + (uint32_t)held[n]);
            release(held[n], orders[n]);
        }
        if (found > 0)
            fail_msg("EBB_SEED=%llu: frames in use were overwritten", (unsigned long long)seed);
        done();
    }
}

/* ---- which devices are taken ---- */

/* What the device under test does to the frames it is told of. */
static enum act { KEEP, PUNCH, OBEY, SCRIBBLE } act;
static struct ebb_report engine;

static int submit(struct ebb_report_device *device, const struct ebb_range *ranges, unsigned n)
{
    for (unsigned i = 0; i < n && act != KEEP; i++)
        write_words(ranges[i].addr >> EBB_FRAME_SHIFT, ranges[i].len >> EBB_FRAME_SHIFT,
                    act == PUNCH  ? 0
                    : act == OBEY ? device->value
                                  : STAMP);
    ebb_report_complete(&engine, 0);
    return 0;
}

static const struct ebb_report_device_ops ops = {.submit = submit};

static void start_engine(void)
{
    const struct ebb_report_config config = {.order = EBB_REPORT_ORDER(0)};

    assert_int_equal(ebb_report_init(&engine, &config), 0);
    assert_int_equal(ebb_report_add_zone(&engine, zone), 0);
}

static void report_everything(void)
{
    for (unsigned i = 0; i < 100 && ebb_report_phase(&engine) != EBB_REPORT_IDLE; i++) {
        port_virtual.now += 1000000000;
        (void)ebb_report_run(&engine);
    }
    assert_int_equal(rig_stats().reported, FRAMES);
}

static void content_and_zones(void **state)
{
    static const struct {
        enum ebb_fill policy;
        uint8_t content;
        uint32_t value;
        int err;
    } cases[] = {
        {EBB_FILL_NONE, EBB_CONTENT_ANY, 0, 0},
        {EBB_FILL_NONE, EBB_CONTENT_KEPT_OR_VALUE, 0, 0},
        {EBB_FILL_NONE, EBB_CONTENT_KEPT_OR_VALUE, 5, 0},
        {EBB_FILL_POISON, EBB_CONTENT_ANY, 0, -EBB_EOPNOTSUPP},
        {EBB_FILL_POISON, EBB_CONTENT_ANY, EBB_POISON_VALUE, -EBB_EOPNOTSUPP},
        {EBB_FILL_POISON, EBB_CONTENT_KEPT_OR_VALUE, 0, -EBB_EOPNOTSUPP},
        {EBB_FILL_POISON, EBB_CONTENT_KEPT_OR_VALUE, EBB_POISON_VALUE + 1, -EBB_EOPNOTSUPP},
        {EBB_FILL_POISON, EBB_CONTENT_KEPT_OR_VALUE, EBB_POISON_VALUE, 0},
        {EBB_FILL_ZERO, EBB_CONTENT_ANY, 0, -EBB_EOPNOTSUPP},
        {EBB_FILL_ZERO, EBB_CONTENT_KEPT_OR_VALUE, EBB_POISON_VALUE, -EBB_EOPNOTSUPP},
        {EBB_FILL_ZERO, EBB_CONTENT_KEPT_OR_VALUE, 0, 0},
        /* What is no declaration declares nothing. */
        {EBB_FILL_ZERO, EBB_CONTENT_VALUE, 0, 0},
        {EBB_FILL_ZERO, EBB_CONTENT_VALUE, 1, -EBB_EOPNOTSUPP},
        {EBB_FILL_ZERO, EBB_CONTENT_VALUE + 1, 0, -EBB_EOPNOTSUPP},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ebb_report_device device = {
            .ops = &ops, .capacity = 8, .content = cases[i].content, .value = cases[i].value};

        make(cases[i].policy);
        act = KEEP;
        start_engine();
        assert_int_equal(ebb_report_register(&engine, &device), cases[i].err);
        if (cases[i].err) {
            /* It was not taken: there is room for another, and nothing is told. */
            assert_int_equal(ebb_report_unregister(&engine), -EBB_ENODEV);
            device.content = EBB_CONTENT_KEPT_OR_VALUE;
            device.value = zone->fill_value;
            assert_int_equal(rig_stats().reported, 0);
            assert_int_equal(ebb_report_register(&engine, &device), 0);
        }
        report_everything();
        assert_int_equal(ebb_report_unregister(&engine), 0);
        if (cases[i].policy != EBB_FILL_NONE)
            done();
        else
            rig_done();
    }
}

/* One zone of two is enough to refuse. */
static void all_zones_are_asked(void **state)
{
    const struct ebb_zone_config config = {.base = 0x9000, .frames = 64, .max_order = 4};
    struct ebb_report_device device = {.ops = &ops, .capacity = 8};
    const size_t size = (ebb_zone_metadata_size(&config) + 63) & ~(size_t)63;
    struct ebb_zone plain;
    void *metadata = aligned_alloc(64, size);

    (void)state;
    for (unsigned first = 0; first < 2; first++) {
        assert_non_null(metadata);
        memset(metadata, 0, size);
        memset(&plain, 0, sizeof(plain));
        make(EBB_FILL_POISON);
        assert_int_equal(ebb_zone_init(&plain, &config, metadata), 0);
        assert_int_equal(ebb_report_init(&engine, &(struct ebb_report_config){0}), 0);
        assert_int_equal(ebb_report_add_zone(&engine, first ? zone : &plain), 0);
        assert_int_equal(ebb_report_add_zone(&engine, first ? &plain : zone), 0);
        assert_int_equal(ebb_report_register(&engine, &device), -EBB_EOPNOTSUPP);
        done();
    }
    free(metadata);
}

/* F56: what was reported and is allocated again holds what the zone promises, with
 * every device that keeps its word; one that does not is found out. */
static void reported_then_allocated(void **state)
{
    static const struct {
        enum ebb_fill policy;
        enum act act;
        bool honest;
    } cases[] = {
        {EBB_FILL_POISON, KEEP, true},   {EBB_FILL_POISON, OBEY, true},
        {EBB_FILL_POISON, PUNCH, false}, {EBB_FILL_POISON, SCRIBBLE, false},
        {EBB_FILL_ZERO, KEEP, true},     {EBB_FILL_ZERO, OBEY, true},
        {EBB_FILL_ZERO, PUNCH, true},    {EBB_FILL_ZERO, SCRIBBLE, false},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ebb_report_device device = {
            .ops = &ops, .capacity = 8, .content = EBB_CONTENT_KEPT_OR_VALUE};
        ebb_pfn_t pfns[4];

        make(cases[i].policy);
        act = cases[i].act;
        device.value = zone->fill_value;
        start_engine();
        assert_int_equal(ebb_report_register(&engine, &device), 0);
        for (unsigned round = 0; round < 2; round++) {
            const unsigned before = port_virtual.misuses;

            report_everything();
            for (unsigned k = 0; k < 4; k++) {
                pfns[k] = rig_alloc(MAX_ORDER, EBB_MOVABLE, 0);
                assert_true(holds(pfns[k], 16, zone->fill_value));
                write_words(pfns[k], 16, STAMP);
            }
            assert_int_equal(port_virtual.misuses - before, cases[i].honest ? 0 : 4);
            for (unsigned k = 0; k < 4; k++)
                release(pfns[k], MAX_ORDER);
        }
        assert_int_equal(ebb_report_unregister(&engine), 0);
        done();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_policy_needs),
        cmocka_unit_test(values),
        cmocka_unit_test(no_policy_no_calls),
        cmocka_unit_test(every_free_fills_once),
        cmocka_unit_test(a_block_being_filled_is_out_of_reach),
        cmocka_unit_test(isolated_while_filling),
        cmocka_unit_test(refused_frees_touch_nothing),
        cmocka_unit_test(adding_fills),
        cmocka_unit_test(added_filled_is_believed),
        cmocka_unit_test(written_while_free),
        cmocka_unit_test(written_while_cached),
        cmocka_unit_test(zero_costs_nothing_after_init_on_free),
        cmocka_unit_test(verify_is_optional),
        cmocka_unit_test(churn),
        cmocka_unit_test(content_and_zones),
        cmocka_unit_test(all_zones_are_asked),
        cmocka_unit_test(reported_then_allocated),
    };

    rng_watch();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
