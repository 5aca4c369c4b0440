/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Compare and swap of 16 bits, for the states of frames.
 *
 * Machines with one use it: x86-64, aarch64, ARMv7. riscv64 compares and swaps words of 32 bits
 * only, and gcc would call libatomic, which a kernel does not have. So there the word is swapped
 * that the 16 bits lie in, with its other half as it was read.
 *
 * The other half is another frame's state. It may change at any time, by a plain 16-bit store or
 * by a swap like this one, under another lock. That is right, since:
 *   - the swap of the word takes effect only if no other CPU has stored to any byte of the word
 *     since it was read, whatever the width of that store: load-reserved and store-conditional
 *     (which is what such a swap is on riscv64) fail otherwise, and a swap in one instruction is
 *     atomic for all of the word. It is then tried again with what the other half is now. A value
 *     that is the same again (ABA) does no harm: what is stored is what is there;
 *   - a store of 16 bits changes no other bytes, so it undoes no swap;
 *   - this half is compared anew in each turn. The result is false only if it was seen to differ.
 * Two things are needed besides:
 *   - both halves are inside one array that is aligned to a word and has an even number of
 *     elements (setup.c: metadata is aligned, and states come in whole pageblocks);
 *   - an interrupt between load and store-conditional, whose handler stores to the other half on
 *     this same CPU, must make the store fail. riscv64 does not promise that by itself: a
 *     reservation survives a trap and stores of one's own. So a trap handler ends it before it
 *     returns, by a store-conditional to its own stack, as kernels do (docs/porting.md).
 * Relaxed order is enough, as for all of the states: see zone_private.h.
 */
#ifndef EBB_ZONE_ATOMIC16_H
#define EBB_ZONE_ATOMIC16_H

#include <stdbool.h>
#include <stdint.h>

/* Which half of its word an address means. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "ebb runs on little-endian machines");

/* If *at is `seen`, it becomes `to`. By a swap of the word around it. */
static inline bool ebb__swap16_in_word(uint16_t *at, uint16_t seen, uint16_t to)
{
    typedef uint32_t __attribute__((may_alias)) word;
    const uintptr_t address = (uintptr_t)at;
    word *around = (word *)(address & ~(uintptr_t)3);
    const unsigned shift = (unsigned)(address & 2) * 8;
    uint32_t old = __atomic_load_n(around, __ATOMIC_RELAXED);
    uint32_t wanted;

    do {
        if ((uint16_t)(old >> shift) != seen)
            return false;
        wanted = (old & ~((uint32_t)0xffff << shift)) | (uint32_t)to << shift;
    } while (!__atomic_compare_exchange_n(around, &old, wanted, true, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
    return true;
}

/* The same, as this machine does it best. */
static inline bool ebb__swap16(uint16_t *at, uint16_t seen, uint16_t to)
{
#ifdef __GCC_HAVE_SYNC_COMPARE_AND_SWAP_2
    return __atomic_compare_exchange_n(at, &seen, to, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
#else
    return ebb__swap16_in_word(at, seen, to);
#endif
}

#endif
