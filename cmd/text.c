/* SPDX-License-Identifier: BSD-2-Clause */
/* Text kept, printed and quoted. */
#include "text.h"
#include "cmd.h"

#include <stdbool.h>
#include <string.h>

size_t text_tail_add(struct text_tail *tail, const char *data, size_t n)
{
    size_t keep, dropped = 0;

    if (n > TEXT_TAIL / 2) {
        data += n - TEXT_TAIL / 2;
        n = TEXT_TAIL / 2;
    }
    if (tail->len + n > TEXT_TAIL - 1) {
        keep = tail->len < TEXT_TAIL / 4 ? tail->len : TEXT_TAIL / 4;
        dropped = tail->len - keep;
        memmove(tail->text, tail->text + dropped, keep);
        tail->len = keep;
    }
    memcpy(tail->text + tail->len, data, n);
    tail->len += n;
    return dropped;
}

void text_print(FILE *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\n' || text[i] == '\t' || (text[i] >= ' ' && text[i] <= '~'))
            fputc(text[i], out);
        else if (text[i] != '\r' && text[i] != '\0')
            fputc('?', out);
    }
}

/* Is it the same in quotes, whatever the locale? */
static bool is_printable(const char *text)
{
    for (; *text; text++) {
        if (*text < ' ' || *text > '~')
            return false;
    }
    return true;
}

static void quote(FILE *file, const char *text)
{
    fputc('\'', file);
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", file);
        else
            fputc(*text, file);
    }
    fputc('\'', file);
}

/* For control characters, and bytes that may be no UTF-8. */
static void quote_bytes(FILE *file, const char *text)
{
    fputs("$'", file);
    for (; *text; text++) {
        if (*text == '\'' || *text == '\\')
            fprintf(file, "\\%c", *text);
        else if (*text < ' ' || *text > '~')
            fprintf(file, "\\%03o", (unsigned char)*text);
        else
            fputc(*text, file);
    }
    fputc('\'', file);
}

char *text_quote(int argc, char *const *argv)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-./=+:,%";
    char *text = NULL;
    size_t len = 0;
    FILE *file = open_memstream(&text, &len);

    if (!file)
        cmd_no_memory();
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];

        fputs(i ? " " : "", file);
        if (i == 0 || (*arg && strspn(arg, plain) == strlen(arg)))
            fputs(arg, file);
        else if (is_printable(arg))
            quote(file, arg);
        else
            quote_bytes(file, arg);
    }
    if (fclose(file) != 0)
        cmd_no_memory();
    return text;
}

const char *text_duration(double ms, char *out, size_t size)
{
    if (ms < 999.5)
        snprintf(out, size, "%.0f ms", ms);
    else
        snprintf(out, size, "%.1f s", ms / 1000);
    return out;
}
