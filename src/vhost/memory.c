/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of regions, and what their files are. */
#include <ebb/vhost/memory.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Where a hole is tried: so far behind a file's end that it will not have grown there. */
#define PROBE_DISTANCE ((uint64_t)1 << 20)

/* ---- the table ---- */

void ebb_memory_init(struct ebb_memory *memory)
{
    memset(memory, 0, sizeof(*memory));
}

/* size > 0, and [start, start + size) ends at `limit` at most. */
static bool ends_by(uint64_t start, uint64_t size, uint64_t limit)
{
    return size <= limit && start <= limit - size;
}

static bool aligned(uint64_t value)
{
    return value % EBB_FRAME_SIZE == 0;
}

static bool backing_ok(const struct ebb_region *region)
{
    switch (region->backing) {
    case EBB_BACKING_NONE:
        return true;
    case EBB_BACKING_ANON:
        return region->host != NULL;
    case EBB_BACKING_SHARED:
    case EBB_BACKING_HUGETLB:
        return region->fd >= 0;
    default:
        return false;
    }
}

static bool region_ok(const struct ebb_region *region)
{
    const uint64_t host = (uintptr_t)region->host;

    if (region->size == 0 || !aligned(region->size) || !aligned(region->gpa) || !aligned(host))
        return false;
    if (!ends_by(region->gpa, region->size, UINT64_MAX - EBB_FRAME_SIZE + 1) ||
        !ends_by(region->user, region->size, UINT64_MAX))
        return false;
    if (region->host && !ends_by(host, region->size, (uint64_t)1 << 63))
        return false;
    if (region->fd >= 0 &&
        (!aligned(region->offset) || !ends_by(region->offset, region->size, INT64_MAX)))
        return false;
    if (region->page < EBB_FRAME_SIZE || region->page > EBB_MEMORY_PAGE_LIMIT ||
        (region->page & (region->page - 1)) != 0)
        return false;
    return backing_ok(region);
}

