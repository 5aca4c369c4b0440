/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Workloads that page faults are the work of, after will-it-scale's page_fault1 and page_fault2:
 * tasks that map 128 MiB, write to each page of it, and unmap it, again and again. A task belongs
 * to a CPU; those that share one take turns, map by map.
 *
 * Each page gets a stamp of its task, its round and its place. In a task's first round, before the
 * time that is measured, all stamps are looked at again before the unmapping, in later ones a
 * sample; of these pages what they held before is looked at as well.
 */
#include "step.h"
#include "vm.h"

#define MAP_SIZE    ((uint64_t)128 << 20)
#define MAP_PAGES   (MAP_SIZE >> EBB_FRAME_SHIFT)
#define PAGE_WORDS  (EBB_FRAME_SIZE / 8)
#define STRIDE      512u /* pages between two looks at the clock */
#define SAMPLE      32u  /* of so many pages one is checked */
#define TABLE_TASKS FAULTS_TASKS

enum mode { PROCS, THREADS, MODES };

struct task {
    struct vm_space *space; /* its own, or everybody's */
    uint32_t rounds;
};

/* A step under way. */
struct faults {
    struct step step;
    struct task tasks[TABLE_TASKS];
    unsigned count;
    bool large;
    const struct vm_file *file; /* page_fault2 */
    uint64_t pages;             /* atomic: touched */
};

/* ---- stamps ---- */

static uint64_t stamp_of(unsigned task, uint32_t round, uint64_t page)
{
    return (uint64_t)(task + 1) << 56 | (uint64_t)(round & 0xffffffu) << 32 | page;
}

static volatile uint64_t *page_at(uint8_t *map, uint64_t page)
{
    return (volatile uint64_t *)(void *)(map + (page << EBB_FRAME_SHIFT));
}

/* Where memory ran short pages are not what they should be. */
static void compare(const volatile uint64_t *word, uint64_t expect)
{
    uint64_t found = *word;

    if (EBB_UNLIKELY(found != expect) && !vm_error())
        hold_fault(vm_pfn((const void *)(uintptr_t)word), expect, found);
}

/* What a page is before anybody writes to it: zero, or the file's. Looking is its page fault. */
static void check_fresh(const struct faults *faults, volatile uint64_t *page, uint64_t number,
                        bool all)
{
    uint64_t expect = faults->file ? vm_file_stamp(number) : 0;

    compare(&page[0], expect);
    compare(&page[PAGE_WORDS - 1], expect);
    for (unsigned i = 1; all && i < PAGE_WORDS - 1 && !faults->file; i++)
        compare(&page[i], 0);
}

/* ---- a round ---- */

struct round {
    struct faults *faults;
    unsigned cpu, task;
    uint32_t number;
    unsigned phase; /* page of each SAMPLE that is looked at before it is written to */
    bool first;
    uint8_t *map;
    uint64_t touched; /* pages, from the start of the map */
};

static bool over(const struct round *r)
{
    return step_error(&r->faults->step) || arch_now() >= r->faults->step.deadline;
}

static void touch_some(struct round *r, uint64_t end)
{
    while (r->touched < end) {
        uint64_t next = r->touched + SAMPLE;
        uint64_t sample = r->touched + r->phase;

        check_fresh(r->faults, page_at(r->map, sample), sample, r->first);
        for (; r->touched < next; r->touched++)
            *page_at(r->map, r->touched) = stamp_of(r->task, r->number, r->touched);
    }
}

static void touch(struct round *r)
{
    struct step *step = &r->faults->step;

    while (r->touched < MAP_PAGES && !over(r)) {
        int err;

        touch_some(r, r->touched + STRIDE);
        err = vm_error();
        if (EBB_UNLIKELY(err))
            step_fail(step, err);
        if (step_note_due(step, r->cpu))
            console_print("%s: %lu thousand pages touched\n", step->name,
                          __atomic_load_n(&r->faults->pages, __ATOMIC_RELAXED) / 1000);
    }
}

/* Of the first task's first round, since the script asked for it. */
static void corrupt(const struct round *r)
{
    if (r->task == 0 && r->first && r->touched && step_corrupt_asked())
        *page_at(r->map, hold_random(r->cpu, r->touched)) = 0;
}

