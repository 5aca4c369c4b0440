/* SPDX-License-Identifier: BSD-2-Clause */
/* Checks of this machine before a run. */
#include "host.h"
#include "cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A number of KiB in /proc/meminfo; 0: not there. */
static uint64_t meminfo_kib(const char *key)
{
    FILE *file = fopen("/proc/meminfo", "re");
    size_t len = strlen(key);
    uint64_t kib = 0;
    char line[128];

    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, key, len) == 0 && line[len] == ':')
            kib = strtoull(line + len + 1, NULL, 10);
    }
    if (file)
        fclose(file);
    return kib;
}

bool host_check_memory(const char *option, uint64_t bytes, uint64_t besides)
{
    uint64_t available = meminfo_kib("MemAvailable") / 1024, needed = (bytes + besides) >> 20;

    if (available == 0 || needed <= available)
        return true;
    cmd_error("too little memory: %" PRIu64 " MiB need about %" PRIu64 " MiB on the host, %" PRIu64
              " MiB are available. Try a smaller %s.",
              bytes >> 20, needed, available, option);
    return false;
}

bool host_check_hugetlb(const char *option, uint64_t bytes)
{
    static const char path[] = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    FILE *file = fopen(path, "re");
    uint64_t pages = 0, needed = bytes >> 21;

    if (file) {
        if (fscanf(file, "%" SCNu64, &pages) != 1)
            pages = 0;
        fclose(file);
    }
    if (pages >= needed)
        return true;
    cmd_error("--backing hugetlb: %" PRIu64 " MiB need %" PRIu64
              " free huge pages of 2 MiB, there are %" PRIu64
              ". As root: `sysctl vm.nr_hugepages=%" PRIu64
              "`, or a smaller %s, or another backing.",
              bytes >> 20, needed, pages, needed, option);
    return false;
}

bool host_check_thp(void)
{
    static const char path[] = "/sys/kernel/mm/transparent_hugepage/enabled";
    FILE *file = fopen(path, "re");
    char line[128] = "";

    if (file) {
        if (!fgets(line, sizeof(line), file))
            line[0] = '\0';
        fclose(file);
    }
    if (strstr(line, "[always]") || strstr(line, "[madvise]"))
        return true;
    line[strcspn(line, "\n")] = '\0';
    cmd_error("--backing thp: this host has transparent huge pages off (%s: %s). "
              "Write madvise into that file, or choose another backing.",
              path, file ? line : "no such file");
    return false;
}

bool host_check_writable(const char *what, const char *path)
{
    struct stat st;
    char *copy;
    bool ok;

    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            errno = EISDIR;
        else if (access(path, W_OK) == 0)
            return true;
    } else if (errno == ENOENT) {
        copy = cmd_format("%s", path);
        ok = *path && path[strlen(path) - 1] != '/' && access(dirname(copy), W_OK | X_OK) == 0;
        free(copy);
        if (ok)
            return true;
    }
    cmd_error("%s: cannot write %s: %s", what, path, strerror(errno));
    return false;
}

bool host_write_file(const char *path, const char *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), error = 0;
    struct stat st;

    if (fd < 0)
        error = errno;
    while (!error && len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno != EINTR)
            error = errno;
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
    }
    if (fd >= 0) {
        bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
        if (close(fd) != 0 && !error)
            error = errno;
        if (error && regular)
            unlink(path);
    }
    if (error)
        cmd_error("cannot write %s: %s", path, strerror(error));
    return !error;
}

static bool is_program(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

char *host_find_program(const char *name)
{
    const char *path = getenv("PATH");

    if (strchr(name, '/'))
        return is_program(name) ? cmd_format("%s", name) : NULL;
    if (!path)
        path = "/usr/local/bin:/usr/bin:/bin";
    while (*path) {
        size_t len = strcspn(path, ":");
        char *file = cmd_format("%.*s/%s", (int)len, path, name);

        if (len > 0 && is_program(file))
            return file;
        free(file);
        path += len + (path[len] == ':');
    }
    return NULL;
}

/* What belongs to this program. Places are seen from its directory; up to NULL. */
static char *find_ours(const char *const *places, int access_mode)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *file;

    if (n < 0)
        return NULL;
    self[n] = '\0';
    for (size_t i = 0; places[i]; i++) {
        if (places[i][0] == '/')
            file = cmd_format("%s", places[i]);
        else
            file = cmd_format("%.*s/%s", (int)(strrchr(self, '/') - self), self, places[i]);
        if (access(file, access_mode) == 0)
            return file;
        free(file);
    }
    return NULL;
}

char *host_find_guest(bool history)
{
    /* Beside it, in a build tree, installed. */
    static const char *const plain[] = {"ebb-guest.elf", "../guest/ebb-guest.elf",
                                        EBB_GUESTS_INSTALLED "/ebb-guest.elf", NULL};
    static const char *const with_history[] = {"ebb-guest-history.elf",
                                               "../guest/ebb-guest-history.elf",
                                               EBB_GUESTS_INSTALLED "/ebb-guest-history.elf", NULL};

    return find_ours(history ? with_history : plain, R_OK);
}

char *host_find_ebbd(void)
{
    /* Its back end, for one guest: in a build tree; beside it; installed. */
    static const char *const places[] = {"ebbd-vm/ebbd-vm", "ebbd-vm", EBB_EBBD_VM_INSTALLED, NULL};

    return find_ours(places, X_OK);
}

char *host_find_passes(void)
{
    static const char *const places[] = {"ebb-passes", "../lab/ebb-passes", EBB_PASSES_INSTALLED,
                                         NULL};

    return find_ours(places, X_OK);
}

char *host_find_traces(void)
{
    /* A build tree lies in the source tree. */
    static const char *const places[] = {"../../lab/traces", EBB_TRACES_INSTALLED, NULL};

    return find_ours(places, X_OK);
}
