/* SPDX-License-Identifier: BSD-2-Clause */
/* x86-64: the four memory functions that compilers expect of every program. */
#include "x86.h"

/* By eight bytes and then by one: an emulator takes each step of a string
 * instruction one at a time. */
void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    void *d = to;
    const void *s = from;
    size_t words = n / 8;
    size_t rest = n % 8;

    __asm__ volatile("rep movsq\n\tmovq %3, %2\n\trep movsb"
                     : "+&D"(d), "+&S"(s), "+&c"(words)
                     : "r"(rest)
                     : "memory");
    return to;
}

void *memmove(void *to, const void *from, size_t n)
{
    const char *last_from = (const char *)from + n - 1;
    char *last_to = (char *)to + n - 1;

    if ((uintptr_t)to - (uintptr_t)from >= n)
        return memcpy(to, from, n);
    __asm__ volatile("std\n\trep movsb\n\tcld"
                     : "+D"(last_to), "+S"(last_from), "+c"(n)
                     :
                     : "memory");
    return to;
}

void *memset(void *to, int value, size_t n)
{
    void *d = to;
    size_t words = n / 8;
    size_t rest = n % 8;
    uint64_t pattern = (uint8_t)value * (uint64_t)0x0101010101010101;

    __asm__ volatile("rep stosq\n\tmovq %3, %1\n\trep stosb"
                     : "+&D"(d), "+&c"(words)
                     : "a"(pattern), "r"(rest)
                     : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a;
    const uint8_t *y = b;

    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}
