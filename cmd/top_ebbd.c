/* SPDX-License-Identifier: BSD-2-Clause */
#include "top_ebbd.h"
#include "cmd.h"
#include "grid.h"
#include "result.h"

#include <json-c/linkhash.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define OLD_NS  (30.0 * 1e9) /* statistics of the guest's that say little by now */
#define LATE_NS (2 * CMD_S)  /* an answer that is worth a word */

void top_ebbd_init(struct top_ebbd *ebbd, const char *path)
{
    *ebbd = (struct top_ebbd){.step = TOP_EBBD_NEW};
    control_init(&ebbd->control, path, &control_ebbd);
}

void top_ebbd_close(struct top_ebbd *ebbd)
{
    control_close(&ebbd->control);
    json_object_put(ebbd->now);
    json_object_put(ebbd->before);
    ebbd->now = ebbd->before = NULL;
}

/* ---- ask and hear ---- */

static bool lose(struct top_ebbd *ebbd)
{
    control_close(&ebbd->control);
    ebbd->step = TOP_EBBD_NEW;
    ebbd->lost = true;
    return false;
}

static bool say(struct top_ebbd *ebbd, struct json_object *request, enum top_ebbd_step step)
{
    bool sent = control_send(&ebbd->control, request);

    json_object_put(request);
    if (!sent)
        return lose(ebbd);
    ebbd->step = step;
    return true;
}

static bool ask_status(struct top_ebbd *ebbd)
{
    struct json_object *request = json_object_new_object();

    result_add_text(request, "command", "status");
    return say(ebbd, request, TOP_EBBD_ASKED);
}

bool top_ebbd_ask(struct top_ebbd *ebbd, uint64_t now_ns)
{
    if (!top_ebbd_settled(ebbd))
        return true;
    ebbd->asked_ns = now_ns;
    if (ebbd->step == TOP_EBBD_IDLE)
        return ask_status(ebbd);
    if (!control_connect(&ebbd->control))
        return lose(ebbd);
    return say(ebbd, control_hello(), TOP_EBBD_HELLO);
}

static void refuse(struct top_ebbd *ebbd, const char *why)
{
    snprintf(ebbd->control.error, sizeof(ebbd->control.error), "%s", why);
    grid_clean(ebbd->control.error);
    lose(ebbd);
}

/* Takes the answer. */
static void hear(struct top_ebbd *ebbd, struct json_object *answer)
{
    const char *error = result_text(answer, "error");

    if (ebbd->step == TOP_EBBD_HELLO) {
        if (control_is_hello(&ebbd->control, answer))
            ask_status(ebbd);
        else
            lose(ebbd);
    } else if (ebbd->step != TOP_EBBD_ASKED) {
        refuse(ebbd, error ? error : "ebbd answers what nobody asked");
    } else if (!json_object_is_type(result_get(answer, "vms"), json_type_array)) {
        refuse(ebbd, error ? error : "ebbd's status has no VMs in it: is it ebbd?");
    } else {
        json_object_put(ebbd->before);
        ebbd->before = ebbd->now;
        ebbd->now = json_object_get(answer);
        ebbd->step = TOP_EBBD_IDLE;
        ebbd->lost = false;
    }
    json_object_put(answer);
}

void top_ebbd_hear(struct top_ebbd *ebbd)
{
    struct json_object *answer;

    while (ebbd->step != TOP_EBBD_NEW) {
        switch (control_receive(&ebbd->control, &answer)) {
        case CONTROL_ANSWERED:
            hear(ebbd, answer);
            break;
        case CONTROL_ENDED:
            lose(ebbd);
            return;
        case CONTROL_LATER:
            return;
        }
    }
}

bool top_ebbd_settled(const struct top_ebbd *ebbd)
{
    return ebbd->step == TOP_EBBD_NEW || ebbd->step == TOP_EBBD_IDLE;
}

/* ---- rows ---- */

/* The same VM in the answer before: VMs mostly stay in their order. */
static struct json_object *find(struct json_object *vms, size_t likely, const char *name)
{
    size_t n = result_length(vms);

    for (size_t i = 0; name && i < n; i++) {
        struct json_object *vm = json_object_array_get_idx(vms, (likely + i) % n);
        const char *other = result_text(vm, "name");

        if (other && strcmp(other, name) == 0)
            return vm;
    }
    return NULL;
}

/* NaN: not known, or counted anew. */
static double growth(struct json_object *now, struct json_object *before, const char *key)
{
    double more = result_number(now, key) - result_number(before, key);

    return more >= 0 ? more : (double)NAN;
}

static void put_rates(struct top_row *row, struct json_object *vm, struct json_object *before,
                      double seconds)
{
    struct json_object *discard = result_get(vm, "discard");
    struct json_object *discard_before = result_get(before, "discard");
    double returned = growth(discard, discard_before, "discarded_bytes");
    double resident = result_number(result_get(vm, "memory"), "resident_bytes") -
                      result_number(result_get(before, "memory"), "resident_bytes");
    double refaults = resident + returned;
    double came =
        growth(result_get(vm, "front_ends"), result_get(before, "front_ends"), "connections");

    row->values[TOP_REPORTED] = growth(vm, before, "reported_bytes") / seconds;
    row->values[TOP_RETURNED] = returned / seconds;
    if (!(came > 0)) /* else it is other memory */
        row->values[TOP_REFAULTS] = (refaults < 0 ? 0 : refaults) / seconds;
    row->values[TOP_MEDIAN] =
        control_latency(result_get(discard, "latency"), result_get(discard_before, "latency"), 0.5);
    row->values[TOP_LATENCY] = control_latency(result_get(discard, "latency"),
                                               result_get(discard_before, "latency"), 0.99);
}

