/* SPDX-License-Identifier: BSD-2-Clause */
/* The answers of ebbd's control socket in words, and in tables. */
#ifndef CTL_VIEW_H
#define CTL_VIEW_H

#include <json-c/json_object.h>
#include <stdio.h>

/* What `vms` of the answer to `list`, and to `status`, holds: a line for each. */
void ctl_view_list(struct json_object *vms, FILE *out);
void ctl_view_status(struct json_object *vms, FILE *out);

/* An object with all its members, one a line: names as SPEC.md has them, figures with a unit. */
void ctl_view_members(struct json_object *object, FILE *out);

/* A line as it came, without what a terminal could act on: it is escaped, as JSON can. */
void ctl_view_json(const char *line, FILE *out);

#endif
