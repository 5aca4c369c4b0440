/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef EBB_TESTS_LINUX_SLAB_H
#define EBB_TESTS_LINUX_SLAB_H

#include <stdlib.h>

#define GFP_KERNEL             0
#define kvcalloc(n, size, gfp) calloc(n, size)
#define kzalloc(size, gfp)     calloc(1, size)
#define kvfree(pointer)        free(pointer)
#define kfree(pointer)         free(pointer)

#endif
