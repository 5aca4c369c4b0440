/* SPDX-License-Identifier: BSD-2-Clause */
/* Fields of a configuration by name, for command lines. */
#ifndef EBB_REPORT_SETTINGS_H
#define EBB_REPORT_SETTINGS_H

#include <ebb/types.h>

/* A number from 1 to `high` in 32 bits; or, with values, one of these names in 8 bits, the first of
 * which stands for 1. */
struct ebb__field {
    const char *key;
    const char *allowed;
    const char *values[5];
    size_t offset;
    uint32_t high;
};

bool ebb__text_equal(const char *a, const char *b);
bool ebb__text_number(const char *text, uint32_t low, uint32_t high, uint32_t *value);

/* As ebb_report_config_set(), of one of these fields. */
int ebb__set_field(const struct ebb__field *fields, unsigned n, void *config, const char *key,
                   const char *value, const char **allowed);

#define EBB__NUMBER_FIELD(type, name, limit)                                    \
    {                                                                           \
        .key = #name, .allowed = "a number from 1 to " #limit, .high = (limit), \
        .offset = offsetof(struct type, name),                                  \
    }

#endif
