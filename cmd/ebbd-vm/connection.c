/* SPDX-License-Identifier: BSD-2-Clause */
#include "connection.h"
#include "state.h"
#include "vm.h"
#include "watchdog.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* Descriptors that the kernel puts into one message at most (SCM_MAX_FD). */
#define FDS_LIMIT 253u
/* Messages taken from one front-end before others have their turn. */
#define READS_AT_ONCE 16u

struct connection {
    struct backend *backend;
    struct vm *vm;
    int fd, wake_fd;
    struct ebb_vhost_user *session;
    struct event *readable, *writable; /* of fd */
    struct event *woken;               /* of wake_fd */
    struct event *due;                 /* work() is due, or has more to do */
    struct event *poll;                /* ask the guest for statistics */
    struct event *kicks[EBB_VHOST_USER_QUEUES];
    unsigned char out[EBB_VHOST_USER_MESSAGE]; /* an answer, as far as it is not sent */
    size_t out_len;
    int out_fd;
    uint64_t since_ns;
    uint64_t faults_seen, failed_seen, resident_seen, refused_seen;
    const char *notes_seen;
};

/* ---- SIGBUS ---- */

/* The session that the loop's thread works on. A handler of signals has nothing else to go by. */
static struct ebb_vhost_user *volatile at_work;

/* The way out that cannot fail. Who does not read stderr does not keep us from it. */
static void end_process(void)
{
    static const char why[] = "ebbd-vm: a front-end cut its memory, and nothing can take its "
                              "place: no memory, or a limit\n";
    struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};

    if (poll(&room, 1, 0) == 1 && (room.revents & POLLOUT))
        (void)!write(STDERR_FILENO, why, sizeof(why) - 1);
    _exit(EXIT_FRONT_END);
}

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
    const enum ebb_vhost_user_fault fault = ebb_vhost_user_fault(at_work, info->si_addr);
    struct sigaction usual = {.sa_handler = SIG_DFL};

    (void)context;
    if (fault == EBB_VHOST_USER_FAULT_LOST)
        end_process();
    if (fault == EBB_VHOST_USER_FAULT_ELSEWHERE)
        sigaction(signal, &usual, NULL);
}

int connection_guard(void)
{
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

    return sigaction(SIGBUS, &action, NULL);
}

/* ---- working on the session ---- */

/* Tell what the guest did that it must not. */
static void tell_faults(struct connection *connection)
{
    const struct ebb_balloon_device_stats *stats =
        ebb_balloon_device_get_stats(ebb_vhost_user_device(connection->session));
    uint64_t sum = 0;
    unsigned worst = 0;

    for (unsigned i = 0; i < EBB_FAULTS; i++) {
        sum += stats->faults[i];
        if (stats->faults[i] > stats->faults[worst])
            worst = i;
    }
    if (sum == connection->faults_seen)
        return;
    log_limited(vm_limit(connection->vm, CAUSE_FAULT),
                "%s: the guest breaks the balloon's rules: %" PRIu64 " times, most of all '%s'",
                vm_name(connection->vm), sum,
                ebb_balloon_fault_name((enum ebb_balloon_fault)worst));
    connection->faults_seen = sum;
}

/* Tell of memory that did not come back although it should have. */
static void tell_discards(struct connection *connection)
{
    struct log_limit *limit = vm_limit(connection->vm, CAUSE_DISCARD);
    struct ebb_discard_stats stats;

    ebb_discard_get_stats(ebb_vhost_user_discard(connection->session), &stats);
    if (stats.not_bytes[EBB_DISCARD_FAILED] != connection->failed_seen)
        log_limited(limit, "%s: %" PRIu64 " MiB could not be discarded: %s",
                    vm_name(connection->vm), stats.not_bytes[EBB_DISCARD_FAILED] >> 20,
                    strerror(stats.last_error));
    else if (stats.not_bytes[EBB_DISCARD_RESIDENT] != connection->resident_seen)
        log_limited(limit,
                    "%s: discarded memory is still there (seen of %" PRIu64
                    " MiB): is it locked, or assigned to a device?",
                    vm_name(connection->vm), stats.not_bytes[EBB_DISCARD_RESIDENT] >> 20);
    connection->failed_seen = stats.not_bytes[EBB_DISCARD_FAILED];
    connection->resident_seen = stats.not_bytes[EBB_DISCARD_RESIDENT];
}

