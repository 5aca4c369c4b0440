/* SPDX-License-Identifier: BSD-2-Clause */
/* The balloon device, and a driver that keeps to the rules; see balloon_rig.h. */
#include "balloon_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB    0x100000u
#define MS     1000000u   /* ns */
#define ANSWER (200 * MS) /* by default */

static const struct ebb_balloon_device_stats *stats(void)
{
    return ebb_balloon_device_get_stats(rig.device);
}

static int no_rig(void **state)
{
    (void)state;
    return 0;
}

/* ---- features and queue numbers ---- */

static uint64_t offered(uint64_t too, uint64_t withhold)
{
    rig.config.offer_too = too;
    rig.config.withhold = withhold;
    ebb_balloon_device_free(rig.device);
    rig.device = ebb_balloon_device_new(&rig.config);
    assert_non_null(rig.device);
    return ebb_balloon_device_features(rig.device);
}

static void features_are_offered_as_configured(void **state)
{
    (void)state;
    assert_int_equal(offered(0, 0), EBB_F_VERSION_1 | RIG_ALL);
    assert_int_equal(offered(EBB_F_DEFLATE_ON_OOM, EBB_F_STATS_VQ),
                     EBB_F_VERSION_1 | EBB_F_DEFLATE_ON_OOM | (RIG_ALL & ~EBB_F_STATS_VQ));
    assert_int_equal(offered(EBB_F_MUST_TELL_HOST, EBB_F_MUST_TELL_HOST),
                     EBB_F_VERSION_1 | (RIG_ALL & ~EBB_F_MUST_TELL_HOST));
}

static void bad_configurations_are_refused(void **state)
{
    const struct ebb_balloon_device_config good = rig.config;
    struct ebb_balloon_device_ops ops = *good.ops;
    struct ebb_balloon_device_config bad[9];

    (void)state;
    for (unsigned i = 0; i < 9; i++)
        bad[i] = good;
    bad[0].memory = NULL;
    bad[1].discard = NULL;
    bad[2].ops = NULL;
    bad[3].offer_too = EBB_F_VERSION_1;
    bad[4].withhold = (uint64_t)1 << 6;
    bad[5].batch_chains = 257;
    bad[6].gather_us = 100001;
    bad[7].ops = &ops;
    bad[8].answer_ms = 1000001;
    ops.wake = NULL;
    for (unsigned i = 0; i < 9; i++) {
        errno = 0;
        assert_null(ebb_balloon_device_new(&bad[i]));
        assert_int_equal(errno, EINVAL);
    }
}

static void what_was_not_offered_cannot_be_accepted(void **state)
{
    const uint64_t transport = (uint64_t)1 << 30 | EBB_F_ACCESS_PLATFORM | (uint64_t)1 << 40;

    (void)state;
    /* Queues run: the same again is all that can be said. */
    assert_int_equal(ebb_balloon_device_accept(rig.device, EBB_F_VERSION_1 | RIG_ALL), 0);
    assert_int_equal(ebb_balloon_device_accept(rig.device, EBB_F_VERSION_1), -EBB_EINVAL);
    ebb_balloon_device_reset(rig.device);
    assert_int_equal(ebb_balloon_device_accept(rig.device, EBB_F_DEFLATE_ON_OOM), -EBB_EINVAL);
    assert_int_equal(ebb_balloon_device_accept(rig.device, EBB_F_INDIRECT_DESC), -EBB_EINVAL);
    assert_int_equal(ebb_balloon_device_accept(rig.device, EBB_F_EVENT_IDX), -EBB_EINVAL);
    assert_int_equal(ebb_balloon_device_accept(rig.device, (uint64_t)1 << 34), -EBB_EINVAL);
    assert_int_equal(ebb_balloon_device_accept(rig.device, (uint64_t)1 << 35), -EBB_EINVAL);
    assert_int_equal(ebb_balloon_device_accept(rig.device, EBB_F_VERSION_1 | transport), 0);
    assert_int_equal(ebb_balloon_device_queue_count(rig.device), 2);
}

/* Features withheld and accepted, and which queue each number then is. */
static const struct numbering {
    uint64_t withhold, accept;
    enum ebb_balloon_device_queues how;
    unsigned count;     /* of queues */
    uint8_t expects[6]; /* by number: 1 + enum ebb_balloon_queue; 0: none */
} numberings[] = {
    {0, RIG_ALL, EBB_BALLOON_DEVICE_DENSE, 5, {1, 2, 3, 4, 5, 0}},
    {0, RIG_ALL, EBB_BALLOON_DEVICE_FIXED, 5, {1, 2, 3, 4, 5, 0}},
    /* Linux without statistics and hints: 2. By the offer, or the specification: 4. */
    {0, EBB_F_PAGE_REPORTING, EBB_BALLOON_DEVICE_DENSE, 3, {1, 2, 5, 0, 5, 0}},
    {0, EBB_F_PAGE_REPORTING, EBB_BALLOON_DEVICE_FIXED, 5, {1, 2, 0, 0, 5, 0}},
    {0, EBB_F_STATS_VQ | EBB_F_PAGE_REPORTING, EBB_BALLOON_DEVICE_DENSE, 4, {1, 2, 3, 5, 5, 0}},
    /* Not offered: the number of those that are, too. */
    {EBB_F_FREE_PAGE_HINT, EBB_F_PAGE_REPORTING, EBB_BALLOON_DEVICE_DENSE, 3, {1, 2, 5, 5, 5, 0}},
    {EBB_F_STATS_VQ | EBB_F_FREE_PAGE_HINT,
     EBB_F_PAGE_REPORTING,
     EBB_BALLOON_DEVICE_DENSE,
     3,
     {1, 2, 5, 0, 5, 0}},
    {0, 0, EBB_BALLOON_DEVICE_DENSE, 2, {1, 2, 0, 0, 0, 0}},
    {0, 0, EBB_BALLOON_DEVICE_FIXED, 2, {1, 2, 0, 0, 0, 0}},
};

/* Send this queue something, and see as which one it is served. */
static void check_number(unsigned number, unsigned which)
{
    const struct ebb_balloon_device_stats before = *stats();
    const struct ebb_balloon_device_vring vring = rig_vring(number);

    if (which == 0) {
        assert_int_equal(ebb_balloon_device_start(rig.device, number, &vring), -EBB_EINVAL);
        ebb_balloon_device_enable(rig.device, number, true);
        ebb_balloon_device_kick(rig.device, number);
        assert_int_equal(ebb_balloon_device_stop(rig.device, number), -EBB_ENOENT);
        return;
    }
    rig_start(number);
    rig_pfns(number, RIG_HIGH, 5);
    rig_kick(number);
    rig_settle();
    if (which - 1 == EBB_BALLOON_STATS) {
        assert_int_equal(stats()->stats_received, before.stats_received + 1);
    } else {
        assert_int_equal(stats()->chains[which - 1], before.chains[which - 1] + 1);
        assert_int_equal(rig.calls[number], 1);
        assert_int_equal(rig_back(number), 1);
    }
    rig.calls[number] = 0;
    assert_int_equal(ebb_balloon_device_stop(rig.device, number), which - 1 != EBB_BALLOON_STATS);
}

static void queues_have_their_numbers(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(numberings) / sizeof(numberings[0]); i++) {
        const struct numbering *row = &numberings[i];
        const struct ebb_balloon_device_config config = {
            .withhold = row->withhold,
            .numbering = row->how,
        };

        ebb_balloon_device_free(rig.device);
        rig_new_device(&config);
        assert_int_equal(ebb_balloon_device_accept(rig.device, EBB_F_VERSION_1 | row->accept), 0);
        assert_int_equal(ebb_balloon_device_queue_count(rig.device), row->count);
        for (unsigned number = 0; number < 5; number++)
            check_number(number, row->expects[number]);
        check_number(5, 0);
    }
}

/* A queue has one number at a time. */
static void no_queue_runs_twice(void **state)
{
    const struct ebb_balloon_device_vring vring = rig_vring(4);

    (void)state;
    ebb_balloon_device_reset(rig.device);
    assert_int_equal(ebb_balloon_device_accept(rig.device, EBB_F_PAGE_REPORTING), 0);
    rig_start(2);
    assert_int_equal(ebb_balloon_device_start(rig.device, 4, &vring), -EBB_EINVAL);
    assert_int_equal(ebb_balloon_device_stop(rig.device, 4), -EBB_ENOENT);
    assert_int_equal(ebb_balloon_device_stop(rig.device, 2), 0);
    assert_int_equal(ebb_balloon_device_start(rig.device, 4, &vring), 0);
}

/* ---- configuration space ---- */

