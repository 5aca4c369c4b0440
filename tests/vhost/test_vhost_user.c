/* SPDX-License-Identifier: BSD-2-Clause */
/* The vhost-user session with a front-end that keeps the protocol, in one process. */
#include "back.h"
#include "discard_rig.h"
#include "front.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

static struct ebb_discard_pool *pool;
static struct back back;
static struct front front;
static struct ebb_vhost_user_config back_config;
static struct front_config front_config;
static unsigned fds_before;
static bool connected;

static int setup(void **state)
{
    (void)state;
    fds_before = back_count_fds();
    pool = ebb_discard_pool_new(1);
    assert_non_null(pool);
    back_config = (struct ebb_vhost_user_config){0};
    front_config = (struct front_config){.pump = back_pump, .ctx = &back};
    return 0;
}

static void connect_both(void)
{
    const int sock = back_init(&back, &back_config, pool);

    front_init(&front, &front_config, sock);
    connected = true;
}

static void disconnect_both(void)
{
    connected = false;
    front_exit(&front);
    back_exit(&back);
}

/* Nothing is left of either side. */
static int teardown(void **state)
{
    (void)state;
    if (connected) /* the test failed */
        disconnect_both();
    ebb_discard_pool_free(pool);
    assert_int_equal(back_count_fds(), fds_before);
    assert_int_equal(back_count_maps("front-memory"), 0);
    return 0;
}

static struct ebb_vhost_user_stats stats(void)
{
    struct ebb_vhost_user_stats s;

    ebb_vhost_user_get_stats(back.session, &s);
    return s;
}

static const struct ebb_balloon_device_stats *device_stats(void)
{
    return ebb_balloon_device_get_stats(ebb_vhost_user_device(back.session));
}

static uint64_t file_bytes(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static void pump(unsigned times)
{
    for (unsigned i = 0; i < times; i++)
        back_pump(&back);
}

static void start_both(void)
{
    connect_both();
    assert_int_equal(front_open(&front), 0);
    assert_int_equal(front_start(&front), 0);
}

struct slot_message {
    uint64_t padding;
    struct front_region region;
};

static int add(uint64_t gpa, uint64_t size, uint64_t user, uint64_t offset, int fd)
{
    const struct slot_message message = {0, {gpa, size, user, offset}};

    return front_tell(&front, FRONT_ADD_MEM_REG, &message, sizeof(message), &fd, 1);
}

static int rem(uint64_t gpa, uint64_t size, uint64_t user, const int *fd)
{
    const struct slot_message message = {0, {gpa, size, user, 12345}};

    return front_tell(&front, FRONT_REM_MEM_REG, &message, sizeof(message), fd, fd ? 1 : 0);
}

/* ---- a session ---- */

static void run_session(void)
{
    uint32_t cfg[4];
    uint64_t full;

    connect_both();
    assert_int_equal(front_open(&front), 0);
    assert_int_equal(front_config_read(&front, cfg), 0);
    assert_int_equal(cfg[0], 0);
    assert_int_equal(front_start(&front), 0);
    back_settle(&back);
    assert_int_equal(stats().running, (1u << front.n_queues) - 1);
    assert_int_equal(stats().enabled, 31);
    assert_int_equal(stats().memory_bytes, 16 * MIB);

    memset(front_at(&front, FRONT_HIGH), 0x5a, 4 * MIB);
    full = file_bytes(front.memfd);
    assert_int_equal(front_report(&front, FRONT_HIGH + MIB, 2 * MIB), 0);
    assert_int_equal(file_bytes(front.memfd), full - 2 * MIB);
    assert_int_equal(*(char *)front_at(&front, FRONT_HIGH + MIB - 1), 0x5a);
    assert_int_equal(*(char *)front_at(&front, FRONT_HIGH + MIB), 0);
    assert_int_equal(*(char *)front_at(&front, FRONT_HIGH + 3 * MIB), 0x5a);

    assert_int_equal(front_stop(&front), 0);
    assert_int_equal(stats().running, 0);
    assert_int_equal(stats().enabled, 0);
    for (unsigned i = 0; i < FRONT_QUEUES; i++)
        assert_int_equal(back.kicks[i], -1);
    assert_null(ebb_vhost_user_reason(back.session, NULL));
    disconnect_both();
}

static void test_session(void **state)
{
    (void)state;
    run_session();
}

static void test_session_with_slots(void **state)
{
    (void)state;
    front_config.slots = true;
    run_session();
}

/* Nothing negotiated but what there must be: no answers but to questions, no channel. */
static void test_session_bare(void **state)
{
    (void)state;
    front_config.without = ~(uint64_t)0;
    run_session();
}

static void test_session_reporting_only(void **state)
{
    (void)state;
    front_config.refuse = EBB_F_STATS_VQ | EBB_F_FREE_PAGE_HINT;
    run_session();
}

/* Pause and go on; the guest reboots; on one connection. */
static void test_stop_and_go(void **state)
{
    (void)state;
    start_both();
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
        assert_int_equal(front_stop(&front), 0);
        assert_int_equal(front_start(&front), 0);
    }
    assert_int_equal(front_stop(&front), 0);
    assert_int_equal(front_tell(&front, FRONT_RESET_DEVICE, NULL, 0, NULL, 0), 0);
    assert_int_equal(stats().features, 0);
    assert_int_equal(front_start(&front), 0);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    assert_int_equal(device_stats()->resets, 1);
    disconnect_both();
}

/* What the balloon is said to have is the driver's word, and ends with it: after a pause it stands,
 * after a reboot of the guest it is none. */
static void test_balloon_over_reboot(void **state)
{
    uint32_t cfg[4] = {0, 77, 0, 0};
    struct ebb_balloon_device *device;

    (void)state;
    start_both();
    device = ebb_vhost_user_device(back.session);
    for (unsigned times = 0; times < 3; times++) {
        cfg[1] = 77;
        assert_int_equal(front_config_write(&front, cfg), 0);
        assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
        for (unsigned i = 0; i < FRONT_QUEUES; i++)
            assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_ENABLE, i, 1), 0);
        assert_int_equal(front_stop(&front), 0);
        assert_int_equal(front_start(&front), 0);
        assert_int_equal(ebb_balloon_device_actual(device), 77);

        assert_int_equal(front_stop(&front), 0);
        for (unsigned i = 0; i < FRONT_QUEUES; i++) {
            struct front_queue *queue = &front.queues[i];

            assert_int_equal(ebb_ring_driver_init(&queue->ring, FRONT_RING,
                                                  front_at(&front, queue->gpa), queue->slots),
                             0);
        }
        assert_int_equal(front_start(&front), 0);
        assert_int_equal(ebb_balloon_device_actual(device), 0);
        cfg[1] = 5;
        assert_int_equal(front_config_write(&front, cfg), 0);
        assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_ENABLE, 0, 1), 0);
        assert_int_equal(ebb_balloon_device_actual(device), 5);
    }
    disconnect_both();
}

/* A reset takes the queues away from a running device. */
static void test_reset_running(void **state)
{
    (void)state;
    start_both();
    assert_int_equal(front_tell(&front, FRONT_RESET_DEVICE, NULL, 0, NULL, 0), 0);
    assert_int_equal(stats().running, 0);
    for (unsigned i = 0; i < FRONT_QUEUES; i++)
        assert_int_equal(back.kicks[i], -1);
    disconnect_both();
}

/* ---- messages ---- */

static uint64_t ask(uint32_t request)
{
    uint64_t value = 0;

    assert_int_equal(front_ask(&front, request, &value, 0, sizeof(value)), sizeof(value));
    return value;
}

