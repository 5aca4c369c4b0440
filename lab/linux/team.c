/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The memory workloads: a process per CPU, each pinned to its own, that does
 * what it is told by a byte through a pipe and answers by a byte. One that dies
 * (the kernel killed it for want of memory) answers by the end of its pipe.
 *
 * Each page carries a stamp in its first word, made of its address and of the
 * round in which it was taken; it is checked before the page is freed.
 */
#include "linux.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KEPT_MAX      64u /* calls of fragment before a release */
#define CYCLE_SHARE   64u /* of so many pages a cycle looks at one before it frees them */
#define IDLE_CHECKS   16u
#define IDLE_PERIOD   (20 * NS_PER_MS)
#define PAGEMAP_PAGES 512u
#define PAGEMAP_PFN   (((uint64_t)1 << 55) - 1)

enum order {
    TAKE = 't',    /* its share of order_pages: map and stamp */
    CHECK = 'c',   /* all of it */
    FREE = 'f',    /* check nothing, unmap */
    CYCLE = 'y',   /* take, look at some, free */
    THIN = 'n',    /* free all pages but those whose frame is a multiple of order_k */
    RELEASE = 'r', /* check and free what THIN left */
    LOOK = 'l',    /* at some of what THIN left */
    CORRUPT = 'x', /* lose a stamp of the next CHECK, for tests */
};

/* What an order is about, and its answers in numbers. Nobody writes while another reads. */
static struct orders {
    uint64_t pages, k;
    uint64_t kept; /* atomic: pages that THIN left */
} * orders;

static struct worker {
    int to, from;
} workers[CPUS_MAX];
static uint64_t kept_pages; /* of all workers */

/* ---- in a worker ---- */

struct area {
    char *base;
    uint64_t pages; /* mapped; after THIN some of them are not there */
    uint64_t k;     /* 0: all are there */
    uint64_t round;
    uint8_t *there; /* a bit per page, where some are not */
};

static struct area work, kept[KEPT_MAX];
static unsigned n_kept;
static bool corrupt_next;
static uint64_t rounds, random_state;

/* splitmix64 */
static uint64_t random_below(uint64_t below)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % below;
}

static uint64_t stamp(const struct area *area, uint64_t i)
{
    return ((uint64_t)area->base / PAGE + i) ^ area->round << 40;
}

static volatile uint64_t *word(const struct area *area, uint64_t i)
{
    return (volatile uint64_t *)(area->base + i * PAGE);
}

static bool is_there(const struct area *area, uint64_t i)
{
    return !area->there || (area->there[i / 8] >> (i % 8) & 1);
}

static bool take(struct area *area, uint64_t pages)
{
    void *base = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (base == MAP_FAILED)
        return false;
    *area = (struct area){.base = base, .pages = pages, .round = ++rounds};
    for (uint64_t i = 0; i < pages; i++)
        *word(area, i) = stamp(area, i);
    return true;
}

static void check_page(const struct area *area, uint64_t i)
{
    uint64_t found = *word(area, i);

    if (found != stamp(area, i))
        telemetry_fault((uint64_t)area->base / PAGE + i, stamp(area, i), found);
}

static void check_area(const struct area *area)
{
    uint64_t n = 0;

    if (corrupt_next && area->pages)
        *word(area, random_below(area->pages)) = 0;
    corrupt_next = false;
    for (uint64_t i = 0; i < area->pages; i++) {
        if (is_there(area, i)) {
            check_page(area, i);
            n++;
        }
    }
    count_checks(n);
}

static void look_at_some(const struct area *area, uint64_t n)
{
    uint64_t i, checks = 0;

    for (; area->pages > 0 && n > 0; n--) {
        i = random_below(area->pages);
        if (is_there(area, i)) {
            check_page(area, i);
            checks++;
        }
    }
    count_checks(checks);
}

static void drop(struct area *area)
{
    if (area->base)
        munmap(area->base, area->pages * PAGE);
    if (area->there)
        munmap(area->there, area->pages / 8 + 1);
    *area = (struct area){0};
}

/* Which pages stay: by their frame's number, as in the reference guest. */
static bool choose(struct area *area, uint64_t k)
{
    uint64_t frames[PAGEMAP_PAGES], first, n;
    int fd = open("/proc/self/pagemap", O_RDONLY);

    area->there =
        mmap(NULL, area->pages / 8 + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fd < 0 || area->there == MAP_FAILED)
        return false;
    for (first = 0; first < area->pages; first += n) {
        n = area->pages - first < PAGEMAP_PAGES ? area->pages - first : PAGEMAP_PAGES;
        if (pread(fd, frames, n * 8, (off_t)(((uint64_t)area->base / PAGE + first) * 8)) !=
            (ssize_t)(n * 8))
            return false;
        for (uint64_t i = 0; i < n; i++) {
            if ((frames[i] & PAGEMAP_PFN) % k == 0)
                area->there[(first + i) / 8] |= (uint8_t)(1u << (first + i) % 8);
        }
    }
    close(fd);
    return true;
}

