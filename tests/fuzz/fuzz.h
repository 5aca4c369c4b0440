/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What fuzz targets share. A target is LLVMFuzzerTestOneInput(): libFuzzer calls it, or
 * replay_main.c with files. An input is read piece by piece; where it has ended, all is zero.
 */
#ifndef EBB_TESTS_FUZZ_H
#define EBB_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold whatever the input is. */
#define FUZZ_CHECK(truth)                                                                   \
    do {                                                                                    \
        if (!(truth)) {                                                                     \
            fprintf(stderr, "%s:%d: this does not hold: %s\n", __FILE__, __LINE__, #truth); \
            abort();                                                                        \
        }                                                                                   \
    } while (0)

struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

static inline uint64_t fuzz_le(struct fuzz_input *in, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes && in->left > 0; i++, in->left--)
        value |= (uint64_t)*in->at++ << (8 * i);
    return value;
}

static inline uint8_t fuzz_u8(struct fuzz_input *in)
{
    return (uint8_t)fuzz_le(in, 1);
}

static inline uint16_t fuzz_u16(struct fuzz_input *in)
{
    return (uint16_t)fuzz_le(in, 2);
}

static inline uint32_t fuzz_u32(struct fuzz_input *in)
{
    return (uint32_t)fuzz_le(in, 4);
}

/* The next *n bytes; fewer, as *n then says, at the end. */
static inline const uint8_t *fuzz_bytes(struct fuzz_input *in, size_t *n)
{
    const uint8_t *bytes = in->at;

    if (*n > in->left)
        *n = in->left;
    in->at += *n;
    in->left -= *n;
    return bytes;
}

#endif
