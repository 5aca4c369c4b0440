/* SPDX-License-Identifier: BSD-2-Clause */
/* What `free` and `zoneinfo` print. */
#include "guest.h"

void show_free(void)
{
    struct memory_totals t;

    memory_totals(&t);
    console_print("%-6s %10s %10s %10s %10s %10s %10s %10s\n", "KiB", "total", "used", "free",
                  "reported", "in flight", "cached", "balloon");
    console_print("%-6s %10lu %10lu %10lu %10lu %10lu %10lu %10lu\n", "mem", t.managed * FRAME_KIB,
                  memory_used(&t) * FRAME_KIB, t.free * FRAME_KIB, t.reported * FRAME_KIB,
                  t.in_flight * FRAME_KIB, t.cached * FRAME_KIB, balloon_frames() * FRAME_KIB);
}

static void show_lists(const struct ebb_zone_stats *stats, unsigned max_order)
{
    static const char *const types[] = {"movable", "unmovable", "reclaimable", "isolate"};

    for (unsigned type = 0; type < EBB_MIGRATETYPES; type++) {
        char line[200];
        size_t len = 0;
        uint64_t blocks = 0;

        for (unsigned order = 0; order <= max_order; order++) {
            blocks += stats->lists[order][type].blocks;
            len +=
                text_format(line + len, sizeof line - len, " %lu/%lu",
                            stats->lists[order][type].reported, stats->lists[order][type].blocks);
        }
        if (blocks)
            console_print("  %-11s%s\n", types[type], line);
    }
}

static void show_zone(unsigned i)
{
    const struct ebb_zone *zone = memory_zone(i);
    struct ebb_zone_stats s;
    char a[16], b[16], c[16];

    ebb_zone_stats(memory_zone(i), &s);
    console_print("zone %s: %s managed, %s free, %s of it reported (%lu%%)\n", memory_zone_name(i),
                  text_size(a, s.managed * FRAME_KIB), text_size(b, s.free * FRAME_KIB),
                  text_size(c, s.reported * FRAME_KIB), s.free ? s.reported * 100 / s.free : 0);
    console_print("  frames: %lu allocated, %lu cached, %lu in flight, watermarks %lu and %lu\n",
                  s.allocated, s.cached, s.in_flight, zone->watermark_min, zone->watermark_low);
    console_print("  totals: %lu allocs, %lu frees, %lu failures, %lu steals, %lu conversions, "
                  "%lu misuses, %lu frames refaulted\n",
                  s.allocs, s.frees, s.failures, s.steals, s.conversions, s.misuses, s.refaulted);
    console_print("  lists, reported/blocks by order from 0:\n");
    show_lists(&s, zone->max_order);
}

void show_zones(void)
{
    static const char *const phases[] = {"idle", "requested", "active"};
    struct ebb_report_stats s;
    char size[16];

    for (unsigned i = 0; i < memory_zones(); i++)
        show_zone(i);
    balloon_stats(&s);
    console_print("engine: reporting %s, %s; %lu requests, %lu passes, %lu batches (%lu failed), "
                  "%lu blocks, %s reported\n",
                  balloon_reporting() ? "on" : "off", phases[ebb_report_phase(balloon_engine())],
                  s.requests, s.passes, s.batches, s.failed_batches, s.reported_blocks,
                  text_size(size, s.reported_frames * FRAME_KIB));
    if (s.window_ns)
        console_print("engine: window %lu ms, lengthened %lu times, halved %lu times; %lu frames "
                      "used again too soon; surplus of the last pass %s\n",
                      s.window_ns / NS_PER_MS, s.window_grown, s.window_shrunk, s.refaulted_soon,
                      text_size(size, s.surplus_frames * FRAME_KIB));
    if (s.last_error)
        console_print("engine: last error %d\n", s.last_error);
}
