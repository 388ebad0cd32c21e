// Guests that watch the architected timers' outputs while they run (Arm ARM D11.2).
//
// The same code for both timers where both are asked the same. TVAL counts down, so -5 is past.

        .include "macros.inc"

// CTL takes the values 1, 3, 1, 0 with a report after each.
        .macro  levels name, timer, offset
        guest   \name
        check   1
        show    \timer, \offset
        expired \timer
        check   2
        control \timer, 1
        show    \timer, \offset
        check   3
        show    \timer, \offset
        control \timer, 3
        show    \timer, \offset
        check   4
        control \timer, 1
        show    \timer, \offset
        check   5
        control \timer, 0
        show    \timer, \offset
        check   6
        finish
        .endm

// The same with nothing but spinning in between: who leaves the guest, and where?
        .macro  spins name, timer
        guest   \name
        check   1
        expired \timer
        control \timer, 1
        spin
        check   2
        spin
        check   3
        control \timer, 3
        spin
        check   4
        control \timer, 1
        spin
        check   5
        control \timer, 0
        spin
        check   6
        finish
        .endm

// 30 ms ahead; spin until ISTATUS, then move CVAL away.
        .macro  future name, timer, counter, offset
        guest   \name
        check   1
        expires_in 30, \timer, \counter
        control \timer, 1
        show    \timer, \offset
        check   2
1:      mrs     x9, cnt\timer\()_ctl_el0
        tbz     x9, #2, 1b
        check   3
        show    \timer, \offset
        mov     x9, #0x1000000000000000
        msr     cnt\timer\()_cval_el0, x9
        isb
        show    \timer, \offset
        check   4
        control \timer, 0
        finish
        .endm

        levels  vt_mmio, v, 8
        levels  pt_mmio, p, 16
        spins   vt_spin, v
        spins   pt_spin, p
        future  vt_future, v, cntvct_el0, 8
        future  pt_future, p, cntpct_el0, 16

        guest   both
        check   1
        expired v
        expired p
        control v, 1
        check   2
        control p, 1
        check   3
        control v, 3
        check   4
        control p, 3
        check   5
        finish

        guest   tval
        check   1
        mov     x9, #-5
        msr     cntv_tval_el0, x9
        control v, 1
        show    v, 8
        mrs     x9, cntv_tval_el0
        asr     x9, x9, #63             // its sign
        str     x9, [x10, #24]
        check   2
        finish
