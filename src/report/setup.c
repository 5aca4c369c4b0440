/* SPDX-License-Identifier: BSD-2-Clause */
/* The engine: making one, sources, register and unregister, statistics. */
#include "engine.h"

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value > 0 ? value : otherwise;
}

static uint32_t bounded(uint32_t value, uint32_t low, uint32_t high)
{
    if (value < low)
        return low;
    return value > high ? high : value;
}

static void init_pace(struct ebb_report *report)
{
    const struct ebb_report_config *config = &report->config;
    const struct ebb_pace_config pace = {
        .window_min = config->window_min_ms * EBB__NS_PER_MS,
        .window_max = config->window_max_ms * EBB__NS_PER_MS,
        .window_start = config->window_start_ms * EBB__NS_PER_MS,
        .refault_ns = config->refault_ns,
    };

    EBB_DEBUG_ASSERT(pace.window_min > 0 && pace.window_min <= pace.window_start);
    EBB_DEBUG_ASSERT(pace.window_start <= pace.window_max && pace.refault_ns > 0);
    ebb_pace_init(&report->pace, &pace);
    report->stats.window_ns = report->pace.window;
}

EBB_RARE int ebb_report_init(struct ebb_report *report, const struct ebb_report_config *config)
{
    struct ebb_report_config c = *config;

    if (ebb_report_config_problem(config))
        return -EBB_EINVAL;
    c.window_min_ms = or_default(c.window_min_ms, EBB_REPORT_WINDOW_MIN_MS);
    c.window_max_ms = or_default(c.window_max_ms, EBB_REPORT_WINDOW_MAX_MS);
    c.window_start_ms = bounded(or_default(c.window_start_ms, EBB_REPORT_WINDOW_START_MS),
                                c.window_min_ms, c.window_max_ms);
    c.refault_ns = or_default(c.refault_ns, EBB_REPORT_REFAULT_NS);
    c.capacity = or_default(c.capacity, EBB_REPORT_CAPACITY);
    c.backoff_ms = or_default(c.backoff_ms, EBB_REPORT_BACKOFF_MS);

    EBB_DEBUG_ASSERT(c.capacity > 0 && c.capacity <= EBB_REPORT_CAPACITY_LIMIT);
    __builtin_memset(report, 0, sizeof(*report));
    report->config = c;
    report->wake = ebb_port_wake;
    report->due = EBB_NEVER;
    report->pass.pace = &report->pace;
    init_pace(report);
    return 0;
}

EBB_RARE int ebb_report_add_source(struct ebb_report *report, struct ebb_source *source)
{
    const struct ebb_source_ops *ops = source->ops;
    struct ebb_source **end = &report->sources;
    int err = -EBB_EBUSY;

    if (!ops || !ops->counts || !ops->take || !ops->give_back ||
        source->large_order > EBB_ORDER_LIMIT)
        return -EBB_EINVAL;
    ebb_port_lock(&report->lock);
    if (!report->device && !source->report) {
        while (*end)
            end = &(*end)->next;
        EBB_DEBUG_ASSERT(end != &source->next);
        *end = source;
        source->report = report;
        source->next = NULL;
        source->active = false;
        ebb__set_requested(source, true); /* nobody listens yet */
        err = 0;
    }
    ebb_port_unlock(&report->lock);
    return err;
}

/* ---- register ---- */

static bool is_usable(const struct ebb_report_device *device)
{
    return device && device->ops && device->ops->submit && device->capacity > 0 &&
           device->capacity <= EBB_REPORT_CAPACITY_LIMIT;
}

/* Make the device the engine's, unless there is one. */
EBB_RARE static bool take_device(struct ebb_report *report, struct ebb_report_device *device)
{
    bool taken;

    ebb_port_lock(&report->lock);
    taken = !report->device;
    if (taken) {
        EBB_DEBUG_ASSERT(report->pass.n_blocks == 0 && ebb__get_batch(report) == EBB__BATCH_NONE);
        EBB_DEBUG_ASSERT(!report->changing && !report->in_pass);
        report->device = device;
        report->changing = true;
        report->first = report->sources;
        report->pass.capacity =
            device->capacity < report->config.capacity ? device->capacity : report->config.capacity;
        report->backoff_ns = 0;
    }
    ebb_port_unlock(&report->lock);
    return taken;
}