static void test_features(void **state)
{
    const uint64_t protocol = FRONT_P_MQ | FRONT_P_REPLY_ACK | FRONT_P_BACKEND_REQ |
                              FRONT_P_CONFIG | FRONT_P_INFLIGHT | FRONT_P_RESET_DEVICE |
                              FRONT_P_MEM_SLOTS;
    uint64_t features;

    (void)state;
    connect_both();
    features = ask(FRONT_GET_FEATURES);
    assert_true(features & FRONT_F_PROTOCOL);
    assert_true(features & EBB_F_VERSION_1);
    assert_true(features & EBB_F_PAGE_REPORTING);
    assert_false(features & (EBB_F_INDIRECT_DESC | EBB_F_EVENT_IDX));
    assert_int_equal(ask(FRONT_GET_PROTOCOL_FEATURES), protocol);
    assert_int_equal(ask(FRONT_GET_QUEUE_NUM), 5);
    assert_int_equal(ask(FRONT_GET_MAX_MEM_SLOTS), EBB_MEMORY_REGIONS);

    assert_int_equal(front_tell_u64(&front, FRONT_SET_PROTOCOL_FEATURES, protocol), 0);
    front.protocol = protocol;
    assert_int_equal(front_tell_u64(&front, FRONT_SET_PROTOCOL_FEATURES, protocol | 2), 1);
    assert_int_equal(front_tell_u64(&front, FRONT_SET_FEATURES, features | (1u << 29)), 1);
    assert_int_equal(front_tell_u64(&front, FRONT_SET_FEATURES, features), 0);
    assert_int_equal(stats().features, features & ~FRONT_F_PROTOCOL);
    assert_int_equal(stats().refused, 2);
    assert_string_equal(stats().refusal, "features that were not offered");
    assert_int_equal(stats().refusal_error, EINVAL);
    assert_int_equal(stats().protocol, protocol);
    disconnect_both();
}

/* Without bit 30 queues need not be enabled. */
static void test_old_front_end(void **state)
{
    (void)state;
    front_config.without = ~(uint64_t)0;
    connect_both();
    assert_int_equal(front_open(&front), 0);
    front.features &= ~FRONT_F_PROTOCOL;
    assert_int_equal(front_tell_u64(&front, FRONT_SET_FEATURES, front.features), 0);
    assert_int_equal(front_set_memory(&front), 0);
    for (unsigned i = 0; i < front.n_queues; i++)
        assert_int_equal(front_queue_start(&front, i, 0), 0);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    assert_int_equal(stats().enabled, 31);
    assert_int_equal(device_stats()->reported_bytes, 4096);
    disconnect_both();
}

/* A request that is refused ends the session if nobody asked for an answer. */
static void test_refused_unasked(void **state)
{
    (void)state;
    front_config.without = FRONT_P_REPLY_ACK;
    connect_both();
    assert_int_equal(front_open(&front), 0);
    (void)front_tell_u64(&front, FRONT_SET_FEATURES, (uint64_t)1 << 40);
    back_settle(&back);
    assert_true(back.ended);
    assert_string_equal(back.reason, "features that were not offered");
    assert_int_equal(back.error, EINVAL);
    disconnect_both();
}

static ssize_t get_config(uint32_t offset, uint32_t size, uint32_t payload, uint8_t *to)
{
    uint32_t message[3 + 64] = {offset, size, 0};
    const ssize_t n = front_ask(&front, FRONT_GET_CONFIG, message, payload, sizeof(message));

    if (n > 12)
        memcpy(to, message + 3, (size_t)n - 12);
    return n;
}

static void test_config(void **state)
{
    uint8_t bytes[256];
    uint32_t cfg[4] = {0xaaaa, 77, 0xbbbb, 0};

    (void)state;
    connect_both();
    assert_int_equal(front_open(&front), 0);
    ebb_balloon_device_resize(ebb_vhost_user_device(back.session), 0x01020304);
    assert_int_equal(get_config(0, 16, 28, bytes), 28);
    assert_memory_equal(bytes, "\4\3\2\1\0\0\0\0", 8);
    assert_int_equal(get_config(2, 3, 15, bytes), 15);
    assert_memory_equal(bytes, "\2\1\0", 3);
    assert_int_equal(get_config(0, 0, 12, bytes), 12);
    memset(bytes, 1, sizeof(bytes));
    assert_int_equal(get_config(UINT32_MAX - 4, 256, 268, bytes), 268);
    for (unsigned i = 0; i < 256; i++)
        assert_int_equal(bytes[i], 0);

    /* All of it comes back, a stale num_pages included: only `actual` is taken. */
    assert_int_equal(front_config_write(&front, cfg), 0);
    assert_int_equal(front_config_read(&front, cfg), 0);
    assert_int_equal(cfg[0], 0x01020304);
    assert_int_equal(cfg[1], 77);
    assert_int_equal(cfg[2], 0);
    assert_int_equal(ebb_balloon_device_actual(ebb_vhost_user_device(back.session)), 77);
    disconnect_both();
}

/* The size inside must be the size outside. */
static void test_config_size(void **state)
{
    uint8_t bytes[256];

    (void)state;
    connect_both();
    assert_int_equal(front_open(&front), 0);
    assert_int_equal(get_config(0, 15, 28, bytes), -EPIPE);
    assert_string_equal(back.reason, "a message of the wrong size");
    disconnect_both();
}

static unsigned drain_backend(void)
{
    struct front_header header;
    unsigned n = 0;

    while (recv(front.backend, &header, sizeof(header), MSG_DONTWAIT) == sizeof(header)) {
        assert_int_equal(header.request, 2);
        assert_int_equal(header.flags, 1);
        assert_int_equal(header.size, 0);
        n++;
    }
    return n;
}

static void test_config_change(void **state)
{
    struct ebb_balloon_device *device;
    unsigned tries = 0;

    (void)state;
    start_both();
    device = ebb_vhost_user_device(back.session);
    assert_int_equal(drain_backend(), 0);
    ebb_balloon_device_resize(device, 100);
    assert_int_equal(drain_backend(), 1);

    /* No room: it comes later, once. */
    back.deaf = true;
    ebb_balloon_device_resize(device, 200);
    ebb_balloon_device_resize(device, 300);
    pump(3);
    assert_int_equal(drain_backend(), 0);
    assert_true(ebb_vhost_user_due(back.session) != UINT64_MAX);
    back.deaf = false;
    while (drain_backend() == 0 && tries++ < 20000)
        pump(1);
    assert_true(tries < 20000);
    assert_int_equal(drain_backend(), 0);
    assert_int_equal(stats().config_changes, 2);

    /* Nobody there any more: nothing but that happens. */
    close(front.backend);
    front.backend = -1;
    ebb_balloon_device_resize(device, 400);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    assert_int_equal(stats().config_changes, 2);
    disconnect_both();
}

/* ---- queues ---- */

/* True: it was enabled in time, and what was there is discarded. */
static bool enable_late(void)
{
    const struct ebb_ring_buf buf = {FRONT_HIGH, 4096, true};
    unsigned queue;
    bool reported;

    connect_both();
    assert_int_equal(front_open(&front), 0);
    assert_int_equal(front_tell_u64(&front, FRONT_SET_FEATURES, front.features), 0);
    assert_int_equal(front_set_memory(&front), 0);
    queue = (unsigned)front_queue_of(&front, EBB_BALLOON_REPORTING);
    front_give(&front, queue, &buf, 1);
    assert_int_equal(front_queue_start(&front, queue, 0), 0);
    assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_ENABLE, queue, 1), 0);
    assert_int_equal(front_back(&front, queue), 0);
    reported = device_stats()->reported_bytes == 4096;
    disconnect_both();
    return reported;
}

/* Chains of a queue that is not enabled yet are not wasted; a machine may be slow now and then. */
static void test_enabled_late(void **state)
{
    unsigned tries = 0;

    (void)state;
    while (!enable_late())
        assert_true(++tries < 100);
}

