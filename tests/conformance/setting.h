/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the conformance suite runs over: a setting of the engine, and the rows that
 * must hold in each. A row is a test that is handed a setting; what differs between
 * settings by contract it asks the functions here.
 */
#ifndef EBB_TESTS_SETTING_H
#define EBB_TESTS_SETTING_H

#include "report_rig.h"

enum pacing {
    PACING_ALL,   /* threshold 1, budget 1 */
    PACING_HWM,   /* threshold 32 */
    PACING_TWICE, /* threshold twice the capacity */
    PACING_BUDGET /* budget 16 */
};
#define PACINGS 4u

struct setting {
    enum ebb_tracker tracker;
    enum ebb_execution execution;
    enum pacing pacing;
};

struct row {
    const char *name;
    void (*run)(const struct setting *setting);
    bool (*when)(const struct setting *setting); /* NULL: always */
};

/* The suite's zone: 64 blocks of 16 frames, pageblocks of 8; the device takes 8
 * blocks at once. */
#define C_BLOCKS    64u
#define C_ORDER     4u
#define C_PAGEBLOCK 3u
#define C_FRAMES    ((uint64_t)1 << C_ORDER)
#define C_CAPACITY  8u
#define C_DELAY     (EBB_HISTORY_DELAY_MS * MS)

bool is_worker(const struct setting *setting);
bool is_inline(const struct setting *setting);
bool is_all(const struct setting *setting);        /* pacing */
bool is_threshold(const struct setting *setting);  /* pacing with a threshold above 1 */
bool is_twice(const struct setting *setting);      /* pacing */
bool is_budget(const struct setting *setting);     /* pacing */
bool is_not_budget(const struct setting *setting); /* a pass takes all there is */
bool is_all_worker(const struct setting *setting);
bool is_all_inline(const struct setting *setting);
bool is_rotation(const struct setting *setting);
bool is_membrane(const struct setting *setting);
bool is_boundary(const struct setting *setting);
bool is_bitmap(const struct setting *setting);
bool is_sorted(const struct setting *setting);
bool has_dividers(const struct setting *setting);
bool has_direction(const struct setting *setting);

/* "rotation/worker/all" */
const char *setting_name(const struct setting *setting, char *text, size_t size);
/* Write the setting into a configuration. */
void setting_apply(const struct setting *setting, struct ebb_history_config *config);

/* A rig with that setting. What is zero in the configuration is the suite's zone. */
struct rig *rig_with(const struct setting *setting, const struct rig_config *config);
/* Blocks of one order that have to be unreported for a free to ask for a pass. */
unsigned need(const struct rig *rig);
/* Take as many blocks of the largest order as that, or give them back. */
unsigned take_need(struct rig *rig, unsigned zone, ebb_pfn_t *pfns);
/* What is due begins: the delay passes, and the worker runs. Inline it has begun
 * already. */
void begin(struct rig *rig);
/* Somebody asks for a pass, whatever the threshold; all comes to rest. */
void flush(struct rig *rig);
/* Register; everything is reported; forget the log. */
void register_and_flush(struct rig *rig);
/* From now on every invariant is walked at every step of the port. */
void check_every_step(struct rig *rig);
uint64_t all_reported(const struct rig *rig);
/* How often each of these blocks was in a batch: that often, or it fails. */
void assert_times(const struct rig *rig, const ebb_pfn_t *pfns, unsigned n, unsigned times);

#endif
