/* SPDX-License-Identifier: BSD-2-Clause */
/* What cannot be done any more in ebbd-vm's sandbox, and what can. Each test is a process. */
#include "../../cmd/common/process.h"
#include "../../cmd/ebbd-vm/sandbox.h"

#include <ebb/vhost/discard.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* In a child, as a failed assertion could not leave the sandbox. The child ends with the line of
 * what went wrong. */
static void in_child(int (*what)(void))
{
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(what());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("status 0x%x, a check failed at line %d of 256 n", (unsigned)status,
                 WEXITSTATUS(status));
}

#define CHECK(condition)                  \
    do {                                  \
        if (!(condition))                 \
            return (__LINE__ & 0xff) | 1; \
    } while (0)
#define MEMORY      (UINT64_C(4) << 20)
#define FAILS(call) CHECK((call) < 0 && (errno == EPERM || errno == EACCES))

/* As ebbd-vm does. */
static struct ebb_discard_pool *enter(void)
{
    struct ebb_discard_pool *pool = NULL;

    if (process_user(NULL) && sandbox_namespaces() && sandbox_limits() && sandbox_files())
        pool = sandbox_pool();
    return pool && sandbox_calls() ? pool : NULL;
}

/* What neither thread can do. */
static int gone_for_all(void)
{
    char *argv[] = {(char *)"true", NULL};
    void *page;

    FAILS(open("/dev/null", O_RDONLY));
    FAILS(open("/etc/passwd", O_PATH));
    FAILS(openat(AT_FDCWD, ".", O_RDONLY));
    FAILS(mkdir("ebb-test-dir", 0700));
    FAILS(unlink("nothing"));
    FAILS(rename("nothing", "something"));
    FAILS(chdir("/"));
    FAILS(chroot("/"));
    FAILS(mount("none", "/", "tmpfs", 0, NULL));
    FAILS(unshare(CLONE_NEWUSER));
    FAILS(execv("/bin/true", argv));
    FAILS(fork());
    FAILS(socket(AF_UNIX, SOCK_STREAM, 0));
    FAILS(socket(AF_INET, SOCK_STREAM, 0));
    FAILS(kill(getpid(), 0));
    FAILS(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    FAILS(setuid(0));
    FAILS(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    FAILS(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
    FAILS(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}));
    FAILS(ioctl(STDIN_FILENO, TIOCSTI, "x"));
    FAILS(fcntl(STDIN_FILENO, F_SETOWN, getpid()));
    page = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page == MAP_FAILED && errno == EPERM);
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    FAILS(mprotect(page, 4096, PROT_READ | PROT_EXEC));
    FAILS(madvise(page, 4096, MADV_HUGEPAGE));
    FAILS(madvise(page, 4096, MADV_WILLNEED));
    CHECK(madvise(page, 4096, MADV_DONTNEED) == 0);
    CHECK(mremap(page, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, page) == MAP_FAILED);
    CHECK(errno == EPERM && munmap(page, 4096) == 0);
    return 0;
}

static int calls_are_gone(void)
{
    int ends[2], wrong, file = memfd_create("guest", MFD_CLOEXEC);
    struct sockaddr_un peer = {.sun_family = AF_UNIX, .sun_path = "x"};

    CHECK(file >= 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0);
    CHECK(enter());
    wrong = gone_for_all();
    if (wrong)
        return wrong;
    FAILS(fallocate(file, 0, 0, 4096));
    FAILS(fallocate(file, FALLOC_FL_ZERO_RANGE, 0, 4096));
    FAILS(memfd_create("mine", 0));
    FAILS(connect(ends[0], (struct sockaddr *)&peer, sizeof(peer)));
    FAILS(bind(ends[0], (struct sockaddr *)&peer, sizeof(peer)));
    FAILS(listen(ends[0], 1));
    FAILS(sendto(ends[0], "x", 1, 0, (struct sockaddr *)&peer, sizeof(peer)));
    FAILS(setsockopt(ends[0], SOL_SOCKET, SO_RCVBUF, &wrong, sizeof(wrong)));
    FAILS(syscall(SYS_clone, CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, NULL, NULL, NULL, NULL));
    return 0;
}

/* ---- from the thread that discards ---- */

static struct {
    int ends[2], wrong;
    sem_t done;
} other;

