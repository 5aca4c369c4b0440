/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Virtio over PCI, modern (virtio 1.2, section 4.1).
 *
 * Where the device's registers are is said by the device: capabilities that
 * name a BAR, an offset and a length. None of it is believed before it has been
 * held against the BAR's size, which is found by the standard write and read.
 */
#include <ebb/transport.h>
#include <ebb/virtio.h>

#include "io.h"

enum {
    PCI_VENDOR = 0x00,
    PCI_DEVICE = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_CAPABILITIES = 0x34,
    PCI_CONFIG_SIZE = 0x100,
};
#define COMMAND_IO      0x0001u
#define COMMAND_MEMORY  0x0002u
#define COMMAND_MASTER  0x0004u
#define COMMAND_NO_INTX 0x0400u
#define STATUS_CAPS     0x0010u
#define BARS            6u

#define CAP_VENDOR 0x09u
#define CAP_MSIX   0x11u
#define CAP_FIRST  0x40u
#define CAPS_MAX   ((PCI_CONFIG_SIZE - CAP_FIRST) / 4)

#define VIRTIO_VENDOR               0x1af4u
#define VIRTIO_MODERN_FIRST         0x1040u
#define VIRTIO_MODERN_LAST          0x107fu
#define VIRTIO_TRANSITIONAL_BALLOON 0x1002u

/* A virtio capability: offsets in it, and its types. */
enum {
    CAP_LEN = 2,
    CAP_TYPE = 3,
    CAP_BAR = 4,
    CAP_OFFSET = 8,
    CAP_LENGTH = 12,
    CAP_SIZE = 16,
    CAP_MULTIPLIER = 16,
    CAP_NOTIFY_SIZE = 20,
};
#define CFG_COMMON 1u
#define CFG_NOTIFY 2u
#define CFG_ISR    3u
#define CFG_DEVICE 4u

enum {
    MSIX_CONTROL = 2,
    MSIX_TABLE = 4,
    MSIX_CAP_SIZE = 12,
    MSIX_ENTRY_SIZE = 16,
};
#define MSIX_COUNT  0x07ffu
#define MSIX_MASK   0x4000u
#define MSIX_ENABLE 0x8000u

/* Common configuration. */
enum {
    COMMON_DEVICE_FEATURE_SELECT = 0x00,
    COMMON_DEVICE_FEATURE = 0x04,
    COMMON_DRIVER_FEATURE_SELECT = 0x08,
    COMMON_DRIVER_FEATURE = 0x0c,
    COMMON_CONFIG_VECTOR = 0x10,
    COMMON_NUM_QUEUES = 0x12,
    COMMON_STATUS = 0x14,
    COMMON_QUEUE_SELECT = 0x16,
    COMMON_QUEUE_SIZE = 0x18,
    COMMON_QUEUE_VECTOR = 0x1a,
    COMMON_QUEUE_ENABLE = 0x1c,
    COMMON_QUEUE_NOTIFY_OFF = 0x1e,
    COMMON_QUEUE_DESC = 0x20,
    COMMON_QUEUE_DRIVER = 0x28,
    COMMON_QUEUE_DEVICE = 0x30,
    COMMON_SIZE = 0x38,
};

static uint32_t cfg_read(const struct ebb_pci *pci, unsigned offset, unsigned size)
{
    return pci->access.config_read(pci->access.ctx, offset, size);
}

static void cfg_write(const struct ebb_pci *pci, unsigned offset, unsigned size, uint32_t value)
{
    pci->access.config_write(pci->access.ctx, offset, size, value);
}

/* ---- transport operations ---- */

static struct ebb_pci *pci_of(struct ebb_transport *t)
{
    return (struct ebb_pci *)t;
}

static uint64_t pci_get_features(struct ebb_transport *t)
{
    volatile uint8_t *common = pci_of(t)->common;

    return ebb__read_features(common + COMMON_DEVICE_FEATURE_SELECT,
                              common + COMMON_DEVICE_FEATURE);
}

static void pci_set_features(struct ebb_transport *t, uint64_t features)
{
    volatile uint8_t *common = pci_of(t)->common;

    ebb__write_features(common + COMMON_DRIVER_FEATURE_SELECT, common + COMMON_DRIVER_FEATURE,
                        features);
}

static uint8_t pci_get_status(struct ebb_transport *t)
{
    const uint8_t status = ebb__read8(pci_of(t)->common + COMMON_STATUS);

    ebb__register_before_memory();
    return status;
}

static void pci_set_status(struct ebb_transport *t, uint8_t status)
{
    ebb__memory_before_register();
    ebb__write8(pci_of(t)->common + COMMON_STATUS, status);
}

