/* SPDX-License-Identifier: BSD-2-Clause */
/* Whose turn it is: inhibition, the rate limit, time, draining, fairness between VMs. */
#include "discard_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define PAGE     EBB_FRAME_SIZE
#define SECOND   UINT64_C(1000000000)
#define REPORTED EBB_DISCARD_REPORTED

static const struct ebb_range frames_8 = {GPA_A, 8 * PAGE};

/* Long enough for a pool thread to do what it must not. */
static void linger(void)
{
    const struct timespec t = {.tv_nsec = 30 * 1000 * 1000};

    nanosleep(&t, NULL);
}

static unsigned calls_of(struct rig *rig)
{
    unsigned calls;

    pthread_mutex_lock(&rig->ops.lock);
    calls = rig->ops.calls;
    pthread_mutex_unlock(&rig->ops.lock);
    return calls;
}

/* ---- inhibition ---- */

static void test_inhibit(void **state)
{
    struct ebb_discard_stats stats;
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_ANON, PAGE, NULL);
    assert_false(ebb_discard_inhibited(rig.discard));
    ebb_discard_inhibit(rig.discard, true);
    assert_true(ebb_discard_inhibited(rig.discard));
    rig_run(&rig, REPORTED, &frames_8, 1);
    rig_expect_dropped(&rig, 0, 0);
    stats = rig_stats(&rig);
    assert_int_equal(stats.not_bytes[EBB_DISCARD_INHIBITED], 8 * PAGE);
    assert_int_equal(stats.calls, 0);
    ebb_discard_inhibit(rig.discard, false);
    rig_run(&rig, REPORTED, &frames_8, 1);
    rig_expect_dropped(&rig, 0, 8);
    rig_stop(&rig);
}

struct waiter {
    struct rig *rig;
    atomic_bool returned;
};

static void *inhibit_thread(void *arg)
{
    struct waiter *waiter = arg;

    ebb_discard_inhibit(waiter->rig->discard, true);
    atomic_store(&waiter->returned, true);
    return NULL;
}

/* Returns only when the call that goes on has ended; none comes after it. */
static void test_inhibit_waits(void **state)
{
    const struct ebb_range ranges[] = {rig_range(0, 1), rig_range(2, 1), rig_range(4, 1)};
    struct waiter waiter = {0};
    pthread_t thread;
    struct rig rig;

    (void)state;
    waiter.rig = &rig;
    rig_start(&rig, EBB_BACKING_SHARED, PAGE, NULL);
    rig.ops.gate = true;
    assert_int_equal(rig_submit(&rig, REPORTED, ranges, 3), 0);
    rig_wait_at_gate(&rig.ops, 1);
    assert_int_equal(pthread_create(&thread, NULL, inhibit_thread, &waiter), 0);
    while (!ebb_discard_inhibited(rig.discard))
        linger();
    linger();
    assert_false(atomic_load(&waiter.returned));
    rig_open_gate(&rig.ops);
    pthread_join(thread, NULL);
    rig_wait_done(&rig, 1);
    assert_int_equal(calls_of(&rig), 1);
    assert_int_equal(rig_stats(&rig).not_bytes[EBB_DISCARD_INHIBITED], 2 * PAGE);
    rig_stop(&rig);
}

/* ---- rate ---- */

/* The virtual clock stands. */
static void start_limited(struct rig *rig, uint64_t page, uint64_t rate)
{
    const struct ebb_discard_config config = {.rate = rate};

    rig_start(rig, EBB_BACKING_ANON, page, &config);
    rig->ops.now = 5 * SECOND;
}

static uint64_t beyond_rate(const struct rig *rig)
{
    return rig_stats(rig).not_bytes[EBB_DISCARD_RATE];
}

