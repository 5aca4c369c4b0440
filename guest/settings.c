/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line: words key=value, values with blanks in double quotes. */
#include "guest.h"

static bool bad(const char *key, const char *value, const char *allowed)
{
    console_print("command line: %s=%s: want %s\n", key, value, allowed);
    return false;
}

/* A setting of the engine; false for "report" alone. */
static bool is_engine(const char *key)
{
    return text_starts(key, "report.");
}

static bool set_engine(struct settings *settings, const char *key, const char *value)
{
    const char *allowed = "";
    int err = engine_set(&settings->engine, key + sizeof("report.") - 1, value, &allowed);

    if (err == -EBB_ENOENT)
        console_print("command line: no setting is called '%s'\n", key);
    else if (err)
        bad(key, value, allowed);
    return err == 0;
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

static bool set_fill(struct settings *settings, const char *value)
{
    static const char *const names[] = {
        [EBB_FILL_NONE] = "none",
        [EBB_FILL_POISON] = "poison",
        [EBB_FILL_ZERO] = "zero",
    };

    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (text_equal(value, names[i])) {
            settings->fill = (enum ebb_fill)i;
            return true;
        }
    }
    return bad("zone.fill", value, "none, poison or zero");
}

static bool set(struct settings *settings, const char *key, const char *value)
{
    bool chosen;

    if (is_engine(key))
        return set_engine(settings, key, value);
    if (text_equal(key, "report"))
        return set_choice(key, value, "off", "on", &settings->reporting);
    if (text_equal(key, "zone.fill"))
        return set_fill(settings, value);
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
