/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The front-end's eventfds.
 *
 * The front-end has them open too, as the same open files: it can clear O_NONBLOCK and fill the
 * counter at any time, also between a look and a write(), so that the write would wait for ever,
 * and with it all other sessions of the thread. A read can be told not to wait (RWF_NOWAIT), a
 * write to an eventfd cannot. But when a request of the kernel's AIO ends, it adds one to an
 * eventfd in a way that never waits: so a call is a read of an empty file, with the eventfd
 * attached.
 */
#include "vhost_user_private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Under way at the same time: threads. The system has 65536 for all processes (fs.aio-max-nr),
 * which is enough for 4096 VMs. */
#define CALLS 16u

struct ebb_vhost_user_events {
    atomic_ulong aio; /* aio_context_t; 0: none yet */
    atomic_bool none; /* nor will there be: the kernel has no AIO, or does not allow it */
    int empty;        /* a file without a byte */
};

/* 0, or an errno: there is no context now. */
static int get_aio(struct ebb_vhost_user_events *events)
{
    unsigned long none = 0;
    aio_context_t aio = 0;

    if (atomic_load(&events->aio) || atomic_load(&events->none))
        return 0;
    if (syscall(SYS_io_setup, CALLS, &aio) != 0) {
        if (errno != EPERM && errno != ENOSYS)
            return errno;
        atomic_store(&events->none, true);
        return 0;
    }
    if (!atomic_compare_exchange_strong(&events->aio, &none, aio))
        (void)syscall(SYS_io_destroy, aio); /* another thread was first */
    return 0;
}

struct ebb_vhost_user_events *ebb__vu_events_new(void)
{
    struct ebb_vhost_user_events *events = calloc(1, sizeof(*events));

    if (!events)
        return NULL;
    events->empty = memfd_create("ebb-empty", MFD_CLOEXEC);
    if (events->empty >= 0)
        return events;
    free(events);
    return NULL;
}

/* Now, so that nobody who uses up what the system has of it can take it from all sessions later. */
struct ebb_vhost_user_events *ebb_vhost_user_events_new(void)
{
    struct ebb_vhost_user_events *events = ebb__vu_events_new();
    const int error = events ? get_aio(events) : 0;

    if (error == 0)
        return events;
    ebb_vhost_user_events_free(events);
    errno = error;
    return NULL;
}

void ebb_vhost_user_events_free(struct ebb_vhost_user_events *events)
{
    if (!events)
        return;
    if (atomic_load(&events->aio))
        (void)syscall(SYS_io_destroy, atomic_load(&events->aio));
    (void)close(events->empty);
    free(events);
}

/* The type of what is open, by what the kernel has at hand: a file system is not asked. */
static int file_type(int fd)
{
    struct statx stx;

    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) != 0)
        return -1;
    return stx.stx_mode & S_IFMT;
}

/* Where no memory of a process can be. */
#define NOWHERE ((uintptr_t)0 - EBB_FRAME_SIZE)

/* Has the file a write() at all? Only then is the address looked at, and refused, before the file
 * is asked. */
static bool can_write(int fd)
{
    return syscall(SYS_write, fd, NOWHERE, sizeof(uint64_t)) < 0 && errno == EFAULT;
}

/* Can it be read without waiting, but not half a counter? */
static bool reads_counters(int fd)
{
    uint32_t half;
    const struct iovec iov = {.iov_base = &half, .iov_len = sizeof(half)};

    return preadv2(fd, &iov, 1, -1, RWF_NOWAIT) < 0 && errno == EINVAL;
}

/*
 * Only eventfds are all of this: without a type, as what the kernel has of its own and is no file,
 * pipe, socket or device; writable, which epoll, timerfd, signalfd, inotify, userfaultfd, pidfd and
 * io_uring are not; and readable in this way, which fanotify and bpf are not. None of it reads,
 * writes or waits.
 */
bool ebb__vu_is_event(int fd)
{
    return file_type(fd) == 0 && can_write(fd) && reads_counters(fd);
}

static bool socket_is(int fd, int option, int value)
{
    socklen_t len = sizeof(int);
    int is = -1;

    return getsockopt(fd, SOL_SOCKET, option, &is, &len) == 0 && is == value;
}

bool ebb__vu_is_stream(int fd)
{
    return file_type(fd) == S_IFSOCK && socket_is(fd, SO_DOMAIN, AF_UNIX) &&
           socket_is(fd, SO_TYPE, SOCK_STREAM);
}

bool ebb__vu_is_regular(int fd)
{
    return file_type(fd) == S_IFREG;
}

int ebb__vu_event_clear(int fd)
{
    uint64_t count;
    const struct iovec iov = {.iov_base = &count, .iov_len = sizeof(count)};
    const ssize_t n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);

    if (n == (ssize_t)sizeof(count))
        return 1;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return n < 0 ? -errno : -EBB_EINVAL;
}

static int signal_by_aio(const struct ebb_vhost_user_events *events, aio_context_t aio, int fd)
{
    char byte;
    struct iocb read = {
        .aio_fildes = (uint32_t)events->empty,
        .aio_lio_opcode = IOCB_CMD_PREAD,
        .aio_buf = (uintptr_t)&byte,
        .aio_nbytes = 1,
        .aio_flags = IOCB_FLAG_RESFD,
        .aio_resfd = (uint32_t)fd,
    };
    struct iocb *list[] = {&read};
    struct io_event event;
    struct timespec none = {0};
    const long n = syscall(SYS_io_submit, aio, 1L, list);

    if (n != 1)
        return n < 0 ? -errno : -EBB_EIO;
    /* It has ended, and makes room for the next. */
    (void)syscall(SYS_io_getevents, aio, 0L, 1L, &event, &none);
    return 0;
}

/* Where AIO is not allowed this has to do. */
static int signal_by_write(int fd)
{
    const uint64_t one = 1;
    struct pollfd room = {.fd = fd, .events = POLLOUT};

    /* Without room the front-end has calls enough that it has not read. */
    if (poll(&room, 1, 0) != 1 || !(room.revents & POLLOUT))
        return room.revents & POLLNVAL ? -EBB_EINVAL : 0;
    if (write(fd, &one, sizeof(one)) != (ssize_t)sizeof(one) && errno != EAGAIN)
        return -errno;
    return 0;
}

int ebb__vu_event_signal(struct ebb_vhost_user *session, int fd)
{
    const struct ebb_vhost_user_events *events = session->events;
    int error = -EAGAIN;

    (void)!get_aio(session->events);
    if (atomic_load(&events->aio))
        error = signal_by_aio(events, atomic_load(&events->aio), fd);
    return error == -EAGAIN ? signal_by_write(fd) : error;
}
