/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * QEMU with the reference guest, from its start to its end: what it says is
 * heard, shown and recorded, signals are obeyed. Whatever happens to this
 * process, QEMU ends with it (child.h).
 */
#ifndef SESSION_H
#define SESSION_H

#include "backend.h"
#include "run.h"
#include "sampler.h"
#include "telemetry.h"
#include "text.h"
#include "view.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <termios.h>

struct session {
    struct run *run;
    pid_t pid; /* above 0: QEMU was started */
    struct backend backend;
    bool backend_lost; /* it ended before QEMU did */
    int wait_status;
    struct text_tail console, err; /* of the guest, of QEMU */

    /* Private. */
    struct view view;
    struct sampler sampler;
    struct telemetry parser;
    size_t shown;   /* bytes of console.text that were printed */
    bool in_line;   /* the last of these is not the end of a line */
    bool prompting; /* the guest reads its console */
    int telemetry_fd, console_fd, err_fd, signal_fd, input_fd;
    bool sampling, exited, killed;
    uint64_t heard_ns; /* when the guest last gave a sign of life */
    uint64_t based_ns;
    sigset_t signals;        /* that were blocked before */
    struct termios terminal; /* as it was */
    bool terminal_changed;
};

/* Run QEMU to its end; run->status and its figures tell how that went. */
void session_run(struct session *session, struct run *run);

#endif
