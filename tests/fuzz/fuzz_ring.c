/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device's half of a ring, on shared memory in which anything may be.
 *
 * An input: the ring (start()), then steps, each one byte and what it needs (step()): 0 take, 1
 * give the oldest taken chain back, 2 write to memory, 3 write a descriptor, 4 make an entry
 * available, 5 notifications on or off, 6 does it want a call?, 7 start anew. In the first byte
 * 0x40 says that the memory begins at an odd address.
 */
#include "fuzz.h"

#include <ebb/ring.h>

#include <string.h>

#define MEMORY  16384u
#define PENDING 4096u
#define STEPS   512u

struct run {
    struct fuzz_input in;
    uint8_t *memory;
    struct ebb_ring_device ring;
    bool started;
    uint16_t desc, avail, used;
    struct ebb_ring_buf *bufs; /* as many as the ring has entries: a sanitizer sees the end */
    uint16_t pending[PENDING];
    unsigned n_pending;
};

static void *translate(void *ctx, uint64_t gpa, uint64_t len)
{
    const struct run *run = ctx;

    return gpa < MEMORY && len <= MEMORY - gpa ? run->memory + gpa : NULL;
}

static void fill(struct run *run, uint64_t at, size_t n)
{
    const uint8_t *bytes = fuzz_bytes(&run->in, &n);

    at %= MEMORY;
    if (n > MEMORY - at)
        n = MEMORY - at;
    if (n > 0)
        memcpy(run->memory + at, bytes, n);
}

/* 1 byte: log2 of the size in the low 5 bits, 0x20: memory follows; 3 x 2 bytes: where the parts
 * are; 2: first available index; 2, and as many: memory, from its beginning on. */
static void start(struct run *run)
{
    const uint8_t kind = fuzz_u8(&run->in);
    const unsigned size = 1u << (kind & 31);
    uint16_t first;

    run->desc = fuzz_u16(&run->in);
    run->avail = fuzz_u16(&run->in);
    run->used = fuzz_u16(&run->in);
    first = fuzz_u16(&run->in);
    if (kind & 0x20)
        fill(run, 0, fuzz_u16(&run->in));
    run->n_pending = 0;
    run->started = ebb_ring_device_init(&run->ring, size, run->desc, run->avail, run->used, first,
                                        translate, run) == 0;
    free(run->bufs);
    run->bufs = run->started ? malloc(size * sizeof(*run->bufs)) : NULL;
    FUZZ_CHECK(run->started <= (size <= EBB_RING_SIZE_LIMIT));
    FUZZ_CHECK(!run->started ||
               ((uintptr_t)run->ring.desc % 16 == 0 && (uintptr_t)run->ring.avail % 2 == 0 &&
                (uintptr_t)run->ring.used % 4 == 0));
}

static void check_chain(const struct run *run, unsigned n, uint16_t head)
{
    FUZZ_CHECK(n <= run->ring.size && head < run->ring.size);
    for (unsigned i = 1; i < n; i++)
        FUZZ_CHECK(run->bufs[i].write || !run->bufs[i - 1].write);
}

static void take(struct run *run)
{
    const bool was_broken = run->ring.broken;
    uint16_t head = UINT16_MAX;
    const int n = ebb_ring_device_take(&run->ring, run->bufs, &head);

    FUZZ_CHECK(n >= 0 || (n == -EBB_EPROTO && run->ring.broken));
    FUZZ_CHECK(!was_broken || n == -EBB_EPROTO);
    if (n <= 0)
        return;
    check_chain(run, (unsigned)n, head);
    if (run->n_pending < PENDING)
        run->pending[run->n_pending++] = head;
}

/* Nothing but the used ring changes. */
static void put(struct run *run)
{
    const size_t used_len = 4 + 8 * (size_t)run->ring.size, after = run->used + used_len;
    uint8_t before[MEMORY];
    uint16_t index;

    if (run->n_pending == 0)
        return;
    memcpy(before, run->memory, MEMORY);
    index = run->ring.used_idx;
    ebb_ring_device_put(&run->ring, run->pending[0], fuzz_u8(&run->in));
    run->n_pending--;
    memmove(run->pending, run->pending + 1, run->n_pending * sizeof(run->pending[0]));
    FUZZ_CHECK(memcmp(before, run->memory, run->used) == 0);
    FUZZ_CHECK(memcmp(before + after, run->memory + after, MEMORY - after) == 0);
    FUZZ_CHECK(run->ring.used_idx == (uint16_t)(index + 1));
}

/* 1 byte: which; 16 bytes. */
static void write_desc(struct run *run)
{
    const unsigned which = fuzz_u8(&run->in);

    fill(run, run->desc + which * sizeof(struct ebb_ring_desc), sizeof(struct ebb_ring_desc));
}

/* 2 bytes: head. */
static void offer(struct run *run)
{
    const uint16_t head = fuzz_u16(&run->in);
    uint16_t index;

    memcpy(&index, run->memory + run->avail + 2, sizeof(index));
    memcpy(run->memory + run->avail + 4 + 2 * (size_t)(index % run->ring.size), &head,
           sizeof(head));
    index++;
    memcpy(run->memory + run->avail + 2, &index, sizeof(index));
}

static void step(struct run *run)
{
    const uint8_t what = fuzz_u8(&run->in) % 8;

    if (what == 2) { /* 2 bytes where, 1 of length, bytes */
        const uint16_t at = fuzz_u16(&run->in);

        fill(run, at, fuzz_u8(&run->in));
    } else if (what == 7) {
        start(run);
    } else if (!run->started) {
        return;
    } else if (what == 0) {
        take(run);
    } else if (what == 1) {
        put(run);
    } else if (what == 3) {
        write_desc(run);
    } else if (what == 4) {
        offer(run);
    } else if (what == 5) {
        ebb_ring_device_notifications(&run->ring, fuzz_u8(&run->in) & 1);
    } else {
        (void)ebb_ring_device_wants_call(&run->ring);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t odd = size > 0 && data[0] & 0x40 ? 1 : 0;
    struct run run = {.in = {data, size}};
    uint8_t *base = malloc(MEMORY + odd);

    if (!base)
        abort();
    run.memory = base + odd;
    memset(run.memory, 0, MEMORY);
    start(&run);
    for (unsigned i = 0; i < STEPS && run.in.left > 0; i++)
        step(&run);
    free(run.bufs);
    free(base);
    return 0;
}
