/* SPDX-License-Identifier: BSD-2-Clause */
#include "sockets.h"
#include "log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 64

/* Is it a socket that nobody listens on? */
static bool is_stale(const struct sockaddr_un *at)
{
    struct stat file;
    bool refused;
    int fd;

    if (stat(at->sun_path, &file) != 0 || !S_ISSOCK(file.st_mode))
        return false;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    refused = connect(fd, (const struct sockaddr *)at, sizeof(*at)) != 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

static int listen_at(const struct sockaddr *at, socklen_t len)
{
    int fd = socket(at->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error;
    int on = 1;

    if (fd < 0)
        return -1;
    if (at->sa_family != AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, at, len) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    error = errno;
    close(fd);
    errno = error;
    return -1;
}

int sockets_listen_unix(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd;

    if (strlen(path) >= sizeof(at.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(at.sun_path, path);
    fd = listen_at((const struct sockaddr *)&at, sizeof(at));
    if (fd < 0 && errno == EADDRINUSE) {
        if (is_stale(&at) && unlink(path) == 0)
            fd = listen_at((const struct sockaddr *)&at, sizeof(at));
        else
            errno = EADDRINUSE;
    }
    return fd;
}

int sockets_listen_loopback(const char *address)
{
    const char *port = strrchr(address, ':') + 1;
    struct sockaddr_in6 at6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_in at4 = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    uint16_t number = htons((uint16_t)strtoul(port, NULL, 10));

    at4.sin_port = number;
    at6.sin6_port = number;
    if (*address == '[')
        return listen_at((const struct sockaddr *)&at6, sizeof(at6));
    return listen_at((const struct sockaddr *)&at4, sizeof(at4));
}

static bool option_is(int fd, int option, int expected)
{
    socklen_t len = sizeof(int);
    int value = -1;

    return getsockopt(fd, SOL_SOCKET, option, &value, &len) == 0 && value == expected;
}

char *sockets_path(int fd)
{
    struct sockaddr_un at = {0};
    socklen_t len = sizeof(at);
    size_t before = offsetof(struct sockaddr_un, sun_path);

    if (!option_is(fd, SO_DOMAIN, AF_UNIX) || !option_is(fd, SO_TYPE, SOCK_STREAM) ||
        !option_is(fd, SO_ACCEPTCONN, 1) || getsockname(fd, (struct sockaddr *)&at, &len) != 0)
        return NULL;
    if (len <= before || len > sizeof(at) || at.sun_path[0] == '\0')
        return NULL;
    return strndup(at.sun_path, len - before);
}

bool sockets_connected(int fd)
{
    struct sockaddr_un at;
    socklen_t len = sizeof(at);

    return option_is(fd, SO_DOMAIN, AF_UNIX) && option_is(fd, SO_TYPE, SOCK_STREAM) &&
           getpeername(fd, (struct sockaddr *)&at, &len) == 0;
}

/* ---- accepting ---- */

struct acceptor {
    struct event *readable, *again;
    int fd;
    bool paused;
    void (*accepted)(void *ctx, int fd);
    void *ctx;
};

static void on_readable(evutil_socket_t listening, short what, void *ctx)
{
    static const struct timeval pause = {1, 0};
    struct acceptor *acceptor = ctx;
    int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)what;
    if (fd >= 0) {
        acceptor->accepted(acceptor->ctx, fd);
        return;
    }
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
        return;
    log_line("cannot take a connection: %s", strerror(errno));
    event_del(acceptor->readable);
    event_add(acceptor->again, &pause);
}

static void on_again(evutil_socket_t fd, short what, void *ctx)
{
    struct acceptor *acceptor = ctx;

    (void)fd;
    (void)what;
    if (!acceptor->paused)
        event_add(acceptor->readable, NULL);
}

struct acceptor *acceptor_new(struct event_base *base, int fd, void (*accepted)(void *ctx, int fd),
                              void *ctx)
{
    struct acceptor *acceptor = calloc(1, sizeof(*acceptor));

    if (!acceptor)
        return NULL;
    *acceptor = (struct acceptor){.fd = -1, .accepted = accepted, .ctx = ctx};
    acceptor->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, acceptor);
    acceptor->again = evtimer_new(base, on_again, acceptor);
    if (!acceptor->readable || !acceptor->again || event_add(acceptor->readable, NULL) != 0) {
        acceptor_free(acceptor);
        errno = ENOMEM;
        return NULL;
    }
    acceptor->fd = fd;
    return acceptor;
}

void acceptor_pause(struct acceptor *acceptor, bool on)
{
    acceptor->paused = on;
    if (on)
        event_del(acceptor->readable);
    else
        event_add(acceptor->readable, NULL);
}

void acceptor_free(struct acceptor *acceptor)
{
    if (!acceptor)
        return;
    if (acceptor->readable)
        event_free(acceptor->readable);
    if (acceptor->again)
        event_free(acceptor->again);
    if (acceptor->fd >= 0)
        close(acceptor->fd);
    free(acceptor);
}
