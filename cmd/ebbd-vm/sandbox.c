/* SPDX-License-Identifier: BSD-2-Clause */
#include "sandbox.h"
#include "../common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- files ---- */

/* Everything that the headers we are built with know of, as far as this kernel does. */
static __u64 all_rights(long abi)
{
    __u64 rights = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1; /* those of the first version */

#ifdef LANDLOCK_ACCESS_FS_REFER
    if (abi >= 2)
        rights |= LANDLOCK_ACCESS_FS_REFER;
#endif
#ifdef LANDLOCK_ACCESS_FS_TRUNCATE
    if (abi >= 3)
        rights |= LANDLOCK_ACCESS_FS_TRUNCATE;
#endif
    return rights;
}

bool sandbox_files(void)
{
    struct landlock_ruleset_attr attr = {0};
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    bool done;
    int ruleset;

    if (abi < 1) /* seccomp alone will do: no call is left that takes a path */
        return true;
    attr.handled_access_fs = all_rights(abi);
    ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    done = ruleset >= 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
    if (!done)
        log_line("cannot give up files by Landlock: %s", strerror(errno));
    if (ruleset >= 0)
        close(ruleset);
    return done;
}

/* ---- system calls ---- */

/* What the loop, the sessions and the pool need, and what libc and a sanitizer's runtime do behind
 * them. None takes a path; those with arguments to look at are in conditionals[]. */
static const int calls[] = {
    /* the loop */
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(getrusage),
    /* sockets and descriptors that exist */
    SCMP_SYS(accept4),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg),
    SCMP_SYS(recvfrom),
    SCMP_SYS(sendto),
    SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    SCMP_SYS(shutdown),
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(close),
    SCMP_SYS(lseek),
    SCMP_SYS(eventfd2),
    /* guest memory */
    SCMP_SYS(fstat),
    SCMP_SYS(fstatfs),
    SCMP_SYS(fallocate),
    SCMP_SYS(madvise),
    SCMP_SYS(mincore),
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(memfd_create),
    SCMP_SYS(ftruncate),
    /* kicks and calls (src/vhost/vhost_user_event.c) */
    SCMP_SYS(preadv2),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    SCMP_SYS(io_setup),
    SCMP_SYS(io_destroy),
    SCMP_SYS(io_submit),
    SCMP_SYS(io_getevents),
    /* libc */
    SCMP_SYS(brk),
    SCMP_SYS(futex),
    SCMP_SYS(getrandom),
    SCMP_SYS(sched_yield),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(timer_settime),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(membarrier),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(sysinfo),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

/* Calls under a condition: argument `arg`, of 32 bits, has `value` in the bits of `mask`. */
#define ALL UINT32_MAX
static const struct conditional {
    int call;
    unsigned arg;
    uint32_t mask, value;
} conditionals[] = {
    {SCMP_SYS(ioctl), 1, ALL, FIONREAD},
    {SCMP_SYS(fcntl), 1, ALL, F_GETFD},
    {SCMP_SYS(fcntl), 1, ALL, F_SETFD},
    {SCMP_SYS(fcntl), 1, ALL, F_GETFL},
    {SCMP_SYS(fcntl), 1, ALL, F_SETFL},
    {SCMP_SYS(fcntl), 1, ALL, F_GET_SEALS},
    {SCMP_SYS(fcntl), 1, ALL, F_ADD_SEALS},
    /* Memory that runs is never made. */
    {SCMP_SYS(mmap), 2, PROT_EXEC, 0},
    {SCMP_SYS(mprotect), 2, PROT_EXEC, 0},
    /* Of a descriptor; the second as some versions of libc call fstat(). A name in it would be
     * looked up, which tells of a file and opens none. */
    {SCMP_SYS(statx), 2, AT_EMPTY_PATH, AT_EMPTY_PATH},
    {SCMP_SYS(newfstatat), 3, AT_EMPTY_PATH, AT_EMPTY_PATH},
};

static int allow_if(scmp_filter_ctx filter, const struct conditional *conditional)
{
    const struct scmp_arg_cmp condition = {.arg = conditional->arg,
                                           .op = SCMP_CMP_MASKED_EQ,
                                           .datum_a = conditional->mask,
                                           .datum_b = conditional->value};

    return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, conditional->call, 1, &condition);
}

static int allow_calls(scmp_filter_ctx filter, const int *list, size_t n)
{
    int error = 0;

    for (size_t i = 0; !error && i < n; i++)
        error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, list[i], 0);
    return error;
}

#define N(array) (sizeof(array) / sizeof((array)[0]))

static int fill_filter(scmp_filter_ctx filter)
{
    /* abort(), so that a defect is seen as one. */
    const struct conditional ourselves = {SCMP_SYS(tgkill), 0, ALL, (uint32_t)getpid()};
    int error = allow_calls(filter, calls, N(calls));

    for (size_t i = 0; !error && i < N(conditionals); i++)
        error = allow_if(filter, &conditionals[i]);
    return error ? error : allow_if(filter, &ourselves);
}

bool sandbox_calls(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int error = filter ? fill_filter(filter) : -ENOMEM;

    if (!error)
        error = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (!error)
        error = seccomp_load(filter);
    if (filter)
        seccomp_release(filter);
    if (error)
        log_line("cannot give up system calls (seccomp): error %d; --no-sandbox goes without",
                 error);
    return error == 0;
}
