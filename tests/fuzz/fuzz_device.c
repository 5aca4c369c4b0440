/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A balloon device: a script of what a guest, a transport and an operator do. Discards are checked
 * by guard.c, and batches end when the script says so (sync_pool.h).
 *
 * An input: 4 bytes of configuration (new_device()), then steps: one byte, and what it needs (see
 * the functions; `steps` at the end has their numbers). A place in guest memory is one byte, of a
 * region in `slots` (and 3 bytes: how far in), or 0xff (and 8 bytes: the address). A queue is one
 * byte.
 */
#include "fuzz.h"
#include "guard.h"
#include "sync_pool.h"

#include <ebb/vhost/balloon_device.h>

#include <errno.h>
#include <string.h>

#define STEPS      300u
#define MUTATIONS  8u
#define BATCH_MOST 256u /* chains */

#define SHARED  EBB_BACKING_SHARED
#define HUGETLB EBB_BACKING_HUGETLB

/* ---- guest memory ---- */

struct slot {
    uint64_t gpa, size, page, offset;
    int fd; /* a number only: no file is touched */
    enum ebb_backing backing;
    bool unmapped;
};

/* Regions that come and go. */
static const struct slot slots[] = {
    {0x0, 0x10000, 0x1000, 0x0, 1000, SHARED, false}, /* the rings are here */
    {0x10000, 0x10000, 0x1000, 0x10000, 1000, SHARED, false},
    {0x100000000, 0x10000, 0x1000, 0x20000, 1000, SHARED, false},
    {0x200000, 0x20000, 0x10000, 0x8000, 1001, HUGETLB, false}, /* not whole pages of its file */
    {0x220000, 0x18000, 0x10000, 0x28000, 1001, HUGETLB, false},
    {0x400000, 0x8000, 0x1000, 0, -1, EBB_BACKING_ANON, false},
    {0x408000, 0x8000, 0x1000, 0, -1, EBB_BACKING_NONE, false},
    {0x500000, 0x8000, 0x1000, 0x0, 1002, SHARED, true},
    {0xfffffffffffef000, 0x10000, 0x1000, 0x0, 1003, SHARED, false},
    {0x600000, 0x10000, 0x4000, 0, -1, EBB_BACKING_ANON, false},
    {0x8000, 0x10000, 0x1000, 0x0, 1004, SHARED, false}, /* in the way of the first two */
};
#define SLOTS        (sizeof(slots) / sizeof(slots[0]))
#define ALIGN        0x10000u
#define USER         UINT64_C(0x7f0000000000) /* plus the guest address: a front-end's */
#define RING_SPACING 0x2000u                  /* where queues' rings are, unless otherwise said */

static uint8_t *hosts[SLOTS];

struct ring {
    uint64_t desc, avail, used;
    unsigned size;
    bool runs;
    uint16_t first; /* available index, when it was started */
};

struct run {
    struct fuzz_input in;
    struct guard guard;
    struct ebb_discard_pool *pool;
    struct ebb_discard *discard;
    struct ebb_balloon_device *device;
    struct ebb_balloon_device_config config;
    struct ring rings[EBB_BALLOON_QUEUES]; /* by the transport's number */
    bool by_user;                          /* a queue was started by a front-end's addresses */
    unsigned devices;                      /* made so far */
    uint16_t taken;                        /* chains, of queues that were stopped */
    bool untold;                           /* of some it is not known how many were taken */
    uint32_t used_slots;
    struct ebb_memory memory;
};

static void need_hosts(void)
{
    for (unsigned i = 0; i < SLOTS && !hosts[i]; i++) {
        hosts[i] = aligned_alloc(ALIGN, (slots[i].size + ALIGN - 1) & ~(uint64_t)(ALIGN - 1));
        if (!hosts[i])
            abort();
        memset(hosts[i], 0, slots[i].size);
    }
}

static struct ebb_region region_of(unsigned i)
{
    const struct slot *slot = &slots[i];

    return (struct ebb_region){
        .gpa = slot->gpa,
        .size = slot->size,
        .host = slot->unmapped ? NULL : hosts[i],
        .fd = slot->fd,
        .offset = slot->offset,
        .user = slot->gpa < (uint64_t)1 << 40 ? USER + slot->gpa : 0,
        .page = slot->page,
        .backing = slot->backing,
    };
}

