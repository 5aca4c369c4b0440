/* SPDX-License-Identifier: BSD-2-Clause */
#include "vm.h"
#include "../common/log.h"
#include "../common/sockets.h"
#include "launch.h"
#include "link.h"

#include <ebb/types.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONTROL_SUFFIX ".vm"
#define STATE_SUFFIX   CONTROL_SUFFIX ".state"
/* Longer than any state. */
#define STATE_LIMIT 16384u
/* A guest that takes memory wakes nobody: so long is what is said of it good. */
#define STATE_NS ((uint64_t)1000000000)
/* How soon to look again for a back end that starts. */
#define NAP_MS      5u
#define STARTING_NS ((uint64_t)60000000000)
/* How long one that hung up may take to end. */
#define ENDING_MS 2000u
/* Between two starts: doubled by each back end that did not live for so long. */
#define BACKOFF_FIRST_MS 200u
#define BACKOFF_LAST_MS  30000u

/* What is asked while the back end starts. */
struct early {
    struct json_object *request;
    bool slow;
    void (*answer)(void *ctx, struct json_object *answer);
    void *ctx;
    STAILQ_ENTRY(early) next;
};

struct vm {
    struct ebbd *ebbd;
    char *name, *path;
    char *listen_at; /* the same from the root; a removable one's from the current directory */
    char *control;   /* its back end's socket */
    bool removable, inhibited;
    uint64_t rate;
    int listening; /* -1: the back end's alone */
    enum vm_state {
        VM_STARTING, /* it runs, and is not connected yet */
        VM_UP,
        VM_ENDING, /* it hung up */
        VM_DOWN,   /* there is none, until the timer starts one */
    } state;
    pid_t pid;
    bool child, supervised; /* supervised: it knows that somebody is there */
    int pidfd;              /* of one that was adopted; -1: none */
    struct link *link;
    struct event *timer, *exited; /* exited: of pidfd */
    unsigned backoff_ms;
    uint64_t since_ns; /* of this back end */
    unsigned replaced; /* back ends, so far */
    struct json_object *seen;
    int state_fd; /* the file with its back end's state; -1: none */
    char *text;   /* what was in it last */
    uint64_t seen_ns;
    bool is_behind; /* its back end knows more */
    bool lost;      /* it was connected when its back end ended, and is not again */
    STAILQ_HEAD(, early) early;
};

static void begin(struct vm *vm);

/* It is up, or has ended before. */
static void ask_early(struct vm *vm)
{
    while (!STAILQ_EMPTY(&vm->early)) {
        struct early *early = STAILQ_FIRST(&vm->early);

        STAILQ_REMOVE_HEAD(&vm->early, next);
        if (vm->state == VM_UP)
            vm_ask(vm, early->request, early->slow, early->answer, early->ctx);
        else
            early->answer(early->ctx, NULL);
        json_object_put(early->request);
        free(early);
    }
}

static void time_out(struct vm *vm, unsigned ms)
{
    const struct timeval in = {(time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000)};

    event_add(vm->timer, &in);
}

/* ---- a back end goes ---- */

static void close_state(struct vm *vm)
{
    if (vm->state_fd >= 0)
        close(vm->state_fd);
    vm->state_fd = -1;
}

static void forget_back_end(struct vm *vm)
{
    struct link *link = vm->link;

    vm->link = NULL;
    vm->pid = 0;
    vm->supervised = false;
    vm->state = VM_DOWN;
    event_del(vm->timer);
    if (vm->exited)
        event_free(vm->exited);
    vm->exited = NULL;
    if (vm->pidfd >= 0)
        close(vm->pidfd);
    vm->pidfd = -1;
    close_state(vm);
    link_free(link);
    ask_early(vm);
}

