/* SPDX-License-Identifier: BSD-2-Clause */
#include "engine.h"

#include <sys/mman.h>

int engine_init(struct engine *engine, const struct ebb_settings *settings, struct ebb_zone *zone)
{
    int err = ebb_history_init(&engine->history, &engine->report, settings);

    engine->memory = NULL;
    engine->bytes = 0;
    if (err)
        return err;
    engine->bytes = ebb_history_metadata_size(&engine->history, zone);
    if (engine->bytes > 0) {
        /* Fresh pages, which nothing backs until a tracker writes to them. */
        engine->memory =
            mmap(NULL, engine->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (engine->memory == MAP_FAILED) {
            engine->memory = NULL;
            return -EBB_ENOMEM;
        }
    }
    return ebb_history_add_zone(&engine->history, &engine->history_zone, zone, engine->memory);
}

void engine_release(struct engine *engine)
{
    if (engine->memory)
        munmap(engine->memory, engine->bytes);
    engine->memory = NULL;
}