static void add_slot(struct run *run, unsigned i)
{
    const struct ebb_region region = region_of(i);

    run->used_slots |= 1u << i;
    (void)!ebb_memory_add(&run->memory, &region);
}

static uint64_t read_gpa(struct fuzz_input *in)
{
    const uint8_t which = fuzz_u8(in);

    return which == 0xff ? fuzz_le(in, 8) : slots[which % SLOTS].gpa + (fuzz_le(in, 3) & 0x3ffff);
}

static void guest_write(struct run *run, uint64_t gpa, const void *bytes, size_t n)
{
    void *to = ebb_memory_at(&run->memory, gpa, n);

    if (to)
        memcpy(to, bytes, n);
}

static uint16_t guest_u16(struct run *run, uint64_t gpa)
{
    const void *from = ebb_memory_at(&run->memory, gpa, 2);
    uint16_t value = 0;

    if (from)
        memcpy(&value, from, sizeof(value));
    return value;
}

/* ---- what the device calls ---- */

static void on_call(void *ctx, unsigned queue)
{
    (void)ctx;
    FUZZ_CHECK(queue < EBB_BALLOON_QUEUES);
}

static void on_event(void *ctx)
{
    (void)ctx;
}

static void on_hinted(void *ctx, const struct ebb_range *ranges, unsigned n)
{
    const struct run *run = ctx;

    FUZZ_CHECK(n > 0);
    for (unsigned i = 0; i < n; i++)
        FUZZ_CHECK(guard_is_memory(&run->memory, &ranges[i]));
}

static uint64_t on_now(void *ctx)
{
    const struct run *run = ctx;

    return run->guard.now;
}

static const struct ebb_balloon_device_ops device_ops = {
    .call = on_call,
    .config_changed = on_event,
    .needs_reset = on_event,
    .wake = on_event,
    .hinted = on_hinted,
    .now = on_now,
};

static void make_device(struct run *run)
{
    run->device = ebb_balloon_device_new(&run->config);
    if (!run->device)
        abort();
    run->devices++;
}

static uint64_t chains_returned(const struct run *run)
{
    const struct ebb_balloon_device_stats *stats = ebb_balloon_device_get_stats(run->device);
    uint64_t sum = 0;

    for (unsigned i = 0; i < EBB_BALLOON_QUEUES; i++)
        sum += stats->chains[i];
    return sum;
}

static int stop_queue(struct run *run, unsigned queue)
{
    struct ring *ring = &run->rings[queue];
    const int next = ebb_balloon_device_stop(run->device, queue);

    if (next >= 0 && ring->runs)
        run->taken = (uint16_t)(run->taken + (uint16_t)next - ring->first);
    ring->runs = false;
    return next;
}

/* Every chain that was taken has gone back, now that all queues stop. */
static void check_balance(struct run *run)
{
    for (unsigned i = 0; i < EBB_BALLOON_QUEUES; i++)
        (void)!stop_queue(run, i);
    if (!run->untold && ebb_balloon_device_get_stats(run->device)->faults[EBB_FAULT_QUEUE] == 0)
        FUZZ_CHECK(run->taken == (uint16_t)chains_returned(run));
    run->taken = 0;
    run->untold = false;
}

/* In order, or at whatever point it is. */
static void end_device(struct run *run, bool in_order)
{
    if (run->device && in_order)
        check_balance(run);
    if (run->device)
        ebb_balloon_device_free(run->device);
    if (!run->discard)
        return;
    guard_check(&run->guard, run->discard);
    ebb_discard_free(run->discard);
}