static unsigned pci_queue_max(struct ebb_transport *t, unsigned index)
{
    volatile uint8_t *common = pci_of(t)->common;

    if (index >= EBB_PCI_QUEUES || index >= ebb__read16(common + COMMON_NUM_QUEUES))
        return 0;
    ebb__write16(common + COMMON_QUEUE_SELECT, (uint16_t)index);
    return ebb__read16(common + COMMON_QUEUE_SIZE);
}

/* Where to write to notify the selected queue, or NULL if that is nowhere. */
static volatile uint8_t *find_doorbell(const struct ebb_pci *pci)
{
    const uint64_t offset =
        (uint64_t)ebb__read16(pci->common + COMMON_QUEUE_NOTIFY_OFF) * pci->notify_multiplier;

    if (offset % 2 != 0 || offset + 2 > pci->notify_len)
        return NULL;
    return pci->notify + offset;
}

/* Vectors are lost by every reset, so they are set with each queue. */
static int route_vectors(const struct ebb_pci *pci)
{
    if (!pci->msix_on)
        return 0;
    ebb__write16(pci->common + COMMON_CONFIG_VECTOR, pci->config_vector);
    ebb__write16(pci->common + COMMON_QUEUE_VECTOR, 0);
    if (ebb__read16(pci->common + COMMON_CONFIG_VECTOR) != pci->config_vector ||
        ebb__read16(pci->common + COMMON_QUEUE_VECTOR) != 0)
        return -EBB_ENOSPC; /* reads EBB_PCI_VECTOR_NONE: the device could not */
    return 0;
}

EBB_RARE static int pci_queue_setup(struct ebb_transport *t, unsigned index, unsigned size,
                                    uint64_t desc, uint64_t avail, uint64_t used)
{
    struct ebb_pci *pci = pci_of(t);
    volatile uint8_t *common = pci->common;
    int err;

    if (size == 0 || pci_queue_max(t, index) < size) /* selects the queue */
        return -EBB_ENOSPC;
    if (ebb__read16(common + COMMON_QUEUE_ENABLE) != 0)
        return -EBB_EPROTO; /* the device has been reset, and still uses it */
    pci->doorbells[index] = find_doorbell(pci);
    if (!pci->doorbells[index])
        return -EBB_EPROTO;
    err = route_vectors(pci);
    if (err)
        return err;
    ebb__write16(common + COMMON_QUEUE_SIZE, (uint16_t)size);
    ebb__write64(common + COMMON_QUEUE_DESC, desc);
    ebb__write64(common + COMMON_QUEUE_DRIVER, avail);
    ebb__write64(common + COMMON_QUEUE_DEVICE, used);
    ebb__write16(common + COMMON_QUEUE_ENABLE, 1);
    return 0;
}

static void pci_notify(struct ebb_transport *t, unsigned index)
{
    ebb__memory_before_register();
    ebb__write16(pci_of(t)->doorbells[index], (uint16_t)index);
}

static bool in_device_config(const struct ebb_pci *pci, unsigned offset)
{
    return offset % 4 == 0 && pci->device_len >= 4 && offset <= pci->device_len - 4;
}

static uint32_t pci_config_read32(struct ebb_transport *t, unsigned offset)
{
    const struct ebb_pci *pci = pci_of(t);

    return in_device_config(pci, offset) ? ebb__read32(pci->device + offset) : 0;
}

static void pci_config_write32(struct ebb_transport *t, unsigned offset, uint32_t value)
{
    const struct ebb_pci *pci = pci_of(t);

    if (in_device_config(pci, offset))
        ebb__write32(pci->device + offset, value);
}

static unsigned pci_irq_causes(struct ebb_transport *t)
{
    const struct ebb_pci *pci = pci_of(t);

    unsigned causes;

    /* No register is read: a message comes after what the device wrote before it, and whoever takes
     * interrupts sees to it that this holds for what the handler reads. */
    if (pci->msix_on) /* with two messages the other one tells of the configuration */
        return pci->config_vector ? EBB_IRQ_QUEUE : EBB_IRQ_QUEUE | EBB_IRQ_CONFIG;
    causes = ebb__read8(pci->isr) & (EBB_IRQ_QUEUE | EBB_IRQ_CONFIG); /* and clears it */
    ebb__register_before_memory();
    return causes;
}

static const struct ebb_transport_ops pci_ops = {
    .get_features = pci_get_features,
    .set_features = pci_set_features,
    .get_status = pci_get_status,
    .set_status = pci_set_status,
    .queue_max = pci_queue_max,
    .queue_setup = pci_queue_setup,
    .notify = pci_notify,
    .config_read32 = pci_config_read32,
    .config_write32 = pci_config_write32,
    .irq_causes = pci_irq_causes,
};

/* ---- probing ---- */

