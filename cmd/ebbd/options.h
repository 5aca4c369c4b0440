/* SPDX-License-Identifier: BSD-2-Clause */
/* The options of ebbd. */
#ifndef EBBD_OPTIONS_H
#define EBBD_OPTIONS_H

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

/* A connection that was handed over. */
struct option_fd {
    const char *name;
    int fd;
};

struct options {
    const char **sockets; /* paths */
    unsigned n_sockets;
    struct option_fd *fds;
    unsigned n_fds;
    const char *socket_dir; /* NULL: none */
    const char *control;    /* NULL: none */
    const char *metrics;    /* NULL: none; "unix:PATH", "ADDRESS:PORT" */
    const char *user;       /* NULL: stay who we are */
    unsigned threads;       /* of the pool; 0: its default */
    uint64_t rate;          /* bytes a second; 0: any */
    uint32_t check_every;   /* 0: the default */
    uint32_t gather_us;
    unsigned stats_s; /* 0: guests are not asked by themselves */
    uint64_t offer, withhold;
    bool any_file, sealed_only; /* as in struct ebb_vhost_user_config */
    bool fixed_queues;
    bool discard_hints;
    bool inhibit;
    bool no_sandbox;
};

/* Parse; what is wrong ends the program with EXIT_RUN_USAGE. */
void options_parse(int argc, char **argv, struct options *options);
void options_free(struct options *options);

/* Is it the name of a VM? */
bool options_vm_name(const char *name);

#endif
