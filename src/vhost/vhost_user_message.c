/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages: they are put together, checked against a table of what each may be, and handed to those
 * who do what they ask for.
 */
#include "vhost_user_private.h"

#include <string.h>

/* ---- which there are ---- */

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
    {EBB__VU_GET_FEATURES,          0, 0, ANSWERS, 0, 0, 0, ebb__vu_get_features},
    {EBB__VU_SET_FEATURES,          0, 0, SILENT,  8, 8, 0, ebb__vu_set_features},
    {EBB__VU_SET_OWNER,             0, 0, SILENT,  0, 0, 0, ebb__vu_set_owner},
    {EBB__VU_RESET_OWNER,           0, 0, SILENT,  0, 0, 0, ebb__vu_reset_owner},
    {EBB__VU_SET_MEM_TABLE,         0, EBB_VHOST_USER_FDS, STOPS,   8,
     8 + EBB__VU_REGIONS * sizeof(struct ebb__vu_region), 0, ebb__vu_set_mem_table},
    {EBB__VU_SET_VRING_NUM,         0, 0, SILENT,  STATE_SIZE, STATE_SIZE, 0, ebb__vu_set_vring_num},
    {EBB__VU_SET_VRING_ADDR,        0, 0, STOPS,   ADDR_SIZE, ADDR_SIZE, 0, ebb__vu_set_vring_addr},
    {EBB__VU_SET_VRING_BASE,        0, 0, SILENT,  STATE_SIZE, STATE_SIZE, 0, ebb__vu_set_vring_base},
    {EBB__VU_GET_VRING_BASE,        0, 0, ANSWERS | STOPS, STATE_SIZE, STATE_SIZE, 0, ebb__vu_get_vring_base},
    {EBB__VU_SET_VRING_KICK,        0, 1, SILENT,  8, 8, 0, ebb__vu_set_vring_kick},
    {EBB__VU_SET_VRING_CALL,        0, 1, SILENT,  8, 8, 0, ebb__vu_set_vring_call},
    {EBB__VU_SET_VRING_ERR,         0, 1, SILENT,  8, 8, 0, ebb__vu_set_vring_err},
    {EBB__VU_GET_PROTOCOL_FEATURES, 0, 0, ANSWERS, 0, 0, 0, ebb__vu_get_protocol_features},
    {EBB__VU_SET_PROTOCOL_FEATURES, 0, 0, SILENT,  8, 8, 0, ebb__vu_set_protocol_features},
    {EBB__VU_GET_QUEUE_NUM,         0, 0, ANSWERS, 0, 0, EBB__VU_P_MQ, ebb__vu_get_queue_num},
    {EBB__VU_SET_VRING_ENABLE,      0, 0, SILENT,  STATE_SIZE, STATE_SIZE, 0, ebb__vu_set_vring_enable},
    {EBB__VU_SET_BACKEND_REQ_FD,    1, 1, SILENT,  0, 0, EBB__VU_P_BACKEND_REQ, ebb__vu_set_backend_req_fd},
    {EBB__VU_GET_CONFIG,            0, 0, ANSWERS, CONFIG_SIZE, CONFIG_SIZE + EBB__VU_CONFIG_BYTES,
     EBB__VU_P_CONFIG, ebb__vu_get_config},
    {EBB__VU_SET_CONFIG,            0, 0, SILENT,  CONFIG_SIZE, CONFIG_SIZE + EBB__VU_CONFIG_BYTES,
     EBB__VU_P_CONFIG, ebb__vu_set_config},
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
            (requests[i].protocol & ~ebb__vu_protocol_offered(session)) == 0)
            return &requests[i];
    return NULL;
}

/* ---- one message ---- */

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
    session->stats.refusal = session->reason;
    session->stats.refusal_error = session->error;
    session->stats.refused++;
    session->reason = NULL;
    session->error = 0;
    return ebb__vu_answer_u64(session, 1);
}

static int serve(struct ebb_vhost_user *session)
{
    const struct request *request = find_request(session, session->header.request);
    const uint32_t size = session->header.size;
    bool asked;
    int error;

    session->stats.messages++;
    if (session->n_fds < request->min_fds || session->n_fds > request->max_fds)
        error = ebb__vu_wrong_fds(session);
    else
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

/* ---- as they come in ---- */

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
    ebb__vu_memory_let_go(session); /* it is answered */
    ebb__vu_drop_fds(session);
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

static int keep_fds(struct ebb_vhost_user *session, const int *fds, unsigned n)
{
    unsigned i = 0;

    for (; i < n && session->n_fds < EBB_VHOST_USER_FDS && !session->ended; i++)
        session->fds[session->n_fds++] = fds[i];
    if (i == n)
        return 0;
    for (; i < n; i++)
        ebb__vu_drop_fd(session, fds[i]);
    return ebb__vu_fail(session, EBB_EPROTO, "descriptors missing, or too many");
}

void ebb_vhost_user_lost_fds(struct ebb_vhost_user *session)
{
    session->lost_fds = true;
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
