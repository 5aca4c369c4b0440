/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vhost-user session: messages are put together, checked against a table of what each may be,
 * and answered. What they ask for is done in the files next to this one.
 */
#include "vhost_user_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CONFIG_RETRY_NS ((uint64_t)100 * 1000000)

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

static void drop_fd(struct ebb_vhost_user *session, int fd)
{
    if (session->config.ops->drop)
        session->config.ops->drop(session->config.ctx, fd);
    else
        (void)close(fd);
}

static void drop_fds(struct ebb_vhost_user *session)
{
    for (unsigned i = 0; i < session->n_fds; i++)
        if (session->fds[i] >= 0)
            drop_fd(session, session->fds[i]);
    session->n_fds = 0;
}

int ebb__vu_take_fd(struct ebb_vhost_user *session, unsigned i)
{
    const int fd = session->fds[i];

    session->fds[i] = -1;
    return fd;
}

static int keep_fds(struct ebb_vhost_user *session, const int *fds, unsigned n)
{
    unsigned i = 0;

    for (; i < n && session->n_fds < EBB_VHOST_USER_FDS && !session->ended; i++)
        session->fds[session->n_fds++] = fds[i];
    if (i == n)
        return 0;
    for (; i < n; i++)
        drop_fd(session, fds[i]);
    return ebb__vu_fail(session, EBB_EPROTO, "descriptors missing, or too many");
}

/* ---- answers ---- */

int ebb__vu_answer(struct ebb_vhost_user *session, const void *payload, uint32_t size, int fd)
{
    const struct ebb__vu_header header = {session->header.request, EBB__VU_VERSION | EBB__VU_REPLY,
                                          size};
    unsigned char out[EBB_VHOST_USER_MESSAGE];
    int error;

    memcpy(out, &header, sizeof(header));
    memcpy(out + sizeof(header), payload, size);
    error = session->config.ops->send(session->config.ctx, out, sizeof(header) + size, fd);
    if (error < 0)
        return ebb__vu_fail(session, -error, "an answer that could not be sent");
    return 0;
}

int ebb__vu_answer_u64(struct ebb_vhost_user *session, uint64_t value)
{
    return ebb__vu_answer(session, &value, sizeof(value), -1);
}

/* ---- features ---- */

static int get_features(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    (void)payload;
    (void)size;
    return ebb__vu_answer_u64(session, session->offered | EBB__VU_F_PROTOCOL);
}

/* The same again is what front-ends send when a VM goes on; a queue may run then. */
static int set_features(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    uint64_t value, features;

    (void)size;
    memcpy(&value, payload, sizeof(value));
    features = value & ~EBB__VU_F_PROTOCOL;
    if (features & ~session->offered)
        return ebb__vu_refuse(session, EBB_EINVAL, "features that were not offered");
    if (!session->negotiated || features != session->features) {
        const int error = ebb_balloon_device_accept(session->device, features);

        if (error < 0)
            return ebb__vu_refuse(session, -error, "features that cannot be accepted now");
    }
    session->features = features;
    session->negotiated = true;
    if (!(value & EBB__VU_F_PROTOCOL))
        ebb__vu_enable_all(session, true);
    return 0;
}

static uint64_t protocol_offered(const struct ebb_vhost_user *session)
{
    const uint64_t always = EBB__VU_P_MQ | EBB__VU_P_REPLY_ACK | EBB__VU_P_CONFIG |
                            EBB__VU_P_INFLIGHT_SHMFD | EBB__VU_P_RESET_DEVICE | EBB__VU_P_MEM_SLOTS;

    return session->config.ops->send_backend ? always | EBB__VU_P_BACKEND_REQ : always;
}

static int get_protocol_features(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    (void)payload;
    (void)size;
    return ebb__vu_answer_u64(session, protocol_offered(session));
}

static int set_protocol_features(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    uint64_t value;

    (void)size;
    memcpy(&value, payload, sizeof(value));
    if (value & ~protocol_offered(session))
        return ebb__vu_refuse(session, EBB_EINVAL, "protocol features that were not offered");
    session->protocol = value;
    return 0;
}

static int get_queue_num(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    (void)payload;
    (void)size;
    return ebb__vu_answer_u64(session, EBB_VHOST_USER_QUEUES);
}

/* There is one front-end to a session, and it owns it from the start. */
static int set_owner(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    (void)session;
    (void)payload;
    (void)size;
    return 0;
}

/* Out of use; what the specification still says that it may do. */
static int reset_owner(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    (void)payload;
    (void)size;
    ebb__vu_enable_all(session, false);
    return 0;
}

/* ---- configuration space ---- */

