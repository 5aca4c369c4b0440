/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory of a vhost-user session: regions come with a descriptor each, and are mapped here
 * because rings and buffers lie in them. The front-end chooses every number and the file.
 */
#include "vhost_user_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY_LIMIT ((uint64_t)1 << 46)

struct ebb__vu_memory *ebb__vu_memory_new(void)
{
    struct ebb__vu_memory *memory = calloc(1, sizeof(*memory));

    if (memory)
        ebb_memory_init(&memory->table);
    return memory;
}

static void unmap(struct ebb__vu_mapping *mapping)
{
    (void)munmap(mapping->base, mapping->len);
    (void)close(mapping->fd);
}

const char *ebb__vu_memory_note(const struct ebb__vu_memory *memory)
{
    const char *note = NULL;

    for (unsigned i = 0; i < memory->n && !note; i++)
        note = memory->mappings[i].note;
    return note;
}

void ebb__vu_memory_free(struct ebb__vu_memory *memory)
{
    if (!memory)
        return;
    for (unsigned i = 0; i < memory->n; i++)
        unmap(&memory->mappings[i]);
    free(memory);
}

void ebb__vu_memory_let_go(struct ebb_vhost_user *session)
{
    ebb__vu_memory_free(session->left);
    session->left = NULL;
    if (session->left_one.base)
        unmap(&session->left_one);
    session->left_one.base = NULL;
}

/* May guest memory be made of this file? NULL: it may. Only shmem and hugetlbfs have seals. */
static const char *file_refused(const struct ebb_vhost_user *session, int fd)
{
    const int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 && !session->config.any_file)
        return "guest memory that is neither shmem nor hugetlbfs";
    if (!ebb__vu_is_regular(fd))
        return "guest memory that is no regular file";
    if (session->config.sealed_only && (seals < 0 || !(seals & F_SEAL_SHRINK)))
        return "guest memory in a file that can be made shorter";
    return NULL;
}

static const char *region_refused(const struct ebb__vu_region *region)
{
    if (region->size == 0 || region->gpa % EBB_FRAME_SIZE != 0 ||
        region->size % EBB_FRAME_SIZE != 0 || region->offset % EBB_FRAME_SIZE != 0)
        return "a memory region that is not whole pages";
    if (region->gpa > UINT64_MAX - region->size || region->user > UINT64_MAX - region->size ||
        region->offset > INT64_MAX - region->size || region->size > INT64_MAX)
        return "a memory region that wraps";
    return NULL;
}

/*
 * Map the region of the file; its host address, or NULL with errno. The mapping begins and
 * ends at pages of the file, which are larger than the guest's on hugetlbfs.
 */
static void *map_file(struct ebb__vu_mapping *mapping, const struct ebb_region *region)
{
    const uint64_t page = region->page, begin = region->offset / page * page;
    const uint64_t end = (region->offset + region->size + page - 1) / page * page;
    void *base;

    mapping->len = end - begin;
    base = mmap(NULL, mapping->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, mapping->fd,
                (off_t)begin);
    if (base == MAP_FAILED)
        return NULL;
    (void)madvise(base, mapping->len, MADV_DONTDUMP);
    mapping->base = base;
    return mapping->base + (region->offset - begin);
}

/*
 * Take the message's i-th descriptor and map a region of it. What the front-end can change (seals,
 * the file's length) is looked at once, before the file is mapped; the size of its pages comes from
 * its file system, and cannot change.
 */
static int map_region(struct ebb_vhost_user *session, const struct ebb__vu_region *from, unsigned i,
                      struct ebb__vu_mapping *mapping, struct ebb_region *region)
{
    const char *refused = region_refused(from);
    int error;

    if (!refused)
        refused = file_refused(session, session->fds[i]);
    if (refused)
        return ebb__vu_refuse(session, EBB_EINVAL, refused);
    *mapping = (struct ebb__vu_mapping){
        .fd = session->fds[i], .gpa = from->gpa, .size = from->size, .user = from->user};
    *region = (struct ebb_region){.gpa = from->gpa,
                                  .size = from->size,
                                  .user = from->user,
                                  .offset = from->offset,
                                  .fd = mapping->fd};
    error = ebb_region_probe(region, true, &mapping->note);
    if (error == -EBB_ERANGE)
        return ebb__vu_refuse(session, EBB_ERANGE, "a memory region that its file does not cover");
    if (error < 0)
        return ebb__vu_refuse(session, -error, "a memory region that cannot be examined");
    region->host = map_file(mapping, region);
    if (!region->host)
        return ebb__vu_refuse(session, errno, "a memory region that cannot be mapped");
    (void)ebb__vu_take_fd(session, i);
    return 0;
}

/* Map the message's i-th descriptor and add it; all or nothing but the descriptor. */
static int add_region(struct ebb_vhost_user *session, struct ebb__vu_memory *memory,
                      const struct ebb__vu_region *from, unsigned i)
{
    const uint64_t limit =
        session->config.memory_limit ? session->config.memory_limit : MEMORY_LIMIT;
    struct ebb__vu_mapping mapping;
    struct ebb_region region;
    int error;

    if (from->size > limit - memory->bytes)
        return ebb__vu_refuse(session, EBB_ENOSPC,
                              "more guest memory than memory_limit, which is 64 TiB by default");
    error = map_region(session, from, i, &mapping, &region);
    if (error < 0)
        return error;
    error = ebb_memory_add(&memory->table, &region);
    if (error < 0) {
        unmap(&mapping);
        return ebb__vu_refuse(session, -error,
                              error == -EBB_EEXIST ? "memory regions that overlap"
                                                   : "a memory region that cannot be");
    }
    memory->mappings[memory->n++] = mapping;
    memory->bytes += region.size;
    return 0;
}

