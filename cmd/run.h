/* SPDX-License-Identifier: BSD-2-Clause */
/* One `ebb run`: what was asked for, and how it went. */
#ifndef RUN_H
#define RUN_H

#include "record.h"
#include "residency.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum run_machine { MACHINE_Q35, MACHINE_PC, MACHINE_MICROVM };
enum run_accel { ACCEL_AUTO, ACCEL_TCG, ACCEL_KVM };

extern const char *const run_machine_names[];
extern const char *const run_accel_names[];
extern const char *const run_backing_names[];

#define RUN_SETTINGS 32u
#define RUN_CPUS     16u

struct run_options {
    uint64_t memory; /* bytes */
    unsigned cpus;
    const char *workload;
    enum run_machine machine;
    enum run_accel accel;
    enum backing backing;
    bool reporting;
    const char *qemu;  /* program */
    const char *host;  /* "qemu", "ebbd", or the file of an ebbd: who has the balloon */
    const char *guest; /* ELF file; NULL: find the one for the settings */
    bool linux_guest;  /* instead: the one of lab/linux, */
    const char *kernel, *initrd, *append; /* its files, and words for its kernel or NULL */
    const char *module;                   /* ebb_reporting for it, or NULL */
    bool icount;                          /* guest time is counted in instructions */
    bool pin;                             /* each of the guest's CPUs to one of the host's */
    const char *json, *plot;
    const char *settings[RUN_SETTINGS]; /* KEY=VALUE */
    size_t n_settings;
    unsigned timeout; /* seconds */
    bool quiet, console, interactive;
};

/* Parse the command line; a wrong one ends the program with CMD_USAGE. */
void run_options_parse(int argc, char **argv, struct run_options *options);

/* Why a run ended. The names (run_status_name) are part of the JSON contract. */
enum run_status {
    RUN_OK,
    RUN_VERIFY,      /* the guest found a frame damaged */
    RUN_USAGE,       /* the guest refused its command line or workload */
    RUN_PANIC,       /* of the guest */
    RUN_RESET,       /* the guest reset itself or switched itself off */
    RUN_HANG,        /* silent for too long */
    RUN_QEMU,        /* QEMU, or ebbd, failed, or was killed by someone */
    RUN_HOST,        /* this side failed */
    RUN_INTERRUPTED, /* by a signal to ebb */
};
const char *run_status_name(enum run_status status);

struct run {
    const struct run_options *options;
    char *command; /* as typed, for a shell */
    char *qemu_path, *guest_path, *qemu_version;
    char *backend_path;   /* of ebbd; NULL: the balloon is QEMU's */
    int initrd_fd;        /* of the Linux guest, with a module in it; negative: it has none */
    enum run_accel accel; /* chosen */
    struct record record;
    enum run_status status;
    int signal; /* of INTERRUPTED */
    uint64_t malformed;
    uint64_t vmm_cpu_ns, backend_cpu_ns;
    uint64_t end_ns;
};

#endif
