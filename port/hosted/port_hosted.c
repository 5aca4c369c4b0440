/* SPDX-License-Identifier: BSD-2-Clause */
/* The port (ebb/port.h) on POSIX threads. */
#define _GNU_SOURCE
#include "ebb_hosted.h"
#include "port_inline.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Spins before the CPU is given to somebody else, who may hold the lock. */
#define SPINS 200

#define NS_PER_S ((uint64_t)1000000000)

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

void ebb__hosted_lock_slow(struct ebb_lock *lock)
{
    unsigned spins = 0;

    do {
        while (__atomic_load_n(&lock->word, __ATOMIC_RELAXED) != 0) {
            if (++spins % SPINS == 0)
                sched_yield();
            else
                pause_cpu();
        }
    } while (__atomic_exchange_n(&lock->word, 1, __ATOMIC_ACQUIRE) != 0);
}

unsigned ebb__hosted_threads;
_Thread_local unsigned ebb__hosted_thread;

/* For what is not compiled with port_inline.h: the driver, say. */

void ebb_port_lock(struct ebb_lock *lock)
{
    ebb__hosted_lock(lock);
}

void ebb_port_unlock(struct ebb_lock *lock)
{
    ebb__hosted_unlock(lock);
}

unsigned ebb_port_cpu(void)
{
    return ebb__hosted_cpu();
}

uint64_t ebb_port_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

void ebb_port_wake(void *worker)
{
    struct ebb_hosted_worker *w = worker;

    if (!w)
        return;
    pthread_mutex_lock(&w->mutex);
    if (!w->stop) {
        w->woken = true;
        pthread_cond_signal(&w->wake);
    }
    pthread_mutex_unlock(&w->mutex);
}

void ebb_port_relax(void)
{
    sched_yield();
}

void ebb_port_misuse(const struct ebb_misuse *misuse)
{
    fprintf(stderr, "ebb: %s (pfn %#llx, order %u; found pfn %#llx, order %u)\n", misuse->what,
            (unsigned long long)misuse->pfn, misuse->order, (unsigned long long)misuse->found_pfn,
            misuse->found);
}

_Noreturn void ebb_port_panic(const char *why)
{
    fprintf(stderr, "ebb: panic: %s\n", why);
    abort();
}
