/* SPDX-License-Identifier: BSD-2-Clause */
#include "options.h"
#include "../args.h"

#include <ebb/types.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum key {
    KEY_SOCKET = 's',
    KEY_FD = 'f',
    KEY_CONTROL = 'c',
    KEY_NAME = 'n',
    KEY_USER = 'u',
    KEY_WAIT = 'w',
    KEY_CAPABILITIES = 256,
};

static const struct argp_option argp_options[] = {
    {NULL, 0, NULL, 0, "The VM:", 1},
    {"socket-path", KEY_SOCKET, "PATH[,for=USER[:GROUP]]", 0,
     "Listen there for the VM's front-end (QEMU, say). Its mode is 0660: that user and group can "
     "connect, nobody else",
     1},
    {"fd", KEY_FD, "N", 0,
     "Instead: descriptor N was handed over. It is a front-end's connection, or a socket that "
     "listens for it",
     1},
    {"name", KEY_NAME, "NAME", 0,
     "What messages and answers call the VM (default: after the socket, web1.sock is web1's)", 1},
    {"wait", KEY_WAIT, NULL, 0,
     "When the front-end leaves, wait for the next; if a client of the control socket "
     "supervises, as long as it stays (default: end)",
     1},
    {NULL, 0, NULL, 0, "Operators:", 2},
    {"control", KEY_CONTROL, "PATH[,for=USER[:GROUP]]", 0,
     "Take commands (`ebb ctl`, `ebb top`) on this socket", 2},
    {NULL, 0, NULL, 0, "The process:", 4},
    {"user", KEY_USER, "NAME", 0, "Become this user before anything is served (started as root)",
     4},
    {"print-capabilities", KEY_CAPABILITIES, NULL, 0,
     "Say as JSON what kind of back end this is, and end", 4},
    {0},
};

static const char doc[] =
    "Serve the virtio balloon of one VM as a vhost-user back end: what its guest does not need "
    "goes back to the host. For many VMs there is ebbd, which starts one of these for each."
    "\vThe guest needs shared memory (memfd, hugetlbfs). QEMU from 10.2 on:\n"
    "  ebbd-vm --socket-path /run/ebb/web1.sock\n"
    "  qemu-system-x86_64 -object memory-backend-memfd,id=m,size=2G,share=on -M "
    "q35,memory-backend=m "
    "-chardev socket,id=c,path=/run/ebb/web1.sock -device "
    "vhost-user-test-device-pci,chardev=c,virtio-id=5,num_vqs=5,vq_size=128,config_size=16\n\n"
    "It ends when its front-end leaves. Exit status: 0 that, or it was told to end, 2 wrong "
    "options, 4 something is wrong with this machine (a socket, a user, the sandbox), 5 it was "
    "stuck in what its front-end gave it, or lost it.";

static void print_capabilities(void)
{
    puts("{\n  \"type\": \"balloon\",\n  \"features\": []\n}");
    exit(0);
}

static void check_together(struct argp_state *state, struct options *options)
{
    if (!options->socket.path == (options->fd < 0))
        argp_error(state, "give either --socket-path or --fd");
    else if (options->wait && !options->control.path)
        argp_error(state, "--wait needs --control: without, nobody could end it");
    else if (!options->name && !options->socket.path)
        options->name = "vm";
    else if (!options->name && !vm_options_name_of(options->socket.path, options->name_of_socket))
        argp_error(state,
                   "%s: a socket is called NAME.sock, NAME of up to %u letters, digits, '.', "
                   "'_', '-'; or give --name",
                   options->socket.path, VM_NAME_MAX);
    else if (!options->name)
        options->name = options->name_of_socket;
    else if (!vm_options_name(options->name))
        argp_error(state, "--name is up to %u letters, digits, '.', '_', '-', not '%s'",
                   VM_NAME_MAX, options->name);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &options->vm;
        return 0;
    case KEY_SOCKET:
        options->socket = vm_options_socket(state, "socket-path", arg);
        return 0;
    case KEY_FD:
        options->fd = (int)args_count(state, "fd", arg, 3, 1u << 20);
        return 0;
    case KEY_CONTROL:
        options->control = vm_options_socket(state, "control", arg);
        return 0;
    case KEY_NAME:
        options->name = arg;
        return 0;
    case KEY_USER:
        options->user = arg;
        return 0;
    case KEY_WAIT:
        options->wait = true;
        return 0;
    case KEY_CAPABILITIES:
        print_capabilities();
        return 0;
    case ARGP_KEY_ARG:
        args_none(state, arg);
        return 0;
    case ARGP_KEY_END:
        check_together(state, options);
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

    *options = (struct options){.fd = -1, .vm = VM_OPTIONS_DEFAULT};
    argp_err_exit_status = EXIT_RUN_USAGE;
    argp_program_version = "ebbd-vm " EBB_VERSION;
    argp_parse(&argp, argc, argv, 0, NULL, options);
}

void options_free(struct options *options)
{
    vm_options_free(&options->vm);
}
