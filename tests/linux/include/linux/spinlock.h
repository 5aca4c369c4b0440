/* SPDX-License-Identifier: BSD-2-Clause */
/* Spinlocks: mutexes that know who has them. */
#ifndef EBB_TESTS_LINUX_SPINLOCK_H
#define EBB_TESTS_LINUX_SPINLOCK_H

#include "kernel.h"

#include <pthread.h>

typedef struct {
    pthread_mutex_t mutex;
    pthread_t owner; /* of whoever holds it */
    bool held;
} spinlock_t;

void shim_lock(spinlock_t *lock);
bool shim_trylock(spinlock_t *lock);
void shim_unlock(spinlock_t *lock);

#define spin_lock_irqsave(lock, flags)      ((flags) = 1, shim_lock(lock))
#define spin_trylock_irqsave(lock, flags)   ((flags) = 1, shim_trylock(lock))
#define spin_unlock_irqrestore(lock, flags) ((void)(flags), shim_unlock(lock))

#endif