/* It is gone: another one is started, sooner or later. */
static void replace(struct vm *vm, const char *why)
{
    const uint64_t lived_ms = (log_now_ns() - vm->since_ns) / 1000000;

    (void)vm_look(vm);
    vm->lost = vm->lost || json_object_get_boolean(json_object_object_get(vm->seen, "connected"));
    log_line("%s: its back end %s; the next one is started%s", vm->name, why,
             vm->lost ? "; the guest has no balloon until its VMM connects again, or starts it anew"
                      : "");
    forget_back_end(vm);
    if (lived_ms > BACKOFF_LAST_MS || !vm->backoff_ms)
        vm->backoff_ms = BACKOFF_FIRST_MS;
    else
        vm->backoff_ms *= 2;
    if (vm->backoff_ms > BACKOFF_LAST_MS)
        vm->backoff_ms = BACKOFF_LAST_MS;
    vm->replaced++;
    time_out(vm, vm->backoff_ms);
}

static void signal_back_end(const struct vm *vm, int signal)
{
    if (vm->child && vm->pid > 0)
        kill(vm->pid, signal);
    else if (vm->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, vm->pidfd, signal, NULL, 0);
}

static void kill_back_end(struct vm *vm, const char *why)
{
    signal_back_end(vm, SIGKILL);
    replace(vm, why);
}

/* Of one that was adopted. */
static void on_exited(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    replace(ctx, "ended");
}

/* The end of a back end that is no child of ours. Without pidfd_open() (before Linux 5.3) it is
 * only known by its hanging up. */
static void watch_exit(struct vm *vm)
{
    vm->pidfd = (int)syscall(SYS_pidfd_open, vm->pid, 0);
    if (vm->pidfd < 0)
        return;
    vm->exited = event_new(vm->ebbd->base, vm->pidfd, EV_READ, on_exited, vm);
    if (vm->exited)
        event_add(vm->exited, NULL);
}

/* One whose front-end leaves may have to free the guest's memory. */
static unsigned patience_ms(const struct vm *vm)
{
    struct json_object *memory = json_object_object_get(vm->seen, "memory");
    const int64_t gib =
        json_object_get_int64(json_object_object_get(memory, "assigned_bytes")) >> 30;

    return VM_PATIENCE_S * 1000 + 500 * (unsigned)(gib < 0 ? 0 : gib > 600 ? 600 : gib);
}

static void on_moved(void *ctx, unsigned waiting, bool answered)
{
    struct vm *vm = ctx;

    if (vm->state != VM_UP)
        return;
    if (!waiting)
        event_del(vm->timer);
    else if (answered || waiting == 1) /* the oldest has all of the time, and no more */
        time_out(vm, patience_ms(vm));
}

static void on_gone(void *ctx)
{
    struct vm *vm = ctx;
    struct link *link = vm->link;

    vm->link = NULL;
    vm->state = VM_ENDING;
    time_out(vm, ENDING_MS);
    link_free(link);
}

static const struct link_ops link_ops = {.moved = on_moved, .gone = on_gone};

void vm_child_ended(struct ebbd *ebbd, int pid, int wait_status)
{
    char why[64];

    for (unsigned i = 0; i < ebbd->n_vms; i++) {
        struct vm *vm = ebbd->vms[i];

        if (vm->pid != pid || !vm->child)
            continue;
        if (WIFSIGNALED(wait_status))
            snprintf(why, sizeof(why), "was ended by signal %d", WTERMSIG(wait_status));
        else
            snprintf(why, sizeof(why), "ended with exit code %d", WEXITSTATUS(wait_status));
        if (vm->state == VM_STARTING && !ebbd->told_ready)
            ebbd->failed = WIFEXITED(wait_status) && WEXITSTATUS(wait_status)
                               ? WEXITSTATUS(wait_status)
                               : EXIT_RUN_HOST;
        replace(vm, why);
        ebbd_look(ebbd);
        return;
    }
}

/* ---- its state, in a file ---- */

