/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Does the suite for sources find what it is for? A toy allocator that is right passes it; with
 * each of the defects below it fails, and the suite says what is wrong in the words given here.
 *
 * The toy has blocks of one size, in two queues: free, and free and reported. A freed block goes
 * to the head of the first, from where it is allocated; take() begins at the tail.
 */
#include "source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORDER  4u
#define BLOCKS 160u
#define BASE   UINT64_C(0x10000)

enum defect {
    NO_DEFECT,
    LOSES_A_BLOCK,
    PUTS_BACK_TWICE,
    TAKES_ALLOCATED,
    TAKES_TWICE,
    TAKES_FOREIGN,
    TAKES_SMALL,
    TAKES_NOTHING,
    TAKES_ONE,
    TAKES_TOO_MANY,
    NO_END,
    HANGS,
    OVERFILLS,
    IGNORES_QUOTA,
    IGNORES_WATERMARK,
    KEEPS_LEVEL,
    TAKE_IS_USE,
    USE_IS_TAKE,
    KEEPS_LOW,
    ADD_RAISES_LOW,
    WITHDRAWN_IS_USE,
    UNSET,
    NO_REFAULTS,
    NO_MARKS,
    MARKS_FAILED,
    KEEPS_MARK,
    FAILED_IS_FIRST,
    ALLOCATES_IN_FLIGHT,
    NEVER_ASKS,
    ALWAYS_ASKS,
    ASKS_LOCKED,
    ASKS_IN_GIVE_BACK,
    NO_ASK_FOR_REFAULT,
    KEEPS_LOCK,
    LINKS_IN_FRAMES,
    FORGETS_ON_DETACH,
    DEFECTS
};

static const struct {
    const char *name;
    const char *words; /* part of what the suite says */
} defects[DEFECTS] = {
    [LOSES_A_BLOCK] = {"loses a block", "after give_back() of what was reported: counts() has"},
    [PUTS_BACK_TWICE] = {"puts a block back twice", "counts() has"},
    [TAKES_ALLOCATED] = {"takes a block in use", "which is allocated"},
    [TAKES_TWICE] = {"takes a block twice", "which is in flight"},
    [TAKES_FOREIGN] = {"takes a block of somebody else's", "which is not the source's"},
    [TAKES_SMALL] = {"takes smaller blocks than the device", "takes none below"},
    [TAKES_NOTHING] = {"takes nothing", "take() isolates nothing"},
    [TAKES_ONE] = {"takes one and says that was all", "frames are free and not reported"},
    [TAKES_TOO_MANY] = {"takes all in one hold", "blocks in one call"},
    [NO_END] = {"always says that there may be more", "times in a row that there may be more"},
    [HANGS] = {"does not return", "take() does not return"},
    [OVERFILLS] = {"adds to a full batch", "in take(): ebb: broken: ebb_pass_has_room(pass)"},
    [IGNORES_QUOTA] = {"ignores the quota", "quota"},
    [IGNORES_WATERMARK] = {"ignores its watermark", "with a watermark of"},
    [KEEPS_LEVEL] = {"does not count what it takes", "after take(): counts() has"},
    [TAKE_IS_USE] = {"counts taking as use", "after take(): the low-water mark is"},
    [USE_IS_TAKE] = {"counts use as taking", "after alloc(): the low-water mark is"},
    [KEEPS_LOW] = {"keeps its low-water mark", "begins no new low-water mark"},
    [ADD_RAISES_LOW] = {"raises its low-water mark", "after free(): the low-water mark is"},
    [WITHDRAWN_IS_USE] = {"counts withdrawing as use", "for nobody's need, but withdrawn is 0"},
    [UNSET] = {"leaves a count unset", "counts() leaves refaulted unset"},
    [NO_REFAULTS] = {"counts no refaults", "refaulted went up by 0"},
    [NO_MARKS] = {"has no marks", "frames as reported, but"},
    [MARKS_FAILED] = {"marks failed blocks", "frames as reported, but the host was told of"},
    [KEEPS_MARK] = {"keeps the mark of what is used", "after free(): counts() has"},
    [FAILED_IS_FIRST] = {"takes a failed block first", "is taken before all others"},
    [ALLOCATES_IN_FLIGHT] = {"allocates what is in flight", "alloc() returned frame"},
    [NEVER_ASKS] = {"asks for no pass", "nobody asked for a pass"},
    [ALWAYS_ASKS] = {"asks at every free", "a pass was asked for 3 times before one began"},
    [ASKS_LOCKED] = {"asks with its lock held", "a lock that must be held alone"},
    [ASKS_IN_GIVE_BACK] = {"asks for what comes back", "give_back() asked for a pass"},
    [NO_ASK_FOR_REFAULT] = {"does not ask for refaults",
                            "reported memory was allocated, and nobody"},
    [KEEPS_LOCK] = {"keeps its lock", "returns with a lock held"},
    [LINKS_IN_FRAMES] = {"has its links in free frames", "in the allocator"},
    [FORGETS_ON_DETACH] = {"forgets its marks with the device", "after detach(): counts() has"},
};

