/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `ebb demo`: allocator, engine and host memory in one process. Takes most of
 * a memfd in single frames, stamps each, checks and frees them all, and shows
 * how much of the memfd is resident while the engine gives it back.
 */
#include "args.h"
#include "cmd.h"
#include "engine.h"
#include "host.h"

#include <ebb_hosted.h>

#include <argp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Of less, RETURN_PERCENT would be all but part of a pageblock. */
#define SIZE_LOW  (128 * MIB)
#define SIZE_HIGH (65536 * MIB)

/* Taken and freed, and what of it has to come back. */
#define TAKE_PERCENT   75u
#define RETURN_PERCENT 98u

#define BAR_WIDTH   40u
#define SAMPLE_NS   (2 * CMD_MS)
#define LINE_NS     (250 * CMD_MS) /* a line at least this often */
#define PATIENCE_NS (5 * CMD_S)    /* without any progress, besides the delay */

struct demo_options {
    uint64_t bytes;
    uint32_t delay_ms, budget; /* 0: not given */
};

/* Everything at its place. Too large for a stack. */
struct demo {
    struct ebb_hosted_memory memory;
    struct ebb_hosted_worker worker;
    struct ebb_hosted_device device;
    struct engine engine;
    struct demo_options options;
    uint64_t frames; /* to take */
    ebb_pfn_t *pfns;
    uint64_t wrong;   /* stamps */
    uint64_t peak;    /* bytes resident before the free */
    uint64_t left;    /* and at the end */
    uint64_t took_ns; /* until RETURN_PERCENT were back; 0: never */
};

