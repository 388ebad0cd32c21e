// A small kernel at EL1 under which random programs run at EL0: the guest of mixed.py.
//
// Exceptions from EL0 are hashed into a log; a fetch that faults moves to another place in the
// program, an Access flag fault sets the flag, anything else steps over the instruction. Each tick
// of CNTV goes through the GIC, switches to the next of four address spaces, gives it fresh
// registers, lets another page's Access flag go, and rewrites a word of its program. The page
// tables, programs and values are laid out by mixed.py; mixed.hex holds the assembled words.

        .arch   armv8-a
        .equ    UART,   0x09000000
        .equ    GICD,   0x08000000
        .equ    GICC,   0x08010000
        // Physical places, as in mixed.py.
        .equ    STACK,  0x400c0000
        .equ    LOG,    0x400d0000      // hash, exceptions, ticks, random state, process, period
        .equ    VALUES, 0x400e0000      // 64 values for registers
        .equ    TABLES, 0x40100000      // a process: L1, L2, L3, one page each; 16 KiB apart
        .equ    CODE,   0x40120000      // a process: 64 KiB
        .equ    USER,   0x80000000      // virtual
        .equ    FRAME,  272             // x0 to x30, SP_EL0, ELR, SPSR

        .text
_start:
        ldr     x0, =STACK
        mov     sp, x0
        adr     x0, vectors
        msr     vbar_el1, x0
        mov     x0, #0xff               // attribute 0 Normal, 1 Device-nGnRnE
        msr     mair_el1, x0
        ldr     x0, =0x1400803519       // T0SZ 25, EPD1, write-back shareable, AS, IPS 44 bits
        msr     tcr_el1, x0
        bl      space
        mov     x0, #(3 << 20)          // FP and SIMD at both levels
        msr     cpacr_el1, x0
        mov     x0, #2                  // EL0 may read CNTVCT
        msr     cntkctl_el1, x0
        tlbi    vmalle1
        dsb     ish
        isb
        ldr     x0, =0x30d4580d         // M, C, SA, I, DZE, nTWE, and what is RES1
        msr     sctlr_el1, x0
        isb
        mov     x1, #GICD
        mov     w0, #1
        str     w0, [x1]
        mov     w0, #(1 << 27)
        str     w0, [x1, #0x100]
        mov     w0, #0x80
        strb    w0, [x1, #(0x400 + 27)]
        ldr     x1, =GICC
        mov     w0, #0xf0
        str     w0, [x1, #4]
        mov     w0, #1
        str     w0, [x1]
        mrs     x0, cntvct_el0
        msr     cntv_cval_el0, x0
        mov     x0, #1
        msr     cntv_ctl_el0, x0
        msr     spsr_el1, xzr
        ldr     x0, =USER
        msr     elr_el1, x0
        eret

// TTBR0 and ASID of the process in LOG; keeps nothing but the link register.
space:  ldr     x0, =LOG
        ldr     x1, [x0, #32]
        ldr     x0, =TABLES
        add     x0, x0, x1, lsl #14
        add     x1, x1, #1
        orr     x0, x0, x1, lsl #48
        msr     ttbr0_el1, x0
        isb
        ret

// x0 := the next random number; x1, x2 are used.
random: ldr     x1, =LOG
        ldr     x0, [x1, #24]
        ldr     x2, =6364136223846793005
        mul     x0, x0, x2
        add     x0, x0, #0x539
        str     x0, [x1, #24]
        ror     x0, x0, #29
        ret

        .macro  save
        sub     sp, sp, #FRAME
        stp     x0, x1, [sp]
        stp     x2, x3, [sp, #16]
        stp     x4, x5, [sp, #32]
        stp     x6, x7, [sp, #48]
        stp     x8, x9, [sp, #64]
        stp     x10, x11, [sp, #80]
        stp     x12, x13, [sp, #96]
        stp     x14, x15, [sp, #112]
        stp     x16, x17, [sp, #128]
        stp     x18, x19, [sp, #144]
        stp     x20, x21, [sp, #160]
        stp     x22, x23, [sp, #176]
        stp     x24, x25, [sp, #192]
        stp     x26, x27, [sp, #208]
        stp     x28, x29, [sp, #224]
        mrs     x20, sp_el0
        mrs     x21, elr_el1
        mrs     x22, spsr_el1
        stp     x30, x20, [sp, #240]
        stp     x21, x22, [sp, #256]
        .endm

synchronous:
        save
        mrs     x23, esr_el1
        mrs     x24, far_el1
        lsr     x25, x23, #26
        // FAR is UNKNOWN but for aborts (0x20, 0x24).
        and     x0, x25, #0x3f
        bic     x0, x0, #4
        cmp     x0, #0x20
        csel    x24, x24, xzr, eq
        ldr     x1, =LOG
        ldp     x2, x3, [x1]
        eor     x2, x2, x23
        ror     x2, x2, #11
        eor     x2, x2, x24
        ror     x2, x2, #7
        add     x2, x2, x21
        eor     x2, x2, x22, ror #3
        add     x3, x3, #1
        stp     x2, x3, [x1]
        cmp     x25, #0x15              // SVC: answers with a number
        b.eq    called
        cmp     x0, #0x20
        b.ne    skip
        and     x0, x23, #0x3c
        cmp     x0, #0x08
        b.eq    touch
        cmp     x25, #0x24
        b.eq    skip
        bl      elsewhere
        b       back
skip:   add     x21, x21, #4
        b       back
called: str     x2, [sp]
        b       back
touch:  ldr     x0, =LOG                // the page's entry in L3
        ldr     x1, [x0, #32]
        ldr     x0, =(TABLES + 0x2000)
        add     x0, x0, x1, lsl #14
        ubfx    x1, x24, #12, #9
        ldr     x2, [x0, x1, lsl #3]
        orr     x2, x2, #(1 << 10)
        str     x2, [x0, x1, lsl #3]
        dsb     ishst
        b       back

// x21 := some place in the program.
elsewhere:
        mov     x19, x30
        bl      random
        ldr     x21, =USER
        and     x0, x0, #0xfffc
        add     x21, x21, x0
        mov     x30, x19
        ret

back:   msr     elr_el1, x21
        ldp     x30, x20, [sp, #240]
        msr     sp_el0, x20
        ldr     x22, [sp, #264]
        and     x22, x22, #0xf0000000   // a program cannot mask interrupts
        msr     spsr_el1, x22
        ldp     x0, x1, [sp]
        ldp     x2, x3, [sp, #16]
        ldp     x4, x5, [sp, #32]
        ldp     x6, x7, [sp, #48]
        ldp     x8, x9, [sp, #64]
        ldp     x10, x11, [sp, #80]
        ldp     x12, x13, [sp, #96]
        ldp     x14, x15, [sp, #112]
        ldp     x16, x17, [sp, #128]
        ldp     x18, x19, [sp, #144]
        ldp     x20, x21, [sp, #160]
        ldp     x22, x23, [sp, #176]
        ldp     x24, x25, [sp, #192]
        ldp     x26, x27, [sp, #208]
        ldp     x28, x29, [sp, #224]
        add     sp, sp, #FRAME
        eret

irq:    save
        ldr     x25, =GICC
        ldr     w26, [x25, #0x0c]       // GICC_IAR
        ldr     x1, =LOG
        ldr     x2, [x1]                // the registers of the interrupted program count, too
        mov     x3, sp
        add     x4, sp, #FRAME
1:      ldr     x5, [x3], #8
        eor     x2, x5, x2, ror #1
        cmp     x3, x4
        b.ne    1b
        str     x2, [x1]
        ldr     x2, [x1, #16]
        subs    x2, x2, #1
        str     x2, [x1, #16]
        b.eq    done
        mrs     x3, cntv_cval_el0
        ldr     x4, [x1, #40]
        add     x3, x3, x4
        msr     cntv_cval_el0, x3
        isb
        str     w26, [x25, #0x10]       // GICC_EOIR
        // Forget one page's Access flag.
        bl      random
        ldr     x3, =LOG
        ldr     x4, [x3, #32]
        ldr     x5, =(TABLES + 0x2000)
        add     x5, x5, x4, lsl #14
        and     x6, x0, #63
        ldr     x7, [x5, x6, lsl #3]
        bic     x7, x7, #(1 << 10)
        str     x7, [x5, x6, lsl #3]
        dsb     ishst
        ldr     x8, =USER
        add     x8, x8, x6, lsl #12
        lsr     x8, x8, #12
        add     x9, x4, #1
        orr     x8, x8, x9, lsl #48
        tst     x0, #(1 << 20)
        b.eq    2f
        tlbi    vae1is, x8
        b       3f
2:      lsl     x8, x9, #48
        tlbi    aside1is, x8
3:      dsb     ish
        isb
        // Exchange two words of its program.
        bl      random
        ldr     x3, =CODE
        add     x3, x3, x4, lsl #16
        and     x5, x0, #0xfffc
        ubfx    x6, x0, #20, #14
        lsl     x6, x6, #2
        ldr     w7, [x3, x5]
        ldr     w8, [x3, x6]
        str     w8, [x3, x5]
        str     w7, [x3, x6]
        add     x5, x3, x5
        add     x6, x3, x6
        dc      cvau, x5
        dc      cvau, x6
        dsb     ish
        ic      ivau, x5
        ic      ivau, x6
        dsb     ish
        isb
        // The next process, with registers of all kinds.
        ldr     x3, =LOG
        add     x4, x4, #1
        and     x4, x4, #3
        str     x4, [x3, #32]
        bl      space
        mov     x10, sp
        add     x11, sp, #256
        ldr     x12, =VALUES
4:      bl      random
        and     x0, x0, #63
        ldr     x5, [x12, x0, lsl #3]
        str     x5, [x10], #8
        cmp     x10, x11
        b.ne    4b
        bl      elsewhere
        b       back

done:   ldr     x0, [x1]
        mov     x5, #UART
        mov     w2, #0x301
        str     w2, [x5, #0x30]
        mov     x3, #60
5:      lsr     x4, x0, x3
        and     x4, x4, #15
        cmp     x4, #10
        add     w6, w4, #'0'
        add     w7, w4, #('a' - 10)
        csel    w6, w6, w7, lo
        str     w6, [x5]
        subs    x3, x3, #4
        b.pl    5b
        mov     w6, #'\n'
        str     w6, [x5]
bad:    movz    x0, #0x8400, lsl #16
        movk    x0, #0x0008
        hvc     #0
        b       bad
        .ltorg

        .balign 2048
vectors:
        .rept   8
        b       bad
        .balign 128
        .endr
        b       synchronous
        .balign 128
        b       irq
        .balign 128
        .rept   6
        b       bad
        .balign 128
        .endr
