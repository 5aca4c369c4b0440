/* SPDX-License-Identifier: BSD-2-Clause */
/* linux/zone.c and linux/scan.c, one behaviour at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rig.h"

#include "port_virtual.h"

#include <stdlib.h>
#include <string.h>

#define S (1000 * MS)

/* Frames that one hold of the lock may look at: those of a batch that is given back, each with its
 * buddies; a pageblock. */
#define HOLD_LIMIT (EBB_TAKE_LOOKS * NR_PAGE_ORDERS)

static void make(unsigned blocks, unsigned order)
{
    const struct model_config config = rig_config(blocks);

    rig_create(&config, order);
}

static void assert_told(unsigned order)
{
    const struct truth truth = rig_check();

    for (unsigned i = order; i < NR_PAGE_ORDERS; i++)
        assert_int_equal(truth.untold[i], 0);
    assert_in_range(model.most_looks, 0, HOLD_LIMIT);
}

/* The host was told of all, and after another look the source knows which blocks have a mark. */
static void assert_all_told(unsigned order)
{
    struct truth truth;

    assert_told(order);
    rig_now();
    rig_rest();
    assert_told(order);
    truth = rig_check();
    assert_int_equal(truth.unmarked, 0);
    assert_int_equal(rig.ez->reported, truth.reported + truth.beyond);
}

/* One block in three stays in use. */
static void fragment(unsigned order)
{
    rig_alloc_all(order);
    for (unsigned i = rig.n_blocks; i-- > 0;) {
        if ((rig.blocks[i].pfn >> order) % 3 > 0)
            rig_free(i);
    }
}

/* ---- rest ---- */

static void test_begins(void **state)
{
    (void)state;
    make(16, 0);
    rig_rest();
    assert_all_told(0);
    assert_int_equal(rig.told, model.config.frames);
    assert_int_equal(rig.ez->refaulted, 0);
    assert_int_equal(rig.ez->marks_lost, 0);
}

static void test_rests_after_use(void **state)
{
    (void)state;
    make(16, 0);
    rig_rest();
    for (unsigned order = 0; order < NR_PAGE_ORDERS; order++) {
        fragment(order);
        rig_rest();
        assert_all_told(0);
        rig_free_all();
        rig_rest();
        assert_all_told(0);
    }
}

static void test_once(void **state)
{
    uint64_t told;

    (void)state;
    make(16, 0);
    fragment(3);
    rig_now();
    rig_rest();
    told = rig.told;
    for (unsigned i = 0; i < 4; i++)
        rig_now();
    rig_pass_time(100 * S);
    assert_int_equal(rig.told, told);
    assert_all_told(0);
}

static void test_not_before_its_time(void **state)
{
    uint64_t told;

    (void)state;
    make(16, 0);
    rig_rest();
    rig_alloc_all(NR_PAGE_ORDERS - 1);
    rig_pass_time(10 * S);
    told = rig.told;
    rig_free_all();
    rig_pass_time(EBB_REPORT_WINDOW_MIN_MS * MS / 2);
    assert_int_equal(rig.told, told);
    rig_rest();
    assert_all_told(0);
}

/* ---- marks ---- */

static struct page *hold(unsigned long pfn, unsigned order)
{
    struct page *page = pfn_to_page(pfn);
    unsigned long flags;

    spin_lock_irqsave(&model.zone.lock, flags);
    assert_int_equal(ebb_isolate_free_page(page, order), 1 << order);
    spin_unlock_irqrestore(&model.zone.lock, flags);
    return page;
}

static void put_back(struct page *page, unsigned order, bool reported)
{
    unsigned long flags;

    spin_lock_irqsave(&model.zone.lock, flags);
    for (unsigned long i = 0; i < 1UL << order; i++)
        model_frame(page_to_pfn(page) + i)->told |= reported;
    ebb_zone_put_back(rig.ez, page, order, reported);
    spin_unlock_irqrestore(&model.zone.lock, flags);
}

static void free_range(unsigned long pfn, unsigned order)
{
    for (unsigned i = rig.n_blocks; i-- > 0;) {
        if (rig.blocks[i].pfn >> order == pfn >> order)
            rig_free(i);
    }
}

enum { BUDDY_USED, BUDDY_FREE, BUDDY_MARKED, BUDDY_STATES };

