/* SPDX-License-Identifier: BSD-2-Clause */
/* x86-64: what the guest needs of the ACPI tables: CPUs, I/O APICs, the PM timer. */
#include "x86.h"

#define EARLY_END   ((uint64_t)1 << 32)
#define HEADER      36u /* of every table but the first */
#define RSDP_FIRST  20u /* of version 1, with a checksum of its own */
#define RSDP_SIZE   36u
#define TABLE_LIMIT ((uint64_t)1 << 20) /* larger than any that is read here */

struct acpi acpi;

/* Tables are unaligned and packed: fields are read byte by byte. */
static uint64_t field(uint64_t table, unsigned offset, unsigned size)
{
    const volatile uint8_t *p = arch_pointer(table + offset);
    uint64_t value = 0;

    for (unsigned i = size; i-- > 0;)
        value = value << 8 | p[i];
    return value;
}

static bool signature(uint64_t table, const char *name, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        if (field(table, i, 1) != (uint8_t)name[i])
            return false;
    return true;
}

static void add_cpu(uint32_t id, uint32_t flags)
{
    if (!(flags & 1)) /* not enabled: a place to hot-plug one */
        return;
    for (unsigned i = 0; i < acpi.cpus; i++)
        if (acpi.cpu_ids[i] == id) /* told of by two kinds of entry */
            return;
    if (acpi.cpus == ARCH_CPU_LIMIT)
        acpi.cpus_beyond++;
    else
        acpi.cpu_ids[acpi.cpus++] = id;
}

static void madt_entry(uint64_t e, unsigned type, unsigned len)
{
    if (type == 0 && len >= 8) {
        add_cpu((uint32_t)field(e, 3, 1), (uint32_t)field(e, 4, 4));
    } else if (type == 9 && len >= 16) {
        if (field(e, 4, 4) < 0xff) /* beyond it only x2APIC mode reaches them */
            add_cpu((uint32_t)field(e, 4, 4), (uint32_t)field(e, 8, 4));
        else
            acpi.cpus_beyond++;
    } else if (type == 1 && len >= 12 && acpi.ioapic_count < IOAPIC_LIMIT) {
        acpi.ioapics[acpi.ioapic_count].address = field(e, 4, 4);
        acpi.ioapics[acpi.ioapic_count].base = (uint32_t)field(e, 8, 4);
        acpi.ioapic_count++;
    } else if (type == 2 && len >= 10 && acpi.override_count < OVERRIDE_LIMIT) {
        acpi.overrides[acpi.override_count].irq = (uint8_t)field(e, 3, 1);
        acpi.overrides[acpi.override_count].line = (uint32_t)field(e, 4, 4);
        acpi.overrides[acpi.override_count].flags = (uint16_t)field(e, 8, 2);
        acpi.override_count++;
    }
}

static void parse_madt(uint64_t madt, uint64_t length)
{
    uint64_t at = 44;

    while (at + 2 <= length) {
        unsigned len = (unsigned)field(madt + at, 1, 1);

        if (len < 2 || at + len > length)
            break;
        madt_entry(madt + at, (unsigned)field(madt + at, 0, 1), len);
        at += len;
    }
}

/* Only 4 GiB are mapped this early; firmware puts its tables there. */
static bool reachable(uint64_t address, uint64_t len)
{
    return address && address < EARLY_END && len <= EARLY_END - address;
}

/* The length of a table, from its header; 0: it cannot be one. */
static uint64_t table_length(uint64_t table)
{
    uint64_t length = reachable(table, HEADER) ? field(table, 4, 4) : 0;

    return length >= HEADER && length <= TABLE_LIMIT && reachable(table, length) ? length : 0;
}

static void parse_table(uint64_t table)
{
    uint64_t length = table_length(table);

    if (length == 0)
        return;
    if (signature(table, "APIC", 4))
        parse_madt(table, length);
    else if (signature(table, "FACP", 4) && length >= 80 && field(table, 76, 4) < 0x10000)
        acpi.pm_timer = (uint16_t)field(table, 76, 4);
}

static void parse_root(uint64_t rsdp)
{
    bool extended = field(rsdp, 15, 1) >= 2 && table_length(field(rsdp, 24, 8));
    uint64_t root = extended ? field(rsdp, 24, 8) : field(rsdp, 16, 4);
    uint64_t length = table_length(root);
    unsigned size = extended ? 8 : 4;

    if (length == 0 || !signature(root, extended ? "XSDT" : "RSDT", 4))
        return;
    acpi.found = true;
    for (uint64_t at = HEADER; at + size <= length; at += size)
        parse_table(field(root + at, 0, size));
}

/* Also a checksum: in the firmware's area anything may look like its name. */
static bool is_rsdp(uint64_t at)
{
    uint8_t sum = 0;

    for (unsigned i = 0; i < RSDP_FIRST; i++)
        sum = (uint8_t)(sum + field(at, i, 1));
    return sum == 0 && signature(at, "RSD PTR ", 8);
}

void acpi_init(uint64_t rsdp)
{
    if (!reachable(rsdp, RSDP_SIZE) || !is_rsdp(rsdp)) {
        rsdp = 0;
        for (uint64_t at = 0xe0000; at < 0x100000 && !rsdp; at += 16)
            if (is_rsdp(at))
                rsdp = at;
    }
    if (rsdp)
        parse_root(rsdp);
    if (acpi.cpus == 0) { /* a machine without ACPI numbers them from 0 */
        unsigned n = fw_cfg_cpus();

        for (unsigned i = 0; i < (n ? n : 1); i++)
            add_cpu(i, 1);
    }
    if (acpi.ioapic_count == 0) {
        acpi.ioapics[0].address = 0xfec00000;
        acpi.ioapic_count = 1;
    }
}
