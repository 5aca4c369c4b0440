/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ebb inside a process: a memory region with a zone on it, a report device that
 * punches holes into the region, and a worker thread for the engine. The port
 * functions (ebb/port.h) are in the same library.
 *
 * Order: memory, engine (ebb_report_init with .worker = &worker), worker,
 * device, ebb_report_register; at the end ebb_report_unregister, then the rest
 * in reverse. All objects are the caller's and stay in place meanwhile. Errors
 * are negative errno values, which are also ebb's.
 */
#ifndef EBB_HOSTED_H
#define EBB_HOSTED_H

#include <ebb/report.h>
#include <ebb/zone.h>

#include <pthread.h>

/* Memory on a memfd, mapped, and a zone that manages all of it. */
struct ebb_hosted_memory {
    struct ebb_zone zone;
    int fd;
    uint8_t *map;
    uint64_t bytes;
    void *metadata;
    size_t metadata_bytes;
};

/*
 * `bytes` is a multiple of 4096. `config` may be NULL; its frames, callbacks,
 * clear_ctx and added_filled are filled in here, and cpus, if 0, is the number of CPUs.
 * -EINVAL: bytes or config. Otherwise what memfd_create, ftruncate or mmap say.
 */
EBB_MUST_CHECK int ebb_hosted_memory_create(struct ebb_hosted_memory *memory, uint64_t bytes,
                                            const struct ebb_zone_config *config);
void ebb_hosted_memory_destroy(struct ebb_hosted_memory *memory);

/* Where the frame is mapped. The pfn must be one of the zone's. */
void *ebb_hosted_address(const struct ebb_hosted_memory *memory, ebb_pfn_t pfn);

/* Bytes of the region that the kernel holds memory for, now. */
uint64_t ebb_hosted_resident(const struct ebb_hosted_memory *memory);

/* A thread that calls ebb_report_run() when woken and when it is due. Started
 * before a device is registered with `report`, stopped after it was taken away.
 * Calls on a zone of that engine may still be under way then, and about to wake
 * it: that does nothing to a worker that was stopped, or could not be started. Only
 * when the last of them has returned may the worker be started again, or its memory
 * be used for something else. */
struct ebb_hosted_worker {
    struct ebb_report *report;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    bool woken;
    bool stop; /* or stopped */
};

EBB_MUST_CHECK int ebb_hosted_worker_start(struct ebb_hosted_worker *worker,
                                           struct ebb_report *report);
void ebb_hosted_worker_stop(struct ebb_hosted_worker *worker);

enum ebb_hosted_device_flags {
    EBB_HOSTED_THREAD = 1u << 0, /* complete from a thread of its own, not inside submit */
};

/* The report device of one memory. Ranges outside it are refused. What it was told
 * of reads as zero, so it is not for a zone with EBB_FILL_POISON. */
struct ebb_hosted_device {
    struct ebb_report_device device; /* to register */
    struct ebb_hosted_memory *memory;
    struct ebb_report *report;
    uint64_t punches; /* system calls so far; ranges that touch share one. Atomic */
    struct ebb_range sorted[EBB_REPORT_CAPACITY_LIMIT];
    /* With EBB_HOSTED_THREAD: */
    bool threaded;
    bool stop;
    const struct ebb_range *batch;
    unsigned batch_ranges;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
};

EBB_MUST_CHECK int ebb_hosted_device_create(struct ebb_hosted_device *device,
                                            struct ebb_hosted_memory *memory,
                                            struct ebb_report *report, unsigned flags);
void ebb_hosted_device_destroy(struct ebb_hosted_device *device);

#endif
