/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames that a workload holds. Each carries a stamp, made of its pfn and the
 * generation in which it was taken, in its first and in its last eight bytes. A
 * frame that the host drops while it is in use loses them: any check finds it.
 * No two CPUs use the same generation, so that a frame given to both is found
 * as well. Frames of HOLD_LIGHT have the first stamp only, for workloads that shall
 * cost little more than taking and freeing.
 *
 * One set per CPU and purpose; a set is an array of entries, grown by frames of
 * the same memory: two levels of record frames below a root.
 *
 * Blocks can be moved while no workload runs. Their entries are not sorted by pfn, so
 * each block then says itself where its entry is, and the entry has to agree.
 */
#include "guest.h"

#define ENTRIES    512u /* in a record frame */
#define LEAF_SHIFT 9u
#define DIR_SHIFT  18u
#define DIRS       128u /* 128 x 2^18 blocks: 128 GiB in single frames, for each CPU */

#define STAMP_WORD (EBB_FRAME_SIZE / 8 - 1) /* the second place in a frame */
#define PLACE_WORD 1u                       /* of a block's first frame, for moving it */

#define FAULTS_SHOWN 16u
#define SAMPLE       64u /* of so many light frames one is checked before they are freed */

/* An entry: pfn, order and generation of one block. Never 0, since generations
 * begin at 1. */
#define ENTRY_PFN_BITS   36u
#define ENTRY_PFN_MASK   (((uint64_t)1 << ENTRY_PFN_BITS) - 1)
#define ENTRY_GENERATION 40u
#define GENERATIONS      0xffffffu

struct set {
    uint64_t count;  /* blocks */
    uint64_t frames; /* in them, and record frames */
    uint64_t *dirs[DIRS];
};

struct owner {
    struct set sets[HOLD_SETS];
    uint64_t random;
    uint32_t first_generation, generation; /* of every cpus_online()-th this CPU's own */
    uint64_t checks;                       /* frames looked at */
} __attribute__((aligned(64)));

static struct owner *owners;
static uint64_t errors; /* atomic */

/* What stands for a record frame that cannot be found any more; read only. */
static uint64_t nothing[ENTRIES];

static uint64_t make_entry(ebb_pfn_t pfn, unsigned order, uint32_t generation)
{
    return pfn | (uint64_t)order << ENTRY_PFN_BITS | (uint64_t)generation << ENTRY_GENERATION;
}
static ebb_pfn_t entry_pfn(uint64_t entry)
{
    return entry & ENTRY_PFN_MASK;
}
static unsigned entry_order(uint64_t entry)
{
    return entry >> ENTRY_PFN_BITS & 15;
}

static uint64_t stamp_of(ebb_pfn_t pfn, uint64_t entry)
{
    return pfn | entry >> ENTRY_GENERATION << ENTRY_PFN_BITS;
}

void hold_init(unsigned cpus, uint64_t seed)
{
    owners = early_alloc(cpus * sizeof *owners, 64);
    for (unsigned i = 0; i < cpus; i++) {
        owners[i].random = (seed + i + 1) * 0x9e3779b97f4a7c15u;
        owners[i].first_generation = owners[i].generation = i + 1;
    }
}

static uint32_t next_generation(struct owner *owner)
{
    owner->generation += cpus_online();
    if (owner->generation > GENERATIONS)
        owner->generation = owner->first_generation;
    return owner->generation;
}

/* splitmix64: any seed is a good one. */
uint64_t hold_random(unsigned cpu, uint64_t below)
{
    uint64_t z = owners[cpu].random += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % below;
}

/* ---- faults ---- */

void hold_count_checks(unsigned cpu, uint64_t n)
{
    owners[cpu].checks += n;
}

void hold_error(void)
{
    __atomic_add_fetch(&errors, 1u, __ATOMIC_RELAXED);
}

uint64_t hold_errors(void)
{
    return __atomic_load_n(&errors, __ATOMIC_RELAXED);
}

uint64_t hold_checks(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; owners && i < cpus_online(); i++)
        sum += __atomic_load_n(&owners[i].checks, __ATOMIC_RELAXED);
    return sum;
}

