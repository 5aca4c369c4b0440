/* SPDX-License-Identifier: BSD-2-Clause */
/* See fiber.h. */
#include "fiber.h"

#include <stddef.h>
#include <ucontext.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

#define STACK_SIZE ((size_t)256 << 10)

struct side {
    ucontext_t context;
    const void *stack;
    size_t size;
    void *fake; /* address sanitizer: its stack beside the stack */
    void *tsan;
};

static _Alignas(64) char stack[STACK_SIZE];
static struct side program, fiber;
static void (*entry)(void);
static bool over = true;

/* `ends`: `from` is never run again. */
static void switch_sides(struct side *from, struct side *to, bool ends)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(ends ? NULL : &from->fake, to->stack, to->size);
#else
    (void)ends;
#endif
#ifdef __SANITIZE_THREAD__
    __tsan_switch_to_fiber(to->tsan, 0);
#endif
    swapcontext(&from->context, &to->context);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(from->fake, &to->stack, &to->size);
#endif
}

static void run(void)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(NULL, &program.stack, &program.size);
#endif
    entry();
    over = true;
    switch_sides(&fiber, &program, true);
}

void fiber_start(void (*function)(void))
{
    entry = function;
    over = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack;
    fiber.context.uc_stack.ss_size = STACK_SIZE;
    fiber.context.uc_link = NULL;
    fiber.stack = stack;
    fiber.size = STACK_SIZE;
#ifdef __SANITIZE_THREAD__
    program.tsan = __tsan_get_current_fiber();
    if (!fiber.tsan)
        fiber.tsan = __tsan_create_fiber(0);
#endif
    makecontext(&fiber.context, run, 0);
    switch_sides(&program, &fiber, false);
}

bool fiber_resume(void)
{
    if (!over)
        switch_sides(&program, &fiber, false);
    return !over;
}

void fiber_pause(void)
{
    switch_sides(&fiber, &program, false);
}

bool fiber_is_over(void)
{
    return over;
}
