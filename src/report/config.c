/* SPDX-License-Identifier: BSD-2-Clause */
/* The engine's configuration: what cannot be. */
#include <ebb/report.h>

_Static_assert(EBB_REPORT_CAPACITY_LIMIT == 512, "the limit of capacity");
_Static_assert(EBB_REPORT_BACKOFF_MAX_MS == 60000, "the limit of backoff_ms");

#define WINDOW_LIMIT_MS  3600000u
#define REFAULT_LIMIT_NS 1000000u

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value > 0 ? value : otherwise;
}

EBB_RARE const char *ebb_report_config_problem(const struct ebb_report_config *config)
{
    if (config->order > EBB_REPORT_ORDER(EBB_ORDER_LIMIT))
        return "order is above 18";
    if (config->capacity > EBB_REPORT_CAPACITY_LIMIT)
        return "capacity is above 512";
    if (config->window_min_ms > WINDOW_LIMIT_MS)
        return "window_min_ms is above 3600000";
    if (config->window_max_ms > WINDOW_LIMIT_MS)
        return "window_max_ms is above 3600000";
    if (config->window_start_ms > WINDOW_LIMIT_MS)
        return "window_start_ms is above 3600000";
    if (or_default(config->window_min_ms, EBB_REPORT_WINDOW_MIN_MS) >
        or_default(config->window_max_ms, EBB_REPORT_WINDOW_MAX_MS))
        return "window_min_ms is above window_max_ms";
    if (config->refault_ns > REFAULT_LIMIT_NS)
        return "refault_ns is above 1000000";
    if (config->backoff_ms > EBB_REPORT_BACKOFF_MAX_MS)
        return "backoff_ms is above 60000";
    return NULL;
}
