/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small vhost-user front-end with a guest's driver behind it, for tests that need no VMM: guest
 * memory on a memfd, rings by src/ring, messages over a socket, in the order in which QEMU sends
 * them. It talks to a back-end in this process (back.h) or to another one over a unix socket.
 *
 * It can be told to do mischief at the message number so and so of a session.
 *
 * Functions that talk return 0 or more, or a negative errno: -EPIPE when the back-end hung up (or
 * this end did, out of mischief), -ETIMEDOUT when it says nothing for FRONT_PATIENCE_MS, or less:
 * front.patience_ms.
 */
#ifndef EBB_TESTS_FRONT_H
#define EBB_TESTS_FRONT_H

#include <ebb/ring.h>
#include <ebb/virtio.h>

#include <sys/types.h>

#define FRONT_QUEUES      5u
#define FRONT_RING        64u /* entries */
#define FRONT_PATIENCE_MS 600000

#define FRONT_HIGH 0x100000000u /* guest address of the upper half of memory */
#define FRONT_DATA 0x100000u    /* of memory in the lower half that holds no rings */

/* Requests, features and messages of the protocol, as far as the tests name them. */
enum {
    FRONT_GET_FEATURES = 1,
    FRONT_SET_FEATURES = 2,
    FRONT_SET_OWNER = 3,
    FRONT_RESET_OWNER = 4,
    FRONT_SET_MEM_TABLE = 5,
    FRONT_SET_VRING_NUM = 8,
    FRONT_SET_VRING_ADDR = 9,
    FRONT_SET_VRING_BASE = 10,
    FRONT_GET_VRING_BASE = 11,
    FRONT_SET_VRING_KICK = 12,
    FRONT_SET_VRING_CALL = 13,
    FRONT_SET_VRING_ERR = 14,
    FRONT_GET_PROTOCOL_FEATURES = 15,
    FRONT_SET_PROTOCOL_FEATURES = 16,
    FRONT_GET_QUEUE_NUM = 17,
    FRONT_SET_VRING_ENABLE = 18,
    FRONT_SET_BACKEND_REQ_FD = 21,
    FRONT_GET_CONFIG = 24,
    FRONT_SET_CONFIG = 25,
    FRONT_GET_INFLIGHT_FD = 31,
    FRONT_SET_INFLIGHT_FD = 32,
    FRONT_RESET_DEVICE = 34,
    FRONT_GET_MAX_MEM_SLOTS = 36,
    FRONT_ADD_MEM_REG = 37,
    FRONT_REM_MEM_REG = 38,
};
#define FRONT_F_PROTOCOL      ((uint64_t)1 << 30)
#define FRONT_P_MQ            ((uint64_t)1 << 0)
#define FRONT_P_REPLY_ACK     ((uint64_t)1 << 3)
#define FRONT_P_BACKEND_REQ   ((uint64_t)1 << 5)
#define FRONT_P_CONFIG        ((uint64_t)1 << 9)
#define FRONT_P_INFLIGHT      ((uint64_t)1 << 12)
#define FRONT_P_RESET_DEVICE  ((uint64_t)1 << 13)
#define FRONT_P_MEM_SLOTS     ((uint64_t)1 << 15)
#define FRONT_FLAG_NEED_REPLY 8u
#define FRONT_NO_FD           0x100u

struct front_header {
    uint32_t request, flags, size;
};
struct front_state {
    uint32_t index, num;
};
struct front_addr {
    uint32_t index, flags;
    uint64_t desc, used, avail, log;
};
struct front_region {
    uint64_t gpa, size, user, offset;
};
struct front_inflight {
    uint64_t mmap_size, mmap_offset;
    uint16_t queues, queue_size;
    uint32_t padding;
};

enum front_mischief {
    FRONT_HONEST = 0,
    FRONT_DIE,      /* hang up instead of sending it */
    FRONT_DIE_IN,   /* in the middle of it */
    FRONT_GARBAGE,  /* as many random bytes instead, and 64 more */
    FRONT_VERSION,  /* another protocol version */
    FRONT_AS_REPLY, /* the flag of replies */
    FRONT_UNKNOWN,  /* a request that is none */
    FRONT_SHORT,    /* one byte of payload less (or 1, if there is none) */
    FRONT_LONG,     /* 8 bytes of payload more */
    FRONT_HUGE,     /* a size of 4 GiB less one */
    FRONT_ONES,     /* a payload of ones */
    FRONT_RANDOM,   /* a payload of random bytes */
    FRONT_FD_NONE,  /* without its descriptors */
    FRONT_FD_MORE,  /* one more than it needs */
    FRONT_FD_MANY,  /* a hundred */
    FRONT_FD_PIPE,  /* a pipe in the place of each */
    FRONT_FD_EPOLL, /* something without a type that is no eventfd */
    FRONT_BYTEWISE, /* byte by byte: allowed */
    FRONT_MISCHIEFS,
};
extern const char *const front_mischief_names[FRONT_MISCHIEFS];

