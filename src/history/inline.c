/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Execution inline, as in the RFC of May 2019: the context that frees runs the engine at the end
 * of its free, and each completion sends the next batch. There is no worker, so whatever would
 * wake one comes here instead.
 */
#include "tracker.h"

#include "../report/engine.h"

/* Passes that one call runs for others who ask meanwhile. It has to end; but what is freed during
 * the last of them waits for a later free, so that should be rare. */
#define INLINE_PASSES 256u

/* history->running */
enum running { RUN_FREE = 0, RUN_TAKEN = 1, RUN_WANTED = 2 };

/* As the engine's own: one runs, and is told if somebody came meanwhile. */
static bool enter_inline(struct ebb_history *history)
{
    uint32_t seen = __atomic_load_n(&history->running, __ATOMIC_RELAXED);
    uint32_t next;

    do {
        next = seen == RUN_FREE ? RUN_TAKEN : RUN_WANTED;
    } while (!__atomic_compare_exchange_n(&history->running, &seen, next, true, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
    return seen == RUN_FREE;
}

/* Whoever came meanwhile is seen to by another round. */
static bool leave_inline(struct ebb_history *history)
{
    uint32_t seen = RUN_TAKEN;

    if (__atomic_compare_exchange_n(&history->running, &seen, RUN_FREE, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        return true;
    __atomic_store_n(&history->running, RUN_TAKEN, __ATOMIC_RELAXED);
    return false;
}

void ebb__history_run_inline(void *worker)
{
    struct ebb_history *history = worker;
    struct ebb_report *report = history->report;
    unsigned passes = INLINE_PASSES;

    if (!enter_inline(history))
        return;
    do {
        uint64_t due = ebb_report_run(report);

        passes += passes == 0; /* one for each who came meanwhile */
        while (due != EBB_NEVER && due <= ebb_port_now() && --passes > 0)
            due = ebb_report_run(report);
        /* A back-off, or enough for one call: whoever frees next may ask anew. */
        if (due != EBB_NEVER)
            ebb__report_put_off(report);
    } while (!leave_inline(history));
}
