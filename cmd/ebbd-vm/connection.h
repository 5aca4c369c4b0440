/* SPDX-License-Identifier: BSD-2-Clause */
/* The front-end that is served: its socket and its kicks in the loop, the session behind them. */
#ifndef EBBD_VM_CONNECTION_H
#define EBBD_VM_CONNECTION_H

#include "backend.h"

#include <ebb/vhost/vhost_user.h>

struct connection;

/* fd is the connection's from now on, also if this fails. NULL: errno is set. */
struct connection *connection_new(struct backend *backend, struct vm *vm, int fd, uint64_t rate);

/* Hangs up. Waits for a batch under way. */
void connection_free(struct connection *connection);

struct ebb_vhost_user *connection_session(const struct connection *connection);

/* When it began (log_now_ns()). */
uint64_t connection_since(const struct connection *connection);

/* Has the front-end hung up, unseen so far? */
bool connection_is_gone(const struct connection *connection);

/* Around whatever an operator does to its device or memory; what follows from it is done soon. */
struct ebb_vhost_user *connection_begin(struct connection *connection);
void connection_end(struct connection *connection);

/* Have SIGBUS that guest memory causes end that session and nothing else; if that cannot be, the
 * process ends (EXIT_FRONT_END). 0, or -1 with errno. */
int connection_guard(void);

#endif