static uint64_t config_get(uint32_t offset, uint32_t len)
{
    uint8_t bytes[8] = {0};
    uint64_t value = 0;

    ebb_balloon_device_config_read(rig.device, offset, bytes, len);
    for (unsigned i = 0; i < 8; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static void config_set(uint32_t offset, uint64_t value, uint32_t len)
{
    uint8_t bytes[8];

    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    ebb_balloon_device_config_write(rig.device, offset, bytes, len);
}

static void config_reads(void **state)
{
    uint8_t space[32];

    (void)state;
    ebb_balloon_device_resize(rig.device, 0x04030201);
    assert_int_equal(rig.config_changes, 1);
    ebb_balloon_device_resize(rig.device, 0x04030201);
    assert_int_equal(rig.config_changes, 1);
    assert_int_equal(ebb_balloon_device_target(rig.device), 0x04030201);
    config_set(EBB_BALLOON_CFG_ACTUAL, 0x14131211, 4);
    assert_int_equal(ebb_balloon_device_actual(rig.device), 0x14131211);
    assert_int_equal(config_get(0, 4), 0x04030201);
    assert_int_equal(config_get(1, 1), 2);
    assert_int_equal(config_get(2, 4), 0x12110403);
    assert_int_equal(config_get(15, 8), 0);
    assert_int_equal(config_get(16, 8), 0);
    assert_int_equal(config_get(UINT32_MAX, 8), 0);
    memset(space, 0xee, sizeof(space));
    ebb_balloon_device_config_read(rig.device, 0, space, 31);
    assert_int_equal(space[0], 1);
    assert_int_equal(space[4], 0x11);
    assert_int_equal(space[30], 0);
    assert_int_equal(space[31], 0xee);
    ebb_balloon_device_config_read(rig.device, 3, NULL, 0);
}

static void config_takes_what_is_the_drivers(void **state)
{
    uint8_t space[16];

    (void)state;
    config_set(EBB_BALLOON_CFG_ACTUAL, 77, 4);
    assert_int_equal(rig_faults(), 0);
    /* Part of a field is not taken. */
    config_set(EBB_BALLOON_CFG_ACTUAL, 78, 2);
    config_set(EBB_BALLOON_CFG_ACTUAL + 1, 78, 3);
    assert_int_equal(ebb_balloon_device_actual(rig.device), 77);
    assert_int_equal(rig_fault(EBB_FAULT_CONFIG), 2);
    /* While queues run the poison is as it was. */
    config_set(EBB_BALLOON_CFG_POISON_VAL, 5, 4);
    assert_int_equal(rig_fault(EBB_FAULT_CONFIG), 3);
    assert_int_equal(config_get(EBB_BALLOON_CFG_POISON_VAL, 4), 0);
    ebb_balloon_device_reset(rig.device);
    assert_int_equal(ebb_balloon_device_actual(rig.device), 0);
    config_set(EBB_BALLOON_CFG_POISON_VAL, 5, 4);
    assert_int_equal(config_get(EBB_BALLOON_CFG_POISON_VAL, 4), 5);
    assert_int_equal(rig_fault(EBB_FAULT_CONFIG), 3);

    /* The whole space written back, as QEMU does: no fault while it is what was read. */
    ebb_balloon_device_config_read(rig.device, 0, space, 16);
    space[4] = 9;
    ebb_balloon_device_config_write(rig.device, 0, space, 16);
    assert_int_equal(ebb_balloon_device_actual(rig.device), 9);
    assert_int_equal(rig_fault(EBB_FAULT_CONFIG), 3);
    /* A stale target is not taken, but what is the driver's is. */
    space[0] = 1;
    space[4] = 10;
    ebb_balloon_device_config_write(rig.device, 0, space, 16);
    assert_int_equal(ebb_balloon_device_target(rig.device), 0);
    assert_int_equal(ebb_balloon_device_actual(rig.device), 10);
    assert_int_equal(rig_fault(EBB_FAULT_CONFIG), 4);
}

/* ---- inflate and deflate ---- */

static void inflated_pages_are_discarded(void **state)
{
    (void)state;
    rig_fill(RIG_HIGH, MIB);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_HIGH, 255);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_settle();
    assert_true(rig_gone(RIG_HIGH, 255 * 4096));
    assert_true(rig_kept(RIG_HIGH + 255 * 4096, 4096));
    assert_int_equal(rig_back(EBB_BALLOON_INFLATE), 1);
    assert_int_equal(rig.calls[EBB_BALLOON_INFLATE], 1);
    assert_int_equal(stats()->inflated_pages, 255);
    assert_int_equal(rig_discards().ranges, 1); /* consecutive pages are one */
    assert_int_equal(rig_faults(), 0);
}

/* Guest address 0, of a file of its own. */
static int add_page_0(void)
{
    const int fd = memfd_create("page-0", MFD_CLOEXEC);
    struct ebb_region region = {.size = 4096, .fd = fd};
    const char *why;

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 4096), 0);
    assert_int_equal(pwrite(fd, "kept", 4, 0), 4);
    assert_int_equal(ebb_region_probe(&region, true, &why), 0);
    assert_int_equal(ebb_memory_add(&rig.memory, &region), 0);
    return fd;
}

/* Page numbers of 64 bits, as Windows' 64-bit driver sends them. */
static void wide_pfns(unsigned queue, uint64_t gpa, unsigned pages)
{
    for (unsigned i = 0; i < pages; i++)
        rig_put(RIG_BUFFERS + 8 * (uint64_t)i, (gpa >> 12) + i, 8);
    rig_readable(queue, RIG_BUFFERS, 8 * pages);
    rig_kick(queue);
    rig_settle();
    assert_int_equal(rig_back(queue), 1);
}

static void wide_page_numbers(void **state)
{
    const int page_0 = add_page_0();
    char word[5] = "";

    (void)state;
    rig_fill(RIG_HIGH, RIG_HIGH_BYTES);
    wide_pfns(EBB_BALLOON_INFLATE, RIG_HIGH, 512);
    assert_true(rig_gone(RIG_HIGH, 512 * 4096));
    assert_true(rig_kept(RIG_HIGH + 512 * 4096, 4096));
    wide_pfns(EBB_BALLOON_INFLATE, RIG_HIGH + 512 * 4096, 1);
    assert_true(rig_gone(RIG_HIGH, 513 * 4096));
    assert_int_equal(pread(page_0, word, 4, 0), 4);
    assert_string_equal(word, "kept");
    assert_int_equal(stats()->inflated_pages, 513);
    wide_pfns(EBB_BALLOON_DEFLATE, RIG_HIGH, 512);
    assert_int_equal(stats()->deflated_pages, 512);
    assert_int_equal(rig_faults(), 0);

    /* It is a page like others for who names it otherwise. */
    rig_pfns(EBB_BALLOON_INFLATE, 0, 1);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_settle();
    assert_int_equal(pread(page_0, word, 4, 0), 4);
    assert_string_equal(word, "");
    close(page_0);
}

/* As an allocator hands them out: downwards, in pieces, over several buffers and region borders. */
static void scattered_pages_are_discarded(void **state)
{
    const struct ebb_ring_buf bufs[] = {
        {.addr = RIG_BUFFERS, .len = 6},
        {.addr = RIG_BUFFERS + 4096, .len = 10},
    };
    static const uint64_t pages[] = {
        RIG_HIGH2 - 0x1000,
        RIG_HIGH2,
        RIG_HIGH + 0x9000,
        RIG_HIGH + 0x8000,
    };

    (void)state;
    rig_fill(RIG_HIGH, 2 * RIG_HIGH_BYTES);
    rig_put(RIG_BUFFERS, pages[0] >> 12, 4);
    rig_put(RIG_BUFFERS + 4, pages[1] >> 12, 2); /* a number in two pieces */
    rig_put(RIG_BUFFERS + 4096, pages[1] >> 28, 2);
    rig_put(RIG_BUFFERS + 4098, pages[2] >> 12, 4);
    rig_put(RIG_BUFFERS + 4102, pages[3] >> 12, 4);
    rig_chain(EBB_BALLOON_INFLATE, bufs, 2);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_settle();
    for (unsigned i = 0; i < 4; i++)
        assert_true(rig_gone(pages[i], 4096));
    assert_true(rig_kept(RIG_HIGH2 + 0x1000, 4096));
    assert_true(rig_kept(RIG_HIGH + 0x7000, 4096));
    assert_true(rig_kept(RIG_HIGH + 0xa000, 4096));
    assert_int_equal(rig_discards().ranges, 2);
    assert_int_equal(rig_faults(), 0);
}

/* A guest that may take pages back without a word: nothing of it is dropped later. */
static void nothing_is_gathered_of_who_does_not_tell(void **state)
{
    const unsigned pages = RIG_BIG_PAGE / 4096;

    (void)state;
    rig_init(NULL, RIG_ALL & ~EBB_F_MUST_TELL_HOST);
    rig_fill(RIG_BIG, 2 * RIG_BIG_PAGE);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_BIG, pages - 1);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_settle();
    rig_pfns(EBB_BALLOON_INFLATE, RIG_BIG + RIG_BIG_PAGE - 4096, 1);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_settle();
    assert_true(rig_kept(RIG_BIG, RIG_BIG_PAGE));
    assert_int_equal(rig_discards().gathered_bytes, 0);
    assert_int_equal(rig_discards().not_bytes[EBB_DISCARD_PARTIAL], RIG_BIG_PAGE);
    /* All of it at once may go: it is free now. */
    rig_pfns(EBB_BALLOON_INFLATE, RIG_BIG, pages);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_settle();
    assert_true(rig_gone(RIG_BIG, RIG_BIG_PAGE));
}