/* Beside the control socket; to be freed. NULL: no memory. */
static char *state_path(const struct vm *vm)
{
    char *path = NULL;

    return asprintf(&path, "%s/%s" STATE_SUFFIX, vm->ebbd->state_dir, vm->name) < 0 ? NULL : path;
}

/* Unless it is open. A back end makes the file anew, maybe a moment after it can be connected to.
 */
static bool open_state(struct vm *vm)
{
    struct stat file;
    char *path;

    if (vm->state_fd >= 0 && fstat(vm->state_fd, &file) == 0 && file.st_nlink > 0)
        return true;
    close_state(vm);
    path = state_path(vm);
    if (path)
        vm->state_fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    free(path);
    if (vm->state_fd >= 0 && (fstat(vm->state_fd, &file) != 0 || !S_ISREG(file.st_mode)))
        close_state(vm);
    return vm->state_fd >= 0;
}

static uint64_t count_in(struct json_object *object, const char *member)
{
    return json_object_get_uint64(json_object_object_get(object, member));
}

/* As it is in the file; NULL: it is none, or was being written. To be put. */
static struct json_object *parse_state(const char *text)
{
    struct json_object *state = json_tokener_parse(text);

    if (json_object_is_type(state, json_type_object) && vm_state_in(state) &&
        count_in(state, "begin") == count_in(state, "end"))
        return state;
    json_object_put(state);
    return NULL;
}

/* It copies the file, so nothing changes while it is looked at. What did not change is not parsed
 * again. NULL: there is nothing new. To be put. */
static struct json_object *read_state(struct vm *vm)
{
    char text[STATE_LIMIT];
    const ssize_t n = open_state(vm) ? pread(vm->state_fd, text, sizeof(text) - 1, 0) : -1;
    struct json_object *state;

    if (n <= 0)
        return NULL;
    text[n] = '\0';
    vm->is_behind = text[0] == '!';
    text[0] = '{';
    if (vm->text && strcmp(vm->text, text) == 0)
        return NULL;
    state = parse_state(text);
    vm->is_behind |= !state;
    if (!state)
        return NULL;
    free(vm->text);
    vm->text = strdup(text);
    return state;
}

bool vm_look(struct vm *vm)
{
    struct json_object *state = read_state(vm);

    if (state) {
        vm_set_seen(vm, vm_state_in(state));
        vm->seen_ns = count_in(state, "now_ns");
    }
    json_object_put(state);
    if (!vm->seen || vm->state != VM_UP || vm->state_fd < 0 || vm->is_behind)
        return false;
    return !json_object_get_boolean(json_object_object_get(vm->seen, "connected")) ||
           vm->seen_ns + STATE_NS > log_now_ns();
}

static void remove_files(const struct vm *vm)
{
    char *path = state_path(vm);

    unlink(vm->control);
    if (path)
        unlink(path);
    free(path);
}

/* ---- one comes ---- */

static void ask_short(struct vm *vm, const char *text,
                      void (*answer)(void *ctx, struct json_object *answer))
{
    struct json_object *request = json_tokener_parse(text);

    link_ask(vm->link, request, answer, vm);
    json_object_put(request);
}

static void on_ignored(void *ctx, struct json_object *answer)
{
    (void)ctx;
    (void)answer;
}

static void on_version(void *ctx, struct json_object *answer)
{
    const char *version =
        json_object_get_string(json_object_object_get(answer, "version")); /* NULL: none */
    struct vm *vm = ctx;

    if (!answer || (version && strcmp(version, EBB_VERSION) == 0))
        return;
    log_line("%s: its back end is of version %s and is replaced when its front-end leaves",
             vm->name, version ? version : "(unknown)");
    ask_short(vm, "{\"command\":\"end\",\"when\":\"idle\"}", on_ignored);
}

static void on_supervised(void *ctx, struct json_object *answer)
{
    struct vm *vm = ctx;

    if (answer)
        vm->supervised = true;
}

