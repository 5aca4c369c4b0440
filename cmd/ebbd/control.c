/* SPDX-License-Identifier: BSD-2-Clause */
#include "control.h"
#include "control_commands.h"
#include "log.h"

#include <errno.h>
#include <json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* How often what a client waits for is looked at. */
#define NAP_US 10000
/* A request is an object of texts, numbers and booleans: none in it has members. */
#define DEPTH 2

struct control {
    struct ebbd *daemon;
    const struct control_ops *ops;
    void *ctx;
    struct json_tokener *tokener;
    struct event *timer;
    enum { IDLE, WAITING, WATCHING } state;
    struct json_object *request; /* the one that is waited or watched for */
    struct control_wait wait;
    char who[64];
};

struct json_object *control_error(const char *format, ...)
{
    struct json_object *answer = json_object_new_object();
    char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    /* What a client wrote may have been cut inside a character. */
    for (char *c = text; *c; c++)
        *c = (char)(*c & 0x80 ? '?' : *c);
    json_object_object_add(answer, "error", json_object_new_string(text));
    return answer;
}

/* Puts the answer. */
static void answer_with(struct control *control, struct json_object *request,
                        struct json_object *answer)
{
    struct json_object *id = request ? json_object_object_get(request, "id") : NULL;
    size_t len;
    const char *text;

    if (id)
        json_object_object_add(answer, "id", json_object_get(id));
    text = json_object_to_json_string_length(
        answer, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);
    if (text) {
        control->ops->send(control->ctx, text, len);
        control->ops->send(control->ctx, "\n", 1);
    } else {
        control->ops->close(control->ctx);
    }
    json_object_put(answer);
}

/* Nothing is waited or watched for any more. */
static void settle(struct control *control)
{
    if (control->state == WATCHING)
        control->ops->watch(control->ctx, false);
    event_del(control->timer);
    json_object_put(control->request);
    control->request = NULL;
    control->state = IDLE;
}

static void again_in(struct control *control, uint64_t us)
{
    struct timeval in = {(time_t)(us / 1000000), (suseconds_t)(us % 1000000)};

    if (event_add(control->timer, &in) != 0)
        control->ops->close(control->ctx);
}

static void watch(struct control *control)
{
    /* One that is not read is not followed by another. */
    if (!control->ops->is_behind(control->ctx))
        answer_with(control, control->request, control_status(control->daemon, control->request));
    again_in(control, control->wait.interval_ns / 1000);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct control *control = ctx;
    struct json_object *answer;

    (void)fd;
    (void)what;
    if (control->state == WATCHING) {
        watch(control);
        return;
    }
    answer = control_waited(control->daemon, &control->wait);
    if (!answer) {
        again_in(control, NAP_US);
        return;
    }
    answer_with(control, control->request, answer);
    settle(control);
    control->ops->pause(control->ctx, false);
}

/* The parser takes NaN and Infinity as well, which are no JSON. */
static bool is_json(struct json_object *request)
{
    json_object_object_foreach(request, name, value)
    {
        (void)name;
        if (json_object_is_type(value, json_type_double) &&
            strpbrk(json_object_get_string(value), "NI"))
            return false;
    }
    return true;
}

/* Of a whole number beyond 64 bits the parser makes the largest or smallest that there is, and
 * leaves no other sign of it. */
static bool has_large_number(struct json_object *request)
{
    json_object_object_foreach(request, name, value)
    {
        (void)name;
        if (json_object_is_type(value, json_type_int) &&
            (json_object_get_uint64(value) == UINT64_MAX ||
             json_object_get_int64(value) == INT64_MIN))
            return true;
    }
    return false;
}

static struct json_object *parse(struct control *control, const char *line, size_t len)
{
    struct json_object *request;

    json_tokener_reset(control->tokener);
    request = json_tokener_parse_ex(control->tokener, line, (int)len);
    if (request && json_tokener_get_parse_end(control->tokener) == len &&
        json_object_is_type(request, json_type_object) && is_json(request))
        return request;
    json_object_put(request);
    return NULL;
}