static void check(const struct round *r)
{
    uint64_t stride = r->first ? 1 : SAMPLE;
    uint64_t page;

    for (page = r->first ? 0 : r->phase; page < r->touched; page += stride) {
        volatile uint64_t *words = page_at(r->map, page);

        compare(&words[0], stamp_of(r->task, r->number, page));
        if (r->faults->file)
            compare(&words[PAGE_WORDS - 1], vm_file_stamp(page));
    }
    hold_count_checks(r->cpu, r->touched / stride + r->touched / SAMPLE);
}

static void run_round(struct faults *faults, unsigned cpu, unsigned number)
{
    struct task *task = &faults->tasks[number];
    struct round r = {
        .faults = faults,
        .cpu = cpu,
        .task = number,
        .number = ++task->rounds,
        .phase = (unsigned)hold_random(cpu, SAMPLE),
        .first = task->rounds == 1,
    };
    int err = vm_map(task->space, MAP_SIZE, faults->large, faults->file, &r.map);

    if (err != 0) {
        step_fail(&faults->step, err);
        return;
    }
    touch(&r);
    if (!step_error(&faults->step)) {
        corrupt(&r);
        check(&r);
    }
    vm_unmap(task->space, r.map);
    __atomic_add_fetch(&faults->pages, r.touched, __ATOMIC_RELAXED);
}

/* Each task once, so that what is measured begins with memory that the host has backed. */
static void warm_job(unsigned cpu, void *arg)
{
    struct faults *faults = arg;

    for (unsigned task = cpu; task < faults->count; task += cpus_online()) {
        vm_enter(faults->tasks[task].space);
        run_round(faults, cpu, task);
    }
    vm_leave();
}

static void faults_job(unsigned cpu, void *arg)
{
    struct faults *faults = arg;
    unsigned task = cpu;

    while (task < faults->count && !step_error(&faults->step) &&
           arch_now() < faults->step.deadline) {
        vm_enter(faults->tasks[task].space);
        run_round(faults, cpu, task);
        task += cpus_online();
        if (task >= faults->count)
            task = cpu;
    }
    vm_leave();
}

/* ---- a step ---- */

struct outcome {
    uint64_t elapsed, busy, idle; /* ns */
    uint64_t faults, pages;
};

static uint64_t idle_now(void)
{
    uint64_t sum = 0;

    for (unsigned cpu = 0; cpu < cpus_online(); cpu++)
        sum += arch_idle_ns(cpu);
    return sum;
}

static int make_spaces(struct faults *faults, bool shared)
{
    for (unsigned i = 0; i < faults->count; i++) {
        struct task *task = &faults->tasks[i];

        task->space = shared && i > 0 ? faults->tasks[0].space : vm_create();
        if (!task->space)
            return -EBB_ENOMEM;
    }
    return 0;
}

static void destroy_spaces(struct faults *faults, bool shared)
{
    for (unsigned i = 0; i < faults->count; i++)
        if (faults->tasks[i].space && (i == 0 || !shared))
            vm_destroy(faults->tasks[i].space);
}

static void measure(struct faults *faults, uint64_t ms, struct outcome *outcome)
{
    uint64_t begin, idle, taken;

    faults->step.deadline = EBB_NEVER;
    cpus_run(warm_job, faults);
    faults->pages = 0;
    begin = arch_now();
    idle = idle_now();
    taken = vm_faults();
    faults->step.deadline = begin + ms * NS_PER_MS;
    cpus_run(faults_job, faults);
    outcome->idle = idle_now() - idle;
    outcome->elapsed = arch_now() - begin;
    outcome->busy = outcome->elapsed * cpus_online();
    outcome->busy = outcome->busy > outcome->idle ? outcome->busy - outcome->idle : 0;
    outcome->faults = vm_faults() - taken;
    outcome->pages = faults->pages;
}

/* Maps that there are at once, their tables, and the space's own. */
static bool fits(const struct faults *faults)
{
    uint64_t at_once = faults->count < cpus_online() ? faults->count : cpus_online();
    uint64_t frames = at_once * MAP_PAGES + faults->count * 8;

    if (faults->file)
        frames += MAP_PAGES + VM_FILE_LEAVES;
    return step_fits(faults->step.name, frames, 2);
}

static enum status run(struct faults *faults, enum mode mode, uint64_t ms, struct outcome *outcome)
{
    int err = make_spaces(faults, mode == THREADS);

    if (err == 0)
        measure(faults, ms, outcome);
    else
        step_fail(&faults->step, err);
    destroy_spaces(faults, mode == THREADS);
    return step_finish(&faults->step);
}

/* ---- will-it-scale's table ---- */

