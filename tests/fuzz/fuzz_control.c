/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control protocol of a back end, from lines to answers: cmd/common/control.c, and commands.c
 * and status.c of cmd/ebbd-vm. What is around them is replaced here: the event loop by one timer
 * that fires when the input says so, sockets by nothing, and the VM (vm.h) by one that has a real
 * device, connected to a guest that gives statistics. (What front-ends send is fuzz_vhost_user.c's
 * matter.)
 *
 * An input is lines. Those that begin with '!' are not a client's:
 *   !t time passes, and the timer fires   !s the guest of `a` sends statistics
 *   !c the front-end of `a` leaves, or is back
 *   !b the client does not read, or reads again   !n the client goes, and another comes
 */
#include "fuzz.h"
#include "sync_pool.h"

#include "../../cmd/common/control.h"
#include "../../cmd/common/log.h"
#include "../../cmd/ebbd-vm/commands.h"
#include "../../cmd/ebbd-vm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <json.h>
#include <string.h>
#include <unistd.h>

#define LINES    128u
#define RAM      0x4000u
#define ASSIGNED ((uint64_t)64 << 20)
#define AVAIL    0x1000u /* in guest memory: parts of the ring, and a buffer */
#define USED     0x1800u
#define BUFFER   0x2000u
#define RING     8u

struct event {
    event_callback_fn fire;
    void *arg;
    bool armed;
};

struct vm {
    bool connected, inhibited;
    uint64_t rate;
    struct ebb_discard *discard; /* with the device, once that is asked for */
    struct ebb_balloon_device *device;
    struct log_limit limit;
};

struct run {
    struct backend backend;
    struct control_commands commands;
    struct vm vm;
    struct ebb_memory memory;
    struct event *timer;
    struct control *control;
    bool closed, paused, watched, behind, text_sent;
    uint64_t now;
};

static struct run run;
static uint8_t *ram;

/* ---- libevent ---- */

struct event *event_new(struct event_base *base, evutil_socket_t fd, short what,
                        event_callback_fn fire, void *arg)
{
    struct event *event = calloc(1, sizeof(*event));

    (void)base;
    (void)what;
    FUZZ_CHECK(fd == -1 && event);
    event->fire = fire;
    event->arg = arg;
    run.timer = event;
    return event;
}

int event_add(struct event *event, const struct timeval *in)
{
    FUZZ_CHECK(in && in->tv_sec >= 0 && in->tv_usec >= 0 && in->tv_usec < 1000000);
    event->armed = true;
    return 0;
}

int event_del(struct event *event)
{
    event->armed = false;
    return 0;
}

int event_pending(const struct event *event, short what, struct timeval *when)
{
    (void)what;
    (void)when;
    return event->armed;
}

void event_free(struct event *event)
{
    run.timer = NULL;
    free(event);
}

/* It ends, which is nothing to this program. */
int event_base_loopexit(struct event_base *base, const struct timeval *in)
{
    (void)base;
    (void)in;
    return 0;
}

void backend_end_if_idle(struct backend *backend)
{
    FUZZ_CHECK(backend == &run.backend);
}

/* ---- log ---- */

void log_line(const char *format, ...)
{
    (void)format;
}

void log_by(const char *who)
{
    (void)who;
}

void log_limited(struct log_limit *limit, const char *format, ...)
{
    (void)limit;
    (void)format;
}

uint64_t log_now_ns(void)
{
    return run.now;
}

/* A client of the socket: not here. */
bool client_send(struct client *client, const void *text, size_t len)
{
    (void)client;
    (void)text;
    (void)len;
    abort();
}

bool client_is_behind(const struct client *client)
{
    (void)client;
    abort();
}

void client_pause(struct client *client, bool on)
{
    (void)client;
    (void)on;
    abort();
}

void client_watches(struct client *client, bool on)
{
    (void)client;
    (void)on;
    abort();
}

int client_fd(const struct client *client)
{
    (void)client;
    abort();
}

void client_close(struct client *client)
{
    (void)client;
    abort();
}

/* ---- a device, and its guest's statistics ---- */

static void on_call(void *ctx, unsigned queue)
{
    (void)ctx;
    (void)queue;
}

static void on_wake(void *ctx)
{
    (void)ctx;
}

