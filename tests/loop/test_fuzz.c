/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random peers: shared memory that changes at any moment, devices and drivers
 * that do anything. Nothing may crash or hang, no descriptor may be lost, no
 * batch be completed but once. EBB_SEED replays the run that a failure names.
 */
#include "loop.h"
#include "rng.h"

#include "port_virtual.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

#define SIZE_LIMIT 32u
#define TOKENS     64u

static struct {
    struct ebb_ring_driver driver;
    struct ebb_ring_device device;
    struct ebb_ring_slot slots[SIZE_LIMIT];
    struct ebb_ring_layout layout;
    unsigned size;
    bool device_ok;
    bool out[TOKENS]; /* token is with the device */
    uint16_t heads[SIZE_LIMIT];
    unsigned held; /* heads taken by the device and not put */
    uint64_t steps;
} ring;

static _Alignas(4096) uint8_t memory[4096];

#define check(what)                                                                \
    do {                                                                           \
        if (!(what))                                                               \
            fail_msg("EBB_SEED=%llu: %s", (unsigned long long)rng_current, #what); \
    } while (0)

static void *translate(void *ctx, uint64_t gpa, uint64_t len)
{
    (void)ctx;
    return gpa <= sizeof(memory) && len <= sizeof(memory) - gpa ? memory + gpa : NULL;
}

static void ring_begin(struct rng *rng)
{
    memset(&ring, 0, sizeof(ring));
    ring.size = 1u << rng_below(rng, 6);
    ring.layout = ebb_ring_layout(ring.size);
    check(ebb_ring_driver_init(&ring.driver, ring.size, memory, ring.slots) == 0);
    check(ebb_ring_device_init(&ring.device, ring.size, ring.layout.desc, ring.layout.avail,
                               ring.layout.used, 0, translate, NULL) == 0);
    ring.device_ok = true;
}

/* Every descriptor is free or in exactly one chain that is out. */
static void ring_check(void)
{
    bool seen[SIZE_LIMIT] = {false};
    uint16_t index = ring.driver.free_head;
    unsigned count = 0, chains = 0, tokens = 0;

    for (unsigned i = 0; i < ring.driver.free_count; i++, count++) {
        check(index < ring.size && !seen[index]);
        seen[index] = true;
        index = ring.slots[index].next;
    }
    for (uint16_t head = 0; head < ring.size; head++) {
        if (!ring.slots[head].token)
            continue;
        chains++;
        index = head;
        for (unsigned i = 0; i < ring.slots[head].count; i++, count++) {
            check(index < ring.size && !seen[index]);
            seen[index] = true;
            index = ring.slots[index].next;
        }
    }
    check(count == ring.size);
    check(chains == ebb_ring_driver_pending(&ring.driver));
    for (unsigned i = 0; i < TOKENS; i++)
        tokens += ring.out[i];
    check(tokens == chains);
}

static void ring_add(struct rng *rng)
{
    struct ebb_ring_buf bufs[SIZE_LIMIT + 1] = {0};
    const unsigned n = rng_below(rng, ring.size + 2);
    const unsigned token = rng_below(rng, TOKENS);

    if (ring.out[token])
        return;
    for (unsigned i = 0; i < n; i++)
        bufs[i] = (struct ebb_ring_buf){
            .addr = rng_next(rng),
            .len = rng_below(rng, 10) ? rng_below(rng, 1000) : (uint32_t)rng_next(rng),
            .write = rng_below(rng, 4) != 0,
        };
    if (ebb_ring_driver_add(&ring.driver, bufs, n, &ring.out[token]) == 0)
        ring.out[token] = true;
    (void)ebb_ring_driver_kick(&ring.driver);
}

static void ring_get(void)
{
    void *token;
    uint32_t len;
    const int got = ebb_ring_driver_get(&ring.driver, &token, &len);

    check(got == 0 || got == 1 || got == -EBB_EPROTO);
    check((got < 0) == ring.driver.broken);
    if (got == 1) {
        bool *out = token;

        check(out >= ring.out && out < ring.out + TOKENS);
        check(*out); /* came back once */
        *out = false;
    }
}

static void ring_take(void)
{
    struct ebb_ring_buf bufs[SIZE_LIMIT];
    uint16_t head = 0xffff;
    int n;

    if (ring.held == SIZE_LIMIT)
        return;
    n = ebb_ring_device_take(&ring.device, bufs, &head);
    check(n >= -EBB_EPROTO && n <= (int)ring.size);
    check((n < 0) == ring.device.broken);
    if (n <= 0)
        return;
    check(head < ring.size);
    for (int i = 1; i < n; i++)
        check(bufs[i].write || !bufs[i - 1].write);
    ring.heads[ring.held++] = head;
}

static void ring_put(struct rng *rng)
{
    const uint16_t before = ring.device.used_idx;
    unsigned which;

    if (ring.held == 0)
        return;
    which = rng_below(rng, ring.held);
    ebb_ring_device_put(&ring.device, ring.heads[which],
                        rng_below(rng, 20) ? 0 : (uint32_t)rng_next(rng));
    ring.heads[which] = ring.heads[--ring.held];
    check(ring.device.used_idx == (uint16_t)(before + 1));
}

/* Somebody writes to [from, to) of the shared memory: anything, or something
 * that is nearly right. */
static void corrupt(struct rng *rng, size_t from, size_t to)
{
    const size_t at = from + rng_below(rng, (unsigned)(to - from));

    switch (rng_below(rng, 4)) {
    case 0:
        memory[at] = (uint8_t)rng_next(rng);
        break;
    case 1:
        memory[at] = (uint8_t)(memory[at] + 1);
        break;
    case 2:
        memory[at] ^= (uint8_t)(1u << rng_below(rng, 8));
        break;
    default:
        memory[at] = (uint8_t)rng_below(rng, ring.size + 1);
        break;
    }
}

/* One step. What the peer of the half under test may write to, it writes to. */
static void ring_step(struct rng *rng, bool device_lies, bool driver_lies)
{
    switch (rng_below(rng, 8)) {
    case 0:
    case 1:
        ring_add(rng);
        break;
    case 2:
        ring_get();
        break;
    case 3:
    case 4:
        ring_take();
        break;
    case 5:
        ring_put(rng);
        break;
    case 6:
        ebb_ring_driver_interrupts(&ring.driver, rng_below(rng, 2));
        ebb_ring_device_notifications(&ring.device, rng_below(rng, 2));
        (void)ebb_ring_device_wants_call(&ring.device);
        break;
    default:
        if (rng_below(rng, 6) != 0)
            break;
        if (device_lies) /* the device can write to all of it */
            corrupt(rng, rng_below(rng, 2) ? ring.layout.used : 0, ring.layout.total);
        if (driver_lies)
            corrupt(rng, 0, rng_below(rng, 2) ? ring.layout.used : ring.layout.total);
        break;
    }
    ring_check();
    ring.steps++;
}

static void fuzz_ring(bool device_lies, bool driver_lies)
{
    uint64_t steps = 0;
    unsigned broken = 0;

    for (uint64_t run = 0; steps < 250000; run++) {
        struct rng rng = {rng_seed(run)};

        ring_begin(&rng);
        for (unsigned i = 0; i < 400 && !(ring.driver.broken && ring.device.broken); i++)
            ring_step(&rng, device_lies, driver_lies);
        broken += ring.driver.broken || ring.device.broken;
        steps += ring.steps;
    }
    /* It was neither always in order nor always broken at once. */
    check(rng_replaying() || (broken > 0 && steps / broken > 3));
}

static void ring_with_a_random_device(void **state)
{
    (void)state;
    fuzz_ring(true, false);
}

static void ring_with_a_random_driver(void **state)
{
    (void)state;
    fuzz_ring(false, true);
}

static void ring_with_both(void **state)
{
    (void)state;
    fuzz_ring(true, true);
}

/* An honest pair, with every interleaving that comes up: all tokens come back. */
static void ring_of_honest_halves(void **state)
{
    (void)state;
    for (uint64_t run = 0; run < 500; run++) {
        struct rng rng = {rng_seed(run)};

        ring_begin(&rng);
        for (unsigned i = 0; i < 400; i++) {
            /* ring_put() lies about lengths; here the device may not. */
            const unsigned what = rng_below(&rng, 4);

            if (what == 0)
                ring_add(&rng);
            else if (what == 1)
                ring_get();
            else if (what == 2)
                ring_take();
            else if (ring.held)
                ebb_ring_device_put(&ring.device, ring.heads[--ring.held], 0);
            ring_check();
        }
        while (ring.device.avail_idx != ring.driver.avail_idx || ring.held) {
            ring_take();
            if (ring.held)
                ebb_ring_device_put(&ring.device, ring.heads[--ring.held], 0);
        }
        while (ebb_ring_driver_pending(&ring.driver))
            ring_get();
        ring_check();
        check(ring.driver.free_count == ring.size && !ring.driver.broken && !ring.device.broken);
    }
}

/* ---- the whole driver ---- */

static void random_lie(struct rng *rng)
{
    struct model_queue *q = &loop.model.queues[rng_below(rng, 4)];

    switch (rng_below(rng, 9)) {
    case 0:
        loop.model.ram[rng_below(rng, (unsigned)ebb_balloon_dma_size())] = (uint8_t)rng_next(rng);
        break;
    case 1:
        if (q->size)
            model_raw_used(&loop.model, q, rng_below(rng, q->size + 1), rng_below(rng, 2) * 4096);
        break;
    case 2:
        if (q->size)
            model_raw_used_idx(&loop.model, q, (int)rng_below(rng, 5) - 2);
        break;
    case 3:
        model_resize(&loop.model, (uint32_t)rng_next(rng));
        break;
    case 4:
        model_needs_reset(&loop.model);
        break;
    case 5:
        loop.model.irq = rng_below(rng, 8);
        break;
    case 6:
        loop.model.reporting_len = rng_below(rng, 2) * (uint32_t)rng_next(rng);
        break;
    case 7:
        loop.model.stuck_in_reset = rng_below(rng, 4) == 0;
        break;
    default:
        loop.model.silent = rng_below(rng, 2);
        break;
    }
}

static unsigned accepted, tried_after_death;

static void random_step(struct rng *rng, unsigned lies_in_100)
{
    if (rng_below(rng, 100) < lies_in_100)
        random_lie(rng);
    switch (rng_below(rng, 10)) {
    case 0:
    case 1:
        if (fake_report.device && !fake_report.in_flight) {
            const int err = fake_submit(rng_below(rng, 1000) * 2 * MIB,
                                        (1 + rng_below(rng, 1024)) * MIB, 1 + rng_below(rng, 32));

            accepted += err == 0;
            tried_after_death += err == -EBB_EIO;
            check(err == 0 || err == -EBB_EIO || err == -EBB_EINVAL);
        }
        break;
    case 2:
    case 3:
        (void)ebb_balloon_work(&loop.balloon);
        break;
    case 4:
    case 5:
        loop_irq();
        break;
    case 6:
        if (fake_report.device)
            fake_report.device->ops->poll(fake_report.device);
        break;
    case 7:
        model_resize(&loop.model, rng_below(rng, 5000));
        break;
    case 8:
        model_poll_stats(&loop.model);
        break;
    default:
        (void)model_run(&loop.model);
        break;
    }
    if (rng_below(rng, 200) == 0) {
        if (ebb_balloon_stop(&loop.balloon) != 0) {
            check(loop.model.stuck_in_reset);
            loop.model.stuck_in_reset = false;
            check(ebb_balloon_stop(&loop.balloon) == 0);
        }
        check(!fake_report.in_flight && !fake_report.device);
        /* All frames are the guest's again. */
        memset(loop.frames, LOOP_FREE, sizeof(loop.frames));
        loop.held = 0;
        loop.spare = LOOP_FRAMES;
        loop.model.stuck_in_reset = lies_in_100 > 0 && rng_below(rng, 8) == 0;
        memset(loop.model.ballooned, 0, sizeof(loop.model.ballooned));
        loop.model.balloon_size = 0;
        if (ebb_balloon_start(&loop.balloon, &loop.config) == 0)
            check(ebb_balloon_attach(&loop.balloon, &fake_report.report) == 0);
    }
    /* Every batch that was taken ends once. */
    check(fake_report.completions + fake_report.in_flight == accepted);
    check(fake_report.stray == 0);
    check(loop.wrong == 0);
    check(loop.held <= LOOP_FRAMES && loop.balloon.actual <= LOOP_FRAMES);
}

static void fuzz_balloon(unsigned lies_in_100)
{
    unsigned errors = 0, done = 0;

    tried_after_death = 0;
    for (uint64_t run = 0; run < 300; run++) {
        struct rng rng = {rng_seed(run)};

        accepted = 0;
        loop_init(EBB_F_STATS_VQ | EBB_F_PAGE_REPORTING);
        loop_start();
        for (unsigned i = 0; i < 500; i++)
            random_step(&rng, lies_in_100);
        errors += loop.balloon.counters.protocol_errors != 0;
        done += fake_report.completions;
        if (lies_in_100 == 0) {
            loop_settle();
            check(loop.model.bad_requests == 0);
            check(loop.held == loop.balloon.actual && loop.held == loop.model.balloon_size);
        }
        loop.model.stuck_in_reset = false;
        loop_exit();
    }
    if (rng_replaying())
        return;
    check(done > 300);
    check((errors > 0) == (lies_in_100 > 0));
    check((tried_after_death > 0) == (lies_in_100 > 0));
}

static void balloon_with_an_honest_device(void **state)
{
    (void)state;
    fuzz_balloon(0);
}

static void balloon_with_a_lying_device(void **state)
{
    (void)state;
    fuzz_balloon(3);
}

static void balloon_with_a_mad_device(void **state)
{
    (void)state;
    fuzz_balloon(40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ring_with_a_random_device),
        cmocka_unit_test(ring_with_a_random_driver),
        cmocka_unit_test(ring_with_both),
        cmocka_unit_test(ring_of_honest_halves),
        cmocka_unit_test(balloon_with_an_honest_device),
        cmocka_unit_test(balloon_with_a_lying_device),
        cmocka_unit_test(balloon_with_a_mad_device),
    };

    rng_watch();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
