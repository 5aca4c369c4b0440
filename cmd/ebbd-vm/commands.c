/* SPDX-License-Identifier: BSD-2-Clause */
#include "commands.h"
#include "state.h"
#include "status.h"
#include "vm.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROTOCOL     1
#define MS           ((uint64_t)1000000)
#define MEMBER_LIMIT 3u /* besides `command`, `id` and `vm` */

/* What an answer waits for. */
struct wait {
    struct json_object *(*waited)(struct backend *backend, const struct wait *wait);
    uint64_t deadline_ns;
    uint64_t seen; /* statistics: how many had come in */
};

/* A request that is known. */
struct request {
    struct backend *backend;
    struct vm *vm;
    struct json_object *members;
    struct control_call *call;
};

/* ---- members ---- */

/* A whole number from low to high; *value stays if there is none of this name. */
static bool number_member(struct json_object *request, const char *name, uint64_t low,
                          uint64_t high, uint64_t *value)
{
    struct json_object *member;
    int64_t number;

    if (!json_object_object_get_ex(request, name, &member))
        return true;
    number = json_object_get_int64(member);
    if (!json_object_is_type(member, json_type_int) || number < 0 || (uint64_t)number < low ||
        (uint64_t)number > high)
        return false;
    *value = (uint64_t)number;
    return true;
}

static struct json_object *number_error(const char *name, uint64_t low, uint64_t high)
{
    return control_error("'%s' is a whole number from %" PRIu64 " to %" PRIu64, name, low, high);
}

static bool has(struct json_object *request, const char *name)
{
    return json_object_object_get_ex(request, name, NULL);
}

/* ---- answers ---- */

static struct json_object *one(const char *name, struct json_object *value)
{
    struct json_object *answer = json_object_new_object();

    json_object_object_add(answer, name, value);
    return answer;
}

static struct json_object *vms_done(void)
{
    return one("vms", json_object_new_int(1));
}

/* ---- sight ---- */

static struct json_object *version(struct request *request)
{
    struct json_object *answer = one("version", json_object_new_string(EBB_VERSION));

    (void)request;
    json_object_object_add(answer, "protocol", json_object_new_int(PROTOCOL));
    return answer;
}

static struct json_object *only(struct json_object *vm)
{
    struct json_object *vms = json_object_new_array();

    json_object_array_add(vms, vm);
    return one("vms", vms);
}

static struct json_object *list(struct request *request)
{
    return only(status_brief(request->vm));
}

static struct json_object *status(struct request *request)
{
    struct json_object *answer = json_object_new_object();

    status_add(answer, request->backend);
    return answer;
}

static struct json_object *watch(struct request *request)
{
    uint64_t interval = 1000;

    if (!number_member(request->members, "interval_ms", 100, 60000, &interval))
        return number_error("interval_ms", 100, 60000);
    request->call->again_us = interval * 1000;
    return status(request);
}

/* ---- what takes time ---- */

static struct json_object *wait_for(struct request *request,
                                    struct json_object *(*waited)(struct backend *backend,
                                                                  const struct wait *wait),
                                    uint64_t seen, uint64_t timeout_ms)
{
    struct wait *wait;

    if (!number_member(request->members, "timeout_ms", 1, 60000, &timeout_ms))
        return number_error("timeout_ms", 1, 60000);
    wait = malloc(sizeof(*wait));
    if (!wait)
        return control_error("out of memory");
    *wait = (struct wait){
        .waited = waited, .deadline_ns = log_now_ns() + timeout_ms * MS, .seen = seen};
    request->call->wait = wait;
    return NULL;
}

static struct json_object *stats_waited(struct backend *backend, const struct wait *wait)
{
    const char *name = backend->options.name;
    struct ebb_balloon_device *device = vm_begin(backend->vm);
    struct vm_view view;
    bool came;

    if (!device)
        return control_error("%s: its front-end hung up", name);
    came = ebb_balloon_device_get_stats(device)->stats_received != wait->seen;
    vm_end(backend->vm);
    if (came) {
        vm_look(backend->vm, &view);
        return one("guest", status_guest(&view));
    }
    if (log_now_ns() < wait->deadline_ns)
        return NULL;
    return control_error("%s: its guest has not answered in time; is its balloon driver loaded, "
                         "and is it running?",
                         name);
}

static struct json_object *stats(struct request *request)
{
    struct ebb_balloon_device *device = vm_begin(request->vm);
    int error = ebb_balloon_device_poll_stats(device);
    uint64_t seen = ebb_balloon_device_get_stats(device)->stats_received;

    vm_end(request->vm);
    /* -EBB_EAGAIN: it was asked before and has not answered yet. That one will do. */
    if (error == -EBB_EOPNOTSUPP)
        return control_error("%s: its guest did not negotiate statistics", vm_name(request->vm));
    return wait_for(request, stats_waited, seen, 2000);
}

