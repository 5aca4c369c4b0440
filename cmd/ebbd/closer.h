/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Closing descriptors that came from a front-end and that nobody knows the kind of, in a thread of
 * its own: close() can wait for a file system that the front-end itself serves (FUSE).
 */
#ifndef EBBD_CLOSER_H
#define EBBD_CLOSER_H

/* Start the thread. What it takes descriptors from, for closer_close(), to be closed in the end:
 * the thread then ends as well. -1: errno is set. */
int closer_start(void);

void closer_close(int closer, int fd);

#endif
