/* SPDX-License-Identifier: BSD-2-Clause */
/* The options of `ebb run`. */
#include "args.h"
#include "cmd.h"
#include "run.h"

#include <argp.h>
#include <string.h>

#define MEMORY_LOW  (64 * MIB)
#define MEMORY_HIGH (65536 * MIB)
/* What the guest has room for: its settings and its workload. */
#define GUEST_LINE   4096u
#define WORKLOAD_MAX 1900u
#define SETTING_MAX  64u
#define APPEND_MAX   1000u
/* Linux takes 2047 characters; qemu.c adds words of its own. */
#define LINUX_LINE 1900u
_Static_assert(RUN_SETTINGS *(SETTING_MAX + 1) + WORKLOAD_MAX + sizeof("script=\"; shell\"") <=
                   GUEST_LINE,
               "the longest command line must fit");

const char *const run_machine_names[] = {"q35", "pc", "microvm", NULL};
const char *const run_accel_names[] = {"auto", "tcg", "kvm", NULL};
const char *const run_backing_names[] = {"anon", "memfd", "thp", "hugetlb", NULL};

enum key {
    KEY_MEMORY = 'm',
    KEY_CPUS = 'c',
    KEY_WORKLOAD = 'w',
    KEY_SET = 's',
    KEY_QUIET = 'q',
    KEY_INTERACTIVE = 'i',
    KEY_MACHINE = 256,
    KEY_ACCEL,
    KEY_BACKING,
    KEY_QEMU,
    KEY_REPORTING,
    KEY_JSON,
    KEY_PLOT,
    KEY_GUEST,
    KEY_TIMEOUT,
    KEY_CONSOLE,
    KEY_KERNEL,
    KEY_INITRD,
    KEY_MODULE,
    KEY_APPEND,
    KEY_ICOUNT,
    KEY_PIN,
    KEY_HOST,
};

static const struct argp_option argp_options[] = {
    {NULL, 0, NULL, 0, "The guest:", 1},
    {"memory", KEY_MEMORY, "SIZE", 0, "Its memory, 64M to 64G (default 2G)", 1},
    {"cpus", KEY_CPUS, "N", 0, "Its CPUs, 1 to 16 (default 2)", 1},
    {"workload", KEY_WORKLOAD, "SCRIPT", 0,
     "What it does, steps with ';' between them (default \"memhog 75%; idle 3\"); "
     "see below",
     1},
    {"set", KEY_SET, "KEY=VALUE", 0,
     "A setting of its engine, e.g. report.window_max_ms=1000; with --guest=linux one of its "
     "kernel, "
     "e.g. page_reporting.page_reporting_order=0; repeatable",
     1},
    {"reporting", KEY_REPORTING, "on|off", 0,
     "Does the balloon offer free page reporting (default on)", 1},
    {NULL, 0, NULL, 0, "The host:", 2},
    {"machine", KEY_MACHINE, "q35|pc|microvm", 0, "QEMU's machine type (default q35)", 2},
    {"accel", KEY_ACCEL, "auto|tcg|kvm", 0,
     "How QEMU runs it; auto takes KVM where a short test shows it to be fast (default auto)", 2},
    {"backing", KEY_BACKING, "anon|memfd|thp|hugetlb", 0,
     "The guest's memory on the host: private pages, a shared memfd, private huge pages, or a "
     "shared memfd of hugetlbfs with 2 MiB pages (default memfd)",
     2},
    {"host", KEY_HOST, "qemu|ebbd|PATH", 0,
     "Whose balloon it is: QEMU's, or that of an ebbd started for this run, which needs QEMU 10.2 "
     "or "
     "later and memory that is shared (default qemu)",
     2},
    {"qemu", KEY_QEMU, "PATH", 0, "The QEMU to use (default qemu-system-x86_64)", 2},
    {"guest", KEY_GUEST, "PATH|linux", 0,
     "The reference guest (default: the one that came with ebb and has what --set asks for), or a "
     "Linux guest made by "
     "lab/linux/build",
     2},
    {"kernel", KEY_KERNEL, "FILE", 0, "The Linux guest's kernel", 2},
    {"initrd", KEY_INITRD, "FILE", 0, "The Linux guest's initramfs", 2},
    {"module", KEY_MODULE, "FILE", 0,
     "Load this ebb_reporting.ko, made for that kernel, into the Linux guest: it reports at ebb's "
     "pace",
     2},
    {"append", KEY_APPEND, "WORDS", 0, "More for the Linux kernel's command line", 2},
    {"icount", KEY_ICOUNT, NULL, 0,
     "Count instructions: each takes one nanosecond of the guest's time, whose CPUs take turns (to "
     "count those of one task, give it --cpus 1). TCG only",
     2},
    {"pin", KEY_PIN, NULL, 0,
     "Pin each of the guest's CPUs to one of the host's, in turn, so that two runs side by side "
     "share each of them evenly",
     2},
    {"timeout", KEY_TIMEOUT, "SECONDS", 0,
     "Kill a guest that is silent for so long (default 30; 120 with --icount, which is slow)", 2},
    {NULL, 0, NULL, 0, "What to show:", 3},
    {"json", KEY_JSON, "FILE", 0, "Write the results", 3},
    {"plot", KEY_PLOT, "FILE", 0, "Draw them with gnuplot: FILE.svg or FILE.png", 3},
    {"quiet", KEY_QUIET, NULL, 0, "Print nothing but errors and warnings", 3},
    {"console", KEY_CONSOLE, NULL, 0, "Show the guest's serial console", 3},
    {"interactive", KEY_INTERACTIVE, NULL, 0,
     "Talk to the guest's prompt on its serial console, after the workload", 3},
    {0},
};