/* Pages of a large backing page are gathered; one that is taken back is never dropped. */
static void deflated_pages_are_kept(void **state)
{
    const unsigned pages = RIG_BIG_PAGE / 4096;

    (void)state;
    rig_fill(RIG_BIG, 2 * RIG_BIG_PAGE);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_BIG, pages - 1);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_settle();
    assert_true(rig_kept(RIG_BIG, RIG_BIG_PAGE));

    rig_pfns(EBB_BALLOON_DEFLATE, RIG_BIG, 1);
    rig_kick(EBB_BALLOON_DEFLATE);
    rig_settle();
    assert_int_equal(rig_back(EBB_BALLOON_DEFLATE), 1);
    assert_int_equal(rig.calls[EBB_BALLOON_DEFLATE], 1);
    assert_int_equal(stats()->deflated_pages, 1);

    rig_pfns(EBB_BALLOON_INFLATE, RIG_BIG + RIG_BIG_PAGE - 4096, 1);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_settle();
    assert_true(rig_kept(RIG_BIG, RIG_BIG_PAGE));
    rig_pfns(EBB_BALLOON_INFLATE, RIG_BIG, 1);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_settle();
    assert_true(rig_gone(RIG_BIG, RIG_BIG_PAGE));
    assert_true(rig_kept(RIG_BIG + RIG_BIG_PAGE, RIG_BIG_PAGE));
}

/* The front-end may disable a queue; what the guest takes back is its own all the same. */
static void disabled_deflated_pages_are_kept(void **state)
{
    (void)state;
    rig_fill(RIG_BIG, RIG_BIG_PAGE);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_BIG, RIG_BIG_PAGE / 4096 - 1);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_settle();
    ebb_balloon_device_enable(rig.device, EBB_BALLOON_DEFLATE, false);
    rig_pfns(EBB_BALLOON_DEFLATE, RIG_BIG, 1);
    rig_kick(EBB_BALLOON_DEFLATE);
    rig_settle();
    assert_int_equal(rig_back(EBB_BALLOON_DEFLATE), 1);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_BIG + RIG_BIG_PAGE - 4096, 1);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_settle();
    assert_true(rig_kept(RIG_BIG, RIG_BIG_PAGE));
}

/* ---- reporting ---- */

static void reported_ranges_are_discarded(void **state)
{
    const struct ebb_ring_buf bufs[] = {
        {.addr = RIG_HIGH2 - MIB, .len = 2 * MIB, .write = true}, /* in two regions */
        {.addr = RIG_HIGH, .len = MIB, .write = true},
    };

    (void)state;
    rig_fill(RIG_HIGH, 2 * RIG_HIGH_BYTES);
    rig_chain(EBB_BALLOON_REPORTING, bufs, 2);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_settle();
    assert_true(rig_gone(RIG_HIGH2 - MIB, 2 * MIB));
    assert_true(rig_gone(RIG_HIGH, MIB));
    assert_true(rig_kept(RIG_HIGH + MIB, MIB));
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 1);
    assert_int_equal(stats()->reported_ranges, 2);
    assert_int_equal(stats()->reported_bytes, 3 * MIB);
    assert_int_equal(rig_faults(), 0);
}

static void poison_is_kept(void **state)
{
    (void)state;
    ebb_balloon_device_reset(rig.device);
    config_set(EBB_BALLOON_CFG_POISON_VAL, 0xaa, 4);
    assert_int_equal(
        ebb_balloon_device_accept(rig.device, EBB_F_PAGE_POISON | EBB_F_PAGE_REPORTING), 0);
    rig_start(2);
    rig_fill(RIG_HIGH, MIB);
    rig_writable(2, RIG_HIGH, MIB);
    rig_kick(2);
    rig_settle();
    assert_true(rig_kept(RIG_HIGH, MIB));
    assert_int_equal(rig_back(2), 1);
    assert_int_equal(rig.calls[2], 1);
    assert_int_equal(stats()->poison_skipped_bytes, MIB);
    assert_int_equal(stats()->reported_bytes, 0);
}

/* Nor does such a guest's hint say that nobody needs what is there. */
static void poison_is_kept_of_hints(void **state)
{
    (void)state;
    ebb_balloon_device_reset(rig.device);
    config_set(EBB_BALLOON_CFG_POISON_VAL, 0xaa, 4);
    assert_int_equal(ebb_balloon_device_accept(rig.device, RIG_ALL), 0);
    rig_start(EBB_BALLOON_HINT);
    assert_int_equal(ebb_balloon_device_hint_start(rig.device), 0);
    rig_command(2);
    rig_writable(EBB_BALLOON_HINT, RIG_HIGH, MIB);
    rig_kick(EBB_BALLOON_HINT);
    rig_settle();
    assert_int_equal(rig_back(EBB_BALLOON_HINT), 2);
    assert_int_equal(rig.hints, 0);
}

/* Frames that shall read as zero do, once discarded. */
static void poison_of_zero_is_had_by_discarding(void **state)
{
    (void)state;
    rig_fill(RIG_HIGH, MIB);
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_settle();
    assert_true(rig_gone(RIG_HIGH, MIB));
}

/* ---- batches ---- */

static bool notifies(unsigned queue)
{
    return !(rig_get(rig.queues[queue].used, 2) & EBB_USED_NO_NOTIFY);
}

static void discard_then_used_then_call(void **state)
{
    (void)state;
    rig_fill(RIG_HIGH, MIB);
    assert_true(ebb_balloon_device_idle(rig.device));
    rig_hold();
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_wait_held();
    assert_false(ebb_balloon_device_idle(rig.device));
    assert_false(ebb_balloon_device_work(rig.device));
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 0);
    assert_true(notifies(EBB_BALLOON_REPORTING)); /* what comes now is taken now */
    assert_int_equal(ebb_balloon_device_due(rig.device), rig.now + ANSWER);
    rig_release();
    rig_wait_wakes(1);
    /* Discarded, and nothing goes back but on the device's thread. */
    assert_true(rig_gone(RIG_HIGH, MIB));
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 0);
    assert_int_equal(rig.calls[EBB_BALLOON_REPORTING], 0);
    assert_false(ebb_balloon_device_work(rig.device));
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 1);
    assert_int_equal(rig.calls[EBB_BALLOON_REPORTING], 1);
    assert_true(notifies(EBB_BALLOON_REPORTING));
    assert_true(ebb_balloon_device_idle(rig.device));
}

static void a_driver_that_polls_is_not_called(void **state)
{
    (void)state;
    rig_put(rig.queues[EBB_BALLOON_REPORTING].avail, EBB_AVAIL_NO_INTERRUPT, 2);
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_settle();
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 1);
    assert_int_equal(rig.calls[EBB_BALLOON_REPORTING], 0);
}

/* Chains that are there together are one batch, and one call. */
static void chains_share_a_batch(void **state)
{
    (void)state;
    rig_fill(RIG_HIGH, 2 * MIB);
    for (unsigned i = 0; i < 32; i++)
        rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH + i * 0x10000, 0x10000);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_settle();
    assert_true(rig_gone(RIG_HIGH, 2 * MIB));
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 32);
    assert_int_equal(rig.calls[EBB_BALLOON_REPORTING], 1);
    assert_int_equal(rig_discards().batches, 1);
    assert_int_equal(rig.punches, 1);
}

static void a_turn_is_no_longer_than_configured(void **state)
{
    const struct ebb_balloon_device_config config = {.batch_chains = 3};

    (void)state;
    rig_init(&config, RIG_ALL);
    rig_hold();
    for (unsigned i = 0; i < 8; i++)
        rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH + i * 0x10000, 0x10000);
    rig_kick(EBB_BALLOON_REPORTING);
    assert_int_equal(rig_wakes(), 1);
    assert_int_equal(ebb_balloon_device_due(rig.device), 0);
    assert_false(notifies(EBB_BALLOON_REPORTING));
    assert_true(ebb_balloon_device_work(rig.device));
    assert_false(ebb_balloon_device_work(rig.device));
    assert_true(notifies(EBB_BALLOON_REPORTING));
    rig_release();
    rig_settle();
    assert_int_equal(rig_discards().batches, 2);
    assert_int_equal(rig.calls[EBB_BALLOON_REPORTING], 2);
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 8);
}

/* n chains, each of 1024 pages of which no two adjoin. */
static void scattered(unsigned queue, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        const uint64_t at = RIG_BUFFERS + i * 4096u;

        for (unsigned page = 0; page < 1024; page++)
            rig_put(at + 4 * (uint64_t)page, (RIG_HIGH >> 12) + 2u * page, 4);
        rig_readable(queue, at, 4096);
    }
    rig_kick(queue);
    rig_settle();
    assert_int_equal(rig_back(queue), n);
}

