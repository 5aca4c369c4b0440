/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The PCI transport against a made-up function: configuration space and BARs
 * are bytes in memory, laid out as QEMU does, or as nobody should.
 */
#include "rng.h"

#include <ebb/transport.h>
#include <ebb/virtio.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define BARS      6u
#define BAR_BYTES 0x4000u
#define MSIX_ADDR 0xfebf1000u
#define WIDE_ADDR 0x38000000000u

/* Capabilities in the made-up space. */
enum { CAP_MSIX = 0x40, CAP_COMMON = 0x50, CAP_NOTIFY = 0x60, CAP_ISR = 0x74, CAP_DEVICE = 0x84 };

struct function {
    uint8_t config[256];
    uint32_t writable[BARS];                     /* bits of each BAR register */
    _Alignas(4096) uint8_t memory[2][BAR_BYTES]; /* behind BAR 1 and BAR 4 */
    bool decoding_while_sized;
    bool bad_map; /* somebody wanted to map what is not inside a BAR */
    unsigned maps;
    bool map_fails;
};

static struct function fn;
static struct ebb_pci pci;
static struct ebb_pci_access access_fn;

static uint32_t get(unsigned offset, unsigned size)
{
    uint32_t value = 0;

    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)fn.config[offset + i] << (8 * i);
    return value;
}

static void put(unsigned offset, unsigned size, uint32_t value)
{
    for (unsigned i = 0; i < size; i++)
        fn.config[offset + i] = (uint8_t)(value >> (8 * i));
}

static void check_access(void *ctx, unsigned offset, unsigned size)
{
    assert_ptr_equal(ctx, &fn);
    assert_true(size == 1 || size == 2 || size == 4);
    assert_int_equal(offset % size, 0);
    assert_true(offset + size <= sizeof(fn.config));
}

static uint32_t config_read(void *ctx, unsigned offset, unsigned size)
{
    check_access(ctx, offset, size);
    return get(offset, size);
}

static void config_write(void *ctx, unsigned offset, unsigned size, uint32_t value)
{
    check_access(ctx, offset, size);
    if (offset >= 0x10 && offset < 0x28) {
        const uint32_t mask = fn.writable[(offset - 0x10) / 4];

        assert_int_equal(size, 4);
        if (get(4, 2) & 3)
            fn.decoding_while_sized = true;
        value = (value & mask) | (get(offset, 4) & ~mask);
    }
    put(offset, size, value);
}

static uint64_t bar_addr(unsigned bar)
{
    uint64_t addr = get(0x10 + 4 * bar, 4) & ~0xfu;

    if ((get(0x10 + 4 * bar, 4) & 6) == 4 && bar < BARS - 1)
        addr |= (uint64_t)get(0x14 + 4 * bar, 4) << 32;
    return addr;
}

static volatile void *map(void *ctx, uint64_t addr, uint64_t len)
{
    assert_ptr_equal(ctx, &fn);
    fn.maps++;
    if (fn.map_fails)
        return NULL;
    for (unsigned i = 0; i < 2; i++) {
        const uint64_t base = bar_addr(i ? 4 : 1);

        if (addr >= base && addr - base <= BAR_BYTES && len <= BAR_BYTES - (addr - base))
            return &fn.memory[i][addr - base];
    }
    fn.bad_map = true;
    return NULL;
}

static void put_cap(unsigned at, unsigned next, unsigned len, unsigned type, unsigned bar,
                    uint32_t offset, uint32_t length)
{
    put(at, 1, 0x09);
    put(at + 1, 1, next);
    put(at + 2, 1, len);
    put(at + 3, 1, type);
    put(at + 4, 1, bar);
    put(at + 8, 4, offset);
    put(at + 12, 4, length);
}

static uint8_t *common(unsigned offset)
{
    return &fn.memory[1][offset];
}

