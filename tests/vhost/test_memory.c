/* SPDX-License-Identifier: BSD-2-Clause */
/* The region table, against its bounds and a plain list; and what files are told to be. */
#include <ebb/vhost/memory.h>

#include "loop/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
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

#define PAGE EBB_FRAME_SIZE
#define LAST (UINT64_MAX - PAGE + 1) /* the last frame there is */

static struct ebb_memory memory;
static uint8_t host[64 * 4096] __attribute__((aligned(4096)));

static int setup(void **state)
{
    (void)state;
    ebb_memory_init(&memory);
    return 0;
}

static struct ebb_region at(uint64_t gpa, uint64_t size)
{
    return (struct ebb_region){.gpa = gpa, .size = size, .fd = -1, .page = PAGE};
}

static int add(uint64_t gpa, uint64_t size)
{
    const struct ebb_region region = at(gpa, size);

    return ebb_memory_add(&memory, &region);
}

static void test_bounds(void **state)
{
    struct row {
        const char *what;
        int want;
        struct ebb_region region;
    };
    const struct row rows[] = {
        {"plain", 0, {.gpa = PAGE, .size = PAGE, .fd = -1, .page = PAGE}},
        {"empty", -EBB_EINVAL, {.gpa = PAGE, .size = 0, .fd = -1, .page = PAGE}},
        {"gpa unaligned", -EBB_EINVAL, {.gpa = 1, .size = PAGE, .fd = -1, .page = PAGE}},
        {"size unaligned", -EBB_EINVAL, {.gpa = PAGE, .size = 5000, .fd = -1, .page = PAGE}},
        {"up to the last frame", 0, {.gpa = PAGE, .size = LAST - PAGE, .fd = -1, .page = PAGE}},
        {"the last frame", -EBB_EINVAL, {.gpa = LAST, .size = PAGE, .fd = -1, .page = PAGE}},
        {"wraps", -EBB_EINVAL, {.gpa = LAST, .size = 3 * PAGE, .fd = -1, .page = PAGE}},
        {"user wraps", -EBB_EINVAL, {.size = PAGE, .user = LAST + 1, .fd = -1, .page = PAGE}},
        {"host unaligned", -EBB_EINVAL, {.size = PAGE, .host = host + 1, .fd = -1, .page = PAGE}},
        {"host too high",
         -EBB_EINVAL,
         {.size = PAGE, .host = (void *)(uintptr_t)INT64_MIN, .fd = -1, .page = PAGE}},
        {"offset unaligned", -EBB_EINVAL, {.size = PAGE, .fd = 0, .offset = 512, .page = PAGE}},
        {"no file, any offset", 0, {.size = PAGE, .fd = -1, .offset = 511, .page = PAGE}},
        {"offset too high",
         -EBB_EINVAL,
         {.size = PAGE, .fd = 0, .offset = INT64_MAX - PAGE + 1, .page = PAGE}},
        {"offset the highest",
         0,
         {.size = PAGE, .fd = 0, .offset = (uint64_t)INT64_MAX + 1 - 2 * PAGE, .page = PAGE}},
        {"no page", -EBB_EINVAL, {.size = PAGE, .fd = -1, .page = 0}},
        {"page too small", -EBB_EINVAL, {.size = PAGE, .fd = -1, .page = 2048}},
        {"page no power", -EBB_EINVAL, {.size = PAGE, .fd = -1, .page = 3 * PAGE}},
        {"page the largest", 0, {.size = PAGE, .fd = -1, .page = EBB_MEMORY_PAGE_LIMIT}},
        {"page too large",
         -EBB_EINVAL,
         {.size = PAGE, .fd = -1, .page = EBB_MEMORY_PAGE_LIMIT * 2}},
        {"anon unmapped", -EBB_EINVAL, {.size = PAGE, .fd = -1, .page = PAGE, .backing = 1}},
        {"shared without fd", -EBB_EINVAL, {.size = PAGE, .fd = -1, .page = PAGE, .backing = 2}},
        {"no backing", -EBB_EINVAL, {.size = PAGE, .fd = 1, .page = PAGE, .backing = 4}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const uint64_t before = memory.changes;
        const int got = ebb_memory_add(&memory, &rows[i].region);

        if (got != rows[i].want)
            fail_msg("%s: %d", rows[i].what, got);
        assert_int_equal(memory.n, got == 0);
        assert_int_equal(memory.changes - before, got == 0);
        ebb_memory_clear(&memory);
    }
}

static void test_overlaps(void **state)
{
    struct ebb_region out;

    (void)state;
    assert_int_equal(add(10 * PAGE, 10 * PAGE), 0);
    assert_int_equal(add(10 * PAGE, 10 * PAGE), -EBB_EEXIST);
    assert_int_equal(add(5 * PAGE, 6 * PAGE), -EBB_EEXIST);
    assert_int_equal(add(19 * PAGE, PAGE), -EBB_EEXIST);
    assert_int_equal(add(12 * PAGE, PAGE), -EBB_EEXIST);
    assert_int_equal(add(0, 100 * PAGE), -EBB_EEXIST);
    assert_int_equal(add(0, LAST), -EBB_EEXIST);
    assert_int_equal(add(20 * PAGE, PAGE), 0);
    assert_int_equal(add(5 * PAGE, 5 * PAGE), 0);
    assert_int_equal(memory.n, 3);

    assert_int_equal(ebb_memory_remove(&memory, 10 * PAGE, 9 * PAGE, &out), -EBB_ENOENT);
    assert_int_equal(ebb_memory_remove(&memory, 11 * PAGE, 9 * PAGE, &out), -EBB_ENOENT);
    assert_int_equal(ebb_memory_remove(&memory, 0, PAGE, &out), -EBB_ENOENT);
    assert_int_equal(ebb_memory_remove(&memory, 10 * PAGE, 10 * PAGE, &out), 0);
    assert_int_equal(out.gpa, 10 * PAGE);
    assert_int_equal(memory.n, 2);
    assert_int_equal(memory.changes, 4);
    assert_null(ebb_memory_find(&memory, 10 * PAGE));
    assert_int_equal(add(10 * PAGE, 10 * PAGE), 0);
}

static void test_full(void **state)
{
    (void)state;
    /* From above and below in turn, so that both ways of moving are tried. */
    for (uint64_t i = 0; i < EBB_MEMORY_REGIONS; i++)
        assert_int_equal(add((i % 2 ? 2000 - i : i) * 2 * PAGE, PAGE), 0);
    assert_int_equal(add(10000 * PAGE, PAGE), -EBB_ENOSPC);
    assert_int_equal(memory.n, EBB_MEMORY_REGIONS);
    for (unsigned i = 1; i < memory.n; i++)
        assert_true(memory.regions[i - 1].gpa < memory.regions[i].gpa);
}

static void test_at(void **state)
{
    struct ebb_region a = at(16 * PAGE, 4 * PAGE), b = at(20 * PAGE, 4 * PAGE);
    const struct ebb_region unmapped = at(24 * PAGE, PAGE);

    (void)state;
    a.host = host;
    b.host = host + 4 * PAGE;
    assert_int_equal(ebb_memory_add(&memory, &a), 0);
    assert_int_equal(ebb_memory_add(&memory, &b), 0);
    assert_int_equal(ebb_memory_add(&memory, &unmapped), 0);

    assert_ptr_equal(ebb_memory_at(&memory, 16 * PAGE, 1), host);
    assert_ptr_equal(ebb_memory_at(&memory, 16 * PAGE, 4 * PAGE), host);
    assert_ptr_equal(ebb_memory_at(&memory, 20 * PAGE - 1, 1), host + 4 * PAGE - 1);
    assert_ptr_equal(ebb_memory_at(&memory, 23 * PAGE + 8, PAGE - 8), host + 7 * PAGE + 8);
    assert_null(ebb_memory_at(&memory, 16 * PAGE, 0));
    assert_null(ebb_memory_at(&memory, 16 * PAGE, 4 * PAGE + 1)); /* in the next region */
    assert_null(ebb_memory_at(&memory, 16 * PAGE, UINT64_MAX));
    assert_null(ebb_memory_at(&memory, 17 * PAGE, UINT64_MAX - 17 * PAGE + 2));
    assert_null(ebb_memory_at(&memory, 16 * PAGE - 1, 2));
    assert_null(ebb_memory_at(&memory, 24 * PAGE, 8));
    assert_null(ebb_memory_at(&memory, 25 * PAGE, 1));
    assert_null(ebb_memory_at(&memory, UINT64_MAX, 1));
    assert_null(ebb_memory_at(&memory, 0, 1));
}

static void test_by_user(void **state)
{
    struct ebb_region a = at(16 * PAGE, 4 * PAGE), b = at(64 * PAGE, 4 * PAGE);

    (void)state;
    a.host = host;
    a.user = 0x7f0000000000;
    b.host = host + 4 * PAGE;
    b.user = a.user - b.size;
    assert_int_equal(ebb_memory_add(&memory, &a), 0);
    assert_int_equal(ebb_memory_add(&memory, &b), 0);

    assert_ptr_equal(ebb_memory_by_user(&memory, a.user, 4 * PAGE), host);
    assert_ptr_equal(ebb_memory_by_user(&memory, b.user + 16, 16), host + 4 * PAGE + 16);
    assert_null(ebb_memory_by_user(&memory, a.user, 4 * PAGE + 1));
    assert_null(ebb_memory_by_user(&memory, a.user - 1, 2));
    assert_null(ebb_memory_by_user(&memory, a.user, 0));
    assert_null(ebb_memory_by_user(&memory, a.user + 8, UINT64_MAX - 7));
    assert_null(ebb_memory_by_user(&memory, 16 * PAGE, 1));
}

/* What is read: all of it, once, of one region; by the file where it is discarded by the file. */
static void test_read(void **state)
{
    const int fd = memfd_create("memory", MFD_CLOEXEC);
    struct ebb_region mapped = at(16 * PAGE, 4 * PAGE), filed = at(32 * PAGE, 4 * PAGE);
    struct ebb_region neither = at(64 * PAGE, 4 * PAGE);
    uint8_t bytes[64];
    struct stat st;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 5 * PAGE), 0);
    mapped.host = host;
    filed.fd = fd;
    filed.offset = PAGE;
    filed.backing = EBB_BACKING_SHARED;
    assert_int_equal(ebb_memory_add(&memory, &mapped), 0);
    assert_int_equal(ebb_memory_add(&memory, &filed), 0);
    assert_int_equal(ebb_memory_add(&memory, &neither), 0);

    memset(host, 7, sizeof(bytes));
    assert_true(ebb_memory_read(&memory, 16 * PAGE, bytes, sizeof(bytes)));
    assert_memory_equal(bytes, host, sizeof(bytes));
    assert_int_equal(pwrite(fd, "word", 4, 2 * PAGE - 2), 4);
    assert_true(ebb_memory_read(&memory, 33 * PAGE - 2, bytes, 4));
    assert_memory_equal(bytes, "word", 4);
    assert_int_equal(fstat(fd, &st), 0);
    memset(bytes, 7, sizeof(bytes));
    assert_true(ebb_memory_read(&memory, 36 * PAGE - 32, bytes, 32)); /* never used */
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(bytes[i], 0);
    {
        const blkcnt_t before = st.st_blocks;

        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_blocks, before);
    }

    assert_false(ebb_memory_read(&memory, 16 * PAGE, bytes, 0));
    assert_false(ebb_memory_read(&memory, 20 * PAGE - 4, bytes, 5));
    assert_false(ebb_memory_read(&memory, 36 * PAGE - 4, bytes, 5));
    assert_false(ebb_memory_read(&memory, 64 * PAGE, bytes, 1));
    assert_false(ebb_memory_read(&memory, UINT64_MAX, bytes, 2));
    assert_int_equal(ftruncate(fd, 5 * PAGE - 4), 0);
    assert_true(ebb_memory_read(&memory, 36 * PAGE - 8, bytes, 4));
    assert_false(ebb_memory_read(&memory, 36 * PAGE - 8, bytes, 5)); /* the file was cut */
    close(fd);
}

