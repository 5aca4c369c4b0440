/* SPDX-License-Identifier: BSD-2-Clause */
/* Flags of pages. Reading one of a page without memory ends the program (model.c). */
#ifndef EBB_TESTS_LINUX_MM_H
#define EBB_TESTS_LINUX_MM_H

#include "mmzone.h"

#define SHIM_BUDDY    1u
#define SHIM_REPORTED 2u
#define SHIM_HEAD     4u

/* Counted: how many pages one hold of a lock looks at. */
bool PageReported(const struct page *page);
bool PageBuddy(const struct page *page);
bool PageHead(const struct page *page);
void __SetPageReported(struct page *page);
struct zone *page_zone(const struct page *page);
unsigned int compound_order(const struct page *page);

#define page_private(page) __atomic_load_n(&(page)->private, __ATOMIC_RELAXED)

unsigned long page_to_pfn(const struct page *page);
struct page *pfn_to_page(unsigned long pfn);

#endif