/* The session's memory becomes `to`, and `to` what was the session's. */
static void swap_memory(struct ebb_vhost_user *session, struct ebb__vu_memory *to)
{
    struct ebb__vu_memory *memory = session->memory;
    struct ebb__vu_memory before;

    ebb__vu_queues_suspend(session);
    ebb__vu_forget(session);
    before = *memory;
    *memory = *to; /* in place: the device knows it by its address */
    *to = before;
    memory->table.changes += before.table.changes + 1; /* a number that it never had */
    ebb__vu_queues_resume(session);
}

int ebb__vu_set_mem_table(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    struct ebb__vu_memory *memory;
    struct ebb__vu_region region;
    uint32_t n;
    int error = 0;

    memcpy(&n, payload, sizeof(n));
    if (n > EBB__VU_REGIONS || size != 8 + n * sizeof(region))
        return ebb__vu_fail(session, EBB_EPROTO, "a message of the wrong size");
    if (session->n_fds != n)
        return ebb__vu_wrong_fds(session);
    memory = ebb__vu_memory_new();
    if (!memory)
        return ebb__vu_refuse(session, EBB_ENOMEM, "no memory");
    for (uint32_t i = 0; i < n && error == 0; i++) {
        memcpy(&region, (const char *)payload + 8 + i * sizeof(region), sizeof(region));
        error = add_region(session, memory, &region, i);
    }
    if (error == 0)
        swap_memory(session, memory);
    session->left = memory;
    return error;
}

static unsigned slots(const struct ebb_vhost_user *session)
{
    return session->config.memory_slots ? session->config.memory_slots : EBB_MEMORY_REGIONS;
}

int ebb__vu_get_max_mem_slots(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    (void)payload;
    (void)size;
    return ebb__vu_answer_u64(session, slots(session));
}

int ebb__vu_add_mem_reg(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    struct ebb__vu_region region;
    int error;

    (void)size;
    memcpy(&region, (const char *)payload + 8, sizeof(region));
    if (session->memory->n >= slots(session))
        return ebb__vu_refuse(session, EBB_ENOSPC, "more memory regions than slots");
    error = add_region(session, session->memory, &region, 0);
    if (error == 0)
        ebb__vu_queues_resume(session); /* those that this was missing for */
    return error;
}

/* A region is named by addresses and size; the offset, and a descriptor that some send, do not
 * matter. */
int ebb__vu_rem_mem_reg(struct ebb_vhost_user *session, const void *payload, uint32_t size)
{
    struct ebb__vu_memory *memory = session->memory;
    struct ebb__vu_region named;
    struct ebb_region region;
    unsigned i = 0;

    (void)size;
    memcpy(&named, (const char *)payload + 8, sizeof(named));
    while (i < memory->n &&
           (memory->mappings[i].gpa != named.gpa || memory->mappings[i].size != named.size ||
            memory->mappings[i].user != named.user))
        i++;
    if (i == memory->n)
        return ebb__vu_refuse(session, EBB_ENOENT, "a memory region that is not there");

    ebb__vu_queues_suspend(session);
    ebb__vu_forget(session);
    (void)!ebb_memory_remove(&memory->table, named.gpa, named.size, &region);
    session->left_one = memory->mappings[i];
    memory->bytes -= named.size;
    memory->mappings[i] = memory->mappings[--memory->n];
    ebb__vu_queues_resume(session);
    return 0;
}

/* Zeroes in the place of a mapping; shared memory does not count as data of the process. With as
 * many mappings as there may be, one cannot be replaced by one; it goes first then, and its place
 * is not taken from another thread that was quicker. */
static bool replace(const struct ebb__vu_mapping *mapping)
{
    const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE;

    if (mmap(mapping->base, mapping->len, prot, flags | MAP_FIXED, -1, 0) == mapping->base)
        return true;
    (void)munmap(mapping->base, mapping->len);
    return mmap(mapping->base, mapping->len, prot, flags | MAP_FIXED_NOREPLACE, -1, 0) ==
           mapping->base;
}

/*
 * On the session's thread, in a signal handler: nothing but what was computed before, mmap() and
 * munmap(). All of the mapping is replaced, so that it depends on the size of no page.
 */
enum ebb_vhost_user_fault ebb_vhost_user_fault(struct ebb_vhost_user *session, const void *addr)
{
    const struct ebb__vu_memory *memory = session ? session->memory : NULL;
    const int error = errno;

    for (unsigned i = 0; memory && i < memory->n; i++) {
        const struct ebb__vu_mapping *mapping = &memory->mappings[i];
        enum ebb_vhost_user_fault fault;

        if ((uintptr_t)addr - (uintptr_t)mapping->base >= mapping->len)
            continue;
        fault = replace(mapping) ? EBB_VHOST_USER_FAULT_MENDED : EBB_VHOST_USER_FAULT_LOST;
        errno = error;
        session->faulted = 1;
        return fault;
    }
    return EBB_VHOST_USER_FAULT_ELSEWHERE;
}
