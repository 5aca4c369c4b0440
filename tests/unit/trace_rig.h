/* SPDX-License-Identifier: BSD-2-Clause */
/* Traces put together in memory, for the tests of those who read and play them. */
#ifndef TRACE_RIG_H
#define TRACE_RIG_H

#include "trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RIG_HEADER 64u
#define RIG_RECORD 16u

struct rig {
    uint8_t *bytes;
    size_t len;
    uint32_t records, blocks;
};

static inline void rig_le32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

static inline void rig_begin(struct rig *rig)
{
    *rig = (struct rig){.bytes = calloc(1, RIG_HEADER), .len = RIG_HEADER};
    if (!rig->bytes)
        abort();
}

static inline void rig_add(struct rig *rig, uint32_t dt, uint32_t id, unsigned op, unsigned order,
                           unsigned mt, uint32_t off)
{
    uint8_t *at;

    rig->bytes = realloc(rig->bytes, rig->len + RIG_RECORD);
    if (!rig->bytes)
        abort();
    at = rig->bytes + rig->len;
    memset(at, 0, RIG_RECORD);
    rig_le32(at, dt);
    rig_le32(at + 4, id);
    at[8] = (uint8_t)op;
    at[9] = (uint8_t)order;
    at[10] = (uint8_t)mt;
    rig_le32(at + 12, off);
    rig->len += RIG_RECORD;
    rig->records++;
    if (op == TRACE_ALLOC && id >= rig->blocks)
        rig->blocks = id + 1;
}

static inline void rig_alloc(struct rig *rig, uint32_t dt, uint32_t id, unsigned order)
{
    rig_add(rig, dt, id, TRACE_ALLOC, order, TRACE_MOVABLE, 0);
}

static inline void rig_free(struct rig *rig, uint32_t dt, uint32_t id, unsigned order)
{
    rig_add(rig, dt, id, TRACE_FREE, order, 0, 0);
}

static inline void rig_part(struct rig *rig, uint32_t dt, uint32_t id, unsigned order, uint32_t off,
                            bool last)
{
    rig_add(rig, dt, id, TRACE_FREE_PART, order, last, off);
}

/* Any text; cut to what there is room for. */
static inline void rig_header(struct rig *rig, const char *text)
{
    size_t len = strlen(text);

    memset(rig->bytes, 0, RIG_HEADER);
    memcpy(rig->bytes, text, len < RIG_HEADER ? len : RIG_HEADER);
}

/* What belongs to the records so far. */
static inline void rig_end(struct rig *rig, unsigned ram, unsigned free_frames)
{
    char text[RIG_HEADER];

    snprintf(text, sizeof(text), "PFT1 ram=%u free=%u n=%u ids=%u w=rig\n", ram, free_frames,
             rig->records, rig->blocks);
    rig_header(rig, text);
}

static inline void rig_release(struct rig *rig)
{
    free(rig->bytes);
    *rig = (struct rig){0};
}

#endif
