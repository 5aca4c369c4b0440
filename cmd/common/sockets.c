/* SPDX-License-Identifier: BSD-2-Clause */
#include "sockets.h"
#include "log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#define BACKLOG 64

/* ---- files of sockets, which others may put something else in the place of ---- */

/* Who else than its owner can connect, as the kernel keeps it (acl(5)): in the order of tags. */
#define ACL_NAME    "system.posix_acl_access"
#define ACL_ENTRIES 6u

struct acl {
    uint32_t version;
    struct {
        uint16_t tag, permissions;
        uint32_t id;
    } entries[ACL_ENTRIES];
    unsigned n; /* 0: there is none */
};

#define ACL_BYTES(n) (offsetof(struct acl, entries) + (n) * sizeof(((struct acl *)0)->entries[0]))

/* What was made at a path. */
struct made {
    char *path;
    dev_t dev;
    ino_t ino;
    struct acl acl;
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

static void acl_of(const char *path, struct acl *acl)
{
    const ssize_t bytes = lgetxattr(path, ACL_NAME, acl, ACL_BYTES(ACL_ENTRIES));

    acl->n =
        bytes > 0 ? (unsigned)(((size_t)bytes - ACL_BYTES(0)) / (ACL_BYTES(1) - ACL_BYTES(0))) : 0;
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
    acl_of(path, &made->acl);
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

/* ---- who can connect ---- */

/* "1000", unless it is a name. */
static bool read_id(const char *text, uint32_t *id)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end || number >= UINT32_MAX)
        return false;
    *id = (uint32_t)number;
    return true;
}

static bool read_user(const char *name, uid_t *user)
{
    const struct passwd *entry = getpwnam(name);

    if (entry)
        *user = entry->pw_uid;
    return entry || read_id(name, user);
}

bool sockets_read_group(const char *name, gid_t *group)
{
    const struct group *entry = getgrnam(name);

    if (entry)
        *group = entry->gr_gid;
    return entry || read_id(name, group);
}

const char *sockets_read_access(const char *text, struct sockets_access *access)
{
    static char wrong[128];
    char user[64], *group;

    if (strlen(text) >= sizeof(user) || !*text || strcmp(text, ":") == 0)
        return "who can connect is USER, USER:GROUP or :GROUP";
    strcpy(user, text);
    group = strchr(user, ':');
    if (group)
        *group++ = '\0';
    if (*user && !read_user(user, &access->user))
        snprintf(wrong, sizeof(wrong), "there is no user %s", user);
    else if (group && !sockets_read_group(group, &access->group))
        snprintf(wrong, sizeof(wrong), "there is no group %s", group);
    else
        return NULL;
    return wrong;
}

static void add_entry(struct acl *acl, uint16_t tag, uint16_t permissions, uint32_t id)
{
    acl->entries[acl->n].tag = tag;
    acl->entries[acl->n].permissions = permissions;
    acl->entries[acl->n++].id = id;
}

static struct acl acl_for(const struct sockets_access *access)
{
    struct acl acl = {.version = POSIX_ACL_XATTR_VERSION};

    if (access->user == (uid_t)-1 && access->group == (gid_t)-1)
        return acl;
    add_entry(&acl, ACL_USER_OBJ, ACL_READ | ACL_WRITE, UINT32_MAX);
    if (access->user != (uid_t)-1)
        add_entry(&acl, ACL_USER, ACL_READ | ACL_WRITE, access->user);
    add_entry(&acl, ACL_GROUP_OBJ, 0, UINT32_MAX);
    if (access->group != (gid_t)-1)
        add_entry(&acl, ACL_GROUP, ACL_READ | ACL_WRITE, access->group);
    add_entry(&acl, ACL_MASK, ACL_READ | ACL_WRITE, UINT32_MAX);
    add_entry(&acl, ACL_OTHER, 0, UINT32_MAX);
    return acl;
}

/* Of the socket that was just made there: nothing else could take its place, if the place is safe,
 * and a link is not followed. */
static int open_to(const char *path, const struct acl *acl)
{
    return acl->n ? lsetxattr(path, ACL_NAME, acl, ACL_BYTES(acl->n), 0) : 0;
}

/* ---- places ---- */