/* But they go back, without effect, if it is not enabled at all. */
static void test_enabled_never(void **state)
{
    const struct ebb_ring_buf buf = {FRONT_HIGH, 4096, true};
    unsigned queue;

    (void)state;
    connect_both();
    assert_int_equal(front_open(&front), 0);
    assert_int_equal(front_tell_u64(&front, FRONT_SET_FEATURES, front.features), 0);
    assert_int_equal(front_set_memory(&front), 0);
    queue = (unsigned)front_queue_of(&front, EBB_BALLOON_REPORTING);
    *(char *)front_at(&front, FRONT_HIGH) = 1;
    front_give(&front, queue, &buf, 1);
    assert_int_equal(front_queue_start(&front, queue, 0), 0);
    assert_int_equal(front_back(&front, queue), 0);
    assert_int_equal(*(char *)front_at(&front, FRONT_HIGH), 1);
    disconnect_both();
}

static void test_vring_refusals(void **state)
{
    const struct front_addr outside = {.index = 0, .desc = 16, .used = 16, .avail = 16};
    int fd = eventfd(0, EFD_CLOEXEC);
    uint64_t value = 1;

    (void)state;
    start_both();
    assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_NUM, 5, 64), 1);
    assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_NUM, UINT32_MAX, 64), 1);
    assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_NUM, 0, 63), 1);
    assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_NUM, 0, 0), 1);
    assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_NUM, 0, 2048), 1);
    assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_NUM, 0, 128), 1); /* it runs */
    assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_BASE, 0, 3), 1);
    assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_BASE, 0, 0x10000), 1);
    assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_ENABLE, 0, 2), 1);
    assert_int_equal(front_tell(&front, FRONT_SET_VRING_ADDR, &outside, sizeof(outside), NULL, 0),
                     1);
    value = FRONT_NO_FD;
    assert_int_equal(front_tell(&front, FRONT_SET_VRING_KICK, &value, 8, NULL, 0), 1); /* polling */
    value = 7;
    assert_int_equal(front_tell(&front, FRONT_SET_VRING_KICK, &value, 8, &fd, 1), 1);
    assert_int_equal(stats().running, 31);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0); /* all goes on */
    close(fd);
    disconnect_both();
}

/* A ring that was never set up, or lies nowhere, does not start. */
static void test_kick_without_ring(void **state)
{
    const struct front_addr outside = {.index = 1, .desc = 16, .used = 16, .avail = 16};
    const uint64_t queues[] = {0, 1};

    (void)state;
    connect_both();
    assert_int_equal(front_open(&front), 0);
    assert_int_equal(front_tell_u64(&front, FRONT_SET_FEATURES, front.features), 0);
    assert_int_equal(front_set_memory(&front), 0);
    assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_NUM, 1, 64), 0);
    assert_int_equal(front_tell(&front, FRONT_SET_VRING_ADDR, &outside, sizeof(outside), NULL, 0),
                     0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(
            front_tell(&front, FRONT_SET_VRING_KICK, &queues[i], 8, &front.queues[i].kick, 1), 1);
    assert_int_equal(stats().running, 0);
    assert_int_equal(back.kicks[0], -1);
    assert_int_equal(back.kicks[1], -1);
    disconnect_both();
}

/* The statistics buffer that the device holds is there again after a stop. */
static void test_stats_over_stop(void **state)
{
    const struct ebb_ring_buf buf = {FRONT_DATA, 20, false};
    static const uint8_t entries[20] = {4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 2};
    struct ebb_balloon_device *device;
    unsigned queue, tries = 0;

    (void)state;
    start_both();
    queue = (unsigned)front_queue_of(&front, EBB_BALLOON_STATS);
    memcpy(front_at(&front, FRONT_DATA), entries, sizeof(entries));
    front_give(&front, queue, &buf, 1);
    device = ebb_vhost_user_device(back.session);
    while (device_stats()->stats_received == 0 && tries++ < 20000)
        pump(1);
    assert_int_equal(ebb_ring_driver_pending(&front.queues[queue].ring), 1);
    assert_int_equal(front_stop(&front), 0);
    assert_int_equal(front_start(&front), 0);
    while (ebb_balloon_device_poll_stats(device) != 0 && tries++ < 20000)
        pump(1);
    assert_int_equal(front_back(&front, queue), 0);
    assert_int_equal(ebb_balloon_device_guest_stats(device)->values[EBB_STAT_MEMTOT], 2);
    disconnect_both();
}

/* A call that the front-end makes to wait, if anything can: the counter full, no O_NONBLOCK. */
static void test_call_never_waits(void **state)
{
    const uint64_t most = UINT64_MAX - 1;
    struct front_queue *queue;
    const struct ebb_ring_buf buf = {FRONT_HIGH, 4096, true};
    unsigned tries = 0, i;

    (void)state;
    start_both();
    i = (unsigned)front_queue_of(&front, EBB_BALLOON_REPORTING);
    queue = &front.queues[i];
    assert_int_equal(fcntl(queue->call, F_SETFL, 0), 0);
    assert_int_equal(fcntl(queue->kick, F_SETFL, 0), 0);
    {
        uint64_t count;

        assert_int_equal(read(queue->call, &count, sizeof(count)), sizeof(count));
    }
    assert_int_equal(write(queue->call, &most, sizeof(most)), sizeof(most));
    front_give(&front, i, &buf, 1);
    while (device_stats()->chains[EBB_BALLOON_REPORTING] == 0 && tries++ < 20000)
        pump(1);
    assert_true(tries < 20000);
    assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_ENABLE, i, 1), 0);
    disconnect_both();
}

static void set_kick(unsigned i, int kick)
{
    const uint64_t index = i;

    assert_int_equal(front_tell(&front, FRONT_SET_VRING_KICK, &index, 8, &kick, 1), 0);
    close(front.queues[i].kick);
    front.queues[i].kick = kick;
}

/* A kick that is readable for ever, and brings nothing, costs a look now and then. */
static void test_kick_for_ever(void **state)
{
    const struct ebb_ring_buf buf = {FRONT_HIGH, 4096, true};
    const uint64_t most = UINT64_MAX - 1, look = (uint64_t)EBB_VHOST_USER_LOOK_MS * 1000000;
    static struct rig_ops calls;
    uint64_t kicks;
    unsigned i;

    (void)state;
    rig_ops_init(&calls, NULL);
    calls.now = 1000000000;
    back_config.discard.ops = &calls.ops;
    start_both();
    i = (unsigned)front_queue_of(&front, EBB_BALLOON_REPORTING);
    set_kick(i, eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC | EFD_NONBLOCK));
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    back_settle(&back);
    kicks = device_stats()->kicks;
    assert_int_equal(write(front.queues[i].kick, &most, sizeof(most)), sizeof(most));
    pump(200);
    assert_in_range(device_stats()->kicks - kicks, 1, 20);
    assert_int_equal(back.kicks[i], -1);
    assert_int_equal(ebb_vhost_user_due(back.session), calls.now + look);

    kicks = device_stats()->kicks;
    for (unsigned times = 1; times <= 10; times++) {
        rig_advance(&calls, look);
        pump(20);
        assert_int_equal(device_stats()->kicks - kicks, times);
    }
    /* The others do not notice, and what comes is served at the next look. */
    front_give(&front, i, &buf, 1);
    pump(20);
    assert_int_equal(ebb_ring_driver_pending(&front.queues[i].ring), 1);
    rig_advance(&calls, look);
    pump(1);
    assert_true(back.kicks[i] >= 0); /* there was work: for a few kicks, again */
    assert_int_equal(front_back(&front, i), 0);
    pump(200);
    assert_int_equal(back.kicks[i], -1);

    /* A kick that is quiet is waited for again. */
    set_kick(i, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    for (unsigned times = 0; times < 40; times++) {
        const uint64_t one = 1;

        assert_int_equal(write(front.queues[i].kick, &one, sizeof(one)), sizeof(one));
        pump(1);
    }
    assert_int_equal(back.kicks[i], -1);
    rig_advance(&calls, look);
    pump(2);
    rig_advance(&calls, look);
    pump(2);
    assert_true(back.kicks[i] >= 0);
    assert_int_equal(ebb_vhost_user_due(back.session), UINT64_MAX);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    disconnect_both();
}