/* From the start there is something to show; and what holds for one that was adopted holds for its
 * replacement. */
static void on_first_status(void *ctx, struct json_object *answer)
{
    struct json_object *state = vm_state_in(answer), *rate;
    struct vm *vm = ctx;

    if (!state)
        return;
    vm_set_seen(vm, state);
    ebbd_look(vm->ebbd);
    if (vm->child)
        return;
    rate = json_object_object_get(state, "rate");
    /* An operator may have inhibited it since it was asked. */
    vm->inhibited |= json_object_get_boolean(json_object_object_get(state, "inhibited"));
    if (json_object_is_type(rate, json_type_int) && json_object_get_int64(rate) >= 0 &&
        json_object_get_int64(rate) <= (int64_t)1 << 40)
        vm->rate = (uint64_t)json_object_get_int64(rate);
}

/* False: errno is set. */
static bool connect_to(struct vm *vm)
{
    vm->link = link_new(vm->ebbd->base, vm->control, &link_ops, vm);
    if (!vm->link)
        return false;
    vm->pid = link_pid(vm->link);
    vm->state = VM_UP;
    event_del(vm->timer);
    ask_short(vm, "{\"command\":\"supervise\"}", on_supervised);
    ask_short(vm, "{\"command\":\"status\"}", on_first_status);
    ask_early(vm);
    return true;
}

static void start_back_end(struct vm *vm)
{
    if (vm->listening < 0)
        vm->listening = sockets_listen_unix(vm->listen_at, NULL);
    if (vm->listening < 0)
        sockets_explain("socket", vm->listen_at);
    vm->pid = vm->listening < 0 ? -1
                                : launch_back_end(vm->ebbd, vm->name, vm->control, vm->listening,
                                                  vm->rate, vm->inhibited);
    vm->child = true;
    vm->since_ns = log_now_ns();
    vm->state = VM_STARTING;
    if (vm->pid < 0) {
        if (!vm->ebbd->told_ready)
            vm->ebbd->failed = EXIT_RUN_HOST;
        replace(vm, strerror(errno));
        ebbd_look(vm->ebbd);
        return;
    }
    time_out(vm, NAP_MS);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct vm *vm = ctx;

    (void)fd;
    (void)what;
    switch (vm->state) {
    case VM_STARTING:
        if (connect_to(vm))
            break;
        if (log_now_ns() - vm->since_ns > STARTING_NS)
            kill_back_end(vm, "did not start, and was killed");
        else
            time_out(vm, NAP_MS);
        break;
    case VM_UP:
        kill_back_end(vm, "does not answer, and was killed");
        break;
    case VM_ENDING:
        kill_back_end(vm, "hung up and did not end, and was killed");
        break;
    case VM_DOWN:
        begin(vm);
        break;
    }
}

static void begin(struct vm *vm)
{
    if (connect_to(vm)) { /* somebody started it meanwhile */
        vm->child = false;
        vm->since_ns = log_now_ns();
        watch_exit(vm);
        return;
    }
    start_back_end(vm);
}

/* ---- VMs ---- */

static void free_parts(struct vm *vm)
{
    if (vm->timer)
        event_free(vm->timer);
    json_object_put(vm->seen);
    free(vm->text);
    free(vm->name);
    free(vm->path);
    free(vm->listen_at);
    free(vm->control);
    free(vm);
}

/* A path from the root. NULL: no memory. */
static char *absolute(const char *path)
{
    char *here = *path == '/' ? strdup("") : getcwd(NULL, 0), *made = NULL;

    if (here && asprintf(&made, "%s%s%s", here, *here ? "/" : "", path) < 0)
        made = NULL;
    free(here);
    return made;
}

static struct vm *new_vm(struct ebbd *ebbd, const char *name, const char *path, bool removable)
{
    struct vm **more = reallocarray(ebbd->vms, ebbd->n_vms + 1, sizeof(struct vm *));
    struct vm *vm = more ? calloc(1, sizeof(*vm)) : NULL;

