/* SPDX-License-Identifier: BSD-2-Clause */
/* x86-64: COM1, QEMU's debug console, and the way out. */
#include "x86.h"

#define COM1       0x3f8u
#define COM1_IRQ   4u
#define DATA       (COM1 + 0)
#define INTERRUPTS (COM1 + 1)
#define FIFO       (COM1 + 2)
#define LINE       (COM1 + 3)
#define MODEM      (COM1 + 4)
#define STATUS     (COM1 + 5)
#define FIFO_SIZE  16u

#define DEBUGCON   0xe9u
#define DEBUG_EXIT 0xf4u
#define EXIT_TICKS ((uint64_t)1 << 32) /* of the time stamp counter: a second or two */

void serial_init(void)
{
    outb(INTERRUPTS, 0);
    outb(LINE, 0x80); /* divisor: 115,200 baud */
    outb(DATA, 1);
    outb(INTERRUPTS, 0);
    outb(LINE, 3);   /* 8n1 */
    outb(FIFO, 7);   /* on, emptied */
    outb(MODEM, 11); /* OUT2 lets interrupts through */
}

void serial_enable_input(void)
{
    apic_isa_route(COM1_IRQ, VECTOR_CONSOLE);
    outb(INTERRUPTS, 1);
}

void serial_interrupt(void)
{
    while (inb(STATUS) & 1)
        guest_console_input((char)inb(DATA));
}

/* Gives up on a terminal that takes nothing any more, until it does again: the
 * guest must go on. */
static bool ready_to_send(void)
{
    static bool stuck; /* atomic: in a panic there is no lock */
    unsigned tries = __atomic_load_n(&stuck, __ATOMIC_RELAXED) ? 1 : 1000000;
    bool ready = false;

    while (!ready && tries-- > 0) {
        ready = inb(STATUS) & 0x20;
        cpu_pause();
    }
    __atomic_store_n(&stuck, !ready, __ATOMIC_RELAXED);
    return ready;
}

void arch_console_write(const char *text, size_t len)
{
    unsigned room = 0;

    for (size_t i = 0; i < len; i++) {
        unsigned bytes = text[i] == '\n' ? 2 : 1;

        if (room < bytes) {
            if (!ready_to_send())
                return;
            room = FIFO_SIZE;
        }
        if (text[i] == '\n')
            outb(DATA, '\r');
        outb(DATA, (uint8_t)text[i]);
        room -= bytes;
    }
}

bool arch_telemetry_present(void)
{
    return inb(DEBUGCON) == DEBUGCON;
}

void arch_telemetry_write(const char *text, size_t len)
{
    outs(DEBUGCON, text, len);
}

_Noreturn void arch_exit(unsigned status)
{
    uint64_t deadline = rdtsc() + EXIT_TICKS;

    outl(DEBUG_EXIT, status); /* QEMU exits with (status << 1) | 1: at once, or soon */
    while (rdtsc() < deadline)
        cpu_pause();
    console_print("no isa-debug-exit device: exit status %u is lost, resetting\n", status);
    outb(0x64, 0xfe); /* with -no-reboot a reset ends QEMU too */
    cpu_halt();
}
