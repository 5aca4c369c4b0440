/* SPDX-License-Identifier: BSD-2-Clause */
/* Values of options, for argp: a wrong one ends the program with CMD_USAGE. */
#ifndef ARGS_H
#define ARGS_H

#include <argp.h>
#include <stdint.h>

#define MIB ((uint64_t)1 << 20)

/* A whole number from low to high. */
unsigned args_count(struct argp_state *state, const char *option, const char *arg, unsigned low,
                    unsigned high);

/* "512M", "2G", "1536" (MiB): bytes, from low to high, in steps. */
uint64_t args_size(struct argp_state *state, const char *option, const char *arg, uint64_t low,
                   uint64_t high, uint64_t step);

/* The index of a name in a list that ends with NULL. */
unsigned args_choice(struct argp_state *state, const char *option, const char *const *names,
                     const char *arg);

/* An argument where none is taken: ends the program. */
void args_none(struct argp_state *state, const char *arg);

/* The name of a picture: it ends in .svg or .png. */
const char *args_picture(struct argp_state *state, const char *option, const char *arg);

#endif
