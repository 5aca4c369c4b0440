/* SPDX-License-Identifier: BSD-2-Clause */
/* The control protocol (SPEC.md, "The control socket of ebbd"), from lines to answers; what the
 * commands do is somebody else's. */
#ifndef COMMON_CONTROL_H
#define COMMON_CONTROL_H

#include "server.h"

#include <event2/event.h>
#include <json.h>
#include <stdint.h>
#include <sys/types.h>

#define CONTROL_LINE 4096u

struct control; /* a client */

struct control_call {
    const struct control *client;
    const char *who; /* the client, for the log */
    bool operates;   /* it may change something */
    bool stays;      /* it may be silent for as long as it likes */
    void *wait;
    uint64_t again_us; /* ask again so long after the answer, until the client says something
                        * else; 0: do not */
};

/* What requests come to. Answers are to be put. */
struct control_commands {
    struct event_base *base;
    void *ctx;
    const gid_t *operators; /* root and members of this group operate; NULL: all do */
    /* Do what an object asks for. NULL: it takes time, and call->wait says what is waited for. */
    struct json_object *(*execute)(void *ctx, struct json_object *request,
                                   struct control_call *call);
    /* NULL: not yet. */
    struct json_object *(*waited)(void *ctx, void *wait);
    /* Nobody waits for it any more. */
    void (*forget)(void *wait);
    /* A client is. NULL: nobody wants to know. */
    void (*gone)(void *ctx, const struct control *client);
};

/* For server_new(); `commands` must stay. */
struct server_config control_config(const struct control_commands *commands);

struct json_object *control_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- members of a request ---- */

/* NULL: there is none of this name that is text. */
const char *control_text(struct json_object *request, const char *name);

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

/* `who`: the client, for the log. */
struct control *control_new(const struct control_commands *commands, const struct control_ops *ops,
                            void *ctx, const char *who);
void control_line(struct control *control, const char *line, size_t len);
void control_free(struct control *control);

#endif
