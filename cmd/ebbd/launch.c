/* SPDX-License-Identifier: BSD-2-Clause */
#include "launch.h"
#include "../args.h"
#include "../common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SOCKET_FD 3
#define OWN_WORDS 8u
/* A process that is to close something lives so long, should nobody end it. */
#define CLOSE_S 5u

extern char **environ;

char *launch_find_program(void)
{
    static const char *const beside[] = {"/ebbd-vm", "/../ebbd-vm/ebbd-vm"};
    char here[PATH_MAX], *path = NULL;
    ssize_t n = readlink("/proc/self/exe", here, sizeof(here) - 1);

    here[n > 0 ? n : 0] = '\0';
    if (strrchr(here, '/'))
        *strrchr(here, '/') = '\0';
    for (size_t i = 0; i < sizeof(beside) / sizeof(beside[0]); i++) {
        if (asprintf(&path, "%s%s", here, beside[i]) < 0)
            return NULL;
        if (access(path, X_OK) == 0)
            return path;
        free(path);
    }
    if (access(EBBD_VM_INSTALLED, X_OK) == 0)
        return strdup(EBBD_VM_INSTALLED);
    log_line("ebbd-vm, which serves a VM, is neither in %s nor at " EBBD_VM_INSTALLED, here);
    return NULL;
}

static int start(const char *program, char **argv, int listening, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    int error = posix_spawn_file_actions_init(&actions);

    if (error)
        return error;
    error = posix_spawn_file_actions_adddup2(&actions, listening, SOCKET_FD);
    if (!error)
        error = posix_spawn_file_actions_addclosefrom_np(&actions, SOCKET_FD + 1);
    if (!error)
        error = posix_spawn(pid, program, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

pid_t launch_back_end(const struct ebbd *ebbd, const char *name, const char *control, int listening,
                      uint64_t rate, bool inhibited)
{
    const struct vm_options *options = &ebbd->options.vm;
    char name_word[VM_NAME_MAX + 16], rate_word[40], fd_word[16], *control_word = NULL;
    char **argv = calloc(options->n_words + OWN_WORDS + 1, sizeof(*argv));
    unsigned n = 0;
    pid_t pid = -1;
    int error = ENOMEM;

    if (argv && asprintf(&control_word, "--control=%s", control) >= 0) {
        snprintf(name_word, sizeof(name_word), "--name=%s", name);
        snprintf(fd_word, sizeof(fd_word), "--fd=%d", SOCKET_FD);
        snprintf(rate_word, sizeof(rate_word), "--rate=%" PRIu64 "M", (rate + MIB - 1) / MIB);
        argv[n++] = (char *)"ebbd-vm";
        argv[n++] = name_word;
        argv[n++] = fd_word;
        argv[n++] = control_word;
        argv[n++] = (char *)"--wait";
        for (unsigned i = 0; i < options->n_words; i++) {
            if (strcmp(options->words[i], "--inhibit") != 0)
                argv[n++] = options->words[i];
        }
        if (inhibited)
            argv[n++] = (char *)"--inhibit";
        argv[n++] = rate ? rate_word : (char *)"--rate=0";
        error = start(ebbd->program, argv, listening, &pid);
    }
    free(control_word);
    free(argv);
    errno = error;
    return error ? -1 : pid;
}

void launch_close(int listening)
{
    pid_t last = fork();

    if (last == 0) {
        sleep(CLOSE_S);
        _exit(0);
    }
    if (last < 0) { /* a descriptor too many is better than a wait */
        log_line("a socket stays open: %s", strerror(errno));
        return;
    }
    close(listening);
    kill(last, SIGKILL);
}
