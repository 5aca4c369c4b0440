/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `ebb bench alloc`: the allocator by the workloads that LLFree was measured with. All cases of a
 * round run one after the other, so that what the machine does meanwhile hits all alike, and
 * ratios are of neighbours.
 */
#include "bench_alloc.h"
#include "args.h"
#include "cmd.h"
#include "host.h"
#include "result.h"
#include "text.h"

#include <argp.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FRAMES_PER_GIB ((uint64_t)1 << (30 - EBB_FRAME_SHIFT))
#define ROUNDS         9u
#define QUICK_ROUNDS   5u
/* A stretch during which its thread was kept from its CPU is measured again, so many times, as
 * long as this has not taken too long altogether. */
#define TRIES             5u
#define REPEATED_NS       (40 * CMD_S)
#define QUICK_REPEATED_NS (4 * CMD_S)

const unsigned alloc_gib[ALLOC_SIZES] = {1, 4, 16};

struct alloc_bench {
    struct alloc_run *run;
    struct alloc_rig *rig;
    uint64_t repeated_ns, most_repeated_ns;
};

/* ---- one case ---- */

struct alloc_case {
    const struct alloc_load *load;
    uint64_t frames;
    unsigned threads;
    enum alloc_mode mode;
};

struct alloc_figures {
    double ns[ALLOC_MEASURES];
    double quiet;
    double mixed, thinned; /* percent, of d */
};

static double ns_of(const struct alloc_meter *meter)
{
    return (double)meter->wall_ns / (double)meter->operations;
}

/* As the slower thread sees it. */
static double slowest(const struct alloc_rig *rig, unsigned measure)
{
    double ns = 0;

    for (unsigned i = 0; i < rig->threads; i++) {
        double own = ns_of(&rig->workers[i].meters[measure]);

        ns = own > ns ? own : ns;
    }
    return ns;
}

/* The least share of the time during which a thread had its CPU. */
static double quietness(const struct alloc_rig *rig, uint32_t measures)
{
    double least = 1;

    for (unsigned i = 0; i < rig->threads; i++) {
        for (unsigned m = 0; m < ALLOC_MEASURES; m++) {
            const struct alloc_meter *meter = &rig->workers[i].meters[m];

            if (measures >> m & 1)
                least = fmin(least, (double)meter->cpu_ns / (double)meter->wall_ns);
        }
    }
    return least;
}

static void add_up(struct alloc_run *run, const struct alloc_rig *rig)
{
    for (unsigned i = 0; i < rig->threads; i++) {
        for (unsigned m = 0; m < ALLOC_WORKLOADS; m++)
            run->operations += rig->workers[i].meters[m].operations;
    }
}

/* Of what d left: how much of the free memory is in whole blocks, and after most was freed. */
static void look_at_blocks(struct alloc_rig *rig, double *mixed, double *thinned)
{
    *mixed = alloc_whole_percent(rig);
    alloc_rig_run(rig, alloc_thin);
    *thinned = alloc_whole_percent(rig);
    alloc_rig_run(rig, alloc_clear);
}

static void try_once(struct alloc_bench *bench, const struct alloc_case *what,
                     struct alloc_figures *figures)
{
    struct alloc_rig *rig = bench->rig;
    const uint32_t measures = what->load->measures;

    if (!alloc_rig_reset(rig, what->frames, what->threads, what->mode))
        bench->run->all_reported = false;
    alloc_rig_run(rig, what->load->run);
    add_up(bench->run, rig);
    for (unsigned m = 0; m < ALLOC_MEASURES; m++)
        figures->ns[m] = measures >> m & 1 ? slowest(rig, m) : 0;
    figures->quiet = quietness(rig, measures);
    if (measures >> ALLOC_D & 1)
        look_at_blocks(rig, &figures->mixed, &figures->thinned);
    alloc_rig_finish(rig);
}

/* Measure it until it is quiet; if it never is, the quietest has to do. */
static struct alloc_figures measure_case(struct alloc_bench *bench, const struct alloc_case *what)
{
    struct alloc_figures best = {.quiet = -1};

    for (unsigned tries = 1;; tries++) {
        struct alloc_figures now = {.quiet = 0};
        uint64_t start = cmd_now_ns();

        try_once(bench, what, &now);
        bench->run->sections++;
        if (now.quiet > best.quiet)
            best = now;
        if (best.quiet >= ALLOC_QUIET)
            return best;
        if (tries == TRIES || bench->repeated_ns > bench->most_repeated_ns) {
            bench->run->noisy++;
            return best;
        }
        bench->run->discarded++;
        bench->repeated_ns += cmd_now_ns() - start;
    }
}

