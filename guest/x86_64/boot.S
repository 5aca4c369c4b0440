/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * x86-64: the way from the loader to C. CPU 0 comes by PVH, in 32-bit protected
 * mode without paging and with ebx at the start info; further CPUs come out of
 * a start-up IPI in real mode, at a copy of ap_trampoline below 1 MiB.
 */
#include "x86.h"

/* The note by which a loader finds a PVH kernel: XEN_ELFNOTE_PHYS32_ENTRY. */
	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 4, 18
	.asciz "Xen"
	.long entry32

#define AP_LIMIT 64 /* ARCH_CPU_LIMIT */
#define EFER_MSR 0xc0000080
#define EFER_LME 0x100
#define CR4_PAE  0x20
#define CR0_PG_WP_PE 0x80010001

	.section .text.boot, "ax"
	.code32
	.globl entry32
entry32:
	cli
	cld
	movl %ebx, %ebp
	movl $boot_stack_end, %esp

	/* One to one, 4 GiB, by pages of 2 MiB: to be replaced by paging.c. */
	movl $boot_pdpt + 3, boot_pml4
	movl $boot_pd + 3, %eax
	movl $boot_pdpt, %edi
	movl $4, %ecx
1:	movl %eax, (%edi)
	addl $4096, %eax
	addl $8, %edi
	loop 1b
	movl $0x83, %eax
	movl $boot_pd, %edi
	movl $2048, %ecx
2:	movl %eax, (%edi)
	addl $0x200000, %eax
	addl $8, %edi
	loop 2b

	movl $boot_pml4, %eax
	movl %eax, %cr3
	movl %cr4, %eax
	orl $CR4_PAE, %eax
	movl %eax, %cr4
	movl $EFER_MSR, %ecx
	rdmsr
	orl $EFER_LME, %eax
	wrmsr
	movl $CR0_PG_WP_PE, %eax
	movl %eax, %cr0
	lgdt boot_gdtr
	ljmp $SELECTOR_CODE, $entry64

	.code64
entry64:
	movl $SELECTOR_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	movl %ebp, %edi
	movq $boot_stack_end, %rsp
	xorl %ebp, %ebp
	call arch_start
	ud2

/* ---- further CPUs ---- */

#define AT(label) (label - ap_trampoline + TRAMPOLINE)

	.section .rodata.trampoline, "a"
	.globl ap_trampoline, ap_trampoline_end
	.code16
ap_trampoline:
	cli
	cld
	xorw %ax, %ax
	movw %ax, %ds
	lgdtl AT(ap_gdtr)
	movl $1, %eax
	movl %eax, %cr0
	ljmpl $SELECTOR_CODE32, $AT(ap_entry32)
	.code32
ap_entry32:
	movl $SELECTOR_DATA, %eax
	movl %eax, %ds
	movl %cr4, %eax
	orl $CR4_PAE, %eax
	movl %eax, %cr4
	movl ap_cr3, %eax
	movl %eax, %cr3
	movl $EFER_MSR, %ecx
	rdmsr
	orl $EFER_LME, %eax
	wrmsr
	movl $CR0_PG_WP_PE, %eax
	movl %eax, %cr0
	ljmp $SELECTOR_CODE, $ap_entry64
	.balign 4
ap_gdtr:
	.word boot_gdt_end - boot_gdt - 1
	.long boot_gdt
ap_trampoline_end:

	.section .text.boot, "ax"
	.code64
ap_entry64:
	movl $SELECTOR_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	movl $1, %edi
	lock xaddl %edi, ap_next
	cmpl $AP_LIMIT, %edi
	jae 1f
	movq ap_stacks(, %rdi, 8), %rsp
	testq %rsp, %rsp
	jz 1f
	xorl %ebp, %ebp
	call ap_start
1:	cli
	hlt
	jmp 1b

	.section .rodata
	.balign 8
boot_gdt:
	.quad 0
	.quad 0x00af9b000000ffff /* code, 64-bit */
	.quad 0x00cf93000000ffff /* data */
	.quad 0, 0
	.quad 0x00cf9b000000ffff /* code, 32-bit, on the way up */
boot_gdt_end:
boot_gdtr:
	.word boot_gdt_end - boot_gdt - 1
	.quad boot_gdt

	.data
	.balign 8
	.globl ap_next, ap_cr3
ap_next:
	.long 1
ap_cr3:
	.long 0

	.bss
	.balign 4096
	.globl ap_stacks
ap_stacks:
	.skip AP_LIMIT * 8
	.balign 4096
boot_pml4:
	.skip 4096
boot_pdpt:
	.skip 4096
boot_pd:
	.skip 4 * 4096
	.skip 16384 /* as CPU_STACK */
boot_stack_end:

	.section .note.GNU-stack, "", @progbits
