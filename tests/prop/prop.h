/* SPDX-License-Identifier: BSD-2-Clause */
/* What the property tests share: random numbers and settings from the environment. */
#ifndef EBB_TESTS_PROP_H
#define EBB_TESTS_PROP_H

#include <stdint.h>
#include <stdlib.h>

/* splitmix64: any seed is good, also 0. */
static inline uint64_t prop_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* A number below n. */
static inline uint64_t prop_below(uint64_t *state, uint64_t n)
{
    return prop_random(state) % n;
}

/* Operations in all: EBB_PROP_OPS, or the default, which is an eighth under the
 * thread sanitizer: it slows them down by twenty. */
static inline uint64_t prop_ops(uint64_t by_default)
{
    const char *text = getenv("EBB_PROP_OPS");
    uint64_t ops = text ? strtoull(text, NULL, 10) : 0;

#ifdef EBB_TEST_SLOW
    by_default /= 8;
#endif
    return ops ? ops : by_default;
}

#endif
