/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Replay a recorded allocation trace (trace.h) through an allocator on a memory
 * file, with an engine that punches holes into it (port/hosted).
 *
 * One thread, the caller's, plays all records in their order, whatever CPU they
 * were recorded on, so that the allocator sees the same requests each time; the
 * worker and the device have a thread each. Every frame is stamped when it is
 * allocated and looked at before it is freed, or at the end (invariant I12). The
 * frames that were in use before the recording began are allocated first, stamped
 * as well, and looked at in the end.
 *
 * A block that the trace frees in parts is freed whole with its last part: until
 * then the replay holds more of it than the trace does.
 *
 * Runs are independent: any number of them, one after the other, in one process.
 */
#ifndef REPLAY_H
#define REPLAY_H

#include "trace.h"

#include <ebb/history.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REPLAY_SPEED     20u /* default; makes 15 ms of the engine's first window */
#define REPLAY_SPEED_MAX 0u  /* as fast as it goes: records do not wait for their time */
#define REPLAY_SAMPLES   2000u

struct replay_options {
    /*
     * Trace time runs so many times faster than the clock, or REPLAY_SPEED_MAX. Only
     * waiting can be sped up, so trace time stretches for what is work: it waits for
     * records that cannot be played in their time, and runs no faster than the clock
     * while the engine is at a pass. So the engine's work takes as much of a pause as
     * it would take of the recorded one.
     */
    unsigned speed;
    /* Without, no engine runs at all: the ceiling. */
    bool reporting;
    /*
     * With REPLAY_SPEED_MAX: where nothing happens in the trace for as long as the
     * engine's delay, wait until the engine rests. So the trace's pauses count for
     * something, whatever the machine does meanwhile: for tests.
     */
    bool settle;
    /* Bytes, a multiple of 4096; 0: as much as the traced machine had. */
    uint64_t memory;
    /* Samples of residency, evenly over the trace; 0: REPLAY_SAMPLES. */
    unsigned samples;
    /*
     * The engine's. Its times are trace time and divided by `speed`, see
     * replay_scale(); with REPLAY_SPEED_MAX they are taken as they are. `worker` is
     * filled in.
     */
    struct ebb_settings settings;
    /* Optional: called now and then with the trace time that was reached. */
    void (*progress)(void *ctx, uint64_t us);
    void *progress_ctx;
};

struct replay_sample {
    uint64_t us;       /* trace time */
    uint64_t live;     /* bytes live in the trace */
    uint64_t resident; /* bytes of the file that the kernel holds memory for, less `pinned` */
};

struct replay_result {
    /* Time. wall = busy + what was slept + what sampling took. */
    uint64_t wall_ns;       /* first record to last */
    uint64_t busy_ns;       /* in records, waits for the host included */
    double records_per_s;   /* by busy_ns */
    uint64_t stretched_ns;  /* of wall: more than the trace divided by the speed */
    uint64_t cpu_ns;        /* CPU time, user and system, of the replaying thread, */
    uint64_t engine_cpu_ns; /*   and of all other threads: worker and device */
    uint64_t faults;        /* page faults of the replaying thread */
    uint64_t settle_ns;     /* from the last record until the engine rested: all is reported */
    bool settled;           /* false: it did not rest within the time it was given */

    /* Memory, in bytes; averages are over trace time. */
    uint64_t pinned;         /* in use before the recording: allocated first */
    double resident_mean;    /* without `pinned`, as all that follow */
    double resident_error;   /* standard error of resident_mean (SPEC.md) */
    double resident_byte_us; /* its integral */
    double live_mean;        /* of the trace itself, exact: the floor */
    double live_byte_us;
    uint64_t resident_peak, live_peak;
    uint64_t resident_end;     /* at the last record */
    uint64_t resident_settled; /* after settle_ns */
    struct replay_sample *samples;
    size_t n_samples;

    /* Requests. */
    uint64_t records;     /* played, those skipped included */
    uint64_t allocs;      /* blocks allocated */
    uint64_t failed;      /* allocations refused for want of memory: their frees are skipped */
    uint64_t waits;       /* allocations that had to wait for a batch, */
    uint64_t wait_ns;     /*   and how long, in all */
    uint64_t checks;      /* frames looked at */
    uint64_t errors;      /* frames that had lost their contents */
    uint64_t refused;     /* frees that the allocator refused: a defect of it */
    uint32_t fault_id;    /* the first such frame: block, */
    uint32_t fault_frame; /*   and frame in it (REPLAY_PINNED: before the recording) */
    struct ebb_violation violation; /* what is NULL: all invariants held in the end */

    /* The engine, from the first record until it rested. What was free before was
     * reported before, so that the first use of it is a refault too. */
    struct ebb_settings scaled; /* as the engine had them */
    struct ebb_report_stats report;
    uint64_t refaulted;  /* bytes that left a reported block for use again */
    uint64_t unreported; /* bytes free and unreported in the end, of any order */
    uint64_t punches;    /* system calls */
};

#define REPLAY_PINNED UINT32_MAX

/* How long a block is free before it is reported, at first: the delay, or the first window. */
uint64_t replay_delay_ms(const struct ebb_settings *settings);

/* How unreported blocks are found. */
const char *replay_tracker(const struct ebb_settings *settings);

/*
 * The engine's settings at a speed: times divided by it and rounded to whole
 * milliseconds. False: the delay would be less than one; *most (may be NULL) is then
 * the largest speed possible.
 */
bool replay_scale(struct ebb_settings *settings, unsigned speed, unsigned *most);

/* Less memory than this cannot hold what was in use before the recording. */
uint64_t replay_memory_min(const struct trace *trace);

/*
 * Play it. 0: it was played, see result->errors; to be released with
 * replay_result_release(). Negative errno: not played, nothing to be released.
 * -EINVAL: the settings (ebb_history_problem()), the speed (replay_scale()) or the
 * memory (replay_memory_min()). Otherwise what the operating system says.
 */
int replay_run(const struct trace *trace, const struct replay_options *options,
               struct replay_result *result);

/*
 * Touch as much memory as a replay will, and give it back. A machine's first use of
 * memory may cost more than later ones (it may itself be a guest): without this, the
 * first of several runs does not compare with the others.
 */
void replay_warm_up(const struct trace *trace);

void replay_result_release(struct replay_result *result);

/* Did all frames keep their contents, and the allocator its invariants? */
bool replay_sound(const struct replay_result *result);

#endif