/* 4 bytes: flags; log2 of the chains in a batch; milliseconds to gather; features withheld. */
static void new_device(struct run *run)
{
    const uint8_t flags = fuzz_u8(&run->in), chains = fuzz_u8(&run->in);
    const uint8_t gather = fuzz_u8(&run->in), withhold = fuzz_u8(&run->in);
    const struct ebb_discard_config discard = {
        .pool = run->pool,
        .memory = &run->memory,
        .check_every = flags & 1 ? 1 : 0,
        .gather_bytes = flags & 2 ? 300 : 0,
        .ops = &run->guard.ops,
    };

    end_device(run, true);
    run->by_user = false;
    guard_init(&run->guard, false);
    run->guard.memory = &run->memory;
    run->discard = ebb_discard_new(&discard);
    if (!run->discard)
        abort();
    run->config = (struct ebb_balloon_device_config){
        .memory = &run->memory,
        .discard = run->discard,
        .ops = &device_ops,
        .ctx = run,
        .offer_too = flags & 4 ? EBB_F_DEFLATE_ON_OOM : 0,
        .withhold = withhold & 0x3f,
        .numbering = flags & 8 ? EBB_BALLOON_DEVICE_FIXED : EBB_BALLOON_DEVICE_DENSE,
        .batch_chains = chains ? 1u << (chains - 1) % 9 : 0,
        .gather_us = gather % 101 * 1000u,
        .discard_hints = flags & 16,
    };
    make_device(run);
}

/* ---- the transport ---- */

static void config_write(struct run *run)
{
    const uint32_t offset = fuzz_u8(&run->in) < 0xf0 ? fuzz_u8(&run->in) % 20u : fuzz_u32(&run->in);
    size_t n = fuzz_u8(&run->in) % 32;
    const uint8_t *bytes = fuzz_bytes(&run->in, &n);
    uint8_t *copy = malloc(n + 1);

    if (!copy)
        abort();
    if (n > 0)
        memcpy(copy, bytes, n);
    ebb_balloon_device_config_write(run->device, offset, copy, (uint32_t)n);
    free(copy);
}

static void config_read(struct run *run)
{
    const uint32_t offset = fuzz_u8(&run->in) < 0xf0 ? fuzz_u8(&run->in) % 20u : fuzz_u32(&run->in);
    const uint32_t n = fuzz_u8(&run->in);
    uint8_t *to = malloc(n + 1);

    if (!to)
        abort();
    ebb_balloon_device_config_read(run->device, offset, to, n);
    for (uint32_t i = 0; i < n; i++)
        FUZZ_CHECK((uint64_t)offset + i < EBB_BALLOON_CFG_SIZE || to[i] == 0);
    free(to);
}

/* 1 byte: the balloon's features, as far as they are offered; 0xff: 8 bytes of any. */
static void accept(struct run *run)
{
    const uint8_t bits = fuzz_u8(&run->in);
    const uint64_t offered = ebb_balloon_device_features(run->device);
    const uint64_t features =
        bits == 0xff ? fuzz_le(&run->in, 8) : (EBB_F_VERSION_1 | (bits & 0x3f)) & offered;

    (void)!ebb_balloon_device_accept(run->device, features);
}

static void place_ring(struct run *run, unsigned queue, uint8_t kind, uint8_t size)
{
    struct ring *ring = &run->rings[queue % EBB_BALLOON_QUEUES];
    const uint64_t base = (uint64_t)queue * RING_SPACING, user = kind & 4 ? USER : 0;

    ring->size = size & 0x80 ? size & 0x7f : 1u << (size & 15);
    ring->desc = kind & 1 ? read_gpa(&run->in) : base;
    ring->avail = kind & 1 ? read_gpa(&run->in) : base + 0x1000;
    ring->used = kind & 1 ? read_gpa(&run->in) : base + 0x1400;
    ring->desc += user;
    ring->avail += user;
    ring->used += user;
}

/* Queue; 1 byte: its size (log2; 0x80: as it is); 1 byte: 1: three places follow, 2: so does the
 * first index, 4: places are a front-end's. */
static void start(struct run *run)
{
    const unsigned queue = fuzz_u8(&run->in) % (EBB_BALLOON_QUEUES + 1);
    const uint8_t size = fuzz_u8(&run->in), kind = fuzz_u8(&run->in);
    struct ring *ring = &run->rings[queue % EBB_BALLOON_QUEUES];
    struct ebb_balloon_device_vring vring;

    place_ring(run, queue, kind, size);
    vring = (struct ebb_balloon_device_vring){
        .size = ring->size,
        .desc = ring->desc,
        .avail = ring->avail,
        .used = ring->used,
        .start = kind & 2 ? fuzz_u16(&run->in) : 0,
        .translate = kind & 4 ? ebb_memory_by_user : NULL,
        .translate_ctx = &run->memory,
    };
    run->untold |= ring->runs;
    ring->runs = ebb_balloon_device_start(run->device, queue, &vring) == 0;
    ring->first = vring.start;
    if (ring->runs)
        run->by_user |= kind & 4;
    if (kind & 4) { /* the guest writes there by its own addresses */
        ring->desc -= USER;
        ring->avail -= USER;
        ring->used -= USER;
    }
}

