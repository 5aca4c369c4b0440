/* SPDX-License-Identifier: BSD-2-Clause */
/* The reference guest: what its files offer each other, file by file. */
#ifndef GUEST_GUEST_H
#define GUEST_GUEST_H

#include "arch.h"

#include <ebb/balloon.h>
#include <ebb/history.h>
#include <ebb/range.h>
#include <ebb/report.h>
#include <ebb/zone.h>
#include <ebb/zonelist.h>

#include <stdarg.h>

/* Of the machine, as compilers expect them. */
void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int value, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* How a run ends: written to the debug exit device. */
enum status {
    STATUS_OK = 0,
    STATUS_VERIFY = 1, /* a frame in use was lost, or an invariant broken */
    STATUS_USAGE = 2,  /* bad command line or script, or a step that cannot be done */
    STATUS_PANIC = 3,
};

#define NS_PER_MS  ((uint64_t)1000000)
#define NS_PER_SEC ((uint64_t)1000000000)
#define FRAME_KIB  (EBB_FRAME_SIZE / 1024)

static inline uint64_t round_up(uint64_t n, uint64_t align)
{
    return (n + align - 1) / align * align;
}

/* ---- text.c ---- */
#define PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
/* %s %c %d %u %x %lu %lx %%, with '-', '0' and a width. Always ends the text with
 * a zero byte; returns its length. */
size_t text_vformat(char *out, size_t size, const char *fmt, va_list args) PRINTF(3, 0);
size_t text_format(char *out, size_t size, const char *fmt, ...) PRINTF(3, 4);
size_t text_length(const char *s);
bool text_equal(const char *a, const char *b);
bool text_starts(const char *s, const char *prefix);
/* A decimal number that fills [s, end), at most `max`. */
bool text_number(const char *s, const char *end, uint64_t max, uint64_t *value);
/* "1.50 GiB" and the like; room for 16 bytes. Returns out. */
const char *text_size(char *out, uint64_t kib);

/* ---- console.c ---- */
void console_print(const char *fmt, ...) PRINTF(1, 2);
/* From now on print without the lock: the machine is in a panic. */
void console_emergency(void);
/* Wait for a character. */
char console_read(void);

/* ---- settings.c ---- */
struct settings {
    struct ebb_settings engine;
    bool reporting;
    bool intx;
    enum ebb_balloon_numbering numbering;
    enum ebb_fill fill;
    uint64_t seed;
    const char *script;           /* NULL: none */
    char text[ARCH_COMMAND_LINE]; /* the command line, cut into words */
};
/* Parse a command line; complains on the console. STATUS_OK or STATUS_USAGE. */
enum status settings_parse(struct settings *settings, const struct arch_boot *boot);

/* ---- memory.c ---- */
#define ZONE_LIMIT 2u
/* Before memory_open(): memory behind the kernel, fresh and zero, never given back. */
void memory_early(const struct arch_boot *boot);
void *early_alloc(uint64_t size, uint64_t align);
/* Make the zones; they have no frames yet. */
void memory_init(unsigned cpus, enum ebb_fill fill);
/* Hand them their frames: what is left. */
void memory_open(void);
unsigned memory_zones(void);
struct ebb_zone *memory_zone(unsigned i);
const char *memory_zone_name(unsigned i);
/* As ebb_alloc(), from whichever zone has it. */
/* flags: enum ebb_alloc_flags. memory_take() is patient with the host: where memory_alloc()
 * says -EBB_EAGAIN it tries again for up to 10 s; interrupts on. */
EBB_MUST_CHECK int memory_alloc(unsigned order, enum ebb_migratetype type, unsigned flags,
                                ebb_pfn_t *pfn);
EBB_MUST_CHECK int memory_take(unsigned order, enum ebb_migratetype type, unsigned flags,
                               ebb_pfn_t *pfn);
void memory_free(ebb_pfn_t pfn, unsigned order);
/* The same patience for others. True: err is -EBB_EAGAIN, a millisecond has passed, and it is
 * worth another try. *deadline: 0 at first. On CPU 0. */
