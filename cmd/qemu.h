/* SPDX-License-Identifier: BSD-2-Clause */
/* QEMU: its command line, its version, and what its exit status means. */
#ifndef QEMU_H
#define QEMU_H

#include "run.h"

/* The descriptors that QEMU inherits. */
struct qemu_fds {
    int telemetry; /* a pipe, to write */
    int console;   /* a connected socket */
    int err;       /* its standard error */
    int balloon;   /* a connected socket, to ebbd; -1: the balloon is its own */
};

/* "7.2.22", from `qemu --version`; NULL, and an explanation on stderr, if that
 * does not run. To be freed. */
char *qemu_version(const char *path);

/* Has a QEMU of this version the generic vhost-user device? */
bool qemu_has_vhost_user(const char *version);

/* Start it. The pid, or a negated errno. */
pid_t qemu_start(const struct run *run, const struct qemu_fds *fds);

/* What the wait status of a QEMU means that ended by itself; `booted`, `ended`:
 * the guest's first line of telemetry was read, and its last. */
enum run_status qemu_outcome(int wait_status, bool booted, bool ended);

#endif
