/* SPDX-License-Identifier: BSD-2-Clause */
/* The suite over the allocator of examples/. */
#include "source.h"

#include "own_source.h"

#include <stdlib.h>

#define PAGEBLOCKS 8u

static void *make(const struct source_subject *subject)
{
    struct own_allocator *own = malloc(sizeof(*own));

    (void)subject;
    if (own && own_create(own, PAGEBLOCKS)) {
        free(own);
        own = NULL;
    }
    return own;
}

static void destroy(void *allocator)
{
    own_destroy(allocator);
    free(allocator);
}

static struct ebb_source *source_of(void *allocator)
{
    return &((struct own_allocator *)allocator)->source;
}

static bool alloc(void *allocator, unsigned order, ebb_pfn_t *pfn)
{
    return own_alloc(allocator, order, pfn) == 0;
}

static void release(void *allocator, ebb_pfn_t pfn, unsigned order)
{
    own_free(allocator, pfn, order);
}

static void *address(void *allocator, ebb_pfn_t pfn)
{
    return own_address(allocator, pfn);
}

int main(void)
{
    static const struct source_subject subject = {
        .name = "own allocator",
        .frames = PAGEBLOCKS * OWN_FRAMES,
        .orders = 1u << OWN_ORDER | 1u << 0,
        .large_order = OWN_ORDER,
        .max_order = OWN_ORDER,
        .make = make,
        .destroy = destroy,
        .source = source_of,
        .alloc = alloc,
        .free = release,
        .address = address,
    };

    return source_main(&subject);
}