static void add_file(uint64_t gpa, uint64_t pages, int fd, uint64_t offset)
{
    struct ebb_region region = at(gpa, pages * PAGE);

    region.fd = fd;
    region.offset = offset * PAGE;
    assert_int_equal(ebb_memory_add(&memory, &region), 0);
}

/* What is at two guest addresses is one memory. */
static void test_bytes(void **state)
{
    const int a = memfd_create("a", MFD_CLOEXEC), b = memfd_create("b", MFD_CLOEXEC), c = dup(a);
    struct ebb_region here = at(96 * PAGE, 2 * PAGE);

    (void)state;
    assert_true(a >= 0 && b >= 0 && c >= 0);
    assert_int_equal(ebb_memory_bytes(&memory), 0);
    add_file(16 * PAGE, 8, a, 4);
    assert_int_equal(ebb_memory_bytes(&memory), 8 * PAGE);
    add_file(32 * PAGE, 8, c, 4); /* the same */
    assert_int_equal(ebb_memory_bytes(&memory), 8 * PAGE);
    add_file(48 * PAGE, 4, a, 6); /* a part of it */
    assert_int_equal(ebb_memory_bytes(&memory), 8 * PAGE);
    add_file(64 * PAGE, 4, a, 10); /* in part the same */
    assert_int_equal(ebb_memory_bytes(&memory), 10 * PAGE);
    add_file(0, 2, a, 0);
    assert_int_equal(ebb_memory_bytes(&memory), 12 * PAGE);
    add_file(80 * PAGE, 8, b, 4); /* another file */
    assert_int_equal(ebb_memory_bytes(&memory), 20 * PAGE);
    here.host = host;
    assert_int_equal(ebb_memory_add(&memory, &here), 0);
    assert_int_equal(ebb_memory_bytes(&memory), 22 * PAGE);
    assert_int_equal(add(112 * PAGE, PAGE), 0); /* nowhere */
    assert_int_equal(ebb_memory_bytes(&memory), 23 * PAGE);
    close(a);
    close(b);
    close(c);
}

