/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Telemetry: lines to the host on QEMU's debug console, as the reference guest
 * sends them (SPEC.md). "used" is MemTotal - MemFree: in it are also what the
 * kernel itself took since boot, its per-CPU lists, and the blocks that are with
 * the host in a report, at most 64 MiB by default.
 */
#include "linux.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/wait.h>
#include <unistd.h>

#define PORT_LINES 0xe9
#define PORT_EXIT  0xf4

#define PERIOD_MS    50
#define FINE_MS      10
#define FINE_SECONDS 2
#define FAULTS_SHOWN 16u

static struct shared {
    pthread_mutex_t lock; /* of the port */
    uint64_t fine_until;  /* the rest is atomic */
    uint64_t checks, errors;
} * shared;

static bool present;
static pid_t sampler;
static int wake = -1; /* a byte: sample now; its end: stop */

void telemetry_init(void)
{
    pthread_mutexattr_t attr;

    shared = shared_alloc(sizeof(*shared));
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&shared->lock, &attr);
    if (ioperm(PORT_LINES, 1, 1) != 0 || ioperm(PORT_EXIT, 4, 1) != 0)
        printf("no access to I/O ports: nobody will hear of this run\n");
    else
        present = inb(PORT_LINES) == PORT_LINES;
    telemetry_line("ebb-telemetry 1");
}

void telemetry_line(const char *format, ...)
{
    char text[512];
    va_list args;
    int n;

    if (!present)
        return;
    va_start(args, format);
    n = vsnprintf(text, sizeof(text) - 1, format, args);
    va_end(args);
    if (n >= (int)sizeof(text) - 1)
        n = (int)sizeof(text) - 2;
    text[n++] = '\n';
    pthread_mutex_lock(&shared->lock);
    outsb(PORT_LINES, text, (unsigned long)n);
    pthread_mutex_unlock(&shared->lock);
}

/* ---- samples ---- */

static bool number_after(const char *text, const char *key, uint64_t *value)
{
    const char *at = strstr(text, key);

    if (at)
        *value = strtoull(at + strlen(key), NULL, 10);
    return at != NULL;
}

/* Both numbers by one reading, from a file that stays open. */
static bool read_memory(int fd, uint64_t *used, uint64_t *unused)
{
    char text[512];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    uint64_t total;

    text[n > 0 ? n : 0] = 0;
    if (!number_after(text, "MemTotal:", &total) || !number_after(text, "MemFree:", unused))
        return false;
    *used = total > *unused ? total - *unused : 0;
    return true;
}

uint64_t telemetry_used_kib(void)
{
    uint64_t total = meminfo_kib("MemTotal"), unused = meminfo_kib("MemFree");

    return total > unused ? total - unused : 0;
}

static _Noreturn void sample(int asked)
{
    /* On time, also when all CPUs are busy: the reference guest does it in an interrupt. */
    const struct sched_param first = {.sched_priority = 1};
    struct pollfd poller = {.fd = asked, .events = POLLIN};
    int fd = open("/proc/meminfo", O_RDONLY);
    uint64_t used, unused;
    char byte;

    sched_setscheduler(0, SCHED_FIFO, &first);
    for (;;) {
        uint64_t now = now_ns();
        bool fine = now < __atomic_load_n(&shared->fine_until, __ATOMIC_RELAXED);

        if (read_memory(fd, &used, &unused))
            telemetry_line("use ns=%lu used_kib=%lu free_kib=%lu", now, used, unused);
        if (poll(&poller, 1, fine ? FINE_MS : PERIOD_MS) > 0 && read(asked, &byte, 1) <= 0)
            _exit(0);
    }
}

void telemetry_start(void)
{
    int ends[2];

    if (!present || pipe2(ends, O_CLOEXEC) != 0)
        return;
    sampler = fork();
    if (sampler == 0) {
        close(ends[1]);
        sample(ends[0]);
    }
    close(ends[0]);
    wake = ends[1];
}

void telemetry_stop(void)
{
    if (sampler <= 0)
        return;
    close(wake);
    waitpid(sampler, NULL, 0);
    sampler = 0;
}

/* ---- events ---- */

void telemetry_hold(uint64_t pages)
{
    telemetry_line("hold ns=%lu kib=%lu", now_ns(), pages * PAGE_KIB);
}

void telemetry_release(uint64_t pages)
{
    uint64_t now = now_ns();

    telemetry_line("release ns=%lu freed_kib=%lu", now, pages * PAGE_KIB);
    __atomic_store_n(&shared->fine_until, now + FINE_SECONDS * NS_PER_SEC, __ATOMIC_RELAXED);
    if (sampler > 0)
        (void)!write(wake, "", 1);
}

void telemetry_fault(uint64_t page, uint64_t expect, uint64_t found)
{
    uint64_t n = __atomic_add_fetch(&shared->errors, 1u, __ATOMIC_RELAXED);

    if (n > FAULTS_SHOWN)
        return;
    printf("LOST: page %lx in use: expected stamp %016lx, found %016lx\n", page, expect, found);
    telemetry_line("fault ns=%lu pfn=%lu expect=0x%lx found=0x%lx", now_ns(), page, expect, found);
}

void count_checks(uint64_t n)
{
    __atomic_add_fetch(&shared->checks, n, __ATOMIC_RELAXED);
}

uint64_t checks_total(void)
{
    return __atomic_load_n(&shared->checks, __ATOMIC_RELAXED);
}

uint64_t errors_total(void)
{
    return __atomic_load_n(&shared->errors, __ATOMIC_RELAXED);
}

/* Linux does not count its reports; the zeroes say nothing (SPEC.md). */
_Noreturn void leave(enum status status)
{
    telemetry_stop();
    telemetry_line("end ns=%lu status=%u reports=0 reported_kib=0 refaulted_kib=0 failed=0 "
                   "checks=%lu errors=%lu",
                   now_ns(), (unsigned)status, checks_total(), errors_total());
    fflush(stdout);
    if (present)
        outl((unsigned)status, PORT_EXIT);
    for (;;) /* whoever booted this without the device sees the console */
        pause();
}
