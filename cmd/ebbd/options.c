/* SPDX-License-Identifier: BSD-2-Clause */
#include "options.h"
#include "../args.h"

#include <ebb/types.h>
#include <ebb/vhost/discard.h>
#include <ebb/virtio.h>

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_LIMIT 65536u

enum key {
    KEY_SOCKET = 's',
    KEY_CONTROL = 'c',
    KEY_METRICS = 'm',
    KEY_USER = 'u',
    KEY_THREADS = 't',
    KEY_RATE = 'r',
    KEY_SOCKET_DIR = 256,
    KEY_FD,
    KEY_FILES,
    KEY_CHECK_EVERY,
    KEY_GATHER,
    KEY_STATS,
    KEY_OFFER,
    KEY_WITHHOLD,
    KEY_QUEUES,
    KEY_DISCARD_HINTS,
    KEY_INHIBIT,
    KEY_NO_SANDBOX,
};

static const struct argp_option argp_options[] = {
    {NULL, 0, NULL, 0, "The VMs:", 1},
    {"socket", KEY_SOCKET, "PATH", 0,
     "Listen there for the front-end (QEMU, say) of one VM, named after the file: web1.sock is "
     "web1's; repeatable",
     1},
    {"socket-dir", KEY_SOCKET_DIR, "DIR", 0,
     "Listen on each NAME.sock that was left in this directory, and on those that `ebb ctl add "
     "NAME` makes there",
     1},
    {"fd", KEY_FD, "[NAME=]N", 0,
     "Serve the front-end whose connection was handed over as descriptor N; repeatable. When all "
     "of these hung up and there is nothing to listen on, ebbd ends",
     1},
    {"files", KEY_FILES, "memory|sealed|any", 0,
     "Guest memory to take: files of tmpfs and hugetlbfs, memfds among them; of these only such as "
     "cannot be made shorter; or any, which may be of a file system that lets ebbd wait (default "
     "memory)",
     1},
    {NULL, 0, NULL, 0, "Operators:", 2},
    {"control", KEY_CONTROL, "PATH", 0, "Take commands (`ebb ctl`, `ebb top`) on this socket", 2},
    {"metrics", KEY_METRICS, "unix:PATH|ADDRESS:PORT", 0,
     "Serve OpenMetrics over HTTP there; ADDRESS is 127.0.0.1 or [::1]", 2},
    {NULL, 0, NULL, 0, "Discarding:", 3},
    {"threads", KEY_THREADS, "N", 0, "Threads that discard, for all VMs, 1 to 64 (default 2)", 3},
    {"rate", KEY_RATE, "SIZE", 0,
     "Discard at most so much a second for each VM (512M, 2G; default 0, any)", 3},
    {"check-every", KEY_CHECK_EVERY, "N", 0,
     "Look at every N-th discarded extent whether its memory is really gone; 0: at none (default "
     "16)",
     3},
    {"gather", KEY_GATHER, "MICROSECONDS", 0,
     "Let what a guest hands over wait so long for more, to merge it, 0 to 100000 (default 0)", 3},
    {"inhibit", KEY_INHIBIT, NULL, 0,
     "Acknowledge, and discard nothing until `ebb ctl inhibit off`: for VMs with assigned devices, "
     "before a post-copy migration or a snapshot",
     3},
    {NULL, 0, NULL, 0, "The device:", 4},
    {"stats", KEY_STATS, "SECONDS", 0,
     "Ask each guest for its statistics so often, 0 to 3600; 0: only by `ebb ctl stats` (default "
     "5)",
     4},
    {"offer", KEY_OFFER, "FEATURE", 0,
     "Offer a feature that is not by default: deflate-on-oom; repeatable", 4},
    {"withhold", KEY_WITHHOLD, "FEATURE", 0,
     "Do not offer one: must-tell-host, stats, hint, poison, reporting; repeatable", 4},
    {"queues", KEY_QUEUES, "linux|spec", 0,
     "How queues are numbered: as Linux and the VMMs do, or as the specification does (default "
     "linux)",
     4},
    {"discard-hints", KEY_DISCARD_HINTS, NULL, 0,
     "Discard free page hints, too. Live data can be lost unless the guest waits for the device, "
     "which Linux does not",
     4},
    {NULL, 0, NULL, 0, "The process:", 5},
    {"user", KEY_USER, "NAME", 0, "Become this user before anything is served (started as root)",
     5},
    {"no-sandbox", KEY_NO_SANDBOX, NULL, 0,
     "Keep system calls and files within reach: for a debugger", 5},
    {0},
};

