/* SPDX-License-Identifier: BSD-2-Clause */
/* The reader of traces: what it makes of good ones, and what it says of bad ones. */
#include "trace.h"
#include "trace_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include <cmocka.h>

static struct rig rig;

static int setup(void **state)
{
    (void)state;
    rig_begin(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_release(&rig);
    return 0;
}

/* Two blocks, one of them freed in parts: 5 records. */
static void fill(void)
{
    rig_alloc(&rig, 0, 0, 2);
    rig_alloc(&rig, 10, 1, 0);
    rig_part(&rig, 5, 0, 1, 2, false);
    rig_free(&rig, 0, 1, 0);
    rig_part(&rig, 20, 0, 1, 0, true);
    rig_end(&rig, 100, 90);
}

static void refused_bytes(const void *data, size_t len, const char *why)
{
    char error[TRACE_ERROR] = "";
    struct trace trace;

    assert_int_equal(trace_parse(&trace, data, len, error), TRACE_MALFORMED);
    if (!strstr(error, why))
        fail_msg("wanted '%s', got '%s'", why, error);
    assert_null(trace.records);
}

static void refused(const char *why)
{
    refused_bytes(rig.bytes, rig.len, why);
}

static void check_filled(const struct trace *trace)
{
    assert_int_equal(trace->ram, 100);
    assert_int_equal(trace->free, 90);
    assert_string_equal(trace->workload, "rig");
    assert_int_equal(trace->n_records, 5);
    assert_int_equal(trace->blocks, 2);
    assert_int_equal(trace->us, 35);
    assert_int_equal(trace->peak_frames, 5);
    assert_int_equal(trace->frames, 5);
    assert_int_equal(trace->parts, 2);
    /* 4 frames for 10 us, 5 for 5, 2 for 20. */
    assert_true(trace->frame_us > 104.9 && trace->frame_us < 105.1);
    assert_int_equal(trace->records[1].us, 10);
    assert_int_equal(trace->records[1].id, 1);
    assert_int_equal(trace->records[1].op, TRACE_ALLOC);
    assert_int_equal(trace->records[1].type, TRACE_MOVABLE);
    assert_false(trace->records[2].last);
    assert_true(trace->records[3].last);
    assert_int_equal(trace->records[4].order, 1);
    assert_true(trace->records[4].last);
}

static void test_plain(void **state)
{
    char error[TRACE_ERROR];
    struct trace trace;

    (void)state;
    fill();
    assert_int_equal(trace_parse(&trace, rig.bytes, rig.len, error), TRACE_OK);
    check_filled(&trace);
    trace_release(&trace);
}

/* ---- zstd ---- */

static uint8_t packed[4096];

static size_t pack(void)
{
    size_t len = ZSTD_compress(packed, sizeof(packed), rig.bytes, rig.len, 3);

    assert_false(ZSTD_isError(len));
    return len;
}

static void test_zstd(void **state)
{
    char error[TRACE_ERROR];
    struct trace trace;

    (void)state;
    fill();
    assert_int_equal(trace_parse(&trace, packed, pack(), error), TRACE_OK);
    check_filled(&trace);
    trace_release(&trace);
}

/* A stream may be of several frames. */
static void test_zstd_frames(void **state)
{
    char error[TRACE_ERROR];
    struct trace trace;
    size_t a, b;

    (void)state;
    fill();
    a = ZSTD_compress(packed, sizeof(packed), rig.bytes, 70, 3);
    b = ZSTD_compress(packed + a, sizeof(packed) - a, rig.bytes + 70, rig.len - 70, 3);
    assert_int_equal(trace_parse(&trace, packed, a + b, error), TRACE_OK);
    check_filled(&trace);
    trace_release(&trace);
}

/* Wherever it is cut, it is cut short, or no zstd any more. */
static void test_zstd_cut(void **state)
{
    size_t len;

    (void)state;
    fill();
    len = pack();
    refused_bytes(packed, 3, "does not begin with PFT1");
    for (size_t i = 4; i < len; i++)
        refused_bytes(packed, i, "cut short");
    refused_bytes(packed, 0, "does not begin with PFT1");
}

static void test_zstd_damaged(void **state)
{
    size_t len;

    (void)state;
    fill();
    len = pack();
    memset(packed + len, 0x55, 8); /* behind its end */
    refused_bytes(packed, len + 8, "compressed data is damaged");
    memset(packed + 4, 0xff, len - 4);
    refused_bytes(packed, len, "compressed data is damaged");
}

/* What is inside is looked at as if it were plain. */
static void test_zstd_of_nonsense(void **state)
{
    size_t len;

    (void)state;
    fill();
    rig.len -= 1;
    refused_bytes(packed, pack(), "cut short: 4 of 5 records");
    len = ZSTD_compress(packed, sizeof(packed), "", 0, 3);
    refused_bytes(packed, len, "does not begin with PFT1");
}

/* ---- header ---- */

static void test_length(void **state)
{
    (void)state;
    fill();
    for (size_t i = 0; i < 5; i++)
        refused_bytes(rig.bytes, i, "does not begin with PFT1");
    for (size_t i = 5; i < RIG_HEADER; i++)
        refused_bytes(rig.bytes, i, "are no header");
    for (size_t i = RIG_HEADER; i < rig.len; i++)
        refused_bytes(rig.bytes, i, "cut short");
    rig.records = 4;
    rig_end(&rig, 100, 90);
    refused("goes on behind the last of its 4 records");
}

static void test_header(void **state)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "does not begin with PFT1"},
        {"GIF89a", "does not begin with PFT1"},
        {"PFT2 ram=100 free=90 n=5 ids=2 w=rig\n", "another version"},
        {"PFT1 ram=100 free=90 n=5 ids=2 w=rig", "makes no sense"}, /* no end of line */
        {"PFT1 ram=100 free=90 n=5 ids=2 w=\n", "makes no sense"},
        {"PFT1 ram=100 free=90 n=5 ids=2\n", "makes no sense"},
        {"PFT1 free=90 ram=100 n=5 ids=2 w=rig\n", "makes no sense"},
        {"PFT1 ram= free=90 n=5 ids=2 w=rig\n", "makes no sense"},
        {"PFT1 ram=-1 free=90 n=5 ids=2 w=rig\n", "makes no sense"},
        {"PFT1 ram=+100 free=90 n=5 ids=2 w=rig\n", "makes no sense"},
        {"PFT1 ram=100 free=90 n=99999999999999999999 ids=2 w=rig\n", "makes no sense"},
        {"PFT1 ram=9999999999 free=90 n=5 ids=2 w=rig\n", "makes no sense"},
        {"PFT1 ram=100 free=90 n=5 ids=2 w=\x1b[31m\n", "makes no sense"},
        {"PFT1 ram=0 free=0 n=5 ids=2 w=rig\n", "0 frames free of 0"},
        {"PFT1 ram=100 free=101 n=5 ids=2 w=rig\n", "101 frames free of 100"},
        {"PFT1 ram=100 free=90 n=0 ids=0 w=rig\n", "0 records"},
        {"PFT1 ram=100 free=90 n=5 ids=6 w=rig\n", "of 6 blocks"},
        {"PFT1 ram=100 free=90 n=67108865 ids=2 w=rig\n", "67108865 records"},
        {"PFT1 ram=100 free=90 n=67108864 ids=2 w=rig\n", "5 of 67108864 records"},
        {"PFT1 ram=100 free=90 n=5 ids=3 w=rig\n", "3 blocks, its records 2"},
        {"PFT1 ram=100 free=90 n=5 ids=1 w=rig\n", "record 2 of 5: there is no block 1"},
        {"PFT1 ram=4 free=4 n=5 ids=2 w=rig\n", "5 frames are live at once, of 4"},
    };

    (void)state;
    fill();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rig_header(&rig, cases[i].text);
        refused(cases[i].why);
    }
}

