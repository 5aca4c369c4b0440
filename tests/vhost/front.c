/* SPDX-License-Identifier: BSD-2-Clause */
#include "front.h"
#include "../loop/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MEMORY  (16u << 20)
#define MANY    100u
#define PAYLOAD 512u

const char *const front_mischief_names[FRONT_MISCHIEFS] = {
    "honest", "die",  "die in", "garbage", "version", "as reply", "unknown", "short",    "long",
    "huge",   "ones", "random", "fd none", "fd more", "fd many",  "fd pipe", "fd epoll", "bytewise",
};

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "front: %s: %s\n", what, strerror(errno));
    abort();
}

static void shut(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- life ---- */

static void init_memory(struct front *front)
{
    const off_t size = (off_t)front->config.memory;

    front->memfd = front->config.memfd;
    if (front->memfd == 0) {
        front->memfd = memfd_create("front-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        must(front->memfd >= 0 && ftruncate(front->memfd, size) == 0, "memory");
        if (!front->config.unsealed)
            must(fcntl(front->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0, "seal");
    }
    front->memory = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, front->memfd, 0);
    must(front->memory != MAP_FAILED, "map");
}

static void init_queue(struct front *front, unsigned i)
{
    struct front_queue *queue = &front->queues[i];

    queue->gpa = 0x10000 + i * 0x4000u;
    must(ebb_ring_driver_init(&queue->ring, FRONT_RING, front_at(front, queue->gpa),
                              queue->slots) == 0,
         "ring");
    /* As QEMU does it, a kick is readable from the start. */
    queue->kick = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    queue->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    queue->err = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    must(queue->kick >= 0 && queue->call >= 0 && queue->err >= 0, "eventfd");
}

void front_init(struct front *front, const struct front_config *config, int sock)
{
    memset(front, 0, sizeof(*front));
    if (config)
        front->config = *config;
    if (front->config.memory == 0)
        front->config.memory = MEMORY;
    front->sock = sock;
    front->backend = -1;
    front->inflight = front->config.inflight ? front->config.inflight : -1;
    front->seed = 1;
    init_memory(front);
    for (unsigned i = 0; i < FRONT_QUEUES; i++)
        init_queue(front, i);
}

void front_exit(struct front *front)
{
    for (unsigned i = 0; i < FRONT_QUEUES; i++) {
        shut(&front->queues[i].kick);
        shut(&front->queues[i].call);
        shut(&front->queues[i].err);
    }
    shut(&front->sock);
    shut(&front->backend);
    shut(&front->inflight);
    shut(&front->memfd);
    munmap(front->memory, front->config.memory);
}

int front_connect(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    const int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (sock < 0 || strlen(path) >= sizeof(addr.sun_path))
        return -1;
    memcpy(addr.sun_path, path, strlen(path));
    if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) == 0)
        return sock;
    close(sock);
    return -1;
}

void *front_at(const struct front *front, uint64_t gpa)
{
    const uint64_t half = front->config.memory / 2;

    return front->memory + (gpa >= FRONT_HIGH ? half + (gpa - FRONT_HIGH) : gpa);
}

struct front_region front_region(const struct front *front, unsigned which)
{
    const uint64_t half = front->config.memory / 2;

    return (struct front_region){.gpa = which ? FRONT_HIGH : 0,
                                 .size = half,
                                 .user = (uintptr_t)front->memory + which * half,
                                 .offset = which * half};
}

/* ---- sending ---- */

/* What goes out: a message as it should be, then with the mischief in it. */
struct outgoing {
    struct front_header header;
    unsigned char payload[PAYLOAD];
    size_t bytes; /* of the payload that are sent */
    int fds[MANY];
    unsigned n_fds;
    int made[2]; /* descriptors to close afterwards */
};

static int hang_up(struct front *front)
{
    shut(&front->sock);
    return -EPIPE;
}

static int send_bytes(struct front *front, const void *bytes, size_t len, const int *fds,
                      unsigned n_fds)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(MANY * sizeof(int))] = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    if (n_fds > 0) {
        struct cmsghdr *cmsg = (struct cmsghdr *)control;

        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
    }
    n = sendmsg(front->sock, &msg, MSG_NOSIGNAL);
    return n == (ssize_t)len ? 0 : hang_up(front);
}

