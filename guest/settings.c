/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line: words key=value, values with blanks in double quotes. */
#include "guest.h"

/* Settings of the engine: where they go and what they may be. */
static const struct number {
    const char *key;
    size_t offset;
    uint64_t min, max;
} numbers[] = {
    {"report.delay_ms", offsetof(struct ebb_report_config, delay_ms), 1, 3600000},
    {"report.capacity", offsetof(struct ebb_report_config, capacity), 1, EBB_REPORT_CAPACITY_LIMIT},
    {"report.budget", offsetof(struct ebb_report_config, budget), 1, 1024},
    {"report.threshold", offsetof(struct ebb_report_config, threshold), 1, UINT32_MAX},
    {"report.backoff_ms", offsetof(struct ebb_report_config, backoff_ms), 1, 3600000},
    {"report.backoff_max_ms", offsetof(struct ebb_report_config, backoff_max_ms), 1, 3600000},
};

static bool bad(const char *key, const char *value, const char *wanted)
{
    console_print("command line: %s=%s: want %s\n", key, value, wanted);
    return false;
}

static bool set_number(struct settings *settings, const struct number *n, const char *value)
{
    uint64_t got;

    if (!text_number(value, value + text_length(value), n->max, &got) || got < n->min) {
        console_print("command line: %s=%s: want a number from %lu to %lu\n", n->key, value, n->min,
                      n->max);
        return false;
    }
    *(uint32_t *)(void *)((char *)&settings->report + n->offset) = (uint32_t)got;
    return true;
}

static bool set_order(struct settings *settings, const char *value)
{
    uint64_t order;

    if (!text_number(value, value + text_length(value), EBB_ORDER_LIMIT, &order))
        return bad("report.order", value, "an order from 0 to 18");
    settings->report.order = EBB_REPORT_ORDER(order);
    return true;
}

static bool set_choice(const char *key, const char *value, const char *no, const char *yes,
                       bool *chosen)
{
    if (!text_equal(value, no) && !text_equal(value, yes)) {
        console_print("command line: %s=%s: want %s or %s\n", key, value, no, yes);
        return false;
    }
    *chosen = text_equal(value, yes);
    return true;
}

static bool set(struct settings *settings, const char *key, const char *value)
{
    bool chosen;

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (text_equal(key, numbers[i].key))
            return set_number(settings, &numbers[i], value);
    if (text_equal(key, "report.order"))
        return set_order(settings, value);
    if (text_equal(key, "report"))
        return set_choice(key, value, "off", "on", &settings->reporting);
    if (text_equal(key, "irq"))
        return set_choice(key, value, "msix", "intx", &settings->intx);
    if (text_equal(key, "balloon.numbering")) {
        if (!set_choice(key, value, "dense", "fixed", &chosen))
            return false;
        settings->numbering = chosen ? EBB_BALLOON_FIXED : EBB_BALLOON_DENSE;
        return true;
    }
    if (text_equal(key, "seed")) {
        if (!text_number(value, value + text_length(value), UINT64_MAX, &settings->seed))
            return bad(key, value, "a number");
        return true;
    }
    if (text_equal(key, "script")) {
        settings->script = value;
        return true;
    }
    if (text_equal(key, "virtio_mmio.device")) /* read by device.c */
        return true;
    console_print("command line: no setting is called '%s'\n", key);
    return false;
}

/* Cut the next word off: its quotes go, *key and *value are ended by zero bytes.
 * Returns what follows, NULL at the end of the line or after a complaint. */
static char *cut(char *at, char **key, char **value, bool *ok)
{
    char *out;
    bool quoted = false;

    *key = *value = NULL;
    while (*at == ' ' || *at == '\t' || *at == '\n')
        at++;
    if (!*at)
        return NULL;
    *key = out = at;
    for (; *at && (quoted || (*at != ' ' && *at != '\t' && *at != '\n')); at++) {
        if (*at == '"') {
            quoted = !quoted;
        } else if (*at == '=' && !*value) {
            *out++ = 0;
            *value = out;
        } else {
            *out++ = *at;
        }
    }
    if (*at)
        at++;
    *out = 0;
    if (quoted || !*value) {
        console_print(quoted ? "command line: the quote in '%s' has no end\n"
                             : "command line: '%s' is not of the form key=value\n",
                      *key);
        *ok = false;
        return NULL;
    }
    return at;
}

enum status settings_parse(struct settings *settings, const struct arch_boot *boot)
{
    char *at = settings->text;
    char *key, *value;
    bool ok = true;

    settings->reporting = true;
    settings->seed = 1;
    if (boot->command_line_cut) { /* half a script is another script */
        console_print("command line: longer than %u characters\n", ARCH_COMMAND_LINE - 1);
        return STATUS_USAGE;
    }
    memcpy(settings->text, boot->command_line, text_length(boot->command_line) + 1);
    while (ok && (at = cut(at, &key, &value, &ok)) != NULL)
        ok = set(settings, key, value);
    return ok ? STATUS_OK : STATUS_USAGE;
}