static void stop(struct run *run)
{
    const unsigned queue = fuzz_u8(&run->in) % (EBB_BALLOON_QUEUES + 1);

    if (queue < EBB_BALLOON_QUEUES)
        (void)!stop_queue(run, queue);
    FUZZ_CHECK(ebb_balloon_device_stop(run->device, queue) == -EBB_ENOENT);
}

static void enable(struct run *run)
{
    const uint8_t which = fuzz_u8(&run->in);

    ebb_balloon_device_enable(run->device, which & 7, which & 8);
}

static void check_no_queue_runs(struct run *run)
{
    for (unsigned i = 0; i <= EBB_BALLOON_QUEUES; i++)
        FUZZ_CHECK(ebb_balloon_device_stop(run->device, i) == -EBB_ENOENT);
}

static void reset(struct run *run)
{
    run->untold = true;
    ebb_balloon_device_reset(run->device);
    FUZZ_CHECK(ebb_balloon_device_status(run->device) == 0);
    check_no_queue_runs(run);
}

static void kick(struct run *run)
{
    ebb_balloon_device_kick(run->device, fuzz_u8(&run->in) % (EBB_BALLOON_QUEUES + 1));
}

static void work(struct run *run)
{
    (void)ebb_balloon_device_work(run->device);
}

static void quiesce(struct run *run)
{
    ebb_balloon_device_quiesce(run->device);
    guard_check(&run->guard, run->discard);
}

/* ---- what a guest does to its memory ---- */

/* Place; 1 byte of length, bytes. */
static void write_memory(struct run *run)
{
    const uint64_t gpa = read_gpa(&run->in);
    size_t n = fuzz_u8(&run->in);
    const uint8_t *bytes = fuzz_bytes(&run->in, &n);

    if (n > 0)
        guest_write(run, gpa, bytes, n);
}

static void put_desc(struct run *run, const struct ring *ring, unsigned index,
                     const struct ebb_ring_desc *desc)
{
    guest_write(run, ring->desc + sizeof(*desc) * (uint64_t)index, desc, sizeof(*desc));
}

static void offer(struct run *run, const struct ring *ring, uint16_t head)
{
    const uint16_t index = guest_u16(run, ring->avail + 2), next = (uint16_t)(index + 1);

    if (ring->size == 0)
        return;
    guest_write(run, ring->avail + 4 + 2 * (uint64_t)(index % ring->size), &head, sizeof(head));
    guest_write(run, ring->avail + 2, &next, sizeof(next));
}

static uint32_t read_len(struct fuzz_input *in)
{
    const uint8_t len = fuzz_u8(in);

    return len < 0x40 ? len : len < 0xff ? (len - 0x3fu) << 10 : fuzz_u32(in);
}

/* Queue; 1 byte: which; place, length, flags, next. */
static void descriptor(struct run *run)
{
    const struct ring *ring = &run->rings[fuzz_u8(&run->in) % EBB_BALLOON_QUEUES];
    const unsigned index = fuzz_u8(&run->in);
    struct ebb_ring_desc desc;

    desc.addr = read_gpa(&run->in);
    desc.len = read_len(&run->in);
    desc.flags = fuzz_u8(&run->in);
    desc.next = fuzz_u8(&run->in);
    put_desc(run, ring, index, &desc);
}

/* Queue; 1 byte: head. */
static void make_available(struct run *run)
{
    const struct ring *ring = &run->rings[fuzz_u8(&run->in) % EBB_BALLOON_QUEUES];

    offer(run, ring, fuzz_u8(&run->in));
}

/* Queue; 1 byte: buffers (bits 0 to 2), the first descriptor (3 to 7); for each a place, a length,
 * and whether it is writable. The chain is available then. */
