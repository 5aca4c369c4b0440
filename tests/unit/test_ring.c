/* SPDX-License-Identifier: BSD-2-Clause */
/* Both halves of the split virtqueue, each against crafted shared memory. */
#include <ebb/ring.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define SIZE  8u
#define BASE  0x100000u
#define BYTES 4096u

static _Alignas(4096) uint8_t memory[BYTES];
static struct ebb_ring_driver driver;
static struct ebb_ring_device device;
static struct ebb_ring_slot slots[SIZE];
static struct ebb_ring_buf taken[SIZE];
static struct ebb_ring_layout layout;
static int tokens[64];

static void *translate(void *ctx, uint64_t gpa, uint64_t len)
{
    assert_ptr_equal(ctx, memory);
    if (gpa < BASE || gpa - BASE > BYTES || len > BYTES - (gpa - BASE))
        return NULL;
    return memory + (gpa - BASE);
}

static int attach(uint16_t start)
{
    return ebb_ring_device_init(&device, SIZE, BASE + layout.desc, BASE + layout.avail,
                                BASE + layout.used, start, translate, memory);
}

static int setup(void **state)
{
    (void)state;
    memset(memory, 0xa5, sizeof(memory));
    layout = ebb_ring_layout(SIZE);
    assert_int_equal(ebb_ring_driver_init(&driver, SIZE, memory, slots), 0);
    assert_int_equal(attach(0), 0);
    return 0;
}

/* All descriptors are free, or belong to a chain that is out; none is both. */
static void check_driver(void)
{
    bool seen[SIZE] = {false};
    unsigned chains = 0, used = 0;
    uint16_t index = driver.free_head;

    for (unsigned i = 0; i < driver.free_count; i++) {
        assert_true(index < SIZE);
        assert_false(seen[index]);
        seen[index] = true;
        index = slots[index].next;
    }
    for (uint16_t head = 0; head < SIZE; head++) {
        if (!slots[head].token)
            continue;
        chains++;
        index = head;
        for (unsigned i = 0; i < slots[head].count; i++) {
            assert_true(index < SIZE);
            assert_false(seen[index]);
            seen[index] = true;
            used++;
            index = slots[index].next;
        }
    }
    assert_int_equal(used + driver.free_count, SIZE);
    assert_int_equal(chains, ebb_ring_driver_pending(&driver));
}

/* Nothing is outstanding when a test that kept the protocol ends. */
static int teardown(void **state)
{
    (void)state;
    check_driver();
    assert_true(driver.broken || ebb_ring_driver_pending(&driver) == 0);
    return 0;
}

static int add(unsigned n, bool write, void *token)
{
    struct ebb_ring_buf bufs[SIZE + 1] = {0};

    for (unsigned i = 0; i < n; i++)
        bufs[i] = (struct ebb_ring_buf){.addr = 0x1000u * (i + 1), .len = 16, .write = write};
    return ebb_ring_driver_add(&driver, bufs, n, token);
}

static void get_one(void *token, uint32_t len)
{
    void *got;
    uint32_t got_len;

    assert_int_equal(ebb_ring_driver_get(&driver, &got, &got_len), 1);
    assert_ptr_equal(got, token);
    assert_int_equal(got_len, len);
    check_driver();
}

static void get_none(int expected)
{
    void *token;
    uint32_t len;

    assert_int_equal(ebb_ring_driver_get(&driver, &token, &len), expected);
    check_driver();
}

static uint16_t take_one(int n)
{
    uint16_t head = 0xffff;

    assert_int_equal(ebb_ring_device_take(&device, taken, &head), n);
    return head;
}

/* ---- raw access, as a peer that does as it likes ---- */

static void poke16(size_t offset, unsigned value)
{
    memory[offset] = (uint8_t)value;
    memory[offset + 1] = (uint8_t)(value >> 8);
}

static unsigned peek16(size_t offset)
{
    return memory[offset] | (unsigned)memory[offset + 1] << 8;
}

static void poke32(size_t offset, uint32_t value)
{
    poke16(offset, value & 0xffff);
    poke16(offset + 2, value >> 16);
}

static void poke_used(uint32_t id, uint32_t len)
{
    const unsigned idx = peek16(layout.used + 2);
    const size_t elem = layout.used + 4 + 8 * (idx % SIZE);

    poke32(elem, id);
    poke32(elem + 4, len);
    poke16(layout.used + 2, idx + 1);
}

