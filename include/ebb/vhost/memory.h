/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory as a device sees it: a table of regions, and the only ways from a guest address
 * to a byte of the host or of a file. Hosted (libc, Linux).
 *
 * The table owns nothing: whoever adds a region keeps its mapping and its descriptor until the
 * region is out of the table and no discard of it is under way (ebb_discard_drain()).
 *
 * Not thread-safe: the table changes and is read by one thread, its device's. Discards work on
 * copies of regions.
 *
 * The table cannot protect anyone from a peer that shrinks a file behind its mapping: a touch of
 * such memory is a SIGBUS. And a touch of a hole in a file allocates a page of it, charged to this
 * process: who only wants to know what is there calls ebb_memory_read().
 */
#ifndef EBB_VHOST_MEMORY_H
#define EBB_VHOST_MEMORY_H

#include <ebb/types.h>

/* As many as QEMU has slots for, and more than any guest was seen to have. */
#define EBB_MEMORY_REGIONS 512u

/* The largest page of a region: the largest huge page that there is. */
#define EBB_MEMORY_PAGE_LIMIT ((uint64_t)1 << 34)

/* What a region is made of: which system call makes the host take it back, and of which pages. */
enum ebb_backing {
    EBB_BACKING_NONE = 0, /* nothing does (ebb_region_probe() says why) */
    EBB_BACKING_ANON,     /* private anonymous memory of this process: madvise(MADV_DONTNEED) */
    EBB_BACKING_SHARED,   /* memfd, shmem, a file mapped shared: fallocate(PUNCH_HOLE) on the fd */
    EBB_BACKING_HUGETLB,  /* the same, on hugetlbfs */
    EBB_BACKINGS,
};

struct ebb_region {
    uint64_t gpa;    /* guest-physical address; a multiple of 4096 */
    uint64_t size;   /* bytes; a multiple of 4096, not 0; gpa + size at most 2^64 - 4096 */
    void *host;      /* where all of it is mapped in this process; NULL: it is not. A multiple of
                      * 4096; the mapping ends below 2^63 */
    int fd;          /* of its file; -1: none */
    uint64_t offset; /* of its first byte in that file; a multiple of 4096; offset + size at most
                      * 2^63 - 1. Any, if there is no file */
    uint64_t user;   /* the address by which a vhost-user front-end calls it; user + size does not
                      * wrap. Without a front-end: any, say 0. Such ranges may overlap */
    uint64_t page;   /* bytes that can only be discarded together; a power of two, 4096 to
                      * EBB_MEMORY_PAGE_LIMIT. They count from the beginning of the file, or are
                      * host addresses */
    enum ebb_backing backing; /* ANON needs a host address, SHARED and HUGETLB an fd */
};

struct ebb_memory {
    unsigned n;
    uint64_t changes; /* regions that came or went so far: who remembers anything by guest or file
                       * address compares it */
    struct ebb_region regions[EBB_MEMORY_REGIONS]; /* by gpa, without overlaps */
};

/*
 * Fill in `page` and `backing` of a region whose host, fd, offset and size are set, by looking at
 * the file system of the fd; without an fd it is private anonymous memory at `host`. `shared`: the
 * mapping (of the front-end, if it is another process) is shared. A private mapping of a file is
 * EBB_BACKING_NONE, since punching the file would take nothing from the pages that were copied, and
 * would destroy what others map. So is a file that is open for reading only, or sealed, and one on
 * a file system that cannot punch holes: that is tried, a megabyte behind the file's end (not on
 * tmpfs and hugetlbfs, which can). 0, or a
 * negative errno if the file cannot be examined; -EBB_ERANGE: the file ends before the region does,
 * so that using the mapping could raise SIGBUS. *why (static storage): NULL, or why the region will
 * not give memory back.
 *
 * Transparent huge pages do not count: parts of them can be discarded. Private anonymous memory of
 * huge pages (MAP_HUGETLB) cannot be told from other memory: set `page` afterwards.
 */
EBB_MUST_CHECK int ebb_region_probe(struct ebb_region *region, bool shared, const char **why);

/* An empty table, to begin with; later ebb_memory_clear() makes it empty. */
void ebb_memory_init(struct ebb_memory *memory);

/*
 * Add a copy of the region.
 * -EBB_EINVAL: a field is out of its bounds. -EBB_EEXIST: it overlaps one that is there, in guest
 * addresses. -EBB_ENOSPC: there are EBB_MEMORY_REGIONS.
 */
EBB_MUST_CHECK int ebb_memory_add(struct ebb_memory *memory, const struct ebb_region *region);

/* Take out the region with exactly this gpa and size; *region gets it. -EBB_ENOENT: none. */
EBB_MUST_CHECK int ebb_memory_remove(struct ebb_memory *memory, uint64_t gpa, uint64_t size,
                                     struct ebb_region *region);

/* Take out all regions. */
void ebb_memory_clear(struct ebb_memory *memory);

/* The region that gpa lies in; NULL: none. Valid until the table changes. */
const struct ebb_region *ebb_memory_find(const struct ebb_memory *memory, uint64_t gpa);

/*
 * The host address of [gpa, gpa + len), if all of it lies in one region that is mapped; else NULL,
 * for len 0 too, and when gpa + len wraps. `memory` is a struct ebb_memory: this is an
 * ebb_ring_translate (ring.h).
 */
void *ebb_memory_at(void *memory, uint64_t gpa, uint64_t len);

/* Bytes of memory behind all regions: what is at several guest addresses, as it is the same part of
 * one file, counts once. Asks the files which they are; 0 regions: 0. */
uint64_t ebb_memory_bytes(const struct ebb_memory *memory);

/*
 * Copy the len bytes at gpa to `to`, once. True if all of them lie in one region that can be read;
 * false, too, for len 0. Of a region that is discarded by its file (EBB_BACKING_SHARED, HUGETLB)
 * the file is read, which allocates nothing and ends well where the file was cut; others through
 * their mapping.
 */
EBB_MUST_CHECK bool ebb_memory_read(const struct ebb_memory *memory, uint64_t gpa, void *to,
                                    size_t len);

/* ebb_memory_at() by the addresses of a vhost-user front-end, by which it calls its rings. Where
 * regions overlap by these, the first by gpa that has all of the range. */
void *ebb_memory_by_user(void *memory, uint64_t user, uint64_t len);

#endif
