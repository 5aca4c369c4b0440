/* SPDX-License-Identifier: BSD-2-Clause */
/* The inside of an engine. Callers own the memory and look at nothing in it. */
#ifndef EBB_IMPL_REPORT_H
#define EBB_IMPL_REPORT_H

struct ebb_report {
    struct ebb_lock lock;
    struct ebb_report_config config;
    /* Who calls ebb_report_run(): ebb_port_wake(), unless src/history replaces it. */
    void (*wake)(void *worker);
    bool unpaced;                     /* the window is a fixed delay (src/history) */
    struct ebb_source *sources;       /* linked by next */
    struct ebb_report_device *device; /* NULL: none registered */
    uint32_t phase;                   /* atomic, enum ebb_report_phase */
    uint32_t batch;                   /* atomic: none, in flight, done, or a negative status */
    uint32_t running;                 /* atomic: a CPU is inside ebb_report_run() */
    bool changing;                    /* the device is being registered or taken away */
    bool now_wanted;                  /* the next pass reports everything */
    bool in_pass;
    uint64_t due;        /* ns: when the requested pass may begin */
    uint64_t backoff_ns; /* after the last failure; 0 after a success */
    struct ebb_report_stats stats;

    /* Only the runner touches what follows. */
    struct ebb_pace pace;
    struct ebb_source *first;  /* where passes begin */
    struct ebb_source *source; /* where the pass under way stands; NULL: done */
    bool source_open;
    bool more;       /* of this source, in this pass */
    uint32_t barren; /* takes in a row that brought no block */
    struct ebb_pass pass;
};

#endif