static bool is_idle(const struct vm *vm)
{
    const struct ebb_balloon_device *device = vm_begin(vm);
    bool idle = !device || ebb_balloon_device_idle(device);

    vm_end(vm);
    return idle;
}

static struct json_object *flush_waited(struct backend *backend, const struct wait *wait)
{
    if (is_idle(backend->vm))
        return vms_done();
    if (log_now_ns() < wait->deadline_ns)
        return NULL;
    return control_error("%s still hands memory over; pause it first, or give a longer timeout_ms",
                         backend->options.name);
}

static struct json_object *flush(struct request *request)
{
    return wait_for(request, flush_waited, 0, 10000);
}

static struct json_object *inhibit_waited(struct backend *backend, const struct wait *wait)
{
    if (!vm_inhibited(backend->vm) || vm_inhibit(backend->vm, true))
        return vms_done();
    if (log_now_ns() < wait->deadline_ns)
        return NULL;
    return control_error("%s is inhibited from now on, but for a system call that goes on: its "
                         "front-end is at work on the same file",
                         backend->options.name);
}

static struct json_object *inhibit(struct request *request)
{
    struct json_object *on = json_object_object_get(request->members, "on"), *error;

    if (!json_object_is_type(on, json_type_boolean))
        return control_error("inhibit needs 'on': true or false");
    error = wait_for(request, inhibit_waited, 0, 10000);
    if (error)
        return error;
    (void)vm_inhibit(request->vm, json_object_get_boolean(on));
    log_limited(vm_limit(request->vm, CAUSE_OPERATOR), "%s: discarding is %s", vm_name(request->vm),
                json_object_get_boolean(on) ? "inhibited" : "allowed");
    return NULL;
}

/* ---- what changes something ---- */

static uint64_t assigned_bytes(const struct vm *vm)
{
    struct vm_view view;

    vm_look(vm, &view);
    return view.assigned;
}

static struct json_object *resize(struct request *request)
{
    uint64_t assigned = assigned_bytes(request->vm), bytes = UINT64_MAX;
    bool keep = has(request->members, "memory_bytes");
    const char *name = keep ? "memory_bytes" : "balloon_bytes";
    struct ebb_balloon_device *device;

    if (keep == has(request->members, "balloon_bytes"))
        return control_error("resize needs either 'memory_bytes' (for the guest) or "
                             "'balloon_bytes' (for the balloon)");
    if (assigned == 0)
        return control_error("%s: its front-end has not shared any memory yet",
                             vm_name(request->vm));
    if (!number_member(request->members, name, 0, assigned, &bytes) || bytes % EBB_FRAME_SIZE != 0)
        return control_error("'%s' is a multiple of 4096 up to the %" PRIu64
                             " bytes assigned to %s",
                             name, assigned, vm_name(request->vm));
    if (keep)
        bytes = assigned - bytes;
    if (bytes / EBB_FRAME_SIZE > UINT32_MAX)
        return control_error("a balloon takes at most %" PRIu64 " bytes",
                             UINT32_MAX * EBB_FRAME_SIZE);
    device = vm_begin(request->vm);
    ebb_balloon_device_resize(device, (uint32_t)(bytes / EBB_FRAME_SIZE));
    vm_end(request->vm);
    log_limited(vm_limit(request->vm, CAUSE_OPERATOR),
                "%s: the balloon's target is %" PRIu64 " MiB", vm_name(request->vm), bytes >> 20);
    return one("balloon_bytes", json_object_new_uint64(bytes));
}

static struct json_object *limits(struct request *request)
{
    struct vm_view view;
    uint64_t rate = 0;

    vm_look(request->vm, &view);
    if (!number_member(request->members, "rate", 0, (uint64_t)1 << 40, &rate))
        return number_error("rate", 0, (uint64_t)1 << 40);
    if (!has(request->members, "rate"))
        return one("rate", json_object_new_uint64(view.rate));
    vm_set_rate(request->vm, rate);
    log_limited(vm_limit(request->vm, CAUSE_OPERATOR), "%s: at most %" PRIu64 " bytes a second%s",
                vm_name(request->vm), rate, rate ? "" : " (any)");
    return one("rate", json_object_new_uint64(rate));
}

static struct json_object *hint(struct request *request)
{
    const char *action = control_text(request->members, "action");
    struct ebb_balloon_device *device;
    struct json_object *answer;
    int error = 0;

    if (!action || (strcmp(action, "start") != 0 && strcmp(action, "done") != 0 &&
                    strcmp(action, "status") != 0))
        return control_error("hint needs 'action': start, done or status");
    device = vm_begin(request->vm);
    if (strcmp(action, "start") == 0)
        error = ebb_balloon_device_hint_start(device);
    else if (strcmp(action, "done") == 0)
        ebb_balloon_device_hint_done(device);
    answer = one("hinting", json_object_new_boolean(ebb_balloon_device_hinting(device)));
    vm_end(request->vm);
    if (!error)
        return answer;
    json_object_put(answer);
    return error == -EBB_EOPNOTSUPP
               ? control_error("%s: its guest did not negotiate hints", vm_name(request->vm))
               : control_error("%s: the last hinting has not ended; 'done' ends it",
                               vm_name(request->vm));
}

