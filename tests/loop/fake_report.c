/* SPDX-License-Identifier: BSD-2-Clause */
/* The engine's stand-in: keeps the contract of report.h, and looks whether the
 * driver does. See loop.h. */
#include "loop.h"

#include <stdio.h>
#include <stdlib.h>

#define BATCH_MAX EBB_REPORT_CAPACITY_LIMIT

struct fake_report fake_report;
static struct ebb_range batch[BATCH_MAX];

int ebb_report_register(struct ebb_report *report, struct ebb_report_device *device)
{
    (void)report;
    if (fake_report.register_error)
        return fake_report.register_error;
    if (fake_report.device)
        return -EBB_EBUSY;
    fake_report.device = device;
    return 0;
}

int ebb_report_unregister(struct ebb_report *report)
{
    (void)report;
    if (!fake_report.device)
        return -EBB_ENODEV;
    for (unsigned i = 0; fake_report.in_flight; i++) {
        if (i == 1000000) {
            fprintf(stderr, "unregister waits for ever\n");
            abort();
        }
        fake_report.device->ops->poll(fake_report.device);
        ebb_port_relax();
    }
    fake_report.device = NULL;
    fake_report.unregisters++;
    return 0;
}

void ebb_report_complete(struct ebb_report *report, int status)
{
    if (!fake_report.in_flight || report != &fake_report.report) {
        fake_report.stray++;
        return;
    }
    fake_report.in_flight = false;
    fake_report.completions++;
    fake_report.status = status;
    fake_report.seen_status = loop.model.status;
    ebb_port_wake(NULL);
}

int fake_submit(uint64_t addr, uint64_t bytes, unsigned n)
{
    int err;

    if (n > BATCH_MAX)
        abort();
    for (unsigned i = 0; i < n; i++)
        batch[i] = (struct ebb_range){.addr = addr + i * bytes, .len = bytes};
    fake_report.in_flight = true;
    err = fake_report.device->ops->submit(fake_report.device, batch, n);
    if (err)
        fake_report.in_flight = false;
    return err;
}