/* A ring that moves while it is in use goes on where it is then; so does one with a new kick. */
static void test_ring_moves(void **state)
{
    const uint64_t to = 0x80000, one = 1;
    struct front_queue *queue;
    struct front_addr addr = {0};
    struct ebb_ring_layout layout;
    uint64_t index;
    char *moved;
    int kick;

    (void)state;
    start_both();
    index = (uint64_t)front_queue_of(&front, EBB_BALLOON_REPORTING);
    queue = &front.queues[index];
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    layout = ebb_ring_layout(FRONT_RING);
    moved = front_at(&front, to);
    memcpy(moved, front_at(&front, queue->gpa), layout.total);
    queue->ring.desc = (void *)(moved + layout.desc);
    queue->ring.avail = (void *)(moved + layout.avail);
    queue->ring.used = (void *)(moved + layout.used);
    addr.index = (uint32_t)index;
    addr.desc = (uintptr_t)moved + layout.desc;
    addr.avail = (uintptr_t)moved + layout.avail;
    addr.used = (uintptr_t)moved + layout.used;
    assert_int_equal(front_tell(&front, FRONT_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0), 0);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);

    kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_int_equal(front_tell(&front, FRONT_SET_VRING_KICK, &index, 8, &kick, 1), 0);
    assert_int_equal(write(queue->kick, &one, sizeof(one)), sizeof(one)); /* the old one */
    close(queue->kick);
    queue->kick = kick;
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    assert_int_equal(device_stats()->reported_ranges, 3);
    disconnect_both();
}

/* The guest breaks a ring: the front-end hears of it. */
static void test_broken_ring(void **state)
{
    const uint64_t one = 1;
    uint64_t count = 0;
    struct front_queue *queue;
    unsigned i, tries = 0;

    (void)state;
    start_both();
    i = (unsigned)front_queue_of(&front, EBB_BALLOON_INFLATE);
    queue = &front.queues[i];
    queue->ring.avail[1] = 1000; /* more than the ring has */
    assert_int_equal(write(queue->kick, &one, sizeof(one)), sizeof(one));
    while (read(queue->err, &count, sizeof(count)) != sizeof(count) && tries++ < 20000)
        pump(1);
    assert_int_equal(count, 1);
    assert_int_equal(ebb_balloon_device_status(ebb_vhost_user_device(back.session)),
                     EBB_STATUS_NEEDS_RESET);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0); /* the others go on */
    disconnect_both();
}

static bool needs_reset(void)
{
    return ebb_balloon_device_status(ebb_vhost_user_device(back.session)) & EBB_STATUS_NEEDS_RESET;
}

static void break_ring(unsigned i)
{
    struct front_queue *queue = &front.queues[i];
    const uint16_t index = queue->ring.avail[1];
    const uint64_t one = 1;
    uint64_t count = 0;

    queue->ring.avail[1] = (uint16_t)(index + 1000);
    assert_int_equal(write(queue->kick, &one, sizeof(one)), sizeof(one));
    for (unsigned tries = 0; read(queue->err, &count, sizeof(count)) < 0 && tries < 20000; tries++)
        pump(1);
    assert_int_equal(count, 1);
    assert_true(needs_reset());
    queue->ring.avail[1] = index;
}

/* QEMU has no message for a reset: it stops all queues, and starts them when the driver is back. */
static void test_broken_and_reset(void **state)
{
    unsigned i;

    (void)state;
    start_both();
    i = (unsigned)front_queue_of(&front, EBB_BALLOON_INFLATE);
    for (unsigned times = 0; times < 3; times++) {
        break_ring(i);
        assert_int_equal(front_stop(&front), 0);
        assert_false(needs_reset());
        assert_int_equal(front_start(&front), 0);
        back_settle(&back);
    }
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    disconnect_both();
}

/* Kinds of descriptors that are not what they should be. */
static void test_wrong_kinds(void **state)
{
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const uint64_t queue = 0;
    unsigned dropped;

    (void)state;
    start_both();
    dropped = back.dropped;
    assert_int_equal(front_tell(&front, FRONT_SET_VRING_KICK, &queue, 8, &null, 1), 1);
    assert_int_equal(front_tell(&front, FRONT_SET_VRING_CALL, &queue, 8, &null, 1), 1);
    assert_int_equal(front_tell(&front, FRONT_SET_VRING_ERR, &queue, 8, &null, 1), 1);
    assert_int_equal(front_tell(&front, FRONT_SET_BACKEND_REQ_FD, NULL, 0, &null, 1), 1);
    assert_int_equal(add((uint64_t)1 << 40, 4096, (uint64_t)1 << 44, 0, null), 1);
    assert_int_equal(back.dropped - dropped, 5);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    close(null);
    disconnect_both();
}

/* What looks like an eventfd, and is none. */
static void test_no_events(void **state)
{
    const uint64_t queue = 0;
    sigset_t none;
    int fds[8];

    (void)state;
    sigemptyset(&none);
    fds[0] = epoll_create1(EPOLL_CLOEXEC);
    fds[1] = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    fds[2] = signalfd(-1, &none, SFD_CLOEXEC);
    fds[3] = inotify_init1(IN_CLOEXEC);
    fds[4] = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    fds[5] = memfd_create("no-event", MFD_CLOEXEC);
    fds[6] = (int)syscall(SYS_pidfd_open, getpid(), 0);
    fds[7] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    start_both();
    for (unsigned i = 0; i < 8; i++) {
        if (fds[i] < 0)
            continue; /* not to be had here */
        assert_int_equal(front_tell(&front, FRONT_SET_VRING_KICK, &queue, 8, &fds[i], 1), 1);
        assert_int_equal(front_tell(&front, FRONT_SET_VRING_CALL, &queue, 8, &fds[i], 1), 1);
        assert_int_equal(front_tell(&front, FRONT_SET_VRING_ERR, &queue, 8, &fds[i], 1), 1);
        close(fds[i]);
    }
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    disconnect_both();
}

/* Eventfds of each kind are taken, and what they count is left to whom it is for. */
static void test_events(void **state)
{
    static const int flags[] = {0, EFD_NONBLOCK, EFD_SEMAPHORE, EFD_SEMAPHORE | EFD_NONBLOCK};
    const uint64_t queue = 0;
    uint64_t count;

    (void)state;
    connect_both();
    assert_int_equal(front_open(&front), 0);
    for (unsigned i = 0; i < 8; i++) {
        const int fd = eventfd(i < 4 ? 7 : 0, flags[i % 4] | EFD_CLOEXEC);

        assert_int_equal(front_tell(&front, FRONT_SET_VRING_CALL, &queue, 8, &fd, 1), 0);
        if (i < 4) {
            assert_int_equal(read(fd, &count, sizeof(count)), sizeof(count));
            assert_int_equal(count, flags[i] & EFD_SEMAPHORE ? 1 : 7);
        }
        close(fd);
    }
    disconnect_both();
}

/* A message to another machine, say, may wait whatever it is told. */
static void test_wrong_channels(void **state)
{
    int fds[3];

    (void)state;
    start_both();
    fds[0] = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    fds[1] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    fds[2] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (unsigned i = 0; i < 3; i++) {
        if (fds[i] < 0)
            continue; /* no network here */
        assert_int_equal(front_tell(&front, FRONT_SET_BACKEND_REQ_FD, NULL, 0, &fds[i], 1), 1);
        close(fds[i]);
    }
    ebb_balloon_device_resize(ebb_vhost_user_device(back.session), 100);
    assert_int_equal(drain_backend(), 1); /* on the one that is there */
    disconnect_both();
}

