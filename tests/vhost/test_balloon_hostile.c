/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The balloon device, and a driver that does what it must not: for each, it is counted by cause,
 * what is good beside it is served, every buffer comes back, and nothing else is discarded.
 */
#include "balloon_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define PAYLOAD   (RIG_LOW + 0x200000u) /* what a row's buffer holds */
#define WATCHED   (RIG_LOW + 0x300000u) /* memory of nobody's concern */
#define GOOD      RIG_HIGH
#define GOOD2     (RIG_HIGH + 0x100000u)
#define GOOD_SIZE 0x10000u
#define HIGH_END  (RIG_HIGH2 + RIG_HIGH_BYTES)

static const struct ebb_balloon_device_stats *stats(void)
{
    return ebb_balloon_device_get_stats(rig.device);
}

static void fill(void)
{
    rig_fill(RIG_HIGH, RIG_HIGH_BYTES);
    rig_fill(WATCHED, RIG_LOW + RIG_LOW_BYTES - WATCHED);
}

/* Nothing was discarded but the good ranges, if any. */
static void check_memory(bool good, bool good2)
{
    assert_true(good ? rig_gone(GOOD, GOOD_SIZE) : rig_kept(GOOD, GOOD_SIZE));
    assert_true(rig_kept(GOOD + GOOD_SIZE, GOOD2 - GOOD - GOOD_SIZE));
    assert_true(good2 ? rig_gone(GOOD2, GOOD_SIZE) : rig_kept(GOOD2, GOOD_SIZE));
    assert_true(rig_kept(GOOD2 + GOOD_SIZE, RIG_HIGH2 - GOOD2 - GOOD_SIZE));
    assert_true(rig_kept(WATCHED, RIG_LOW + RIG_LOW_BYTES - WATCHED));
    for (unsigned i = 0; i < rig.punches; i++)
        assert_true(rig.punched[i] == GOOD || rig.punched[i] == GOOD2);
}

/* What a driver that keeps to the rules sends on this queue. */
static void send_good(unsigned queue, uint64_t gpa)
{
    if (queue == EBB_BALLOON_INFLATE || queue == EBB_BALLOON_DEFLATE)
        rig_pfns(queue, gpa, GOOD_SIZE / 4096);
    else
        rig_writable(queue, gpa, GOOD_SIZE);
}

static bool discards(unsigned queue)
{
    return queue == EBB_BALLOON_INFLATE || queue == EBB_BALLOON_REPORTING ||
           (queue == EBB_BALLOON_HINT && rig.config.discard_hints);
}

/* ---- buffers ---- */

struct row {
    const char *what;
    unsigned queue;
    enum ebb_balloon_fault fault; /* EBB_FAULTS: none */
    unsigned faults;
    struct ebb_ring_buf bufs[3];
    unsigned n;
    uint32_t payload[4];
};

#define R(at, bytes)                                 \
    {                                                \
        .addr = (at), .len = (bytes), .write = false \
    }
#define W(at, bytes)                                \
    {                                               \
        .addr = (at), .len = (bytes), .write = true \
    }
#define PFN(gpa)  ((uint32_t)((gpa) >> 12))
#define INFLATE   EBB_BALLOON_INFLATE
#define DEFLATE   EBB_BALLOON_DEFLATE
#define HINT      EBB_BALLOON_HINT
#define REPORTING EBB_BALLOON_REPORTING
#define STATS     EBB_BALLOON_STATS
#define OUTSIDE   0x20000000u /* in the hole */
#define WRAPS     (UINT64_MAX - 4095)

#define EACH(queue, name, fault, faults, n, ...)           \
    {                                                      \
        name, queue, fault, faults, {__VA_ARGS__}, n, {0}, \
    }

