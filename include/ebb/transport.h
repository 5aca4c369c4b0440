/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Virtio transports, as a driver sees them: ops that the PCI and MMIO
 * transports implement, and that a test can implement in memory.
 */
#ifndef EBB_TRANSPORT_H
#define EBB_TRANSPORT_H

#include <ebb/types.h>

struct ebb_transport;

/* Interrupt causes. */
#define EBB_IRQ_QUEUE  1u
#define EBB_IRQ_CONFIG 2u

/*
 * Order with memory, on machines that change it: what was stored before a call of set_status or
 * notify is visible to the device by the time it sees the call, and what is read or written after
 * get_status and irq_causes comes after them. The transports here see to it (driver/io.h).
 */
struct ebb_transport_ops {
    uint64_t (*get_features)(struct ebb_transport *t);
    void (*set_features)(struct ebb_transport *t, uint64_t features);
    uint8_t (*get_status)(struct ebb_transport *t);
    /* Writing 0 resets the device. */
    void (*set_status)(struct ebb_transport *t, uint8_t status);
    /* Largest size of queue `index`, 0 if the device has no such queue. */
    unsigned (*queue_max)(struct ebb_transport *t, unsigned index);
    /* Program addresses and size and enable it. Guest-physical addresses. */
    int (*queue_setup)(struct ebb_transport *t, unsigned index, unsigned size, uint64_t desc,
                       uint64_t avail, uint64_t used);
    void (*notify)(struct ebb_transport *t, unsigned index);
    /* Device configuration space, le32 at a multiple of 4. */
    uint32_t (*config_read32)(struct ebb_transport *t, unsigned offset);
    void (*config_write32)(struct ebb_transport *t, unsigned offset, uint32_t value);
    /* Which causes does the interrupt that arrived have? Acknowledges them.
     * With MSI-X, where nothing tells: the queues', and the configuration's if that has no
     * message of its own. */
    unsigned (*irq_causes)(struct ebb_transport *t);
};

struct ebb_transport {
    const struct ebb_transport_ops *ops;
};

/* ---- virtio-mmio (virtio 1.2, 4.2), version 2 registers ---- */

struct ebb_mmio {
    struct ebb_transport transport;
    volatile uint32_t *regs;
};

/* Look at a register block (mapped uncached, 512 bytes). 0: a device of type
 * *device_id. -EBB_ENODEV: nothing there. -EBB_EOPNOTSUPP: a legacy (version 1)
 * device. */
EBB_MUST_CHECK int ebb_mmio_probe(struct ebb_mmio *mmio, volatile void *regs, uint32_t *device_id);

/* ---- virtio-pci (virtio 1.2, 4.1), modern ---- */

/* How to reach one PCI function; supplied by the guest. Offsets are in bytes,
 * naturally aligned. */
struct ebb_pci_access {
    uint32_t (*config_read)(void *ctx, unsigned offset, unsigned size);
    void (*config_write)(void *ctx, unsigned offset, unsigned size, uint32_t value);
    /* Map len bytes of guest-physical device memory, uncached; NULL: cannot. */
    volatile void *(*map)(void *ctx, uint64_t addr, uint64_t len);
    void *ctx;
};

#define EBB_PCI_VECTOR_NONE 0xffffu

/* Queues of a function that can be used: index 0 to this, exclusive. */
#define EBB_PCI_QUEUES 8u

struct ebb_pci {
    struct ebb_transport transport;
    struct ebb_pci_access access;
    volatile uint8_t *common; /* common configuration */
    volatile uint8_t *notify;
    volatile uint8_t *doorbells[EBB_PCI_QUEUES]; /* in notify, by queue */
    volatile uint8_t *isr;
    volatile uint8_t *device; /* device-specific configuration */
    uint64_t notify_len;
    uint32_t device_len;
    uint32_t notify_multiplier;
    uint16_t msix_cap; /* offset of the MSI-X capability, 0: none */
    volatile uint32_t *msix_table;
    uint16_t config_vector; /* the table entry of configuration changes, 0: that of the queues */
    bool msix_on;
};

/*
 * Probe a function: vendor 0x1af4, device 0x1040 + type or transitional 0x1002,
 * modern capabilities inside its memory BARs. Enables memory access and bus
 * mastering. 0: *device_id is the virtio type. -EBB_ENODEV: not virtio.
 * -EBB_EOPNOTSUPP: legacy only. -EBB_EPROTO: capabilities that point nowhere.
 */
EBB_MUST_CHECK int ebb_pci_probe(struct ebb_pci *pci, const struct ebb_pci_access *access,
                                 uint32_t *device_id);

/*
 * Route the interrupts of the device's queues to the MSI-X message `data`, and
 * those of configuration changes to `config_data`, both to `address`: to be called
 * before queues are set up. A device with one table entry sends `data` for all,
 * and irq_causes() then tells of both. -EBB_EOPNOTSUPP: no MSI-X; the function
 * then uses INTx and irq_causes() reads its ISR.
 */
EBB_MUST_CHECK int ebb_pci_use_msix(struct ebb_pci *pci, uint64_t address, uint32_t data,
                                    uint32_t config_data);

#endif