/* A hole of huge pages: there need not be any. */
static void test_read_hugetlb(void **state)
{
    const uint64_t page = 2 << 20;
    const int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
    struct ebb_region region = at(0, 2 * page);
    uint64_t value = 1;
    struct stat st;
    const char *why;

    (void)state;
    if (fd < 0) {
        print_message("SKIP: no hugetlbfs of 2 MiB (%s)\n", strerror(errno));
        skip();
    }
    assert_int_equal(ftruncate(fd, 2 * (off_t)page), 0);
    region.fd = fd;
    assert_int_equal(ebb_region_probe(&region, true, &why), 0);
    assert_int_equal(ebb_memory_add(&memory, &region), 0);
    assert_true(ebb_memory_read(&memory, page - 4, &value, sizeof(value)));
    assert_int_equal(value, 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_blocks, 0);
    close(fd);
}

/* Regions come and go at random; a byte for each frame says whose it is. */
static void test_random(void **state)
{
    enum { WORLD = 256 };
    struct rng rng = {rng_seed(1)};
    uint8_t owner[WORLD] = {0};

    (void)state;
    print_message("EBB_SEED=%llu\n", (unsigned long long)rng_current);
    for (unsigned step = 0; step < 5000; step++) {
        const unsigned first = rng_below(&rng, WORLD), n = 1 + rng_below(&rng, WORLD - first);
        const unsigned frames = n > 12 ? 1 + n % 12 : n;
        struct ebb_region out;
        bool clear = true;

        for (unsigned i = first; i < first + frames; i++)
            clear = clear && owner[i] == 0;
        if (rng_below(&rng, 2)) {
            assert_int_equal(add(first * PAGE, frames * PAGE), clear ? 0 : -EBB_EEXIST);
            for (unsigned i = first; clear && i < first + frames; i++)
                owner[i] = (uint8_t)(i == first ? frames : frames + 100);
        } else {
            const int got = ebb_memory_remove(&memory, first * PAGE, frames * PAGE, &out);

            assert_int_equal(got, owner[first] == frames ? 0 : -EBB_ENOENT);
            for (unsigned i = first; got == 0 && i < first + frames; i++)
                owner[i] = 0;
        }
        for (unsigned i = 0; i < WORLD; i++)
            assert_int_equal(ebb_memory_find(&memory, i * PAGE + 5) != NULL, owner[i] != 0);
    }
}

