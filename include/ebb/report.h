/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reporting engine: tells a report device of free memory, so that the host can drop
 * the data behind it.
 *
 * One engine serves one device and any number of sources of free memory (source.h): ebb's
 * zones, or allocators of your own. It is submit/complete: nothing in it sleeps or
 * allocates, so ebb_report_run() can be called from a thread, an idle loop or an interrupt
 * handler alike.
 *
 *   free -> request -> (slot) -> pass: take -> submit ... complete -> give back -> ... -> idle
 *
 * The four stages fill, report, drain, idle and the states idle, requested, active are those of
 * free page reporting as Linux merged it in 5.7 (2020, "mm / virtio: Provide support for free
 * page reporting"). What differs: submission is asynchronous, a failed pass is retried after a
 * back-off, and what is reported when is up to pace (pace.h): free memory that nobody needed
 * for a window, coldest first.
 */
#ifndef EBB_REPORT_H
#define EBB_REPORT_H

#include <ebb/port.h>
#include <ebb/source.h>
#include <ebb/types.h>

struct ebb_zone;

/* ebb_report_run(): nothing to do until the worker is woken. */
#define EBB_NEVER UINT64_MAX

/* ---- configuration ---- */

/* Zero means default for every field. */
struct ebb_report_config {
    /* Handed to ebb_port_wake(). */
    void *worker;
    /* Smallest order reported, as EBB_REPORT_ORDER(n). Default: what the device prefers, else
     * order 0. An order above a zone's largest turns reporting off there. */
    uint8_t order;
    /* Ranges in a batch, 1 to EBB_REPORT_CAPACITY_LIMIT; the device's capacity bounds it too.
     * Default 32, as in the merged kernel. */
    uint32_t capacity;
    /* The shortest and the longest window, and the one at first and after a rest, in milliseconds,
     * 1 to 3,600,000. Defaults EBB_REPORT_WINDOW_MIN_MS, EBB_REPORT_WINDOW_MAX_MS and
     * EBB_REPORT_WINDOW_START_MS. The last is cut to what the others allow; the first must be no
     * more than the second. */
    uint32_t window_min_ms;
    uint32_t window_max_ms;
    uint32_t window_start_ms;
    /* What it costs to use a reported frame again (an exit, a fault in the host, clearing it), in
     * nanoseconds, 1 to 1,000,000. Refaults may cost 1 % of the time. Default
     * EBB_REPORT_REFAULT_NS. */
    uint32_t refault_ns;
    /* Milliseconds until a pass that failed is tried again, 1 to EBB_REPORT_BACKOFF_MAX_MS. Doubles
     * with each failure in a row up to that. Default EBB_REPORT_BACKOFF_MS. */
    uint32_t backoff_ms;
};

#define EBB_REPORT_WINDOW_MIN_MS   50u
#define EBB_REPORT_WINDOW_MAX_MS   2500u
#define EBB_REPORT_WINDOW_START_MS 300u
#define EBB_REPORT_REFAULT_NS      1000u
#define EBB_REPORT_CAPACITY        32u
#define EBB_REPORT_BACKOFF_MS      1000u
#define EBB_REPORT_BACKOFF_MAX_MS  60000u

/* Why a configuration is not possible, in one English clause (static storage); NULL: it is. */
const char *ebb_report_config_problem(const struct ebb_report_config *config);

/*
 * Set one field by name, from text: for command lines. Keys are the fields' names but
 * `worker`; values are numbers, for order the order itself. -EBB_ENOENT: no such key.
 * -EBB_EINVAL: no such value; *allowed (static storage) then says what could stand there.
 */
EBB_MUST_CHECK int ebb_report_config_set(struct ebb_report_config *config, const char *key,
                                         const char *value, const char **allowed);

/* ---- devices ---- */

/*
 * Whatever takes a batch and completes it: a balloon driver, or in-process memory. It sees
 * ranges only, never allocator state.
 */
struct ebb_report_device_ops {
    /*
     * Take n (1 to capacity) ranges of whole frames, all of one source, in no particular order,
     * none overlapping another. One block each, 2^order frames and naturally aligned; but
     * neighbouring blocks within one naturally aligned 2^large_order frames (source.h) may come as
     * one range. Called with no lock held, from wherever ebb_report_run() was called; must not wait
     * for the host. `ranges` stays valid and unchanged until the completion. 0:
     * ebb_report_complete() will be called exactly once, from any context, perhaps before submit
     * returns. Negative: the batch was not taken and no completion follows; one that came before
     * submit returned counts for nothing, the blocks come back unmarked.
     */
    int (*submit)(struct ebb_report_device *device, const struct ebb_range *ranges, unsigned n);
    /* Optional: look whether the batch in flight is done and, if so, complete it. Called in a
     * loop by ebb_report_unregister(), for devices whose interrupt cannot arrive while that
     * waits. */
    void (*poll)(struct ebb_report_device *device);
};

/* What a frame may read as once it was reported, until somebody writes to it. */
enum ebb_content {
    EBB_CONTENT_ANY = 0,       /* nobody knows */
    EBB_CONTENT_KEPT_OR_VALUE, /* what it held, or the device's value, repeated */
    /* The device's value, repeated, whatever it held. With value 0 an allocation with
     * EBB_ALLOC_ZERO clears no frame that it takes from a reported block. */
    EBB_CONTENT_VALUE,
};

/* Caller-owned; stays in place from register to unregister. */
struct ebb_report_device {
    const struct ebb_report_device_ops *ops;
    /* Ranges it takes at once, 1 to EBB_REPORT_CAPACITY_LIMIT. */
    unsigned capacity;
    /* Smallest order it wants, as EBB_REPORT_ORDER(n); 0: no preference. */
    uint8_t min_order;
    /* What it leaves in the frames: enum ebb_content, and a 32-bit value for
     * EBB_CONTENT_KEPT_OR_VALUE. A zone that fills its free frames (zone.h, enum
     * ebb_fill) takes no other device than one that keeps them so. */
    uint8_t content;
    uint32_t value;
};

/* ---- the engine ---- */

enum ebb_report_phase {
    EBB_REPORT_IDLE = 0,      /* nothing asked for, or no device */
    EBB_REPORT_REQUESTED = 1, /* a pass is due, now or at the end of the slot */
    EBB_REPORT_ACTIVE = 2,    /* a pass is under way */
};

struct ebb_report_stats {
    uint64_t passes;          /* passes begun; most find nothing */
    uint64_t batches;         /* batches submitted */
    uint64_t reported_blocks; /* blocks in batches that succeeded */
    uint64_t reported_frames; /* frames in them */
    uint64_t failed_batches;  /* refused by submit, or completed with an error */
    uint64_t stray_completes; /* completions without a batch in flight: ignored */
    uint64_t requests;        /* requests that sources passed on */
    int last_error;           /* of the last failed batch, negative; 0: none yet */
    uint64_t window_ns;       /* the window now; 0 without pacing (history.h) */
    uint64_t window_grown;    /* times it was lengthened */
    uint64_t window_shrunk;   /* times it was halved, or became the first again */
    uint64_t refaulted_soon;  /* reported frames in use again within window_max_ms of their free */
    uint64_t surplus_frames;  /* taken by the last pass that found any */
};

/*
 * Make an engine, without sources or a device. -EBB_EINVAL: ebb_report_config_problem() has
 * a reason. `config` is copied.
 */
EBB_MUST_CHECK int ebb_report_init(struct ebb_report *report,
                                   const struct ebb_report_config *config);

/* Add a zone, before the first register; as ebb_report_add_source(), with ebb's source for zones.
 * Nothing else must be using the zone during the call. -EBB_EBUSY: the zone has an engine
 * already, or a device is registered. */
EBB_MUST_CHECK int ebb_report_add_zone(struct ebb_report *report, struct ebb_zone *zone);

/*
 * Register a device and ask for a first pass over all sources, so that what is free already is
 * reported too. Blocks that an earlier device was told of keep their marks: a later one
 * resumes.
 * -EBB_EBUSY: there is a device. -EBB_EINVAL: capacity 0 or above the limit, or no
 * submit. -EBB_EOPNOTSUPP: a zone expects to find in its free frames what this device may
 * not leave there. Other errors: a source refused it.
 */
EBB_MUST_CHECK int ebb_report_register(struct ebb_report *report, struct ebb_report_device *device);

/*
 * Take the device away. Returns when no batch is in flight and all blocks are back; the
 * device is not called after that. Waits for a completion by ops->poll and ebb_port_relax(): a
 * driver whose host may never answer resets the device and completes the batch itself first.
 * Also waits for a run that is under way on another CPU. So it must not be called from inside
 * submit, nor from an interrupt that may have interrupted ebb_report_run() on its own CPU.
 * -EBB_ENODEV: there is none.
 */
EBB_MUST_CHECK int ebb_report_unregister(struct ebb_report *report);

/*
 * The worker: do what is due, as far as it goes without waiting. Call it when woken, and at
 * the time it returns. Concurrent calls are harmless: one runs. Returns the time (ns, of
 * ebb_port_now()) at which it wants to be called again, or EBB_NEVER. One call fills and submits
 * at most one batch to a device that completes later; a device that completes inside submit is
 * driven until the pass ends.
 */
uint64_t ebb_report_run(struct ebb_report *report);

/*
 * Complete the batch in flight. status 0 (or above): the host has dropped the data or will not
 * mind that it may; negative: it was not told, the blocks come back unmarked and the pass ends.
 * From any context, interrupts included; wakes the worker. A completion that nobody waits for is
 * counted and ignored.
 */
void ebb_report_complete(struct ebb_report *report, int status);

/* Ask for a pass over all sources right away that reports whatever is free, needed recently or
 * not. It empties all per-CPU caches of zones, in use or not. */
void ebb_report_now(struct ebb_report *report);

/* The phase, for tests and tools. */
enum ebb_report_phase ebb_report_phase(const struct ebb_report *report);

void ebb_report_get_stats(struct ebb_report *report, struct ebb_report_stats *stats);

#include <ebb/impl/report.h>

#endif
