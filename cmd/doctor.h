/* SPDX-License-Identifier: BSD-2-Clause */
/* `ebb doctor`: what was found out about the host and its VMs, in words. Nothing is changed. */
#ifndef DOCTOR_H
#define DOCTOR_H

#include <json-c/json_object.h>
#include <stdbool.h>
#include <stddef.h>

/* NOTE: it works, and could work better, or it is good to know. WRONG: something does not work. */
enum doctor_kind { DOCTOR_OK, DOCTOR_NOTE, DOCTOR_WRONG };

struct doctor {
    const char *control;     /* ebbd's control socket */
    const char *const *qmps; /* QEMU's QMP sockets */
    size_t n_qmps;
    struct json_object *findings;
    unsigned counts[DOCTOR_WRONG + 1];
};

/* A finding. about: "host", or the name of a VM. remedy: a line to type, or what to change; NULL:
 * nothing is to be done. Texts are copied. */
void doctor_tell(struct doctor *doctor, enum doctor_kind kind, const char *about,
                 const char *remedy, const char *format, ...) __attribute__((format(printf, 5, 6)));

/* The first bytes of a small file, without its last newline; an empty text if it cannot be read. */
const char *doctor_read(const char *path, char *text, size_t size);

void doctor_host(struct doctor *doctor);
/* QEMU's processes, what QMP sockets tell, and the VMs of ebbd. */
void doctor_vms(struct doctor *doctor);

#endif
