/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Numbers of virtio 1.2 that a balloon needs: sections 2.1 (status), 2.2 and 6
 * (features), 5.5 (traditional memory balloon).
 */
#ifndef EBB_VIRTIO_H
#define EBB_VIRTIO_H

#include <ebb/types.h>

#define EBB_VIRTIO_ID_BALLOON 5u

/* Device status bits. */
#define EBB_STATUS_ACKNOWLEDGE 1u
#define EBB_STATUS_DRIVER      2u
#define EBB_STATUS_DRIVER_OK   4u
#define EBB_STATUS_FEATURES_OK 8u
#define EBB_STATUS_NEEDS_RESET 64u
#define EBB_STATUS_FAILED      128u

/* Feature bits, as masks. */
#define EBB_F_MUST_TELL_HOST  ((uint64_t)1 << 0)
#define EBB_F_STATS_VQ        ((uint64_t)1 << 1)
#define EBB_F_DEFLATE_ON_OOM  ((uint64_t)1 << 2)
#define EBB_F_FREE_PAGE_HINT  ((uint64_t)1 << 3)
#define EBB_F_PAGE_POISON     ((uint64_t)1 << 4)
#define EBB_F_PAGE_REPORTING  ((uint64_t)1 << 5)
#define EBB_F_INDIRECT_DESC   ((uint64_t)1 << 28)
#define EBB_F_EVENT_IDX       ((uint64_t)1 << 29)
#define EBB_F_VERSION_1       ((uint64_t)1 << 32)
#define EBB_F_ACCESS_PLATFORM ((uint64_t)1 << 33)

/* Configuration space: four le32, accessed as they are, like the page numbers that are sent. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "ebb runs on little-endian machines");
#define EBB_BALLOON_CFG_NUM_PAGES   0u
#define EBB_BALLOON_CFG_ACTUAL      4u
#define EBB_BALLOON_CFG_HINT_CMD_ID 8u
#define EBB_BALLOON_CFG_POISON_VAL  12u

/* Queue numbers as the specification fixes them (5.5.2). QEMU and Linux count
 * only the queues that exist instead. */
enum ebb_balloon_queue {
    EBB_BALLOON_INFLATE = 0,
    EBB_BALLOON_DEFLATE = 1,
    EBB_BALLOON_STATS = 2,
    EBB_BALLOON_HINT = 3,
    EBB_BALLOON_REPORTING = 4,
    EBB_BALLOON_QUEUES = 5,
};

/* Statistics: packed entries of le16 tag, le64 value (5.5.6.3). */
enum ebb_balloon_stat_tag {
    EBB_STAT_SWAP_IN = 0,
    EBB_STAT_SWAP_OUT = 1,
    EBB_STAT_MAJFLT = 2,
    EBB_STAT_MINFLT = 3,
    EBB_STAT_MEMFREE = 4,
    EBB_STAT_MEMTOT = 5,
    EBB_STAT_AVAIL = 6,
    EBB_STAT_CACHES = 7,
    EBB_STAT_HTLB_PGALLOC = 8,
    EBB_STAT_HTLB_PGFAIL = 9,
};
#define EBB_STAT_ENTRY_SIZE 10u

#endif
