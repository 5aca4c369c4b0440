/* SPDX-License-Identifier: BSD-2-Clause */
#include "sockets.h"
#include "log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 64

/* ---- files of sockets, which others may put something else in the place of ---- */

/* What was made at a path. */
struct made {
    char *path;
    dev_t dev;
    ino_t ino;
    LIST_ENTRY(made) link;
};

static LIST_HEAD(, made) all_made = LIST_HEAD_INITIALIZER(all_made);

/* Of the file itself, if it is a link. (The sandbox has no other call for this: see sandbox.c.) */
static int look_at(const char *path, struct stat *file)
{
    return fstatat(AT_FDCWD, path, file, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
}

static struct made *find(const char *path)
{
    struct made *made;

    LIST_FOREACH(made, &all_made, link)
    {
        if (strcmp(made->path, path) == 0)
            return made;
    }
    return NULL;
}

static void forget(struct made *made)
{
    if (!made)
        return;
    LIST_REMOVE(made, link);
    free(made->path);
    free(made);
}

bool sockets_remember(const char *path)
{
    struct made *made = calloc(1, sizeof(*made));
    struct stat file;

    forget(find(path));
    if (made)
        made->path = strdup(path);
    if (!made || !made->path || look_at(path, &file) != 0) {
        if (made)
            free(made->path);
        free(made);
        return false;
    }
    made->dev = file.st_dev;
    made->ino = file.st_ino;
    LIST_INSERT_HEAD(&all_made, made, link);
    return true;
}

/* -1: errno is set. */
static int check_made(const char *path, const struct stat *file)
{
    const struct made *made = find(path);

    if (made && S_ISSOCK(file->st_mode) && made->dev == file->st_dev && made->ino == file->st_ino)
        return 0;
    errno = ESTALE;
    return -1;
}

int sockets_give(const char *path, uid_t user, gid_t group)
{
    int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC), error = -1;
    struct stat file;

    if (fd < 0)
        return -1;
    if (fstat(fd, &file) == 0 && check_made(path, &file) == 0)
        error = fchownat(fd, "", user, group, AT_EMPTY_PATH);
    close(fd);
    return error;
}

/* ---- one at a time ---- */

#define LOCK_SUFFIX ".lock"

struct lock {
    char path[sizeof(((struct sockaddr_un *)0)->sun_path) + sizeof(LOCK_SUFFIX)];
    int fd;
};

static bool try_lock(struct lock *lock, struct stat *file)
{
    lock->fd = open(lock->path, O_RDONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (lock->fd < 0)
        return false;
    if (flock(lock->fd, LOCK_EX | LOCK_NB) == 0 && fstat(lock->fd, file) == 0)
        return true;
    close(lock->fd);
    return false;
}

/* A file beside the socket, held while the socket is looked at, made or removed; so it takes no
 * waiting. EADDRINUSE: another process holds it. */
static bool take_lock(struct lock *lock, const char *path)
{
    struct stat file = {0};

    snprintf(lock->path, sizeof(lock->path), "%s" LOCK_SUFFIX, path);
    for (int i = 0; i < 16; i++) {
        if (!try_lock(lock, &file)) {
            errno = errno == EWOULDBLOCK ? EADDRINUSE : errno;
            return false;
        }
        if (S_ISREG(file.st_mode) && file.st_nlink > 0)
            return true;
        close(lock->fd); /* the one who had it removed it */
    }
    errno = EADDRINUSE;
    return false;
}

static void release_lock(struct lock *lock)
{
    int error = errno;

    unlink(lock->path);
    close(lock->fd);
    errno = error;
}

int sockets_remove(const char *path)
{
    struct stat file;
    struct lock lock;
    int error = -1;

    if (!take_lock(&lock, path))
        return -1;
    if (look_at(path, &file) == 0 && check_made(path, &file) == 0)
        error = unlink(path);
    release_lock(&lock);
    forget(find(path));
    return error;
}

/* ---- listening ---- */

/* Is it a socket that nobody listens on? */
static bool is_stale(const struct sockaddr_un *at, struct stat *file)
{
    bool refused;
    int fd;

    if (look_at(at->sun_path, file) != 0 || !S_ISSOCK(file->st_mode))
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

/* The one that was found stale, and none that came since. */
static bool remove_stale(const struct sockaddr_un *at)
{
    struct stat before, now;

    return is_stale(at, &before) && look_at(at->sun_path, &now) == 0 &&
           now.st_dev == before.st_dev && now.st_ino == before.st_ino && unlink(at->sun_path) == 0;
}

static int listen_or_replace(const struct sockaddr_un *at)
{
    int fd = listen_at((const struct sockaddr *)at, sizeof(*at));

    if (fd >= 0 || errno != EADDRINUSE)
        return fd;
    if (remove_stale(at))
        return listen_at((const struct sockaddr *)at, sizeof(*at));
    errno = EADDRINUSE;
    return -1;
}

int sockets_listen_unix(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct lock lock;
    int fd;

    if (strlen(path) >= sizeof(at.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(at.sun_path, path);
    if (!take_lock(&lock, path))
        return -1;
    fd = listen_or_replace(&at);
    if (fd >= 0 && !sockets_remember(path)) {
        close(fd);
        fd = -1;
    }
    release_lock(&lock);
    return fd;
}

void sockets_explain(const char *option, const char *path)
{
    if (errno == EADDRINUSE)
        log_line("--%s: %s exists and is no socket, or another process listens there", option,
                 path);
    else if (errno == ENAMETOOLONG)
        log_line("--%s: %s: the path of a socket has at most 107 bytes", option, path);
    else
        log_line("--%s: cannot listen at %s: %s", option, path, strerror(errno));
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

static const struct timeval pause_time = {1, 0};

/* If that cannot be now, then in a second. */
static void go_on(struct acceptor *acceptor)
{
    if (!acceptor->paused && event_add(acceptor->readable, NULL) != 0)
        (void)event_add(acceptor->again, &pause_time);
}

static void on_readable(evutil_socket_t listening, short what, void *ctx)
{
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
    if (event_add(acceptor->again, &pause_time) == 0) /* else it is called over and over */
        event_del(acceptor->readable);
}

static void on_again(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    go_on(ctx);
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
        go_on(acceptor);
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
