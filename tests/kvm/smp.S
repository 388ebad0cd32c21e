// Bare-metal guests for several CPUs, one a number: the word at `selector` says which.
//
// A flat binary at 0x40080000. CPU 0 starts the others by PSCI; all run with the MMU on, over the
// tables at the end. Results go to the PL011 as 16 digits and a newline each. Registers: x19 UART,
// x20 GICD, x21 GICC, x22 shared memory, x28 the CPU's number.

        .arch   armv8.1-a
        .equ    BASE,   0x40080000
        .equ    SHARED, 0x40100000      // 4 KiB, zero; a line of 64 bytes a variable
        .equ    STACKS, 0x40110000
        .equ    PAGE_A, 0x40120000
        .equ    PAGE_B, 0x40121000
        .equ    WINDOW, 0x80000000      // a page that is mapped to A or B
        .equ    GICC_PMR, 0x04
        .equ    GICC_IAR, 0x0c
        .equ    GICC_EOIR, 0x10
        .equ    GICD_ISENABLER, 0x100
        .equ    GICD_SGIR, 0xf00
        .equ    CPU_ON, 0xc4000003
        .equ    CPU_OFF, 0x84000002
        .equ    AFFINITY_INFO, 0xc4000004
        .equ    SYSTEM_OFF, 0x84000008
        .equ    SYSTEM_RESET, 0x84000009

        .macro  number reg, value
        movz    \reg, #(\value & 0xffff)
        movk    \reg, #(\value >> 16), lsl #16
        .endm

        .macro  shared reg, line        // the address of a shared variable
        add     \reg, x22, #(\line * 64)
        .endm

        .macro  set line, value         // store-release
        shared  x9, \line
        mov     x10, #\value
        stlr    x10, [x9]
        .endm

        .macro  await line, value       // spin, without WFE, until the variable has the value
        shared  x9, \line
9:      ldar    x10, [x9]
        cmp     x10, #\value
        b.ne    9b
        .endm

        .macro  arrive line             // one more CPU is here
        shared  x9, \line
        mov     x10, #1
        ldaddal x10, x10, [x9]
        .endm

        .macro  work                    // makes a window between a load and its store
        .rept   16
        nop
        .endr
        .endm

        .text
_start: b       begin
        nop
selector:
        .quad   0

