/* SPDX-License-Identifier: BSD-2-Clause */
/* Start programs so that none of them is left behind. */
#include "child.h"
#include "cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FILE_BYTES ((uint64_t)64 << 20) /* that child_run() keeps of a program's output */

/* Give the file `fd` the number `number`. */
static bool become(int fd, int number)
{
    if (fd < 0)
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    return fd == number ? fcntl(fd, F_SETFD, 0) == 0 : dup2(fd, number) == number;
}

static bool prepare(const struct child_config *config, pid_t parent)
{
    struct rlimit limit = {config->cpu_limit, config->cpu_limit};
    struct rlimit file_limit = {config->file_limit, config->file_limit};
    sigset_t none;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return false;
    /* The parent may have died before the kernel was told to watch it. */
    if (getppid() != parent)
        _exit(127);
    sigemptyset(&none);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    if (sigprocmask(SIG_SETMASK, &none, NULL) != 0)
        return false;
    if (config->own_group && setpgid(0, 0) != 0)
        return false;
    if (config->cpu_limit && setrlimit(RLIMIT_CPU, &limit) != 0)
        return false;
    if (config->file_limit && setrlimit(RLIMIT_FSIZE, &file_limit) != 0)
        return false;
    if (config->no_thp && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0)
        return false;
    for (size_t i = 0; i < config->n_keep; i++) {
        if (fcntl(config->keep[i], F_SETFD, 0) != 0)
            return false;
    }
    return become(config->in, 0) && become(config->out, 1) && become(config->err, 2);
}

pid_t child_start(const struct child_config *config)
{
    pid_t parent = getpid(), pid;
    int fault = 0, report[2];

    if (pipe2(report, O_CLOEXEC) != 0)
        return -errno;
    pid = fork();
    if (pid == 0) {
        if (prepare(config, parent))
            execvp(config->argv[0], config->argv);
        fault = errno ? errno : EINVAL;
        if (write(report[1], &fault, sizeof(fault)) < 0)
            _exit(126);
        _exit(127);
    }
    if (pid < 0)
        fault = errno;
    close(report[1]);
    /* The pipe closes by itself when exec succeeds. */
    if (pid > 0) {
        ssize_t n;
        do
            n = read(report[0], &fault, sizeof(fault));
        while (n < 0 && errno == EINTR);
        if (n != (ssize_t)sizeof(fault))
            fault = 0;
        if (fault)
            waitpid(pid, NULL, 0);
    }
    close(report[0]);
    return fault ? -fault : pid;
}

int child_temporary(const char *text)
{
    int fd = memfd_create("ebb", MFD_CLOEXEC);
    size_t left = text ? strlen(text) : 0;

    while (fd >= 0 && left > 0) {
        ssize_t n = write(fd, text, left);
        if (n < 0) {
            close(fd);
            return -1;
        }
        text += n;
        left -= (size_t)n;
    }
    if (fd >= 0)
        lseek(fd, 0, SEEK_SET);
    return fd;
}

/* The whole of a file, with a zero byte behind it. */
static char *slurp(int fd, size_t *len)
{
    struct stat st;
    size_t size = fstat(fd, &st) == 0 && st.st_size > 0 ? (size_t)st.st_size : 0, n = 0;
    char *text = cmd_realloc(NULL, size + 1);

    while (n < size) {
        ssize_t got = pread(fd, text + n, size - n, (off_t)n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    text[n] = '\0';
    if (len)
        *len = n;
    return text;
}

/* The wait status of pid; kills it if it takes longer than `seconds`. */
static int wait_at_most(pid_t pid, double seconds)
{
    const struct timespec nap = {0, (long)(2 * CMD_MS)};
    uint64_t end = cmd_now_ns() + (uint64_t)(seconds * 1e9);
    int status = 0;

    for (;;) {
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got == pid)
            return status;
        if (got < 0 && errno != EINTR)
            return -errno;
        if (cmd_now_ns() >= end)
            break;
        nanosleep(&nap, NULL);
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -ETIME;
}

int child_run(char *const *argv, const char *in, double seconds, char **out, size_t *out_len,
              char **err)
{
    /* Files in memory, not pipes: nobody has to empty them meanwhile. */
    int files[3] = {child_temporary(in), child_temporary(NULL), child_temporary(NULL)};
    int status = -EMFILE;

    if (files[0] >= 0 && files[1] >= 0 && files[2] >= 0) {
        struct child_config config = {.argv = argv,
                                      .in = files[0],
                                      .out = files[1],
                                      .err = files[2],
                                      .cpu_limit = (unsigned)seconds + 1,
                                      .file_limit = FILE_BYTES};
        pid_t pid = child_start(&config);
        status = pid < 0 ? (int)pid : wait_at_most(pid, seconds);
        *out = slurp(files[1], out_len);
        *err = slurp(files[2], NULL);
    } else {
        *out = cmd_format("%s", "");
        *err = cmd_format("%s", "");
    }
    for (int i = 0; i < 3; i++) {
        if (files[i] >= 0)
            close(files[i]);
    }
    return status;
}
