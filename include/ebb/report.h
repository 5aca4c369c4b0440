/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The reporting engine: tells a report device of free blocks, so that the host
 * can drop the data behind them.
 *
 * One engine serves one device and any number of zones. It is submit/complete:
 * nothing in it sleeps or allocates, so that ebb_report_run() can be called
 * from a thread, an idle loop or an interrupt handler alike.
 *
 *   free -> request -> (delay) -> pass: fill -> submit ... complete -> drain -> ... -> idle
 *
 * The four stages fill, report, drain, idle and the states idle, requested,
 * active are those of free page reporting as Linux merged it in 5.7 (2020,
 * "mm / virtio: Provide support for free page reporting"). What differs:
 * submission is asynchronous, a failed pass is retried after a back-off, marks
 * survive splits and merges (zone.h), and the constants are configuration.
 */
#ifndef EBB_REPORT_H
#define EBB_REPORT_H

#include <ebb/port.h>
#include <ebb/types.h>
#include <ebb/zone.h>

/* The largest capacity of a batch. */
#define EBB_REPORT_CAPACITY_LIMIT 512u

/* ebb_report_run(): nothing to do until the worker is woken. */
#define EBB_NEVER UINT64_MAX

/* Orders in configurations: 0 is "unspecified", EBB_REPORT_ORDER(0) is order 0. */
#define EBB_REPORT_ORDER(n) ((uint8_t)((n) + 1u))

/* A request while the engine is off, etc.: see ebb_report_state. */
enum ebb_report_phase {
    EBB_REPORT_IDLE = 0,      /* nothing asked for */
    EBB_REPORT_REQUESTED = 1, /* a pass is due, now or after the delay */
    EBB_REPORT_ACTIVE = 2,    /* a pass is under way */
};

struct ebb_report_device;

/*
 * Whatever takes a batch and completes it: a balloon driver, or in-process
 * memory. It sees ranges only, never allocator state.
 */