static void test_disable(void **state)
{
    uint32_t message[7] = {0, 16, 2};

    (void)state;
    start_both();
    *(char *)front_at(&front, FRONT_HIGH) = 1;
    assert_int_equal(front_tell(&front, FRONT_RESET_OWNER, NULL, 0, NULL, 0), 0);
    assert_int_equal(stats().enabled, 0);
    assert_int_equal(stats().running, 31);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    assert_int_equal(*(char *)front_at(&front, FRONT_HIGH), 1); /* without effect */
    assert_int_equal(front_tell_u64(&front, FRONT_SET_FEATURES, EBB_F_VERSION_1), 1); /* it runs */
    assert_int_equal(front_tell(&front, FRONT_SET_CONFIG, message, sizeof(message), NULL, 0), 1);
    disconnect_both();
}

/* ---- memory ---- */

static void test_slots(void **state)
{
    const uint64_t at = (uint64_t)1 << 40, user = (uint64_t)1 << 44;
    const int fd = memfd_create("front-memory-more", MFD_CLOEXEC);
    int pipes[2];

    (void)state;
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    assert_int_equal(pipe(pipes), 0);
    back_config.memory_slots = 4;
    start_both();
    assert_int_equal(ask(FRONT_GET_MAX_MEM_SLOTS), 4);
    assert_int_equal(add(at, MIB, user, 0, fd), 0);
    assert_int_equal(add(at, MIB, user, 0, fd), 1);           /* overlaps */
    assert_int_equal(add(at + MIB, 2 * MIB, user, 0, fd), 1); /* the file ends before */
    assert_int_equal(add(at + MIB, MIB, user, 4096, fd), 1);  /* so too */
    assert_int_equal(add(at + MIB, MIB, user, ~(uint64_t)4095, fd), 1);
    assert_int_equal(add(~(uint64_t)4095, MIB, user, 0, fd), 1); /* wraps */
    assert_int_equal(add(at + MIB, 0, user, 0, fd), 1);
    assert_int_equal(add(at + MIB + 1, 4096, user, 0, fd), 1);
    assert_int_equal(add(at + MIB, (uint64_t)1 << 62, user, 0, fd), 1);
    assert_int_equal(add(at + MIB, 4096, user, 0, pipes[0]), 1);
    assert_int_equal(add(at + 2 * MIB, 4096, user + MIB, 4096, fd), 0);
    assert_int_equal(add(at + 3 * MIB, 4096, user + 2 * MIB, 0, fd), 1); /* a fifth */
    assert_int_equal(back_count_maps("front-memory-more"), 2);

    assert_int_equal(rem(at, MIB, user + 4096, NULL), 1); /* by another name */
    assert_int_equal(rem(at, MIB / 2, user, NULL), 1);
    assert_int_equal(rem(at, MIB, user, NULL), 0);
    assert_int_equal(rem(at, MIB, user, NULL), 1);
    assert_int_equal(rem(at + 2 * MIB, 4096, user + MIB, &fd), 0); /* one with a descriptor */
    assert_int_equal(back_count_maps("front-memory-more"), 0);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    assert_int_equal(stats().memory_bytes, 16 * MIB);
    close(pipes[0]);
    close(pipes[1]);
    close(fd);
    disconnect_both();
}

/* A table that is refused leaves the one that is there. */
static void test_table_refused(void **state)
{
    struct {
        uint32_t n, padding;
        struct front_region regions[2];
    } message;
    int fds[2];

    (void)state;
    start_both();
    message.n = 2;
    message.regions[0] = front_region(&front, 0);
    message.regions[1] = front_region(&front, 1);
    message.regions[1].gpa = 4096;
    fds[0] = fds[1] = front.memfd;
    assert_int_equal(front_tell(&front, FRONT_SET_MEM_TABLE, &message, sizeof(message), fds, 2), 1);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    assert_int_equal(back_count_maps("front-memory"), 3); /* its own and the session's two */
    disconnect_both();
}

/* Tables come while queues run. A ring whose memory goes stops, and goes on when it is back. */
static void test_memory_under_rings(void **state)
{
    struct front_region low, high;
    const struct ebb_ring_buf buf = {FRONT_HIGH, 4096, true};
    unsigned queue;

    (void)state;
    start_both();
    queue = (unsigned)front_queue_of(&front, EBB_BALLOON_REPORTING);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    assert_int_equal(front_set_memory(&front), 0);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);

    low = front_region(&front, 0);
    high = front_region(&front, 1);
    assert_int_equal(rem(high.gpa, high.size, high.user, NULL), 0);
    assert_int_equal(stats().running, 31);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0); /* outside now, comes back */
    assert_int_equal(device_stats()->faults[EBB_FAULT_PFN], 1);
    assert_int_equal(rem(low.gpa, low.size, low.user, NULL), 0);
    assert_int_equal(stats().running, 0);
    front_give(&front, queue, &buf, 1);
    pump(5);
    assert_int_equal(ebb_ring_driver_pending(&front.queues[queue].ring), 1);
    assert_int_equal(add(high.gpa, high.size, high.user, high.offset, front.memfd), 0);
    assert_int_equal(add(low.gpa, low.size, low.user, low.offset, front.memfd), 0);
    assert_int_equal(stats().running, 31);
    assert_int_equal(front_back(&front, queue), 0);
    assert_int_equal(front_stop(&front), 0);
    disconnect_both();
}

/* A guest that has its page numbers and statistics read from memory that was never used. */
static void test_nothing_populated(void **state)
{
    static const enum ebb_balloon_queue queues[] = {EBB_BALLOON_DEFLATE, EBB_BALLOON_STATS};
    struct ebb_ring_buf bufs[FRONT_RING];
    uint64_t gpa = FRONT_HIGH, before;

    (void)state;
    start_both();
    back_settle(&back);
    before = file_bytes(front.memfd);
    for (unsigned k = 0; k < 8; k++) {
        const unsigned i = (unsigned)front_queue_of(&front, queues[k % 2]);
        unsigned tries = 0;

        for (unsigned b = 0; b < FRONT_RING; b++, gpa += 4096)
            bufs[b] = (struct ebb_ring_buf){gpa + 2048, 4, false};
        front_give(&front, i, bufs, FRONT_RING);
        if (k % 2 == 0)
            assert_int_equal(front_back(&front, i), 0);
        while (device_stats()->stats_received < (k + 1) / 2 && tries++ < 20000)
            pump(1);
        if (k % 2 == 1) {
            assert_int_equal(ebb_balloon_device_poll_stats(ebb_vhost_user_device(back.session)), 0);
            assert_int_equal(front_back(&front, i), 0);
        }
    }
    assert_in_range(device_stats()->deflated_pages, 4, 4 * FRONT_RING);
    /* The rings' own pages: descriptors, and what else lies beside them. */
    assert_in_range(file_bytes(front.memfd) - before, 0, 3 * 4096);
    disconnect_both();
}

/* Nobody waits for an answer while memory is unmapped. */
static void test_answered_before_unmapping(void **state)
{
    struct front_region region;
    const uint64_t none = 0;

    (void)state;
    start_both();
    back.count_maps = true;
    region = front_region(&front, 1);
    assert_int_equal(back_count_maps("front-memory"), 3); /* one is the front-end's own */
    assert_int_equal(rem(region.gpa, region.size, region.user, NULL), 0);
    assert_int_equal(back.maps, 3);
    assert_int_equal(back_count_maps("front-memory"), 2);
    assert_int_equal(front_tell(&front, FRONT_SET_MEM_TABLE, &none, sizeof(none), NULL, 0), 0);
    assert_int_equal(back.maps, 2);
    assert_int_equal(back_count_maps("front-memory"), 1);
    disconnect_both();
}

