/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A connection to a back end's control socket. Requests are answered in order, and nobody waits:
 * answers come by callbacks, from the loop.
 */
#ifndef EBBD_LINK_H
#define EBBD_LINK_H

#include <event2/event.h>
#include <json.h>
#include <stdbool.h>
#include <stdint.h>

struct link;

struct link_ops {
    /* A request was sent, or (`answered`) answers came: how many are unanswered now. */
    void (*moved)(void *ctx, unsigned waiting, bool answered);
    /* The other end is gone, or sent what is no answer. The link is to be freed. */
    void (*gone)(void *ctx);
};

/* NULL: errno is set (ENOENT, ECONNREFUSED: nobody is there). */
struct link *link_new(struct event_base *base, const char *path, const struct link_ops *ops,
                      void *ctx);
/* All that is unanswered is answered by NULL. NULL: nothing to do. */
void link_free(struct link *link);

/* `answer` is called once, from the loop, with what is put afterwards; NULL: there will be none. */
void link_ask(struct link *link, struct json_object *request,
              void (*answer)(void *ctx, struct json_object *answer), void *ctx);

/* Of the process at the other end. */
int link_pid(const struct link *link);

#endif
