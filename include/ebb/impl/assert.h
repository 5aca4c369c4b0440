/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Assertions, in three tiers. A broken one ends in the port's panic.
 *
 *   EBB_ASSERT         always: what would lose data if it were wrong
 *   EBB_DEBUG_ASSERT   with EBB_DEBUG >= 1: counters and links; a few instructions each
 *   EBB_EXPENSIVE      with EBB_DEBUG >= 2: a statement that walks a structure
 *
 * Test builds have EBB_DEBUG=2, or 1 where a walk after each step would take too
 * long. What is off is still compiled, and costs nothing.
 */
#ifndef EBB_IMPL_ASSERT_H
#define EBB_IMPL_ASSERT_H

#include <ebb/port.h>

#ifndef EBB_DEBUG
#define EBB_DEBUG 0
#endif

#define EBB_ASSERT(condition)                           \
    do {                                                \
        if (EBB_UNLIKELY(!(condition)))                 \
            ebb_port_panic("ebb: broken: " #condition); \
    } while (0)

#define EBB_DEBUG_ASSERT(condition) \
    do {                            \
        if (EBB_DEBUG >= 1)         \
            EBB_ASSERT(condition);  \
    } while (0)

#define EBB_EXPENSIVE(statement) \
    do {                         \
        if (EBB_DEBUG >= 2) {    \
            statement;           \
        }                        \
    } while (0)

#endif
