/* SPDX-License-Identifier: BSD-2-Clause */
/* CPU time of a VMM's threads. */
#include "cputime.h"
#include "cmd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_NS (50 * CMD_MS)

void cputime_init(struct cputime *cputime, pid_t pid, bool pin)
{
    *cputime = (struct cputime){.pid = pid, .pin = pin};
}

void cputime_close(struct cputime *cputime)
{
    for (size_t i = 0; i < cputime->n; i++) {
        if (cputime->threads[i].fd >= 0)
            close(cputime->threads[i].fd);
    }
    free(cputime->threads);
    *cputime = (struct cputime){.pid = cputime->pid};
}

static int open_file(const struct cputime *cputime, pid_t tid, const char *name)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", (int)cputime->pid, (int)tid, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* The number of the guest's CPU that a thread is, or -1. QEMU calls them "CPU 0/TCG", "CPU 1/KVM",
 * or "ALL CPUs/TCG" if they share one. */
static int vcpu_number(const struct cputime *cputime, pid_t tid)
{
    char name[32] = "";
    int fd = open_file(cputime, tid, "comm");

    if (fd < 0)
        return -1;
    if (read(fd, name, sizeof(name) - 1) < 0)
        name[0] = '\0';
    close(fd);
    if (strncmp(name, "CPU ", 4) == 0)
        return (int)strtoul(name + 4, NULL, 10) & INT_MAX;
    return strncmp(name, "ALL CPUs", 8) == 0 ? 0 : -1;
}

/* The n-th CPU, counted round, of those that this process may use. */
static void pin(pid_t tid, int n)
{
    cpu_set_t allowed, one;
    size_t cpu = 0;

    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
        for (int left = n % CPU_COUNT(&allowed); !CPU_ISSET(cpu, &allowed) || left-- > 0;)
            cpu++;
        CPU_SET(cpu, &one);
        if (sched_setaffinity(tid, sizeof(one), &one) == 0)
            return;
    }
    if (errno != ESRCH) /* it has ended */
        cmd_error("WARNING: the guest's CPU %d is not pinned: %s", n, strerror(errno));
}

static struct cputime_thread *find_thread(struct cputime *cputime, pid_t tid)
{
    struct cputime_thread *thread;

    for (size_t i = 0; i < cputime->n; i++) {
        if (cputime->threads[i].tid == tid && cputime->threads[i].fd >= 0)
            return &cputime->threads[i];
    }
    cputime->threads =
        cmd_realloc(cputime->threads, (cputime->n + 1) * sizeof(struct cputime_thread));
    thread = &cputime->threads[cputime->n++];
    *thread = (struct cputime_thread){.tid = tid, .fd = open_file(cputime, tid, "schedstat")};
    return thread;
}

/* A thread gives itself its name after it has started. */
static void look_for_threads(struct cputime *cputime)
{
    struct cputime_thread *thread;
    struct dirent *entry;
    char path[64];
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)cputime->pid);
    dir = opendir(path);
    while (dir && (entry = readdir(dir))) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);

        if (tid <= 0)
            continue;
        thread = find_thread(cputime, tid);
        int number = thread->vcpu ? -1 : vcpu_number(cputime, tid);

        if (number < 0)
            continue;
        thread->vcpu = true;
        thread->made_ns = thread->ns; /* was told as the others' already */
        if (cputime->pin)
            pin(tid, number);
    }
    if (dir)
        closedir(dir);
}

/* What has ended keeps what it had. */
static void read_thread(struct cputime_thread *thread)
{
    char text[80];
    ssize_t n;

    if (thread->fd < 0)
        return;
    n = pread(thread->fd, text, sizeof(text) - 1, 0);
    if (n > 0) {
        text[n] = '\0';
        thread->ns = strtoull(text, NULL, 10);
    } else {
        close(thread->fd);
        thread->fd = -1;
    }
}

struct cpu_time cputime_read(struct cputime *cputime)
{
    struct cpu_time time = {0, 0};
    uint64_t now = cmd_now_ns();

    if (now - cputime->looked_ns >= LOOK_NS) {
        look_for_threads(cputime);
        cputime->looked_ns = now;
    }
    for (size_t i = 0; i < cputime->n; i++) {
        const struct cputime_thread *thread = &cputime->threads[i];
        uint64_t others;

        read_thread(&cputime->threads[i]);
        others = thread->vcpu ? thread->made_ns : thread->ns;
        time.other_ns += others;
        time.vcpu_ns += thread->ns - others;
    }
    return time;
}