/* What a queue that the device reads can be sent wrongly. */
#define READ_ROWS(queue)                                                                      \
    EACH(queue, "device-writable", EBB_FAULT_DIRECTION, 1, 1, W(PAYLOAD, 4)),                 \
        EACH(queue, "readable, then writable", EBB_FAULT_DIRECTION, 2, 3, R(PAYLOAD + 8, 40), \
             W(PAYLOAD, 4), W(PAYLOAD, 4)),                                                   \
        EACH(queue, "no bytes", EBB_FAULT_LENGTH, 1, 1, R(PAYLOAD, 0)),                       \
        EACH(queue, "no bytes, thrice, nowhere", EBB_FAULT_LENGTH, 3, 3, R(OUTSIDE, 0),       \
             R(WRAPS, 0), R(0, 0)),                                                           \
        EACH(queue, "less than one", EBB_FAULT_LENGTH, 1, 1, R(PAYLOAD, 3)),                  \
        EACH(queue, "of 4 GiB", EBB_FAULT_LENGTH, 1, 1, R(PAYLOAD, UINT32_MAX)),              \
        EACH(queue, "outside", EBB_FAULT_BUFFER, 1, 1, R(OUTSIDE, 40)),                       \
        EACH(queue, "at 0", EBB_FAULT_BUFFER, 1, 1, R(0, 40)),                                \
        EACH(queue, "that wraps", EBB_FAULT_BUFFER, 1, 1, R(UINT64_MAX - 7, 40)),             \
        EACH(queue, "that ends outside", EBB_FAULT_BUFFER, 1, 1,                              \
             R(RIG_LOW + RIG_LOW_BYTES - 8, 40)),                                             \
        EACH(queue, "in two regions", EBB_FAULT_BUFFER, 1, 1, R(RIG_HIGH2 - 20, 40))

#define PAGES_ROWS(queue)                                                                     \
    {"a page in a device-writable buffer",                                                    \
     queue,                                                                                   \
     EBB_FAULT_DIRECTION,                                                                     \
     1,                                                                                       \
     {W(PAYLOAD, 4)},                                                                         \
     1,                                                                                       \
     {PFN(RIG_HIGH) + 512}},                                                                  \
        {"a page outside", queue, EBB_FAULT_PFN, 1, {R(PAYLOAD, 4)}, 1, {PFN(OUTSIDE)}},      \
        {"the last page number", queue, EBB_FAULT_PFN, 1, {R(PAYLOAD, 4)}, 1, {UINT32_MAX}},  \
        {"pages around memory",                                                               \
         queue,                                                                               \
         EBB_FAULT_PFN,                                                                       \
         4,                                                                                   \
         {R(PAYLOAD, 16)},                                                                    \
         1,                                                                                   \
         {PFN(RIG_LOW) - 1, PFN(RIG_LOW + RIG_LOW_BYTES), PFN(RIG_HIGH) - 1, PFN(HIGH_END)}}, \
        {"good pages around one outside",                                                     \
         queue,                                                                               \
         EBB_FAULT_PFN,                                                                       \
         1,                                                                                   \
         {R(PAYLOAD, 12)},                                                                    \
         1,                                                                                   \
         {PFN(GOOD), PFN(RIG_HIGH) - 1, PFN(GOOD) + 1}},                                      \
        {"one page four times",                                                               \
         queue,                                                                               \
         EBB_FAULTS,                                                                          \
         0,                                                                                   \
         {R(PAYLOAD, 16)},                                                                    \
         1,                                                                                   \
         {PFN(GOOD), PFN(GOOD), PFN(GOOD), PFN(GOOD)}},                                       \
    {                                                                                         \
        "what follows what cannot be read", queue, EBB_FAULT_BUFFER, 1,                       \
            {R(OUTSIDE, 8), R(PAYLOAD, 4)}, 2,                                                \
        {                                                                                     \
            PFN(GOOD)                                                                         \
        }                                                                                     \
    }

