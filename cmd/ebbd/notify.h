/* SPDX-License-Identifier: BSD-2-Clause */
/* systemd's side of a service: sockets that it made, and being told how things stand. */
#ifndef EBBD_NOTIFY_H
#define EBBD_NOTIFY_H

/* A socket for notify_send(), from NOTIFY_SOCKET; -1: nobody wants to know. To be called while
 * sockets can still be made. */
int notify_open(void);

/* "READY=1", "STATUS=...". */
void notify_send(int fd, const char *text);

/* How many sockets were handed over, from descriptor NOTIFY_FIRST_FD on; their names
 * (LISTEN_FDNAMES, separated by colons; "" without), valid until the environment changes. The
 * variables are left. */
#define NOTIFY_FIRST_FD 3
int notify_sockets(const char **names);

#endif
