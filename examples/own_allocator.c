/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An allocator that is not ebb's gives its memory back: own_source.c has it, here it is used. 256
 * MiB are allocated, and most of it freed in a random order; the frames that stay in use are all
 * over it, so that not one pageblock is free as a whole. Fails if less than 99 % of what was freed
 * comes back, or if a frame in use does not hold what was written to it.
 */
#define _GNU_SOURCE
#include "own_source.h"

#include <ebb_hosted.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PAGEBLOCKS 128u /* 256 MiB */
#define FRAMES     (PAGEBLOCKS * OWN_FRAMES)
#define KEPT       256u /* frames that stay in use */
#define WAIT_S     60u

/* ---- the report device: a hole in the memfd for each range ---- */

struct own_device {
    struct ebb_report_device device;
    struct ebb_report *report;
    const struct own_allocator *own;
};

static int submit(struct ebb_report_device *report_device, const struct ebb_range *ranges,
                  unsigned n)
{
    struct own_device *device = (struct own_device *)report_device;
    int status = 0;

    for (unsigned i = 0; i < n && status == 0; i++) {
        if (fallocate(device->own->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)ranges[i].addr, (off_t)ranges[i].len) != 0)
            status = -errno;
    }
    ebb_report_complete(device->report, status);
    return 0;
}

static const struct ebb_report_device_ops device_ops = {.submit = submit};

/* ---- the use of it ---- */

static ebb_pfn_t in_use[FRAMES];
static unsigned n_in_use;

static uint64_t *stamp_of(const struct own_allocator *own, ebb_pfn_t pfn)
{
    return own_address(own, pfn);
}

/* Allocate all frames there are, and write its number to each. */
static void allocate_all(struct own_allocator *own)
{
    ebb_pfn_t pfn;
    int err;

    while ((err = own_alloc(own, 0, &pfn)) != -EBB_ENOMEM) {
        if (err) {
            sched_yield(); /* the host has the last ones */
            continue;
        }
        *stamp_of(own, pfn) = pfn;
        in_use[n_in_use++] = pfn;
    }
}

static void free_all_but(struct own_allocator *own, unsigned n)
{
    while (n_in_use > n) {
        unsigned i = (unsigned)random() % n_in_use;

        own_free(own, in_use[i], 0);
        in_use[i] = in_use[--n_in_use];
    }
}

static unsigned damaged(const struct own_allocator *own)
{
    unsigned n = 0;

    for (unsigned i = 0; i < n_in_use; i++)
        n += *stamp_of(own, in_use[i]) != in_use[i];
    return n;
}

/* Nanoseconds until no more than so many bytes are resident, or until WAIT_S have passed. */
static uint64_t wait_for(const struct own_allocator *own, uint64_t bytes)
{
    const uint64_t begin = ebb_port_now();
    uint64_t passed = 0;

    while (own_resident(own) > bytes && passed < WAIT_S * UINT64_C(1000000000)) {
        usleep(1000);
        passed = ebb_port_now() - begin;
    }
    return passed;
}

/* Returns whether enough came back and nothing was damaged. */
static bool use(struct own_allocator *own)
{
    const uint64_t freed = (uint64_t)(FRAMES - KEPT) * EBB_FRAME_SIZE;
    uint64_t before, target, waited;
    unsigned wrong;

    allocate_all(own);
    before = own_resident(own);
    target = before - freed / 100 * 99;
    free_all_but(own, KEPT);
    waited = wait_for(own, target);
    printf(
        "in use: %6llu KiB resident\nfreed:  %6llu KiB resident, 99 %% of it back after %llu ms\n",
        (unsigned long long)before >> 10, (unsigned long long)own_resident(own) >> 10,
        (unsigned long long)waited / 1000000);
    if (own_resident(own) > target) {
        printf("that is not 99 %%\n");
        return false;
    }
    wrong = damaged(own);
    allocate_all(own);
    wrong += damaged(own);
    printf("%u frames in use, %u damaged\n", n_in_use, wrong);
    return n_in_use == FRAMES && wrong == 0;
}

int main(void)
{
    static struct own_allocator own;
    static struct ebb_hosted_worker worker; /* a thread that runs the engine */
    static struct ebb_report report;        /* the engine */
    static struct own_device device = {
        .device = {.ops = &device_ops, .capacity = EBB_REPORT_CAPACITY_LIMIT},
        .report = &report,
        .own = &own,
    };
    const struct ebb_report_config config = {.worker = &worker};
    bool good;

    if (own_create(&own, PAGEBLOCKS) || ebb_report_init(&report, &config) ||
        ebb_report_add_source(&report, &own.source) || ebb_hosted_worker_start(&worker, &report) ||
        ebb_report_register(&report, &device.device))
        return 1;
    good = use(&own);
    if (ebb_report_unregister(&report))
        return 1;
    ebb_hosted_worker_stop(&worker);
    own_destroy(&own);
    return good ? 0 : 1;
}