/* Tell of memory that will not come back whatever the guest does. */
static void tell_memory(struct connection *connection)
{
    struct ebb_vhost_user_stats stats;

    ebb_vhost_user_get_stats(connection->session, &stats);
    if (stats.memory_notes && stats.memory_notes != connection->notes_seen)
        log_limited(vm_limit(connection->vm, CAUSE_MEMORY), "%s: some of its memory stays: %s",
                    vm_name(connection->vm), stats.memory_notes);
    connection->notes_seen = stats.memory_notes;
}

/* Tell what the front-end asked for and did not get. */
static void tell_refusal(struct connection *connection)
{
    struct ebb_vhost_user_stats stats;

    ebb_vhost_user_get_stats(connection->session, &stats);
    if (stats.refused != connection->refused_seen)
        log_limited(vm_limit(connection->vm, CAUSE_TURNED_AWAY),
                    "%s: refused its front-end: %s: %s", vm_name(connection->vm), stats.refusal,
                    strerror(stats.refusal_error));
    connection->refused_seen = stats.refused;
}

/* Nothing is taken from a front-end that does not read its answer, or whose message waits. */
static void plan_reading(struct connection *connection)
{
    if (connection->out_len || ebb_vhost_user_wants(connection->session) == 0)
        event_del(connection->readable);
    else
        event_add(connection->readable, NULL);
}

/* When work() is due next. */
static void plan(struct connection *connection, bool at_once)
{
    uint64_t due = at_once ? 0 : ebb_vhost_user_due(connection->session), now = log_now_ns();
    struct timeval in = {0, 0};

    if (due == UINT64_MAX) {
        event_del(connection->due);
        return;
    }
    if (due > now) {
        in.tv_sec = (time_t)((due - now) / 1000000000);
        in.tv_usec = (suseconds_t)((due - now) % 1000000000 / 1000 + 1);
    }
    event_add(connection->due, &in);
}

static struct ebb_vhost_user *work_on(struct connection *connection)
{
    watchdog_begin();
    state_changed(connection->backend);
    at_work = connection->session;
    return connection->session;
}

static void rest(void)
{
    at_work = NULL;
    watchdog_end();
}

/* A function on the session returned this; the connection may be gone afterwards. */
static void serve(struct connection *connection, int result)
{
    const char *reason;
    int error = 0;

    rest();
    if (result >= 0) {
        tell_faults(connection);
        plan(connection, result > 0);
        plan_reading(connection);
        return;
    }
    reason = ebb_vhost_user_reason(connection->session, &error);
    vm_ended(connection->vm, reason ? reason : "it cannot be served", error);
}

static void on_kick(evutil_socket_t fd, short what, void *ctx)
{
    struct connection *connection = ctx;
    unsigned queue;

    (void)what;
    for (queue = 0; queue < EBB_VHOST_USER_QUEUES; queue++) {
        if (connection->kicks[queue] && event_get_fd(connection->kicks[queue]) == fd)
            break;
    }
    if (queue < EBB_VHOST_USER_QUEUES)
        serve(connection, ebb_vhost_user_kick(work_on(connection), queue));
}

static void on_due(evutil_socket_t fd, short what, void *ctx)
{
    struct connection *connection = ctx;

    (void)fd;
    (void)what;
    serve(connection, ebb_vhost_user_work(work_on(connection)));
}

static void on_woken(evutil_socket_t fd, short what, void *ctx)
{
    struct connection *connection = ctx;
    uint64_t times;

    (void)what;
    (void)!read(fd, &times, sizeof(times));
    tell_discards(connection);
    serve(connection, ebb_vhost_user_work(work_on(connection)));
}

static void poll_later(struct connection *connection)
{
    struct timeval in = {(time_t)connection->backend->options.vm.stats_s, 0};

    if (in.tv_sec)
        event_add(connection->poll, &in);
}

static void on_poll(evutil_socket_t fd, short what, void *ctx)
{
    struct connection *connection = ctx;

    (void)fd;
    (void)what;
    poll_later(connection);
    /* A guest without statistics, or that has not answered, will be asked again. */
    (void)!ebb_balloon_device_poll_stats(ebb_vhost_user_device(work_on(connection)));
    serve(connection, ebb_vhost_user_work(connection->session));
}

/* ---- the session's callbacks ---- */

/* Send what is left of an answer. 0, also if some is left; or a negative error. */
static int send_rest(struct connection *connection)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec bytes = {connection->out, connection->out_len};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};
    ssize_t n;

    if (connection->out_fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
        control.header = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(&control.header), &connection->out_fd, sizeof(int));
    }
    n = sendmsg(connection->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    if (connection->out_fd >= 0)
        close(connection->out_fd);
    connection->out_fd = -1;
    connection->out_len -= (size_t)n;
    memmove(connection->out, connection->out + n, connection->out_len);
    return 0;
}

