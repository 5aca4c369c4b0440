/* SPDX-License-Identifier: BSD-2-Clause */
/* See model.h. */
#include "model.h"

#include "../../linux/ebb_reporting.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/cpumask.h>

#define PCP_HIGH  256
#define PCP_BATCH 63

struct model model;
int shim_cpus = MODEL_CPUS;
static _Thread_local unsigned long looks;
static _Thread_local bool in_hook;

void model_fail(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "model: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, " (seed %llu)\n", (unsigned long long)model.config.seed);
    abort();
}

uint64_t model_below(uint64_t n)
{
    model.random = model.random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (model.random >> 33) % n;
}

/* ---- the shims ---- */

__attribute__((no_sanitize("thread"), noinline)) unsigned long
shim_read_once(const volatile void *from, size_t size)
{
    switch (size) {
    case 4:
        return *(const volatile u32 *)from;
    case 8:
        return *(const volatile u64 *)from;
    default:
        abort();
    }
}

static void lock(spinlock_t *lock)
{
    pthread_mutex_lock(&lock->mutex);
    lock->owner = pthread_self();
    lock->held = true;
}

static void unlock(spinlock_t *lock)
{
    MODEL_CHECK(lock->held && pthread_equal(lock->owner, pthread_self()));
    lock->held = false;
    pthread_mutex_unlock(&lock->mutex);
}

static void assert_locked(void)
{
    MODEL_CHECK(model.zone.lock.held && pthread_equal(model.zone.lock.owner, pthread_self()));
}

void shim_lock(spinlock_t *l)
{
    lock(l);
    looks = 0;
}

bool shim_trylock(spinlock_t *l)
{
    if (pthread_mutex_trylock(&l->mutex))
        return false;
    l->owner = pthread_self();
    l->held = true;
    looks = 0;
    return true;
}

void shim_unlock(spinlock_t *l)
{
    if (looks > model.most_looks)
        model.most_looks = looks;
    unlock(l);
    if (model.on_unlock && !in_hook) {
        in_hook = true;
        model.on_unlock();
        in_hook = false;
    }
}

static u32 flags_of(const struct page *page)
{
    MODEL_CHECK(page >= model.pages && page < model.pages + model.config.frames);
    MODEL_CHECK(__atomic_load_n(&page->zone, __ATOMIC_RELAXED));
    return __atomic_load_n(&page->flags, __ATOMIC_RELAXED);
}

static void set_flags(struct page *page, u32 set, u32 clear)
{
    __atomic_store_n(&page->flags, (flags_of(page) | set) & ~clear, __ATOMIC_RELAXED);
}

bool PageReported(const struct page *page)
{
    looks++;
    return flags_of(page) & SHIM_REPORTED;
}

bool PageBuddy(const struct page *page)
{
    return flags_of(page) & SHIM_BUDDY;
}

bool PageHead(const struct page *page)
{
    return flags_of(page) & SHIM_HEAD;
}

void __SetPageReported(struct page *page)
{
    assert_locked();
    MODEL_CHECK(flags_of(page) & SHIM_BUDDY);
    set_flags(page, SHIM_REPORTED, 0);
}

struct zone *page_zone(const struct page *page)
{
    flags_of(page);
    return page->zone;
}

unsigned int compound_order(const struct page *page)
{
    return __atomic_load_n(&page->compound_order, __ATOMIC_RELAXED);
}

unsigned long page_to_pfn(const struct page *page)
{
    return (unsigned long)(page - model.pages) + model.config.base;
}

struct page *pfn_to_page(unsigned long pfn)
{
    return &model.pages[pfn - model.config.base];
}

struct page *pfn_to_online_page(unsigned long pfn)
{
    struct page *page = pfn_to_page(pfn);

    if (page < model.pages || page >= model.pages + model.config.frames)
        return NULL;
    return __atomic_load_n(&page->zone, __ATOMIC_RELAXED) ? page : NULL;
}

/* ---- free lists; under zone.lock ---- */

static uint8_t *type_of(const struct page *page)
{
    return &model.types[(page - model.pages) >> pageblock_order];
}