static void poke_desc(unsigned index, uint64_t addr, uint32_t len, unsigned flags, unsigned next)
{
    const size_t desc = layout.desc + 16 * index;

    poke32(desc, (uint32_t)addr);
    poke32(desc + 4, (uint32_t)(addr >> 32));
    poke32(desc + 8, len);
    poke16(desc + 12, flags);
    poke16(desc + 14, next);
}

static void poke_avail(unsigned head)
{
    const unsigned idx = peek16(layout.avail + 2);

    poke16(layout.avail + 4 + 2 * (idx % SIZE), head);
    poke16(layout.avail + 2, idx + 1);
}

/* ---- layout ---- */

static void layouts(void **state)
{
    static const struct {
        unsigned size;
        size_t avail, used, total;
    } cases[] = {
        {1, 16, 24, 24 + 6 + 8},
        {2, 32, 44, 44 + 6 + 16},
        {8, 128, 152, 152 + 6 + 64},
        {128, 2048, 2312, 2312 + 6 + 1024},
        {1024, 16384, 18440, 18440 + 6 + 8192},
    };
    static const unsigned bad[] = {0, 3, 5, 6, 7, 100, 1023, 1025, 2048, 0x80000000u, 0xffffffffu};

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct ebb_ring_layout got = ebb_ring_layout(cases[i].size);

        assert_int_equal(got.desc, 0);
        assert_int_equal(got.avail, cases[i].avail);
        assert_int_equal(got.used, cases[i].used);
        assert_int_equal(got.total, cases[i].total);
    }
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct ebb_ring_driver ring;

        assert_int_equal(ebb_ring_layout(bad[i]).total, 0);
        assert_int_equal(ebb_ring_driver_init(&ring, bad[i], memory, slots), -EBB_EINVAL);
    }
}

static void golden_bytes(void **state)
{
    const struct ebb_ring_buf bufs[] = {
        {.addr = 0x1122334455667788u, .len = 0x99aabbccu, .write = false},
        {.addr = 0x0102030405060708u, .len = 0x0a0b0c0du, .write = true},
    };
    static const uint8_t desc[32] = {
        0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xcc, 0xbb, 0xaa, 0x99, 1, 0, 1, 0,
        0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0x0d, 0x0c, 0x0b, 0x0a, 2, 0, 0, 0,
    };
    static const uint8_t avail[] = {0, 0, 1, 0, 0, 0};
    static const uint8_t used[] = {0, 0, 1, 0, 0, 0, 0, 0, 0x34, 0x12, 0, 0};

    (void)state;
    assert_int_equal(ebb_ring_driver_add(&driver, bufs, 2, tokens), 0);
    assert_memory_equal(memory + layout.desc, desc, sizeof(desc));
    assert_memory_equal(memory + layout.avail, avail, sizeof(avail));

    ebb_ring_device_put(&device, take_one(2), 0x1234);
    assert_memory_equal(memory + layout.used, used, sizeof(used));
    get_one(tokens, 0x1234);
}

static void init_arguments(void **state)
{
    struct ebb_ring_driver ring;

    (void)state;
    assert_int_equal(ebb_ring_driver_init(&ring, SIZE, memory + 8, slots), -EBB_EINVAL);
    assert_int_equal(ebb_ring_driver_init(&ring, SIZE, NULL, slots), -EBB_EINVAL);
    assert_int_equal(ebb_ring_driver_init(&ring, SIZE, memory, NULL), -EBB_EINVAL);
}

/* ---- driver half ---- */