static bool thin(struct area *area, uint64_t k)
{
    uint64_t stay = 0;

    if (!choose(area, k))
        return false;
    for (uint64_t i = 0, end; i < area->pages; i = end) {
        for (end = i; end < area->pages && !is_there(area, end); end++)
            ;
        if (end > i && madvise(area->base + i * PAGE, (end - i) * PAGE, MADV_DONTNEED) != 0)
            return false;
        for (; end < area->pages && is_there(area, end); end++)
            stay++;
    }
    __atomic_add_fetch(&orders->kept, stay, __ATOMIC_RELAXED);
    return true;
}

static uint64_t share(unsigned cpu)
{
    return orders->pages / cpus + (cpu < orders->pages % cpus);
}

static bool cycle(unsigned cpu)
{
    if (!take(&work, share(cpu)))
        return false;
    look_at_some(&work, work.pages / CYCLE_SHARE + 1);
    drop(&work);
    return true;
}

static bool keep(void)
{
    bool ok = n_kept < KEPT_MAX && thin(&work, orders->k);

    if (ok)
        kept[n_kept++] = work;
    else
        drop(&work);
    work = (struct area){0};
    return ok;
}

static void release_kept(void)
{
    while (n_kept > 0) {
        check_area(&kept[--n_kept]);
        drop(&kept[n_kept]);
    }
}

static bool obey(unsigned cpu, char order)
{
    switch (order) {
    case TAKE:
        return take(&work, share(cpu));
    case CHECK:
        check_area(&work);
        for (unsigned i = 0; i < n_kept; i++)
            check_area(&kept[i]);
        return true;
    case FREE:
        drop(&work);
        return true;
    case CYCLE:
        return cycle(cpu);
    case THIN:
        return keep();
    case RELEASE:
        release_kept();
        return true;
    case LOOK:
        for (unsigned i = 0; i < n_kept; i++)
            look_at_some(&kept[i], IDLE_CHECKS);
        return true;
    case CORRUPT:
        corrupt_next = cpu == 0;
        return true;
    default:
        return false;
    }
}

static _Noreturn void work_on(unsigned cpu, int orders_fd, int answers)
{
    char byte;

    pin(cpu);
    random_state = cpu + 1;
    while (read(orders_fd, &byte, 1) == 1) {
        byte = obey(cpu, byte);
        if (write(answers, &byte, 1) != 1)
            break;
    }
    _exit(0);
}

/* ---- in the main process ---- */

void team_start(void)
{
    orders = shared_alloc(sizeof(*orders));
    signal(SIGPIPE, SIG_IGN);
    for (unsigned i = 0; i < cpus; i++) {
        int to[2], from[2];

        if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0)
            leave(STATUS_PANIC);
        if (fork() == 0) {
            /* So that the end of one is seen: nobody else holds its pipes. */
            close(to[1]);
            close(from[0]);
            for (unsigned k = 0; k < i; k++) {
                close(workers[k].to);
                close(workers[k].from);
            }
            work_on(i, to[0], from[1]);
        }
        close(to[0]);
        close(from[1]);
        workers[i] = (struct worker){to[1], from[0]};
    }
}

/* All do it at once; false: one could not, or is no more. */
static bool all(enum order order)
{
    char byte = (char)order, answer;
    bool ok = true;

    for (unsigned i = 0; i < cpus; i++)
        ok = write(workers[i].to, &byte, 1) == 1 && ok;
    for (unsigned i = 0; i < cpus; i++)
        ok = read(workers[i].from, &answer, 1) == 1 && answer && ok;
    return ok;
}

static enum status result(const char *step, bool ok)
{
    if (errors_total()) {
        printf("%s: %lu pages in use were lost\n", step, errors_total());
        return STATUS_VERIFY;
    }
    if (ok)
        return STATUS_OK;
    printf("%s: memory ran short\n", step);
    return STATUS_USAGE;
}

