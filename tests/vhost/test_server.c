/* SPDX-License-Identifier: BSD-2-Clause */
/* How long ebbd's operators may be silent (cmd/common/server.c), with times of our own. */
#include "../../cmd/common/server.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

struct rig {
    struct event_base *base;
    struct server_config config;
    struct server *server;
    struct sockaddr_un at;
    unsigned came, went;
    struct client *last;
};

static void *come(struct client *client, void *ctx)
{
    struct rig *rig = ctx;

    rig->came++;
    rig->last = client;
    return rig;
}

static void line(void *state, char *text, size_t len)
{
    struct rig *rig = state;

    (void)len;
    if (strcmp(text, "watch") == 0)
        client_watches(rig->last, true);
    client_send(rig->last, "done\n", 5);
}

static void too_long(void *state)
{
    (void)state;
}

static void gone(void *state)
{
    ((struct rig *)state)->went++;
}

static void set_up(struct rig *rig, unsigned idle_s, unsigned request_s)
{
    int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    socklen_t len = sizeof(rig->at);

    *rig = (struct rig){.base = event_base_new()};
    rig->config = (struct server_config){.line_limit = 100,
                                         .clients = 4,
                                         .idle_s = idle_s,
                                         .request_s = request_s,
                                         .answer_s = 600,
                                         .full = "full\n",
                                         .ctx = rig,
                                         .come = come,
                                         .line = line,
                                         .too_long = too_long,
                                         .gone = gone};
    rig->at.sun_family = AF_UNIX; /* without a name it gets an abstract one */
    assert_int_equal(bind(listening, (struct sockaddr *)&rig->at, sizeof(sa_family_t)), 0);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&rig->at, &len), 0);
    assert_int_equal(listen(listening, 4), 0);
    rig->server = server_new(rig->base, listening, &rig->config);
    assert_non_null(rig->server);
}

static void tear_down(struct rig *rig)
{
    server_free(rig->server);
    event_base_free(rig->base);
    assert_int_equal(rig->went, rig->came);
}

/* Connected, and known to the server. */
static int connect_to(struct rig *rig)
{
    const unsigned before = rig->came;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 6);

    assert_int_equal(connect(fd, (struct sockaddr *)&rig->at, len), 0);
    while (rig->came == before)
        event_base_loop(rig->base, EVLOOP_ONCE);
    return fd;
}

static void ask(struct rig *rig, int fd, const char *text)
{
    char answer[16];

    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    while (recv(fd, answer, sizeof(answer), MSG_DONTWAIT) != 5)
        event_base_loop(rig->base, EVLOOP_ONCE);
}

static bool is_open(int fd)
{
    char byte;

    return recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

/* One that is silent goes, one that watches stays. */
static void test_idle(void **state)
{
    struct rig rig;
    int watching, asking, silent;

    (void)state;
    set_up(&rig, 1, 600);
    watching = connect_to(&rig);
    ask(&rig, watching, "watch\n");
    asking = connect_to(&rig);
    ask(&rig, asking, "x\n");
    silent = connect_to(&rig);
    while (rig.went < 2)
        event_base_loop(rig.base, EVLOOP_ONCE);
    assert_true(is_open(watching));
    assert_false(is_open(asking));
    assert_false(is_open(silent));
    close(watching);
    close(asking);
    close(silent);
    tear_down(&rig);
}

/* Empty lines are no request, and bytes are none either. */
static void test_no_request(void **state)
{
    struct rig rig;
    int lines, bytes;

    (void)state;
    set_up(&rig, 1, 1);
    lines = connect_to(&rig);
    bytes = connect_to(&rig);
    while (rig.went < 2) {
        (void)!send(lines, "\n", 1, MSG_NOSIGNAL);
        (void)!send(bytes, "x", 1, MSG_NOSIGNAL);
        poll(NULL, 0, 50);
        event_base_loop(rig.base, EVLOOP_NONBLOCK);
    }
    close(lines);
    close(bytes);
    tear_down(&rig);
}

/* Of those that are silent the oldest makes room. */
static void test_room(void **state)
{
    struct rig rig;
    int fds[6];

    (void)state;
    set_up(&rig, 600, 600);
    for (unsigned i = 0; i < 4; i++)
        fds[i] = connect_to(&rig);
    ask(&rig, fds[3], "watch\n");
    fds[4] = connect_to(&rig);
    fds[5] = connect_to(&rig);
    assert_false(is_open(fds[0]));
    assert_false(is_open(fds[1]));
    for (unsigned i = 2; i < 6; i++)
        assert_true(is_open(fds[i]));
    for (unsigned i = 0; i < 6; i++)
        close(fds[i]);
    tear_down(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_no_request),
        cmocka_unit_test(test_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
