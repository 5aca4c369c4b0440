/* SPDX-License-Identifier: BSD-2-Clause */
#include "options.h"
#include "../args.h"

#include <ebb/types.h>

#include <stdlib.h>
#include <string.h>

enum key {
    KEY_SOCKET = 's',
    KEY_CONTROL = 'c',
    KEY_METRICS = 'm',
    KEY_USER = 'u',
    KEY_SOCKET_DIR = 256,
    KEY_STATE,
    KEY_OPERATORS,
};

static const struct argp_option argp_options[] = {
    {NULL, 0, NULL, 0, "The VMs:", 1},
    {"socket", KEY_SOCKET, "PATH[,for=USER[:GROUP]]", 0,
     "Listen there for the front-end (QEMU, say) of one VM, named after the file: web1.sock is "
     "web1's; repeatable. Besides ebbd itself, only that user and group can connect (default: "
     "ebbd's group)",
     1},
    {"socket-dir", KEY_SOCKET_DIR, "DIR", 0,
     "Listen on each NAME.sock that was left in this directory, and on those that `ebb ctl add "
     "NAME` makes there",
     1},
    {NULL, 0, NULL, 0, "Operators:", 2},
    {"control", KEY_CONTROL, "PATH[,for=USER[:GROUP]]", 0,
     "Take commands (`ebb ctl`, `ebb top`) on this socket", 2},
    {"operators", KEY_OPERATORS, "GROUP", 0,
     "Who may change something: root, and members of this group; others that can connect may look "
     "(default: all that can connect)",
     2},
    {"metrics", KEY_METRICS, "unix:PATH[,for=...]|ADDRESS:PORT", 0,
     "Serve OpenMetrics over HTTP there; ADDRESS is 127.0.0.1 or [::1], which every local user can "
     "read",
     2},
    {NULL, 0, NULL, 0, "The process:", 4},
    {"state", KEY_STATE, "DIR", 0,
     "Where back ends can be found again by an ebbd that starts later, and takes them over "
     "(default: the --control path with '.d')",
     4},
    {"user", KEY_USER, "NAME", 0, "Become this user before anything is served (started as root)",
     4},
    {0},
};

static const char doc[] =
    "Serve the virtio balloons of VMs: what their guests do not need goes back to the host. Each "
    "VM has a back end of its own, ebbd-vm, which ebbd starts, watches and replaces. When ebbd "
    "ends, back ends go on until their guests end, and the next ebbd takes them over."
    "\vGuests need shared memory (memfd, hugetlbfs). QEMU from 10.2 on:\n"
    "  ebbd --socket /run/ebb/web1.sock --control /run/ebb/control\n"
    "  qemu-system-x86_64 -object memory-backend-memfd,id=m,size=2G,share=on -M "
    "q35,memory-backend=m "
    "-chardev socket,id=c,path=/run/ebb/web1.sock -device "
    "vhost-user-test-device-pci,chardev=c,virtio-id=5,num_vqs=5,vq_size=128,config_size=16\n\n"
    "The first two also come from systemd's socket activation. SIGTERM ends it, and leaves guests "
    "their balloons; SIGINT ends the back ends as well. Exit status: 0 it was told to end, 2 wrong "
    "options, 4 something is wrong with this machine (a socket, a user, the sandbox).";

static void set_metrics(struct argp_state *state, struct options *options, char *arg)
{
    const char *port = strrchr(arg, ':');
    bool local = strncmp(arg, "127.0.0.1:", 10) == 0 || strncmp(arg, "[::1]:", 6) == 0;

    options->metrics = NULL;
    options->metrics_socket.path = NULL;
    if (strncmp(arg, "unix:", 5) == 0 && arg[5]) {
        options->metrics_socket = vm_options_socket(state, "metrics", arg + 5);
        return;
    }
    if (!local)
        argp_error(state, "--metrics is unix:PATH, 127.0.0.1:PORT or [::1]:PORT, not '%s'", arg);
    else
        args_count(state, "metrics ADDRESS:PORT: the port", port + 1, 0, 65535);
    options->metrics = arg;
}

static void set_operators(struct argp_state *state, struct options *options, const char *arg)
{
    if (!sockets_read_group(arg, &options->operators))
        argp_error(state, "--operators: there is no group %s", arg);
    options->has_operators = true;
    options->operators_name = arg;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &options->vm;
        return 0;
    case KEY_SOCKET:
        options->sockets = vm_options_grown(state, options->sockets, options->n_sockets,
                                            sizeof(*options->sockets));
        options->sockets[options->n_sockets++] = vm_options_socket(state, "socket", arg);
        return 0;
    case KEY_SOCKET_DIR:
        options->socket_dir = arg;
        return 0;
    case KEY_CONTROL:
        options->control = vm_options_socket(state, "control", arg);
        return 0;
    case KEY_METRICS:
        set_metrics(state, options, arg);
        return 0;
    case KEY_OPERATORS:
        set_operators(state, options, arg);
        return 0;
    case KEY_STATE:
        options->state = arg;
        return 0;
    case KEY_USER:
        options->user = arg;
        return 0;
    case ARGP_KEY_ARG:
        args_none(state, arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

void options_parse(int argc, char **argv, struct options *options)
{
    static const struct argp_child children[] = {{&vm_options_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = argp_options, .parser = parse, .doc = doc, .children = children};

    *options = (struct options){.vm = VM_OPTIONS_DEFAULT};
    argp_err_exit_status = EXIT_RUN_USAGE;
    argp_program_version = "ebbd " EBB_VERSION;
    argp_parse(&argp, argc, argv, 0, NULL, options);
}

void options_free(struct options *options)
{
    vm_options_free(&options->vm);
    free(options->sockets);
}
