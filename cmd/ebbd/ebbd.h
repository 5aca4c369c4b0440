/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ebbd: one process that serves the balloons of many VMs. One thread, the loop's, does everything
 * but discarding, which the pool's threads do. Nothing in the loop waits for a front-end or for a
 * client.
 */
#ifndef EBBD_H
#define EBBD_H

#include "options.h"

#include <ebb/vhost/discard.h>

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

struct reaper;
struct vm;

struct ebbd {
    struct options options;
    struct event_base *base;
    struct ebb_discard_pool *pool;
    struct ebb_vhost_user_events *events;
    int closer; /* see closer.h; -1: none */
    struct reaper *reaper;
    struct vm **vms;
    unsigned n_vms;
    bool in_dir; /* the current directory is options.socket_dir */
    uint64_t started_ns;
    /* Of VMs still to come. */
    bool inhibit;
    uint64_t rate;
};

/* A VM's only connection is gone: the loop ends when nothing is left to serve or to listen on. */
void ebbd_end_if_idle(struct ebbd *daemon);

#endif
