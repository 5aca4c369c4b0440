/* SPDX-License-Identifier: BSD-2-Clause */
/* The rows there are, each table ending in one without a name. */
#ifndef EBB_TESTS_ROWS_H
#define EBB_TESTS_ROWS_H

#include "setting.h"

extern const struct row rows_engine[];    /* marks, batches, phases, registration */
extern const struct row rows_pacing[];    /* threshold, order, delay, budget, watermarks */
extern const struct row rows_allocator[]; /* isolation, moves, splits, merges, and their policies */
extern const struct row rows_tracker[];   /* what is in the lists and dividers */
extern const struct row rows_faults[];    /* batches that fail */
extern const struct row rows_steps[];     /* anything at every step */

#endif
