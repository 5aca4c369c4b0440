/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What outlives the process: a file that the front-end keeps, with a region for each queue, in
 * which a back-end notes the chains that it has taken and not given back.
 *
 * This device gives chains back in order, so the used ring says all of that: those from its index
 * on. The regions are marked as set up and say that no chain is in flight; a queue with a region
 * that was set up before starts at the used index. Any other back-end comes to the same: nothing
 * in flight to serve first, then on at the used index. The file is never mapped, so nothing can
 * happen to it that a read or write does not answer with an error.
 */
#include "vhost_user_private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct queue_region {
    uint64_t features;
    uint16_t version; /* 0: not set up */
    uint16_t desc_num;
    uint16_t last_batch_head;
    uint16_t used_idx;
};
_Static_assert(sizeof(struct queue_region) == 16, "queue region layout");

struct desc_state {
    uint8_t inflight;
    uint8_t padding[5];
    uint16_t next;
    uint64_t counter;
};
_Static_assert(sizeof(struct desc_state) == 16, "descriptor state layout");

#define REGION_VERSION 1u
#define REGION_ALIGN   64u
#define FILE_LIMIT     (1 << 20)

static uint64_t region_size(unsigned queue_size)
{
    const uint64_t size = sizeof(struct queue_region) + queue_size * sizeof(struct desc_state);

    return (size + REGION_ALIGN - 1) / REGION_ALIGN * REGION_ALIGN;
}

static int parse(struct ebb_vhost_user *session, const void *payload, uint32_t size,
                 struct ebb__vu_inflight *inflight)
{
    if (size != sizeof(*inflight) && size != EBB__VU_INFLIGHT_PACKED)
        return ebb__vu_fail(session, EBB_EPROTO, "a message of the wrong size");
    memset(inflight, 0, sizeof(*inflight));
    memcpy(inflight, payload, size);
    if (inflight->queues == 0 || inflight->queues > EBB_VHOST_USER_QUEUES ||
        inflight->queue_size == 0 || inflight->queue_size > EBB_RING_SIZE_LIMIT)
        return ebb__vu_refuse(session, EBB_EINVAL, "an inflight region of impossible queues");
    return 0;
}

/* A file of zeroes. -1: none, errno says why. */
static int new_file(uint64_t size)
{
    const int fd = memfd_create("ebb-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int error;

    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)size) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        return fd;
    error = errno;
    (void)close(fd);
    errno = error;
    return -1;
}

/* What is wanted for it cannot be had. The protocol knows a region of no bytes, without a file: the
 * front-end goes on without. */
static int answer_none(struct ebb_vhost_user *session, struct ebb__vu_inflight *inflight,
                       uint32_t size, int error)
{
    session->stats.refused++;
    session->stats.refusal = "an inflight region: there are too few descriptors, or no memory";
    session->stats.refusal_error = error;
    inflight->mmap_size = 0;
    return ebb__vu_answer(session, inflight, size, -1);
}

static bool is_want(int error)
{
    return error == -ENOMEM || error == -ENOBUFS || error == -ETOOMANYREFS;
}

int ebb__vu_get_inflight_fd(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    struct ebb__vu_inflight inflight;
    int fd, error = parse(session, payload, size, &inflight);

    if (error < 0)
        return error;
    inflight.mmap_offset = 0;
    inflight.mmap_size = inflight.queues * region_size(inflight.queue_size);
    fd = new_file(inflight.mmap_size);
    if (fd < 0)
        return answer_none(session, &inflight, size, errno);
    error = ebb__vu_try_answer(session, &inflight, size, fd);
    if (is_want(error))
        return answer_none(session, &inflight, size, -error);
    return error < 0 ? ebb__vu_fail(session, -error, "an answer that could not be sent") : 0;
}

/* Set up the region at `at`, or look at it; 1: it was set up before. Negative: refused. */
static int check_region(struct ebb_vhost_user *session, int fd, off_t at, uint16_t queue_size)
{
    struct desc_state states[EBB_RING_SIZE_LIMIT];
    const ssize_t bytes = (ssize_t)(queue_size * sizeof(states[0]));
    struct queue_region region;

    if (pread(fd, &region, sizeof(region), at) != (ssize_t)sizeof(region) ||
        pread(fd, states, (size_t)bytes, at + (off_t)sizeof(region)) != bytes)
        return ebb__vu_refuse(session, EBB_EIO, "an inflight region that cannot be read");
    if (region.version == 0) {
        region = (struct queue_region){.version = REGION_VERSION, .desc_num = queue_size};
        if (pwrite(fd, &region, sizeof(region), at) != (ssize_t)sizeof(region))
            return ebb__vu_refuse(session, EBB_EIO, "an inflight region that cannot be written");
        return 0;
    }
    if (region.version != REGION_VERSION || region.desc_num != queue_size)
        return ebb__vu_refuse(session, EBB_EINVAL, "an inflight region of another kind");
    for (unsigned i = 0; i < queue_size; i++)
        if (states[i].inflight)
            return ebb__vu_refuse(session, EBB_EINVAL,
                                  "an inflight region of a back-end that serves out of order");
    return 1;
}

/* Nobody can make a write to it wait for long: it is small, and stays so. (The lock of a file that
 * is being allocated is held until that is done.) */
static bool small_file(int fd)
{
    const int seals = fcntl(fd, F_GET_SEALS);
    struct stat st;

    return seals >= 0 && (seals & F_SEAL_GROW) && fstat(fd, &st) == 0 && st.st_size <= FILE_LIMIT;
}

int ebb__vu_set_inflight_fd(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    struct ebb__vu_inflight inflight;
    bool resume[EBB_VHOST_USER_QUEUES] = {false};
    uint64_t one;
    int error = parse(session, payload, size, &inflight);

    if (error < 0)
        return error;
    one = region_size(inflight.queue_size);
    if (!small_file(session->fds[0]))
        return ebb__vu_refuse(session, EBB_EINVAL, "an inflight region that is no small memfd");
    if (inflight.mmap_size < inflight.queues * one || inflight.mmap_offset > INT64_MAX / 2)
        return ebb__vu_refuse(session, EBB_EINVAL, "an inflight region that is too small");
    for (unsigned i = 0; i < inflight.queues; i++) {
        error = check_region(session, session->fds[0], (off_t)(inflight.mmap_offset + i * one),
                             inflight.queue_size);
        if (error < 0)
            return error;
        resume[i] = error == 1;
    }
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++)
        session->queues[i].resume = resume[i];
    return 0;
}
