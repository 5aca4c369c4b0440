/* SPDX-License-Identifier: BSD-2-Clause */
/* Where the balloon is: on PCI, or at one of the machine's virtio-mmio places. */
#include "guest.h"

#define PCI_VENDOR_VIRTIO   0x1af4u
#define PCI_COMMAND         0x04u
#define PCI_COMMAND_NO_INTX 0x400u
#define PCI_CLASS           0x0au
#define PCI_CLASS_BRIDGE    0x0604u
#define PCI_HEADER          0x0eu
#define PCI_HEADER_MULTI    0x80u
#define PCI_SECONDARY_BUS   0x19u
#define PCI_INTERRUPT_PIN   0x3du
#define PCI_DEPTH           8u

static struct ebb_pci pci;
static struct ebb_mmio mmio;
static bool pci_found;
static unsigned pci_bdf;
static uint16_t bridges[256]; /* by bus: the bridge above it */

/* ---- PCI ---- */

static uint32_t config_read(void *ctx, unsigned offset, unsigned size)
{
    return arch_pci_read(*(unsigned *)ctx, offset, size);
}

static void config_write(void *ctx, unsigned offset, unsigned size, uint32_t value)
{
    arch_pci_write(*(unsigned *)ctx, offset, size, value);
}

static volatile void *map(void *ctx, uint64_t address, uint64_t len)
{
    (void)ctx;
    return arch_map_device(address, len);
}

/* Is it a balloon that speaks virtio 1? Then pci is it. */
static bool is_balloon(unsigned bdf)
{
    struct ebb_pci_access access = {config_read, config_write, map, &pci_bdf};
    uint32_t id = 0;
    int err;

    if (arch_pci_read(bdf, 0, 2) != PCI_VENDOR_VIRTIO)
        return false;
    pci_bdf = bdf;
    err = ebb_pci_probe(&pci, &access, &id);
    if (err == -EBB_EOPNOTSUPP)
        console_print("virtio device at %02x:%02x.%u speaks legacy virtio only: not used\n",
                      bdf >> 8, bdf >> 3 & 31, bdf & 7);
    return err == 0 && id == EBB_VIRTIO_ID_BALLOON;
}

/* Nobody would answer other devices' interrupts, and a shared line that stays
 * raised would never let the guest go on. */
static void silence(unsigned bdf)
{
    arch_pci_write(bdf, PCI_COMMAND, 2, arch_pci_read(bdf, PCI_COMMAND, 2) | PCI_COMMAND_NO_INTX);
}

static void scan_bus(unsigned bus, unsigned depth);

static void scan_function(unsigned bdf, unsigned depth)
{
    unsigned below;

    if (!pci_found && is_balloon(bdf)) {
        pci_found = true;
        return;
    }
    silence(bdf);
    if (arch_pci_read(bdf, PCI_CLASS, 2) != PCI_CLASS_BRIDGE || depth == PCI_DEPTH)
        return;
    below = arch_pci_read(bdf, PCI_SECONDARY_BUS, 1);
    if (below > bdf >> 8 && !bridges[below]) { /* upwards, and each bus once: this ends */
        bridges[below] = (uint16_t)bdf;
        scan_bus(below, depth + 1);
    }
}

/* The first balloon found stays in pci and pci_bdf. */
static void scan_bus(unsigned bus, unsigned depth)
{
    for (unsigned device = 0; device < 32; device++) {
        for (unsigned function = 0; function < 8; function++) {
            unsigned bdf = bus << 8 | device << 3 | function;

            if (arch_pci_read(bdf, 0, 2) == 0xffff) {
                if (function == 0)
                    break;
                continue;
            }
            scan_function(bdf, depth);
            if (function == 0 && !(arch_pci_read(bdf, PCI_HEADER, 1) & PCI_HEADER_MULTI))
                break;
        }
    }
}

