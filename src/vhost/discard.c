/* SPDX-License-Identifier: BSD-2-Clause */
/* One VM's discard: its batches in and its counters out. */
#include "discard_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_CHECK_EVERY  16u
#define DEFAULT_GATHER_BYTES (256u << 10)

const char *ebb_discard_cause_name(enum ebb_discard_cause cause)
{
    static const char *const names[EBB_DISCARD_CAUSES] = {
        [EBB_DISCARD_OUTSIDE] = "outside", [EBB_DISCARD_PARTIAL] = "partial",
        [EBB_DISCARD_BACKING] = "backing", [EBB_DISCARD_INHIBITED] = "inhibited",
        [EBB_DISCARD_LATE] = "late",       [EBB_DISCARD_RATE] = "rate",
        [EBB_DISCARD_FAILED] = "failed",   [EBB_DISCARD_RESIDENT] = "resident",
    };

    return (unsigned)cause < EBB_DISCARD_CAUSES ? names[cause] : "?";
}

/* ---- beginning and end ---- */

/* 0 or an errno. */
static int init_locks(struct ebb_discard *discard)
{
    pthread_mutex_t *locks[] = {&discard->account, &discard->discarding};
    int err = pthread_cond_init(&discard->idle, NULL);
    unsigned n = 0;

    if (err != 0)
        return err;
    while (n < 2 && err == 0) {
        err = pthread_mutex_init(locks[n], NULL);
        if (err == 0)
            n++;
    }
    if (err == 0)
        return 0;
    while (n-- > 0)
        pthread_mutex_destroy(locks[n]);
    pthread_cond_destroy(&discard->idle);
    return err;
}

static void configure(struct ebb_discard *discard, const struct ebb_discard_config *config)
{
    discard->pool = config->pool;
    discard->memory = config->memory;
    discard->work.discard = discard;
    discard->check_every = config->check_every > 0 ? config->check_every : DEFAULT_CHECK_EVERY;
    discard->gather.bytes_limit =
        config->gather_bytes > 0 ? config->gather_bytes : DEFAULT_GATHER_BYTES;
    discard->ops = config->ops ? config->ops : &ebb__discard_system;
    /* Any but 0: where in an extent to look must differ, no more. */
    discard->random = ebb__discard_now(discard) | 1;
}

struct ebb_discard *ebb_discard_new(const struct ebb_discard_config *config)
{
    struct ebb_discard *discard;
    int err;

    if (!config->pool || !config->memory) {
        errno = EINVAL;
        return NULL;
    }
    discard = calloc(1, sizeof(*discard));
    if (!discard)
        return NULL;
    configure(discard, config);
    err = init_locks(discard);
    if (err != 0) {
        free(discard);
        errno = err;
        return NULL;
    }
    ebb_discard_set_rate(discard, config->rate);
    return discard;
}

void ebb_discard_free(struct ebb_discard *discard)
{
    if (!discard)
        return;
    ebb_discard_drain(discard);
    ebb__gather_clear(&discard->gather);
    pthread_cond_destroy(&discard->idle);
    pthread_mutex_destroy(&discard->account);
    pthread_mutex_destroy(&discard->discarding);
    free(discard);
}

/* ---- counters ---- */

/* So many frames left the table of gathered pages. */
static void account_released(struct ebb_discard *discard, uint64_t frames)
{
    pthread_mutex_lock(&discard->account);
    discard->stats.released_bytes += EBB_FRAME_SIZE * frames;
    discard->stats.gathered_bytes = EBB_FRAME_SIZE * discard->gather.frames;
    pthread_mutex_unlock(&discard->account);
}

void ebb_discard_get_stats(const struct ebb_discard *discard, struct ebb_discard_stats *stats)
{
    pthread_mutex_t *account = &((struct ebb_discard *)discard)->account;

    pthread_mutex_lock(account);
    *stats = discard->stats;
    pthread_mutex_unlock(account);
}

/* ---- batches ---- */

/* Of the claimed discard: what is gathered belongs to a table that is no more. */
static void forget_if_changed(struct ebb_discard *discard)
{
    if (discard->regions.changes != discard->memory->changes)
        account_released(discard, ebb__gather_clear(&discard->gather));
}

