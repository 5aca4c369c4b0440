/* SPDX-License-Identifier: BSD-2-Clause */
/* The engine's configuration: what contradicts what. */
#include "report_fields.h"
#include "tracker.h"

_Static_assert(EBB_REPORT_CAPACITY_LIMIT == 512, "the limit of capacity");

/* ---- what cannot be ---- */

/* Of a field: a number in 32 bits, or in 8 bits that of a value. */
struct bound {
    uint16_t offset;
    bool is_choice;
    uint32_t high;
    const char *above; /* the problem with more */
};

static const char *bound_problem(const struct ebb_report_config *config, const struct bound *bound)
{
    const unsigned char *at = (const unsigned char *)config + bound->offset;
    uint32_t value = bound->is_choice ? *at : *(const uint32_t *)(const void *)at;

    return value > bound->high ? bound->above : NULL;
}

static bool is_above(uint32_t low, uint32_t default_low, uint32_t high, uint32_t default_high)
{
    return (low > 0 ? low : default_low) > (high > 0 ? high : default_high);
}

static const char *bounds_problem(const struct ebb_report_config *config)
{
    static const struct bound bounds[] = {
#define CHOICE(name, values, ...)                            \
    {offsetof(struct ebb_report_config, name), true, values, \
     "a tracker or policy has a number that stands for none"},
#define NUMBER(name, limit) \
    {offsetof(struct ebb_report_config, name), false, limit, #name " is above " #limit},
        EBB__REPORT_FIELDS(CHOICE, NUMBER)
#undef NUMBER
#undef CHOICE
    };

    for (unsigned i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
        const char *problem = bound_problem(config, &bounds[i]);

        if (problem)
            return problem;
    }
    if (config->order > EBB_REPORT_ORDER(EBB_ORDER_LIMIT))
        return "order is above 18";
    if (is_above(config->window_min_ms, EBB_REPORT_WINDOW_MIN_MS, config->window_max_ms,
                 EBB_REPORT_WINDOW_MAX_MS))
        return "window_min_ms is above window_max_ms";
    if (is_above(config->backoff_ms, EBB_REPORT_BACKOFF_MS, config->backoff_max_ms,
                 EBB_REPORT_BACKOFF_MAX_MS))
        return "backoff_ms is above backoff_max_ms";
    return NULL;
}

static const char *inline_problem(const struct ebb_report_config *config)
{
    if (config->delay_ms > 0)
        return "execution=inline has no timer, so it cannot wait for delay_ms";
    if (config->budget > 1)
        return "execution=inline has no timer, so nobody would come for what a budget leaves";
    if (config->backoff_ms > 0 || config->backoff_max_ms > 0)
        return "execution=inline has no timer, so it cannot back off";
    return NULL;
}

/* What a configuration asks for that surplus pacing does not have; NULL: nothing. */
static const char *beyond_surplus(const struct ebb_report_config *config)
{
    if (!EBB__HAS_SURPLUS || (config->tracker && config->tracker != EBB_TRACKER_SORTED))
        return "pacing=surplus needs tracker=sorted";
    if (config->execution == EBB_EXECUTION_INLINE)
        return "execution=inline has no timer, so it cannot do pacing=surplus";
    if (config->delay_ms > 0)
        return "pacing=surplus has a window, not delay_ms";
    if (config->budget > 0 || config->threshold > 0)
        return "pacing=surplus decides by itself how much to report: no budget, no threshold";
    if (config->direction != EBB_DIRECTION_DEFAULT)
        return "pacing=surplus has no direction";
    return NULL;
}

enum ebb_pacing ebb_report_config_pacing(const struct ebb_report_config *config)
{
    if (config->pacing != EBB_PACING_DEFAULT)
        return (enum ebb_pacing)config->pacing;
    return beyond_surplus(config) ? EBB_PACING_DELAY : EBB_PACING_SURPLUS;
}

enum ebb_tracker ebb_report_config_tracker(const struct ebb_report_config *config)
{
    if (config->tracker != EBB_TRACKER_DEFAULT)
        return (enum ebb_tracker)config->tracker;
    return ebb_report_config_pacing(config) == EBB_PACING_SURPLUS
               ? EBB_TRACKER_SORTED
               : (enum ebb_tracker)EBB__TRACKER_DEFAULT;
}

static const char *pacing_problem(const struct ebb_report_config *config)
{
    if (config->pacing == EBB_PACING_SURPLUS)
        return beyond_surplus(config);
    if (ebb_report_config_pacing(config) == EBB_PACING_DELAY &&
        (config->window_min_ms > 0 || config->window_max_ms > 0 || config->window_start_ms > 0 ||
         config->refault_ns > 0))
        return "window_min_ms, window_max_ms, window_start_ms and refault_ns are for "
               "pacing=surplus";
    return NULL;
}

EBB_RARE const char *ebb_report_config_problem(const struct ebb_report_config *config)
{
    const char *problem = bounds_problem(config);
    const struct ebb_tracker_ops *tracker;

    if (problem)
        return problem;
    tracker = ebb__tracker_of(ebb_report_config_tracker(config));
    if (tracker && config->move == EBB_MOVE_FOLLOW && !tracker->has_dividers)
        return "move=follow needs a tracker with dividers: membrane, boundary or sorted";
    if (tracker && config->direction != EBB_DIRECTION_DEFAULT && tracker->by_address)
        return "tracker=bitmap goes by address, so it has no direction";
    problem = pacing_problem(config);
    if (problem)
        return problem;
    return config->execution == EBB_EXECUTION_INLINE ? inline_problem(config) : NULL;
}

const char *ebb_tracker_name(enum ebb_tracker tracker)
{
    static const char *const names[EBB_TRACKERS] = {"default",  "rotation", "membrane",
                                                    "boundary", "bitmap",   "sorted"};

    if (tracker == EBB_TRACKER_DEFAULT)
        tracker = (enum ebb_tracker)EBB__TRACKER_DEFAULT;
    return (unsigned)tracker < EBB_TRACKERS ? names[tracker] : "none";
}
