/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Queues of a vhost-user session. A queue starts when its kick is set, and stops when its base is
 * asked for; the device serves it in between. Front-ends name rings by their own addresses.
 */
#include "vhost_user_private.h"

#include <string.h>
#include <unistd.h>

void ebb__vu_queues_init(struct ebb_vhost_user *session)
{
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++)
        session->queues[i].kick = session->queues[i].call = session->queues[i].err = -1;
}

static void close_event(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

static void drop_kick(struct ebb_vhost_user *session, unsigned i)
{
    struct ebb__vu_queue *queue = &session->queues[i];

    if (queue->kick >= 0 && queue->look == 0)
        session->config.ops->unwatch(session->config.ctx, i, queue->kick);
    close_event(&queue->kick);
    queue->look = 0;
    queue->empty = 0;
}

/* The device has gone, or lets go of the rings. */
void ebb__vu_queues_release(struct ebb_vhost_user *session)
{
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++) {
        drop_kick(session, i);
        close_event(&session->queues[i].call);
        close_event(&session->queues[i].err);
    }
}

/* ---- start and stop ---- */

/* A queue that is not enabled yet will be, most likely. What is there would go back without effect
 * before that; it waits, but not for ever. */
static void hold(const struct ebb_vhost_user *session, struct ebb__vu_queue *queue)
{
    queue->kicked = false;
    queue->held = 0;
    if (!queue->enabled)
        queue->held = ebb__vu_now(session) + (uint64_t)EBB_VHOST_USER_HOLD_MS * 1000000;
}

/* Where the used ring stands. Where it cannot be read the queue does not start. */
static uint16_t used_index(struct ebb_vhost_user *session, const struct ebb__vu_queue *queue)
{
    const uint16_t *used =
        ebb_memory_by_user(&session->memory->table, queue->addr.used, 2 * sizeof(*used));

    if (!used || (uintptr_t)used % sizeof(*used) != 0)
        return queue->base;
    return __atomic_load_n(&used[1], __ATOMIC_ACQUIRE);
}

static int start(struct ebb_vhost_user *session, unsigned i)
{
    struct ebb__vu_queue *queue = &session->queues[i];
    const struct ebb_balloon_device_vring vring = {
        .size = queue->size,
        .desc = queue->addr.desc,
        .avail = queue->addr.avail,
        .used = queue->addr.used,
        /* A queue that was cut off goes on where its used ring stands. */
        .start = queue->resume ? used_index(session, queue) : queue->base,
        .translate = ebb_memory_by_user,
        .translate_ctx = &session->memory->table,
    };
    const int error = ebb_balloon_device_start(session->device, i, &vring);

    queue->suspended = error < 0;
    if (error < 0)
        return error;
    queue->running = true;
    ebb_balloon_device_enable(session->device, i, queue->enabled);
    return 0;
}

static void stop(struct ebb_vhost_user *session, unsigned i)
{
    struct ebb__vu_queue *queue = &session->queues[i];
    const int next = queue->running ? ebb_balloon_device_stop(session->device, i) : -1;

    if (next >= 0)
        queue->base = (uint16_t)next;
    queue->running = queue->suspended = queue->kicked = false;
}

static void kicked(struct ebb_vhost_user *session, unsigned i)
{
    struct ebb__vu_queue *queue = &session->queues[i];

    if (!queue->running)
        return; /* what is there is served when it starts */
    queue->kicked = queue->held != 0;
    if (!queue->kicked)
        ebb_balloon_device_kick(session->device, i);
}

void ebb__vu_queues_suspend(struct ebb_vhost_user *session)
{
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++) {
        const bool was = session->queues[i].running || session->queues[i].suspended;

        stop(session, i);
        session->queues[i].suspended = was;
    }
}

/* Kicks that came in between are lost on a queue that was not there: look at once. */
void ebb__vu_queues_resume(struct ebb_vhost_user *session)
{
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++) {
        if (!session->queues[i].suspended)
            continue;
        if (start(session, i) == 0)
            kicked(session, i);
        else if (session->queues[i].err >= 0)
            (void)!ebb__vu_event_signal(session, session->queues[i].err);
    }
}

/* What was gathered are parts of pages that one guest gave; a page that another one fills up would
 * be discarded whole. */
