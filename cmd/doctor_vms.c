/* SPDX-License-Identifier: BSD-2-Clause */
/* What can be seen of VMs from outside: QEMU's command lines, its monitors, and what ebbd says. */
#include "cmd.h"
#include "control.h"
#include "doctor.h"
#include "result.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json_tokener.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS_MAX   2048u
#define LINE_MAX_   (1u << 20)
#define ASK_NS      (2 * CMD_S)
#define OWN_BALLOON "-device virtio-balloon-pci,free-page-reporting=on"
#define SHARED      "-object memory-backend-memfd,id=m,size=SIZE,share=on -machine memory-backend=m"
/* Feature bits (virtio 1.3, section 5.5.3). */
#define FEATURE_STATS     (1u << 1)
#define FEATURE_REPORTING (1u << 5)

/* ---- QEMU's command line ---- */

struct qemu_process {
    char *line; /* words, each with a zero byte behind */
    char *words[WORDS_MAX];
    unsigned n;
    char name[80];
};

/* The value of a property in KEY=VALUE,... or in JSON, to be freed; NULL: it is not there. */
static char *property(const char *word, const char *key)
{
    const size_t n = strlen(key);
    struct json_object *json = *word == '{' ? json_tokener_parse(word) : NULL;
    struct json_object *value = result_get(json, key);
    char *found = value ? cmd_format("%s", json_object_get_string(value)) : NULL;

    for (const char *at = json ? NULL : word; at && !found; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, key, n) == 0 && at[n] == '=')
            found = cmd_format("%.*s", (int)strcspn(at + n + 1, ","), at + n + 1);
    }
    json_object_put(json);
    return found;
}

static bool property_is_on(const char *word, const char *key)
{
    char *value = property(word, key);
    const bool on = value && (strcmp(value, "on") == 0 || strcmp(value, "true") == 0 ||
                              strcmp(value, "yes") == 0);

    free(value);
    return on;
}

/* What a -device or -object is: its first word, or a member. */
static bool is_kind(const char *word, const char *key, const char *start)
{
    char *kind = *word == '{' ? property(word, key) : cmd_format("%s", word);
    const bool is = kind && strncmp(kind, start, strlen(start)) == 0;

    free(kind);
    return is;
}

/* The next value of an option from word *at on that begins with `start`, for `-device` by its
 * driver, for `-object` by its type; NULL: there is none more. */
static const char *next_value(const struct qemu_process *vm, unsigned *at, const char *option,
                              const char *start)
{
    const char *key = strcmp(option, "-object") == 0 ? "qom-type" : "driver";

    for (; *at + 1 < vm->n; (*at)++) {
        const char *word = vm->words[*at] + (vm->words[*at][0] == '-' && vm->words[*at][1] == '-');

        if (strcmp(word, option) == 0 && is_kind(vm->words[*at + 1], key, start))
            return vm->words[++*at];
    }
    return NULL;
}

static const char *value_of(const struct qemu_process *vm, const char *option, const char *start)
{
    unsigned at = 1;

    return next_value(vm, &at, option, start);
}

/* Whether one of the memory backends has the property switched on. */
static bool memory_has(const struct qemu_process *vm, const char *key)
{
    unsigned at = 1;
    const char *word;

    while ((word = next_value(vm, &at, "-object", "memory-backend-"))) {
        if (property_is_on(word, key))
            return true;
    }
    return false;
}

static void find_name(struct qemu_process *vm, const char *pid)
{
    const char *word = value_of(vm, "-name", "");
    char *name = word ? property(word, "guest") : NULL;

    if (name)
        snprintf(vm->name, sizeof(vm->name), "%s", name);
    else if (word)
        snprintf(vm->name, sizeof(vm->name), "%.*s", (int)strcspn(word, ","), word);
    else
        snprintf(vm->name, sizeof(vm->name), "QEMU, process %.20s", pid);
    free(name);
}

