/* SPDX-License-Identifier: BSD-2-Clause */
#include "listen.h"
#include "log.h"
#include "notify.h"
#include "sockets.h"
#include "vm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The VM of a socket: the file's name, less SOCKET_SUFFIX. False: it is no VM's name. */
static bool name_of(const char *path, char name[VM_NAME_MAX + 1])
{
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    size_t len = strlen(base), suffix = strlen(SOCKET_SUFFIX);

    if (len > suffix && strcmp(base + len - suffix, SOCKET_SUFFIX) == 0)
        len -= suffix;
    if (len > VM_NAME_MAX)
        return false;
    memcpy(name, base, len);
    name[len] = '\0';
    return options_vm_name(name);
}

/* fd is the daemon's, or closed. */
static int add_vm(struct ebbd *daemon, int fd, const char *path, bool removable)
{
    char name[VM_NAME_MAX + 1];

    if (!name_of(path, name)) {
        log_line(
            "%s: a socket is called NAME.sock, NAME of up to %u letters, digits, '.', '_', '-'",
            path, VM_NAME_MAX);
        close(fd);
        return EXIT_RUN_USAGE;
    }
    if (vm_new(daemon, name, fd, path, removable))
        return 0;
    if (errno == EEXIST)
        log_line("%s: there are two sockets for the VM %s", path, name);
    else
        log_line("%s: %s", path, strerror(errno));
    return errno == EEXIST ? EXIT_RUN_USAGE : EXIT_RUN_HOST;
}

/* ---- by option ---- */

/* For the user that we become. */
static int give_away(const struct ebbd *daemon, const char *path)
{
    const char *user = daemon->options.user;
    const struct passwd *entry = user && geteuid() == 0 ? getpwnam(user) : NULL;

    return entry ? sockets_give(path, entry->pw_uid, entry->pw_gid) : 0;
}

