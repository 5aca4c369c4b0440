/* SPDX-License-Identifier: BSD-2-Clause */
/* One front-end that is served: its socket and its kicks in the loop, the session behind them. */
#ifndef EBBD_CONNECTION_H
#define EBBD_CONNECTION_H

#include "ebbd.h"

#include <ebb/vhost/vhost_user.h>

struct vm;
struct connection;

/* fd is the connection's from now on, also if this fails. NULL: errno is set. */
struct connection *connection_new(struct ebbd *daemon, struct vm *vm, int fd, uint64_t rate);

/* Hangs up. Waits for a batch under way. */
void connection_free(struct connection *connection);

/*
 * Hangs up, and leaves the rest to the daemon's reaper: vm_buried() is called when nothing of the
 * connection is left, unless the VM was forgotten by then. Until then it counts for its VM.
 */
void connection_retire(struct connection *connection);
void connection_forget_vm(struct connection *connection);
/* For reaper_new(). */
void connection_end_retired(void *connection);
void connection_ended(void *connection);

struct ebb_vhost_user *connection_session(const struct connection *connection);

/* When it began (log_now_ns()). */
uint64_t connection_since(const struct connection *connection);

/* Has the front-end hung up, unseen so far? */
bool connection_is_gone(const struct connection *connection);

/* Around whatever an operator does to its device or memory; what follows from it is done soon. */
struct ebb_vhost_user *connection_begin(struct connection *connection);
void connection_end(struct connection *connection);

/* The status with which the process ends when memory that a front-end cut cannot be replaced. */
#define CONNECTION_LOST 5

/* Have SIGBUS that guest memory causes end that session and nothing else; if that cannot be, the
 * process ends (CONNECTION_LOST). 0, or -1 with errno. */
int connection_guard(void);

#endif
