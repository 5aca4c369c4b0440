/* SPDX-License-Identifier: BSD-2-Clause */
#include "commands.h"
#include "../common/log.h"
#include "../common/sockets.h"

#include <ebb/types.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROTOCOL     1
#define MEMBER_LIMIT 3u /* besides `command` and `id` */
/* What a back end has for its state: one that is asked for by name, one of all. */
#define ONE_MS 2000u
#define ALL_MS 80u
/* What others may take by themselves, and what is added for the way. */
#define SLOW_MS 10000u
#define WAY_MS  2000u

/* What an answer waits for. */
struct wait {
    struct job *job;
    struct json_object *(*merge)(struct ebbd *ebbd, const struct wait *wait);
    struct json_object *request;
};

/* A request that is known, with its VM looked up. */
struct request {
    struct ebbd *ebbd;
    struct json_object *members;
    struct vm *vm; /* NULL: all */
    struct control_call *call;
};

enum vm_rule { VM_RULE_NONE, VM_RULE_OPTIONAL, VM_RULE_NEEDED, VM_RULE_NEW };

/* ---- answers ---- */

static struct json_object *one(const char *name, struct json_object *value)
{
    struct json_object *answer = json_object_new_object();

    json_object_object_add(answer, name, value);
    return answer;
}

static struct json_object *vms_done(unsigned n)
{
    return one("vms", json_object_new_int64(n));
}

static struct json_object *version(struct request *request)
{
    struct json_object *answer = one("version", json_object_new_string(EBB_VERSION));

    (void)request;
    json_object_object_add(answer, "protocol", json_object_new_int(PROTOCOL));
    return answer;
}

/* ---- what back ends are asked ---- */

/* NULL: *call says what is waited for. */
static struct json_object *wait_for(struct request *request, struct job *job,
                                    struct json_object *(*merge)(struct ebbd *ebbd,
                                                                 const struct wait *wait))
{
    struct wait *wait = job ? malloc(sizeof(*wait)) : NULL;

    if (!wait) {
        job_free(job);
        return control_error("out of memory");
    }
    *wait = (struct wait){job, merge, json_object_get(request->members)};
    request->call->wait = wait;
    return NULL;
}

static struct json_object *waited(void *ctx, void *wait)
{
    const struct wait *what = wait;

    return job_is_done(what->job) ? what->merge(ctx, what) : NULL;
}

static void forget(void *wait)
{
    struct wait *what = wait;

    job_free(what->job);
    json_object_put(what->request);
    free(what);
}

/* What the back end said, for its client: who asked, and by which id, is another matter. */
static struct json_object *copy(struct json_object *answer)
{
    struct json_object *to = NULL;

    if (json_object_deep_copy(answer, &to, NULL) != 0)
        return control_error("out of memory");
    json_object_object_del(to, "id");
    return to;
}

static struct json_object *no_answer(const struct ebbd *ebbd, const char *name)
{
    const struct vm *vm = vm_find(ebbd, name);

    if (vm && !vm_is_up(vm))
        return control_error("%s: it has no back end just now; the next one is being started",
                             name);
    return control_error("%s: its back end does not answer", name);
}

/* Of one VM: as it came. Of several: how many, and what the first that failed said. */
static struct json_object *merge(struct ebbd *ebbd, const struct wait *wait)
{
    const bool by_name = control_text(wait->request, "vm") != NULL;
    const unsigned n = job_count(wait->job);
    const char *first = NULL;
    unsigned failed = 0;

    if (by_name && n == 1) {
        struct json_object *answer = job_answer(wait->job, 0);

        return answer ? copy(answer) : no_answer(ebbd, job_name(wait->job, 0));
    }
    for (unsigned i = 0; i < n; i++) {
        struct json_object *answer = job_answer(wait->job, i);
        struct json_object *error = json_object_object_get(answer, "error");

        if (answer && !error)
            continue;
        failed++;
        if (!first)
            first = error ? json_object_get_string(error) : "its back end does not answer";
    }
    return failed ? control_error("%u of %u VMs: %s", failed, n, first) : vms_done(n);
}

/* Its log names the operator, not us. */
static void name_operator(struct request *request)
{
    json_object_object_add(request->members, "by", json_object_new_string(request->call->who));
}