/* ---- probe ---- */

static int memfd(unsigned flags, uint64_t size)
{
    const int fd = memfd_create("memory", MFD_CLOEXEC | flags);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static void expect_probe(int fd, void *map, bool shared, enum ebb_backing want, uint64_t page)
{
    struct ebb_region region = at(0, 4 * PAGE);
    const char *why = "not set";

    region.fd = fd;
    region.host = map;
    assert_int_equal(ebb_region_probe(&region, shared, &why), 0);
    assert_int_equal(region.backing, want);
    assert_int_equal(why != NULL, want == EBB_BACKING_NONE);
    if (page > 0)
        assert_int_equal(region.page, page);
    if (want != EBB_BACKING_NONE)
        assert_int_equal(ebb_memory_add(&memory, &region), 0);
    ebb_memory_clear(&memory);
}

static void test_probe_memory(void **state)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    const int fd = memfd(MFD_ALLOW_SEALING, 4 * PAGE);
    char path[64];
    int reader;

    (void)state;
    expect_probe(-1, host, false, EBB_BACKING_ANON, page);
    expect_probe(-1, host, true, EBB_BACKING_NONE, 0);
    expect_probe(-1, NULL, false, EBB_BACKING_NONE, 0);
    expect_probe(fd, NULL, true, EBB_BACKING_SHARED, page);
    expect_probe(fd, host, true, EBB_BACKING_SHARED, page);
    expect_probe(fd, NULL, false, EBB_BACKING_NONE, 0);

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    reader = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(reader >= 0);
    expect_probe(reader, NULL, true, EBB_BACKING_NONE, 0);
    close(reader);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    expect_probe(fd, NULL, true, EBB_BACKING_SHARED, page);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
    expect_probe(fd, NULL, true, EBB_BACKING_NONE, 0);
    close(fd);
}

