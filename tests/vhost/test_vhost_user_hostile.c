/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A front-end that does mischief at each message of a session, each kind at each message in turn;
 * and one that sends what it likes. Each time another VM, of the same pool, is served on, the
 * session ends with a reason or goes on as it should, and nothing is left of it.
 */
#include "../loop/rng.h"
#include "back.h"
#include "front.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cmocka.h>

#define SESSION_LIMIT 200u /* messages, more than there are */

static struct ebb_discard_pool *pool;

/* The VM that keeps the protocol all the time. */
static struct back witness_back;
static struct front witness;

static struct back back;
static struct front front;
static unsigned fds_before, maps_before;

static int setup(void **state)
{
    const struct front_config config = {.pump = back_pump, .ctx = &witness_back};

    (void)state;
    pool = ebb_discard_pool_new(1);
    assert_non_null(pool);
    front_init(&witness, &config, back_init(&witness_back, NULL, pool));
    assert_int_equal(front_open(&witness), 0);
    assert_int_equal(front_start(&witness), 0);
    fds_before = back_count_fds();
    maps_before = back_count_maps("memfd:");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(front_stop(&witness), 0);
    front_exit(&witness);
    back_exit(&witness_back);
    ebb_discard_pool_free(pool);
    return 0;
}

static void connect_both(bool slots, uint64_t without)
{
    const struct front_config config = {
        .pump = back_pump, .ctx = &back, .slots = slots, .without = without};

    front_init(&front, &config, back_init(&back, NULL, pool));
}

/* The back-end hears all that was said, then that it was hung up on. */
static void disconnect_both(void)
{
    back_settle(&back);
    if (front.sock >= 0)
        shutdown(front.sock, SHUT_WR);
    for (unsigned i = 0; i < 1000 && !back.ended; i++)
        back_pump(&back);
    assert_true(back.ended);
    assert_non_null(back.reason);
    assert_true(back.error > 0);
    front_exit(&front);
    back_exit(&back);
}

static void check_others(void)
{
    assert_int_equal(back_count_fds(), fds_before);
    assert_int_equal(back_count_maps("memfd:"), maps_before);
    *(char *)front_at(&witness, FRONT_HIGH) = 1;
    assert_int_equal(front_report(&witness, FRONT_HIGH, 4096), 0);
    assert_int_equal(*(char *)front_at(&witness, FRONT_HIGH), 0);
}

/* Whatever the message is, this is none: the session has to end, and with these reasons. */
static const char *must_end(enum front_mischief mischief)
{
    switch (mischief) {
    case FRONT_DIE:
        return "the front-end left";
    case FRONT_DIE_IN:
        return "the end, in the middle of a message";
    case FRONT_VERSION:
    case FRONT_AS_REPLY:
        return "a header that is none";
    case FRONT_UNKNOWN:
        return "an unknown request";
    case FRONT_SHORT:
    case FRONT_LONG:
    case FRONT_HUGE:
        return "a message of the wrong size";
    case FRONT_FD_MANY:
        return "descriptors missing, or too many";
    default:
        return NULL;
    }
}

/* One session with the mischief at message `at`; whether it came so far. */
static bool run(enum front_mischief mischief, unsigned at, bool slots, uint64_t without)
{
    bool done;
    int result;

    connect_both(slots, without);
    front.mischief = mischief;
    front.mischief_at = at;
    if (mischief != FRONT_BYTEWISE)
        front.patience_ms = 5; /* it may have harmed nobody but itself, and wait for nothing */
    front.seed = rng_seed((uint64_t)mischief << 16 | at);
    result = front_session(&front);
    done = front.done;
    if (done && must_end(mischief)) {
        assert_int_not_equal(result, 0);
        disconnect_both();
        assert_string_equal(back.reason, must_end(mischief));
    } else {
        if (!done || mischief == FRONT_BYTEWISE)
            assert_int_equal(result, 0);
        disconnect_both();
    }
    check_others();
    return done;
}

static void each_message(enum front_mischief mischief, bool slots, uint64_t without)
{
    unsigned at = 0;

    while (at < SESSION_LIMIT && run(mischief, at, slots, without))
        at++;
    /* It was there at each of them. */
    assert_in_range(at, 20, SESSION_LIMIT - 1);
}

