/* SPDX-License-Identifier: BSD-2-Clause */
#include "back.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define SCM_MOST 253u /* descriptors that one message can bring, by the kernel */

#define BACK_ANSWER_MS 1000000u

/* The session that the thread works on, for the signal handler. */
static struct ebb_vhost_user *volatile at_work;

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "back: %s: %s\n", what, strerror(errno));
    abort();
}

static int send_answer(void *ctx, const void *bytes, size_t len, int fd)
{
    struct back *back = ctx;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    if (back->count_maps)
        back->maps = back_count_maps("front-memory");
    if (fd >= 0 && back->no_fd != 0) {
        close(fd);
        return -back->no_fd;
    }
    if (fd >= 0) {
        struct cmsghdr *cmsg = (struct cmsghdr *)control;

        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
        msg.msg_control = control;
        msg.msg_controllen = sizeof(control);
    }
    n = sendmsg(back->sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (fd >= 0)
        close(fd);
    return n == (ssize_t)len ? 0 : -EPIPE;
}

static int send_backend(void *ctx, int fd, const void *bytes, size_t len)
{
    const struct back *back = ctx;

    if (back->deaf)
        return -EAGAIN;
    return send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len ? 0 : -errno;
}

static int watch(void *ctx, unsigned queue, int fd)
{
    struct back *back = ctx;

    must(back->kicks[queue] < 0, "a queue is watched twice");
    back->kicks[queue] = fd;
    return 0;
}

static void unwatch(void *ctx, unsigned queue, int fd)
{
    struct back *back = ctx;

    must(back->kicks[queue] == fd, "what is not watched is watched no more");
    back->kicks[queue] = -1;
}

static void wake(void *ctx)
{
    const struct back *back = ctx;
    const uint64_t one = 1;

    must(write(back->wake, &one, sizeof(one)) == sizeof(one), "wake");
}

static void drop(void *ctx, int fd)
{
    struct back *back = ctx;

    back->dropped++;
    close(fd);
}

static const struct ebb_vhost_user_ops ops = {
    .send = send_answer,
    .send_backend = send_backend,
    .watch = watch,
    .unwatch = unwatch,
    .wake = wake,
    .drop = drop,
};

int back_init(struct back *back, const struct ebb_vhost_user_config *config,
              struct ebb_discard_pool *pool)
{
    struct ebb_vhost_user_config mine = {0};
    int pair[2];

    *back = (struct back){.sock = -1, .ops = &ops};
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++)
        back->kicks[i] = -1;
    if (config)
        mine = *config;
    if (mine.device.answer_ms == 0) /* a machine may be slow: who wants to be late says so */
        mine.device.answer_ms = BACK_ANSWER_MS;
    mine.ops = &ops;
    mine.ctx = back;
    mine.discard.pool = pool;
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
    back->sock = pair[0];
    back->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    must(back->wake >= 0, "eventfd");
    back->session = ebb_vhost_user_new(&mine);
    must(back->session, "session");
    return pair[1];
}

static void end(struct back *back)
{
    back->reason = ebb_vhost_user_reason(back->session, &back->error);
    back->ended = true;
    ebb_vhost_user_free(back->session);
    back->session = NULL;
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++)
        must(back->kicks[i] < 0, "a queue is watched still");
    close(back->sock);
    back->sock = -1;
}

void back_exit(struct back *back)
{
    if (back->session)
        end(back);
    close(back->wake);
}

static int receive(struct back *back)
{
    unsigned char bytes[EBB_VHOST_USER_MESSAGE];
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(SCM_MOST * sizeof(int))];
    struct iovec iov = {.iov_base = bytes, .iov_len = ebb_vhost_user_wants(back->session)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    int fds[SCM_MOST];
    unsigned n_fds = 0;
    const ssize_t n = recvmsg(back->sock, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg))
        if (cmsg->cmsg_type == SCM_RIGHTS) {
            n_fds = (unsigned)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(fds, CMSG_DATA(cmsg), n_fds * sizeof(int));
        }
    if (n == 0)
        return ebb_vhost_user_eof(back->session) < 0 ? -EPIPE : -ECONNRESET;
    if (msg.msg_flags & MSG_CTRUNC)
        ebb_vhost_user_lost_fds(back->session);
    return ebb_vhost_user_receive(back->session, bytes, (size_t)n, fds, n_fds);
}

static int serve(struct back *back, const struct pollfd *fds)
{
    uint64_t count;
    int error = 0;

    if (fds[1].revents)
        (void)!read(back->wake, &count, sizeof(count));
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES && error >= 0; i++)
        if (fds[2 + i].revents)
            error = ebb_vhost_user_kick(back->session, i);
    if (error >= 0)
        error = ebb_vhost_user_work(back->session);
    if (error >= 0 && fds[0].revents && ebb_vhost_user_wants(back->session) > 0)
        error = receive(back);
    return error;
}

void back_pump(void *ctx)
{
    struct back *back = ctx;
    struct pollfd fds[2 + EBB_VHOST_USER_QUEUES];
    int error;

    if (!back->session)
        return;
    fds[0] = (struct pollfd){.fd = back->sock,
                             .events = ebb_vhost_user_wants(back->session) > 0 ? POLLIN : 0};
    fds[1] = (struct pollfd){.fd = back->wake, .events = POLLIN};
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++)
        fds[2 + i] = (struct pollfd){.fd = back->kicks[i], .events = POLLIN};
    if (poll(fds, 2 + EBB_VHOST_USER_QUEUES, 1) < 0)
        return;
    at_work = back->session;
    error = serve(back, fds);
    at_work = NULL;
    if (error < 0)
        end(back);
}

void back_settle(struct back *back)
{
    int bytes = 0;

    do
        back_pump(back);
    while (back->session && ioctl(back->sock, FIONREAD, &bytes) == 0 && bytes > 0);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    const enum ebb_vhost_user_fault fault = ebb_vhost_user_fault(at_work, info->si_addr);

    (void)context;
    if (fault == EBB_VHOST_USER_FAULT_LOST)
        _exit(BACK_LOST);
    if (fault == EBB_VHOST_USER_FAULT_ELSEWHERE)
        signal(number, SIG_DFL);
}

void back_catch_faults(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

    must(sigaction(SIGBUS, &action, NULL) == 0, "sigaction");
}

unsigned back_count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned n = 0;

    must(dir, "/proc/self/fd");
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

unsigned back_count_maps(const char *name)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    unsigned n = 0;

    must(maps, "/proc/self/maps");
    while (fgets(line, sizeof(line), maps))
        n += strstr(line, name) != NULL;
    fclose(maps);
    return n;
}
