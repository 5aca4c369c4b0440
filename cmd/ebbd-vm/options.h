/* SPDX-License-Identifier: BSD-2-Clause */
/* The options of ebbd-vm. */
#ifndef EBBD_VM_OPTIONS_H
#define EBBD_VM_OPTIONS_H

#include "../common/vm_options.h"

struct options {
    struct vm_options_socket socket, control;
    int fd; /* instead of `socket`, handed over; -1: none */
    const char *name;
    const char *user; /* NULL: stay who we are */
    bool wait;        /* for the next front-end, as long as somebody controls us */
    struct vm_options vm;
    char name_of_socket[VM_NAME_MAX + 1];
};

/* Parse; what is wrong ends the program with EXIT_RUN_USAGE. */
void options_parse(int argc, char **argv, struct options *options);
void options_free(struct options *options);

#endif
