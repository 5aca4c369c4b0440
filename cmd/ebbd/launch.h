/* SPDX-License-Identifier: BSD-2-Clause */
/* Starting back ends. */
#ifndef EBBD_LAUNCH_H
#define EBBD_LAUNCH_H

#include "ebbd.h"

#include <sys/types.h>

/* Where ebbd-vm is: beside this program, or where it is installed. To be freed; NULL: explained. */
char *launch_find_program(void);

/* It gets the socket, and no other descriptor of ours. -1: errno is set. */
pid_t launch_back_end(const struct ebbd *ebbd, const char *name, const char *control, int listening,
                      uint64_t rate, bool inhibited);

/* Close a listening socket without waiting: who closes it last closes what front-ends left in its
 * queue, which can take as long as they like. A process that ends does not wait for that. */
void launch_close(int listening);

#endif