static void chain(struct run *run)
{
    const struct ring *ring = &run->rings[fuzz_u8(&run->in) % EBB_BALLOON_QUEUES];
    const uint8_t shape = fuzz_u8(&run->in);
    const unsigned n = (shape & 7) + 1u, first = shape >> 3;

    for (unsigned i = 0; i < n; i++) {
        struct ebb_ring_desc desc;

        desc.addr = read_gpa(&run->in);
        desc.len = read_len(&run->in);
        desc.flags = (uint16_t)((fuzz_u8(&run->in) & 1 ? EBB_DESC_WRITE : 0) |
                                (i + 1 < n ? EBB_DESC_NEXT : 0));
        desc.next = (uint16_t)(first + i + 1);
        put_desc(run, ring, first + i, &desc);
    }
    offer(run, ring, (uint16_t)first);
}

/* Queue; 1 byte: descriptor; place of the buffer; how many; a place, for the first pfn; step. The
 * chain is available then. */
static void pfns(struct run *run)
{
    const struct ring *ring = &run->rings[fuzz_u8(&run->in) % EBB_BALLOON_QUEUES];
    const uint8_t index = fuzz_u8(&run->in);
    const uint64_t buffer = read_gpa(&run->in);
    const uint8_t n = fuzz_u8(&run->in);
    uint32_t pfn = (uint32_t)(read_gpa(&run->in) >> EBB_FRAME_SHIFT);
    const int32_t step = (int8_t)fuzz_u8(&run->in);
    const struct ebb_ring_desc desc = {.addr = buffer, .len = 4u * n};

    for (unsigned i = 0; i < n; i++, pfn += (uint32_t)step)
        guest_write(run, buffer + 4 * (uint64_t)i, &pfn, sizeof(pfn));
    put_desc(run, ring, index, &desc);
    offer(run, ring, index);
}

/* Queue; 2 bytes: flags of the available ring; 2: its index. */
static void avail_index(struct run *run)
{
    const struct ring *ring = &run->rings[fuzz_u8(&run->in) % EBB_BALLOON_QUEUES];
    const uint16_t fields[2] = {fuzz_u16(&run->in), fuzz_u16(&run->in)};

    guest_write(run, ring->avail, fields, sizeof(fields));
}

/* ---- the VMM and the operator ---- */

static void add_region(struct run *run)
{
    add_slot(run, fuzz_u8(&run->in) % SLOTS);
}

static void remove_region(struct run *run)
{
    const struct slot *slot = &slots[fuzz_u8(&run->in) % SLOTS];
    struct ebb_region region;

    ebb_balloon_device_quiesce(run->device);
    (void)!ebb_memory_remove(&run->memory, slot->gpa, slot->size, &region);
}

static void pool_step(struct run *run)
{
    (void)sync_pool_step(run->pool);
}

static void pass_time(struct run *run)
{
    run->guard.now += (uint64_t)fuzz_u8(&run->in) * 1000000;
}

static void resize(struct run *run)
{
    const uint32_t pages = fuzz_u32(&run->in);

    ebb_balloon_device_resize(run->device, pages);
    FUZZ_CHECK(ebb_balloon_device_target(run->device) == pages);
}

static void poll_stats(struct run *run)
{
    (void)!ebb_balloon_device_poll_stats(run->device);
}

static void hint(struct run *run)
{
    if (fuzz_u8(&run->in) & 1)
        ebb_balloon_device_hint_done(run->device);
    else
        (void)!ebb_balloon_device_hint_start(run->device);
}

static void inhibit(struct run *run)
{
    ebb_discard_inhibit(run->discard, fuzz_u8(&run->in) & 1);
}

/* 1 byte: so many calls fail; 1: in this way; 1: what is seen afterwards. */
static void host_fails(struct run *run)
{
    static const int errors[] = {EINTR, ENOSPC, EIO, EPERM};

    run->guard.fail = fuzz_u8(&run->in);
    run->guard.fail_errno = errors[fuzz_u8(&run->in) % 4];
    run->guard.look = (enum guard_look)(fuzz_u8(&run->in) % GUARD_LOOKS);
}

/* ---- save and restore ---- */

