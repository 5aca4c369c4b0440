/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory on a memfd with a zone on it, and the report device that punches holes. */
#define _GNU_SOURCE
#include "ebb_hosted.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* What st_blocks counts in. */
#define STAT_BLOCK 512u

static void clear_frames(void *ctx, ebb_pfn_t pfn, uint64_t frames)
{
    memset(ebb_hosted_address(ctx, pfn), 0, (size_t)(frames << EBB_FRAME_SHIFT));
}

static void fill_frames(void *ctx, ebb_pfn_t pfn, uint64_t frames, uint32_t value)
{
    uint32_t *words = ebb_hosted_address(ctx, pfn);
    const uint64_t n = (frames << EBB_FRAME_SHIFT) / sizeof(*words);

    for (uint64_t i = 0; i < n; i++)
        words[i] = value;
}

static bool verify_frames(void *ctx, ebb_pfn_t pfn, uint64_t frames, uint32_t value)
{
    const uint32_t *words = ebb_hosted_address(ctx, pfn);
    const uint64_t n = (frames << EBB_FRAME_SHIFT) / sizeof(*words);
    uint32_t difference = 0;

    for (uint64_t i = 0; i < n; i++)
        difference |= words[i] ^ value;
    return difference == 0;
}

/* Of a zone's configuration, all that follows from where its frames are. */
static void complete_config(struct ebb_zone_config *config, struct ebb_hosted_memory *memory)
{
    config->frames = memory->bytes >> EBB_FRAME_SHIFT;
    config->clear = clear_frames;
    config->fill = fill_frames;
    /* Poison is there to be looked at. Zeroes are not: reading them would cost
     * memory for frames that nobody writes to. */
    config->verify = config->fill_policy == EBB_FILL_POISON ? verify_frames : NULL;
    config->clear_ctx = memory;
    config->added_filled = config->fill_policy == EBB_FILL_ZERO; /* a new memfd reads as zero */
}

static uint16_t online_cpus(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (cpus < 1)
        return 1;
    return cpus < (long)EBB_CPU_LIMIT ? (uint16_t)cpus : (uint16_t)EBB_CPU_LIMIT;
}

static int map_memory(struct ebb_hosted_memory *memory)
{
    void *map;

    memory->fd = memfd_create("ebb", MFD_CLOEXEC);
    if (memory->fd < 0)
        return -errno;
    if (ftruncate(memory->fd, (off_t)memory->bytes) != 0)
        return -errno;
    map = mmap(NULL, (size_t)memory->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory->fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    memory->map = map;
    return 0;
}

static int make_zone(struct ebb_hosted_memory *memory, const struct ebb_zone_config *config)
{
    void *metadata;
    int err;

    memory->metadata_bytes = ebb_zone_metadata_size(config);
    if (memory->metadata_bytes == 0)
        return -EBB_EINVAL;
    metadata = mmap(NULL, memory->metadata_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (metadata == MAP_FAILED)
        return -errno;
    memory->metadata = metadata;
    err = ebb_zone_init(&memory->zone, config, metadata);
    return err != 0 ? err : ebb_zone_add(&memory->zone, config->base, config->frames);
}

int ebb_hosted_memory_create(struct ebb_hosted_memory *memory, uint64_t bytes,
                             const struct ebb_zone_config *config)
{
    struct ebb_zone_config c = {0};
    int err;

    memset(memory, 0, sizeof(*memory));
    memory->fd = -1;
    if (bytes == 0 || bytes % EBB_FRAME_SIZE != 0 || bytes > INT64_MAX)
        return -EBB_EINVAL;
    memory->bytes = bytes;
    if (config)
        c = *config;
    complete_config(&c, memory);
    if (c.cpus == 0)
        c.cpus = online_cpus();
    err = map_memory(memory);
    if (err == 0)
        err = make_zone(memory, &c);
    if (err != 0)
        ebb_hosted_memory_destroy(memory);
    return err;
}

void ebb_hosted_memory_destroy(struct ebb_hosted_memory *memory)
{
    if (memory->metadata)
        munmap(memory->metadata, memory->metadata_bytes);
    if (memory->map)
        munmap(memory->map, (size_t)memory->bytes);
    if (memory->fd >= 0)
        close(memory->fd);
    memset(memory, 0, sizeof(*memory));
    memory->fd = -1;
}

void *ebb_hosted_address(const struct ebb_hosted_memory *memory, ebb_pfn_t pfn)
{
    return memory->map + ((pfn - memory->zone.first) << EBB_FRAME_SHIFT);
}

uint64_t ebb_hosted_resident(const struct ebb_hosted_memory *memory)
{
    struct stat st;

    if (fstat(memory->fd, &st) != 0)
        return UINT64_MAX;
    return (uint64_t)st.st_blocks * STAT_BLOCK;
}

/* ---- the device ---- */

static int by_address(const void *a, const void *b)
{
    const struct ebb_range *x = a, *y = b;

    return (x->addr > y->addr) - (x->addr < y->addr);
}

static int punch(struct ebb_hosted_device *device, const struct ebb_range *range)
{
    const struct ebb_hosted_memory *memory = device->memory;
    uint64_t start = memory->zone.first << EBB_FRAME_SHIFT;

    if (range->addr < start || range->addr - start > memory->bytes ||
        range->len > memory->bytes - (range->addr - start))
        return -EBB_ERANGE;
    __atomic_fetch_add(&device->punches, 1, __ATOMIC_RELAXED);
    if (fallocate(memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)(range->addr - start), (off_t)range->len) != 0)
        return -errno;
    return 0;
}

/* Punch all of a batch, ranges that touch at once. */
static int punch_batch(struct ebb_hosted_device *device, const struct ebb_range *ranges, unsigned n)
{
    struct ebb_range *sorted = device->sorted;
    struct ebb_range run;
    int err = 0;

    memcpy(sorted, ranges, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), by_address);
    run = sorted[0];
    for (unsigned i = 1; i < n && err == 0; i++) {
        if (sorted[i].addr == run.addr + run.len) {
            run.len += sorted[i].len;
            continue;
        }
        err = punch(device, &run);
        run = sorted[i];
    }
    return err != 0 ? err : punch(device, &run);
}