struct row {
    uint64_t rate; /* pages a second; 0: not measured */
    unsigned idle; /* hundredths of a percent */
};

static struct table {
    const char *name;
    bool large;
    struct row rows[MODES][TABLE_TASKS + 1];
} table;

static void print_table(unsigned tasks)
{
    const struct row *procs = &table.rows[PROCS][tasks];
    const struct row *threads = &table.rows[THREADS][tasks];
    uint64_t one = table.rows[PROCS][1].rate;

    if (table.rows[THREADS][1].rate > one)
        one = table.rows[THREADS][1].rate;
    console_print("tasks,processes,processes_idle,threads,threads_idle,linear\n");
    console_print("0,0,100,0,100,0\n");
    console_print("%u,%lu,%u.%02u,%lu,%u.%02u,%lu\n", tasks, procs->rate, procs->idle / 100,
                  procs->idle % 100, threads->rate, threads->idle / 100, threads->idle % 100,
                  one * tasks);
}

/* The columns of one mode are filled by another step: what was measured is kept until a
 * different workload begins. */
static void show(const struct faults *faults, enum mode mode, const struct outcome *outcome)
{
    struct row *row = &table.rows[mode][faults->count];
    uint64_t all = outcome->busy + outcome->idle;

    if (table.name != faults->step.name || table.large != faults->large)
        table = (struct table){.name = faults->step.name, .large = faults->large};
    for (unsigned i = 0; i <= TABLE_TASKS; i++)
        for (unsigned m = 0; m < MODES; m++)
            if (table.rows[m][i].rate == 0)
                table.rows[m][i].idle = 10000;
    row->rate = outcome->pages * 1000 / (outcome->elapsed / NS_PER_MS + 1);
    row->idle = all ? (unsigned)(outcome->idle / (all / 10000 + 1)) : 0;
    print_table(faults->count);
}

/* ---- the steps ---- */

/* Nanoseconds to clear what one page fault brings, the second time; 0: there is no memory to try.
 */
static uint64_t clear_ns(bool large)
{
    uint64_t frames = large ? (uint64_t)1 << VM_LARGE_ORDER : 1;
    uint64_t blocks = ((uint64_t)1 << VM_LARGE_ORDER) / frames;
    uint64_t begin = 0;
    ebb_pfn_t pfn;

    if (memory_take(VM_LARGE_ORDER, EBB_MOVABLE, 0, &pfn) != 0)
        return 0;
    for (unsigned pass = 0; pass < 2; pass++) {
        begin = arch_now();
        for (uint64_t i = 0; i < blocks; i++)
            memory_clear(pfn + i * frames, frames);
    }
    begin = arch_now() - begin;
    memory_free(pfn, VM_LARGE_ORDER);
    return begin / blocks;
}

enum status faults_page_fault1(bool threads, unsigned tasks, uint64_t ms, bool large)
{
    static struct faults faults;
    enum mode mode = threads ? THREADS : PROCS;
    struct outcome outcome = {0};
    uint64_t clear;
    enum status status;

    faults = (struct faults){.step = {.name = "page_fault1"}, .count = tasks, .large = large};
    if (!fits(&faults))
        return STATUS_USAGE;
    clear = clear_ns(large);
    status = run(&faults, mode, ms, &outcome);
    if (status != STATUS_OK)
        return status;
    show(&faults, mode, &outcome);
    telemetry_line("result ns=%lu step=page_fault1 mode=%s tasks=%u thp=%u faults=%lu pages=%lu "
                   "busy_ns=%lu idle_ns=%lu elapsed_ns=%lu clear_ns=%lu",
                   arch_now(), threads ? "threads" : "procs", tasks, large ? 1 : 0, outcome.faults,
                   outcome.pages, outcome.busy, outcome.idle, outcome.elapsed, clear);
    return STATUS_OK;
}

enum status faults_page_fault2(unsigned tasks, uint64_t ms)
{
    static struct faults faults;
    static struct vm_file file;
    struct outcome outcome = {0};
    enum status status;
    int err;

