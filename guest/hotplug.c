/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that comes and goes: pageblocks that are taken out of their zones, and brought back.
 *
 * An unplug isolates pageblocks from the high end down, and has what is held in them moved to
 * others. Those that cannot be emptied it puts back, and tries further ones instead. Isolated
 * memory is not reported, so once there are enough all of them are put back for as long as it
 * takes to tell the host; nobody allocates meanwhile but an inflating balloon. Then they are
 * isolated again, and go.
 */
#include "step.h"

#include <ebb/range.h>

#define POLL (10 * NS_PER_MS)

/* Of each pageblock its first pfn, and in the low bits the type that it had: those that are out,
 * oldest first, and behind them those that are being unplugged. */
static uint64_t *pageblocks;
static uint64_t out;

struct unplug {
    struct ebb_migrate_ops ops;
    uint64_t moved; /* frames */
    uint64_t want;  /* pageblocks */
    uint64_t count; /* of them: isolated so far */
    int error;      /* the last one */
};

void hotplug_init(void *records)
{
    pageblocks = records;
}

/* Every zone has the same. */
static unsigned pageblock_order(void)
{
    return memory_zone(0)->pageblock_order;
}

static uint64_t pageblock_frames(void)
{
    return (uint64_t)1 << pageblock_order();
}

static ebb_pfn_t pfn_of(uint64_t pageblock)
{
    return pageblock & ~(pageblock_frames() - 1);
}

static enum ebb_migratetype type_of(uint64_t pageblock)
{
    return (enum ebb_migratetype)(pageblock & (pageblock_frames() - 1));
}

static uint64_t to_pageblocks(uint64_t frames)
{
    return round_up(frames, pageblock_frames()) >> pageblock_order();
}

static uint64_t pageblocks_kib(uint64_t n)
{
    return n * pageblock_frames() * FRAME_KIB;
}

static void must(int err)
{
    if (err != 0)
        ebb_port_panic("a zone refuses to take a pageblock back");
}

/* ---- emptying ---- */

/* Is all of a pageblock managed? And of which type is it? */
static bool is_whole(struct ebb_zone *zone, ebb_pfn_t pfn, enum ebb_migratetype *type)
{
    ebb_pfn_t end = pfn + pageblock_frames();
    struct ebb_block block;

    while (pfn < end) {
        ebb_zone_lookup(zone, pfn, &block);
        if (block.state == EBB_BLOCK_NONE)
            return false;
        pfn = block.pfn + ((ebb_pfn_t)1 << block.order);
    }
    *type = (enum ebb_migratetype)block.type;
    return true;
}

/* As many as are wanted still, below *pfn. */
static void isolate_some(struct unplug *unplug, struct ebb_zone *zone, ebb_pfn_t *pfn)
{
    enum ebb_migratetype type;

    while (unplug->count<unplug->want && * pfn> zone->first) {
        *pfn -= pageblock_frames();
        if (is_whole(zone, *pfn, &type) && ebb_isolate_range(zone, *pfn, pageblock_frames()) == 0)
            pageblocks[out + unplug->count++] = *pfn | type;
    }
}

static int empty(const struct unplug *unplug, uint64_t pageblock)
{
    ebb_pfn_t pfn = pfn_of(pageblock);
    uint64_t deadline = 0;
    int err;

    do
        err = ebb_evacuate_range(memory_zone_of(pfn), pfn, pageblock_frames(), &unplug->ops);
    while (memory_again(err, &deadline));
    return err;
}

static void put_back(uint64_t pageblock)
{
    ebb_pfn_t pfn = pfn_of(pageblock);

    must(ebb_putback_range(memory_zone_of(pfn), pfn, pageblock_frames(), type_of(pageblock)));
}

/* From the i-th on. One that is put back is room for what is in the next. */
static void empty_some(struct unplug *unplug, uint64_t i)
{
    uint64_t isolated = unplug->count;

    unplug->count = i;
    for (; i < isolated; i++) {
        int err = empty(unplug, pageblocks[out + i]);

        if (err != 0) {
            unplug->error = err;
            put_back(pageblocks[out + i]);
        } else {
            pageblocks[out + unplug->count++] = pageblocks[out + i];
        }
    }
}

static void unplug_from(struct unplug *unplug, struct ebb_zone *zone)
{
    ebb_pfn_t pfn = zone->base + (zone->span & ~(pageblock_frames() - 1));

    while (unplug->count < unplug->want && pfn > zone->first && unplug->error != -EBB_EAGAIN) {
        uint64_t first = unplug->count;

        isolate_some(unplug, zone, &pfn);
        empty_some(unplug, first);
    }
}

/* Whatever became of them. */
static void put_all_back(const struct unplug *unplug)
{
    for (uint64_t i = out; i < out + unplug->count; i++) {
        ebb_pfn_t pfn = pfn_of(pageblocks[i]);
        struct ebb_zone *zone = memory_zone_of(pfn);
        struct ebb_block block;

        ebb_zone_lookup(zone, pfn, &block);
        if (block.state == EBB_BLOCK_NONE)
            must(ebb_zone_add(zone, pfn, pageblock_frames()));
        else if (block.type == EBB_ISOLATE)
            put_back(pageblocks[i]);
    }
}

/* ---- telling the host ---- */

