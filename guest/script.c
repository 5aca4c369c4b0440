/* SPDX-License-Identifier: BSD-2-Clause */
/* The script language: commands separated by ';' or newlines, the same ones as
 * at the prompt. */
#include "guest.h"

#define WORDS_LIMIT 8u
#define WORD_SIZE   32u

struct command {
    char line[128]; /* as written, blanks around it removed */
    char words[WORDS_LIMIT][WORD_SIZE];
    unsigned count;
    /* Arguments, decoded. */
    uint64_t frames;
    uint64_t number;
    uint64_t ms;
};

struct verb {
    const char *name;
    const char *arguments; /* for people */
    const char *help;      /* NULL: not shown */
    bool (*decode)(struct command *c);
    enum status (*run)(const struct command *c);
};

/* ---- arguments ---- */

/* Bytes with K, M or G, or a percentage of the managed memory; to frames. As
 * everywhere in ebb, a small letter will do. */
static bool decode_size(const char *s, uint64_t *frames)
{
    size_t len = text_length(s);
    char unit = len ? s[len - 1] : '0';
    unsigned shift;
    uint64_t n;

    if (unit >= 'a' && unit <= 'z')
        unit = (char)(unit - 'a' + 'A');
    shift = unit == 'K' ? 10 : unit == 'M' ? 20 : unit == 'G' ? 30 : 0;
    if (unit == '%') {
        if (!text_number(s, s + len - 1, 100, &n))
            return false;
        *frames = memory_managed() * n / 100;
    } else {
        if (!text_number(s, s + len - (shift != 0), UINT64_MAX >> (shift + 1), &n))
            return false;
        *frames = ((n << shift) + EBB_FRAME_SIZE - 1) >> EBB_FRAME_SHIFT;
    }
    return *frames > 0;
}

static bool decode_number(const char *s, uint64_t min, uint64_t max, uint64_t *value)
{
    return text_number(s, s + text_length(s), max, value) && *value >= min;
}

/* Seconds, perhaps with a decimal fraction; to milliseconds. */
static bool decode_time(const char *s, uint64_t *ms)
{
    const char *point = s;
    uint64_t scale = 100;

    while (*point && *point != '.')
        point++;
    if (!text_number(s, point, 1000000, ms))
        return false;
    *ms *= 1000;
    if (*point == '.')
        point++;
    for (; *point; point++, scale /= 10) {
        if (*point < '0' || *point > '9')
            return false;
        *ms += (uint64_t)(*point - '0') * scale;
    }
    return true;
}

static bool decode_none(struct command *c)
{
    return c->count == 1;
}

static bool decode_memhog(struct command *c)
{
    c->number = 1;
    if (c->count == 3 && c->words[2][0] == 'x')
        return decode_size(c->words[1], &c->frames) &&
               decode_number(c->words[2] + 1, 1, 1000000, &c->number);
    return c->count == 2 && decode_size(c->words[1], &c->frames);
}

static bool decode_amount(struct command *c)
{
    return c->count == 2 && decode_size(c->words[1], &c->frames);
}

static bool decode_churn(struct command *c)
{
    return c->count == 3 && decode_size(c->words[1], &c->frames) &&
           decode_number(c->words[2], 1, 1000000, &c->number);
}

static bool decode_cycle(struct command *c)
{
    return c->count == 4 && decode_size(c->words[1], &c->frames) &&
           decode_number(c->words[2], 0, 1000000, &c->number) && decode_time(c->words[3], &c->ms);
}

static bool decode_fragment(struct command *c)
{
    return c->count == 3 && decode_size(c->words[1], &c->frames) &&
           decode_number(c->words[2], 2, 1u << 30, &c->number);
}

static bool decode_contiguous(struct command *c)
{
    return (c->count == 2 || (c->count == 3 && decode_size(c->words[2], &c->number))) &&
           decode_size(c->words[1], &c->frames);
}

static bool decode_idle(struct command *c)
{
    return c->count == 2 && decode_time(c->words[1], &c->ms);
}

static bool decode_tasks(const char *s, uint64_t *tasks)
{
    return decode_number(s, 1, FAULTS_TASKS, tasks);
}

static bool decode_page_fault1(struct command *c)
{
    return (c->count == 4 || (c->count == 5 && text_equal(c->words[4], "thp"))) &&
           (text_equal(c->words[1], "procs") || text_equal(c->words[1], "threads")) &&
           decode_tasks(c->words[2], &c->number) && decode_time(c->words[3], &c->ms);
}

static bool decode_page_fault2(struct command *c)
{
    return c->count == 3 && decode_tasks(c->words[1], &c->number) &&
           decode_time(c->words[2], &c->ms);
}

static bool decode_contend(struct command *c)
{
    return c->count == 2 && decode_number(c->words[1], 1, 1000000, &c->number);
}

