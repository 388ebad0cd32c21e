// Where a stub in the program calls: x8 is the number, x0 to x5 the arguments, as for SVC. All
// registers but x0 are the caller's again on return, the flags too; x29 and x30 are the stub's.
	.section .text.entry, "ax"
	.globl	armkvm_entry
armkvm_entry:
	sub	sp, sp, #176
	stp	x0, x1, [sp]
	stp	x2, x3, [sp, #16]
	stp	x4, x5, [sp, #32]
	stp	x6, x7, [sp, #48]
	stp	x8, x9, [sp, #64]
	stp	x10, x11, [sp, #80]
	stp	x12, x13, [sp, #96]
	stp	x14, x15, [sp, #112]
	stp	x16, x17, [sp, #128]
	stp	x18, x30, [sp, #144]
	mrs	x9, nzcv
	str	x9, [sp, #160]
	mov	x0, sp
	mov	x1, x8
	bl	armkvm_hook
	ldr	x9, [sp, #160]
	msr	nzcv, x9
	ldr	x1, [sp, #8]
	ldp	x2, x3, [sp, #16]
	ldp	x4, x5, [sp, #32]
	ldp	x6, x7, [sp, #48]
	ldp	x8, x9, [sp, #64]
	ldp	x10, x11, [sp, #80]
	ldp	x12, x13, [sp, #96]
	ldp	x14, x15, [sp, #112]
	ldp	x16, x17, [sp, #128]
	ldp	x18, x30, [sp, #144]
	add	sp, sp, #176
	ret

// long armkvm_on_stack(work, argument, stack)
	.text
	.globl	armkvm_on_stack
armkvm_on_stack:
	stp	x29, x30, [sp, #-32]!
	str	x19, [sp, #16]
	mov	x29, sp
	mov	x19, sp
	mov	sp, x2
	mov	x9, x0
	mov	x0, x1
	blr	x9
	mov	sp, x19
	ldr	x19, [sp, #16]
	ldp	x29, x30, [sp], #32
	ret
