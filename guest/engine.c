/* SPDX-License-Identifier: BSD-2-Clause */
/* The engine as it is meant to be used: ebb-guest.elf. */
#include "guest.h"

/* What the other guest has besides. */
static bool is_of_history(const char *key)
{
    static const char *const keys[] = {"pacing",    "tracker",   "split",    "merge",  "move",
                                       "direction", "execution", "delay_ms", "budget", "threshold"};

    for (unsigned i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (text_equal(key, keys[i]))
            return true;
    return false;
}

int engine_set(struct ebb_settings *settings, const char *key, const char *value,
               const char **allowed)
{
    int err = ebb_report_config_set(&settings->report, key, value, allowed);

    if (err != -EBB_ENOENT || !is_of_history(key))
        return err;
    *allowed = "ebb-guest-history.elf: this guest was built without src/history. `ebb run --set` "
               "takes that one, unless --guest names another";
    return -EBB_EINVAL;
}

const char *engine_problem(const struct ebb_settings *settings)
{
    return ebb_report_config_problem(&settings->report);
}

int engine_init(struct ebb_report *engine, const struct ebb_settings *settings)
{
    return ebb_report_init(engine, &settings->report);
}

int engine_add_zone(struct ebb_report *engine, unsigned zone)
{
    return ebb_report_add_zone(engine, memory_zone(zone));
}
