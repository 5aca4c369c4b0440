/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * x86-64: names for backtraces. guest/symbols.py fills the table in after the
 * link; an empty one only makes backtraces less readable.
 */
#include "x86.h"

#define SYMBOLS_SIZE 24576u

/* count, then count pairs of (offset from text_start, offset of the name in
 * the table), sorted by address, then the names. */
__attribute__((section(".symbols"), used)) uint32_t ebb_guest_symbols[SYMBOLS_SIZE / 4] = {0};

const char *symbol_find(uint64_t address, uint64_t *offset)
{
    const volatile uint32_t *table = ebb_guest_symbols;
    uint64_t at = address - arch_address(text_start);
    uint32_t best = UINT32_MAX;

    if (address < arch_address(text_start) || address >= arch_address(text_end))
        return NULL;
    for (uint32_t i = 0; i < table[0]; i++)
        if (table[1 + 2 * i] <= at)
            best = i;
    if (best == UINT32_MAX)
        return NULL;
    *offset = at - table[1 + 2 * best];
    return (const char *)ebb_guest_symbols + table[2 + 2 * best];
}
