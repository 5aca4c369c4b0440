/* SPDX-License-Identifier: BSD-2-Clause */
/* Text from elsewhere kept and printed safely, and figures put into words. */
#ifndef TEXT_H
#define TEXT_H

#include <stddef.h>
#include <stdio.h>

#define TEXT_TAIL 8192u

/* The end of a text that may be long. */
struct text_tail {
    char text[TEXT_TAIL];
    size_t len;
};

/* Add n bytes; returns how many went at the front to make room for them. */
size_t text_tail_add(struct text_tail *tail, const char *data, size_t n);

/* Print text of the guest or of QEMU, without what a terminal could act on. */
void text_print(FILE *out, const char *text, size_t len);

/* A command line as a shell would need it, in ASCII; argv[0] may be two words.
 * To be freed. */
char *text_quote(int argc, char *const *argv);

/* "37 ms", "4.2 s". */
const char *text_duration(double ms, char *out, size_t size);

#endif