static void count_free(long frames, unsigned type)
{
    if (type != MIGRATE_ISOLATE)
        __atomic_fetch_add(&model.zone.vm_stat[NR_FREE_PAGES], frames, __ATOMIC_RELAXED);
}

static void add_nr_free(unsigned order, long n)
{
    __atomic_fetch_add(&model.zone.free_area[order].nr_free, (unsigned long)n, __ATOMIC_RELAXED);
}

static bool is_block(const struct page *page, unsigned order)
{
    return page >= model.pages && page < model.pages + model.config.frames && page->zone &&
           flags_of(page) & SHIM_BUDDY && page_private(page) == order;
}

static void put(struct page *page, unsigned order, unsigned type, bool tail)
{
    struct list_head *list = &model.zone.free_area[order].free_list[type];

    assert_locked();
    MODEL_CHECK(*type_of(page) == type && !(flags_of(page) & (SHIM_BUDDY | SHIM_REPORTED)));
    __atomic_store_n(&page->private, order, __ATOMIC_RELAXED);
    set_flags(page, SHIM_BUDDY, 0);
    if (tail)
        list_add_tail(&page->buddy_list, list);
    else
        list_add(&page->buddy_list, list);
    add_nr_free(order, 1);
}

/* Returns whether it had a mark, which is gone. */
static bool get(struct page *page, unsigned order)
{
    const bool marked = flags_of(page) & SHIM_REPORTED;

    assert_locked();
    MODEL_CHECK(is_block(page, order));
    list_del(&page->buddy_list);
    __atomic_store_n(&page->private, 0, __ATOMIC_RELAXED);
    set_flags(page, 0, SHIM_BUDDY | SHIM_REPORTED);
    add_nr_free(order, -1);
    return marked;
}

static struct page *buddy_of(struct page *page, unsigned order)
{
    return pfn_to_page(page_to_pfn(page) ^ 1UL << order);
}

static struct page *head_of(struct page *page, unsigned order)
{
    return pfn_to_page(page_to_pfn(page) & ~((1UL << order) - 1));
}

/* Types of which pageblocks may merge with one another's. */
static bool is_common(unsigned type)
{
    return type < MIGRATE_PCPTYPES;
}

static void set_types(struct page *page, unsigned order, unsigned type)
{
    for (unsigned long i = 0; i < 1UL << order; i += pageblock_nr_pages)
        __atomic_store_n(type_of(page + i), (uint8_t)type, __ATOMIC_RELAXED);
}

enum { TO_TAIL = 1, SILENT = 2 };

/* Returns the order of what it merged to. */
static unsigned merge(struct page *page, unsigned order, unsigned type, unsigned how)
{
    bool tail = how & TO_TAIL;

    count_free(1L << order, type);
    for (; order < EBB_MAX_ORDER; order++) {
        struct page *buddy = buddy_of(page, order);

        if (!is_block(buddy, order))
            break;
        if (*type_of(buddy) != type) {
            if (!is_common(type) || !is_common(*type_of(buddy)))
                break;
            MODEL_CHECK(order >= pageblock_order);
        }
        if (get(buddy, order))
            model.lost += 1UL << order;
        if (order >= pageblock_order)
            set_types(buddy, order, type);
        page = head_of(page, order + 1);
    }
    if (!tail && model.config.shuffle && order == EBB_MAX_ORDER)
        tail = model_below(2);
    else if (!tail && order < pageblock_order)
        tail = is_block(buddy_of(head_of(page, order + 1), order + 1), order + 1);
    put(page, order, type, tail);
    if (order >= pageblock_order && !(how & SILENT) && model.notify)
        model.notify();
    return order;
}

/* Use the first 2^low frames of a block that is on no list any more. */
static void split(struct page *page, unsigned low, unsigned high, unsigned type)
{
    while (high-- > low)
        put(page + (1UL << high), high, type, false);
}

static void take(struct page *page, unsigned low, unsigned high, unsigned type)
{
    if (get(page, high))
        model.lost += 1UL << high;
    split(page, low, high, type);
    count_free(-(1L << low), type);
}

static struct page *first_of(unsigned order, unsigned type)
{
    struct list_head *list = &model.zone.free_area[order].free_list[type];