static bool memhog_once(uint64_t pages)
{
    uint64_t begin = now_ns(), taken, checked;

    if (!all(TAKE))
        return false;
    telemetry_hold(pages);
    taken = now_ns();
    if (!all(CHECK))
        return false;
    checked = now_ns();
    if (errors_total())
        return true;
    if (!all(FREE))
        return false;
    telemetry_release(pages);
    printf("memhog: %lu MiB taken in %lu ms, checked in %lu ms, freed in %lu ms\n",
           pages * PAGE_KIB / 1024, (taken - begin) / NS_PER_MS, (checked - taken) / NS_PER_MS,
           (now_ns() - checked) / NS_PER_MS);
    return true;
}

enum status team_memhog(uint64_t pages, uint64_t times)
{
    bool ok = true;

    orders->pages = pages;
    for (; ok && times > 0 && !errors_total(); times--) {
        if (!fits("memhog", pages))
            return STATUS_USAGE;
        ok = memhog_once(pages);
    }
    return result("memhog", ok);
}

static void tell_cycles(uint64_t n, uint64_t pages, uint64_t busy, uint64_t pause_ms,
                        uint64_t elapsed)
{
    telemetry_line("result ns=%lu step=cycle cycles=%lu frames=%lu busy_ns=%lu pause_ms=%lu "
                   "elapsed_ns=%lu",
                   now_ns(), n, pages, busy, pause_ms, elapsed);
    printf("cycle: %lu cycles in %lu ms, busy %lu ms: %lu frames a second\n", n,
           elapsed / NS_PER_MS, busy / NS_PER_MS, pages * 1000 / (busy / NS_PER_MS + 1));
}

/* Once; the first time with a check of every page between, which is no part of the work. */
static bool cycle_once(uint64_t pages, bool first, uint64_t *busy)
{
    uint64_t begin = now_ns(), pause = 0;
    bool ok;

    if (first) {
        ok = all(TAKE);
        pause = now_ns();
        telemetry_hold(pages);
        ok = ok && all(CHECK);
        pause = now_ns() - pause;
        ok = ok && all(FREE);
    } else {
        ok = all(CYCLE);
    }
    *busy += now_ns() - begin - pause;
    return ok;
}

enum status team_cycle(uint64_t pages, uint64_t pause_ms, uint64_t ms)
{
    uint64_t begin, resume, deadline, busy = 0, n = 0;
    bool ok, last;

    if (!fits("cycle", pages))
        return STATUS_USAGE;
    orders->pages = pages;
    begin = now_ns();
    deadline = begin + ms * NS_PER_MS;
    do {
        ok = cycle_once(pages, n == 0, &busy);
        n++;
        resume = now_ns() + pause_ms * NS_PER_MS;
        last = !ok || errors_total() || resume >= deadline;
        if (last)
            telemetry_release(pages);
        if (pause_ms && ok)
            sleep_until(resume); /* the last pause, too, is a whole one */
    } while (!last);
    if (ok && !errors_total())
        tell_cycles(n, n * pages, busy, pause_ms, now_ns() - begin);
    return result("cycle", ok);
}

enum status team_fragment(uint64_t pages, uint64_t k)
{
    uint64_t left;

    if (!fits("fragment", pages))
        return STATUS_USAGE;
    orders->pages = pages;
    orders->k = k;
    orders->kept = 0;
    if (!all(TAKE))
        return result("fragment", false);
    telemetry_hold(pages);
    if (!all(CHECK) || errors_total() || !all(THIN))
        return result("fragment", false);
    left = orders->kept;
    kept_pages += left;
    telemetry_release(pages - left);
    printf("fragment: %lu MiB freed, %lu MiB stay, one frame in %lu\n",
           (pages - left) * PAGE_KIB / 1024, left * PAGE_KIB / 1024, k);
    return result("fragment", true);
}

enum status team_release(void)
{
    bool ok;

    if (kept_pages == 0)
        return STATUS_OK;
    ok = all(RELEASE);
    telemetry_release(kept_pages);
    if (ok)
        printf("release: %lu MiB checked and freed\n", kept_pages * PAGE_KIB / 1024);
    kept_pages = 0;
    return result("release", ok);
}

enum status team_idle(uint64_t ms)
{
    uint64_t deadline = now_ns() + ms * NS_PER_MS;
    bool ok = true;

    while (ok && kept_pages && !errors_total() && now_ns() + IDLE_PERIOD < deadline) {
        sleep_until(now_ns() + IDLE_PERIOD);
        ok = all(LOOK);
    }
    sleep_until(deadline);
    return result("idle", ok);
}

enum status team_verify(void)
{
    return result("verify", all(CHECK));
}

enum status team_corrupt(void)
{
    return result("corrupt", all(CORRUPT));
}