/* -1: explained. */
static int listen_at(const struct ebbd *daemon, const char *option, const char *path)
{
    int fd = sockets_listen_unix(path);

    if (fd >= 0 && give_away(daemon, path) == 0)
        return fd;
    if (errno == EADDRINUSE)
        log_line("--%s: %s exists and is no socket, or another process listens there", option,
                 path);
    else if (errno == ENAMETOOLONG)
        log_line("--%s: %s: the path of a socket has at most 107 bytes", option, path);
    else
        log_line("--%s: cannot listen at %s: %s", option, path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

static int listen_options(struct ebbd *daemon, struct listen *operators)
{
    const struct options *options = &daemon->options;
    int error = 0, fd;

    for (unsigned i = 0; i < options->n_sockets && !error; i++) {
        fd = listen_at(daemon, "socket", options->sockets[i]);
        error = fd < 0 ? EXIT_RUN_HOST : add_vm(daemon, fd, options->sockets[i], false);
    }
    if (!error && options->control && operators->control < 0) {
        operators->control = listen_at(daemon, "control", options->control);
        error = operators->control < 0 ? EXIT_RUN_HOST : 0;
    }
    if (error || !options->metrics || operators->metrics >= 0)
        return error;
    if (strncmp(options->metrics, "unix:", 5) == 0) {
        operators->metrics = listen_at(daemon, "metrics", options->metrics + 5);
    } else {
        operators->metrics = sockets_listen_loopback(options->metrics);
        if (operators->metrics < 0)
            log_line("--metrics: cannot listen at %s: %s", options->metrics, strerror(errno));
    }
    return operators->metrics < 0 ? EXIT_RUN_HOST : 0;
}

/* ---- handed over ---- */

static int take_socket(struct ebbd *daemon, int fd, const char *name, struct listen *operators)
{
    int *slot = strcmp(name, "control") == 0   ? &operators->control
                : strcmp(name, "metrics") == 0 ? &operators->metrics
                                               : NULL;
    char *path;
    int error;

    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        log_line("descriptor %d was not handed over: %s", fd, strerror(errno));
        return EXIT_RUN_HOST;
    }
    if (slot) {
        *slot = fd;
        return 0;
    }
    path = sockets_path(fd);
    if (!path) {
        log_line("descriptor %d, '%s', is no Unix stream socket that listens at a path", fd, name);
        return EXIT_RUN_USAGE;
    }
    error = add_vm(daemon, fd, path, false);
    free(path);
    return error;
}

static int take_sockets(struct ebbd *daemon, struct listen *operators)
{
    const char *names;
    int n = notify_sockets(&names), error = 0;
    char *copy = strdup(names), *rest = copy, *name;

    if (!copy)
        return EXIT_RUN_HOST;
    for (int i = 0; i < n && !error; i++) {
        name = strsep(&rest, ":");
        error = take_socket(daemon, NOTIFY_FIRST_FD + i, name ? name : "", operators);
    }
    free(copy);
    return error;
}

int listen_all(struct ebbd *daemon, struct listen *operators)
{
    const struct options *options = &daemon->options;
    int error;

    *operators = (struct listen){-1, -1};
    error = take_sockets(daemon, operators);
    if (!error)
        error = listen_options(daemon, operators);
    if (error || daemon->n_vms || options->socket_dir || options->n_fds)
        return error;
    log_line("there is nothing to serve: give --socket, --socket-dir or --fd, see --help");
    return EXIT_RUN_USAGE;
}

/* ---- a directory ---- */

/* One that somebody else listens on, or whose name is no VM's, is none of ours. */
static int take_up(struct ebbd *daemon, const char *file)
{
    char name[VM_NAME_MAX + 1], *path = NULL;
    int fd, error;

    if (!name_of(file, name) || vm_find(daemon, name))
        return 0;
    fd = sockets_listen_unix(file);
    if (fd < 0 || asprintf(&path, "%s/%s", daemon->options.socket_dir, file) < 0) {
        log_line("%s/%s is left alone: %s", daemon->options.socket_dir, file, strerror(errno));
        if (fd >= 0)
            close(fd);
        return 0;
    }
    error = add_vm(daemon, fd, path, true);
    free(path);
    return error;
}

static bool ends_in_suffix(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name), suffix = strlen(SOCKET_SUFFIX);

    return len > suffix && strcmp(entry->d_name + len - suffix, SOCKET_SUFFIX) == 0;
}

int listen_dir(struct ebbd *daemon)
{
    const char *path = daemon->options.socket_dir;
    const struct dirent *entry;
    int error = 0;
    DIR *dir;

    if (!path)
        return chdir("/") == 0 ? 0 : EXIT_RUN_HOST;
    dir = chdir(path) == 0 && access(".", W_OK | X_OK) == 0 ? opendir(".") : NULL;
    if (!dir) {
        log_line("--socket-dir: %s: %s", path, strerror(errno));
        return EXIT_RUN_HOST;
    }
    while (!error && (entry = readdir(dir)))
        error = ends_in_suffix(entry) ? take_up(daemon, entry->d_name) : 0;
    closedir(dir);
    daemon->in_dir = true;
    return error;
}

/* ---- connections ---- */

int listen_fds(struct ebbd *daemon)
{
    for (unsigned i = 0; i < daemon->options.n_fds; i++) {
        const struct option_fd *given = &daemon->options.fds[i];
        struct vm *vm;

        if (!sockets_connected(given->fd) || fcntl(given->fd, F_SETFL, O_NONBLOCK) != 0 ||
            fcntl(given->fd, F_SETFD, FD_CLOEXEC) != 0) {
            log_line("--fd: descriptor %d is no connected Unix stream socket", given->fd);
            return EXIT_RUN_USAGE;
        }
        vm = vm_new(daemon, given->name, -1, NULL, false);
        if (!vm) {
            log_line("--fd: %s: %s", given->name, strerror(errno));
            return errno == EEXIST ? EXIT_RUN_USAGE : EXIT_RUN_HOST;
        }
        vm_connect(vm, given->fd);
        if (!vm_connected(vm))
            return EXIT_RUN_HOST;
    }
    return 0;
}
