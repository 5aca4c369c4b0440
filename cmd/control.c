/* SPDX-License-Identifier: BSD-2-Clause */
/* Lines of JSON to and from a socket. */
#include "control.h"
#include "cmd.h"
#include "grid.h"
#include "result.h"

#include <ebb/types.h>

#include <errno.h>
#include <grp.h>
#include <json-c/json_tokener.h>
#include <math.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_BYTES 65536u
#define BUCKETS    64u

const struct control_peer control_ebbd = {"ebbd", "--control"};
const struct control_peer control_qemu = {"QEMU", "-qmp"};

static void fail(struct control *control, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void fail(struct control *control, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(control->error, sizeof(control->error), format, args);
    va_end(args);
    grid_clean(control->error);
}

void control_init(struct control *control, const char *path, const struct control_peer *peer)
{
    *control = (struct control){.path = path, .peer = peer, .fd = -1};
}

void control_close(struct control *control)
{
    if (control->fd >= 0)
        close(control->fd);
    control->fd = -1;
    free(control->buffer);
    control->buffer = NULL;
    control->line = NULL;
    control->size = control->have = control->scanned = control->taken = 0;
}

/* ---- connect ---- */

static void explain_access(struct control *control)
{
    struct group *group;
    struct stat st;

    if (stat(control->path, &st) != 0) {
        fail(control, "you may not look into the directory of %s; try as root", control->path);
        return;
    }
    group = getgrgid(st.st_gid);
    if (group)
        fail(control, "you may not use %s: try as root, or join the group '%s'", control->path,
             group->gr_name);
    else
        fail(control, "you may not use %s: try as root, or join the group %u", control->path,
             (unsigned)st.st_gid);
}

static void explain_refusal(struct control *control)
{
    struct stat st;

    if (stat(control->path, &st) == 0 && !S_ISSOCK(st.st_mode))
        fail(control, "%s is no socket", control->path);
    else
        fail(control, "nobody listens on %s any more: is %s still running?", control->path,
             control->peer->name);
}

static void explain(struct control *control, int error)
{
    const struct control_peer *peer = control->peer;

    switch (error) {
    case ENOENT:
    case ENOTDIR:
        fail(control, "there is no socket %s: is %s running, with %s?", control->path, peer->name,
             peer->option);
        break;
    case EACCES:
    case EPERM:
        explain_access(control);
        break;
    case ECONNREFUSED:
        explain_refusal(control);
        break;
    case EAGAIN:
        fail(control, "too many others wait for %s at %s already: does it hang?", peer->name,
             control->path);
        break;
    default:
        fail(control, "cannot connect to %s: %s", control->path, strerror(error));
    }
}

bool control_connect(struct control *control)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(control->path);

    control_close(control);
    if (len == 0 || len >= sizeof(address.sun_path)) {
        fail(control, "a socket's path has 1 to %zu bytes: '%.200s'", sizeof(address.sun_path) - 1,
             control->path);
        return false;
    }
    memcpy(address.sun_path, control->path, len);
    control->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (control->fd >= 0 && connect(control->fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return true;
    explain(control, errno);
    control_close(control);
    return false;
}

/* ---- send ---- */

/* A peer that hung up may have said why. */
static bool send_all(struct control *control, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = send(control->fd, text, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
            return true;
        if (n < 0) {
            fail(control, "cannot send to %s at %s: %s", control->peer->name, control->path,
                 errno == EAGAIN ? "it does not read" : strerror(errno));
            control_close(control);
            return false;
        }
        text += n;
        len -= (size_t)n;
    }
    return true;
}

bool control_send(struct control *control, struct json_object *request)
{
    const char *json = json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN |
                                                                   JSON_C_TO_STRING_NOSLASHESCAPE);
    char line[CONTROL_REQUEST + 1];
    int len;

    if (control->fd < 0)
        return false;
    if (!json)
        cmd_no_memory();
    len = snprintf(line, sizeof(line), "%s\n", json);
    if (len < 0 || (size_t)len > CONTROL_REQUEST) {
        fail(control, "a request that is longer than %u bytes: a shorter name?", CONTROL_REQUEST);
        control_close(control);
        return false;
    }
    return send_all(control, line, (size_t)len);
}

/* ---- receive ---- */

/* JSON has no control characters, and QEMU ends its lines with CR LF. */
static bool is_plain(char *line, size_t *len)
{
    if (*len > 0 && line[*len - 1] == '\r')
        line[--*len] = '\0';
    for (size_t i = 0; i < *len; i++) {
        if ((unsigned char)line[i] < ' ' && line[i] != '\t')
            return false;
    }
    return true;
}

static struct json_object *parse(char *line, size_t len)
{
    struct json_tokener *tokener;
    struct json_object *json;

    if (!is_plain(line, &len))
        return NULL;
    tokener = json_tokener_new();
    if (!tokener)
        cmd_no_memory();
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    json = json_tokener_parse_ex(tokener, line, (int)len + 1); /* with its NUL: it is all there */
    if (json_tokener_get_error(tokener) != json_tokener_success ||
        !json_object_is_type(json, json_type_object)) {
        json_object_put(json);
        json = NULL;
    }
    json_tokener_free(tokener);
    return json;
}

/* The line that was handed out leaves the buffer. */
static void drop_taken(struct control *control)
{
    if (control->taken == 0)
        return;
    control->have -= control->taken;
    memmove(control->buffer, control->buffer + control->taken, control->have);
    control->scanned = control->taken = 0;
    control->line = NULL;
}

static enum control_result end(struct control *control)
{
    control_close(control);
    return CONTROL_ENDED;
}

/* A whole line, if one is there. */
static enum control_result take_line(struct control *control, struct json_object **answer)
{
    char *newline =
        control->have > control->scanned
            ? memchr(control->buffer + control->scanned, '\n', control->have - control->scanned)
            : NULL;

    control->scanned = control->have;
    if (!newline) {
        if (control->have < CONTROL_ANSWER)
            return CONTROL_LATER;
        fail(control, "%s at %s sent a line without an end: is it %s?", control->peer->name,
             control->path, control->peer->name);
        return end(control);
    }
    *newline = '\0';
    control->taken = (size_t)(newline - control->buffer) + 1;
    control->line = control->buffer;
    *answer = parse(control->buffer, control->taken - 1);
    if (*answer)
        return CONTROL_ANSWERED;
    fail(control, "what %s at %s sent is no JSON object in a line: is it %s?", control->peer->name,
         control->path, control->peer->name);
    return end(control);
}

static void make_room(struct control *control)
{
    if (control->size - control->have >= READ_BYTES)
        return;
    control->size = control->size + control->size / 2 + READ_BYTES;
    control->buffer = cmd_realloc(control->buffer, control->size);
}

enum control_result control_receive(struct control *control, struct json_object **answer)
{
    enum control_result result = CONTROL_LATER;

    if (control->fd < 0)
        return CONTROL_ENDED;
    drop_taken(control);
    while ((result = take_line(control, answer)) == CONTROL_LATER) {
        ssize_t n;

        make_room(control);
        n = recv(control->fd, control->buffer + control->have, READ_BYTES, 0);
        if (n > 0) {
            control->have += (size_t)n;
            continue;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return CONTROL_LATER;
        fail(control, "%s at %s hung up%s%s", control->peer->name, control->path, n < 0 ? ": " : "",
             n < 0 ? strerror(errno) : "");
        return end(control);
    }
    return result;
}

struct json_object *control_call(struct control *control, struct json_object *request,
                                 uint64_t timeout_ns)
{
    uint64_t until = cmd_now_ns() + timeout_ns, now;
    struct json_object *answer;

    if (!control_send(control, request))
        return NULL;
    for (;;) {
        struct pollfd readable = {.fd = control->fd, .events = POLLIN};
        enum control_result result = control_receive(control, &answer);

        if (result == CONTROL_ANSWERED)
            return answer;
        if (result == CONTROL_ENDED)
            return NULL;
        now = cmd_now_ns();
        if (now >= until)
            break;
        poll(&readable, 1, (int)((until - now) / CMD_MS) + 1);
    }
    fail(control, "%s at %s did not answer within %.3g s: does it hang?", control->peer->name,
         control->path, (double)timeout_ns / 1e9);
    control_close(control);
    return NULL;
}

/* ---- what ebbd says ---- */

struct json_object *control_hello(void)
{
    struct json_object *request = json_object_new_object();

    result_add_text(request, "command", "version");
    return request;
}

bool control_is_hello(struct control *control, struct json_object *answer)
{
    const char *error = result_text(answer, "error"), *version = result_text(answer, "version");
    double protocol = result_number(answer, "protocol");

    if (error)
        fail(control, "ebbd says: %s", error);
    else if (isnan(protocol))
        fail(control, "who listens on %s is not ebbd: it does not tell its protocol",
             control->path);
    else if (protocol != CONTROL_PROTOCOL)
        fail(control,
             "ebbd %.32s speaks version %g of the protocol, this ebb (" EBB_VERSION
             ") version %d: use the ebb that came with it",
             version ? version : "", protocol, CONTROL_PROTOCOL);
    else
        return true;
    return false;
}

/* How many a bucket counts that it did not before; negative: it was set back. */
static double counted(struct json_object *now, struct json_object *before, size_t i)
{
    double count = json_object_get_double(json_object_array_get_idx(now, i));

    if (i < result_length(before))
        count -= json_object_get_double(json_object_array_get_idx(before, i));
    return count;
}

double control_latency(struct json_object *now, struct json_object *before, double share)
{
    size_t n = result_length(now) < BUCKETS ? result_length(now) : BUCKETS;
    double all = 0, sum = 0;

    for (size_t i = 0; i < n; i++) {
        double count = counted(now, before, i);

        if (!(count >= 0 && count <= 1e18))
            return (double)NAN;
        all += count;
    }
    for (size_t i = 0; i < n && all > 0; i++) {
        sum += counted(now, before, i);
        if (sum >= all * share)
            return i + 1 < n ? ldexp(1e3, (int)i) : i > 0 ? -ldexp(1e3, (int)i - 1) : (double)NAN;
    }
    return (double)NAN;
}
