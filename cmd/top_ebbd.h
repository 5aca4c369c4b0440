/* SPDX-License-Identifier: BSD-2-Clause */
/* The VMs of an ebbd, for `ebb top`: by its control socket, without waiting. */
#ifndef TOP_EBBD_H
#define TOP_EBBD_H

#include "control.h"
#include "top_view.h"

enum top_ebbd_step { TOP_EBBD_NEW, TOP_EBBD_HELLO, TOP_EBBD_IDLE, TOP_EBBD_ASKED };

struct top_ebbd {
    struct control control;

    /* Private. */
    enum top_ebbd_step step;
    uint64_t asked_ns;
    struct json_object *now, *before; /* the last two answers */
    bool lost;                        /* and since then it is gone */
};

void top_ebbd_init(struct top_ebbd *ebbd, const char *path);
void top_ebbd_close(struct top_ebbd *ebbd);

/* Ask how its VMs are; connect first if need be. False: that failed, control.error says why. */
bool top_ebbd_ask(struct top_ebbd *ebbd, uint64_t now_ns);

/* Take what has come. */
void top_ebbd_hear(struct top_ebbd *ebbd);

/* Nothing is waited for. */
bool top_ebbd_settled(const struct top_ebbd *ebbd);

/* Add its rows, and tell what is wrong with it. */
void top_ebbd_show(const struct top_ebbd *ebbd, uint64_t now_ns, struct top_rows *rows,
                   struct top_view *view);

#endif
