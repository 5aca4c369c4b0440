/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtual port, for single-threaded tests: the CPU and the clock are
 * variables, wakes and misuses are recorded, and the locks only look at how
 * they are used. Taking a lock twice, releasing one that is not held, taking
 * two in both orders, or calling out with one held ends the program.
 */
#ifndef EBB_TESTS_PORT_VIRTUAL_H
#define EBB_TESTS_PORT_VIRTUAL_H

#include <ebb/port.h>

#include <setjmp.h>

struct port_virtual {
    unsigned cpu; /* what ebb_port_cpu() says */
    uint64_t now; /* what ebb_port_now() says */

    unsigned locks_held; /* right now */
    uint64_t locks;      /* lock operations so far */

    unsigned misuses;         /* reported so far */
    struct ebb_misuse misuse; /* the last one */

    unsigned wakes; /* so far */
    void *worker;   /* of the last one */
    void (*on_wake)(void *worker);

    unsigned relaxes;       /* so far */
    void (*on_relax)(void); /* e.g. completes what somebody waits for */

    /* Called at every port call with no lock held: before the first is taken, after
     * the last is dropped, wake, now. That is wherever another CPU may do something in
     * between. Not from inside itself. */
    void (*on_step)(void);

    /* Where a panic that is expected jumps to, with value 1, as does what is wrong with the locks.
     * NULL: it aborts. */
    jmp_buf *panic_jump;
    const char *panic;
};

extern struct port_virtual port_virtual;

/* Back to zeroes; forgets the lock orders seen. Aborts if a lock is held, which
 * makes it fit for setup and teardown. */
void port_virtual_reset(void);

/* Say that this lock must never be held together with another. */
void port_virtual_alone(const struct ebb_lock *lock);

#endif