void hold_fault(ebb_pfn_t pfn, uint64_t expect, uint64_t found)
{
    uint64_t n = __atomic_add_fetch(&errors, 1u, __ATOMIC_RELAXED);

    if (n > FAULTS_SHOWN)
        return;
    console_print("LOST: frame %lx (pfn %lu) in use: expected stamp %016lx, found %016lx\n", pfn,
                  pfn, expect, found);
    telemetry_fault(pfn, expect, found);
    if (n == FAULTS_SHOWN)
        console_print("LOST: more are counted, but not shown\n");
}

/* ---- stamps ---- */

static bool is_light(const struct owner *owner, const struct set *set)
{
    return set == &owner->sets[HOLD_LIGHT];
}

static void stamp(uint64_t entry, bool light)
{
    ebb_pfn_t pfn = entry_pfn(entry);

    for (uint64_t n = (uint64_t)1 << entry_order(entry); n > 0; n--, pfn++) {
        volatile uint64_t *words = memory_pointer(pfn);

        words[0] = stamp_of(pfn, entry);
        if (!light)
            words[STAMP_WORD] = words[0];
    }
}

/* A frame that was lost is stamped again, so that it counts once. */
static void check_frame(struct owner *owner, const struct set *set, uint64_t entry, ebb_pfn_t pfn)
{
    volatile uint64_t *words = memory_pointer(pfn);
    volatile uint64_t *again = is_light(owner, set) ? words : &words[STAMP_WORD];
    uint64_t expect = stamp_of(pfn, entry);
    uint64_t first = words[0];
    uint64_t second = *again;

    owner->checks++;
    if (EBB_LIKELY(first == expect && second == expect))
        return;
    hold_fault(pfn, expect, first != expect ? first : second);
    words[0] = *again = expect;
}

static void check_block(struct owner *owner, const struct set *set, uint64_t entry)
{
    ebb_pfn_t pfn = entry_pfn(entry);

    for (uint64_t n = (uint64_t)1 << entry_order(entry); n > 0; n--, pfn++)
        check_frame(owner, set, entry, pfn);
}

/* ---- the array of entries ---- */

static uint64_t *leaf_of(struct set *set, uint64_t i)
{
    uint64_t leaf = set->dirs[i >> DIR_SHIFT][i >> LEAF_SHIFT & (ENTRIES - 1)];

    return leaf ? arch_pointer(leaf) : nothing;
}

static uint64_t *entry_at(struct set *set, uint64_t i)
{
    return &leaf_of(set, i)[i & (ENTRIES - 1)];
}

/* The entry at i, unless its record was lost too: then 0, and a fault, which
 * names the record frame. */
static uint64_t read_entry(struct set *set, uint64_t i)
{
    uint64_t *leaf = leaf_of(set, i);
    uint64_t entry = leaf[i & (ENTRIES - 1)];

    if (EBB_UNLIKELY(entry == 0))
        hold_fault(arch_address(leaf == nothing ? set->dirs[i >> DIR_SHIFT] : leaf) >>
                       EBB_FRAME_SHIFT,
                   UINT64_MAX, 0);
    return entry;
}

static uint64_t *new_record(struct set *set)
{
    ebb_pfn_t pfn;

    if (memory_take(0, EBB_UNMOVABLE, 0, &pfn) != 0)
        return NULL;
    set->frames++;
    return memory_pointer(pfn);
}

/* An address of 0: where it is was lost. */
static void free_record(struct set *set, uint64_t address)
{
    if (address)
        memory_free(address >> EBB_FRAME_SHIFT, 0);
    set->frames--;
}

static int push(struct set *set, uint64_t entry)
{
    uint64_t i = set->count;
    uint64_t dir = i >> DIR_SHIFT;

    if ((i & (ENTRIES - 1)) == 0) {
        uint64_t *leaf;

        if (dir >= DIRS)
            return -EBB_ENOMEM;
        if (!set->dirs[dir] && !(set->dirs[dir] = new_record(set)))
            return -EBB_ENOMEM;
        leaf = new_record(set);
        if (!leaf) /* an empty directory stays for next time, or goes in trim() */
            return -EBB_ENOMEM;
        set->dirs[dir][i >> LEAF_SHIFT & (ENTRIES - 1)] = arch_address(leaf);
    }
    if (EBB_UNLIKELY(leaf_of(set, i) == nothing)) {
        hold_fault(arch_address(set->dirs[dir]) >> EBB_FRAME_SHIFT, UINT64_MAX, 0);
        return -EBB_ENOMEM;
    }
    *entry_at(set, i) = entry;
    set->count++;
    set->frames += (uint64_t)1 << entry_order(entry);
    return 0;
}

