// The guests of `armkvm bench exits`, in one flat binary without an MMU. Each does one thing
// `count` times and powers off. The parameters behind the first branch are patched in by
// armkvm.bench.exits.program; the binary is its own vector table, so the code in front of offset 0x280
// must not cause a synchronous exception.

        .arch   armv8-a
        .equ    VTIMER, 27
        .equ    PSCI_VERSION, 0x84000000
        .equ    SYSTEM_OFF, 0x84000008

start:  b       begin
        .balign 8
count:  .quad   0
select: .quad   0
first:  .quad   0                       // a device's register; GICD
second: .quad   0                       // GICC; the first redistributor

begin:  ldr     x20, count
        ldr     x21, select
        ldr     x22, first
        ldr     x23, second
        adr     x0, start
        msr     vbar_el1, x0
        isb
        adr     x0, table
        add     x0, x0, x21, lsl #2
        br      x0
table:  b       write
        b       read
        b       version
        b       notify
        b       asleep
        b       gicv2
        b       gicv3

off:    ldr     w0, =SYSTEM_OFF
        hvc     #0

// 0, 1: a device's register
write:  str     w20, [x22]
        subs    x20, x20, #1
        b.ne    write
        b       off
read:   ldr     w0, [x22]
        subs    x20, x20, #1
        b.ne    read
        b       off

// 2: a hypercall
version:
        ldr     w0, =PSCI_VERSION
        hvc     #0
        subs    x20, x20, #1
        b.ne    version
        b       off

// 3: the timer's output up, and down again: two notifications. The hypercall is the exit on which
// the second change is seen.
notify: msr     cntv_cval_el0, xzr
1:      mov     x0, #1
        msr     cntv_ctl_el0, x0
        msr     cntv_ctl_el0, xzr
        ldr     w0, =PSCI_VERSION
        hvc     #0
        subs    x20, x20, #1
        b.ne    1b
        b       off

// 4: the same, but sleeping until the output goes up
asleep: mrs     x0, cntvct_el0
        add     x0, x0, #1000
        msr     cntv_cval_el0, x0
        mov     x0, #1
        msr     cntv_ctl_el0, x0
        wfi
        msr     cntv_ctl_el0, xzr
        ldr     w0, =PSCI_VERSION
        hvc     #0
        subs    x20, x20, #1
        b.ne    asleep
        b       off

// The IRQ vector, and the handlers of both kinds of GIC: acknowledge, timer off, end of interrupt.
        .org    start + 0x280
        cbz     x24, 2f
        mrs     x0, s3_0_c12_c12_0      // ICC_IAR1_EL1
        msr     cntv_ctl_el0, xzr
        msr     s3_0_c12_c12_1, x0      // ICC_EOIR1_EL1
        b       3f
2:      ldr     w0, [x23, #0x0c]        // GICC_IAR
        msr     cntv_ctl_el0, xzr
        str     w0, [x23, #0x10]        // GICC_EOIR
3:      sub     x20, x20, #1
        eret

// 5: a timer interrupt from its deadline to its end, GICv2
gicv2:  mov     x24, #0
        mov     w0, #1
        str     w0, [x22]               // GICD_CTLR
        mov     w0, #1 << VTIMER
        str     w0, [x22, #0x100]       // GICD_ISENABLER0
        mov     w0, #0xf0
        str     w0, [x23, #0x04]        // GICC_PMR
        mov     w0, #1
        str     w0, [x23]               // GICC_CTLR
        b       tick

// 6: the same, GICv3
gicv3:  mov     x24, #1
        mov     w0, #0x12               // ARE, group 1
        str     w0, [x22]
        str     wzr, [x23, #0x14]       // GICR_WAKER
        add     x1, x23, #0x10000
        mov     w0, #-1
        str     w0, [x1, #0x80]         // GICR_IGROUPR0
        mov     w0, #1 << VTIMER
        str     w0, [x1, #0x100]        // GICR_ISENABLER0
        mov     x0, #0xf0
        msr     s3_0_c4_c6_0, x0        // ICC_PMR_EL1
        mov     x0, #1
        msr     s3_0_c12_c12_7, x0      // ICC_IGRPEN1_EL1
        isb

tick:   msr     cntv_cval_el0, xzr
        msr     daifclr, #2
4:      mov     x1, x20
        mov     x0, #1
        msr     cntv_ctl_el0, x0
5:      cmp     x1, x20                 // the handler counts
        b.eq    5b
        cbnz    x20, 4b
        msr     daifset, #2
        b       off
        .ltorg
        .balign 8
