/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client's side of a socket on which each line is a JSON object: ebbd's control socket
 * (SPEC.md, "The control socket of ebbd") and QEMU's QMP. What the other side sends is bounded and
 * checked to be such a line; what is in it is for the caller to check.
 *
 * Nothing here waits but control_call(), or prints: what went wrong is in `error`.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <json-c/json_object.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONTROL_PATH     "/run/ebb/control" /* where ebbd listens if nobody says otherwise */
#define CONTROL_PROTOCOL 1                  /* the version of ebbd's that this program speaks */
#define CONTROL_REQUEST  4096u              /* bytes that a request may take, with its newline */
#define CONTROL_ANSWER   (16u << 20)        /* bytes that an answer may take: 6000 VMs' */

/* Who is at the other end, for the messages. */
struct control_peer {
    const char *name;   /* "ebbd" */
    const char *option; /* what makes it listen */
};

extern const struct control_peer control_ebbd, control_qemu;

struct control {
    const char *path; /* the caller's */
    const struct control_peer *peer;
    int fd;          /* -1: not connected */
    char error[512]; /* a sentence on what went wrong last; ASCII without control characters */
    const char
        *line; /* the last answer as it came, without its newline, until the next is received */

    /* Private. */
    char *buffer;
    size_t size, have, scanned, taken;
};

void control_init(struct control *control, const char *path, const struct control_peer *peer);

/* False: `error` says why. */
bool control_connect(struct control *control);

/* Ends the connection, if there is one; `error` stays, `line` does not. */
void control_close(struct control *control);

/* Sends a request. False, and the connection is ended: it could not be. */
bool control_send(struct control *control, struct json_object *request);

/* The next answer, to be released with json_object_put(). CONTROL_LATER: poll `fd` and come again.
 * CONTROL_ENDED: the other side hung up, or sent what is no answer; the connection is ended. */
enum control_result { CONTROL_LATER, CONTROL_ANSWERED, CONTROL_ENDED };

enum control_result control_receive(struct control *control, struct json_object **answer);

/* Sends a request and waits for its answer for so long. NULL, and the connection is ended: none
 * came. */
struct json_object *control_call(struct control *control, struct json_object *request,
                                 uint64_t timeout_ns);

/* The request that begins a conversation with ebbd, and whether the answer to it is that of an ebbd
 * that this program understands; if not, `error` says why. */
struct json_object *control_hello(void);
bool control_is_hello(struct control *control, struct json_object *answer);

/*
 * Of a histogram of latencies ([i]: how many took less than 2^i us, and not less than half of that;
 * the last: all longer ones) the time within which a share of them was, in ns. It is the limit of a
 * bucket; negative: longer than its absolute value. Those that `before` (NULL: none) counts are
 * left out. NaN: there are none, or `now` is no such thing.
 */
double control_latency(struct json_object *now, struct json_object *before, double share);

#endif
