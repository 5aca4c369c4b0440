/* SPDX-License-Identifier: BSD-2-Clause */
/* Zone lists (zonelist.h), and the engine over zones of two nodes. Zone i of the rig
 * is on node i. */
#include "report_rig.h"

#include <ebb/zonelist.h>

#include <stdlib.h>

#define FRAMES ((uint64_t)MAX_BLOCKS << MAX_ORDER)
#define MIN    64u
#define LOW    256u

static struct ebb_zonelist lists[2];

/* Two zones with watermarks, and the lists of both nodes. */
static struct rig *make_with(uint8_t pacing)
{
    struct rig *rig = rig_new(&(struct rig_config){
        .zones = 2, .watermark_min = MIN, .watermark_low = LOW, .history.pacing = pacing});

    for (uint16_t node = 0; node < 2; node++) {
        ebb_zonelist_init(&lists[node], node);
        for (unsigned i = 0; i < 2; i++)
            assert_int_equal(ebb_zonelist_add(&lists[node], &rig->zones[i], i == node ? 10u : 20u),
                             0);
    }
    return rig;
}

static struct rig *make(void)
{
    return make_with(EBB_PACING_DEFAULT);
}

static int take(unsigned node, unsigned order, unsigned flags, ebb_pfn_t *pfn)
{
    struct ebb_zone *zone = NULL;
    int err = ebb_zonelist_alloc(&lists[node], order, EBB_MOVABLE, flags, pfn, &zone);

    if (err) {
        assert_null(zone);
        return err;
    }
    assert_ptr_equal(zone, ebb_zonelist_zone(&lists[node], *pfn));
    return 0;
}

/* ---- making lists ---- */

static void nearest_first_and_stable(void **state)
{
    static const uint32_t distances[] = {20, 10, 20, 15, 10, 40, 0};
    static const unsigned expected[] = {6, 1, 4, 3, 0, 2, 5};
    struct ebb_zone zones[7];
    struct ebb_zonelist list;

    (void)state;
    memset(zones, 0, sizeof(zones));
    ebb_zonelist_init(&list, 3);
    assert_int_equal(list.node, 3);
    for (unsigned i = 0; i < 7; i++) {
        zones[i].base = zones[i].first = 100 * i;
        zones[i].span = 100;
        assert_int_equal(ebb_zonelist_add(&list, &zones[i], distances[i]), 0);
    }
    assert_int_equal(list.count, 7);
    for (unsigned i = 0; i < 7; i++) {
        assert_ptr_equal(list.entries[i].zone, &zones[expected[i]]);
        assert_int_equal(list.entries[i].distance, distances[expected[i]]);
    }
}

static void full_and_overlapping(void **state)
{
    struct ebb_zone zones[EBB_ZONELIST_LIMIT + 1];
    struct ebb_zone between = {.base = 100, .first = 150, .span = 100};
    struct ebb_zonelist list;

    (void)state;
    memset(zones, 0, sizeof(zones));
    ebb_zonelist_init(&list, 0);
    for (unsigned i = 0; i <= EBB_ZONELIST_LIMIT; i++) {
        zones[i].base = zones[i].first = 1000 * i;
        zones[i].span = 150;
    }
    for (unsigned i = 0; i < EBB_ZONELIST_LIMIT; i++)
        assert_int_equal(ebb_zonelist_add(&list, &zones[i], 10), 0);
    assert_int_equal(ebb_zonelist_add(&list, &zones[EBB_ZONELIST_LIMIT], 10), -EBB_ENOSPC);
    assert_int_equal(ebb_zonelist_add(&list, &zones[5], 10), -EBB_EEXIST);

    /* Its base was rounded down into another zone; its first frame is not in there. */
    ebb_zonelist_init(&list, 0);
    assert_int_equal(ebb_zonelist_add(&list, &zones[0], 10), 0);
    between.first = 149;
    assert_int_equal(ebb_zonelist_add(&list, &between, 5), -EBB_EEXIST);
    assert_int_equal(list.count, 1);
    between.first = 150;
    assert_int_equal(ebb_zonelist_add(&list, &between, 5), 0);
    assert_ptr_equal(list.entries[0].zone, &between);
    assert_ptr_equal(ebb_zonelist_zone(&list, 149), &zones[0]);
    assert_ptr_equal(ebb_zonelist_zone(&list, 150), &between);
    assert_ptr_equal(ebb_zonelist_zone(&list, 199), &between);
    assert_null(ebb_zonelist_zone(&list, 200));
}

