/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `ebb run`: check the machine, run QEMU with the reference guest while
 * watching its memory (session.h), tell what came back.
 */
#include "run.h"
#include "cmd.h"
#include "host.h"
#include "initrd.h"
#include "kvm.h"
#include "plot.h"
#include "qemu.h"
#include "result.h"
#include "session.h"
#include "text.h"
#include "view.h"

#include <ebb/history.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define VMM_BYTES ((uint64_t)160 << 20) /* what QEMU takes besides the guest, roughly */

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

static bool choose_accel(struct run *run)
{
    const struct run_options *options = run->options;
    struct kvm_probe probe;

    run->accel = ACCEL_TCG;
    if (options->accel == ACCEL_TCG)
        return true;
    if (options->icount) {
        if (!options->quiet)
            printf("Using QEMU's translator (TCG): --icount counts its instructions.\n");
        return true;
    }
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
    cmd_error("--accel kvm: %s. %sUse --accel tcg, which needs none.", probe.text,
              probe.state == KVM_REFUSED ? "Is this user in the group kvm? " : "");
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

static bool is_readable(const char *option, const char *path)
{
    if (access(path, R_OK) == 0)
        return true;
    cmd_error("%s %s: %s", option, path, strerror(errno));
    return false;
}

static bool find_linux(struct run *run)
{
    const struct run_options *options = run->options;

    if (!is_readable("--kernel", options->kernel) || !is_readable("--initrd", options->initrd)) {
        cmd_error("lab/linux/build DIR makes both: DIR/vmlinuz-6.12 and DIR/initrd-6.12");
        return false;
    }
    run->guest_path = cmd_format("%s", options->kernel);
    if (options->module)
        run->initrd_fd = initrd_with_module(options->initrd, options->module);
    return !options->module || run->initrd_fd >= 0;
}

/* Is this KEY=VALUE for the guest that has the settings of ebb/history.h? */
static bool is_of_history(const char *setting)
{
    static const char prefix[] = "report.";
    struct ebb_history_config config = {0};
    const char *allowed;
    char *key;
    int err;

    if (strncmp(setting, prefix, strlen(prefix)) != 0)
        return false;
    key = cmd_format("%.*s", (int)strcspn(setting, "=") - (int)strlen(prefix),
                     setting + strlen(prefix));
    err = ebb_history_config_set(&config, key, "", &allowed);
    free(key);
    return err != -EBB_ENOENT;
}

static bool find_own_guest(struct run *run)
{
    const struct run_options *options = run->options;
    bool history = false;

    for (size_t i = 0; i < options->n_settings; i++)
        history = history || is_of_history(options->settings[i]);
    run->guest_path = host_find_guest(history);
    if (!run->guest_path)
        cmd_error("the reference guest, ebb-guest%s.elf, was not found beside this program "
                  "or where it is installed: build it, or name it with --guest.",
                  history ? "-history" : "");
    return run->guest_path;
}

static bool find_guest(struct run *run)
{
    const char *path = run->options->guest;

    if (run->options->linux_guest)
        return find_linux(run);
    if (!path)
        return find_own_guest(run);
    if (!is_readable("--guest", path))
        return false;
    run->guest_path = cmd_format("%s", path);
    return true;
}

/* The ebbd that the balloon shall be of, and a QEMU that lets it be. */
static bool find_backend(struct run *run)
{
    const char *host = run->options->host;

    if (strcmp(host, "qemu") == 0)
        return true;
    if (!qemu_has_vhost_user(run->qemu_version)) {
        cmd_error("--host=%s: QEMU %s has no generic vhost-user device; 10.2 and later have one. "
                  "`scripts/qemu DIR` gets one from Debian, then --qemu=DIR/qemu-system-x86_64",
                  host, run->qemu_version);
        return false;
    }
    run->backend_path = strcmp(host, "ebbd") == 0 ? host_find_ebbd() : host_find_program(host);
    if (!run->backend_path)
        cmd_error("--host=%s: not found beside this program or where it is installed", host);
    return run->backend_path;
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
    if (options->backing == BACKING_HUGETLB && !host_check_hugetlb("--memory", options->memory))
        return false;
    return find_guest(run) && find_qemu(run) && find_backend(run) &&
           host_check_memory("--memory", options->backing == BACKING_HUGETLB ? 0 : options->memory,
                             VMM_BYTES) &&
           choose_accel(run);
}

/* ---- after the run ---- */

static void print_tail(const char *what, const struct text_tail *tail)
{
    if (tail->len == 0)
        return;
    fprintf(stderr, "---- %s\n", what);
    text_print(stderr, tail->text, tail->len);
    fprintf(stderr, "%s----\n", tail->text[tail->len - 1] == '\n' ? "" : "\n");
}

static void describe_backend_end(const struct session *session)
{
    int status = session->backend.wait_status;

    if (WIFSIGNALED(status))
        cmd_error("ebbd was killed by signal %d (%s)", WTERMSIG(status),
                  strsignal(WTERMSIG(status)));
    else
        cmd_error("ebbd ended with status %d while its guest ran", WEXITSTATUS(status));
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
        if (session->backend_lost)
            describe_backend_end(session);
        else
            describe_qemu_end(session);
        break;
    }
    if (!run->options->console && !run->options->interactive)
        print_tail("the guest's console", &session->console);
    print_tail("QEMU's messages", &session->err);
}

