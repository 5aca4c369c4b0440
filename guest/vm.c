/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Demand paging.
 *
 * An area's slot follows from its address, so nothing is searched; a page fault takes no lock. It
 * goes in three parts: look (interrupts off), take and fill a frame (on), look again and install
 * (off). Entries are installed by compare and swap: of two CPUs that fault on the same page, one
 * frees its frame again. Middle tables are made with the area and stay until the space goes; leaf
 * tables come with the first fault below them and go with the area.
 *
 * Unmapping takes whole entries out of the middle tables, then has all CPUs that use the space
 * flush. A CPU that has answered is in no part of a fault that began before the area was gone:
 * what is below those entries is the unmapper's then, and freed. It looks once more, for what a
 * fault installed meanwhile.
 */
#include "vm.h"

#define ENTRIES    512u
#define INDEX_BITS 9u
#define TOP_SHIFT  (VM_LARGE_SHIFT + INDEX_BITS) /* of what one middle table covers */
#define USER_SIZE  ((uint64_t)1 << ARCH_USER_SHIFT)
#define BATCH      128u /* entries of middle tables between two flushes: 256 MiB */

static struct vm_cpu {
    struct vm_space *space; /* loaded; NULL: none */
    uint64_t faults;
} __attribute__((aligned(64))) cpus[ARCH_CPU_LIMIT];

/* What faults get that find no memory. */
static uint8_t scrap[EBB_FRAME_SIZE] __attribute__((aligned(EBB_FRAME_SIZE)));

/* ---- tables ---- */

static uint64_t load(const uint64_t *entry)
{
    return __atomic_load_n(entry, __ATOMIC_ACQUIRE);
}

