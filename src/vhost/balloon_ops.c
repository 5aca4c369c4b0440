/* SPDX-License-Identifier: BSD-2-Clause */
/* The device calls back whoever runs it. (Interrupts are in balloon_chain.c.) */
#include "balloon.h"

#include <time.h>

uint64_t ebb__balloon_now(const struct ebb_balloon_device *device)
{
    struct timespec now;

    if (device->config.ops->now)
        return device->config.ops->now(device->config.ctx);
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void ebb__balloon_needs_reset(struct ebb_balloon_device *device)
{
    if (device->status & EBB_STATUS_NEEDS_RESET)
        return;
    device->status |= EBB_STATUS_NEEDS_RESET;
    if (device->config.ops->needs_reset)
        device->config.ops->needs_reset(device->config.ctx);
}

void ebb__balloon_config_changed(struct ebb_balloon_device *device)
{
    if (device->config.ops->config_changed)
        device->config.ops->config_changed(device->config.ctx);
}