static const char doc[] =
    "Boot the reference guest in QEMU with a virtio balloon, run a workload in it, watch how "
    "much of its memory the host holds, and tell how much came back after the workload let go "
    "of it, and how fast."
    "\vExit status: 0 the run went well, 1 a frame in use lost its contents, 2 wrong options or "
    "workload, 3 the guest died or hung, 4 something is wrong with this machine (QEMU, memory, a "
    "file), 128+N ended by signal N. Memory that did not come back is told, and is no error.\n\n"
    "Steps of a workload (SIZE: with K, M, G or %):\n"
    "  memhog SIZE [xN]    take SIZE, check it, free it; N times\n"
    "  churn SIZE SECONDS  take and free blocks of all sizes, SIZE at most\n"
    "  fragment SIZE K     take SIZE, free all frames but every K-th\n"
    "  release             free what fragment left\n"
    "  compact             move what is in use together, for whole pageblocks\n"
    "  contiguous SIZE [ADDRESS]\n"
    "                      take SIZE in one piece, check it, free it\n"
    "  unplug SIZE         empty SIZE and take it out of the guest's memory\n"
    "  hotplug SIZE        bring back SIZE of what was unplugged\n"
    "  idle SECONDS        do nothing: time for the host to get its memory back\n"
    "  report on|off|now   free page reporting\n"
    "  module load|unload|show|again N|wait|rebind N\n"
    "                      a Linux guest's module: load it, unload it, show its statistics;\n"
    "                      reload it N times beside the next steps; wait until that is done and\n"
    "                      it reports; take the balloon from its driver and give it back, N times\n"
    "  write FILE TEXT     in a Linux guest, e.g. to a file of its kernel below /sys\n"
    "  cycle SIZE PAUSE_MS SECONDS\n"
    "                      take SIZE, free it, pause; over and over\n"
    "  page_fault1 procs|threads N SECONDS [thp], page_fault2 N SECONDS\n"
    "                      as in will-it-scale: map 128 MiB, touch its pages, unmap\n"
    "  free, zoneinfo, verify, help   print things, seen with --console\n\n"
    "Examples:\n"
    "  ebb run\n"
    "  ebb run --memory 1G --workload 'memhog 50% x3; idle 2' --json run.json\n"
    "  ebb run --set report.pacing=delay --set report.delay_ms=2000 --set report.budget=16   as "
    "Linux does\n"
    "  lab/linux/build guests && ebb run --guest=linux --kernel=guests/vmlinuz-6.12 "
    "--initrd=guests/initrd-6.12\n"
    "  lab/linux/build --module guests && ebb run --guest=linux --kernel=guests/vmlinuz-6.12 "
    "--initrd=guests/initrd-6.12 --module=guests/ebb_reporting-6.12.ko\n";

