/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the allocator's fast paths cost, with reporting off and with an engine
 * registered but idle, as `make bench` prints it: the cases of one round run
 * one after the other, so that a ratio between two columns is of one run.
 */
#include <ebb_hosted.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define BYTES  ((uint64_t)1 << 30)
#define FRAMES (BYTES >> EBB_FRAME_SHIFT)
#define PAIRS  1000000u
#define ROUNDS 11u
#define CASES  3u

static const char *const case_names[CASES] = {
    "order 0: allocate and free",
    "order 0: free 1 GiB in random order, each",
    "order 9: allocate and free",
};

struct bench {
    struct ebb_hosted_memory memory;
    struct ebb_hosted_worker worker;
    struct ebb_hosted_device device;
    struct ebb_report report;
    bool reporting;
    double ns[CASES][ROUNDS];
};

static ebb_pfn_t pfns[FRAMES];

static void die(const char *what)
{
    fprintf(stderr, "bench_alloc: %s\n", what);
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static double pairs(struct ebb_zone *zone, unsigned order)
{
    uint64_t start = now();
    ebb_pfn_t pfn = 0;

    for (unsigned i = 0; i < PAIRS; i++) {
        if (ebb_alloc(zone, order, EBB_MOVABLE, 0, &pfn) || ebb_free(zone, pfn, order))
            die("an allocation failed");
    }
    return (double)(now() - start) / PAIRS;
}

static double random_frees(struct ebb_zone *zone, uint64_t seed)
{
    uint64_t n = 0, start;

    while (n < FRAMES && ebb_alloc(zone, 0, EBB_MOVABLE, 0, &pfns[n]) == 0)
        n++;
    for (uint64_t i = n - 1; i > 0; i--) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t j = (seed >> 33) % (i + 1);
        ebb_pfn_t swap = pfns[i];

        pfns[i] = pfns[j];
        pfns[j] = swap;
    }
    start = now();
    for (uint64_t i = 0; i < n; i++) {
        if (ebb_free(zone, pfns[i], 0))
            die("a free was refused");
    }
    return (double)(now() - start) / (double)n;
}

/* Reporting at work is not what is measured here. */
static void settle(struct bench *bench)
{
    while (bench->reporting && ebb_report_phase(&bench->report) != EBB_REPORT_IDLE)
        (void)usleep(10000);
}

static void set_up(struct bench *bench, bool reporting)
{
    const struct ebb_report_config config = {.worker = &bench->worker};

    bench->reporting = reporting;
    if (ebb_hosted_memory_create(&bench->memory, BYTES, NULL))
        die("no memory for a zone of 1 GiB");
    if (!reporting)
        return;
    if (ebb_report_init(&bench->report, &config) ||
        ebb_report_add_zone(&bench->report, &bench->memory.zone) ||
        ebb_hosted_worker_start(&bench->worker, &bench->report) ||
        ebb_hosted_device_create(&bench->device, &bench->memory, &bench->report, 0) ||
        ebb_report_register(&bench->report, &bench->device.device))
        die("the engine does not start");
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void print_row(unsigned i, struct bench *off, struct bench *on)
{
    qsort(off->ns[i], ROUNDS, sizeof(double), by_value);
    qsort(on->ns[i], ROUNDS, sizeof(double), by_value);
    double a = off->ns[i][ROUNDS / 2], b = on->ns[i][ROUNDS / 2];

    printf("%-44s %7.1f (%.1f-%.1f) %7.1f (%.1f-%.1f) %6.3f\n", case_names[i], a, off->ns[i][0],
           off->ns[i][ROUNDS - 1], b, on->ns[i][0], on->ns[i][ROUNDS - 1], b / a);
}

int main(void)
{
    static struct bench off, on;
    struct utsname machine;

    set_up(&off, false);
    set_up(&on, true);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < 2; i++) {
            struct bench *bench = i == 0 ? &off : &on;
            struct ebb_zone *zone = &bench->memory.zone;

            settle(bench);
            bench->ns[0][round] = pairs(zone, 0);
            bench->ns[1][round] = random_frees(zone, round);
            settle(bench);
            bench->ns[2][round] = pairs(zone, 9);
        }
    }
    (void)uname(&machine);
    printf("ebb %s on %s %s, %ld CPUs; 1 GiB zone, one thread, median of %u rounds (range), ns\n",
           EBB_VERSION, machine.sysname, machine.machine, sysconf(_SC_NPROCESSORS_ONLN), ROUNDS);
    printf("%-44s %-21s %-21s %s\n", "", "reporting off", "reporting on", "on/off");
    for (unsigned i = 0; i < CASES; i++)
        print_row(i, &off, &on);
    return 0;
}
