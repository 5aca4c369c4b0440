/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A thread for the ends of connections, which take time that the loop does not have: a discard
 * under way, large mappings. Items go to the thread, and come back to the loop when they are done
 * with.
 */
#ifndef EBBD_REAPER_H
#define EBBD_REAPER_H

#include <event2/event.h>
#include <stdbool.h>

struct reaper;

/* `end` is called in the thread, then `ended` in the loop, each with an item. NULL: errno is set.
 */
struct reaper *reaper_new(struct event_base *base, void (*end)(void *item),
                          void (*ended)(void *item));

/* False: there are thousands already. */
bool reaper_take(struct reaper *reaper, void *item);

/* Waits until all have ended. NULL: nothing to do. */
void reaper_free(struct reaper *reaper);

#endif
