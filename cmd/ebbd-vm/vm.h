/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The VM: a socket on which its front-end comes, goes and comes again, and what is served there.
 * Limits, the inhibit switch and counters are the VM's and outlast a front-end; the balloon's
 * target does not.
 */
#ifndef EBBD_VM_VM_H
#define EBBD_VM_VM_H

#include "../common/log.h"
#include "backend.h"

#include <ebb/vhost/vhost_user.h>

/* Its socket is `listening` (at `path`; NULL: nowhere) or, without (-1), the front-end's
 * `connected` alone; both are the VM's from now on. NULL: errno is set. */
struct vm *vm_new(struct backend *backend, int listening, const char *path, int connected);
/* Gives back what is done, and hangs up. */
void vm_free(struct vm *vm);

const char *vm_name(const struct vm *vm);
const char *vm_path(const struct vm *vm);
bool vm_connected(const struct vm *vm);

/* ---- what an operator does; NULL: it is not connected ---- */

/* Its device, and the end of what was done to it: guest memory may be touched in between only. */
struct ebb_balloon_device *vm_begin(const struct vm *vm);
void vm_end(const struct vm *vm);

/* False: a discard that began before still goes on; ask again. */
bool vm_inhibit(struct vm *vm, bool on);
bool vm_inhibited(const struct vm *vm);
void vm_set_rate(struct vm *vm, uint64_t rate);

/* ---- sight ---- */

/* Guest memory of one kind. */
struct vm_regions {
    enum ebb_backing backing;
    uint64_t page;
    unsigned n;
    uint64_t bytes;
};
#define VM_KINDS 16u /* of regions; what is beyond is counted with the last */

/* How front-ends came and went. */
struct vm_front_ends {
    uint64_t connections;
    uint64_t hangups;         /* between two messages */
    uint64_t protocol_errors; /* sessions that ebbd ended */
    uint64_t turned_away;     /* came while another was served, or could not be */
    uint64_t messages;
    uint64_t refused; /* requests */
};

/* All that can be told of a VM; counters are of all front-ends together. */
struct vm_view {
    uint64_t connected_ns; /* for how long; 0: not connected */
    struct vm_front_ends front_ends;
    const char *last_error; /* why ebbd ended a session; NULL: it never did */
    const char *notes;      /* why some of the memory is not given back; NULL: all is */
    bool needs_reset, inhibited;
    uint64_t rate;
    uint64_t features;
    uint64_t assigned, resident;
    unsigned kinds;
    struct vm_regions regions[VM_KINDS];
    uint64_t target, actual;                /* bytes */
    uint64_t guest_age_ns;                  /* of the statistics below */
    struct ebb_balloon_guest_stats guest;   /* at_ns 0: none */
    struct ebb_balloon_device_stats device; /* counters */
    struct ebb_discard_stats discard;       /* counters, but for gathered_bytes and last_error */
};
void vm_look(const struct vm *vm, struct vm_view *view);

/* Bytes that the files behind these regions take, each file once. */
uint64_t vm_resident(const struct ebb_memory *memory);

/* ---- for its connection ---- */

/* What a log line is about. */
enum cause {
    CAUSE_CONNECT,
    CAUSE_HANGUP,
    CAUSE_ENDED,
    CAUSE_TURNED_AWAY,
    CAUSE_FAULT,
    CAUSE_DISCARD,
    CAUSE_MEMORY,
    CAUSE_OPERATOR,
    CAUSES
};
struct log_limit *vm_limit(struct vm *vm, enum cause cause);

/* Its front-end hung up (`reason` NULL), or its session has ended for a reason, with an errno or 0.
 * The connection is gone afterwards. */
void vm_ended(struct vm *vm, const char *reason, int error);

#endif