static const char doc[] =
    "Serve the virtio balloons of VMs as a vhost-user back-end: what their guests do not need "
    "goes back to the host."
    "\vGuests need shared memory (memfd, hugetlbfs). QEMU from 10.2 on:\n"
    "  ebbd --socket /run/ebb/web1.sock --control /run/ebb/control\n"
    "  qemu-system-x86_64 -object memory-backend-memfd,id=m,size=2G,share=on -M "
    "q35,memory-backend=m "
    "-chardev socket,id=c,path=/run/ebb/web1.sock -device "
    "vhost-user-test-device-pci,chardev=c,virtio-id=5,num_vqs=5,vq_size=128,config_size=16\n\n"
    "The first two also come from systemd's socket activation. SIGTERM and SIGINT end it; SIGHUP "
    "is ignored. Exit status: 0 it was told to end, 2 wrong options, 4 something is wrong with "
    "this machine (a socket, a user, the sandbox).";

static const struct feature {
    const char *name;
    uint64_t bit;
} offers[] = {{"deflate-on-oom", EBB_F_DEFLATE_ON_OOM}, {0}},
  withholds[] = {{"must-tell-host", EBB_F_MUST_TELL_HOST}, {"stats", EBB_F_STATS_VQ},
                 {"hint", EBB_F_FREE_PAGE_HINT},           {"poison", EBB_F_PAGE_POISON},
                 {"reporting", EBB_F_PAGE_REPORTING},      {0}};

static uint64_t feature(struct argp_state *state, const char *option, const struct feature *known,
                        const char *arg)
{
    const char *names[8] = {NULL};
    unsigned n;

    for (n = 0; known[n].name; n++)
        names[n] = known[n].name;
    return known[args_choice(state, option, names, arg)].bit;
}

static void *grown(struct argp_state *state, void *list, unsigned n, size_t size)
{
    void *more = n < LIST_LIMIT ? reallocarray(list, n + 1, size) : NULL;

    if (!more)
        argp_failure(state, EXIT_RUN_HOST, 0, "out of memory");
    return more;
}

bool options_vm_name(const char *name)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t len = strlen(name);

    return len > 0 && len <= VM_NAME_MAX && strspn(name, allowed) == len && *name != '.' &&
           *name != '-';
}

static void add_fd(struct argp_state *state, struct options *options, const char *arg)
{
    const char *equals = strchr(arg, '='), *number = equals ? equals + 1 : arg;
    struct option_fd *added;
    char name[24];
    int fd = (int)args_count(state, "fd", number, 3, 1u << 20);

    options->fds = grown(state, options->fds, options->n_fds, sizeof(*options->fds));
    added = &options->fds[options->n_fds++];
    snprintf(name, sizeof(name), "fd%d", fd);
    *added = (struct option_fd){
        .fd = fd, .name = equals ? strndup(arg, (size_t)(equals - arg)) : strdup(name)};
    if (!added->name || !options_vm_name(added->name))
        argp_error(state,
                   "--fd is N or NAME=N, NAME of up to %u letters, digits, '.', '_', '-', "
                   "not '%s'",
                   VM_NAME_MAX, arg);
}

static const char *metrics(struct argp_state *state, const char *arg)
{
    const char *port = strrchr(arg, ':');
    bool local = strncmp(arg, "127.0.0.1:", 10) == 0 || strncmp(arg, "[::1]:", 6) == 0;

    if (strncmp(arg, "unix:", 5) == 0 && arg[5])
        return arg;
    if (!local)
        argp_error(state, "--metrics is unix:PATH, 127.0.0.1:PORT or [::1]:PORT, not '%s'", arg);
    else
        args_count(state, "metrics ADDRESS:PORT: the port", port + 1, 0, 65535);
    return arg;
}