/* Bridges pass interrupt pins on in turn, by the number of the device below. */
static int find_line(void)
{
    unsigned pin = arch_pci_read(pci_bdf, PCI_INTERRUPT_PIN, 1);
    unsigned bdf = pci_bdf;

    if (pin < 1 || pin > 4)
        return -EBB_ENODEV;
    while (bdf >> 8) {
        pin = (pin - 1 + (bdf >> 3 & 31)) % 4 + 1;
        bdf = bridges[bdf >> 8];
    }
    return arch_pci_line(pci_bdf, bdf, pin);
}

static int route_pci(bool intx, struct device *device)
{
    uint64_t address;
    uint32_t data, config_data;
    int line;

    arch_msi_messages(&address, &data, &config_data);
    if (!intx && ebb_pci_use_msix(&pci, address, data, config_data) == 0) {
        text_format(device->where, sizeof device->where, "PCI %02x:%02x.%u, MSI-X", pci_bdf >> 8,
                    pci_bdf >> 3 & 31, pci_bdf & 7);
        return 0;
    }
    line = find_line();
    if (line < 0) {
        console_print("the balloon has no MSI-X, and its interrupt line is unknown\n");
        return line;
    }
    text_format(device->where, sizeof device->where, "PCI %02x:%02x.%u, INTx on line %d",
                pci_bdf >> 8, pci_bdf >> 3 & 31, pci_bdf & 7, line);
    return arch_line_route((unsigned)line, true);
}

/* ---- virtio-mmio ---- */

/* A number, decimal or 0x...; returns what follows it. */
static const char *parse_number(const char *s, uint64_t *value)
{
    unsigned base = 10;

    if (s[0] == '0' && s[1] == 'x') {
        base = 16;
        s += 2;
    }
    *value = 0;
    for (;; s++) {
        unsigned digit = *s >= '0' && *s <= '9'   ? (unsigned)(*s - '0')
                         : *s >= 'a' && *s <= 'f' ? (unsigned)(*s - 'a' + 10)
                                                  : 99;
        if (digit >= base)
            return s;
        *value = *value * base + digit;
    }
}

/* The next place in words like virtio_mmio.device=512@0xfeb00e00:12; *at moves on. */
static bool place_in_words(const char **at, uint64_t *address, unsigned *line)
{
    static const char word[] = "virtio_mmio.device=";

    for (const char *s = *at; *s; s++) {
        uint64_t size, irq;
        const char *end;

        if (!text_starts(s, word))
            continue;
        end = parse_number(s + sizeof word - 1, &size);
        if (*end == 'K')
            end++;
        if (*end != '@')
            continue;
        end = parse_number(end + 1, address);
        if (*end != ':')
            continue;
        *at = parse_number(end + 1, &irq);
        *line = (unsigned)irq;
        return true;
    }
    return false;
}

static int try_mmio(uint64_t address, unsigned line, struct device *device)
{
    volatile void *regs = arch_map_device(address, 512);
    uint32_t id = 0;
    int err;

    if (!regs)
        return -EBB_ENODEV;
    err = ebb_mmio_probe(&mmio, regs, &id);
    if (err == -EBB_EOPNOTSUPP)
        console_print("virtio-mmio at %lx speaks legacy virtio only; QEMU wants "
                      "-global virtio-mmio.force-legacy=false\n",
                      address);
    if (err != 0 || id != EBB_VIRTIO_ID_BALLOON)
        return -EBB_ENODEV;
    device->transport = &mmio.transport;
    text_format(device->where, sizeof device->where, "mmio %lx, line %u", address, line);
    return arch_line_route(line, false);
}

static int find_mmio(const char *command_line, struct device *device)
{
    uint64_t address;
    unsigned line;
    bool told = false;

    while (place_in_words(&command_line, &address, &line)) {
        told = true;
        if (try_mmio(address, line, device) == 0)
            return 0;
    }
    for (unsigned i = 0; !told && arch_mmio_place(i, &address, &line); i++)
        if (try_mmio(address, line, device) == 0)
            return 0;
    return -EBB_ENODEV;
}

int device_find_balloon(const char *command_line, bool intx, struct device *device)
{
    if (arch_pci_present())
        scan_bus(0, 0);
    if (pci_found) {
        device->transport = &pci.transport;
        return route_pci(intx, device);
    }
    return find_mmio(command_line, device);
}
