/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a pass costs, by tracker and length of the free lists: one measurement in one
 * process, for `ebb bench trackers`. A single thread on a port of its own, which sees
 * each hold of the zone's lock and on which time passes only when it is told to. The zone
 * is metadata alone: its frames do not exist, and the device completes every batch at once.
 *
 *   ebb-passes time|holds|memory|count GIB SHAPE [KEY=VALUE...]
 *
 * Prints one JSON object; count stops itself (SIGSTOP) before and after what its parent is to
 * count the steps of. Keys are those of ebb_settings_set(), with pacing=delay; besides,
 * tracker=naive is a walk from the head of the list for each batch, with nothing to
 * remember where the last one ended.
 */
#include "../cmd/engine.h"
#include "../src/history/tracker.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <time.h>

#define GIB_LIMIT 1024u
#define ORDER     9u /* of all blocks: the zone has no larger ones */
#define FEW       64u

#define ROUNDS_MAX    64u
#define BLOCKS_WANTED 40000u /* reported in all rounds */
#define HOLDS_MAX     ((size_t)1 << 21)
#define CLOCK_LOOPS   2000u
#define COUNT_BLOCKS  128u /* of a pass that is counted */

enum mode { TIME, HOLDS, MEMORY, COUNT };

enum shape {
    UNREPORTED, /* nothing is reported */
    HEAD,       /* all is, but for a few that were just freed */
    MIXED,      /* every other block is */
    SHUFFLED,   /* as HEAD, but freed to the head or the tail at random */
};

static const char *const mode_names[] = {"time", "holds", "memory", "count", NULL};
static const char *const shape_names[] = {"unreported", "head", "mixed", "shuffled", NULL};

static struct {
    uint64_t now; /* of the port */
    bool naive;

    struct ebb_zone zone;
    void *metadata;
    size_t bytes;
    uint64_t blocks;
    ebb_pfn_t *pfns;

    struct ebb_settings settings;
    struct engine *engine; /* a new one for each round with MIXED */
    struct ebb_report_device device;
    bool alternate; /* refuse every other batch */
    uint64_t batches;
    bool keep;     /* complete no batch inside submit */
    unsigned kept; /* ranges of the one that waits */

    /* Counting what is looked at. */
    struct ebb_tracker_ops counting;
    const struct ebb_tracker_ops *counted;
    uint64_t looked;
    uint32_t cursor; /* naive: where this batch goes on */

    /* Holds of the zone's lock. */
    bool watching;
    uint64_t locked_ns, looked_before, out_before;
    uint32_t *holds_ns;
    size_t holds;
    uint64_t worst_looked, worst_moved, worst_touched;
} bench;

