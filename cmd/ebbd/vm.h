/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VM as the supervisor sees it: a socket, and the back end that serves it. One that dies is
 * replaced, one that does not answer is killed and replaced.
 */
#ifndef EBBD_VM_H
#define EBBD_VM_H

#include "ebbd.h"

#include <json.h>

/* Adopt the back end of this name, if one runs; `listening` as below, or -1, and the VM's only if
 * this succeeds. */
bool vm_adopt(struct ebbd *ebbd, const char *name, int listening, const char *path, bool removable);

/* Start one. `listening`: its socket, at `path`, which is the VM's from now on, also if this
 * fails. `removable`: by an operator. False: errno is set (EEXIST: there is one of this name). */
bool vm_new(struct ebbd *ebbd, const char *name, int listening, const char *path, bool removable);

enum vm_end {
    VM_REMOVE, /* the back end ends, and hangs up */
    VM_LEAVE,  /* it stays, and ends with its guest; but one that has no guest yet ends */
};
void vm_free(struct vm *vm, enum vm_end how);

struct vm *vm_find(const struct ebbd *ebbd, const char *name);
const char *vm_name(const struct vm *vm);
const char *vm_path(const struct vm *vm);
bool vm_removable(const struct vm *vm);
bool vm_is_up(const struct vm *vm);
/* It is up, and owes no answer. */
bool vm_answers(const struct vm *vm);

/* What is said of it by itself: its name, socket, and how its back end is. To be put. */
void vm_describe(const struct vm *vm, struct json_object *to);

/* The state in an answer to `status`, the answer's; NULL: there is none. A back end may have been
 * taken over by its front-end: nothing that it says is taken for granted. */
struct json_object *vm_state_in(struct json_object *answer);

/* Look at what its back end says in its file, which wakes nobody. False: that is nothing, or so old
 * that it is better asked. */
bool vm_look(struct vm *vm);

/* The last state, NULL: none; the VM's. */
struct json_object *vm_seen(const struct vm *vm);
void vm_set_seen(struct vm *vm, struct json_object *status);

/* The limits that a replacement begins with. */
void vm_set_rate(struct vm *vm, uint64_t rate);
void vm_set_inhibit(struct vm *vm, bool on);

/*
 * Ask its back end. `answer` is called once: with what is put afterwards, or NULL, if there is no
 * back end or it ends before. `slow`: it may take the time that the request allows, and nobody
 * else waits behind it; otherwise a back end that does not answer within VM_PATIENCE_S, and half a
 * second for each GiB of its guest, is replaced.
 */
#define VM_PATIENCE_S 5
void vm_ask(struct vm *vm, struct json_object *request, bool slow,
            void (*answer)(void *ctx, struct json_object *answer), void *ctx);

/* A child of ours ended. */
void vm_child_ended(struct ebbd *ebbd, int pid, int wait_status);

/* Back ends in the state directory that belong to no VM are told to end with their guests. */
void vm_release_others(struct ebbd *ebbd);

#endif