/* What a queue whose buffers are the ranges can be sent wrongly. */
#define RANGE_ROWS(queue)                                                                       \
    EACH(queue, "no bytes", EBB_FAULT_LENGTH, 1, 1, W(RIG_HIGH + 0x200000u, 0)),                \
        EACH(queue, "no bytes, nowhere", EBB_FAULT_LENGTH, 2, 2, W(WRAPS, 0), W(0, 0)),         \
        EACH(queue, "outside", EBB_FAULT_PFN, 1, 1, W(OUTSIDE, 4096)),                          \
        EACH(queue, "at 0", EBB_FAULT_PFN, 1, 1, W(0, 4096)),                                   \
        EACH(queue, "that wraps", EBB_FAULT_PFN, 1, 1, W(WRAPS, 8192)),                         \
        EACH(queue, "that wraps into memory", EBB_FAULT_PFN, 1, 1, W(WRAPS, UINT32_MAX)),       \
        EACH(queue, "that ends outside", EBB_FAULT_PFN, 1, 1, W(HIGH_END - 4096, 8192)),        \
        EACH(queue, "that begins outside", EBB_FAULT_PFN, 1, 1, W(RIG_HIGH - 4096, 8192)),      \
        EACH(queue, "over a hole", EBB_FAULT_PFN, 1, 1, W(RIG_LOW, RIG_HIGH - RIG_LOW + 4096)), \
        EACH(queue, "of 4 GiB", EBB_FAULT_PFN, 1, 1, W(RIG_HIGH, UINT32_MAX)),                  \
        EACH(queue, "of a byte", EBB_FAULTS, 0, 1, W(RIG_HIGH + 0x200000u, 1)),                 \
        EACH(queue, "of no whole page", EBB_FAULTS, 0, 1, W(RIG_HIGH + 0x200001u, 8190)),       \
        EACH(queue, "good ones beside", EBB_FAULT_PFN, 1, 3, W(GOOD, 4096), W(OUTSIDE, 4096),   \
             W(GOOD, 4096))

static const struct row rows[] = {
    READ_ROWS(INFLATE),
    PAGES_ROWS(INFLATE),
    READ_ROWS(DEFLATE),
    PAGES_ROWS(DEFLATE),
    RANGE_ROWS(REPORTING),
    EACH(REPORTING, "readable", EBB_FAULT_DIRECTION, 1, 1, R(RIG_HIGH + 0x200000u, 4096)),
    EACH(REPORTING, "readable, then good", EBB_FAULT_DIRECTION, 2, 3, R(RIG_HIGH + 0x200000u, 4096),
         R(OUTSIDE, 0), W(GOOD, 4096)),
    RANGE_ROWS(HINT),
    EACH(HINT, "command without bytes", EBB_FAULT_LENGTH, 2, 1, R(PAYLOAD, 0)),
    EACH(HINT, "command of three bytes", EBB_FAULT_LENGTH, 1, 1, R(PAYLOAD, 3)),
    {"command of eight bytes", HINT, EBB_FAULT_LENGTH, 1, {R(PAYLOAD, 8)}, 1, {2}},
    {"command of 4 GiB", HINT, EBB_FAULT_LENGTH, 1, {R(PAYLOAD, UINT32_MAX)}, 1, {2}},
    {"command that is none", HINT, EBB_FAULT_HINT, 1, {R(PAYLOAD, 4)}, 1, {1}},
    {"command never given", HINT, EBB_FAULT_HINT, 1, {R(PAYLOAD, 4)}, 1, {3}},
    {"last command there can be", HINT, EBB_FAULT_HINT, 1, {R(PAYLOAD, 4)}, 1, {UINT32_MAX}},
    EACH(HINT, "command outside", EBB_FAULT_LENGTH, 1, 1, R(OUTSIDE, 4)),
};