/* ---- the toy ---- */

enum state { FREE, REPORTED, ALLOCATED, IN_FLIGHT, WITHDRAWN };

struct queue {
    unsigned at[BLOCKS]; /* the head last */
    unsigned n;
};

struct toy {
    struct ebb_source source;
    struct ebb_lock lock;
    enum defect defect;
    struct queue queues[2]; /* of FREE, of REPORTED */
    enum state states[BLOCKS];
    struct ebb_level level;
    uint64_t refaulted;
    uint64_t watermark;
    unsigned min_order;
    unsigned looked; /* in this pass */
    unsigned taken;
    uint64_t frames[BLOCKS << ORDER][8]; /* as much of each as the suite needs */
};

static struct toy *toy_of(struct ebb_source *source)
{
    return (struct toy *)((char *)source - offsetof(struct toy, source));
}

static void insert(struct queue *queue, unsigned at, unsigned block)
{
    if (queue->n == BLOCKS)
        return;
    memmove(&queue->at[at + 1], &queue->at[at], (queue->n - at) * sizeof(queue->at[0]));
    queue->at[at] = block;
    queue->n++;
}

static void drop(struct queue *queue, unsigned at)
{
    queue->n--;
    memmove(&queue->at[at], &queue->at[at + 1], (queue->n - at) * sizeof(queue->at[0]));
}

static void put(struct toy *toy, unsigned block, enum state state, unsigned at)
{
    struct queue *queue = &toy->queues[state == REPORTED];

    insert(queue, at, block);
    toy->states[block] = state;
    if (toy->defect == LINKS_IN_FRAMES)
        toy->frames[block << ORDER][0] = queue->n > 1 ? queue->at[queue->n - 2] : block;
    if (state == FREE)
        ebb_level_add(&toy->level, 1u << ORDER);
    if (state == FREE && toy->defect == ADD_RAISES_LOW)
        toy->level.low += 1u << ORDER;
}

static bool ask(struct toy *toy)
{
    if (toy->defect == NEVER_ASKS)
        return false;
    return ebb_source_note(&toy->source) || toy->defect == ALWAYS_ASKS;
}

static void leave(struct toy *toy, bool request)
{
    if (request && toy->defect == ASKS_LOCKED)
        ebb_source_request(&toy->source);
    ebb_port_unlock(&toy->lock);
    if (request)
        ebb_source_request(&toy->source);
}

static bool toy_alloc(void *allocator, unsigned order, ebb_pfn_t *pfn)
{
    struct toy *toy = allocator;
    bool request = false;
    unsigned block;

    (void)order;
    ebb_port_lock(&toy->lock);
    if (toy->queues[0].n + toy->queues[1].n == 0) {
        for (block = 0; block < BLOCKS && toy->states[block] != IN_FLIGHT; block++)
            ;
        leave(toy, false);
        *pfn = BASE + (block << ORDER);
        return toy->defect == ALLOCATES_IN_FLIGHT && block < BLOCKS;
    }
    if (toy->queues[0].n > 0) {
        block = toy->queues[0].at[--toy->queues[0].n];
        (toy->defect == USE_IS_TAKE ? ebb_level_isolate : ebb_level_use)(&toy->level, 1u << ORDER);
    } else {
        block = toy->queues[1].at[--toy->queues[1].n];
        toy->refaulted += toy->defect == NO_REFAULTS ? 0 : 1u << ORDER;
        request = toy->defect != NO_ASK_FOR_REFAULT && ask(toy);
    }
    if (toy->defect == LINKS_IN_FRAMES && toy->frames[block << ORDER][0] >= BLOCKS)
        ebb_port_panic("the toy followed a link to nowhere");
    toy->states[block] = ALLOCATED;
    leave(toy, request);
    *pfn = BASE + (block << ORDER);
    return true;
}

