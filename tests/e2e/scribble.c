/* SPDX-License-Identifier: BSD-2-Clause */
/* For LD_PRELOAD: a QEMU that drops what it is told of, and then scribbles over it. So a guest that
 * told it of memory in use finds that out, and cannot be lucky with a page that reads as before. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void scribble(int fd, off_t offset, off_t len)
{
    static char garbage[65536];

    memset(garbage, 0xEB, sizeof(garbage));
    while (len > 0) {
        size_t n = len < (off_t)sizeof(garbage) ? (size_t)len : sizeof(garbage);

        if (pwrite(fd, garbage, n, offset) != (ssize_t)n)
            return;
        offset += (off_t)n;
        len -= (off_t)n;
    }
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    int result = (int)syscall(SYS_fallocate, fd, mode, offset, len);

    if (result == 0 && (mode & FALLOC_FL_PUNCH_HOLE))
        scribble(fd, offset, len);
    return result;
}

int fallocate64(int fd, int mode, off_t offset, off_t len)
{
    return fallocate(fd, mode, offset, len);
}