static void add_arguments(void **state)
{
    struct ebb_ring_buf bufs[SIZE + 1] = {0};

    (void)state;
    assert_int_equal(add(0, true, tokens), -EBB_EINVAL);
    assert_int_equal(add(1, true, NULL), -EBB_EINVAL);
    assert_int_equal(add(SIZE + 1, true, tokens), -EBB_ENOSPC);

    bufs[0] = (struct ebb_ring_buf){.addr = 0, .len = 4, .write = true};
    bufs[1] = (struct ebb_ring_buf){.addr = 0, .len = 4, .write = false};
    assert_int_equal(ebb_ring_driver_add(&driver, bufs, 2, tokens), -EBB_EINVAL);
    bufs[1].write = true;
    bufs[1].len = 0;
    assert_int_equal(ebb_ring_driver_add(&driver, bufs, 2, tokens), -EBB_EINVAL);
    bufs[1].len = EBB_RING_CHAIN_LIMIT - 3; /* one byte too many together */
    assert_int_equal(ebb_ring_driver_add(&driver, bufs, 2, tokens), -EBB_EINVAL);
    /* Nothing was published by any of these. */
    assert_int_equal(peek16(layout.avail + 2), 0);
    assert_int_equal(driver.free_count, SIZE);

    bufs[1].len = EBB_RING_CHAIN_LIMIT - 4;
    assert_int_equal(ebb_ring_driver_add(&driver, bufs, 2, tokens), 0);
    ebb_ring_device_put(&device, take_one(2), EBB_RING_CHAIN_LIMIT);
    get_one(tokens, EBB_RING_CHAIN_LIMIT);
}

static void full_ring(void **state)
{
    uint16_t heads[SIZE];

    (void)state;
    for (unsigned i = 0; i < SIZE; i++)
        assert_int_equal(add(1, true, &tokens[i]), 0);
    assert_int_equal(add(1, true, &tokens[SIZE]), -EBB_ENOSPC);
    assert_int_equal(ebb_ring_driver_pending(&driver), SIZE);
    for (unsigned i = 0; i < SIZE; i++)
        heads[i] = take_one(1);
    take_one(0);
    /* Back in another order. */
    for (unsigned i = SIZE; i-- > 0;)
        ebb_ring_device_put(&device, heads[i], i);
    for (unsigned i = SIZE; i-- > 0;)
        get_one(&tokens[i], i);
    get_none(0);
}

static void whole_ring_chain(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        assert_int_equal(add(SIZE, true, tokens), 0);
        assert_int_equal(add(1, true, tokens), -EBB_ENOSPC);
        ebb_ring_device_put(&device, take_one(SIZE), 16 * SIZE);
        for (unsigned i = 0; i < SIZE; i++) {
            assert_int_equal(taken[i].addr, 0x1000 * (i + 1));
            assert_int_equal(taken[i].len, 16);
            assert_true(taken[i].write);
        }
        get_one(tokens, 16 * SIZE);
    }
}

/* Indices are 16 bits and go round; chains of every length scramble the free list. */
static void wraps_around(void **state)
{
    unsigned added = 0, back = 0;

    (void)state;
    while (back < 3 * 65536u) {
        const unsigned n = 1 + added % 3;

        if (add(n, added % 2, &tokens[added % 64]) == 0) {
            added++;
            continue;
        }
        while (back < added) {
            const unsigned expected = 1 + back % 3;

            ebb_ring_device_put(&device, take_one((int)expected), back % 2 ? expected : 0);
            get_one(&tokens[back % 64], back % 2 ? expected : 0);
            back++;
        }
    }
}

/* Nothing outside the ring is touched. */
static void stays_inside(void **state)
{
    wraps_around(state);
    for (size_t i = layout.total; i < BYTES; i++)
        assert_int_equal(memory[i], 0xa5);
}

/* A driver that starts anew, a device that takes over in the middle. */
static void device_resumes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 70000; i++) {
        assert_int_equal(add(1, true, &tokens[i % 64]), 0);
        if (i % 1000 == 0)
            assert_int_equal(attach((uint16_t)i), 0);
        ebb_ring_device_put(&device, take_one(1), 1);
        get_one(&tokens[i % 64], 1);
    }
}

static void kicks(void **state)
{
    (void)state;
    assert_false(ebb_ring_driver_kick(&driver)); /* nothing was added */
    assert_int_equal(add(1, true, tokens), 0);
    assert_true(ebb_ring_driver_kick(&driver));
    assert_false(ebb_ring_driver_kick(&driver));

    ebb_ring_device_notifications(&device, false);
    assert_int_equal(peek16(layout.used), EBB_USED_NO_NOTIFY);
    assert_int_equal(add(1, true, tokens), 0);
    assert_false(ebb_ring_driver_kick(&driver));
    ebb_ring_device_notifications(&device, true);
    assert_int_equal(add(1, true, tokens), 0);
    assert_true(ebb_ring_driver_kick(&driver));

    assert_true(ebb_ring_device_wants_call(&device));
    ebb_ring_driver_interrupts(&driver, false);
    assert_int_equal(peek16(layout.avail), EBB_AVAIL_NO_INTERRUPT);
    assert_false(ebb_ring_device_wants_call(&device));
    ebb_ring_driver_interrupts(&driver, true);
    assert_true(ebb_ring_device_wants_call(&device));

    for (unsigned i = 0; i < 3; i++) {
        ebb_ring_device_put(&device, take_one(1), 0);
        get_one(tokens, 0);
    }
}

