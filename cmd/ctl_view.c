/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl_view.h"
#include "control.h"
#include "grid.h"
#include "result.h"

#include <json-c/linkhash.h>
#include <math.h>
#include <string.h>

#define NAME_BYTES 128u

static const char *text_or(const char *text, const char *otherwise)
{
    return text ? text : otherwise;
}

/* Yes, no, or not told. */
static const char *flag_text(struct json_object *json, const char *key)
{
    if (!json_object_is_type(result_get(json, key), json_type_boolean))
        return "-";
    return result_flag(json, key) ? "yes" : "no";
}

void ctl_view_list(struct json_object *vms, FILE *out)
{
    struct grid grid = {.columns = 3, .left = 0x7};

    grid_put(&grid, "NAME");
    grid_put(&grid, "CONNECTED");
    grid_put(&grid, "SOCKET");
    for (size_t i = 0; i < result_length(vms); i++) {
        struct json_object *vm = json_object_array_get_idx(vms, i);

        grid_put(&grid, "%s", text_or(result_text(vm, "name"), "-"));
        grid_put(&grid, "%s", flag_text(vm, "connected"));
        grid_put(&grid, "%s", text_or(result_text(vm, "socket"), "-"));
    }
    grid_print(&grid, out);
}

/* ---- status ---- */

static void put_size(struct grid *grid, double bytes)
{
    char figure[GRID_FIGURE];

    grid_put(grid, "%s", grid_size(bytes, figure));
}

static double sum_not(struct json_object *discard)
{
    struct json_object *not = result_get(discard, "not");
    double sum = (double)NAN;

    if (!json_object_is_type(not, json_type_object))
        return sum;
    sum = 0;
    json_object_object_foreach(not, cause, value)
    {
        double bytes = result_number(value, "bytes");

        (void)cause;
        sum += isnan(bytes) ? 0 : bytes;
    }
    return sum;
}

static const char *state_of(struct json_object *vm)
{
    struct json_object *back_end = result_get(vm, "back_end");

    /* Else what follows is what it said last. */
    if (back_end && !result_flag(back_end, "answers"))
        return "no answer";
    if (!result_flag(vm, "connected"))
        return result_flag(back_end, "lost") ? "balloon lost" : "not connected";
    if (result_flag(result_get(vm, "balloon"), "needs_reset"))
        return "needs reset";
    return result_flag(vm, "inhibited") ? "inhibited" : "serving";
}

static void put_status(struct grid *grid, struct json_object *vm)
{
    struct json_object *memory = result_get(vm, "memory"), *balloon = result_get(vm, "balloon");
    struct json_object *discard = result_get(vm, "discard");

    grid_put(grid, "%s", text_or(result_text(vm, "name"), "-"));
    grid_put(grid, "%s", state_of(vm));
    put_size(grid, result_number(memory, "assigned_bytes"));
    put_size(grid, result_number(memory, "resident_bytes"));
    put_size(grid, result_number(result_get(vm, "guest"), "free_bytes"));
    put_size(grid, result_number(balloon, "actual_bytes"));
    put_size(grid, result_number(balloon, "target_bytes"));
    put_size(grid, result_number(vm, "reported_bytes"));
    put_size(grid, result_number(discard, "discarded_bytes"));
    put_size(grid, sum_not(discard));
}

void ctl_view_status(struct json_object *vms, FILE *out)
{
    static const char *const heads[] = {"NAME",    "STATE",  "ASSIGNED", "RESIDENT", "FREE",
                                        "BALLOON", "TARGET", "REPORTED", "RETURNED", "FAILED"};
    struct grid grid = {.columns = sizeof(heads) / sizeof(heads[0]), .left = 0x3};

    for (size_t i = 0; i < grid.columns; i++)
        grid_put(&grid, "%s", heads[i]);
    for (size_t i = 0; i < result_length(vms); i++)
        put_status(&grid, json_object_array_get_idx(vms, i));
    grid_print(&grid, out);
}

/* ---- all members ---- */

static bool ends_in(const char *name, const char *ending)
{
    size_t len = strlen(name), tail = strlen(ending);

    return len >= tail && strcmp(name + len - tail, ending) == 0;
}

static void put_number(struct grid *grid, const char *name, double value)
{
    char figure[GRID_FIGURE];

    if (ends_in(name, "bytes"))
        grid_put(grid, "%s", grid_size(value, figure));
    else if (ends_in(name, "_ns"))
        grid_put(grid, "%s", grid_time(value, figure));
    else if (strcmp(name, "rate") == 0 && value > 0)
        grid_put(grid, "%s/s", grid_size(value, figure));
    else if (strcmp(name, "rate") == 0)
        grid_put(grid, "no limit");
    else
        grid_put(grid, "%.15g", value);
}

static void put_latency(struct grid *grid, const char *name, struct json_object *histogram)
{
    char half[GRID_FIGURE], most[GRID_FIGURE];

    grid_put(grid, "%s", name);
    grid_put(grid, "%s median, %s 99 %%", grid_latency(control_latency(histogram, NULL, 0.5), half),
             grid_latency(control_latency(histogram, NULL, 0.99), most));
}

static void put_scalar(struct grid *grid, const char *name, struct json_object *value)
{
    grid_put(grid, "%s", name);
    switch (json_object_get_type(value)) {
    case json_type_null:
        grid_put(grid, "-");
        break;
    case json_type_boolean:
        grid_put(grid, "%s", json_object_get_boolean(value) ? "yes" : "no");
        break;
    case json_type_int:
    case json_type_double:
        put_number(grid, name, json_object_get_double(value));
        break;
    default:
        grid_put(grid, "%s", json_object_get_string(value));
    }
}

static void put_value(struct grid *grid, const char *name, struct json_object *value);

/* As deep as json-c reads: 32 levels. */
static void put_object(struct grid *grid, const char *name, struct json_object *object)
{
    json_object_object_foreach(object, key, value)
    {
        char path[NAME_BYTES];

        snprintf(path, sizeof(path), "%s%s%s", name, *name ? "." : "", key);
        put_value(grid, path, value);
    }
}

static void put_array(struct grid *grid, const char *name, struct json_object *array)
{
    for (size_t i = 0; i < result_length(array); i++) {
        char path[NAME_BYTES];

        snprintf(path, sizeof(path), "%.100s.%zu", name, i);
        put_value(grid, path, json_object_array_get_idx(array, i));
    }
}

static void put_value(struct grid *grid, const char *name, struct json_object *value)
{
    if (ends_in(name, ".latency") && json_object_is_type(value, json_type_array))
        put_latency(grid, name, value);
    else if (json_object_is_type(value, json_type_array))
        put_array(grid, name, value);
    else if (json_object_is_type(value, json_type_object))
        put_object(grid, name, value);
    else
        put_scalar(grid, name, value);
}

void ctl_view_members(struct json_object *object, FILE *out)
{
    struct grid grid = {.columns = 2, .left = 0x3};

    put_object(&grid, "", object);
    grid_print(&grid, out);
}

/* ---- */

void ctl_view_json(const char *line, FILE *out)
{
    for (; *line; line++) {
        unsigned char byte = (unsigned char)*line, next = (unsigned char)line[1];

        if (byte == 0x7f) {
            fputs("\\u007f", out);
        } else if (byte == 0xc2 && next < 0xa0) { /* U+0080 to U+009F in UTF-8 */
            fprintf(out, "\\u%04x", (unsigned)next);
            line++;
        } else {
            fputc(byte, out);
        }
    }
    fputc('\n', out);
}
