/* SPDX-License-Identifier: BSD-2-Clause */
/* The `ebb` command: finds the subcommand and hands over. */
#include "cmd.h"

#include <ebb/types.h>

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} commands[] = {
    {"run", ebb_cmd_run, "boot the reference guest in QEMU and watch its memory come back"},
    {"demo", ebb_cmd_demo, "the same in one process, without a virtual machine"},
    {"replay", ebb_cmd_replay, "play a recorded allocation trace, and tell what stays resident"},
    {"bench", ebb_cmd_bench,
     "measure: `ebb bench trackers` compares the ways of finding free blocks"},
    {"plot", ebb_cmd_plot, "draw the results of one or more runs into one picture"},
    {"ctl", ebb_cmd_ctl, "ask ebbd something, or tell it to do something"},
    {"top", ebb_cmd_top, "a live table of VMs: what they hold, waste and give back"},
    {"doctor", ebb_cmd_doctor,
     "look at this host and its VMs: does freed memory come back, and if not, why"},
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void usage(FILE *out)
{
    fprintf(out, "ebb gives the memory that a guest no longer uses back to its host\n"
                 "(free page reporting), and shows that it does.\n\n"
                 "Usage: ebb COMMAND [OPTION...]\n\n"
                 "Commands:\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-6s %s\n", commands[i].name, commands[i].what);
    fprintf(
        out,
        "\nExamples:\n"
        "  ebb run --workload 'memhog 75%%; idle 3' --plot run.svg\n"
        "  ebb run --set report.pacing=delay --set report.delay_ms=2000 --set report.budget=16\n"
        "                                     the pacing of Linux\n\n"
        "`ebb COMMAND --help` lists the options of a command, `ebb --version` the version.\n");
}

static int unknown(const char *name)
{
    fprintf(stderr, "ebb: there is no command '%s'. The commands are:", name);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(stderr, " %s", commands[i].name);
    fprintf(stderr, ". See ebb --help.\n");
    return CMD_USAGE;
}

/* A program that starts without stdin, stdout or stderr would give their
 * numbers to the next file it opens, and print into that. */
static bool standard_fds_open(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) != fd)
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    char name[32];

    if (!standard_fds_open())
        return CMD_HOST;
    setlocale(LC_CTYPE, "");
    /* Where it is ignored, nobody hears how a child ended. */
    signal(SIGCHLD, SIG_DFL);
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return fflush(stdout) == 0 ? CMD_OK : CMD_HOST;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("ebb %s\n", EBB_VERSION);
        return fflush(stdout) == 0 ? CMD_OK : CMD_HOST;
    }
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) != 0)
            continue;
        snprintf(name, sizeof(name), "ebb %s", commands[i].name);
        argv[1] = name;
        return commands[i].run(argc - 1, argv + 1);
    }
    return unknown(argv[1]);
}

void cmd_error(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("ebb: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

void cmd_argp_setup(void)
{
    argp_err_exit_status = CMD_USAGE;
    argp_program_version = "ebb " EBB_VERSION;
}

uint64_t cmd_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * CMD_S + (uint64_t)now.tv_nsec;
}

void cmd_no_memory(void)
{
    cmd_error("out of memory");
    exit(CMD_HOST);
}

void *cmd_realloc(void *old, uint64_t bytes)
{
    void *memory = bytes > SIZE_MAX ? NULL : realloc(old, (size_t)bytes);

    if (!memory)
        cmd_no_memory();
    return memory;
}

char *cmd_format(const char *format, ...)
{
    va_list args;
    char *text;
    int n;

    va_start(args, format);
    n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0)
        cmd_no_memory();
    return text;
}