static bool was_told(const struct run_options *options, const char *setting)
{
    for (size_t i = 0; i < options->n_settings; i++) {
        if (strcmp(options->settings[i], setting) == 0)
            return true;
    }
    return false;
}

/* A run without what it is about is no success. (A Linux guest does not say why.) */
static void check_reporting(const struct session *session)
{
    struct run *run = session->run;
    const struct run_options *options = run->options;

    if (run->status != RUN_OK || !options->reporting || run->record.boot.reporting ||
        options->linux_guest || was_told(options, "report=off"))
        return;
    run->status = RUN_HOST;
    cmd_error("the guest does not report: it found no balloon that it can use, or one that does "
              "not offer that:");
    if (!options->console && !options->interactive)
        print_tail("the guest's console", &session->console);
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

/* Says what was written, so that nobody looks for what was not. */
static bool save(const struct run *run, const struct record_result *result)
{
    const struct run_options *options = run->options;
    const char *json_path = options->json, *plot_path = options->plot;
    struct json_object *json;
    bool json_ok, plot_ok;

    if (!json_path && !plot_path)
        return true;
    if (!run->record.based) {
        cmd_error("the guest's workload did not start, so no results were written");
        return true;
    }
    json = result_json(run, result);
    json_ok = !json_path || result_write(json, json_path);
    plot_ok = !plot_path || plot_draw(&json, NULL, 1, NULL, plot_path);
    json_object_put(json);
    if (!json_ok)
        json_path = NULL;
    if (!plot_ok)
        plot_path = NULL;
    if (!options->quiet && (json_path || plot_path))
        printf("Wrote %s%s%s.\n", plot_path ? plot_path : "", plot_path && json_path ? " and " : "",
               json_path ? json_path : "");
    return json_ok && plot_ok;
}

static bool report(struct session *session)
{
    struct run *run = session->run;
    struct record_result result;
    bool ok;

    record_result(&run->record, &result);
    explain(session);
    check_reporting(session);
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

int ebb_cmd_run(int argc, char **argv)
{
    struct run_options options;
    struct run run = {.options = &options, .status = RUN_HOST, .initrd_fd = -1};
    struct session session;
    int code = CMD_HOST;

    run.command = text_quote(argc, argv);
    run_options_parse(argc, argv, &options);
    if (prepare(&run)) {
        fflush(stdout);
        session_run(&session, &run);
        if (session.pid > 0 && !report(&session) && exit_code(&run) == CMD_OK)
            run.status = RUN_HOST;
        record_destroy(&run.record);
        code = exit_code(&run);
    }
    if (run.initrd_fd >= 0)
        close(run.initrd_fd);
    free(run.command);
    free(run.qemu_path);
    free(run.guest_path);
    free(run.backend_path);
    free(run.qemu_version);
    return code;
}