static void fill_random(struct front *front, void *to, size_t len)
{
    struct rng rng = {front->seed++};

    for (size_t i = 0; i < len; i++)
        ((unsigned char *)to)[i] = (unsigned char)rng_next(&rng);
}

static void replace_fds(struct outgoing *out, enum front_mischief mischief)
{
    int with = -1;

    if (mischief == FRONT_FD_EPOLL) {
        with = out->made[0] = epoll_create1(EPOLL_CLOEXEC);
    } else {
        must(pipe2(out->made, O_CLOEXEC) == 0, "pipe");
        with = out->made[0];
    }
    if (mischief == FRONT_FD_MORE)
        out->fds[out->n_fds++] = with;
    if (mischief == FRONT_FD_MANY)
        out->n_fds = MANY;
    if (mischief != FRONT_FD_MORE)
        for (unsigned i = 0; i < out->n_fds; i++)
            out->fds[i] = with;
}

static void harm_size(struct outgoing *out, enum front_mischief mischief)
{
    if (mischief == FRONT_HUGE)
        out->header.size = UINT32_MAX;
    else if (mischief == FRONT_LONG)
        out->header.size += 8;
    else
        out->header.size += out->header.size == 0 ? 1 : UINT32_MAX;
    if (mischief != FRONT_HUGE)
        out->bytes = out->header.size;
}

static void harm(struct front *front, struct outgoing *out)
{
    switch (front->mischief) {
    case FRONT_GARBAGE:
        fill_random(front, &out->header, sizeof(out->header));
        out->bytes += 64;
        fill_random(front, out->payload, out->bytes);
        break;
    case FRONT_VERSION:
        out->header.flags ^= 3;
        break;
    case FRONT_AS_REPLY:
        out->header.flags |= 4;
        break;
    case FRONT_UNKNOWN:
        out->header.request += 100;
        break;
    case FRONT_SHORT:
    case FRONT_LONG:
    case FRONT_HUGE:
        harm_size(out, front->mischief);
        break;
    case FRONT_ONES:
        memset(out->payload, 0xff, out->bytes);
        break;
    case FRONT_RANDOM:
        fill_random(front, out->payload, out->bytes);
        break;
    case FRONT_FD_NONE:
        out->n_fds = 0;
        break;
    case FRONT_FD_MORE:
    case FRONT_FD_MANY:
    case FRONT_FD_PIPE:
    case FRONT_FD_EPOLL:
        replace_fds(out, front->mischief);
        break;
    default:
        break;
    }
}

static int send_outgoing(struct front *front, const struct outgoing *out,
                         enum front_mischief mischief)
{
    unsigned char bytes[sizeof(out->header) + PAYLOAD];
    const size_t len = sizeof(out->header) + out->bytes;

    memcpy(bytes, &out->header, sizeof(out->header));
    memcpy(bytes + sizeof(out->header), out->payload, out->bytes);
    if (mischief == FRONT_DIE)
        return hang_up(front);
    if (mischief == FRONT_DIE_IN) {
        (void)!send_bytes(front, bytes, len / 2, out->fds, out->n_fds);
        return hang_up(front);
    }
    if (mischief == FRONT_BYTEWISE) {
        for (size_t i = 0; i < len; i++)
            if (send_bytes(front, bytes + i, 1, out->fds, i == 0 ? out->n_fds : 0) < 0)
                return -EPIPE;
        return 0;
    }
    return send_bytes(front, bytes, len, out->fds, out->n_fds);
}

int front_send(struct front *front, uint32_t request, uint32_t flags, const void *payload,
               uint32_t size, const int *fds, unsigned n_fds)
{
    struct outgoing out = {.header = {request, flags | 1, size}, .bytes = size, .made = {-1, -1}};
    const bool now = front->sent == front->mischief_at && !front->done;
    const enum front_mischief mischief = now ? front->mischief : FRONT_HONEST;
    int error;

    if (front->sock < 0)
        return -EPIPE;
    if (size > 0)
        memcpy(out.payload, payload, size);
    for (; out.n_fds < n_fds; out.n_fds++)
        out.fds[out.n_fds] = fds[out.n_fds];
    if (mischief != FRONT_HONEST) {
        front->done = true;
        harm(front, &out);
    }
    error = send_outgoing(front, &out, mischief);
    shut(&out.made[0]);
    shut(&out.made[1]);
    front->sent++;
    return error;
}

/* ---- receiving ---- */

