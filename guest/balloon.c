/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's balloon and reporting engine: ebb's driver on the device that was
 * found, an engine over all zones, and the frames and statistics that the
 * driver asks for.
 */
#include "guest.h"

static struct ebb_report engine;
static struct ebb_balloon balloon;
static struct device device;
static bool started;
static bool attached;

/*
 * Frames inside the balloon: a stack of pfns in records of one frame each.
 * ebb_balloon_work() alone uses it, in interrupts on CPU 0.
 */
#define RECORD_PFNS ((unsigned)(EBB_FRAME_SIZE / 4 - 4))
struct record {
    struct record *below;
    uint32_t count;
    uint32_t pad;
    uint32_t pfns[RECORD_PFNS];
};
_Static_assert(sizeof(struct record) <= EBB_FRAME_SIZE, "a record fits into a frame");

static struct record *top;
static uint64_t inside; /* atomic: frames given to the host */

static bool push(uint32_t pfn)
{
    if (!top || top->count == RECORD_PFNS) {
        struct record *record;
        ebb_pfn_t at;

        if (memory_alloc(0, EBB_UNMOVABLE, 0, &at) != 0)
            return false;
        record = memory_pointer(at);
        record->below = top;
        record->count = 0;
        top = record;
    }
    top->pfns[top->count++] = pfn;
    return true;
}

static bool pop(uint32_t *pfn)
{
    if (!top)
        return false;
    *pfn = top->pfns[--top->count];
    if (top->count == 0) {
        struct record *empty = top;

        top = empty->below;
        memory_free(arch_address(empty) >> EBB_FRAME_SHIFT, 0);
    }
    return true;
}

/* The guest keeps a little: a host that wants everything gets no dead guest. */
static bool can_spare(unsigned n)
{
    struct memory_totals totals;

    memory_totals(&totals);
    return totals.free > n + totals.managed / 64;
}

static unsigned inflate(void *ctx, uint32_t *pfns, unsigned n)
{
    unsigned taken = 0;

    (void)ctx;
    if (!can_spare(n))
        return 0;
    while (taken < n) {
        ebb_pfn_t pfn;

        if (memory_alloc(0, EBB_UNMOVABLE, EBB_ALLOC_COLD, &pfn) != 0)
            break;
        if (pfn > UINT32_MAX || !push((uint32_t)pfn)) {
            memory_free(pfn, 0);
            break;
        }
        pfns[taken++] = (uint32_t)pfn;
    }
    __atomic_add_fetch(&inside, taken, __ATOMIC_RELAXED);
    return taken;
}

static unsigned deflate(void *ctx, uint32_t *pfns, unsigned n)
{
    unsigned taken = 0;

    (void)ctx;
    while (taken < n && pop(&pfns[taken]))
        taken++;
    return taken;
}

static void deflated(void *ctx, const uint32_t *pfns, unsigned n)
{
    (void)ctx;
    __atomic_sub_fetch(&inside, n, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < n; i++)
        memory_free(pfns[i], 0);
}

static unsigned statistics(void *ctx, struct ebb_balloon_stat *stats, unsigned n)
{
    struct memory_totals totals;

    (void)ctx;
    memory_totals(&totals);
    const struct ebb_balloon_stat all[] = {
        {EBB_STAT_SWAP_IN, 0},
        {EBB_STAT_SWAP_OUT, 0},
        {EBB_STAT_MAJFLT, 0},
        {EBB_STAT_MINFLT, totals.refaulted},
        {EBB_STAT_MEMFREE, totals.free << EBB_FRAME_SHIFT},
        {EBB_STAT_MEMTOT, (totals.managed - balloon_frames()) << EBB_FRAME_SHIFT},
        {EBB_STAT_AVAIL, (totals.free + totals.cached + totals.in_flight) << EBB_FRAME_SHIFT},
        {EBB_STAT_CACHES, 0},
        {EBB_STAT_HTLB_PGALLOC, 0},
        {EBB_STAT_HTLB_PGFAIL, 0},
    };
    unsigned count = sizeof all / sizeof all[0];

    if (count > n)
        count = n;
    memcpy(stats, all, count * sizeof all[0]);
    return count;
}

