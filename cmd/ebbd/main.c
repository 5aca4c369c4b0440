/* SPDX-License-Identifier: BSD-2-Clause */
/* ebbd: from options to its sockets and back ends, to the loop, to the end. */
#include "../common/log.h"
#include "../common/process.h"
#include "../common/sockets.h"
#include "commands.h"
#include "launch.h"
#include "listen.h"
#include "metrics.h"
#include "notify.h"
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What the loop has besides VMs. */
struct fittings {
    struct ebbd *ebbd;
    struct event *sigterm, *sigint, *sigchld;
    struct control_commands commands;
    struct server_config control_config, metrics_config;
    struct server *control, *metrics;
    int lock_fd, notify_fd;
    bool told_to_end, end_all; /* end_all: back ends as well */
};

/* ---- signals ---- */

static void on_term(evutil_socket_t signal, short what, void *ctx)
{
    struct fittings *fittings = ctx;

    (void)what;
    fittings->told_to_end = true;
    fittings->end_all = signal == SIGINT;
    event_base_loopexit(fittings->ebbd->base, NULL);
}

static void on_child(evutil_socket_t signal, short what, void *ctx)
{
    struct fittings *fittings = ctx;
    int status;
    pid_t pid;

    (void)signal;
    (void)what;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        vm_child_ended(fittings->ebbd, pid, status);
}

static bool set_signals(struct fittings *fittings)
{
    struct event_base *base = fittings->ebbd->base;

    fittings->sigterm = evsignal_new(base, SIGTERM, on_term, fittings);
    fittings->sigint = evsignal_new(base, SIGINT, on_term, fittings);
    fittings->sigchld = evsignal_new(base, SIGCHLD, on_child, fittings);
    return fittings->sigterm && fittings->sigint && fittings->sigchld &&
           event_add(fittings->sigterm, NULL) == 0 && event_add(fittings->sigint, NULL) == 0 &&
           event_add(fittings->sigchld, NULL) == 0;
}

/* ---- the state directory ---- */

/* To be freed; NULL: explained. */
static char *make_state_dir(struct ebbd *ebbd)
{
    char temporary[] = P_tmpdir "/ebbd-XXXXXX", *made = NULL, *path = NULL;
    const struct options *options = &ebbd->options;

    if (!options->state && !options->control.path) {
        made = mkdtemp(temporary);
        ebbd->own_state_dir = true;
        if (!made)
            log_line("%s: %s", temporary, strerror(errno));
        return made ? strdup(made) : NULL;
    }
    if (options->state)
        made = strdup(options->state);
    else if (asprintf(&made, "%s.d", options->control.path) < 0)
        made = NULL;
    if (made && (mkdir(made, 0700) == 0 || errno == EEXIST))
        path = realpath(made, NULL);
    if (!path)
        log_line("--state: %s: %s", made ? made : "", strerror(errno));
    free(made);
    return path;
}

/* For the user that we become, and nobody else: who can connect there commands back ends. */
static bool make_private(int fd, const struct passwd *user)
{
    const uid_t owner = user ? user->pw_uid : geteuid();
    struct stat dir;

    if (fstat(fd, &dir) != 0)
        return false;
    if (dir.st_uid == geteuid() && dir.st_uid != owner && (dir.st_mode & 0777) == 0700)
        return fchown(fd, user->pw_uid, user->pw_gid) == 0; /* as it was made here */
    errno = EPERM;
    return dir.st_uid == owner && fchmod(fd, 0700) == 0;
}