/* The sum of an object's numbers, or of a member of its objects; which is the largest. NaN: it is
 * none. */
static double sum_up(struct json_object *object, const char *key, const char **largest)
{
    double sum = 0, most = 0;

    if (!json_object_is_type(object, json_type_object))
        return (double)NAN;
    json_object_object_foreach(object, name, value)
    {
        double number = json_object_is_type(value, json_type_object) ? result_number(value, key)
                                                                     : result_number(object, name);

        if (!(number > 0))
            continue;
        sum += number;
        if (number > most) {
            most = number;
            *largest = name;
        }
    }
    return sum;
}

/* What the VMM did that it must not: ebbd ended its connection for it, or refused a request. */
static void put_front_end(struct top_row *row, struct json_object *vm)
{
    struct json_object *front_ends = result_get(vm, "front_ends");
    const char *why = result_text(front_ends, "last_error");
    double ended = result_number(front_ends, "ended");
    double refused = result_number(front_ends, "refused");

    if (ended > 0)
        top_row_remark(row, "%.0f front-end%s ended%s%.60s", ended, ended > 1 ? "s" : "",
                       why ? ": " : "", why ? why : "");
    if (refused > 0)
        top_row_remark(row, "%.0f request%s of the front-end refused", refused,
                       refused > 1 ? "s" : "");
}

static void put_state(struct top_row *row, struct json_object *vm)
{
    const char *note = result_text(result_get(vm, "memory"), "note"), *largest = "";
    double rate = result_number(vm, "rate"), faults;
    char figure[GRID_FIGURE];

    if (result_flag(result_get(vm, "balloon"), "needs_reset"))
        top_row_remark(row, "needs reset");
    if (result_flag(vm, "inhibited"))
        top_row_remark(row, "inhibited");
    if (rate > 0)
        top_row_remark(row, "at most %s/s", grid_size(rate, figure));
    faults = sum_up(result_get(vm, "faults"), "count", &largest);
    if (faults > 0)
        top_row_remark(row, "%.0f fault%s of the guest (%.40s)", faults, faults > 1 ? "s" : "",
                       largest);
    if (note)
        top_row_remark(row, "%s", note);
}

static void put_failures(struct top_row *row, struct json_object *vm)
{
    const char *largest = "";

    row->values[TOP_FAILED] =
        sum_up(result_get(result_get(vm, "discard"), "not"), "bytes", &largest);
    snprintf(row->cause, sizeof(row->cause), "%s", largest);
}

static void put_vm(struct top_row *row, struct json_object *vm, struct json_object *before,
                   double seconds)
{
    struct json_object *memory = result_get(vm, "memory"), *balloon = result_get(vm, "balloon");
    struct json_object *guest = result_get(vm, "guest");

    if (!result_flag(vm, "connected")) {
        top_row_remark(row, result_flag(result_get(vm, "back_end"), "lost") ? "balloon lost"
                                                                            : "not connected");
        put_front_end(row, vm);
        return;
    }
    row->values[TOP_ASSIGNED] = result_number(memory, "assigned_bytes");
    row->values[TOP_RESIDENT] = result_number(memory, "resident_bytes");
    row->values[TOP_FREE] = result_number(guest, "free_bytes");
    row->values[TOP_BALLOON] = result_number(balloon, "actual_bytes");
    row->values[TOP_TARGET] = result_number(balloon, "target_bytes");
    row->old = result_number(guest, "age_ns") > OLD_NS;
    top_row_waste(row);
    if (seconds > 0 && result_flag(before, "connected"))
        put_rates(row, vm, before, seconds);
    put_failures(row, vm);
    put_state(row, vm);
    put_front_end(row, vm);
}

/* Between the last two answers; 0: they are not of the same daemon. */
static double seconds_between(const struct top_ebbd *ebbd)
{
    double ns = growth(ebbd->now, ebbd->before, "now_ns");
    double anew = growth(ebbd->now, ebbd->before, "started_ns");

    return ns > 0 && anew == 0 ? ns / 1e9 : 0;
}

static void note(const struct top_ebbd *ebbd, uint64_t now_ns, struct top_view *view)
{
    char text[64];

    if (ebbd->lost) {
        top_view_note(view, ebbd->control.error);
    } else if (!top_ebbd_settled(ebbd) && now_ns - ebbd->asked_ns > LATE_NS) {
        snprintf(text, sizeof(text), "ebbd has not answered for %.0f s",
                 (double)(now_ns - ebbd->asked_ns) / 1e9);
        top_view_note(view, text);
    }
}

void top_ebbd_show(const struct top_ebbd *ebbd, uint64_t now_ns, struct top_rows *rows,
                   struct top_view *view)
{
    struct json_object *vms = result_get(ebbd->now, "vms");
    struct json_object *vms_before = result_get(ebbd->before, "vms");
    double seconds = seconds_between(ebbd);

    note(ebbd, now_ns, view);
    for (size_t i = 0; i < result_length(vms); i++) {
        struct json_object *vm = json_object_array_get_idx(vms, i);
        const char *name = result_text(vm, "name");
        struct top_row *row = top_rows_add(rows, name ? name : "?");

        row->gone = ebbd->lost;
        if (ebbd->lost)
            top_row_remark(row, "gone");
        else
            put_vm(row, vm, find(vms_before, i, name), seconds);
    }
}