static void test_memory_limit(void **state)
{
    (void)state;
    back_config.memory_limit = 15 * MIB;
    connect_both();
    assert_int_equal(front_open(&front), 0);
    assert_int_equal(front_set_memory(&front), 1);
    assert_non_null(strstr(stats().refusal, "memory_limit"));
    assert_int_equal(back_count_maps("front-memory"), 1);
    disconnect_both();
}

/* What there is room for is granted, also to a very large guest in one region. */
static void test_much_memory(void **state)
{
    const uint64_t size = (uint64_t)3 << 40;
    const int fd = memfd_create("front-memory-much", MFD_CLOEXEC);
    void *here;

    (void)state;
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    here = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (here == MAP_FAILED) {
        print_message("SKIP: no room for 3 TiB (%s)\n", strerror(errno));
        close(fd);
        skip();
    }
    munmap(here, size);
    start_both();
    assert_int_equal(add((uint64_t)1 << 40, size, (uint64_t)1 << 44, 0, fd), 0);
    assert_int_equal(stats().memory_bytes, 16 * MIB + size);
    close(fd);
    disconnect_both();
}

static void test_sealed_only(void **state)
{
    (void)state;
    back_config.sealed_only = true;
    run_session();
    front_config.unsealed = true;
    connect_both();
    assert_int_equal(front_open(&front), 0);
    assert_int_equal(front_set_memory(&front), 1);
    disconnect_both();
}

/* A file on a disk is taken only where that was said. */
static void test_any_file(void **state)
{
    char path[] = "test_vhost_user.XXXXXX";
    const int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    unlink(path);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    if (fcntl(fd, F_GET_SEALS) >= 0) {
        close(fd);
        skip();
    }
    for (unsigned i = 0; i < 2; i++) {
        back_config.any_file = i == 1;
        connect_both();
        assert_int_equal(front_open(&front), 0);
        assert_int_equal(add((uint64_t)1 << 40, MIB, (uint64_t)1 << 44, 0, fd), i == 0);
        disconnect_both();
    }
    close(fd);
}

/* The front-end cuts the file under the rings. */
static void test_file_cut(void **state)
{
    (void)state;
    front_config.unsealed = true;
    back_catch_faults(); /* cmocka set its own before */
    start_both();
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    assert_int_equal(ftruncate(front.memfd, 0), 0);
    {
        const uint64_t one = 1;

        assert_int_equal(write(front.queues[0].kick, &one, sizeof(one)), sizeof(one));
    }
    for (unsigned i = 0; i < 20000 && !back.ended; i++)
        pump(1);
    assert_true(back.ended);
    assert_int_equal(back.error, EFAULT);
    disconnect_both();
}

/* A front-end that is quick: what is mapped by the session is sealed a moment later. */
static bool seal_what_is_mapped;

void *__real_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);

void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
    void *map = __real_mmap64(at, len, prot, flags, fd, offset);

    if (seal_what_is_mapped && map != MAP_FAILED && fd >= 0)
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
    return map;
}

/* The size of its pages is the file system's: a seal between two looks changes nothing. No huge
 * page is needed for that. */
static void test_sealed_while_mapped(void **state)
{
    const uint64_t gpa = (uint64_t)1 << 40, user = (uint64_t)1 << 44, index = 0;
    const struct front_addr addr = {
        .desc = user + 0x3000, .avail = user + 0x4000, .used = user + 0x5000};
    const int huge =
        memfd_create("front-memory-huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
    const struct ebb_region *region;

    (void)state;
    if (huge < 0) {
        print_message("SKIP: no hugetlbfs (%s)\n", strerror(errno));
        skip();
    }
    assert_int_equal(ftruncate(huge, 2 * (off_t)MIB), 0);
    back_catch_faults();
    connect_both();
    assert_int_equal(front_open(&front), 0);
    assert_int_equal(front_tell_u64(&front, FRONT_SET_FEATURES, front.features), 0);
    seal_what_is_mapped = true;
    assert_int_equal(add(gpa, 2 * MIB, user, 0, huge), 0);
    seal_what_is_mapped = false;
    region = ebb_memory_find(ebb_vhost_user_memory(back.session), gpa);
    assert_int_equal(region->backing, EBB_BACKING_HUGETLB);
    assert_int_equal(region->page, 2 * MIB);

    assert_int_equal(ftruncate(huge, 0), 0);
    assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_NUM, 0, FRONT_RING), 0);
    assert_int_equal(front_tell(&front, FRONT_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0), 0);
    assert_int_equal(front_tell(&front, FRONT_SET_VRING_KICK, &index, 8, &front.queues[0].kick, 1),
                     -EPIPE);
    assert_true(back.ended);
    assert_int_equal(back.error, EFAULT);
    close(huge);
    disconnect_both();
}

static bool forbid(__rlimit_resource_t resource)
{
    const struct rlimit none = {0, 0};

    return setrlimit(resource, &none) == 0;
}

static bool no_data(void)
{
    return forbid(RLIMIT_DATA);
}

static bool no_address_space(void)
{
    return forbid(RLIMIT_AS);
}

/* As many mappings as there may be (vm.max_map_count), each unlike the one beside it. */
static bool no_mappings(void)
{
    for (unsigned i = 0; i < 1u << 17; i++)
        if (mmap(NULL, 4096, i % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
            MAP_FAILED)
            return true;
    return false;
}

/* The thread sanitizer's runtime needs what the tests below take away. */
static void skip_under_tsan(void)
{
#ifdef __SANITIZE_THREAD__
    skip();
#endif
}

/* In a process of its own, forked without threads, that can have no more of something: the file is
 * cut under the rings. How it ends. */
static int cut_with(bool (*limit)(void))
{
    const uint64_t one = 1;
    pid_t child;
    int status;

    ebb_discard_pool_free(pool);
    child = fork();
    assert_true(child >= 0);
    pool = ebb_discard_pool_new(1);
    if (child == 0) {
        front_config.unsealed = true;
        back_catch_faults();
        start_both();
        if (front_report(&front, FRONT_HIGH, 4096) != 0 || ftruncate(front.memfd, 0) != 0 ||
            write(front.queues[0].kick, &one, sizeof(one)) != sizeof(one))
            _exit(1);
        if (!limit())
            _exit(77);
        while (!back.ended)
            back_pump(&back);
        _exit(back.error == EFAULT ? 0 : 2);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* A limit of data does not keep a page that is gone from being replaced. */
static void test_file_cut_no_data(void **state)
{
    (void)state;
    skip_under_tsan();
    assert_int_equal(cut_with(no_data), 0);
}

/* Nor do as many mappings as there may be. */
static void test_file_cut_no_mappings(void **state)
{
    int status;

    (void)state;
    skip_under_tsan();
    status = cut_with(no_mappings);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("SKIP: vm.max_map_count is too large to be used up\n");
        skip();
    }
    assert_int_equal(status, 0);
}

/* Where nothing is to be had any more, there is a way out all the same. */
static void test_file_cut_no_memory(void **state)
{
    int status;

    (void)state;
    skip_under_tsan();
    status = cut_with(no_address_space);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), BACK_LOST);
}

/* ---- messages that have to wait for a batch ---- */

static bool answered(void)
{
    int bytes = 0;

    assert_int_equal(ioctl(front.sock, FIONREAD, &bytes), 0);
    return bytes > 0;
}

/* While a discard goes on, and cannot be hurried, the session takes the message and nothing more;
 * whoever calls does not wait. Then it is served before another batch begins. */
