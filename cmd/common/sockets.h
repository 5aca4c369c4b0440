/* SPDX-License-Identifier: BSD-2-Clause */
/* Listening. */
#ifndef COMMON_SOCKETS_H
#define COMMON_SOCKETS_H

#include <event2/event.h>
#include <stdbool.h>
#include <sys/types.h>

/* NAME.sock: what a VM's socket is called. */
#define SOCKET_SUFFIX ".sock"

/*
 * A socket that listens at path, for its owner and group alone. A socket that is left there and
 * that nobody listens on is replaced; of several that try, one wins. -1: errno is set; EADDRINUSE:
 * another process listens there or is about to, or it is no socket. What holds the others off is a
 * file PATH.lock, for that moment.
 */
int sockets_listen_unix(const char *path);

/* Say on stderr why that failed, by errno. */
void sockets_explain(const char *option, const char *path);

/* What sockets_listen_unix() made at path, and nothing that is there instead: give it to a user, or
 * remove it. -1: errno is set; ESTALE: it is something else. */
bool sockets_remember(const char *path); /* as made, by a process before this one */
int sockets_give(const char *path, uid_t user, gid_t group);
int sockets_remove(const char *path);

/* "127.0.0.1:PORT" or "[::1]:PORT". -1: errno is set. */
int sockets_listen_loopback(const char *address);

/* The path that a socket listens at, to be freed; NULL: it does not listen at any, or it is no
 * Unix stream socket that listens. */
char *sockets_path(int fd);

/* Is it the end of a connected Unix stream socket? */
bool sockets_connected(int fd);

/* Calls back with each connection (non-blocking, the callee's). Without descriptors left it waits
 * for a second, rather than to be called over and over. */
struct acceptor;
struct acceptor *acceptor_new(struct event_base *base, int fd, void (*accepted)(void *ctx, int fd),
                              void *ctx);
/* Leave further connections waiting, or take them again. */
void acceptor_pause(struct acceptor *acceptor, bool on);
/* Closes the socket. NULL: nothing to do. */
void acceptor_free(struct acceptor *acceptor);

#endif
