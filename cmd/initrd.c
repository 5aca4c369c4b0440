/* SPDX-License-Identifier: BSD-2-Clause */
/* The archive is in cpio's "newc" format, which Linux's
 * Documentation/driver-api/early-userspace/buffer-format.rst describes. */
#include "initrd.h"

#include "cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODULE_NAME "modules/ebb_reporting.ko"
#define REGULAR     0100644u

/* An entry's content and its end are padded to 4 bytes. */
static void pad(FILE *to)
{
    while (ftell(to) % 4 != 0)
        putc(0, to);
}

static void put_header(FILE *to, const char *name, unsigned mode, unsigned size)
{
    /* ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check */
    fprintf(to, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 1u, mode, 0u, 0u, 1u,
            0u, size, 0u, 0u, 0u, 0u, (unsigned)strlen(name) + 1, 0u);
    fwrite(name, strlen(name) + 1, 1, to);
    pad(to);
}

static bool copy(FILE *to, FILE *from)
{
    char buffer[65536];
    size_t n;

    while ((n = fread(buffer, 1, sizeof(buffer), from)) > 0)
        fwrite(buffer, 1, n, to);
    return !ferror(from);
}

/* Returns 0, or an error; *path: the file that it is about. */
static int fill(FILE *to, const char *initrd, const char *module, const char **path)
{
    FILE *from = fopen(initrd, "re");
    struct stat st = {0};
    bool copied;

    *path = initrd;
    if (!from)
        return errno;
    copied = copy(to, from);
    fclose(from);
    if (!copied)
        return EIO;
    *path = module;
    from = fopen(module, "re");
    if (!from)
        return errno;
    pad(to);
    copied = fstat(fileno(from), &st) == 0 && S_ISREG(st.st_mode);
    put_header(to, MODULE_NAME, REGULAR, (unsigned)st.st_size);
    copied = copied && copy(to, from);
    fclose(from);
    pad(to);
    put_header(to, "TRAILER!!!", 0, 0);
    *path = "a file in memory";
    return !copied ? EINVAL : fflush(to) != 0 || ferror(to) ? EIO : 0;
}

int initrd_with_module(const char *initrd, const char *module)
{
    int fd = memfd_create("initrd", MFD_CLOEXEC);
    int copy_fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
    FILE *to = copy_fd >= 0 ? fdopen(copy_fd, "w") : NULL;
    const char *path = "a file in memory";
    int err = to ? fill(to, initrd, module, &path) : errno;

    if (to)
        fclose(to);
    else if (copy_fd >= 0)
        close(copy_fd);
    if (err == 0)
        return fd;
    cmd_error("%s: %s", path, strerror(err));
    if (fd >= 0)
        close(fd);
    return -1;
}