/* Put a block of order 7 back beside buddies of orders 7, 8 and 9. */
static void put_back_beside(const unsigned buddies[3], bool reported)
{
    const unsigned long at = RIG_BASE;
    bool marked = reported;
    unsigned end_order = 7;
    struct page *page;

    make(16, 0);
    rig_alloc_all(7);
    free_range(at + 4 * MAX_ORDER_FRAMES, 12); /* lest the watermark be in the way */
    free_range(at, 7);
    page = hold(at, 7);
    for (unsigned i = 0; i < 3; i++) {
        const unsigned order = 7 + i;
        const unsigned long buddy = at + (1UL << order);

        if (buddies[i] == BUDDY_USED)
            continue;
        free_range(buddy, order);
        if (buddies[i] == BUDDY_MARKED)
            put_back(hold(buddy, order), order, true);
        assert_int_equal(model_is_marked(buddy), buddies[i] == BUDDY_MARKED);
    }
    put_back(page, 7, reported);
    while (end_order < 10 && buddies[end_order - 7] != BUDDY_USED)
        marked &= buddies[end_order++ - 7] == BUDDY_MARKED;
    assert_int_equal(page_private(page), end_order);
    assert_int_equal(model_is_marked(at), marked);
    assert_int_equal(rig.ez->reported, rig_check().reported);
}

static void test_put_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2 * BUDDY_STATES * BUDDY_STATES * BUDDY_STATES; i++) {
        const unsigned buddies[] = {i / 2 % 3, i / 6 % 3, i / 18 % 3};

        if (i > 0)
            rig_destroy();
        put_back_beside(buddies, i % 2);
    }
}

/* A reported block is split, and what is left of it has no mark. No sum tells of that. */
static void test_split(void **state)
{
    (void)state;
    make(16, 0);
    for (unsigned i = 1; i <= 4; i++) {
        rig_rest();
        assert_all_told(0);
        assert_true(rig_alloc(pageblock_order, MIGRATE_UNMOVABLE));
        assert_true(rig_alloc(0, MIGRATE_RECLAIMABLE));
    }
    rig_rest();
    assert_all_told(0);
    assert_true(rig.ez->marks_lost >= pageblock_nr_pages);
}

/* A reported block merges with one that is not. */
static void test_merge(void **state)
{
    (void)state;
    make(16, 0);
    rig_alloc_all(pageblock_order);
    for (unsigned i = rig.n_blocks; i-- > 0;) {
        if (rig.blocks[i].pfn >> pageblock_order & 1)
            rig_free(i);
    }
    rig_rest();
    assert_all_told(0);
    for (unsigned n = 1; rig.n_blocks > 0; n++) {
        rig_free(rig.n_blocks - 1);
        if (n % 3 == 0)
            rig_rest();
    }
    rig_rest();
    assert_all_told(0);
    assert_int_equal(rig.ez->refaulted, 0);
}

/* What was reported and is used counts once. */
static void test_refaults(void **state)
{
    (void)state;
    make(16, 0);
    rig_rest();
    for (unsigned i = 1; i <= 4; i++) {
        assert_true(rig_alloc(NR_PAGE_ORDERS - 1, MIGRATE_UNMOVABLE));
        rig_sample();
        assert_int_equal(rig.ez->refaulted, i * MAX_ORDER_FRAMES);
        rig_sample();
        assert_int_equal(rig.ez->refaulted, i * MAX_ORDER_FRAMES);
    }
    rig_free_all();
    rig_rest();
    /* Used and freed between two samples: the first free notes it, less the block itself. */
    for (unsigned i = 0; i < 3; i++)
        assert_true(rig_alloc(NR_PAGE_ORDERS - 1, MIGRATE_UNMOVABLE));
    rig_free_all();
    rig_sample();
    assert_int_equal(rig.ez->refaulted, 6 * MAX_ORDER_FRAMES);
    rig_rest();
    assert_all_told(0);
    assert_int_equal(rig.ez->refaulted, 6 * MAX_ORDER_FRAMES);
}

/* ---- a pass, step by step ---- */

static struct ebb_pass pass;

static void open_pass(uint64_t quota, unsigned capacity)
{
    memset(&pass, 0, sizeof(pass));
    pass.pace = &rig.report.pace;
    pass.capacity = capacity;
    pass.large_order = pageblock_order;
    assert_true(rig.ez->source.ops->open(&rig.ez->source, &pass));
    pass.quota = quota;
}