static void do_case(struct alloc_bench *bench, struct alloc_row *row, const struct alloc_case *what)
{
    struct alloc_figures figures = measure_case(bench, what);

    for (unsigned m = 0; m < ALLOC_MEASURES; m++) {
        if (what->load->measures >> m & 1)
            bench_add(&row->ns[what->mode][m], figures.ns[m]);
    }
    if (what->load->measures >> ALLOC_D & 1) {
        bench_add(&row->whole_mixed, figures.mixed);
        bench_add(&row->whole_thinned, figures.thinned);
    }
}

static double last(const struct bench_samples *samples)
{
    return samples->values[samples->n - 1];
}

static void add_ratios(const struct alloc_load *load, struct bench_samples *to,
                       const struct bench_samples *of, const struct bench_samples *over)
{
    for (unsigned m = 0; m < ALLOC_MEASURES; m++) {
        if (load->measures >> m & 1)
            bench_add(&to[m], last(&of[m]) / last(&over[m]));
    }
}

/* Without and with an engine, now this first, now that. */
static void do_threads(struct alloc_bench *bench, const struct alloc_load *load, unsigned size,
                       unsigned threads, unsigned round)
{
    struct alloc_row *row = &bench->run->rows[threads - 1][size];

    for (unsigned i = 0; i < ALLOC_MODES; i++) {
        struct alloc_case what = {.load = load,
                                  .frames = alloc_gib[size] * FRAMES_PER_GIB,
                                  .threads = threads,
                                  .mode = (i + round) % 2 ? ALLOC_IDLE : ALLOC_OFF};

        if (what.mode == ALLOC_OFF || load->idle)
            do_case(bench, row, &what);
    }
    if (load->idle)
        add_ratios(load, row->idle_ratio, row->ns[ALLOC_IDLE], row->ns[ALLOC_OFF]);
}

/* ---- all cases ---- */

static void do_load(struct alloc_bench *bench, const struct alloc_load *load, unsigned size,
                    unsigned round)
{
    struct alloc_run *run = bench->run;
    struct alloc_row *one = &run->rows[0][size], *two = &run->rows[1][size];
    char *whom = cmd_format("%u GiB", alloc_gib[size]);

    bench_progress_show(load->name, whom);
    for (unsigned threads = load->least; threads <= load->most && threads <= run->threads;
         threads++)
        do_threads(bench, load, size, threads, round);
    if (load->least == 1 && load->most == 2 && run->threads == 2)
        add_ratios(load, two->over_one, two->ns[ALLOC_OFF], one->ns[ALLOC_OFF]);
    free(whom);
}

static void do_initialise(struct alloc_bench *bench, unsigned size)
{
    struct alloc_rig *rig = bench->rig;

    (void)alloc_rig_reset(rig, alloc_gib[size] * FRAMES_PER_GIB, 1, ALLOC_OFF);
    alloc_rig_run(rig, alloc_initialise);
    bench_add(&bench->run->init_warm_us[size], rig->init_warm_us);
    bench_add(&bench->run->init_fresh_us[size], rig->init_fresh_us);
}

static bool calibrates(const struct alloc_load *load)
{
    return load->measures >> ALLOC_WORKLOADS != 0;
}

/* Rough: the largest zones take longer to set up. */
static double weight_of(unsigned size)
{
    return 2 + alloc_gib[size];
}

static void do_round(struct alloc_bench *bench, unsigned round)
{
    for (unsigned size = 0; size < bench->run->sizes; size++) {
        for (unsigned i = 0; i < alloc_n_loads; i++) {
            /* Once for all sizes. */
            if (size == 0 || !calibrates(&alloc_loads[i]))
                do_load(bench, &alloc_loads[i], size, round);
        }
        do_initialise(bench, size);
        bench_progress_done(weight_of(size));
    }
}

static void everything(struct alloc_bench *bench)
{
    struct alloc_run *run = bench->run;
    double weight = 0;

    for (unsigned size = 0; size < run->sizes; size++)
        weight += weight_of(size) * run->rounds;
    bench_progress_begin(weight);
    for (unsigned round = 0; round < run->rounds; round++)
        do_round(bench, round);
    run->seconds = bench_progress_end();
}

/* ---- the run ---- */

