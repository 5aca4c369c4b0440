/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the engine's tests share: up to two zones, an engine and a report device
 * that does as it is told, on the virtual port. The device checks on each batch
 * what must hold at that moment (I3, I7, I8, and the ranges themselves).
 */
#ifndef REPORT_RIG_H
#define REPORT_RIG_H

#include "port_virtual.h"

#include <ebb/history.h>
#include <ebb/report.h>
#include <ebb/zone.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MS         ((uint64_t)1000000)
#define RIG_ZONES  2u
#define RIG_BASE   0x4000u /* pfn of the first zone's first frame */
#define RIG_LOG    1024u   /* batches kept */
#define MAX_ORDER  6u      /* of the default zone, 1024 frames: 16 blocks */
#define PAGEBLOCK  5u
#define MAX_BLOCKS 16u
#define CAPACITY   16u

struct rig_batch {
    uint64_t at; /* ns */
    unsigned n;
    struct ebb_range *ranges;
};

struct rig {
    struct ebb_report report;
    struct ebb_history history;
    struct ebb_history_zone history_zones[RIG_ZONES];
    void *history_memory[RIG_ZONES];
    struct ebb_zone zones[RIG_ZONES];
    void *metadata[RIG_ZONES];
    uint8_t *told[RIG_ZONES]; /* by frame: the host was told, and nobody was seen to use it since */
    unsigned zone_count;
    bool registered;
    bool marked_by_hand; /* the test sets marks itself: rig_check() does not look at them */

    struct ebb_report_device device;
    bool later;                         /* complete when told (rig_complete), not inside submit */
    bool complete_on_poll;              /* in ops->poll */
    unsigned complete_times;            /* completions per batch; 0 means 1 */
    unsigned refuse_at;                 /* submit refuses this batch, counted from 1; 0: none */
    unsigned fail_at;                   /* this batch completes with an error */
    ebb_pfn_t bad_pfn;                  /* so does every batch that this block is in; 0: none */
    int error;                          /* for any of them */
    void (*on_submit)(struct rig *rig); /* before it completes */
    void *ctx;                          /* for on_submit */

    unsigned submits;     /* batches that came, refused ones included */
    unsigned joined;      /* ranges that were several blocks */
    uint64_t blocks_seen; /* blocks in all ranges */
    unsigned polls;
    unsigned depth; /* of submit, right now */
    bool in_flight;
    uint64_t due;            /* rig_pass: when the worker wants to be called again */
    unsigned wakes;          /* rig_pass: those that it has followed */
    struct rig_batch *batch; /* the last one */
    struct rig_batch log[RIG_LOG];
};

/* Zero means default. */
struct rig_config {
    unsigned zones;     /* 1 */
    uint64_t frames;    /* of each: 1024 */
    unsigned max_order; /* 6, pageblock_order 5 */
    unsigned pageblock_order;
    bool hole;                    /* leave the first 2^MAX_ORDER frames out for now */
    unsigned cpus;                /* 1 */
    unsigned pcp_high, pcp_batch; /* the zone's defaults */
    unsigned pcp_blocks;          /* none: what is freed is on a list at once */
    unsigned shuffle_order;       /* EBB_REPORT_ORDER(n) */
    uint64_t watermark_min, watermark_low;
    unsigned capacity;  /* of the device: 16, as many as the default zone has blocks */
    unsigned min_order; /* of the device, as EBB_REPORT_ORDER(n) */
    struct ebb_report_config report;
    /* If any of it is set: reporting as in 2019. */
    struct ebb_history_config history;
};

/* Make all of it, without registering the device. */
struct rig *rig_new(const struct rig_config *config);
/* Take it apart. Asserts that nothing is outstanding: no frame allocated or with
 * the device, every invariant whole. */
void rig_free(struct rig *rig);

void rig_register(struct rig *rig);
void rig_unregister(struct rig *rig);

/* Allocate and free past the caches. */
ebb_pfn_t rig_alloc(struct rig *rig, unsigned zone, unsigned order);
void rig_release(struct rig *rig, unsigned zone, ebb_pfn_t pfn, unsigned order);
/* Take every block of an order, to pfns[]; returns how many. */
unsigned rig_alloc_all(struct rig *rig, unsigned zone, unsigned order, ebb_pfn_t *pfns);
void rig_release_all(struct rig *rig, unsigned zone, unsigned order, const ebb_pfn_t *pfns,
                     unsigned n);

/* Run once, at the present time. */
uint64_t rig_run(struct rig *rig);
/* Let the time pass as it would: the worker runs when woken and at the times that it said. */
void rig_pass(struct rig *rig, uint64_t ns);
/* Let the time pass `ns` later, and run. */
uint64_t rig_run_after(struct rig *rig, uint64_t ns);
/* Run and let the time pass until the engine has nothing to do; returns the
 * number of passes. Fails if that takes more than 200 of them. */
unsigned rig_settle(struct rig *rig);
/* Register, and let the first pass report all there is; then forget the log. */
void rig_register_and_settle(struct rig *rig);

/* Complete the batch in flight. */
void rig_complete(struct rig *rig, int status);

/* Forget the batches seen. */
void rig_forget(struct rig *rig);
/* Blocks in all batches since; and how often this pfn's frame was in one. */
unsigned rig_reported_blocks(const struct rig *rig);
unsigned rig_times_reported(const struct rig *rig, ebb_pfn_t pfn);

/* What the zone says. */
struct ebb_block rig_block(struct rig *rig, unsigned zone, ebb_pfn_t pfn);
bool rig_is_reported(struct rig *rig, unsigned zone, ebb_pfn_t pfn);
struct ebb_zone_stats rig_zone_stats(struct rig *rig, unsigned zone);
struct ebb_report_stats rig_stats(struct rig *rig);
/* Free frames not marked, of blocks of at least this order, but ISOLATE. */
uint64_t rig_unreported_frames(struct rig *rig, unsigned zone, unsigned order);
/* Every level of ebb_zone_check() on every zone, and of each block marked reported
 * that the device succeeded with it (I4). */
void rig_check(struct rig *rig);

/* For groups: fail unless the test left the port as it found it. */
int rig_group_setup(void **state);
int rig_group_teardown(void **state);

#define rig_test(f) cmocka_unit_test_setup_teardown(f, rig_group_setup, rig_group_teardown)

#endif