static const struct ebb_balloon_ops ops = {
    .inflate = inflate,
    .deflate = deflate,
    .deflated = deflated,
    .stats = statistics,
};

/* ---- start ---- */

/* Blocks of an order that no zone has would never be reported, and nobody told. */
static bool has_order(uint8_t report_order)
{
    for (unsigned i = 0; i < memory_zones(); i++)
        if (report_order <= EBB_REPORT_ORDER(memory_zone(i)->max_order))
            return true;
    console_print("command line: report.order=%u: blocks have order %u at most\n",
                  report_order - 1u, memory_zone(0)->max_order);
    return false;
}

enum status balloon_init_engine(const struct settings *settings)
{
    struct ebb_settings config = settings->engine;
    const char *problem = engine_problem(&config);

    if (problem)
        console_print("command line: report.*: %s\n", problem);
    if (problem || !has_order(config.report.order))
        return STATUS_USAGE;
    config.report.worker = &events_engine_worker;
    if (engine_init(&engine, &config) != 0)
        ebb_port_panic("the engine refuses its settings");
    for (unsigned i = 0; i < memory_zones(); i++)
        if (engine_add_zone(&engine, i) != 0)
            ebb_port_panic("the engine refuses a zone");
    return STATUS_OK;
}

static void start_driver(const struct settings *settings, void *dma)
{
    struct ebb_balloon_config config = {
        .transport = device.transport,
        .dma = dma,
        .dma_addr = arch_address(dma),
        .numbering = settings->numbering,
        .poison = settings->fill != EBB_FILL_NONE,
        .poison_val = settings->fill == EBB_FILL_POISON ? EBB_POISON_VALUE : 0,
        .ops = &ops,
        .worker = &events_balloon_worker,
    };
    int err = ebb_balloon_start(&balloon, &config);

    if (err != 0)
        console_print("the balloon (%s) does not start: error %d\n", device.where, err);
    started = err == 0;
}

static const char *reporting_text(const struct settings *settings)
{
    if (attached)
        return "on";
    if (balloon_can_report())
        return "off";
    return settings->fill == EBB_FILL_NONE ? "not offered by the host"
                                           : "not offered by the host together with page poison";
}

void balloon_init(const struct settings *settings, const char *command_line, void *dma)
{
    if (device_find_balloon(command_line, settings->intx, &device) != 0) {
        console_print("no balloon: no memory goes back to the host\n");
        return;
    }
    start_driver(settings, dma);
    if (started && settings->reporting && balloon_can_report()) {
        int err = balloon_report(true);

        if (err != 0)
            console_print("reporting does not start: error %d\n", err);
    }
    if (started)
        console_print("balloon on %s, reporting %s\n", device.where, reporting_text(settings));
}

bool balloon_present(void)
{
    return started;
}

bool balloon_can_report(void)
{
    return started && (balloon.features & EBB_F_PAGE_REPORTING);
}

bool balloon_reporting(void)
{
    return attached;
}

int balloon_report(bool on)
{
    int err = 0;

    if (!balloon_can_report())
        return -EBB_EOPNOTSUPP;
    if (on == attached)
        return 0;
    if (on)
        err = ebb_balloon_attach(&balloon, &engine);
    else
        ebb_balloon_detach(&balloon);
    attached = on && err == 0;
    return err;
}

void balloon_report_now(void)
{
    ebb_report_now(&engine);
}

uint64_t balloon_frames(void)
{
    return __atomic_load_n(&inside, __ATOMIC_RELAXED);
}

/* ---- from events.c ---- */

void balloon_interrupt(void)
{
    if (started)
        ebb_balloon_irq(&balloon);
}

void balloon_config_interrupt(void)
{
    if (started)
        ebb_balloon_config_irq(&balloon);
}

bool balloon_work(void)
{
    return started && ebb_balloon_work(&balloon);
}

uint64_t balloon_run(void)
{
    return ebb_report_run(&engine);
}

const struct ebb_report *balloon_engine(void)
{
    return &engine;
}

void balloon_stats(struct ebb_report_stats *stats)
{
    ebb_report_get_stats(&engine, stats);
}
