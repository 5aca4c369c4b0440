/* SPDX-License-Identifier: BSD-2-Clause */
/* The commands of the control socket. Answers are to be put. */
#ifndef EBBD_CONTROL_COMMANDS_H
#define EBBD_CONTROL_COMMANDS_H

#include "ebbd.h"

#include <json.h>

/* What an answer waits for. */
enum control_wait_kind { CONTROL_STATS, CONTROL_FLUSH, CONTROL_INHIBIT, CONTROL_WATCH };

struct control_wait {
    enum control_wait_kind kind;
    char vm[VM_NAME_MAX + 1]; /* "": all */
    uint64_t deadline_ns;
    uint64_t interval_ns; /* CONTROL_WATCH */
    uint64_t seen;        /* CONTROL_STATS: how many had come in */
};

/* Do what an object asks for. NULL: it takes time, see *wait; CONTROL_WATCH has control_status()
 * answer, the others control_waited() until it does. */
struct json_object *control_execute(struct ebbd *daemon, struct json_object *request,
                                    struct control_wait *wait);

/* NULL: not yet. */
struct json_object *control_waited(struct ebbd *daemon, const struct control_wait *wait);

/* The answer of `status` to this request. */
struct json_object *control_status(struct ebbd *daemon, struct json_object *request);

struct json_object *control_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
