/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory: what the loader's map leaves after the kernel becomes one zone below
 * 4 GiB and one above. Their metadata lies right behind the kernel's image and
 * is not cleared: memory of a fresh virtual machine is zero, and metadata of
 * frames that nobody uses shall stay unbacked on the host.
 */
#include "guest.h"

#define LOW_END   ((uint64_t)1 << 32)
#define FIRST_MIB ((uint64_t)1 << 20)
#define WARM_MARK 0x4b52414d20626265u /* "ebb MARK" */
#define PATIENCE  (10 * NS_PER_SEC)   /* with the host */

static const struct arch_boot *boot;
static uint64_t early_start; /* of the image */
static uint64_t early_next, early_end;
static bool early_over;
static bool warm; /* a reset left what was here before */

static struct ebb_zone zones[ZONE_LIMIT];
static const char *names[ZONE_LIMIT];
static unsigned zone_count;
static struct ebb_zonelist zonelist;
static uint64_t managed;

/* ---- before there are zones ---- */

void *early_alloc(uint64_t size, uint64_t align)
{
    uint64_t at = round_up(early_next, align);

    if (early_over)
        ebb_port_panic("early_alloc() after memory_open()");
    if (at + size > early_end)
        ebb_port_panic("no room behind the kernel: the guest needs more memory below 4 GiB");
    early_next = at + size;
    if (warm)
        memset(arch_pointer(at), 0, size);
    return arch_pointer(at);
}

/*
 * A loader clears the kernel's image at a reset, but no other memory. So the
 * first early word tells a fresh machine, whose memory is zero, from one that
 * was reset: there early memory must be cleared.
 */
static void find_mark(void)
{
    volatile uint64_t *mark = early_alloc(sizeof *mark, 64);

    warm = *mark == WARM_MARK;
    *mark = WARM_MARK;
}

void memory_early(const struct arch_boot *info)
{
    boot = info;
    early_start = info->image.start;
    early_next = info->image.end;
    for (unsigned i = 0; i < info->ram_count; i++)
        if (info->ram[i].start <= info->image.start && info->ram[i].end > info->image.end)
            early_end = info->ram[i].end;
    if (early_end == 0)
        ebb_port_panic("the memory map does not hold the kernel");
    find_mark();
}

/* ---- zones ---- */

void memory_clear(ebb_pfn_t pfn, uint64_t frames)
{
    memset(memory_pointer(pfn), 0, frames << EBB_FRAME_SHIFT);
}

static void clear_frames(void *ctx, ebb_pfn_t pfn, uint64_t frames)
{
    (void)ctx;
    memory_clear(pfn, frames);
}

static void fill_frames(void *ctx, ebb_pfn_t pfn, uint64_t frames, uint32_t value)
{
    uint32_t *words = memory_pointer(pfn);

    (void)ctx;
    for (uint64_t i = 0; i < (frames << EBB_FRAME_SHIFT) / sizeof *words; i++)
        words[i] = value;
}

/* A frame written to while it was free is an error that the run ends with. */
static bool verify_frames(void *ctx, ebb_pfn_t pfn, uint64_t frames, uint32_t value)
{
    const uint32_t *words = memory_pointer(pfn);

    (void)ctx;
    for (uint64_t i = 0; i < (frames << EBB_FRAME_SHIFT) / sizeof *words; i++) {
        if (words[i] != value)
            return false;
    }
    return true;
}

/* The part of RAM range i that lies in [start, end); false: none. */
static bool clip(unsigned i, uint64_t start, uint64_t end, struct arch_range *part)
{
    part->start = boot->ram[i].start > start ? boot->ram[i].start : start;
    part->end = boot->ram[i].end < end ? boot->ram[i].end : end;
    return part->start < part->end;
}

static uint64_t watermark(uint64_t frames)
{
    uint64_t min = frames / 1024;

    return min < 32 ? 32 : min > 1024 ? 1024 : min;
}

/* `distance` orders the zones: as everywhere, low memory is kept for last. */
static void make_zone(const char *name, uint64_t start, uint64_t end, uint32_t distance,
                      struct ebb_zone_config config)
{
    struct arch_range part, span = {0, 0};
    uint64_t frames = 0;
    size_t size;

    for (unsigned i = 0; i < boot->ram_count; i++) {
        if (!clip(i, start, end, &part))
            continue;
        if (frames == 0)
            span.start = part.start;
        span.end = part.end;
        frames += (part.end - part.start) >> EBB_FRAME_SHIFT;
    }
    if (frames == 0)
        return;
    config.base = span.start >> EBB_FRAME_SHIFT;
    config.frames = (span.end - span.start) >> EBB_FRAME_SHIFT;
    config.watermark_min = watermark(frames);
    config.watermark_low = 2 * config.watermark_min;
    size = ebb_zone_metadata_size(&config);
    if (size == 0 || ebb_zone_init(&zones[zone_count], &config, early_alloc(size, 4096)) != 0)
        ebb_port_panic("a zone refuses its configuration");
    if (ebb_zonelist_add(&zonelist, &zones[zone_count], distance) != 0)
        ebb_port_panic("the zone list refuses a zone");
    names[zone_count++] = name;
}

