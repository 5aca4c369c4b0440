/* SPDX-License-Identifier: BSD-2-Clause */
/* The options that say how a VM is served: ebbd-vm follows them, and ebbd hands them on. */
#ifndef COMMON_VM_OPTIONS_H
#define COMMON_VM_OPTIONS_H

#include "sockets.h"

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

/* Exit codes; as those of `ebb`. */
enum {
    EXIT_RUN_USAGE = 2,
    EXIT_RUN_HOST = 4,
};

/* A VM's name: letters, digits, '.', '_', '-', not first a '.' or '-'; so many bytes at most, so
 * that NAME.sock is a file name. */
#define VM_NAME_MAX 64u

struct vm_options {
    uint64_t rate;        /* bytes a second; 0: any */
    uint32_t check_every; /* 0: the default */
    uint32_t gather_us;
    unsigned stats_s; /* 0: guests are not asked by themselves */
    uint64_t offer, withhold;
    bool any_file, sealed_only; /* as in struct ebb_vhost_user_config */
    bool fixed_queues;
    bool discard_hints;
    bool inhibit;
    bool no_sandbox;
    /* As they were given: n_words of "--name=value". */
    char **words;
    unsigned n_words;
};

#define VM_OPTIONS_DEFAULT \
    (struct vm_options)    \
    {                      \
        .stats_s = 5       \
    }

/* For the children of an argp; its input is a struct vm_options. */
extern const struct argp vm_options_argp;
void vm_options_free(struct vm_options *options);

/* A list that gets one more element of `size`; without memory the program ends. */
void *vm_options_grown(struct argp_state *state, void *list, unsigned n, size_t size);

/* Where to listen: "PATH" or "PATH,for=USER[:GROUP]". */
struct vm_options_socket {
    const char *path; /* NULL: nowhere */
    struct sockets_access access;
};

/* From an option's argument, of which the rest is cut off; what is wrong ends the program. */
struct vm_options_socket vm_options_socket(struct argp_state *state, const char *option, char *arg);

/* Is it the name of a VM? */
bool vm_options_name(const char *name);

/* The VM of a socket: the file's name, less ".sock". False: it is no VM's name. */
bool vm_options_name_of(const char *path, char name[VM_NAME_MAX + 1]);

#endif
