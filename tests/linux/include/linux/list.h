/* SPDX-License-Identifier: BSD-2-Clause */
/* Circular lists. */
#ifndef EBB_TESTS_LINUX_LIST_H
#define EBB_TESTS_LINUX_LIST_H

#include "kernel.h"

struct list_head {
    struct list_head *next, *prev;
};

#define list_entry(at, type, member)         container_of(at, type, member)
#define list_first_entry(list, type, member) container_of((list)->next, type, member)
#define list_last_entry(list, type, member)  container_of((list)->prev, type, member)

static inline void INIT_LIST_HEAD(struct list_head *list)
{
    list->next = list->prev = list;
}

static inline bool list_empty(const struct list_head *list)
{
    return list->next == list;
}

static inline void shim_insert(struct list_head *at, struct list_head *after)
{
    at->prev = after;
    at->next = after->next;
    after->next->prev = at;
    after->next = at;
}

static inline void list_add(struct list_head *at, struct list_head *list)
{
    shim_insert(at, list);
}

static inline void list_add_tail(struct list_head *at, struct list_head *list)
{
    shim_insert(at, list->prev);
}

/* The links of what is on no list lead nowhere. */
static inline void list_del(struct list_head *at)
{
    at->prev->next = at->next;
    at->next->prev = at->prev;
    at->next = at->prev = NULL;
}

static inline void list_move(struct list_head *at, struct list_head *list)
{
    list_del(at);
    list_add(at, list);
}

static inline void list_move_tail(struct list_head *at, struct list_head *list)
{
    list_del(at);
    list_add_tail(at, list);
}

#endif
