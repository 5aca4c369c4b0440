/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See source.h. Three layers: a model of every frame; operations that are compared with it (those
 * of the source, which the engine calls through here, and alloc and free); and rows, each a short
 * script on a fresh allocator. A finding leaves its row by longjmp().
 */
#define _GNU_SOURCE
#include "source.h"

#include "port_virtual.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define MS       UINT64_C(1000000)
#define CAPACITY 32u

/* CPU time after which a row counts as one that hangs. */
#define PATIENCE_S 60

/* take() in a row without a block, and runs of the engine in a row at one instant, that are too
 * many. */
#define BARREN_LIMIT 2000u
#define RUNS_LIMIT   100000u

#define RANDOM_STEPS 4000u
#define RANDOM_RUNS  4u

/* ---- the model ---- */

enum frame { FREE, ALLOCATED, HELD, WITHDRAWN, FRAME_STATES };
static const char *const frame_words[FRAME_STATES] = {"free", "allocated", "in flight",
                                                      "withdrawn"};

/* Of a free frame: must it have the mark? MAYBE: it was reported, but a merge or a split may have
 * lost the mark. */
enum told { UNTOLD, MAYBE, TOLD, TOLD_STATES };

struct block {
    ebb_pfn_t pfn;
    unsigned order;
};

static struct suite {
    const struct source_subject *subject;
    void *allocator;
    struct ebb_source *source;
    const struct ebb_source_ops *ops; /* the source's */
    struct ebb_source_ops watched;    /* in their place */
    struct ebb_report report;
    const char *op; /* that the source is in; NULL: none */

    uint8_t *frame; /* enum frame */
    uint8_t *told;  /* enum told, of free ones */
    uint8_t *order; /* of a block held, at its first frame */
    uint64_t *stamps;
    uint64_t n_frames[FRAME_STATES];
    uint64_t n_told[TOLD_STATES];
    uint64_t refaulted;   /* the source's count */
    struct block *blocks; /* allocated */
    unsigned n_blocks;

    /* The device. */
    struct ebb_report_device device;
    unsigned min_order;
    bool registered;
    bool later; /* completes when told to */
    int status; /* that it completes with */
    bool refuses;
    bool in_flight;
    unsigned batches;
    ebb_pfn_t first_taken; /* in the last batch */

    /* The pass. */
    uint64_t quota; /* frames of large blocks that may still be taken, whatever pace says */
    bool open;
    unsigned barren;
    uint64_t taken; /* frames */

    uint64_t random;
    jmp_buf out;
    struct source_finding *finding;
} s;

enum { OUT_PANIC = 1, OUT_FINDING, OUT_HANG };

static _Noreturn void find(const char *format, ...) __attribute__((format(printf, 1, 2)));
static _Noreturn void find(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(s.finding->words, sizeof(s.finding->words), format, args);
    va_end(args);
    longjmp(s.out, OUT_FINDING);
}

typedef unsigned long long ull; /* for printf */

static uint64_t index_of(ebb_pfn_t pfn)
{
    return pfn - s.subject->base;
}

static uint64_t large_frames(void)
{
    return UINT64_C(1) << s.subject->large_order;
}

static void set_frame(uint64_t i, enum frame to, enum told told)
{
    if (s.frame[i] == FREE)
        s.n_told[s.told[i]]--;
    s.n_frames[s.frame[i]]--;
    s.frame[i] = (uint8_t)to;
    s.told[i] = (uint8_t)told;
    s.n_frames[to]++;
    if (to == FREE)
        s.n_told[told]++;
}

/* Something happened in this block: what it may merge with, or was split from, may have lost its
 * mark for that. */
static void doubt_marks(ebb_pfn_t pfn, bool split)
{
    const uint64_t size = UINT64_C(1) << s.subject->max_order;
    const uint64_t first = index_of(pfn) & ~(size - 1);
    bool doubt = split && s.subject->loses_marks;

    for (uint64_t i = first; i < first + size; i++)
        doubt |= s.frame[i] == FREE && s.told[i] == UNTOLD;
    for (uint64_t i = first; doubt && i < first + size; i++) {
        if (s.frame[i] == FREE && s.told[i] == TOLD)
            set_frame(i, FREE, MAYBE);
    }
}

/* ---- counts ---- */

static struct ebb_counts raw_counts(const struct ebb_pace *slot)
{
    struct ebb_counts counts;

    memset(&counts, 0xa5, sizeof(counts));
    s.ops->counts(s.source, slot, &counts);
    return counts;
}

static uint64_t sum_of(const struct ebb_counts *counts)
{
    return counts->unreported + counts->small + counts->reported;
}

static void check_all_set(const struct ebb_counts *counts)
{
    static const char *const names[] = {"unreported", "low",      "withdrawn",
                                        "small",      "reported", "refaulted"};
    uint64_t values[sizeof(names) / sizeof(names[0])];

    memcpy(values, counts, sizeof(values));
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (values[i] == UINT64_C(0xa5a5a5a5a5a5a5a5))
            find("counts() leaves %s unset", names[i]);
    }
}

/* What the source counts, compared with the model. `after`: what has just happened. */
static struct ebb_counts check_counts(const char *after)
{
    const struct ebb_counts counts = raw_counts(NULL);
    const uint64_t free = s.n_frames[FREE];

