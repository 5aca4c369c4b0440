/* SPDX-License-Identifier: BSD-2-Clause */
/* A vhost-user session: its parts, and what happens besides messages. */
#include "vhost_user_private.h"

#include <errno.h>
#include <stdlib.h>

/* ---- events ---- */

int ebb_vhost_user_kick(struct ebb_vhost_user *session, unsigned i)
{
    int error;

    if (session->ended)
        return -session->error;
    error = ebb__vu_serve_waiting(session); /* before the next batch begins */
    if (error < 0)
        return error;
    error = i < EBB_VHOST_USER_QUEUES ? ebb__vu_queue_kick(session, i) : 0;
    return error < 0 ? error : ebb__vu_settle(session);
}

int ebb_vhost_user_work(struct ebb_vhost_user *session)
{
    bool more;
    int error;

    if (session->ended)
        return -session->error;
    error = ebb__vu_serve_waiting(session); /* before the next batch begins */
    if (error < 0)
        return error;
    error = ebb__vu_queues_work(session);
    if (error < 0)
        return error;
    if (session->config_pending && session->config_retry <= ebb__vu_now(session))
        ebb__vu_config_changed(session);
    more = ebb_balloon_device_work(session->device);
    error = ebb__vu_settle(session);
    return error < 0 ? error : more;
}

uint64_t ebb_vhost_user_due(const struct ebb_vhost_user *session)
{
    uint64_t due, queues;

    if (session->ended)
        return UINT64_MAX;
    due = ebb_balloon_device_due(session->device);
    queues = ebb__vu_queues_due(session);
    if (queues < due)
        due = queues;
    if (session->config_pending && session->config_retry < due)
        due = session->config_retry;
    return due;
}

static void on_config_changed(void *ctx)
{
    ebb__vu_config_changed(ctx);
}

static void on_needs_reset(void *ctx)
{
    ebb__vu_signal_errors(ctx);
}

static void on_wake(void *ctx)
{
    struct ebb_vhost_user *session = ctx;

    session->config.ops->wake(session->config.ctx);
}

static uint64_t on_now(void *ctx)
{
    return ebb__vu_now(ctx);
}

static const struct ebb_balloon_device_ops device_ops = {
    .call = ebb__vu_call,
    .config_changed = on_config_changed,
    .needs_reset = on_needs_reset,
    .wake = on_wake,
    .now = on_now,
};

/* ---- new and free ---- */

static bool config_ok(const struct ebb_vhost_user_config *config)
{
    const struct ebb_vhost_user_ops *ops = config->ops;

    return ops && ops->send && ops->watch && ops->unwatch && ops->wake && !config->device.memory &&
           !config->device.discard && !config->device.ops && !config->device.ctx &&
           config->discard.pool && !config->discard.memory &&
           config->memory_slots <= EBB_MEMORY_REGIONS;
}

static bool new_parts(struct ebb_vhost_user *session)
{
    struct ebb_discard_config discard = session->config.discard;
    struct ebb_balloon_device_config device = session->config.device;

    session->memory = ebb__vu_memory_new();
    session->events = session->config.events ? session->config.events : ebb__vu_events_new();
    if (!session->memory || !session->events)
        return false;
    discard.memory = &session->memory->table;
    session->discard = ebb_discard_new(&discard);
    if (!session->discard)
        return false;
    device.memory = &session->memory->table;
    device.discard = session->discard;
    device.ops = &device_ops;
    device.ctx = session;
    session->device = ebb_balloon_device_new(&device);
    if (session->device)
        session->offered = ebb_balloon_device_features(session->device);
    return session->device;
}

struct ebb_vhost_user *ebb_vhost_user_new(const struct ebb_vhost_user_config *config)
{
    struct ebb_vhost_user *session;

    if (!config_ok(config)) {
        errno = EINVAL;
        return NULL;
    }
    session = calloc(1, sizeof(*session));
    if (!session)
        return NULL;
    session->config = *config;
    session->backend = -1;
    ebb__vu_queues_init(session);
    if (!new_parts(session)) {
        const int error = errno;

        ebb_vhost_user_free(session);
        errno = error;
        return NULL;
    }
    return session;
}

void ebb_vhost_user_free(struct ebb_vhost_user *session)
{
    if (!session)
        return;
    if (session->device)
        ebb_balloon_device_free(session->device);
    if (session->discard)
        ebb_discard_free(session->discard);
    ebb__vu_queues_release(session);
    if (!session->config.events)
        ebb_vhost_user_events_free(session->events);
    ebb__vu_memory_free(session->memory);
    ebb__vu_drop_fds(session);
    if (session->backend >= 0)
        ebb__vu_drop_fd(session, session->backend);
    free(session);
}

/* ---- sight ---- */

const char *ebb_vhost_user_reason(const struct ebb_vhost_user *session, int *error)
{
    if (error)
        *error = session->ended ? session->error : 0;
    return session->ended ? session->reason : NULL;
}

struct ebb_balloon_device *ebb_vhost_user_device(struct ebb_vhost_user *session)
{
    return session->device;
}

struct ebb_discard *ebb_vhost_user_discard(struct ebb_vhost_user *session)
{
    return session->discard;
}

const struct ebb_memory *ebb_vhost_user_memory(const struct ebb_vhost_user *session)
{
    return &session->memory->table;
}

void ebb_vhost_user_get_stats(const struct ebb_vhost_user *session,
                              struct ebb_vhost_user_stats *stats)
{
    *stats = session->stats;
    stats->memory_bytes = session->memory->bytes;
    stats->memory_notes = ebb__vu_memory_note(session->memory);
    stats->features = session->features;
    stats->protocol = session->protocol;
    stats->running = stats->enabled = 0;
    for (unsigned i = 0; i < EBB_VHOST_USER_QUEUES; i++) {
        stats->running |= (uint32_t)session->queues[i].running << i;
        stats->enabled |= (uint32_t)session->queues[i].enabled << i;
    }
}
