/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the vhost-user session share. vhost_user.c has the session, and calls
 * vhost_user_message.c, which hands each message to one of the files below it: features,
 * configuration space, guest memory, queues, and what outlives the process (inflight). These answer
 * by vhost_user_reply.c; vhost_user_event.c touches the front-end's eventfds. The files are
 * declared below from the bottom up: none calls one that comes after it.
 */
#ifndef EBB_VHOST_VHOST_USER_PRIVATE_H
#define EBB_VHOST_VHOST_USER_PRIVATE_H

#include <ebb/vhost/vhost_user.h>

#include <signal.h>
#include <time.h>

/* ---- wire format: native byte order ---- */

enum ebb__vu_request {
    EBB__VU_GET_FEATURES = 1,
    EBB__VU_SET_FEATURES = 2,
    EBB__VU_SET_OWNER = 3,
    EBB__VU_RESET_OWNER = 4,
    EBB__VU_SET_MEM_TABLE = 5,
    EBB__VU_SET_VRING_NUM = 8,
    EBB__VU_SET_VRING_ADDR = 9,
    EBB__VU_SET_VRING_BASE = 10,
    EBB__VU_GET_VRING_BASE = 11,
    EBB__VU_SET_VRING_KICK = 12,
    EBB__VU_SET_VRING_CALL = 13,
    EBB__VU_SET_VRING_ERR = 14,
    EBB__VU_GET_PROTOCOL_FEATURES = 15,
    EBB__VU_SET_PROTOCOL_FEATURES = 16,
    EBB__VU_GET_QUEUE_NUM = 17,
    EBB__VU_SET_VRING_ENABLE = 18,
    EBB__VU_SET_BACKEND_REQ_FD = 21,
    EBB__VU_GET_CONFIG = 24,
    EBB__VU_SET_CONFIG = 25,
    EBB__VU_GET_INFLIGHT_FD = 31,
    EBB__VU_SET_INFLIGHT_FD = 32,
    EBB__VU_RESET_DEVICE = 34,
    EBB__VU_GET_MAX_MEM_SLOTS = 36,
    EBB__VU_ADD_MEM_REG = 37,
    EBB__VU_REM_MEM_REG = 38,
};
#define EBB__VU_BACKEND_CONFIG_CHANGE 2u /* of the back-end's requests */

/* Message flags: the version in the lower two bits. */
#define EBB__VU_VERSION_MASK 3u
#define EBB__VU_VERSION      1u
#define EBB__VU_REPLY        4u
#define EBB__VU_NEED_REPLY   8u

/* Among the device's features: there are protocol features. */
#define EBB__VU_F_PROTOCOL ((uint64_t)1 << 30)

/* Protocol features. */
#define EBB__VU_P_MQ             ((uint64_t)1 << 0)
#define EBB__VU_P_REPLY_ACK      ((uint64_t)1 << 3)
#define EBB__VU_P_BACKEND_REQ    ((uint64_t)1 << 5)
#define EBB__VU_P_CONFIG         ((uint64_t)1 << 9)
#define EBB__VU_P_INFLIGHT_SHMFD ((uint64_t)1 << 12)
#define EBB__VU_P_RESET_DEVICE   ((uint64_t)1 << 13)
#define EBB__VU_P_MEM_SLOTS      ((uint64_t)1 << 15)

struct ebb__vu_header {
    uint32_t request;
    uint32_t flags;
    uint32_t size; /* of the payload */
};
_Static_assert(sizeof(struct ebb__vu_header) == 12, "header layout");

struct ebb__vu_state {
    uint32_t index;
    uint32_t num;
};

struct ebb__vu_addr {
    uint32_t index;
    uint32_t flags;
    uint64_t desc, used, avail, log;
};
_Static_assert(sizeof(struct ebb__vu_addr) == 40, "vring address layout");

struct ebb__vu_region {
    uint64_t gpa, size, user, offset;
};
_Static_assert(sizeof(struct ebb__vu_region) == 32, "memory region layout");
#define EBB__VU_REGIONS 8u /* of SET_MEM_TABLE */

/* Before `size` bytes of configuration space. */
struct ebb__vu_config {
    uint32_t offset;
    uint32_t size;
    uint32_t flags;
};
#define EBB__VU_CONFIG_BYTES 256u

/* Senders that do not pack it have 4 bytes more at the end. */
struct ebb__vu_inflight {
    uint64_t mmap_size, mmap_offset;
    uint16_t queues, queue_size;
    uint32_t padding;
};
#define EBB__VU_INFLIGHT_PACKED 20u
_Static_assert(sizeof(struct ebb__vu_inflight) == 24, "inflight description layout");

