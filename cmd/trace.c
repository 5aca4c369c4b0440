/* SPDX-License-Identifier: BSD-2-Clause */
/* Read a PFT1 trace, from a file or from memory, and check it. */
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#define HEADER_BYTES 64u
#define RECORD_BYTES 16u
#define PART_WORDS   ((1u << TRACE_ORDER_MAX) / 64u)
#define BYTES_MAX    (HEADER_BYTES + (uint64_t)RECORD_BYTES * TRACE_RECORDS_MAX)
#define FIRST_ROOM   ((size_t)1 << 20)

static void explain(char *error, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void explain(char *error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(error, TRACE_ERROR, format, args);
    va_end(args);
}

/* ---- bytes ---- */

struct bytes {
    uint8_t *data;
    size_t len, room;
};

static enum trace_status no_memory(char *error)
{
    explain(error, "%s", strerror(ENOMEM));
    return TRACE_UNREADABLE;
}

/* Room for one byte more, at least. */
static bool grow(struct bytes *bytes)
{
    size_t room = bytes->room > 0 ? 2 * bytes->room : FIRST_ROOM;
    uint8_t *data;

    if (bytes->len < bytes->room)
        return true;
    data = realloc(bytes->data, room);
    if (!data)
        return false;
    bytes->data = data;
    bytes->room = room;
    return true;
}

static enum trace_status read_all(struct bytes *file, int fd, char *error)
{
    for (;;) {
        ssize_t n;

        if (!grow(file))
            return no_memory(error);
        n = read(fd, file->data + file->len, file->room - file->len);
        if (n == 0)
            return TRACE_OK;
        if (n < 0 && errno != EINTR) {
            explain(error, "%s", strerror(errno));
            return TRACE_UNREADABLE;
        }
        file->len += n > 0 ? (size_t)n : 0;
        if (file->len > BYTES_MAX) {
            explain(error, "it is larger than a trace can be (%u records)", TRACE_RECORDS_MAX);
            return TRACE_MALFORMED;
        }
    }
}

static uint32_t le32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* ---- zstd ---- */

static bool is_zstd(const uint8_t *data, size_t len)
{
    return len >= 4 && le32(data) == ZSTD_MAGICNUMBER;
}

/* All of its frames. No more than a trace can be, whatever they unpack to. */
static enum trace_status unpack_with(ZSTD_DCtx *ctx, ZSTD_inBuffer *in, struct bytes *plain,
                                     char *error)
{
    size_t hint = 1;

    for (;;) {
        ZSTD_outBuffer out;
        size_t before = in->pos;

        if (!grow(plain))
            return no_memory(error);
        out = (ZSTD_outBuffer){plain->data, plain->room, plain->len};
        hint = ZSTD_decompressStream(ctx, &out, in);
        if (ZSTD_isError(hint)) {
            explain(error, "its compressed data is damaged: %s", ZSTD_getErrorName(hint));
            return TRACE_MALFORMED;
        }
        if (out.pos > BYTES_MAX) {
            explain(error, "it is larger than a trace can be (%u records)", TRACE_RECORDS_MAX);
            return TRACE_MALFORMED;
        }
        if (hint == 0 && in->pos == in->size) {
            plain->len = out.pos;
            return TRACE_OK;
        }
        if (in->pos == in->size && in->pos == before && out.pos < out.size) {
            explain(error, "it is cut short: its compressed data does not end");
            return TRACE_MALFORMED;
        }
        plain->len = out.pos;
    }
}

static enum trace_status unpack(const uint8_t *data, size_t len, struct bytes *plain, char *error)
{
    ZSTD_inBuffer in = {data, len, 0};
    ZSTD_DCtx *ctx = ZSTD_createDCtx();
    enum trace_status status = ctx ? unpack_with(ctx, &in, plain, error) : no_memory(error);

    ZSTD_freeDCtx(ctx);
    return status;
}

/* ---- header ---- */

/* "NAME=NUMBER" at *at, moved behind it. */
static bool field(const char **at, const char *name, uint64_t most, uint64_t *value)
{
    size_t len = strlen(name);
    char *end;

    if (strncmp(*at, name, len) != 0 || (*at)[len] < '0' || (*at)[len] > '9')
        return false;
    errno = 0;
    *value = strtoull(*at + len, &end, 10);
    *at = end;
    return errno == 0 && *value <= most;
}

static bool read_fields(struct trace *trace, const char *at, uint64_t *records, uint64_t *blocks)
{
    size_t len;

    if (!field(&at, "PFT1 ram=", TRACE_RAM_MAX, &trace->ram) ||
        !field(&at, " free=", TRACE_RAM_MAX, &trace->free) ||
        !field(&at, " n=", UINT64_MAX, records) || !field(&at, " ids=", UINT64_MAX, blocks) ||
        strncmp(at, " w=", 3) != 0)
        return false;
    at += 3;
    len = strcspn(at, "\n");
    if (len == 0 || len > TRACE_WORKLOAD || at[len] != '\n')
        return false;
    for (size_t i = 0; i < len; i++) {
        if (at[i] <= ' ' || at[i] > '~')
            return false;
    }
    memcpy(trace->workload, at, len);
    return true;
}

static enum trace_status read_header(struct trace *trace, const uint8_t *data, size_t bytes,
                                     char *error)
{
    char text[HEADER_BYTES + 1] = "";
    uint64_t records, blocks;

    memcpy(text, data, bytes < HEADER_BYTES ? bytes : HEADER_BYTES);
    if (strncmp(text, "PFT", 3) == 0 && text[3] > '1' && text[3] <= '9')
        explain(error, "it is a trace of another version: only PFT1 is known");
    else if (strncmp(text, "PFT1 ", 5) != 0)
        explain(error, "it is no trace: it does not begin with PFT1");
    else if (bytes < HEADER_BYTES)
        explain(error, "it is cut short: %zu bytes are no header", bytes);
    else if (!read_fields(trace, text, &records, &blocks))
        explain(error, "its header makes no sense");
    else if (trace->ram == 0 || trace->free > trace->ram)
        explain(error, "its header has %" PRIu64 " frames free of %" PRIu64, trace->free,
                trace->ram);
    else if (records == 0 || records > TRACE_RECORDS_MAX || blocks > records)
        explain(error,
                "its header has %" PRIu64 " records of %" PRIu64
                " blocks: it takes 1 to %u records, and one for each block",
                records, blocks, TRACE_RECORDS_MAX);
    else if ((bytes - HEADER_BYTES) / RECORD_BYTES < records)
        explain(error, "it is cut short: %zu of %" PRIu64 " records are there",
                (bytes - HEADER_BYTES) / RECORD_BYTES, records);
    else if (bytes - HEADER_BYTES != records * RECORD_BYTES)
        explain(error, "it goes on behind the last of its %" PRIu64 " records", records);
    else {
        trace->n_records = (size_t)records;
        trace->blocks = (uint32_t)blocks;
        return TRACE_OK;
    }
    return TRACE_MALFORMED;
}

/* ---- records ---- */

/* A block of the trace, while that is read. */
struct block {
    uint64_t *freed; /* bit per frame, if a part was freed and not all */
    uint16_t left;   /* frames that are live */
    uint8_t order;
};

struct reader {
    struct trace *trace;
    struct block *blocks;
    uint32_t next; /* id */
    uint64_t live; /* frames */
    char *error;
};

/* One record, as it is in the file. */
struct raw {
    uint32_t dt, id;
    uint8_t op, order, mt;
    uint32_t off;
};

static bool alloc(struct reader *reader, const struct raw *raw)
{
    struct block *block = &reader->blocks[raw->id];

    if (raw->id < reader->next)
        explain(reader->error, "block %u is allocated twice", raw->id);
    else if (raw->id > reader->next)
        explain(reader->error, "block %u is allocated before block %u", raw->id, reader->next);
    else if (raw->mt > TRACE_HIGHATOMIC)
        explain(reader->error, "there is no migratetype %u", raw->mt);
    else if (raw->off != 0)
        explain(reader->error, "an allocation has no offset, but %u is there", raw->off);
    else {
        reader->next++;
        block->order = raw->order;
        block->left = (uint16_t)(1u << raw->order);
        reader->live += block->left;
        reader->trace->frames += block->left;
        return true;
    }
    return false;
}

static bool free_whole(struct reader *reader, const struct raw *raw)
{
    struct block *block = &reader->blocks[raw->id];

    if (block->freed)
        explain(reader->error, "block %u is freed whole after a part of it", raw->id);
    else if (raw->order != block->order)
        explain(reader->error, "block %u has order %u and is freed with order %u", raw->id,
                block->order, raw->order);
    else if (raw->mt != 0 || raw->off != 0)
        explain(reader->error, "a whole free has neither flag nor offset");
    else {
        reader->live -= block->left;
        block->left = 0;
        return true;
    }
    return false;
}

/* Mark the frames of a part as freed. False: one is already. */
static bool take_part(struct block *block, uint32_t off, uint32_t frames)
{
    for (uint32_t i = off; i < off + frames; i++) {
        if (block->freed[i / 64] & (uint64_t)1 << i % 64)
            return false;
        block->freed[i / 64] |= (uint64_t)1 << i % 64;
    }
    block->left = (uint16_t)(block->left - frames);
    return true;
}

static bool free_part(struct reader *reader, const struct raw *raw)
{
    struct block *block = &reader->blocks[raw->id];
    uint32_t frames = 1u << raw->order;

    if (raw->order >= block->order || raw->off % frames != 0 ||
        raw->off >= (uint32_t)1 << block->order) {
        explain(reader->error, "order %u at frame %u is no part of block %u, of order %u",
                raw->order, raw->off, raw->id, block->order);
        return false;
    }
    if (!block->freed)
        block->freed = calloc(PART_WORDS, sizeof(*block->freed));
    if (!block->freed) {
        explain(reader->error, "%s", strerror(ENOMEM));
        return false;
    }
    if (!take_part(block, raw->off, frames)) {
        explain(reader->error, "frames of block %u are freed twice", raw->id);
        return false;
    }
    if (raw->mt != (block->left == 0)) {
        explain(reader->error, "the last part of block %u is not where it is said to be", raw->id);
        return false;
    }
    if (block->left == 0) {
        free(block->freed);
        block->freed = NULL;
    }
    reader->live -= frames;
    reader->trace->parts++;
    return true;
}

static bool apply(struct reader *reader, const struct raw *raw)
{
    if (raw->op > TRACE_FREE_PART)
        explain(reader->error, "there is no operation %u", raw->op);
    else if (raw->order > TRACE_ORDER_MAX)
        explain(reader->error, "order %u is too large: %u is the most", raw->order,
                TRACE_ORDER_MAX);
    else if (raw->id >= reader->trace->blocks)
        explain(reader->error, "there is no block %u: the header has %u", raw->id,
                reader->trace->blocks);
    else if (raw->op == TRACE_ALLOC)
        return alloc(reader, raw);
    else if (raw->id >= reader->next)
        explain(reader->error, "block %u is freed before it is allocated", raw->id);
    else if (reader->blocks[raw->id].left == 0)
        explain(reader->error, "block %u is freed twice", raw->id);
    else
        return raw->op == TRACE_FREE ? free_whole(reader, raw) : free_part(reader, raw);
    return false;
}

static void decode(struct raw *raw, const uint8_t *at)
{
    *raw = (struct raw){.dt = le32(at),
                        .id = le32(at + 4),
                        .op = at[8],
                        .order = at[9],
                        .mt = at[10],
                        .off = le32(at + 12)};
}

static bool read_record(struct reader *reader, const uint8_t *at, struct trace_record *record)
{
    struct trace *trace = reader->trace;
    struct raw raw;

    decode(&raw, at);
    trace->us += raw.dt;
    trace->frame_us += (double)reader->live * raw.dt;
    if (!apply(reader, &raw))
        return false;
    if (reader->live > trace->peak_frames)
        trace->peak_frames = reader->live;
    *record = (struct trace_record){
        .us = trace->us,
        .id = raw.id,
        .op = raw.op,
        .order = raw.order,
        .type = raw.op == TRACE_ALLOC ? raw.mt : 0,
        .last = raw.op != TRACE_ALLOC && reader->blocks[raw.id].left == 0,
    };
    return true;
}

static enum trace_status read_records(struct reader *reader, const uint8_t *data)
{
    struct trace *trace = reader->trace;
    char why[TRACE_ERROR / 2] = "";
    char *error = reader->error;

    reader->error = why;
    for (size_t i = 0; i < trace->n_records; i++) {
        /* What apply() says is short: it fits into half of it. */
        if (!read_record(reader, data + HEADER_BYTES + i * RECORD_BYTES, &trace->records[i])) {
            explain(error, "record %zu of %zu: %s", i + 1, trace->n_records, why);
            return TRACE_MALFORMED;
        }
    }
    reader->error = error;
    if (reader->next != trace->blocks) {
        explain(error, "its header has %u blocks, its records %u", trace->blocks, reader->next);
        return TRACE_MALFORMED;
    }
    if (trace->peak_frames > trace->ram) {
        explain(error, "%" PRIu64 " frames are live at once, of %" PRIu64 " that there are",
                trace->peak_frames, trace->ram);
        return TRACE_MALFORMED;
    }
    return TRACE_OK;
}

static enum trace_status parse_plain(struct trace *trace, const uint8_t *data, size_t bytes,
                                     char *error)
{
    enum trace_status status = read_header(trace, data, bytes, error);
    struct reader reader = {.trace = trace, .error = error};

    if (status != TRACE_OK)
        return status;
    trace->records = calloc(trace->n_records, sizeof(*trace->records));
    reader.blocks = calloc((size_t)trace->blocks + 1, sizeof(*reader.blocks));
    status = trace->records && reader.blocks ? read_records(&reader, data) : no_memory(error);
    for (uint32_t i = 0; reader.blocks && i < trace->blocks; i++)
        free(reader.blocks[i].freed);
    free(reader.blocks);
    if (status != TRACE_OK)
        trace_release(trace);
    return status;
}

/* ---- from outside ---- */

enum trace_status trace_parse(struct trace *trace, const void *data, size_t bytes,
                              char error[TRACE_ERROR])
{
    struct bytes plain = {0};
    enum trace_status status;

    *trace = (struct trace){0};
    if (!is_zstd(data, bytes))
        return parse_plain(trace, data, bytes, error);
    status = unpack(data, bytes, &plain, error);
    if (status == TRACE_OK)
        status = parse_plain(trace, plain.data, plain.len, error);
    free(plain.data);
    return status;
}

enum trace_status trace_read(struct trace *trace, const char *path, char error[TRACE_ERROR])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct bytes file = {0};
    enum trace_status status;

    *trace = (struct trace){0};
    if (fd < 0) {
        explain(error, "%s", strerror(errno));
        return TRACE_UNREADABLE;
    }
    status = read_all(&file, fd, error);
    close(fd);
    if (status == TRACE_OK)
        status = trace_parse(trace, file.data, file.len, error);
    free(file.data);
    return status;
}

void trace_release(struct trace *trace)
{
    free(trace->records);
    *trace = (struct trace){0};
}
