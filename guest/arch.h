/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the guest's machine-independent part (guest/) and one machine
 * (guest/x86_64/): what each asks of the other.
 */
#ifndef GUEST_ARCH_H
#define GUEST_ARCH_H

#include <ebb/types.h>

#if defined(__x86_64__)
#include "x86_64/entries.h"
#else
#error "guest/: this machine has no entries.h yet"
#endif

#define ARCH_RAM_LIMIT    64u
#define ARCH_CPU_LIMIT    64u
#define ARCH_COMMAND_LINE 4096u /* with its zero byte */

struct arch_range {
    uint64_t start; /* bytes */
    uint64_t end;   /* first byte behind it */
};

/* What the boot loader told, and where the kernel lies. */
struct arch_boot {
    const char *command_line;
    bool command_line_cut; /* it was longer than there is room */
    struct arch_range image;
    struct arch_range ram[ARCH_RAM_LIMIT]; /* sorted, not overlapping, whole frames */
    unsigned ram_count;
};

/* ---- what a machine calls ---- */

/* On CPU 0, interrupts off, memory below 4 GiB mapped one to one. */
_Noreturn void guest_main(const struct arch_boot *boot);

/* On each further CPU, interrupts off. */
_Noreturn void guest_cpu_main(unsigned cpu);

/* Interrupts, on CPU 0 with interrupts off: timer or wake-up; the balloon; a
 * character from the console. */
void guest_worker_interrupt(void);
void guest_balloon_interrupt(void);
void guest_config_interrupt(void);
void guest_console_input(char c);

/* A frame is missing at an address that was read or written; interrupts off. True: it is there now.
 * `interrupts`: were they on where that happened? */
bool guest_page_fault(uint64_t address, bool interrupts);

/* ---- what a machine supplies ---- */

/* Final page tables, clock, interrupt controllers, this CPU. Uses early_alloc(). */
void arch_init(const struct arch_boot *boot);

/* Start all further CPUs; each enters guest_cpu_main(). Returns how many CPUs
 * are running. */
unsigned arch_cpus_start(void);

/* Nanoseconds since about the start; monotonic, the same on all CPUs. */
uint64_t arch_now(void);

/* CPU 0's timer: guest_worker_interrupt() at `deadline` or a bit earlier (never
 * much later); EBB_NEVER is a valid deadline. */
void arch_timer_set(uint64_t deadline);

/* Raise guest_worker_interrupt() on CPU 0. From any CPU. */
void arch_interrupt_worker(void);

/* Wake all CPUs but this one from arch_wait(). */
void arch_interrupt_others(void);

void arch_interrupts_on(void);
void arch_interrupts_off(void);

/* With interrupts off: turn them on and sleep until one arrives, missing none. */
void arch_wait(void);

/* How long a CPU has slept since it started: in arch_wait(), but for the interrupts there. */
uint64_t arch_idle_ns(unsigned cpu);

/*
 * Address spaces. ARCH_USER_START and the arch_entry_...() are in the machine's entries.h. Below an
 * entry of the root that covers the user memory, 2^ARCH_USER_SHIFT bytes, there are three levels
 * of tables of 512 entries in a frame each: top, middle, leaf; an entry of 0 is none. A
 * middle entry is a leaf table or a large frame.
 */

/* Make a root: what the kernel has mapped by now, and the user memory. Both are frames of zeroes.
 */
void arch_space_init(uint64_t *root, const uint64_t *top);

/* This CPU uses these tables from now on; NULL: the kernel's. */
void arch_space_load(const uint64_t *root);

/* Forget translations of user memory, on each of these CPUs (bit per CPU). Returns when all have.
 * Interrupts on, unless no other CPU is among them. */
void arch_flush(uint64_t cpus);

/* All one-to-one mapped RAM is reachable by this. */
static inline void *arch_pointer(uint64_t address)
{
    return (void *)(uintptr_t)address;
}
static inline uint64_t arch_address(const void *pointer)
{
    return (uint64_t)(uintptr_t)pointer;
}

/* Map device memory, uncached, one to one. NULL: out of page tables. */
volatile void *arch_map_device(uint64_t address, uint64_t len);

/* PCI configuration space: bdf is bus << 8 | device << 3 | function. */
bool arch_pci_present(void);
uint32_t arch_pci_read(unsigned bdf, unsigned offset, unsigned size);
void arch_pci_write(unsigned bdf, unsigned offset, unsigned size, uint32_t value);

/* The interrupt line of a function, whose pin arrives as pin 1 to 4 (INTA to
 * INTD) of device root_bdf on bus 0. Negative: unknown. */
int arch_pci_line(unsigned bdf, unsigned root_bdf, unsigned root_pin);

/* The i-th place where a virtio-mmio device may be, if the command line does
 * not tell. False: no more. */
bool arch_mmio_place(unsigned i, uint64_t *address, unsigned *line);

/* The messages that raise guest_balloon_interrupt() and guest_config_interrupt() on CPU 0. */
void arch_msi_messages(uint64_t *address, uint32_t *data, uint32_t *config_data);

/* Route an interrupt line to guest_balloon_interrupt(). -EBB_ENODEV: no such line. */
EBB_MUST_CHECK int arch_line_route(unsigned line, bool level);

/* The console for people, and the telemetry channel to the host. */
void arch_console_write(const char *text, size_t len);
bool arch_telemetry_present(void);
void arch_telemetry_write(const char *text, size_t len);

/* Print registers and a backtrace of the caller, after `why`, and leave. */
_Noreturn void arch_panic(const char *why);

/* Power off with an exit status for the host. */
_Noreturn void arch_exit(unsigned status);

#endif