struct ebb_report_device_ops {
    /*
     * Take n (1 to capacity) ranges of whole frames, all of one zone, in no particular order,
     * none overlapping another. One block each, 2^order frames and naturally aligned; but
     * neighbouring blocks within one pageblock (or 16 frames, if that is more) may come as one
     * range. Called with no lock held, from wherever ebb_report_run() was called; must not wait for
     * the host. `ranges` stays valid and unchanged until the completion. 0: ebb_report_complete()
     * will be called exactly once, from any context, perhaps before submit returns. Negative: the
     * batch was not taken and no completion follows.
     */
    int (*submit)(struct ebb_report_device *device, const struct ebb_range *ranges, unsigned n);
    /* Optional: look whether the batch in flight is done and, if so, complete
     * it. Called in a loop by ebb_report_unregister(), for devices whose
     * interrupt cannot arrive while that waits. */
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

/*
 * How unreported blocks are found. All find the same blocks; they differ in
 * what they cost, and whom (docs/approaches.md has the measurements). Sources: the
 * threads on linux-mm named with each.
 */
enum ebb_tracker {
    EBB_TRACKER_DEFAULT = 0, /* sorted with surplus pacing, else rotation */
    /* The mark alone; a list is left rotated to where the search stopped ("mm /
     * virtio: Provide support for free page reporting", v14 to v17, November 2019 to
     * February 2020; merged in Linux 5.7). */
    EBB_TRACKER_ROTATION,
    /* A divider per order, kept at all times, on one migratetype's list: reported
     * blocks below it, others above ("mm / virtio: Provide support for paravirtual
     * waste page treatment", RFC, May 2019). */
    EBB_TRACKER_MEMBRANE,
    /* A divider per list, valid while a pass is at work on the zone (v1 to v13 of
     * the same, June to November 2019). */
    EBB_TRACKER_BOUNDARY,
    /* A bit per block of the smallest reported order says "might be free and
     * unreported" ("mm: Support for page hinting/reporting", v10 to v12, 2019). */
    EBB_TRACKER_BITMAP,
    /* A divider per list, kept at all times: unreported blocks above, reported ones below.
     * The coldest unreported block is right above it, so nothing is ever searched. Ours; what
     * surplus pacing is built on. */
    EBB_TRACKER_SORTED,
    EBB_TRACKERS
};

/* Parts split off a reported block. */
enum ebb_split {
    EBB_SPLIT_DEFAULT = 0, /* inherit */
    EBB_SPLIT_INHERIT,     /* are reported: the host was told of them (RFC) */
    EBB_SPLIT_CLEAR,       /* count as unreported, and are reported again (v1 onwards) */
};

/* A block merged from two halves. */
enum ebb_merge {
    EBB_MERGE_DEFAULT = 0, /* both */
    EBB_MERGE_BOTH,        /* is reported if both halves were (RFC) */
    EBB_MERGE_NEVER,       /* is unreported, and reported again at its new order (v1 onwards) */
};

/* A reported block whose pageblock changes its migratetype. */
enum ebb_move {
    EBB_MOVE_DEFAULT = 0, /* keep */
    EBB_MOVE_KEEP,        /* keeps its mark, goes to the tail (v10 onwards) */
    EBB_MOVE_DEMOTE,      /* loses its mark, goes to the head (RFC to v5) */
    /* Keeps its mark, joins the other list at its divider (v6 to v9). Only with a
     * tracker that has dividers. */
    EBB_MOVE_FOLLOW,
};

/* Which orders a pass visits first. Not with the bitmap, which goes by address. */
enum ebb_direction {
    EBB_DIRECTION_DEFAULT = 0, /* ascending */
    EBB_DIRECTION_ASCENDING,   /* what merges on put-back is met again in the same pass (v14) */
    EBB_DIRECTION_DESCENDING,  /* the largest blocks leave first (RFC to v13) */
};

/* Who runs a pass. */
enum ebb_execution {
    EBB_EXECUTION_DEFAULT = 0, /* worker */
    EBB_EXECUTION_WORKER,      /* ebb_report_run(), called by the worker */
    /* The free that asks for it, at its end and with no lock held; each completion
     * then sends the next batch (RFC). Needs no worker and no timer, so there is no
     * delay and no budget, a failed pass is tried again by a later free, and what is
     * below the threshold stays. One call runs at most 256 passes for others that free
     * meanwhile; what is freed during the last of them waits for a later free. */
    EBB_EXECUTION_INLINE,
};

/*
 * When a block is reported.
 *
 * Surplus: a guest that will need a block again soon gains nothing by giving it back, and
 * pays for a fault. So report only what stayed free and unreported for a whole *window*,
 * coldest first; keep the rest warm. The window adapts between window_min_ms and window_max_ms:
 * a reported frame taken into use again within window_max_ms of the time it was freed (a *refault*,
 * if these cost more than 1 % of the time, at refault_ns each) makes it as long as would have
 * avoided that, and it is halved while what that gives back is worth more than the refaults that it
 * causes. Blocks below the pageblock order wait longer, in proportion to what reporting them costs
 * per frame. DESIGN.md has the rules and why.
 *
 * Delay: everything, a fixed delay after the request (Linux).
 */
enum ebb_pacing {
    /* Surplus, unless something was asked for that it does not have: another tracker than sorted,
     * execution=inline, delay_ms, budget, threshold or a direction. */
    EBB_PACING_DEFAULT = 0,
    EBB_PACING_SURPLUS,
    EBB_PACING_DELAY,
};

/* For config.threshold: twice the capacity in use, as the RFC had it. */
#define EBB_REPORT_TWICE_CAPACITY UINT32_MAX

/* Zero means default for every field. */
struct ebb_report_config {
    /* How; see the enums above. */
    uint8_t tracker;   /* enum ebb_tracker */
    uint8_t split;     /* enum ebb_split */
    uint8_t merge;     /* enum ebb_merge */
    uint8_t move;      /* enum ebb_move */
    uint8_t direction; /* enum ebb_direction */
    uint8_t execution; /* enum ebb_execution */
    uint8_t pacing;    /* enum ebb_pacing */
    /* Surplus pacing: the shortest and the longest window, and the one at first and after a rest,
     * in milliseconds, 1 to 3,600,000. Defaults EBB_REPORT_WINDOW_MIN_MS, EBB_REPORT_WINDOW_MAX_MS
     * and EBB_REPORT_WINDOW_START_MS. The last is cut to what the others allow; the first must be
     * no more than the second. */
    uint32_t window_min_ms;
    uint32_t window_max_ms;
    uint32_t window_start_ms;
    /* Surplus pacing: what it costs to use a reported frame again (an exit, a fault in the host,
     * clearing it), in nanoseconds, 1 to 1,000,000. Default EBB_REPORT_REFAULT_NS. */
    uint32_t refault_ns;
    /* Delay pacing: milliseconds from a request to its pass, at most 3,600,000. Default
     * EBB_REPORT_DELAY_MS. Merged kernel: 2000. */
    uint32_t delay_ms;
    /* Ranges in a batch, 1 to EBB_REPORT_CAPACITY_LIMIT; the device's capacity
     * bounds it too, and a batch takes at most half of what a zone has free above
     * its low watermark (but always one block). Default 32, as in the merged kernel. */
    uint32_t capacity;
    /* Smallest order reported, as EBB_REPORT_ORDER(n). Default: what the device
     * prefers, else order 0 with surplus pacing and the pageblock order of each zone with
     * delay pacing. An order above a zone's largest turns reporting off there. */
    uint8_t order;
    /* Report 1/budget of a free list in one pass, in whole batches rounded up,
     * and one batch more; 1 to 1024. Default 1: all of it. Merged kernel: 16. */
    uint32_t budget;
    /* Unreported blocks that one order must hold before a free asks for a pass.
     * Default 1. The RFC of 2019: EBB_REPORT_TWICE_CAPACITY; v1 to v14: 32 (and such
     * a zone's last few blocks are never reported). */
    uint32_t threshold;
    /* Milliseconds until a pass that failed is tried again; doubles with each
     * failure in a row up to backoff_max_ms. At most 3,600,000, backoff_ms no
     * more than backoff_max_ms. Defaults 1000 and 60,000. */
    uint32_t backoff_ms;
    uint32_t backoff_max_ms;
    /* Handed to ebb_port_wake(). */
    void *worker;
};

#define EBB_REPORT_WINDOW_MIN_MS   50u
#define EBB_REPORT_WINDOW_MAX_MS   2500u
#define EBB_REPORT_WINDOW_START_MS 300u
#define EBB_REPORT_REFAULT_NS      1000u
#define EBB_REPORT_DELAY_MS        100u
#define EBB_REPORT_BACKOFF_MS      1000u
#define EBB_REPORT_BACKOFF_MAX_MS  60000u

struct ebb_report_stats {
    uint64_t passes;          /* passes begun; with surplus pacing most find nothing */
    uint64_t batches;         /* batches submitted */
    uint64_t reported_blocks; /* blocks in batches that succeeded */
    uint64_t reported_frames; /* frames in them */
    uint64_t failed_batches;  /* refused by submit, or completed with an error */
    uint64_t stray_completes; /* completions without a batch in flight: ignored */
    uint64_t requests;        /* requests that the screener passed on */
    int last_error;           /* of the last failed batch, negative; 0: none yet */
    /* Surplus pacing. */
    uint64_t window_ns;      /* the window now; 0 with delay pacing */
    uint64_t window_grown;   /* times it was lengthened */
    uint64_t window_shrunk;  /* times it was halved */
    uint64_t refaulted_soon; /* reported frames in use again within window_max_ms of their free */
    uint64_t surplus_frames; /* taken by the last pass that found any */
};

/* Surplus pacing, for the engine's own use; see core/pacing.c. Times in ns. */
#define EBB_PACE_TOLD 16u
struct ebb_pace_told {
    uint64_t first, mean; /* when the host was told: at first, and of a frame on average */
    uint64_t window;      /* the window then */
    uint64_t frames;      /* of what, less what is reported no longer */
};
struct ebb_report_pace {
    bool on;
    bool flush;        /* this pass reports everything */
    bool flush_wanted; /* under the engine's lock: the next one does */
    uint64_t window, shortest, longest, first;
    uint64_t price;        /* time in which one refault is tolerable */
    uint64_t allowance;    /* refaults that are tolerable in a second */
    uint64_t looked;       /* when the last slot ended */
    uint64_t clock;        /* time that it looked for */
    uint64_t calm;         /* time in which half the window would have reported more */
    uint64_t missed;       /* refaults that this would have caused, and those that there were */
    uint64_t saved;        /* frames x time that the host would have had them */
    uint64_t credit;       /* refaults tolerated now */
    uint64_t debt;         /* refaults that there were, less those tolerable in the time since */
    uint64_t reported;     /* frames that were, when it looked, and told of since */
    uint64_t unattributed; /* frames that were free before the device came, not reported yet */
    struct ebb_pace_told told[EBB_PACE_TOLD];
    unsigned told_last;
    /* The pass under way. */
    uint64_t quota;             /* frames of large blocks */
    uint64_t unit;              /* the next one to look at */
    uint64_t unit_at, unit_end; /* in the unit found last */
    uint64_t surplus;           /* frames taken so far */
};

/* What a device was handed, for the engine's own use. */
struct ebb_report_block {
    uint32_t index;
    uint8_t order;
};

/* Caller-owned; to be treated as opaque. */
struct ebb_report {
    struct ebb_lock lock;
    struct ebb_report_config config;
    bool inlined;                     /* execution is inline */
    struct ebb_zone *zones;           /* linked by report_next */
    struct ebb_report_device *device; /* NULL: none registered */
    uint32_t phase;                   /* atomic, enum ebb_report_phase */
    uint32_t batch;                   /* atomic: none, in flight, done, or a negative status */
    uint32_t running;                 /* atomic: a CPU is inside ebb_report_run() */
    bool changing;                    /* the device is being registered or taken away */
    bool in_pass;
    uint64_t due;        /* ns: when the requested pass may begin */
    uint64_t backoff_ns; /* after the last failure; 0 after a success */

