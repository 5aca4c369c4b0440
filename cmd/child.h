/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Child processes that cannot outlive this one: the kernel kills them when
 * this process dies, however it dies. Start them from the main thread only,
 * because the kernel watches the thread that forked.
 */
#ifndef CHILD_H
#define CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct child_config {
    char *const *argv;   /* argv[0] is searched for in PATH if it has no '/' */
    int in, out, err;    /* its standard files; -1: /dev/null */
    const int *keep;     /* further descriptors that it inherits, under their numbers */
    size_t n_keep;       /*   how many */
    bool no_thp;         /* no transparent huge pages */
    bool own_group;      /* its own process group: Ctrl-C does not reach it */
    unsigned cpu_limit;  /* seconds of CPU time, 0: no limit */
    uint64_t file_limit; /* bytes of a file that it writes, 0: no limit */
};

/* Returns the pid, or a negated errno if it could not be started (argv[0] was
 * not found, say). */
pid_t child_start(const struct child_config *config);

/* Run a program to its end, at most `seconds` long, its standard output and
 * error going to out and err (with a zero byte behind; allocated, the caller
 * frees them). Input is the text `in`, or nothing if that is NULL. Returns the
 * wait status, a negated errno if it could not be started, or -ETIME. One that
 * writes more than 64 MiB into a file, or into these, is killed (SIGXFSZ). */
int child_run(char *const *argv, const char *in, double seconds, char **out, size_t *out_len,
              char **err);

/* A file in memory with this text (NULL: empty), at its beginning. -1: errno. */
int child_temporary(const char *text);

#endif
