/* SPDX-License-Identifier: BSD-2-Clause */
/* The JSON of a run: a contract, documented in SPEC.md. */
#ifndef RESULT_H
#define RESULT_H

#include "run.h"

#include <json-c/json_object.h>

/* To be released with json_object_put(). */
struct json_object *result_json(const struct run *run, const struct record_result *result);

bool result_write(struct json_object *json, const char *path);

/* Read one, complain if it is none. NULL or an object to be released. */
struct json_object *result_read(const char *path);

/* Fields; NaN or NULL if one is missing, null or of another type. */
double result_number(struct json_object *json, const char *key);
const char *result_text(struct json_object *json, const char *key);

#endif
