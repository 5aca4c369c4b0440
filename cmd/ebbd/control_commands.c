/* SPDX-License-Identifier: BSD-2-Clause */
#include "control_commands.h"
#include "log.h"
#include "sockets.h"
#include "status.h"
#include "vm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PROTOCOL     1
#define MS           ((uint64_t)1000000)
#define MEMBER_LIMIT 3u /* besides `command` and `id` */

/* A request that is known, with its VM looked up. */
struct call {
    struct ebbd *daemon;
    struct json_object *request;
    struct vm *vm; /* NULL: all */
    struct control_wait *wait;
};

/* What `vm` has to be. */
enum vm_rule { VM_NONE, VM_OPTIONAL, VM_NEEDED, VM_SERVED /* needed, and connected */, VM_NEW };

/* ---- members ---- */

static const char *text_member(struct json_object *request, const char *name)
{
    struct json_object *member = json_object_object_get(request, name);
    const char *text;

    if (!json_object_is_type(member, json_type_string))
        return NULL;
    text = json_object_get_string(member);
    return strlen(text) == (size_t)json_object_get_string_len(member) ? text : NULL;
}

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

static struct json_object *vms_done(uint64_t n)
{
    struct json_object *answer = json_object_new_object();

    json_object_object_add(answer, "vms", json_object_new_uint64(n));
    return answer;
}

static struct json_object *one(const char *name, struct json_object *value)
{
    struct json_object *answer = json_object_new_object();

    json_object_object_add(answer, name, value);
    return answer;
}

/* ---- sight ---- */

static struct json_object *version(struct call *call)
{
    struct json_object *answer = one("version", json_object_new_string(EBB_VERSION));

    (void)call;
    json_object_object_add(answer, "protocol", json_object_new_int(PROTOCOL));
    return answer;
}

static struct json_object *list(struct call *call)
{
    struct json_object *vms = json_object_new_array();

    for (unsigned i = 0; i < call->daemon->n_vms; i++)
        json_object_array_add(vms, status_brief(call->daemon->vms[i]));
    return one("vms", vms);
}

struct json_object *control_status(struct ebbd *daemon, struct json_object *request)
{
    struct json_object *answer = one("now_ns", json_object_new_uint64(log_now_ns()));
    struct json_object *vms = json_object_new_array();
    const char *name = text_member(request, "vm");

    json_object_object_add(answer, "started_ns", json_object_new_uint64(daemon->started_ns));
    for (unsigned i = 0; i < daemon->n_vms; i++) {
        if (!name || strcmp(name, vm_name(daemon->vms[i])) == 0)
            json_object_array_add(vms, status_full(daemon->vms[i]));
    }
    json_object_object_add(answer, "vms", vms);
    return answer;
}

static struct json_object *status(struct call *call)
{
    return control_status(call->daemon, call->request);
}

static struct json_object *watch(struct call *call)
{
    uint64_t interval = 1000;

    if (!number_member(call->request, "interval_ms", 100, 60000, &interval))
        return number_error("interval_ms", 100, 60000);
    call->wait->kind = CONTROL_WATCH;
    call->wait->interval_ns = interval * MS;
    return NULL;
}

/* ---- what takes time ---- */

static struct json_object *wait_for(struct call *call, enum control_wait_kind kind,
                                    uint64_t timeout_ms)
{
    if (!number_member(call->request, "timeout_ms", 1, 60000, &timeout_ms))
        return number_error("timeout_ms", 1, 60000);
    call->wait->kind = kind;
    call->wait->deadline_ns = log_now_ns() + timeout_ms * MS;
    snprintf(call->wait->vm, sizeof(call->wait->vm), "%s", call->vm ? vm_name(call->vm) : "");
    return NULL;
}

static struct json_object *stats(struct call *call)
{
    struct ebb_balloon_device *device = vm_begin(call->vm);
    int error = ebb_balloon_device_poll_stats(device);

    call->wait->seen = ebb_balloon_device_get_stats(device)->stats_received;
    vm_end(call->vm);
    /* -EBB_EAGAIN: it was asked before and has not answered yet. That one will do. */
    if (error == -EBB_EOPNOTSUPP)
        return control_error("%s: its guest did not negotiate statistics", vm_name(call->vm));
    return wait_for(call, CONTROL_STATS, 2000);
}