    if (more)
        ebbd->vms = more;
    if (!vm)
        return NULL;
    *vm = (struct vm){.ebbd = ebbd,
                      .name = strdup(name),
                      .path = strdup(path),
                      .listen_at = removable ? strdup(strrchr(path, '/') + 1) : absolute(path),
                      .removable = removable,
                      .inhibited = ebbd->inhibit,
                      .rate = ebbd->rate,
                      .listening = -1,
                      .pidfd = -1,
                      .state_fd = -1,
                      .state = VM_DOWN,
                      .since_ns = log_now_ns()};
    STAILQ_INIT(&vm->early);
    vm->timer = evtimer_new(ebbd->base, on_timer, vm);
    if (asprintf(&vm->control, "%s/%s" CONTROL_SUFFIX, ebbd->state_dir, name) < 0)
        vm->control = NULL;
    if (vm->control && strlen(vm->control) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
        log_line(
            "--state: %s: the path of a socket has at most 107 bytes; give a shorter directory",
            vm->control);
        free_parts(vm);
        errno = ENAMETOOLONG;
        return NULL;
    }
    if (vm->name && vm->path && vm->listen_at && vm->timer && vm->control)
        return vm;
    free_parts(vm);
    errno = ENOMEM;
    return NULL;
}

/* Does it serve the socket that is at its path now, as far as it says? */
static bool serves_that(struct vm *vm)
{
    struct json_object *state = read_state(vm);
    const char *said =
        json_object_get_string(json_object_object_get(state, "socket_file")); /* NULL: nothing */
    struct stat file;
    char is[48] = "";
    bool same;

    if (stat(vm->listen_at, &file) == 0)
        snprintf(is, sizeof(is), "%ju:%ju", (uintmax_t)file.st_dev, (uintmax_t)file.st_ino);
    same = !said || !*said || strcmp(said, is) == 0;
    free(vm->text);
    vm->text = NULL;
    json_object_put(state);
    return same;
}

/* Under a name that no VM has, it is told to end with its guest, as others of no VM are. */
static void set_aside(struct vm *vm)
{
    char *aside = NULL;

    log_line("%s: its back end, process %d, serves another socket than %s; this one gets its own",
             vm->name, (int)vm->pid, vm->path);
    if (asprintf(&aside, "%s/.%d" CONTROL_SUFFIX, vm->ebbd->state_dir, (int)vm->pid) >= 0 &&
        rename(vm->control, aside) != 0)
        log_line("%s: %s", aside, strerror(errno));
    free(aside);
    remove_files(vm);
}

bool vm_adopt(struct ebbd *ebbd, const char *name, int listening, const char *path, bool removable)
{
    struct vm *vm = vm_find(ebbd, name) ? NULL : new_vm(ebbd, name, path, removable);

    if (!vm)
        return false;
    if (!connect_to(vm)) {
        free_parts(vm);
        return false;
    }
    if (!serves_that(vm)) {
        set_aside(vm);
        forget_back_end(vm);
        free_parts(vm);
        return false;
    }
    watch_exit(vm);
    vm->listening = listening;
    if (listening < 0)
        sockets_remember(vm->listen_at);
    ebbd->vms[ebbd->n_vms++] = vm;
    log_line("%s: adopted its back end, process %d", name, (int)vm->pid);
    ask_short(vm, "{\"command\":\"version\"}", on_version);
    return true;
}

bool vm_new(struct ebbd *ebbd, const char *name, int listening, const char *path, bool removable)
{
    struct vm *vm = vm_find(ebbd, name) ? NULL : new_vm(ebbd, name, path, removable);

    if (!vm) {
        const int error = vm_find(ebbd, name) ? EEXIST : errno;

        close(listening);
        errno = error;
        return false;
    }
    vm->listening = listening;
    ebbd->vms[ebbd->n_vms++] = vm;
    time_out(vm, 0); /* from the loop: as the user that we become */
    return true;
}