static void add_range(struct ebb_zone *zone, uint64_t start, uint64_t end)
{
    if (start < end &&
        ebb_zone_add(zone, start >> EBB_FRAME_SHIFT, (end - start) >> EBB_FRAME_SHIFT) != 0)
        ebb_port_panic("a zone refuses its frames");
}

/* All RAM of [start, end) but what the kernel and its early memory occupy. */
static void fill_zone(struct ebb_zone *zone, uint64_t start, uint64_t end)
{
    uint64_t taken_end = round_up(early_next, EBB_FRAME_SIZE);
    struct arch_range part;

    for (unsigned i = 0; i < boot->ram_count; i++) {
        if (!clip(i, start, end, &part))
            continue;
        if (part.end <= early_start || part.start >= taken_end) {
            add_range(zone, part.start, part.end);
        } else {
            add_range(zone, part.start, early_start);
            add_range(zone, taken_end, part.end);
        }
    }
}

static uint64_t pageblocks(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < zone_count; i++)
        sum += (zones[i].span >> zones[i].pageblock_order) + 1;
    return sum;
}

void memory_init(unsigned cpus, enum ebb_fill fill)
{
    const struct ebb_zone_config config = {
        .cpus = (uint16_t)cpus,
        .fill_policy = (uint8_t)fill,
        .clear = clear_frames,
        .fill = fill_frames,
        .verify = verify_frames,
    };

    ebb_zonelist_init(&zonelist, 0);
    make_zone("high", LOW_END, UINT64_MAX, 10, config);
    make_zone("low", FIRST_MIB, LOW_END, 20, config);
    hotplug_init(early_alloc(pageblocks() * HOTPLUG_RECORD, 64));
}

void memory_open(void)
{
    struct memory_totals totals;

    early_over = true;
    for (unsigned i = 0; i < zone_count; i++) {
        if (text_equal(names[i], "high"))
            fill_zone(&zones[i], LOW_END, UINT64_MAX);
        else
            fill_zone(&zones[i], FIRST_MIB, LOW_END);
    }
    memory_totals(&totals);
    managed = totals.managed;
}

unsigned memory_zones(void)
{
    return zone_count;
}

struct ebb_zone *memory_zone(unsigned i)
{
    return &zones[i];
}

const char *memory_zone_name(unsigned i)
{
    return names[i];
}

uint64_t memory_used(const struct memory_totals *totals)
{
    uint64_t balloon = balloon_frames();

    return totals->allocated > balloon ? totals->allocated - balloon : 0;
}

uint64_t memory_managed(void)
{
    return managed;
}

uint64_t memory_reserve(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < zone_count; i++)
        sum += zones[i].watermark_min;
    return sum;
}

int memory_alloc(unsigned order, enum ebb_migratetype type, unsigned flags, ebb_pfn_t *pfn)
{
    return ebb_zonelist_alloc(&zonelist, order, type, flags, pfn, NULL);
}

int memory_take(unsigned order, enum ebb_migratetype type, unsigned flags, ebb_pfn_t *pfn)
{
    int err = memory_alloc(order, type, flags, pfn);

    if (EBB_UNLIKELY(err == -EBB_EAGAIN)) {
        uint64_t deadline = arch_now() + PATIENCE;

        while (err == -EBB_EAGAIN && arch_now() < deadline) {
            ebb_port_relax();
            err = memory_alloc(order, type, flags, pfn);
        }
    }
    return err;
}

bool memory_again(int err, uint64_t *deadline)
{
    uint64_t now = arch_now();

    if (*deadline == 0)
        *deadline = now + PATIENCE;
    if (err != -EBB_EAGAIN || now >= *deadline)
        return false;
    events_sleep_until(now + NS_PER_MS);
    return true;
}

struct ebb_zone *memory_zone_of(ebb_pfn_t pfn)
{
    return ebb_zonelist_zone(&zonelist, pfn);
}

void memory_free(ebb_pfn_t pfn, unsigned order)
{
    if (ebb_zonelist_free(&zonelist, pfn, order) != 0) /* the port has told what was wrong */
        console_print("free of pfn %lx order %u was refused\n", pfn, order);
}

void memory_totals(struct memory_totals *totals)
{
    *totals = (struct memory_totals){0};
    for (unsigned i = 0; i < zone_count; i++) {
        struct ebb_zone_stats stats;

        ebb_zone_stats(&zones[i], &stats);
        totals->managed += stats.managed;
        totals->free += stats.free;
        totals->cached += stats.cached;
        totals->in_flight += stats.in_flight;
        totals->allocated += stats.allocated;
        totals->reported += stats.reported;
        totals->refaulted += stats.refaulted;
    }
}
