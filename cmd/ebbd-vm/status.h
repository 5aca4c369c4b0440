/* SPDX-License-Identifier: BSD-2-Clause */
/* What is told of VMs, as JSON (SPEC.md). To be put; NULL: out of memory. */
#ifndef EBBD_STATUS_H
#define EBBD_STATUS_H

#include "vm.h"

#include <json.h>

struct json_object *status_brief(const struct vm *vm);
/* Of the back end: its one VM, and the time. */
void status_add(struct json_object *to, const struct backend *backend);
struct json_object *status_full(const struct vm *vm);
/* The guest's statistics; a JSON null (NULL) without any. */
struct json_object *status_guest(const struct vm_view *view);

/* What statistics are called, by tag; "free_bytes". */
extern const char *const status_guest_names[EBB_BALLOON_DEVICE_TAGS];
/* "none", "anon", ... */
const char *status_backing_name(enum ebb_backing backing);

#endif