    return list_empty(list) ? NULL : list_first_entry(list, struct page, buddy_list);
}

/* The free blocks of a pageblock that are smaller than it. */
static unsigned long move_small(struct page *pageblock, unsigned from, unsigned to, bool really)
{
    unsigned long frames = 0;

    for (unsigned long i = 0; i < pageblock_nr_pages;) {
        struct page *page = pageblock + i;
        unsigned order = 0;

        if (flags_of(page) & SHIM_BUDDY) {
            order = (unsigned)page_private(page);
            frames += 1UL << order;
            if (really) {
                list_move_tail(&page->buddy_list, &model.zone.free_area[order].free_list[to]);
                count_free(-(1L << order), from);
                count_free(1L << order, to);
            }
        }
        i += 1UL << order;
    }
    if (really)
        __atomic_store_n(type_of(pageblock), (uint8_t)to, __ATOMIC_RELAXED);
    return frames;
}

static struct page *take_own(unsigned order, unsigned type)
{
    for (unsigned high = order; high < NR_PAGE_ORDERS; high++) {
        struct page *page = first_of(high, type);

        if (page) {
            take(page, order, high, type);
            return page;
        }
    }
    return NULL;
}

static struct page *first_of_others(unsigned order, unsigned type, unsigned *other)
{
    for (unsigned i = 1; i < MIGRATE_PCPTYPES; i++) {
        struct page *page;

        *other = (type + i) % MIGRATE_PCPTYPES;
        page = first_of(order, *other);
        if (page)
            return page;
    }
    return NULL;
}

/* From the largest block of another type, whose pageblock becomes ours if half of it is free. */
static struct page *take_other(unsigned order, unsigned type)
{
    for (unsigned high = NR_PAGE_ORDERS; high-- > order;) {
        unsigned other;
        struct page *page = first_of_others(high, type, &other);

        if (!page)
            continue;
        if (high >= pageblock_order) {
            set_types(page, high, type);
            take(page, order, high, type);
            return page;
        }
        if (move_small(head_of(page, pageblock_order), other, type, false) >=
            pageblock_nr_pages / 2) {
            move_small(head_of(page, pageblock_order), other, type, true);
            return take_own(order, type);
        }
        take(page, order, high, other);
        return page;
    }
    return NULL;
}

static struct page *take_any(unsigned order, unsigned type)
{
    struct page *page = take_own(order, type);

    return page ? page : take_other(order, type);
}

/* ---- lists of CPUs; under their lock ---- */

static bool has_cache(unsigned order)
{
    return order < SHIM_PCP_ORDERS || order == pageblock_order;
}

static unsigned index_of(unsigned order)
{
    return order < SHIM_PCP_ORDERS ? order : SHIM_PCP_ORDERS;
}

static unsigned order_at(unsigned index)
{
    return index < SHIM_PCP_ORDERS ? index : pageblock_order;
}

static void count_cached(struct per_cpu_pages *pcp, int frames)
{
    __atomic_store_n(&pcp->count, pcp->count + frames, __ATOMIC_RELAXED);
}

/* Give the coldest back, until no more than so many frames are left. */
static void shrink(struct per_cpu_pages *pcp, int most)
{
    lock(&model.zone.lock);
    for (unsigned i = 0; i <= SHIM_PCP_ORDERS && pcp->count > most; i++) {
        for (unsigned type = 0; type < MIGRATE_PCPTYPES; type++) {
            while (!list_empty(&pcp->lists[i][type]) && pcp->count > most) {
                struct page *page = list_last_entry(&pcp->lists[i][type], struct page, buddy_list);

                list_del(&page->buddy_list);
                count_cached(pcp, -(1 << order_at(i)));
                merge(page, order_at(i), *type_of(page), 0);
            }
        }
    }
    unlock(&model.zone.lock);
}

static void refill(struct per_cpu_pages *pcp, unsigned order, unsigned type)
{
    lock(&model.zone.lock);
    for (int n = 0; n < PCP_BATCH; n += 1 << order) {
        struct page *page = take_any(order, type);

        if (!page)
            break;
        list_add_tail(&page->buddy_list, &pcp->lists[index_of(order)][type]);
        count_cached(pcp, 1 << order);
    }
    unlock(&model.zone.lock);
}