/* Fill a batch. Returns whether there may be more. */
static bool fill(void)
{
    bool more = true;

    pass.room = UINT64_MAX;
    while (more && ebb_pass_has_room(&pass)) {
        model.most_looks = 0;
        more = rig.ez->source.ops->take(&rig.ez->source, &pass);
        assert_in_range(model.most_looks, 0, EBB_TAKE_LOOKS);
    }
    return more;
}

static void give_back(bool reported)
{
    for (unsigned i = 0; i < pass.n_blocks; i++)
        put_back(pfn_to_page((unsigned long)pass.blocks[i].pfn), pass.blocks[i].order, reported);
    pass.n_blocks = pass.n_ranges = 0;
}

/* Also after a test that failed in the middle of one. */
static int end(void **state)
{
    (void)state;
    give_back(false);
    rig_destroy();
    return 0;
}

static void test_quota(void **state)
{
    static const uint64_t quotas[] = {0, 1, 511, 512, 1023, 1024, 1536, 4000, 8191, 100000};

    (void)state;
    make(16, pageblock_order);
    fragment(pageblock_order);
    for (unsigned i = 0; i < sizeof(quotas) / sizeof(quotas[0]); i++) {
        const unsigned long before = model_check().unmarked;

        open_pass(quotas[i], 64);
        while (fill())
            give_back(true);
        give_back(true);
        assert_true(pass.taken <= quotas[i]);
        /* All of it, but for a rest that is less than a block. */
        assert_true(pass.taken == before || quotas[i] - pass.taken < MAX_ORDER_FRAMES);
        (void)rig.ez->source.ops->close(&rig.ez->source);
        assert_int_equal(before - model_check().unmarked, pass.taken);
    }
}

/* The first to go is what was freed first: at the end of a list. */
static void test_coldest_first(void **state)
{
    unsigned long freed[8];

    (void)state;
    make(16, 0);
    rig_rest();
    for (unsigned i = 0; i < 8; i++)
        assert_true(rig_alloc(NR_PAGE_ORDERS - 1, MIGRATE_UNMOVABLE));
    for (unsigned i = 0; i < 8; i++) {
        freed[i] = rig.blocks[0].pfn;
        rig_free(0);
    }
    open_pass(UINT64_MAX, 3);
    for (unsigned i = 0; i < 8; i++) {
        if (pass.n_blocks == 0)
            fill();
        assert_int_equal(pass.blocks[i % 3].pfn, freed[i]);
        if (i % 3 == 2)
            give_back(true);
    }
    give_back(true);
}

/* A long list, all of it reported: no hold goes over all of it. */
static void test_bounded_holds(void **state)
{
    (void)state;
    make(200, 0);
    rig_rest();
    rig_alloc_all(pageblock_order);
    for (unsigned i = rig.n_blocks; i-- > 0;) {
        if (i % 8 == 0)
            rig_free(i);
    }
    open_pass(UINT64_MAX, 32);
    while (fill())
        give_back(true);
    give_back(true);
    rig_rest();
    assert_all_told(0);
}

/* ---- watermark ---- */

static void check_low(void)
{
    assert_true(zone_page_state(&model.zone, NR_FREE_PAGES) >= RIG_LOW);
}

static void test_watermark(void **state)
{
    (void)state;
    make(16, 0);
    rig.in_flight = check_low;
    rig_alloc_all(0);
    while (rig.n_blocks > 0) {
        for (unsigned i = 0; i < 300 && rig.n_blocks > 0; i++)
            rig_free((unsigned)model_below(rig.n_blocks));
        rig_now();
        rig_pass_time(200 * MS);
    }
    rig_rest();
    assert_all_told(0);
}

/* ---- small blocks ---- */

static void test_orders(void **state)
{
    (void)state;
    for (unsigned order = 0; order <= pageblock_order; order++) {
        uint64_t small;

        if (order > 0)
            rig_destroy();
        make(16, order);
        rig_rest();
        for (unsigned i = order; i-- > 0;) {
            fragment(i);
            rig_rest();
            assert_all_told(order);
            small = 0;
            for (unsigned j = 0; j < order; j++)
                small += rig_check().untold[j];
            assert_true(small > 0);
            rig_free_all();
        }
    }
}

/* Whoever wants no pageblocks gets none. */
static void test_order_above(void **state)
{
    (void)state;
    make(16, pageblock_order + 1);
    fragment(pageblock_order);
    rig_now();
    rig_pass_time(100 * S);
    assert_int_equal(rig.told, 0);
}