    check_all_set(&counts);
    if (sum_of(&counts) < free || sum_of(&counts) > free + s.n_frames[WITHDRAWN])
        find("after %s: counts() has %llu frames (unreported %llu, small %llu, reported %llu), but "
             "%llu are free",
             after, (ull)sum_of(&counts), (ull)counts.unreported, (ull)counts.small,
             (ull)counts.reported, (ull)free);
    if (counts.reported < s.n_told[TOLD])
        find("after %s: counts() has %llu frames as reported, but %llu were, and not used since",
             after, (ull)counts.reported, (ull)s.n_told[TOLD]);
    if (!s.subject->estimates && counts.reported > s.n_told[TOLD] + s.n_told[MAYBE])
        find("after %s: counts() has %llu frames as reported, but the host was told of %llu", after,
             (ull)counts.reported, (ull)(s.n_told[TOLD] + s.n_told[MAYBE]));
    if (counts.low > counts.unreported)
        find("after %s: the low-water mark %llu is above the level %llu", after, (ull)counts.low,
             (ull)counts.unreported);
    return counts;
}

/* Where the low-water mark is after an operation. */
static void check_low(const char *after, const struct ebb_counts *before,
                      const struct ebb_counts *now, uint64_t low)
{
    if (s.subject->unpaced)
        return;
    if (now->low != low)
        find("after %s: the low-water mark is %llu, not %llu; it was %llu, the level went from "
             "%llu to %llu",
             after, (ull)now->low, (ull)low, (ull)before->low, (ull)before->unreported,
             (ull)now->unreported);
    if (now->withdrawn != before->withdrawn)
        find("after %s: withdrawn is %llu, and was %llu", after, (ull)now->withdrawn,
             (ull)before->withdrawn);
}

static void check_same_refaults(const char *after, const struct ebb_counts *now)
{
    if (now->refaulted != s.refaulted)
        find("after %s: refaulted is %llu, and was %llu", after, (ull)now->refaulted,
             (ull)s.refaulted);
}

/* ---- stamps ---- */

static uint64_t *stamp_of(uint64_t i)
{
    return s.subject->address ? s.subject->address(s.allocator, s.subject->base + i) : &s.stamps[i];
}

static void check_stamp(uint64_t i)
{
    if (*stamp_of(i) != ~i)
        find("frame %#llx is allocated, and the device wrote over it", (ull)(s.subject->base + i));
}

/* What the host may do to a frame that it was told of. */
static void scribble(uint64_t i)
{
    if (s.subject->address)
        memset(stamp_of(i), 0x5c, 64);
    else
        *stamp_of(i) = 0x5c5c5c5c;
}

/* And at any time. */
static void scribble_all(void)
{
    for (uint64_t i = 0; i < s.subject->frames; i++) {
        if (s.frame[i] == HELD || (s.frame[i] == FREE && s.told[i] != UNTOLD))
            scribble(i);
        if (s.frame[i] == ALLOCATED)
            check_stamp(i);
    }
    if (s.subject->check && s.subject->check(s.allocator))
        find("the allocator's own check: %s", s.subject->check(s.allocator));
}

/* ---- the operations of the source, as the engine calls them ---- */

static void enter(const char *op)
{
    if (s.op)
        find("%s is called from inside %s", op, s.op);
    s.op = op;
}

static void leave(void)
{
    if (port_virtual.locks_held > 0)
        find("%s returns with a lock held", s.op);
    s.op = NULL;
}

static void watched_counts(struct ebb_source *source, const struct ebb_pace *slot,
                           struct ebb_counts *counts)
{
    const struct ebb_counts before = check_counts("what came before counts()");
    struct ebb_counts now;

    (void)source;
    enter("counts()");
    *counts = raw_counts(slot);
    leave();
    if (memcmp(counts, &before, sizeof(before)) != 0)
        find("counts() with a slot does not return what it returned without one");
    now = check_counts("counts()");
    if (slot && !s.subject->unpaced && (now.low != now.unreported || now.withdrawn != 0))
        find("counts() at the end of a slot begins no new low-water mark: low %llu of %llu, "
             "withdrawn %llu",
             (ull)now.low, (ull)now.unreported, (ull)now.withdrawn);
}

/* take() isolated this. */
static void hold(const struct ebb_held *block)
{
    const ebb_pfn_t pfn = block->pfn;
    const uint64_t frames = UINT64_C(1) << block->order;

    if (index_of(pfn) >= s.subject->frames || frames > s.subject->frames - index_of(pfn))
        find("take() isolated block %#llx of order %u, which is not the source's", (ull)pfn,
             block->order);
    if (block->order < s.min_order)
        find("take() isolated a block of order %u, but the device takes none below %u",
             block->order, s.min_order);
    for (uint64_t i = index_of(pfn); i < index_of(pfn) + frames; i++) {
        if (s.frame[i] != FREE)
            find("take() isolated frame %#llx, which is %s", (ull)(s.subject->base + i),
                 frame_words[s.frame[i]]);
        if (s.told[i] == TOLD)
            find("take() isolated frame %#llx, which was reported and not used since",
                 (ull)(s.subject->base + i));
        set_frame(i, HELD, UNTOLD);
    }
    s.order[index_of(pfn)] = block->order;
    s.taken += frames;
}

