/* SPDX-License-Identifier: BSD-2-Clause */
#include "control.h"
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* How often what a client waits for is looked at. */
#define NAP_US 5000
/* A request is an object of texts, numbers and booleans: none in it has members. */
#define DEPTH 2

struct control {
    const struct control_commands *commands;
    const struct control_ops *ops;
    void *ctx;
    struct json_tokener *tokener;
    struct event *timer;
    struct json_object *request; /* the one that is waited for, or asked again */
    void *wait;                  /* NULL: for nothing */
    uint64_t again_us;           /* 0: it is not asked again */
    bool paused;
    bool stays, watches; /* it may be silent: for ever, for now */
    bool operates;
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

static void watch_client(struct control *control, bool on)
{
    if (control->watches != on)
        control->ops->watch(control->ctx, on);
    control->watches = on;
}

/* Nothing is waited for or asked again any more. */
static void settle(struct control *control)
{
    watch_client(control, control->stays);
    event_del(control->timer);
    if (control->wait)
        control->commands->forget(control->wait);
    json_object_put(control->request);
    control->request = NULL;
    control->wait = NULL;
    control->again_us = 0;
}

static void look_in(struct control *control, uint64_t us)
{
    struct timeval in = {(time_t)(us / 1000000), (suseconds_t)(us % 1000000)};

    if (event_add(control->timer, &in) != 0)
        control->ops->close(control->ctx);
}

static void pause_client(struct control *control, bool on)
{
    if (control->paused != on)
        control->ops->pause(control->ctx, on);
    control->paused = on;
}

/* The request at hand has its answer, or takes time: NULL. */
static void go_on(struct control *control, struct json_object *answer)
{
    if (!answer) {
        look_in(control, NAP_US); /* not at once: kicks sent before are looked at first */
        return;
    }
    if (control->wait)
        control->commands->forget(control->wait);
    control->wait = NULL;
    answer_with(control, control->request, answer);
    if (control->again_us) {
        look_in(control, control->again_us);
        return;
    }
    settle(control);
    pause_client(control, false);
}

static void ask(struct control *control)
{
    const struct control_commands *commands = control->commands;
    struct control_call call = {
        .client = control, .who = control->who, .operates = control->operates};
    struct json_object *answer;

    log_by(control->who);
    answer = commands->execute(commands->ctx, control->request, &call);
    log_by(NULL);
    control->wait = call.wait;
    control->again_us = call.again_us;
    control->stays = control->stays || call.stays;
    watch_client(control, control->again_us || control->stays);
    if (!answer && !control->again_us)
        pause_client(control, true);
    go_on(control, answer);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct control *control = ctx;
    const struct control_commands *commands = control->commands;

    (void)fd;
    (void)what;
    if (control->wait)
        go_on(control, commands->waited(commands->ctx, control->wait));
    else if (control->ops->is_behind(control->ctx)) /* one that is not read is not followed */
        look_in(control, control->again_us);
    else
        ask(control);
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

void control_line(struct control *control, const char *line, size_t len)
{
    if (control->again_us)
        settle(control);
    if (control->request || len == 0)
        return;
    control->request = parse(control, line, len);
    if (control->request && has_large_number(control->request)) {
        answer_with(control, NULL, control_error("a whole number has at most 64 bits"));
        settle(control);
        return;
    }
    if (control->request) {
        ask(control);
        return;
    }
    answer_with(control, NULL,
                control_error("not a JSON object; a request is one line, such as "
                              "{\"command\": \"list\"}"));
    control->ops->close(control->ctx);
}

const char *control_text(struct json_object *request, const char *name)
{
    struct json_object *member = json_object_object_get(request, name);
    const char *text;

    if (!json_object_is_type(member, json_type_string))
        return NULL;
    text = json_object_get_string(member);
    return strlen(text) == (size_t)json_object_get_string_len(member) ? text : NULL;
}

struct control *control_new(const struct control_commands *commands, const struct control_ops *ops,
                            void *ctx, const char *who)
{
    struct control *control = calloc(1, sizeof(*control));

    if (!control)
        return NULL;
    *control = (struct control){.commands = commands, .ops = ops, .ctx = ctx, .operates = true};
    snprintf(control->who, sizeof(control->who), "%s", who);
    control->tokener = json_tokener_new_ex(DEPTH);
    control->timer = evtimer_new(commands->base, on_timer, control);
    if (control->tokener && control->timer) {
        json_tokener_set_flags(control->tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
        return control;
    }
    control_free(control);
    return NULL;
}

void control_free(struct control *control)
{
    if (control->timer) {
        settle(control);
        event_free(control->timer);
        if (control->commands->gone)
            control->commands->gone(control->commands->ctx, control);
    }
    if (control->tokener)
        json_tokener_free(control->tokener);
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

static void pause_lines(void *ctx, bool on)
{
    client_pause(ctx, on);
}

static void watch_lines(void *ctx, bool on)
{
    client_watches(ctx, on);
}

static void close_client(void *ctx)
{
    client_close(ctx);
}

/* By what the kernel says of who connected, at that moment. */
static bool is_member(int fd, const struct ucred *peer, gid_t group)
{
    gid_t few[64], *groups = few, *many = NULL;
    socklen_t len = sizeof(few);
    bool member = peer->gid == group;
    int error = getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len);

    if (error && errno == ERANGE) {
        groups = many = malloc(len);
        error = many ? getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, many, &len) : -1;
    }
    for (size_t i = 0; !error && !member && i < len / sizeof(*groups); i++)
        member = groups[i] == group;
    free(many);
    return member;
}

static void *come(struct client *client, void *ctx)
{
    static const struct control_ops ops = {.send = send_to_client,
                                           .is_behind = is_client_behind,
                                           .pause = pause_lines,
                                           .watch = watch_lines,
                                           .close = close_client};
    const struct control_commands *commands = ctx;
    struct ucred peer = {.uid = (uid_t)-1, .gid = (gid_t)-1};
    socklen_t len = sizeof(peer);
    struct control *control;
    char who[64] = "";

    if (getsockopt(client_fd(client), SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0)
        snprintf(who, sizeof(who), "by uid %u, pid %d", peer.uid, peer.pid);
    control = control_new(commands, &ops, client, who);
    if (control && commands->operators)
        control->operates =
            peer.uid == 0 || is_member(client_fd(client), &peer, *commands->operators);
    return control;
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

struct server_config control_config(const struct control_commands *commands)
{
    return (struct server_config){
        .line_limit = CONTROL_LINE,
        .clients = 64,
        .idle_s = 600,
        .request_s = 10,
        .answer_s = 60,
        .full = "{\"error\":\"64 clients are at work; try again when one has gone\"}\n",
        .ctx = (void *)commands,
        .come = come,
        .line = line,
        .too_long = too_long,
        .gone = gone,
    };
}