/* ---- options ---- */

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct demo_options *options = state->input;

    switch (key) {
    case 's':
        options->bytes = args_size(state, "size", arg, SIZE_LOW, SIZE_HIGH, MIB);
        return 0;
    case 'd':
        options->delay_ms = args_count(state, "delay-ms", arg, 1, 60000);
        return 0;
    case 'b':
        options->budget = args_count(state, "budget", arg, 1, 1024);
        return 0;
    case ARGP_KEY_ARG:
        args_none(state, arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void parse_options(struct demo_options *options, int argc, char **argv)
{
    static const struct argp_option list[] = {
        {"size", 's', "SIZE", 0, "Memory to manage, 128M to 64G (default 512M)", 0},
        {"delay-ms", 'd', "N", 0,
         "Report everything, N milliseconds after a free, 1 to 60000 (default: what nobody needed "
         "for a while)",
         0},
        {"budget", 'b', "N", 0,
         "Report 1/N of the free memory at a time, 1 to 1024, with a delay of 100 ms unless "
         "another "
         "is given",
         0},
        {0},
    };
    static const char doc[] =
        "Give memory back without a virtual machine: take 75 % of a memory file in single frames, "
        "fill it, free it, and watch ebb's engine punch holes where it was."
        "\vExit status: 0 at least 98 % came back and nothing was damaged, 1 otherwise, 2 wrong "
        "options, 4 something is wrong with this machine.\n\n"
        "Examples:\n"
        "  ebb demo\n"
        "  ebb demo --size 2G --delay-ms 2000 --budget 16   the pacing of Linux\n";
    static const struct argp argp = {.options = list, .parser = parse, .doc = doc};

    *options = (struct demo_options){.bytes = 512 * MIB};
    cmd_argp_setup();
    argp_parse(&argp, argc, argv, 0, NULL, options);
}

/* ---- set-up ---- */

/* Each of these undoes what it did if it fails. */
static int start_device(struct demo *demo)
{
    int err = ebb_hosted_device_create(&demo->device, &demo->memory, &demo->engine.report,
                                       EBB_HOSTED_THREAD);

    if (err)
        return err;
    err = ebb_report_register(&demo->engine.report, &demo->device.device);
    if (err)
        ebb_hosted_device_destroy(&demo->device);
    return err;
}

static int start_engine(struct demo *demo)
{
    const struct demo_options *options = &demo->options;
    const struct ebb_settings settings = {
        .report.worker = &demo->worker,
        .history =
            {
                .pacing =
                    options->delay_ms || options->budget ? EBB_PACING_DELAY : EBB_PACING_SURPLUS,
                .delay_ms = options->delay_ms,
                .budget = options->budget,
            },
    };
    int err = engine_init(&demo->engine, &settings, &demo->memory.zone);

    if (!err)
        err = ebb_hosted_worker_start(&demo->worker, &demo->engine.report);
    if (err)
        return err;
    err = start_device(demo);
    if (err)
        ebb_hosted_worker_stop(&demo->worker);
    return err;
}

static bool set_up(struct demo *demo)
{
    int err = ebb_hosted_memory_create(&demo->memory, demo->options.bytes, NULL);

    if (err) {
        cmd_error("no memory file of %" PRIu64 " MiB: %s", demo->options.bytes / MIB,
                  strerror(-err));
        return false;
    }
    err = start_engine(demo);
    if (err) {
        cmd_error("the engine does not start: %s", strerror(-err));
        ebb_hosted_memory_destroy(&demo->memory);
    }
    return !err;
}

static void tear_down(struct demo *demo)
{
    if (ebb_report_unregister(&demo->engine.report))
        cmd_error("the report device is gone");
    ebb_hosted_device_destroy(&demo->device);
    ebb_hosted_worker_stop(&demo->worker);
    engine_release(&demo->engine);
    ebb_hosted_memory_destroy(&demo->memory);
}

/* ---- taking and freeing ---- */

static void nap(uint64_t ns)
{
    const struct timespec time = {.tv_nsec = (long)ns};

    nanosleep(&time, NULL);
}

static bool take(struct demo *demo)
{
    for (uint64_t i = 0; i < demo->frames; i++) {
        ebb_pfn_t pfn;
        int err = ebb_alloc(&demo->memory.zone, 0, EBB_MOVABLE, 0, &pfn);

        while (err == -EBB_EAGAIN) { /* it is with the host just now */
            nap(CMD_MS);
            err = ebb_alloc(&demo->memory.zone, 0, EBB_MOVABLE, 0, &pfn);
        }
        if (err) {
            cmd_error("frame %" PRIu64 " of %" PRIu64 " cannot be had: %s", i, demo->frames,
                      strerror(-err));
            return false;
        }
        demo->pfns[i] = pfn;
        *(uint64_t *)ebb_hosted_address(&demo->memory, pfn) = ~pfn;
    }
    return true;
}

static void check_and_free(struct demo *demo)
{
    for (uint64_t i = 0; i < demo->frames; i++) {
        ebb_pfn_t pfn = demo->pfns[i];

        if (*(uint64_t *)ebb_hosted_address(&demo->memory, pfn) != ~pfn)
            demo->wrong++;
        if (ebb_free(&demo->memory.zone, pfn, 0))
            demo->wrong++;
    }
}

/* ---- watching ---- */

static void print_line(const struct demo *demo, uint64_t ms, uint64_t resident)
{
    uint64_t width = resident * BAR_WIDTH / demo->options.bytes;

    if (width > BAR_WIDTH)
        width = BAR_WIDTH;
    printf("%6" PRIu64 " ms %8.1f MiB  |%.*s%*s|\n", ms, (double)resident / (double)MIB, (int)width,
           "########################################", (int)(BAR_WIDTH - width), "");
    fflush(stdout);
}

static bool enough_back(const struct demo *demo, uint64_t resident)
{
    return (demo->peak - resident) * 100 >= demo->peak * RETURN_PERCENT;
}

/* Until everything is back and the engine at rest, or nothing happens any more. */
static void watch(struct demo *demo)
{
    uint64_t patience = PATIENCE_NS + 3 * demo->options.delay_ms * CMD_MS;
    uint64_t start = cmd_now_ns(), moved = start, line = start;
    uint64_t last = demo->peak, shown = demo->peak, now = start;

    print_line(demo, 0, demo->peak);
    while (now - moved < patience) {
        uint64_t resident = ebb_hosted_resident(&demo->memory);

        now = cmd_now_ns();
        if (resident != last)
            moved = now;
        last = resident;
        if (demo->took_ns == 0 && resident <= demo->peak && enough_back(demo, resident))
            demo->took_ns = now - start;
        if (demo->took_ns > 0 && ebb_report_phase(&demo->engine.report) == EBB_REPORT_IDLE)
            break;
        if (resident + demo->options.bytes / BAR_WIDTH <= shown || now - line >= LINE_NS) {
            print_line(demo, (now - start) / CMD_MS, resident);
            shown = resident;
            line = now;
        }
        nap(SAMPLE_NS);
    }
    demo->left = ebb_hosted_resident(&demo->memory);
    print_line(demo, (now - start) / CMD_MS, demo->left);
}

static bool sum_up(struct demo *demo)
{
    struct ebb_violation violation = {0};
    bool sound = ebb_zone_check(&demo->memory.zone, EBB_CHECK_FRAMES, &violation) == 0;
    uint64_t back = demo->peak > demo->left ? demo->peak - demo->left : 0;
    struct ebb_report_stats stats;

    ebb_report_get_stats(&demo->engine.report, &stats);
    printf("Of %.1f MiB that were freed the host has %.1f MiB (%.1f %%) back",
           (double)demo->peak / (double)MIB, (double)back / (double)MIB,
           100.0 * (double)back / (double)demo->peak);
    if (demo->took_ns > 0)
        printf(", nearly all of it within %" PRIu64 " ms", demo->took_ns / CMD_MS);
    printf(".\nIt was told of %" PRIu64 " blocks in %" PRIu64 " batches; of %" PRIu64
           " frames in use %" PRIu64 " lost their contents; the allocator checks out %s.\n",
           stats.reported_blocks, stats.batches, demo->frames, demo->wrong,
           sound ? "sound" : "damaged");
    if (!sound)
        cmd_error("invariant I%u is broken at pfn %" PRIu64 ": %s", violation.invariant,
                  violation.pfn, violation.what);
    return sound && demo->wrong == 0 && demo->took_ns > 0;
}

static int run_demo(struct demo *demo)
{
    demo->frames = demo->options.bytes / EBB_FRAME_SIZE * TAKE_PERCENT / 100;
    demo->pfns = cmd_realloc(NULL, demo->frames * sizeof(*demo->pfns));
    printf("%" PRIu64 " MiB of memory; %u %% of it is taken frame by frame, filled, and freed. "
           "Resident on the host:\n",
           demo->options.bytes / MIB, TAKE_PERCENT);
    if (!take(demo))
        return CMD_HOST;
    demo->peak = ebb_hosted_resident(&demo->memory);
    check_and_free(demo);
    watch(demo);
    return sum_up(demo) ? CMD_OK : CMD_VERIFY;
}

int ebb_cmd_demo(int argc, char **argv)
{
    struct demo *demo;
    struct demo_options options;
    int status = CMD_HOST;

    parse_options(&options, argc, argv);
    /* Besides the memory, its metadata and the list of frames. */
    if (!host_check_memory("--size", options.bytes, options.bytes / 128))
        return CMD_HOST;
    demo = cmd_realloc(NULL, sizeof(*demo));
    memset(demo, 0, sizeof(*demo));
    demo->options = options;
    if (set_up(demo)) {
        status = run_demo(demo);
        tear_down(demo);
    }
    free(demo->pfns);
    free(demo);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        cmd_error("the output cannot be written");
        return CMD_HOST;
    }
    return status;
}
