/* SPDX-License-Identifier: BSD-2-Clause */
/* x86-64: page table entries, for vm.c. */
#ifndef GUEST_X86_64_ENTRIES_H
#define GUEST_X86_64_ENTRIES_H

#include <ebb/types.h>

/* User memory: 512 GiB in the upper half, what one entry of the root covers. */
#define ARCH_USER_START ((uint64_t)0xffff800000000000)
#define ARCH_USER_SHIFT 39u

#define ENTRY_PRESENT  0x001u
#define ENTRY_WRITABLE 0x002u
#define ENTRY_ACCESSED 0x020u
#define ENTRY_DIRTY    0x040u
#define ENTRY_LARGE    0x080u
#define ENTRY_ADDRESS  ((uint64_t)0x000ffffffffff000)

/* Accessed and dirty from the start: they are, and a processor need not write it there. */
#define ENTRY_FRAME (ENTRY_PRESENT | ENTRY_WRITABLE | ENTRY_ACCESSED | ENTRY_DIRTY)

static inline uint64_t arch_entry_table(uint64_t address)
{
    return address | ENTRY_PRESENT | ENTRY_WRITABLE;
}
static inline uint64_t arch_entry_small(uint64_t address)
{
    return address | ENTRY_FRAME;
}
static inline uint64_t arch_entry_large(uint64_t address)
{
    return address | ENTRY_FRAME | ENTRY_LARGE;
}
static inline uint64_t arch_entry_address(uint64_t entry)
{
    return entry & ENTRY_ADDRESS;
}
/* Of an entry that covers 2 MiB, not 0. */
static inline bool arch_entry_is_large(uint64_t entry)
{
    return entry & ENTRY_LARGE;
}

#endif
