/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the files of `ebb bench alloc`: what the allocator costs, by the workloads that LLFree
 * was measured with. The zones have metadata alone: the frames they manage do not exist.
 */
#ifndef BENCH_ALLOC_H
#define BENCH_ALLOC_H

#include "bench.h"

#include <ebb/zone.h>
#include <pthread.h>

#define ALLOC_SIZES   3u /* of zones */
#define ALLOC_THREADS 2u

/* What is measured, all in ns per operation. */
enum alloc_measure {
    ALLOC_A,        /* order 0: allocate and free */
    ALLOC_A2,       /* the same with half of the frames in use, at random */
    ALLOC_B1_ALLOC, /* 1 GiB of single frames */
    ALLOC_B1_FREE,  /* the same, freed at random */
    ALLOC_B2_ALLOC, /* the whole zone */
    ALLOC_B2_FREE,
    ALLOC_B2_MANY,   /* the same, freed at random by ebb_free_many() */
    ALLOC_B3_FREE,   /* as b1, but what the other thread allocated */
    ALLOC_C1,        /* order 9: allocate and free */
    ALLOC_C2_ALLOC,  /* all blocks of order 9 */
    ALLOC_C2_FREE,   /* the same, freed at random */
    ALLOC_D,         /* orders 0 to 9 mixed, half of the frames in use */
    ALLOC_WORKLOADS, /* what follows calibrates */
    ALLOC_CMPXCHG = ALLOC_WORKLOADS,
    ALLOC_PAIR_LOOP, /* the loop of a and c1, without the allocator */
    ALLOC_MIX_LOOP,  /* the loop of d, likewise */
    ALLOC_MEASURES
};

enum alloc_mode {
    ALLOC_OFF,  /* no engine */
    ALLOC_IDLE, /* registered, everything is reported, no pass */
    ALLOC_MODES
};

extern const unsigned alloc_gib[ALLOC_SIZES];
extern const char *const alloc_names[ALLOC_MEASURES];
extern const char *const alloc_texts[ALLOC_MEASURES];

/* ---- the rig: a zone, an engine and threads (bench_alloc_rig.c) ---- */

struct alloc_meter {
    uint64_t wall_ns, cpu_ns, operations;
};

/* Allocations that failed. */
struct alloc_failures {
    uint64_t none_free; /* and no block was free */
    uint64_t refused;   /* although one was: must not be */
    uint64_t raced;     /* and succeeded when tried again: the other thread was at it */
};

struct alloc_block {
    uint32_t pfn, order;
};

/* A thread, on a CPU of its own, with a per-CPU cache of its own. */
struct alloc_worker {
    struct alloc_rig *rig;
    pthread_t thread;
    unsigned id;
    unsigned job; /* the last one that it did */
    uint32_t *pfns;
    uint64_t n_pfns;
    struct alloc_block *blocks;
    uint64_t n_blocks, block_frames; /* in use */
    uint64_t random;
    uint64_t wall_ns, cpu_ns; /* when the stretch began */
    struct alloc_meter meters[ALLOC_MEASURES];
    struct alloc_failures failures;
} __attribute__((aligned(128)));

struct alloc_scale {
    uint64_t pairs, bulk, blocks, mixed, cmpxchg;
};

struct alloc_rig {
    struct ebb_zone zone;
    struct ebb_report report;
    struct ebb_report_device device;
    bool reporting;
    struct alloc_scale scale;
    uint64_t most, frames; /* of a zone, and of the one now */
    unsigned threads;
    unsigned available;                 /* threads that have a CPU of their own */
    unsigned cpus[ALLOC_THREADS];       /* which */
    unsigned caches[ALLOC_THREADS + 1]; /* per-CPU caches for so many threads */
    uint8_t *metadata;
    uint64_t metadata_bytes;
    bool huge_pages; /* hold the metadata */
    double init_warm_us, init_fresh_us;
    struct alloc_worker workers[ALLOC_THREADS];

    /* The threads' work. */
    pthread_mutex_t mutex;
    pthread_cond_t wake, done;
    void (*run)(struct alloc_worker *worker);
    unsigned job, busy;
    unsigned taking_part; /* `threads` when the job began: who wakes late sees that, not the next */
    bool stop;
    /* Where they meet; atomic. */
    unsigned met, meeting;
};

/* A rig for zones of up to so many frames. NULL: it cannot be, it has been said why. */
struct alloc_rig *alloc_rig_create(uint64_t frames, const struct alloc_scale *scale);
void alloc_rig_destroy(struct alloc_rig *rig);