/* ---- allocating ---- */

static unsigned node_of(const struct rig *rig, ebb_pfn_t pfn)
{
    return pfn >= rig->zones[1].first;
}

/* Each node: its own zone down to low, the other one down to low, then its own down
 * to min, then the other, then no more; in blocks and in single frames. */
static void near_then_far_then_the_reserve(void **state)
{
    static const unsigned orders[] = {0, MAX_ORDER};

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned node = i & 1, order = orders[i / 2];
        const uint64_t spare = (FRAMES - LOW) >> order, rest = (LOW - MIN) >> order;
        const uint64_t ends[] = {spare, 2 * spare, 2 * spare + rest, 2 * (spare + rest)};
        struct rig *rig = make();
        ebb_pfn_t *pfns = calloc(2 * FRAMES, sizeof(*pfns));
        uint64_t n = 0;
        int err;

        while ((err = take(node, order, 0, &pfns[n])) == 0) {
            unsigned phase = 0;

            while (n >= ends[phase])
                assert_true(++phase < 4);
            assert_int_equal(node_of(rig, pfns[n]), node ^ (phase & 1));
            n++;
        }
        assert_int_equal(err, -EBB_ENOMEM);
        assert_int_equal(n, ends[3]);
        assert_int_equal(take(node, order, EBB_ALLOC_LOW, &pfns[n]), -EBB_ENOMEM);
        assert_int_equal(take(node, order, EBB_ALLOC_RESERVE, &pfns[n]), 0);
        assert_int_equal(node_of(rig, pfns[n]), node);
        n++;
        while (n > 0)
            assert_int_equal(ebb_zonelist_free(&lists[node], pfns[--n], order), 0);
        free(pfns);
        for (unsigned z = 0; z < 2; z++)
            ebb_zone_drain(&rig->zones[z]);
        rig_free(rig);
    }
}

static void flags(void **state)
{
    struct rig *rig = make();
    ebb_pfn_t pfns[64], other;
    unsigned n = 0;

    (void)state;
    /* LOW stops above the reserve; THIS_NODE never goes elsewhere. */
    while (take(1, MAX_ORDER, EBB_ALLOC_THIS_NODE | EBB_ALLOC_LOW, &pfns[n]) == 0)
        assert_int_equal(node_of(rig, pfns[n++]), 1);
    assert_int_equal(n, (FRAMES - LOW) >> MAX_ORDER);
    while (take(1, MAX_ORDER, EBB_ALLOC_THIS_NODE, &pfns[n]) == 0)
        assert_int_equal(node_of(rig, pfns[n++]), 1);
    assert_int_equal(n, (FRAMES - MIN) >> MAX_ORDER);
    assert_int_equal(rig_zone_stats(rig, 0).allocated, 0);

    other = 4711;
    assert_int_equal(take(0, 0, EBB_ALLOC_LOW | EBB_ALLOC_RESERVE, &other), -EBB_EINVAL);
    assert_int_equal(take(0, 0, 1u << 20, &other), -EBB_EINVAL);
    assert_int_equal(take(0, MAX_ORDER + 1, 0, &other), -EBB_EINVAL);
    assert_int_equal(take(0, 0, EBB_ALLOC_ZERO, &other), -EBB_EINVAL); /* no zone can clear */
    assert_int_equal(other, 4711);
    /* Without a list the flag means nothing. */
    assert_int_equal(ebb_alloc(&rig->zones[0], 0, EBB_MOVABLE, EBB_ALLOC_THIS_NODE, &other),
                     -EBB_EINVAL);
    while (n > 0)
        assert_int_equal(ebb_zonelist_free(&lists[0], pfns[--n], MAX_ORDER), 0);
    /* The zone is not asked for. */
    assert_int_equal(ebb_zonelist_alloc(&lists[0], 3, EBB_UNMOVABLE, 0, &other, NULL), 0);
    assert_int_equal(ebb_zonelist_free(&lists[1], other, 3), 0);
    rig_free(rig);
}

