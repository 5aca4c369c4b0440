/* SPDX-License-Identifier: BSD-2-Clause */
#include "vm_options.h"
#include "../args.h"
#include "sockets.h"

#include <ebb/virtio.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_LIMIT 65536u

enum key {
    KEY_RATE = 'r',
    KEY_FILES = 512,
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
    {NULL, 0, NULL, 0, "How VMs are served:", 3},
    {"files", KEY_FILES, "memory|sealed|any", 0,
     "Guest memory to take: files of tmpfs and hugetlbfs, memfds among them; of these only such as "
     "cannot be made shorter; or any, which may be of a file system that lets the back end wait "
     "(default memory)",
     3},
    {"rate", KEY_RATE, "SIZE", 0,
     "Discard at most so much a second for each VM, and leave what is beyond (512M, 2G; default 0, "
     "any)",
     3},
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
    {"stats", KEY_STATS, "SECONDS", 0,
     "Ask each guest for its statistics so often, 0 to 3600; 0: only by `ebb ctl stats` (default "
     "5)",
     3},
    {"offer", KEY_OFFER, "FEATURE", 0,
     "Offer a feature that is not by default: deflate-on-oom; repeatable", 3},
    {"withhold", KEY_WITHHOLD, "FEATURE", 0,
     "Do not offer one: must-tell-host, stats, hint, poison, reporting; repeatable", 3},
    {"queues", KEY_QUEUES, "linux|spec", 0,
     "How queues are numbered: as Linux and the VMMs do, or as the specification does (default "
     "linux)",
     3},
    {"discard-hints", KEY_DISCARD_HINTS, NULL, 0,
     "Discard free page hints, too. Live data can be lost unless the guest waits for the device, "
     "which Linux does not",
     3},
    {"no-sandbox", KEY_NO_SANDBOX, NULL, 0,
     "Keep system calls and files within reach: for a debugger", 3},
    {0},
};

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

void *vm_options_grown(struct argp_state *state, void *list, unsigned n, size_t size)
{
    void *more = n < LIST_LIMIT ? reallocarray(list, n + 1, size) : NULL;

    if (!more)
        argp_failure(state, EXIT_RUN_HOST, 0, "out of memory");
    return more;
}

struct vm_options_socket vm_options_socket(struct argp_state *state, const char *option, char *arg)
{
    static const char mark[] = ",for=";
    struct vm_options_socket made = {.path = arg, .access = SOCKETS_OWN};
    const char *wrong;
    char *whom = NULL;

    for (char *next = arg; (next = strstr(next, mark)); next++)
        whom = next; /* a directory's name may have it, too */
    if (!whom)
        return made;
    wrong = sockets_read_access(whom + sizeof(mark) - 1, &made.access);
    if (wrong)
        argp_error(state, "--%s %s: %s", option, arg, wrong);
    *whom = '\0';
    return made;
}

bool vm_options_name(const char *name)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t len = strlen(name);

    return len > 0 && len <= VM_NAME_MAX && strspn(name, allowed) == len && *name != '.' &&
           *name != '-';
}

bool vm_options_name_of(const char *path, char name[VM_NAME_MAX + 1])
{
    const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    size_t len = strlen(base), suffix = strlen(SOCKET_SUFFIX);

    if (len > suffix && strcmp(base + len - suffix, SOCKET_SUFFIX) == 0)
        len -= suffix;
    if (len > VM_NAME_MAX)
        return false;
    memcpy(name, base, len);
    name[len] = '\0';
    return vm_options_name(name);
}

static uint64_t rate(struct argp_state *state, const char *arg)
{
    return strcmp(arg, "0") == 0 ? 0 : args_size(state, "rate", arg, MIB, 1048576 * MIB, MIB);
}

static void check_together(struct argp_state *state, const struct vm_options *options)
{
    if (options->offer & options->withhold)
        argp_error(state, "a feature cannot be both offered and withheld");
    if (options->discard_hints && (options->withhold & EBB_F_FREE_PAGE_HINT))
        argp_error(state, "--discard-hints needs the hints that --withhold=hint withholds");
}

static void set_files(struct argp_state *state, struct vm_options *options, const char *arg)
{
    static const char *const files[] = {"memory", "sealed", "any", NULL};
    unsigned which = args_choice(state, "files", files, arg);

    options->sealed_only = which == 1;
    options->any_file = which == 2;
}

/* As it was given, for somebody else. */
static void keep(struct argp_state *state, struct vm_options *options, int key, const char *arg)
{
    const struct argp_option *option = argp_options;
    char *word = NULL;

    while (option->key != key)
        option++;
    options->words =
        vm_options_grown(state, options->words, options->n_words, sizeof(*options->words));
    if (asprintf(&word, arg ? "--%s=%s" : "--%s", option->name, arg) < 0)
        argp_failure(state, EXIT_RUN_HOST, 0, "out of memory");
    options->words[options->n_words++] = word;
}

static error_t parse_device(int key, char *arg, struct argp_state *state,
                            struct vm_options *options)
{
    static const char *const queues[] = {"linux", "spec", NULL};

    switch (key) {
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
    case KEY_NO_SANDBOX:
        options->no_sandbox = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_discard(int key, char *arg, struct argp_state *state,
                             struct vm_options *options)
{
    switch (key) {
    case KEY_FILES:
        set_files(state, options, arg);
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
        return parse_device(key, arg, state, options);
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct vm_options *options = state->input;
    error_t error;

    if (key == ARGP_KEY_END) {
        check_together(state, options);
        return 0;
    }
    error = parse_discard(key, arg, state, options);
    if (!error)
        keep(state, options, key, arg);
    return error;
}

const struct argp vm_options_argp = {.options = argp_options, .parser = parse};

void vm_options_free(struct vm_options *options)
{
    for (unsigned i = 0; i < options->n_words; i++)
        free(options->words[i]);
    free(options->words);
}
