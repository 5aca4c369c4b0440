/* SPDX-License-Identifier: BSD-2-Clause */
/* `ebb ctl`: one request to ebbd, and its answer. */
#include "args.h"
#include "cmd.h"
#include "control.h"
#include "ctl_view.h"
#include "grid.h"
#include "result.h"

#include <argp.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARGS_MAX      4u
#define SIZE_MOST     (MIB << 26) /* 64 TiB */
#define RATE_MOST     (MIB << 20) /* what ebbd --rate takes, too */
#define ANSWER_WITHIN 10u         /* seconds */
#define GRACE         2u          /* seconds that ebbd may be late with what it gave up on */

#define CTL_REFUSED 1 /* ebbd said no: a status of its own, next to those of cmd.h */

struct ctl {
    const char *path;
    bool json, full;
    const char *balloon; /* --balloon */
    unsigned timeout_s;  /* 0: not given */
    const char *args[ARGS_MAX];
    unsigned n_args;
    const struct command *command;
    struct json_object *request;
};

struct command {
    const char *name, *args;
    unsigned fewest, most; /* of args */
    unsigned takes_s; /* that ebbd may take for it, if nobody says otherwise; 0: none to speak of */
    void (*build)(struct argp_state *state, struct ctl *ctl);
    /* False: the answer lacks what it must have. */
    bool (*show)(const struct ctl *ctl, struct json_object *answer);
};

/* ---- requests ---- */

static void add_text(struct ctl *ctl, const char *key, const char *text)
{
    if (text)
        result_add_text(ctl->request, key, text);
}

static const char *arg(const struct ctl *ctl, unsigned i)
{
    return i < ctl->n_args ? ctl->args[i] : NULL;
}

static void build_vm(struct argp_state *state, struct ctl *ctl)
{
    (void)state;
    add_text(ctl, "vm", arg(ctl, 0));
}

static void build_status(struct argp_state *state, struct ctl *ctl)
{
    build_vm(state, ctl);
    if (ctl->full)
        result_add(ctl->request, "full", json_object_new_boolean(true));
}

static void build_waiting(struct argp_state *state, struct ctl *ctl)
{
    build_vm(state, ctl);
    if (ctl->timeout_s)
        result_add_count(ctl->request, "timeout_ms", (uint64_t)ctl->timeout_s * 1000);
}

static void build_add(struct argp_state *state, struct ctl *ctl)
{
    build_vm(state, ctl);
    add_text(ctl, "for", arg(ctl, 1));
}

static void build_resize(struct argp_state *state, struct ctl *ctl)
{
    const char *size = ctl->balloon ? ctl->balloon : arg(ctl, 1);
    bool none = ctl->balloon && strcmp(size, "0") == 0;

    if (!size || (ctl->balloon && ctl->n_args > 1)) {
        argp_error(state, "resize takes VM and either the SIZE of the memory that it shall have "
                          "left, or --balloon=SIZE");
        return;
    }
    build_vm(state, ctl);
    result_add_count(ctl->request, ctl->balloon ? "balloon_bytes" : "memory_bytes",
                     none ? 0
                          : args_size(state, ctl->balloon ? "balloon" : "resize: the size", size,
                                      MIB, SIZE_MOST, MIB));
}

static void build_inhibit(struct argp_state *state, struct ctl *ctl)
{
    const char *last = arg(ctl, ctl->n_args - 1);
    bool on = strcmp(last, "on") == 0;

    if (!on && strcmp(last, "off") != 0)
        argp_error(state, "inhibit takes on or off, not '%s'", last);
    add_text(ctl, "vm", ctl->n_args > 1 ? arg(ctl, 0) : NULL);
    result_add(ctl->request, "on", json_object_new_boolean(on));
}

/* A VM may be called 100: a rate that stands alone has a unit. */
static bool is_rate(const char *text)
{
    size_t digits = strspn(text, "0123456789");

    return strcmp(text, "none") == 0 ||
           (digits > 0 && text[digits] && strchr("KMGTkmgt", text[digits]) &&
            strspn(text + digits + 1, "iBb") == strlen(text + digits + 1));
}

