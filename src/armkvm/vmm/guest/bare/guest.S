// The built-in bare-metal guest: both architected timers through a GICv2 that user space models.
//
// A flat binary at 0x40080000, entered at EL1 with the MMU off and interrupts masked. It programs
// CNTV and CNTP for five ticks each, takes PPI 27 and PPI 30, prints what it sees on the PL011 and
// powers off through PSCI. References: Arm ARM D11 (Generic Timer), IHI 0048B (GICv2),
// DDI 0183 (PL011), DEN 0022 (PSCI). guest.hex holds the assembled words; the test compares.

        .arch   armv8-a
        .equ    UART,   0x09000000
        .equ    GICD,   0x08000000
        .equ    GICC,   0x08010000
        .equ    TICKS,  5
        .equ    PPI_V,  27
        .equ    PPI_P,  30

// x19 UART, x20 GICD, x21 GICC, x22 CNTFRQ, x23 CNTVCT at the start,
// w24 ticks of CNTV left, w25 ticks of CNTP left, x26/x27 periods of CNTV/CNTP.

        .text
_start:                                 // not global: ADR to a global symbol is left to a linker
        mov     x19, #UART
        mov     x20, #GICD
        movz    x21, #(GICC >> 16), lsl #16
        adr     x0, _start
        add     sp, x0, #16, lsl #12    // the stack ends 64 KiB behind the start
        adr     x0, vectors
        msr     vbar_el1, x0
        isb
        mov     w0, #0x301              // UARTCR: receive, transmit, enable
        str     w0, [x19, #0x30]

        adr     x0, text_hello
        bl      puts
        mrs     x22, cntfrq_el0
        mov     x0, x22
        bl      put_decimal
        adr     x0, text_gicd
        bl      puts
        ldr     w0, [x20, #4]           // GICD_TYPER.ITLinesNumber
        and     w0, w0, #0x1f
        add     w0, w0, #1
        lsl     w0, w0, #5
        bl      put_decimal
        adr     x0, text_lines
        bl      puts

        // Distributor on; priorities of the two PPIs above the mask; both enabled.
        mov     w0, #1
        str     w0, [x20, #0x000]       // GICD_CTLR
        mov     w0, #0x80
        strb    w0, [x20, #(0x400 + PPI_V)]
        strb    w0, [x20, #(0x400 + PPI_P)]
        mov     w0, #(1 << PPI_V | 1 << PPI_P)
        str     w0, [x20, #0x100]       // GICD_ISENABLER0
        mov     w0, #0xf0
        str     w0, [x21, #0x004]       // GICC_PMR
        mov     w0, #1
        str     w0, [x21, #0x000]       // GICC_CTLR

        // CNTV ticks ten times a second, CNTP eight times; at 500 ms both are due at once.
        mov     w24, #TICKS
        mov     w25, #TICKS
        mov     x0, #10
        udiv    x26, x22, x0
        lsr     x27, x22, #3
        isb
        mrs     x23, cntvct_el0
        add     x0, x23, x26
        msr     cntv_cval_el0, x0
        mrs     x0, cntpct_el0
        add     x0, x0, x27
        msr     cntp_cval_el0, x0
        mov     x0, #1                  // ENABLE, not masked
        msr     cntv_ctl_el0, x0
        msr     cntp_ctl_el0, x0
        isb

        // An interrupt that comes while they are masked still ends WFI: no tick can be missed.
idle:   orr     w0, w24, w25
        cbz     w0, done
        wfi
        msr     daifclr, #2
        isb
        msr     daifset, #2
        b       idle

done:   adr     x0, text_done
        bl      puts
off:    movz    x0, #0x8400, lsl #16    // PSCI SYSTEM_OFF
        movk    x0, #0x0008
        hvc     #0
        b       off

// The interrupt handler. Everything that the main line keeps is in x19 to x27.
irq:    stp     x0, x1, [sp, #-32]!
        stp     x2, x30, [sp, #16]
        ldr     w28, [x21, #0x00c]      // GICC_IAR
        and     w0, w28, #0x3ff
        cmp     w0, #PPI_V
        b.eq    virt
        cmp     w0, #PPI_P
        b.eq    phys
        cmp     w0, #1020
        b.hs    back                    // spurious: nothing was acknowledged
        b       eoi
virt:   sub     w24, w24, #1
        adr     x0, text_virt
        mov     w1, w24
        bl      report
        mrs     x0, cntv_cval_el0       // the next deadline is behind the last one, not behind now
        add     x0, x0, x26
        msr     cntv_cval_el0, x0
        cbnz    w24, eoi
        msr     cntv_ctl_el0, xzr
        b       eoi
phys:   sub     w25, w25, #1
        adr     x0, text_phys
        mov     w1, w25
        bl      report
        mrs     x0, cntp_cval_el0
        add     x0, x0, x27
        msr     cntp_cval_el0, x0
        cbnz    w25, eoi
        msr     cntp_ctl_el0, xzr
eoi:    isb                             // the line is low before the GIC looks at it again
        str     w28, [x21, #0x010]      // GICC_EOIR
back:   ldp     x2, x30, [sp, #16]
        ldp     x0, x1, [sp], #32
        eret

// x0 the timer's name, w1 its ticks left: "CNTV  PPI 27  tick 1  at 100 ms"
report: stp     x1, x30, [sp, #-16]!
        bl      puts
        ldr     x1, [sp]
        mov     w0, #TICKS
        sub     w0, w0, w1
        bl      put_decimal
        adr     x0, text_at
        bl      puts
        isb
        mrs     x0, cntvct_el0
        sub     x0, x0, x23
        mov     x1, #1000
        mul     x0, x0, x1
        udiv    x0, x0, x22
        bl      put_decimal
        adr     x0, text_ms
        bl      puts
        ldp     x1, x30, [sp], #16
        ret

// An exception that should not be: say which, and leave.
bad:    adr     x0, text_bad
        bl      puts
        mrs     x0, esr_el1
        bl      put_hex
        mrs     x0, elr_el1
        bl      put_hex
        mrs     x0, far_el1
        bl      put_hex
        mov     w0, #'\n'
        bl      putc
        b       off

putc:   ldr     w2, [x19, #0x18]        // UARTFR.TXFF
        tbnz    w2, #5, putc
        str     w0, [x19]
        ret

puts:   stp     x3, x30, [sp, #-16]!
        mov     x3, x0
1:      ldrb    w0, [x3], #1
        cbz     w0, 2f
        bl      putc
        b       1b
2:      ldp     x3, x30, [sp], #16
        ret

put_hex:
        stp     x3, x30, [sp, #-32]!
        str     x4, [sp, #16]
        mov     x3, x0
        mov     x4, #60
1:      lsr     x0, x3, x4
        and     w0, w0, #15
        cmp     w0, #10
        add     w1, w0, #'0'
        add     w0, w0, #('a' - 10)
        csel    w0, w1, w0, lo
        bl      putc
        subs    x4, x4, #4
        b.pl    1b
        mov     w0, #' '
        bl      putc
        ldr     x4, [sp, #16]
        ldp     x3, x30, [sp], #32
        ret

// The digits are pushed from the last to the first, then popped.
put_decimal:
        stp     x3, x30, [sp, #-32]!
        stp     x4, x5, [sp, #16]
        mov     x3, #10
        mov     w5, #0
1:      udiv    x4, x0, x3
        msub    x1, x4, x3, x0
        add     w1, w1, #'0'
        str     x1, [sp, #-16]!
        add     w5, w5, #1
        mov     x0, x4
        cbnz    x0, 1b
2:      ldr     x0, [sp], #16
        bl      putc
        sub     w5, w5, #1
        cbnz    w5, 2b
        ldp     x4, x5, [sp, #16]
        ldp     x3, x30, [sp], #32
        ret

text_hello: .asciz "armkvm: the built-in bare-metal guest\ncounter at "
text_gicd:  .asciz " Hz, GICv2 with "
text_lines: .asciz " interrupt lines\n"
text_virt:  .asciz "CNTV  PPI 27  tick "
text_phys:  .asciz "CNTP  PPI 30  tick "
text_at:    .asciz "  at "
text_ms:    .asciz " ms\n"
text_done:  .asciz "BOOT-OK both timers ticked; powering off\n"
text_bad:   .asciz "unexpected exception (ESR, ELR, FAR): "

// Arm ARM D1.10.2: sixteen entries of 128 bytes. Only "IRQ from the current EL with SP_ELx" is
// expected here.
        .balign 2048
vectors:
        .rept   5
        b       bad
        .balign 128
        .endr
        b       irq
        .balign 128
        .rept   9
        b       bad
        .balign 128
        .endr
        b       bad
        .balign 128