static int setup(void **state)
{
    (void)state;
    memset(&fn, 0, sizeof(fn));
    put(0x00, 2, 0x1af4);
    put(0x02, 2, 0x1045);
    put(0x04, 2, 0x0403); /* I/O, memory, no INTx */
    put(0x06, 2, 0x0010);
    put(0x34, 1, CAP_MSIX);
    put(0x10, 4, 0xc001); /* BAR 0: I/O */
    fn.writable[0] = 0xffffffe0u;
    put(0x14, 4, MSIX_ADDR & 0xffff0000u); /* BAR 1: 32 bits */
    fn.writable[1] = ~(BAR_BYTES - 1);
    put(0x20, 4, (uint32_t)WIDE_ADDR | 0xcu); /* BAR 4: 64 bits, prefetchable */
    put(0x24, 4, (uint32_t)(WIDE_ADDR >> 32));
    fn.writable[4] = ~(BAR_BYTES - 1);
    fn.writable[5] = 0xffffffffu;

    put(CAP_MSIX, 1, 0x11);
    put(CAP_MSIX + 1, 1, CAP_COMMON);
    put(CAP_MSIX + 2, 2, 0x0002); /* three entries */
    put(CAP_MSIX + 4, 4, 0x1000 | 1);
    put_cap(CAP_COMMON, CAP_NOTIFY, 16, 1, 4, 0x0000, 0x1000);
    put_cap(CAP_NOTIFY, CAP_ISR, 20, 2, 4, 0x3000, 0x1000);
    put(CAP_NOTIFY + 16, 4, 4);
    put_cap(CAP_ISR, CAP_DEVICE, 16, 3, 4, 0x1000, 0x1000);
    put_cap(CAP_DEVICE, 0, 16, 4, 4, 0x2000, 0x10);

    memcpy(common(0x04), "\x11\x22\x33\x44", 4); /* features, whichever half */
    memcpy(common(0x12), "\x05\x00", 2);         /* queues */
    memcpy(common(0x18), "\x80\x00", 2);         /* size of each */
    memcpy(common(0x1e), "\x02\x00", 2);         /* notification offset of each */
    access_fn = (struct ebb_pci_access){config_read, config_write, map, &fn};
    return 0;
}

/* BARs were never decoded while they were all ones; nothing else was mapped. */
static int teardown(void **state)
{
    (void)state;
    assert_false(fn.decoding_while_sized);
    assert_false(fn.bad_map);
    return 0;
}

static int probe(void)
{
    uint32_t id = 0;
    const int err = ebb_pci_probe(&pci, &access_fn, &id);

    if (err == 0)
        assert_int_equal(id, EBB_VIRTIO_ID_BALLOON);
    else
        assert_int_equal(id, 0);
    return err;
}

/* ---- as it should be ---- */

static void finds_its_registers(void **state)
{
    uint8_t before[24];

    (void)state;
    memcpy(before, &fn.config[0x10], 24);
    assert_int_equal(probe(), 0);
    assert_memory_equal(&fn.config[0x10], before, 24);
    assert_int_equal(get(4, 2), 0x0007); /* I/O as found, memory, bus master, INTx allowed */
    assert_ptr_equal(pci.common, common(0));
    assert_ptr_equal(pci.notify, common(0x3000));
    assert_ptr_equal(pci.isr, common(0x1000));
    assert_ptr_equal(pci.device, common(0x2000));
    assert_int_equal(pci.notify_multiplier, 4);
    assert_int_equal(pci.device_len, 16);
    assert_int_equal(pci.config_vector, 1);
}

static void transitional(void **state)
{
    (void)state;
    put(0x02, 2, 0x1002);
    assert_int_equal(probe(), 0);
}

