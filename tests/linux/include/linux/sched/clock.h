/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef EBB_TESTS_LINUX_SCHED_CLOCK_H
#define EBB_TESTS_LINUX_SCHED_CLOCK_H

#include "../kernel.h"

/* ns; the test's. */
u64 local_clock(void);

#endif
