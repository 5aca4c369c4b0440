/* SPDX-License-Identifier: BSD-2-Clause */
/* The console for people: whole lines out, characters in. */
#include "guest.h"

#define INPUT_SIZE 256u /* a power of two */

static struct ebb_lock lock;
static bool emergency;

/* Filled by the interrupt, emptied by console_read(), both on CPU 0. */
static char input[INPUT_SIZE];
static uint32_t input_head, input_tail;

void console_print(const char *fmt, ...)
{
    char text[512];
    va_list args;
    size_t len;

    va_start(args, fmt);
    len = text_vformat(text, sizeof text, fmt, args);
    va_end(args);
    if (!emergency)
        ebb_port_lock(&lock);
    arch_console_write(text, len);
    if (!emergency)
        ebb_port_unlock(&lock);
}

void console_emergency(void)
{
    emergency = true;
}

void guest_console_input(char c)
{
    uint32_t head = __atomic_load_n(&input_head, __ATOMIC_RELAXED);

    if (head - __atomic_load_n(&input_tail, __ATOMIC_RELAXED) == INPUT_SIZE)
        return; /* typed faster than read: lost */
    input[head % INPUT_SIZE] = c;
    __atomic_store_n(&input_head, head + 1, __ATOMIC_RELEASE);
}

char console_read(void)
{
    uint32_t tail = input_tail;
    char c;

    arch_interrupts_off();
    while (__atomic_load_n(&input_head, __ATOMIC_ACQUIRE) == tail) {
        arch_wait();
        arch_interrupts_off();
    }
    arch_interrupts_on();
    c = input[tail % INPUT_SIZE];
    __atomic_store_n(&input_tail, tail + 1, __ATOMIC_RELEASE);
    return c;
}