/* Nothing waits for the budget: what it does not allow is left, at once. */
static void test_rate(void **state)
{
    struct rig rig;

    (void)state;
    start_limited(&rig, PAGE, 12 * PAGE);
    rig_run(&rig, REPORTED, &frames_8, 1);
    assert_int_equal(beyond_rate(&rig), 0);
    rig_stamp(&rig);
    rig_run(&rig, REPORTED, &frames_8, 1);
    rig_expect_dropped(&rig, 0, 4);
    assert_int_equal(beyond_rate(&rig), 4 * PAGE);
    rig_stamp(&rig);
    rig_run(&rig, REPORTED, &frames_8, 1);
    rig_expect_dropped(&rig, 0, 0);
    assert_int_equal(beyond_rate(&rig), 12 * PAGE);
    rig_advance(&rig.ops, SECOND / 4);
    rig_run(&rig, REPORTED, &frames_8, 1);
    rig_expect_dropped(&rig, 0, 3);
    rig_stamp(&rig);
    rig_advance(&rig.ops, 100 * SECOND); /* no more than one second's is kept */
    rig_run(&rig, REPORTED, &frames_8, 1);
    rig_run(&rig, REPORTED, &frames_8, 1);
    assert_int_equal(rig_stats(&rig).discarded_bytes, (8 + 4 + 3 + 12) * PAGE);
    assert_int_equal(rig_stats(&rig).wait_ns, 0);
    rig_stop(&rig);
}

/* A backing page larger than the budget goes, and is paid back. */
static void test_rate_large_pages(void **state)
{
    const struct ebb_range two = rig_range(0, 32);
    struct rig rig;

    (void)state;
    start_limited(&rig, 16 * PAGE, 8 * PAGE);
    rig_run(&rig, REPORTED, &two, 1);
    rig_expect_dropped(&rig, 0, 16);
    rig_advance(&rig.ops, SECOND);
    rig_run(&rig, REPORTED, &two, 1);
    assert_int_equal(calls_of(&rig), 1);
    rig_advance(&rig.ops, SECOND / 2);
    rig_run(&rig, REPORTED, &two, 1);
    assert_int_equal(calls_of(&rig), 2);
    rig_stop(&rig);
}

/* However often it is looked at, over time it is the rate. */
static void test_rate_over_time(void **state)
{
    struct rig rig;

    (void)state;
    start_limited(&rig, PAGE, 16 * PAGE);
    rig_run(&rig, REPORTED, (const struct ebb_range[]){rig_range(0, 16)}, 1);
    for (unsigned i = 0; i < 2000; i++) {
        rig_advance(&rig.ops, SECOND / 1000);
        rig_run(&rig, REPORTED, &frames_8, 1);
    }
    assert_in_range(rig_stats(&rig).discarded_bytes, (16 + 31) * PAGE, (16 + 33) * PAGE);
    rig_stop(&rig);
}

static void test_set_rate(void **state)
{
    struct rig rig;

    (void)state;
    start_limited(&rig, PAGE, 8 * PAGE);
    rig_run(&rig, REPORTED, &frames_8, 1);
    ebb_discard_set_rate(rig.discard, 4 * PAGE);
    rig_run(&rig, REPORTED, &frames_8, 1);
    assert_int_equal(beyond_rate(&rig), 4 * PAGE);
    ebb_discard_set_rate(rig.discard, 0);
    rig_run(&rig, REPORTED, &frames_8, 1);
    rig_run(&rig, REPORTED, &frames_8, 1);
    assert_int_equal(beyond_rate(&rig), 4 * PAGE);
    rig_stop(&rig);
}

/* ---- time ---- */

/* The clock is looked at between two calls; what was not begun in time is left. */
static void test_late(void **state)
{
    const struct ebb_range ranges[] = {rig_range(0, 1), rig_range(2, 1), rig_range(4, 1),
                                       rig_range(6, 1), rig_range(8, 1)};
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_ANON, PAGE, NULL);
    rig.ops.now = SECOND;
    rig.ops.call_ns = 10;
    rig.ns = 25;
    rig_run(&rig, REPORTED, ranges, 5);
    assert_int_equal(calls_of(&rig), 3);
    assert_int_equal(rig.ops.now, SECOND + 30);
    assert_int_equal(rig_stats(&rig).not_bytes[EBB_DISCARD_LATE], 2 * PAGE);
    assert_false(rig_dropped(&rig, 6));
    rig.ns = 0;
    rig_run(&rig, REPORTED, ranges, 5);
    assert_int_equal(calls_of(&rig), 8);
    rig_stop(&rig);
}

#define GIB ((uint64_t)1 << 30)

/* As if it had memory, of which no call reaches anything. */
static struct ebb_range add_gib(struct rig *rig)
{
    const struct ebb_range gib = {.addr = 8 * GIB, .len = GIB};
    const struct ebb_region region = {
        .gpa = gib.addr,
        .size = gib.len,
        .host = rig->map,
        .fd = rig->fd,
        .offset = GIB,
        .page = PAGE,
        .backing = rig->backing,
    };

