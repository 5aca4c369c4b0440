/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Run QEMU. The main thread reads what the guest and QEMU say, and draws; a
 * second one samples.
 */
#include "session.h"
#include "cmd.h"
#include "cputime.h"
#include "qemu.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIPE_BYTES   (1 << 20)
#define READ_BYTES   4096u
#define PIECE_BYTES  1024u /* of the console, as printed: less than PIPE_BUF */
#define FIND_SECONDS 2u    /* after its first telemetry the guest's memory must be there */

/* ---- start and end ---- */

/* A blocked signal is delivered even if it is ignored, but who ignores one for
 * us (nohup, a shell's background job) means it. */
static bool is_ignored(int number)
{
    struct sigaction action;

    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

static bool take_signals(struct session *session)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGWINCH);
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        if (!is_ignored(ends[i]))
            sigaddset(&set, ends[i]);
    }
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, &session->signals);
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
    int balloon = -1;
    bool served = true;

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
    if (session->run->backend_path)
        served = backend_start(&session->backend, session->run, err[1], &balloon);
    fds = (struct qemu_fds){telemetry[1], console[1], err[1], balloon};
    fcntl(session->telemetry_fd, F_SETFL, O_NONBLOCK);
    fcntl(session->err_fd, F_SETFL, O_NONBLOCK);
    fcntl(session->console_fd, F_SETFL, O_NONBLOCK);
    if (served)
        session->pid = qemu_start(session->run, &fds);
    close(telemetry[1]);
    close(console[1]);
    close(err[1]);
    if (balloon >= 0)
        close(balloon);
    if (!served || session->pid > 0)
        return served;
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
    error = sampler_start(&session->sampler, &run->record, session->pid, run->options);
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
    if (session->pid > 0)
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
    siginfo_t info = {.si_pid = 0};
    struct rusage usage;

    if (session->exited ||
        waitid(P_PID, (id_t)session->pid, &info, WEXITED | WNOWAIT | options) != 0 ||
        info.si_pid != session->pid)
        return;
    /* What a script leaves behind; until it is waited for, the number of its
     * group belongs to nobody else. */
    kill_qemu(session);
    if (wait4(session->pid, &session->wait_status, 0, &usage) != session->pid)
        return;
    session->exited = true;
    session->run->vmm_cpu_ns = cputime_used(&usage);
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
    case TELEMETRY_RESULT:
    case TELEMETRY_ENGINE:
        break;
    }
    view_event(&session->view, now, event);
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

/* Whole lines of the console, so that they do not run into ours, in pieces that standard output
 * takes at once; in the end (`rest`) all that is left, unless the run was interrupted. */
static void show_console(struct session *session, bool rest)
{
    struct text_tail *tail = &session->console;

    bool waits = rest && session->run->status != RUN_INTERRUPTED;

    while (session->shown < tail->len && (waits || view_writable())) {
        const char *line = tail->text + session->shown;
        size_t left = tail->len - session->shown, n;
        const char *end = memchr(line, '\n', left);

        n = end ? (size_t)(end - line) : left;
        if (!end && !rest && n < PIECE_BYTES)
            break;
        if (n > PIECE_BYTES) {
            n = PIECE_BYTES;
            end = NULL;
        }
        if (!session->in_line)
            printf("guest: ");
        text_print(stdout, line, n);
        session->in_line = !end && !(rest && n == left);
        if (!session->in_line)
            putchar('\n');
        session->shown += n + (end ? 1 : 0);
        fflush(stdout);
    }
}

static bool read_console(struct session *session)
{
    const struct run_options *options = session->run->options;
    static char buffer[READ_BYTES];
    size_t n = read_some(&session->console_fd, buffer), dropped;

    dropped = text_tail_add(&session->console, buffer, n);
    session->shown = session->shown > dropped ? session->shown - dropped : 0;
    if (options->interactive)
        session->shown = session->console.len;
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

    (void)text_tail_add(&session->err, buffer, n);
    return n > 0;
}

