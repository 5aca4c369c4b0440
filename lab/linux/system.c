/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a host does to a guest, seen from inside: it says what is to be done, a line at a time; and
 * steps that no guest survives unless all else is right: memory that runs out, another kernel.
 */
#include "linux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define PORT   "/dev/ttyS1"
#define KERNEL "/kexec/vmlinuz"
#define INITRD "/kexec/initrd"
#define GROUPS "/sys/fs/cgroup"
#define GROUP  GROUPS "/squeezed"
#define LINE   1024

/* ---- a host that says what to do ---- */

static FILE *open_port(void)
{
    FILE *port = fopen(PORT, "r+e");
    struct termios raw;

    if (!port || tcgetattr(fileno(port), &raw) != 0)
        return NULL;
    cfmakeraw(&raw);
    tcsetattr(fileno(port), TCSANOW, &raw);
    return port;
}

/*
 * Steps from the second serial port, a line of them at a time, until one says "end". The answer is
 * what the steps print, and "done STATUS".
 */
enum status system_listen(enum status (*run)(const char *script))
{
    FILE *port = open_port();
    int console = dup(STDOUT_FILENO);
    char line[LINE];

    if (!port || console < 0) {
        printf("listen: %s: %s\n", PORT, strerror(errno));
        return STATUS_USAGE;
    }
    fflush(stdout);
    dup2(fileno(port), STDOUT_FILENO);
    puts("ready");
    while (fgets(line, sizeof(line), port) && strcmp(line, "end\n") != 0) {
        enum status status = run(line);

        printf("done %u\n", (unsigned)status);
    }
    fflush(stdout);
    dup2(console, STDOUT_FILENO);
    close(console);
    fclose(port);
    return STATUS_OK;
}

/* ---- memory that runs out ---- */

static void enter_group(uint64_t limit)
{
    char text[32];

    if (mount("cgroup2", GROUPS, "cgroup2", 0, NULL) != 0 && errno != EBUSY)
        printf("squeeze: cannot mount cgroups: %s\n", strerror(errno));
    write_file(GROUPS "/cgroup.subtree_control", "+memory");
    mkdir(GROUP, 0755);
    snprintf(text, sizeof(text), "%lu", limit * PAGE);
    write_file(GROUP "/memory.max", text);
    write_file(GROUP "/cgroup.procs", "0");
}

/* False: there is no such address space. */
static bool take_and_check(uint64_t pages)
{
    const size_t words = PAGE / sizeof(uint64_t);
    volatile uint64_t *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (at == MAP_FAILED)
        return false;
    for (uint64_t i = 0; i < pages; i++)
        at[i * words] = ~i;
    for (uint64_t i = 0; i < pages; i++)
        if (at[i * words] != ~i)
            telemetry_fault(i, ~i, at[i * words]);
    count_checks(pages);
    munmap((void *)at, pages * PAGE);
    return true;
}

/*
 * A process takes so much, whether it is there or not, in a cgroup if there is a limit. It is the
 * one that the kernel kills.
 */
enum status system_squeeze(uint64_t pages, uint64_t limit)
{
    pid_t child;
    int status = 0;

    fflush(stdout);
    child = fork();
    if (child == 0) {
        write_file("/proc/self/oom_score_adj", "1000");
        if (limit)
            enter_group(limit);
        fflush(stdout);
        _exit(take_and_check(pages) ? 0 : 1);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return STATUS_PANIC;
    if (WIFSIGNALED(status))
        printf("squeeze: killed by signal %d\n", WTERMSIG(status));
    else
        printf("squeeze: %s\n", WEXITSTATUS(status) == 0 ? "taken" : "refused");
    return errors_total() ? STATUS_VERIFY : STATUS_OK;
}

/* ---- a load beside all else ---- */

static pid_t load = -1;

/* Of so many pages at most; 0: no more of it. */
enum status system_load(uint64_t pages)
{
    if (load > 0) {
        kill(load, SIGKILL);
        waitpid(load, NULL, 0);
    }
    load = pages ? fork() : 0;
    for (uint64_t i = 0; load == 0 && pages; i++) {
        take_and_check(pages - pages / 4 * (i % 4));
        sleep_until(now_ns() + i % 5 * 40 * NS_PER_MS);
    }
    return load < 0 ? STATUS_PANIC : errors_total() ? STATUS_VERIFY : STATUS_OK;
}

/* ---- another kernel ---- */

/* With the command line of this one, so that it does the same again. */
enum status system_kexec(void)
{
    char line[4096];
    int kernel = open(KERNEL, O_RDONLY | O_CLOEXEC), initrd = open(INITRD, O_RDONLY | O_CLOEXEC);
    int words = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t n = words >= 0 ? read(words, line, sizeof(line) - 1) : 0;

    if (n > 0) {
        n -= line[n - 1] == '\n';
        line[n] = 0;
        if (syscall(SYS_kexec_file_load, kernel, initrd, (unsigned long)n + 1, line, 0ul) == 0)
            syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC,
                    NULL);
    }
    printf("kexec: %s\n", strerror(errno));
    return STATUS_USAGE;
}
