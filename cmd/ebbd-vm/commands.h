/* SPDX-License-Identifier: BSD-2-Clause */
/* The commands of a back end's control socket. */
#ifndef EBBD_VM_COMMANDS_H
#define EBBD_VM_COMMANDS_H

#include "backend.h"

/* For control_config(). */
struct control_commands backend_commands(struct backend *backend);

#endif
