/* SPDX-License-Identifier: BSD-2-Clause */
/* The configuration of src/history: what contradicts what, and fields by name. */
#include <ebb/history.h>

#include "../report/settings.h"

static bool is_set(const struct ebb_history_config *c)
{
    return c->tracker || c->split || c->merge || c->move || c->direction || c->execution ||
           c->delay_ms || c->budget || c->threshold;
}

static const char *bounds_problem(const struct ebb_history_config *c)
{
    if (c->pacing > EBB_PACING_DELAY || c->tracker >= EBB_TRACKERS || c->split > EBB_SPLIT_CLEAR ||
        c->merge > EBB_MERGE_NEVER || c->move > EBB_MOVE_FOLLOW ||
        c->direction > EBB_DIRECTION_DESCENDING || c->execution > EBB_EXECUTION_INLINE)
        return "a tracker or policy has a number that stands for none";
    if (c->delay_ms > 3600000)
        return "delay_ms is above 3600000";
    return c->budget > 1024 ? "budget is above 1024" : NULL;
}

/* What surplus pacing has instead, of the first setting that it does not have. */
static const char *surplus_problem(const struct ebb_history_config *c)
{
    if (c->delay_ms)
        return "delay_ms is for pacing=delay; pacing=surplus has window_min_ms and window_max_ms";
    if (c->budget || c->threshold)
        return "budget and threshold are for pacing=delay; pacing=surplus decides by itself how "
               "much to report";
    if (c->tracker || c->direction)
        return "tracker and direction are for pacing=delay; pacing=surplus reports the coldest "
               "blocks first";
    return is_set(c) ? "split, merge, move and execution are for pacing=delay" : NULL;
}

static const char *inline_problem(const struct ebb_history_config *c,
                                  const struct ebb_report_config *report)
{
    if (c->delay_ms > 0)
        return "execution=inline has no timer, so it cannot wait for delay_ms";
    if (c->budget > 1)
        return "execution=inline has no timer, so nobody would come for what a budget leaves";
    return report->backoff_ms > 0 ? "execution=inline has no timer, so it cannot back off" : NULL;
}

EBB_RARE const char *ebb_history_problem(const struct ebb_settings *settings)
{
    const struct ebb_history_config *c = &settings->history;
    const struct ebb_report_config *report = &settings->report;
    const enum ebb_tracker tracker = ebb_history_tracker(c);
    const char *problem = ebb_report_config_problem(report);

    if (!problem)
        problem = bounds_problem(c);
    if (problem)
        return problem;
    if (c->pacing != EBB_PACING_DELAY)
        return surplus_problem(c);
    if (report->window_min_ms || report->window_max_ms || report->window_start_ms ||
        report->refault_ns)
        return "window_min_ms, window_max_ms, window_start_ms and refault_ns are for "
               "pacing=surplus; pacing=delay has delay_ms";
    if (c->move == EBB_MOVE_FOLLOW &&
        (tracker == EBB_TRACKER_ROTATION || tracker == EBB_TRACKER_BITMAP))
        return "move=follow needs a tracker with dividers: membrane, boundary or sorted";
    if (c->direction && tracker == EBB_TRACKER_BITMAP)
        return "tracker=bitmap goes by address, so it has no direction";
    return c->execution == EBB_EXECUTION_INLINE ? inline_problem(c, report) : NULL;
}

enum ebb_tracker ebb_history_tracker(const struct ebb_history_config *config)
{
    return config->tracker ? (enum ebb_tracker)config->tracker : EBB_TRACKER_ROTATION;
}

const char *ebb_tracker_name(enum ebb_tracker tracker)
{
    static const char *const names[EBB_TRACKERS] = {"rotation", "rotation", "membrane",
                                                    "boundary", "bitmap",   "sorted"};

    return (unsigned)tracker < EBB_TRACKERS ? names[tracker] : "none";
}

#define CHOICE(name, text, ...)                                               \
    {                                                                         \
        .key = #name, .allowed = (text), .values = {__VA_ARGS__},             \
        .high = sizeof((const char *[]){__VA_ARGS__}) / sizeof(const char *), \
        .offset = offsetof(struct ebb_history_config, name),                  \
    }

int ebb_history_config_set(struct ebb_history_config *config, const char *key, const char *value,
                           const char **allowed)
{
    static const struct ebb__field fields[] = {
        CHOICE(pacing, "surplus or delay", "surplus", "delay"),
        CHOICE(tracker, "rotation, membrane, boundary, bitmap or sorted", "rotation", "membrane",
               "boundary", "bitmap", "sorted"),
        CHOICE(split, "inherit or clear", "inherit", "clear"),
        CHOICE(merge, "both or never", "both", "never"),
        CHOICE(move, "keep, demote or follow", "keep", "demote", "follow"),
        CHOICE(direction, "ascending or descending", "ascending", "descending"),
        CHOICE(execution, "worker or inline", "worker", "inline"),
        EBB__NUMBER_FIELD(ebb_history_config, delay_ms, 3600000),
        EBB__NUMBER_FIELD(ebb_history_config, budget, 1024),
        {
            .key = "threshold",
            .allowed = "a number from 1 to 4294967294, or 2x: twice the capacity",
            .offset = offsetof(struct ebb_history_config, threshold),
            .high = UINT32_MAX - 1,
        },
    };

    if (ebb__text_equal(key, "threshold") && ebb__text_equal(value, "2x")) {
        config->threshold = EBB_REPORT_TWICE_CAPACITY;
        return 0;
    }
    return ebb__set_field(fields, sizeof(fields) / sizeof(fields[0]), config, key, value, allowed);
}

int ebb_settings_set(struct ebb_settings *settings, const char *key, const char *value,
                     const char **allowed)
{
    int err = ebb_report_config_set(&settings->report, key, value, allowed);

    return err == -EBB_ENOENT ? ebb_history_config_set(&settings->history, key, value, allowed)
                              : err;
}