static void test_mischief(void **state)
{
    (void)state;
    for (unsigned mischief = FRONT_DIE; mischief < FRONT_MISCHIEFS; mischief++)
        each_message(mischief, false, 0);
}

static void test_mischief_slots(void **state)
{
    static const enum front_mischief mischiefs[] = {FRONT_DIE_IN,  FRONT_ONES,    FRONT_RANDOM,
                                                    FRONT_FD_NONE, FRONT_FD_MORE, FRONT_FD_PIPE};

    (void)state;
    for (unsigned i = 0; i < sizeof(mischiefs) / sizeof(mischiefs[0]); i++)
        each_message(mischiefs[i], true, 0);
}

/* Nobody asks for answers: what cannot be granted ends the session. */
static void test_mischief_unasked(void **state)
{
    static const enum front_mischief mischiefs[] = {FRONT_DIE_IN,  FRONT_ONES,     FRONT_RANDOM,
                                                    FRONT_FD_NONE, FRONT_FD_EPOLL, FRONT_BYTEWISE};

    (void)state;
    for (unsigned i = 0; i < sizeof(mischiefs) / sizeof(mischiefs[0]); i++)
        each_message(mischiefs[i], false, FRONT_P_REPLY_ACK);
}

/* ---- what it likes ---- */

static const uint8_t requests[] = {
    FRONT_GET_FEATURES,     FRONT_SET_FEATURES,          FRONT_SET_OWNER,
    FRONT_RESET_OWNER,      FRONT_SET_MEM_TABLE,         FRONT_SET_VRING_NUM,
    FRONT_SET_VRING_ADDR,   FRONT_SET_VRING_BASE,        FRONT_GET_VRING_BASE,
    FRONT_SET_VRING_KICK,   FRONT_SET_VRING_CALL,        FRONT_SET_VRING_ERR,
    FRONT_GET_QUEUE_NUM,    FRONT_GET_PROTOCOL_FEATURES, FRONT_SET_PROTOCOL_FEATURES,
    FRONT_SET_VRING_ENABLE, FRONT_SET_BACKEND_REQ_FD,    FRONT_GET_CONFIG,
    FRONT_SET_CONFIG,       FRONT_GET_INFLIGHT_FD,       FRONT_SET_INFLIGHT_FD,
    FRONT_RESET_DEVICE,     FRONT_GET_MAX_MEM_SLOTS,     FRONT_ADD_MEM_REG,
    FRONT_REM_MEM_REG,
};

static uint64_t likely(struct rng *rng, const struct front *of)
{
    switch (rng_below(rng, 8)) {
    case 0:
        return rng_next(rng);
    case 1:
        return (uintptr_t)of->memory + rng_below(rng, 1 << 18);
    case 2:
        return FRONT_HIGH;
    case 3:
        return of->config.memory / 2;
    case 4:
        return (uint64_t)rng_below(rng, 64) << 12;
    case 5:
        return of->features;
    default:
        return rng_below(rng, 6);
    }
}

/* Sizes that a payload can have. */
static uint32_t likely_size(struct rng *rng, uint8_t request)
{
    static const uint8_t sizes[] = {0, 8, 40, 72, 28, 24, 20, 12};

    switch (request) {
    case FRONT_SET_MEM_TABLE:
        return 8 + 32 * rng_below(rng, 3);
    case FRONT_ADD_MEM_REG:
    case FRONT_REM_MEM_REG:
    case FRONT_SET_VRING_ADDR:
        return 40;
    case FRONT_GET_CONFIG:
    case FRONT_SET_CONFIG:
        return 28;
    case FRONT_GET_INFLIGHT_FD:
    case FRONT_SET_INFLIGHT_FD:
        return 24;
    case FRONT_SET_FEATURES:
    case FRONT_SET_PROTOCOL_FEATURES:
    case FRONT_SET_VRING_NUM:
    case FRONT_SET_VRING_BASE:
    case FRONT_GET_VRING_BASE:
    case FRONT_SET_VRING_KICK:
    case FRONT_SET_VRING_CALL:
    case FRONT_SET_VRING_ERR:
    case FRONT_SET_VRING_ENABLE:
        return 8;
    default:
        return rng_below(rng, 16) ? 0 : sizes[rng_below(rng, sizeof(sizes))];
    }
}

