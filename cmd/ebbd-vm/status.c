/* SPDX-License-Identifier: BSD-2-Clause */
#include "status.h"

#include <string.h>

const char *const status_guest_names[EBB_BALLOON_DEVICE_TAGS] = {
    "swap_in_bytes",       "swap_out_bytes",   "major_faults",    "minor_faults",
    "free_bytes",          "total_bytes",      "available_bytes", "caches_bytes",
    "hugetlb_allocations", "hugetlb_failures", "oom_kills",       "allocation_stalls",
    "async_scans",         "direct_scans",     "async_reclaims",  "direct_reclaims",
};

const char *status_backing_name(enum ebb_backing backing)
{
    static const char *const names[EBB_BACKINGS] = {"none", "anon", "shared", "hugetlb"};

    return backing < EBB_BACKINGS ? names[backing] : "none";
}

/* json-c counts in 63 bits; nothing here comes near. */
static void put(struct json_object *to, const char *name, uint64_t value)
{
    json_object_object_add(to, name, json_object_new_uint64(value));
}

static void put_text(struct json_object *to, const char *name, const char *text)
{
    json_object_object_add(to, name, text ? json_object_new_string(text) : NULL);
}

static void put_bool(struct json_object *to, const char *name, bool value)
{
    json_object_object_add(to, name, json_object_new_boolean(value));
}

struct json_object *status_brief(const struct vm *vm)
{
    struct json_object *to = json_object_new_object();

    put_text(to, "name", vm_name(vm));
    put_bool(to, "connected", vm_connected(vm));
    put_text(to, "socket", vm_path(vm));
    return to;
}

struct json_object *status_guest(const struct vm_view *view)
{
    struct json_object *to;

    if (!view->guest.at_ns)
        return NULL;
    to = json_object_new_object();
    put(to, "age_ns", view->guest_age_ns);
    for (unsigned i = 0; i < EBB_BALLOON_DEVICE_TAGS; i++) {
        if (view->guest.known & (1u << i))
            put(to, status_guest_names[i], view->guest.values[i]);
    }
    return to;
}

static struct json_object *memory(const struct vm_view *view)
{
    struct json_object *to = json_object_new_object(), *list = json_object_new_array();

    put(to, "assigned_bytes", view->assigned);
    put(to, "resident_bytes", view->resident);
    for (unsigned i = 0; i < view->kinds; i++) {
        struct json_object *kind = json_object_new_object();

        put_text(kind, "backing", status_backing_name(view->regions[i].backing));
        put(kind, "page_bytes", view->regions[i].page);
        put(kind, "regions", view->regions[i].n);
        put(kind, "bytes", view->regions[i].bytes);
        json_object_array_add(list, kind);
    }
    json_object_object_add(to, "regions", list);
    put_text(to, "note", view->notes);
    return to;
}

static struct json_object *discard(const struct ebb_discard_stats *stats)
{
    struct json_object *to = json_object_new_object(), *not = json_object_new_object();
    struct json_object *latency = json_object_new_array();

    put(to, "batches", stats->batches);
    put(to, "ranges", stats->ranges);
    put(to, "asked_bytes", stats->asked_bytes);
    put(to, "calls", stats->calls);
    put(to, "discarded_bytes", stats->discarded_bytes);
    put(to, "gathered_bytes", stats->gathered_bytes);
    put(to, "repeated_bytes", stats->repeated_bytes);
    put(to, "released_bytes", stats->released_bytes);
    put(to, "checked_bytes", stats->checked_bytes);
    put(to, "wait_ns", stats->wait_ns);
    put(to, "busy_ns", stats->busy_ns);
    for (unsigned i = 0; i < EBB_DISCARD_CAUSES; i++) {
        struct json_object *cause = json_object_new_object();

        put(cause, "bytes", stats->not_bytes[i]);
        put(cause, "ranges", stats->not_ranges[i]);
        json_object_object_add(not, ebb_discard_cause_name((enum ebb_discard_cause)i), cause);
    }
    json_object_object_add(to, "not", not );
    for (unsigned i = 0; i < EBB_DISCARD_BUCKETS; i++)
        json_object_array_add(latency, json_object_new_uint64(stats->latency[i]));
    json_object_object_add(to, "latency", latency);
    put_text(to, "last_error", stats->last_error ? strerror(stats->last_error) : NULL);
    return to;
}

static void put_device(struct json_object *to, const struct ebb_balloon_device_stats *stats)
{
    struct json_object *faults = json_object_new_object();

    put(to, "kicks", stats->kicks);
    put(to, "resets", stats->resets);
    put(to, "reported_ranges", stats->reported_ranges);
    put(to, "reported_bytes", stats->reported_bytes);
    put(to, "hinted_ranges", stats->hinted_ranges);
    put(to, "hinted_bytes", stats->hinted_bytes);
    put(to, "inflated_bytes", stats->inflated_pages * EBB_FRAME_SIZE);
    put(to, "deflated_bytes", stats->deflated_pages * EBB_FRAME_SIZE);
    put(to, "poison_skipped_bytes", stats->poison_skipped_bytes);
    for (unsigned i = 0; i < EBB_FAULTS; i++)
        put(faults, ebb_balloon_fault_name((enum ebb_balloon_fault)i), stats->faults[i]);
    json_object_object_add(to, "faults", faults);
}

static struct json_object *front_ends(const struct vm_view *view)
{
    struct json_object *to = json_object_new_object();

    put(to, "connections", view->front_ends.connections);
    put(to, "hangups", view->front_ends.hangups);
    put(to, "ended", view->front_ends.protocol_errors);
    put(to, "turned_away", view->front_ends.turned_away);
    put(to, "messages", view->front_ends.messages);
    put(to, "refused", view->front_ends.refused);
    put_text(to, "last_error", view->last_error);
    return to;
}

static struct json_object *balloon(const struct vm_view *view)
{
    struct json_object *to = json_object_new_object();

    put(to, "target_bytes", view->target);
    put(to, "actual_bytes", view->actual);
    put(to, "features", view->features);
    put_bool(to, "needs_reset", view->needs_reset);
    return to;
}

struct json_object *status_full(const struct vm *vm)
{
    struct json_object *to = status_brief(vm);
    struct vm_view view;

    vm_look(vm, &view);
    if (view.connected_ns)
        put(to, "connected_ns", view.connected_ns);
    else
        put_text(to, "connected_ns", NULL);
    put_bool(to, "inhibited", view.inhibited);
    put(to, "rate", view.rate);
    json_object_object_add(to, "memory", memory(&view));
    json_object_object_add(to, "balloon", balloon(&view));
    json_object_object_add(to, "guest", status_guest(&view));
    put_device(to, &view.device);
    json_object_object_add(to, "discard", discard(&view.discard));
    json_object_object_add(to, "front_ends", front_ends(&view));
    return to;
}

void status_add(struct json_object *to, const struct backend *backend)
{
    struct json_object *vms = json_object_new_array();

    json_object_array_add(vms, status_full(backend->vm));
    json_object_object_add(to, "vms", vms);
    put(to, "now_ns", log_now_ns());
    put(to, "started_ns", backend->started_ns);
}
