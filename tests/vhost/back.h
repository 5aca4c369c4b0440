/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vhost-user session in this process, with a loop around it that is as small as can be, and
 * what tests look at: descriptors and mappings of the process.
 */
#ifndef EBB_TESTS_BACK_H
#define EBB_TESTS_BACK_H

#include <ebb/vhost/vhost_user.h>

struct back {
    struct ebb_vhost_user *session;
    const struct ebb_vhost_user_ops *ops;
    int sock; /* -1: closed */
    int wake; /* eventfd */
    int kicks[EBB_VHOST_USER_QUEUES];
    bool ended; /* as an error or the end of the socket was returned */
    int error;
    const char *reason; /* why it ended */
    bool deaf;          /* there is no room on the channel for requests */
    unsigned dropped;   /* descriptors */
    bool count_maps;    /* `maps` is wanted */
    unsigned maps;      /* of guest memory as the last answer was sent */
    int no_fd;          /* no answer takes a descriptor along: the errno; 0: they do */
};

/* Aborts if it cannot. Returns the front-end's end of the socket. `config` may be NULL; its ops,
 * ctx and, if it has none, pool are set. */
int back_init(struct back *back, const struct ebb_vhost_user_config *config,
              struct ebb_discard_pool *pool);
void back_exit(struct back *back);

/* Serve what is there, wait a moment for more. A session that ended is freed. `back` is a struct
 * back: front_config.pump. */
void back_pump(void *back);

/* Until nothing that was sent is unread. */
void back_settle(struct back *back);

/* Let SIGBUS in guest memory end the session at work; if there is no way, the process exits with
 * BACK_LOST. */
#define BACK_LOST 5
void back_catch_faults(void);

/* Of this process: open descriptors, and mappings whose name holds `name`. */
unsigned back_count_fds(void);
unsigned back_count_maps(const char *name);

#endif
