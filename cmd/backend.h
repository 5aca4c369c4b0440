/* SPDX-License-Identifier: BSD-2-Clause */
/* ebbd beside a QEMU: started for one run, it serves that VM's balloon and ends with it. */
#ifndef BACKEND_H
#define BACKEND_H

#include "run.h"

struct backend {
    pid_t pid; /* 0: none */
    int wait_status;
    bool exited;
    uint64_t cpu_ns; /* once it has exited */
};

/* Start run->backend_path; *front_end is QEMU's end of its connection, to be closed by the caller,
 * -1 if it could not be started (explained on stderr). Its messages go to `err`. */
bool backend_start(struct backend *backend, const struct run *run, int err, int *front_end);

/* Has it ended? Does not wait. */
bool backend_ended(struct backend *backend);

/* QEMU is gone: wait for its end, which follows; for long, make it end. */
void backend_finish(struct backend *backend);

#endif
