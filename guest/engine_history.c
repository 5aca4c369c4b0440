/* SPDX-License-Identifier: BSD-2-Clause */
/* The engine with trackers and pacing of 2019 as well: ebb-guest-history.elf. */
#include "guest.h"

static struct ebb_history history;
static struct ebb_history_zone history_zones[ZONE_LIMIT];

int engine_set(struct ebb_settings *settings, const char *key, const char *value,
               const char **allowed)
{
    return ebb_settings_set(settings, key, value, allowed);
}

const char *engine_problem(const struct ebb_settings *settings)
{
    return ebb_history_problem(settings);
}

int engine_init(struct ebb_report *engine, const struct ebb_settings *settings)
{
    return ebb_history_init(&history, engine, settings);
}

int engine_add_zone(struct ebb_report *engine, unsigned zone)
{
    size_t size = ebb_history_metadata_size(&history, memory_zone(zone));
    void *memory = size > 0 ? early_alloc(size, 64) : NULL;

    (void)engine;
    return ebb_history_add_zone(&history, &history_zones[zone], memory_zone(zone), memory);
}
