/* SPDX-License-Identifier: BSD-2-Clause */
/* The control protocol (SPEC.md, "The control socket of ebbd"). */
#ifndef EBBD_CONTROL_H
#define EBBD_CONTROL_H

#include "ebbd.h"
#include "server.h"

#define CONTROL_LINE 4096u

/* For server_new(), with the daemon as ctx. */
struct server_config control_config(struct ebbd *daemon);

/* ---- without a socket: for the above, and for tests ---- */

struct control_ops {
    /* Answers, each a line with its newline. */
    void (*send)(void *ctx, const char *text, size_t len);
    /* Is the last one still unread? */
    bool (*is_behind)(void *ctx);
    /* No further line until this says so. */
    void (*pause)(void *ctx, bool on);
    /* It is sent to from now on, without asking; or no longer. */
    void (*watch)(void *ctx, bool on);
    void (*close)(void *ctx);
};

struct control;
/* `who`: the client, for the log. */
struct control *control_new(struct ebbd *daemon, const struct control_ops *ops, void *ctx,
                            const char *who);
void control_line(struct control *control, const char *line, size_t len);
void control_free(struct control *control);

#endif
