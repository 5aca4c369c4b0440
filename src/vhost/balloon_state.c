/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Save and restore. Little-endian, of fixed size; what is not used is zero:
 *
 *   0  "EBBBALLN"   8  le32 version   12  le32 size of all this
 *  16  le64 features accepted         24  le32 flags (bit 0: accepted at all, 1: NEEDS_RESET)
 *  28  le32 num_pages, actual, poison_val, hint id, hint state, disabled queues (bits)
 *  64  for each queue, 40 bytes: le32 flags (bit 0: runs), number, size, next available index;
 *      le64 descriptors, available, used
 */
#include "balloon.h"

#include <string.h>

static const uint8_t magic[8] = {'E', 'B', 'B', 'B', 'A', 'L', 'L', 'N'};

#define VERSION 1u

#define AT_VERSION  8u
#define AT_SIZE     12u
#define AT_ACCEPTED 16u
#define AT_FLAGS    24u
#define AT_FIELDS   28u
#define AT_QUEUES   64u
#define QUEUE_BYTES 40u
#define AT_END      (AT_QUEUES + EBB_BALLOON_QUEUES * QUEUE_BYTES)

#define FLAG_NEGOTIATED  1u
#define FLAG_NEEDS_RESET 2u

_Static_assert(AT_END <= EBB_BALLOON_DEVICE_STATE_SIZE, "the state fits");

/* ---- save ---- */

static void save_queue(const struct ebb_balloon_device *device,
                       const struct ebb__balloon_queue *queue, uint8_t *to)
{
    if (!queue->running)
        return;
    ebb__balloon_put_le(&to[0], 1, 4);
    ebb__balloon_put_le(&to[4], queue->number, 4);
    ebb__balloon_put_le(&to[8], queue->vring.size, 4);
    ebb__balloon_put_le(&to[12], ebb__balloon_next_index(device, queue), 4);
    ebb__balloon_put_le(&to[16], queue->vring.desc, 8);
    ebb__balloon_put_le(&to[24], queue->vring.avail, 8);
    ebb__balloon_put_le(&to[32], queue->vring.used, 8);
}

void ebb_balloon_device_save(struct ebb_balloon_device *device, void *state)
{
    const uint32_t fields[] = {
        device->target,  device->actual,         device->poison_val,
        device->hint_id, (uint32_t)device->hint, device->disabled,
    };
    uint32_t flags = device->negotiated ? FLAG_NEGOTIATED : 0;
    uint8_t *to = state;

    ebb_balloon_device_quiesce(device);
    if (device->status & EBB_STATUS_NEEDS_RESET)
        flags |= FLAG_NEEDS_RESET;
    memset(to, 0, EBB_BALLOON_DEVICE_STATE_SIZE);
    memcpy(to, magic, sizeof(magic));
    ebb__balloon_put_le(&to[AT_VERSION], VERSION, 4);
    ebb__balloon_put_le(&to[AT_SIZE], EBB_BALLOON_DEVICE_STATE_SIZE, 4);
    ebb__balloon_put_le(&to[AT_ACCEPTED], device->accepted, 8);
    ebb__balloon_put_le(&to[AT_FLAGS], flags, 4);
    for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        ebb__balloon_put_le(&to[AT_FIELDS + 4 * i], fields[i], 4);
    for (unsigned i = 0; i < EBB_BALLOON_QUEUES; i++)
        save_queue(device, &device->queues[i], &to[AT_QUEUES + i * QUEUE_BYTES]);
}

/* ---- restore: decode, check, then act ---- */

struct saved_queue {
    bool runs;
    uint32_t number;
    struct ebb_balloon_device_vring vring;
};

struct saved {
    uint64_t accepted;
    uint32_t flags;
    uint32_t target, actual, poison_val, hint_id, hint, disabled;
    struct saved_queue queues[EBB_BALLOON_QUEUES];
};

static uint32_t get32(const uint8_t *from)
{
    return (uint32_t)ebb__balloon_le(from, 4);
}

static bool all_zero(const uint8_t *from, unsigned bytes)
{
    uint8_t any = 0;

    for (unsigned i = 0; i < bytes; i++)
        any |= from[i];
    return any == 0;
}