static void describe(struct alloc_run *run, const struct alloc_rig *rig)
{
    run->huge_pages = rig->huge_pages;
    memcpy(run->cpus, rig->cpus, sizeof(run->cpus));
    for (unsigned size = 0; size < run->sizes; size++)
        run->metadata_bytes[size] =
            alloc_metadata_bytes(alloc_gib[size] * FRAMES_PER_GIB, 1) + sizeof(struct ebb_zone);
    for (unsigned i = 0; i < rig->available; i++) {
        run->failures.none_free += rig->workers[i].failures.none_free;
        run->failures.refused += rig->workers[i].failures.refused;
        run->failures.raced += rig->workers[i].failures.raced;
    }
}

static struct json_object *measure(bool quick, const char *command)
{
    const struct alloc_scale scale = {.pairs = quick ? 200000 : 1000000,
                                      .bulk = FRAMES_PER_GIB,
                                      .blocks = quick ? 8192 : 32768,
                                      .mixed = quick ? 500000 : 2000000,
                                      .cmpxchg = quick ? 1000000 : 4000000};
    struct alloc_run *run = cmd_realloc(NULL, sizeof(*run));
    struct alloc_bench bench = {.run = run,
                                .most_repeated_ns = quick ? QUICK_REPEATED_NS : REPEATED_NS};
    struct json_object *json;

    memset(run, 0, sizeof(*run));
    run->quick = quick;
    run->command = command;
    run->sizes = quick ? 1 : ALLOC_SIZES;
    run->rounds = quick ? QUICK_ROUNDS : ROUNDS;
    run->all_reported = true;
    bench.rig = alloc_rig_create(alloc_gib[run->sizes - 1] * FRAMES_PER_GIB, &scale);
    run->threads = bench.rig->available;
    if (run->threads < 2)
        cmd_error("this process has one CPU: NOTHING is measured with two threads");
    everything(&bench);
    describe(run, bench.rig);
    json = alloc_json(run);
    alloc_rig_destroy(bench.rig);
    free(run);
    return json;
}

/* ---- ebb bench alloc ---- */

struct options {
    const char *json, *plot, *from;
    bool quick, markdown;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case 'j':
        options->json = arg;
        return 0;
    case 'p':
        options->plot = arg;
        return 0;
    case 'f':
        options->from = arg;
        return 0;
    case 'm':
        options->markdown = true;
        return 0;
    case 'q':
        options->quick = true;
        return 0;
    case ARGP_KEY_ARG:
        args_none(state, arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void parse_options(struct options *options, int argc, char **argv)
{
    static const struct argp_option list[] = {
        {"json", 'j', "FILE", 0, "Write all figures to FILE", 0},
        {"plot", 'p', "DIR", 0, "Draw a picture, alloc.svg, into the directory DIR", 0},
        {"markdown", 'm', NULL, 0, "Print the tables as Markdown", 0},
        {"quick", 'q', NULL, 0, "1 GiB only, and less of it, in a second or two", 0},
        {"from", 'f', "FILE", 0, "Measure nothing: tables and picture of a FILE that --json wrote",
         0},
        {0},
    };
    static const struct argp argp = {
        .options = list,
        .parser = parse,
        .doc =
            "Measure what the allocator costs on zones of 1, 4 and 16 GiB, with one thread and "
            "with two, beside what was published of LLFree: allocating and freeing in pairs, "
            "in bulk and at random, and mixed; initialisation; metadata; how much of the free "
            "memory lies in whole blocks of 2 MiB. The zones have metadata alone, 64 MiB at "
            "most. Takes half a minute; keep the machine quiet meanwhile."
            "\vExit status: 0 measured, 1 an allocation was refused although a block was free, 2 "
            "wrong options, 4 something is wrong with this machine."};

    *options = (struct options){0};
    argp_parse(&argp, argc, argv, 0, NULL, options);
}

int bench_alloc(int argc, char **argv)
{
    struct options options;
    struct json_object *json;
    char *command = text_quote(argc, argv);
    int status = CMD_HOST;

    parse_options(&options, argc, argv);
    if (bench_check_outputs(options.json, options.plot)) {
        json = options.from ? bench_read_saved(options.from, "alloc")
                            : measure(options.quick, command);
        if (json && (!options.json || result_write(json, options.json)) &&
            alloc_print(json, options.markdown, stdout) &&
            (!options.plot || alloc_draw(json, options.plot)))
            status = alloc_sound(json) ? CMD_OK : CMD_VERIFY;
        json_object_put(json);
    }
    free(command);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        cmd_error("the output cannot be written");
        return CMD_HOST;
    }
    return status;
}
