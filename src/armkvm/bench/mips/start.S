// Entry of the bench kernels: a flat binary at 0x40080000, EL1, MMU off.
//
// Two words near the start say what to do; whoever loads the file sets them. The MMU is switched
// on with an identity map (one 1 GiB block of devices, one of memory), because that is how real
// guests run. The result goes to the PL011 in hexadecimal; then PSCI SYSTEM_OFF.

        .section .text.start, "ax"
        .global _start, bench_count, bench_select
_start: b       1f
        .balign 8
bench_count:                            // offset 8: how often
        .quad   1
bench_select:                           // offset 16: which kernel, 0 for none
        .quad   0

1:      ldr     x0, bench_select
        cbnz    x0, 2f
        mov     x1, #0x09000000         // no kernel: only say that the first instruction ran
        mov     w0, #'+'
        str     w0, [x1]
        b       off

2:      adrp    x0, level1              // Arm ARM D8.3: block descriptors of 1 GiB
        mov     x1, #0x405              // device: AF, AttrIndx 1, block
        str     x1, [x0]
        movz    x1, #0x4000, lsl #16
        mov     x2, #0x701              // memory: AF, inner shareable, AttrIndx 0, block
        orr     x1, x1, x2
        str     x1, [x0, #8]
        dsb     sy
        mov     x1, #0x00ff             // MAIR: 0 is write-back, 1 is nGnRnE
        msr     mair_el1, x1
        movz    x1, #0x3519             // T0SZ 25, inner shareable, write-back, 4 KiB
        movk    x1, #0x0080, lsl #16    // EPD1
        movk    x1, #0x0001, lsl #32    // IPS 36 bits
        msr     tcr_el1, x1
        msr     ttbr0_el1, x0
        isb
        mrs     x1, sctlr_el1
        mov     x2, #0x1005             // I, C, M
        orr     x1, x1, x2
        msr     sctlr_el1, x1
        isb

        adrp    x0, stack_top
        mov     sp, x0
        ldr     x0, bench_select
        ldr     x1, bench_count
        bl      bench
        mov     x1, #0x09000000
        mov     x2, #60
3:      lsr     x3, x0, x2
        and     w3, w3, #15
        cmp     w3, #10
        add     w4, w3, #'0'
        add     w3, w3, #('a' - 10)
        csel    w3, w4, w3, lo
        str     w3, [x1]
        subs    x2, x2, #4
        b.pl    3b
        mov     w3, #'\n'
        str     w3, [x1]
off:    movz    x0, #0x8400, lsl #16
        movk    x0, #0x0008
        hvc     #0
        b       off
