/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pool: threads, and whose turn it is.
 *
 * A discard has one batch at most, so a queue of discards in order of arrival is all that fairness
 * takes. Those that are held for their rate limit lie in a list by when to look at them again, and
 * occupy no thread. The pool's clock is CLOCK_MONOTONIC; a discard's may be another (in tests), and
 * has the last word on whether its time has come.
 */
#include "discard_private.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

/* Of a thread: sorting, system calls, and done(). */
#define STACK_BYTES ((size_t)256 << 10)

#define DEFAULT_THREADS 2u

struct pool_thread {
    pthread_t id;
    struct ebb_discard_pool *pool;
    struct ebb__work *work;
};

struct ebb_discard_pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct ebb_discard *first, **last; /* ready, in order of arrival */
    struct ebb_discard *held;          /* by wake_at */
    bool stop;
    unsigned n;
    struct pool_thread threads[EBB_DISCARD_THREADS_LIMIT]; /* n of them run */
};

static uint64_t pool_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * EBB__NS_PER_SECOND + (uint64_t)t.tv_nsec;
}

/* ---- lists, with the lock held ---- */

static void make_ready(struct ebb_discard_pool *pool, struct ebb_discard *discard)
{
    discard->next = NULL;
    *pool->last = discard;
    pool->last = &discard->next;
}

static struct ebb_discard *take_ready(struct ebb_discard_pool *pool)
{
    struct ebb_discard *discard = pool->first;

    if (discard) {
        pool->first = discard->next;
        if (!pool->first)
            pool->last = &pool->first;
    }
    return discard;
}

static void hold(struct ebb_discard_pool *pool, struct ebb_discard *discard, uint64_t ns)
{
    struct ebb_discard **link = &pool->held;

    discard->wake_at = pool_now() + ns;
    while (*link && (*link)->wake_at <= discard->wake_at)
        link = &(*link)->next;
    discard->next = *link;
    *link = discard;
    discard->held = true;
}

static void unhold(struct ebb_discard_pool *pool, struct ebb_discard *discard)
{
    struct ebb_discard **link = &pool->held;

    while (*link != discard)
        link = &(*link)->next;
    *link = discard->next;
    discard->held = false;
}

/* No longer held: its turn comes. */
static void end_hold(struct ebb_discard_pool *pool, struct ebb_discard *discard, uint64_t now)
{
    discard->held_ns = now > discard->submit_at ? now - discard->submit_at : 0;
    make_ready(pool, discard);
}

static void end_holds(struct ebb_discard_pool *pool)
{
    const uint64_t until = pool->held ? pool_now() : 0;

    while (pool->held && pool->held->wake_at <= until) {
        struct ebb_discard *discard = pool->held;
        const uint64_t now = ebb__discard_now(discard);

        unhold(pool, discard);
        if (now < discard->free_at)
            hold(pool, discard, discard->free_at - now);
        else
            end_hold(pool, discard, now);
    }
}

/* ---- threads ---- */

/* With the lock held: wait for work, or until the first that is held. */
static void wait_for_work(struct ebb_discard_pool *pool)
{
    struct timespec until;

    if (!pool->held) {
        pthread_cond_wait(&pool->work, &pool->lock);
        return;
    }
    until.tv_sec = (time_t)(pool->held->wake_at / EBB__NS_PER_SECOND);
    until.tv_nsec = (long)(pool->held->wake_at % EBB__NS_PER_SECOND);
    pthread_cond_timedwait(&pool->work, &pool->lock, &until);
}

/* With the lock held: the next batch must wait for what this one took. */
static void charge(struct ebb_discard *discard, uint64_t start, uint64_t bytes)
{
    const uint64_t limit = ebb__discard_now(discard) + EBB__NS_PER_SECOND;
    const uint64_t from = discard->free_at > start ? discard->free_at : start;
    uint64_t ns = EBB__NS_PER_SECOND;

    if (discard->rate == 0)
        return;
    if (bytes < discard->rate)
        ns = (uint64_t)((double)bytes * (double)EBB__NS_PER_SECOND / (double)discard->rate);
    discard->free_at = from + ns < limit ? from + ns : limit;
}