static bool decode_queue(const uint8_t *from, struct saved_queue *queue)
{
    const uint32_t runs = get32(&from[0]), start = get32(&from[12]);

    queue->runs = runs == 1;
    queue->number = get32(&from[4]);
    queue->vring = (struct ebb_balloon_device_vring){
        .size = get32(&from[8]),
        .desc = ebb__balloon_le(&from[16], 8),
        .avail = ebb__balloon_le(&from[24], 8),
        .used = ebb__balloon_le(&from[32], 8),
        .start = (uint16_t)start,
    };
    if (!queue->runs)
        return all_zero(from, QUEUE_BYTES);
    return start <= UINT16_MAX;
}

static bool decode(const uint8_t *from, struct saved *saved)
{
    if (memcmp(from, magic, sizeof(magic)) != 0 || get32(&from[AT_VERSION]) != VERSION ||
        get32(&from[AT_SIZE]) != EBB_BALLOON_DEVICE_STATE_SIZE)
        return false;
    saved->accepted = ebb__balloon_le(&from[AT_ACCEPTED], 8);
    saved->flags = get32(&from[AT_FLAGS]);
    saved->target = get32(&from[AT_FIELDS]);
    saved->actual = get32(&from[AT_FIELDS + 4]);
    saved->poison_val = get32(&from[AT_FIELDS + 8]);
    saved->hint_id = get32(&from[AT_FIELDS + 12]);
    saved->hint = get32(&from[AT_FIELDS + 16]);
    saved->disabled = get32(&from[AT_FIELDS + 20]);
    for (unsigned i = 0; i < EBB_BALLOON_QUEUES; i++) {
        if (!decode_queue(&from[AT_QUEUES + i * QUEUE_BYTES], &saved->queues[i]))
            return false;
    }
    return all_zero(&from[AT_FIELDS + 24], AT_QUEUES - AT_FIELDS - 24) &&
           all_zero(&from[AT_END], EBB_BALLOON_DEVICE_STATE_SIZE - AT_END);
}

static bool is_possible(const struct ebb_balloon_device *device, const struct saved *saved)
{
    const bool hints = saved->hint != EBB__HINT_NONE;

    if (saved->flags & ~(FLAG_NEGOTIATED | FLAG_NEEDS_RESET))
        return false;
    if ((saved->accepted & ~device->offered) ||
        (saved->accepted != 0 && !(saved->flags & FLAG_NEGOTIATED)))
        return false;
    if (saved->hint >= EBB__HINT_STATES || (hints && saved->hint_id < EBB__HINT_FIRST) ||
        (hints && !(saved->accepted & EBB_F_FREE_PAGE_HINT)))
        return false;
    if (saved->poison_val != 0 && !(device->offered & EBB_F_PAGE_POISON))
        return false;
    return saved->disabled >> EBB_BALLOON_QUEUES == 0;
}

static bool start_queues(struct ebb_balloon_device *device, struct saved *saved,
                         ebb_ring_translate translate, void *ctx)
{
    for (unsigned i = 0; i < EBB_BALLOON_QUEUES; i++) {
        struct saved_queue *queue = &saved->queues[i];

        if (!queue->runs)
            continue;
        queue->vring.translate = translate;
        queue->vring.translate_ctx = ctx;
        if (ebb__balloon_queue_of(device, queue->number) != (int)i ||
            ebb_balloon_device_start(device, queue->number, &queue->vring) != 0)
            return false;
        device->queues[i].pending = true;
    }
    return true;
}

static void apply(struct ebb_balloon_device *device, const struct saved *saved)
{
    device->accepted = saved->accepted;
    device->negotiated = saved->flags & FLAG_NEGOTIATED;
    device->status = saved->flags & FLAG_NEEDS_RESET ? EBB_STATUS_NEEDS_RESET : 0;
    device->actual = saved->actual;
    device->poison_val = saved->poison_val;
    device->hint_id = saved->hint_id;
    device->hint = (enum ebb__hint_state)saved->hint;
    device->disabled = saved->disabled;
}

int ebb_balloon_device_restore(struct ebb_balloon_device *device, const void *state,
                               ebb_ring_translate translate, void *ctx)
{
    const uint32_t hint_id = device->hint_id;
    struct saved saved;

    ebb_balloon_device_reset(device);
    if (!decode(state, &saved) || !is_possible(device, &saved))
        return -EBB_EINVAL;
    apply(device, &saved);
    if (!start_queues(device, &saved, translate, ctx)) {
        ebb_balloon_device_reset(device);
        device->hint_id = hint_id;
        return -EBB_EINVAL;
    }
    device->target = saved.target;
    device->config.ops->wake(device->config.ctx);
    return 0;
}
