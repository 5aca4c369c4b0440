/* SPDX-License-Identifier: BSD-2-Clause */
#include "listen.h"
#include "../common/log.h"
#include "../common/sockets.h"
#include "notify.h"
#include "vm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The exit code, explained. */
static int wrong_name(const char *path)
{
    log_line("%s: a socket is called NAME.sock, NAME of up to %u letters, digits, '.', '_', '-'",
             path, VM_NAME_MAX);
    return EXIT_RUN_USAGE;
}

/* fd is the VM's, or closed. */
static int add_vm(struct ebbd *ebbd, int fd, const char *path, bool removable)
{
    char name[VM_NAME_MAX + 1];

    if (!vm_options_name_of(path, name)) {
        close(fd);
        return wrong_name(path);
    }
    if (vm_new(ebbd, name, fd, path, removable))
        return 0;
    if (errno == EEXIST)
        log_line("%s: there are two sockets for the VM %s", path, name);
    else
        log_line("%s: %s", path, strerror(errno));
    return errno == EEXIST ? EXIT_RUN_USAGE : EXIT_RUN_HOST;
}

/* Its back end runs, and has the socket. */
static bool adopt(struct ebbd *ebbd, int fd, const char *path)
{
    char name[VM_NAME_MAX + 1];

    return vm_options_name_of(path, name) && vm_adopt(ebbd, name, fd, path, false);
}

/* ---- by option ---- */

/* The user that we become; NULL: we stay. */
static const struct passwd *next_user(const struct ebbd *ebbd)
{
    const char *user = ebbd->options.user;

    return user && geteuid() == 0 ? getpwnam(user) : NULL;
}

static bool is_safe(const struct ebbd *ebbd, const char *option, const char *path)
{
    const struct passwd *user = next_user(ebbd);

    return sockets_check_place(option, path, user ? user->pw_uid : geteuid());
}

/* For the user that we become. */
static int give_away(const struct ebbd *ebbd, const char *path)
{
    const struct passwd *user = next_user(ebbd);

    return user ? sockets_give(path, user->pw_uid, user->pw_gid) : 0;
}

/* -1: explained. */
static int listen_at(const struct ebbd *ebbd, const char *option,
                     const struct vm_options_socket *socket)
{
    int fd;

    if (!is_safe(ebbd, option, socket->path))
        return -1;
    fd = sockets_listen_unix(socket->path, &socket->access);
    if (fd >= 0 && give_away(ebbd, socket->path) == 0)
        return fd;
    sockets_explain(option, socket->path);
    if (fd >= 0)
        close(fd);
    return -1;
}

static int listen_metrics(const struct options *options, const struct ebbd *ebbd)
{
    int fd;

    if (options->metrics_socket.path)
        return listen_at(ebbd, "metrics", &options->metrics_socket);
    fd = sockets_listen_loopback(options->metrics);
    if (fd < 0)
        log_line("--metrics: cannot listen at %s: %s", options->metrics, strerror(errno));
    return fd;
}

static int listen_options(struct ebbd *ebbd, struct listen *operators)
{
    const struct options *options = &ebbd->options;
    int error = 0, fd;

    for (unsigned i = 0; i < options->n_sockets && !error; i++) {
        const struct vm_options_socket *socket = &options->sockets[i];

        if (!is_safe(ebbd, "socket", socket->path))
            return EXIT_RUN_HOST;
        if (adopt(ebbd, -1, socket->path))
            continue;
        fd = listen_at(ebbd, "socket", socket);
        error = fd < 0 ? EXIT_RUN_HOST : add_vm(ebbd, fd, socket->path, false);
    }
    if (!error && options->control.path && operators->control < 0) {
        operators->control = listen_at(ebbd, "control", &options->control);
        error = operators->control < 0 ? EXIT_RUN_HOST : 0;
    }
    if (!error && (options->metrics || options->metrics_socket.path) && operators->metrics < 0) {
        operators->metrics = listen_metrics(options, ebbd);
        error = operators->metrics < 0 ? EXIT_RUN_HOST : 0;
    }
    return error;
}

/* ---- handed over ---- */

static int take_socket(struct ebbd *ebbd, int fd, const char *name, struct listen *operators)
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
    error = adopt(ebbd, fd, path) ? 0 : add_vm(ebbd, fd, path, false);
    free(path);
    return error;
}

static int take_sockets(struct ebbd *ebbd, struct listen *operators)
{
    const char *names;
    int n = notify_sockets(&names), error = 0;
    char *copy = strdup(names), *rest = copy, *name;

    if (!copy)
        return EXIT_RUN_HOST;
    for (int i = 0; i < n && !error; i++) {
        name = strsep(&rest, ":");
        error = take_socket(ebbd, NOTIFY_FIRST_FD + i, name ? name : "", operators);
    }
    free(copy);
    return error;
}

int listen_all(struct ebbd *ebbd, struct listen *operators)
{
    const struct options *options = &ebbd->options;
    int error;

    *operators = (struct listen){-1, -1};
    error = take_sockets(ebbd, operators);
    if (!error)
        error = listen_options(ebbd, operators);
    if (error || ebbd->n_vms || options->socket_dir)
        return error;
    log_line("there is nothing to serve: give --socket or --socket-dir, see --help");
    return EXIT_RUN_USAGE;
}

/* ---- a directory ---- */

/* One that somebody else listens on, or whose name is no VM's, is none of ours. */
static int take_up(struct ebbd *ebbd, const char *file)
{
    char name[VM_NAME_MAX + 1], *path = NULL;
    int fd, error = 0;

    if (!vm_options_name_of(file, name) || vm_find(ebbd, name))
        return 0;
    if (asprintf(&path, "%s/%s", ebbd->options.socket_dir, file) < 0)
        return EXIT_RUN_HOST;
    if (!vm_adopt(ebbd, name, -1, path, true)) {
        (void)sockets_remember(file); /* it stays for whom it was */
        fd = sockets_listen_unix(file, NULL);
        if (fd >= 0)
            error = add_vm(ebbd, fd, path, true);
        else
            log_line("%s is left alone: %s", path, strerror(errno));
    }
    free(path);
    return error;
}

static bool ends_in_suffix(const struct dirent *entry)
{
    size_t len = strlen(entry->d_name), suffix = strlen(SOCKET_SUFFIX);

    return len > suffix && strcmp(entry->d_name + len - suffix, SOCKET_SUFFIX) == 0;
}

int listen_dir(struct ebbd *ebbd)
{
    const char *path = ebbd->options.socket_dir;
    const struct dirent *entry;
    int error = 0;
    DIR *dir;

    if (!path)
        return chdir("/") == 0 ? 0 : EXIT_RUN_HOST;
    error = chdir(path);
    if (!error && !sockets_check_place("socket-dir", "in it", geteuid()))
        return EXIT_RUN_HOST;
    dir = !error && access(".", W_OK | X_OK) == 0 ? opendir(".") : NULL;
    if (!dir) {
        log_line("--socket-dir: %s: %s", path, strerror(errno));
        return EXIT_RUN_HOST;
    }
    while (!error && (entry = readdir(dir)))
        error = ends_in_suffix(entry) ? take_up(ebbd, entry->d_name) : 0;
    closedir(dir);
    ebbd->in_dir = true;
    return error;
}
