/* SPDX-License-Identifier: BSD-2-Clause */
/* What is negotiated: features of virtio and of the protocol, the number of queues, the owner. */
#include "vhost_user_private.h"

#include <string.h>

int ebb__vu_get_features(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    (void)payload;
    (void)size;
    return ebb__vu_answer_u64(session, session->offered | EBB__VU_F_PROTOCOL);
}

/* The same again is what front-ends send when a VM goes on; a queue may run then. */
int ebb__vu_set_features(struct ebb_vhost_user *session, const void *payload, uint32_t size)
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

uint64_t ebb__vu_protocol_offered(const struct ebb_vhost_user *session)
{
    const uint64_t always = EBB__VU_P_MQ | EBB__VU_P_REPLY_ACK | EBB__VU_P_CONFIG |
                            EBB__VU_P_INFLIGHT_SHMFD | EBB__VU_P_RESET_DEVICE | EBB__VU_P_MEM_SLOTS;

    return session->config.ops->send_backend ? always | EBB__VU_P_BACKEND_REQ : always;
}

int ebb__vu_get_protocol_features(struct ebb_vhost_user *session, const void *payload,
                                  uint32_t size)
{
    (void)payload;
    (void)size;
    return ebb__vu_answer_u64(session, ebb__vu_protocol_offered(session));
}

int ebb__vu_set_protocol_features(struct ebb_vhost_user *session, const void *payload,
                                  uint32_t size)
{
    uint64_t value;

    (void)size;
    memcpy(&value, payload, sizeof(value));
    if (value & ~ebb__vu_protocol_offered(session))
        return ebb__vu_refuse(session, EBB_EINVAL, "protocol features that were not offered");
    session->protocol = value;
    return 0;
}

int ebb__vu_get_queue_num(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    (void)payload;
    (void)size;
    return ebb__vu_answer_u64(session, EBB_VHOST_USER_QUEUES);
}

/* There is one front-end to a session, and it owns it from the start. */
int ebb__vu_set_owner(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    (void)session;
    (void)payload;
    (void)size;
    return 0;
}

/* Out of use; what the specification still says that it may do. */
int ebb__vu_reset_owner(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    (void)payload;
    (void)size;
    ebb__vu_enable_all(session, false);
    return 0;
}