/* Record frames that hold no entry any more go back. */
static void trim(struct set *set)
{
    uint64_t dir = set->count >> DIR_SHIFT;

    if (set->count & (ENTRIES - 1))
        return;
    if (set->dirs[dir]) {
        free_record(set, set->dirs[dir][set->count >> LEAF_SHIFT & (ENTRIES - 1)]);
        if ((set->count & (((uint64_t)1 << DIR_SHIFT) - 1)) == 0) {
            free_record(set, arch_address(set->dirs[dir]));
            set->dirs[dir] = NULL;
        }
    }
}

/* Take entry i out of the array; the last one takes its place. */
static void remove(struct set *set, uint64_t i, uint64_t entry)
{
    if (EBB_LIKELY(leaf_of(set, i) != nothing))
        *entry_at(set, i) = *entry_at(set, set->count - 1);
    set->count--;
    set->frames -= (uint64_t)1 << entry_order(entry);
    trim(set);
}

/* ---- for workloads ---- */

int hold_take(unsigned cpu, enum hold_set which, unsigned order, enum ebb_migratetype type)
{
    struct owner *owner = &owners[cpu];
    struct set *set = &owner->sets[which];
    uint64_t entry;
    ebb_pfn_t pfn;
    int err = memory_take(order, type, 0, &pfn);

    if (err != 0)
        return err;
    if (pfn > ENTRY_PFN_MASK)
        ebb_port_panic("a frame beyond what a record holds");
    entry = make_entry(pfn, order, next_generation(owner));
    err = push(set, entry);
    if (err != 0) {
        memory_free(pfn, order);
        return err;
    }
    stamp(entry, is_light(owner, set));
    return 0;
}

void hold_check_random(unsigned cpu, enum hold_set which)
{
    struct owner *owner = &owners[cpu];
    struct set *set = &owner->sets[which];
    uint64_t entry;

    if (set->count == 0)
        return;
    entry = read_entry(set, hold_random(cpu, set->count));
    if (entry)
        check_frame(owner, set, entry,
                    entry_pfn(entry) + hold_random(cpu, (uint64_t)1 << entry_order(entry)));
}

void hold_check_all(unsigned cpu, enum hold_set which)
{
    struct owner *owner = &owners[cpu];
    struct set *set = &owner->sets[which];

    for (uint64_t i = 0; i < set->count; i++) {
        uint64_t entry = read_entry(set, i);

        if (entry)
            check_block(owner, set, entry);
    }
}

/* Nearly always after a check: what was freed beside it may be with the host already. */
static void free_at(struct owner *owner, struct set *set, uint64_t i, uint64_t entry, bool check)
{
    if (entry) {
        if (check)
            check_block(owner, set, entry);
        memory_free(entry_pfn(entry), entry_order(entry));
    }
    remove(set, i, entry);
}

void hold_free_random(unsigned cpu, enum hold_set which)
{
    struct set *set = &owners[cpu].sets[which];
    uint64_t i;

    if (set->count == 0)
        return;
    i = hold_random(cpu, set->count);
    free_at(&owners[cpu], set, i, read_entry(set, i), true);
}

static void free_all(struct owner *owner, struct set *set, bool check)
{
    while (set->count)
        free_at(owner, set, set->count - 1, read_entry(set, set->count - 1), check);
    /* A directory that push() made and then had no leaf for. */
    for (unsigned i = 0; i < DIRS; i++) {
        if (set->dirs[i]) {
            free_record(set, arch_address(set->dirs[i]));
            set->dirs[i] = NULL;
        }
    }
}

void hold_free_all(unsigned cpu, enum hold_set which)
{
    free_all(&owners[cpu], &owners[cpu].sets[which], true);
}

void hold_free_sampled(unsigned cpu, enum hold_set which)
{
    struct set *set = &owners[cpu].sets[which];

    for (uint64_t n = (set->count + SAMPLE - 1) / SAMPLE; n > 0; n--)
        hold_check_random(cpu, which);
    free_all(&owners[cpu], set, false);
}

