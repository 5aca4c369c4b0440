/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A discard pool without threads, in the place of src/vhost/discard_pool.c: the same input always
 * takes the same way, an execution costs no change of threads, and the input says when a batch is
 * done. What a batch does, and all that is counted, is the library's. No rate is limited. (Threads
 * are what tests/vhost/test_discard_pool.c is for.)
 */
#ifndef EBB_TESTS_SYNC_POOL_H
#define EBB_TESTS_SYNC_POOL_H

#include <ebb/vhost/discard.h>

/* Do the batch that waits longest. False: none does. */
bool sync_pool_step(struct ebb_discard_pool *pool);

#endif
