/* SPDX-License-Identifier: BSD-2-Clause */
/* The options of ebbd. */
#ifndef EBBD_OPTIONS_H
#define EBBD_OPTIONS_H

#include "../common/vm_options.h"

struct options {
    struct vm_options_socket *sockets;
    unsigned n_sockets;
    const char *socket_dir; /* NULL: none */
    struct vm_options_socket control, metrics_socket;
    const char *metrics; /* "ADDRESS:PORT"; NULL: none, or metrics_socket */
    const char *user;    /* NULL: stay who we are */
    const char *state;   /* NULL: see ebbd.h */
    bool has_operators;  /* only they change something: root, and this group */
    const char *operators_name;
    gid_t operators;
    struct vm_options vm;
};

/* Parse; what is wrong ends the program with EXIT_RUN_USAGE. */
void options_parse(int argc, char **argv, struct options *options);
void options_free(struct options *options);

#endif
