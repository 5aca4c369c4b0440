/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VM of QEMU's with QEMU's own balloon, for `ebb top`: what its monitor (QMP) tells, and what the
 * host holds of its memory. Only asks, never changes anything. Does not wait, but for a walk of the
 * VM's page table (residency.h).
 */
#ifndef TOP_QMP_H
#define TOP_QMP_H

#include "control.h"
#include "residency.h"
#include "top_view.h"

/* What is asked next, in this order; from TOP_QMP_MEMORY on again each time. */
enum top_qmp_step {
    TOP_QMP_NEW, /* not connected */
    TOP_QMP_GREETING,
    TOP_QMP_CAPABILITIES,
    TOP_QMP_NAME,
    TOP_QMP_DEVICES,
    TOP_QMP_UNNAMED_DEVICES,
    TOP_QMP_MEMORY,
    TOP_QMP_ACTUAL,
    TOP_QMP_STATS,
    TOP_QMP_IDLE,
};

struct top_qmp {
    struct control control;

    /* Private. */
    enum top_qmp_step step;
    uint64_t asked_ns, id;
    bool lost;                     /* it was there, and is not */
    char *name;                    /* as last heard; NULL: never */
    char *balloon;                 /* its path among QEMU's objects; NULL: none found */
    double assigned, actual, free; /* bytes; NaN: not told. actual: what the guest has left */
    double updated;                /* when the guest last sent statistics, s since 1970 */
    struct residency residency;
    bool looked, found; /* for its memory */
    uint64_t resident_kib;
};

void top_qmp_init(struct top_qmp *qmp, const char *path);
void top_qmp_close(struct top_qmp *qmp);

/* These are as those of top_ebbd.h. QEMU may send any number of events, so that only some of what
 * has come is taken at once: true means that there may be more. */
bool top_qmp_ask(struct top_qmp *qmp, uint64_t now_ns);
bool top_qmp_hear(struct top_qmp *qmp);
bool top_qmp_settled(const struct top_qmp *qmp);
void top_qmp_show(struct top_qmp *qmp, uint64_t now_ns, struct top_rows *rows);

#endif
