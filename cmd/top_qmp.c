/* SPDX-License-Identifier: BSD-2-Clause */
#include "top_qmp.h"
#include "cmd.h"
#include "result.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define OLD_S   30.0
#define LATE_NS (2 * CMD_S)
#define OBJECTS 64u /* taken at a time: events, too, are such */

/* QEMU's objects with an id of the user's, and those without one. */
#define DEVICES         "/machine/peripheral"
#define UNNAMED_DEVICES "/machine/peripheral-anon"

/* What is known of this connection's QEMU; its name is kept. */
static void forget(struct top_qmp *qmp)
{
    control_close(&qmp->control);
    residency_close(&qmp->residency);
    free(qmp->balloon);
    qmp->balloon = NULL;
    qmp->assigned = qmp->actual = qmp->free = qmp->updated = (double)NAN;
    qmp->looked = qmp->found = false;
    qmp->step = TOP_QMP_NEW;
}

void top_qmp_init(struct top_qmp *qmp, const char *path)
{
    *qmp = (struct top_qmp){.step = TOP_QMP_NEW};
    control_init(&qmp->control, path, &control_qemu);
    residency_init(&qmp->residency, 0, BACKING_ANON, 0);
    forget(qmp);
}

void top_qmp_close(struct top_qmp *qmp)
{
    forget(qmp);
    free(qmp->name);
    qmp->name = NULL;
}

/* ---- ask ---- */

static bool lose(struct top_qmp *qmp)
{
    forget(qmp);
    qmp->lost = true;
    return false;
}

static struct json_object *arguments_of(const struct top_qmp *qmp)
{
    struct json_object *arguments = json_object_new_object();

    if (qmp->step == TOP_QMP_DEVICES)
        result_add_text(arguments, "path", DEVICES);
    if (qmp->step == TOP_QMP_UNNAMED_DEVICES)
        result_add_text(arguments, "path", UNNAMED_DEVICES);
    if (qmp->step == TOP_QMP_STATS) {
        result_add_text(arguments, "path", qmp->balloon);
        result_add_text(arguments, "property", "guest-stats");
    }
    return arguments;
}

static bool ask(struct top_qmp *qmp, enum top_qmp_step step)
{
    static const char *const commands[] = {[TOP_QMP_CAPABILITIES] = "qmp_capabilities",
                                           [TOP_QMP_NAME] = "query-name",
                                           [TOP_QMP_DEVICES] = "qom-list",
                                           [TOP_QMP_UNNAMED_DEVICES] = "qom-list",
                                           [TOP_QMP_MEMORY] = "query-memory-size-summary",
                                           [TOP_QMP_ACTUAL] = "query-balloon",
                                           [TOP_QMP_STATS] = "qom-get"};
    struct json_object *request;
    bool sent;

    qmp->step = step;
    if (step == TOP_QMP_IDLE)
        return true;
    request = json_object_new_object();
    result_add_text(request, "execute", commands[step]);
    result_add(request, "arguments", arguments_of(qmp));
    result_add_count(request, "id", ++qmp->id);
    sent = control_send(&qmp->control, request);
    json_object_put(request);
    return sent || lose(qmp);
}

bool top_qmp_ask(struct top_qmp *qmp, uint64_t now_ns)
{
    if (!top_qmp_settled(qmp))
        return true;
    qmp->asked_ns = now_ns;
    if (qmp->step == TOP_QMP_IDLE)
        return ask(qmp, TOP_QMP_MEMORY);
    if (!control_connect(&qmp->control))
        return lose(qmp);
    qmp->step = TOP_QMP_GREETING;
    return true;
}

bool top_qmp_settled(const struct top_qmp *qmp)
{
    return qmp->step == TOP_QMP_NEW || qmp->step == TOP_QMP_IDLE;
}

/* ---- hear ---- */

/* The first child that is a balloon, of whatever transport. */
static void find_balloon(struct top_qmp *qmp, const char *parent, struct json_object *children)
{
    static const char type[] = "child<virtio-balloon";

    for (size_t i = 0; !qmp->balloon && i < result_length(children); i++) {
        struct json_object *child = json_object_array_get_idx(children, i);
        const char *is = result_text(child, "type"), *name = result_text(child, "name");

        if (is && name && strncmp(is, type, sizeof(type) - 1) == 0)
            qmp->balloon = cmd_format("%s/%s", parent, name);
    }
}

/* QEMU tells 2^64 - 1 (or -1) for what the guest did not send. */
static double told(struct json_object *json, const char *key)
{
    double value = result_number(json, key);

    return value >= 0 && value < 0x1p63 ? value : (double)NAN;
}

static void take_memory(struct top_qmp *qmp, struct json_object *answer)
{
    double base = told(answer, "base-memory"), plugged = told(answer, "plugged-memory");

    qmp->assigned = base + (isnan(plugged) ? 0 : plugged);
    if (qmp->residency.bytes == (uint64_t)(isnan(base) ? 0 : base))
        return;
    residency_close(&qmp->residency);
    qmp->residency.bytes = (uint64_t)(isnan(base) ? 0 : base);
    qmp->found = false;
}

static void take_name(struct top_qmp *qmp, struct json_object *answer)
{
    const char *name = result_text(answer, "name");

    if (!name || !*name)
        return;
    free(qmp->name);
    qmp->name = cmd_format("%s", name);
}