struct bar {
    uint64_t addr;
    uint64_t size; /* 0: none, or not memory */
};

static uint32_t bar_swap(const struct ebb_pci *pci, unsigned offset, uint32_t restore)
{
    uint32_t mask;

    cfg_write(pci, offset, 4, UINT32_MAX);
    mask = cfg_read(pci, offset, 4);
    cfg_write(pci, offset, 4, restore);
    return mask;
}

/* The memory BAR `index`; decoding is off. */
static struct bar read_bar(const struct ebb_pci *pci, unsigned index)
{
    const unsigned offset = PCI_BAR0 + 4 * index;
    const uint32_t low = cfg_read(pci, offset, 4);
    const bool wide = (low & 0x6) == 0x4;
    struct bar bar = {.addr = low & ~0xfu};
    uint64_t mask;

    if ((low & 0x1) != 0 || (wide && index == BARS - 1))
        return (struct bar){0};
    mask = bar_swap(pci, offset, low) & ~0xfu;
    if (wide) {
        const uint32_t high = cfg_read(pci, offset + 4, 4);

        bar.addr |= (uint64_t)high << 32;
        mask |= (uint64_t)bar_swap(pci, offset + 4, high) << 32;
    } else if (mask != 0) {
        mask |= (uint64_t)UINT32_MAX << 32;
    }
    bar.size = ~mask + 1; /* 0 if nothing could be written */
    if ((bar.size & (bar.size - 1)) != 0 || bar.addr == 0 || bar.size > UINT64_MAX - bar.addr)
        return (struct bar){0};
    return bar;
}

/* Upper halves of 64-bit BARs stay empty: no capability may name them. */
EBB_RARE static void read_bars(const struct ebb_pci *pci, struct bar *bars)
{
    const uint32_t command = cfg_read(pci, PCI_COMMAND, 2);

    /* A BAR that is all ones must not be decoded meanwhile. */
    cfg_write(pci, PCI_COMMAND, 2, command & ~(COMMAND_IO | COMMAND_MEMORY));
    for (unsigned i = 0; i < BARS; i++) {
        const bool wide = (cfg_read(pci, PCI_BAR0 + 4 * i, 4) & 0x7) == 0x4;

        bars[i] = read_bar(pci, i);
        if (wide && i < BARS - 1)
            bars[++i] = (struct bar){0};
    }
    cfg_write(pci, PCI_COMMAND, 2, (command & ~COMMAND_NO_INTX) | COMMAND_MEMORY | COMMAND_MASTER);
}

/* Part of a BAR, mapped; NULL if it is not all inside. */
static volatile uint8_t *map_part(const struct ebb_pci *pci, const struct bar *bars, unsigned bar,
                                  uint64_t offset, uint64_t len)
{
    if (bar >= BARS || offset > bars[bar].size || len > bars[bar].size - offset)
        return NULL;
    return pci->access.map(pci->access.ctx, bars[bar].addr + offset, len);
}

/* One virtio capability. The first of each type that can be used counts, others
 * are ignored, as are types and BARs that nobody knows. */
static void use_capability(struct ebb_pci *pci, const struct bar *bars, unsigned cap)
{
    const unsigned type = cfg_read(pci, cap + CAP_TYPE, 1);
    const unsigned bar = cfg_read(pci, cap + CAP_BAR, 1);
    const unsigned cap_len = cfg_read(pci, cap + CAP_LEN, 1);
    const uint32_t offset = cfg_read(pci, cap + CAP_OFFSET, 4);
    const uint32_t len = cfg_read(pci, cap + CAP_LENGTH, 4);

    if (cap_len < CAP_SIZE)
        return;
    switch (type) {
    case CFG_COMMON:
        if (!pci->common && len >= COMMON_SIZE && offset % 4 == 0)
            pci->common = map_part(pci, bars, bar, offset, COMMON_SIZE);
        break;
    case CFG_NOTIFY:
        if (pci->notify || cap_len < CAP_NOTIFY_SIZE || cap + CAP_NOTIFY_SIZE > PCI_CONFIG_SIZE ||
            len < 2 || offset % 2 != 0)
            break;
        pci->notify = map_part(pci, bars, bar, offset, len);
        pci->notify_len = len;
        pci->notify_multiplier = cfg_read(pci, cap + CAP_MULTIPLIER, 4);
        break;
    case CFG_ISR:
        if (!pci->isr && len >= 1)
            pci->isr = map_part(pci, bars, bar, offset, 1);
        break;
    case CFG_DEVICE:
        if (pci->device || len < 4 || offset % 4 != 0)
            break;
        /* Nothing here needs more of it than a page. */
        pci->device_len = len < 4096 ? len : 4096;
        pci->device = map_part(pci, bars, bar, offset, pci->device_len);
        break;
    default:
        break;
    }
}

