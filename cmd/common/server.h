/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A socket for clients that send lines and get text: the control socket, and the metrics'. What a
 * client can make us keep is bounded: a line, and one answer; the next line is taken when that has
 * been read.
 */
#ifndef COMMON_SERVER_H
#define COMMON_SERVER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>

struct client;

struct server_config {
    size_t line_limit; /* bytes, with the newline */
    unsigned clients;  /* at a time; of one too many, and the others, the one that has said nothing
                          for the longest time is dropped */
    /* Seconds, after which a client is dropped, however it spends them. */
    unsigned idle_s;    /* without a request; 0: one request is a connection */
    unsigned request_s; /* from the first byte of a request to its last */
    unsigned answer_s;  /* from an answer until it has been read */
    const char *full;   /* sent to one too many, if all others have something going on */
    void *ctx;
    /* Of a new client; the result is its state. NULL: cannot be served. */
    void *(*come)(struct client *client, void *ctx);
    /* A line, without its newline and with a zero after it. */
    void (*line)(void *state, char *line, size_t len);
    /* The limit was reached without a newline. The client is dropped afterwards. */
    void (*too_long)(void *state);
    void (*gone)(void *state);
};

struct server;

/* `config` must stay. NULL: errno is set. The socket is closed in any case, in the end. */
struct server *server_new(struct event_base *base, int listening,
                          const struct server_config *config);
/* NULL: nothing to do. */
void server_free(struct server *server);

/* Text for a client; false: there is no memory for it, and the client is dropped soon. */
bool client_send(struct client *client, const void *text, size_t len);
/* What was sent has not been read by the kernel yet. */
bool client_is_behind(const struct client *client);
/* No further line, or further lines again. */
void client_pause(struct client *client, bool on);
/* It is sent to, and may be silent; or no longer. */
void client_watches(struct client *client, bool on);
/* Drop it when all is sent. */
void client_close(struct client *client);
int client_fd(const struct client *client);

#endif