static void keep_fd(struct msghdr *msg, int *fd)
{
    const struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg);
    int got;

    if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS)
        return;
    memcpy(&got, CMSG_DATA(cmsg), sizeof(got));
    if (fd && *fd < 0)
        *fd = got;
    else
        close(got);
}

static uint64_t patience_end(const struct front *front)
{
    return now_ms() + (front->done && front->patience_ms ? front->patience_ms : FRONT_PATIENCE_MS);
}

/* Wait until fd is readable, letting the back-end run. */
static int await(struct front *front, int fd)
{
    const uint64_t end = patience_end(front);
    struct pollfd readable = {.fd = fd, .events = POLLIN};

    for (;;) {
        if (poll(&readable, 1, front->config.pump ? 0 : 20) > 0)
            return 0;
        if (front->config.pump)
            front->config.pump(front->config.ctx);
        if (now_ms() > end)
            return -ETIMEDOUT;
    }
}

static int receive(struct front *front, void *to, size_t len, int *fd)
{
    for (size_t have = 0; have < len;) {
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
        struct iovec iov = {.iov_base = (char *)to + have, .iov_len = len - have};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
        const int error = await(front, front->sock);
        ssize_t n;

        if (error < 0)
            return error;
        n = recvmsg(front->sock, &msg, MSG_CMSG_CLOEXEC);
        if (n <= 0)
            return hang_up(front);
        keep_fd(&msg, fd);
        have += (size_t)n;
    }
    return 0;
}

ssize_t front_answer(struct front *front, uint32_t request, void *payload, uint32_t size, int *fd)
{
    struct front_header header;
    int error;

    if (fd)
        *fd = -1;
    if (front->sock < 0)
        return -EPIPE;
    error = receive(front, &header, sizeof(header), fd);
    if (error < 0)
        return error;
    if (header.request != request || header.flags != 5 || header.size > size)
        return -EPROTO;
    error = receive(front, payload, header.size, fd);
    return error < 0 ? error : (ssize_t)header.size;
}

ssize_t front_ask(struct front *front, uint32_t request, void *payload, uint32_t size,
                  uint32_t answer_size)
{
    const int error = front_send(front, request, 0, payload, size, NULL, 0);

    return error < 0 ? error : front_answer(front, request, payload, answer_size, NULL);
}

int front_tell(struct front *front, uint32_t request, const void *payload, uint32_t size,
               const int *fds, unsigned n_fds)
{
    const bool asked = front->protocol & FRONT_P_REPLY_ACK;
    uint64_t value = 0;
    ssize_t n =
        front_send(front, request, asked ? FRONT_FLAG_NEED_REPLY : 0, payload, size, fds, n_fds);

    if (n == 0 && asked)
        n = front_answer(front, request, &value, sizeof(value), NULL);
    if (n == 0 && front->config.pump)
        front->config.pump(front->config.ctx);
    return n < 0 ? (int)n : value != 0;
}

int front_tell_u64(struct front *front, uint32_t request, uint64_t value)
{
    return front_tell(front, request, &value, sizeof(value), NULL, 0);
}

int front_tell_state(struct front *front, uint32_t request, uint32_t index, uint32_t num)
{
    const struct front_state state = {index, num};

    return front_tell(front, request, &state, sizeof(state), NULL, 0);
}

/* ---- a session ---- */

/* What the steps below return if one of their messages does: the first thing that is not 0. */
#define TRY(call)                                      \
    do {                                               \
        const int try_error = (int)(call);             \
        if (try_error != 0)                            \
            return try_error > 0 ? -EPERM : try_error; \
    } while (0)

static int ask_u64(struct front *front, uint32_t request, uint64_t *value)
{
    ssize_t n;

    *value = 0; /* no byte of it is sent, but a compiler may not see that */
    n = front_ask(front, request, value, 0, sizeof(*value));
    return n < 0 ? (int)n : n == sizeof(*value) ? 0 : -EPROTO;
}

static int tell_event(struct front *front, uint32_t request, unsigned queue, int fd)
{
    const uint64_t value = queue;

    return front_tell(front, request, &value, sizeof(value), &fd, 1);
}

static int open_backend(struct front *front)
{
    int pair[2], error;

    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
    shut(&front->backend);
    front->backend = pair[0];
    error = front_tell(front, FRONT_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1);
    close(pair[1]);
    return error;
}