static void toy_free(void *allocator, ebb_pfn_t pfn, unsigned order)
{
    struct toy *toy = allocator;
    const enum state state = toy->defect == KEEPS_MARK && toy->refaulted > 0 ? REPORTED : FREE;

    (void)order;
    ebb_port_lock(&toy->lock);
    put(toy, (unsigned)(pfn - BASE) >> ORDER, state, toy->queues[state == REPORTED].n);
    leave(toy, ask(toy));
}

static bool toy_withdraw(void *allocator, ebb_pfn_t pfn)
{
    struct toy *toy = allocator;
    const unsigned block = (unsigned)(pfn - BASE) >> ORDER;

    ebb_port_lock(&toy->lock);
    for (unsigned i = 0; i < toy->queues[0].n; i++) {
        if (toy->queues[0].at[i] == block) {
            drop(&toy->queues[0], i);
            break;
        }
    }
    toy->states[block] = WITHDRAWN;
    (toy->defect == WITHDRAWN_IS_USE ? ebb_level_use : ebb_level_withdraw)(&toy->level,
                                                                           1u << ORDER);
    leave(toy, false);
    return true;
}

static void *toy_address(void *allocator, ebb_pfn_t pfn)
{
    return ((struct toy *)allocator)->frames[pfn - BASE];
}

/* ---- as a source ---- */

static int attach(struct ebb_source *source, const struct ebb_terms *terms)
{
    struct toy *toy = toy_of(source);

    toy->min_order = terms->order > 0 ? terms->order - 1u : 0;
    return toy->defect == TAKES_SMALL || toy->min_order <= ORDER;
}

static void detach(struct ebb_source *source)
{
    struct toy *toy = toy_of(source);

    while (toy->defect == FORGETS_ON_DETACH && toy->queues[1].n > 0)
        put(toy, toy->queues[1].at[--toy->queues[1].n], FREE, 0);
}

static void count(struct ebb_source *source, const struct ebb_pace *slot, struct ebb_counts *counts)
{
    struct toy *toy = toy_of(source);

    ebb_port_lock(&toy->lock);
    ebb_level_read(&toy->level, slot && toy->defect != KEEPS_LOW, counts);
    counts->small = 0;
    counts->reported = (uint64_t)toy->queues[1].n << ORDER;
    if (toy->defect != UNSET)
        counts->refaulted = toy->refaulted;
    ebb_port_unlock(&toy->lock);
}

static bool begin_pass(struct ebb_source *source, const struct ebb_pass *pass)
{
    (void)pass;
    toy_of(source)->taken = 0;
    return true;
}

static void isolate(struct toy *toy, struct ebb_pass *pass)
{
    const unsigned block = toy->queues[0].at[0];

    drop(&toy->queues[0], 0);
    toy->states[block] = IN_FLIGHT;
    if (toy->defect == TAKE_IS_USE)
        ebb_level_use(&toy->level, 1u << ORDER);
    else if (toy->defect != KEEPS_LEVEL)
        ebb_level_isolate(&toy->level, 1u << ORDER);
    ebb_pass_hold(pass, BASE + (block << ORDER), ORDER);
    toy->taken++;
}

/* What only some toys take. */
static void take_wrongly(struct toy *toy, struct ebb_pass *pass)
{
    const unsigned last = pass->n_blocks - 1;

    if (pass->quota < 1u << ORDER || !ebb_pass_fits(pass, ORDER))
        return;
    if (toy->defect == TAKES_TWICE)
        ebb_pass_hold(pass, pass->blocks[last].pfn, ORDER);
    if (toy->defect == TAKES_FOREIGN)
        ebb_pass_hold(pass, BASE + (BLOCKS << ORDER), ORDER);
    for (unsigned block = 0; toy->defect == TAKES_ALLOCATED && block < BLOCKS; block++) {
        if (toy->states[block] == ALLOCATED) {
            ebb_pass_hold(pass, BASE + (block << ORDER), ORDER);
            return;
        }
    }
}

static bool may_take(const struct toy *toy, struct ebb_pass *pass)
{
    const uint64_t free = (uint64_t)(toy->queues[0].n + toy->queues[1].n) << ORDER;

    if (toy->defect == TAKES_NOTHING || (toy->defect == TAKES_ONE && toy->taken > 0) ||
        toy->queues[0].n == 0)
        return false;
    if (toy->defect != IGNORES_QUOTA && pass->quota < 1u << ORDER)
        return false;
    if (toy->defect != IGNORES_WATERMARK && free < toy->watermark + (1u << ORDER))
        return false;
    return toy->defect == OVERFILLS || ebb_pass_fits(pass, ORDER);
}