/* VMMs put all sorts of lengths on chains that they can only read. */
static void length_of_readable_chains(void **state)
{
    (void)state;
    assert_int_equal(add(2, false, tokens), 0);
    ebb_ring_device_put(&device, take_one(2), 0xffffffffu);
    get_one(tokens, 0);
}

/* What the device may break, with two chains out: heads 0 (2 descriptors of 16
 * bytes) and 2 (1 descriptor). */
static void fault_id_beyond(void)
{
    poke_used(SIZE, 0);
}
static void fault_id_huge(void)
{
    poke_used(0xffff0000u, 0);
}
static void fault_id_inside_chain(void)
{
    poke_used(1, 0);
}
static void fault_id_free(void)
{
    poke_used(5, 0);
}
static void fault_length(void)
{
    poke_used(0, 33);
}
static void fault_length_huge(void)
{
    poke_used(2, 0xffffffffu);
}
static void fault_index_jumps(void)
{
    poke16(layout.used + 2, 3);
}
static void fault_index_back(void)
{
    poke16(layout.used + 2, 0xffff);
}
static void fault_twice(void)
{
    poke_used(0, 0);
    get_one(&tokens[0], 0);
    poke_used(0, 0);
}
static void fault_too_many(void)
{
    poke_used(0, 0);
    poke_used(2, 0);
    get_one(&tokens[0], 0);
    get_one(&tokens[1], 0);
    poke_used(0, 0);
}

static void hostile_device(void **state)
{
    static void (*const faults[])(void) = {
        fault_id_beyond,   fault_id_huge,     fault_id_inside_chain, fault_id_free, fault_length,
        fault_length_huge, fault_index_jumps, fault_index_back,      fault_twice,   fault_too_many,
    };

    for (unsigned i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        setup(state);
        assert_int_equal(add(2, true, &tokens[0]), 0);
        assert_int_equal(add(1, true, &tokens[1]), 0);
        faults[i]();
        get_none(-EBB_EPROTO);
        /* And it stays broken. */
        get_none(-EBB_EPROTO);
        assert_int_equal(add(1, true, tokens), -EBB_EPROTO);
        assert_true(driver.broken);
    }
    /* Until it is made anew. */
    setup(state);
    assert_false(driver.broken);
}

/* The device scribbles over all it can reach: private state is enough. */
static void scribbled_tables(void **state)
{
    (void)state;
    assert_int_equal(add(3, true, &tokens[0]), 0);
    assert_int_equal(add(2, true, &tokens[1]), 0);
    memset(memory, 0xff, layout.used);
    poke_used(3, 32);
    poke_used(0, 48);
    get_one(&tokens[1], 32);
    get_one(&tokens[0], 48);
    assert_int_equal(driver.free_count, SIZE);
    assert_int_equal(add(SIZE, true, &tokens[2]), 0);
    poke_used(driver.avail[2 + 2], 0);
    get_one(&tokens[2], 0);
}

/* ---- device half ---- */

static void device_init_arguments(void **state)
{
    static const struct {
        unsigned size;
        uint64_t desc, avail, used;
    } bad[] = {
        {0, BASE, BASE + 128, BASE + 152},
        {6, BASE, BASE + 128, BASE + 152},
        {2048, BASE, BASE + 128, BASE + 152},
        {SIZE, BASE + 8, BASE + 128, BASE + 152},
        {SIZE, BASE, BASE + 129, BASE + 152},
        {SIZE, BASE, BASE + 128, BASE + 154},
        {SIZE, 0, BASE + 128, BASE + 152},
        {SIZE, BASE, 0, BASE + 152},
        {SIZE, BASE, BASE + 128, 0},
        {SIZE, BASE + BYTES - 112, BASE, BASE + 152},
        {SIZE, BASE, BASE + BYTES - 20, BASE + 152},
        {SIZE, BASE, BASE + 128, BASE + BYTES - 68},
        {SIZE, UINT64_MAX - 15, BASE + 128, BASE + 152},
        {SIZE, BASE, UINT64_MAX - 1, BASE + 152},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct ebb_ring_device ring;

        assert_int_equal(ebb_ring_device_init(&ring, bad[i].size, bad[i].desc, bad[i].avail,
                                              bad[i].used, 0, translate, memory),
                         -EBB_EINVAL);
    }
}