static void run_row(const struct row *row)
{
    const struct ebb_balloon_device_stats before = *stats();
    unsigned counted = 0;

    fill();
    for (unsigned i = 0; i < 4; i++)
        rig_put(PAYLOAD + 4 * i, row->payload[i], 4);
    send_good(row->queue, GOOD);
    rig_chain(row->queue, row->bufs, row->n);
    send_good(row->queue, GOOD2);
    rig.punches = 0;
    rig_kick(row->queue);
    rig_settle();

    counted = row->fault == EBB_FAULTS
                  ? 0
                  : (unsigned)(rig_fault(row->fault) - before.faults[row->fault]);
    if (counted != row->faults || rig_back(row->queue) != 3)
        fail_msg("queue %u, %s: counted %u", row->queue, row->what, counted);
    assert_int_equal(stats()->chains[row->queue] - before.chains[row->queue], 3);
    check_memory(discards(row->queue), discards(row->queue));
    assert_int_equal(ebb_balloon_device_status(rig.device), 0);
    assert_int_equal(rig.needs_resets, 0);
}

static void run_rows(bool discard_hints)
{
    const struct ebb_balloon_device_config config = {.discard_hints = discard_hints};

    rig_init(&config, RIG_ALL);
    assert_int_equal(ebb_balloon_device_hint_start(rig.device), 0);
    rig_command(2);
    rig_kick(HINT);
    rig_settle();
    assert_int_equal(rig_back(HINT), 1);
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        run_row(&rows[i]);
}

static void bad_buffers_come_back(void **state)
{
    (void)state;
    run_rows(false);
}

static void bad_buffers_come_back_from_discarded_hints(void **state)
{
    (void)state;
    run_rows(true);
}

static const struct row stats_rows[] = {
    EACH(STATS, "device-writable", EBB_FAULT_DIRECTION, 1, 1, W(PAYLOAD, 10)),
    EACH(STATS, "no bytes", EBB_FAULT_LENGTH, 1, 1, R(PAYLOAD, 0)),
    EACH(STATS, "less than one", EBB_FAULT_LENGTH, 1, 1, R(PAYLOAD, 9)),
    EACH(STATS, "one and a bit", EBB_FAULT_LENGTH, 1, 1, R(PAYLOAD, 11)),
    EACH(STATS, "of 4 GiB", EBB_FAULT_LENGTH, 2, 1, R(PAYLOAD, UINT32_MAX)),
    EACH(STATS, "outside", EBB_FAULT_BUFFER, 1, 1, R(OUTSIDE, 10)),
    EACH(STATS, "that wraps", EBB_FAULT_BUFFER, 1, 1, R(UINT64_MAX - 3, 10)),
};

/* Held like good ones, and given back when asked for. */
static void bad_statistics_come_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(stats_rows) / sizeof(stats_rows[0]); i++) {
        const struct row *row = &stats_rows[i];
        const uint64_t before = rig_fault(row->fault);

        rig_chain(STATS, row->bufs, row->n);
        rig_kick(STATS);
        if (rig_fault(row->fault) - before != row->faults)
            fail_msg("%s: counted %u", row->what, (unsigned)(rig_fault(row->fault) - before));
        assert_int_equal(rig_back(STATS), 0);
        assert_int_equal(ebb_balloon_device_poll_stats(rig.device), 0);
        assert_int_equal(rig_back(STATS), 1);
    }
}

static void surplus_statistics_come_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 40; i++)
        rig_readable(STATS, PAYLOAD, 10);
    rig_kick(STATS);
    assert_int_equal(rig_fault(EBB_FAULT_STATS), 39);
    assert_int_equal(rig_back(STATS), 39);
    assert_int_equal(rig.calls[STATS], 1);
    assert_int_equal(ebb_balloon_device_poll_stats(rig.device), 0);
    assert_int_equal(rig_back(STATS), 1);
}

/* ---- rings ---- */

static void loop_of_one(unsigned queue)
{
    rig_desc(queue, 9, GOOD2, 4096, EBB_DESC_WRITE | EBB_DESC_NEXT, 9);
    rig_offer(queue, 9);
}

