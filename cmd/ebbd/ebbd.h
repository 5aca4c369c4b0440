/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ebbd: the supervisor. It has a back end (ebbd-vm) for each VM, started or adopted, and speaks to
 * operators for all of them. It never reads, writes or closes what came from a front-end, and
 * nothing in its loop waits for anybody.
 */
#ifndef EBBD_H
#define EBBD_H

#include "../common/control.h"
#include "options.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

struct vm;

struct ebbd {
    struct options options;
    struct event_base *base;
    char *state_dir;    /* where back ends have their control sockets */
    bool own_state_dir; /* nobody else will ever look for them there */
    char *program;      /* ebbd-vm's path */
    struct vm **vms;
    unsigned n_vms;
    unsigned turn; /* see commands.c */
    bool in_dir;   /* the current directory is options.socket_dir */
    bool told_ready;
    int failed; /* a back end that never came up: its exit code */
    uint64_t started_ns;
    /* Of VMs still to come. */
    bool inhibit;
    uint64_t rate;
};

/* A VM's back end came up, or will not: whoever waits for all of them looks. */
void ebbd_look(struct ebbd *ebbd);

#endif
