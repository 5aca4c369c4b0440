/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * PID 1 of the Linux guest: loads the balloon's modules, runs the script that
 * stands on the kernel's command line, and leaves through QEMU's exit device.
 *
 *   ebb.script="STEP; STEP..."     what to do; "listen": what a host says (system.c)
 *   ebb.thp=madvise|always|never   transparent huge pages (default madvise)
 *   ebb.module="PARAMETERS"        of ebb_reporting, if it is in the initramfs; "later": a step
 *                                  loads it
 */
#include "linux.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORDS           8u
#define TASKS_MAX       (CPUS_MAX * 4)
#define SETTLE_NS       (200 * NS_PER_MS)
#define SETTLE_TURNS    25u
#define SETTLED_PERCENT 90u                /* idle */
#define SPARE_KIB       (16u * 1024)       /* that a workload leaves to the kernel */
#define ATTACH_NS       (120 * NS_PER_SEC) /* a device shows itself within some, on a busy machine */
#define EBB_MODULE      "/modules/ebb_reporting.ko"
#define EBB_FILE        "/proc/ebb_reporting"
#define BALLOON         "/sys/bus/virtio/drivers/virtio_balloon"

unsigned cpus = 1;
bool thp_for_all;

/* ---- what the others use ---- */

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

void sleep_until(uint64_t ns)
{
    struct timespec at = {(time_t)(ns / NS_PER_SEC), (long)(ns % NS_PER_SEC)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
        ;
}

uint64_t meminfo_kib(const char *key)
{
    FILE *f = fopen("/proc/meminfo", "r");
    size_t len = strlen(key);
    uint64_t kib = 0;
    char line[128];

    while (f && fgets(line, sizeof(line), f)) {
        if (strncmp(line, key, len) == 0 && line[len] == ':') {
            kib = strtoull(line + len + 1, NULL, 10);
            break;
        }
    }
    if (f)
        fclose(f);
    return kib;
}

/* Refuse what cannot be: clearer than a process that the kernel kills. */
bool fits(const char *step, uint64_t pages)
{
    uint64_t want = (pages + pages / 512) * PAGE_KIB, have = meminfo_kib("MemAvailable");

    have = have > SPARE_KIB ? have - SPARE_KIB : 0;
    if (want <= have)
        return true;
    printf("%s: %lu MiB, with their page tables, are more than the %lu MiB available\n", step,
           want / 1024, have / 1024);
    return false;
}

void pin(unsigned cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

void *shared_alloc(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED)
        leave(STATUS_PANIC);
    return at;
}

/* ---- boot ---- */

static void mount_all(void)
{
    static const struct {
        const char *type, *at;
    } mounts[] = {{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}};

    for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
        mkdir(mounts[i].at, 0755);
        if (mount(mounts[i].type, mounts[i].at, mounts[i].type, 0, NULL) != 0)
            printf("cannot mount %s: %s\n", mounts[i].at, strerror(errno));
    }
}

/* Find "key=value" or key="a value" in the command line; NULL, or what is to be freed. */
static char *setting(const char *key)
{
    static char line[4096];
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, line, sizeof(line) - 1) : 0;
    size_t len = strlen(key);
    bool quoted = false;

    if (fd >= 0)
        close(fd);
    line[n > 0 ? n : 0] = 0;
    for (const char *at = line; *at; at++) {
        if (!quoted && (at == line || at[-1] == ' ') && strncmp(at, key, len) == 0 &&
            at[len] == '=') {
            at += len + 1;
            return *at == '"' ? strndup(at + 1, strcspn(at + 1, "\"\n"))
                              : strndup(at, strcspn(at, " \n"));
        }
        quoted ^= *at == '"';
    }
    return NULL;
}

/* False: there is no such file, or the kernel does not take it, which is said. */
static bool load_module(const char *path, const char *parameters)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool loaded = fd >= 0 && syscall(SYS_finit_module, fd, parameters, 0) == 0;

    if (fd >= 0 && !loaded)
        printf("cannot load %s: %s\n", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return loaded;
}

/* /modules/0.ko, 1.ko, ... in the order in which they need each other; then ebb's. */
static void load_modules(void)
{
    char *parameters = setting("ebb.module");
    char path[32];

    for (unsigned i = 0;; i++) {
        snprintf(path, sizeof(path), "/modules/%u.ko", i);
        if (access(path, R_OK) != 0)
            break;
        load_module(path, "");
    }
    if (access(EBB_MODULE, R_OK) == 0 && (!parameters || strcmp(parameters, "later") != 0) &&
        !load_module(EBB_MODULE, parameters ? parameters : ""))
        leave(STATUS_USAGE); /* a run without it is not what was asked for */
    free(parameters);
}