static unsigned likely_fds(struct rng *rng, uint8_t request, uint32_t size)
{
    if (rng_below(rng, 50) == 0)
        return rng_below(rng, 3);
    if (request == FRONT_SET_MEM_TABLE)
        return (size - 8) / 32;
    return request == FRONT_ADD_MEM_REG || request == FRONT_SET_INFLIGHT_FD ||
           request == FRONT_SET_BACKEND_REQ_FD || request == FRONT_SET_VRING_KICK ||
           request == FRONT_SET_VRING_CALL || request == FRONT_SET_VRING_ERR;
}

/* A message that is nearly one; what it answers is thrown away. */
static void say_something(struct rng *rng)
{
    const uint8_t request = requests[rng_below(rng, sizeof(requests))];
    const uint32_t size = likely_size(rng, request);
    const unsigned n_fds = likely_fds(rng, request, size);
    const bool memory = request == FRONT_SET_MEM_TABLE || request == FRONT_ADD_MEM_REG;
    uint64_t payload[16];
    uint8_t answer[512];
    int fds[3];

    for (unsigned i = 0; i < 16; i++)
        payload[i] = likely(rng, &front);
    if (request == FRONT_SET_MEM_TABLE)
        payload[0] = rng_below(rng, 50) ? (size - 8) / 32 : payload[0];
    if (request == FRONT_GET_CONFIG || request == FRONT_SET_CONFIG)
        payload[0] = (uint64_t)16 << 32 | rng_below(rng, 8);
    if (memory && rng_below(rng, 2)) {
        const struct front_region region = front_region(&front, rng_below(rng, 2));

        memcpy(&payload[1], &region, sizeof(region));
    }
    for (unsigned i = 0; i < 3; i++)
        fds[i] = memory && rng_below(rng, 10) ? front.memfd
                                              : front.queues[rng_below(rng, FRONT_QUEUES)].kick;
    (void)front_send(&front, request, rng_below(rng, 3) ? FRONT_FLAG_NEED_REPLY : 0, payload, size,
                     fds, n_fds);
    back_settle(&back);
    if (front.sock >= 0)
        while (recv(front.sock, answer, sizeof(answer), MSG_DONTWAIT) > 0)
            ;
}

/* After a session that began as it should, so that there is something to break. */
static void babble(uint64_t seed)
{
    struct rng rng = {rng_seed(seed)};
    unsigned said = 0;

    rng = (struct rng){rng_current};
    connect_both(rng_below(&rng, 2), 0);
    if (rng_below(&rng, 4)) {
        assert_int_equal(front_open(&front), 0);
        assert_int_equal(front_start(&front), 0);
    }
    while (said++ < 200 && !back.ended)
        say_something(&rng);
    disconnect_both();
}

static void test_babble(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        babble(seed);
        check_others();
    }
}

/* Bytes of a whole session, in pieces of any size, in calls that joined several messages: the
 * library takes what a fuzzer gives it. */
static void test_pieces(void **state)
{
    static const uint32_t words[] = {1, 1,  0, 15, 1, 0, 17, 1, 0, 36, 1, 0, 24, 1, 28,
                                     0, 16, 0, 0,  0, 0, 0,  3, 1, 0,  4, 1, 0,  34};

    (void)state;
    for (size_t piece = 1; piece <= sizeof(words); piece++) {
        connect_both(false, 0);
        for (size_t at = 0; at < sizeof(words); at += piece) {
            const size_t left = sizeof(words) - at;

            assert_int_equal(ebb_vhost_user_receive(back.session, (const char *)words + at,
                                                    left < piece ? left : piece, NULL, 0),
                             0);
        }
        assert_int_equal(ebb_vhost_user_wants(back.session), 8);
        assert_int_equal(ebb_vhost_user_eof(back.session), -EBB_EPROTO);
        assert_int_equal(ebb_vhost_user_work(back.session), -EBB_EPROTO);
        assert_int_equal(ebb_vhost_user_kick(back.session, 0), -EBB_EPROTO);
        assert_int_equal(ebb_vhost_user_due(back.session), UINT64_MAX);
        front_exit(&front);
        back_exit(&back);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mischief),         cmocka_unit_test(test_mischief_slots),
        cmocka_unit_test(test_mischief_unasked), cmocka_unit_test(test_babble),
        cmocka_unit_test(test_pieces),
    };

    rng_watch();
    return cmocka_run_group_tests(tests, setup, teardown);
}