/* `answer` is NULL if QEMU refused: what it does not tell is not known, and the next is asked. */
static void take(struct top_qmp *qmp, struct json_object *answer)
{
    switch (qmp->step) {
    case TOP_QMP_NAME:
        take_name(qmp, answer);
        break;
    case TOP_QMP_DEVICES:
        find_balloon(qmp, DEVICES, answer);
        break;
    case TOP_QMP_UNNAMED_DEVICES:
        find_balloon(qmp, UNNAMED_DEVICES, answer);
        break;
    case TOP_QMP_MEMORY:
        take_memory(qmp, answer);
        break;
    case TOP_QMP_ACTUAL:
        qmp->actual = told(answer, "actual");
        break;
    case TOP_QMP_STATS:
        qmp->free = told(result_get(answer, "stats"), "stat-free-memory");
        qmp->updated = told(answer, "last-update");
        break;
    default:
        break;
    }
}

static void go_on(struct top_qmp *qmp)
{
    enum top_qmp_step next = qmp->step + 1;

    if (next == TOP_QMP_STATS && !qmp->balloon)
        next = TOP_QMP_IDLE;
    if (next == TOP_QMP_IDLE)
        qmp->lost = false;
    ask(qmp, next);
}

static void refuse(struct top_qmp *qmp, const char *why)
{
    snprintf(qmp->control.error, sizeof(qmp->control.error), "%s", why);
    lose(qmp);
}

static void hear(struct top_qmp *qmp, struct json_object *object)
{
    struct json_object *error = result_get(object, "error");

    if (qmp->step == TOP_QMP_GREETING) {
        if (result_get(object, "QMP"))
            go_on(qmp);
        else
            refuse(qmp, "who listens does not greet as QMP does");
        return;
    }
    /* Events, and whatever else nobody asked for. */
    if ((!error && !result_get(object, "return")) || top_qmp_settled(qmp) ||
        !(result_number(object, "id") == (double)qmp->id))
        return;
    if (error && qmp->step == TOP_QMP_CAPABILITIES) {
        refuse(qmp, "QEMU refuses to talk");
        return;
    }
    take(qmp, error ? NULL : result_get(object, "return"));
    go_on(qmp);
}

bool top_qmp_hear(struct top_qmp *qmp)
{
    struct json_object *object;

    for (unsigned i = 0; i < OBJECTS && qmp->step != TOP_QMP_NEW; i++) {
        switch (control_receive(&qmp->control, &object)) {
        case CONTROL_ANSWERED:
            hear(qmp, object);
            json_object_put(object);
            break;
        case CONTROL_ENDED:
            lose(qmp);
            return false;
        case CONTROL_LATER:
            return false;
        }
    }
    return qmp->step != TOP_QMP_NEW;
}

/* ---- what the host holds ---- */

static pid_t peer_of(const struct top_qmp *qmp)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    if (getsockopt(qmp->control.fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0)
        return 0;
    return peer.pid;
}

/* A memfd of the right size, or else anonymous memory of it. */
static void find_memory(struct top_qmp *qmp)
{
    static const enum backing kinds[] = {BACKING_MEMFD, BACKING_ANON};
    uint64_t bytes = qmp->residency.bytes;
    pid_t pid = peer_of(qmp);

    for (size_t i = 0; !qmp->found && pid > 0 && bytes > 0 && i < 2; i++) {
        residency_close(&qmp->residency);
        residency_init(&qmp->residency, pid, kinds[i], bytes);
        qmp->found = residency_find(&qmp->residency);
    }
    qmp->looked = true;
}

static void read_memory(struct top_qmp *qmp, struct top_row *row)
{
    uint64_t kib;

    if (!qmp->found)
        find_memory(qmp);
    if (qmp->found && residency_read(&qmp->residency, RESIDENCY_USUAL, &kib)) {
        row->values[TOP_RESIDENT] = (double)kib * 1024;
        return;
    }
    qmp->found = false;
    if (qmp->looked)
        top_row_remark(row, "memory not found in process %d", (int)peer_of(qmp));
}

/* ---- the row ---- */

static const char *name_of(const struct top_qmp *qmp)
{
    const char *slash = strrchr(qmp->control.path, '/');

    return qmp->name ? qmp->name : slash ? slash + 1 : qmp->control.path;
}

static void put_late(const struct top_qmp *qmp, uint64_t now_ns, struct top_row *row)
{
    double seconds = (double)(now_ns - qmp->asked_ns) / 1e9;

    if (qmp->step == TOP_QMP_GREETING)
        top_row_remark(row, "no greeting for %.0f s: is another client connected?", seconds);
    else
        top_row_remark(row, "no answer for %.0f s", seconds);
}

static void put_values(struct top_qmp *qmp, struct top_row *row)
{
    row->values[TOP_ASSIGNED] = qmp->assigned;
    row->values[TOP_FREE] = qmp->free;
    row->values[TOP_BALLOON] =
        qmp->assigned >= qmp->actual ? qmp->assigned - qmp->actual : (double)NAN;
    row->old = (double)time(NULL) - qmp->updated > OLD_S;
    read_memory(qmp, row);
    top_row_waste(row);
    if (!qmp->balloon)
        top_row_remark(row, "no balloon");
    else if (isnan(qmp->free) || qmp->updated == 0)
        top_row_remark(row, "no statistics");
}

void top_qmp_show(struct top_qmp *qmp, uint64_t now_ns, struct top_rows *rows)
{
    struct top_row *row = top_rows_add(rows, name_of(qmp));
    bool late = !top_qmp_settled(qmp) && now_ns - qmp->asked_ns > LATE_NS;

    if (qmp->lost) {
        row->gone = true;
        top_row_remark(row, "gone: %s", qmp->control.error);
    } else if (isnan(qmp->assigned) && !late) {
        top_row_remark(row, "asking");
    } else if (!isnan(qmp->assigned)) {
        put_values(qmp, row);
    }
    if (late)
        put_late(qmp, now_ns, row);
}
