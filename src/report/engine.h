/* SPDX-License-Identifier: BSD-2-Clause */
/* Between the files of the engine, and for src/history, which replaces who runs it. */
#ifndef EBB_REPORT_ENGINE_H
#define EBB_REPORT_ENGINE_H

#include <ebb/impl/assert.h>
#include <ebb/report.h>

#define EBB__NS_PER_MS ((uint64_t)1000000)

/* report->batch; anything else is the negative status of a failed batch. */
enum ebb__batch { EBB__BATCH_NONE = 0, EBB__BATCH_IN_FLIGHT = 1, EBB__BATCH_DONE = 2 };

/* Is there a device to report to? Under the engine's lock. */
static inline bool ebb__is_attached(const struct ebb_report *report)
{
    return report->device && !report->changing;
}

static inline void ebb__set_requested(struct ebb_source *source, bool requested)
{
    __atomic_store_n(&source->requested, requested, __ATOMIC_RELAXED);
}

static inline void ebb__set_phase(struct ebb_report *report, enum ebb_report_phase phase)
{
    __atomic_store_n(&report->phase, (uint32_t)phase, __ATOMIC_RELAXED);
}

static inline uint32_t ebb__get_batch(const struct ebb_report *report)
{
    return __atomic_load_n(&report->batch, __ATOMIC_ACQUIRE);
}

/* From a request to its pass, in ns. */
static inline uint64_t ebb__delay(const struct ebb_report *report)
{
    return ebb_pace_slot(&report->pace);
}

/* Have somebody run the engine. With no lock held. */
static inline void ebb__wake(const struct ebb_report *report)
{
    report->wake(report->config.worker);
}

/* ---- engine.c ---- */

/* For unregister: become the runner, without telling one that there is another call to see to;
 * false: somebody else is. And be it no longer: true if somebody came meanwhile. */
bool ebb__try_enter_run(struct ebb_report *report);
void ebb__leave_run(struct ebb_report *report);

/* Give the blocks of a batch that is not in flight back. Returns whether the host was told. */
bool ebb__finish_batch(struct ebb_report *report, uint32_t state);

/* The pass under way, if any, goes no further with its source. */
void ebb__stop_pass(struct ebb_report *report);

/* ---- for src/history ---- */

/* A pass that is due, or waits for its time, is not wanted any more; whoever frees next may ask
 * anew. For those who have no timer. */
void ebb__report_put_off(struct ebb_report *report);

#endif