#define EBB__VU_INDEX_MASK 0xffu  /* of the u64 of KICK, CALL, ERR */
#define EBB__VU_NO_FD      0x100u /* in it: no descriptor comes with it */

/* ---- session ---- */

struct ebb__vu_queue {
    uint32_t size;            /* 0: not set yet */
    struct ebb__vu_addr addr; /* front-end's */
    bool addressed;           /* addr is set */
    uint16_t base;            /* next available index, when it starts */
    bool enabled;             /* by the front-end */
    bool running;             /* the device serves it */
    bool suspended;           /* it would, if its ring lay in memory */
    bool resume;              /* base is the used ring's index, see vhost_user_inflight.c */
    bool kicked;              /* while held */
    uint64_t held;            /* until then, unless it is enabled; 0: it is not held */
    uint16_t taken;           /* next available index, as the last kick left it */
    unsigned empty;           /* kicks in a row that brought nothing */
    uint64_t look;            /* then it is looked at; 0: its kick is waited for */
    int kick, call, err;      /* eventfds; -1: none */
};

/* A file of guest memory, as it is mapped here: more than the region, if that does not begin at a
 * page of the file. */
struct ebb__vu_mapping {
    char *base;
    size_t len;
    int fd;
    uint64_t gpa, size, user; /* of the region */
    const char *note;         /* why it does not give memory back; NULL: it does */
};

/* Guest memory: the table and what it is made of, in any order. */
struct ebb__vu_memory {
    struct ebb_memory table;
    unsigned n;
    struct ebb__vu_mapping mappings[EBB_MEMORY_REGIONS];
    uint64_t bytes; /* of the regions */
};

struct ebb_vhost_user {
    struct ebb_vhost_user_config config;
    struct ebb__vu_memory *memory;
    /* What left it by the message that is served, and is unmapped when that is answered. */
    struct ebb__vu_memory *left;
    struct ebb__vu_mapping left_one; /* base NULL: none */
    struct ebb_discard *discard;
    struct ebb_balloon_device *device;
    struct ebb__vu_queue queues[EBB_VHOST_USER_QUEUES];
    uint64_t offered, features; /* virtio's; without bit 30 */
    bool negotiated;            /* `features` were set */
    bool anew;                  /* all queues that started since none ran are new */
    uint64_t protocol;          /* accepted */
    int backend;                /* socket for the back-end's requests; -1: none */
    bool config_pending;        /* the front-end has to be told that the configuration changed */
    uint64_t config_retry;      /* when to try again; 0: now */

    /* The message that comes in. */
    bool waiting; /* it is whole, and a batch has to end before it is served */
    size_t have;
    struct ebb__vu_header header; /* once have >= sizeof(header) */
    int fds[EBB_VHOST_USER_FDS];  /* -1: taken */
    unsigned n_fds;
    bool lost_fds; /* the kernel could not give all of them */
    _Alignas(8) unsigned char in[EBB_VHOST_USER_MESSAGE];

    struct ebb_vhost_user_events *events;

    bool ended;
    const char *reason; /* why it ended, or why the message is refused */
    int error;          /* the errno for it */
    bool refused;       /* reason and error are of a refusal */
    volatile sig_atomic_t faulted;
    struct ebb_vhost_user_stats stats;
};