static int parse_config(struct ebb_vhost_user *session, const void *payload, uint32_t size,
                        struct ebb__vu_config *config)
{
    memcpy(config, payload, sizeof(*config));
    if (config->size > EBB__VU_CONFIG_BYTES || size != sizeof(*config) + config->size)
        return ebb__vu_fail(session, EBB_EPROTO, "a message of the wrong size");
    return 0;
}

static int get_config(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    unsigned char out[sizeof(struct ebb__vu_config) + EBB__VU_CONFIG_BYTES];
    struct ebb__vu_config config;
    const int error = parse_config(session, payload, size, &config);

    if (error < 0)
        return error;
    memcpy(out, &config, sizeof(config));
    ebb_balloon_device_config_read(session->device, config.offset, out + sizeof(config),
                                   config.size);
    return ebb__vu_answer(session, out, size, -1);
}

/* The device takes what is the driver's of it; flags say nothing that matters here, as there are no
 * migrations that carry the rest. */
static int set_config(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    struct ebb__vu_config config;
    const int error = parse_config(session, payload, size, &config);

    if (error < 0)
        return error;
    if (config.flags > 1)
        return ebb__vu_refuse(session, EBB_EINVAL, "a configuration write of an unknown kind");
    ebb_balloon_device_config_write(session->device, config.offset,
                                    (const char *)payload + sizeof(config), config.size);
    return 0;
}

/* ---- what the back-end asks for ---- */

/* Without asking for an answer: GET_CONFIG, which follows it, is served by this very thread. */
static void tell_config_changed(struct ebb_vhost_user *session)
{
    const struct ebb__vu_header header = {EBB__VU_BACKEND_CONFIG_CHANGE, EBB__VU_VERSION, 0};
    int error;

    session->config_pending = false;
    if (session->backend < 0)
        return;
    error = session->config.ops->send_backend(session->config.ctx, session->backend, &header,
                                              sizeof(header));
    if (error == -EBB_EAGAIN) {
        session->config_pending = true;
        session->config_retry = ebb__vu_now(session) + CONFIG_RETRY_NS;
    } else if (error < 0) {
        drop_fd(session, session->backend);
        session->backend = -1;
    } else {
        session->stats.config_changes++;
    }
}

static int set_backend_req_fd(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    (void)payload;
    (void)size;
    if (!ebb__vu_is_socket(session->fds[0]))
        return ebb__vu_refuse(session, EBB_EINVAL, "a channel for requests that is no socket");
    if (session->backend >= 0)
        drop_fd(session, session->backend);
    session->backend = ebb__vu_take_fd(session, 0);
    return 0;
}

/* ---- messages ---- */

typedef int (*handler)(struct ebb_vhost_user *session, const void *payload, uint32_t size);

struct request {
    uint8_t number; /* enum ebb__vu_request */
    uint8_t min_fds, max_fds;
    uint8_t kind;      /* SILENT, or of ANSWERS and STOPS */
    uint16_t min, max; /* bytes of payload */
    uint64_t protocol; /* that has to be offered */
    handler serve;
};

#define STATE_SIZE  sizeof(struct ebb__vu_state)
#define ADDR_SIZE   sizeof(struct ebb__vu_addr)
#define REGION_SIZE (8 + sizeof(struct ebb__vu_region))
#define CONFIG_SIZE sizeof(struct ebb__vu_config)

#define SILENT  0u
#define ANSWERS 1u /* by itself, whether or not an answer is asked for */
#define STOPS   2u /* queues, or takes memory away: a batch under way has to end before */

