// The exception vectors of every guest (Arm ARM D1.4: table of 16 entries of 128 bytes).
//
// An unexpected exception stores its offset at IO+0x500 and stops. A synchronous one reports ESR, ELR
// and FAR and ends the guest. What IRQ does is x20's choice: 0 reports CNTV_CTL, masks the timer and
// reports again, 1 the same for CNTP_CTL, anything else reports ISR_EL1.

        .include "macros.inc"

        .macro  unexpected offset
        .balign 128
        mov     w11, #\offset
        str     w11, [x10, #0x500]
        b       .
        .endm

        .macro  mask_timer timer, offset
        mrs     x11, cnt\timer\()_ctl_el0
        str     w11, [x10, #\offset]
        orr     x11, x11, #2            // IMASK
        msr     cnt\timer\()_ctl_el0, x11
        isb
        mrs     x11, cnt\timer\()_ctl_el0
        str     w11, [x10, #\offset + 4]
        eret
        .endm

        .balign 2048
        .global vectors
vectors:
        unexpected 0x000
        unexpected 0x080
        unexpected 0x100
        unexpected 0x180

        .balign 128                     // current EL with SP_EL1: synchronous
        mrs     x11, esr_el1
        str     w11, [x10, #0x400]
        mrs     x11, elr_el1
        str     x11, [x10, #0x408]
        mrs     x11, far_el1
        str     x11, [x10, #0x410]
        mov     w11, #0
        str     w11, [x10, #0xff0]
        b       .

        .balign 128                     // IRQ
        b       irq

        .balign 128                     // FIQ
        mrs     x11, isr_el1
        str     w11, [x10, #0x300]
        eret

        .balign 128                     // SError
        mrs     x11, esr_el1
        str     w11, [x10, #0x480]
        mrs     x11, elr_el1
        str     x11, [x10, #0x488]
        str     w11, [x10, #0xff0]
        b       .

        unexpected 0x400
        unexpected 0x480
        unexpected 0x500
        unexpected 0x580
        unexpected 0x600
        unexpected 0x680
        unexpected 0x700
        unexpected 0x780
        .balign 128

irq:    cbz     x20, 1f
        cmp     x20, #1
        b.eq    2f
        mrs     x11, isr_el1
        str     w11, [x10, #0x220]
        eret
1:      mask_timer v, 0x200
2:      mask_timer p, 0x210