begin:  bl      setup
        ldr     x0, selector
        adr     x1, primaries
        ldr     w2, [x1, x0, lsl #2]
        add     x1, x1, w2, sxtw
        br      x1
primaries:
        .word   power - primaries, count - primaries, sgi - primaries, timers - primaries
        .word   tlbi - primaries, spin - primaries, reset - primaries, device - primaries
        .word   aba - primaries, timers - primaries

secondary:                              // entered by CPU_ON
        mov     x27, x0                 // its context argument
        bl      setup
        ldr     x0, selector
        adr     x1, others
        ldr     w2, [x1, x0, lsl #2]
        add     x1, x1, w2, sxtw
        br      x1
others: .word   power_other - others, count_work - others, sgi_other - others
        .word   timers_work - others, tlbi_other - others, spin_other - others
        .word   reset_other - others, device_other - others, aba_other - others
        .word   timers_work - others

setup:  mov     x19, #0x09000000
        mov     x20, #0x08000000
        number  x21, 0x08010000
        number  x22, SHARED
        mrs     x28, mpidr_el1
        and     x28, x28, #0xff
        number  x0, STACKS
        add     x0, x0, x28, lsl #12
        add     sp, x0, #0x1000
        ldr     x0, =0x04ff             // attribute 0: write-back memory, 1: device
        msr     mair_el1, x0
        ldr     x0, =(25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32)
        msr     tcr_el1, x0
        adr     x0, level1
        msr     ttbr0_el1, x0
        isb
        mrs     x0, sctlr_el1
        mov     x1, #0x1005             // I, C, M
        orr     x0, x0, x1
        msr     sctlr_el1, x0
        isb
        ret

hex:                                    // print x0
        mov     x11, #60
1:      lsr     x12, x0, x11
        and     w12, w12, #15
        cmp     w12, #10
        add     w13, w12, #'0'
        add     w14, w12, #('a' - 10)
        csel    w12, w13, w14, lo
        strb    w12, [x19]
        subs    x11, x11, #4
        b.pl    1b
        mov     w12, #'\n'
        strb    w12, [x19]
        ret

        .macro  print
        bl      hex
        .endm

        .macro  print_shared line
        shared  x9, \line
        ldr     x0, [x9]
        bl      hex
        .endm

on:                                     // CPU_ON of CPU x1, context 0x100 + x1
        number  x0, CPU_ON
        adr     x2, secondary
        add     x3, x1, #0x100
        hvc     #0
        ret

start_all:
        mov     x26, x30
        mov     x25, #1
1:      mov     x1, x25
        bl      on
        add     x25, x25, #1
        cmp     x25, #4
        b.ne    1b
        ret     x26

off:    number  x0, SYSTEM_OFF
        hvc     #0
        b       .

info:   number  x0, AFFINITY_INFO
        mov     x2, #0
        hvc     #0
        ret

// -- 0: power: each of three CPUs comes, is seen, goes, and comes again
power:  mov     x25, #1
1:      mov     x24, #2                 // lives
2:      mov     x1, x25
        bl      info
        print                           // 1: off
        mov     x1, x25
        bl      on
        print                           // 0: success
        await   0, 1
        print_shared 1                  // its context
        print_shared 2                  // its MPIDR
        mov     x1, x25
        bl      info
        print                           // 0: on
        mov     x1, x25
        bl      on
        print                           // -4: on already
        set     0, 2
3:      mov     x1, x25
        bl      info
        cmp     x0, #1
        b.ne    3b
        subs    x24, x24, #1
        b.ne    2b
        add     x25, x25, #1
        cmp     x25, #4
        b.ne    1b
        mov     x1, #0x77
        bl      on
        print                           // -2: no such CPU
        b       off

power_other:
        shared  x9, 1
        str     x27, [x9]
        mrs     x0, mpidr_el1
        shared  x9, 2
        str     x0, [x9]
        set     0, 1
        await   0, 2
        number  x0, CPU_OFF
        hvc     #0
        b       .

// -- 1: counters that four CPUs increment
        .equ    TIMES, 20000
count:  bl      start_all
        b       count_work
count_done:
        cbnz    x28, .
        shared  x9, 0
1:      ldaxr   x10, [x9]
        cmp     x10, #4
        b.eq    2f
        wfe
        b       1b
2:      print_shared 1
        print_shared 2
        print_shared 3
        print_shared 4
        print_shared 5
        shared  x9, 5
        ldr     x0, [x9, #8]
        print
        print_shared 6
        b       off

count_work:
        number  x8, TIMES
1:      shared  x0, 1                   // load and store exclusive
2:      ldxr    x1, [x0]
        work
        add     x1, x1, #1
        stxr    w2, x1, [x0]
        cbnz    w2, 2b
        mov     x1, #1                  // atomic add
        shared  x0, 2
        ldadd   x1, x2, [x0]
        shared  x0, 3                   // compare and swap
3:      ldr     x1, [x0]
        work
        add     x2, x1, #1
        mov     x3, x1
        cas     x3, x2, [x0]
        cmp     x3, x1
        b.ne    3b
        shared  x0, 7                   // a spin lock that waits by WFE
        b       5f
4:      wfe
5:      ldaxr   x1, [x0]
        cbnz    x1, 4b
        mov     x1, #1
        stxr    w2, x1, [x0]
        cbnz    w2, 5b
        shared  x3, 4
        ldr     x1, [x3]
        work
        add     x1, x1, #1
        str     x1, [x3]
        stlr    xzr, [x0]
        shared  x0, 5                   // a pair
6:      ldaxp   x1, x2, [x0]
        work
        add     x1, x1, #1
        add     x2, x2, #3
        stlxp   w3, x1, x2, [x0]
        cbnz    w3, 6b
        shared  x0, 6                   // and without any care
        ldr     x1, [x0]
        work
        add     x1, x1, #1
        str     x1, [x0]
        subs    x8, x8, #1
        b.ne    1b
        arrive  0
        b       count_done

// -- 2: SGIs: CPU 0 calls all others, each answers
        .equ    ROUNDS, 20
gic_cpu:
        mov     w0, #0xffff
        str     w0, [x20, #GICD_ISENABLER]
        mov     w0, #1
        str     w0, [x20]
        mov     w0, #0xf0
        str     w0, [x21, #GICC_PMR]
        mov     w0, #1
        str     w0, [x21]
        ret

sgi:    bl      gic_cpu
        bl      start_all
        await   0, 3                    // all listen
        mov     x24, #ROUNDS
        mov     x23, #0                 // answers
        mov     x17, #0                 // sum of their senders
1:      number  w0, 0x01000001          // SGI 1 to all but this CPU
        str     w0, [x20, #GICD_SGIR]
        mov     x16, #3
2:      ldr     w0, [x21, #GICC_IAR]
        and     w1, w0, #0x3ff
        cmp     w1, #1023
        b.ne    3f
        wfi
        b       2b
3:      str     w0, [x21, #GICC_EOIR]
        cmp     w1, #2
        b.ne    2b
        ubfx    x2, x0, #10, #3
        add     x17, x17, x2
        add     x23, x23, #1
        subs    x16, x16, #1
        b.ne    2b
        subs    x24, x24, #1
        b.ne    1b
        mov     x0, x23
        print
        mov     x0, x17
        print
        print_shared 1
        print_shared 2
        print_shared 3
        b       off

sgi_other:
        bl      gic_cpu
        arrive  0
        add     x8, x22, x28, lsl #6
1:      wfi
2:      ldr     w0, [x21, #GICC_IAR]
        and     w1, w0, #0x3ff
        cmp     w1, #1023
        b.eq    1b
        str     w0, [x21, #GICC_EOIR]
        cmp     w0, #1                  // SGI 1 from CPU 0
        b.ne    2b
        ldr     x2, [x8]
        add     x2, x2, #1
        str     x2, [x8]
        number  w0, 0x00010002          // SGI 2 to CPU 0
        str     w0, [x20, #GICD_SGIR]
        b       2b

// -- 3: a timer on each CPU, most of them asleep, CPU 0 busy; prints how late each was, in ticks
// -- 9: the same with all of them asleep
        .equ    MS, 62500
timers: bl      start_all
timers_work:
        bl      gic_cpu
        mov     w0, #(1 << 27)
        str     w0, [x20, #GICD_ISENABLER]
        mov     x24, #10
        mov     x23, #0
        number  x17, MS
        ldr     x1, selector
        cmp     x1, #3
        add     x0, x28, #1             // periods of 1 to 4 ms, or 4 to 1
        mov     x1, #4
        sub     x1, x1, x28
        csel    x0, x0, x1, eq
        mul     x17, x17, x0
1:      mrs     x16, cntvct_el0
        add     x16, x16, x17
        msr     cntv_cval_el0, x16
        mov     x0, #1
        msr     cntv_ctl_el0, x0
        isb
2:      ldr     x0, selector
        sub     x0, x0, #3
        orr     x0, x0, x28
        cbnz    x0, 3f
        mrs     x0, cntv_ctl_el0        // CPU 0 does not sleep
        tbz     w0, #2, 2b
        b       4f
3:      wfi
4:      ldr     w0, [x21, #GICC_IAR]
        cmp     w0, #27
        b.ne    2b
        mrs     x1, cntvct_el0
        sub     x1, x1, x16
        cmp     x1, x23
        csel    x23, x1, x23, hi
        msr     cntv_ctl_el0, xzr
        isb
        str     w0, [x21, #GICC_EOIR]
        subs    x24, x24, #1
        b.ne    1b
        add     x9, x22, x28, lsl #6
        str     x23, [x9, #64]
        arrive  0
        cbz     x28, 6f
5:      wfi
        b       5b
6:      await   0, 4
        print_shared 1
        print_shared 2
        print_shared 3
        print_shared 4
        b       off

// -- 4: what one CPU changes, another must see: a translation, an instruction
tlbi:   number  x0, PAGE_A
        mov     x1, #0xa
        str     x1, [x0]
        number  x0, PAGE_B
        mov     x1, #0xb
        str     x1, [x0]
        mov     x1, #1
        bl      on
        await   0, 1
        adr     x0, level3
        ldr     x1, other_page
        str     x1, [x0]
        dsb     ish
        set     0, 2
        await   0, 3
        mov     x0, #(WINDOW >> 12)
        tlbi    vae1is, x0
        dsb     ish
        set     0, 4
        await   0, 5
        adr     x0, patched
        ldr     w1, patch
        str     w1, [x0]
        dc      cvau, x0
        dsb     ish
        ic      ivau, x0
        dsb     ish
        set     0, 6
        await   0, 7
        print_shared 1
        print_shared 2
        print_shared 3
        print_shared 4
        print_shared 5
        b       off

        .macro  see line
        mov     x0, #WINDOW
        ldr     x0, [x0]
        shared  x9, \line
        str     x0, [x9]
        .endm

tlbi_other:
        see     1
        bl      patched
        shared  x9, 4
        str     x0, [x9]
        set     0, 1
        await   0, 2
        see     2
        set     0, 3
        await   0, 4
        see     3
        set     0, 5
        await   0, 6
        isb
        bl      patched
        shared  x9, 5
        str     x0, [x9]
        set     0, 7
        b       .

patched:
        mov     x0, #1
        ret
patch:  mov     x0, #2

// -- 5: all spin for ever
spin:   bl      start_all
spin_other:
        add     x0, x0, #1
        b       spin_other

// -- 6: the last CPU resets the system while the others spin
reset:  bl      start_all
        b       .
reset_other:
        cmp     x28, #3
        b.ne    .
        number  x0, SYSTEM_RESET
        hvc     #0
        b       .

// -- 7: a CPU other than the first uses a device at 0x0a000000
device: bl      start_all
        b       .
device_other:
        cmp     x28, #2
        b.ne    .
        mov     x0, #0x0a000000
        str     w28, [x0]
        ldr     w1, [x0]
        b       off

// -- 8: an exclusive store must see that another CPU wrote, even if the old value is back
aba:    mov     x1, #1
        bl      on
        await   0, 1
        shared  x8, 1
        ldxr    x1, [x8]
        set     0, 2
        await   0, 3
        stxr    w0, x1, [x8]
        print                           // 1: it failed
        ldxr    x1, [x8]
        stxr    w0, x1, [x8]
        print                           // 0
        b       off
aba_other:
        set     0, 1
        await   0, 2
        shared  x8, 1
        mov     x0, #1
        str     x0, [x8]
        str     xzr, [x8]
        set     0, 3
        b       .

        .ltorg
        .balign 8
other_page:
        .quad   PAGE_B + 0x703

        .balign 4096
level1: .quad   0x0060000000000405      // 0: devices, not to be executed
        .quad   0x40000701              // 1 GiB: memory
        .quad   BASE + (level2 - _start) + 3
        .balign 4096
level2: .quad   BASE + (level3 - _start) + 3
        .balign 4096
level3: .quad   PAGE_A + 0x703
        .balign 4096