static void check_taken(const struct ebb_pass *pass, unsigned first, uint64_t quota,
                        const struct ebb_counts *before)
{
    struct ebb_counts now;
    uint64_t large = 0, small = 0;

    for (unsigned i = first; i < pass->n_blocks; i++) {
        const struct ebb_held *block = &pass->blocks[i];

        hold(block);
        *(block->order >= s.subject->large_order ? &large : &small) += UINT64_C(1) << block->order;
    }
    if (!s.subject->unpaced && large > quota)
        find("take() isolated %llu frames of large blocks with a quota of %llu", (ull)large,
             (ull)quota);
    if (pass->n_blocks - first > 2 * EBB_TAKE_LOOKS)
        find("take() isolated %u blocks in one call, which is more than about %u",
             pass->n_blocks - first, EBB_TAKE_LOOKS);
    if (large + small > 0 && s.n_frames[FREE] < s.subject->watermark)
        find("take() left %llu frames free, with a watermark of %llu", (ull)s.n_frames[FREE],
             (ull)s.subject->watermark);
    now = check_counts("take()");
    /* It may go down, where take() merges what was freed earlier. */
    if (now.reported > before->reported)
        find("take() raised the count of reported frames from %llu to %llu", (ull)before->reported,
             (ull)now.reported);
    check_same_refaults("take()", &now);
    /* What merged or was split on the way is large on one side of it only. */
    if (small == 0 && now.small == before->small)
        check_low("take()", before, &now, before->low > large ? before->low - large : 0);
}

static bool watched_take(struct ebb_source *source, struct ebb_pass *pass)
{
    const struct ebb_counts before = check_counts("what came before take()");
    const unsigned first = pass->n_blocks;
    const uint64_t quota = pass->quota;
    const uint64_t allowed = quota < s.quota ? quota : s.quota;
    uint64_t used;
    bool more;

    if (!s.open)
        find("take() is called in no pass");
    pass->quota = allowed;
    enter("take()");
    more = s.ops->take(source, pass);
    leave();
    if (pass->n_blocks < first || pass->quota > allowed)
        find("take() meddled with the batch");
    used = allowed - pass->quota;
    pass->quota = quota - used;
    s.quota -= used;
    check_taken(pass, first, allowed, &before);
    s.barren = pass->n_blocks == first ? s.barren + 1 : 0;
    if (more && s.barren > BARREN_LIMIT)
        find("take() said %u times in a row that there may be more, and isolated nothing",
             s.barren);
    return more;
}

static void watched_give_back(struct ebb_source *source, const struct ebb_held *blocks, unsigned n,
                              bool reported)
{
    const struct ebb_counts before = check_counts("what came before give_back()");
    const bool requested = s.source->requested;
    struct ebb_counts now;

    if (n == 0 || n > EBB_TAKE_LOOKS)
        find("the engine gives %u blocks back at once", n);
    enter("give_back()");
    s.ops->give_back(source, blocks, n, reported);
    leave();
    if (!requested && s.source->requested)
        find("give_back() asked for a pass");
    for (unsigned i = 0; i < n; i++) {
        const uint64_t at = index_of(blocks[i].pfn);

        if (s.frame[at] != HELD || s.order[at] != blocks[i].order)
            find("the engine gives block %#llx back, which it does not hold", (ull)blocks[i].pfn);
        for (uint64_t j = at; j < at + (UINT64_C(1) << blocks[i].order); j++)
            set_frame(j, FREE, reported ? TOLD : UNTOLD);
    }
    for (unsigned i = 0; i < n; i++)
        doubt_marks(blocks[i].pfn, false);
    now = check_counts(reported ? "give_back() of what was reported"
                                : "give_back() of what was not reported");
    check_same_refaults("give_back()", &now);
    check_low("give_back()", &before, &now, before.low);
}

static int watched_attach(struct ebb_source *source, const struct ebb_terms *terms)
{
    int err;

    enter("attach()");
    err = s.ops->attach(source, terms);
    leave();
    check_counts("attach()");
    return err;
}

static void watched_detach(struct ebb_source *source)
{
    if (s.n_frames[HELD] > 0)
        find("detach() with %llu frames in flight", (ull)s.n_frames[HELD]);
    enter("detach()");
    s.ops->detach(source);
    leave();
    check_counts("detach()");
}

static bool watched_open(struct ebb_source *source, const struct ebb_pass *pass)
{
    enter("open()");
    s.open = !s.ops->open || s.ops->open(source, pass);
    leave();
    s.barren = 0;
    check_counts("open()");
    return s.open;
}

static bool watched_close(struct ebb_source *source)
{
    struct ebb_counts counts;
    bool again;

    s.open = false;
    enter("close()");
    again = s.ops->close && s.ops->close(source);
    leave();
    counts = check_counts("close()");
    return s.ops->close ? again : counts.unreported > 0;
}

/* ---- the device ---- */

static void complete(int status)
{
    s.in_flight = false;
    ebb_report_complete(&s.report, status);
}

static int submit(struct ebb_report_device *device, const struct ebb_range *ranges, unsigned n)
{
    if (port_virtual.locks_held > 0 || s.op)
        find("a batch is submitted with a lock held, or from inside the source");
    s.batches++;
    s.first_taken = ranges[0].addr >> EBB_FRAME_SHIFT;
    if (n > device->capacity)
        find("a batch of %u ranges, for a device that takes %u", n, device->capacity);
    for (unsigned i = 0; i < n; i++) {
        for (uint64_t pfn = ranges[i].addr >> EBB_FRAME_SHIFT;
             pfn < (ranges[i].addr + ranges[i].len) >> EBB_FRAME_SHIFT; pfn++) {
            if (s.frame[index_of(pfn)] != HELD)
                find("the host is told of frame %#llx, which is %s", (ull)pfn,
                     frame_words[s.frame[index_of(pfn)]]);
            scribble(index_of(pfn));
        }
    }
    if (s.refuses)
        return -EBB_EBUSY;
    s.in_flight = true;
    if (!s.later)
        complete(s.status);
    return 0;
}

