/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `ebb run`: check the machine, run QEMU with the reference guest while
 * watching its memory, tell what came back.
 *
 * The main thread reads what the guest and QEMU say, and draws; a second one
 * samples. Whatever happens to this process, QEMU ends with it (child.h).
 */
#include "run.h"
#include "child.h"
#include "cmd.h"
#include "host.h"
#include "kvm.h"
#include "plot.h"
#include "qemu.h"
#include "result.h"
#include "sampler.h"
#include "telemetry.h"
#include "view.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define TAIL         8192u
#define PIPE_BYTES   (1 << 20)
#define READ_BYTES   4096u
#define FIND_SECONDS 2u /* after its first telemetry the guest's memory must be there */

/* The end of a text that may be long. */
struct tail {
    char text[TAIL];
    size_t len;
};

struct session {
    struct run *run;
    struct view view;
    struct sampler sampler;
    struct telemetry parser;
    struct tail console, err;
    size_t shown;   /* bytes of console.text that were printed */
    bool prompting; /* the guest reads its console */
    int telemetry_fd, console_fd, err_fd, signal_fd, input_fd;
    pid_t pid;
    bool sampling, exited, killed;
    int wait_status;
    uint64_t heard_ns; /* when the guest last gave a sign of life */
    uint64_t based_ns;
    struct termios terminal; /* as it was */
    bool terminal_changed;
};

const char *run_status_name(enum run_status status)
{
    static const char *const names[] = {"ok",          "verify error", "usage error",
                                        "panic",       "reset",        "hang",
                                        "qemu failed", "host failed",  "interrupted"};

    return names[status];
}

static int exit_code(const struct run *run)
{
    switch (run->status) {
    case RUN_OK:
        return CMD_OK;
    case RUN_VERIFY:
        return CMD_VERIFY;
    case RUN_USAGE:
        return CMD_USAGE;
    case RUN_PANIC:
    case RUN_RESET:
    case RUN_HANG:
        return CMD_GUEST;
    case RUN_QEMU:
    case RUN_HOST:
        return CMD_HOST;
    case RUN_INTERRUPTED:
        return 128 + run->signal;
    }
    return CMD_HOST;
}

/* ---- before the run ---- */

static char *quote_command(int argc, char **argv)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-./=+:,%";
    char *text = NULL;
    size_t len = 0;
    FILE *file = open_memstream(&text, &len);

    if (!file)
        return cmd_format("ebb run");
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];
        fputs(i ? " " : "", file);
        /* argv[0] is "ebb run" itself. */
        if (i == 0 || (*arg && strspn(arg, plain) == strlen(arg))) {
            fputs(arg, file);
            continue;
        }
        fputc('\'', file);
        for (; *arg; arg++) {
            if (*arg == '\'')
                fputs("'\\''", file);
            else
                fputc(*arg, file);
        }
        fputc('\'', file);
    }
    fclose(file);
    return text;
}

static bool choose_accel(struct run *run)
{
    const struct run_options *options = run->options;
    struct kvm_probe probe;

    run->accel = ACCEL_TCG;
    if (options->accel == ACCEL_TCG)
        return true;
    kvm_probe(&probe);
    if (options->accel == ACCEL_AUTO) {
        if (probe.state == KVM_FAST)
            run->accel = ACCEL_KVM;
        if (!options->quiet)
            printf("Using %s: %s.\n", probe.state == KVM_FAST ? "KVM" : "QEMU's translator (TCG)",
                   probe.text);
        return true;
    }
    run->accel = ACCEL_KVM;
    if (probe.state == KVM_SLOW)
        cmd_error("WARNING: %s; --accel tcg would be faster", probe.text);
    if (probe.state == KVM_FAST || probe.state == KVM_SLOW)
        return true;
    cmd_error("--accel kvm: %s. %s", probe.text,
              probe.state == KVM_REFUSED ? "Is this user in the group kvm?"
                                         : "Use --accel tcg, which needs none.");
    return false;
}

static bool find_qemu(struct run *run)
{
    run->qemu_path = host_find_program(run->options->qemu);
    if (!run->qemu_path) {
        cmd_error("QEMU was not found (%s): please install it (Debian: apt-get install "
                  "qemu-system-x86), or name it with --qemu.",
                  run->options->qemu);
        return false;
    }
    run->qemu_version = qemu_version(run->qemu_path);
    return run->qemu_version;
}