static uint64_t rate(struct argp_state *state, const char *arg)
{
    return strcmp(arg, "0") == 0 ? 0 : args_size(state, "rate", arg, MIB, 1048576 * MIB, MIB);
}

static void check_together(struct argp_state *state, const struct options *options)
{
    if (options->offer & options->withhold)
        argp_error(state, "a feature cannot be both offered and withheld");
    if (options->discard_hints && (options->withhold & EBB_F_FREE_PAGE_HINT))
        argp_error(state, "--discard-hints needs the hints that --withhold=hint withholds");
}

static void set_files(struct argp_state *state, struct options *options, const char *arg)
{
    static const char *const files[] = {"memory", "sealed", "any", NULL};
    unsigned which = args_choice(state, "files", files, arg);

    options->sealed_only = which == 1;
    options->any_file = which == 2;
}

static error_t parse_vm(int key, char *arg, struct argp_state *state, struct options *options)
{
    static const char *const queues[] = {"linux", "spec", NULL};

    switch (key) {
    case KEY_SOCKET:
        options->sockets = grown(state, options->sockets, options->n_sockets, sizeof(char *));
        options->sockets[options->n_sockets++] = arg;
        return 0;
    case KEY_SOCKET_DIR:
        options->socket_dir = arg;
        return 0;
    case KEY_FD:
        add_fd(state, options, arg);
        return 0;
    case KEY_FILES:
        set_files(state, options, arg);
        return 0;
    case KEY_STATS:
        options->stats_s = args_count(state, "stats", arg, 0, 3600);
        return 0;
    case KEY_OFFER:
        options->offer |= feature(state, "offer", offers, arg);
        return 0;
    case KEY_WITHHOLD:
        options->withhold |= feature(state, "withhold", withholds, arg);
        return 0;
    case KEY_QUEUES:
        options->fixed_queues = args_choice(state, "queues", queues, arg) == 1;
        return 0;
    case KEY_DISCARD_HINTS:
        options->discard_hints = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_discard(int key, char *arg, struct argp_state *state, struct options *options)
{
    switch (key) {
    case KEY_THREADS:
        options->threads = args_count(state, "threads", arg, 1, EBB_DISCARD_THREADS_LIMIT);
        return 0;
    case KEY_RATE:
        options->rate = rate(state, arg);
        return 0;
    case KEY_CHECK_EVERY:
        options->check_every = args_count(state, "check-every", arg, 0, 1000000);
        if (options->check_every == 0)
            options->check_every = UINT32_MAX;
        return 0;
    case KEY_GATHER:
        options->gather_us = args_count(state, "gather", arg, 0, 100000);
        return 0;
    case KEY_INHIBIT:
        options->inhibit = true;
        return 0;
    default:
        return parse_vm(key, arg, state, options);
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case KEY_CONTROL:
        options->control = arg;
        return 0;
    case KEY_METRICS:
        options->metrics = metrics(state, arg);
        return 0;
    case KEY_USER:
        options->user = arg;
        return 0;
    case KEY_NO_SANDBOX:
        options->no_sandbox = true;
        return 0;
    case ARGP_KEY_ARG:
        args_none(state, arg);
        return 0;
    case ARGP_KEY_END:
        check_together(state, options);
        return 0;
    default:
        return parse_discard(key, arg, state, options);
    }
}

void options_parse(int argc, char **argv, struct options *options)
{
    static const struct argp argp = {.options = argp_options, .parser = parse, .doc = doc};

    *options = (struct options){.stats_s = 5};
    argp_err_exit_status = EXIT_RUN_USAGE;
    argp_program_version = "ebbd " EBB_VERSION;
    argp_parse(&argp, argc, argv, 0, NULL, options);
}

void options_free(struct options *options)
{
    for (unsigned i = 0; i < options->n_fds; i++)
        free((char *)options->fds[i].name);
    free(options->fds);
    free(options->sockets);
}