/* clang-format off */
static const struct request requests[] = {
    {EBB__VU_GET_FEATURES,          0, 0, ANSWERS, 0, 0, 0, get_features},
    {EBB__VU_SET_FEATURES,          0, 0, SILENT,  8, 8, 0, set_features},
    {EBB__VU_SET_OWNER,             0, 0, SILENT,  0, 0, 0, set_owner},
    {EBB__VU_RESET_OWNER,           0, 0, SILENT,  0, 0, 0, reset_owner},
    {EBB__VU_SET_MEM_TABLE,         0, EBB_VHOST_USER_FDS, STOPS,   8,
     8 + EBB__VU_REGIONS * sizeof(struct ebb__vu_region), 0, ebb__vu_set_mem_table},
    {EBB__VU_SET_VRING_NUM,         0, 0, SILENT,  STATE_SIZE, STATE_SIZE, 0, ebb__vu_set_vring_num},
    {EBB__VU_SET_VRING_ADDR,        0, 0, STOPS,   ADDR_SIZE, ADDR_SIZE, 0, ebb__vu_set_vring_addr},
    {EBB__VU_SET_VRING_BASE,        0, 0, SILENT,  STATE_SIZE, STATE_SIZE, 0, ebb__vu_set_vring_base},
    {EBB__VU_GET_VRING_BASE,        0, 0, ANSWERS | STOPS, STATE_SIZE, STATE_SIZE, 0, ebb__vu_get_vring_base},
    {EBB__VU_SET_VRING_KICK,        0, 1, SILENT,  8, 8, 0, ebb__vu_set_vring_kick},
    {EBB__VU_SET_VRING_CALL,        0, 1, SILENT,  8, 8, 0, ebb__vu_set_vring_call},
    {EBB__VU_SET_VRING_ERR,         0, 1, SILENT,  8, 8, 0, ebb__vu_set_vring_err},
    {EBB__VU_GET_PROTOCOL_FEATURES, 0, 0, ANSWERS, 0, 0, 0, get_protocol_features},
    {EBB__VU_SET_PROTOCOL_FEATURES, 0, 0, SILENT,  8, 8, 0, set_protocol_features},
    {EBB__VU_GET_QUEUE_NUM,         0, 0, ANSWERS, 0, 0, EBB__VU_P_MQ, get_queue_num},
    {EBB__VU_SET_VRING_ENABLE,      0, 0, SILENT,  STATE_SIZE, STATE_SIZE, 0, ebb__vu_set_vring_enable},
    {EBB__VU_SET_BACKEND_REQ_FD,    1, 1, SILENT,  0, 0, EBB__VU_P_BACKEND_REQ, set_backend_req_fd},
    {EBB__VU_GET_CONFIG,            0, 0, ANSWERS, CONFIG_SIZE, CONFIG_SIZE + EBB__VU_CONFIG_BYTES,
     EBB__VU_P_CONFIG, get_config},
    {EBB__VU_SET_CONFIG,            0, 0, SILENT,  CONFIG_SIZE, CONFIG_SIZE + EBB__VU_CONFIG_BYTES,
     EBB__VU_P_CONFIG, set_config},
    {EBB__VU_GET_INFLIGHT_FD,       0, 0, ANSWERS, EBB__VU_INFLIGHT_PACKED,
     sizeof(struct ebb__vu_inflight), EBB__VU_P_INFLIGHT_SHMFD, ebb__vu_get_inflight_fd},
    {EBB__VU_SET_INFLIGHT_FD,       1, 1, SILENT,  EBB__VU_INFLIGHT_PACKED,
     sizeof(struct ebb__vu_inflight), EBB__VU_P_INFLIGHT_SHMFD, ebb__vu_set_inflight_fd},
    {EBB__VU_RESET_DEVICE,          0, 0, STOPS,   0, 0, EBB__VU_P_RESET_DEVICE, ebb__vu_reset_device},
    {EBB__VU_GET_MAX_MEM_SLOTS,     0, 0, ANSWERS, 0, 0, EBB__VU_P_MEM_SLOTS,
     ebb__vu_get_max_mem_slots},
    {EBB__VU_ADD_MEM_REG,           1, 1, SILENT,  REGION_SIZE, REGION_SIZE, EBB__VU_P_MEM_SLOTS,
     ebb__vu_add_mem_reg},
    {EBB__VU_REM_MEM_REG,           0, 1, STOPS,   REGION_SIZE, REGION_SIZE, EBB__VU_P_MEM_SLOTS,
     ebb__vu_rem_mem_reg},
};
/* clang-format on */
_Static_assert(8 + EBB__VU_REGIONS * sizeof(struct ebb__vu_region) +
                           sizeof(struct ebb__vu_header) <=
                       EBB_VHOST_USER_MESSAGE &&
                   CONFIG_SIZE + EBB__VU_CONFIG_BYTES + sizeof(struct ebb__vu_header) <=
                       EBB_VHOST_USER_MESSAGE,
               "the largest messages fit");

