/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A timer of the kernel's that ends this process when its loop is stuck in a call on what a
 * front-end gave it: a file whose lock is held, memory that does not come. It ticks only after
 * work, so a back end at rest does not wake up for it.
 */
#ifndef EBBD_VM_WATCHDOG_H
#define EBBD_VM_WATCHDOG_H

#include <stdbool.h>

/* Work that takes longer ends the process with EXIT_FRONT_END, within twice the time. */
#define WATCHDOG_S 3

/* `name` is the VM's. False: errno is set. */
bool watchdog_start(const char *name);

/* Work begins, and has ended. */
void watchdog_begin(void);
void watchdog_end(void);

/* After watchdog_begin(): this work may take so much longer. */
void watchdog_allow(unsigned seconds);

#endif
