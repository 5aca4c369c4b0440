/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Try KVM out: a virtual machine of one page, in 16-bit real mode, that counts
 * down from a million. It runs in a child process, which is killed if it does
 * not come back.
 */
#include "kvm.h"
#include "cmd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define CODE_ADDR 0x1000u
#define PAGE      0x1000u
/* Real KVM takes half a millisecond, TCG a few. */
#define FAST_MS 20.0
/* When to stop the loop, and when to stop waiting for the child. */
#define LOOP_US  200000
#define CHILD_MS 500

/* mov ecx, 1000000; dec ecx; jnz back; hlt */
static const uint8_t loop_code[] = {0x66, 0xb9, 0x40, 0x42, 0x0f, 0x00,
                                    0x66, 0x49, 0x75, 0xfc, 0xf4};

struct answer {
    enum kvm_state state;
    int error;
    uint64_t ns;
    bool unfinished;
};

static void on_alarm(int signal_number)
{
    (void)signal_number;
}

/* The clock has to end KVM_RUN, so no restart. */
static void set_alarm(void)
{
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval timer = {{0, 0}, {0, LOOP_US}};

    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
}

static bool set_up(int vm, int cpu)
{
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {
        .guest_phys_addr = CODE_ADDR, .memory_size = PAGE, .userspace_addr = (uintptr_t)page};
    struct kvm_regs regs = {.rip = CODE_ADDR, .rflags = 2};
    struct kvm_sregs sregs;

    if (page == MAP_FAILED)
        return false;
    memcpy(page, loop_code, sizeof(loop_code));
    if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) != 0 ||
        ioctl(cpu, KVM_GET_SREGS, &sregs) != 0)
        return false;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    return ioctl(cpu, KVM_SET_SREGS, &sregs) == 0 && ioctl(cpu, KVM_SET_REGS, &regs) == 0;
}

static void run_loop(int kvm, struct answer *answer)
{
    int vm = ioctl(kvm, KVM_CREATE_VM, 0), cpu, size;
    struct kvm_run *run;
    uint64_t start;

    if (vm < 0)
        return;
    /* Older Intel processors need three pages for real mode; others ignore it. */
    (void)ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000ul);
    cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (cpu < 0 || size < (int)sizeof(*run) || !set_up(vm, cpu))
        return;
    run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
    if (run == MAP_FAILED)
        return;
    set_alarm();
    start = cmd_now_ns();
    answer->unfinished = ioctl(cpu, KVM_RUN, 0) != 0;
    answer->ns = cmd_now_ns() - start;
    if (answer->unfinished && errno != EINTR)
        return;
    if (!answer->unfinished && run->exit_reason != KVM_EXIT_HLT) {
        errno = ENOEXEC;
        return;
    }
    answer->state =
        answer->unfinished || (double)answer->ns > FAST_MS * (double)CMD_MS ? KVM_SLOW : KVM_FAST;
}

static void probe_in_child(int out)
{
    struct answer answer = {.state = KVM_BROKEN};
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    errno = kvm < 0 ? errno : 0;
    if (kvm < 0)
        answer.state =
            errno == ENOENT || errno == ENXIO || errno == ENODEV ? KVM_ABSENT : KVM_REFUSED;
    else
        run_loop(kvm, &answer);
    answer.error = errno;
    if (write(out, &answer, sizeof(answer)) < 0)
        _exit(1);
    _exit(0);
}

static void ask_child(struct answer *answer)
{
    struct pollfd ready;
    int pipe_fds[2];
    pid_t parent = getpid(), pid;

    if (pipe2(pipe_fds, O_CLOEXEC) != 0)
        return;
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            probe_in_child(pipe_fds[1]);
        _exit(1);
    }
    close(pipe_fds[1]);
    ready = (struct pollfd){.fd = pipe_fds[0], .events = POLLIN};
    if (pid > 0 && poll(&ready, 1, CHILD_MS) == 0)
        *answer = (struct answer){KVM_SLOW, 0, CHILD_MS * CMD_MS, true};
    else if (pid > 0 && read(pipe_fds[0], answer, sizeof(*answer)) != (ssize_t)sizeof(*answer))
        *answer = (struct answer){.state = KVM_BROKEN, .error = EIO};
    if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    close(pipe_fds[0]);
}

static void describe(struct kvm_probe *probe)
{
    char *text = probe->text;
    size_t size = sizeof(probe->text);

    switch (probe->state) {
    case KVM_ABSENT:
        snprintf(text, size, "this host has no /dev/kvm");
        break;
    case KVM_REFUSED:
        snprintf(text, size, "/dev/kvm may not be opened: %s", strerror(probe->error));
        break;
    case KVM_BROKEN:
        snprintf(text, size, "/dev/kvm opens but runs nothing: %s", strerror(probe->error));
        break;
    case KVM_SLOW:
        snprintf(text, size, "KVM is slow here: a loop of a million turns %s %.0f ms",
                 probe->unfinished ? "was not done after" : "took", probe->loop_ms);
        break;
    case KVM_FAST:
        snprintf(text, size, "KVM is fast here: a loop of a million turns took %.1f ms",
                 probe->loop_ms);
        break;
    }
}

void kvm_probe(struct kvm_probe *probe)
{
    struct answer answer = {.state = KVM_BROKEN, .error = EIO};

    ask_child(&answer);
    *probe = (struct kvm_probe){.state = answer.state,
                                .error = answer.error,
                                .loop_ms = (double)answer.ns / 1e6,
                                .unfinished = answer.unfinished};
    describe(probe);
}