static struct json_object *stats_waited(const struct ebbd *daemon, const struct control_wait *wait)
{
    struct vm *vm = vm_find(daemon, wait->vm);
    struct ebb_balloon_device *device = vm ? vm_begin(vm) : NULL;
    struct vm_view view;
    bool came;

    if (!device)
        return control_error("%s: its front-end hung up", wait->vm);
    came = ebb_balloon_device_get_stats(device)->stats_received != wait->seen;
    vm_end(vm);
    if (came) {
        vm_look(vm, &view);
        return one("guest", status_guest(&view));
    }
    if (log_now_ns() < wait->deadline_ns)
        return NULL;
    return control_error("%s: its guest has not answered in time; is its balloon driver loaded, "
                         "and is it running?",
                         wait->vm);
}

static struct json_object *flush(struct call *call)
{
    return wait_for(call, CONTROL_FLUSH, 10000);
}

static bool is_idle(const struct vm *vm)
{
    const struct ebb_balloon_device *device = vm_begin(vm);
    bool idle = !device || ebb_balloon_device_idle(device);

    vm_end(vm);
    return idle;
}

static struct json_object *flush_waited(const struct ebbd *daemon, const struct control_wait *wait)
{
    unsigned busy = 0, n = 0;

    for (unsigned i = 0; i < daemon->n_vms; i++) {
        if (*wait->vm && strcmp(wait->vm, vm_name(daemon->vms[i])) != 0)
            continue;
        n++;
        busy += !is_idle(daemon->vms[i]);
    }
    if (busy == 0)
        return vms_done(n);
    if (log_now_ns() < wait->deadline_ns)
        return NULL;
    return control_error("%u of %u VMs still hand memory over; pause them first, or give a longer "
                         "timeout_ms",
                         busy, n);
}

/* Those that were inhibited, as far as they are there and have not been allowed again. */
static struct json_object *inhibit_waited(const struct ebbd *daemon,
                                          const struct control_wait *wait)
{
    unsigned busy = 0, n = 0;

    for (unsigned i = 0; i < daemon->n_vms; i++) {
        struct vm *vm = daemon->vms[i];

        if (*wait->vm && strcmp(wait->vm, vm_name(vm)) != 0)
            continue;
        n++;
        busy += vm_inhibited(vm) && !vm_inhibit(vm, true);
    }
    if (busy == 0)
        return vms_done(n);
    if (log_now_ns() < wait->deadline_ns)
        return NULL;
    return control_error(
        "%u of %u VMs are inhibited from now on, but for a system call that goes on: "
        "their front-ends are at work on the same files",
        busy, n);
}

struct json_object *control_waited(struct ebbd *daemon, const struct control_wait *wait)
{
    switch (wait->kind) {
    case CONTROL_STATS:
        return stats_waited(daemon, wait);
    case CONTROL_INHIBIT:
        return inhibit_waited(daemon, wait);
    default:
        return flush_waited(daemon, wait);
    }
}

/* ---- what changes something ---- */

static uint64_t assigned_bytes(const struct vm *vm)
{
    struct vm_view view;

    vm_look(vm, &view);
    return view.assigned;
}

static struct json_object *resize(struct call *call)
{
    uint64_t assigned = assigned_bytes(call->vm), bytes = UINT64_MAX;
    bool keep = has(call->request, "memory_bytes");
    const char *name = keep ? "memory_bytes" : "balloon_bytes";
    struct ebb_balloon_device *device;

    if (keep == has(call->request, "balloon_bytes"))
        return control_error("resize needs either 'memory_bytes' (for the guest) or "
                             "'balloon_bytes' (for the balloon)");
    if (assigned == 0)
        return control_error("%s: its front-end has not shared any memory yet", vm_name(call->vm));
    if (!number_member(call->request, name, 0, assigned, &bytes) || bytes % EBB_FRAME_SIZE != 0)
        return control_error("'%s' is a multiple of 4096 up to the %" PRIu64
                             " bytes assigned to %s",
                             name, assigned, vm_name(call->vm));
    if (keep)
        bytes = assigned - bytes;
    if (bytes / EBB_FRAME_SIZE > UINT32_MAX)
        return control_error("a balloon takes at most %" PRIu64 " bytes",
                             UINT32_MAX * EBB_FRAME_SIZE);
    device = vm_begin(call->vm);
    ebb_balloon_device_resize(device, (uint32_t)(bytes / EBB_FRAME_SIZE));
    vm_end(call->vm);
    log_limited(vm_limit(call->vm, CAUSE_OPERATOR), "%s: the balloon's target is %" PRIu64 " MiB",
                vm_name(call->vm), bytes >> 20);
    return one("balloon_bytes", json_object_new_uint64(bytes));
}

