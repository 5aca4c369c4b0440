/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How long the threads of a VMM have run so far: those that are the guest's CPUs,
 * by their names, and all others (devices, the main loop: the host's own work). The guest's CPUs
 * are pinned here too, if that is asked for, since this is where they are found.
 */
#ifndef CPUTIME_H
#define CPUTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

struct cpu_time {
    uint64_t vcpu_ns, other_ns;
};

struct cputime_thread {
    pid_t tid;
    int fd; /* of its schedstat; -1: it has ended, */
    bool vcpu;
    uint64_t ns;      /* with so much; */
    uint64_t made_ns; /* as much of it before it was known for a vCPU: not a vCPU's */
};

struct cputime {
    pid_t pid;
    bool pin; /* the guest's CPUs, each to one of those that this process may use, in turn */
    struct cputime_thread *threads;
    size_t n;
    uint64_t looked_ns; /* when new threads were last looked for */
};

void cputime_init(struct cputime *cputime, pid_t pid, bool pin);

/* A thread that runs right now is known as of its last tick, a few milliseconds. */
struct cpu_time cputime_read(struct cputime *cputime);

void cputime_close(struct cputime *cputime);

/* User and system time together, in ns. */
static inline uint64_t cputime_used(const struct rusage *usage)
{
    const struct timeval *user = &usage->ru_utime, *system = &usage->ru_stime;

    return (uint64_t)(user->tv_sec + system->tv_sec) * 1000000000 +
           (uint64_t)(user->tv_usec + system->tv_usec) * 1000;
}

#endif