void ebb__vu_forget(struct ebb_vhost_user *session)
{
    ebb_balloon_device_quiesce(session->device);
    (void)!ebb_discard_forget(session->discard);
}

/* ---- kicks and calls ---- */

/*
 * A kick can be readable for ever: a semaphore that counts to 2^64, or a front-end that writes
 * without pause. So kicks that bring nothing are waited for a few times in a row only; then the
 * queue is looked at by time, until the kick is quiet, or there is work again.
 */
#define EMPTY_KICKS 16u
#define LOOK_NS     ((uint64_t)EBB_VHOST_USER_LOOK_MS * 1000000)

/* Read the kick, and look at the queue. *idle: there was nothing in it since the last time.
 * 1: it was readable; 0: it was not; negative: the session has ended. */
static int take_kick(struct ebb_vhost_user *session, unsigned i, bool *idle)
{
    struct ebb__vu_queue *queue = &session->queues[i];
    const int readable = ebb__vu_event_clear(queue->kick);
    uint16_t taken;

    if (readable < 0)
        return ebb__vu_fail(session, -readable, "a kick that is no eventfd");
    kicked(session, i);
    taken = ebb_balloon_device_index(session->device, i);
    *idle = taken == queue->taken;
    queue->taken = taken;
    return readable;
}

int ebb__vu_queue_kick(struct ebb_vhost_user *session, unsigned i)
{
    struct ebb__vu_queue *queue = &session->queues[i];
    bool idle = false;

    if (queue->kick < 0 || queue->look != 0)
        return 0; /* taken back since, or not waited for */
    if (take_kick(session, i, &idle) < 0)
        return -session->error;
    queue->empty = idle ? queue->empty + 1 : 0;
    if (queue->empty < EMPTY_KICKS)
        return 0;
    session->config.ops->unwatch(session->config.ctx, i, queue->kick);
    queue->look = ebb__vu_now(session) + LOOK_NS;
    return 0;
}

/* Wait for its kick again, if that makes sense and can be. */
static int look_at(struct ebb_vhost_user *session, unsigned i)
{
    struct ebb__vu_queue *queue = &session->queues[i];
    bool idle = false;
    const int readable = take_kick(session, i, &idle);

    if (readable < 0)
        return readable;
    queue->look = ebb__vu_now(session) + LOOK_NS;
    if (readable > 0 && idle)
        return 0;
    if (session->config.ops->watch(session->config.ctx, i, queue->kick) < 0)
        return 0;
    queue->look = 0;
    queue->empty = 0;
    return 0;
}

static void release_held(struct ebb_vhost_user *session, unsigned i)
{
    struct ebb__vu_queue *queue = &session->queues[i];

    queue->held = 0;
    if (queue->kicked && queue->running)
        ebb_balloon_device_kick(session->device, i);
    queue->kicked = false;
}

int ebb__vu_queues_work(struct ebb_vhost_user *session)
{
    int error = 0;

    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES && error == 0; i++) {
        const struct ebb__vu_queue *queue = &session->queues[i];

        if (queue->held != 0 && queue->held <= ebb__vu_now(session))
            release_held(session, i);
        if (queue->look != 0 && queue->look <= ebb__vu_now(session))
            error = look_at(session, i);
    }
    return error;
}

uint64_t ebb__vu_queues_due(const struct ebb_vhost_user *session)
{
    uint64_t due = UINT64_MAX;

    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++) {
        const struct ebb__vu_queue *queue = &session->queues[i];

        if (queue->held != 0 && queue->held < due)
            due = queue->held;
        if (queue->look != 0 && queue->look < due)
            due = queue->look;
    }
    return due;
}

static void signal_queue(struct ebb_vhost_user *session, int fd)
{
    const int error = fd >= 0 ? ebb__vu_event_signal(session, fd) : 0;

    if (error < 0)
        (void)!ebb__vu_fail(session, -error, "a call or error descriptor that is no eventfd");
}

void ebb__vu_call(void *ctx, unsigned i)
{
    struct ebb_vhost_user *session = ctx;

    session->stats.calls++;
    signal_queue(session, session->queues[i].call);
}

void ebb__vu_signal_errors(struct ebb_vhost_user *session)
{
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++)
        signal_queue(session, session->queues[i].err);
}

/* ---- another driver ---- */

static bool any_running(const struct ebb_vhost_user *session)
{
    bool running = false;

    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++)
        running |= session->queues[i].running;
    return running;
}

