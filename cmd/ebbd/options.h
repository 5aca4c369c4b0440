/* SPDX-License-Identifier: BSD-2-Clause */
/* The options of ebbd. */
#ifndef EBBD_OPTIONS_H
#define EBBD_OPTIONS_H

#include "../common/vm_options.h"

struct options {
    const char **sockets; /* paths */
    unsigned n_sockets;
    const char *socket_dir; /* NULL: none */
    const char *control;    /* NULL: none */
    const char *metrics;    /* NULL: none; "unix:PATH", "ADDRESS:PORT" */
    const char *user;       /* NULL: stay who we are */
    const char *state;      /* NULL: see ebbd.h */
    struct vm_options vm;
};

/* Parse; what is wrong ends the program with EXIT_RUN_USAGE. */
void options_parse(int argc, char **argv, struct options *options);
void options_free(struct options *options);

#endif
