/* SPDX-License-Identifier: BSD-2-Clause */
/* What it can see and have; what it can call is in calls.c. */
#include "sandbox.h"
#include "../common/log.h"

#include <cap-ng.h>
#include <errno.h>
#include <linux/landlock.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- namespaces ---- */

/* A file system with nothing in it over the root, and the old root away. Mounts of a user namespace
 * do not spread; that they are made slaves is for those who have no such namespace. */
static bool empty_root(void)
{
    return mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) == 0 &&
           mount("none", "/", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
                 "mode=0555,nr_inodes=1,size=4k") == 0 &&
           chdir("/..") == 0 && /* what is mounted over it */
           syscall(SYS_pivot_root, ".", ".") == 0 && umount2(".", MNT_DETACH) == 0 &&
           chdir("/") == 0;
}

/* One has all capabilities in a user namespace that one has made. */
static bool drop_capabilities(void)
{
    int error;

    capng_clear(CAPNG_SELECT_ALL);
    error = capng_apply(CAPNG_SELECT_BOTH);
    /* Where a new user namespace gives no capabilities (AppArmor can have it so), the bounding set
     * cannot be lowered; no_new_privs keeps what is in it away. */
    if (error)
        error = capng_apply(CAPNG_SELECT_CAPS);
    if (error)
        log_line("cannot give up capabilities (error %d of libcap-ng)", error);
    return error == 0;
}

bool sandbox_namespaces(void)
{
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
        log_line("the sandbox has no namespaces of its own (%s): are user namespaces allowed?",
                 strerrorname_np(errno));
        return true;
    }
    /* Where these are refused, as in ebbd's unit, systemd has set up others; and no call is left to
     * use them by. */
    (void)unshare(CLONE_NEWNET);
    (void)unshare(CLONE_NEWIPC);
    (void)unshare(CLONE_NEWUTS);
    if (!empty_root())
        log_line("the sandbox has no empty root (%s): are user namespaces allowed to mount?",
                 strerrorname_np(errno));
    return drop_capabilities();
}

/* ---- limits ---- */

/* Regions of memory, kicks and calls, clients, and what one message brings. */
#define DESCRIPTORS 1024u
/* Sessions, messages and clients; not the guest's memory, which is shared. And the longest file:
 * a record of what is in flight. */
#define BYTES ((rlim_t)64 << 20)
/* The memory that a sanitizer's runtime keeps beside has no bound. */
#ifdef EBBD_VM_SANITIZED
#define DATA RLIM_INFINITY
#else
#define DATA BYTES
#endif

static bool lower(__rlimit_resource_t resource, const char *name, rlim_t to)
{
    struct rlimit limit;

    if (getrlimit(resource, &limit) == 0) {
        limit.rlim_max = limit.rlim_max < to ? limit.rlim_max : to;
        limit.rlim_cur = limit.rlim_cur < to ? limit.rlim_cur : to;
        if (setrlimit(resource, &limit) == 0)
            return true;
    }
    log_line("cannot lower the limit of %s: %s", name, strerror(errno));
    return false;
}

/* A log that is a file may grow. */
static bool logs_to_file(void)
{
    struct stat file;

    return fstat(STDERR_FILENO, &file) == 0 && S_ISREG(file.st_mode);
}

bool sandbox_limits(void)
{
    return lower(RLIMIT_CORE, "core files", 0) && lower(RLIMIT_NOFILE, "files", DESCRIPTORS) &&
           lower(RLIMIT_DATA, "memory", DATA) &&
           (logs_to_file() || lower(RLIMIT_FSIZE, "files' sizes", BYTES));
}

/* ---- files ---- */

/* What version 6 knows, as the kernel has it; headers are often older than the kernel. */
struct ruleset {
    __u64 files, network, scope;
};

/* Everything that this kernel can refuse, and nothing that is allowed. */
static size_t all_rights(long abi, struct ruleset *all)
{
    static const unsigned rights[] = {13, 14, 15, 15, 16}; /* on files, by version */
    const unsigned n = rights[abi > 5 ? 4 : abi - 1];

    *all = (struct ruleset){((__u64)1 << n) - 1, 3, 3}; /* bind, connect; sockets, signals */
    return abi >= 6 ? sizeof(*all) : abi >= 4 ? 2 * sizeof(__u64) : sizeof(__u64);
}

bool sandbox_files(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    struct ruleset all;
    size_t size;
    bool done;
    int ruleset;

    if (abi < 1) { /* seccomp alone will do: no call is left that takes a path */
        log_line("the sandbox goes without Landlock (%s): does this kernel have it?",
                 strerrorname_np(errno));
        return true;
    }
    size = all_rights(abi, &all);
    ruleset = (int)syscall(SYS_landlock_create_ruleset, &all, size, 0);
    done = ruleset >= 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
    if (!done)
        log_line("cannot give up files by Landlock: %s", strerror(errno));
    if (ruleset >= 0)
        close(ruleset);
    return done;
}
