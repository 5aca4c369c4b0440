/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device's registers, and their order with the memory that it shares.
 *
 * Registers are mapped uncached: the accesses to one device's registers reach it in the order of
 * the program, on all machines here. What has to be said is their order with accesses to memory,
 * which the ring and the allocator make. In a virtual machine the access to a register is mostly
 * an exit, or a trap that orders more than that; nothing here relies on it.
 *
 * x86-64 needs no instruction: stores become visible in order, loads are made in order, and
 * accesses to uncached memory are not passed by them. The compiler is to keep the order, too.
 */
#ifndef EBB_DRIVER_IO_H
#define EBB_DRIVER_IO_H

#include <stdint.h>

/* Registers are little-endian, and accessed as they are. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "ebb runs on little-endian machines");

/*
 * Between stores to memory and the write of a register that makes the device look at them: the
 * ring before its doorbell, rings before DRIVER_OK, and what was written before a reset that gives
 * memory back. Without it the device could be notified, find nothing, and sleep for good.
 */
static inline void ebb__memory_before_register(void)
{
#if defined(__x86_64__)
    __asm__ volatile("" : : : "memory");
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("dmb oshst" : : : "memory"); /* ARMv7 and later */
#elif defined(__riscv)
    __asm__ volatile("fence w, o" : : : "memory");
#else
    __sync_synchronize(); /* enough if it orders device accesses as well */
#endif
}

/*
 * Between accesses to registers and what is done with memory since then: causes of an interrupt
 * read and acknowledged before the used index is read (else an entry that the device adds in
 * between is neither seen now nor told of later), and a reset seen to be over before blocks are
 * used again. The acknowledgement is a write, so that this orders more than reads.
 */
static inline void ebb__register_before_memory(void)
{
#if defined(__x86_64__)
    __asm__ volatile("" : : : "memory");
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("dmb osh" : : : "memory");
#elif defined(__riscv)
    __asm__ volatile("fence io, rw" : : : "memory");
#else
    __sync_synchronize();
#endif
}

/*
 * ebb__readN(), ebb__writeN(): N bits, naturally aligned, in one access. On ARM in assembly: a
 * hypervisor is told by the hardware which access it has to do for a guest, but not if the
 * instruction also moves the address on or takes two registers, and compilers may choose such.
 */
#if defined(__aarch64__)
#define EBB__IO_WIDTH "w"
#elif defined(__arm__)
#define EBB__IO_WIDTH ""
#endif

#ifdef EBB__IO_WIDTH
#define EBB__IO(bits, suffix)                                                    \
    static inline uint##bits##_t ebb__read##bits(const volatile void *at)        \
    {                                                                            \
        uint32_t value;                                                          \
                                                                                 \
        __asm__ volatile("ldr" suffix " %" EBB__IO_WIDTH "0, [%1]"               \
                         : "=r"(value)                                           \
                         : "r"(at), "m"(*(const volatile uint##bits##_t *)at));  \
        return (uint##bits##_t)value;                                            \
    }                                                                            \
    static inline void ebb__write##bits(volatile void *at, uint##bits##_t value) \
    {                                                                            \
        __asm__ volatile("str" suffix " %" EBB__IO_WIDTH "1, [%2]"               \
                         : "=m"(*(volatile uint##bits##_t *)at)                  \
                         : "r"((uint32_t)value), "r"(at));                       \
    }
#else
#define EBB__IO(bits, suffix)                                                    \
    static inline uint##bits##_t ebb__read##bits(const volatile void *at)        \
    {                                                                            \
        return *(const volatile uint##bits##_t *)at;                             \
    }                                                                            \
    static inline void ebb__write##bits(volatile void *at, uint##bits##_t value) \
    {                                                                            \
        *(volatile uint##bits##_t *)at = value;                                  \
    }
#endif

EBB__IO(8, "b")
EBB__IO(16, "h")
EBB__IO(32, "")

/* In halves, the lower one first: registers of 64 bits need not take more at once. */
static inline void ebb__write64(volatile void *at, uint64_t value)
{
    ebb__write32(at, (uint32_t)value);
    ebb__write32((volatile uint32_t *)at + 1, (uint32_t)(value >> 32));
}

/* The features are read and written in halves, by a register that says which. */
static inline uint64_t ebb__read_features(volatile void *select, const volatile void *half)
{
    uint64_t high;

    ebb__write32(select, 1);
    high = ebb__read32(half);
    ebb__write32(select, 0);
    return high << 32 | ebb__read32(half);
}

static inline void ebb__write_features(volatile void *select, volatile void *half, uint64_t value)
{
    ebb__write32(select, 1);
    ebb__write32(half, (uint32_t)(value >> 32));
    ebb__write32(select, 0);
    ebb__write32(half, (uint32_t)value);
}

#endif
