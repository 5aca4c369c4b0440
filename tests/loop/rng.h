/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Seeded random numbers for tests, with a seed that a failure prints and that
 * EBB_SEED=... replays.
 */
#ifndef EBB_TESTS_RNG_H
#define EBB_TESTS_RNG_H

#include <stdint.h>
#include <stdlib.h>

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

/* The seed of a test's run number `run`: EBB_SEED for every run, if it is set. */
static inline uint64_t rng_seed(uint64_t run)
{
    const char *seed = getenv("EBB_SEED");

    return seed ? strtoull(seed, NULL, 0) : run;
}

#endif
