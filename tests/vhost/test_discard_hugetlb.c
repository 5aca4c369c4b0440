/* SPDX-License-Identifier: BSD-2-Clause */
/* Discards of real huge pages of 2 MiB, if the host has some. */
#include <ebb/vhost/discard.h>

#include <errno.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define HUGE  ((uint64_t)2 << 20)
#define PAGES 4u
#define GPA   ((uint64_t)1 << 30)

static int fd;
static uint8_t *map;
static struct ebb_memory memory;
static struct ebb_discard_pool *pool;
static struct ebb_discard *discard;

/* The kernel may be asked to find some for as long as this takes. */
#define OVERCOMMIT "/proc/sys/vm/nr_overcommit_hugepages"

static unsigned overcommit(unsigned pages)
{
    FILE *file = fopen(OVERCOMMIT, "r+");
    unsigned before = 0;

    if (!file)
        return 0;
    if (fscanf(file, "%u", &before) == 1) {
        rewind(file);
        fprintf(file, "%u\n", pages);
    }
    fclose(file);
    return before;
}

/* False: there are none to have. */
static bool get_huge_pages(void)
{
    fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
    if (fd < 0 || ftruncate(fd, PAGES * HUGE) != 0)
        return false;
    /* Reserves the pages, so that to touch them cannot fail. */
    map = mmap(NULL, PAGES * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return map != MAP_FAILED;
}

static uint64_t taken(void)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static void stamp(void)
{
    for (unsigned i = 0; i < PAGES; i++)
        map[i * HUGE + 5] = 1;
}

static int setup(void **state)
{
    struct ebb_region region = {.gpa = GPA, .size = PAGES * HUGE, .host = map, .fd = fd};
    struct ebb_discard_config config = {.memory = &memory, .check_every = 1};
    const char *why;

    (void)state;
    ebb_memory_init(&memory);
    assert_int_equal(ebb_region_probe(&region, true, &why), 0);
    assert_int_equal(region.backing, EBB_BACKING_HUGETLB);
    assert_int_equal(region.page, HUGE);
    assert_int_equal(ebb_memory_add(&memory, &region), 0);
    pool = config.pool = ebb_discard_pool_new(1);
    discard = ebb_discard_new(&config);
    assert_non_null(discard);
    stamp();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ebb_discard_free(discard);
    ebb_discard_pool_free(pool);
    return 0;
}

static void ignore(void *ctx)
{
    (void)ctx;
}

static void run(enum ebb_discard_kind kind, uint64_t from, uint64_t len)
{
    const struct ebb_range range = {GPA + from, len};

    assert_int_equal(ebb_discard_submit(discard, kind, &range, 1, ignore, NULL), 0);
    ebb_discard_drain(discard);
}

static void test_reported(void **state)
{
    struct ebb_discard_stats stats;

    (void)state;
    assert_int_equal(taken(), PAGES * HUGE);
    run(EBB_DISCARD_REPORTED, HUGE / 2, 3 * HUGE);
    assert_int_equal(taken(), (PAGES - 2) * HUGE);
    assert_int_equal(map[5], 1);
    assert_int_equal(map[3 * HUGE + 5], 1);
    ebb_discard_get_stats(discard, &stats);
    assert_int_equal(stats.discarded_bytes, 2 * HUGE);
    assert_int_equal(stats.not_bytes[EBB_DISCARD_PARTIAL], HUGE);
    assert_int_equal(stats.not_bytes[EBB_DISCARD_RESIDENT], 0);
    assert_int_equal(stats.calls, 1);
}

/* Inflation by frames of 4 KiB gives a huge page back. */
static void test_inflated(void **state)
{
    struct ebb_discard_stats stats;

    (void)state;
    for (unsigned i = 0; i < HUGE / EBB_FRAME_SIZE; i++) {
        assert_int_equal(taken(), PAGES * HUGE);
        run(EBB_DISCARD_INFLATED, HUGE + (i * 77 % 512) * EBB_FRAME_SIZE, EBB_FRAME_SIZE);
    }
    assert_int_equal(taken(), (PAGES - 1) * HUGE);
    assert_int_equal(map[HUGE + 5], 0);
    ebb_discard_get_stats(discard, &stats);
    assert_int_equal(stats.gathered_bytes, 0);
    assert_int_equal(stats.calls, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reported, setup, teardown),
        cmocka_unit_test_setup_teardown(test_inflated, setup, teardown),
    };

    const unsigned before = overcommit(PAGES);
    int failed = 77;

    if (get_huge_pages())
        failed = cmocka_run_group_tests(tests, NULL, NULL);
    else
        fprintf(stderr,
                "SKIP: no %u huge pages of 2 MiB: %s (echo %u > /proc/sys/vm/nr_hugepages)\n",
                PAGES, strerror(errno), PAGES);
    overcommit(before);
    return failed;
}