/* From the terminal to the guest's console. A key that does not fit is lost. */
static void read_input(struct session *session)
{
    static const char leave[] = "\nexit\n";
    char keys[256];
    ssize_t n = read(session->input_fd, keys, sizeof(keys) - sizeof(leave));
    bool end;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    end = n <= 0 || memchr(keys, 4, (size_t)n); /* Ctrl-D */
    n = n < 0 ? 0 : n;
    if (end) {
        memcpy(keys + n, leave, sizeof(leave) - 1);
        n += (ssize_t)sizeof(leave) - 1;
        session->input_fd = -1;
    }
    if (session->console_fd >= 0)
        (void)!send(session->console_fd, keys, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* QEMU goes on without its balloon, but then this is not the run that was asked for. */
static void lose_backend(struct session *session)
{
    if (session->killed || session->exited || !backend_ended(&session->backend))
        return;
    /* It ends well when QEMU hangs up, which may be a moment before QEMU has ended. */
    if (session->backend.wait_status == 0)
        return;
    session->backend_lost = true;
    stop(session, RUN_QEMU);
}

static void read_signals(struct session *session)
{
    struct signalfd_siginfo info;

    while (read(session->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        switch (info.ssi_signo) {
        case SIGCHLD:
            reap(session, WNOHANG);
            lose_backend(session);
            break;
        case SIGWINCH:
            view_resize(&session->view);
            break;
        default:
            if (!session->killed && !session->exited)
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

/* The guest's console waits for whoever reads it here, and is not silent meanwhile. */
static bool holds_console(struct session *session)
{
    const struct run_options *options = session->run->options;

    if (session->killed || !(options->console || options->interactive))
        return false;
    if (options->console)
        show_console(session, false);
    if (view_writable() && session->console.len - session->shown <= PIECE_BYTES)
        return false;
    session->heard_ns = cmd_now_ns();
    return true;
}

static void watch(struct session *session)
{
    while (!session->exited) {
        struct pollfd files[] = {{session->telemetry_fd, POLLIN, 0},
                                 {session->signal_fd, POLLIN, 0},
                                 {holds_console(session) ? -1 : session->console_fd, POLLIN, 0},
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

/* ---- after its end ---- */

/* QEMU is gone: take what it left in the pipes. */
static void drain(struct session *session)
{
    /* Bounded, in case something else still writes into them. */
    for (int i = 0; i < 1000 && read_telemetry(session); i++)
        ;
    for (int i = 0; i < 1000 && read_err(session); i++)
        ;
}

/* The same for its console. Signals end us again, so what is printed may wait for its reader; not
 * if one of them has ended the run already. */
static void drain_console(struct session *session)
{
    bool shows = session->run->options->console;

    for (int i = 0; i < 1000; i++) {
        if (shows)
            show_console(session, true);
        if (!read_console(session))
            break;
    }
    if (shows)
        show_console(session, true);
}

static void judge(struct session *session)
{
    struct run *run = session->run;

    run->malformed = session->parser.malformed;
    if (session->killed)
        return;
    run->status = qemu_outcome(session->wait_status, run->record.booted, run->record.ended);
    if (run->status == RUN_OK && (run->record.n_faults > 0 || run->record.end.errors > 0))
        run->status = RUN_VERIFY;
}

/* Give everything back. */
static void finish(struct session *session)
{
    struct run *run = session->run;

    if (session->pid > 0 && !session->exited) {
        kill_qemu(session);
        reap(session, 0);
    }
    backend_finish(&session->backend);
    run->backend_cpu_ns = session->backend.cpu_ns;
    if (session->sampling)
        sampler_stop(&session->sampler);
    run->end_ns = cmd_now_ns();
    if (session->terminal_changed)
        tcsetattr(STDIN_FILENO, TCSANOW, &session->terminal);
    close_fd(&session->telemetry_fd);
    close_fd(&session->err_fd);
    /* One that came after QEMU's end changes nothing; from here on they end us. */
    if (session->signal_fd >= 0) {
        read_signals(session);
        close_fd(&session->signal_fd);
        sigprocmask(SIG_SETMASK, &session->signals, NULL);
    }
    drain_console(session);
    close_fd(&session->console_fd);
}

void session_run(struct session *session, struct run *run)
{
    *session = (struct session){.run = run,
                                .telemetry_fd = -1,
                                .console_fd = -1,
                                .err_fd = -1,
                                .signal_fd = -1,
                                .input_fd = -1};
    run->status = RUN_HOST;
    if (start(session)) {
        watch(session);
        drain(session);
        view_end(&session->view);
        judge(session);
    }
    finish(session);
}