static void drop_answer(struct connection *connection)
{
    if (connection->out_fd >= 0)
        close(connection->out_fd);
    connection->out_fd = -1;
    connection->out_len = 0;
}

static int on_send(void *ctx, const void *bytes, size_t len, int fd)
{
    struct connection *connection = ctx;
    int error;

    if (connection->out_len || len > sizeof(connection->out)) {
        if (fd >= 0)
            close(fd);
        return -EBB_EPROTO;
    }
    memcpy(connection->out, bytes, len);
    connection->out_len = len;
    connection->out_fd = fd;
    error = send_rest(connection);
    if (error)
        drop_answer(connection);
    if (error || !connection->out_len)
        return error;
    event_add(connection->writable, NULL);
    return 0;
}

static int on_send_backend(void *ctx, int fd, const void *bytes, size_t len)
{
    ssize_t n = send(fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);

    (void)ctx;
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? -EBB_EAGAIN : -errno;
    return (size_t)n == len ? 0 : -EBB_EIO; /* in the middle of a message: no way to go on */
}

static int on_watch(void *ctx, unsigned queue, int fd)
{
    struct connection *connection = ctx;
    struct event *event =
        event_new(connection->backend->base, fd, EV_READ | EV_PERSIST, on_kick, connection);

    if (!event)
        return -EBB_ENOMEM;
    if (connection->kicks[queue] || event_add(event, NULL) != 0) {
        event_free(event);
        return -EBB_EINVAL;
    }
    connection->kicks[queue] = event;
    return 0;
}

static void on_unwatch(void *ctx, unsigned queue, int fd)
{
    struct connection *connection = ctx;

    (void)fd;
    if (connection->kicks[queue])
        event_free(connection->kicks[queue]);
    connection->kicks[queue] = NULL;
}

/* In a thread of the pool. */
static void on_wake(void *ctx)
{
    const struct connection *connection = ctx;
    uint64_t once = 1;

    (void)!write(connection->wake_fd, &once, sizeof(once));
}

/* ---- reading ---- */

/* The descriptors in a message; all of them are ours. */
static unsigned take_fds(struct msghdr *message, int *fds)
{
    unsigned n = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        size_t bytes = c->cmsg_len - CMSG_LEN(0);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
            bytes / sizeof(int) > FDS_LIMIT - n)
            continue;
        memcpy(fds + n, CMSG_DATA(c), bytes);
        n += (unsigned)(bytes / sizeof(int));
    }
    return n;
}

/* 1: go on reading; 0: later; negative: the session has ended, or, *gone, the front-end has. */
static int read_once(struct connection *connection, bool *gone)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(FDS_LIMIT * sizeof(int))];
    } control;
    unsigned char bytes[EBB_VHOST_USER_MESSAGE];
    size_t wanted = ebb_vhost_user_wants(connection->session);
    struct iovec to = {bytes, wanted < sizeof(bytes) ? wanted : sizeof(bytes)};
    struct msghdr message = {.msg_iov = &to,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    int fds[FDS_LIMIT], error;
    ssize_t n = recvmsg(connection->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        *gone = true;
        return ebb_vhost_user_eof(connection->session);
    }
    if (message.msg_flags & MSG_CTRUNC)
        ebb_vhost_user_lost_fds(connection->session);
    error =
        ebb_vhost_user_receive(work_on(connection), bytes, (size_t)n, fds, take_fds(&message, fds));
    return error < 0 ? error : 1;
}

static void on_readable(evutil_socket_t fd, short what, void *ctx)
{
    struct connection *connection = ctx;
    bool gone = false;
    int result = 1;

    (void)fd;
    (void)what;
    for (unsigned i = 0; i < READS_AT_ONCE && result > 0 && !connection->out_len &&
                         ebb_vhost_user_wants(connection->session) > 0;
         i++)
        result = read_once(connection, &gone);
    tell_memory(connection);
    tell_refusal(connection);
    if (gone && result == 0)
        vm_ended(connection->vm, NULL, 0);
    else
        serve(connection, result < 0 ? result : 0);
}

static void on_writable(evutil_socket_t fd, short what, void *ctx)
{
    struct connection *connection = ctx;

    (void)fd;
    (void)what;
    if (send_rest(connection) != 0) {
        vm_ended(connection->vm, NULL, 0);
        return;
    }
    if (connection->out_len)
        event_add(connection->writable, NULL);
    plan_reading(connection);
}