static void build_limits(struct argp_state *state, struct ctl *ctl)
{
    const char *first = arg(ctl, 0), *rate = arg(ctl, 1);

    if (first && !rate && is_rate(first)) {
        rate = first;
        first = NULL;
    }
    add_text(ctl, "vm", first);
    if (rate && (strcmp(rate, "none") == 0 || strcmp(rate, "0") == 0))
        result_add_count(ctl->request, "rate", 0);
    else if (rate)
        result_add_count(ctl->request, "rate",
                         args_size(state, "limits: the rate", rate, MIB, RATE_MOST, MIB));
}

static void build_hint(struct argp_state *state, struct ctl *ctl)
{
    const char *action = arg(ctl, 1);

    if (strcmp(action, "start") != 0 && strcmp(action, "done") != 0 &&
        strcmp(action, "status") != 0)
        argp_error(state, "hint takes start, done or status, not '%s'", action);
    build_vm(state, ctl);
    add_text(ctl, "action", action);
}

/* ---- answers ---- */

static const char *size_of(double bytes)
{
    static char figure[GRID_FIGURE];

    return grid_size(bytes, figure);
}

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line, whatever is in it. */
static void say(const char *format, ...)
{
    va_list args;
    char *text;
    int n;

    va_start(args, format);
    n = vasprintf(&text, format, args);
    va_end(args);
    if (n < 0)
        cmd_no_memory();
    grid_clean(text);
    puts(text);
    free(text);
}

static bool show_list(const struct ctl *ctl, struct json_object *answer)
{
    struct json_object *vms = result_get(answer, "vms");

    (void)ctl;
    if (!json_object_is_type(vms, json_type_array))
        return false;
    if (result_length(vms) == 0)
        say("ebbd serves no VM: `ebb ctl add VM`, or start it with --socket or --socket-dir");
    else
        ctl_view_list(vms, stdout);
    return true;
}

static bool show_status(const struct ctl *ctl, struct json_object *answer)
{
    struct json_object *vms = result_get(answer, "vms");

    if (!json_object_is_type(vms, json_type_array))
        return false;
    if (!arg(ctl, 0) && result_length(vms) == 0)
        return show_list(ctl, answer);
    if (!arg(ctl, 0) && !ctl->full) {
        ctl_view_status(vms, stdout);
        return true;
    }
    for (size_t i = 0; i < result_length(vms); i++) {
        if (!json_object_is_type(json_object_array_get_idx(vms, i), json_type_object))
            return false;
        if (i > 0)
            putchar('\n');
        ctl_view_members(json_object_array_get_idx(vms, i), stdout);
    }
    return result_length(vms) > 0;
}

static bool show_stats(const struct ctl *ctl, struct json_object *answer)
{
    struct json_object *guest = result_get(answer, "guest");

    (void)ctl;
    if (!json_object_is_type(guest, json_type_object))
        return false;
    ctl_view_members(guest, stdout);
    return true;
}

static bool show_resize(const struct ctl *ctl, struct json_object *answer)
{
    double bytes = result_number(answer, "balloon_bytes");

    if (isnan(bytes))
        return false;
    say("%s: the balloon's target is %s now; `ebb ctl status %s` tells how far the guest is",
        arg(ctl, 0), size_of(bytes), arg(ctl, 0));
    return true;
}

/* Whom the answer is about. */
static bool show_vms(const struct ctl *ctl, struct json_object *answer, bool one, const char *what)
{
    double vms = result_number(answer, "vms");

    if (isnan(vms))
        return false;
    if (one)
        say("%s: %s", arg(ctl, 0), what);
    else
        say("%.0f VM%s: %s", vms, vms == 1 ? "" : "s", what);
    return true;
}

static bool show_inhibit(const struct ctl *ctl, struct json_object *answer)
{
    bool one = ctl->n_args > 1;

    return show_vms(ctl, answer, one,
                    result_flag(ctl->request, "on")
                        ? "what the guest hands over is acknowledged and not discarded"
                        : "what the guest hands over is discarded");
}

static bool show_limits(const struct ctl *ctl, struct json_object *answer)
{
    const char *vm = result_text(ctl->request, "vm");
    double rate = result_number(answer, "rate");

    if (isnan(rate))
        return false;
    if (!vm)
        vm = result_get(ctl->request, "rate") ? "all VMs" : "VMs still to come";
    if (rate > 0)
        say("%s: at most %s/s", vm, size_of(rate));
    else
        say("%s: no limit", vm);
    return true;
}

