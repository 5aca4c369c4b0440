/* SPDX-License-Identifier: BSD-2-Clause */
/* The commands of ebbd's control socket. */
#ifndef EBBD_COMMANDS_H
#define EBBD_COMMANDS_H

#include "ebbd.h"
#include "job.h"

/* For control_config(). */
struct control_commands ebbd_commands(struct ebbd *ebbd);

/* A job that asks all for their state, within the time that a status may take. */
struct job *commands_status_job(struct ebbd *ebbd, struct vm *vm,
                                void (*done)(void *ctx, struct job *job), void *ctx);

/* From it: the state of its VMs, those that were not in time as they were last seen, in an array.
 */
struct json_object *commands_states(struct ebbd *ebbd, const struct job *job);

#endif
