/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `ebb top`: asks all sources each interval, and shows what they said once they have, or after a
 * moment: none waits for another.
 */
#include "args.h"
#include "cmd.h"
#include "control.h"
#include "top_ebbd.h"
#include "top_qmp.h"
#include "top_view.h"

#include <argp.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define QMP_MOST   64u
#define SETTLE_NS  (500 * CMD_MS) /* that answers may take before they are shown without */
#define ONCE_NS    (10 * CMD_S)   /* the same with --once, in all: it has no second chance */
#define FD_SIGNALS 0
#define FD_KEYS    1
#define FD_EBBD    2
#define FD_QMP     3

struct top {
    const char *control; /* NULL: not given */
    const char *paths[QMP_MOST];
    double interval_s;
    bool once;
    unsigned sort;

    bool has_ebbd;
    struct top_ebbd ebbd;
    struct top_qmp qmps[QMP_MOST];
    unsigned n_qmps;
    struct top_view view;
    struct top_rows rows;

    int signal_fd;
    bool keys;           /* standard input has some */
    bool more;           /* to be heard that has come already */
    uint64_t next_ns;    /* when to ask */
    uint64_t settled_ns; /* when to draw at the latest; 0: it is drawn */
    uint64_t once_ns;    /* when --once waits no longer */
    unsigned asked;      /* how often */
    bool ended;
    int status;
};

/* ---- options ---- */

static const struct argp_option argp_options[] = {
    {"control", 'c', "PATH", 0,
     "ebbd's control socket (default " CONTROL_PATH ", unless --qmp is given)", 0},
    {"qmp", 'Q', "PATH", 0,
     "Also show the VM of a QEMU with its own balloon, by its QMP socket (-qmp "
     "unix:PATH,server=on,wait=off); repeatable. QMP talks to one client at a time: give `ebb top` "
     "a "
     "socket of its own",
     0},
    {"interval", 'i', "S", 0, "Seconds from one look to the next, 0.1 to 3600 (default 2)", 0},
    {"once", '1', NULL, 0, "Show one interval, without waiting for keys, and end", 0},
    {"sort", 's', "COLUMN", 0,
     "name, assigned, resident, free, waste (the default), reported, returned, refaults, failed, "
     "median, latency or balloon",
     0},
    {0},
};

static const char doc[] =
    "Show how much memory VMs hold on this host, how much of it they do not need, and what comes "
    "back."
    "\vColumns, in powers of 1024: memory ASSIGNED to the VM; RESIDENT on the host; FREE, by the "
    "guest's statistics; WASTE, the part of what is resident that the guest does not use, at "
    "least; "
    "what the guest REPORTs free, what is RETURNed to the host, and what the guest takes into use "
    "again or for the first time (REFAULT), a second; what FAILED to come back since ebbd started, "
    "and the cause of most of it; how long half and 99 % of the batches of the interval took; what "
    "the BALLOON has, and (after a slash) shall have. -: not known, ~: from statistics older than "
    "30 s.\n\n"
    "On a terminal: q ends it, and a letter sorts. Else it prints a block each interval.\n\n"
    "Exit status: 0, 2 wrong options, 4 nobody answers.";

static double parse_interval(struct argp_state *state, const char *arg)
{
    char *end;
    double seconds = strtod(arg, &end);

    if (*arg == '\0' || arg[strspn(arg, "0123456789.")] || *end ||
        !(seconds >= 0.1 && seconds <= 3600))
        argp_error(state, "--interval is a number of seconds from 0.1 to 3600, not '%s'", arg);
    return seconds;
}