static bool show_flush(const struct ctl *ctl, struct json_object *answer)
{
    return show_vms(ctl, answer, ctl->n_args > 0, "nothing is under way");
}

static bool show_hint(const struct ctl *ctl, struct json_object *answer)
{
    if (!json_object_is_type(result_get(answer, "hinting"), json_type_boolean))
        return false;
    say("%s: the guest %s", arg(ctl, 0),
        result_flag(answer, "hinting") ? "sends what is free" : "sends no hints");
    return true;
}

static bool show_add(const struct ctl *ctl, struct json_object *answer)
{
    const char *socket = result_text(answer, "socket");

    if (!socket)
        return false;
    say("%s: listening on %s", arg(ctl, 0), socket);
    return true;
}

static bool show_remove(const struct ctl *ctl, struct json_object *answer)
{
    (void)answer;
    say("%s: removed", arg(ctl, 0));
    return true;
}

static bool show_version(const struct ctl *ctl, struct json_object *answer)
{
    const char *version = result_text(answer, "version");

    (void)ctl;
    if (!version)
        return false;
    say("ebbd %s, protocol %g", version, result_number(answer, "protocol"));
    return true;
}

static const struct command commands[] = {
    {"list", "", 0, 0, 0, build_vm, show_list},
    {"status", "[VM]", 0, 1, 0, build_status, show_status},
    {"stats", "VM", 1, 1, 2, build_waiting, show_stats},
    {"resize", "VM SIZE", 1, 2, 0, build_resize, show_resize},
    {"inhibit", "[VM] on|off", 1, 2, 0, build_inhibit, show_inhibit},
    {"limits", "[VM] [RATE]", 0, 2, 0, build_limits, show_limits},
    {"flush", "[VM]", 0, 1, 10, build_waiting, show_flush},
    {"hint", "VM start|done|status", 2, 2, 0, build_hint, show_hint},
    {"add", "VM [USER[:GROUP]]", 1, 2, 0, build_add, show_add},
    {"remove", "VM", 1, 1, 0, build_vm, show_remove},
    {"version", "", 0, 0, 0, build_vm, show_version},
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* ---- options ---- */

static const struct argp_option argp_options[] = {
    {"control", 'c', "PATH", 0, "ebbd's control socket (default " CONTROL_PATH ")", 0},
    {"balloon", 'b', "SIZE", 0, "resize: what the balloon shall take, instead", 0},
    {"full", 'f', NULL, 0, "status: all about each VM", 0},
    {"timeout", 't', "SECONDS", 0,
     "How long to wait, 1 to 60: for the guest (stats; default 2), for what is under way (flush; "
     "default 10), else for ebbd (default 10)",
     0},
    {"json", 'j', NULL, 0, "Print ebbd's answer as it is, a line of JSON", 0},
    {0},
};

static const char doc[] =
    "Ask ebbd something, or tell it to do something."
    "\vCommands:\n"
    "  list                  its VMs\n"
    "  status [VM]           how they are: a line for each, or all about one\n"
    "  stats VM              ask the guest for its statistics\n"
    "  resize VM SIZE        leave the guest so much memory (512M, 2G)\n"
    "  resize VM --balloon=SIZE    or let its balloon take so much\n"
    "  inhibit [VM] on|off   discard nothing: before a snapshot, say\n"
    "  limits [VM] [RATE]    discard at most so much a second (512M; none), or tell\n"
    "  flush [VM]            wait until nothing is under way\n"
    "  hint VM start|done|status   free page hints: ask for them, end, tell\n"
    "  add VM [USER[:GROUP]] listen for one more VM in ebbd's --socket-dir; who can connect\n"
    "  remove VM             listen for it no longer, and hang up\n"
    "  version               that of ebbd\n\n"
    "Exit status: 0 done, 1 ebbd refuses and says why, 2 wrong options, 4 no ebbd, or none that "
    "answers.";

static void find_command(struct argp_state *state, struct ctl *ctl)
{
    size_t i;

    for (i = 0; i < N_COMMANDS; i++) {
        if (ctl->n_args > 0 && strcmp(ctl->args[0], commands[i].name) == 0)
            ctl->command = &commands[i];
    }
    if (ctl->n_args == 0)
        argp_error(state, "which command? list, status, ...: see --help");
    else if (!ctl->command)
        argp_error(state, "there is no command '%s': see --help", ctl->args[0]);
}

/* All that is wrong ends the program. */
static void build(struct argp_state *state, struct ctl *ctl)
{
    const struct command *command;

    find_command(state, ctl);
    command = ctl->command;
    ctl->n_args--;
    memmove(ctl->args, ctl->args + 1, sizeof(ctl->args) - sizeof(ctl->args[0]));
    if (ctl->n_args < command->fewest || ctl->n_args > command->most)
        argp_error(state, "%s takes %s%s", command->name, *command->args ? "" : "no more words",
                   command->args);
    if (ctl->balloon && command->build != build_resize)
        argp_error(state, "--balloon goes with resize");
    if (ctl->full && command->build != build_status)
        argp_error(state, "--full goes with status");
    ctl->request = json_object_new_object();
    result_add_text(ctl->request, "command", command->name);
    command->build(state, ctl);
}

static error_t parse(int key, char *value, struct argp_state *state)
{
    struct ctl *ctl = state->input;

    switch (key) {
    case 'c':
        ctl->path = value;
        return 0;
    case 'b':
        ctl->balloon = value;
        return 0;
    case 't':
        ctl->timeout_s = args_count(state, "timeout", value, 1, 60);
        return 0;
    case 'j':
        ctl->json = true;
        return 0;
    case 'f':
        ctl->full = true;
        return 0;
    case ARGP_KEY_ARG:
        if (ctl->n_args == ARGS_MAX)
            argp_error(state, "too many words, from '%s' on", value);
        else
            ctl->args[ctl->n_args++] = value;
        return 0;
    case ARGP_KEY_END:
        build(state, ctl);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- */

static uint64_t patience(const struct ctl *ctl)
{
    unsigned seconds = ctl->timeout_s ? ctl->timeout_s : ANSWER_WITHIN;

    if (ctl->command->takes_s)
        seconds = (ctl->timeout_s ? ctl->timeout_s : ctl->command->takes_s) + GRACE;
    return seconds * CMD_S;
}

static int show(const struct ctl *ctl, struct control *control, struct json_object *answer)
{
    const char *error = result_text(answer, "error");

    if (ctl->json)
        ctl_view_json(control->line, stdout);
    if (error) {
        char *text = cmd_format("%s", error);

        grid_clean(text);
        cmd_error("%s", text);
        free(text);
        return CTL_REFUSED;
    }
    if (result_get(answer, "error")) {
        cmd_error("ebbd at %s refuses, and does not say why", control->path);
        return CTL_REFUSED;
    }
    if (!ctl->json && !ctl->command->show(ctl, answer)) {
        cmd_error("the answer of ebbd at %s lacks what it must have; --json shows it",
                  control->path);
        return CMD_HOST;
    }
    return CMD_OK;
}

static struct json_object *ask(const struct ctl *ctl, struct control *control)
{
    struct json_object *hello = control_hello(), *answer = NULL;
    bool understood;

    if (control_connect(control))
        answer = control_call(control, hello, patience(ctl));
    json_object_put(hello);
    understood = answer && control_is_hello(control, answer);
    json_object_put(answer);
    return understood ? control_call(control, ctl->request, patience(ctl)) : NULL;
}

int ebb_cmd_ctl(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options, .parser = parse, .args_doc = "COMMAND [VM] [VALUE]", .doc = doc};
    struct ctl ctl = {.path = CONTROL_PATH};
    struct control control;
    struct json_object *answer;
    int status = CMD_HOST;

    cmd_argp_setup();
    argp_parse(&argp, argc, argv, 0, NULL, &ctl);
    control_init(&control, ctl.path, &control_ebbd);
    answer = ask(&ctl, &control);
    if (answer)
        status = show(&ctl, &control, answer);
    else
        cmd_error("%s", control.error);
    json_object_put(answer);
    json_object_put(ctl.request);
    control_close(&control);
    if (fflush(stdout) != 0) {
        cmd_error("cannot write to standard output: %s", strerror(errno));
        return CMD_HOST;
    }
    return status;
}
