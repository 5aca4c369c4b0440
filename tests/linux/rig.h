/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A struct zone (model.h), its source (linux/zone.c), the engine, and what linux/reporting.c does
 * around them: timers, the notification of a free, lists of CPUs. All of it is one thread, on the
 * virtual port's clock. The device writes over what it is told of, and what is allocated has a
 * stamp in each frame.
 */
#ifndef EBB_TESTS_LINUX_RIG_H
#define EBB_TESTS_LINUX_RIG_H

#include "model.h"

#include "../../linux/ebb_reporting.h"

#define MS               UINT64_C(1000000)
#define RIG_BASE         (8 * MAX_ORDER_FRAMES)
#define RIG_LOW          1000 /* watermark, frames */
#define RIG_BLOCKS_LIMIT 65536

struct rig_block {
    unsigned long pfn;
    unsigned order;
};

struct rig {
    struct ebb_report report;
    struct ebb_report_device device;
    struct ebb_zone *ez;
    uint64_t *stamps;
    struct rig_block *blocks; /* allocated */
    unsigned n_blocks;

    /* The device. */
    bool refuses;            /* submit() fails */
    int status;              /* that it completes with */
    uint64_t told, twice;    /* frames; of these, those that it knew of already */
    void (*in_flight)(void); /* called by submit() */

    /* Timers. */
    uint64_t sample_at, check_at; /* EBB_NEVER: it does not run */
    uint64_t drained;
    unsigned drains;
    uint64_t clock_step; /* ns that each look at local_clock() takes */
};

extern struct rig rig;

/* `order`: the smallest that is reported. */
void rig_create(const struct model_config *config, unsigned order);
void rig_destroy(void);
/* Of so many blocks of the largest order. */
struct model_config rig_config(unsigned blocks);

bool rig_alloc(unsigned order, unsigned type);
/* The i-th of rig.blocks. */
void rig_free(unsigned i);
void rig_free_all(void);
/* Allocate all memory in blocks of this order. */
void rig_alloc_all(unsigned order);

/* Let so much time go by. */
void rig_pass_time(uint64_t ns);
/* Until nothing runs any more; it ends the program if that never comes. */
void rig_rest(void);
/* A pass over all there is, as linux/reporting.c makes one for "now". */
void rig_now(void);
/* Memory came or went: as after a notification. */
void rig_resize(void);
/* As the timer. */
void rig_sample(void);

/* All stamps, and all that model_check() checks. */
struct truth rig_check(void);

#endif
