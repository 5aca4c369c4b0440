/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Split virtqueue (virtio 1.2, section 2.7), both halves. Freestanding.
 *
 * Each half treats the other as hostile: an index, id or length that the peer
 * wrote is read once and checked before it is used; what a half needs to know
 * later it keeps in private memory and never reads back from the ring. After a
 * peer broke the protocol the ring is *broken*: every call returns -EBB_EPROTO
 * until it is initialised anew.
 *
 * No indirect descriptors, no event index: neither feature may be negotiated.
 * Not thread-safe: one caller at a time per half, the callers' lock.
 */
#ifndef EBB_RING_H
#define EBB_RING_H

#include <ebb/types.h>

#define EBB_RING_SIZE_LIMIT 1024u

/* Bytes in one chain, at most. The specification says 2^32 (2.7.5.2); one less,
 * so that a used length can say "all of it". */
#define EBB_RING_CHAIN_LIMIT UINT32_MAX

/* Wire format; all fields little-endian, and accessed as they are. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "ebb runs on little-endian machines");
struct ebb_ring_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};
#define EBB_DESC_NEXT     1u
#define EBB_DESC_WRITE    2u /* device-writable */
#define EBB_DESC_INDIRECT 4u

struct ebb_ring_used_elem {
    uint32_t id;
    uint32_t len;
};

#define EBB_AVAIL_NO_INTERRUPT 1u
#define EBB_USED_NO_NOTIFY     1u

/*
 * Bytes of shared memory for a ring of `size` entries laid out in one piece
 * (descriptors at 0, aligned to 16; then the driver area, aligned to 2; then
 * the device area, aligned to 4), and where its parts begin. size: a power of
 * two, 1 to EBB_RING_SIZE_LIMIT; anything else gives total 0.
 */
struct ebb_ring_layout {
    size_t desc;
    size_t avail;
    size_t used;
    size_t total;
};
struct ebb_ring_layout ebb_ring_layout(unsigned size);

/* ---- driver half ---- */

/* A buffer: part of a chain. */
struct ebb_ring_buf {
    uint64_t addr; /* guest-physical */
    uint32_t len;  /* bytes, at least 1 */
    bool write;    /* device-writable; in a chain these follow the readable ones */
};

/* Private per descriptor. */
struct ebb_ring_slot {
    void *token;    /* of the chain that starts here; NULL: no chain starts here */
    uint32_t bytes; /* device-writable bytes of that chain */
    uint16_t count; /* descriptors in it */
    uint16_t next;  /* next descriptor, of the chain or of the free ones */
};

struct ebb_ring_driver {
    unsigned size;
    volatile struct ebb_ring_desc *desc;
    volatile uint16_t *avail; /* flags, idx, ring[] */
    volatile uint16_t *used;  /* flags, idx, then elements */
    struct ebb_ring_slot *slots;
    uint16_t free_head;
    uint16_t free_count;
    uint16_t avail_idx;  /* next to publish */
    uint16_t kicked_idx; /* published at the last ebb_ring_driver_kick() */
    uint16_t used_idx;   /* next to look at */
    bool broken;
};

/*
 * Start with an empty ring. `shared` holds ebb_ring_layout(size).total bytes,
 * aligned to 16, which it clears; `slots` holds size entries. Both belong to
 * the ring until its device has been reset.
 * -EBB_EINVAL: bad size.
 */
EBB_MUST_CHECK int ebb_ring_driver_init(struct ebb_ring_driver *ring, unsigned size, void *shared,
                                        struct ebb_ring_slot *slots);

/*
 * Add a chain of n buffers and publish it. `token` (not NULL) comes back with
 * it. -EBB_ENOSPC: fewer than n descriptors free. -EBB_EINVAL: n is 0, or a
 * writable buffer before a readable one, a length of 0, or more than
 * EBB_RING_CHAIN_LIMIT bytes together. -EBB_EPROTO: broken.
 */
EBB_MUST_CHECK int ebb_ring_driver_add(struct ebb_ring_driver *ring,
                                       const struct ebb_ring_buf *bufs, unsigned n, void *token);

/* True if the device wants to be notified of what was added since the last call. */
bool ebb_ring_driver_kick(struct ebb_ring_driver *ring);

/*
 * Take one used chain back. 1: *token and *len (device-written bytes, at most
 * the chain's writable ones) are set. 0: none yet. -EBB_EPROTO: the device
 * named a chain that it does not have, claimed more bytes than there are, or
 * moved its index too far; the ring is broken. A chain without writable bytes
 * comes back with length 0 whatever the device claims: several VMMs set
 * it wrong there, and nobody can be misled by it.
 */
EBB_MUST_CHECK int ebb_ring_driver_get(struct ebb_ring_driver *ring, void **token, uint32_t *len);

/* Ask the device not to interrupt / to interrupt. After asking it to, look for
 * used chains once more. */
void ebb_ring_driver_interrupts(struct ebb_ring_driver *ring, bool on);

/* Chains that the device has. */
unsigned ebb_ring_driver_pending(const struct ebb_ring_driver *ring);

/* ---- device half ---- */

/*
 * The only way from a guest address to a byte: the host address of [gpa,
 * gpa + len), all of it guest memory, or NULL. Overflow-safe.
 */
typedef void *(*ebb_ring_translate)(void *ctx, uint64_t gpa, uint64_t len);

struct ebb_ring_device {
    unsigned size;
    volatile struct ebb_ring_desc *desc;
    volatile uint16_t *avail;
    volatile uint16_t *used;
    uint16_t avail_idx; /* next to take */
    uint16_t used_idx;  /* next to publish */
    bool broken;
};

/*
 * Attach to rings that a driver laid out at three guest addresses; starts at
 * the given available index (0 for a new ring), and at the used index that is
 * found in the ring. -EBB_EINVAL: bad size, or an
 * address that is misaligned or not guest memory.
 */
EBB_MUST_CHECK int ebb_ring_device_init(struct ebb_ring_device *ring, unsigned size,
                                        uint64_t desc_gpa, uint64_t avail_gpa, uint64_t used_gpa,
                                        uint16_t start, ebb_ring_translate translate, void *ctx);

/*
 * Take the next chain, copying each descriptor once: its buffers (addresses as
 * the driver wrote them, unchecked) go to bufs[0..n), n returned, head to *head.
 * 0: none. -EBB_EPROTO: the available index moved too far, a head or next out
 * of range, a loop, an indirect descriptor, a readable buffer behind a writable
 * one; the ring is broken. `bufs` holds `size` entries. Zero-length buffers are
 * passed on. Every taken head must go back by ebb_ring_device_put(), once.
 */
EBB_MUST_CHECK int ebb_ring_device_take(struct ebb_ring_device *ring, struct ebb_ring_buf *bufs,
                                        uint16_t *head);

/* Give a chain back: len device-written bytes. Works on a broken ring too. */
void ebb_ring_device_put(struct ebb_ring_device *ring, uint16_t head, uint32_t len);

/* True if the driver wants to be interrupted. */
bool ebb_ring_device_wants_call(const struct ebb_ring_device *ring);

/* Ask the driver not to notify / to notify. After asking it to, take once more. */
void ebb_ring_device_notifications(struct ebb_ring_device *ring, bool on);

#endif
