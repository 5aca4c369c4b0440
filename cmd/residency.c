/* SPDX-License-Identifier: BSD-2-Clause */
/* Find the guest's memory in the VMM and see how much of it the host holds. */
#include "residency.h"
#include "cmd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A walk that takes longer does not fit between two quick samples. */
#define LONG_WALK_NS    (2 * CMD_MS)
#define WALK_NS_PER_KIB 10u
/* A walk is followed by this many times its length without one; a long one by
 * this time, and at least this many times its length, so that it takes 1 % of a
 * CPU at most and is rarely in the way when the guest frees its memory. */
#define WALK_REST       4u
#define LONG_WALK_REST  CMD_S
#define LONG_WALK_SHARE 100u

void residency_init(struct residency *residency, pid_t pid, enum backing backing, uint64_t bytes)
{
    *residency = (struct residency){
        .pid = pid, .backing = backing, .bytes = bytes, .fd = -1, .status_fd = -1};
}

void residency_close(struct residency *residency)
{
    if (residency->fd >= 0)
        close(residency->fd);
    if (residency->status_fd >= 0)
        close(residency->status_fd);
    residency->fd = residency->status_fd = -1;
}

static bool is_file(const struct residency *residency)
{
    return residency->backing == BACKING_MEMFD || residency->backing == BACKING_HUGETLB;
}

static int open_proc(pid_t pid, const char *name)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static bool find_memfd(struct residency *residency)
{
    char path[64], target[64];
    struct dirent *entry;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)residency->pid);
    dir = opendir(path);
    while (dir && residency->fd < 0 && (entry = readdir(dir))) {
        struct stat st;
        ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target));

        if (n < 7 || memcmp(target, "/memfd:", 7) != 0)
            continue;
        if (fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 &&
            (uint64_t)st.st_size == residency->bytes)
            residency->fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
    }
    if (dir)
        closedir(dir);
    return residency->fd >= 0;
}

/* "7f0000000000-7f0080000000 rw-p 00000000 00:00 0": private, anonymous memory
 * of the right size, that can be written and not executed. */
static bool is_guest_memory(const char *line, uint64_t bytes)
{
    uint64_t start, end, inode;
    char mode[5];

    return sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*s %*s %" SCNu64, &start, &end, mode,
                  &inode) == 4 &&
           end - start == bytes && strcmp(mode, "rw-p") == 0 && inode == 0;
}

static bool find_anonymous(struct residency *residency)
{
    int fd = open_proc(residency->pid, "maps");
    FILE *maps = fd >= 0 ? fdopen(fd, "r") : NULL;
    char line[512];
    bool found = false;

    if (!maps) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    while (!found && fgets(line, sizeof(line), maps))
        found = is_guest_memory(line, residency->bytes);
    fclose(maps);
    if (!found)
        return false;
    snprintf(residency->range, sizeof(residency->range), "%.*s ", (int)strcspn(line, " "), line);
    residency->fd = open_proc(residency->pid, "smaps");
    residency->status_fd = open_proc(residency->pid, "status");
    if (residency->fd >= 0 && residency->status_fd >= 0)
        return true;
    residency_close(residency);
    return false;
}

bool residency_find(struct residency *residency)
{
    if (residency->fd >= 0)
        return true;
    if (is_file(residency))
        return find_memfd(residency);
    return find_anonymous(residency);
}

/* Add the number behind "key:" in a line of smaps or status to *kib. */
static bool add_field(const char *line, const char *key, uint64_t *kib)
{
    size_t len = strlen(key);

    if (strncmp(line, key, len) != 0 || line[len] != ':')
        return false;
    *kib += strtoull(line + len + 1, NULL, 10);
    return true;
}

/*
 * Read a file of /proc line by line, from its start, until fn returns false.
 * In pieces, since the kernel computes what is read and no more.
 */
