/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A load like a build: on each CPU one compiler after the other, a process that
 * takes memory page by page, computes, writes an object file to a tmpfs, and
 * ends. Then a linker reads all object files and takes twice as much; then all of
 * it is deleted.
 */
#include "linux.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SMALLEST     (16u * 256) /* pages of a compiler */
#define LARGEST      (96u * 256)
#define OBJECT_SHARE 16u  /* an object file is so small a part of it */
#define TURNS        2000 /* of computing, for each page */

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t pages_of(unsigned job)
{
    return SMALLEST + mix(job + 1) % (LARGEST - SMALLEST);
}

static uint64_t object_pages(unsigned job)
{
    return pages_of(job) / OBJECT_SHARE;
}

static void name_of(char *path, size_t room, unsigned job)
{
    snprintf(path, room, FILES "/%u.o", job);
}

static uint64_t *take(uint64_t pages)
{
    void *base =
        mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return base == MAP_FAILED ? NULL : base;
}

static uint64_t *word(uint64_t *base, uint64_t page)
{
    return base + page * (PAGE / sizeof(uint64_t));
}

/* What a page of this job holds. */
static uint64_t computed(unsigned job, uint64_t page)
{
    uint64_t z = mix((uint64_t)job << 32 | page);

    for (unsigned i = 0; i < TURNS; i++)
        z = z * 6364136223846793005u + 1442695040888963407u;
    return z;
}

static void check(const uint64_t *found, unsigned job, uint64_t page)
{
    uint64_t expect = mix((uint64_t)job << 32 | page);

    if (found[1] != expect)
        telemetry_fault(page, expect, found[1]);
}

static bool write_object(const uint64_t *base, unsigned job)
{
    size_t size = object_pages(job) * PAGE;
    char path[64];
    int fd;
    bool ok;

    name_of(path, sizeof(path), job);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ok = fd >= 0 && write(fd, base, size) == (ssize_t)size;
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool compile(unsigned job)
{
    uint64_t pages = pages_of(job);
    uint64_t *base = take(pages);

    if (!base)
        return false;
    for (uint64_t i = 0; i < pages; i++) {
        word(base, i)[1] = mix((uint64_t)job << 32 | i);
        word(base, i)[0] = computed(job, i);
    }
    for (uint64_t i = 0; i < pages; i++)
        check(word(base, i), job, i);
    count_checks(pages);
    return write_object(base, job);
}

/* In a process of its own, which is waited for. */
static bool in_process(bool (*fn)(unsigned), unsigned argument)
{
    pid_t pid = fork();
    int status = 1;

    if (pid == 0)
        _exit(fn(argument) ? 0 : 1);
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static unsigned all_jobs;

static bool compile_on(unsigned cpu)
{
    pin(cpu);
    for (unsigned job = cpu; job < all_jobs; job += cpus)
        if (!in_process(compile, job))
            return false;
    return true;
}

static bool compile_all(void)
{
    pid_t makers[CPUS_MAX];
    bool ok = true;

    for (unsigned cpu = 0; cpu < cpus; cpu++) {
        makers[cpu] = fork();
        if (makers[cpu] == 0)
            _exit(compile_on(cpu) ? 0 : 1);
    }
    for (unsigned cpu = 0; cpu < cpus; cpu++) {
        int status = 1;

        ok &= makers[cpu] > 0 && waitpid(makers[cpu], &status, 0) == makers[cpu] && status == 0;
    }
    return ok;
}

/* Reads an object into memory, and makes as much again of it. */
static bool read_object(uint64_t *into, unsigned job)
{
    uint64_t pages = object_pages(job);
    char path[64];
    int fd;
    bool ok;

    name_of(path, sizeof(path), job);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    ok = fd >= 0 && read(fd, into, pages * PAGE) == (ssize_t)(pages * PAGE);
    if (fd >= 0)
        close(fd);
    for (uint64_t i = 0; ok && i < pages; i++) {
        check(word(into, i), job, i);
        word(into, pages + i)[0] = computed(job, i);
    }
    count_checks(pages);
    return ok;
}

static bool link_all(unsigned jobs)
{
    uint64_t pages = 0, *at;

    for (unsigned job = 0; job < jobs; job++)
        pages += 2 * object_pages(job);
    telemetry_hold(pages);
    at = take(pages);
    for (unsigned job = 0; at && job < jobs; job++) {
        if (!read_object(at, job))
            return false;
        at = word(at, 2 * object_pages(job));
    }
    telemetry_release(pages);
    return at != NULL;
}

static void delete_all(void)
{
    char path[64];

    for (unsigned job = 0; job < all_jobs; job++) {
        name_of(path, sizeof(path), job);
        unlink(path);
    }
}

enum status compile_run(unsigned jobs)
{
    uint64_t begin = now_ns();
    bool ok;

    all_jobs = jobs;
    ok = files_mount() && compile_all() && in_process(link_all, jobs);
    delete_all();
    if (!ok)
        printf("compile: memory ran short\n");
    else
        telemetry_line("result ns=%lu step=compile jobs=%u elapsed_ns=%lu", now_ns(), jobs,
                       now_ns() - begin);
    return ok ? STATUS_OK : STATUS_USAGE;
}