/* Not while they come and go, and not before they are ripe. */
static void test_ripens(void **state)
{
    uint64_t told;

    (void)state;
    make(16, 0);
    rig_rest();
    rig_alloc_all(4);
    rig_pass_time(10 * S);
    told = rig.told;
    for (unsigned i = rig.n_blocks; i-- > 0;) {
        if (rig.blocks[i].pfn >> 4 & 1)
            rig_free(i);
    }
    rig_pass_time(300 * MS);
    assert_int_equal(rig.told, told);
    for (unsigned i = 0; i < 200; i++) {
        const unsigned n = rig.n_blocks;

        assert_true(rig_alloc(4, MIGRATE_MOVABLE));
        rig_free(n);
        rig_pass_time(10 * MS);
    }
    rig_rest();
    assert_int_equal(rig.told, told + model.config.frames / 2);
    assert_all_told(0);
}

/* Pageblocks that are one block in use have nothing to look into. */
static void test_compound(void **state)
{
    (void)state;
    make(16, 0);
    rig_alloc_all(pageblock_order);
    for (unsigned i = 0; i < rig.n_blocks; i++)
        model_make_compound(rig.blocks[i].pfn, pageblock_order);
    rig_rest();
    assert_all_told(0);
    rig_free_all();
    rig_rest();
    assert_all_told(0);
}

/* Looking takes one part in a hundred of the time. */
static void test_scan_share(void **state)
{
    uint64_t begun, spent;

    (void)state;
    make(64, 0);
    fragment(0);
    rig.clock_step = MS / 2; /* a look at 16 pageblocks takes so long at least */
    begun = port_virtual.now;
    spent = rig.ez->scanned_ns;
    rig_pass_time(200 * S);
    spent = rig.ez->scanned_ns - spent;
    assert_true(spent > 0);
    assert_true(spent <= (port_virtual.now - begun) / 100 + 100 * MS);
}

/* ---- lists of CPUs ---- */

static void test_drain(void **state)
{
    (void)state;
    make(16, 0);
    rig_rest();
    for (unsigned i = 0; i < 2000; i++)
        assert_true(rig_alloc(0, MIGRATE_MOVABLE));
    rig.drains = 0;
    for (unsigned i = 0; i < 200; i++) { /* in use */
        rig_free(rig.n_blocks - 1);
        rig_free(rig.n_blocks - 1);
        if (i % 3)
            assert_true(rig_alloc(0, MIGRATE_MOVABLE));
        rig_pass_time(10 * MS);
        assert_int_equal(rig.drains, 0);
    }
    rig_free_all();
    rig_rest();
    assert_true(ebb_zone_cached(rig.ez) < SZ_1M >> PAGE_SHIFT);
    assert_all_told(0);
    rig_now();
    assert_int_equal(ebb_zone_cached(rig.ez), 0);
}

/* ---- lists in another order ---- */

static void test_shuffle(void **state)
{
    struct model_config config = rig_config(64);

    (void)state;
    config.shuffle = true;
    rig_create(&config, 0);
    rig_rest();
    assert_all_told(0);
    for (unsigned i = 0; i < 100; i++) {
        for (unsigned j = 0; j < 100; j++)
            (void)rig_alloc((unsigned)model_below(NR_PAGE_ORDERS), MIGRATE_MOVABLE);
        for (unsigned j = 0; j < 90 && rig.n_blocks > 0; j++) {
            rig_free((unsigned)model_below(rig.n_blocks));
            if (j % 16 == 0)
                rig_pass_time(model_below(300) * MS);
        }
        if (i % 8 == 0)
            rig_free_all();
        rig_rest();
        assert_all_told(0);
    }
}

/* Memory that came is at the end of a list, behind all that is reported. */
static void test_behind_reported(void **state)
{
    const unsigned long added = RIG_BASE + 7 * MAX_ORDER_FRAMES;

    (void)state;
    make(1100, pageblock_order);
    assert_true(model_offline(added));
    rig_rest();
    assert_all_told(pageblock_order);
    assert_true(model_online(added));
    rig_resize();
    rig_rest();
    assert_all_told(pageblock_order);
}