/* An order that only one zone has is no error of the other's. */
static void zones_of_different_orders(void **state)
{
    static const struct ebb_zone_config configs[2] = {
        {.base = 0, .frames = 64, .max_order = 3},
        {.base = 64, .frames = 64, .max_order = 6},
    };
    struct ebb_zone zones[2];
    void *memory[2];
    struct ebb_zonelist list;
    ebb_pfn_t pfn, second;

    (void)state;
    ebb_zonelist_init(&list, 0);
    assert_int_equal(ebb_zonelist_alloc(&list, 0, EBB_MOVABLE, 0, &pfn, NULL), -EBB_EINVAL);
    for (unsigned i = 0; i < 2; i++) {
        const size_t size = (ebb_zone_metadata_size(&configs[i]) + 63) & ~(size_t)63;

        memory[i] = aligned_alloc(64, size);
        assert_non_null(memory[i]);
        memset(memory[i], 0, size);
        memset(&zones[i], 0, sizeof(zones[i]));
        assert_int_equal(ebb_zone_init(&zones[i], &configs[i], memory[i]), 0);
        assert_int_equal(ebb_zone_add(&zones[i], configs[i].base, 64), 0);
        assert_int_equal(ebb_zonelist_add(&list, &zones[i], 10), 0);
    }
    assert_int_equal(ebb_zonelist_alloc(&list, 6, EBB_MOVABLE, 0, &pfn, NULL), 0);
    assert_int_equal(pfn, 64);
    assert_int_equal(ebb_zonelist_alloc(&list, 6, EBB_MOVABLE, 0, &second, NULL), -EBB_ENOMEM);
    assert_int_equal(ebb_zonelist_alloc(&list, 7, EBB_MOVABLE, 0, &second, NULL), -EBB_EINVAL);
    ebb_zonelist_init(&list, 0); /* the other way round */
    assert_int_equal(ebb_zonelist_add(&list, &zones[1], 10), 0);
    assert_int_equal(ebb_zonelist_add(&list, &zones[0], 10), 0);
    assert_int_equal(ebb_zonelist_alloc(&list, 6, EBB_MOVABLE, 0, &second, NULL), -EBB_ENOMEM);
    assert_int_equal(ebb_zonelist_free(&list, pfn, 6), 0);
    for (unsigned i = 0; i < 2; i++)
        free(memory[i]);
}

/* ---- freeing ---- */

static void foreign_frames(void **state)
{
    struct rig *rig = make();
    const ebb_pfn_t wrong[] = {0, RIG_BASE - 1, RIG_BASE + FRAMES, RIG_BASE + 3 * FRAMES,
                               UINT64_MAX};

    (void)state;
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_null(ebb_zonelist_zone(&lists[0], wrong[i]));
        assert_int_equal(ebb_zonelist_free(&lists[0], wrong[i], 2), -EBB_EINVAL);
        assert_int_equal(port_virtual.misuses, i + 1);
        assert_int_equal(port_virtual.misuse.kind, EBB_MISUSE_FOREIGN_PFN);
        assert_int_equal(port_virtual.misuse.pfn, wrong[i]);
        assert_int_equal(port_virtual.misuse.order, 2);
        assert_non_null(port_virtual.misuse.what);
    }
    port_virtual.misuses = 0;
    rig_free(rig);
}

/* ---- with the host ---- */