static uint64_t on_now(void *ctx)
{
    (void)ctx;
    return run.now;
}

static void start_stats(struct vm *vm)
{
    const struct ebb_balloon_device_vring vring = {.size = RING, .avail = AVAIL, .used = USED};
    const struct ebb_ring_desc desc = {.addr = BUFFER, .len = 20};

    memset(ram, 0, RAM);
    memcpy(ram, &desc, sizeof(desc));
    FUZZ_CHECK(ebb_balloon_device_start(vm->device, EBB_BALLOON_STATS, &vring) == 0);
}

/* Two entries: a tag, and a value. */
static void send_stats(struct vm *vm)
{
    uint16_t *index = (uint16_t *)(void *)(ram + AVAIL + 2);

    if (!vm->device)
        return;
    ram[BUFFER] = (uint8_t)(run.now >> 30);
    ram[BUFFER + 9] = 0x80; /* a value beyond 63 bits */
    ram[BUFFER + 10] = 4;
    (*index)++;
    ebb_balloon_device_kick(vm->device, EBB_BALLOON_STATS);
}

static void make_device(struct vm *vm)
{
    static const struct ebb_balloon_device_ops ops = {
        .call = on_call, .wake = on_wake, .now = on_now};
    const struct ebb_discard_config discard = {.pool = run.backend.pool, .memory = &run.memory};
    struct ebb_balloon_device_config device = {.memory = &run.memory, .ops = &ops};

    vm->discard = ebb_discard_new(&discard);
    device.discard = vm->discard;
    vm->device = vm->discard ? ebb_balloon_device_new(&device) : NULL;
    if (!vm->device ||
        ebb_balloon_device_accept(vm->device, ebb_balloon_device_features(vm->device)) != 0)
        abort();
    start_stats(vm);
    send_stats(vm);
}

static void end_device(struct vm *vm)
{
    if (vm->device)
        ebb_balloon_device_free(vm->device);
    if (vm->discard)
        ebb_discard_free(vm->discard);
    vm->device = NULL;
    vm->discard = NULL;
}

/* ---- vm.h ---- */

const char *vm_name(const struct vm *vm)
{
    FUZZ_CHECK(vm == &run.vm);
    return run.backend.options.name;
}

const char *vm_path(const struct vm *vm)
{
    (void)vm;
    return "/run/ebbd/\"\\\n";
}

bool vm_connected(const struct vm *vm)
{
    return vm->connected;
}

struct ebb_balloon_device *vm_begin(const struct vm *vm)
{
    FUZZ_CHECK(vm == &run.vm);
    if (vm->connected && !vm->device)
        make_device(&run.vm);
    return vm->connected ? vm->device : NULL;
}

void vm_end(const struct vm *vm)
{
    FUZZ_CHECK(vm == &run.vm);
}

bool vm_inhibit(struct vm *vm, bool on)
{
    vm->inhibited = on;
    return true;
}

bool vm_inhibited(const struct vm *vm)
{
    return vm->inhibited;
}

void vm_set_rate(struct vm *vm, uint64_t rate)
{
    vm->rate = rate;
}

struct log_limit *vm_limit(struct vm *vm, enum cause cause)
{
    FUZZ_CHECK(cause < CAUSES);
    return &vm->limit;
}

void vm_look(const struct vm *vm, struct vm_view *view)
{
    *view = (struct vm_view){.inhibited = vm->inhibited, .rate = vm->rate};
    if (!vm->connected)
        return;
    view->connected_ns = 1;
    view->assigned = ASSIGNED;
    view->last_error = "a message of the wrong size";
    view->kinds = 1;
    view->regions[0] = (struct vm_regions){EBB_BACKING_SHARED, 4096, 1, ASSIGNED};
    if (!vm->device)
        return;
    view->target = (uint64_t)ebb_balloon_device_target(vm->device) * EBB_FRAME_SIZE;
    view->guest = *ebb_balloon_device_guest_stats(vm->device);
    view->device = *ebb_balloon_device_get_stats(vm->device);
    ebb_discard_get_stats(vm->discard, &view->discard);
}

/* ---- the client ---- */

