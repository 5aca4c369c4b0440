/* SPDX-License-Identifier: BSD-2-Clause */
/* The MMIO transport against registers that are words in memory. */
#include <ebb/transport.h>
#include <ebb/virtio.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static uint32_t regs[512 / 4 + 4]; /* and words behind them that stay as they are */
static struct ebb_mmio mmio;

static uint32_t *reg(unsigned offset)
{
    return &regs[offset / 4];
}

static int setup(void **state)
{
    (void)state;
    memset(regs, 0, sizeof(regs));
    memset(&regs[128], 0x77, 16);
    memcpy(reg(0), "virt", 4);
    *reg(4) = 2;
    *reg(8) = 5;
    *reg(0x010) = 0x44332211;
    *reg(0x034) = 128;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned i = 128; i < 132; i++)
        assert_int_equal(regs[i], 0x77777777);
    return 0;
}

static int probe(void)
{
    uint32_t id = 0;
    const int err = ebb_mmio_probe(&mmio, regs, &id);

    assert_int_equal(id, err ? 0 : 5);
    return err;
}

static void probes(void **state)
{
    (void)state;
    assert_int_equal(probe(), 0);
    *reg(4) = 1;
    assert_int_equal(probe(), -EBB_EOPNOTSUPP);
    *reg(4) = 3;
    assert_int_equal(probe(), -EBB_EOPNOTSUPP);
    *reg(4) = 1;
    *reg(8) = 0; /* an empty slot is empty, legacy or not */
    assert_int_equal(probe(), -EBB_ENODEV);
    *reg(4) = 2;
    *reg(8) = 5;
    *reg(0) = 0xffffffffu;
    assert_int_equal(probe(), -EBB_ENODEV);
}

static void operations(void **state)
{
    static const uint32_t addresses[] = {
        0x55667788, 0x11223344, 0, 0, 0xddeeff00, 0x99aabbcc, 0, 0, 0x05060708, 0x01020304,
    };
    struct ebb_transport *t = &mmio.transport;
    const struct ebb_transport_ops *ops;

    (void)state;
    assert_int_equal(probe(), 0);
    ops = t->ops;
    assert_true(ops->get_features(t) == 0x4433221144332211u);
    ops->set_features(t, 0x100000022u);
    assert_int_equal(*reg(0x020), 0x22);
    assert_int_equal(*reg(0x024), 0);
    ops->set_status(t, 0x0b);
    assert_int_equal(*reg(0x070), 0x0b);
    *reg(0x070) = 0xffffff0fu; /* the rest is reserved */
    assert_int_equal(ops->get_status(t), 0x0f);

    assert_int_equal(ops->queue_max(t, 3), 128);
    assert_int_equal(*reg(0x030), 3);
    *reg(0x034) = 0xffffffffu;
    assert_true(ops->queue_max(t, 3) == 0xffffffffu);
    assert_int_equal(
        ops->queue_setup(t, 2, 64, 0x1122334455667788u, 0x99aabbccddeeff00u, 0x0102030405060708u),
        0);
    assert_int_equal(*reg(0x030), 2);
    assert_int_equal(*reg(0x038), 64);
    assert_int_equal(*reg(0x044), 1);
    assert_memory_equal(reg(0x080), addresses, sizeof(addresses));
    assert_int_equal(ops->queue_setup(t, 2, 64, 0, 0, 0), -EBB_EPROTO); /* still in use */
    *reg(0x044) = 0;
    *reg(0x034) = 63;
    assert_int_equal(ops->queue_setup(t, 2, 64, 0, 0, 0), -EBB_ENOSPC);
    ops->notify(t, 2);
    assert_int_equal(*reg(0x050), 2);
}

static void configuration(void **state)
{
    struct ebb_transport *t = &mmio.transport;

    (void)state;
    assert_int_equal(probe(), 0);
    *reg(0x100) = 0x04030201;
    assert_int_equal(t->ops->config_read32(t, 0), 0x04030201);
    t->ops->config_write32(t, 12, 0xa1b2c3d4u);
    assert_int_equal(*reg(0x10c), 0xa1b2c3d4u);
    /* Beyond what is mapped there is nothing. */
    t->ops->config_write32(t, 0x100, 1);
    t->ops->config_write32(t, 0xfffffffcu, 1);
    t->ops->config_write32(t, 2, 1);
    assert_int_equal(t->ops->config_read32(t, 0x100), 0);
    assert_int_equal(t->ops->config_read32(t, 0xfffffffcu), 0);
    assert_int_equal(*reg(0x100), 0x04030201);
}

static void interrupts(void **state)
{
    struct ebb_transport *t = &mmio.transport;

    (void)state;
    assert_int_equal(probe(), 0);
    for (unsigned status = 0; status < 4; status++) {
        *reg(0x060) = 0xfffffff0u | status;
        *reg(0x064) = 0xeeee;
        assert_int_equal(t->ops->irq_causes(t), status);
        assert_int_equal(*reg(0x064), status ? status : 0xeeee);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(probes),
        TEST(operations),
        TEST(configuration),
        TEST(interrupts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