/* By name at its back end's own pace. */
static struct json_object *pass_on(struct request *request)
{
    struct json_object *timeout = json_object_object_get(request->members, "timeout_ms");
    int64_t ms = timeout ? json_object_get_int64(timeout) : SLOW_MS;

    if (ms < 0 || ms > 60000)
        ms = 60000; /* it says itself what is wrong with that */
    name_operator(request);
    return wait_for(request,
                    job_new(request->ebbd, request->vm, request->members, true, NULL,
                            (unsigned)ms + WAY_MS, NULL, NULL),
                    merge);
}

/* ---- state ---- */

/* Of many, so many in turn are asked in any case: who does not answer is found out so. */
#define TURN 32u

static bool is_known(struct ebbd *ebbd, unsigned i)
{
    const unsigned n = ebbd->n_vms, since = (i + n - ebbd->turn % n) % n;

    return since >= TURN && vm_look(ebbd->vms[i]);
}

struct job *commands_status_job(struct ebbd *ebbd, struct vm *vm,
                                void (*done)(void *ctx, struct job *job), void *ctx)
{
    struct json_object *request = one("command", json_object_new_string("status"));
    struct job *job =
        job_new(ebbd, vm, request, false, vm ? NULL : is_known, vm ? ONE_MS : ALL_MS, done, ctx);

    if (!vm)
        ebbd->turn += TURN;

    json_object_put(request);
    return job;
}

/* It mostly is where it was when the job began. */
static struct vm *find_again(const struct ebbd *ebbd, const char *name, unsigned likely)
{
    if (likely < ebbd->n_vms && strcmp(vm_name(ebbd->vms[likely]), name) == 0)
        return ebbd->vms[likely];
    return vm_find(ebbd, name);
}

static struct json_object *state_of(struct ebbd *ebbd, const struct job *job, unsigned i)
{
    struct json_object *answer = job_answer(job, i), *state = vm_state_in(answer);
    struct vm *vm = find_again(ebbd, job_name(job, i), i);
    bool answers;

    if (!vm)
        return NULL;
    if (state)
        vm_set_seen(vm, state);
    else
        (void)vm_look(vm);
    state = vm_seen(vm) ? json_object_get(vm_seen(vm)) : json_object_new_object();
    vm_describe(vm, state);
    answers = job_asked(job, i) ? answer != NULL : vm_answers(vm);
    json_object_object_add(json_object_object_get(state, "back_end"), "answers",
                           json_object_new_boolean(answers));
    return state;
}

struct json_object *commands_states(struct ebbd *ebbd, const struct job *job)
{
    struct json_object *states = json_object_new_array();

    for (unsigned i = 0; i < job_count(job); i++) {
        struct json_object *state = state_of(ebbd, job, i);

        if (state)
            json_object_array_add(states, state);
    }
    return states;
}

/* ---- briefly ---- */

/* What is told of each VM, if all are asked for: of these members, those of theirs (NULL: all). */
static const struct brief {
    const char *name;
    const char *members[5];
} briefs[] = {
    {"name", {NULL}},
    {"connected", {NULL}},
    {"socket", {NULL}},
    {"back_end", {NULL}},
    {"inhibited", {NULL}},
    {"rate", {NULL}},
    {"memory", {"assigned_bytes", "resident_bytes", "note"}},
    {"balloon", {"target_bytes", "actual_bytes", "needs_reset"}},
    {"guest", {"age_ns", "free_bytes"}},
    {"reported_bytes", {NULL}},
    {"faults", {NULL}},
    {"discard", {"discarded_bytes", "not", "latency", "batches"}},
    {"front_ends", {"connections", "ended", "refused", "last_error"}},
};

static bool is_zero(struct json_object *value)
{
    return json_object_is_type(value, json_type_object)
               ? json_object_get_uint64(json_object_object_get(value, "bytes")) == 0
               : json_object_get_uint64(value) == 0;
}

/* Less what did not happen. */
static struct json_object *causes_of(struct json_object *causes)
{
    struct json_object *to = json_object_new_object();

    json_object_object_foreach(causes, name, value)
    {
        if (!is_zero(value))
            json_object_object_add(to, name, json_object_get(value));
    }
    return to;
}

static struct json_object *part_of(struct json_object *from, const struct brief *brief)
{
    const bool idle = is_zero(json_object_object_get(from, "batches"));
    struct json_object *to, *value;

