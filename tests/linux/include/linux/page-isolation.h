/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef EBB_TESTS_LINUX_PAGE_ISOLATION_H
#define EBB_TESTS_LINUX_PAGE_ISOLATION_H

#include "mmzone.h"

static inline bool is_migrate_isolate(int type)
{
    return type == MIGRATE_ISOLATE;
}

#endif
