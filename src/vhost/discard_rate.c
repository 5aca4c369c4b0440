/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The rate limit: a budget that grows with time and shrinks by what is discarded (a token bucket).
 * It is looked at before a system call, and nothing ever waits for it.
 */
#include "discard_private.h"

/* With `account` held: what it has grown by. It holds one second's at most. */
static void grow(struct ebb_discard *discard, uint64_t now)
{
    const uint64_t ns = now > discard->budget_at ? now - discard->budget_at : 0;
    const double most = (double)discard->rate;

    discard->budget += most * ((double)ns / (double)EBB__NS_PER_SECOND);
    if (discard->budget > most)
        discard->budget = most;
    discard->budget_at = now;
}

uint64_t ebb__rate_allows(struct ebb_discard *discard, uint64_t now)
{
    uint64_t bytes = UINT64_MAX;

    pthread_mutex_lock(&discard->account);
    if (discard->rate > 0) {
        grow(discard, now);
        bytes = discard->budget >= 1 ? (uint64_t)discard->budget : 0;
    }
    pthread_mutex_unlock(&discard->account);
    return bytes;
}

void ebb__rate_spend(struct ebb_discard *discard, uint64_t bytes)
{
    pthread_mutex_lock(&discard->account);
    discard->budget -= (double)bytes;
    pthread_mutex_unlock(&discard->account);
}

void ebb_discard_set_rate(struct ebb_discard *discard, uint64_t rate)
{
    const uint64_t now = ebb__discard_now(discard);

    pthread_mutex_lock(&discard->account);
    discard->rate = rate;
    discard->budget = (double)rate;
    discard->budget_at = now;
    pthread_mutex_unlock(&discard->account);
}
