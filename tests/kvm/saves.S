// A bare-metal guest that goes through the states in which an interrupt can be: pending by a level
// that nobody was told of, masked in four ways, taken, active, nested, pending again. Between two
// steps it writes to the UART, which is an exit; a save there finds the state.
//
// A flat binary at 0x40080000, one CPU, no MMU. The word at `kind` is 2 or 3: the GIC's version.
// x19 UART, x20 GICD, x21 GICC or the redistributor's second frame, x25 nest, x26 interrupts taken.
// An interrupt shows as a letter, 'A' plus the low four bits of its number, and a point at its end.

        .arch   armv8.1-a
        .equ    VTIMER, 27
        .equ    PTIMER, 30
        .equ    UART_INTID, 33
        .equ    EDGE, 40                // an SPI without a device
        .equ    SGI, 5
        .equ    SYSTEM_OFF, 0x84000008
        .equ    ENABLED, 1
        .equ    ENABLED_MASKED, 3
        .equ    UARTIMSC, 0x38
        .equ    UARTICR, 0x44
        .equ    TXIM, 1 << 5
        .equ    ISENABLER, 0x100
        .equ    ICENABLER, 0x180
        .equ    ISPENDR, 0x200
        .equ    IPRIORITYR, 0x400
        .equ    ICFGR, 0xc00

        .macro  putc char
        mov     w7, #\char
        strb    w7, [x19]
        .endm

        .macro  soon timer, ticks=20    // its compare value lies so many ticks ahead
        mrs     x0, cnt\timer\()ct_el0
        add     x0, x0, #\ticks
        msr     cnt\timer\()_cval_el0, x0
        .endm

        .macro  control timer, value
        mov     x0, #\value
        msr     cnt\timer\()_ctl_el0, x0
        isb
        .endm

        .macro  until_due timer
9:      mrs     x0, cnt\timer\()_ctl_el0
        tbz     w0, #2, 9b
        .endm

        .macro  taken                   // how many interrupts so far
        add     w7, w26, #'0'
        strb    w7, [x19]
        .endm

        .macro  mask
        msr     daifset, #2
        .endm

        .macro  unmask
        msr     daifclr, #2
        isb
        nop
        .endm

        .text
_start: b       begin
        .balign 8
kind:   .quad   2