__attribute__((format(printf, 1, 2))) static _Noreturn void die(const char *format, ...)
{
    va_list args;

    fputs("ebb-passes: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t clock_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the port ---- */

static uint64_t blocks_out(void)
{
    return bench.zone.in_flight >> ORDER;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void ebb_port_lock(struct ebb_lock *lock)
{
    lock->word = 1;
    if (!bench.watching || lock != &bench.zone.lock)
        return;
    bench.looked_before = bench.looked;
    bench.out_before = blocks_out();
    bench.locked_ns = clock_ns();
}

void ebb_port_unlock(struct ebb_lock *lock)
{
    if (bench.watching && lock == &bench.zone.lock) {
        uint64_t ns = clock_ns() - bench.locked_ns;
        uint64_t looked = bench.looked - bench.looked_before;
        uint64_t out = blocks_out();
        uint64_t moved = out > bench.out_before ? out - bench.out_before : bench.out_before - out;

        if (bench.holds == HOLDS_MAX)
            die("too many holds");
        bench.holds_ns[bench.holds++] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
        bench.worst_looked = larger(bench.worst_looked, looked);
        bench.worst_moved = larger(bench.worst_moved, moved);
        bench.worst_touched = larger(bench.worst_touched, looked + moved);
    }
    lock->word = 0;
}

unsigned ebb_port_cpu(void)
{
    return 0;
}

uint64_t ebb_port_now(void)
{
    return bench.now;
}

void ebb_port_wake(void *worker)
{
    (void)worker;
}

void ebb_port_relax(void)
{
}

void ebb_port_misuse(const struct ebb_misuse *misuse)
{
    die("%s", misuse->what);
}

_Noreturn void ebb_port_panic(const char *why)
{
    die("%s", why);
}

/* ---- the device ---- */

static int submit(struct ebb_report_device *device, const struct ebb_range *ranges, unsigned n)
{
    (void)device;
    (void)ranges;
    bench.batches++;
    if (bench.keep)
        bench.kept = n;
    else
        ebb_report_complete(&bench.engine->report,
                            bench.alternate && bench.batches % 2 == 0 ? -EBB_EIO : 0);
    return 0;
}

/* ---- trackers ---- */

/* From the head of the list to the first unreported block; within one batch it goes on
 * where it stopped. */
static enum ebb__found naive_next(struct ebb_history *history, unsigned *looks, uint32_t *index)
{
    const struct ebb_zone *zone = history->at->zone;
    const struct ebb_free_list *list = ebb__history_list(history);

    if (ebb__unreported(list) == 0)
        return EBB__NOTHING;
    if (bench.cursor == UINT32_MAX)
        bench.cursor = list->head;
    for (; *looks > 0; (*looks)--) {
        uint32_t at = bench.cursor;

        bench.cursor = ebb__link_of(zone, history->order, at)->next;
        if (!ebb__is_reported(zone, history->order, at)) {
            (*looks)--;
            *index = at;
            return EBB__FOUND;
        }
    }
    return EBB__PAUSE;
}

static int naive_submit(struct ebb_report_device *device, const struct ebb_range *ranges,
                        unsigned n)
{
    bench.cursor = UINT32_MAX;
    return submit(device, ranges, n);
}

static const struct ebb_tracker_ops naive_ops = {.name = "naive", .next = naive_next};

static enum ebb__found counting_next(struct ebb_history *history, unsigned *looks, uint32_t *index)
{
    unsigned before = *looks;
    enum ebb__found found = bench.counted->next(history, looks, index);

    bench.looked += before - *looks;
    return found;
}

/* Put a counter before the tracker, and the naive one in its place. */
static void instrument(bool count)
{
    struct ebb_history *history = &bench.engine->history;

    if (bench.naive)
        history->tracker = &naive_ops;
    if (!count)
        return;
    bench.counted = history->tracker;
    bench.counting = *bench.counted;
    bench.counting.next = counting_next;
    history->tracker = &bench.counting;
}

/* ---- set-up ---- */

static void make_zone(unsigned gib, bool shuffle, unsigned max_order, bool huge)
{
    const struct ebb_zone_config config = {
        .frames = (uint64_t)gib << (30 - EBB_FRAME_SHIFT),
        .max_order = (uint8_t)max_order,
        .pcp_blocks = EBB_PCP_NONE, /* all of them on the lists */
        .shuffle_order = shuffle ? EBB_REPORT_ORDER(ORDER) : 0,
    };

    bench.blocks = config.frames >> ORDER;
    bench.bytes = ebb_zone_metadata_size(&config);
    bench.metadata = mmap(NULL, bench.bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    bench.pfns = calloc(bench.blocks, sizeof(*bench.pfns));
    if (bench.metadata == MAP_FAILED || !bench.pfns)
        die("no memory: %s", strerror(errno));
    /* A kernel maps its frames' metadata with large pages; without them the table look-ups
     * of this process would be what is measured. */
    (void)madvise(bench.metadata, bench.bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    if (ebb_zone_init(&bench.zone, &config, bench.metadata) ||
        ebb_zone_add(&bench.zone, 0, config.frames))
        die("the zone was refused");
}

static void attach(const struct ebb_settings *settings)
{
    static const struct ebb_report_device_ops ops = {.submit = submit};
    static const struct ebb_report_device_ops naive_device_ops = {.submit = naive_submit};

    bench.engine = calloc(1, sizeof(*bench.engine));
    if (!bench.engine)
        die("no memory");
    bench.device.ops = bench.naive ? &naive_device_ops : &ops;
    bench.device.capacity = EBB_REPORT_CAPACITY_LIMIT;
    bench.cursor = UINT32_MAX;
    if (engine_init(bench.engine, settings, &bench.zone) ||
        ebb_report_register(&bench.engine->report, &bench.device))
        die("the engine was refused: %s",
            ebb_history_problem(settings) ? ebb_history_problem(settings) : "?");
}

/* The zone goes on with its marks and another engine: nobody but this program does that. Until
 * then nothing is kept of its lists, unless they are sorted. */
static void detach(void)
{
    if (ebb_report_unregister(&bench.engine->report))
        die("unregister failed");
    bench.zone.source.report = NULL;
    bench.zone.history = NULL;
    if (bench.zone.hooks)
        bench.zone.hooks = ebb__tracker_rotation.hooks;
    engine_release(bench.engine);
    free(bench.engine);
    bench.engine = NULL;
}

/* ---- passes ---- */

static uint64_t unreported(void)
{
    return (bench.zone.free - bench.zone.reported) >> ORDER;
}

/* The next thing that the engine wants to do, now. */
static void step(void)
{
    uint64_t due = ebb_report_run(&bench.engine->report);

    if (due != EBB_NEVER && due > bench.now)
        bench.now = due;
}

/* Passes until nothing is left. */
static void drive(void)
{
    ebb_report_now(&bench.engine->report);
    while (ebb_report_phase(&bench.engine->report) != EBB_REPORT_IDLE)
        step();
    if (unreported() != 0)
        die("%" PRIu64 " blocks were left", unreported());
}

/* ---- shapes ---- */

static void take(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        if (ebb_alloc(&bench.zone, ORDER, EBB_MOVABLE, 0, &bench.pfns[i]))
            die("no block");
    }
}

static void give(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        if (ebb_free(&bench.zone, bench.pfns[i], ORDER))
            die("a free was refused");
    }
}

static void make_unreported(uint64_t n)
{
    take(n);
    give(n);
}

/* Every second block: by an engine with batches of one whose device refuses every second one,
 * which then goes to the tail like the others. Sorted lists are never mixed: there it is half
 * of the list. */
static void make_mixed(void)
{
    const bool sorted = ebb_history_tracker(&bench.settings.history) == EBB_TRACKER_SORTED;
    const struct ebb_settings settings = {
        .report.capacity = 1,
        .history = {.pacing = EBB_PACING_DELAY,
                    .tracker = sorted ? EBB_TRACKER_SORTED : EBB_TRACKER_ROTATION},
    };
    bool naive = bench.naive;

    detach();
    bench.naive = false;
    bench.alternate = true;
    bench.batches = 0;
    make_unreported(bench.blocks);
    attach(&settings);
    while (bench.batches < bench.blocks)
        step();
    bench.alternate = false;
    detach();
    bench.naive = naive;
    attach(&bench.settings);
}

static void prepare(enum shape shape)
{
    switch (shape) {
    case UNREPORTED:
        make_unreported(bench.blocks);
        break;
    case HEAD:
    case SHUFFLED:
        make_unreported(FEW);
        break;
    case MIXED:
        make_mixed();
        break;
    }
}

/* ---- measurements ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static int by_ns(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static uint64_t rounds_of(enum shape shape)
{
    uint64_t each = shape == UNREPORTED ? bench.blocks : shape == MIXED ? bench.blocks / 2 : FEW;
    uint64_t rounds = BLOCKS_WANTED / each;

    return rounds < 7 ? 7 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
}

static void measure_time(enum shape shape)
{
    double ns[ROUNDS_MAX];
    uint64_t rounds = rounds_of(shape), reported = 0;

    for (uint64_t i = 0; i < rounds; i++) {
        prepare(shape);
        reported = unreported();
        instrument(false);
        uint64_t start = clock_ns();

        drive();
        ns[i] = (double)(clock_ns() - start) / (double)reported;
    }
    qsort(ns, rounds, sizeof(ns[0]), by_value);
    prepare(shape);
    instrument(true);
    drive();
    printf("{\"blocks\": %" PRIu64 ", \"reported\": %" PRIu64 ", \"rounds\": %" PRIu64
           ", \"ns_per_block\": %.2f, \"looked_per_block\": %.3f}\n",
           bench.blocks, reported, rounds, ns[rounds / 2], (double)bench.looked / (double)reported);
}

/* What a pair of clock readings adds to a hold, at least. */
static uint64_t clock_cost(void)
{
    uint64_t least = UINT64_MAX;

    for (unsigned i = 0; i < CLOCK_LOOPS; i++) {
        uint64_t start = clock_ns(), took = clock_ns() - start;

        least = took < least ? took : least;
    }
    return least;
}

static void measure_holds(enum shape shape)
{
    uint64_t rounds = shape == UNREPORTED || shape == MIXED ? 1 : 16, cost = clock_cost();

    bench.holds_ns = calloc(HOLDS_MAX, sizeof(*bench.holds_ns));
    if (!bench.holds_ns)
        die("no memory");
    memset(bench.holds_ns, 1, HOLDS_MAX * sizeof(*bench.holds_ns)); /* no faults later */
    for (uint64_t i = 0; i < rounds; i++) {
        prepare(shape);
        instrument(true);
        bench.watching = true;
        drive();
        bench.watching = false;
        bench.engine->history.tracker = bench.counted;
    }
    qsort(bench.holds_ns, bench.holds, sizeof(*bench.holds_ns), by_ns);
    printf("{\"blocks\": %" PRIu64 ", \"holds\": %zu, \"clock_ns\": %" PRIu64
           ", \"worst_ns\": %" PRIu32 ", \"p99_ns\": %" PRIu32 ", \"median_ns\": %" PRIu32
           ", \"worst_looked\": %" PRIu64 ", \"worst_moved\": %" PRIu64
           ", \"worst_touched\": %" PRIu64 "}\n",
           bench.blocks, bench.holds, cost, bench.holds_ns[bench.holds - 1],
           bench.holds_ns[bench.holds * 99 / 100], bench.holds_ns[bench.holds / 2],
           bench.worst_looked, bench.worst_moved, bench.worst_touched);
}

static uint64_t resident(const void *start, uint64_t bytes)
{
    uint64_t first = (uint64_t)(uintptr_t)start & ~(EBB_FRAME_SIZE - 1);
    uint64_t end =
        ((uint64_t)(uintptr_t)start + bytes + EBB_FRAME_SIZE - 1) & ~(EBB_FRAME_SIZE - 1);
    uint64_t pages = (end - first) >> EBB_FRAME_SHIFT, held = 0;
    unsigned char *map = malloc(pages);

    if (!map || mincore((void *)(uintptr_t)first, end - first, map) != 0)
        die("mincore: %s", strerror(errno));
    for (uint64_t i = 0; i < pages; i++)
        held += map[i] & 1u;
    free(map);
    return held * EBB_FRAME_SIZE;
}

/* The first batches of a pass, or all of it. The blocks of the last one are not put back. */
static void measure_count(enum shape shape)
{
    uint64_t reported = 0;

    prepare(shape);
    instrument(false);
    bench.keep = true;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        die("ptrace: %s", strerror(errno));
    for (unsigned i = 0; i < 4; i++)
        raise(SIGSTOP); /* twice nothing: what the marks themselves cost */
    raise(SIGSTOP);
    ebb_report_now(&bench.engine->report);
    while (reported < COUNT_BLOCKS && ebb_report_phase(&bench.engine->report) != EBB_REPORT_IDLE) {
        step();
        if (bench.kept == 0)
            continue;
        reported += bench.kept;
        bench.kept = 0;
        ebb_report_complete(&bench.engine->report, 0);
    }
    raise(SIGSTOP);
    printf("{\"reported\": %" PRIu64 "}\n", reported);
}

/* Of an untouched zone, all of it reported: what is free was never used. */
static void measure_memory(void)
{
    uint64_t frames = bench.zone.span;
    uint64_t state = 0, state_resident = 0;
    enum ebb_tracker tracker = ebb_history_tracker(&bench.settings.history);

    drive();
    if (tracker == EBB_TRACKER_MEMBRANE)
        state = state_resident = sizeof(bench.engine->history_zone.membrane);
    if (tracker == EBB_TRACKER_SORTED)
        state = sizeof(bench.zone.sorted);
    if (tracker == EBB_TRACKER_BOUNDARY)
        state = state_resident = sizeof(bench.engine->history.boundary);
    if (tracker == EBB_TRACKER_BITMAP) {
        state = ebb_history_metadata_size(&bench.engine->history, &bench.zone);
        state_resident = resident(bench.engine->memory, state);
    }
    printf("{\"frames\": %" PRIu64 ", \"metadata_bytes\": %zu, \"bytes_per_frame\": %.3f, "
           "\"metadata_resident\": %" PRIu64 ", \"zone_bytes\": %zu, \"engine_bytes\": %zu, "
           "\"tracker_bytes\": %" PRIu64 ", \"tracker_resident\": %" PRIu64 "}\n",
           frames, bench.bytes, (double)bench.bytes / (double)frames,
           resident(bench.metadata, bench.bytes), sizeof(bench.zone), sizeof(bench.engine->report),
           state, state_resident);
}

/* ---- the command line ---- */

static unsigned choice(const char *const *names, const char *text)
{
    for (unsigned i = 0; names[i]; i++) {
        if (strcmp(names[i], text) == 0)
            return i;
    }
    die("'%s' is not known here", text);
}

static void set(const char *text)
{
    const char *equals = strchr(text, '='), *allowed = NULL;
    char key[32];

    if (strcmp(text, "tracker=naive") == 0) {
        bench.naive = true;
        return;
    }
    if (!equals || (size_t)(equals - text) >= sizeof(key))
        die("'%s' is no KEY=VALUE", text);
    memcpy(key, text, (size_t)(equals - text));
    key[equals - text] = '\0';
    if (ebb_settings_set(&bench.settings, key, equals + 1, &allowed))
        die("'%s': it takes %s", text, allowed ? allowed : "another key");
}

/* On the CPU where it is: a move to another one in the middle would cost it its caches. */
static void stay(void)
{
    cpu_set_t here;
    int cpu = sched_getcpu();

    CPU_ZERO(&here);
    if (cpu >= 0)
        CPU_SET((unsigned)cpu, &here);
    (void)sched_setaffinity(0, sizeof(here), &here);
}

int main(int argc, char **argv)
{
    unsigned gib;
    enum mode mode;
    enum shape shape;

    if (argc < 4)
        die("usage: ebb-passes time|holds|memory|count GIB SHAPE [KEY=VALUE...]");
    mode = (enum mode)choice(mode_names, argv[1]);
    gib = (unsigned)strtoul(argv[2], NULL, 10);
    shape = (enum shape)choice(shape_names, argv[3]);
    if (gib < 1 || gib > GIB_LIMIT)
        die("GIB is 1 to %u", GIB_LIMIT);
    bench.settings.history.pacing = EBB_PACING_DELAY; /* a pass is to report everything */
    for (int i = 4; i < argc; i++)
        set(argv[i]);

    stay();
    make_zone(gib, shape == SHUFFLED, mode == MEMORY ? 10 : ORDER, mode != MEMORY);
    attach(&bench.settings);
    if (mode == MEMORY) {
        measure_memory();
        return 0;
    }
    instrument(false);
    drive();
    if (mode == TIME)
        measure_time(shape);
    else if (mode == HOLDS)
        measure_holds(shape);
    else
        measure_count(shape);
    return 0;
}