static void operations(void **state)
{
    static const uint8_t queue[] = {
        0x03, 0,    0x40, 0,    0,    0,    1,    0,    2, 0, /* select to notify_off */
        0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,       /* descriptors */
        0x00, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99,       /* driver area */
        0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,       /* device area */
    };
    const struct ebb_transport_ops *ops;
    struct ebb_transport *t = &pci.transport;

    (void)state;
    assert_int_equal(probe(), 0);
    ops = t->ops;
    assert_true(ops->get_features(t) == 0x4433221144332211u);
    assert_int_equal(*common(0x00), 0);
    ops->set_features(t, 0x100000022u);
    assert_memory_equal(common(0x08), "\0\0\0\0\x22\0\0\0", 8);
    ops->set_status(t, 0x0b);
    assert_int_equal(*common(0x14), 0x0b);
    assert_int_equal(ops->get_status(t), 0x0b);

    assert_int_equal(ops->queue_max(t, 4), 128);
    assert_int_equal(*common(0x16), 4);
    assert_int_equal(ops->queue_max(t, 5), 0);
    assert_int_equal(
        ops->queue_setup(t, 3, 64, 0x1122334455667788u, 0x99aabbccddeeff00u, 0x0102030405060708u),
        0);
    assert_memory_equal(common(0x16), queue, sizeof(queue));
    ops->notify(t, 3);
    assert_memory_equal(common(0x3008), "\x03\0", 2);

    memcpy(common(0x2000), "\x01\x02\x03\x04", 4);
    assert_int_equal(ops->config_read32(t, 0), 0x04030201);
    ops->config_write32(t, 12, 0xa1b2c3d4u);
    assert_memory_equal(common(0x200c), "\xd4\xc3\xb2\xa1", 4);
    /* Beyond its end there is nothing to read, and nothing is written. */
    memset(common(0x2010), 0x77, 8);
    assert_int_equal(ops->config_read32(t, 16), 0);
    ops->config_write32(t, 16, 1);
    ops->config_write32(t, 0xfffffffcu, 1);
    ops->config_write32(t, 2, 1);
    assert_int_equal(*common(0x2010), 0x77);
    assert_int_equal(ops->config_read32(t, 0xfffffffcu), 0);

    *common(0x1000) = 0xff;
    assert_int_equal(ops->irq_causes(t), EBB_IRQ_QUEUE | EBB_IRQ_CONFIG);
    *common(0x1000) = 2;
    assert_int_equal(ops->irq_causes(t), EBB_IRQ_CONFIG);
    *common(0x1000) = 0;
    assert_int_equal(ops->irq_causes(t), 0);
}

static void msix(void **state)
{
    static const uint8_t entries[] = {
        0x00, 0x10, 0xe0, 0xfe, 1, 0, 0, 0, 0x41, 0, 0, 0, 0, 0, 0, 0, /* of the queues */
        0x00, 0x10, 0xe0, 0xfe, 1, 0, 0, 0, 0x42, 0, 0, 0, 0, 0, 0, 0, /* of the configuration */
        0xff, 0xff, 0xff, 0xff,                                        /* not used */
    };
    struct ebb_transport *t = &pci.transport;

    (void)state;
    assert_int_equal(probe(), 0);
    memset(&fn.memory[0][0x1000], 0xff, sizeof(entries));
    memset(common(0x10), 0xff, 2);
    memset(common(0x1a), 0xff, 2);
    assert_int_equal(ebb_pci_use_msix(&pci, 0x1fee01000u, 0x41, 0x42), 0);
    assert_memory_equal(&fn.memory[0][0x1000], entries, sizeof(entries));
    assert_int_equal(get(CAP_MSIX + 2, 2), 0x8002); /* on, not masked */
    assert_int_equal(t->ops->queue_setup(t, 0, 64, 0, 0, 0), 0);
    assert_memory_equal(common(0x10), "\1\0", 2);
    assert_memory_equal(common(0x1a), "\0\0", 2);
    assert_int_equal(t->ops->irq_causes(t), EBB_IRQ_QUEUE);
}

/* One message for all, which cannot tell what for. */
static void msix_of_one_entry(void **state)
{
    static const uint8_t entry[] = {0x00, 0x00, 0xe0, 0xfe, 0, 0, 0, 0, 0x41, 0, 0, 0, 0, 0, 0, 0};
    struct ebb_transport *t = &pci.transport;

    (void)state;
    put(CAP_MSIX + 2, 2, 0x0000);
    put(CAP_MSIX + 4, 4, 0x3ff0 | 1); /* at the end of the BAR */
    assert_int_equal(probe(), 0);
    memset(&fn.memory[0][0x3ff0], 0xff, 16);
    memset(common(0x10), 0xff, 2);
    assert_int_equal(ebb_pci_use_msix(&pci, 0xfee00000u, 0x41, 0x42), 0);
    assert_memory_equal(&fn.memory[0][0x3ff0], entry, sizeof(entry));
    assert_int_equal(t->ops->queue_setup(t, 0, 64, 0, 0, 0), 0);
    assert_memory_equal(common(0x10), "\0\0", 2);
    assert_int_equal(t->ops->irq_causes(t), EBB_IRQ_QUEUE | EBB_IRQ_CONFIG);
}

