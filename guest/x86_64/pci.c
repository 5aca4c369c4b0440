/* SPDX-License-Identifier: BSD-2-Clause */
/* x86-64: PCI configuration space by I/O ports, interrupt lines, places of
 * virtio-mmio devices on microvm. */
#include "x86.h"

#define CONFIG_ADDRESS 0xcf8u
#define CONFIG_DATA    0xcfcu

#define HOST_Q35 0x29c08086u

static void select_register(unsigned bdf, unsigned offset)
{
    outl(CONFIG_ADDRESS, 0x80000000u | bdf << 8 | (offset & 0xfc));
}

bool arch_pci_present(void)
{
    outl(CONFIG_ADDRESS, 0x80000000u);
    return inl(CONFIG_ADDRESS) == 0x80000000u && inl(CONFIG_DATA) != UINT32_MAX;
}

uint32_t arch_pci_read(unsigned bdf, unsigned offset, unsigned size)
{
    uint16_t port = (uint16_t)(CONFIG_DATA + (offset & 3));

    select_register(bdf, offset);
    if (size == 1)
        return inb(port);
    if (size == 2)
        return inw(port);
    return inl(port);
}

void arch_pci_write(unsigned bdf, unsigned offset, unsigned size, uint32_t value)
{
    uint16_t port = (uint16_t)(CONFIG_DATA + (offset & 3));

    select_register(bdf, offset);
    if (size == 1)
        outb(port, (uint8_t)value);
    else if (size == 2)
        outw(port, (uint16_t)value);
    else
        outl(port, value);
}

int arch_pci_line(unsigned bdf, unsigned root_bdf, unsigned root_pin)
{
    unsigned device = root_bdf >> 3 & 31;
    uint32_t line;

    /* q35: devices 0 to 24 drive PIRQ E to H in turn, which are lines 20 to 23.
     * Elsewhere the firmware has written down the ISA interrupt it chose. */
    if (arch_pci_read(0, 0, 4) == HOST_Q35)
        return device < 25 ? (int)(20 + (device + root_pin - 1) % 4) : -EBB_ENODEV;
    line = arch_pci_read(bdf, 0x3c, 1);
    return line > 0 && line < 16 ? (int)line : -EBB_ENODEV;
}

/* microvm's own numbering: 24 places behind a second I/O APIC if there is one,
 * else 8, whose lines depend on whether the machine has ACPI. */
bool arch_mmio_place(unsigned i, uint64_t *address, unsigned *line)
{
    bool second = apic_ioapics() > 1;

    if (arch_pci_present() || i >= (second ? 24u : 8u))
        return false;
    *address = 0xfeb00000 + 512u * (uint64_t)i;
    *line = (second ? 24u : acpi.found ? 16u : 5u) + i;
    return true;
}