/* Do it to one or to all. */
static unsigned each(struct call *call, void (*change)(struct vm *vm, uint64_t value),
                     uint64_t value)
{
    if (call->vm) {
        change(call->vm, value);
        return 1;
    }
    for (unsigned i = 0; i < call->daemon->n_vms; i++)
        change(call->daemon->vms[i], value);
    return call->daemon->n_vms;
}

static void set_inhibit(struct vm *vm, uint64_t on)
{
    (void)vm_inhibit(vm, on);
    log_limited(vm_limit(vm, CAUSE_OPERATOR), "%s: discarding is %s", vm_name(vm),
                on ? "inhibited" : "allowed");
}

static struct json_object *inhibit(struct call *call)
{
    struct json_object *on = json_object_object_get(call->request, "on"), *error;

    if (!json_object_is_type(on, json_type_boolean))
        return control_error("inhibit needs 'on': true or false");
    error = wait_for(call, CONTROL_INHIBIT, 10000);
    if (error)
        return error;
    if (!call->vm)
        call->daemon->inhibit = json_object_get_boolean(on);
    each(call, set_inhibit, json_object_get_boolean(on) ? 1 : 0);
    return NULL;
}

static void set_rate(struct vm *vm, uint64_t rate)
{
    vm_set_rate(vm, rate);
    log_limited(vm_limit(vm, CAUSE_OPERATOR), "%s: at most %" PRIu64 " bytes a second%s",
                vm_name(vm), rate, rate ? "" : " (any)");
}

static struct json_object *limits(struct call *call)
{
    uint64_t rate = 0;
    struct vm_view view;

    if (!number_member(call->request, "rate", 0, (uint64_t)1 << 50, &rate))
        return number_error("rate", 0, (uint64_t)1 << 50);
    if (has(call->request, "rate")) {
        if (!call->vm)
            call->daemon->rate = rate;
        each(call, set_rate, rate);
    } else if (call->vm) {
        vm_look(call->vm, &view);
        rate = view.rate;
    } else {
        rate = call->daemon->rate;
    }
    return one("rate", json_object_new_uint64(rate));
}

static struct json_object *hint(struct call *call)
{
    const char *action = text_member(call->request, "action");
    struct ebb_balloon_device *device;
    struct json_object *answer;
    int error = 0;

    if (!action || (strcmp(action, "start") != 0 && strcmp(action, "done") != 0 &&
                    strcmp(action, "status") != 0))
        return control_error("hint needs 'action': start, done or status");
    device = vm_begin(call->vm);
    if (strcmp(action, "start") == 0)
        error = ebb_balloon_device_hint_start(device);
    else if (strcmp(action, "done") == 0)
        ebb_balloon_device_hint_done(device);
    answer = one("hinting", json_object_new_boolean(ebb_balloon_device_hinting(device)));
    vm_end(call->vm);
    if (!error)
        return answer;
    json_object_put(answer);
    return error == -EBB_EOPNOTSUPP
               ? control_error("%s: its guest did not negotiate hints", vm_name(call->vm))
               : control_error("%s: the last hinting has not ended; 'done' ends it",
                               vm_name(call->vm));
}

/* ---- sockets that come and go ---- */

static struct json_object *add(struct call *call)
{
    const char *name = text_member(call->request, "vm");
    char file[VM_NAME_MAX + sizeof(SOCKET_SUFFIX)], path[512];
    int fd;

