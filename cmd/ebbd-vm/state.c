/* SPDX-License-Identifier: BSD-2-Clause */
#include "state.h"
#include "status.h"
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUFFIX ".state"

/* After work, and once for all of it that comes meanwhile. */
static const struct timeval soon = {0, 100000};

bool state_open(struct backend *backend, const char *control, const char *vm)
{
    struct state *state = &backend->state;
    struct stat file;
    char *path;

    if (vm && stat(vm, &file) == 0)
        snprintf(state->socket_file, sizeof(state->socket_file), "%ju:%ju", (uintmax_t)file.st_dev,
                 (uintmax_t)file.st_ino);
    if (asprintf(&path, "%s" SUFFIX, control) < 0)
        return false;
    unlink(path);
    state->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    free(path);
    return state->fd >= 0;
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    state_write(ctx);
}

bool state_start(struct backend *backend)
{
    if (backend->state.fd < 0)
        return true;
    backend->state.timer = evtimer_new(backend->base, on_timer, backend);
    state_write(backend);
    return backend->state.timer != NULL;
}

void state_close(struct backend *backend)
{
    if (backend->state.timer)
        event_free(backend->state.timer);
    backend->state.timer = NULL;
    if (backend->state.fd >= 0)
        close(backend->state.fd);
    backend->state.fd = -1;
}

void state_changed(struct backend *backend)
{
    if (!backend->state.timer || event_pending(backend->state.timer, EV_TIMEOUT, NULL))
        return;
    (void)!pwrite(backend->state.fd, "!", 1, 0);
    event_add(backend->state.timer, &soon);
}

void state_write(struct backend *backend)
{
    struct state *state = &backend->state;
    struct json_object *to;
    size_t len;
    const char *text;

    if (!state->timer)
        return;
    event_del(state->timer);
    to = json_object_new_object();
    json_object_object_add(to, "begin", json_object_new_uint64(++state->writes));
    json_object_object_add(to, "socket_file", json_object_new_string(state->socket_file));
    status_add(to, backend);
    json_object_object_add(to, "end", json_object_new_uint64(state->writes));
    text = json_object_to_json_string_length(to, JSON_C_TO_STRING_PLAIN, &len);
    /* With its zero. A file that is full says nothing new. */
    if (text)
        (void)!pwrite(state->fd, text, len + 1, 0);
    json_object_put(to);
}
