/* SPDX-License-Identifier: BSD-2-Clause */
/* What steps of a workload have in common. */
#ifndef GUEST_STEP_H
#define GUEST_STEP_H

#include "guest.h"

/* A step under way, shared by all CPUs. */
struct step {
    const char *name;
    uint64_t total; /* frames */
    uint64_t left;  /* atomic: not taken on by any CPU yet */
    int error;      /* atomic: the first one */
    uint64_t k;
    uint64_t deadline;
    uint64_t operations; /* atomic */
    uint64_t next_note;  /* CPU 0 */
};

static inline int step_error(const struct step *step)
{
    return __atomic_load_n(&step->error, __ATOMIC_RELAXED);
}
void step_fail(struct step *step, int error);

/* One line a second at most, from CPU 0, about long steps. */
bool step_note_due(struct step *step, unsigned cpu);

/* What went wrong, for people. */
const char *step_problem(int error);
/* The step's status; says what went wrong. */
enum status step_finish(const struct step *step);

/* Refuse what cannot be: clearer than running into it. In `sets` sets of each
 * CPU's, whose records begin with two frames; 0: without records. */
bool step_fits(const char *name, uint64_t frames, unsigned sets);

/* The command `corrupt`: a frame of the next step is to be overwritten. step_corrupt() does so if
 * that is a held one; step_corrupt_asked() leaves it to the caller, once. */
void step_corrupt_next(void);
void step_corrupt(void);
bool step_corrupt_asked(void);

#endif
