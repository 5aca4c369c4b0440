/* SPDX-License-Identifier: BSD-2-Clause */
/* The pool: threads, and the discards whose batches wait for one, in order. */
#include "discard_private.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

/* Of a thread: sorting, system calls, and done(). */
#define STACK_BYTES ((size_t)256 << 10)

#define DEFAULT_THREADS 2u

struct ebb_discard_pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct ebb_discard *first, **last; /* that wait */
    bool stop;
    unsigned n;
    pthread_t threads[EBB_DISCARD_THREADS_LIMIT]; /* n of them run */
};

/* ---- the list, with the lock held ---- */

static void append(struct ebb_discard_pool *pool, struct ebb_discard *discard)
{
    discard->queued = true;
    discard->next = NULL;
    *pool->last = discard;
    pool->last = &discard->next;
}

static void unlink_from(struct ebb_discard_pool *pool, struct ebb_discard *discard)
{
    struct ebb_discard **link = &pool->first;

    while (*link != discard)
        link = &(*link)->next;
    *link = discard->next;
    if (!*link)
        pool->last = link;
    discard->queued = false;
}

/* ---- threads ---- */

/* Called, and returns, with the lock held. Once it was let go for the last time the discard may be
 * gone. */
static void serve(struct ebb_discard_pool *pool, struct ebb_discard *discard)
{
    void (*done)(void *) = discard->done;
    void *ctx = discard->done_ctx;

    pthread_mutex_unlock(&pool->lock);
    ebb__discard_batch(discard);
    pthread_mutex_lock(&pool->lock);
    discard->in_done++;
    discard->busy = false;
    pthread_mutex_unlock(&pool->lock);

    done(ctx);

    pthread_mutex_lock(&pool->lock);
    discard->in_done--;
    pthread_cond_broadcast(&discard->idle);
}

static void *thread_main(void *arg)
{
    struct ebb_discard_pool *pool = arg;

    pthread_mutex_lock(&pool->lock);
    while (pool->first || !pool->stop) {
        struct ebb_discard *discard = pool->first;

        if (!discard) {
            pthread_cond_wait(&pool->work, &pool->lock);
            continue;
        }
        unlink_from(pool, discard);
        serve(pool, discard);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* 0 or an errno. No signal of the process is handled in a pool thread. */
static int start_thread(struct ebb_discard_pool *pool, pthread_t *thread,
                        const pthread_attr_t *attr)
{
    sigset_t all, before;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    err = pthread_create(thread, attr, thread_main, pool);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err == 0)
        pthread_setname_np(*thread, "ebb-discard");
    return err;
}

static int start_threads(struct ebb_discard_pool *pool, unsigned threads)
{
    pthread_attr_t attr;
    int err = pthread_attr_init(&attr);

    if (err != 0)
        return err;
    err = pthread_attr_setstacksize(&attr, STACK_BYTES);
    while (err == 0 && pool->n < threads) {
        err = start_thread(pool, &pool->threads[pool->n], &attr);
        if (err == 0)
            pool->n++;
    }
    pthread_attr_destroy(&attr);
    return err;
}

/* 0 or an errno. */
static int init_locks(struct ebb_discard_pool *pool)
{
    int err = pthread_cond_init(&pool->work, NULL);

    if (err != 0)
        return err;
    err = pthread_mutex_init(&pool->lock, NULL);
    if (err != 0)
        pthread_cond_destroy(&pool->work);
    return err;
}

struct ebb_discard_pool *ebb_discard_pool_new(unsigned threads)
{
    struct ebb_discard_pool *pool;
    int err;

    if (threads > EBB_DISCARD_THREADS_LIMIT) {
        errno = EINVAL;
        return NULL;
    }
    pool = calloc(1, sizeof(*pool));
    if (!pool)
        return NULL;
    pool->last = &pool->first;
    err = init_locks(pool);
    if (err != 0) {
        free(pool);
        errno = err;
        return NULL;
    }
    err = start_threads(pool, threads > 0 ? threads : DEFAULT_THREADS);
    if (err != 0) {
        ebb_discard_pool_free(pool);
        errno = err;
        return NULL;
    }
    return pool;
}

void ebb_discard_pool_free(struct ebb_discard_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->stop = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->n; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->work);
    free(pool);
}

/* ---- what a discard does with its pool ---- */

int ebb__discard_claim(struct ebb_discard *discard)
{
    bool busy;

    pthread_mutex_lock(&discard->pool->lock);
    busy = discard->busy;
    discard->busy = true;
    pthread_mutex_unlock(&discard->pool->lock);
    return busy ? -EBB_EBUSY : 0;
}

void ebb__discard_release(struct ebb_discard *discard)
{
    pthread_mutex_lock(&discard->pool->lock);
    discard->busy = false;
    pthread_cond_broadcast(&discard->idle);
    pthread_mutex_unlock(&discard->pool->lock);
}

void ebb__discard_enqueue(struct ebb_discard *discard)
{
    struct ebb_discard_pool *pool = discard->pool;

    pthread_mutex_lock(&pool->lock);
    append(pool, discard);
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

bool ebb__discard_dequeue(struct ebb_discard *discard)
{
    struct ebb_discard_pool *pool = discard->pool;
    bool queued;

    pthread_mutex_lock(&pool->lock);
    queued = discard->queued;
    if (queued)
        unlink_from(pool, discard);
    pthread_mutex_unlock(&pool->lock);
    return queued;
}

void ebb_discard_drain(struct ebb_discard *discard)
{
    pthread_mutex_lock(&discard->pool->lock);
    while (discard->busy || discard->in_done > 0)
        pthread_cond_wait(&discard->idle, &discard->pool->lock);
    pthread_mutex_unlock(&discard->pool->lock);
}