/* ---- its life ---- */

/* As long as this client stays, the next front-end is waited for (with --wait). */
static struct json_object *supervise(struct request *request)
{
    request->backend->supervisor = request->call->client;
    request->backend->was_supervised = true;
    request->call->stays = true;
    return one("pid", json_object_new_int((int)getpid()));
}

/* Now, or when its front-end leaves. */
static struct json_object *end(struct request *request)
{
    static const struct timeval soon = {0, 10000};
    const char *when = control_text(request->members, "when");

    if (!when || (strcmp(when, "now") != 0 && strcmp(when, "idle") != 0))
        return control_error("end needs 'when': now or idle");
    if (strcmp(when, "now") == 0)
        event_base_loopexit(request->backend->base, &soon); /* the answer goes before */
    request->backend->ending = true;
    backend_end_if_idle(request->backend);
    return vms_done();
}

/* ---- which ---- */

static const struct command {
    const char *name;
    struct json_object *(*run)(struct request *request);
    bool served; /* needs a front-end */
    bool changes;
    const char *members[MEMBER_LIMIT]; /* besides `command`, `id` and `vm` */
} commands[] = {
    {"version", version, false, false, {NULL}},
    {"list", list, false, false, {NULL}},
    {"status", status, false, false, {NULL}},
    {"watch", watch, false, false, {"interval_ms"}},
    {"stats", stats, true, false, {"timeout_ms"}},
    {"resize", resize, true, true, {"memory_bytes", "balloon_bytes"}},
    {"inhibit", inhibit, false, true, {"on", "timeout_ms"}},
    {"limits", limits, false, true, {"rate"}},
    {"flush", flush, false, false, {"timeout_ms"}},
    {"hint", hint, true, true, {"action"}},
    {"supervise", supervise, false, false, {NULL}},
    {"end", end, false, false, {"when"}},
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static struct json_object *unknown_command(void)
{
    char names[192] = "";

    for (size_t i = 0; i < N_COMMANDS; i++) {
        strncat(names, i ? ", " : "", sizeof(names) - strlen(names) - 1);
        strncat(names, commands[i].name, sizeof(names) - strlen(names) - 1);
    }
    return control_error("'command' is one of %s", names);
}

/* NULL: it is well-formed, and can be done now. */
static struct json_object *check(const struct command *command, const struct request *request)
{
    const char *name = request->backend->options.name;
    struct json_object *vm;

    json_object_object_foreach(request->members, member, value)
    {
        bool known = strcmp(member, "command") == 0 || strcmp(member, "id") == 0 ||
                     strcmp(member, "vm") == 0 || strcmp(member, "by") == 0;

        (void)value;
        for (unsigned i = 0; i < MEMBER_LIMIT && command->members[i]; i++)
            known = known || strcmp(member, command->members[i]) == 0;
        if (!known)
            return control_error("'%s' has no member '%.64s'", command->name, member);
    }
    if (json_object_object_get_ex(request->members, "vm", &vm)) {
        const char *wanted = control_text(request->members, "vm");

        if (!wanted || strcmp(wanted, name) != 0)
            return control_error("there is no VM but %s here", name);
    }
    if (command->served && !vm_connected(request->vm))
        return control_error("%s: its front-end is not connected", name);
    return NULL;
}

static struct json_object *execute(void *ctx, struct json_object *members,
                                   struct control_call *call)
{
    struct backend *backend = ctx;
    struct request request = {
        .backend = backend, .vm = backend->vm, .members = members, .call = call};
    const char *name = control_text(members, "command");
    struct json_object *answer;

    if (control_text(members, "by"))
        log_by(control_text(members, "by"));
    for (size_t i = 0; name && i < N_COMMANDS; i++) {
        if (strcmp(name, commands[i].name) != 0)
            continue;
        answer = check(&commands[i], &request);
        if (!answer)
            answer = commands[i].run(&request);
        if (commands[i].changes) /* before the client hears of it */
            state_write(backend);
        return answer;
    }
    return unknown_command();
}

static struct json_object *waited(void *ctx, void *wait)
{
    const struct wait *what = wait;

    struct json_object *answer = what->waited(ctx, what);

    if (answer)
        state_write(ctx);
    return answer;
}

static void gone(void *ctx, const struct control *client)
{
    struct backend *backend = ctx;

    if (backend->supervisor != client)
        return;
    backend->supervisor = NULL;
    backend_end_if_idle(backend);
}

struct control_commands backend_commands(struct backend *backend)
{
    return (struct control_commands){.base = backend->base,
                                     .ctx = backend,
                                     .execute = execute,
                                     .waited = waited,
                                     .forget = free,
                                     .gone = gone};
}