static void loop_of_all(unsigned queue)
{
    /* But the first, of the good chain. */
    for (unsigned i = 1; i < RIG_RING; i++)
        rig_desc(queue, i, GOOD2, 4096, EBB_DESC_WRITE | EBB_DESC_NEXT, i % (RIG_RING - 1) + 1);
    rig_offer(queue, 3);
}

static void head_out_of_range(unsigned queue)
{
    rig_offer(queue, RIG_RING);
}

static void head_far_out_of_range(unsigned queue)
{
    rig_offer(queue, UINT16_MAX);
}

static void next_out_of_range(unsigned queue)
{
    rig_desc(queue, 9, GOOD2, 4096, EBB_DESC_WRITE | EBB_DESC_NEXT, RIG_RING);
    rig_offer(queue, 9);
}

static void indirect(unsigned queue)
{
    rig_desc(queue, 9, PAYLOAD, 16, EBB_DESC_INDIRECT, 0);
    rig_offer(queue, 9);
}

static void indirect_of_4_gib(unsigned queue)
{
    rig_desc(queue, 9, PAYLOAD, UINT32_MAX & ~15u, EBB_DESC_INDIRECT, 0);
    rig_offer(queue, 9);
}

static void readable_behind_writable(unsigned queue)
{
    rig_desc(queue, 9, GOOD2, 4096, EBB_DESC_WRITE | EBB_DESC_NEXT, 10);
    rig_desc(queue, 10, PAYLOAD, 4, 0, 0);
    rig_offer(queue, 9);
}

static const struct {
    const char *what;
    void (*offer)(unsigned queue);
} ring_rows[] = {
    {"a descriptor that follows itself", loop_of_one},
    {"a loop of all descriptors", loop_of_all},
    {"a head out of range", head_out_of_range},
    {"a head far out of range", head_far_out_of_range},
    {"a next out of range", next_out_of_range},
    {"an indirect descriptor", indirect},
    {"2^28 indirect descriptors", indirect_of_4_gib},
    {"a readable buffer behind a writable one", readable_behind_writable},
};

/* The device as a whole wants a reset, but the other queues are served until then. */
static void check_broken(unsigned queue, unsigned other)
{
    assert_int_equal(ebb_balloon_device_status(rig.device), EBB_STATUS_NEEDS_RESET);
    assert_int_equal(rig.needs_resets, 1);
    assert_int_equal(rig_fault(EBB_FAULT_RING), 1);
    send_good(queue, GOOD2); /* what comes behind is not served until the driver has reset it */
    rig_kick(queue);
    rig_settle();
    assert_int_equal(rig_fault(EBB_FAULT_RING), 1);
    assert_int_equal(rig.needs_resets, 1);
    assert_int_equal(rig_back(queue), 0);
    assert_true(rig_kept(GOOD2, GOOD_SIZE));

    send_good(other, GOOD2);
    rig_kick(other);
    rig_settle();
    assert_int_equal(rig_back(other), 1);
    ebb_balloon_device_reset(rig.device);
    assert_int_equal(ebb_balloon_device_status(rig.device), 0);
}

static void broken_rings(void **state)
{
    (void)state;
    for (unsigned queue = 0; queue < EBB_BALLOON_QUEUES; queue++) {
        for (unsigned i = 0; i < sizeof(ring_rows) / sizeof(ring_rows[0]); i++) {
            const unsigned other = queue == REPORTING ? INFLATE : REPORTING;

            rig_init(NULL, RIG_ALL);
            fill();
            send_good(queue, GOOD);
            ring_rows[i].offer(queue);
            rig_kick(queue);
            rig_settle();
            if (rig_fault(EBB_FAULT_RING) != 1)
                fail_msg("queue %u: %s", queue, ring_rows[i].what);
            /* What was good before it is served, and comes back. */
            if (queue != STATS)
                assert_int_equal(rig_back(queue), 1);
            check_memory(discards(queue), false);
            check_broken(queue, other);
            if (queue + 1 < EBB_BALLOON_QUEUES || i + 1 < sizeof(ring_rows) / sizeof(ring_rows[0]))
                rig_exit();
        }
    }
}

