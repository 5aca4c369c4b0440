/* SPDX-License-Identifier: BSD-2-Clause */
/* The configuration space: four fields of four bytes, little-endian. */
#include "balloon.h"

#include <string.h>

#define FIELDS (EBB_BALLOON_CFG_SIZE / 4)

bool ebb__balloon_poisoned(const struct ebb_balloon_device *device)
{
    return (device->accepted & EBB_F_PAGE_POISON) && device->poison_val != 0;
}

uint32_t ebb__balloon_hint_cmd(const struct ebb_balloon_device *device)
{
    switch (device->hint) {
    case EBB__HINT_NONE:
        return EBB__HINT_STOP;
    case EBB__HINT_DONE:
        return EBB__HINT_DONE_ID;
    default:
        return device->hint_id;
    }
}

static void encode(const struct ebb_balloon_device *device, uint8_t *space)
{
    ebb__balloon_put_le(&space[EBB_BALLOON_CFG_NUM_PAGES], device->target, 4);
    ebb__balloon_put_le(&space[EBB_BALLOON_CFG_ACTUAL], device->actual, 4);
    ebb__balloon_put_le(&space[EBB_BALLOON_CFG_HINT_CMD_ID], ebb__balloon_hint_cmd(device), 4);
    ebb__balloon_put_le(&space[EBB_BALLOON_CFG_POISON_VAL], device->poison_val, 4);
}

void ebb_balloon_device_config_read(const struct ebb_balloon_device *device, uint32_t offset,
                                    void *to, uint32_t len)
{
    uint8_t space[EBB_BALLOON_CFG_SIZE];

    if (len == 0)
        return;
    memset(to, 0, len);
    if (offset >= sizeof(space))
        return;
    encode(device, space);
    memcpy(to, &space[offset],
           len < sizeof(space) - offset ? len : (uint32_t)sizeof(space) - offset);
}

/* May the driver write this field now? */
static bool is_writable(const struct ebb_balloon_device *device, unsigned field)
{
    if (field * 4 == EBB_BALLOON_CFG_ACTUAL)
        return true;
    return field * 4 == EBB_BALLOON_CFG_POISON_VAL && (device->offered & EBB_F_PAGE_POISON) &&
           !ebb__balloon_any_running(device);
}

static void set_field(struct ebb_balloon_device *device, unsigned field, uint32_t value)
{
    if (field * 4 == EBB_BALLOON_CFG_ACTUAL)
        device->actual = value;
    else
        device->poison_val = value;
}

/* What is written to one field: from[0..4) where covered. False: that cannot be had. */
static bool write_field(struct ebb_balloon_device *device, unsigned field, const uint8_t *now,
                        const uint8_t *wanted)
{
    if (memcmp(now, wanted, 4) == 0)
        return true;
    if (!is_writable(device, field))
        return false;
    set_field(device, field, (uint32_t)ebb__balloon_le(wanted, 4));
    return true;
}

void ebb_balloon_device_config_write(struct ebb_balloon_device *device, uint32_t offset,
                                     const void *from, uint32_t len)
{
    const uint64_t end = (uint64_t)offset + len;
    const uint32_t inside = end < EBB_BALLOON_CFG_SIZE ? (uint32_t)end : EBB_BALLOON_CFG_SIZE;
    uint8_t now[EBB_BALLOON_CFG_SIZE], wanted[EBB_BALLOON_CFG_SIZE];
    bool fault = len > 0 && end > EBB_BALLOON_CFG_SIZE;

    encode(device, now);
    memcpy(wanted, now, sizeof(now));
    if (offset < inside)
        memcpy(&wanted[offset], from, inside - offset);
    for (unsigned field = 0; field < FIELDS; field++) {
        const bool whole = offset <= field * 4 && inside >= field * 4 + 4;

        /* Of a field that is covered in part nothing is taken. */
        if (whole)
            fault |= !write_field(device, field, &now[field * 4], &wanted[field * 4]);
        else
            fault |= memcmp(&now[field * 4], &wanted[field * 4], 4) != 0;
    }
    if (fault)
        ebb__balloon_fault(device, EBB_FAULT_CONFIG);
}

/* ---- the operator's ---- */

void ebb_balloon_device_resize(struct ebb_balloon_device *device, uint32_t pages)
{
    if (device->target == pages)
        return;
    device->target = pages;
    ebb__balloon_config_changed(device);
}

uint32_t ebb_balloon_device_target(const struct ebb_balloon_device *device)
{
    return device->target;
}

uint32_t ebb_balloon_device_actual(const struct ebb_balloon_device *device)
{
    return device->actual;
}
