/* SPDX-License-Identifier: BSD-2-Clause */
/* System calls that fail, at each of their turns, and discards that succeed for nothing. */
#include "discard_rig.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE     EBB_FRAME_SIZE
#define LARGE    (16 * PAGE)
#define REPORTED EBB_DISCARD_REPORTED
#define INFLATED EBB_DISCARD_INFLATED

static const enum ebb_backing backings[] = {EBB_BACKING_SHARED, EBB_BACKING_ANON};

/* ---- calls that fail ---- */

#define PARTS 5u

/* Five extents; the n-th call fails: that part stays, all others go, the batch is done. */
static void check_failure(enum ebb_backing backing, int err, unsigned at)
{
    struct ebb_range ranges[PARTS];
    struct ebb_discard_stats stats;
    struct rig rig;

    for (unsigned i = 0; i < PARTS; i++)
        ranges[i] = rig_range(10 * i, i + 1);
    rig_start(&rig, backing, PAGE, NULL);
    rig.ops.fail_at = at;
    rig.ops.fail_n = 1;
    rig.ops.fail_errno = err;
    rig_run(&rig, REPORTED, ranges, PARTS);
    for (unsigned i = 0; i < PARTS; i++)
        for (unsigned f = 0; f < 10; f++)
            assert_int_equal(rig_dropped(&rig, 10 * i + f), i + 1 != at && f < i + 1);
    stats = rig_stats(&rig);
    assert_int_equal(stats.calls, PARTS);
    assert_int_equal(stats.not_bytes[EBB_DISCARD_FAILED], at <= PARTS ? at * PAGE : 0);
    assert_int_equal(stats.not_ranges[EBB_DISCARD_FAILED], at <= PARTS);
    assert_int_equal(stats.last_error, at <= PARTS ? err : 0);

    /* It is as good as before. */
    rig_run(&rig, REPORTED, ranges, PARTS);
    for (unsigned i = 0; i < PARTS; i++)
        assert_true(rig_dropped(&rig, 10 * i));
    rig_stop(&rig);
}

static void test_failures(void **state)
{
    static const int errors[] = {EPERM, EIO, ENOSPC, ENOMEM, EBADF, EOPNOTSUPP};

    (void)state;
    for (unsigned b = 0; b < 2; b++)
        for (size_t e = 0; e < sizeof(errors) / sizeof(errors[0]); e++)
            for (unsigned at = 1; at <= PARTS + 1; at++)
                check_failure(backings[b], errors[e], at);
}

static void test_interrupted(void **state)
{
    const struct ebb_range ranges[] = {rig_range(0, 8), rig_range(20, 8)};
    struct ebb_discard_stats stats;
    struct rig rig;

    (void)state;
    for (unsigned b = 0; b < 2; b++) {
        rig_start(&rig, backings[b], PAGE, NULL);
        rig.ops.fail_at = 1;
        rig.ops.fail_n = 5;
        rig.ops.fail_errno = EINTR;
        rig_run(&rig, REPORTED, ranges, 1);
        rig_expect_dropped(&rig, 0, 8);
        stats = rig_stats(&rig);
        assert_int_equal(stats.calls, 6);
        assert_int_equal(stats.last_error, 0);
        rig_stop(&rig);

        /* Without end: given up, and not tried for ever. */
        rig_start(&rig, backings[b], PAGE, NULL);
        rig.ops.fail_at = 1;
        rig.ops.fail_n = 1000000;
        rig.ops.fail_errno = EINTR;
        rig_run(&rig, REPORTED, ranges, 2);
        rig_expect_dropped(&rig, 0, 0);
        stats = rig_stats(&rig);
        assert_true(stats.calls <= 64);
        assert_int_equal(stats.not_bytes[EBB_DISCARD_FAILED], 16 * PAGE);
        assert_int_equal(stats.last_error, EINTR);
        rig_stop(&rig);
    }
}

