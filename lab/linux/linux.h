/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The Linux guest of the comparisons: PID 1 of an initramfs that does the same
 * workloads as the reference guest, and tells of them in the same words.
 *
 * One process per CPU, pinned to it, holds the memory (team.c); another one
 * sends samples (telemetry.c); the main process runs the script.
 */
#ifndef EBB_LAB_LINUX_H
#define EBB_LAB_LINUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE       4096u
#define PAGE_KIB   (PAGE / 1024)
#define CPUS_MAX   16u
#define FILES      "/files"
#define NS_PER_MS  ((uint64_t)1000000)
#define NS_PER_SEC ((uint64_t)1000000000)

/* What the guest's exit device is told; the same as from the reference guest. */
enum status { STATUS_OK, STATUS_VERIFY, STATUS_USAGE, STATUS_PANIC };

/* ---- init.c ---- */

extern unsigned cpus;    /* online */
extern bool thp_for_all; /* ebb.thp=always: mappings that want 4 KiB pages must say so */

uint64_t now_ns(void);
void sleep_until(uint64_t ns);
/* A number of /proc/meminfo, in KiB. */
uint64_t meminfo_kib(const char *key);
/* Does so much fit in what is available, with its page tables? Complains. */
bool fits(const char *step, uint64_t pages);
void pin(unsigned cpu);
/* Says if it cannot. */
void write_file(const char *path, const char *text);
/* Memory that all processes share. */
void *shared_alloc(size_t bytes);

/* ---- telemetry.c ---- */

void telemetry_init(void); /* before any other process is started */
void telemetry_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
void telemetry_start(void); /* the samples */
void telemetry_stop(void);
void telemetry_hold(uint64_t pages);
void telemetry_release(uint64_t pages);
void telemetry_fault(uint64_t page, uint64_t expect, uint64_t found);
uint64_t telemetry_used_kib(void);
/* Frames looked at, and found damaged, in all processes. */
void count_checks(uint64_t n);
uint64_t checks_total(void);
uint64_t errors_total(void);
_Noreturn void leave(enum status status);

/* ---- team.c ---- */

void team_start(void);
enum status team_memhog(uint64_t pages, uint64_t times);
enum status team_cycle(uint64_t pages, uint64_t pause_ms, uint64_t ms);
enum status team_fragment(uint64_t pages, uint64_t k);
enum status team_release(void);
enum status team_idle(uint64_t ms);
enum status team_verify(void);
enum status team_corrupt(void);

/* ---- files.c ---- */

enum status files_tmpfs(uint64_t pages);
enum status files_cache(uint64_t pages); /* of /dev/vda */
enum status files_check(void);           /* what these keep */
bool files_mount(void);                  /* a tmpfs at FILES */
void files_corrupt(void);

/* ---- compile.c ---- */

enum status compile_run(unsigned jobs);

/* ---- system.c ---- */

enum status system_squeeze(uint64_t pages, uint64_t limit); /* in pages; 0: none */
enum status system_load(uint64_t pages);
enum status system_kexec(void);
enum status system_listen(enum status (*run)(const char *script));

/* ---- faults.c ---- */

struct faults {
    bool file;    /* page_fault2 */
    bool threads; /* one address space */
    bool thp;
    unsigned tasks;
    uint64_t ms;
};
enum status faults_run(const struct faults *what);
uint64_t cpu_idle_ns(void); /* so far, of all CPUs */

#endif