/* What the kernel reserves is free all the same; what is isolated keeps nobody awake. */
static void test_other_types(void **state)
{
    const unsigned types[] = {MIGRATE_HIGHATOMIC, MIGRATE_ISOLATE};
    unsigned long at;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        if (i > 0)
            rig_destroy();
        make(16, 0);
        rig_rest();
        assert_true(rig_alloc(NR_PAGE_ORDERS - 1, MIGRATE_UNMOVABLE));
        assert_true(rig_alloc(4, MIGRATE_UNMOVABLE));
        at = rig.blocks[0].pfn;
        rig_free_all();
        model_retype(at, types[i]);
        rig_rest();
        assert_all_told(0);
    }
}

/* Somebody isolates the pageblocks that a walk stands on, while its batch is with the host. */
static void test_isolated_by_others(void **state)
{
    unsigned long at;

    (void)state;
    make(16, 0);
    open_pass(UINT64_MAX, 1);
    fill();
    at = page_to_pfn(rig.ez->walk.at);
    model_retype(at, MIGRATE_ISOLATE);
    do {
        give_back(true);
        assert_true(model_frame(at)->owner == FREE && !model_is_marked(at));
    } while (fill());
    give_back(true);
    assert_int_equal(model_check().unmarked, 0);
    model_retype(at, MIGRATE_MOVABLE);
    rig_rest();
    assert_all_told(0);
}

/* ---- memory that comes and goes ---- */

static void test_resize(void **state)
{
    (void)state;
    make(16, 0);
    rig_rest();
    for (unsigned i = 0; i < 6; i++)
        assert_true(model_offline(RIG_BASE + (i < 3 ? i : i + 7) * MAX_ORDER_FRAMES));
    rig_resize();
    rig_rest();
    assert_all_told(0);
    fragment(1);
    rig_rest();
    assert_all_told(0);
    for (unsigned i = 0; i < 6; i++)
        assert_true(model_online(RIG_BASE + (i < 3 ? i : i + 7) * MAX_ORDER_FRAMES));
    rig_resize();
    rig_rest();
    assert_all_told(0);
    rig_free_all();
    rig_rest();
    assert_all_told(0);
}

/* ---- a device that fails ---- */

static void test_fails(void **state)
{
    (void)state;
    make(16, 0);
    fragment(2);
    rig.refuses = true;
    rig_pass_time(10 * S);
    assert_int_equal(rig.told, 0);
    assert_int_equal(model.held, 0);
    rig.refuses = false;
    rig.status = -EBB_EIO;
    rig_pass_time(100 * S);
    assert_int_equal(rig.told, 0);
    assert_int_equal(model.held, 0);
    assert_int_equal(rig.ez->reported, 0);
    rig.status = 0;
    rig_rest();
    assert_all_told(0);
}

/* Pageblocks that are free by themselves, of which no walk has seen any when it takes the first
 * large block: what is freed or used then has lost no mark, and got none. */
static void others_in_pass(bool free)
{
    unsigned long singles[4];
    uint64_t marks_lost;

    make(16, 0);
    rig_rest();
    for (unsigned i = 0; i < 8; i++)
        assert_true(rig_alloc(pageblock_order, MIGRATE_UNMOVABLE));
    for (unsigned i = 0; i < 4; i++)
        singles[i] = rig.blocks[2 * i].pfn;
    for (unsigned i = 0; i < 4; i++)
        assert_true(rig_alloc(NR_PAGE_ORDERS - 1, MIGRATE_UNMOVABLE));
    rig_sample();
    for (unsigned i = 0; i < 4; i++)
        rig_free(rig.n_blocks - 1);
    for (unsigned i = 0; i < 4 && !free; i++)
        free_range(singles[i], pageblock_order);
    rig_sample();
    assert_int_equal(rig.ez->reported, rig_check().reported);
    marks_lost = rig.ez->marks_lost;
    open_pass(2 * MAX_ORDER_FRAMES, 1);
    fill();
    assert_int_equal(pass.blocks[0].order, NR_PAGE_ORDERS - 1);
    for (unsigned i = 0; i < 4 && free; i++)
        free_range(singles[i], pageblock_order);
    for (unsigned i = 0; i < 4 && !free; i++)
        assert_true(rig_alloc(pageblock_order, MIGRATE_UNMOVABLE));
    do
        give_back(true);
    while (fill());
    (void)rig.ez->source.ops->close(&rig.ez->source);
    assert_int_equal(rig.ez->marks_lost, marks_lost);
    assert_int_equal(rig.ez->reported, rig_check().reported);
}