/* The index says that there are more chains than the ring has entries. */
static void too_many_available(void **state)
{
    (void)state;
    fill();
    for (unsigned queue = 0; queue < EBB_BALLOON_QUEUES; queue++) {
        rig_put(rig.queues[queue].avail + 2, RIG_RING + 1, 2);
        rig_kick(queue);
        rig_settle();
        assert_int_equal(rig_fault(EBB_FAULT_RING), queue + 1);
        assert_int_equal(rig_back(queue), 0);
    }
    check_memory(false, false);
    assert_int_equal(rig.needs_resets, 1);
}

/* A broken ring stops like any other, and a held statistics buffer of it comes back. */
static void broken_rings_stop(void **state)
{
    (void)state;
    rig_readable(STATS, PAYLOAD, 10);
    head_out_of_range(STATS);
    rig_kick(STATS);
    assert_int_equal(rig_fault(EBB_FAULT_RING), 1);
    assert_int_equal(ebb_balloon_device_poll_stats(rig.device), 0);
    assert_int_equal(rig_back(STATS), 1);
    assert_int_equal(ebb_balloon_device_stop(rig.device, STATS), 1);
    rig_start(STATS);
    rig_readable(STATS, PAYLOAD, 10);
    rig_kick(STATS);
    assert_int_equal(stats()->stats_received, 2);
}

static const struct {
    const char *what;
    struct ebb_balloon_device_vring vring;
} start_rows[] = {
    {"no entries", {0, RIG_LOW, RIG_LOW, RIG_LOW, 0, NULL, NULL}},
    {"three entries", {3, RIG_LOW, RIG_LOW, RIG_LOW, 0, NULL, NULL}},
    {"too many entries", {2048, RIG_LOW, RIG_LOW, RIG_LOW, 0, NULL, NULL}},
    {"2^31 entries", {1u << 31, RIG_LOW, RIG_LOW, RIG_LOW, 0, NULL, NULL}},
    {"2^32 entries, but for one", {UINT32_MAX, RIG_LOW, RIG_LOW, RIG_LOW, 0, NULL, NULL}},
    {"descriptors in a hole", {64, OUTSIDE, RIG_LOW, RIG_LOW, 0, NULL, NULL}},
    {"available in a hole", {64, RIG_LOW, OUTSIDE, RIG_LOW, 0, NULL, NULL}},
    {"used in a hole", {64, RIG_LOW, RIG_LOW, OUTSIDE, 0, NULL, NULL}},
    {"at 0", {64, 0, 0, 0, 0, NULL, NULL}},
    {"descriptors that wrap", {64, UINT64_MAX - 15, RIG_LOW, RIG_LOW, 0, NULL, NULL}},
    {"used that wraps", {64, RIG_LOW, RIG_LOW, UINT64_MAX - 3, 0, NULL, NULL}},
    {"misaligned", {64, RIG_LOW + 8, RIG_LOW, RIG_LOW, 0, NULL, NULL}},
    {"misaligned used", {64, RIG_LOW, RIG_LOW, RIG_LOW + 2, 0, NULL, NULL}},
    {"out of the end", {64, HIGH_END - 16, RIG_LOW, RIG_LOW, 0, NULL, NULL}},
    {"in two regions", {64, RIG_HIGH2 - 16, RIG_LOW, RIG_LOW, 0, NULL, NULL}},
};

