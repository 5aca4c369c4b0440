/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The back-end's half of the vhost-user protocol, for a balloon: what a front-end (QEMU,
 * crosvm, cloud-hypervisor) says on its socket, turned into guest memory, rings and a balloon
 * device. Hosted (Linux); no sockets, no event loop, no threads: whoever embeds it reads the
 * socket, waits for descriptors, and is called back to send.
 *
 * A *session* is one connection of one front-end. It owns a memory table, a discard and a
 * balloon device. The front-end is hostile: whatever it sends costs bounded work and memory, and
 * at worst the session ends, with a reason. The rest of the process does not notice, if it does
 * what ebb_vhost_user_fault() says.
 *
 * An answer is due? A request that is well-formed but cannot be granted (a region that overlaps
 * another, say) is refused by a non-zero answer where the front-end asked for one (REPLY_ACK),
 * and nothing has changed then; else the session ends, since the front-end would go on as if it
 * were granted. What is malformed (sizes, number of descriptors, an unknown request) always ends
 * it. A want of memory or descriptors is no malformed message; where no answer can say it, the
 * session ends.
 *
 * Threads: one thread calls all functions on a session; the callbacks are called on it, but for
 * `wake`. Callbacks must not call functions on the session. ebb_vhost_user_free(), which waits,
 * can be left to another thread; its `unwatch` and `drop` are called there then.
 *
 * A guest's chains go back in order on each queue (balloon_device.h), so the index of the used ring
 * says where to go on after the process died: what had not gone back by then is served anew, and
 * the guest has not used such pages again. INFLIGHT_SHMFD is offered so that front-ends do
 * reconnect; with it a queue starts at the used index, whatever SET_VRING_BASE says. The region
 * says in its format that no chain is in flight, which is what any back-end has to know for the
 * same.
 *
 * STATUS is not offered: QEMU sets the status to 0 whenever it pauses the VM, and never says
 * DRIVER_OK.
 *
 * A queue that is started and not enabled yet holds its chains for EBB_VHOST_USER_HOLD_MS:
 * front-ends start all queues, then enable them, and what is waiting there would go back without
 * effect in between. That and the device's answer_ms are the time that a driver waits.
 *
 * System calls that a running session needs, besides those of the discard: clock_gettime close
 * fcntl fstat (newfstatat) fstatfs ftruncate getsockopt io_destroy io_getevents io_setup io_submit
 * madvise memfd_create mmap munmap poll pread64 preadv2 pwrite64 statx write.
 */
#ifndef EBB_VHOST_VHOST_USER_H
#define EBB_VHOST_VHOST_USER_H

#include <ebb/types.h>
#include <ebb/vhost/balloon_device.h>
#include <ebb/vhost/discard.h>
#include <ebb/vhost/memory.h>

/* Queues that a front-end may name: 0 to this, less one. */
#define EBB_VHOST_USER_QUEUES EBB_BALLOON_QUEUES

/* Descriptors that one message can need at most (SET_MEM_TABLE). */
#define EBB_VHOST_USER_FDS 8u

/* Milliseconds that a queue waits to be enabled. */
#define EBB_VHOST_USER_HOLD_MS 20u

/* Milliseconds between two looks at a queue whose kick is always readable and brings nothing. */
#define EBB_VHOST_USER_LOOK_MS 20u

/* A message at most, with its header of 12 bytes, in either direction. */
#define EBB_VHOST_USER_MESSAGE 280u

struct ebb_vhost_user_ops {
    /*
     * An answer, from receive(), work() or kick(): len bytes, at most EBB_VHOST_USER_MESSAGE, to be
     * copied if they cannot be sent at once. `fd` is -1, or goes with the first byte; it is the
     * callee's to close, whatever it returns. Negative: nothing was sent, and the session ends; but
     * if it was to go with a descriptor, -ENOMEM, -ENOBUFS and -ETOOMANYREFS (which others of the
     * same user can bring about) mean that it is called again, with an answer that says no. There
     * is one answer at most for each message: who takes up no further bytes while it is unsent has
     * to keep one message.
     */
    int (*send)(void *ctx, const void *bytes, size_t len, int fd);
    /*
     * A message to the front-end on the socket that it gave for that (BACKEND_REQ): len bytes, at
     * most EBB_VHOST_USER_MESSAGE, all or nothing, without waiting (MSG_DONTWAIT) and
     * without a signal (MSG_NOSIGNAL). -EBB_EAGAIN: there is no room, it is sent again later.
     * Other negative values: that socket is not used any more. NULL: BACKEND_REQ is not offered.
     * No answers are asked for on it, so nobody has to read from it.
     */
    int (*send_backend)(void *ctx, int fd, const void *bytes, size_t len);
    /*
     * Call ebb_vhost_user_kick() whenever fd is readable, until `unwatch`, which comes before it
     * is closed. Negative: cannot. Edge- or level-triggered; the session reads it, in a way
     * that cannot wait (a plain read() can, whatever flags were set: the front-end shares them).
     * Of a kick that is readable again and again although the queue has nothing, it is told to
     * `unwatch`; it looks at the queue every EBB_VHOST_USER_LOOK_MS then (`due`), and watches the
     * same kick again when that is quiet, or there is work.
     */
    int (*watch)(void *ctx, unsigned queue, int fd);
    void (*unwatch)(void *ctx, unsigned queue, int fd);
    /* From a pool thread, at any time until ebb_vhost_user_free() has returned: have
     * ebb_vhost_user_work() called on the session's thread. */
    void (*wake)(void *ctx);
    /* Close a descriptor that came with a message and may be of any kind: close() of a file on
     * FUSE, or of a socket, can wait as long as the front-end wants, so do it in a thread that
     * nobody waits for. Until ebb_vhost_user_free() has returned. NULL: close(). */
    void (*drop)(void *ctx, int fd);
};