/* What unregister waits for. */
static void poll_device(struct ebb_report_device *device)
{
    (void)device;
    if (s.in_flight)
        complete(s.status);
}

static const struct ebb_report_device_ops device_ops = {.submit = submit, .poll = poll_device};

static void begin_reporting(unsigned min_order)
{
    s.min_order = min_order;
    s.device.min_order = EBB_REPORT_ORDER(min_order);
    if (ebb_report_register(&s.report, &s.device))
        find("the device cannot be registered");
    s.registered = true;
    scribble_all();
}

static void end_reporting(void)
{
    if (ebb_report_unregister(&s.report))
        find("the device cannot be unregistered");
    s.registered = false;
    if (s.n_frames[HELD] > 0)
        find("%llu frames are in flight after the device is gone", (ull)s.n_frames[HELD]);
    scribble_all();
}

/* ---- the engine ---- */

static uint64_t run(void)
{
    return ebb_report_run(&s.report);
}

/* Let the engine do all that it wants to do in so much time. */
static void pass_time(uint64_t ns)
{
    const uint64_t end = port_virtual.now + ns;
    unsigned runs = 0;
    uint64_t due;

    while ((due = run()) <= end) {
        if (due > port_virtual.now)
            runs = 0;
        if (++runs > RUNS_LIMIT)
            find("the engine has begun %u passes without getting anywhere", runs);
        if (due > port_virtual.now)
            port_virtual.now = due;
    }
    port_virtual.now = end;
    scribble_all();
}

/* Passes over all there is that are enough for it: what one corrects is for the next. */
#define ESTIMATE_PASSES 4u

/* One pass over all there is. Returns frames taken. */
static uint64_t pass_now(void)
{
    const uint64_t before = s.taken;

    for (unsigned i = 0; i < (s.subject->estimates ? ESTIMATE_PASSES : 1); i++) {
        ebb_report_now(&s.report);
        run();
    }
    scribble_all();
    return s.taken - before;
}

static uint64_t requests(void)
{
    struct ebb_report_stats stats;

    ebb_report_get_stats(&s.report, &stats);
    return stats.requests;
}

/* Is there a free block of this order with a frame that is not told? */
static bool is_untold(uint64_t first, unsigned order)
{
    bool untold = false;

    for (uint64_t i = first; i < first + (UINT64_C(1) << order); i++) {
        if (s.frame[i] != FREE)
            return false;
        untold |= s.told[i] == UNTOLD;
    }
    return untold;
}

/* All that can be reported has been. */
static void check_all_told(const char *after)
{
    const uint64_t size = UINT64_C(1) << s.min_order;
    uint64_t left = 0;

    for (uint64_t i = 0; i < s.subject->frames; i += size)
        left += is_untold(i, s.min_order) ? size : 0;
    /* The watermark may keep more than itself, for no block may be of the right size. */
    if (left > 0 &&
        s.n_frames[FREE] >= s.subject->watermark + (UINT64_C(1) << s.subject->max_order))
        find("%s: %llu frames are free and not reported", after, (ull)left);
}

/* ---- the allocator ---- */

static void check_allocated(ebb_pfn_t pfn, unsigned order)
{
    const uint64_t frames = UINT64_C(1) << order;

    if (index_of(pfn) >= s.subject->frames || frames > s.subject->frames - index_of(pfn) ||
        (pfn & (frames - 1)) != 0)
        find("alloc() returned %#llx for a block of order %u, which is none of the allocator's",
             (ull)pfn, order);
    for (uint64_t i = index_of(pfn); i < index_of(pfn) + frames; i++) {
        if (s.frame[i] != FREE)
            find("alloc() returned frame %#llx, which is %s", (ull)(s.subject->base + i),
                 frame_words[s.frame[i]]);
    }
}

static void check_refaults(const struct ebb_counts *now, uint64_t least, uint64_t most)
{
    const uint64_t refaulted = now->refaulted - s.refaulted;

    if (!s.subject->estimates && (refaulted < least || refaulted > most))
        find("after alloc(): refaulted went up by %llu, but %llu reported frames were allocated",
             (ull)refaulted, (ull)(refaulted < least ? least : most));
    s.refaulted = now->refaulted;
}