void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        printf("cannot write %s to %s: %s\n", text, path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

static void print_file(const char *path)
{
    char line[256];
    FILE *f = fopen(path, "r");

    if (!f)
        printf("cannot read %s: %s\n", path, strerror(errno));
    while (f && fgets(line, sizeof(line), f))
        fputs(line, stdout);
    if (f)
        fclose(f);
}

/* Did host and kernel agree on free page reporting (feature 5)? */
static bool is_reporting(void)
{
    static const char features[] = BALLOON "/virtio0/features";
    char bits[8] = "";
    int fd = open(features, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return false;
    if (read(fd, bits, sizeof(bits)) < 0)
        bits[5] = 0;
    close(fd);
    return bits[5] == '1';
}

static void set_thp(void)
{
    char *mode = setting("ebb.thp");

    thp_for_all = mode && strcmp(mode, "always") == 0;
    write_file("/sys/kernel/mm/transparent_hugepage/enabled", mode ? mode : "madvise");
    free(mode);
}

/* What the kernel still does in the background after boot would be measured as ours. */
static void settle(void)
{
    for (unsigned i = 0; i < SETTLE_TURNS; i++) {
        uint64_t begin = now_ns(), idle = cpu_idle_ns();

        sleep_until(begin + SETTLE_NS);
        if ((cpu_idle_ns() - idle) * 100 >= (now_ns() - begin) * cpus * SETTLED_PERCENT)
            return;
    }
}

/* ---- steps ---- */

struct command {
    char line[128];
    char *words[WORDS];
    char text[128]; /* the words are in here */
    unsigned count;
    uint64_t pages, number, more;
    struct faults faults;
};

struct verb {
    const char *name, *arguments;
    bool (*decode)(struct command *c);
    enum status (*run)(const struct command *c);
};

static bool decode_number(const char *s, uint64_t low, uint64_t high, uint64_t *value)
{
    char *end;

    errno = 0;
    *value = isdigit((unsigned char)*s) ? strtoull(s, &end, 10) : 0;
    return isdigit((unsigned char)*s) && !errno && !*end && *value >= low && *value <= high;
}

/* Bytes, with K, M or G, or a share of all memory. */
static bool decode_size(const char *s, uint64_t *pages)
{
    char *end, unit;
    uint64_t n, shift;

    errno = 0;
    if (!isdigit((unsigned char)*s))
        return false;
    n = strtoull(s, &end, 10);
    unit = (char)toupper((unsigned char)*end);
    shift = unit == 'K' ? 10 : unit == 'M' ? 20 : unit == 'G' ? 30 : 0;
    if (errno || (*end && end[1]) || n > UINT64_MAX >> 31)
        return false;
    if (unit == '%')
        *pages = n <= 100 ? meminfo_kib("MemTotal") / PAGE_KIB * n / 100 : 0;
    else if (!*end || shift)
        *pages = ((n << shift) + PAGE - 1) / PAGE;
    else
        return false;
    return *pages > 0;
}

/* Seconds, perhaps with a fraction, in milliseconds. */
static bool decode_time(const char *s, uint64_t *ms)
{
    char *end = NULL;
    double seconds = isdigit((unsigned char)*s) ? strtod(s, &end) : -1;

    if (seconds < 0 || seconds > 1e6 || *end)
        return false;
    *ms = (uint64_t)(seconds * 1000);
    return true;
}

static bool decode_none(struct command *c)
{
    return c->count == 1;
}

static bool decode_memhog(struct command *c)
{
    c->number = 1;
    if (c->count == 3 && c->words[2][0] == 'x' &&
        !decode_number(c->words[2] + 1, 1, 1000000, &c->number))
        return false;
    return (c->count == 2 || (c->count == 3 && c->words[2][0] == 'x')) &&
           decode_size(c->words[1], &c->pages);
}

static bool decode_cycle(struct command *c)
{
    return c->count == 4 && decode_size(c->words[1], &c->pages) &&
           decode_number(c->words[2], 0, 1000000, &c->number) && decode_time(c->words[3], &c->more);
}

static bool decode_fragment(struct command *c)
{
    return c->count == 3 && decode_size(c->words[1], &c->pages) &&
           decode_number(c->words[2], 2, 1u << 30, &c->number);
}

static bool decode_files(struct command *c)
{
    return c->count == 2 && decode_size(c->words[1], &c->pages);
}

static bool decode_idle(struct command *c)
{
    c->more = c->count == 3 && strcmp(c->words[1], "until") == 0;
    return c->count == 2 + c->more && decode_time(c->words[c->count - 1], &c->number);
}

static bool decode_tasks(struct command *c, unsigned at)
{
    uint64_t tasks;

    if (!decode_number(c->words[at], 1, TASKS_MAX, &tasks))
        return false;
    c->faults.tasks = (unsigned)tasks;
    return decode_time(c->words[at + 1], &c->faults.ms) && c->faults.ms > 0;
}

static bool decode_page_fault1(struct command *c)
{
    c->faults.thp = c->count == 5 && strcmp(c->words[4], "thp") == 0;
    if (c->count != 4 && !c->faults.thp)
        return false;
    c->faults.threads = strcmp(c->words[1], "threads") == 0;
    return (c->faults.threads || strcmp(c->words[1], "procs") == 0) && decode_tasks(c, 2);
}

static bool decode_page_fault2(struct command *c)
{
    c->faults.file = true;
    return c->count == 3 && decode_tasks(c, 1);
}

static bool decode_report(struct command *c)
{
    return c->count == 2;
}

static enum status run_memhog(const struct command *c)
{
    return team_memhog(c->pages, c->number);
}

static enum status run_cycle(const struct command *c)
{
    return team_cycle(c->pages, c->number, c->more);
}

static enum status run_fragment(const struct command *c)
{
    return team_fragment(c->pages, c->number);
}

static enum status run_release(const struct command *c)
{
    (void)c;
    return team_release();
}

static enum status run_tmpfs(const struct command *c)
{
    return files_tmpfs(c->pages);
}

static enum status run_cache(const struct command *c)
{
    return files_cache(c->pages);
}

static enum status run_idle(const struct command *c)
{
    uint64_t up = now_ns() / NS_PER_MS;

    if (!c->more)
        return team_idle(c->number);
    return team_idle(c->number > up ? c->number - up : 0);
}

static enum status run_faults(const struct command *c)
{
    return faults_run(&c->faults);
}

static enum status run_report(const struct command *c)
{
    if (strcmp(c->words[1], "now") == 0 && access(EBB_FILE, W_OK) == 0) {
        write_file(EBB_FILE, "now");
        return STATUS_OK;
    }
    printf("report %s: Linux reports for as long as its balloon driver runs, and has no switch "
           "for it: use --reporting\n",
           c->words[1]);
    return STATUS_USAGE;
}

/* All that is in use. */
static enum status check_all(void)
{
    enum status status = team_verify();

    return status == STATUS_OK ? files_check() : status;
}

static enum status run_verify(const struct command *c)
{
    (void)c;
    return check_all();
}

static enum status run_corrupt(const struct command *c)
{
    (void)c;
    files_corrupt();
    return team_corrupt();
}

static bool decode_module(struct command *c)
{
    return c->count == 2 || (c->count == 3 && decode_number(c->words[2], 1, 1000000, &c->number));
}

static bool unload_module(void)
{
    if (syscall(SYS_delete_module, "ebb_reporting", 0) == 0)
        return true;
    printf("cannot unload ebb_reporting: %s\n", strerror(errno));
    return false;
}

static pid_t reloader;

/* A process of its own that unloads and loads it N times, whatever the next steps do. */
static enum status start_reloading(uint64_t times)
{
    reloader = fork();
    if (reloader != 0)
        return reloader > 0 ? STATUS_OK : STATUS_PANIC;
    for (uint64_t i = 0; i < times; i++) {
        if (!unload_module() || !load_module(EBB_MODULE, ""))
            _exit(1);
        sleep_until(now_ns() + (i % 8) * 50 * NS_PER_MS);
    }
    _exit(0);
}

/* Has the module a device to report to? */
static bool is_attached(void)
{
    char state[32] = "";
    FILE *f = fopen(EBB_FILE, "r");

    if (!f)
        return false;
    if (!fgets(state, sizeof(state), f))
        state[0] = 0;
    fclose(f);
    return strncmp(state, "state ", 6) == 0 && !strstr(state, "no-device");
}

/* Until a reloading has ended, if there is one, and the module reports. */
static enum status wait_for_module(void)
{
    int status = 0;

    if (reloader > 0 && (waitpid(reloader, &status, 0) != reloader || status != 0)) {
        printf("module: reloading failed\n");
        return STATUS_VERIFY;
    }
    reloader = 0;
    for (uint64_t end = now_ns() + ATTACH_NS; !is_attached();) {
        if (now_ns() > end) {
            printf("module wait: it has no device to report to\n");
            return STATUS_USAGE;
        }
        sleep_until(now_ns() + 50 * NS_PER_MS);
    }
    return STATUS_OK;
}

/* Takes the balloon from its driver and gives it back. */
static enum status rebind(uint64_t times)
{
    for (uint64_t i = 0; i < times; i++) {
        write_file(BALLOON "/unbind", "virtio0");
        write_file(BALLOON "/bind", "virtio0");
        sleep_until(now_ns() + (i % 8) * 50 * NS_PER_MS);
    }
    return STATUS_OK;
}

static enum status run_module(const struct command *c)
{
    const char *what = c->words[1];

    if (strcmp(what, "load") == 0)
        return load_module(EBB_MODULE, "") ? STATUS_OK : STATUS_USAGE;
    if (strcmp(what, "unload") == 0)
        return unload_module() ? STATUS_OK : STATUS_USAGE;
    if (strcmp(what, "show") == 0) {
        print_file(EBB_FILE);
        return STATUS_OK;
    }
    if (strcmp(what, "again") == 0)
        return start_reloading(c->number);
    if (strcmp(what, "rebind") == 0)
        return rebind(c->number);
    return strcmp(what, "wait") == 0 ? wait_for_module() : STATUS_USAGE;
}

static bool decode_write(struct command *c)
{
    return c->count == 3;
}

static enum status run_write(const struct command *c)
{
    write_file(c->words[1], c->words[2]);
    return STATUS_OK;
}

static bool decode_read(struct command *c)
{
    return c->count == 2;
}

static enum status run_read(const struct command *c)
{
    print_file(c->words[1]);
    return STATUS_OK;
}

static bool decode_squeeze(struct command *c)
{
    c->number = 0;
    return (c->count == 2 || (c->count == 3 && decode_size(c->words[2], &c->number))) &&
           decode_size(c->words[1], &c->pages);
}

static enum status run_squeeze(const struct command *c)
{
    return system_squeeze(c->pages, c->number);
}

static bool decode_load(struct command *c)
{
    return c->count == 2 &&
           (strcmp(c->words[1], "off") == 0 || decode_size(c->words[1], &c->pages));
}

static enum status run_load(const struct command *c)
{
    return system_load(c->pages);
}

static enum status run_kexec(const struct command *c)
{
    (void)c;
    return system_kexec();
}

static enum status run_script(const char *script);

static enum status run_listen(const struct command *c)
{
    (void)c;
    return system_listen(run_script);
}

static bool decode_tell(struct command *c)
{
    return c->count > 2;
}

/* Of a file of names and numbers, those that are asked for, to the host. */
static enum status run_tell(const struct command *c)
{
    char line[256], told[256] = "";
    FILE *f = fopen(c->words[1], "r");
    unsigned long value;

    while (f && fgets(line, sizeof(line), f)) {
        for (unsigned i = 2; i < c->count; i++) {
            size_t at = strlen(told), len = strlen(c->words[i]);

            if (strncmp(line, c->words[i], len) == 0 && sscanf(line + len, " %lu", &value) == 1)
                snprintf(told + at, sizeof(told) - at, " %s=%lu", c->words[i], value);
        }
    }
    if (f)
        fclose(f);
    telemetry_line("result ns=%lu step=tell%s", now_ns(), told);
    return STATUS_OK;
}

static bool decode_compile(struct command *c)
{
    return c->count == 2 && decode_number(c->words[1], 1, 10000, &c->number);
}

static enum status run_compile(const struct command *c)
{
    return compile_run((unsigned)c->number);
}

static enum status run_free(const struct command *c)
{
    (void)c;
    print_file("/proc/meminfo");
    return STATUS_OK;
}

static enum status run_zoneinfo(const struct command *c)
{
    (void)c;
    print_file("/proc/pagetypeinfo");
    return STATUS_OK;
}

static const struct verb verbs[] = {
    {"memhog", "SIZE [xN]", decode_memhog, run_memhog},
    {"cycle", "SIZE PAUSE_MS SECONDS", decode_cycle, run_cycle},
    {"fragment", "SIZE K", decode_fragment, run_fragment},
    {"release", "", decode_none, run_release},
    {"tmpfs", "SIZE", decode_files, run_tmpfs},
    {"cache", "SIZE", decode_files, run_cache},
    {"compile", "JOBS", decode_compile, run_compile},
    {"idle", "[until] SECONDS", decode_idle, run_idle},
    {"page_fault1", "procs|threads N SECONDS [thp]", decode_page_fault1, run_faults},
    {"page_fault2", "N SECONDS", decode_page_fault2, run_faults},
    {"report", "on|off|now", decode_report, run_report},
    {"module", "load|unload|show|again N|wait|rebind N", decode_module,
     run_module}, /* ebb_reporting */
    {"write", "FILE TEXT", decode_write, run_write},
    {"tell", "FILE NAME...", decode_tell, run_tell},
    {"read", "FILE", decode_read, run_read},
    {"squeeze", "SIZE [LIMIT]", decode_squeeze, run_squeeze}, /* these four: system.c */
    {"load", "SIZE|off", decode_load, run_load},
    {"kexec", "", decode_none, run_kexec},
    {"listen", "", decode_none, run_listen},
    {"verify", "", decode_none, run_verify},
    {"corrupt", "", decode_none, run_corrupt}, /* for tests: the next check finds a page lost */
    {"free", "", decode_none, run_free},
    {"zoneinfo", "", decode_none, run_zoneinfo},
};

/* ---- the script ---- */

/* The next command of the script, cut into words; false: there is none. */
static bool next_command(const char **at, struct command *c, bool *ok)
{
    const char *s = *at + strspn(*at, " \t;\n");
    size_t len = strcspn(s, ";\n");
    char *save;

    *c = (struct command){0};
    if (!*s)
        return false;
    *at = s + len;
    while (len > 0 && isspace((unsigned char)s[len - 1]))
        len--;
    *ok = len < sizeof(c->line);
    snprintf(c->line, sizeof(c->line), "%.*s", (int)len, s);
    memcpy(c->text, c->line, sizeof(c->text));
    for (char *word = strtok_r(c->text, " \t", &save); word; word = strtok_r(NULL, " \t", &save)) {
        if (c->count == WORDS)
            *ok = false;
        else
            c->words[c->count++] = word;
    }
    return true;
}

static const struct verb *understand(struct command *c, bool ok)
{
    for (size_t i = 0; ok && i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (strcmp(c->words[0], verbs[i].name) != 0)
            continue;
        if (verbs[i].decode(c))
            return &verbs[i];
        printf("script: '%s': usage: %s %s\n", c->line, verbs[i].name, verbs[i].arguments);
        return NULL;
    }
    printf(ok ? "script: '%s': the Linux guest has no such command\n" : "script: '%s': too long\n",
           c->line);
    return NULL;
}

static enum status go_through(const char *script, bool really)
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
        telemetry_line("step ns=%lu cmd=%s", now_ns(), c.line);
        status = verb->run(&c);
        if (errors_total())
            status = STATUS_VERIFY;
    }
    return status;
}

