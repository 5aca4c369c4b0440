/* SPDX-License-Identifier: BSD-2-Clause */
/* One batch, in a pool thread: its ranges are discarded, and what became of them is counted. */
#include "discard_private.h"

#include <string.h>

#define NS_PER_US 1000u

static unsigned bucket(uint64_t ns)
{
    const uint64_t us = ns / NS_PER_US;
    const unsigned bits = us > 0 ? 64u - (unsigned)__builtin_clzll(us) : 0;

    return bits < EBB_DISCARD_BUCKETS ? bits : EBB_DISCARD_BUCKETS - 1;
}

static void count(struct ebb_discard *discard, const struct ebb_discard_stats *sum)
{
    struct ebb_discard_stats *stats = &discard->stats;

    pthread_mutex_lock(&discard->account);
    stats->batches++;
    stats->ranges += sum->ranges;
    stats->asked_bytes += sum->asked_bytes;
    stats->calls += sum->calls;
    stats->discarded_bytes += sum->discarded_bytes;
    stats->repeated_bytes += sum->repeated_bytes;
    stats->gathered_bytes = EBB_FRAME_SIZE * discard->gather.frames;
    for (unsigned i = 0; i < EBB_DISCARD_CAUSES; i++) {
        stats->not_bytes[i] += sum->not_bytes[i];
        stats->not_ranges[i] += sum->not_ranges[i];
    }
    stats->checked_bytes += sum->checked_bytes;
    stats->wait_ns += sum->wait_ns;
    stats->busy_ns += sum->busy_ns;
    stats->latency[bucket(sum->wait_ns + sum->busy_ns)]++;
    if (sum->last_error != 0)
        stats->last_error = sum->last_error;
    pthread_mutex_unlock(&discard->account);
}

void ebb__discard_batch(struct ebb_discard *discard)
{
    const uint64_t start = ebb__discard_now(discard);
    struct ebb__work *work = &discard->work;

    memset(&work->sum, 0, sizeof(work->sum));
    ebb__extents_make(work);
    ebb__extents_discard(work);
    work->sum.wait_ns = start - discard->submit_at;
    work->sum.busy_ns = ebb__discard_now(discard) - start;
    count(discard, &work->sum);
}

void ebb_discard_left(struct ebb_discard *discard, uint64_t bytes, unsigned ranges)
{
    pthread_mutex_lock(&discard->account);
    discard->stats.ranges += ranges;
    discard->stats.asked_bytes += bytes;
    discard->stats.not_bytes[EBB_DISCARD_LATE] += bytes;
    discard->stats.not_ranges[EBB_DISCARD_LATE] += ranges;
    pthread_mutex_unlock(&discard->account);
}
