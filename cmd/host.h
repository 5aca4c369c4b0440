/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What can be wrong with this machine, found out before a run. Each check
 * explains on stderr what is wrong and what to do, and returns false.
 */
#ifndef HOST_H
#define HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Is there memory for what `option` asks for, and for so many bytes besides? */
bool host_check_memory(const char *option, uint64_t bytes, uint64_t besides);
/* Are there free huge pages of 2 MiB for so many bytes? */
bool host_check_hugetlb(const char *option, uint64_t bytes);
/* Can a process have transparent huge pages by madvise()? */
bool host_check_thp(void);
/* Can a file of this name be written? Leaves nothing behind. */
bool host_check_writable(const char *what, const char *path);
/* Write a whole file, or explain why not, and leave no half of it. */
bool host_write_file(const char *path, const char *data, size_t len);
/* A program of this name in PATH, or this very file; NULL: none. To be freed. */
char *host_find_program(const char *name);
/* The reference guest that belongs to this program, or the one with the settings of
 * ebb/history.h; NULL: none. To be freed. */
char *host_find_guest(bool history);
/* ebbd, likewise. */
char *host_find_ebbd(void);
/* The program behind the passes of `ebb bench trackers`, and the directory of traces, likewise. */
char *host_find_passes(void);
char *host_find_traces(void);

#endif