static const struct request *find_request(const struct ebb_vhost_user *session, uint32_t number)
{
    for (unsigned i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
        if (requests[i].number == number &&
            (requests[i].protocol & ~protocol_offered(session)) == 0)
            return &requests[i];
    return NULL;
}

/* The header has come in whole: is it worth waiting for the rest? */
static int check_header(struct ebb_vhost_user *session)
{
    const struct ebb__vu_header *header = &session->header;
    const struct request *request;

    memcpy(&session->header, session->in, sizeof(session->header));
    session->stats.last_request = header->request;
    if ((header->flags & EBB__VU_VERSION_MASK) != EBB__VU_VERSION ||
        (header->flags & ~(EBB__VU_VERSION_MASK | EBB__VU_NEED_REPLY)) != 0)
        return ebb__vu_fail(session, EBB_EPROTO, "a header that is none");
    request = find_request(session, header->request);
    if (!request)
        return ebb__vu_fail(session, EBB_EPROTO, "an unknown request");
    if (header->size < request->min || header->size > request->max)
        return ebb__vu_fail(session, EBB_EPROTO, "a message of the wrong size");
    return 0;
}

/* A handler did not grant it. The front-end hears that, if it listens. */
static int refused(struct ebb_vhost_user *session, bool asked)
{
    session->refused = false;
    if (session->ended)
        return -session->error;
    if (!asked)
        return ebb__vu_fail(session, session->error, session->reason);
    session->reason = NULL;
    session->error = 0;
    session->stats.refused++;
    return ebb__vu_answer_u64(session, 1);
}

static int serve(struct ebb_vhost_user *session)
{
    const struct request *request = find_request(session, session->header.request);
    const uint32_t size = session->header.size;
    bool asked;
    int error;

    if (session->n_fds < request->min_fds || session->n_fds > request->max_fds)
        return ebb__vu_fail(session, EBB_EPROTO, "descriptors missing, or too many");
    session->stats.messages++;
    error = request->serve(session, session->in + sizeof(struct ebb__vu_header), size);
    /* What SET_PROTOCOL_FEATURES itself negotiated counts. */
    asked = !(request->kind & ANSWERS) && (session->header.flags & EBB__VU_NEED_REPLY) &&
            (session->protocol & EBB__VU_P_REPLY_ACK);
    if (error < 0)
        return refused(session, asked);
    error = ebb__vu_settle(session);
    if (error == 0 && asked)
        error = ebb__vu_answer_u64(session, 0);
    return error;
}

size_t ebb_vhost_user_wants(const struct ebb_vhost_user *session)
{
    const size_t header = sizeof(session->header);

    if (session->waiting)
        return 0;
    if (session->have < header)
        return header - session->have;
    return header + session->header.size - session->have;
}

static int serve_and_forget(struct ebb_vhost_user *session)
{
    const int error = serve(session);

    session->waiting = false;
    drop_fds(session);
    session->have = 0;
    return error;
}

int ebb__vu_serve_waiting(struct ebb_vhost_user *session)
{
    if (!session->waiting || !ebb_balloon_device_hurry(session->device))
        return 0;
    return serve_and_forget(session);
}

/* A part of a message is there that may complete it. */
static int progress(struct ebb_vhost_user *session)
{
    int error = 0;

    if (session->have == sizeof(session->header))
        error = check_header(session);
    if (error < 0 || session->have < sizeof(session->header) || ebb_vhost_user_wants(session) > 0)
        return error;
    /* Whoever keeps a batch from its end keeps this session from going on, and no other. */
    session->waiting = (find_request(session, session->header.request)->kind & STOPS) &&
                       !ebb_balloon_device_hurry(session->device);
    return session->waiting ? 0 : serve_and_forget(session);
}

int ebb_vhost_user_receive(struct ebb_vhost_user *session, const void *bytes, size_t len,
                           const int *fds, unsigned n_fds)
{
    const unsigned char *from = bytes;
    int error;

    if (session->waiting && !session->ended)
        (void)!serve_and_forget(session); /* nobody was to call; there is no place for two */
    error = keep_fds(session, fds, n_fds);
    if (session->ended)
        return -session->error;
    while (len > 0 && error == 0) {
        size_t wants, n;

        if (session->waiting) {
            error = serve_and_forget(session);
            continue;
        }
        wants = ebb_vhost_user_wants(session);
        n = len < wants ? len : wants;
        memcpy(session->in + session->have, from, n);
        session->have += n;
        from += n;
        len -= n;
        error = progress(session);
    }
    return error;
}

int ebb_vhost_user_eof(struct ebb_vhost_user *session)
{
    if (session->ended)
        return -session->error;
    if (session->have > 0 || session->n_fds > 0)
        return ebb__vu_fail(session, EBB_EPROTO, "the end, in the middle of a message");
    session->ended = true;
    session->error = EBB_ECANCELED;
    session->reason = "the front-end left";
    return 0;
}

/* ---- events ---- */

uint64_t ebb__vu_now(const struct ebb_vhost_user *session)
{
    const struct ebb_discard_ops *ops = session->config.discard.ops;
    struct timespec now;

    if (ops)
        return ops->now(ops->ctx);
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
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
    ebb__vu_queues_release_held(session);
    if (session->config_pending && session->config_retry <= ebb__vu_now(session))
        tell_config_changed(session);
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
    tell_config_changed(ctx);
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
    drop_fds(session);
    if (session->backend >= 0)
        drop_fd(session, session->backend);
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