static void check_waits(uint32_t request, const void *payload, uint32_t size, const int *fds,
                        unsigned n_fds, bool own_answer)
{
    static struct rig_ops calls;
    const struct ebb_ring_buf buf = {FRONT_HIGH, (uint32_t)MIB, true};
    unsigned char answer[64];
    struct front_queue *queue;
    uint64_t features;
    unsigned i;

    rig_ops_init(&calls, NULL);
    back_config.discard.ops = &calls.ops;
    start_both();
    back_settle(&back);
    i = (unsigned)front_queue_of(&front, EBB_BALLOON_REPORTING);
    queue = &front.queues[i];
    calls.gate = true;
    front_give(&front, i, &buf, 1);
    pump(2);
    rig_wait_at_gate(&calls, 1);
    front_give(&front, i, &buf, 1); /* the next batch */
    assert_int_equal(front_send(&front, request, own_answer ? 0 : FRONT_FLAG_NEED_REPLY, payload,
                                size, fds, n_fds),
                     0);
    assert_int_equal(front_send(&front, FRONT_GET_FEATURES, 0, NULL, 0, NULL, 0), 0);
    pump(20);
    assert_false(answered());
    assert_int_equal(ebb_vhost_user_wants(back.session), 0);
    assert_int_equal(calls.calls, 1);
    assert_false(ebb_discard_try_inhibit(ebb_vhost_user_discard(back.session)));
    ebb_discard_inhibit(ebb_vhost_user_discard(back.session), false);

    rig_open_gate(&calls);
    assert_true(front_answer(&front, request, answer, sizeof(answer), NULL) > 0);
    if (!own_answer)
        assert_int_equal(answer[0], 0);
    assert_int_equal(front_back(&front, i), 0); /* what was under way is back */
    assert_int_equal(front_answer(&front, FRONT_GET_FEATURES, &features, sizeof(features), NULL),
                     sizeof(features));
    assert_true(ebb_ring_driver_pending(&queue->ring) <= 1);
    assert_true(ebb_discard_try_inhibit(ebb_vhost_user_discard(back.session)));
    disconnect_both();
}

static void test_base_waits(void **state)
{
    struct front_state which = {4, 0};

    (void)state;
    check_waits(FRONT_GET_VRING_BASE, &which, sizeof(which), NULL, 0, true);
}

static void test_reset_waits(void **state)
{
    (void)state;
    check_waits(FRONT_RESET_DEVICE, NULL, 0, NULL, 0, false);
}

/* An empty table takes all memory away. */
static void test_table_waits(void **state)
{
    const uint64_t none = 0;

    (void)state;
    check_waits(FRONT_SET_MEM_TABLE, &none, sizeof(none), NULL, 0, false);
    assert_int_equal(back_count_maps("front-memory"), 0);
}

/* Who does not care that nothing is wanted waits, and loses nothing. */
static void test_unwanted_bytes(void **state)
{
    static struct rig_ops calls;
    const struct ebb_ring_buf buf = {FRONT_HIGH, (uint32_t)MIB, true};
    const struct {
        struct front_header header;
        struct front_state which;
        struct front_header more;
    } messages = {
        {FRONT_GET_VRING_BASE, 1, sizeof(struct front_state)}, {4, 0}, {FRONT_GET_FEATURES, 1, 0}};
    struct front_state base;
    uint64_t features;

    (void)state;
    rig_ops_init(&calls, NULL);
    back_config.discard.ops = &calls.ops;
    start_both();
    back_settle(&back);
    front_give(&front, 4, &buf, 1);
    assert_int_equal(ebb_vhost_user_kick(back.session, 4), 0);
    assert_int_equal(ebb_vhost_user_receive(back.session, &messages, sizeof(messages), NULL, 0), 0);
    assert_int_equal(front_answer(&front, FRONT_GET_VRING_BASE, &base, sizeof(base), NULL),
                     sizeof(base));
    assert_int_equal(front_answer(&front, FRONT_GET_FEATURES, &features, sizeof(features), NULL),
                     sizeof(features));
    assert_int_equal(base.num, 1);
    disconnect_both();
}

/* ---- inflight ---- */

/* The back-end dies with a chain taken; the next one serves it, once. */
static void test_killed(void **state)
{
    const struct ebb_ring_buf buf = {FRONT_HIGH, 4096, true};
    struct front_queue *queue;
    unsigned i;

    (void)state;
    back_config.device.gather_us = 100000; /* it waits for more, so that it can die first */
    start_both();
    i = (unsigned)front_queue_of(&front, EBB_BALLOON_REPORTING);
    queue = &front.queues[i];
    assert_int_equal(front_report(&front, FRONT_HIGH + MIB, 4096), 0);
    front_give(&front, i, &buf, 1);
    pump(2);
    assert_int_equal(ebb_ring_driver_pending(&queue->ring), 1);
    back_exit(&back);

    close(front.sock);
    front.sock = back_init(&back, &back_config, pool);
    assert_int_equal(front_open(&front), 0);
    assert_int_equal(front_tell_u64(&front, FRONT_SET_FEATURES, front.features), 0);
    assert_int_equal(front_set_memory(&front), 0);
    {
        struct front_inflight inflight = {.mmap_size = (uint64_t)lseek(front.inflight, 0, SEEK_END),
                                          .queues = FRONT_QUEUES,
                                          .queue_size = FRONT_RING};

        assert_int_equal(front_tell(&front, FRONT_SET_INFLIGHT_FD, &inflight, sizeof(inflight),
                                    &front.inflight, 1),
                         0);
    }
    assert_int_equal(front_queue_start(&front, i, 2), 0); /* past it: as if it had been served */
    assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_ENABLE, i, 1), 0);
    assert_int_equal(front_back(&front, i), 0);
    assert_int_equal(device_stats()->reported_bytes, 4096);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    disconnect_both();
}

/* Without such a region the front-end says where to begin. */
static void test_base(void **state)
{
    const struct ebb_ring_buf buf = {FRONT_HIGH, 4096, true};
    unsigned i;

    (void)state;
    connect_both();
    assert_int_equal(front_open(&front), 0);
    assert_int_equal(front_tell_u64(&front, FRONT_SET_FEATURES, front.features), 0);
    assert_int_equal(front_set_memory(&front), 0);
    i = (unsigned)front_queue_of(&front, EBB_BALLOON_REPORTING);
    front_give(&front, i, &buf, 1);
    assert_int_equal(front_queue_start(&front, i, 1), 0); /* behind it */
    assert_int_equal(front_tell_state(&front, FRONT_SET_VRING_ENABLE, i, 1), 0);
    assert_int_equal(front_report(&front, FRONT_HIGH + MIB, 8192), 0);
    assert_int_equal(device_stats()->reported_bytes, 8192);
    disconnect_both();
}

static int set_inflight(int fd, uint64_t size, uint64_t offset, uint16_t queues, uint16_t entries)
{
    const struct front_inflight inflight = {size, offset, queues, entries, 0};

    return front_tell(&front, FRONT_SET_INFLIGHT_FD, &inflight, sizeof(inflight), &fd, 1);
}

static void test_inflight(void **state)
{
    struct front_inflight inflight = {.queues = 2, .queue_size = 8};
    const uint8_t taken = 1;
    uint16_t header[8];
    int fd, null;

    (void)state;
    connect_both();
    assert_int_equal(front_open(&front), 0);
    assert_int_equal(front_send(&front, FRONT_GET_INFLIGHT_FD, 0, &inflight, 20, NULL, 0), 0);
    assert_int_equal(front_answer(&front, FRONT_GET_INFLIGHT_FD, &inflight, sizeof(inflight), &fd),
                     20);
    assert_true(fd >= 0);
    assert_int_equal(inflight.mmap_size, 2 * 192); /* 16 + 8 * 16, to 64 */
    assert_int_equal(inflight.mmap_offset, 0);
    assert_int_equal(lseek(fd, 0, SEEK_END), 2 * 192);

    assert_int_equal(set_inflight(fd, 384, 0, 2, 8), 0);
    assert_int_equal(pread(fd, header, sizeof(header), 192), sizeof(header));
    assert_int_equal(header[4], 1); /* version */
    assert_int_equal(header[5], 8); /* descriptors */
    assert_int_equal(set_inflight(fd, 384, 0, 2, 8), 0);
    assert_int_equal(set_inflight(fd, 383, 0, 2, 8), 1);
    assert_int_equal(set_inflight(fd, 384, 0, 2, 16), 1);
    assert_int_equal(set_inflight(fd, 384, 192, 2, 8), 1);
    assert_int_equal(set_inflight(fd, 384, ~(uint64_t)0, 2, 8), 1);
    assert_int_equal(set_inflight(fd, 384, 0, 0, 8), 1);
    assert_int_equal(set_inflight(fd, 384, 0, 6, 8), 1);
    assert_int_equal(set_inflight(fd, 384, 0, 2, 4), 1);
    assert_int_equal(pwrite(fd, &taken, 1, 192 + 16 + 3 * 16), 1); /* by another back-end */
    assert_int_equal(set_inflight(fd, 384, 0, 2, 8), 1);
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_int_equal(set_inflight(null, 384, 0, 2, 8), 1);
    close(null);
    close(fd);
    disconnect_both();
}