/* All of it is understood before any of it is done. */
static enum status run_script(const char *script)
{
    enum status status = go_through(script, false);

    return status == STATUS_OK ? go_through(script, true) : status;
}

int main(void)
{
    struct utsname name;
    enum status status;
    char *script;

    setvbuf(stdout, NULL, _IOLBF, 0);
    mount_all();
    telemetry_init();
    cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    cpus = cpus < 1 ? 1 : cpus > CPUS_MAX ? CPUS_MAX : cpus;
    load_modules();
    set_thp();
    uname(&name);
    printf("Linux %s, %u CPU%s, %lu MiB, up after %lu ms\n", name.release, cpus,
           cpus == 1 ? "" : "s", meminfo_kib("MemTotal") / 1024, now_ns() / NS_PER_MS);
    script = setting("ebb.script");
    status = script ? go_through(script, false) : STATUS_OK;
    telemetry_line("boot ns=%lu cpus=%u managed_kib=%lu zones=1 reporting=%u kernel=%s", now_ns(),
                   cpus, meminfo_kib("MemTotal"), is_reporting(), name.release);
    if (status != STATUS_OK)
        leave(status);
    team_start();
    settle();
    telemetry_line("base ns=%lu used_kib=%lu", now_ns(), telemetry_used_kib());
    telemetry_start();
    if (script)
        status = go_through(script, true);
    if (status == STATUS_OK)
        status = check_all();
    leave(status);
}