static int restore(struct run *run, const uint8_t *state)
{
    return ebb_balloon_device_restore(run->device, state, run->by_user ? ebb_memory_by_user : NULL,
                                      &run->memory);
}

/* A state as it was saved is taken by a new device, which then is in the same state. */
static void restore_as_saved(struct run *run, const uint8_t *state)
{
    uint8_t again[EBB_BALLOON_DEVICE_STATE_SIZE];

    ebb_balloon_device_free(run->device);
    make_device(run);
    if (run->by_user) { /* others may have been started otherwise */
        (void)!restore(run, state);
        return;
    }
    FUZZ_CHECK(restore(run, state) == 0);
    ebb_balloon_device_save(run->device, again);
    FUZZ_CHECK(memcmp(state, again, sizeof(again)) == 0);
}

/* Any other may be refused; the device is as after a reset then. */
static void restore_mutated(struct run *run, uint8_t *state, unsigned n)
{
    const uint32_t target = ebb_balloon_device_target(run->device);

    while (n-- > 0) {
        const unsigned at = fuzz_u16(&run->in) % EBB_BALLOON_DEVICE_STATE_SIZE;

        state[at] = fuzz_u8(&run->in);
    }
    if (restore(run, state) == 0)
        return;
    FUZZ_CHECK(ebb_balloon_device_target(run->device) == target);
    FUZZ_CHECK(ebb_balloon_device_status(run->device) == 0);
    check_no_queue_runs(run);
}

/* 1 byte: so many changes to the state; each 2 bytes where, 1 what. */
static void save_and_restore(struct run *run)
{
    const unsigned n = fuzz_u8(&run->in) % (MUTATIONS + 1);
    uint8_t state[EBB_BALLOON_DEVICE_STATE_SIZE];

    run->untold = true;
    ebb_balloon_device_save(run->device, state);
    if (n == 0)
        restore_as_saved(run, state);
    else
        restore_mutated(run, state, n);
}

/* ---- one execution ---- */

static void (*const steps[])(struct run *) = {
    /*  0 */ kick,
    work,
    pool_step,
    chain,
    pfns,
    /*  5 */ start,
    accept,
    stop,
    enable,
    descriptor,
    /* 10 */ write_memory,
    make_available,
    avail_index,
    add_region,
    remove_region,
    /* 15 */ config_write,
    config_read,
    resize,
    poll_stats,
    hint,
    /* 20 */ inhibit,
    host_fails,
    pass_time,
    quiesce,
    reset,
    /* 25 */ save_and_restore,
    new_device,
};
#define N_STEPS (sizeof(steps) / sizeof(steps[0]))

static void check_device(const struct run *run)
{
    const struct ebb_balloon_device *device = run->device;
    const uint8_t status = ebb_balloon_device_status(device);

    FUZZ_CHECK(status == 0 || status == EBB_STATUS_NEEDS_RESET);
    FUZZ_CHECK(ebb_balloon_device_queue_count(device) <= EBB_BALLOON_QUEUES);
    FUZZ_CHECK(!ebb_balloon_device_idle(device) || ebb_balloon_device_due(device) == UINT64_MAX);
}

/* One step; what a guest can make of it is bounded. */
static void step(struct run *run)
{
    const uint64_t chains = chains_returned(run);
    const unsigned devices = run->devices;

    steps[fuzz_u8(&run->in) % N_STEPS](run);
    check_device(run);
    if (run->devices == devices)
        FUZZ_CHECK(chains_returned(run) - chains <= 4 * (uint64_t)BATCH_MOST);
}

static void clear_memory(const struct run *run)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (run->used_slots >> i & 1)
            memset(hosts[i], 0, slots[i].size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct run run;
    static struct ebb_discard_pool *pool;

    need_hosts();
    if (!pool)
        pool = ebb_discard_pool_new(1);
    memset(&run, 0, sizeof(run));
    run.in = (struct fuzz_input){data, size};
    run.pool = pool;
    ebb_memory_init(&run.memory);
    add_slot(&run, 0);
    new_device(&run);
    for (unsigned i = 0; i < STEPS && run.in.left > 0; i++)
        step(&run);
    end_device(&run, size % 2);
    clear_memory(&run);
    return 0;
}
