/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The answer to `status`, kept in a file for the supervisor: it looks there and wakes nobody. Of
 * one who reads while it is written, `begin` and `end` differ. While there is something newer the
 * first byte is a '!' instead of a brace: to know that one has to ask.
 */
#ifndef EBBD_VM_STATE_H
#define EBBD_VM_STATE_H

#include "backend.h"

/* Anew, beside the control socket, while files can still be made; `vm` is the VM's socket, or NULL.
 * False: errno is set. */
bool state_open(struct backend *backend, const char *control, const char *vm);
/* When the VM is there. False: errno is set. */
bool state_start(struct backend *backend);
void state_close(struct backend *backend);

/* Something is about to change: it is written soon. */
void state_changed(struct backend *backend);
/* At once. */
void state_write(struct backend *backend);

#endif
