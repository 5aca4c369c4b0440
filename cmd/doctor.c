/* SPDX-License-Identifier: BSD-2-Clause */
#include "doctor.h"
#include "args.h"
#include "cmd.h"
#include "control.h"
#include "grid.h"
#include "result.h"

#include <argp.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DOCTOR_FOUND 1 /* exit status: something is wrong; next to those of cmd.h */
#define QMPS         64u

static const char *const kinds[] = {
    [DOCTOR_OK] = "ok", [DOCTOR_NOTE] = "note", [DOCTOR_WRONG] = "wrong"};

/* ---- what the others use ---- */

/* Names and what is told of them may be another user's: root's terminal must not act on them. */
static void add_clean(struct json_object *to, const char *key, const char *text)
{
    char *clean = cmd_format("%s", text);

    grid_clean(clean);
    result_add_text(to, key, clean);
    free(clean);
}

void doctor_tell(struct doctor *doctor, enum doctor_kind kind, const char *about,
                 const char *remedy, const char *format, ...)
{
    struct json_object *finding = json_object_new_object();
    va_list args;
    char *text;

    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        cmd_no_memory();
    va_end(args);
    add_clean(finding, "about", about);
    result_add_text(finding, "kind", kinds[kind]);
    add_clean(finding, "text", text);
    if (remedy)
        add_clean(finding, "remedy", remedy);
    json_object_array_add(doctor->findings, finding);
    doctor->counts[kind]++;
    free(text);
}

const char *doctor_read(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, size - 1) : -1;

    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return text;
}

/* ---- options ---- */

struct doctor_options {
    const char *control, *qmps[QMPS];
    size_t n_qmps;
    bool json;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct doctor_options *options = state->input;

    switch (key) {
    case 'c':
        options->control = arg;
        return 0;
    case 'q':
        if (options->n_qmps == QMPS)
            argp_error(state, "--qmp: at most %u are looked at", QMPS);
        options->qmps[options->n_qmps++] = arg;
        return 0;
    case 'j':
        options->json = true;
        return 0;
    case ARGP_KEY_ARG:
        args_none(state, arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void parse_options(struct doctor_options *options, int argc, char **argv)
{
    static const struct argp_option list[] = {
        {"control", 'c', "PATH", 0, "ebbd's control socket (default " CONTROL_PATH ")", 0},
        {"qmp", 'q', "PATH", 0,
         "Ask a QEMU by its QMP socket as well, which knows whether the guest's driver answers; "
         "may be given more than once",
         0},
        {"json", 'j', NULL, 0, "Print findings as JSON", 0},
        {0},
    };
    static const char doc[] =
        "Look at this host and the VMs on it, and say in words whether memory that guests free "
        "can come back, and what to change if not. Nothing is changed. Processes of other users "
        "are seen by root only."
        "\vEach finding is one of: ok; note, good to know; wrong, with what to do.\n\n"
        "Exit status: 0 nothing is wrong, 1 something is, 2 wrong options, 4 the output cannot be "
        "written.\n\n"
        "Examples:\n"
        "  sudo ebb doctor\n"
        "  ebb doctor --qmp /run/vm1/qmp --json";
    static const struct argp argp = {.options = list, .parser = parse, .doc = doc};

    *options = (struct doctor_options){.control = CONTROL_PATH};
    cmd_argp_setup();
    argp_parse(&argp, argc, argv, 0, NULL, options);
}

/* ---- output ---- */

static void print_text(const struct doctor *doctor)
{
    const char *about = "";

    for (size_t i = 0; i < result_length(doctor->findings); i++) {
        struct json_object *finding = json_object_array_get_idx(doctor->findings, i);
        const char *remedy = result_text(finding, "remedy");

        if (strcmp(about, result_text(finding, "about")) != 0) {
            about = result_text(finding, "about");
            printf("%s%s\n", i ? "\n" : "", about);
        }
        printf("  %-6s %s\n", result_text(finding, "kind"), result_text(finding, "text"));
        if (remedy)
            printf("         -> %s\n", remedy);
    }
    printf("\n%u wrong, %u to note, %u ok\n", doctor->counts[DOCTOR_WRONG],
           doctor->counts[DOCTOR_NOTE], doctor->counts[DOCTOR_OK]);
}

static void print_json(const struct doctor *doctor)
{
    struct json_object *all = json_object_new_object();

    json_object_object_add(all, "findings", json_object_get(doctor->findings));
    printf("%s\n",
           json_object_to_json_string_ext(all, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
                                                   JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(all);
}

int ebb_cmd_doctor(int argc, char **argv)
{
    struct doctor_options options;
    struct doctor doctor = {.findings = json_object_new_array()};

    parse_options(&options, argc, argv);
    doctor.control = options.control;
    doctor.qmps = options.qmps;
    doctor.n_qmps = options.n_qmps;
    doctor_host(&doctor);
    doctor_vms(&doctor);
    if (options.json)
        print_json(&doctor);
    else
        print_text(&doctor);
    json_object_put(doctor.findings);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        cmd_error("the output cannot be written");
        return CMD_HOST;
    }
    return doctor.counts[DOCTOR_WRONG] ? DOCTOR_FOUND : CMD_OK;
}
