/* SPDX-License-Identifier: BSD-2-Clause */
/* The engine's configuration: what contradicts what, and fields by name. */
#include "tracker.h"

/* ---- the fields ---- */

/* A number from 1 to high in 32 bits, 0 being its default, or, with values, one of these names in
 * 8 bits; the first name stands for 1. */
static const struct field {
    const char *key;
    const char *wanted;
    const char *above; /* the problem with more than high; NULL: more has a meaning of its own */
    const char *values[5];
    size_t offset;
    uint32_t high;
} fields[] = {
#define NUMBER(name, limit)                                                                       \
    {                                                                                             \
        .key = #name, .wanted = "a number from 1 to " #limit, .above = #name " is above " #limit, \
        .high = (limit), .offset = offsetof(struct ebb_report_config, name),                      \
    }
#define CHOICE(name, text, ...)                                                           \
    {                                                                                     \
        .key = #name, .wanted = text, .offset = offsetof(struct ebb_report_config, name), \
        .values = {                                                                       \
            __VA_ARGS__                                                                   \
        }                                                                                 \
    }
    CHOICE(tracker, "rotation, membrane, boundary, bitmap or sorted", "rotation", "membrane",
           "boundary", "bitmap", "sorted"),
    CHOICE(split, "inherit or clear", "inherit", "clear"),
    CHOICE(merge, "both or never", "both", "never"),
    CHOICE(move, "keep, demote or follow", "keep", "demote", "follow"),
    CHOICE(direction, "ascending or descending", "ascending", "descending"),
    CHOICE(execution, "worker or inline", "worker", "inline"),
    CHOICE(pacing, "surplus or delay", "surplus", "delay"),
    NUMBER(window_min_ms, 3600000),
    NUMBER(window_max_ms, 3600000),
    NUMBER(refault_ns, 1000000),
    NUMBER(delay_ms, 3600000),
    NUMBER(capacity, 512),
    NUMBER(budget, 1024),
    NUMBER(backoff_ms, 3600000),
    NUMBER(backoff_max_ms, 3600000),
    {
        .key = "threshold",
        .wanted = "a number from 1 to 4294967294, or 2x: twice the capacity",
        .offset = offsetof(struct ebb_report_config, threshold),
        .high = UINT32_MAX - 1,
    },
#undef NUMBER
#undef CHOICE
};
#define FIELDS (sizeof(fields) / sizeof(fields[0]))

_Static_assert(EBB_REPORT_CAPACITY_LIMIT == 512, "the limit of capacity");

static unsigned n_values(const struct field *field)
{
    unsigned n = 0;

    while (n < sizeof(field->values) / sizeof(field->values[0]) && field->values[n])
        n++;
    return n;
}

/* ---- what cannot be ---- */

static const char *field_problem(const struct ebb_report_config *config, const struct field *field)
{
    const unsigned char *at = (const unsigned char *)config + field->offset;

    if (field->values[0])
        return *at > n_values(field) ? "a tracker or policy has a number that stands for none"
                                     : NULL;
    return *(const uint32_t *)(const void *)at > field->high ? field->above : NULL;
}

static bool is_above(uint32_t low, uint32_t default_low, uint32_t high, uint32_t default_high)
{
    return (low > 0 ? low : default_low) > (high > 0 ? high : default_high);
}

static const char *bounds_problem(const struct ebb_report_config *config)
{
    for (unsigned i = 0; i < FIELDS; i++) {
        const char *problem = field_problem(config, &fields[i]);

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
        (config->window_min_ms > 0 || config->window_max_ms > 0 || config->refault_ns > 0))
        return "window_min_ms, window_max_ms and refault_ns are for pacing=surplus";
    return NULL;
}

const char *ebb_report_config_problem(const struct ebb_report_config *config)
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

/* ---- by name ---- */

static bool equal(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

static bool number(const char *text, uint32_t low, uint32_t high, uint32_t *value)
{
    uint64_t n = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        n = n * 10 + (uint64_t)(*text - '0');
        if (n > high)
            return false;
    }
    *value = (uint32_t)n;
    return n >= low;
}

static bool set_field(struct ebb_report_config *config, const struct field *field,
                      const char *value)
{
    unsigned char *to = (unsigned char *)config + field->offset;

    if (!field->values[0])
        return number(value, 1, field->high, (uint32_t *)(void *)to);
    for (unsigned i = 0; i < n_values(field); i++) {
        if (equal(field->values[i], value)) {
            *to = (unsigned char)(i + 1);
            return true;
        }
    }
    return false;
}

int ebb_report_config_set(struct ebb_report_config *config, const char *key, const char *value,
                          const char **wanted)
{
    uint32_t order;

    if (equal(key, "order")) {
        *wanted = "an order from 0 to 18";
        if (!number(value, 0, EBB_ORDER_LIMIT, &order))
            return -EBB_EINVAL;
        config->order = EBB_REPORT_ORDER(order);
        return 0;
    }
    if (equal(key, "threshold") && equal(value, "2x")) {
        config->threshold = EBB_REPORT_TWICE_CAPACITY;
        return 0;
    }
    for (unsigned i = 0; i < FIELDS; i++) {
        if (!equal(fields[i].key, key))
            continue;
        *wanted = fields[i].wanted;
        return set_field(config, &fields[i], value) ? 0 : -EBB_EINVAL;
    }
    return -EBB_ENOENT;
}
