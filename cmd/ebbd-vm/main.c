/* SPDX-License-Identifier: BSD-2-Clause */
/* ebbd-vm: from options to a sandbox, to the loop, to the end. */
#include "../common/log.h"
#include "../common/process.h"
#include "../common/sockets.h"
#include "backend.h"
#include "commands.h"
#include "connection.h"
#include "sandbox.h"
#include "state.h"
#include "vm.h"
#include "watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the VM is served on, and operators. */
struct ends {
    int listening, connected, control; /* -1: none */
    char *path;                        /* of `listening` */
    struct event *sigterm, *sigint;
};

static void on_signal(evutil_socket_t signal, short what, void *ctx)
{
    (void)signal;
    (void)what;
    event_base_loopexit(ctx, NULL);
}

static bool is_orphan(const struct backend *backend)
{
    return backend->was_supervised && !backend->supervisor;
}

static bool is_to_end(const struct backend *backend)
{
    if (backend->vm && vm_connected(backend->vm))
        return false;
    return backend->ending || is_orphan(backend) || !backend->options.wait;
}

static void on_end(evutil_socket_t fd, short what, void *ctx)
{
    struct backend *backend = ctx;

    (void)fd;
    (void)what;
    if (is_to_end(backend))
        event_base_loopexit(backend->base, NULL);
}

void backend_end_if_idle(struct backend *backend)
{
    static const struct timeval soon = {0, 10000}, later = {1, 0}; /* soon: an answer goes before */

    if (backend->end && is_to_end(backend))
        event_add(backend->end, is_orphan(backend) ? &later : &soon);
}

/* Before, they end the process at once: it serves nobody yet. */
static bool hear_signals(struct backend *backend, struct ends *ends)
{
    ends->sigterm = evsignal_new(backend->base, SIGTERM, on_signal, backend->base);
    ends->sigint = evsignal_new(backend->base, SIGINT, on_signal, backend->base);
    return ends->sigterm && ends->sigint && event_add(ends->sigterm, NULL) == 0 &&
           event_add(ends->sigint, NULL) == 0;
}

/* ---- sockets ---- */

/* -1: explained. */
static int listen_at(const struct options *options, const char *option,
                     const struct vm_options_socket *socket)
{
    const struct passwd *user = options->user && geteuid() == 0 ? getpwnam(options->user) : NULL;
    int fd;

    if (!sockets_check_place(option, socket->path, user ? user->pw_uid : geteuid()))
        return -1;
    fd = sockets_listen_unix(socket->path, &socket->access);
    if (fd < 0)
        sockets_explain(option, socket->path);
    return fd;
}

static int take_fd(int fd, struct ends *ends)
{
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        log_line("--fd: descriptor %d was not handed over: %s", fd, strerror(errno));
        return EXIT_RUN_USAGE;
    }
    ends->path = sockets_path(fd);
    if (ends->path)
        ends->listening = fd;
    else if (sockets_connected(fd))
        ends->connected = fd;
    else
        log_line("--fd: descriptor %d is no Unix stream socket that listens or is connected", fd);
    return ends->listening >= 0 || ends->connected >= 0 ? 0 : EXIT_RUN_USAGE;
}

/* The exit code, explained; 0: all is well. */
static int open_ends(struct backend *backend, struct ends *ends)
{
    const struct options *options = &backend->options;
    int error = 0;

    if (options->fd >= 0) {
        error = take_fd(options->fd, ends);
    } else {
        ends->listening = listen_at(options, "socket-path", &options->socket);
        ends->path = strdup(options->socket.path);
        error = ends->listening < 0 ? EXIT_RUN_HOST : 0;
    }
    if (!error && options->control.path) {
        ends->control = listen_at(options, "control", &options->control);
        error = ends->control < 0 ? EXIT_RUN_HOST : 0;
    }
    if (error || !options->control.path || !options->wait ||
        state_open(backend, options->control.path, ends->path))
        return error;
    log_line("--control: no file can be made beside %s: %s", options->control.path,
             strerror(errno));
    return EXIT_RUN_HOST;
}

/* ---- the way in ---- */

