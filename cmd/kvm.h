/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Is KVM there, and is it worth using? On a machine that is itself a guest,
 * /dev/kvm may belong to a hypervisor that emulates every instruction and is
 * hundreds of times slower than QEMU's own translation (TCG).
 */
#ifndef KVM_H
#define KVM_H

#include <stdbool.h>

enum kvm_state {
    KVM_ABSENT,  /* no /dev/kvm */
    KVM_REFUSED, /* it may not be opened */
    KVM_BROKEN,  /* it opens, but runs nothing */
    KVM_SLOW,
    KVM_FAST,
};

struct kvm_probe {
    enum kvm_state state;
    int error;       /* errno of ABSENT, REFUSED and BROKEN */
    double loop_ms;  /* a million turns of a loop; for SLOW, at least that */
    bool unfinished; /*   when time ran out */
    char text[160];  /* what was found, for people */
};

/* Run a loop of a million turns in a virtual machine of one page; at most
 * half a second. Starts a child: from the main thread only. */
void kvm_probe(struct kvm_probe *probe);

#endif