/* Called, and returns, with the lock held. Once it was let go for the last time the discard may be
 * gone. */
static void serve(struct ebb_discard_pool *pool, struct ebb__work *work,
                  struct ebb_discard *discard)
{
    const uint64_t held_ns = discard->held_ns;
    void (*done)(void *) = discard->done;
    void *ctx = discard->done_ctx;
    uint64_t start, bytes;

    pthread_mutex_unlock(&pool->lock);
    start = ebb__discard_now(discard);
    bytes = ebb__discard_run(work, discard, held_ns);
    pthread_mutex_lock(&pool->lock);
    charge(discard, start, bytes);
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
    const struct pool_thread *thread = arg;
    struct ebb_discard_pool *pool = thread->pool;

    pthread_mutex_lock(&pool->lock);
    for (;;) {
        struct ebb_discard *discard;

        end_holds(pool);
        discard = take_ready(pool);
        if (discard) {
            /* Somebody else sees to what is left while this one is away. */
            if (pool->first || pool->held)
                pthread_cond_signal(&pool->work);
            serve(pool, thread->work, discard);
        } else if (pool->stop) {
            break;
        } else {
            wait_for_work(pool);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* 0 or an errno. No signal of the process is handled in a pool thread. */
static int start_thread(struct pool_thread *thread, const pthread_attr_t *attr)
{
    sigset_t all, before;
    int err;

    thread->work = calloc(1, sizeof(*thread->work));
    if (!thread->work)
        return ENOMEM;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    err = pthread_create(&thread->id, attr, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err != 0)
        free(thread->work);
    else
        pthread_setname_np(thread->id, "ebb-discard");
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
        pool->threads[pool->n].pool = pool;
        err = start_thread(&pool->threads[pool->n], &attr);
        if (err == 0)
            pool->n++;
    }
    pthread_attr_destroy(&attr);
    return err;
}

/* 0 or an errno. */
static int init_locks(struct ebb_discard_pool *pool)
{
    pthread_condattr_t attr;
    int err = pthread_condattr_init(&attr);

    if (err != 0)
        return err;
    err = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (err == 0)
        err = pthread_cond_init(&pool->work, &attr);
    pthread_condattr_destroy(&attr);
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
    for (unsigned i = 0; i < pool->n; i++) {
        pthread_join(pool->threads[i].id, NULL);
        free(pool->threads[i].work);
    }
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
    discard->submit_at = ebb__discard_now(discard);
    discard->held_ns = 0;
    if (discard->submit_at < discard->free_at && discard->draining == 0 &&
        !atomic_load(&discard->inhibited))
        hold(pool, discard, discard->free_at - discard->submit_at);
    else
        make_ready(pool, discard);
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

void ebb__discard_hurry(struct ebb_discard *discard, const uint64_t *new_rate)
{
    struct ebb_discard_pool *pool = discard->pool;

    pthread_mutex_lock(&pool->lock);
    if (new_rate) {
        discard->rate = *new_rate;
        discard->free_at = 0;
    }
    if (discard->held) {
        unhold(pool, discard);
        end_hold(pool, discard, ebb__discard_now(discard));
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->lock);
}

void ebb_discard_drain(struct ebb_discard *discard)
{
    struct ebb_discard_pool *pool = discard->pool;

    pthread_mutex_lock(&pool->lock);
    discard->draining++;
    pthread_mutex_unlock(&pool->lock);
    ebb__discard_hurry(discard, NULL);

    pthread_mutex_lock(&pool->lock);
    while (discard->busy || discard->in_done > 0)
        pthread_cond_wait(&discard->idle, &pool->lock);
    discard->draining--;
    pthread_mutex_unlock(&pool->lock);
}
