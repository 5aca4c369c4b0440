/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ebbd-vm: the back end of one VM. One thread, the loop's, does everything but discarding, which
 * another does. What its front-end or its guest makes it do ends at worst this process, which
 * serves nobody else.
 */
#ifndef EBBD_VM_BACKEND_H
#define EBBD_VM_BACKEND_H

#include "../common/control.h"
#include "options.h"

#include <ebb/vhost/discard.h>

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

struct vm;

/* An exit code: what its front-end gave it left no other way out. */
#define EXIT_FRONT_END 5

/* See state.h. */
struct state {
    int fd; /* -1: none */
    struct event *timer;
    uint64_t writes;
    char socket_file[48]; /* of the VM's socket: device and inode number */
};

struct backend {
    struct options options;
    struct event_base *base;
    struct ebb_discard_pool *pool;
    struct ebb_vhost_user_events *events;
    struct control_commands commands;
    struct server_config control_config;
    struct server *control; /* NULL: none */
    struct vm *vm;
    const struct control *supervisor; /* a client: see the command `supervise` */
    bool was_supervised, ending;      /* ending: it was told to */
    struct event *end;                /* looks whether it still is to end */
    struct state state;
    uint64_t started_ns;
};

/* End, soon, if it is to leave and has no front-end; an orphan, a little later, if no other
 * supervisor has come by then. */
void backend_end_if_idle(struct backend *backend);

#endif
