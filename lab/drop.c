/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The bare cost of giving memory back: take memory just as QEMU takes a guest's (`ebb run
 * --backing`), write to each page, then drop it in the chunks that a guest's reports name, and say
 * how long the dropping took. Nothing else is in the way: no guest, no ring, no exit.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PAGE       4096u
#define ALIGNMENT  ((uint64_t)2 << 20) /* QEMU's, of a guest's memory */
#define SIZE_MOST  ((uint64_t)64 << 30)
#define TIMES_MOST 100u

enum backing { BACKING_ANON, BACKING_THP, BACKING_MEMFD };
static const char *const backing_names[] = {"anon", "thp", "memfd"};

struct drop {
    enum backing backing;
    uint64_t size, chunk;
    int fd; /* of the memfd, else -1 */
    unsigned char *memory;
    uint64_t offset; /* of it in the memfd */
    uint64_t touch_ns, drop_ns, drop_cpu_ns, huge_kib;
};

static int fail(const char *what)
{
    fprintf(stderr, "drop: %s: %s\n", what, strerror(errno));
    return 4;
}

static uint64_t ns_of(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Bytes, with K, M or G. 0: no such thing. */
static uint64_t size_of(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    unsigned shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;

    if (end == text || (*end && (shift == 0 || end[1])) || n > SIZE_MOST >> shift)
        return 0;
    return n << shift;
}

/* As QEMU's memory-backend-ram (it asks for huge pages; `ebb run` forbids them to the process
 * with --backing anon) and memory-backend-memfd do it. */
static int take(struct drop *drop)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    unsigned char *memory;

    if (drop->backing == BACKING_MEMFD) {
        flags = MAP_SHARED;
        drop->fd = memfd_create("drop", MFD_CLOEXEC);
        if (drop->fd < 0 || ftruncate(drop->fd, (off_t)(drop->size + ALIGNMENT)) != 0)
            return fail("memfd");
    }
    if (drop->backing == BACKING_ANON && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0)
        return fail("PR_SET_THP_DISABLE");
    memory = mmap(NULL, drop->size + ALIGNMENT, PROT_READ | PROT_WRITE, flags, drop->fd, 0);
    if (memory == MAP_FAILED)
        return fail("cannot map so much");
    drop->offset = (ALIGNMENT - (uintptr_t)memory % ALIGNMENT) % ALIGNMENT;
    drop->memory = memory + drop->offset;
    /* QEMU does not look at the results either. */
    madvise(drop->memory, drop->size, MADV_MERGEABLE);
    if (drop->backing != BACKING_MEMFD)
        madvise(drop->memory, drop->size, MADV_HUGEPAGE);
    return 0;
}

/* Page after page: what a guest does is not slower for the host's page tables. */
static void touch(struct drop *drop)
{
    uint64_t begin = ns_of(CLOCK_MONOTONIC);

    for (uint64_t at = 0; at < drop->size; at += PAGE)
        *(volatile uint64_t *)(drop->memory + at) = at + 1;
    drop->touch_ns = ns_of(CLOCK_MONOTONIC) - begin;
}

static int drop_chunk(const struct drop *drop, uint64_t at)
{
    uint64_t size = drop->size - at < drop->chunk ? drop->size - at : drop->chunk;
    off_t offset = (off_t)(drop->offset + at);

    if (drop->backing != BACKING_MEMFD)
        return madvise(drop->memory + at, size, MADV_DONTNEED);
    return fallocate(drop->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, (off_t)size);
}

static int drop_all(struct drop *drop)
{
    uint64_t begin = ns_of(CLOCK_MONOTONIC), cpu = ns_of(CLOCK_PROCESS_CPUTIME_ID);

    for (uint64_t at = 0; at < drop->size; at += drop->chunk) {
        if (drop_chunk(drop, at) != 0)
            return fail("cannot drop");
    }
    drop->drop_ns = ns_of(CLOCK_MONOTONIC) - begin;
    drop->drop_cpu_ns = ns_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    return 0;
}

/* How much of the memory is in huge pages: whether it is what it should be. */
static uint64_t huge_kib(void)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    uint64_t kib = 0, found;
    char line[256];

    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "AnonHugePages: %" SCNu64, &found) == 1)
            kib = found;
    }
    if (file)
        fclose(file);
    return kib;
}

/* False: something is still there. */
static bool is_gone(const struct drop *drop)
{
    for (uint64_t at = 0; at < drop->size; at += drop->chunk) {
        if (*(volatile uint64_t *)(drop->memory + at) != 0)
            return false;
    }
    return true;
}

static int once(struct drop *drop, bool last)
{
    int status;

    touch(drop);
    drop->huge_kib = huge_kib();
    status = drop_all(drop);
    if (status)
        return status;
    printf("{\"touch_ms\": %.3f, \"drop_ms\": %.3f, \"drop_cpu_ms\": %.3f, \"huge_mib\": %" PRIu64
           "}%s",
           (double)drop->touch_ns / 1e6, (double)drop->drop_ns / 1e6,
           (double)drop->drop_cpu_ns / 1e6, drop->huge_kib >> 10, last ? "" : ", ");
    if (is_gone(drop))
        return 0;
    fprintf(stderr, "drop: what was dropped is still there\n");
    return 1;
}

static int run(struct drop *drop, unsigned times)
{
    int status = take(drop);

    if (status)
        return status;
    printf("{\"backing\": \"%s\", \"size_mib\": %" PRIu64 ", \"chunk_kib\": %" PRIu64
           ", \"times\": [",
           backing_names[drop->backing], drop->size >> 20, drop->chunk >> 10);
    for (unsigned i = 0; i < times && !status; i++)
        status = once(drop, i + 1 == times);
    printf("]}\n");
    return status;
}

static int usage(void)
{
    fprintf(stderr, "usage: drop anon|thp|memfd SIZE CHUNK [TIMES]\n"
                    "Take SIZE (with K, M or G), write to each page, drop it CHUNK by CHUNK "
                    "(whole pages), TIMES times;\nprints how long that took, as JSON.\n");
    return 2;
}

int main(int argc, char **argv)
{
    struct drop drop = {.fd = -1};
    unsigned backing = 0;
    uint64_t times = 1;

    if (argc < 4 || argc > 5)
        return usage();
    while (backing < 3 && strcmp(argv[1], backing_names[backing]) != 0)
        backing++;
    drop.backing = (enum backing)backing;
    drop.size = size_of(argv[2]);
    drop.chunk = size_of(argv[3]);
    if (argc == 5)
        times = size_of(argv[4]);
    if (backing == 3 || drop.size == 0 || drop.chunk == 0 || drop.size % PAGE ||
        drop.chunk % PAGE || times == 0 || times > TIMES_MOST)
        return usage();
    return run(&drop, (unsigned)times);
}
