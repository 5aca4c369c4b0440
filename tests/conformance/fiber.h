/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two flows of control that take turns: the program, and one function on a stack of
 * its own. Like threads of which the test decides who runs, and much faster. The
 * sanitizers are told of each switch.
 */
#ifndef EBB_TESTS_FIBER_H
#define EBB_TESTS_FIBER_H

#include <stdbool.h>

/* Start the function; runs it until it calls fiber_pause() or returns. */
void fiber_start(void (*function)(void));
/* Run it on; false if it has returned. */
bool fiber_resume(void);
/* From inside the function: let the program go on. */
void fiber_pause(void);
bool fiber_is_over(void);

#endif