/* ---- coming and going ---- */

static void free_event(struct event **event)
{
    if (*event)
        event_free(*event);
    *event = NULL;
}

/* Nothing of it is in the loop any more. */
static void leave_loop(struct connection *connection)
{
    free_event(&connection->readable);
    free_event(&connection->writable);
    free_event(&connection->woken);
    free_event(&connection->due);
    free_event(&connection->poll);
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++)
        free_event(&connection->kicks[i]);
    if (connection->out_fd >= 0)
        close(connection->out_fd);
    close(connection->fd);
    connection->out_fd = connection->fd = -1;
}

/* Who has the last reference to the guest's memory frees it: some 0.2 s a GiB, and more on a busy
 * machine. */
static unsigned end_seconds(const struct ebb_vhost_user *session)
{
    const uint64_t gib = ebb_memory_bytes(ebb_vhost_user_memory(session)) >> 30;

    return (unsigned)(gib < 600 ? gib : 600);
}

void connection_free(struct connection *connection)
{
    work_on(connection); /* also to close its socket, with what was left in its queue */
    leave_loop(connection);
    if (connection->session) {
        watchdog_allow(end_seconds(connection->session));
        ebb_vhost_user_free(connection->session);
    }
    rest();
    if (connection->wake_fd >= 0)
        close(connection->wake_fd);
    free(connection);
}

static struct ebb_vhost_user *new_session(struct connection *connection, uint64_t rate)
{
    static const struct ebb_vhost_user_ops ops = {.send = on_send,
                                                  .send_backend = on_send_backend,
                                                  .watch = on_watch,
                                                  .unwatch = on_unwatch,
                                                  .wake = on_wake};
    const struct vm_options *options = &connection->backend->options.vm;
    struct ebb_vhost_user_config config = {
        .ops = &ops,
        .ctx = connection,
        .events = connection->backend->events,
        .any_file = options->any_file,
        .sealed_only = options->sealed_only,
        .device = {.offer_too = options->offer,
                   .withhold = options->withhold,
                   .numbering =
                       options->fixed_queues ? EBB_BALLOON_DEVICE_FIXED : EBB_BALLOON_DEVICE_DENSE,
                   .gather_us = options->gather_us,
                   .discard_hints = options->discard_hints},
        .discard = {.pool = connection->backend->pool,
                    .rate = rate,
                    .check_every = options->check_every},
    };

    return ebb_vhost_user_new(&config);
}

static bool make_events(struct connection *c)
{
    struct event_base *base = c->backend->base;

    c->readable = event_new(base, c->fd, EV_READ | EV_PERSIST, on_readable, c);
    c->writable = event_new(base, c->fd, EV_WRITE, on_writable, c);
    c->woken = event_new(base, c->wake_fd, EV_READ | EV_PERSIST, on_woken, c);
    c->due = evtimer_new(base, on_due, c);
    c->poll = evtimer_new(base, on_poll, c);
    return c->readable && c->writable && c->woken && c->due && c->poll &&
           event_add(c->readable, NULL) == 0 && event_add(c->woken, NULL) == 0;
}

struct connection *connection_new(struct backend *backend, struct vm *vm, int fd, uint64_t rate)
{
    struct connection *connection = calloc(1, sizeof(*connection));
    int error;

    if (!connection) {
        close(fd);
        errno = ENOMEM;
        return NULL;
    }
    *connection = (struct connection){
        .backend = backend, .vm = vm, .fd = fd, .out_fd = -1, .since_ns = log_now_ns()};
    connection->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (connection->wake_fd >= 0)
        connection->session = new_session(connection, rate);
    if (connection->session && make_events(connection)) {
        poll_later(connection);
        return connection;
    }
    error = errno;
    connection_free(connection);
    errno = error;
    return NULL;
}

/* ---- for the VM ---- */

struct ebb_vhost_user *connection_begin(struct connection *connection)
{
    return work_on(connection);
}

void connection_end(struct connection *connection)
{
    rest();
    plan(connection, true);
}

struct ebb_vhost_user *connection_session(const struct connection *connection)
{
    return connection->session;
}

uint64_t connection_since(const struct connection *connection)
{
    return connection->since_ns;
}

bool connection_is_gone(const struct connection *connection)
{
    struct pollfd at = {.fd = connection->fd, .events = 0};

    return poll(&at, 1, 0) == 1 && (at.revents & (POLLHUP | POLLERR));
}