/* In a user namespace: of an owner who has no number there, as root may not. */
static bool is_unmapped(uid_t user)
{
    FILE *map = user == 65534 ? fopen("/proc/self/uid_map", "re") : NULL;
    unsigned from, to, n = UINT32_MAX;

    if (map && fscanf(map, "%u %u %u", &from, &to, &n) != 3)
        n = UINT32_MAX;
    if (map)
        fclose(map);
    return n != UINT32_MAX;
}

/* Of one name on the way. */
static bool is_safe(const char *path, uid_t user)
{
    struct stat file;

    if (look_at(path, &file) != 0)
        return true; /* whoever makes something there will see */
    if (file.st_uid != 0 && file.st_uid != geteuid() && file.st_uid != user &&
        !is_unmapped(file.st_uid))
        log_line("%s belongs to uid %u, who could put something else in the place of what is made "
                 "there; give it to root, or to the user that runs this",
                 path, file.st_uid);
    else if (S_ISDIR(file.st_mode) && (file.st_mode & 022) && !(file.st_mode & S_ISVTX))
        log_line("%s may be written by others, who could put something else in the place of what "
                 "is made there; chmod go-w %s",
                 path, path);
    else
        return true;
    return false;
}

/* All directories of a path that begins at the root, and ends in a slash. */
static bool is_way_safe(const char *path, uid_t user)
{
    char *way = strdup(path);
    bool safe = way && is_safe("/", user);

    for (char *slash = way ? strchr(way + 1, '/') : NULL; safe && slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        safe = is_safe(way, user);
        *slash = '/';
    }
    free(way);
    return safe;
}

/* To be freed; NULL: there is none, or no memory. */
static char *with_slash(char *path)
{
    char *made = NULL;

    if (path && asprintf(&made, "%s/", path) < 0)
        made = NULL;
    free(path);
    return made;
}

bool sockets_check_place(const char *option, const char *path, uid_t user)
{
    const char *name = strrchr(path, '/');
    char *here = *path == '/' ? strdup("") : getcwd(NULL, 0), *given = NULL, *real = NULL;
    char *directory = strndup(path, name ? (size_t)(name - path) + 1 : 0);
    bool safe = false;

    if (here && directory && asprintf(&given, "%s/%s", here, directory) >= 0) {
        real = with_slash(realpath(given, NULL));
        safe = is_way_safe(given, user) && (!real || is_way_safe(real, user));
    }
    if (!safe)
        log_line("--%s: %s is not a safe place", option, path);
    free(here);
    free(directory);
    free(given);
    free(real);
    return safe;
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

/* Who connects between bind() and listen() is refused: by then it is for whom it is to be. */
static int bind_and_listen(int fd, const struct sockaddr *at, socklen_t len, const struct acl *acl)
{
    const char *path = ((const struct sockaddr_un *)at)->sun_path;
    int error;

    if (bind(fd, at, len) != 0)
        return -1;
    if (acl && open_to(path, acl) != 0) {
        error = errno;
        unlink(path);
        errno = error;
        return -1;
    }
    return listen(fd, BACKLOG);
}

/* `acl` goes with paths. */
static int listen_at(const struct sockaddr *at, socklen_t len, const struct acl *acl)
{
    int fd = socket(at->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error;
    int on = 1;

    if (fd < 0)
        return -1;
    if (at->sa_family != AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind_and_listen(fd, at, len, acl) == 0)
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

static int listen_or_replace(const struct sockaddr_un *at, const struct acl *acl)
{
    int fd = listen_at((const struct sockaddr *)at, sizeof(*at), acl);

    if (fd >= 0 || errno != EADDRINUSE)
        return fd;
    if (remove_stale(at))
        return listen_at((const struct sockaddr *)at, sizeof(*at), acl);
    errno = EADDRINUSE;
    return -1;
}

int sockets_listen_unix(const char *path, const struct sockets_access *access)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct acl acl = {0};
    struct lock lock;
    int fd;

    if (strlen(path) >= sizeof(at.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(at.sun_path, path);
    if (access)
        acl = acl_for(access);
    else if (find(path))
        acl = find(path)->acl;
    if (!take_lock(&lock, path))
        return -1;
    fd = listen_or_replace(&at, &acl);
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
    else if (errno == EOPNOTSUPP)
        log_line("--%s: %s cannot be for another user or group: its file system has no access "
                 "lists (ACL)",
                 option, path);
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
        return listen_at((const struct sockaddr *)&at6, sizeof(at6), NULL);
    return listen_at((const struct sockaddr *)&at4, sizeof(at4), NULL);
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
