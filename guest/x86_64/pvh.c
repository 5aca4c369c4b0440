/* SPDX-License-Identifier: BSD-2-Clause */
/* x86-64: C begins here. What the PVH loader tells (memory map, command line,
 * ACPI), and QEMU's fw_cfg where it does not. */
#include "x86.h"

#define PVH_MAGIC 0x336ec578u
#define TYPE_RAM  1u

#define ADDRESS_END ((uint64_t)1 << 47) /* of the addresses that the page tables reach */

struct start_info {
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t module_count;
    uint64_t modules;
    uint64_t command_line;
    uint64_t rsdp;
    uint64_t memory_map; /* from version 1 on */
    uint32_t memory_map_count;
    uint32_t reserved;
};

struct memory_map_entry {
    uint64_t address;
    uint64_t size;
    uint32_t type;
    uint32_t reserved;
};

static struct arch_boot boot;
static char command_line[ARCH_COMMAND_LINE];

/* ---- fw_cfg, by its I/O ports ---- */

#define FW_CFG_SIGNATURE 0x00u
#define FW_CFG_CPUS      0x05u
#define FW_CFG_DIRECTORY 0x19u

static void fw_cfg_select(uint16_t key)
{
    outw(0x510, key);
}

static uint64_t fw_cfg_little(unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)inb(0x511) << 8 * i;
    return value;
}

static uint32_t fw_cfg_big(unsigned size)
{
    uint32_t value = 0;

    while (size-- > 0)
        value = value << 8 | inb(0x511);
    return value;
}

static bool fw_cfg_present(void)
{
    fw_cfg_select(FW_CFG_SIGNATURE);
    return fw_cfg_big(4) == 0x51454d55; /* "QEMU" */
}

uint16_t fw_cfg_cpus(void)
{
    if (!fw_cfg_present())
        return 0;
    fw_cfg_select(FW_CFG_CPUS);
    return (uint16_t)fw_cfg_little(2);
}

/* Select a file by name; its size, 0: there is none. */
static uint32_t fw_cfg_open(const char *name)
{
    uint16_t key = 0;
    uint32_t found = 0;

    fw_cfg_select(FW_CFG_DIRECTORY);
    for (uint32_t n = fw_cfg_big(4); n > 0; n--) {
        uint32_t size = fw_cfg_big(4);
        uint16_t select = (uint16_t)fw_cfg_big(2);
        char text[57];

        fw_cfg_big(2);
        for (unsigned i = 0; i < 56; i++)
            text[i] = (char)inb(0x511);
        text[56] = 0;
        if (text_equal(text, name)) {
            key = select;
            found = size;
        }
    }
    if (found)
        fw_cfg_select(key);
    return found;
}

/* ---- the memory map ---- */

static void add_ram(uint64_t start, uint64_t size, uint32_t type)
{
    uint64_t end = size < ADDRESS_END ? start + size : ADDRESS_END;
    unsigned i = boot.ram_count;

    if (type != TYPE_RAM || start >= ADDRESS_END || i == ARCH_RAM_LIMIT)
        return;
    if (end > ADDRESS_END)
        end = ADDRESS_END;
    start = round_up(start, EBB_FRAME_SIZE);
    end &= ~(EBB_FRAME_SIZE - 1);
    if (start >= end)
        return;
    for (; i > 0 && boot.ram[i - 1].start > start; i--)
        boot.ram[i] = boot.ram[i - 1];
    boot.ram[i] = (struct arch_range){start, end};
    boot.ram_count++;
}

static void remove_overlaps(void)
{
    for (unsigned i = 1; i < boot.ram_count; i++) {
        if (boot.ram[i].start < boot.ram[i - 1].end)
            boot.ram[i].start = boot.ram[i - 1].end;
        if (boot.ram[i].end < boot.ram[i].start)
            boot.ram[i].end = boot.ram[i].start;
    }
}

static void map_from_loader(const struct start_info *info)
{
    const struct memory_map_entry *map = arch_pointer(info->memory_map);

    for (uint32_t i = 0; i < info->memory_map_count; i++)
        add_ram(map[i].address, map[i].size, map[i].type);
}

static void map_from_fw_cfg(void)
{
    if (!fw_cfg_present())
        return;
    for (uint32_t left = fw_cfg_open("etc/e820"); left >= 20; left -= 20) {
        uint64_t address = fw_cfg_little(8);
        uint64_t size = fw_cfg_little(8);

        add_ram(address, size, (uint32_t)fw_cfg_little(4));
    }
}

static void copy_command_line(const struct start_info *info)
{
    const char *from = arch_pointer(info->command_line);
    size_t i = 0;

    for (; info->command_line && i < sizeof command_line - 1 && from[i]; i++)
        command_line[i] = from[i];
    command_line[i] = 0;
    boot.command_line = command_line;
    boot.command_line_cut = info->command_line && from[i];
}

_Noreturn void arch_start(uint64_t start_info)
{
    const struct start_info *info = arch_pointer(start_info);

    cpu_init_boot();
    serial_init();
    if (info->magic != PVH_MAGIC)
        arch_panic("not started by a PVH loader");
    copy_command_line(info);
    if (info->version >= 1 && info->memory_map)
        map_from_loader(info);
    if (boot.ram_count == 0)
        map_from_fw_cfg();
    remove_overlaps();
    acpi_init(info->rsdp);
    boot.image.start = arch_address(image_start);
    boot.image.end = round_up(arch_address(image_end), EBB_FRAME_SIZE);
    guest_main(&boot);
}

void arch_init(const struct arch_boot *info)
{
    paging_init(info);
    apic_init();
    time_init();
    serial_enable_input();
}
