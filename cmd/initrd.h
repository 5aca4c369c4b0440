/* SPDX-License-Identifier: BSD-2-Clause */
/* A Linux guest's initramfs with one file more: the module ebb_reporting. */
#ifndef EBB_CMD_INITRD_H
#define EBB_CMD_INITRD_H

/*
 * The file `initrd` and behind it an archive with `module` as /modules/ebb_reporting.ko: a kernel
 * unpacks one after the other. A descriptor of memory, to be closed; negative, after an
 * explanation on stderr: it cannot be made.
 */
int initrd_with_module(const char *initrd, const char *module);

#endif