begin:  mov     x19, #0x09000000
        mov     x20, #0x08000000
        ldr     x18, kind
        ldr     x0, =0x40110000
        mov     sp, x0
        mov     x25, #0
        mov     x26, #0
        adr     x0, vectors
        msr     vbar_el1, x0
        isb
        cmp     x18, #3
        b.eq    1f
        ldr     x21, =0x08010000
        mov     x22, x20                // where private interrupts are configured
        mov     w0, #1
        str     w0, [x20]               // GICD_CTLR
        str     w0, [x21]               // GICC_CTLR
        mov     w0, #0xf0
        str     w0, [x21, #4]           // GICC_PMR
        mov     w0, #1
        strb    w0, [x20, #0x800 + UART_INTID]
        strb    w0, [x20, #0x800 + EDGE]
        b       2f
1:      ldr     x21, =0x080b0000
        mov     x22, x21
        mov     w0, #0x12
        str     w0, [x20]               // GICD_CTLR: affinity routing, group 1
        mov     x0, #0xf0
        msr     s3_0_c4_c6_0, x0        // ICC_PMR_EL1
        mov     x0, #1
        msr     s3_0_c12_c12_7, x0      // ICC_IGRPEN1_EL1
        isb
2:      mov     w0, #0x80               // priorities: the virtual timer before all others
        strb    w0, [x22, #IPRIORITYR + PTIMER]
        strb    w0, [x20, #IPRIORITYR + UART_INTID]
        strb    w0, [x20, #IPRIORITYR + EDGE]
        mov     w0, #0x40
        strb    w0, [x22, #IPRIORITYR + VTIMER]
        mov     w0, #2 << (EDGE % 16 * 2)
        str     w0, [x20, #ICFGR + EDGE / 16 * 4]
        ldr     w0, =(1 << VTIMER | 1 << PTIMER)
        str     w0, [x22, #ISENABLER]
        mov     w0, #1 << (UART_INTID - 32)
        str     w0, [x20, #ISENABLER + 4]

// masked by PSTATE: goes away before it is taken
        putc    'a'
        mask
        soon    v
        control v, ENABLED
        until_due v
        putc    'b'
        control v, 0
        putc    '-'                     // an exit, on which KVM looks at the line
        unmask
        taken

// masked by PSTATE: then taken
        mask
        soon    v
        control v, ENABLED
        soon    p
        control p, ENABLED
        until_due p
        putc    'c'
        unmask
        taken

// masked by the timer
        soon    v
        control v, ENABLED_MASKED
        until_due v
        putc    'd'
        control v, ENABLED
        nop
        taken

// masked by the distributor
        mov     w0, #1 << PTIMER
        str     w0, [x22, #ICENABLER]
        soon    p
        control p, ENABLED
        until_due p
        putc    'e'
        mov     w0, #1 << PTIMER
        str     w0, [x22, #ISENABLER]
        dsb     sy
        nop
        nop
        taken

// masked by priority
        mov     x1, #0x40
        bl      set_pmr
        soon    v
        control v, ENABLED
        until_due v
        putc    'f'
        mov     x1, #0xf0
        bl      set_pmr
        nop
        taken

// asleep, for one timer, for the other, and for whichever comes first
        mask
        soon    v, 1000
        control v, ENABLED
        wfi
        putc    'g'
        unmask
        mask
        soon    p, 1000
        control p, ENABLED
        wfi
        putc    'h'
        unmask
        mask
        soon    v, 3000
        control v, ENABLED
        soon    p, 1000
        control p, ENABLED
        wfi
        unmask
        putc    'i'
        mask
        wfi
        unmask
        taken

// one interrupts the other's handler
        mov     x25, #1
        mask
        soon    p
        control p, ENABLED
        until_due p
        putc    'j'
        unmask
        taken

// an edge, remembered while the interrupt is not enabled, and while PSTATE masks it
        mov     w0, #1 << (EDGE - 32)
        str     w0, [x20, #ISPENDR + 4]
        putc    'k'
        mask
        mov     w0, #1 << (EDGE - 32)
        str     w0, [x20, #ISENABLER + 4]
        putc    'l'
        unmask
        taken

// an SGI to itself
        mask
        bl      send
        putc    'm'
        bl      send
        putc    'n'
        unmask
        taken

// a device's level
        mask
        mov     w0, #TXIM
        str     w0, [x19, #UARTIMSC]
        putc    'o'
        putc    'p'
        unmask
        taken

// how late it is by both counters, 16 digits each
        mrs     x6, cntvct_el0
        bl      hex
        mrs     x6, cntpct_el0
        bl      hex
        ldr     x0, =SYSTEM_OFF
        hvc     #0
        b       .

set_pmr:                                // priority mask x1
        cmp     x18, #3
        b.eq    1f
        str     w1, [x21, #4]
        ret
1:      msr     s3_0_c4_c6_0, x1
        isb
        ret

send:                                   // an SGI to this CPU
        cmp     x18, #3
        b.eq    1f
        ldr     w0, =(2 << 24 | SGI)
        str     w0, [x20, #0xf00]       // GICD_SGIR
        ret
1:      ldr     x0, =(SGI << 24 | 1)
        msr     s3_0_c12_c11_5, x0      // ICC_SGI1R_EL1
        isb
        ret

hex:    putc    ' '
        mov     x4, #60
1:      lsr     x5, x6, x4
        and     w5, w5, #15
        cmp     w5, #10
        add     w7, w5, #'0'
        add     w5, w5, #('a' - 10)
        csel    w7, w7, w5, lo
        strb    w7, [x19]
        subs    x4, x4, #4
        b.pl    1b
        ret

irq:    cmp     x18, #3
        b.eq    1f
        ldr     w8, [x21, #0x0c]        // GICC_IAR
        b       2f
1:      mrs     x8, s3_0_c12_c12_0      // ICC_IAR1_EL1
2:      and     w9, w8, #0x3ff
        cmp     w9, #1020
        b.hs    8f
        add     x26, x26, #1
        and     w10, w9, #15
        add     w10, w10, #'A'
        strb    w10, [x19]
        cmp     w9, #VTIMER
        b.ne    3f
        msr     cntv_ctl_el0, xzr
        b       6f
3:      cmp     w9, #PTIMER
        b.ne    5f
        cbz     x25, 4f
        mov     x25, #0
        mrs     x11, elr_el1
        mrs     x12, spsr_el1
        stp     x11, x12, [sp, #-32]!
        str     x8, [sp, #16]
        msr     cntv_cval_el0, xzr
        mov     x11, #ENABLED
        msr     cntv_ctl_el0, x11
        isb
        mov     w10, #'('
        strb    w10, [x19]
        msr     daifclr, #2
        isb
        nop
        msr     daifset, #2
        mov     w10, #')'
        strb    w10, [x19]
        ldr     x8, [sp, #16]
        ldp     x11, x12, [sp], #32
        msr     elr_el1, x11
        msr     spsr_el1, x12
4:      msr     cntp_ctl_el0, xzr
        b       6f
5:      cmp     w9, #UART_INTID
        b.ne    6f
        str     wzr, [x19, #UARTIMSC]
        mov     w10, #0x7ff
        str     w10, [x19, #UARTICR]
6:      isb
        mov     w10, #'.'
        strb    w10, [x19]
        cmp     x18, #3
        b.eq    7f
        str     w8, [x21, #0x10]        // GICC_EOIR
        eret
7:      msr     s3_0_c12_c12_1, x8      // ICC_EOIR1_EL1
        eret
8:      mov     w10, #'?'               // nothing was pending
        strb    w10, [x19]
        eret
        .ltorg

        .balign 0x800
vectors:
        .org    vectors + 0x200
bad:    mov     w10, #'!'
        strb    w10, [x19]
        b       .
        .org    vectors + 0x280
        b       irq
        .balign 8
