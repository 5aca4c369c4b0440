/* SPDX-License-Identifier: BSD-2-Clause */
/* What cannot be done any more in ebbd-vm's sandbox, and what can. Each test is a process. */
#include "../../cmd/common/process.h"
#include "../../cmd/ebbd-vm/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
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
#define FAILS(call) CHECK((call) < 0 && (errno == EPERM || errno == EACCES))

static int calls_are_gone(void)
{
    char *argv[] = {(char *)"true", NULL};
    void *page;

    CHECK(process_user(NULL) && sandbox_files() && sandbox_calls());
    FAILS(open("/dev/null", O_RDONLY));
    FAILS(open("/etc/passwd", O_PATH));
    FAILS(openat(AT_FDCWD, ".", O_RDONLY));
    FAILS(mkdir("ebb-test-dir", 0700));
    FAILS(unlink("nothing"));
    FAILS(rename("nothing", "something"));
    FAILS(execv("/bin/true", argv));
    FAILS(fork());
    FAILS(socket(AF_UNIX, SOCK_STREAM, 0));
    FAILS(socket(AF_INET, SOCK_STREAM, 0));
    FAILS(kill(getpid(), 0));
    FAILS(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    FAILS(setuid(0));
    page = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page == MAP_FAILED && errno == EPERM);
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(page != MAP_FAILED);
    FAILS(mprotect(page, 4096, PROT_READ | PROT_EXEC));
    return 0;
}

static int what_serving_takes_is_left(void)
{
    int fd = memfd_create("guest", MFD_CLOEXEC), ends[2];
    struct stat file;
    char *memory;

    CHECK(fd >= 0 && ftruncate(fd, 8192) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    CHECK(process_user(NULL) && sandbox_files() && sandbox_calls());
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
    in_child(calls_are_gone);
    in_child(what_serving_takes_is_left);
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
        cmocka_unit_test(test_user),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
