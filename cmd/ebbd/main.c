/* SPDX-License-Identifier: BSD-2-Clause */
/* ebbd: from options to a sandbox, to the loop, to the end. */
#include "closer.h"
#include "connection.h"
#include "control.h"
#include "ebbd.h"
#include "listen.h"
#include "log.h"
#include "metrics.h"
#include "notify.h"
#include "reaper.h"
#include "sandbox.h"
#include "server.h"
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <json.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the loop has besides VMs. */
struct fittings {
    struct event *sigterm, *sigint;
    struct server_config control_config, metrics_config;
    struct server *control, *metrics;
    int notify_fd;
};

/* A program that starts without them would give their numbers to the next file it opens. */
static bool standard_fds_open(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) != fd)
            return false;
    }
    return true;
}

/* Each VM takes some 20 descriptors, and one for each region of its memory. */
static void raise_limits(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void on_library_message(int severity, const char *text)
{
    if (severity >= EVENT_LOG_WARN)
        log_line("libevent: %s", text);
}

static struct event_base *new_base(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;

    event_set_log_callback(on_library_message);
    if (config && event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV) == 0 &&
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK) == 0)
        base = event_base_new_with_config(config);
    if (config)
        event_config_free(config);
    return base;
}

static void on_signal(evutil_socket_t signal, short what, void *ctx)
{
    (void)signal;
    (void)what;
    event_base_loopexit(ctx, NULL);
}

void ebbd_end_if_idle(struct ebbd *daemon)
{
    if (daemon->n_vms == 0 && !daemon->in_dir)
        event_base_loopexit(daemon->base, NULL);
}

/* As they must be, whatever a parent blocked or ignored. Those that are handled are set later. */
static void reset_signals(void)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a log that may not grow is no reason to end */
    signal(SIGHUP, SIG_IGN);  /* there is nothing to read anew */
}

static bool set_signals(struct ebbd *daemon, struct fittings *fittings)
{
    fittings->sigterm = evsignal_new(daemon->base, SIGTERM, on_signal, daemon->base);
    fittings->sigint = evsignal_new(daemon->base, SIGINT, on_signal, daemon->base);
    return fittings->sigterm && fittings->sigint && event_add(fittings->sigterm, NULL) == 0 &&
           event_add(fittings->sigint, NULL) == 0 && connection_guard() == 0;
}

static bool add_servers(struct ebbd *daemon, const struct listen *operators,
                        struct fittings *fittings)
{
    fittings->control_config = control_config(daemon);
    fittings->metrics_config = metrics_config(daemon);
    if (operators->control >= 0)
        fittings->control = server_new(daemon->base, operators->control, &fittings->control_config);
    if (operators->metrics >= 0)
        fittings->metrics = server_new(daemon->base, operators->metrics, &fittings->metrics_config);
    return (operators->control < 0 || fittings->control) &&
           (operators->metrics < 0 || fittings->metrics);
}

/* What libraries do when they are used for the first time may need files. */
static void touch_libraries(void)
{
    struct json_object *object = json_object_new_object();

    json_object_object_add(object, "seed", json_object_new_int(1)); /* /dev/urandom */
    json_object_put(object);
    (void)strerror(EPERM);
}

/* Give up what is not needed any more. The pool's threads are made in between: they inherit what
 * was given up, and cannot be made afterwards. */
static int enter_sandbox(struct ebbd *daemon)
{
    const struct options *options = &daemon->options;

    daemon->events = ebb_vhost_user_events_new();
    if (!daemon->events) {
        log_line("cannot interrupt guests: %s%s", strerror(errno),
                 errno == EAGAIN ? " (raise the limit: sysctl fs.aio-max-nr)" : "");
        return EXIT_RUN_HOST;
    }
    touch_libraries();
    if (!options->no_sandbox && !sandbox_files(daemon->in_dir))
        return EXIT_RUN_HOST;
    daemon->pool = ebb_discard_pool_new(options->threads);
    daemon->closer = closer_start();
    daemon->reaper = reaper_new(daemon->base, connection_end_retired, connection_ended);
    if (!daemon->pool || daemon->closer < 0 || !daemon->reaper) {
        log_line("cannot start threads: %s", strerror(errno));
        return EXIT_RUN_HOST;
    }
    return options->no_sandbox || sandbox_calls(daemon->in_dir) ? 0 : EXIT_RUN_HOST;
}

/* The exit code; 0: ready. */
static int prepare(struct ebbd *daemon, struct fittings *fittings)
{
    const struct options *options = &daemon->options;
    struct listen operators;
    int error;

    daemon->base = new_base();
    if (!daemon->base || !set_signals(daemon, fittings)) {
        log_line("cannot make an event loop: %s", strerror(errno));
        return EXIT_RUN_HOST;
    }
    error = listen_all(daemon, &operators);
    if (error)
        return error;
    if (!add_servers(daemon, &operators, fittings))
        return EXIT_RUN_HOST;
    if ((options->user || !options->no_sandbox) && !sandbox_user(options->user))
        return EXIT_RUN_HOST;
    error = listen_dir(daemon);
    if (error)
        return error;
    fittings->notify_fd = notify_open();
    error = enter_sandbox(daemon);
    return error ? error : listen_fds(daemon);
}

/* Guests get back what is done; nothing else is promised. */
static void finish(struct ebbd *daemon, struct fittings *fittings)
{
    server_free(fittings->control);
    server_free(fittings->metrics);
    while (daemon->n_vms) {
        vm_finish(daemon->vms[daemon->n_vms - 1]);
        vm_free(daemon->vms[daemon->n_vms - 1]);
    }
    free(daemon->vms);
    reaper_free(daemon->reaper);
    if (daemon->pool)
        ebb_discard_pool_free(daemon->pool);
    ebb_vhost_user_events_free(daemon->events);
    if (daemon->closer >= 0)
        close(daemon->closer);
    if (fittings->sigterm)
        event_free(fittings->sigterm);
    if (fittings->sigint)
        event_free(fittings->sigint);
    if (daemon->base)
        event_base_free(daemon->base);
    if (fittings->notify_fd >= 0)
        close(fittings->notify_fd);
    libevent_global_shutdown();
    options_free(&daemon->options);
}

int main(int argc, char **argv)
{
    struct fittings fittings = {.notify_fd = -1};
    struct ebbd daemon = {.started_ns = log_now_ns(), .closer = -1};
    int error;

    reset_signals();
    if (!standard_fds_open())
        return EXIT_RUN_HOST;
    options_parse(argc, argv, &daemon.options);
    daemon.inhibit = daemon.options.inhibit;
    daemon.rate = daemon.options.rate;
    umask(0117); /* sockets are for owner and group */
    raise_limits();
    error = prepare(&daemon, &fittings);
    if (!error) {
        log_line("ready, %u VM%s", daemon.n_vms, daemon.n_vms == 1 ? "" : "s");
        notify_send(fittings.notify_fd, "READY=1\n");
        event_base_dispatch(daemon.base);
        log_line("ends");
        notify_send(fittings.notify_fd, "STOPPING=1\n");
    }
    finish(&daemon, &fittings);
    return error;
}
