// The guests whose KVM_RUN logs tests/data/ground-truth holds, written to the same addresses.
//
// A guest is loaded at 0x40000000 and runs there with the MMU off; its vectors are 0x2000 above.
// Everything at IO (0x10000000) is unbacked and so reaches user space as MMIO. x10 holds IO; a store
// to IO+0 is a checkpoint, to IO+8 / IO+16 the control register of the virtual / physical timer,
// to IO+0xff0 the end. x20 tells the IRQ handler what to do. Rebuild guests.hex with
// `python -m tests.kvm.guests`.

    .arch armv8-a
    .macro guest name
    .globl \name
\name:
    mov x10, #0x10000000            // IO
    mov x11, #0x40000000
    add x11, x11, #0x2000
    msr vbar_el1, x11
    isb
    mov x20, #0                     // IRQ handler: virtual timer
    .endm

    .macro check n                  // checkpoint
    mov w9, #\n
    str w9, [x10]
    .endm

    .macro control timer, value     // write a timer's control register
    mov x9, #\value
    msr cnt\timer\()_ctl_el0, x9
    isb
    .endm

    .macro show timer, offset       // report a timer's control register
    mrs x9, cnt\timer\()_ctl_el0
    str w9, [x10, #\offset]
    .endm

    .macro expire_in timer, counter, ms
    mrs x9, cntfrq_el0
    mov x12, #1000
    udiv x9, x9, x12
    mov x12, #\ms
    mul x9, x9, x12
    isb
    mrs x12, \counter
    add x9, x9, x12
    msr cnt\timer\()_cval_el0, x9
    .endm

    .macro expired timer            // a compare value in the past
    msr cnt\timer\()_cval_el0, xzr
    .endm

    .macro far_future timer
    mov x9, #0x1000000000000000
    msr cnt\timer\()_cval_el0, x9
    isb
    .endm

    .macro spin                     // 16 Mi iterations
    mov x12, #4096
    lsl x12, x12, #12
9:  subs x12, x12, #1
    b.ne 9b
    .endm

    .macro unmask
    msr daifclr, #2
    isb
    .endm

    .macro finish
    mov w9, #0xee
    str w9, [x10, #0xff0]
    b .
    .endm

    .macro call low, high           // HVC with a function identifier
    movz x0, #\high, lsl #16
    movk x0, #\low
    hvc #0
    str x0, [x10, #0x70]
    .endm

// Vector table

    .balign 2048
    .globl vectors
vectors:
    .macro unexpected offset
    .balign 128
    mov w11, #\offset
    str w11, [x10, #0x500]
    b .
    .endm
    unexpected 0x000
    unexpected 0x080
    unexpected 0x100
    unexpected 0x180
    .balign 128                     // synchronous, from here: report and end
    mrs x11, esr_el1
    str w11, [x10, #0x400]
    mrs x11, elr_el1
    str x11, [x10, #0x408]
    mrs x11, far_el1
    str x11, [x10, #0x410]
    mov w11, #0
    str w11, [x10, #0xff0]
    b .
    .balign 128
    b irq
    .balign 128                     // FIQ
    mrs x11, isr_el1
    str w11, [x10, #0x300]
    eret
    .balign 128                     // SError
    mrs x11, esr_el1
    str w11, [x10, #0x480]
    mrs x11, elr_el1
    str x11, [x10, #0x488]
    str w11, [x10, #0xff0]
    b .
    unexpected 0x400
    unexpected 0x480
    unexpected 0x500
    unexpected 0x580
    unexpected 0x600
    unexpected 0x680
    unexpected 0x700
    unexpected 0x780
    .balign 128
irq:
    cbz x20, 1f
    cmp x20, #1
    b.eq 2f
    mrs x11, isr_el1
    str w11, [x10, #0x220]
    eret
    .macro mask_timer timer, offset
    mrs x11, cnt\timer\()_ctl_el0
    str w11, [x10, #\offset]
    orr x11, x11, #2
    msr cnt\timer\()_ctl_el0, x11
    isb
    mrs x11, cnt\timer\()_ctl_el0
    str w11, [x10, #\offset + 4]
    eret
    .endm
1:  mask_timer v, 0x200
2:  mask_timer p, 0x210

// Timers

    .macro levels name, timer, offset
    guest \name
    check 1
    show \timer, \offset
    expired \timer
    check 2
    control \timer, 1
    show \timer, \offset
    check 3
    show \timer, \offset
    control \timer, 3
    show \timer, \offset
    check 4
    control \timer, 1
    show \timer, \offset
    check 5
    control \timer, 0
    show \timer, \offset
    check 6
    finish
    .endm
    levels vt_mmio, v, 8
    levels pt_mmio, p, 16

    .macro spins name, timer
    guest \name
    check 1
    expired \timer
    control \timer, 1
    spin
    check 2
    spin
    check 3
    control \timer, 3
    spin
    check 4
    control \timer, 1
    spin
    check 5
    control \timer, 0
    spin
    check 6
    finish
    .endm
    spins vt_spin, v
    spins pt_spin, p

    .macro future name, timer, counter, offset
    guest \name
    check 1
    expire_in \timer, \counter, 30
    control \timer, 1
    show \timer, \offset
    check 2
1:  mrs x9, cnt\timer\()_ctl_el0
    tbz x9, #2, 1b
    check 3
    show \timer, \offset
    far_future \timer
    show \timer, \offset
    check 4
    control \timer, 0
    finish
    .endm
    future vt_future, v, cntvct_el0, 8
    future pt_future, p, cntpct_el0, 16

    guest wfi_vt_masked
    check 1
    expire_in v, cntvct_el0, 50
    control v, 1
    check 2
    wfi
    check 3
    show v, 8
    wfi
    check 4
    control v, 3
    wfi
    check 5
    finish

    guest wfi_vt_past
    check 1
    expired v
    control v, 1
    wfi
    check 2
    wfi
    check 3
    finish

    guest wfi_none
    check 1
    wfi
    check 2
    wfi
    check 3
    finish

    guest wfi_vt_imask
    check 1
    expire_in v, cntvct_el0, 50
    control v, 3
    check 2
    wfi
    check 3
    show v, 8
    finish

    guest irq_vt
    check 1
    expire_in v, cntvct_el0, 20
    control v, 1
    unmask
    wfi
    check 2
    show v, 8
    expire_in v, cntvct_el0, 20
    control v, 1
    wfi
    check 3
    show v, 8
    finish

    guest irq_vt_spin
    check 1
    expire_in v, cntvct_el0, 20
    control v, 1
    unmask
1:  mrs x9, cntv_ctl_el0
    tbz x9, #1, 1b
    check 2
    finish

    guest wfi_pt_masked
    check 1
    expire_in p, cntpct_el0, 50
    control p, 1
    check 2
    wfi
    check 3
    show p, 16
    wfi
    check 4
    finish

    guest irq_pt
    mov x20, #1
    check 1
    expire_in p, cntpct_el0, 20
    control p, 1
    unmask
    wfi
    check 2
    show p, 16
    finish

    guest both
    check 1
    expired v
    expired p
    control v, 1
    check 2
    control p, 1
    check 3
    control v, 3
    check 4
    control p, 3
    check 5
    finish

    guest tval
    check 1
    mov x9, #-5
    msr cntv_tval_el0, x9
    control v, 1
    show v, 8
    mrs x9, cntv_tval_el0
    asr x9, x9, #63
    str x9, [x10, #24]
    check 2
    finish

    guest wfe
    check 1
    sevl
    wfe
    check 2
    wfe
    check 3
    finish

    guest cpu_suspend
    check 1
    expire_in v, cntvct_el0, 30
    control v, 1
    movz x0, #0xc400, lsl #16
    movk x0, #1
    mov x1, #0
    mov x2, #0
    mov x3, #0
    hvc #0
    str x0, [x10, #0x70]
    finish

// Lines

    guest lines
    mov x20, #2
    check 1
    mrs x9, isr_el1
    str w9, [x10, #32]
    unmask
    check 2
    msr daifset, #2
    isb
    check 3
    mrs x9, isr_el1
    str w9, [x10, #32]
    msr daifclr, #1
    isb
    check 4
    check 5
    wfi
    check 6
    finish

// Accesses and calls

    guest mmio_rd
    ldr w9, [x10, #0x40]
    str w9, [x10, #0x48]
    ldrb w9, [x10, #0x41]
    str w9, [x10, #0x48]
    ldrsh x9, [x10, #0x42]
    str x9, [x10, #0x48]
    ldr x9, [x10, #0x50]
    str x9, [x10, #0x48]
    strb w9, [x10, #0x43]
    strh w9, [x10, #0x44]
    finish

    guest ldp_mmio
    check 1
    ldp x0, x1, [x10, #0x40]
    check 2
    finish

    guest postidx
    check 1
    add x1, x10, #0x60
    ldr w0, [x1], #4
    check 2
    finish

    guest badfetch
    check 1
    mov x0, #0x20000000
    br x0

    guest psci_ver
    mov x0, #0x84000000
    hvc #0
    str x0, [x10, #0x70]
    mov x0, #0x84000000
    smc #0
    str x0, [x10, #0x78]
    finish

    guest psci_off
    call 8, 0x8400
    finish

    guest psci_reset
    call 9, 0x8400
    finish

    guest cpu_off
    check 1
    call 2, 0x8400
    finish

    guest gicread
    mov x0, #0x08000000
    ldr w1, [x0, #4]
    str w1, [x10, #0x48]
    mrs x1, s3_0_c12_c12_5          // ICC_SRE_EL1
    str x1, [x10, #0x48]
    finish

    guest bare
    finish

    .globl the_end
the_end:
