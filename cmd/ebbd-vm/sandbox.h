/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What ebbd-vm gives up before it serves anybody, after its user and all capabilities, in this
 * order: files (Landlock), and most system calls (seccomp).
 *
 * A call that is not allowed fails with EPERM. It does not end the process: a front-end loses its
 * balloon for good when its back end dies, and QEMU may stop altogether.
 */
#ifndef EBBD_VM_SANDBOX_H
#define EBBD_VM_SANDBOX_H

#include <stdbool.h>

/* These explain on stderr what went wrong; false: do not go on. */

/* No file can be opened, made or removed any more, by this thread and those that it makes later. */
bool sandbox_files(void);

/* Only the calls that serving takes, for all threads. */
bool sandbox_calls(void);

#endif
