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
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

int ebb__vu_events_init(struct ebb_vhost_user *session)
{
    session->empty = memfd_create("ebb-empty", MFD_CLOEXEC);
    return session->empty < 0 ? -1 : 0;
}

/* To give a context back takes a grace period of the kernel: who never calls has none. */
static bool has_aio(struct ebb_vhost_user *session)
{
    aio_context_t aio = 0;

    if (!session->aio_tried && syscall(SYS_io_setup, 1, &aio) == 0)
        session->aio = aio;
    session->aio_tried = true;
    return session->aio != 0;
}

void ebb__vu_events_release(struct ebb_vhost_user *session)
{
    if (session->aio)
        (void)syscall(SYS_io_destroy, session->aio);
    if (session->empty >= 0)
        (void)close(session->empty);
    session->aio = 0;
    session->empty = -1;
}

/* The type of what is open, by what the kernel has at hand: a file system is not asked. */
static int file_type(int fd)
{
    struct statx stx;

    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) != 0)
        return -1;
    return stx.stx_mode & S_IFMT;
}

/* Eventfds, and others of the kernel's that are no files at all, have no type. */
bool ebb__vu_is_event(int fd)
{
    return file_type(fd) == 0;
}

bool ebb__vu_is_socket(int fd)
{
    return file_type(fd) == S_IFSOCK;
}

int ebb__vu_event_clear(int fd)
{
    uint64_t count;
    const struct iovec iov = {.iov_base = &count, .iov_len = sizeof(count)};
    const ssize_t n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);

    if (n == (ssize_t)sizeof(count) || (n < 0 && (errno == EAGAIN || errno == EINTR)))
        return 0;
    return n < 0 ? -errno : -EBB_EINVAL;
}

/* Take what has ended out of the context, which has room for one. */
static void reap(struct ebb_vhost_user *session)
{
    struct io_event event;
    struct timespec none = {0};

    (void)syscall(SYS_io_getevents, session->aio, 0L, 1L, &event, &none);
}

static int signal_by_aio(struct ebb_vhost_user *session, int fd)
{
    char byte;
    struct iocb read = {
        .aio_fildes = (uint32_t)session->empty,
        .aio_lio_opcode = IOCB_CMD_PREAD,
        .aio_buf = (uintptr_t)&byte,
        .aio_nbytes = 1,
        .aio_flags = IOCB_FLAG_RESFD,
        .aio_resfd = (uint32_t)fd,
    };
    struct iocb *list[] = {&read};
    const long n = syscall(SYS_io_submit, session->aio, 1L, list);

    if (n != 1)
        return n < 0 ? -errno : -EBB_EIO;
    reap(session);
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
    return has_aio(session) ? signal_by_aio(session, fd) : signal_by_write(fd);
}