static void test_free_in_pass(void **state)
{
    (void)state;
    others_in_pass(true);
}

static void test_use_in_pass(void **state)
{
    (void)state;
    others_in_pass(false);
}

/* What lost its mark is isolated as well, though no sum has it: nobody used it. */
static void test_lost_is_no_refault(void **state)
{
    uint64_t refaulted;

    (void)state;
    make(16, 0);
    rig_rest();
    assert_true(rig_alloc(NR_PAGE_ORDERS - 1, MIGRATE_UNMOVABLE));
    assert_true(rig_alloc(pageblock_order, MIGRATE_UNMOVABLE)); /* a rest has no mark */
    rig_sample();
    refaulted = rig.ez->refaulted;
    rig_free(0);
    open_pass(UINT64_MAX, 2);
    fill();
    assert_int_equal(pass.taken, MAX_ORDER_FRAMES + pageblock_nr_pages);
    rig_sample();
    assert_int_equal(rig.ez->refaulted, refaulted);
    do
        give_back(true);
    while (fill());
    (void)rig.ez->source.ops->close(&rig.ez->source);
    assert_int_equal(rig.ez->refaulted, refaulted);
    assert_int_equal(rig.ez->reported, rig_check().reported);
    assert_int_equal(rig.ez->marks_lost, pageblock_nr_pages);
}

/* One bad block does not keep all others waiting. */
static void test_failed_is_last(void **state)
{
    uint64_t failed;

    (void)state;
    make(16, 0);
    open_pass(UINT64_MAX, 1);
    fill();
    failed = pass.blocks[0].pfn;
    give_back(false);
    open_pass(UINT64_MAX, 1);
    fill();
    assert_int_not_equal(pass.blocks[0].pfn, failed);
    give_back(true);
}

/* Nor is anything without a mark behind what has one, where no walk finds it. */
static void test_merged_is_first(void **state)
{
    unsigned long at;

    (void)state;
    make(16, 0);
    rig_alloc_all(pageblock_order);
    for (at = RIG_BASE; at < RIG_BASE + 4 * MAX_ORDER_FRAMES; at += MAX_ORDER_FRAMES)
        free_range(at, NR_PAGE_ORDERS - 1);
    rig_rest();
    at += MAX_ORDER_FRAMES;
    free_range(at, pageblock_order);
    ebb_drain_zone(&model.zone);
    open_pass(UINT64_MAX, 1);
    fill();
    assert_int_equal(pass.blocks[0].pfn, at);
    free_range(at + pageblock_nr_pages, pageblock_order);
    ebb_drain_zone(&model.zone);
    give_back(true);
    assert_int_equal(page_private(pfn_to_page(at)), NR_PAGE_ORDERS - 1);
    open_pass(MAX_ORDER_FRAMES, 1);
    fill();
    assert_int_equal(pass.blocks[0].pfn, at);
    give_back(true);
    rig_rest();
    assert_all_told(0);
}

#define ZONE_TEST(name) cmocka_unit_test_teardown(name, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ZONE_TEST(test_begins),
        ZONE_TEST(test_rests_after_use),
        ZONE_TEST(test_once),
        ZONE_TEST(test_not_before_its_time),
        ZONE_TEST(test_put_back),
        ZONE_TEST(test_split),
        ZONE_TEST(test_merge),
        ZONE_TEST(test_refaults),
        ZONE_TEST(test_quota),
        ZONE_TEST(test_coldest_first),
        ZONE_TEST(test_bounded_holds),
        ZONE_TEST(test_watermark),
        ZONE_TEST(test_orders),
        ZONE_TEST(test_order_above),
        ZONE_TEST(test_ripens),
        ZONE_TEST(test_compound),
        ZONE_TEST(test_scan_share),
        ZONE_TEST(test_drain),
        ZONE_TEST(test_shuffle),
        ZONE_TEST(test_behind_reported),
        ZONE_TEST(test_other_types),
        ZONE_TEST(test_isolated_by_others),
        ZONE_TEST(test_resize),
        ZONE_TEST(test_fails),
        ZONE_TEST(test_failed_is_last),
        ZONE_TEST(test_merged_is_first),
        ZONE_TEST(test_free_in_pass),
        ZONE_TEST(test_use_in_pass),
        ZONE_TEST(test_lost_is_no_refault),
    };

    cmocka_set_test_filter(getenv("ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
