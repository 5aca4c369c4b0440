/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Types shared by every part of ebb. Freestanding C11.
 *
 * Units used throughout: a *frame* is one 4 KiB page of physical memory, a
 * *pfn* its number (address >> 12), a *block* 2^order frames, naturally
 * aligned to its own size.
 */
#ifndef EBB_TYPES_H
#define EBB_TYPES_H

#ifdef __KERNEL__ /* of Linux: linux/ */
#include <linux/stddef.h>
#include <linux/types.h>
#ifndef UINT64_MAX
#define UINT64_MAX ((uint64_t)-1)
#endif
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#endif

#define EBB_VERSION "0.1.0"

#define EBB_FRAME_SHIFT 12u
#define EBB_FRAME_SIZE  ((uint64_t)1 << EBB_FRAME_SHIFT)

/* The largest order that can be configured: 2^18 frames are 1 GiB. */
#define EBB_ORDER_LIMIT 18u
#define EBB_ORDERS      (EBB_ORDER_LIMIT + 1u)

#define EBB_MUST_CHECK  __attribute__((warn_unused_result))
#define EBB_RARE        __attribute__((cold)) /* made small rather than fast */
#define EBB_LIKELY(x)   __builtin_expect(!!(x), 1)
#define EBB_UNLIKELY(x) __builtin_expect(!!(x), 0)

typedef uint64_t ebb_pfn_t;

/* Functions that can fail return 0 (or a count) on success and one of these,
 * negated, on failure. The numbers are those of Linux's errno. */
enum ebb_err {
    EBB_EPERM = 1,
    EBB_ENOENT = 2,
    EBB_EIO = 5,
    EBB_EAGAIN = 11,
    EBB_ENOMEM = 12,
    EBB_EFAULT = 14,
    EBB_EBUSY = 16,
    EBB_EEXIST = 17,
    EBB_ENODEV = 19,
    EBB_EINVAL = 22,
    EBB_ENOSPC = 28,
    EBB_ERANGE = 34,
    EBB_EPROTO = 71,
    EBB_EOVERFLOW = 75,
    EBB_EOPNOTSUPP = 95,
    EBB_ETIMEDOUT = 110,
    EBB_ECANCELED = 125,
};

/* A range of guest-physical memory: address and length in bytes. */
struct ebb_range {
    uint64_t addr;
    uint64_t len;
};

#endif