static struct page *take_cached(unsigned order, unsigned type, unsigned cpu)
{
    struct per_cpu_pages *pcp = &model.cpus[cpu];
    struct list_head *list = &pcp->lists[index_of(order)][type];
    struct page *page = NULL;

    lock(&pcp->lock);
    if (list_empty(list))
        refill(pcp, order, type);
    if (!list_empty(list)) {
        page = list_first_entry(list, struct page, buddy_list);
        list_del(&page->buddy_list);
        count_cached(pcp, -(1 << order));
    }
    unlock(&pcp->lock);
    return page;
}

static void put_cached(struct page *page, unsigned order, unsigned type, unsigned cpu)
{
    struct per_cpu_pages *pcp = &model.cpus[cpu];

    lock(&pcp->lock);
    list_add(&page->buddy_list, &pcp->lists[index_of(order)][type]);
    count_cached(pcp, 1 << order);
    if (pcp->count > PCP_HIGH)
        shrink(pcp, PCP_HIGH - PCP_BATCH);
    unlock(&pcp->lock);
}

void ebb_drain_zone(struct zone *zone)
{
    MODEL_CHECK(zone == &model.zone);
    for (unsigned cpu = 0; cpu < MODEL_CPUS; cpu++) {
        lock(&model.cpus[cpu].lock);
        shrink(&model.cpus[cpu], 0);
        unlock(&model.cpus[cpu].lock);
    }
}

/* ---- the rest of what linux/module.c finds in a kernel ---- */

int ebb_isolate_free_page(struct page *page, unsigned int order)
{
    const unsigned type = *type_of(page);

    assert_locked();
    MODEL_CHECK(is_block(page, order) && type != MIGRATE_ISOLATE);
    /* What is reported is not reported again. */
    MODEL_CHECK(!(flags_of(page) & SHIM_REPORTED));
    if (zone_page_state(&model.zone, NR_FREE_PAGES) <=
        model.zone._watermark[WMARK_MIN] + (1UL << order))
        return 0;
    get(page, order);
    count_free(-(1L << order), type);
    for (unsigned long i = 0; i < 1UL << order; i++)
        model_frame(page_to_pfn(page) + i)->owner = HELD;
    model.held += 1UL << order;
    if (order >= pageblock_order && is_common(type))
        set_types(page, order, MIGRATE_MOVABLE);
    else if (order == pageblock_order - 1 && is_common(type))
        move_small(head_of(page, pageblock_order), type, MIGRATE_MOVABLE, true);
    return 1 << order;
}

void ebb_putback_isolated_page(struct page *page, unsigned int order, int type)
{
    assert_locked();
    for (unsigned long i = 0; i < 1UL << order; i++) {
        struct frame *frame = model_frame(page_to_pfn(page) + i);

        MODEL_CHECK(frame->owner == HELD);
        frame->owner = FREE;
    }
    model.held -= 1UL << order;
    if (merge(page, order, (unsigned)type, TO_TAIL | SILENT) > order)
        model.lost += 1UL << order; /* the mark that it was about to get */
}

int ebb_pageblock_migratetype(struct page *page)
{
    assert_locked();
    return *type_of(page);
}

/* ---- who uses it ---- */

bool model_alloc(unsigned order, unsigned type, unsigned cpu, unsigned long *pfn)
{
    struct page *page;

    if (has_cache(order) && (order < pageblock_order || type == MIGRATE_MOVABLE)) {
        page = take_cached(order, type, cpu);
    } else {
        lock(&model.zone.lock);
        page = take_any(order, type);
        unlock(&model.zone.lock);
    }
    if (!page)
        return false;
    *pfn = page_to_pfn(page);
    for (unsigned long i = 0; i < 1UL << order; i++) {
        struct frame *frame = model_frame(*pfn + i);

        MODEL_CHECK(frame->owner == FREE);
        *frame = (struct frame){.owner = USED};
    }
    return true;
}