static int gone_for_discards(void)
{
    struct stat socket;
    char byte;

    FAILS(recv(other.ends[0], &byte, 1, MSG_DONTWAIT));
    FAILS(send(other.ends[0], "x", 1, MSG_DONTWAIT));
    FAILS(read(other.ends[0], &byte, 1));
    FAILS(accept4(other.ends[0], NULL, NULL, 0));
    FAILS(close(other.ends[0]));
    FAILS(fcntl(other.ends[0], F_GETFL));
    FAILS(memfd_create("mine", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    FAILS(ftruncate(other.ends[0], 0));
    FAILS(pwrite(other.ends[0], "x", 1, 0));
    CHECK(fstat(other.ends[0], &socket) == 0); /* of files of huge pages it asks */
    return 0;
}

static void done(void *ctx)
{
    (void)ctx;
    other.wrong = gone_for_all();
    if (!other.wrong)
        other.wrong = gone_for_discards();
    sem_post(&other.done);
}

/* It discards, and looks whether it did. */
static int discards_have_a_list_of_their_own(void)
{
    static struct ebb_memory memory;
    const struct ebb_range range = {0, MEMORY};
    struct ebb_discard_config config = {.memory = &memory, .check_every = 1};
    struct ebb_region region = {.size = MEMORY, .fd = memfd_create("guest", MFD_CLOEXEC)};
    struct ebb_discard_stats stats;
    struct ebb_discard *discard;
    const char *why;

    CHECK(ftruncate(region.fd, MEMORY) == 0 && sem_init(&other.done, 0, 0) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, other.ends) == 0);
    region.host = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, region.fd, 0);
    CHECK(region.host != MAP_FAILED);
    memset(region.host, 1, MEMORY);
    ebb_memory_init(&memory);
    CHECK(ebb_region_probe(&region, true, &why) == 0 && ebb_memory_add(&memory, &region) == 0);
    config.pool = enter();
    discard = config.pool ? ebb_discard_new(&config) : NULL;
    CHECK(discard);
    CHECK(ebb_discard_submit(discard, EBB_DISCARD_REPORTED, &range, 1, UINT64_MAX, done, NULL) ==
          0);
    while (sem_wait(&other.done) != 0)
        ;
    ebb_discard_get_stats(discard, &stats);
    CHECK(stats.discarded_bytes == MEMORY);
    CHECK(stats.checked_bytes > 0 && stats.not_bytes[EBB_DISCARD_RESIDENT] == 0);
    return other.wrong;
}

/* ---- what is left ---- */

static int what_serving_takes_is_left(void)
{
    int fd = memfd_create("guest", MFD_CLOEXEC), ends[2];
    struct stat file;
    char *memory;

    CHECK(fd >= 0 && ftruncate(fd, 8192) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    CHECK(enter());
    memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED);
    memory[0] = 'x';
    CHECK(fstat(fd, &file) == 0 && file.st_blocks > 0);
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192) == 0);
    CHECK(fstat(fd, &file) == 0 && file.st_blocks == 0);
    CHECK(send(ends[0], "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1);
    CHECK(munmap(memory, 8192) == 0 && close(fd) == 0);
    return 0;
}

static int nobody_unknown(void)
{
    CHECK(!process_user("ebb-no-such-user"));
    return 0;
}

static void test_calls(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__ /* its runtime has a thread, and makes calls, of its own */
    skip();
#endif
    in_child(calls_are_gone);
    in_child(discards_have_a_list_of_their_own);
    in_child(what_serving_takes_is_left);
}

/* A user namespace that brings no capabilities, as AppArmor can have it: nothing happens, here to a
 * user without any. */
static int namespaces_without_capabilities(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

    CHECK(geteuid() != 0 || (setgid(65534) == 0 && setuid(65534) == 0));
    CHECK(filter && seccomp_rule_add(filter, SCMP_ACT_ERRNO(0), SCMP_SYS(unshare), 0) == 0);
    CHECK(seccomp_load(filter) == 0);
    seccomp_release(filter);
    CHECK(sandbox_namespaces());
    return 0;
}

static void test_namespaces(void **state)
{
    (void)state;
    in_child(namespaces_without_capabilities);
}

static void test_user(void **state)
{
    (void)state;
    in_child(nobody_unknown);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_namespaces),
        cmocka_unit_test(test_user),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