void vm_free(struct vm *vm, enum vm_end how)
{
    struct ebbd *ebbd = vm->ebbd;

    for (unsigned i = 0; i < ebbd->n_vms; i++) {
        if (ebbd->vms[i] != vm)
            continue;
        memmove(&ebbd->vms[i], &ebbd->vms[i + 1], (ebbd->n_vms - i - 1) * sizeof(struct vm *));
        ebbd->n_vms--;
        break;
    }
    /* First, so that the back end, if it is still there, is the one that waits for what a front-end
     * left in its queue. When ebbd ends this is left to its exit, which waits for nothing. */
    if (vm->listening >= 0 && ebbd->told_ready && !event_base_got_exit(ebbd->base))
        launch_close(vm->listening);
    if (how == VM_REMOVE || (vm->child && !vm->supervised))
        signal_back_end(vm, SIGTERM);
    if (how == VM_REMOVE)
        remove_files(vm);
    forget_back_end(vm);
    free_parts(vm);
}

/* ---- what others want ---- */

struct vm *vm_find(const struct ebbd *ebbd, const char *name)
{
    for (unsigned i = 0; i < ebbd->n_vms; i++) {
        if (strcmp(ebbd->vms[i]->name, name) == 0)
            return ebbd->vms[i];
    }
    return NULL;
}

const char *vm_name(const struct vm *vm)
{
    return vm->name;
}

const char *vm_path(const struct vm *vm)
{
    return vm->path;
}

bool vm_removable(const struct vm *vm)
{
    return vm->removable;
}

bool vm_is_up(const struct vm *vm)
{
    return vm->state == VM_UP;
}

bool vm_answers(const struct vm *vm)
{
    return vm->state == VM_UP && !event_pending(vm->timer, EV_TIMEOUT, NULL);
}

void vm_describe(const struct vm *vm, struct json_object *to)
{
    static const char *const states[] = {
        [VM_STARTING] = "starting", [VM_UP] = "up", [VM_ENDING] = "ending", [VM_DOWN] = "down"};
    struct json_object *back_end = json_object_new_object();

    json_object_object_add(to, "name", json_object_new_string(vm->name));
    json_object_object_add(to, "socket", json_object_new_string(vm->path));
    json_object_object_add(back_end, "state", json_object_new_string(states[vm->state]));
    json_object_object_add(back_end, "pid", vm->pid > 0 ? json_object_new_int(vm->pid) : NULL);
    json_object_object_add(back_end, "replaced", json_object_new_int64(vm->replaced));
    json_object_object_add(back_end, "lost", json_object_new_boolean(vm->lost));
    json_object_object_add(to, "back_end", back_end);
}

struct json_object *vm_state_in(struct json_object *answer)
{
    struct json_object *vms = json_object_object_get(answer, "vms"), *state = NULL;

    if (json_object_is_type(vms, json_type_array) && json_object_array_length(vms) == 1)
        state = json_object_array_get_idx(vms, 0);
    return json_object_is_type(state, json_type_object) ? state : NULL;
}

struct json_object *vm_seen(const struct vm *vm)
{
    return vm->seen;
}

void vm_set_seen(struct vm *vm, struct json_object *status)
{
    json_object_put(vm->seen);
    vm->seen = json_object_get(status);
    if (json_object_get_boolean(json_object_object_get(status, "connected")))
        vm->lost = false;
}

void vm_set_rate(struct vm *vm, uint64_t rate)
{
    vm->rate = rate;
}

void vm_set_inhibit(struct vm *vm, bool on)
{
    vm->inhibited = on;
}

/* ---- asking ---- */

/* More than any request allows. */
#define ERRAND_S 65

