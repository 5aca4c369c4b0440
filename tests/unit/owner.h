/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An owner of blocks who can move them: a table of what he owns and what it
 * should hold, and a word for each frame that says what it does hold. For tests
 * of what moves data. Single-threaded.
 */
#ifndef OWNER_H
#define OWNER_H

#include <ebb/compact.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OWNER_LIMIT 4096u

struct owned {
    ebb_pfn_t pfn;
    unsigned order;
    enum ebb_migratetype type;
    uint64_t id;
};

struct owner {
    struct ebb_zone *zone;
    uint64_t *content; /* of each frame of the span */
    struct owned owned[OWNER_LIMIT];
    unsigned count;
    uint64_t ids;

    /* What migrate does. */
    uint64_t random;
    unsigned refuse;  /* out of 256: refuses */
    unsigned release; /* out of 256: frees the block instead */
    unsigned meddle;  /* out of 256: frees or allocates something else as well */
    ebb_pfn_t pinned; /* never moves what holds this frame; 0: none */
    unsigned calls;
    unsigned moves;
};

static uint64_t owner_random(struct owner *owner)
{
    owner->random ^= owner->random << 13;
    owner->random ^= owner->random >> 7;
    owner->random ^= owner->random << 17;
    return owner->random;
}

static void owner_init(struct owner *owner, struct ebb_zone *zone, uint64_t seed)
{
    *owner = (struct owner){.zone = zone, .random = seed * 2 + 1};
    owner->content = calloc(zone->span, sizeof(*owner->content));
    assert_non_null(owner->content);
}

static uint64_t *owner_content(struct owner *owner, ebb_pfn_t pfn)
{
    assert_in_range(pfn, owner->zone->base, owner->zone->base + owner->zone->span - 1);
    return &owner->content[pfn - owner->zone->base];
}

static uint64_t owner_word(uint64_t id, uint64_t frame)
{
    return (id << 20 | frame) * 0x9e3779b97f4a7c15u + 1;
}

/* The block is the owner's: write to all of it. */
static void owner_adopt(struct owner *owner, ebb_pfn_t pfn, unsigned order,
                        enum ebb_migratetype type)
{
    struct owned *owned = &owner->owned[owner->count++];

    assert_true(owner->count < OWNER_LIMIT);
    *owned = (struct owned){.pfn = pfn, .order = order, .type = type, .id = ++owner->ids};
    for (uint64_t i = 0; i < (uint64_t)1 << order; i++)
        *owner_content(owner, pfn + i) = owner_word(owned->id, i);
}

/* Allocate; returns the error. */
static int owner_alloc(struct owner *owner, unsigned order, enum ebb_migratetype type,
                       unsigned flags)
{
    ebb_pfn_t pfn;
    int err = ebb_alloc(owner->zone, order, type, flags, &pfn);

    if (!err)
        owner_adopt(owner, pfn, order, type);
    return err;
}

/* What the owner holds is intact. */
static void owner_check_block(struct owner *owner, const struct owned *owned)
{
    for (uint64_t i = 0; i < (uint64_t)1 << owned->order; i++) {
        if (*owner_content(owner, owned->pfn + i) != owner_word(owned->id, i))
            fail_msg("the data of pfn %#llx + %llu is lost", (unsigned long long)owned->pfn,
                     (unsigned long long)i);
    }
}

__attribute__((unused)) static void owner_check(struct owner *owner)
{
    for (unsigned i = 0; i < owner->count; i++)
        owner_check_block(owner, &owner->owned[i]);
}

static void owner_free(struct owner *owner, unsigned which)
{
    struct owned owned = owner->owned[which];

    owner_check_block(owner, &owned);
    for (uint64_t i = 0; i < (uint64_t)1 << owned.order; i++)
        *owner_content(owner, owned.pfn + i) = 0xdead;
    owner->owned[which] = owner->owned[--owner->count];
    assert_int_equal(ebb_free(owner->zone, owned.pfn, owned.order), 0);
}

__attribute__((unused)) static void owner_free_all(struct owner *owner)
{
    while (owner->count > 0)
        owner_free(owner, owner->count - 1);
}

/* Free what is at pfn. */
__attribute__((unused)) static void owner_free_at(struct owner *owner, ebb_pfn_t pfn)
{
    for (unsigned i = 0; i < owner->count; i++) {
        if (owner->owned[i].pfn == pfn) {
            owner_free(owner, i);
            return;
        }
    }
    fail_msg("nothing at pfn %#llx", (unsigned long long)pfn);
}

static bool owner_chance(struct owner *owner, unsigned of_256)
{
    return owner_random(owner) % 256 < of_256;
}

static void owner_meddle(struct owner *owner)
{
    if (owner->count > 0 && owner_random(owner) % 2)
        owner_free(owner, (unsigned)(owner_random(owner) % owner->count));
    else if (owner->count < OWNER_LIMIT - 1)
        (void)!owner_alloc(owner, (unsigned)(owner_random(owner) % 3),
                           (enum ebb_migratetype)(owner_random(owner) % 3), 0);
}

static int owner_migrate(void *ctx, ebb_pfn_t from, ebb_pfn_t to, unsigned order)
{
    struct owner *owner = ctx;
    uint64_t frames = (uint64_t)1 << order;

    owner->calls++;
    if (owner_chance(owner, owner->meddle))
        owner_meddle(owner);
    for (unsigned i = 0; i < owner->count; i++) {
        struct owned *owned = &owner->owned[i];

        if (owned->pfn != from || owned->order != order)
            continue;
        assert_int_equal(owned->type, EBB_MOVABLE);
        if (owner_chance(owner, owner->refuse))
            return -EBB_EBUSY;
        if (owner->pinned >= from && owner->pinned < from + frames)
            return -EBB_EBUSY;
        if (owner_chance(owner, owner->release)) {
            owner_free(owner, i);
            return -EBB_ENOENT;
        }
        for (uint64_t k = 0; k < frames; k++) {
            *owner_content(owner, to + k) = *owner_content(owner, from + k);
            *owner_content(owner, from + k) = 0xdead;
        }
        owned->pfn = to;
        owner->moves++;
        return 0;
    }
    return -EBB_ENOENT;
}

static struct ebb_migrate_ops owner_ops(struct owner *owner)
{
    return (struct ebb_migrate_ops){.migrate = owner_migrate, .ctx = owner};
}

/* At the end of a test: nothing is left. */
static void owner_done(struct owner *owner)
{
    assert_int_equal(owner->count, 0);
    free(owner->content);
    owner->content = NULL;
}

/* Any seed for tests that draw lots; EBB_SEED replays one. */
__attribute__((unused)) static uint64_t owner_seed(uint64_t otherwise)
{
    const char *given = getenv("EBB_SEED");

    return given ? strtoull(given, NULL, 0) : otherwise;
}

#endif
