/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the subcommands of `ebb` share: their entry points, the exit codes, and
 * a few helpers. Each entry point gets argv with argv[0] = "ebb NAME" and
 * returns the exit code of the process.
 */
#ifndef CMD_H
#define CMD_H

#include <stdbool.h>
#include <stdint.h>

enum cmd_exit {
    CMD_OK = 0,
    CMD_VERIFY = 1, /* a frame in use lost its contents */
    CMD_USAGE = 2,  /* wrong options, or a workload the guest does not understand */
    CMD_GUEST = 3,  /* the guest panicked, reset itself, or hung */
    CMD_HOST = 4,   /* this machine: QEMU, memory, a file that cannot be written */
    /* 128 + N: ended by signal N */
};

int ebb_cmd_run(int argc, char **argv);
int ebb_cmd_plot(int argc, char **argv);
int ebb_cmd_ctl(int argc, char **argv);
int ebb_cmd_top(int argc, char **argv);
int ebb_cmd_demo(int argc, char **argv);
int ebb_cmd_doctor(int argc, char **argv);
int ebb_cmd_replay(int argc, char **argv);
int ebb_cmd_bench(int argc, char **argv);

/* One line on stderr, "ebb: ..." */
void cmd_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* For argp: a wrong option ends the program with CMD_USAGE. */
void cmd_argp_setup(void);

/* CLOCK_MONOTONIC, nanoseconds. */
uint64_t cmd_now_ns(void);

/* Malloc and friends that end the program when there is no memory. */
void cmd_no_memory(void) __attribute__((noreturn));
void *cmd_realloc(void *old, uint64_t bytes);
char *cmd_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define CMD_MS ((uint64_t)1000000)
#define CMD_S  ((uint64_t)1000000000)

#endif