void model_free(unsigned long pfn, unsigned order, unsigned cpu)
{
    struct page *page = pfn_to_page(pfn);
    unsigned type;

    for (unsigned long i = 0; i < 1UL << order; i++) {
        MODEL_CHECK(model_frame(pfn + i)->owner == USED);
        model_frame(pfn + i)->owner = FREE;
    }
    set_flags(page, 0, SHIM_HEAD);
    type = __atomic_load_n(type_of(page), __ATOMIC_RELAXED);
    if (has_cache(order) && (order < pageblock_order || type == MIGRATE_MOVABLE) &&
        is_common(type)) {
        put_cached(page, order, type, cpu);
        return;
    }
    lock(&model.zone.lock);
    merge(page, order, *type_of(page), 0);
    unlock(&model.zone.lock);
}

void model_make_compound(unsigned long pfn, unsigned order)
{
    __atomic_store_n(&pfn_to_page(pfn)->compound_order, order, __ATOMIC_RELAXED);
    set_flags(pfn_to_page(pfn), SHIM_HEAD, 0);
}

/* ---- memory that comes and goes ---- */

/* The zone ends where its first and its last memory is. */
static void span(void)
{
    unsigned long first = 0, end = model.config.frames;

    while (first < end && !model.pages[first].zone)
        first += MAX_ORDER_FRAMES;
    while (end > first && !model.pages[end - 1].zone)
        end -= MAX_ORDER_FRAMES;
    model.zone.zone_start_pfn = model.config.base + first;
    model.zone.spanned_pages = end - first;
}

static void set_owner(unsigned long pfn, enum owner owner, struct zone *zone)
{
    for (unsigned long i = 0; i < MAX_ORDER_FRAMES; i++) {
        *model_frame(pfn + i) = (struct frame){.owner = (uint8_t)owner};
        __atomic_store_n(&pfn_to_page(pfn + i)->zone, zone, __ATOMIC_RELAXED);
    }
}

static bool is_all_free(unsigned long pfn)
{
    struct page *page = pfn_to_online_page(pfn);

    if (!page)
        return false;
    for (unsigned long i = 0; i < MAX_ORDER_FRAMES;) {
        if (!(flags_of(page + i) & SHIM_BUDDY))
            return false;
        i += 1UL << page_private(page + i);
    }
    return true;
}

bool model_offline(unsigned long pfn)
{
    struct page *page = pfn_to_page(pfn);
    bool all;

    lock(&model.zone.lock);
    all = is_all_free(pfn);
    for (unsigned long i = 0; all && i < MAX_ORDER_FRAMES;) {
        const unsigned order = (unsigned)page_private(page + i);

        get(page + i, order);
        count_free(-(1L << order), *type_of(page + i));
        i += 1UL << order;
    }
    if (all)
        set_owner(pfn, OFFLINE, NULL);
    span();
    unlock(&model.zone.lock);
    return all;
}

bool model_online(unsigned long pfn)
{
    struct page *page = pfn_to_page(pfn);
    bool come;

    lock(&model.zone.lock);
    come = !page->zone;
    if (come) {
        set_owner(pfn, FREE, &model.zone);
        set_types(page, EBB_MAX_ORDER, MIGRATE_MOVABLE);
        merge(page, EBB_MAX_ORDER, MIGRATE_MOVABLE, TO_TAIL);
    }
    span();
    unlock(&model.zone.lock);
    return come;
}

void model_retype(unsigned long pfn, unsigned type)
{
    struct page *page = pfn_to_page(pfn);
    const unsigned order = (unsigned)page_private(page);

    lock(&model.zone.lock);
    MODEL_CHECK(is_block(page, order));
    if (order < pageblock_order) {
        move_small(head_of(page, pageblock_order), *type_of(page), type, true);
    } else {
        count_free(-(1L << order), *type_of(page));
        count_free(1L << order, type);
        list_move_tail(&page->buddy_list, &model.zone.free_area[order].free_list[type]);
        set_types(page, order, type);
    }
    unlock(&model.zone.lock);
}

/* ---- the truth ---- */

bool model_is_marked(unsigned long pfn)
{
    return flags_of(pfn_to_page(pfn)) & SHIM_REPORTED;
}

