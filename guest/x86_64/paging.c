/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * x86-64: the final page tables. One to one, RAM by pages of 2 MiB, device
 * memory uncached and only where something was found; frame 0 stays unmapped,
 * so that a NULL pointer is a page fault.
 */
#include "x86.h"

#define PRESENT   0x01u
#define WRITABLE  0x02u
#define UNCACHED  0x18u /* PCD and PWT */
#define LARGE     0x80u
#define LARGE_LEN 0x200000u
#define ADDRESS   0x000ffffffffff000u

/* Tables for devices found after memory_init(). */
#define SPARE_TABLES 24u

static uint64_t *root;
static uint8_t *spare;
static unsigned spare_left;
static bool early = true;

uint64_t paging_root(void)
{
    return arch_address(root);
}

static uint64_t *new_table(void)
{
    if (early)
        return early_alloc(4096, 4096);
    if (spare_left == 0)
        return NULL;
    return (uint64_t *)(void *)(spare + 4096 * --spare_left);
}

static uint64_t *next_table(uint64_t *entry)
{
    uint64_t *table;

    if (*entry & PRESENT)
        return arch_pointer(*entry & ADDRESS);
    table = new_table();
    if (table)
        *entry = arch_address(table) | PRESENT | WRITABLE;
    return table;
}

/* The page directory entry of an address below 256 TiB; NULL: out of tables. */
static uint64_t *directory_entry(uint64_t address)
{
    uint64_t *table = next_table(&root[address >> 39 & 511]);

    if (table)
        table = next_table(&table[address >> 30 & 511]);
    return table ? &table[address >> 21 & 511] : NULL;
}

static bool map(uint64_t address, uint64_t end, uint64_t flags)
{
    for (address &= ~(uint64_t)(LARGE_LEN - 1); address < end; address += LARGE_LEN) {
        uint64_t *entry = directory_entry(address);

        if (!entry)
            return false;
        if (!(*entry & PRESENT))
            *entry = address | flags | LARGE | PRESENT | WRITABLE;
    }
    return true;
}

static void map_first(void)
{
    uint64_t *entry = directory_entry(0);
    uint64_t *table = next_table(entry);

    for (uint64_t i = 1; i < 512; i++)
        table[i] = i << 12 | PRESENT | WRITABLE;
}

void paging_init(const struct arch_boot *boot)
{
    root = early_alloc(4096, 4096);
    map_first();
    for (unsigned i = 0; i < boot->ram_count; i++)
        map(boot->ram[i].start, boot->ram[i].end, 0);
    spare = early_alloc(4096 * SPARE_TABLES, 4096);
    spare_left = SPARE_TABLES;
    early = false;
    __asm__ volatile("movq %0, %%cr3" : : "r"(root) : "memory");
}

volatile void *arch_map_device(uint64_t address, uint64_t len)
{
    if (len == 0 || address + len < address || address + len > (uint64_t)1 << 47)
        return NULL;
    return map(address, address + len, UNCACHED) ? arch_pointer(address) : NULL;
}