    /* The pass under way: where it stands. Only its runner touches these. */
    struct ebb_zone *first; /* where passes begin */
    struct ebb_zone *zone;
    unsigned passes_left; /* that this call may begin; counts inline */
    bool zone_open;
    bool lists_left;
    bool list_open;
    unsigned order;
    unsigned type;
    uint64_t list_blocks; /* blocks that may still be taken from this list */
    uint64_t list_steps;  /* blocks of it that may still be looked at */
    uint64_t scan_left;   /* bitmap: words that this pass has still to visit */
    /* Boundary: of the zone whose boundary_active is set, under its lock. */
    struct ebb_divider boundary[EBB_ORDERS][EBB_ISOLATE];
    struct ebb_report_pace pace;
    uint64_t room; /* frames that may still join this batch */
    unsigned capacity;
    unsigned filled;      /* ranges */
    unsigned held_blocks; /* in these */
    struct ebb_range ranges[EBB_REPORT_CAPACITY_LIMIT];
    struct ebb_report_block blocks[EBB_REPORT_CAPACITY_LIMIT];

    struct ebb_report_stats stats;
};

/*
 * Why a configuration cannot be, in one English clause (static storage); NULL: it
 * can. Values out of bounds, and combinations that contradict each other.
 */
const char *ebb_report_config_problem(const struct ebb_report_config *config);

/* The pacing and the tracker that a configuration without problems gets, never
 * EBB_PACING_DEFAULT nor EBB_TRACKER_DEFAULT: see these enums. */
enum ebb_pacing ebb_report_config_pacing(const struct ebb_report_config *config);
enum ebb_tracker ebb_report_config_tracker(const struct ebb_report_config *config);

/*
 * Set one field by name, from text: for command lines. Keys are the fields'
 * names but `worker`; values are numbers, or the lower-case names of the enums
 * ("rotation", "inherit", ...); threshold also takes "2x" (twice the capacity), and
 * order the order itself. -EBB_ENOENT: no such key. -EBB_EINVAL: no such value;
 * *wanted (static storage) then says what could stand there.
 */
EBB_MUST_CHECK int ebb_report_config_set(struct ebb_report_config *config, const char *key,
                                         const char *value, const char **wanted);

/* The name of a tracker; of EBB_TRACKER_DEFAULT, that without surplus pacing ("rotation"). */
const char *ebb_tracker_name(enum ebb_tracker tracker);

/*
 * Make an engine, without zones or a device. -EBB_EINVAL:
 * ebb_report_config_problem() has a reason. -EBB_EOPNOTSUPP: this library was built
 * for one tracker only, and the configuration asks for another. `config` is copied.
 */
EBB_MUST_CHECK int ebb_report_init(struct ebb_report *report,
                                   const struct ebb_report_config *config);

/* Add a zone. Before the first register. -EBB_EBUSY: the zone has an engine
 * already, or a device is registered. */
EBB_MUST_CHECK int ebb_report_add_zone(struct ebb_report *report, struct ebb_zone *zone);

/*
 * Register a device and ask for a first pass over all zones, so that what is
 * free already is reported too. Blocks that an earlier device was told of keep
 * their marks: a later one resumes.
 * -EBB_EBUSY: there is a device. -EBB_EINVAL: capacity 0 or above the limit, or
 * no submit. -EBB_EOPNOTSUPP: a zone expects to find in its free frames what this
 * device may not leave there.
 */
EBB_MUST_CHECK int ebb_report_register(struct ebb_report *report, struct ebb_report_device *device);

/*
 * Take the device away. Returns when no batch is in flight and all blocks are
 * back; the device is not called after that. Waits for a completion by
 * ops->poll and ebb_port_relax(): a driver whose host may never answer resets
 * the device and completes the batch itself first. Not from inside submit, nor
 * from a context that ebb_report_run() may have been interrupted by.
 * -EBB_ENODEV: there is none.
 */
EBB_MUST_CHECK int ebb_report_unregister(struct ebb_report *report);

/*
 * The worker: do what is due, as far as it goes without waiting. Call it when
 * woken, and at the time it returns. Concurrent calls are harmless: one runs.
 * Returns the time (ns, of ebb_port_now()) at which it wants to be called
 * again, or EBB_NEVER. One call fills and submits at most one batch to a
 * device that completes later; a device that completes inside submit is
 * driven until the pass ends.
 */
uint64_t ebb_report_run(struct ebb_report *report);

/*
 * Complete the batch in flight. status 0 (or above): the host has dropped the data or
 * will not mind that it may; negative: it was not told, the blocks come back
 * unmarked and the pass ends. From any context, interrupts included; wakes the
 * worker. A completion that nobody waits for is counted and ignored. With inline
 * execution this call runs the engine, so the engine's memory must stay until it
 * has returned, even if ebb_report_unregister() does so first: a driver makes
 * sure that its interrupt handler is done.
 */
void ebb_report_complete(struct ebb_report *report, int status);

/* Ask for a pass over all zones right away, without the delay. It empties all
 * per-CPU caches, in use or not. */
void ebb_report_now(struct ebb_report *report);

/* The phase, for tests and tools. */
enum ebb_report_phase ebb_report_phase(const struct ebb_report *report);

void ebb_report_get_stats(struct ebb_report *report, struct ebb_report_stats *stats);

#endif
