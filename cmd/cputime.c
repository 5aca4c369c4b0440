/* SPDX-License-Identifier: BSD-2-Clause */
/* CPU time of a VMM's threads. */
#include "cputime.h"
#include "cmd.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_NS (50 * CMD_MS)

void cputime_init(struct cputime *cputime, pid_t pid)
{
    *cputime = (struct cputime){.pid = pid};
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

/* QEMU calls them "CPU 0/TCG", "CPU 1/KVM", or "ALL CPUs/TCG" if they share one. */
static bool is_vcpu(const struct cputime *cputime, pid_t tid)
{
    char name[32] = "";
    int fd = open_file(cputime, tid, "comm");

    if (fd < 0)
        return false;
    if (read(fd, name, sizeof(name) - 1) < 0)
        name[0] = '\0';
    close(fd);
    return strncmp(name, "CPU ", 4) == 0 || strncmp(name, "ALL CPUs", 8) == 0;
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
        if (!thread->vcpu && is_vcpu(cputime, tid)) {
            thread->vcpu = true;
            thread->made_ns = thread->ns; /* was told as the others' already */
        }
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