/* Nobody says that the guest was started anew; but its driver then begins with new rings, none of
 * which was used. While there is one that was, it is the driver of before that goes on. */
static void note_start(struct ebb_vhost_user *session, unsigned i, bool first)
{
    const struct ebb__vu_queue *queue = &session->queues[i];

    session->anew = (first || session->anew) && used_index(session, queue) == 0 &&
                    ebb_balloon_device_index(session->device, i) == 0;
}

/* The queues are started, and it did nothing by them yet. */
static void meet_driver(struct ebb_vhost_user *session)
{
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++)
        session->anew = session->anew && ebb_balloon_device_index(session->device, i) == 0;
    if (session->anew && any_running(session))
        ebb_balloon_device_begin(session->device);
    session->anew = false;
}

/* ---- messages ---- */

static struct ebb__vu_queue *queue_of(struct ebb_vhost_user *session, uint32_t index)
{
    if (index < EBB_VHOST_USER_QUEUES)
        return &session->queues[index];
    (void)!ebb__vu_refuse(session, EBB_EINVAL, "a queue that the device does not have");
    return NULL;
}

int ebb__vu_set_vring_num(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    struct ebb__vu_queue *queue;
    struct ebb__vu_state state;

    (void)size;
    memcpy(&state, payload, sizeof(state));
    queue = queue_of(session, state.index);
    if (!queue)
        return -EBB_EINVAL;
    if (state.num == 0 || state.num > EBB_RING_SIZE_LIMIT || (state.num & (state.num - 1)) != 0)
        return ebb__vu_refuse(session, EBB_EINVAL, "a ring of an impossible size");
    if (queue->running && queue->size != state.num)
        return ebb__vu_refuse(session, EBB_EBUSY, "the size of a ring that is in use");
    queue->size = state.num;
    return 0;
}

/* Of a running queue too: it goes on there. */
int ebb__vu_set_vring_addr(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    struct ebb__vu_queue *queue;
    struct ebb__vu_addr addr, before;

    (void)size;
    memcpy(&addr, payload, sizeof(addr));
    queue = queue_of(session, addr.index);
    if (!queue)
        return -EBB_EINVAL;
    before = queue->addr;
    queue->addr = addr;
    queue->addressed = true;
    if (!queue->running ||
        (addr.desc == before.desc && addr.used == before.used && addr.avail == before.avail))
        return 0;
    stop(session, addr.index);
    if (start(session, addr.index) == 0) {
        kicked(session, addr.index);
        return 0;
    }
    queue->addr = before;
    if (start(session, addr.index) == 0)
        kicked(session, addr.index);
    return ebb__vu_refuse(session, EBB_EINVAL, "a ring that is not in guest memory");
}

int ebb__vu_set_vring_base(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    struct ebb__vu_queue *queue;
    struct ebb__vu_state state;

    (void)size;
    memcpy(&state, payload, sizeof(state));
    queue = queue_of(session, state.index);
    if (!queue)
        return -EBB_EINVAL;
    if (state.num > UINT16_MAX)
        return ebb__vu_refuse(session, EBB_EINVAL, "an index beyond 16 bits");
    if (queue->running)
        return ebb__vu_refuse(session, EBB_EBUSY, "the index of a ring that is in use");
    queue->base = (uint16_t)state.num;
    return 0;
}

/* Also the sign that a guest's driver may have gone. */
int ebb__vu_get_vring_base(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    struct ebb__vu_state state;

    (void)size;
    memcpy(&state, payload, sizeof(state));
    if (!queue_of(session, state.index))
        return -EBB_EINVAL;
    stop(session, state.index);
    ebb__vu_forget(session);
    if (!any_running(session)) /* as after a reset, which nobody tells of otherwise */
        ebb_balloon_device_forgive(session->device);
    drop_kick(session, state.index);
    session->queues[state.index].held = 0;
    state.num = session->queues[state.index].base;
    return ebb__vu_answer(session, &state, sizeof(state), -1);
}

/*
 * The queue and descriptor of a KICK, CALL or ERR message; *fd is -1 if it brings none, else the
 * caller's. NULL: refused, or malformed.
 */
