/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef EBB_TESTS_LINUX_MEMORY_HOTPLUG_H
#define EBB_TESTS_LINUX_MEMORY_HOTPLUG_H

#include "mm.h"

/* NULL: there is no memory. */
struct page *pfn_to_online_page(unsigned long pfn);

#endif
