/* SPDX-License-Identifier: BSD-2-Clause */
/* Listening. */
#ifndef COMMON_SOCKETS_H
#define COMMON_SOCKETS_H

#include <event2/event.h>
#include <stdbool.h>
#include <sys/types.h>

/* NAME.sock: what a VM's socket is called. */
#define SOCKET_SUFFIX ".sock"

/* Who can connect to a socket besides whoever has its file, by number; (uid_t)-1, (gid_t)-1:
 * nobody. If there is somebody, the file's group cannot: it is for them. */
struct sockets_access {
    uid_t user;
    gid_t group;
};
#define SOCKETS_OWN ((struct sockets_access){(uid_t)-1, (gid_t)-1})

/* "USER", "USER:GROUP" or ":GROUP", names or numbers. NULL: well read; else what is wrong, in
 * static storage. */
const char *sockets_read_access(const char *text, struct sockets_access *access);
/* A group's name or number. False: there is none. */
bool sockets_read_group(const char *name, gid_t *group);

/*
 * A socket that listens at path, for its owner and group alone, or for `access`; NULL: for whom it
 * was before, as far as that is remembered. A socket that is left there and that nobody listens on
 * is replaced; of several that try, one wins. -1: errno is set; EADDRINUSE: another process listens
 * there or is about to, or it is no socket; EOPNOTSUPP: its file system has no access lists. What
 * holds the others off is a file PATH.lock, for that moment.
 */
int sockets_listen_unix(const char *path, const struct sockets_access *access);

/* Can nobody else put something in the place of a file at path? That is, all directories on the way
 * are root's, ours or `user`'s, and others may not write there, or may not remove what is not
 * theirs. False: explained. */
bool sockets_check_place(const char *option, const char *path, uid_t user);

/* Say on stderr why that failed, by errno. */
void sockets_explain(const char *option, const char *path);

/* What is at path was made by a process before this one. */
bool sockets_remember(const char *path);

/* Give what was made at path, and nothing that is there instead, to a user. -1: as below. */
int sockets_give(const char *path, uid_t user, gid_t group);

/* Remove what was made at path, and nothing that is there instead. -1: errno is set; ESTALE: it is
 * something else. */
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