static unsigned count_queues(uint64_t features)
{
    features &= EBB_F_STATS_VQ | EBB_F_FREE_PAGE_HINT | EBB_F_PAGE_REPORTING;
    return 2 + (unsigned)__builtin_popcountll(features);
}

int front_open(struct front *front)
{
    uint64_t features, protocol, value;

    TRY(ask_u64(front, FRONT_GET_FEATURES, &features));
    TRY(ask_u64(front, FRONT_GET_PROTOCOL_FEATURES, &protocol));
    protocol &= ~front->config.without;
    TRY(front_tell_u64(front, FRONT_SET_PROTOCOL_FEATURES, protocol));
    front->protocol = protocol;
    if (protocol & FRONT_P_MQ)
        TRY(ask_u64(front, FRONT_GET_QUEUE_NUM, &value));
    if (protocol & FRONT_P_MEM_SLOTS)
        TRY(ask_u64(front, FRONT_GET_MAX_MEM_SLOTS, &value));
    if (protocol & FRONT_P_BACKEND_REQ)
        TRY(open_backend(front));
    TRY(front_tell(front, FRONT_SET_OWNER, NULL, 0, NULL, 0));
    TRY(ask_u64(front, FRONT_GET_FEATURES, &features));
    front->features = features & ~front->config.refuse;
    front->n_queues = count_queues(front->features);
    for (unsigned i = 0; i < FRONT_QUEUES; i++) {
        TRY(tell_event(front, FRONT_SET_VRING_CALL, i, front->queues[i].call));
        TRY(tell_event(front, FRONT_SET_VRING_ERR, i, front->queues[i].err));
    }
    return 0;
}

int front_config_read(struct front *front, uint32_t cfg[4])
{
    struct {
        uint32_t offset, size, flags, cfg[4];
    } message = {.size = 16};
    const ssize_t n =
        front_ask(front, FRONT_GET_CONFIG, &message, sizeof(message), sizeof(message));

    if (n != sizeof(message))
        return n < 0 ? (int)n : -EPROTO;
    memcpy(cfg, message.cfg, sizeof(message.cfg));
    return 0;
}

int front_config_write(struct front *front, const uint32_t cfg[4])
{
    struct {
        uint32_t offset, size, flags, cfg[4];
    } message = {.size = 16};

    memcpy(message.cfg, cfg, sizeof(message.cfg));
    return front_tell(front, FRONT_SET_CONFIG, &message, sizeof(message), NULL, 0);
}

static int add_slot(struct front *front, unsigned which)
{
    struct {
        uint64_t padding;
        struct front_region region;
    } message = {0, front_region(front, which)};

    return front_tell(front, FRONT_ADD_MEM_REG, &message, sizeof(message), &front->memfd, 1);
}

int front_set_memory(struct front *front)
{
    struct {
        uint32_t n, padding;
        struct front_region regions[2];
    } message = {2, 0, {front_region(front, 0), front_region(front, 1)}};
    const int fds[2] = {front->memfd, front->memfd};

    if (!front->config.slots)
        return front_tell(front, FRONT_SET_MEM_TABLE, &message, sizeof(message), fds, 2);
    TRY(add_slot(front, 0));
    return add_slot(front, 1);
}

static int get_inflight(struct front *front)
{
    struct front_inflight inflight = {.queues = FRONT_QUEUES, .queue_size = FRONT_RING};
    ssize_t n;

    if (front->inflight < 0) {
        TRY(front_send(front, FRONT_GET_INFLIGHT_FD, 0, &inflight, sizeof(inflight), NULL, 0));
        n = front_answer(front, FRONT_GET_INFLIGHT_FD, &inflight, sizeof(inflight),
                         &front->inflight);
        if (n != sizeof(inflight) || front->inflight < 0)
            return n < 0 ? (int)n : -EPROTO;
    } else {
        inflight.mmap_size = (uint64_t)lseek(front->inflight, 0, SEEK_END);
    }
    return front_tell(front, FRONT_SET_INFLIGHT_FD, &inflight, sizeof(inflight), &front->inflight,
                      1);
}

