/* SPDX-License-Identifier: BSD-2-Clause */
/* Discards of real huge pages, if the host has some: of 2 MiB, or with the word 1G of 1 GiB. */
#include <ebb/vhost/discard.h>

#include <errno.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define GPA   ((uint64_t)1 << 30)
#define BATCH 512u /* ranges */

/* The kernel may be asked to find some for as long as this takes: 2 MiB when they are wanted, 1 GiB
 * now. */
static const struct kind {
    uint64_t size;
    unsigned pages, flag;
    const char *name, *found_by;
} kinds[] = {
    {(uint64_t)2 << 20, 4, MFD_HUGE_2MB, "2 MiB", "hugepages-2048kB/nr_overcommit_hugepages"},
    {(uint64_t)1 << 30, 2, MFD_HUGE_1GB, "1 GiB", "hugepages-1048576kB/nr_hugepages"},
};

static const struct kind *kind;
static uint64_t huge, all; /* bytes of one, and of those that the test takes */
static int fd;
static uint8_t *map;
static struct ebb_memory memory;
static struct ebb_discard_pool *pool;
static struct ebb_discard *discard;

/* Let the kernel find so many more, or fewer. */
static void find_more(int more)
{
    char path[128];
    FILE *file;
    int now;

    snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/%s", kind->found_by);
    file = fopen(path, "r+");
    if (!file)
        return;
    if (fscanf(file, "%d", &now) == 1 && now + more >= 0) {
        rewind(file);
        fprintf(file, "%d\n", now + more);
    }
    fclose(file);
}

static void on_signal(int number)
{
    find_more(-(int)kind->pages); /* rather than lose memory, whatever stdio thinks of it */
    _exit(128 + number);
}

/* False: there are none to have. */
static bool get_huge_pages(void)
{
    fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | kind->flag);
    if (fd < 0 || ftruncate(fd, (off_t)(all)) != 0)
        return false;
    /* Reserves the pages, so that to touch them cannot fail. */
    map = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
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
    for (unsigned i = 0; i < kind->pages; i++)
        map[i * huge + 5] = 1;
}

static int setup(void **state)
{
    struct ebb_region region = {.gpa = GPA, .size = all, .host = map, .fd = fd};
    struct ebb_discard_config config = {.memory = &memory, .check_every = 1};
    const char *why;

    (void)state;
    ebb_memory_init(&memory);
    assert_int_equal(ebb_region_probe(&region, true, &why), 0);
    assert_int_equal(region.backing, EBB_BACKING_HUGETLB);
    assert_int_equal(region.page, huge);
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

static void run(enum ebb_discard_kind what, const struct ebb_range *ranges, unsigned n)
{
    assert_int_equal(ebb_discard_submit(discard, what, ranges, n, UINT64_MAX, ignore, NULL), 0);
    ebb_discard_drain(discard);
}

static void test_reported(void **state)
{
    const struct ebb_range range = {GPA + huge / 2, all - huge / 2};
    struct ebb_discard_stats stats;

    (void)state;
    assert_int_equal(taken(), all);
    run(EBB_DISCARD_REPORTED, &range, 1);
    assert_int_equal(taken(), huge);
    assert_int_equal(map[5], 1);
    ebb_discard_get_stats(discard, &stats);
    assert_int_equal(stats.discarded_bytes, all - huge);
    assert_int_equal(stats.not_bytes[EBB_DISCARD_PARTIAL], huge / 2);
    assert_int_equal(stats.not_bytes[EBB_DISCARD_RESIDENT], 0);
    assert_int_equal(stats.calls, 1);
}

/* Inflation by frames of 4 KiB, in no order, gives a huge page back. */
static void test_inflated(void **state)
{
    const uint64_t frames = huge / EBB_FRAME_SIZE;
    struct ebb_range ranges[BATCH];
    struct ebb_discard_stats stats;

    (void)state;
    for (uint64_t i = 0; i < frames; i += BATCH) {
        for (unsigned k = 0; k < BATCH; k++)
            ranges[k] = (struct ebb_range){GPA + huge + (i + k) * 77 % frames * EBB_FRAME_SIZE,
                                           EBB_FRAME_SIZE};
        run(EBB_DISCARD_INFLATED, ranges, BATCH - 1);
        assert_int_equal(taken(), all);
        run(EBB_DISCARD_INFLATED, &ranges[BATCH - 1], 1);
    }
    assert_int_equal(taken(), all - huge);
    assert_int_equal(map[huge + 5], 0);
    ebb_discard_get_stats(discard, &stats);
    assert_int_equal(stats.gathered_bytes, 0);
    assert_int_equal(stats.calls, 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reported, setup, teardown),
        cmocka_unit_test_setup_teardown(test_inflated, setup, teardown),
    };
    int failed = 77;

    kind = &kinds[argc > 1 && strcmp(argv[1], "1G") == 0];
    huge = kind->size;
    all = kind->pages * huge;
    signal(SIGTERM, on_signal);
    find_more((int)kind->pages);
    if (get_huge_pages()) {
        failed = cmocka_run_group_tests(tests, NULL, NULL);
        munmap(map, all);
    } else {
        fprintf(stderr, "SKIP: no %u huge pages of %s: %s. Discards of these were NOT tested\n",
                kind->pages, kind->name, strerror(errno));
    }
    if (fd >= 0)
        close(fd);
    find_more(-(int)kind->pages);
    return failed;
}