/*
 * What interrupts guests, for any number of sessions on any threads of one process (it does not
 * survive a fork()): the kernel's AIO, by which a front-end that fills its eventfd cannot make
 * anybody wait. Where AIO is not allowed at all (EPERM, ENOSYS), one that means to can.
 */
struct ebb_vhost_user_events;

/* NULL, with errno set: no memory, no descriptor, or (EAGAIN) the system's limit of AIO is used up
 * (fs.aio-max-nr). */
struct ebb_vhost_user_events *ebb_vhost_user_events_new(void);

/* No session uses it any more. NULL is ignored. Waits some 40 ms for the kernel (io_destroy()). */
void ebb_vhost_user_events_free(struct ebb_vhost_user_events *events);

/* Zero means default for every field but ops and discard.pool. */
struct ebb_vhost_user_config {
    const struct ebb_vhost_user_ops *ops;
    void *ctx;
    /* NULL: the session has one of its own, which costs a descriptor, and those 40 ms in the end if
     * it ever interrupted its guest. */
    struct ebb_vhost_user_events *events;
    /* Of the session's device and discard. What the session sets itself (device.memory, .discard,
     * .ops, .ctx, discard.memory) must be NULL. */
    struct ebb_balloon_device_config device;
    struct ebb_discard_config discard;
    /* Bytes of guest memory that the front-end may have mapped here, all regions together: the
     * address space is shared by all sessions. Default 64 TiB; more than the machine's address
     * space is refused by the kernel. */
    uint64_t memory_limit;
    /* Memory slots offered (GET_MAX_MEM_SLOTS); 1 to EBB_MEMORY_REGIONS. Default: as many. */
    unsigned memory_slots;
    /* Take guest memory on any file system. By default only shmem (memfd, tmpfs) and hugetlbfs are
     * taken: a file of another can make whoever looks at it wait as long as it wants to (FUSE,
     * NFS). */
    bool any_file;
    /* Take files only that cannot be made shorter (F_SEAL_SHRINK), as QEMU's memory-backend-memfd
     * makes them by default. tmpfs files, and hugetlbfs files made by path, cannot be sealed. */
    bool sealed_only;
};

struct ebb_vhost_user;

/* NULL, with errno set: no memory, or a bad configuration (EINVAL). */
struct ebb_vhost_user *ebb_vhost_user_new(const struct ebb_vhost_user_config *config);

/* Waits for a batch under way; then nothing of it is left: no descriptor, no mapping. `unwatch` is
 * called for what is still watched. Where the session's are the last references to the guest's
 * memory the kernel frees that here, which takes half a second a GiB or so: hang up before. Memory
 * that a front-end takes away is let go when that message was answered. */
void ebb_vhost_user_free(struct ebb_vhost_user *session);

/* ---- the socket ---- */

/*
 * Bytes to read from the socket next, at most: never beyond the end of the message that is
 * coming in, so that descriptors can be told apart (a stream socket joins messages, and the
 * descriptors of a recvmsg() may be those of the last byte it returned).
 *
 * 0: the message that came in stops queues or takes memory away, and waits for the batch under way
 * to end; a kick() or work() serves it then. Read nothing until this is more than 0 again. (Who
 * calls receive() all the same has it wait.)
 */
size_t ebb_vhost_user_wants(const struct ebb_vhost_user *session);

