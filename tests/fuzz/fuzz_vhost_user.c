/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vhost-user session and a front-end that sends it anything, with any descriptors, cut anywhere.
 * When a session has ended the next message goes to a new one. Nothing of a session may be left
 * when it is freed, which is at any point: no descriptor, no mapping, and (by the sanitizer) no
 * memory.
 *
 * An input: 1 byte of configuration (new_session()), then steps: one byte, and what it needs (see
 * the functions; `steps` at the end has their numbers). Descriptors are one byte: how many, and one
 * byte each, of enum kind.
 *
 * The kernel's AIO is refused (io_setup() fails, as in a sandbox that does not allow it): to end a
 * session that has used it takes 40 ms. tests/vhost has sessions with it.
 */
#include "fuzz.h"
#include "guard.h"
#include "sync_pool.h"

#include <ebb/vhost/vhost_user.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STEPS    200u
#define SESSIONS 4u         /* in one execution */
#define RAM      0x40000    /* bytes of guest memory in a file */
#define NAME     "ebb-fuzz" /* of files, in /proc/self/maps */
#define FDS      256u       /* that are looked at */
#define HEADER   12u
#define FLAGS    5u    /* of an answer: version 1, reply */
#define JOINED   2048u /* bytes held back at most */

/* ---- descriptors that a front-end may send ---- */

enum kind {
    RAM_SEALED = 0, /* cannot be cut */
    RAM_OPEN,
    RAM_SHORT,    /* not a whole page more than one */
    RAM_READONLY, /* RAM_OPEN, for reading */
    RAM_FUTURE,   /* no new writable mapping */
    EVENT_A,
    EVENT_B,
    PIPE_IN,
    PIPE_OUT,
    NULL_DEVICE,
    EPOLL, /* has no type and is no eventfd */
    SOCKET,
    INFLIGHT, /* the one that came in the last answer; before that, one of zeroes */
    KINDS,
};

struct run {
    struct fuzz_input in;
    struct guard guard;
    struct ebb_discard_pool *pool;
    struct ebb_vhost_user *session;
    struct ebb_vhost_user_config config;
    unsigned sessions;
    int fds[KINDS]; /* -1: not made yet */
    int peer;       /* of SOCKET */
    int kicks[EBB_VHOST_USER_QUEUES];
    uint8_t mode; /* of the callbacks */
    unsigned n_joined;
    uint8_t joined[JOINED];
};

/* Modes. */
#define SEND_FAILS  1u
#define WATCH_FAILS 2u
#define DEAF        4u /* no room on the channel for requests */
#define NO_CHANNEL  8u /* it is closed */

static int need(int fd)
{
    if (fd >= 0)
        return fd;
    perror("fuzz_vhost_user");
    abort();
}

static int new_file(off_t size, int seals)
{
    const int fd = need(memfd_create(NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING));

    (void)need(ftruncate(fd, size));
    (void)need(fcntl(fd, F_ADD_SEALS, seals));
    return fd;
}

static int reopen_readonly(int of)
{
    char path[32];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", of);
    return need(open(path, O_RDONLY | O_CLOEXEC));
}

