/* SPDX-License-Identifier: BSD-2-Clause */
#include "vm.h"
#include "../common/sockets.h"
#include "connection.h"
#include "state.h"
#include "watchdog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct vm {
    struct backend *backend;
    const char *path;
    bool inhibited;
    uint64_t rate;
    struct acceptor *acceptor;
    struct connection *connection; /* NULL: none */
    struct log_limit limits[CAUSES];
    struct vm_front_ends front_ends;
    const char *last_error;
    /* Of former connections. */
    struct ebb_balloon_device_stats device_before;
    struct ebb_discard_stats discard_before;
};

/* ---- counters ---- */

/* Sums up. They have nothing but counters of 64 bits, save those after which is asked. */
static void add_counters(void *to, const void *from, size_t size)
{
    uint64_t *sum = to;
    const uint64_t *more = from;

    for (size_t i = 0; i < size / sizeof(*sum); i++)
        sum[i] += more[i];
}
_Static_assert(sizeof(struct ebb_balloon_device_stats) % sizeof(uint64_t) == 0, "counters");
_Static_assert(offsetof(struct ebb_discard_stats, last_error) % sizeof(uint64_t) == 0, "counters");

static void add_discard(struct ebb_discard_stats *sum, const struct ebb_discard_stats *more)
{
    uint64_t gathered = more->gathered_bytes;

    add_counters(sum, more, offsetof(struct ebb_discard_stats, last_error));
    sum->gathered_bytes = gathered;
    if (more->last_error)
        sum->last_error = more->last_error;
}

/* ---- coming and going ---- */

/* Its counters are kept. */
static void remember(struct vm *vm)
{
    struct ebb_vhost_user *session = connection_session(vm->connection);
    struct ebb_vhost_user_stats stats;
    struct ebb_discard_stats discard;

    ebb_vhost_user_get_stats(session, &stats);
    ebb_discard_get_stats(ebb_vhost_user_discard(session), &discard);
    vm->front_ends.messages += stats.messages;
    vm->front_ends.refused += stats.refused;
    add_counters(&vm->device_before, ebb_balloon_device_get_stats(ebb_vhost_user_device(session)),
                 sizeof(vm->device_before));
    add_discard(&vm->discard_before, &discard);
    vm->discard_before.gathered_bytes = 0;
}

void vm_ended(struct vm *vm, const char *reason, int error)
{
    if (reason) {
        vm->last_error = reason;
        vm->front_ends.protocol_errors++;
        log_limited(&vm->limits[CAUSE_ENDED], "%s: disconnected its front-end: %s%s%s", vm_name(vm),
                    reason, error ? ": " : "", error ? strerror(error) : "");
    } else {
        vm->front_ends.hangups++;
        log_limited(&vm->limits[CAUSE_HANGUP], "%s: its front-end hung up", vm_name(vm));
    }
    remember(vm);
    connection_free(vm->connection);
    vm->connection = NULL;
    state_write(vm->backend);
    backend_end_if_idle(vm->backend);
}

static bool connect_to(struct vm *vm, int fd)
{
    vm->connection = connection_new(vm->backend, vm, fd, vm->rate);
    if (!vm->connection) {
        vm->front_ends.turned_away++;
        log_limited(&vm->limits[CAUSE_TURNED_AWAY], "%s: cannot serve its front-end: %s",
                    vm_name(vm), strerror(errno));
        return false;
    }
    vm->front_ends.connections++;
    ebb_discard_inhibit(ebb_vhost_user_discard(connection_session(vm->connection)), vm->inhibited);
    log_limited(&vm->limits[CAUSE_CONNECT], "%s: a front-end connected", vm_name(vm));
    state_write(vm->backend);
    return true;
}

static void on_accepted(void *ctx, int fd)
{
    struct vm *vm = ctx;

    if (vm->connection && connection_is_gone(vm->connection))
        vm_ended(vm, NULL, 0);
    if (!vm->connection && !vm->backend->ending) {
        connect_to(vm, fd);
        return;
    }
    vm->front_ends.turned_away++;
    log_limited(&vm->limits[CAUSE_TURNED_AWAY],
                "%s: turned a second front-end away, one is connected", vm_name(vm));
    watchdog_begin(); /* what is in its queue can make this wait */
    close(fd);
    watchdog_end();
}

struct vm *vm_new(struct backend *backend, int listening, const char *path, int connected)
{
    struct vm *vm = calloc(1, sizeof(*vm));

    if (!vm)
        return NULL;
    *vm = (struct vm){.backend = backend,
                      .path = path,
                      .inhibited = backend->options.vm.inhibit,
                      .rate = backend->options.vm.rate};
    if (listening >= 0) {
        vm->acceptor = acceptor_new(backend->base, listening, on_accepted, vm);
        if (vm->acceptor)
            return vm;
    } else if (connect_to(vm, connected)) {
        return vm;
    }
    free(vm);
    return NULL;
}

void vm_free(struct vm *vm)
{
    if (vm->connection) {
        ebb_balloon_device_quiesce(vm_begin(vm));
        vm_end(vm);
        connection_free(vm->connection);
    }
    acceptor_free(vm->acceptor);
    free(vm);
}

/* ---- for operators ---- */

