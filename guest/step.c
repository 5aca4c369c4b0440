/* SPDX-License-Identifier: BSD-2-Clause */
/* What steps of a workload have in common. */
#include "step.h"

#define RECORD_SHARE 512u /* blocks that one record frame holds */

static bool corrupt_next;

void step_fail(struct step *step, int error)
{
    int none = 0;

    __atomic_compare_exchange_n(&step->error, &none, error, false, __ATOMIC_RELAXED,
                                __ATOMIC_RELAXED);
}

bool step_note_due(struct step *step, unsigned cpu)
{
    uint64_t now;

    if (cpu != 0)
        return false;
    now = arch_now();
    if (step->next_note == 0)
        step->next_note = now + NS_PER_SEC;
    if (now < step->next_note)
        return false;
    step->next_note = now + NS_PER_SEC;
    return true;
}

const char *step_problem(int error)
{
    switch (error) {
    case -EBB_EAGAIN:
        return "the host does not answer a report";
    case -EBB_EBUSY:
        return "memory that cannot be moved is in the way";
    case -EBB_EINVAL:
    case -EBB_ENOENT:
        return "not all of that is memory of the guest";
    default:
        return "memory ran short";
    }
}

enum status step_finish(const struct step *step)
{
    if (hold_errors()) {
        console_print("%s: %lu frames in use were lost\n", step->name, hold_errors());
        return STATUS_VERIFY;
    }
    if (step->error) {
        console_print("%s: %s (error %d); what it had taken is free again\n", step->name,
                      step_problem(step->error), step->error);
        return STATUS_USAGE;
    }
    return STATUS_OK;
}

bool step_fits(const char *name, uint64_t frames, unsigned sets)
{
    struct memory_totals totals;
    uint64_t can, records = sets ? frames / RECORD_SHARE + 2 * sets * cpus_online() : 0;
    char want[16], more[16], have[16];

    memory_totals(&totals);
    can = totals.free + totals.cached + totals.in_flight;
    can = can > memory_reserve() ? can - memory_reserve() : 0;
    if (frames + records <= can)
        return true;
    console_print("%s: %s%s%s%s more than the %s that are free\n", name,
                  text_size(want, frames * FRAME_KIB), records ? ", and " : "",
                  records ? text_size(more, records * FRAME_KIB) : "",
                  records ? " for its records, are" : " are", text_size(have, can * FRAME_KIB));
    return false;
}

void step_corrupt_next(void)
{
    corrupt_next = true;
}

bool step_corrupt_asked(void)
{
    return __atomic_exchange_n(&corrupt_next, false, __ATOMIC_RELAXED);
}

void step_corrupt(void)
{
    if (corrupt_next && hold_corrupt())
        corrupt_next = false;
}
