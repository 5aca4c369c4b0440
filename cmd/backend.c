/* SPDX-License-Identifier: BSD-2-Clause */
#include "backend.h"
#include "child.h"
#include "cmd.h"
#include "cputime.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MS 5000
#define NAP_MS      5

bool backend_start(struct backend *backend, const struct run *run, int err, int *front_end)
{
    char *fd_word, *argv[8] = {run->backend_path, NULL};
    int ends[2], n = 1;
    struct child_config config = {
        .argv = argv, .in = -1, .out = err, .err = err, .n_keep = 1, .own_group = true};

    *front_end = -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        cmd_error("cannot make a socket: %s", strerror(errno));
        return false;
    }
    fd_word = cmd_format("--fd=%d", ends[1]);
    argv[n++] = fd_word;
    if (!run->options->reporting)
        argv[n++] = (char *)"--withhold=reporting";
    argv[n] = NULL;
    config.keep = &ends[1];
    backend->pid = child_start(&config);
    free(fd_word);
    close(ends[1]);
    if (backend->pid > 0) {
        *front_end = ends[0];
        return true;
    }
    cmd_error("cannot start %s: %s", run->backend_path, strerror(-backend->pid));
    backend->pid = 0;
    close(ends[0]);
    return false;
}

bool backend_ended(struct backend *backend)
{
    struct rusage usage;

    if (backend->pid <= 0 || backend->exited)
        return backend->exited;
    if (wait4(backend->pid, &backend->wait_status, WNOHANG, &usage) != backend->pid)
        return false;
    backend->exited = true;
    backend->cpu_ns = cputime_used(&usage);
    return true;
}

void backend_finish(struct backend *backend)
{
    if (backend->pid <= 0)
        return;
    for (int waited = 0; !backend_ended(backend); waited += NAP_MS) {
        if (waited >= PATIENCE_MS)
            kill(backend->pid, SIGKILL);
        poll(NULL, 0, NAP_MS);
    }
}