static void make_pipe(struct run *run)
{
    int ends[2];

    (void)need(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
    run->fds[PIPE_OUT] = ends[0];
    run->fds[PIPE_IN] = ends[1];
}

static void make_socket(struct run *run)
{
    int ends[2];

    (void)need(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
    run->fds[SOCKET] = ends[0];
    run->peer = ends[1];
}

static int proto(struct run *run, enum kind kind);

static void make(struct run *run, enum kind kind)
{
    int *fd = &run->fds[kind];

    switch (kind) {
    case RAM_SEALED:
        *fd = new_file(RAM, F_SEAL_SHRINK);
        break;
    case RAM_OPEN:
        *fd = new_file(RAM, 0);
        break;
    case RAM_SHORT:
        *fd = new_file(EBB_FRAME_SIZE + 100, 0);
        break;
    case RAM_READONLY:
        *fd = reopen_readonly(proto(run, RAM_OPEN));
        break;
    case RAM_FUTURE:
        *fd = new_file(RAM, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE);
        break;
    case EVENT_A:
    case EVENT_B:
        *fd = need(eventfd(0, EFD_CLOEXEC));
        break;
    case PIPE_IN:
    case PIPE_OUT:
        make_pipe(run);
        break;
    case NULL_DEVICE:
        *fd = need(open("/dev/null", O_RDWR | O_CLOEXEC));
        break;
    case EPOLL:
        *fd = need(epoll_create1(EPOLL_CLOEXEC));
        break;
    case SOCKET:
        make_socket(run);
        break;
    default:
        *fd = new_file(RAM, F_SEAL_SHRINK | F_SEAL_GROW);
        break;
    }
}

static int proto(struct run *run, enum kind kind)
{
    if (run->fds[kind] < 0)
        make(run, kind);
    return run->fds[kind];
}

/* As they come out of recvmsg(): descriptors of the back-end's own. */
static unsigned read_fds(struct run *run, int *fds, unsigned most)
{
    const uint8_t wanted = fuzz_u8(&run->in);
    const unsigned n = wanted < most ? wanted : most;

    for (unsigned i = 0; i < n; i++) {
        const enum kind kind = (enum kind)(fuzz_u8(&run->in) % KINDS);

        fds[i] = need(fcntl(proto(run, kind), F_DUPFD_CLOEXEC, 0));
    }
    return n;
}

/* ---- the process, for signals and leaks ---- */

static struct ebb_vhost_user *volatile at_work;
static struct sigaction sigbus_before;

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
    struct ebb_vhost_user *session = at_work;

    if (ebb_vhost_user_fault(session, info->si_addr) == EBB_VHOST_USER_FAULT_MENDED)
        return;
    if ((sigbus_before.sa_flags & SA_SIGINFO) && sigbus_before.sa_sigaction)
        sigbus_before.sa_sigaction(signal, info, context);
    else
        abort();
}

static void refuse_aio(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

    (void)need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    (void)need(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static int maps_fd = -1;

/* After libFuzzer and the sanitizer have set their handlers. */
static void prepare(void)
{
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};

    if (maps_fd >= 0)
        return;
    maps_fd = need(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
    (void)need(sigaction(SIGBUS, &action, &sigbus_before));
    refuse_aio();
}

static unsigned count_fds(void)
{
    struct pollfd fds[FDS];
    unsigned n = 0;

    for (unsigned i = 0; i < FDS; i++)
        fds[i] = (struct pollfd){.fd = (int)i};
    (void)need(poll(fds, FDS, 0));
    for (unsigned i = 0; i < FDS; i++)
        n += !(fds[i].revents & POLLNVAL);
    return n;
}

/* Is any file of ours mapped? */
static bool is_mapped(void)
{
    static char text[1 << 20];
    size_t len = 0;
    ssize_t n;

    (void)need((int)lseek(maps_fd, 0, SEEK_SET));
    while (len < sizeof(text) - 1 && (n = read(maps_fd, text + len, sizeof(text) - 1 - len)) > 0)
        len += (size_t)n;
    return memmem(text, len, NAME, strlen(NAME)) != NULL;
}

/* ---- callbacks ---- */

static int on_send(void *ctx, const void *bytes, size_t len, int fd)
{
    struct run *run = ctx;
    uint32_t header[3];

    FUZZ_CHECK(len >= HEADER && len <= EBB_VHOST_USER_MESSAGE);
    memcpy(header, bytes, HEADER);
    FUZZ_CHECK(header[1] == FLAGS && header[2] == len - HEADER);
    if (fd >= 0) {
        if (run->fds[INFLIGHT] >= 0)
            close(run->fds[INFLIGHT]);
        run->fds[INFLIGHT] = fd;
    }
    return run->mode & SEND_FAILS ? -EPIPE : 0;
}

static int on_send_backend(void *ctx, int fd, const void *bytes, size_t len)
{
    const struct run *run = ctx;

    (void)bytes;
    FUZZ_CHECK(len >= HEADER && len <= EBB_VHOST_USER_MESSAGE && fcntl(fd, F_GETFD) >= 0);
    if (run->mode & DEAF)
        return -EBB_EAGAIN;
    return run->mode & NO_CHANNEL ? -EPIPE : 0;
}

static int on_watch(void *ctx, unsigned queue, int fd)
{
    struct run *run = ctx;

    FUZZ_CHECK(queue < EBB_VHOST_USER_QUEUES && run->kicks[queue] < 0);
    if (run->mode & WATCH_FAILS)
        return -EPERM;
    run->kicks[queue] = fd;
    return 0;
}

static void on_unwatch(void *ctx, unsigned queue, int fd)
{
    struct run *run = ctx;

    FUZZ_CHECK(queue < EBB_VHOST_USER_QUEUES && fcntl(fd, F_GETFD) >= 0);
    FUZZ_CHECK(run->kicks[queue] == fd || run->kicks[queue] < 0);
    run->kicks[queue] = -1;
}

static void on_wake(void *ctx)
{
    (void)ctx;
}

static void on_drop(void *ctx, int fd)
{
    (void)ctx;
    FUZZ_CHECK(close(fd) == 0);
}

static const struct ebb_vhost_user_ops with_channel = {
    .send = on_send,
    .send_backend = on_send_backend,
    .watch = on_watch,
    .unwatch = on_unwatch,
    .wake = on_wake,
    .drop = on_drop,
};
static const struct ebb_vhost_user_ops without_channel = {
    .send = on_send,
    .watch = on_watch,
    .unwatch = on_unwatch,
    .wake = on_wake,
};

/* ---- sessions ---- */

static void new_session(struct run *run)
{
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++)
        run->kicks[i] = -1;
    run->n_joined = 0;
    run->guard.discards = run->guard.discarded_bytes = 0;
    run->session = ebb_vhost_user_new(&run->config);
    if (!run->session)
        abort();
    run->guard.memory = ebb_vhost_user_memory(run->session);
    run->sessions++;
}

/* Guest memory is not touched: at_work is not set. */
static void end_session(struct run *run)
{
    if (run->session)
        ebb_vhost_user_free(run->session);
    run->session = NULL;
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++)
        FUZZ_CHECK(run->kicks[i] < 0);
}

static struct ebb_vhost_user *begin(struct run *run)
{
    if (!run->session && run->sessions < SESSIONS)
        new_session(run);
    at_work = run->session;
    return run->session;
}

static void check_session(const struct run *run)
{
    const struct ebb_memory *memory = ebb_vhost_user_memory(run->session);
    const size_t wants = ebb_vhost_user_wants(run->session);
    struct ebb_vhost_user_stats stats;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < memory->n; i++)
        bytes += memory->regions[i].size;
    ebb_vhost_user_get_stats(run->session, &stats);
    FUZZ_CHECK(stats.memory_bytes == bytes);
    FUZZ_CHECK(wants <= EBB_VHOST_USER_MESSAGE);
    FUZZ_CHECK(!ebb_vhost_user_reason(run->session, NULL));
}

