/* SPDX-License-Identifier: BSD-2-Clause */
/* Everything that is listened on from the start: by option, handed over by systemd, in a directory.
 */
#ifndef EBBD_LISTEN_H
#define EBBD_LISTEN_H

#include "ebbd.h"

/* Sockets of operators; -1: none. */
struct listen {
    int control, metrics;
};

/* Those of the options, and those handed over, which come first. A socket whose back end
 * runs is left to it. The exit code, explained on stderr; 0: all is well. */
int listen_all(struct ebbd *ebbd, struct listen *operators);

/* Make options.socket_dir, if any, the current directory, and take up the sockets that are in it.
 * The exit code, likewise. */
int listen_dir(struct ebbd *ebbd);

#endif