static void no_msix(void **state)
{
    (void)state;
    put(0x34, 1, CAP_COMMON);
    assert_int_equal(probe(), 0);
    assert_int_equal(ebb_pci_use_msix(&pci, 0xfee00000u, 0x41, 0x42), -EBB_EOPNOTSUPP);
    assert_false(pci.msix_on);
}

static void bad_queues(void **state)
{
    struct ebb_transport *t = &pci.transport;

    (void)state;
    assert_int_equal(probe(), 0);
    assert_int_equal(t->ops->queue_setup(t, 5, 64, 0, 0, 0), -EBB_ENOSPC);
    assert_int_equal(t->ops->queue_setup(t, 0xffffffffu, 64, 0, 0, 0), -EBB_ENOSPC);
    memcpy(common(0x12), "\xff\xff", 2); /* so many queues, and no room for them here */
    assert_int_equal(t->ops->queue_setup(t, EBB_PCI_QUEUES, 64, 0, 0, 0), -EBB_ENOSPC);
    memcpy(common(0x18), "\x20\x00", 2);
    assert_int_equal(t->ops->queue_setup(t, 0, 64, 0, 0, 0), -EBB_ENOSPC);
    memcpy(common(0x1c), "\x01\x00", 2);
    assert_int_equal(t->ops->queue_setup(t, 0, 32, 0, 0, 0), -EBB_EPROTO);
    memcpy(common(0x1c), "\x00\x00", 2);
    memcpy(common(0x1e), "\x00\x04", 2); /* 1024 * 4: just behind */
    assert_int_equal(t->ops->queue_setup(t, 0, 32, 0, 0, 0), -EBB_EPROTO);
    memcpy(common(0x1e), "\xff\x03", 2);
    assert_int_equal(t->ops->queue_setup(t, 0, 32, 0, 0, 0), 0);
    t->ops->notify(t, 0);

    memcpy(common(0x1c), "\x00\x00", 2);
    memcpy(common(0x1e), "\xff\xff", 2);
    pci.notify_multiplier = 0xffffffffu;
    assert_int_equal(t->ops->queue_setup(t, 0, 32, 0, 0, 0), -EBB_EPROTO);
    pci.notify_multiplier = 0; /* one doorbell for all */
    assert_int_equal(t->ops->queue_setup(t, 0, 32, 0, 0, 0), 0);
    assert_ptr_equal(pci.doorbells[0], pci.notify);
}

/* ---- as nobody should ---- */

