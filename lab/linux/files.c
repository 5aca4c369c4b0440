/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that the kernel holds for files: tmpfs, and the page cache of a disk. An eighth of each
 * file stays, and is checked again whenever all that is in use is.
 *
 * The disk may forget what is written to it: only what is in the page cache is read.
 */
#include "linux.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISK       "/dev/vda"
#define KEPT_SHARE 8u
#define AT_ONCE    256u /* pages */

/* Pages of a file that must be as they were written. */
static struct pages {
    int fd;
    uint64_t n, salt;
} tmpfs_kept = {.fd = -1}, cache_kept = {.fd = -1};

static uint64_t buffer[AT_ONCE * PAGE / sizeof(uint64_t)];

static uint64_t *word(uint64_t i)
{
    return &buffer[i * (PAGE / sizeof(uint64_t))];
}

static bool write_pages(const struct pages *file)
{
    for (uint64_t at = 0, n; at < file->n; at += n) {
        n = file->n - at < AT_ONCE ? file->n - at : AT_ONCE;
        for (uint64_t i = 0; i < n; i++)
            *word(i) = file->salt ^ (at + i);
        errno = EIO; /* if it is short */
        if (pwrite(file->fd, buffer, n * PAGE, (off_t)(at * PAGE)) != (ssize_t)(n * PAGE))
            return false;
    }
    return true;
}

static bool check_pages(const struct pages *file)
{
    for (uint64_t at = 0, n; file->fd >= 0 && at < file->n; at += n) {
        n = file->n - at < AT_ONCE ? file->n - at : AT_ONCE;
        errno = EIO;
        if (pread(file->fd, buffer, n * PAGE, (off_t)(at * PAGE)) != (ssize_t)(n * PAGE))
            return false;
        for (uint64_t i = 0; i < n; i++)
            if (*word(i) != (file->salt ^ (at + i)))
                telemetry_fault(at + i, file->salt ^ (at + i), *word(i));
        count_checks(n);
    }
    return true;
}

static enum status failed(const char *step, const char *what)
{
    printf("%s: %s: %s\n", step, what, strerror(errno));
    return STATUS_USAGE;
}

enum status files_check(void)
{
    if (!check_pages(&tmpfs_kept) || !check_pages(&cache_kept))
        return failed("verify", "cannot read a file");
    return errors_total() ? STATUS_VERIFY : STATUS_OK;
}

static void tell(const char *step, uint64_t pages, uint64_t kept)
{
    telemetry_release(pages - kept);
    printf("%s: %lu MiB freed, %lu MiB stay\n", step, (pages - kept) * PAGE_KIB / 1024,
           kept * PAGE_KIB / 1024);
}

static bool create(const char *path, struct pages *file)
{
    file->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    return file->fd >= 0 && write_pages(file);
}

/* What an earlier step kept goes first. */
static void let_go(struct pages *kept, const char *path)
{
    if (kept->fd < 0)
        return;
    if (path)
        unlink(path);
    close(kept->fd);
    telemetry_release(kept->n);
    kept->fd = -1;
}

bool files_mount(void)
{
    static bool mounted;

    mkdir(FILES, 0755);
    mounted = mounted || mount("tmpfs", FILES, "tmpfs", 0, "size=100%") == 0;
    return mounted;
}

enum status files_tmpfs(uint64_t pages)
{
    struct pages gone = {-1, pages - pages / KEPT_SHARE, now_ns()};

    if (!files_mount())
        return failed("tmpfs", "cannot mount it");
    let_go(&tmpfs_kept, FILES "/kept");
    if (!fits("tmpfs", pages))
        return STATUS_USAGE;
    tmpfs_kept = (struct pages){-1, pages / KEPT_SHARE, now_ns()};
    if (!create(FILES "/gone", &gone) || !create(FILES "/kept", &tmpfs_kept))
        return failed("tmpfs", "cannot write");
    telemetry_hold(pages);
    if (!check_pages(&gone) || !check_pages(&tmpfs_kept))
        return failed("tmpfs", "cannot read");
    unlink(FILES "/gone");
    close(gone.fd);
    tell("tmpfs", pages, tmpfs_kept.n);
    return errors_total() ? STATUS_VERIFY : STATUS_OK;
}

enum status files_cache(uint64_t pages)
{
    const uint64_t kept = pages / KEPT_SHARE;
    struct pages disk = {-1, pages, now_ns()};

    let_go(&cache_kept, NULL);
    if (!fits("cache", pages))
        return STATUS_USAGE;
    disk.fd = open(DISK, O_RDWR | O_CLOEXEC);
    if (disk.fd < 0)
        return failed("cache", DISK);
    if (!write_pages(&disk) || fsync(disk.fd) != 0)
        return failed("cache", "cannot write");
    telemetry_hold(pages);
    if (!check_pages(&disk))
        return failed("cache", "cannot read");
    errno = posix_fadvise(disk.fd, (off_t)(kept * PAGE), (off_t)((pages - kept) * PAGE),
                          POSIX_FADV_DONTNEED);
    if (errno)
        return failed("cache", "cannot drop");
    cache_kept = (struct pages){disk.fd, kept, disk.salt};
    tell("cache", pages, kept);
    return errors_total() ? STATUS_VERIFY : STATUS_OK;
}

/* For tests: a page of what is kept is lost. */
void files_corrupt(void)
{
    static const uint64_t nothing;
    const int fd = tmpfs_kept.fd >= 0 ? tmpfs_kept.fd : cache_kept.fd;

    if (fd >= 0)
        (void)!pwrite(fd, &nothing, sizeof(nothing), PAGE);
}
