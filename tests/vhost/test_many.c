/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sixty-four VMs on one pool, all of which report as fast as they are answered. Whose turn it is,
 * is counted, not timed: between a VM's kick and the first of its discards, each other VM may begin
 * one batch, the one that was there before. The pool has one thread, so that a call that begins
 * later was taken later, too.
 */
#include "back.h"
#include "discard_rig.h"
#include "front.h"

#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <cmocka.h>

#define VMS    64u
#define ROUNDS 20u
#define CHAINS 4u /* at once, of ranges that adjoin: a batch of any of them is one call */
#define RANGE  (256u << 10)

struct vm {
    struct rig_ops calls;
    struct ebb_discard_ops ops;
    struct back back;
    struct front front;
    unsigned queue, rounds, out; /* chains that are not back */
    atomic_uint begun;           /* discarding calls */
    atomic_bool kicked;          /* and none has begun since */
    unsigned then[VMS];          /* `begun` of each as this one kicked */
};

static struct vm vms[VMS];
static struct ebb_vhost_user_events *events; /* of all */
static atomic_uint most;                     /* batches of one VM that another has waited for */
static atomic_bool gate; /* the first call waits until all VMs have something to wait for */

/* In a pool thread. */
static int punch(void *ctx, int fd, int mode, uint64_t offset, uint64_t len)
{
    struct vm *vm = (struct vm *)((char *)ctx - offsetof(struct vm, calls));

    if (atomic_exchange(&vm->kicked, false))
        for (unsigned i = 0; i < VMS; i++) {
            const unsigned began = atomic_load(&vms[i].begun) - vm->then[i];
            unsigned old = atomic_load(&most);

            while (&vms[i] != vm && began > old &&
                   !atomic_compare_exchange_weak(&most, &old, began))
                ;
        }
    atomic_fetch_add(&vm->begun, 1);
    while (atomic_load(&gate))
        sched_yield();
    return fallocate(fd, mode, (off_t)offset, (off_t)len);
}

static void start(struct vm *vm, struct ebb_discard_pool *pool)
{
    const struct front_config front_config = {.pump = back_pump, .ctx = &vm->back};
    struct ebb_vhost_user_config back_config = {0};

    rig_ops_init(&vm->calls, NULL);
    vm->ops = vm->calls.ops;
    vm->ops.fallocate = punch;
    back_config.discard.ops = &vm->ops;
    back_config.events = events;
    front_init(&vm->front, &front_config, back_init(&vm->back, &back_config, pool));
    assert_int_equal(front_open(&vm->front), 0);
    assert_int_equal(front_start(&vm->front), 0);
    back_settle(&vm->back);
    vm->queue = (unsigned)front_queue_of(&vm->front, EBB_BALLOON_REPORTING);
}

static void report(struct vm *vm)
{
    memset(front_at(&vm->front, FRONT_HIGH), 0x5a, CHAINS * RANGE);
    for (unsigned i = 0; i < VMS; i++)
        vm->then[i] = atomic_load(&vms[i].begun);
    atomic_store(&vm->kicked, true);
    for (unsigned i = 0; i < CHAINS; i++) {
        const struct ebb_ring_buf buf = {FRONT_HIGH + i * RANGE, RANGE, true};

        front_give(&vm->front, vm->queue, &buf, 1);
    }
    vm->out = CHAINS;
    vm->rounds++;
}

/* The guest's turn, then the device's. */
static void serve(struct vm *vm)
{
    uint32_t len;
    void *token;

    while (ebb_ring_driver_get(&vm->front.queues[vm->queue].ring, &token, &len) > 0)
        vm->out--;
    if (vm->out == 0 && vm->rounds < ROUNDS) {
        const char *memory = front_at(&vm->front, FRONT_HIGH);

        if (vm->rounds > 0)
            assert_int_equal(memory[0] | memory[CHAINS * RANGE - 1], 0);
        report(vm);
    }
    back_pump(&vm->back);
}

static void test_in_turn(void **state)
{
    struct ebb_discard_pool *pool = ebb_discard_pool_new(1);
    const time_t end = time(NULL) + WAIT_S;
    bool busy = true;

    (void)state;
    assert_non_null(pool);
    events = ebb_vhost_user_events_new();
    assert_non_null(events);
    for (unsigned i = 0; i < VMS; i++)
        start(&vms[i], pool);
    atomic_store(&gate, true);
    for (unsigned i = 0; i < VMS; i++)
        serve(&vms[i]);
    atomic_store(&gate, false);
    while (busy) {
        busy = false;
        for (unsigned i = 0; i < VMS; i++) {
            serve(&vms[i]);
            busy |= vms[i].out > 0 || vms[i].rounds < ROUNDS;
        }
        assert_true(time(NULL) < end);
    }
    assert_in_range(atomic_load(&most), 1, 1);
    for (unsigned i = 0; i < VMS; i++) {
        struct ebb_discard_stats stats;

        ebb_discard_get_stats(ebb_vhost_user_discard(vms[i].back.session), &stats);
        assert_int_equal(stats.discarded_bytes, (uint64_t)ROUNDS * CHAINS * RANGE);
        front_exit(&vms[i].front);
        back_exit(&vms[i].back);
    }
    ebb_vhost_user_events_free(events);
    ebb_discard_pool_free(pool);
}

/* Both ends of each VM take some 20 descriptors. */
static bool enough_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return false;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= VMS * 50;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_in_turn)};

    if (!enough_descriptors()) {
        fprintf(stderr, "SKIP: too few descriptors are allowed (ulimit -Hn)\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
