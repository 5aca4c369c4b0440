/* SPDX-License-Identifier: BSD-2-Clause */
/* By hand: the protocol is a datagram and three variables, not worth a library. */
#include "notify.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* More than any unit has; a count beyond is no count. */
#define SOCKETS_LIMIT 65536

int notify_open(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t len = path ? strlen(path) : 0;
    int fd;

    if (len < 2 || len >= sizeof(to.sun_path) || (*path != '/' && *path != '@'))
        return -1;
    memcpy(to.sun_path, path, len);
    if (*path == '@') /* abstract: the name begins with a zero */
        to.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to,
                           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

void notify_send(int fd, const char *text)
{
    if (fd >= 0)
        (void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* -1: it is no number. */
static long number(const char *text)
{
    char *end;
    long value = text ? strtol(text, &end, 10) : -1;

    return text && *text && !*end ? value : -1;
}

int notify_sockets(const char **names)
{
    const char *given = getenv("LISTEN_FDNAMES");
    long n = number(getenv("LISTEN_FDS"));

    *names = given ? given : "";
    if (number(getenv("LISTEN_PID")) != (long)getpid() || n < 0 || n > SOCKETS_LIMIT)
        return 0;
    return (int)n;
}
