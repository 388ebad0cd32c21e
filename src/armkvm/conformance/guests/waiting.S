// Guests that wait, and guests that are interrupted.
//
// WFI completes when an interrupt is pending, masked at the CPU or not (Arm ARM D1.6.2). WFE with the
// event register set completes at once.

        .include "macros.inc"

        guest   wfi_vt_masked
        check   1
        expires_in 50, v, cntvct_el0
        control v, 1
        check   2
        wfi
        check   3
        show    v, 8
        wfi                             // the output is still high
        check   4
        control v, 3
        wfi
        check   5
        finish

        guest   wfi_vt_past
        check   1
        expired v
        control v, 1
        wfi
        check   2
        wfi
        check   3
        finish

        guest   wfi_none
        check   1
        wfi
        check   2
        wfi
        check   3
        finish

        guest   wfi_vt_imask
        check   1
        expires_in 50, v, cntvct_el0
        control v, 3
        check   2
        wfi
        check   3
        show    v, 8
        finish

        guest   wfi_pt_masked
        check   1
        expires_in 50, p, cntpct_el0
        control p, 1
        check   2
        wfi
        check   3
        show    p, 16
        wfi
        check   4
        finish

        guest   irq_vt
        check   1
        expires_in 20, v, cntvct_el0
        control v, 1
        unmask_irq
        wfi
        check   2
        show    v, 8
        expires_in 20, v, cntvct_el0
        control v, 1
        wfi
        check   3
        show    v, 8
        finish

        guest   irq_vt_spin
        check   1
        expires_in 20, v, cntvct_el0
        control v, 1
        unmask_irq
1:      mrs     x9, cntv_ctl_el0
        tbz     x9, #1, 1b              // until the handler has set IMASK
        check   2
        finish

        guest   irq_pt
        mov     x20, #1
        check   1
        expires_in 20, p, cntpct_el0
        control p, 1
        unmask_irq
        wfi
        check   2
        show    p, 16
        finish

        guest   wfe
        check   1
        sevl
        wfe
        check   2
        wfe
        check   3
        finish

        guest   cpu_suspend
        check   1
        expires_in 30, v, cntvct_el0
        control v, 1
        movz    x0, #0xc400, lsl #16    // CPU_SUSPEND, 64-bit
        movk    x0, #1
        mov     x1, #0
        mov     x2, #0
        mov     x3, #0
        hvc     #0
        str     x0, [x10, #0x70]
        finish

        guest   lines
        mov     x20, #2
        check   1
        mrs     x9, isr_el1
        str     w9, [x10, #32]
        unmask_irq
        check   2
        msr     daifset, #2
        isb
        check   3
        mrs     x9, isr_el1
        str     w9, [x10, #32]
        msr     daifclr, #1             // FIQ
        isb
        check   4
        check   5
        wfi
        check   6
        finish