static bool decode_stray(struct command *c)
{
    static const char *const how[] = {
        [STRAY_BEHIND] = "behind",
        [STRAY_UNMAPPED] = "unmapped",
        [STRAY_OTHER] = "other",
    };

    for (c->number = 0; c->number < sizeof how / sizeof how[0]; c->number++)
        if (c->count == 2 && text_equal(c->words[1], how[c->number]))
            return true;
    return false;
}

static bool decode_report(struct command *c)
{
    return c->count == 2 && (text_equal(c->words[1], "on") || text_equal(c->words[1], "off") ||
                             text_equal(c->words[1], "now"));
}

/* ---- commands ---- */

static enum status run_memhog(const struct command *c)
{
    return workload_memhog(c->frames, c->number);
}

static enum status run_churn(const struct command *c)
{
    return workload_churn(c->frames, c->number);
}

static enum status run_cycle(const struct command *c)
{
    return workload_cycle(c->frames, c->number, c->ms);
}

static enum status run_page_fault1(const struct command *c)
{
    return faults_page_fault1(text_equal(c->words[1], "threads"), (unsigned)c->number, c->ms,
                              c->count == 5);
}

static enum status run_page_fault2(const struct command *c)
{
    return faults_page_fault2((unsigned)c->number, c->ms);
}

static enum status run_contend(const struct command *c)
{
    return faults_contend(c->number);
}

static enum status run_stray(const struct command *c)
{
    return faults_stray((enum faults_stray)c->number);
}

static enum status run_fragment(const struct command *c)
{
    return workload_fragment(c->frames, c->number);
}

static enum status run_release(const struct command *c)
{
    (void)c;
    return workload_release();
}

static enum status run_unplug(const struct command *c)
{
    return hotplug_unplug(c->frames);
}

static enum status run_hotplug(const struct command *c)
{
    return hotplug_plug(c->frames);
}

static enum status run_compact(const struct command *c)
{
    (void)c;
    return compact_all();
}

static enum status run_contiguous(const struct command *c)
{
    return compact_contiguous(c->frames, c->number);
}

static enum status run_idle(const struct command *c)
{
    return workload_idle(c->ms);
}

static enum status run_free(const struct command *c)
{
    (void)c;
    show_free();
    return STATUS_OK;
}

static enum status run_zoneinfo(const struct command *c)
{
    (void)c;
    show_zones();
    return STATUS_OK;
}

static enum status run_report(const struct command *c)
{
    bool on = text_equal(c->words[1], "on");
    int err;

    if (text_equal(c->words[1], "now")) {
        if (!balloon_reporting()) {
            console_print("report: reporting is off\n");
            return STATUS_USAGE;
        }
        balloon_report_now();
        return STATUS_OK;
    }
    err = balloon_report(on);
    if (err != 0) {
        console_print("report: %s (error %d)\n",
                      balloon_present() ? "the host's balloon does not take reports"
                                        : "there is no balloon",
                      err);
        return STATUS_USAGE;
    }
    console_print("report: reporting is %s\n", on ? "on" : "off");
    return STATUS_OK;
}

static enum status run_verify(const struct command *c)
{
    (void)c;
    return workload_verify(false);
}

static enum status run_shell(const struct command *c)
{
    (void)c;
    return shell_run();
}

static enum status run_corrupt(const struct command *c)
{
    (void)c;
    return workload_corrupt();
}

static enum status run_panic(const struct command *c)
{
    (void)c;
    ebb_port_panic("asked for");
}

/* A read of frame 0, which is not mapped. */
static enum status run_fault(const struct command *c)
{
    const volatile uint8_t *nothing = arch_pointer(c->count);

    return *nothing ? STATUS_OK : STATUS_PANIC;
}

static enum status run_help(const struct command *c);

static const struct verb verbs[] = {
    {"memhog", "SIZE [xN]", "take SIZE in 4 KiB frames, check them, free them; N times",
     decode_memhog, run_memhog},
    {"churn", "SIZE SECONDS", "take and free blocks of all orders, up to SIZE at a time",
     decode_churn, run_churn},
    {"cycle", "SIZE PAUSE_MS SECONDS", "take SIZE, free it, pause; again for SECONDS", decode_cycle,
     run_cycle},
    {"fragment", "SIZE K", "take SIZE, free all frames but every K-th", decode_fragment,
     run_fragment},
    {"page_fault1", "procs|threads N SECONDS [thp]",
     "N (1 to 16) tasks map 128 MiB, write to each page, unmap", decode_page_fault1,
     run_page_fault1},
    {"page_fault2", "N SECONDS", "the same with private mappings of a file", decode_page_fault2,
     run_page_fault2},
    {"release", "", "free what fragment left", decode_none, run_release},
    {"compact", "", "move what is in use together", decode_none, run_compact},
    {"contiguous", "SIZE [ADDRESS]", "take SIZE in one piece, check it, free it", decode_contiguous,
     run_contiguous},
    {"unplug", "SIZE", "empty SIZE and take it out of the zones", decode_amount, run_unplug},
    {"hotplug", "SIZE", "bring back SIZE of what was unplugged", decode_amount, run_hotplug},
    {"idle", "SECONDS", "do nothing", decode_idle, run_idle},
    {"free", "", "memory in total", decode_none, run_free},
    {"zoneinfo", "", "zones, their lists, the engine", decode_none, run_zoneinfo},
    {"report", "on|off|now", "free page reporting", decode_report, run_report},
    {"verify", "", "check every frame in use and all zones", decode_none, run_verify},
    {"shell", "", "a prompt on this console", decode_none, run_shell},
    {"help", "", "this", decode_none, run_help},
    {"contend", "ROUNDS", NULL, decode_contend, run_contend},
    {"stray", "behind|unmapped|other", NULL, decode_stray, run_stray},
    {"corrupt", "", NULL, decode_none, run_corrupt},
    {"panic", "", NULL, decode_none, run_panic},
    {"fault", "", NULL, decode_none, run_fault},
};
#define VERBS (sizeof verbs / sizeof verbs[0])