static int submit_inside(struct ebb_report_device *report_device, const struct ebb_range *ranges,
                         unsigned n)
{
    struct ebb_hosted_device *device = (struct ebb_hosted_device *)report_device;

    ebb_report_complete(device->report, punch_batch(device, ranges, n));
    return 0;
}

static int submit_to_thread(struct ebb_report_device *report_device, const struct ebb_range *ranges,
                            unsigned n)
{
    struct ebb_hosted_device *device = (struct ebb_hosted_device *)report_device;

    pthread_mutex_lock(&device->mutex);
    device->batch = ranges;
    device->batch_ranges = n;
    pthread_cond_signal(&device->wake);
    pthread_mutex_unlock(&device->mutex);
    return 0;
}

static const struct ebb_report_device_ops inside_ops = {.submit = submit_inside};
static const struct ebb_report_device_ops thread_ops = {.submit = submit_to_thread};

static void *serve(void *arg)
{
    struct ebb_hosted_device *device = arg;

    pthread_mutex_lock(&device->mutex);
    while (!device->stop) {
        const struct ebb_range *batch = device->batch;

        if (!batch) {
            pthread_cond_wait(&device->wake, &device->mutex);
            continue;
        }
        /* Cleared first: the next batch may come before ebb_report_complete() returns. */
        device->batch = NULL;
        pthread_mutex_unlock(&device->mutex);
        ebb_report_complete(device->report, punch_batch(device, batch, device->batch_ranges));
        pthread_mutex_lock(&device->mutex);
    }
    pthread_mutex_unlock(&device->mutex);
    return NULL;
}

int ebb_hosted_device_create(struct ebb_hosted_device *device, struct ebb_hosted_memory *memory,
                             struct ebb_report *report, unsigned flags)
{
    int err;

    if ((flags & ~(unsigned)EBB_HOSTED_THREAD) != 0)
        return -EBB_EINVAL;
    memset(device, 0, sizeof(*device));
    device->memory = memory;
    device->report = report;
    device->threaded = (flags & EBB_HOSTED_THREAD) != 0;
    device->device.ops = device->threaded ? &thread_ops : &inside_ops;
    device->device.capacity = EBB_REPORT_CAPACITY_LIMIT;
    device->device.content = EBB_CONTENT_VALUE; /* a hole reads as zero */
    device->device.value = 0;
    if (!device->threaded)
        return 0;
    pthread_mutex_init(&device->mutex, NULL);
    pthread_cond_init(&device->wake, NULL);
    err = pthread_create(&device->thread, NULL, serve, device);
    if (err != 0) {
        pthread_cond_destroy(&device->wake);
        pthread_mutex_destroy(&device->mutex);
    }
    return -err;
}

void ebb_hosted_device_destroy(struct ebb_hosted_device *device)
{
    if (!device->threaded)
        return;
    pthread_mutex_lock(&device->mutex);
    device->stop = true;
    pthread_cond_signal(&device->wake);
    pthread_mutex_unlock(&device->mutex);
    pthread_join(device->thread, NULL);
    pthread_cond_destroy(&device->wake);
    pthread_mutex_destroy(&device->mutex);
}