    if (strcmp(brief->name, "faults") == 0 && json_object_is_type(from, json_type_object))
        return causes_of(from);
    if (!brief->members[0] || !json_object_is_type(from, json_type_object))
        return json_object_get(from);
    to = json_object_new_object();
    for (unsigned m = 0; m < 5 && brief->members[m]; m++) {
        if (!json_object_object_get_ex(from, brief->members[m], &value) ||
            (idle && strcmp(brief->members[m], "latency") == 0))
            continue;
        json_object_object_add(to, brief->members[m],
                               strcmp(brief->members[m], "not") == 0 &&
                                       json_object_is_type(value, json_type_object)
                                   ? causes_of(value)
                                   : json_object_get(value));
    }
    return to;
}

static struct json_object *brief_of(struct json_object *state)
{
    struct json_object *to = json_object_new_object(), *value;

    for (size_t i = 0; i < sizeof(briefs) / sizeof(briefs[0]); i++) {
        if (json_object_object_get_ex(state, briefs[i].name, &value))
            json_object_object_add(to, briefs[i].name, part_of(value, &briefs[i]));
    }
    return to;
}

static struct json_object *merge_status(struct ebbd *ebbd, const struct wait *wait)
{
    struct json_object *answer = one("now_ns", json_object_new_uint64(log_now_ns())), *full = NULL;
    struct json_object *states = commands_states(ebbd, wait->job);
    const bool brief = json_object_object_get_ex(wait->request, "full", &full)
                           ? !json_object_get_boolean(full)
                           : !control_text(wait->request, "vm");

    for (size_t i = 0; brief && i < json_object_array_length(states); i++)
        json_object_array_put_idx(states, i, brief_of(json_object_array_get_idx(states, i)));
    json_object_object_add(answer, "started_ns", json_object_new_uint64(ebbd->started_ns));
    json_object_object_add(answer, "vms", states);
    return answer;
}

static struct json_object *status(struct request *request)
{
    struct json_object *full;

    if (json_object_object_get_ex(request->members, "full", &full) &&
        !json_object_is_type(full, json_type_boolean))
        return control_error("'full' is true or false");
    return wait_for(request, commands_status_job(request->ebbd, request->vm, NULL, NULL),
                    merge_status);
}

static struct json_object *watch(struct request *request)
{
    struct json_object *member = json_object_object_get(request->members, "interval_ms");
    int64_t interval = member ? json_object_get_int64(member) : 1000;

    if ((member && !json_object_is_type(member, json_type_int)) || interval < 100 ||
        interval > 60000)
        return control_error("'interval_ms' is a whole number from 100 to 60000");
    request->call->again_us = (uint64_t)interval * 1000;
    return status(request);
}

/* Brief. */
static struct json_object *merge_list(struct ebbd *ebbd, const struct wait *wait)
{
    static const char *const members[] = {"name", "connected", "socket"};
    struct json_object *states = commands_states(ebbd, wait->job), *vms = json_object_new_array();

    for (size_t i = 0; i < json_object_array_length(states); i++) {
        struct json_object *state = json_object_array_get_idx(states, i);
        struct json_object *brief = json_object_new_object();

        for (size_t m = 0; m < sizeof(members) / sizeof(members[0]); m++)
            json_object_object_add(brief, members[m],
                                   json_object_get(json_object_object_get(state, members[m])));
        json_object_array_add(vms, brief);
    }
    json_object_put(states);
    return one("vms", vms);
}

static struct json_object *list(struct request *request)
{
    return wait_for(request, commands_status_job(request->ebbd, NULL, NULL, NULL), merge_list);
}

/* ---- what the supervisor remembers ---- */

static struct json_object *inhibit(struct request *request)
{
    struct json_object *on = json_object_object_get(request->members, "on");
    struct json_object *timeout = json_object_object_get(request->members, "timeout_ms");
    const int64_t ms = timeout ? json_object_get_int64(timeout) : SLOW_MS;

    if (!json_object_is_type(on, json_type_boolean))
        return control_error("inhibit needs 'on': true or false");
    if ((timeout && !json_object_is_type(timeout, json_type_int)) || ms < 1 || ms > 60000)
        return control_error("'timeout_ms' is a whole number from 1 to 60000");
    if (!request->vm)
        request->ebbd->inhibit = json_object_get_boolean(on);
    for (unsigned i = 0; i < request->ebbd->n_vms; i++) {
        if (!request->vm || request->vm == request->ebbd->vms[i])
            vm_set_inhibit(request->ebbd->vms[i], json_object_get_boolean(on));
    }
    return pass_on(request);
}

