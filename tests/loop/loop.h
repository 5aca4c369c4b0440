/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the loop tests share: a balloon driver and a device model in one
 * process, a guest that supplies frames and statistics, and a stand-in for the
 * engine, so that the driver is seen alone.
 */
#ifndef EBB_TESTS_LOOP_H
#define EBB_TESTS_LOOP_H

#include "device_model.h"

#include <ebb/balloon.h>

/* ---- the engine's stand-in (fake_report.c) ---- */

struct fake_report {
    struct ebb_report report; /* only its address is used */
    struct ebb_report_device *device;
    bool in_flight;
    unsigned completions;
    int status;           /* of the last */
    uint8_t seen_status;  /* the device's status at that moment */
    unsigned stray;       /* completions that nobody waited for */
    unsigned unregisters; /* that returned */
    int register_error;   /* what register says */
};
extern struct fake_report fake_report;

/* Submit ranges of `bytes` each, `n` of them, from `addr` on. */
int fake_submit(uint64_t addr, uint64_t bytes, unsigned n);

/* ---- the guest ---- */

#define LOOP_FRAMES 4096u /* that it can spare for the balloon: pfns 0 to this */

enum loop_frame { LOOP_FREE = 0, LOOP_BALLOON, LOOP_LEAVING };

struct loop {
    struct model model;
    struct ebb_balloon balloon;
    struct ebb_balloon_config config;
    uint8_t frames[LOOP_FRAMES]; /* enum loop_frame */
    unsigned spare;              /* frames that it will give, at most */
    unsigned held;               /* frames not LOOP_FREE */
    unsigned stat_count;
    unsigned wrong; /* frames that came back and were not leaving */
};
extern struct loop loop;

/* A model that offers `features`, and a configuration for it; not started. */
void loop_init(uint64_t features);
/* Stop, and assert that nothing is outstanding. */
void loop_exit(void);

/* Start and attach, asserting success. */
void loop_start(void);

/* Deliver the interrupt, if there is one. */
void loop_irq(void);

/* Host, interrupt and worker in turn, until nothing moves. */
void loop_settle(void);

#endif
