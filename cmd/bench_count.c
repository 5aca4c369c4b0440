/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Instructions, counted. Where the machine has a counter for them (perf_event_open),
 * that is asked. Elsewhere a child is single-stepped between two marks: as slow as it is
 * exact. A mark is a SIGSTOP that the child sends to itself; what it costs by
 * itself is counted first, between two marks with nothing in between, and subtracted.
 */
#include "bench.h"
#include "child.h"
#include "cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A step takes up to 20 us. Where interrupted loads and stores are tried again for
 * ever (LL/SC), a stretch never ends. */
#define STEPS_MAX ((uint64_t)4000000)

#define STRETCHES 64u

/* A stretch between two marks, told by the child. */
struct stretch {
    uint32_t path;
    uint32_t operations;
    uint64_t instructions;
};

/* Shared with the child. The first stretch is empty. */
struct board {
    uint32_t n;
    struct stretch stretches[STRETCHES];
};

struct counter {
    struct bench_meter meter;
    struct board *board;
    int perf; /* -1: marks for the stepper */
};

static int open_perf(void)
{
    struct perf_event_attr attr = {
        .type = PERF_TYPE_HARDWARE,
        .size = sizeof(attr),
        .config = PERF_COUNT_HW_INSTRUCTIONS,
        .disabled = 1,
        .exclude_kernel = 1,
        .exclude_hv = 1,
    };

    return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

/* ---- in the child ---- */

static void count_begin(struct bench_meter *meter)
{
    const struct counter *counter = (const struct counter *)meter;

    if (counter->perf < 0) {
        raise(SIGSTOP);
        return;
    }
    (void)ioctl(counter->perf, PERF_EVENT_IOC_RESET, 0);
    (void)ioctl(counter->perf, PERF_EVENT_IOC_ENABLE, 0);
}

static void count_end(struct bench_meter *meter, enum bench_path path, unsigned operations)
{
    struct counter *counter = (struct counter *)meter;
    struct stretch *stretch;

    if (counter->perf < 0)
        raise(SIGSTOP);
    else
        (void)ioctl(counter->perf, PERF_EVENT_IOC_DISABLE, 0);
    if (counter->board->n == STRETCHES)
        _exit(1);
    stretch = &counter->board->stretches[counter->board->n++];
    stretch->path = path;
    stretch->operations = operations;
    if (counter->perf >= 0 &&
        read(counter->perf, &stretch->instructions, sizeof(stretch->instructions)) !=
            (ssize_t)sizeof(stretch->instructions))
        _exit(1);
}

static _Noreturn void be_counted(const struct bench_subject *subject, enum bench_mode mode,
                                 const struct bench_scale *scales, unsigned n_scales,
                                 struct board *board, bool perf)
{
    struct counter counter = {{count_begin, count_end}, board, perf ? open_perf() : -1};

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a stopped process would stay for good */
    if (perf ? counter.perf < 0 : ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(1);
    /* The first use of anything binds its symbols. */
    for (unsigned i = 0; i < 2; i++) {
        board->n = 0;
        counter.meter.begin(&counter.meter);
        counter.meter.end(&counter.meter, BENCH_PATHS, 0);
    }
    for (unsigned i = 0; i < n_scales; i++) {
        if (!bench_paths_run(subject, mode, true, &scales[i], &counter.meter))
            _exit(1);
    }
    _exit(0);
}

/* ---- in the parent ---- */

/* Let it run to its next mark. False: it has ended, *status says how. */
static bool to_mark(pid_t pid, int *status)
{
    return waitpid(pid, status, 0) == pid && WIFSTOPPED(*status) && WSTOPSIG(*status) == SIGSTOP;
}

/* Step it to its next mark; 0: it has ended or never gets there. */
static uint64_t step_to_mark(pid_t pid, int *status)
{
    for (uint64_t steps = 1; steps <= STEPS_MAX; steps++) {
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0 || waitpid(pid, status, 0) != pid ||
            !WIFSTOPPED(*status))
            return 0;
        if (WSTOPSIG(*status) == SIGSTOP)
            return steps;
        if (WSTOPSIG(*status) != SIGTRAP)
            return 0;
    }
    return 0;
}

static const char *step_all(pid_t pid, uint64_t *counts, unsigned *n)
{
    int status = 0;

    for (*n = 0; to_mark(pid, &status);) {
        if (*n == STRETCHES + 1)
            return "more stretches than expected";
        counts[*n] = step_to_mark(pid, &status);
        if (counts[(*n)++] == 0)
            return "single-stepping did not get to the end";
        if (ptrace(PTRACE_CONT, pid, NULL, NULL) != 0)
            return "ptrace does not work here";
    }
    if (!WIFEXITED(status))
        return "the process that was stepped came to a bad end";
    return WEXITSTATUS(status) == 0 ? NULL : "ptrace does not work here";
}

static const char *wait_for(pid_t pid)
{
    int status;

    if (waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return NULL;
    return "the process that counted came to a bad end";
}

/* Each step goes to the child and back: much faster on one CPU. */
static void one_cpu(cpu_set_t *before)
{
    cpu_set_t one;
    int cpu = sched_getcpu();

    CPU_ZERO(before);
    if (cpu < 0 || sched_getaffinity(0, sizeof(*before), before) != 0)
        return;
    CPU_ZERO(&one);
    CPU_SET((unsigned)cpu, &one);
    (void)sched_setaffinity(0, sizeof(one), &one);
}

static const char *collect(const struct bench_subject *subject, enum bench_mode mode,
                           const struct bench_scale *scales, unsigned n_scales, bool perf,
                           struct board *board)
{
    uint64_t counts[STRETCHES + 2];
    const char *problem;
    cpu_set_t before;
    unsigned n = 0;
    pid_t pid;

    fflush(NULL);
    one_cpu(&before);
    pid = fork();
    if (pid == 0)
        be_counted(subject, mode, scales, n_scales, board, perf);
    if (pid < 0)
        problem = "no process for it";
    else if (perf)
        problem = wait_for(pid);
    else
        problem = step_all(pid, counts, &n);
    if (problem && pid > 0 && !perf) {
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    if (CPU_COUNT(&before) > 0)
        (void)sched_setaffinity(0, sizeof(before), &before);
    if (problem)
        return problem;
    /* The very first stretch was a rehearsal. */
    if (!perf && n != board->n + 1)
        return "stretches were lost";
    for (unsigned i = 0; !perf && i < board->n; i++)
        board->stretches[i].instructions = counts[i + 1];
    return NULL;
}

static struct board *new_board(void)
{
    struct board *board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (board == MAP_FAILED)
        cmd_no_memory();
    return board;
}

static bool is_perf(const struct bench_counting *counting)
{
    return counting->method && strcmp(counting->method, "perf_event_open") == 0;
}

static void give_up(struct bench_counting *counting, const char *why)
{
    counting->method = NULL;
    snprintf(counting->why, sizeof(counting->why), "%s", why);
}

static uint64_t net(const struct board *board, unsigned i)
{
    return board->stretches[i].instructions - board->stretches[0].instructions;
}

static void check(const struct bench_subject *subject, unsigned operations,
                  struct bench_counting *counting)
{
    struct bench_scale scales[3] = {
        {.pairs0 = operations}, {.pairs0 = operations}, {.pairs0 = operations * 2}};
    struct board *board = new_board();
    const char *problem = collect(subject, BENCH_IDLE, scales, 3, is_perf(counting), board);

    if (!problem && board->n != 4)
        problem = "stretches were lost";
    if (problem) {
        give_up(counting, problem);
    } else {
        double once = (double)net(board, 1), twice = (double)net(board, 3);

        counting->checked = true;
        counting->deterministic = net(board, 1) == net(board, 2);
        counting->linear = fabs(twice - 2 * once) <= 0.01 * twice;
    }
    munmap(board, sizeof(*board));
}

void bench_count_check(const struct bench_subject *subject, unsigned operations,
                       struct bench_counting *counting)
{
    int perf = open_perf();

    *counting = (struct bench_counting){.method = "perf_event_open"};
    if (perf >= 0) {
        close(perf);
        check(subject, operations, counting);
        if (counting->method)
            return;
    }
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    give_up(counting, "this is a sanitizer's build");
#elif defined(__x86_64__) || defined(__aarch64__)
    *counting = (struct bench_counting){.method = "ptrace, single steps"};
    check(subject, operations, counting);
#else
    give_up(counting,
            "no hardware counter, and single-stepping is done on x86-64 and aarch64 only");
#endif
}

void bench_count(const struct bench_subject *subject, enum bench_mode mode,
                 const struct bench_scale *scale, struct bench_counting *counting,
                 double instructions[BENCH_PATHS])
{
    double totals[BENCH_PATHS] = {0}, operations[BENCH_PATHS] = {0};
    struct board *board;
    const char *problem;

    for (unsigned i = 0; i < BENCH_PATHS; i++)
        instructions[i] = (double)NAN;
    if (!counting->method)
        return;
    board = new_board();
    problem = collect(subject, mode, scale, 1, is_perf(counting), board);
    if (problem)
        cmd_error("instructions of %s, %s: %s", subject->name, bench_mode_names[mode], problem);
    for (unsigned i = 1; !problem && i < board->n; i++) {
        const struct stretch *stretch = &board->stretches[i];

        totals[stretch->path] += (double)net(board, i);
        operations[stretch->path] += stretch->operations;
    }
    for (unsigned i = 0; i < BENCH_PATHS; i++) {
        if (operations[i] > 0)
            instructions[i] = totals[i] / operations[i];
    }
    munmap(board, sizeof(*board));
}

/* ---- passes ---- */

/* The program stops itself around what is to be counted. */
static const char *step_program(char *const *argv, int out, uint64_t *instructions)
{
    const struct child_config config = {.argv = argv, .in = -1, .out = out, .err = STDERR_FILENO};
    uint64_t counts[STRETCHES + 2];
    const char *problem;
    cpu_set_t before;
    unsigned n = 0;
    pid_t pid;

    one_cpu(&before);
    pid = child_start(&config);
    problem = pid > 0 ? step_all(pid, counts, &n) : "it does not start";
    if (problem && pid > 0) {
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    if (CPU_COUNT(&before) > 0)
        (void)sched_setaffinity(0, sizeof(before), &before);
    if (!problem && n != 3)
        problem = "stretches were lost";
    if (!problem)
        *instructions = counts[2] - counts[1];
    return problem;
}

double bench_count_pass(const char *program, const struct bench_subject *subject,
                        enum bench_shape shape, unsigned gib)
{
    char *size = cmd_format("%u", gib), text[64] = "";
    char *argv[] = {(char *)program,
                    (char *)"count",
                    size,
                    (char *)bench_shape_names[shape],
                    (char *)subject->settings[0],
                    NULL};
    int out = child_temporary(NULL);
    uint64_t instructions = 0, blocks = 0;
    const char *problem = out < 0 ? "no file" : step_program(argv, out, &instructions);

    if (!problem && (pread(out, text, sizeof(text) - 1, 0) <= 0 ||
                     sscanf(text, "{\"reported\": %" SCNu64, &blocks) != 1 || blocks == 0))
        problem = "it said nothing";
    if (problem)
        cmd_error("instructions of a pass, %s: %s", subject->name, problem);
    if (out >= 0)
        close(out);
    free(size);
    return problem ? (double)NAN : (double)instructions / (double)blocks;
}
