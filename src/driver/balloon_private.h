/* SPDX-License-Identifier: BSD-2-Clause */
/* What balloon.c has for balloon_start.c. */
#ifndef EBB_DRIVER_BALLOON_PRIVATE_H
#define EBB_DRIVER_BALLOON_PRIVATE_H

#include <ebb/balloon.h>

/* Bits of balloon->events. */
#define EBB__EVENT_CONFIG 1u

/* DMA memory: a page for each ring, and one for the buffers. */
#define EBB__DMA_PAGE    4096u
#define EBB__DMA_BUFFERS (EBB_BALLOON_QUEUES * EBB__DMA_PAGE)

extern const struct ebb_report_device_ops ebb__balloon_report_ops;

/* Returns when the device says that it is reset, or -EBB_ETIMEDOUT. */
int ebb__balloon_reset(struct ebb_transport *t);

#endif