/* A function on the session returned this. */
static void serve(struct run *run, int result)
{
    int error = 0;

    at_work = NULL;
    if (result >= 0) {
        check_session(run);
        return;
    }
    FUZZ_CHECK(ebb_vhost_user_reason(run->session, &error) && error > 0);
    FUZZ_CHECK(ebb_vhost_user_work(run->session) < 0);
    FUZZ_CHECK(ebb_vhost_user_due(run->session) == UINT64_MAX);
    end_session(run);
}

/* ---- messages ---- */

/* Hand over n bytes in pieces of at most `piece` (0: as many as are wanted), the descriptors with
 * the first. */
static void deliver(struct run *run, const uint8_t *bytes, size_t n, unsigned piece, const int *fds,
                    unsigned n_fds)
{
    for (size_t done = 0; done < n || n_fds > 0;) {
        struct ebb_vhost_user *session = begin(run);
        size_t len = n - done;

        if (!session || len == 0) {
            while (n_fds > 0)
                close(fds[--n_fds]);
            return;
        }
        if (piece == 0 && len > ebb_vhost_user_wants(session))
            len = ebb_vhost_user_wants(session) + (ebb_vhost_user_wants(session) == 0);
        if (piece > 0 && len > piece)
            len = piece;
        serve(run, ebb_vhost_user_receive(session, bytes + done, len, fds, n_fds));
        n_fds = 0;
        done += len;
        if (!run->session)
            return; /* the rest was sent to the one that has ended */
    }
}

static void deliver_joined(struct run *run)
{
    const unsigned n = run->n_joined;

    run->n_joined = 0;
    deliver(run, run->joined, n, n, NULL, 0);
}

