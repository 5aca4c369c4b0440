/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * page_fault1 and page_fault2, as will-it-scale does them: tasks pinned to CPUs
 * map 128 MiB, write one byte to each page and unmap it, for ever, each counting
 * pages in a cache line of its own; somebody else reads the counters at the
 * beginning and the end of the time and kills the tasks. The time begins when
 * every task has been through its mapping once.
 */
#include "linux.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAPPING    ((size_t)128 << 20)
#define HUGE       ((size_t)2 << 20)
#define POLL       (10 * NS_PER_MS)
#define WARM_LIMIT (600 * NS_PER_SEC)
#define CLEARS     4096u

struct counter {
    volatile unsigned long long n;
    char pad[128 - sizeof(unsigned long long)];
};

static struct counter *counters; /* shared */
static const struct faults *plan;
static int file = -1;

/* ---- a task ---- */

static char *map(size_t size)
{
    int flags = plan->file ? MAP_PRIVATE : MAP_PRIVATE | MAP_ANONYMOUS;
    char *base = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, file, 0);

    if (base == MAP_FAILED)
        _exit(1);
    if (plan->thp)
        madvise(base, size, MADV_HUGEPAGE);
    else if (thp_for_all)
        madvise(base, size, MADV_NOHUGEPAGE);
    return base;
}

/* With huge pages the 128 MiB begin where one does, which older kernels do not see to. */
static _Noreturn void fault_for_ever(unsigned task)
{
    volatile unsigned long long *n = &counters[task].n;
    size_t size = plan->thp ? MAPPING + HUGE : MAPPING;

    pin(task % cpus);
    for (;;) {
        char *base = map(size);
        char *c = plan->thp ? base + (-(uintptr_t)base & (HUGE - 1)) : base;

        for (size_t i = 0; i < MAPPING; i += PAGE) {
            *(volatile char *)(c + i) = 0;
            (*n)++;
        }
        munmap(base, size);
    }
}

static void *thread_main(void *arg)
{
    fault_for_ever((unsigned)(uintptr_t)arg);
}

static _Noreturn void run_threads(void)
{
    pthread_t thread;

    for (unsigned i = 0; i < plan->tasks; i++) {
        if (pthread_create(&thread, NULL, thread_main, (void *)(uintptr_t)i) != 0)
            _exit(1);
    }
    for (;;)
        pause();
}

/* ---- what the kernel counts ---- */

struct reading {
    uint64_t ns, pages, faults, idle_ns;
};

static size_t read_text(const char *path, char *text, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t len = 0;
    ssize_t n;

    while (fd >= 0 && len + 1 < room && (n = read(fd, text + len, room - 1 - len)) > 0)
        len += (size_t)n;
    if (fd >= 0)
        close(fd);
    text[len] = 0;
    return len;
}

/* Idle and waiting for I/O, of all CPUs, in 1/100 s: "cpu  user nice system idle iowait ..." */
uint64_t cpu_idle_ns(void)
{
    char text[512];
    unsigned long long idle = 0, wait = 0;

    read_text("/proc/stat", text, sizeof(text));
    sscanf(text, "cpu %*u %*u %*u %llu %llu", &idle, &wait);
    return (idle + wait) * (NS_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK));
}

static uint64_t faults_so_far(void)
{
    static char text[16384];
    const char *at;

    read_text("/proc/vmstat", text, sizeof(text));
    at = strstr(text, "\npgfault ");
    return at ? strtoull(at + 9, NULL, 10) : 0;
}

static void read_pages(struct reading *reading)
{
    reading->pages = 0;
    for (unsigned i = 0; i < plan->tasks; i++)
        reading->pages += counters[i].n;
    reading->ns = now_ns();
}

/* Whoever reads may have to wait for a CPU in between, and the tasks go on meanwhile. So the
 * faults are read first in the beginning and last in the end: they are those of all the pages
 * that are counted, but for one in each task that was between its fault and its count, and at
 * times of some more. */
static struct reading read_begin(void)
{
    struct reading now = {.faults = faults_so_far(), .idle_ns = cpu_idle_ns()};

    read_pages(&now);
    return now;
}

static struct reading read_end(void)
{
    struct reading now = {.idle_ns = cpu_idle_ns()};

    read_pages(&now);
    now.faults = faults_so_far();
    return now;
}

/* ---- how long the kernel clears what a fault takes ---- */

static bool has_flag(const char *flag)
{
    static char text[8192];

    read_text("/proc/cpuinfo", text, sizeof(text));
    return strstr(text, flag) != NULL;
}

/* clear_page() of the kernel picks one of these by the CPU's flags. */
static void clear_rep_bytes(void *page)
{
    uint64_t n = PAGE;

    __asm__ volatile("rep stosb" : "+D"(page), "+c"(n) : "a"(0) : "memory");
}

static void clear_rep_words(void *page)
{
    uint64_t n = PAGE / 8;

    __asm__ volatile("rep stosq" : "+D"(page), "+c"(n) : "a"(0ul) : "memory");
}

static void clear_in_lines(void *page)
{
    uint64_t n = PAGE / 64;

    __asm__ volatile("1: decl %%ecx\n\t"
                     "movq %%rax, (%%rdi)\n\t"
                     "movq %%rax, 8(%%rdi)\n\t"
                     "movq %%rax, 16(%%rdi)\n\t"
                     "movq %%rax, 24(%%rdi)\n\t"
                     "movq %%rax, 32(%%rdi)\n\t"
                     "movq %%rax, 40(%%rdi)\n\t"
                     "movq %%rax, 48(%%rdi)\n\t"
                     "movq %%rax, 56(%%rdi)\n\t"
                     "leaq 64(%%rdi), %%rdi\n\t"
                     "jnz 1b"
                     : "+D"(page), "+c"(n)
                     : "a"(0ul)
                     : "memory", "cc");
}