static bool each_line(int fd, bool (*fn)(void *ctx, const char *line), void *ctx)
{
    char buffer[4097];
    size_t have = 0;

    if (lseek(fd, 0, SEEK_SET) != 0)
        return false;
    for (;;) {
        ssize_t n = read(fd, buffer + have, sizeof(buffer) - 1 - have);
        char *line = buffer, *end;

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n == 0;
        have += (size_t)n;
        buffer[have] = '\0';
        while ((end = strchr(line, '\n'))) {
            *end = '\0';
            if (!fn(ctx, line))
                return true;
            line = end + 1;
        }
        have -= (size_t)(line - buffer);
        if (have == sizeof(buffer) - 1)
            have = 0; /* a line of 4 KiB: none that matters */
        memmove(buffer, line, have);
    }
}

struct smaps_search {
    const char *range;
    bool inside;
    uint64_t kib;
};

static bool smaps_line(void *ctx, const char *line)
{
    struct smaps_search *search = ctx;

    if (!search->inside) {
        search->inside = strncmp(line, search->range, strlen(search->range)) == 0;
        return true;
    }
    add_field(line, "Rss", &search->kib);
    return !add_field(line, "Swap", &search->kib);
}

struct status_search {
    unsigned found;
    uint64_t kib;
};

static bool status_line(void *ctx, const char *line)
{
    struct status_search *search = ctx;

    if (add_field(line, "RssAnon", &search->kib) || add_field(line, "VmSwap", &search->kib))
        search->found++;
    return search->found < 2;
}

/* All anonymous memory of the process. */
static bool read_process(struct residency *residency, uint64_t *kib)
{
    struct status_search search = {0, 0};

    if (!each_line(residency->status_fd, status_line, &search) || search.found < 2)
        return false;
    *kib = search.kib;
    return true;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/*
 * Walk the mapping. While the guest takes or frees memory the walk sees that of
 * several moments, but what the process held besides lies between what the
 * walk leaves of it as it was before and as it is after. A process that stands
 * still makes that exact.
 */
static bool read_exactly(struct residency *residency, uint64_t *kib)
{
    struct smaps_search search = {residency->range, false, 0};
    uint64_t start = cmd_now_ns(), before, after, low, high;

    if (!read_process(residency, &before) || !each_line(residency->fd, smaps_line, &search) ||
        !search.inside || !read_process(residency, &after))
        return false;
    low = minus(before < after ? before : after, search.kib);
    high = minus(before < after ? after : before, search.kib);
    if (residency->exact_end == 0)
        residency->other_kib = low + (high - low) / 2;
    else if (residency->other_kib < low)
        residency->other_kib = low;
    else if (residency->other_kib > high)
        residency->other_kib = high;
    residency->exact_end = cmd_now_ns();
    residency->exact_cost = residency->exact_end - start;
    residency->exact_kib = search.kib;
    *kib = minus(after, residency->other_kib);
    return true;
}

/* What a walk would take now: less or more than the last, with what is there. */
static uint64_t walk_cost(const struct residency *residency, uint64_t kib)
{
    if (kib >= residency->exact_kib)
        return residency->exact_cost + (kib - residency->exact_kib) * WALK_NS_PER_KIB;
    return (uint64_t)((double)residency->exact_cost * (double)kib / (double)residency->exact_kib);
}

bool residency_read(struct residency *residency, enum residency_care care, uint64_t *kib)
{
    uint64_t process, now = cmd_now_ns(), cost, rest;
    struct stat st;

    if (is_file(residency)) {
        if (fstat(residency->fd, &st) != 0)
            return false;
        *kib = (uint64_t)st.st_blocks / 2; /* of 512 bytes */
        return true;
    }
    if (residency->exact_end == 0 || care == RESIDENCY_EXACT)
        return read_exactly(residency, kib);
    if (!read_process(residency, &process))
        return false;
    *kib = minus(process, residency->other_kib);
    cost = walk_cost(residency, *kib);
    rest = WALK_REST * cost;
    if (cost > LONG_WALK_NS) /* 8 GiB take 80 ms: each 8 s */
        rest = cost * LONG_WALK_SHARE > LONG_WALK_REST ? cost * LONG_WALK_SHARE : LONG_WALK_REST;
    if ((care == RESIDENCY_QUICK && cost > LONG_WALK_NS) || now - residency->exact_end < rest)
        return true;
    return read_exactly(residency, kib);
}
