/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every handler of a message needs: to answer it, refuse it or end the session, and to take
 * its descriptors.
 */
#include "vhost_user_private.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* ---- endings ---- */

int ebb__vu_fail(struct ebb_vhost_user *session, int error, const char *reason)
{
    if (!session->ended) {
        session->ended = true;
        session->error = error > 0 ? error : EBB_EIO;
        session->reason = reason;
    }
    return -session->error;
}

int ebb__vu_refuse(struct ebb_vhost_user *session, int error, const char *reason)
{
    if (!session->ended) {
        session->refused = true;
        session->error = error > 0 ? error : EBB_EIO;
        session->reason = reason;
    }
    return -session->error;
}

int ebb__vu_settle(struct ebb_vhost_user *session)
{
    if (session->faulted)
        (void)!ebb__vu_fail(session, EBB_EFAULT,
                            "guest memory that has no page: its file was cut, or is full");
    return session->ended ? -session->error : 0;
}

/* ---- descriptors of a message ---- */

void ebb__vu_drop_fd(struct ebb_vhost_user *session, int fd)
{
    if (session->config.ops->drop)
        session->config.ops->drop(session->config.ctx, fd);
    else
        (void)close(fd);
}

void ebb__vu_drop_fds(struct ebb_vhost_user *session)
{
    for (unsigned i = 0; i < session->n_fds; i++)
        if (session->fds[i] >= 0)
            ebb__vu_drop_fd(session, session->fds[i]);
    session->n_fds = 0;
    session->lost_fds = false;
}

int ebb__vu_wrong_fds(struct ebb_vhost_user *session)
{
    if (session->lost_fds)
        return ebb__vu_refuse(session, EMFILE,
                              "descriptors that there was no room for (RLIMIT_NOFILE)");
    return ebb__vu_fail(session, EBB_EPROTO, "descriptors missing, or too many");
}

int ebb__vu_take_fd(struct ebb_vhost_user *session, unsigned i)
{
    const int fd = session->fds[i];

    session->fds[i] = -1;
    return fd;
}

/* ---- answers ---- */

int ebb__vu_try_answer(struct ebb_vhost_user *session, const void *payload, uint32_t size, int fd)
{
    const struct ebb__vu_header header = {session->header.request, EBB__VU_VERSION | EBB__VU_REPLY,
                                          size};
    unsigned char out[EBB_VHOST_USER_MESSAGE];

    memcpy(out, &header, sizeof(header));
    memcpy(out + sizeof(header), payload, size);
    return session->config.ops->send(session->config.ctx, out, sizeof(header) + size, fd);
}

int ebb__vu_answer(struct ebb_vhost_user *session, const void *payload, uint32_t size, int fd)
{
    const int error = ebb__vu_try_answer(session, payload, size, fd);

    if (error < 0)
        return ebb__vu_fail(session, -error, "an answer that could not be sent");
    return 0;
}

int ebb__vu_answer_u64(struct ebb_vhost_user *session, uint64_t value)
{
    return ebb__vu_answer(session, &value, sizeof(value), -1);
}