static void wrong_vendor(void)
{
    put(0x00, 2, 0x8086);
}
static void not_there(void)
{
    memset(fn.config, 0xff, sizeof(fn.config));
}
static void device_below(void)
{
    put(0x02, 2, 0x1001);
}
static void device_zero(void)
{
    put(0x02, 2, 0x1040);
}
static void device_above(void)
{
    put(0x02, 2, 0x1080);
}
static void bridge(void)
{
    put(0x0e, 1, 0x81);
}
static void no_capabilities(void)
{
    put(0x06, 2, 0);
}
static void list_empty(void)
{
    put(0x34, 1, 0);
}
static void list_only_msix(void)
{
    put(CAP_MSIX + 1, 1, 0);
}
static void list_loop(void)
{
    put(CAP_DEVICE + 1, 1, CAP_MSIX);
}
static void list_self(void)
{
    put(CAP_COMMON + 1, 1, CAP_COMMON);
}
static void list_into_header(void)
{
    put(CAP_DEVICE + 1, 1, 0x10);
}
static void bar_beyond(void)
{
    put(CAP_COMMON + 4, 1, 6);
}
static void bar_huge(void)
{
    put(CAP_ISR + 4, 1, 0xff);
}
static void bar_io(void)
{
    put(CAP_ISR + 4, 1, 0);
    put(CAP_ISR + 8, 4, 0);
}
static void bar_upper_half(void)
{
    put(CAP_COMMON + 4, 1, 5);
}
static void bar_absent(void)
{
    put(CAP_NOTIFY + 4, 1, 2);
}
static void bar_unassigned(void)
{
    put(0x20, 4, 0xc);
    put(0x24, 4, 0);
}
static void bar_wraps(void)
{
    put(0x20, 4, 0xffffc00cu);
    put(0x24, 4, 0xffffffffu);
}
static void bar_size_holes(void)
{
    fn.writable[4] = 0xffff0ff0u;
}
static void bar_wide_at_the_end(void)
{
    put(0x20, 4, 0);
    put(0x24, 4, 0xfe00000cu);
    put(CAP_COMMON + 4, 1, 5);
}
static void offset_beyond(void)
{
    put(CAP_DEVICE + 8, 4, BAR_BYTES);
}
static void offset_huge(void)
{
    put(CAP_COMMON + 8, 4, 0xfffffffcu);
}
static void length_beyond(void)
{
    put(CAP_NOTIFY + 12, 4, 0x1001);
}
static void length_huge(void)
{
    put(CAP_NOTIFY + 12, 4, 0xffffffffu);
}
static void common_short(void)
{
    put(CAP_COMMON + 12, 4, 0x37);
}
static void common_odd(void)
{
    put(CAP_COMMON + 8, 4, 2);
}
static void notify_odd(void)
{
    put(CAP_NOTIFY + 8, 4, 0x2001);
}
static void notify_short(void)
{
    put(CAP_NOTIFY + 12, 4, 1);
}
static void notify_no_multiplier(void)
{
    put(CAP_NOTIFY + 2, 1, 16);
}
static void notify_at_the_end(void)
{
    put(CAP_COMMON + 1, 1, 0xf0); /* its multiplier would lie behind the space */
    put_cap(0xf0, CAP_ISR, 20, 2, 4, 0x3000, 0x1000);
}
static void isr_empty(void)
{
    put(CAP_ISR + 12, 4, 0);
}
static void device_short(void)
{
    put(CAP_DEVICE + 12, 4, 3);
}
static void device_odd(void)
{
    put(CAP_DEVICE + 8, 4, 0x2002);
}
static void common_at_the_end(void)
{
    put(CAP_DEVICE + 1, 1, 0xf4); /* it would go on behind the space */
    put(CAP_COMMON + 3, 1, 9);
    put(0xf4, 4, 0x01100009);
    put(0xf8, 4, 4);
    put(0xfc, 4, 0);
}
static void cap_short(void)
{
    put(CAP_COMMON + 2, 1, 12);
}
static void common_missing(void)
{
    put(CAP_COMMON + 3, 1, 9);
}
static void map_fails(void)
{
    fn.map_fails = true;
}

static void hostile_function(void **state)
{
    static const struct {
        void (*fault)(void);
        int err;
    } cases[] = {
        {wrong_vendor, -EBB_ENODEV},
        {not_there, -EBB_ENODEV},
        {device_below, -EBB_ENODEV},
        {device_zero, -EBB_ENODEV},
        {device_above, -EBB_ENODEV},
        {bridge, -EBB_ENODEV},
        {no_capabilities, -EBB_EOPNOTSUPP},
        {list_empty, -EBB_EOPNOTSUPP},
        {list_only_msix, -EBB_EOPNOTSUPP},
        {list_loop, -EBB_EPROTO},
        {list_self, -EBB_EPROTO},
        {list_into_header, -EBB_EPROTO},
        {bar_beyond, -EBB_EPROTO},
        {bar_huge, -EBB_EPROTO},
        {bar_io, -EBB_EPROTO},
        {bar_upper_half, -EBB_EPROTO},
        {bar_absent, -EBB_EPROTO},
        {bar_unassigned, -EBB_EPROTO},
        {bar_wraps, -EBB_EPROTO},
        {bar_size_holes, -EBB_EPROTO},
        {bar_wide_at_the_end, -EBB_EPROTO},
        {offset_beyond, -EBB_EPROTO},
        {offset_huge, -EBB_EPROTO},
        {length_beyond, -EBB_EPROTO},
        {length_huge, -EBB_EPROTO},
        {common_short, -EBB_EPROTO},
        {common_odd, -EBB_EPROTO},
        {notify_odd, -EBB_EPROTO},
        {notify_short, -EBB_EPROTO},
        {notify_no_multiplier, -EBB_EPROTO},
        {notify_at_the_end, -EBB_EPROTO},
        {isr_empty, -EBB_EPROTO},
        {device_short, -EBB_EPROTO},
        {device_odd, -EBB_EPROTO},
        {common_at_the_end, -EBB_EPROTO},
        {cap_short, -EBB_EPROTO},
        {common_missing, -EBB_EPROTO},
        {map_fails, -EBB_EPROTO},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int err;

        setup(state);
        cases[i].fault();
        err = probe();
        if (err != cases[i].err)
            fail_msg("case %u: %d, not %d", i, err, cases[i].err);
        teardown(state);
    }
}

