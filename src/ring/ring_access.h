/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How both halves of a ring touch shared memory.
 *
 * Indices and flags are read and written sequentially consistent. That is more
 * than publishing needs (a release store of the index, paired with an acquire
 * load), but the other half of the protocol needs it: each side stores its index
 * and then looks at the other's flags, while the other stores its flags and then
 * looks at the index. If both could read the old value, a notification would be
 * lost for good. Everything else in the ring is ordered by an index.
 */
#ifndef EBB_RING_ACCESS_H
#define EBB_RING_ACCESS_H

#include <ebb/ring.h>

_Static_assert(sizeof(struct ebb_ring_desc) == 16, "descriptor layout");
_Static_assert(sizeof(struct ebb_ring_used_elem) == 8, "used element layout");
_Static_assert(EBB_RING_SIZE_LIMIT <= 0x8000, "indices differ by at most the size");

/* The ring knows no port to tell what is broken: test builds trap. Only of what this half keeps by
 * itself, never of what the other one wrote. */
#ifndef EBB_DEBUG
#define EBB_DEBUG 0
#endif
#define RING_ASSERT(condition)              \
    do {                                    \
        if (EBB_DEBUG >= 1 && !(condition)) \
            __builtin_trap();               \
    } while (0)

/* The driver area and the device area both begin with these. */
#define EBB__RING_FLAGS   0
#define EBB__RING_IDX     1
#define EBB__RING_ENTRIES 2

static inline bool ebb__ring_size_ok(unsigned size)
{
    return size > 0 && size <= EBB_RING_SIZE_LIMIT && (size & (size - 1)) == 0;
}

static inline uint16_t ebb__ring_load(const volatile uint16_t *field)
{
    return __atomic_load_n(field, __ATOMIC_SEQ_CST);
}

static inline void ebb__ring_store(volatile uint16_t *field, uint16_t value)
{
    __atomic_store_n(field, value, __ATOMIC_SEQ_CST);
}

static inline volatile struct ebb_ring_used_elem *ebb__used_elem(volatile uint16_t *used,
                                                                 unsigned size, uint16_t idx)
{
    RING_ASSERT(ebb__ring_size_ok(size));
    volatile void *elems = used + EBB__RING_ENTRIES;
    return (volatile struct ebb_ring_used_elem *)elems + (idx & (size - 1));
}

#endif