/* For one page; what one call costs besides is in it. */
static uint64_t clear_ns(void)
{
    static char pages[16][PAGE] __attribute__((aligned(PAGE)));
    void (*clear)(void *) = has_flag(" erms")       ? clear_rep_bytes
                            : has_flag(" rep_good") ? clear_rep_words
                                                    : clear_in_lines;
    uint64_t begin;

    for (unsigned i = 0; i < 16; i++)
        clear(pages[i]);
    begin = now_ns();
    for (unsigned i = 0; i < CLEARS; i++)
        clear(pages[i % 16]);
    return (now_ns() - begin) / CLEARS;
}

/* ---- the step ---- */

/* Its pages are in the page cache before anybody maps it, and stay there. */
static bool make_file(void)
{
    static const char zeroes[1 << 16];

    file = memfd_create("page_fault2", MFD_CLOEXEC);
    if (file < 0)
        return false;
    for (size_t done = 0; done < MAPPING; done += sizeof(zeroes)) {
        if (write(file, zeroes, sizeof(zeroes)) != (ssize_t)sizeof(zeroes))
            return false;
    }
    return true;
}

static void start(pid_t *pids, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        pids[i] = fork();
        if (pids[i] != 0)
            continue;
        if (plan->threads)
            run_threads();
        else
            fault_for_ever(i);
    }
}

static bool alive(const pid_t *pids, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (pids[i] <= 0 || waitpid(pids[i], NULL, WNOHANG) != 0)
            return false;
    }
    return true;
}

static bool is_warm(void)
{
    for (unsigned i = 0; i < plan->tasks; i++) {
        if (counters[i].n < MAPPING / PAGE)
            return false;
    }
    return true;
}

static void stop(const pid_t *pids, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (pids[i] > 0)
            kill(pids[i], SIGKILL);
    }
    for (unsigned i = 0; i < n; i++) {
        if (pids[i] > 0)
            waitpid(pids[i], NULL, 0);
    }
}

/* will-it-scale's table; what this run did not measure is 0, or 100 % idle. */
static void print_table(const struct reading *a, const struct reading *b)
{
    static uint64_t alone[2]; /* of one task: what linear scaling starts from */
    uint64_t rate = (b->pages - a->pages) * 1000 / ((b->ns - a->ns) / NS_PER_MS + 1);
    double idle = 100.0 * (double)(b->idle_ns - a->idle_ns) / (double)((b->ns - a->ns) * cpus);

    if (plan->tasks == 1)
        alone[plan->threads] = rate;
    printf("tasks,processes,processes_idle,threads,threads_idle,linear\n0,0,100,0,100,0\n");
    if (plan->threads)
        printf("%u,0,100.00,%lu,%.2f,%lu\n", plan->tasks, rate, idle, alone[true] * plan->tasks);
    else
        printf("%u,%lu,%.2f,0,100.00,%lu\n", plan->tasks, rate, idle, alone[false] * plan->tasks);
}

static void tell(const struct reading *a, const struct reading *b)
{
    uint64_t elapsed = b->ns - a->ns, idle = b->idle_ns - a->idle_ns, all = elapsed * cpus;
    uint64_t busy = all > idle ? all - idle : 0;

    if (plan->file)
        telemetry_line("result ns=%lu step=page_fault2 tasks=%u faults=%lu pages=%lu busy_ns=%lu "
                       "idle_ns=%lu elapsed_ns=%lu",
                       b->ns, plan->tasks, b->faults - a->faults, b->pages - a->pages, busy, idle,
                       elapsed);
    else
        telemetry_line("result ns=%lu step=page_fault1 mode=%s tasks=%u thp=%u faults=%lu "
                       "pages=%lu busy_ns=%lu idle_ns=%lu elapsed_ns=%lu clear_ns=%lu",
                       b->ns, plan->threads ? "threads" : "procs", plan->tasks, plan->thp,
                       b->faults - a->faults, b->pages - a->pages, busy, idle, elapsed,
                       clear_ns() * (plan->thp ? HUGE / PAGE : 1));
    print_table(a, b);
}

static bool measure(const pid_t *pids, unsigned n)
{
    struct reading a, b;
    uint64_t limit = now_ns() + WARM_LIMIT;

    while (alive(pids, n) && !is_warm() && now_ns() < limit)
        sleep_until(now_ns() + POLL);
    a = read_begin();
    sleep_until(a.ns + plan->ms * NS_PER_MS);
    b = read_end();
    if (!alive(pids, n) || !is_warm())
        return false;
    stop(pids, n);
    tell(&a, &b);
    return true;
}

enum status faults_run(const struct faults *what)
{
    const char *name = what->file ? "page_fault2" : "page_fault1";
    unsigned n = what->threads ? 1 : what->tasks;
    pid_t pids[CPUS_MAX * 4] = {0};
    bool ok;

    plan = what;
    if (!fits(name, (what->tasks + (what->file ? 1 : 0)) * (MAPPING / PAGE)))
        return STATUS_USAGE;
    counters = shared_alloc(what->tasks * sizeof(*counters));
    ok = !what->file || make_file();
    if (ok) {
        start(pids, n);
        ok = measure(pids, n);
        stop(pids, n);
    }
    munmap(counters, what->tasks * sizeof(*counters));
    if (file >= 0)
        close(file);
    file = -1;
    if (!ok)
        printf("%s: a task died; memory ran short?\n", name);
    return ok ? STATUS_OK : STATUS_USAGE;
}