static struct ebb__vu_queue *event_of(struct ebb_vhost_user *session, const void *payload,
                                      unsigned *index, int *fd)
{
    struct ebb__vu_queue *queue;
    uint64_t value;
    unsigned fds;

    memcpy(&value, payload, sizeof(value));
    *index = (unsigned)(value & EBB__VU_INDEX_MASK);
    *fd = -1;
    fds = value & EBB__VU_NO_FD ? 0 : 1;
    if (session->n_fds != fds) {
        (void)!ebb__vu_wrong_fds(session);
        return NULL;
    }
    queue = queue_of(session, *index);
    if (!queue || fds == 0)
        return queue;
    if (!ebb__vu_is_event(session->fds[0])) {
        (void)!ebb__vu_refuse(session, EBB_EINVAL, "a kick, call or error that is no eventfd");
        return NULL;
    }
    *fd = ebb__vu_take_fd(session, 0);
    return queue;
}

/* Set a queue going, or (it runs) have it kicked by another descriptor. */
static int start_kicked(struct ebb_vhost_user *session, unsigned i, int fd)
{
    struct ebb__vu_queue *queue = &session->queues[i];
    const bool first = !any_running(session);
    int error;

    error = session->config.ops->watch(session->config.ctx, i, fd);
    if (error < 0) {
        (void)close(fd);
        return ebb__vu_refuse(session, -error, "a kick that cannot be waited for");
    }
    queue->kick = fd;
    if (queue->running) {
        kicked(session, i);
        return 0;
    }
    if (queue->size == 0 || !queue->addressed || start(session, i) < 0) {
        queue->suspended = false;
        drop_kick(session, i);
        return ebb__vu_refuse(session, EBB_EINVAL, "a ring that is not in guest memory");
    }
    hold(session, queue);
    note_start(session, i, first);
    if (queue->enabled)
        meet_driver(session);
    return 0;
}

int ebb__vu_set_vring_kick(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    unsigned i;
    int fd;

    (void)size;
    if (!event_of(session, payload, &i, &fd))
        return -EBB_EINVAL;
    if (fd < 0)
        return ebb__vu_refuse(session, EBB_EOPNOTSUPP, "a queue without a kick");
    drop_kick(session, i);
    return start_kicked(session, i, fd);
}

/* What had to be said before this descriptor came may not have been heard. */
int ebb__vu_set_vring_call(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    struct ebb__vu_queue *queue;
    unsigned i;
    int fd;

    (void)size;
    queue = event_of(session, payload, &i, &fd);
    if (!queue)
        return -EBB_EINVAL;
    close_event(&queue->call);
    queue->call = fd;
    if (queue->running)
        signal_queue(session, fd);
    return 0;
}

int ebb__vu_set_vring_err(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    struct ebb__vu_queue *queue;
    unsigned i;
    int fd;

    (void)size;
    queue = event_of(session, payload, &i, &fd);
    if (!queue)
        return -EBB_EINVAL;
    close_event(&queue->err);
    queue->err = fd;
    return 0;
}

static void enable(struct ebb_vhost_user *session, unsigned i, bool on)
{
    session->queues[i].enabled = on;
    if (!session->queues[i].running)
        return;
    if (on)
        meet_driver(session);
    ebb_balloon_device_enable(session->device, i, on);
    if (on)
        release_held(session, i);
}

void ebb__vu_enable_all(struct ebb_vhost_user *session, bool on)
{
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++)
        enable(session, i, on);
}

/* Of queues that were never set up, too: QEMU enables as many as it was told that there are. */
int ebb__vu_set_vring_enable(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    struct ebb__vu_state state;

    (void)size;
    memcpy(&state, payload, sizeof(state));
    if (!queue_of(session, state.index))
        return -EBB_EINVAL;
    if (state.num > 1)
        return ebb__vu_refuse(session, EBB_EINVAL, "neither enable nor disable");
    enable(session, state.index, state.num == 1);
    return 0;
}

/* All but memory, the negotiated protocol, and descriptors to call by. */
int ebb__vu_reset_device(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    (void)payload;
    (void)size;
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++) {
        struct ebb__vu_queue *queue = &session->queues[i];

        stop(session, i);
        drop_kick(session, i);
        *queue = (struct ebb__vu_queue){.kick = -1, .call = queue->call, .err = queue->err};
    }
    ebb__vu_forget(session);
    ebb_balloon_device_reset(session->device);
    session->features = 0;
    session->negotiated = false;
    return 0;
}