    if (!call->daemon->in_dir)
        return control_error("there is nowhere to add it: start ebbd with --socket-dir");
    snprintf(file, sizeof(file), "%s" SOCKET_SUFFIX, name);
    snprintf(path, sizeof(path), "%s/%s", call->daemon->options.socket_dir, file);
    fd = sockets_listen_unix(file);
    if (fd < 0 && errno == EADDRINUSE)
        return control_error("%s exists; if nobody needs it, remove the file", path);
    if (fd < 0)
        return control_error("%s cannot be made: %s", path, strerror(errno));
    if (!vm_new(call->daemon, name, fd, path, true))
        return control_error("%s: %s", name, strerror(errno));
    log_line("%s: added", name);
    return one("socket", json_object_new_string(path));
}

static struct json_object *remove_vm(struct call *call)
{
    char file[VM_NAME_MAX + sizeof(SOCKET_SUFFIX)];

    if (!vm_removable(call->vm))
        return control_error("%s is not in the --socket-dir; it stays as long as ebbd runs",
                             vm_name(call->vm));
    snprintf(file, sizeof(file), "%s" SOCKET_SUFFIX, vm_name(call->vm));
    log_line("%s: removed", vm_name(call->vm));
    if (sockets_remove(file) != 0 && errno != ENOENT)
        log_line("%s is not removed: %s", file,
                 errno == ESTALE ? "another is in its place" : strerror(errno));
    vm_free(call->vm);
    return vms_done(1);
}

/* ---- which ---- */

static const struct command {
    const char *name;
    struct json_object *(*run)(struct call *call);
    enum vm_rule rule;
    const char *members[MEMBER_LIMIT]; /* besides `command`, `id` and `vm` */
} commands[] = {
    {"version", version, VM_NONE, {NULL}},
    {"list", list, VM_NONE, {NULL}},
    {"status", status, VM_OPTIONAL, {NULL}},
    {"watch", watch, VM_OPTIONAL, {"interval_ms"}},
    {"stats", stats, VM_SERVED, {"timeout_ms"}},
    {"resize", resize, VM_SERVED, {"memory_bytes", "balloon_bytes"}},
    {"inhibit", inhibit, VM_OPTIONAL, {"on", "timeout_ms"}},
    {"limits", limits, VM_OPTIONAL, {"rate"}},
    {"flush", flush, VM_OPTIONAL, {"timeout_ms"}},
    {"hint", hint, VM_SERVED, {"action"}},
    {"add", add, VM_NEW, {NULL}},
    {"remove", remove_vm, VM_NEEDED, {NULL}},
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

/* NULL: all members are known. */
static struct json_object *check_members(const struct command *command, struct json_object *request)
{
    json_object_object_foreach(request, name, value)
    {
        bool known = strcmp(name, "command") == 0 || strcmp(name, "id") == 0 ||
                     (command->rule != VM_NONE && strcmp(name, "vm") == 0);

        (void)value;
        for (unsigned i = 0; i < MEMBER_LIMIT && command->members[i]; i++)
            known = known || strcmp(name, command->members[i]) == 0;
        if (!known)
            return control_error("'%s' has no member '%.64s'", command->name, name);
    }
    return NULL;
}

/* NULL: it is as the rule says. */
static struct json_object *check_vm(enum vm_rule rule, struct call *call)
{
    const char *name = text_member(call->request, "vm");

    if (rule == VM_NONE || (rule == VM_OPTIONAL && !has(call->request, "vm")))
        return NULL;
    if (!name || !options_vm_name(name))
        return control_error("'vm' is the name of a VM: up to %u letters, digits, '.', '_', '-'",
                             VM_NAME_MAX);
    call->vm = vm_find(call->daemon, name);
    if (rule == VM_NEW)
        return call->vm ? control_error("there is a VM %s already", name) : NULL;
    if (!call->vm)
        return control_error("there is no VM %s; `list` names them", name);
    if (rule == VM_SERVED && !vm_connected(call->vm))
        return control_error("%s: its front-end is not connected", name);
    return NULL;
}

struct json_object *control_execute(struct ebbd *daemon, struct json_object *request,
                                    struct control_wait *wait)
{
    struct call call = {.daemon = daemon, .request = request, .wait = wait};
    const char *name = text_member(request, "command");
    struct json_object *error;

    for (size_t i = 0; name && i < N_COMMANDS; i++) {
        if (strcmp(name, commands[i].name) != 0)
            continue;
        error = check_members(&commands[i], request);
        if (!error)
            error = check_vm(commands[i].rule, &call);
        return error ? error : commands[i].run(&call);
    }
    return unknown_command();
}