/* How many regions begin at gpa or below. */
static unsigned count_from_below(const struct ebb_memory *memory, uint64_t gpa)
{
    unsigned low = 0, high = memory->n;

    while (low < high) {
        const unsigned middle = low + (high - low) / 2;

        if (memory->regions[middle].gpa <= gpa)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int ebb_memory_add(struct ebb_memory *memory, const struct ebb_region *region)
{
    const unsigned at = count_from_below(memory, region->gpa);
    struct ebb_region *slot = &memory->regions[at];

    if (!region_ok(region))
        return -EBB_EINVAL;
    if (at > 0 && region->gpa - slot[-1].gpa < slot[-1].size)
        return -EBB_EEXIST;
    if (at < memory->n && slot->gpa - region->gpa < region->size)
        return -EBB_EEXIST;
    if (memory->n == EBB_MEMORY_REGIONS)
        return -EBB_ENOSPC;

    memmove(slot + 1, slot, (memory->n - at) * sizeof(*slot));
    *slot = *region;
    memory->n++;
    memory->changes++;
    return 0;
}

int ebb_memory_remove(struct ebb_memory *memory, uint64_t gpa, uint64_t size,
                      struct ebb_region *region)
{
    const unsigned after = count_from_below(memory, gpa);
    struct ebb_region *slot;

    if (after == 0)
        return -EBB_ENOENT;
    slot = &memory->regions[after - 1];
    if (slot->gpa != gpa || slot->size != size)
        return -EBB_ENOENT;

    *region = *slot;
    memmove(slot, slot + 1, (memory->n - after) * sizeof(*slot));
    memory->n--;
    memory->changes++;
    return 0;
}

void ebb_memory_clear(struct ebb_memory *memory)
{
    memory->changes += memory->n;
    memory->n = 0;
}

const struct ebb_region *ebb_memory_find(const struct ebb_memory *memory, uint64_t gpa)
{
    const unsigned after = count_from_below(memory, gpa);
    const struct ebb_region *region;

    if (after == 0)
        return NULL;
    region = &memory->regions[after - 1];
    return gpa - region->gpa < region->size ? region : NULL;
}

/* len > 0 bytes from `from` bytes into the region on. */
static void *host_at(const struct ebb_region *region, uint64_t from, uint64_t len)
{
    if (!region->host || len == 0 || len > region->size - from)
        return NULL;
    return (uint8_t *)region->host + from;
}

void *ebb_memory_at(void *memory, uint64_t gpa, uint64_t len)
{
    const struct ebb_region *region = ebb_memory_find(memory, gpa);

    return region ? host_at(region, gpa - region->gpa, len) : NULL;
}

static bool read_file(const struct ebb_region *region, uint64_t from, uint8_t *to, size_t len)
{
    size_t have = 0;

    while (have < len) {
        const ssize_t n =
            pread(region->fd, to + have, len - have, (off_t)(region->offset + from + have));

        if (n == 0 || (n < 0 && errno != EINTR))
            return false;
        have += n > 0 ? (size_t)n : 0;
    }
    return true;
}

bool ebb_memory_read(const struct ebb_memory *memory, uint64_t gpa, void *to, size_t len)
{
    const struct ebb_region *region = ebb_memory_find(memory, gpa);
    const void *host;

    if (!region || len == 0 || len > region->size - (gpa - region->gpa))
        return false;
    if (region->backing == EBB_BACKING_SHARED || region->backing == EBB_BACKING_HUGETLB)
        return read_file(region, gpa - region->gpa, to, len);
    host = host_at(region, gpa - region->gpa, len);
    if (!host)
        return false;
    memcpy(to, host, len);
    /* The compiler may not go back to the original, which can have changed. */
    __asm__ volatile("" ::: "memory");
    return true;
}

void *ebb_memory_by_user(void *memory, uint64_t user, uint64_t len)
{
    const struct ebb_memory *table = memory;

    /* A search among all: rings are looked up when they are set up, no more often. */
    for (unsigned i = 0; i < table->n; i++) {
        const struct ebb_region *region = &table->regions[i];
        const uint64_t from = user - region->user;
        void *host = NULL;

        if (from < region->size)
            host = host_at(region, from, len);
        if (host)
            return host;
    }
    return NULL;
}

/* ---- how much there is ---- */

/* A part of a file, or of this process (device and file 0), or of a region that is nowhere. */
struct extent {
    uint64_t device, file, start, end;
};

static struct extent extent_of(const struct ebb_region *region)
{
    struct extent extent = {.start = region->host ? (uintptr_t)region->host : region->gpa};
    struct stat st;

    if (region->fd >= 0 && fstat(region->fd, &st) == 0)
        extent = (struct extent){st.st_dev, st.st_ino, region->offset, 0};
    else if (!region->host)
        extent.device = UINT64_MAX;
    extent.end = extent.start + region->size;
    return extent;
}

static int by_place(const void *a, const void *b)
{
    const struct extent *x = a, *y = b;

    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    return x->start < y->start ? -1 : x->start > y->start;
}

uint64_t ebb_memory_bytes(const struct ebb_memory *memory)
{
    struct extent extents[EBB_MEMORY_REGIONS];
    uint64_t bytes = 0, end = 0; /* of what was counted of this file */

    for (unsigned i = 0; i < memory->n; i++)
        extents[i] = extent_of(&memory->regions[i]);
    qsort(extents, memory->n, sizeof(extents[0]), by_place);
    for (unsigned i = 0; i < memory->n; i++) {
        const struct extent *extent = &extents[i];

        if (i == 0 || extent->device != extent[-1].device || extent->file != extent[-1].file)
            end = 0;
        if (extent->end > end)
            bytes += extent->end - (extent->start > end ? extent->start : end);
        end = extent->end > end ? extent->end : end;
    }
    return bytes;
}

/* ---- what a region is made of ---- */

static int probe_anonymous(struct ebb_region *region, bool shared, const char **why)
{
    if (!region->host)
        *why = "it is not mapped and has no file";
    else if (shared)
        *why = "it is shared memory without a file";
    else
        region->backing = EBB_BACKING_ANON;
    return 0;
}

/* Why a file of tmpfs or hugetlbfs takes no holes, or NULL. To try one would wait for whoever else
 * is at work on the file. */
static const char *no_hole_in_memory(int fd)
{
    const int mode = fcntl(fd, F_GETFL), seals = fcntl(fd, F_GET_SEALS);

    if (mode < 0 || (mode & O_ACCMODE) == O_RDONLY)
        return "its file is open for reading only";
    if (seals > 0 && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0)
        return "its file is sealed or immutable";
    return NULL;
}

/* Why the file of another file system takes none. The hole is where the file has no data. */
static const char *no_hole(int fd, uint64_t size)
{
    const uint64_t at = (size + 2 * PROBE_DISTANCE) & ~(PROBE_DISTANCE - 1);

    if (at > INT64_MAX - EBB_FRAME_SIZE)
        return NULL;
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, EBB_FRAME_SIZE) == 0)
        return NULL;
    switch (errno) {
    case EBADF:
        return "its file is open for reading only";
    case EPERM:
        return "its file is sealed or immutable";
    case ETXTBSY:
        return "its file is swap space";
    case EOPNOTSUPP:
    case ENOSYS:
        return "its file system cannot punch holes";
    default:
        return NULL; /* EFBIG, say: not known before it is tried in earnest */
    }
}

static int probe_file(struct ebb_region *region, const struct stat *st, const char **why)
{
    struct statfs fs;
    bool huge;

    if (fstatfs(region->fd, &fs) != 0)
        return -errno;
    huge = (unsigned long)fs.f_type == HUGETLBFS_MAGIC;
    if (huge || (unsigned long)fs.f_type == TMPFS_MAGIC)
        *why = no_hole_in_memory(region->fd);
    else
        *why = no_hole(region->fd, (uint64_t)st->st_size);
    if (huge)
        region->page = (uint64_t)fs.f_bsize;
    if (!*why)
        region->backing = huge ? EBB_BACKING_HUGETLB : EBB_BACKING_SHARED;
    return 0;
}

int ebb_region_probe(struct ebb_region *region, bool shared, const char **why)
{
    const long page = sysconf(_SC_PAGESIZE);
    struct stat st;

    *why = NULL;
    region->backing = EBB_BACKING_NONE;
    region->page = page > 0 ? (uint64_t)page : EBB_FRAME_SIZE;
    if (region->fd < 0)
        return probe_anonymous(region, shared, why);
    if (fstat(region->fd, &st) != 0)
        return -errno;
    if (S_ISREG(st.st_mode) && !ends_by(region->offset, region->size, (uint64_t)st.st_size))
        return -EBB_ERANGE;

    if (!S_ISREG(st.st_mode))
        *why = "its file is not a regular one";
    else if (!shared)
        *why = "it is a private mapping of a file";
    else
        return probe_file(region, &st, why);
    return 0;
}