/* Only asks of what kind the file is: no huge page is needed for that. */
static void test_probe_hugetlb(void **state)
{
    const int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);

    (void)state;
    if (fd < 0) {
        print_message("SKIP: no hugetlbfs of 2 MiB (%s)\n", strerror(errno));
        skip();
    }
    assert_int_equal(ftruncate(fd, 4 << 20), 0);
    expect_probe(fd, NULL, true, EBB_BACKING_HUGETLB, 2 << 20);
    expect_probe(fd, NULL, false, EBB_BACKING_NONE, 0);
    close(fd);
}

static void test_probe_others(void **state)
{
    struct ebb_region region = at(0, 4 * PAGE);
    FILE *file = tmpfile();
    const char *why;
    bool punches;
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    expect_probe(ends[1], NULL, true, EBB_BACKING_NONE, 0);
    close(ends[0]);
    close(ends[1]);
    region.fd = ends[0];
    assert_int_equal(ebb_region_probe(&region, true, &why), -EBADF);

    assert_non_null(file);
    assert_int_equal(ftruncate(fileno(file), 4 * PAGE), 0);
    punches = fallocate(fileno(file), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) == 0;
    expect_probe(fileno(file), NULL, true, punches ? EBB_BACKING_SHARED : EBB_BACKING_NONE, 0);
    fclose(file);
}

/* Mapped memory behind a file's end is a trap. And nothing may happen to the file. */
static void test_probe_end(void **state)
{
    const int fd = memfd(0, 4 * PAGE);
    struct ebb_region region = at(0, 4 * PAGE);
    const char *why;
    char bytes[4] = "abc";

    (void)state;
    region.fd = fd;
    assert_int_equal(pwrite(fd, "abc", 3, 4 * PAGE - 3), 3);
    assert_int_equal(ebb_region_probe(&region, true, &why), 0);
    assert_int_equal(lseek(fd, 0, SEEK_END), 4 * PAGE);
    assert_int_equal(pread(fd, bytes, 3, 4 * PAGE - 3), 3);
    assert_string_equal(bytes, "abc");
    region.offset = PAGE;
    assert_int_equal(ebb_region_probe(&region, true, &why), -EBB_ERANGE);
    region.offset = UINT64_MAX - PAGE;
    assert_int_equal(ebb_region_probe(&region, true, &why), -EBB_ERANGE);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_bounds, setup),
        cmocka_unit_test_setup(test_overlaps, setup),
        cmocka_unit_test_setup(test_full, setup),
        cmocka_unit_test_setup(test_at, setup),
        cmocka_unit_test_setup(test_by_user, setup),
        cmocka_unit_test_setup(test_read, setup),
        cmocka_unit_test_setup(test_bytes, setup),
        cmocka_unit_test_setup(test_read_hugetlb, setup),
        cmocka_unit_test_setup(test_random, setup),
        cmocka_unit_test_setup(test_probe_memory, setup),
        cmocka_unit_test_setup(test_probe_hugetlb, setup),
        cmocka_unit_test_setup(test_probe_others, setup),
        cmocka_unit_test_setup(test_probe_end, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