/* Never more ranges than the discard takes; all chains go back. */
static void what_has_no_room_is_left(void **state)
{
    (void)state;
    scattered(EBB_BALLOON_INFLATE, 6);
    assert_int_equal(rig_discards().batches, 1);
    assert_int_equal(rig_discards().ranges, 2 * 1024);
    assert_int_equal(rig_discards().not_bytes[EBB_DISCARD_LATE], 4 * 4 * MIB);
    assert_int_equal(rig_faults(), 0);
}

/* Of deflated pages none may be missed: nothing that was gathered is kept then. */
static void deflated_pages_without_room_are_kept(void **state)
{
    (void)state;
    rig_fill(RIG_BIG, RIG_BIG_PAGE);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_BIG, RIG_BIG_PAGE / 4096 - 1);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_settle();
    scattered(EBB_BALLOON_DEFLATE, 2);
    assert_int_equal(rig_discards().gathered_bytes, RIG_BIG_PAGE - 4096);
    scattered(EBB_BALLOON_DEFLATE, 3);
    assert_int_equal(rig_discards().gathered_bytes, 0);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_BIG + RIG_BIG_PAGE - 4096, 1);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_settle();
    assert_true(rig_kept(RIG_BIG, RIG_BIG_PAGE));
}

/* A driver that offers more than it can have out is served for a while, and costs no memory. */
static void chains_that_cannot_be_out_are_bounded(void **state)
{
    (void)state;
    rig_hold();
    rig_desc(EBB_BALLOON_REPORTING, 0, RIG_HIGH, MIB, EBB_DESC_WRITE, 0);
    for (unsigned i = 0; i < 40 * RIG_RING; i++) {
        rig_offer(EBB_BALLOON_REPORTING, 0);
        if (i % RIG_RING == RIG_RING - 1)
            rig_kick(EBB_BALLOON_REPORTING);
    }
    rig_release();
    rig_settle();
    assert_int_equal(stats()->chains[EBB_BALLOON_REPORTING], EBB_RING_SIZE_LIMIT);
    assert_int_equal(rig_fault(EBB_FAULT_RING), 1);
    assert_int_equal(ebb_balloon_device_status(rig.device), EBB_STATUS_NEEDS_RESET);
}

static void a_batch_waits_for_others(void **state)
{
    const struct ebb_balloon_device_config config = {.gather_us = 500, .batch_chains = 3};

    (void)state;
    rig_init(&config, RIG_ALL);
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, 4096);
    rig_kick(EBB_BALLOON_REPORTING);
    assert_int_equal(ebb_balloon_device_due(rig.device), rig.now + 500000);
    rig.now += 499999;
    assert_false(ebb_balloon_device_work(rig.device));
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH + MIB, 4096);
    assert_true(notifies(EBB_BALLOON_REPORTING));
    rig_kick(EBB_BALLOON_REPORTING);
    assert_int_equal(rig_discards().batches, 0);
    assert_int_equal(rig_wakes(), 0);
    assert_false(ebb_balloon_device_idle(rig.device));
    rig.now += 1;
    assert_false(ebb_balloon_device_work(rig.device)); /* time is up */
    rig_wait_wakes(1);
    assert_false(ebb_balloon_device_work(rig.device));
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 2);
    assert_int_equal(rig_discards().batches, 1);
    assert_int_equal(ebb_balloon_device_due(rig.device), UINT64_MAX);

    /* A full one does not wait. */
    for (unsigned i = 0; i < 3; i++)
        rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH + i * MIB, 4096);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_settle();
    assert_int_equal(rig_discards().batches, 2);
}

/* Nor does one for which another queue would have to wait. */
static void a_batch_waits_at_nobodys_cost(void **state)
{
    const struct ebb_balloon_device_config config = {.gather_us = 500};

    (void)state;
    rig_init(&config, RIG_ALL);
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, 4096);
    rig_kick(EBB_BALLOON_REPORTING);
    assert_int_equal(rig_wakes(), 0);
    rig_pfns(EBB_BALLOON_DEFLATE, RIG_HIGH + MIB, 1);
    rig_kick(EBB_BALLOON_DEFLATE);
    assert_int_equal(rig_back(EBB_BALLOON_DEFLATE), 1); /* that takes no time */
    assert_int_equal(rig_wakes(), 0);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_HIGH + MIB, 1);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_wait_wakes(1);
    rig.now += 500000;
    rig_settle();
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 1);
    assert_int_equal(rig_back(EBB_BALLOON_INFLATE), 1);
}

/* The queues take turns: one that always has more keeps nobody waiting. */
static void queues_take_turns(void **state)
{
    const struct ebb_balloon_device_config config = {.batch_chains = 1};

    (void)state;
    rig_init(&config, RIG_ALL);
    rig_hold();
    for (unsigned i = 0; i < 4; i++)
        rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH + i * MIB, 4096);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_wait_held();
    for (unsigned i = 0; i < 2; i++) {
        rig_pfns(EBB_BALLOON_INFLATE, RIG_HIGH2 + i * MIB, 1);
        rig_kick(EBB_BALLOON_INFLATE);
    }
    rig_pfns(EBB_BALLOON_DEFLATE, RIG_HIGH2 + 5 * MIB, 1);
    rig_kick(EBB_BALLOON_DEFLATE);
    assert_int_equal(rig_back(EBB_BALLOON_DEFLATE), 0); /* not while a batch is under way */
    rig_release();
    rig_settle();
    assert_int_equal(rig.punches, 6);
    assert_int_equal(rig.punched[0], RIG_HIGH);
    assert_int_equal(rig.punched[1], RIG_HIGH2);
    assert_int_equal(rig.punched[2], RIG_HIGH2 + MIB);
    for (unsigned i = 1; i < 4; i++)
        assert_int_equal(rig.punched[2 + i], RIG_HIGH + i * MIB);
    assert_int_equal(rig_discards().batches, 3);
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 4);
    assert_int_equal(rig_back(EBB_BALLOON_INFLATE), 2);
    assert_int_equal(rig_back(EBB_BALLOON_DEFLATE), 1);
}

/* In the order in which they were made available, and within one queue only. */
static void chains_go_back_in_order(void **state)
{
    const struct rig_queue *queue = &rig.queues[EBB_BALLOON_REPORTING];

    (void)state;
    rig_hold();
    for (unsigned i = 0; i < 8; i++) {
        rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH + (7 - i) * MIB, 4096);
        rig_kick(EBB_BALLOON_REPORTING);
    }
    rig_release();
    rig_settle();
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(rig_get(queue->used + 4 + 8 * (uint64_t)i, 4), i);
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 8);
}

/* ---- in time ---- */

/* What a chain says is copied when the driver notifies. */
static void overwritten_buffers_change_nothing(void **state)
{
    const uint64_t at = RIG_BUFFERS;

    (void)state;
    rig_fill(RIG_HIGH, 2 * RIG_HIGH_BYTES);
    rig_hold();
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH2, 4096);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_wait_held();
    for (unsigned i = 0; i < 3; i++) { /* one buffer for all */
        rig_put(at, (RIG_HIGH >> 12) + 2 * i, 4);
        rig_readable(EBB_BALLOON_INFLATE, at, 4);
        rig_kick(EBB_BALLOON_INFLATE);
    }
    rig_put(at, (RIG_HIGH >> 12) + 6, 4);
    rig_release();
    rig_settle();
    for (unsigned i = 0; i < 3; i++)
        assert_true(rig_gone(RIG_HIGH + 2 * i * 4096, 4096));
    assert_true(rig_kept(RIG_HIGH + 6 * 4096, 4096));
    assert_int_equal(rig_back(EBB_BALLOON_INFLATE), 3);
}

/* As Windows' driver: page numbers in one buffer, 1024 at most; after a second without an answer it
 * goes on with the next 1024, and with what it told of. */
static void who_waits_a_second_loses_nothing(void **state)
{
    const uint64_t at = RIG_BUFFERS;

    (void)state;
    rig_init(NULL, RIG_ALL & ~EBB_F_MUST_TELL_HOST);
    rig_fill(RIG_HIGH, RIG_HIGH_BYTES);
    rig_hold(); /* somebody is in the way */
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH2, 4096);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_wait_held();
    for (unsigned tell = 0; tell < 2; tell++) {
        for (unsigned i = 0; i < 1024; i++)
            rig_put(at + 4 * (uint64_t)i, (RIG_HIGH >> 12) + tell * 1024 + i, 4);
        rig_readable(EBB_BALLOON_INFLATE, at, 4096);
        rig_kick(EBB_BALLOON_INFLATE);
        rig.now += ANSWER;
        (void)ebb_balloon_device_work(rig.device);
        assert_int_equal(rig_back(EBB_BALLOON_INFLATE), 1);
        rig.now += 1000 * MS;
    }
    rig_release();
    rig_settle();
    assert_true(rig_kept(RIG_HIGH, RIG_HIGH_BYTES));
    assert_int_equal(rig_discards().not_bytes[EBB_DISCARD_LATE], 8 * MIB);
    assert_int_equal(stats()->inflated_pages, 2048);
}