/* Two ebbds would take each other's back ends. */
static int lock_state_dir(const struct ebbd *ebbd)
{
    const char *user = ebbd->options.user;
    const struct passwd *entry = user && geteuid() == 0 ? getpwnam(user) : NULL;
    int fd;

    if (!sockets_check_place("state", ebbd->state_dir, entry ? entry->pw_uid : geteuid()))
        return -1;
    fd = open(ebbd->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && make_private(fd, entry))
        return fd;
    if (errno == EWOULDBLOCK)
        log_line("--state: another ebbd has the back ends in %s; give another directory",
                 ebbd->state_dir);
    else
        log_line("--state: %s: %s", ebbd->state_dir, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

/* ---- the way in ---- */

void ebbd_look(struct ebbd *ebbd)
{
    if (ebbd->told_ready)
        return;
    for (unsigned i = 0; i < ebbd->n_vms && !ebbd->failed; i++) {
        if (!vm_is_up(ebbd->vms[i]) || !vm_seen(ebbd->vms[i]))
            return;
    }
    event_base_loopbreak(ebbd->base);
}

static bool add_servers(struct fittings *fittings, const struct listen *operators)
{
    struct ebbd *ebbd = fittings->ebbd;

    fittings->commands = ebbd_commands(ebbd);
    if (ebbd->options.has_operators)
        fittings->commands.operators = &ebbd->options.operators;
    fittings->control_config = control_config(&fittings->commands);
    fittings->metrics_config = metrics_config(ebbd);
    if (operators->control >= 0)
        fittings->control = server_new(ebbd->base, operators->control, &fittings->control_config);
    if (operators->metrics >= 0)
        fittings->metrics = server_new(ebbd->base, operators->metrics, &fittings->metrics_config);
    return (operators->control < 0 || fittings->control) &&
           (operators->metrics < 0 || fittings->metrics);
}

/* The exit code; 0: ready. */
static int prepare(struct ebbd *ebbd, struct fittings *fittings)
{
    const struct options *options = &ebbd->options;
    struct listen operators;
    int error;

    ebbd->base = process_event_base();
    if (!ebbd->base || !set_signals(fittings)) {
        log_line("cannot make an event loop: %s", strerror(errno));
        return EXIT_RUN_HOST;
    }
    ebbd->program = launch_find_program();
    ebbd->state_dir = ebbd->program ? make_state_dir(ebbd) : NULL;
    fittings->lock_fd = ebbd->state_dir ? lock_state_dir(ebbd) : -1;
    umask(0117); /* sockets are for owner and group */
    if (fittings->lock_fd < 0)
        return EXIT_RUN_HOST;
    error = listen_all(ebbd, &operators);
    if (error)
        return error;
    if ((options->user || !options->vm.no_sandbox) && !process_user(options->user))
        return EXIT_RUN_HOST;
    error = listen_dir(ebbd);
    if (error)
        return error;
    vm_release_others(ebbd);
    fittings->notify_fd = notify_open();
    if (ebbd->n_vms) /* until all are up, or one has failed */
        event_base_dispatch(ebbd->base);
    ebbd->told_ready = true;
    if (ebbd->failed)
        return ebbd->failed;
    /* Who asks before waits for an answer that has all VMs' state. */
    return add_servers(fittings, &operators) ? 0 : EXIT_RUN_HOST;
}

/* ---- the way out ---- */

/* Until back ends that were told to end have: a socket that one still listens on is not taken up by
 * an ebbd that comes next. One that its kernel or its front-end keeps is left behind. */
static void wait_for_children(void)
{
    static const struct timespec pause = {0, 10000000};
    const uint64_t end = log_now_ns() + UINT64_C(5000000000);

    while (waitpid(-1, NULL, WNOHANG) >= 0 && log_now_ns() < end)
        nanosleep(&pause, NULL);
}

static void finish(struct ebbd *ebbd, struct fittings *fittings)
{
    struct event *events[] = {fittings->sigterm, fittings->sigint, fittings->sigchld};

    server_free(fittings->control);
    server_free(fittings->metrics);
    while (ebbd->n_vms)
        vm_free(ebbd->vms[ebbd->n_vms - 1],
                fittings->end_all || ebbd->own_state_dir ? VM_REMOVE : VM_LEAVE);
    free(ebbd->vms);
    if (fittings->end_all || ebbd->own_state_dir)
        wait_for_children();
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (events[i])
            event_free(events[i]);
    }
    if (ebbd->base)
        event_base_free(ebbd->base);
    if (fittings->notify_fd >= 0)
        close(fittings->notify_fd);
    if (fittings->lock_fd >= 0)
        close(fittings->lock_fd);
    libevent_global_shutdown();
    if (ebbd->own_state_dir && ebbd->state_dir)
        rmdir(ebbd->state_dir);
    free(ebbd->state_dir);
    free(ebbd->program);
    options_free(&ebbd->options);
}

int main(int argc, char **argv)
{
    struct ebbd ebbd = {.started_ns = log_now_ns()};
    struct fittings fittings = {.ebbd = &ebbd, .lock_fd = -1, .notify_fd = -1};
    int error;

    if (!process_begin("ebbd"))
        return EXIT_RUN_HOST;
    options_parse(argc, argv, &ebbd.options);
    ebbd.inhibit = ebbd.options.vm.inhibit;
    ebbd.rate = ebbd.options.vm.rate;
    error = prepare(&ebbd, &fittings);
    if (!error) {
        if (!fittings.told_to_end) {
            log_line("ready, %u VM%s", ebbd.n_vms, ebbd.n_vms == 1 ? "" : "s");
            notify_send(fittings.notify_fd, "READY=1\n");
            event_base_dispatch(ebbd.base);
        }
        log_line("ends");
        notify_send(fittings.notify_fd, "STOPPING=1\n");
    }
    finish(&ebbd, &fittings);
    return error;
}