/* Give up what is not needed any more. The thread that discards is made in between: it inherits
 * what was given up, and cannot be made afterwards. False: explained. */
static bool give_up(struct backend *backend)
{
    process_touch_libraries();
    if (!sandbox_namespaces() || !sandbox_limits() || !sandbox_files())
        return false;
    backend->pool = sandbox_pool();
    return backend->pool && sandbox_calls();
}

static int enter_sandbox(struct backend *backend)
{
    const bool sandbox = !backend->options.vm.no_sandbox;

    if ((backend->options.user || sandbox) && !process_user(backend->options.user))
        return EXIT_RUN_HOST;
    backend->events = ebb_vhost_user_events_new();
    if (!backend->events) {
        log_line("cannot interrupt guests: %s%s", strerror(errno),
                 errno == EAGAIN ? " (raise the limit: sysctl fs.aio-max-nr)" : "");
        return EXIT_RUN_HOST;
    }
    if (sandbox)
        return give_up(backend) ? 0 : EXIT_RUN_HOST;
    backend->pool = ebb_discard_pool_new(1);
    if (!backend->pool)
        log_line("cannot start a thread: %s", strerror(errno));
    return backend->pool ? 0 : EXIT_RUN_HOST;
}

static int serve(struct backend *backend, struct ends *ends)
{
    backend->end = evtimer_new(backend->base, on_end, backend);
    backend->commands = backend_commands(backend);
    backend->control_config = control_config(&backend->commands);
    backend->control_config.line_limit = 8 * CONTROL_LINE; /* see SPEC.md: ebbd's may be longer */
    if (ends->control >= 0)
        backend->control = server_new(backend->base, ends->control, &backend->control_config);
    if (backend->end && (ends->control < 0 || backend->control) && hear_signals(backend, ends))
        backend->vm = vm_new(backend, ends->listening, ends->path, ends->connected);
    if (!backend->vm || !state_start(backend)) {
        log_line("%s: cannot be served: %s", backend->options.name, strerror(errno));
        return EXIT_RUN_HOST;
    }
    return 0;
}

/* The exit code; 0: ready. */
static int prepare(struct backend *backend, struct ends *ends)
{
    int error;

    backend->base = process_event_base();
    if (!backend->base || connection_guard() != 0 || !watchdog_start(backend->options.name)) {
        log_line("cannot make an event loop: %s", strerror(errno));
        return EXIT_RUN_HOST;
    }
    error = open_ends(backend, ends);
    if (!error && chdir("/") != 0)
        error = EXIT_RUN_HOST;
    if (!error)
        error = enter_sandbox(backend);
    return error ? error : serve(backend, ends);
}

/* The guest gets back what is done; nothing else is promised. */
static void finish(struct backend *backend, struct ends *ends)
{
    watchdog_begin(); /* front-ends that were not accepted can have left what makes close() wait */
    if (backend->vm)
        vm_free(backend->vm);
    backend->vm = NULL;
    server_free(backend->control);
    state_close(backend);
    if (backend->pool)
        ebb_discard_pool_free(backend->pool);
    ebb_vhost_user_events_free(backend->events);
    if (backend->end)
        event_free(backend->end);
    backend->end = NULL;
    if (ends->sigterm)
        event_free(ends->sigterm);
    if (ends->sigint)
        event_free(ends->sigint);
    if (backend->base)
        event_base_free(backend->base);
    libevent_global_shutdown();
    free(ends->path);
    options_free(&backend->options);
    watchdog_end();
}

int main(int argc, char **argv)
{
    struct ends ends = {.listening = -1, .connected = -1, .control = -1};
    struct backend backend = {.state = {.fd = -1}, .started_ns = log_now_ns()};
    int error;

    if (!process_begin("ebbd-vm"))
        return EXIT_RUN_HOST;
    options_parse(argc, argv, &backend.options);
    /* Threads share their heap: one of the pool's own would cost more memory than it saves time. */
    mallopt(M_ARENA_MAX, 1);
    process_close_others(backend.options.fd);
    umask(0117); /* sockets are for owner and group */
    error = prepare(&backend, &ends);
    if (!error)
        event_base_dispatch(backend.base);
    finish(&backend, &ends);
    return error;
}