/* A system call takes long: who waits behind it goes back in time. Each for itself: the chain that
 * came later has time, and what the balloon has may go later. */
static void who_waits_is_answered_in_time(void **state)
{
    (void)state;
    rig_fill(RIG_HIGH, RIG_HIGH_BYTES);
    rig_hold();
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH + 2 * MIB, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_wait_held();
    rig_pfns(EBB_BALLOON_INFLATE, RIG_HIGH + 4 * MIB, 256);
    rig_kick(EBB_BALLOON_INFLATE);
    rig.now += 10 * MS;
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH + 6 * MIB, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    rig.now += ANSWER - 10 * MS - 1;
    assert_false(ebb_balloon_device_work(rig.device));
    assert_int_equal(rig_back(EBB_BALLOON_INFLATE), 0);
    assert_int_equal(ebb_balloon_device_due(rig.device), rig.now + 1);
    rig.now++;
    assert_false(ebb_balloon_device_work(rig.device));
    assert_int_equal(rig_back(EBB_BALLOON_INFLATE), 1);
    /* Behind the chains for which it goes on, in their queue. */
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 0);
    assert_int_equal(ebb_balloon_device_due(rig.device), UINT64_MAX);
    rig_release();
    rig_settle();
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 3);
    assert_true(rig_gone(RIG_HIGH, MIB));
    assert_true(rig_kept(RIG_HIGH + 2 * MIB, MIB)); /* no call began any more */
    assert_true(rig_gone(RIG_HIGH + 4 * MIB, MIB));
    assert_true(rig_gone(RIG_HIGH + 6 * MIB, MIB));
    assert_int_equal(rig_discards().not_bytes[EBB_DISCARD_LATE], MIB);
}

/* Nor do the pages go that wait for the discard when the guest takes some of the balloon's back. */
static void waiting_pages_are_deflated(void **state)
{
    (void)state;
    rig_fill(RIG_HIGH, RIG_HIGH_BYTES);
    rig_hold();
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_wait_held();
    rig_pfns(EBB_BALLOON_INFLATE, RIG_HIGH + 4 * MIB, 256);
    rig_kick(EBB_BALLOON_INFLATE);
    rig.now += ANSWER;
    (void)ebb_balloon_device_work(rig.device);
    assert_int_equal(rig_back(EBB_BALLOON_INFLATE), 1);
    rig_pfns(EBB_BALLOON_DEFLATE, RIG_HIGH + 4 * MIB, 1);
    rig_kick(EBB_BALLOON_DEFLATE);
    rig_release();
    rig_settle();
    assert_int_equal(rig_back(EBB_BALLOON_DEFLATE), 1);
    assert_true(rig_kept(RIG_HIGH + 4 * MIB, MIB));
    assert_int_equal(rig_discards().not_bytes[EBB_DISCARD_LATE], MIB);
    assert_true(ebb_balloon_device_idle(rig.device));
}

/* The discard takes 64 MiB at a time, here of the same 16 again and again: those chains go back
 * then, and the other queues have their turn before it goes on. */
static void a_large_batch_is_cut(void **state)
{
    const uint64_t page = RIG_LOW + RIG_LOW_BYTES - 4096;

    (void)state;
    rig_hold();
    for (unsigned i = 0; i < 5; i++)
        rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, 2 * RIG_HIGH_BYTES);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_wait_held();
    rig_pfns(EBB_BALLOON_INFLATE, page, 1);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_release();
    rig_wait_wakes(1);
    (void)ebb_balloon_device_work(rig.device);
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 4);
    rig_settle();
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 1);
    assert_int_equal(rig_discards().batches, 3);
    assert_int_equal(rig.punches, 5);
    assert_int_equal(rig.punched[2], page);
}

static void done_nothing(void *ctx)
{
    (void)ctx;
}

/* Other VMs have all of the pool's threads. */
static void who_gets_no_thread_is_answered_in_time(void **state)
{
    const struct ebb_range low = {RIG_HIGH2, 4096};
    const struct ebb_discard_config config = {
        .pool = rig.pool, .memory = &rig.memory, .ops = rig_discard_ops()};
    struct ebb_discard *other = ebb_discard_new(&config);

    (void)state;
    assert_non_null(other);
    rig_fill(RIG_HIGH, MIB);
    rig_hold();
    assert_int_equal(
        ebb_discard_submit(other, EBB_DISCARD_REPORTED, &low, 1, UINT64_MAX, done_nothing, NULL),
        0);
    rig_wait_held();
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    assert_int_equal(ebb_balloon_device_due(rig.device), rig.now + ANSWER);
    rig.now += ANSWER;
    (void)ebb_balloon_device_work(rig.device);
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 1);
    assert_true(ebb_balloon_device_idle(rig.device));
    rig_release();
    ebb_discard_free(other);
    assert_true(rig_kept(RIG_HIGH, MIB));
    assert_int_equal(rig_discards().not_bytes[EBB_DISCARD_LATE], MIB);
}

static void inflate_slowly(void)
{
    rig_fill(RIG_HIGH, 4 * MIB);
    rig_hold();
    rig_pfns(EBB_BALLOON_INFLATE, RIG_HIGH, 256);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_HIGH + 2 * MIB, 256);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_wait_held();
    rig.now += ANSWER;
    (void)ebb_balloon_device_work(rig.device);
    assert_int_equal(rig_back(EBB_BALLOON_INFLATE), 2);
    assert_false(ebb_balloon_device_idle(rig.device));
    assert_int_equal(ebb_balloon_device_due(rig.device), UINT64_MAX);
}

/* What the balloon has stays there, if the guest tells before it takes any of it back. */
static void inflated_pages_may_go_later(void **state)
{
    (void)state;
    inflate_slowly();
    rig_release();
    rig_settle();
    assert_true(rig_gone(RIG_HIGH, MIB));
    assert_true(rig_gone(RIG_HIGH + 2 * MIB, MIB));
    assert_int_equal(rig.calls[EBB_BALLOON_INFLATE], 1);
}

/* ... and is not discarded any more when it has told. */
static void deflating_ends_that(void **state)
{
    (void)state;
    inflate_slowly();
    rig_pfns(EBB_BALLOON_DEFLATE, RIG_HIGH + 2 * MIB, 256);
    rig_kick(EBB_BALLOON_DEFLATE);
    rig.now += ANSWER;
    (void)ebb_balloon_device_work(rig.device);
    assert_int_equal(rig_back(EBB_BALLOON_DEFLATE), 0); /* a call goes on */
    rig_release();
    rig_settle();
    assert_int_equal(rig_back(EBB_BALLOON_DEFLATE), 1);
    assert_true(rig_gone(RIG_HIGH, MIB));
    assert_true(rig_kept(RIG_HIGH + 2 * MIB, MIB));
    assert_int_equal(rig_discards().not_bytes[EBB_DISCARD_LATE], MIB);
}

/* So it is when the queues stop, and nobody waits for what is left. */
static void stopping_ends_that(void **state)
{
    (void)state;
    inflate_slowly();
    assert_false(ebb_balloon_device_hurry(rig.device));
    rig_release();
    rig_wait_wakes(1);
    assert_true(ebb_balloon_device_hurry(rig.device));
    assert_int_equal(ebb_balloon_device_stop(rig.device, EBB_BALLOON_INFLATE), 2);
    assert_true(rig_kept(RIG_HIGH + 2 * MIB, MIB));
}

/* Several wait: those that are not begun go back without effect, and nothing is lost of the ring.
 */
static void all_that_was_taken_goes_back(void **state)
{
    (void)state;
    rig_fill(RIG_HIGH, 2 * MIB);
    rig_hold();
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_wait_held();
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH + MIB, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_HIGH2, 1);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_pfns(EBB_BALLOON_DEFLATE, RIG_HIGH2, 1);
    rig_kick(EBB_BALLOON_DEFLATE);
    rig_release();
    ebb_balloon_device_quiesce(rig.device);
    assert_true(rig_gone(RIG_HIGH, MIB));
    assert_true(rig_kept(RIG_HIGH + MIB, MIB));
    assert_true(ebb_balloon_device_idle(rig.device));
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 2);
    assert_int_equal(rig_back(EBB_BALLOON_INFLATE), 1);
    assert_int_equal(rig_back(EBB_BALLOON_DEFLATE), 1);
    assert_int_equal(ebb_balloon_device_stop(rig.device, EBB_BALLOON_REPORTING), 2);
}

/* The budget is spent: what is reported goes back at once. */
static void the_rate_delays_nobody(void **state)
{
    (void)state;
    ebb_discard_set_rate(rig.discard, MIB);
    rig_fill(RIG_HIGH, 2 * MIB);
    for (unsigned i = 0; i < 2; i++) {
        rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH + i * MIB, MIB);
        rig_kick(EBB_BALLOON_REPORTING);
        rig_wait_wakes(i + 1);
        assert_false(ebb_balloon_device_work(rig.device));
        assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 1);
    }
    assert_true(rig_gone(RIG_HIGH, MIB));
    assert_true(rig_kept(RIG_HIGH + MIB, MIB));
    assert_int_equal(rig_discards().not_bytes[EBB_DISCARD_RATE], MIB);
}