static ebb_pfn_t try_pfn;
static unsigned try_node;
static int try_err;

static void try_to_take(struct rig *rig)
{
    (void)rig;
    try_err = take(try_node, MAX_ORDER, EBB_ALLOC_THIS_NODE, &try_pfn);
}

/* Half of a zone is with the host, the other half with callers: try again later, but
 * only if no other zone of the list has it. */
static void what_is_with_the_host(void **state)
{
    struct rig *rig = make_with(EBB_PACING_DELAY);
    ebb_pfn_t pfns[2 * MAX_BLOCKS];
    unsigned n = 0;

    (void)state;
    rig->later = true;
    rig_register(rig);
    rig_run_after(rig, 1000 * MS);
    assert_true(rig->in_flight);
    try_node = rig->batch->ranges[0].addr >> EBB_FRAME_SHIFT >= rig->zones[1].first;
    for (;;) {
        try_to_take(rig);
        if (try_err)
            break;
        pfns[n++] = try_pfn;
    }
    assert_int_equal(try_err, -EBB_EAGAIN);
    /* The far zone has some left; when that is used up, too, the near one is still
     * worth a wait, from whichever node it is looked at. */
    while (take(try_node, MAX_ORDER, 0, &pfns[n]) == 0)
        assert_int_equal(node_of(rig, pfns[n++]), !try_node);
    assert_int_equal(rig_zone_stats(rig, !try_node).in_flight, 0);
    for (unsigned node = 0; node < 2; node++)
        assert_int_equal(take(node, MAX_ORDER, 0, &pfns[n]), -EBB_EAGAIN);
    rig_complete(rig, 0);
    rig->later = false;
    rig_run(rig);
    try_to_take(rig);
    assert_int_equal(try_err, 0);
    pfns[n++] = try_pfn;
    while (n > 0)
        assert_int_equal(ebb_zonelist_free(&lists[0], pfns[--n], MAX_ORDER), 0);
    rig_free(rig);
}

/* F61, F47: every block of every zone of all nodes is reported, what is freed through
 * a list as well, and no batch holds blocks of two zones (the rig looks at each). */
static void all_zones_of_all_nodes_are_reported(void **state)
{
    struct rig *rig = make();
    ebb_pfn_t pfns[2 * MAX_BLOCKS];
    unsigned used[2] = {0, 0};
    unsigned n = 0;

    (void)state;
    rig->device.capacity = 5; /* so that a zone's last batch is not full */
    rig_register(rig);
    rig_settle(rig);
    for (unsigned i = 0; i < 2; i++) /* all but what the watermark keeps */
        assert_true(rig_zone_stats(rig, i).reported >= FRAMES - LOW);
    rig_forget(rig);

    while (take(n & 1, MAX_ORDER, 0, &pfns[n]) == 0) {
        used[node_of(rig, pfns[n])]++;
        n++;
    }
    assert_int_equal(used[0], used[1]);
    assert_int_equal(n, 2 * (FRAMES - MIN) >> MAX_ORDER);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(ebb_zonelist_free(&lists[i & 1], pfns[i], MAX_ORDER), 0);
    rig_settle(rig);
    for (unsigned i = 0; i < 2; i++) {
        const unsigned kept = LOW >> MAX_ORDER;
        unsigned blocks = 0;

        for (unsigned k = 0; k < n; k++) {
            if (node_of(rig, pfns[k]) == i)
                blocks += rig_times_reported(rig, pfns[k]) > 0;
        }
        assert_true(blocks >= used[i] - kept);
        assert_int_equal(rig_zone_stats(rig, i).reported, FRAMES);
    }
    rig_free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearest_first_and_stable),
        cmocka_unit_test(full_and_overlapping),
        cmocka_unit_test(zones_of_different_orders),
        rig_test(near_then_far_then_the_reserve),
        rig_test(flags),
        rig_test(foreign_frames),
        rig_test(what_is_with_the_host),
        rig_test(all_zones_of_all_nodes_are_reported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
