/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pace alone against recorded traces. Three counters stand for the allocator: frames are used,
 * free and unreported, or reported. A trace's records move them, and so does what pace finds
 * surplus, which the host hears of at once. Each trace is played with its large blocks alone (a
 * pageblock and more), and all of it, as if memory never fragmented; as fast as it was
 * recorded, and eight times as fast with dearer refaults, so that the window has to grow.
 *
 *   test_pace_traces FILE
 *   EBB_TRACES=DIR  each DIR/NAME.trace.zst as well
 */
#include "trace.h"

#include <ebb/pace.h>

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS    ((uint64_t)1000000)
#define S     (1000 * MS)
#define NEVER UINT64_MAX
#define LARGE 9u /* the order of a pageblock */
#define SHARE 100u
#define RESTS 64u /* looks after the last record, in which it has to come to rest */

static const struct manner {
    const char *name;
    unsigned min_order, speed;
    uint32_t refault_ns;
} manners[] = {
    {"large", LARGE, 1, 1000},
    {"all", 0, 1, 1000},
    {"large, x8", LARGE, 8, 4000},
    {"all, x8", 0, 8, 4000},
};

struct play {
    const struct trace *trace;
    const struct manner *manner;
    uint8_t *orders; /* by id */
    uint64_t began, now, due;
    struct ebb_pace pace;
    struct ebb_pace_source source;
    uint64_t frames, used, unreported, reported; /* the first is the sum of the others */
    uint64_t low, refaulted;
    uint64_t reported_before; /* at the last look, after it reported */
    /* What it came to. */
    double held;         /* frames x s, unreported */
    uint64_t sent, soon; /* frames: reported, refaulted soon */
    /* Slots of which the refaults cost too much, frames in those, and when the window grew
     * last. */
    uint64_t exceeded, soon_exceeding, grew;
};

static void pass_time(struct play *play, uint64_t now)
{
    assert_true(now >= play->now);
    play->held += (double)play->unreported * (double)(now - play->now) / 1e9;
    play->now = now;
}

static void check(const struct play *play)
{
    assert_int_equal(play->used + play->unreported + play->reported, play->frames);
    assert_in_range(play->pace.window, play->pace.config.window_min, play->pace.config.window_max);
}

/* As the engine: it looks once more while there is anything unreported. */
static void request(struct play *play)
{
    if (play->due == NEVER)
        play->due = play->now + ebb_pace_slot(&play->pace);
}

static void report_surplus(struct play *play)
{
    uint64_t quota = ebb_pace_quota(&play->pace, &play->source);

    assert_true(quota <= play->low);
    assert_true(quota <= play->unreported);
    play->unreported -= quota;
    play->reported += quota;
    play->sent += quota;
    ebb_pace_isolated(&play->pace, &play->source, quota);
    ebb_pace_told(&play->pace, quota, play->now);
}

/* Refaults that cost more than is tolerable make the window longer, unless it has become so since
 * the host was told of them. */
static void judge(struct play *play)
{
    uint64_t credit = play->pace.credit;
    uint64_t window = play->pace.window;
    uint64_t soon_before = play->pace.refaulted_soon;
    uint64_t soon, cost;

    ebb_pace_judge(&play->pace, play->now, play->low);
    soon = play->pace.refaulted_soon - soon_before;
    cost = soon * play->manner->refault_ns * SHARE;
    assert_true(soon <= play->reported_before);
    play->soon += soon;
    if (play->pace.window > window)
        play->grew = play->now;
    if (cost <= credit)
        return;
    play->exceeded++;
    play->soon_exceeding += soon;
    assert_true(play->now - play->grew <= play->pace.config.window_max);
}

static void look(struct play *play)
{
    play->due = NEVER;
    assert_true(ebb_pace_look(&play->pace, play->now));
    ebb_pace_end_slot(&play->pace, &play->source, play->low, 0, play->reported, play->refaulted);
    judge(play);
    report_surplus(play);
    play->low = play->unreported;
    play->reported_before = play->reported;
    if (play->unreported > 0)
        request(play);
    check(play);
}

/* Frames come, or go. */
static void move(struct play *play, bool take, uint64_t frames)
{
    uint64_t warm = frames < play->unreported ? frames : play->unreported;

    if (take) {
        play->unreported -= warm;
        play->reported -= frames - warm;
        play->refaulted += frames - warm;
        play->used += frames;
        if (play->unreported < play->low)
            play->low = play->unreported;
        if (frames > warm)
            request(play);
    } else {
        play->used -= frames;
        play->unreported += frames;
        request(play);
    }
    check(play);
}

static void play_record(struct play *play, const struct trace_record *record)
{
    uint64_t at = play->began + record->us * 1000 / play->manner->speed;

    while (play->due <= at) {
        pass_time(play, play->due);
        look(play);
    }
    pass_time(play, at);
    if (record->op == TRACE_ALLOC)
        play->orders[record->id] = record->order;
    if (play->orders[record->id] >= play->manner->min_order)
        move(play, record->op == TRACE_ALLOC, (uint64_t)1 << record->order);
}

