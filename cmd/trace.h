/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Recorded allocation traces, format PFT1 (SPEC.md): a page allocator's requests
 * with their times, as a kernel saw them. Plain, or compressed with zstd.
 *
 * A trace that was read without error is consistent: every free names a block
 * that is live, no frame is freed twice, and times only grow.
 */
#ifndef TRACE_H
#define TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACE_ORDER_MAX   10u                 /* of a block */
#define TRACE_WORKLOAD    32u                 /* longest name */
#define TRACE_RECORDS_MAX (1u << 26)          /* 1 GiB of them */
#define TRACE_RAM_MAX     ((uint64_t)1 << 28) /* frames: 1 TiB */
#define TRACE_ERROR       160u

enum trace_op {
    TRACE_FREE = 0,
    TRACE_ALLOC = 1,
    TRACE_FREE_PART = 2, /* of a block: 2^order frames of it */
};

enum trace_type {
    TRACE_UNMOVABLE = 0,
    TRACE_MOVABLE = 1,
    TRACE_RECLAIMABLE = 2,
    TRACE_HIGHATOMIC = 3,
};

struct trace_record {
    uint64_t us; /* since the first record */
    uint32_t id; /* of the block: 0, 1, 2, ... in the order of their allocation */
    uint8_t op;
    uint8_t order;
    uint8_t type; /* of an allocation: enum trace_type */
    bool last;    /* the block is gone after this (a whole free, or its last part) */
};

struct trace {
    uint64_t ram;  /* frames of the machine */
    uint64_t free; /* of these, free when the recording began */
    char workload[TRACE_WORKLOAD + 1];
    struct trace_record *records;
    size_t n_records;
    uint32_t blocks; /* ids: allocations */
    uint64_t us;     /* from the first record to the last */
    /* What follows from the records. Frames that are live, part frees taken at their word: */
    uint64_t peak_frames;
    double frame_us; /* integral over time */
    uint64_t frames; /* allocated in all */
    uint64_t parts;  /* records that free a part */
};

enum trace_status {
    TRACE_OK,
    TRACE_UNREADABLE, /* the file, or no memory for it */
    TRACE_MALFORMED,  /* its contents */
};

/*
 * Read a trace; to be released with trace_release(), unless it fails. Then `error`
 * says why in one line without the name of the file, and nothing is to be released.
 */
enum trace_status trace_read(struct trace *trace, const char *path, char error[TRACE_ERROR]);

/* The same from memory: plain, or zstd. */
enum trace_status trace_parse(struct trace *trace, const void *data, size_t bytes,
                              char error[TRACE_ERROR]);

void trace_release(struct trace *trace);

#endif
