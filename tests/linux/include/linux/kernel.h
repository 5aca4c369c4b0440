/* SPDX-License-Identifier: BSD-2-Clause */
/* What linux/zone.c and linux/scan.c use of the kernel's headers, for user space: its language. */
#ifndef EBB_TESTS_LINUX_KERNEL_H
#define EBB_TESTS_LINUX_KERNEL_H

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;

struct work_struct;
typedef void (*work_func_t)(struct work_struct *work);

#define NSEC_PER_MSEC 1000000L
#define SZ_1M         0x100000
#define SZ_4M         0x400000
#define PAGE_SHIFT    12

#define DIV_ROUND_UP(a, b) (((a) + (b)-1) / (b))
#define min(a, b)                                     \
    ({                                                \
        __auto_type min_a_ = (a);                     \
        __auto_type min_b_ = (b);                     \
        (u64) min_a_ < (u64)min_b_ ? min_a_ : min_b_; \
    })
#define max(a, b)                                     \
    ({                                                \
        __auto_type max_a_ = (a);                     \
        __auto_type max_b_ = (b);                     \
        (u64) max_a_ > (u64)max_b_ ? max_a_ : max_b_; \
    })
#define min_t(type, a, b)   ((type)(a) < (type)(b) ? (type)(a) : (type)(b))
#define clamp(a, low, high) ((a) < (low) ? (low) : (a) > (high) ? (high) : (a))
#define container_of(pointer, type, member) \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/*
 * A marked read may race with a plain write of a word: that is the kernel's rule (KCSAN takes such
 * writes for atomic), so the thread sanitizer does not see it. Numbers only.
 */
unsigned long shim_read_once(const volatile void *from, size_t size);
#define READ_ONCE(x)     ((__typeof__((x) + 0))shim_read_once(&(x), sizeof(x)))
#define WRITE_ONCE(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELAXED)

typedef struct {
    long value;
} atomic_long_t;

#define atomic_long_read(a)    __atomic_load_n(&(a)->value, __ATOMIC_RELAXED)
#define atomic_long_set(a, v)  __atomic_store_n(&(a)->value, (long)(v), __ATOMIC_RELAXED)
#define atomic_long_xchg(a, v) __atomic_exchange_n(&(a)->value, (long)(v), __ATOMIC_SEQ_CST)

#define cond_resched() ((void)0)

#endif