static void use_msix(struct ebb_pci *pci, const struct bar *bars, unsigned cap)
{
    const uint32_t table = cfg_read(pci, cap + MSIX_TABLE, 4);
    const uint32_t last = cfg_read(pci, cap + MSIX_CONTROL, 2) & MSIX_COUNT;

    if (pci->msix_cap)
        return;
    pci->config_vector = last > 0;
    pci->msix_table = (volatile uint32_t *)(volatile void *)map_part(
        pci, bars, table & 0x7, table & ~0x7u, (pci->config_vector + 1u) * MSIX_ENTRY_SIZE);
    if (!pci->msix_table)
        return;
    pci->msix_cap = (uint16_t)cap;
}

/* Walk the capabilities; how many virtio ones there were, or -EBB_EPROTO. */
EBB_RARE static int walk_capabilities(struct ebb_pci *pci, const struct bar *bars)
{
    unsigned cap = cfg_read(pci, PCI_CAPABILITIES, 1) & ~0x3u;
    int found = 0;

    if (!(cfg_read(pci, PCI_STATUS, 2) & STATUS_CAPS))
        return 0;
    /* More steps than capabilities fit the space: the list is a loop. */
    for (unsigned steps = 0; cap != 0; steps++) {
        unsigned id;

        if (steps == CAPS_MAX || cap < CAP_FIRST)
            return -EBB_EPROTO;
        id = cfg_read(pci, cap, 1);
        if (id == CAP_VENDOR && cap + CAP_SIZE <= PCI_CONFIG_SIZE) {
            use_capability(pci, bars, cap);
            found++;
        } else if (id == CAP_MSIX && cap + MSIX_CAP_SIZE <= PCI_CONFIG_SIZE) {
            use_msix(pci, bars, cap);
        }
        cap = cfg_read(pci, cap + 1, 1) & ~0x3u;
    }
    return found;
}

/* The virtio type of this function, 0: it is none. */
static uint32_t virtio_type(const struct ebb_pci *pci)
{
    const uint32_t device = cfg_read(pci, PCI_DEVICE, 2);

    if (cfg_read(pci, PCI_VENDOR, 2) != VIRTIO_VENDOR ||
        (cfg_read(pci, PCI_HEADER_TYPE, 1) & 0x7f) != 0)
        return 0;
    if (device == VIRTIO_TRANSITIONAL_BALLOON)
        return EBB_VIRTIO_ID_BALLOON;
    if (device < VIRTIO_MODERN_FIRST || device > VIRTIO_MODERN_LAST)
        return 0;
    return device - VIRTIO_MODERN_FIRST;
}

EBB_RARE int ebb_pci_probe(struct ebb_pci *pci, const struct ebb_pci_access *access,
                           uint32_t *device_id)
{
    struct bar bars[BARS];
    uint32_t type;
    int found;

    __builtin_memset(pci, 0, sizeof(*pci));
    pci->transport.ops = &pci_ops;
    pci->access = *access;
    type = virtio_type(pci);
    if (type == 0)
        return -EBB_ENODEV;

    read_bars(pci, bars);
    found = walk_capabilities(pci, bars);
    if (found < 0)
        return found;
    if (found == 0)
        return -EBB_EOPNOTSUPP;
    if (!pci->common || !pci->notify || !pci->isr || !pci->device)
        return -EBB_EPROTO;
    *device_id = type;
    return 0;
}

static void write_entry(const struct ebb_pci *pci, unsigned i, uint64_t address, uint32_t data)
{
    volatile uint32_t *entry = pci->msix_table + i * (MSIX_ENTRY_SIZE / 4);

    ebb__write64(&entry[0], address);
    ebb__write32(&entry[2], data);
    ebb__write32(&entry[3], 0); /* it is not masked */
}

EBB_RARE int ebb_pci_use_msix(struct ebb_pci *pci, uint64_t address, uint32_t data,
                              uint32_t config_data)
{
    uint32_t control;

    if (!pci->msix_cap)
        return -EBB_EOPNOTSUPP;
    control = cfg_read(pci, pci->msix_cap + MSIX_CONTROL, 2) & 0xffff;
    /* Enabled, but all masked, while an entry is half written. */
    cfg_write(pci, pci->msix_cap + MSIX_CONTROL, 2, control | MSIX_ENABLE | MSIX_MASK);
    write_entry(pci, pci->config_vector, address, config_data);
    write_entry(pci, 0, address, data); /* where there is only this one, it stays */
    cfg_write(pci, pci->msix_cap + MSIX_CONTROL, 2, (control | MSIX_ENABLE) & ~MSIX_MASK);
    pci->msix_on = true;
    return 0;
}