/* False: it is no QEMU with a guest, or cannot be seen. */
static bool read_process(struct qemu_process *vm, const char *pid)
{
    char *path = cmd_format("/proc/%s/cmdline", pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got, len = 0;

    free(path);
    vm->n = 0;
    while (fd >= 0 && len < (ssize_t)LINE_MAX_ - 1 &&
           (got = read(fd, vm->line + len, LINE_MAX_ - 1 - (size_t)len)) > 0)
        len += got;
    if (fd >= 0)
        close(fd);
    vm->line[len] = '\0';
    for (ssize_t at = 0; at < len && vm->n < WORDS_MAX; at += (ssize_t)strlen(vm->line + at) + 1)
        vm->words[vm->n++] = vm->line + at;
    return vm->n > 1 && strstr(vm->words[0], "qemu-");
}

/* ---- what is wrong with a QEMU ---- */

static void look_at_own_balloon(struct doctor *doctor, const struct qemu_process *vm,
                                const char *balloon)
{
    if (property_is_on(balloon, "free-page-reporting"))
        doctor_tell(doctor, DOCTOR_OK, vm->name, NULL,
                    "QEMU's balloon lets the guest report free pages");
    else
        doctor_tell(doctor, DOCTOR_WRONG, vm->name,
                    OWN_BALLOON " (libvirt: <memballoon model='virtio' freePageReporting='on'/>)",
                    "QEMU's balloon does not let the guest report free pages");
}

static void look_at_balloon(struct doctor *doctor, const struct qemu_process *vm)
{
    const char *own = value_of(vm, "-device", "virtio-balloon");
    const char *generic = value_of(vm, "-device", "vhost-user-test-device");
    char *id = generic ? property(generic, "virtio-id") : NULL;

    if (own) {
        look_at_own_balloon(doctor, vm, own);
    } else if (!id || strcmp(id, "5") != 0) {
        doctor_tell(doctor, DOCTOR_WRONG, vm->name, OWN_BALLOON,
                    "there is no balloon: the guest cannot tell what it does not need");
    } else if (memory_has(vm, "share")) {
        doctor_tell(doctor, DOCTOR_OK, vm->name, NULL,
                    "a back end (ebbd) serves the balloon, and shares the memory");
    } else {
        doctor_tell(doctor, DOCTOR_WRONG, vm->name, SHARED,
                    "a back end (ebbd) serves the balloon, but the memory is not shared with it");
    }
    free(id);
}

/* What keeps memory with the VM whatever its guest says. */
static void look_at_pins(struct doctor *doctor, const struct qemu_process *vm)
{
    const char *overcommit = value_of(vm, "-overcommit", "");
    unsigned at = 1;
    const char *memory;

    if (value_of(vm, "-device", "vfio-"))
        doctor_tell(
            doctor, DOCTOR_WRONG, vm->name, "use virtio devices instead",
            "a device is passed through (vfio): it pins all memory, and QEMU discards none");
    if (overcommit && property_is_on(overcommit, "mem-lock"))
        doctor_tell(doctor, DOCTOR_WRONG, vm->name, "-overcommit mem-lock=off",
                    "the memory is locked: none of it goes back");
    while ((memory = next_value(vm, &at, "-object", "memory-backend-"))) {
        char *size = property(memory, "hugetlbsize");

        if (size && strchr(size, 'G'))
            doctor_tell(doctor, DOCTOR_WRONG, vm->name, "hugetlbsize=2M",
                        "the memory is in pages of %s: a guest reports 4 MiB at most at a time",
                        size);
        free(size);
    }
}

static void look_at_processes(struct doctor *doctor)
{
    struct qemu_process *vm = cmd_realloc(NULL, sizeof(*vm));
    DIR *dir = opendir("/proc");
    struct dirent *entry;

    vm->line = cmd_realloc(NULL, LINE_MAX_);
    while (dir && (entry = readdir(dir))) {
        if (!isdigit((unsigned char)entry->d_name[0]) || !read_process(vm, entry->d_name))
            continue;
        if (value_of(vm, "-device", "help") || value_of(vm, "-M", "none") ||
            value_of(vm, "-machine", "none"))
            continue; /* it has no guest */
        find_name(vm, entry->d_name);
        look_at_balloon(doctor, vm);
        look_at_pins(doctor, vm);
    }
    if (dir)
        closedir(dir);
    free(vm->line);
    free(vm);
}

/* ---- QEMU's monitor ---- */

/* What a command returns; NULL: an error, or nothing in time. Events in between are passed over. To
 * be released. */
static struct json_object *ask(struct control *control, const char *command, const char *path,
                               const char *name)
{
    struct json_object *request = json_object_new_object(), *arguments = json_object_new_object();
    struct json_object *answer, *result = NULL;
    const uint64_t until = cmd_now_ns() + ASK_NS;

    result_add_text(request, "execute", command);
    if (path)
        result_add_text(arguments, "path", path);
    if (name)
        result_add_text(arguments, "property", name);
    json_object_object_add(request, "arguments", arguments);
    answer = control_call(control, request, ASK_NS);
    while (answer && !result_get(answer, "return") && !result_get(answer, "error") &&
           cmd_now_ns() < until) {
        struct pollfd readable = {.fd = control->fd, .events = POLLIN};

        json_object_put(answer);
        answer = NULL;
        poll(&readable, 1, 100);
        if (control_receive(control, &answer) != CONTROL_ANSWERED)
            answer = control->fd >= 0 ? json_object_new_object() : NULL;
    }
    if (answer && json_object_object_get_ex(answer, "return", &result))
        json_object_get(result);
    json_object_put(answer);
    json_object_put(request);
    return result;
}

/* The path of the balloon device among QEMU's objects, to be freed; NULL: there is none. */
static char *find_balloon(struct control *control)
{
    static const char *const parents[] = {"/machine/peripheral", "/machine/peripheral-anon"};
    char *path = NULL;

    for (size_t i = 0; i < 2 && !path; i++) {
        struct json_object *children = ask(control, "qom-list", parents[i], NULL);

        for (size_t j = 0; j < result_length(children) && !path; j++) {
            struct json_object *child = json_object_array_get_idx(children, j);
            const char *type = result_text(child, "type"), *name = result_text(child, "name");

            if (type && name && strncmp(type, "child<virtio-balloon", 20) == 0)
                path = cmd_format("%s/%s", parents[i], name);
        }
        json_object_put(children);
    }
    return path;
}

static void look_at_statistics(struct doctor *doctor, struct control *control, const char *vm,
                               const char *balloon)
{
    struct json_object *interval = ask(control, "qom-get", balloon, "guest-stats-polling-interval");
    struct json_object *stats = ask(control, "qom-get", balloon, "guest-stats");
    char *remedy =
        cmd_format("{\"execute\":\"qom-set\",\"arguments\":{\"path\":\"%s\",\"property\":"
                   "\"guest-stats-polling-interval\",\"value\":2}}",
                   balloon);

    if (json_object_get_int64(interval) <= 0)
        doctor_tell(doctor, DOCTOR_NOTE, vm, remedy,
                    "QEMU does not ask the guest for statistics, so nobody can tell how much it "
                    "has free");
    else if (!(result_number(stats, "last-update") > 0))
        doctor_tell(doctor, DOCTOR_WRONG, vm, "in the guest: modprobe virtio_balloon",
                    "the guest has sent no statistics: its balloon driver is not loaded");
    else
        doctor_tell(doctor, DOCTOR_OK, vm, NULL,
                    "the guest's balloon driver answers, with statistics each %" PRId64 " s",
                    json_object_get_int64(interval));
    free(remedy);
    json_object_put(stats);
    json_object_put(interval);
}

static void look_at_monitor(struct doctor *doctor, const char *path)
{
    struct control control;
    struct json_object *greeting, *name;
    char *balloon, *vm;

    control_init(&control, path, &control_qemu);
    if (!control_connect(&control)) {
        doctor_tell(doctor, DOCTOR_WRONG, path, NULL, "%s", control.error);
        return;
    }
    greeting = ask(&control, "qmp_capabilities", NULL, NULL);
    json_object_put(greeting);
    name = greeting ? ask(&control, "query-name", NULL, NULL) : NULL;
    vm = cmd_format("%s", result_text(name, "name") ? result_text(name, "name") : path);
    balloon = greeting ? find_balloon(&control) : NULL;
    if (!greeting)
        doctor_tell(doctor, DOCTOR_WRONG, path, "end what is connected to it: one client is served",
                    "QEMU's monitor does not answer");
    else if (balloon)
        look_at_statistics(doctor, &control, vm, balloon);
    free(balloon);
    free(vm);
    json_object_put(name);
    control_close(&control);
}

/* ---- ebbd's VMs ---- */

static void look_at_vm(struct doctor *doctor, struct json_object *vm)
{
    const char *name = result_text(vm, "name");
    const uint64_t features =
        (uint64_t)json_object_get_int64(result_get(result_get(vm, "balloon"), "features"));
    const char *note = result_text(result_get(vm, "memory"), "note");

    if (!name)
        return;
    if (result_flag(result_get(vm, "back_end"), "lost"))
        doctor_tell(doctor, DOCTOR_WRONG, name, "start the VM anew: QEMU does not connect again",
                    "the guest has no balloon since its back end ended");
    else if (!result_flag(vm, "connected"))
        doctor_tell(doctor, DOCTOR_NOTE, name, "start the VM, with its socket",
                    "ebbd waits for it");
    else if (!(result_number(result_get(vm, "memory"), "assigned_bytes") > 0))
        doctor_tell(doctor, DOCTOR_WRONG, name, SHARED, "the VM shares no memory with ebbd");
    else if (!features)
        doctor_tell(doctor, DOCTOR_NOTE, name, "in the guest: modprobe virtio_balloon",
                    "the guest's balloon driver is not there, or not yet");
    else if (!(features & FEATURE_REPORTING))
        doctor_tell(doctor, DOCTOR_WRONG, name,
                    "use a kernel with free page reporting: Linux 5.7 "
                    "or newer",
                    "the guest's driver does not report free pages");
    else
        doctor_tell(doctor, DOCTOR_OK, name, NULL, "the guest reports free pages to ebbd%s",
                    features & FEATURE_STATS ? ", and sends statistics" : "");
    if (note)
        doctor_tell(doctor, DOCTOR_NOTE, name, NULL, "%s", note);
    if (result_flag(vm, "inhibited")) {
        char *remedy = cmd_format("ebb ctl inhibit %s off", name);

        doctor_tell(doctor, DOCTOR_NOTE, name, remedy,
                    "nothing is given back, because an operator said so (inhibit)");
        free(remedy);
    }
}

static void look_at_daemon(struct doctor *doctor)
{
    struct json_object *request = json_object_new_object(), *answer = NULL, *vms;
    struct control control;

    result_add_text(request, "command", "status");
    result_add(request, "full", json_object_new_boolean(true));
    control_init(&control, doctor->control, &control_ebbd);
    if (access(doctor->control, F_OK) == 0 && control_connect(&control))
        answer = control_call(&control, request, 5 * ASK_NS);
    vms = result_get(answer, "vms");
    for (size_t i = 0; i < result_length(vms); i++)
        look_at_vm(doctor, json_object_array_get_idx(vms, i));
    json_object_put(answer);
    json_object_put(request);
    control_close(&control);
}

void doctor_vms(struct doctor *doctor)
{
    look_at_processes(doctor);
    for (size_t i = 0; i < doctor->n_qmps; i++)
        look_at_monitor(doctor, doctor->qmps[i]);
    look_at_daemon(doctor);
}
