/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Seeded random numbers for tests, with a seed that a failure prints and that
 * EBB_SEED=... replays.
 */
#ifndef EBB_TESTS_RNG_H
#define EBB_TESTS_RNG_H

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct rng {
    uint64_t state;
};

static inline uint64_t rng_next(struct rng *rng)
{
    uint64_t x = rng->state += 0x9e3779b97f4a7c15u;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* 0 to n, exclusive. */
static inline unsigned rng_below(struct rng *rng, unsigned n)
{
    return (unsigned)(rng_next(rng) % n);
}

static volatile uint64_t rng_current; /* seed of the run under way */

static inline void rng_say(void)
{
    char line[64];
    const int n = snprintf(line, sizeof(line), "replay with EBB_SEED=%llu\n",
                           (unsigned long long)rng_current);

    if (write(2, line, (size_t)n) != n)
        return;
}

static inline void rng_die(int signal_number)
{
    rng_say();
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* Defined where a sanitizer is linked in. */
extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

/* Say the seed also when the program crashes, hangs until it is stopped, or is
 * ended by a sanitizer. To be called once, first thing. */
static inline void rng_watch(void)
{
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(rng_say);
    else
        signal(SIGSEGV, rng_die);
    signal(SIGABRT, rng_die);
    signal(SIGTERM, rng_die);
}

/* All runs are the same one: what a test asserts of many does not hold. */
static inline int rng_replaying(void)
{
    return getenv("EBB_SEED") != NULL;
}

/* The seed of a test's run number `run`: EBB_SEED for every run, if it is set. */
static inline uint64_t rng_seed(uint64_t run)
{
    const char *seed = getenv("EBB_SEED");

    return rng_current = seed ? strtoull(seed, NULL, 0) : run;
}

#endif
