/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The smallest host: a balloon device inside a VMM. Memory of a guest, a pool that discards, a
 * device on both; and in place of a guest a driver that reports two blocks.
 */
#include <ebb/vhost/balloon_device.h>

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define GPA   0x40000000u /* where the guest's memory begins */
#define BYTES (64ull << 20)
#define RINGS GPA /* where the driver put its ring */
#define SIZE  64  /* of it, in entries */
#define QUEUE 2   /* reporting, for a driver that accepts nothing else */

struct vmm {
    int fd;   /* the guest's memory: a memfd */
    int wake; /* an eventfd of the VMM's loop */
    struct ebb_memory memory;
};

/* Interrupt the guest: here there is none to be interrupted. */
static void call(void *ctx, unsigned queue)
{
    (void)ctx;
    printf("queue %u: interrupt\n", queue);
}

/* From a thread of the pool: have the loop below go on. */
static void wake(void *ctx)
{
    (void)!eventfd_write(((struct vmm *)ctx)->wake, 1);
}

static unsigned long long resident_kib(const struct vmm *vmm)
{
    struct stat st;

    return fstat(vmm->fd, &st) == 0 ? (unsigned long long)st.st_blocks / 2 : 0;
}

/* The guest's memory: mapped shared, and in the table by its guest addresses. */
static int make_memory(struct vmm *vmm, void **host)
{
    struct ebb_region region = {.gpa = GPA, .size = BYTES};
    const char *why;

    vmm->fd = memfd_create("guest", MFD_CLOEXEC);
    vmm->wake = eventfd(0, EFD_CLOEXEC);
    if (vmm->fd < 0 || vmm->wake < 0 || ftruncate(vmm->fd, BYTES) != 0)
        return 1;
    *host = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, vmm->fd, 0);
    if (*host == MAP_FAILED)
        return 1;
    region.fd = vmm->fd;
    region.host = *host;
    if (ebb_region_probe(&region, true, &why) != 0)
        return 1;
    if (why)
        printf("this memory will not come back: %s\n", why);
    return ebb_memory_add(&vmm->memory, &region) != 0;
}

/* The VMM's loop, until the driver has its chains back. */
static void serve(struct ebb_balloon_device *device, const struct vmm *vmm,
                  struct ebb_ring_driver *driver)
{
    struct pollfd woken = {.fd = vmm->wake, .events = POLLIN};
    eventfd_t count;
    uint32_t len;
    void *chain;

    ebb_balloon_device_kick(device, QUEUE); /* the guest wrote to the doorbell */
    while (ebb_ring_driver_pending(driver) > 0 && poll(&woken, 1, 10000) == 1) {
        if (eventfd_read(vmm->wake, &count) != 0)
            return;
        while (ebb_balloon_device_work(device))
            ;
        while (ebb_ring_driver_get(driver, &chain, &len) > 0)
            printf("the %s block is back\n", (const char *)chain);
    }
}

/* What a driver does: accept features, lay out its ring, report 4 MiB and 8 MiB. */
static int drive(struct ebb_balloon_device *device, void *host, struct ebb_ring_driver *driver)
{
    static struct ebb_ring_slot slots[SIZE];
    static char names[2][8] = {"first", "second"};
    const struct ebb_ring_layout layout = ebb_ring_layout(SIZE);
    const struct ebb_balloon_device_vring vring = {
        .size = SIZE,
        .desc = RINGS + layout.desc,
        .avail = RINGS + layout.avail,
        .used = RINGS + layout.used,
    };
    const struct ebb_ring_buf blocks[] = {
        {.addr = GPA + (16 << 20), .len = 4 << 20, .write = true},
        {.addr = GPA + (32 << 20), .len = 8 << 20, .write = true},
    };

    if (ebb_balloon_device_accept(device, EBB_F_VERSION_1 | EBB_F_PAGE_REPORTING) != 0 ||
        ebb_ring_driver_init(driver, SIZE, host, slots) != 0 ||
        ebb_balloon_device_start(device, QUEUE, &vring) != 0)
        return 1;
    for (unsigned i = 0; i < 2; i++) {
        if (ebb_ring_driver_add(driver, &blocks[i], 1, names[i]) != 0)
            return 1;
    }
    return 0;
}

int main(void)
{
    static struct vmm vmm;
    static struct ebb_ring_driver driver;
    const struct ebb_balloon_device_ops ops = {.call = call, .wake = wake};
    struct ebb_discard_config discard = {.memory = &vmm.memory};
    struct ebb_balloon_device_config config = {.memory = &vmm.memory, .ops = &ops, .ctx = &vmm};
    struct ebb_balloon_device *device;
    unsigned long long before, after;
    void *host;

    ebb_memory_init(&vmm.memory);
    if (make_memory(&vmm, &host) != 0)
        return 1;
    discard.pool = ebb_discard_pool_new(0); /* one pool serves all VMs of a process */
    if (!discard.pool)
        return 1;
    config.discard = ebb_discard_new(&discard);
    if (!config.discard)
        return 1;
    device = ebb_balloon_device_new(&config);
    if (!device)
        return 1;

    memset(host, 1, BYTES); /* the guest has used all of its memory */
    before = resident_kib(&vmm);
    if (drive(device, host, &driver) != 0)
        return 1;
    serve(device, &vmm, &driver);
    after = resident_kib(&vmm);
    printf("resident: %llu KiB, then %llu KiB\n", before, after);

    ebb_balloon_device_free(device);
    ebb_discard_free(config.discard);
    ebb_discard_pool_free(discard.pool);
    return before - after == 12 << 10 ? 0 : 1;
}