static void execute(struct control *control, struct json_object *request)
{
    struct json_object *answer;

    log_by(control->who);
    answer = control_execute(control->daemon, request, &control->wait);
    log_by(NULL);
    if (answer) {
        answer_with(control, request, answer);
        return;
    }
    control->request = json_object_get(request);
    if (control->wait.kind == CONTROL_WATCH) {
        control->state = WATCHING;
        control->ops->watch(control->ctx, true);
        watch(control);
        return;
    }
    control->state = WAITING;
    control->ops->pause(control->ctx, true);
    again_in(control, NAP_US); /* not at once: kicks sent before are looked at first */
}

void control_line(struct control *control, const char *line, size_t len)
{
    struct json_object *request;

    if (control->state == WATCHING)
        settle(control);
    if (control->state == WAITING || len == 0)
        return;
    request = parse(control, line, len);
    if (!request) {
        answer_with(control, NULL,
                    control_error("not a JSON object; a request is one line, such as "
                                  "{\"command\": \"list\"}"));
        control->ops->close(control->ctx);
        return;
    }
    if (has_large_number(request))
        answer_with(control, NULL, control_error("a whole number has at most 64 bits"));
    else
        execute(control, request);
    json_object_put(request);
}

struct control *control_new(struct ebbd *daemon, const struct control_ops *ops, void *ctx,
                            const char *who)
{
    struct control *control = calloc(1, sizeof(*control));

    if (!control)
        return NULL;
    *control = (struct control){.daemon = daemon, .ops = ops, .ctx = ctx};
    snprintf(control->who, sizeof(control->who), "%s", who);
    control->tokener = json_tokener_new_ex(DEPTH);
    control->timer = evtimer_new(daemon->base, on_timer, control);
    if (control->tokener && control->timer) {
        json_tokener_set_flags(control->tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
        return control;
    }
    control_free(control);
    return NULL;
}

void control_free(struct control *control)
{
    if (control->tokener)
        json_tokener_free(control->tokener);
    if (control->timer)
        event_free(control->timer);
    json_object_put(control->request);
    free(control);
}

/* ---- on a socket ---- */

static void send_to_client(void *ctx, const char *text, size_t len)
{
    client_send(ctx, text, len);
}

static bool is_client_behind(void *ctx)
{
    return client_is_behind(ctx);
}

static void pause_client(void *ctx, bool on)
{
    client_pause(ctx, on);
}

static void watch_client(void *ctx, bool on)
{
    client_watches(ctx, on);
}

static void close_client(void *ctx)
{
    client_close(ctx);
}

static void *come(struct client *client, void *ctx)
{
    static const struct control_ops ops = {.send = send_to_client,
                                           .is_behind = is_client_behind,
                                           .pause = pause_client,
                                           .watch = watch_client,
                                           .close = close_client};
    struct ucred peer;
    socklen_t len = sizeof(peer);
    char who[64] = "";

    if (getsockopt(client_fd(client), SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0)
        snprintf(who, sizeof(who), "by uid %u, pid %d", peer.uid, peer.pid);
    return control_new(ctx, &ops, client, who);
}

static void line(void *state, char *text, size_t len)
{
    control_line(state, text, len);
}

static void too_long(void *state)
{
    struct control *control = state;

    settle(control);
    answer_with(control, NULL, control_error("the line is longer than %u bytes", CONTROL_LINE));
}

static void gone(void *state)
{
    control_free(state);
}

struct server_config control_config(struct ebbd *daemon)
{
    return (struct server_config){
        .line_limit = CONTROL_LINE,
        .clients = 64,
        .idle_s = 600,
        .request_s = 10,
        .answer_s = 60,
        .full = "{\"error\":\"64 clients are at work; try again when one has gone\"}\n",
        .ctx = daemon,
        .come = come,
        .line = line,
        .too_long = too_long,
        .gone = gone,
    };
}
