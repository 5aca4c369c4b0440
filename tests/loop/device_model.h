/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A balloon device in memory: an honest one, on ebb's device half of the ring,
 * with switches for what a host may do wrong. It implements the transport's ops,
 * so that a driver runs against it in the same process.
 */
#ifndef EBB_TESTS_DEVICE_MODEL_H
#define EBB_TESTS_DEVICE_MODEL_H

#include <ebb/ring.h>
#include <ebb/transport.h>
#include <ebb/virtio.h>

#define MODEL_QUEUES     8u
#define MODEL_RAM_BASE   0x40000000u
#define MODEL_RAM_BYTES  (256u * 1024)
#define MODEL_SPACE      ((uint64_t)1 << 40) /* guest-physical addresses end here */
#define MODEL_PFNS       65536u              /* pfns that the guest's balloon may hold */
#define MODEL_RANGES     512u
#define MODEL_STATUS_LOG 64u

struct model_queue {
    unsigned max;  /* what the device says */
    unsigned size; /* what the driver chose; 0: not set up */
    uint64_t desc, avail, used;
    struct ebb_ring_device ring;
    unsigned notified; /* times */
};

struct model {
    struct ebb_transport transport; /* first */
    uint8_t *ram;                   /* guest memory that is really there: for rings and buffers */

    /* What it is. */
    uint64_t offered;
    bool fixed_numbers;  /* number the queues as the specification does */
    bool count_accepted; /* else: dense, count what was accepted, not what was offered */

    /* What it does wrong. */
    bool silent;             /* takes nothing from any queue */
    bool stuck_in_reset;     /* status never reads 0 again */
    bool refuse_features_ok; /* FEATURES_OK never sticks */
    int setup_error;         /* of queue_setup */
    uint32_t reporting_len;  /* used length of reporting chains */
    uint32_t reading_len;    /* used length of chains that it reads */

    /* Told of each range that a report names, before the report is answered. */
    void (*on_range)(uint64_t addr, uint64_t len);

    /* Where it is. */
    uint8_t status;
    uint64_t accepted;
    uint8_t config[16];
    unsigned irq; /* causes not yet acknowledged */
    unsigned config_reads;
    struct model_queue queues[MODEL_QUEUES];
    bool stats_held;
    uint16_t stats_head;

    /* What it saw. */
    unsigned resets;
    uint8_t status_log[MODEL_STATUS_LOG];
    unsigned statuses;
    uint32_t poison_at_driver_ok;
    bool early_notify; /* a notification before DRIVER_OK */
    struct ebb_range ranges[MODEL_RANGES];
    unsigned range_count;
    uint64_t reported_bytes;
    unsigned reporting_chains;
    uint8_t ballooned[MODEL_PFNS / 8];
    unsigned balloon_size;
    unsigned bad_requests; /* pfns, ranges or buffers that made no sense */
    unsigned stats_buffers;
    unsigned stat_count;
    struct {
        uint16_t tag;
        uint64_t value;
    } stats[32];
};

/* With queues of QEMU's sizes, offering VERSION_1 and `features`. */
void model_init(struct model *model, uint64_t features);
void model_exit(struct model *model);

/* Serve all queues; returns how many chains went back. Sets model->irq. */
unsigned model_run(struct model *model);

/* Ask for statistics: give the buffer back. */
void model_poll_stats(struct model *model);

/* The host wants another size, in frames. */
void model_resize(struct model *model, uint32_t frames);

void model_needs_reset(struct model *model);

/* The queue that the specification gives the number `which`, or NULL. */
struct model_queue *model_queue(struct model *model, unsigned which);

uint32_t model_config32(const struct model *model, unsigned offset);

/* A guest address as the device sees it: ebb_ring_translate. */
void *model_translate(void *model, uint64_t gpa, uint64_t len);

/* Write a used element, whatever it says, and move the index. */
void model_raw_used(struct model *model, struct model_queue *queue, uint32_t id, uint32_t len);
/* Move the used index alone. */
void model_raw_used_idx(struct model *model, struct model_queue *queue, int by);

#endif