const char *vm_name(const struct vm *vm)
{
    return vm->backend->options.name;
}

const char *vm_path(const struct vm *vm)
{
    return vm->path;
}

bool vm_connected(const struct vm *vm)
{
    return vm->connection != NULL;
}

struct ebb_balloon_device *vm_begin(const struct vm *vm)
{
    return vm->connection ? ebb_vhost_user_device(connection_begin(vm->connection)) : NULL;
}

void vm_end(const struct vm *vm)
{
    if (vm->connection)
        connection_end(vm->connection);
}

bool vm_inhibit(struct vm *vm, bool on)
{
    struct ebb_discard *discard = NULL;

    vm->inhibited = on;
    if (vm->connection)
        discard = ebb_vhost_user_discard(connection_session(vm->connection));
    if (discard && on)
        return ebb_discard_try_inhibit(discard);
    if (discard)
        ebb_discard_inhibit(discard, false);
    return true;
}

bool vm_inhibited(const struct vm *vm)
{
    return vm->inhibited;
}

void vm_set_rate(struct vm *vm, uint64_t rate)
{
    vm->rate = rate;
    if (vm->connection)
        ebb_discard_set_rate(ebb_vhost_user_discard(connection_session(vm->connection)), rate);
}

struct log_limit *vm_limit(struct vm *vm, enum cause cause)
{
    return &vm->limits[cause];
}

/* ---- sight ---- */

static void count_regions(const struct ebb_memory *memory, struct vm_view *view)
{
    for (unsigned i = 0; i < memory->n; i++) {
        const struct ebb_region *region = &memory->regions[i];
        unsigned k = 0;

        while (k < view->kinds && (view->regions[k].backing != region->backing ||
                                   view->regions[k].page != region->page))
            k++;
        if (k == VM_KINDS)
            k--;
        else if (k == view->kinds)
            view->regions[view->kinds++] =
                (struct vm_regions){.backing = region->backing, .page = region->page};
        view->regions[k].n++;
        view->regions[k].bytes += region->size;
    }
    view->assigned = ebb_memory_bytes(memory);
}

static void look_at_device(const struct ebb_balloon_device *device, uint64_t now,
                           struct vm_view *view)
{
    view->needs_reset = (ebb_balloon_device_status(device) & EBB_STATUS_NEEDS_RESET) != 0;
    view->target = (uint64_t)ebb_balloon_device_target(device) * EBB_FRAME_SIZE;
    view->actual = (uint64_t)ebb_balloon_device_actual(device) * EBB_FRAME_SIZE;
    view->guest = *ebb_balloon_device_guest_stats(device);
    view->guest_age_ns = now > view->guest.at_ns ? now - view->guest.at_ns : 0;
    add_counters(&view->device, ebb_balloon_device_get_stats(device), sizeof(view->device));
}

static void look_at_session(struct ebb_vhost_user *session, uint64_t now, struct vm_view *view)
{
    struct ebb_vhost_user_stats stats;
    struct ebb_discard_stats discard;

    ebb_vhost_user_get_stats(session, &stats);
    ebb_discard_get_stats(ebb_vhost_user_discard(session), &discard);
    view->front_ends.messages += stats.messages;
    view->front_ends.refused += stats.refused;
    view->features = stats.features;
    view->notes = stats.memory_notes;
    add_discard(&view->discard, &discard);
    look_at_device(ebb_vhost_user_device(session), now, view);
    count_regions(ebb_vhost_user_memory(session), view);
    view->resident = vm_resident(ebb_vhost_user_memory(session));
}

void vm_look(const struct vm *vm, struct vm_view *view)
{
    uint64_t now = log_now_ns(), since;

    *view = (struct vm_view){.front_ends = vm->front_ends,
                             .last_error = vm->last_error,
                             .inhibited = vm->inhibited,
                             .rate = vm->rate,
                             .device = vm->device_before,
                             .discard = vm->discard_before};
    if (!vm->connection)
        return;
    since = connection_since(vm->connection);
    view->connected_ns = now > since ? now - since : 1;
    look_at_session(connection_session(vm->connection), now, view);
}

struct file_key {
    dev_t device;
    ino_t inode;
    uint64_t bytes;
};

static int by_file(const void *a, const void *b)
{
    const struct file_key *x = a, *y = b;

    if (x->device != y->device)
        return x->device < y->device ? -1 : 1;
    return x->inode < y->inode ? -1 : x->inode > y->inode;
}

uint64_t vm_resident(const struct ebb_memory *memory)
{
    struct file_key files[EBB_MEMORY_REGIONS];
    uint64_t bytes = 0;
    struct stat file;
    unsigned n = 0;

    for (unsigned i = 0; i < memory->n; i++) {
        if (memory->regions[i].fd >= 0 && fstat(memory->regions[i].fd, &file) == 0)
            files[n++] =
                (struct file_key){file.st_dev, file.st_ino, (uint64_t)file.st_blocks * 512};
    }
    qsort(files, n, sizeof(files[0]), by_file);
    for (unsigned i = 0; i < n; i++) {
        if (i == 0 || by_file(&files[i - 1], &files[i]) != 0)
            bytes += files[i].bytes;
    }
    return bytes;
}
