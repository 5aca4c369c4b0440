/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of sockets (cmd/common/sockets.c), while somebody else is at work in the same directory. */
#include "../../cmd/common/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = P_tmpdir "/ebb-sockets-XXXXXX";

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return chdir("/") == 0 && rmdir(dir) == 0 ? 0 : -1;
}

static ino_t inode(const char *path)
{
    struct stat file;

    return lstat(path, &file) == 0 ? file.st_ino : 0;
}

static void test_replaces_what_is_stale(void **state)
{
    int fd = sockets_listen_unix("a.sock", NULL), next;
    ino_t before = inode("a.sock");

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(sockets_listen_unix("a.sock", NULL), -1);
    assert_int_equal(errno, EADDRINUSE);
    assert_int_equal(inode("a.sock"), before);
    close(fd);
    next = sockets_listen_unix("a.sock", NULL);
    assert_true(next >= 0);
    close(next);
    assert_int_equal(sockets_remove("a.sock"), 0);
    assert_int_equal(inode("a.sock"), 0);
    assert_int_equal(inode("a.sock.lock"), 0);
}

static void test_follows_no_link(void **state)
{
    int fd = sockets_listen_unix("a.sock", NULL);
    struct stat file;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(close(open("precious", O_CREAT | O_WRONLY, 0600)), 0);
    assert_int_equal(unlink("a.sock"), 0);
    assert_int_equal(symlink("precious", "a.sock"), 0);
    assert_int_equal(sockets_remove("a.sock"), -1);
    assert_int_equal(errno, ESTALE);
    assert_int_equal(stat("precious", &file), 0);
    close(fd);
    /* Nor is one replaced. */
    assert_int_equal(sockets_listen_unix("a.sock", NULL), -1);
    assert_int_equal(errno, EADDRINUSE);
    assert_int_equal(unlink("a.sock"), 0);
    assert_int_equal(unlink("precious"), 0);
}

/* Another's socket in the place of ours is left alone. */
static void test_removes_its_own(void **state)
{
    int fd = sockets_listen_unix("a.sock", NULL), other;

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(rename("a.sock", "b.sock"), 0);
    other = sockets_listen_unix("c.sock", NULL);
    assert_true(other >= 0);
    assert_int_equal(rename("c.sock", "a.sock"), 0);
    assert_int_equal(sockets_remove("a.sock"), -1);
    assert_int_equal(errno, ESTALE);
    assert_int_not_equal(inode("a.sock"), 0);
    assert_int_equal(unlink("a.sock"), 0);
    assert_int_equal(sockets_remove("a.sock"), -1); /* nothing is known of it by now */
    assert_int_equal(unlink("b.sock"), 0);
    close(fd);
    close(other);
}

static void test_waits_for_none(void **state)
{
    int lock = open("a.sock.lock", O_CREAT | O_RDONLY, 0600), fd;

    (void)state;
    assert_int_equal(flock(lock, LOCK_EX), 0);
    assert_int_equal(sockets_listen_unix("a.sock", NULL), -1);
    assert_int_equal(errno, EADDRINUSE);
    assert_int_equal(inode("a.sock"), 0);
    close(lock); /* it stays, as after a crash, and is nobody's */
    fd = sockets_listen_unix("a.sock", NULL);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(sockets_remove("a.sock"), 0);
    assert_int_equal(mkfifo("a.sock.lock", 0600), 0);
    assert_int_equal(sockets_listen_unix("a.sock", NULL), -1);
    assert_int_equal(unlink("a.sock.lock"), 0);
}

/* In a process of its own, at once with others: does it get the socket? It keeps it until `end`
 * does. */
static pid_t contend(const int begin[2], const int end[2], int report)
{
    pid_t pid = fork();
    char byte;

    if (pid != 0)
        return pid;
    close(begin[1]);
    close(end[1]);
    while (read(begin[0], &byte, 1) > 0)
        ;
    byte = sockets_listen_unix("a.sock", NULL) >= 0;
    if (write(report, &byte, 1) != 1)
        _exit(1);
    while (read(end[0], &byte, 1) > 0)
        ;
    _exit(0);
}

static void test_one_wins(void **state)
{
    unsigned decided = 0;

    (void)state;
    close(sockets_listen_unix("a.sock", NULL)); /* a stale one to begin with */
    for (unsigned round = 0; round < 50; round++) {
        int begin[2], end[2], report[2], won = 0;
        pid_t pids[4];
        char byte;

        assert_int_equal(pipe2(begin, O_CLOEXEC) | pipe2(end, O_CLOEXEC) | pipe(report), 0);
        for (unsigned i = 0; i < 4; i++) {
            pids[i] = contend(begin, end, report[1]);
            assert_true(pids[i] > 0);
        }
        close(begin[0]);
        close(begin[1]);
        for (unsigned i = 0; i < 4; i++) {
            assert_int_equal(read(report[0], &byte, 1), 1);
            won += byte;
        }
        assert_true(won <= 1);
        decided += won == 1;
        close(end[1]);
        close(end[0]);
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
        close(report[0]);
        close(report[1]);
    }
    assert_int_equal(decided, 50);
    assert_int_equal(unlink("a.sock"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replaces_what_is_stale),
        cmocka_unit_test(test_follows_no_link),
        cmocka_unit_test(test_removes_its_own),
        cmocka_unit_test(test_waits_for_none),
        cmocka_unit_test(test_one_wins),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