static bool find_guest(struct run *run)
{
    const char *path = run->options->guest;

    if (!path) {
        run->guest_path = host_find_guest();
        if (!run->guest_path)
            cmd_error("the reference guest, ebb-guest.elf, was not found beside this program "
                      "or where it is installed: build it, or name it with --guest.");
        return run->guest_path;
    }
    if (access(path, R_OK) != 0) {
        cmd_error("--guest %s: %s", path, strerror(errno));
        return false;
    }
    run->guest_path = cmd_format("%s", path);
    return true;
}

static bool prepare(struct run *run)
{
    const struct run_options *options = run->options;

    if (options->json && !host_check_writable("--json", options->json))
        return false;
    if (options->plot && !(host_check_writable("--plot", options->plot) && plot_check()))
        return false;
    if (options->backing == BACKING_THP && !host_check_thp())
        return false;
    return find_guest(run) && find_qemu(run) && host_check_memory(options->memory) &&
           choose_accel(run);
}

/* ---- start and end ---- */

static bool take_signals(struct session *session)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD, SIGWINCH};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaddset(&set, signals[i]);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    session->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return session->signal_fd >= 0;
}

/* Keys go to the guest as they are typed; it echoes them. Ctrl-C stays ours. */
static void take_terminal(struct session *session)
{
    struct termios raw;

    if (!session->run->options->interactive)
        return;
    session->input_fd = STDIN_FILENO;
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &session->terminal) != 0)
        return;
    raw = session->terminal;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    session->terminal_changed = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

static bool start_qemu(struct session *session)
{
    int telemetry[2], err[2], console[2];
    struct qemu_fds fds;

    if (pipe2(telemetry, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) != 0) {
        cmd_error("cannot make a pipe: %s", strerror(errno));
        return false;
    }
    /* Room for seconds of telemetry: the guest never waits for us. May be refused. */
    (void)fcntl(telemetry[1], F_SETPIPE_SZ, PIPE_BYTES);
    session->telemetry_fd = telemetry[0];
    session->err_fd = err[0];
    session->console_fd = console[0];
    fds = (struct qemu_fds){telemetry[1], console[1], err[1]};
    fcntl(session->telemetry_fd, F_SETFL, O_NONBLOCK);
    fcntl(session->err_fd, F_SETFL, O_NONBLOCK);
    fcntl(session->console_fd, F_SETFL, O_NONBLOCK);
    session->pid = qemu_start(session->run, &fds);
    close(telemetry[1]);
    close(console[1]);
    close(err[1]);
    if (session->pid > 0)
        return true;
    cmd_error("cannot start %s: %s", session->run->qemu_path, strerror(-session->pid));
    return false;
}