/* A page that was gathered fails to go: it is accounted for, and gathered anew. */
static void test_gathered_fails(void **state)
{
    const struct ebb_range halves[] = {rig_range(16, 8), rig_range(24, 8)};
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, LARGE, NULL);
    rig.ops.fail_at = 1;
    rig.ops.fail_n = 1;
    rig.ops.fail_errno = EIO;
    rig_run(&rig, INFLATED, &halves[0], 1);
    rig_run(&rig, INFLATED, &halves[1], 1);
    assert_int_equal(rig_stats(&rig).not_bytes[EBB_DISCARD_FAILED], LARGE);
    assert_int_equal(rig_stats(&rig).gathered_bytes, 0);
    rig_run(&rig, INFLATED, &halves[0], 1);
    rig_run(&rig, INFLATED, &halves[1], 1);
    rig_expect_dropped(&rig, 16, 16);
    rig_stop(&rig);
}

/* A file that was taken away under the table: real failures. */
static void test_closed_file(void **state)
{
    const struct ebb_range range = rig_range(0, 8);
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, PAGE, NULL);
    close(rig.fd);
    rig_run(&rig, REPORTED, &range, 1);
    rig_expect_dropped(&rig, 0, 0);
    assert_int_equal(rig_stats(&rig).last_error, EBADF);
    rig.fd = -1;
    rig_stop(&rig);
}

/* ---- the effect ---- */

static const struct ebb_discard_config check_each = {.check_every = 1};

static void test_effect(void **state)
{
    const struct ebb_range range = rig_range(16, 32);
    struct ebb_discard_stats stats;
    struct rig rig;

    (void)state;
    for (unsigned b = 0; b < 2; b++) {
        rig_start(&rig, backings[b], PAGE, &check_each);
        rig_run(&rig, REPORTED, &range, 1);
        stats = rig_stats(&rig);
        assert_int_equal(stats.checked_bytes, 32 * PAGE);
        assert_int_equal(stats.not_bytes[EBB_DISCARD_RESIDENT], 0);

        rig_stamp(&rig);
        rig.ops.lie = true;
        rig_run(&rig, REPORTED, &range, 1);
        stats = rig_stats(&rig);
        assert_int_equal(stats.checked_bytes, 64 * PAGE);
        assert_int_equal(stats.not_bytes[EBB_DISCARD_RESIDENT], 32 * PAGE);
        assert_int_equal(stats.not_ranges[EBB_DISCARD_RESIDENT], 1);
        assert_int_equal(stats.discarded_bytes, 64 * PAGE); /* as far as the calls say */
        rig_stop(&rig);
    }
}

/* The wrong call for the backing: succeeds, frees nothing, and is found out. */
static void test_effect_wrong_call(void **state)
{
    const struct ebb_range range = rig_range(0, 64);
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, PAGE, &check_each);
    for (unsigned i = 0; i < rig.memory.n; i++)
        rig.memory.regions[i].backing = EBB_BACKING_ANON; /* MADV_DONTNEED on shared memory */
    rig_run(&rig, REPORTED, &range, 1);
    rig_expect_dropped(&rig, 0, 0);
    assert_int_equal(rig_stats(&rig).last_error, 0);
    assert_int_equal(rig_stats(&rig).not_bytes[EBB_DISCARD_RESIDENT], 64 * PAGE);
    rig_stop(&rig);
}

/* Some of it is there, seen through gaps. */
static void test_effect_in_part(void **state)
{
    const struct ebb_range all = rig_range(0, 64);
    const struct ebb_range even[] = {rig_range(0, 3), rig_range(10, 5), rig_range(63, 1)};
    struct rig rig;

    (void)state;
    for (unsigned b = 0; b < 2; b++) {
        rig_start(&rig, backings[b], PAGE, &check_each);
        rig_run(&rig, REPORTED, even, 3);
        assert_int_equal(rig_stats(&rig).not_bytes[EBB_DISCARD_RESIDENT], 0);
        rig.ops.lie = true;
        rig_run(&rig, REPORTED, &all, 1);
        assert_int_equal(rig_stats(&rig).not_bytes[EBB_DISCARD_RESIDENT], (64 - 9) * PAGE);
        rig_stop(&rig);
    }
}

