/* SPDX-License-Identifier: BSD-2-Clause */
/* How both daemons begin. */
#ifndef COMMON_PROCESS_H
#define COMMON_PROCESS_H

#include <event2/event.h>
#include <stdbool.h>

/* Before all else: standard descriptors, signals and limits are as a daemon needs them, whatever
 * the parent left; `program` is what log lines begin with. False: errno is set. */
bool process_begin(const char *program);

/* Descriptors that a parent left open, but the standard ones and `keep`; -1: none. */
void process_close_others(int keep);

/* NULL: errno is set. */
struct event_base *process_event_base(void);

/* What libraries do when they are used for the first time may need files: have it done now. */
void process_touch_libraries(void);

/* Become a user, NULL: stay; without capabilities, which cannot be had again, and without being
 * looked into by other processes of that user: no core, no ptrace(). False: explained. */
bool process_user(const char *user);

#endif