    assert_int_equal(ebb_memory_add(&rig->memory, &region), 0);
    rig->ops.lie = true;
    return gib;
}

static void start_gib(struct rig *rig, struct ebb_discard_pool *pool)
{
    const struct ebb_discard_config config = {.pool = pool, .check_every = UINT32_MAX};
    struct ebb_range gib;

    rig_start(rig, EBB_BACKING_SHARED, PAGE, &config);
    gib = add_gib(rig);
    rig->ops.gate = true;
    assert_int_equal(rig_submit(rig, REPORTED, &gib, 1), 0);
    rig_wait_at_gate(&rig->ops, 1);
}

/* What waits for a thread can be ended without one. */
static void test_hurry(void **state)
{
    struct ebb_discard_config config = {.pool = ebb_discard_pool_new(1)};
    struct rig stuck, rig, large;

    (void)state;
    start_gib(&large, config.pool);
    rig_start(&stuck, EBB_BACKING_SHARED, PAGE, &config);
    rig_start(&rig, EBB_BACKING_SHARED, PAGE, &config);
    assert_false(ebb_discard_hurry(rig.discard)); /* of nothing */
    stuck.ops.gate = true;
    assert_int_equal(rig_submit(&stuck, REPORTED, &frames_8, 1), 0);
    assert_int_equal(rig_submit(&rig, REPORTED, &frames_8, 1), 0);
    rig_open_gate(&large.ops);
    rig_wait_at_gate(&stuck.ops, 1);
    assert_true(ebb_discard_hurry(rig.discard)); /* not begun */
    assert_int_equal(rig_stats(&rig).not_bytes[EBB_DISCARD_LATE], 8 * PAGE);
    assert_false(ebb_discard_hurry(stuck.discard)); /* a call goes on */
    ebb_discard_drain(rig.discard);
    assert_int_equal(rig_submit(&rig, REPORTED, &frames_8, 1), 0);
    rig_open_gate(&stuck.ops);
    rig_wait_done(&stuck, 1);
    rig_wait_done(&rig, 1);
    rig_expect_dropped(&rig, 0, 8);
    rig_wait_done(&large, 1);
    assert_int_equal(calls_of(&large), 128);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(large.ops.call[i].len, GIB / 128);
    rig_stop(&stuck);
    rig_stop(&rig);
    rig_stop(&large);
    ebb_discard_pool_free(config.pool);
}

/* ... and of one that a thread has no further call begins. */
static void test_hurry_between_calls(void **state)
{
    struct rig rig;

    (void)state;
    start_gib(&rig, NULL);
    assert_false(ebb_discard_hurry(rig.discard));
    rig_open_gate(&rig.ops);
    rig_wait_done(&rig, 1);
    assert_int_equal(calls_of(&rig), 1);
    assert_int_equal(rig_stats(&rig).not_bytes[EBB_DISCARD_LATE], GIB - GIB / 128);
    rig_stop(&rig);
}

static void test_left(void **state)
{
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_ANON, PAGE, NULL);
    ebb_discard_left(rig.discard, 7 * PAGE, 3);
    assert_int_equal(rig_stats(&rig).not_bytes[EBB_DISCARD_LATE], 7 * PAGE);
    assert_int_equal(rig_stats(&rig).not_ranges[EBB_DISCARD_LATE], 3);
    rig_stop(&rig);
}

/* ---- drain, free, done ---- */

static void *drain_thread(void *arg)
{
    struct waiter *waiter = arg;

    ebb_discard_drain(waiter->rig->discard);
    atomic_store(&waiter->returned, true);
    return NULL;
}

static void wait_at_gate(void *ctx)
{
    struct rig_ops *ops = ctx;

    pthread_mutex_lock(&ops->lock);
    ops->at_gate++;
    pthread_cond_broadcast(&ops->changed);
    while (ops->gate)
        pthread_cond_wait(&ops->changed, &ops->lock);
    pthread_mutex_unlock(&ops->lock);
}

