/* SPDX-License-Identifier: BSD-2-Clause */
#include "server.h"
#include "sockets.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

struct client {
    struct server *server;
    struct bufferevent *stream;
    void *state;
    bool paused, closing, ended; /* ended: it sends no more */
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
    bufferevent_free(client->stream);
    free(client);
}

bool client_is_behind(const struct client *client)
{
    return evbuffer_get_length(bufferevent_get_output(client->stream)) > 0;
}

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

static void on_accepted(void *ctx, int fd)
{
    struct server *server = ctx;
    const struct server_config *config = server->config;
    struct timeval reading = {(time_t)config->read_s, 0}, writing = {(time_t)config->write_s, 0};
    struct client *client = server->n < config->clients ? calloc(1, sizeof(*client)) : NULL;

    if (client)
        client->stream = bufferevent_socket_new(server->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!client || !client->stream) {
        free(client);
        turn_away(config, fd);
        return;
    }
    client->server = server;
    LIST_INSERT_HEAD(&server->clients, client, link);
    server->n++;
    client->state = config->come(client, config->ctx);
    if (!client->state) {
        free_client(client);
        return;
    }
    bufferevent_setcb(client->stream, on_bytes, on_bytes, on_end, client);
    bufferevent_setwatermark(client->stream, EV_READ, 0, config->line_limit);
    bufferevent_set_timeouts(client->stream, config->read_s ? &reading : NULL, &writing);
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
    if (bufferevent_write(client->stream, text, len) == 0)
        return true;
    client_close(client);
    return false;
}

void client_pause(struct client *client, bool on)
{
    client->paused = on;
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