/* An answer is one JSON object on one line, as strict as parsers are. */
static void check_answer(const char *text, size_t len)
{
    struct json_tokener *tokener = json_tokener_new();
    struct json_object *answer;

    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    answer = json_tokener_parse_ex(tokener, text, (int)len);
    FUZZ_CHECK(answer && json_object_is_type(answer, json_type_object));
    FUZZ_CHECK(json_tokener_get_parse_end(tokener) == len && !memchr(text, '\n', len));
    json_object_put(answer);
    json_tokener_free(tokener);
}

static void on_send(void *ctx, const char *text, size_t len)
{
    (void)ctx;
    FUZZ_CHECK(!run.closed);
    if (run.text_sent)
        FUZZ_CHECK(len == 1 && *text == '\n');
    else
        check_answer(text, len);
    run.text_sent = !run.text_sent;
}

static bool is_behind(void *ctx)
{
    (void)ctx;
    return run.behind;
}

static void on_pause(void *ctx, bool on)
{
    (void)ctx;
    FUZZ_CHECK(run.paused != on);
    run.paused = on;
}

static void on_watch(void *ctx, bool on)
{
    (void)ctx;
    FUZZ_CHECK(run.watched != on);
    run.watched = on;
}

static void on_close(void *ctx)
{
    (void)ctx;
    run.closed = true;
}

static void come(void)
{
    static const struct control_ops ops = {.send = on_send,
                                           .is_behind = is_behind,
                                           .pause = on_pause,
                                           .watch = on_watch,
                                           .close = on_close};

    run.closed = run.paused = run.watched = false;
    run.control = control_new(&run.commands, &ops, NULL, "by uid 0, pid 1");
    if (!run.control)
        abort();
}

static void go(void)
{
    FUZZ_CHECK(!run.text_sent);
    control_free(run.control);
    FUZZ_CHECK(!run.timer);
}

static void fire(void)
{
    run.now += 1000000000;
    if (!run.timer->armed)
        return;
    run.timer->armed = false;
    run.timer->fire(-1, EV_TIMEOUT, run.timer->arg);
}

/* Until what it waits for has come, or has come too late: a minute at most. */
static void until_heard(void)
{
    for (unsigned i = 0; run.paused && i < 70; i++)
        fire();
    FUZZ_CHECK(!run.paused);
}

static void client_line(const uint8_t *bytes, size_t len)
{
    char *line = malloc(len + 1); /* so that a sanitizer sees its end */

    if (!line)
        abort();
    if (len > 0)
        memcpy(line, bytes, len);
    line[len] = 0;
    until_heard();
    control_line(run.control, line, len);
    free(line);
    FUZZ_CHECK(!run.text_sent);
    if (run.closed) {
        go();
        come();
    }
}

/* ---- one execution ---- */

static void directive(uint8_t what)
{
    struct vm *a = &run.vm;

    if (what == 't') {
        fire();
    } else if (what == 's') {
        send_stats(a);
    } else if (what == 'c') {
        a->connected = !a->connected;
        end_device(a);
    } else if (what == 'b') {
        run.behind = !run.behind;
    } else if (what == 'n') {
        go();
        come();
    }
}

static void make_vm(void)
{
    const struct ebb_region region = {
        .size = RAM, .host = ram, .fd = -1, .page = 4096, .backing = EBB_BACKING_NONE};

    ebb_memory_init(&run.memory);
    (void)!ebb_memory_add(&run.memory, &region);
    run.vm.connected = true;
}

static void set_up(void)
{
    static struct ebb_discard_pool *pool;

    if (!pool) {
        pool = ebb_discard_pool_new(1);
        ram = aligned_alloc(4096, RAM);
    }
    if (!pool || !ram)
        abort();
    memset(&run, 0, sizeof(run));
    run.now = 1000000000;
    run.backend.pool = pool;
    run.backend.vm = &run.vm;
    run.backend.options.name = "a";
    run.commands = backend_commands(&run.backend);
    make_vm();
    come();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    set_up();
    for (unsigned i = 0; i < LINES && size > 0; i++) {
        const uint8_t *end = memchr(data, '\n', size);
        const size_t len = end ? (size_t)(end - data) : size;

        if (len == 2 && data[0] == '!')
            directive(data[1]);
        else if (len < CONTROL_LINE)
            client_line(data, len);
        data += end ? len + 1 : len;
        size -= end ? len + 1 : len;
    }
    go();
    end_device(&run.vm);
    return 0;
}
