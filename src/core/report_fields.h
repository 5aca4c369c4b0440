/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The fields of the engine's configuration, for what goes over all of them: CHOICE(name, how many
 * values, what they are, each of them) and NUMBER(name, largest); 0 is the default of each. Those
 * with values of their own are not here: order and threshold.
 */
#ifndef EBB_CORE_REPORT_FIELDS_H
#define EBB_CORE_REPORT_FIELDS_H

#define EBB__REPORT_FIELDS(CHOICE, NUMBER)                                                       \
    CHOICE(tracker, 5, "rotation, membrane, boundary, bitmap or sorted", "rotation", "membrane", \
           "boundary", "bitmap", "sorted")                                                       \
    CHOICE(split, 2, "inherit or clear", "inherit", "clear")                                     \
    CHOICE(merge, 2, "both or never", "both", "never")                                           \
    CHOICE(move, 3, "keep, demote or follow", "keep", "demote", "follow")                        \
    CHOICE(direction, 2, "ascending or descending", "ascending", "descending")                   \
    CHOICE(execution, 2, "worker or inline", "worker", "inline")                                 \
    CHOICE(pacing, 2, "surplus or delay", "surplus", "delay")                                    \
    NUMBER(window_min_ms, 3600000)                                                               \
    NUMBER(window_max_ms, 3600000)                                                               \
    NUMBER(window_start_ms, 3600000)                                                             \
    NUMBER(refault_ns, 1000000)                                                                  \
    NUMBER(delay_ms, 3600000)                                                                    \
    NUMBER(capacity, 512)                                                                        \
    NUMBER(budget, 1024)                                                                         \
    NUMBER(backoff_ms, 3600000)                                                                  \
    NUMBER(backoff_max_ms, 3600000)

#endif