/* ---- statistics ---- */

static void send_stats(uint64_t value, unsigned tag)
{
    const uint64_t at = RIG_BUFFERS + 0x1000 * (uint64_t)rig.queues[EBB_BALLOON_STATS].next_desc;

    rig_put(at, EBB_STAT_MEMFREE, 2);
    rig_put(at + 2, value, 8);
    rig_put(at + 10, tag, 2);
    rig_put(at + 12, value + 1, 8);
    rig_readable(EBB_BALLOON_STATS, at, 20);
    rig_kick(EBB_BALLOON_STATS);
}

static void statistics_are_asked_for(void **state)
{
    const struct ebb_balloon_guest_stats *guest = ebb_balloon_device_guest_stats(rig.device);

    (void)state;
    assert_int_equal(guest->at_ns, 0);
    assert_int_equal(ebb_balloon_device_poll_stats(rig.device), -EBB_EAGAIN);
    send_stats(0x1122334455667788, 0x1234);
    assert_true(ebb_balloon_device_idle(rig.device));
    assert_int_equal(guest->at_ns, rig.now);
    assert_int_equal(guest->known, 1u << EBB_STAT_MEMFREE); /* the other tag is nobody's */
    assert_int_equal(guest->values[EBB_STAT_MEMFREE], 0x1122334455667788);
    assert_int_equal(rig_back(EBB_BALLOON_STATS), 0); /* held */
    assert_int_equal(rig.calls[EBB_BALLOON_STATS], 0);

    assert_int_equal(ebb_balloon_device_poll_stats(rig.device), 0);
    assert_int_equal(rig_back(EBB_BALLOON_STATS), 1);
    assert_int_equal(rig.calls[EBB_BALLOON_STATS], 1);
    assert_int_equal(ebb_balloon_device_poll_stats(rig.device), -EBB_EAGAIN);
    rig.now += 5;
    send_stats(7, EBB_STAT_CACHES);
    assert_int_equal(guest->at_ns, rig.now);
    assert_int_equal(guest->values[EBB_STAT_MEMFREE], 7);
    assert_int_equal(guest->values[EBB_STAT_CACHES], 8);
    assert_int_equal(stats()->stats_received, 2);
    assert_int_equal(rig_faults(), 0);
}

static void statistics_need_the_feature(void **state)
{
    (void)state;
    ebb_balloon_device_reset(rig.device);
    assert_int_equal(ebb_balloon_device_accept(rig.device, EBB_F_PAGE_REPORTING), 0);
    assert_int_equal(ebb_balloon_device_poll_stats(rig.device), -EBB_EOPNOTSUPP);
}

/* Windows' driver sends -1 for what it does not know: that is handed on as it is. */
static void statistics_may_be_anything(void **state)
{
    (void)state;
    send_stats(UINT64_MAX - 1, EBB_STAT_CACHES);
    assert_int_equal(ebb_balloon_device_guest_stats(rig.device)->values[EBB_STAT_MEMFREE],
                     UINT64_MAX - 1);
    assert_int_equal(ebb_balloon_device_guest_stats(rig.device)->values[EBB_STAT_CACHES], 0);
    assert_int_equal(rig_faults(), 0);
}

/* Stopping gives the held buffer up, as one that was never taken. */
static void stop_rewinds_statistics(void **state)
{
    struct ebb_balloon_device_vring vring = rig_vring(EBB_BALLOON_STATS);

    (void)state;
    send_stats(1, EBB_STAT_CACHES);
    assert_int_equal(ebb_balloon_device_poll_stats(rig.device), 0);
    send_stats(2, EBB_STAT_CACHES);
    assert_int_equal(ebb_balloon_device_stop(rig.device, EBB_BALLOON_STATS), 1);
    assert_int_equal(ebb_balloon_device_poll_stats(rig.device), -EBB_EAGAIN);
    assert_int_equal(rig_back(EBB_BALLOON_STATS), 1);
    vring.start = 1;
    assert_int_equal(ebb_balloon_device_start(rig.device, EBB_BALLOON_STATS, &vring), 0);
    rig_kick(EBB_BALLOON_STATS);
    assert_int_equal(stats()->stats_received, 3);
    assert_int_equal(ebb_balloon_device_poll_stats(rig.device), 0);
    assert_int_equal(rig_back(EBB_BALLOON_STATS), 1);
}

/* ---- hints ---- */

static void hint_pages(uint64_t gpa, uint32_t bytes)
{
    rig_writable(EBB_BALLOON_HINT, gpa, bytes);
}

static uint32_t hint_cmd(void)
{
    return (uint32_t)config_get(EBB_BALLOON_CFG_HINT_CMD_ID, 4);
}

static void hint_kick(void)
{
    rig_kick(EBB_BALLOON_HINT);
    rig_settle();
}

static void hints_are_told(void **state)
{
    (void)state;
    rig_fill(RIG_HIGH, 4 * MIB);
    assert_int_equal(hint_cmd(), 0);
    hint_pages(RIG_HIGH, MIB); /* nobody asked */
    hint_kick();
    assert_int_equal(ebb_balloon_device_hint_start(rig.device), 0);
    assert_int_equal(ebb_balloon_device_hint_start(rig.device), -EBB_EBUSY);
    assert_int_equal(hint_cmd(), 2);
    assert_int_equal(rig.config_changes, 1);
    hint_pages(RIG_HIGH, MIB); /* it does not say for which */
    hint_kick();
    assert_int_equal(rig.hints, 0);
    assert_true(ebb_balloon_device_hinting(rig.device));

    rig_command(2);
    hint_pages(RIG_HIGH, MIB);
    hint_pages(RIG_HIGH + 2 * MIB, MIB);
    hint_kick();
    assert_int_equal(rig.hints, 2);
    assert_int_equal(rig.hinted[0].addr, RIG_HIGH);
    assert_int_equal(rig.hinted[1].len, MIB);
    rig_command(0);
    hint_kick();
    assert_false(ebb_balloon_device_hinting(rig.device));
    assert_int_equal(hint_cmd(), 2); /* the driver keeps these pages until DONE */
    hint_pages(RIG_HIGH, MIB);
    hint_kick();
    assert_int_equal(rig.hints, 2);
    ebb_balloon_device_hint_done(rig.device);
    assert_int_equal(hint_cmd(), 1);
    assert_int_equal(rig.config_changes, 2);
    ebb_balloon_device_hint_done(rig.device);
    assert_int_equal(rig.config_changes, 2);

    assert_int_equal(rig_back(EBB_BALLOON_HINT), 7);
    assert_true(rig_kept(RIG_HIGH, 4 * MIB));
    assert_int_equal(stats()->hinted_bytes, 2 * MIB);
    assert_int_equal(rig_discards().batches, 0);
    assert_int_equal(rig_faults(), 0);
}

/* What is still under way of an earlier command does not count, and is no fault. */
static void late_hints_are_ignored(void **state)
{
    (void)state;
    assert_int_equal(ebb_balloon_device_hint_start(rig.device), 0);
    rig_command(2);
    hint_pages(RIG_HIGH, MIB);
    hint_kick();
    ebb_balloon_device_hint_done(rig.device);
    hint_pages(RIG_HIGH, MIB);
    hint_kick();
    assert_int_equal(rig.hints, 1);
    assert_int_equal(ebb_balloon_device_hint_start(rig.device), 0);
    assert_int_equal(hint_cmd(), 3);
    rig_command(0);
    rig_command(2);
    hint_pages(RIG_HIGH, MIB);
    rig_command(0);
    hint_kick();
    assert_int_equal(rig.hints, 1);
    assert_true(ebb_balloon_device_hinting(rig.device));
    rig_command(3);
    hint_pages(RIG_HIGH, MIB);
    rig_command(0);
    hint_kick();
    assert_int_equal(rig.hints, 2);
    assert_false(ebb_balloon_device_hinting(rig.device));
    assert_int_equal(rig_faults(), 0);
    ebb_balloon_device_reset(rig.device);
    assert_int_equal(hint_cmd(), 0);
    assert_int_equal(ebb_balloon_device_hint_start(rig.device), -EBB_EOPNOTSUPP);
}

static void hints_are_discarded_if_configured(void **state)
{
    const struct ebb_balloon_device_config config = {.discard_hints = true};

    (void)state;
    rig_init(&config, RIG_ALL);
    rig_fill(RIG_HIGH, 2 * MIB);
    assert_int_equal(ebb_balloon_device_hint_start(rig.device), 0);
    hint_pages(RIG_HIGH + MIB, MIB);
    rig_command(2);
    hint_pages(RIG_HIGH, MIB);
    rig_command(0);
    hint_kick();
    assert_true(rig_gone(RIG_HIGH, MIB));
    assert_true(rig_kept(RIG_HIGH + MIB, MIB));
    assert_int_equal(rig.hints, 1);
    assert_int_equal(rig_back(EBB_BALLOON_HINT), 4);
    assert_int_equal(rig_discards().batches, 1);
}