static void add_block(struct truth *truth, struct page *page, unsigned order, unsigned type)
{
    const unsigned long pfn = page_to_pfn(page), frames = 1UL << order;
    const bool marked = flags_of(page) & SHIM_REPORTED;

    MODEL_CHECK(is_block(page, order) && *type_of(page) == type && !(pfn & (frames - 1)));
    for (unsigned long i = 0; i < frames; i++) {
        MODEL_CHECK(model_frame(pfn + i)->owner == FREE);
        MODEL_CHECK(!marked || model_frame(pfn + i)->told);
        truth->untold[order] += type != MIGRATE_ISOLATE && !model_frame(pfn + i)->told;
        MODEL_CHECK(i == 0 || !(flags_of(page + i) & (SHIM_BUDDY | SHIM_REPORTED)));
    }
    truth->free += frames;
    if (order >= pageblock_order)
        *(marked                    ? &truth->reported
          : type != MIGRATE_ISOLATE ? &truth->unmarked
                                    : &truth->beyond) += frames;
}

struct truth model_check(void)
{
    struct truth truth = {0};
    unsigned long isolated = 0, owned[HELD + 1] = {0};

    lock(&model.zone.lock);
    for (unsigned order = 0; order < NR_PAGE_ORDERS; order++) {
        struct free_area *area = &model.zone.free_area[order];
        unsigned long n = 0;

        for (unsigned type = 0; type < MIGRATE_TYPES; type++) {
            struct list_head *list = &area->free_list[type];

            for (struct list_head *at = list->next; at != list; at = at->next, n++) {
                MODEL_CHECK(at->next->prev == at);
                add_block(&truth, list_entry(at, struct page, buddy_list), order, type);
                isolated += type == MIGRATE_ISOLATE ? 1UL << order : 0;
            }
        }
        MODEL_CHECK(n == area->nr_free);
    }
    for (unsigned cpu = 0; cpu < MODEL_CPUS; cpu++)
        truth.cached += (unsigned long)model.cpus[cpu].count;
    for (unsigned long i = 0; i < model.config.frames; i++)
        owned[model.frames[i].owner]++;
    MODEL_CHECK(truth.free - isolated == zone_page_state(&model.zone, NR_FREE_PAGES));
    MODEL_CHECK(owned[FREE] == truth.free + truth.cached && owned[HELD] == model.held);
    unlock(&model.zone.lock);
    return truth;
}

/* ---- making one ---- */

static void init_lock(spinlock_t *lock)
{
    pthread_mutex_init(&lock->mutex, NULL);
}

void model_create(const struct model_config *config)
{
    memset(&model, 0, sizeof(model));
    model.config = *config;
    model.random = config->seed * UINT64_C(0x9e3779b97f4a7c15);
    model.pages = calloc(config->frames, sizeof(*model.pages));
    model.frames = calloc(config->frames, sizeof(*model.frames));
    model.types = calloc(config->frames >> pageblock_order, 1);
    MODEL_CHECK(model.pages && model.frames && model.types);
    init_lock(&model.zone.lock);
    for (unsigned order = 0; order < NR_PAGE_ORDERS; order++) {
        for (unsigned type = 0; type < MIGRATE_TYPES; type++)
            INIT_LIST_HEAD(&model.zone.free_area[order].free_list[type]);
    }
    for (unsigned cpu = 0; cpu < MODEL_CPUS; cpu++) {
        init_lock(&model.cpus[cpu].lock);
        for (unsigned i = 0; i <= SHIM_PCP_ORDERS; i++) {
            for (unsigned type = 0; type < MIGRATE_PCPTYPES; type++)
                INIT_LIST_HEAD(&model.cpus[cpu].lists[i][type]);
        }
    }
    model.zone.per_cpu_pageset = model.cpus;
    model.zone._watermark[WMARK_MIN] = config->watermark_min;
    model.zone._watermark[WMARK_LOW] = config->watermark_low;
    for (unsigned long i = 0; i < config->frames; i += MAX_ORDER_FRAMES)
        MODEL_CHECK(model_online(config->base + i));
}

void model_destroy(void)
{
    MODEL_CHECK(!model.zone.lock.held);
    free(model.pages);
    free(model.frames);
    free(model.types);
}