static unsigned parse_sort(struct argp_state *state, const char *arg)
{
    for (unsigned i = 0; top_column_name(i); i++) {
        if (strcmp(top_column_name(i), arg) == 0)
            return i;
    }
    argp_error(state, "--sort: there is no column '%s'; see --help", arg);
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct top *top = state->input;

    switch (key) {
    case 'c':
        top->control = arg;
        return 0;
    case 'Q':
        if (top->n_qmps == QMP_MOST)
            argp_error(state, "--qmp: at most %u", QMP_MOST);
        else
            top->paths[top->n_qmps++] = arg;
        return 0;
    case 'i':
        top->interval_s = parse_interval(state, arg);
        return 0;
    case '1':
        top->once = true;
        return 0;
    case 's':
        top->sort = parse_sort(state, arg);
        return 0;
    case ARGP_KEY_ARG:
        args_none(state, arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- sources ---- */

static void open_sources(struct top *top)
{
    top->has_ebbd = top->control || top->n_qmps == 0;
    top_ebbd_init(&top->ebbd, top->control ? top->control : CONTROL_PATH);
    for (unsigned i = 0; i < top->n_qmps; i++)
        top_qmp_init(&top->qmps[i], top->paths[i]);
}

static void close_sources(struct top *top)
{
    top_ebbd_close(&top->ebbd);
    for (unsigned i = 0; i < top->n_qmps; i++)
        top_qmp_close(&top->qmps[i]);
    free(top->rows.rows);
}

/* How many of them could be asked. */
static unsigned ask(struct top *top, uint64_t now)
{
    unsigned asked = top->has_ebbd && top_ebbd_ask(&top->ebbd, now);

    for (unsigned i = 0; i < top->n_qmps; i++)
        asked += top_qmp_ask(&top->qmps[i], now);
    return asked;
}

static void hear(struct top *top)
{
    top->more = false;
    if (top->has_ebbd)
        top_ebbd_hear(&top->ebbd);
    for (unsigned i = 0; i < top->n_qmps; i++)
        top->more |= top_qmp_hear(&top->qmps[i]);
}

static bool is_settled(const struct top *top)
{
    bool settled = !top->has_ebbd || top_ebbd_settled(&top->ebbd);

    for (unsigned i = 0; settled && i < top->n_qmps; i++)
        settled = top_qmp_settled(&top->qmps[i]);
    return settled;
}

static void complain_of(const struct control *control)
{
    if (*control->error)
        cmd_error("%s", control->error);
    else
        cmd_error("%s at %s does not answer%s", control->peer->name, control->path,
                  control->peer == &control_qemu ? ": is another client connected?" : "");
}

static void complain(const struct top *top)
{
    if (top->has_ebbd)
        complain_of(&top->ebbd.control);
    for (unsigned i = 0; i < top->n_qmps; i++)
        complain_of(&top->qmps[i].control);
}

/* Does any of them tell something? */
static bool is_any_there(const struct top *top)
{
    bool any = top->has_ebbd && top->ebbd.now && !top->ebbd.lost;

    for (unsigned i = 0; !any && i < top->n_qmps; i++)
        any = top->qmps[i].step == TOP_QMP_IDLE;
    return any;
}

/* ---- show ---- */

static void end(struct top *top, int status)
{
    top->ended = true;
    top->status = status;
}

static void draw(struct top *top)
{
    uint64_t now = cmd_now_ns();

    top->settled_ns = 0;
    top->rows.n = 0;
    top->view.n_notes = 0;
    if (top->has_ebbd)
        top_ebbd_show(&top->ebbd, now, &top->rows, &top->view);
    for (unsigned i = 0; i < top->n_qmps; i++)
        top_qmp_show(&top->qmps[i], now, &top->rows);
    if (!top_view_draw(&top->view, &top->rows)) {
        cmd_error("cannot write to standard output: %s", strerror(errno));
        end(top, CMD_HOST);
    }
}

/* What is printed has rates from the start; they need two looks. */
static void draw_in_turn(struct top *top)
{
    if (!top->view.live && top->asked < 2) {
        top->settled_ns = 0;
        return;
    }
    draw(top);
    if (!top->once || top->ended)
        return;
    end(top, CMD_OK);
    if (!is_any_there(top)) {
        complain(top);
        top->status = CMD_HOST;
    }
}

static void look(struct top *top, uint64_t now)
{
    uint64_t interval = (uint64_t)(top->interval_s * 1e9), wait = SETTLE_NS;

    if (top->once && top->settled_ns && !is_settled(top)) {
        top->next_ns = now + interval; /* the first answers are needed */
        return;
    }
    if (ask(top, now) == 0 && top->asked == 0) {
        complain(top);
        end(top, CMD_HOST);
    }
    top->asked++;
    top->next_ns =
        top->asked > 1 && top->next_ns + interval > now ? top->next_ns + interval : now + interval;
    if (wait > interval / 2)
        wait = interval / 2;
    if (top->asked == 1)
        top->once_ns = now + ONCE_NS;
    top->settled_ns = now + wait;
    if (top->once && top->settled_ns < top->once_ns)
        top->settled_ns = top->once_ns;
    if (top->once && top->asked == 2)
        top->next_ns = UINT64_MAX;
}

/* ---- signals and keys ---- */

/* Who ignores one for us (nohup) means it. */
static bool is_ignored(int number)
{
    struct sigaction action;

    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

/* Without a terminal there is nothing to put back, so nothing waits for what is being printed into
 * a pipe that nobody reads. */
static void on_end(int number)
{
    _exit(number == SIGINT ? CMD_OK : 128 + number);
}

static bool take_signals(struct top *top)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        bool job = numbers[i] == SIGTSTP || numbers[i] == SIGWINCH;

        if (is_ignored(numbers[i]))
            continue;
        if (top->view.live)
            sigaddset(&set, numbers[i]);
        else if (!job)
            signal(numbers[i], on_end);
    }
    sigprocmask(SIG_BLOCK, &set, NULL);
    top->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (top->signal_fd < 0)
        cmd_error("cannot watch signals: %s", strerror(errno));
    return top->signal_fd >= 0;
}

static void hear_signals(struct top *top)
{
    struct signalfd_siginfo info;

    while (read(top->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        switch (info.ssi_signo) {
        case SIGWINCH:
            draw(top);
            break;
        case SIGTSTP: /* the shell gets its screen back meanwhile */
            top_view_leave(&top->view);
            raise(SIGSTOP);
            top_view_enter(&top->view);
            draw(top);
            break;
        case SIGINT:
            end(top, CMD_OK);
            break;
        default:
            end(top, 128 + (int)info.ssi_signo);
        }
    }
}

static void hear_keys(struct top *top)
{
    char keys[64];
    ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));

    if (n <= 0 && !(n < 0 && (errno == EINTR || errno == EAGAIN)))
        top->keys = false;
    for (ssize_t i = 0; i < n && !top->ended; i++) {
        if (!top_view_key(&top->view, keys[i]))
            end(top, CMD_OK);
    }
    if (n > 0 && !top->ended)
        draw(top);
}

/* ---- the loop ---- */

static int poll_ms(const struct top *top, uint64_t now)
{
    uint64_t until = top->next_ns;

    if (top->settled_ns && top->settled_ns < until)
        until = top->settled_ns;
    if (top->more || until <= now)
        return 0;
    return until - now > 3600 * CMD_S ? 3600000 : (int)((until - now) / CMD_MS) + 1;
}

static void wait_for_news(struct top *top)
{
    struct pollfd fds[FD_QMP + QMP_MOST];
    unsigned n = FD_QMP + top->n_qmps;

    for (unsigned i = 0; i < n; i++)
        fds[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    fds[FD_SIGNALS].fd = top->signal_fd;
    fds[FD_KEYS].fd = top->keys ? STDIN_FILENO : -1;
    fds[FD_EBBD].fd = top->ebbd.control.fd;
    for (unsigned i = 0; i < top->n_qmps; i++)
        fds[FD_QMP + i].fd = top->qmps[i].control.fd;
    if (poll(fds, n, poll_ms(top, cmd_now_ns())) <= 0)
        return;
    if (fds[FD_SIGNALS].revents)
        hear_signals(top);
    if (fds[FD_KEYS].revents && !top->ended)
        hear_keys(top);
}

static void loop(struct top *top)
{
    while (!top->ended) {
        uint64_t now = cmd_now_ns();

        if (now >= top->next_ns)
            look(top, now);
        hear(top);
        now = cmd_now_ns();
        if (!top->ended && top->settled_ns && (is_settled(top) || now >= top->settled_ns))
            draw_in_turn(top);
        if (!top->ended)
            wait_for_news(top);
    }
}

int ebb_cmd_top(int argc, char **argv)
{
    static const struct argp argp = {.options = argp_options, .parser = parse, .doc = doc};
    struct top *top = cmd_realloc(NULL, sizeof(*top));
    int status;

    *top = (struct top){.interval_s = 2, .sort = TOP_WASTE, .signal_fd = -1};
    cmd_argp_setup();
    argp_parse(&argp, argc, argv, 0, NULL, top);
    top_view_init(&top->view, top->once);
    top->view.sort = top->sort;
    top->view.interval_s = top->interval_s;
    open_sources(top);
    if (take_signals(top)) {
        uint64_t now = cmd_now_ns();

        look(top, now);
        if (!top->ended)
            top_view_enter(&top->view);
        top->keys = top->view.keys;
        loop(top);
        top_view_leave(&top->view);
    } else {
        top->status = CMD_HOST;
    }
    status = top->status;
    close_sources(top);
    free(top);
    return status;
}
