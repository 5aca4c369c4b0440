/* SPDX-License-Identifier: BSD-2-Clause */
/* Marks set by hand, for tests of trackers: the only list of a zone of 64 blocks, in any pattern,
 * which is more than the engine ever leaves. */
#ifndef EBB_TESTS_MARKS_H
#define EBB_TESTS_MARKS_H

#include "report_rig.h"
#include "tracker.h"

#define BLOCKS 64u
#define ORDER  2u

/* Make the rig believe that the host was told of a block. */
static inline void tell(struct rig *rig, uint32_t index)
{
    memset(rig->told[0] + index, 1, 1u << ORDER);
}

/* Relink all blocks, block i marked if bit i says so. A tracker need not cope with what this
 * does to its list, so it is told to begin anew. */
static inline void mark(struct rig *rig, uint64_t marks)
{
    struct ebb_zone *zone = &rig->zones[0];

    ebb_port_lock(&zone->lock);
    ebb__reset_list(zone, ORDER, EBB_MOVABLE);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        ebb__unlink(zone, i << ORDER);
        if (marks >> i & 1)
            tell(rig, i << ORDER);
        ebb__link(zone, i << ORDER, ORDER, EBB_MOVABLE, marks >> i & 1, EBB__TAIL);
    }
    ebb_port_unlock(&zone->lock);
}

static const uint64_t patterns[] = {
    0,
    UINT64_MAX,
    1,
    UINT64_MAX - 1,
    (uint64_t)1 << 63,
    UINT64_MAX >> 1,
    0x5555555555555555,
    0xaaaaaaaaaaaaaaaa,
    0x00000000ffffffff,
    0xffffffff00000000,
    0x0f0f0f0f0f0f0f0f,
    0x8000000000000001,
    0x7ffffffffffffffe,
};
#define N_PATTERNS (sizeof(patterns) / sizeof(patterns[0]))

#endif
