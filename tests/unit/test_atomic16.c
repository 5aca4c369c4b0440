/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compare and swap of 16 bits: as this machine does it, and by the word around them, which is
 * here on every machine.
 */
#include "atomic16.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define TURNS 300000u

static bool (*const swaps[])(uint16_t *at, uint16_t seen, uint16_t to) = {
    ebb__swap16,
    ebb__swap16_in_word,
};
#define SWAPS (sizeof(swaps) / sizeof(swaps[0]))

/* A word in the middle of others, and one of its halves at a time. */
static void test_one_half(void **state)
{
    (void)state;
    for (unsigned s = 0; s < SWAPS; s++) {
        for (unsigned half = 0; half < 2; half++) {
            _Alignas(4) uint16_t at[6] = {1, 2, 0xffff, 0x8001, 5, 6};
            uint16_t *one = &at[2 + half];
            const uint16_t other = at[3 - half];
            const uint16_t seen = *one;

            assert_false(swaps[s](one, (uint16_t)(seen ^ 1), 7));
            assert_false(swaps[s](one, other, 7));
            assert_int_equal(*one, seen);
            assert_true(swaps[s](one, seen, 0x1234));
            assert_int_equal(*one, 0x1234);
            assert_true(swaps[s](one, 0x1234, 0));
            assert_int_equal(*one, 0);
            assert_int_equal(at[3 - half], other);
            assert_int_equal(at[0], 1);
            assert_int_equal(at[1], 2);
            assert_int_equal(at[4], 5);
            assert_int_equal(at[5], 6);
        }
    }
}

/* One thread: what it does to its half, and what went wrong. */
struct side {
    uint16_t *at;
    bool (*swap)(uint16_t *at, uint16_t seen, uint16_t to); /* NULL: plain stores */
    uint32_t *ready;
    uint32_t done; /* swaps that took effect */
    uint32_t lost;
};

static void meet(uint32_t *ready)
{
    __atomic_fetch_add(ready, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(ready, __ATOMIC_ACQUIRE) < 2)
        ;
}

/* This half is nobody else's: what was written last is there, whatever the other side does. */
static void *own(void *arg)
{
    struct side *side = arg;

    meet(side->ready);
    for (uint32_t i = 0; i < TURNS; i++) {
        const uint16_t next = (uint16_t)(i + 1);

        if (side->swap)
            side->lost += !side->swap(side->at, (uint16_t)i, next);
        else
            __atomic_store_n(side->at, next, __ATOMIC_RELAXED);
        side->lost += __atomic_load_n(side->at, __ATOMIC_RELAXED) != next;
    }
    return NULL;
}

/* Both count up the same half. */
static void *share(void *arg)
{
    struct side *side = arg;

    meet(side->ready);
    for (uint32_t i = 0; i < TURNS; i++) {
        const uint16_t seen = __atomic_load_n(side->at, __ATOMIC_RELAXED);

        side->done += side->swap(side->at, seen, (uint16_t)(seen + 1));
    }
    return NULL;
}

static void run_both(void *(*run)(void *), struct side *a, struct side *b)
{
    uint32_t ready = 0;
    pthread_t thread;

    a->ready = b->ready = &ready;
    assert_int_equal(pthread_create(&thread, NULL, run, b), 0);
    run(a);
    pthread_join(thread, NULL);
}

static void test_halves_are_apart(void **state)
{
    (void)state;
    for (unsigned s = 0; s < SWAPS; s++) {
        for (unsigned half = 0; half < 2; half++) {
            _Alignas(4) uint16_t at[2] = {0};
            struct side swapping = {.at = &at[half], .swap = swaps[s]};
            struct side other = {.at = &at[1 - half]};

            run_both(own, &swapping, &other);
            assert_int_equal(swapping.lost, 0);
            assert_int_equal(other.lost, 0);

            at[0] = at[1] = 0;
            other.swap = swaps[s];
            run_both(own, &swapping, &other);
            assert_int_equal(swapping.lost, 0);
            assert_int_equal(other.lost, 0);
        }
    }
}

static void test_one_wins(void **state)
{
    (void)state;
    for (unsigned s = 0; s < SWAPS; s++) {
        _Alignas(4) uint16_t at[2] = {0, 0x5555};
        struct side a = {.at = &at[0], .swap = swaps[s]};
        struct side b = a;

        run_both(share, &a, &b);
        assert_int_equal((uint16_t)(a.done + b.done), at[0]);
        /* Who fails has met a success of the other. */
        assert_true(a.done + b.done >= TURNS);
        assert_int_equal(at[1], 0x5555);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_half),
        cmocka_unit_test(test_halves_are_apart),
        cmocka_unit_test(test_one_wins),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