static void bad_rings_are_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(start_rows) / sizeof(start_rows[0]); i++) {
        for (unsigned queue = 0; queue < EBB_BALLOON_QUEUES; queue++) {
            const uint64_t before = rig_fault(EBB_FAULT_QUEUE);

            if (ebb_balloon_device_start(rig.device, queue, &start_rows[i].vring) != -EBB_EINVAL)
                fail_msg("queue %u: %s", queue, start_rows[i].what);
            assert_int_equal(rig_fault(EBB_FAULT_QUEUE), before + 1);
            ebb_balloon_device_kick(rig.device, queue);
            assert_int_equal(ebb_balloon_device_stop(rig.device, queue), -EBB_ENOENT);
        }
    }
    assert_int_equal(ebb_balloon_device_due(rig.device), UINT64_MAX);
}

/* A ring whose parts lie on each other, and on its buffers. */
static void a_ring_on_itself(void **state)
{
    struct ebb_balloon_device_vring vring = {.size = 64};

    (void)state;
    vring.desc = vring.avail = vring.used = RIG_LOW;
    assert_int_equal(ebb_balloon_device_start(rig.device, REPORTING, &vring), 0);
    for (unsigned i = 0; i < 256; i++) {
        rig_put(RIG_LOW + i * 7u, 0x0101010101010101u * i, 8);
        ebb_balloon_device_kick(rig.device, REPORTING);
        (void)ebb_balloon_device_work(rig.device);
    }
    ebb_balloon_device_quiesce(rig.device);
}

/* ---- configuration ---- */

static void config_writes_of_every_offset_and_size(void **state)
{
    uint8_t garbage[64], space[64];
    uint64_t faults = 0;

    (void)state;
    memset(garbage, 0x5a, sizeof(garbage));
    ebb_balloon_device_resize(rig.device, 1000);
    for (uint32_t offset = 0; offset < 24; offset++) {
        for (uint32_t len = 0; len < 24; len++) {
            ebb_balloon_device_config_write(rig.device, offset, garbage, len);
            /* `actual` is the driver's, the rest is not. (Its bytes are as they are by the time
             * that a part of them is written.) */
            faults += len > 0 && !(offset >= 4 && offset + len <= 8);
            assert_int_equal(rig_fault(EBB_FAULT_CONFIG), faults);
            ebb_balloon_device_config_read(rig.device, offset, space, len);
        }
    }
    ebb_balloon_device_config_write(rig.device, UINT32_MAX, garbage, 64);
    ebb_balloon_device_config_write(rig.device, UINT32_MAX - 8, garbage, 16);
    assert_int_equal(rig_fault(EBB_FAULT_CONFIG), faults + 2);
    assert_true(faults > 24 * 20);
    ebb_balloon_device_config_read(rig.device, 0, space, 16);
    assert_int_equal(ebb_balloon_device_target(rig.device), 1000);
    assert_int_equal(ebb_balloon_device_actual(rig.device), 0x5a5a5a5a);
    for (unsigned i = 8; i < 16; i++)
        assert_int_equal(space[i], 0);
}

/* ---- too much of it ---- */

/* Kicks with nothing behind them cost a look each. */
static void kicks_without_end(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 100000; i++)
        ebb_balloon_device_kick(rig.device, i % 9);
    ebb_balloon_device_kick(rig.device, UINT32_MAX);
    assert_int_equal(stats()->kicks, 100001);
    assert_int_equal(rig_discards().batches, 0);
    assert_int_equal(rig_wakes(), 0);
    assert_int_equal(rig_faults(), 0);
    for (unsigned i = 0; i < EBB_BALLOON_QUEUES; i++)
        assert_int_equal(rig.calls[i], 0);
}

/* All descriptors in each chain, all chains at once: a kick takes what is bounded, and the rest is
 * served by work(), which each time lets others go on. */