    faults = (struct faults){.step = {.name = "page_fault2"}, .count = tasks, .file = &file};
    if (!fits(&faults))
        return STATUS_USAGE;
    err = vm_file_make(&file, MAP_PAGES);
    if (err != 0) {
        step_fail(&faults.step, err);
        return step_finish(&faults.step);
    }
    status = run(&faults, PROCS, ms, &outcome);
    vm_file_check(&file, 0);
    vm_file_free(&file);
    if (status == STATUS_OK && hold_errors())
        status = step_finish(&faults.step);
    if (status != STATUS_OK)
        return status;
    show(&faults, PROCS, &outcome);
    telemetry_line("result ns=%lu step=page_fault2 tasks=%u faults=%lu pages=%lu busy_ns=%lu "
                   "idle_ns=%lu elapsed_ns=%lu",
                   arch_now(), tasks, outcome.faults, outcome.pages, outcome.busy, outcome.idle,
                   outcome.elapsed);
    return STATUS_OK;
}

/* ---- of tests ---- */

/* All CPUs add to the same pages at once: each page must end with as many as there are CPUs, or
 * two of them had different frames for it. */
struct contest {
    struct step step;
    struct vm_space *space;
    uint8_t *map;
    uint64_t length;
};

static void contend_job(unsigned cpu, void *arg)
{
    struct contest *contest = arg;

    (void)cpu;
    vm_enter(contest->space);
    for (uint64_t at = 0; at < contest->length; at += EBB_FRAME_SIZE)
        __atomic_add_fetch((uint64_t *)(void *)(contest->map + at), 1, __ATOMIC_RELAXED);
    vm_leave();
}

static void contend_once(struct contest *contest, bool large)
{
    int err = vm_map(contest->space, contest->length, large, NULL, &contest->map);

    if (err != 0) {
        step_fail(&contest->step, err);
        return;
    }
    cpus_run(contend_job, contest);
    vm_enter(contest->space);
    if (vm_error())
        step_fail(&contest->step, vm_error());
    for (uint64_t at = 0; at < contest->length; at += EBB_FRAME_SIZE)
        compare((uint64_t *)(void *)(contest->map + at), cpus_online());
    hold_count_checks(0, contest->length >> EBB_FRAME_SHIFT);
    vm_unmap(contest->space, contest->map);
    vm_leave();
}

enum status faults_contend(uint64_t rounds)
{
    struct contest contest = {.step = {.name = "contend"}, .length = 3 * VM_LARGE_SIZE - 4096};

    contest.space = vm_create();
    if (!contest.space)
        step_fail(&contest.step, -EBB_ENOMEM);
    for (uint64_t i = 0; i < rounds && !contest.step.error && !hold_errors(); i++) {
        contend_once(&contest, i % 2);
        if (step_note_due(&contest.step, 0))
            console_print("contend: %lu rounds\n", i);
    }
    if (contest.space)
        vm_destroy(contest.space);
    return step_finish(&contest.step);
}

/* ---- where nothing is mapped ---- */

struct stray {
    struct vm_space *space;
    uint8_t *map;
    uint32_t touched, gone; /* atomic */
};

/* Beside CPU 0: touch, wait until it is unmapped, touch again. */
static void stray_job(unsigned cpu, void *arg)
{
    struct stray *stray = arg;

    vm_enter(stray->space);
    if (cpu == 0) {
        while (!__atomic_load_n(&stray->touched, __ATOMIC_ACQUIRE) && cpus_online() > 1)
            ebb_port_relax();
        vm_unmap(stray->space, stray->map);
        __atomic_store_n(&stray->gone, 1u, __ATOMIC_RELEASE);
    } else if (cpu == 1) {
        *page_at(stray->map, 0) = 1;
        __atomic_store_n(&stray->touched, 1u, __ATOMIC_RELEASE);
        while (!__atomic_load_n(&stray->gone, __ATOMIC_ACQUIRE))
            ebb_port_relax();
        *page_at(stray->map, 0) = 2; /* an old translation would let it */
    }
    vm_leave();
}

/* Every way ends in a page fault that nothing is known of, or was not as it must be. */
enum status faults_stray(enum faults_stray how)
{
    struct stray stray = {.space = vm_create()};

    if (!stray.space || vm_map(stray.space, EBB_FRAME_SIZE, false, NULL, &stray.map) != 0)
        return STATUS_USAGE;
    vm_enter(stray.space);
    *page_at(stray.map, 0) = 1;
    if (how == STRAY_BEHIND) {
        *page_at(stray.map, 1) = 1;
    } else if (how == STRAY_UNMAPPED) {
        vm_unmap(stray.space, stray.map);
        *page_at(stray.map, 0) = 2;
    } else {
        cpus_run(stray_job, &stray);
    }
    vm_leave();
    vm_destroy(stray.space);
    return STATUS_OK;
}
