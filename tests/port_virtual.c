/* SPDX-License-Identifier: BSD-2-Clause */
/* The virtual port; see port_virtual.h. */
#include "port_virtual.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELD_LIMIT  64
#define ORDER_SLOTS 4096
#define ALONE_LIMIT 16

/* "before was held when after was taken", in an open hash table. */
struct lock_order {
    const struct ebb_lock *before;
    const struct ebb_lock *after;
};

struct port_virtual port_virtual;

static const struct ebb_lock *held[HELD_LIMIT];
static struct lock_order orders[ORDER_SLOTS];
static unsigned orders_used;
static const struct ebb_lock *alone[ALONE_LIMIT];
static unsigned alone_used;
static bool stepping;

static _Noreturn void broken(const char *what)
{
    port_virtual.panic = what;
    if (port_virtual.panic_jump)
        longjmp(*port_virtual.panic_jump, 1);
    fprintf(stderr, "virtual port: %s\n", what);
    abort();
}

static void step(void)
{
    if (!port_virtual.on_step || stepping || port_virtual.locks_held > 0)
        return;
    stepping = true;
    port_virtual.on_step();
    stepping = false;
}

static struct lock_order *order_slot(const struct ebb_lock *before, const struct ebb_lock *after)
{
    uintptr_t hash = ((uintptr_t)before >> 3) * 31u + ((uintptr_t)after >> 3);

    for (;; hash++) {
        struct lock_order *slot = &orders[hash % ORDER_SLOTS];

        if (!slot->before || (slot->before == before && slot->after == after))
            return slot;
    }
}

static void note_order(const struct ebb_lock *before, const struct ebb_lock *after)
{
    struct lock_order *slot;

    if (order_slot(after, before)->before)
        broken("two locks are taken in both orders");
    slot = order_slot(before, after);
    if (slot->before)
        return;
    if (++orders_used > ORDER_SLOTS / 2)
        broken("too many lock orders to remember");
    slot->before = before;
    slot->after = after;
}

static bool is_alone(const struct ebb_lock *lock)
{
    for (unsigned i = 0; i < alone_used; i++) {
        if (alone[i] == lock)
            return true;
    }
    return false;
}

static void check_alone(const struct ebb_lock *taken)
{
    if (!alone_used || !port_virtual.locks_held)
        return;
    if (is_alone(taken))
        broken("a lock that must be held alone is taken inside another");
    for (unsigned i = 0; i < port_virtual.locks_held; i++) {
        if (is_alone(held[i]))
            broken("a lock is taken inside one that must be held alone");
    }
}

void port_virtual_reset(void)
{
    if (port_virtual.locks_held)
        broken("reset while a lock is held");
    memset(&port_virtual, 0, sizeof(port_virtual));
    memset(orders, 0, sizeof(orders));
    orders_used = 0;
    alone_used = 0;
    stepping = false;
}

void port_virtual_alone(const struct ebb_lock *lock)
{
    if (alone_used == ALONE_LIMIT)
        broken("too many locks that must be held alone");
    alone[alone_used++] = lock;
}

void ebb_port_lock(struct ebb_lock *lock)
{
    step();
    if (lock->word)
        broken("a lock is taken that is held");
    if (port_virtual.locks_held == HELD_LIMIT)
        broken("too many locks are held");
    check_alone(lock);
    for (unsigned i = 0; i < port_virtual.locks_held; i++)
        note_order(held[i], lock);
    lock->word = 1;
    held[port_virtual.locks_held++] = lock;
    port_virtual.locks++;
}

void ebb_port_unlock(struct ebb_lock *lock)
{
    unsigned i = port_virtual.locks_held;

    if (!lock->word)
        broken("a lock is released that is not held");
    while (i > 0 && held[i - 1] != lock)
        i--;
    if (i == 0)
        broken("a lock is released that is not known");
    for (; i < port_virtual.locks_held; i++)
        held[i - 1] = held[i];
    port_virtual.locks_held--;
    lock->word = 0;
    step();
}

unsigned ebb_port_cpu(void)
{
    return port_virtual.cpu;
}

uint64_t ebb_port_now(void)
{
    step();
    return port_virtual.now;
}

void ebb_port_wake(void *worker)
{
    if (port_virtual.locks_held)
        broken("a wake with a lock held");
    step();
    port_virtual.wakes++;
    port_virtual.worker = worker;
    if (port_virtual.on_wake)
        port_virtual.on_wake(worker);
}

void ebb_port_relax(void)
{
    if (port_virtual.locks_held)
        broken("waits with a lock held");
    port_virtual.relaxes++;
    if (port_virtual.on_relax)
        port_virtual.on_relax();
}

void ebb_port_misuse(const struct ebb_misuse *misuse)
{
    if (port_virtual.locks_held)
        broken("a misuse is reported with a lock held");
    port_virtual.misuses++;
    port_virtual.misuse = *misuse;
}

_Noreturn void ebb_port_panic(const char *why)
{
    port_virtual.panic = why;
    if (port_virtual.panic_jump)
        longjmp(*port_virtual.panic_jump, 1);
    fprintf(stderr, "virtual port: panic: %s\n", why);
    abort();
}
