/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What ebbd-vm gives up before it serves anybody, after its user and all capabilities, in this
 * order: its namespaces (what it could see of the machine), limits, files and network (Landlock),
 * and most system calls (seccomp), of the thread that discards by a list of its own.
 *
 * A call that is not allowed fails with EPERM. It does not end the process: a front-end loses its
 * balloon for good when its back end dies, and QEMU may stop altogether.
 *
 * No namespace of process ids: only a new process would be in it, and without kill(), ptrace() and
 * /proc it hides nothing.
 */
#ifndef EBBD_VM_SANDBOX_H
#define EBBD_VM_SANDBOX_H

#include <ebb/vhost/discard.h>

#include <stdbool.h>

/* These explain on stderr what went wrong; false: do not go on. */

/* A user namespace, and in it an empty root that cannot be written to, no network, no IPC, no name
 * of the machine; without capabilities again. What the machine does not let it have it goes
 * without, and says so of the first two. No file can be found by a name after it. */
bool sandbox_namespaces(void);

/* As many descriptors, and as much memory of its own, as serving one VM takes. */
bool sandbox_limits(void);

/* No file can be opened, made or removed any more, no address be bound or connected to, no process
 * outside be signalled, by this thread and those that it makes later. */
bool sandbox_files(void);

/* A pool of one thread, which can do little but discard. NULL: explained. */
struct ebb_discard_pool *sandbox_pool(void);

/* Only the calls that serving takes, for this thread. */
bool sandbox_calls(void);

#endif