static void copy_regions(struct ebb_discard *discard)
{
    const struct ebb_memory *memory = discard->memory;

    forget_if_changed(discard);
    discard->regions.n = memory->n;
    discard->regions.changes = memory->changes;
    memcpy(discard->regions.regions, memory->regions, memory->n * sizeof(memory->regions[0]));
}

int ebb_discard_submit(struct ebb_discard *discard, enum ebb_discard_kind kind,
                       const struct ebb_range *ranges, unsigned n, uint64_t ns,
                       void (*done)(void *ctx), void *ctx)
{
    uint64_t now;
    int err;

    if (n == 0 || n > EBB_DISCARD_RANGES)
        return -EBB_EINVAL;
    err = ebb__discard_claim(discard);
    if (err != 0)
        return err;
    discard->kind = kind;
    discard->n = n;
    memcpy(discard->ranges, ranges, n * sizeof(*ranges));
    copy_regions(discard);
    discard->done = done;
    discard->done_ctx = ctx;
    now = ebb__discard_now(discard);
    discard->submit_at = now;
    atomic_store(&discard->late_after, ns <= UINT64_MAX - now ? now + ns : UINT64_MAX);
    ebb__discard_enqueue(discard);
    return 0;
}

/* Without a system call the rest takes no time, so whoever has it can end it. */
bool ebb_discard_hurry(struct ebb_discard *discard)
{
    atomic_store(&discard->late_after, 0);
    if (!ebb__discard_dequeue(discard))
        return false;
    ebb__discard_batch(discard);
    ebb__discard_release(discard);
    return true;
}

/* ---- deflation ---- */

/* The part of [range) that is in this region. */
static uint64_t release_of(struct ebb_discard *discard, const struct ebb_region *region,
                           uint64_t gpa, uint64_t end)
{
    const bool anon = region->backing == EBB_BACKING_ANON;
    const uint64_t base = anon ? (uint64_t)(uintptr_t)region->host : region->offset;
    const uint64_t region_end = region->gpa + region->size;
    const uint64_t from = gpa > region->gpa ? gpa : region->gpa;
    const uint64_t to = end < region_end ? end : region_end;

    if (from >= to)
        return 0;
    return ebb__gather_drop(&discard->gather, anon ? -1 : region->fd, region->page,
                            base + (from - region->gpa), base + (to - region->gpa));
}

static uint64_t release(struct ebb_discard *discard, const struct ebb_range *range)
{
    const uint64_t end =
        range->len <= UINT64_MAX - range->addr ? range->addr + range->len : UINT64_MAX;
    uint64_t frames = 0;

    for (unsigned i = 0; i < discard->regions.n; i++)
        frames += release_of(discard, &discard->regions.regions[i], range->addr, end);
    return frames;
}

int ebb_discard_deflated(struct ebb_discard *discard, const struct ebb_range *ranges, unsigned n)
{
    const int err = ebb__discard_claim(discard);
    uint64_t frames = 0;

    if (err != 0)
        return err;
    copy_regions(discard);
    for (unsigned i = 0; i < n && discard->gather.pages > 0; i++)
        frames += release(discard, &ranges[i]);
    account_released(discard, frames);
    ebb__discard_release(discard);
    return 0;
}

int ebb_discard_forget(struct ebb_discard *discard)
{
    const int err = ebb__discard_claim(discard);

    if (err != 0)
        return err;
    account_released(discard, ebb__gather_clear(&discard->gather));
    ebb__discard_release(discard);
    return 0;
}

/* ---- the operator ---- */

void ebb_discard_inhibit(struct ebb_discard *discard, bool on)
{
    atomic_store(&discard->inhibited, on);
    if (!on)
        return;
    /* A call that began before ends with this; the next one sees the switch. */
    pthread_mutex_lock(&discard->discarding);
    pthread_mutex_unlock(&discard->discarding);
}

bool ebb_discard_try_inhibit(struct ebb_discard *discard)
{
    atomic_store(&discard->inhibited, true);
    if (pthread_mutex_trylock(&discard->discarding) != 0)
        return false;
    pthread_mutex_unlock(&discard->discarding);
    return true;
}

bool ebb_discard_inhibited(const struct ebb_discard *discard)
{
    return atomic_load(&discard->inhibited);
}
