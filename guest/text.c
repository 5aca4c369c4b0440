/* SPDX-License-Identifier: BSD-2-Clause */
/* Text: formatting, comparing, numbers. */
#include "guest.h"

struct sink {
    char *out;
    size_t size;
    size_t len;
};

static void put(struct sink *sink, char c)
{
    if (sink->len + 1 < sink->size)
        sink->out[sink->len++] = c;
}

struct spec {
    bool left, zero;
    unsigned width;
};

static void put_padded(struct sink *sink, const struct spec *spec, const char *s, size_t len)
{
    if (!spec->left)
        for (size_t i = len; i < spec->width; i++)
            put(sink, spec->zero ? '0' : ' ');
    for (size_t i = 0; i < len; i++)
        put(sink, s[i]);
    if (spec->left)
        for (size_t i = len; i < spec->width; i++)
            put(sink, ' ');
}

static void put_number(struct sink *sink, const struct spec *spec, uint64_t value, unsigned base,
                       bool negative)
{
    char digits[24];
    size_t at = sizeof digits;

    do {
        digits[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    if (negative)
        digits[--at] = '-';
    put_padded(sink, spec, digits + at, sizeof digits - at);
}

static const char *parse_spec(const char *fmt, struct spec *spec)
{
    *spec = (struct spec){0};
    for (; *fmt == '-' || *fmt == '0'; fmt++) {
        if (*fmt == '-')
            spec->left = true;
        else
            spec->zero = true;
    }
    for (; *fmt >= '0' && *fmt <= '9'; fmt++)
        spec->width = spec->width * 10 + (unsigned)(*fmt - '0');
    return fmt;
}

size_t text_vformat(char *out, size_t size, const char *fmt, va_list args)
{
    struct sink sink = {out, size, 0};

    for (; *fmt; fmt++) {
        struct spec spec;
        bool wide;

        if (*fmt != '%') {
            put(&sink, *fmt);
            continue;
        }
        fmt = parse_spec(fmt + 1, &spec);
        wide = *fmt == 'l';
        fmt += wide;
        if (*fmt == 's') {
            const char *s = va_arg(args, const char *);
            put_padded(&sink, &spec, s, text_length(s));
        } else if (*fmt == 'c') {
            char c = (char)va_arg(args, int);
            put_padded(&sink, &spec, &c, 1);
        } else if (*fmt == 'd') {
            int64_t n = va_arg(args, int);
            put_number(&sink, &spec, n < 0 ? (uint64_t)-n : (uint64_t)n, 10, n < 0);
        } else if (*fmt == 'u' || *fmt == 'x') {
            uint64_t n = wide ? va_arg(args, unsigned long) : va_arg(args, unsigned);
            put_number(&sink, &spec, n, *fmt == 'u' ? 10 : 16, false);
        } else {
            put(&sink, *fmt);
        }
    }
    out[sink.len] = 0;
    return sink.len;
}

size_t text_format(char *out, size_t size, const char *fmt, ...)
{
    va_list args;
    size_t len;

    va_start(args, fmt);
    len = text_vformat(out, size, fmt, args);
    va_end(args);
    return len;
}

size_t text_length(const char *s)
{
    size_t n = 0;

    while (s[n])
        n++;
    return n;
}

bool text_equal(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

bool text_starts(const char *s, const char *prefix)
{
    while (*prefix && *s == *prefix) {
        s++;
        prefix++;
    }
    return *prefix == 0;
}

bool text_number(const char *s, const char *end, uint64_t max, uint64_t *value)
{
    uint64_t n = 0;

    if (s == end)
        return false;
    for (; s < end; s++) {
        uint64_t digit = (uint64_t)(*s - '0');

        if (*s < '0' || *s > '9' || n > (max - digit) / 10 || digit > max)
            return false;
        n = n * 10 + digit;
    }
    *value = n;
    return true;
}

const char *text_size(char *out, uint64_t kib)
{
    if (kib >= 10u << 20)
        text_format(out, 16, "%lu.%lu GiB", kib >> 20, (kib & 0xfffff) * 10 >> 20);
    else if (kib >= 10u << 10)
        text_format(out, 16, "%lu MiB", (kib + 512) >> 10);
    else
        text_format(out, 16, "%lu KiB", kib);
    return out;
}
