/* SPDX-License-Identifier: BSD-2-Clause */
/* x86-64: one stub per interrupt vector, and their common way into trap_dispatch(). */

	.text
	.altmacro

/* Exceptions 8, 10 to 14, 17, 21, 29 and 30 push an error code of their own. */
	.macro stub number
trap_stub_\number:
	.if \number != 8 && (\number < 10 || \number > 14) && \number != 17 && \number != 21 && \number != 29 && \number != 30
	pushq $0
	.endif
	pushq $\number
	jmp trap_common
	.endm

	.set number, 0
	.rept 256
	stub %number
	.set number, number + 1
	.endr

trap_common:
	cld
	pushq %rax
	pushq %rbx
	pushq %rcx
	pushq %rdx
	pushq %rsi
	pushq %rdi
	pushq %rbp
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, %rdi
	call trap_dispatch
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rbp
	popq %rdi
	popq %rsi
	popq %rdx
	popq %rcx
	popq %rbx
	popq %rax
	addq $16, %rsp
	iretq

/* Page faults have a way of their own, since most are what demand paging lives on: it saves only
 * what functions may change. Those that nothing is known of go on to trap_common, as they came. */
	.globl page_fault_entry
page_fault_entry:
	cld
	pushq %rax
	pushq %rcx
	pushq %rdx
	pushq %rsi
	pushq %rdi
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	movq %cr2, %rdi
	movq 72(%rsp), %rsi /* error code */
	movq 96(%rsp), %rdx /* flags */
	call trap_page_fault
	testb %al, %al /* popq leaves flags alone */
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rdi
	popq %rsi
	popq %rdx
	popq %rcx
	popq %rax
	jz 1f
	addq $8, %rsp
	iretq
1:	pushq $14
	jmp trap_common

	.section .rodata
	.balign 8
	.globl trap_stubs
	.macro address number
	.quad trap_stub_\number
	.endm
trap_stubs:
	.set number, 0
	.rept 256
	address %number
	.set number, number + 1
	.endr

	.section .note.GNU-stack, "", @progbits