/* One question, on a connection of its own. */
struct errand {
    struct link *link;
    struct event *end; /* from the loop: a link is not freed by its own callback */
    void (*answer)(void *ctx, struct json_object *answer);
    void *ctx;
};

static void on_errand_end(evutil_socket_t fd, short what, void *ctx)
{
    struct errand *errand = ctx;

    (void)fd;
    (void)what;
    link_free(errand->link);
    event_free(errand->end);
    free(errand);
}

static void on_errand_gone(void *ctx)
{
    struct errand *errand = ctx;

    event_active(errand->end, EV_TIMEOUT, 0);
}

static void on_errand_moved(void *ctx, unsigned waiting, bool answered)
{
    (void)waiting;
    if (answered)
        on_errand_gone(ctx);
}

static void on_errand_answer(void *ctx, struct json_object *answer)
{
    struct errand *errand = ctx;

    errand->answer(errand->ctx, answer);
}

static void run_errand(struct vm *vm, struct json_object *request,
                       void (*answer)(void *ctx, struct json_object *answer), void *ctx)
{
    static const struct link_ops ops = {.moved = on_errand_moved, .gone = on_errand_gone};
    static const struct timeval limit = {ERRAND_S, 0};
    struct errand *errand = calloc(1, sizeof(*errand));

    if (errand) {
        *errand = (struct errand){.answer = answer, .ctx = ctx};
        errand->end = evtimer_new(vm->ebbd->base, on_errand_end, errand);
        if (errand->end)
            errand->link = link_new(vm->ebbd->base, vm->control, &ops, errand);
        if (errand->link) {
            event_add(errand->end, &limit);
            link_ask(errand->link, request, on_errand_answer, errand);
            return;
        }
        if (errand->end)
            event_free(errand->end);
        free(errand);
    }
    answer(ctx, NULL);
}

void vm_ask(struct vm *vm, struct json_object *request, bool slow,
            void (*answer)(void *ctx, struct json_object *answer), void *ctx)
{
    const bool starts = vm->state == VM_STARTING || (vm->state == VM_DOWN && !vm->replaced);
    struct early *early = starts ? calloc(1, sizeof(*early)) : NULL;

    if (early) {
        *early = (struct early){
            .request = json_object_get(request), .slow = slow, .answer = answer, .ctx = ctx};
        STAILQ_INSERT_TAIL(&vm->early, early, next);
    } else if (vm->state != VM_UP) {
        answer(ctx, NULL);
    } else if (slow) {
        run_errand(vm, request, answer, ctx);
    } else {
        link_ask(vm->link, request, answer, ctx);
    }
}

/* ---- those of nobody ---- */

static void release(struct ebbd *ebbd, const char *name)
{
    struct json_object *end = json_tokener_parse("{\"command\":\"end\",\"when\":\"idle\"}");
    struct vm *vm = new_vm(ebbd, name, "", false);

    if (vm && connect_to(vm)) {
        log_line("%s: it is no VM of ours any more; its back end, process %d, ends with its guest",
                 name, (int)vm->pid);
        run_errand(vm, end, on_ignored, NULL);
    }
    json_object_put(end);
    if (!vm)
        return;
    forget_back_end(vm);
    free_parts(vm);
}

void vm_release_others(struct ebbd *ebbd)
{
    const size_t suffix = strlen(CONTROL_SUFFIX);
    const struct dirent *entry;
    DIR *dir = opendir(ebbd->state_dir);
    char name[VM_NAME_MAX + 1];

    while (dir && (entry = readdir(dir))) {
        size_t len = strlen(entry->d_name);

        if (len <= suffix || len - suffix > VM_NAME_MAX ||
            strcmp(entry->d_name + len - suffix, CONTROL_SUFFIX) != 0)
            continue;
        memcpy(name, entry->d_name, len - suffix);
        name[len - suffix] = '\0';
        if (!vm_find(ebbd, name))
            release(ebbd, name);
    }
    if (dir)
        closedir(dir);
}