/* Nothing is used any more: soon all that is free is reported, and nobody looks. */
static void come_to_rest(struct play *play)
{
    for (unsigned i = 0; i < RESTS && play->due != NEVER; i++) {
        pass_time(play, play->due);
        look(play);
    }
    assert_true(play->due == NEVER);
    assert_int_equal(play->unreported, 0);
    assert_int_equal(play->reported, play->frames - play->used);
}

/* From one slot of which the refaults cost too much to the next, refaults that were soon may cost
 * one part in SHARE of the time, and what was saved up, a second's worth. */
static void check_cost(const struct play *play)
{
    uint64_t tolerated = (play->soon - play->soon_exceeding) * play->manner->refault_ns * SHARE;

    assert_int_equal(play->soon, play->pace.refaulted_soon);
    assert_true(tolerated <= play->now - play->began + (1 + play->exceeded) * S);
    assert_true(play->soon <= play->refaulted);
    assert_int_equal(play->refaulted + play->reported, play->sent);
}

static double mib(double frames)
{
    return frames / 256;
}

static void print(const struct play *play)
{
    const struct ebb_pace *pace = &play->pace;

    print_message(
        "  %-12s %-9s: %8.0f MiB x s above live, of %8.0f; reported %7.0f MiB, refaulted "
        "%7.0f MiB, %6.0f of it soon; window %6.1f ms, +%u -%u\n",
        play->trace->workload, play->manner->name, mib(play->held),
        mib((double)(play->frames - play->used) * (double)(play->now - play->began) / 1e9),
        mib((double)play->sent), mib((double)play->refaulted), mib((double)play->soon),
        (double)pace->window / 1e6, (unsigned)pace->grown, (unsigned)pace->shrunk);
}

static void open_play(struct play *play, const struct trace *trace, const struct manner *manner)
{
    const struct ebb_pace_config config = {
        .window_min = 50 * MS,
        .window_max = 2500 * MS,
        .window_start = 300 * MS,
        .refault_ns = manner->refault_ns,
    };

    memset(play, 0, sizeof(*play));
    play->trace = trace;
    play->manner = manner;
    play->orders = calloc(trace->blocks ? trace->blocks : 1, 1);
    assert_non_null(play->orders);
    play->began = play->now = 1000 * S;
    /* What was in use before may have been freed, too. */
    play->frames = trace->free > trace->peak_frames ? trace->free : trace->peak_frames;
    play->unreported = play->low = play->frames;
    ebb_pace_init(&play->pace, &config);
    ebb_pace_start(&play->pace, play->now);
    ebb_pace_start_source(&play->pace, &play->source, play->unreported, 0, 0);
    play->due = NEVER;
    request(play);
}

/* Returns how often the window grew. */
static uint64_t play_trace(const struct trace *trace, const struct manner *manner)
{
    struct play play;

    open_play(&play, trace, manner);
    for (size_t i = 0; i < trace->n_records; i++)
        play_record(&play, &trace->records[i]);
    come_to_rest(&play);
    check_cost(&play);
    print(&play);
    free(play.orders);
    return play.pace.grown;
}

static uint64_t play_file(const char *path)
{
    char error[TRACE_ERROR];
    struct trace trace;
    uint64_t grown = 0;

    if (trace_read(&trace, path, error) != TRACE_OK)
        fail_msg("%s: %s", path, error);
    for (size_t i = 0; i < sizeof(manners) / sizeof(manners[0]); i++)
        grown += play_trace(&trace, &manners[i]);
    trace_release(&trace);
    return grown;
}

static void test_file(void **state)
{
    assert_true(play_file(*state) > 0);
}

static int is_trace(const struct dirent *entry)
{
    static const char suffix[] = ".trace.zst";
    size_t len = strlen(entry->d_name);

    return len >= sizeof(suffix) && strcmp(entry->d_name + len + 1 - sizeof(suffix), suffix) == 0;
}

static void test_directory(void **state)
{
    const char *dir = getenv("EBB_TRACES");
    struct dirent **names;
    int n;

    (void)state;
    if (!dir) {
        print_message("SKIP: recorded traces; EBB_TRACES names no directory of them\n");
        skip();
    }
    n = scandir(dir, &names, is_trace, alphasort);
    if (n <= 0)
        fail_msg("EBB_TRACES=%s: no traces there", dir);
    for (int i = 0; i < n; i++) {
        char path[4096];

        snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
        (void)play_file(path);
        free(names[i]);
    }
    free(names);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_file, argv[1]),
        cmocka_unit_test(test_directory),
    };

    if (argc != 2) {
        fprintf(stderr, "usage: test_pace_traces FILE\n");
        return 2;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