static void chains_without_end(void **state)
{
    const struct ebb_balloon_device_config config = {.batch_chains = 4};

    (void)state;
    rig_init(&config, RIG_ALL);
    for (unsigned queue = 0; queue < EBB_BALLOON_QUEUES; queue++) {
        const struct ebb_balloon_device_stats *now = stats();

        for (unsigned i = 0; i < RIG_RING; i++)
            rig_desc(queue, i, OUTSIDE, 0, i + 1 < RIG_RING ? EBB_DESC_NEXT : 0u, i + 1);
        for (unsigned i = 0; i < RIG_RING; i++)
            rig_offer(queue, 0);
        rig_kick(queue);
        assert_true(now->chains[queue] <= 4);
        assert_true(ebb_balloon_device_due(rig.device) == 0);
        assert_int_equal(rig_wakes(), queue + 1);
        rig_settle();
        assert_int_equal(now->chains[queue], queue == STATS ? RIG_RING - 1 : RIG_RING);
    }
    assert_int_equal(rig_discards().batches, 0);
}

/* As many page numbers as chains can hold: a turn ends in the midst of them. */
static void pages_without_end(void **state)
{
    const struct ebb_balloon_device_config config = {.batch_chains = 256};
    const uint64_t turn = 17 * EBB_BALLOON_DEVICE_CHAIN_PFNS;

    (void)state;
    rig_init(&config, RIG_ALL);
    for (unsigned i = 0; i < 1024; i++)
        rig_put(PAYLOAD + 4 * i, PFN(RIG_HIGH) + i, 4);
    rig_desc(INFLATE, 0, PAYLOAD, 4096, 0, 0);
    for (unsigned i = 0; i < RIG_RING; i++)
        rig_offer(INFLATE, 0);
    rig_kick(INFLATE);
    assert_true(stats()->inflated_pages > 0 && stats()->inflated_pages <= turn);
    rig_settle();
    assert_int_equal(stats()->inflated_pages, RIG_RING * EBB_BALLOON_DEVICE_CHAIN_PFNS);
    assert_int_equal(stats()->chains[INFLATE], RIG_RING);
    assert_int_equal(rig_faults(), 0);
}

/* A driver that offers again what was taken, for ever, does not hold back another queue. */
static void one_queue_without_end(void **state)
{
    const struct ebb_balloon_device_config config = {.batch_chains = 4};
    unsigned turns = 0;

    (void)state;
    rig_init(&config, RIG_ALL);
    rig_desc(HINT, 0, OUTSIDE, 0, 0, 0);
    rig_desc(DEFLATE, 0, OUTSIDE, 0, 0, 0);
    rig_kick(HINT);
    rig_kick(DEFLATE);
    rig_fill(GOOD, GOOD_SIZE);
    send_good(REPORTING, GOOD);
    rig_kick(REPORTING);
    while (rig_back(REPORTING) == 0) {
        assert_true(++turns < 10000000);
        /* Always more than it takes at a time. */
        while ((uint16_t)(rig.queues[HINT].next_avail - stats()->chains[HINT]) < 32)
            rig_offer(HINT, 0);
        while ((uint16_t)(rig.queues[DEFLATE].next_avail - stats()->chains[DEFLATE]) < 32)
            rig_offer(DEFLATE, 0);
        rig_kick(HINT);
        rig_kick(DEFLATE);
        (void)ebb_balloon_device_work(rig.device);
    }
    assert_true(rig_gone(GOOD, GOOD_SIZE));
    assert_int_equal(rig_fault(EBB_FAULT_RING), 0);
}

static int no_rig(void **state)
{
    (void)state;
    return 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
#define OWN(name)  cmocka_unit_test_setup_teardown(name, no_rig, rig_teardown)
    const struct CMUnitTest tests[] = {
        OWN(bad_buffers_come_back),
        OWN(bad_buffers_come_back_from_discarded_hints),
        TEST(bad_statistics_come_back),
        TEST(surplus_statistics_come_back),
        OWN(broken_rings),
        TEST(too_many_available),
        TEST(broken_rings_stop),
        TEST(bad_rings_are_refused),
        TEST(a_ring_on_itself),
        TEST(config_writes_of_every_offset_and_size),
        TEST(kicks_without_end),
        OWN(chains_without_end),
        OWN(pages_without_end),
        OWN(one_queue_without_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
