/* SPDX-License-Identifier: BSD-2-Clause */
#include "server.h"
#include "log.h"
#include "sockets.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

/* What is waited for, and so for how long. */
enum phase { IDLE, REQUEST, ANSWER, BUSY /* our turn, or it watches */ };

struct client {
    struct server *server;
    struct bufferevent *stream;
    struct event *timer;
    enum phase phase;
    uint64_t since_ns; /* of the phase */
    void *state;
    bool paused, watches, closing, ended; /* ended: it sends no more */
    LIST_ENTRY(client) link;
};

struct server {
    const struct server_config *config;
    struct event_base *base;
    struct acceptor *acceptor;
    unsigned n;
    LIST_HEAD(, client) clients;
};

static void free_client(struct client *client)
{
    struct server *server = client->server;

    if (client->state)
        server->config->gone(client->state);
    LIST_REMOVE(client, link);
    server->n--;
    event_free(client->timer);
    bufferevent_free(client->stream);
    free(client);
}

bool client_is_behind(const struct client *client)
{
    return evbuffer_get_length(bufferevent_get_output(client->stream)) > 0;
}

/* ---- time ---- */

static enum phase phase_of(const struct client *client)
{
    if (client_is_behind(client) || client->closing)
        return ANSWER;
    if (client->paused)
        return BUSY;
    if (!client->server->config->idle_s ||
        evbuffer_get_length(bufferevent_get_input(client->stream)) > 0)
        return REQUEST;
    return client->watches ? BUSY : IDLE;
}

/* A phase that goes on keeps its deadline, whatever comes and goes meanwhile. */
static void set_deadline(struct client *client, enum phase phase)
{
    const struct server_config *config = client->server->config;
    const unsigned seconds[] = {
        [IDLE] = config->idle_s, [REQUEST] = config->request_s, [ANSWER] = config->answer_s};
    struct timeval in = {0};

    client->phase = phase;
    client->since_ns = log_now_ns();
    event_del(client->timer);
    if (phase == BUSY)
        return;
    in.tv_sec = (time_t)seconds[phase];
    if (event_add(client->timer, &in) != 0) /* then it is dropped when it next does something */
        client->closing = true;
}

static void look_at_clock(struct client *client)
{
    enum phase phase = phase_of(client);

    if (phase != client->phase)
        set_deadline(client, phase);
}

static void on_deadline(evutil_socket_t fd, short what, void *client)
{
    (void)fd;
    (void)what;
    free_client(client);
}

/* The one that has said nothing for the longest time; NULL: all have something going on. */
static struct client *oldest_silent(const struct server *server)
{
    struct client *client, *oldest = NULL;

    LIST_FOREACH(client, &server->clients, link)
    {
        if ((client->phase == IDLE || client->phase == REQUEST) &&
            (!oldest || client->since_ns < oldest->since_ns))
            oldest = client;
    }
    return oldest;
}

/* ---- lines ---- */

/* Take lines as long as there is nothing to wait for; then see whether it is over. */
static void advance(struct client *client)
{
    const struct server_config *config = client->server->config;
    struct evbuffer *input = bufferevent_get_input(client->stream);
    char *line;
    size_t len;

    while (!client->paused && !client->closing && !client_is_behind(client)) {
        line = evbuffer_readln(input, &len, EVBUFFER_EOL_CRLF);
        if (!line)
            break;
        config->line(client->state, line, len);
        free(line);
        if (len > 0 && config->idle_s) /* another request begins */
            set_deadline(client, phase_of(client));
    }
    if (!client->closing && !client->paused && !client_is_behind(client)) {
        if (evbuffer_get_length(input) >= config->line_limit) {
            config->too_long(client->state);
            client->closing = true;
        } else if (client->ended) {
            client->closing = true;
        }
    }
    if (client->closing && !client_is_behind(client))
        free_client(client);
    else
        look_at_clock(client);
}

static void on_bytes(struct bufferevent *stream, void *ctx)
{
    (void)stream;
    advance(ctx);
}

static void on_end(struct bufferevent *stream, short what, void *ctx)
{
    struct client *client = ctx;

    (void)stream;
    if (what & BEV_EVENT_EOF) {
        /* What it sent is still answered. */
        client->ended = true;
        advance(client);
        return;
    }
    free_client(client);
}

static void turn_away(const struct server_config *config, int fd)
{
    (void)!send(fd, config->full, strlen(config->full), MSG_DONTWAIT | MSG_NOSIGNAL);
    close(fd);
}

static void make_room(struct server *server)
{
    struct client *oldest = server->n < server->config->clients ? NULL : oldest_silent(server);

    if (oldest)
        free_client(oldest);
}

/* NULL: there is no memory, and fd is still the caller's. */
static struct client *new_client(struct server *server, int fd)
{
    struct client *client = calloc(1, sizeof(*client));

    if (!client)
        return NULL;
    client->server = server;
    client->timer = evtimer_new(server->base, on_deadline, client);
    if (client->timer)
        client->stream = bufferevent_socket_new(server->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (client->stream)
        return client;
    if (client->timer)
        event_free(client->timer);
    free(client);
    return NULL;
}

static void on_accepted(void *ctx, int fd)
{
    struct server *server = ctx;
    const struct server_config *config = server->config;
    struct client *client = NULL;

    make_room(server);
    if (server->n < config->clients)
        client = new_client(server, fd);
    if (!client) {
        turn_away(config, fd);
        return;
    }
    LIST_INSERT_HEAD(&server->clients, client, link);
    server->n++;
    set_deadline(client, phase_of(client));
    client->state = config->come(client, config->ctx);
    if (!client->state || client->closing) {
        free_client(client);
        return;
    }
    bufferevent_setcb(client->stream, on_bytes, on_bytes, on_end, client);
    bufferevent_setwatermark(client->stream, EV_READ, 0, config->line_limit);
    bufferevent_enable(client->stream, EV_READ | EV_WRITE);
}

struct server *server_new(struct event_base *base, int listening,
                          const struct server_config *config)
{
    struct server *server = calloc(1, sizeof(*server));

    if (server) {
        server->config = config;
        server->base = base;
        LIST_INIT(&server->clients);
        server->acceptor = acceptor_new(base, listening, on_accepted, server);
        if (server->acceptor)
            return server;
    }
    free(server);
    close(listening);
    errno = ENOMEM;
    return NULL;
}

void server_free(struct server *server)
{
    if (!server)
        return;
    while (!LIST_EMPTY(&server->clients))
        free_client(LIST_FIRST(&server->clients));
    acceptor_free(server->acceptor);
    free(server);
}

bool client_send(struct client *client, const void *text, size_t len)
{
    if (bufferevent_write(client->stream, text, len) != 0) {
        client_close(client);
        return false;
    }
    look_at_clock(client);
    return true;
}

void client_pause(struct client *client, bool on)
{
    client->paused = on;
    look_at_clock(client);
}

void client_watches(struct client *client, bool on)
{
    client->watches = on;
    look_at_clock(client);
}

void client_close(struct client *client)
{
    client->closing = true;
    /* From the loop: whoever calls this still works on the client. */
    bufferevent_trigger(client->stream, EV_WRITE,
                        BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
}

int client_fd(const struct client *client)
{
    return bufferevent_getfd(client->stream);
}
