/* SPDX-License-Identifier: BSD-2-Clause */
/* See setting.h. */
#include "setting.h"

#include <stdio.h>

static const char *const pacing_names[PACINGS] = {
    [PACING_ALL] = "all",
    [PACING_HWM] = "threshold-32",
    [PACING_TWICE] = "threshold-2x",
    [PACING_BUDGET] = "budget-16",
};

bool is_worker(const struct setting *setting)
{
    return setting->execution == EBB_EXECUTION_WORKER;
}
bool is_inline(const struct setting *setting)
{
    return setting->execution == EBB_EXECUTION_INLINE;
}
bool is_all(const struct setting *setting)
{
    return setting->pacing == PACING_ALL;
}
bool is_threshold(const struct setting *setting)
{
    return setting->pacing == PACING_HWM || setting->pacing == PACING_TWICE;
}
bool is_twice(const struct setting *setting)
{
    return setting->pacing == PACING_TWICE;
}
bool is_budget(const struct setting *setting)
{
    return setting->pacing == PACING_BUDGET;
}
bool is_not_budget(const struct setting *setting)
{
    return !is_budget(setting);
}
bool is_all_worker(const struct setting *setting)
{
    return is_all(setting) && is_worker(setting);
}
bool is_all_inline(const struct setting *setting)
{
    return is_all(setting) && is_inline(setting);
}
bool is_rotation(const struct setting *setting)
{
    return setting->tracker == EBB_TRACKER_ROTATION;
}
bool is_membrane(const struct setting *setting)
{
    return setting->tracker == EBB_TRACKER_MEMBRANE;
}
bool is_boundary(const struct setting *setting)
{
    return setting->tracker == EBB_TRACKER_BOUNDARY;
}
bool is_bitmap(const struct setting *setting)
{
    return setting->tracker == EBB_TRACKER_BITMAP;
}
bool is_sorted(const struct setting *setting)
{
    return setting->tracker == EBB_TRACKER_SORTED;
}
bool has_dividers(const struct setting *setting)
{
    return is_membrane(setting) || is_boundary(setting) || is_sorted(setting);
}
bool has_direction(const struct setting *setting)
{
    return !is_bitmap(setting);
}

const char *setting_name(const struct setting *setting, char *text, size_t size)
{
    snprintf(text, size, "%s/%s/%s", ebb_tracker_name(setting->tracker),
             is_inline(setting) ? "inline" : "worker", pacing_names[setting->pacing]);
    return text;
}

void setting_apply(const struct setting *setting, struct ebb_history_config *config)
{
    config->tracker = (uint8_t)setting->tracker;
    config->pacing = EBB_PACING_DELAY; /* surplus pacing: tests/unit/test_pacing.c */
    config->execution = (uint8_t)setting->execution;
    if (config->threshold == 0 && setting->pacing == PACING_HWM)
        config->threshold = 32;
    if (config->threshold == 0 && setting->pacing == PACING_TWICE)
        config->threshold = EBB_REPORT_TWICE_CAPACITY;
    if (config->budget == 0 && setting->pacing == PACING_BUDGET)
        config->budget = 16;
}

struct rig *rig_with(const struct setting *setting, const struct rig_config *config)
{
    struct rig_config c = *config;

    setting_apply(setting, &c.history);
    if (!c.max_order) {
        c.max_order = C_ORDER;
        c.pageblock_order = C_PAGEBLOCK;
    }
    if (!c.pageblock_order)
        c.pageblock_order = c.max_order;
    if (!c.frames)
        c.frames = C_BLOCKS * C_FRAMES;
    if (!c.capacity)
        c.capacity = C_CAPACITY;
    return rig_new(&c);
}

static unsigned capacity_in_use(const struct rig *rig)
{
    unsigned config = rig->report.config.capacity;

    return rig->device.capacity < config ? rig->device.capacity : config;
}

unsigned need(const struct rig *rig)
{
    uint32_t threshold = rig->history.config.threshold;

    return threshold == EBB_REPORT_TWICE_CAPACITY ? 2 * capacity_in_use(rig) : threshold;
}

unsigned take_need(struct rig *rig, unsigned zone, ebb_pfn_t *pfns)
{
    unsigned n = need(rig);

    for (unsigned i = 0; i < n; i++)
        pfns[i] = rig_alloc(rig, zone, rig->zones[zone].max_order);
    return n;
}

void begin(struct rig *rig)
{
    if (rig->history.config.execution == EBB_EXECUTION_INLINE)
        return;
    rig_run_after(rig, (uint64_t)rig->history.config.delay_ms * MS);
}

void flush(struct rig *rig)
{
    ebb_report_now(&rig->report);
    rig_settle(rig);
}

void register_and_flush(struct rig *rig)
{
    rig_register(rig);
    flush(rig);
    rig_forget(rig);
}

static struct rig *checked;

static void check_step(void)
{
    uint64_t locks = port_virtual.locks;
    struct ebb_violation violation = {0};

#ifdef EBB_TEST_SLOW
    /* Here one thread is slow, and the other builds look at each step. */
    static unsigned steps;

    if (steps++ % 5 != 0)
        return;
#endif
    for (unsigned i = 0; i < checked->zone_count; i++) {
        if (ebb_zone_check(&checked->zones[i], EBB_CHECK_FRAMES, &violation) != 0)
            fail_msg("between two steps: zone %u: I%u at pfn %#llx: %s", i, violation.invariant,
                     (unsigned long long)violation.pfn, violation.what);
    }
    port_virtual.locks = locks;
}

void check_every_step(struct rig *rig)
{
    checked = rig;
    port_virtual.on_step = check_step;
}

uint64_t all_reported(const struct rig *rig)
{
    return rig->zones[0].managed;
}

void assert_times(const struct rig *rig, const ebb_pfn_t *pfns, unsigned n, unsigned times)
{
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(rig_times_reported(rig, pfns[i]), times);
}
