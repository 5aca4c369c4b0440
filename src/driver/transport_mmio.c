/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Virtio over MMIO, version 2 registers (virtio 1.2, section 4.2.2).
 */
#include <ebb/transport.h>

#include "io.h"

/* Byte offsets; registers are le32. */
enum {
    REG_MAGIC = 0x000,
    REG_VERSION = 0x004,
    REG_DEVICE_ID = 0x008,
    REG_DEVICE_FEATURES = 0x010,
    REG_DEVICE_FEATURES_SEL = 0x014,
    REG_DRIVER_FEATURES = 0x020,
    REG_DRIVER_FEATURES_SEL = 0x024,
    REG_QUEUE_SEL = 0x030,
    REG_QUEUE_NUM_MAX = 0x034,
    REG_QUEUE_NUM = 0x038,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = 0x050,
    REG_INTERRUPT_STATUS = 0x060,
    REG_INTERRUPT_ACK = 0x064,
    REG_STATUS = 0x070,
    REG_QUEUE_DESC = 0x080,
    REG_QUEUE_DRIVER = 0x090,
    REG_QUEUE_DEVICE = 0x0a0,
    REG_CONFIG = 0x100,
    REG_END = 0x200, /* of what is mapped */
};

#define MAGIC   0x74726976u /* "virt" */
#define VERSION 2u

static volatile uint32_t *reg(struct ebb_transport *t, unsigned offset)
{
    return &((struct ebb_mmio *)t)->regs[offset / 4];
}

static uint32_t reg_read(struct ebb_transport *t, unsigned offset)
{
    return ebb__read32(reg(t, offset));
}

static void reg_write(struct ebb_transport *t, unsigned offset, uint32_t value)
{
    ebb__write32(reg(t, offset), value);
}

static uint64_t mmio_get_features(struct ebb_transport *t)
{
    return ebb__read_features(reg(t, REG_DEVICE_FEATURES_SEL), reg(t, REG_DEVICE_FEATURES));
}

static void mmio_set_features(struct ebb_transport *t, uint64_t features)
{
    ebb__write_features(reg(t, REG_DRIVER_FEATURES_SEL), reg(t, REG_DRIVER_FEATURES), features);
}

static uint8_t mmio_get_status(struct ebb_transport *t)
{
    const uint8_t status = (uint8_t)reg_read(t, REG_STATUS);

    ebb__register_before_memory();
    return status;
}

static void mmio_set_status(struct ebb_transport *t, uint8_t status)
{
    ebb__memory_before_register();
    reg_write(t, REG_STATUS, status);
}

static unsigned mmio_queue_max(struct ebb_transport *t, unsigned index)
{
    reg_write(t, REG_QUEUE_SEL, index);
    return reg_read(t, REG_QUEUE_NUM_MAX);
}

EBB_RARE static int mmio_queue_setup(struct ebb_transport *t, unsigned index, unsigned size,
                                     uint64_t desc, uint64_t avail, uint64_t used)
{
    reg_write(t, REG_QUEUE_SEL, index);
    if (reg_read(t, REG_QUEUE_READY) != 0)
        return -EBB_EPROTO; /* the device has been reset, and still uses it */
    if (size == 0 || reg_read(t, REG_QUEUE_NUM_MAX) < size)
        return -EBB_ENOSPC;
    reg_write(t, REG_QUEUE_NUM, size);
    ebb__write64(reg(t, REG_QUEUE_DESC), desc);
    ebb__write64(reg(t, REG_QUEUE_DRIVER), avail);
    ebb__write64(reg(t, REG_QUEUE_DEVICE), used);
    reg_write(t, REG_QUEUE_READY, 1);
    return 0;
}

static void mmio_notify(struct ebb_transport *t, unsigned index)
{
    ebb__memory_before_register();
    reg_write(t, REG_QUEUE_NOTIFY, index);
}

static uint32_t mmio_config_read32(struct ebb_transport *t, unsigned offset)
{
    if (offset % 4 != 0 || offset >= REG_END - REG_CONFIG)
        return 0;
    return reg_read(t, REG_CONFIG + offset);
}

static void mmio_config_write32(struct ebb_transport *t, unsigned offset, uint32_t value)
{
    if (offset % 4 != 0 || offset >= REG_END - REG_CONFIG)
        return;
    reg_write(t, REG_CONFIG + offset, value);
}

static unsigned mmio_irq_causes(struct ebb_transport *t)
{
    const uint32_t causes = reg_read(t, REG_INTERRUPT_STATUS) & (EBB_IRQ_QUEUE | EBB_IRQ_CONFIG);

    if (causes)
        reg_write(t, REG_INTERRUPT_ACK, causes);
    ebb__register_before_memory();
    return causes;
}

static const struct ebb_transport_ops mmio_ops = {
    .get_features = mmio_get_features,
    .set_features = mmio_set_features,
    .get_status = mmio_get_status,
    .set_status = mmio_set_status,
    .queue_max = mmio_queue_max,
    .queue_setup = mmio_queue_setup,
    .notify = mmio_notify,
    .config_read32 = mmio_config_read32,
    .config_write32 = mmio_config_write32,
    .irq_causes = mmio_irq_causes,
};

EBB_RARE int ebb_mmio_probe(struct ebb_mmio *mmio, volatile void *regs, uint32_t *device_id)
{
    struct ebb_transport *t = &mmio->transport;
    uint32_t id;

    t->ops = &mmio_ops;
    mmio->regs = regs;
    if (reg_read(t, REG_MAGIC) != MAGIC)
        return -EBB_ENODEV;
    id = reg_read(t, REG_DEVICE_ID);
    if (id == 0)
        return -EBB_ENODEV; /* a slot without a device */
    if (reg_read(t, REG_VERSION) != VERSION)
        return -EBB_EOPNOTSUPP;
    *device_id = id;
    return 0;
}
