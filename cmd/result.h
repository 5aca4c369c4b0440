/* SPDX-License-Identifier: BSD-2-Clause */
/* The JSON of a run, a contract documented in SPEC.md, and what others write with. */
#ifndef RESULT_H
#define RESULT_H

#include "run.h"

#include <json-c/json_object.h>

/* To be released with json_object_put(). */
struct json_object *result_json(const struct run *run, const struct record_result *result);

bool result_write(struct json_object *json, const char *path);

/* Read one, complain if it is none. NULL or an object to be released. */
struct json_object *result_read(const char *path);

/* Fields; NULL, 0, false or NaN if one is missing, null or of another type, or there is no object
 * (NULL). What is returned belongs to the object. */
struct json_object *result_get(struct json_object *json, const char *key);
size_t result_length(struct json_object *array);
bool result_flag(struct json_object *json, const char *key);
double result_number(struct json_object *json, const char *key);
const char *result_text(struct json_object *json, const char *key);

/* Add a field; MiB and times with so many digits as mean something. */
void result_add(struct json_object *json, const char *key, struct json_object *value);
void result_add_text(struct json_object *json, const char *key, const char *text);
void result_add_count(struct json_object *json, const char *key, uint64_t value);
void result_add_mib(struct json_object *json, const char *key, double mib);
void result_add_ms(struct json_object *json, const char *key, double ms); /* null below 0 */

/* A number with so many digits behind the point. */
struct json_object *result_digits(double value, int digits);

/* What --set was given: an object of strings. */
struct json_object *result_settings(const char *const *list, size_t n);

#endif
