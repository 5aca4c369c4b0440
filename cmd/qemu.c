/* SPDX-License-Identifier: BSD-2-Clause */
/* Start QEMU with a guest, and understand how it ends. */
#include "qemu.h"
#include "child.h"
#include "cmd.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define ARGS 56u

/* What the guest writes to its exit device; QEMU makes (value << 1) | 1 of it. */
enum guest_exit { GUEST_OK = 0, GUEST_VERIFY = 1, GUEST_USAGE = 2, GUEST_PANIC = 3 };

struct args {
    char *list[ARGS];
    size_t n;
};

static void add(struct args *args, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(struct args *args, const char *format, ...)
{
    va_list list;

    assert(args->n + 1 < ARGS);
    va_start(list, format);
    if (vasprintf(&args->list[args->n], format, list) < 0)
        cmd_no_memory();
    va_end(list);
    args->list[++args->n] = NULL;
}

static void free_args(struct args *args)
{
    for (size_t i = 0; i < args->n; i++)
        free(args->list[i]);
}

char *qemu_version(const char *path)
{
    static const char version_chars[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                        "0123456789.-_+~";
    static const char said[] = "QEMU emulator version ";
    char *const argv[] = {(char *)path, (char *)"--version", NULL};
    char *out, *err, *version = NULL;
    int status = child_run(argv, NULL, 10, &out, NULL, &err);
    const char *found = strstr(out, said);

    if (status == 0 && found) {
        found += strlen(said);
        version = cmd_format("%.*s", (int)strspn(found, version_chars), found);
    } else if (status == -ETIME) {
        cmd_error("%s --version does not come back", path);
    } else if (status < 0) {
        cmd_error("cannot start %s: %s", path, strerror(-status));
    } else if (status == 0) {
        cmd_error("%s is no QEMU: its --version says something else", path);
    } else {
        cmd_error("%s --version fails, so it is no working QEMU%s%s", path, *err ? ":\n" : "", err);
    }
    free(out);
    free(err);
    return version;
}

bool qemu_has_vhost_user(const char *version)
{
    unsigned major = 0, minor = 0;

    return sscanf(version, "%u.%u", &major, &minor) == 2 &&
           (major > 10 || (major == 10 && minor >= 2));
}

/*
 * What a Linux kernel is told besides: a console that is not in the way, an end
 * instead of a halt when it panics, and runs that are alike.
 */
static const char linux_words[] = "console=ttyS0 quiet panic=-1 nokaslr no_timer_check ";

/* The guest's command line. */
static char *guest_words(const struct run_options *options)
{
    char *words, *longer;

    words = cmd_format("%s%s%s", options->linux_guest ? linux_words : "",
                       options->append ? options->append : "", options->append ? " " : "");

    for (size_t i = 0; i < options->n_settings; i++) {
        longer = cmd_format("%s%s ", words, options->settings[i]);
        free(words);
        words = longer;
    }
    longer = cmd_format("%s%sscript=\"%s%s%s\"", words, options->linux_guest ? "ebb." : "",
                        options->workload, options->interactive && *options->workload ? "; " : "",
                        options->interactive ? "shell" : "");
    free(words);
    return longer;
}

static void add_memory(struct args *args, const struct run_options *options)
{
    uint64_t mib = options->memory >> 20;

    add(args, "-m");
    add(args, "%" PRIu64 "M", mib);
    add(args, "-object");
    if (options->backing == BACKING_MEMFD)
        add(args, "memory-backend-memfd,id=ram,size=%" PRIu64 "M,share=on", mib);
    else if (options->backing == BACKING_HUGETLB)
        add(args,
            "memory-backend-memfd,id=ram,size=%" PRIu64 "M,share=on,hugetlb=on,hugetlbsize=2M",
            mib);
    else
        add(args, "memory-backend-ram,id=ram,size=%" PRIu64 "M", mib);
}

/* The balloon is ebbd's; QEMU passes it through. The size of its configuration space has to be
 * told, and one size for all queues. */
static void add_vhost_user(struct args *args, const struct run_options *options, int fd)
{
    add(args, "-chardev");
    add(args, "socket,id=balloon,fd=%d", fd);
    add(args, "-device");
    add(args,
        "vhost-user-test-device%s,chardev=balloon,virtio-id=5,num_vqs=5,vq_size=128,config_size=16",
        options->machine == MACHINE_MICROVM ? "" : "-pci");
}

static void add_balloon(struct args *args, const struct run_options *options, int fd)
{
    if (options->machine == MACHINE_MICROVM) {
        /* The guest speaks virtio 1 only. */
        add(args, "-global");
        add(args, "virtio-mmio.force-legacy=false");
    }
    if (fd >= 0) {
        add_vhost_user(args, options, fd);
        return;
    }
    add(args, "-device");
    add(args, "virtio-balloon-%s,free-page-reporting=%s",
        options->machine == MACHINE_MICROVM ? "device" : "pci", options->reporting ? "on" : "off");
}

static void add_devices(struct args *args, const struct qemu_fds *fds)
{
    add(args, "-add-fd");
    add(args, "fd=%d,set=1", fds->telemetry);
    add(args, "-chardev");
    /* Appending, because a pipe cannot be truncated. */
    add(args, "file,id=telemetry,path=/dev/fdset/1,append=on");
    add(args, "-device");
    add(args, "isa-debugcon,iobase=0xe9,chardev=telemetry");
    add(args, "-chardev");
    add(args, "socket,id=console,fd=%d", fds->console);
    add(args, "-serial");
    add(args, "chardev:console");
    add(args, "-device");
    add(args, "isa-debug-exit,iobase=0xf4,iosize=4");
}

/* TCG's translations are bounded: the host's memory is the subject here. */
static const char *accel_words(const struct run *run)
{
    if (run->accel == ACCEL_KVM)
        return "kvm";
    return run->options->icount ? "tcg,thread=single,tb-size=64" : "tcg,thread=multi,tb-size=64";
}

pid_t qemu_start(const struct run *run, const struct qemu_fds *fds)
{
    const struct run_options *options = run->options;
    int keep[4] = {fds->telemetry, fds->console};
    size_t n_keep = 2;
    struct args args = {{NULL}, 0};
    struct child_config config = {.in = -1,
                                  .out = fds->err,
                                  .err = fds->err,
                                  .keep = keep,
                                  .no_thp = options->backing == BACKING_ANON,
                                  .own_group = true};
    char *words = guest_words(options);
    pid_t pid;

    if (fds->balloon >= 0)
        keep[n_keep++] = fds->balloon;
    if (run->initrd_fd >= 0)
        keep[n_keep++] = run->initrd_fd;
    config.n_keep = n_keep;
    add(&args, "%s", run->qemu_path);
    add(&args, "-nodefaults");
    add(&args, "-no-user-config");
    add(&args, "-no-reboot");
    add(&args, "-display");
    add(&args, "none");
    /* Names for its threads, by which the sampler tells the guest's CPUs. */
    add(&args, "-name");
    add(&args, "ebb,debug-threads=on");
    add(&args, "-accel");
    add(&args, "%s", accel_words(run));
    if (options->icount) {
        add(&args, "-icount");
        add(&args, "shift=0,sleep=on");
    }
    add(&args, "-machine");
    add(&args, "%s,memory-backend=ram", run_machine_names[options->machine]);
    add(&args, "-smp");
    add(&args, "%u", options->cpus);
    add_memory(&args, options);
    add_balloon(&args, options, fds->balloon);
    add_devices(&args, fds);
    add(&args, "-kernel");
    add(&args, "%s", run->guest_path);
    if (options->linux_guest) {
        add(&args, "-initrd");
        if (run->initrd_fd >= 0)
            add(&args, "/dev/fd/%d", run->initrd_fd);
        else
            add(&args, "%s", options->initrd);
    }
    add(&args, "-append");
    add(&args, "%s", words);
    config.argv = args.list;
    pid = child_start(&config);
    free_args(&args);
    free(words);
    return pid;
}

enum run_status qemu_outcome(int wait_status, bool booted, bool ended)
{
    int code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;

    /* QEMU's own failure is 1 as well, but then the guest has not said goodbye. */
    if (code == (GUEST_OK << 1 | 1) && ended)
        return RUN_OK;
    if (code == (GUEST_VERIFY << 1 | 1))
        return RUN_VERIFY;
    if (code == (GUEST_USAGE << 1 | 1))
        return RUN_USAGE;
    if (code == (GUEST_PANIC << 1 | 1))
        return RUN_PANIC;
    if (code == 0 && booted)
        return RUN_RESET;
    return RUN_QEMU;
}