/* The workload stands in quotes on the guest's command line. */
static const char *workload(struct argp_state *state, const char *arg)
{
    if (strlen(arg) > WORKLOAD_MAX)
        argp_error(state, "--workload is longer than %u characters", WORKLOAD_MAX);
    for (const char *c = arg; *c; c++) {
        if (*c < ' ' || *c > '~' || *c == '"')
            argp_error(state, "--workload is plain text without double quotes");
    }
    return arg;
}

static bool is_setting(const char *arg)
{
    size_t key = strspn(arg, "abcdefghijklmnopqrstuvwxyz0123456789_.-");
    const char *value = arg + key + 1;

    if (key == 0 || arg[key] != '=' || !*value || strlen(arg) > SETTING_MAX)
        return false;
    for (; *value; value++) {
        if (*value <= ' ' || *value > '~' || *value == '"')
            return false;
    }
    return true;
}

static void add_setting(struct argp_state *state, struct run_options *options, const char *arg)
{
    if (!is_setting(arg))
        argp_error(state, "--set is KEY=VALUE, e.g. report.window_max_ms=1000, not '%s'", arg);
    if (strncmp(arg, "script=", 7) == 0 || strncmp(arg, "ebb.script=", 11) == 0)
        argp_error(state, "--set script=: use --workload");
    if (options->n_settings == RUN_SETTINGS)
        argp_error(state, "--set: at most %u settings", RUN_SETTINGS);
    else
        options->settings[options->n_settings++] = arg;
}

/* Words for a kernel; the script comes behind them, in quotes. */
static const char *kernel_words(struct argp_state *state, const char *arg)
{
    size_t quotes = 0;

    if (strlen(arg) > APPEND_MAX)
        argp_error(state, "--append is longer than %u characters", APPEND_MAX);
    for (const char *c = arg; *c; c++) {
        if (*c < ' ' || *c > '~')
            argp_error(state, "--append is plain text");
        quotes += *c == '"';
    }
    if (quotes % 2)
        argp_error(state, "--append: a double quote has no end");
    if (strstr(arg, "ebb.script="))
        argp_error(state, "--append ebb.script=: use --workload");
    if ((arg[0] == '-' && arg[1] == '-') || strstr(arg, " --"))
        argp_error(state, "--append: what follows '--' would not reach the kernel");
    return arg;
}

/* What only the reference guest understands: refused, since Linux would silently go on without. */
static bool is_reference_setting(const char *setting)
{
    static const char *const words[] = {
        "report.", "report=", "zone.", "balloon.numbering=", "irq=", "seed="};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strncmp(setting, words[i], strlen(words[i])) == 0)
            return true;
    }
    return false;
}

static void check_linux(struct argp_state *state, const struct run_options *options)
{
    size_t len = strlen(options->workload) + (options->append ? strlen(options->append) : 0);

    if (!options->kernel || !options->initrd)
        argp_error(state, "--guest=linux needs --kernel=FILE and --initrd=FILE. Make them with "
                          "`lab/linux/build DIR`: DIR/vmlinuz-6.12, DIR/initrd-6.12");
    if (options->machine == MACHINE_MICROVM)
        argp_error(state, "--guest=linux: Debian's kernel does not find the virtio-mmio devices of "
                          "--machine=microvm; take q35 or pc");
    if (options->interactive)
        argp_error(state, "--guest=linux has no prompt for --interactive");
    for (size_t i = 0; i < options->n_settings; i++) {
        len += strlen(options->settings[i]) + 1;
        if (is_reference_setting(options->settings[i]))
            argp_error(state,
                       "--set %s is for the reference guest. With --guest=linux --set takes what "
                       "its kernel knows, e.g. page_reporting.page_reporting_order=0",
                       options->settings[i]);
    }
    if (len > LINUX_LINE)
        argp_error(state,
                   "--guest=linux: --workload, --append and --set are together longer than the %u "
                   "characters that Linux has room for",
                   LINUX_LINE);
}