struct front_config {
    uint64_t memory;         /* bytes, half of it at 0, half at FRONT_HIGH; default 16 MiB */
    bool unsealed;           /* the memory file can be cut */
    bool slots;              /* ADD_MEM_REG rather than SET_MEM_TABLE */
    uint64_t refuse;         /* features of those offered that are not accepted */
    uint64_t without;        /* protocol features, the same */
    int inflight;            /* of an earlier session on the same memory; 0: ask for one */
    int memfd;               /* of an earlier session; 0: make one */
    void (*pump)(void *ctx); /* let the back-end in this process run for a moment */
    void *ctx;
};

struct front_queue {
    struct ebb_ring_driver ring;
    struct ebb_ring_slot slots[FRONT_RING];
    uint64_t gpa; /* of the ring */
    int kick, call, err;
    unsigned calls; /* seen */
};

struct front {
    struct front_config config;
    int sock, backend; /* -1: closed */
    int memfd, inflight;
    char *memory;
    uint64_t features, protocol; /* accepted */
    unsigned n_queues;           /* that exist with these */
    struct front_queue queues[FRONT_QUEUES];

    unsigned sent; /* messages */
    enum front_mischief mischief;
    unsigned mischief_at; /* message, from 0 */
    bool done;            /* the mischief */
    unsigned patience_ms; /* from then on; 0: FRONT_PATIENCE_MS */
    uint64_t seed;
};

/* Aborts if it cannot. `sock` is the front-end's from then on. */
void front_init(struct front *front, const struct front_config *config, int sock);
void front_exit(struct front *front);

/* -1 with errno: cannot connect. */
int front_connect(const char *path);

/* Host address of guest memory, and of which region. */
void *front_at(const struct front *front, uint64_t gpa);
struct front_region front_region(const struct front *front, unsigned which);

/* ---- messages ---- */

/* Send one, mischief applied. */
int front_send(struct front *front, uint32_t request, uint32_t flags, const void *payload,
               uint32_t size, const int *fds, unsigned n_fds);

/* Wait for the answer to `request`: bytes of payload, at most `size`. *fd gets a descriptor that
 * came with it, -1 if none; NULL: there must be none. */
ssize_t front_answer(struct front *front, uint32_t request, void *payload, uint32_t size, int *fd);

/* Send one that is answered by its kind. */
ssize_t front_ask(struct front *front, uint32_t request, void *payload, uint32_t size,
                  uint32_t answer_size);

/* Send one that is not. With REPLY_ACK the answer is waited for: what it says. */
int front_tell(struct front *front, uint32_t request, const void *payload, uint32_t size,
               const int *fds, unsigned n_fds);
int front_tell_u64(struct front *front, uint32_t request, uint64_t value);
int front_tell_state(struct front *front, uint32_t request, uint32_t index, uint32_t num);

/* ---- a session, as QEMU sends it ---- */

int front_open(struct front *front);                         /* what comes on connecting */
int front_config_read(struct front *front, uint32_t cfg[4]); /* GET_CONFIG of all */
int front_config_write(struct front *front, const uint32_t cfg[4]);
int front_set_memory(struct front *front);
int front_queue_start(struct front *front, unsigned queue, uint16_t base);
int front_start(struct front *front); /* DRIVER_OK */
int front_stop(struct front *front);  /* the bases are as they must be */

/* All of it, with a range reported in between; front_stop() last. */
int front_session(struct front *front);

/* ---- the guest's driver ---- */

/* Number of a queue with the features accepted; -1: none. */
int front_queue_of(const struct front *front, enum ebb_balloon_queue which);

/* Make n buffers available as one chain, and kick. */
void front_give(struct front *front, unsigned queue, const struct ebb_ring_buf *bufs, unsigned n);

/* Wait until one chain of the queue is back, and the call for it; 0, or negative. */
int front_back(struct front *front, unsigned queue);

/* Report a range of memory and wait. */
int front_report(struct front *front, uint64_t gpa, uint32_t len);

#endif
