/* SPDX-License-Identifier: BSD-2-Clause */
/* Take the guest's telemetry apart. */
#include "telemetry.h"

#include <stdio.h>
#include <string.h>

struct field {
    const char *key; /* with the '=' */
    size_t offset;   /* of a uint64_t in the event */
    bool size;       /* KiB of guest memory: bounded by it */
    bool needed;
};

#define FIELD(name, size, needed)                                       \
    {                                                                   \
#name "=", offsetof(struct telemetry_event, name), size, needed \
    }
#define FIELDS 8

static const struct kind {
    const char *name;
    enum telemetry_kind kind;
    const char *text; /* everything from this key on is text */
    struct field fields[FIELDS];
} kinds[] = {
    {"boot",
     TELEMETRY_BOOT,
     NULL,
     {FIELD(cpus, false, true), FIELD(managed_kib, true, true), FIELD(reporting, false, true)}},
    {"base", TELEMETRY_BASE, NULL, {FIELD(used_kib, true, true)}},
    {"use", TELEMETRY_USE, NULL, {FIELD(used_kib, true, true)}},
    {"step", TELEMETRY_STEP, "cmd=", {{0}}},
    {"hold", TELEMETRY_HOLD, NULL, {FIELD(kib, true, true)}},
    {"release",
     TELEMETRY_RELEASE,
     NULL,
     {{"freed_kib=", offsetof(struct telemetry_event, kib), true, true}}},
    {"fault", TELEMETRY_FAULT, "pfn=", {{0}}},
    {"result", TELEMETRY_RESULT, NULL, {{0}}},
    {"engine", TELEMETRY_ENGINE, NULL, {{0}}},
    {"end",
     TELEMETRY_END,
     NULL,
     {FIELD(status, false, true), FIELD(reports, false, true), FIELD(reported_kib, false, true),
      FIELD(refaulted_kib, false, true), FIELD(failed, false, false), FIELD(checks, false, true),
      FIELD(errors, false, true)}},
};

/* A decimal number that fills [text, end). */
static bool number(const char *text, const char *end, uint64_t *value)
{
    uint64_t n = 0;

    if (text == end)
        return false;
    for (; text < end; text++) {
        if (*text < '0' || *text > '9')
            return false;
        if (__builtin_mul_overflow(n, 10u, &n) ||
            __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n))
            return false;
    }
    *value = n;
    return true;
}

static const struct kind *find_kind(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strlen(kinds[i].name) == len && memcmp(kinds[i].name, name, len) == 0)
            return &kinds[i];
    }
    return NULL;
}

/* One "key=value" word. Unknown keys are fine; a bad value of a known one is not. */
static bool parse_word(const struct kind *kind, const char *word, const char *end,
                       uint64_t limit_kib, unsigned *seen, struct telemetry_event *event)
{
    for (unsigned i = 0; i < FIELDS && kind->fields[i].key; i++) {
        const struct field *field = &kind->fields[i];
        size_t len = strlen(field->key);
        uint64_t value;

        if ((size_t)(end - word) < len || memcmp(word, field->key, len) != 0)
            continue;
        if (!number(word + len, end, &value) || (field->size && value > limit_kib))
            return false;
        memcpy((char *)event + field->offset, &value, sizeof(value));
        *seen |= 1u << i;
        return true;
    }
    return true;
}

static void copy_text(char *out, const char *text)
{
    size_t n = 0;

    for (; *text && n + 1 < TELEMETRY_TEXT; text++)
        out[n++] = *text < ' ' || *text > '~' ? '?' : *text;
    out[n] = '\0';
}

/* All of them are kept, whatever they are called. */
static bool keep_fields(const char *rest, char *out)
{
    size_t n = 0;

    while (*rest) {
        size_t len = strcspn(rest, " "),
               key = strspn(rest, "abcdefghijklmnopqrstuvwxyz0123456789_");

        if (key == 0 || rest[key] != '=' || len == key + 1)
            return false;
        for (size_t i = 0; i < len; i++)
            out[n++] = rest[i] < ' ' || rest[i] > '~' ? '?' : rest[i];
        rest += len + strspn(rest + len, " ");
        out[n++] = *rest ? ' ' : '\0';
    }
    return n > 0;
}

static bool parse_fields(const struct kind *kind, const char *rest, uint64_t limit_kib,
                         struct telemetry_event *event)
{
    unsigned seen = 0;

    while (*rest) {
        const char *end = rest + strcspn(rest, " ");

        if (kind->text && strncmp(rest, kind->text, strlen(kind->text)) == 0) {
            bool only = kind->kind == TELEMETRY_STEP;
            copy_text(event->text, only ? rest + strlen(kind->text) : rest);
            return true;
        }
        if (!parse_word(kind, rest, end, limit_kib, &seen, event))
            return false;
        rest = end + strspn(end, " ");
    }
    if (kind->text)
        return false;
    for (unsigned i = 0; i < FIELDS && kind->fields[i].key; i++) {
        if (kind->fields[i].needed && !(seen & 1u << i))
            return false;
    }
    return true;
}

enum verdict { VALID, UNKNOWN, MALFORMED };

static enum verdict parse_line(const char *line, size_t len, uint64_t limit_kib,
                               struct telemetry_event *event)
{
    static const char header[] = "ebb-telemetry ";
    size_t name = strcspn(line, " ");
    const struct kind *kind;

    memset(event, 0, sizeof(*event));
    if (strlen(line) != len)
        return MALFORMED; /* a zero byte in it */
    if (strncmp(line, header, sizeof(header) - 1) == 0) {
        event->kind = TELEMETRY_HEADER;
        return number(line + sizeof(header) - 1, line + len, &event->version) ? VALID : MALFORMED;
    }
    /* A kind of a later version is a word, and has fields; all else is noise. */
    for (size_t i = 0; i < name; i++) {
        if ((line[i] < 'a' || line[i] > 'z') && line[i] != '-' && line[i] != '_')
            return MALFORMED;
    }
    kind = find_kind(line, name);
    if (!kind)
        return name > 0 && strncmp(line + name, " ns=", 4) == 0 ? UNKNOWN : MALFORMED;
    event->kind = kind->kind;
    line += name;
    if (event->kind == TELEMETRY_RESULT || event->kind == TELEMETRY_ENGINE)
        return keep_fields(line + strspn(line, " "), event->fields) ? VALID : MALFORMED;
    return parse_fields(kind, line + strspn(line, " "), limit_kib, event) ? VALID : MALFORMED;
}

static void end_line(struct telemetry *telemetry,
                     void (*fn)(void *ctx, const struct telemetry_event *event), void *ctx)
{
    struct telemetry_event event;
    enum verdict verdict = MALFORMED;

    if (telemetry->len > 0 && telemetry->line[telemetry->len - 1] == '\r')
        telemetry->len--;
    telemetry->line[telemetry->len] = '\0';
    if (!telemetry->too_long)
        verdict = parse_line(telemetry->line, telemetry->len, telemetry->limit_kib, &event);
    if (verdict == MALFORMED)
        telemetry->malformed++;
    else if (verdict == VALID)
        fn(ctx, &event);
    telemetry->len = 0;
    telemetry->too_long = false;
}

void telemetry_feed(struct telemetry *telemetry, const char *data, size_t n,
                    void (*fn)(void *ctx, const struct telemetry_event *event), void *ctx)
{
    for (size_t i = 0; i < n; i++) {
        if (data[i] == '\n')
            end_line(telemetry, fn, ctx);
        else if (telemetry->len + 1 < sizeof(telemetry->line))
            telemetry->line[telemetry->len++] = data[i];
        else
            telemetry->too_long = true;
    }
}