static uint64_t unreported_of(ebb_pfn_t pfn)
{
    ebb_pfn_t end = pfn + pageblock_frames();
    uint64_t sum = 0;

    while (pfn < end) {
        struct ebb_block block;
        ebb_pfn_t next;

        ebb_zone_lookup(memory_zone_of(pfn), pfn, &block);
        next = block.pfn + ((ebb_pfn_t)1 << block.order);
        if (!block.reported)
            sum += (next < end ? next : end) - pfn;
        pfn = next;
    }
    return sum;
}

/* Frames that the host has not been told of. */
static uint64_t unreported(const struct unplug *unplug)
{
    uint64_t sum = 0;

    for (uint64_t i = out; i < out + unplug->count; i++)
        sum += unreported_of(pfn_of(pageblocks[i]));
    return sum;
}

/* Until it knows of all, or takes no more. */
static void tell_host(const struct unplug *unplug)
{
    uint64_t left = unreported(unplug);
    uint64_t deadline = 0;

    while (left > 0) {
        uint64_t before = left;

        balloon_report_now();
        events_sleep_until(arch_now() + POLL);
        left = unreported(unplug);
        if (left < before)
            deadline = 0;
        else if (!memory_again(-EBB_EAGAIN, &deadline))
            return;
    }
}

static int give_to_host(const struct unplug *unplug)
{
    int err = 0;

    put_all_back(unplug);
    tell_host(unplug);
    for (uint64_t i = out; i < out + unplug->count && err == 0; i++) {
        ebb_pfn_t pfn = pfn_of(pageblocks[i]);

        err = ebb_isolate_range(memory_zone_of(pfn), pfn, pageblock_frames());
        if (err == 0)
            err = empty(unplug, pageblocks[i]);
    }
    return err;
}

/* ---- out ---- */

static int remove_all(const struct unplug *unplug)
{
    for (uint64_t i = out; i < out + unplug->count; i++) {
        ebb_pfn_t pfn = pfn_of(pageblocks[i]);
        uint64_t deadline = 0;
        int err;

        do
            err = ebb_zone_remove(memory_zone_of(pfn), pfn, pageblock_frames());
        while (memory_again(err, &deadline));
        if (err != 0)
            return err;
    }
    return 0;
}

static enum status give_up(const struct unplug *unplug)
{
    char size[16], all[16];

    put_all_back(unplug);
    console_print("unplug: %s of %s can be emptied, not more: %s (error %d); all of it is back\n",
                  text_size(size, pageblocks_kib(unplug->count)),
                  text_size(all, pageblocks_kib(unplug->want)), step_problem(unplug->error),
                  unplug->error);
    return STATUS_USAGE;
}

enum status hotplug_unplug(uint64_t frames)
{
    struct unplug unplug = {.want = to_pageblocks(frames), .error = -EBB_EBUSY};
    uint64_t begin = arch_now();
    uint64_t kept;
    char size[16], moved[16], known[16], all[16];

    if (!step_fits("unplug", unplug.want << pageblock_order(), 0))
        return STATUS_USAGE;
    unplug.ops = hold_begin_moves(&unplug.moved);
    for (unsigned i = 0; i < memory_zones() && unplug.count < unplug.want; i++)
        unplug_from(&unplug, memory_zone(i));
    if (unplug.count < unplug.want)
        return give_up(&unplug);
    unplug.error = balloon_reporting() ? give_to_host(&unplug) : 0;
    kept = unreported(&unplug) * FRAME_KIB;
    if (unplug.error == 0)
        unplug.error = remove_all(&unplug);
    if (unplug.error)
        return give_up(&unplug);
    out += unplug.count;
    telemetry_line("result ns=%lu step=unplug kib=%lu reported_kib=%lu moved_kib=%lu out_kib=%lu "
                   "elapsed_ns=%lu",
                   arch_now(), pageblocks_kib(unplug.count), pageblocks_kib(unplug.count) - kept,
                   unplug.moved * FRAME_KIB, pageblocks_kib(out), arch_now() - begin);
    console_print("unplug: %s taken out, the host was told of %s, %s moved; %s are out\n",
                  text_size(size, pageblocks_kib(unplug.count)),
                  text_size(known, pageblocks_kib(unplug.count) - kept),
                  text_size(moved, unplug.moved * FRAME_KIB), text_size(all, pageblocks_kib(out)));
    return STATUS_OK;
}

/* ---- and in ---- */

enum status hotplug_plug(uint64_t frames)
{
    uint64_t n = to_pageblocks(frames);
    char size[16], all[16];

    if (out == 0) {
        console_print("hotplug: nothing is unplugged\n");
        return STATUS_USAGE;
    }
    if (n > out) {
        console_print("hotplug: %s are more than the %s that are unplugged\n",
                      text_size(size, pageblocks_kib(n)), text_size(all, pageblocks_kib(out)));
        return STATUS_USAGE;
    }
    for (uint64_t i = 0; i < n; i++) {
        ebb_pfn_t pfn = pfn_of(pageblocks[--out]);

        must(ebb_zone_add(memory_zone_of(pfn), pfn, pageblock_frames()));
    }
    telemetry_line("result ns=%lu step=hotplug kib=%lu out_kib=%lu", arch_now(), pageblocks_kib(n),
                   pageblocks_kib(out));
    console_print("hotplug: %s are back, %s are out\n", text_size(size, pageblocks_kib(n)),
                  text_size(all, pageblocks_kib(out)));
    return STATUS_OK;
}