static struct json_object *hint(struct request *request)
{
    return pass_on(request);
}

static struct json_object *merge_limits(struct ebbd *ebbd, const struct wait *wait)
{
    struct json_object *answer = merge(ebbd, wait);

    if (control_text(wait->request, "vm") || json_object_object_get(answer, "error"))
        return answer;
    json_object_put(answer);
    return one("rate", json_object_new_uint64(ebbd->rate));
}

static struct json_object *limits(struct request *request)
{
    struct json_object *rate = json_object_object_get(request->members, "rate");
    const int64_t value = json_object_get_int64(rate);
    struct ebbd *ebbd = request->ebbd;

    if (rate &&
        (!json_object_is_type(rate, json_type_int) || value < 0 || value > (int64_t)1 << 40))
        return control_error("'rate' is a whole number from 0 to %llu", 1ULL << 40);
    if (!rate && !request->vm)
        return one("rate", json_object_new_uint64(ebbd->rate));
    if (rate && !request->vm)
        ebbd->rate = (uint64_t)value;
    for (unsigned i = 0; rate && i < ebbd->n_vms; i++) {
        if (!request->vm || request->vm == ebbd->vms[i])
            vm_set_rate(ebbd->vms[i], (uint64_t)value);
    }
    name_operator(request);
    return wait_for(request,
                    job_new(ebbd, request->vm, request->members, true, NULL, WAY_MS, NULL, NULL),
                    merge_limits);
}

/* ---- sockets that come and go ---- */

static struct json_object *add(struct request *request)
{
    const char *name = control_text(request->members, "vm");
    char file[VM_NAME_MAX + sizeof(SOCKET_SUFFIX)], path[512];
    const char *whom = control_text(request->members, "for"), *wrong = NULL;
    struct sockets_access access = SOCKETS_OWN;
    struct ebbd *ebbd = request->ebbd;
    int fd;

    if (!ebbd->in_dir)
        return control_error("there is nowhere to add it: start ebbd with --socket-dir");
    if (json_object_object_get_ex(request->members, "for", NULL))
        wrong = sockets_read_access(whom ? whom : "", &access);
    if (wrong)
        return control_error("%s", wrong);
    snprintf(file, sizeof(file), "%s" SOCKET_SUFFIX, name);
    snprintf(path, sizeof(path), "%s/%s", ebbd->options.socket_dir, file);
    fd = sockets_listen_unix(file, &access);
    if (fd < 0 && errno == EADDRINUSE)
        return control_error("%s exists; if nobody needs it, remove the file", path);
    if (fd < 0 && errno == EOPNOTSUPP)
        return control_error("%s cannot be for %s: its file system has no access lists (ACL)", path,
                             whom ? whom : "others");
    if (fd < 0)
        return control_error("%s cannot be made: %s", path, strerror(errno));
    if (!vm_new(ebbd, name, fd, path, true))
        return control_error("%s: %s", name, strerror(errno));
    log_line("%s: added", name);
    return one("socket", json_object_new_string(path));
}

static struct json_object *remove_vm(struct request *request)
{
    char file[VM_NAME_MAX + sizeof(SOCKET_SUFFIX)];

    if (!vm_removable(request->vm))
        return control_error("%s is not in the --socket-dir; it stays as long as ebbd runs",
                             vm_name(request->vm));
    snprintf(file, sizeof(file), "%s" SOCKET_SUFFIX, vm_name(request->vm));
    log_line("%s: removed", vm_name(request->vm));
    if (sockets_remove(file) != 0 && errno != ENOENT)
        log_line("%s is not removed: %s", file,
                 errno == ESTALE ? "another is in its place" : strerror(errno));
    vm_free(request->vm, VM_REMOVE);
    ebbd_look(request->ebbd);
    return vms_done(1);
}

/* ---- which ---- */

