/* SPDX-License-Identifier: BSD-2-Clause */
#include "link.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Longer than any answer. */
#define LINE_LIMIT 65536u
/* Questions that wait for their answers; beyond, there will be none. */
#define QUESTIONS 256u

struct question {
    void (*answer)(void *ctx, struct json_object *answer);
    void *ctx;
    STAILQ_ENTRY(question) next;
};

struct link {
    const struct link_ops *ops;
    void *ctx;
    struct bufferevent *stream;
    int pid;
    unsigned waiting;
    STAILQ_HEAD(, question) questions;
};

static void answer_first(struct link *link, struct json_object *answer)
{
    struct question *question = STAILQ_FIRST(&link->questions);

    STAILQ_REMOVE_HEAD(&link->questions, next);
    link->waiting--;
    question->answer(question->ctx, answer);
    free(question);
}

/* False: it is no answer to anything. */
static bool take_line(struct link *link, const char *line)
{
    struct json_object *answer;
    bool object;

    if (STAILQ_EMPTY(&link->questions))
        return false;
    answer = json_tokener_parse(line);
    object = json_object_is_type(answer, json_type_object);
    if (object)
        answer_first(link, answer);
    json_object_put(answer);
    return object;
}

/* Nothing is done to the link after its owner was told: it may be gone. */
static void on_bytes(struct bufferevent *stream, void *ctx)
{
    struct evbuffer *input = bufferevent_get_input(stream);
    struct link *link = ctx;
    bool sound = true, answered = false;
    char *line;

    while (sound && (line = evbuffer_readln(input, NULL, EVBUFFER_EOL_LF))) {
        sound = take_line(link, line);
        answered = true;
        free(line);
    }
    if (!sound || evbuffer_get_length(input) >= LINE_LIMIT)
        link->ops->gone(link->ctx);
    else if (answered)
        link->ops->moved(link->ctx, link->waiting, true);
}

static void on_end(struct bufferevent *stream, short what, void *ctx)
{
    struct link *link = ctx;

    (void)stream;
    (void)what;
    link->ops->gone(link->ctx);
}

/* Connected, or -1. */
static int connect_to(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd, error;

    if (strlen(path) >= sizeof(at.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(at.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&at, sizeof(at)) == 0)
        return fd;
    error = errno;
    close(fd);
    errno = error;
    return -1;
}

struct link *link_new(struct event_base *base, const char *path, const struct link_ops *ops,
                      void *ctx)
{
    struct link *link = calloc(1, sizeof(*link));
    struct ucred peer = {0};
    socklen_t len = sizeof(peer);
    int fd = link ? connect_to(path) : -1;

    if (fd < 0) {
        free(link);
        return NULL;
    }
    (void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len);
    *link = (struct link){.ops = ops, .ctx = ctx, .pid = peer.pid};
    STAILQ_INIT(&link->questions);
    link->stream = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!link->stream) {
        close(fd);
        free(link);
        errno = ENOMEM;
        return NULL;
    }
    bufferevent_setcb(link->stream, on_bytes, NULL, on_end, link);
    bufferevent_setwatermark(link->stream, EV_READ, 0, LINE_LIMIT);
    bufferevent_enable(link->stream, EV_READ | EV_WRITE);
    return link;
}

void link_free(struct link *link)
{
    if (!link)
        return;
    bufferevent_free(link->stream);
    while (!STAILQ_EMPTY(&link->questions))
        answer_first(link, NULL);
    free(link);
}

void link_ask(struct link *link, struct json_object *request,
              void (*answer)(void *ctx, struct json_object *answer), void *ctx)
{
    struct question *question = calloc(1, sizeof(*question));
    const char *text = json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN);

    if (!question || !text || link->waiting >= QUESTIONS ||
        bufferevent_write(link->stream, text, strlen(text)) != 0 ||
        bufferevent_write(link->stream, "\n", 1) != 0) {
        free(question);
        answer(ctx, NULL);
        return;
    }
    *question = (struct question){.answer = answer, .ctx = ctx};
    STAILQ_INSERT_TAIL(&link->questions, question, next);
    link->ops->moved(link->ctx, ++link->waiting, false);
}

int link_pid(const struct link *link)
{
    return link->pid;
}