static void chain_head_beyond(void)
{
    poke_avail(SIZE);
}
static void chain_next_beyond(void)
{
    poke_desc(0, 0, 1, EBB_DESC_NEXT, SIZE);
    poke_avail(0);
}
static void chain_next_huge(void)
{
    poke_desc(0, 0, 1, EBB_DESC_NEXT, 0xffff);
    poke_avail(0);
}
static void chain_loop_self(void)
{
    poke_desc(3, 0, 1, EBB_DESC_NEXT, 3);
    poke_avail(3);
}
static void chain_loop_long(void)
{
    for (unsigned i = 0; i < SIZE; i++)
        poke_desc(i, 0, 1, EBB_DESC_NEXT, (i + 1) % SIZE);
    poke_avail(5);
}
static void chain_indirect(void)
{
    poke_desc(0, BASE, 16, EBB_DESC_INDIRECT, 0);
    poke_avail(0);
}
static void chain_indirect_later(void)
{
    poke_desc(0, BASE, 16, EBB_DESC_NEXT, 1);
    poke_desc(1, BASE, 16, EBB_DESC_INDIRECT | EBB_DESC_WRITE, 0);
    poke_avail(0);
}
static void chain_write_first(void)
{
    poke_desc(0, 0, 1, EBB_DESC_WRITE | EBB_DESC_NEXT, 1);
    poke_desc(1, 0, 1, 0, 0);
    poke_avail(0);
}
static void chain_index_jumps(void)
{
    poke16(layout.avail + 2, SIZE + 1);
}
static void chain_index_back(void)
{
    poke16(layout.avail + 2, 0xffff);
}

static void hostile_driver(void **state)
{
    static void (*const faults[])(void) = {
        chain_head_beyond, chain_next_beyond, chain_next_huge,      chain_loop_self,
        chain_loop_long,   chain_indirect,    chain_indirect_later, chain_write_first,
        chain_index_jumps, chain_index_back,
    };

    for (unsigned i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        uint16_t head;

        setup(state);
        poke_desc(7, BASE, 4, EBB_DESC_WRITE, 0);
        poke_avail(7);
        head = take_one(1);
        assert_int_equal(head, 7);
        poke16(layout.avail + 2, 0); /* so that each case starts at entry 0 */
        assert_int_equal(attach(0), 0);

        faults[i]();
        take_one(-EBB_EPROTO);
        take_one(-EBB_EPROTO);
        assert_true(device.broken);
        /* What was taken before can still be given back. */
        ebb_ring_device_put(&device, head, 4);
        assert_int_equal(peek16(layout.used + 2), 1);
    }
}

/* Odd, but legal as far as a ring can tell: addresses and lengths are for the
 * device to check. */
static void passed_on(void **state)
{
    (void)state;
    poke_desc(2, UINT64_MAX, 0, EBB_DESC_NEXT, 4);
    poke_desc(4, UINT64_MAX - 1, 0xffffffffu, EBB_DESC_WRITE, 99);
    poke_avail(2);
    assert_int_equal(take_one(2), 2);
    assert_int_equal(taken[0].len, 0);
    assert_false(taken[0].write);
    assert_true(taken[1].addr == UINT64_MAX - 1);
    assert_int_equal(taken[1].len, 0xffffffffu);
    assert_true(taken[1].write);
    ebb_ring_device_put(&device, 2, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(layouts),
        TEST(golden_bytes),
        TEST(stays_inside),
        TEST(init_arguments),
        TEST(add_arguments),
        TEST(full_ring),
        TEST(whole_ring_chain),
        TEST(wraps_around),
        TEST(device_resumes),
        TEST(kicks),
        TEST(length_of_readable_chains),
        TEST(hostile_device),
        TEST(scribbled_tables),
        TEST(device_init_arguments),
        TEST(hostile_driver),
        TEST(passed_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
