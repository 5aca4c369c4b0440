/* SPDX-License-Identifier: BSD-2-Clause */
/* The hosted port's lock and CPU number, for EBB_PORT_INLINE (ebb/port.h): the core in
 * libebb-hosted has them inlined. */
#ifndef EBB_PORT_HOSTED_INLINE_H
#define EBB_PORT_HOSTED_INLINE_H

#include <ebb/port.h>

/* The lock is held by somebody else: wait, and take it. */
void ebb__hosted_lock_slow(struct ebb_lock *lock);

extern unsigned ebb__hosted_threads; /* that have a number */
/* This thread's number, plus 1; 0: it has none yet. */
extern _Thread_local unsigned ebb__hosted_thread __attribute__((tls_model("initial-exec")));

static inline void ebb__hosted_lock(struct ebb_lock *lock)
{
    if (EBB_UNLIKELY(__atomic_exchange_n(&lock->word, 1, __ATOMIC_ACQUIRE) != 0))
        ebb__hosted_lock_slow(lock);
}

static inline void ebb__hosted_unlock(struct ebb_lock *lock)
{
    __atomic_store_n(&lock->word, 0, __ATOMIC_RELEASE);
}

static inline unsigned ebb__hosted_cpu(void)
{
    if (EBB_UNLIKELY(ebb__hosted_thread == 0))
        ebb__hosted_thread = __atomic_add_fetch(&ebb__hosted_threads, 1, __ATOMIC_RELAXED);
    return ebb__hosted_thread - 1;
}

#ifdef EBB_PORT_INLINE
static inline void ebb_port_lock(struct ebb_lock *lock)
{
    ebb__hosted_lock(lock);
}

static inline bool ebb_port_trylock(struct ebb_lock *lock)
{
    return __atomic_exchange_n(&lock->word, 1, __ATOMIC_ACQUIRE) == 0;
}

static inline void ebb_port_unlock(struct ebb_lock *lock)
{
    ebb__hosted_unlock(lock);
}

static inline unsigned ebb_port_cpu(void)
{
    return ebb__hosted_cpu();
}
#endif

#endif