int front_queue_start(struct front *front, unsigned i, uint16_t base)
{
    struct front_queue *queue = &front->queues[i];
    const struct ebb_ring_layout layout = ebb_ring_layout(FRONT_RING);
    const uint64_t user = (uintptr_t)front_at(front, queue->gpa);
    const struct front_addr addr = {.index = i,
                                    .desc = user + layout.desc,
                                    .avail = user + layout.avail,
                                    .used = user + layout.used};

    TRY(front_tell_state(front, FRONT_SET_VRING_NUM, i, FRONT_RING));
    TRY(front_tell_state(front, FRONT_SET_VRING_BASE, i, base));
    TRY(front_tell(front, FRONT_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0));
    TRY(tell_event(front, FRONT_SET_VRING_KICK, i, queue->kick));
    return tell_event(front, FRONT_SET_VRING_CALL, i, queue->call);
}

int front_start(struct front *front)
{
    TRY(front_tell_u64(front, FRONT_SET_FEATURES, front->features));
    TRY(front_set_memory(front));
    if (front->protocol & FRONT_P_INFLIGHT)
        TRY(get_inflight(front));
    for (unsigned i = 0; i < front->n_queues; i++)
        TRY(front_queue_start(front, i, front->queues[i].ring.used_idx));
    for (unsigned i = 0; i < FRONT_QUEUES; i++) /* all, as QEMU does */
        TRY(front_tell_state(front, FRONT_SET_VRING_ENABLE, i, 1));
    for (unsigned i = 0; i < front->n_queues; i++)
        TRY(tell_event(front, FRONT_SET_VRING_CALL, i, front->queues[i].call));
    return 0;
}

int front_stop(struct front *front)
{
    for (unsigned i = 0; i < FRONT_QUEUES; i++)
        TRY(front_tell_state(front, FRONT_SET_VRING_ENABLE, i, 0));
    for (unsigned i = 0; i < front->n_queues; i++) {
        struct front_state state = {i, 0};
        const ssize_t n =
            front_ask(front, FRONT_GET_VRING_BASE, &state, sizeof(state), sizeof(state));

        if (n != sizeof(state))
            return n < 0 ? (int)n : -EPROTO;
        /* A held statistics buffer counts as not taken. */
        if (state.index != i || state.num != front->queues[i].ring.used_idx)
            return -EPROTO;
    }
    return 0;
}

int front_session(struct front *front)
{
    uint32_t cfg[4];

    TRY(front_open(front));
    TRY(front_config_read(front, cfg));
    TRY(front_start(front));
    cfg[1] = 1;
    TRY(front_config_write(front, cfg));
    TRY(front_report(front, FRONT_HIGH, 1u << 20));
    return front_stop(front);
}

/* ---- the driver ---- */

int front_queue_of(const struct front *front, enum ebb_balloon_queue which)
{
    static const uint64_t needs[] = {0, 0, EBB_F_STATS_VQ, EBB_F_FREE_PAGE_HINT,
                                     EBB_F_PAGE_REPORTING};
    int number = 0;

    if (which >= 2 && !(front->features & needs[which]))
        return -1;
    for (unsigned i = 0; i < which; i++)
        number += i < 2 || (front->features & needs[i]);
    return number;
}

void front_give(struct front *front, unsigned i, const struct ebb_ring_buf *bufs, unsigned n)
{
    struct front_queue *queue = &front->queues[i];
    const uint64_t one = 1;

    must(ebb_ring_driver_add(&queue->ring, bufs, n, queue) == 0, "add to the ring");
    if (ebb_ring_driver_kick(&queue->ring))
        must(write(queue->kick, &one, sizeof(one)) == sizeof(one), "kick");
}

int front_back(struct front *front, unsigned i)
{
    struct front_queue *queue = &front->queues[i];
    const uint64_t end = patience_end(front);
    uint64_t count;
    uint32_t len;
    void *token;

    for (;;) {
        const int got = ebb_ring_driver_get(&queue->ring, &token, &len);

        if (got != 0)
            return got > 0 ? 0 : -EPROTO;
        if (await(front, queue->call) < 0 || now_ms() > end)
            return -ETIMEDOUT;
        if (read(queue->call, &count, sizeof(count)) == sizeof(count))
            queue->calls++;
    }
}

int front_report(struct front *front, uint64_t gpa, uint32_t len)
{
    const struct ebb_ring_buf buf = {gpa, len, true};
    const int queue = front_queue_of(front, EBB_BALLOON_REPORTING);

    if (queue < 0)
        return -ENOENT;
    front_give(front, (unsigned)queue, &buf, 1);
    return front_back(front, (unsigned)queue);
}
