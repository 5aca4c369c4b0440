/* SPDX-License-Identifier: BSD-2-Clause */
#include "sync_pool.h"
#include "fuzz.h"

#include "../../src/vhost/discard_private.h"

struct ebb_discard_pool {
    struct ebb_discard *first; /* of those that wait, in order of arrival */
};

struct ebb_discard_pool *ebb_discard_pool_new(unsigned threads)
{
    (void)threads;
    return calloc(1, sizeof(struct ebb_discard_pool));
}

void ebb_discard_pool_free(struct ebb_discard_pool *pool)
{
    FUZZ_CHECK(!pool->first);
    free(pool);
}

/* As in a pool thread: from done() on the discard takes the next batch. */
static void serve(struct ebb_discard *discard)
{
    void (*done)(void *) = discard->done;
    void *ctx = discard->done_ctx;

    ebb__discard_batch(discard);
    discard->busy = false;
    done(ctx);
}

bool sync_pool_step(struct ebb_discard_pool *pool)
{
    struct ebb_discard *discard = pool->first;

    if (!discard)
        return false;
    pool->first = discard->next;
    serve(discard);
    return true;
}

int ebb__discard_claim(struct ebb_discard *discard)
{
    if (discard->busy)
        return -EBB_EBUSY;
    discard->busy = true;
    return 0;
}

void ebb__discard_release(struct ebb_discard *discard)
{
    discard->busy = false;
}

void ebb__discard_enqueue(struct ebb_discard *discard)
{
    struct ebb_discard **last = &discard->pool->first;

    while (*last)
        last = &(*last)->next;
    discard->next = NULL;
    *last = discard;
}

bool ebb__discard_dequeue(struct ebb_discard *discard)
{
    struct ebb_discard **link = &discard->pool->first;

    while (*link && *link != discard)
        link = &(*link)->next;
    if (!*link)
        return false;
    *link = discard->next;
    return true;
}

void ebb_discard_drain(struct ebb_discard *discard)
{
    while (discard->busy) {
        FUZZ_CHECK(ebb__discard_dequeue(discard)); /* or it would wait for ever */
        serve(discard);
    }
}