static uint64_t lower(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static bool use(unsigned order)
{
    const struct ebb_counts before = check_counts("what came before alloc()");
    const uint64_t requests_before = requests();
    const bool requested = s.source->requested;
    uint64_t n_told[TOLD_STATES] = {0};
    struct ebb_counts now;
    ebb_pfn_t pfn;

    if (!s.subject->alloc(s.allocator, order, &pfn))
        return false;
    check_allocated(pfn, order);
    for (uint64_t i = index_of(pfn); i < index_of(pfn) + (UINT64_C(1) << order); i++) {
        n_told[s.told[i]]++;
        set_frame(i, ALLOCATED, UNTOLD);
        *stamp_of(i) = ~i;
    }
    s.blocks[s.n_blocks++] = (struct block){.pfn = pfn, .order = order};
    doubt_marks(pfn, true);
    now = check_counts("alloc()");
    check_refaults(&now, n_told[TOLD], n_told[TOLD] + n_told[MAYBE]);
    check_low("alloc()", &before, &now, lower(before.low, now.unreported));
    if (!s.subject->unpaced && !s.subject->estimates && n_told[TOLD] > 0 && !requested &&
        requests() == requests_before)
        find("reported memory was allocated, and nobody asked for a pass");
    return true;
}

/* The i-th of the blocks allocated. */
static void give_up(unsigned i)
{
    const struct ebb_counts before = check_counts("what came before free()");
    const struct block block = s.blocks[i];
    struct ebb_counts now;

    for (uint64_t j = index_of(block.pfn); j < index_of(block.pfn) + (UINT64_C(1) << block.order);
         j++) {
        check_stamp(j);
        set_frame(j, FREE, UNTOLD);
    }
    s.blocks[i] = s.blocks[--s.n_blocks];
    s.subject->free(s.allocator, block.pfn, block.order);
    doubt_marks(block.pfn, false);
    now = check_counts("free()");
    check_same_refaults("free()", &now);
    check_low("free()", &before, &now, before.low);
}

static void give_up_all(void)
{
    while (s.n_blocks > 0)
        give_up(s.n_blocks - 1);
}

static void use_large(void)
{
    if (!use(s.subject->large_order))
        find("alloc() of order %u fails, though %llu frames are free", s.subject->large_order,
             (ull)s.n_frames[FREE]);
}

static unsigned smallest_order(void)
{
    return (unsigned)__builtin_ctz(s.subject->orders);
}

static void use_all(unsigned order)
{
    while (use(order))
        ;
}

/* One in three of the smallest blocks stays in use, but none in one block of max_order. */
static void fragment(void)
{
    use_all(smallest_order());
    for (unsigned i = s.n_blocks; i-- > 0;) {
        const uint64_t at = index_of(s.blocks[i].pfn);

        if (at >> s.subject->max_order == 1 || (at >> s.blocks[i].order) % 3 > 0)
            give_up(i);
    }
}

/* ---- rows: counts ---- */

static void row_begins(void)
{
    const struct ebb_counts counts = check_counts("make()");

    if (counts.refaulted != 0 || counts.reported != 0)
        find("a new source has reported or refaulted frames");
    if (!s.subject->unpaced && counts.unreported != s.subject->frames)
        find("%llu frames are free in large blocks, but the level says %llu",
             (ull)s.subject->frames, (ull)counts.unreported);
}

static void row_counts_use(void)
{
    for (unsigned order = 0; order <= s.subject->max_order; order++) {
        if (s.subject->orders >> order & 1)
            (void)use(order);
    }
    give_up_all();
    fragment();
    give_up_all();
    use_all(s.subject->large_order);
    give_up_all();
}

/* As the engine ends a slot. */
static void end_slot(void)
{
    struct ebb_counts counts;

    watched_counts(s.source, &s.report.pace, &counts);
}

/* Each step checks where it is. */
static void row_low_water(void)
{
    uint64_t low;

    end_slot();
    use_large();
    use_large();
    low = check_counts("alloc()").low;
    if (low > s.subject->frames - 2 * large_frames())
        find("memory was allocated, and the low-water mark stayed at %llu", (ull)low);
    give_up_all();
    if (check_counts("free()").unreported != s.subject->frames)
        find("all memory is free in large blocks again, and the level is not %llu",
             (ull)s.subject->frames);
    use_large();
    end_slot();
    if (use(smallest_order()) && check_counts("alloc()").low >= s.subject->frames - large_frames())
        find("a small block was allocated, and the low-water mark did not move");
}

static void row_withdraw(void)
{
    const ebb_pfn_t pfn = s.subject->base;
    struct ebb_counts before, now;

    end_slot();
    before = check_counts("counts()");
    if (!s.subject->withdraw(s.allocator, pfn))
        find("withdraw() refuses a free block");
    for (uint64_t i = 0; i < large_frames(); i++)
        set_frame(i, WITHDRAWN, UNTOLD);
    now = check_counts("withdraw()");
    if (now.withdrawn < large_frames() || now.withdrawn != before.unreported - now.unreported)
        find("the level went from %llu to %llu for nobody's need, but withdrawn is %llu",
             (ull)before.unreported, (ull)now.unreported, (ull)now.withdrawn);
    if (now.low != before.low - now.withdrawn)
        find("after withdraw(): the low-water mark is %llu, not %llu", (ull)now.low,
             (ull)(before.low - now.withdrawn));
    begin_reporting(s.subject->report_order);
    pass_now();
    end_reporting();
    s.subject->restore(s.allocator, pfn);
    for (uint64_t i = 0; i < large_frames(); i++)
        set_frame(i, FREE, UNTOLD);
    doubt_marks(pfn, false);
    check_counts("restore()");
}

/* ---- rows: taking ---- */

static void row_takes_all(void)
{
    begin_reporting(s.subject->report_order);
    if (pass_now() == 0)
        find("take() isolates nothing, though %llu frames are free", (ull)s.n_frames[FREE]);
    check_all_told("after a pass over everything");
}

static void row_takes_fragments(void)
{
    fragment();
    begin_reporting(s.subject->report_order);
    pass_now();
    check_all_told("after a pass over fragments");
    give_up_all();
    use_all(s.subject->large_order);
    if (s.n_frames[FREE] > 0)
        find("all memory is free again, and no more than %llu frames of it can be had in blocks of "
             "order %u",
             (ull)s.n_frames[ALLOCATED], s.subject->large_order);
    give_up_all();
    use_all(smallest_order());
    pass_now();
    give_up_all();
    pass_now();
    check_all_told("after a second pass");
}

static void row_quota(void)
{
    const uint64_t most = UINT64_C(1) << s.subject->max_order;

    begin_reporting(s.subject->report_order);
    s.quota = 0;
    pass_now();
    s.quota = large_frames() - 1;
    pass_now();
    s.quota = 2 * most + 1;
    if (pass_now() == 0)
        find("take() isolates nothing with a quota of %llu", (ull)(2 * most + 1));
    s.quota = UINT64_MAX;
    pass_now();
    check_all_told("after passes with a quota, and one without");
}

/* A source may take larger blocks than the device asks for, but no smaller ones. */
static void row_orders(void)
{
    fragment();
    for (unsigned order = s.subject->report_order; order <= s.subject->max_order + 1u; order++) {
        begin_reporting(order);
        pass_now();
        if (order == s.subject->large_order)
            check_all_told("after a pass for a device that wants large blocks");
        end_reporting();
        give_up_all();
        fragment();
    }
}

static void row_small_batches(void)
{
    s.device.capacity = 1;
    fragment();
    begin_reporting(s.subject->report_order);
    pass_now();
    check_all_told("after a pass in batches of one range");
}

static void row_large_batches(void)
{
    s.device.capacity = EBB_REPORT_CAPACITY_LIMIT;
    begin_reporting(s.subject->report_order);
    pass_now();
    fragment();
    pass_now();
    give_up_all();
    pass_now();
    check_all_told("after passes in batches of the largest size");
}

/* Hardly any memory is free, and all of that in a batch. */
static void row_watermark(void)
{
    use_all(s.subject->large_order);
    s.later = true;
    begin_reporting(s.subject->report_order);
    while (s.n_blocks > 0 && s.n_frames[FREE] < 2 * s.subject->watermark) {
        give_up(s.n_blocks - 1);
        pass_now();
        if (s.in_flight)
            complete(0);
        run();
    }
}

/* ---- rows: giving back ---- */

static void row_in_flight(void)
{
    s.later = true;
    begin_reporting(s.subject->report_order);
    pass_now();
    if (!s.in_flight)
        find("take() isolates nothing, though all is free");
    for (unsigned order = s.subject->max_order + 1u; order-- > 0;) {
        if (s.subject->orders >> order & 1)
            use_all(order);
    }
    scribble_all();
    give_up_all();
    s.later = false;
    complete(0);
    run();
    pass_now();
    check_all_told("after a batch was in flight while all the rest was used and freed");
}

static void check_failed(uint64_t reported)
{
    const struct ebb_counts now = check_counts("a failed batch");

    if (now.reported != reported)
        find("a batch failed, and counts() has %llu frames as reported", (ull)now.reported);
    if (s.n_frames[HELD] > 0)
        find("a batch failed, and %llu frames did not come back", (ull)s.n_frames[HELD]);
}

static void row_failed(void)
{
    begin_reporting(s.subject->report_order);
    s.status = -EBB_EIO;
    pass_now();
    check_failed(0);
    s.status = 0;
    s.refuses = true;
    pass_now();
    check_failed(0);
    s.refuses = false;
    pass_now();
    check_all_told("after a batch failed, and a pass after that");
}

/* One bad block must not keep all others from being reported. */
static void row_failed_is_last(void)
{
    ebb_pfn_t failed;

    s.device.capacity = 1;
    begin_reporting(s.subject->large_order);
    s.status = -EBB_EIO;
    pass_now();
    failed = s.first_taken;
    s.later = true;
    pass_now();
    if (s.first_taken == failed)
        find("block %#llx came back from a failed batch, and is taken before all others",
             (ull)failed);
}

static void row_once(void)
{
    begin_reporting(s.subject->report_order);
    pass_now();
    for (unsigned i = 0; i < 3; i++) {
        if (pass_now() > 0)
            find("what was reported is reported again, though nobody used it");
    }
    use_large();
    pass_now();
    give_up_all();
    if (pass_now() < large_frames())
        find("a block was used and freed, and is not reported again");
    pass_time(100000 * MS);
    use_all(smallest_order());
    if (check_counts("alloc()").refaulted == 0)
        find("all memory was reported and allocated, and refaulted is 0");
}

/* ---- rows: asking ---- */

static void row_asks(void)
{
    uint64_t before;

    for (unsigned i = 0; i < 3; i++)
        use_large();
    begin_reporting(s.subject->report_order);
    pass_now();
    pass_time(100000 * MS);
    before = requests();
    give_up(0);
    if (requests() == before)
        find("a block was freed, and nobody asked for a pass");
    give_up(0);
    give_up(0);
    if (requests() > before + 1)
        find("a pass was asked for %llu times before one began", (ull)(requests() - before));
    pass_time(100000 * MS);
    check_all_told("a while after a block was freed");
}

static void row_free_in_pass(void)
{
    use_large();
    use_large();
    s.later = true;
    begin_reporting(s.subject->report_order);
    pass_now();
    if (!s.in_flight)
        find("take() isolates nothing, though all but two blocks are free");
    give_up_all();
    if (!s.source->requested)
        find("a block was freed during a pass, and no other pass was asked for");
    s.later = false;
    complete(0);
    pass_time(100000 * MS);
    check_all_told("after a block was freed during a pass");
}

/* Over time, without anybody's hurry. */
static void row_settles(void)
{
    use_large();
    use_large();
    begin_reporting(s.subject->report_order);
    pass_time(100000 * MS);
    check_all_told("100 s after the device came");
    give_up_all();
    fragment();
    pass_time(100000 * MS);
    check_all_told("100 s after memory was used and freed in fragments");
    give_up_all();
    pass_time(100000 * MS);
    check_all_told("100 s after memory was freed");
}

/* What was used a moment ago may be needed again. */
static void row_waits(void)
{
    struct ebb_report_stats stats;
    uint64_t before;

    begin_reporting(s.subject->report_order);
    for (unsigned i = 0; i < 100; i++) { /* so that the clock goes on */
        use_large();
        pass_time(50 * MS);
        give_up_all();
        pass_time(50 * MS);
    }
    fragment();
    before = s.taken;
    ebb_report_get_stats(&s.report, &stats);
    pass_time(stats.window_ns / 2);
    if (s.taken > before)
        find("%llu frames were freed and taken again within half a window",
             (ull)(s.taken - before));
}

/* ---- rows: the device goes ---- */

static void leave_in_pass(int status)
{
    s.later = true;
    begin_reporting(s.subject->report_order);
    pass_now();
    s.status = status;
    end_reporting();
    s.later = false;
    s.status = 0;
}

static void row_unregister(void)
{
    s.device.capacity = 1;
    leave_in_pass(0);
    leave_in_pass(-EBB_EIO);
    use_large();
    give_up_all();
    begin_reporting(s.subject->report_order);
    pass_now();
    check_all_told("after devices came and went in the middle of a pass");
}

static void row_resumes(void)
{
    uint64_t reported;

    fragment();
    begin_reporting(s.subject->report_order);
    pass_now();
    reported = check_counts("a pass").reported;
    for (unsigned i = 0; i < 3; i++) {
        end_reporting();
        if (check_counts("unregister").reported != reported)
            find("the marks went with the device");
        begin_reporting(s.subject->report_order);
        if (pass_now() > 0)
            find("another device is told what an earlier one was told");
    }
}

/* ---- row: anything ---- */

static unsigned random_below(unsigned n)
{
    s.random = s.random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(s.random >> 33) % n;
}

static void use_random(void)
{
    unsigned order = random_below(s.subject->max_order + 1u);

    while (!(s.subject->orders >> order & 1))
        order = random_below(s.subject->max_order + 1u);
    (void)use(order);
}

static void random_step(void)
{
    switch (random_below(16)) {
    case 0:
        if (random_below(8) > 0)
            break;
        if (s.registered)
            end_reporting();
        else
            begin_reporting(random_below(2) ? s.subject->report_order : s.subject->large_order);
        break;
    case 1:
        s.later = random_below(2);
        s.status = random_below(8) ? 0 : -EBB_EIO;
        s.refuses = random_below(16) == 0;
        s.quota = s.subject->unpaced || random_below(4) > 0
                      ? UINT64_MAX
                      : random_below((unsigned)s.subject->frames);
        s.device.capacity = s.registered ? s.device.capacity : 1 + random_below(CAPACITY);
        break;
    case 2:
        if (random_below(4) == 0)
            ebb_report_now(&s.report);
        break;
    case 3:
        if (s.in_flight)
            complete(s.status);
        break;
    case 4:
        if (s.n_blocks > 0 && random_below(32) == 0)
            give_up_all();
        break;
    case 5:
        scribble_all();
        break;
    case 6:
    case 7:
        port_virtual.now += random_below(100) * MS;
        (void)run();
        break;
    default:
        if (s.n_blocks > 0 && random_below(2))
            give_up(random_below(s.n_blocks));
        else
            use_random();
    }
}

static uint64_t random_seed(unsigned run)
{
    const char *text = getenv("EBB_SEED");

    return text ? strtoull(text, NULL, 0) : run + 1;
}

static void row_random(void)
{
    s.random = s.random * UINT64_C(0x9e3779b97f4a7c15);
    for (unsigned step = 0; step < RANDOM_STEPS; step++)
        random_step();
    if (s.registered)
        end_reporting();
    give_up_all();
    s.later = s.refuses = false;
    s.status = 0;
    s.quota = UINT64_MAX;
    begin_reporting(s.subject->report_order);
    pass_now();
    check_all_told("at the end");
    pass_time(100000 * MS);
}

/* ---- running rows ---- */

struct row {
    const char *name;
    void (*run)(void);
    bool is_paced; /* not for sources that are unpaced */
};

static const struct row rows[] = {
    {"what a new source counts", row_begins, false},
    {"counts follow use", row_counts_use, false},
    {"low-water mark", row_low_water, true},
    {"a pass takes all", row_takes_all, false},
    {"a pass takes fragments", row_takes_fragments, false},
    {"quota", row_quota, true},
    {"smallest orders", row_orders, false},
    {"batches of one range", row_small_batches, false},
    {"batches of the largest size", row_large_batches, false},
    {"watermark", row_watermark, false},
    {"in flight is out of reach", row_in_flight, false},
    {"failed batches", row_failed, false},
    {"a failed block is taken last", row_failed_is_last, false},
    {"reported once, until used", row_once, false},
    {"asks once", row_asks, false},
    {"a free during a pass", row_free_in_pass, false},
    {"all is reported in time", row_settles, false},
    {"but not before its time", row_waits, true},
    {"the device goes in a pass", row_unregister, false},
    {"the next device resumes", row_resumes, false},
    {"withdrawn is not used", row_withdraw, true},
    {"anything", row_random, false},
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

static void make(const struct source_subject *subject, struct source_finding *finding)
{
    static const struct ebb_report_config config = {.capacity = EBB_REPORT_CAPACITY_LIMIT};
    int err;

    s = (struct suite){.subject = subject, .finding = finding, .quota = UINT64_MAX};
    port_virtual_reset();
    port_virtual.panic_jump = &s.out;
    port_virtual.now = 1000 * MS;
    s.frame = calloc(subject->frames, 1);
    s.told = calloc(subject->frames, 1);
    s.order = calloc(subject->frames, 1);
    s.stamps = calloc(subject->frames, sizeof(*s.stamps));
    s.blocks = calloc(subject->frames, sizeof(*s.blocks));
    s.allocator = subject->make(subject);
    if (!s.frame || !s.told || !s.order || !s.stamps || !s.blocks || !s.allocator) {
        fprintf(stderr, "no memory for %s\n", subject->name);
        exit(1);
    }
    s.n_frames[FREE] = s.n_told[UNTOLD] = subject->frames;
    s.device = (struct ebb_report_device){.ops = &device_ops, .capacity = CAPACITY};
    s.source = subject->source(s.allocator);
    if (subject->add)
        err = subject->add(s.allocator, &s.report, &config);
    else if ((err = ebb_report_init(&s.report, &config)) == 0)
        err = ebb_report_add_source(&s.report, s.source);
    if (err) {
        fprintf(stderr, "%s cannot be added to an engine\n", subject->name);
        exit(1);
    }
    port_virtual_alone(&s.report.lock);
    s.ops = s.source->ops;
    s.watched = (struct ebb_source_ops){
        .counts = watched_counts,
        .take = watched_take,
        .give_back = watched_give_back,
        .attach = s.ops->attach ? watched_attach : NULL,
        .detach = s.ops->detach ? watched_detach : NULL,
        .open = watched_open,
        .close = watched_close,
    };
    s.source->ops = &s.watched;
}

static void unmake(void)
{
    port_virtual.panic_jump = NULL;
    port_virtual.locks_held = 0; /* whoever was left in the middle */
    port_virtual_reset();
    s.subject->destroy(s.allocator);
    free(s.frame);
    free(s.told);
    free(s.order);
    free(s.stamps);
    free(s.blocks);
}

static void on_alarm(int number)
{
    (void)number;
    longjmp(s.out, OUT_HANG);
}

static void set_alarm(time_t seconds)
{
    const struct itimerval timer = {.it_value.tv_sec = seconds};
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_NODEFER};

    sigaction(SIGVTALRM, &action, NULL);
    setitimer(ITIMER_VIRTUAL, &timer, NULL);
}

/* Returns whether it found nothing. */
static bool run_row(const struct source_subject *subject, const struct row *row, uint64_t seed,
                    struct source_finding *finding)
{
    int out;

    finding->row = NULL;
    make(subject, finding);
    s.random = seed;
    out = setjmp(s.out);
    if (out == 0) {
        set_alarm(subject->patience_s ? subject->patience_s : PATIENCE_S);
        row->run();
        if (s.registered)
            end_reporting();
        scribble_all();
    } else if (out == OUT_PANIC) {
        snprintf(finding->words, sizeof(finding->words), "in %s: %s", s.op ? s.op : "the allocator",
                 port_virtual.panic);
    } else if (out == OUT_HANG) {
        snprintf(finding->words, sizeof(finding->words), "%s does not return",
                 s.op ? s.op : "the allocator or the engine");
    }
    set_alarm(0);
    if (out != 0)
        finding->row = row->name;
    unmake();
    return out == 0;
}

static bool applies(const struct source_subject *subject, const struct row *row)
{
    return !(row->is_paced && subject->unpaced) &&
           (row->run != row_withdraw || subject->withdraw) &&
           (row->run != row_watermark || subject->watermark > 0);
}

static unsigned times(const struct row *row)
{
    return row->run == row_random && !getenv("EBB_SEED") ? RANDOM_RUNS : 1;
}

bool source_suite(const struct source_subject *subject, struct source_finding *finding)
{
    finding->row = NULL;
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        for (unsigned n = 0; n < times(row) && applies(subject, row); n++) {
            if (!run_row(subject, row, random_seed(n), finding))
                return false;
        }
    }
    return true;
}

int source_main(const struct source_subject *subject)
{
    struct source_finding finding;
    unsigned failed = 0;

    for (const struct row *row = rows; row < rows + ROWS; row++) {
        if (!applies(subject, row))
            printf("--   %s: %s: does not apply\n", subject->name, row->name);
        for (unsigned n = 0; n < times(row) && applies(subject, row); n++) {
            const bool good = run_row(subject, row, random_seed(n), &finding);

            printf("%s %s: %s", good ? "ok  " : "FAIL", subject->name, row->name);
            if (row->run == row_random)
                printf(" (EBB_SEED=%llu)", (ull)random_seed(n));
            printf("%s%s\n", good ? "" : ": ", good ? "" : finding.words);
            failed += !good;
        }
    }
    return failed > 0;
}
