/* SPDX-License-Identifier: BSD-2-Clause */
/* The smallest embedding: take memory, use it, free it, and see the host get it back. */
#include <ebb_hosted.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(void)
{
    static struct ebb_hosted_memory memory; /* a memfd, and a zone of its frames */
    static struct ebb_hosted_worker worker; /* a thread that runs the engine */
    static struct ebb_hosted_device device; /* punches holes into the memfd */
    static struct ebb_report report;        /* the engine */
    const struct ebb_report_config config = {.worker = &worker};
    ebb_pfn_t pfn;

    if (ebb_hosted_memory_create(&memory, 128 << 20, NULL) || ebb_report_init(&report, &config) ||
        ebb_report_add_zone(&report, &memory.zone) || ebb_hosted_worker_start(&worker, &report) ||
        ebb_hosted_device_create(&device, &memory, &report, 0) ||
        ebb_alloc(&memory.zone, 10, EBB_MOVABLE, 0, &pfn) || /* 2^10 frames: 4 MiB */
        ebb_report_register(&report, &device.device))
        return 1;
    memset(ebb_hosted_address(&memory, pfn), 1, 4 << 20);
    printf("in use: %5llu KiB resident\n", (unsigned long long)ebb_hosted_resident(&memory) >> 10);

    if (ebb_free(&memory.zone, pfn, 10))
        return 1;
    for (int i = 0; i < 1000 && ebb_hosted_resident(&memory) > 0; i++)
        usleep(10000); /* the engine does the rest, 300 ms after the free */
    printf("freed:  %5llu KiB resident\n", (unsigned long long)ebb_hosted_resident(&memory) >> 10);
    if (ebb_report_unregister(&report) || ebb_hosted_resident(&memory) > 0)
        return 1;
    ebb_hosted_device_destroy(&device);
    ebb_hosted_worker_stop(&worker);
    ebb_hosted_memory_destroy(&memory);
    return 0;
}