/* From DONE on the guest uses what it hinted: what waits for its turn stays. */
static void hints_that_wait_are_left_when_done(void **state)
{
    const struct ebb_balloon_device_config config = {.discard_hints = true};

    (void)state;
    rig_init(&config, RIG_ALL);
    rig_fill(RIG_HIGH, 4 * MIB);
    assert_int_equal(ebb_balloon_device_hint_start(rig.device), 0);
    rig_command(2);
    rig_hold();
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH + 2 * MIB, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_wait_held();
    hint_pages(RIG_HIGH, MIB);
    rig_kick(EBB_BALLOON_HINT);
    rig_release();
    ebb_balloon_device_hint_done(rig.device);
    assert_int_equal(rig_back(EBB_BALLOON_HINT), 2);
    rig_settle();
    assert_true(rig_kept(RIG_HIGH, MIB));
}

/* ---- enable, stop, reset ---- */

static void a_disabled_queue_has_no_effect(void **state)
{
    (void)state;
    rig_fill(RIG_HIGH, MIB);
    for (unsigned i = 0; i < 5; i++)
        ebb_balloon_device_enable(rig.device, i, false);
    ebb_balloon_device_enable(rig.device, 5, false);
    ebb_balloon_device_enable(rig.device, UINT32_MAX, false);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_HIGH, 256);
    rig_pfns(EBB_BALLOON_DEFLATE, RIG_HIGH, 256);
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_kick(EBB_BALLOON_DEFLATE);
    rig_kick(EBB_BALLOON_REPORTING);
    send_stats(1, 1);
    rig_settle();
    assert_true(rig_kept(RIG_HIGH, MIB));
    assert_int_equal(rig_back(EBB_BALLOON_INFLATE), 1);
    assert_int_equal(rig_back(EBB_BALLOON_DEFLATE), 1);
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 1);
    assert_int_equal(rig_back(EBB_BALLOON_STATS), 0);
    assert_int_equal(stats()->stats_received, 0);
    assert_int_equal(rig_discards().batches, 0);

    /* What is there then is served without a further notification. */
    ebb_balloon_device_enable(rig.device, EBB_BALLOON_STATS, true);
    assert_int_equal(rig_wakes(), 1);
    rig_settle();
    assert_int_equal(stats()->stats_received, 1);
    ebb_balloon_device_enable(rig.device, EBB_BALLOON_REPORTING, true);
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_settle();
    assert_true(rig_gone(RIG_HIGH, MIB));
}

/* Stopping waits for the batch; a later start goes on where it stopped. */
static void a_stopped_queue_goes_on(void **state)
{
    struct ebb_balloon_device_vring vring = rig_vring(EBB_BALLOON_REPORTING);
    int next;

    (void)state;
    rig_fill(RIG_HIGH, 2 * MIB);
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    next = ebb_balloon_device_stop(rig.device, EBB_BALLOON_REPORTING);
    assert_int_equal(next, 1);
    assert_int_equal(ebb_balloon_device_stop(rig.device, EBB_BALLOON_REPORTING), -EBB_ENOENT);
    assert_true(rig_gone(RIG_HIGH, MIB));
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 1);
    assert_true(notifies(EBB_BALLOON_REPORTING));
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH + MIB, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_settle();
    assert_true(rig_kept(RIG_HIGH + MIB, MIB));

    vring.start = (uint16_t)next;
    assert_int_equal(ebb_balloon_device_start(rig.device, EBB_BALLOON_REPORTING, &vring), 0);
    assert_int_equal(ebb_balloon_device_due(rig.device), UINT64_MAX); /* it waits for a kick */
    rig_kick(EBB_BALLOON_REPORTING);
    rig_settle();
    assert_true(rig_gone(RIG_HIGH + MIB, MIB));
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 1);
}

/* A batch that waits for others goes when its queue stops, or the memory changes. */
static void a_gathering_batch_is_not_lost(void **state)
{
    const struct ebb_balloon_device_config config = {.gather_us = 500};

    (void)state;
    rig_init(&config, RIG_ALL);
    rig_fill(RIG_HIGH, 2 * MIB);
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    assert_int_equal(ebb_balloon_device_stop(rig.device, EBB_BALLOON_REPORTING), 1);
    assert_true(rig_gone(RIG_HIGH, MIB));
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 1);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_HIGH + MIB, 256);
    rig_kick(EBB_BALLOON_INFLATE);
    ebb_balloon_device_quiesce(rig.device);
    assert_true(rig_gone(RIG_HIGH + MIB, MIB));
    assert_int_equal(rig_back(EBB_BALLOON_INFLATE), 1);
}

/* A vhost-user front-end calls rings by its own addresses. */
static void rings_have_addresses_of_their_own(void **state)
{
    struct ebb_balloon_device_vring vring = rig_vring(EBB_BALLOON_REPORTING);
    const uint64_t user = 0x7f0000000000u;

    (void)state;
    vring.desc += user;
    vring.avail += user;
    vring.used += user;
    assert_int_equal(ebb_balloon_device_start(rig.device, EBB_BALLOON_REPORTING, &vring),
                     -EBB_EINVAL);
    assert_int_equal(rig_fault(EBB_FAULT_QUEUE), 1);
    vring.translate = ebb_memory_by_user;
    vring.translate_ctx = &rig.memory;
    assert_int_equal(ebb_balloon_device_start(rig.device, EBB_BALLOON_REPORTING, &vring), 0);
    rig_fill(RIG_HIGH, MIB);
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_settle();
    assert_true(rig_gone(RIG_HIGH, MIB));
}

/* Take the region of the rings away; `back`: and map it again, elsewhere. */
static void move_rings(bool back)
{
    struct ebb_region region;
    void *old;

    assert_int_equal(ebb_memory_remove(&rig.memory, RIG_LOW, RIG_LOW_BYTES, &region), 0);
    old = region.host;
    if (back) {
        region.host = mmap(NULL, RIG_LOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, region.fd,
                           (off_t)region.offset);
        assert_true(region.host != MAP_FAILED);
        assert_int_equal(ebb_memory_add(&rig.memory, &region), 0);
    }
    /* Who still looks there crashes. */
    assert_int_equal(mprotect(old, RIG_LOW_BYTES, PROT_NONE), 0);
}

static void rings_move_with_their_memory(void **state)
{
    (void)state;
    rig_fill(RIG_HIGH, MIB);
    send_stats(1, 1);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_HIGH2, 1);
    rig_kick(EBB_BALLOON_INFLATE);
    ebb_balloon_device_quiesce(rig.device);
    move_rings(true);
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_settle();
    assert_true(rig_gone(RIG_HIGH, MIB));
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 1);
    assert_int_equal(rig_back(EBB_BALLOON_INFLATE), 1);
    assert_int_equal(ebb_balloon_device_poll_stats(rig.device), 0);
    assert_int_equal(rig_back(EBB_BALLOON_STATS), 1);
    assert_int_equal(ebb_balloon_device_status(rig.device), 0);
    munmap(rig_at(RIG_LOW), RIG_LOW_BYTES);
}

static void rings_go_with_their_memory(void **state)
{
    const struct ebb_balloon_device_config config = {.gather_us = 500};

    (void)state;
    for (unsigned under_way = 0; under_way < 2; under_way++) {
        if (under_way)
            rig_exit();
        rig_init(under_way ? NULL : &config, RIG_ALL);
        send_stats(1, 1);
        rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
        rig_kick(EBB_BALLOON_REPORTING); /* not quiesced, against the rules */
        move_rings(false);
        rig_settle();
        ebb_balloon_device_kick(rig.device, EBB_BALLOON_REPORTING);
        assert_int_equal(ebb_balloon_device_poll_stats(rig.device), -EBB_EAGAIN);
        assert_int_equal(ebb_balloon_device_status(rig.device), EBB_STATUS_NEEDS_RESET);
        assert_int_equal(rig_fault(EBB_FAULT_QUEUE), EBB_BALLOON_QUEUES);
        for (unsigned i = 0; i < EBB_BALLOON_QUEUES; i++)
            assert_int_equal(ebb_balloon_device_stop(rig.device, i), -EBB_ENOENT);
    }
}

static void reset_forgets_the_driver(void **state)
{
    (void)state;
    rig_fill(RIG_BIG, RIG_BIG_PAGE);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_BIG, RIG_BIG_PAGE / 4096 - 1);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_settle();
    send_stats(1, 1);
    ebb_balloon_device_resize(rig.device, 123);
    assert_int_equal(ebb_balloon_device_hint_start(rig.device), 0);
    rig_hold();
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    rig_wait_held();
    rig_release();
    ebb_balloon_device_reset(rig.device);
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 0); /* rings are not touched any more */
    assert_int_equal(ebb_balloon_device_work(rig.device), false);
    assert_int_equal(ebb_balloon_device_target(rig.device), 123);
    assert_int_equal(hint_cmd(), 0);
    assert_int_equal(ebb_balloon_device_guest_stats(rig.device)->at_ns, 0);
    assert_int_equal(ebb_balloon_device_stop(rig.device, 0), -EBB_ENOENT);
    assert_int_equal(stats()->resets, 1);

    /* The new driver owns all pages: one more inflated completes nothing. */
    assert_int_equal(ebb_balloon_device_accept(rig.device, EBB_F_VERSION_1), 0);
    rig_start(EBB_BALLOON_INFLATE);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_BIG + RIG_BIG_PAGE - 4096, 1);
    rig_kick(EBB_BALLOON_INFLATE);
    rig_settle();
    assert_true(rig_kept(RIG_BIG, RIG_BIG_PAGE));
}