bool memory_again(int err, uint64_t *deadline);
/* The zone that has this frame in its span; NULL: none. */
struct ebb_zone *memory_zone_of(ebb_pfn_t pfn);
/* As EBB_ALLOC_ZERO does. */
void memory_clear(ebb_pfn_t pfn, uint64_t frames);
/* Sums over all zones, in frames. */
struct memory_totals {
    uint64_t managed, free, cached, in_flight, allocated, reported, refaulted;
};
void memory_totals(struct memory_totals *totals);
uint64_t memory_managed(void);
/* Frames that the zones keep from everybody: their watermarks. */
uint64_t memory_reserve(void);
/* Allocated, but for what the balloon was given. */
uint64_t memory_used(const struct memory_totals *totals);
static inline void *memory_pointer(ebb_pfn_t pfn)
{
    return arch_pointer(pfn << EBB_FRAME_SHIFT);
}

/* ---- cpus.c ---- */
void cpus_set(unsigned n);
unsigned cpus_online(void);
/* Run fn on every CPU at once; returns when all are done. From CPU 0, interrupts on. */
void cpus_run(void (*fn)(unsigned cpu, void *arg), void *arg);

/* ---- events.c: what CPU 0 does in interrupts ---- */
void events_start(void);
/* Sleep on CPU 0, interrupts on. */
void events_sleep_until(uint64_t deadline);
/* The port's wake. */
void events_wake(void *worker);
/* Telemetry wants a sample soon. */
void events_sample_soon(void);
extern uint32_t events_engine_worker;
extern uint32_t events_balloon_worker;

/* ---- device.c ---- */
struct device {
    struct ebb_transport *transport;
    char where[48]; /* for people */
};
/* Find the balloon and route its interrupt. -EBB_ENODEV: there is none. */
EBB_MUST_CHECK int device_find_balloon(const char *command_line, bool intx, struct device *device);

/* ---- engine.c, or engine_history.c ---- */
/* As ebb_settings_set(), of what this guest has. */
EBB_MUST_CHECK int engine_set(struct ebb_settings *settings, const char *key, const char *value,
                              const char **allowed);
/* As ebb_history_problem(). */
const char *engine_problem(const struct ebb_settings *settings);
EBB_MUST_CHECK int engine_init(struct ebb_report *engine, const struct ebb_settings *settings);
/* Before memory_open(). */
EBB_MUST_CHECK int engine_add_zone(struct ebb_report *engine, unsigned zone);

/* ---- balloon.c ---- */
/* The engine, before memory_open(). STATUS_USAGE: it refuses its settings. */
enum status balloon_init_engine(const struct settings *settings);
/* The balloon. dma: ebb_balloon_dma_size() bytes of early memory. */
void balloon_init(const struct settings *settings, const char *command_line, void *dma);
bool balloon_present(void);
bool balloon_can_report(void);
bool balloon_reporting(void);
EBB_MUST_CHECK int balloon_report(bool on);
void balloon_report_now(void);
uint64_t balloon_frames(void); /* given to the host by inflating */
void balloon_interrupt(void);
void balloon_config_interrupt(void);
bool balloon_work(void);    /* true: again soon */
uint64_t balloon_run(void); /* the engine; when next */
const struct ebb_report *balloon_engine(void);
void balloon_stats(struct ebb_report_stats *stats);

/* ---- telemetry.c ---- */
void telemetry_init(void);
void telemetry_line(const char *fmt, ...) PRINTF(1, 2);
void telemetry_boot(void);
void telemetry_base(void);
void telemetry_step(const char *command);
void telemetry_hold(uint64_t frames);
void telemetry_release(uint64_t frames);
void telemetry_fault(ebb_pfn_t pfn, uint64_t expect, uint64_t found);
void telemetry_engine(void);
void telemetry_end(enum status status);
/* A sample if it is time; returns when the next one is due. */
uint64_t telemetry_tick(uint64_t now);