/* As a stream socket does: what has no descriptors joins what came before. */
static void post(struct run *run, const uint8_t *bytes, size_t n, uint8_t how, const int *fds,
                 unsigned n_fds)
{
    const bool join = how == 1 && n_fds == 0 && n <= JOINED - run->n_joined;

    if (join) {
        memcpy(run->joined + run->n_joined, bytes, n);
        run->n_joined += (unsigned)n;
        return;
    }
    if (run->n_joined > 0)
        deliver_joined(run);
    deliver(run, bytes, n, how < 2 ? 0 : how - 1u, fds, n_fds);
}

/* Request, flags (version 1 is added; 0x80: 4 bytes more, as they are), how it is cut (post()),
 * descriptors, 2 bytes of length, payload. */
static void message(struct run *run)
{
    uint8_t bytes[HEADER + 512];
    uint32_t header[3];
    int fds[16];
    unsigned n_fds;
    uint8_t how;
    size_t n;
    const uint8_t *payload;

    header[0] = fuzz_u8(&run->in);
    header[1] = fuzz_u8(&run->in);
    header[1] = header[1] & 0x80 ? fuzz_u32(&run->in) : header[1] | 1;
    how = fuzz_u8(&run->in);
    n_fds = read_fds(run, fds, 16);
    n = fuzz_u16(&run->in) % 512;
    payload = fuzz_bytes(&run->in, &n);
    header[2] = (uint32_t)n;
    memcpy(bytes, header, HEADER);
    if (n > 0)
        memcpy(bytes + HEADER, payload, n);
    post(run, bytes, HEADER + n, how, fds, n_fds);
}

/* How it is cut, descriptors, 1 byte of length, bytes. */
static void raw(struct run *run)
{
    const uint8_t how = fuzz_u8(&run->in);
    int fds[16];
    const unsigned n_fds = read_fds(run, fds, 16);
    size_t n = fuzz_u8(&run->in);
    const uint8_t *bytes = fuzz_bytes(&run->in, &n);

    if (n > 0)
        post(run, bytes, n, how, fds, n_fds);
    else
        for (unsigned i = 0; i < n_fds; i++)
            close(fds[i]);
}

static void eof(struct run *run)
{
    if (run->n_joined > 0)
        deliver_joined(run);
    if (!run->session)
        return;
    (void)!ebb_vhost_user_eof(run->session);
    FUZZ_CHECK(ebb_vhost_user_reason(run->session, NULL));
    end_session(run);
}

/* It goes away whatever the session is at. */
static void vanish(struct run *run)
{
    end_session(run);
}

/* ---- what else happens ---- */

/* 1 byte: queue. Its kick is signalled, if that can be, and then served. */
static void kick(struct run *run)
{
    const unsigned queue = fuzz_u8(&run->in) % (EBB_VHOST_USER_QUEUES + 1);
    struct pollfd room = {.fd = -1, .events = POLLOUT};
    const uint64_t one = 1;

    if (!run->session)
        return;
    if (queue < EBB_VHOST_USER_QUEUES)
        room.fd = run->kicks[queue];
    if (poll(&room, 1, 0) == 1 && (room.revents & POLLOUT))
        (void)!write(room.fd, &one, sizeof(one));
    serve(run, ebb_vhost_user_kick(begin(run), queue));
}

static void work(struct run *run)
{
    if (run->session)
        serve(run, ebb_vhost_user_work(begin(run)));
}

static void pool_step(struct run *run)
{
    (void)sync_pool_step(run->pool);
}

/* 2 bytes: milliseconds. */
static void pass_time(struct run *run)
{
    run->guard.now += (uint64_t)fuzz_u16(&run->in) * 1000000;
}

/* 1 byte: which file; 3 bytes where; 1 byte of length, bytes. */
static void guest_write(struct run *run)
{
    const enum kind kind = fuzz_u8(&run->in) & 1 ? RAM_OPEN : RAM_SEALED;
    const off_t at = (off_t)fuzz_le(&run->in, 3) % RAM;
    size_t n = fuzz_u8(&run->in);
    const uint8_t *bytes = fuzz_bytes(&run->in, &n);

    if (n > (size_t)(RAM - at))
        n = (size_t)(RAM - at);
    if (n > 0)
        (void)!pwrite(proto(run, kind), bytes, n, at);
}