/* Make the zone afresh, all free. False: with an idle engine, but not all was reported. */
bool alloc_rig_reset(struct alloc_rig *rig, uint64_t frames, unsigned threads,
                     enum alloc_mode mode);
/* The first of the threads run this, each for itself, and come back. */
void alloc_rig_run(struct alloc_rig *rig, void (*run)(struct alloc_worker *worker));
/* All has been freed: is the zone as it was? Ends the program if not. */
void alloc_rig_finish(struct alloc_rig *rig);
void alloc_must(bool condition, const char *what);

uint64_t alloc_metadata_bytes(uint64_t frames, unsigned caches);
/* Configure and fill a zone: what is measured as its initialisation. */
void alloc_make_zone(struct ebb_zone *zone, uint64_t frames, unsigned caches, void *metadata);

/* A stretch of operations, begun together by all threads. */
void alloc_begin(struct alloc_worker *worker);
void alloc_end(struct alloc_worker *worker, enum alloc_measure measure, uint64_t operations);

/* ---- workloads (bench_alloc_loads.c) ---- */

struct alloc_load {
    const char *name;
    void (*run)(struct alloc_worker *worker);
    uint32_t measures;    /* bit per enum alloc_measure */
    unsigned least, most; /* threads */
    bool idle;            /* also with an idle engine */
};

extern const struct alloc_load alloc_loads[];
extern const unsigned alloc_n_loads;

/* After d: free 80 % of what is in use, at random; then the rest. */
void alloc_thin(struct alloc_worker *worker);
void alloc_clear(struct alloc_worker *worker);
/* Of free frames, how many lie in free blocks of 2 MiB and more, in percent. */
double alloc_whole_percent(struct alloc_rig *rig);
/* Sets init_warm_us and init_fresh_us, per GiB. */
void alloc_initialise(struct alloc_worker *worker);

/* ---- a run (bench_alloc.c) ---- */

/* One zone size with so many threads. */
struct alloc_row {
    struct bench_samples ns[ALLOC_MODES][ALLOC_MEASURES];
    struct bench_samples idle_ratio[ALLOC_MEASURES]; /* idle over off, round by round */
    struct bench_samples over_one[ALLOC_MEASURES];   /* two threads over one, likewise */
    struct bench_samples whole_mixed, whole_thinned; /* percent */
};

struct alloc_run {
    bool quick;
    const char *command;
    double seconds;
    unsigned sizes, rounds, threads;
    unsigned cpus[ALLOC_THREADS];
    bool huge_pages, all_reported;
    struct alloc_row rows[ALLOC_THREADS][ALLOC_SIZES];
    struct bench_samples init_warm_us[ALLOC_SIZES], init_fresh_us[ALLOC_SIZES];
    uint64_t metadata_bytes[ALLOC_SIZES]; /* with struct ebb_zone */
    unsigned sections, discarded, noisy;
    uint64_t operations;
    struct alloc_failures failures;
};

int bench_alloc(int argc, char **argv);

/* ---- what others measured, and what is to be reached (bench_alloc_peers.c) ---- */

#define ALLOC_PEERS 4u
/* Of these, the first so many are more than times of one thread. */
#define ALLOC_FULL_PEERS 2u

struct alloc_peer {
    const char *name, *key;
    const char *what;
    double ns[ALLOC_THREADS][ALLOC_WORKLOADS][ALLOC_SIZES]; /* 0: not known */
    double whole_mixed[ALLOC_SIZES], whole_thinned[ALLOC_SIZES];
    double init_us[ALLOC_SIZES], bytes_per_frame[ALLOC_SIZES];
};

extern const struct alloc_peer alloc_peers[ALLOC_PEERS];
extern const char *const alloc_peers_note;

#define ALLOC_MOST_OVER_ONE    1.1   /* a, two threads against one */
#define ALLOC_MOST_INIT_US     5.0   /* per GiB */
#define ALLOC_MOST_FRAME_BYTES 16.0  /* of metadata */
#define ALLOC_QUIET            0.985 /* CPU time over time of a thread, at least */

/* Most ns; NaN: nothing was asked for. */
double alloc_most_ns(unsigned threads, unsigned gib, enum alloc_measure measure);

/* ---- what came out ---- */

struct json_object *alloc_json(const struct alloc_run *run);
/* From that JSON: tables, pictures, and whether nothing was refused. */
bool alloc_print(struct json_object *json, bool markdown, FILE *out);
bool alloc_draw(struct json_object *json, const char *directory);
bool alloc_sound(struct json_object *json);

#endif
