/* SPDX-License-Identifier: BSD-2-Clause */
/* An engine with one zone, by settings of either kind (ebb/history.h). */
#ifndef ENGINE_H
#define ENGINE_H

#include <ebb/history.h>

/* Stays in place. */
struct engine {
    struct ebb_report report;
    struct ebb_history history;
    struct ebb_history_zone history_zone;
    void *memory; /* what the tracker keeps of the zone, if it needs any */
    size_t bytes;
};

/* 0, or a negative errno; engine_release() is due in either case, after the device was
 * unregistered. */
int engine_init(struct engine *engine, const struct ebb_settings *settings, struct ebb_zone *zone);
void engine_release(struct engine *engine);

#endif
