/* SPDX-License-Identifier: BSD-2-Clause */
/* The engine's configuration: fields by name. */
#include "settings.h"

#include <ebb/impl/assert.h>
#include <ebb/report.h>

bool ebb__text_equal(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

bool ebb__text_number(const char *text, uint32_t low, uint32_t high, uint32_t *value)
{
    uint64_t n = 0;

    EBB_DEBUG_ASSERT(low <= high);
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

static bool set_field(void *config, const struct ebb__field *field, const char *value)
{
    unsigned char *to = (unsigned char *)config + field->offset;

    EBB_DEBUG_ASSERT(field->high > 0 && field->allowed);
    if (!field->values[0])
        return ebb__text_number(value, 1, field->high, (uint32_t *)(void *)to);
    for (unsigned i = 0; i < field->high; i++) {
        if (ebb__text_equal(field->values[i], value)) {
            *to = (unsigned char)(i + 1);
            return true;
        }
    }
    return false;
}

int ebb__set_field(const struct ebb__field *fields, unsigned n, void *config, const char *key,
                   const char *value, const char **allowed)
{
    for (unsigned i = 0; i < n; i++) {
        if (!ebb__text_equal(fields[i].key, key))
            continue;
        *allowed = fields[i].allowed;
        return set_field(config, &fields[i], value) ? 0 : -EBB_EINVAL;
    }
    return -EBB_ENOENT;
}

int ebb_report_config_set(struct ebb_report_config *config, const char *key, const char *value,
                          const char **allowed)
{
    static const struct ebb__field fields[] = {
        EBB__NUMBER_FIELD(ebb_report_config, window_min_ms, 3600000),
        EBB__NUMBER_FIELD(ebb_report_config, window_max_ms, 3600000),
        EBB__NUMBER_FIELD(ebb_report_config, window_start_ms, 3600000),
        EBB__NUMBER_FIELD(ebb_report_config, refault_ns, 1000000),
        EBB__NUMBER_FIELD(ebb_report_config, capacity, 512),
        EBB__NUMBER_FIELD(ebb_report_config, backoff_ms, 60000),
    };
    uint32_t order;

    if (!ebb__text_equal(key, "order"))
        return ebb__set_field(fields, sizeof(fields) / sizeof(fields[0]), config, key, value,
                              allowed);
    *allowed = "an order from 0 to 18";
    if (!ebb__text_number(value, 0, EBB_ORDER_LIMIT, &order))
        return -EBB_EINVAL;
    config->order = EBB_REPORT_ORDER(order);
    return 0;
}
