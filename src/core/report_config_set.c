/* SPDX-License-Identifier: BSD-2-Clause */
/* The engine's configuration: fields by name. */
#include "report_fields.h"

#include <ebb/report.h>

/* A number from 1 to high in 32 bits or, with values, one of these names in 8 bits; the first
 * stands for 1. */
static const struct field {
    const char *key;
    const char *wanted;
    const char *values[5];
    size_t offset;
    uint32_t high;
} fields[] = {
#define CHOICE(name, count, text, ...)                      \
    {                                                       \
        .key = #name,                                       \
        .wanted = text,                                     \
        .values = {__VA_ARGS__},                            \
        .offset = offsetof(struct ebb_report_config, name), \
        .high = (count),                                    \
    },
#define NUMBER(name, limit)                                 \
    {                                                       \
        .key = #name,                                       \
        .wanted = "a number from 1 to " #limit,             \
        .offset = offsetof(struct ebb_report_config, name), \
        .high = (limit),                                    \
    },
    EBB__REPORT_FIELDS(CHOICE, NUMBER)
#undef NUMBER
#undef CHOICE
        {
            .key = "threshold",
            .wanted = "a number from 1 to 4294967294, or 2x: twice the capacity",
            .offset = offsetof(struct ebb_report_config, threshold),
            .high = UINT32_MAX - 1,
        },
};
#define FIELDS (sizeof(fields) / sizeof(fields[0]))

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
    for (unsigned i = 0; i < field->high; i++) {
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