static void check_together(struct argp_state *state, struct run_options *options)
{
    if (options->quiet && (options->console || options->interactive))
        argp_error(state, "--quiet goes with neither --console nor --interactive");
    if (options->icount && options->accel == ACCEL_KVM)
        argp_error(state, "--icount counts instructions, which only --accel=tcg can");
    if (options->timeout == 0)
        options->timeout = options->icount ? 120 : 30;
    if (!options->workload)
        options->workload = options->interactive ? "" : "memhog 75%; idle 3";
    if (strcmp(options->host, "qemu") != 0 && options->backing != BACKING_MEMFD &&
        options->backing != BACKING_HUGETLB)
        argp_error(state, "--host=%s works on memory that is shared: --backing=memfd or hugetlb",
                   options->host);
    if (options->linux_guest)
        check_linux(state, options);
    else if (options->kernel || options->initrd || options->module || options->append)
        argp_error(state, "--kernel, --initrd, --module and --append are for --guest=linux");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    static const char *const on_off[] = {"off", "on", NULL};
    struct run_options *options = state->input;

    switch (key) {
    case KEY_MEMORY:
        options->memory = args_size(state, "memory", arg, MEMORY_LOW, MEMORY_HIGH, 2 * MIB);
        return 0;
    case KEY_CPUS:
        options->cpus = args_count(state, "cpus", arg, 1, RUN_CPUS);
        return 0;
    case KEY_WORKLOAD:
        options->workload = workload(state, arg);
        return 0;
    case KEY_SET:
        add_setting(state, options, arg);
        return 0;
    case KEY_REPORTING:
        options->reporting = args_choice(state, "reporting", on_off, arg) == 1;
        return 0;
    case KEY_MACHINE:
        options->machine = args_choice(state, "machine", run_machine_names, arg);
        return 0;
    case KEY_ACCEL:
        options->accel = args_choice(state, "accel", run_accel_names, arg);
        return 0;
    case KEY_BACKING:
        options->backing = args_choice(state, "backing", run_backing_names, arg);
        return 0;
    case KEY_QEMU:
        options->qemu = arg;
        return 0;
    case KEY_HOST:
        if (!*arg)
            argp_error(state, "--host is qemu, ebbd, or the file of an ebbd");
        options->host = arg;
        return 0;
    case KEY_GUEST:
        options->linux_guest = strcmp(arg, "linux") == 0;
        options->guest = options->linux_guest ? NULL : arg;
        return 0;
    case KEY_KERNEL:
        options->kernel = arg;
        return 0;
    case KEY_INITRD:
        options->initrd = arg;
        return 0;
    case KEY_MODULE:
        options->module = arg;
        return 0;
    case KEY_APPEND:
        options->append = kernel_words(state, arg);
        return 0;
    case KEY_ICOUNT:
        options->icount = true;
        return 0;
    case KEY_PIN:
        options->pin = true;
        return 0;
    case KEY_TIMEOUT:
        options->timeout = args_count(state, "timeout", arg, 1, 86400);
        return 0;
    case KEY_JSON:
        options->json = arg;
        return 0;
    case KEY_PLOT:
        options->plot = args_picture(state, "plot", arg);
        return 0;
    case KEY_QUIET:
        options->quiet = true;
        return 0;
    case KEY_CONSOLE:
        options->console = true;
        return 0;
    case KEY_INTERACTIVE:
        options->interactive = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument '%s' (a workload with spaces needs quotes)", arg);
        return 0;
    case ARGP_KEY_END:
        check_together(state, options);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

void run_options_parse(int argc, char **argv, struct run_options *options)
{
    static const struct argp argp = {.options = argp_options, .parser = parse, .doc = doc};

    *options = (struct run_options){.memory = 2048 * MIB,
                                    .cpus = 2,
                                    .machine = MACHINE_Q35,
                                    .accel = ACCEL_AUTO,
                                    .backing = BACKING_MEMFD,
                                    .reporting = true,
                                    .qemu = "qemu-system-x86_64",
                                    .host = "qemu"};
    cmd_argp_setup();
    argp_parse(&argp, argc, argv, 0, NULL, options);
}