/* 1 byte: how many pages a file that can be cut has from now on. */
static void cut(struct run *run)
{
    const off_t pages = fuzz_u8(&run->in) % (RAM / 4096 + 1);

    (void)!ftruncate(proto(run, RAM_OPEN), pages * 4096);
}

/* 1 byte: an event is as full as it can be, or empty. */
static void fill_event(struct run *run)
{
    const uint8_t how = fuzz_u8(&run->in);
    const int fd = proto(run, how & 1 ? EVENT_B : EVENT_A);
    struct pollfd at = {.fd = fd, .events = POLLIN};
    uint64_t count = UINT64_MAX - 1;

    if (poll(&at, 1, 0) == 1 && (at.revents & POLLIN))
        (void)!read(fd, &count, sizeof(count));
    count = UINT64_MAX - 1;
    if (how & 2)
        (void)!write(fd, &count, sizeof(count));
}

static void set_mode(struct run *run)
{
    run->mode = fuzz_u8(&run->in);
}

/* 1 byte: what; some: more. */
static void operate(struct run *run)
{
    const uint8_t what = fuzz_u8(&run->in);
    struct ebb_balloon_device *device;

    if (!run->session)
        return;
    at_work = run->session;
    device = ebb_vhost_user_device(run->session);
    switch (what % 5) {
    case 0:
        ebb_balloon_device_resize(device, fuzz_u32(&run->in));
        break;
    case 1:
        (void)!ebb_balloon_device_poll_stats(device);
        break;
    case 2:
        (void)!ebb_balloon_device_hint_start(device);
        break;
    case 3:
        ebb_balloon_device_hint_done(device);
        break;
    default:
        ebb_discard_inhibit(ebb_vhost_user_discard(run->session), what & 0x80);
        break;
    }
    serve(run, ebb_vhost_user_work(run->session));
}

/* 1 byte: so many discards fail. */
static void host_fails(struct run *run)
{
    run->guard.fail = fuzz_u8(&run->in);
    run->guard.fail_errno = run->guard.fail & 1 ? EINTR : ENOSPC;
}

/* ---- one execution ---- */

static void (*const steps[])(struct run *) = {
    /*  0 */ message, raw,        kick,     work,    pool_step,  pass_time, guest_write,
    /*  7 */ cut,     fill_event, set_mode, operate, host_fails, eof,       vanish,
};
#define N_STEPS (sizeof(steps) / sizeof(steps[0]))

/* Any file system; sealed files only; hints discarded; fixed numbers; no requests of our own; few
 * slots; little memory; batches gathered. */
static void configure(struct run *run, uint8_t flags)
{
    guard_init(&run->guard, true);
    run->config = (struct ebb_vhost_user_config){
        .ops = flags & 16 ? &without_channel : &with_channel,
        .ctx = run,
        .any_file = flags & 1,
        .sealed_only = flags & 2,
        .device = {.discard_hints = flags & 4,
                   .numbering = flags & 8 ? EBB_BALLOON_DEVICE_FIXED : EBB_BALLOON_DEVICE_DENSE,
                   .gather_us = flags & 128 ? 1000 : 0},
        .discard = {.pool = run->pool, .check_every = 1, .ops = &run->guard.ops},
        .memory_slots = flags & 32 ? 2 : 0,
        .memory_limit = flags & 64 ? RAM : 0,
    };
}

static void close_fds(struct run *run)
{
    for (unsigned i = 0; i < KINDS; i++)
        if (run->fds[i] >= 0)
            close(run->fds[i]);
    if (run->peer >= 0)
        close(run->peer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ebb_discard_pool *pool;
    static struct run run;
    unsigned fds;

    prepare();
    if (!pool)
        pool = ebb_discard_pool_new(1);
    fds = count_fds();
    memset(&run, 0, sizeof(run));
    run.in = (struct fuzz_input){data, size};
    run.pool = pool;
    run.peer = -1;
    for (unsigned i = 0; i < KINDS; i++)
        run.fds[i] = -1;
    configure(&run, fuzz_u8(&run.in));
    new_session(&run);
    for (unsigned i = 0; i < STEPS && run.in.left > 0; i++)
        steps[fuzz_u8(&run.in) % N_STEPS](&run);
    end_session(&run);
    close_fds(&run);
    FUZZ_CHECK(count_fds() == fds);
    FUZZ_CHECK(!is_mapped());
    return 0;
}