/* ---- save and restore ---- */

static void restored_into_another_device(void **state)
{
    uint8_t saved[EBB_BALLOON_DEVICE_STATE_SIZE];

    (void)state;
    ebb_balloon_device_resize(rig.device, 99);
    config_set(EBB_BALLOON_CFG_ACTUAL, 98, 4);
    send_stats(1, 1);
    assert_int_equal(ebb_balloon_device_hint_start(rig.device), 0);
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_kick(EBB_BALLOON_REPORTING);
    ebb_balloon_device_save(rig.device, saved);
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 1);
    assert_int_equal(ebb_balloon_device_poll_stats(rig.device), 0); /* it runs on */
    assert_int_equal(rig_back(EBB_BALLOON_STATS), 1);
    ebb_balloon_device_enable(rig.device, EBB_BALLOON_INFLATE, false);
    ebb_balloon_device_save(rig.device, saved);
    ebb_balloon_device_free(rig.device);

    /* What the driver sends meanwhile is served without a notification. */
    rig_fill(RIG_HIGH, 2 * MIB);
    rig_writable(EBB_BALLOON_REPORTING, RIG_HIGH, MIB);
    rig_pfns(EBB_BALLOON_INFLATE, RIG_HIGH + MIB, 256);
    rig_new_device(NULL);
    assert_int_equal(ebb_balloon_device_restore(rig.device, saved, NULL, NULL), 0);
    assert_int_equal(ebb_balloon_device_due(rig.device), 0);
    rig_settle();
    assert_true(rig_gone(RIG_HIGH, MIB));
    assert_true(rig_kept(RIG_HIGH + MIB, MIB));
    assert_int_equal(rig_back(EBB_BALLOON_REPORTING), 1);
    assert_int_equal(rig_back(EBB_BALLOON_INFLATE), 1);
    assert_int_equal(ebb_balloon_device_target(rig.device), 99);
    assert_int_equal(ebb_balloon_device_actual(rig.device), 98);
    assert_int_equal(hint_cmd(), 2);
    assert_int_equal(ebb_balloon_device_hint_start(rig.device), -EBB_EBUSY);
}

/* The held buffer is in the ring again, for the device that is restored. */
static void a_held_buffer_is_saved(void **state)
{
    uint8_t saved[EBB_BALLOON_DEVICE_STATE_SIZE];

    (void)state;
    send_stats(1, EBB_STAT_CACHES);
    ebb_balloon_device_save(rig.device, saved);
    ebb_balloon_device_free(rig.device);
    rig_new_device(NULL);
    assert_int_equal(ebb_balloon_device_restore(rig.device, saved, NULL, NULL), 0);
    rig_settle();
    assert_int_equal(stats()->stats_received, 1);
    assert_int_equal(rig_back(EBB_BALLOON_STATS), 0);
    assert_int_equal(ebb_balloon_device_poll_stats(rig.device), 0);
    assert_int_equal(rig_back(EBB_BALLOON_STATS), 1);
}

/* A state is input like any other: each byte of it is changed in turn. */
static void damaged_states_do_no_harm(void **state)
{
    uint8_t saved[EBB_BALLOON_DEVICE_STATE_SIZE], copy[EBB_BALLOON_DEVICE_STATE_SIZE];
    unsigned refused = 0;

    (void)state;
    ebb_balloon_device_save(rig.device, saved);
    for (unsigned i = 0; i < sizeof(saved); i++) {
        memcpy(copy, saved, sizeof(copy));
        copy[i] ^= 0x81;
        if (ebb_balloon_device_restore(rig.device, copy, NULL, NULL) == 0) {
            for (unsigned queue = 0; queue < 6; queue++)
                ebb_balloon_device_kick(rig.device, queue);
            rig_settle();
            continue;
        }
        refused++;
        assert_int_equal(ebb_balloon_device_stop(rig.device, 0), -EBB_ENOENT);
        assert_int_equal(ebb_balloon_device_actual(rig.device), 0);
    }
    /* All but the fields that may hold anything: five of four bytes (with a poison), one bit of the
     * disabled queues, and of each queue its index and what moves its parts within memory. */
    assert_true(refused > EBB_BALLOON_DEVICE_STATE_SIZE - 24 - 5 * (2 + 3 * 3));
    assert_int_equal(ebb_balloon_device_restore(rig.device, saved, NULL, NULL), 0);
}

/* Two queues that say each that it is the other. */
static void states_with_wrong_numbers_are_refused(void **state)
{
    uint8_t saved[EBB_BALLOON_DEVICE_STATE_SIZE];

    (void)state;
    ebb_balloon_device_save(rig.device, saved);
    assert_int_equal(saved[64 + 4], 0);
    assert_int_equal(saved[64 + 40 + 4], 1);
    saved[64 + 4] = 1;
    saved[64 + 40 + 4] = 0;
    assert_int_equal(ebb_balloon_device_restore(rig.device, saved, NULL, NULL), -EBB_EINVAL);
}

static void states_of_other_features_are_refused(void **state)
{
    const struct ebb_balloon_device_config config = {.withhold = EBB_F_STATS_VQ};
    uint8_t saved[EBB_BALLOON_DEVICE_STATE_SIZE];

    (void)state;
    ebb_balloon_device_save(rig.device, saved);
    ebb_balloon_device_free(rig.device);
    rig_new_device(&config);
    ebb_balloon_device_resize(rig.device, 5);
    assert_int_equal(ebb_balloon_device_restore(rig.device, saved, NULL, NULL), -EBB_EINVAL);
    assert_int_equal(ebb_balloon_device_target(rig.device), 5);
    assert_int_equal(ebb_balloon_device_queue_count(rig.device), 4);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
#define OWN(name)  cmocka_unit_test_setup_teardown(name, no_rig, rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(features_are_offered_as_configured),
        TEST(bad_configurations_are_refused),
        TEST(what_was_not_offered_cannot_be_accepted),
        TEST(queues_have_their_numbers),
        TEST(no_queue_runs_twice),
        TEST(config_reads),
        TEST(config_takes_what_is_the_drivers),
        TEST(inflated_pages_are_discarded),
        TEST(wide_page_numbers),
        TEST(scattered_pages_are_discarded),
        TEST(deflated_pages_are_kept),
        TEST(disabled_deflated_pages_are_kept),
        TEST(reported_ranges_are_discarded),
        TEST(poison_is_kept),
        TEST(poison_is_kept_of_hints),
        TEST(poison_of_zero_is_had_by_discarding),
        TEST(discard_then_used_then_call),
        TEST(a_driver_that_polls_is_not_called),
        TEST(chains_share_a_batch),
        OWN(a_turn_is_no_longer_than_configured),
        TEST(what_has_no_room_is_left),
        TEST(deflated_pages_without_room_are_kept),
        TEST(chains_that_cannot_be_out_are_bounded),
        OWN(a_batch_waits_for_others),
        OWN(a_batch_waits_at_nobodys_cost),
        OWN(queues_take_turns),
        TEST(chains_go_back_in_order),
        TEST(overwritten_buffers_change_nothing),
        OWN(who_waits_a_second_loses_nothing),
        TEST(who_waits_is_answered_in_time),
        TEST(waiting_pages_are_deflated),
        TEST(a_large_batch_is_cut),
        TEST(who_gets_no_thread_is_answered_in_time),
        TEST(inflated_pages_may_go_later),
        TEST(deflating_ends_that),
        TEST(stopping_ends_that),
        TEST(all_that_was_taken_goes_back),
        TEST(the_rate_delays_nobody),
        TEST(statistics_are_asked_for),
        TEST(statistics_need_the_feature),
        TEST(statistics_may_be_anything),
        TEST(stop_rewinds_statistics),
        TEST(hints_are_told),
        TEST(late_hints_are_ignored),
        OWN(hints_are_discarded_if_configured),
        OWN(hints_that_wait_are_left_when_done),
        TEST(a_disabled_queue_has_no_effect),
        TEST(a_stopped_queue_goes_on),
        OWN(a_gathering_batch_is_not_lost),
        OWN(nothing_is_gathered_of_who_does_not_tell),
        TEST(rings_have_addresses_of_their_own),
        TEST(rings_move_with_their_memory),
        OWN(rings_go_with_their_memory),
        TEST(reset_forgets_the_driver),
        TEST(restored_into_another_device),
        TEST(a_held_buffer_is_saved),
        TEST(damaged_states_do_no_harm),
        TEST(states_with_wrong_numbers_are_refused),
        TEST(states_of_other_features_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