/* By the discard's clock. */
static inline uint64_t ebb__vu_now(const struct ebb_vhost_user *session)
{
    const struct ebb_discard_ops *ops = session->config.discard.ops;
    struct timespec now;

    if (ops)
        return ops->now(ops->ctx);
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* ---- vhost_user_reply.c ---- */

/* End the session. Returns -error. The first reason stays. */
int ebb__vu_fail(struct ebb_vhost_user *session, int error, const char *reason);

/* Do not grant the message. Returns -error, for the handler to return; nothing has changed. */
int ebb__vu_refuse(struct ebb_vhost_user *session, int error, const char *reason);

/* The message has not as many descriptors as it must. Returns -error, as a handler does. */
int ebb__vu_wrong_fds(struct ebb_vhost_user *session);

/* The i-th descriptor of the message, which is the caller's from now on. */
int ebb__vu_take_fd(struct ebb_vhost_user *session, unsigned i);

/* Close one, or (what is left of) the message's. */
void ebb__vu_drop_fd(struct ebb_vhost_user *session, int fd);
void ebb__vu_drop_fds(struct ebb_vhost_user *session);

/* Answer the message that came in last. fd: -1, or one that is given away. The session ends if that
 * fails, unless it was only tried. */
int ebb__vu_try_answer(struct ebb_vhost_user *session, const void *payload, uint32_t size, int fd);
int ebb__vu_answer(struct ebb_vhost_user *session, const void *payload, uint32_t size, int fd);
int ebb__vu_answer_u64(struct ebb_vhost_user *session, uint64_t value);

/* After the device was at work: has a fault, or a callback, ended the session? */
int ebb__vu_settle(struct ebb_vhost_user *session);

/* ---- vhost_user_event.c ---- */

/* Of one session: the kernel's AIO is asked for when it first interrupts its guest. */
struct ebb_vhost_user_events *ebb__vu_events_new(void);

/* Is fd an eventfd; a stream socket of this machine (a send to another can wait, whatever it was
 * told); a regular file? They ask nobody who could make one wait. */
bool ebb__vu_is_event(int fd);
bool ebb__vu_is_stream(int fd);
bool ebb__vu_is_regular(int fd);

/* Read it once. 1: it was readable; 0: it was not. Negative errno: it is no such thing. */
int ebb__vu_event_clear(int fd);

/* Add one to it, never waiting for room. Negative errno: it is no eventfd. */
int ebb__vu_event_signal(struct ebb_vhost_user *session, int fd);

/* ---- vhost_user_inflight.c ---- */

int ebb__vu_get_inflight_fd(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_set_inflight_fd(struct ebb_vhost_user *session, const void *payload, uint32_t size);

/* ---- vhost_user_vring.c ---- */

void ebb__vu_queues_init(struct ebb_vhost_user *session);
void ebb__vu_queues_release(struct ebb_vhost_user *session);

/* Stop those that run, before the memory changes; and start them again where they were. A queue
 * whose ring is not in memory then stays as it is until there is more. */
void ebb__vu_queues_suspend(struct ebb_vhost_user *session);
void ebb__vu_queues_resume(struct ebb_vhost_user *session);

/* Forget what the balloon has gathered: from now on the guest may be another. */
void ebb__vu_forget(struct ebb_vhost_user *session);

/* Serve those that were not enabled in time, or whose kicks are not waited for; when the next one
 * is due. Negative: the session has ended. */
int ebb__vu_queues_work(struct ebb_vhost_user *session);
uint64_t ebb__vu_queues_due(const struct ebb_vhost_user *session);

/* Of the device. */
void ebb__vu_call(void *session, unsigned queue);
void ebb__vu_signal_errors(struct ebb_vhost_user *session);

/* All rings are enabled, or (RESET_OWNER) disabled. */
void ebb__vu_enable_all(struct ebb_vhost_user *session, bool on);
/* Its kick is readable. Negative: the session has ended. */
int ebb__vu_queue_kick(struct ebb_vhost_user *session, unsigned queue);

int ebb__vu_set_vring_num(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_set_vring_addr(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_set_vring_base(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_get_vring_base(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_set_vring_kick(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_set_vring_call(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_set_vring_err(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_set_vring_enable(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_reset_device(struct ebb_vhost_user *session, const void *payload, uint32_t size);

/* ---- vhost_user_memory.c ---- */

struct ebb__vu_memory *ebb__vu_memory_new(void);
void ebb__vu_memory_free(struct ebb__vu_memory *memory);
/* Unmap what has left. That takes its time: half a second a GiB, if nobody else has it open. */
void ebb__vu_memory_let_go(struct ebb_vhost_user *session);
/* Why a region does not give memory back; NULL: all do. */
const char *ebb__vu_memory_note(const struct ebb__vu_memory *memory);

int ebb__vu_set_mem_table(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_get_max_mem_slots(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_add_mem_reg(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_rem_mem_reg(struct ebb_vhost_user *session, const void *payload, uint32_t size);

/* ---- vhost_user_features.c ---- */

/* Protocol features. */
uint64_t ebb__vu_protocol_offered(const struct ebb_vhost_user *session);

int ebb__vu_get_features(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_set_features(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_get_protocol_features(struct ebb_vhost_user *session, const void *payload,
                                  uint32_t size);
int ebb__vu_set_protocol_features(struct ebb_vhost_user *session, const void *payload,
                                  uint32_t size);
int ebb__vu_get_queue_num(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_set_owner(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_reset_owner(struct ebb_vhost_user *session, const void *payload, uint32_t size);

/* ---- vhost_user_config.c ---- */

/* The front-end has to hear of it; if it cannot now, config_pending is set. */
void ebb__vu_config_changed(struct ebb_vhost_user *session);

int ebb__vu_get_config(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_set_config(struct ebb_vhost_user *session, const void *payload, uint32_t size);
int ebb__vu_set_backend_req_fd(struct ebb_vhost_user *session, const void *payload, uint32_t size);

/* ---- vhost_user_message.c ---- */

/* The message that waits for a batch to end, if there is one and the batch has ended. Negative: the
 * session has. */
int ebb__vu_serve_waiting(struct ebb_vhost_user *session);

#endif
