/* SPDX-License-Identifier: BSD-2-Clause */
/* One request to the back ends of many VMs. */
#ifndef EBBD_JOB_H
#define EBBD_JOB_H

#include "vm.h"

struct job;

/*
 * Ask the back ends of these VMs (NULL: of all, but ebbd->vms[i] of which `skips`, unless NULL,
 * says so), for `deadline_ms` at most; those that have not answered by then have no answer. `done`,
 * unless NULL, is called once, from the loop, when all is there. NULL: no memory.
 */
struct job *job_new(struct ebbd *ebbd, struct vm *vm, struct json_object *request, bool slow,
                    bool (*skips)(struct ebbd *ebbd, unsigned i), unsigned deadline_ms,
                    void (*done)(void *ctx, struct job *job), void *ctx);
/* At any moment. */
void job_free(struct job *job);

bool job_is_done(const struct job *job);
unsigned job_count(const struct job *job);
/* Was it asked? */
bool job_asked(const struct job *job, unsigned i);
const char *job_name(const struct job *job, unsigned i);
/* NULL: none; the job's. */
struct json_object *job_answer(const struct job *job, unsigned i);

#endif