/* ---- hold.c: frames that a workload holds, stamped ---- */
void hold_init(unsigned cpus, uint64_t seed);
enum hold_set { HOLD_WORK, HOLD_KEPT, HOLD_LIGHT, HOLD_SETS };
/* All are called by the CPU that owns the set, or while no workload runs. */
EBB_MUST_CHECK int hold_take(unsigned cpu, enum hold_set set, unsigned order,
                             enum ebb_migratetype type);
void hold_check_random(unsigned cpu, enum hold_set set);
void hold_check_all(unsigned cpu, enum hold_set set);
/* Free a random block, after a check of all its frames. */
void hold_free_random(unsigned cpu, enum hold_set set);
/* Free all blocks, each after a check of all its frames. */
void hold_free_all(unsigned cpu, enum hold_set set);
/* Free all blocks, after a check of a random sample of them. */
void hold_free_sampled(unsigned cpu, enum hold_set set);
/* Of the single frames in `from`: those with pfn % k == 0 go to `to`, the others are freed. */
EBB_MUST_CHECK int hold_thin(unsigned cpu, enum hold_set from, enum hold_set to, uint64_t k);
/* Frames held, by one CPU or all of them, those of the records included. */
uint64_t hold_frames(unsigned cpu, enum hold_set set);
uint64_t hold_total(enum hold_set set);
uint64_t hold_random(unsigned cpu, uint64_t below);
/* While no workload runs: how to move what is held, until one runs again. Counts moved frames. */
struct ebb_migrate_ops hold_begin_moves(uint64_t *moved);
/* Overwrite a held frame's stamp; false: none is held. */
bool hold_corrupt(void);
uint64_t hold_checks(void);
uint64_t hold_errors(void);
void hold_error(void); /* count one found elsewhere */
/* Checks and damaged frames of those who stamp memory by themselves. */
void hold_count_checks(unsigned cpu, uint64_t n);
void hold_fault(ebb_pfn_t pfn, uint64_t expect, uint64_t found);

/* ---- workload.c ---- */
enum status workload_memhog(uint64_t frames, uint64_t times);
enum status workload_churn(uint64_t frames, uint64_t seconds);
enum status workload_fragment(uint64_t frames, uint64_t k);
enum status workload_cycle(uint64_t frames, uint64_t pause_ms, uint64_t ms);
enum status workload_idle(uint64_t ms);
enum status workload_release(void);
/* At the end: check and free what is still held, and see that nothing leaked.
 * No release as telemetry knows it, since the workload is over. */
enum status workload_end(void);
enum status workload_verify(bool quiet);
enum status workload_corrupt(void);

/* ---- hotplug.c: memory that comes and goes ---- */
#define HOTPLUG_RECORD sizeof(uint64_t)
/* `records`: HOTPLUG_RECORD bytes for each pageblock that there may be. */
void hotplug_init(void *records);
enum status hotplug_unplug(uint64_t frames);
enum status hotplug_plug(uint64_t frames);

/* ---- compact.c: memory in one piece ---- */
enum status compact_all(void);
/* Take frames in a row, check and free them. pfn: of the first one; 0: any. */
enum status compact_contiguous(uint64_t frames, ebb_pfn_t pfn);

/* ---- faults.c: workloads of page faults ---- */
#define FAULTS_TASKS 16u
enum status faults_page_fault1(bool threads, unsigned tasks, uint64_t ms, bool large);
enum status faults_page_fault2(unsigned tasks, uint64_t ms);
/* All CPUs fault on the same pages. */
enum status faults_contend(uint64_t rounds);
/* A touch behind an area, or where one was, on this CPU or on another. */
enum faults_stray { STRAY_BEHIND, STRAY_UNMAPPED, STRAY_OTHER };
enum status faults_stray(enum faults_stray how);

/* ---- script.c ---- */
/* Check a whole script, then run it. A script without `shell` at its end leaves. */
enum status script_run(const char *script);
/* One line of commands, from the prompt. True: leave. */
bool script_line(const char *line, enum status *status);

/* ---- shell.c ---- */
enum status shell_run(void);

/* ---- show.c: what people read ---- */
void show_free(void);
void show_zones(void);

#endif
