/* SPDX-License-Identifier: BSD-2-Clause */
#include "sync_pool.h"
#include "fuzz.h"

#include "../../src/vhost/discard_private.h"

struct ebb_discard_pool {
    struct ebb_discard *first; /* of those that wait, in order of arrival */
    struct ebb__work work;
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
static void serve(struct ebb_discard_pool *pool, struct ebb_discard *discard)
{
    void (*done)(void *) = discard->done;
    void *ctx = discard->done_ctx;

    (void)ebb__discard_run(&pool->work, discard, 0);
    discard->busy = false;
    done(ctx);
}

bool sync_pool_step(struct ebb_discard_pool *pool)
{
    struct ebb_discard *discard = pool->first;

    if (!discard)
        return false;
    pool->first = discard->next;
    serve(pool, discard);
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
    discard->submit_at = ebb__discard_now(discard);
    discard->held_ns = 0;
}

void ebb__discard_hurry(struct ebb_discard *discard, const uint64_t *new_rate)
{
    if (new_rate)
        discard->rate = *new_rate;
}

void ebb_discard_drain(struct ebb_discard *discard)
{
    while (discard->busy) {
        struct ebb_discard **link = &discard->pool->first;

        while (*link && *link != discard)
            link = &(*link)->next;
        FUZZ_CHECK(*link); /* or it would wait for ever */
        *link = discard->next;
        serve(discard->pool, discard);
    }
}