/* A device has the engine, or none has it any more. */
EBB_RARE static void set_device(struct ebb_report *report, struct ebb_report_device *device,
                                uint64_t due)
{
    ebb_port_lock(&report->lock);
    EBB_DEBUG_ASSERT(report->changing && report->device && !report->in_pass);
    report->device = device;
    report->changing = false;
    report->now_wanted = false;
    report->due = due;
    ebb__set_phase(report, device ? EBB_REPORT_REQUESTED : EBB_REPORT_IDLE);
    ebb_port_unlock(&report->lock);
}

EBB_RARE static void detach_sources(struct ebb_report *report)
{
    for (struct ebb_source *source = report->sources; source; source = source->next) {
        EBB_DEBUG_ASSERT(source->report == report);
        if (source->active && source->ops->detach)
            source->ops->detach(source);
        source->active = false;
    }
}

EBB_RARE static int attach_sources(struct ebb_report *report)
{
    const struct ebb_terms terms = {
        .device = report->device,
        .order = report->config.order > 0 ? report->config.order : report->device->min_order,
        .capacity = report->pass.capacity,
    };

    EBB_DEBUG_ASSERT(terms.capacity > 0 && terms.capacity <= report->device->capacity);
    for (struct ebb_source *source = report->sources; source; source = source->next) {
        EBB_DEBUG_ASSERT(source->report == report && !source->active);
        int err = source->ops->attach ? source->ops->attach(source, &terms) : 1;

        if (err < 0)
            return err;
        source->active = err > 0;
    }
    return 0;
}

EBB_RARE static void start_pace(struct ebb_report *report, uint64_t now)
{
    struct ebb_counts counts;

    ebb_pace_start(&report->pace, now);
    for (struct ebb_source *source = report->sources; source; source = source->next) {
        source->ops->counts(source, &report->pace, &counts);
        EBB_DEBUG_ASSERT(counts.low <= counts.unreported);
        ebb_pace_start_source(&report->pace, &source->pace, counts.unreported + counts.small,
                              counts.reported, counts.refaulted);
    }
}

EBB_RARE int ebb_report_register(struct ebb_report *report, struct ebb_report_device *device)
{
    uint64_t now = ebb_port_now();
    int err;

    if (!is_usable(device))
        return -EBB_EINVAL;
    if (!take_device(report, device))
        return -EBB_EBUSY;
    /* Every source's `requested` is set, so nobody asks for anything meanwhile. */
    start_pace(report, now);
    err = attach_sources(report);
    if (err) {
        detach_sources(report);
        set_device(report, NULL, EBB_NEVER);
        return err;
    }
    set_device(report, device, now + ebb__delay(report));
    ebb__wake(report);
    return 0;
}

/* ---- unregister ---- */

static bool begin_unregister(struct ebb_report *report)
{
    bool begun;

    ebb_port_lock(&report->lock);
    begun = ebb__is_attached(report);
    if (begun)
        report->changing = true;
    ebb_port_unlock(&report->lock);
    return begun;
}

EBB_RARE static void wait_for_batch(struct ebb_report *report)
{
    struct ebb_report_device *device = report->device;

    while (ebb__get_batch(report) == EBB__BATCH_IN_FLIGHT) {
        if (device->ops->poll)
            device->ops->poll(device);
        ebb_port_relax();
    }
}

EBB_RARE int ebb_report_unregister(struct ebb_report *report)
{
    if (!begin_unregister(report))
        return -EBB_ENODEV;
    while (!ebb__try_enter_run(report))
        ebb_port_relax();
    for (struct ebb_source *source = report->sources; source; source = source->next)
        ebb__set_requested(source, true); /* nobody listens */
    wait_for_batch(report);
    if (ebb__get_batch(report) != EBB__BATCH_NONE)
        (void)ebb__finish_batch(report, ebb__get_batch(report));
    ebb__stop_pass(report);
    EBB_ASSERT(report->pass.n_blocks == 0);
    EBB_DEBUG_ASSERT(!report->in_pass && ebb__get_batch(report) == EBB__BATCH_NONE);
    detach_sources(report);
    set_device(report, NULL, EBB_NEVER);
    /* Somebody may have registered another one already: the worker sees to that. */
    ebb__leave_run(report);
    return 0;
}

EBB_RARE void ebb_report_get_stats(struct ebb_report *report, struct ebb_report_stats *stats)
{
    ebb_port_lock(&report->lock);
    *stats = report->stats;
    ebb_port_unlock(&report->lock);
}