static bool take(struct ebb_source *source, struct ebb_pass *pass)
{
    struct toy *toy = toy_of(source);
    unsigned looks = toy->defect == TAKES_TOO_MANY ? BLOCKS : EBB_TAKE_LOOKS;
    bool more;

    ebb_port_lock(&toy->lock);
    while (looks-- > 0 && may_take(toy, pass)) {
        isolate(toy, pass);
        take_wrongly(toy, pass);
    }
    while (toy->defect == HANGS)
        __asm__ volatile("");
    more = toy->queues[0].n > 0 && toy->defect != TAKES_ONE;
    more = more && (toy->defect == NO_END || may_take(toy, pass) || pass->room == 0 ||
                    !ebb_pass_has_room(pass));
    if (toy->defect != KEEPS_LOCK)
        ebb_port_unlock(&toy->lock);
    return more || toy->defect == NO_END;
}

static void give_back(struct ebb_source *source, const struct ebb_held *blocks, unsigned n,
                      bool reported)
{
    struct toy *toy = toy_of(source);

    ebb_port_lock(&toy->lock);
    if ((reported && toy->defect != NO_MARKS) || toy->defect == MARKS_FAILED) {
        for (unsigned i = 0; i < n; i++)
            put(toy, (unsigned)(blocks[i].pfn - BASE) >> ORDER, REPORTED, 0);
    } else {
        for (unsigned i = 0; i < n; i++)
            put(toy, (unsigned)(blocks[i].pfn - BASE) >> ORDER, FREE,
                toy->defect == FAILED_IS_FIRST ? 0 : toy->queues[0].n);
    }
    if (reported && toy->defect == LOSES_A_BLOCK)
        drop(&toy->queues[1], 0);
    if (reported && toy->defect == PUTS_BACK_TWICE)
        put(toy, (unsigned)(blocks[0].pfn - BASE) >> ORDER, REPORTED, 0);
    leave(toy, toy->defect == ASKS_IN_GIVE_BACK && ask(toy));
}

/* ---- as a subject ---- */

static void *make(const struct source_subject *subject)
{
    static const struct ebb_source_ops ops = {
        .attach = attach,
        .detach = detach,
        .counts = count,
        .open = begin_pass,
        .take = take,
        .give_back = give_back,
    };
    struct toy *toy = calloc(1, sizeof(*toy));

    if (!toy)
        return NULL;
    toy->source = (struct ebb_source){.ops = &ops, .large_order = ORDER};
    toy->defect = *(const enum defect *)subject->variant;
    toy->watermark = subject->watermark;
    for (unsigned block = 0; block < BLOCKS; block++)
        put(toy, block, FREE, 0);
    return toy;
}

static struct ebb_source *source_of(void *allocator)
{
    return &((struct toy *)allocator)->source;
}

static void restore(void *allocator, ebb_pfn_t pfn)
{
    toy_free(allocator, pfn, ORDER);
}

static bool is_found(enum defect defect)
{
    const struct source_subject subject = {
        .name = "toy",
        .base = BASE,
        .frames = BLOCKS << ORDER,
        .orders = 1u << ORDER,
        .large_order = ORDER,
        .max_order = ORDER,
        .report_order = ORDER,
        .watermark = 3u << ORDER,
        .patience_s = defect == HANGS ? 1 : 0,
        .variant = &defect,
        .make = make,
        .destroy = free,
        .source = source_of,
        .alloc = toy_alloc,
        .free = toy_free,
        .address = toy_address,
        .withdraw = toy_withdraw,
        .restore = restore,
    };
    struct source_finding finding;
    const bool passes = source_suite(&subject, &finding);

    if (defect == NO_DEFECT) {
        printf("%s a toy that is right%s%s%s%s\n", passes ? "ok  " : "FAIL", passes ? "" : ": ",
               passes ? "" : finding.row, passes ? "" : ": ", passes ? "" : finding.words);
        return passes;
    }
    if (passes) {
        printf("FAIL a toy that %s passes the suite\n", defects[defect].name);
        return false;
    }
    if (!strstr(finding.words, defects[defect].words)) {
        printf("FAIL a toy that %s is blamed for something else: %s: %s\n", defects[defect].name,
               finding.row, finding.words);
        return false;
    }
    printf("ok   a toy that %s: %s: %s\n", defects[defect].name, finding.row, finding.words);
    return true;
}

int main(void)
{
    unsigned missed = 0;

    for (int defect = NO_DEFECT; defect < DEFECTS; defect++)
        missed += !is_found((enum defect)defect);
    return missed > 0;
}
