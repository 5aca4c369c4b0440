/* SPDX-License-Identifier: BSD-2-Clause */
#include "job.h"

#include <stdio.h>
#include <stdlib.h>

/* One VM's. It outlives the job if its answer does not come in time. */
struct part {
    struct job *job; /* NULL: nobody wants to know */
    char name[VM_NAME_MAX + 1];
    struct json_object *answer;
    bool asked, answered;
};

struct job {
    unsigned n, pending;
    bool done;
    struct part **parts;
    struct event *timer; /* the deadline; and, all being there, to say so from the loop */
    void (*call)(void *ctx, struct job *job);
    void *ctx;
};

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct job *job = ctx;

    (void)fd;
    (void)what;
    job->done = true;
    if (job->call)
        job->call(job->ctx, job);
}

static void on_answer(void *ctx, struct json_object *answer)
{
    struct part *part = ctx;
    struct job *job = part->job;

    part->answered = true;
    if (!job) {
        free(part);
        return;
    }
    part->answer = json_object_get(answer);
    if (--job->pending == 0 && !job->done)
        event_active(job->timer, EV_TIMEOUT, 0);
}

static struct part *add_part(struct job *job, const struct vm *vm)
{
    struct part *part = calloc(1, sizeof(*part));

    if (part) {
        part->job = job;
        snprintf(part->name, sizeof(part->name), "%s", vm_name(vm));
        job->parts[job->n++] = part;
    }
    return part;
}

struct job *job_new(struct ebbd *ebbd, struct vm *vm, struct json_object *request, bool slow,
                    bool (*skips)(struct ebbd *ebbd, unsigned i), unsigned deadline_ms,
                    void (*done)(void *ctx, struct job *job), void *ctx)
{
    const struct timeval in = {(time_t)(deadline_ms / 1000),
                               (suseconds_t)(deadline_ms % 1000 * 1000)};
    const unsigned n = vm ? 1 : ebbd->n_vms;
    struct job *job = calloc(1, sizeof(*job));
    struct part *part;

    if (!job)
        return NULL;
    *job = (struct job){.call = done, .ctx = ctx, .pending = n};
    job->parts = calloc(n + 1u, sizeof(*job->parts));
    job->timer = evtimer_new(ebbd->base, on_timer, job);
    if (!job->parts || !job->timer || event_add(job->timer, &in) != 0) {
        job_free(job);
        return NULL;
    }
    for (unsigned i = 0; i < n; i++) {
        struct vm *asked = vm ? vm : ebbd->vms[i];

        part = add_part(job, asked);
        if (part && !(skips && skips(ebbd, i))) {
            part->asked = true;
            vm_ask(asked, request, slow, on_answer, part);
            continue;
        }
        if (part)
            part->answered = true; /* there is none to come */
        job->pending--;
    }
    if (job->pending == 0)
        event_active(job->timer, EV_TIMEOUT, 0);
    return job;
}

void job_free(struct job *job)
{
    if (!job)
        return;
    for (unsigned i = 0; i < job->n; i++) {
        struct part *part = job->parts[i];

        json_object_put(part->answer);
        part->answer = NULL;
        part->job = NULL;
        if (part->answered)
            free(part);
    }
    if (job->timer)
        event_free(job->timer);
    free(job->parts);
    free(job);
}

bool job_is_done(const struct job *job)
{
    return job->done;
}

unsigned job_count(const struct job *job)
{
    return job->n;
}

bool job_asked(const struct job *job, unsigned i)
{
    return job->parts[i]->asked;
}

const char *job_name(const struct job *job, unsigned i)
{
    return job->parts[i]->name;
}

struct json_object *job_answer(const struct job *job, unsigned i)
{
    return job->parts[i]->answer;
}
