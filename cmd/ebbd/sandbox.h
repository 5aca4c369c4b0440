/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What ebbd gives up before it serves anybody, in this order: its user (if told to) and all
 * capabilities, files (Landlock), and most system calls (seccomp).
 *
 * A call that is not allowed fails with EPERM. It does not end the process: a front-end loses its
 * balloon for good when its back-end dies, and QEMU may stop altogether, so what goes wrong for one
 * VM must not end the others.
 */
#ifndef EBBD_SANDBOX_H
#define EBBD_SANDBOX_H

#include <stdbool.h>

/* These explain on stderr what went wrong; false: do not go on. */

/* Become a user, NULL: stay; without capabilities, which cannot be had again. */
bool sandbox_user(const char *user);

/* No file can be opened, made or removed any more, by this thread and those that it makes later;
 * but for sockets in the current directory, if `sockets`. */
bool sandbox_files(bool sockets);

/* Only the calls that serving takes, for all threads; `sockets`: and those that make and remove
 * Unix sockets. */
bool sandbox_calls(bool sockets);

#endif