static enum status run_help(const struct command *c)
{
    (void)c;
    for (size_t i = 0; i < VERBS; i++)
        if (verbs[i].help)
            console_print("  %-11s %-29s %s\n", verbs[i].name, verbs[i].arguments, verbs[i].help);
    console_print("  %-41s %s\n", "exit", "at the prompt: power off");
    console_print("SIZE is in bytes, with K, M or G, or 1%% to 100%% of the memory\n");
    return STATUS_OK;
}

/* ---- parsing ---- */

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static bool separator(char c)
{
    return c == ';' || c == '\n' || c == 0;
}

/* Cut [s, end) into words. False: too long. */
static bool cut_words(struct command *c, const char *s, const char *end)
{
    c->count = 0;
    while (s < end) {
        size_t len = 0;

        if (blank(*s)) {
            s++;
            continue;
        }
        if (c->count == WORDS_LIMIT)
            return false;
        for (; s < end && !blank(*s); s++) {
            if (len + 1 == WORD_SIZE)
                return false;
            c->words[c->count][len++] = *s;
        }
        c->words[c->count++][len] = 0;
    }
    return true;
}

/* Read one command at *at; *at moves behind it. Returns false at the end. */
static bool next_command(const char **at, struct command *c, bool *ok)
{
    const char *s = *at;
    const char *end;
    size_t len;

    *c = (struct command){0};
    while (*s && (blank(*s) || separator(*s)))
        s++;
    if (!*s)
        return false;
    for (end = s; !separator(*end); end++)
        ;
    *at = end;
    while (end > s && blank(end[-1]))
        end--;
    len = (size_t)(end - s);
    *ok = len < sizeof c->line;
    if (!*ok)
        len = sizeof c->line - 1;
    memcpy(c->line, s, len);
    *ok = cut_words(c, s, end) && *ok;
    return true;
}

static const char size_help[] = "; SIZE is in bytes, with K, M or G, or 1% to 100%";

/* Find and decode; complains. */
static const struct verb *understand(struct command *c, bool ok)
{
    for (size_t i = 0; ok && i < VERBS; i++) {
        if (!text_equal(c->words[0], verbs[i].name))
            continue;
        if (verbs[i].decode(c))
            return &verbs[i];
        console_print("script: '%s': usage: %s %s%s\n", c->line, verbs[i].name, verbs[i].arguments,
                      text_starts(verbs[i].arguments, "SIZE") ? size_help : "");
        return NULL;
    }
    console_print(ok ? "script: '%s': no such command (try help)\n" : "script: '%s': too long\n",
                  c->line);
    return NULL;
}

static enum status run_commands(const char *script, bool really)
{
    enum status status = STATUS_OK;
    struct command c;
    bool ok;

    while (status == STATUS_OK && next_command(&script, &c, &ok)) {
        const struct verb *verb = understand(&c, ok);

        if (!verb)
            return STATUS_USAGE;
        if (!really)
            continue;
        telemetry_step(c.line);
        status = verb->run(&c);
        if (status == STATUS_OK && hold_errors())
            status = STATUS_VERIFY;
    }
    return status;
}

enum status script_run(const char *script)
{
    enum status status = run_commands(script, false);

    if (status != STATUS_OK)
        return status;
    return run_commands(script, true);
}

static bool is_exit(const char *line)
{
    struct command c;
    bool ok;

    return next_command(&line, &c, &ok) && c.count == 1 &&
           (text_equal(c.words[0], "exit") || text_equal(c.words[0], "quit"));
}

bool script_line(const char *line, enum status *status)
{
    enum status result;

    if (is_exit(line)) {
        *status = STATUS_OK;
        return true;
    }
    result = run_commands(line, true);
    *status = result;
    return result == STATUS_VERIFY; /* other failures are only mistyped */
}