int hold_thin(unsigned cpu, enum hold_set from, enum hold_set to, uint64_t k)
{
    struct owner *owner = &owners[cpu];
    struct set *source = &owner->sets[from];

    while (source->count) {
        uint64_t last = source->count - 1;
        uint64_t entry = read_entry(source, last);
        int err;

        if (!entry || entry_pfn(entry) % k != 0) {
            free_at(owner, source, last, entry, true);
            continue;
        }
        check_block(owner, source, entry);
        err = push(&owner->sets[to], entry);
        if (err != 0)
            return err;
        remove(source, last, entry);
    }
    return 0;
}

/* ---- moving ---- */

/* Where an entry is. Never 0. */
static uint64_t make_place(unsigned cpu, unsigned which, uint64_t i)
{
    return (uint64_t)1 << 63 | (uint64_t)cpu << 48 | (uint64_t)which << 40 | i;
}

/* The entry that a place names, if it is that of this block; NULL: it is not. */
static uint64_t *find_entry(uint64_t place, ebb_pfn_t pfn, unsigned order, bool *light)
{
    unsigned cpu = place >> 48 & 0x7fff;
    unsigned which = place >> 40 & 0xff;
    uint64_t i = place & 0xffffffffff;
    struct set *set;
    uint64_t *entry;

    if (!(place >> 63) || cpu >= cpus_online() || which >= HOLD_SETS)
        return NULL;
    set = &owners[cpu].sets[which];
    if (i >= set->count)
        return NULL;
    entry = entry_at(set, i);
    *light = is_light(&owners[cpu], set);
    return entry_pfn(*entry) == pfn && entry_order(*entry) == order ? entry : NULL;
}

static void note_places(unsigned cpu, unsigned which)
{
    struct set *set = &owners[cpu].sets[which];

    for (uint64_t i = 0; i < set->count; i++) {
        uint64_t entry = read_entry(set, i);
        volatile uint64_t *words = memory_pointer(entry_pfn(entry));

        if (entry)
            words[PLACE_WORD] = make_place(cpu, which, i);
    }
}

/* The stamps are those that were copied, made to fit their new frames: what was damaged
 * before, or by the move, stays so. */
static int migrate(void *ctx, ebb_pfn_t from, ebb_pfn_t to, unsigned order)
{
    uint64_t *words = memory_pointer(from);
    uint64_t *moved = ctx;
    bool light;
    uint64_t *entry = find_entry(words[PLACE_WORD], from, order, &light);

    if (!entry)
        return -EBB_ENOENT;
    memcpy(memory_pointer(to), words, EBB_FRAME_SIZE << order);
    for (uint64_t i = 0; i < (uint64_t)1 << order; i++) {
        words = memory_pointer(to + i);
        words[0] += to - from;
        if (!light)
            words[STAMP_WORD] += to - from;
    }
    *entry += to - from;
    *moved += (uint64_t)1 << order;
    return 0;
}

struct ebb_migrate_ops hold_begin_moves(uint64_t *moved)
{
    for (unsigned cpu = 0; cpu < cpus_online(); cpu++)
        for (unsigned which = 0; which < HOLD_SETS; which++)
            note_places(cpu, which);
    *moved = 0;
    return (struct ebb_migrate_ops){.migrate = migrate, .ctx = moved};
}

uint64_t hold_frames(unsigned cpu, enum hold_set which)
{
    return owners[cpu].sets[which].frames;
}

uint64_t hold_total(enum hold_set which)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < cpus_online(); i++)
        sum += owners[i].sets[which].frames;
    return sum;
}

bool hold_corrupt(void)
{
    for (unsigned cpu = 0; cpu < cpus_online(); cpu++) {
        for (unsigned which = 0; which < HOLD_SETS; which++) {
            struct set *set = &owners[cpu].sets[which];
            uint64_t entry;

            if (set->count == 0)
                continue;
            entry = *entry_at(set, hold_random(cpu, set->count));
            memset(memory_pointer(entry_pfn(entry)), 0, EBB_FRAME_SIZE);
            return true;
        }
    }
    return false;
}