static const struct command {
    const char *name;
    struct json_object *(*run)(struct request *request);
    bool looks; /* changes nothing */
    enum vm_rule rule;
    const char *members[MEMBER_LIMIT]; /* besides `command`, `id` and `vm` */
} commands[] = {
    {"version", version, true, VM_RULE_NONE, {NULL}},
    {"list", list, true, VM_RULE_NONE, {NULL}},
    {"status", status, true, VM_RULE_OPTIONAL, {"full"}},
    {"watch", watch, true, VM_RULE_OPTIONAL, {"interval_ms", "full"}},
    {"stats", pass_on, true, VM_RULE_NEEDED, {"timeout_ms"}},
    {"resize", pass_on, false, VM_RULE_NEEDED, {"memory_bytes", "balloon_bytes"}},
    {"inhibit", inhibit, false, VM_RULE_OPTIONAL, {"on", "timeout_ms"}},
    {"limits", limits, false, VM_RULE_OPTIONAL, {"rate"}},
    {"flush", pass_on, false, VM_RULE_OPTIONAL, {"timeout_ms"}},
    {"hint", hint, false, VM_RULE_NEEDED, {"action"}},
    {"add", add, false, VM_RULE_NEW, {"for"}},
    {"remove", remove_vm, false, VM_RULE_NEEDED, {NULL}},
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
static struct json_object *check_members(const struct command *command, struct json_object *members)
{
    json_object_object_foreach(members, name, value)
    {
        bool known = strcmp(name, "command") == 0 || strcmp(name, "id") == 0 ||
                     (command->rule != VM_RULE_NONE && strcmp(name, "vm") == 0);

        (void)value;
        for (unsigned i = 0; i < MEMBER_LIMIT && command->members[i]; i++)
            known = known || strcmp(name, command->members[i]) == 0;
        if (!known)
            return control_error("'%s' has no member '%.64s'", command->name, name);
    }
    return NULL;
}

/* NULL: it is as the rule says. */
static struct json_object *check_vm(enum vm_rule rule, struct request *request)
{
    const char *name = control_text(request->members, "vm");
    const bool given = json_object_object_get_ex(request->members, "vm", NULL);

    if (rule == VM_RULE_NONE || (rule == VM_RULE_OPTIONAL && !given))
        return NULL;
    if (!name || !vm_options_name(name))
        return control_error("'vm' is the name of a VM: up to %u letters, digits, '.', '_', '-'",
                             VM_NAME_MAX);
    request->vm = vm_find(request->ebbd, name);
    if (rule == VM_RULE_NEW)
        return request->vm ? control_error("there is a VM %s already", name) : NULL;
    return request->vm ? NULL : control_error("there is no VM %s; `list` names them", name);
}

/* Does it change nothing? */
static bool only_looks(const struct command *command, struct json_object *members)
{
    const char *action = control_text(members, "action");

    if (command->run == limits)
        return !json_object_object_get_ex(members, "rate", NULL);
    if (command->run == hint)
        return action && strcmp(action, "status") == 0;
    return command->looks;
}

/* NULL: the client may do this. */
static struct json_object *check_right(const struct command *command, const struct request *request)
{
    const struct ebbd *ebbd = request->ebbd;
    static struct log_limit refusals;

    if (request->call->operates || only_looks(command, request->members))
        return NULL;
    log_by(NULL);
    log_limited(&refusals, "refused '%s' %s, who is not in the group %s", command->name,
                request->call->who, ebbd->options.operators_name);
    log_by(request->call->who);
    return control_error("'%s' is for root and the group %s (ebbd --operators): join it, and log "
                         "in again; you may look",
                         command->name, ebbd->options.operators_name);
}

static struct json_object *execute(void *ctx, struct json_object *members,
                                   struct control_call *call)
{
    struct request request = {.ebbd = ctx, .members = members, .call = call};
    const char *name = control_text(members, "command");
    struct json_object *error;

    for (size_t i = 0; name && i < N_COMMANDS; i++) {
        if (strcmp(name, commands[i].name) != 0)
            continue;
        error = check_right(&commands[i], &request);
        if (!error)
            error = check_members(&commands[i], members);
        if (!error)
            error = check_vm(commands[i].rule, &request);
        return error ? error : commands[i].run(&request);
    }
    return unknown_command();
}

struct control_commands ebbd_commands(struct ebbd *ebbd)
{
    return (struct control_commands){
        .base = ebbd->base, .ctx = ebbd, .execute = execute, .waited = waited, .forget = forget};
}
