/* SPDX-License-Identifier: BSD-2-Clause */
/* The system calls that are left, by role: for the loop, and for the thread that discards. */
#include "../common/log.h"
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---- lists ---- */

/* Calls under a condition: argument `arg` has `value` in the bits of `mask`. */
struct conditional {
    int call;
    unsigned arg;
    uint64_t mask, value;
};
#define INT     UINT32_MAX /* all bits, of an argument of 32 */
#define POINTER UINT64_MAX

struct list {
    const int *calls;
    size_t n_calls;
    const struct conditional *conditionals;
    size_t n_conditionals;
};
#define N(array) (sizeof(array) / sizeof((array)[0]))
#define LIST(name)                                                                  \
    {                                                                               \
        name##_calls, N(name##_calls), name##_conditionals, N(name##_conditionals), \
    }

/* What libc and a sanitizer's runtime do behind either; and memory, of its own or a guest's. */
static const int common_calls[] = {
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(futex),
    SCMP_SYS(getrandom),
    SCMP_SYS(sched_yield),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(time),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(getpid),
    SCMP_SYS(gettid),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigaction),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(membarrier),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(sysinfo),
    SCMP_SYS(write), /* also what wakes the loop */
    SCMP_SYS(lseek),
    SCMP_SYS(fstat),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
};

static const struct conditional common_conditionals[] = {
    /* Memory that runs is never made, and none is put in another's place. */
    {SCMP_SYS(mmap), 2, PROT_EXEC, 0},
    {SCMP_SYS(mprotect), 2, PROT_EXEC, 0},
    {SCMP_SYS(mremap), 3, INT, MREMAP_MAYMOVE},
    {SCMP_SYS(madvise), 2, INT, MADV_DONTNEED},
    {SCMP_SYS(madvise), 2, INT, MADV_DONTDUMP},
    {SCMP_SYS(fallocate), 1, INT, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE},
    /* Of a descriptor; the second as some versions of libc call fstat(). A name in it would be
     * looked up, which tells of a file and opens none. */
    {SCMP_SYS(statx), 2, AT_EMPTY_PATH, AT_EMPTY_PATH},
    {SCMP_SYS(newfstatat), 3, AT_EMPTY_PATH, AT_EMPTY_PATH},
};

static const int discards_calls[] = {
    SCMP_SYS(mincore),
};

/* The pool's maker has this list, too: it inherits to the thread that it makes. */
static const struct conditional discards_conditionals[] = {
    {SCMP_SYS(clone), 0, CLONE_THREAD, CLONE_THREAD},
};

static const int loop_calls[] = {
    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),
    SCMP_SYS(epoll_pwait2),
    SCMP_SYS(epoll_ctl),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(timer_settime),
    SCMP_SYS(getrusage),
    /* sockets and descriptors that exist */
    SCMP_SYS(accept4),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg), /* descriptors go by it; Landlock and namespaces see to addresses */
    SCMP_SYS(recvfrom),
    SCMP_SYS(getsockname),
    SCMP_SYS(getpeername),
    SCMP_SYS(shutdown),
    SCMP_SYS(read),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(close),
    SCMP_SYS(eventfd2),
    SCMP_SYS(fstatfs),
    /* records of what is in flight */
    SCMP_SYS(ftruncate),
    SCMP_SYS(pread64),
    SCMP_SYS(pwrite64),
    /* calls to guests (src/vhost/vhost_user_event.c) */
    SCMP_SYS(io_destroy),
    SCMP_SYS(io_submit),
    SCMP_SYS(io_getevents),
};

static const struct conditional loop_conditionals[] = {
    {SCMP_SYS(ioctl), 1, INT, FIONREAD},
    {SCMP_SYS(fcntl), 1, INT, F_GETFD},
    {SCMP_SYS(fcntl), 1, INT, F_SETFD},
    {SCMP_SYS(fcntl), 1, INT, F_GETFL},
    {SCMP_SYS(fcntl), 1, INT, F_SETFL},
    {SCMP_SYS(fcntl), 1, INT, F_GET_SEALS},
    {SCMP_SYS(fcntl), 1, INT, F_ADD_SEALS},
    {SCMP_SYS(getsockopt), 1, INT, SOL_SOCKET},
    {SCMP_SYS(sendto), 4, POINTER, 0}, /* no address */
    {SCMP_SYS(preadv2), 5, INT, RWF_NOWAIT},
    {SCMP_SYS(memfd_create), 1, INT, MFD_CLOEXEC | MFD_ALLOW_SEALING},
};

static const struct list common = LIST(common), discards = LIST(discards), loop = LIST(loop);

/* ---- filters ---- */

static int allow_if(scmp_filter_ctx filter, const struct conditional *conditional)
{
    const struct scmp_arg_cmp condition = {.arg = conditional->arg,
                                           .op = SCMP_CMP_MASKED_EQ,
                                           .datum_a = conditional->mask,
                                           .datum_b = conditional->value};

    return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, conditional->call, 1, &condition);
}

static int allow(scmp_filter_ctx filter, const struct list *list)
{
    int error = 0;

    for (size_t i = 0; !error && i < list->n_calls; i++)
        error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, list->calls[i], 0);
    for (size_t i = 0; !error && i < list->n_conditionals; i++)
        error = allow_if(filter, &list->conditionals[i]);
    return error;
}

static int fill_filter(scmp_filter_ctx filter, const struct list *role)
{
    /* abort(), so that a defect is seen as one. */
    const struct conditional ourselves = {SCMP_SYS(tgkill), 0, INT, (uint32_t)getpid()};
    int error = allow(filter, &common);

    if (!error)
        error = allow(filter, role);
    if (!error)
        error = allow_if(filter, &ourselves);
    if (!error) /* its flags are in memory: libc goes by clone() when told that it is not there */
        error = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    return error;
}

/* For this thread. */
static bool give_up_calls(const struct list *role)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int error = filter ? fill_filter(filter, role) : -ENOMEM;

    if (!error)
        error = seccomp_load(filter);
    if (filter)
        seccomp_release(filter);
    if (error)
        log_line("cannot give up system calls (seccomp): error %d; --no-sandbox goes without",
                 error);
    return error == 0;
}

bool sandbox_calls(void)
{
    return give_up_calls(&loop);
}

/* ---- the pool ---- */

#define STACK_BYTES ((size_t)256 << 10)

static void *make_pool(void *arg)
{
    struct ebb_discard_pool **pool = arg;

    if (!give_up_calls(&discards))
        return NULL;
    *pool = ebb_discard_pool_new(1);
    if (!*pool)
        log_line("cannot start a thread: %s", strerror(errno));
    return NULL;
}

struct ebb_discard_pool *sandbox_pool(void)
{
    struct ebb_discard_pool *pool = NULL;
    pthread_attr_t attr;
    pthread_t maker;
    int error = pthread_attr_init(&attr);

    /* Memory is limited by now, and the size of a stack comes with the environment. */
    if (!error)
        error = pthread_attr_setstacksize(&attr, STACK_BYTES);
    if (!error)
        error = pthread_create(&maker, &attr, make_pool, &pool);
    if (error)
        log_line("cannot start a thread: %s", strerror(error));
    else
        pthread_join(maker, NULL);
    return pool;
}