/* While the system call waits, and while done() does. */
static void check_drain(bool in_done)
{
    struct waiter waiter = {0};
    pthread_t thread;
    struct rig rig;

    waiter.rig = &rig;
    rig_start(&rig, EBB_BACKING_SHARED, PAGE, NULL);
    ebb_discard_drain(rig.discard); /* of nothing */
    if (in_done)
        ebb_discard_inhibit(rig.discard, true);
    rig.ops.gate = true;
    assert_int_equal(
        ebb_discard_submit(rig.discard, REPORTED, &frames_8, 1, UINT64_MAX, wait_at_gate, &rig.ops),
        0);
    rig_wait_at_gate(&rig.ops, 1);
    assert_int_equal(pthread_create(&thread, NULL, drain_thread, &waiter), 0);
    linger();
    assert_false(atomic_load(&waiter.returned));
    rig_open_gate(&rig.ops);
    pthread_join(thread, NULL);
    rig_stop(&rig);
}

static void test_drain(void **state)
{
    (void)state;
    check_drain(false);
    check_drain(true);
}

/* done() that submits the next batch itself, until there were enough. */
struct chain {
    struct rig *rig;
    atomic_uint left, refused;
};

static void submit_next(void *ctx)
{
    struct chain *chain = ctx;
    const unsigned left = atomic_fetch_sub(&chain->left, 1) - 1;
    const struct ebb_range range = rig_range(left % FRAMES, 1);

    if (left > 0 && ebb_discard_submit(chain->rig->discard, REPORTED, &range, 1, UINT64_MAX,
                                       submit_next, chain) != 0)
        atomic_fetch_add(&chain->refused, 1);
}

static void test_submit_from_done(void **state)
{
    struct ebb_discard_pool *pool = ebb_discard_pool_new(4);
    const struct ebb_discard_config config = {.pool = pool};
    struct chain chain;
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, PAGE, &config);
    chain.rig = &rig;
    atomic_init(&chain.left, 500);
    atomic_init(&chain.refused, 0);
    assert_int_equal(
        ebb_discard_submit(rig.discard, REPORTED, &frames_8, 1, UINT64_MAX, submit_next, &chain),
        0);
    while (atomic_load(&chain.left) > 0 && atomic_load(&chain.refused) == 0)
        linger();
    ebb_discard_drain(rig.discard);
    assert_int_equal(atomic_load(&chain.refused), 0);
    assert_int_equal(rig_stats(&rig).batches, 500);
    rig_stop(&rig);
    ebb_discard_pool_free(pool);
}

/* ---- fairness ---- */

#define VMS    4u
#define ROUNDS 5u

struct vm {
    struct rig rig;
    struct order *order;
    unsigned left;
};

/* One thread serves: who was done, in order. */
struct order {
    struct vm vms[VMS];
    unsigned n, who[VMS * ROUNDS];
    atomic_bool refused;
};

/* Greedy: has the next batch ready at once. */
static void next_round(void *ctx)
{
    struct vm *vm = ctx;
    struct order *order = vm->order;

    order->who[order->n++] = (unsigned)(vm - order->vms);
    if (--vm->left > 0 && ebb_discard_submit(vm->rig.discard, REPORTED, &frames_8, 1, UINT64_MAX,
                                             next_round, vm) != 0)
        order->refused = true;
}

/* All want more than there is time for: each waits for one batch of each other. */
static void test_in_turn(void **state)
{
    static struct order order;
    struct ebb_discard_config config = {.pool = ebb_discard_pool_new(1)};

    (void)state;
    for (unsigned i = 0; i < VMS; i++) {
        rig_start(&order.vms[i].rig, EBB_BACKING_SHARED, PAGE, &config);
        order.vms[i].order = &order;
        order.vms[i].left = ROUNDS;
    }
    order.vms[0].rig.ops.gate = true;
    for (unsigned i = 0; i < VMS; i++) {
        assert_int_equal(ebb_discard_submit(order.vms[i].rig.discard, REPORTED, &frames_8, 1,
                                            UINT64_MAX, next_round, &order.vms[i]),
                         0);
        if (i == 0)
            rig_wait_at_gate(&order.vms[0].rig.ops, 1);
    }
    rig_open_gate(&order.vms[0].rig.ops);
    for (unsigned i = 0; i < VMS; i++) {
        struct ebb_discard_stats stats;

        do { /* drain() ends between two batches, too */
            ebb_discard_drain(order.vms[i].rig.discard);
            stats = rig_stats(&order.vms[i].rig);
        } while (stats.batches < ROUNDS && !order.refused);
        ebb_discard_drain(order.vms[i].rig.discard);
    }
    assert_false(order.refused);
    assert_int_equal(order.n, VMS * ROUNDS);
    for (unsigned i = 0; i < order.n; i++)
        assert_int_equal(order.who[i], i % VMS);
    for (unsigned i = 0; i < VMS; i++)
        rig_stop(&order.vms[i].rig);
    ebb_discard_pool_free(config.pool);
}

