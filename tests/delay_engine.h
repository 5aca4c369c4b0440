/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests that want everything reported, soon, and not to wait for what is surplus: an engine
 * with a fixed delay and one zone, by src/history.
 */
#ifndef EBB_TESTS_DELAY_ENGINE_H
#define EBB_TESTS_DELAY_ENGINE_H

#include <ebb/history.h>

#include <stdlib.h>

struct delay_engine {
    struct ebb_history history;
    struct ebb_history_zone zone;
    void *memory;
};

/* 0, or an error of ebb_history_init() or ebb_history_add_zone(). */
static inline int delay_engine_init(struct delay_engine *engine, struct ebb_report *report,
                                    const struct ebb_settings *settings, struct ebb_zone *zone)
{
    int err = ebb_history_init(&engine->history, report, settings);
    size_t size;

    if (err)
        return err;
    size = settings->history.pacing == EBB_PACING_DELAY
               ? ebb_history_metadata_size(&engine->history, zone)
               : 0;
    engine->memory = size > 0 ? calloc(1, size) : NULL;
    return ebb_history_add_zone(&engine->history, &engine->zone, zone, engine->memory);
}

static inline void delay_engine_free(struct delay_engine *engine)
{
    free(engine->memory);
    engine->memory = NULL;
}

#endif