/*
 * What one recvmsg() of the above length brought: len bytes (1 at least) and n_fds descriptors,
 * that are the session's from then on, whatever it returns. More bytes than were wanted are
 * taken, too, as long as no answer is due in between; the descriptors belong to the message of the
 * first byte.
 * Have room for 253 descriptors (SCM_MAX_FD), so that surplus ones come here to be closed. Of those
 * that the kernel could not give (MSG_CTRUNC: the process may have no more open) tell
 * ebb_vhost_user_lost_fds(), before.
 * Negative: the session has ended, ebb_vhost_user_reason() says why; free it.
 */
EBB_MUST_CHECK int ebb_vhost_user_receive(struct ebb_vhost_user *session, const void *bytes,
                                          size_t len, const int *fds, unsigned n_fds);

/* Not all descriptors came with the bytes that the next receive() gets: what misses them is
 * refused, for want of room. */
void ebb_vhost_user_lost_fds(struct ebb_vhost_user *session);

/* The front-end closed the socket. 0: between two messages. -EBB_EPROTO: in the middle of one. The
 * session has ended in both cases; free it. */
EBB_MUST_CHECK int ebb_vhost_user_eof(struct ebb_vhost_user *session);

/* ---- events ---- */

/* A watched kick is readable. Bounded work. Negative: the session has ended. */
EBB_MUST_CHECK int ebb_vhost_user_kick(struct ebb_vhost_user *session, unsigned queue);

/* After `wake`, and when `due`. Bounded work. 1: there is more to do at once, call it again when
 * others had their turn. 0: there is not. Negative: the session has ended. */
EBB_MUST_CHECK int ebb_vhost_user_work(struct ebb_vhost_user *session);

/* When work() wants to be called without a wake, by the discard's clock (ns); UINT64_MAX: never. */
uint64_t ebb_vhost_user_due(const struct ebb_vhost_user *session);

enum ebb_vhost_user_fault {
    EBB_VHOST_USER_FAULT_ELSEWHERE = 0, /* not in its guest memory */
    EBB_VHOST_USER_FAULT_MENDED,        /* it can be used from now on: return */
    EBB_VHOST_USER_FAULT_LOST,          /* it is there, and the kernel gave no page for it */
};

/*
 * To be called from the process's handler of SIGBUS, for the session that the thread was working
 * on, with the address that failed (si_addr).
 *
 * Guest memory is files that the front-end can make shorter at any time, unless they are sealed,
 * and even then there may be no page left for them (hugetlbfs, a full tmpfs). The thread that
 * reads a ring there gets a SIGBUS. This puts zeroes in place of the region that failed, so that
 * the handler can return; the next function called on the session, or the one that runs, ends it.
 * Async-signal-safe. The pool's threads do not touch guest memory.
 *
 * The kernel can refuse even that (no memory, a limit of the process). Then nothing can go on: the
 * handler ends the process, with a word on why, or leaves by siglongjmp() and never calls a
 * function on the session again. A handler that gets ELSEWHERE restores the default action and
 * returns. SIGBUS must not be blocked: the kernel would kill the process without a word.
 */
enum ebb_vhost_user_fault ebb_vhost_user_fault(struct ebb_vhost_user *session, const void *addr);

/* ---- sight ---- */

/* Why the session ended: a phrase ("a message of the wrong size"), static storage. NULL: it has
 * not. *error, unless that is NULL: the errno that belongs to it. */
const char *ebb_vhost_user_reason(const struct ebb_vhost_user *session, int *error);

/* The session's own, for what an operator does; valid until it is freed. Not to be started,
 * stopped or reset. */
struct ebb_balloon_device *ebb_vhost_user_device(struct ebb_vhost_user *session);
struct ebb_discard *ebb_vhost_user_discard(struct ebb_vhost_user *session);
const struct ebb_memory *ebb_vhost_user_memory(const struct ebb_vhost_user *session);

struct ebb_vhost_user_stats {
    uint64_t messages;        /* served */
    uint64_t refused;         /* of them, by a non-zero answer */
    uint64_t calls;           /* interrupts sent */
    uint64_t config_changes;  /* messages sent to the front-end */
    uint64_t memory_bytes;    /* mapped now */
    uint32_t running;         /* queues, bit i: queue i */
    uint32_t enabled;         /* the same */
    uint32_t last_request;    /* number of the last request whose header came in; 0: none */
    uint64_t features;        /* accepted, without bit 30 */
    uint64_t protocol;        /* protocol features accepted */
    const char *memory_notes; /* why some region does not give memory back; NULL: all do */
    const char *refusal;      /* why the last refused request was, a phrase; NULL: none was */
    int refusal_error;        /* the errno for it */
};
void ebb_vhost_user_get_stats(const struct ebb_vhost_user *session,
                              struct ebb_vhost_user_stats *stats);

#endif
