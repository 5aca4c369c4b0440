/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory in one piece: compaction, and ranges of frames that may be longer than any block. */
#include "step.h"

#include <ebb/compact.h>

#define BUDGET     ((uint64_t)1 << 16) /* frames between two looks at the clock */
#define STAMP_WORD (EBB_FRAME_SIZE / 8 - 1)

/* ---- compact ---- */

/* Free pageblocks, in all zones. */
static uint64_t whole_pageblocks(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < memory_zones(); i++) {
        struct ebb_zone *zone = memory_zone(i);
        struct ebb_zone_stats stats;

        ebb_zone_drain(zone);
        ebb_zone_stats(zone, &stats);
        for (unsigned order = zone->pageblock_order; order <= zone->max_order; order++)
            for (unsigned type = 0; type < EBB_MIGRATETYPES; type++)
                sum += stats.lists[order][type].blocks << (order - zone->pageblock_order);
    }
    return sum;
}

/* Adds what it did to *sum. */
static int compact_zone(struct step *step, struct ebb_zone *zone, const struct ebb_migrate_ops *ops,
                        struct ebb_compact *sum)
{
    struct ebb_compact compact;
    int err = ebb_compact_init(&compact, zone, 0, 0);

    if (err != 0)
        return err;
    while ((err = ebb_compact(&compact, ops, BUDGET)) > 0)
        if (step_note_due(step, 0))
            console_print("compact: %lu blocks moved\n", sum->migrated + compact.migrated);
    sum->migrated += compact.migrated;
    sum->failed += compact.failed;
    sum->made += compact.made;
    return err;
}

enum status compact_all(void)
{
    struct step step = {.name = "compact"};
    struct ebb_compact sum = {0};
    uint64_t moved, whole, before = whole_pageblocks();
    uint64_t begin = arch_now();
    const struct ebb_migrate_ops ops = hold_begin_moves(&moved);

    for (unsigned i = 0; i < memory_zones() && !step.error; i++)
        step.error = compact_zone(&step, memory_zone(i), &ops, &sum);
    if (step.error) {
        console_print("compact: %s (error %d)\n", step_problem(step.error), step.error);
        return STATUS_USAGE;
    }
    whole = whole_pageblocks();
    telemetry_line("result ns=%lu step=compact moved=%lu moved_kib=%lu failed=%lu made=%lu "
                   "whole_before=%lu whole=%lu elapsed_ns=%lu",
                   arch_now(), sum.migrated, moved * FRAME_KIB, sum.failed, sum.made, before, whole,
                   arch_now() - begin);
    console_print("compact: %lu blocks moved, %lu pageblocks made whole; %lu are, of %lu before\n",
                  sum.migrated, sum.made, whole, before);
    return STATUS_OK;
}

/* ---- contiguous ---- */

struct piece {
    struct ebb_zone *zone;
    ebb_pfn_t pfn;
    uint64_t frames;
};

/* In this zone; anywhere if there is no pfn. */
static int take_in(struct piece *piece, struct ebb_zone *zone, ebb_pfn_t pfn,
                   const struct ebb_migrate_ops *ops)
{
    uint64_t deadline = 0;
    int err;

    piece->zone = zone;
    piece->pfn = pfn;
    do
        err = pfn ? ebb_alloc_range(zone, pfn, piece->frames, ops)
                  : ebb_alloc_contiguous(zone, piece->frames, 0, ops, &piece->pfn);
    while (memory_again(err, &deadline));
    return err;
}

static int take(struct piece *piece, ebb_pfn_t pfn, const struct ebb_migrate_ops *ops)
{
    int err = -EBB_ENOMEM;

    if (pfn)
        return memory_zone_of(pfn) ? take_in(piece, memory_zone_of(pfn), pfn, ops) : -EBB_EINVAL;
    for (unsigned i = 0; i < memory_zones() && err != 0; i++)
        err = take_in(piece, memory_zone(i), 0, ops);
    return err;
}

static volatile uint64_t *words_of(const struct piece *piece, uint64_t i)
{
    return memory_pointer(piece->pfn + i);
}

static void stamp(const struct piece *piece)
{
    for (uint64_t i = 0; i < piece->frames; i++)
        words_of(piece, i)[0] = words_of(piece, i)[STAMP_WORD] = ~(piece->pfn + i);
}

static void check(const struct piece *piece)
{
    for (uint64_t i = 0; i < piece->frames; i++) {
        uint64_t expect = ~(piece->pfn + i);
        uint64_t first = words_of(piece, i)[0];
        uint64_t second = words_of(piece, i)[STAMP_WORD];

        if (first != expect || second != expect)
            hold_fault(piece->pfn + i, expect, first != expect ? first : second);
    }
    hold_count_checks(0, piece->frames);
}

enum status compact_contiguous(uint64_t frames, ebb_pfn_t pfn)
{
    struct step step = {.name = "contiguous"};
    struct piece piece = {.frames = frames};
    uint64_t moved;
    const struct ebb_migrate_ops ops = hold_begin_moves(&moved);
    char size[16], more[16];
    int err;

    if (!step_fits(step.name, frames, 0))
        return STATUS_USAGE;
    err = take(&piece, pfn, &ops);
    if (err != 0) {
        console_print("contiguous: %s (error %d)\n", step_problem(err), err);
        return STATUS_USAGE;
    }
    stamp(&piece);
    telemetry_hold(frames);
    if (step_corrupt_asked())
        words_of(&piece, hold_random(0, frames))[0] = 0;
    check(&piece);
    if (ebb_free_range(piece.zone, piece.pfn, frames) != 0) /* the port has told what was wrong */
        hold_error();
    telemetry_release(frames);
    telemetry_line("result ns=%lu step=contiguous kib=%lu address=%lu moved_kib=%lu", arch_now(),
                   frames * FRAME_KIB, piece.pfn << EBB_FRAME_SHIFT, moved * FRAME_KIB);
    console_print("contiguous: %s taken at %lx, checked, freed; %s moved\n",
                  text_size(size, frames * FRAME_KIB), piece.pfn << EBB_FRAME_SHIFT,
                  text_size(more, moved * FRAME_KIB));
    return step_finish(&step);
}