/* ---- records ---- */

/* Whatever is wrong with the second record, after an allocation of order 2. */
struct wrong {
    uint32_t id;
    unsigned op, order, mt;
    uint32_t off;
    const char *why;
};

static void test_records(void **state)
{
    static const struct wrong cases[] = {
        {0, 3, 2, 0, 0, "record 2 of 2: there is no operation 3"},
        {0, 255, 2, 0, 0, "there is no operation 255"},
        {1, TRACE_ALLOC, 11, 1, 0, "order 11 is too large"},
        {1, TRACE_ALLOC, 255, 1, 0, "order 255 is too large"},
        {0, TRACE_FREE, 11, 0, 0, "order 11 is too large"},
        {2, TRACE_ALLOC, 0, 1, 0, "there is no block 2"},
        {UINT32_MAX, TRACE_FREE, 0, 0, 0, "there is no block 4294967295"},
        {0, TRACE_ALLOC, 2, 1, 0, "block 0 is allocated twice"},
        {1, TRACE_ALLOC, 0, 4, 0, "there is no migratetype 4"},
        {1, TRACE_ALLOC, 0, 1, 1, "an allocation has no offset"},
        {1, TRACE_FREE, 2, 0, 0, "block 1 is freed before it is allocated"},
        {0, TRACE_FREE, 1, 0, 0, "block 0 has order 2 and is freed with order 1"},
        {0, TRACE_FREE, 2, 1, 0, "neither flag nor offset"},
        {0, TRACE_FREE, 2, 0, 4, "neither flag nor offset"},
        {0, TRACE_FREE_PART, 2, 1, 0, "is no part of block 0"},
        {0, TRACE_FREE_PART, 1, 0, 1, "is no part of block 0"},
        {0, TRACE_FREE_PART, 1, 0, 4, "is no part of block 0"},
        {0, TRACE_FREE_PART, 0, 0, UINT32_MAX, "is no part of block 0"},
        {0, TRACE_FREE_PART, 1, 1, 0, "the last part of block 0"},
        {0, TRACE_FREE_PART, 1, 2, 0, "the last part of block 0"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct wrong *wrong = &cases[i];

        rig_release(&rig);
        rig_begin(&rig);
        rig_alloc(&rig, 0, 0, 2);
        rig_add(&rig, 0, wrong->id, wrong->op, wrong->order, wrong->mt, wrong->off);
        rig.blocks = 2;
        rig_end(&rig, 100, 90);
        refused(wrong->why);
    }
}

static void test_order_of_ids(void **state)
{
    (void)state;
    rig_alloc(&rig, 0, 1, 0);
    rig_alloc(&rig, 0, 0, 0);
    rig_end(&rig, 100, 90);
    refused("record 1 of 2: block 1 is allocated before block 0");
}

static void test_freed_twice(void **state)
{
    (void)state;
    rig_alloc(&rig, 0, 0, 2);
    rig_free(&rig, 0, 0, 2);
    rig_free(&rig, 0, 0, 2);
    rig_end(&rig, 100, 90);
    refused("record 3 of 3: block 0 is freed twice");
}

static void test_parts_freed_twice(void **state)
{
    (void)state;
    rig_alloc(&rig, 0, 0, 3);
    rig_part(&rig, 0, 0, 1, 2, false);
    rig_part(&rig, 0, 0, 2, 0, false);
    rig_end(&rig, 100, 90);
    refused("record 3 of 3: frames of block 0 are freed twice");
}

static void test_whole_after_part(void **state)
{
    (void)state;
    rig_alloc(&rig, 0, 0, 3);
    rig_part(&rig, 0, 0, 1, 2, false);
    rig_free(&rig, 0, 0, 3);
    rig_end(&rig, 100, 90);
    refused("block 0 is freed whole after a part of it");
}

static void test_last_part_not_marked(void **state)
{
    (void)state;
    rig_alloc(&rig, 0, 0, 1);
    rig_part(&rig, 0, 0, 0, 0, false);
    rig_part(&rig, 0, 0, 0, 1, false);
    rig_end(&rig, 100, 90);
    refused("record 3 of 3: the last part of block 0");
}

/* The largest order in its smallest parts. */
static void test_many_parts(void **state)
{
    char error[TRACE_ERROR];
    struct trace trace;

    (void)state;
    rig_alloc(&rig, 0, 0, TRACE_ORDER_MAX);
    for (uint32_t i = 0; i < 1u << TRACE_ORDER_MAX; i++)
        rig_part(&rig, 1, 0, 0, i ^ 5, i == (1u << TRACE_ORDER_MAX) - 1);
    rig_end(&rig, 1024, 1024);
    assert_int_equal(trace_parse(&trace, rig.bytes, rig.len, error), TRACE_OK);
    assert_int_equal(trace.parts, 1024);
    assert_int_equal(trace.peak_frames, 1024);
    trace_release(&trace);
}

/* A bit changed anywhere: an error, or a trace that holds together. */
static void test_bits(void **state)
{
    char error[TRACE_ERROR];
    struct trace trace;
    unsigned good = 0;

    (void)state;
    fill();
    for (size_t bit = 0; bit < 8 * rig.len; bit++) {
        rig.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        error[0] = '\0';
        if (trace_parse(&trace, rig.bytes, rig.len, error) == TRACE_OK) {
            assert_true(trace.n_records == 5 && trace.blocks == 2);
            assert_true(trace.peak_frames <= trace.ram);
            trace_release(&trace);
            good++;
        } else {
            assert_true(error[0] != '\0' && strlen(error) < TRACE_ERROR - 1);
        }
        rig.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    /* Times, the recording CPU, the name and such. */
    assert_true(good > 5 * 32 && good < 4 * rig.len);
}

/* ---- files ---- */

static void test_file(void **state)
{
    char name[] = P_tmpdir "/ebb-test-trace-XXXXXX", error[TRACE_ERROR];
    int fd = mkstemp(name);
    struct trace trace;
    ssize_t written;

    (void)state;
    assert_true(fd >= 0);
    fill();
    written = write(fd, rig.bytes, rig.len);
    close(fd);
    assert_int_equal(written, rig.len);
    assert_int_equal(trace_read(&trace, name, error), TRACE_OK);
    check_filled(&trace);
    trace_release(&trace);
    unlink(name);
    assert_int_equal(trace_read(&trace, name, error), TRACE_UNREADABLE);
    assert_non_null(strstr(error, "No such file"));
    assert_int_equal(trace_read(&trace, "/", error), TRACE_UNREADABLE);
    assert_non_null(strstr(error, "directory"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_plain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zstd, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zstd_frames, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zstd_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zstd_damaged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zstd_of_nonsense, setup, teardown),
        cmocka_unit_test_setup_teardown(test_length, setup, teardown),
        cmocka_unit_test_setup_teardown(test_header, setup, teardown),
        cmocka_unit_test_setup_teardown(test_records, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order_of_ids, setup, teardown),
        cmocka_unit_test_setup_teardown(test_freed_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_parts_freed_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_whole_after_part, setup, teardown),
        cmocka_unit_test_setup_teardown(test_last_part_not_marked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