/* A capability that cannot be used is passed over for one that can. */
static void second_choice(void **state)
{
    (void)state;
    put(0x34, 1, 0x98);
    put_cap(0x98, 0xa8, 16, 1, 0, 0, 0x1000);          /* in an I/O BAR */
    put_cap(0xa8, CAP_MSIX, 16, 1, 4, 0x9000, 0x1000); /* behind the end */
    assert_int_equal(probe(), 0);
    assert_ptr_equal(pci.common, common(0));
}

static void bad_msix(void **state)
{
    static const uint32_t tables[] = {0x1000 | 6,      0x1000 | 0, 0x3ff0 | 1, 0x3ff8 | 1,
                                      0xfffffff8u | 1, 2}; /* the third has room for one entry */

    for (unsigned i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        setup(state);
        put(CAP_MSIX + 4, 4, tables[i]);
        assert_int_equal(probe(), 0);
        assert_int_equal(ebb_pci_use_msix(&pci, 0xfee00000u, 0x41, 0x42), -EBB_EOPNOTSUPP);
        teardown(state);
    }
    setup(state);
    put(0x34, 1, CAP_COMMON);
    put(CAP_DEVICE + 1, 1, 0xf8); /* it would go on behind the space */
    put(0xf8, 1, 0x11);
    put(0xfc, 4, 0x1000 | 1);
    assert_int_equal(probe(), 0);
    assert_int_equal(ebb_pci_use_msix(&pci, 0xfee00000u, 0x41, 0x42), -EBB_EOPNOTSUPP);
}

/* A few random bytes of configuration space, and whatever comes of it. */
static void fuzz(void **state)
{
    for (uint64_t run = 0; run < 30000; run++) {
        const uint64_t seed = rng_seed(run);
        struct rng rng = {seed};
        struct ebb_transport *t = &pci.transport;
        uint32_t id;

        setup(state);
        for (unsigned i = rng_below(&rng, 6); i > 0; i--)
            fn.config[0x04 + rng_below(&rng, 0x94)] = (uint8_t)rng_next(&rng);
        for (unsigned i = rng_below(&rng, 20); i > 0; i--)
            *common(rng_below(&rng, 0x40)) = (uint8_t)rng_next(&rng);
        for (unsigned i = rng_below(&rng, 3); i > 0; i--)
            fn.writable[rng_below(&rng, BARS)] = (uint32_t)rng_next(&rng);
        if (ebb_pci_probe(&pci, &access_fn, &id) != 0)
            continue;
        if (rng_below(&rng, 2) && ebb_pci_use_msix(&pci, rng_next(&rng), 1, 2) != 0)
            continue;
        t->ops->set_features(t, t->ops->get_features(t));
        for (unsigned q = 0; q < 10; q++) {
            const unsigned max = t->ops->queue_max(t, q);

            if (t->ops->queue_setup(t, q, max, 0, 0, 0) == 0)
                t->ops->notify(t, q);
        }
        (void)t->ops->config_read32(t, rng_below(&rng, 8192));
        t->ops->config_write32(t, rng_below(&rng, 8192), 0);
        (void)t->ops->irq_causes(t);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(finds_its_registers), TEST(transitional),
        TEST(operations),          TEST(msix),
        TEST(msix_of_one_entry),   TEST(no_msix),
        TEST(bad_queues),          TEST(hostile_function),
        TEST(second_choice),       TEST(bad_msix),
        cmocka_unit_test(fuzz),
    };

    rng_watch();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