static void get_no_inflight(uint32_t size)
{
    struct front_inflight inflight = {.queues = 2, .queue_size = 8};
    int fd;

    assert_int_equal(front_send(&front, FRONT_GET_INFLIGHT_FD, 0, &inflight, size, NULL, 0), 0);
    assert_int_equal(front_answer(&front, FRONT_GET_INFLIGHT_FD, &inflight, sizeof(inflight), &fd),
                     size);
    assert_int_equal(fd, -1);
    assert_int_equal(inflight.mmap_size, 0);
}

static void limit_descriptors(rlim_t n)
{
    struct rlimit limit;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = n ? n : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* A want of resources refuses the request, and no more. */
static void test_no_inflight(void **state)
{
    (void)state;
    start_both();
    back.no_fd = ETOOMANYREFS; /* others of this user have too many on their way */
    get_no_inflight(24);
    get_no_inflight(20);
    assert_int_equal(stats().refused, 2);
    assert_int_equal(stats().refusal_error, ETOOMANYREFS);
    back.no_fd = 0;
    limit_descriptors(12); /* more than back.c polls; those in use are above */
    get_no_inflight(24);
    limit_descriptors(0);
    assert_int_equal(stats().refused, 3);
    assert_int_equal(stats().refusal_error, EMFILE);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    disconnect_both();
}

/* Descriptors that the kernel could not give are no fault of the front-end: it hears no, and the
 * operator why. */
static void test_no_room_for_descriptors(void **state)
{
    const uint64_t at = (uint64_t)1 << 40, queue = 0;
    const int fd = memfd_create("front-memory-more", MFD_CLOEXEC);

    (void)state;
    assert_int_equal(ftruncate(fd, 4096), 0);
    start_both();
    limit_descriptors(12);
    assert_int_equal(add(at, 4096, at, 0, fd), 1);
    assert_int_equal(front_set_memory(&front), 1);
    assert_int_equal(front_tell(&front, FRONT_SET_VRING_CALL, &queue, 8, &front.queues[0].call, 1),
                     1);
    limit_descriptors(0);
    assert_int_equal(stats().refused, 3);
    assert_int_equal(stats().refusal_error, EMFILE);
    assert_non_null(strstr(stats().refusal, "RLIMIT_NOFILE"));
    assert_int_equal(add(at, 4096, at, 0, fd), 0);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    disconnect_both();

    /* Who asks for no answers hears it by the end. */
    front_config.without = FRONT_P_REPLY_ACK;
    start_both();
    limit_descriptors(12);
    (void)add(at, 4096, at, 0, fd);
    back_settle(&back);
    limit_descriptors(0);
    assert_true(back.ended);
    assert_int_equal(back.error, EMFILE);
    close(fd);
    disconnect_both();
}

/* ---- the library's own edges ---- */

static void forbid_aio(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog filter = {sizeof(code) / sizeof(code[0]), code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
        _exit(77);
}

/* Calls go out where there is no AIO, too. In a process of its own, forked without threads. */
static void test_without_aio(void **state)
{
    pid_t child;
    int status;

    (void)state;
    ebb_discard_pool_free(pool);
    child = fork();
    assert_true(child >= 0);
    pool = ebb_discard_pool_new(1);
    if (child == 0) {
        forbid_aio();
        connect_both();
        _exit(front_session(&front) != 0 || front.queues[4].calls == 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("SKIP: no seccomp here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* No descriptors left, at each step of making a session and of one in use. */
static void test_no_descriptors(void **state)
{
    struct rlimit limit, all;
    unsigned failed = 0;

    (void)state;
    start_both();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
    for (rlim_t more = 0; more < 8; more++) {
        const struct ebb_vhost_user_config config = {
            .ops = back.ops, .ctx = &back, .discard.pool = pool};
        struct ebb_vhost_user *session;

        limit = all;
        limit.rlim_cur = 3 + more; /* those in use are above */
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        session = ebb_vhost_user_new(&config);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
        failed += session == NULL;
        ebb_vhost_user_free(session);
    }
    assert_true(failed > 0);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    disconnect_both();
}

static void test_new_refuses(void **state)
{
    struct ebb_vhost_user_config config = {0};

    (void)state;
    errno = 0;
    assert_null(ebb_vhost_user_new(&config));
    assert_int_equal(errno, EINVAL);
    connect_both(); /* takes a copy of a good one */
    disconnect_both();
}

static void test_fault_elsewhere(void **state)
{
    int here;

    (void)state;
    start_both();
    assert_int_equal(ebb_vhost_user_fault(back.session, &here), EBB_VHOST_USER_FAULT_ELSEWHERE);
    assert_int_equal(ebb_vhost_user_fault(NULL, &here), EBB_VHOST_USER_FAULT_ELSEWHERE);
    assert_int_equal(front_report(&front, FRONT_HIGH, 4096), 0);
    disconnect_both();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_session),
        TEST(test_session_with_slots),
        TEST(test_session_bare),
        TEST(test_session_reporting_only),
        TEST(test_stop_and_go),
        TEST(test_reset_running),
        TEST(test_features),
        TEST(test_old_front_end),
        TEST(test_refused_unasked),
        TEST(test_config),
        TEST(test_config_size),
        TEST(test_config_change),
        TEST(test_enabled_late),
        TEST(test_enabled_never),
        TEST(test_vring_refusals),
        TEST(test_kick_without_ring),
        TEST(test_stats_over_stop),
        TEST(test_ring_moves),
        TEST(test_broken_ring),
        TEST(test_broken_and_reset),
        TEST(test_base_waits),
        TEST(test_reset_waits),
        TEST(test_table_waits),
        TEST(test_unwanted_bytes),
        TEST(test_wrong_kinds),
        TEST(test_disable),
        TEST(test_call_never_waits),
        TEST(test_slots),
        TEST(test_table_refused),
        TEST(test_memory_under_rings),
        TEST(test_memory_limit),
        TEST(test_sealed_only),
        TEST(test_any_file),
        TEST(test_file_cut),
        TEST(test_killed),
        TEST(test_base),
        TEST(test_inflight),
        TEST(test_new_refuses),
        TEST(test_without_aio),
        TEST(test_no_descriptors),
        TEST(test_file_cut_no_mappings),
        TEST(test_balloon_over_reboot),
        TEST(test_answered_before_unmapping),
        TEST(test_nothing_populated),
        TEST(test_much_memory),
        TEST(test_no_inflight),
        TEST(test_no_room_for_descriptors),
        TEST(test_no_events),
        TEST(test_events),
        TEST(test_wrong_channels),
        TEST(test_kick_for_ever),
        TEST(test_fault_elsewhere),
        TEST(test_sealed_while_mapped),
        TEST(test_file_cut_no_data),
        TEST(test_file_cut_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
