/* SPDX-License-Identifier: BSD-2-Clause */
#include "engine.h"

#include <stdlib.h>

int engine_init(struct engine *engine, const struct ebb_settings *settings, struct ebb_zone *zone)
{
    int err = ebb_history_init(&engine->history, &engine->report, settings);
    size_t bytes;

    engine->memory = NULL;
    if (err)
        return err;
    bytes = ebb_history_metadata_size(&engine->history, zone);
    if (bytes > 0) {
        engine->memory = calloc(1, bytes);
        if (!engine->memory)
            return -EBB_ENOMEM;
    }
    return ebb_history_add_zone(&engine->history, &engine->history_zone, zone, engine->memory);
}

void engine_release(struct engine *engine)
{
    free(engine->memory);
    engine->memory = NULL;
}