/* Of many frames only some are looked at; of many calls, too. */
static void test_sampling(void **state)
{
    const struct ebb_discard_config config = {.check_every = 4};
    const struct ebb_range long_one = rig_range(0, 512),
                           ranges[] = {rig_range(600, 1), rig_range(610, 1), rig_range(620, 1),
                                       rig_range(630, 1), rig_range(640, 1)};
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, PAGE, &config);
    rig_run(&rig, REPORTED, &long_one, 1); /* the first is looked at */
    assert_in_range(rig_stats(&rig).checked_bytes, PAGE, 512 * PAGE / 4);
    rig_stop(&rig);

    rig_start(&rig, EBB_BACKING_SHARED, PAGE, &config);
    rig_run(&rig, REPORTED, ranges, 5); /* the first and the fifth */
    assert_int_equal(rig_stats(&rig).checked_bytes, 2 * PAGE);
    rig.ops.lie = true;
    rig_stamp(&rig);
    rig_run(&rig, REPORTED, ranges, 5); /* the fourth, and then each */
    assert_int_equal(rig_stats(&rig).checked_bytes, 4 * PAGE);
    rig_run(&rig, REPORTED, ranges, 5);
    assert_int_equal(rig_stats(&rig).checked_bytes, 9 * PAGE);
    assert_int_equal(rig_stats(&rig).not_bytes[EBB_DISCARD_RESIDENT], 7 * PAGE);
    rig.ops.lie = false;
    rig_run(&rig, REPORTED, ranges, 4);
    assert_int_equal(rig_stats(&rig).checked_bytes, 10 * PAGE);
    rig_stop(&rig);
}

static void test_no_checks(void **state)
{
    const struct ebb_discard_config never = {.check_every = UINT32_MAX};
    const struct ebb_range range = rig_range(0, 64);
    struct rig rig;

    (void)state;
    rig_start(&rig, EBB_BACKING_SHARED, PAGE, &never);
    rig.ops.lie = true;
    rig_run(&rig, REPORTED, &range, 1);
    assert_int_equal(rig.ops.looks, 0);
    assert_int_equal(rig_stats(&rig).checked_bytes, 0);
    rig_stop(&rig);
}

/* What could not be looked at was not. */
static void test_look_fails(void **state)
{
    const struct ebb_range range = rig_range(0, 64);
    struct rig rig;

    (void)state;
    for (unsigned b = 0; b < 2; b++) {
        rig_start(&rig, backings[b], PAGE, &check_each);
        rig.ops.look_errno = EAGAIN;
        rig_run(&rig, REPORTED, &range, 1);
        rig_expect_dropped(&rig, 0, 64);
        assert_int_equal(rig.ops.looks, 1);
        assert_int_equal(rig_stats(&rig).checked_bytes, 0);
        assert_int_equal(rig_stats(&rig).not_bytes[EBB_DISCARD_RESIDENT], 0);
        rig_stop(&rig);
    }
}

/* hugetlbfs: what is in the file and has no place elsewhere in it did not go. The file is a memfd
 * here, and what it takes is what the row says, after 512 frames of 1024 went. */
static void test_effect_by_blocks(void **state)
{
    static const struct {
        uint64_t taken, size, left;
    } rows[] = {
        {BYTES / 2, BYTES, 0},         {0, BYTES, 0},
        {BYTES, BYTES, BYTES / 2},     {BYTES / 2 + LARGE, BYTES, LARGE},
        {BYTES, BYTES + BYTES / 2, 0}, {BYTES, BYTES / 4, BYTES / 2},
        {BYTES / 2 - PAGE, BYTES, 0},
    };
    const struct ebb_range range = rig_range(0, FRAMES / 2);
    struct rig rig;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        rig_start(&rig, EBB_BACKING_SHARED, LARGE, &check_each);
        for (unsigned r = 0; r < rig.memory.n; r++)
            rig.memory.regions[r].backing = EBB_BACKING_HUGETLB;
        rig.ops.taken = rows[i].taken;
        rig.ops.size = rows[i].size;
        rig_run(&rig, REPORTED, &range, 1);
        rig_expect_dropped(&rig, 0, FRAMES / 2);
        assert_int_equal(rig_stats(&rig).checked_bytes, BYTES / 2);
        assert_int_equal(rig_stats(&rig).not_bytes[EBB_DISCARD_RESIDENT], rows[i].left);
        rig_stop(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failures),         cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_gathered_fails),   cmocka_unit_test(test_closed_file),
        cmocka_unit_test(test_effect),           cmocka_unit_test(test_effect_wrong_call),
        cmocka_unit_test(test_effect_in_part),   cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_no_checks),        cmocka_unit_test(test_look_fails),
        cmocka_unit_test(test_effect_by_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