/* From nothing to `value`; false: there is something. */
static bool install(uint64_t *entry, uint64_t value)
{
    uint64_t none = 0;

    return __atomic_compare_exchange_n(entry, &none, value, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

/* Tables may use the reserve: little is as useful, and they come back with their area. */
static uint64_t *new_table(void)
{
    ebb_pfn_t pfn;

    if (memory_take(0, EBB_UNMOVABLE, EBB_ALLOC_ZERO | EBB_ALLOC_RESERVE, &pfn) != 0)
        return NULL;
    return memory_pointer(pfn);
}

static void free_table(uint64_t *table)
{
    if (table)
        memory_free(arch_address(table) >> EBB_FRAME_SHIFT, 0);
}

static uint64_t *table_of(uint64_t entry)
{
    return arch_pointer(arch_entry_address(entry));
}

/* The middle table's entry of an address in an area. */
static uint64_t *middle_entry(const struct vm_space *space, uint64_t address)
{
    const uint64_t *top = &space->top[address >> TOP_SHIFT & (ENTRIES - 1)];

    return &table_of(load(top))[address >> VM_LARGE_SHIFT & (ENTRIES - 1)];
}

static uint64_t *leaf_entry(uint64_t middle, uint64_t address)
{
    return &table_of(middle)[address >> EBB_FRAME_SHIFT & (ENTRIES - 1)];
}

static bool make_middle(uint64_t *entry)
{
    uint64_t *table;

    if (load(entry))
        return true;
    table = new_table();
    if (!table)
        return false;
    if (!install(entry, arch_entry_table(arch_address(table))))
        free_table(table);
    return true;
}

/* ---- spaces ---- */

struct vm_space *vm_create(void)
{
    struct vm_space *space = (void *)new_table();
    uint64_t *root = new_table();
    uint64_t *top = new_table();

    if (!space || !root || !top) {
        free_table((void *)space);
        free_table(root);
        free_table(top);
        return NULL;
    }
    space->root = root;
    space->top = top;
    arch_space_init(root, top);
    return space;
}

static uint64_t slot_address(unsigned slot)
{
    return ARCH_USER_START + ((uint64_t)slot << VM_AREA_SHIFT);
}

void vm_destroy(struct vm_space *space)
{
    if (__atomic_load_n(&space->cpus, __ATOMIC_ACQUIRE))
        ebb_port_panic("an address space in use is destroyed");
    for (unsigned slot = 0; slot < VM_AREAS; slot++)
        if (space->areas[slot].length)
            vm_unmap(space, arch_pointer(slot_address(slot)));
    for (unsigned i = 0; i < ENTRIES; i++)
        if (space->top[i])
            free_table(table_of(space->top[i]));
    free_table(space->top);
    free_table(space->root);
    free_table((void *)space);
}

/* Its bit is there before it can use an entry, and longer than it can. */
static void use(struct vm_space *space)
{
    struct vm_cpu *cpu = &cpus[ebb_port_cpu()];
    struct vm_space *old = cpu->space;
    uint64_t bit = (uint64_t)1 << ebb_port_cpu();

    if (space == old)
        return;
    if (space)
        __atomic_fetch_or(&space->cpus, bit, __ATOMIC_SEQ_CST);
    cpu->space = space;
    arch_space_load(space ? space->root : NULL);
    if (old)
        __atomic_fetch_and(&old->cpus, ~bit, __ATOMIC_SEQ_CST);
}

void vm_enter(struct vm_space *space)
{
    use(space);
}

void vm_leave(void)
{
    use(NULL);
}

int vm_error(void)
{
    const struct vm_space *space = cpus[ebb_port_cpu()].space;

    return space ? __atomic_load_n(&space->error, __ATOMIC_RELAXED) : 0;
}

/* ---- areas ---- */

static struct vm_area *claim_area(struct vm_space *space, unsigned *slot)
{
    for (*slot = 0; *slot < VM_AREAS; ++*slot) {
        struct vm_area *area = &space->areas[*slot];
        uint32_t unclaimed = 0;

        if (__atomic_load_n(&area->claimed, __ATOMIC_RELAXED) == 0 &&
            __atomic_compare_exchange_n(&area->claimed, &unclaimed, 1u, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED))
            return area;
    }
    return NULL;
}

static void unclaim_area(struct vm_area *area)
{
    __atomic_store_n(&area->claimed, 0u, __ATOMIC_RELEASE);
}

int vm_map(struct vm_space *space, uint64_t length, bool large, const struct vm_file *file,
           uint8_t **start)
{
    struct vm_area *area;
    uint64_t address;
    unsigned slot;

    length = round_up(length, EBB_FRAME_SIZE);
    if (length == 0 || length > VM_AREA_LIMIT ||
        (file && (large || length >> EBB_FRAME_SHIFT > file->frames)))
        return -EBB_EINVAL;
    area = claim_area(space, &slot);
    if (!area)
        return -EBB_ENOSPC;
    address = slot_address(slot);
    for (uint64_t at = 0; at < length; at += (uint64_t)1 << TOP_SHIFT) {
        if (!make_middle(&space->top[(address + at) >> TOP_SHIFT & (ENTRIES - 1)])) {
            unclaim_area(area);
            return -EBB_ENOMEM;
        }
    }
    area->large = large;
    area->file = file;
    __atomic_store_n(&area->length, length, __ATOMIC_RELEASE);
    *start = arch_pointer(address);
    return 0;
}

/* Take up to BATCH entries of [start, end) out. */
static unsigned detach(const struct vm_space *space, uint64_t start, uint64_t end, uint64_t *gone)
{
    unsigned n = 0;

    for (uint64_t at = start; at < end && n < BATCH; at += VM_LARGE_SIZE) {
        uint64_t *entry = middle_entry(space, at);

        if (load(entry))
            gone[n++] = __atomic_exchange_n(entry, 0, __ATOMIC_ACQ_REL);
    }
    return n;
}

static void free_leaf(uint64_t *table)
{
    for (unsigned i = 0; i < ENTRIES; i++) {
        uint64_t address = arch_entry_address(table[i]);

        if (address && EBB_LIKELY(address != arch_address(scrap)))
            memory_free(address >> EBB_FRAME_SHIFT, 0);
    }
    free_table(table);
}

static void free_entry(uint64_t entry)
{
    if (arch_entry_is_large(entry))
        memory_free(arch_entry_address(entry) >> EBB_FRAME_SHIFT, VM_LARGE_ORDER);
    else
        free_leaf(table_of(entry));
}

void vm_unmap(struct vm_space *space, uint8_t *start)
{
    uint64_t address = arch_address(start);
    struct vm_area *area = &space->areas[(address - ARCH_USER_START) >> VM_AREA_SHIFT];
    uint64_t length = __atomic_exchange_n(&area->length, 0, __ATOMIC_SEQ_CST);
    uint64_t gone[BATCH];
    bool flushed = false;
    unsigned n;

    do {
        n = detach(space, address, address + length, gone);
        if (n == 0 && flushed)
            break;
        arch_flush(__atomic_load_n(&space->cpus, __ATOMIC_SEQ_CST));
        flushed = true;
        for (unsigned i = 0; i < n; i++)
            free_entry(gone[i]);
    } while (n > 0);
    unclaim_area(area);
}

/* ---- page faults ---- */

/* What a fault is about to put in place. */
struct filling {
    struct vm_space *space;
    struct vm_area *area;
    const struct vm_file *file;
    uint64_t offset; /* in the area */
    uint64_t *middle;
    uint64_t *table; /* a leaf table in case there is none; NULL: there was one */
    uint64_t entry;
    bool large;
};

/* Memory for it, or the scrap. */
static void no_frame(struct filling *f, int err)
{
    int none = 0;

    __atomic_compare_exchange_n(&f->space->error, &none, err, false, __ATOMIC_RELAXED,
                                __ATOMIC_RELAXED);
    f->entry = arch_entry_small(arch_address(scrap));
}

static int take(unsigned order, unsigned flags, ebb_pfn_t *pfn)
{
    int err = memory_alloc(order, EBB_MOVABLE, flags, pfn);

    return EBB_UNLIKELY(err == -EBB_EAGAIN) && order == 0 ? memory_take(0, EBB_MOVABLE, flags, pfn)
                                                          : err;
}

/* A large frame of zeroes; false: there is none now, and small ones will do. */
static bool fill_large(struct filling *f)
{
    ebb_pfn_t pfn;

    if (take(VM_LARGE_ORDER, EBB_ALLOC_ZERO, &pfn) != 0)
        return false;
    f->entry = arch_entry_large(pfn << EBB_FRAME_SHIFT);
    return true;
}

static void fill_small(struct filling *f)
{
    uint64_t page = f->offset >> EBB_FRAME_SHIFT;
    ebb_pfn_t pfn;
    int err = take(0, f->file ? 0 : EBB_ALLOC_ZERO, &pfn);

    if (EBB_UNLIKELY(err)) {
        no_frame(f, err);
        return;
    }
    f->entry = arch_entry_small(pfn << EBB_FRAME_SHIFT);
    if (f->file)
        memcpy(memory_pointer(pfn),
               arch_pointer(f->file->leaves[page / VM_FILE_LEAF][page % VM_FILE_LEAF]),
               EBB_FRAME_SIZE);
}

/* Take and fill all that it needs. With interrupts on, if they were. */
static void fill(struct filling *f)
{
    f->table = NULL;
    if (f->large && fill_large(f))
        return;
    f->large = false;
    if (EBB_UNLIKELY(!load(f->middle))) {
        f->table = new_table();
        if (!f->table)
            ebb_port_panic("no memory for page tables, not even of the reserve");
    }
    fill_small(f);
}

/* Give back what was taken, but not used. */
static void waste(const struct filling *f)
{
    uint64_t address = arch_entry_address(f->entry);

    if (address != arch_address(scrap))
        memory_free(address >> EBB_FRAME_SHIFT, f->large ? VM_LARGE_ORDER : 0);
}

/* Is the area still what it was? Its slot may have been used again, for the like of it. */
static bool still(const struct filling *f)
{
    return f->offset < __atomic_load_n(&f->area->length, __ATOMIC_ACQUIRE) &&
           f->area->file == f->file;
}

/* With interrupts off. False: it is not used; another CPU was faster, or the fault comes again. */
static bool put_in_place(struct filling *f, uint64_t address)
{
    uint64_t middle;

    if (EBB_UNLIKELY(!still(f)))
        return false;
    if (f->large)
        return install(f->middle, f->entry);
    if (f->table && install(f->middle, arch_entry_table(arch_address(f->table))))
        f->table = NULL;
    middle = load(f->middle);
    if (EBB_UNLIKELY(!middle || arch_entry_is_large(middle)))
        return false;
    return install(leaf_entry(middle, address), f->entry);
}

bool guest_page_fault(uint64_t address, bool interrupts)
{
    struct vm_cpu *cpu = &cpus[ebb_port_cpu()];
    uint64_t offset = address - ARCH_USER_START;
    struct filling f = {.space = cpu->space};
    bool used;

    if (EBB_UNLIKELY(!f.space || offset >= USER_SIZE))
        return false;
    f.area = &f.space->areas[offset >> VM_AREA_SHIFT];
    f.offset = offset & (VM_AREA_LIMIT - 1);
    if (EBB_UNLIKELY(f.offset >= __atomic_load_n(&f.area->length, __ATOMIC_ACQUIRE)))
        return false;
    f.file = f.area->file;
    f.middle = middle_entry(f.space, address);
    f.large = f.area->large && !load(f.middle) && (f.offset | (VM_LARGE_SIZE - 1)) < f.area->length;
    cpu->faults++;

    if (EBB_LIKELY(interrupts))
        arch_interrupts_on();
    fill(&f);
    if (EBB_LIKELY(interrupts))
        arch_interrupts_off();
    used = put_in_place(&f, address);
    if (EBB_UNLIKELY(!used))
        waste(&f);
    if (EBB_UNLIKELY(f.table))
        free_table(f.table);
    return true;
}

uint64_t vm_faults(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < cpus_online(); i++)
        sum += __atomic_load_n(&cpus[i].faults, __ATOMIC_RELAXED);
    return sum;
}

ebb_pfn_t vm_pfn(const void *address)
{
    const struct vm_space *space = cpus[ebb_port_cpu()].space;
    uint64_t at = arch_address(address);
    uint64_t entry;

    if (!space || at - ARCH_USER_START >= USER_SIZE ||
        !load(&space->top[at >> TOP_SHIFT & (ENTRIES - 1)]))
        return 0;
    entry = load(middle_entry(space, at));
    if (entry && !arch_entry_is_large(entry))
        return arch_entry_address(load(leaf_entry(entry, at))) >> EBB_FRAME_SHIFT;
    return entry ? (arch_entry_address(entry) + (at & (VM_LARGE_SIZE - 1))) >> EBB_FRAME_SHIFT : 0;
}

/* ---- files ---- */

static int add_page(struct vm_file *file, uint64_t page)
{
    uint64_t **leaf = &file->leaves[page / VM_FILE_LEAF];
    volatile uint64_t *words;
    ebb_pfn_t pfn;
    int err;

    if (!*leaf && !(*leaf = new_table()))
        return -EBB_ENOMEM;
    err = memory_take(0, EBB_RECLAIMABLE, 0, &pfn);
    if (err != 0)
        return err;
    words = memory_pointer(pfn);
    words[0] = words[EBB_FRAME_SIZE / 8 - 1] = vm_file_stamp(page);
    (*leaf)[page % VM_FILE_LEAF] = pfn << EBB_FRAME_SHIFT;
    file->frames = page + 1;
    return 0;
}

int vm_file_make(struct vm_file *file, uint64_t frames)
{
    *file = (struct vm_file){0};
    if (frames > VM_FILE_LIMIT)
        return -EBB_EINVAL;
    for (uint64_t page = 0; page < frames; page++) {
        int err = add_page(file, page);

        if (err != 0) {
            vm_file_free(file);
            return err;
        }
    }
    return 0;
}

void vm_file_check(const struct vm_file *file, unsigned cpu)
{
    for (uint64_t page = 0; page < file->frames; page++) {
        uint64_t address = file->leaves[page / VM_FILE_LEAF][page % VM_FILE_LEAF];
        const volatile uint64_t *words = arch_pointer(address);
        uint64_t first = words[0];
        uint64_t last = words[EBB_FRAME_SIZE / 8 - 1];
        uint64_t expect = vm_file_stamp(page);

        if (first != expect || last != expect)
            hold_fault(address >> EBB_FRAME_SHIFT, expect, first != expect ? first : last);
    }
    hold_count_checks(cpu, file->frames);
}

void vm_file_free(struct vm_file *file)
{
    for (uint64_t page = 0; page < file->frames; page++)
        memory_free(file->leaves[page / VM_FILE_LEAF][page % VM_FILE_LEAF] >> EBB_FRAME_SHIFT, 0);
    for (unsigned i = 0; i < VM_FILE_LEAVES; i++)
        free_table(file->leaves[i]);
    *file = (struct vm_file){0};
}