/* One VM's call takes for ever; with a second thread all others are served meanwhile. */
static void test_stuck(void **state)
{
    struct ebb_discard_config config = {.pool = ebb_discard_pool_new(2)};
    struct rig stuck, other;

    (void)state;
    rig_start(&stuck, EBB_BACKING_SHARED, PAGE, &config);
    rig_start(&other, EBB_BACKING_ANON, PAGE, &config);
    stuck.ops.gate = true;
    assert_int_equal(rig_submit(&stuck, REPORTED, &frames_8, 1), 0);
    rig_wait_at_gate(&stuck.ops, 1);
    for (unsigned i = 0; i < 20; i++)
        rig_run(&other, REPORTED, &frames_8, 1);
    assert_int_equal(stuck.done, 0);
    rig_open_gate(&stuck.ops);
    rig_stop(&stuck); /* frees while its batch runs */
    rig_stop(&other);
    ebb_discard_pool_free(config.pool);
}

/* Many come, work, are looked at by an operator, and go. */
static void test_many(void **state)
{
    enum { MANY = 32 };
    static struct rig rigs[MANY];
    struct ebb_discard_config config = {.pool = ebb_discard_pool_new(3), .rate = 1u << 30};

    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < MANY; i++) {
            rig_start(&rigs[i], i % 2 ? EBB_BACKING_SHARED : EBB_BACKING_ANON, PAGE, &config);
            assert_int_equal(rig_submit(&rigs[i], REPORTED, &frames_8, 1), 0);
        }
        for (unsigned i = 0; i < MANY; i++) {
            rig_stats(&rigs[i]);
            ebb_discard_set_rate(rigs[i].discard, i % 3 * 1000000);
            rig_wait_done(&rigs[i], 1);
            rig_run(&rigs[i], REPORTED, &frames_8, 1);
            rig_expect_dropped(&rigs[i], 0, 8);
            if (i % 4 == 0)
                ebb_discard_inhibit(rigs[i].discard, true);
            assert_int_equal(rig_submit(&rigs[i], REPORTED, &frames_8, 1), 0);
        }
        for (unsigned i = 0; i < MANY; i++)
            rig_stop(&rigs[i]);
    }
    ebb_discard_pool_free(config.pool);
}

/* ---- counters ---- */

static void test_latency(void **state)
{
    const struct ebb_discard_config config = {.check_every = UINT32_MAX};
    static const struct {
        uint64_t ns;
        unsigned bucket;
    } rows[] = {{0, 0},    {999, 0},      {1000, 1},     {1999, 1},
                {2000, 2}, {1023999, 10}, {1024000, 11}, {3600 * SECOND, EBB_DISCARD_BUCKETS - 1}};
    uint64_t busy = 0, counted[EBB_DISCARD_BUCKETS] = {0};
    struct ebb_discard_stats stats;
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_ANON, PAGE, &config);
    rig.ops.now = SECOND;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        rig.ops.call_ns = rows[i].ns;
        rig_run(&rig, REPORTED, &frames_8, 1);
        busy += rows[i].ns;
        counted[rows[i].bucket]++;
        stats = rig_stats(&rig);
        assert_memory_equal(stats.latency, counted, sizeof(counted));
        assert_int_equal(stats.busy_ns, busy);
    }
    assert_int_equal(stats.wait_ns, 0);
    rig_stop(&rig);
}

static void test_names(void **state)
{
    (void)state;
    for (unsigned i = 0; i < EBB_DISCARD_CAUSES; i++)
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(ebb_discard_cause_name(i), ebb_discard_cause_name(j));
    assert_string_equal(ebb_discard_cause_name(EBB_DISCARD_CAUSES), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inhibit),
        cmocka_unit_test(test_inhibit_waits),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_rate_large_pages),
        cmocka_unit_test(test_rate_over_time),
        cmocka_unit_test(test_set_rate),
        cmocka_unit_test(test_late),
        cmocka_unit_test(test_hurry),
        cmocka_unit_test(test_hurry_between_calls),
        cmocka_unit_test(test_left),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_submit_from_done),
        cmocka_unit_test(test_in_turn),
        cmocka_unit_test(test_stuck),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_latency),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