static bool start(struct session *session)
{
    struct run *run = session->run;
    uint64_t now;
    int error;

    if (!take_signals(session)) {
        cmd_error("cannot watch signals: %s", strerror(errno));
        return false;
    }
    now = cmd_now_ns();
    record_init(&run->record, now);
    session->heard_ns = now;
    session->parser.limit_kib = run->options->memory / 1024;
    if (!start_qemu(session))
        return false;
    error = sampler_start(&session->sampler, &run->record, session->pid, run->options->backing,
                          run->options->memory);
    session->sampling = error == 0;
    if (error)
        cmd_error("cannot start a thread: %s", strerror(-error));
    view_init(&session->view, run);
    take_terminal(session);
    return error == 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* With all of its process group, in case it is a script around QEMU. */
static void kill_qemu(const struct session *session)
{
    kill(-session->pid, SIGKILL);
}

/* End QEMU early. The first reason counts. */
static void stop(struct session *session, enum run_status status)
{
    if (session->killed || session->exited)
        return;
    session->killed = true;
    session->run->status = status;
    kill_qemu(session);
}

static void reap(struct session *session, int options)
{
    struct rusage usage;

    if (session->exited || wait4(session->pid, &session->wait_status, options, &usage) <= 0)
        return;
    session->exited = true;
    session->run->vmm_cpu_ns =
        (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * CMD_S +
        (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * (CMD_S / 1000000);
}

/* ---- while it runs ---- */

static void hear(void *ctx, const struct telemetry_event *event)
{
    struct session *session = ctx;
    struct run *run = session->run;
    uint64_t now = cmd_now_ns();

    session->heard_ns = now;
    record_event(&run->record, now, event);
    switch (event->kind) {
    case TELEMETRY_HEADER:
        if (event->version != TELEMETRY_VERSION && !session->killed) {
            cmd_error("this guest speaks version %" PRIu64 " of the telemetry, this program "
                      "version %u: they do not belong together",
                      event->version, TELEMETRY_VERSION);
            stop(session, RUN_HOST);
        }
        break;
    case TELEMETRY_BASE:
        session->based_ns = now;
        sampler_kick(&session->sampler, SAMPLER_LEVEL);
        break;
    case TELEMETRY_RELEASE:
        sampler_kick(&session->sampler, SAMPLER_RELEASE);
        break;
    case TELEMETRY_HOLD:
        sampler_kick(&session->sampler, SAMPLER_LEVEL);
        break;
    case TELEMETRY_END:
        sampler_kick(&session->sampler, SAMPLER_NOTE);
        break;
    case TELEMETRY_STEP:
        session->prompting = session->prompting || strcmp(event->text, "shell") == 0;
        break;
    case TELEMETRY_BOOT:
    case TELEMETRY_USE:
    case TELEMETRY_FAULT:
        break;
    }
    view_event(&session->view, now, event);
}

/* Add n bytes; returns how many went at the front to make room for them. */
static size_t tail_add(struct tail *tail, const char *data, size_t n)
{
    size_t keep, dropped = 0;

    if (n > TAIL / 2) {
        data += n - TAIL / 2;
        n = TAIL / 2;
    }
    if (tail->len + n > TAIL - 1) {
        keep = tail->len < TAIL / 4 ? tail->len : TAIL / 4;
        dropped = tail->len - keep;
        memmove(tail->text, tail->text + dropped, keep);
        tail->len = keep;
    }
    memcpy(tail->text + tail->len, data, n);
    tail->len += n;
    return dropped;
}

/* Text of the guest or of QEMU, without what a terminal could act on. */
static void print_text(FILE *out, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\n' || text[i] == '\t' || (text[i] >= ' ' && text[i] <= '~'))
            fputc(text[i], out);
        else if (text[i] != '\r' && text[i] != '\0')
            fputc('?', out);
    }
}

/* What can be read now, at most READ_BYTES; 0: nothing. Closes the file at its end. */
static size_t read_some(int *fd, char *buffer)
{
    ssize_t n = *fd < 0 ? 0 : read(*fd, buffer, READ_BYTES);

    if (*fd >= 0 && (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)))
        close_fd(fd);
    return n > 0 ? (size_t)n : 0;
}

static bool read_telemetry(struct session *session)
{
    static char buffer[READ_BYTES];
    size_t n = read_some(&session->telemetry_fd, buffer);

    telemetry_feed(&session->parser, buffer, n, hear, session);
    return n > 0;
}

/* Whole lines of the console, so that they do not run into ours; at the end
 * (`rest`) also a line without one. */
static void show_console(struct session *session, bool rest)
{
    struct tail *tail = &session->console;

    while (session->shown < tail->len) {
        const char *line = tail->text + session->shown;
        size_t left = tail->len - session->shown;
        const char *end = memchr(line, '\n', left);

        if (!end && !rest)
            break;
        printf("guest: ");
        print_text(stdout, line, end ? (size_t)(end - line) : left);
        putchar('\n');
        session->shown += end ? (size_t)(end - line) + 1 : left;
    }
    fflush(stdout);
}

static bool read_console(struct session *session)
{
    const struct run_options *options = session->run->options;
    static char buffer[READ_BYTES];
    size_t n = read_some(&session->console_fd, buffer), dropped;

    dropped = tail_add(&session->console, buffer, n);
    session->shown = session->shown > dropped ? session->shown - dropped : 0;
    if (options->console)
        show_console(session, false);
    if (options->interactive && n > 0) {
        fwrite(buffer, 1, n, stdout); /* the person at this terminal asked for it */
        fflush(stdout);
    }
    return n > 0;
}

static bool read_err(struct session *session)
{
    static char buffer[READ_BYTES];
    size_t n = read_some(&session->err_fd, buffer);

    (void)tail_add(&session->err, buffer, n);
    return n > 0;
}

/* From the terminal to the guest's console. A key that does not fit is lost. */
static void read_input(struct session *session)
{
    static const char leave[] = "\nexit\n";
    char keys[256];
    ssize_t n = read(session->input_fd, keys, sizeof(keys) - sizeof(leave));
    bool end = n <= 0 || memchr(keys, 4, (size_t)n); /* Ctrl-D */

    n = n < 0 ? 0 : n;
    if (end) {
        memcpy(keys + n, leave, sizeof(leave) - 1);
        n += (ssize_t)sizeof(leave) - 1;
        session->input_fd = -1;
    }
    if (session->console_fd >= 0)
        (void)!send(session->console_fd, keys, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void read_signals(struct session *session)
{
    struct signalfd_siginfo info;

    while (read(session->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        switch (info.ssi_signo) {
        case SIGCHLD:
            reap(session, WNOHANG);
            break;
        case SIGWINCH:
            view_resize(&session->view);
            break;
        default:
            session->run->signal = (int)info.ssi_signo;
            stop(session, RUN_INTERRUPTED);
            break;
        }
    }
}

static void check_patience(struct session *session, uint64_t now)
{
    struct run *run = session->run;

    if (now - session->heard_ns > run->options->timeout * CMD_S)
        stop(session, RUN_HANG);
    if (run->record.based && now - session->based_ns > FIND_SECONDS * CMD_S && !session->killed &&
        !sampler_found(&session->sampler)) {
        cmd_error("cannot find the guest's memory among that of QEMU (process %d)",
                  (int)session->pid);
        stop(session, RUN_HOST);
    }
}

static void watch(struct session *session)
{
    while (!session->exited) {
        struct pollfd files[] = {{session->telemetry_fd, POLLIN, 0},
                                 {session->signal_fd, POLLIN, 0},
                                 {session->console_fd, POLLIN, 0},
                                 {session->err_fd, POLLIN, 0},
                                 {session->prompting ? session->input_fd : -1, POLLIN, 0}};
        uint64_t now = cmd_now_ns(), next = view_tick(&session->view, now);
        int wait_ms = 100;

        if (next < now + 100 * CMD_MS)
            wait_ms = next > now ? (int)((next - now) / CMD_MS) + 1 : 0;
        poll(files, sizeof(files) / sizeof(files[0]), wait_ms);
        if (files[0].revents)
            read_telemetry(session);
        if (files[1].revents)
            read_signals(session);
        if (files[2].revents)
            read_console(session);
        if (files[3].revents)
            read_err(session);
        if (files[4].revents)
            read_input(session);
        check_patience(session, cmd_now_ns());
    }
}

/* QEMU is gone: take what it left in the pipes, and give everything back. */
static void finish(struct session *session)
{
    struct run *run = session->run;

    if (session->pid > 0 && !session->exited) {
        kill_qemu(session);
        reap(session, 0);
    }
    if (session->sampling)
        sampler_stop(&session->sampler);
    run->end_ns = cmd_now_ns();
    if (session->terminal_changed)
        tcsetattr(STDIN_FILENO, TCSANOW, &session->terminal);
    close_fd(&session->telemetry_fd);
    close_fd(&session->console_fd);
    close_fd(&session->err_fd);
    close_fd(&session->signal_fd);
}

static void drain(struct session *session)
{
    /* Bounded, in case something else still writes into them. */
    for (int i = 0; i < 1000 && read_telemetry(session); i++)
        ;
    for (int i = 0; i < 1000 && read_console(session); i++)
        ;
    for (int i = 0; i < 1000 && read_err(session); i++)
        ;
    if (session->run->options->console)
        show_console(session, true);
}

/* ---- after the run ---- */

static void print_tail(const char *what, const struct tail *tail)
{
    if (tail->len == 0)
        return;
    fprintf(stderr, "---- %s\n", what);
    print_text(stderr, tail->text, tail->len);
    fprintf(stderr, "%s----\n", tail->text[tail->len - 1] == '\n' ? "" : "\n");
}

static void describe_qemu_end(const struct session *session)
{
    const char *what = session->run->record.booted ? "QEMU" : "QEMU did not start the guest: it";
    int status = session->wait_status;

    if (WIFSIGNALED(status))
        cmd_error("%s was killed by signal %d (%s)", what, WTERMSIG(status),
                  strsignal(WTERMSIG(status)));
    else
        cmd_error("%s ended with status %d", what, WEXITSTATUS(status));
}

static void explain(const struct session *session)
{
    const struct run *run = session->run;
    const char *step = run->record.step;

    switch (run->status) {
    case RUN_OK:
    case RUN_VERIFY:
    case RUN_HOST: /* explained where it happened */
        return;
    case RUN_INTERRUPTED:
        cmd_error("interrupted (%s)", strsignal(run->signal));
        return;
    case RUN_USAGE:
        cmd_error("the guest refused its command line or workload:");
        break;
    case RUN_PANIC:
        cmd_error("the guest panicked%s%s:", *step ? " in step " : "", step);
        break;
    case RUN_RESET:
        cmd_error("the guest reset or switched off its machine%s%s", *step ? " in step " : "",
                  step);
        break;
    case RUN_HANG:
        cmd_error("the guest was silent for %u s%s%s: killed", run->options->timeout,
                  *step ? ", in step " : "", step);
        break;
    case RUN_QEMU:
        describe_qemu_end(session);
        break;
    }
    if (!run->options->console && !run->options->interactive)
        print_tail("the guest's console", &session->console);
    print_tail("QEMU's messages", &session->err);
}

static void warn(const struct run *run)
{
    const struct record *record = &run->record;

    for (uint64_t i = 0; i < record->n_faults && i < RECORD_FAULTS; i++)
        cmd_error("WARNING: a frame in use lost its contents: %s", record->faults[i]);
    if (record->n_faults > RECORD_FAULTS)
        cmd_error("WARNING: and %" PRIu64 " more", record->n_faults - RECORD_FAULTS);
    if (run->status == RUN_VERIFY && record->n_faults == 0)
        cmd_error("WARNING: the guest found %" PRIu64 " errors", record->end.errors);
    if (run->malformed)
        cmd_error("WARNING: %" PRIu64 " lines of the guest's telemetry were damaged",
                  run->malformed);
}

static void judge(struct session *session)
{
    struct run *run = session->run;

    run->malformed = session->parser.malformed;
    if (session->killed)
        return;
    run->status = qemu_outcome(session->wait_status, run->record.ended);
    if (run->status == RUN_OK && (run->record.n_faults > 0 || run->record.end.errors > 0))
        run->status = RUN_VERIFY;
}

static bool save(const struct run *run, const struct record_result *result)
{
    const struct run_options *options = run->options;
    struct json_object *json;
    bool ok = true;

    if (!run->record.based || (!options->json && !options->plot))
        return true;
    json = result_json(run, result);
    if (options->json)
        ok = result_write(json, options->json);
    if (options->plot)
        ok = plot_draw(&json, NULL, 1, NULL, options->plot) && ok;
    json_object_put(json);
    return ok;
}

static bool report(struct session *session)
{
    struct run *run = session->run;
    struct record_result result;
    bool ok;

    record_result(&run->record, &result);
    explain(session);
    warn(run);
    if (!run->options->quiet && run->record.based)
        view_summary(run, &result);
    ok = save(run, &result);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        cmd_error("cannot write to standard output: %s", strerror(errno));
        ok = false;
    }
    return ok;
}

static void run_session(struct session *session)
{
    session->run->status = RUN_HOST;
    if (start(session)) {
        watch(session);
        drain(session);
        view_end(&session->view);
        judge(session);
    }
    finish(session);
}

int ebb_cmd_run(int argc, char **argv)
{
    struct run_options options;
    struct run run = {.options = &options, .status = RUN_HOST};
    struct session session = {.run = &run,
                              .telemetry_fd = -1,
                              .console_fd = -1,
                              .err_fd = -1,
                              .signal_fd = -1,
                              .input_fd = -1};
    int code = CMD_HOST;

    run.command = quote_command(argc, argv);
    run_options_parse(argc, argv, &options);
    if (prepare(&run)) {
        fflush(stdout);
        run_session(&session);
        if (session.pid > 0 && !report(&session) && exit_code(&run) == CMD_OK)
            run.status = RUN_HOST;
        record_destroy(&run.record);
        code = exit_code(&run);
    }
    free(run.command);
    free(run.qemu_path);
    free(run.guest_path);
    free(run.qemu_version);
    return code;
}
