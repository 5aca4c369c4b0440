/* SPDX-License-Identifier: BSD-2-Clause */
/* The device's configuration space, and the channel on which its changes are told. */
#include "vhost_user_private.h"

#include <string.h>

#define CONFIG_RETRY_NS ((uint64_t)100 * 1000000)

static int parse_config(struct ebb_vhost_user *session, const void *payload, uint32_t size,
                        struct ebb__vu_config *config)
{
    memcpy(config, payload, sizeof(*config));
    if (config->size > EBB__VU_CONFIG_BYTES || size != sizeof(*config) + config->size)
        return ebb__vu_fail(session, EBB_EPROTO, "a message of the wrong size");
    return 0;
}

int ebb__vu_get_config(struct ebb_vhost_user *session, const void *payload, uint32_t size)
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
int ebb__vu_set_config(struct ebb_vhost_user *session, const void *payload, uint32_t size)
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

/* ---- its changes ---- */

/* Without asking for an answer: GET_CONFIG, which follows it, is served by this very thread. */
void ebb__vu_config_changed(struct ebb_vhost_user *session)
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
        ebb__vu_drop_fd(session, session->backend);
        session->backend = -1;
    } else {
        session->stats.config_changes++;
    }
}

int ebb__vu_set_backend_req_fd(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    (void)payload;
    (void)size;
    if (!ebb__vu_is_stream(session->fds[0]))
        return ebb__vu_refuse(session, EBB_EINVAL,
                              "a channel for requests that is no Unix stream socket");
    if (session->backend >= 0)
        ebb__vu_drop_fd(session, session->backend);
    session->backend = ebb__vu_take_fd(session, 0);
    return 0;
}
